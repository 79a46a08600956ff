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
/// How long the shutdown waits for the jobs of a pool; what hangs longer, in a call to a hung engine, is left behind.
pub const JOIN_MAX: Duration = Duration::from_secs(3);
/// How long the shutdown waits for requests under way: with [`JOIN_MAX`] for each pool it ends within 15 s.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
/// Descriptors beside those of client connections: the database, the engine's sockets, cgroup files, probes.
pub const DESCRIPTORS_RESERVED: u64 = 400;

/// Lines of the log that wait to be written; then they are dropped and counted.
pub const LOG_QUEUE: usize = 1024;
/// How long the end of the process waits for its log to be written.
pub const LOG_FLUSH_MAX: Duration = Duration::from_secs(1);

// ---- http ----

/// Longest request line: twice what the longest sane URL needs, the de facto limit of other servers.
pub const HTTP_REQUEST_LINE_MAX: usize = 8 * 1024;
/// Whole request head: room for a few fat cookies and a token, small enough to hold for every connection.
pub const HTTP_HEAD_MAX: usize = 16 * 1024;
/// Header lines of one request: browsers behind two proxies send about 30.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Name in a Host header: a DNS name has at most 253 characters.
pub const HTTP_HOST_MAX: usize = 255;
/// Extension of one chunk, read over and ignored: signed uploads use about 90 bytes.
pub const HTTP_CHUNK_EXTENSION_MAX: usize = 256;
/// All trailers of one body, read over and dropped: nobody we know sends more than a checksum.
pub const HTTP_TRAILERS_MAX: usize = 8 * 1024;
/// Bytes asked from a socket at once: what a connection can buffer is the head plus one such step.
pub const HTTP_READ_STEP: usize = 4 * 1024;
/// Connections the kernel queues before `accept`: a whole browser fleet returning in one moment.
pub const HTTP_BACKLOG: i32 = 1024;
/// From the first byte of a head to its end, in total: a byte a second does not extend it. A thousand of them are all gone within 10 s.
pub const HTTP_HEAD_DEADLINE: Duration = Duration::from_secs(9);
/// Silence between two requests of a connection: longer than a dashboard's pause between clicks.
pub const HTTP_KEEP_ALIVE_IDLE: Duration = Duration::from_secs(15);
/// Silence inside a body: a phone that changes cells is back by then.
pub const HTTP_BODY_IDLE: Duration = Duration::from_secs(30);
/// A whole body: 1 MiB in 120 s is a modem.
pub const HTTP_BODY_TOTAL: Duration = Duration::from_secs(120);
/// How long the peer may take to make room for [`HTTP_WRITE_FLOOR`] bytes.
pub const HTTP_WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes that must have moved per write deadline: a large answer may take long, a reader that drips may not.
pub const HTTP_WRITE_FLOOR: usize = 64 * 1024;
/// Bytes thrown away after an answer, so that a reset does not destroy it on its way (RFC 9112 §9.6).
pub const HTTP_DISCARD_MAX: usize = 64 * 1024;
/// How long they are waited for: a client that reads our answer hangs up well before.
pub const HTTP_DISCARD_DEADLINE: Duration = Duration::from_secs(1);
/// Pause after a failed `accept`: without descriptors it would fail a million times a second.
pub const HTTP_ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// Unacknowledged bytes or unanswered probes for so long mean that the peer is gone.
pub const HTTP_USER_TIMEOUT: Duration = Duration::from_secs(25);
/// Silence before the kernel probes the peer.
pub const HTTP_PROBE_AFTER: Duration = Duration::from_secs(15);
/// Time between two probes.
pub const HTTP_PROBE_EVERY: Duration = Duration::from_secs(10);
/// Send buffer of an event stream: with the default a stuck client swallows 17,000 events unnoticed.
pub const HTTP_STREAM_SEND_BUFFER: usize = 64 * 1024;
/// At most one log line of a kind in this time, with the count of those left out: strangers must not fill the log.
pub const HTTP_LOG_EVERY: Duration = Duration::from_secs(1);
/// How long connections get to unwind once their sockets are shut down.
pub const HTTP_UNWIND: Duration = Duration::from_secs(1);

const _: () = assert!(HTTP_REQUEST_LINE_MAX < HTTP_HEAD_MAX);
// The promise of 64 KiB for a connection: the buffer (a Vec may double), the parsed copy of the head, and slack.
const _: () = assert!(2 * (HTTP_HEAD_MAX + HTTP_READ_STEP) + HTTP_HEAD_MAX < 64 * 1024);
// A dead peer's descriptor is free within 60 s, whether the connection was quiet or had bytes in flight.
const _: () =
    assert!(HTTP_PROBE_AFTER.as_secs() + HTTP_USER_TIMEOUT.as_secs() + HTTP_PROBE_EVERY.as_secs() < 60);

// ---- proxy ----

/// How often what passed to apps is added to their counters: so much of it a `kill -9` may cost.
pub const COUNT_EVERY: Duration = Duration::from_secs(5);
/// Head of an app's answer: cookies, security headers and links add up; nginx's default of 8 KiB is what apps run into.
pub const PROXY_HEAD_MAX: usize = 64 * 1024;
/// Header lines of an app's answer.
pub const PROXY_HEADERS_MAX: usize = 200;
/// Answers before the answer (RFC 9110 §15.2), which are read over.
pub const PROXY_INTERIM_MAX: usize = 8;
/// How long an app may take to accept a connection: it is on this machine.
pub const PROXY_CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long an app may take to begin its answer.
pub const PROXY_ANSWER_MAX: Duration = Duration::from_secs(60);
/// Silence within a body, either way.
pub const PROXY_BODY_IDLE: Duration = Duration::from_secs(300);
/// How long a body of a request may take: a large upload over a slow line.
pub const PROXY_BODY_TOTAL: Duration = Duration::from_secs(24 * 3600);
/// How long an app may refuse to take bytes.
pub const PROXY_WRITE_MAX: Duration = Duration::from_secs(60);
/// What is copied at once, in bytes, on the thread's stack.
pub const PROXY_COPY_BYTES: usize = 16 * 1024;
/// A tunnel that moves no byte for so long is closed.
pub const PROXY_TUNNEL_IDLE: Duration = Duration::from_secs(3600);
/// How long the second end of a tunnel may be silent once the first has ended.
pub const PROXY_HALF_OPEN_MAX: Duration = Duration::from_secs(30);
/// How long an app may be silent until its client is looked at, too.
pub const PROXY_QUIET: Duration = Duration::from_secs(1);
/// How long it may go on to be silent to a client that has closed its side, and how long such a client is held for an app that starts: most
/// have gone then, and some only have said all they want to.
pub const PROXY_LEFT_MAX: Duration = Duration::from_secs(10);
/// Age of a connection to an app, idle, that may carry a request without a body.
pub const PROXY_IDLE_MAX: Duration = Duration::from_secs(30);
/// The same for a request that must not be lost: apps close idle connections after 5 s and more (Node).
pub const PROXY_IDLE_FRESH: Duration = Duration::from_secs(1);
/// Idle connections kept to one app.
pub const PROXY_IDLE_PER_APP: usize = 64;
/// Times that a request may have passed through a muelle.
pub const PROXY_PASSAGES_MAX: usize = 5;
/// Requests that wait for one app to start; the others are told to come back.
pub const PROXY_WAITING_MAX: usize = 128;
/// Requests that waited for one app and have its answer still to come: busybox' httpd has ten connections wait for it, and what comes
/// beyond that is lost and sent again by the kernel, later each time (12 s of 128 at once, 30 s on a bad day).
pub const PROXY_ENTERING_MAX: usize = 8;
/// How long one of them counts: an app that answers slowly has taken it long before.
pub const PROXY_ENTERING_TIME: Duration = Duration::from_millis(250);
/// How long a request is held for an app that starts.
pub const PROXY_WAKE_MAX: Duration = Duration::from_secs(60);
/// How long a browser that opens a page waits before it is shown that the app starts.
pub const PROXY_PAGE_AFTER: Duration = Duration::from_millis(300);
/// How often a request that waits is looked at: its client may have gone.
pub const PROXY_WAIT_TICK: Duration = Duration::from_millis(500);
/// Seconds after which a page that says so asks again.
pub const PROXY_PAGE_AGAIN_S: u64 = 1;
/// How long nobody may ask an app for anything until it is put to sleep, where its owner did not say.
pub const SLEEP_AFTER: Duration = Duration::from_secs(1800);
/// How long an app must have been running until it may be put to sleep.
pub const SLEEP_GRACE: Duration = Duration::from_secs(120);
/// Pauses until a request tries an app again that did not come up when one woke it; the last one is for all that follow.
pub const WAKE_BACKOFF: [Duration; 4] =
    [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(600), Duration::from_secs(3600)];
/// Wakes of a project whose times are kept: what is to be expected of the next one.
pub const WAKES_KEPT: u32 = 100;
/// How late the supervisor may come to look who is idle, until that is no measure of idleness.
pub const STALLED: Duration = Duration::from_secs(3);
/// Age of an app's numbers from which on nobody knows what it computes: some rounds of asking, also without a viewer.
pub const SLEEP_NUMBERS_MAX: Duration = Duration::from_secs(60);
/// CPU, in percent of what it may use, above which an app is at work though nobody asks it anything.
pub const SLEEP_CPU_FLOOR: f64 = 2.0;
/// Bytes a minute that an adopted container may receive past the proxy and still be unused: broadcasts, and answers to what it asks itself.
pub const SLEEP_TRAFFIC_FLOOR: u64 = 10_000;
/// Over how long that is summed.
pub const SLEEP_WATCH: Duration = Duration::from_secs(60);
/// What a request adds to what a container receives, beside its body, in bytes: its head, and TCP's.
pub const SLEEP_HEAD_BYTES: u64 = 1024;
/// Seconds after which a client may try again an app that starts.
pub const PROXY_RETRY_AFTER_S: u64 = 2;
const _: () = assert!(PROXY_COPY_BYTES * 4 < STACK_CONNECTION);

// ---- docker and host ----

/// Longest wait for the engine to take a connection; a hung engine's backlog fills up and `connect` would block for ever.
pub const DOCKER_CONNECT_MAX: Duration = Duration::from_secs(2);
/// Total time of a ping or of an event stream's first bytes: a living engine answers in a millisecond.
pub const DOCKER_PING_MAX: Duration = Duration::from_secs(3);
/// Total time of a list: it is the heartbeat, and 200 containers take 35 ms.
pub const DOCKER_LIST_MAX: Duration = Duration::from_secs(3);
/// Total time of any other call: a start takes 0.2 to 1.5 s, a create 9 ms; a drip ends here too.
pub const DOCKER_CALL_MAX: Duration = Duration::from_secs(10);
/// Longest grace of a stop, in seconds, after which the engine kills.
pub const DOCKER_STOP_GRACE_MAX_S: u32 = 10;
/// What a stop may take beyond its grace: kill, unmount and network teardown on a loaded machine.
pub const DOCKER_STOP_MARGIN: Duration = Duration::from_secs(30);
/// Read and write buffer of an engine connection, in bytes; the client's default of 128 KiB each costs 57 MB at 100 streams.
pub const DOCKER_BUFFER_BYTES: usize = 16 * 1024;
/// Longest head of an engine's answer, in bytes: a real one has 300.
pub const DOCKER_HEAD_BYTES_MAX: usize = 8 * 1024;
const _: () =
    assert!(DOCKER_HEAD_BYTES_MAX < DOCKER_BUFFER_BYTES, "a full buffer would look like a closed connection");
/// Idle connections kept to the engine: as many as there are operations at once.
pub const DOCKER_IDLE_MAX: usize = 16;
/// How long an idle connection is kept: longer than the slow poll of 15 s, so that the poller does not reconnect.
pub const DOCKER_IDLE_AGE_MAX: Duration = Duration::from_secs(60);
/// Longest list of containers, in bytes: 200 containers with long labels are under 1 MB.
pub const DOCKER_LIST_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Longest answer of any other call, in bytes: an inspect has about 6 KB plus environment and labels.
pub const DOCKER_ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// How much of a refusal is read, in bytes; of that a sentence is kept.
pub const DOCKER_REFUSAL_BYTES_MAX: u64 = 64 * 1024;
/// Longest message of the engine that is passed on, in characters: it ends up in front of people.
pub const DOCKER_MESSAGE_CHARS_MAX: usize = 400;
/// Longest line of the event stream, in bytes: an event carries all labels of its container.
pub const DOCKER_EVENT_LINE_BYTES_MAX: u64 = 256 * 1024;
/// Most log lines asked for at once.
pub const DOCKER_LOG_LINES_MAX: u32 = 1000;
/// How much of a log answer is read, in bytes: the engine splits lines at 16 KiB, so this is more than the most lines.
pub const DOCKER_LOG_READ_BYTES_MAX: u64 = 17 * 1024 * 1024;
const _: () = assert!(DOCKER_LOG_READ_BYTES_MAX > DOCKER_LOG_LINES_MAX as u64 * (16 * 1024 + 8));
/// How much of the end of a log is kept, in bytes.
pub const DOCKER_LOG_KEEP_BYTES: usize = 256 * 1024;
/// Longest line of a log, in bytes: the pieces of 16 KiB in which the engine stores lines, and its time.
pub const DOCKER_LOG_LINE_BYTES_MAX: u64 = 16 * 1024 + 64;
/// Rounds of look-and-create for our network: one is enough unless several threads race.
pub const DOCKER_NETWORK_TRIES: u32 = 8;
/// How long the removal of an image may take: files by the ten thousand, on a slow disk.
pub const DOCKER_IMAGE_REMOVE_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the engine to take a piece of a build's context, and to begin its answer after the last one: it unpacks as it
/// reads, and parses a Dockerfile before its first word.
pub const DOCKER_BUILD_STALL_MAX: Duration = Duration::from_secs(120);
/// Write buffer of a build's connection, in bytes: the whole address has to fit in.
pub const DOCKER_BUILD_BUFFER_BYTES: usize = 128 * 1024;
/// Longest address of a build, in bytes: its arguments are in there.
pub const DOCKER_BUILD_PATH_BYTES_MAX: usize = 60 * 1024;
const _: () = assert!(DOCKER_BUILD_PATH_BYTES_MAX + 1024 < DOCKER_BUILD_BUFFER_BYTES);
/// Longest line of a build's answer, in bytes: an error says its command twice, and of a Dockerfile of 64 KiB every byte may be escaped
/// as six.
pub const DOCKER_BUILD_LINE_BYTES_MAX: u64 = 1024 * 1024;
/// Longest line of a build's log, in bytes; a longer one goes on in the next.
pub const DOCKER_BUILD_LOG_LINE_BYTES_MAX: usize = 16 * 1024;
/// Images that are remembered as left behind by one build: Dockerfiles have few stages.
pub const DOCKER_BUILD_RESIDUE_MAX: usize = 64;
/// Longest cgroup file, in bytes: `memory.stat`, the longest, has under 2 KiB; it is read onto the stack.
pub const CGROUP_FILE_BYTES_MAX: usize = 16 * 1024;

// ---- store ----

/// Writes that may wait for the store thread: at 1,000 commits a second this is about one second of work.
pub const STORE_QUEUE: usize = 1024;
/// How long a caller may wait for room in that queue: longer than one slow commit, shorter than a client's patience of 30 s.
pub const STORE_SUBMIT_MAX: Duration = Duration::from_secs(5);
/// How long a caller waits for its commit: beyond that the disk hangs, and the thread has others to serve.
pub const STORE_ANSWER_MAX: Duration = Duration::from_secs(20);
/// How long health waits for the disk before it calls the store unavailable.
pub const STORE_PING_MAX: Duration = Duration::from_secs(1);
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
/// Host names of its own that one project can have: a name with and without www in a few countries.
pub const DOMAINS_PER_PROJECT: usize = 16;
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

/// Shortest and longest password in bytes: hashing is bounded, and 128 bytes hold any passphrase (OWASP asks for 64 at least).
pub const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=128;
/// Memory of one password hash in KiB (OWASP's first recommendation for argon2id: 19 MiB, two passes, one lane).
pub const ARGON2_MEMORY_KIB: u32 = 19 * 1024;
/// Passes over that memory.
pub const ARGON2_PASSES: u32 = 2;
/// Most memory in KiB that a stored hash may ask for: room to raise the cost, none to exhaust the host.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 64 * 1024;
/// Most passes, and most lanes, that a stored hash may ask for.
pub const ARGON2_PASSES_MAX: u32 = 8;
/// Room reserved for one hash, in bytes: above 32 MiB glibc maps it by itself and gives it back (mallopt(3), `M_MMAP_THRESHOLD`).
pub const ARGON2_RESERVED_BYTES: usize = 33 * 1024 * 1024;
/// Longest token looked at, in bytes; ours have about 310.
pub const TOKEN_BYTES_MAX: usize = 512;
/// How long a token works beyond its end: clocks differ, and the library's own default is 15 minutes.
pub const TOKEN_TOLERANCE: Duration = Duration::from_secs(5);
/// Life of a refresh token (contract, section 3).
pub const REFRESH_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// Longest life of any token: `auth.token_days` at its most. One that claims more was not made by us.
pub const TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(365 * 86_400);
/// Before this (2024-01-01, in seconds since 1970) the clock is wrong, and a token would end at once when it is set right.
pub const CLOCK_EARLIEST: u64 = 1_704_067_200;
/// For how long a failed login counts.
pub const LOGIN_WINDOW: Duration = Duration::from_secs(15 * 60);
/// Failures within that time after which an address is refused and an account slowed down.
pub const LOGIN_FAILURES: usize = 5;
/// First delay of an account under attack; it doubles with each further failure.
pub const LOGIN_DELAY: Duration = Duration::from_secs(1);
/// Longest such delay: the rule allows 60 s, but clients give up at 30 s, and the owner must get in.
pub const LOGIN_DELAY_MAX: Duration = Duration::from_secs(16);
/// Addresses, and accounts, with failures that are remembered; the longest quiet one is forgotten first.
pub const LOGIN_TABLE: usize = 4096;

const _: () = assert!(ARGON2_MEMORY_KIB <= ARGON2_MEMORY_KIB_MAX && ARGON2_PASSES <= ARGON2_PASSES_MAX);
const _: () = assert!(REFRESH_LIFETIME.as_secs() <= TOKEN_LIFETIME_MAX.as_secs());

// ---- config ----

/// Longest configuration file in bytes: a thousand times what anybody writes.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// Entries of one list in the configuration.
pub const CONFIG_LIST_MAX: usize = 64;
/// Memory in MiB of a project whose owner did not choose.
pub const PROJECT_MEMORY_MB: u32 = 512;
/// Longest time that a clone or a build can be given: what takes longer hangs.
pub const DEPLOY_TIMEOUT_MAX: Duration = Duration::from_secs(4 * 3600);

// ---- runtime ----

/// Messages on their way to the supervisor; the API answers 503 beyond it.
pub const INBOX: usize = 1024;
/// Messages that the supervisor takes in before it publishes: one batch is one frame per owner.
pub const BATCH: usize = 256;
/// Frames a stream client may be behind; then it is hung up on and starts anew from a snapshot.
pub const STREAM_QUEUE: usize = 64;
/// Engine calls at once.
pub const OPS_THREADS: usize = 16;
/// Engine calls that wait for a thread.
pub const OPS_QUEUE: usize = 64;
/// Looks at once: hundreds of projects at boot must not take the engine from those who want to act.
pub const LOOKS_AT_ONCE: usize = 4;
/// Probes at once: apps that accept and never answer must not take the threads from those that are to be stopped.
pub const PROBES_AT_ONCE: usize = 8;
/// Shortest time between two readings that a CPU share can be told from.
pub const SHARE_OVER_MIN: Duration = Duration::from_millis(500);
/// How long an attempt to get an HTTP answer from an app may take, to connect and again to answer.
pub const PROBE_MAX: Duration = Duration::from_secs(1);
/// How long the supervisor waits until it offers something again to a queue that was full.
pub const OFFER_AGAIN: Duration = Duration::from_millis(50);
/// How often the engine is asked while it does not answer.
pub const ENGINE_RETRY: Duration = Duration::from_secs(1);
/// How often the log is told that the engine still does not answer.
pub const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// First and longest pause before the engine's event stream is opened again: all is to be right within 10 s of its return.
pub const STREAM_BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// The pace of the list and the metrics while nobody listens.
pub const POLL_UNWATCHED: Duration = Duration::from_secs(15);
/// Stats calls at once, where the cgroup files cannot be read: engines before 24.0.7 answer each at their own 1 s tick.
pub const STATS_THREADS: usize = 64;
/// How long a caller waits for the supervisor's word; the disk is between them.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a container may take to end after SIGTERM.
pub const STOP_GRACE_S: u32 = 10;
/// Lines of output read when a container ended before it was ready.
pub const LAST_LINES: u32 = 20;
/// Most characters of that output in the reason of an error.
pub const LAST_OUTPUT_CHARS: usize = 400;

// ---- watchdog ----

/// For how long a thread may be silent, or at one job, before it counts as stuck: the longest honest one is a stop of 40 s.
pub const STUCK_AFTER: Duration = Duration::from_secs(120);
const _: () = assert!(
    STUCK_AFTER.as_secs() > 2 * (DOCKER_STOP_GRACE_MAX_S as u64 + DOCKER_STOP_MARGIN.as_secs())
        && STUCK_AFTER.as_secs() > 2 * (STORE_SUBMIT_MAX.as_secs() + STORE_ANSWER_MAX.as_secs())
);
const _: () = assert!(
    STUCK_AFTER.as_secs()
        > JANITOR_MAX.as_secs() + DOCKER_IMAGE_REMOVE_MAX.as_secs() + DOCKER_CALL_MAX.as_secs()
);
/// The same in the manager's watchdog times: 120 s with the unit's `WatchdogSec=30`.
pub const STUCK_AFTER_WATCHDOGS: u32 = 4;
/// How often the manager is told in one watchdog time: two may get lost.
pub const WATCHDOG_PARTS: u32 = 3;
/// How long muelle waits for its own answer: it comes from memory, and the shutdown waits for this wait.
pub const ASK_ITSELF_MAX: Duration = Duration::from_secs(3);
/// How often it asks itself before the first answer.
pub const ASK_ITSELF_AT_START: Duration = Duration::from_millis(50);
/// How often the manager is told a new status where it has no watchdog.
pub const SERVICE_STATUS_EVERY: Duration = Duration::from_secs(10);

// ---- api ----

/// Largest body of an API request: a project with the largest environment is under 64 KiB.
pub const API_BODY_MAX: usize = 1024 * 1024;
/// A body up to this size is read without asking; 1,024 connections of them are 8 MiB.
pub const API_BODY_SMALL: usize = 8 * 1024;
/// Larger bodies under way together: strangers may send them, and every one is held in memory.
pub const API_BODIES_MAX: usize = 16 * 1024 * 1024;
/// How long a handler waits for the engine: an answer is owed within 2 s, and the handlers are few.
pub const API_ENGINE_MAX: Duration = Duration::from_millis(1500);
/// Handlers that ask the store or the engine, at once.
pub const API_THREADS: usize = 4;
/// Requests that wait for such a handler; then 503. A hundred people press a button at once.
pub const API_QUEUE: usize = 128;
/// Handlers that ask the engine, at once: should it hang, the others go on.
pub const API_ENGINE_THREADS: usize = 2;
/// Requests that wait for such a handler; then 503. A hundred creates at once, 2 ms each; should the engine hang, they are refused once
/// that is noticed.
pub const API_ENGINE_QUEUE: usize = 128;
/// Passwords hashed at once: 19 MiB and a core each. With one, 500 streams and logins fit into 64 MiB, and it makes 30 of them a second.
pub const LOGIN_THREADS: usize = 1;
/// Logins that wait for that; then 503.
pub const LOGIN_QUEUE: usize = 16;
/// How often an event stream says that it is alive, quiet or not: 15 s at the latest by the contract; proxies in between cut at 60 s.
pub const STREAM_HEARTBEAT: Duration = Duration::from_secs(12);
// A vanished stream client is noticed within 60 s: at the heartbeat after the one that nobody acknowledged.
const _: () = assert!(2 * STREAM_HEARTBEAT.as_secs() + HTTP_USER_TIMEOUT.as_secs() < 60);
/// How often, and how far apart, a new stream looks for a place that a vanished client gives back.
pub const STREAM_PLACE_TRIES: u32 = 5;
/// See [`STREAM_PLACE_TRIES`].
pub const STREAM_PLACE_WAIT: Duration = Duration::from_millis(40);
/// How long after its session a stream ends: the dashboards finish their logout first.
pub const STREAM_END_AFTER: Duration = Duration::from_secs(1);
/// Lines of a log that are shown where nobody says how many.
pub const LOG_LINES: u32 = 200;
/// About how much of a log is read, encoded and written at once, in bytes.
pub const LOG_BATCH_BYTES: usize = 64 * 1024;
/// Batches on their way from the engine to a client; then the engine waits.
pub const LOG_STREAM_QUEUE: usize = 2;
/// The pace of a log stream, in bytes a second: more than anybody reads, and an app that only writes does not keep a core busy here.
pub const LOG_PACE_BYTES: u64 = 1024 * 1024;
/// First and longest pause before a log is opened again that ended while its container goes on, or could not be read. The first is
/// longer than it takes to hear of a container's end.
pub const LOG_AGAIN_AFTER: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(60));
/// Least memory that a container starts with, in MiB.
pub const PROJECT_MEMORY_MB_MIN: u32 = 16;
/// Least share of a CPU that a container starts with.
pub const PROJECT_CPUS_MIN: f64 = 0.05;

// ---- deploy ----

/// Deployments that wait for their turn; then 429. At a minute each this is a quarter of an hour.
pub const DEPLOY_QUEUE: u32 = 16;
/// The same of one user where there are several: the others must not wait for hours.
pub const DEPLOY_QUEUE_PER_USER: u32 = 8;
/// Deployments of one project whose record and log are kept, beside those whose image is.
pub const DEPLOYMENTS_KEPT: u32 = 20;
/// Lines on their way from the engine's answer to the log.
pub const BUILD_LINES_QUEUE: usize = 64;
/// How often a build is looked at for what it does to the host: at two gigabytes a second it writes less than [`BUILD_DISK_LAST`] leaves.
pub const BUILD_LOOK_EVERY: Duration = Duration::from_millis(200);
/// Output of a build, in bytes, beyond which it is ended: ten times what is kept.
pub const BUILD_OUTPUT_BYTES_MAX: u64 = 100 * 1024 * 1024;
/// Lines of it, beyond which it is ended: ten times the lines that are kept of an ordinary one.
pub const BUILD_OUTPUT_LINES_MAX: u64 = 1_000_000;
/// Processes and threads by which the host may have more than before a build; a fork bomb's are root's, whom no limit of its own binds.
pub const BUILD_THREADS_MAX: u64 = 4096;
/// Free bytes without which no build begins.
pub const BUILD_DISK_FREE: u64 = 2 << 30;
/// Disks smaller than this need a tenth of themselves instead.
pub const SMALL_DISK: u64 = 20_000_000_000;
/// Which part of that must be left while it goes on.
pub const BUILD_DISK_LAST: u64 = 4;
/// How often a deployment's progress is told at the most: 20 times a second.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(50);
/// Longest message of that, in characters; the log has all of it.
pub const PROGRESS_CHARS_MAX: usize = 400;
/// How long a version that was replaced serves those who still have its address, before it is asked to end.
pub const DRAIN: Duration = Duration::from_secs(10);
/// For how long after it took over a version's crash means to go back to the one before it.
pub const PROBATION: Duration = Duration::from_secs(60);
/// How long one job may go on to remove another image; the last one may take [`DOCKER_IMAGE_REMOVE_MAX`] beyond that.
pub const JANITOR_MAX: Duration = Duration::from_secs(30);
/// How long the engine may take to end a build that was given up: its last step may become an image after that.
pub const BUILD_UNWIND: Duration = Duration::from_secs(2);
/// Pause until a repository's files are removed that could not be.
pub const CHECKOUT_AGAIN: Duration = Duration::from_secs(5);
/// Pause until images are removed that could not be, or that a build might be about to use.
pub const CLEAN_AGAIN: Duration = Duration::from_secs(5);
/// Clean-ups at once: they hold a thread for long that others need to start and stop apps.
pub const CLEANERS_AT_ONCE: usize = 2;
/// Pause until the outcome of a deployment is saved again that could not be.
pub const SAVE_AGAIN: Duration = Duration::from_secs(5);
/// Deployments of a project that are listed, those that never had their turn included.
pub const DEPLOYMENTS_LISTED: u32 = 100;
/// The log of one deployment, in bytes.
pub const DEPLOY_LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// How often a log that is being written is looked at for a client of its stream.
pub const DEPLOY_LOG_POLL: Duration = Duration::from_millis(200);
/// Looks without anything new until the log of a deployment that has ended counts as complete.
pub const DEPLOY_LOG_QUIET: u32 = 3;
/// Longest name of a message of a repository's host, in characters: GitHub's have 36.
pub const DELIVERY_CHARS_MAX: usize = 128;
/// Messages of a repository's host that are remembered, so that one told twice deploys once.
pub const DELIVERIES_KEPT: u32 = 100;
/// The files of one checkout, in bytes; the same again for git's own files while it fetches. They are read, packed and sent to the engine.
pub const CHECKOUT_BYTES_MAX: u64 = 500 * 1024 * 1024;
/// Files and folders of one checkout: large applications have a few thousand, and vendored libraries do not belong into an image's context.
pub const CHECKOUT_FILES_MAX: usize = 20_000;
/// How often a running git is looked at: on a fast disk it writes less than the same again between two looks.
pub const GIT_TICK: Duration = Duration::from_millis(250);
/// A look at many files pauses for so many times as long as it took: looking costs a tenth of a core at most.
pub const GIT_LOOK_SHARE: u32 = 10;
/// How often its end is looked for once it has said its last word: it comes within a millisecond.
pub const GIT_END_TICK: Duration = Duration::from_millis(5);
/// For how long a server may send nothing: one that is at work sends a sign of life every 5 s (git-config(1), `uploadpack.keepAlive`).
pub const GIT_STALL_MAX: Duration = Duration::from_secs(60);
/// Address space of each git process, in bytes: it maps its files, and a small one can hold a hundred times its size.
pub const GIT_MEMORY_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// A file from this size on goes through git in pieces and not through its memory, in bytes.
pub const GIT_BIG_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Threads that unpack: the other cores are for the apps that run.
pub const GIT_THREADS: u32 = 2;
/// Longest line of git's that is passed on, in bytes; the rest of it is left out.
pub const GIT_LINE_BYTES_MAX: usize = 1000;
/// All of its lines that are passed on, in bytes: a long honest clone says about 5 KiB.
pub const GIT_OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Lines on their way from its pipe to whoever writes them down; then git waits.
pub const GIT_LINES_QUEUE: usize = 16;
/// How often a line may be replaced by the next that says how far it is; the ones between are left out.
pub const GIT_PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Complaints of git's that a reason is looked for in.
pub const GIT_COMPLAINTS_MAX: usize = 16;
/// Longest reason that is passed on, in characters: it ends up in front of people.
pub const GIT_REASON_CHARS_MAX: usize = 300;
/// Longest first line of a commit's message that is passed on, in characters.
pub const COMMIT_SUBJECT_CHARS_MAX: usize = 200;
/// Files and folders of a repository that are looked at: what is meant to be built has a few hundred.
pub const CONTEXT_FILES_MAX: usize = 20_000;
/// Bytes of all their paths together: they are held in memory until the build has them.
pub const CONTEXT_PATHS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Folders within folders: a descriptor and a stack frame for each.
pub const CONTEXT_DEPTH_MAX: usize = 64;
/// What is read and written at once, in bytes, while a build's files are sent.
pub const CONTEXT_BUFFER_BYTES: usize = 64 * 1024;
/// Files left out of a build that are named; the rest is counted.
pub const CONTEXT_LEFT_OUT_NAMED: usize = 5;
/// Largest Dockerfile, in bytes: long ones have 10 KiB.
pub const DOCKERFILE_BYTES_MAX: u64 = 64 * 1024;
/// Largest `package.json`, `requirements.txt`, `pyproject.toml` or Python module that is looked into, in bytes.
pub const DETECT_BYTES_MAX: u64 = 1024 * 1024;
/// Largest `.dockerignore`, in bytes.
pub const IGNORE_BYTES_MAX: u64 = 64 * 1024;
/// Patterns in it: generated ones have about a hundred.
pub const IGNORE_PATTERNS_MAX: usize = 1000;
/// Steps of comparing its patterns with all files: four seconds of a core; a hundred patterns and the most files take less than half.
pub const IGNORE_STEPS_MAX: u64 = 1_000_000_000;
