//! What is told to the owner of a project while it happens.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Level, Metrics, ProjectId, ProjectName, Status, Step, UserId};

/// Something that happened to a project.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The project has this status now.
    Status {
        /// Whose status.
        project: ProjectId,
        /// Its name, for the sentence that dashboards show.
        name: ProjectName,
        /// The status.
        status: Status,
        /// Why, where there is something to say.
        reason: Option<Arc<str>>,
        /// False in a snapshot: nothing happened, it is only told.
        notify: bool,
        /// When.
        at: SystemTime,
    },
    /// A deployment of the project goes on.
    Progress {
        /// Whose.
        project: ProjectId,
        /// How far it is.
        step: Step,
        /// The same in percent, of the whole deployment.
        percent: u8,
        /// A line for people.
        message: Arc<str>,
        /// How much it matters.
        level: Level,
        /// When.
        at: SystemTime,
    },
    /// The project is about to be put to sleep.
    AutoShutdown {
        /// Which.
        project: ProjectId,
        /// Its name.
        name: ProjectName,
        /// For how long nobody has used it, at least.
        idle: Duration,
        /// When.
        at: SystemTime,
    },
    /// New numbers of a running project.
    Metrics {
        /// Whose numbers.
        project: ProjectId,
        /// The numbers.
        metrics: Metrics,
    },
}

/// An event and who may hear of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Addressed {
    /// The owner of the project.
    pub owner: UserId,
    /// What happened.
    pub event: Event,
}
