//! A real engine.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::super::{
    Action, ContainerId, Docker, Error, Events, Health, Inspected, LABEL_INSTANCE, LABEL_SPEC, Spec, State,
};
use crate::domain::{ContainerName, EnvName, ImageRef, ProjectId};

#[path = "../../../tests/it/harness/image.rs"]
pub(super) mod image;
use image::{TestImage, raw, socket, unique};

pub(super) const SOON: Duration = Duration::from_secs(20);

pub(super) fn docker() -> Docker {
    let docker = Docker::new(&socket());
    docker.negotiate().expect("a container engine is needed for this test");
    docker
}

/// The image that most tests use, as long as any does.
pub(super) fn shared_image() -> Arc<TestImage> {
    static SHARED: Mutex<Weak<TestImage>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap();
    shared.upgrade().unwrap_or_else(|| {
        let image = Arc::new(TestImage::new(&["EXPOSE 8080", "EXPOSE 81", "EXPOSE 53/udp"]));
        *shared = Arc::downgrade(&image);
        image
    })
}

/// A container that is removed with this.
struct Container {
    docker: Docker,
    spec: Spec,
    id: ContainerId,
    _image: Arc<TestImage>,
}

fn spec(image: &TestImage, run: &str) -> Spec {
    Spec {
        name: ContainerName::parse(&unique("muelle-test")).unwrap(),
        image: ImageRef::parse(&image.0).unwrap(),
        project: ProjectId(42),
        instance: "test".to_owned(),
        deployment: None,
        network: "none".to_owned(),
        publish: None,
        port: Some(8080),
        env: BTreeMap::from([(EnvName::parse("RUN").unwrap(), run.to_owned())]),
        memory_mb: 16,
        cpus: Some(0.5),
    }
}

impl Container {
    fn new(run: &str) -> Container {
        Container::with(shared_image(), run, |spec| spec)
    }

    fn with(image: Arc<TestImage>, run: &str, change: impl FnOnce(Spec) -> Spec) -> Container {
        let docker = docker();
        let spec = change(spec(&image, run));
        let id = docker.create(&spec).unwrap();
        Container { docker, spec, id, _image: image }
    }

    /// One that somebody made without the template.
    fn foreign(run: &str, more: &Value) -> Container {
        let image = shared_image();
        let mut body = json!({"Image": image.0, "Env": [format!("RUN={run}")]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let name = unique("muelle-test");
        let path = format!("/v1.41/containers/create?name={name}");
        let (status, answer) = raw("POST", &path, "application/json", body.to_string().as_bytes());
        assert_eq!(status, 201, "{answer}");
        let docker = docker();
        let id = docker.inspect(&ContainerName::parse(&name).unwrap()).unwrap().id;
        Container { docker, spec: spec(&image, run), id, _image: image }
    }

    fn inspect(&self) -> Inspected {
        self.docker.inspect(&self.id).unwrap()
    }

    fn started(self) -> Container {
        self.docker.start(&self.id).unwrap();
        self
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.docker.remove(&self.id, true);
    }
}

/// Asks until the answer is right, and fails with the last one.
#[track_caller]
pub(super) fn eventually<T: std::fmt::Debug>(mut ask: impl FnMut() -> T, right: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + SOON;
    let pace = crossbeam_channel::tick(Duration::from_millis(20));
    loop {
        let last = ask();
        if right(&last) {
            return last;
        }
        assert!(Instant::now() < deadline, "still {last:?}");
        pace.recv().unwrap();
    }
}

/// What happens to one container until `last`; other people's containers are passed over.
fn actions_until(events: &mut Events, id: &ContainerId, last: Action) -> Vec<Action> {
    let mut actions = Vec::new();
    while actions.last() != Some(&last) {
        let event = events.next().unwrap().expect("the stream goes on");
        if event.id == *id {
            assert!(event.time_nanos > 1_600_000_000_000_000_000);
            assert_eq!(event.project_label, Some(ProjectId(42)));
            actions.push(event.action);
        }
    }
    actions
}

#[test]
fn the_engine_says_its_version() {
    let engine = docker().negotiate().unwrap();
    assert!(engine.api >= super::super::API_OLDEST && engine.api <= super::super::API_NEWEST, "{engine:?}");
    assert!(!engine.version.is_empty());
}

#[test]
fn case_60_a_container_lives_from_create_to_remove_and_every_step_can_be_repeated() {
    let watching = docker();
    let (mut events, aborter) = watching.events(None).unwrap();
    let run = "trap 'exit 3' TERM; echo out $PORT; echo err >&2; while :; do sleep 0.1; done";
    let c = Container::new(run);
    let (docker, id) = (&c.docker, &c.id);

    let created = c.inspect();
    assert_eq!((created.state, created.pid, created.started_at), (State::Created, None, None));
    assert_eq!(docker.stats(id).unwrap(), None);
    assert!(matches!(docker.create(&c.spec), Err(Error::Conflict(_))));
    assert!(matches!(docker.pause(id), Err(Error::Conflict(_) | Error::Refused { .. })));

    docker.start(id).unwrap();
    docker.start(id).unwrap();
    let running = docker.inspect(&c.spec.name).unwrap();
    assert_eq!((running.state, running.health, running.tty), (State::Running, Health::None, false));
    assert!(running.pid.is_some());
    let age = SystemTime::now().duration_since(running.started_at.unwrap()).unwrap();
    assert!(age < SOON, "{age:?}");
    assert_eq!((running.capacity, running.restart_policy.as_str()), (Some(0.5), "no"));
    assert_eq!(running.exposed_ports, [81, 8080]);
    assert_eq!(running.labels.get(LABEL_SPEC), Some(c.spec.fingerprint().as_str()));
    assert_eq!(running.labels.get(LABEL_INSTANCE), Some("test"));
    assert_eq!(running.image_id, docker.image(&c.spec.image).unwrap().id);

    let log = eventually(|| docker.logs_tail(id, 10).unwrap(), |log| log.lines().count() == 2);
    assert!(log.contains("out 8080\n") && log.contains("err\n"), "{log}");
    assert_eq!(docker.logs_tail(id, 1).unwrap().lines().count(), 1);
    let reading = docker.stats(id).unwrap().unwrap();
    assert!(reading.cpu_ns > 0 && reading.memory_bytes > 0 && reading.online_cpus > 0, "{reading:?}");

    docker.pause(id).unwrap();
    docker.pause(id).unwrap();
    let row = docker.list().unwrap().into_iter().find(|row| row.id == *id).unwrap();
    assert_eq!((row.name, row.state), (c.spec.name.clone(), State::Paused));
    assert_eq!((row.image.as_str(), row.labels.project()), (c.spec.image.as_str(), Some(ProjectId(42))));
    // 20.10 takes its own late "paused" for news after a quick thaw and says pause and unpause once more (daemon/monitor.go).
    docker.unpause(id).unwrap();
    eventually(|| docker.unpause(id), Result::is_ok).unwrap();

    docker.stop(id, 10).unwrap();
    docker.stop(id, 10).unwrap();
    let exited = c.inspect();
    assert_eq!((exited.state, exited.exit_code, exited.pid), (State::Exited, 3, None));
    assert!(matches!(docker.unpause(id), Err(Error::Conflict(_) | Error::Refused { .. })));
    assert_eq!(docker.stats(id).unwrap(), None);

    docker.remove(id, false).unwrap();
    docker.remove(id, false).unwrap();
    for missing in
        [docker.inspect(id).map(drop), docker.start(id), docker.stop(id, 0), docker.stats(id).map(drop)]
    {
        assert!(matches!(missing, Err(Error::NotFound(_))), "{missing:?}");
    }
    let seen = actions_until(&mut events, id, Action::Destroy);
    assert_eq!(seen[..4], [Action::Create, Action::Start, Action::Pause, Action::Unpause]);
    let mut rest = seen[4..].to_vec();
    rest.retain(|action| !matches!(action, Action::Pause | Action::Unpause));
    if rest[1] == Action::Stop {
        rest.swap(1, 2); // 28.5
    }
    let stop = [Action::Kill { signal: 15 }, Action::Die { exit_code: 3 }, Action::Stop, Action::Destroy];
    assert_eq!(rest, stop);
    aborter.abort();
    assert_eq!(events.next(), Ok(None));
}

#[test]
fn case_86_the_end_of_a_container_is_read_with_its_cause() {
    let (mut events, _aborter) = docker().events(None).unwrap();
    let greedy = Container::new("exec dd if=/dev/zero of=/dev/null bs=64M").started();
    let ended = eventually(|| greedy.inspect(), |c| c.state == State::Exited);
    assert_eq!((ended.exit_code, ended.oom_killed), (137, true));
    let seen = actions_until(&mut events, &greedy.id, Action::Die { exit_code: 137 });
    assert!(seen.contains(&Action::Oom), "{seen:?}");

    let failing = Container::new("exit 7").started();
    let ended = eventually(|| failing.inspect(), |c| c.state == State::Exited);
    assert_eq!((ended.exit_code, ended.oom_killed), (7, false));

    let deaf = Container::new("trap '' TERM; while :; do sleep 1; done").started();
    deaf.docker.stop(&deaf.id, 0).unwrap();
    assert_eq!(deaf.inspect().exit_code, 137);
}

#[test]
fn case_85_a_container_that_is_removed_from_outside_is_not_found_and_its_end_is_told() {
    let (mut events, _aborter) = docker().events(None).unwrap();
    let c = Container::new("sleep 100").started();
    assert!(matches!(c.docker.remove(&c.id, false), Err(Error::Conflict(_))));
    assert_eq!(raw("DELETE", &format!("/v1.41/containers/{}?force=1", c.id), "", b"").0, 204);
    let seen = actions_until(&mut events, &c.id, Action::Destroy);
    assert_eq!(seen[..2], [Action::Create, Action::Start]);
    assert!(matches!(c.docker.inspect(&c.id), Err(Error::NotFound(_))));
}

#[test]
fn case_87_a_missing_image_is_not_found() {
    let image = shared_image();
    let missing = ImageRef::parse("muelle-test-no-such-image:1").unwrap();
    assert!(matches!(docker().image(&missing), Err(Error::NotFound(_))));
    let created = docker().create(&Spec { image: missing, ..spec(&image, "") });
    assert!(
        matches!(&created, Err(Error::NotFound(m)) if m.to_lowercase().contains("no such image")),
        "{created:?}"
    );
}

#[test]
fn a_program_that_is_missing_ends_with_127_and_says_so_in_the_log() {
    // The start itself succeeds: what starts is the init of the template.
    let image = Arc::new(TestImage::new(&[r#"CMD ["/no/such/program"]"#]));
    let c = Container::with(image, "", |spec| spec).started();
    let ended = eventually(|| c.inspect(), |c| c.state == State::Exited);
    assert_eq!((ended.exit_code, ended.error.as_str()), (127, ""));
    let log = c.docker.logs_tail(&c.id, 10).unwrap();
    assert!(log.contains("/no/such/program failed: No such file or directory"), "{log}");
}

#[test]
fn a_container_of_ours_cannot_forge_packets() {
    let c = Container::new("busybox grep -E '^Cap(Bnd|Eff|Prm)' /proc/self/status").started();
    eventually(|| c.inspect(), |c| c.state == State::Exited);
    let log = c.docker.logs_tail(&c.id, 10).unwrap();
    let sets: Vec<u64> = log
        .lines()
        .filter_map(|line| u64::from_str_radix(line.strip_prefix("Cap")?.get(4..)?.trim(), 16).ok())
        .collect();
    // Bits of linux/capability.h: NET_BIND_SERVICE is 10, NET_RAW is 13.
    let has = |bit: u32| sets.iter().map(|set| set >> bit & 1).collect::<Vec<_>>();
    assert_eq!((has(10), has(13)), (vec![1; 3], vec![0; 3]), "{log}");
}

#[test]
fn a_start_that_the_engine_refuses_leaves_the_container_created() {
    let image = shared_image();
    let c =
        Container::with(Arc::clone(&image), "", |spec| Spec { network: "container:none".to_owned(), ..spec });
    let refused = c.docker.start(&c.id).unwrap_err();
    assert!(
        matches!(&refused, Error::NotFound(_) | Error::Refused { .. } | Error::Conflict(_)),
        "{refused:?}"
    );
    assert_eq!(c.inspect().state, State::Created);
}

#[test]
fn an_image_says_its_ports_and_its_health_check() {
    let plain = shared_image();
    let image = docker().image(&ImageRef::parse(&plain.0).unwrap()).unwrap();
    assert_eq!((image.exposed_ports.as_slice(), image.has_healthcheck), (&[81, 8080][..], false));

    let probed = TestImage::new(&[r#"HEALTHCHECK --interval=1s CMD ["/bin/busybox","test","-e","/up"]"#]);
    assert!(docker().image(&ImageRef::parse(&probed.0).unwrap()).unwrap().has_healthcheck);
    let (mut events, _aborter) = docker().events(None).unwrap();
    let c = Container::with(Arc::new(probed), ": > /up; exec sleep 100", |spec| spec).started();
    eventually(|| c.inspect().health, |health| *health == Health::Healthy);
    let seen = actions_until(&mut events, &c.id, Action::Health);
    assert_eq!(seen, [Action::Create, Action::Start, Action::Health], "and none of the probe's own events");
}

#[test]
fn a_name_that_could_begin_an_id_never_means_another_container() {
    let c = Container::new("sleep 100").started();
    let prefix = ContainerName::parse(&c.id.as_str()[..12]).unwrap();
    let docker = &c.docker;
    for call in [
        docker.inspect(&prefix).map(drop),
        docker.stop(&prefix, 0),
        docker.start(&prefix),
        docker.pause(&prefix),
        docker.logs_tail(&prefix, 1).map(drop),
    ] {
        assert!(matches!(call, Err(Error::NotFound(_))), "{call:?}");
    }
    docker.remove(&prefix, true).unwrap();
    assert_eq!(c.inspect().state, State::Running);

    let name = ContainerName::parse(&unique("ad").replace('-', "")).unwrap();
    let hex =
        Container::with(shared_image(), "sleep 100", |spec| Spec { name: name.clone(), ..spec }).started();
    assert_eq!(docker.inspect(&name).unwrap().id, hex.id);
    docker.stop(&name, 0).unwrap();
    docker.remove(&name, false).unwrap();
}

#[test]
fn a_terminals_log_is_read_without_frames() {
    let run = "echo one; printf '\\033[31mtwo\\033[0m\\n'";
    let c = Container::foreign(run, &json!({"Tty": true, "HostConfig": {"NetworkMode": "none"}})).started();
    assert!(c.inspect().tty);
    eventually(|| c.docker.logs_tail(&c.id, 10).unwrap(), |log| log == "one\ntwo\n");
}

#[test]
fn a_published_port_is_on_loopback_and_chosen_by_the_engine() {
    let c = Container::with(shared_image(), "exec sleep 100", |spec| Spec {
        network: "bridge".to_owned(),
        publish: Some(8080),
        ..spec
    });
    assert!(c.inspect().published.is_empty());
    c.docker.start(&c.id).unwrap();
    let running = c.inspect();
    let socket: SocketAddr = running.published[&8080];
    assert!(socket.ip().is_loopback() && socket.port() != 0, "{socket}");
    let row = c.docker.list().unwrap().into_iter().find(|row| row.id == c.id).unwrap();
    assert_eq!(row.published, running.published);
    let bridge = ["bridge", "podman"].into_iter().find_map(|name| running.addresses.get(name));
    assert!(bridge.is_some(), "{:?}", running.addresses);
}

struct TestNetwork(String);

impl Drop for TestNetwork {
    fn drop(&mut self) {
        let _ = docker().remove_network(&self.0);
    }
}

fn networks_named(name: &str) -> usize {
    raw("GET", "/v1.41/networks", "", b"").1.matches(&format!("\"Name\":\"{name}\"")).count()
}

#[test]
fn our_network_is_made_once_however_many_ask_and_separates_containers() {
    let docker = docker();
    let network = TestNetwork(unique("muelle-test"));
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| docker.ensure_network(&network.0, "test").unwrap());
        }
    });
    assert_eq!(networks_named(&network.0), 1);
    let made = docker.ensure_network(&network.0, "test").unwrap();
    let gateway = made.gateway.unwrap();
    assert!(std::net::UdpSocket::bind((gateway, 0)).is_ok(), "the host has the gateway's address");
    assert!(matches!(docker.ensure_network(&network.0, "other"), Err(Error::Conflict(_))));

    let on = |spec: Spec| Spec { network: network.0.clone(), ..spec };
    let server = Container::with(shared_image(), "exec busybox httpd -f -p 8080", on).started();
    let address = server.inspect().addresses[&network.0];
    let from_the_host = eventually(
        || {
            let mut stream = TcpStream::connect_timeout(&(address, 8080).into(), SOON)?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        },
        Result::is_ok,
    );
    assert!(from_the_host.unwrap().starts_with("HTTP/1"));

    let run = format!(
        "for to in {address} {gateway}; do busybox ping -c 1 -W 1 $to > /dev/null && echo heard || echo silence; done"
    );
    let peer = Container::foreign(&run, &json!({"HostConfig": {"NetworkMode": network.0}})).started();
    let heard = eventually(|| peer.docker.logs_tail(&peer.id, 9).unwrap(), |log| log.lines().count() == 2);
    assert_eq!(heard, "silence\nheard\n", "a container reaches the gateway but no other container");

    assert!(matches!(docker.remove_network(&network.0), Err(Error::Refused { .. })));
    drop((server, peer));
    docker.remove_network(&network.0).unwrap();
    docker.remove_network(&network.0).unwrap();
}

#[test]
fn a_network_of_that_name_that_lets_containers_talk_is_refused() {
    let network = TestNetwork(unique("muelle-test"));
    let body =
        format!(r#"{{"Name":"{}","Labels":{{"{LABEL_INSTANCE}":"test","muelle.test":"1"}}}}"#, network.0);
    assert_eq!(raw("POST", "/v1.41/networks/create", "application/json", body.as_bytes()).0, 201);
    assert!(matches!(docker().ensure_network(&network.0, "test"), Err(Error::Conflict(_))));
    assert!(matches!(docker().ensure_network("bridge", "test"), Err(Error::Conflict(_))));
}
