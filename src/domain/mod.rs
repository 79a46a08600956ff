//! The words of the platform and its decisions: projects, users, metrics, events and the lifecycle.
//!
//! Pure: no I/O, no clock (`now` is an argument), no serde. What came from a stranger becomes a type here, once
//! ([`ProjectName::parse`], [`HostLabel::derive`]), and is not checked again further in.

pub mod address;
pub mod deployment;
pub mod event;
pub mod idle;
pub mod lifecycle;
pub mod metrics;
pub mod network;
pub mod project;
pub mod repository;
pub mod traffic;
pub mod user;
pub mod wake;

pub use address::{Addresses, Domain};
pub use deployment::{Cause, Deployment, Level, Release, Step};
pub use event::{Addressed, Event};
pub use metrics::Metrics;
pub use network::{Subnet, household, is_public};
pub use project::{
    ContainerName, Desired, EnvName, HealthPath, Held, HostLabel, IdleAfter, ImageRef, Project, ProjectId,
    ProjectName, Settings, SettingsChange, Source, Status, Template,
};
pub use repository::{Branch, RepoUrl, Secret};
pub use traffic::{Sum, Traffic};
pub use user::{Email, SessionId, User, UserId, UserName};
pub use wake::Wake;

/// Why a value from outside was refused: a sentence for the person who sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    /// A refusal that says `sentence`.
    pub fn new(sentence: impl Into<String>) -> Invalid {
        Invalid(sentence.into())
    }
}

/// Text that a person may choose freely: trimmed, at least one character, no control characters, at most `max` characters.
/// `what` begins the sentence of a refusal.
pub(crate) fn free_text(what: &str, raw: &str, max: usize) -> Result<String, Invalid> {
    let text = raw.trim();
    if text.is_empty() {
        return Err(Invalid(format!("{what} is required")));
    }
    if text.chars().count() > max {
        return Err(Invalid(format!("{what} is longer than {max} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(Invalid(format!("{what} must not contain control characters")));
    }
    Ok(text.to_owned())
}
