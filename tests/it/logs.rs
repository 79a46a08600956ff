//! What a container writes, as its owner reads it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::engine::{self, Container, WEB};
use crate::harness::{Client, Event, Server, Stream, eventually};

const SOON: Duration = Duration::from_secs(20);

fn open(client: &Client, id: &str, query: &str, headers: &str) -> Stream {
    let token = client.token.as_deref().expect("a token");
    Stream::at(&client.base, &format!("/api/containers/{id}/logs/stream?token={token}{query}"), headers).0
}

fn lines(answer: &Value) -> Vec<&str> {
    let lines = answer["lines"].as_array().expect("lines");
    lines.iter().map(|line| line["text"].as_str().expect("a text")).collect()
}

fn says(text: &'static str) -> impl Fn(&Event) -> bool {
    move |event| event.name == "log" && event.data["text"] == text
}

#[test]
fn the_last_lines_come_with_their_time_and_stream_and_without_control() {
    let server = Server::start();
    let ana = server.admin();
    let app = Container::start(
        r"echo one; printf '\033[31mtwo\033[0m\007\377\n' >&2; echo three; exec busybox sleep 1000",
        &Value::Null,
    );
    let id = ana.adopt("App", &app.name);
    let logs = format!("/api/containers/{id}/logs");
    let all = eventually("three lines", SOON, || {
        let answer = ana.get(&logs).ok(200);
        if lines(&answer).len() == 3 { Ok(answer) } else { Err(answer) }
    });
    // The two streams are two pipes: what was written at the same moment may change places.
    let mut texts = lines(&all);
    texts.sort_unstable();
    assert_eq!(texts, ["one", "three", "two\u{fffd}\u{fffd}"]);
    for line in all["lines"].as_array().unwrap() {
        let is_two = line["text"].as_str().unwrap().starts_with("two");
        assert_eq!(line["stream"], if is_two { "stderr" } else { "stdout" });
        let at = humantime::parse_rfc3339(line["at"].as_str().unwrap()).expect("RFC 3339");
        assert!(at.elapsed().unwrap_or_default() < SOON, "{line}");
    }
    assert_eq!(lines(&ana.get(&format!("{logs}?tail=1")).ok(200)).len(), 1);
    for bad in ["0", "-1", "1001", "x", ""] {
        let refused = ana.get(&format!("{logs}?tail={bad}"));
        assert_eq!(refused.body["message"], "tail must be a number of lines from 1 to 1000", "{bad}");
        assert_eq!(refused.error(400), "ValidationError");
    }
    engine::remove(&app.name);
    assert_eq!(ana.get(&logs).ok(200), json!({"lines": []}), "no container, no lines");
}

#[test]
fn a_log_is_bounded_whatever_the_app_writes() {
    let server = Server::start();
    let ana = server.admin();
    let flood = Container::start(
        "busybox yes $(busybox printf %0500d 7) | busybox head -n 3000; \
         busybox head -c 100000 /dev/zero | busybox tr '\\0' x; echo; echo end; exec busybox sleep 1000",
        &Value::Null,
    );
    let id = ana.adopt("Flood", &flood.name);
    let path = format!("/api/containers/{id}/logs?tail=1000");
    let answer = eventually("the end", SOON, || {
        let answer = ana.get(&path).ok(200);
        if lines(&answer).last() == Some(&"end") { Ok(answer) } else { Err(lines(&answer).len()) }
    });
    let lengths: Vec<usize> = lines(&answer).iter().map(|line| line.len()).collect();
    let bytes: usize = lengths.iter().sum();
    assert!((64 * 1024..=256 * 1024).contains(&bytes), "{bytes} bytes in {} lines", lengths.len());
    assert!(lengths.iter().all(|length| *length <= 16 * 1024 + 64), "the engine's pieces of 16 KiB");
}

#[test]
fn a_log_stream_starts_with_the_last_lines_and_goes_on_over_a_restart() {
    let server = Server::start();
    let ana = server.admin();
    let app =
        Container::start("busybox seq 1 500; while :; do echo tick; busybox sleep 0.2; done", &Value::Null);
    let id = ana.adopt("App", &app.name);
    ana.await_status(&id, "running", SOON);
    let stream = open(&ana, &id, "&tail=3", "");
    assert!(stream.head.contains("Content-Type: text/event-stream"), "{}", stream.head);
    let (first, before) = stream.until("a line", SOON, |event| event.name == "log");
    assert!(before.is_empty());
    assert_eq!(first.data["stream"], "stdout");
    let live = stream.until("a new line", SOON, |event| {
        let at = humantime::parse_rfc3339(event.data["at"].as_str().unwrap_or_default());
        event.name == "log"
            && at.is_ok_and(|at| at.elapsed().unwrap_or_default() < Duration::from_millis(150))
    });
    assert!(live.1.len() < 200, "and not the whole log before it");

    ana.post(&format!("/api/containers/{id}/stop"), &json!({})).ok(200);
    let end = stream.until("the end of the run", SOON, |event| event.name == "end").0;
    assert_eq!(end.data["reason"], "The container stopped");
    ana.await_status(&id, "stopped", SOON);
    ana.post(&format!("/api/containers/{id}/start"), &json!({})).ok(200);
    let (again, _) = stream.until("the beginning of the next run", SOON, says("1"));
    let (_, rest) = stream.until("its last number", SOON, says("500"));
    assert!(rest.iter().all(|event| event.name == "log"));
    assert!(again.id > end.id, "{} {}", again.id, end.id);
}

#[test]
fn an_interrupted_log_stream_goes_on_after_the_last_line_it_had() {
    let server = Server::start();
    let ana = server.admin();
    let app = Container::start("busybox seq 1 300; exec busybox sleep 1000", &Value::Null);
    let id = ana.adopt("App", &app.name);
    let (fifth, _) = open(&ana, &id, "&tail=1000", "").until("a line", SOON, says("5"));
    let stream = open(&ana, &id, "&tail=1000", &format!("Last-Event-ID: {}\r\n", fifth.id));
    let (_, between) = stream.until("the last line", SOON, says("300"));
    let texts: Vec<_> = between.iter().map(|event| event.data["text"].as_str().unwrap()).collect();
    let expected: Vec<String> = (6..300).map(|n| n.to_string()).collect();
    assert_eq!(texts, expected);
    // What is no time is no place to go on from.
    let stream = open(&ana, &id, "&tail=2", "Last-Event-ID: 18f-7\r\n");
    let (_, between) = stream.until("the last line", SOON, says("300"));
    assert_eq!(between.len(), 1);
}

#[test]
fn a_log_stream_costs_nothing_once_its_client_session_or_project_is_gone() {
    let server = Server::start();
    let ana = server.admin();
    let app = Container::start("while :; do echo tick; busybox sleep 0.1; done", &Value::Null);
    let id = ana.adopt("App", &app.name);
    ana.await_status(&id, "running", SOON);
    let reading = || server.threads().iter().filter(|name| *name == "log-read").count();
    let gone = open(&ana, &id, "", "");
    gone.until("a line", SOON, says("tick"));
    assert_eq!(reading(), 1);
    drop(gone);
    eventually("the thread has ended", SOON, || if reading() == 0 { Ok(()) } else { Err(server.threads()) });

    let other = ana.login("admin-ana");
    let revoked = open(&other, &id, "", "");
    revoked.until("a line", SOON, says("tick"));
    other.post("/api/auth/logout", &json!({})).ok(200);
    let (took, how) = revoked.until_end(SOON);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(how, "end");

    let deleted = open(&ana, &id, "", "");
    deleted.until("a line", SOON, says("tick"));
    ana.delete(&format!("/api/projects/{id}")).ok(200);
    assert_eq!(deleted.until_end(SOON).1, "end");
    eventually(
        "the threads have ended",
        SOON,
        || if reading() == 0 { Ok(()) } else { Err(server.threads()) },
    );
}

#[test]
fn a_log_that_cannot_be_read_is_told_once() {
    let server = Server::start();
    let ana = server.admin();
    let silent = json!({"HostConfig": {"Init": true, "LogConfig": {"Type": "none"}}});
    let app = Container::start("exec busybox sleep 1000", &silent);
    let id = ana.adopt("App", &app.name);
    ana.await_status(&id, "running", SOON);
    let stream = open(&ana, &id, "", "");
    let (end, before) = stream.until("the end", SOON, |event| event.name == "end");
    assert!(before.is_empty());
    assert_eq!(end.data["reason"], "The log cannot be read");
    // It is tried again after 3 s and after 6 more.
    assert_eq!(stream.next(Duration::from_secs(10)).unwrap_err(), "nothing came");
}

#[test]
fn an_app_that_only_writes_keeps_no_core_busy_here_and_no_other_client_waiting() {
    let server = Server::start();
    let ana = server.admin();
    let flood = Container::start("exec busybox yes spam", &json!({"HostConfig": {"NanoCpus": 200_000_000}}));
    let id = ana.adopt("Flood", &flood.name);
    ana.await_status(&id, "running", SOON);
    let stream = open(&ana, &id, "", "");
    stream.until("a line", SOON, says("spam"));
    let (began, mut lines) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(3) {
        stream.next(SOON).expect("another line");
        lines += 1;
    }
    // A line counts with what it costs here, which is more than its text.
    assert!(lines > 100 && lines < 3 * 1024 * 1024 / 48, "{lines} lines in 3 s");
    assert_eq!(ana.status(&id), "running");
}

#[test]
fn case_56_somebody_elses_log_is_as_absent_as_none() {
    let server = Server::with("[auth]\nregistration = \"open\"\n");
    let ana = server.admin();
    let bea = server.client().register("bea");
    let id = ana.project("Mine", WEB);
    for path in ["logs", "logs/stream", "status"] {
        let theirs = bea.get(&format!("/api/containers/{id}/{path}"));
        let absent = bea.get(&format!("/api/containers/proj-ffffffff/{path}"));
        assert_eq!((theirs.status, &theirs.text), (404, &absent.text), "{path}");
    }
    ana.await_status(&id, "running", SOON);
}
