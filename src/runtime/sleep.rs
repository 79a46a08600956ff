//! The supervisor's part that knows sleep: who is put to sleep, how long waking took, and what sleeping saved.

use std::time::{Duration, Instant, SystemTime};

use super::Slot;
use super::entry::Entry;
use super::supervisor::Supervisor;
use crate::domain::idle::{Bypass, Rule, Verdict};
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

/// What a container receives by other ways than the proxy: one that was adopted publishes ports, and has neighbours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    /// Since when these are counted from.
    since: Instant,
    /// What it had received then.
    received: u64,
    /// What of that we had passed to it.
    passed: u64,
    /// The last look at which it had been reached past us, or when watching began; nothing before the first look.
    last: Option<Instant>,
}

impl Watched {
    fn new(received: u64, passed: u64, now: Instant) -> Watched {
        Watched { since: now, received, passed, last: None }
    }

    /// Looks at what has come since the last look, if that was a `window` ago. While it is used through us (`quiet` is the time since), what
    /// it receives says nothing.
    fn look(
        self,
        received: u64,
        passed: u64,
        quiet: Duration,
        window: Duration,
        floor: u64,
        now: Instant,
    ) -> Watched {
        let over = now.saturating_duration_since(self.since);
        if over < window {
            return self;
        }
        let came = received.saturating_sub(self.received).saturating_sub(passed.saturating_sub(self.passed));
        let minutes = (over.as_secs_f64() / 60.0).max(1.0);
        #[expect(clippy::cast_precision_loss, reason = "bytes of a minute")]
        let reached = quiet >= over && came as f64 > floor as f64 * minutes;
        let last = if reached { now } else { self.last.unwrap_or(self.since) };
        Watched { last: Some(last), ..Watched::new(received, passed, now) }
    }

    /// What follows from it.
    pub fn bypass(&self, now: Instant) -> Bypass {
        self.last.map_or(Bypass::Unknown, |last| Bypass::Last(now.saturating_duration_since(last)))
    }
}

impl Entry {
    /// Takes what its container has received, if it was read.
    pub fn watch(&mut self, received: Option<u64>, rule: &Rule, now: Instant) {
        let (Some(received), IdleAfter::After(after)) = (received, self.current.project.idle_after(rule))
        else {
            self.watched = None;
            return;
        };
        let meter = self.gate.meter.read();
        // The bytes are those of bodies.
        let heads = meter.get(Sum::REQUESTS).saturating_mul(limits::SLEEP_HEAD_BYTES);
        let passed = meter.get(Sum::BYTES_IN).saturating_add(heads);
        let quiet = self.gate.passing(now).map_or(Duration::ZERO, |passing| passing.quiet);
        let window = after.min(limits::SLEEP_WATCH);
        self.watched = Some(match self.watched {
            // Its counters began anew.
            Some(watched) if received >= watched.received => {
                watched.look(received, passed, quiet, window, rule.traffic_floor, now)
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

    /// Wakes a project for a request that came at `asked`.
    pub(super) fn wake(&mut self, id: ProjectId, asked: Instant) {
        if !self.engine.up || !self.entries.get(&id).is_some_and(is_asleep) {
            return;
        }
        self.step(id, Input::Wake);
        if let Some(entry) = self.entries.get_mut(&id).filter(|entry| !is_asleep(entry)) {
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
            (Status::Running, Some(waking)) => {
                waking.ready.get_or_insert(waking.asked.elapsed());
            }
            (Status::Error | Status::Stopped, _) => {
                entry.waking = None;
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

    #[test]
    fn what_a_container_receives_past_us_is_noticed_a_minute_at_a_time() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let quiet = Duration::from_secs(3600);
        let look = |watched: Watched, received, passed, quiet, seconds| {
            watched.look(received, passed, quiet, Duration::from_secs(60), 10_000, at(seconds))
        };
        let known = |watched: &Watched, seconds| match watched.bypass(at(seconds)) {
            Bypass::Last(ago) => Some(ago.as_secs()),
            _ => None,
        };
        let first = Watched::new(1_000_000, 500, began);
        assert_eq!(
            known(&look(first, 9_000_000, 500, quiet, 59), 59),
            None,
            "it has not been watched for long"
        );
        let calm = look(first, 1_010_000, 500, quiet, 60);
        assert_eq!(known(&calm, 60), Some(60), "broadcasts and the like");
        let used = look(calm, 1_020_001, 500, quiet, 120);
        assert_eq!(known(&used, 130), Some(10));
        let passed = look(calm, 5_020_000, 5_000_500, quiet, 120);
        assert_eq!(known(&passed, 120), Some(120), "we brought it");
        let visited = look(calm, 5_020_000, 500, Duration::from_secs(59), 120);
        assert_eq!(known(&visited, 120), Some(120), "heads, too, while somebody asks through us");
        let slow = look(calm, 1_029_999, 500, quiet, 180);
        assert_eq!(known(&slow, 180), Some(180), "two minutes' worth");
    }
}
