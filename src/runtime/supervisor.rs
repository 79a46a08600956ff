//! The one thread that changes a project's status.
//!
//! Takes a message, asks [`lifecycle::step`], hands the effects to the store's queue and the op pool without waiting for either, and
//! publishes what came of a batch: first the snapshot, then one frame per owner. Calls no engine, no SQL, no HTTP.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::ops::{self, Ops};
use super::poller::{Kick, Sample};
use super::snapshot::{EngineState, Run, View};
use super::{Command, Hub, Message, Refused, Reply, Runtime, container};
use crate::docker::{Action, ContainerEvent, Inspected, LABEL_INSTANCE, Listed, State};
use crate::domain::lifecycle::{self, Change, Effect, Input, Kind, LAST_OUTPUT, Life, Op, Outcome};
use crate::domain::{Addressed, ContainerName, Event, Metrics, Project, ProjectId, Status, UserId, metrics};
use crate::limits;
use crate::store::{self, Store};
use crate::threads::{Thread, spawn_vital};

/// Turns one owner's events into a frame of bytes; the first event has the given id, each next one the next.
pub type Encode = Box<dyn Fn(&[&Event], u64) -> Vec<u8> + Send>;

/// What the supervisor is made of.
pub struct Settings {
    /// Where intents become durable.
    pub store: Arc<Store>,
    /// How operations are run.
    pub ops: ops::Settings,
    /// Makes frames.
    pub encode: Encode,
    /// The stream clients.
    pub hub: Arc<Hub>,
    /// What the store holds at the start.
    pub projects: Vec<Project>,
}

/// The supervisor before it runs: its inbox is open, so that others can be wired to it.
pub struct Supervisor {
    runtime: Runtime,
    inbox: Receiver<Message>,
    store: Arc<Store>,
    ops: Ops,
    encode: Encode,
    kick: Kick,
    entries: HashMap<ProjectId, Entry>,
    names: HashMap<ContainerName, ProjectId>,
    engine: EngineState,
    /// When the log was last told that the engine does not answer.
    complained: Option<Instant>,
    /// Operations that found no thread, or wait for their turn.
    waiting: VecDeque<(ProjectId, Op)>,
    /// Changes that found the store's queue full, in their order; `None` forgets the project.
    unsaved: VecDeque<(ProjectId, Option<Change>)>,
    /// Looks and probes in flight.
    looks: usize,
    probes: usize,
    /// Somebody is running since this batch began: its first numbers are to be read.
    kick_due: bool,
    events: Vec<Addressed>,
    changed: HashSet<UserId>,
    next_id: u64,
}

/// The running thread; dropping it ends and joins it.
pub struct Supervising {
    inbox: Sender<Message>,
    // Dropped, and so joined, after it was told to end.
    _thread: Thread,
}

impl Drop for Supervising {
    fn drop(&mut self) {
        // Closed means that it has ended already.
        drop(self.inbox.send(Message::Stop));
    }
}

struct Entry {
    project: Arc<Project>,
    life: Life,
    seen: Option<Arc<Inspected>>,
    shown: Status,
    metrics: Option<Metrics>,
    /// When it was last asked to start: a signal from before is not for this run.
    start_asked: SystemTime,
    /// Changes handed to the store, and those that it has answered.
    saves: u64,
    saves_answered: u64,
    /// Who waits for an answer, and for which of those changes.
    replies: Vec<(u64, Reply)>,
    view: Option<Arc<View>>,
}

impl Supervisor {
    /// Makes it, with the projects that the store knows.
    #[must_use]
    pub fn new(settings: Settings, kick: Kick) -> Supervisor {
        let (sender, inbox) = bounded(limits::INBOX);
        let runtime = Runtime {
            inbox: sender.clone(),
            shared: Arc::default(),
            kick: kick.clone(),
            hub: settings.hub,
            polls: Arc::default(),
        };
        let mut supervisor = Supervisor {
            runtime,
            inbox,
            store: settings.store,
            ops: Ops::new(settings.ops, sender),
            encode: settings.encode,
            kick,
            entries: HashMap::new(),
            names: HashMap::new(),
            engine: EngineState::default(),
            complained: None,
            waiting: VecDeque::new(),
            unsaved: VecDeque::new(),
            looks: 0,
            probes: 0,
            kick_due: false,
            events: Vec::new(),
            changed: HashSet::new(),
            next_id: 1,
        };
        for project in settings.projects {
            supervisor.add(project);
        }
        supervisor.publish();
        supervisor
    }

    /// The way to it.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        self.runtime.clone()
    }

    /// The way to its inbox, for those who bring news.
    #[must_use]
    pub fn inbox(&self) -> Sender<Message> {
        self.runtime.inbox.clone()
    }

    /// Starts it. It ends with [`Message::Stop`]; should it die, `died` is told.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(mut self, died: Sender<String>) -> std::io::Result<Supervising> {
        let inbox = self.inbox();
        let thread = spawn_vital("supervisor", limits::STACK_DEFAULT, died, move || self.run())?;
        Ok(Supervising { inbox, _thread: thread })
    }

    fn run(&mut self) {
        loop {
            let message = match self.next_due() {
                None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => self.inbox.recv_deadline(due),
            };
            match message {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
            for _ in 1..limits::BATCH {
                match self.inbox.try_recv() {
                    Ok(Message::Stop) => return,
                    Ok(message) => self.take(message),
                    Err(_) => break,
                }
            }
            self.take_due();
            self.offer_again();
            self.publish();
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let stuck = !self.waiting.is_empty() || !self.unsaved.is_empty();
        let again = stuck.then(|| Instant::now() + limits::OFFER_AGAIN);
        self.entries.values().filter_map(|entry| entry.life.due()).chain(again).min()
    }

    fn take_due(&mut self) {
        let now = Instant::now();
        let due: Vec<ProjectId> = self
            .entries
            .iter()
            .filter(|(_, e)| e.life.due().is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.step(id, Input::Due);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Command(id, command, reply) => self.command(id, command, reply),
            Message::Recorded(project, seen, reply) => self.recorded(*project, seen, reply),
            Message::Saved(id, result) => self.saved(id, result),
            Message::Forgotten(id, Ok(())) => self.forgotten(id),
            Message::Forgotten(id, Err(error)) => {
                log::error!("store: {id} cannot be forgotten: {error}");
                self.step(id, Input::NotSaved);
            }
            Message::Ended(id, op, outcome, seen) => self.ended(id, op, outcome, seen),
            Message::Told(event) => self.told(&event),
            Message::StreamOpen(engine) => {
                log::info!("docker: engine {} (API {}.{})", engine.version, engine.api.0, engine.api.1);
                if engine.podman {
                    log::warn!(
                        "docker: this is Podman, which does not keep the containers of projects from reaching each other"
                    );
                }
                self.engine.version = Some(engine.version.into());
                self.ops.forget_network();
                self.kick.now();
            }
            Message::StreamLost(reason) => {
                log::debug!("docker: the event stream ended: {reason}");
                self.kick.now();
            }
            Message::Listed(Ok(containers)) => self.listed(&containers),
            Message::Listed(Err(reason)) => self.engine_lost(&reason),
            Message::Bridges(subnets) => {
                if *self.engine.bridges != subnets[..] {
                    self.engine.bridges = subnets.into();
                }
            }
            Message::Sampled(samples) => samples.iter().for_each(|sample| self.sampled(sample)),
            Message::Reach(answer) => {
                // Whoever asked may have forgotten it.
                let _ = answer.try_send(());
            }
            Message::Stop => {}
        }
    }

    fn add(&mut self, project: Project) {
        let (id, owner) = (project.id, project.owner);
        let kind = if project.is_adopted() { Kind::Adopted } else { Kind::Ours };
        let life = Life::new(kind, project.desired, project.deleting, Instant::now());
        if !project.deleting {
            self.names.insert(project.container_name(), id);
        }
        let entry = Entry {
            shown: life.status(),
            project: Arc::new(project),
            life,
            seen: None,
            metrics: None,
            start_asked: SystemTime::UNIX_EPOCH,
            saves: 0,
            saves_answered: 0,
            replies: Vec::new(),
            view: None,
        };
        self.entries.insert(id, entry);
        self.changed.insert(owner);
    }

    fn recorded(&mut self, project: Project, seen: Option<Box<Inspected>>, reply: Reply) {
        let id = project.id;
        match self.entries.get_mut(&id) {
            Some(entry) => {
                entry.project = Arc::new(project);
                self.step(id, Input::Hint);
                self.mark(id);
            }
            None => self.created(project, seen),
        }
        self.answer_later(id, reply);
    }

    fn created(&mut self, project: Project, seen: Option<Box<Inspected>>) {
        let (id, told) = (project.id, self.events.len());
        self.add(project);
        if self.engine.up {
            self.step(id, Input::EngineBack);
        }
        if let (Some(entry), Some(seen)) = (self.entries.get_mut(&id), seen) {
            // The caller has looked already; the look that is under way finds the same.
            let real = container::reality(&entry.project, &seen, true);
            entry.seen = Some(Arc::from(seen));
            self.step(id, Input::Ended(Op::Look, Outcome::Seen(real)));
            self.mark(id);
        }
        if self.events.len() == told {
            self.tell_status(id);
        }
    }

    fn command(&mut self, id: ProjectId, command: Command, reply: Reply) {
        let known = self.entries.get(&id).is_some_and(|entry| entry.life.is_visible());
        let refused =
            if known { (!self.engine.up).then_some(Refused::Engine) } else { Some(Refused::NotFound) };
        if let Some(refused) = refused {
            drop(reply.try_send(Err(refused)));
            return;
        }
        let input = match command {
            Command::Start => Input::Start,
            Command::Stop => Input::Stop,
            Command::Restart => Input::Restart,
            Command::Delete => Input::Delete,
        };
        self.step(id, input);
        self.answer_later(id, reply);
    }

    /// Answers now, or when what the project is saving is durable. Whoever asked has a place for one answer: it never blocks.
    fn answer_later(&mut self, id: ProjectId, reply: Reply) {
        match self.entries.get_mut(&id) {
            Some(entry) => entry.replies.push((entry.saves, reply)),
            None => drop(reply.try_send(Err(Refused::NotFound))),
        }
    }

    fn forgotten(&mut self, id: ProjectId) {
        if let Some(mut entry) = self.entries.remove(&id) {
            entry.answer();
            let name = entry.project.container_name();
            if self.names.get(&name) == Some(&id) {
                self.names.remove(&name);
            }
            self.changed.insert(entry.project.owner);
        }
    }

    fn saved(&mut self, id: ProjectId, result: Result<(), store::Error>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.saves_answered += 1;
        let input = match result {
            Ok(()) => Input::Saved,
            Err(error) => {
                log::error!("store: what is wanted of {id} cannot be saved: {error}");
                let saved = entry.saves_answered;
                for (_, reply) in entry.replies.extract_if(.., |(awaited, _)| *awaited == saved) {
                    drop(reply.try_send(Err(Refused::Store(error.clone()))));
                }
                Input::NotSaved
            }
        };
        self.step(id, input);
    }

    fn ended(&mut self, id: ProjectId, op: Op, outcome: Outcome, seen: Option<Box<Inspected>>) {
        self.looks -= usize::from(op == Op::Look);
        self.probes -= usize::from(op == Op::Probe);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if op == Op::Look && matches!(outcome, Outcome::Seen(_)) {
            entry.seen = seen.map(Arc::from);
        }
        self.step(id, Input::Ended(op, outcome));
        self.mark(id);
    }

    fn told(&mut self, event: &ContainerEvent) {
        if event.action == Action::Rename {
            self.kick.now();
        }
        let Some(id) = self.names.get(&event.name).copied() else { return };
        let nanos = u64::try_from(event.time_nanos).unwrap_or_default();
        let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
        let now = SystemTime::now();
        let this_run = self.entries.get(&id).is_some_and(|entry| is_since(at, entry.start_asked, now));
        if this_run && matches!(event.action, Action::Kill { signal: 2 | 3 | 9 | 15 }) {
            self.step(id, Input::Killed);
        }
        let seen = self.entries.get(&id).and_then(|entry| entry.seen.as_deref());
        let is_present =
            seen.is_some_and(|seen| seen.id == event.id && seen.started_at.is_some_and(|since| since <= at));
        match event.action {
            Action::Die { exit_code } if is_present => self.step(id, Input::Died(exit_code)),
            _ => self.step(id, Input::Hint),
        }
    }

    fn listed(&mut self, containers: &[Listed]) {
        if !self.engine.up {
            self.engine.up = true;
            log::info!("docker: the engine answers");
            self.name_orphans(containers);
            for id in self.ids() {
                self.step(id, Input::EngineBack);
            }
            self.changed.extend(self.entries.values().map(|entry| entry.project.owner));
            return;
        }
        let by_name: HashMap<&ContainerName, &Listed> =
            containers.iter().map(|listed| (&listed.name, listed)).collect();
        for id in self.ids() {
            let entry = &self.entries[&id];
            let listed = by_name.get(&entry.project.container_name());
            let same = match (&entry.seen, listed) {
                (Some(seen), Some(listed)) => seen.id == listed.id && same_state(seen.state, listed.state),
                (None, None) => true,
                _ => false,
            };
            if !same || entry.life.status() == Status::Deploying {
                self.step(id, Input::Hint);
            }
        }
    }

    /// Containers of this installation that no project has: an older database was put back. They are left alone.
    fn name_orphans(&self, containers: &[Listed]) {
        for listed in containers.iter().filter(|c| c.labels.get(LABEL_INSTANCE) == Some(self.ops.instance()))
        {
            if listed.labels.project().is_none_or(|id| !self.entries.contains_key(&id)) {
                log::warn!(
                    "the container {} was made for a project that is not known (any more)",
                    listed.name.as_str()
                );
            }
        }
    }

    fn engine_lost(&mut self, reason: &str) {
        if self.engine.up || self.complained.is_none_or(|at| at.elapsed() > limits::COMPLAIN_EVERY) {
            self.complained = Some(Instant::now());
            log::warn!("docker: the engine does not answer: {reason}");
        }
        if std::mem::take(&mut self.engine.up) {
            self.ops.forget_network();
            for id in self.ids() {
                self.step(id, Input::EngineLost);
            }
            self.changed.extend(self.entries.values().map(|entry| entry.project.owner));
        }
    }

    fn ids(&self) -> Vec<ProjectId> {
        self.entries.keys().copied().collect()
    }

    fn sampled(&mut self, sample: &Sample) {
        let Some(entry) = self.entries.get_mut(&sample.project) else { return };
        let current = entry.seen.as_deref().and_then(run_of).is_some_and(|run| run == sample.run);
        if entry.shown != Status::Running || !current {
            return;
        }
        let metrics = Metrics {
            cpu: sample.cpu,
            memory_mib: metrics::mib(sample.memory_bytes),
            requests: entry.project.requests,
            uptime: metrics::uptime(sample.run.since, SystemTime::now()),
            last_activity: entry.project.last_request.map_or(sample.run.since, |at| at.max(sample.run.since)),
        };
        entry.metrics = Some(metrics);
        let (owner, project) = (entry.project.owner, entry.project.id);
        self.events.push(Addressed { owner, event: Event::Metrics { project, metrics } });
        self.mark(project);
    }

    /// Applies one input to one project, and starts what comes of it.
    fn step(&mut self, id: ProjectId, input: Input) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let (life, effects) = lifecycle::step(entry.life.clone(), input, Instant::now());
        let visible = entry.life.is_visible();
        entry.life = life;
        entry.saves += effects.iter().filter(|effect| matches!(effect, Effect::Save(_))).count() as u64;
        if effects.contains(&Effect::Run(Op::Start)) {
            entry.start_asked = SystemTime::now();
        }
        let status_changed = entry.life.status() != entry.shown && !entry.life.is_undecided();
        if visible != entry.life.is_visible() {
            self.mark(id);
        }
        if status_changed {
            self.tell_status(id);
        }
        for effect in effects {
            match effect {
                Effect::Run(op) => self.waiting.push_back((id, op)),
                Effect::Announce => self.tell_status(id),
                Effect::Save(change) => self.unsaved.push_back((id, Some(change))),
                Effect::Forget => self.unsaved.push_back((id, None)),
            }
        }
        self.offer_again();
    }

    fn tell_status(&mut self, id: ProjectId) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.life.is_visible()) else { return };
        entry.shown = entry.life.status();
        // Without the app's output: what it prints is its owner's.
        let reason = entry.life.reason().and_then(|reason| reason.split(LAST_OUTPUT).next());
        let status = format!("{:?}", entry.shown).to_ascii_lowercase();
        log::info!("{id} is {status}{}", reason.map(|reason| format!(": {reason}")).unwrap_or_default());
        if entry.shown == Status::Running {
            self.kick_due = true;
        } else {
            entry.metrics = None;
        }
        let event = status_event(entry, true);
        self.events.push(Addressed { owner: entry.project.owner, event });
        self.mark(id);
    }

    fn mark(&mut self, id: ProjectId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.view = None;
            self.changed.insert(entry.project.owner);
        }
    }

    /// Hands over what waits, as far as there is room.
    fn offer_again(&mut self) {
        while let Some((id, change)) = self.unsaved.front() {
            if self.save(*id, *change).is_err() {
                break;
            }
            self.unsaved.pop_front();
        }
        for _ in 0..self.waiting.len() {
            let Some((id, op)) = self.waiting.pop_front() else { return };
            let Some(entry) = self.entries.get(&id) else { continue };
            let turn = match op {
                Op::Look => self.looks < limits::LOOKS_AT_ONCE,
                Op::Probe => self.probes < limits::PROBES_AT_ONCE,
                _ => true,
            };
            if turn && self.ops.submit(&entry.project, op, entry.seen.clone()).is_ok() {
                self.looks += usize::from(op == Op::Look);
                self.probes += usize::from(op == Op::Probe);
            } else {
                self.waiting.push_back((id, op));
            }
        }
    }

    fn save(&self, id: ProjectId, change: Option<Change>) -> Result<(), store::Full> {
        let inbox = self.runtime.inbox.clone();
        // The inbox is closed only when nobody is interested any more.
        let done = move |result: Result<(), store::Error>| {
            let message =
                if change.is_some() { Message::Saved(id, result) } else { Message::Forgotten(id, result) };
            drop(inbox.send(message));
        };
        match change {
            Some(Change::Desired(desired)) => self.store.try_set_desired(id, desired, Box::new(done)),
            Some(Change::Deleting) => self.store.try_mark_deleting(id, Box::new(done)),
            None => self.store.try_forget(id, Box::new(done)),
        }
    }

    /// Shows what this batch changed: the snapshot first, so that nobody hears of what REST does not say yet; then the frames; then the
    /// answers to those who asked.
    fn publish(&mut self) {
        let news = !self.changed.is_empty()
            || !self.events.is_empty()
            || self.runtime.snapshot().engine != self.engine;
        if news {
            let mut frames = HashMap::new();
            let mut by_owner: HashMap<UserId, Vec<&Event>> = HashMap::new();
            for addressed in &self.events {
                by_owner.entry(addressed.owner).or_default().push(&addressed.event);
            }
            for (owner, events) in by_owner {
                frames.insert(owner, (self.next_id, Arc::from((self.encode)(&events, self.next_id))));
                self.next_id += events.len() as u64;
            }
            self.events.clear();
            self.show();
            self.runtime.hub.publish(&frames);
        }
        for entry in self.entries.values_mut().filter(|entry| !entry.replies.is_empty()) {
            entry.answer();
        }
        if std::mem::take(&mut self.kick_due) {
            // Its first numbers are read now, so that the next round can tell a share.
            self.kick.now();
        }
    }

    fn show(&mut self) {
        let mut projects = HashMap::with_capacity(self.entries.len());
        for (id, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.life.is_visible()) {
            projects.insert(*id, entry.view());
        }
        let before = self.runtime.snapshot();
        let first_id = self.next_id;
        // Room for what a client is told that starts from here: the greeting, and two events per project.
        self.next_id += 1 + 2 * projects.len() as u64;
        let after = before.with(first_id, self.engine.clone(), projects, &std::mem::take(&mut self.changed));
        *self.runtime.shared.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(after);
    }
}

impl Entry {
    fn view(&mut self) -> Arc<View> {
        let made = self.view.take().unwrap_or_else(|| Arc::new(self.make_view()));
        Arc::clone(self.view.insert(made))
    }

    /// Answers those whose change is durable. Each has a place for its answer: it never blocks.
    fn answer(&mut self) {
        let (view, saved) = (self.view(), self.saves_answered);
        for (_, reply) in self.replies.extract_if(.., |(awaited, _)| *awaited <= saved) {
            drop(reply.try_send(Ok(Arc::clone(&view))));
        }
    }

    fn make_view(&self) -> View {
        let up = self.seen.as_deref().filter(|seen| seen.state == State::Running && self.life.is_up());
        View {
            project: Arc::clone(&self.project),
            status: self.shown,
            reason: self.life.reason().map(Arc::from),
            address: up.and_then(|seen| container::browser_address(&self.project, seen)),
            metrics: self.metrics,
            run: up.and_then(run_of),
        }
    }
}

fn status_event(entry: &Entry, notify: bool) -> Event {
    Event::Status {
        project: entry.project.id,
        name: entry.project.name.clone(),
        status: entry.shown,
        reason: entry.life.reason().map(Arc::from),
        notify,
        at: SystemTime::now(),
    }
}

fn run_of(seen: &Inspected) -> Option<Run> {
    let since = seen.started_at.filter(|_| seen.state == State::Running)?;
    Some(Run { container: seen.id.clone(), pid: seen.pid, since, capacity: seen.capacity })
}

/// Whether an inspect and a list mean the same: an inspect tells more of the ends than a list.
fn same_state(seen: State, listed: State) -> bool {
    let end = |state| matches!(state, State::Created | State::Exited | State::Dead | State::Removing);
    seen == listed || (end(seen) && end(listed))
}

/// Whether what happened `at` came after the last start, by the same clock. Should that have been set back meanwhile, it is taken for so.
fn is_since(at: SystemTime, start_asked: SystemTime, now: SystemTime) -> bool {
    at >= start_asked || start_asked > now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_148_a_signal_counts_for_this_run_also_after_the_clock_was_set_back() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
        for (at, start_asked, now, this_run) in [
            (noon + second, noon, noon + second, true),
            (noon - second, noon, noon + second, false),
            (noon - day, noon, noon - day, true),
            (noon + day, noon, noon + day, true),
        ] {
            assert_eq!(is_since(at, start_asked, now), this_run);
        }
    }
}
