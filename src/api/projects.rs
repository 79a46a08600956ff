//! Projects: section 4 of the contract.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::json;

use super::failure::Failure;
use super::fields::Fields;
use super::request::{Call, Caller};
use super::routes::Answer;
use super::wire::ProjectOut;
use super::{Api, json as answer};
use crate::docker::{self, Inspected};
use crate::domain::{
    ContainerName, Desired, ImageRef, ProjectName, Settings, SettingsChange, Source, Template,
};
use crate::http::Response;
use crate::limits;
use crate::runtime::{Command, View};
use crate::store::NewProject;

/// `GET /projects`: the caller's own, newest first. The bytes are made once per change.
pub(super) fn list(api: &Api, call: &Call) -> Answer {
    let user = &call.caller()?.user;
    let snapshot = api.runtime.snapshot();
    let encode = |views: &[Arc<View>]| {
        let projects: Vec<ProjectOut<'_>> =
            views.iter().map(|view| ProjectOut::new(view, user.host.as_str(), api.words)).collect();
        super::encode(&json!({"projects": projects}))
    };
    let bytes = match snapshot.owners.get(&user.id) {
        Some(owned) => owned.encoded(encode),
        None => encode(&[]).into(),
    };
    Ok(super::json_bytes(200, bytes))
}

/// `GET /projects/:id`.
pub(super) fn get(api: &Api, call: &Call) -> Answer {
    let view = own(api, call)?;
    project(api, call, 200, &view)
}

/// The caller's own project in the path; another's is as absent as none.
pub(super) fn own(api: &Api, call: &Call) -> Result<Arc<View>, Failure> {
    let (caller, id) = (call.caller()?, call.project()?);
    api.runtime.snapshot().project_of(caller.user.id, id).cloned().ok_or_else(Failure::no_project)
}

fn project(api: &Api, call: &Call, status: u16, view: &View) -> Result<Response, Failure> {
    let host = &call.caller()?.user.host;
    Ok(answer(status, &json!({"project": ProjectOut::new(view, host.as_str(), api.words)})))
}

/// `POST /projects`, from an image that the engine has or from a container that is there already.
pub(super) fn create(api: &Api, call: &Call) -> Answer {
    let known = [
        "name",
        "github_url",
        "branch",
        "template",
        "image",
        "container",
        "port",
        "env",
        "memory_mb",
        "cpus",
        "idle_after",
    ];
    let fields = call.fields(&known)?;
    let name = ProjectName::parse(fields.required("name", "Name")?)?;
    let template = fields.text("template")?.map(Template::parse).transpose()?.unwrap_or_default();
    let mut settings = Settings::default();
    settings_change(api, &fields)?.apply(&mut settings)?;
    let caller = call.caller()?;
    let github_url = fields.text("github_url")?.is_some_and(|url| !url.is_empty());
    let (source, desired, seen) = match (fields.text("image")?, fields.text("container")?) {
        _ if github_url => {
            return Err(Failure::invalid(
                "Deploying from a repository is not there yet: give an image or a container",
            ));
        }
        (Some(image), None) => (from_image(api, image)?, Desired::Running, None),
        (None, Some(container)) => {
            let (source, seen) = adopt(api, caller, &fields, container)?;
            (source, Desired::AsFound, Some(seen))
        }
        (Some(_), Some(_)) => return Err(Failure::invalid("Give an image or a container, not both")),
        (None, None) => return Err(Failure::invalid("Give an image or a container")),
    };
    if fields.has("branch") {
        return Err(no_branch());
    }
    let new = NewProject { owner: caller.user.id, name, source, template, settings, desired };
    let (committed, recording) = api.runtime.recording(seen);
    api.store.create_project(new, SystemTime::now(), committed)?;
    project(api, call, 201, &*recording.view()?)
}

fn from_image(api: &Api, image: &str) -> Result<Source, Failure> {
    engine_is_up(api)?;
    let image = ImageRef::parse(image)?;
    match api.docker.image(&image) {
        Ok(_) => Ok(Source::Image(image)),
        Err(docker::Error::NotFound(_)) => {
            let name = image.as_str();
            Err(Failure::invalid(format!(
                "The image {name} is not on this machine; fetch it first: docker pull {name}"
            )))
        }
        Err(error) => Err(error.into()),
    }
}

fn adopt(
    api: &Api,
    caller: &Caller,
    fields: &Fields,
    container: &str,
) -> Result<(Source, Inspected), Failure> {
    if !caller.user.admin {
        return Err(Failure::new(403, "Forbidden", "Only the administrator can adopt a container"));
    }
    engine_is_up(api)?;
    if let Some(field) = ["env", "memory_mb", "cpus"].into_iter().find(|field| fields.has(field)) {
        return Err(Failure::invalid(format!(
            "{field} cannot be set: an adopted container keeps its own settings"
        )));
    }
    let asked = ContainerName::parse(container)?;
    let seen = match api.docker.inspect(&asked) {
        Ok(seen) => seen,
        Err(docker::Error::NotFound(_)) => {
            return Err(Failure::invalid(format!("There is no container called {}", asked.as_str())));
        }
        Err(error) => return Err(error.into()),
    };
    if seen.labels.is_muelle() {
        return Err(Failure::invalid("This container was made by muelle already"));
    }
    // An id was given, or a part of one: the name is what stays.
    Ok((Source::Container(seen.name.clone()), seen))
}

/// Turns a request away before it is recorded that could not be carried out now.
fn engine_is_up(api: &Api) -> Result<(), Failure> {
    if api.runtime.snapshot().engine.up { Ok(()) } else { Err(Failure::docker_unavailable()) }
}

fn no_branch() -> Failure {
    Failure::invalid("branch is for projects that come from a repository")
}

/// The settings of a create or change request.
fn settings_change(api: &Api, fields: &Fields) -> Result<SettingsChange, Failure> {
    let cpus: RangeInclusive<f64> = limits::PROJECT_CPUS_MIN..=api.project_cpus_max;
    Ok(SettingsChange {
        port: fields.integer("port", 1..=u32::from(u16::MAX))?.and_then(|port| u16::try_from(port).ok()),
        env: fields.env()?.unwrap_or_default(),
        memory_mb: fields.integer("memory_mb", limits::PROJECT_MEMORY_MB_MIN..=api.project_memory_mb_max)?,
        cpus: fields.number("cpus", cpus)?,
        idle_after: fields.idle_after()?,
    })
}

/// `PATCH /projects/:id`: name and settings. `env` is merged: a text sets a variable, null takes it away, the others stay.
pub(super) fn update(api: &Api, call: &Call) -> Answer {
    let view = own(api, call)?;
    let fields = call.fields(&["name", "branch", "port", "env", "idle_after", "memory_mb", "cpus"])?;
    if fields.has("branch") {
        return Err(no_branch());
    }
    let before = &view.project;
    if before.is_adopted()
        && let Some(field) = ["env", "memory_mb", "cpus"].into_iter().find(|field| fields.has(field))
    {
        return Err(Failure::invalid(format!(
            "{field} cannot be set: an adopted container keeps its own settings"
        )));
    }
    let name = fields.text("name")?.map(ProjectName::parse).transpose()?;
    let change = settings_change(api, &fields)?;
    let (committed, recording) = api.runtime.recording(None);
    let project = api.store.update_project(before.id, name, change, committed)?;
    let restart = needs_restart(&before.settings, &project.settings) && view.run.is_some();
    let view = recording.view()?;
    let host = &call.caller()?.user.host;
    let out = ProjectOut::new(&view, host.as_str(), api.words).restart_required(restart);
    Ok(answer(200, &json!({"project": out})))
}

fn needs_restart(before: &Settings, after: &Settings) -> bool {
    Settings { idle_after: None, ..before.clone() } != Settings { idle_after: None, ..after.clone() }
}

/// `DELETE /projects/:id`. A container of ours goes too; an adopted one is left alone, and the answer says so.
pub(super) fn delete(api: &Api, call: &Call) -> Answer {
    call.nothing()?;
    let view = own(api, call)?;
    api.runtime.command(view.project.owner, view.project.id, Command::Delete)?;
    let mut body = json!({"message": "Project deleted successfully"});
    if let Source::Container(name) = &view.project.source {
        let name = name.as_str();
        body["note"] =
            format!("The container {name} was there before the project and is left as it is").into();
    }
    Ok(answer(200, &body))
}

/// `PATCH /projects/:id/status`: the two words that are wishes.
pub(super) fn set_status(api: &Api, call: &Call) -> Answer {
    let view = own(api, call)?;
    let fields = call.fields(&["status"])?;
    let wish = fields.required("status", "Status")?;
    let command = match wish {
        "running" => Command::Start,
        wish if wish == "stopped" || wish == api.words.stopped => Command::Stop,
        _ => {
            let sentence = format!("status can be set to running or {} only", api.words.stopped);
            return Err(Failure::invalid(sentence));
        }
    };
    let view = api.runtime.command(view.project.owner, view.project.id, command)?;
    let host = &call.caller()?.user.host;
    let out = ProjectOut::new(&view, host.as_str(), api.words);
    let out = if command == Command::Stop { out.with_status(api.words.stopped) } else { out };
    Ok(answer(200, &json!({"project": out})))
}
