//! The file: where it may lie, how it is made, checked, migrated and copied. Nothing here ever writes over a database that
//! cannot be read.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::limits::STORE_BUSY_MAX;

/// The database, in the data folder.
pub const FILE: &str = "muelle.db";
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_initial.sql"),
    include_str!("migrations/0002_deployments.sql"),
    include_str!("migrations/0003_traffic.sql"),
    include_str!("migrations/0004_domains.sql"),
    include_str!("migrations/0005_wakes.sql"),
    include_str!("migrations/0006_answer_time.sql"),
];

/// Why the data cannot be used. Each is a sentence for the person who started us; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory is not fit to hold data.
    #[error("the data directory {} {reason}", path.display())]
    Dir {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is damaged or not ours.
    #[error(
        "the database {} {reason}. It was left as it is. To go on, stop muelle, move the file and those beside it that \
         begin with its name away, and put a backup (a file made by `muelle backup`, or a muelle.db.v*.bak) in its place \
         under the same name",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file was written by a later version.
    #[error(
        "the database {} has schema {found} and this version of muelle knows {known} at most. Run the newer version \
         again, or move the file away and put the backup {}.v{known}.bak in its place",
        path.display(), path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The file's schema.
        found: usize,
        /// Our latest.
        known: usize,
    },
    /// Another server runs on the same data.
    #[error("another muelle is running on the data directory {}", path.display())]
    Held {
        /// The directory.
        path: PathBuf,
    },
    /// The system refused something else.
    #[error("cannot use {}: {reason}", path.display())]
    Other {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

impl OpenError {
    pub(super) fn other(path: &Path, reason: &(impl ToString + ?Sized)) -> OpenError {
        OpenError::Other { path: path.to_owned(), reason: reason.to_string() }
    }

    fn dir(path: &Path, reason: impl Into<String>) -> OpenError {
        OpenError::Dir { path: path.to_owned(), reason: reason.into() }
    }

    fn damaged(path: &Path, reason: &(impl ToString + ?Sized)) -> OpenError {
        OpenError::Damaged { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Why no backup was made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something is there under that name.
    #[error("{} exists: a backup never writes over a file", .0.display())]
    Exists(PathBuf),
    /// There is nothing to back up.
    #[error("there is no database {}", .0.display())]
    Missing(PathBuf),
    /// Anything else.
    #[error("cannot back up to {}: {reason}", path.display())]
    Other {
        /// The backup.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

/// Says that this process is the one server on a data directory, until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock, and makes the directory where it is missing.
    ///
    /// # Errors
    /// [`OpenError::Held`] at once when another process has it; others when the directory cannot be used.
    pub fn take(data_dir: &Path) -> Result<DirLock, OpenError> {
        check_dir(data_dir)?;
        let path = data_dir.join("muelle.lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| OpenError::other(&path, &e))?;
        match file.try_lock() {
            Ok(()) => Ok(DirLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Held { path: data_dir.to_owned() }),
            Err(TryLockError::Error(error)) => Err(OpenError::other(&path, &error)),
        }
    }
}

/// Makes sure of the directory and that a database is in it; returns the database's path.
pub(super) fn prepare(data_dir: &Path) -> Result<PathBuf, OpenError> {
    check_dir(data_dir)?;
    let path = data_dir.join(FILE);
    match fs::symlink_metadata(&path) {
        Ok(meta) if !meta.file_type().is_file() => Err(OpenError::damaged(&path, "is not a regular file")),
        Ok(meta) if meta.len() == 0 => Err(OpenError::damaged(&path, "is empty")),
        Ok(_) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // SQLite would play a journal that was left behind into the new file.
            if suffixed(&path, "-wal").exists() {
                return Err(OpenError::damaged(
                    &path,
                    "is missing, but its journal (muelle.db-wal) is there",
                ));
            }
            create(data_dir, &path)?;
            Ok(path)
        }
        Err(error) => Err(OpenError::other(&path, &error)),
    }
}

fn check_dir(dir: &Path) -> Result<(), OpenError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| OpenError::dir(dir, format!("cannot be made: {e}")))?;
    let meta = fs::symlink_metadata(dir).map_err(|e| OpenError::other(dir, &e))?;
    let us = rustix::process::geteuid().as_raw();
    if meta.is_symlink() {
        return Err(OpenError::dir(dir, "is a symbolic link: name the directory itself"));
    }
    if meta.uid() != us {
        let owner = meta.uid();
        return Err(OpenError::dir(
            dir,
            format!("belongs to user {owner}, but this is user {us}: run muelle as its owner"),
        ));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(OpenError::dir(dir, "can be written by others: run `chmod 700` on it"));
    }
    // The mode is looked at too, because it does not bind root.
    let writable = rustix::fs::access(dir, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
    if meta.mode() & 0o700 != 0o700 || writable.is_err() {
        return Err(OpenError::dir(dir, "is read-only: muelle must be able to write there"));
    }
    let fs = rustix::fs::statfs(dir).map_err(|e| OpenError::other(dir, &e))?;
    match network_file_system(i128::from(fs.f_type)) {
        Some(name) => Err(OpenError::dir(dir, format!("is on {name}, where SQLite's journal is not safe"))),
        None => Ok(()),
    }
}

/// The name of a file system without shared memory between its users (statfs(2), `f_type`).
fn network_file_system(magic: i128) -> Option<&'static str> {
    match magic & 0xffff_ffff {
        0x6969 => Some("NFS"),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => Some("SMB"),
        0x0102_1997 => Some("9p"),
        _ => None,
    }
}

/// Makes a whole database under another name and only then gives it its own: a crash in between leaves no half-made one, and
/// of two processes that do it at once the second finds the first one's.
fn create(dir: &Path, path: &Path) -> Result<(), OpenError> {
    let wrap = |e: &dyn ToString| OpenError::other(path, &e.to_string());
    let fresh = suffixed(path, &format!(".new-{:08x}", getrandom::u32().map_err(|e| wrap(&e))?));
    create_private(&fresh).map_err(|e| wrap(&e))?;
    let made = connect(&fresh)
        .map_err(|e| wrap(&e))
        .and_then(|mut db| {
            migrate(&mut db, MIGRATIONS).map_err(|e| wrap(&e))?;
            // What is still in the journal would stay behind under the other name.
            let busy = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
            if busy.map_err(|e| wrap(&e))? {
                return Err(wrap(&"its journal cannot be folded in"));
            }
            db.close().map_err(|(_, e)| wrap(&e))
        })
        .and_then(|()| match fs::hard_link(&fresh, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(wrap(&error)),
            _ => File::open(dir).and_then(|d| d.sync_all()).map_err(|e| wrap(&e)),
        });
    for journal in ["-wal", "-shm"] {
        // There only where something failed.
        drop(fs::remove_file(suffixed(&fresh, journal)));
    }
    fs::remove_file(&fresh).map_err(|e| wrap(&e)).and(made)
}

fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Opens the database for writing and brings it up to date; returns it with the instance's id.
pub(super) fn open(path: &Path) -> Result<(Connection, String), OpenError> {
    open_with(path, MIGRATIONS)
}

fn open_with(path: &Path, migrations: &[&str]) -> Result<(Connection, String), OpenError> {
    let version = check(path, migrations.len())?;
    // A backup that was put back may be readable by others.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(|e| OpenError::other(path, &e))?;
    if version < migrations.len() {
        let backup = suffixed(path, &format!(".v{version}.bak"));
        copy_before_migration(path, &backup).map_err(|e| OpenError::other(&backup, &e))?;
        log::info!("the database was copied to {} before its migration", backup.display());
    }
    let mut db = connect(path).map_err(|e| OpenError::other(path, &e))?;
    migrate(&mut db, migrations).map_err(|e| OpenError::other(path, &format!("migration failed: {e}")))?;
    let instance = db
        .query_row("SELECT value FROM meta WHERE key = 'instance'", [], |row| row.get(0))
        .map_err(|e| OpenError::damaged(path, &e))?;
    Ok((db, instance))
}

/// Looks through the whole file over a connection that cannot change it, and returns its schema. `integrity_check` also reads
/// the indexes, which `quick_check` does not; at our sizes it takes milliseconds.
fn check(path: &Path, known: usize) -> Result<usize, OpenError> {
    let damaged = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            OpenError::damaged(path, &format!("cannot be read: {error}"))
        }
        // A full disk, a lock: no reason to restore anything.
        _ => OpenError::other(path, &error),
    };
    let db = open_read_only(path).map_err(damaged)?;
    let version: usize =
        db.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0)).map_err(damaged)? as usize;
    if version > known {
        return Err(OpenError::Newer { path: path.to_owned(), found: version, known });
    }
    // SQLite takes a short last page for one that ends in zeros. Only with a journal, which holds that page, is it in order.
    let page: u64 = db.query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0)).map_err(damaged)?.into();
    let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
    if !size(path).is_multiple_of(page) && size(&suffixed(path, "-wal")) == 0 {
        return Err(OpenError::damaged(path, "was cut short"));
    }
    let verdict: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(damaged)?;
    if verdict != "ok" {
        return Err(OpenError::damaged(path, &format!("is damaged: {verdict}")));
    }
    if version == 0 {
        return Err(OpenError::damaged(path, "was not made by muelle"));
    }
    Ok(version)
}

/// Opens without SQLite's URI names, without creating, with our settings.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    db.busy_timeout(STORE_BUSY_MAX)?;
    let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        log::error!("the journal mode is {mode}: readers and the writer will wait for each other");
    }
    db.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
    Ok(db)
}

pub(super) fn open_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(STORE_BUSY_MAX)?;
    Ok(db)
}

/// Applies what is missing in one transaction, so that a crash leaves the old schema or the new one.
fn migrate(db: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version: usize = tx.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0))? as usize;
    if version < migrations.len() {
        for migration in &migrations[version..] {
            tx.execute_batch(migration)?;
        }
        let instance = format!("{:08x}", getrandom::u32().map_err(|e| failure(&e))?);
        tx.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('instance', ?1)", [instance])?;
        tx.pragma_update(None, "user_version", u32::try_from(migrations.len()).unwrap_or(u32::MAX))?;
    }
    tx.commit()
}

fn failure(error: &impl ToString) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(error.to_string().into())
}

fn copy_before_migration(path: &Path, backup: &Path) -> Result<(), String> {
    let half = suffixed(backup, ".tmp");
    match fs::remove_file(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.to_string()),
        _ => {}
    }
    let file = create_private(&half).map_err(|e| e.to_string())?;
    vacuum_into(path, &half, &file)?;
    fs::rename(&half, backup).map_err(|e| e.to_string())
}

/// Copies the database in `data_dir` to the new file `target` (mode 0600), also while a server runs on it.
///
/// # Errors
/// When the target exists, or the copy fails; what was written of it is removed.
///
/// # Blocks
/// For as long as the copy takes; writers are not held up.
pub fn backup(data_dir: &Path, target: &Path) -> Result<(), BackupError> {
    let other = |e: &dyn ToString| BackupError::Other { path: target.to_owned(), reason: e.to_string() };
    let path = data_dir.join(FILE);
    if !path.is_file() {
        return Err(BackupError::Missing(path));
    }
    // SQLite resolves names by its own rules (":memory:"); an absolute path means what it says.
    let target = std::path::absolute(target).map_err(|e| other(&e))?;
    let file = create_private(&target).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(target.clone()),
        _ => other(&error),
    })?;
    vacuum_into(&path, &target, &file).map_err(|reason| {
        drop(fs::remove_file(&target));
        other(&reason)
    })
}

/// Copies a database into `target`, which is there and empty: its mode was right before the first byte.
fn vacuum_into(path: &Path, target: &Path, file: &File) -> Result<(), String> {
    let name = target.to_str().ok_or("its name is not UTF-8")?;
    let db = open_read_only(path).map_err(|e| e.to_string())?;
    db.execute("VACUUM INTO ?1", [name]).map_err(|e| e.to_string())?;
    file.sync_all().map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests;
