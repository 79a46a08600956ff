//! What takes long, run by `script/soak`: a thousand kills, mixed chaos, an hour of load, two hundred idle stops. Each test tells what it saw in lines that begin
//! with `soak:`, and fails when an invariant broke. `SOAK_MINUTES` bounds each of them.

#![allow(clippy::unwrap_used, reason = "what fails here fails its test")]

#[path = "../it/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the other tests use the rest")]
mod harness;

mod chaos;
mod load;
mod sleep;

use std::time::{Duration, Instant};

use harness::engine::Container;
use harness::writes::{assert_intact, interrupted};
use harness::{Server, eventually};

/// How long each test may take, as its caller says.
fn limit() -> Duration {
    let minutes = std::env::var("SOAK_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(60_u64);
    Duration::from_secs(60 * minutes)
}

/// A line of the table.
fn tell(what: &str, saw: &str) {
    println!("soak: {what:<28} {saw}");
}

#[test]
fn kills_case_97_a_thousand_kills_under_writes_lose_nothing_that_was_acknowledged() {
    let end = Instant::now() + limit();
    let mut server = Server::start();
    let mut ana = server.admin();
    let containers = [Container::web(), Container::web(), Container::web()];
    let ids: Vec<String> = containers.iter().map(|c| ana.adopt(&format!("of {}", c.name), &c.name)).collect();
    let mut starts: Vec<Duration> = (0..1000)
        .take_while(|_| Instant::now() < end)
        .map(|round| interrupted(&mut server, &mut ana, &ids, round, 1 + round * 7 % 40))
        .collect();
    starts.sort_unstable();
    server.kill();
    assert_intact(&server);
    tell("kills: under writes", &starts.len().to_string());
    tell("kills: writes lost", "0");
    tell(
        "kills: start, median, longest",
        &format!("{:?}, {:?}", starts[starts.len() / 2], starts[starts.len() - 1]),
    );
}
