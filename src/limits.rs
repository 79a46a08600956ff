//! Every bound and timeout, each with one line of why.
//!
//! Knows numbers only. A queue, table, head, body, thread count or wait without a name here is a defect. Relations between
//! two bounds are asserted at compile time, below the block of constants they speak of.

use std::time::Duration;

// ---- threads ----

/// Stack of a thread that serves one connection or stream client: measured use is under 40 KiB, argon2 and JSON run elsewhere.
pub const STACK_CONNECTION: usize = 256 * 1024;
/// Stack of every other thread of ours.
pub const STACK_DEFAULT: usize = 512 * 1024;
/// How long the shutdown waits for a thread before it is named in the log and left behind.
pub const JOIN_MAX: Duration = Duration::from_secs(10);

// ---- http ----

// ---- docker and host ----

// ---- store ----

// ---- auth ----

// ---- runtime ----

// ---- api ----
