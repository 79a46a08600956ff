//! Carries the supervisor's decisions out: one engine call or one probe each, on an `op-N` thread.
//!
//! Decides nothing and knows no status. Every operation that was taken reports exactly once.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::Sender;

use super::container::{self, Reach};
use super::janitor::Janitor;
use super::{Message, Slot, probe};
use crate::docker::{self, Docker, Inspected, Spec};
use crate::domain::lifecycle::{Op, Outcome, Real};
use crate::domain::{ImageRef, Project, ProjectId, Source};
use crate::limits;
use crate::store::{Logs, Store};
use crate::threads::{Full, Pool};

/// The operations, behind their threads.
pub(super) struct Ops {
    hand: Arc<Hand>,
    pool: Pool,
}

/// What carries an operation out.
struct Hand {
    docker: Docker,
    instance: String,
    reach: Option<Reach>,
    is_local: fn(IpAddr) -> bool,
    memory_mb_default: u32,
    cpus_default: Option<f64>,
    keep_images: usize,
    store: Arc<Store>,
    logs: Logs,
    /// muelle's network was seen in this engine's present life.
    network: AtomicBool,
    inbox: Sender<Message>,
}

/// What operations need.
pub struct Settings {
    /// The engine.
    pub docker: Docker,
    /// Names this installation's containers and network.
    pub instance: String,
    /// How containers are reached; `None` finds out.
    pub reach: Option<Reach>,
    /// Whether an address is one of this host's: how the network's reachability is found out.
    pub is_local: fn(IpAddr) -> bool,
    /// Memory limit of a container whose owner named none, in MiB.
    pub memory_mb_default: u32,
    /// CPU limit of a container whose owner named none; `None` for all.
    pub cpus_default: Option<f64>,
    /// Images of one project that are kept, the present one included.
    pub keep_images: usize,
    /// Knows the deployments.
    pub store: Arc<Store>,
    /// What they said.
    pub logs: Logs,
}

impl Ops {
    pub(super) fn new(settings: Settings, inbox: Sender<Message>) -> Ops {
        let pool = Pool::new("op", limits::OPS_THREADS, limits::OPS_QUEUE, limits::STACK_DEFAULT);
        let hand = Hand {
            docker: settings.docker,
            instance: settings.instance,
            reach: settings.reach,
            is_local: settings.is_local,
            memory_mb_default: settings.memory_mb_default,
            cpus_default: settings.cpus_default,
            keep_images: settings.keep_images,
            store: settings.store,
            logs: settings.logs,
            network: AtomicBool::new(false),
            inbox,
        };
        Ops { hand: Arc::new(hand), pool }
    }

    /// This installation's mark on its containers.
    pub(super) fn instance(&self) -> &str {
        &self.hand.instance
    }

    /// The engine may be another one now.
    pub(super) fn forget_network(&self) {
        self.hand.network.store(false, Ordering::Release);
    }

    /// Takes an operation; its end comes to the inbox.
    pub(super) fn submit(
        &self,
        project: &Arc<Project>,
        op: Op,
        at: Option<Arc<Inspected>>,
    ) -> Result<(), Full> {
        let (hand, project) = (Arc::clone(&self.hand), Arc::clone(project));
        self.pool.submit(move || {
            let slot = (project.id, project.release.as_ref().map_or(0, |release| release.number));
            let mut report = Report { inbox: hand.inbox.clone(), slot, op, outcome: None };
            let (outcome, seen) = hand.run(&project, op, at.as_deref());
            // Without the app's output.
            let shown = if op == Op::Logs { "…".to_owned() } else { format!("{outcome:?}") };
            log::debug!("{} {op:?}: {shown}", project.id);
            report.outcome = Some((outcome, seen));
        })
    }

    /// Removes what deployments of a project left and nobody keeps, with the version of that number; all of it where there is none. The end
    /// comes to the inbox.
    pub(super) fn clean(&self, id: ProjectId, keep: Option<u32>, strays: Vec<String>) -> Result<(), Full> {
        let hand = Arc::clone(&self.hand);
        self.pool.submit(move || {
            let mut report =
                Cleaning { inbox: hand.inbox.clone(), id, all: keep.is_none(), left: Err(strays) };
            let strays = report.left.as_ref().err().map_or(&[][..], Vec::as_slice);
            let cleaned = match keep {
                Some(current) => hand.janitor().tidy(id, current, hand.keep_images, strays),
                None => hand.janitor().erase(id, strays),
            };
            match cleaned {
                Ok(()) => report.left = Ok(()),
                Err(error) => {
                    log::warn!("images and logs of {id} that nobody keeps could not be removed: {error}");
                }
            }
        })
    }

    /// Adds a line to a deployment's log. A line that finds no thread is lost: the record says the same.
    pub(super) fn note(&self, id: ProjectId, number: u32, line: &str) {
        let (logs, line) = (self.hand.logs.clone(), line.to_owned());
        let noted = self.pool.submit(move || match logs.append(id, number) {
            Ok(mut log) => log.last_line(&line),
            Err(error) => log::warn!("the log of deployment {number} of {id} cannot be written: {error}"),
        });
        if noted.is_err() {
            log::warn!("a line of the log of deployment {number} of {id} is lost");
        }
    }
}

impl Hand {
    fn janitor(&self) -> Janitor<'_> {
        let until = Instant::now() + limits::JANITOR_MAX;
        Janitor {
            docker: &self.docker,
            store: &self.store,
            logs: &self.logs,
            instance: &self.instance,
            until,
        }
    }

    fn run(&self, project: &Project, op: Op, at: Option<&Inspected>) -> (Outcome, Option<Box<Inspected>>) {
        let name = project.container_name();
        let done = match op {
            Op::Look => return self.look(project),
            Op::Probe => {
                let address = at.and_then(|seen| container::probe_address(project, seen));
                let path = project.settings.health_path.as_ref();
                return (Outcome::Answered(address.is_some_and(|at| probe::answers_http(at, path))), None);
            }
            Op::Logs => {
                let log = self.docker.logs_tail(&name, limits::LAST_LINES);
                let text = |log: String| container::last_output(&log, limits::LAST_OUTPUT_CHARS);
                return (log.map_or_else(|error| outcome(&error), |log| Outcome::Output(text(log))), None);
            }
            Op::Create => self.create(project),
            Op::Start => match self.docker.start(&name) {
                // A container is bound to the network's id; one of the same name does not do.
                Err(error) if !project.is_adopted() && is_network_missing(&error) => {
                    self.network.store(false, Ordering::Release);
                    return (Outcome::Outdated(error.to_string()), None);
                }
                started => started,
            },
            Op::Pause => self.docker.pause(&name),
            Op::Unpause => self.docker.unpause(&name),
            Op::Stop => self.docker.stop(&name, limits::STOP_GRACE_S),
            Op::Remove => self.docker.remove(&name, true),
        };
        (done.map_or_else(|error| failure(&error), |()| Outcome::Done), None)
    }

    fn look(&self, project: &Project) -> (Outcome, Option<Box<Inspected>>) {
        let seen = match self.docker.inspect(&project.container_name()) {
            Ok(seen) => seen,
            Err(docker::Error::NotFound(_)) => return (Outcome::Seen(Real::Absent), None),
            Err(error) => return (outcome(&error), None),
        };
        let ours = seen.labels.get(docker::LABEL_INSTANCE) == Some(&self.instance)
            && seen.labels.project() == Some(project.id);
        if !project.is_adopted() && !ours {
            let name = project.container_name();
            let sentence = format!("A container called {} exists that muelle did not create", name.as_str());
            return (Outcome::Foreign(sentence), None);
        }
        let is_current = self.spec(project, None).is_none_or(|spec| {
            seen.labels.get(docker::LABEL_SPEC) == Some(&spec.fingerprint())
                && self.is_image_current(project, &seen)
        });
        (Outcome::Seen(container::reality(project, &seen, is_current)), Some(Box::new(seen)))
    }

    /// Whether a container that is to be started was made from what its image's name means now. An image that is gone is as good as the
    /// old one.
    fn is_image_current(&self, project: &Project, seen: &Inspected) -> bool {
        match &project.source {
            Source::Image(image) if seen.state != docker::State::Running => {
                // Compared as the engine resolves both: a container may name a part of what the image's id names.
                let id = |image: &ImageRef| self.docker.image(image).ok().map(|found| found.id);
                let made_from = ImageRef::parse(&seen.image_id).ok().and_then(|image| id(&image));
                let (Some(made_from), Some(named)) = (made_from, id(image)) else { return true };
                made_from == named
            }
            _ => true,
        }
    }

    /// What the project's container is created from; `None` for an adopted one. The way of publishing is no part of the fingerprint.
    fn spec(&self, project: &Project, publish: Option<u16>) -> Option<Spec> {
        let image = project.image()?;
        Some(Spec {
            name: project.container_name(),
            image: image.clone(),
            project: project.id,
            instance: self.instance.clone(),
            deployment: project.release.as_ref().map(|release| release.number),
            network: network_name(&self.instance),
            publish,
            port: project.port().map(|(port, _)| port),
            env: project.settings.env.clone(),
            memory_mb: project.settings.memory_mb.unwrap_or(self.memory_mb_default),
            cpus: project.settings.cpus.or(self.cpus_default),
        })
    }

    fn create(&self, project: &Project) -> Result<(), docker::Error> {
        let reach = self.ensure_network()?;
        let publish = match reach {
            Reach::Network => None,
            Reach::Published => self.port_to_publish(project)?,
        };
        let Some(spec) = self.spec(project, publish) else { return Ok(()) };
        match self.docker.create(&spec) {
            Err(docker::Error::NotFound(message)) if message.contains(&spec.network) => {
                self.network.store(false, Ordering::Release);
                self.ensure_network()?;
                self.docker.create(&spec).map(drop)
            }
            created => created.map(drop),
        }
    }

    fn port_to_publish(&self, project: &Project) -> Result<Option<u16>, docker::Error> {
        let Some(image) = project.image() else { return Ok(None) };
        if let Some((port, _)) = project.port() {
            return Ok(Some(port));
        }
        let exposed = self.docker.image(image)?.exposed_ports;
        Ok(if let [port] = exposed[..] { Some(port) } else { None })
    }

    fn ensure_network(&self) -> Result<Reach, docker::Error> {
        if let (true, Some(reach)) = (self.network.load(Ordering::Acquire), self.reach) {
            return Ok(reach);
        }
        let network = self.docker.ensure_network(&network_name(&self.instance), &self.instance)?;
        self.network.store(true, Ordering::Release);
        let found =
            if network.gateway.is_some_and(self.is_local) { Reach::Network } else { Reach::Published };
        Ok(self.reach.unwrap_or(found))
    }
}

/// The name of this installation's network.
#[must_use]
pub fn network_name(instance: &str) -> String {
    format!("muelle-{instance}")
}

/// Whether the engine says that a network is not there (`network 3f9c… not found`).
fn is_network_missing(error: &docker::Error) -> bool {
    let sentence = error.to_string();
    sentence.contains("network") && sentence.contains("not found")
}

fn outcome(error: &docker::Error) -> Outcome {
    if error.is_unavailable() { Outcome::Unavailable } else { Outcome::Refused(error.to_string()) }
}

/// The same for an operation on a container, which somebody may remove at any moment.
fn failure(error: &docker::Error) -> Outcome {
    match error {
        docker::Error::NotFound(message) if message.to_ascii_lowercase().contains("no such container") => {
            Outcome::Seen(Real::Absent)
        }
        docker::Error::Conflict(message) if message.contains("marked for removal") => Outcome::Unavailable,
        error => outcome(error),
    }
}

/// Reports when it is dropped, so that a clean-up that panics is reported too.
struct Cleaning {
    inbox: Sender<Message>,
    id: ProjectId,
    all: bool,
    left: Result<(), Vec<String>>,
}

impl Drop for Cleaning {
    fn drop(&mut self) {
        let left = std::mem::replace(&mut self.left, Ok(()));
        drop(self.inbox.send(Message::Cleaned(self.id, self.all, left)));
    }
}

/// Reports when it is dropped, so that an operation that panics is reported too.
struct Report {
    inbox: Sender<Message>,
    slot: Slot,
    op: Op,
    outcome: Option<(Outcome, Option<Box<Inspected>>)>,
}

impl Drop for Report {
    fn drop(&mut self) {
        let internal = || (Outcome::Refused("An internal error; the log says more".to_owned()), None);
        let (outcome, seen) = self.outcome.take().unwrap_or_else(internal);
        // An error means that the supervisor has ended, and with it the interest.
        drop(self.inbox.send(Message::Ended(self.slot, self.op, outcome, seen)));
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn case_156_an_operation_that_panics_is_reported_as_refused_once() {
        let (inbox, messages) = crossbeam_channel::bounded(4);
        let slot = (ProjectId(1), 0);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _report = Report { inbox, slot, op: Op::Start, outcome: None };
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        let told: Vec<Message> = messages.iter().collect();
        assert!(
            matches!(&told[..], [Message::Ended(_, Op::Start, Outcome::Refused(sentence), None)] if !sentence.is_empty())
        );
    }
}
