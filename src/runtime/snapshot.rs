//! What is known about every project at one moment: immutable, shared, replaced as a whole by the supervisor.
//!
//! Everybody else reads it without asking anybody. Views that did not change are shared between snapshots.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use super::gate::Gate;
use super::sleep::Watched;
use crate::docker::ContainerId;
use crate::domain::idle::{Bypass, Facts, Rule};
use crate::domain::lifecycle::Nap;
use crate::domain::wake::WakeTimes;
use crate::domain::{Deployment, Metrics, Project, ProjectId, Status, Subnet, Sum, Traffic, UserId};
use crate::limits;

/// One project as its owner sees it.
#[derive(Clone, Debug)]
pub struct View {
    /// Its record.
    pub project: Arc<Project>,
    /// Its status.
    pub status: Status,
    /// What there is to say about the status.
    pub reason: Option<Arc<str>>,
    /// Where a browser on this machine reaches it.
    pub address: Option<SocketAddr>,
    /// Its last numbers, while it runs.
    pub metrics: Option<Metrics>,
    /// When those were measured.
    pub measured_at: Option<Instant>,
    /// What its container received, where that says something of its use.
    pub(super) watched: Option<Watched>,
    /// Whether it has answered an HTTP request of ours.
    pub speaks: bool,
    /// Since when it is running.
    pub running_since: Option<Instant>,
    /// How long it took to wake, as far as it ever did.
    pub wake_times: Option<WakeTimes>,
    /// From when on a request wakes it again, where it failed when the last one did.
    pub(super) wakes_at: Option<Instant>,
    /// The container behind it, while that runs.
    pub run: Option<Run>,
    /// Where requests pass to it.
    pub gate: Arc<Gate>,
    /// Its deployment under way, or the last one.
    pub deployment: Option<Arc<Deployment>>,
    /// The one that waits for its turn.
    pub waiting: Option<Arc<Deployment>>,
}

impl View {
    /// What decides whether it may sleep.
    #[must_use]
    pub fn idleness(&self, rule: &Rule, engine: bool, now: Instant) -> Facts {
        // What never spoke HTTP has no visitors whom it could miss; its owner may know better.
        let speaks = self.speaks || self.traffic().get(Sum::REQUESTS) > 0;
        let known = speaks || self.project.settings.idle_after.is_some();
        let bypass = match self.watched {
            _ if !self.project.is_adopted() => Bypass::None,
            watched => watched.map_or(Bypass::Unknown, |watched| Bypass::Calm(watched.calm())),
        };
        let answered = self.traffic().last.and_then(|at| SystemTime::now().duration_since(at).ok());
        let fresh =
            self.measured_at.is_some_and(|at| now.saturating_duration_since(at) <= limits::SLEEP_NUMBERS_MAX);
        Facts {
            engine,
            status: self.status,
            wakes_in: self.wakes_in(now),
            after: self.project.idle_after(rule),
            grace: rule.grace,
            cpu_floor: rule.cpu_floor,
            up: self.running_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
            passing: self.gate.passing(now).filter(|_| known),
            answered,
            bypass,
            vanishes: rule.nap == Nap::Stop && self.run.as_ref().is_some_and(|run| run.auto_remove),
            cpu: self.metrics.filter(|_| fresh).map(|metrics| metrics.cpu),
        }
    }

    /// How long until a request tries it again which failed when the last one woke it; nothing of one that no request wakes.
    #[must_use]
    pub fn wakes_in(&self, now: Instant) -> Option<Duration> {
        let at = self.wakes_at.filter(|_| self.status == Status::Error)?;
        Some(at.saturating_duration_since(now))
    }

    /// What has passed to its app since the project exists.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.project.traffic.and(self.gate.meter.read())
    }

    /// The deployment with this number, as far as it is not over for long.
    #[must_use]
    pub fn deployment(&self, number: u32) -> Option<&Deployment> {
        self.deployment.iter().chain(&self.waiting).map(|it| &**it).find(|it| it.number == number)
    }
}

/// A running container, as far as its numbers need it.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The container.
    pub container: ContainerId,
    /// Its first process on the host, where the engine names it.
    pub pid: Option<u32>,
    /// When this run began.
    pub since: SystemTime,
    /// CPUs that it may use, where it has a limit of its own.
    pub capacity: Option<f64>,
    /// Whether the engine removes the container when this run ends.
    pub auto_remove: bool,
}

/// The projects of one owner, newest first.
#[derive(Debug, Default)]
pub struct Owned {
    /// The views.
    pub views: Vec<Arc<View>>,
    encoded: OnceLock<Arc<[u8]>>,
}

impl Owned {
    /// The list as bytes for clients: made once by `encode`, until something changes.
    pub fn encoded(&self, encode: impl FnOnce(&[Arc<View>]) -> Vec<u8>) -> Arc<[u8]> {
        Arc::clone(self.encoded.get_or_init(|| encode(&self.views).into()))
    }
}

/// What is known of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineState {
    /// Whether it answered the last time it was asked.
    pub up: bool,
    /// Its version, once it has answered.
    pub version: Option<Arc<str>>,
    /// Where its containers have their addresses, as it said last; nothing where nobody asked.
    pub bridges: Arc<[Subnet]>,
}

/// Everything known at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The first of the event ids that a client which starts from this snapshot may use for it; later frames have higher ones.
    pub first_id: u64,
    /// The engine.
    pub engine: EngineState,
    /// Every visible project.
    pub projects: HashMap<ProjectId, Arc<View>>,
    /// The same by owner.
    pub owners: HashMap<UserId, Arc<Owned>>,
}

impl Snapshot {
    /// Somebody's own project; another's is as absent as none.
    #[must_use]
    pub fn project_of(&self, owner: UserId, id: ProjectId) -> Option<&Arc<View>> {
        self.projects.get(&id).filter(|view| view.project.owner == owner)
    }

    /// A copy in which the projects of `changed` owners are as in `projects`.
    #[must_use]
    pub(super) fn with(
        &self,
        first_id: u64,
        engine: EngineState,
        projects: HashMap<ProjectId, Arc<View>>,
        changed: &std::collections::HashSet<UserId>,
    ) -> Snapshot {
        let mut owners = self.owners.clone();
        let mut fresh: HashMap<UserId, Vec<Arc<View>>> =
            changed.iter().map(|owner| (*owner, Vec::new())).collect();
        for view in projects.values() {
            if let Some(views) = fresh.get_mut(&view.project.owner) {
                views.push(Arc::clone(view));
            }
        }
        for (owner, mut views) in fresh {
            views.sort_by_key(|view| std::cmp::Reverse((view.project.created_at, view.project.id)));
            owners.insert(owner, Arc::new(Owned { views, encoded: OnceLock::new() }));
        }
        Snapshot { first_id, engine, projects, owners }
    }
}
