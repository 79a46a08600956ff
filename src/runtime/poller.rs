//! Brings what has to be asked for: the `docker-poll` thread.
//!
//! Lists the containers (the truth, which events only make prompt) and reads the running ones' numbers, at the metrics interval while
//! somebody listens, slower otherwise. Decides nothing about a project.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::snapshot::{Run, View};
use super::{Message, Runtime};
use crate::docker::{ContainerId, Docker};
use crate::domain::metrics::{Reading, cpu_percent};
use crate::domain::{ProjectId, Status};
use crate::host::{self, Cgroup, Roots};
use crate::threads::{Pool, Thread, spawn_vital};
use crate::{limits, threads};

/// Where the numbers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The cgroup files where they can be read, decided at first sight of a container, else the stats API.
    Auto,
    /// The cgroup files only.
    Cgroup,
    /// The stats API only.
    Api,
}

/// One running container's numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Whose.
    pub project: ProjectId,
    /// In which run.
    pub run: Run,
    /// Share of what it may use, in per cent.
    pub cpu: f64,
    /// Memory without inactive file cache, in bytes.
    pub memory_bytes: u64,
    /// Bytes that the container has received, where that is read.
    pub received_bytes: Option<u64>,
}

/// What the poller is made of.
pub struct Settings {
    /// The engine.
    pub docker: Docker,
    /// The pace while somebody listens.
    pub interval: Duration,
    /// Where the numbers come from.
    pub source: Source,
    /// CPUs of a container without a limit of its own.
    pub online_cpus: u32,
    /// Whether containers can reach the interface, so that it matters which addresses are theirs.
    pub bridges: bool,
}

/// What one kind of round has cost so far.
#[derive(Debug, Default)]
pub struct Cost {
    rounds: AtomicU64,
    nanos: AtomicU64,
}

impl Cost {
    fn add(&self, began: Instant) {
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }

    /// How many rounds, and the time they took together.
    #[must_use]
    pub fn total(&self) -> (u64, Duration) {
        let nanos = Duration::from_nanos(self.nanos.load(Ordering::Relaxed));
        (self.rounds.load(Ordering::Relaxed), nanos)
    }
}

/// What the poller's rounds have cost so far.
#[derive(Debug, Default)]
pub struct Polls {
    /// The engine's list of containers.
    pub list: Cost,
    /// The numbers of all running containers.
    pub metrics: Cost,
}

/// Asks the poller to list now.
#[derive(Clone)]
pub struct Kick(Sender<()>);

impl Kick {
    /// The way to a poller, and its end of it.
    #[must_use]
    pub fn new() -> (Kick, Receiver<()>) {
        let (kick, kicked) = bounded(1);
        (Kick(kick), kicked)
    }

    /// Lists soon. Several kicks before it does are one.
    pub fn now(&self) {
        // Full means that a kick is waiting already.
        let _ = self.0.try_send(());
    }
}

/// The running thread; dropping it ends and joins it.
pub struct Polling {
    stop: Option<Sender<()>>,
    // Below the sender, so that it is told to end before it is joined.
    _thread: Thread,
}

impl Polling {
    /// Asks it to end, without waiting.
    pub fn stop(&mut self) {
        self.stop = None;
    }
}

/// Starts the thread; should it die, `died` is told.
///
/// # Errors
/// When the system refuses a thread.
pub fn start(
    settings: Settings,
    runtime: Runtime,
    kicked: Receiver<()>,
    died: Sender<String>,
) -> std::io::Result<Polling> {
    let (stop, stopped) = bounded(0);
    let poll = move || Poller::new(settings, runtime).run(&kicked, &stopped);
    Ok(Polling { stop: Some(stop), _thread: spawn_vital("docker-poll", limits::STACK_DEFAULT, died, poll)? })
}

struct Poller {
    settings: Settings,
    runtime: Runtime,
    meters: HashMap<ProjectId, Meter>,
    stats: Pool,
    answers: (Sender<Answer>, Receiver<Answer>),
    /// Whether the engine answered the last time.
    answered: bool,
}

/// How one run's numbers are read, and the reading before.
struct Meter {
    run: Run,
    way: Way,
    last: Option<Reading>,
}

enum Way {
    Files(Cgroup),
    /// Whether a call is under way: one that hangs is not asked again.
    Api {
        asked: bool,
    },
    /// Neither: the numbers stay absent.
    None,
}

struct Answer {
    project: ProjectId,
    container: ContainerId,
    reading: Option<Reading>,
}

impl Poller {
    fn new(settings: Settings, runtime: Runtime) -> Poller {
        let stats =
            Pool::new("stats", limits::STATS_THREADS, limits::STATS_THREADS, limits::STACK_CONNECTION);
        let answers = bounded(2 * limits::STATS_THREADS);
        Poller { settings, runtime, meters: HashMap::new(), stats, answers, answered: false }
    }

    fn run(&mut self, kicked: &Receiver<()>, stopped: &Receiver<()>) {
        let mut last_tick: Option<Instant> = None;
        while !threads::is_closed(stopped) {
            let now = Instant::now();
            let due = last_tick.map_or(now, |at| at + self.pace());
            if due <= now {
                last_tick = Some(now);
                self.list();
                let began = Instant::now();
                self.measure(now, true);
                self.runtime.polls.metrics.add(began);
                continue;
            }
            select! {
                recv(kicked) -> _ => {
                    self.list();
                    self.measure(now, false);
                }
                recv(stopped) -> _ => return,
                default(due - now) => {}
            }
        }
    }

    fn pace(&self) -> Duration {
        if !self.answered {
            limits::ENGINE_RETRY
        } else if self.runtime.hub.active() > 0 {
            self.settings.interval
        } else {
            limits::POLL_UNWATCHED.max(self.settings.interval)
        }
    }

    fn list(&mut self) {
        let began = Instant::now();
        let listed = self.settings.docker.list().map_err(|error| error.to_string());
        self.runtime.polls.list.add(began);
        self.answered = listed.is_ok();
        if self.settings.bridges && self.answered {
            match self.settings.docker.bridge_subnets() {
                Ok(subnets) => drop(self.runtime.inbox.send(Message::Bridges(subnets))),
                Err(error) => log::debug!("the engine's networks stay as they were known: {error}"),
            }
        }
        // An error means that the supervisor has ended; this thread is next.
        drop(self.runtime.inbox.send(Message::Listed(listed)));
    }

    /// Reads the running containers, or only those never read before, so that their first numbers come with the next round.
    fn measure(&mut self, began: Instant, everybody: bool) {
        let snapshot = self.runtime.snapshot();
        let running: Vec<(&Arc<View>, &Run)> = snapshot
            .projects
            .values()
            .filter(|view| view.status == Status::Running)
            .filter_map(|view| view.run.as_ref().map(|run| (view, run)))
            .collect();
        self.meters.retain(|id, _| running.iter().any(|(view, _)| view.project.id == *id));
        let mut samples = Vec::new();
        let mut asked = 0;
        for (view, run) in running {
            let id = view.project.id;
            let known = self.meters.get(&id).is_some_and(|meter| meter.run == *run);
            if !known {
                self.meters.insert(id, Meter { run: run.clone(), way: self.way(run), last: None });
            } else if !everybody {
                continue;
            }
            asked += usize::from(self.read(view, &mut samples));
        }
        self.collect(asked, began + self.settings.interval * 3 / 4, &mut samples);
        if !samples.is_empty() {
            // Numbers are for now: when the supervisor is busy they are dropped.
            drop(self.runtime.inbox.try_send(Message::Sampled(samples)));
        }
    }

    fn way(&self, run: &Run) -> Way {
        let api = Way::Api { asked: false };
        if self.settings.source == Source::Api {
            return api;
        }
        let resolved = match run.pid {
            Some(pid) => Cgroup::resolve(&Roots::default(), pid, run.container.as_str()),
            None => Err(host::Error::Unreadable("the engine names no process".to_owned())),
        };
        match resolved {
            Ok(files) => Way::Files(files),
            Err(error) if self.settings.source == Source::Cgroup => {
                log::warn!("no numbers of container {}: {error}", run.container);
                Way::None
            }
            Err(_) => api,
        }
    }

    /// Reads one container's files, or asks the engine; says whether an answer is to come.
    fn read(&mut self, view: &View, samples: &mut Vec<Sample>) -> bool {
        let id = view.project.id;
        let watched = view.project.is_adopted() && view.project.settings.idle_after.is_some();
        let capacity = f64::from(self.settings.online_cpus);
        let Some(meter) = self.meters.get_mut(&id) else { return false };
        match &mut meter.way {
            Way::Files(files) => {
                if let Ok(usage) = files.read() {
                    let reading = Reading {
                        cpu_ns: usage.cpu_ns,
                        memory_bytes: usage.memory_bytes,
                        at: Instant::now(),
                    };
                    // Behind the files, which are only read of the container's own process.
                    let pid = meter.run.pid.filter(|_| watched);
                    let received_bytes = pid.and_then(|pid| host::received_bytes(&Roots::default(), pid));
                    let sample = meter.sample(id, reading, capacity);
                    samples.extend(sample.map(|sample| Sample { received_bytes, ..sample }));
                }
                false
            }
            Way::Api { asked } if !*asked => {
                let (docker, answers) = (self.settings.docker.clone(), self.answers.0.clone());
                let container = meter.run.container.clone();
                *asked = self
                    .stats
                    .submit(move || {
                        let reading = docker.stats(&container).ok().flatten().map(|stats| Reading {
                            cpu_ns: stats.cpu_ns,
                            memory_bytes: stats.memory_bytes,
                            at: at_engine_time(stats.read),
                        });
                        // Bounded by the threads: it never waits, unless nobody is there any more.
                        drop(answers.send(Answer { project: id, container, reading }));
                    })
                    .is_ok();
                *asked
            }
            Way::Api { .. } | Way::None => false,
        }
    }

    /// Takes the engine's answers until all are there or the time is up; later ones count in the next round.
    fn collect(&mut self, mut asked: usize, until: Instant, samples: &mut Vec<Sample>) {
        let capacity = f64::from(self.settings.online_cpus);
        while asked > 0 || !self.answers.1.is_empty() {
            let Ok(answer) = self.answers.1.recv_deadline(until) else { return };
            asked = asked.saturating_sub(1);
            let meter = self.meters.get_mut(&answer.project).filter(|m| m.run.container == answer.container);
            let Some(meter) = meter else { continue };
            if let Way::Api { asked } = &mut meter.way {
                *asked = false;
            }
            if let Some(reading) = answer.reading {
                samples.extend(meter.sample(answer.project, reading, capacity));
            }
        }
    }
}

impl Meter {
    fn sample(&mut self, project: ProjectId, reading: Reading, online_cpus: f64) -> Option<Sample> {
        if self
            .last
            .is_some_and(|last| reading.at.saturating_duration_since(last.at) < limits::SHARE_OVER_MIN)
        {
            return None;
        }
        let before = self.last.replace(reading)?;
        let cpu = cpu_percent(&before, &reading, self.run.capacity.unwrap_or(online_cpus))?;
        let (run, memory_bytes) = (self.run.clone(), reading.memory_bytes);
        Some(Sample { project, run, cpu, memory_bytes, received_bytes: None })
    }
}

/// The engine's own time of a reading, on our monotonic clock: the wait for its answer does not count.
fn at_engine_time(read: SystemTime) -> Instant {
    let now = Instant::now();
    let age = SystemTime::now().duration_since(read).unwrap_or_default();
    now.checked_sub(age).unwrap_or(now)
}
