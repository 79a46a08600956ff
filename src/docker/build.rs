//! A build by the engine's own builder: a tar goes up, a log comes down, and an image is there or not.
//!
//! Knows what the builder writes, not what is built. Runs on the caller's thread, which its deadline ends through the [`Aborter`].
//! What a build prints is a stranger's: lines are bounded and cleaned, and nothing in them makes a build a success or names
//! an image that would not be in the way.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use serde_json::json;
use ureq::http::{Request, Response};
use ureq::{Agent, Body, SendBody};

use super::container::{LABEL_DEPLOYMENT, LABEL_INSTANCE, LABEL_PROJECT, is_hex};
use super::error::{accepted, broken_off, clean};
use super::{Aborter, Docker, Error, frames, parse, percent_encoded, unix, wire};
use crate::domain::{EnvName, ImageRef, ProjectId};
use crate::limits;

/// What to build.
#[derive(Clone, PartialEq)]
pub struct BuildSpec {
    /// The name that the image gets.
    pub tag: ImageRef,
    /// The muelle that it belongs to.
    pub instance: String,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// The deployment that makes it.
    pub deployment: u32,
    /// The Dockerfile's path inside the context.
    pub dockerfile: String,
    /// Build arguments; the ones that the Dockerfile does not ask for do not matter. All together have room in
    /// [`limits::DOCKER_BUILD_PATH_BYTES_MAX`] as the engine wants them, three bytes for each special character.
    pub args: BTreeMap<EnvName, String>,
    /// Memory of each step in bytes, swap included. 0 is no bound.
    pub memory_bytes: u64,
    /// CPUs of each step. 0 is no bound.
    pub cpus: f64,
}

/// Values of arguments are secrets.
impl fmt::Debug for BuildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildSpec")
            .field("tag", &self.tag)
            .field("project", &self.project)
            .field("deployment", &self.deployment)
            .finish_non_exhaustive()
    }
}

impl BuildSpec {
    /// Without a remote context, a network of the host's, added hosts, or a look for newer base images.
    fn path(&self) -> String {
        let labels = json!({
            LABEL_INSTANCE: self.instance,
            LABEL_PROJECT: self.project.to_string(),
            LABEL_DEPLOYMENT: self.deployment.to_string(),
        });
        let args: BTreeMap<&str, &String> =
            self.args.iter().map(|(name, value)| (name.as_str(), value)).collect();
        let query = [
            ("t", self.tag.as_str().to_owned()),
            ("dockerfile", self.dockerfile.clone()),
            ("labels", labels.to_string()),
            ("buildargs", json!(args).to_string()),
            ("rm", "1".to_owned()),
            ("forcerm", "1".to_owned()),
            ("memory", self.memory_bytes.to_string()),
            ("memswap", self.memory_bytes.to_string()),
            ("cpuperiod", CPU_PERIOD_US.to_string()),
            ("cpuquota", format!("{:.0}", self.cpus * f64::from(CPU_PERIOD_US))),
        ];
        let query = query.map(|(name, value)| format!("{name}={}", percent_encoded(&value)));
        "/build?".to_owned() + &query.join("&")
    }
}

/// The kernel's default.
const CPU_PERIOD_US: u32 = 100_000;

/// Why there is no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A step failed. The engine's sentence, cleaned and bounded.
    #[error("{0}")]
    Failed(String),
    /// The engine did not begin: no such Dockerfile, or one that it does not understand.
    #[error("{0}")]
    Refused(String),
    /// The context could not be read to its end.
    #[error("the files to build from cannot be read: {0}")]
    Context(String),
    /// It was aborted.
    #[error("the build was aborted")]
    Aborted,
    /// The engine is away or makes no sense.
    #[error(transparent)]
    Engine(#[from] Error),
}

/// How a build ended. One that was aborted may have an image with its name all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The id of the image, `sha256:…`.
    pub result: Result<String, BuildError>,
    /// What the build left behind beside that: the images of its other stages, and of its last step when it failed or was aborted. They
    /// are of use to the next build of the same files; [`Docker::remove_residue`] removes them.
    pub residue: Vec<String>,
}

/// A build that is about to begin.
pub struct Build {
    docker: Docker,
    agent: Agent,
    upload: unix::Upload,
    aborted: Arc<AtomicBool>,
    path: String,
}

impl Docker {
    /// Prepares a build, on a connection of its own. Does no I/O. The aborter ends it at any time from now on, also before and in the
    /// middle of the upload.
    #[must_use]
    pub fn build(&self, spec: &BuildSpec) -> (Build, Aborter) {
        let upload = unix::Upload::new(self.timeouts.stall);
        let agent = unix::uploader(&self.inner.socket, self.timeouts.connect, &upload);
        let (aborter, was_aborted) = Aborter::new(agent.clone());
        let path = self.versioned(&spec.path());
        (Build { docker: self.clone(), agent, upload, aborted: was_aborted, path }, aborter)
    }
}

impl Build {
    /// Sends `context`, a tar, and calls `line` with each line of the log: without its end, without terminal control, and at most
    /// [`limits::DOCKER_BUILD_LOG_LINE_BYTES_MAX`] long before that.
    ///
    /// # Blocks
    /// As long as the build takes, for ever if need be: a step may honestly be silent. Only an engine that does not take the context or
    /// does not begin is given up, after [`limits::DOCKER_BUILD_STALL_MAX`]. A `context` that blocks blocks this; so does `line`.
    pub fn run(self, context: impl Read + Send + 'static, line: &mut dyn FnMut(&str)) -> Finished {
        let mut transcript = Transcript::new(line);
        let result = self.send(context).and_then(|answer| transcript.read(answer.into_body().into_reader()));
        let result = if self.aborted.load(Ordering::Acquire) { Err(BuildError::Aborted) } else { result };
        transcript.finish(result)
    }

    fn send(&self, context: impl Read + Send + 'static) -> Result<Response<Body>, BuildError> {
        if self.path.len() > limits::DOCKER_BUILD_PATH_BYTES_MAX {
            return Err(BuildError::Refused("the build arguments are too long".to_owned()));
        }
        let failure = Arc::new(OnceLock::new());
        let context = Context { source: context, upload: self.upload.clone(), failure: Arc::clone(&failure) };
        let request = Request::post(format!("http://engine{}", self.path))
            .header("content-type", "application/x-tar")
            .body(SendBody::from_owned_reader(context))
            .map_err(|e| self.docker.broken(e.into()))?;
        let stall = Some(self.docker.timeouts.stall);
        let request = self.agent.configure_request(request).timeout_recv_response(stall).build();
        let answer = self.agent.run(request).map_err(|e| match failure.get() {
            Some(cause) => BuildError::Context(clean(cause)),
            None => self.docker.broken(e).into(),
        })?;
        accepted(answer).map_err(|e| match e {
            Error::NotFound(message) | Error::Conflict(message) | Error::Refused { message, .. } => {
                BuildError::Refused(message)
            }
            other => other.into(),
        })
    }
}

/// The context on its way: it ends where the engine takes no more.
struct Context<R> {
    source: R,
    upload: unix::Upload,
    failure: Arc<OnceLock<String>>,
}

impl<R: Read> Read for Context<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.upload.has_ended() {
            return Ok(0);
        }
        // Only the first failure is kept, and there is one only.
        self.source.read(buffer).inspect_err(|e| drop(self.failure.set(e.to_string())))
    }
}

/// What the builder writes: JSON lines, with the text of the log in pieces that are no lines.
///
/// A stage's id comes as an object of its own, which no step can forge by what it prints. The other ids are text like any other, and so
/// `residue` is a suggestion.
pub(super) struct Transcript<'a> {
    line: &'a mut dyn FnMut(&str),
    pending: String,
    /// The image, unless a step came after it: then it was another stage's.
    image: Option<String>,
    residue: Vec<String>,
    /// Whether the last step began a stage.
    after_from: bool,
    /// What this stage began with. Somebody else's, as far as we know.
    base: Option<String>,
    /// The last step's image in this stage.
    head: Option<String>,
}

impl<'a> Transcript<'a> {
    pub(super) fn new(line: &'a mut dyn FnMut(&str)) -> Transcript<'a> {
        Transcript {
            line,
            pending: String::new(),
            image: None,
            residue: Vec::new(),
            after_from: false,
            base: None,
            head: None,
        }
    }

    /// Reads an answer to its end, or to its error.
    pub(super) fn read(&mut self, answer: impl Read) -> Result<String, BuildError> {
        let mut source = BufReader::new(answer);
        let mut bytes = Vec::new();
        let broken = |e: io::Error| broken_off("build", &e);
        loop {
            bytes.clear();
            let limit = limits::DOCKER_BUILD_LINE_BYTES_MAX;
            let read = source.by_ref().take(limit).read_until(b'\n', &mut bytes).map_err(broken)?;
            if read == 0 {
                break;
            }
            if read as u64 == limit && !bytes.ends_with(b"\n") {
                source.skip_until(b'\n').map_err(broken)?;
                self.end_line();
                self.text("(a part of the log is too long to be shown)\n");
            } else if !bytes.trim_ascii().is_empty() {
                self.take(&parse(String::from_utf8_lossy(&bytes).as_bytes())?)?;
            }
        }
        let without = || BuildError::Failed("the engine ended the build without an image".to_owned());
        self.image.take().ok_or_else(without)
    }

    pub(super) fn finish(mut self, result: Result<String, BuildError>) -> Finished {
        self.end_line();
        if let Some(head) = self.head.take() {
            self.leave(head);
        }
        self.residue.retain(|id| result.as_ref() != Ok(id));
        Finished { result, residue: self.residue }
    }

    fn take(&mut self, said: &wire::BuildLine) -> Result<(), BuildError> {
        if !said.failure().is_empty() {
            return Err(BuildError::Failed(sentence(said.failure())));
        }
        if !said.aux.id.is_empty() {
            self.end_stage(wire::image_id(&said.aux.id)?);
        }
        if !said.stream.is_empty() {
            self.note(&said.stream);
            self.text(&said.stream);
        }
        if !said.status.is_empty() && !said.is_tick() {
            self.end_line();
            let of = if said.id.is_empty() { String::new() } else { format!("{}: ", said.id) };
            self.text(&format!("{of}{}\n", said.status));
        }
        Ok(())
    }

    fn end_stage(&mut self, id: String) {
        let digits = id.trim_start_matches("sha256:");
        if !self.base.as_ref().is_some_and(|base| digits.starts_with(base)) {
            self.leave(id.clone());
        }
        self.head = None;
        self.image = Some(id);
    }

    fn leave(&mut self, id: String) {
        if self.residue.len() < limits::DOCKER_BUILD_RESIDUE_MAX && !self.residue.contains(&id) {
            self.residue.push(id);
        }
    }

    /// `Step 1/3 : FROM base` and ` ---> 0123456789ab` each come in one piece.
    fn note(&mut self, text: &str) {
        if let Some(step) = text.strip_prefix("Step ") {
            let word =
                step.split_once(" : ").and_then(|(_, instruction)| instruction.split_whitespace().next());
            self.after_from = word.is_some_and(|word| word.eq_ignore_ascii_case("FROM"));
            self.image = None;
        } else if let Some(id) = text.strip_prefix(" ---> ") {
            let id = Some(id.trim_end()).filter(|id| id.len() == SHORT_ID && is_hex(id)).map(str::to_owned);
            if mem::take(&mut self.after_from) {
                // Nothing, from scratch.
                self.base = id;
            } else if id.is_some() {
                self.head = id;
            }
        }
    }

    fn text(&mut self, text: &str) {
        for piece in text.split_inclusive('\n') {
            self.pending.push_str(piece);
            while self.pending.len() > limits::DOCKER_BUILD_LOG_LINE_BYTES_MAX {
                let mut cut = limits::DOCKER_BUILD_LOG_LINE_BYTES_MAX;
                while !self.pending.is_char_boundary(cut) {
                    cut -= 1;
                }
                let rest = self.pending.split_off(cut);
                self.end_line();
                self.pending = rest;
            }
            if piece.ends_with('\n') {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let pending = mem::take(&mut self.pending);
        if !pending.is_empty() {
            let text = frames::safe_text(pending.trim_end_matches(['\r', '\n']));
            text.split('\n').for_each(|line| (self.line)(line));
        }
    }
}

/// Digits of an id in the builder's text.
const SHORT_ID: usize = 12;

/// The engine's message with its end: how a command ended is behind the command.
fn sentence(message: &str) -> String {
    let chars: Vec<char> = message.trim().chars().collect();
    let max = limits::DOCKER_MESSAGE_CHARS_MAX;
    if chars.len() <= max {
        return clean(message);
    }
    let (begin, end) = (&chars[..max / 2], &chars[chars.len() - max / 4..]);
    clean(&begin.iter().chain(&[' ', '…', ' ']).chain(end).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: &[u8]) -> (Finished, Vec<String>) {
        let mut lines = Vec::new();
        let mut keep = |line: &str| lines.push(line.to_owned());
        let mut transcript = Transcript::new(&mut keep);
        let result = transcript.read(answer);
        (transcript.finish(result), lines)
    }

    fn said(stream: &str) -> String {
        json!({ "stream": stream }).to_string() + "\r\n"
    }

    fn image(n: usize) -> String {
        format!("sha256:{n:012x}{:052x}", 0)
    }

    fn stage(n: usize) -> String {
        json!({ "aux": { "ID": image(n) } }).to_string() + "\r\n"
    }

    /// The beginning of [`image`] as the log has it.
    fn head(n: usize) -> String {
        said(&format!(" ---> {n:012x}\n"))
    }

    #[test]
    fn pieces_of_text_become_clean_lines_of_bounded_length() {
        let max = limits::DOCKER_BUILD_LOG_LINE_BYTES_MAX;
        let long = "é".repeat(max / 2 + 1);
        for (pieces, lines) in [
            (&["a", "b\n", "c"][..], &["ab", "c"][..]),
            (&["\u{1b}[91merr\n\u{1b}[0m", "next\r\n"], &["err", "next"]),
            (&["10%\r20%\n\n"], &["10%", "20%", ""]),
            (&["a\u{7}\u{0}b\tc\n"], &["a\u{fffd}\u{fffd}b\tc"]),
            (&[&long, "\n", "x\n"], &[&long[..max], "é", "x"]),
        ] {
            let answer: String = pieces.iter().map(|piece| said(piece)).collect();
            assert_eq!(read(answer.as_bytes()).1, lines, "{pieces:?}");
        }
        assert_eq!(read(b"{\"stream\":\"\xffok\"}").1, ["\u{fffd}ok"]);
    }

    #[test]
    fn a_pull_is_told_without_its_ticks() {
        let answer = concat!(
            r#"{"status":"Pulling from library/web","id":"1"}"#,
            "\n\n",
            r#"{"status":"Pulling fs layer","progressDetail":{},"id":"0a"}"#,
            "\n",
            r#"{"status":"Downloading","progressDetail":{"current":1,"total":9},"progress":"[>]","id":"0a"}"#,
            "\n",
            r#"{"status":"Downloading","progressDetail":{"current":2,"total":9},"id":"0a"}"#,
            "\n",
            r#"{"status":"Download complete","progressDetail":{},"id":"0a"}"#,
            "\n",
            r#"{"status":"Status: Downloaded newer image for web:1"}"#,
        );
        let told = [
            "1: Pulling from library/web",
            "0a: Pulling fs layer",
            "0a: Download complete",
            "Status: Downloaded newer image for web:1",
        ];
        assert_eq!(read(answer.as_bytes()).1, told);
    }

    #[test]
    fn only_an_image_after_the_last_step_is_a_success() {
        let first = said("Step 1/4 : FROM scratch AS a") + &said("\n") + &said(" ---> \n") + &stage(1);
        let second = said("Step 2/4 : FROM scratch") + &said(" ---> \n") + &head(2) + &stage(2);
        let tagged = said("Successfully tagged web:1\n");
        let (finished, _) = read((first.clone() + &second + &tagged).as_bytes());
        assert_eq!(finished, Finished { result: Ok(image(2)), residue: vec![image(1)] });

        let (finished, _) = read((first + &said("Step 2/4 : FROM scratch")).as_bytes());
        assert_eq!(finished.residue, [image(1)]);
        assert!(finished.result.unwrap_err().to_string().contains("without an image"));
        let (finished, _) = read((second + r#"{"error":"no room to tag"}"#).as_bytes());
        assert_eq!(finished.result, Err(BuildError::Failed("no room to tag".to_owned())));
        assert_eq!(finished.residue, [image(2)]);
        let forged = said(&format!("{{\"aux\":{{\"ID\":\"{}\"}}}}\n", image(3)));
        assert!(read(forged.as_bytes()).0.result.is_err());
    }

    #[test]
    fn what_a_stage_began_with_is_not_left_behind_and_its_last_step_is() {
        let from = |base: &str| said("Step 1/3 : from web:1") + &said("\n") + base;
        let failed = r#"{"errorDetail":{"code":7,"message":"no"}}"#;
        let residue = |answer: String| read((answer + failed).as_bytes()).0.residue;
        assert_eq!(residue(from("")), [""; 0]);
        assert_eq!(residue(from(&head(9))), [""; 0]);
        assert_eq!(residue(from(&head(9)) + &stage(9)), [""; 0], "a stage of nothing but its base");
        let cached = said(" ---> Using cache\n") + &head(1);
        let running = said(" ---> Running in 0123456789ab\n");
        assert_eq!(residue(from(&head(9)) + &cached + &head(2) + &running), [format!("{:012x}", 2)]);
        for odd in ["alpine", "0123456789ab/../x", "0123456789AB", "01234567"] {
            assert_eq!(residue(from(&head(9)) + &said(&format!(" ---> {odd}\n"))), [""; 0], "{odd}");
        }
        let many: String = (0..1000).map(stage).collect();
        assert_eq!(residue(many).len(), limits::DOCKER_BUILD_RESIDUE_MAX);
    }

    #[test]
    fn the_end_of_a_long_reason_is_kept() {
        let long = format!("The command '{}' returned a non-zero code: 7", "x\n".repeat(1000));
        let kept = sentence(&long);
        assert!(
            kept.starts_with("The command 'x x ") && kept.ends_with("' returned a non-zero code: 7"),
            "{kept}"
        );
        assert!(kept.chars().count() <= limits::DOCKER_MESSAGE_CHARS_MAX);
        assert_eq!(sentence(" short\n"), "short");
    }
}
