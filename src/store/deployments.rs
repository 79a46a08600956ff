//! Deployments: what was asked for, how far it came, and which images are kept.

use std::collections::HashMap;
use std::time::SystemTime;

use rusqlite::{Connection, Row, params};

use super::projects::project;
use super::users::changed;
use super::{Done, Error, Full, Reader, Store, from_secs, optional, row, rows, text, to_secs};
use crate::domain::deployment::Outcome;
use crate::domain::{Cause, Deployment, ImageRef, Invalid, ProjectId, Release, Step, Template};
use crate::limits::{DELIVERIES_KEPT, DEPLOY_QUEUE, DEPLOY_QUEUE_PER_USER, DEPLOYMENTS_LISTED};

impl Store {
    /// Makes a deployment that waits for its turn. One of the same project that still waits gives way to it. `names` name the message
    /// that asks for it: one that was there before makes none. `committed` is called with the result on the store thread, in the order of
    /// the commits.
    ///
    /// # Errors
    /// [`Error::QueueFull`], [`Error::Invalid`] where there is no version to go back to, [`Error::NotFound`] for a project that is not
    /// built from a repository, or is being deleted; or as of any write.
    ///
    /// # Blocks
    /// Until the commit.
    pub fn create_deployment(
        &self,
        id: ProjectId,
        cause: Cause,
        names: Vec<String>,
        now: SystemTime,
        committed: impl FnOnce(&Option<Deployment>) + Send + 'static,
    ) -> Result<Option<Deployment>, Error> {
        let work = move |db: &Connection| {
            for name in &names {
                if !is_new(db, id, name)? {
                    return Ok(None);
                }
            }
            enqueue(db, id, cause, now).map(Some)
        };
        self.call_then(work, committed)
    }

    /// The same without waiting, for who needs no place in the queue.
    ///
    /// # Errors
    /// [`Full`]; `done` gets what [`Store::create_deployment`] would return.
    pub fn try_create_deployment(
        &self,
        id: ProjectId,
        cause: Cause,
        now: SystemTime,
        done: Done<Deployment>,
    ) -> Result<(), Full> {
        self.post(move |db| enqueue(db, id, cause, now), done)
    }

    /// Records how far a deployment came; with `release` its version becomes the project's in the same moment.
    ///
    /// # Errors
    /// [`Full`]; `done` gets [`Error::NotFound`] when the project is gone.
    pub fn try_save_deployment(
        &self,
        deployment: Deployment,
        release: bool,
        done: Done<()>,
    ) -> Result<(), Full> {
        self.post(move |db| save(db, &deployment, release), done)
    }

    /// Ends what an earlier life of this process left under way; what waited waits on.
    ///
    /// # Errors
    /// As of any write.
    ///
    /// # Blocks
    /// Until the commit.
    pub fn interrupt_deployments(&self, reason: &'static str, now: SystemTime) -> Result<(), Error> {
        self.call(move |db| {
            db.execute(
                "UPDATE deployments SET outcome = 'interrupted', reason = ?1, ended_at = ?2
                 WHERE outcome = 'open' AND step <> 'queued'",
                params![reason, to_secs(now)],
            )?;
            Ok(())
        })
    }

    /// Records that the images of these deployments are gone, and forgets those before `oldest`.
    ///
    /// # Errors
    /// As of any write.
    ///
    /// # Blocks
    /// Until the commit.
    pub fn tidy_deployments(&self, id: ProjectId, without_image: Vec<u32>, oldest: u32) -> Result<(), Error> {
        self.call(move |db| {
            for number in without_image {
                let sql = "UPDATE deployments SET image = NULL, residue = '' WHERE project_id = ?1 AND number = ?2";
                db.execute(sql, params![id.to_string(), number])?;
            }
            let sql = "DELETE FROM deployments WHERE project_id = ?1 AND number < ?2 AND image IS NULL AND outcome <> 'open'";
            db.execute(sql, params![id.to_string(), oldest])?;
            Ok(())
        })
    }
}

impl Reader {
    /// A project's deployments, newest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn deployments(&self, id: ProjectId) -> Result<Vec<Deployment>, Error> {
        let sql = "SELECT * FROM deployments WHERE project_id = ?1 ORDER BY number DESC";
        rows(&self.db, sql, [id.to_string()], decode)
    }

    /// One of a project's deployments.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn deployment(&self, id: ProjectId, number: u32) -> Result<Option<Deployment>, Error> {
        find(&self.db, id, number)
    }

    /// The last deployment of every project that has one, and those that wait, oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn recent_deployments(&self) -> Result<(HashMap<ProjectId, Deployment>, Vec<Deployment>), Error> {
        let sql = "SELECT *, max(number) FROM deployments GROUP BY project_id";
        let last = rows(&self.db, sql, [], decode)?;
        let sql = "SELECT * FROM deployments WHERE outcome = 'open' AND project_id IN
                   (SELECT id FROM projects WHERE deleting = 0) ORDER BY created_at, number";
        Ok((last.into_iter().map(|it| (it.project, it)).collect(), rows(&self.db, sql, [], decode)?))
    }
}

fn find(db: &Connection, id: ProjectId, number: u32) -> Result<Option<Deployment>, Error> {
    let sql = "SELECT * FROM deployments WHERE project_id = ?1 AND number = ?2";
    row(db, sql, params![id.to_string(), number], decode)
}

/// Remembers a message; says whether it was not known.
fn is_new(db: &Connection, id: ProjectId, delivery: &str) -> Result<bool, Error> {
    let sql = "INSERT OR IGNORE INTO deliveries (project_id, delivery)
               SELECT id, ?2 FROM projects WHERE id = ?1 AND deleting = 0";
    let added = db.execute(sql, params![id.to_string(), delivery])?;
    let sql = "DELETE FROM deliveries WHERE project_id = ?1 AND rowid NOT IN
               (SELECT rowid FROM deliveries WHERE project_id = ?1 ORDER BY rowid DESC LIMIT ?2)";
    db.execute(sql, params![id.to_string(), DELIVERIES_KEPT])?;
    Ok(added == 1)
}

pub(super) fn enqueue(
    db: &Connection,
    id: ProjectId,
    cause: Cause,
    now: SystemTime,
) -> Result<Deployment, Error> {
    let project = project(db, id)?.filter(|p| p.is_built() && !p.deleting).ok_or(Error::NotFound)?;
    let again = cause.of().map(|number| version(db, id, number)).transpose()?;
    db.execute(
        "UPDATE deployments SET outcome = 'superseded', ended_at = ?2
         WHERE project_id = ?1 AND outcome = 'open' AND step = 'queued'",
        params![id.to_string(), to_secs(now)],
    )?;
    if again.is_none() && !has_room(db, &project.owner.to_string())? {
        return Err(Error::QueueFull);
    }
    let sql = "DELETE FROM deployments WHERE project_id = ?1 AND outcome = 'superseded' AND step = 'queued' AND number <=
               (SELECT max(number) FROM deployments WHERE project_id = ?1) - ?2";
    db.execute(sql, params![id.to_string(), DEPLOYMENTS_LISTED])?;
    let sql = "SELECT coalesce(max(number), 0) FROM deployments WHERE project_id = ?1";
    let number = db.query_row(sql, [id.to_string()], |row| row.get::<_, u32>(0))? + 1;
    let (commit, release) =
        again.map_or((None, None), |(commit, release)| (commit, Some(Release { number, ..release })));
    let deployment = Deployment {
        project: id,
        number,
        cause,
        step: Step::Queued,
        outcome: Outcome::Open,
        reason: None,
        commit,
        template: project.template_chosen.then_some(project.template),
        release,
        residue: Vec::new(),
        created_at: from_secs(to_secs(now)),
        ended_at: None,
    };
    db.execute(
        "INSERT INTO deployments (project_id, number, cause, step, outcome, created_at) VALUES (?1, ?2, '', '', '', ?3)",
        params![id.to_string(), number, to_secs(now)],
    )?;
    save(db, &deployment, false)?;
    Ok(deployment)
}

/// Whether another deployment of this owner may wait. Where there are several users, none has the whole queue.
fn has_room(db: &Connection, owner: &str) -> Result<bool, Error> {
    let sql = "SELECT count(*), count(*) FILTER (WHERE p.owner = ?1), (SELECT count(*) FROM users)
               FROM deployments d JOIN projects p ON p.id = d.project_id
               WHERE d.outcome = 'open' AND d.step = 'queued' AND p.deleting = 0";
    let (all, own, users): (u32, u32, u32) =
        db.query_row(sql, [owner], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(all < DEPLOY_QUEUE && (users == 1 || own < DEPLOY_QUEUE_PER_USER))
}

/// The version that a deployment made.
fn version(db: &Connection, id: ProjectId, number: u32) -> Result<(Option<String>, Release), Error> {
    let found = find(db, id, number)?.filter(|it| it.outcome == Outcome::Ready);
    let kept = found.and_then(|it| Some((it.commit, it.release?)));
    kept.ok_or_else(|| Invalid(format!("Deployment {number} has no image that one could go back to")).into())
}

fn save(db: &Connection, it: &Deployment, release: bool) -> Result<(), Error> {
    let (word, of) = cause_word(it.cause);
    let id = it.project.to_string();
    changed(db.execute(
        "UPDATE deployments SET cause = ?3, cause_of = ?4, step = ?5, outcome = ?6, reason = ?7, commit_id = ?8, template = ?9,
         image = ?10, port = ?11, port_known = ?12, residue = ?13, ended_at = ?14 WHERE project_id = ?1 AND number = ?2",
        params![
            id,
            it.number,
            word,
            of,
            it.step.word(),
            it.outcome.word(),
            it.reason.as_deref(),
            it.commit,
            it.template.map(Template::word),
            it.release.as_ref().map(|release| release.image.as_str()),
            it.release.as_ref().map(|release| release.port),
            it.release.as_ref().is_some_and(|release| release.port_known),
            it.residue.join(" "),
            it.ended_at.map(to_secs)
        ],
    )?)?;
    if let Some(template) = it.template {
        let sql = "UPDATE projects SET template = ?2 WHERE id = ?1 AND template_chosen = 0";
        db.execute(sql, params![id, template.word()])?;
    }
    if release {
        db.execute("UPDATE projects SET release = ?2, asleep = 0 WHERE id = ?1", params![id, it.number])?;
    }
    Ok(())
}

fn decode(row: &Row) -> Result<Deployment, Error> {
    let number = row.get("number")?;
    let of: Option<u32> = row.get("cause_of")?;
    let release = match optional(row, "image", |t| ImageRef::parse(t).ok())? {
        None => None,
        Some(image) => {
            Some(Release { number, image, port: row.get("port")?, port_known: row.get("port_known")? })
        }
    };
    Ok(Deployment {
        project: text(row, "project_id", ProjectId::parse)?,
        number,
        cause: text(row, "cause", |word| cause_of(word, of))?,
        step: text(row, "step", |word| Step::WORDS.iter().find(|(_, w)| *w == word).map(|(step, _)| *step))?,
        outcome: text(row, "outcome", |word| {
            Outcome::WORDS.iter().find(|(_, w)| *w == word).map(|(it, _)| *it)
        })?,
        reason: row.get::<_, Option<String>>("reason")?.map(Into::into),
        commit: row.get("commit_id")?,
        template: optional(row, "template", |t| Template::parse(t).ok())?,
        release,
        residue: row.get::<_, String>("residue")?.split_whitespace().map(str::to_owned).collect(),
        created_at: from_secs(row.get("created_at")?),
        ended_at: row.get::<_, Option<i64>>("ended_at")?.map(from_secs),
    })
}

fn cause_word(cause: Cause) -> (&'static str, Option<u32>) {
    match cause {
        Cause::Created => ("created", None),
        Cause::Asked => ("asked", None),
        Cause::Pushed => ("pushed", None),
        Cause::Rollback(of) => ("rollback", Some(of)),
        Cause::Recovery(of) => ("recovery", Some(of)),
    }
}

fn cause_of(word: &str, of: Option<u32>) -> Option<Cause> {
    match (word, of) {
        ("created", _) => Some(Cause::Created),
        ("asked", _) => Some(Cause::Asked),
        ("pushed", _) => Some(Cause::Pushed),
        ("rollback", Some(of)) => Some(Cause::Rollback(of)),
        ("recovery", Some(of)) => Some(Cause::Recovery(of)),
        _ => None,
    }
}
