//! A unix listener that answers with given bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::docker::{API_NEWEST, ContainerId, Docker, Error, Timeouts};
use crate::domain::ContainerName;
use crate::limits;
use crate::threads;

/// What a call may take in these tests; the deadline of the real thing is 10 s.
pub(super) const LIMIT: Duration = Duration::from_millis(200);
/// By then a call that ends by its deadline has ended, on a busy machine too.
pub(super) const SOON: Duration = Duration::from_secs(5);

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\n";

/// Calls `answer` with each request line and the connection to write to; a connection ends when that says so.
pub(super) struct Listener {
    pub(super) socket: PathBuf,
    seen: Arc<Seen>,
    _accept: threads::Thread,
}

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    open: AtomicUsize,
    lines: Mutex<Vec<String>>,
}

pub(super) enum Then {
    KeepOpen,
    Close,
}

impl Listener {
    pub(super) fn new(answer: impl Fn(&str, &mut UnixStream) -> Then + Send + Sync + 'static) -> Listener {
        let socket = socket_path();
        let listener = UnixListener::bind(&socket).unwrap();
        let seen = Arc::new(Seen::default());
        let (answer, shared) = (Arc::new(answer), Arc::clone(&seen));
        let accept = threads::spawn("test-accept", limits::STACK_DEFAULT, move || {
            for stream in listener.incoming().map(Result::unwrap) {
                if shared.stop.load(Ordering::Acquire) {
                    return;
                }
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&shared));
                seen.open.fetch_add(1, Ordering::AcqRel);
                let serve = move || {
                    serve(stream, &seen, answer.as_ref());
                    seen.open.fetch_sub(1, Ordering::AcqRel);
                };
                threads::spawn("test-conn", limits::STACK_CONNECTION, serve).unwrap().detach();
            }
        });
        Listener { socket, seen, _accept: accept.unwrap() }
    }

    /// Sends the same bytes to every request and closes.
    pub(super) fn saying(bytes: &'static str) -> Listener {
        Listener::new(move |_, stream| {
            let _ = stream.write_all(bytes.as_bytes());
            Then::Close
        })
    }

    pub(super) fn client(&self) -> Docker {
        client(&self.socket)
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.seen.lines.lock().unwrap().clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::Release);
        UnixStream::connect(&self.socket).unwrap();
        std::fs::remove_file(&self.socket).unwrap();
    }
}

fn serve(mut stream: UnixStream, seen: &Seen, answer: &dyn Fn(&str, &mut UnixStream) -> Then) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut first, mut line, mut body, mut chunked) = (String::new(), String::new(), 0, false);
        while reader.read_line(&mut line).unwrap_or(0) > 0 && line != "\r\n" {
            if first.is_empty() {
                line.trim_end().clone_into(&mut first);
            }
            if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                body = length.trim().parse().unwrap();
            }
            chunked |= line.eq_ignore_ascii_case("transfer-encoding: chunked\r\n");
            line.clear();
        }
        if line.is_empty() {
            return;
        }
        reader.read_exact(&mut vec![0; body]).unwrap();
        if chunked && pass_over_chunks(&mut reader).is_none() {
            return;
        }
        seen.lines.lock().unwrap().push(first.clone());
        if matches!(answer(&first, &mut stream), Then::Close) {
            return;
        }
    }
}

fn pass_over_chunks(reader: &mut impl BufRead) -> Option<()> {
    loop {
        let mut size = String::new();
        reader.read_line(&mut size).ok()?;
        let size = u64::from_str_radix(size.trim_end(), 16).ok()?;
        std::io::copy(&mut reader.take(size + 2), &mut std::io::sink()).ok()?;
        if size == 0 {
            return Some(());
        }
    }
}

pub(super) fn socket_path() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("muelle-{}-{}.sock", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    std::env::temp_dir().join(name)
}

pub(super) fn client(socket: &std::path::Path) -> Docker {
    with_limit(socket, LIMIT)
}

pub(super) fn ample(socket: &std::path::Path) -> Docker {
    with_limit(socket, SOON)
}

fn with_limit(socket: &std::path::Path, limit: Duration) -> Docker {
    let timeouts = Timeouts {
        connect: limit,
        ping: limit,
        list: limit,
        call: limit,
        stop_margin: limit,
        image_removal: limit,
        stall: limit,
    };
    Docker::with_timeouts(socket, timeouts)
}

fn id() -> ContainerId {
    ContainerId::parse(&"ab".repeat(32)).unwrap()
}

#[track_caller]
pub(super) fn soon<T>(call: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = call();
    assert!(started.elapsed() < SOON, "took {:?}", started.elapsed());
    result
}

#[track_caller]
fn assert_unavailable<T: std::fmt::Debug>(result: Result<T, Error>) {
    let result = result.map(|got| format!("{got:?}"));
    assert!(matches!(&result, Err(e) if e.is_unavailable()), "{result:?}");
}

#[track_caller]
fn assert_malformed<T: std::fmt::Debug>(result: Result<T, Error>) {
    let result = result.map(|got| format!("{got:?}"));
    assert!(matches!(&result, Err(Error::Malformed(_))), "{result:?}");
}

/// Waits until the client closes, so that a handler can hold a connection open.
fn hold(stream: &mut UnixStream) {
    let _ = stream.read(&mut [0]);
}

#[test]
fn case_79_a_hung_engine_costs_a_call_its_deadline_and_no_more() {
    let listener = Listener::new(|_, stream| {
        hold(stream);
        Then::Close
    });
    let docker = listener.client();
    soon(|| assert_unavailable(docker.negotiate()));
    soon(|| assert_unavailable(docker.list()));
    soon(|| assert_unavailable(docker.start(&id())));
    soon(|| assert_unavailable(docker.stop(&id(), 0)));
    soon(|| assert_unavailable(docker.events(None)));
    assert_eq!(listener.lines().len(), 5, "a timeout is not repeated");
}

#[test]
fn case_79_an_engine_whose_backlog_is_full_costs_a_call_its_connect_deadline() {
    let path = socket_path();
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    soon(|| assert_unavailable(client(&path).list()));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn case_80_a_socket_that_is_missing_or_no_socket_is_named_in_the_error() {
    let missing = socket_path();
    let file = socket_path();
    std::fs::write(&file, "").unwrap();
    let overlong = PathBuf::from("/tmp/".to_owned() + &"x".repeat(200));
    for path in [&missing, &file, &std::env::temp_dir(), &overlong] {
        for result in
            [client(path).list().map(drop), client(path).events(None).map(drop), client(path).start(&id())]
        {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(&*path.to_string_lossy()), "{message}");
        }
        assert_unavailable(client(path).negotiate());
    }
    std::fs::remove_file(file).unwrap();
    // A test may run as root, whom no permission stops: the kernel's answer is put in by hand.
    let denied = client(&missing).broken(ureq::Error::Io(std::io::ErrorKind::PermissionDenied.into()));
    assert!(denied.is_unavailable() && denied.to_string().contains("permission denied"), "{denied}");
}

#[test]
fn case_81_half_an_answer_is_an_error_and_only_a_get_without_any_answer_is_repeated() {
    let half_head = Listener::saying("HTTP/1.1 200 OK\r\nContent-Le");
    assert_unavailable(half_head.client().list());
    assert_eq!(half_head.lines().len(), 2);
    assert_unavailable(half_head.client().start(&id()));
    assert_unavailable(half_head.client().remove(&id(), true));
    assert_eq!(half_head.lines().len(), 4, "what changes something is asked once");

    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[{",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n[{",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n",
    ] {
        let listener = Listener::saying(bytes);
        assert_unavailable(listener.client().list());
        assert_eq!(listener.lines().len(), 1, "{bytes}");
    }
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[{",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[{\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[]\r\n0\r\n\r\n",
    ] {
        assert_malformed(Listener::saying(bytes).client().list());
    }
}

#[test]
fn case_81_an_idle_connection_that_died_unnoticed_is_replaced_within_the_call() {
    let answered = AtomicUsize::new(0);
    let listener = Listener::new(move |_, stream| {
        if answered.fetch_add(1, Ordering::AcqRel) == 1 {
            return Then::Close; // the second request, on the connection of the first
        }
        stream.write_all(format!("{OK}Content-Length: 2\r\n\r\n[]").as_bytes()).unwrap();
        Then::KeepOpen
    });
    let docker = ample(&listener.socket);
    assert_eq!(docker.list().unwrap(), []);
    assert_eq!(docker.list().unwrap(), []);
    assert_eq!(listener.lines().len(), 3);
}

#[test]
fn case_82_an_error_page_and_an_empty_error_are_a_clear_error() {
    for (bytes, message) in [
        (
            "HTTP/1.1 500 X\r\nContent-Length: 15\r\n\r\n<html>no</html>",
            "the engine answered 500 without a reason",
        ),
        ("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", "the engine answered 500 without a reason"),
        (
            "HTTP/1.1 500 X\r\nContent-Length: 14\r\n\r\n{\"message\":\"\"}",
            "the engine answered 500 without a reason",
        ),
        ("HTTP/1.1 500 X\r\n\r\nplain\x07\r\n\ttext ", "plain    text"),
        ("HTTP/1.1 500 X\r\nContent-Length: 99\r\n\r\n{\"message\":\"cut", "{\"message\":\"cut"),
    ] {
        let error = Listener::saying(bytes).client().list().unwrap_err();
        assert_eq!(error, Error::Refused { status: 500, message: message.to_owned() });
    }
    let long = Listener::new(|_, stream| {
        stream.write_all(b"HTTP/1.1 400 X\r\n\r\n").unwrap();
        while stream.write_all(&[b'x'; 1024]).is_ok() {}
        Then::Close
    });
    let Error::Refused { status: 400, message } = long.client().list().unwrap_err() else {
        panic!("not refused")
    };
    assert_eq!(message.len(), limits::DOCKER_MESSAGE_CHARS_MAX);
}

#[test]
fn case_82_a_status_of_success_with_anything_else_is_malformed() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npong",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[{}]",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n[]",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n[]",
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/1.1 000 X\r\n\r\n",
    ] {
        let listener = Listener::saying(bytes);
        let result = listener.client().list();
        assert!(matches!(result, Err(Error::Malformed(_))), "{bytes:?} {result:?}");
    }
    for status in ["301 X\r\nLocation: http://elsewhere/", "101 Switching Protocols"] {
        let listener = Listener::new(move |_, stream| {
            stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
            Then::KeepOpen
        });
        assert!(listener.client().start(&id()).is_err(), "{status}");
        assert_eq!(listener.lines().len(), 1, "{status}");
    }
    let nested = Listener::new(|_, stream| {
        stream.write_all(format!("{OK}\r\n[{{\"Labels\":{}", "[".repeat(100_000)).as_bytes()).unwrap();
        Then::Close
    });
    assert_malformed(ample(&nested.socket).list());
}

#[test]
fn case_82_a_length_that_lies_ends_by_the_deadline_and_allocates_nothing() {
    for length in ["3", "999999999999999999"] {
        let listener = Listener::new(move |_, stream| {
            stream.write_all(format!("{OK}Content-Length: {length}\r\n\r\n[]").as_bytes()).unwrap();
            hold(stream);
            Then::Close
        });
        soon(|| assert_unavailable(listener.client().list()));
    }
}

#[test]
fn case_82_an_endless_head_or_body_ends_at_its_bound() {
    let head = Listener::new(|_, stream| {
        stream.write_all(OK.as_bytes()).unwrap();
        while stream.write_all(b"X-Endless: yes\r\n").is_ok() {}
        Then::Close
    });
    assert_malformed(ample(&head.socket).list());
    let line = Listener::new(|_, stream| {
        while stream.write_all(&[b'H'; 512]).is_ok() {}
        Then::Close
    });
    assert!(ample(&line.socket).list().is_err());
    let body = Listener::new(|_, stream| {
        stream.write_all(format!("{OK}\r\n\"").as_bytes()).unwrap();
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
        Then::Close
    });
    assert_malformed(ample(&body.socket).inspect(&id()));
    let informational = Listener::new(|_, stream| {
        while stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").is_ok() {}
        Then::Close
    });
    soon(|| assert!(informational.client().list().is_err()));
}

#[test]
fn case_83_an_answer_that_drips_ends_by_the_total_deadline() {
    let drip = |bytes: &'static str| {
        Listener::new(move |_, stream| {
            let pace = crossbeam_channel::tick(LIMIT / 10);
            for byte in bytes.bytes().cycle().take_while(|_| pace.recv().is_ok()) {
                if stream.write_all(&[byte]).is_err() {
                    break;
                }
            }
            Then::Close
        })
    };
    let head = drip("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n");
    soon(|| assert_unavailable(head.client().list()));
    let body = Listener::new(|_, stream| {
        stream.write_all(format!("{OK}Content-Length: 1000\r\n\r\n").as_bytes()).unwrap();
        let pace = crossbeam_channel::tick(LIMIT / 10);
        while pace.recv().is_ok() && stream.write_all(b" ").is_ok() {}
        Then::Close
    });
    soon(|| assert_unavailable(body.client().inspect(&id())));
}

#[test]
fn case_84_an_event_stream_that_ends_or_breaks_says_so() {
    let event = format!(
        r#"{{"Type":"container","Action":"start","Actor":{{"ID":"{}","Attributes":{{"name":"web"}}}}}}"#,
        id()
    );
    let with = |tail: &'static str| {
        let event = event.clone();
        Listener::new(move |_, stream| {
            stream.write_all(format!("{OK}\r\n{event}\n{event}\n{tail}").as_bytes()).unwrap();
            Then::Close
        })
    };
    let listener = with("");
    let (mut events, _aborter) = listener.client().events(Some((1_763_951_373, 7))).unwrap();
    assert_eq!(events.next().unwrap(), events.next().unwrap(), "repeated, and that is the caller's to see");
    assert_eq!(events.next().unwrap(), None);
    assert!(listener.lines()[0].ends_with("&since=1763951373.000000007 HTTP/1.1"), "{:?}", listener.lines());

    for garbage in ["<html>\n", "{\"Type\":\"container\"", "{\"Type\":\"container\"}\n"] {
        let listener = with(garbage);
        let (mut events, _aborter) = listener.client().events(None).unwrap();
        assert!(events.next().unwrap().is_some() && events.next().unwrap().is_some());
        assert_malformed(events.next());
    }
    let broken = Listener::saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n");
    assert_unavailable(broken.client().events(None).unwrap().0.next());
    let refused = Listener::saying("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n");
    assert!(matches!(refused.client().events(None), Err(Error::Refused { status: 500, .. })));
}

#[test]
fn case_84_an_endless_event_ends_the_stream_at_its_bound() {
    let listener = Listener::new(|_, stream| {
        stream.write_all(format!("{OK}\r\n{{\"Type\":\"").as_bytes()).unwrap();
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
        Then::Close
    });
    let (mut events, _aborter) = ample(&listener.socket).events(None).unwrap();
    soon(|| assert_malformed(events.next()));
}

#[test]
fn a_silent_event_stream_ends_at_once_when_it_is_aborted() {
    let listener = Listener::new(|_, stream| {
        stream.write_all(format!("{OK}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).unwrap();
        hold(stream);
        Then::Close
    });
    let (mut events, aborter) = listener.client().events(None).unwrap();
    thread::scope(|scope| {
        let (asked, is_asked) = crossbeam_channel::bounded(1);
        let waiting = scope.spawn(move || {
            asked.send(()).unwrap();
            (events.next(), Instant::now())
        });
        is_asked.recv().unwrap();
        let started = Instant::now();
        aborter.abort();
        let (next, returned) = waiting.join().unwrap();
        assert_eq!(next, Ok(None));
        assert!(returned.saturating_duration_since(started) < Duration::from_secs(1));
    });
}

#[test]
fn case_88_a_taken_port_is_a_conflict_although_the_engine_calls_it_its_own_fault() {
    let listener = Listener::new(|_, stream| {
        let body =
            r#"{"message":"driver failed: Bind for 127.0.0.1:8080 failed: port is already allocated"}"#;
        let head = format!("HTTP/1.1 500 X\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + body).as_bytes()).unwrap();
        Then::Close
    });
    assert!(matches!(listener.client().start(&id()), Err(Error::Conflict(_))));
}

#[test]
fn podmans_refusals_for_a_name_and_a_state_are_conflicts() {
    for (cause, message) in [
        (
            "that name is already in use",
            "container create: the container name is already in use by 0a: that name is already in use",
        ),
        ("network already exists", "network name muelle-home already used: network already exists"),
        ("container state improper", "cannot remove container 0a as it is running: container state improper"),
    ] {
        let listener = Listener::new(move |_, stream| {
            let body = format!(r#"{{"cause":"{cause}","message":"{message}","response":500}}"#);
            let head = format!("HTTP/1.1 500 X\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).unwrap();
            Then::Close
        });
        assert!(matches!(listener.client().start(&id()), Err(Error::Conflict(_))), "{cause}");
    }
}

#[test]
fn a_network_without_the_separation_is_ours_in_podman_only() {
    for (engine, is_ours) in [("Libpod-Api-Version: 4.3.1\r\n", true), ("", false)] {
        let listener = Listener::new(move |line, stream| {
            let body = if line.contains("/networks/") {
                r#"{"Driver":"bridge","Options":{},"Labels":{"muelle.instance":"home"}}"#
            } else {
                "{}"
            };
            let head = format!("{OK}Api-Version: 1.41\r\n{engine}Content-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + body).as_bytes()).unwrap();
            Then::Close
        });
        let client = ample(&listener.socket);
        client.negotiate().unwrap();
        assert_eq!(client.ensure_network("muelle-home", "home").is_ok(), is_ours, "{engine}");
        assert!(client.ensure_network("muelle-home", "other").is_err(), "{engine}");
    }
}

#[test]
fn a_hundred_calls_at_once_leave_a_bounded_number_of_idle_connections() {
    let arrived = (Mutex::new(0), std::sync::Condvar::new());
    let listener = Listener::new(move |_, stream| {
        // All hundred have their connection before the first answer: the pool cannot serve them one after the other.
        let mut count = arrived.0.lock().unwrap();
        *count += 1;
        arrived.1.notify_all();
        while *count < 100 {
            count = arrived.1.wait(count).unwrap();
        }
        drop(count);
        stream.write_all(format!("{OK}Content-Length: 2\r\n\r\n[]").as_bytes()).unwrap();
        Then::KeepOpen
    });
    let docker = ample(&listener.socket);
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| docker.list().unwrap());
        }
    });
    let deadline = Instant::now() + SOON;
    while listener.seen.open.load(Ordering::Acquire) > limits::DOCKER_IDLE_MAX {
        assert!(Instant::now() < deadline, "{} open", listener.seen.open.load(Ordering::Acquire));
        thread::yield_now();
    }
    assert_eq!(docker.list().unwrap(), []);
    assert_eq!(listener.lines().len(), 101);
    assert_eq!(
        listener.seen.open.load(Ordering::Acquire),
        limits::DOCKER_IDLE_MAX,
        "and they are used again"
    );
}

#[test]
fn the_api_version_is_negotiated_and_used_from_then_on() {
    for (header, expected) in [
        ("Api-Version: 1.41\r\n", Ok(((1, 41), false))),
        ("Api-Version: 1.41\r\nLibpod-Api-Version: 4.3.1\r\n", Ok(((1, 41), true))),
        ("Api-Version: 1.55\r\n", Ok((API_NEWEST, false))),
        ("Api-Version: 2.0\r\n", Ok((API_NEWEST, false))),
        ("Api-Version: 1.40\r\n", Err(Error::TooOld)),
        ("Api-Version: x.y\r\n", Err(Error::Malformed(String::new()))),
        ("", Err(Error::Malformed(String::new()))),
    ] {
        let listener = Listener::new(move |line, stream| {
            let body = if line.contains("_ping") { "OK" } else { r#"{"Version":"9.9"}"# };
            let head = format!("{OK}{header}Content-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + body).as_bytes()).unwrap();
            Then::KeepOpen
        });
        let docker = listener.client();
        let clone = docker.clone();
        match (docker.negotiate(), expected) {
            (Ok(engine), Ok((api, podman))) => {
                assert_eq!((engine.version.as_str(), engine.api, engine.podman), ("9.9", api, podman));
                let _ = clone.list();
                let path = format!("GET /v{}.{}/containers/json?all=1 HTTP/1.1", api.0, api.1);
                assert_eq!(listener.lines().last(), Some(&path));
            }
            (Err(Error::TooOld), Err(Error::TooOld))
            | (Err(Error::Malformed(_)), Err(Error::Malformed(_))) => {}
            (got, expected) => panic!("{header}: {got:?}, not {expected:?}"),
        }
    }
}

#[test]
fn a_stop_never_asks_for_more_grace_than_its_own_deadline_covers() {
    let listener = Listener::saying("HTTP/1.1 304 Not Modified\r\n\r\n");
    let name = ContainerName::parse("web").unwrap();
    listener.client().stop(&name, 3600).unwrap();
    assert_eq!(listener.lines(), ["POST /v1.41/containers/web/stop?t=10 HTTP/1.1"]);
}

#[test]
fn an_unusable_network_name_never_reaches_a_path() {
    let listener = Listener::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    for name in ["", "../containers/x", "a/b", "a?b", "a b", "a\n", "/ab", "abc"] {
        assert!(listener.client().ensure_network(name, "x").is_err(), "{name:?}");
        assert!(listener.client().remove_network(name).is_err(), "{name:?}");
    }
    assert!(listener.lines().is_empty());
}
