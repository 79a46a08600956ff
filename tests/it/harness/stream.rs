//! A client of the event stream.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use serde_json::Value;

/// One event, with the moment it arrived.
#[derive(Clone, Debug)]
pub struct Event {
    pub name: String,
    pub id: String,
    pub data: Value,
    pub at: Instant,
}

/// An open stream; what arrives gathers in a queue.
pub struct Stream {
    pub head: String,
    pub retry: Option<String>,
    /// When comments came.
    pub comments: Receiver<Instant>,
    events: Receiver<Result<Event, String>>,
    socket: TcpStream,
}

impl Stream {
    /// Opens the stream of events with a token, and reads its greeting.
    pub fn open(base: &str, token: &str) -> Stream {
        let (mut stream, retry) = Stream::at(base, &format!("/api/containers/events?token={token}"), "");
        let connected = stream.next(Duration::from_secs(5)).expect("a greeting");
        assert_eq!(connected.name, "connected");
        stream.retry = retry.try_recv().ok();
        stream
    }

    /// Opens any event stream, with more header lines.
    pub fn at(base: &str, path: &str, headers: &str) -> (Stream, Receiver<String>) {
        let host = base.strip_prefix("http://").expect("a base");
        let mut socket = TcpStream::connect(host).expect("the server listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).expect("the server takes a request");
        let mut reader = BufReader::new(socket.try_clone().expect("a second handle"));
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout can be set");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).expect("a head") > 0, "closed within the head: {head}");
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let (sender, events) = bounded(65_536);
        let (has_retry, retry) = bounded(1);
        let (commented, comments) = bounded(1024);
        #[expect(clippy::disallowed_methods, reason = "a test's own thread, ended by its socket")]
        std::thread::spawn(move || {
            let (mut name, mut id, mut text) = (String::new(), String::new(), String::new());
            let mut buffer = String::new();
            loop {
                let ended = match next_chunk(&mut reader) {
                    Ok(Some(chunk)) => {
                        buffer.push_str(&chunk);
                        None
                    }
                    Ok(None) => Some("end".to_owned()),
                    Err(error) => Some(error),
                };
                while let Some(end) = buffer.find('\n') {
                    let line: String = buffer.drain(..=end).collect();
                    match line.trim_end().split_once(':') {
                        Some(("", _)) => drop(commented.try_send(Instant::now())),
                        Some(("event", value)) => value.trim().clone_into(&mut name),
                        Some(("id", value)) => value.trim().clone_into(&mut id),
                        Some(("data", value)) => value.trim().clone_into(&mut text),
                        Some(("retry", value)) => drop(has_retry.try_send(value.trim().to_owned())),
                        None if line.trim().is_empty() && !name.is_empty() => {
                            let data = serde_json::from_str(&text).expect("data is JSON");
                            let event = Event {
                                name: std::mem::take(&mut name),
                                id: id.clone(),
                                data,
                                at: Instant::now(),
                            };
                            if sender.send(Ok(event)).is_err() {
                                return;
                            }
                        }
                        _ => {}
                    }
                }
                if let Some(ended) = ended {
                    drop(sender.send(Err(ended)));
                    return;
                }
            }
        });
        (Stream { head, retry: None, comments, events, socket }, retry)
    }

    /// The next event, or how the stream ended, or that nothing came.
    pub fn next(&self, limit: Duration) -> Result<Event, String> {
        match self.events.recv_timeout(limit) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => Err("nothing came".to_owned()),
            Err(RecvTimeoutError::Disconnected) => Err("ended before".to_owned()),
        }
    }

    /// Waits for an event that fits; gives it with all that came before.
    #[track_caller]
    pub fn until(&self, what: &str, limit: Duration, fits: impl Fn(&Event) -> bool) -> (Event, Vec<Event>) {
        let end = Instant::now() + limit;
        let mut before = Vec::new();
        loop {
            match self.next(end.saturating_duration_since(Instant::now())) {
                Ok(event) if fits(&event) => return (event, before),
                Ok(event) => before.push(event),
                Err(why) => panic!("{what}: {why}; came before: {before:#?}"),
            }
        }
    }

    /// Waits until a project has this status; gives the event.
    #[track_caller]
    pub fn until_status(&self, id: &str, status: &str, limit: Duration) -> Event {
        self.until(&format!("{id} is {status}"), limit, |e| e.is_status(id, status)).0
    }

    /// The statuses of a project told until one of them is `last`, snapshots included.
    #[track_caller]
    pub fn statuses_until(&self, id: &str, last: &str, limit: Duration) -> Vec<String> {
        let (event, mut before) = self.until(&format!("{id} is {last}"), limit, |e| e.is_status(id, last));
        before.push(event);
        let statuses =
            before.iter().filter(|e| e.name == "container_status_changed" && e.data["projectId"] == id);
        statuses.map(|e| e.data["status"].as_str().expect("a status").to_owned()).collect()
    }

    /// Waits for the end; gives how long it took and whether it was a proper one.
    #[track_caller]
    pub fn until_end(&self, limit: Duration) -> (Duration, String) {
        let began = Instant::now();
        loop {
            match self.next(limit.saturating_sub(began.elapsed())) {
                Ok(_) => {}
                Err(why) if why == "nothing came" => panic!("the stream did not end within {limit:?}"),
                Err(why) => return (began.elapsed(), why),
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        drop(self.socket.shutdown(std::net::Shutdown::Both));
    }
}

impl Event {
    pub fn is_status(&self, id: &str, status: &str) -> bool {
        self.name == "container_status_changed"
            && self.data["projectId"] == id
            && self.data["status"] == status
    }

    pub fn is_metrics(&self, id: &str) -> bool {
        self.name == "metrics_updated" && self.data["projectId"] == id
    }
}

/// One chunk of a chunked body; `None` at its proper end.
fn next_chunk(reader: &mut BufReader<TcpStream>) -> Result<Option<String>, String> {
    let mut line = String::new();
    if reader.read_line(&mut line).map_err(|e| e.to_string())? == 0 {
        return Err("cut off".to_owned());
    }
    let size = usize::from_str_radix(line.trim(), 16).map_err(|_| format!("no chunk size: {line:?}"))?;
    let mut chunk = vec![0; size + 2];
    std::io::Read::read_exact(reader, &mut chunk).map_err(|e| e.to_string())?;
    chunk.truncate(size);
    Ok((size > 0).then(|| String::from_utf8(chunk).expect("UTF-8")))
}
