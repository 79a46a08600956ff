//! Section 5 of the contract: the event stream.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::engine::{Container, WEB};
use crate::harness::{Event, Server, Stream, eventually};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn case_65_a_client_is_greeted_and_gets_a_snapshot_then_what_happens() {
    let server = Server::start();
    let ana = server.admin();
    let (one, two) = (ana.project("One", WEB), ana.project("Two", WEB));
    ana.await_status(&one, "running", SOON);
    ana.await_status(&two, "running", SOON);
    ana.post(&format!("/api/containers/{two}/stop"), &json!({})).ok(200);
    ana.await_status(&two, "stopped", SOON);
    server.stream(&ana).until("numbers of One", SOON, |e| e.is_metrics(&one));

    let stream = server.stream(&ana);
    for header in [
        "Content-Type: text/event-stream",
        "Cache-Control: no-cache, no-transform",
        "Connection: keep-alive",
        "X-Accel-Buffering: no",
        "Transfer-Encoding: chunked",
    ] {
        assert!(
            stream.head.lines().any(|line| line.eq_ignore_ascii_case(header)),
            "{header} in {}",
            stream.head
        );
    }
    assert_eq!(stream.retry.as_deref(), Some("3000"));
    let snapshot: Vec<_> = (0..3).map(|_| stream.next(Duration::from_secs(1)).expect("at once")).collect();
    for (id, name, status) in [(&one, "One", "running"), (&two, "Two", "stopped")] {
        let told = snapshot
            .iter()
            .find(|e| e.is_status(id, status))
            .unwrap_or_else(|| panic!("{id} in {snapshot:?}"));
        assert_eq!(told.data["notify"], false);
        assert_eq!(told.data["projectName"], name);
        assert!(told.data["timestamp"].as_str().is_some_and(|t| t.ends_with('Z')), "{told:?}");
    }
    assert!(
        snapshot.iter().any(|e| e.is_metrics(&one)),
        "the last known numbers of the running one: {snapshot:?}"
    );
    ana.post(&format!("/api/containers/{one}/stop"), &json!({})).ok(200);
    assert_eq!(stream.until_status(&one, "stopped", SOON).data["notify"], true);
}

#[test]
fn case_72_a_start_is_told_as_deploying_then_running_and_rest_is_never_behind() {
    let server = Server::start();
    let ana = server.admin();
    let stream = server.stream(&ana);
    let id = ana.project("App", WEB);
    assert_eq!(stream.statuses_until(&id, "running", SOON), ["deploying", "running"]);
    assert_eq!(ana.status(&id), "running", "REST says what was told");
    ana.post(&format!("/api/containers/{id}/stop"), &json!({})).ok(200);
    assert_eq!(stream.statuses_until(&id, "stopped", SOON), ["stopped"]);
    assert_eq!(ana.status(&id), "stopped");
    ana.post(&format!("/api/containers/{id}/start"), &json!({})).ok(200);
    assert_eq!(stream.statuses_until(&id, "running", SOON), ["deploying", "running"]);
    ana.post(&format!("/api/containers/{id}/restart"), &json!({})).ok(200);
    assert_eq!(stream.statuses_until(&id, "running", SOON), ["deploying", "running"]);
    ana.post(&format!("/api/containers/{id}/start"), &json!({})).ok(200);
    assert_eq!(stream.statuses_until(&id, "running", SOON), ["running"], "told again, case 60");
}

#[test]
fn event_ids_rise_on_every_stream() {
    let server = Server::start();
    let ana = server.admin();
    let first = server.stream(&ana);
    let id = ana.project("App", WEB);
    let mut last = 0;
    let mut boots = HashSet::new();
    for stream in [first, server.stream(&ana)] {
        let mut on_this = last.min(1);
        let (end, mut events) = stream.until("numbers", SOON, |e| e.is_metrics(&id));
        events.push(end);
        for event in events {
            let (boot, n) = event.id.split_once('-').expect("boot-n");
            boots.insert(boot.to_owned());
            let n: u64 = n.parse().expect("a number");
            assert!(n > on_this, "{n} after {on_this}");
            on_this = n;
        }
        last = on_this;
    }
    assert_eq!(boots.len(), 1);
}

#[test]
fn case_71_a_comment_comes_every_15_s_though_events_flow() {
    let server = Server::start();
    let ana = server.admin();
    let id = ana.project("App", WEB);
    let stream = server.stream(&ana);
    let opened = Instant::now();
    let comment = stream.comments.recv_timeout(Duration::from_secs(16)).expect("a comment");
    assert!(comment - opened <= Duration::from_secs(15), "{:?}", comment - opened);
    let (_, meanwhile) = stream.until("numbers", SOON, |e| e.is_metrics(&id));
    drop(meanwhile);
    let flowed =
        std::iter::from_fn(|| stream.next(Duration::ZERO).ok()).filter(|e| e.is_metrics(&id)).count();
    assert!(flowed >= 5, "numbers went on every second: {flowed}");
}

#[test]
fn case_76_nobody_hears_of_other_peoples_projects() {
    let server = Server::with("[auth]\nregistration = \"open\"\n");
    let ana = server.admin();
    let bea = server.client().register("bea");
    let (of_ana, of_bea) = (server.stream(&ana), server.stream(&bea));
    let hers = bea.project("Hers", WEB);
    of_bea.until("her numbers", SOON, |e| e.is_metrics(&hers));
    let mine = ana.project("Mine", WEB);
    let (_, before) = of_ana.until("my numbers", SOON, |e| e.is_metrics(&mine));
    assert!(before.iter().all(|e| e.data["projectId"] == mine.as_str()), "an administrator too: {before:?}");
}

#[test]
fn case_66_74_without_a_good_token_there_is_json_and_no_stream() {
    let server = Server::start();
    let ana = server.admin();
    for path in
        ["/api/containers/events", "/api/containers/events?token=", "/api/containers/events?token=a.b.c"]
    {
        assert_eq!(server.client().get(path).error(401), "Unauthorized", "{path}");
    }
    let token = ana.token.clone().expect("a token");
    let elsewhere = server.client().get(&format!("/api/projects?token={token}"));
    assert_eq!(elsewhere.error(401), "Unauthorized", "the query counts for streams only");
    assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "URL-safe: {token}");
    assert_eq!(
        ana.send("POST", "/api/containers/events", &[], Some(b"{}")).error(405),
        "MethodNotAllowed",
        "case 74"
    );
}

#[test]
fn case_67_a_stream_ends_about_a_second_after_its_session_and_no_other_does() {
    let server = Server::start();
    let ana = server.admin();
    let login = json!({"email": "admin-ana@example.com", "password": crate::harness::client::PASSWORD});
    let other = server.client().post("/api/auth/login", &login).ok(200);
    let other = server.client().with_token(other["token"].as_str().expect("a token"));
    let (ends, stays) = (server.stream(&ana), server.stream(&other));
    ana.post("/api/auth/logout", &json!({})).ok(200);
    assert_eq!(ana.get("/api/auth/me").error(401), "Unauthorized", "at once");
    let (took, how) = ends.until_end(Duration::from_secs(4));
    assert!(took >= Duration::from_millis(500) && took <= Duration::from_millis(2500), "{took:?}");
    assert_eq!(how, "end", "an end is seen as an end");
    let id = other.project("App", WEB);
    stays.until_status(&id, "running", SOON);
}

#[test]
fn case_67_the_command_line_ends_sessions_of_a_running_server() {
    let server = Server::start();
    let ana = server.admin();
    let stream = server.stream(&ana);
    let (code, said) = server.command(&["user", "logout", "admin-ana@example.com"], "");
    assert_eq!(code, 0, "{said}");
    let (took, how) = stream.until_end(Duration::from_secs(6));
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(how, "end");
    assert_eq!(ana.get("/api/auth/me").error(401), "Unauthorized");
}

#[test]
fn case_69_streams_are_bounded_per_user_and_in_all() {
    let server =
        Server::with("[auth]\nregistration = \"open\"\n[limits]\nstreams = 3\nstreams_per_user = 2\n");
    let ana = server.admin();
    let bea = server.client().register("bea");
    let refused = |client: &crate::harness::Client| {
        let answer = client.get("/api/containers/events");
        assert!(answer.header("retry-after").is_some());
        answer.error(503)
    };
    let first = server.stream(&ana);
    let _second = server.stream(&ana);
    assert_eq!(refused(&ana), "TooManyStreams");
    let _third = server.stream(&bea);
    assert_eq!(refused(&bea), "TooManyStreams");
    drop(first);
    server.stream(&bea);
}

#[test]
fn case_68_a_client_that_does_not_read_is_dropped_and_others_hear_everything() {
    let server = Server::start();
    let ana = server.admin();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
    let token = ana.token.as_deref().expect("a token");
    let mut deaf =
        TcpStream::connect(server.base.strip_prefix("http://").expect("a base")).expect("a connection");
    socket2::SockRef::from(&deaf).set_recv_buffer_size(4096).expect("a small window");
    write!(deaf, "GET /api/containers/events?token={token} HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("a request");
    let listens = server.stream(&ana);
    let mut told = 0;
    let began = Instant::now();
    eventually("the deaf client is dropped", Duration::from_secs(90), || {
        // Each start of a running project tells `running` again.
        for _ in 0..50 {
            ana.post(&format!("/api/containers/{id}/start"), &json!({})).ok(200);
            told += 1;
        }
        let log = server.log();
        if log.contains("ended after") { Ok(()) } else { Err((told, began.elapsed())) }
    });
    let mut heard = 0;
    while heard < told + 1 {
        let (event, _) = listens.until("every event", SOON, |e| e.name == "container_status_changed");
        assert!(event.is_status(&id, "running"));
        heard += 1;
    }
    let mut rest = Vec::new();
    deaf.set_read_timeout(Some(SOON)).expect("a timeout");
    // A reset is an end too.
    drop(deaf.read_to_end(&mut rest));
}

#[test]
fn case_74_a_client_of_http_1_0_gets_the_stream_unchunked() {
    let server = Server::start();
    let ana = server.admin();
    let token = ana.token.as_deref().expect("a token");
    let mut socket =
        TcpStream::connect(server.base.strip_prefix("http://").expect("a base")).expect("a connection");
    write!(socket, "GET /api/containers/events?token={token} HTTP/1.0\r\n\r\n").expect("a request");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains("event: connected") {
        let n = socket.read(&mut buffer).expect("bytes");
        assert!(n > 0, "closed: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(!head.to_ascii_lowercase().contains("chunked"), "{head}");
    assert!(body.starts_with("retry: 3000\n"), "{body}");
    let head = ana.send("HEAD", &format!("/api/containers/events?token={token}"), &[], None);
    assert_eq!((head.status, head.text.as_str()), (200, ""));
}

#[test]
fn what_happens_outside_is_told_within_a_second() {
    // The list comes once a minute: only the engine's events can be in time.
    let server = Server::with("[metrics]\ninterval = \"60s\"\n");
    let ana = server.admin();
    let container = Container::web();
    let id = ana.adopt("Old", &container.name);
    let stream = server.stream(&ana);
    let within = |action: &str, status: &str| {
        container.act(action);
        let done = Instant::now();
        let told = |e: &Event| e.is_status(&id, status) && e.data["notify"] == true;
        let event = stream.until(&format!("{status} after {action}"), SOON, told).0;
        let took = event.at.saturating_duration_since(done);
        assert!(took < Duration::from_secs(1), "{action}: {took:?}");
    };
    within("stop?t=0", "stopped");
    within("start", "running");
    within("pause", "stopped");
    within("unpause", "running");
    within("kill", "stopped");
}

#[test]
fn case_53_every_connect_and_disconnect_is_logged_without_a_token() {
    let server = Server::start();
    let ana = server.admin();
    let first = server.stream(&ana);
    let second = server.stream(&ana);
    drop(first);
    let log = eventually("the end of a stream is logged", SOON, || {
        let log = server.log();
        if log.contains("ended after") { Ok(log) } else { Err(log) }
    });
    drop(second);
    let began: Vec<_> = log.lines().filter(|line| line.contains("began; ")).collect();
    assert!(
        began[0].contains("user-") && began[0].contains("127.0.0.1") && began[0].contains("1 active"),
        "{began:?}"
    );
    assert!(began[1].contains("2 active"), "{began:?}");
    let ended = log.lines().find(|line| line.contains("ended after")).expect("an end");
    assert!(ended.contains("the client is gone") && ended.contains("1 active"), "{ended}");
    let token = ana.token.expect("a token");
    let signature = token.rsplit('.').next().expect("a signature");
    assert!(!log.contains(signature), "case 53");
}

#[test]
fn case_73_106_when_the_server_stops_every_stream_ends_properly() {
    let mut server = Server::start();
    let ana = server.admin();
    let streams: Vec<Stream> = (0..20).map(|_| server.stream(&ana)).collect();
    let began = Instant::now();
    assert_eq!(server.terminate(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "case 106");
    for stream in streams {
        let (took, how) = stream.until_end(Duration::from_secs(2));
        assert_eq!(how, "end", "after {took:?}");
    }
}
