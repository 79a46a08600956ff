//! A deployment: one attempt to bring a version of a project up, and how far it came.

use std::sync::Arc;
use std::time::SystemTime;

use super::{ImageRef, ProjectId, Template};

/// Why there is a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The project was created.
    Created,
    /// A person asked for it.
    Asked,
    /// Somebody pushed to the repository.
    Pushed,
    /// Back to the version of the deployment with this number, as a person wanted.
    Rollback(u32),
    /// The same by itself, after the newer version crashed.
    Recovery(u32),
}

impl Cause {
    /// The deployment whose image is used again, where nothing is built.
    #[must_use]
    pub fn of(self) -> Option<u32> {
        match self {
            Cause::Rollback(number) | Cause::Recovery(number) => Some(number),
            Cause::Created | Cause::Asked | Cause::Pushed => None,
        }
    }
}

/// How far a deployment is, in the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// It waits for its turn.
    Queued,
    /// The repository is fetched.
    Clone,
    /// The image is built.
    Build,
    /// The new container starts and is asked for an answer.
    Start,
    /// It serves.
    Ready,
}

impl Step {
    /// Every step with its word.
    pub const WORDS: [(Step, &'static str); 5] = [
        (Step::Queued, "queued"),
        (Step::Clone, "clone"),
        (Step::Build, "build"),
        (Step::Start, "start"),
        (Step::Ready, "ready"),
    ];

    /// The step's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(step, _)| *step == self).map_or("queued", |(_, word)| word)
    }
}

/// What came of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on.
    Open,
    /// Its version is the project's.
    Ready,
    /// Something went wrong; a reason goes with it.
    Failed,
    /// A person ended it.
    Cancelled,
    /// A newer one took its place before it was done.
    Superseded,
    /// muelle ended before it was done.
    Interrupted,
}

impl Outcome {
    /// Every outcome with its word.
    pub const WORDS: [(Outcome, &'static str); 6] = [
        (Outcome::Open, "open"),
        (Outcome::Ready, "ready"),
        (Outcome::Failed, "failed"),
        (Outcome::Cancelled, "cancelled"),
        (Outcome::Superseded, "superseded"),
        (Outcome::Interrupted, "interrupted"),
    ];

    /// The outcome's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(outcome, _)| *outcome == self).map_or("open", |(_, word)| word)
    }
}

/// A version of a project: an image, and the port that an app from it listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The deployment that made it the project's.
    pub number: u32,
    /// Its image.
    pub image: ImageRef,
    /// The port inside the container, unless the settings name another.
    pub port: u16,
    /// Whether the app surely listens there; otherwise it is a guess.
    pub port_known: bool,
}

/// A deployment as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// Whose.
    pub project: ProjectId,
    /// Counts a project's deployments from 1.
    pub number: u32,
    /// Why.
    pub cause: Cause,
    /// How far it came.
    pub step: Step,
    /// What came of it.
    pub outcome: Outcome,
    /// Why, where there is something to say.
    pub reason: Option<Arc<str>>,
    /// The commit that it is of, once that is known.
    pub commit: Option<String>,
    /// The kind of app that was found; `None` where a Dockerfile decides, or before that is known.
    pub template: Option<Template>,
    /// What was built.
    pub release: Option<Release>,
    /// Images without a name that its build left for the next one's cache.
    pub residue: Vec<String>,
    /// When it was asked for.
    pub created_at: SystemTime,
    /// When it ended.
    pub ended_at: Option<SystemTime>,
}

impl Deployment {
    /// The same, done.
    #[must_use]
    pub fn ready(self, now: SystemTime) -> Deployment {
        Deployment { step: Step::Ready, outcome: Outcome::Ready, ended_at: Some(now), ..self }
    }
}

/// How much a line of a deployment's progress matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As expected.
    Info,
    /// To be looked at.
    Warn,
    /// Why it failed.
    Error,
}

impl Level {
    /// The level's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}
