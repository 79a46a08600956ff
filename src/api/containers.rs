//! What happens to a project's container, and the stream that tells of it: sections 4 and 5 of the contract.

use serde::Serialize;
use serde_json::json;

use super::failure::Failure;
use super::feed::{self, Listener};
use super::projects::own;
use super::request::Call;
use super::routes::Answer;
use super::{Api, deployments, json as answer};
use crate::domain::{Cause, Status};
use crate::http::Response;
use crate::runtime::Command;
use crate::runtime::hub::Refused;

/// `GET /containers/:id/status`.
pub(super) fn status(api: &Api, call: &Call) -> Answer {
    Ok(answer(200, &json!({"status": api.words.status(own(api, call)?.status)})))
}

/// `POST /containers/:id/start`.
pub(super) fn start(api: &Api, call: &Call) -> Answer {
    command(api, call, Command::Start, |status| match status {
        Status::Running => "Container is running",
        Status::Error => "Container cannot be started",
        _ => "Container is starting",
    })
}

/// `POST /containers/:id/stop`. The answer says what is recorded; the event tells when it is done.
pub(super) fn stop(api: &Api, call: &Call) -> Answer {
    command(api, call, Command::Stop, |status| match status {
        Status::Running => "Container is stopping",
        _ => "Container is stopped",
    })
}

/// `POST /containers/:id/restart`.
pub(super) fn restart(api: &Api, call: &Call) -> Answer {
    command(api, call, Command::Restart, |_| "Container is restarting")
}

/// `POST /containers/:id/create` and `/rebuild`: deploys again from the repository.
pub(super) fn rebuild(api: &Api, call: &Call) -> Answer {
    call.nothing()?;
    let (view, made) = deployments::deploy(api, &*own(api, call)?, Cause::Asked)?;
    Ok(deployments::queued(api, "Deployment queued", &view, &made))
}

fn command(api: &Api, call: &Call, command: Command, message: fn(Status) -> &'static str) -> Answer {
    call.nothing()?;
    let view = own(api, call)?;
    let view = deployments::command(api, &view, command)?;
    // An answer that arrives after the event must not undo it on screen.
    let status = if command == Command::Stop { api.words.stopped } else { api.words.status(view.status) };
    Ok(answer(200, &json!({"message": message(view.status), "status": status})))
}

/// A container that can be adopted.
#[derive(Serialize)]
struct Unmanaged {
    id: String,
    name: String,
    image: String,
    running: bool,
    ports: Vec<u16>,
    compose_project: Option<String>,
}

/// `GET /containers/unmanaged`: what the administrator can adopt.
pub(super) fn unmanaged(api: &Api, call: &Call) -> Answer {
    if !call.caller()?.user.admin {
        return Err(Failure::new(403, "Forbidden", "Only the administrator can adopt a container"));
    }
    let snapshot = api.runtime.snapshot();
    if !snapshot.engine.up {
        return Err(Failure::docker_unavailable());
    }
    let adopted: Vec<_> = snapshot.projects.values().map(|view| view.project.container_name()).collect();
    let mut containers: Vec<Unmanaged> = api
        .docker
        .list()?
        .into_iter()
        .filter(|listed| !listed.labels.is_muelle())
        .filter(|listed| !adopted.contains(&listed.name))
        .map(|listed| Unmanaged {
            id: listed.id.as_str().chars().take(12).collect(),
            name: listed.name.as_str().to_owned(),
            running: listed.state == crate::docker::State::Running,
            ports: listed.published.keys().copied().collect(),
            compose_project: listed.labels.get(crate::docker::LABEL_COMPOSE_PROJECT).map(str::to_owned),
            image: listed.image,
        })
        .collect();
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(answer(200, &json!({"containers": containers})))
}

/// `GET /containers/events`.
pub(super) fn events(api: &Api, call: &Call) -> Answer {
    listen(api, call, |listener| feed::stream(api.runtime.clone(), api.ids.clone(), api.words, listener))
}

/// Answers with a stream, if there is a place for it.
pub(super) fn listen(
    api: &Api,
    call: &Call,
    open: impl FnOnce(&Listener) -> Result<Response, Refused>,
) -> Answer {
    let caller = call.caller()?;
    let listener = Listener { user: caller.user.id, session: caller.session, address: call.address };
    let stream = open(&listener).map_err(|_| {
        let sentence = "Too many event streams are open: close a tab, or try again in a moment";
        Failure::new(503, "TooManyStreams", sentence).retry(5)
    })?;
    // A session that ended before its stream had a place was not told to that stream.
    api.sessions.user(caller.session, caller.user.id).ok_or_else(Failure::unauthorized)?;
    Ok(stream)
}
