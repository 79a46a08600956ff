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

/// Writes that may wait for the store thread: at 1,000 commits a second this is about one second of work.
pub const STORE_QUEUE: usize = 1024;
/// How long a caller may wait for room in that queue: longer than one slow commit, shorter than a client's patience of 30 s.
pub const STORE_SUBMIT_MAX: Duration = Duration::from_secs(5);
/// How long a caller waits for its commit: beyond that the disk hangs, and the thread has others to serve.
pub const STORE_ANSWER_MAX: Duration = Duration::from_secs(20);
/// How long SQLite waits for another process (the command line) that holds the file.
pub const STORE_BUSY_MAX: Duration = Duration::from_secs(5);
/// How often the store thread looks for changes of other processes and at the size of its journal.
pub const STORE_TICK: Duration = Duration::from_secs(1);
/// Size of the journal in bytes from which it is cut by force: SQLite does it by itself at 4 MiB unless readers are in the way.
pub const WAL_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// How long that cut may wait for readers; writers wait with it.
pub const WAL_CUT_MAX: Duration = Duration::from_millis(100);
/// Projects of one user: the engine gets slow long before, and a list of them is one answer.
pub const PROJECTS_PER_USER: u32 = 200;
/// Sessions of one user; the oldest goes when another is opened. A script that logs in for each call does not fill the disk.
pub const SESSIONS_PER_USER: u32 = 64;
/// Labels tried for one name (`ana`, `ana-2`, …) before it is refused.
pub const HOST_LABELS_TRIED: u32 = 10_000;
/// How long a refresh token that was rotated works on, so that two tabs can refresh at once (contract, section 3).
pub const REFRESH_GRACE: Duration = Duration::from_secs(60);

const _: () = assert!(STORE_BUSY_MAX.as_secs() < STORE_ANSWER_MAX.as_secs());
const _: () =
    assert!(PROJECTS_PER_USER < HOST_LABELS_TRIED, "an owner's labels never run out before its projects");

// ---- auth ----

// ---- runtime ----

// ---- api ----
