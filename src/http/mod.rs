//! The strict synchronous HTTP/1.1 front.
//!
//! Knows the wire format, its bounds and its deadlines. Must not know what a path, a token or a project is.

mod body;
mod head;
#[cfg(test)]
mod tests;

pub use body::Chunked;
pub use head::{Framing, Head, Method, Parsed, Version, parse};

/// Why the front does not let a request through; its text is a sentence for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 400: bytes that are not HTTP, or that two readers could understand differently.
    #[error("{0}")]
    Malformed(&'static str),
    /// 405: CONNECT or TRACE, which nobody offers here.
    #[error("This method is not allowed")]
    MethodNotAllowed,
    /// 408: a head or a body did not arrive in time.
    #[error("The request took too long to arrive")]
    Timeout,
    /// 413: a body larger than the handler takes.
    #[error("The request body is too large")]
    BodyTooLarge,
    /// 414: a request line longer than the bound.
    #[error("The address of the request is too long")]
    TargetTooLong,
    /// 417: an `Expect` other than `100-continue`.
    #[error("This expectation cannot be met")]
    ExpectationFailed,
    /// 429: more than the allowed connections.
    #[error("Too many connections from this address")]
    TooManyFromAddress,
    /// 431: more header bytes or lines than the bounds.
    #[error("The headers of the request are too large")]
    HeadTooLarge,
    /// 500: the handler panicked.
    #[error("Something went wrong on the server")]
    Panicked,
    /// 503: more than the allowed, or no thread to be had.
    #[error("The server is busy, try again in a moment")]
    Busy,
    /// 505: a version other than 1.0 and 1.1.
    #[error("Only HTTP/1.0 and HTTP/1.1 are spoken here")]
    VersionUnsupported,
}

impl Refusal {
    /// The status that says so.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Malformed(_) => 400,
            Refusal::MethodNotAllowed => 405,
            Refusal::Timeout => 408,
            Refusal::BodyTooLarge => 413,
            Refusal::TargetTooLong => 414,
            Refusal::ExpectationFailed => 417,
            Refusal::TooManyFromAddress => 429,
            Refusal::HeadTooLarge => 431,
            Refusal::Panicked => 500,
            Refusal::Busy => 503,
            Refusal::VersionUnsupported => 505,
        }
    }
}
