//! The heart: what to do next about one project's container, as a pure function.
//!
//! [`step`] takes a project's [`Life`], one thing that happened and the time, and gives the new life and what is to be done. It is
//! level-triggered: a goal, the last known reality and at most one operation in flight decide the next operation, so a lost or repeated
//! event changes nothing but the delay. What the engine says in events is a hint to look; only a look (an inspect) is reality. The end of
//! a run that somebody asked for is believed before the look: the engine answers none while it takes the network down (0.2 s, on 20.10).
//!
//! A project is normally at rest: reality is shown as it is, and a change from outside is followed. A command gives it a
//! goal until that is reached or has failed.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use super::{Desired, Status};

/// How long the engine must go on answering until a stop or start from outside counts as wanted: an engine that is shutting down
/// emits the same events for up to 11 s before its stream ends (measured on 20.10).
pub const SETTLE: Duration = Duration::from_secs(20);
/// Waits before a crashed container is started again; a crash beyond the last one within [`CRASH_WINDOW`] is an error.
pub const CRASH_BACKOFF: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(25)];
/// Crashes older than this are forgotten.
pub const CRASH_WINDOW: Duration = Duration::from_secs(600);
/// How long a container without a port or a health check must run to be called ready.
pub const READY_AFTER: Duration = Duration::from_secs(2);
/// How long an app may take to answer on the port that its owner named.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How long a port that only the image declares is asked for HTTP; a database that never speaks it is called ready then.
pub const GUESS_WITHIN: Duration = Duration::from_secs(10);
/// How long Docker's own health check may take: its default interval alone is 30 s.
pub const HEALTHY_WITHIN: Duration = Duration::from_secs(300);
/// First and longest pause between two probes.
pub const PROBE_EVERY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));
/// How long an adopted container that its own policy restarts must run until it is believed.
pub const RECOVERED_AFTER: Duration = Duration::from_secs(10);
/// Pause after an operation that the engine did not take, or a change that was not saved.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often a container is looked at that the engine says nothing sensible of.
pub const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What stands in a reason between how a container ended and what it printed last.
pub const LAST_OUTPUT: &str = ". Last output: ";

/// Whose container it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Created by muelle, which alone starts it.
    Ours,
    /// Adopted: its own restart policy stays, and reality wins.
    Adopted,
}

/// What Docker's own health check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not decided yet.
    Starting,
    /// It passed.
    Healthy,
    /// It failed as often as it may.
    Unhealthy,
}

/// How one finds out that a running container is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It answers HTTP on this port.
    Http {
        /// The port inside the container.
        port: u16,
        /// Whether its owner named the port; otherwise the image declares it, and it may speak something else.
        named: bool,
    },
    /// Its own health check says so.
    Checked(Health),
    /// It has been running for [`READY_AFTER`].
    Uptime,
}

/// What a look at the engine showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Real {
    /// Nobody has looked yet.
    Unknown,
    /// There is no such container.
    Absent,
    /// Created or ended.
    Down {
        /// How it ended; `None` if it never ran.
        exit: Option<i64>,
        /// Whether the kernel ended it for want of memory.
        oom: bool,
        /// Whether its settings are not the project's any more.
        stale: bool,
    },
    /// Frozen by somebody.
    Paused,
    /// Its own restart policy is about to start it again.
    Restarting {
        /// How it ended.
        exit: i64,
    },
    /// Running.
    Up {
        /// When this run began: tells two runs apart.
        since: SystemTime,
        /// How to find out that it is ready.
        readiness: Readiness,
    },
}

impl Real {
    fn is_up(&self) -> bool {
        matches!(self, Real::Up { .. })
    }
}

/// How an app sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nap {
    /// Its container is stopped: it holds nothing.
    #[default]
    Stop,
    /// It is frozen: it keeps its memory, and is back at once.
    Pause,
}

/// One call to the engine, or one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Inspect the container.
    Look,
    /// Create it from the template.
    Create,
    /// Start it.
    Start,
    /// Freeze it.
    Pause,
    /// Thaw it.
    Unpause,
    /// Stop it, with its grace.
    Stop,
    /// Remove it, running or not.
    Remove,
    /// Ask its port for an HTTP answer, once.
    Probe,
    /// Read its last output.
    Logs,
}

/// How an [`Op`] ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The engine did it.
    Done,
    /// What a look showed.
    Seen(Real),
    /// Whether a probe got an answer.
    Answered(bool),
    /// The last output, for the sentence in an error.
    Output(String),
    /// The engine said no, in these words.
    Refused(String),
    /// What is there under its name is not its container, in these words.
    Foreign(String),
    /// It cannot be started as it was created, in these words; created anew it may.
    Outdated(String),
    /// The engine did not answer; it may or may not have done it.
    Unavailable,
}

/// Something that a project reacts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Its owner wants it up.
    Start,
    /// Its owner wants it down.
    Stop,
    /// Its owner wants it down and up again.
    Restart,
    /// Nobody uses it: it is to be down until somebody does.
    Sleep(Nap),
    /// Somebody uses it again, which sleeps, or failed when it was woken before.
    Wake,
    /// Its owner wants it up once it is built.
    Wanted,
    /// Its owner wants it gone.
    Delete,
    /// A newer version has taken over: it is to end after a while, with its grace, and go.
    Retire(Duration),
    /// It was not built yet, for this reason.
    NotBuilt(String),
    /// The oldest change that was to be saved is durable.
    Saved,
    /// The oldest change that was to be saved could not be.
    NotSaved,
    /// An operation ended.
    Ended(Op, Outcome),
    /// Something happened to the container: look.
    Hint,
    /// Somebody sent the container a signal that ends it.
    Killed,
    /// The present run ended, with this code.
    Died(i64),
    /// A moment from [`Life::due`] has come.
    Due,
    /// The engine does not answer any more.
    EngineLost,
    /// The engine answers (again), or a first look is due.
    EngineBack,
}

/// A durable change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// What is wanted; it is not asleep then.
    Desired(Desired),
    /// Whether it is asleep.
    Asleep(bool),
    /// The project is being deleted.
    Deleting,
}

/// What the supervisor is to do. Only one [`Effect::Run`] is ever in flight, and none while a change is being saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Run this operation and report how it [`Input::Ended`].
    Run(Op),
    /// Make this durable and report [`Input::Saved`] or [`Input::NotSaved`].
    Save(Change),
    /// Tell the present status again.
    Announce,
    /// Nothing is left of it: delete the record and drop this life; on failure [`Input::NotSaved`] asks again.
    Forget,
}

/// What is being worked towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Rest,
    Up,
    Down,
    Gone,
}

/// Everything known about one project's container.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact, not a state of one machine")]
pub struct Life {
    kind: Kind,
    desired: Desired,
    saved: Desired,
    saved_asleep: bool,
    goal: Goal,
    real: Real,
    engine: bool,
    busy: Option<Op>,
    /// Changes on their way to the disk, in their order; `None` is the deletion of the record.
    saving: VecDeque<Option<Change>>,
    /// A look is due before anything else is decided.
    look: bool,
    /// The next look compares what is wanted with what is there.
    reconcile: bool,
    /// The present run answered its readiness question.
    ready: bool,
    /// It has answered HTTP.
    speaks: bool,
    /// It is down, or on its way, for want of requests; what is wanted of it has not changed.
    asleep: bool,
    /// How it sleeps.
    nap: Nap,
    /// There is something to create a container from.
    built: bool,
    /// On its way out it is asked to end before it is removed.
    gently: bool,
    /// A running container is to be stopped on the way up.
    restart: bool,
    /// The present run was sent a signal that ends it.
    killed: bool,
    /// The run that has ended by the engine's own word: one look that still shows it is a look from before.
    died: Option<SystemTime>,
    run: Option<(SystemTime, Instant)>,
    crashes: Vec<Instant>,
    /// It was created anew on this way up.
    replaced: bool,
    /// Why it is in error.
    failed: Option<String>,
    /// It is in error because of the engine, which may think otherwise another time.
    failed_by_engine: bool,
    /// What there is to say beside a status that is no error.
    note: Option<String>,
    /// It ended and is to be called failed, once its last output is known.
    autopsy: Option<String>,
    not_before: Option<Instant>,
    settle_at: Option<Instant>,
    recovered_at: Option<Instant>,
    probe: (Instant, Duration),
}

/// Applies one input. See the module's documentation.
#[must_use]
pub fn step(mut life: Life, input: Input, now: Instant) -> (Life, Vec<Effect>) {
    let mut effects = Vec::new();
    life.take(input, now, &mut effects);
    life.plan(now, &mut effects);
    (life, effects)
}

impl Life {
    /// The life of a project as the store knows it, before anybody has looked at the engine.
    #[must_use]
    pub fn new(kind: Kind, desired: Desired, deleting: bool, now: Instant) -> Life {
        Life {
            kind,
            desired,
            saved: desired,
            saved_asleep: false,
            goal: if deleting { Goal::Gone } else { Goal::Rest },
            real: Real::Unknown,
            engine: false,
            busy: None,
            saving: VecDeque::new(),
            look: true,
            reconcile: true,
            ready: false,
            speaks: false,
            asleep: false,
            nap: Nap::Stop,
            built: true,
            gently: false,
            restart: false,
            killed: false,
            died: None,
            run: None,
            crashes: Vec::new(),
            replaced: false,
            failed: None,
            failed_by_engine: false,
            note: None,
            autopsy: None,
            not_before: None,
            settle_at: None,
            recovered_at: None,
            probe: (now, PROBE_EVERY.0),
        }
    }

    /// The same for a project that has no version yet: it does not come up before it has.
    #[must_use]
    pub fn unbuilt(self) -> Life {
        Life { built: false, ..self }
    }

    /// The same for one that was put to sleep.
    #[must_use]
    pub fn asleep(self, asleep: bool) -> Life {
        Life { asleep, saved_asleep: asleep, ..self }
    }

    /// Whether it is up and ready, and is to stay so.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.goal == Goal::Rest && self.failed.is_none() && self.real.is_up() && self.ready
    }

    /// Whether it has answered HTTP.
    #[must_use]
    pub fn speaks(&self) -> bool {
        self.speaks
    }

    /// Whether it is known not to run.
    #[must_use]
    pub fn is_down(&self) -> bool {
        matches!(self.real, Real::Down { .. } | Real::Absent | Real::Paused)
    }

    /// Whether it is frozen, and so holds its memory.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.real == Real::Paused
    }

    /// What there is to say of an end that nobody wanted, since it was last asked to come up.
    #[must_use]
    pub fn crash(&self) -> Option<&str> {
        let crashed = !self.crashes.is_empty() || (self.failed.is_some() && !self.failed_by_engine);
        self.failed.as_deref().or(self.note.as_deref()).filter(|_| crashed)
    }

    /// What is wanted of it.
    #[must_use]
    pub fn desired(&self) -> Desired {
        self.desired
    }

    /// The word that clients see.
    #[must_use]
    pub fn status(&self) -> Status {
        let awaited = !self.asleep
            && self.built
            && self.reconcile
            && self.real == Real::Unknown
            && self.desired == Desired::Running;
        match self.goal {
            Goal::Up => Status::Deploying,
            _ if self.failed.is_some() => Status::Error,
            _ if self.asleep => Status::Inactive,
            Goal::Rest if awaited => Status::Deploying,
            Goal::Rest if self.real.is_up() && !self.ready => Status::Deploying,
            _ if self.real.is_up() && self.ready => Status::Running,
            _ => Status::Stopped,
        }
    }

    /// What there is to say about the status.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        let waiting = (self.real == Real::Unknown && !self.engine).then_some("Docker does not answer yet");
        self.failed.as_deref().or(self.note.as_deref()).or(waiting)
    }

    /// Whether it has ended and its last output is awaited, for the reason: nothing is told before that.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        self.autopsy.is_some()
    }

    /// Whether clients still see the project.
    #[must_use]
    pub fn is_visible(&self) -> bool {
        self.goal != Goal::Gone
    }

    /// Whether its container runs, by the last that is known.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.real.is_up()
    }

    /// Whether a change is on its way to the disk.
    #[must_use]
    pub fn is_saving(&self) -> bool {
        !self.saving.is_empty()
    }

    /// The next moment at which [`Input::Due`] is wanted.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let free = self.engine && self.busy.is_none() && self.saving.is_empty() && self.not_before.is_none();
        let probe = match (self.goal, &self.real, self.run) {
            (Goal::Up, Real::Up { readiness, .. }, Some((_, up))) if free => match readiness {
                Readiness::Http { .. } => Some(self.probe.0),
                Readiness::Checked(_) => Some(up + HEALTHY_WITHIN),
                Readiness::Uptime => Some(up + READY_AFTER),
            },
            _ => None,
        };
        [probe, self.not_before, self.settle_at, self.recovered_at].into_iter().flatten().min()
    }

    fn take(&mut self, input: Input, now: Instant, effects: &mut Vec<Effect>) {
        match input {
            Input::Start | Input::Restart => self.command_up(input == Input::Restart, now, effects),
            Input::Stop => {
                self.forget_troubles();
                self.restart = false;
                self.goal = Goal::Down;
                self.want(Desired::Stopped, effects);
            }
            Input::Delete => {
                self.forget_troubles();
                self.goal = Goal::Gone;
                self.gently = false;
                self.save(Change::Deleting, effects);
            }
            Input::Sleep(nap) => self.fall_asleep(nap, effects),
            // What is on its way out stays on it.
            Input::Wake | Input::NotBuilt(_) if self.goal == Goal::Gone => {}
            Input::Wake => {
                if self.asleep || (self.failed.is_some() && self.desired != Desired::Stopped) {
                    self.command_up(false, now, effects);
                }
            }
            // While it sleeps it is wanted already.
            Input::Wanted if self.asleep => {}
            Input::Wanted => self.want(Desired::Running, effects),
            Input::Retire(after) => {
                self.forget_troubles();
                self.saving.clear();
                self.goal = Goal::Gone;
                self.gently = true;
                self.not_before = Some(now + after);
            }
            Input::NotBuilt(reason) => {
                self.failed = Some(reason);
                self.rest(effects);
            }
            Input::Saved => match self.saving.pop_front() {
                Some(Some(Change::Desired(desired))) => (self.saved, self.saved_asleep) = (desired, false),
                Some(Some(Change::Asleep(asleep))) => self.saved_asleep = asleep,
                _ => {}
            },
            Input::NotSaved => self.not_saved(now),
            Input::Ended(op, outcome) if self.busy == Some(op) => {
                self.busy = None;
                self.ended(op, outcome, now, effects);
            }
            Input::Ended(..) => {}
            Input::Hint => self.look = true,
            Input::Killed => self.killed = self.run.is_some(),
            Input::Died(exit) => self.died(exit, now, effects),
            Input::Due => self.due_now(now, effects),
            Input::EngineLost => {
                self.engine = false;
                self.settle_at = None;
            }
            Input::EngineBack => {
                self.engine = true;
                self.look = true;
                self.reconcile |= self.goal == Goal::Rest && (self.failed.is_none() || self.failed_by_engine);
                if self.crashes.is_empty() {
                    self.not_before = None;
                }
            }
        }
    }

    fn command_up(&mut self, restart: bool, now: Instant, effects: &mut Vec<Effect>) {
        if !self.built {
            // Why there is nothing to start stays true.
            self.want(Desired::Running, effects);
            return;
        }
        let serving = self.goal == Goal::Rest && self.real.is_up() && self.ready;
        let under_way = self.goal == Goal::Up && self.not_before.is_none() && !restart;
        self.forget_troubles();
        if serving && !restart {
            effects.push(Effect::Announce);
            if self.kind == Kind::Ours {
                self.want(Desired::Running, effects);
            }
            return;
        }
        if !under_way {
            self.goal = Goal::Up;
            let runs = self.real.is_up() || self.real == Real::Paused || self.busy == Some(Op::Start);
            self.restart = restart && runs;
            self.ready = false;
            self.run = self.run.map(|(since, _)| (since, now));
            self.probe = (now, PROBE_EVERY.0);
        }
        self.want(Desired::Running, effects);
    }

    /// A person decided anew: what went wrong before is history.
    fn forget_troubles(&mut self) {
        self.failed = None;
        self.failed_by_engine = false;
        self.replaced = false;
        self.note = None;
        self.autopsy = None;
        self.reconcile = false;
        self.crashes.clear();
        self.not_before = None;
        self.settle_at = None;
        self.recovered_at = None;
    }

    /// Only what runs, is ready, and nobody is doing anything with.
    fn fall_asleep(&mut self, nap: Nap, effects: &mut Vec<Effect>) {
        let serves = self.goal == Goal::Rest && self.real.is_up() && self.ready;
        let rests = match self.kind {
            Kind::Ours => self.desired == Desired::Running,
            Kind::Adopted => self.desired == Desired::AsFound,
        };
        if serves && rests {
            (self.asleep, self.nap) = (true, nap);
            self.goal = Goal::Down;
            self.settle_at = None;
            self.save(Change::Asleep(true), effects);
        }
    }

    /// Something else than a request has brought it up, or it cannot be put to sleep.
    fn is_awake(&mut self, effects: &mut Vec<Effect>) {
        if std::mem::take(&mut self.asleep) {
            self.save(Change::Asleep(false), effects);
        }
    }

    fn want(&mut self, desired: Desired, effects: &mut Vec<Effect>) {
        let was_asleep = std::mem::take(&mut self.asleep);
        if was_asleep || self.desired != desired || self.saved != desired {
            self.desired = desired;
            self.save(Change::Desired(desired), effects);
        }
    }

    fn save(&mut self, change: Change, effects: &mut Vec<Effect>) {
        self.saving.push_back(Some(change));
        effects.push(Effect::Save(change));
    }

    fn not_saved(&mut self, now: Instant) {
        self.not_before = Some(now + RETRY_AFTER);
        let lost = self.saving.pop_front();
        if lost == Some(None) || !self.saving.is_empty() {
            // The deletion of the record is asked for again; of several changes the last one counts.
            return;
        }
        // Unless it is up already, it sleeps on.
        self.asleep = self.saved_asleep && lost != Some(Some(Change::Asleep(false)));
        self.desired = self.saved;
        if self.goal == Goal::Rest {
            // Nobody asked: what was followed is noted another time.
            self.settle_at = Some(now + SETTLE);
        } else {
            self.goal = Goal::Rest;
            self.look = true;
            self.reconcile = true;
        }
    }

    fn ended(&mut self, op: Op, outcome: Outcome, now: Instant, effects: &mut Vec<Effect>) {
        if matches!(op, Op::Stop | Op::Pause) && matches!(outcome, Outcome::Done | Outcome::Unavailable) {
            // The end that the next look shows is ours, whatever was asked for meanwhile.
            self.run = None;
            self.restart &= op == Op::Pause || outcome != Outcome::Done;
        }
        if op == Op::Create && matches!(outcome, Outcome::Done | Outcome::Unavailable) {
            // There may be one now: what is to be gone is not gone yet.
            self.real = Real::Unknown;
        }
        match outcome {
            Outcome::Seen(Real::Up { since, .. }) if self.died == Some(since) => {
                self.died = None;
                self.look = true;
            }
            Outcome::Seen(real) => self.seen(real, now, effects),
            Outcome::Done => {
                self.look = true;
                if op == Op::Start {
                    // It may have ended again before the look. The signal of a stop before is not for this run.
                    self.killed = false;
                    self.run = Some((SystemTime::UNIX_EPOCH, now));
                }
                if op == Op::Remove {
                    self.real = Real::Absent;
                    self.run = None;
                    self.look = self.goal != Goal::Gone;
                }
            }
            Outcome::Answered(answered) => self.probed(answered, now, effects),
            Outcome::Output(output) => self.fail_after_autopsy(&output, effects),
            Outcome::Unavailable | Outcome::Refused(_) if op == Op::Logs => {
                self.fail_after_autopsy("", effects);
            }
            Outcome::Unavailable => {
                self.look = true;
                self.not_before = Some(now + RETRY_AFTER);
            }
            Outcome::Foreign(_) if self.goal == Goal::Gone => self.real = Real::Absent,
            Outcome::Outdated(_) if !self.replaced => {
                self.real = Real::Down { exit: None, oom: false, stale: true };
            }
            Outcome::Refused(message) | Outcome::Foreign(message) | Outcome::Outdated(message) => {
                self.refused(op, message, now, effects);
            }
        }
    }

    fn refused(&mut self, op: Op, message: String, now: Instant, effects: &mut Vec<Effect>) {
        let before = self.status();
        self.look = true;
        match (op, self.goal) {
            (_, Goal::Gone) => self.not_before = Some(now + RETRY_AFTER),
            (Op::Look, _) => {
                self.failed = Some(message);
                self.failed_by_engine = true;
                self.rest(effects);
                self.reconcile = true;
                self.not_before = Some(now + LOOK_AGAIN);
            }
            (Op::Stop | Op::Pause, _) => {
                self.is_awake(effects);
                self.note = Some(format!("Docker could not stop it: {message}"));
                self.ready = self.real.is_up();
                self.rest(effects);
                if self.status() == before {
                    effects.push(Effect::Announce);
                }
            }
            _ => {
                self.failed = Some(message);
                self.failed_by_engine = true;
                self.rest(effects);
            }
        }
    }

    /// Believes the engine that the run ended, where it does not matter how: somebody else wanted it. The end of our own stop is when the
    /// engine has answered that.
    fn died(&mut self, exit: i64, now: Instant, effects: &mut Vec<Effect>) {
        self.look = true;
        let Real::Up { since, .. } = self.real else { return };
        if self.killed && !self.reconcile && self.goal == Goal::Rest {
            self.seen(Real::Down { exit: Some(exit), oom: false, stale: false }, now, effects);
            self.died = Some(since);
        }
    }

    fn seen(&mut self, real: Real, now: Instant, effects: &mut Vec<Effect>) {
        // What was believed is judged again by what is seen.
        let believed = self.died.take().is_some() && self.goal == Goal::Rest;
        let was_up = self.run.is_some() || believed;
        if let Real::Up { since, .. } = real {
            if self.run.is_none_or(|(known, _)| known != since) {
                self.run = Some((since, now));
                self.killed = false;
                self.probe = (now, PROBE_EVERY.0);
                self.ready &= self.goal == Goal::Rest;
            }
        } else {
            self.run = None;
            self.ready = false;
            self.recovered_at = None;
        }
        let before = std::mem::replace(&mut self.real, real);
        if self.kind == Kind::Adopted && self.real == Real::Absent {
            // There is nothing that a request could wake.
            self.is_awake(effects);
        }
        if std::mem::take(&mut self.reconcile) && self.goal == Goal::Rest {
            self.compare(effects);
        } else {
            match self.goal {
                Goal::Up if was_up && self.run.is_none() => self.ended_on_the_way_up(now, effects),
                Goal::Up => self.judge_readiness(now, effects),
                Goal::Rest => {
                    if self.real.is_up() {
                        self.is_awake(effects);
                    }
                    match self.kind {
                        Kind::Ours => self.changed_outside(&before, was_up, now),
                        Kind::Adopted => self.adopted_changed(was_up, now),
                    }
                }
                Goal::Down | Goal::Gone => {}
            }
        }
    }

    /// At boot and when the engine returns: what is wanted wins over what is there, except for adopted containers at rest.
    fn compare(&mut self, effects: &mut Vec<Effect>) {
        self.settle_at = None;
        if std::mem::take(&mut self.failed_by_engine) {
            self.failed = None;
        }
        if self.real.is_up() {
            self.is_awake(effects);
        }
        match (self.desired, self.real.is_up()) {
            (Desired::Running, true) if !self.ready => self.meet_again(effects),
            (Desired::Running, false) if self.built && !self.asleep => self.goal = Goal::Up,
            (Desired::Running, false) => {}
            (Desired::Stopped, _) => self.goal = Goal::Down,
            // However it ended when it was put to sleep.
            (Desired::AsFound, false) if self.asleep => {}
            (Desired::AsFound, false) => {
                // Nobody watched it end: what `docker stop` and Ctrl-C leave behind is taken for that.
                self.killed |= matches!(self.real, Real::Down { exit: Some(130 | 137), .. });
                self.judge_adopted_end();
            }
            (_, true) => self.is_ready(effects),
        }
    }

    /// It was up before anybody looked. What can be asked is asked, since it may have been on its way up when muelle ended; what only had
    /// to run for a while has.
    fn meet_again(&mut self, effects: &mut Vec<Effect>) {
        match self.real {
            Real::Up { readiness: Readiness::Uptime | Readiness::Checked(Health::Healthy), .. } => {
                self.is_ready(effects);
            }
            _ => self.goal = Goal::Up,
        }
    }

    fn ended_on_the_way_up(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if std::mem::take(&mut self.restart) {
            return;
        }
        let by_somebody = self.ended_by_somebody();
        match &self.real {
            Real::Down { .. } | Real::Restarting { .. } if !by_somebody => {
                let how = self.end_text();
                if self.crashes.is_empty() {
                    self.autopsy = Some(how);
                } else {
                    self.crashed(&how, now);
                }
            }
            _ if self.kind == Kind::Ours => {
                self.rest(effects);
                self.settle_at = Some(now + SETTLE);
            }
            _ => {
                self.judge_adopted_end();
                self.rest(effects);
            }
        }
    }

    fn changed_outside(&mut self, before: &Real, was_up: bool, now: Instant) {
        match (&self.real, was_up) {
            (Real::Up { .. }, _) => {
                if !before.is_up() {
                    self.failed = None;
                    self.note = None;
                    self.crashes.clear();
                }
                self.ready = true;
            }
            (Real::Down { .. } | Real::Restarting { .. }, true) if !self.ended_by_somebody() => {
                let how = self.end_text();
                self.crashed(&how, now);
                return;
            }
            _ => {}
        }
        let agrees = self.asleep || (self.desired == Desired::Running) == self.real.is_up();
        if agrees || self.failed.is_some() {
            self.settle_at = None;
        } else {
            self.settle_at.get_or_insert(now + SETTLE);
        }
    }

    fn adopted_changed(&mut self, was_up: bool, now: Instant) {
        if self.real.is_up() {
            if self.failed.is_some() {
                self.recovered_at.get_or_insert(now + RECOVERED_AFTER);
            } else {
                self.ready = true;
            }
        } else if was_up || self.real == Real::Absent {
            self.judge_adopted_end();
        }
    }

    fn judge_adopted_end(&mut self) {
        let by_somebody = self.ended_by_somebody();
        self.failed = match &self.real {
            Real::Absent => Some("The container does not exist any more".to_owned()),
            Real::Restarting { .. } => Some(format!("{}; Docker restarts it", self.end_text())),
            Real::Down { oom: true, .. } => Some(self.end_text()),
            Real::Down { exit: Some(code), .. } if !by_somebody && *code != 0 => Some(self.end_text()),
            _ => None,
        };
    }

    /// Whether it was asked to end: by a signal that the engine told of, or by SIGTERM from elsewhere (128 + 15; Podman tells of no
    /// signal).
    fn ended_by_somebody(&self) -> bool {
        self.killed || matches!(self.real, Real::Down { exit: Some(143), oom: false, .. })
    }

    fn end_text(&self) -> String {
        match &self.real {
            Real::Down { oom: true, .. } => "Out of memory: it used more than its memory limit".to_owned(),
            Real::Down { exit: Some(code), .. } | Real::Restarting { exit: code } => {
                format!("Exited with code {code}")
            }
            _ => "It ended".to_owned(),
        }
    }

    fn crashed(&mut self, how: &str, now: Instant) {
        self.crashes.retain(|at| now.saturating_duration_since(*at) < CRASH_WINDOW);
        let earlier = self.crashes.len();
        self.crashes.push(now);
        self.goal = Goal::Up;
        self.settle_at = None;
        if let Some(pause) = CRASH_BACKOFF.get(earlier) {
            self.note = Some(format!("{how}; starting it again in {} s", pause.as_secs()));
            self.not_before = Some(now + *pause);
        } else {
            self.autopsy = Some(format!("Ended {} times within 10 minutes. {how}", self.crashes.len()));
        }
    }

    fn fail_after_autopsy(&mut self, output: &str, effects: &mut Vec<Effect>) {
        // A person decided anew while the output was read.
        let Some(how) = self.autopsy.take() else { return };
        let output = output.trim();
        self.failed = Some(if output.is_empty() { how } else { format!("{how}{LAST_OUTPUT}{output}") });
        self.note = None;
        self.rest(effects);
    }

    fn judge_readiness(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let (Real::Up { readiness, .. }, Some((_, up))) = (&self.real, self.run) else { return };
        if self.restart {
            return;
        }
        let up_for = now.saturating_duration_since(up);
        match readiness {
            Readiness::Uptime if up_for >= READY_AFTER => self.is_ready(effects),
            Readiness::Checked(Health::Healthy) => self.is_ready(effects),
            Readiness::Checked(Health::Unhealthy) => {
                self.never_ready("Docker's health check says unhealthy".to_owned(), effects);
            }
            Readiness::Checked(_) if up_for >= HEALTHY_WITHIN => {
                let limit = HEALTHY_WITHIN.as_secs();
                self.never_ready(format!("Docker's health check did not pass within {limit} s"), effects);
            }
            _ => {}
        }
    }

    fn probed(&mut self, answered: bool, now: Instant, effects: &mut Vec<Effect>) {
        self.probe = (now + self.probe.1, (self.probe.1 * 2).min(PROBE_EVERY.1));
        self.speaks |= answered;
        let (Real::Up { readiness: Readiness::Http { port, named }, .. }, Some((_, up))) =
            (&self.real, self.run)
        else {
            return;
        };
        if self.goal != Goal::Up || self.restart {
            return;
        }
        let up_for = now.saturating_duration_since(up);
        if answered || (!named && up_for >= GUESS_WITHIN) {
            self.is_ready(effects);
        } else if up_for >= ANSWER_WITHIN {
            let limit = ANSWER_WITHIN.as_secs();
            self.never_ready(format!("It did not answer HTTP on port {port} within {limit} s"), effects);
        }
    }

    fn is_ready(&mut self, effects: &mut Vec<Effect>) {
        self.ready = true;
        self.note = None;
        self.rest(effects);
    }

    fn never_ready(&mut self, why: String, effects: &mut Vec<Effect>) {
        if self.kind == Kind::Adopted {
            // Reality wins: it runs, and its owner sees what it does not do.
            self.is_ready(effects);
            self.note = Some(why);
        } else {
            self.failed = Some(why);
            self.goal = Goal::Down;
        }
    }

    /// The goal is reached or given up. An adopted container is followed from here on.
    fn rest(&mut self, effects: &mut Vec<Effect>) {
        self.goal = Goal::Rest;
        self.restart = false;
        if self.kind == Kind::Adopted && !self.asleep {
            self.want(Desired::AsFound, effects);
        }
    }

    fn due_now(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let has_come = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        has_come(&mut self.not_before);
        if has_come(&mut self.recovered_at) && self.real.is_up() {
            self.failed = None;
            self.ready = true;
        }
        if has_come(&mut self.settle_at) && self.goal == Goal::Rest {
            let desired = match (self.kind, self.real.is_up()) {
                (Kind::Adopted, _) => Desired::AsFound,
                (Kind::Ours, true) => Desired::Running,
                (Kind::Ours, false) => Desired::Stopped,
            };
            self.want(desired, effects);
        }
        if self.goal == Goal::Up && self.busy.is_none() {
            self.judge_readiness(now, effects);
        }
    }

    fn plan(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let waits = self.not_before.is_some_and(|at| now < at);
        if !self.engine || self.busy.is_some() || !self.saving.is_empty() || waits {
            return;
        }
        if self.goal == Goal::Rest && !self.reconcile {
            self.save_again(effects);
            if !self.saving.is_empty() {
                return;
            }
        }
        let next = if self.goal == Goal::Gone && self.kind == Kind::Adopted {
            self.let_go()
        } else if self.autopsy.is_some() {
            Some(Op::Logs)
        } else if self.look && (self.goal != Goal::Gone || self.real != Real::Absent) {
            self.look = false;
            Some(Op::Look)
        } else {
            self.next_op(now, effects)
        };
        if let Some(op) = next {
            self.busy = Some(op);
            effects.push(Effect::Run(op));
        } else if self.goal == Goal::Gone {
            self.saving.push_back(None);
            effects.push(Effect::Forget);
        }
    }

    /// What is true at rest is saved another time where that failed.
    fn save_again(&mut self, effects: &mut Vec<Effect>) {
        if self.kind == Kind::Adopted && !self.asleep {
            self.want(Desired::AsFound, effects);
        }
        if self.saving.is_empty() && self.asleep != self.saved_asleep {
            self.save(Change::Asleep(self.asleep), effects);
        }
    }

    /// An adopted container is left as it is, but not asleep: who could wake it is going. One attempt.
    fn let_go(&mut self) -> Option<Op> {
        if self.asleep && (self.look || self.real == Real::Unknown) {
            self.look = false;
            return Some(Op::Look);
        }
        let op = match self.real {
            Real::Paused if self.asleep => Some(Op::Unpause),
            Real::Down { .. } if self.asleep => Some(Op::Start),
            _ => None,
        };
        self.asleep = false;
        if op.is_none() {
            self.real = Real::Absent;
        }
        op
    }

    fn next_op(&mut self, now: Instant, effects: &mut Vec<Effect>) -> Option<Op> {
        let ours = self.kind == Kind::Ours;
        match (self.goal, &self.real) {
            (Goal::Gone, Real::Absent) | (Goal::Rest, _) => None,
            (Goal::Gone, Real::Up { .. } | Real::Paused | Real::Restarting { .. }) if self.gently => {
                self.gently = false;
                Some(Op::Stop)
            }
            (Goal::Gone, _) => Some(Op::Remove),
            (_, Real::Unknown) => Some(Op::Look),
            (Goal::Down, Real::Down { .. } | Real::Absent) => {
                if !ours && self.real == Real::Absent {
                    self.judge_adopted_end();
                }
                self.rest(effects);
                None
            }
            (Goal::Down, Real::Paused) if self.asleep && self.nap == Nap::Pause => {
                self.rest(effects);
                None
            }
            (Goal::Down, Real::Up { .. }) if self.asleep && self.nap == Nap::Pause => Some(Op::Pause),
            (Goal::Down, _) | (Goal::Up, Real::Restarting { .. }) => Some(Op::Stop),
            (Goal::Up, Real::Absent) if ours => Some(Op::Create),
            (Goal::Up, Real::Absent) => {
                self.failed = Some("The container does not exist any more".to_owned());
                self.rest(effects);
                None
            }
            // Once per way up: a container that is never as it should be is started as it is.
            (Goal::Up, Real::Down { stale: true, .. }) if ours && !self.replaced => {
                self.replaced = true;
                Some(Op::Remove)
            }
            (Goal::Up, Real::Down { .. }) => Some(Op::Start),
            (Goal::Up, Real::Paused | Real::Up { .. }) if self.restart => Some(Op::Stop),
            (Goal::Up, Real::Paused) => Some(Op::Unpause),
            (Goal::Up, Real::Up { readiness: Readiness::Http { .. }, .. }) if self.probe.0 <= now => {
                Some(Op::Probe)
            }
            (Goal::Up, Real::Up { .. }) => None,
        }
    }
}

#[cfg(test)]
mod tests;
