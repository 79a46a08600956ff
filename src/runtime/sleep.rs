//! The supervisor's part that knows sleep: who is put to sleep, how long waking took, and what sleeping saved.

use std::time::{Duration, Instant, SystemTime};

use super::Slot;
use super::entry::Entry;
use super::supervisor::Supervisor;
use crate::domain::idle::{Rule, Verdict};
use crate::domain::lifecycle::{Input, Op};
use crate::domain::wake::WakeTimes;
use crate::domain::{Addressed, Event, Held, IdleAfter, ProjectId, Status, Sum, Wake};
use crate::limits;

/// A wake that goes on, or whose first answer is awaited.
#[derive(Debug)]
pub(super) struct Waking {
    /// When the request came that woke it.
    asked: Instant,
    /// Until its container was started.
    start: Option<Duration>,
    /// Until it answered at its port.
    ready: Option<Duration>,
}

/// Wakes that failed one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailedWakes {
    count: usize,
    /// From when on a request tries again.
    pub again_at: Instant,
}

impl FailedWakes {
    fn new(count: usize, now: Instant) -> FailedWakes {
        let pause = limits::WAKE_BACKOFF[count.clamp(1, limits::WAKE_BACKOFF.len()) - 1];
        FailedWakes { count, again_at: now + pause }
    }
}

/// What a container receives by other ways than the proxy: one that was adopted publishes ports, and has neighbours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    /// Since when what it receives is summed, and what it had received and we had passed to it then.
    base: (Instant, u64, u64),
    /// Since when it is known not to be reached past us.
    calm_since: Instant,
    /// The last look.
    at: Instant,
}

impl Watched {
    fn new(received: u64, passed: u64, now: Instant) -> Watched {
        Watched { base: (now, received, passed), calm_since: now, at: now }
    }

    /// Looks at what has come. More than `floor` in a minute is somebody, be it that we brought it in ways that nobody counts, such as
    /// the heads of many requests: then it is used, too.
    fn look(self, received: u64, passed: u64, floor: u64, now: Instant) -> Watched {
        let (since, received_then, passed_then) = self.base;
        let over = now.saturating_duration_since(since);
        let came = received.saturating_sub(received_then).saturating_sub(passed.saturating_sub(passed_then));
        let minutes = over.as_secs_f64() / limits::SLEEP_WATCH.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "bytes of a minute")]
        let reached = came as f64 > floor as f64 * minutes.max(1.0);
        let new = Watched::new(received, passed, now);
        match reached {
            true => new,
            false if over >= limits::SLEEP_WATCH => Watched { calm_since: self.calm_since, ..new },
            false => Watched { at: now, ..self },
        }
    }

    /// For how long it is known not to be reached past us.
    pub fn calm(&self) -> Duration {
        self.at.saturating_duration_since(self.calm_since)
    }
}

impl Entry {
    /// Takes what its container has received, if it was read.
    pub fn watch(&mut self, received: Option<u64>, rule: &Rule, now: Instant) {
        let meter = self.gate.meter.read();
        // The bytes are those of bodies.
        let heads = meter.get(Sum::REQUESTS).saturating_mul(limits::SLEEP_HEAD_BYTES);
        let passed = meter.get(Sum::BYTES_IN).saturating_add(heads);
        self.watched = received.map(|received| match self.watched {
            // Its counters began anew.
            Some(watched) if received >= watched.base.1 => {
                watched.look(received, passed, rule.traffic_floor, now)
            }
            _ => Watched::new(received, passed, now),
        });
    }
}

fn is_asleep(entry: &Entry) -> bool {
    entry.current.life.status() == Status::Inactive
}

impl Supervisor {
    /// Takes over what earlier lives of this process measured.
    pub(super) fn remember_wakes(&mut self, wakes: Vec<(ProjectId, Wake)>) {
        for (id, wake) in wakes {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.wakes.push_back(wake);
            }
        }
        for entry in self.entries.values_mut() {
            entry.wake_times = WakeTimes::of(entry.wakes.iter());
        }
    }

    /// Puts those to sleep whom nobody has used for as long as their owners said.
    pub(super) fn put_to_sleep(&mut self, now: Instant) {
        if !self.engine.up {
            return;
        }
        for id in self.ids() {
            let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.next.is_none()) else {
                continue;
            };
            let facts = entry.view().idleness(&self.sleep, true, now);
            let IdleAfter::After(idle) = facts.after else { continue };
            // Once more where nobody can pass meanwhile.
            if facts.judge() != Verdict::Idle || !entry.gate.close_if_idle(idle, now) {
                continue;
            }
            entry.held = entry.holds(self.online_cpus);
            let (owner, name) = (entry.current.project.owner, entry.current.project.name.clone());
            self.end_wake(id, None);
            let told = self.events.len();
            self.step(id, Input::Sleep(self.sleep.nap));
            if self.entries.get(&id).is_some_and(is_asleep) {
                let event = Event::AutoShutdown { project: id, name, idle, at: SystemTime::now() };
                self.events.insert(told, Addressed { owner, event });
            }
            // Should it not have gone to sleep, its gate is opened again with its view.
            self.mark(id);
        }
    }

    /// Wakes a project for a request that came at `asked`; also one that did not come up the last time, once its pause is over.
    pub(super) fn wake(&mut self, id: ProjectId, asked: Instant) {
        let wakes = |entry: &Entry| {
            let again = entry.failed_wakes.is_some_and(|failed| failed.again_at <= Instant::now());
            is_asleep(entry) || (again && entry.shown == Status::Error)
        };
        if !self.engine.up || !self.entries.get(&id).is_some_and(wakes) {
            return;
        }
        self.step(id, Input::Wake);
        let comes_up = |entry: &&mut Entry| entry.current.life.status() == Status::Deploying;
        if let Some(entry) = self.entries.get_mut(&id).filter(comes_up) {
            entry.gate.meter.add(Sum::WAKES, 1);
            entry.waking = Some(Waking { asked, start: None, ready: None });
        }
    }

    /// An operation of a version succeeded.
    pub(super) fn note_done(&mut self, slot: Slot, op: Op) {
        let entry = self.entries.get_mut(&slot.0).filter(|entry| entry.current.number() == slot.1);
        if let Some(waking) = entry.and_then(|entry| entry.waking.as_mut())
            && matches!(op, Op::Start | Op::Unpause)
        {
            waking.start.get_or_insert(waking.asked.elapsed());
        }
    }

    /// The version that serves may have come up, or it does not.
    pub(super) fn note_life(&mut self, id: ProjectId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match (entry.current.life.status(), &mut entry.waking) {
            (Status::Running, waking) => {
                if let Some(waking) = waking {
                    waking.ready.get_or_insert(waking.asked.elapsed());
                }
                entry.failed_wakes = None;
            }
            (Status::Error, waking) => {
                // What came up and failed later was not woken in vain.
                if waking.take().is_some_and(|waking| waking.ready.is_none()) {
                    let before = entry.failed_wakes.map_or(0, |failed| failed.count);
                    entry.failed_wakes = Some(FailedWakes::new(before + 1, Instant::now()));
                }
                entry.gate.give_up();
            }
            (Status::Stopped, _) => {
                (entry.waking, entry.failed_wakes) = (None, None);
                entry.gate.give_up();
            }
            _ => {}
        }
    }

    /// The app began to answer, at `answered`, a request that came at `asked` and had to wait for it.
    pub(super) fn woken(&mut self, id: ProjectId, asked: Instant, answered: Instant) {
        let waking = self.entries.get(&id).and_then(|entry| entry.waking.as_ref());
        // Not one that waited for something else, such as a restart.
        let of_this = |waking: &&Waking| waking.ready.is_some_and(|ready| asked <= waking.asked + ready);
        if let Some(waking) = waking.filter(of_this) {
            self.end_wake(id, Some(answered.saturating_duration_since(waking.asked)));
        }
    }

    /// A person or a deployment has decided: what becomes of it is no request's doing.
    pub(super) fn forget_wakes(&mut self, id: ProjectId) {
        self.end_wake(id, None);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.failed_wakes = None;
        }
    }

    /// A wake is over, with or without an answer.
    fn end_wake(&mut self, id: ProjectId, answer: Option<Duration>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(Waking { start: Some(start), ready: Some(ready), .. }) = entry.waking.take() else { return };
        let wake = Wake { start, ready, answer };
        entry.wakes.push_back(wake);
        let old = entry.wakes.len().saturating_sub(limits::WAKES_KEPT as usize);
        entry.wakes.drain(..old);
        entry.wake_times = WakeTimes::of(entry.wakes.iter());
        let failed = move |result| {
            if let Err(error) = result {
                log::warn!("store: how long {id} took to wake is not kept: {error}");
            }
        };
        if self.store.try_add_wake(id, wake, SystemTime::now(), Box::new(failed)).is_err() {
            log::warn!("store: how long {id} took to wake is not kept: too much waits to be written");
        }
        self.mark(id);
    }

    /// Adds what those who sleep would have held since the last time.
    pub(super) fn count_saved(&mut self, now: Instant) {
        let since = std::mem::replace(&mut self.counted_at, now);
        let ms = u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX);
        let mut asleep = Vec::new();
        for (id, entry) in &self.entries {
            if entry.shown == Status::Inactive && entry.current.life.is_down() {
                let Held { memory_mib, cpu_milli } = entry.held;
                let freed = if entry.current.life.is_paused() { 0 } else { memory_mib };
                entry.gate.meter.add(Sum::SAVED_MEMORY, freed.saturating_mul(ms) / 1000);
                entry.gate.meter.add(Sum::SAVED_CPU, cpu_milli.saturating_mul(ms) / 1000);
                asleep.push(*id);
            }
        }
        for id in asleep {
            self.mark(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm(watched: &Watched) -> u64 {
        watched.calm().as_secs()
    }

    #[test]
    fn each_wake_that_fails_makes_the_next_one_wait_for_longer_up_to_an_hour() {
        let now = Instant::now();
        let pauses: Vec<u64> =
            (1..7).map(|count| (FailedWakes::new(count, now).again_at - now).as_secs()).collect();
        assert_eq!(pauses, [10, 60, 600, 3600, 3600, 3600]);
    }

    #[test]
    fn what_a_container_receives_past_us_ends_the_calm_and_what_we_brought_does_not() {
        let began = Instant::now();
        let look = |watched: Watched, received, passed, seconds| {
            watched.look(received, passed, 10_000, began + Duration::from_secs(seconds))
        };
        let first = Watched::new(1_000_000, 500, began);
        assert_eq!(calm(&first), 0);
        let broadcasts = look(look(first, 1_009_000, 500, 50), 1_010_000, 500, 60);
        assert_eq!(calm(&broadcasts), 60);
        assert_eq!(calm(&look(broadcasts, 1_020_000, 500, 110)), 110, "each minute has its own");
        assert_eq!(calm(&look(broadcasts, 1_020_001, 500, 62)), 0, "at once");
        assert_eq!(calm(&look(broadcasts, 5_020_000, 5_000_500, 120)), 120, "we brought it");
        assert_eq!(calm(&look(broadcasts, 1_029_999, 500, 180)), 180, "two minutes' worth");
    }

    #[test]
    fn who_is_reached_all_the_time_is_never_known_to_be_calm_whenever_one_looks() {
        for pause in 1..60 {
            let mut now = Instant::now();
            let (mut received, mut watched) = (0, Watched::new(0, 0, now));
            for _ in 0..100 {
                now += Duration::from_secs(pause);
                received += 11_000 * pause;
                watched = watched.look(received, 0, 10_000, now);
                assert_eq!(calm(&watched), 0, "every {pause} s");
            }
        }
    }
}
