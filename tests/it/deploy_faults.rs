//! What goes wrong around deployments: builds that take what the host needs, disks that fill up, an engine that goes away, kills, and
//! many people at once.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::deploy::{Stage, commit};
use crate::harness::engine::{self, WEB};
use crate::harness::{Client, eventually};

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
