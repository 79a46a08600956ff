//! Whether an app may sleep, and what there is to say about it: one judgement for the decision and for its explanation.
//!
//! Pure. Times are lengths on a clock that only runs forward, so that no change of the date puts anything to sleep.

use std::fmt;
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
    /// Bytes a minute that an adopted container may receive past the proxy and still be unused.
    pub traffic_floor: u64,
}

/// Whether an app is reached by another way than the proxy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bypass {
    /// It cannot be.
    None,
    /// It could be, and nobody knows.
    Unknown,
    /// It could be, and is known not to be for so long.
    Calm(Duration),
}

/// Requests and tunnels that are inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// Requests that are not answered to their end.
    pub requests: u32,
    /// Tunnels: WebSockets, and what else a connection was upgraded to.
    pub tunnels: u32,
}

impl Inside {
    /// Whether there is none.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Inside::default()
    }
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tunnels = match self.tunnels {
            0 => None,
            1 => Some("1 open WebSocket".to_owned()),
            count => Some(format!("{count} open WebSockets")),
        };
        let requests = match self.requests {
            0 => None,
            1 => Some("1 request under way".to_owned()),
            count => Some(format!("{count} requests under way")),
        };
        f.write_str(&tunnels.into_iter().chain(requests).collect::<Vec<_>>().join(" and "))
    }
}

/// What passes to an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passing {
    /// What is inside.
    pub inside: Inside,
    /// How long ago the last one ended that keeps the app awake, or the app came up.
    pub quiet: Duration,
}

/// What is known of an app at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Whether the engine answers.
    pub engine: bool,
    /// Its status.
    pub status: Status,
    /// How long until a request tries it again, where one woke it and it failed.
    pub wakes_in: Option<Duration>,
    /// How long without a counted request until it may sleep.
    pub after: IdleAfter,
    /// How long it must have been running.
    pub grace: Duration,
    /// How long it has been.
    pub up: Duration,
    /// What passes to it; nothing where no request can reach it.
    pub passing: Option<Passing>,
    /// How long ago the app answered a request, if it ever did; only to be told, by a clock that people set.
    pub answered: Option<Duration>,
    /// What reaches it by another way.
    pub bypass: Bypass,
    /// To put it to sleep would remove its container.
    pub vanishes: bool,
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
    /// It failed when a request woke it; so long until one tries again.
    Failed(Duration),
    /// It is not to sleep.
    Never,
    /// Its container would be removed.
    Vanishes,
    /// No request reaches it, and so none could wake it.
    Unreached,
    /// Requests or tunnels are open; the last counted request was so long ago.
    Open(Inside, Option<Duration>),
    /// It has been quiet for so long, which is not long enough; so much is left.
    Used(Duration, Duration),
    /// Only for so long is it known not to be reached past the proxy; so much is left.
    Bypassed(Duration, Duration),
    /// Nobody knows whether it is reached past the proxy.
    Unwatched,
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
        let Passing { inside, quiet } = match (self.status, self.after, self.passing) {
            (Status::Inactive, ..) => return Verdict::Asleep,
            (Status::Running, IdleAfter::Never, _) => return Verdict::Never,
            (Status::Running, ..) if self.vanishes => return Verdict::Vanishes,
            (Status::Running, _, None) => return Verdict::Unreached,
            (Status::Running, _, Some(passing)) => passing,
            (Status::Error, ..) => {
                let left = self.wakes_in.filter(|_| self.engine);
                return left.map_or(Verdict::Down(Status::Error), Verdict::Failed);
            }
            (status, ..) => return Verdict::Down(status),
        };
        let IdleAfter::After(after) = self.after else { return Verdict::Never };
        let left = after.saturating_sub(quiet).max(self.grace.saturating_sub(self.up));
        match (self.cpu, self.bypass) {
            _ if !inside.is_none() => Verdict::Open(inside, self.answered),
            _ if !left.is_zero() => Verdict::Used(quiet, left),
            _ if !self.engine => Verdict::NoEngine,
            (None, _) => Verdict::Unmeasured,
            (Some(cpu), _) if cpu >= self.cpu_floor => Verdict::Works(cpu),
            (_, Bypass::Unknown) => Verdict::Unwatched,
            (_, Bypass::Calm(calm)) if calm < after => Verdict::Bypassed(calm, after.saturating_sub(calm)),
            _ => Verdict::Idle,
        }
    }
}

/// A time that is left, as people write it: whoever comes back after it is not too early.
#[must_use]
pub fn left_text(left: Duration) -> String {
    match left.as_millis().div_ceil(1000) {
        seconds @ 0..=60 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

impl Verdict {
    /// How long until it sleeps, if nothing happens until then.
    #[must_use]
    pub fn sleeps_in(&self) -> Option<Duration> {
        match self {
            Verdict::Used(_, left) | Verdict::Bypassed(_, left) => Some(*left),
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
            Verdict::Failed(Duration::ZERO) => {
                "Down: it failed, and its reason says why. The next request tries it again.".to_owned()
            }
            Verdict::Failed(left) => format!(
                "Down: it failed, and its reason says why. Who asks for it in {} has it tried again.",
                left_text(*left)
            ),
            Verdict::Down(_) => "Down: somebody stopped it. No request wakes it.".to_owned(),
            Verdict::Never => "Awake: it is not put to sleep (idle_after is never).".to_owned(),
            Verdict::Vanishes => {
                "Awake: Docker removes its container when that ends (--rm), so it is not put to sleep."
                    .to_owned()
            }
            Verdict::Unreached => {
                "Awake: it has answered no request yet, by which it could be woken.".to_owned()
            }
            Verdict::NoEngine => "Awake: Docker does not answer.".to_owned(),
            Verdict::Open(inside, None) => format!("Awake: {inside}."),
            Verdict::Open(inside, Some(answered)) => {
                format!("Awake: {inside}; last counted request {} ago.", uptime_text(*answered))
            }
            Verdict::Used(quiet, left) => format!(
                "Awake: nobody has used it for {}; it sleeps in {} if nobody does.",
                uptime_text(*quiet),
                uptime_text(*left)
            ),
            Verdict::Bypassed(calm, left) => format!(
                "Awake: only for {} has nobody been seen to reach it past the proxy; it sleeps in {} without that.",
                uptime_text(*calm),
                uptime_text(*left)
            ),
            Verdict::Unwatched => "Awake: it is not known whether it is reached past the proxy.".to_owned(),
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
        wakes_in: None,
        after: IdleAfter::After(minutes(30)),
        grace: minutes(2),
        up: minutes(600),
        passing: Some(passing(0, 0, 31)),
        answered: Some(minutes(31)),
        bypass: Bypass::None,
        vanishes: false,
        cpu_floor: 2.0,
        cpu: Some(0.1),
    };

    const fn passing(requests: u32, tunnels: u32, quiet: u64) -> Passing {
        Passing { inside: Inside { requests, tunnels }, quiet: minutes(quiet) }
    }

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
            (Facts { vanishes: true, ..IDLE }, Verdict::Vanishes, "removes its container"),
            (Facts { passing: None, ..IDLE }, Verdict::Unreached, "answered no request"),
            (
                Facts { passing: Some(passing(1, 0, 90)), answered: None, ..IDLE },
                Verdict::Open(Inside { requests: 1, tunnels: 0 }, None),
                "Awake: 1 request under way.",
            ),
            (
                Facts { passing: Some(passing(0, 1, 90)), answered: Some(minutes(3)), ..IDLE },
                Verdict::Open(Inside { requests: 0, tunnels: 1 }, Some(minutes(3))),
                "Awake: 1 open WebSocket; last counted request 3m ago.",
            ),
            (
                Facts { passing: Some(passing(3, 2, 90)), ..IDLE },
                Verdict::Open(Inside { requests: 3, tunnels: 2 }, Some(minutes(31))),
                "Awake: 2 open WebSockets and 3 requests under way; last",
            ),
            (
                Facts { bypass: Bypass::Calm(minutes(10)), ..IDLE },
                Verdict::Bypassed(minutes(10), minutes(20)),
                "only for 10m has nobody been seen to reach it past the proxy; it sleeps in 20m",
            ),
            (Facts { bypass: Bypass::Calm(minutes(30)), ..IDLE }, Verdict::Idle, "nobody uses it"),
            (
                Facts { bypass: Bypass::Unknown, ..IDLE },
                Verdict::Unwatched,
                "not known whether it is reached",
            ),
            (
                Facts { passing: Some(passing(0, 0, 3)), ..IDLE },
                Verdict::Used(minutes(3), minutes(27)),
                "nobody has used it for 3m; it sleeps in 27m",
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
        assert_eq!(Verdict::Bypassed(minutes(3), minutes(27)).sleeps_in(), Some(minutes(27)));
        assert_eq!(Verdict::Open(Inside { requests: 1, tunnels: 0 }, None).sleeps_in(), None);
    }

    #[test]
    fn who_failed_when_it_was_woken_says_when_it_is_tried_again() {
        for (wakes_in, engine, verdict, sentence) in [
            (minutes(5), true, Verdict::Failed(minutes(5)), "Who asks for it in 5 min has it tried again."),
            (Duration::ZERO, true, Verdict::Failed(Duration::ZERO), "The next request tries it again."),
            (Duration::ZERO, false, Verdict::Down(Status::Error), "No request wakes it."),
        ] {
            let facts = Facts { status: Status::Error, wakes_in: Some(wakes_in), engine, ..IDLE };
            assert_eq!(facts.judge(), verdict);
            assert!(verdict.sentence().contains(sentence), "{}", verdict.sentence());
        }
        let texts = [1, 9_001, 60_000, 60_001, 600_000].map(|ms| left_text(Duration::from_millis(ms)));
        assert_eq!(texts, ["1 s", "10 s", "60 s", "2 min", "10 min"]);
    }
}
