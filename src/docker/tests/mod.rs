//! The client against a real engine, and against bytes that no engine sends on demand.

mod bytes;
mod engine;
