//! The interface for clients: routes, tokens, JSON, CORS. The only module that serialises for them.
//!
//! A request goes through [`Door`] from top to bottom: host, preflight, route, token, body, handler, CORS. Handlers that answer from
//! memory run on the connection's thread, the others on a pool; none waits for a container.

pub mod auth;
mod containers;
mod deployments;
mod domains;
pub mod failure;
pub mod feed;
mod fields;
mod health;
mod hooks;
mod logs;
mod metrics;
pub mod origin;
mod projects;
mod request;
pub mod routes;
mod sessions;
pub mod wire;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::bounded;
use serde::Serialize;

use self::failure::Failure;
use self::origin::Origins;
use self::request::{Budget, Call, Caller, Hook};
use self::routes::{Access, Answer, Found, Place, Route};
use crate::auth::throttle::Throttle;
use crate::auth::token::{Keys, Kind};
use crate::docker::Docker;
use crate::domain::idle::Rule;
use crate::domain::{Addresses, ProjectId};
use crate::host;
use crate::http::{self, Bytes, Head, Refusal, Request, Response};
use crate::limits;
use crate::runtime::Runtime;
use crate::store::{self, Logs, Store};
use crate::threads::Pool;

/// Whose a host is.
pub type Find = Box<dyn Fn(&str) -> Option<ProjectId> + Send + Sync>;

/// What the interface is made of.
pub struct Parts {
    /// Decides about projects, and shows them.
    pub runtime: Runtime,
    /// Users, sessions, projects.
    pub store: Arc<Store>,
    /// Asked about images and containers before a project is made of them.
    pub docker: Docker,
    /// Signs and checks tokens.
    pub keys: Keys,
    /// Whose pages may call.
    pub origins: Origins,
    /// The words for a status.
    pub words: wire::Words,
    /// Event ids.
    pub ids: feed::Ids,
    /// Who may make an account.
    pub registration: auth::Registration,
    /// How long an access token lives.
    pub token_lifetime: Duration,
    /// How long a session lives that is not refreshed.
    pub session_lifetime: Duration,
    /// Proxies whose word about the client's address is taken.
    pub trusted_peers: Vec<IpAddr>,
    /// What the front counts.
    pub door: Arc<http::Counters>,
    /// Other machines that may read `/metrics`.
    pub metrics_allow: Vec<IpAddr>,
    /// Most memory of one project, in MiB.
    pub project_memory_mb_max: u32,
    /// Most CPUs of one project.
    pub project_cpus_max: f64,
    /// How apps are reached through the proxy; `None` where there is none.
    pub addresses: Option<Addresses>,
    /// Who is put to sleep.
    pub sleep: Rule,
    /// Whose a host is, by the proxy.
    pub find: Find,
    /// The host under which this interface is reachable through the proxy.
    pub panel_host: Option<String>,
    /// What deployments said.
    pub logs: Logs,
    /// Whether a repository may be fetched without TLS.
    pub allow_http: bool,
    /// Whether a repository may be on this machine or its network.
    pub allow_private_hosts: bool,
    /// For how long a thread may be silent before `GET /healthz` calls it stuck.
    pub stuck_after: Duration,
}

/// The interface.
pub struct Api {
    runtime: Runtime,
    store: Arc<Store>,
    docker: Docker,
    keys: Keys,
    origins: Origins,
    words: wire::Words,
    ids: feed::Ids,
    registration: auth::Registration,
    token_lifetime: Duration,
    session_lifetime: Duration,
    trusted_peers: Vec<IpAddr>,
    door: Arc<http::Counters>,
    metrics_allow: Vec<IpAddr>,
    answers: metrics::Answers,
    project_memory_mb_max: u32,
    project_cpus_max: f64,
    addresses: Option<Addresses>,
    sleep: Rule,
    find: Find,
    panel_host: Option<String>,
    logs: Logs,
    allow_http: bool,
    allow_private_hosts: bool,
    sessions: sessions::Sessions,
    throttle: Mutex<Throttle>,
    vital: health::Vital,
    stuck_after: Duration,
    requests: AtomicU64,
    began: Instant,
    started: SystemTime,
}

/// The interface with its threads: what the front calls.
pub struct Door {
    api: Arc<Api>,
    pool: Pool,
    engine: Pool,
    logins: Pool,
    bodies: Budget,
}

impl Api {
    /// Builds it and reads the users and sessions.
    ///
    /// # Errors
    /// Those of the store.
    ///
    /// # Blocks
    /// On two queries.
    pub fn new(parts: Parts) -> Result<Arc<Api>, store::Error> {
        let api = Api {
            runtime: parts.runtime,
            store: parts.store,
            docker: parts.docker.within(limits::API_ENGINE_MAX),
            keys: parts.keys,
            origins: parts.origins,
            words: parts.words,
            ids: parts.ids,
            registration: parts.registration,
            token_lifetime: parts.token_lifetime,
            session_lifetime: parts.session_lifetime,
            trusted_peers: parts.trusted_peers.iter().map(IpAddr::to_canonical).collect(),
            door: parts.door,
            metrics_allow: parts.metrics_allow.iter().map(IpAddr::to_canonical).collect(),
            answers: metrics::Answers::default(),
            project_memory_mb_max: parts.project_memory_mb_max,
            project_cpus_max: parts.project_cpus_max,
            addresses: parts.addresses,
            sleep: parts.sleep,
            find: parts.find,
            panel_host: parts.panel_host,
            logs: parts.logs,
            allow_http: parts.allow_http,
            allow_private_hosts: parts.allow_private_hosts,
            sessions: sessions::Sessions::default(),
            throttle: Mutex::default(),
            vital: health::Vital::default(),
            stuck_after: parts.stuck_after,
            requests: AtomicU64::new(1),
            began: Instant::now(),
            started: SystemTime::now(),
        };
        api.reload()?;
        Ok(Arc::new(api))
    }

    /// Reads users and sessions anew, and ends the streams of sessions that are no more.
    ///
    /// # Errors
    /// Those of the store.
    ///
    /// # Blocks
    /// On two queries.
    pub fn reload(&self) -> Result<(), store::Error> {
        let ended = self.sessions.reload(&self.store.reader()?)?;
        self.end_sessions(&ended, "the session was ended");
        Ok(())
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who asks, by the token.
    fn caller(&self, token: Option<&str>) -> Result<Caller, Failure> {
        let token = token.ok_or_else(Failure::unauthorized)?;
        let claims =
            self.keys.verify(Kind::Access, token, SystemTime::now()).ok_or_else(Failure::unauthorized)?;
        let user = self.sessions.user(claims.session, claims.user).ok_or_else(Failure::unauthorized)?;
        Ok(Caller { user, session: claims.session })
    }

    /// Whether a container calls. Listening on all addresses is meant for the machines around, not for what runs here: an app that was
    /// taken over must not try passwords on what rules its engine.
    fn is_container(&self, peer: SocketAddr) -> bool {
        // Every interface has link-local addresses, whatever the engine says of its networks.
        let by_link = matches!(peer, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && host::is_bridge(v6.scope_id()));
        let peer = peer.ip().to_canonical();
        let engine = &self.runtime.snapshot().engine;
        !self.trusted_peers.contains(&peer)
            && (by_link || engine.bridges.iter().any(|subnet| subnet.contains(peer)))
            // The host itself, calling itself by its address on a bridge.
            && !host::is_local_address(peer)
    }

    /// The client's address: the peer's, or what a trusted proxy says.
    fn address(&self, peer: IpAddr, head: &Head) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.trusted_peers.contains(&peer) {
            return peer;
        }
        // From the right, where the proxies of ours wrote; what cannot be read ends it, since left of that anybody may have written.
        let list: Vec<&str> = head.all("x-forwarded-for").flat_map(|list| list.split(',')).collect();
        for entry in list.iter().rev() {
            let entry = entry.trim();
            let with_port = || entry.parse::<SocketAddr>().map(|address| address.ip());
            match entry.parse::<IpAddr>().or_else(|_| with_port()).map(|ip| ip.to_canonical()) {
                Ok(ip) if self.trusted_peers.contains(&ip) => {}
                Ok(ip) => return ip,
                Err(_) => return peer,
            }
        }
        peer
    }
}

/// Whether the peer is this machine, with no proxy between.
fn is_local(peer: IpAddr, head: &Head) -> bool {
    let forwarded = head.headers().any(|(name, _)| {
        let name = name.to_ascii_lowercase();
        name == "forwarded" || name.starts_with("x-forwarded") || name == "x-real-ip"
    });
    peer.to_canonical().is_loopback() && !forwarded
}

impl Door {
    /// The interface behind its pools; their threads start when they are needed.
    #[must_use]
    pub fn new(api: Arc<Api>) -> Door {
        let pool = Pool::new("api", limits::API_THREADS, limits::API_QUEUE, limits::STACK_DEFAULT);
        let engine =
            Pool::new("engine", limits::API_ENGINE_THREADS, limits::API_ENGINE_QUEUE, limits::STACK_DEFAULT);
        let logins = Pool::new("login", limits::LOGIN_THREADS, limits::LOGIN_QUEUE, limits::STACK_DEFAULT);
        Door { api, pool, engine, logins, bodies: Budget::default() }
    }

    /// Answers; `found` becomes the route, where there is one.
    fn answer(
        &self,
        request: &mut Request<'_>,
        request_id: &str,
        found: &mut Option<&'static Route>,
    ) -> Answer {
        let head = request.head();
        let may_read = || {
            routes::is_local(head.path())
                && self.api.metrics_allow.contains(&request.peer().ip().to_canonical())
        };
        if self.api.is_container(request.peer()) && !may_read() {
            let sentence = "Containers may not call this interface; a proxy in one belongs in trusted_peers";
            return Err(Failure::new(403, "ContainerRefused", sentence));
        }
        if !self.api.origins.knows_host(head) {
            let sentence = "This host name is not one of this server's; add it to api.hosts in config.toml";
            return Err(Failure::new(421, "MisdirectedRequest", sentence));
        }
        if head.method().as_str() == "OPTIONS" {
            return Ok(origin::preflight());
        }
        let (route, project, number) = match routes::find(head.method().as_str(), head.path()) {
            Found::Route(route, project, number) => (route, project, number),
            Found::Methods(methods) => {
                let failure = Failure::new(405, "MethodNotAllowed", "This method is not allowed here");
                return Err(Failure { allow: Some(methods), ..failure });
            }
            Found::Nothing => return Err(Failure::not_found()),
        };
        *found = Some(route);
        let token = request::token(head, route.access == Access::Stream);
        if route.access == Access::Stream && self.api.origins.is_foreign(head) {
            return Err(Failure::new(403, "ForeignOrigin", "This page may not listen here"));
        }
        let caller = match route.access {
            Access::Open | Access::Local | Access::Signed => None,
            Access::User | Access::Stream => Some(self.api.caller(token.as_deref())?),
        };
        let peer = request.peer().ip();
        let (address, is_local) = (self.api.address(peer, head), is_local(peer, head));
        if route.access == Access::Local && !is_local && !self.api.metrics_allow.contains(&address) {
            let sentence = "This is for programs on this machine; metrics.allow in config.toml names others";
            return Err(Failure::new(403, "Forbidden", sentence));
        }
        let query = head.query().map(str::to_owned);
        let last_event_id = head.get("last-event-id").map(str::to_owned);
        let hook = if route.access == Access::Signed { Hook::of(head) } else { Hook::default() };
        let (body, share) = match route.access {
            Access::Signed => request::read_raw(request, &self.bodies)?,
            _ => request::read_body(request, &self.bodies)?,
        };
        let id = request_id.to_owned();
        let call = Call {
            project,
            number,
            caller,
            query,
            last_event_id,
            hook,
            body,
            share,
            token,
            address,
            is_local,
            id,
        };
        self.run(route, call)
    }

    fn run(&self, route: &'static Route, call: Call) -> Answer {
        let pool = match route.place {
            Place::Here => return (route.handler)(&self.api, &call),
            Place::Pool => &self.pool,
            Place::Engine => &self.engine,
            Place::Login => {
                auth::slow_down(&self.api, &call)?;
                &self.logins
            }
        };
        let (done, answer) = bounded(1);
        let api = Arc::clone(&self.api);
        // The connection may be gone when the answer is there; nobody else wants it then.
        pool.submit(move || drop(done.send((route.handler)(&api, &call)))).map_err(|_| Failure::busy())?;
        answer.recv().unwrap_or_else(|_| Err(Failure::internal("the handler panicked")))
    }

    fn request_id(&self) -> String {
        format!("r{}", self.api.requests.fetch_add(1, Ordering::Relaxed))
    }

    fn finish(&self, response: Response, head: Option<&Head>) -> Response {
        self.api.origins.mark(response, head).header("X-Content-Type-Options", "nosniff")
    }
}

impl http::Handler for Door {
    fn handle(&self, request: &mut Request<'_>) -> Response {
        let (id, mut route) = (self.request_id(), None);
        let response = self.answer(request, &id, &mut route).unwrap_or_else(|failure| failure.response(&id));
        self.api.answers.count(route, response.status());
        self.finish(response, Some(request.head()))
    }

    fn refuse(&self, refusal: &Refusal, head: Option<&Head>) -> Response {
        self.finish(Failure::from(*refusal).response(&self.request_id()), head)
    }
}

/// JSON of what cannot fail to be JSON: our own types and values.
fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts, numbers and maps with text keys")
}

fn json(status: u16, value: &impl Serialize) -> Response {
    json_bytes(status, encode(value))
}

fn json_bytes(status: u16, bytes: impl Into<Bytes>) -> Response {
    Response::bytes(status, bytes)
        .header("Content-Type", "application/json")
        .header("Cache-Control", "no-store")
}
