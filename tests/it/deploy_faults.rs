//! What goes wrong around deployments: builds that take what the host needs, disks that fill up, an engine that goes away, kills, and
//! many people at once.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::deploy::{HTTP, Stage, commit, containers, dockerfile, garbage, get, images, page};
use crate::harness::engine::{self, WEB};
use crate::harness::git_server::{FILE, Manner};
use crate::harness::own_engine::OwnEngine;
use crate::harness::{Answer, Client, Event, Server, Stream, eventually};
use crate::host::Disk;

const SOON: Duration = Duration::from_secs(30);
/// What is promised while a build does its worst.
const ANSWERED: Duration = Duration::from_secs(1);
/// What muelle's memory may grow by, in KiB, whatever is sent and said.
const GROWTH_KIB: u64 = 16 * 1024;

/// Words for busybox' shell in a Dockerfile; the mark finds their container.
fn run(mark: &str, words: &str) -> String {
    format!("RUN {}\n", json!(["/bin/busybox", "sh", "-c", format!(": {mark}; {words}")]))
}

/// The containers of builds that have this mark.
fn builds(mark: &str) -> Vec<Value> {
    let (_, all) = engine::json("GET", "/containers/json?all=1", &Value::Null);
    let ours = |it: &&Value| it["Command"].as_str().is_some_and(|command| command.contains(mark));
    all.as_array().unwrap().iter().filter(ours).cloned().collect()
}

/// The most memory that a process had since [`forget_peak`], in KiB.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// From now on the peak is what there is now (proc(5), `clear_refs`).
fn forget_peak(pid: u32) -> u64 {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    peak(pid)
}

/// Does something while somebody looks at their projects all the time; 99 of 100 looks are answered in time.
fn meanwhile<T>(client: &Client, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    let (done, mut took) = std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let mut took = Vec::new();
            while !over.load(Ordering::Acquire) {
                let began = Instant::now();
                client.get("/api/projects").ok(200);
                took.push(began.elapsed());
                std::thread::park_timeout(Duration::from_millis(10));
            }
            took
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Release);
        let took = looks.join().unwrap();
        (done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), took)
    });
    took.sort_unstable();
    let p99 = took[took.len() * 99 / 100];
    assert!(p99 < ANSWERED, "{p99:?} of {}", took.len());
    done
}

/// Deploys what must fail while `first` serves; gives the reason.
#[track_caller]
fn fails(stage: &Stage, id: &str, steps: &str, limit: Duration) -> String {
    commit(
        &stage.repo,
        &[("Dockerfile", format!("FROM {WEB}\n{steps}")), ("index.html", "broken".to_owned())],
    );
    let number = stage.rebuild(id);
    let ended = meanwhile(&stage.ana, || stage.ended_within(id, number, limit));
    let reason = ended["reason"].as_str().unwrap_or_default().to_owned();
    assert_eq!(ended["status"], "failed", "{ended}");
    assert!(stage.log(id, number).ends_with(&format!("failed: {reason}\n")), "{reason}");
    stage.ana.await_status(id, "running", SOON);
    assert_eq!(stage.says(id), "first");
    reason
}

#[track_caller]
fn assert_no_build(stage: &Stage, id: &str, mark: &str) {
    eventually("the build's container is gone", SOON, || {
        let left = builds(mark);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    stage.assert_tidy(id);
}

#[test]
fn case_91_a_build_that_never_ends_is_ended_by_its_deadline() {
    let stage = Stage::with("[deploy]\nallow_http = true\nbuild_timeout = \"3s\"\n");
    let id = stage.running("first");
    let began = Instant::now();
    let reason = fails(&stage, &id, &run(&id, "busybox sleep 99999"), SOON);
    assert_eq!(reason, "The build took longer than 3s");
    assert!(began.elapsed() > Duration::from_secs(3));
    assert_no_build(&stage, &id, &id);
}

#[test]
fn case_91_a_build_that_prints_without_end_is_ended_by_the_bound_on_its_output() {
    let stage = Stage::new();
    let id = stage.running("first");
    for (n, words) in [
        "busybox yes",
        "busybox yes ''",
        "busybox dd if=/dev/zero bs=1M count=1024 2>/dev/null | busybox tr '\\\\0' x",
    ]
    .into_iter()
    .enumerate()
    {
        let before = forget_peak(stage.server.pid());
        let reason = fails(&stage, &id, &run(&id, words), Duration::from_secs(60));
        assert!(reason.starts_with("The build printed more than"), "{words}: {reason}");
        let grown = peak(stage.server.pid()) - before;
        assert!(grown <= GROWTH_KIB, "{words}: {grown} KiB");
        let log = stage.log(&id, 2 + n as u64);
        assert!(log.len() as u64 <= muelle::limits::DEPLOY_LOG_BYTES_MAX + 1024, "{}", log.len());
        assert_no_build(&stage, &id, &id);
    }
}

#[test]
fn case_91_a_fork_bomb_is_ended_by_its_memory_or_by_the_watch_on_the_host() {
    let stage = Stage::with("[deploy]\nallow_http = true\nbuild_memory_mb = 64\n");
    let id = stage.running("first");
    let bomb = "b() { b & b; }; b; busybox sleep 99999";
    let reason = fails(&stage, &id, &run(&id, bomb), Duration::from_secs(60));
    println!("memory: {reason}");
    assert_no_build(&stage, &id, &id);
}

#[test]
fn case_91_a_build_that_starts_thousands_of_processes_is_ended_by_the_watch_on_the_host() {
    let stage = Stage::new();
    let id = stage.running("first");
    let many = "i=0; while [ $i -lt 20000 ]; do busybox sleep 99999 & i=$((i+1)); done; wait";
    let reason = fails(&stage, &id, &run(&id, many), Duration::from_secs(60));
    assert!(reason.starts_with("The host had ") && reason.contains("processes"), "{reason}");
    assert_no_build(&stage, &id, &id);
}

const MIB: u64 = 1 << 20;

/// An engine whose disk is this large.
fn engine_on(mib: u64) -> OwnEngine {
    let mut own = OwnEngine::prepare();
    own.limit_disk(mib * MIB);
    own.run();
    own
}

/// Free MiB where a path is.
fn free_mib(path: &Path) -> u64 {
    let found = rustix::fs::statvfs(path).unwrap();
    found.f_bavail * found.f_frsize / MIB
}

#[test]
fn own_engine_case_89_91_a_build_that_fills_the_disk_is_ended_before_it_is_full() {
    let own = engine_on(2000);
    // Memory: the disk of this engine is some.
    let stage = Stage::with("[deploy]\nallow_http = true\nbuild_memory_mb = 8000\nbuild_cpus = 0.1\n");
    let id = stage.running("first");
    let before = free_mib(&own.data());
    // With a tenth of a CPU, so that it is seen coming: 13 s, or more than 30 on a busy machine.
    let reason = fails(&stage, &id, &run(&id, "busybox dd if=/dev/zero of=/x bs=64k"), SOON * 3);
    assert_eq!(reason, "The disk was nearly full, so that the build was ended");
    eventually("what it wrote is gone", SOON, || {
        let now = free_mib(&own.data());
        if now + 5 >= before { Ok(()) } else { Err((before, now)) }
    });
    assert_no_build(&stage, &id, &id);
}

#[test]
fn own_engine_case_89_a_disk_that_is_full_at_once_fails_the_build_and_nothing_else() {
    let own = engine_on(600);
    let stage = Stage::with("[deploy]\nallow_http = true\nbuild_memory_mb = 8000\n");
    let says_full = |log: &str| log.contains("No space left on device") || log.contains("nearly full");
    // Nearly all there is, and then more: nobody can look that often.
    let full = |n: u32| {
        let free = free_mib(&own.data());
        run(&n.to_string(), &format!("busybox fallocate -l {} /x && busybox cp /x /y", (free - 5) * MIB))
    };
    commit(&stage.repo, &[("Dockerfile", format!("FROM {WEB}\n{}", full(0)))]);
    let id = stage.create(&json!({}));
    stage.ana.await_status(&id, "error", SOON);
    assert!(says_full(&stage.log(&id, 1)), "{}", stage.log(&id, 1));
    eventually("what it wrote is gone", SOON, || {
        let now = free_mib(&own.data());
        if now > 400 { Ok(()) } else { Err(now) }
    });
    commit(&stage.repo, &page("first"));
    stage.ana.post(&format!("/api/containers/{id}/start"), &json!({})).ok(200);
    stage.ana.await_status(&id, "running", SOON);
    fails(&stage, &id, &full(1), SOON);
    assert!(says_full(&stage.log(&id, 3)), "{}", stage.log(&id, 3));
    assert_no_build(&stage, &id, ": 1;");

    // A build does not even begin where there is hardly any room.
    let filler = own.data().join("filler");
    fs::write(&filler, vec![0; usize::try_from((free_mib(&own.data()) - 50) * MIB).unwrap()]).unwrap();
    let reason = fails(&stage, &id, "", SOON);
    assert!(reason.starts_with("Only ") && reason.contains("MiB are free on Docker's disk"), "{reason}");
    assert!(stage.log(&id, 4).starts_with("failed: Only"), "nothing was fetched");
    fs::remove_file(&filler).unwrap();
    deploys(&stage, &id, "second");
}

#[test]
fn own_disk_case_89_90_no_deployment_begins_where_muelles_own_disk_has_no_room() {
    let server = Server::prepare(HTTP);
    let disk = Disk::mount(server.data(), "100m");
    let stage = Stage::on(server);
    let id = stage.running("first");
    let filler = disk.0.join("filler");
    fs::write(&filler, vec![0; 97_000_000]).unwrap();
    let reason = fails(&stage, &id, "", SOON);
    assert!(reason.starts_with("Only ") && reason.contains("the disk of muelle's data"), "{reason}");
    fs::remove_file(&filler).unwrap();
    deploys(&stage, &id, "second");
    stage.assert_tidy(&id);
}

/// An end of the engine, in order or not, and what it does at which step.
fn engine_ends(own: &mut OwnEngine, kill: bool) {
    if kill { own.kill() } else { own.stop() }
}

#[test]
fn own_engine_case_78_87_an_engine_that_ends_in_the_middle_of_a_build_fails_it_and_the_old_version_comes_back()
 {
    let mut own = OwnEngine::start();
    let stage = Stage::new();
    let id = stage.running("first");
    for (n, kill) in [true, false].into_iter().enumerate() {
        let slow = run(&format!("{id}-{n}"), "busybox sleep 99999");
        commit(&stage.repo, &[("Dockerfile", format!("FROM {WEB}\n{slow}"))]);
        let number = stage.rebuild(&id);
        eventually("it builds", SOON, || {
            let it = stage.log(&id, number);
            if it.contains("Running in") { Ok(()) } else { Err(it) }
        });
        engine_ends(&mut own, kill);
        let ended = stage.ended(&id, number);
        assert_eq!(ended["status"], "failed", "{ended}");
        assert!(!ended["reason"].as_str().unwrap().is_empty());
        back_within_ten_seconds(&mut own, &stage, &id);
        stage.assert_tidy(&id);
    }
    deploys_anew(&stage, &id);
}

#[test]
fn own_engine_case_78_an_engine_that_ends_in_the_middle_of_a_start_ends_it_and_the_old_version_comes_back() {
    let mut own = OwnEngine::start();
    let stage = Stage::new();
    commit(&stage.repo, &page("first"));
    let id = stage.create(&json!({"port": 8080}));
    stage.ana.await_status(&id, "running", SOON);
    for kill in [true, false] {
        commit(
            &stage.repo,
            &[("Dockerfile", dockerfile("busybox sleep 99999")), ("index.html", kill.to_string())],
        );
        let number = stage.rebuild(&id);
        let name = format!("muelle-{id}-{number}");
        eventually("the new one runs", SOON, || {
            if engine::is_running(&name) { Ok(()) } else { Err(containers(&id)) }
        });
        engine_ends(&mut own, kill);
        back_within_ten_seconds(&mut own, &stage, &id);
        let ended = stage.ended_within(&id, number, Duration::from_secs(90));
        assert_eq!(ended["status"], "failed", "{ended}");
        assert!(!ended["reason"].as_str().unwrap().is_empty());
        stage.ana.await_status(&id, "running", SOON);
        stage.assert_tidy(&id);
    }
    deploys_anew(&stage, &id);
}

/// Starts the engine again: what ran before runs.
#[track_caller]
fn back_within_ten_seconds(own: &mut OwnEngine, stage: &Stage, id: &str) {
    own.run();
    eventually("the old version serves", Duration::from_secs(10), || {
        let url = stage.project(id)["url"].as_str().unwrap().to_owned();
        match get(&url) {
            Ok(text) if text == "first" => Ok(()),
            other => Err((url, other)),
        }
    });
}

#[track_caller]
fn deploys_anew(stage: &Stage, id: &str) {
    deploys(stage, id, "anew");
    stage.assert_tidy(id);
}

#[test]
fn own_engine_case_78_a_deployment_that_waits_while_the_engine_is_away_waits_on() {
    let mut own = OwnEngine::start();
    let stage = Stage::new();
    for kill in [true, false] {
        let slow = run(&kill.to_string(), "busybox sleep 99999");
        commit(&stage.repo, &[("Dockerfile", format!("FROM {WEB}\n{slow}"))]);
        let create = |name: &str| {
            let body = json!({"name": format!("{name} {kill}"), "github_url": stage.git.url("app")});
            stage.ana.post("/api/projects", &body).ok(201)["project"]["id"].as_str().unwrap().to_owned()
        };
        let building = create("Building");
        eventually("it builds", SOON, || {
            let it = stage.log(&building, 1);
            if it.contains("Running in") { Ok(()) } else { Err(it) }
        });
        let waiting = create("Waiting");
        commit(&stage.repo, &page("waited"));
        engine_ends(&mut own, kill);
        assert_eq!(stage.ended(&building, 1)["status"], "failed");
        eventually("the loss is noticed", Duration::from_secs(5), || {
            let health = stage.server.client().get("/api/health").ok(200);
            if health["status"] == "degraded" { Ok(()) } else { Err(health) }
        });
        let refused = stage.ana.post(&format!("/api/containers/{building}/rebuild"), &json!({}));
        assert_eq!(refused.error(503), "DockerUnavailable");
        assert_eq!(stage.ana.status(&waiting), "deploying");
        own.run();
        stage.ana.await_status(&waiting, "running", SOON);
        assert_eq!(stage.says(&waiting), "waited");
    }
}

#[test]
fn case_107_a_return_to_an_earlier_version_that_was_not_begun_needs_no_build_after_kill_9_either() {
    let mut stage = Stage::new();
    let id = stage.running("first");
    deploys(&stage, &id, "second");
    let rollback = stage.ana.post(&format!("/api/projects/{id}/rollback"), &json!({})).ok(202);
    assert_eq!(rollback["deployment"]["number"], 3);
    assert_eq!(stage.ended(&id, 3)["status"], "ready");
    stage.server.kill();
    // As it was when the request was answered.
    let db = rusqlite::Connection::open(stage.server.data().join("muelle.db")).unwrap();
    db.execute_batch(
        "UPDATE deployments SET step = 'queued', outcome = 'open', ended_at = NULL WHERE number = 3;
         UPDATE projects SET release = 2;",
    )
    .unwrap();
    drop(db);
    stage.git.behave(garbage());
    stage.server.run();
    stage.ana = stage.ana.with_base(&stage.server.base);
    assert_eq!(stage.ended(&id, 3)["status"], "ready");
    assert_eq!(stage.says(&id), "first");
    stage.assert_tidy(&id);
}

#[track_caller]
fn deploys(stage: &Stage, id: &str, word: &str) {
    commit(&stage.repo, &page(word));
    let number = stage.rebuild(id);
    assert_eq!(stage.ended(id, number)["status"], "ready");
    assert_eq!(stage.says(id), word);
}

/// Kills the server at each of these moments after a redeploy was answered, and looks whether everything is as it says.
fn killed_after(moments: impl Iterator<Item = u64>) {
    let mut stage = Stage::new();
    let id = stage.running("1");
    let mut words = vec![String::new(), "1".to_owned()];
    for moment in moments {
        let word = words.len().to_string();
        commit(&stage.repo, &page(&word));
        let number = stage.rebuild(&id);
        assert_eq!(number, words.len() as u64);
        words.push(word);
        std::thread::park_timeout(Duration::from_millis(moment));
        stage.server.kill();
        stage.server.run();
        stage.ana = stage.ana.with_base(&stage.server.base);
        stage.server.await_engine();
        let ended = stage.ended(&id, number);
        let (status, queued) = (ended["status"].as_str().unwrap(), ended["step"] == "queued");
        assert!(status == "interrupted" && !queued || status == "ready", "{moment} ms: {ended}");
        stage.ana.await_status(&id, "running", SOON);
        let listed = stage.ana.get(&format!("/api/projects/{id}/deployments")).ok(200)["deployments"].clone();
        let current = listed.as_array().unwrap().iter().find(|it| it["current"] == true).unwrap();
        let current = current["number"].as_u64().unwrap();
        assert_eq!(current == number, status == "ready", "{moment} ms: {listed}");
        assert_eq!(stage.says(&id), words[usize::try_from(current).unwrap()], "{moment} ms");
        eventually("one container is left, and it is that version's", Duration::from_secs(20), || {
            let found = containers(&id);
            if found == [format!("/muelle-{id}-{current}")] { Ok(()) } else { Err((moment, current, found)) }
        });
        // Where no service manager ends it with its service, it ends by itself once nobody hears it.
        eventually("its git is gone", SOON, || {
            let left = gits(&stage);
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
        stage.assert_tidy(&id);
    }
}

/// The git processes that work in the server's data.
fn gits(stage: &Stage) -> Vec<String> {
    let data = stage.server.data().display().to_string();
    let line = |process: fs::DirEntry| fs::read(process.path().join("cmdline")).ok();
    let lines = fs::read_dir("/proc").unwrap().flatten().filter_map(line);
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains("git") && line.contains(&data)).collect()
}

#[test]
fn case_107_kill_9_while_a_new_version_is_made_leaves_one_version_that_serves() {
    killed_after([0, 5, 15, 30, 50, 80, 120, 170, 230, 300].into_iter());
}

#[test]
fn case_107_kill_9_while_a_new_version_takes_over_leaves_one_version_that_serves() {
    killed_after([400, 550, 700, 850, 1000, 1200, 1500, 2000, 4000, 9000].into_iter());
}

/// Creates a project of the repository that everybody has.
fn create(stage: &Stage, name: &str) -> Answer {
    stage.ana.post("/api/projects", &json!({"name": name, "github_url": stage.git.url("app")}))
}

fn id_of(made: Answer) -> String {
    made.ok(201)["project"]["id"].as_str().unwrap().to_owned()
}

/// The projects whose image is being made now.
fn being_built(client: &Client) -> Vec<Value> {
    let list = client.get("/api/projects").ok(200);
    let busy = |it: &&Value| {
        let deployment = &it["deployment"];
        deployment["status"] == "running" && (deployment["step"] == "clone" || deployment["step"] == "build")
    };
    list["projects"].as_array().unwrap().iter().filter(busy).cloned().collect()
}

/// Nothing of a deleted project is left.
#[track_caller]
fn assert_gone(stage: &Stage, id: &str) {
    eventually("everything of it is gone", SOON, || {
        let left = (containers(id), images(id), stage.server.data().join("deployments").join(id).exists());
        if left == (vec![], vec![], false) { Ok(()) } else { Err((id.to_owned(), left)) }
    });
}

#[test]
fn case_142_ten_projects_at_once_are_built_one_after_the_other_and_all_run() {
    let stage = Stage::new();
    commit(&stage.repo, &page("ten"));
    let ids: Vec<String> = std::thread::scope(|scope| {
        let stage = &stage;
        let made: Vec<_> =
            (0..10).map(|n| scope.spawn(move || id_of(create(stage, &format!("App {n}"))))).collect();
        made.into_iter().map(|made| made.join().unwrap()).collect()
    });
    eventually("all run", Duration::from_secs(60), || {
        let busy = being_built(&stage.ana);
        assert!(busy.len() <= 1, "{busy:#?}");
        let left: Vec<_> = ids.iter().filter(|id| stage.ana.status(id) != "running").collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    for id in &ids {
        assert_eq!(stage.says(id), "ten");
        stage.assert_tidy(id);
    }
}

#[test]
fn beyond_the_bound_of_the_queue_deployments_are_refused_and_projects_that_wait_are_deleted_at_once() {
    let stage = Stage::new();
    commit(&stage.repo, &page("late"));
    stage.git.behave(Manner::Silent);
    let first = id_of(create(&stage, "First"));
    eventually("the first is under way", SOON, || {
        let it = stage.deployment(&first, 1);
        if it["step"] == "clone" { Ok(()) } else { Err(it) }
    });
    let mut ids: Vec<String> =
        (0..muelle::limits::DEPLOY_QUEUE).map(|n| id_of(create(&stage, &format!("Waits {n}")))).collect();
    let refused = create(&stage, "Too many");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert_eq!(refused.error(429), "TooManyDeployments");
    assert_eq!(
        stage.ana.get("/api/projects").ok(200)["projects"].as_array().map(Vec::len),
        Some(1 + ids.len())
    );
    // Whose own deployment waits may ask again: it takes that one's place.
    assert_eq!(stage.rebuild(&ids[0]), 2);
    assert_eq!(stage.deployment(&ids[0], 1)["status"], "superseded");
    ids.push(first);
    for id in &ids {
        stage.ana.delete(&format!("/api/projects/{id}")).ok(200);
    }
    stage.git.behave(Manner::Honest);
    for id in &ids {
        assert_gone(&stage, id);
        assert_eq!(stage.ana.get(&format!("/api/projects/{id}")).error(404), "NotFound");
    }
    let after = id_of(create(&stage, "After"));
    stage.ana.await_status(&after, "running", SOON);
    assert_eq!(stage.says(&after), "late");
    stage.assert_tidy(&after);
}

#[test]
fn case_107_projects_whose_deletion_was_recorded_are_deleted_after_kill_9_and_not_deployed() {
    let mut stage = Stage::new();
    commit(&stage.repo, &page("unwanted"));
    stage.git.behave(Manner::Silent);
    let ids = ["Under way", "Waits"].map(|name| id_of(create(&stage, name)));
    eventually("the first is under way", SOON, || {
        let it = stage.deployment(&ids[0], 1);
        if it["step"] == "clone" { Ok(()) } else { Err(it) }
    });
    stage.server.kill();
    let db = rusqlite::Connection::open(stage.server.data().join("muelle.db")).unwrap();
    // As it was when a request to delete them was answered.
    db.execute_batch("UPDATE projects SET deleting = 1").unwrap();
    stage.git.behave(Manner::Honest);
    stage.server.run();
    stage.ana = stage.ana.with_base(&stage.server.base);
    let rows = || db.query_row("SELECT count(*) FROM projects", [], |row| row.get::<_, u32>(0)).unwrap();
    eventually("they are forgotten", SOON, || {
        assert_eq!(stage.ana.get("/api/projects").ok(200), json!({"projects": []}));
        if rows() == 0 { Ok(()) } else { Err(rows()) }
    });
    for id in &ids {
        assert_gone(&stage, id);
    }
    let log = stage.server.log();
    assert!(!log.contains("is deploying"), "{log}");
}

#[test]
fn muelle_stays_small_while_two_hundred_megabytes_are_sent_to_be_built() {
    let stage = Stage::new();
    let id = stage.running("first");
    let [dockerfile, index] = page("large");
    let large = vec![0; 20_000_000];
    let names: Vec<String> = (0..10).map(|n| format!("large-{n}")).collect();
    let mut entries: Vec<(&str, &[u8], &[u8])> =
        vec![(FILE, b"Dockerfile", dockerfile.1.as_bytes()), (FILE, b"index.html", index.1.as_bytes())];
    entries.extend(names.iter().map(|name| (FILE, name.as_bytes(), &large[..])));
    stage.repo.commit_entries("main", &entries);
    let before = forget_peak(stage.server.pid());
    let number = stage.rebuild(&id);
    let ended = meanwhile(&stage.ana, || stage.ended_within(&id, number, Duration::from_secs(60)));
    assert_eq!(ended["status"], "ready", "{ended}");
    assert!(stage.log(&id, number).contains("195313 KiB"), "{}", stage.log(&id, number));
    let grown = peak(stage.server.pid()) - before;
    assert!(grown <= GROWTH_KIB, "{grown} KiB");
    assert_eq!(stage.says(&id), "large");
}

/// Small random numbers; the seed is printed, so that a bad day can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // xorshift64 (Marsaglia 2003)
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % sides
    }
}

/// One person who presses everything, until it is over. `ids` are the projects that there are, `gone` those that were deleted.
fn presses(stage: &Stage, ids: &[Mutex<String>], gone: &Mutex<Vec<String>>, mut dice: Dice, until: Instant) {
    while Instant::now() < until {
        let place = &ids[usize::try_from(dice.roll(ids.len() as u64)).unwrap()];
        let id = place.lock().unwrap().clone();
        let post = |path: String| stage.ana.post(&path, &json!({}));
        let answer = match dice.roll(40) {
            0..12 => post(format!("/api/containers/{id}/start")),
            12..16 => post(format!("/api/containers/{id}/stop")),
            16..22 => post(format!("/api/containers/{id}/restart")),
            22..28 => post(format!("/api/containers/{id}/rebuild")),
            28..37 => post(format!("/api/projects/{id}/rollback")),
            37..39 => {
                let newest = stage.ana.get(&format!("/api/projects/{id}"));
                let number = newest.body["project"]["deployment"]["number"].as_u64().unwrap_or(1);
                post(format!("/api/projects/{id}/deployments/{number}/cancel"))
            }
            _ => {
                let answer = stage.ana.delete(&format!("/api/projects/{id}"));
                if answer.status == 200 {
                    gone.lock().unwrap().push(id);
                    *place.lock().unwrap() = id_of(create(stage, &format!("App {}", dice.0)));
                }
                answer
            }
        };
        assert!([200, 201, 202, 400, 404, 409, 429].contains(&answer.status), "{answer:?}");
        std::thread::park_timeout(Duration::from_millis(dice.roll(500)));
    }
}

#[test]
fn case_153_whatever_eight_people_press_at_once_every_operation_ends_and_all_agree() {
    let stage = Stage::new();
    commit(&stage.repo, &page("pressed"));
    let ids = [id_of(create(&stage, "One")), id_of(create(&stage, "Two"))].map(Mutex::new);
    let (gone, stream) = (Mutex::new(Vec::new()), stage.server.stream(&stage.ana));
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).unwrap();
    let seed = u64::from_ne_bytes(seed);
    println!("seed {seed}");
    let until = Instant::now() + Duration::from_secs(15);
    std::thread::scope(|scope| {
        for person in 1..=8 {
            let (stage, ids, gone) = (&stage, &ids, &gone);
            let dice = Dice(seed.wrapping_mul(2 * person + 1) | 1);
            scope.spawn(move || presses(stage, ids, gone, dice, until));
        }
    });
    let ids = ids.map(|id| id.into_inner().unwrap());
    for id in &ids {
        settled(&stage, id);
    }
    stage.assert_tidy(&ids[0]);
    let told = statuses(&stream, Duration::from_secs(2));
    for id in &ids {
        let last = told.iter().rev().find(|event| event.data["projectId"] == id.as_str()).unwrap();
        assert_eq!(last.data["status"], stage.ana.status(id), "what was told last is what everybody sees");
    }
    for id in gone.into_inner().unwrap() {
        assert_gone(&stage, &id);
    }
}

/// What a stream has told of statuses, and tells for so long.
fn statuses(stream: &Stream, limit: Duration) -> Vec<Event> {
    let (end, mut told) = (Instant::now() + limit, Vec::new());
    while let Ok(event) = stream.next(end.saturating_duration_since(Instant::now())) {
        told.push(event);
    }
    told.retain(|event| event.name == "container_status_changed");
    told
}

/// Waits until nothing of a project is under way and the engine says the same of it.
#[track_caller]
fn settled(stage: &Stage, id: &str) {
    eventually("every operation ends", Duration::from_secs(60), || {
        let project = stage.project(id);
        let open = |it: &&Value| it["status"] == "queued" || it["status"] == "running";
        let listed = stage.ana.get(&format!("/api/projects/{id}/deployments")).ok(200)["deployments"].clone();
        let left: Vec<Value> = listed.as_array().unwrap().iter().filter(open).cloned().collect();
        if project["status"] != "deploying" && left.is_empty() { Ok(()) } else { Err((project, left)) }
    });
    eventually("the engine agrees", Duration::from_secs(25), || {
        let (project, found) = (stage.project(id), engine::labelled(&format!("muelle.project={id}")));
        let running = found.iter().filter(|it| it["State"] == "running").count();
        let agrees = (project["status"] == "running") == (running == 1) && running <= 1;
        if agrees && found.len() <= 1 { Ok(()) } else { Err((project, found)) }
    });
    if stage.ana.status(id) == "running" {
        assert_eq!(stage.says(id), "pressed");
    }
}
