//! How git learns the token: it asks this program, which reads it from a pipe of the muelle that started git.
//!
//! The token is in no argument, no environment and no file. The pipe holds it once, and only the address that it is for gets it.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsRawFd;

use rustix::fs::{Mode, OFlags};

use super::Order;
use crate::domain::Secret;

/// The variable that makes this program answer git: the path of the pipe.
pub const ASKPASS_PIPE: &str = "MUELLE_ASKPASS_PIPE";
/// The only scheme, host and port that it answers for.
const ASKPASS_ORIGIN: &str = "MUELLE_ASKPASS_ORIGIN";
/// GitHub's name for whoever shows a token; GitLab, Gitea and Forgejo take any.
const USER: &str = "x-access-token";

/// A pipe with the token in it, to be held until git has ended.
pub(super) fn offer(token: &Secret) -> io::Result<PipeReader> {
    let (reader, mut writer) = io::pipe()?;
    // Never blocks: an empty pipe takes a page at least (pipe(7)).
    writer.write_all(token.expose().as_bytes())?;
    Ok(reader)
}

/// What git is told so that it asks.
pub(super) fn environment(pipe: &PipeReader, order: &Order<'_>) -> [(&'static str, std::ffi::OsString); 3] {
    let path = format!("/proc/{}/fd/{}", std::process::id(), pipe.as_raw_fd());
    [
        ("GIT_ASKPASS", order.askpass.into()),
        (ASKPASS_PIPE, path.into()),
        (ASKPASS_ORIGIN, order.url.origin().into()),
    ]
}

/// The answer to git's question, from the environment that [`super::clone`] made; `None` where there is none, and git fails.
pub fn askpass(question: &str, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let origin = variable(ASKPASS_ORIGIN)?;
    let (scheme, authority) = origin.split_once("://")?;
    if question.trim_end() == format!("Username for '{origin}':") {
        return Some(USER.to_owned());
    }
    if question.trim_end() != format!("Password for '{scheme}://{USER}@{authority}':") {
        return None;
    }
    // Does not wait for a writer: there is none any more.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let pipe = rustix::fs::open(variable(ASKPASS_PIPE)?, flags, Mode::empty()).ok()?;
    let mut token = String::new();
    File::from(pipe).take(Secret::MAX_BYTES as u64).read_to_string(&mut token).ok()?;
    Some(token).filter(|token| !token.is_empty())
}
