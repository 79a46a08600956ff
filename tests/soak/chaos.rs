//! Mixed chaos: each minute one fault, on an engine of its own; the invariants are checked after each.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::engine::{self, WEB};
use crate::harness::own_engine::OwnEngine;
use crate::harness::{Client, Server, Stream, eventually};
use crate::{limit, tell};

/// From the end of a fault until everything is at rest: the last restart after a crash comes 25 s later.
const SETTLED: Duration = Duration::from_secs(60);

type Fault = (&'static str, fn(&mut Chaos));

const FAULTS: [Fault; 11] = [
    ("77 engine comes later", Chaos::engine_comes_later),
    ("78 engine restarted", Chaos::engine_restarted),
    ("78 engine killed", Chaos::engine_killed),
    ("79 engine frozen", Chaos::engine_frozen),
    ("85 container removed", Chaos::container_removed),
    ("86 process killed", Chaos::process_killed),
    ("84 engine killed thrice", Chaos::engine_killed_thrice),
    ("106 SIGTERM", Chaos::server_ended),
    ("106 SIGTERM within a start", Chaos::server_ended_within_a_start),
    ("107 kill -9 within commands", Chaos::server_killed),
    ("108 second server", Chaos::second_server),
];

struct Chaos {
    server: Server,
    own: OwnEngine,
    ana: Client,
    stream: Stream,
    /// What was acknowledged: each project's name, and whether it is to run. `None` where something from outside has its say.
    wanted: BTreeMap<String, (String, Option<bool>)>,
    /// What the stream told last of each.
    told: HashMap<String, String>,
    dice: u64,
    renames: u32,
}

impl Chaos {
    fn begin(seed: u64) -> Chaos {
        let own = OwnEngine::start();
        let server = Server::start();
        let ana = server.admin();
        let mut wanted = BTreeMap::new();
        for n in 0..5 {
            let name = format!("App {n}");
            wanted.insert(ana.project(&name, WEB), (name, Some(true)));
        }
        let stream = server.stream(&ana);
        Chaos { server, own, ana, stream, wanted, told: HashMap::new(), dice: seed, renames: 0 }
    }

    /// Marsaglia's xorshift64: a seed can be run again.
    fn roll(&mut self, sides: usize) -> usize {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        usize::try_from(self.dice % sides as u64).unwrap()
    }

    fn any(&mut self) -> String {
        let at = self.roll(self.wanted.len());
        self.wanted.keys().nth(at).unwrap().clone()
    }

    /// Somebody does something; what is acknowledged is wanted from now on.
    fn command(&mut self) {
        let id = self.any();
        let (action, up) = [("start", true), ("stop", false), ("restart", true)][self.roll(3)];
        let answer = self.ana.try_send("POST", &format!("/api/containers/{id}/{action}"), &json!({}));
        if answer.is_ok_and(|answer| answer.status == 200) {
            self.wanted.get_mut(&id).unwrap().1 = Some(up);
        }
        self.renames += 1;
        let (id, name) = (self.any(), format!("Named {}", self.renames));
        let answer = self.ana.try_send("PATCH", &format!("/api/projects/{id}"), &json!({"name": name}));
        if answer.is_ok_and(|answer| answer.status == 200) {
            self.wanted.get_mut(&id).unwrap().0 = name;
        }
    }

    fn again(&mut self) {
        self.server.run();
        self.ana = self.ana.with_base(&self.server.base);
        self.stream = self.server.stream(&self.ana);
    }

    fn engine_comes_later(&mut self) {
        assert_eq!(self.server.terminate(), Some(0));
        self.own.stop();
        self.again();
        assert_eq!(self.server.client().get("/api/health").ok(200)["status"], "degraded");
        assert_eq!(self.ana.get("/api/projects").ok(200)["projects"].as_array().map(Vec::len), Some(5));
        self.own.run();
    }

    fn engine_restarted(&mut self) {
        self.own.stop();
        self.own.run();
    }

    fn engine_killed(&mut self) {
        self.own.kill();
        self.own.run();
    }

    fn engine_killed_thrice(&mut self) {
        for _ in 0..3 {
            self.command();
            self.engine_killed();
        }
    }

    fn engine_frozen(&mut self) {
        self.own.signal(Signal::STOP);
        let end = Instant::now() + Duration::from_secs(5 + self.roll(20) as u64);
        while Instant::now() < end {
            let began = Instant::now();
            self.ana.get("/api/projects").ok(200);
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
            std::thread::park_timeout(Duration::from_millis(200));
        }
        self.own.signal(Signal::CONT);
    }

    fn container_removed(&mut self) {
        let id = self.any();
        engine::remove(&format!("muelle-{id}"));
        self.wanted.get_mut(&id).unwrap().1 = None;
    }

    fn process_killed(&mut self) {
        let id = self.any();
        let pid = engine::inspect(&format!("muelle-{id}"))["State"]["Pid"].as_i64().unwrap_or_default();
        if let Some(pid) = Pid::from_raw(i32::try_from(pid).unwrap()) {
            kill_process(pid, Signal::KILL).unwrap();
            // The fourth within ten minutes is an error.
            self.wanted.get_mut(&id).unwrap().1 = None;
        }
    }

    fn server_ended(&mut self) {
        assert_eq!(self.server.terminate(), Some(0));
        self.again();
    }

    fn server_ended_within_a_start(&mut self) {
        self.command();
        self.server_ended();
    }

    fn server_killed(&mut self) {
        for _ in 0..self.roll(4) {
            self.command();
        }
        std::thread::park_timeout(Duration::from_millis(self.roll(600) as u64));
        self.server.kill();
        self.again();
    }

    fn second_server(&mut self) {
        assert_eq!(self.server.command(&["serve"], "").0, 78);
    }

    /// The invariants. Gives how long it took until they held.
    fn settle(&mut self, fault: &str) -> Duration {
        let began = Instant::now();
        self.server.await_engine();
        let mut last = String::new();
        eventually(&format!("all is right after {fault}"), SETTLED, || {
            self.check().inspect_err(|wrong| last.clone_from(wrong))
        });
        if began.elapsed() > Duration::from_secs(8) {
            println!("{fault} took {:.1?}; at last {last}", began.elapsed());
        }
        began.elapsed()
    }

    fn check(&mut self) -> Result<(), String> {
        while let Ok(event) = self.stream.next(Duration::ZERO) {
            if let Some(status) = event.data["status"].as_str() {
                let id = event.data["projectId"].as_str().unwrap().to_owned();
                self.told.insert(id, status.to_owned());
            }
        }
        let list = self.ana.get("/api/projects").ok(200);
        let projects: HashMap<&str, &Value> =
            list["projects"].as_array().unwrap().iter().map(|p| (p["id"].as_str().unwrap(), p)).collect();
        assert_eq!(projects.len(), self.wanted.len());
        for (id, (name, wanted)) in &self.wanted {
            let project = projects[id.as_str()];
            assert_eq!(project["name"], name.as_str(), "what was acknowledged survives");
            let containers = engine::labelled(&format!("muelle.project={id}"));
            let up = containers.iter().filter(|c| c["State"] == "running").count();
            if up > 1 {
                return Err(format!("{up} running containers of {id}"));
            }
            let status = project["status"].as_str().unwrap();
            let agrees = match status {
                "running" => up == 1,
                "stopped" | "error" => up == 0,
                _ => false,
            };
            let right = wanted.is_none_or(|wanted| (status == "running") == wanted);
            let told = self.told.get(id).map(String::as_str);
            if !agrees || !right || told != Some(status) {
                return Err(format!("{id}: {status}, {up} running, wanted {wanted:?}, told {told:?}"));
            }
        }
        Ok(())
    }
}

#[test]
fn chaos_case_153_after_any_fault_all_is_right_again() {
    let end = Instant::now() + limit();
    let seed = std::env::var("SOAK_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos()) | 1);
    tell("chaos: SOAK_SEED", &seed.to_string());
    // One a minute, and in a short run each of them.
    let pace = Duration::from_secs(60).min(limit() / u32::try_from(FAULTS.len()).unwrap());
    let mut chaos = Chaos::begin(seed);
    chaos.settle("the beginning");
    let mut faults: BTreeMap<&str, (u32, Duration)> = BTreeMap::new();
    for round in 0.. {
        let next = Instant::now() + pace;
        // Each once, then at random.
        let at = if round < FAULTS.len() { round } else { chaos.roll(FAULTS.len()) };
        let (name, fault) = FAULTS[at];
        println!("{name}");
        chaos.command();
        fault(&mut chaos);
        let took = chaos.settle(name);
        let entry = faults.entry(name).or_default();
        *entry = (entry.0 + 1, entry.1.max(took));
        if Instant::now() >= end {
            break;
        }
        std::thread::park_timeout(next.saturating_duration_since(Instant::now()).min(end - Instant::now()));
    }
    for (name, (count, longest)) in faults {
        tell(&format!("chaos: {name}"), &format!("{count} times, right again after at most {longest:.1?}"));
    }
    let Chaos { mut server, own, ana, stream, .. } = chaos;
    drop((ana, stream));
    assert_eq!(server.terminate(), Some(0));
    crate::harness::writes::assert_intact(&server);
    // Its containers are in the engine that goes next.
    drop(server);
    drop(own);
}
