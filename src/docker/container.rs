//! What the engine says about a container, in our words.
//!
//! Knows no JSON and does no I/O.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use crate::domain::{ContainerName, ImageRef, Invalid, ProjectId};

/// The label that every container and network of one muelle carries, with the instance's name.
pub const LABEL_INSTANCE: &str = "muelle.instance";
/// The label with the project's id.
pub const LABEL_PROJECT: &str = "muelle.project";
/// The label with the fingerprint of what the container was created from.
pub const LABEL_SPEC: &str = "muelle.spec";
/// The label with the number of the deployment that made an image, and that a container runs.
pub const LABEL_DEPLOYMENT: &str = "muelle.deployment";
/// The label with the port that the app was told to listen on; empty where there was none to tell.
pub const LABEL_PORT: &str = "muelle.port";
/// The label that docker compose puts on its containers.
pub const LABEL_COMPOSE_PROJECT: &str = "com.docker.compose.project";

/// The engine's id of a container: 64 hex digits, which never match another container by prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    /// Accepts a full id.
    ///
    /// # Errors
    /// When it is anything else, a short id included.
    pub fn parse(raw: &str) -> Result<ContainerId, Invalid> {
        if raw.len() == 64 && is_hex(raw) {
            Ok(ContainerId(raw.to_owned()))
        } else {
            Err(Invalid::new("not a container id"))
        }
    }

    /// The 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether the engine could take `text` for the beginning of an id.
pub(super) fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The container that a call is about.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    /// The one with this id.
    Id(&'a ContainerId),
    /// The one with exactly this name.
    Name(&'a ContainerName),
}

impl<'a> From<&'a ContainerId> for Which<'a> {
    fn from(id: &'a ContainerId) -> Which<'a> {
        Which::Id(id)
    }
}

impl<'a> From<&'a ContainerName> for Which<'a> {
    fn from(name: &'a ContainerName) -> Which<'a> {
        Which::Name(name)
    }
}

impl Which<'_> {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Which::Id(id) => id.as_str(),
            Which::Name(name) => name.as_str(),
        }
    }
}

/// The engine's state of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Made, never started, or its start failed.
    Created,
    /// Its process runs.
    Running,
    /// Its process is frozen.
    Paused,
    /// Between two tries of its own restart policy.
    Restarting,
    /// About to be gone.
    Removing,
    /// Its process ended.
    Exited,
    /// Could not be removed; also a word that we do not know.
    Dead,
}

impl State {
    pub(super) fn parse(word: &str) -> State {
        match word {
            "created" | "configured" | "initialized" => State::Created,
            "running" | "stopping" => State::Running, // "stopping" is Podman's
            "paused" => State::Paused,
            "restarting" => State::Restarting,
            "removing" => State::Removing,
            "exited" | "stopped" => State::Exited, // "stopped" is Podman's
            _ => State::Dead,
        }
    }
}

/// What a container's health check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// There is no health check.
    None,
    /// No verdict yet.
    Starting,
    /// The last probe succeeded.
    Healthy,
    /// Too many probes failed.
    Unhealthy,
}

impl Health {
    pub(super) fn parse(word: &str) -> Health {
        match word {
            "starting" => Health::Starting,
            "healthy" => Health::Healthy,
            "unhealthy" => Health::Unhealthy,
            _ => Health::None, // "none", and Podman's ""
        }
    }
}

/// The labels that matter to us: `muelle.*` and compose's project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    pub(super) fn pick(mut all: BTreeMap<String, String>) -> Labels {
        all.retain(|name, _| name.starts_with("muelle.") || name == LABEL_COMPOSE_PROJECT);
        Labels(all)
    }

    /// The value of a label.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The project in [`LABEL_PROJECT`], where it is a well-formed id.
    #[must_use]
    pub fn project(&self) -> Option<ProjectId> {
        self.get(LABEL_PROJECT).and_then(ProjectId::parse)
    }

    /// The deployment in [`LABEL_DEPLOYMENT`], where it is a number.
    #[must_use]
    pub fn deployment(&self) -> Option<u32> {
        self.get(LABEL_DEPLOYMENT)?.parse().ok()
    }

    /// Whether some muelle, this one or another, made the container. Other labels that begin alike are anybody's.
    #[must_use]
    pub fn is_muelle(&self) -> bool {
        [LABEL_INSTANCE, LABEL_PROJECT, LABEL_SPEC].iter().any(|name| self.get(name).is_some())
    }
}

/// Published TCP ports: from the port inside the container to where the host can connect to it.
pub type Published = BTreeMap<u16, SocketAddr>;

/// A row of the engine's list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: ContainerName,
    /// The image as it was named at the create.
    pub image: String,
    /// Its state.
    pub state: State,
    /// The engine's sentence for people: `Up 4 seconds (unhealthy)`, `Exited (137) 9 seconds ago`.
    pub status: String,
    /// Its labels.
    pub labels: Labels,
    /// Its published TCP ports; empty while it does not run.
    pub published: Published,
}

/// All that we read of one container.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspected {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: ContainerName,
    /// The id of its image, `sha256:…`.
    pub image_id: String,
    /// Its state.
    pub state: State,
    /// The host's pid of its first process; `None` while it does not run.
    pub pid: Option<u32>,
    /// When it was last started; `None` if never.
    pub started_at: Option<SystemTime>,
    /// How its last process ended; 0 while it runs.
    pub exit_code: i64,
    /// Whether it ended for want of memory.
    pub oom_killed: bool,
    /// Why its last start failed, in the engine's words; empty where it did not.
    pub error: String,
    /// How often its own restart policy restarted it.
    pub restart_count: u64,
    /// What its health check says.
    pub health: Health,
    /// Its labels.
    pub labels: Labels,
    /// Its own CPU limit, in CPUs; `None` without one.
    pub capacity: Option<f64>,
    /// Whether the engine removes it when it ends (`--rm`).
    pub auto_remove: bool,
    /// Its address on each network that gave it one; they change at every start and are empty while it does not run.
    pub addresses: BTreeMap<String, IpAddr>,
    /// Its published TCP ports; empty while it does not run.
    pub published: Published,
    /// The TCP ports that the image or the create declared, rising.
    pub exposed_ports: Vec<u16>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// The name of its own restart policy: `no`, `always`, `unless-stopped`, `on-failure`.
    pub restart_policy: String,
}

/// What we read of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its id, `sha256:…`.
    pub id: String,
    /// The TCP ports that it declares, rising.
    pub exposed_ports: Vec<u16>,
    /// Whether it has a health check.
    pub has_healthcheck: bool,
}

/// An image in the engine's list. Its labels are what a Dockerfile may say as well: they find images, they prove nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRow {
    /// Its id, `sha256:…`.
    pub id: String,
    /// The names that refer to it.
    pub tags: Vec<ImageRef>,
    /// The project in its label, where it has one.
    pub project: Option<ProjectId>,
    /// The deployment in its label, where it has one.
    pub deployment: Option<u32>,
}

/// One reading of a container's counters by the engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ApiReading {
    /// CPU time used since the container started, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory in use without inactive file cache, in bytes.
    pub memory_bytes: u64,
    /// When the engine read them.
    pub read: SystemTime,
    /// The CPUs of the host.
    pub online_cpus: u32,
}
