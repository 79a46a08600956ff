//! muelle: one home server with Docker as a small hosting platform.
pub mod api;
pub mod auth;
pub mod config;
pub mod daemon;
pub mod docker;
pub mod domain;
pub mod host;
pub mod http;
pub mod limits;
pub mod runtime;
pub mod store;
pub mod threads;
