//! Projects: section 4 of the contract.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::json;

use super::failure::Failure;
use super::fields::Fields;
use super::request::{Call, Caller};
use super::routes::Answer;
use super::wire::{self, ProjectOut};
use super::{Api, deployments, domains, json as answer};
use crate::docker::{self, Inspected};
use crate::domain::lifecycle::Nap;
use crate::domain::{
    Branch, ContainerName, Deployment, Desired, HealthPath, ImageRef, Project, ProjectId, ProjectName,
    RepoUrl, Secret, Settings, SettingsChange, Source, Status, Template,
};
use crate::http::Response;
use crate::limits;
use crate::runtime::{Command, Recorded, View};
use crate::store::{self, NewProject};

/// `GET /projects`: the caller's own, newest first. The bytes are made once per change.
pub(super) fn list(api: &Api, call: &Call) -> Answer {
    let user = &call.caller()?.user;
    let snapshot = api.runtime.snapshot();
    let encode = |views: &[Arc<View>]| {
        let projects: Vec<ProjectOut<'_>> = views
            .iter()
            .map(|view| ProjectOut::new(view, api.addresses.as_ref(), &api.sleep, api.words))
            .collect();
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
    Ok(project(api, 200, &view))
}

/// `GET /projects/:id/why`: what keeps it awake, or what wakes it.
pub(super) fn why(api: &Api, call: &Call) -> Answer {
    let view = own(api, call)?;
    let facts = view.idleness(&api.sleep, api.runtime.snapshot().engine.up, Instant::now());
    let verdict = facts.judge();
    let said = json!({
        "awake": matches!(facts.status, Status::Running | Status::Deploying),
        "sentence": verdict.sentence(),
        "sleepsIn": verdict.sleeps_in().map(|left| left.as_secs()),
        "idleAfter": wire::idle_text(facts.after),
    });
    Ok(answer(200, &said))
}

/// The caller's own project in the path; another's is as absent as none.
pub(super) fn own(api: &Api, call: &Call) -> Result<Arc<View>, Failure> {
    let (caller, id) = (call.caller()?, call.project()?);
    api.runtime.snapshot().project_of(caller.user.id, id).cloned().ok_or_else(Failure::no_project)
}

fn project(api: &Api, status: u16, view: &View) -> Response {
    answer(status, &json!({"project": ProjectOut::new(view, api.addresses.as_ref(), &api.sleep, api.words)}))
}

/// `POST /projects`, from a repository, an image that the engine has or a container that is there already.
pub(super) fn create(api: &Api, call: &Call) -> Answer {
    let known = [&SETTINGS[..], &["name", "github_url", "template", "image", "container"]].concat();
    let fields = call.fields(&known)?;
    let name = ProjectName::parse(fields.required("name", "Name")?)?;
    let template = fields.text("template")?.map(Template::parse).transpose()?;
    let mut settings = Settings::default();
    settings_change(api, &fields, None)?.apply(&mut settings)?;
    let caller = call.caller()?;
    let url = fields.text("github_url")?.filter(|url| !url.is_empty());
    let (source, desired, seen) = match (url, fields.text("image")?, fields.text("container")?) {
        (Some(url), None, None) => (from_repository(api, url)?, Desired::Running, None),
        (None, Some(image), None) => (from_image(api, image)?, Desired::Running, None),
        (None, None, Some(container)) => {
            let (source, seen) = adopt(api, caller, &fields, container)?;
            (source, Desired::AsFound, Some(seen))
        }
        (None, None, None) => return Err(Failure::invalid("Give a github_url, an image or a container")),
        _ => return Err(Failure::invalid("Give one of github_url, image and container")),
    };
    refuse_of_repositories(&source, &fields)?;
    let new = NewProject { owner: caller.user.id, name, source, template, settings, desired };
    let (committed, recording) = api.runtime.recording();
    let committed = move |(project, first): &(Project, Option<Deployment>)| {
        committed(Recorded { project: project.clone(), seen: seen.map(Box::new), first: first.clone() });
    };
    api.store.create_project(new, SystemTime::now(), committed)?;
    Ok(project(api, 201, &*recording.view()?))
}

/// The fields of a project's settings.
const SETTINGS: [&str; 9] =
    ["branch", "port", "env", "idle_after", "memory_mb", "cpus", "health_path", "git_token", "domains"];

fn refuse_of_repositories(source: &Source, fields: &Fields) -> Result<(), Failure> {
    let field = ["branch", "git_token"].into_iter().find(|field| fields.has(field));
    match field.filter(|_| !matches!(source, Source::Git(_))) {
        Some(field) => Err(Failure::invalid(format!("{field} is for projects that come from a repository"))),
        None => Ok(()),
    }
}

fn from_repository(api: &Api, url: &str) -> Result<Source, Failure> {
    let url = RepoUrl::parse(url, api.allow_http)?;
    if !api.allow_private_hosts && url.is_private_literal() {
        return Err(Failure::invalid(
            "github_url is an address of this machine or its network, which deploy.allow_private_hosts forbids",
        ));
    }
    engine_is_up(api)?;
    Ok(Source::Git(url))
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
    refuse_of_adopted(fields)?;
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
pub(super) fn engine_is_up(api: &Api) -> Result<(), Failure> {
    if api.runtime.snapshot().engine.up { Ok(()) } else { Err(Failure::docker_unavailable()) }
}

/// The settings of a create or change request.
fn settings_change(api: &Api, fields: &Fields, own: Option<ProjectId>) -> Result<SettingsChange, Failure> {
    let cpus: RangeInclusive<f64> = limits::PROJECT_CPUS_MIN..=api.project_cpus_max;
    Ok(SettingsChange {
        port: fields.integer("port", 1..=u32::from(u16::MAX))?.and_then(|port| u16::try_from(port).ok()),
        env: fields.env()?.unwrap_or_default(),
        memory_mb: fields.integer("memory_mb", limits::PROJECT_MEMORY_MB_MIN..=api.project_memory_mb_max)?,
        cpus: fields.number("cpus", cpus)?,
        idle_after: fields.idle_after()?,
        health_path: fields.change("health_path", HealthPath::parse)?,
        branch: fields.change("branch", Branch::parse)?,
        git_token: fields.change("git_token", |token| Secret::parse("git_token", token))?,
        domains: domains::read(api, fields, own)?,
    })
}

/// What is not ours to choose for a container that somebody else made.
fn refuse_of_adopted(fields: &Fields) -> Result<(), Failure> {
    let fixed = ["env", "memory_mb", "cpus"].into_iter().find(|field| fields.has(field));
    let sentence = |field| format!("{field} cannot be set: an adopted container keeps its own settings");
    fixed.map_or(Ok(()), |field| Err(Failure::invalid(sentence(field))))
}

/// `PATCH /projects/:id`: name and settings. `env` is merged: a text sets a variable, null takes it away, the others stay.
pub(super) fn update(api: &Api, call: &Call) -> Answer {
    let view = own(api, call)?;
    let fields = call.fields(&[&SETTINGS[..], &["name"]].concat())?;
    let before = &view.project;
    refuse_of_repositories(&before.source, &fields)?;
    if before.is_adopted() {
        refuse_of_adopted(&fields)?;
    }
    let name = fields.text("name")?.map(ProjectName::parse).transpose()?;
    let change = settings_change(api, &fields, Some(before.id))?;
    let (project, view) =
        record(api, |committed| api.store.update_project(before.id, name, change, committed))?;
    // What is frozen goes on as it is when it is woken.
    let runs = view.run.is_some() || (view.status == Status::Inactive && api.sleep.nap == Nap::Pause);
    let restart = before.settings.needs_new_container(&project.settings) && runs;
    let out = ProjectOut::new(&view, api.addresses.as_ref(), &api.sleep, api.words).restart_required(restart);
    Ok(answer(200, &json!({"project": out})))
}

/// Has the store change a project, and waits until that is shown.
pub(super) fn record(
    api: &Api,
    change: impl FnOnce(Box<dyn FnOnce(&Project) + Send>) -> Result<Project, store::Error>,
) -> Result<(Project, Arc<View>), Failure> {
    let (committed, recording) = api.runtime.recording();
    let committed =
        |project: &Project| committed(Recorded { project: project.clone(), seen: None, first: None });
    let project = change(Box::new(committed))?;
    Ok((project, recording.view()?))
}

/// `DELETE /projects/:id`. A container of ours goes too; an adopted one is left alone, and the answer says so.
pub(super) fn delete(api: &Api, call: &Call) -> Answer {
    call.nothing()?;
    let view = own(api, call)?;
    api.runtime.command(view.project.owner, view.project.id, Command::Delete)?;
    let mut body = json!({"message": "Project deleted successfully"});
    if let Source::Container(name) = &view.project.source {
        let name = name.as_str();
        let left =
            if view.status == Status::Inactive { "started again, since it slept" } else { "left as it is" };
        body["note"] = format!("The container {name} was there before the project and is {left}").into();
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
    let view = deployments::command(api, &view, command)?;
    let out = ProjectOut::new(&view, api.addresses.as_ref(), &api.sleep, api.words);
    let out = if command == Command::Stop { out.with_status(api.words.stopped) } else { out };
    Ok(answer(200, &json!({"project": out})))
}
