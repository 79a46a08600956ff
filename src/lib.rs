//! muelle: one home server with Docker as a small hosting platform. THE MAP.
//!
//! # Layers (an arrow means "may use"; `tests/it/tidy.rs` holds it)
//!
//! ```text
//! main ─► daemon ─► api, proxy, deploy ─► runtime ─► store, docker, host, auth, http ─► domain, limits, threads
//!            └────► config, watchdog ─► http
//! ```
//!
//! | module | what it knows |
//! |---|---|
//! | [`daemon`] | builds, wires, starts and stops everything, in one visible order |
//! | [`config`] | the file → a valid `Config`, or every problem at once |
//! | [`api`] | routes, tokens, JSON, CORS: the only place that serialises for clients |
//! | [`deploy`] | a repository → an image: git, recipes, the build context |
//! | [`proxy`] | the door to the apps: hosts, and HTTP passed on |
//! | [`runtime`] | who decides: supervisor, operations, watcher, poller, hub, snapshot |
//! | [`store`] | the only SQL |
//! | [`docker`] | the only place that knows the Engine API |
//! | [`host`] | cgroup files, free bytes, threads |
//! | [`auth`] | passwords, tokens, throttling |
//! | [`http`] | the strict HTTP/1.1 front |
//! | [`watchdog`] | what the service manager is told |
//! | [`domain`] | pure: projects, users, events, the lifecycle |
//! | [`limits`], [`threads`], [`journal`] | every bound; every thread; the log's way out |
//!
//! # To follow
//!
//! - **A request**: `http::connection` → `api::Door::handle` → `api::routes` → a handler → `http::response`.
//! - **A start**: `api::containers::start` → `runtime::Runtime::command` → `runtime::supervisor` → `domain::lifecycle::step` → the store
//!   commits the intent → the caller is answered, `runtime::ops` asks Docker → probes → running → `runtime::hub` → `api::feed`.
//! - **A deployment**: `api::deployments` → the store records it → supervisor (`runtime::releases`) → when it has its turn `deploy::worker`:
//!   `git` → `recipe` → `context` → `docker::build` → supervisor: the new version comes up beside the old one by the same lifecycle → the
//!   store records that it is the project's → the old one drains and goes.
//! - **A Docker event**: `runtime::watcher` → supervisor → a look → `step` → snapshot → one frame per owner → every client of that owner.
//!
//! # Threads
//!
//! | thread | count | blocks on |
//! |---|---|---|
//! | `main` | 1 | signals |
//! | `supervisor` | 1 | its inbox, until the next deadline |
//! | `store` | 1 | its queue; the only writer of SQLite, commits in batches |
//! | `op-N` | ≤ 16, on demand | one timed engine call, or one probe |
//! | `docker-watch`, `docker-poll` | 1 + 1 | the engine's events; the list and the numbers |
//! | `stats-N` | ≤ 64, where cgroup files cannot be read | one stats call |
//! | `accept-api`, `accept-apps` | 1 per listening address | accept |
//! | `conn-N` | bounded by `limits.connections` | its socket; a stream client: its queue |
//! | `log-read` | one per client of a log stream | the engine, or room in that client's queue |
//! | `api-N` | ≤ 4 | a job that asks the store or the engine |
//! | `engine-N` | ≤ 2 | a job that asks the engine |
//! | `login-N` | 1 | hashing a password |
//! | `deploy` | 1 | git, or the build |
//! | `build`, `context` | 1 + 1 while an image is built | the engine's answer; the checkout's files, and the engine that takes them |
//! | `git-read` | one per running `git` | that git's pipe |
//! | `resolve` | one per clone where private hosts are not allowed | the resolver |
//! | `watchdog` | 1 under systemd | its own answer, and the pause to the next |
//! | `log` | 1 | standard error |
//!
//! # Invariants
//!
//! 1. Only `store` has SQL; only `docker` opens the Docker socket; only `api` serialises for clients.
//! 2. `domain` does no I/O, reads no clock, derives no serde.
//! 3. Only the supervisor changes a project's status. Everyone else sends a message or reads a snapshot.
//! 4. No lock is held across I/O, a blocking send, or another lock.
//! 5. Every queue, table, head, body, thread count and wait has a bound named in [`limits`].
//! 6. Containers outlive us: stopping muelle stops no project. Boot is recovery. Intent is durable before Docker is asked and before the
//!    caller is answered.
//! 7. muelle changes only containers that carry its own labels, or that the administrator adopted.
//! 8. Nothing that came from a user is ever a shell string, a path, or part of a Docker option outside the fixed template.

pub mod api;
pub mod auth;
pub mod config;
pub mod daemon;
pub mod deploy;
pub mod docker;
pub mod domain;
pub mod host;
pub mod http;
pub mod journal;
pub mod limits;
pub mod proxy;
pub mod runtime;
pub mod store;
pub mod threads;
pub mod watchdog;
