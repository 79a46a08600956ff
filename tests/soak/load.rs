//! An hour of what a busy home does: requests, streams, restarts. Nothing may grow, nothing may fail.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::engine::WEB;
use crate::harness::{Client, Server, Stream};
use crate::{eventually, limit, tell};

const STREAMS: usize = 50;
const CLIENTS: u64 = 4;
/// Of each client: 20 a second in all.
const PACE: Duration = Duration::from_millis(200);

/// Resident memory in KiB.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    over: AtomicBool,
    asked: AtomicU64,
    slowest: Mutex<Duration>,
    /// Answers that were none of success.
    wrong: Mutex<Vec<String>>,
}

fn ask(client: &Client, ids: &[String], seen: &Seen) {
    for n in 0.. {
        if seen.over.load(Ordering::Acquire) {
            return;
        }
        let (began, id) = (Instant::now(), &ids[n % ids.len()]);
        let answer = match n % 5 {
            0 => client
                .patch(&format!("/api/projects/{id}"), &json!({"idle_after": format!("{}m", 1 + n % 50)})),
            1 => client.get("/api/auth/me"),
            2 => client.get(&format!("/api/projects/{id}")),
            3 => client.get("/api/health"),
            _ => client.get("/api/projects"),
        };
        seen.asked.fetch_add(1, Ordering::Relaxed);
        if answer.status != 200 {
            seen.wrong.lock().unwrap().push(format!("{} {}", answer.status, answer.text));
        }
        let mut slowest = seen.slowest.lock().unwrap();
        *slowest = began.elapsed().max(*slowest);
        drop(slowest);
        std::thread::park_timeout(PACE.saturating_sub(began.elapsed()));
    }
}

#[test]
fn load_case_152_under_load_nothing_grows_and_nothing_fails() {
    let limits = "[limits]\nstreams_per_user = 100\nper_address = 200\n";
    let server = Server::with(limits);
    let ana = server.admin();
    let ids: Vec<String> = (0..3).map(|n| ana.project(&format!("App {n}"), WEB)).collect();
    for id in &ids {
        ana.await_status(id, "running", Duration::from_secs(30));
    }
    let mut streams: Vec<Stream> = (0..STREAMS).map(|_| server.stream(&ana)).collect();
    let (began, seen) = (Instant::now(), Seen::default());
    let mut first: Option<(u64, (usize, usize))> = None;
    let (mut restarts, mut most, mut last) = (0, 0, 0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| ask(&ana, &ids, &seen));
        }
        let mut next_restart = began;
        while began.elapsed() < limit() {
            let now = Instant::now();
            if now >= next_restart {
                next_restart = now + Duration::from_secs(20);
                let id = &ids[restarts % ids.len()];
                ana.post(&format!("/api/containers/{id}/restart"), &json!({})).ok(200);
                streams[0].until("it restarts", Duration::from_secs(30), |e| e.is_status(id, "deploying"));
                streams[0].until("it runs again", Duration::from_secs(60), |e| e.is_status(id, "running"));
                restarts += 1;
                // Somebody closes a page and opens another.
                streams.rotate_left(1);
                streams.pop();
                streams.push(server.stream(&ana));
            }
            for stream in &streams[1..] {
                while let Ok(event) = stream.next(Duration::ZERO) {
                    assert!(!event.name.is_empty());
                }
            }
            last = resident(&server);
            most = most.max(last);
            // The pools have their threads and the pages their memory after a while.
            if first.is_none() && began.elapsed() > limit() / 4 {
                first = Some((last, server.footprint()));
            }
            std::thread::park_timeout(Duration::from_millis(500));
        }
        seen.over.store(true, Ordering::Release);
    });
    let (first, footprint) = first.unwrap();
    let growth = i64::try_from(last).unwrap() - i64::try_from(first).unwrap();
    let after = eventually("threads and descriptors are as they were", Duration::from_secs(30), || {
        let now = server.footprint();
        if now.0 <= footprint.0 + 2 && now.1 <= footprint.1 + 2 { Ok(now) } else { Err((footprint, now)) }
    });
    let wrong = seen.wrong.into_inner().unwrap();
    let asked = seen.asked.into_inner();
    tell("load: requests", &format!("{asked}, {} a minute", asked * 60 / began.elapsed().as_secs().max(1)));
    tell("load: not of success", &wrong.len().to_string());
    tell("load: slowest", &format!("{:?}", seen.slowest.into_inner().unwrap()));
    tell("load: streams, restarts", &format!("{STREAMS}, {restarts}"));
    tell("load: resident KiB", &format!("{first} after a quarter, {last} at the end, {most} at most"));
    tell("load: threads, descriptors", &format!("{footprint:?} after a quarter, {after:?} at the end"));
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(growth.unsigned_abs() * 10 < first || growth < 0, "{first} KiB grew to {last}");
}
