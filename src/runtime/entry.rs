//! What the supervisor knows of one project: its versions with their containers, its deployments, and who waits for an answer.
//!
//! Pure bookkeeping; no I/O.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::gate::Gate;
use super::sleep::{FailedWakes, Waking, Watched};
use super::snapshot::{Run, View};
use super::{Reply, container};
use crate::docker::{Inspected, State};
use crate::domain::lifecycle::{Kind, Life};
use crate::domain::wake::WakeTimes;
use crate::domain::{Deployment, Desired, Event, Held, Metrics, Project, Status, Traffic, Wake};

/// One version of a project, with its container.
pub(super) struct Tenant {
    /// The project as this version has it.
    pub project: Arc<Project>,
    pub life: Life,
    pub seen: Option<Arc<Inspected>>,
    /// When it was last asked to start: a signal from before is not for this run.
    pub start_asked: SystemTime,
}

impl Tenant {
    pub fn new(project: Project, desired: Desired, now: Instant) -> Tenant {
        let kind = if project.is_adopted() { Kind::Adopted } else { Kind::Ours };
        let life = Life::new(kind, desired, project.deleting, now);
        let life = if project.is_built() && project.release.is_none() { life.unbuilt() } else { life };
        Tenant { project: Arc::new(project), life, seen: None, start_asked: SystemTime::UNIX_EPOCH }
    }

    /// Tells it from the project's other versions.
    pub fn number(&self) -> u32 {
        self.project.release.as_ref().map_or(0, |release| release.number)
    }
}

/// A deployment that is under way, from its clone on.
pub(super) struct Active {
    pub deployment: Deployment,
    /// The last percentage that was told: it never goes back.
    pub percent: u8,
    /// Its version is being recorded as the project's.
    pub releasing: bool,
}

/// Everything about one project.
pub(super) struct Entry {
    /// The version that serves.
    pub current: Tenant,
    /// The version that comes up to take its place.
    pub next: Option<Tenant>,
    /// Versions on their way out.
    pub leaving: Vec<Tenant>,
    /// The deployment under way.
    pub active: Option<Active>,
    /// The deployment that waits for its turn.
    pub waiting: Option<Deployment>,
    /// The last one that ended.
    pub last: Option<Arc<Deployment>>,
    /// What went wrong with that, for as long as the version before it serves on.
    pub trouble: Option<Arc<str>>,
    /// Until when a crash of the present version means to go back to the one with this number.
    pub probation: Option<(Instant, u32)>,
    /// Back to where, should the newer deployment fail that was on its way when the present version crashed.
    pub recover: Option<u32>,
    /// When the deployment with this number is to be saved that could not be.
    pub save_again: Option<(Instant, u32)>,
    /// A clean-up is under way.
    pub cleaning: bool,
    /// Images without a name, of builds that nobody waited for any more.
    pub strays: Vec<String>,
    /// When images and logs that are not kept are to be removed.
    pub tidy_at: Option<Instant>,
    /// Its containers are gone; its images and logs are to go before its record does.
    pub erase: bool,
    /// Where requests pass to the version that serves.
    pub gate: Arc<Gate>,
    /// What of that the store has.
    pub counted: Traffic,
    pub shown: Status,
    /// When its numbers were measured.
    pub measured_at: Option<Instant>,
    /// What its container received, where that says something of its use.
    pub watched: Option<Watched>,
    /// Since when that is running.
    pub running_since: Option<Instant>,
    /// The wake that goes on.
    pub waking: Option<Waking>,
    /// Those that failed since it was up.
    pub failed_wakes: Option<FailedWakes>,
    /// The last ones, and how long they took.
    pub wakes: VecDeque<Wake>,
    pub wake_times: Option<WakeTimes>,
    /// What it held when it was put to sleep.
    pub held: Held,
    pub metrics: Option<Metrics>,
    /// Changes handed to the store, and those that it has answered.
    pub saves: u64,
    pub saves_answered: u64,
    /// Who waits for an answer, and for which of those changes.
    pub replies: Vec<(u64, Reply)>,
    pub view: Option<Arc<View>>,
}

impl Entry {
    pub fn new(current: Tenant) -> Entry {
        Entry {
            shown: current.life.status(),
            current,
            next: None,
            leaving: Vec::new(),
            active: None,
            waiting: None,
            last: None,
            trouble: None,
            probation: None,
            recover: None,
            save_again: None,
            cleaning: false,
            strays: Vec::new(),
            tidy_at: None,
            erase: false,
            gate: Arc::default(),
            counted: Traffic::default(),
            measured_at: None,
            watched: None,
            running_since: None,
            waking: None,
            failed_wakes: None,
            wakes: VecDeque::new(),
            wake_times: None,
            held: Held::default(),
            metrics: None,
            saves: 0,
            saves_answered: 0,
            replies: Vec::new(),
            view: None,
        }
    }

    /// What has passed to its app since the project exists.
    pub fn traffic(&self) -> Traffic {
        self.current.project.traffic.and(self.gate.meter.read())
    }

    pub fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        std::iter::once(&self.current).chain(&self.next).chain(&self.leaving)
    }

    pub fn tenant(&mut self, number: u32) -> Option<&mut Tenant> {
        let tenants = std::iter::once(&mut self.current).chain(&mut self.next).chain(&mut self.leaving);
        tenants.into_iter().find(|tenant| tenant.number() == number)
    }

    /// The next moment at which something is to be done about it.
    pub fn due(&self) -> Option<Instant> {
        let probation = self.probation.map(|(until, _)| until);
        let again = self.save_again.map(|(at, _)| at);
        let lives = self.tenants().filter_map(|tenant| tenant.life.due());
        lives.chain(self.tidy_at).chain(probation).chain(again).min()
    }

    /// The word that clients are to see: a deployment shows while what is there serves on, unless its owner wants it down.
    pub fn status(&self) -> Status {
        if self.is_deploying() { Status::Deploying } else { self.current.life.status() }
    }

    fn is_deploying(&self) -> bool {
        let open = self.active.is_some() || self.waiting.is_some();
        open && self.current.life.desired() != Desired::Stopped
    }

    /// What it holds, by its last numbers.
    pub fn holds(&self, online_cpus: u32) -> Held {
        let capacity = self.current.seen.as_deref().and_then(|seen| seen.capacity);
        let capacity = capacity.unwrap_or_else(|| f64::from(online_cpus));
        let held = self.metrics.map(|metrics| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "percent of some CPUs, not negative"
            )]
            let cpu_milli = (metrics.cpu * capacity * 10.0).round().max(0.0) as u64;
            Held { memory_mib: metrics.memory_mib, cpu_milli }
        });
        held.unwrap_or_default()
    }

    /// What there is to say about it. Why the deployment before failed is history while the next one goes on.
    pub fn reason(&self) -> Option<Arc<str>> {
        if self.is_deploying() && self.current.project.is_built() && self.current.project.release.is_none() {
            return None;
        }
        self.current.life.reason().map(Arc::from).or_else(|| self.trouble.clone())
    }

    /// A deployment with this number, as it is known here.
    pub fn known(&self, number: u32) -> Option<&Deployment> {
        let open = self.active.as_ref().map(|active| &active.deployment);
        open.into_iter().chain(&self.waiting).chain(self.last.as_deref()).find(|it| it.number == number)
    }

    /// The deployment under way, the one that waits, or else the last one.
    pub fn deployment(&self) -> Option<Arc<Deployment>> {
        let open = self.active.as_ref().map(|active| &active.deployment).or(self.waiting.as_ref());
        open.map(|open| Arc::new(open.clone())).or_else(|| self.last.clone())
    }

    pub fn view(&mut self) -> Arc<View> {
        let made = self.view.take().unwrap_or_else(|| Arc::new(self.make_view()));
        Arc::clone(self.view.insert(made))
    }

    /// Answers those whose change is durable. Each has a place for its answer: it never blocks.
    pub fn answer(&mut self) {
        let (view, saved) = (self.view(), self.saves_answered);
        for (_, reply) in self.replies.extract_if(.., |(awaited, _)| *awaited <= saved) {
            drop(reply.try_send(Ok(Arc::clone(&view))));
        }
    }

    fn make_view(&self) -> View {
        let Tenant { project, life, seen, .. } = &self.current;
        let up = seen.as_deref().filter(|seen| seen.state == State::Running && life.is_up());
        // While it is deployed anew, the version before serves on.
        let serving = up.filter(|_| life.serves());
        self.gate.set(serving.and_then(|seen| container::probe_address(project, seen)));
        View {
            project: Arc::clone(project),
            status: self.shown,
            reason: self.reason(),
            address: up.and_then(|seen| container::browser_address(project, seen)),
            metrics: self.metrics,
            measured_at: self.measured_at,
            watched: self.watched,
            speaks: life.speaks(),
            running_since: self.running_since,
            wake_times: self.wake_times,
            wakes_at: self.failed_wakes.map(|failed| failed.again_at),
            run: up.and_then(run_of),
            gate: Arc::clone(&self.gate),
            deployment: self.deployment(),
            waiting: self.waiting.clone().map(Arc::new),
        }
    }

    pub fn status_event(&self, notify: bool) -> Event {
        Event::Status {
            project: self.current.project.id,
            name: self.current.project.name.clone(),
            status: self.shown,
            reason: self.reason(),
            notify,
            at: SystemTime::now(),
        }
    }
}

/// The run that an inspect shows.
pub(super) fn run_of(seen: &Inspected) -> Option<Run> {
    let since = seen.started_at.filter(|_| seen.state == State::Running)?;
    let (container, pid, capacity) = (seen.id.clone(), seen.pid, seen.capacity);
    Some(Run { container, pid, since, capacity, auto_remove: seen.auto_remove })
}
