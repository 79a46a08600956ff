//! The one thread that changes a project's status.
//!
//! Takes a message, asks [`lifecycle::step`], hands the effects to the store's queue and the op pool without waiting for either, and
//! publishes what came of a batch: first the snapshot, then one frame per owner. Calls no engine, no SQL, no HTTP.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::entry::{Entry, Tenant, run_of};
use super::ops::{self, Ops};
use super::poller::{Kick, Sample};
use super::releases::Building;
use super::snapshot::EngineState;
use super::{Build, Command, Hub, Message, Recorded, Refused, Reply, Runtime, Slot, container};
use crate::docker::{Action, ContainerEvent, Inspected, LABEL_INSTANCE, Listed, State};
use crate::domain::idle::Rule;
use crate::domain::lifecycle::{self, Change, Effect, Input, LAST_OUTPUT, Op, Outcome};
use crate::domain::{
    Addressed, Cause, ContainerName, Deployment, Event, Metrics, Project, ProjectId, Status, Sum, Traffic,
    UserId, Wake, metrics,
};
use crate::store::{self, Store};
use crate::threads::{Thread, spawn_vital};
use crate::{host, limits};

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
    /// The last deployment of each of them.
    pub last: HashMap<ProjectId, Deployment>,
    /// The deployments that wait, in their order.
    pub waiting: Vec<Deployment>,
    /// Who may be put to sleep.
    pub sleep: Rule,
    /// How long projects took to wake, oldest first.
    pub wakes: Vec<(ProjectId, Wake)>,
    /// Where one deployment at a time is handed over to be built.
    pub builds: Sender<Build>,
}

/// The supervisor before it runs: its inbox is open, so that others can be wired to it.
pub struct Supervisor {
    pub(super) runtime: Runtime,
    inbox: Receiver<Message>,
    pub(super) store: Arc<Store>,
    pub(super) ops: Ops,
    encode: Encode,
    kick: Kick,
    pub(super) entries: HashMap<ProjectId, Entry>,
    pub(super) names: HashMap<ContainerName, Slot>,
    pub(super) engine: EngineState,
    /// Projects whose deployment waits for its turn.
    pub(super) queue: VecDeque<ProjectId>,
    /// What is being built.
    pub(super) building: Option<Building>,
    pub(super) builds: Sender<Build>,
    /// Whose deployment was built last.
    pub(super) last_built: Option<UserId>,
    /// Clean-ups under way.
    pub(super) cleaners: usize,
    pub(super) sleep: Rule,
    /// CPUs of a container without a limit of its own.
    pub(super) online_cpus: u32,
    /// When what sleeping saved was counted last.
    pub(super) counted_at: Instant,
    /// When what passed to apps is to be counted.
    count_at: Instant,
    /// When the log was last told that the engine does not answer.
    complained: Option<Instant>,
    /// Operations that found no thread, or wait for their turn.
    waiting: VecDeque<(Slot, Op)>,
    /// What found the store's queue full, in its order.
    pub(super) unsaved: VecDeque<Write>,
    /// Looks and probes in flight.
    looks: usize,
    probes: usize,
    /// Somebody is running since this batch began: its first numbers are to be read.
    kick_due: bool,
    pub(super) events: Vec<Addressed>,
    pub(super) changed: HashSet<UserId>,
    next_id: u64,
}

/// What the store is to make durable.
pub(super) enum Write {
    /// What is wanted of a project.
    Change(ProjectId, Change),
    /// That there is no such project any more.
    Forget(ProjectId),
    /// How far a deployment came, and whether its version becomes the project's with that.
    Deployment(Box<Deployment>, bool),
    /// That a project goes back to the version of the deployment with this number.
    Recover(ProjectId, u32),
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
            queue: VecDeque::new(),
            building: None,
            builds: settings.builds,
            sleep: settings.sleep,
            online_cpus: host::online_cpus(),
            counted_at: Instant::now(),
            last_built: None,
            cleaners: 0,
            count_at: Instant::now() + limits::COUNT_EVERY,
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
        let mut last = settings.last;
        for project in settings.projects {
            let ended = last.remove(&project.id);
            supervisor.add(project);
            supervisor.remember(ended);
        }
        supervisor.remember_wakes(settings.wakes);
        for deployment in settings.waiting {
            supervisor.enqueue(deployment);
        }
        supervisor.tell_unbuilt();
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
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return self.count(),
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
            for _ in 1..limits::BATCH {
                match self.inbox.try_recv() {
                    Ok(Message::Stop) => return self.count(),
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
        self.entries.values().filter_map(Entry::due).chain(again).chain([self.count_at]).min()
    }

    fn take_due(&mut self) {
        let now = Instant::now();
        if self.count_at <= now {
            if now > self.count_at + limits::STALLED {
                // We were stopped, or the host was: what was asked meanwhile still waits at our door.
                self.entries.values().for_each(|entry| entry.gate.touch());
            }
            self.count_at = now + limits::COUNT_EVERY;
            self.count_saved(now);
            self.count();
            self.put_to_sleep(now);
        }
        for id in self.ids() {
            let Some(entry) = self.entries.get(&id).filter(|e| e.due().is_some_and(|at| at <= now)) else {
                continue;
            };
            let due = entry.tenants().filter(|tenant| tenant.life.due().is_some_and(|at| at <= now));
            let due: Vec<u32> = due.map(Tenant::number).collect();
            for number in due {
                self.step_at((id, number), Input::Due);
            }
            self.take_due_of_deployments(id, now);
        }
    }

    /// Has the store add what has passed since the last time. What finds no place there is counted with the next.
    fn count(&mut self) {
        let added =
            self.entries.iter().map(|(id, entry)| (*id, entry.gate.meter.read().since(entry.counted)));
        let added: Vec<(ProjectId, Traffic)> = added.filter(|(_, added)| !added.is_none()).collect();
        if added.is_empty() {
            return;
        }
        let (inbox, told) = (self.runtime.inbox.clone(), added.clone());
        let done = move |result: Result<(), store::Error>| {
            if let Err(error) = result {
                log::warn!("store: what passed to apps cannot be counted now: {error}");
                drop(inbox.send(Message::NotCounted(told)));
            }
        };
        if self.store.try_add_traffic(added.clone(), Box::new(done)).is_ok() {
            for (id, added) in added {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.counted = entry.counted.and(added);
                }
                // Lists show the sums.
                self.mark(id);
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Command(id, command, reply) => self.command(id, command, reply),
            Message::Recorded(recorded, reply) => self.recorded(*recorded, reply),
            Message::Queued(deployment, reply) => self.queued(*deployment, reply),
            Message::Told(id, number, told) => self.deployment_told(id, number, told),
            Message::DeploymentSaved(id, number, released, result) => {
                self.deployment_saved(id, number, released, &result);
            }
            Message::Cleaned(id, all, left) => self.cleaned(id, all, left),
            Message::Saved(id, result) => self.saved(id, result),
            Message::Forgotten(id, Ok(())) => self.forgotten(id),
            Message::Forgotten(id, Err(error)) => {
                log::error!("store: {id} cannot be forgotten: {error}");
                self.step(id, Input::NotSaved);
            }
            Message::Ended(slot, op, outcome, seen) => self.ended(slot, op, outcome, seen),
            Message::Happened(event) => self.happened(&event),
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
            Message::Wake(id, asked) => self.wake(id, asked),
            Message::Woken(id, asked, answered) => self.woken(id, asked, answered),
            Message::NotCounted(lost) => {
                for (id, lost) in lost {
                    if let Some(entry) = self.entries.get_mut(&id) {
                        entry.counted = entry.counted.since(lost);
                    }
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
        let (id, owner, desired, deleting) = (project.id, project.owner, project.desired, project.deleting);
        let held = project.asleep;
        let mut tenant = Tenant::new(project, desired, Instant::now());
        // Where no request passes that could wake it, it is not asleep but to be started.
        tenant.life = tenant.life.asleep(held.is_some() && self.sleep.wakes);
        if !deleting {
            self.names.insert(tenant.project.container_name(), (id, tenant.number()));
        }
        let mut entry = Entry::new(tenant);
        entry.held = held.unwrap_or_default();
        self.entries.insert(id, entry);
        self.changed.insert(owner);
    }

    fn recorded(&mut self, recorded: Recorded, reply: Reply) {
        let Recorded { project, seen, first } = recorded;
        let id = project.id;
        match self.entries.get_mut(&id) {
            Some(entry) => {
                // What has passed since is counted here.
                let traffic = entry.current.project.traffic;
                entry.current.project = Arc::new(Project { traffic, ..project });
                self.step(id, Input::Hint);
                self.mark(id);
            }
            None => self.created(project, seen, first),
        }
        self.answer_later(id, reply);
    }

    fn created(&mut self, project: Project, seen: Option<Box<Inspected>>, first: Option<Deployment>) {
        let (id, told) = (project.id, self.events.len());
        self.add(project);
        if let Some(first) = first {
            self.enqueue(first);
        }
        if self.engine.up {
            self.step(id, Input::EngineBack);
        }
        if let (Some(entry), Some(seen)) = (self.entries.get_mut(&id), seen) {
            // The caller has looked already; the look that is under way finds the same.
            let real = container::reality(&entry.current.project, &seen, true);
            entry.current.seen = Some(Arc::from(seen));
            self.step(id, Input::Ended(Op::Look, Outcome::Seen(real)));
            self.mark(id);
        }
        if self.events.len() == told {
            self.tell_status(id);
        }
        self.next_build();
    }

    fn command(&mut self, id: ProjectId, command: Command, reply: Reply) {
        let known = self.entries.get(&id).is_some_and(|entry| entry.current.life.is_visible());
        // To give up what waits needs no engine.
        let needs_engine = !matches!(command, Command::Cancel(_));
        let away = (needs_engine && !self.engine.up).then_some(Refused::Engine);
        let refused = if known { away } else { Some(Refused::NotFound) };
        if let Some(refused) = refused {
            drop(reply.try_send(Err(refused)));
            return;
        }
        let input = match command {
            Command::Start => Input::Start,
            Command::Stop => Input::Stop,
            Command::Restart => Input::Restart,
            Command::Delete => Input::Delete,
            Command::Cancel(number) => return self.cancel(id, number, reply),
        };
        self.forget_wakes(id);
        let next = self.decided(id, command);
        self.step(id, input);
        if let Some(next) = next {
            self.retire(id, next, Duration::ZERO);
        }
        if command == Command::Delete {
            self.hurry(id);
        }
        self.next_build();
        self.answer_later(id, reply);
    }

    /// Answers now, or when what the project is saving is durable. Whoever asked has a place for one answer: it never blocks.
    pub(super) fn answer_later(&mut self, id: ProjectId, reply: Reply) {
        match self.entries.get_mut(&id) {
            Some(entry) => entry.replies.push((entry.saves, reply)),
            None => drop(reply.try_send(Err(Refused::NotFound))),
        }
    }

    fn forgotten(&mut self, id: ProjectId) {
        if let Some(mut entry) = self.entries.remove(&id) {
            entry.answer();
            self.names.retain(|_, slot| slot.0 != id);
            self.changed.insert(entry.current.project.owner);
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

    fn ended(&mut self, slot: Slot, op: Op, outcome: Outcome, seen: Option<Box<Inspected>>) {
        self.looks -= usize::from(op == Op::Look);
        self.probes -= usize::from(op == Op::Probe);
        let tenant = self.entries.get_mut(&slot.0).and_then(|entry| entry.tenant(slot.1));
        let Some(tenant) = tenant else { return };
        if op == Op::Look && matches!(outcome, Outcome::Seen(_)) {
            tenant.seen = seen.map(Arc::from);
        }
        if outcome == Outcome::Done {
            self.note_done(slot, op);
        }
        self.step_at(slot, Input::Ended(op, outcome));
        self.mark(slot.0);
    }

    fn happened(&mut self, event: &ContainerEvent) {
        if event.action == Action::Rename {
            self.kick.now();
        }
        let Some(slot) = self.names.get(&event.name).copied() else { return };
        let tenant = self.entries.get_mut(&slot.0).and_then(|entry| entry.tenant(slot.1));
        let Some(Tenant { seen, start_asked, .. }) = tenant else { return };
        let nanos = u64::try_from(event.time_nanos).unwrap_or_default();
        let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
        let this_run = is_since(at, *start_asked, SystemTime::now());
        let is_present = seen
            .as_deref()
            .is_some_and(|seen| seen.id == event.id && seen.started_at.is_some_and(|since| since <= at));
        if this_run && matches!(event.action, Action::Kill { signal: 2 | 3 | 9 | 15 }) {
            self.step_at(slot, Input::Killed);
        }
        match event.action {
            Action::Die { exit_code } if is_present => self.step_at(slot, Input::Died(exit_code)),
            _ => self.step_at(slot, Input::Hint),
        }
    }

    fn listed(&mut self, containers: &[Listed]) {
        if !self.engine.up {
            self.engine.up = true;
            log::info!("docker: the engine answers");
            self.find_leftovers(containers);
            self.name_orphans(containers);
            self.clean_all();
            for slot in self.slots() {
                self.step_at(slot, Input::EngineBack);
            }
            self.changed.extend(self.entries.values().map(|entry| entry.current.project.owner));
            self.next_build();
            return;
        }
        self.find_leftovers(containers);
        let by_name: HashMap<&ContainerName, &Listed> =
            containers.iter().map(|listed| (&listed.name, listed)).collect();
        for slot in self.slots() {
            let Some(tenant) = self.entries.get_mut(&slot.0).and_then(|entry| entry.tenant(slot.1)) else {
                continue;
            };
            let listed = by_name.get(&tenant.project.container_name());
            let same = match (&tenant.seen, listed) {
                (Some(seen), Some(listed)) => seen.id == listed.id && same_state(seen.state, listed.state),
                (None, None) => true,
                _ => false,
            };
            if !same || tenant.life.status() == Status::Deploying {
                self.step_at(slot, Input::Hint);
            }
        }
    }

    /// Removes the containers of versions that never took over, or that were on their way out, when an earlier life of this process ended.
    /// The engine may do what that one asked for last after the first list.
    fn find_leftovers(&mut self, containers: &[Listed]) {
        let ours = |listed: &&Listed| listed.labels.get(LABEL_INSTANCE) == Some(self.ops.instance());
        let unclaimed =
            containers.iter().filter(ours).filter(|listed| !self.names.contains_key(&listed.name));
        let versions =
            unclaimed.filter_map(|it| Some((it.labels.project()?, it.labels.deployment()?, &it.name)));
        for (id, number, name) in versions.collect::<Vec<_>>() {
            if *name == ContainerName::of_release(id, number) {
                self.remove_leftover(id, number);
            }
        }
    }

    /// Containers of this installation that no project has: an older database was put back. They are left alone.
    fn name_orphans(&self, containers: &[Listed]) {
        let ours = |listed: &&Listed| listed.labels.get(LABEL_INSTANCE) == Some(self.ops.instance());
        for listed in containers.iter().filter(ours) {
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
            for slot in self.slots() {
                self.step_at(slot, Input::EngineLost);
            }
            self.changed.extend(self.entries.values().map(|entry| entry.current.project.owner));
        }
    }

    pub(super) fn ids(&self) -> Vec<ProjectId> {
        self.entries.keys().copied().collect()
    }

    fn slots(&self) -> Vec<Slot> {
        let slots =
            self.entries.iter().flat_map(|(id, entry)| entry.tenants().map(|tenant| (*id, tenant.number())));
        slots.collect()
    }

    fn sampled(&mut self, sample: &Sample) {
        let Some(entry) = self.entries.get_mut(&sample.project) else { return };
        let project = Arc::clone(&entry.current.project);
        let current = entry.current.seen.as_deref().and_then(run_of).is_some_and(|run| run == sample.run);
        if entry.shown != Status::Running || !current {
            return;
        }
        let traffic = entry.traffic();
        let metrics = Metrics {
            cpu: sample.cpu,
            memory_mib: metrics::mib(sample.memory_bytes),
            requests: traffic.get(Sum::REQUESTS),
            uptime: metrics::uptime(sample.run.since, SystemTime::now()),
            last_activity: traffic.last.map_or(sample.run.since, |at| at.max(sample.run.since)),
        };
        (entry.metrics, entry.measured_at) = (Some(metrics), Some(Instant::now()));
        entry.watch(sample.received_bytes, &self.sleep, Instant::now());
        let (owner, project) = (project.owner, project.id);
        self.events.push(Addressed { owner, event: Event::Metrics { project, metrics } });
        self.mark(project);
    }

    /// Applies one input to the version that serves.
    pub(super) fn step(&mut self, id: ProjectId, input: Input) {
        let Some(number) = self.entries.get(&id).map(|entry| entry.current.number()) else { return };
        self.step_at((id, number), input);
    }

    /// Applies one input to one version of a project, and starts what comes of it.
    pub(super) fn step_at(&mut self, slot: Slot, input: Input) {
        let Some(entry) = self.entries.get_mut(&slot.0) else { return };
        let serves = entry.current.number() == slot.1;
        let Some(tenant) = entry.tenant(slot.1) else { return };
        let (life, effects) = lifecycle::step(tenant.life.clone(), input, Instant::now());
        let vanished = tenant.life.is_visible() != life.is_visible();
        tenant.life = life;
        if effects.contains(&Effect::Run(Op::Start)) {
            tenant.start_asked = SystemTime::now();
        }
        if serves {
            self.note_life(slot.0);
        }
        if serves && vanished {
            self.mark(slot.0);
        }
        self.tell_changed_status(slot.0);
        for effect in effects {
            match effect {
                Effect::Run(op) => self.waiting.push_back((slot, op)),
                Effect::Announce => self.tell_status(slot.0),
                Effect::Save(change) => self.unsaved_change(slot, change),
                Effect::Forget if serves => self.forget(slot.0),
                Effect::Forget => self.left(slot),
            }
        }
        self.judge_versions(slot.0);
        self.offer_again();
    }

    /// What is wanted is wanted of the project: the version that serves says it.
    fn unsaved_change(&mut self, slot: Slot, change: Change) {
        if let Some(entry) = self.entries.get_mut(&slot.0) {
            if change == Change::Asleep(false) {
                // Not by a request: the time without any begins anew.
                entry.gate.touch();
            }
            entry.saves += 1;
            self.unsaved.push_back(Write::Change(slot.0, change));
        }
    }

    pub(super) fn tell_changed_status(&mut self, id: ProjectId) {
        let Some(entry) = self.entries.get(&id) else { return };
        if entry.status() != entry.shown && !entry.current.life.is_undecided() {
            self.tell_status(id);
        }
    }

    pub(super) fn tell_status(&mut self, id: ProjectId) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.current.life.is_visible()) else {
            return;
        };
        entry.shown = entry.status();
        // Without the app's output: what it prints is its owner's.
        let reason = entry.reason();
        let reason = reason.as_deref().and_then(|reason| reason.split(LAST_OUTPUT).next());
        let status = entry.shown.word();
        log::info!("{id} is {status}{}", reason.map(|reason| format!(": {reason}")).unwrap_or_default());
        if entry.shown == Status::Running {
            self.kick_due = true;
            entry.running_since.get_or_insert_with(Instant::now);
        } else {
            (entry.metrics, entry.watched, entry.running_since) = (None, None, None);
        }
        let event = entry.status_event(true);
        self.events.push(Addressed { owner: entry.current.project.owner, event });
        self.mark(id);
    }

    pub(super) fn mark(&mut self, id: ProjectId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.view = None;
            self.changed.insert(entry.current.project.owner);
        }
    }

    /// Hands over what waits, as far as there is room.
    pub(super) fn offer_again(&mut self) {
        while let Some(write) = self.unsaved.front() {
            if self.save(write).is_err() {
                break;
            }
            self.unsaved.pop_front();
        }
        for _ in 0..self.waiting.len() {
            let Some((slot, op)) = self.waiting.pop_front() else { return };
            let Some(tenant) = self.entries.get_mut(&slot.0).and_then(|entry| entry.tenant(slot.1)) else {
                continue;
            };
            let turn = match op {
                Op::Look => self.looks < limits::LOOKS_AT_ONCE,
                Op::Probe => self.probes < limits::PROBES_AT_ONCE,
                _ => true,
            };
            if turn && self.ops.submit(&tenant.project, op, tenant.seen.clone()).is_ok() {
                self.looks += usize::from(op == Op::Look);
                self.probes += usize::from(op == Op::Probe);
            } else {
                self.waiting.push_back((slot, op));
            }
        }
    }

    fn save(&self, write: &Write) -> Result<(), store::Full> {
        // The inbox is closed only when nobody is interested any more.
        let inbox = self.runtime.inbox.clone();
        match write {
            Write::Change(id, change) => {
                let id = *id;
                let done = Box::new(move |result| drop(inbox.send(Message::Saved(id, result))));
                match change {
                    Change::Desired(desired) => self.store.try_set_desired(id, *desired, done),
                    Change::Asleep(asleep) => {
                        let held = self.entries.get(&id).map(|entry| entry.held).unwrap_or_default();
                        self.store.try_set_asleep(id, asleep.then_some(held), done)
                    }
                    Change::Deleting => self.store.try_mark_deleting(id, done),
                }
            }
            Write::Forget(id) => {
                let id = *id;
                self.store
                    .try_forget(id, Box::new(move |result| drop(inbox.send(Message::Forgotten(id, result)))))
            }
            Write::Deployment(deployment, release) => {
                let (id, number, release) = (deployment.project, deployment.number, *release);
                let done =
                    move |result| drop(inbox.send(Message::DeploymentSaved(id, number, release, result)));
                self.store.try_save_deployment((**deployment).clone(), release, Box::new(done))
            }
            Write::Recover(id, number) => {
                let id = *id;
                let done = move |result: Result<Deployment, store::Error>| match result {
                    Ok(deployment) => drop(inbox.send(Message::Queued(Box::new(deployment), bounded(1).0))),
                    Err(error) => log::error!("store: {id} cannot go back to an earlier version: {error}"),
                };
                self.store.try_create_deployment(
                    id,
                    Cause::Recovery(*number),
                    SystemTime::now(),
                    Box::new(done),
                )
            }
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
        for (id, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.current.life.is_visible()) {
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
