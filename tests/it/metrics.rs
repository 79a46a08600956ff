//! The numbers: from both sources, true or absent.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::harness::engine::{Container, WEB};
use crate::harness::{Event, Server, eventually};

const SOON: Duration = Duration::from_secs(20);

fn numbers(event: &Event) -> (f64, u64) {
    let metrics = &event.data["metrics"];
    let text =
        |field: &str| metrics[field].as_str().unwrap_or_else(|| panic!("{field} in {metrics}")).to_owned();
    assert!(metrics["requests"].is_u64(), "{metrics}");
    assert!(text("uptime").ends_with(['s', 'm', 'h']), "{metrics}");
    assert!(text("lastActivity").ends_with('Z'), "{metrics}");
    (
        metrics["cpu"].as_f64().expect("cpu is a number"),
        metrics["memory"].as_u64().expect("memory is a number"),
    )
}

fn a_busy_container_shows_its_share(source: &str) {
    let server = Server::with(&format!("[metrics]\nsource = \"{source}\"\n"));
    let ana = server.admin();
    let limits = json!({"HostConfig": {"Init": true, "NanoCpus": 200_000_000, "Memory": 64 << 20}});
    let busy = Container::start("while :; do :; done", &limits);
    let idle = Container::start("exec busybox sleep 1000", &Value::Null);
    let (busy, idle) = (ana.adopt("Busy", &busy.name), ana.adopt("Idle", &idle.name));
    let stream = server.stream(&ana);
    // One sample may fall into the container's start: the second is the steady state.
    let steady = |id: &str| {
        stream.until("first numbers", SOON, |e| e.is_metrics(id));
        numbers(&stream.until("second numbers", SOON, |e| e.is_metrics(id)).0)
    };
    let (cpu, memory) = steady(&busy);
    assert!((60.0..=100.0).contains(&cpu), "a loop uses what it may use, of 0.2 CPUs: {cpu}");
    assert!(memory < 64, "{memory} MiB");
    let (cpu, memory) = steady(&idle);
    assert!(cpu < 5.0, "a sleeper uses nothing: {cpu}");
    assert!(memory < 32, "{memory} MiB");
}

#[test]
fn a_busy_container_shows_its_share_from_the_cgroup_files() {
    a_busy_container_shows_its_share("cgroup");
}

#[test]
fn a_busy_container_shows_its_share_from_the_stats_api() {
    a_busy_container_shows_its_share("api");
}

#[test]
fn memory_is_what_the_app_holds() {
    let server = Server::start();
    let ana = server.admin();
    // A shell variable of 32 MB, held by a process of its own.
    let held = Container::start(
        "exec busybox awk 'BEGIN { s = \"0123456789abcdef\"; for (i = 0; i < 21; i++) s = s s; while (1) system(\"/bin/busybox sleep 1\") }'",
        &Value::Null,
    );
    let id = ana.adopt("Holder", &held.name);
    let stream = server.stream(&ana);
    eventually("it holds its 32 MiB", SOON, || {
        let (_, memory) = numbers(&stream.until("numbers", SOON, |e| e.is_metrics(&id)).0);
        if (30..90).contains(&memory) { Ok(()) } else { Err(memory) }
    });
}

#[test]
fn numbers_come_at_the_interval_for_running_projects_only() {
    let server = Server::start();
    let ana = server.admin();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
    let stream = server.stream(&ana);
    let first = stream.until("numbers", SOON, |e| e.is_metrics(&id)).0;
    let third = {
        stream.until("numbers", SOON, |e| e.is_metrics(&id));
        stream.until("numbers", SOON, |e| e.is_metrics(&id)).0
    };
    let two_intervals = third.at - first.at;
    assert!((1500..=3500).contains(&two_intervals.as_millis()), "{two_intervals:?} for two intervals of 1 s");
    ana.post(&format!("/api/containers/{id}/stop"), &json!({})).ok(200);
    stream.until_status(&id, "stopped", SOON);
    ana.post(&format!("/api/containers/{id}/start"), &json!({})).ok(200);
    let (_, between) = stream.until("running", SOON, |e| e.is_status(&id, "running"));
    assert!(!between.iter().any(|e| e.is_metrics(&id)), "no numbers from before the stop: {between:?}");
    let project = ana.get(&format!("/api/projects/{id}")).ok(200);
    assert!(project["project"]["metrics"]["memory"].is_u64(), "{project}");
}
