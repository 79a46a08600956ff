//! The front as the spawned server shows it: bytes on a socket.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::{Server, eventually};

/// Sends bytes and reads until the server closes or nothing comes for a while.
fn exchange(server: &Server, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(server.base.strip_prefix("http://").unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // A server that refuses the head may have closed already.
    drop(socket.write_all(bytes));
    let mut answer = Vec::new();
    drop(socket.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn what_the_front_refuses_has_the_shape_and_the_cors_of_every_error() {
    let server = Server::start();
    let origin = "Origin: http://localhost:5173\r\n";
    for (request, status, code) in [
        (
            format!(
                "POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\n{origin}Content-Length: 5, 5\r\n\r\n"
            ),
            400,
            "BadRequest",
        ),
        (
            format!(
                "POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\n{origin}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
            ),
            400,
            "BadRequest",
        ),
        (
            format!(
                "POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\n{origin}Content-Type: application/json\r\nContent-Length: 30000000000\r\n\r\n"
            ),
            413,
            "PayloadTooLarge",
        ),
        (
            format!(
                "POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\n{origin}Content-Type: application/json\r\nContent-Length: 1048577\r\n\r\n"
            ),
            413,
            "PayloadTooLarge",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: localhost\r\n{origin}X: {}\r\n\r\n", "x".repeat(33 * 1024)),
            431,
            "HeadersTooLarge",
        ),
        (format!("GET / HTTP/2.0\r\nHost: localhost\r\n{origin}\r\n"), 505, "HttpVersionNotSupported"),
        (format!("TRACE / HTTP/1.1\r\nHost: localhost\r\n{origin}\r\n"), 405, "MethodNotAllowed"),
        (
            format!(
                "POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\n{origin}Expect: miracles\r\nContent-Length: 2\r\n\r\n"
            ),
            417,
            "ExpectationFailed",
        ),
    ] {
        let answer = exchange(&server, request.as_bytes());
        let first = request.lines().nth(3).unwrap_or_default();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{first}: {answer}");
        assert!(answer.contains(&format!("\"error\":\"{code}\"")), "{first}: {answer}");
        assert!(answer.contains(&format!("\"statusCode\":{status}")), "{first}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{first}: {answer}");
    }
    // Where the head was understood, the page that sent it can read the answer.
    let answer = exchange(&server, format!("POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\n{origin}Content-Type: application/json\r\nContent-Length: 30000000000\r\n\r\n").as_bytes());
    assert!(answer.contains("Access-Control-Allow-Origin: http://localhost:5173"), "{answer}");
}

#[test]
fn case_3_a_smuggled_second_request_never_runs() {
    let server = Server::start();
    let smuggled = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for length in ["abc", "-1", "+5", "0x5", "", "5, 5", "5 5"] {
        let request = format!(
            "POST /api/auth/logout HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{smuggled}"
        );
        let answer = exchange(&server, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{length}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{length}: {answer}");
    }
}

#[test]
fn case_59_another_host_name_is_misdirected() {
    let server = Server::with("[api]\nhosts = [\"panel.example\"]\n");
    for (host, status) in [
        ("evil.example", 421),
        ("localhost", 200),
        ("127.0.0.1:3000", 200),
        ("[::1]", 200),
        ("panel.example", 200),
    ] {
        let answer = server.client().send("GET", "/healthz", &[("Host", host)], None);
        assert_eq!(answer.status, status, "{host}: {}", answer.text);
    }
}

#[test]
fn case_23_twenty_connections_opened_at_once_are_all_answered() {
    let server = Server::start();
    let address = server.base.strip_prefix("http://").unwrap().to_owned();
    let mut sockets: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for _ in 0..20 {
        let began = Instant::now();
        for socket in &mut sockets {
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        }
        for socket in &mut sockets {
            let mut answer = String::new();
            while !answer.contains("\"ok\"") {
                let mut buffer = [0; 1024];
                let n = socket.read(&mut buffer).unwrap();
                assert!(n > 0, "closed: {answer}");
                answer.push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

#[test]
fn case_70_connections_and_streams_that_came_and_went_leave_nothing_behind() {
    let server = Server::start();
    let ana = server.admin();
    drop(server.stream(&ana));
    ana.get("/api/projects").ok(200);
    let before = server.footprint();
    for _ in 0..200 {
        drop(server.stream(&ana));
        server.client().get("/api/projects").error(401);
    }
    eventually("threads and descriptors are back", Duration::from_secs(30), || {
        let now = server.footprint();
        if now.0 <= before.0 + 2 && now.1 <= before.1 + 2 { Ok(()) } else { Err((before, now)) }
    });
}
