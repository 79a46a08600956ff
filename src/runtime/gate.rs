//! The gate of one project: whether requests may pass to its app, to where, and how many are inside.
//!
//! The supervisor opens and closes it, the proxy passes through it; both under one short lock, so that nobody passes to an app that is
//! being stopped for idleness. Knows no sockets and no HTTP.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::domain::idle::{Inside, Passing};
use crate::domain::traffic::SUMS;
use crate::domain::{Sum, Traffic};
use crate::limits;

/// What passes to one project.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    opened: Condvar,
    /// What has passed.
    pub meter: Meter,
}

#[derive(Debug, Default)]
struct State {
    open: Option<SocketAddr>,
    inside: Inside,
    /// When it was opened, or the end of the last counted request.
    last: Option<Instant>,
    /// Requests that wait for it to open.
    waiting: usize,
    /// When those passed that have waited and are not answered yet.
    entering: Vec<Instant>,
}

impl State {
    fn pass(&mut self, gate: &Arc<Gate>, to: SocketAddr, entered: Option<Instant>) -> Pass {
        self.inside.requests += 1;
        self.entering.extend(entered);
        Pass { gate: Arc::clone(gate), to, counts: false, is_tunnel: false, entered }
    }
}

/// What has passed since this process began. Whoever flushes takes differences.
#[derive(Debug, Default)]
pub struct Meter {
    sums: [AtomicU64; SUMS],
    /// When the last counted request was, in seconds since 1970; 0 for never.
    last: AtomicU64,
}

impl Meter {
    /// Adds to one of the sums.
    pub fn add(&self, sum: Sum, more: u64) {
        self.sums[sum.at()].fetch_add(more, Ordering::Relaxed);
    }

    /// Counts a request that the app answered, and how long it took to begin with that.
    pub fn count(&self, status: u16, took: Duration, now: SystemTime) {
        self.add(Sum::REQUESTS, 1);
        self.add(Sum::of_latency(took), 1);
        self.add(Sum::ANSWER_MICROS, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if let Some(class) = Sum::of_status(status) {
            self.add(class, 1);
        }
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.last.store(seconds, Ordering::Relaxed);
    }

    /// What it shows.
    #[must_use]
    pub fn read(&self) -> Traffic {
        let last = Some(self.last.load(Ordering::Relaxed)).filter(|last| *last > 0);
        Traffic {
            sums: std::array::from_fn(|at| self.sums[at].load(Ordering::Relaxed)),
            last: last.map(|last| SystemTime::UNIX_EPOCH + Duration::from_secs(last)),
        }
    }
}

/// One request on its way through; the gate counts it until it is dropped.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Gate>,
    /// Where the app listens.
    pub to: SocketAddr,
    counts: bool,
    is_tunnel: bool,
    /// When it came in from among those who waited, until it is answered.
    entered: Option<Instant>,
}

impl Pass {
    /// What counts it.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.gate.meter
    }

    /// The app has begun to answer it: another one that waits may come in.
    pub fn is_answered(&mut self) {
        let Some(entered) = self.entered.take() else { return };
        let mut state = self.gate.lock();
        if let Some(at) = state.entering.iter().position(|at| *at == entered) {
            state.entering.swap_remove(at);
        }
        drop(state);
        self.gate.opened.notify_one();
    }

    /// Its end is the project's last activity.
    pub fn counts(&mut self) {
        self.counts = true;
    }

    /// The request has become a tunnel.
    pub fn becomes_tunnel(&mut self) {
        if !std::mem::replace(&mut self.is_tunnel, true) {
            let mut state = self.gate.lock();
            state.inside.requests -= 1;
            state.inside.tunnels += 1;
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.is_answered();
        let mut state = self.gate.lock();
        if self.is_tunnel {
            state.inside.tunnels -= 1;
        } else {
            state.inside.requests -= 1;
        }
        if self.counts {
            state.last = Some(Instant::now());
        }
    }
}

/// A place among those who wait for a gate to open, until it is dropped.
#[derive(Debug)]
pub struct Place<'a> {
    gate: &'a Arc<Gate>,
}

/// What becomes of one that waits.
#[derive(Debug)]
pub enum Entrance {
    /// It passes.
    Passed(Pass),
    /// It is open, and others who waited go first.
    Queued,
    /// It is closed.
    Closed,
}

impl Place<'_> {
    /// Passes, if it is open and few enough of those who waited are on their way in: an app that has just come up takes no hundred
    /// connections at once.
    #[must_use]
    pub fn enter(&self) -> Entrance {
        let (mut state, now) = (self.gate.lock(), Instant::now());
        let Some(to) = state.open else { return Entrance::Closed };
        state.entering.retain(|at| now.saturating_duration_since(*at) < limits::PROXY_ENTERING_TIME);
        if state.entering.len() >= limits::PROXY_ENTERING_MAX {
            return Entrance::Queued;
        }
        Entrance::Passed(state.pass(self.gate, to, Some(now)))
    }

    /// Waits until it is worth a look: it has opened, it will not, it is one's turn, or so much time has passed.
    pub fn wait(&self, max: Duration) {
        let state = self.gate.lock();
        let max = match state.open {
            None => max,
            Some(_) if state.entering.len() < limits::PROXY_ENTERING_MAX => return,
            Some(_) => max.min(limits::PROXY_ENTERING_TIME),
        };
        drop(self.gate.opened.wait_timeout(state, max));
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.gate.lock().waiting -= 1;
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes, if it is open.
    #[must_use]
    pub fn enter(self: &Arc<Gate>) -> Option<Pass> {
        let mut state = self.lock();
        let to = state.open?;
        Some(state.pass(self, to, None))
    }

    /// Opens it to an address, or closes it to who is not inside yet. Whoever waits looks again.
    pub(crate) fn set(&self, open: Option<SocketAddr>) {
        let mut state = self.lock();
        if open.is_some() && state.open.is_none() {
            state.last = Some(Instant::now());
        }
        state.open = open;
        drop(state);
        if open.is_some() {
            self.opened.notify_all();
        }
    }

    /// The time without requests begins anew.
    pub(super) fn touch(&self) {
        self.lock().last = Some(Instant::now());
    }

    /// Whoever waits looks again: it does not open.
    pub(super) fn give_up(&self) {
        self.opened.notify_all();
    }

    /// Closes it if nobody is inside and nothing has passed for so long. Whoever comes then finds it closed: no request meets an app that is
    /// being stopped.
    #[must_use]
    pub(super) fn close_if_idle(&self, idle: Duration, now: Instant) -> bool {
        let mut state = self.lock();
        let quiet = state.last.is_some_and(|last| now.saturating_duration_since(last) >= idle);
        let closes = state.open.is_some() && state.inside.is_none() && quiet;
        if closes {
            state.open = None;
        }
        closes
    }

    /// A place among those who wait. `None` where there is none left.
    #[must_use]
    pub fn place(self: &Arc<Gate>) -> Option<Place<'_>> {
        let mut state = self.lock();
        let free = state.waiting < limits::PROXY_WAITING_MAX;
        state.waiting += usize::from(free);
        drop(state);
        free.then(|| Place { gate: self })
    }

    /// What is inside, and how long ago the last counted request ended, or it was opened; nothing while it is closed.
    #[must_use]
    pub fn passing(&self, now: Instant) -> Option<Passing> {
        let state = self.lock();
        let quiet = state.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        state.open.map(|_| Passing { inside: state.inside, quiet })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(gate: &Gate) -> (u32, u32) {
        let Inside { requests, tunnels } = gate.passing(Instant::now()).expect("open").inside;
        (requests, tunnels)
    }

    impl Place<'_> {
        fn passes(&self) -> Option<Pass> {
            if let Entrance::Passed(pass) = self.enter() { Some(pass) } else { None }
        }
    }

    fn open() -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        gate.set(Some("10.0.0.2:8080".parse().unwrap()));
        gate
    }

    #[test]
    fn case_131_147_it_closes_for_idleness_only_with_nobody_inside_and_so_long_after_the_last_that_counted() {
        let (gate, idle) = (open(), Duration::from_secs(60));
        let began = Instant::now();
        assert!(!gate.close_if_idle(idle, began + Duration::from_secs(50)), "it has just opened");
        let mut pass = gate.enter().unwrap();
        assert!(!gate.close_if_idle(idle, began + Duration::from_secs(3600)), "somebody is inside");
        pass.counts();
        drop(pass);
        let left = Instant::now();
        gate.enter().unwrap();
        gate.set(Some("10.0.0.3:8080".parse().unwrap()));
        assert!(!gate.close_if_idle(idle, left + Duration::from_secs(59)));
        assert!(
            gate.close_if_idle(idle, left + Duration::from_secs(61)),
            "what does not count keeps nothing awake"
        );
        assert!(gate.enter().is_none() && !gate.close_if_idle(idle, left + Duration::from_secs(62)));
        gate.set(Some("10.0.0.2:8080".parse().unwrap()));
        assert!(!gate.close_if_idle(idle, Instant::now() + Duration::from_secs(50)), "it begins anew");
        gate.touch();
    }

    /// One side plays the supervisor, which closes the gate before it stops the app and opens it after the start; the other asks.
    #[test]
    fn case_145_no_request_is_inside_while_the_app_is_stopped_in_ten_thousand_rounds() {
        let gate = open();
        // Odd while it is stopped.
        let (phase, served, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|threads| {
            let asking = threads.spawn(|| {
                let place = gate.place().unwrap();
                while done.load(Ordering::SeqCst) == 0 {
                    if let Some(_pass) = gate.enter() {
                        let seen = phase.load(Ordering::SeqCst);
                        assert_eq!(seen % 2, 0, "it is stopped while somebody is inside");
                        served.fetch_add(1, Ordering::SeqCst);
                    } else {
                        place.wait(Duration::from_millis(50));
                    }
                }
            });
            let mut rounds = 0;
            while !asking.is_finished() && (rounds < 10_000 || served.load(Ordering::SeqCst) < 10_000) {
                if gate.close_if_idle(Duration::ZERO, Instant::now()) {
                    rounds += 1;
                    phase.fetch_add(1, Ordering::SeqCst);
                    phase.fetch_add(1, Ordering::SeqCst);
                    gate.set(Some("10.0.0.2:8080".parse().unwrap()));
                    std::thread::yield_now();
                }
            }
            done.store(1, Ordering::SeqCst);
        });
    }

    #[test]
    fn case_148_the_last_request_is_the_later_one_also_after_the_clock_was_set_back() {
        let (meter, noon) = (Meter::default(), SystemTime::UNIX_EPOCH + Duration::from_secs(43_200));
        meter.count(200, Duration::from_millis(3), noon);
        meter.count(404, Duration::from_millis(4), noon - Duration::from_secs(3600));
        let read = meter.read();
        assert_eq!(read.last, Some(noon - Duration::from_secs(3600)));
        assert_eq!((read.get(Sum::REQUESTS), read.get(Sum::ANSWER_MICROS)), (2, 7000));
    }

    #[test]
    fn case_133_so_many_wait_and_no_more() {
        let gate = Arc::new(Gate::default());
        let mut places: Vec<Place<'_>> = std::iter::from_fn(|| gate.place()).collect();
        assert_eq!(places.len(), limits::PROXY_WAITING_MAX);
        places.pop();
        assert!(gate.place().is_some());
    }

    #[test]
    fn case_133_those_who_waited_come_in_a_few_at_a_time() {
        let gate = Arc::new(Gate::default());
        let place = gate.place().unwrap();
        assert!(matches!(place.enter(), Entrance::Closed));
        gate.set(Some("10.0.0.2:8080".parse().unwrap()));
        let began = Instant::now();
        let mut passes: Vec<Pass> = std::iter::from_fn(|| place.passes()).collect();
        // Unless this thread was held up for so long that the first were not counted any more.
        assert!(passes.len() == limits::PROXY_ENTERING_MAX || began.elapsed() >= limits::PROXY_ENTERING_TIME);
        assert!(gate.enter().is_some(), "who did not wait is not held up");
        passes.last_mut().unwrap().is_answered();
        passes.push(place.passes().expect("one was answered"));
        while place.passes().is_none() {
            place.wait(Duration::from_secs(60));
        }
        assert!(began.elapsed() >= limits::PROXY_ENTERING_TIME, "a slow answer holds nobody up for longer");
        drop(passes);
        assert!(gate.lock().entering.is_empty());
    }

    #[test]
    fn who_is_inside_is_counted_until_it_leaves() {
        let gate = Arc::new(Gate::default());
        assert!(gate.enter().is_none(), "it begins closed");
        let address = "10.0.0.2:8080".parse().unwrap();
        gate.set(Some(address));
        let (first, mut second) = (gate.enter().unwrap(), gate.enter().unwrap());
        assert_eq!((first.to, inside(&gate)), (address, (2, 0)));
        second.becomes_tunnel();
        second.becomes_tunnel();
        assert_eq!(inside(&gate), (1, 1));
        drop(first);
        assert_eq!(inside(&gate), (0, 1));
        assert!(!gate.close_if_idle(Duration::ZERO, Instant::now()), "a tunnel is inside");
        gate.set(None);
        assert!(gate.enter().is_none() && gate.passing(Instant::now()).is_none());
        gate.set(Some(address));
        assert_eq!(inside(&gate), (0, 1), "who is inside stays, whatever is closed and opened");
        drop(second);
        assert_eq!(inside(&gate), (0, 0));
    }
}
