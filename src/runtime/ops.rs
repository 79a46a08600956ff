//! Carries the supervisor's decisions out: one engine call or one probe each, on an `op-N` thread.
//!
//! Decides nothing and knows no status. Every operation that was taken reports exactly once.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;

use super::container::{self, Reach};
use super::{Message, probe};
use crate::docker::{self, Docker, Inspected, Spec};
use crate::domain::lifecycle::{Op, Outcome, Real};
use crate::domain::{ImageRef, Project, Source};
use crate::limits;
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
}

impl Ops {
    pub(super) fn new(settings: Settings, inbox: Sender<Message>) -> Ops {
        let Settings { docker, instance, reach, is_local, memory_mb_default, cpus_default } = settings;
        let pool = Pool::new("op", limits::OPS_THREADS, limits::OPS_QUEUE, limits::STACK_DEFAULT);
        let network = AtomicBool::new(false);
        Ops {
            hand: Arc::new(Hand {
                docker,
                instance,
                reach,
                is_local,
                memory_mb_default,
                cpus_default,
                network,
                inbox,
            }),
            pool,
        }
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
            let mut report = Report { inbox: hand.inbox.clone(), project: project.id, op, outcome: None };
            let (outcome, seen) = hand.run(&project, op, at.as_deref());
            // Without the app's output.
            let shown = if op == Op::Logs { "…".to_owned() } else { format!("{outcome:?}") };
            log::debug!("{} {op:?}: {shown}", project.id);
            report.outcome = Some((outcome, seen));
        })
    }
}

impl Hand {
    fn run(&self, project: &Project, op: Op, at: Option<&Inspected>) -> (Outcome, Option<Box<Inspected>>) {
        let name = project.container_name();
        let done = match op {
            Op::Look => return self.look(project),
            Op::Probe => {
                let address = at.and_then(|seen| container::probe_address(project, seen));
                return (Outcome::Answered(address.is_some_and(probe::answers_http)), None);
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
            Op::Unpause => self.docker.unpause(&name),
            Op::Stop => self.docker.stop(&name, limits::STOP_GRACE_S),
            Op::Remove => self.docker.remove(&name, true),
        };
        (done.map_or_else(|error| outcome(&error), |()| Outcome::Done), None)
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
        let Source::Image(image) = &project.source else { return None };
        Some(Spec {
            name: project.container_name(),
            image: image.clone(),
            project: project.id,
            instance: self.instance.clone(),
            deployment: None,
            network: network_name(&self.instance),
            publish,
            port: project.settings.port,
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
        let Source::Image(image) = &project.source else { return Ok(None) };
        if project.settings.port.is_some() {
            return Ok(project.settings.port);
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

/// Reports when it is dropped, so that an operation that panics is reported too.
struct Report {
    inbox: Sender<Message>,
    project: crate::domain::ProjectId,
    op: Op,
    outcome: Option<(Outcome, Option<Box<Inspected>>)>,
}

impl Drop for Report {
    fn drop(&mut self) {
        let internal = || (Outcome::Refused("An internal error; the log says more".to_owned()), None);
        let (outcome, seen) = self.outcome.take().unwrap_or_else(internal);
        // An error means that the supervisor has ended, and with it the interest.
        drop(self.inbox.send(Message::Ended(self.project, self.op, outcome, seen)));
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn case_156_an_operation_that_panics_is_reported_as_refused_once() {
        let (inbox, messages) = crossbeam_channel::bounded(4);
        let project = crate::domain::ProjectId::parse("proj-00000001").unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _report = Report { inbox, project, op: Op::Start, outcome: None };
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        let told: Vec<Message> = messages.iter().collect();
        assert!(
            matches!(&told[..], [Message::Ended(_, Op::Start, Outcome::Refused(sentence), None)] if !sentence.is_empty())
        );
    }
}
