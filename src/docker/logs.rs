//! A container's log as it is written, for somebody who watches.
//!
//! Knows lines; reconnects by itself never. Runs on a thread of its client; an [`Aborter`] ends it from another one.

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ureq::Agent;

use super::error::broken_off;
use super::frames::{Lines, LogLine};
use super::{Aborter, Error};
use crate::limits;

/// An open log.
pub struct Log {
    lines: Lines<Box<dyn Read + Send>>,
    aborted: Arc<AtomicBool>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

impl Log {
    pub(super) fn open(agent: Agent, body: impl Read + Send + 'static, framed: bool) -> (Log, Aborter) {
        let (aborter, was_aborted) = Aborter::new(agent);
        (Log { lines: Lines::new(Box::new(body), framed), aborted: was_aborted }, aborter)
    }

    /// What was written since the last call, at least one line and about [`limits::LOG_BATCH_BYTES`] at most; `None` when the
    /// container ended or the log was aborted.
    ///
    /// # Errors
    /// `Unavailable` when the connection broke, `Malformed` for what is no log. The log is of no use then.
    ///
    /// # Blocks
    /// Until something is written: for ever, if need be.
    pub fn read(&mut self) -> Result<Option<Vec<LogLine>>, Error> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        loop {
            match self.lines.next() {
                _ if self.aborted.load(Ordering::Acquire) => return Ok(None),
                Err(error) => return Err(broken_off("log", &error)),
                // The next call sees the end again.
                Ok(None) => return Ok(Some(batch).filter(|batch| !batch.is_empty())),
                Ok(Some(line)) => {
                    bytes += line.text.len() + size_of::<LogLine>();
                    batch.push(line);
                }
            }
            if bytes >= limits::LOG_BATCH_BYTES || !self.lines.has_more() {
                return Ok(Some(batch));
            }
        }
    }
}
