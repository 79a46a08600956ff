//! The way of a request through the front to an app and back, with an app that records every byte and says what the test wants.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::forward::{Failed, Origin, forward};
use super::upstream::{Patience, Pool};
use super::{closed_at, page, unanswered};
use crate::domain::Sum;
use crate::http::{self, Bound, Handler, Head, Refusal, Request, Response};
use crate::limits;
use crate::runtime::Gate;
use crate::threads::spawn;

const PATIENCE: Duration = Duration::from_secs(10);

/// The proxy with one project, which is always open.
struct Door {
    gate: Arc<Gate>,
    pool: Arc<Pool>,
    is_trusted: bool,
}

impl Handler for Door {
    fn handle(&self, request: &mut Request<'_>) -> Response {
        let Some(pass) = self.gate.enter() else { return closed_at() };
        let origin = Origin {
            peer: request.peer().ip(),
            is_trusted: self.is_trusted,
            is_person: true,
            scheme: "http",
        };
        match forward(request, pass, &self.pool, &origin) {
            Ok(response) => response,
            Err(Failed::Client(refusal)) => self.refuse(&refusal, None),
            Err(Failed::App(error)) => unanswered(&error),
        }
    }

    fn refuse(&self, refusal: &Refusal, _: Option<&Head>) -> Response {
        page(refusal.status(), &refusal.to_string())
    }
}

/// Everything that arrived at the app, one entry per connection.
type Record = Arc<Mutex<Vec<Vec<u8>>>>;

/// The proxy before an app.
struct Rig {
    server: http::Server,
    address: SocketAddr,
    gate: Arc<Gate>,
    seen: Record,
}

impl Rig {
    /// With an app that answers each request on a connection with the next of these, again from the first on each new connection, and then
    /// closes it.
    fn new(answers: &[&[u8]]) -> Rig {
        Rig::with(answers, false)
    }

    fn with(answers: &[&[u8]], is_trusted: bool) -> Rig {
        Rig::waiting(answers, is_trusted, Patience::default())
    }

    fn waiting(answers: &[&[u8]], is_trusted: bool, patience: Patience) -> Rig {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let app = listener.local_addr().unwrap();
        let seen: Record = Arc::default();
        let (record, answers) = (Arc::clone(&seen), answers.iter().map(|it| it.to_vec()).collect::<Vec<_>>());
        spawn("app", 256 * 1024, move || {
            for stream in listener.incoming() {
                let (record, answers) = (Arc::clone(&record), answers.clone());
                spawn("app-conn", 256 * 1024, move || serve(&stream.unwrap(), &record, &answers))
                    .unwrap()
                    .detach();
            }
        })
        .unwrap()
        .detach();
        let gate = Arc::new(Gate::default());
        gate.set(Some(app));
        let settings = http::Settings {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            connections: 64,
            per_address: 64,
            trusted_peers: Vec::new(),
            name: "apps",
            deadlines: http::Deadlines::default(),
        };
        let bound = Bound::bind(&settings).unwrap();
        let address = bound.addresses()[0];
        let door = Door { gate: Arc::clone(&gate), pool: Arc::new(Pool::new(patience)), is_trusted };
        let server = bound.serve(Arc::new(door)).unwrap();
        Rig { server, address, gate, seen }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Sends these bytes on a connection of their own; gives all that comes until it closes.
    fn say(&self, bytes: &[u8]) -> String {
        let mut socket = self.connect();
        socket.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        drop(socket.read_to_end(&mut answer));
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A GET whose connection closes behind it.
    fn get(&self, headers: &str) -> String {
        self.say(
            format!("GET /x HTTP/1.1\r\nHost: shop.ana.localhost:8080\r\nConnection: close\r\n{headers}\r\n")
                .as_bytes(),
        )
    }

    /// What the app got on its connections.
    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    fn inside(&self) -> u32 {
        self.gate.passing(Instant::now()).map_or(0, |it| it.inside.requests + it.inside.tunnels)
    }

    #[track_caller]
    fn await_calm(&self) {
        let end = Instant::now() + PATIENCE;
        while self.inside() > 0 || self.server.connections() > 0 {
            assert!(
                Instant::now() < end,
                "{} inside, {} connected",
                self.inside(),
                self.server.connections()
            );
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// One connection of the app.
fn serve(mut stream: &TcpStream, record: &Record, answers: &[Vec<u8>]) {
    let at = {
        let mut record = record.lock().unwrap();
        record.push(Vec::new());
        record.len() - 1
    };
    for answer in answers {
        let (mut request, mut step) = (Vec::new(), [0; 4096]);
        while !is_whole(&request) {
            match stream.read(&mut step) {
                Ok(count) if count > 0 => {
                    request.extend_from_slice(&step[..count]);
                    record.lock().unwrap()[at].extend_from_slice(&step[..count]);
                }
                _ => return,
            }
        }
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

/// Whether these bytes end with a request's end, as far as these tests send such.
fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
    match length {
        Some(length) => body.len() >= length,
        None if head.contains("Transfer-Encoding: chunked") => body.ends_with("0\r\n\r\n"),
        None => true,
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_request_goes_to_the_app_and_its_answer_comes_back() {
    let rig = Rig::new(&[b"HTTP/1.1 201 Created\r\nX-App: caf\xe9\r\nContent-Length: 5\r\n\r\nhello"]);
    let answer = rig.get("Accept: */*\r\n");
    assert!(answer.starts_with("HTTP/1.1 201 Created\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert!(answer.contains("Content-Length: 5\r\n"), "{answer}");
    let seen = rig.seen().remove(0);
    assert!(
        seen.starts_with("GET /x HTTP/1.1\r\nHost: shop.ana.localhost:8080\r\nAccept: */*\r\n"),
        "{seen}"
    );
    rig.await_calm();
    let traffic = rig.gate.meter.read();
    assert_eq!(
        (traffic.get(Sum::REQUESTS), traffic.get(Sum::BYTES_OUT), traffic.classes()),
        (1, 5, [0, 1, 0, 0, 0])
    );
    assert!(traffic.last.is_some());
}

#[test]
fn case_122_129_the_app_gets_exactly_one_well_framed_request_or_none() {
    let rig = Rig::new(&[OK]);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for lines in [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: +5",
        "Content-Length: 5, 5",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "A: b\r\n Transfer-Encoding: chunked",
        "A: b\nTransfer-Encoding: chunked",
        "A: b\rc",
        "A\0: b",
        "Host: b",
    ] {
        let answer =
            rig.say(format!("POST /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n0\r\n\r\n{smuggled}").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{lines:?}: {answer}");
    }
    assert_eq!(rig.seen(), Vec::<String>::new(), "nothing of that gets through");
    let chunked = format!(
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5;x=y\r\nhello\r\n0\r\nHost: b\r\nX-Trailer: 1\r\n\r\n{smuggled}"
    );
    assert!(rig.say(chunked.as_bytes()).starts_with("HTTP/1.1 200 "));
    let seen = rig.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].ends_with("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{}", seen[0]);
}

#[test]
fn case_123_what_ends_at_a_hop_ends_here_both_ways() {
    let rig = Rig::new(&[b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Secret\r\nKeep-Alive: timeout=5\r\nX-Secret: 1\r\nProxy-Authenticate: x\r\nTrailer: a\r\nUpgrade: h2c\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok"]);
    let answer = rig.get("Keep-Alive: 300\r\nProxy-Authorization: x\r\nProxy-Connection: x\r\nTE: trailers\r\nTrailer: a\r\nX-Kept: 1\r\n");
    let seen = rig.seen().remove(0);
    for hop in ["Keep-Alive", "Proxy-", "TE:", "Trailer", "Upgrade", "X-Secret", "Connection:"] {
        assert!(!seen.contains(hop), "{hop} in {seen}");
        assert!(hop == "Connection:" || !answer.contains(&format!("\r\n{hop}")), "{hop} in {answer}");
    }
    assert!(seen.contains("X-Kept: 1") && answer.contains("X-Kept: 1"));
    let named = rig.say(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\n\r\n");
    assert!(named.starts_with("HTTP/1.1 200") && !rig.seen()[1].contains("X-Mine"));
}

#[test]
fn case_124_what_a_client_says_about_itself_is_replaced() {
    let forged = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: admin\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nX_Forwarded_For: 1.2.3.4\r\nX.Forwarded.For: 1.2.3.4\r\n";
    let rig = Rig::new(&[OK]);
    rig.get(forged);
    let seen = rig.seen().remove(0);
    assert!(!seen.contains("1.2.3.4") && !seen.contains("admin") && !seen.contains("https"), "{seen}");
    for line in [
        "X-Forwarded-For: 127.0.0.1\r\n",
        "X-Forwarded-Proto: http\r\n",
        "X-Forwarded-Host: shop.ana.localhost:8080\r\n",
        "X-Real-IP: 127.0.0.1\r\n",
    ] {
        assert_eq!(seen.matches(line).count(), 1, "{line} in {seen}");
    }
    let trusted = Rig::with(&[OK], true);
    trusted.get(forged);
    let seen = trusted.seen().remove(0);
    assert!(
        seen.contains("X-Forwarded-For: 1.2.3.4, 127.0.0.1\r\n")
            && seen.contains("X-Forwarded-Proto: https\r\n"),
        "{seen}"
    );
    assert!(!seen.contains("X_Forwarded_For") && !seen.contains("X.Forwarded.For"), "{seen}");
}

#[test]
fn case_126_127_an_answer_that_makes_no_sense_is_a_502_and_interim_answers_are_read_over() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        b"hello",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
        b"",
    ] {
        let rig = Rig::new(&[answer]);
        assert!(rig.get("").starts_with("HTTP/1.1 502 "), "{}", String::from_utf8_lossy(answer));
        rig.await_calm();
    }
    let early = [&b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(8)[..], OK].concat();
    assert!(Rig::new(&[&early]).get("").starts_with("HTTP/1.1 200 OK\r\n"));
    let endless = [&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000)[..], OK].concat();
    assert!(Rig::new(&[&endless]).get("").starts_with("HTTP/1.1 502 "));
}

#[test]
fn an_answer_that_breaks_off_is_not_taken_for_complete() {
    let rig = Rig::new(&[b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"]);
    let mut socket = rig.connect();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // Fewer bytes than announced, and the connection is over.
    drop(socket.read_to_end(&mut answer));
    assert!(answer.ends_with(b"half"), "{}", String::from_utf8_lossy(&answer));
    let rig = Rig::new(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"]);
    let answer = rig.get("");
    assert!(answer.ends_with("4\r\nhalf\r\n"), "without its last chunk: {answer}");
    rig.await_calm();
}

#[test]
fn a_connection_to_the_app_is_used_again_and_a_stale_one_is_replaced_once() {
    let rig = Rig::new(&[OK, OK, OK]);
    for _ in 0..3 {
        assert!(rig.get("").ends_with("ok"));
    }
    assert_eq!(rig.seen().len(), 1, "one connection for three requests");
    // The app closes it behind the third; the fourth finds that out and asks on a new one.
    assert!(rig.get("").ends_with("ok"));
    assert_eq!(rig.seen().len(), 2);
    rig.await_calm();
}

#[test]
fn a_body_of_either_framing_arrives_whole_and_head_has_none() {
    let rig = Rig::new(&[OK]);
    let body = "x".repeat(100_000);
    let request = format!(
        "PUT /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert!(rig.say(request.as_bytes()).ends_with("ok"));
    assert!(rig.seen()[0].ends_with(&body));
    let expecting = rig.say(b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert!(expecting.starts_with("HTTP/1.1 100 Continue\r\n\r\n"), "{expecting}");
    let head = Rig::new(&[b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"]);
    let answer = head.say(b"HEAD /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.contains("Content-Length: 1000\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn a_small_answer_that_came_as_a_whole_leaves_as_a_whole_and_counts() {
    let rig = Rig::new(&[b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"]);
    for round in 1..=100 {
        let mut socket = rig.connect();
        socket.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
        let mut first = [0; 1024];
        let count = socket.read(&mut first).unwrap();
        assert!(first[..count].ends_with(b"\r\n\r\nhello"), "{}", String::from_utf8_lossy(&first[..count]));
        let traffic = rig.gate.meter.read();
        assert_eq!((traffic.get(Sum::REQUESTS), traffic.get(Sum::BYTES_OUT)), (round, 5 * round));
    }
}

#[test]
fn an_app_that_does_not_want_a_body_is_heard_before_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let rig = Rig::new(&[]);
    rig.gate.set(Some(listener.local_addr().unwrap()));
    let app = spawn("app", 64 * 1024, move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut step = [0; 1024];
        assert!(stream.read(&mut step).unwrap() > 0);
        stream
            .write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
            .unwrap();
        // Not closed before the proxy has heard it.
        drop(stream.read(&mut step));
        while stream.read(&mut step).is_ok_and(|count| count > 0) {}
    })
    .unwrap();
    let mut socket = rig.connect();
    socket.write_all(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let chunk = vec![b'x'; 64 * 1024];
    let end = Instant::now() + PATIENCE;
    while socket.write_all(&chunk).is_ok() && Instant::now() < end {}
    drop(socket.read_to_end(&mut answer));
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413 "), "{answer}");
    drop(socket);
    drop(app);
    rig.await_calm();
}

#[test]
fn case_130_a_websocket_becomes_a_tunnel_with_what_came_early() {
    let rig = Rig::new(&[
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly",
    ]);
    let mut socket = rig.connect();
    socket.write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\nfirst").unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n") && answer.ends_with("\r\n\r\nearly"),
        "{answer}"
    );
    assert!(
        answer.contains("Connection: Upgrade\r\n") && answer.contains("Upgrade: websocket\r\n"),
        "{answer}"
    );
    drop(socket);
    rig.await_calm();
    assert!(rig.seen()[0].contains("Upgrade: websocket\r\n"));
    let refused = Rig::new(&[OK]);
    let answer = refused
        .say(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "an app need not switch: {answer}");
    let unasked = Rig::new(&[b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"]);
    assert!(unasked.get("").starts_with("HTTP/1.1 502 "));
}

#[test]
fn case_137_a_cookie_is_for_its_own_host_only() {
    let rig = Rig::new(&[b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Domain=.example.com; Path=/; domain=x\r\nContent-Length: 0\r\n\r\n"]);
    let answer = rig.get("");
    assert!(answer.contains("Set-Cookie: a=b; Path=/\r\n"), "{answer}");
}

#[test]
fn case_139_a_request_tells_how_often_it_has_passed() {
    let rig = Rig::new(&[OK]);
    rig.get("Via: 1.0 other, 1.1 muelle\r\nVia: 1.1 muelle\r\n");
    assert!(rig.seen()[0].contains("Via: 1.0 other, 1.1 muelle, 1.1 muelle, 1.1 muelle\r\n"));
}

#[test]
fn case_138_where_an_app_leads_is_its_own_matter_and_its_address_is_in_no_header_of_ours() {
    let rig =
        Rig::new(&[b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"]);
    let answer = rig.get("");
    assert!(answer.contains("Location: http://127.0.0.1:9/\r\n"), "{answer}");
    let plain = Rig::new(&[OK]).get("");
    assert!(!plain.contains("127.0.0.1"), "{plain}");
}

/// What an app does with a connection: so many times a pause, and then these bytes.
type Script<'a> = &'a [(u32, Duration, &'a [u8])];

/// The proxy before an app that takes one request, does this, and then nothing until it is given up.
fn slow(patience: Patience, script: Script<'_>) -> Rig {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let rig = Rig::waiting(&[], false, patience);
    rig.gate.set(Some(listener.local_addr().unwrap()));
    let script: Vec<_> =
        script.iter().map(|(times, pause, bytes)| (*times, *pause, bytes.to_vec())).collect();
    let act = move || {
        let mut stream = listener.accept().unwrap().0;
        assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
        for (times, pause, bytes) in script {
            for _ in 0..times {
                std::thread::park_timeout(pause);
                if stream.write_all(&bytes).is_err() {
                    return;
                }
            }
        }
        drop(stream.read(&mut [0; 1]));
    };
    spawn("app", 256 * 1024, act).unwrap().detach();
    rig
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn case_125_an_app_that_does_not_begin_its_answer_in_time_is_a_504_however_busy_it_looks() {
    let patience = Patience { answer: millis(300), body: PATIENCE * 6 };
    let scripts: [Script<'_>; 4] = [
        &[],
        &[(1, millis(0), b"HTTP/1.1 200 OK\r\nContent-Le")],
        &[(1, millis(0), b"HTTP/1.1 200 OK\r\nA: "), (1000, millis(20), b"b")],
        &[(7, millis(80), b"HTTP/1.1 102 Processing\r\n\r\n")],
    ];
    for script in scripts {
        let (rig, began) = (slow(patience, script), Instant::now());
        let (answer, took) = (rig.get(""), began.elapsed());
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
        assert!(answer.ends_with("The app did not answer in time\n"), "{answer}");
        assert!(took >= patience.answer && took < PATIENCE / 2, "{took:?}");
        rig.await_calm();
    }
}

#[test]
fn case_125_a_body_may_take_longer_than_any_limit_while_bytes_come_and_ends_where_none_do() {
    let patience = Patience { answer: millis(300), body: millis(600) };
    let framings: [(&[u8], &[u8]); 3] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"tick"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\ntick\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"tick"),
    ];
    std::thread::scope(|threads| {
        for (head, piece) in framings {
            threads.spawn(move || {
                let rig = slow(patience, &[(1, millis(0), head), (8, millis(100), piece)]);
                let began = Instant::now();
                let (answer, took) = (rig.get(""), began.elapsed());
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
                assert_eq!(answer.matches("tick").count(), 8, "{answer}");
                assert!(!answer.contains("\r\n0\r\n"), "it is not said to be complete: {answer}");
                assert!(took >= millis(800) + patience.body && took < PATIENCE / 2, "{took:?}");
                rig.await_calm();
            });
        }
    });
}

#[test]
fn case_131_a_client_that_leaves_while_the_app_is_silent_is_missed_and_one_that_has_only_said_all_is_answered()
 {
    let patience = Patience { answer: PATIENCE * 6, body: PATIENCE * 6 };
    let stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    // Silent before its answer, and within.
    let silent: [Script<'_>; 2] = [&[], &[(1, millis(0), stream)]];
    let late: Script<'_> = &[(1, millis(2500), b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")];
    let request = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    std::thread::scope(|threads| {
        for script in silent {
            threads.spawn(move || {
                let rig = slow(patience, script);
                let mut socket = rig.connect();
                socket.write_all(request).unwrap();
                while rig.inside() == 0 {
                    std::thread::park_timeout(millis(5));
                }
                let left = Instant::now();
                drop(socket);
                while rig.inside() > 0 {
                    assert!(left.elapsed() < limits::PROXY_LEFT_MAX + PATIENCE, "it still waits for the app");
                    std::thread::park_timeout(millis(20));
                }
            });
        }
        threads.spawn(move || {
            let rig = slow(patience, late);
            let mut socket = rig.connect();
            socket.write_all(request).unwrap();
            socket.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).unwrap();
            assert!(answer.ends_with("late"), "{answer}");
        });
    });
}
