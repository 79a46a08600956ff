//! How long an app took to wake, and what is to be expected of the next time.
//!
//! Pure.

use std::time::Duration;

/// One time that a request woke it. Each is measured from that request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wake {
    /// Until the engine had started its container.
    pub start: Duration,
    /// Until it answered at its port.
    pub ready: Duration,
    /// Until its answer to the request began, where anybody waited for that.
    pub answer: Option<Duration>,
}

/// The middle, and what only one in twenty took longer than.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentiles {
    /// The median.
    pub p50: Duration,
    /// The 95th percentile.
    pub p95: Duration,
}

/// Those of the wakes of one app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeTimes {
    /// See [`Wake::start`].
    pub start: Percentiles,
    /// See [`Wake::ready`].
    pub ready: Percentiles,
    /// See [`Wake::answer`]; nothing where none was awaited.
    pub answer: Option<Percentiles>,
}

impl WakeTimes {
    /// Those of some wakes; nothing of none.
    #[must_use]
    pub fn of<'a>(wakes: impl Iterator<Item = &'a Wake> + Clone) -> Option<WakeTimes> {
        Some(WakeTimes {
            start: percentiles(wakes.clone().map(|wake| wake.start))?,
            ready: percentiles(wakes.clone().map(|wake| wake.ready))?,
            answer: percentiles(wakes.filter_map(|wake| wake.answer)),
        })
    }
}

/// Those of some times, by the nearest rank; nothing of none.
#[must_use]
pub fn percentiles(times: impl Iterator<Item = Duration>) -> Option<Percentiles> {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    let rank = |percent: usize| times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    Some(Percentiles { p50: rank(50)?, p95: rank(95)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let of = |times: &[u64]| {
            let found = percentiles(times.iter().map(|ms| Duration::from_millis(*ms)))?;
            Some((found.p50.as_millis(), found.p95.as_millis()))
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[7]), Some((7, 7)));
        assert_eq!(of(&[3, 1, 2]), Some((2, 3)));
        let hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(of(&hundred), Some((50, 95)));
    }
}
