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

/// The samples of `/metrics`, after a look at the form of every line.
fn samples(text: &str) -> Vec<(String, f64)> {
    assert!(text.ends_with('\n'));
    let (mut family, mut seen) = (String::new(), std::collections::HashSet::new());
    let mut samples = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                assert!(help.ends_with('.'), "{line}");
                assert!(seen.insert(name), "{name} twice");
                name.clone_into(&mut family);
            }
            ["#", "TYPE", name, "gauge" | "counter" | "summary" | "histogram"] => assert_eq!(name, family),
            _ => {
                let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
                assert!(name.starts_with(&family), "{line} is not of {family}");
                samples.push((name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}"))));
            }
        }
    }
    samples
}

#[test]
fn prometheus_reads_what_this_process_and_the_projects_cost() {
    let server = Server::start();
    let ana = server.admin();
    let busy = Container::start("while :; do :; done", &json!({"HostConfig": {"NanoCpus": 200_000_000}}));
    let id = ana.adopt("My \"app\"", &busy.name);
    let stopped = ana.project("Other", WEB);
    ana.await_status(&stopped, "running", SOON);
    ana.post(&format!("/api/containers/{stopped}/stop"), &json!({})).ok(200);
    ana.await_status(&stopped, "stopped", SOON);
    let stream = server.stream(&ana);
    stream.until("numbers", SOON, |e| e.is_metrics(&id));
    ana.get("/api/projects/nonsense").error(404);
    let answer = ana.get("/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let all = samples(&answer.text);
    let value = |name: &str| {
        let found: Vec<f64> = all.iter().filter(|(n, _)| n == name).map(|(_, value)| *value).collect();
        assert!(found.len() <= 1, "{name} is there {} times", found.len());

        found.first().copied()
    };
    let (threads, descriptors) = server.footprint();
    let near = |name: &str, count: usize| {
        let value = value(name).unwrap();
        let count = f64::from(u32::try_from(count).unwrap());
        assert!((value - count).abs() <= 3.0, "{name}: {value}, counted {count}");
    };
    near("process_threads", threads);
    near("process_open_fds", descriptors);
    assert!(value("process_resident_memory_bytes").is_some_and(|bytes| (1e6..64e6).contains(&bytes)));
    assert!(value("process_cpu_seconds_total").is_some_and(|seconds| (0.0..20.0).contains(&seconds)));
    assert_eq!(value("muelle_streams"), Some(1.0));
    assert_eq!(value("muelle_streams_max"), Some(512.0));
    assert_eq!(value("muelle_engine_up"), Some(1.0));
    assert_eq!(
        value(r#"muelle_requests_total{method="GET",route="/api/projects/:id",code="4xx"}"#),
        Some(1.0)
    );
    assert_eq!(value(r#"muelle_requests_total{method="POST",route="/api/projects",code="2xx"}"#), Some(2.0));
    for queue in ["inbox", "store", "op", "api", "engine", "login"] {
        assert!(
            value(&format!("muelle_queue_depth{{queue=\"{queue}\"}}")).is_some_and(|n| n < 10.0),
            "{queue}"
        );
    }
    let rounds =
        |step: &str, what: &str| value(&format!("muelle_poll_seconds_{what}{{step=\"{step}\"}}")).unwrap();
    for step in ["list", "metrics"] {
        let (count, sum) = (rounds(step, "count"), rounds(step, "sum"));
        assert!(count >= 2.0 && sum > 0.0 && sum / count < 2.0, "{step}: {count} rounds in {sum} s");
    }
    let named = format!(r#"muelle_project_status{{project="{id}",name="My \"app\"",status="running"}}"#);
    assert_eq!(value(&named), Some(1.0), "{}", answer.text);
    assert!(value(&format!("muelle_project_cpu_percent{{project=\"{id}\"}}")).is_some_and(|cpu| cpu > 50.0));
    assert!(value(&format!("muelle_project_memory_bytes{{project=\"{id}\"}}")).is_some_and(|b| b < 64e6));
    let absent = format!("muelle_project_cpu_percent{{project=\"{stopped}\"}}");
    assert_eq!(value(&absent), None, "what does not run has no numbers");
}

#[test]
fn the_numbers_are_for_this_machine_and_those_that_the_configuration_names() {
    let server = Server::with("trusted_peers = [\"127.0.0.1\"]\n[metrics]\nallow = [\"192.0.2.7\"]\n");
    let client = server.client();
    let from = |headers: &[(&str, &str)]| client.send("GET", "/metrics", headers, None);
    assert_eq!(from(&[]).status, 200);
    assert_eq!(from(&[("X-Forwarded-For", "192.0.2.7")]).status, 200);
    for others in [
        [("X-Forwarded-For", "192.0.2.8")],
        [("X-Forwarded-For", "192.0.2.7, 192.0.2.8")],
        [("Forwarded", "for=192.0.2.7")],
        [("X-Real-IP", "192.0.2.7")],
    ] {
        assert_eq!(from(&others).error(403), "Forbidden", "{others:?}");
    }
}
