//! The event stream: `GET /api/containers/events`.
//!
//! Encodes events and writes them on the client's own connection thread, which blocks on the client's queue and asks nobody anything.

use std::io::Write;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use crossbeam_channel::{RecvTimeoutError, after};
use serde::Serialize;
use serde_json::json;

use super::wire::{Words, rfc3339, rfc3339_millis};
use crate::domain::metrics::uptime_text;
use crate::domain::{Event, SessionId, UserId};
use crate::http::{Response, Shutdown, StreamWriter};
use crate::limits;
use crate::runtime::hub::{Frame, HangUp, Refused, Subscription};
use crate::runtime::{Hub, Runtime, View};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusData<'a> {
    project_id: String,
    project_name: &'a str,
    status: &'static str,
    notify: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    timestamp: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProgressData<'a> {
    project_id: String,
    step: &'static str,
    progress: u8,
    message: &'a str,
    level: &'static str,
    timestamp: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AutoShutdownData<'a> {
    project_id: String,
    project_name: &'a str,
    reason: String,
    inactive_time: String,
    timestamp: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetricsData {
    project_id: String,
    metrics: MetricsBody,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetricsBody {
    cpu: f64,
    memory: u64,
    requests: u64,
    uptime: String,
    last_activity: String,
}

/// Event ids of this process: `<boot>-<n>`.
#[derive(Clone, Debug)]
pub struct Ids {
    boot: Arc<str>,
}

/// `1h 30m` as people write it: `1 h 30 min`.
fn spelled(time: &str) -> String {
    let parts = time.split(' ').map(|part| match part.trim_end_matches(|c: char| c.is_ascii_alphabetic()) {
        digits if part.ends_with('m') => format!("{digits} min"),
        digits => format!("{digits} {}", &part[digits.len()..]),
    });
    parts.collect::<Vec<_>>().join(" ")
}

impl Ids {
    /// Ids of a process that started at `boot`.
    #[must_use]
    pub fn new(boot: SystemTime) -> Ids {
        let millis = boot.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        Ids { boot: format!("{millis:x}").into() }
    }

    fn write(&self, out: &mut Vec<u8>, id: u64, event: &str, data: &impl Serialize) {
        // Writing to a Vec cannot fail.
        drop(writeln!(out, "id: {}-{id}", self.boot));
        write_event(out, event, data);
    }

    /// Encodes one owner's events; the first has the id `first`, each next one the next.
    #[must_use]
    pub fn encode(&self, events: &[&Event], first: u64, words: Words) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 * events.len());
        for (event, id) in events.iter().zip(first..) {
            match event {
                Event::Status { project, name, status, reason, notify, at } => {
                    let data = StatusData {
                        project_id: project.to_string(),
                        project_name: name.as_str(),
                        status: words.status(*status),
                        notify: *notify,
                        reason: reason.as_deref(),
                        timestamp: rfc3339_millis(*at),
                    };
                    self.write(&mut out, id, "container_status_changed", &data);
                }
                Event::Progress { project, step, percent, message, level, at } => {
                    let data = ProgressData {
                        project_id: project.to_string(),
                        step: step.word(),
                        progress: *percent,
                        message,
                        level: level.word(),
                        timestamp: rfc3339_millis(*at),
                    };
                    self.write(&mut out, id, "deployment_progress", &data);
                }
                Event::AutoShutdown { project, name, idle, at } => {
                    let inactive_time = humantime::format_duration(*idle).to_string();
                    let data = AutoShutdownData {
                        project_id: project.to_string(),
                        project_name: name.as_str(),
                        reason: format!("no requests for {}", spelled(&inactive_time)),
                        inactive_time,
                        timestamp: rfc3339_millis(*at),
                    };
                    self.write(&mut out, id, "auto_shutdown", &data);
                }
                Event::Metrics { project, metrics } => {
                    let data = MetricsData {
                        project_id: project.to_string(),
                        metrics: MetricsBody {
                            cpu: metrics.cpu,
                            memory: metrics.memory_mib,
                            requests: metrics.requests,
                            uptime: uptime_text(metrics.uptime),
                            last_activity: rfc3339(metrics.last_activity),
                        },
                    };
                    self.write(&mut out, id, "metrics_updated", &data);
                }
            }
        }
        out
    }

    /// What a client is told on connecting: the greeting, then one status per project and the last numbers of the running ones.
    fn greeting(&self, views: &[Arc<View>], first: u64, words: Words) -> Vec<u8> {
        let at = SystemTime::now();
        let mut out = b"retry: 3000\n".to_vec();
        let hello = json!({"message": "Connected to muelle", "serverTime": rfc3339_millis(at)});
        self.write(&mut out, first, "connected", &hello);
        let statuses = views.iter().map(|view| Event::Status {
            project: view.project.id,
            name: view.project.name.clone(),
            status: view.status,
            reason: view.reason.clone(),
            notify: false,
            at,
        });
        let metrics = views.iter().filter_map(|view| {
            view.metrics.map(|metrics| Event::Metrics { project: view.project.id, metrics })
        });
        let events: Vec<Event> = statuses.chain(metrics).collect();
        let events: Vec<&Event> = events.iter().collect();
        out.extend(self.encode(&events, first + 1, words));
        out
    }
}

/// Writes an event's name and its data. Encoding these types cannot fail; JSON escapes line ends, so that a value cannot end an event.
pub(super) fn write_event(out: &mut Vec<u8>, event: &str, data: &impl Serialize) {
    drop(write!(out, "event: {event}\ndata: "));
    drop(serde_json::to_writer(&mut *out, data));
    out.extend_from_slice(b"\n\n");
}

/// Who listens.
pub struct Listener {
    /// The user.
    pub user: UserId,
    /// The session that the stream ends with.
    pub session: SessionId,
    /// Where from, for the log.
    pub address: IpAddr,
}

/// The stream as an answer.
///
/// # Errors
/// When there are as many streams as there may be.
pub fn stream(runtime: Runtime, ids: Ids, words: Words, listener: &Listener) -> Result<Response, Refused> {
    let user = listener.user;
    open(runtime, listener, "stream", move |runtime, subscription, writer| {
        runtime.wake_poller();
        follow(runtime, &ids, words, user, subscription, writer)
    })
}

/// An event stream as an answer: it takes one of the places, and `write` fills it until it has a reason to end.
pub(super) fn open(
    runtime: Runtime,
    listener: &Listener,
    what: &'static str,
    write: impl FnOnce(&Runtime, &Subscription, &mut StreamWriter<'_>) -> &'static str + Send + 'static,
) -> Result<Response, Refused> {
    // The place is taken before the answer begins, its socket is known only then.
    let socket: Arc<OnceLock<Shutdown>> = Arc::default();
    let hang_up = Arc::clone(&socket);
    let hang_up: HangUp = Arc::new(move || {
        if let Some(socket) = hang_up.get() {
            socket.shut();
        }
    });
    let subscription = subscribe(&runtime.hub, listener, &hang_up)?;
    let Listener { user, address, .. } = *listener;
    let response = Response::stream(200, move |writer| {
        drop(socket.set(writer.shutdown()));
        let began = Instant::now();
        log::info!("{what} of {user} from {address} began; {} active", runtime.hub.active());
        let reason = match writer.shrink_send_buffer() {
            Ok(()) => write(&runtime, &subscription, writer),
            Err(_) => GONE,
        };
        drop(subscription);
        let (seconds, active) = (began.elapsed().as_secs(), runtime.hub.active());
        log::info!("{what} of {user} from {address} ended after {seconds} s: {reason}; {active} active");
        Ok(())
    });
    Ok(response
        .header("Content-Type", "text/event-stream")
        .header("Cache-Control", "no-cache, no-transform")
        .header("X-Accel-Buffering", "no"))
}

/// Why most streams end.
pub(super) const GONE: &str = "the client is gone";
/// Why some do.
pub(super) const SLOW: &str = "the client was too slow";

/// Takes a place; where there is none, waits a moment for one that a client has left.
fn subscribe(hub: &Arc<Hub>, listener: &Listener, hang_up: &HangUp) -> Result<Subscription, Refused> {
    let mut taken = hub.subscribe(listener.user, listener.session, Arc::clone(hang_up));
    for _ in 0..limits::STREAM_PLACE_TRIES {
        if taken.is_ok() {
            break;
        }
        let _ = after(limits::STREAM_PLACE_WAIT).recv();
        taken = hub.subscribe(listener.user, listener.session, Arc::clone(hang_up));
    }
    taken
}

/// Writes until something ends it; says what.
fn follow(
    runtime: &Runtime,
    ids: &Ids,
    words: Words,
    user: UserId,
    subscription: &Subscription,
    writer: &mut StreamWriter<'_>,
) -> &'static str {
    // Read after subscribing: nothing falls between the two.
    let snapshot = runtime.snapshot();
    let views = snapshot.owners.get(&user).map(|owned| owned.views.as_slice()).unwrap_or_default();
    if writer.write_all(&ids.greeting(views, snapshot.first_id, words)).is_err() {
        return GONE;
    }
    let seen = snapshot.first_id;
    drop(snapshot);
    let mut end: Option<(Instant, &'static str)> = None;
    let mut comment_at = Instant::now() + limits::STREAM_HEARTBEAT;
    loop {
        let wake_at = end.map_or(comment_at, |(at, _)| at.min(comment_at));
        let (mut batch, mut asked): (Vec<Arc<[u8]>>, bool) = (Vec::new(), false);
        match subscription.next(wake_at) {
            Err(RecvTimeoutError::Disconnected) => return SLOW,
            Err(RecvTimeoutError::Timeout) => {}
            Ok(frame) => {
                // What has gathered goes out in one write.
                for frame in std::iter::once(frame).chain(subscription.frames.try_iter()) {
                    match frame {
                        Frame::Events(first, bytes) if first >= seen => batch.push(bytes),
                        Frame::Events(..) => {}
                        Frame::Check => asked = true,
                        Frame::EndAt(at, reason) => end = Some((at, reason)),
                    }
                }
            }
        }
        let now = Instant::now();
        let mut parts: Vec<&[u8]> = batch.iter().map(|bytes| &**bytes).collect();
        if comment_at <= now {
            parts.push(b": \n\n");
            comment_at = now + limits::STREAM_HEARTBEAT;
        }
        // The next write of events finds out.
        let is_gone = (asked || batch.is_empty()) && writer.peer_closed();
        if is_gone || writer.write_parts(&parts).is_err() {
            return GONE;
        }
        if let Some((_, reason)) = end.filter(|(at, _)| *at <= now) {
            return reason;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::spelled;

    #[test]
    fn times_are_spelled_for_people() {
        for (time, text) in
            [("30m", "30 min"), ("1h 30m", "1 h 30 min"), ("1day 2s", "1 day 2 s"), ("45s", "45 s")]
        {
            assert_eq!(spelled(time), text);
        }
    }
}
