//! An engine of the test's own, to be stopped, killed and frozen. Needs root and iproute2; the names of its tests begin with
//! `own_engine_`.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::eventually;
use super::image::{self, OWN, unique};

/// A `dockerd` with its own socket, data and bridge (with `--bridge none`, or at a restart with
/// `--default-address-pool`, it would take away the `docker0` of another). This thread's [`image::socket`] is its.
pub struct OwnEngine {
    dir: PathBuf,
    bridge: String,
    child: Option<Child>,
}

impl OwnEngine {
    /// A place for one that does not run yet.
    pub fn prepare() -> OwnEngine {
        let dir = std::env::temp_dir().join(unique("muelle-engine"));
        fs::create_dir_all(&dir).unwrap();
        OWN.set(Some(dir.join("docker.sock")));
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes).unwrap();
        let [a, b] = bytes;
        let bridge = format!("mut-{a:02x}{b:02x}");
        ip(&["link", "add", &bridge, "type", "bridge"]);
        ip(&["addr", "add", &format!("10.{}.{b}.1/24", 64 + a % 64), "dev", &bridge]);
        ip(&["link", "set", &bridge, "up"]);
        OwnEngine { dir, bridge, child: None }
    }

    /// One that answers.
    pub fn start() -> OwnEngine {
        let mut engine = OwnEngine::prepare();
        engine.run();
        engine
    }

    /// Gives it a disk of its own, of so many bytes, before it runs for the first time.
    pub fn limit_disk(&self, bytes: u64) {
        fs::create_dir(self.data()).unwrap();
        let options = std::ffi::CString::new(format!("size={bytes},mode=711")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", self.data(), "tmpfs", flags, &*options).expect("root can mount");
    }

    /// Where its images and containers are.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Starts the process and waits until it answers.
    pub fn run(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let at = |name: &str| self.dir.join(name).display().to_string();
        fs::write(self.dir.join("daemon.json"), "{}").unwrap();
        for pid in ["pid", "exec/containerd/containerd.pid"] {
            // Left by one that was killed: where nobody reaps its containerd, the next one would wait for it.
            drop(fs::remove_file(self.dir.join(pid)));
        }
        #[expect(clippy::disallowed_methods, reason = "the tests run a real engine")]
        let child = Command::new("dockerd")
            .args([
                "--bridge",
                &self.bridge,
                "--iptables=false",
                "-H",
                &format!("unix://{}", at("docker.sock")),
            ])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")])
            .args(["--config-file", &at("daemon.json")])
            .stderr(Stdio::from(log.try_clone().unwrap()))
            .stdout(log)
            .spawn();
        self.child = Some(child.expect("dockerd starts: this test needs Docker's package, and root"));
        eventually("the engine of the test answers", Duration::from_secs(60), || {
            let answered = image::try_raw("GET", "/_ping", "", b"");
            if answered.is_ok_and(|(status, _)| status == 200) {
                Ok(())
            } else {
                Err(fs::read_to_string(self.dir.join("log")).unwrap_or_default())
            }
        });
    }

    /// SIGTERM: it stops its containers, then ends.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        self.child.take().unwrap().wait().unwrap();
    }

    /// SIGKILL: its containers go on.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.take().unwrap().wait().unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }
}

fn ip(arguments: &[&str]) {
    #[expect(clippy::disallowed_methods, reason = "the bridge of a real engine")]
    let done = Command::new("ip").args(arguments).status().expect("iproute2 is installed");
    assert!(done.success(), "ip {arguments:?}");
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        image::tidy(|| self.end());
        image::tidy(|| ip(&["link", "delete", &self.bridge]));
        OWN.set(None);
    }
}

impl OwnEngine {
    /// An engine that is killed while it starts a container leaves the process that would have watched over that.
    fn end_shims(&self) {
        let socket = self.dir.join("exec").display().to_string();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let pid = process.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
            if let Some(pid) = pid.filter(|_| String::from_utf8_lossy(&line).contains(&socket)) {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    fn end(&mut self) {
        match &self.child {
            // Only an engine that runs can end the containers of one that was killed.
            None => self.run(),
            Some(_) => self.signal(Signal::CONT),
        }
        self.stop();
        self.end_shims();
        for mount in fs::read_to_string("/proc/self/mounts").unwrap_or_default().lines().rev() {
            let at = mount.split(' ').nth(1).unwrap_or_default();
            if at.starts_with(&*self.dir.to_string_lossy()) {
                let _ = rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH);
            }
        }
        drop(fs::remove_dir_all(&self.dir));
    }
}
