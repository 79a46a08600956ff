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
fn case_1_5_12_16_18_19_what_the_front_refuses_has_the_shape_and_the_cors_of_every_error() {
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

/// A connection that the server has, with how it answers.
fn connect(server: &Server) -> TcpStream {
    let socket = TcpStream::connect(server.base.strip_prefix("http://").unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// The status line of the answer to one more request; empty when the connection was closed.
fn ask(socket: &mut TcpStream) -> String {
    drop(socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let mut buffer = [0; 1024];
    let n = socket.read(&mut buffer).unwrap_or_default();
    String::from_utf8_lossy(&buffer[..n]).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn case_24_the_65th_connection_of_one_address_is_refused_and_places_come_back() {
    let server = Server::start();
    let mut sockets: Vec<TcpStream> = (0..64).map(|_| connect(&server)).collect();
    for socket in &mut sockets {
        assert_eq!(ask(socket), "HTTP/1.1 200 OK");
    }
    let began = Instant::now();
    let refused = ask(&mut connect(&server));
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 429 "), "{refused}");
    assert!(began.elapsed() < Duration::from_secs(4), "closed, and not just left waiting");
    drop(sockets);
    eventually("there is room again", Duration::from_secs(1), || {
        let answer = ask(&mut connect(&server));
        if answer == "HTTP/1.1 200 OK" { Ok(()) } else { Err(answer) }
    });
}

#[test]
fn case_25_without_descriptors_the_server_waits_and_recovers() {
    let mut server = Server::prepare("[limits]\nper_address = 1000\n");
    server.wrapper = ["sh", "-c", "ulimit -n 64; exec \"$0\" \"$@\""].map(str::to_owned).to_vec();
    server.run();
    let mut sockets: Vec<TcpStream> = (0..200).map(|_| connect(&server)).collect();
    let mut answered = 0;
    for socket in &mut sockets {
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        answered += usize::from(ask(socket) == "HTTP/1.1 200 OK");
    }
    assert!((1..64).contains(&answered), "{answered} of 200 with 64 descriptors");
    drop(sockets);
    eventually("it answers again", Duration::from_secs(5), || {
        let answer = ask(&mut connect(&server));
        if answer == "HTTP/1.1 200 OK" { Ok(()) } else { Err(answer) }
    });
}

#[test]
fn own_host_case_26_a_client_that_lost_its_power_costs_no_descriptor_for_long() {
    let host = OtherHost::new();
    let mut server = Server::prepare(&format!("[api]\nlisten = \"{}:0\"\n", host.ours));
    server.run();
    // The first account has to be made locally.
    let (code, said) = server
        .command(&["user", "add", "ana@example.com"], &format!("{}\n", crate::harness::client::PASSWORD));
    assert_eq!(code, 0, "{said}");
    let body = serde_json::json!({"email": "ana@example.com", "password": crate::harness::client::PASSWORD});
    let token = server.client().post("/api/auth/login", &body).ok(200)["token"].as_str().unwrap().to_owned();
    let address = server.base.strip_prefix("http://").unwrap().to_owned();
    let script = format!(
        "printf 'GET /api/containers/events?token={token} HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'; sleep 300"
    );
    let (ip, port) = address.split_once(':').unwrap();
    let mut client = host.run(&format!("( {script} ) | busybox nc {ip} {port}"));
    eventually("it listens", Duration::from_secs(10), || {
        let log = server.log();
        if log.contains("1 active") { Ok(()) } else { Err(log) }
    });
    host.unplug();
    eventually("its stream is given up", Duration::from_secs(60), || {
        let log = server.log();
        if log.contains("ended after") { Ok(()) } else { Err(log) }
    });
    drop(host);
    client.wait().unwrap();
}

/// A host of the test's own: a network namespace with one cable to us.
struct OtherHost {
    name: String,
    ours: String,
}

impl OtherHost {
    fn new() -> OtherHost {
        let mut bytes = [0; 3];
        getrandom::fill(&mut bytes).unwrap();
        let [a, b, c] = bytes;
        let name = format!("mut{a:02x}{b:02x}{c:02x}");
        let net = format!("10.{}.{b}", 128 + a % 64);
        let host = OtherHost { ours: format!("{net}.1"), name };
        let name = &host.name;
        for words in [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name eth0 netns {name}"),
            format!("addr add {net}.1/24 dev {name}"),
            format!("link set {name} up"),
            format!("-n {name} addr add {net}.2/24 dev eth0"),
            format!("-n {name} link set eth0 up"),
        ] {
            ip(&words);
        }
        host
    }

    fn run(&self, script: &str) -> std::process::Child {
        #[expect(clippy::disallowed_methods, reason = "a client on another host")]
        let mut command = std::process::Command::new("ip");
        command
            .args(["netns", "exec", &self.name, "sh", "-c", script])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    }

    fn unplug(&self) {
        ip(&format!("link set {} down", self.name));
    }
}

impl Drop for OtherHost {
    fn drop(&mut self) {
        crate::harness::image::tidy(|| self.remove());
    }
}

impl OtherHost {
    fn remove(&self) {
        #[expect(clippy::disallowed_methods, reason = "what runs on another host")]
        let running =
            std::process::Command::new("ip").args(["netns", "pids", &self.name]).output().unwrap().stdout;
        for pid in String::from_utf8_lossy(&running).lines().filter_map(|pid| pid.trim().parse().ok()) {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            // It may end by itself meanwhile.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        // The cable by itself: sockets that still wait for an answer keep the namespace for a while.
        ip(&format!("link delete {}", self.name));
        ip(&format!("netns delete {}", self.name));
    }
}

fn ip(words: &str) {
    #[expect(clippy::disallowed_methods, reason = "the cable to another host")]
    let done =
        std::process::Command::new("ip").args(words.split(' ')).status().expect("iproute2 is installed");
    assert!(done.success(), "ip {words}");
}

#[test]
fn case_16_options_star_is_answered_and_tunnels_are_not_built() {
    let server = Server::start();
    for (line, status) in [("OPTIONS *", 204), ("CONNECT localhost:443", 405), ("TRACE /", 405)] {
        let answer = exchange(
            &server,
            format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
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
