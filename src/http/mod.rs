//! The strict synchronous HTTP/1.1 front: sockets in, [`Request`]s out, [`Response`]s back.
//!
//! Knows the wire format, its bounds and its deadlines; serves the API's door and the proxy's alike. Must not know what a
//! path, a token or a project is: whatever it refuses itself is rendered by the application ([`Handler::refuse`]). One thread
//! per listening address accepts, one thread per connection does all the rest, the handler's work and streams included.

pub mod answer;
mod body;
mod connection;
mod head;
mod listener;
mod request;
mod response;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use body::Chunked;
pub use connection::Shutdown;
pub use head::{Framing, Head, Method, Parsed, Version, parse, query_param};
pub use listener::{BindError, Bound, Counters, Server, Visitor};
pub use request::Request;
pub use response::{Bytes, HeaderName, HeaderValue, InvalidHeader, Response, StreamWriter};

use crate::limits;

/// What one door needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses to listen on. With several ports of 0, the later ones take the port the first was given where it is free.
    pub listen: Vec<SocketAddr>,
    /// Connections at once; one more is answered 503 and closed.
    pub connections: usize,
    /// Connections at once from one address; one more is answered 429 and closed.
    pub per_address: usize,
    /// Addresses of proxies in front of us, which `per_address` does not bind.
    pub trusted_peers: Vec<IpAddr>,
    /// The door's name in its thread's: `api` gives `accept-api`.
    pub name: &'static str,
    /// How long a peer may take.
    pub deadlines: Deadlines,
}

/// How long a peer may take for each part of an exchange.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From the first byte of a head to its end, in total.
    pub head: Duration,
    /// Silence before the first byte of a request.
    pub idle: Duration,
    /// Silence within a body.
    pub body_idle: Duration,
    /// From the first wait for a body to its end.
    pub body_total: Duration,
    /// For each [`limits::HTTP_WRITE_FLOOR`] bytes, and for the last of them.
    pub write: Duration,
    /// For what still arrives after the last answer.
    pub discard: Duration,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines {
            head: limits::HTTP_HEAD_DEADLINE,
            idle: limits::HTTP_KEEP_ALIVE_IDLE,
            body_idle: limits::HTTP_BODY_IDLE,
            body_total: limits::HTTP_BODY_TOTAL,
            write: limits::HTTP_WRITE_DEADLINE,
            discard: limits::HTTP_DISCARD_DEADLINE,
        }
    }
}

/// The application behind a door.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request, on its connection's own thread, which it may block. A panic in it is a 500.
    fn handle(&self, request: &mut Request<'_>) -> Response;

    /// Renders what the front refuses by itself in the application's error shape. The connection is closed afterwards.
    /// `head` is there once it was understood. May run on the accepting thread: must not block, and a stream is not sent.
    fn refuse(&self, refusal: &Refusal, head: Option<&Head>) -> Response;
}

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
    /// 414: a request line longer than [`limits::HTTP_REQUEST_LINE_MAX`].
    #[error("The address of the request is too long")]
    TargetTooLong,
    /// 417: an `Expect` other than `100-continue`.
    #[error("This expectation cannot be met")]
    ExpectationFailed,
    /// 429: more than [`Settings::per_address`] connections.
    #[error("Too many connections from this address")]
    TooManyFromAddress,
    /// 431: more header bytes or lines than [`limits::HTTP_HEAD_MAX`], [`limits::HTTP_HEADERS_MAX`].
    #[error("The headers of the request are too large")]
    HeadTooLarge,
    /// 500: the handler panicked.
    #[error("Something went wrong on the server")]
    Panicked,
    /// 503: more than [`Settings::connections`], or no thread to be had.
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
