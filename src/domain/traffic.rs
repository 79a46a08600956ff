//! What passes to an app: sums that only grow, and what was added between two looks.

use std::time::SystemTime;

/// What has passed to one app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that the app answered.
    pub requests: u64,
    /// Bytes of bodies and tunnels towards the app.
    pub bytes_in: u64,
    /// The same from the app.
    pub bytes_out: u64,
    /// Answers by the first digit of their status, 1xx (tunnels) to 5xx.
    pub classes: [u64; 5],
    /// The last counted request.
    pub last: Option<SystemTime>,
}

impl Traffic {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Traffic) -> Traffic {
        let mut classes = self.classes;
        classes.iter_mut().zip(other.classes).for_each(|(sum, more)| *sum += more);
        Traffic {
            requests: self.requests + other.requests,
            bytes_in: self.bytes_in + other.bytes_in,
            bytes_out: self.bytes_out + other.bytes_out,
            classes,
            last: self.last.max(other.last),
        }
    }

    /// What was added since an earlier look.
    #[must_use]
    pub fn since(self, earlier: Traffic) -> Traffic {
        let mut classes = self.classes;
        classes.iter_mut().zip(earlier.classes).for_each(|(now, then)| *now = now.saturating_sub(then));
        Traffic {
            requests: self.requests.saturating_sub(earlier.requests),
            bytes_in: self.bytes_in.saturating_sub(earlier.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(earlier.bytes_out),
            classes,
            last: self.last,
        }
    }

    /// Whether nothing has passed.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.requests == 0 && self.bytes_in == 0 && self.bytes_out == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_and_what_was_before_are_all() {
        let before = Traffic { requests: 3, bytes_in: 1, bytes_out: 5, classes: [0, 2, 0, 1, 0], last: None };
        let now = Traffic {
            requests: 5,
            bytes_in: 1,
            bytes_out: 9,
            classes: [0, 3, 0, 1, 1],
            last: Some(SystemTime::UNIX_EPOCH),
        };
        let added = now.since(before);
        assert_eq!(
            (added.requests, added.bytes_in, added.bytes_out, added.classes),
            (2, 0, 4, [0, 1, 0, 0, 1])
        );
        assert_eq!(before.and(added), now);
        assert!(now.since(now).is_none() && !added.is_none());
    }
}
