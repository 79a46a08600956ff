//! What git says: lines for the log, and complaints made into a reason.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Instant;

use crossbeam_channel::Sender;

use super::{Error, Order};
use crate::limits;

/// A line, cut to its bound.
pub(super) struct Line {
    pub bytes: Vec<u8>,
    /// It is followed by another that says the same with a larger number.
    pub is_progress: bool,
}

/// Reads a pipe to its end, whether anybody listens or not.
pub(super) fn read_lines(mut from: impl Read, to: &Sender<Line>) {
    let (mut buffer, mut bytes) = ([0; 4096], Vec::new());
    let send = |bytes: &mut Vec<u8>, is_progress| {
        if !bytes.is_empty() {
            // Nobody listens any more once git is to be killed.
            drop(to.send(Line { bytes: std::mem::take(bytes), is_progress }));
        }
    };
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        for byte in &buffer[..read] {
            match byte {
                b'\n' | b'\r' => send(&mut bytes, *byte == b'\r'),
                _ if bytes.len() < limits::GIT_LINE_BYTES_MAX => bytes.push(*byte),
                _ => {}
            }
        }
    }
    send(&mut bytes, false);
}

/// A line as it may be shown.
pub(super) fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// What git has said so far.
pub(super) struct Said<'a> {
    order: &'a Order<'a>,
    into: &'a Path,
    line: &'a mut dyn FnMut(&str),
    /// What may still be passed on.
    room: usize,
    progress_at: Option<Instant>,
    complaints: VecDeque<String>,
}

impl<'a> Said<'a> {
    pub(super) fn new(order: &'a Order<'a>, into: &'a Path, line: &'a mut dyn FnMut(&str)) -> Said<'a> {
        Said {
            order,
            into,
            line,
            room: limits::GIT_OUTPUT_BYTES_MAX,
            progress_at: None,
            complaints: VecDeque::new(),
        }
    }

    pub(super) fn take(&mut self, line: &Line) {
        // A folder of this host is nobody's business.
        let name = self.into.file_name().unwrap_or_default().to_string_lossy();
        let mut text = clean(&line.bytes).replace(&*self.into.to_string_lossy(), &name);
        if let Some(token) = self.order.token {
            // A server may say it back.
            text = text.replace(token.expose(), "***");
        }
        if ["fatal: ", "error: ", "warning: "].iter().any(|kind| text.starts_with(kind)) {
            self.complaints.push_back(text.clone());
            self.complaints.truncate(limits::GIT_COMPLAINTS_MAX);
        }
        if text.is_empty() {
            return;
        }
        if line.is_progress {
            let now = Instant::now();
            if self.progress_at.is_some_and(|at| now < at + limits::GIT_PROGRESS_EVERY) {
                return;
            }
            self.progress_at = Some(now);
        }
        match self.room.checked_sub(text.len()) {
            Some(room) => {
                self.room = room;
                (self.line)(&text);
            }
            None if self.room > 0 => {
                self.room = 0;
                (self.line)("(git says more than is kept)");
            }
            None => {}
        }
    }

    fn complained(&self, of: &str) -> Option<&str> {
        let complaint = self.complaints.iter().find(|complaint| complaint.contains(of))?;
        complaint.split_once(of).map(|(_, behind)| behind.trim())
    }

    /// Why git failed.
    pub(super) fn reason(&self, status: ExitStatus) -> Error {
        // Of a checkout that fails, the last word says only that.
        let vague = ["fatal: unable to checkout working tree", "warning: "];
        let says_why = |complaint: &&String| !vague.iter().any(|words| complaint.starts_with(words));
        let first = self.complaints.iter().find(says_why);
        let sentence = self.known().unwrap_or_else(|| match first.or(self.complaints.front()) {
            Some(complaint) => {
                format!("git failed: {}", complaint.split_once(": ").map_or("", |(_, text)| text))
            }
            None => format!("git failed ({status})"),
        });
        Error::Failed(sentence.chars().take(limits::GIT_REASON_CHARS_MAX).collect())
    }

    /// What the complaints mean that everybody meets once.
    fn known(&self) -> Option<String> {
        let (url, host, token) = (self.order.url.as_str(), self.order.url.host(), self.order.token.is_some());
        let branch = self.order.branch.map_or("", |branch| branch.as_str());
        let says = |of| self.complained(of).is_some();
        let fixed = if says("Authentication failed") || token && says("could not read ") {
            "The git_token is not accepted: it has ended, or is not for this repository".to_owned()
        } else if says("could not read Username") {
            "The repository does not exist, or it is private and needs a git_token".to_owned()
        } else if says("fatal: repository '") {
            let access = if token { ", or the git_token may not read it" } else { "" };
            format!("There is no repository {url}{access}")
        } else if says("fatal: Remote branch ") {
            format!("The branch {branch} does not exist in the repository, or the repository is empty")
        } else if says("The requested URL returned error: 30") {
            format!("The repository is not at {url} but elsewhere: give the address that the server leads to")
        } else if says("Could not resolve host") {
            format!("The host {host} is not known")
        } else if says("Operation too slow") {
            format!("The server {host} sent nothing for {} s", limits::GIT_STALL_MAX.as_secs())
        } else if says("error: invalid path ") {
            format!(
                "The repository has a file of a forbidden name: {}",
                self.complained("error: invalid path ")?
            )
        } else if says("No space left on device") {
            "The server's disk is full".to_owned()
        } else if says("not valid: is this a git repository?") || says("protocol error") || says("dumb http")
        {
            format!("{url} does not answer like a git repository")
        } else {
            let (_, why) = self.complained("fatal: unable to access ")?.split_once("': ")?;
            format!("The server {host} cannot be asked for the repository: {why}")
        };
        Some(fixed)
    }
}
