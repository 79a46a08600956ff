//! Everything that outlives the process: users, sessions, projects and counters in one SQLite file.
//!
//! The only place with SQL. Knows the tables and how the file is opened, checked, migrated and backed up. Must not know HTTP,
//! Docker or tokens, and decides nothing: it keeps what it is told, or says why it cannot.
//!
//! Writes run on the thread `store`, which owns the only read-write connection; whoever asked gets the result after the
//! commit. The methods of [`Store`] block their caller, those called `try_…` never do. Reads go through a [`Reader`], one for
//! each thread that reads.

mod deployments;
mod file;
mod logs;
mod projects;
mod sessions;
mod users;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{RecvTimeoutError, SendTimeoutError, Sender, TrySendError, bounded};
use rusqlite::{Connection, ErrorCode, Params, Row, ffi};

use crate::domain::Invalid;
use crate::limits::{STORE_ANSWER_MAX, STORE_PING_MAX, STORE_SUBMIT_MAX};
use crate::threads::Thread;

pub use file::{BackupError, DirLock, FILE, OpenError, backup};
pub use logs::{Log, Logs};
pub use projects::NewProject;
pub use sessions::{OpenedSession, Session};
pub use users::{Admit, NewUser};

/// Why the store did not do what it was asked. Nothing was written, except where it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Somebody else has it already.
    #[error("{0} is taken")]
    Taken(What),
    /// What the row would be derived from cannot be used; the sentence is for the person who sent it.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is no such row, or it is being deleted, or it moved on since the caller read it.
    #[error("not found")]
    NotFound,
    /// [`Admit::First`] was asked for and there is an account.
    #[error("there is an account already")]
    NotFirst,
    /// The user still owns this many projects.
    #[error("the user still has {0} projects")]
    HasProjects(u32),
    /// The owner has this many projects, which is the most there may be.
    #[error("a user can have at most {0} projects")]
    TooMany(u32),
    /// As many deployments wait as may.
    #[error("too many deployments wait")]
    QueueFull,
    /// The queue is full, or another process holds the file: try again later.
    #[error("the store is busy")]
    Full,
    /// The disk is full. The next write may succeed.
    #[error("the disk is full")]
    DiskFull,
    /// Anything else, for the log. After "no answer" the change may still be made.
    #[error("store: {0}")]
    Other(String),
}

/// What there can be only one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An account with this e-mail.
    Email,
    /// The owner's project of this name.
    ProjectName,
    /// A project that adopted this container.
    Container,
    /// A project with this host name.
    Domain,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Email => "the e-mail",
            What::ProjectName => "the project's name",
            What::Container => "the container",
            What::Domain => "the domain",
        })
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        let code = error.sqlite_error().map_or(0, |e| e.extended_code);
        match (error.sqlite_error_code(), code) {
            (Some(ErrorCode::DiskFull), _)
            | (
                _,
                ffi::SQLITE_IOERR_WRITE
                | ffi::SQLITE_IOERR_FSYNC
                | ffi::SQLITE_IOERR_TRUNCATE
                | ffi::SQLITE_IOERR_SHMSIZE,
            ) => return Error::DiskFull,
            (Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked), _) => return Error::Full,
            _ => {}
        }
        // SQLite names the columns: "UNIQUE constraint failed: projects.owner, projects.name".
        let text = error.to_string();
        let taken = [
            ("users.email", What::Email),
            ("projects.name", What::ProjectName),
            ("projects.origin", What::Container),
            ("domains.host", What::Domain),
        ];
        let unique = [ffi::SQLITE_CONSTRAINT_UNIQUE, ffi::SQLITE_CONSTRAINT_PRIMARYKEY].contains(&code);
        match taken.iter().find(|(column, _)| unique && text.contains(column)) {
            Some((_, what)) => Error::Taken(*what),
            None => Error::Other(text),
        }
    }
}

/// Called on the store thread with the result of a write, after its commit. It must not wait for the store.
pub type Done<T> = Box<dyn FnOnce(Result<T, Error>) + Send>;

/// The write was not accepted because the queue is full; its callback was dropped uncalled. The caller keeps what it wanted and
/// tries again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The store: a handle to its thread. Dropping it commits what was accepted, folds the journal into the file and joins the
/// thread.
#[derive(Debug)]
pub struct Store {
    // Above the thread, so that the queue closes before it is joined.
    queue: Sender<writer::Job>,
    _thread: Thread,
    foreign: Arc<OnceLock<writer::OnForeignChange>>,
    path: PathBuf,
    instance: String,
}

impl Store {
    /// Writes that wait for the store thread.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Opens `muelle.db` in `data_dir`, makes both where they are missing, migrates an older schema after copying the file to
    /// `muelle.db.v<N>.bak`, and starts the store thread.
    ///
    /// # Errors
    /// When the directory or the file cannot be used; the file is left as it was.
    ///
    /// # Blocks
    /// While the file is checked: 15 ms for 11 MB.
    pub fn open(data_dir: &Path) -> Result<Store, OpenError> {
        let path = file::prepare(data_dir)?;
        let (db, instance) = file::open(&path)?;
        let foreign = Arc::new(OnceLock::new());
        let (queue, thread) = writer::start(db, &path, Arc::clone(&foreign))?;
        Ok(Store { queue, _thread: thread, foreign, path, instance })
    }

    /// Eight hex digits, made with the database, that tell this muelle's containers from another's.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Asks to be told, on the store thread and within a second or two, when another process (the command line) has changed
    /// the file since it was opened; again each second until the answer is that it was taken notice of. Only the first call counts. The
    /// callback may read the file; it must not wait for the store.
    pub fn on_foreign_change(&self, tell: Box<dyn Fn() -> bool + Send + Sync>) {
        if self.foreign.set(writer::OnForeignChange(tell)).is_err() {
            log::error!("store: the watch of foreign changes was set twice");
        }
    }

    /// Opens a connection that only reads, for one thread.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn reader(&self) -> Result<Reader, Error> {
        Ok(Reader { db: file::open_read_only(&self.path)? })
    }

    /// Whether the store thread commits now.
    ///
    /// # Errors
    /// As of any write; [`Error::Full`] when it has not answered in time.
    ///
    /// # Blocks
    /// At most [`STORE_PING_MAX`].
    pub fn ping(&self) -> Result<(), Error> {
        let (answer, result) = bounded(1);
        let done = move |result| drop(answer.try_send(result));
        self.post(|_| Ok(()), Box::new(done)).map_err(|Full| Error::Full)?;
        result.recv_timeout(STORE_PING_MAX).unwrap_or(Err(Error::Full))
    }

    /// Has `answer` called when the store thread has taken up whatever was asked before; with what came of that is another matter.
    ///
    /// # Errors
    /// [`Full`] at once when the queue is.
    pub fn try_reach(&self, answer: impl FnOnce() + Send + 'static) -> Result<(), Full> {
        self.post(|_| Ok(()), Box::new(move |_| answer()))
    }

    /// Has `work` done in the next transaction and waits for its commit.
    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.call_then(work, |_| {})
    }

    /// The same; `committed` is called with the result on the store thread, after the commit and before the caller goes on.
    fn call_then<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
        committed: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, result) = bounded(1);
        let done = move |result: Result<T, Error>| {
            if let Ok(value) = &result {
                committed(value);
            }
            drop(answer.try_send(result));
        };
        let job = writer::job(work, Box::new(done));
        match self.queue.send_timeout(job, STORE_SUBMIT_MAX) {
            Ok(()) => {}
            Err(SendTimeoutError::Timeout(_)) => return Err(Error::Full),
            Err(SendTimeoutError::Disconnected(_)) => {
                return Err(Error::Other("the thread has ended".into()));
            }
        }
        match result.recv_timeout(STORE_ANSWER_MAX) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(Error::Other("no answer in time".into())),
            Err(RecvTimeoutError::Disconnected) => Err(Error::Other("the write panicked".into())),
        }
    }

    /// Has `work` done in the next transaction and `done` called after its commit.
    fn post<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
        done: Done<T>,
    ) -> Result<(), Full> {
        match self.queue.try_send(writer::job(work, done)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(Full),
            Err(TrySendError::Disconnected(job)) => {
                // The thread ends only with the store itself; if it ever died, every caller must hear of it.
                writer::refuse(job, Error::Other("the thread has ended".into()));
                Ok(())
            }
        }
    }
}

/// A connection that only reads. Cheap to keep: no read lasts longer than its call, so it never holds up the journal.
#[derive(Debug)]
pub struct Reader {
    db: Connection,
}

fn rows<T>(
    db: &Connection,
    sql: &str,
    params: impl Params,
    decode: impl Fn(&Row) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    db.prepare(sql)?.query_and_then(params, |row| decode(row))?.collect()
}

fn row<T>(
    db: &Connection,
    sql: &str,
    params: impl Params,
    decode: impl Fn(&Row) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    db.prepare(sql)?.query_and_then(params, |row| decode(row))?.next().transpose()
}

fn exists(db: &Connection, sql: &str, params: impl Params) -> Result<bool, Error> {
    Ok(db.prepare(sql)?.exists(params)?)
}

/// Reads a text column whose value was checked when it was written.
fn text<T>(row: &Row, column: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
    parse(&row.get::<_, String>(column)?)
        .ok_or_else(|| Error::Other(format!("{column} holds a foreign value")))
}

/// The same of a column that may be NULL.
fn optional<T>(row: &Row, column: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Error> {
    match row.get::<_, Option<String>>(column)? {
        None => Ok(None),
        Some(_) => text(row, column, parse).map(Some),
    }
}

/// A random number that no row of `sql` (a query for one id) has.
fn fresh_id<I: fmt::Display>(db: &Connection, sql: &str, id: impl Fn(u32) -> I) -> Result<I, Error> {
    loop {
        let fresh = id(getrandom::u32().map_err(|e| Error::Other(e.to_string()))?);
        if !exists(db, sql, [fresh.to_string()])? {
            return Ok(fresh);
        }
    }
}

fn to_secs(time: SystemTime) -> i64 {
    let secs = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    time.duration_since(UNIX_EPOCH).map_or_else(|before| -secs(before.duration()), secs)
}

fn from_secs(secs: i64) -> SystemTime {
    let distance = Duration::from_secs(secs.unsigned_abs());
    let time = if secs < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
