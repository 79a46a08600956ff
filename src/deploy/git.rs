//! Fetches a repository's files with the program `git`: the only place that starts a program.
//!
//! Knows how `git` is called so that neither the repository nor its server can make it run anything, read anything of this host or
//! reach where it should not; how it is ended; and what its complaints mean. Runs on the caller's thread, with one (`git-read`) that
//! reads the pipe and, where private hosts are not allowed, one (`resolve`) that asks for the host's addresses.

mod askpass;
mod output;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvError, after, bounded, select};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions};

use crate::domain::{Branch, RepoUrl, Secret, is_public};
use crate::threads::{Thread, closed_within, is_closed};
use crate::{limits, threads};

pub use askpass::{ASKPASS_PIPE, askpass};
use output::{Line, Said, clean, read_lines};

/// What is to be fetched, and under which conditions.
pub struct Order<'a> {
    /// From where.
    pub url: &'a RepoUrl,
    /// Which branch; the repository's own choice otherwise.
    pub branch: Option<&'a Branch>,
    /// What a private repository's server is told as the password.
    pub token: Option<&'a Secret>,
    /// A folder that does not exist yet, in one that does.
    pub into: &'a Path,
    /// This program (`/proc/PID/exe` stays right when its file is replaced): git starts it to ask for the token.
    pub askpass: &'a Path,
    /// Whether hosts may be reached that the internet does not reach.
    pub allow_private_hosts: bool,
    /// How long all of it may take.
    pub limit: Duration,
    /// Once the other end is dropped, git is ended.
    pub stop: &'a Receiver<()>,
}

/// What was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloned {
    /// The commit's id, 40 or 64 hexadecimal digits.
    pub commit: String,
    /// The first line of its message, as it may be shown; empty where there is none.
    pub subject: String,
    /// When it was made, in seconds since 1970, by the clock of whoever made it; 0 where that is no number.
    pub time: u64,
}

/// Why there are no files. Each is a sentence for the project's owner; none has the token in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// As `stop` wanted.
    #[error("The clone was cancelled")]
    Cancelled,
    /// It took longer than this.
    #[error("The clone took longer than {} s", .0.as_secs())]
    Timeout(Duration),
    /// Too many files, or too much in them.
    #[error("The repository has {0}")]
    TooLarge(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Fetches one commit's files, without git's own folder and without submodules. A symbolic link becomes a file that holds its target.
/// `line` is told what git says, a line at a time, as it may be shown. When this returns, no process of it is left, and after an
/// error no file.
///
/// # Errors
/// As [`Error`] says.
///
/// # Blocks
/// Until it is done, and little longer than `limit`.
pub fn clone(order: &Order<'_>, line: &mut dyn FnMut(&str)) -> Result<Cloned, Error> {
    clone_over(&INTERNET, order, line)
}

/// How a name is resolved, and which addresses are fit for everybody.
struct Network {
    resolve: fn(&str, u16) -> io::Result<Vec<IpAddr>>,
    is_public: fn(IpAddr) -> bool,
}

static INTERNET: Network = Network {
    resolve: |host, port| Ok((host, port).to_socket_addrs()?.map(|address| address.ip()).collect()),
    is_public,
};

fn clone_over(network: &Network, order: &Order<'_>, line: &mut dyn FnMut(&str)) -> Result<Cloned, Error> {
    let task = Task::new(order)?;
    let cloned = task.fetch(network, line);
    if cloned.is_err() {
        // There may be nothing yet; what is left otherwise is in a folder that its maker removes as well.
        drop(fs::remove_dir_all(&task.into));
    }
    cloned
}

/// Which of git's two streams is read; the other goes nowhere.
#[derive(Clone, Copy)]
enum Listen {
    Output,
    Errors,
}

/// One order that is carried out.
struct Task<'a> {
    order: &'a Order<'a>,
    into: PathBuf,
    deadline: Instant,
}

impl<'a> Task<'a> {
    fn new(order: &'a Order<'a>) -> Result<Task<'a>, Error> {
        let into =
            std::path::absolute(order.into).map_err(|error| trouble("no folder to clone into", &error))?;
        if fs::symlink_metadata(&into).is_ok() {
            return Err(trouble("the folder is taken", &io::ErrorKind::AlreadyExists.into()));
        }
        Ok(Task { order, into, deadline: Instant::now() + order.limit })
    }

    fn fetch(&self, network: &Network, line: &mut dyn FnMut(&str)) -> Result<Cloned, Error> {
        let mut command = self.git();
        command.args(["-c", &format!("http.followRedirects={}", self.redirects())]);
        for pin in self.pins(network)? {
            command.args(["-c", &format!("http.curloptResolve={pin}")]);
        }
        command.args(["clone", "--progress", "--template=", "--depth=1", "--single-branch", "--no-tags"]);
        command.arg("--no-recurse-submodules");
        if let Some(branch) = self.order.branch {
            command.arg(format!("--branch={}", branch.as_str()));
        }
        command.arg("--").arg(self.order.url.as_str()).arg(&self.into);
        // Held open as long as git runs.
        let mut offered = None;
        if let Some(token) = self.order.token {
            let reader =
                askpass::offer(token).map_err(|error| trouble("no pipe for the git_token", &error))?;
            command.envs(askpass::environment(&reader, self.order));
            offered = Some(reader);
        }
        let mut said = Said::new(self.order, &self.into, line);
        let status = self.run(command, Listen::Errors, &mut |line| said.take(&line))?;
        drop(offered);
        if !status.success() {
            return Err(said.reason(status));
        }
        let cloned = self.head()?;
        fs::remove_dir_all(self.into.join(".git")).map_err(|error| trouble("git's folder stays", &error))?;
        self.look()?;
        Ok(cloned)
    }

    /// With the token, or where not everything may be reached, nobody is sent elsewhere. `initial`: a repository that was renamed is
    /// found.
    fn redirects(&self) -> &'static str {
        if self.order.token.is_none() && self.order.allow_private_hosts { "initial" } else { "false" }
    }

    /// git in an environment of its own, with every door closed that configuration can close.
    fn git(&self) -> Command {
        #[expect(clippy::disallowed_methods, reason = "the one place that starts a program")]
        let mut git = Command::new("git");
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let https_only = self.order.url.is_https();
        git.env_clear().envs(ENVIRONMENT).env("PATH", path);
        git.env("GIT_ALLOW_PROTOCOL", if https_only { "https" } else { "http:https" });
        git.current_dir("/").process_group(0);
        for setting in SETTINGS {
            git.args(["-c", setting]);
        }
        let stall = limits::GIT_STALL_MAX.as_secs();
        for (setting, number) in [
            ("http.lowSpeedTime", stall),
            ("core.bigFileThreshold", limits::GIT_BIG_FILE_BYTES),
            ("pack.threads", limits::GIT_THREADS.into()),
        ] {
            git.args(["-c", &format!("{setting}={number}")]);
        }
        git
    }

    /// What of the host is told to git so that it asks nobody itself: a name that is public now may be private when it is asked again.
    fn pins(&self, network: &Network) -> Result<Vec<String>, Error> {
        let (url, forbidden) = (self.order.url, "which deploy.allow_private_hosts = false forbids");
        if self.order.allow_private_hosts {
            return Ok(Vec::new());
        }
        if url.is_private_literal() {
            return fail(format!(
                "The host {} is this machine or a private network, {forbidden}",
                url.host()
            ));
        }
        if url.address().is_some() {
            return Ok(Vec::new());
        }
        self.knows_pins()?;
        let addresses = self.resolve(network)?;
        if !addresses.iter().all(|address| (network.is_public)(*address)) {
            return fail(format!("The host {} leads to a private address, {forbidden}", url.host()));
        }
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        // Programs differ in whether the last dot of a name is a part of it.
        let (name, port, addresses) = (url.host().trim_end_matches('.'), url.port(), addresses.join(","));
        Ok(vec![format!("{name}:{port}:{addresses}"), format!("{name}.:{port}:{addresses}")])
    }

    /// git knows the setting since 2.37, and an older one would take no notice of it.
    fn knows_pins(&self) -> Result<(), Error> {
        let mut said = String::new();
        let mut version = self.git();
        version.arg("version");
        self.run(version, Listen::Output, &mut |line| said.push_str(&clean(&line.bytes)))?;
        if is_2_37_or_newer(&said) {
            return Ok(());
        }
        fail(format!("deploy.allow_private_hosts = false needs git 2.37 or newer; this is {said}"))
    }

    /// Waits no longer than the rest of the time allows: the resolver has its own patience, and ends by itself.
    fn resolve(&self, network: &Network) -> Result<Vec<IpAddr>, Error> {
        let (tell, told) = bounded(1);
        let (resolve, host, port) =
            (network.resolve, self.order.url.host().to_owned(), self.order.url.port());
        threads::spawn("resolve", limits::STACK_DEFAULT, move || drop(tell.send(resolve(&host, port))))
            .map_err(|error| trouble("no thread to resolve the host", &error))?
            .detach();
        let host = self.order.url.host();
        loop {
            select! {
                recv(told) -> told => return match told {
                    Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
                    _ => fail(format!("The host {host} is not known")),
                },
                recv(self.order.stop) -> _ => {}
                recv(after(limits::GIT_TICK)) -> _ => {}
            }
            self.on_time()?;
        }
    }

    /// The commit that is checked out.
    fn head(&self) -> Result<Cloned, Error> {
        let mut command = self.git();
        command.env("GIT_DIR", self.into.join(".git")).args([
            "log",
            "--max-count=1",
            "--no-show-signature",
            "--format=%H%n%ct%n%s",
            "HEAD",
            "--",
        ]);
        let mut lines = Vec::new();
        let status = self.run(command, Listen::Output, &mut |line| {
            if lines.len() < 3 {
                lines.push(line.bytes);
            }
        })?;
        let mut lines = lines.into_iter();
        let commit = lines.next().unwrap_or_default();
        if !status.success() || ![40, 64].contains(&commit.len()) || !commit.iter().all(u8::is_ascii_hexdigit)
        {
            return fail("The repository is empty, or shows no branch by itself: name one".to_owned());
        }
        let time =
            lines.next().and_then(|time| String::from_utf8(time).ok()?.parse().ok()).unwrap_or_default();
        let subject = clean(&lines.next().unwrap_or_default());
        Ok(Cloned {
            commit: String::from_utf8_lossy(&commit).into_owned(),
            time,
            subject: subject.chars().take(limits::COMMIT_SUBJECT_CHARS_MAX).collect(),
        })
    }

    /// Runs git to its end; `take` gets its lines.
    fn run(
        &self,
        mut command: Command,
        listen: Listen,
        take: &mut dyn FnMut(Line),
    ) -> Result<ExitStatus, Error> {
        self.on_time()?;
        let began = |error: &io::Error| match error.kind() {
            io::ErrorKind::NotFound => Error::Failed("git is not installed on this server".to_owned()),
            _ => trouble("git does not start", error),
        };
        let (reader, writer) = io::pipe().map_err(|error| began(&error))?;
        let (output, errors) = match listen {
            Listen::Output => (Stdio::from(writer), Stdio::null()),
            Listen::Errors => (Stdio::null(), Stdio::from(writer)),
        };
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let group = Group { first: command.spawn().map_err(|error| began(&error))?, end: None };
        // With the command goes our own writing end.
        drop(command);
        let (send, lines) = bounded(limits::GIT_LINES_QUEUE);
        let reading = threads::spawn("git-read", limits::STACK_DEFAULT, move || read_lines(reader, &send))
            .map_err(|error| began(&error))?;
        let mut running = Running { group, lines, reading };
        running.group.bound();
        self.attend(&running, take)?;
        let status = running.group.end().map_err(|error| trouble("git's end is not known", &error))?;
        for line in &running.lines {
            take(line);
        }
        Ok(status)
    }

    /// Until it has ended, or must.
    fn attend(&self, running: &Running, take: &mut dyn FnMut(Line)) -> Result<(), Error> {
        let mut look_at = Instant::now() + limits::GIT_TICK;
        loop {
            select! {
                recv(running.lines) -> line => match line {
                    Ok(line) => take(line),
                    Err(RecvError) => break,
                },
                recv(self.order.stop) -> _ => self.on_time()?,
                recv(after(look_at.min(self.deadline).saturating_duration_since(Instant::now()))) -> _ => {}
            }
            if Instant::now() < look_at.min(self.deadline) {
                continue;
            }
            let began = Instant::now();
            self.look()?;
            if running.group.has_ended() {
                return Ok(());
            }
            look_at = Instant::now() + limits::GIT_TICK.max(began.elapsed() * limits::GIT_LOOK_SHARE);
        }
        while !running.group.has_ended() {
            // The answer is asked for below.
            let _ = closed_within(self.order.stop, limits::GIT_END_TICK);
            self.on_time()?;
        }
        Ok(())
    }

    fn on_time(&self) -> Result<(), Error> {
        if is_closed(self.order.stop) {
            return Err(Error::Cancelled);
        }
        if Instant::now() >= self.deadline {
            return Err(Error::Timeout(self.order.limit));
        }
        Ok(())
    }

    /// Whether it may go on: the time, and how much there is already. What vanishes meanwhile does not count.
    fn look(&self) -> Result<(), Error> {
        self.on_time()?;
        let (mut files, mut bytes, mut own_bytes) = (0, 0, 0);
        let own = self.into.join(".git");
        let mut folders = vec![self.into.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                // Of the entry itself: no link is followed.
                let Ok(found) = entry.metadata() else { continue };
                let path = entry.path();
                if folder.starts_with(&own) {
                    own_bytes += found.len();
                } else if path != own {
                    files += 1;
                    bytes += if found.is_file() { found.len() } else { 0 };
                }
                if found.is_dir() {
                    folders.push(path);
                }
                if files > limits::CHECKOUT_FILES_MAX {
                    return Err(Error::TooLarge(too_many()));
                }
                if bytes.max(own_bytes) > limits::CHECKOUT_BYTES_MAX {
                    return Err(Error::TooLarge(too_much()));
                }
            }
        }
        Ok(())
    }
}

/// Of what `git version` says.
fn is_2_37_or_newer(said: &str) -> bool {
    let numbers = said.trim_start_matches("git version ").split('.');
    let mut numbers = numbers.map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(2), Some(37))
}

fn too_many() -> String {
    let thousands = (limits::CHECKOUT_FILES_MAX / 1000, limits::CHECKOUT_FILES_MAX % 1000);
    format!("more than {},{:03} files", thousands.0, thousands.1)
}

fn too_much() -> String {
    format!("more than {} MiB of files", limits::CHECKOUT_BYTES_MAX / 1024 / 1024)
}

fn fail<T>(sentence: String) -> Result<T, Error> {
    Err(Error::Failed(sentence))
}

/// What the host refuses us.
fn trouble(what: &str, error: &io::Error) -> Error {
    Error::Failed(format!("The server cannot clone now ({what}: {error})"))
}

/// No user's or system's configuration, attributes, ignored files or passwords: no file has a path below `/dev/null`. Without a token
/// there is nobody to ask for a password, and git gives up at once.
const ENVIRONMENT: [(&str, &str); 9] = [
    ("HOME", "/dev/null"),
    ("LANG", "C"),
    ("LC_ALL", "C"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_LFS_SKIP_SMUDGE", "1"),
    ("GIT_CEILING_DIRECTORIES", "/"),
];

const SETTINGS: [&str; 11] = [
    "core.hooksPath=/dev/null",
    "core.symlinks=false",
    "core.fsmonitor=false",
    "submodule.recurse=false",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
    "init.defaultBranch=main",
    // One pack, whatever it has in it: not thousands of files.
    "fetch.unpackLimit=1",
    "http.lowSpeedLimit=1",
];

/// A git that runs. Dropping it ends it first; then its pipe is empty, and the thread that reads it ends.
struct Running {
    group: Group,
    lines: Receiver<Line>,
    #[expect(dead_code, reason = "joined when it is dropped")]
    reading: Thread,
}

/// A process and all that it started; they are killed when this is dropped.
struct Group {
    first: Child,
    end: Option<ExitStatus>,
}

impl Group {
    /// Limits its memory. git has started nothing yet: this comes right behind its own start.
    fn bound(&self) {
        let most = Some(limits::GIT_MEMORY_MAX);
        let bounds = Rlimit { current: most, maximum: most };
        if let Err(refused) = rustix::process::prlimit(Some(self.number()), Resource::As, bounds) {
            log::warn!("git runs without a limit of its memory: {refused}");
        }
    }

    fn number(&self) -> Pid {
        Pid::from_child(&self.first)
    }

    /// Whether the first of them has; it is not buried yet, so that its number names this group and nothing else.
    fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(rustix::process::waitid(WaitId::Pid(self.number()), look), Ok(None))
    }

    /// Kills what is left of the group, then buries the first.
    fn end(&mut self) -> io::Result<ExitStatus> {
        if let Some(end) = self.end {
            return Ok(end);
        }
        // Refused only if nobody is left.
        let _ = rustix::process::kill_process_group(self.number(), Signal::KILL);
        let end = self.first.wait()?;
        self.end = Some(end);
        Ok(end)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(self.end());
    }
}
