//! Who may come in: password hashes, signed tokens, and how often somebody may guess.
//!
//! Pure functions and plain values: the clock is always an argument, and no thread, lock or queue is in here. Knows argon2 and
//! JSON web tokens, and the one file with the key. Must not know HTTP or the store: whether a session that a token names
//! still lives is for the caller to look up. Hashing takes tens of milliseconds and 19 MiB, so it runs on the two login threads;
//! the rest takes microseconds and runs on whichever thread has a request.

pub mod password;
pub mod throttle;
pub mod token;

pub use password::Password;
pub use throttle::{Decision, Throttle};
pub use token::{Claims, Keys, Kind};
