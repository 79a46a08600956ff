//! From a repository to a running app, and what happens to the version before: real git, real builds, real containers.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::engine::{self, WEB};
use crate::harness::git_server::{GitServer, Manner, Repo};
use crate::harness::{Client, Event, Server, Stream, eventually};

const SOON: Duration = Duration::from_secs(30);
/// A test's repositories are on this machine, without TLS.
pub const HTTP: &str = "[deploy]\nallow_http = true\n";

/// A page that says `word`.
pub fn page(word: &str) -> [(&'static str, String); 2] {
    [("Dockerfile", dockerfile("exec busybox httpd -f -p 8080 -h /site")), ("index.html", word.to_owned())]
}

/// On the image that the tests have; `command` runs in the container.
pub fn dockerfile(command: &str) -> String {
    format!(
        "FROM {WEB}\nCOPY index.html /site/index.html\nCMD {}\n",
        json!(["/bin/busybox", "sh", "-c", command])
    )
}

pub fn commit(repo: &Repo, files: &[(&'static str, String)]) -> String {
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    repo.commit(&files)
}

/// Everything that a test of deployments starts with.
pub struct Stage {
    pub git: GitServer,
    pub repo: Repo,
    pub server: Server,
    pub ana: Client,
}

impl Stage {
    pub fn new() -> Stage {
        Stage::with(HTTP)
    }

    pub fn with(config: &str) -> Stage {
        Stage::on(Server::prepare(config))
    }

    /// With a server that does not run yet.
    pub fn on(mut server: Server) -> Stage {
        engine::ensure_web_image();
        server.run();
        let git = GitServer::start();
        let (repo, ana) = (git.repo("app"), server.admin());
        Stage { git, repo, server, ana }
    }

    /// Creates the project; gives its id.
    pub fn create(&self, more: &Value) -> String {
        let mut body = json!({"name": "App", "github_url": self.git.url("app")});
        body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        let made = self.ana.post("/api/projects", &body).ok(201)["project"].clone();
        assert_eq!((&made["status"], &made["source"]), (&json!("deploying"), &json!("git")));
        made["id"].as_str().unwrap().to_owned()
    }

    /// Creates it with a page, and waits until that is served.
    pub fn running(&self, word: &str) -> String {
        commit(&self.repo, &page(word));
        let id = self.create(&json!({}));
        self.ana.await_status(&id, "running", SOON);
        assert_eq!(self.says(&id), word);
        id
    }

    /// A stream in which the project was told to be running.
    pub fn watch(&self, id: &str) -> Stream {
        let stream = self.server.stream(&self.ana);
        stream.until_status(id, "running", SOON);
        stream
    }

    pub fn project(&self, id: &str) -> Value {
        self.ana.get(&format!("/api/projects/{id}")).ok(200)["project"].clone()
    }

    pub fn rebuild(&self, id: &str) -> u64 {
        let answer = self.ana.post(&format!("/api/containers/{id}/rebuild"), &json!({})).ok(202);
        assert_eq!(answer["status"], "deploying");
        answer["deployment"]["number"].as_u64().unwrap()
    }

    pub fn deployment(&self, id: &str, number: u64) -> Value {
        self.ana.get(&format!("/api/projects/{id}/deployments/{number}")).ok(200)["deployment"].clone()
    }

    /// Waits until a deployment has ended; gives it.
    #[track_caller]
    pub fn ended(&self, id: &str, number: u64) -> Value {
        self.ended_within(id, number, SOON)
    }

    #[track_caller]
    pub fn ended_within(&self, id: &str, number: u64, limit: Duration) -> Value {
        eventually("the deployment ends", limit, || {
            let answer = self.ana.get(&format!("/api/projects/{id}/deployments/{number}"));
            let it = answer.body["deployment"].clone();
            if it["ended_at"].is_null() { Err(answer.text) } else { Ok(it) }
        })
    }

    pub fn log(&self, id: &str, number: u64) -> String {
        let answer = self.ana.get(&format!("/api/projects/{id}/deployments/{number}/log"));
        assert_eq!(answer.status, 200);
        answer.text
    }

    /// What the app answers at the address that the project has now.
    pub fn says(&self, id: &str) -> String {
        let url = self.project(id)["url"].as_str().unwrap().to_owned();
        get(&url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    /// Nothing half done: one container at the most, no checkout, no git.
    #[track_caller]
    pub fn assert_tidy(&self, id: &str) {
        eventually("one container is left", SOON, || {
            let found = containers(id);
            if found.len() <= 1 { Ok(()) } else { Err(found) }
        });
        // The worker gives up a moment after the deployment has.
        eventually("no checkout is left", SOON, || {
            let checkouts =
                fs::read_dir(self.server.data().join("checkouts")).into_iter().flatten().flatten();
            let left: Vec<_> = checkouts.map(|it| it.path()).collect();
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
}

/// The names of the project's containers.
pub fn containers(id: &str) -> Vec<String> {
    let found = engine::labelled(&format!("muelle.project={id}"));
    found.iter().map(|it| it["Names"][0].as_str().unwrap().to_owned()).collect()
}

pub fn images(id: &str) -> Vec<String> {
    let filters =
        crate::harness::image::encoded(&json!({"label": [format!("muelle.project={id}")]}).to_string());
    let (_, found) = engine::json("GET", &format!("/images/json?filters={filters}"), &Value::Null);
    let tags = found
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|it| it["RepoTags"].as_array().cloned().unwrap_or_default());
    let mut tags: Vec<String> = tags.map(|tag| tag.as_str().unwrap().to_owned()).collect();
    tags.sort();
    tags
}

/// What a repository's host signs its message with.
fn signature(body: &str, secret: &str) -> String {
    let mac = hmac_sha256::HMAC::mac(body.as_bytes(), secret);
    mac.iter().fold("sha256=".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

pub fn garbage() -> Manner {
    Manner::Answer("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmoon".to_owned())
}

/// The body of a page.
pub fn get(url: &str) -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    let host = url.strip_prefix("http://").ok_or("no address")?;
    let mut socket = TcpStream::connect(host).map_err(text)?;
    socket.set_read_timeout(Some(Duration::from_secs(5))).map_err(text)?;
    write!(socket, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").map_err(text)?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).map_err(text)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("no answer: {answer}"))?;
    if head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.0 200") {
        Ok(body.to_owned())
    } else {
        Err(answer)
    }
}

/// What is told of a project until a step is reached.
fn progress_until(stream: &Stream, step: &str) -> Vec<Event> {
    let (last, mut before) =
        stream.until(step, SOON, |it| it.name == "deployment_progress" && it.data["step"] == step);
    before.push(last);
    before
}

#[test]
fn a_repository_becomes_a_running_app_and_every_step_is_told() {
    let stage = Stage::new();
    let head = commit(&stage.repo, &page("first"));
    let stream = stage.server.stream(&stage.ana);
    let id = stage.create(&json!({}));
    let told = progress_until(&stream, "ready");
    let progress: Vec<&Event> = told.iter().filter(|it| it.name == "deployment_progress").collect();
    let mut steps: Vec<&str> = progress.iter().map(|it| it.data["step"].as_str().unwrap()).collect();
    steps.dedup();
    assert_eq!(steps, ["queued", "clone", "build", "start", "ready"]);
    assert!(progress.iter().map(|it| it.data["progress"].as_u64().unwrap()).is_sorted(), "{progress:#?}");
    assert_eq!(progress.last().unwrap().data["progress"], 100);
    for it in &progress {
        assert_eq!((&it.data["projectId"], &it.data["level"]), (&json!(id), &json!("info")));
        assert!(
            it.data["message"].as_str().is_some_and(|text| !text.is_empty())
                && it.data["timestamp"].is_string()
        );
    }
    stage.ana.await_status(&id, "running", SOON);
    assert_eq!(stage.says(&id), "first");
    let project = stage.project(&id);
    let deployment = &project["deployment"];
    assert_eq!(
        (&project["github_url"], &project["template"]),
        (&json!(stage.git.url("app")), &json!("static"))
    );
    assert_eq!((&deployment["status"], &deployment["commit"]), (&json!("ready"), &json!(head)));
    assert_eq!((&deployment["number"], &deployment["current"]), (&json!(1), &json!(true)));
    let log = stage.log(&id, 1);
    for line in ["Fetching http://", &head[..12], "Step 3/", "Successfully tagged", "The new version serves"]
    {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert_eq!(containers(&id), [format!("/muelle-{id}-1")]);
    stage.assert_tidy(&id);
}

#[test]
fn a_redeploy_takes_over_when_it_is_ready_and_then_the_old_version_goes() {
    let stage = Stage::new();
    let id = stage.running("first");
    commit(&stage.repo, &page("second"));
    let stream = stage.watch(&id);
    assert_eq!(stage.rebuild(&id), 2);
    assert_eq!(stream.statuses_until(&id, "running", SOON), ["deploying", "running"]);
    assert_eq!(stage.says(&id), "second");
    assert_eq!(stage.deployment(&id, 2)["cause"], "asked");
    assert_eq!(containers(&id).len(), 2, "the old one serves those who still have its address");
    eventually("the old one is gone", SOON, || {
        let left = containers(&id);
        if left == [format!("/muelle-{id}-2")] { Ok(()) } else { Err(left) }
    });
    stage.assert_tidy(&id);
}

#[test]
fn a_first_deployment_that_fails_is_an_error_with_its_reason_and_start_deploys_anew() {
    let stage = Stage::new();
    commit(&stage.repo, &[("README.md", "nothing to run".to_owned())]);
    let stream = stage.server.stream(&stage.ana);
    let id = stage.create(&json!({}));
    let event = stream.until_status(&id, "error", SOON);
    let reason = event.data["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("It cannot be built: ") && reason.contains("Dockerfile"), "{reason}");
    let failed = stage.deployment(&id, 1);
    assert_eq!(failed["step"], "build", "it was fetched");
    assert_eq!((&failed["status"], &failed["reason"]), (&json!("failed"), &json!(reason)));
    assert!(stage.log(&id, 1).ends_with(&format!("failed: {reason}\n")));
    commit(&stage.repo, &page("mended"));
    let answer = stage.ana.post(&format!("/api/containers/{id}/start"), &json!({})).ok(200);
    assert_eq!(answer["status"], "deploying");
    stage.ana.await_status(&id, "running", SOON);
    assert_eq!(stage.says(&id), "mended");
}

#[test]
fn case_144_a_deployment_that_fails_at_any_step_leaves_the_old_version_as_it_is() {
    let stage = Stage::new();
    let id = stage.running("first");
    let container = containers(&id);
    let began = engine::inspect(&container[0][1..])["State"]["StartedAt"].clone();
    let broken = |text: &str| [("Dockerfile", text.to_owned()), ("index.html", "broken".to_owned())];
    let crash = dockerfile("echo cannot find the moon >&2; exit 3");
    for (step, files, sentence) in [
        ("clone", None, "git"),
        ("clone", Some(broken("FROM nowhere:1")), "nowhere"),
        ("build", Some(broken(&format!("FROM {WEB}\nRUN [\"/bin/busybox\", \"false\"]"))), "false"),
        ("build", Some(broken("FORM x")), "FORM"),
        ("start", Some(broken(&format!("FROM {WEB}\nCMD [\"/no/such/program\"]"))), "no/such/program"),
        ("start", Some(broken(&crash)), "cannot find the moon"),
    ] {
        let stream = stage.watch(&id);
        stage.git.behave(if files.is_some() { Manner::Honest } else { garbage() });
        if let Some(files) = &files {
            commit(&stage.repo, files);
        }
        let number = stage.rebuild(&id);
        assert_eq!(stream.statuses_until(&id, "running", SOON), ["deploying", "running"], "{sentence}");
        let failed = stage.ended(&id, number);
        let reason = failed["reason"].as_str().unwrap();
        assert_eq!(failed["status"], "failed", "{failed}");
        assert!(reason.contains(sentence) || step == "clone", "{step}: {reason}");
        let project = stage.project(&id);
        assert_eq!(project["reason"], format!("The last deployment failed: {reason}"));
        assert_eq!(stage.says(&id), "first");
        assert_eq!(stage.deployment(&id, 1)["current"], true);
        stage.assert_tidy(&id);
    }
    assert_eq!(containers(&id), container);
    assert_eq!(engine::inspect(&container[0][1..])["State"]["StartedAt"], began, "it was never touched");
}

#[test]
fn an_app_that_does_not_get_well_does_not_take_over() {
    let stage = Stage::new();
    let id = stage.running("first");
    let path = json!({"health_path": "/health"});
    assert_eq!(
        stage.ana.patch(&format!("/api/projects/{id}"), &path).ok(200)["project"]["health_path"],
        "/health"
    );
    commit(&stage.repo, &page("no health"));
    let number = stage.rebuild(&id);
    eventually("the new one runs", SOON, || {
        let found = containers(&id);
        if found.contains(&format!("/muelle-{id}-2")) { Ok(()) } else { Err(found) }
    });
    let cancel = format!("/api/projects/{id}/deployments/{number}/cancel");
    assert_eq!(stage.deployment(&id, number)["step"], "start", "it answers 404 there");
    stage.ana.post(&cancel, &json!({})).ok(200);
    stage.ana.await_status(&id, "running", SOON);
    assert_eq!(stage.says(&id), "first");
    let mut files = page("well").to_vec();
    files.push(("health", "ok".to_owned()));
    files[0].1 = format!(
        "FROM {WEB}\nCOPY . /site/\nCMD {}\n",
        json!(["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/site"])
    );
    commit(&stage.repo, &files);
    let number = stage.rebuild(&id);
    assert_eq!(stage.ended(&id, number)["status"], "ready");
    assert_eq!(stage.says(&id), "well");
}

#[test]
fn one_goes_back_to_an_earlier_version_without_a_build() {
    let stage = Stage::new();
    let id = stage.running("first");
    for word in ["second", "third"] {
        commit(&stage.repo, &page(word));
        let number = stage.rebuild(&id);
        assert_eq!(stage.ended(&id, number)["status"], "ready");
    }
    let rollback = |body: &Value| stage.ana.post(&format!("/api/projects/{id}/rollback"), body);
    stage.git.behave(garbage());
    let answer = rollback(&json!({})).ok(202);
    assert_eq!(
        (&answer["deployment"]["cause"], &answer["deployment"]["of"]),
        (&json!("rollback"), &json!(2))
    );
    assert_eq!(stage.ended(&id, 4)["status"], "ready");
    assert_eq!(stage.says(&id), "second");
    rollback(&json!({"deployment": 1})).ok(202);
    assert_eq!(stage.ended(&id, 5)["status"], "ready");
    assert_eq!(stage.says(&id), "first");
    assert_eq!(rollback(&json!({"deployment": 99})).error(404), "NotFound");
    assert_eq!(rollback(&json!({"deployment": "1"})).error(400), "ValidationError");
    let listed = stage.ana.get(&format!("/api/projects/{id}/deployments")).ok(200)["deployments"].clone();
    let numbers: Vec<u64> =
        listed.as_array().unwrap().iter().map(|it| it["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [5, 4, 3, 2, 1]);
    assert_eq!(listed[0]["current"], true);
}

#[test]
fn a_first_version_that_does_not_come_up_is_an_error_and_at_no_time_stopped() {
    let stage = Stage::new();
    let crash = dockerfile("echo cannot find the moon >&2; exit 3");
    commit(&stage.repo, &[("Dockerfile", crash), ("index.html", String::new())]);
    let stream = stage.server.stream(&stage.ana);
    let id = stage.create(&json!({}));
    assert_eq!(stream.statuses_until(&id, "error", SOON), ["deploying", "error"]);
    assert!(stage.log(&id, 1).contains("\nStarting the new version\nfailed: Exited with code 3"));
}

#[test]
fn to_go_back_while_a_newer_version_starts_and_another_waits_ends_both_and_shows_no_moment_between() {
    let stage = Stage::new();
    let id = stage.running("first");
    commit(&stage.repo, &page("second"));
    let number = stage.rebuild(&id);
    assert_eq!(stage.ended(&id, number)["status"], "ready");
    let never = [("Dockerfile", dockerfile("busybox sleep 99999")), ("index.html", String::new())];
    commit(&stage.repo, &never);
    let starting = stage.rebuild(&id);
    eventually("it starts", SOON, || {
        let it = stage.deployment(&id, starting);
        if it["step"] == "start" { Ok(()) } else { Err(it) }
    });
    let waiting = stage.rebuild(&id);
    let stream = stage.server.stream(&stage.ana);
    stream.until_status(&id, "deploying", SOON);
    stage.ana.post(&format!("/api/projects/{id}/rollback"), &json!({"deployment": 1})).ok(202);
    let told = progress_until(&stream, "ready");
    let statuses: Vec<&Value> = told.iter().map(|it| &it.data["status"]).filter(|it| !it.is_null()).collect();
    assert_eq!(statuses, Vec::<&Value>::new(), "it was deploying all the time");
    let progress: Vec<&Event> = told.iter().filter(|it| it.name == "deployment_progress").collect();
    let queued = progress.iter().position(|it| it.data["step"] == "queued").expect("its first step");
    assert_eq!(progress[queued].data["message"], "Going back to deployment 1");
    assert!(progress[queued..].iter().map(|it| it.data["progress"].as_u64().unwrap()).is_sorted());
    stage.ana.await_status(&id, "running", SOON);
    assert_eq!(stage.says(&id), "first");
    for number in [starting, waiting] {
        assert_eq!(stage.deployment(&id, number)["status"], "superseded");
    }
    stage.assert_tidy(&id);
}

#[test]
fn a_version_that_crashes_soon_after_it_took_over_gives_way_to_the_one_before_by_itself() {
    let stage = Stage::new();
    let id = stage.running("first");
    let mut files = page("second");
    files[0].1 = dockerfile("busybox httpd -p 8080 -h /site; busybox sleep 2; exit 4");
    commit(&stage.repo, &files);
    let stream = stage.server.stream(&stage.ana);
    let number = stage.rebuild(&id);
    assert_eq!(stage.ended(&id, number)["status"], "ready");
    let told = |it: &Event| it.name == "deployment_progress" && it.data["level"] == "error";
    let (event, _) = stream.until("the crash is told", SOON, told);
    let message = event.data["message"].as_str().unwrap();
    assert!(
        message.contains("Exited with code 4") && message.ends_with("going back to deployment 1"),
        "{message}"
    );
    assert_eq!(stage.ended(&id, 3)["status"], "ready");
    assert_eq!(
        (stage.deployment(&id, 2)["status"].clone(), stage.deployment(&id, 3)["cause"].clone()),
        (json!("failed"), json!("recovery"))
    );
    stage.ana.await_status(&id, "running", SOON);
    assert_eq!(stage.says(&id), "first");
    stage.assert_tidy(&id);
}

#[test]
fn case_54_of_many_requests_at_once_one_runs_and_the_newest_waits() {
    let stage = Stage::new();
    let id = stage.running("first");
    stage.git.behave(Manner::Silent);
    let running = stage.rebuild(&id);
    eventually("it is under way", SOON, || {
        let it = stage.deployment(&id, running);
        if it["status"] == "running" { Ok(()) } else { Err(it) }
    });
    let numbers: Vec<u64> = (0..50).map(|_| stage.rebuild(&id)).collect();
    let listed = stage.ana.get(&format!("/api/projects/{id}/deployments")).ok(200)["deployments"].clone();
    let with = |status: &str| {
        let found = listed.as_array().unwrap().iter().filter(|it| it["status"] == status);
        found.map(|it| it["number"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((with("running"), with("queued")), (vec![running], vec![*numbers.last().unwrap()]));
    assert_eq!(with("superseded").len(), 49);
    stage.git.behave(Manner::Honest);
    stage.ana.post(&format!("/api/projects/{id}/deployments/{running}/cancel"), &json!({})).ok(200);
    assert_eq!(stage.ended(&id, *numbers.last().unwrap())["status"], "ready");
}

#[test]
fn a_deployment_is_given_up_while_it_waits_and_while_it_builds() {
    let stage = Stage::new();
    let id = stage.running("first");
    commit(
        &stage.repo,
        &[("Dockerfile", format!("FROM {WEB}\nRUN [\"/bin/busybox\", \"sleep\", \"99999\"]"))],
    );
    let building = stage.rebuild(&id);
    eventually("it builds", SOON, || {
        let it = stage.log(&id, building);
        if it.contains("Running in") { Ok(()) } else { Err(it) }
    });
    let waiting = stage.rebuild(&id);
    let cancel =
        |number: u64| stage.ana.post(&format!("/api/projects/{id}/deployments/{number}/cancel"), &json!({}));
    cancel(waiting).ok(200);
    assert_eq!(stage.ended(&id, waiting)["status"], "cancelled");
    assert_eq!(stage.ana.status(&id), "deploying");
    cancel(building).ok(200);
    assert_eq!(stage.ended(&id, building)["status"], "cancelled");
    stage.ana.await_status(&id, "running", SOON);
    cancel(building).ok(200);
    assert_eq!(cancel(1).error(409), "NotUnderWay");
    assert_eq!(cancel(99).error(404), "NotFound");
    eventually("the build's container is gone", SOON, || {
        let (_, all) = engine::json("GET", "/containers/json?all=1", &Value::Null);
        let sleeps = all
            .as_array()
            .unwrap()
            .iter()
            .filter(|it| it["Command"].as_str().is_some_and(|c| c.contains("99999")));
        let left: Vec<_> = sleeps.collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    stage.assert_tidy(&id);
}

#[test]
fn case_61_what_is_stopped_while_it_builds_is_built_and_not_started() {
    let stage = Stage::new();
    commit(
        &stage.repo,
        &[(
            "Dockerfile",
            format!(
                "FROM {WEB}\nRUN [\"/bin/busybox\", \"sleep\", \"2\"]\nCMD {}",
                json!(["/bin/busybox", "sh", "-c", engine::SERVE])
            ),
        )],
    );
    let id = stage.create(&json!({}));
    eventually("it builds", SOON, || {
        let it = stage.deployment(&id, 1);
        if it["step"] == "build" { Ok(()) } else { Err(it) }
    });
    stage.ana.post(&format!("/api/containers/{id}/stop"), &json!({})).ok(200);
    assert_eq!(stage.ana.status(&id), "stopped");
    assert_eq!(stage.ended(&id, 1)["status"], "ready");
    assert_eq!((stage.ana.status(&id).as_str(), containers(&id).len()), ("stopped", 0));
    stage.ana.post(&format!("/api/containers/{id}/start"), &json!({})).ok(200);
    stage.ana.await_status(&id, "running", SOON);
    assert_eq!(stage.says(&id), "hello");
    assert_eq!(containers(&id), [format!("/muelle-{id}-1")]);
    // As the store has it, too: the list no longer knows it from memory.
    commit(&stage.repo, &page("second"));
    let second = stage.rebuild(&id);
    assert_eq!(stage.ended(&id, second)["status"], "ready");
    assert_eq!(stage.deployment(&id, 1)["status"], "ready");
}

#[test]
fn a_project_that_is_deleted_while_it_is_built_leaves_nothing() {
    let stage = Stage::new();
    let id = stage.running("first");
    let slow = format!(
        "FROM {WEB} AS one\nRUN [\"/bin/busybox\", \"touch\", \"/{id}\"]\nFROM {WEB}\nCOPY --from=one /{id} /x\nRUN [\"/bin/busybox\", \"sleep\", \"99999\"]"
    );
    commit(&stage.repo, &[("Dockerfile", slow)]);
    let number = stage.rebuild(&id);
    eventually("it builds", SOON, || {
        let it = stage.log(&id, number);
        if it.contains("Step 5/5") && it.ends_with("Running in") || it.contains("sleep") {
            Ok(())
        } else {
            Err(it)
        }
    });
    stage.ana.delete(&format!("/api/projects/{id}")).ok(200);
    assert_eq!(stage.ana.get(&format!("/api/projects/{id}")).error(404), "NotFound");
    eventually("everything of it is gone", SOON, || {
        let left = (containers(&id), images(&id), stage.server.data().join("deployments").join(&id).exists());
        if left == (vec![], vec![], false) { Ok(()) } else { Err(left) }
    });
    let nameless = crate::harness::image::encoded(r#"{"dangling":["true"]}"#);
    let (_, nameless) = engine::json("GET", &format!("/images/json?filters={nameless}"), &Value::Null);
    for image in nameless.as_array().unwrap() {
        let made = engine::text(&format!("/images/{}/history", image["Id"].as_str().unwrap()));
        assert!(!made.contains(&id), "an image without a name is left: {made}");
    }
    stage.assert_tidy(&id);
}

#[test]
fn case_106_107_a_server_that_is_killed_in_the_middle_interrupts_the_deployment_and_cleans_up() {
    let mut stage = Stage::new();
    let id = stage.running("first");
    let slow_start = dockerfile("busybox sleep 99999");
    let slow_build = format!("FROM {WEB}\nRUN [\"/bin/busybox\", \"sleep\", \"99999\"]");
    for (n, (dockerfile, step)) in [(slow_build, "build"), (slow_start, "start")].into_iter().enumerate() {
        for terminate in [false, true] {
            commit(
                &stage.repo,
                &[("Dockerfile", dockerfile.clone()), ("index.html", format!("{n}{terminate}"))],
            );
            let number = stage.rebuild(&id);
            eventually("it is under way", SOON, || {
                let it = stage.deployment(&id, number);
                if it["step"] == step { Ok(()) } else { Err(it) }
            });
            if terminate {
                assert_eq!(stage.server.terminate(), Some(0));
            } else {
                stage.server.kill();
            }
            stage.server.run();
            stage.ana = stage.ana.with_base(&stage.server.base);
            stage.server.await_engine();
            let ended = stage.deployment(&id, number);
            assert_eq!(ended["status"], "interrupted", "{ended}");
            stage.ana.await_status(&id, "running", SOON);
            assert_eq!(stage.says(&id), "first");
            stage.assert_tidy(&id);
            assert_eq!(containers(&id), [format!("/muelle-{id}-1")]);
        }
    }
}

#[test]
fn what_waits_for_its_turn_is_deployed_after_a_restart() {
    let mut stage = Stage::new();
    commit(&stage.repo, &page("late"));
    stage.git.behave(Manner::Silent);
    let first = stage.create(&json!({}));
    let second = stage
        .ana
        .post("/api/projects", &json!({"name": "Second", "github_url": stage.git.url("app")}))
        .ok(201);
    let second = second["project"]["id"].as_str().unwrap().to_owned();
    eventually("the first is under way", SOON, || {
        let it = stage.deployment(&first, 1);
        if it["step"] == "clone" { Ok(()) } else { Err(it) }
    });
    assert_eq!(stage.deployment(&second, 1)["status"], "queued");
    stage.server.kill();
    stage.git.behave(Manner::Honest);
    stage.server.run();
    stage.ana = stage.ana.with_base(&stage.server.base);
    stage.ana.await_status(&second, "running", SOON);
    assert_eq!(stage.says(&second), "late");
    let project = stage.project(&first);
    assert_eq!(
        (&project["status"], &project["deployment"]["status"]),
        (&json!("error"), &json!("interrupted"))
    );
    stage.ana.post(&format!("/api/containers/{first}/start"), &json!({})).ok(200);
    stage.ana.await_status(&first, "running", SOON);
}

#[test]
fn a_push_to_the_branch_deploys_once_and_everything_else_does_nothing() {
    let stage = Stage::new();
    let id = stage.running("first");
    let hook = format!("/api/hooks/github/{id}");
    let anybody = stage.server.client();
    let signed = |secret: &str, event: &str, delivery: &str, body: &Value| {
        let body = body.to_string();
        let headers = [
            ("X-Hub-Signature-256", signature(&body, secret)),
            ("X-GitHub-Event", event.to_owned()),
            ("X-GitHub-Delivery", delivery.to_owned()),
        ];
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        anybody.send("POST", &hook, &headers, Some(body.as_bytes()))
    };
    let push = json!({"ref": "refs/heads/main", "after": "1f", "repository": {"default_branch": "main"}});
    assert_eq!(signed("x", "push", "d0", &push).error(404), "NotFound", "no secret, no endpoint");
    let made = stage.ana.post(&format!("/api/projects/{id}/webhook"), &json!({})).ok(201)["webhook"].clone();
    assert_eq!(made["path"], hook);
    let secret = made["secret"].as_str().unwrap().to_owned();
    assert!(!stage.project(&id).to_string().contains(&secret), "it is shown once");
    assert_eq!(stage.project(&id)["has_webhook"], true);
    assert_eq!(signed("wrong", "push", "d1", &push).error(401), "BadSignature");
    assert_eq!(anybody.post(&hook, &push).error(401), "BadSignature");
    assert_eq!(signed(&secret, "ping", "d2", &json!({"zen": "x"})).ok(200)["message"], "pong");
    let other = json!({"ref": "refs/heads/other", "repository": {"default_branch": "main"}});
    let tag = json!({"ref": "refs/tags/main", "repository": {"default_branch": "main"}});
    let gone = json!({"ref": "refs/heads/main", "deleted": true, "repository": {"default_branch": "main"}});
    for (event, body) in [("push", &other), ("push", &tag), ("push", &gone), ("issues", &push), ("", &push)] {
        let answer = signed(&secret, event, "d3", body).ok(200);
        assert!(answer["message"].as_str().unwrap().starts_with("Nothing to do"), "{answer}");
    }
    assert_eq!(signed(&secret, "push", "d4", &json!({"zen": 1})).error(400), "ValidationError");
    commit(&stage.repo, &page("pushed"));
    let began = Instant::now();
    assert_eq!(signed(&secret, "push", "d5", &push).ok(202)["deployment"], 2);
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(
        signed(&secret, "push", "d5", &push).ok(200)["message"].as_str().unwrap().contains("known already")
    );
    assert_eq!(stage.ended(&id, 2)["status"], "ready");
    assert_eq!(
        (stage.deployment(&id, 2)["cause"].clone(), stage.says(&id)),
        (json!("pushed"), "pushed".to_owned())
    );
    stage.ana.delete(&format!("/api/projects/{id}/webhook")).ok(200);
    assert_eq!(signed(&secret, "push", "d6", &push).error(404), "NotFound");
}

#[test]
fn case_53_a_private_repositorys_token_opens_it_and_is_never_shown() {
    let stage = Stage::new();
    let token = "github_pat_canary9876543210";
    stage.git.demand(token);
    commit(&stage.repo, &page("private"));
    let id = stage.create(&json!({}));
    stage.ana.await_status(&id, "error", SOON);
    let reason = stage.project(&id)["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("git_token"), "{reason}");
    let path = format!("/api/projects/{id}");
    let patched = stage.ana.patch(&path, &json!({"git_token": token})).ok(200);
    assert_eq!(patched["project"]["has_git_token"], true);
    stage.rebuild(&id);
    stage.ana.await_status(&id, "running", SOON);
    assert_eq!(stage.says(&id), "private");
    let (_, history) = engine::json("GET", &format!("/images/{}/history", images(&id)[0]), &Value::Null);
    let inspected = engine::inspect(&format!("muelle-{id}-2"));
    let said = [
        patched.to_string(),
        stage.project(&id).to_string(),
        stage.log(&id, 1),
        stage.log(&id, 2),
        stage.server.log(),
        history.to_string(),
        inspected.to_string(),
    ];
    assert!(said.iter().all(|text| !text.contains("canary")), "{said:#?}");
    assert_eq!(
        stage.ana.patch(&path, &json!({"git_token": null})).ok(200)["project"]["has_git_token"],
        false
    );
}

#[test]
fn a_branch_is_deployed_as_it_is_set_and_settings_say_what_takes_a_new_container() {
    let stage = Stage::new();
    let id = stage.running("main");
    stage.repo.commit_entries(
        "work",
        &[("100644", b"Dockerfile", page("")[0].1.as_bytes()), ("100644", b"index.html", b"of work")],
    );
    let path = format!("/api/projects/{id}");
    let patched = stage.ana.patch(&path, &json!({"branch": "work"})).ok(200)["project"].clone();
    assert_eq!((&patched["branch"], patched.get("restartRequired")), (&json!("work"), None));
    let number = stage.rebuild(&id);
    assert_eq!(stage.ended(&id, number)["status"], "ready");
    assert_eq!(stage.says(&id), "of work");
    let patched =
        stage.ana.patch(&path, &json!({"env": {"A": "b"}, "memory_mb": 64})).ok(200)["project"].clone();
    assert_eq!(patched["restartRequired"], true);
    stage.ana.post(&format!("/api/containers/{id}/restart"), &json!({})).ok(200);
    eventually("the new container has them", SOON, || {
        let found = engine::inspect(&format!("muelle-{id}-{number}"));
        if found["HostConfig"]["Memory"] == 64 << 20 && found["Config"]["Env"].to_string().contains("A=b") {
            Ok(())
        } else {
            Err(found["Config"]["Env"].clone())
        }
    });
    stage.ana.await_status(&id, "running", SOON);
    let number = {
        stage.ana.patch(&path, &json!({"branch": "gone"})).ok(200);
        stage.rebuild(&id)
    };
    let failed = stage.ended(&id, number);
    assert!(failed["reason"].as_str().unwrap().contains("gone"), "{failed}");
    assert_eq!(stage.ana.patch(&path, &json!({"branch": null})).ok(200)["project"].get("branch"), None);
}

#[test]
fn the_port_that_an_image_names_is_the_apps_and_port_tells_another() {
    let stage = Stage::new();
    let serve = "busybox mkdir -p /site; echo -n on $PORT > /site/index.html; exec busybox httpd -f -p $PORT -h /site";
    commit(
        &stage.repo,
        &[("Dockerfile", dockerfile(serve) + "EXPOSE 9000\n"), ("index.html", String::new())],
    );
    let id = stage.create(&json!({}));
    // The base exposes a port, too: of two neither is known, and the app is told 8080.
    stage.ana.await_status(&id, "running", SOON);
    assert_eq!(stage.says(&id), "on 8080");
    stage.ana.patch(&format!("/api/projects/{id}"), &json!({"port": 7777})).ok(200);
    let number = stage.rebuild(&id);
    assert_eq!(stage.ended(&id, number)["status"], "ready");
    assert_eq!(stage.says(&id), "on 7777");
}

#[test]
fn a_log_is_streamed_from_its_beginning_and_ends_with_the_outcome() {
    let stage = Stage::new();
    commit(
        &stage.repo,
        &[(
            "Dockerfile",
            format!(
                "FROM {WEB}\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo one; busybox sleep 1; echo two; false\"]"
            ),
        )],
    );
    let id = stage.create(&json!({}));
    let token = stage.ana.token.clone().unwrap();
    let path = format!("/api/projects/{id}/deployments/1/log/stream?token={token}");
    let (stream, _) = Stream::at(&stage.server.base, &path, "");
    let (end, lines) = stream.until("its end", SOON, |it| it.name == "end");
    assert_eq!(end.data["status"], "failed");
    let texts: Vec<&str> = lines.iter().map(|it| it.data["text"].as_str().unwrap()).collect();
    let at =
        |line: &str| texts.iter().position(|it| *it == line).unwrap_or_else(|| panic!("{line}: {texts:#?}"));
    assert!(at("one") < at("two"));
    assert!(texts.last().unwrap().starts_with("failed: "), "{texts:#?}");
    assert_eq!(stage.log(&id, 1).lines().collect::<Vec<_>>(), texts);
    let after = &lines[at("one")];
    let (rest, _) = Stream::at(&stage.server.base, &path, &format!("Last-Event-ID: {}\r\n", after.id));
    let (_, lines) = rest.until("its end", SOON, |it| it.name == "end");
    assert_eq!(lines[0].data["text"], texts[at("one") + 1]);
}

#[test]
fn images_that_are_not_kept_go() {
    let stage = Stage::with("[deploy]\nallow_http = true\nkeep_images = 1\n");
    let id = stage.create(&json!({}));
    stage.ana.await_status(&id, "error", SOON);
    let mut last = 0;
    for word in ["a", "b"] {
        commit(
            &stage.repo,
            &[(
                "Dockerfile",
                format!(
                    "FROM {WEB}\nRUN [\"/bin/busybox\", \"touch\", \"/{word}\"]\nRUN [\"/bin/busybox\", \"false\"]"
                ),
            )],
        );
        last = stage.rebuild(&id);
        assert_eq!(stage.ended(&id, last)["status"], "failed");
    }
    commit(&stage.repo, &page("first"));
    let first = stage.rebuild(&id);
    assert_eq!(stage.ended(&id, first)["status"], "ready");
    let instance = stage.server.instance();
    assert_eq!(images(&id), [format!("muelle-{instance}/{id}:{first}")]);
    assert_eq!(first, last + 1);
    stage.ana.post(&format!("/api/containers/{id}/stop"), &json!({})).ok(200);
    stage.ana.await_status(&id, "stopped", SOON);
    commit(&stage.repo, &page("second"));
    // Of a stopped project nothing is started, and so nothing is on probation.
    let secret =
        stage.ana.post(&format!("/api/projects/{id}/webhook"), &json!({})).ok(201)["webhook"]["secret"]
            .clone();
    let body = json!({"ref": "refs/heads/main", "repository": {"default_branch": "main"}}).to_string();
    let headers = [
        ("X-Hub-Signature-256", signature(&body, secret.as_str().unwrap())),
        ("X-Gitea-Event", "push".to_owned()),
    ];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer =
        stage.ana.send("POST", &format!("/api/hooks/github/{id}"), &headers, Some(body.as_bytes())).ok(202);
    let second = answer["deployment"].as_u64().unwrap();
    assert_eq!(stage.ended(&id, second)["status"], "ready");
    assert_eq!(stage.ana.status(&id), "stopped");
    eventually("the older image is gone", SOON, || {
        let left = images(&id);
        if left == [format!("muelle-{instance}/{id}:{second}")] { Ok(()) } else { Err(left) }
    });
    let rollback = stage.ana.post(&format!("/api/projects/{id}/rollback"), &json!({"deployment": first}));
    assert_eq!(rollback.error(400), "ValidationError");
}

#[test]
fn the_image_of_a_version_that_did_not_take_over_goes_though_its_container_takes_long_to_end() {
    let stage = Stage::new();
    let id = stage.running("first");
    commit(
        &stage.repo,
        &[
            ("Dockerfile", dockerfile("trap '' TERM; echo deaf; while :; do sleep 1; done")),
            page("second")[1].clone(),
        ],
    );
    let number = stage.rebuild(&id);
    eventually("the new one runs and does not hear that it is to end", SOON, || {
        let said = engine::text(&format!("/containers/muelle-{id}-{number}/logs?stdout=1"));
        if said.contains("deaf") { Ok(()) } else { Err(said) }
    });
    let asked = Instant::now();
    stage.ana.post(&format!("/api/projects/{id}/deployments/{number}/cancel"), &json!({})).ok(200);
    let instance = stage.server.instance();
    eventually("its image is gone", SOON, || {
        let left = images(&id);
        if left == [format!("muelle-{instance}/{id}:1")] { Ok(()) } else { Err(left) }
    });
    assert!(asked.elapsed() > Duration::from_secs(5), "it did not take long");
    assert_eq!(stage.says(&id), "first");
}

#[test]
fn case_143_no_request_fails_while_it_is_redeployed() {
    let stage = Stage::new();
    let id = stage.running("0");
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    let (client, path) = (stage.ana.clone(), format!("/api/projects/{id}"));
    #[expect(clippy::disallowed_methods, reason = "a test's own thread, joined below")]
    let asking = std::thread::spawn(move || {
        let (mut asked, mut failed) = (0, Vec::new());
        let mut url = String::new();
        while stopped.recv_timeout(Duration::from_millis(20))
            == Err(crossbeam_channel::RecvTimeoutError::Timeout)
        {
            // The address as a person's browser would have it: at most 100 ms old.
            if asked % 5 == 0 {
                client.get(&path).ok(200)["project"]["url"].as_str().unwrap().clone_into(&mut url);
            }
            if let Err(error) = get(&url) {
                failed.push(format!("{asked} {url}: {error}"));
            }
            asked += 1;
        }
        (asked, failed)
    });
    for word in 1..=10 {
        commit(&stage.repo, &page(&word.to_string()));
        let number = stage.rebuild(&id);
        assert_eq!(stage.ended(&id, number)["status"], "ready");
        assert_eq!(stage.says(&id), word.to_string());
    }
    drop(stop);
    let (asked, failed) = asking.join().unwrap();
    assert!(asked > 200, "{asked}");
    assert_eq!(failed, Vec::<String>::new());
}

/// The files of a repository for the tests.
fn fixture(repo: &Repo, name: &str) {
    let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures")).join(name);
    let (mut folders, mut files) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.push((name, std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    repo.commit(&files);
}

#[test]
fn own_base_every_template_is_found_and_serves() {
    let images = "[deploy.images]\nstatic = \"muelle-base-static:1\"\nnode = \"muelle-base-node:1\"\npython = \"muelle-base-python:1\"\n";
    let stage = Stage::with(&format!("{HTTP}{images}"));
    for name in ["static", "react", "flask", "nodejs"] {
        let repo = stage.git.repo(name);
        fixture(&repo, name);
        let body = json!({"name": name, "github_url": stage.git.url(name), "env": {"VITE_WORD": "hi"}});
        let made = stage.ana.post("/api/projects", &body).ok(201);
        let id = made["project"]["id"].as_str().unwrap().to_owned();
        assert_eq!(stage.ended(&id, 1)["status"], "ready", "{}", stage.log(&id, 1));
        let project = stage.project(&id);
        assert_eq!(
            (&project["template"], &project["status"]),
            (&json!(name), &json!("running")),
            "{project}"
        );
        assert!(!stage.says(&id).is_empty());
        assert!(stage.log(&id, 1).contains(&format!("building it as {name}")), "{}", stage.log(&id, 1));
        stage.ana.delete(&format!("/api/projects/{id}")).ok(200);
        eventually("nothing of it is left", SOON, || {
            let left = (containers(&id), crate::deploy::images(&id));
            if left == (vec![], vec![]) { Ok(()) } else { Err(left) }
        });
    }
}

#[test]
fn a_container_of_a_version_that_nobody_knows_is_removed_whenever_it_is_found() {
    let stage = Stage::new();
    let id = stage.running("first");
    let labels =
        json!({"muelle.instance": stage.server.instance(), "muelle.project": id, "muelle.deployment": "77"});
    let body = json!({"Image": WEB, "Cmd": ["/bin/busybox", "sleep", "99999"], "Labels": labels});
    let path = format!("/containers/create?name=muelle-{id}-77");
    assert_eq!(engine::json("POST", &path, &body).0, 201);
    eventually("it is gone", SOON, || {
        let left = containers(&id);
        if left == [format!("/muelle-{id}-1")] { Ok(()) } else { Err(left) }
    });
    stage.ana.delete(&format!("/api/projects/{id}")).ok(200);
    eventually("and in nobody's way", SOON, || {
        let left = (containers(&id), images(&id));
        if left == (vec![], vec![]) { Ok(()) } else { Err(left) }
    });
}

#[test]
fn case_107_a_project_that_is_being_deleted_is_not_built_after_a_restart() {
    let mut stage = Stage::new();
    let id = stage.running("first");
    stage.git.behave(Manner::Silent);
    let second = stage.git.repo("other");
    commit(&second, &page("other"));
    let other = json!({"name": "Other", "github_url": stage.git.url("other")});
    stage.ana.post("/api/projects", &other).ok(201);
    let waiting = stage.rebuild(&id);
    assert_eq!(stage.deployment(&id, waiting)["status"], "queued");
    stage.ana.delete(&format!("/api/projects/{id}")).ok(200);
    stage.server.kill();
    stage.git.behave(Manner::Honest);
    stage.server.run();
    stage.ana = stage.ana.with_base(&stage.server.base);
    stage.server.await_engine();
    eventually("everything of it is gone", SOON, || {
        let left = (containers(&id), images(&id));
        if left == (vec![], vec![]) { Ok(()) } else { Err(left) }
    });
}

#[test]
fn a_newer_deployment_is_not_lost_when_the_version_that_it_mends_crashes() {
    let stage = Stage::new();
    let id = stage.running("first");
    let mut files = page("second");
    files[0].1 = dockerfile("busybox httpd -p 8080 -h /site; busybox sleep 3; exit 4");
    commit(&stage.repo, &files);
    let broken = stage.rebuild(&id);
    assert_eq!(stage.ended(&id, broken)["status"], "ready");
    let mut files = page("third");
    files[0].1 = format!(
        "FROM {WEB}\nRUN [\"/bin/busybox\", \"sleep\", \"5\"]\n{}",
        page("")[0].1.split_once('\n').unwrap().1
    );
    commit(&stage.repo, &files);
    let mending = stage.rebuild(&id);
    assert_eq!(stage.ended(&id, mending)["status"], "ready");
    assert_eq!(stage.deployment(&id, broken)["status"], "failed", "it crashed meanwhile");
    assert_eq!(stage.says(&id), "third");
    let listed = stage.ana.get(&format!("/api/projects/{id}/deployments")).ok(200)["deployments"].clone();
    assert_eq!(listed.as_array().unwrap().len(), 3, "nothing went back: {listed}");
}
