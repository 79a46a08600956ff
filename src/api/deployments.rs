//! Deployments: what there were, how far one is, what it said, and how one is asked for, given up or undone.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crossbeam_channel::RecvTimeoutError;
use serde_json::json;

use super::containers::listen;
use super::failure::Failure;
use super::feed::{self, GONE, SLOW, write_event};
use super::projects::{engine_is_up, own};
use super::request::Call;
use super::routes::Answer;
use super::wire::{DeploymentOut, rfc3339};
use super::{Api, json as answer};
use crate::domain::deployment::Outcome;
use crate::domain::{Cause, Deployment, ProjectId, Step, Template, UserId};
use crate::http::{Response, StreamWriter};
use crate::limits;
use crate::runtime::hub::{Frame, Subscription};
use crate::runtime::{Command, Runtime, View};
use crate::store::Logs;

impl<'a> DeploymentOut<'a> {
    /// A deployment as its owner reads it; `current` is the number of the one whose version serves.
    #[must_use]
    pub fn new(it: &'a Deployment, current: Option<u32>) -> DeploymentOut<'a> {
        let status = match (it.outcome, it.step) {
            (Outcome::Open, Step::Queued) => "queued",
            (Outcome::Open, _) => "running",
            (outcome, _) => outcome.word(),
        };
        let cause = match it.cause {
            Cause::Created => "created",
            Cause::Asked => "asked",
            Cause::Pushed => "pushed",
            Cause::Rollback(_) => "rollback",
            Cause::Recovery(_) => "recovery",
        };
        DeploymentOut {
            number: it.number,
            status,
            step: it.step.word(),
            cause,
            of: it.cause.of(),
            reason: it.reason.as_deref(),
            commit: it.commit.as_deref(),
            template: it.template.map(Template::word),
            image: it.release.as_ref().map(|release| release.image.as_str()),
            current: current == Some(it.number),
            created_at: rfc3339(it.created_at),
            ended_at: it.ended_at.map(rfc3339),
        }
    }
}

/// Records that a project is to be deployed again; gives what is shown then, and the deployment.
///
/// # Errors
/// 400 for a project without a repository, 429 while too many wait, 503 without an engine.
///
/// # Blocks
/// On one commit.
pub(super) fn deploy(api: &Api, view: &View, cause: Cause) -> Result<(Arc<View>, Deployment), Failure> {
    if !view.project.is_built() {
        return Err(Failure::new(
            400,
            "NotFromRepository",
            "This project does not come from a repository, there is nothing to build",
        ));
    }
    engine_is_up(api)?;
    let (committed, recording) = api.runtime.queueing();
    let committed = |made: &Option<Deployment>| made.clone().map_or((), committed);
    let made =
        api.store.create_deployment(view.project.id, cause, Vec::new(), SystemTime::now(), committed)?;
    let made = made.ok_or_else(|| Failure::internal("no delivery was named"))?;
    Ok((recording.view()?, made))
}

/// The answer to who wants one.
pub(super) fn queued(api: &Api, message: &str, view: &View, made: &Deployment) -> Response {
    let (status, deployment) = (api.words.status(view.status), DeploymentOut::new(newest(view, made), None));
    answer(202, &json!({"message": message, "status": status, "deployment": deployment}))
}

/// Passes a command on. To start what was never built is to deploy it.
pub(super) fn command(api: &Api, view: &View, command: Command) -> Result<Arc<View>, Failure> {
    let project = &view.project;
    let open = view.deployment.as_ref().is_some_and(|it| it.outcome == Outcome::Open);
    if matches!(command, Command::Start | Command::Restart)
        && project.is_built()
        && project.release.is_none()
        && !open
    {
        return deploy(api, view, Cause::Asked).map(|(view, _)| view);
    }
    Ok(api.runtime.command(project.owner, project.id, command)?)
}

/// `GET /projects/:id/deployments`, newest first.
pub(super) fn list(api: &Api, call: &Call) -> Answer {
    let view = own(api, call)?;
    let rows = api.store.reader()?.deployments(view.project.id)?;
    let current = view.project.release.as_ref().map(|release| release.number);
    let rows: Vec<_> = rows.iter().map(|row| DeploymentOut::new(newest(&view, row), current)).collect();
    Ok(answer(200, &json!({ "deployments": rows })))
}

/// `GET /projects/:id/deployments/:n`.
pub(super) fn get(api: &Api, call: &Call) -> Answer {
    let (view, row) = find(api, call)?;
    let current = view.project.release.as_ref().map(|release| release.number);
    Ok(answer(200, &json!({"deployment": DeploymentOut::new(newest(&view, &row), current)})))
}

/// The supervisor knows more of the one that is under way than the store.
fn newest<'a>(view: &'a View, row: &'a Deployment) -> &'a Deployment {
    view.deployment(row.number).unwrap_or(row)
}

fn find(api: &Api, call: &Call) -> Result<(Arc<View>, Deployment), Failure> {
    let view = own(api, call)?;
    let row = api.store.reader()?.deployment(view.project.id, call.number()?)?;
    Ok((view, row.ok_or_else(Failure::no_deployment)?))
}

/// `POST /projects/:id/deployments/:n/cancel`.
pub(super) fn cancel(api: &Api, call: &Call) -> Answer {
    call.nothing()?;
    let (view, row) = find(api, call)?;
    if newest(&view, &row).outcome != Outcome::Cancelled {
        api.runtime.command(view.project.owner, view.project.id, Command::Cancel(row.number))?;
    }
    Ok(answer(200, &json!({"message": "Deployment cancelled"})))
}

/// `POST /projects/:id/rollback`: to the version of a deployment, or to the one before the present.
pub(super) fn rollback(api: &Api, call: &Call) -> Answer {
    let view = own(api, call)?;
    let fields = if call.body.is_empty() { None } else { Some(call.fields(&["deployment"])?) };
    let asked = fields.map(|fields| fields.integer("deployment", 1..=u32::MAX)).transpose()?.flatten();
    let rows = api.store.reader()?.deployments(view.project.id)?;
    let present = view.project.release.as_ref();
    let is_earlier = |row: &&Deployment| {
        let before = present.is_none_or(|release| row.number < release.number);
        let other =
            row.release.as_ref().is_some_and(|it| present.is_none_or(|release| it.image != release.image));
        row.outcome == Outcome::Ready && before && other
    };
    let target = match asked {
        Some(number) if !rows.iter().any(|row| row.number == number) => return Err(Failure::no_deployment()),
        Some(number) => number,
        None => {
            let earlier = rows.iter().find(is_earlier).map(|row| row.number);
            earlier.ok_or_else(|| Failure::invalid("There is no earlier version to go back to"))?
        }
    };
    let (view, made) = deploy(api, &view, Cause::Rollback(target))?;
    Ok(queued(api, &format!("Going back to deployment {target}"), &view, &made))
}

/// `GET /projects/:id/deployments/:n/log`, as text.
pub(super) fn log(api: &Api, call: &Call) -> Answer {
    let (view, row) = find(api, call)?;
    let log =
        api.logs.open(view.project.id, row.number).map_err(|error| Failure::internal(error.to_string()))?;
    let response = Response::stream(200, move |writer| match log {
        Some(log) => std::io::copy(&mut log.take(limits::DEPLOY_LOG_BYTES_MAX * 2), writer).map(drop),
        None => Ok(()),
    });
    Ok(response.header("Content-Type", "text/plain; charset=utf-8").header("Cache-Control", "no-store"))
}

/// `GET /projects/:id/deployments/:n/log/stream`: what was said so far, and then each new line until the deployment has ended.
pub(super) fn log_stream(api: &Api, call: &Call) -> Answer {
    let view = own(api, call)?;
    let number = call.number()?;
    let exists = |it: &Option<Arc<Deployment>>| it.as_ref().is_some_and(|last| number <= last.number);
    if !exists(&view.deployment) && !exists(&view.waiting) {
        return Err(Failure::no_deployment());
    }
    let offset = call.last_event_id.as_deref().and_then(|id| id.parse().ok()).unwrap_or(0);
    let reader = LogReader {
        logs: api.logs.clone(),
        user: view.project.owner,
        project: view.project.id,
        number,
        file: None,
        offset,
        rest: Vec::new(),
    };
    listen(api, call, |listener| {
        feed::open(api.runtime.clone(), listener, "deployment log", |runtime, subscription, writer| {
            reader.follow(runtime, subscription, writer)
        })
    })
}

/// A client of a deployment's log, on its connection's thread.
struct LogReader {
    logs: Logs,
    user: UserId,
    project: ProjectId,
    number: u32,
    file: Option<File>,
    /// What the client has of the file, in bytes.
    offset: u64,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl LogReader {
    /// Writes until something ends it; says what.
    fn follow(
        mut self,
        runtime: &Runtime,
        subscription: &Subscription,
        writer: &mut StreamWriter<'_>,
    ) -> &'static str {
        let mut out = b"retry: 3000\n\n".to_vec();
        let (mut quiet, mut told) = (0, false);
        let mut comment_at = Instant::now() + limits::STREAM_HEARTBEAT;
        loop {
            let read = self.read(&mut out);
            quiet = if read { 0 } else { quiet + 1 };
            let Some(view) = runtime.snapshot().project_of(self.user, self.project).cloned() else {
                return "the project is gone";
            };
            let open = view.deployment(self.number).is_some_and(|it| it.outcome == Outcome::Open);
            // The last line may be written a moment after the deployment has ended.
            if !open && !told && quiet >= limits::DEPLOY_LOG_QUIET {
                let status = view.deployment(self.number).map_or("ended", |it| it.outcome.word());
                write_event(&mut out, "end", &json!({ "status": status }));
                told = true;
            }
            if comment_at <= Instant::now() {
                out.extend_from_slice(b": \n\n");
                comment_at = Instant::now() + limits::STREAM_HEARTBEAT;
            }
            if writer.peer_closed() || writer.write_parts(&[&out]).is_err() {
                return GONE;
            }
            out.clear();
            let pause = if told { limits::STREAM_HEARTBEAT } else { limits::DEPLOY_LOG_POLL };
            let until = if read { Instant::now() } else { (Instant::now() + pause).min(comment_at) };
            match subscription.next(until) {
                Ok(Frame::EndAt(at, reason)) if at <= Instant::now() => return reason,
                Ok(Frame::EndAt(at, reason)) => {
                    // Nothing that comes until then matters.
                    while !matches!(
                        subscription.next(at),
                        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)
                    ) {}
                    return reason;
                }
                Ok(Frame::Events(..) | Frame::Check) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return SLOW,
            }
        }
    }

    /// Encodes what was added to the file; says whether there was anything.
    fn read(&mut self, out: &mut Vec<u8>) -> bool {
        if self.file.is_none() {
            self.file = self.logs.open(self.project, self.number).ok().flatten();
            let Some(file) = &mut self.file else { return false };
            let length = file.metadata().map_or(0, |it| it.len());
            self.offset = if self.offset > length { 0 } else { self.offset };
            if file.seek(SeekFrom::Start(self.offset)).is_err() {
                return false;
            }
        }
        let Some(file) = &mut self.file else { return false };
        let room = (limits::LOG_BATCH_BYTES - self.rest.len().min(limits::LOG_BATCH_BYTES / 2)) as u64;
        let grown = file.take(room).read_to_end(&mut self.rest).is_ok_and(|count| count > 0);
        let mut taken = 0;
        for line in self.rest.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            taken += line.len();
            drop(writeln!(out, "id: {}", self.offset + taken as u64));
            write_event(out, "log", &json!({"text": String::from_utf8_lossy(&line[..line.len() - 1])}));
        }
        self.rest.drain(..taken);
        self.offset += taken as u64;
        grown
    }
}
