//! The `deploy` thread: one build at a time, from its repository to its image.
//!
//! The engine's answer is read on a thread of its own (`build`), the files are packed on another (`context`), so that this one notices
//! in time when the build is not wanted any more, takes too long, or takes what the host needs.

use std::fs;
use std::io::{self, ErrorKind, PipeReader, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, after, bounded, select, tick};

use super::context::Context;
use super::recipe::{self, Images, Recipe};
use super::voice::Voice;
use super::{git, host_watch};
use crate::docker::{BuildError, BuildSpec, Docker, Finished};
use crate::domain::{ImageRef, Project, Release, Source, Step};
use crate::runtime::{Build, BuildFailure, Built, Runtime, Told};
use crate::store::Logs;
use crate::threads::{Thread, spawn, spawn_vital};
use crate::{limits, threads};

/// What the thread works with.
pub struct Settings {
    /// The engine that builds.
    pub docker: Docker,
    /// Where the supervisor hears how it goes.
    pub runtime: Runtime,
    /// Where everything that is said is kept.
    pub logs: Logs,
    /// Where repositories are fetched to, for as long as they are built.
    pub data_dir: PathBuf,
    /// Names this installation's images.
    pub instance: String,
    /// This program, which git asks for a repository's token.
    pub askpass: PathBuf,
    /// Whether a repository may be on this machine or its network.
    pub allow_private_hosts: bool,
    /// How long a repository may take to be fetched.
    pub clone_timeout: Duration,
    /// How long an image may take to be built.
    pub build_timeout: Duration,
    /// Memory of a build, in bytes.
    pub memory_bytes: u64,
    /// CPUs of a build.
    pub cpus: f64,
    /// Size of what is handed to the engine, in bytes.
    pub context_bytes_max: u64,
    /// What recipes start from.
    pub images: Images,
}

/// Starts the thread. It ends when nobody can send it anything any more; should it die, `died` is told.
///
/// # Errors
/// When the system refuses a thread.
pub fn start(settings: Settings, builds: Receiver<Build>, died: Sender<String>) -> io::Result<Thread> {
    spawn_vital("deploy", limits::STACK_DEFAULT, died, move || {
        while let Some(build) = settings.next(&builds) {
            settings.take(&build);
        }
    })
}

const CHECKOUTS: &str = "checkouts";
const CANCELLED: &str = "It was cancelled";

/// Why there is no image, and what it left.
type Failed = BuildFailure;

fn failed(reason: impl Into<String>) -> Failed {
    BuildFailure { reason: reason.into(), residue: Vec::new() }
}

impl Settings {
    /// Waits for the next build, while no repository's files are left of an earlier one. A git that outlived a kill of muelle can still be
    /// writing such: they are removed behind it.
    fn next(&self, builds: &Receiver<Build>) -> Option<Build> {
        loop {
            match fs::remove_dir_all(self.data_dir.join(CHECKOUTS)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    log::warn!("a repository's files cannot be removed, which is tried again: {error}");
                }
                _ => return builds.recv().ok(),
            }
            match builds.recv_timeout(limits::CHECKOUT_AGAIN) {
                Err(RecvTimeoutError::Timeout) => {}
                next => return next.ok(),
            }
        }
    }

    /// Sees a deployment through, and tells how it ended, whatever happens.
    fn take(&self, build: &Build) {
        let (project, number) = (&build.project, build.deployment.number);
        let log = self.logs.append(project.id, number);
        let log = log
            .inspect_err(|error| log::warn!("the log of deployment {number} of {}: {error}", project.id))
            .ok();
        let mut voice = Voice::new(Box::new(self.runtime.teller(project.id, number)), log);
        let work = std::panic::AssertUnwindSafe(|| self.work(build, &mut voice));
        let result = std::panic::catch_unwind(work).unwrap_or_else(|panic| {
            log::error!(
                "deployment {number} of {} panicked: {}",
                project.id,
                threads::panic_text(panic.as_ref())
            );
            Err(failed("An internal error; the log of muelle says more"))
        });
        voice.end(Told::Ended(result));
    }

    fn work(&self, build: &Build, voice: &mut Voice) -> Result<Built, Failed> {
        let (project, number) = (&*build.project, build.deployment.number);
        let Source::Git(url) = &project.source else { return Err(failed("There is no repository")) };
        self.check_disks(build, voice)?;
        let folder = self.data_dir.join(CHECKOUTS);
        // A private repository's files are nobody else's while they are here.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| failed(format!("There is no room for the repository's files: {error}")))?;
        let checkout = folder.join(format!("{}-{number}", project.id));
        let branch = project.settings.branch.as_ref();
        let what = branch.map_or(String::new(), |branch| format!(", branch {}", branch.as_str()));
        voice.say(Step::Clone, PERCENT_CLONE, &format!("Fetching {}{what}", url.as_str()));
        let order = git::Order {
            url,
            branch,
            token: project.settings.git_token.as_ref(),
            into: &checkout,
            askpass: &self.askpass,
            allow_private_hosts: self.allow_private_hosts,
            limit: self.clone_timeout,
            stop: &build.stop,
        };
        let cloned =
            git::clone(&order, &mut |line| voice.line(line)).map_err(|error| failed(error.to_string()))?;
        let short = cloned.commit.get(..12).unwrap_or_default();
        voice.say(Step::Clone, PERCENT_CLONED, format!("Commit {short} {}", cloned.subject).trim_end());
        voice.tell(Told::Commit(cloned.commit));
        voice.say(Step::Build, PERCENT_BUILD.0, "Looking for how to build it");
        let env: Vec<_> = project.settings.env.keys().cloned().collect();
        let chosen = project.template_chosen.then_some(project.template);
        let recipe = recipe::find(&checkout, chosen, &self.images, &env)
            .map_err(|refusal| failed(format!("It cannot be built: {refusal}")))?;
        voice.say(Step::Build, PERCENT_BUILD.0, &recipe.sentence);
        if let Some(template) = recipe.template {
            voice.tell(Told::Template(template));
        }
        self.build(build, Files { checkout, recipe, time: cloned.time }, voice)
    }

    /// Where the engine keeps its images. One that goes away before it has anything of this build is waited for, as what is queued waits.
    fn await_engine(&self, build: &Build, voice: &mut Voice) -> Result<PathBuf, Failed> {
        let mut told = false;
        loop {
            match self.docker.root_dir() {
                Err(error) if error.is_unavailable() => {
                    if !std::mem::replace(&mut told, true) {
                        voice.line(&format!("Waiting for Docker: {error}"));
                    }
                }
                found => return found.map_err(|error| failed(error.to_string())),
            }
            pause(build)?;
        }
    }

    /// A deploy that could fill a disk does not begin.
    fn check_disks(&self, build: &Build, voice: &mut Voice) -> Result<(), Failed> {
        let root = self.await_engine(build, voice)?;
        for (what, path) in [("Docker's disk", &root), ("the disk of muelle's data", &self.data_dir)] {
            if let Some(free) = host_watch::too_little_free(path) {
                let mib = free >> 20;
                log::warn!("a deployment is refused: {mib} MiB are free at {}", path.display());
                return Err(failed(format!("Only {mib} MiB are free on {what}: make room first")));
            }
        }
        Ok(())
    }

    fn build(&self, build: &Build, files: Files, voice: &mut Voice) -> Result<Built, Failed> {
        let (project, number) = (&*build.project, build.deployment.number);
        let tag = format!("muelle-{}/{}:{number}", self.instance, project.id);
        let tag = ImageRef::parse(&tag).map_err(|error| failed(error.to_string()))?;
        let spec = self.spec(project, number, tag.clone(), &files.recipe);
        let port = files.recipe.port;
        let files = Arc::new(files);
        let mut attempt = self.attempt(build, &spec, &files, voice)?;
        if attempt.is_unheard() {
            pause(build)?;
            attempt = self.attempt(build, &spec, &files, voice)?;
        }
        let Attempt { finished, cut, .. } = attempt;
        let residue = finished.residue;
        let result = cut.map_or(finished.result.map_err(|error| error.to_string()), Err);
        result.map_err(|reason| BuildFailure { reason, residue: residue.clone() })?;
        let (port, port_known) = match port {
            Some(port) => (port, true),
            None => self.exposed(&tag)?,
        };
        Ok(Built { release: Release { number, image: tag, port, port_known }, residue })
    }

    /// Has the engine build once.
    fn attempt(
        &self,
        build: &Build,
        spec: &BuildSpec,
        files: &Arc<Files>,
        voice: &mut Voice,
    ) -> Result<Attempt, Failed> {
        let root = self.await_engine(build, voice)?;
        let pipe = pack(Arc::clone(files), self.context_bytes_max, voice)?;
        let (prepared, aborter) = self.docker.build(spec);
        let (out, said) = bounded(limits::BUILD_LINES_QUEUE);
        let (done, ended) = bounded(1);
        let reader = spawn("build", limits::STACK_DEFAULT, move || {
            let finished = prepared.run(pipe, &mut |line| drop(out.send(line.to_owned())));
            drop(done.send(finished));
        });
        let _reader = reader.map_err(|error| failed(format!("no thread for the build: {error}")))?;
        let mut heard = false;
        let mut watch = Watch::new(self, build, root);
        let cut = loop {
            match watch.next(&said, voice) {
                Seen::Line(line) => {
                    heard = true;
                    voice.build_line(&line);
                }
                Seen::Ended => break None,
                Seen::Wrong(reason) => {
                    aborter.abort();
                    // The thread may be waiting for room.
                    for _ in &said {}
                    break Some(reason);
                }
                Seen::Nothing => {}
            }
        };
        let finished = ended.recv().map_err(|_| failed("An internal error; the log of muelle says more"))?;
        Ok(Attempt { finished, cut, heard })
    }

    fn spec(&self, project: &Project, number: u32, tag: ImageRef, recipe: &Recipe) -> BuildSpec {
        let env = &project.settings.env;
        BuildSpec {
            tag,
            instance: self.instance.clone(),
            project: project.id,
            deployment: number,
            dockerfile: recipe.dockerfile.to_owned(),
            args: recipe
                .args
                .iter()
                .filter_map(|name| Some((name.clone(), env.get(name)?.clone())))
                .collect(),
            memory_bytes: self.memory_bytes,
            cpus: self.cpus,
        }
    }

    /// The port that an image names, if it is one; else a guess, which the app is told by `PORT`.
    fn exposed(&self, image: &ImageRef) -> Result<(u16, bool), Failed> {
        let image = self.docker.image(image).map_err(|error| failed(error.to_string()))?;
        Ok(if let [port] = image.exposed_ports[..] { (port, true) } else { (recipe::PORT, false) })
    }
}

/// How a build went.
struct Attempt {
    finished: Finished,
    /// Why it was ended from here.
    cut: Option<String>,
    /// The engine said something.
    heard: bool,
}

impl Attempt {
    /// The engine went away before it had anything of it.
    fn is_unheard(&self) -> bool {
        let away = matches!(&self.finished.result, Err(BuildError::Engine(error)) if error.is_unavailable());
        away && !self.heard && self.cut.is_none()
    }
}

/// Waits a moment for an engine that is going away or coming back.
fn pause(build: &Build) -> Result<(), Failed> {
    match build.stop.recv_timeout(limits::ENGINE_RETRY) {
        Err(RecvTimeoutError::Timeout) => Ok(()),
        _ => Err(failed(CANCELLED)),
    }
}

/// What a build waits for, and what ends it.
struct Watch<'a> {
    settings: &'a Settings,
    stop: &'a Receiver<()>,
    deadline: Receiver<Instant>,
    ticks: Receiver<Instant>,
    root: PathBuf,
    threads: Option<u64>,
    /// Bytes and lines so far.
    said: (u64, u64),
}

enum Seen {
    Line(String),
    Ended,
    Wrong(String),
    Nothing,
}

impl<'a> Watch<'a> {
    fn new(settings: &'a Settings, build: &'a Build, root: PathBuf) -> Watch<'a> {
        Watch {
            settings,
            stop: &build.stop,
            deadline: after(settings.build_timeout),
            ticks: tick(limits::BUILD_LOOK_EVERY),
            root,
            threads: crate::host::thread_count(),
            said: (0, 0),
        }
    }

    /// Waits for the next thing that matters.
    fn next(&mut self, said: &Receiver<String>, voice: &mut Voice) -> Seen {
        let pending = voice.due().map_or_else(crossbeam_channel::never, crossbeam_channel::at);
        select! {
            recv(self.stop) -> _ => Seen::Wrong(CANCELLED.to_owned()),
            recv(self.deadline) -> _ => {
                let limit = humantime::format_duration(self.settings.build_timeout);
                Seen::Wrong(format!("The build took longer than {limit}"))
            }
            recv(self.ticks) -> _ => self.look().map_or(Seen::Nothing, Seen::Wrong),
            recv(pending) -> _ => {
                voice.flush();
                Seen::Nothing
            }
            recv(said) -> line => match line {
                Ok(line) => self.hear(line),
                Err(_) => Seen::Ended,
            },
        }
    }

    /// Counts what the build prints. A line of one letter costs as much work as any other.
    fn hear(&mut self, line: String) -> Seen {
        self.said = (self.said.0 + line.len() as u64, self.said.1 + 1);
        let (mib, lines) = (limits::BUILD_OUTPUT_BYTES_MAX >> 20, limits::BUILD_OUTPUT_LINES_MAX);
        if self.said.0 > limits::BUILD_OUTPUT_BYTES_MAX {
            Seen::Wrong(format!("The build printed more than {mib} MiB"))
        } else if self.said.1 > lines {
            Seen::Wrong(format!("The build printed more than {lines} lines"))
        } else {
            Seen::Line(line)
        }
    }

    /// What the build does to the host.
    fn look(&self) -> Option<String> {
        let paths = [&self.root, &self.settings.data_dir];
        if paths.into_iter().any(|path| host_watch::nearly_full(path)) {
            return Some("The disk was nearly full, so that the build was ended".to_owned());
        }
        let more = crate::host::thread_count()?.saturating_sub(self.threads?);
        (more > limits::BUILD_THREADS_MAX).then(|| {
            format!(
                "The host had {more} processes and threads more than before the build, so that it was ended"
            )
        })
    }
}

/// What is built.
struct Files {
    checkout: PathBuf,
    recipe: Recipe,
    /// The commit's, in seconds since 1970. Web servers tell by a file's time and size whether a browser has it already.
    time: u64,
}

/// The far end of the pipe that the tar comes through. An archive that could not be written to its end fails: it must not pass for one.
struct Tar {
    pipe: PipeReader,
    whole: Arc<AtomicBool>,
    // Joined when the pipe is closed.
    _packing: Thread,
}

impl Read for Tar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.pipe.read(buffer)?;
        if count == 0 && !buffer.is_empty() && !self.whole.load(Ordering::Acquire) {
            return Err(io::Error::other("the files of the repository could not be read"));
        }
        Ok(count)
    }
}

/// Finds what the build is given and packs it, as fast as it is read.
fn pack(files: Arc<Files>, bytes_max: u64, voice: &mut Voice) -> Result<Tar, Failed> {
    let (pipe, out) = io::pipe().map_err(|error| failed(error.to_string()))?;
    let whole = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&whole);
    let (found, finding) = bounded(1);
    let packing = spawn("context", limits::STACK_DEFAULT, move || {
        let context = Context::of(&files.checkout, &files.recipe, bytes_max);
        drop(found.send(context.as_ref().map(Context::sentence).map_err(ToString::to_string)));
        match context.map(|context| context.write(&out, files.time)) {
            Ok(Ok(())) => flag.store(true, Ordering::Release),
            Ok(Err(error)) => log::debug!("a context was not packed: {error}"),
            Err(_) => {}
        }
        drop(out);
    });
    let packing = packing.map_err(|error| failed(format!("no thread for the build's files: {error}")))?;
    let sentence = finding.recv().unwrap_or_else(|_| Err("the files cannot be read".to_owned()));
    let sentence = sentence.map_err(|refusal| failed(format!("It cannot be built: {refusal}")))?;
    voice.say(Step::Build, PERCENT_BUILD.0, &format!("Sending {sentence}"));
    Ok(Tar { pipe, whole, _packing: packing })
}

/// How far a deployment is, in percent of all of it, at its steps.
pub(super) const PERCENT_CLONE: u8 = 5;
pub(super) const PERCENT_CLONED: u8 = 15;
pub(super) const PERCENT_BUILD: (u8, u8) = (20, 85);
