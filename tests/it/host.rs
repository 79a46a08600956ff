//! Faults of the host and of the process: signals, suspension, no threads, no room on the disk, a log that nobody reads.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::harness::byte_engine::{self, ByteEngine};
use crate::harness::engine::{self, Container, WEB};
use crate::harness::image::{tidy, unique};
use crate::harness::writes::assert_intact;
use crate::harness::{Client, Server, Stream, eventually};

const SOON: Duration = Duration::from_secs(20);
/// How long the process may take to end by SIGTERM.
const END_MAX: Duration = Duration::from_secs(15);

#[track_caller]
fn ends_well(server: &mut Server) {
    let began = Instant::now();
    assert_eq!(server.terminate(), Some(0), "{}", server.log());
    assert!(began.elapsed() < END_MAX, "{:?}", began.elapsed());
}

#[test]
fn case_73_106_sigterm_ends_an_idle_server_and_one_with_three_hundred_streams() {
    let mut server = Server::with("[limits]\nper_address = 400\nstreams_per_user = 300\n");
    let ana = server.admin();
    let streams: Vec<Stream> = (0..300).map(|_| server.stream(&ana)).collect();
    ends_well(&mut server);
    for stream in streams {
        assert_eq!(stream.until_end(Duration::from_secs(2)).1, "end");
    }
    server.run();
    ends_well(&mut server);
}

#[test]
fn case_106_sigterm_in_the_middle_of_a_start_ends_the_server_and_the_start_goes_on_at_the_next() {
    let mut server = Server::start();
    let mut ana = server.admin();
    for round in 0..4 {
        let id = ana.project(&format!("App {round}"), WEB);
        // Each round another step of the start.
        std::thread::park_timeout(Duration::from_millis(100 * round));
        ends_well(&mut server);
        server.run();
        ana = ana.with_base(&server.base);
        ana.await_status(&id, "running", SOON);
        assert_eq!(engine::labelled(&format!("muelle.project={id}")).len(), 1);
    }
}

#[test]
fn case_106_sigterm_ends_a_server_whose_engine_does_not_answer() {
    let socket = std::env::temp_dir().join(unique("muelle-bytes"));
    let _engine = ByteEngine::start(&socket, |path| path.starts_with("/containers/json").then(|| json!([])));
    let mut server = Server::prepare(&format!("[docker]\nsocket = \"{}\"\n", socket.display()));
    server.run();
    let ana = server.admin();
    // Each of them waits for what the engine says of the image.
    std::thread::scope(|scope| {
        for n in 0..8 {
            let ana = &ana;
            scope.spawn(move || {
                ana.try_send("POST", "/api/projects", &json!({"name": format!("n{n}"), "image": WEB}))
            });
        }
        ends_well(&mut server);
    });
}

#[test]
fn case_149_after_a_suspension_nothing_is_stopped_and_what_happened_meanwhile_is_seen() {
    let server = Server::start();
    let ana = server.admin();
    let (stays, ends) = (ana.project("Stays", WEB), Container::web());
    let ended = ana.adopt("Ends", &ends.name);
    ana.await_status(&stays, "running", SOON);
    ana.await_status(&ended, "running", SOON);
    let started = || engine::inspect(&format!("muelle-{stays}"))["State"]["StartedAt"].clone();
    let before = started();
    server.signal(Signal::STOP);
    ends.act("stop?t=0");
    // Longer than a connection may be idle, and than the pace of the list.
    std::thread::park_timeout(Duration::from_secs(16));
    server.signal(Signal::CONT);
    ana.await_status(&ended, "stopped", Duration::from_secs(3));
    assert_eq!(ana.status(&stays), "running");
    assert_eq!(started(), before, "it was left alone");
    let stream = server.stream(&ana);
    stream.until("numbers again", SOON, |e| e.is_metrics(&stays));
}

/// A control group of cgroup v1 or v2. Needs root.
struct Group {
    path: PathBuf,
    v1: bool,
}

impl Group {
    /// One in which `controller` bounds.
    fn new(controller: &str) -> Group {
        let root = PathBuf::from("/sys/fs/cgroup");
        let v1 = root.join(controller).exists();
        let path = if v1 { root.join(controller) } else { root }.join(unique("muelle-test"));
        fs::create_dir(&path).expect("root can make a control group");
        Group { path, v1 }
    }

    fn set(&self, what: &str, value: &str) {
        fs::write(self.path.join(what), value).unwrap();
    }

    /// Moves the server's process in.
    fn take(&self, server: &Server) {
        self.set("cgroup.procs", &server.pid().to_string());
    }

    /// Moves it out, so that the group can be removed whenever the process ends.
    fn release(&self, server: &Server) {
        fs::write(self.path.parent().unwrap().join("cgroup.procs"), server.pid().to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        tidy(|| {
            // A process that ended is still on its way out for a moment.
            eventually("its group is empty", SOON, || fs::remove_dir(&self.path));
        });
    }
}

/// The status of one answer on a connection of its own; 0 where the server hangs up.
fn ask(server: &Server, path: &str) -> (TcpStream, u16) {
    let mut socket = TcpStream::connect(server.base.strip_prefix("http://").unwrap()).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    drop(write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let mut buffer = [0; 1024];
    let n = socket.read(&mut buffer).unwrap_or_default();
    let answer = String::from_utf8_lossy(&buffer[..n]).into_owned();
    (socket, answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default())
}

#[test]
fn own_host_case_110_without_threads_the_rest_is_503_until_there_are_some_again() {
    let tasks = Group::new("pids");
    let mut server = Server::prepare("");
    server.run();
    let ana = server.client().register("ana");
    server.await_engine();
    tasks.take(&server);
    tasks.set("pids.max", &(server.footprint().0 + 8).to_string());
    let (mut sockets, statuses): (Vec<TcpStream>, Vec<u16>) =
        (0..40).map(|_| ask(&server, "/healthz")).unzip();
    let count = |status: u16| statuses.iter().filter(|seen| **seen == status).count();
    assert!((1..=8).contains(&count(200)), "{statuses:?}");
    assert_eq!(count(200) + count(503), 40, "{statuses:?}");
    for socket in sockets.iter_mut().filter(|socket| socket.peek(&mut [0]).is_err()) {
        drop(socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }
    drop(sockets);
    eventually("it answers again", Duration::from_secs(5), || {
        let (_, status) = ask(&server, "/healthz");
        if status == 200 { Ok(()) } else { Err(status) }
    });
    ana.get("/api/projects").ok(200);
    tasks.set("pids.max", "max");
    tasks.release(&server);
}

#[test]
fn own_host_case_111_five_hundred_streams_and_ten_logins_fit_into_64_mib_or_are_refused() {
    let memory = Group::new("memory");
    memory.set(if memory.v1 { "memory.limit_in_bytes" } else { "memory.max" }, "67108864");
    let mut server = Server::prepare("[limits]\nper_address = 600\nstreams_per_user = 500\n");
    server.wrapper = ["sh", "-c", "echo $$ > \"$CGROUP\"; exec \"$0\" \"$@\""].map(str::to_owned).to_vec();
    server.wrapper[2] =
        server.wrapper[2].replace("$CGROUP", &memory.path.join("cgroup.procs").display().to_string());
    server.run();
    let ana = server.client().register("ana");
    server.await_engine();
    let path = format!("/api/containers/events?token={}", ana.token.as_deref().unwrap());
    let login = json!({"email": "ana@example.com", "password": crate::harness::client::PASSWORD});
    std::thread::scope(|scope| {
        let logins: Vec<_> =
            (0..10).map(|_| scope.spawn(|| server.client().post("/api/auth/login", &login).status)).collect();
        let (sockets, statuses): (Vec<TcpStream>, Vec<u16>) = (0..500).map(|_| ask(&server, &path)).unzip();
        assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
        assert!(statuses.iter().filter(|status| **status == 200).count() > 250, "{statuses:?}");
        for login in logins {
            let status = login.join().unwrap();
            assert!(matches!(status, 200 | 503), "{status}");
        }
        ana.get("/api/projects").ok(200);
        drop(sockets);
    });
    ends_well(&mut server);
}

#[test]
fn case_20_a_thousand_slow_heads_are_cut_off_in_time_and_cost_nobody_else() {
    let mut server = Server::prepare("[limits]\nper_address = 1020\n");
    server.run();
    let address = server.base.strip_prefix("http://").unwrap();
    let opened = Instant::now();
    let mut slow: Vec<TcpStream> = (0..1000)
        .map(|_| {
            let mut socket = TcpStream::connect(address).unwrap();
            socket.write_all(b"GET / HTTP/1.1\r\nX: a").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            socket
        })
        .collect();
    let mut took = Vec::new();
    let mut next_byte = opened + Duration::from_secs(5);
    let client = server.client();
    while opened.elapsed() < Duration::from_secs(9) {
        let began = Instant::now();
        client.get("/healthz").ok(200);
        took.push(began.elapsed());
        if Instant::now() >= next_byte {
            next_byte += Duration::from_secs(5);
            for socket in &mut slow {
                socket.write_all(b"a").unwrap();
            }
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    took.sort_unstable();
    let p99 = took[took.len() * 99 / 100];
    assert!(p99 < Duration::from_millis(200), "{p99:?}");
    eventually("each is cut off", Duration::from_secs(8), || {
        slow.retain_mut(|socket| {
            let mut answer = [0; 64];
            let n = socket.read(&mut answer).unwrap_or_default();
            n == 0 || !answer.starts_with(b"HTTP/1.1 408 ")
        });
        if slow.is_empty() { Ok(()) } else { Err(slow.len()) }
    });
}

/// The longest of `count` requests.
fn slowest(client: &Client, count: usize) -> Duration {
    let took = (0..count).map(|_| {
        let began = Instant::now();
        client.get("/api/projects").ok(200);
        began.elapsed()
    });
    took.max().unwrap_or_default()
}

#[test]
fn case_116_a_log_that_nobody_reads_holds_nobody_up_and_its_losses_are_counted() {
    let mut server = Server::prepare("");
    server.wrapper = ["env", "RUST_LOG=debug"].map(str::to_owned).to_vec();
    server.run();
    let ana = server.client().register("ana");
    {
        let _held = server.hold_log();
        // Two lines each: more than the pipe and the queue have room for.
        for _ in 0..1500 {
            drop(server.stream(&ana));
        }
        let slowest = slowest(&ana, 50);
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    }
    eventually("the loss is told", SOON, || {
        drop(server.stream(&ana));
        if server.log().contains("lines of the log were dropped") { Ok(()) } else { Err(server.log().len()) }
    });
    server.stop_reading();
    for _ in 0..50 {
        drop(server.stream(&ana));
    }
    let slowest = slowest(&ana, 50);
    assert!(slowest < Duration::from_secs(1), "with a closed pipe: {slowest:?}");
    ends_well(&mut server);
}

#[test]
fn case_115_a_flood_of_bad_requests_does_not_fill_the_log() {
    let mut server = Server::prepare("");
    // More than anybody logs by default.
    server.wrapper = ["env", "RUST_LOG=debug"].map(str::to_owned).to_vec();
    server.run();
    let before = server.log().len();
    let began = Instant::now();
    let bad = [
        "GET /.env HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api/projects HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api/projects HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "PUT /api/projects HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer eyJ.eyJ.x\r\n\r\n",
        "\x16\x03\x01\x02\0\x01 no such protocol\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
    ];
    let address = server.base.strip_prefix("http://").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..1500 {
                    let mut socket = TcpStream::connect(address).unwrap();
                    drop(socket.write_all(bad[n % bad.len()].as_bytes()));
                    drop(socket.shutdown(std::net::Shutdown::Write));
                    drop(socket.read_to_end(&mut Vec::new()));
                }
            });
        }
    });
    let wrong = json!({"email": "ana@example.com", "password": "wrong horse"});
    for _ in 0..200 {
        server.client().post("/api/auth/login", &wrong);
    }
    let (grown, seconds) = (server.log().len() - before, began.elapsed().as_secs_f64());
    // 1 MB a minute, and room for what the engine is told to be doing meanwhile.
    #[expect(clippy::cast_precision_loss, reason = "a log is short")]
    let rate = grown as f64 / seconds.max(1.0);
    assert!(rate < 1e6 / 60.0, "{grown} bytes in {seconds} s: {}", server.log());
    server.client().get("/healthz").ok(200);
}

/// A file system of its own. Needs root: the names of such tests begin with `own_disk_`.
pub struct Disk(pub PathBuf);

impl Disk {
    pub fn mount(at: PathBuf, size: &str) -> Disk {
        fs::create_dir(&at).unwrap();
        let options = std::ffi::CString::new(format!("size={size},mode=700")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", &at, "tmpfs", flags, &*options).expect("root can mount");
        Disk(at)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        // The folder around it could not be removed while this was there.
        drop(fs::remove_dir_all(self.0.parent().unwrap()));
    }
}

#[test]
fn own_disk_case_90_99_on_a_full_disk_reads_and_streams_go_on_and_writes_are_507_until_there_is_room() {
    let server = Server::prepare("");
    let disk = Disk::mount(server.data(), "3m");
    // It goes before its disk: what it has to tidy up is in the database.
    let mut server = server;
    engine::ensure_web_image();
    server.run();
    let ana = server.admin();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
    let stream = server.stream(&ana);
    let filler = disk.0.join("filler");
    assert!(fs::write(&filler, vec![1; 4_000_000]).is_err(), "it is full");
    let rename = |n: usize| ana.patch(&format!("/api/projects/{id}"), &json!({"name": format!("App {n}")}));
    // What is in the journal already has room for a few more.
    let refused = (0..2000).find_map(|n| Some(rename(n)).filter(|answer| answer.status != 200));
    assert_eq!(refused.expect("the disk fills").error(507), "DiskFull");
    let kept = ana.get(&format!("/api/projects/{id}")).ok(200)["project"]["name"].clone();
    stream.until("the stream goes on", SOON, |e| e.is_metrics(&id));
    fs::remove_file(&filler).unwrap();
    rename(9999).ok(200);
    ana.post(&format!("/api/containers/{id}/stop"), &json!({})).ok(200);
    stream.until_status(&id, "stopped", SOON);
    assert!(kept.as_str().is_some_and(|name| name.starts_with("App")), "{kept}");
    drop((stream, ana));
    ends_well(&mut server);
    assert_intact(&server);
}

#[test]
fn case_103_a_database_that_another_process_locks_is_waited_for_and_refuses_only_writes() {
    let server = Server::start();
    let ana = server.admin();
    let container = Container::web();
    let id = ana.adopt("App", &container.name);
    let rename = |name: &str| ana.patch(&format!("/api/projects/{id}"), &json!({"name": name}));
    let other = rusqlite::Connection::open(server.data().join("muelle.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    std::thread::scope(|scope| {
        let refused = scope.spawn(|| rename("Locked"));
        let slowest = slowest(&ana, 50);
        assert!(slowest < Duration::from_secs(1), "reads go on: {slowest:?}");
        let refused = refused.join().unwrap();
        assert!(refused.status == 503, "{refused:?}");
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
    });
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(rename("Free").ok(200)["project"]["name"], "Free");
}

/// Where containers find this host.
fn bridge() -> (Container, String) {
    let probe =
        Container::start("exec busybox sleep 1000", &json!({"Tty": true, "HostConfig": {"Init": true}}));
    let gateway = probe.inspect()["NetworkSettings"]["Gateway"].as_str().expect("a gateway").to_owned();
    (probe, gateway)
}

#[test]
fn case_118_a_container_is_refused_on_whatever_address_the_server_listens() {
    let (_probe, gateway) = bridge();
    let free = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let request = format!("GET /api/health HTTP/1.1\\r\\nHost: {gateway}\\r\\nConnection: close\\r\\n\\r\\n");
    // Its wget dies of looking up names, and numbers too.
    let ask = format!("busybox printf '{request}' | busybox nc {gateway} {port} 2>&1");
    let script = format!("while :; do {ask}; busybox sleep 0.2; done");
    let caller = Container::start(&script, &json!({"Tty": true, "HostConfig": {"Init": true}}));
    let says = |what: &str| {
        eventually(what, SOON, || {
            let path = format!("/containers/{}/logs?stdout=1&stderr=1&tail=30", caller.name);
            let said = engine::text(&path);
            if said.contains(what) { Ok(()) } else { Err(said) }
        });
    };
    let mut server = Server::prepare(&format!("[api]\nlisten = \"127.0.0.1:{port}\"\n"));
    server.run();
    server.client().get("/healthz").ok(200);
    says("Connection refused");
    drop(server);

    let mut server = Server::prepare(&format!("[api]\nlisten = \"0.0.0.0:{port}\"\n"));
    server.run();
    server.await_engine();
    says("403 Forbidden");
    for host in ["127.0.0.1", &gateway] {
        Client::new(&format!("http://{host}:{port}")).get("/api/health").ok(200);
    }
    drop(server);

    // A proxy in a container is named in the configuration.
    let address = caller.inspect()["NetworkSettings"]["IPAddress"].as_str().expect("an address").to_owned();
    let config = format!("trusted_peers = [\"{address}\"]\n[api]\nlisten = \"0.0.0.0:{port}\"\n");
    let mut server = Server::prepare(&config);
    server.run();
    says("\"status\":");
}

#[test]
fn case_154_three_hundred_projects_and_a_slow_engine_hold_up_nobody() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let socket = std::env::temp_dir().join(unique("muelle-bytes"));
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (looking, peak) = (Arc::clone(&now), Arc::clone(&most));
    let _engine = ByteEngine::start(&socket, move |path| {
        if path.starts_with("/containers/json") {
            return Some((0..300).map(byte_engine::row).collect());
        }
        if path.contains("/stats") {
            return Some(json!({}));
        }
        let n = path.strip_prefix("/containers/app-")?.strip_suffix("/json")?.parse().ok()?;
        peak.fetch_max(looking.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
        std::thread::park_timeout(Duration::from_millis(100));
        looking.fetch_sub(1, Ordering::AcqRel);
        Some(byte_engine::inspected(n))
    });
    let mut server = Server::prepare(&format!("[docker]\nsocket = \"{}\"\n", socket.display()));
    server.adopt_many(300);
    let began = Instant::now();
    server.run();
    let ana = server.client().login("ana0");
    assert_eq!(ana.get("/api/projects").ok(200)["projects"].as_array().map(Vec::len), Some(150));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let running = |client: &Client| {
        let list = client.get("/api/projects").ok(200);
        list["projects"].as_array().unwrap().iter().filter(|p| p["status"] == "running").count()
    };
    let bea = server.client().login("ana1");
    eventually("all were looked at", Duration::from_secs(30), || match (running(&ana), running(&bea)) {
        (150, 150) => Ok(()),
        so_far => Err(so_far),
    });
    let most = most.load(Ordering::Acquire);
    assert!((2..=4).contains(&most), "{most} looks at once");
}

#[test]
fn case_155_a_container_whose_numbers_never_come_costs_the_others_nothing() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let socket = std::env::temp_dir().join(unique("muelle-bytes"));
    let asked = Arc::new(AtomicUsize::new(0));
    let hung = Arc::clone(&asked);
    let _engine = ByteEngine::start(&socket, move |path| {
        if path.starts_with("/containers/json") {
            return Some((0..50).map(byte_engine::row).collect());
        }
        if let Some(name) = path.strip_prefix("/containers/app-") {
            return Some(byte_engine::inspected(name.strip_suffix("/json")?.parse().ok()?));
        }
        let (id, _) = path.strip_prefix("/containers/")?.split_once("/stats")?;
        if id == byte_engine::id(7) {
            hung.fetch_add(1, Ordering::AcqRel);
            return None;
        }
        let now = std::time::SystemTime::now();
        Some(json!({
            "read": humantime::format_rfc3339_nanos(now).to_string(),
            "cpu_stats": {"cpu_usage": {"total_usage": 1_000_000}, "online_cpus": 2},
            "memory_stats": {"usage": 1 << 20},
        }))
    });
    let config = format!("[docker]\nsocket = \"{}\"\n[metrics]\nsource = \"api\"\n", socket.display());
    let mut server = Server::prepare(&config);
    server.adopt_many(50);
    server.run();
    let (ana, bea) = (server.client().login("ana0"), server.client().login("ana1"));
    let id_of = |client: &Client, name: &str| {
        let list = client.get("/api/projects").ok(200);
        let found = list["projects"].as_array().unwrap().iter().find(|p| p["name"] == name).cloned();
        found.map(|project| project["id"].as_str().unwrap().to_owned())
    };
    // The projects alternate between the two owners.
    for (client, count) in [(&ana, 25), (&bea, 24)] {
        let stream = server.stream(client);
        let others: Vec<String> =
            (0..50).filter(|n| *n != 7).filter_map(|n| id_of(client, &format!("App {n}"))).collect();
        assert_eq!(others.len(), count);
        stream.until("the first numbers", SOON, |e| e.is_metrics(&others[0]));
        let end = Instant::now() + Duration::from_millis(3_500);
        let mut told: Vec<String> = Vec::new();
        while let Ok(event) = stream.next(end.saturating_duration_since(Instant::now())) {
            if event.name == "metrics_updated" {
                told.push(event.data["projectId"].as_str().unwrap().to_owned());
            }
        }
        for id in &others {
            let times = told.iter().filter(|seen| *seen == id).count();
            assert!(times >= 2, "{id}: {times} times in 3.5 s at a pace of one");
        }
        if let Some(hung) = id_of(client, "App 7") {
            assert!(!told.contains(&hung), "it has no numbers");
        }
    }
    assert!(asked.load(Ordering::Acquire) <= 2, "one that hangs is not asked at every round");
}
