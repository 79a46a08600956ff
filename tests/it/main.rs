//! The integration tests: the real binary against the real engine. One file per behaviour; the names are sentences.

#![allow(clippy::unwrap_used, reason = "what fails here fails its test")]

mod harness;

mod auth;
mod cgroup;
mod cli;
mod contract;
mod deploy;
mod deploy_faults;
mod events;
mod faults;
mod front;
mod git;
mod host;
mod lifecycle;
mod logs;
mod metrics;
mod openapi;
mod proxy;
mod recipes;
mod sleep;
mod tidy;
mod watchdog;
