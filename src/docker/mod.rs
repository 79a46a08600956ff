//! The client of the container engine: the only place that opens its socket and the only one that knows its API.
//!
//! Speaks API 1.41 (Docker 20.10) to 1.44, and to Podman through the same calls. Decides nothing and keeps nothing but the API
//! version and a few idle connections: every call is one bounded question, on the caller's thread (`op-N`, `docker-poll`,
//! `docker-watch`); events, a log and a build last until somebody ends them. It must not know projects beyond their id, nor what a
//! caller does with an answer. Every byte of an answer is a stranger's: its size, its time and its shape are bounded here, and what
//! may be shown to people is cleaned here.

mod build;
mod container;
mod error;
mod event;
mod frames;
mod logs;
mod template;
mod unix;
mod wire;

#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::http::{Request, Response};
use ureq::{Agent, Body};

pub use build::{Build, BuildError, BuildSpec, Finished};
pub use container::{
    ApiReading, ContainerId, Health, Image, ImageRow, Inspected, LABEL_COMPOSE_PROJECT, LABEL_DEPLOYMENT,
    LABEL_INSTANCE, LABEL_PORT, LABEL_PROJECT, LABEL_SPEC, Labels, Listed, Published, State, Which,
};
pub use error::Error;
pub use event::{Aborter, Action, ContainerEvent, Events};
pub use frames::{LogLine, Output};
pub use logs::Log;
pub use template::Spec;

use crate::domain::{ContainerName, ImageRef, ProjectId, Subnet};
use crate::limits;
use error::{accepted, clean};

/// The oldest API that works: 20.10's.
pub const API_OLDEST: (u32, u32) = (1, 41);
/// The newest API that is asked for: 1.45 and later only take things away that we do not use.
pub const API_NEWEST: (u32, u32) = (1, 44);

/// Who answers at the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// The engine's own version, for people.
    pub version: String,
    /// The API version that later calls use.
    pub api: (u32, u32),
    /// Whether it is Podman.
    pub podman: bool,
}

/// The network of our containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The host's address on it.
    pub gateway: Option<IpAddr>,
}

/// How long each kind of call may take in all.
#[derive(Clone, Copy, Debug)]
struct Timeouts {
    connect: Duration,
    ping: Duration,
    list: Duration,
    call: Duration,
    stop_margin: Duration,
    image_removal: Duration,
    stall: Duration,
}

/// A handle on the engine; clones share the API version and the idle connections.
#[derive(Clone)]
pub struct Docker {
    inner: Arc<Inner>,
    timeouts: Timeouts,
}

struct Inner {
    socket: PathBuf,
    agent: Agent,
    /// Minor number of the API version; the major one is 1.
    minor: AtomicU32,
    podman: AtomicBool,
}

impl fmt::Debug for Docker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Docker").field(&self.inner.socket).finish()
    }
}

impl Docker {
    /// A client of the engine at `socket`. Does no I/O; calls before [`Docker::negotiate`] use [`API_OLDEST`].
    #[must_use]
    pub fn new(socket: &Path) -> Docker {
        Docker::with_timeouts(
            socket,
            Timeouts {
                connect: limits::DOCKER_CONNECT_MAX,
                ping: limits::DOCKER_PING_MAX,
                list: limits::DOCKER_LIST_MAX,
                call: limits::DOCKER_CALL_MAX,
                stop_margin: limits::DOCKER_STOP_MARGIN,
                image_removal: limits::DOCKER_IMAGE_REMOVE_MAX,
                stall: limits::DOCKER_BUILD_STALL_MAX,
            },
        )
    }

    fn with_timeouts(socket: &Path, timeouts: Timeouts) -> Docker {
        let inner = Inner {
            socket: socket.to_owned(),
            agent: unix::agent(socket, limits::DOCKER_IDLE_MAX, timeouts.connect),
            minor: AtomicU32::new(API_OLDEST.1),
            podman: AtomicBool::new(false),
        };
        Docker { inner: Arc::new(inner), timeouts }
    }

    /// The same engine for somebody who waits: no call takes longer than `limit`.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Docker {
        let Timeouts { connect, ping, list, call, stop_margin, image_removal, stall } = self.timeouts;
        let [connect, ping, list, call, stop_margin, image_removal, stall] =
            [connect, ping, list, call, stop_margin, image_removal, stall].map(|timeout| timeout.min(limit));
        Docker {
            inner: Arc::clone(&self.inner),
            timeouts: Timeouts { connect, ping, list, call, stop_margin, image_removal, stall },
        }
    }

    /// Asks who is there and which API later calls of all clones use. To be repeated after a lost connection, before events and
    /// list: the engine may be another one by then, and an older one refuses the newer path.
    ///
    /// # Errors
    /// `TooOld`, and as any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_PING_MAX`], twice.
    pub fn negotiate(&self) -> Result<Engine, Error> {
        let limit = self.timeouts.ping;
        let pong = self.send("GET", "/_ping", None, limit)?;
        let header = |name: &str| pong.headers().get(name).and_then(|value| value.to_str().ok());
        let offered = header("api-version")
            .and_then(|text| text.split_once('.'))
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
            .ok_or_else(|| Error::Malformed("what answers at the socket names no API version".to_owned()))?;
        let podman = header("libpod-api-version").is_some();
        self.read(pong, limits::DOCKER_ANSWER_BYTES_MAX)?;
        if offered < API_OLDEST {
            return Err(Error::TooOld);
        }
        let api = API_NEWEST.min(offered);
        self.inner.minor.store(api.1, Ordering::Relaxed);
        self.inner.podman.store(podman, Ordering::Relaxed);
        let answer =
            self.read(self.send("GET", "/version", None, limit)?, limits::DOCKER_ANSWER_BYTES_MAX)?;
        let version: wire::Version = parse(&answer)?;
        Ok(Engine { version: clean(&version.version), api, podman })
    }

    /// Every container of the engine, running or not, ours or not.
    ///
    /// # Errors
    /// As any call; one bad row is an error.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_LIST_MAX`]; 35 ms for 200 containers, measured on 20.10.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        let answer = self.send("GET", &self.versioned("/containers/json?all=1"), None, self.timeouts.list)?;
        let rows: Vec<wire::Row> = parse(&self.read(answer, limits::DOCKER_LIST_BYTES_MAX)?)?;
        rows.into_iter().filter_map(|row| row.into_listed().transpose()).collect()
    }

    /// What the engine knows of one container.
    ///
    /// # Errors
    /// `NotFound`, and as any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_CALL_MAX`]; 0.3 ms, measured on 20.10.
    pub fn inspect<'a>(&self, which: impl Into<Which<'a>>) -> Result<Inspected, Error> {
        let which = which.into();
        let found: wire::Inspect = self.get(&format!("/containers/{}/json", which.as_str()))?;
        let found = found.into_inspected()?;
        match which {
            // The engine also takes the beginning of an id for a name: "db" finds the container db3f….
            Which::Name(name) if *name != found.name => {
                Err(Error::NotFound(format!("No such container: {}", name.as_str())))
            }
            _ => Ok(found),
        }
    }

    /// What the engine knows of an image that it has.
    ///
    /// # Errors
    /// `NotFound`, and as any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_CALL_MAX`].
    pub fn image(&self, image: &ImageRef) -> Result<Image, Error> {
        self.get::<wire::ImageInspect>(&format!("/images/{}/json", image.as_str()))?.into_image()
    }

    /// The images that carry `instance`'s label, and `project`'s where one is asked for: what builds made, tagged or not.
    ///
    /// # Errors
    /// As any call; one bad row is an error.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_LIST_MAX`].
    pub fn images_of(&self, instance: &str, project: Option<ProjectId>) -> Result<Vec<ImageRow>, Error> {
        let project = project.map(|id| format!("{LABEL_PROJECT}={id}"));
        let labels: Vec<_> = std::iter::once(format!("{LABEL_INSTANCE}={instance}")).chain(project).collect();
        let filters = percent_encoded(&json!({ "label": labels }).to_string());
        let path = self.versioned(&format!("/images/json?filters={filters}"));
        let answer = self.send("GET", &path, None, self.timeouts.list)?;
        let rows: Vec<wire::ImageSummary> = parse(&self.read(answer, limits::DOCKER_LIST_BYTES_MAX)?)?;
        rows.into_iter().map(wire::ImageSummary::into_row).collect()
    }

    /// Takes the name `image` away, and removes what it referred to if nothing else refers to that. One that is gone is removed
    /// already.
    ///
    /// # Errors
    /// `Conflict` when a container uses it, and as any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_IMAGE_REMOVE_MAX`].
    pub fn remove_image(&self, image: &ImageRef) -> Result<(), Error> {
        gone(self.delete(&format!("/images/{}", image.as_str()), self.timeouts.image_removal))
    }

    /// Removes an image that a build left behind (see [`Finished::residue`]), with the images below it that nothing else is made of.
    /// Says whether it is gone now: one that a name refers to, that a container uses or that another image is made of stays.
    ///
    /// # Errors
    /// As any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_CALL_MAX`] and [`limits::DOCKER_IMAGE_REMOVE_MAX`].
    pub fn remove_residue(&self, id: &str) -> Result<bool, Error> {
        if !container::is_hex(id.strip_prefix("sha256:").unwrap_or(id)) {
            return Ok(false);
        }
        let found = match self.get::<wire::ImageInspect>(&format!("/images/{id}/json")) {
            Err(Error::NotFound(_)) => return Ok(true),
            found => found?,
        };
        let Some(id) = found.untagged()? else { return Ok(false) };
        match gone(self.delete(&format!("/images/{id}"), self.timeouts.image_removal)) {
            Err(Error::Conflict(_)) => Ok(false),
            removed => removed.map(|()| true),
        }
    }

    /// Where the engine keeps its images and containers, as a path on its host: the file system that builds fill.
    ///
    /// # Errors
    /// As any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_CALL_MAX`].
    pub fn root_dir(&self) -> Result<PathBuf, Error> {
        let info: wire::Info = self.get("/info")?;
        if info.docker_root_dir.is_absolute() {
            Ok(info.docker_root_dir)
        } else {
            Err(Error::Malformed("the engine does not say where its images are".to_owned()))
        }
    }

    /// Makes a container from the fixed template and does not start it. Pulls nothing.
    ///
    /// # Errors
    /// `Conflict` when the name is taken, `NotFound` when the engine has no such image, and as any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_CALL_MAX`]; 9 ms, measured on 20.10.
    pub fn create(&self, spec: &Spec) -> Result<ContainerId, Error> {
        let path = format!("/containers/create?name={}", spec.name.as_str());
        let answer = self.post(&path, Some(&spec.create_body()), self.timeouts.call)?;
        wire::container_id(&parse::<wire::Created>(&answer)?.id)
    }

    /// Starts a container; one that runs is started already.
    ///
    /// # Errors
    /// `Conflict` when its published port is taken, `NotFound`, `Refused` when its process cannot be started, and as any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_CALL_MAX`]; 0.3 s, at times 1.5 s, measured on 20.10.
    pub fn start<'a>(&self, which: impl Into<Which<'a>>) -> Result<(), Error> {
        self.post(&format!("/containers/{}/start", self.segment(which.into())?), None, self.timeouts.call)?;
        Ok(())
    }

    /// Asks a container's process to end, and kills it after `grace_s` seconds (at most [`limits::DOCKER_STOP_GRACE_MAX_S`]); one
    /// that does not run is stopped already.
    ///
    /// # Errors
    /// `NotFound`, and as any call.
    ///
    /// # Blocks
    /// Up to the grace and [`limits::DOCKER_STOP_MARGIN`].
    pub fn stop<'a>(&self, which: impl Into<Which<'a>>, grace_s: u32) -> Result<(), Error> {
        let grace_s = grace_s.min(limits::DOCKER_STOP_GRACE_MAX_S);
        let path = format!("/containers/{}/stop?t={grace_s}", self.segment(which.into())?);
        self.post(&path, None, Duration::from_secs(grace_s.into()) + self.timeouts.stop_margin)?;
        Ok(())
    }

    /// Freezes a running container; one that is paused stays so.
    ///
    /// # Errors
    /// `Conflict` when it does not run, `NotFound`, and as any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_CALL_MAX`]; 14 ms, measured on 20.10.
    pub fn pause<'a>(&self, which: impl Into<Which<'a>>) -> Result<(), Error> {
        self.reach(which.into(), "pause", State::Paused)
    }

    /// Thaws a paused container; one that runs stays so.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` or `Refused` when it is neither paused nor running, and as any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_CALL_MAX`]; 14 ms, measured on 20.10.
    pub fn unpause<'a>(&self, which: impl Into<Which<'a>>) -> Result<(), Error> {
        self.reach(which.into(), "unpause", State::Running)
    }

    /// Removes a container but not its volumes, which are its user's; `force` kills it first. One that is gone is removed already.
    ///
    /// # Errors
    /// `Conflict` when it runs and `force` is not set, and as any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_CALL_MAX`]; 7 ms, measured on 20.10.
    pub fn remove<'a>(&self, which: impl Into<Which<'a>>, force: bool) -> Result<(), Error> {
        let removed = self.segment(which.into()).and_then(|container| {
            self.delete(&format!("/containers/{container}?force={force}"), self.timeouts.call)
        });
        gone(removed)
    }

    /// The last `lines` lines (at most [`limits::DOCKER_LOG_LINES_MAX`]) that a container wrote to either stream, fewer where they
    /// have more than [`limits::DOCKER_LOG_KEEP_BYTES`].
    ///
    /// # Errors
    /// `NotFound`, and as any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_CALL_MAX`], twice: the answer's type says whether it is framed only since API 1.42, so the container
    /// is asked.
    pub fn logs<'a>(&self, which: impl Into<Which<'a>>, lines: u32) -> Result<Vec<LogLine>, Error> {
        let found = self.inspect(which)?;
        let path = log_path(&found) + &tail(lines);
        let answer = self.send("GET", &self.versioned(&path), None, self.timeouts.call)?;
        let log = answer.into_body().into_with_config().limit(limits::DOCKER_LOG_READ_BYTES_MAX).reader();
        let tail = frames::read_tail(log, !found.tty, limits::DOCKER_LOG_KEEP_BYTES);
        tail.map(Vec::from).map_err(|e| match e.kind() {
            io::ErrorKind::InvalidData => Error::Malformed(e.to_string()),
            _ => self.broken(e.into()),
        })
    }

    /// The text of [`Docker::logs`], each line with its end.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Blocks
    /// As there.
    pub fn logs_tail<'a>(&self, which: impl Into<Which<'a>>, lines: u32) -> Result<String, Error> {
        Ok(self.logs(which, lines)?.into_iter().fold(String::new(), |text, line| text + &line.text + "\n"))
    }

    /// Opens a container's log on a connection of its own: its last `lines` lines, or all that was written from `since` on, and then what
    /// is written until the container ends.
    ///
    /// # Errors
    /// `NotFound`, and as any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_CALL_MAX`], and [`limits::DOCKER_PING_MAX`] for the beginning of the answer.
    pub fn follow_logs<'a>(
        &self,
        which: impl Into<Which<'a>>,
        lines: u32,
        since: Option<SystemTime>,
    ) -> Result<(Log, Aborter), Error> {
        let found = self.inspect(which)?;
        let since = since.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let from = since
            .map_or_else(|| tail(lines), |at| format!("&since={}.{:09}", at.as_secs(), at.subsec_nanos()));
        let path = log_path(&found) + "&follow=1" + &from;
        let (agent, answer) = self.open(&path)?;
        Ok(Log::open(agent, answer.into_body().into_reader(), !found.tty))
    }

    /// Makes sure that `instance` has its bridge network `name`, on which the host reaches containers and containers do not reach
    /// each other. Any number of callers may race.
    ///
    /// Podman (4.3) has no such separation: it drops the option, and its network is taken as it is.
    ///
    /// The bridge gets a name of its own, since that is what the engine refuses twice: 20.10 makes six networks of one name when
    /// six callers ask at once, `CheckDuplicate` or not, and every later use of the name is then ambiguous.
    ///
    /// # Errors
    /// `Conflict` when a network of that name is not ours or lets containers talk, and as any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_CALL_MAX`], for each of at most [`limits::DOCKER_NETWORK_TRIES`] rounds twice; 0.2 s, measured.
    pub fn ensure_network(&self, name: &str, instance: &str) -> Result<Network, Error> {
        let body = json!({
            "Name": name,
            "CheckDuplicate": true,
            "Driver": "bridge",
            "Options": {
                OPTION_ICC: "false",
                OPTION_BRIDGE: format!("mu-{:08x}", template::fnv1a(name.as_bytes()) >> 32),
            },
            "Labels": { LABEL_INSTANCE: instance },
        });
        let podman = self.inner.podman.load(Ordering::Relaxed);
        let mut lost = Error::Conflict(format!("the network {name} cannot be made"));
        for _ in 0..limits::DOCKER_NETWORK_TRIES {
            match self.get::<wire::NetworkInspect>(&network_path(name)?) {
                Ok(found) if found.is_of(instance, podman) => {
                    return Ok(Network { gateway: found.gateway() });
                }
                Ok(_) => {
                    return Err(Error::Conflict(format!(
                        "the network {name} exists and is not muelle's: rename or remove it"
                    )));
                }
                Err(Error::NotFound(_)) => {}
                Err(other) => return Err(other),
            }
            match self.post("/networks/create", Some(&body), self.timeouts.call) {
                Ok(_) => {}
                // Somebody was faster: the name (409) or its bridge (403, "networks have same bridge name") is there.
                Err(e @ (Error::Conflict(_) | Error::Refused { status: 403, .. })) => lost = e,
                Err(other) => return Err(other),
            }
        }
        Err(lost)
    }

    /// The subnets of the engine's bridge networks, muelle's and others: where its containers have their addresses.
    ///
    /// # Errors
    /// As any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_LIST_MAX`].
    pub fn bridge_subnets(&self) -> Result<Vec<Subnet>, Error> {
        let filters = percent_encoded(r#"{"driver":["bridge"]}"#);
        let path = self.versioned(&format!("/networks?filters={filters}"));
        let answer =
            self.read(self.send("GET", &path, None, self.timeouts.list)?, limits::DOCKER_ANSWER_BYTES_MAX)?;
        let networks: Vec<wire::NetworkInspect> = parse(&answer)?;
        Ok(networks.iter().flat_map(wire::NetworkInspect::subnets).collect())
    }

    /// Removes a network; one that is gone is removed already.
    ///
    /// # Errors
    /// `Refused` while containers run on it, and as any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_CALL_MAX`].
    pub fn remove_network(&self, name: &str) -> Result<(), Error> {
        gone(self.delete(&network_path(name)?, self.timeouts.call))
    }

    /// The engine's counters of a container; `None` where it does not run. For where the cgroup files cannot be read.
    ///
    /// # Errors
    /// `NotFound`, and as any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_CALL_MAX`]; engines before 24.0.7 answer at their collector's tick, up to 1 s later, so that many
    /// containers need as many threads.
    pub fn stats(&self, id: &ContainerId) -> Result<Option<ApiReading>, Error> {
        let path = self.versioned(&format!("/containers/{id}/stats?stream=false&one-shot=true"));
        let answer =
            self.read(self.send("GET", &path, None, self.timeouts.call)?, limits::DOCKER_ANSWER_BYTES_MAX)?;
        if answer.trim_ascii().is_empty() {
            return Ok(None); // Podman 4.3, not running
        }
        Ok(parse::<wire::Stats>(&answer)?.into_reading())
    }

    /// Opens the stream of what happens to containers, ours or not, on a connection of its own. `since` (seconds and nanoseconds
    /// since 1970) repeats what a living engine remembers of the time since then (its last 256 events); one that was restarted
    /// remembers nothing.
    ///
    /// # Errors
    /// As any call.
    ///
    /// # Blocks
    /// Up to [`limits::DOCKER_PING_MAX`] for the beginning of the answer.
    pub fn events(&self, since: Option<(i64, u32)>) -> Result<(Events, Aborter), Error> {
        let filters = json!({ "type": ["container"], "event": event::NAMES }).to_string();
        let mut path = format!("/events?filters={}", percent_encoded(&filters));
        if let Some((seconds, nanos)) = since {
            path = format!("{path}&since={seconds}.{nanos:09}");
        }
        let (agent, answer) = self.open(&path)?;
        Ok(Events::open(agent, answer.into_body().into_reader()))
    }

    /// Begins an answer that has no end, on a connection of its own.
    fn open(&self, path: &str) -> Result<(Agent, Response<Body>), Error> {
        let request = Request::get(format!("http://engine{}", self.versioned(path)))
            .body(())
            .map_err(|e| self.broken(e.into()))?;
        let agent = unix::agent(&self.inner.socket, 0, self.timeouts.connect);
        let request =
            agent.configure_request(request).timeout_recv_response(Some(self.timeouts.ping)).build();
        let answer = agent.run(request).map_err(|e| self.broken(e))?;
        let status = answer.status().as_u16();
        if status != 200 {
            // Its reason is not waited for: nothing bounds the rest of this answer.
            return Err(Error::Refused {
                status,
                message: format!("the engine refuses a stream ({status})"),
            });
        }
        Ok((agent, answer))
    }

    /// Pause and unpause have no "already so" status, and engines differ in how they refuse: the state says.
    fn reach(&self, which: Which<'_>, verb: &str, wanted: State) -> Result<(), Error> {
        let refused = match self.post(
            &format!("/containers/{}/{verb}", self.segment(which)?),
            None,
            self.timeouts.call,
        ) {
            Err(e @ (Error::Conflict(_) | Error::Refused { .. })) => e,
            done => return done.map(drop),
        };
        if self.inspect(which)?.state == wanted { Ok(()) } else { Err(refused) }
    }

    /// The path segment that means exactly `which`: a name that could be the beginning of an id is looked up first.
    fn segment<'a>(&self, which: Which<'a>) -> Result<Cow<'a, str>, Error> {
        match which {
            Which::Name(name) if container::is_hex(name.as_str()) => {
                Ok(Cow::Owned(self.inspect(name)?.id.as_str().to_owned()))
            }
            Which::Name(name) => Ok(Cow::Borrowed(name.as_str())),
            Which::Id(id) => Ok(Cow::Borrowed(id.as_str())),
        }
    }

    fn versioned(&self, path: &str) -> String {
        format!("/v{}.{}{path}", API_OLDEST.0, self.inner.minor.load(Ordering::Relaxed))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let answer = self.send("GET", &self.versioned(path), None, self.timeouts.call)?;
        parse(&self.read(answer, limits::DOCKER_ANSWER_BYTES_MAX)?)
    }

    fn post(&self, path: &str, json: Option<&Value>, limit: Duration) -> Result<Vec<u8>, Error> {
        let answer = self.send("POST", &self.versioned(path), json, limit)?;
        self.read(answer, limits::DOCKER_ANSWER_BYTES_MAX)
    }

    fn delete(&self, path: &str, limit: Duration) -> Result<(), Error> {
        let answer = self.send("DELETE", &self.versioned(path), None, limit)?;
        self.read(answer, limits::DOCKER_ANSWER_BYTES_MAX).map(drop)
    }

    fn read(&self, answer: Response<Body>, bytes_max: u64) -> Result<Vec<u8>, Error> {
        answer.into_body().into_with_config().limit(bytes_max).read_to_vec().map_err(|e| self.broken(e))
    }

    /// Asks, and asks a second time within the same deadline where an idle connection turned out to be dead and the question
    /// changes nothing.
    fn send(
        &self,
        method: &str,
        path: &str,
        json: Option<&Value>,
        limit: Duration,
    ) -> Result<Response<Body>, Error> {
        let deadline = Instant::now() + limit;
        let answer = match self.attempt(method, path, json, limit) {
            Err(ureq::Error::Io(e)) if method == "GET" && is_dead_connection(&e) => {
                self.attempt(method, path, json, deadline.saturating_duration_since(Instant::now()))
            }
            answer => answer,
        };
        accepted(answer.map_err(|e| self.broken(e))?)
    }

    fn attempt(
        &self,
        method: &str,
        path: &str,
        json: Option<&Value>,
        limit: Duration,
    ) -> Result<Response<Body>, ureq::Error> {
        let agent = &self.inner.agent;
        let request = Request::builder().method(method).uri(format!("http://engine{path}"));
        if method == "GET" {
            let request = agent.configure_request(request.body(())?).timeout_global(Some(limit)).build();
            return agent.run(request);
        }
        // A body of known length, be it empty: without one ureq sends a chunked body, and 20.10 refuses a start with a body.
        let (request, body) = match json {
            Some(json) => (request.header("content-type", "application/json"), json.to_string()),
            None => (request, String::new()),
        };
        agent.run(agent.configure_request(request.body(body)?).timeout_global(Some(limit)).build())
    }

    fn broken(&self, e: ureq::Error) -> Error {
        let socket = self.inner.socket.display();
        match e {
            ureq::Error::Io(e) => {
                Error::Unavailable(clean(&format!("no answer from the engine at {socket}: {e}")))
            }
            ureq::Error::Timeout(_) => {
                Error::Unavailable(clean(&format!("the engine at {socket} did not answer in time")))
            }
            other => Error::Malformed(clean(&other.to_string())),
        }
    }
}

const OPTION_ICC: &str = "com.docker.network.bridge.enable_icc";
const OPTION_BRIDGE: &str = "com.docker.network.bridge.name";

impl wire::NetworkInspect {
    fn is_of(&self, instance: &str, podman: bool) -> bool {
        self.driver == "bridge"
            && (podman || self.options.get(OPTION_ICC).map(String::as_str) == Some("false"))
            && self.labels.get(LABEL_INSTANCE).map(String::as_str) == Some(instance)
    }
}

fn log_path(found: &Inspected) -> String {
    format!("/containers/{}/logs?stdout=1&stderr=1&timestamps=1", found.id)
}

fn tail(lines: u32) -> String {
    format!("&tail={}", lines.min(limits::DOCKER_LOG_LINES_MAX))
}

/// A network's name comes from the configuration: here it becomes safe in a path, and unlike the beginning of an id.
fn network_path(name: &str) -> Result<String, Error> {
    match ContainerName::parse(name) {
        Ok(valid) if valid.as_str() == name && !container::is_hex(name) => Ok(format!("/networks/{name}")),
        _ => Err(Error::Refused {
            status: 400,
            message: format!("\"{}\" cannot be a network's name", clean(name)),
        }),
    }
}

fn gone(removed: Result<(), Error>) -> Result<(), Error> {
    match removed {
        Err(Error::NotFound(_)) => Ok(()),
        other => other,
    }
}

fn is_dead_connection(e: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(e.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(answer).map_err(|e| Error::Malformed(clean(&e.to_string())))
}

/// RFC 3986 §2.1.
fn percent_encoded(text: &str) -> String {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    text.bytes().fold(String::new(), |mut encoded, b| {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            encoded.push(char::from(b));
        } else {
            encoded.extend(['%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
        }
        encoded
    })
}
