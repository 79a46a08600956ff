//! Brings what the engine tells: the `docker-watch` thread.
//!
//! Reads the event stream and hands each event on. Decides nothing: an event makes the supervisor look, sooner than the list would.

use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Message;
use crate::docker::{Aborter, Docker};
use crate::threads::{Thread, spawn_vital};
use crate::{limits, threads};

/// The running thread; dropping it ends the stream and joins.
pub struct Watcher {
    abort: Arc<Mutex<Option<Aborter>>>,
    // Above the thread: closing it ends a wait.
    stop: Option<Sender<()>>,
    thread: Option<Thread>,
}

impl Watcher {
    /// Asks it to end, without waiting.
    pub fn stop(&mut self) {
        self.stop = None;
        if let Some(aborter) = self.abort.lock().unwrap_or_else(PoisonError::into_inner).take() {
            aborter.abort();
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop();
        self.thread = None;
    }
}

/// Starts it; should it die, `died` is told.
///
/// # Errors
/// When the system refuses a thread.
pub fn start(docker: Docker, inbox: Sender<Message>, died: Sender<String>) -> std::io::Result<Watcher> {
    let (stop, stopped) = bounded(0);
    let abort = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&abort);
    let watch = move || watch(&docker, &inbox, &slot, &stopped);
    let thread = spawn_vital("docker-watch", limits::STACK_DEFAULT, died, watch)?;
    Ok(Watcher { abort, stop: Some(stop), thread: Some(thread) })
}

fn watch(docker: &Docker, inbox: &Sender<Message>, slot: &Mutex<Option<Aborter>>, stopped: &Receiver<()>) {
    let mut pause = limits::STREAM_BACKOFF.0;
    loop {
        let (reason, was_open) = follow(docker, inbox, slot, stopped);
        if threads::is_closed(stopped) || inbox.send(Message::StreamLost(reason)).is_err() {
            return;
        }
        pause = if was_open { limits::STREAM_BACKOFF.0 } else { (pause * 2).min(limits::STREAM_BACKOFF.1) };
        if threads::closed_within(stopped, pause) {
            return;
        }
    }
}

/// Follows one stream to its end; says why it ended and whether it ever was open.
fn follow(
    docker: &Docker,
    inbox: &Sender<Message>,
    slot: &Mutex<Option<Aborter>>,
    stopped: &Receiver<()>,
) -> (String, bool) {
    let opened = docker.negotiate().and_then(|engine| Ok((engine, docker.events(None)?)));
    let (engine, (mut events, aborter)) = match opened {
        Ok(opened) => opened,
        Err(error) => return (error.to_string(), false),
    };
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(aborter);
    // Stopped before the aborter was there for the taking.
    if threads::is_closed(stopped) || inbox.send(Message::StreamOpen(engine)).is_err() {
        return ("stopping".to_owned(), true);
    }
    loop {
        match events.next() {
            Ok(Some(event)) => {
                if inbox.send(Message::Happened(event)).is_err() {
                    return ("stopping".to_owned(), true);
                }
            }
            Ok(None) => return ("the engine closed it".to_owned(), true),
            Err(error) => return (error.to_string(), true),
        }
    }
}
