//! The front against real sockets: a [`Server`] on port 0, a small application, and clients that write raw bytes.
//!
//! Deadlines are shortened where a test waits for one, never elsewhere. Waits end by a condition; [`PATIENCE`] only turns a hang
//! into a failure.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::*;

/// Longer than anything here takes on a loaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// More than the kernel's buffers swallow.
const HUGE: usize = 24 * 1024 * 1024;

/// Marsaglia's xorshift64: the same numbers in every run.
pub(super) struct Xorshift(u64);

impl Xorshift {
    pub(super) fn new(seed: u64) -> Xorshift {
        Xorshift(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// Waits until `holds` and panics with `what` when it does not come true.
#[track_caller]
pub(super) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// The application of these tests: a path is a behaviour.
pub(super) struct App {
    /// Paths handled, in order.
    ran: Mutex<Vec<String>>,
    /// One message lets one `/hold` go on.
    release: (Sender<()>, Receiver<()>),
    /// What streams tell of their end.
    ended: (Sender<io::Result<()>>, Receiver<io::Result<()>>),
    shutdowns: (Sender<Shutdown>, Receiver<Shutdown>),
    refuse_panics: AtomicBool,
}

impl App {
    pub(super) fn new() -> Arc<App> {
        Arc::new(App {
            ran: Mutex::default(),
            release: bounded(64),
            ended: bounded(64),
            shutdowns: bounded(64),
            refuse_panics: AtomicBool::new(false),
        })
    }

    fn ran(&self) -> Vec<String> {
        self.ran.lock().unwrap().clone()
    }

    fn stream(&self, kind: &str) -> Response {
        let (release, ended) = (self.release.1.clone(), self.ended.0.clone());
        let shutdowns = self.shutdowns.0.clone();
        match kind {
            "short" => Response::stream(200, |out| {
                for part in ["one", "", "two"] {
                    assert_eq!(out.write(part.as_bytes())?, part.len());
                }
                Ok(())
            }),
            "held" => Response::stream(200, move |out| {
                out.write_all(b"one")?;
                release.recv_timeout(PATIENCE).unwrap();
                out.write_all(b"two")
            }),
            "panic" => Response::stream(200, |out| {
                out.write_all(b"one")?;
                panic!("a stream that panics")
            }),
            "fail" => Response::stream(200, |out| {
                out.write_all(b"one")?;
                Err(ErrorKind::Other.into())
            }),
            "quiet" => Response::stream(200, move |out| {
                let first = out.peer_closed();
                out.write_all(b"one")?;
                wait_until("the peer closes", || out.peer_closed());
                ended.send(if first { Err(ErrorKind::Other.into()) } else { Ok(()) }).unwrap();
                Ok(())
            }),
            "endless" => Response::stream(200, move |out| {
                out.shrink_send_buffer()?;
                shutdowns.send(out.shutdown()).unwrap();
                loop {
                    if let Err(error) = out.write_all(&[b'x'; 16 * 1024]) {
                        ended.send(Err(error.kind().into())).unwrap();
                        return Err(error);
                    }
                }
            }),
            other => panic!("no stream {other}"),
        }
    }
}

impl Handler for App {
    fn handle(&self, request: &mut Request<'_>) -> Response {
        let path = request.head().path().to_owned();
        self.ran.lock().unwrap().push(path.clone());
        match path.as_str() {
            "/echo" => match request.body(64 * 1024) {
                Ok(body) => Response::bytes(200, body),
                Err(refusal) => self.refuse(&refusal, Some(request.head())),
            },
            "/hold" => {
                self.release.1.recv_timeout(PATIENCE).unwrap();
                Response::bytes(200, "held".to_owned())
            }
            "/ended" => {
                let first = request.has_ended();
                self.ended.0.send(Ok(())).unwrap();
                wait_until("the peer ends", || request.has_ended());
                Response::bytes(200, format!("first {first}"))
            }
            "/unread" => Response::bytes(401, "who are you?".to_owned()),
            "/panic" => panic!("a handler that panics"),
            "/big" => Response::bytes(200, vec![b'x'; 4 * 1024 * 1024]),
            "/huge" => Response::bytes(200, vec![b'x'; HUGE]),
            "/none" => Response::bytes(204, "never sent".to_owned()),
            "/peer" => Response::bytes(200, format!("{} {}", request.peer().ip(), request.has_body())),
            other => match other.strip_prefix("/stream/") {
                Some(kind) => self.stream(kind),
                None => Response::bytes(200, Arc::<[u8]>::from(&b"hello"[..])),
            },
        }
    }

    fn refuse(&self, refusal: &Refusal, head: Option<&Head>) -> Response {
        assert!(!self.refuse_panics.load(Ordering::Relaxed), "a refusal that panics");
        let path = head.map_or("-", Head::path);
        Response::bytes(refusal.status(), format!("{path}: {refusal}")).header("X-App", "yes")
    }
}

struct Served {
    server: Server,
    address: SocketAddr,
    app: Arc<App>,
    counters: Arc<Counters>,
}

pub(super) fn settings() -> Settings {
    Settings {
        listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        connections: 300,
        per_address: 300,
        trusted_peers: Vec::new(),
        name: "test",
        deadlines: Deadlines { discard: Duration::from_millis(200), ..Deadlines::default() },
    }
}

fn serve(settings: &Settings) -> Served {
    let bound = Bound::bind(settings).unwrap();
    let (address, counters, app) = (bound.addresses()[0], bound.counters(), App::new());
    let server = bound.serve(Arc::clone(&app) as Arc<dyn Handler>).unwrap();
    Served { server, address, app, counters }
}

fn serve_within(change: impl FnOnce(&mut Deadlines)) -> Served {
    let mut settings = settings();
    change(&mut settings.deadlines);
    serve(&settings)
}

pub(super) struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    body: Vec<u8>,
}

impl Client {
    pub(super) fn of(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Client { socket, buffer: Vec::new() }
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.socket.write_all(bytes.as_ref()).unwrap();
        self
    }

    fn get(&mut self, path: &str) -> &mut Client {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
    }

    /// The next answer, with a body if it has a length.
    #[track_caller]
    pub(super) fn answer(&mut self) -> Answer {
        self.answer_to(true)
    }

    #[track_caller]
    fn answer_to(&mut self, with_body: bool) -> Answer {
        let end = loop {
            match self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.fill(),
            }
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let status = head["HTTP/1.1 ".len()..][..3].parse().unwrap();
        let length = head.split("\r\n").find_map(|line| line.strip_prefix("Content-Length: "));
        let length = if with_body { length.map_or(0, |digits| digits.parse().unwrap()) } else { 0 };
        while self.buffer.len() < length {
            self.fill();
        }
        Answer { status, head, body: self.buffer.drain(..length).collect() }
    }

    /// Waits for exactly these bytes.
    #[track_caller]
    fn expect(&mut self, bytes: &[u8]) {
        while self.buffer != bytes {
            self.fill();
        }
        self.buffer.clear();
    }

    #[track_caller]
    fn fill(&mut self) {
        let mut step = [0; 16 * 1024];
        let count = self.socket.read(&mut step).unwrap();
        assert!(count > 0, "closed behind {:?}", String::from_utf8_lossy(&self.buffer));
        self.buffer.extend_from_slice(&step[..count]);
    }

    /// Everything up to an orderly close: a reset, as a socket with unread bytes sends it, is a failure.
    #[track_caller]
    fn rest(&mut self) -> String {
        self.socket.read_to_end(&mut self.buffer).unwrap();
        String::from_utf8(std::mem::take(&mut self.buffer)).unwrap()
    }

    /// Sends a byte every few milliseconds until an answer begins.
    fn drip(&mut self) {
        self.socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while self.socket.peek(&mut [0]).is_err() {
            assert!(Instant::now() < deadline, "nobody minds");
            self.send("a");
        }
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

fn post(path: &str, lines: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}")
}

const SECOND: &str = "GET /second HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn case_1_2_a_length_beyond_all_bounds_is_413_before_a_byte_of_it() {
    let served = serve(&settings());
    for length in ["30000000000", "18446744073709551615", "65537"] {
        let mut client = Client::of(served.address);
        let answer = client.send(post("/echo", &format!("Content-Length: {length}"), "")).answer();
        assert_eq!(answer.status, 413, "{length}");
        assert_eq!(client.rest(), "");
    }
}

#[test]
fn case_3_to_10_a_smuggled_second_request_never_runs() {
    let served = serve(&settings());
    let good = post("/echo", "Content-Length: 5", "hello");
    let mut client = Client::of(served.address);
    assert_eq!(client.send(good.clone() + SECOND).answer().body, b"hello");
    assert_eq!(client.answer().body, b"hello", "the second, which is the control of what follows");
    assert_eq!(served.app.ran(), ["/echo", "/second"]);

    for lines in [
        "Content-Length: abc",
        "Content-Length: -1",
        "Content-Length: +5",
        "Content-Length: 0x5",
        "Content-Length:",
        "Content-Length: 5, 5",
        "Content-Length: 5 5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\nContent-Length: 5",
        "X: y\rContent-Length: 5",
        "X: \0",
    ] {
        for body in ["hello", "0\r\n\r\n"] {
            let mut client = Client::of(served.address);
            let answer = client.send(post("/echo", lines, body) + SECOND).answer();
            assert_eq!((answer.status, client.rest().as_str()), (400, ""), "{lines:?}");
            assert!(answer.head.contains("X-App: yes\r\n"), "{}", answer.head);
            assert!(answer.head.contains("Connection: close\r\n"), "{}", answer.head);
        }
    }
    let http10 = "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(Client::of(served.address).send(http10.to_owned() + SECOND).answer().status, 400);
    assert_eq!(served.app.ran(), ["/echo", "/second"]);
    assert_eq!(served.counters.refused(), 31);
}

#[test]
fn case_11_chunked_bodies_arrive_whole_and_trailers_do_not() {
    let served = serve(&settings());
    let mut client = Client::of(served.address);
    let trailers = "Content-Length: 99\r\nHost: b\r\nAuthorization: Bearer x\r\n";
    let chunks = format!("5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\n{trailers}\r\n");
    client.send(post("/echo", "Transfer-Encoding: chunked", &chunks) + SECOND);
    assert_eq!(client.answer().body, b"hello!");
    assert_eq!(client.answer().body, b"hello");
    let endless = "0\r\n".to_owned() + &"a:\r\n".repeat(10_000) + "\r\n";
    client.send(post("/echo", "Transfer-Encoding: chunked", &endless));
    assert_eq!(client.answer().status, 400);
    let large = "4001\r\n".to_owned() + &"x".repeat(0x4001) + "\r\n";
    let mut client = Client::of(served.address);
    client.send(post("/echo", "Transfer-Encoding: chunked", &large.repeat(5)));
    assert_eq!(client.answer().status, 413);
}

#[test]
fn case_12_two_thousand_prefaces_of_http_2_leave_nothing_behind() {
    let served = serve(&settings());
    let started = Instant::now();
    for _ in 0..2_000 {
        let mut client = Client::of(served.address);
        assert!(client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").rest().starts_with("HTTP/1.1 505 "));
    }
    assert!(started.elapsed() < 2_000 * Duration::from_millis(100));
    wait_until("all are gone", || served.server.connections() == 0);
}

#[test]
fn case_14_random_bytes_are_refused_or_cut_off() {
    let served = serve(&settings());
    let mut random = Xorshift::new(4);
    let noise: Vec<u8> = (0..1024 * 1024).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
    let mut client = Client::of(served.address);
    // The server may hang up before it has all of them.
    drop(client.socket.write_all(&noise));
    let mut answer = Vec::new();
    drop(client.socket.read_to_end(&mut answer));
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "));
    wait_until("it is gone", || served.server.connections() == 0);
    assert_eq!(served.counters.refused(), 1);
    assert_eq!(Client::of(served.address).get("/").answer().status, 200);
}

#[test]
fn case_16_connect_and_trace_are_not_allowed_and_say_what_is() {
    let served = serve(&settings());
    for line in ["CONNECT host:443", "TRACE /"] {
        let answer = Client::of(served.address).send(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n")).answer();
        assert_eq!(answer.status, 405);
        assert!(answer.head.contains("Allow: GET, "), "{}", answer.head);
    }
    let mut client = Client::of(served.address);
    assert_eq!(client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200);
    assert_eq!(served.app.ran(), ["*"]);
}

#[test]
fn case_17_pipelined_requests_are_served_one_at_a_time_and_nobody_else_waits() {
    let served = serve(&settings());
    let mut client = Client::of(served.address);
    client.send(format!("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n{}", SECOND.repeat(40)));
    wait_until("the first is being served", || served.app.ran() == ["/hold"]);
    assert_eq!(Client::of(served.address).get("/other").answer().status, 200);
    assert_eq!(served.app.ran(), ["/hold", "/other"]);
    served.app.release.0.send(()).unwrap();
    assert_eq!(client.answer().body, b"held");
    for _ in 0..40 {
        assert_eq!(client.answer().body, b"hello");
    }
    assert_eq!(served.app.ran().len(), 42);
}

#[test]
fn case_17_answers_nobody_reads_end_the_connection() {
    let served = serve_within(|deadlines| deadlines.write = Duration::from_millis(200));
    let mut client = Client::of(served.address);
    for _ in 0..100 {
        client.get("/big");
    }
    wait_until("it is cut off", || served.server.connections() == 0);
    assert!(served.app.ran().len() < 100);
}

#[test]
fn a_large_answer_may_take_longer_than_the_write_deadline_while_it_moves() {
    let deadline = Duration::from_millis(500);
    let served = serve_within(|deadlines| deadlines.write = deadline);
    let mut client = Client::of(served.address);
    assert_eq!(client.get("/huge").answer_to(false).status, 200);
    let started = Instant::now();
    let (mut step, mut count) = (vec![0; 1024 * 1024], client.buffer.len());
    while count < HUGE {
        client.socket.read_exact(&mut step[..(HUGE - count).min(1024 * 1024)]).unwrap();
        count += step.len().min(HUGE - count);
        // A slow line: this pause is what is tested, nothing waits for it.
        std::thread::park_timeout(deadline / 10);
    }
    assert!(started.elapsed() > deadline * 2);
    client.buffer.clear();
    assert_eq!(client.get("/").answer().body, b"hello");
}

#[test]
fn case_18_an_endless_header_is_431_at_once() {
    let served = serve(&settings());
    let mut client = Client::of(served.address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ").send("x".repeat(20 * 1024));
    assert_eq!(client.answer().status, 431);
    let endless = std::iter::repeat_with(|| client.socket.write_all(&[b'x'; 16 * 1024]));
    assert!(endless.take(12_800).any(|written| written.is_err()), "200 MB were taken");
}

#[test]
fn case_19_a_body_is_invited_when_it_is_asked_for() {
    let served = serve_within(|deadlines| deadlines.body_idle = Duration::from_millis(200));
    let expecting = |path| post(path, "Content-Length: 5\r\nExpect: 100-continue", "");
    let mut client = Client::of(served.address);
    assert_eq!(client.send(expecting("/echo")).answer().status, 100);
    assert_eq!(client.send("hello").answer().body, b"hello");
    client.send(post("/echo", "Content-Length: 5000\r\nExpect: 100-continue", ""));
    assert_eq!(client.answer().status, 100);
    assert_eq!(
        client.send("x".repeat(5000)).answer().status,
        200,
        "a body that takes several reads is invited once"
    );
    assert_eq!(client.send(expecting("/unread")).answer().status, 401, "nobody asked for it");
    assert_eq!(client.rest(), "");

    let mut client = Client::of(served.address);
    assert_eq!(client.send(expecting("/echo")).answer().status, 100);
    assert_eq!(client.answer().status, 408, "the body never came");
    assert_eq!(client.rest(), "");

    let mut client = Client::of(served.address);
    client.send(expecting("/echo") + "he");
    wait_until("it came along", || served.app.ran().len() == 5);
    assert_eq!(client.send("llo").answer().status, 200);
    assert_eq!(client.send(post("/echo", "Expect: the-unexpected", "")).answer().status, 417);
    assert_eq!(client.rest(), "");

    let mut client = Client::of(served.address);
    client.send("POST /echo HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer().status, 408, "1.0 knows no interim answers");
}

#[test]
fn case_20_a_head_byte_by_byte_is_408_after_the_deadline_and_costs_nobody_else() {
    let head = Duration::from_millis(300);
    let served = serve_within(|deadlines| deadlines.head = head);
    let slow = || {
        let mut client = Client::of(served.address);
        let started = Instant::now();
        client.send("GET / HTTP/1.1\r\nX: ").drip();
        assert!(client.rest().starts_with("HTTP/1.1 408 "));
        assert!(started.elapsed() >= head);
    };
    std::thread::scope(|scope| {
        let slowloris: Vec<_> = (0..100).map(|_| scope.spawn(slow)).collect();
        wait_until("some are there", || served.server.connections() > 50);
        assert_eq!(Client::of(served.address).get("/").answer().status, 200);
        for thread in slowloris {
            thread.join().unwrap();
        }
    });
    wait_until("all are gone", || served.server.connections() == 0);
}

#[test]
fn case_20_a_connection_without_a_request_is_closed_without_a_word() {
    let served = serve_within(|deadlines| deadlines.idle = Duration::from_millis(100));
    assert_eq!(Client::of(served.address).rest(), "");
    let mut client = Client::of(served.address);
    assert_eq!(client.get("/").answer().status, 200);
    assert_eq!(client.rest(), "");
    assert_eq!(served.counters.refused(), 0);
}

#[test]
fn case_21_a_body_that_stops_is_408() {
    let served = serve_within(|deadlines| deadlines.body_idle = Duration::from_millis(200));
    let mut client = Client::of(served.address);
    let answer = client.send(post("/echo", "Content-Length: 2000", "0123456789")).answer();
    assert_eq!((answer.status, client.rest().as_str()), (408, ""));
    assert!(
        String::from_utf8(answer.body).unwrap().starts_with("/echo: "),
        "the application knows whom it refuses"
    );
}

#[test]
fn case_21_a_body_that_trickles_is_408_after_its_total() {
    let served = serve_within(|deadlines| deadlines.body_total = Duration::from_millis(300));
    let mut client = Client::of(served.address);
    client.send(post("/echo", "Content-Length: 2000", "")).drip();
    assert_eq!(client.answer().status, 408);
}

#[test]
fn a_body_that_ends_early_is_no_body() {
    let served = serve(&settings());
    for (lines, body) in [("Content-Length: 6", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n")] {
        let mut client = Client::of(served.address);
        client.send(post("/echo", lines, body)).socket.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.answer().status, 400);
    }
}

#[test]
fn case_22_an_unread_body_is_thrown_away_behind_the_answer() {
    let served = serve(&settings());
    let mut client = Client::of(served.address);
    let body = SECOND.repeat(1_000);
    let answer = client.send(post("/unread", &format!("Content-Length: {}", body.len()), &body)).answer();
    assert_eq!((answer.status, answer.body.as_slice()), (401, &b"who are you?"[..]));
    assert_eq!(client.rest(), "");
    assert_eq!(served.app.ran(), ["/unread"]);
}

#[test]
fn case_22_what_is_thrown_away_is_bounded_in_bytes_and_in_time() {
    let served = serve_within(|deadlines| deadlines.discard = PATIENCE * 10);
    let mut client = Client::of(served.address);
    client.send(post("/unread", "Content-Length: 1000000", "")).answer();
    let flood = std::iter::repeat_with(|| client.socket.write_all(&[b'x'; 1024]));
    assert!(flood.take(1_000_000).any(|written| written.is_err()), "a flood is taken");
    wait_until("it is gone", || served.server.connections() == 0);

    let served = serve_within(|deadlines| deadlines.discard = Duration::from_millis(100));
    let mut client = Client::of(served.address);
    client.send(post("/unread", "Content-Length: 1000000", "")).answer();
    wait_until("a silent client is gone", || served.server.connections() == 0);
}

#[test]
fn case_23_twenty_connections_of_one_browser_are_all_answered() {
    let served = serve(&settings());
    let together = Barrier::new(20);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let mut client = Client::of(served.address);
                together.wait();
                let started = Instant::now();
                for _ in 0..3 {
                    assert_eq!(client.get("/").answer().body, b"hello");
                }
                // 200 ms on a quiet machine; builds run beside this one.
                assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
                // Nobody leaves before all were answered.
                together.wait();
            });
        }
    });
    assert_eq!(served.counters.accepted(), 20);
}

#[test]
fn case_24_an_address_has_so_many_connections_and_gets_them_back() {
    let mut settings = Settings { per_address: 3, ..settings() };
    let served = serve(&settings);
    let mut inside: Vec<_> = (0..3).map(|_| Client::of(served.address)).collect();
    for client in &mut inside {
        assert_eq!(client.get("/").answer().status, 200);
    }
    let answer = Client::of(served.address).answer();
    assert_eq!(answer.status, 429);
    assert!(answer.head.contains("X-App: yes\r\n"), "{}", answer.head);
    assert_eq!(inside[0].get("/").answer().status, 200, "those inside do not notice");
    let left = Instant::now();
    inside.pop();
    wait_until("a seat is free", || served.server.connections() == 2);
    assert_eq!(Client::of(served.address).get("/").answer().status, 200);
    assert!(left.elapsed() < Duration::from_secs(1));
    assert_eq!((served.counters.accepted(), served.counters.refused()), (4, 1));

    settings.trusted_peers = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let served = serve(&settings);
    let mut inside: Vec<_> = (0..5).map(|_| Client::of(served.address)).collect();
    for client in &mut inside {
        assert_eq!(client.get("/").answer().status, 200, "a trusted peer stands for many");
    }
}

#[test]
fn case_24_beyond_all_connections_is_503() {
    let served = serve(&Settings { connections: 3, ..settings() });
    let inside: Vec<_> = (0..3).map(|_| Client::of(served.address)).collect();
    assert_eq!(Client::of(served.address).answer().status, 503);
    drop(inside);
    wait_until("they left", || served.server.connections() == 0);
    assert_eq!(Client::of(served.address).get("/").answer().status, 200);
}

#[test]
fn case_27_an_upgrade_nobody_offered_is_a_normal_request() {
    let served = serve(&settings());
    let mut client = Client::of(served.address);
    client.send(post("/echo", "Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5", "hello"));
    assert_eq!(client.answer().body, b"hello");
    assert_eq!(client.get("/peer").answer().body, b"127.0.0.1 false");
}

#[test]
fn http_1_0_is_answered_once_and_without_chunks() {
    let served = serve(&settings());
    let mut client = Client::of(served.address);
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").send(SECOND);
    let text = client.rest();
    assert!(text.ends_with("Content-Length: 5\r\nConnection: close\r\n\r\nhello"), "{text}");
    let text = Client::of(served.address).send("GET /stream/short HTTP/1.0\r\n\r\n").rest();
    assert!(text.ends_with("Connection: close\r\n\r\nonetwo"), "{text}");
    assert!(!text.contains("chunked"), "{text}");
}

#[test]
fn head_says_what_get_would_and_sends_no_body() {
    let served = serve(&settings());
    let mut client = Client::of(served.address);
    for path in ["/", "/stream/short", "/none"] {
        let got = client.get(path).answer_to(false);
        client.buffer.clear();
        let mut other = Client::of(served.address);
        let head = other.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n")).answer_to(false);
        assert_eq!(got.head, head.head);
        assert_eq!(other.get("/").answer().status, 200, "the next answer follows at once");
        client = other;
    }
}

#[test]
fn no_content_has_no_content() {
    let served = serve(&settings());
    let mut client = Client::of(served.address);
    let answer = client.get("/none").answer();
    assert_eq!((answer.status, answer.head.contains("Content-Length")), (204, false));
    assert_eq!(client.get("/").answer().body, b"hello");
}

#[test]
fn a_stream_sends_each_write_as_one_chunk_at_once_and_the_connection_goes_on() {
    let served = serve(&settings());
    let mut client = Client::of(served.address);
    assert!(client.get("/stream/held").answer().head.contains("Transfer-Encoding: chunked\r\n"));
    client.expect(b"3\r\none\r\n");
    served.app.release.0.send(()).unwrap();
    client.expect(b"3\r\ntwo\r\n0\r\n\r\n");
    client.get("/stream/short").answer();
    client.expect(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n");
    assert_eq!(client.get("/").answer().body, b"hello");
}

#[test]
fn a_stream_that_breaks_off_does_not_look_complete() {
    let served = serve(&settings());
    for path in ["/stream/panic", "/stream/fail"] {
        let mut client = Client::of(served.address);
        client.get(path).answer();
        assert_eq!(client.rest(), "3\r\none\r\n", "{path}");
    }
    assert_eq!(served.counters.panics(), 1);
    assert_eq!(Client::of(served.address).get("/").answer().status, 200);
}

#[test]
fn a_quiet_stream_notices_that_its_peer_has_gone() {
    let served = serve(&settings());
    let mut client = Client::of(served.address);
    client.get("/stream/quiet").answer();
    client.expect(b"3\r\none\r\n");
    drop(client);
    served.app.ended.1.recv_timeout(PATIENCE).unwrap().expect("it was there at first");
    wait_until("it is gone", || served.server.connections() == 0);
}

#[test]
fn a_stream_nobody_reads_ends_at_the_write_deadline() {
    let deadline = Duration::from_millis(200);
    let served = serve_within(|deadlines| deadlines.write = deadline);
    let mut client = Client::of(served.address);
    let started = Instant::now();
    client.get("/stream/endless").answer();
    let ended = served.app.ended.1.recv_timeout(PATIENCE).unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(started.elapsed() >= deadline);
    wait_until("it is gone", || served.server.connections() == 0);
}

#[test]
fn another_thread_can_end_a_stream_in_the_middle_of_a_write() {
    let served = serve(&settings());
    let mut client = Client::of(served.address);
    client.get("/stream/endless").answer();
    let shutdown = served.app.shutdowns.1.recv_timeout(PATIENCE).unwrap();
    let started = Instant::now();
    shutdown.shut();
    assert!(served.app.ended.1.recv_timeout(PATIENCE).unwrap().is_err());
    assert!(started.elapsed() < settings().deadlines.write / 2);
    wait_until("it is gone, though its handle is not", || served.server.connections() == 0);
    shutdown.shut();
}

#[test]
fn case_112_a_panic_is_one_500_and_costs_nobody_else() {
    let served = serve(&settings());
    let mut other = Client::of(served.address);
    assert_eq!(other.get("/").answer().status, 200);
    let mut client = Client::of(served.address);
    let answer = client.get("/panic").answer();
    assert_eq!(answer.status, 500);
    assert!(String::from_utf8(answer.body).unwrap().starts_with("/panic: "));
    assert_eq!(client.rest(), "");
    assert_eq!(served.counters.panics(), 1);
    assert_eq!(other.get("/").answer().status, 200);

    served.app.refuse_panics.store(true, Ordering::Relaxed);
    let answer = Client::of(served.address).get("/panic").answer();
    assert_eq!((answer.status, answer.body.len(), served.counters.panics()), (500, 0, 3));
}

#[test]
fn stopping_ends_the_idle_at_once_and_lets_the_running_finish() {
    let Served { server, address, app, counters } = serve_within(|deadlines| deadlines.idle = PATIENCE * 10);
    let mut idle = Client::of(address);
    assert_eq!(idle.get("/").answer().status, 200);
    let mut running = Client::of(address);
    running.get("/hold");
    wait_until("it runs", || app.ran().len() == 2);
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| server.close(PATIENCE * 10));
        assert_eq!(idle.rest(), "");
        assert!(TcpStream::connect(address).is_err(), "nobody listens");
        wait_until("only the running one is left", || counters.connections() == 1);
        app.release.0.send(()).unwrap();
        let answer = running.answer();
        assert_eq!((answer.status, running.rest().as_str()), (200, ""));
        assert!(answer.head.contains("Connection: close\r\n"), "{}", answer.head);
        drop(running);
        closing.join().unwrap();
    });
    assert_eq!(counters.connections(), 0);
}

#[test]
fn stopping_shuts_what_is_still_open_when_the_grace_is_over() {
    let Served { server, address, app, counters } = serve(&settings());
    let mut stuck = Client::of(address);
    stuck.send(post("/echo", "Content-Length: 5", "he"));
    wait_until("it runs", || app.ran().len() == 1);
    let grace = Duration::from_millis(100);
    let started = Instant::now();
    server.close(grace);
    assert!(started.elapsed() >= grace);
    assert_eq!(counters.connections(), 0);
}

#[test]
fn connections_outlive_the_listening() {
    let Served { mut server, address, .. } = serve(&settings());
    let mut client = Client::of(address);
    assert_eq!(client.get("/").answer().status, 200);
    server.stop_accepting();
    assert!(TcpStream::connect(address).is_err());
    assert_eq!(client.get("/").answer().status, 200);
    // The port is free for the next process.
    assert!(Bound::bind(&Settings { listen: vec![address], ..settings() }).is_ok());
}

#[test]
fn one_port_serves_both_families() {
    let both =
        Settings { listen: vec!["0.0.0.0:0".parse().unwrap(), "[::]:0".parse().unwrap()], ..settings() };
    if Bound::bind(&Settings { listen: vec![both.listen[1]], ..settings() }).is_err() {
        return; // A machine without IPv6.
    }
    let bound = Bound::bind(&both).unwrap();
    let addresses = bound.addresses();
    assert_eq!(addresses[0].port(), addresses[1].port());
    let server = bound.serve(App::new()).unwrap();
    for loopback in ["127.0.0.1", "::1"] {
        let address = SocketAddr::new(loopback.parse().unwrap(), addresses[0].port());
        let answer = Client::of(address).get("/peer").answer();
        assert_eq!(String::from_utf8(answer.body).unwrap(), format!("{loopback} false"));
    }
    drop(server);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let first = Bound::bind(&settings()).unwrap();
    let taken = first.addresses()[0];
    let error = Bound::bind(&Settings { listen: vec![taken], ..settings() }).unwrap_err();
    assert_eq!(error.address, taken);
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
}

#[test]
fn a_client_that_sends_nothing_more_is_seen_also_behind_a_body_that_nobody_has_read() {
    let served = serve(&settings());
    let mut client = Client::of(served.address);
    client.send(post("/ended", "Content-Length: 4", "body"));
    served.app.ended.1.recv_timeout(PATIENCE).unwrap().unwrap();
    client.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.answer().body, b"first false");
}
