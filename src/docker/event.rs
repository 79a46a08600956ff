//! The engine's event stream, which makes the list prompt.
//!
//! Knows one line at a time; decides nothing and reconnects by itself never. Runs on `docker-watch`; an [`Aborter`] ends it
//! from another thread.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ureq::Agent;

use super::container::LABEL_PROJECT;
use super::error::broken_off;
use super::{ContainerId, Error, clean, wire};
use crate::domain::{ContainerName, ProjectId};
use crate::limits;

/// The names that the engine is asked for: no `exec_*`, which every health probe sends three of. `died` and `remove` are Podman's
/// words. With `health_status` among them, 20.10 compares by prefix.
pub(super) const NAMES: [&str; 13] = [
    "create",
    "start",
    "die",
    "died",
    "oom",
    "kill",
    "pause",
    "unpause",
    "stop",
    "destroy",
    "remove",
    "rename",
    "health_status",
];

/// Something that happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEvent {
    /// Whose.
    pub id: ContainerId,
    /// Its name, after a rename the new one.
    pub name: ContainerName,
    /// What happened.
    pub action: Action,
    /// The project in its label, where it has one.
    pub project_label: Option<ProjectId>,
    /// The engine's time, in nanoseconds since 1970.
    pub time_nanos: i64,
}

/// What happened to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It was made.
    Create,
    /// It was started.
    Start,
    /// Its process ended.
    Die {
        /// How; -1 where the engine does not say.
        exit_code: i64,
    },
    /// A process in it was killed for want of memory. A warning: under cgroup v2 the container may go on.
    Oom,
    /// It was sent a signal; before every stop. Podman sends none.
    Kill {
        /// Which; 0 where the engine does not say.
        signal: u32,
    },
    /// It was frozen. After a quick thaw 20.10 says this and `Unpause` a second time, a moment late.
    Pause,
    /// It was thawed; also in the middle of the stop of a paused one.
    Unpause,
    /// A stop is complete; after the `Die` in 20.10, at times before it in 28.5.
    Stop,
    /// It is gone.
    Destroy,
    /// It has another name.
    Rename,
    /// Its health check changed its verdict.
    Health,
    /// Anything else.
    Other,
}

/// An open event stream.
pub struct Events {
    lines: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
    aborted: Arc<AtomicBool>,
}

/// Ends a stream of the engine from another thread.
#[derive(Clone)]
pub struct Aborter {
    agent: Agent,
    aborted: Arc<AtomicBool>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl fmt::Debug for Aborter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aborter").finish_non_exhaustive()
    }
}

impl Aborter {
    /// The end of what `agent` reads, and whether it was asked for.
    pub(super) fn new(agent: Agent) -> (Aborter, Arc<AtomicBool>) {
        let aborted = Arc::new(AtomicBool::new(false));
        (Aborter { agent, aborted: Arc::clone(&aborted) }, aborted)
    }

    /// Makes the reader of the stream see its end, at once (0.2 ms, measured).
    pub fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
        self.agent.clone().shutdown();
    }
}

impl Events {
    pub(super) fn open(agent: Agent, body: impl Read + Send + 'static) -> (Events, Aborter) {
        let (aborter, was_aborted) = Aborter::new(agent);
        let lines = BufReader::new(Box::new(body) as Box<dyn Read + Send>);
        (Events { lines, line: Vec::new(), aborted: was_aborted }, aborter)
    }

    /// The next event; `None` when the stream ended or was aborted. After an error the stream is of no use.
    ///
    /// # Errors
    /// `Unavailable` when the connection broke, `Malformed` for a line that is no event or longer than
    /// [`limits::DOCKER_EVENT_LINE_BYTES_MAX`].
    ///
    /// # Blocks
    /// For ever: silence is normal. The list is the heartbeat.
    #[expect(clippy::should_implement_trait, reason = "an iterator would hide that it ends with an error")]
    pub fn next(&mut self) -> Result<Option<ContainerEvent>, Error> {
        loop {
            self.line.clear();
            let read =
                (&mut self.lines).take(limits::DOCKER_EVENT_LINE_BYTES_MAX).read_until(b'\n', &mut self.line);
            match read {
                _ if self.aborted.load(Ordering::Acquire) => return Ok(None),
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(e) => return Err(broken_off("event stream", &e)),
            }
            if self.line.last() != Some(&b'\n') {
                return Err(Error::Malformed("an event was cut off or is too long".to_owned()));
            }
            if let Some(event) = parse(&self.line)? {
                return Ok(Some(event));
            }
        }
    }
}

/// `None` for an empty line, and for an event of something that is not a container or has no usable name.
fn parse(line: &[u8]) -> Result<Option<ContainerEvent>, Error> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let event: wire::Event = serde_json::from_slice(line)
        .map_err(|e| Error::Malformed(format!("event: {}", clean(&e.to_string()))))?;
    if event.kind != "container" && !event.kind.is_empty() {
        return Ok(None);
    }
    let id = wire::container_id(&event.actor.id)?;
    let attribute = |name: &str| event.actor.attributes.get(name).map(String::as_str);
    let Some(name) = attribute("name").and_then(|name| ContainerName::parse(name).ok()) else {
        return Ok(None);
    };
    let action = match event.action.split(':').next().unwrap_or_default() {
        "create" => Action::Create,
        "start" => Action::Start,
        "die" | "died" => {
            Action::Die { exit_code: attribute("exitCode").and_then(|code| code.parse().ok()).unwrap_or(-1) }
        }
        "oom" => Action::Oom,
        "kill" => Action::Kill { signal: attribute("signal").and_then(|s| s.parse().ok()).unwrap_or(0) },
        "pause" => Action::Pause,
        "unpause" => Action::Unpause,
        "stop" => Action::Stop,
        "destroy" | "remove" => Action::Destroy,
        "rename" => Action::Rename,
        "health_status" => Action::Health,
        _ => Action::Other,
    };
    let project_label = attribute(LABEL_PROJECT).and_then(ProjectId::parse);
    let time_nanos =
        if event.time_nano == 0 { event.time.saturating_mul(1_000_000_000) } else { event.time_nano };
    Ok(Some(ContainerEvent { id, name, action, project_label, time_nanos }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(action: &str, attributes: &str) -> String {
        let id = "0a".repeat(32);
        format!(
            r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"{id}","Attributes":{{"name":"web"{attributes}}}}},
                "time":5,"timeNano":5000000001}}"#
        )
    }

    #[test]
    fn every_action_has_its_word() {
        for (word, attributes, action) in [
            ("create", "", Action::Create),
            ("start", "", Action::Start),
            ("die", r#","exitCode":"137""#, Action::Die { exit_code: 137 }),
            ("died", "", Action::Die { exit_code: -1 }),
            ("oom", "", Action::Oom),
            ("kill", r#","signal":"15""#, Action::Kill { signal: 15 }),
            ("pause", "", Action::Pause),
            ("unpause", "", Action::Unpause),
            ("stop", "", Action::Stop),
            ("destroy", "", Action::Destroy),
            ("remove", "", Action::Destroy),
            ("rename", "", Action::Rename),
            ("health_status: healthy", "", Action::Health),
            ("update", "", Action::Other),
        ] {
            let event = parse(line(word, attributes).as_bytes()).unwrap().unwrap();
            assert_eq!((event.action, event.time_nanos), (action, 5_000_000_001), "{word}");
        }
        let labelled = line("start", r#","muelle.project":"proj-0000002a""#);
        assert_eq!(parse(labelled.as_bytes()).unwrap().unwrap().project_label, Some(ProjectId(42)));
        let forged = line("start", r#","muelle.project":"../../etc""#);
        assert_eq!(parse(forged.as_bytes()).unwrap().unwrap().project_label, None);
    }

    #[test]
    fn case_84_garbage_is_an_error_and_other_things_are_passed_over() {
        for garbage in ["<html>", "{", r#"{"Type":"container","Action":"start"}"#, "[]", "7"] {
            assert!(matches!(parse(garbage.as_bytes()), Err(Error::Malformed(_))), "{garbage}");
        }
        for other in ["\r\n", "  ", r#"{"Type":"network","Action":"connect"}"#] {
            assert_eq!(parse(other.as_bytes()).unwrap(), None, "{other}");
        }
        let nameless = line("start", "").replace("web", "not/a name");
        assert_eq!(parse(nameless.as_bytes()).unwrap(), None);
    }
}
