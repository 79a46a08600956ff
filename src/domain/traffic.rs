//! What passes to an app: sums that only grow, and what was added between two looks.

use std::time::{Duration, SystemTime};

/// How many sums there are.
pub const SUMS: usize = 24;

/// One of the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum(usize);

impl Sum {
    /// Requests that the app answered.
    pub const REQUESTS: Sum = Sum(0);
    /// Bytes of bodies and tunnels towards the app.
    pub const BYTES_IN: Sum = Sum(1);
    /// The same from the app.
    pub const BYTES_OUT: Sum = Sum(2);
    /// How often a request woke it.
    pub const WAKES: Sum = Sum(20);
    /// The memory that it would have held while it slept, in MiB times seconds.
    pub const SAVED_MEMORY: Sum = Sum(21);
    /// The CPU time that it would have used, in milliseconds.
    pub const SAVED_CPU: Sum = Sum(22);
    /// How long its answers took to begin, in microseconds.
    pub const ANSWER_MICROS: Sum = Sum(23);

    /// Answers with this status: by its first digit, 1xx (tunnels) to 5xx.
    #[must_use]
    pub fn of_status(status: u16) -> Option<Sum> {
        (100..600).contains(&status).then(|| Sum(2 + usize::from(status / 100)))
    }

    /// Answers that began after this long.
    #[must_use]
    pub fn of_latency(time: Duration) -> Sum {
        let bucket = LATENCY_MS.iter().position(|most| time <= Duration::from_millis(*most));
        Sum(8 + bucket.unwrap_or(LATENCY_MS.len()))
    }

    /// Its place.
    #[must_use]
    pub fn at(self) -> usize {
        self.0
    }
}

/// The most milliseconds until the beginning of an answer, for each group but the last.
pub const LATENCY_MS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// What has passed to one app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The sums, each at its place.
    pub sums: [u64; SUMS],
    /// The last counted request.
    pub last: Option<SystemTime>,
}

impl Traffic {
    /// One of the sums.
    #[must_use]
    pub fn get(&self, sum: Sum) -> u64 {
        self.sums[sum.0]
    }

    /// Answers by the first digit of their status, 1xx to 5xx.
    #[must_use]
    pub fn classes(&self) -> [u64; 5] {
        std::array::from_fn(|class| self.sums[3 + class])
    }

    /// Answers by [`LATENCY_MS`]; the last are those that took longer.
    #[must_use]
    pub fn latencies(&self) -> [u64; LATENCY_MS.len() + 1] {
        std::array::from_fn(|bucket| self.sums[8 + bucket])
    }

    /// Both together, what came before and what came then.
    #[must_use]
    pub fn and(self, other: Traffic) -> Traffic {
        let sums = std::array::from_fn(|at| self.sums[at].saturating_add(other.sums[at]));
        // The later one, not the higher: the clock may have been set back in between.
        Traffic { sums, last: other.last.or(self.last) }
    }

    /// What was added since an earlier look.
    #[must_use]
    pub fn since(self, earlier: Traffic) -> Traffic {
        let sums = std::array::from_fn(|at| self.sums[at].saturating_sub(earlier.sums[at]));
        Traffic { sums, last: self.last }
    }

    /// Whether nothing has passed.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.sums.iter().all(|sum| *sum == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_and_what_was_before_are_all() {
        let (mut before, mut now) = (Traffic::default(), Traffic::default());
        for (at, (then, sum)) in before.sums.iter_mut().zip(&mut now.sums).enumerate() {
            (*then, *sum) = (at as u64, 3 * at as u64);
        }
        now.last = Some(SystemTime::UNIX_EPOCH);
        let added = now.since(before);
        assert_eq!((added.get(Sum::WAKES), added.get(Sum::REQUESTS)), (40, 0));
        assert_eq!(before.and(added), now);
        assert!(now.since(now).is_none() && !added.is_none());
        let later = Traffic { last: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(9)), ..now };
        assert_eq!(later.and(now).last, now.last, "the clock was set back");
        assert_eq!(later.and(Traffic::default()).last, later.last);
    }

    #[test]
    fn every_sum_has_a_place_of_its_own() {
        let named = [
            Sum::REQUESTS,
            Sum::BYTES_IN,
            Sum::BYTES_OUT,
            Sum::WAKES,
            Sum::SAVED_MEMORY,
            Sum::SAVED_CPU,
            Sum::ANSWER_MICROS,
        ];
        let classes = [101, 204, 302, 499, 599].map(|status| Sum::of_status(status).unwrap());
        let times = [0, 5, 6, 25, 26, 100, 101, 250, 500, 1000, 1001, 5000, 9999, 10_001];
        let times = times.map(|ms| Sum::of_latency(Duration::from_millis(ms)));
        let mut places: Vec<usize> = named.into_iter().chain(classes).chain(times).map(Sum::at).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places, (0..SUMS).collect::<Vec<_>>());
        assert_eq!(Sum::of_status(99).or(Sum::of_status(600)), None);
    }
}
