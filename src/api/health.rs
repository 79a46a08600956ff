//! Whether it works, for people, watchdogs and monitors; and what there is to call.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use serde_json::json;

use super::request::Call;
use super::routes::Answer;
use super::{Api, json, json_bytes};
use crate::threads;

/// The threads that everything goes through, each with a question that is asked of it over and over.
#[derive(Default)]
pub(super) struct Vital {
    supervisor: Asked,
    store: Asked,
}

/// A question on its way, since when, and where its answer comes; no place for that yet if there was no room to ask.
#[derive(Default)]
struct Asked(Mutex<Option<(Instant, Option<Receiver<()>>)>>);

impl Asked {
    /// For how long the answer has been awaited. Asks where no question is on its way; `ask` says whether there was room for it.
    fn silence(&self, ask: impl FnOnce(Sender<()>) -> bool) -> Duration {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let arrived = asked.as_ref().and_then(|(_, answer)| answer.as_ref()).map(Receiver::try_recv);
        if arrived == Some(Ok(())) {
            *asked = None;
        }
        let (since, answer) = asked.get_or_insert_with(|| (Instant::now(), None));
        // Dropped unanswered is as silent as not answered.
        if answer.is_none() || arrived == Some(Err(TryRecvError::Disconnected)) {
            let (reply, awaited) = bounded(1);
            *answer = ask(reply).then_some(awaited);
        }
        since.elapsed()
    }
}

/// The thread that has been silent or at one job for the longest, if that is longer than can be.
///
/// Neither a full disk, an engine that is away, a queue that is full nor a slow answer makes a thread stuck: each of them goes on, and
/// a restart would mend nothing.
fn stuck(api: &Api) -> Option<(String, Duration)> {
    // The locks that requests take: where one of them is never given back, this request hangs like every other.
    drop(api.throttle());
    let _ = (api.runtime.hub.active(), api.runtime.snapshot());
    let store = |answer: Sender<()>| {
        let done = move || {
            // Whoever asked may have forgotten it.
            let _ = answer.try_send(());
        };
        api.store.try_reach(done).is_ok()
    };
    let job = threads::longest_job().map(|(name, since)| (name.to_string(), since));
    let vital = [
        ("supervisor".to_owned(), api.vital.supervisor.silence(|answer| api.runtime.try_reach(answer))),
        ("store".to_owned(), api.vital.store.silence(store)),
    ];
    let longest = vital.into_iter().chain(job).max_by_key(|(_, silence)| *silence);
    longest.filter(|(_, silence)| *silence > api.stuck_after)
}

#[expect(clippy::unnecessary_wraps, reason = "a handler")]
/// `GET /healthz`: this process answers, and none of its threads is stuck; 500 and which, if one is: only a restart mends that.
pub(super) fn alive(api: &Api, _: &Call) -> Answer {
    Ok(match stuck(api) {
        None => json(200, &json!({"status": "ok"})),
        Some((thread, silence)) => {
            json(500, &json!({"status": "stuck", "thread": thread, "seconds": silence.as_secs()}))
        }
    })
}

/// `GET /api/openapi.json`: the interface for machines. A test holds it to the route table and to real answers.
#[expect(clippy::unnecessary_wraps, reason = "a handler")]
pub(super) fn openapi(_: &Api, _: &Call) -> Answer {
    let document =
        include_str!("openapi.json").replace("\"VERSION\"", concat!("\"", env!("CARGO_PKG_VERSION"), "\""));
    Ok(json_bytes(200, document.into_bytes()))
}

#[expect(clippy::unnecessary_wraps, reason = "a handler")]
/// `GET /api/health`: and so do the engine and the store, or which of them does not.
pub(super) fn health(api: &Api, _: &Call) -> Answer {
    let snapshot = api.runtime.snapshot();
    let engine = &snapshot.engine;
    let store = api.store.ping();
    let well = engine.up && store.is_ok();
    Ok(json(
        200,
        &json!({
            "status": if well { "ok" } else { "degraded" },
            "engine": {"status": if engine.up { "ok" } else { "unavailable" }, "version": engine.version.as_deref()},
            "store": {"status": if store.is_ok() { "ok" } else { "unavailable" }},
            "uptime": api.began.elapsed().as_secs(),
            "version": env!("CARGO_PKG_VERSION"),
        }),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_counted_from_the_first_question_without_an_answer() {
        let asked = Asked::default();
        let longer = |than: Duration, ask: &dyn Fn(Sender<()>) -> bool| loop {
            let silence = asked.silence(ask);
            if silence > than + Duration::from_millis(5) {
                return silence;
            }
            std::thread::yield_now();
        };
        let (taken, questions) = bounded(8);
        let put = |answer| taken.try_send(answer).is_ok();
        let full = longer(Duration::ZERO, &|_| false);
        let waiting = longer(full, &put);
        assert_eq!(questions.len(), 1, "one question at a time");
        drop(questions.recv().unwrap());
        let dropped = longer(waiting, &put);
        assert_eq!(questions.len(), 1, "it is asked again");
        questions.recv().unwrap().send(()).unwrap();
        assert!(asked.silence(put) < dropped, "the answer ends the silence");
        assert_eq!(questions.len(), 1, "and the next question is on its way");
    }
}
