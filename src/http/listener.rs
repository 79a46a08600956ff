//! The doors: listening sockets, the threads that accept, and the count of who is inside.
//!
//! Knows how many connections there are, and of whom. Runs on one thread per address, which accepts, counts, and hands the socket
//! to a thread of its own; that loop ends when it is told to and never by an error. Must not parse.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::connection::{Connection, Link};
use super::head::{Head, Version};
use super::response::Terms;
use super::{Deadlines, Handler, Refusal, Response, Settings};
use crate::limits::{
    HTTP_ACCEPT_BACKOFF, HTTP_BACKLOG, HTTP_HEAD_MAX, HTTP_LOG_EVERY, HTTP_PROBE_AFTER, HTTP_PROBE_EVERY,
    HTTP_UNWIND, HTTP_USER_TIMEOUT, STACK_CONNECTION, STACK_DEFAULT,
};
use crate::threads::{Thread, panic_text, spawn};

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// Which of them.
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

impl BindError {
    /// Whether the machine does not have the address or its whole family.
    #[must_use]
    pub fn is_family_missing(&self) -> bool {
        const EAFNOSUPPORT: i32 = 97;
        self.source.kind() == io::ErrorKind::AddrNotAvailable
            || self.source.raw_os_error() == Some(EAFNOSUPPORT)
    }
}

/// What a door has counted since it was bound.
#[derive(Debug, Default)]
pub struct Counters {
    connections: AtomicU64,
    accepted: AtomicU64,
    accept_errors: AtomicU64,
    refused: AtomicU64,
    panics: AtomicU64,
}

impl Counters {
    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections let in.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Failed `accept` calls, each followed by a pause.
    #[must_use]
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Ordering::Relaxed)
    }

    /// Connections and requests that the front turned away by itself.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Handlers and streams that panicked.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

/// Listening sockets that nobody accepts on yet. Clients may connect already; the kernel holds them until [`Bound::serve`].
#[derive(Debug)]
pub struct Bound {
    settings: Settings,
    listeners: Vec<TcpListener>,
    counters: Arc<Counters>,
}

impl Bound {
    /// Listens on every address of `settings`; IPv6 ones take no IPv4 connections, so that both
    /// families can be had on one port.
    ///
    /// # Errors
    /// At the first address that cannot be had; the others are free again then.
    pub fn bind(settings: &Settings) -> Result<Bound, BindError> {
        let mut listeners: Vec<TcpListener> = Vec::new();
        for &address in &settings.listen {
            // A browser tries `localhost` in both families, with one port.
            let chosen =
                listeners.first().and_then(|first| first.local_addr().ok()).map(|first| first.port());
            let listener = match chosen.filter(|_| address.port() == 0) {
                Some(port) => listen(SocketAddr::new(address.ip(), port)).or_else(|_| listen(address)),
                None => listen(address),
            };
            listeners.push(listener.map_err(|source| BindError { address, source })?);
        }
        Ok(Bound { settings: settings.clone(), listeners, counters: Arc::default() })
    }

    /// The addresses listened on, with the ports that were given for 0.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// The door's counters, for whoever reports them.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Starts to accept, and hands every request to `handler`.
    ///
    /// # Errors
    /// When the system refuses a thread; nothing is listened on any more then.
    pub fn serve(self, handler: Arc<dyn Handler>) -> io::Result<Server> {
        let Bound { settings, listeners, counters } = self;
        let door = Arc::new(Door {
            handler,
            deadlines: settings.deadlines,
            table: Arc::new(Table::new(&settings, counters)),
            closing: AtomicBool::new(false),
            malformed: LogLimit::default(),
            faults: LogLimit::default(),
        });
        let (running, stopped) = bounded(0);
        let mut server = Server { door, running: Some(running), acceptors: Vec::new() };
        for (at, listener) in listeners.into_iter().enumerate() {
            let name = match at {
                0 => format!("accept-{}", settings.name),
                _ => format!("accept-{}-{}", settings.name, at + 1),
            };
            let listener = Arc::new(listener);
            let (ours, door, stopped) = (Arc::clone(&listener), Arc::clone(&server.door), stopped.clone());
            let thread = spawn(&name, STACK_DEFAULT, move || accept(&ours, &door, &stopped))?;
            server.acceptors.push((listener, thread));
        }
        Ok(server)
    }
}

/// A door that is open. Dropping it closes it without grace.
pub struct Server {
    door: Arc<Door>,
    /// Dropped to say that accepting ends.
    running: Option<Sender<()>>,
    acceptors: Vec<(Arc<TcpListener>, Thread)>,
}

impl Server {
    /// Stops listening and joins the accepting threads; connections go on.
    pub fn stop_accepting(&mut self) {
        self.running = None;
        for (listener, thread) in self.acceptors.drain(..) {
            // Linux: a blocked `accept` on a socket that was shut down returns EINVAL, and so does every later one.
            if let Err(error) = SockRef::from(&*listener).shutdown(std::net::Shutdown::Both) {
                log::warn!("cannot stop listening: {error}");
            }
            drop(thread);
        }
    }

    /// The way for this process to call its own door.
    #[must_use]
    pub fn visitor(&self) -> Visitor {
        let addresses =
            self.acceptors.iter().filter_map(|(listener, _)| listener.local_addr().ok()).collect();
        Visitor { addresses, table: Arc::clone(&self.door.table) }
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.door.table.lock().open.len()
    }

    /// Stops accepting, ends idle connections at once, lets running requests finish until `grace` is over, then shuts their sockets
    /// down.
    ///
    /// # Blocks
    /// Until every connection has ended, at most `grace` and the time to unwind ([`HTTP_UNWIND`]).
    pub fn close(mut self, grace: Duration) {
        self.end(grace);
    }

    fn end(&mut self, grace: Duration) {
        self.stop_accepting();
        let table = &self.door.table;
        self.door.closing.store(true, Ordering::SeqCst);
        for link in table.links() {
            if link.is_idle() {
                link.shut_input();
            }
        }
        if table.wait_until_empty(grace) {
            return;
        }
        for link in table.links() {
            link.shut();
        }
        if !table.wait_until_empty(HTTP_UNWIND) {
            log::warn!("{} connections are left behind, their handlers do not return", self.connections());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.door.is_closing() {
            self.end(Duration::ZERO);
        }
    }
}

/// Calls the door of its own process as any client does, but for one thing: it gets in when strangers have taken all places.
pub struct Visitor {
    addresses: Vec<SocketAddr>,
    table: Arc<Table>,
}

impl Visitor {
    /// Gets `path` at every address listened on; gives the first status that is not 200, with its body, or 200. An address that this
    /// machine does not have just now (a cable is out, IPv6 was switched off) is left out, be it the last.
    ///
    /// # Errors
    /// When one of the others does not answer in HTTP, or not in time.
    ///
    /// # Blocks
    /// At most `within`.
    pub fn get(&self, path: &str, within: Duration) -> io::Result<(u16, String)> {
        use ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable};
        let until = Instant::now() + within;
        for &address in &self.addresses {
            let answer = self.get_at(address, path, until);
            self.table.lock().visitor = None;
            match answer {
                Ok((200, _)) => {}
                Err(error)
                    if matches!(error.kind(), AddrNotAvailable | HostUnreachable | NetworkUnreachable) => {}
                other => return other,
            }
        }
        Ok((200, String::new()))
    }

    fn get_at(&self, address: SocketAddr, path: &str, until: Instant) -> io::Result<(u16, String)> {
        let left = || match until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::Error::from(ErrorKind::TimedOut)),
            left => Ok(left),
        };
        let host = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        // With its scope, where it has one.
        let (mut door, mut own) = (address, address);
        door.set_ip(host);
        own.set_ip(host);
        own.set_port(0);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Known before it knocks.
        socket.bind(&own.into())?;
        self.table.lock().visitor = socket.local_addr()?.as_socket();
        socket.connect_timeout(&door.into(), left()?)?;
        let mut stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(left()?))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        let mut step = [0; 1024];
        while answer.len() < HTTP_HEAD_MAX {
            stream.set_read_timeout(Some(left()?))?;
            match stream.read(&mut step)? {
                0 => break,
                count => answer.extend_from_slice(&step[..count]),
            }
        }
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        status.map(|status| (status, body.to_owned())).ok_or_else(|| ErrorKind::InvalidData.into())
    }
}

/// What the threads of one door share.
pub(super) struct Door {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) deadlines: Deadlines,
    table: Arc<Table>,
    closing: AtomicBool,
    malformed: LogLimit,
    faults: LogLimit,
}

impl Door {
    /// Whether connections end behind their present answer.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// The application's words for a refusal; none, should it panic over them.
    pub(super) fn render(&self, refusal: &Refusal, head: Option<&Head>) -> Response {
        let rendered = catch_unwind(AssertUnwindSafe(|| self.handler.refuse(refusal, head)));
        let response = rendered.unwrap_or_else(|panic| {
            self.panicked("a refusal", panic_text(panic.as_ref()));
            Response::empty(refusal.status())
        });
        if *refusal == Refusal::MethodNotAllowed {
            // RFC 9110 §15.5.6 demands it. What a route allows is the application's matter, and that was not asked.
            return response.header("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        }
        response
    }

    pub(super) fn refused(&self, refusal: &Refusal, peer: SocketAddr) {
        self.table.counters.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(omitted) = self.malformed.pass() {
            log::debug!("refused {peer}: {refusal} ({omitted} more since the last line)");
        }
    }

    pub(super) fn panicked(&self, what: &str, text: &str) {
        self.table.counters.panics.fetch_add(1, Ordering::Relaxed);
        if let Some(omitted) = self.faults.pass() {
            log::error!("{what} panicked: {text} ({omitted} more faults since the last line)");
        }
    }

    fn welcome(self: &Arc<Door>, socket: TcpStream, peer: SocketAddr) {
        if let Err(error) = prepare(&socket, self.deadlines.write) {
            // The peer is gone already.
            log::debug!("lost {peer}: {error}");
            return;
        }
        let link = Arc::new(Link::new(socket, self.deadlines.write));
        let seat = match Table::admit(&self.table, &link, peer) {
            Ok(seat) => seat,
            Err(refusal) => return self.turn_away(&link, &refusal, peer),
        };
        let (ours, door, name) = (Arc::clone(&link), Arc::clone(self), format!("conn-{}", seat.id));
        let spawned = spawn(&name, STACK_CONNECTION, move || {
            // Dropped behind the connection, by a panic too.
            let _seat = seat;
            Connection::new(ours, peer, door).run();
        });
        match spawned {
            Ok(thread) => thread.detach(),
            Err(error) => {
                if let Some(omitted) = self.faults.pass() {
                    log::error!(
                        "no thread for a connection: {error} ({omitted} more faults since the last line)"
                    );
                }
                self.turn_away(&link, &Refusal::Busy, peer);
            }
        }
    }

    /// Says why and closes, without waiting for anything: this is the accepting thread.
    fn turn_away(&self, link: &Arc<Link>, refusal: &Refusal, peer: SocketAddr) {
        self.refused(refusal, peer);
        let response = self.render(refusal, None).without_stream();
        if link.socket().set_nonblocking(true).is_ok() {
            let terms = Terms { version: Version::Http11, head_only: false, keep: false };
            // A new socket has room for a sentence; if not, the close says enough.
            drop(response.send(link, &terms, &[]));
        }
    }
}

/// Who is connected; bounded by the settings.
struct Table {
    connections: usize,
    per_address: usize,
    trusted_peers: Vec<IpAddr>,
    counters: Arc<Counters>,
    seats: Mutex<Seats>,
    left: Condvar,
}

#[derive(Default)]
struct Seats {
    open: HashMap<u64, Weak<Link>>,
    addresses: HashMap<IpAddr, usize>,
    last: u64,
    /// Where the [`Visitor`] calls from, while it does.
    visitor: Option<SocketAddr>,
}

impl Table {
    fn new(settings: &Settings, counters: Arc<Counters>) -> Table {
        Table {
            connections: settings.connections,
            per_address: settings.per_address,
            trusted_peers: settings.trusted_peers.iter().map(IpAddr::to_canonical).collect(),
            counters,
            seats: Mutex::default(),
            left: Condvar::new(),
        }
    }

    fn admit(table: &Arc<Table>, link: &Arc<Link>, peer: SocketAddr) -> Result<Seat, Refusal> {
        let mut seats = table.lock();
        let ours = seats.visitor == Some(peer);
        if seats.open.len() >= table.connections && !ours {
            return Err(Refusal::Busy);
        }
        let address = Some(peer.ip().to_canonical()).filter(|it| !ours && !table.trusted_peers.contains(it));
        if let Some(address) = address {
            let count = seats.addresses.get(&address).copied().unwrap_or(0);
            if count >= table.per_address {
                return Err(Refusal::TooManyFromAddress);
            }
            seats.addresses.insert(address, count + 1);
        }
        seats.last += 1;
        let id = seats.last;
        seats.open.insert(id, Arc::downgrade(link));
        table.counters.accepted.fetch_add(1, Ordering::Relaxed);
        table.counters.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Seat { table: Arc::clone(table), id, address })
    }

    fn links(&self) -> Vec<Arc<Link>> {
        self.lock().open.values().filter_map(Weak::upgrade).collect()
    }

    fn wait_until_empty(&self, timeout: Duration) -> bool {
        let seats = self.left.wait_timeout_while(self.lock(), timeout, |seats| !seats.open.is_empty());
        seats.unwrap_or_else(PoisonError::into_inner).0.open.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        // Nothing is left half done under this lock.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One place in the [`Table`], given back when dropped.
struct Seat {
    table: Arc<Table>,
    id: u64,
    /// The address that is charged for it.
    address: Option<IpAddr>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.table.lock();
        seats.open.remove(&self.id);
        if let Some(address) = self.address
            && let Some(count) = seats.addresses.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                seats.addresses.remove(&address);
            }
        }
        self.table.counters.connections.fetch_sub(1, Ordering::Relaxed);
        self.table.left.notify_all();
    }
}

/// Lets one line of its kind into the log per [`HTTP_LOG_EVERY`].
#[derive(Default)]
struct LogLimit(Mutex<(Option<Instant>, u64)>);

impl LogLimit {
    /// Whether a line may be written now, and how many were not since the last.
    fn pass(&self) -> Option<u64> {
        let mut limit = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if limit.0.is_some_and(|last| last.elapsed() < HTTP_LOG_EVERY) {
            limit.1 += 1;
            return None;
        }
        let omitted = limit.1;
        *limit = (Some(Instant::now()), 0);
        Some(omitted)
    }
}

/// The accept loop. The listening socket has no receive timeout, which would make `accept` fail.
fn accept(listener: &TcpListener, door: &Arc<Door>, stopped: &Receiver<()>) {
    loop {
        let accepted = listener.accept();
        if stopped.try_recv() == Err(TryRecvError::Disconnected) {
            return;
        }
        match accepted {
            Ok((socket, peer)) => door.welcome(socket, peer),
            // Of that one connection, not of the socket.
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
            Err(error) => {
                door.table.counters.accept_errors.fetch_add(1, Ordering::Relaxed);
                if let Some(omitted) = door.faults.pass() {
                    log::error!("cannot accept: {error} ({omitted} more faults since the last line)");
                }
                if stopped.recv_timeout(HTTP_ACCEPT_BACKOFF) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for the last run's connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(HTTP_BACKLOG)?;
    Ok(socket.into())
}

fn prepare(socket: &TcpStream, write_deadline: Duration) -> io::Result<()> {
    // A 3 KB answer went from 44 ms to 0.08 ms.
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(write_deadline))?;
    let options = SockRef::from(socket);
    options.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(HTTP_PROBE_AFTER).with_interval(HTTP_PROBE_EVERY),
    )?;
    options.set_tcp_user_timeout(Some(HTTP_USER_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::tests::{App, Client, settings, wait_until};
    use super::*;

    /// The same loop meets "no descriptors left" (case 25, which takes a process of its own).
    #[test]
    fn accepting_goes_on_after_errors_and_pauses_between_them() {
        let bound = Bound::bind(&settings()).unwrap();
        let (address, counters) = (bound.addresses()[0], bound.counters());
        // Every accept without somebody waiting is an error now.
        bound.listeners[0].set_nonblocking(true).unwrap();
        let started = Instant::now();
        let server = bound.serve(App::new()).unwrap();
        wait_until("it failed a few times", || counters.accept_errors() >= 4);
        assert!(started.elapsed() >= HTTP_ACCEPT_BACKOFF * 3);
        let mut client = Client::of(address);
        assert_eq!(client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200);
        drop(server);
    }

    #[test]
    fn an_address_that_left_is_forgotten() {
        let settings = Settings { per_address: 2, ..settings() };
        let table = Arc::new(Table::new(&settings, Arc::default()));
        let listener = listen(settings.listen[0]).unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let link = Arc::new(Link::new(socket, Duration::from_secs(1)));
        let one = |address: [u8; 4]| Table::admit(&table, &link, SocketAddr::from((address, 1)));
        let seats = [one([10, 0, 0, 1]), one([10, 0, 0, 1]), one([10, 0, 0, 2])];
        assert!(seats.iter().all(Result::is_ok));
        assert_eq!(one([10, 0, 0, 1]).err(), Some(Refusal::TooManyFromAddress));
        assert_eq!(table.lock().addresses.len(), 2);
        drop(seats);
        let left = table.lock();
        assert_eq!((left.addresses.len(), left.open.len()), (0, 0));
    }

    #[test]
    fn case_113_the_server_can_ask_itself_when_strangers_have_taken_all_places() {
        let settings = Settings { connections: 2, per_address: 2, ..settings() };
        let bound = Bound::bind(&settings).unwrap();
        let address = bound.addresses()[0];
        let server = bound.serve(App::new()).unwrap();
        let strangers = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        wait_until("all places are taken", || server.connections() == 2);
        assert_eq!(Client::of(address).answer().status, 503);
        let visitor = server.visitor();
        assert_eq!(visitor.get("/", Duration::from_secs(5)).unwrap().0, 200);
        assert_eq!(visitor.get("/panic", Duration::from_secs(5)).unwrap().0, 500);
        // Its place is for nobody else, not even from the same address, and not for ever.
        wait_until("its place is free", || server.connections() == 2);
        assert_eq!(Client::of(address).answer().status, 503);
        // An address that the machine has lost is nobody's fault; a restart would not bring it back.
        let lost: SocketAddr = ([192, 0, 2, 1], address.port()).into();
        let visitor = |addresses| Visitor { addresses, ..server.visitor() };
        assert_eq!(visitor(vec![lost, address]).get("/", Duration::from_secs(5)).unwrap().0, 200);
        assert_eq!(visitor(vec![lost, address]).get("/panic", Duration::from_secs(5)).unwrap().0, 500);
        assert_eq!(visitor(vec![lost]).get("/", Duration::from_secs(5)).unwrap().0, 200);
        let visitor = server.visitor();
        drop(strangers);
        drop(server);
        assert!(visitor.get("/", Duration::from_secs(5)).is_err());
    }

    /// What the kernel makes of them (case 26) takes a network that drops packets.
    #[test]
    fn a_socket_notices_a_dead_peer_and_sends_small_answers_at_once() {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        prepare(&socket, Duration::from_secs(3)).unwrap();
        assert!(socket.nodelay().unwrap());
        assert_eq!(socket.write_timeout().unwrap(), Some(Duration::from_secs(3)));
        let options = SockRef::from(&socket);
        assert!(options.keepalive().unwrap());
        assert_eq!(options.tcp_keepalive_time().unwrap(), HTTP_PROBE_AFTER);
        assert_eq!(options.tcp_keepalive_interval().unwrap(), HTTP_PROBE_EVERY);
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(HTTP_USER_TIMEOUT));
    }

    #[test]
    fn the_log_gets_one_line_of_a_flood() {
        let limit = LogLimit::default();
        assert_eq!(limit.pass(), Some(0));
        for _ in 0..1_000 {
            assert_eq!(limit.pass(), None);
        }
        limit.0.lock().unwrap().0 = None;
        assert_eq!(limit.pass(), Some(1_000));
    }
}
