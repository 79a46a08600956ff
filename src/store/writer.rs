//! The thread that owns the read-write connection: it takes what waits, commits it as one transaction, and answers.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rusqlite::Connection;

use super::{Done, Error, OpenError};
use crate::limits::{STACK_DEFAULT, STORE_BUSY_MAX, STORE_QUEUE, STORE_TICK, WAL_CUT_MAX, WAL_MAX_BYTES};
use crate::threads::{self, Thread};

/// Work for the store thread. It gets the connection, inside a savepoint, or the reason why there is none.
pub(super) type Job = Box<dyn FnOnce(Result<&Connection, Error>) -> Outcome + Send>;

/// What a job has come to, before the commit.
pub(super) struct Outcome {
    failed: Option<Error>,
    deliver: Box<dyn FnOnce(Result<(), Error>) + Send>,
}

/// Whom to tell of a change by another process.
pub(super) struct OnForeignChange(pub Box<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for OnForeignChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnForeignChange")
    }
}

pub(super) fn job<T: Send + 'static>(
    work: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    done: Done<T>,
) -> Job {
    Box::new(move |db| {
        let result = db.and_then(work);
        Outcome {
            failed: result.as_ref().err().cloned(),
            deliver: Box::new(move |commit| done(commit.and(result))),
        }
    })
}

/// Answers a job that will not be done.
pub(super) fn refuse(job: Job, error: Error) {
    let outcome = job(Err(error));
    (outcome.deliver)(Ok(()));
}

pub(super) fn start(
    db: Connection,
    path: &Path,
    foreign: Arc<OnceLock<OnForeignChange>>,
) -> Result<(Sender<Job>, Thread), OpenError> {
    let (queue, jobs) = bounded(STORE_QUEUE);
    let journal = PathBuf::from(format!("{}-wal", path.display()));
    let seen = data_version(&db).map_err(|e| OpenError::other(path, &e))?;
    let writer = Writer { db, jobs, foreign, journal, seen, tick_at: Instant::now() + STORE_TICK };
    let thread = threads::spawn("store", STACK_DEFAULT, move || writer.run())
        .map_err(|e| OpenError::other(path, &format!("cannot start its thread: {e}")))?;
    Ok((queue, thread))
}

struct Writer {
    db: Connection,
    jobs: Receiver<Job>,
    foreign: Arc<OnceLock<OnForeignChange>>,
    journal: PathBuf,
    seen: i64,
    tick_at: Instant,
}

impl Writer {
    fn run(mut self) {
        loop {
            match self.jobs.recv_timeout(self.tick_at.saturating_duration_since(Instant::now())) {
                Ok(first) => {
                    let batch = std::iter::once(first).chain(self.jobs.try_iter()).take(STORE_QUEUE);
                    commit(&self.db, batch);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= self.tick_at {
                self.tick();
                self.tick_at = Instant::now() + STORE_TICK;
            }
        }
        self.cut_journal();
    }

    fn tick(&mut self) {
        if std::fs::metadata(&self.journal).is_ok_and(|m| m.len() > WAL_MAX_BYTES) {
            self.cut_journal();
        }
        // Counted from the opening on, so that a change made before anybody listens is told too.
        let Some(OnForeignChange(tell)) = self.foreign.get() else { return };
        match data_version(&self.db) {
            Ok(version) if version == self.seen => {}
            Ok(version) => {
                let mut noticed = false;
                guarded(|| noticed = tell());
                if noticed {
                    self.seen = version;
                }
            }
            Err(error) => log::warn!("store: cannot look for changes of other processes: {error}"),
        }
    }

    /// Folds the journal into the file and empties it, unless a reader is in the way for longer than [`WAL_CUT_MAX`].
    fn cut_journal(&self) {
        let cut = self.db.busy_timeout(WAL_CUT_MAX).and_then(|()| {
            self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))
        });
        match cut {
            Ok(false) => {}
            Ok(true) => log::debug!("store: a reader keeps the journal from being cut"),
            Err(error) => log::warn!("store: cannot cut the journal: {error}"),
        }
        if let Err(error) = self.db.busy_timeout(STORE_BUSY_MAX) {
            log::warn!("store: {error}");
        }
    }
}

/// Changes whenever another connection has committed.
fn data_version(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("PRAGMA data_version", [], |row| row.get(0))
}

/// Does all jobs in one transaction, each in its own savepoint, so that one that fails undoes only itself; then answers all.
fn commit(db: &Connection, jobs: impl Iterator<Item = Job>) {
    let mut outcomes = Vec::new();
    let mut state = execute(db, "BEGIN IMMEDIATE");
    for job in jobs {
        if state.is_ok() {
            state = execute(db, "SAVEPOINT job");
        }
        // A job that panics has dropped its callback: whoever waits for it sees that.
        let outcome = guarded(|| job(state.clone().map(|()| db)));
        if state.is_ok() {
            state = match &outcome {
                Some(Outcome { failed: None, .. }) => execute(db, "RELEASE job"),
                // SQLite itself undoes the whole transaction after some failures, a full disk among them.
                Some(Outcome { failed: Some(error), .. }) if db.is_autocommit() => Err(error.clone()),
                _ => execute(db, "ROLLBACK TO job; RELEASE job"),
            };
        }
        outcomes.extend(outcome);
    }
    let committed = state.and_then(|()| execute(db, "COMMIT"));
    if !db.is_autocommit()
        && let Err(error) = execute(db, "ROLLBACK")
    {
        log::error!("store: cannot roll back: {error}");
    }
    for outcome in outcomes {
        let result = committed.clone();
        guarded(|| (outcome.deliver)(result));
    }
}

fn execute(db: &Connection, sql: &str) -> Result<(), Error> {
    Ok(db.execute_batch(sql)?)
}

/// Runs `body`; a panic in it ends in the log, not the thread.
fn guarded<T>(body: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(body))
        .inspect_err(|panic| log::error!("store: a write panicked: {}", threads::panic_text(panic.as_ref())))
        .ok()
}
