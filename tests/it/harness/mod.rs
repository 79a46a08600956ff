//! What the integration tests share.

#![allow(clippy::unwrap_used, reason = "what fails here fails its test")]

pub mod image;
