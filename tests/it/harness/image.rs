//! An image that runs what a test says in the variable `RUN`: busybox and nothing else, made through the engine's import.
//!
//! There is no registry, and the client under test neither imports nor removes images: this speaks HTTP/1.0 by hand. Shared by the
//! unit tests of `docker` and by the integration tests.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

thread_local! {
    /// The engine of this test's own, where it has one.
    pub static OWN: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// Where the engine of the tests is: as `DOCKER_HOST` says. Tests fail without an engine.
pub fn socket() -> PathBuf {
    if let Some(own) = OWN.with_borrow(Clone::clone) {
        return own;
    }
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock").into()
}

/// An image that is removed with this.
#[derive(Debug)]
pub struct TestImage(pub String);

impl TestImage {
    /// Imports it, with `changes` in the words of a Dockerfile; they come after the common ones.
    pub fn new(changes: &[&str]) -> TestImage {
        let reference = unique("muelle-test") + ":1";
        import(&reference, changes);
        TestImage(reference)
    }
}

/// Tidies up in a `drop`: what fails there fails the test, unless that has failed already.
pub fn tidy(up: impl FnOnce()) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(up)) else { return };
    if std::thread::panicking() {
        eprintln!("something of this test is left behind");
    } else {
        resume_unwind(panic);
    }
}

impl Drop for TestImage {
    fn drop(&mut self) {
        tidy(|| self.remove());
    }
}

impl TestImage {
    fn remove(&self) {
        // An image that a container still uses would lose its name only.
        let filter = encoded(&format!(r#"{{"ancestor":["{}"]}}"#, self.0));
        let (_, users) = raw("GET", &format!("/v1.41/containers/json?all=1&filters={filter}"), "", b"");
        for id in users.split("\"Id\":\"").skip(1).filter_map(|rest| rest.get(..64)) {
            raw("DELETE", &format!("/v1.41/containers/{id}?force=1"), "", b"");
        }
        raw("DELETE", &format!("/v1.41/images/{}?force=1", self.0), "", b"");
    }
}

/// Imports an image of busybox under this name.
pub fn import(reference: &str, changes: &[&str]) {
    let common =
        [r#"CMD ["/bin/busybox","sh","-c","eval \"$RUN\""]"#, "LABEL muelle.test=1", "ENV PATH=/bin"];
    let changes: Vec<String> = common.iter().chain(changes).map(|change| encoded(change)).collect();
    // The tag with the name: Podman takes no notice of one by itself.
    let path =
        format!("/v1.41/images/create?fromSrc=-&repo={reference}&changes={}", changes.join("&changes="));
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let (status, answer) = raw("POST", &path, "application/x-tar", &tar("bin/busybox", &busybox));
    assert!(status == 200 && !answer.contains("\"error\""), "{status} {answer}");
}

/// A name that no other test and no other run has.
pub fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    format!("{prefix}-{}-{nanos}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// One request to the engine, without the client under test. Gives the whole answer, head and body.
pub fn raw(method: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, String) {
    try_raw(method, path, content_type, body).expect("a container engine is needed for this test")
}

/// The same where the engine may be away.
pub fn try_raw(method: &str, path: &str, content_type: &str, body: &[u8]) -> io::Result<(u16, String)> {
    let mut engine = UnixStream::connect(socket())?;
    engine.set_read_timeout(Some(Duration::from_secs(60)))?;
    engine.set_write_timeout(Some(Duration::from_secs(60)))?;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    engine.write_all(head.as_bytes())?;
    engine.write_all(body)?;
    let mut answer = Vec::new();
    engine.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, answer))
}

pub fn encoded(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect::<Vec<_>>().concat()
}

/// A ustar archive of one executable file (POSIX.1-1988).
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut head = [0_u8; 512];
    head[..name.len()].copy_from_slice(name.as_bytes());
    head[100..108].copy_from_slice(b"0000755\0");
    head[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    head[148..156].fill(b' ');
    head[156] = b'0';
    head[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = head.iter().map(|b| u32::from(*b)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = vec![0; content.len().next_multiple_of(512) - content.len() + 1024];
    [&head[..], content, &padding].concat()
}
