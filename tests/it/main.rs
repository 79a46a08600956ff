//! The integration tests.

mod cgroup;
mod harness;
