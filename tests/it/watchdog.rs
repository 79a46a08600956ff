//! What a service manager hears, over a socket such as systemd makes; and threads that are really stuck.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::unistd::Pid;
use serde_json::json;

use crate::harness::image::unique;
use crate::harness::{Server, eventually};

const SOON: Duration = Duration::from_secs(20);
/// The manager's time; a thread is stuck after four of them.
const WATCHDOG: Duration = Duration::from_millis(900);

/// The manager's side of the socket.
struct Heard(UnixDatagram);

impl Heard {
    /// A server that is not started yet, with a manager that listens.
    fn with(config: &str) -> (Server, Heard) {
        let mut server = Server::prepare(config);
        let path = server.dir.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        server.env = vec![
            ("NOTIFY_SOCKET", path.display().to_string()),
            ("WATCHDOG_USEC", WATCHDOG.as_micros().to_string()),
        ];
        (server, Heard(socket))
    }

    /// The next message, if there is one within the time.
    fn next(&self, within: Duration) -> Option<String> {
        let mut message = [0; 4096];
        self.0.set_read_timeout(Some(within)).unwrap();
        let length = self.0.recv(&mut message).ok()?;
        Some(String::from_utf8(message[..length].to_vec()).unwrap())
    }

    fn until(&self, line: &str) -> String {
        eventually(line, SOON, || {
            let message = self.next(SOON).unwrap_or_default();
            if message.lines().any(|it| it.starts_with(line)) { Ok(message) } else { Err(message) }
        })
    }

    /// Whether nothing comes for longer than systemd would wait.
    fn falls_silent(&self, within: Duration) -> Duration {
        let began = Instant::now();
        let mut last = began;
        loop {
            match self.next(WATCHDOG) {
                Some(message) => assert!(!message.contains("STOPPING"), "{message}"),
                None => return last - began,
            }
            last = Instant::now();
            assert!(began.elapsed() < within, "it goes on feeding");
        }
    }
}

/// Stops one thread as if it hung; it goes on when this is dropped.
struct Frozen(Pid);

impl Frozen {
    fn thread(server: &Server, name: &str) -> Frozen {
        let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
        let task = tasks
            .map(|task| task.unwrap().path())
            .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name))
            .unwrap_or_else(|| panic!("there is a thread {name}"));
        let thread = Pid::from_raw(task.file_name().unwrap().to_str().unwrap().parse().unwrap());
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        eventually("it stands still", SOON, || {
            let stat = fs::read_to_string(task.join("stat")).unwrap();
            if stat.contains(") t ") { Ok(()) } else { Err(stat) }
        });
        Frozen(thread)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // It also goes on when the test's own thread ends.
        let _ = ptrace::detach(self.0, None);
    }
}

#[test]
fn it_is_ready_when_it_answers_feeds_the_watchdog_and_says_when_it_stops() {
    let (mut server, heard) = Heard::with("");
    server.run();
    let ready = heard.next(SOON).expect("the first word");
    assert!(
        ready.starts_with("READY=1\nWATCHDOG=1\nSTATUS=0 of 0 projects running, 0 event streams"),
        "{ready}"
    );
    server.client().get("/healthz").ok(200);
    let began = Instant::now();
    let mut words = (0..9).fold(ready, |words, _| words + "\n" + &heard.until("WATCHDOG=1"));
    let took = began.elapsed();
    assert!(took > WATCHDOG * 2 && took < WATCHDOG * 6, "three in a watchdog's time: {took:?}");
    // Told once, when it changed.
    while !words.contains(", Docker 2") {
        words += &heard.until("STATUS=");
    }
    assert_eq!(words.matches(", Docker 2").count(), 1, "{words}");
    assert_eq!(server.terminate(), Some(0));
    heard.until("STOPPING=1");
    assert_eq!(heard.next(Duration::from_millis(1)), None, "its last word");
}

#[test]
fn one_that_cannot_listen_never_says_that_it_is_ready() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (server, heard) = Heard::with(&format!("[api]\nlisten = \"{address}\"\n"));
    let (code, said) = server.command(&["serve"], "");
    assert_eq!(code, 1, "{said}");
    assert_eq!(heard.next(Duration::from_millis(1)), None);
}

#[test]
fn an_abstract_socket_is_told() {
    let name = unique("muelle-notify");
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let heard = Heard(UnixDatagram::bind_addr(&address).unwrap());
    let mut server = Server::prepare("");
    server.env = vec![("NOTIFY_SOCKET", format!("@{name}"))];
    server.run();
    heard.until("READY=1");
    assert_eq!(server.terminate(), Some(0));
    heard.until("STOPPING=1");
}

#[test]
fn case_113_a_stuck_supervisor_ends_the_feeding_and_its_return_resumes_it() {
    let (mut server, heard) = Heard::with("");
    server.run();
    heard.until("READY=1");
    let frozen = Frozen::thread(&server, "supervisor");
    let fed = heard.falls_silent(WATCHDOG * 8);
    assert!(fed > WATCHDOG * 3, "not before it has been silent for four times the watchdog: {fed:?}");
    let health = server.client().get("/healthz");
    assert_eq!((health.status, &health.body["thread"]), (500, &json!("supervisor")), "{health:?}");
    assert!(server.log().contains("stuck"), "{}", server.log());
    drop(frozen);
    heard.until("WATCHDOG=1");
    server.client().get("/healthz").ok(200);
}

#[test]
fn case_113_a_stuck_store_ends_the_feeding() {
    let (mut server, heard) = Heard::with("");
    server.run();
    heard.until("READY=1");
    let frozen = Frozen::thread(&server, "store");
    heard.falls_silent(WATCHDOG * 8);
    assert_eq!(server.client().get("/healthz").body["thread"], "store");
    drop(frozen);
}

#[test]
fn case_113_a_stuck_worker_ends_the_feeding_though_others_go_on() {
    let (mut server, heard) = Heard::with("");
    server.run();
    heard.until("READY=1");
    let ana = server.client().register("ana");
    // The worker waits for its commit, as long as the file is somebody else's.
    let mut db = rusqlite::Connection::open(server.data().join("muelle.db")).unwrap();
    let held = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let waiting = ana.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || waiting.try_send("POST", "/api/auth/logout", &json!({})));
        eventually("a worker has work", SOON, || {
            let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
            let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
            let names: Vec<String> = names.collect();
            if names.iter().any(|name| name.trim() == "api-1") { Ok(()) } else { Err(names) }
        });
        let frozen = Frozen::thread(&server, "api-1");
        drop(held);
        server.client().get("/healthz").ok(200);
        heard.falls_silent(WATCHDOG * 8);
        let health = server.client().get("/healthz");
        assert_eq!((health.status, &health.body["thread"]), (500, &json!("api-1")), "{health:?}");
        drop(frozen);
    });
    heard.until("WATCHDOG=1");
}

#[test]
fn case_113_a_front_that_does_not_accept_ends_the_feeding() {
    let (mut server, heard) = Heard::with("");
    server.run();
    heard.until("READY=1");
    let frozen = Frozen::thread(&server, "accept-api");
    let fed = heard.falls_silent(WATCHDOG * 8);
    assert!(fed > WATCHDOG * 3, "{fed:?}");
    drop(frozen);
    heard.until("WATCHDOG=1");
}

#[test]
fn case_113_neither_taken_connections_nor_a_dead_engine_end_the_feeding() {
    let (mut server, heard) = Heard::with(
        "[docker]\nsocket = \"nothing-here.sock\"\n[limits]\nconnections = 8\nstreams = 8\nper_address = 8\n",
    );
    server.run();
    heard.until("READY=1");
    let address = server.base.strip_prefix("http://").unwrap().to_owned();
    let began = Instant::now();
    let mut strangers = Vec::new();
    let mut refused = 0;
    // Longer than a stuck thread has; new ones come as soon as an idle one is hung up on.
    while began.elapsed() < WATCHDOG * 6 {
        // A feeding that ends is silent for ever; one on a machine that is busy otherwise may be late.
        assert!(heard.next(WATCHDOG * 3).is_some(), "it is not fed: {}", server.log());
        while strangers.len() < 16 {
            strangers.push(TcpStream::connect(&address).unwrap());
        }
        let mut status = [0; 12];
        let last: &mut TcpStream = strangers.last_mut().unwrap();
        last.set_read_timeout(Some(WATCHDOG)).unwrap();
        refused += usize::from(last.read_exact(&mut status).is_ok() && status == *b"HTTP/1.1 503");
        strangers.drain(..8);
    }
    assert!(refused > 3, "strangers had all places: {refused}");
    heard.until("WATCHDOG=1");
}
