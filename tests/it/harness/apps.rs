//! Apps behind the proxy: asked at their addresses, put to sleep, woken.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use super::Server;
use super::engine::{self, WEB};

const SOON: Duration = Duration::from_secs(30);

/// Where the apps of a server are reached.
pub fn door(server: &Server) -> String {
    let log = server.log();
    let line = log.lines().find_map(|line| line.split("apps are reached at http://").nth(1));
    line.expect("a line that says where").to_owned()
}

/// Says something there and gives the answer until the connection closes.
pub fn say(door: &str, request: &str) -> String {
    let mut socket = TcpStream::connect(door).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

pub fn get(door: &str, host: &str) -> String {
    say(door, &format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
}

/// Sleep within seconds of no requests. The supervisor looks every 5 s.
pub fn config(more: &str) -> String {
    format!(
        "[proxy]\nlisten = \"127.0.0.1:0\"\n[metrics]\ninterval = \"1s\"\n[idle]\nafter = \"2s\"\ngrace = \"0s\"\n{more}"
    )
}

/// A request of somebody who uses it.
pub fn visit(door: &str, name: &str) -> String {
    get(door, &format!("{name}.admin-ana.localhost"))
}

/// Runs on a thread of a test, which joins it.
pub fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    #[expect(clippy::disallowed_methods, reason = "a test's own thread, joined by it")]
    std::thread::spawn(work)
}

/// Has requests meet idle stops, so many times in all: each has to be served.
pub fn meet_idle_stops(requests: usize) {
    const PROJECTS: usize = 10;
    let server = Server::with(&config(""));
    let ana = server.admin();
    let stream = server.stream(&ana);
    let names: Vec<String> = (0..PROJECTS).map(|number| format!("app{number}")).collect();
    let ids: Vec<String> = names.iter().map(|name| ana.project(name, WEB)).collect();
    let at = door(&server);
    let mut asking = Vec::new();
    while asking.len() < requests {
        let (event, _) = stream.until("one is put to sleep", SOON, |it| it.name == "auto_shutdown");
        let which = ids.iter().position(|id| event.data["projectId"] == *id).unwrap();
        let (at, name) = (at.clone(), names[which].clone());
        // Before the engine is asked, while the container ends, and after that.
        let pause = Duration::from_millis((asking.len() as u64 * 37) % 300);
        asking.push(aside(move || {
            std::thread::park_timeout(pause);
            visit(&at, &name)
        }));
    }
    for asked in asking {
        let answer = asked.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
    }
}

/// Stops muelle itself for a time, with a request at its door from two seconds before the end: the app is not put to sleep meanwhile.
pub fn outlast_a_stall(time: Duration) {
    let server = Server::with(&config(""));
    let ana = server.admin();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
    let at = door(&server);
    assert!(visit(&at, "app").ends_with("hello"));
    server.signal(Signal::STOP);
    let asking = aside(move || {
        // The kernel takes the connection. The idle time and the supervisor's next look are over before we go on.
        std::thread::park_timeout(time.saturating_sub(Duration::from_secs(2)));
        visit(&at, "app")
    });
    std::thread::park_timeout(time);
    server.signal(Signal::CONT);
    let answer = asking.join().unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    let name = format!("muelle-{id}");
    let starts = engine::starts_since_boot().iter().filter(|started| **started == name).count();
    assert_eq!(starts, 1, "it was not put to sleep with a request at the door");
    ana.await_status(&id, "inactive", SOON);
}
