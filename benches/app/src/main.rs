//! An app to be proxied to, on port 8080 of all addresses. One thread answers what is small and sends back what comes in tunnels; what
//! takes long gets a thread of its own. Times are `CLOCK_MONOTONIC` in ns, which containers share with their host.
//!
//! - `GET /`: 1 KB, with `X-Listening`, when it began to listen
//! - `/ws`: a tunnel that sends back what comes; its handshake is that of RFC 6455's example
//! - `/events?MS`: an event with the time every so many ms
//! - `/down?N`: N bytes; `POST /up`: how many came
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream as Blocking};
use std::os::fd::OwnedFd;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const ACCEPT: Token = Token(0);
const HEAD_MAX: usize = 64 * 1024;
/// The answer to the key of RFC 6455's example, which is the one that has to be sent.
const SWITCH: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// CLOCK_MONOTONIC, which containers share with their host.
fn now_ns() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

fn main() -> std::io::Result<()> {
    serve(8080)
}

fn serve(port: u16) -> std::io::Result<()> {
    let mut listener = TcpListener::bind(([0, 0, 0, 0], port).into())?;
    let small = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Listening: {}\r\nContent-Length: 1024\r\n\r\n{}",
        now_ns(),
        "x".repeat(1024)
    );
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, ACCEPT, Interest::READABLE)?;
    let (mut events, mut clients, mut next) = (Events::with_capacity(1024), HashMap::new(), 1);
    loop {
        match poll.poll(&mut events, None) {
            // It was frozen and thawed.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            if event.token() == ACCEPT {
                while let Ok((mut client, _)) = listener.accept() {
                    client.set_nodelay(true)?;
                    poll.registry().register(&mut client, Token(next), Interest::READABLE)?;
                    clients.insert(next, Client { socket: client, buffer: Vec::new(), switched: false });
                    next += 1;
                }
                continue;
            }
            let Some(client) = clients.get_mut(&event.token().0) else { continue };
            match client.answer(small.as_bytes()) {
                Then::Wait => {}
                then => {
                    let mut client = clients.remove(&event.token().0).expect("it is there");
                    poll.registry().deregister(&mut client.socket)?;
                    if then == Then::Leave {
                        let socket = Blocking::from(OwnedFd::from(client.socket));
                        socket.set_nonblocking(false)?;
                        std::thread::Builder::new().spawn(move || drop(long(&socket, &client.buffer)))?;
                    }
                }
            }
        }
    }
}

#[derive(PartialEq)]
enum Then {
    Wait,
    /// A thread goes on with it.
    Leave,
    Close,
}

struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// It is a tunnel now.
    switched: bool,
}

impl Client {
    fn answer(&mut self, small: &[u8]) -> Then {
        let mut bytes = [0; 16 * 1024];
        loop {
            let count = match self.socket.read(&mut bytes) {
                Ok(0) => return Then::Close,
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Then::Wait,
                Err(_) => return Then::Close,
            };
            self.buffer.extend_from_slice(&bytes[..count]);
            let then = self.say(small);
            // What comes behind a short read is told of anew.
            if then != Then::Wait || count < bytes.len() {
                return then;
            }
        }
    }

    fn say(&mut self, small: &[u8]) -> Then {
        while let Some(end) = head_end(&self.buffer).filter(|_| !self.switched) {
            let said = match &self.buffer[..] {
                [b'G', b'E', b'T', b' ', b'/', b' ', ..] => small,
                [b'G', b'E', b'T', b' ', b'/', b'w', b's', b' ', ..] => SWITCH,
                _ => return Then::Leave,
            };
            // It fits into the socket of whoever reads its answers.
            if self.socket.write(said).ok() != Some(said.len()) {
                return Then::Close;
            }
            self.switched = said == SWITCH;
            self.buffer.drain(..end);
        }
        if self.switched && !self.buffer.is_empty() {
            if self.socket.write(&self.buffer).ok() != Some(self.buffer.len()) {
                return Then::Close;
            }
            self.buffer = Vec::new();
        }
        if self.buffer.len() > HEAD_MAX {
            Then::Close
        } else {
            Then::Wait
        }
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

/// `/events?MS`, `/down?BYTES` and `/up`. The connection ends with each.
fn long(mut client: &Blocking, buffer: &[u8]) -> std::io::Result<()> {
    let end = head_end(buffer).unwrap_or(buffer.len());
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let number: u64 = query.parse().unwrap_or(0);
    let header = |name: &str| {
        head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix(name).map(|v| v.trim().to_owned()))
    };
    let mut bytes = vec![b'x'; 128 * 1024];
    match path {
        "/events" => {
            client.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                std::thread::sleep(Duration::from_millis(number.max(1)));
                let event = format!("data: {}\n\n", now_ns());
                client.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
            }
        }
        "/down" => {
            client.write_all(
                format!("HTTP/1.1 200 OK\r\nContent-Length: {number}\r\nConnection: close\r\n\r\n")
                    .as_bytes(),
            )?;
            let mut left = number;
            while left > 0 {
                let n = left.min(bytes.len() as u64) as usize;
                client.write_all(&bytes[..n])?;
                left -= n as u64;
            }
            client.shutdown(Shutdown::Write)
        }
        "/up" => {
            let length: u64 = header("content-length:").and_then(|v| v.parse().ok()).unwrap_or(0);
            let mut got = (buffer.len() - end) as u64;
            while got < length {
                match client.read(&mut bytes)? {
                    0 => return Ok(()),
                    n => got += n as u64,
                }
            }
            let said = got.to_string();
            client.write_all(
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{said}",
                    said.len()
                )
                .as_bytes(),
            )?;
            client.shutdown(Shutdown::Write)
        }
        _ => client.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    }
}
