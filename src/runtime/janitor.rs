//! Removes what deployments leave: images that are not kept, their nameless beginnings, records and logs.
//!
//! Decides nothing but by the rule of how many are kept. Runs on an `op-N` thread.

use std::time::Instant;

use crate::docker::{self, Docker, ImageRow};
use crate::domain::deployment::Outcome;
use crate::domain::{Deployment, ImageRef, ProjectId};
use crate::limits;
use crate::store::{self, Logs, Store};

/// Why something could not be removed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Docker(#[from] docker::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it takes longer than a job may: the rest comes later")]
    NotDone,
}

/// Where things are.
pub(super) struct Janitor<'a> {
    pub docker: &'a Docker,
    pub store: &'a Store,
    pub logs: &'a Logs,
    pub instance: &'a str,
    /// When it leaves the rest for another time: one image can take a minute, and a thread must not look stuck.
    pub until: Instant,
}

impl Janitor<'_> {
    /// Keeps the version with the number `current`, those that are under way, and the newest ready ones, up to `keep` images. `strays` go.
    pub fn tidy(&self, id: ProjectId, current: u32, keep: usize, strays: &[String]) -> Result<(), Error> {
        let rows = self.store.reader()?.deployments(id)?;
        let kept = images_to_keep(&rows, current, keep);
        let open: Vec<u32> =
            rows.iter().filter(|row| row.outcome == Outcome::Open).map(|row| row.number).collect();
        // First, so that nobody goes back to an image that is being removed.
        let oldest = rows.first().map_or(0, |row| row.number.saturating_sub(limits::DEPLOYMENTS_KEPT - 1));
        let is_gone = |row: &&Deployment| {
            let image = row.release.as_ref().is_some_and(|release| !kept.contains(&&release.image));
            image && !open.contains(&row.number)
        };
        let gone = rows.iter().filter(is_gone).map(|row| row.number).collect();
        self.store.tidy_deployments(id, gone, oldest)?;
        for image in self.docker.images_of(self.instance, Some(id))? {
            let building = image.deployment.is_some_and(|number| open.contains(&number));
            if building {
                continue;
            }
            for tag in image.tags.iter().filter(|tag| !kept.contains(tag)) {
                self.remove(id, tag)?;
            }
            self.remove_nameless(&image)?;
        }
        for stray in strays {
            self.remove_residue(stray)?;
        }
        // The newest is the next build's cache.
        let ended: Vec<&Deployment> =
            rows.iter().filter(|row| row.outcome != Outcome::Open && !row.residue.is_empty()).collect();
        if let Some((newest, older)) = ended.split_first() {
            for residue in older.iter().flat_map(|row| &row.residue).filter(|id| !newest.residue.contains(id))
            {
                self.remove_residue(residue)?;
            }
        }
        let left = self.store.reader()?.deployments(id)?;
        let newest = left.first().map_or(0, |row| row.number);
        Ok(self.logs.retain(id, |number| number > newest || left.iter().any(|row| row.number == number))?)
    }

    /// Removes everything of a project; its containers are gone.
    pub fn erase(&self, id: ProjectId, strays: &[String]) -> Result<(), Error> {
        let rows = self.store.reader()?.deployments(id)?;
        for image in self.docker.images_of(self.instance, Some(id))? {
            for tag in &image.tags {
                self.remove(id, tag)?;
            }
            self.remove_nameless(&image)?;
        }
        for residue in rows.iter().flat_map(|row| &row.residue).chain(strays) {
            self.remove_residue(residue)?;
        }
        Ok(self.logs.retain(id, |_| false)?)
    }

    /// Takes a name away that is one of this project's: a label finds an image, but a Dockerfile can forge it. What a container still needs
    /// stays.
    fn remove(&self, id: ProjectId, image: &ImageRef) -> Result<(), Error> {
        self.has_time()?;
        if !image.as_str().starts_with(&format!("muelle-{}/{id}:", self.instance)) {
            return Ok(());
        }
        match self.docker.remove_image(image) {
            Err(docker::Error::Conflict(reason)) => {
                log::debug!("docker: {} stays: {reason}", image.as_str());
                Ok(())
            }
            removed => Ok(removed?),
        }
    }

    /// Removes what a build that was given up made last, before it got its name.
    fn remove_nameless(&self, image: &ImageRow) -> Result<(), Error> {
        if image.tags.is_empty() { self.remove_residue(&image.id) } else { Ok(()) }
    }

    fn remove_residue(&self, image: &str) -> Result<(), Error> {
        self.has_time()?;
        self.docker.remove_residue(image)?;
        Ok(())
    }

    fn has_time(&self) -> Result<(), Error> {
        if Instant::now() < self.until { Ok(()) } else { Err(Error::NotDone) }
    }
}

/// Of rows with the newest first.
fn images_to_keep(rows: &[Deployment], current: u32, keep: usize) -> Vec<&ImageRef> {
    // One may have taken over since the caller looked.
    let is_needed = |row: &&Deployment| {
        row.number == current
            || row.outcome == Outcome::Open
            || (row.outcome == Outcome::Ready && row.number > current)
    };
    let ready = rows.iter().filter(|row| row.outcome == Outcome::Ready && row.number < current);
    let (mut kept, mut count): (Vec<&ImageRef>, usize) = (Vec::new(), 0);
    for row in rows.iter().filter(is_needed).chain(ready) {
        let Some(image) =
            row.release.as_ref().map(|release| &release.image).filter(|image| !kept.contains(image))
        else {
            continue;
        };
        let counts = row.outcome != Outcome::Open || row.number == current;
        if !counts || count < keep {
            kept.push(image);
            count += usize::from(counts);
        }
    }
    kept
}
