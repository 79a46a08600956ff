//! The arithmetic of a running container's numbers.

use std::time::{Duration, Instant, SystemTime};

/// The numbers of one running project.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metrics {
    /// Share of what the container may use, 0 to 100 per cent, one decimal.
    pub cpu: f64,
    /// Memory without inactive file cache, in MiB.
    pub memory_mib: u64,
    /// Requests counted since the project exists.
    pub requests: u64,
    /// Since the container started.
    pub uptime: Duration,
    /// The last counted request, or the start if none since.
    pub last_activity: SystemTime,
}

/// One reading of a container's counters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// CPU time used since the container started, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory in use without inactive file cache, in bytes.
    pub memory_bytes: u64,
    /// When it was read.
    pub at: Instant,
}

/// CPU use between two readings as a share of `capacity` (in CPUs), in per cent with one decimal.
///
/// `None` when no share can be said: the counter went back (the container was restarted), or no time passed.
#[must_use]
pub fn cpu_percent(before: &Reading, after: &Reading, capacity: f64) -> Option<f64> {
    let used = after.cpu_ns.checked_sub(before.cpu_ns)?;
    let elapsed = after.at.checked_duration_since(before.at)?.as_secs_f64();
    if elapsed <= 0.0 || !capacity.is_finite() || capacity <= 0.0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "2^53 ns between two readings are 104 days")]
    let share = 100.0 * (used as f64 / 1e9) / elapsed / capacity;
    Some((share.clamp(0.0, 100.0) * 10.0).round() / 10.0)
}

/// Whole MiB, rounded to the nearest.
#[must_use]
pub fn mib(bytes: u64) -> u64 {
    (bytes + (1 << 19)) >> 20
}

/// How long what started at `since` has been up; nothing while the clock is behind that.
#[must_use]
pub fn uptime(since: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(since).unwrap_or_default()
}

/// How long it has been up, in the two units that matter: `45s`, `12m`, `2h 15m`, `3d 4h`.
#[must_use]
pub fn uptime_text(uptime: Duration) -> String {
    let seconds = uptime.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: Instant, cpu_ms: u64) -> Reading {
        Reading { cpu_ns: cpu_ms * 1_000_000, memory_bytes: 0, at }
    }

    #[test]
    fn cpu_is_a_share_of_what_the_container_may_use() {
        let t = Instant::now();
        let later = t + Duration::from_secs(4);
        for (used_ms, capacity, percent) in [
            (2000, 0.5, 100.0),
            (1000, 0.5, 50.0),
            (4000, 2.0, 50.0),
            (9000, 2.0, 100.0),
            (0, 2.0, 0.0),
            (1, 2.0, 0.0),
            (10, 2.0, 0.1),
        ] {
            assert_eq!(
                cpu_percent(&reading(t, 100), &reading(later, 100 + used_ms), capacity),
                Some(percent)
            );
        }
    }

    #[test]
    fn a_counter_that_went_back_or_no_time_gives_no_number() {
        let t = Instant::now();
        let later = t + Duration::from_secs(4);
        assert_eq!(cpu_percent(&reading(t, 100), &reading(later, 99), 1.0), None);
        assert_eq!(cpu_percent(&reading(t, 100), &reading(t, 200), 1.0), None);
        assert_eq!(cpu_percent(&reading(later, 100), &reading(t, 200), 1.0), None);
        for capacity in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(cpu_percent(&reading(t, 1), &reading(later, 2), capacity), None);
        }
    }

    #[test]
    fn case_148_uptime_is_never_negative_whatever_the_clock_does() {
        let (since, day) =
            (SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000), Duration::from_secs(86_400));
        for (now, up) in [
            (since, Duration::ZERO),
            (since + day, day),
            (since - day, Duration::ZERO),
            (SystemTime::UNIX_EPOCH, Duration::ZERO),
        ] {
            assert_eq!(uptime(since, now), up);
        }
    }

    #[test]
    fn uptime_is_said_in_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (45, "45s"),
            (59, "59s"),
            (60, "1m"),
            (12 * 60 + 59, "12m"),
            (2 * 3600 + 15 * 60, "2h 15m"),
            (3600, "1h 0m"),
            (3 * 86_400 + 4 * 3600 + 59, "3d 4h"),
        ] {
            assert_eq!(uptime_text(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn memory_is_in_whole_mib() {
        assert_eq!(mib(256 << 20), 256);
        assert_eq!(mib((1 << 19) - 1), 0);
        assert_eq!(mib(1 << 19), 1);
    }
}
