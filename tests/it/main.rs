//! The integration tests.

mod harness;
