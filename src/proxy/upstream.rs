//! Connections to apps: opened, used for one exchange at a time, kept for the next.
//!
//! Knows sockets, deadlines and framing, not what is said. Runs on the thread of the client's connection.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

use crate::http::answer::{Answer, Content, Heard, hear};
use crate::limits;

/// How long apps are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the beginning of an answer.
    pub answer: Duration,
    /// For the next bytes of its body.
    pub body: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { answer: limits::PROXY_ANSWER_MAX, body: limits::PROXY_BODY_IDLE }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The app does not take connections, or ended this one.
    #[error("the app ended the connection: {0}")]
    Broken(io::Error),
    /// It took too long.
    #[error("the app did not answer in time")]
    Timeout,
    /// What it said is no HTTP.
    #[error("the app's answer makes no sense: {0}")]
    Malformed(&'static str),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Error::Timeout,
            _ => Error::Broken(error),
        }
    }
}

/// A connection to an app.
#[derive(Debug)]
pub struct Upstream {
    socket: TcpStream,
    address: SocketAddr,
    buffer: Vec<u8>,
    /// The receive timeout that is set.
    patience: Option<Duration>,
    /// It has carried an exchange before.
    pub is_used: bool,
}

impl Upstream {
    /// Connects.
    ///
    /// # Errors
    /// Those of the socket, also when the app does not accept within [`limits::PROXY_CONNECT_MAX`].
    pub fn connect(address: SocketAddr) -> Result<Upstream, Error> {
        let socket = TcpStream::connect_timeout(&address, limits::PROXY_CONNECT_MAX)?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(limits::PROXY_WRITE_MAX))?;
        Ok(Upstream { socket, address, buffer: Vec::new(), patience: None, is_used: false })
    }

    /// The socket, for a tunnel.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Bytes that came behind the head.
    #[must_use]
    pub fn early(&self) -> &[u8] {
        &self.buffer
    }

    /// Whether something has come, or the connection has ended; never blocks.
    #[must_use]
    pub fn has_news(&self) -> bool {
        let peeked = recv(&self.socket, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        !matches!(peeked, Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR))
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When the app does not take them within [`limits::PROXY_WRITE_MAX`], or is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok((&self.socket).write_all(bytes)?)
    }

    /// Reads what the app answers, leaving out what is said before the answer.
    ///
    /// # Errors
    /// As [`Error`] says.
    ///
    /// # Blocks
    /// Until there is a head, at most `within`; [`limits::PROXY_LEFT_MAX`] once the client has closed its side.
    pub fn answer(&mut self, within: Duration, client: &TcpStream) -> Result<Answer, Error> {
        let until = Instant::now() + within;
        let mut interim = 0;
        loop {
            match hear(&self.buffer) {
                Heard::Complete(answer, length) => {
                    self.buffer.drain(..length);
                    if !answer.is_interim() {
                        return Ok(answer);
                    }
                    interim += 1;
                    if interim > limits::PROXY_INTERIM_MAX {
                        return Err(Error::Malformed("it has too many interim answers"));
                    }
                }
                Heard::Malformed(reason) => return Err(Error::Malformed(reason)),
                Heard::Partial => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(Error::Timeout);
                    }
                    if self.fill(left, client)? == 0 {
                        return Err(Error::Broken(ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
    }

    fn fill(&mut self, patience: Duration, client: &TcpStream) -> io::Result<usize> {
        let mut step = [0; limits::HTTP_READ_STEP];
        let count = self.receive(&mut step, patience, client)?;
        self.buffer.extend_from_slice(&step[..count]);
        Ok(count)
    }

    /// In the kernel while the app is not quiet for long, then in a poll for both ends.
    fn receive(&mut self, bytes: &mut [u8], patience: Duration, client: &TcpStream) -> io::Result<usize> {
        let (mut until, mut left) = (Instant::now() + patience, false);
        let first = patience.min(limits::PROXY_QUIET);
        if self.patience != Some(first) {
            self.socket.set_read_timeout(Some(first))?;
            self.patience = Some(first);
        }
        loop {
            match (&self.socket).read(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.await_either(client, &mut until, &mut left)?;
                }
                read => return read,
            }
        }
    }

    /// Waits until something came from the app, at most `until`, which comes nearer when the client has `left`.
    fn await_either(&self, client: &TcpStream, until: &mut Instant, left: &mut bool) -> io::Result<()> {
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            let mut ends = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(client, PollFlags::RDHUP)];
            let watched = if *left { 1 } else { 2 };
            let rest = Timespec::try_from(rest).map_err(|_| ErrorKind::InvalidInput)?;
            match poll(&mut ends[..watched], Some(&rest)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            if !ends[0].revents().is_empty() {
                return Ok(());
            }
            *left = true;
            *until = (*until).min(Instant::now() + limits::PROXY_LEFT_MAX);
        }
    }

    /// The body, where its length is known and all of it came with the head.
    pub fn whole(&mut self, content: &Content) -> Option<Vec<u8>> {
        let Content::Length(length) = content else { return None };
        let length = usize::try_from(*length).ok().filter(|length| *length <= self.buffer.len())?;
        Some(self.buffer.drain(..length).collect())
    }

    /// Reads the next bytes of a body into `output`; 0 is its end.
    ///
    /// # Errors
    /// When it breaks off, pauses for longer than `idle`, or is not framed properly.
    ///
    /// # Blocks
    /// As long, for each of the app's writes; [`limits::PROXY_LEFT_MAX`] once the client has closed its side.
    pub fn body(
        &mut self,
        content: &mut Content,
        output: &mut [u8],
        idle: Duration,
        client: &TcpStream,
    ) -> io::Result<usize> {
        loop {
            let (taken, written) = match content {
                Content::None | Content::Length(0) => return Ok(0),
                Content::Chunked(chunked) if chunked.is_done() => return Ok(0),
                Content::Length(left) => {
                    let room = usize::try_from(*left).unwrap_or(usize::MAX).min(output.len());
                    let count = self.take(&mut output[..room], idle, client)?;
                    if count == 0 {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                    *left -= count as u64;
                    return Ok(count);
                }
                Content::UntilClose => return self.take(output, idle, client),
                Content::Chunked(chunked) => {
                    let decoded = chunked.decode(&self.buffer, output);
                    decoded.map_err(|_| io::Error::from(ErrorKind::InvalidData))?
                }
            };
            self.buffer.drain(..taken);
            if written > 0 {
                return Ok(written);
            }
            if matches!(content, Content::Chunked(chunked) if !chunked.is_done())
                && self.fill(idle, client)? == 0
            {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Buffered bytes first, then the socket's, without a detour through the buffer.
    fn take(&mut self, output: &mut [u8], idle: Duration, client: &TcpStream) -> io::Result<usize> {
        if self.buffer.is_empty() {
            return self.receive(output, idle, client);
        }
        let count = self.buffer.len().min(output.len());
        output[..count].copy_from_slice(&self.buffer[..count]);
        self.buffer.drain(..count);
        Ok(count)
    }
}

/// Connections that wait for their next exchange.
#[derive(Debug)]
pub struct Pool {
    /// How long whoever uses them waits.
    pub patience: Patience,
    idle: Mutex<HashMap<SocketAddr, Vec<(Instant, Upstream)>>>,
    /// When old ones were looked for.
    reaped: Mutex<Instant>,
}

impl Pool {
    /// None yet.
    #[must_use]
    pub fn new(patience: Patience) -> Pool {
        Pool { patience, idle: Mutex::default(), reaped: Mutex::new(Instant::now()) }
    }

    /// A connection that was idle for less than `max`, or none.
    #[must_use]
    pub fn take(&self, address: SocketAddr, max: Duration) -> Option<Upstream> {
        loop {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let (since, upstream) = idle.get_mut(&address)?.pop()?;
            drop(idle);
            // The newest is the last: those below are older still, and go with the reaper.
            if since.elapsed() >= max {
                return None;
            }
            if !upstream.has_news() {
                return Some(upstream);
            }
        }
    }

    /// Keeps a connection whose last exchange is complete, if there is room.
    pub fn keep(&self, mut upstream: Upstream) {
        if !upstream.buffer.is_empty() {
            // Bytes that nobody asked for.
            return;
        }
        self.reap();
        upstream.is_used = true;
        upstream.buffer = Vec::new();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let of_app = idle.entry(upstream.address).or_default();
        if of_app.len() < limits::PROXY_IDLE_PER_APP {
            of_app.push((Instant::now(), upstream));
        }
    }

    /// Closes what was idle for long, now and then: an app that sleeps leaves such, and may come back at another address.
    fn reap(&self) {
        let mut reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if reaped.elapsed() < limits::PROXY_IDLE_MAX {
            return;
        }
        *reaped = Instant::now();
        drop(reaped);
        let mut closing = Vec::new();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, of_app| {
            let old = of_app.partition_point(|(since, _)| since.elapsed() >= limits::PROXY_IDLE_MAX);
            closing.extend(of_app.drain(..old));
            !of_app.is_empty()
        });
        drop(idle);
        drop(closing);
    }
}
