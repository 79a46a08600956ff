//! The client against a real engine, and against bytes that no engine sends on demand.

mod build;
mod bytes;
mod engine;
