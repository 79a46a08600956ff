//! One connection, from its first byte to its close: head, handler, answer, and the next one.
//!
//! Runs on the connection's own thread and blocks on its socket, always within a deadline. One request at a time: bytes of the
//! next one wait in a bounded buffer. Must not know the application, nor how many connections there are.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

use super::head::{Head, Method, Parsed, Version, parse};
use super::listener::Door;
use super::response::Terms;
use super::{Refusal, Request, Response};
use crate::limits::{HTTP_DISCARD_MAX, HTTP_READ_STEP, HTTP_WRITE_FLOOR};
use crate::threads::panic_text;

/// A connected socket and what others may ask of it. Its descriptor is free when the connection ends: everybody else holds it
/// weakly.
#[derive(Debug)]
pub(super) struct Link {
    socket: TcpStream,
    /// Nothing of a request has arrived: the connection may be ended and nobody misses it.
    idle: AtomicBool,
    write_deadline: Duration,
}

impl Link {
    pub(super) fn new(socket: TcpStream, write_deadline: Duration) -> Link {
        Link { socket, idle: AtomicBool::new(true), write_deadline }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::SeqCst)
    }

    /// Makes the connection see an end of input; what it is writing still gets out.
    pub(super) fn shut_input(&self) {
        // Fails only when the peer was faster.
        drop(self.socket.shutdown(std::net::Shutdown::Read));
    }

    pub(super) fn shut(&self) {
        drop(self.socket.shutdown(std::net::Shutdown::Both));
    }

    /// Writes the parts as if they were one, in one packet where they fit.
    ///
    /// # Errors
    /// When the peer is gone, or did not make room for [`HTTP_WRITE_FLOOR`] bytes within the write deadline.
    pub(super) fn write(&self, parts: &[&[u8]]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut slices = slices.as_mut_slice();
        IoSlice::advance_slices(&mut slices, 0);
        let (mut since, mut moved) = (Instant::now(), 0);
        while !slices.is_empty() {
            match (&self.socket).write_vectored(slices) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    moved += count;
                    IoSlice::advance_slices(&mut slices, count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The kernel's name for the send timeout.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
                Err(error) => return Err(error),
            }
            // Linux returns from a blocking send with less than all only when the timeout is over.
            if since.elapsed() >= self.write_deadline && !slices.is_empty() {
                if moved < HTTP_WRITE_FLOOR {
                    return Err(ErrorKind::TimedOut.into());
                }
                (since, moved) = (Instant::now(), 0);
            }
        }
        Ok(())
    }

    /// Whether the peer sends nothing more, also behind bytes that nobody has read yet; never blocks.
    pub(super) fn peer_ended(&self) -> bool {
        let mut end = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        // A poll that fails says nothing.
        poll(&mut end, Some(&Timespec::default())).is_ok_and(|count| count > 0)
    }

    /// Whether the peer has closed its side or vanished, as far as the kernel knows; never blocks. Bytes it sent and nobody
    /// read hide a close behind them.
    pub(super) fn peer_closed(&self) -> bool {
        let peeked = recv(&self.socket, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        match peeked {
            Ok((_, count)) => count == 0,
            Err(error) => error != rustix::io::Errno::WOULDBLOCK && error != rustix::io::Errno::INTR,
        }
    }
}

/// Ends a connection from another thread; holds neither its descriptor nor its thread.
#[derive(Clone, Debug)]
pub struct Shutdown(Weak<Link>);

impl Shutdown {
    pub(super) fn of(link: &Arc<Link>) -> Shutdown {
        Shutdown(Arc::downgrade(link))
    }

    /// Shuts both directions of the socket: whoever reads or writes it fails at once. Does nothing once the connection ended.
    pub fn shut(&self) {
        if let Some(link) = self.0.upgrade() {
            link.shut();
        }
    }
}

/// The bytes that arrive on a connection, buffered up to a head and one read.
#[derive(Debug)]
pub(super) struct Source {
    link: Arc<Link>,
    buffer: Vec<u8>,
}

impl Source {
    pub(super) fn new(link: Arc<Link>) -> Source {
        Source { link, buffer: Vec::new() }
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(super) fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Forgets the first `count` buffered bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.buffer.drain(..count);
    }

    /// Waits for bytes and buffers them; 0 is the end of the input.
    ///
    /// # Errors
    /// `TimedOut` at the deadline, and those of the socket.
    pub(super) fn fill(&mut self, deadline: Instant) -> io::Result<usize> {
        let mut step = [0; HTTP_READ_STEP];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.link.socket.set_read_timeout(Some(left))?;
            match (&self.link.socket).read(&mut step) {
                Ok(count) => {
                    self.buffer.extend_from_slice(&step[..count]);
                    return Ok(count);
                }
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends the output and throws away what still arrives (RFC 9112 §9.6): a socket closed with unread bytes sends a reset,
    /// and the reset destroys the answer before the client has read it.
    fn linger(&mut self, deadline: Duration) {
        if self.link.socket.shutdown(std::net::Shutdown::Write).is_err() {
            return;
        }
        let deadline = Instant::now() + deadline;
        let mut discarded = self.buffer.len();
        while discarded < HTTP_DISCARD_MAX {
            self.buffer.clear();
            match self.fill(deadline) {
                Ok(count) if count > 0 => discarded += count,
                _ => return,
            }
        }
    }
}

/// What a wait for the next head ends with.
enum Next {
    Head(Head),
    Refused(Refusal),
    /// Nothing to answer: the peer left, or was idle for too long, or we are closing.
    Gone,
}

/// What becomes of the connection behind an answer.
#[derive(PartialEq)]
enum After {
    Keep,
    /// The answer is out, and the peer has to get it.
    Linger,
    /// The answer broke off.
    Abort,
}

/// A connection on its own thread.
pub(super) struct Connection {
    source: Source,
    peer: SocketAddr,
    door: Arc<Door>,
}

impl Connection {
    pub(super) fn new(link: Arc<Link>, peer: SocketAddr, door: Arc<Door>) -> Connection {
        Connection { source: Source::new(link), peer, door }
    }

    /// Serves requests until the peer or a rule ends it.
    pub(super) fn run(mut self) {
        loop {
            let after = match self.next_head() {
                Next::Head(head) => self.answer(head),
                Next::Refused(refusal) => self.refuse(&refusal),
                Next::Gone => return,
            };
            match after {
                After::Keep => {}
                After::Linger => return self.source.linger(self.door.deadlines.discard),
                After::Abort => return self.source.link.shut(),
            }
        }
    }

    fn next_head(&mut self) -> Next {
        let idle_until = Instant::now() + self.door.deadlines.idle;
        let mut head_until = None;
        loop {
            match parse(self.source.buffered()) {
                Parsed::Complete(head, length) => {
                    self.source.consume(length);
                    return Next::Head(head);
                }
                Parsed::Refused(refusal) => return Next::Refused(refusal),
                Parsed::Partial => {}
            }
            let idle = self.source.buffered().is_empty();
            let deadline = if idle {
                // Between two requests a connection costs its stack and nothing else.
                self.source.buffer = Vec::new();
                self.source.link.idle.store(true, Ordering::SeqCst);
                // Behind the store: either this sees the door closing, or the door sees this idle.
                if self.door.is_closing() {
                    return Next::Gone;
                }
                idle_until
            } else {
                *head_until.get_or_insert_with(|| Instant::now() + self.door.deadlines.head)
            };
            match self.source.fill(deadline) {
                Ok(0) => return Next::Gone,
                Ok(_) => self.source.link.idle.store(false, Ordering::SeqCst),
                Err(error) if error.kind() == ErrorKind::TimedOut && !idle => {
                    return Next::Refused(Refusal::Timeout);
                }
                Err(_) => return Next::Gone,
            }
        }
    }

    fn answer(&mut self, head: Head) -> After {
        let mut request = Request::new(head, self.peer, &mut self.source, self.door.deadlines);
        let handled = catch_unwind(AssertUnwindSafe(|| self.door.handler.handle(&mut request)));
        let is_read = request.is_read();
        let head = request.into_head();
        let keep = handled.is_ok() && is_read && head.keeps_alive() && !self.door.is_closing();
        let response = handled.unwrap_or_else(|panic| {
            self.door.panicked("a handler", panic_text(panic.as_ref()));
            self.door.render(&Refusal::Panicked, Some(&head))
        });
        self.send(
            response,
            &Terms { version: head.version(), head_only: *head.method() == Method::Head, keep },
        )
    }

    fn refuse(&mut self, refusal: &Refusal) -> After {
        self.door.refused(refusal, self.peer);
        let response = self.door.render(refusal, None);
        self.send(response, &Terms { version: Version::Http11, head_only: false, keep: false })
    }

    fn send(&self, response: Response, terms: &Terms) -> After {
        let link = &self.source.link;
        let upgrades = response.is_upgrade();
        match catch_unwind(AssertUnwindSafe(|| response.send(link, terms, self.source.buffered()))) {
            // Whoever ran the tunnel has ended it in its own way.
            Ok(Ok(())) if upgrades => After::Abort,
            Ok(Ok(())) if terms.keep => After::Keep,
            Ok(Ok(())) => After::Linger,
            // The peer's fault or its wish; whoever wrote the stream knows more.
            Ok(Err(_)) => After::Abort,
            Err(panic) => {
                self.door.panicked("a stream", panic_text(panic.as_ref()));
                After::Abort
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::wait_until;
    use super::*;

    #[test]
    fn a_reader_that_drips_is_cut_off_though_something_moves_in_every_deadline() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut peer = listener.accept().unwrap().0;
        // Small windows: the kernel passes on what was read in a few steps, not in megabytes.
        socket2::SockRef::from(&socket).set_send_buffer_size(16 * 1024).unwrap();
        socket2::SockRef::from(&peer).set_recv_buffer_size(8 * 1024).unwrap();
        let deadline = Duration::from_millis(1_500);
        socket.set_write_timeout(Some(deadline)).unwrap();
        let link = Link::new(socket, deadline);
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                let written = link.write(&[&vec![b'x'; 4 * 1024 * 1024]]);
                link.shut();
                written
            });
            wait_until("it is cut off", || {
                // At most 47 KiB per deadline.
                drop(peer.read(&mut [0; 32]));
                writing.is_finished()
            });
            assert_eq!(writing.join().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
        });
    }
}
