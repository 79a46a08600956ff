//! Faults that are real: kills, and an engine that goes away, hangs and returns.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::harness::engine::{self, Container, WEB};
use crate::harness::own_engine::OwnEngine;
use crate::harness::writes::{assert_intact, interrupted};
use crate::harness::{Server, eventually};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn case_97_what_was_acknowledged_survives_kill_9_in_the_middle_of_writes() {
    let mut server = Server::start();
    let mut ana = server.admin();
    let containers = [Container::web(), Container::web()];
    let ids: Vec<String> = containers.iter().map(|c| ana.adopt(&format!("of {}", c.name), &c.name)).collect();
    // Each round another moment.
    let starts = (0..100).map(|round| interrupted(&mut server, &mut ana, &ids, round, 1 + round * 7 % 20));
    let mut starts: Vec<Duration> = starts.collect();
    starts.sort_unstable();
    assert!(starts[90] < Duration::from_secs(1), "it starts quickly, most often: {starts:?}");
    server.kill();
    assert_intact(&server);
}

/// Ten projects, each asked for a start or a stop in every round: a kill meets each of them at another step, the writes of the store, the
/// creation, the start, the probes and the stop.
#[test]
fn case_107_an_acknowledged_start_or_stop_is_done_after_kill_9() {
    let mut server = Server::start();
    let mut ana = server.admin();
    let ids: Vec<String> = (0..10).map(|n| ana.project(&format!("App {n}"), WEB)).collect();
    for round in 0..20_u32 {
        let wanted = |n: usize| (n + round as usize).is_multiple_of(2);
        for (n, id) in ids.iter().enumerate() {
            let action = if wanted(n) { "start" } else { "stop" };
            ana.post(&format!("/api/containers/{id}/{action}"), &json!({})).ok(200);
        }
        std::thread::park_timeout(Duration::from_millis(u64::from(round) * 41 % 700));
        server.kill();
        server.run();
        server.await_engine();
        ana = ana.with_base(&server.base);
        if round % 4 < 3 {
            // The next kill meets what this start is mending.
            continue;
        }
        for (n, id) in ids.iter().enumerate() {
            let status = if wanted(n) { "running" } else { "stopped" };
            ana.await_status(id, status, SOON);
            eventually("the engine agrees", SOON, || {
                let up = engine::is_running(&format!("muelle-{id}"));
                if up == wanted(n) { Ok(()) } else { Err((round, up)) }
            });
            let containers = engine::labelled(&format!("muelle.project={id}"));
            // One that was to be stopped before it was ever made has none.
            assert!(containers.len() <= 1, "round {round}: {containers:?}");
        }
    }
}

#[test]
fn case_107_an_acknowledged_delete_is_done_after_kill_9() {
    let mut server = Server::start();
    let ana = server.admin();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
    ana.delete(&format!("/api/projects/{id}")).ok(200);
    server.kill();
    server.run();
    let ana = ana.with_base(&server.base);
    assert_eq!(ana.get(&format!("/api/projects/{id}")).error(404), "NotFound");
    eventually("its container is gone", SOON, || {
        let left = engine::labelled(&format!("muelle.project={id}"));
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn case_108_a_second_server_on_the_same_data_ends_at_once_and_the_first_goes_on() {
    let server = Server::start();
    let (code, said) = server.command(&["serve"], "");
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("muelle.lock") || said.contains("another"), "{said}");
    server.client().get("/healthz").ok(200);
}

#[test]
fn case_109_a_port_that_is_taken_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let server = Server::prepare(&format!("[api]\nlisten = \"{address}\"\n"));
    let (code, said) = server.command(&["serve"], "");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&address.to_string()), "{said}");
}

#[test]
fn case_80_a_socket_that_is_none_leaves_reads_and_says_so_once() {
    let mut server = Server::prepare("[docker]\nsocket = \"nothing-here.sock\"\n");
    server.run();
    let ana = server.client().register("ana");
    assert_eq!(ana.get("/api/projects").ok(200), json!({"projects": []}));
    let health = server.client().get("/api/health").ok(200);
    assert_eq!(health["status"], "degraded");
    let refused = ana.post("/api/projects", &json!({"name": "x", "image": WEB}));
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert_eq!(refused.error(503), "DockerUnavailable");
    let log = eventually("it is logged", SOON, || {
        let log = server.log();
        if log.contains("nothing-here.sock") { Ok(log) } else { Err(log) }
    });
    assert_eq!(log.matches("does not answer").count(), 1, "{log}");
}

#[test]
fn own_engine_case_77_an_engine_that_comes_later_is_found() {
    let mut own = OwnEngine::prepare();
    let mut server = Server::prepare("");
    server.run();
    let ana = server.client().register("ana");
    assert_eq!(server.client().get("/api/health").ok(200)["status"], "degraded");
    let refused = ana.post("/api/projects", &json!({"name": "x", "image": WEB}));
    assert_eq!(refused.error(503), "DockerUnavailable");
    own.run();
    let back = Instant::now();
    server.await_engine();
    assert!(back.elapsed() < Duration::from_secs(10));
    engine::ensure_web_image();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
}

#[test]
fn own_engine_case_78_after_a_restart_of_the_engine_everything_wanted_runs_again_once() {
    let mut own = OwnEngine::start();
    let server = Server::start();
    let ana = server.admin();
    let wanted: Vec<String> = (0..9).map(|n| ana.project(&format!("Up {n}"), WEB)).collect();
    let unwanted = ana.project("Down", WEB);
    for id in wanted.iter().chain([&unwanted]) {
        ana.await_status(id, "running", SOON);
    }
    ana.post(&format!("/api/containers/{unwanted}/stop"), &json!({})).ok(200);
    ana.await_status(&unwanted, "stopped", SOON);
    let stream = server.stream(&ana);
    own.stop();
    eventually("the loss is noticed", Duration::from_secs(2), || {
        let health = server.client().get("/api/health").ok(200);
        if health["status"] == "degraded" { Ok(()) } else { Err(health) }
    });
    assert_eq!(
        ana.get("/api/projects").ok(200)["projects"].as_array().map(Vec::len),
        Some(10),
        "reads go on"
    );
    let refused = ana.post(&format!("/api/containers/{}/start", wanted[0]), &json!({}));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.error(503), "DockerUnavailable");
    own.run();
    for id in &wanted {
        ana.await_status(id, "running", Duration::from_secs(10));
        assert!(engine::is_running(&format!("muelle-{id}")));
    }
    assert_eq!(ana.status(&unwanted), "stopped");
    for id in &wanted {
        let again = server.stream(&ana);
        again.until(&format!("{id} in a snapshot"), SOON, |e| e.is_status(id, "running"));
    }
    let live = |e: &crate::harness::Event| e.name == "container_status_changed" && e.data["notify"] == true;
    let mut back = 0;
    while back < wanted.len() {
        let (event, _) =
            stream.until("each is told to run again", SOON, |e| live(e) && e.data["status"] == "running");
        assert!(wanted.iter().any(|id| event.data["projectId"] == id.as_str()), "{event:?}");
        back += 1;
    }
    // One start each: the run that is there began after the engine came back and is the only one since.
    let starts = engine::starts_since_boot();
    assert!(
        wanted.iter().all(|id| starts.iter().filter(|name| **name == format!("muelle-{id}")).count() == 1),
        "{starts:?}"
    );
}

#[test]
fn own_engine_case_78_after_a_kill_of_the_engine_everything_wanted_runs_again() {
    let mut own = OwnEngine::start();
    let server = Server::start();
    let ana = server.admin();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
    own.kill();
    own.run();
    eventually("it runs, and muelle knows", Duration::from_secs(20), || {
        let up = engine::is_running(&format!("muelle-{id}"));
        let status = ana.status(&id);
        if up && status == "running" && server.client().get("/api/health").body["status"] == "ok" {
            Ok(())
        } else {
            Err((up, status))
        }
    });
}

#[test]
fn own_engine_case_79_a_frozen_engine_is_noticed_and_survived() {
    let own = OwnEngine::start();
    let server = Server::start();
    let ana = server.admin();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
    let stream = server.stream(&ana);
    own.signal(Signal::STOP);
    let since = Instant::now();
    // Before anybody has noticed: those who ask the engine wait a moment, the others not at all.
    std::thread::scope(|scope| {
        let create = || ana.post("/api/projects", &json!({"name": "x", "image": WEB}));
        let asks: Vec<_> = (0..4).map(|_| scope.spawn(create)).collect();
        let began = Instant::now();
        server.client().get("/api/health").ok(200);
        ana.get("/api/projects").ok(200);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        for ask in asks {
            assert_eq!(ask.join().unwrap().error(503), "DockerUnavailable");
        }
    });
    eventually("the silence is noticed", Duration::from_secs(10), || {
        let health = server.client().get("/api/health").ok(200);
        if health["status"] == "degraded" { Ok(()) } else { Err(health) }
    });
    let frozen = server.footprint();
    while since.elapsed() < Duration::from_secs(60) {
        let began = Instant::now();
        let list = ana.get("/api/projects").ok(200);
        assert_eq!(list["projects"][0]["status"], "running", "what was known last");
        let stop = ana.post(&format!("/api/containers/{id}/stop"), &json!({}));
        assert_eq!(stop.error(503), "DockerUnavailable");
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        std::thread::park_timeout(Duration::from_millis(200));
    }
    let now = server.footprint();
    assert!(now.0 <= frozen.0 + 2 && now.1 <= frozen.1 + 2, "nothing piles up: {frozen:?} to {now:?}");
    own.signal(Signal::CONT);
    server.await_engine();
    ana.post(&format!("/api/containers/{id}/stop"), &json!({})).ok(200);
    let (_, before) = stream.until("stopped", SOON, |e| e.is_status(&id, "stopped"));
    let others: Vec<_> =
        before.iter().filter(|e| e.name == "container_status_changed" && e.data["notify"] == true).collect();
    assert!(others.is_empty(), "nothing happened meanwhile: {others:?}");
}
