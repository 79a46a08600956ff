//! Why the engine did not do what it was asked, in the branches that callers take.
//!
//! What it says itself is a stranger's text on its way to people: it is cleaned and bounded here.

use std::io::{self, Read as _};

use ureq::Body;
use ureq::http::Response;

use super::wire;
use crate::limits;

/// Why the engine did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, or did not answer in time, or closed the connection before its answer was complete.
    #[error("{0}")]
    Unavailable(String),
    /// It does not have that container, image or network.
    #[error("{0}")]
    NotFound(String),
    /// Something else has that name or that port, or is in the way.
    #[error("{0}")]
    Conflict(String),
    /// It refused for another reason.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its sentence, cleaned and bounded.
        message: String,
    },
    /// It answered something that is no answer.
    #[error("the engine's answer makes no sense: {0}")]
    Malformed(String),
    /// It is older than [`API_OLDEST`](super::API_OLDEST).
    #[error("the container engine is too old: Docker 20.10 (API 1.41) or newer is needed")]
    TooOld,
}

impl Error {
    /// Whether the engine as a whole is away, as against one call that failed.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Error::Unavailable(_))
    }
}

/// What engines answer 500 for where it is a conflict: a port (20.10); a name, and what a container's state does not allow (Podman 4.3).
const CONFLICTS: [&str; 5] = [
    "port is already allocated",
    "address already in use",
    "that name is already in use",
    "network already exists",
    "container state improper",
];

/// Lets an answer pass that means yes or "already so", and makes an error of any other.
pub(super) fn accepted(answer: Response<Body>) -> Result<Response<Body>, Error> {
    let status = answer.status().as_u16();
    if matches!(status, 200..=299 | 304) {
        return Ok(answer);
    }
    let mut text = Vec::new();
    // What came before the answer broke is said; the status alone is an answer too.
    let _ = answer.into_body().into_reader().take(limits::DOCKER_REFUSAL_BYTES_MAX).read_to_end(&mut text);
    let message = match serde_json::from_slice::<wire::Refusal>(&text) {
        Ok(refusal) => refusal.message,
        Err(_) if text.trim_ascii_start().starts_with(b"<") => String::new(), // a page of some proxy
        Err(_) => String::from_utf8_lossy(&text).into_owned(),
    };
    let message = match clean(&message) {
        empty if empty.is_empty() => format!("the engine answered {status} without a reason"),
        message => message,
    };
    Err(match status {
        404 => Error::NotFound(message),
        409 => Error::Conflict(message),
        500 if CONFLICTS.iter().any(|words| message.contains(words)) => Error::Conflict(message),
        _ => Error::Refused { status, message },
    })
}

/// Why reading `what` from the engine failed.
pub(super) fn broken_off(what: &str, e: &io::Error) -> Error {
    let cause = clean(&e.to_string());
    match e.kind() {
        io::ErrorKind::Other | io::ErrorKind::InvalidData => Error::Malformed(format!("{what}: {cause}")),
        _ => Error::Unavailable(format!("the {what} broke off: {cause}")),
    }
}

/// The engine's text as it may be shown: one line, no control characters, bounded.
pub(super) fn clean(text: &str) -> String {
    let one_line: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(limits::DOCKER_MESSAGE_CHARS_MAX)
        .collect();
    one_line.trim_end().to_owned()
}
