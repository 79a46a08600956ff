//! What was said during deployments: a file for each, beside the database.
//!
//! A log that would grow beyond [`LOG_BYTES_MAX`] ends with a line that says so.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::domain::ProjectId;
use crate::limits::DEPLOY_LOG_BYTES_MAX as LOG_BYTES_MAX;

/// The folder of all logs.
#[derive(Clone, Debug)]
pub struct Logs {
    dir: PathBuf,
}

impl Logs {
    /// The logs of the data in `data_dir`. No I/O.
    #[must_use]
    pub fn new(data_dir: &Path) -> Logs {
        Logs { dir: data_dir.join("deployments") }
    }

    fn folder(&self, project: ProjectId) -> PathBuf {
        self.dir.join(project.to_string())
    }

    fn path(&self, project: ProjectId, number: u32) -> PathBuf {
        self.folder(project).join(format!("{number}.log"))
    }

    /// Opens the log of a deployment to write on, and makes it where there is none.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn append(&self, project: ProjectId, number: u32) -> io::Result<Log> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.folder(project))?;
        let path = self.path(project, number);
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let written = file.metadata()?.len();
        Ok(Log { file, written })
    }

    /// Opens the log of a deployment to read; `None` where nothing was said.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(&self, project: ProjectId, number: u32) -> io::Result<Option<File>> {
        found(File::open(self.path(project, number)))
    }

    /// Removes the logs of a project whose numbers are not to be kept.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn retain(&self, project: ProjectId, keep: impl Fn(u32) -> bool) -> io::Result<()> {
        let folder = self.folder(project);
        let Some(entries) = found(fs::read_dir(&folder))? else { return Ok(()) };
        let mut kept = 0;
        for entry in entries {
            let path = entry?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            if number.is_some_and(&keep) {
                kept += 1;
            } else {
                found(fs::remove_file(path))?;
            }
        }
        if kept == 0 {
            found(fs::remove_dir(folder))?;
        }
        Ok(())
    }
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// A log that is being written.
#[derive(Debug)]
pub struct Log {
    file: File,
    written: u64,
}

impl Log {
    /// Adds a line, unless the log is full. A disk that takes no more loses lines of the log only.
    pub fn line(&mut self, text: &str) {
        let room = LOG_BYTES_MAX.saturating_sub(self.written);
        let line = if (text.len() as u64) < room { format!("{text}\n") } else { FULL.to_owned() };
        if self.written <= LOG_BYTES_MAX && self.file.write_all(line.as_bytes()).is_ok() {
            self.written += if line == FULL { LOG_BYTES_MAX } else { line.len() as u64 };
        }
    }

    /// Adds a line even to a full log: why a deployment failed is always said.
    pub fn last_line(&mut self, text: &str) {
        if self.file.write_all(format!("{text}\n").as_bytes()).is_ok() {
            self.written += text.len() as u64 + 1;
        }
    }
}

const FULL: &str = "(more was said, but the log is full)\n";

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::tests::Dir;
    use super::*;

    #[test]
    fn case_91_a_log_ends_where_it_is_full_and_still_says_why_it_failed() {
        let (dir, id) = (Dir::new(), ProjectId(7));
        let logs = Logs::new(&dir.0);
        assert!(logs.open(id, 1).unwrap().is_none());
        let mut log = logs.append(id, 1).unwrap();
        let megabyte = "x".repeat(1 << 20);
        for _ in 0..20 {
            log.line(&megabyte);
        }
        log.last_line("failed: the end");
        let mut text = String::new();
        logs.open(id, 1).unwrap().unwrap().read_to_string(&mut text).unwrap();
        assert!(text.len() as u64 <= LOG_BYTES_MAX + 100, "{}", text.len());
        assert!(text.ends_with(&format!("{FULL}failed: the end\n")));
    }

    #[test]
    fn logs_that_are_not_kept_go_and_with_the_last_one_the_folder() {
        let (dir, id) = (Dir::new(), ProjectId(7));
        let logs = Logs::new(&dir.0);
        logs.retain(id, |_| false).unwrap();
        for number in 1..=3 {
            logs.append(id, number).unwrap().line("hello");
        }
        logs.retain(id, |number| number == 2).unwrap();
        let there = [1, 2, 3].map(|number| logs.open(id, number).unwrap().is_some());
        assert_eq!(there, [false, true, false]);
        logs.retain(id, |_| false).unwrap();
        assert!(!logs.folder(id).exists());
    }
}
