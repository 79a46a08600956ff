//! Projects and their counters.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, Row, ToSql, params, params_from_iter};

use super::users::{changed, free_label};
use super::{
    Done, Error, Full, Reader, Store, deployments, exists, fresh_id, from_secs, optional, row, rows, text,
    to_secs,
};
use crate::domain::traffic::SUMS;
use crate::domain::{
    Branch, Cause, ContainerName, Deployment, Desired, Domain, EnvName, HealthPath, Held, HostLabel,
    IdleAfter, ImageRef, Project, ProjectId, ProjectName, Release, RepoUrl, Secret, Settings, SettingsChange,
    Source, Template, Traffic, UserId, Wake,
};
use crate::limits::{PROJECTS_PER_USER, WAKES_KEPT};

/// A project to be made.
#[derive(Clone, Debug)]
pub struct NewProject {
    /// Whose it will be.
    pub owner: UserId,
    /// What people call it.
    pub name: ProjectName,
    /// Where its container comes from.
    pub source: Source,
    /// What kind of app it is, where its owner said so.
    pub template: Option<Template>,
    /// What its owner chose.
    pub settings: Settings,
    /// Whether it is to run.
    pub desired: Desired,
}

impl Store {
    /// Makes a project, and the first deployment of one that is built from a repository. Its host label comes from its name, with `-2`
    /// and so on behind it when the owner has that label already. `committed` is called with both on the store thread, in the order of
    /// the commits.
    ///
    /// # Errors
    /// [`Error::Taken`] for the name, the adopted container or a domain, [`Error::TooMany`], [`Error::Invalid`] when no label can be
    /// derived, [`Error::QueueFull`], [`Error::NotFound`] when the owner is gone, or as of any write.
    ///
    /// # Blocks
    /// Until the commit.
    pub fn create_project(
        &self,
        new: NewProject,
        now: SystemTime,
        committed: impl FnOnce(&(Project, Option<Deployment>)) + Send + 'static,
    ) -> Result<Project, Error> {
        let label = HostLabel::derive("Name", new.name.as_str())?;
        let work = move |db: &Connection| {
            let project = create(db, &new, &label, now)?;
            let first = project.is_built().then(|| deployments::enqueue(db, project.id, Cause::Created, now));
            Ok((project, first.transpose()?))
        };
        self.call_then(work, committed).map(|(project, _)| project)
    }

    /// Changes a project's name, its settings, or both; its host label stays. The settings are read and written in one transaction, so
    /// that two changes at once are both made. `committed` is called with the result on the store thread, in the order of the commits.
    ///
    /// # Errors
    /// [`Error::Taken`] for the name or a domain, [`Error::Invalid`] for the settings, [`Error::NotFound`] (also while it is being deleted), or as
    /// of any write.
    ///
    /// # Blocks
    /// Until the commit.
    pub fn update_project(
        &self,
        id: ProjectId,
        name: Option<ProjectName>,
        change: SettingsChange,
        committed: impl FnOnce(&Project) + Send + 'static,
    ) -> Result<Project, Error> {
        let work = move |db: &Connection| {
            let mut project = project(db, id)?.filter(|p| !p.deleting).ok_or(Error::NotFound)?;
            project.name = name.unwrap_or(project.name);
            change.apply(&mut project.settings)?;
            changed(db.execute(
                "UPDATE projects SET name = ?2 WHERE id = ?1",
                params![id.to_string(), project.name.as_str()],
            )?)?;
            write_settings(db, id, &project.settings)?;
            Ok(project)
        };
        self.call_then(work, committed)
    }

    /// Records what the owner asks for. It also ends a project's sleep: who starts or stops one has decided.
    ///
    /// # Errors
    /// [`Full`]; `done` gets [`Error::NotFound`] when the project is gone or being deleted.
    pub fn try_set_desired(&self, id: ProjectId, desired: Desired, done: Done<()>) -> Result<(), Full> {
        let sql = "UPDATE projects SET desired = ?2, asleep = 0 WHERE id = ?1 AND deleting = 0";
        self.post(move |db| changed(db.execute(sql, params![id.to_string(), desired_word(desired)])?), done)
    }

    /// Records that a project was put to sleep, with what it held, or woken.
    ///
    /// # Errors
    /// [`Full`]; `done` gets [`Error::NotFound`] when the project is gone or being deleted.
    pub fn try_set_asleep(&self, id: ProjectId, asleep: Option<Held>, done: Done<()>) -> Result<(), Full> {
        let sql =
            "UPDATE projects SET asleep = ?2, held_memory = ?3, held_cpu = ?4 WHERE id = ?1 AND deleting = 0";
        let Held { memory_mib, cpu_milli } = asleep.unwrap_or_default();
        let held = (whole(memory_mib), whole(cpu_milli));
        let work = move |db: &Connection| {
            changed(db.execute(sql, params![id.to_string(), asleep.is_some(), held.0, held.1])?)
        };
        self.post(work, done)
    }

    /// Records that a project is being deleted, and that none of its deployments goes on. From then on its name, label, domains and
    /// adopted container are free again.
    ///
    /// # Errors
    /// [`Full`]; `done` gets [`Error::NotFound`] when the project is gone.
    pub fn try_mark_deleting(&self, id: ProjectId, done: Done<()>) -> Result<(), Full> {
        let work = move |db: &Connection| {
            let sql =
                "UPDATE deployments SET outcome = 'cancelled' WHERE project_id = ?1 AND outcome = 'open'";
            db.execute(sql, [id.to_string()])?;
            db.execute("DELETE FROM domains WHERE project_id = ?1", [id.to_string()])?;
            changed(db.execute("UPDATE projects SET deleting = 1 WHERE id = ?1", [id.to_string()])?)
        };
        self.post(work, done)
    }

    /// Sets what pushes to a project's repository are signed with.
    ///
    /// # Errors
    /// [`Error::NotFound`] (also while it is being deleted), or as of any write.
    ///
    /// # Blocks
    /// Until the commit.
    pub fn set_hook_secret(
        &self,
        id: ProjectId,
        secret: Option<Secret>,
        committed: impl FnOnce(&Project) + Send + 'static,
    ) -> Result<Project, Error> {
        let work = move |db: &Connection| {
            let sql = "UPDATE projects SET hook_secret = ?2 WHERE id = ?1 AND deleting = 0";
            changed(db.execute(sql, params![id.to_string(), secret.as_ref().map(Secret::expose)])?)?;
            project(db, id)?.ok_or(Error::NotFound)
        };
        self.call_then(work, committed)
    }

    /// Removes a project, its counters and its deployments. One that is gone already is fine.
    ///
    /// # Errors
    /// [`Full`].
    pub fn try_forget(&self, id: ProjectId, done: Done<()>) -> Result<(), Full> {
        self.post(
            move |db| {
                db.execute("DELETE FROM projects WHERE id = ?1", [id.to_string()])?;
                Ok(())
            },
            done,
        )
    }

    /// Adds to the counters of projects; those of projects that are gone are dropped.
    ///
    /// # Errors
    /// [`Full`].
    pub fn try_add_traffic(&self, added: Vec<(ProjectId, Traffic)>, done: Done<()>) -> Result<(), Full> {
        self.post(move |db| add_traffic(db, &added), done)
    }

    /// Records how long a project took to wake; of the older ones the last [`WAKES_KEPT`] stay. Nothing for one that is gone.
    ///
    /// # Errors
    /// [`Full`].
    pub fn try_add_wake(
        &self,
        id: ProjectId,
        wake: Wake,
        now: SystemTime,
        done: Done<()>,
    ) -> Result<(), Full> {
        self.post(move |db| add_wake(db, id, wake, now), done)
    }
}

impl Reader {
    /// All projects, newest first, those being deleted included.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn projects(&self) -> Result<Vec<Project>, Error> {
        rows(&self.db, &format!("{SELECT} ORDER BY p.created_at DESC, p.rowid DESC"), [], decode)
    }

    /// How long projects took to wake, oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn wakes(&self) -> Result<Vec<(ProjectId, Wake)>, Error> {
        let ms = |ms: i64| Duration::from_millis(ms.unsigned_abs());
        rows(&self.db, "SELECT * FROM wakes ORDER BY rowid", [], |row| {
            let answer = row.get::<_, Option<i64>>("answer_ms")?.map(ms);
            let (start, ready) = (ms(row.get("start_ms")?), ms(row.get("ready_ms")?));
            Ok((text(row, "project_id", ProjectId::parse)?, Wake { start, ready, answer }))
        })
    }
}

const SELECT: &str = "SELECT p.*, u.host AS owner_host, c.*, d.image, d.port AS release_port, d.port_known,
     (SELECT group_concat(host, ' ') FROM domains WHERE project_id = p.id) AS domains FROM projects p
     JOIN users u ON u.id = p.owner
     LEFT JOIN counters c ON c.project_id = p.id
     LEFT JOIN deployments d ON d.project_id = p.id AND d.number = p.release";

pub(super) fn project(db: &Connection, id: ProjectId) -> Result<Option<Project>, Error> {
    row(db, &format!("{SELECT} WHERE p.id = ?1"), [id.to_string()], decode)
}

fn create(db: &Connection, new: &NewProject, label: &HostLabel, now: SystemTime) -> Result<Project, Error> {
    let owner = new.owner.to_string();
    if !exists(db, "SELECT 1 FROM users WHERE id = ?1", [&owner])? {
        return Err(Error::NotFound);
    }
    let sql = "SELECT count(*) FROM projects WHERE owner = ?1 AND deleting = 0";
    if db.query_row(sql, [&owner], |row| row.get::<_, u32>(0))? >= PROJECTS_PER_USER {
        return Err(Error::TooMany(PROJECTS_PER_USER));
    }
    let id = fresh_id(db, "SELECT 1 FROM projects WHERE id = ?1", ProjectId)?;
    let sql = "SELECT 1 FROM projects WHERE owner = ?1 AND host = ?2 AND deleting = 0";
    let host = free_label(label, |l| exists(db, sql, [&owner, l.as_str()]))?;
    let origin = match &new.source {
        Source::Git(url) => url.as_str(),
        Source::Image(image) => image.as_str(),
        Source::Container(name) => name.as_str(),
    };
    db.execute(
        "INSERT INTO projects (id, owner, name, host, source, origin, template, template_chosen, env, desired, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, '{}', ?9, ?10)",
        params![
            id.to_string(),
            owner,
            new.name.as_str(),
            host.as_str(),
            new.source.word(),
            origin,
            new.template.unwrap_or_default().word(),
            new.template.is_some(),
            desired_word(new.desired),
            to_secs(now)
        ],
    )?;
    write_settings(db, id, &new.settings)?;
    project(db, id)?.ok_or(Error::NotFound)
}

fn write_settings(db: &Connection, id: ProjectId, settings: &Settings) -> Result<(), Error> {
    let Settings { port, env, memory_mb, cpus, idle_after, health_path, branch, git_token, domains } =
        settings;
    db.execute("DELETE FROM domains WHERE project_id = ?1", [id.to_string()])?;
    for domain in domains {
        let sql = "INSERT INTO domains (host, project_id) VALUES (?1, ?2)";
        db.execute(sql, params![domain.as_str(), id.to_string()])?;
    }
    changed(db.execute(
        "UPDATE projects SET port = ?2, env = ?3, memory_mb = ?4, cpus = ?5, idle_after = ?6, health_path = ?7, branch = ?8,
         git_token = ?9 WHERE id = ?1",
        params![
            id.to_string(),
            port,
            env_text(env)?,
            memory_mb,
            cpus,
            idle_after.map(idle_secs),
            health_path.as_ref().map(HealthPath::as_str),
            branch.as_ref().map(Branch::as_str),
            git_token.as_ref().map(Secret::expose)
        ],
    )?)
}

/// The columns of the sums, each at its place.
const SUM_COLUMNS: [&str; SUMS] = [
    "requests",
    "bytes_in",
    "bytes_out",
    "class_1",
    "class_2",
    "class_3",
    "class_4",
    "class_5",
    "ms_5",
    "ms_10",
    "ms_25",
    "ms_50",
    "ms_100",
    "ms_250",
    "ms_500",
    "ms_1000",
    "ms_2500",
    "ms_5000",
    "ms_10000",
    "ms_more",
    "wakes",
    "saved_memory",
    "saved_cpu",
    "answer_us",
];

fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn add_traffic(db: &Connection, added: &[(ProjectId, Traffic)]) -> Result<(), Error> {
    let columns = SUM_COLUMNS.join(", ");
    let places: Vec<String> = (3..3 + SUMS).map(|at| format!("?{at}")).collect();
    let sums = SUM_COLUMNS.map(|column| format!("{column} = {column} + excluded.{column}"));
    let mut add = db.prepare(&format!(
        "INSERT INTO counters (project_id, last_request, {columns})
         SELECT id, ?2, {} FROM projects WHERE id = ?1
         ON CONFLICT (project_id) DO UPDATE
         SET last_request = iif(excluded.last_request > 0, excluded.last_request, last_request), {}",
        places.join(", "),
        sums.join(", ")
    ))?;
    for (project, added) in added {
        let (id, last) = (project.to_string(), added.last.map_or(0, to_secs));
        let sums = added.sums.map(whole);
        let values = [&id as &dyn ToSql, &last].into_iter().chain(sums.iter().map(|sum| sum as &dyn ToSql));
        add.execute(params_from_iter(values))?;
    }
    Ok(())
}

fn add_wake(db: &Connection, id: ProjectId, wake: Wake, now: SystemTime) -> Result<(), Error> {
    let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let id = id.to_string();
    db.execute(
        "INSERT INTO wakes (project_id, at, start_ms, ready_ms, answer_ms) SELECT id, ?2, ?3, ?4, ?5 FROM projects WHERE id = ?1",
        params![id, to_secs(now), ms(wake.start), ms(wake.ready), wake.answer.map(ms)],
    )?;
    let old = "DELETE FROM wakes WHERE project_id = ?1 AND rowid <=
         (SELECT rowid FROM wakes WHERE project_id = ?1 ORDER BY rowid DESC LIMIT 1 OFFSET ?2)";
    db.execute(old, params![id, WAKES_KEPT])?;
    Ok(())
}

fn decode(row: &Row) -> Result<Project, Error> {
    let source = match row.get::<_, String>("source")?.as_str() {
        "git" => Source::Git(text(row, "origin", |t| RepoUrl::parse(t, true).ok())?),
        "image" => Source::Image(text(row, "origin", |t| ImageRef::parse(t).ok())?),
        "container" => Source::Container(text(row, "origin", |t| ContainerName::parse(t).ok())?),
        _ => return Err(Error::Other("source holds a foreign value".into())),
    };
    let release = match (row.get("release")?, optional(row, "image", |t| ImageRef::parse(t).ok())?) {
        (Some(number), Some(image)) => Some(Release {
            number,
            image,
            port: row.get("release_port")?,
            port_known: row.get("port_known")?,
        }),
        _ => None,
    };
    Ok(Project {
        id: text(row, "id", ProjectId::parse)?,
        owner: text(row, "owner", UserId::parse)?,
        name: text(row, "name", |t| ProjectName::parse(t).ok())?,
        host: HostLabel::stored(row.get("host")?),
        owner_host: HostLabel::stored(row.get("owner_host")?),
        source,
        template: text(row, "template", |t| Template::parse(t).ok())?,
        template_chosen: row.get("template_chosen")?,
        release,
        hook_secret: optional(row, "hook_secret", |t| Secret::parse("secret", t).ok())?,
        settings: Settings {
            port: row.get("port")?,
            env: text(row, "env", env_from_text)?,
            memory_mb: row.get("memory_mb")?,
            cpus: row.get("cpus")?,
            idle_after: row.get::<_, Option<i64>>("idle_after")?.map(idle_from_secs),
            health_path: optional(row, "health_path", |t| HealthPath::parse(t).ok())?,
            branch: optional(row, "branch", |t| Branch::parse(t).ok())?,
            git_token: optional(row, "git_token", |t| Secret::parse("git_token", t).ok())?,
            domains: optional(row, "domains", |t| t.split(' ').map(|it| Domain::parse(it).ok()).collect())?
                .unwrap_or_default(),
        },
        desired: text(row, "desired", |word| {
            [Desired::Running, Desired::Stopped, Desired::AsFound]
                .into_iter()
                .find(|d| desired_word(*d) == word)
        })?,
        asleep: held(row)?,
        deleting: row.get("deleting")?,
        created_at: from_secs(row.get("created_at")?),
        traffic: traffic(row)?,
    })
}

fn traffic(row: &Row) -> Result<Traffic, Error> {
    let mut traffic = Traffic {
        last: row.get::<_, Option<i64>>("last_request")?.filter(|last| *last > 0).map(from_secs),
        ..Traffic::default()
    };
    for (sum, column) in traffic.sums.iter_mut().zip(SUM_COLUMNS) {
        *sum = row.get::<_, Option<i64>>(column)?.unwrap_or(0).unsigned_abs();
    }
    Ok(traffic)
}

fn held(row: &Row) -> Result<Option<Held>, Error> {
    let number = |column: &str| Ok::<_, Error>(row.get::<_, i64>(column)?.unsigned_abs());
    let held = Held { memory_mib: number("held_memory")?, cpu_milli: number("held_cpu")? };
    Ok(row.get::<_, bool>("asleep")?.then_some(held))
}

fn desired_word(desired: Desired) -> &'static str {
    match desired {
        Desired::Running => "running",
        Desired::Stopped => "stopped",
        Desired::AsFound => "as-found",
    }
}

fn env_text(env: &BTreeMap<EnvName, String>) -> Result<String, Error> {
    let plain: BTreeMap<&str, &str> =
        env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    serde_json::to_string(&plain).map_err(|e| Error::Other(e.to_string()))
}

fn env_from_text(text: &str) -> Option<BTreeMap<EnvName, String>> {
    let plain: BTreeMap<String, String> = serde_json::from_str(text).ok()?;
    plain.into_iter().map(|(name, value)| Some((EnvName::parse(&name).ok()?, value))).collect()
}

fn idle_secs(idle: IdleAfter) -> i64 {
    match idle {
        IdleAfter::Never => -1,
        IdleAfter::After(time) => i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
    }
}

fn idle_from_secs(secs: i64) -> IdleAfter {
    u64::try_from(secs).map_or(IdleAfter::Never, |secs| IdleAfter::After(Duration::from_secs(secs)))
}
