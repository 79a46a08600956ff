//! What a project's container wrote: its last lines, and a stream that goes on with what it writes.
//!
//! A stream has two threads: `log-read` asks the engine and waits for it, the client's connection thread writes. The first ends with
//! the log or when it is aborted; the second outlives it, since a container that stopped may start again.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, at, bounded, never, select};
use serde::Serialize;
use serde_json::json;

use super::containers::listen;
use super::failure::Failure;
use super::feed::{self, GONE, SLOW, write_event};
use super::projects::own;
use super::request::Call;
use super::routes::Answer;
use super::wire::rfc3339_millis;
use super::{Api, json as answer};
use crate::docker::{self, Aborter, Docker, LogLine, Output};
use crate::domain::{ContainerName, ProjectId, UserId};
use crate::http::StreamWriter;
use crate::limits;
use crate::runtime::hub::{Frame, Subscription};
use crate::runtime::snapshot::Run;
use crate::runtime::{Runtime, View};
use crate::threads::{self, Thread, spawn};

#[derive(Serialize)]
struct LineOut<'a> {
    at: Option<String>,
    stream: &'static str,
    text: &'a str,
}

impl LineOut<'_> {
    fn new(line: &LogLine) -> LineOut<'_> {
        let stream = match line.output {
            Output::Stdout => "stdout",
            Output::Stderr => "stderr",
        };
        LineOut { at: line.at.map(rfc3339_millis), stream, text: &line.text }
    }
}

/// `GET /containers/:id/logs?tail=200`: the last lines; none where there is no container yet.
pub(super) fn tail(api: &Api, call: &Call) -> Answer {
    let view = own(api, call)?;
    // Whoever waited for this place did not wait for an engine that has gone meanwhile.
    if !api.runtime.snapshot().engine.up {
        return Err(Failure::docker_unavailable());
    }
    // Two calls, and one answer within two seconds.
    let docker = api.docker.within(limits::API_ENGINE_MAX / 2);
    let lines = match docker.logs(&view.project.container_name(), lines_wanted(call)?) {
        Err(docker::Error::NotFound(_)) => Vec::new(),
        read => read?,
    };
    let lines: Vec<_> = lines.iter().map(LineOut::new).collect();
    Ok(answer(200, &json!({ "lines": lines })))
}

/// `GET /containers/:id/logs/stream`: the last lines and then each new one, also of later runs of the project.
pub(super) fn stream(api: &Api, call: &Call) -> Answer {
    let view = own(api, call)?;
    let viewer = Viewer {
        user: view.project.owner,
        project: view.project.id,
        docker: api.docker.clone(),
        lines: lines_wanted(call)?,
        seen: call.last_event_id.as_deref().and_then(parse_id),
        reading: None,
        last: None,
        pause: limits::LOG_AGAIN_AFTER.0,
        ended: None,
    };
    listen(api, call, |listener| {
        feed::open(api.runtime.clone(), listener, "log stream", |runtime, subscription, writer| {
            viewer.follow(runtime, subscription, writer)
        })
    })
}

fn lines_wanted(call: &Call) -> Result<u32, Failure> {
    let Some(tail) = call.param("tail") else { return Ok(limits::LOG_LINES) };
    tail.parse().ok().filter(|lines| (1..=limits::DOCKER_LOG_LINES_MAX).contains(lines)).ok_or_else(|| {
        let sentence = format!("tail must be a number of lines from 1 to {}", limits::DOCKER_LOG_LINES_MAX);
        Failure::invalid(sentence)
    })
}

/// The last line that a client has: when it was written, and how many lines it has of that moment. The engine gives all pieces of a long
/// line one time.
type Seen = (SystemTime, u32);

/// The id of a line: when it was written, in seconds and nanoseconds since 1970, and which line of that moment it is.
fn id((at, count): Seen) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:09}-{count}", since.as_secs(), since.subsec_nanos())
}

/// `None` for what is no id of ours, such as one of the other stream.
fn parse_id(id: &str) -> Option<Seen> {
    let (time, count) = id.split_once('-')?;
    let (seconds, nanos) = time.split_once('.').filter(|(_, nanos)| nanos.len() == 9)?;
    let since = Duration::new(seconds.parse().ok()?, nanos.parse().ok().filter(|n| *n < 1_000_000_000)?);
    Some((SystemTime::UNIX_EPOCH.checked_add(since)?, count.parse().ok()?))
}

/// A client of the stream, on its connection's thread.
struct Viewer {
    user: UserId,
    project: ProjectId,
    docker: Docker,
    lines: u32,
    seen: Option<Seen>,
    /// The log that is open.
    reading: Option<Reading>,
    /// The run whose log was opened last, and when that was tried or the log ended.
    last: Option<(Option<Run>, Instant)>,
    /// How long after that it is tried again.
    pause: Duration,
    /// Why there is no more, once the client was told.
    ended: Option<&'static str>,
}

/// What a viewer waited for.
enum Heard {
    Lines(Vec<LogLine>),
    LogEnded(&'static str),
    EndAt(Instant, &'static str),
    TooSlow,
    /// Something may have changed: look.
    Something,
}

impl Viewer {
    /// Writes until something ends it; says what.
    fn follow(
        mut self,
        runtime: &Runtime,
        subscription: &Subscription,
        writer: &mut StreamWriter<'_>,
    ) -> &'static str {
        let mut out = b"retry: 3000\n\n".to_vec();
        let mut end: Option<(Instant, &'static str)> = None;
        let mut comment_at = Instant::now() + limits::STREAM_HEARTBEAT;
        loop {
            if writer.peer_closed() || writer.write_parts(&[&out]).is_err() {
                return GONE;
            }
            out.clear();
            let now = Instant::now();
            if let Some((_, reason)) = end.filter(|(at, _)| *at <= now) {
                return reason;
            }
            let Some(view) = runtime.snapshot().project_of(self.user, self.project).cloned() else {
                return "the project is gone";
            };
            let mut wake_at = end.map_or(comment_at, |(at, _)| at.min(comment_at));
            if self.reading.is_none() {
                self.open_if_due(&view, now);
                wake_at = wake_at.min(now + limits::LOG_AGAIN_AFTER.0);
            }
            match self.wait(subscription, wake_at) {
                Heard::Lines(lines) => lines.iter().for_each(|line| self.write(&mut out, line)),
                Heard::LogEnded(reason) => self.end(&mut out, reason),
                Heard::EndAt(at, reason) => end = Some((at, reason)),
                Heard::TooSlow => return SLOW,
                Heard::Something => {}
            }
            if comment_at <= Instant::now() {
                out.extend_from_slice(b": \n\n");
                comment_at = Instant::now() + limits::STREAM_HEARTBEAT;
            }
        }
    }

    fn write(&mut self, out: &mut Vec<u8>, line: &LogLine) {
        if let Some(at) = line.at {
            let earlier = self.seen.filter(|(last, _)| *last == at).map_or(0, |(_, count)| count);
            let seen = (at, earlier.saturating_add(1));
            self.seen = Some(seen);
            out.extend_from_slice(format!("id: {}\n", id(seen)).as_bytes());
        }
        self.ended = None;
        self.pause = limits::LOG_AGAIN_AFTER.0;
        write_event(out, "log", &LineOut::new(line));
    }

    /// Tells once why there is no more, however often that is found again.
    fn end(&mut self, out: &mut Vec<u8>, reason: &'static str) {
        self.reading = None;
        if let Some((_, at)) = &mut self.last {
            *at = Instant::now();
        }
        if self.ended == Some(reason) {
            self.pause = (self.pause * 2).min(limits::LOG_AGAIN_AFTER.1);
        } else {
            self.ended = Some(reason);
            write_event(out, "end", &json!({ "reason": reason }));
        }
    }

    /// Opens the log: at first whatever the project's state, later when it runs anew, or again where it did not come to its own end.
    fn open_if_due(&mut self, view: &View, now: Instant) {
        let broke_off = self.ended.is_none_or(|reason| reason != STOPPED);
        let is_new = self.last.as_ref().is_none_or(|(run, _)| view.run.is_some() && view.run != *run);
        let again_at = self.last.as_ref().map(|(_, at)| *at + self.pause);
        let due = is_new || (again_at.is_some_and(|at| at <= now) && (broke_off || view.run.is_some()));
        if !due {
            return;
        }
        if is_new {
            self.ended = None;
        }
        let log = LogOf {
            docker: self.docker.clone(),
            name: view.project.container_name(),
            lines: self.lines,
            since: self.seen,
        };
        match Reading::start(log) {
            Ok(reading) => self.reading = Some(reading),
            Err(error) => log::warn!("no thread for a log: {error}"),
        }
        self.last = Some((view.run.clone(), now));
    }

    fn wait(&self, subscription: &Subscription, until: Instant) -> Heard {
        let nothing = never();
        let pieces = self.reading.as_ref().map_or(&nothing, |reading| &reading.pieces);
        select! {
            recv(pieces) -> piece => match piece {
                Ok(Piece::Lines(lines)) => Heard::Lines(lines),
                Ok(Piece::End(reason)) => Heard::LogEnded(reason),
                Err(_) => Heard::LogEnded(UNREADABLE),
            },
            recv(subscription.frames) -> frame => match frame {
                Ok(Frame::EndAt(at, reason)) => Heard::EndAt(at, reason),
                Ok(Frame::Events(..) | Frame::Check) => Heard::Something,
                Err(_) => Heard::TooSlow,
            },
            recv(at(until)) -> _ => Heard::Something,
        }
    }
}

const STOPPED: &str = "The container stopped";
const UNREADABLE: &str = "The log cannot be read";

/// Which log, and from where on.
struct LogOf {
    docker: Docker,
    name: ContainerName,
    lines: u32,
    since: Option<Seen>,
}

enum Piece {
    Lines(Vec<LogLine>),
    End(&'static str),
}

/// A log that is being read; dropping it ends that and waits for the thread.
struct Reading {
    // Dropped before the thread is joined: it may wait for room.
    pieces: Receiver<Piece>,
    stop: Option<Sender<()>>,
    abort: Arc<Mutex<Option<Aborter>>>,
    _thread: Thread,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(aborter) = self.abort.lock().unwrap_or_else(PoisonError::into_inner).take() {
            aborter.abort();
        }
    }
}

impl Reading {
    fn start(log: LogOf) -> io::Result<Reading> {
        let (out, pieces) = bounded(limits::LOG_STREAM_QUEUE);
        let (stop, stopped) = bounded(0);
        let abort = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&abort);
        let thread = spawn("log-read", limits::STACK_DEFAULT, move || {
            let reason = log.read(&out, &slot, &stopped);
            // Nobody may be there any more.
            drop(out.send(Piece::End(reason)));
        })?;
        Ok(Reading { pieces, stop: Some(stop), abort, _thread: thread })
    }
}

impl LogOf {
    /// Hands the log on, no faster than [`limits::LOG_PACE_BYTES`]; says why it ended.
    fn read(
        &self,
        out: &Sender<Piece>,
        slot: &Mutex<Option<Aborter>>,
        stopped: &Receiver<()>,
    ) -> &'static str {
        let (mut log, aborter) =
            match self.docker.follow_logs(&self.name, self.lines, self.since.map(|(at, _)| at)) {
                Ok(opened) => opened,
                Err(error) => return sentence(&error),
            };
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(aborter);
        // The engine begins with the lines of the last moment known.
        let mut known = self.since;
        // Else it was stopped before the aborter was there for the taking.
        while !threads::is_closed(stopped) {
            let mut lines = match log.read() {
                Ok(Some(lines)) => lines,
                Ok(None) => return STOPPED,
                Err(error) => return sentence(&error),
            };
            let bytes: usize = lines.iter().map(|line| line.text.len() + size_of::<LogLine>()).sum();
            lines.retain(|line| !is_known(&mut known, line));
            let pause = Duration::from_micros(bytes as u64 * 1_000_000 / limits::LOG_PACE_BYTES);
            if out.send(Piece::Lines(lines)).is_err() || threads::closed_within(stopped, pause) {
                break;
            }
        }
        "stopped"
    }
}

/// Whether the client has this line: as many of that moment as it was said to have.
fn is_known(known: &mut Option<Seen>, line: &LogLine) -> bool {
    let Some((at, count)) = known.filter(|(at, count)| line.at == Some(*at) && *count > 0) else {
        return false;
    };
    *known = Some((at, count - 1));
    true
}

fn sentence(error: &docker::Error) -> &'static str {
    match error {
        docker::Error::NotFound(_) => "There is no container yet",
        docker::Error::Unavailable(_) => "The engine does not answer",
        error => {
            log::debug!("a log cannot be read: {error}");
            UNREADABLE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_named_by_its_time_and_nothing_else_is_such_a_name() {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_795_503_600, 7);
        assert_eq!(id((at, 2)), "1795503600.000000007-2");
        assert_eq!(parse_id(&id((at, 2))), Some((at, 2)));
        for bad in [
            "",
            "1",
            "1.000000007",
            "1.5-1",
            "1.0000000007-1",
            "x.000000007-1",
            "-1.000000007-1",
            "1.000000007-",
            "1.000000007-1&x=1",
            "19a-7",
            "18446744073709551615.000000000-1",
            "1.99999999x-1",
        ] {
            assert_eq!(parse_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn of_the_last_moment_only_the_lines_that_the_client_has_are_left_out() {
        let at = |nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
        let line = |nanos| LogLine { output: Output::Stdout, at: Some(at(nanos)), text: String::new() };
        let mut known = Some((at(5), 2));
        let left: Vec<bool> = [5, 5, 5, 6].map(|nanos| is_known(&mut known, &line(nanos))).to_vec();
        assert_eq!(left, [true, true, false, false]);
        assert!(!is_known(&mut None, &line(5)));
    }
}
