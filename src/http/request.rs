//! What a handler is given: the head, the peer, and the body for whoever asks for it.
//!
//! The body stays on the wire until then, so that a request can be turned away by its head alone. Runs on the connection's
//! thread and blocks on its socket, within the deadlines. Must not know what becomes of a body nobody read (`connection` does).

use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::body::Chunked;
use super::connection::Source;
use super::head::{Framing, Head};
use super::{Deadlines, Refusal};
use crate::limits::HTTP_READ_STEP;

/// One request, on its connection's thread.
#[derive(Debug)]
pub struct Request<'c> {
    head: Head,
    peer: SocketAddr,
    source: &'c mut Source,
    deadlines: Deadlines,
    rest: Rest,
    /// The client waits for `100 Continue` before it sends the body.
    invite: bool,
    /// Of the whole body, from the first wait for it.
    deadline: Option<Instant>,
}

/// What is still to come of the body.
#[derive(Debug)]
enum Rest {
    Length(u64),
    Chunked(Chunked),
}

impl<'c> Request<'c> {
    pub(super) fn new(
        head: Head,
        peer: SocketAddr,
        source: &'c mut Source,
        deadlines: Deadlines,
    ) -> Request<'c> {
        let rest = match head.framing() {
            Framing::Empty => Rest::Length(0),
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunked(Chunked::default()),
        };
        // RFC 9110 §10.1.1: a body that is on its way already needs no invitation.
        let invite = head.expects_continue() && source.buffered().is_empty();
        Request { head, peer, source, deadlines, rest, invite, deadline: None }
    }

    /// The request's head.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Who is at the other end of the socket; a proxy of ours, when there is one.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether the client sends nothing more: it has hung up, or has said all that it wants to; never blocks.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.source.link().peer_ended()
    }

    /// The connection, to wait for its end; nothing is to be read from it or written to it.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        self.source.link().socket()
    }

    /// Whether the head announces a body.
    #[must_use]
    pub fn has_body(&self) -> bool {
        self.head.framing() != Framing::Empty
    }

    /// Reads the whole body, at most `max` bytes. Memory grows with what arrives, never with what was announced.
    ///
    /// # Errors
    /// [`Refusal::BodyTooLarge`] (before a byte is read, where the length says so), and those of [`Request::read`]. Answer with it:
    /// the connection is closed behind the answer.
    ///
    /// # Blocks
    /// On the socket, until the body's deadlines.
    pub fn body(&mut self, max: usize) -> Result<Vec<u8>, Refusal> {
        if let Framing::Length(length) = self.head.framing()
            && length > max as u64
        {
            return Err(Refusal::BodyTooLarge);
        }
        let mut body = Vec::new();
        let mut step = [0; HTTP_READ_STEP];
        loop {
            match self.read(&mut step)? {
                0 => return Ok(body),
                count if count > max - body.len() => return Err(Refusal::BodyTooLarge),
                count => body.extend_from_slice(&step[..count]),
            }
        }
    }

    /// Reads the next bytes of the body into `output`, which is not empty; 0 is its end. The first call sends the
    /// `100 Continue` an expecting client waits for.
    ///
    /// # Errors
    /// [`Refusal::Timeout`] when the body pauses too long or takes too long, [`Refusal::Malformed`] when it is not framed properly
    /// or ends early.
    ///
    /// # Blocks
    /// On the socket, until the body's deadlines.
    pub fn read(&mut self, output: &mut [u8]) -> Result<usize, Refusal> {
        loop {
            let (taken, written) = match &mut self.rest {
                Rest::Length(left) => {
                    let buffered = self.source.buffered();
                    let space = buffered.len().min(output.len());
                    let count = usize::try_from(*left).map_or(space, |left| left.min(space));
                    output[..count].copy_from_slice(&buffered[..count]);
                    *left -= count as u64;
                    (count, count)
                }
                Rest::Chunked(chunked) => chunked.decode(self.source.buffered(), output)?,
            };
            self.source.consume(taken);
            if written > 0 || self.is_read() {
                return Ok(written);
            }
            self.fill()?;
        }
    }

    /// Whether nothing of the body is left on the wire.
    pub(super) fn is_read(&self) -> bool {
        match &self.rest {
            Rest::Length(left) => *left == 0,
            Rest::Chunked(chunked) => chunked.is_done(),
        }
    }

    pub(super) fn into_head(self) -> Head {
        self.head
    }

    fn fill(&mut self) -> Result<(), Refusal> {
        const ENDED: Refusal = Refusal::Malformed("The request body ended early");
        let now = Instant::now();
        if std::mem::take(&mut self.invite) {
            self.source.link().write(&[b"HTTP/1.1 100 Continue\r\n\r\n"]).map_err(|_| ENDED)?;
        }
        let deadline = *self.deadline.get_or_insert(now + self.deadlines.body_total);
        match self.source.fill(deadline.min(now + self.deadlines.body_idle)) {
            Ok(0) => Err(ENDED),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Err(Refusal::Timeout),
            Err(_) => Err(ENDED),
        }
    }
}
