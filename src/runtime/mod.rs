//! Who decides: the supervisor with its helpers, and what everybody else may see of it.
//!
//! `watcher` and `poller` bring what the engine says, `supervisor` alone changes a project's status, `ops` carries its decisions out,
//! `hub` and `snapshot` show the result. One direction: message → [`crate::domain::lifecycle::step`] → effects → snapshot → frames.

mod container;
mod entry;
pub mod gate;
pub mod hub;
mod janitor;
pub mod ops;
pub mod poller;
mod probe;
mod releases;
mod sleep;
pub mod snapshot;
pub mod supervisor;
pub mod watcher;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

pub use container::Reach;
pub use gate::{Entrance, Gate, Pass, Place};
pub use hub::Hub;
pub use snapshot::{EngineState, Snapshot, View};

use crate::docker::{ContainerEvent, Engine, Inspected, Listed};
use crate::domain::lifecycle::{Op, Outcome};
use crate::domain::{
    Deployment, Level, Project, ProjectId, Release, Step, Subnet, Template, Traffic, UserId,
};
use crate::{limits, store};

/// What a person may ask of a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Bring it up.
    Start,
    /// Take it down.
    Stop,
    /// Down and up again.
    Restart,
    /// Remove it.
    Delete,
    /// Give up its deployment with this number.
    Cancel(u32),
}

/// Why a command or a change was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such project.
    NotFound,
    /// The engine does not answer.
    Engine,
    /// The intent could not be made durable.
    Store(store::Error),
    /// That deployment has ended, or there is none.
    NotUnderWay,
    /// Too much is waiting.
    Busy,
}

type Reply = Sender<Result<Arc<View>, Refused>>;

/// Names a version of a project: the number of its deployment, 0 where it has none.
type Slot = (ProjectId, u32);

/// A project that was recorded.
pub struct Recorded {
    /// The project: a new one, or another name or settings of a known one.
    pub project: Project,
    /// What its container looked like, where it was just adopted.
    pub seen: Option<Box<Inspected>>,
    /// The first deployment of a new one.
    pub first: Option<Deployment>,
}

/// A deployment that is to be built.
pub struct Build {
    /// Which.
    pub deployment: Deployment,
    /// Whose.
    pub project: Arc<Project>,
    /// Closed when it is not wanted any more.
    pub stop: Receiver<()>,
}

/// What is told of a deployment that is being built.
#[derive(Clone, Debug)]
pub enum Told {
    /// It came this far.
    Progress {
        /// The step.
        step: Step,
        /// Percent of the whole deployment.
        percent: u8,
        /// A line for people.
        message: String,
        /// How much it matters.
        level: Level,
    },
    /// The commit that it is of.
    Commit(String),
    /// The kind of app that it is.
    Template(Template),
    /// It was built, or was not, for the reason given.
    Ended(Result<Built, BuildFailure>),
}

/// What was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The version.
    pub release: Release,
    /// Images without a name that it left.
    pub residue: Vec<String>,
}

/// Why nothing was built.
#[derive(Clone, Debug)]
pub struct BuildFailure {
    /// A sentence for people.
    pub reason: String,
    /// Images without a name that it left.
    pub residue: Vec<String>,
}

/// Everything that can happen to the supervisor.
pub enum Message {
    /// A person asks for something.
    Command(ProjectId, Command, Reply),
    /// A project was recorded.
    Recorded(Box<Recorded>, Reply),
    /// A deployment was recorded that waits for its turn.
    Queued(Box<Deployment>, Reply),
    /// Something about the deployment with this number.
    Told(ProjectId, u32, Told),
    /// How far a deployment came is durable, or is not; with `true` its version is the project's now.
    DeploymentSaved(ProjectId, u32, bool, Result<(), store::Error>),
    /// Images and logs of a project that nobody keeps, with `true` all of them, are gone; or are not, and these only the sender knows.
    Cleaned(ProjectId, bool, Result<(), Vec<String>>),
    /// A change of a project's intent is durable, or is not.
    Saved(ProjectId, Result<(), store::Error>),
    /// A project's record is gone, or is not.
    Forgotten(ProjectId, Result<(), store::Error>),
    /// An operation ended, with what it saw.
    Ended(Slot, Op, Outcome, Option<Box<Inspected>>),
    /// The engine told of something.
    Happened(ContainerEvent),
    /// The event stream is open.
    StreamOpen(Engine),
    /// The event stream ended.
    StreamLost(String),
    /// The containers that there are, or why nobody knows.
    Listed(Result<Vec<Listed>, String>),
    /// Where containers have their addresses.
    Bridges(Vec<Subnet>),
    /// Somebody wants to use a project that is asleep, since then.
    Wake(ProjectId, Instant),
    /// An app began to answer, at the second moment, a request that came at the first and had to wait for it.
    Woken(ProjectId, Instant, Instant),
    /// What passed to these apps could not be added to their counters.
    NotCounted(Vec<(ProjectId, Traffic)>),
    /// New numbers.
    Sampled(Vec<poller::Sample>),
    /// Somebody wants to know whether the supervisor lives.
    Reach(Sender<()>),
    /// End.
    Stop,
}

/// The way to the supervisor for everybody who only asks and reads. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    inbox: Sender<Message>,
    shared: Arc<RwLock<Arc<Snapshot>>>,
    kick: poller::Kick,
    /// The stream clients.
    pub hub: Arc<Hub>,
    /// What the poller's rounds cost.
    pub polls: Arc<poller::Polls>,
}

impl Runtime {
    /// Messages that wait for the supervisor.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inbox.len()
    }

    /// Somebody listens now: the poller returns to its quick pace.
    pub fn wake_poller(&self) {
        self.kick.now();
    }

    /// Has the supervisor answer when it has taken in whatever came before; says whether its inbox had room.
    #[must_use]
    pub fn try_reach(&self, answer: Sender<()>) -> bool {
        self.inbox.try_send(Message::Reach(answer)).is_ok()
    }

    /// Has a project that is asleep woken for a request that came at `asked`. Where there is no room for that now, whoever waits asks again.
    pub fn wake(&self, id: ProjectId, asked: Instant) {
        drop(self.inbox.try_send(Message::Wake(id, asked)));
    }

    /// Tells that an app begins to answer a request that came at `asked` and had to wait for it. Lost where there is no room for it.
    pub fn woken(&self, id: ProjectId, asked: Instant) {
        drop(self.inbox.try_send(Message::Woken(id, asked, Instant::now())));
    }

    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shared.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks for something; the answer comes when the intent is durable, the work goes on behind it.
    ///
    /// # Errors
    /// See [`Refused`]; somebody else's project is [`Refused::NotFound`].
    ///
    /// # Blocks
    /// On one commit, at most [`limits::ANSWER_MAX`].
    pub fn command(&self, owner: UserId, id: ProjectId, command: Command) -> Result<Arc<View>, Refused> {
        if self.snapshot().project_of(owner, id).is_none() {
            return Err(Refused::NotFound);
        }
        self.ask(|reply| Message::Command(id, command, reply))
    }

    /// What the store is to call with a project that it has recorded, and where the supervisor's answer to that comes.
    pub fn recording(&self) -> (impl FnOnce(Recorded) + Send + 'static, Recording) {
        let (reply, answer) = bounded(1);
        let inbox = self.inbox.clone();
        // The supervisor always drains its inbox; closed means that the server stops.
        let committed = move |recorded| drop(inbox.send(Message::Recorded(Box::new(recorded), reply)));
        (committed, Recording(answer))
    }

    /// The same for a deployment.
    pub fn queueing(&self) -> (impl FnOnce(Deployment) + Send + 'static, Recording) {
        let (reply, answer) = bounded(1);
        let inbox = self.inbox.clone();
        let committed = move |deployment| drop(inbox.send(Message::Queued(Box::new(deployment), reply)));
        (committed, Recording(answer))
    }

    /// The way to tell of a deployment that is being built.
    pub fn teller(&self, id: ProjectId, number: u32) -> impl Fn(Told) + Send + use<> {
        let inbox = self.inbox.clone();
        move |told| drop(inbox.send(Message::Told(id, number, told)))
    }

    fn ask(&self, message: impl FnOnce(Reply) -> Message) -> Result<Arc<View>, Refused> {
        let (reply, answer) = bounded(1);
        self.inbox.try_send(message(reply)).map_err(|_| Refused::Busy)?;
        answer.recv_timeout(limits::ANSWER_MAX).unwrap_or(Err(Refused::Busy))
    }
}

/// The answer to a recorded change, on its way.
pub struct Recording(Receiver<Result<Arc<View>, Refused>>);

impl Recording {
    /// Waits for it.
    ///
    /// # Errors
    /// [`Refused::Busy`]: it is recorded, and shown a moment later.
    ///
    /// # Blocks
    /// Shortly, at most [`limits::ANSWER_MAX`].
    pub fn view(self) -> Result<Arc<View>, Refused> {
        self.0.recv_timeout(limits::ANSWER_MAX).unwrap_or(Err(Refused::Busy))
    }
}
