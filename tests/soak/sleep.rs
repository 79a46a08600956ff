//! Sleep in earnest: as often and as long as the daily tests have no time for.

use std::time::Duration;

use crate::harness::apps::{meet_idle_stops, outlast_a_stall};
use crate::tell;

#[test]
fn sleep_case_145_two_hundred_requests_at_the_moment_of_an_idle_stop_are_served() {
    meet_idle_stops(200);
    tell("sleep: stops met by a request", "200, each answered by the app");
}

#[test]
fn sleep_case_149_a_minute_in_which_muelle_does_not_run_puts_nothing_to_sleep() {
    outlast_a_stall(Duration::from_secs(60));
    tell("sleep: a minute's stall", "nothing slept");
}
