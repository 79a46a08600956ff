//! HTTP over the engine's unix socket: the transport that ureq is missing.
//!
//! The only file that touches `ureq::unversioned`, whose shape may change in a minor version (the crate is pinned to 3.5).
//! Knows sockets and deadlines, not the Engine API. Runs on the caller's thread.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::net::RecvFlags;
use socket2::{Domain, SockAddr, Socket, Type};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, ShutdownHandle, Transport,
};
use ureq::{Agent, Error, Timeout};

use crate::limits;

/// An agent that speaks to the engine at `socket` and keeps at most `idle_max` idle connections. No I/O yet.
pub(super) fn agent(socket: &Path, idle_max: usize, connect_max: Duration) -> Agent {
    made(socket, idle_max, connect_max, limits::DOCKER_BUFFER_BYTES, None)
}

/// An agent for one large request.
pub(super) fn uploader(socket: &Path, connect_max: Duration, upload: &Upload) -> Agent {
    made(socket, 0, connect_max, limits::DOCKER_BUILD_BUFFER_BYTES, Some(upload.clone()))
}

/// What a request's body and its connection know of each other: an engine that has its answer before the end of a body hangs up, and
/// the answer is there to be read as soon as nobody insists on writing.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    /// Longest wait for room to write.
    stall: Duration,
    ended: Arc<AtomicBool>,
}

impl Upload {
    pub(super) fn new(stall: Duration) -> Upload {
        Upload { stall, ended: Arc::default() }
    }

    /// Whether the engine takes no more: the body is to end here.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

fn made(
    socket: &Path,
    idle_max: usize,
    connect_max: Duration,
    output_bytes: usize,
    upload: Option<Upload>,
) -> Agent {
    let config = Config::builder()
        .proxy(None) // the default follows HTTP_PROXY
        .http_status_as_error(false) // 304 means "already so", and refusals carry a message
        .max_redirects(0)
        .max_response_header_size(limits::DOCKER_HEAD_BYTES_MAX)
        .input_buffer_size(limits::DOCKER_BUFFER_BYTES)
        .output_buffer_size(output_bytes)
        .max_idle_connections(idle_max)
        .max_idle_connections_per_host(idle_max)
        .max_idle_age(limits::DOCKER_IDLE_AGE_MAX)
        .timeout_connect(Some(connect_max))
        .user_agent(concat!("muelle/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::with_parts(config, UnixConnector { socket: socket.to_owned(), upload }, NoDns)
}

#[derive(Debug)]
struct UnixConnector {
    socket: PathBuf,
    upload: Option<Upload>,
}

impl Connector for UnixConnector {
    type Out = UnixTransport;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _chained: Option<()>,
    ) -> Result<Option<UnixTransport>, Error> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Linux waits this long for room in the listener's backlog (unix_stream_connect); std has no such timeout.
        socket.set_write_timeout(details.timeout.not_zero().map(|d| *d))?;
        in_time(socket.connect(&SockAddr::unix(&self.socket)?), Timeout::Connect)?;
        let stream = Arc::new(Stream(UnixStream::from(socket)));
        let handle: Weak<Stream> = Arc::downgrade(&stream);
        (details.register_shutdown)(handle)?;
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(UnixTransport { stream, buffers, upload: self.upload.clone() }))
    }
}

/// `ShutdownHandle` and `UnixStream` are both foreign.
#[derive(Debug)]
struct Stream(UnixStream);

impl ShutdownHandle for Stream {
    fn shutdown(&self) {
        // An error means that it is closed already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

#[derive(Debug)]
struct UnixTransport {
    stream: Arc<Stream>,
    buffers: LazyBuffers,
    upload: Option<Upload>,
}

impl Transport for UnixTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        let mut stream = &self.stream.0;
        let stall = self.upload.as_ref().map(|upload| upload.stall);
        stream.set_write_timeout(timeout.not_zero().map(|d| *d).or(stall))?;
        let written =
            in_time(io::Write::write_all(&mut stream, &self.buffers.output()[..amount]), timeout.reason);
        match (&self.upload, written) {
            (Some(upload), Err(Error::Io(_))) => {
                upload.ended.store(true, Ordering::Release);
                Ok(())
            }
            (_, written) => written,
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        let mut stream = &self.stream.0;
        stream.set_read_timeout(timeout.not_zero().map(|d| *d))?;
        let buffer = self.buffers.input_append_buf();
        let count = loop {
            match io::Read::read(&mut stream, buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break in_time(read, timeout.reason)?,
            }
        };
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        // Silence is the only sign of a connection that can be used again: data or an end are not.
        let peek = rustix::net::recv(&self.stream.0, &mut [0_u8], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(peek, Err(rustix::io::Errno::AGAIN))
    }
}

fn in_time<T>(result: io::Result<T>, reason: Timeout) -> Result<T, Error> {
    result.map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(reason),
        _ => Error::Io(e),
    })
}

/// ureq demands an address; the connector does not look at it.
#[derive(Debug)]
struct NoDns;

impl Resolver for NoDns {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        Ok(addresses)
    }
}
