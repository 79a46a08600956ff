//! Whether an app may sleep, and what there is to say about it: one judgement for the decision and for its explanation.
//!
//! Pure. Times are lengths on a clock that only runs forward, so that no change of the date puts anything to sleep.

use std::time::Duration;

use super::lifecycle::Nap;
use super::metrics::uptime_text;
use super::{IdleAfter, Status};

/// What holds for every project.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// How long without a counted request, where the owner did not choose.
    pub after: IdleAfter,
    /// Whether requests pass a proxy that can wake what sleeps.
    pub wakes: bool,
    /// How long an app must have been running.
    pub grace: Duration,
    /// How apps sleep.
    pub nap: Nap,
    /// CPU, in percent of what it may use, from which on an app is at work.
    pub cpu_floor: f64,
}

/// What is known of an app at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Whether the engine answers.
    pub engine: bool,
    /// Its status.
    pub status: Status,
    /// How long without a counted request until it may sleep.
    pub after: IdleAfter,
    /// How long it must have been running.
    pub grace: Duration,
    /// How long it has been.
    pub up: Duration,
    /// Requests and tunnels that are open, and how long ago the last counted one ended, or it came up; nothing where none can reach it.
    pub passing: Option<(u32, Duration)>,
    /// CPU, in percent of what it may use, from which on it is at work.
    pub cpu_floor: f64,
    /// Its CPU use, in percent of what it may use, where it is known.
    pub cpu: Option<f64>,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// It sleeps.
    Asleep,
    /// It does not run, or not yet.
    Down(Status),
    /// It is not to sleep.
    Never,
    /// No request reaches it, and so none could wake it.
    Unreached,
    /// So many requests and tunnels are open.
    Open(u32),
    /// It has been quiet for so long, which is not long enough; so much is left.
    Used(Duration, Duration),
    /// Nobody knows what it computes.
    Unmeasured,
    /// The engine does not answer.
    NoEngine,
    /// It computes, in percent of what it may use.
    Works(f64),
    /// Nothing keeps it awake.
    Idle,
}

impl Facts {
    /// Judges.
    #[must_use]
    pub fn judge(&self) -> Verdict {
        let (open, quiet) = match (self.status, self.after, self.passing) {
            (Status::Inactive, ..) => return Verdict::Asleep,
            (Status::Running, IdleAfter::Never, _) => return Verdict::Never,
            (Status::Running, _, None) => return Verdict::Unreached,
            (Status::Running, _, Some(passing)) => passing,
            (status, ..) => return Verdict::Down(status),
        };
        let IdleAfter::After(after) = self.after else { return Verdict::Never };
        let left = after.saturating_sub(quiet).max(self.grace.saturating_sub(self.up));
        match self.cpu {
            _ if open > 0 => Verdict::Open(open),
            _ if !left.is_zero() => Verdict::Used(quiet, left),
            _ if !self.engine => Verdict::NoEngine,
            None => Verdict::Unmeasured,
            Some(cpu) if cpu >= self.cpu_floor => Verdict::Works(cpu),
            Some(_) => Verdict::Idle,
        }
    }
}

impl Verdict {
    /// How long until it sleeps, if nothing happens until then.
    #[must_use]
    pub fn sleeps_in(&self) -> Option<Duration> {
        match self {
            Verdict::Used(_, left) => Some(*left),
            Verdict::Idle => Some(Duration::ZERO),
            _ => None,
        }
    }

    /// A sentence for its owner.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Verdict::Asleep => "Asleep: the next request wakes it.".to_owned(),
            Verdict::Down(Status::Deploying) => "Awake: it is starting.".to_owned(),
            Verdict::Down(Status::Error) => {
                "Down: it failed, and its reason says why. No request wakes it.".to_owned()
            }
            Verdict::Down(_) => "Down: somebody stopped it. No request wakes it.".to_owned(),
            Verdict::Never => "Awake: it is not put to sleep (idle_after is never).".to_owned(),
            Verdict::Unreached => {
                "Awake: it has answered no request yet, by which it could be woken.".to_owned()
            }
            Verdict::NoEngine => "Awake: Docker does not answer.".to_owned(),
            Verdict::Open(1) => "Awake: 1 request or connection is open.".to_owned(),
            Verdict::Open(count) => format!("Awake: {count} requests or connections are open."),
            Verdict::Used(quiet, left) => format!(
                "Awake: no counted request for {}; it sleeps in {} without one.",
                uptime_text(*quiet),
                uptime_text(*left)
            ),
            Verdict::Unmeasured => "Awake: what it computes is not known.".to_owned(),
            Verdict::Works(cpu) => {
                format!("Awake: it computes ({cpu:.1} % CPU), though nobody asks it anything.")
            }
            Verdict::Idle => "Awake: nobody uses it, and it is about to be put to sleep.".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    const IDLE: Facts = Facts {
        engine: true,
        status: Status::Running,
        after: IdleAfter::After(minutes(30)),
        grace: minutes(2),
        up: minutes(600),
        passing: Some((0, minutes(31))),
        cpu_floor: 2.0,
        cpu: Some(0.1),
    };

    #[test]
    fn every_condition_must_hold_and_the_one_that_does_not_is_said() {
        let never = IdleAfter::Never;
        for (facts, verdict, sentence) in [
            (IDLE, Verdict::Idle, "nobody uses it"),
            (Facts { status: Status::Inactive, ..IDLE }, Verdict::Asleep, "the next request wakes it"),
            (
                Facts { status: Status::Stopped, ..IDLE },
                Verdict::Down(Status::Stopped),
                "somebody stopped it",
            ),
            (Facts { status: Status::Error, ..IDLE }, Verdict::Down(Status::Error), "it failed"),
            (Facts { status: Status::Deploying, ..IDLE }, Verdict::Down(Status::Deploying), "it is starting"),
            (Facts { after: never, ..IDLE }, Verdict::Never, "idle_after is never"),
            (Facts { passing: None, ..IDLE }, Verdict::Unreached, "answered no request"),
            (
                Facts { passing: Some((1, minutes(90))), ..IDLE },
                Verdict::Open(1),
                "1 request or connection is",
            ),
            (
                Facts { passing: Some((3, minutes(90))), ..IDLE },
                Verdict::Open(3),
                "3 requests or connections are",
            ),
            (
                Facts { passing: Some((0, minutes(3))), ..IDLE },
                Verdict::Used(minutes(3), minutes(27)),
                "no counted request for 3m; it sleeps in 27m",
            ),
            (Facts { up: minutes(1), ..IDLE }, Verdict::Used(minutes(31), minutes(1)), "sleeps in 1m"),
            (Facts { cpu: None, ..IDLE }, Verdict::Unmeasured, "not known"),
            (Facts { engine: false, ..IDLE }, Verdict::NoEngine, "Docker does not answer"),
            (Facts { cpu: Some(2.0), ..IDLE }, Verdict::Works(2.0), "2.0 % CPU"),
        ] {
            assert_eq!(facts.judge(), verdict);
            assert!(verdict.sentence().contains(sentence), "{}", verdict.sentence());
        }
        assert_eq!(IDLE.judge().sleeps_in(), Some(Duration::ZERO));
        assert_eq!(Verdict::Used(minutes(3), minutes(27)).sleeps_in(), Some(minutes(27)));
        assert_eq!(Verdict::Open(1).sleeps_in(), None);
    }
}
