//! What the tests stand on: a server of their own, containers of their own, clients, and waiting for conditions.

pub mod apps;
pub mod byte_engine;
pub mod checkout;
pub mod client;
pub mod engine;
pub mod git_server;
pub mod image;
pub mod own_engine;
pub mod server;
pub mod stream;
pub mod writes;

use std::time::{Duration, Instant};

pub use client::{Answer, Client};
pub use server::Server;
pub use stream::{Event, Stream};

/// Asks until there is an answer; after `limit` the test fails with the last thing seen.
#[track_caller]
pub fn eventually<T, S: std::fmt::Debug>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<T, S>,
) -> T {
    let end = Instant::now() + limit;
    loop {
        match ask() {
            Ok(found) => return found,
            Err(seen) if Instant::now() >= end => panic!("{what}: not within {limit:?}; last seen: {seen:?}"),
            Err(_) => std::thread::park_timeout(Duration::from_millis(20)),
        }
    }
}
