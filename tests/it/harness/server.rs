//! A muelle of the test's own: the real binary, a data folder, port 0.

use std::fs;
use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::image::{self, unique};
use super::{Client, Stream, engine, eventually};

/// A running server, or one that was stopped and can be started again on the same data.
pub struct Server {
    pub dir: PathBuf,
    pub base: String,
    config: String,
    /// A program with its arguments that runs muelle, where the test needs one.
    pub wrapper: Vec<String>,
    /// What its environment says beside that of the tests.
    pub env: Vec<(&'static str, String)>,
    child: Option<Child>,
    log: Arc<Mutex<String>>,
    /// Set when nobody is to read its log any more.
    deaf: Arc<AtomicBool>,
}

impl Server {
    /// Starts one with the defaults that suit tests.
    pub fn start() -> Server {
        Server::with("")
    }

    /// Starts one with more configuration, `[section]`s after top-level keys.
    pub fn with(config: &str) -> Server {
        let mut server = Server::prepare(config);
        engine::ensure_web_image();
        server.run();
        server
    }

    /// Its folder and configuration, without the process.
    pub fn prepare(config: &str) -> Server {
        let dir = std::env::temp_dir().join(unique("muelle-test"));
        fs::create_dir_all(&dir).expect("a temporary folder");
        Server {
            dir,
            base: String::new(),
            config: config.to_owned(),
            wrapper: Vec::new(),
            env: Vec::new(),
            child: None,
            log: Arc::default(),
            deaf: Arc::default(),
        }
    }

    /// Starts the process and waits until it says where it listens.
    pub fn run(&mut self) {
        let file = self.config_file();
        let mut child = program(&self.wrapper)
            .arg("serve")
            .arg("--config")
            .arg(file)
            .envs(self.env.iter().cloned())
            .stderr(Stdio::piped())
            .spawn()
            .expect("muelle starts");
        let stderr = child.stderr.take().expect("its standard error");
        self.assert_log_keeps_secrets();
        self.hold_log().clear();
        let (log, deaf) = (Arc::clone(&self.log), Arc::clone(&self.deaf));
        #[expect(
            clippy::disallowed_methods,
            reason = "a test's own thread, ended by the process it reads from"
        )]
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
                if deaf.load(Ordering::Acquire) {
                    return;
                }
            }
        });
        self.child = Some(child);
        self.base = eventually("muelle says where it listens", Duration::from_secs(20), || {
            let log = self.log();
            let at = log
                .find("listening on http://")
                .map(|at| at + "listening on ".len())
                .ok_or_else(|| log.clone())?;
            log[at..]
                .split_whitespace()
                .next()
                .map(|base| base.trim_end_matches('/').to_owned())
                .ok_or(log.clone())
        });
    }

    /// Writes the configuration; gives its path.
    pub fn config_file(&self) -> PathBuf {
        let file = self.dir.join("config.toml");
        let mut config = self.config.clone();
        let socket = format!("socket = \"{}\"", image::socket().display());
        for (section, line) in [
            ("[api]", "listen = \"127.0.0.1:0\""),
            ("[proxy]", "listen = []"),
            ("[metrics]", "interval = \"1s\""),
            ("[docker]", socket.as_str()),
        ] {
            let key = line.split(' ').next().expect("a key");
            let present = config
                .split(section)
                .nth(1)
                .is_some_and(|s| s.split("\n[").next().is_some_and(|s| s.contains(key)));
            if present {
                continue;
            }
            if config.contains(section) {
                config = config.replacen(section, &format!("{section}\n{line}"), 1);
            } else {
                config = format!("{config}\n{section}\n{line}\n");
            }
        }
        fs::write(&file, config).expect("a configuration file");
        file
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn client(&self) -> Client {
        Client::new(&self.base)
    }

    /// The administrator's client. Waits for the engine, so that the test can begin.
    pub fn admin(&self) -> Client {
        self.await_engine();
        self.client().register("admin-ana")
    }

    pub fn await_engine(&self) {
        eventually("the engine answers", Duration::from_secs(15), || {
            let health = self.client().get("/api/health");
            if health.body["status"] == "ok" { Ok(()) } else { Err(health.text) }
        });
    }

    pub fn stream(&self, client: &Client) -> Stream {
        Stream::open(&self.base, client.token.as_deref().expect("a token"))
    }

    /// Everything it has logged since its last start.
    pub fn log(&self) -> String {
        self.hold_log().clone()
    }

    /// Threads and descriptors in use.
    pub fn footprint(&self) -> (usize, usize) {
        let pid = self.pid();
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).expect("its /proc").count();
        (count("task"), count("fd"))
    }

    /// The names of its threads.
    pub fn threads(&self) -> Vec<String> {
        let pid = self.child.as_ref().expect("it runs").id();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its /proc").flatten();
        tasks
            .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
            .map(|name| name.trim().to_owned())
            .collect()
    }

    /// While this is held nobody reads its log, and the pipe fills up.
    pub fn hold_log(&self) -> MutexGuard<'_, String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the reading end of its log, once it has written another line.
    pub fn stop_reading(&self) {
        self.deaf.store(true, Ordering::Release);
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn signal(&self, number: rustix::process::Signal) {
        signal(self.child.as_ref().expect("it runs"), number);
    }

    /// What every fault has to leave behind: hardly a connection's thread, and hardly a socket but those that listen and lead to the
    /// engine. Two may be left: a quiet stream notices with its next comment that its client has gone.
    #[track_caller]
    pub fn await_calm(&self) {
        let pid = self.pid();
        let read = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).expect("its /proc").flatten();
        eventually("no client's thread or socket is left", Duration::from_secs(30), || {
            let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            let connections = read("task").map(name).filter(|name| name.starts_with("conn-")).count();
            let target = |fd: fs::DirEntry| fs::read_link(fd.path()).unwrap_or_default();
            let is_socket = |path: &PathBuf| path.to_string_lossy().starts_with("socket:");
            let sockets = read("fd").map(target).filter(is_socket).count();
            let engine = muelle::limits::DOCKER_IDLE_MAX + muelle::limits::OPS_THREADS + 1;
            if connections <= 2 && sockets <= 2 + 2 + engine { Ok(()) } else { Err((connections, sockets)) }
        });
    }

    /// No password and no token (a JWT begins with `{"`, in base64 `eyJ`) is in the log.
    #[track_caller]
    fn assert_log_keeps_secrets(&self) {
        let log = self.log();
        let told = log.lines().find(|line| line.contains(super::client::PASSWORD) || line.contains("eyJ"));
        assert_eq!(told, None, "a secret is in the log");
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// SIGTERM; gives the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        signal(&child, rustix::process::Signal::TERM);
        let status = eventually("muelle ends after SIGTERM", Duration::from_secs(20), || {
            child.try_wait().expect("its state").ok_or("still running")
        });
        status.code()
    }

    /// Runs a command on this server's data and configuration; gives the exit code and what it said.
    pub fn command(&self, arguments: &[&str], input: &str) -> (i32, String) {
        run_with(&self.env, arguments, Some(&self.config_file()), input)
    }

    /// Before it runs: `count` adopted containers `app-N`, shared by the accounts `ana0` and `ana1`.
    pub fn adopt_many(&self, count: usize) {
        use muelle::domain::{ContainerName, Desired, Email, ProjectName, Settings, Source, UserName};
        use muelle::store::{Admit, NewProject, NewUser, Store};
        let (store, now) = (Store::open(&self.data()).unwrap(), std::time::SystemTime::now());
        let password = muelle::auth::password::Password::parse(super::client::PASSWORD).unwrap();
        let owners: Vec<_> = (0..2)
            .map(|n| NewUser {
                email: Email::parse(&format!("ana{n}@example.com")).unwrap(),
                name: UserName::parse("Ana").unwrap(),
                password_hash: muelle::auth::password::hash(&password).unwrap(),
            })
            .map(|user| store.create_user(user, Admit::Any, now).unwrap().id)
            .collect();
        for n in 0..count {
            let new = NewProject {
                owner: owners[n % 2],
                name: ProjectName::parse(&format!("App {n}")).unwrap(),
                source: Source::Container(ContainerName::parse(&format!("app-{n}")).unwrap()),
                template: None,
                settings: Settings::default(),
                desired: Desired::AsFound,
            };
            store.create_project(new, now, |_| {}).unwrap();
        }
    }

    /// This installation's mark on containers.
    pub fn instance(&self) -> String {
        let db = rusqlite::Connection::open(self.data().join("muelle.db")).expect("the database");
        db.query_row("SELECT value FROM meta WHERE key = 'instance'", [], |row| row.get(0))
            .expect("an instance")
    }
}

/// The binary, deaf to the environment of whoever runs the tests.
fn program(wrapper: &[String]) -> Command {
    let muelle = env!("CARGO_BIN_EXE_muelle").to_owned();
    let words = [wrapper, &[muelle]].concat();
    #[expect(clippy::disallowed_methods, reason = "the tests run the real binary")]
    let mut program = Command::new(&words[0]);
    program.args(&words[1..]);
    for inherited in ["RUST_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        program.env_remove(inherited);
    }
    program
}

/// Runs the binary to its end.
pub fn run(arguments: &[&str], config: Option<&Path>, input: &str) -> (i32, String) {
    run_with(&[], arguments, config, input)
}

fn run_with(
    env: &[(&'static str, String)],
    arguments: &[&str],
    config: Option<&Path>,
    input: &str,
) -> (i32, String) {
    use std::io::Write;
    let mut command = program(&[]);
    command.args(arguments).envs(env.iter().cloned());
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("muelle starts");
    // A command that reads nothing may have ended already.
    drop(child.stdin.take().expect("its input").write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), said)
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).expect("a signal can be sent");
}

impl Drop for Server {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        let calm =
            failed || self.child.is_none() || catch_unwind(AssertUnwindSafe(|| self.await_calm())).is_ok();
        image::tidy(|| self.end());
        if failed || !calm {
            eprintln!("---- the server's log ----\n{}", self.log());
        }
        image::tidy(|| self.remove_containers());
        drop(fs::remove_dir_all(&self.dir));
        if !failed {
            assert!(calm, "threads or descriptors are left");
            self.assert_log_keeps_secrets();
        }
    }
}

impl Server {
    /// Not a kill at once: what it asked of the engine last would happen after the cleaning up.
    fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal(&child, rustix::process::Signal::TERM);
        let limit = std::time::Instant::now() + Duration::from_secs(20);
        while child.try_wait().unwrap().is_none() {
            if std::time::Instant::now() > limit {
                child.kill().unwrap();
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn remove_containers(&self) {
        if !self.data().join("muelle.db").exists() {
            return;
        }
        let instance = self.instance();
        let limit = std::time::Duration::from_secs(20);
        // What the engine is removing already is refused at once, and holds on to its network and its image.
        eventually("its containers are gone", limit, || {
            let left = engine::labelled(&format!("muelle.instance={instance}"));
            for container in &left {
                engine::remove(container["Id"].as_str().unwrap());
            }
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
        Server::remove_network(&format!("muelle-{instance}"));
        // While a build that was ended is not over, it has containers of its own, which the engine removes; one that died meanwhile does not.
        let built = &**super::git_server::BUILT_HERE;
        let since = std::time::Instant::now();
        eventually("its builds are over", limit, || {
            let mut left = engine::labelled(built);
            left.retain(|container| container["Labels"]["muelle.instance"].is_null());
            for container in left.iter().filter(|_| since.elapsed() > limit / 4) {
                engine::remove(container["Id"].as_str().unwrap());
            }
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
        Server::remove_images(&format!("muelle.instance={instance}"), "");
        Server::remove_images(built, r#","dangling":["true"]"#);
    }

    /// Docker 20.10 was seen to leave a container that it had removed on its network for good: then by force.
    fn remove_network(name: &str) {
        let limit = std::time::Duration::from_secs(20);
        let since = std::time::Instant::now();
        eventually("its network is gone", limit, || {
            let path = format!("/networks/{name}");
            let (status, answer) = image::raw("DELETE", &path, "", b"");
            let (_, network) = engine::json("GET", &path, &serde_json::Value::Null);
            let forgotten = network["Containers"].as_object().filter(|_| since.elapsed() > limit / 4);
            for (_, container) in forgotten.into_iter().flatten() {
                eprintln!("the engine has left on its network what it has removed: {container}");
                let body = serde_json::json!({"Container": container["Name"], "Force": true});
                engine::json("POST", &format!("{path}/disconnect"), &body);
            }
            if matches!(status, 204 | 404) { Ok(()) } else { Err((answer, network)) }
        });
    }

    fn remove_images(label: &str, more: &str) {
        let limit = std::time::Duration::from_secs(20);
        let filters = image::encoded(&format!(r#"{{"label":["{label}"]{more}}}"#));
        // What a build that was ended left may come a moment later, and what still hangs on another image goes behind that.
        eventually("its images are gone", limit, || {
            let (_, images) =
                engine::json("GET", &format!("/images/json?filters={filters}"), &serde_json::Value::Null);
            let images = images.as_array().cloned().unwrap_or_default();
            let delete = |image: &serde_json::Value| {
                let path = format!("/images/{}?force=1", image["Id"].as_str().unwrap());
                image::raw("DELETE", &path, "", b"").1
            };
            let refused: Vec<String> = images.iter().map(delete).collect();
            if images.is_empty() { Ok(()) } else { Err(refused) }
        });
    }
}
