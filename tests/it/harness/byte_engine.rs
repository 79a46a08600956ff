//! What answers like an engine where a real one will not do: hundreds of containers, and answers that are late or never come.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

/// A unix listener that answers each request line (without its version prefix) with JSON, or never, with `None`. `/events` is silent.
pub struct ByteEngine {
    socket: PathBuf,
    stop: Arc<AtomicBool>,
}

impl ByteEngine {
    pub fn start(
        socket: &Path,
        answer: impl Fn(&str) -> Option<Value> + Send + Sync + 'static,
    ) -> ByteEngine {
        let listener = UnixListener::bind(socket).unwrap();
        let (stop, answer) = (Arc::new(AtomicBool::new(false)), Arc::new(answer));
        let stopped = Arc::clone(&stop);
        spawn(move || {
            for stream in listener.incoming().map(Result::unwrap) {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let answer = Arc::clone(&answer);
                spawn(move || serve(stream, answer.as_ref()));
            }
        });
        ByteEngine { socket: socket.to_owned(), stop }
    }
}

impl Drop for ByteEngine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(UnixStream::connect(&self.socket));
        drop(std::fs::remove_file(&self.socket));
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own thread, ended by its socket")]
fn spawn(body: impl FnOnce() + Send + 'static) {
    std::thread::spawn(body);
}

fn serve(mut stream: UnixStream, answer: &dyn Fn(&str) -> Option<Value>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
        while reader.read_line(&mut line).unwrap_or(0) > 0 && line != "\r\n" {
            if first.is_empty() {
                first.clone_from(&line);
            }
            if let Some(digits) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = digits.trim().parse().unwrap();
            }
            line.clear();
        }
        if line.is_empty() || reader.read_exact(&mut vec![0; length]).is_err() {
            return;
        }
        let target = first.split(' ').nth(1).unwrap_or_default();
        let path = target.strip_prefix("/v1.41").unwrap_or(target);
        let known = match path {
            "/_ping" => Some(json!("OK")),
            "/version" => Some(json!({"Version": "20.10.24", "ApiVersion": "1.41"})),
            _ if path.starts_with("/events") => {
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"));
                None
            }
            _ => answer(path),
        };
        let Some(body) = known.map(|body| body.to_string()) else {
            // Until the client gives up.
            drop(reader.read(&mut [0]));
            return;
        };
        let head = format!("HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: {}\r\n\r\n", body.len());
        if stream.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}

/// The n-th container's id.
pub fn id(n: usize) -> String {
    format!("{n:064x}")
}

/// The n-th container in the list: running, called `app-N`.
pub fn row(n: usize) -> Value {
    json!({"Id": id(n), "Names": [format!("/app-{n}")], "Image": "app:1", "State": "running", "Status": "Up"})
}

/// The same, inspected.
pub fn inspected(n: usize) -> Value {
    json!({
        "Id": id(n), "Name": format!("/app-{n}"), "Image": "sha256:00",
        "State": {"Status": "running", "Running": true, "StartedAt": "2026-01-01T00:00:00Z"},
        "Config": {}, "HostConfig": {}, "NetworkSettings": {},
    })
}
