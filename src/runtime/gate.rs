//! The gate of one project: whether requests may pass to its app, to where, and how many are inside.
//!
//! The supervisor opens and closes it, the proxy passes through it; both under one short lock, so that nobody passes to an app that is
//! being stopped for idleness. Knows no sockets and no HTTP.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::domain::Traffic;

/// What passes to one project.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    /// What has passed.
    pub meter: Meter,
}

#[derive(Debug, Default)]
struct State {
    open: Option<SocketAddr>,
    inside: u32,
    /// The end of the last counted request.
    last: Option<Instant>,
}

/// What has passed since this process began. Whoever flushes takes differences.
#[derive(Debug, Default)]
pub struct Meter {
    requests: AtomicU64,
    /// See [`Traffic::bytes_in`].
    pub bytes_in: AtomicU64,
    /// See [`Traffic::bytes_out`].
    pub bytes_out: AtomicU64,
    classes: [AtomicU64; 5],
    /// When the last counted request was, in seconds since 1970; 0 for never.
    last: AtomicU64,
}

impl Meter {
    /// Counts a request that the app answered.
    pub fn count(&self, status: u16, now: SystemTime) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(class) = self.classes.get(usize::from(status / 100).wrapping_sub(1)) {
            class.fetch_add(1, Ordering::Relaxed);
        }
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.last.fetch_max(seconds, Ordering::Relaxed);
    }

    /// What it shows.
    #[must_use]
    pub fn read(&self) -> Traffic {
        let load = |it: &AtomicU64| it.load(Ordering::Relaxed);
        let last = Some(load(&self.last)).filter(|last| *last > 0);
        Traffic {
            requests: load(&self.requests),
            bytes_in: load(&self.bytes_in),
            bytes_out: load(&self.bytes_out),
            classes: std::array::from_fn(|class| load(&self.classes[class])),
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
}

impl Pass {
    /// What counts it.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.gate.meter
    }

    /// Its end is the project's last activity.
    pub fn counts(&mut self) {
        self.counts = true;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.inside -= 1;
        if self.counts {
            state.last = Some(Instant::now());
        }
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
        state.inside += 1;
        drop(state);
        Some(Pass { gate: Arc::clone(self), to, counts: false })
    }

    /// Opens it to an address, or closes it to who is not inside yet.
    pub(crate) fn set(&self, open: Option<SocketAddr>) {
        self.lock().open = open;
    }

    /// Requests that are inside.
    #[must_use]
    pub fn inside(&self) -> u32 {
        self.lock().inside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_inside_is_counted_until_it_leaves() {
        let gate = Arc::new(Gate::default());
        assert!(gate.enter().is_none(), "it begins closed");
        let address = "10.0.0.2:8080".parse().unwrap();
        gate.set(Some(address));
        let (first, second) = (gate.enter().unwrap(), gate.enter().unwrap());
        assert_eq!((first.to, gate.inside()), (address, 2));
        gate.set(None);
        assert!(gate.enter().is_none());
        drop(first);
        assert_eq!(gate.inside(), 1);
        drop(second);
        assert_eq!(gate.inside(), 0);
    }
}
