//! Apps that nobody uses: put to sleep and woken, through the spawned server and real containers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::apps::{aside, config, door, meet_idle_stops, outlast_a_stall, say, visit};
use crate::harness::engine::{self, Container, SERVE, WEB};
use crate::harness::image::TestImage;
use crate::harness::own_engine::OwnEngine;
use crate::harness::{Client, Event, Server, Stream, eventually};

const SOON: Duration = Duration::from_secs(30);
const HOST: &str = "app.admin-ana.localhost";

/// A server with one running app, and a stream that has told so.
struct Stage {
    server: Server,
    ana: Client,
    id: String,
    door: String,
    stream: Stream,
}

impl Stage {
    fn with(image: &str, more: &str) -> Stage {
        Stage::of(&json!({"image": image}), more)
    }

    fn of(project: &Value, more: &str) -> Stage {
        engine::ensure_web_image();
        let server = Server::with(&config(more));
        let ana = server.admin();
        let stream = server.stream(&ana);
        let mut body = project.clone();
        body["name"] = "App".into();
        let id = ana.post("/api/projects", &body).ok(201)["project"]["id"].as_str().unwrap().to_owned();
        stream.until_status(&id, "running", SOON);
        let door = door(&server);
        Stage { server, ana, id, door, stream }
    }

    fn new() -> Stage {
        Stage::with(WEB, "")
    }

    /// Waits until it sleeps; gives what was told on the way.
    #[track_caller]
    fn asleep(&self) -> Vec<Event> {
        asleep(&self.stream, &self.id)
    }

    fn container(&self) -> String {
        format!("muelle-{}", self.id)
    }

    /// How often the engine has started its container.
    fn starts(&self) -> usize {
        let name = self.container();
        engine::starts_since_boot().iter().filter(|started| **started == name).count()
    }

    /// What it says about why it is awake or not.
    fn why(&self) -> Value {
        self.ana.get(&format!("/api/projects/{}/why", self.id)).ok(200)
    }

    fn project(&self) -> Value {
        self.ana.get(&format!("/api/projects/{}", self.id)).ok(200)["project"].clone()
    }
}

/// Waits until a project sleeps and its container has ended; gives what was told on the way.
#[track_caller]
fn asleep(stream: &Stream, id: &str) -> Vec<Event> {
    let (inactive, mut told) = stream.until("it sleeps", SOON, |it| it.is_status(id, "inactive"));
    told.push(inactive);
    eventually("its container has ended", SOON, || {
        if engine::is_running(&format!("muelle-{id}")) { Err("it runs") } else { Ok(()) }
    });
    told
}

fn is_shutdown(event: &Event, id: &str) -> bool {
    event.name == "auto_shutdown" && event.data["projectId"] == id
}

/// Asks like a browser that opens a page.
fn browse(door: &str) -> String {
    let head = "Accept: text/html,*/*;q=0.8\r\nSec-Fetch-Mode: navigate\r\nConnection: close";
    say(door, &format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{head}\r\n\r\n"))
}

/// What muelle itself says at an app's host.
fn own_page(door: &str, name: &str) -> String {
    say(door, &format!("GET /.muelle/{name} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"))
}

/// An image that runs these shell words. Applets have to be called through busybox.
fn image(words: &str) -> TestImage {
    TestImage::new(&[&format!("CMD {}", json!(["/bin/busybox", "sh", "-c", words])), "EXPOSE 8080"])
}

/// [`WEB`], and a page that gives back what is posted to it.
const ECHO: &str = r#"busybox mkdir -p /www/cgi-bin; busybox chmod 755 /www;
    busybox printf '%s\n' '#!/bin/busybox sh' 'busybox printf "\r\n"; exec busybox cat' >/www/cgi-bin/echo;
    busybox chmod 755 /www/cgi-bin/echo; "#;

#[test]
fn case_132_who_is_not_visited_sleeps_and_the_next_request_of_any_kind_wakes_it() {
    let image = image(&format!("{ECHO}{SERVE}"));
    let stage = Stage::with(&image.0, "");
    let visited = stage.ana.project("Visited", WEB);
    stage.stream.until_status(&visited, "running", SOON);
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    let at = stage.door.clone();
    let visitor = aside(move || {
        let tick = Duration::from_millis(500);
        while stopped.recv_timeout(tick) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
            let answer = visit(&at, "visited");
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
    });
    let told = stage.asleep();
    let shutdown = told.iter().position(|it| is_shutdown(it, &stage.id)).expect("it is told before");
    let data = &told[shutdown].data;
    assert_eq!((&data["projectName"], &data["inactiveTime"]), (&json!("App"), &json!("2s")));
    assert_eq!(data["reason"], "no requests for 2 s");
    let of_it = |it: &&Event| it.name == "container_status_changed" && it.data["projectId"] == stage.id;
    let after: Vec<&Event> = told[shutdown..].iter().filter(of_it).collect();
    assert_eq!(after.len(), 1, "inactive and nothing else: {after:#?}");
    let shown = stage.project();
    assert_eq!((&shown["status"], &shown["metrics"]["memory"]), (&json!("inactive"), &json!(0)));
    assert_eq!(stage.ana.status(&visited), "running");

    let answer = visit(&stage.door, "app");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
    let words = stage.stream.statuses_until(&stage.id, "running", SOON);
    assert_eq!(words, ["deploying", "running"]);

    stage.asleep();
    let answer = say(&stage.door, &posted("ping"));
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\r\nping\r\n"), "{answer}");
    drop(stop);
    visitor.join().unwrap();
    assert_eq!((stage.starts(), stage.ana.status(&visited)), (3, "running".to_owned()));
}

fn posted(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /cgi-bin/echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

#[test]
fn what_waking_takes_and_what_sleep_saves_is_told_and_survives_kill_9() {
    // Memory that can be seen in whole MiB.
    let image = image(&format!("busybox dd if=/dev/zero of=/dev/shm/held bs=1M count=20; {SERVE}"));
    let mut stage = Stage::with(&image.0, "");
    let (held, _) = stage.stream.until("it holds memory", SOON, |it| {
        it.is_metrics(&stage.id) && it.data["metrics"]["memory"].as_u64() >= Some(20)
    });
    let before = stage.project()["sleep"].clone();
    assert_eq!(before, json!({"wakes": 0, "saved_memory_mib_hours": 0.0, "saved_cpu_hours": 0.0}));
    stage.asleep();
    let saved = |sleep: &Value| sleep["saved_memory_mib_hours"].as_f64().unwrap();
    let memory = held.data["metrics"]["memory"].as_f64().unwrap();
    let since = Instant::now();
    let first = eventually("it saves memory", SOON, || {
        let sleep = stage.project()["sleep"].clone();
        if saved(&sleep) > 0.0 { Ok(saved(&sleep)) } else { Err(sleep) }
    });
    let most = (memory + 8.0) * (since.elapsed().as_secs_f64() + 5.0) / 3600.0;
    assert!(first <= most, "{first} MiB hours after {:?} with {memory} MiB", since.elapsed());
    stage.server.kill();
    stage.server.run();
    stage.ana = stage.ana.with_base(&stage.server.base);
    eventually("it goes on to save", SOON, || {
        let sleep = stage.project()["sleep"].clone();
        if saved(&sleep) > first { Ok(()) } else { Err(sleep) }
    });
    assert!(visit(&door(&stage.server), "app").ends_with("hello"));
    let sleep = eventually("the wake is told", SOON, || {
        let sleep = stage.project()["sleep"].clone();
        if sleep["wake_ms"]["answer"]["p50"].is_u64() { Ok(sleep) } else { Err(sleep) }
    });
    assert_eq!(sleep["wakes"], 1);
    let times = ["start", "ready", "answer"].map(|phase| sleep["wake_ms"][phase]["p95"].as_u64().unwrap());
    assert!(times.is_sorted() && times[0] > 0, "{sleep}");
    let numbers = stage.server.client().get("/metrics").text;
    for line in [
        format!("muelle_project_wakes_total{{project=\"{}\"}} 1", stage.id),
        format!("muelle_project_answers_total{{project=\"{}\",code=\"2xx\"}} 1", stage.id),
        format!("muelle_project_answer_seconds_bucket{{project=\"{}\",le=\"+Inf\"}} 1", stage.id),
    ] {
        assert!(numbers.lines().any(|found| found == line), "{line}\n{numbers}");
    }
}

#[test]
fn case_133_of_five_hundred_at_once_128_are_held_for_one_start_and_nobody_else_waits() {
    let image = image(&format!("busybox sleep 3; {SERVE}"));
    let stage = Stage::with(&image.0, "[limits]\nper_address = 1000\n");
    let other = stage.ana.project("Other", WEB);
    stage.stream.until_status(&other, "running", SOON);
    stage.asleep();
    let starts = stage.starts();
    let asking: Vec<_> = (0..500)
        .map(|_| {
            let at = stage.door.clone();
            aside(move || (visit(&at, "app"), Instant::now()))
        })
        .collect();
    stage.stream.until_status(&stage.id, "deploying", SOON);
    let answer = visit(&stage.door, "other");
    let others = Instant::now();
    assert!(answer.ends_with("hello"), "{answer}");
    let answers: Vec<(String, Instant)> = asking.into_iter().map(|it| it.join().unwrap()).collect();
    let (served, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|(answer, _)| answer.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(served.len() >= 128, "{} were served", served.len());
    assert!(!refused.is_empty(), "none was refused");
    for (answer, _) in refused {
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: 2\r\n"), "{answer}");
    }
    assert!(served.iter().all(|(_, at)| *at > others), "the other one was answered while these were waiting");
    let times = || served.iter().map(|(_, at)| *at);
    let spread = times().max().unwrap() - times().min().unwrap();
    assert!(
        spread < SOON / 3,
        "the last one came {spread:?} after the first: its connection was lost at first"
    );
    assert_eq!(stage.starts(), starts + 1);
}

#[test]
fn a_sleeping_project_wakes_once_for_fifty_clients_and_answers_each() {
    let stage = Stage::new();
    stage.asleep();
    let starts = stage.starts();
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let at = stage.door.clone();
            aside(move || visit(&at, "app"))
        })
        .collect();
    for asked in asking {
        let answer = asked.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
    }
    assert_eq!(stage.starts(), starts + 1);
}

/// Serves once; started again it does not listen.
const ONCE: &str = "[ -f /ran ] && exec busybox sleep 1000; busybox touch /ran; ";

#[test]
fn a_client_that_has_said_all_it_wants_to_and_closed_its_side_is_served_by_an_app_that_slept() {
    let stage = Stage::new();
    stage.asleep();
    let mut socket = TcpStream::connect(&stage.door).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
}

#[test]
fn case_134_an_app_that_does_not_listen_any_more_is_an_error_told_once_and_a_browser_sees_the_wait_and_the_end()
 {
    let image = image(&format!("echo its last words; {ONCE}{SERVE}"));
    // A port that its owner names has to answer.
    let stage = Stage::of(&json!({"image": image.0, "port": 8080}), "wake_timeout = \"3s\"\n");
    stage.asleep();
    let page = browse(&stage.door);
    assert!(page.starts_with("HTTP/1.1 503 ") && page.contains("http-equiv=\"refresh\""), "{page}");
    assert!(own_page(&stage.door, "state").contains("\"status\":\"deploying\""));
    assert!(own_page(&stage.door, "waiting.js").contains("Content-Type: text/javascript"));
    assert!(page.contains("Content-Type: text/html") && page.contains("Cache-Control: no-store"), "{page}");
    let held = visit(&stage.door, "app");
    assert!(held.starts_with("HTTP/1.1 503 ") && held.contains("\r\nRetry-After: 2\r\n"), "{held}");
    let limit = Duration::from_secs(90);
    assert_eq!(stage.stream.statuses_until(&stage.id, "error", limit), ["deploying", "error"]);
    let starts = stage.starts();
    let page = browse(&stage.door);
    assert!(page.contains("This app did not start.") && !page.contains("within 60 s"), "{page}");
    assert!(
        !page.contains("http-equiv=\"refresh\"") && !page.contains("<script"),
        "it spins no more: {page}"
    );
    assert!(own_page(&stage.door, "state").contains("\"status\":\"error\""));
    let held = visit(&stage.door, "app");
    assert!(held.starts_with("HTTP/1.1 503 "), "{held}");
    assert_eq!(stage.starts(), starts, "who failed is not tried with each request");
}

#[test]
fn who_did_not_come_up_when_it_was_woken_is_tried_again_after_a_pause_and_not_with_each_request() {
    let image = image(&format!(
        "echo x >>/ran; case $(busybox wc -l </ran) in 2 | 4) echo its last words; exit 3 ;; esac; {SERVE}"
    ));
    let stage = Stage::with(&image.0, "");
    stage.asleep();
    let starts = stage.starts();
    let held = visit(&stage.door, "app");
    assert!(held.starts_with("HTTP/1.1 503 ") && held.contains("\r\nRetry-After: "), "{held}");
    assert_eq!(stage.stream.statuses_until(&stage.id, "error", SOON), ["deploying", "error"]);
    assert!(browse(&stage.door).contains("It is tried again if somebody opens it in "));
    assert!(stage.why()["sentence"].as_str().unwrap().contains("has it tried again."), "{}", stage.why());
    assert!(visit(&stage.door, "app").starts_with("HTTP/1.1 503 "));
    assert_eq!(stage.starts(), starts + 1);
    let answer = eventually("it is tried again", SOON, || {
        let answer = browse(&stage.door);
        if answer.starts_with("HTTP/1.1 200 ") { Ok(answer) } else { Err(answer) }
    });
    assert!(answer.ends_with("hello"));
    assert_eq!(stage.starts(), starts + 2);
    // What a person has started is tried by no request, whoever woke it before.
    stage.ana.post(&format!("/api/containers/{}/restart", stage.id), &json!({})).ok(200);
    stage.stream.until_status(&stage.id, "error", SOON);
    assert!(stage.why()["sentence"].as_str().unwrap().contains("No request wakes it."), "{}", stage.why());
    let refused = visit(&stage.door, "app");
    assert!(refused.starts_with("HTTP/1.1 503 ") && !refused.contains("\r\nRetry-After"), "{refused}");
    assert_eq!(stage.starts(), starts + 3);
}

#[test]
fn own_engine_case_78_whoever_asks_for_an_app_that_sleeps_is_told_that_docker_is_away_and_served_when_it_is_back()
 {
    let mut own = OwnEngine::start();
    let stage = Stage::new();
    stage.asleep();
    own.stop();
    let sentence = "Docker does not answer, which is to start this app.";
    eventually("the page says so", SOON, || {
        let page = browse(&stage.door);
        if page.contains(sentence) { Ok(()) } else { Err(page) }
    });
    assert!(own_page(&stage.door, "state").contains(sentence));
    let at = stage.door.clone();
    let asking = aside(move || visit(&at, "app"));
    own.run();
    let answer = asking.join().unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
}

#[test]
fn case_135_136_robots_scanners_and_what_browsers_ask_by_themselves_wake_nobody() {
    let stage = Stage::new();
    stage.asleep();
    let starts = stage.starts();
    for (path, agent) in [("/", "UptimeRobot/2.0"), ("/", "Googlebot/2.1"), ("/favicon.ico", "Mozilla/5.0")] {
        let head = format!("Host: {HOST}\r\nUser-Agent: {agent}\r\nAccept: text/html\r\nConnection: close");
        let answer = say(&stage.door, &format!("GET {path} HTTP/1.1\r\n{head}\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("asleep"), "{agent}: {answer}");
    }
    assert!(own_page(&stage.door, "state").contains("\"status\":\"inactive\""));
    assert!(own_page(&stage.door, "other").starts_with("HTTP/1.1 404 "), "no app has that");
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", stage.server.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().to_owned();
        line.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let knock = |from: u32, to: u32| {
        for number in from..to {
            assert!(visit(&stage.door, &format!("x{number}")).starts_with("HTTP/1.1 404 "));
        }
    };
    knock(0, 1000);
    let before = resident();
    knock(1000, 10_000);
    let grown = resident().saturating_sub(before);
    assert!(grown < 1024, "{grown} KiB more for 9,000 names");
    assert_eq!((stage.starts(), stage.ana.status(&stage.id)), (starts, "inactive".to_owned()));
    assert!(visit(&stage.door, "app").ends_with("hello"));
}

#[test]
fn robots_keep_nobody_awake_and_are_answered_while_it_runs() {
    let stage = Stage::new();
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    let at = stage.door.clone();
    let robot = aside(move || {
        let mut served = 0;
        while stopped.recv_timeout(Duration::from_millis(300))
            == Err(crossbeam_channel::RecvTimeoutError::Timeout)
        {
            let head = format!("Host: {HOST}\r\nUser-Agent: a-bot/1\r\nConnection: close");
            served += usize::from(say(&at, &format!("GET / HTTP/1.1\r\n{head}\r\n\r\n")).ends_with("hello"));
        }
        served
    });
    stage.asleep();
    drop(stop);
    assert!(robot.join().unwrap() > 0, "it was served while the app ran");
}

#[test]
fn case_145_a_request_at_the_moment_of_an_idle_stop_is_always_served() {
    meet_idle_stops(50);
}

#[test]
fn where_sleep_is_a_pause_the_same_run_goes_on_with_the_next_request_and_a_stop_ends_it() {
    let stage = Stage::with(WEB, "action = \"pause\"\n");
    let paused = |stage: &Stage| {
        stage.stream.until_status(&stage.id, "inactive", SOON);
        eventually("it is paused", SOON, || {
            let found = engine::inspect(&stage.container())["State"].clone();
            if found["Paused"] == true { Ok(found["StartedAt"].clone()) } else { Err(found) }
        })
    };
    let since = paused(&stage);
    assert!(visit(&stage.door, "app").ends_with("hello"));
    stage.stream.until_status(&stage.id, "running", SOON);
    let found = engine::inspect(&stage.container())["State"].clone();
    assert_eq!((&found["Paused"], &found["StartedAt"]), (&json!(false), &since));
    assert_eq!(paused(&stage), since);
    let sleep = &stage.project()["sleep"];
    assert_eq!((&sleep["wakes"], &sleep["saved_memory_mib_hours"]), (&json!(1), &json!(0.0)), "it held that");
    stage.ana.post(&format!("/api/containers/{}/stop", stage.id), &json!({})).ok(200);
    stage.stream.until_status(&stage.id, "stopped", SOON);
    eventually("it has ended", SOON, || {
        let found = engine::inspect(&stage.container())["State"].clone();
        if found["Status"] == "exited" { Ok(()) } else { Err(found) }
    });
}

#[test]
fn case_146_a_start_right_after_the_shutdown_is_told_ends_with_it_running_and_all_in_order() {
    let stage = Stage::new();
    stage.stream.until("it is put to sleep", SOON, |it| is_shutdown(it, &stage.id));
    let answer = stage.ana.post(&format!("/api/containers/{}/start", stage.id), &json!({})).ok(200);
    assert_eq!(answer["status"], "deploying");
    let words = stage.stream.statuses_until(&stage.id, "running", SOON);
    assert_eq!(words, ["inactive", "deploying", "running"]);
    assert!(visit(&stage.door, "app").ends_with("hello"));
}

/// Serves 64 MiB of nothing at `/big`, which a client takes that reads a part with each event.
const BIG: &str = "busybox mkdir -p /www; busybox truncate -s 67108864 /www/big; ";

#[test]
fn case_147_a_slow_download_keeps_it_awake_and_its_end_does_not() {
    let image = image(&format!("{BIG}{SERVE}"));
    let stage = Stage::with(&image.0, "");
    let mut socket = TcpStream::connect(&stage.door).unwrap();
    socket.write_all(format!("GET /big HTTP/1.0\r\nHost: {HOST}\r\n\r\n").as_bytes()).unwrap();
    let mut part = vec![0; 1 << 20];
    // It has its numbers, and the supervisor has looked at least once when it had been quiet for long enough.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(8) {
        socket.read_exact(&mut part).unwrap();
        let event = stage.stream.next(SOON).unwrap();
        assert!(!is_shutdown(&event, &stage.id), "{event:?}");
    }
    assert_eq!(stage.ana.status(&stage.id), "running");
    let why = stage.why();
    assert_eq!((&why["awake"], &why["sleepsIn"]), (&json!(true), &Value::Null));
    let sentence = why["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("Awake: 1 request under way; last counted request "), "{sentence}");
    drop(socket);
    stage.asleep();
    let asleep = json!({"awake": false, "sentence": "Asleep: the next request wakes it.", "sleepsIn": null, "idleAfter": "2s"});
    assert_eq!(stage.why(), asleep);
}

/// Answers `101` to who wants another protocol, and says there what it hears.
const TUNNEL: &str = r#"busybox printf '%s\n' '#!/bin/busybox sh' 'while read -r line; do case "$line" in' \
    'Upgrade:*) up=1;; "$(busybox printf "\r")") break;; esac; done' \
    '[ "$up" ] || { busybox printf "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"; exit; }' \
    'busybox printf "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"; exec busybox cat' \
    > /answer; busybox chmod +x /answer; exec busybox nc -ll -p 8080 -e /answer"#;

#[test]
fn case_131_an_open_tunnel_keeps_it_awake_though_nothing_moves_and_its_end_does_not() {
    let image = image(TUNNEL);
    let stage = Stage::with(&image.0, "");
    stage.asleep();
    let mut socket = TcpStream::connect(&stage.door).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    stage.stream.until_status(&stage.id, "running", SOON);
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(8) {
        let event = stage.stream.next(SOON).unwrap();
        assert!(!is_shutdown(&event, &stage.id), "{event:?}");
    }
    let why = stage.why();
    let sentence = why["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("Awake: 1 open WebSocket; last counted request "), "{sentence}");
    socket.write_all(b"still there?").unwrap();
    let mut said = [0; 12];
    socket.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"still there?");
    drop(socket);
    stage.asleep();
}

#[test]
fn case_107_what_sleeps_sleeps_on_after_kill_9_and_is_woken_by_a_request() {
    let mut stage = Stage::new();
    stage.asleep();
    let starts = stage.starts();
    stage.server.kill();
    stage.server.run();
    let ana = stage.ana.with_base(&stage.server.base);
    stage.server.await_engine();
    assert_eq!(ana.status(&stage.id), "inactive");
    let stream = stage.server.stream(&ana);
    stream.until_status(&stage.id, "inactive", SOON);
    assert_eq!(stage.starts(), starts);
    assert!(visit(&door(&stage.server), "app").ends_with("hello"));
    assert_eq!(stream.statuses_until(&stage.id, "running", SOON), ["deploying", "running"]);
    assert_eq!(stage.starts(), starts + 1);
}

#[test]
fn what_a_person_stopped_is_not_woken_and_says_so_and_what_never_sleeps_does_not() {
    let stage = Stage::new();
    let awake = stage.ana.project("Awake", WEB);
    stage.ana.patch(&format!("/api/projects/{awake}"), &json!({"idle_after": "never"})).ok(200);
    stage.stream.until_status(&awake, "running", SOON);
    stage.asleep();
    stage.ana.post(&format!("/api/containers/{}/stop", stage.id), &json!({})).ok(200);
    stage.stream.until_status(&stage.id, "stopped", SOON);
    let starts = stage.starts();
    let answer = visit(&stage.door, "app");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("This app is stopped"), "{answer}");
    assert!(browse(&stage.door).contains("This app is stopped"));
    assert_eq!((stage.starts(), stage.ana.status(&awake)), (starts, "running".to_owned()));
    assert_eq!(stage.why()["sentence"], "Down: somebody stopped it. No request wakes it.");
    let why = stage.ana.get(&format!("/api/projects/{awake}/why")).ok(200);
    assert_eq!((&why["awake"], &why["idleAfter"]), (&json!(true), &json!("never")));
}

#[test]
fn without_the_proxy_that_could_wake_it_nothing_sleeps_whatever_its_owner_chose() {
    let server = Server::with("[proxy]\nlisten = []\n");
    let ana = server.admin();
    let body = json!({"name": "App", "image": WEB, "idle_after": "1m"});
    let id = ana.post("/api/projects", &body).ok(201)["project"]["id"].as_str().unwrap().to_owned();
    ana.await_status(&id, "running", SOON);
    let why = ana.get(&format!("/api/projects/{id}/why")).ok(200);
    assert_eq!((&why["idleAfter"], &why["sleepsIn"]), (&json!("never"), &Value::Null), "{why}");
}

#[test]
fn what_never_answered_http_sleeps_only_if_its_owner_says_so() {
    let mute = image("exec busybox nc -ll -p 8080 -e /bin/false");
    let stage = Stage::of(&json!({"image": mute.0}), "");
    let sentence = "Awake: it has answered no request yet, by which it could be woken.";
    assert_eq!(stage.why()["sentence"], sentence);
    let path = format!("/api/projects/{}", stage.id);
    stage.ana.patch(&path, &json!({"idle_after": "1m"})).ok(200);
    assert_eq!(stage.why()["idleAfter"], "1m");
    assert_ne!(stage.why()["sentence"], sentence);
}

#[test]
fn case_149_while_muelle_itself_does_not_run_nobody_becomes_idle() {
    outlast_a_stall(Duration::from_secs(12));
}

#[test]
fn an_adopted_container_sleeps_if_its_owner_says_so_and_nobody_reaches_it_past_the_proxy() {
    let published =
        json!({"HostConfig": {"Init": true, "PortBindings": {"8080/tcp": [{"HostIp": "127.0.0.1"}]}}});
    let container = Container::start(SERVE, &published);
    let mut server = Server::with(&config("cpu_floor = 100\n"));
    let ana = server.admin();
    let id = ana.adopt("App", &container.name);
    let path = format!("/api/projects/{id}");
    let why = |ana: &Client| ana.get(&format!("{path}/why")).ok(200);
    assert_eq!(why(&ana)["sentence"], "Awake: it is not put to sleep (idle_after is never).");
    assert_eq!(ana.patch(&path, &json!({"idle_after": "1m"})).ok(200)["project"]["idle_after"], "1m");

    // Nobody can choose so little; a test has no minutes.
    server.kill();
    let db = rusqlite::Connection::open(server.data().join("muelle.db")).unwrap();
    assert_eq!(db.execute("UPDATE projects SET idle_after = 3", []).unwrap(), 1);
    drop(db);
    server.run();
    let ana = ana.with_base(&server.base);
    let stream = server.stream(&ana);
    let ports = &container.inspect()["NetworkSettings"]["Ports"]["8080/tcp"];
    let direct = format!("127.0.0.1:{}", ports[0]["HostPort"].as_str().unwrap());
    let until = Instant::now() + Duration::from_secs(15);
    let long = "x".repeat(4096);
    while Instant::now() < until {
        let answer = say(&direct, &format!("GET / HTTP/1.0\r\nX-Long: {long}\r\n\r\n"));
        assert!(answer.ends_with("hello"), "who comes past the proxy finds it up: {answer}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let sentence = why(&ana)["sentence"].to_string();
    assert!(sentence.contains("Awake: only for "), "{sentence}");

    let asleep = || {
        stream.until("it sleeps", SOON, |it| it.is_status(&id, "inactive"));
        let ended = || if engine::is_running(&container.name) { Err("it runs") } else { Ok(()) };
        eventually("its container has ended", SOON, ended);
    };
    asleep();
    assert!(visit(&door(&server), "app").ends_with("hello"), "a request wakes it");
    stream.until_status(&id, "running", SOON);
    assert!(engine::is_running(&container.name));

    // It sleeps over our own end, however it ended itself.
    asleep();
    server.kill();
    server.run();
    let ana = ana.with_base(&server.base);
    ana.await_status(&id, "inactive", SOON);
    server.await_engine();
    let deleted = ana.delete(&path).ok(200);
    assert!(deleted["note"].as_str().unwrap().ends_with("is started again, since it slept"), "{deleted}");
    let back = || if engine::is_running(&container.name) { Ok(()) } else { Err("it is down") };
    eventually("nobody is left to wake it: it runs", SOON, back);
}

#[test]
fn a_container_that_would_be_removed_when_it_ends_is_not_put_to_sleep() {
    let server = Server::with(&config(""));
    let ana = server.admin();
    let container = Container::start(SERVE, &json!({"HostConfig": {"Init": true, "AutoRemove": true}}));
    let id = ana.adopt("App", &container.name);
    ana.patch(&format!("/api/projects/{id}"), &json!({"idle_after": "1m"})).ok(200);
    let why = ana.get(&format!("/api/projects/{id}/why")).ok(200);
    let sentence = "Awake: Docker removes its container when that ends (--rm), so it is not put to sleep.";
    assert_eq!((&why["sentence"], &why["sleepsIn"]), (&json!(sentence), &Value::Null));
}

/// muelle under a clock of its own: the date can be set, lengths of time go on as they are.
#[test]
fn own_clock_case_148_a_day_forward_or_back_puts_nothing_to_sleep_and_then_it_sleeps_as_ever() {
    let named = std::env::var("MUELLE_TEST_FAKETIME").ok().filter(|path| !path.is_empty());
    let library = named.unwrap_or_else(|| "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1".to_owned());
    assert!(std::path::Path::new(&library).exists(), "{library} is needed: apt-get install libfaketime");
    engine::ensure_web_image();
    let mut server = Server::prepare(
        &config("[auth]\nregistration = \"open\"\n").replace("after = \"2s\"", "after = \"15s\""),
    );
    let offset = server.data().with_file_name("offset");
    let set = |days: &str| std::fs::write(&offset, days).unwrap();
    set("+0");
    server.env = vec![
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap().to_owned()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    server.run();
    let ana = server.admin();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
    let door = door(&server);
    for (step, days) in [("+1d", 1.0), ("-1d", -1.0)] {
        assert!(visit(&door, "app").ends_with("hello"));
        set(step);
        server.client().register(&format!("at{days}"));
        let (log, now) = (server.log(), std::time::SystemTime::now());
        let stamp = log.lines().last().unwrap().split(' ').next().unwrap();
        let told = humantime::parse_rfc3339(stamp).unwrap();
        let ahead =
            told.duration_since(now).map_or_else(|it| -it.duration().as_secs_f64(), |it| it.as_secs_f64());
        assert!((ahead / 86_400.0 - days).abs() < 0.01, "the clock was set: {stamp}");
        // The supervisor looks twice in this time.
        std::thread::park_timeout(Duration::from_secs(11));
        assert!(!server.log().contains("is inactive"), "{}", server.log());
    }
    eventually("it sleeps", SOON, || {
        if server.log().contains("is inactive") { Ok(()) } else { Err("it is awake") }
    });
    assert!(visit(&door, "app").ends_with("hello"));
}
