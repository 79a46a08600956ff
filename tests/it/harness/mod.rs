//! What the integration tests share.

#![allow(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

pub mod image;
