//! What becomes of containers: starts, ends, readiness, reconciliation; with the real engine.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::engine::{self, Container, SERVE, WEB};
use crate::harness::image::{TestImage, import, raw, unique};
use crate::harness::{Server, eventually};

const SOON: Duration = Duration::from_secs(20);

/// The list comes once a minute: only the engine's events can tell in time.
const EVENTS_ONLY: &str = "[metrics]\ninterval = \"60s\"\n";

/// An image that runs something else.
fn running(command: &str) -> TestImage {
    TestImage::new(&[&format!("CMD {}", json!(["/bin/busybox", "sh", "-c", command])), "EXPOSE 8080"])
}

#[test]
fn an_app_is_running_only_when_it_answers() {
    let server = Server::start();
    let ana = server.admin();
    let image = running(&format!("busybox sleep 3; {SERVE}"));
    let id = ana.project("Slow", &image.0);
    let name = format!("muelle-{id}");
    eventually("its container runs", SOON, || if engine::is_running(&name) { Ok(()) } else { Err(()) });
    assert_eq!(ana.status(&id), "deploying", "it runs, and does not answer yet");
    ana.await_status(&id, "running", SOON);
}

#[test]
fn a_container_that_ends_before_it_is_ready_is_an_error_with_its_exit_code_and_last_words() {
    let server = Server::start();
    let ana = server.admin();
    let stream = server.stream(&ana);
    let image = running("echo starting; echo cannot find the moon >&2; exit 3");
    let id = ana.project("Broken", &image.0);
    let event = stream.until_status(&id, "error", SOON);
    let reason = event.data["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("Exited with code 3") && reason.contains("cannot find the moon"), "{reason}");
    assert_eq!(ana.get(&format!("/api/projects/{id}")).ok(200)["project"]["reason"], reason);
    ana.post(&format!("/api/containers/{id}/start"), &json!({})).ok(200);
    assert_eq!(stream.statuses_until(&id, "error", SOON), ["deploying", "error"], "start tries anew");
}

#[test]
fn case_86_a_crash_is_told_with_its_reason_and_started_again() {
    let server = Server::with(EVENTS_ONLY);
    let ana = server.admin();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
    let stream = server.stream(&ana);
    let pid = engine::inspect(&format!("muelle-{id}"))["State"]["Pid"].as_i64().expect("a pid");
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)
        .expect("its first process can be killed");
    let told = stream.until_status(&id, "deploying", Duration::from_secs(2));
    let reason = told.data["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("Exited with code 137; starting it again in 1 s"), "{reason}");
    stream.until_status(&id, "running", SOON);
}

#[test]
fn case_86_out_of_memory_is_said() {
    let server = Server::start();
    let ana = server.admin();
    // On a busy machine the engine (20.10, cgroup v1) does not hear of one in a container's first moments: neither event nor state say it.
    let greedy = "exec busybox awk 'BEGIN { s = \"0123456789abcdef\"; while (1) s = s s }'";
    let image = running(&format!("busybox sleep 1; {greedy}"));
    let made =
        ana.post("/api/projects", &json!({"name": "Hungry", "image": image.0, "memory_mb": 16})).ok(201);
    let id = made["project"]["id"].as_str().expect("an id");
    ana.await_status(id, "error", SOON);
    let reason = ana.get(&format!("/api/projects/{id}")).ok(200)["project"]["reason"].clone();
    assert!(reason.as_str().is_some_and(|r| r.starts_with("Out of memory")), "{reason}");
}

#[test]
fn case_85_a_removed_container_is_stopped_and_the_next_start_creates_it_anew() {
    let server = Server::with(EVENTS_ONLY);
    let ana = server.admin();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
    let stream = server.stream(&ana);
    engine::remove(&format!("muelle-{id}"));
    stream.until_status(&id, "stopped", Duration::from_secs(1));
    ana.post(&format!("/api/containers/{id}/start"), &json!({})).ok(200);
    stream.until_status(&id, "running", SOON);
}

#[test]
fn case_85_an_adopted_container_that_is_removed_is_an_error() {
    let server = Server::with(EVENTS_ONLY);
    let ana = server.admin();
    let container = Container::web();
    let id = ana.adopt("Old", &container.name);
    let stream = server.stream(&ana);
    engine::remove(&container.name);
    let event = stream.until_status(&id, "error", Duration::from_secs(1));
    assert_eq!(event.data["reason"], "The container does not exist any more");
}

#[test]
fn an_adopted_container_is_known_by_its_name_when_it_is_made_anew() {
    let server = Server::with(EVENTS_ONLY);
    let ana = server.admin();
    let container = Container::web();
    let id = ana.adopt("Composed", &container.name);
    let stream = server.stream(&ana);
    engine::remove(&container.name);
    stream.until_status(&id, "error", SOON);
    let path = format!("/containers/create?name={}", container.name);
    assert_eq!(engine::json("POST", &path, &json!({"Image": WEB})).0, 201);
    container.act("start");
    stream.until_status(&id, "running", SOON);
}

#[test]
fn an_adopted_container_with_a_health_check_is_running_when_that_passes() {
    let server = Server::start();
    let ana = server.admin();
    let health = json!({"Healthcheck": {"Test": ["CMD", "/bin/busybox", "test", "-e", "/ready"], "Interval": 500_000_000_i64, "Retries": 100}});
    let container = Container::start("busybox sleep 2; echo 1 > /ready; exec busybox sleep 1000", &health);
    let id = ana.adopt("Checked", &container.name);
    ana.await_status(&id, "running", SOON);
    let stream = server.stream(&ana);
    ana.post(&format!("/api/containers/{id}/restart"), &json!({})).ok(200);
    stream.until_status(&id, "deploying", SOON);
    stream.until_status(&id, "running", SOON);
}

#[test]
fn a_project_whose_network_was_pruned_is_created_anew_at_the_next_start() {
    let server = Server::start();
    let ana = server.admin();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
    ana.post(&format!("/api/containers/{id}/stop"), &json!({})).ok(200);
    ana.await_status(&id, "stopped", SOON);
    let network = format!("/networks/muelle-{}", server.instance());
    assert_eq!(raw("DELETE", &network, "", b"").0, 204);
    ana.post(&format!("/api/containers/{id}/start"), &json!({})).ok(200);
    ana.await_status(&id, "running", SOON);
}

#[test]
fn a_container_of_an_older_template_runs_on_and_is_replaced_at_its_next_start() {
    let mut server = Server::start();
    let ana = server.admin();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
    server.terminate();
    let name = format!("muelle-{id}");
    engine::remove(&name);
    let labels = json!({"muelle.instance": server.instance(), "muelle.project": id, "muelle.spec": "0aa57ee06b66275f"});
    let network = format!("muelle-{}", server.instance());
    let old = json!({"Image": WEB, "Labels": labels, "HostConfig": {"Init": true, "NetworkMode": network}});
    assert_eq!(engine::json("POST", &format!("/containers/create?name={name}"), &old).0, 201);
    engine::act(&name, "start");
    let (before, began) = (engine::inspect(&name), "/State/StartedAt");

    server.run();
    let ana = ana.with_base(&server.base);
    server.await_engine();
    ana.await_status(&id, "running", SOON);
    let stream = server.stream(&ana);
    stream.until("numbers of it", SOON, |e| e.is_metrics(&id));
    let after = engine::inspect(&name);
    assert_eq!((&after["Id"], after.pointer(began)), (&before["Id"], before.pointer(began)));

    ana.post(&format!("/api/containers/{id}/restart"), &json!({})).ok(200);
    eventually("a container of the template", SOON, || {
        let seen = engine::inspect(&name);
        if seen["HostConfig"]["CapDrop"] == json!(["NET_RAW"]) { Ok(()) } else { Err(seen) }
    });
    ana.await_status(&id, "running", SOON);
}

#[test]
fn a_restart_takes_the_image_that_the_name_means_now() {
    let server = Server::start();
    let ana = server.admin();
    let says = |word: &str| {
        let serve = SERVE.replace("hello", word);
        vec![format!("CMD {}", json!(["/bin/busybox", "sh", "-c", serve])), "EXPOSE 8080".to_owned()]
    };
    let reference = unique("muelle-test") + ":1";
    let import = |word: &str| {
        let changes = says(word);
        import(&reference, &changes.iter().map(String::as_str).collect::<Vec<_>>());
    };
    import("old");
    let image = TestImage(reference.clone());
    let id = ana.project("App", &image.0);
    ana.await_status(&id, "running", SOON);
    let old = engine::inspect(&format!("muelle-{id}"))["Image"].as_str().unwrap().to_owned();
    import("new");
    ana.post(&format!("/api/containers/{id}/restart"), &json!({})).ok(200);
    ana.await_status(&id, "running", SOON);
    let url = ana.get(&format!("/api/projects/{id}")).ok(200)["project"]["url"].as_str().unwrap().to_owned();
    assert_eq!(crate::harness::Client::new(&url).get("/").text, "new");
    ana.delete(&format!("/api/projects/{id}")).ok(200);
    eventually("its container is gone", SOON, || {
        if engine::inspect(&format!("muelle-{id}")).is_null() { Ok(()) } else { Err(()) }
    });
    raw("DELETE", &format!("/images/{old}?force=1"), "", b"");
}

#[test]
fn where_networks_cannot_be_reached_containers_are_reached_at_a_published_port() {
    let server = Server::with("[docker]\nreach = \"published\"\n");
    let ana = server.admin();
    let stream = server.stream(&ana);
    let id = ana.project("App", WEB);
    assert_eq!(stream.statuses_until(&id, "running", SOON), ["deploying", "running"]);
    let url = ana.get(&format!("/api/projects/{id}")).ok(200)["project"]["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("http://localhost:"), "{url}");
    assert_eq!(crate::harness::Client::new(&url.replace("localhost", "127.0.0.1")).get("/").text, "hello");
    let container = engine::inspect(&format!("muelle-{id}"))["Id"].clone();
    ana.post(&format!("/api/containers/{id}/restart"), &json!({})).ok(200);
    stream.until_status(&id, "running", SOON);
    assert_eq!(engine::inspect(&format!("muelle-{id}"))["Id"], container, "the same container");
}

#[test]
fn what_was_deploying_when_muelle_ended_is_not_running_before_it_answers() {
    let mut server = Server::start();
    let ana = server.admin();
    let image = running("exec busybox sleep 1000");
    let made = ana.post("/api/projects", &json!({"name": "Mute", "image": image.0, "port": 8080})).ok(201);
    let id = made["project"]["id"].as_str().unwrap().to_owned();
    eventually("its container runs", SOON, || {
        if engine::is_running(&format!("muelle-{id}")) { Ok(()) } else { Err(()) }
    });
    server.kill();
    server.run();
    server.await_engine();
    let ana = ana.with_base(&server.base);
    let stream = server.stream(&ana);
    let told = std::iter::from_fn(|| stream.next(Duration::from_secs(3)).ok());
    let statuses: Vec<_> =
        told.filter(|e| e.name == "container_status_changed").map(|e| e.data["status"].clone()).collect();
    assert!(statuses.iter().all(|status| status == "deploying"), "{statuses:?}");
    ana.delete(&format!("/api/projects/{id}")).ok(200);
    eventually("its container is gone", SOON, || {
        if engine::inspect(&format!("muelle-{id}")).is_null() { Ok(()) } else { Err(()) }
    });
}

#[test]
fn case_141_a_hundred_starts_at_once_are_one() {
    let server = Server::with("[limits]\nper_address = 200\n");
    let ana = server.admin();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
    ana.post(&format!("/api/containers/{id}/stop"), &json!({})).ok(200);
    ana.await_status(&id, "stopped", SOON);
    let before = engine::inspect(&format!("muelle-{id}"))["State"]["StartedAt"].clone();
    let path = format!("/api/containers/{id}/start");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..100).map(|_| scope.spawn(|| ana.post(&path, &json!({})).status)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a status")).collect()
    });
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    ana.await_status(&id, "running", SOON);
    let seen = engine::inspect(&format!("muelle-{id}"));
    assert_ne!(seen["State"]["StartedAt"], before);
    let ours = engine::labelled(&format!("muelle.project={id}"));
    assert_eq!(ours.len(), 1, "one container: {ours:?}");
}

#[test]
fn case_142_a_hundred_projects_made_at_once_are_all_made() {
    let server = Server::with("[limits]\nper_address = 200\n");
    let ana = server.admin();
    // Of containers that do not run: a hundred starts would measure the engine.
    let containers: Vec<Container> =
        (0..100).map(|_| Container::create("exec busybox sleep 1000", &json!({}))).collect();
    let adopt = |container: &Container| {
        let began = Instant::now();
        ana.adopt(&format!("of {}", container.name), &container.name);
        began.elapsed()
    };
    let mut took: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = containers.iter().map(|one| scope.spawn(move || adopt(one))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    took.sort_unstable();
    assert!(took[98] < Duration::from_secs(2), "{took:?}");
    let list = ana.get("/api/projects").ok(200);
    assert_eq!(list["projects"].as_array().map(Vec::len), Some(100));
}

#[test]
fn case_61_a_stop_while_deploying_and_a_delete_while_deploying_are_answered_and_done() {
    let server = Server::start();
    let ana = server.admin();
    let image = running("exec busybox sleep 1000");
    let made = ana.post("/api/projects", &json!({"name": "Never", "image": image.0, "port": 8080})).ok(201);
    let id = made["project"]["id"].as_str().expect("an id").to_owned();
    let name = format!("muelle-{id}");
    eventually("its container runs", SOON, || if engine::is_running(&name) { Ok(()) } else { Err(()) });
    assert_eq!(ana.post(&format!("/api/containers/{id}/stop"), &json!({})).ok(200)["status"], "stopped");
    eventually(
        "it is stopped",
        SOON,
        || if engine::is_running(&name) { Err(ana.status(&id)) } else { Ok(()) },
    );
    ana.await_status(&id, "stopped", SOON);
    ana.post(&format!("/api/containers/{id}/start"), &json!({})).ok(200);
    eventually("it runs again", SOON, || if engine::is_running(&name) { Ok(()) } else { Err(()) });
    ana.delete(&format!("/api/projects/{id}")).ok(200);
    eventually("it is removed", SOON, || if engine::inspect(&name).is_null() { Ok(()) } else { Err(()) });
}

#[test]
fn projects_go_on_while_muelle_is_away_and_are_found_again() {
    let mut server = Server::start();
    let ana = server.admin();
    let (up, down) = (ana.project("Up", WEB), ana.project("Down", WEB));
    ana.await_status(&up, "running", SOON);
    ana.await_status(&down, "running", SOON);
    ana.post(&format!("/api/containers/{down}/stop"), &json!({})).ok(200);
    ana.await_status(&down, "stopped", SOON);
    let started = |id: &str| engine::inspect(&format!("muelle-{id}"))["State"]["StartedAt"].clone();
    let before = started(&up);
    assert_eq!(server.terminate(), Some(0));
    assert!(engine::is_running(&format!("muelle-{up}")), "stopping muelle stops no project");
    server.run();
    let ana = ana.with_base(&server.base);
    ana.await_status(&up, "running", SOON);
    assert_eq!(ana.status(&down), "stopped");
    assert_eq!(started(&up), before, "it was not touched");
}

#[test]
fn what_died_while_muelle_was_away_is_started_again_if_it_is_wanted() {
    let mut server = Server::start();
    let ana = server.admin();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
    server.kill();
    engine::act(&format!("muelle-{id}"), "kill");
    server.run();
    let ana = ana.with_base(&server.base);
    ana.await_status(&id, "running", SOON);
    assert!(engine::is_running(&format!("muelle-{id}")));
}
