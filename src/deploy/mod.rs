//! From a repository to an image: fetches the files, finds out what kind of app they are, and has the engine build it.
//!
//! Knows git, recipes and build contexts. Decides nothing about projects: it is handed one deployment at a time and tells the
//! supervisor how that went.

pub mod context;
pub mod git;
mod host_watch;
pub mod ignore;
pub mod recipe;
mod tree;
mod voice;
pub mod worker;

pub use tree::Refusal;

#[cfg(test)]
#[path = "../../tests/it/harness/checkout.rs"]
mod checkout;
