//! The supervisor's part that knows versions: which deployment has its turn, when a new version takes over, and when an old one returns.
//!
//! A version comes up beside the one that serves, by the same lifecycle, and takes its place once it is ready and that is recorded. Then
//! the old one drains, gets its grace and goes. What fails on the way leaves the old one as it is.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Sender, bounded};

use super::entry::{Active, Entry, Tenant};
use super::supervisor::{Supervisor, Write};
use super::{Build, BuildFailure, Built, Command, Refused, Reply, Slot, Told};
use crate::domain::deployment::Outcome;
use crate::domain::lifecycle::Input;
use crate::domain::{Addressed, Cause, Deployment, Desired, Event, Level, ProjectId, Release, Status, Step};
use crate::limits;
use crate::store;

/// What is being built.
pub(super) struct Building {
    slot: Slot,
    /// Dropped when it is not wanted any more.
    stop: Option<Sender<()>>,
}

/// What there is to say of a project while the version before this deployment serves on.
fn trouble(ended: &Deployment) -> Option<Arc<str>> {
    let what = match ended.outcome {
        Outcome::Failed => "failed",
        Outcome::Interrupted => "was interrupted",
        Outcome::Open | Outcome::Ready | Outcome::Cancelled | Outcome::Superseded => return None,
    };
    Some(format!("The last deployment {what}: {}", ended.reason.as_deref().unwrap_or_default()).into())
}

/// How far a deployment is, in percent, when its new container starts; before that the build says it.
const PERCENT_STARTS: u8 = 90;

impl Supervisor {
    /// Takes in how a project's last deployment went, as the store knows it.
    pub(super) fn remember(&mut self, ended: Option<Deployment>) {
        let Some(ended) = ended.filter(|it| it.outcome != Outcome::Open) else { return };
        if let Some(entry) = self.entries.get_mut(&ended.project) {
            entry.trouble = trouble(&ended);
            entry.last = Some(Arc::new(ended));
        }
    }

    /// Says of the projects that have no version, and none on its way, why that is.
    pub(super) fn tell_unbuilt(&mut self) {
        for id in self.ids() {
            self.tell_if_unbuilt(id);
            self.tell_changed_status(id);
        }
    }

    fn tell_if_unbuilt(&mut self, id: ProjectId) {
        let Some(entry) = self.entries.get(&id) else { return };
        let project = &entry.current.project;
        if project.is_built()
            && entry.current.life.desired() != Desired::Stopped
            && project.release.is_none()
            && entry.active.is_none()
            && entry.waiting.is_none()
        {
            let reason = entry.last.as_ref().and_then(|last| last.reason.as_deref());
            let reason = reason.unwrap_or("It was not deployed yet").to_owned();
            self.step(id, Input::NotBuilt(reason));
        }
    }

    /// A deployment was recorded.
    pub(super) fn queued(&mut self, deployment: Deployment, reply: Reply) {
        let (id, cause) = (deployment.project, deployment.cause);
        if !self.entries.get(&id).is_some_and(|entry| entry.current.life.is_visible()) {
            drop(reply.try_send(Err(Refused::NotFound)));
            return;
        }
        if cause == Cause::Asked {
            self.step(id, Input::Wanted);
        }
        let releasing = |entry: &Entry| entry.active.as_ref().is_some_and(|active| active.releasing);
        let again = deployment.release.is_some() && !self.entries.get(&id).is_some_and(releasing);
        // Before what is under way ends: there is no moment between the two, and what waited is not begun in it.
        self.enqueue(deployment);
        if again {
            self.finish(id, Outcome::Superseded, "A later deployment went back to an earlier version");
        }
        self.next_build();
        self.tell_changed_status(id);
        self.mark(id);
        self.answer_later(id, reply);
    }

    /// Gives a deployment its place; one of the same project that waits has given way to it.
    pub(super) fn enqueue(&mut self, deployment: Deployment) {
        let id = deployment.project;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.waiting = Some(deployment);
        if !self.queue.contains(&id) {
            self.queue.push_back(id);
        }
        let earlier = entry.waiting.as_ref().and_then(|it| it.cause.of());
        let others = usize::from(self.building.is_some()) + self.queue.len() - 1;
        let message = match (earlier, others) {
            (Some(earlier), _) => format!("Going back to deployment {earlier}"),
            (None, 0) => "Queued".to_owned(),
            (None, others) => format!("Queued behind {others}"),
        };
        self.progress(id, Step::Queued, 0, &message, Level::Info);
    }

    /// A version whose image is there comes up at once, as soon as none of its project is under way.
    fn begin_again(&mut self) {
        let ready = |id: &ProjectId| {
            let entry = self.entries.get(id).filter(|entry| entry.active.is_none());
            entry.and_then(|entry| entry.waiting.as_ref()).is_some_and(|it| it.release.is_some())
        };
        for id in self.queue.iter().filter(|id| ready(id)).copied().collect::<Vec<_>>() {
            self.queue.retain(|queued| *queued != id);
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let Some(deployment) = entry.waiting.take() else { continue };
            entry.active = Some(Active { deployment, percent: 0, releasing: false });
            self.begin_start(id);
        }
    }

    /// Hands the next deployment over to be built, if nothing is being built; what needs no build waits for none.
    pub(super) fn next_build(&mut self) {
        self.begin_again();
        if self.building.is_some() || !self.engine.up {
            return;
        }
        let Some(id) = self.next_in_turn() else { return };
        self.queue.retain(|queued| *queued != id);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        self.last_built = Some(entry.current.project.owner);
        let Some(mut deployment) = entry.waiting.take() else { return };
        deployment.step = Step::Clone;
        let (stop, stopped) = bounded(0);
        let build = Build {
            deployment: deployment.clone(),
            project: Arc::clone(&entry.current.project),
            stop: stopped,
        };
        entry.trouble = None;
        entry.active = Some(Active { deployment: deployment.clone(), percent: 0, releasing: false });
        let slot = (id, deployment.number);
        self.unsaved.push_back(Write::Deployment(Box::new(deployment), false));
        self.mark(id);
        if self.builds.try_send(build).is_ok() {
            self.building = Some(Building { slot, stop: Some(stop) });
        } else {
            self.finish(id, Outcome::Failed, "Nothing can be built at the moment");
        }
    }

    /// The project whose deployment is built next: the first one of another owner than the last, if there is one.
    fn next_in_turn(&self) -> Option<ProjectId> {
        let free = |id: &&ProjectId| self.entries.get(id).is_some_and(|entry| entry.active.is_none());
        let owner = |id: &ProjectId| self.entries.get(id).map(|entry| entry.current.project.owner);
        let other = self.queue.iter().filter(free).find(|id| owner(id) != self.last_built);
        other.or_else(|| self.queue.iter().find(free)).copied()
    }

    /// Something about a deployment that is being built.
    pub(super) fn deployment_told(&mut self, id: ProjectId, number: u32, told: Told) {
        let ended = matches!(told, Told::Ended(_));
        if ended && self.building.as_ref().is_some_and(|building| building.slot == (id, number)) {
            self.building = None;
        }
        let active = self.entries.get_mut(&id).and_then(|entry| entry.active.as_mut());
        if let Some(active) = active.filter(|active| active.deployment.number == number) {
            let deployment = &mut active.deployment;
            let before = deployment.clone();
            match told {
                Told::Progress { step, percent, message, level } => {
                    deployment.step = step;
                    self.progress(id, step, percent.min(PERCENT_STARTS), &message, level);
                }
                Told::Commit(commit) => deployment.commit = Some(commit),
                Told::Template(template) => {
                    deployment.template = Some(template);
                    self.found_template(id, template);
                }
                Told::Ended(Ok(built)) => self.built(id, built),
                Told::Ended(Err(failure)) => self.build_failed(id, failure),
            }
            self.save_if_changed(id, &before);
        } else if let Told::Ended(result) = told {
            // Nobody waits for it any more.
            let residue = result.map_or_else(|failure| failure.residue, |built| built.residue);
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.strays.extend(residue);
                entry.tidy_at = Some(Instant::now() + limits::BUILD_UNWIND);
            }
        }
        if ended {
            self.try_erase(id);
            self.next_build();
        }
    }

    fn save_if_changed(&mut self, id: ProjectId, before: &Deployment) {
        let active = self.entries.get(&id).and_then(|entry| entry.active.as_ref());
        // What is being recorded as the project's version says all of it.
        let active = active.filter(|active| !active.releasing);
        if let Some(now) =
            active.map(|active| &active.deployment).filter(|it| it.number == before.number && *it != before)
        {
            self.unsaved.push_back(Write::Deployment(Box::new(now.clone()), false));
            self.mark(id);
        }
    }

    fn found_template(&mut self, id: ProjectId, template: crate::domain::Template) {
        let Some(entry) = self.entries.get_mut(&id).filter(|it| !it.current.project.template_chosen) else {
            return;
        };
        Arc::make_mut(&mut entry.current.project).template = template;
        self.mark(id);
    }

    fn built(&mut self, id: ProjectId, built: Built) {
        let Some(active) = self.entries.get_mut(&id).and_then(|entry| entry.active.as_mut()) else { return };
        active.deployment.release = Some(built.release);
        active.deployment.residue = built.residue;
        active.deployment.step = Step::Start;
        self.begin_start(id);
    }

    fn build_failed(&mut self, id: ProjectId, failure: BuildFailure) {
        if let Some(active) = self.entries.get_mut(&id).and_then(|entry| entry.active.as_mut()) {
            active.deployment.residue = failure.residue;
        }
        self.finish(id, Outcome::Failed, &failure.reason);
    }

    /// Brings the new version up beside the present one; that of a stopped project is only recorded.
    fn begin_start(&mut self, id: ProjectId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(active) = &mut entry.active else { return };
        active.deployment.step = Step::Start;
        if entry.current.life.desired() == Desired::Stopped {
            self.release(id);
            return;
        }
        let mut project = (*entry.current.project).clone();
        project.release.clone_from(&active.deployment.release);
        let slot = (id, active.deployment.number);
        let message = match active.deployment.cause.of() {
            Some(earlier) => format!("Starting the version of deployment {earlier}"),
            None => "Starting the new version".to_owned(),
        };
        self.unsaved.push_back(Write::Deployment(Box::new(active.deployment.clone()), false));
        let tenant = Tenant::new(project, Desired::Running, Instant::now());
        self.names.insert(tenant.project.container_name(), slot);
        entry.next = Some(tenant);
        self.ops.note(id, slot.1, &message);
        self.progress(id, Step::Start, PERCENT_STARTS, &message, Level::Info);
        if self.engine.up {
            self.step_at(slot, Input::EngineBack);
        }
        if self
            .entries
            .get(&id)
            .is_some_and(|it| it.next.as_ref().is_some_and(|next| next.number() == slot.1))
        {
            self.step_at(slot, Input::Start);
        }
    }

    /// Looks at what a step has changed between versions.
    pub(super) fn judge_versions(&mut self, id: ProjectId) {
        let Some(entry) = self.entries.get(&id) else { return };
        let releasing = entry.active.as_ref().is_none_or(|active| active.releasing);
        if let Some(next) = entry.next.as_ref().filter(|next| !releasing && !next.life.is_undecided()) {
            let reason = next.life.reason().map(str::to_owned);
            match next.life.status() {
                Status::Running => self.release(id),
                Status::Error => self.finish(id, Outcome::Failed, &reason.unwrap_or_default()),
                Status::Stopped | Status::Inactive => {
                    self.finish(id, Outcome::Failed, "The new container was stopped before it was ready");
                }
                Status::Deploying => {}
            }
        }
        self.judge_probation(id);
    }

    /// A version that crashes soon after it took over gives way to the one before it.
    fn judge_probation(&mut self, id: ProjectId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some((_, earlier)) = entry.probation else { return };
        let Some(crash) = entry.current.life.crash().map(str::to_owned) else { return };
        entry.probation = None;
        entry.tidy_at = None;
        let crash = crash.split("; starting it again").next().unwrap_or_default();
        let seconds = limits::PROBATION.as_secs();
        // A newer one may be what mends it.
        let newer = entry.active.is_some() || entry.waiting.is_some();
        let then = if newer {
            "a newer deployment is on its way".to_owned()
        } else {
            format!("going back to deployment {earlier}")
        };
        entry.recover = newer.then_some(earlier);
        let reason = format!("It crashed within {seconds} s of taking over ({crash}): {then}");
        if let Some(last) = entry.last.as_deref().filter(|last| last.number == entry.current.number()) {
            let mut failed = last.clone();
            failed.outcome = Outcome::Failed;
            failed.reason = Some(reason.as_str().into());
            entry.last = Some(Arc::new(failed.clone()));
            self.unsaved.push_back(Write::Deployment(Box::new(failed), false));
        }
        let number = entry.current.number();
        self.ops.note(id, number, &reason);
        self.progress(id, Step::Ready, 100, &reason, Level::Error);
        if !newer {
            self.unsaved.push_back(Write::Recover(id, earlier));
        }
    }

    /// The newer deployment that was to mend a version which crashes has not.
    fn recover_at_last(&mut self, id: ProjectId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.active.is_none()
            && entry.waiting.is_none()
            && let Some(earlier) = entry.recover.take()
        {
            self.unsaved.push_back(Write::Recover(id, earlier));
        }
    }

    /// Has the version of the deployment under way recorded as the project's.
    fn release(&mut self, id: ProjectId) {
        let Some(active) = self.entries.get_mut(&id).and_then(|entry| entry.active.as_mut()) else { return };
        active.releasing = true;
        self.unsaved
            .push_back(Write::Deployment(Box::new(active.deployment.clone().ready(SystemTime::now())), true));
        self.offer_again();
    }

    /// How far a deployment came is durable, or is not.
    pub(super) fn deployment_saved(
        &mut self,
        id: ProjectId,
        number: u32,
        released: bool,
        result: &Result<(), store::Error>,
    ) {
        if let Err(error) = result {
            log::error!("store: deployment {number} of {id} cannot be saved: {error}");
            if let Some(entry) =
                self.entries.get_mut(&id).filter(|_| !released && *error != store::Error::NotFound)
            {
                entry.save_again = Some((Instant::now() + limits::SAVE_AGAIN, number));
            }
        }
        let active = self.entries.get_mut(&id).and_then(|entry| entry.active.as_mut());
        let Some(active) = active.filter(|active| released && active.deployment.number == number) else {
            return;
        };
        if result.is_ok() {
            self.switch(id);
        } else {
            active.releasing = false;
            self.finish(id, Outcome::Failed, "It could not be recorded; the log of muelle says why");
        }
    }

    /// The new version is the project's.
    fn switch(&mut self, id: ProjectId) {
        self.forget_wakes(id);
        let now = Instant::now();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(Active { deployment, .. }) = entry.active.take() else { return };
        let deployment = deployment.ready(SystemTime::now());
        let (started, desired) = (entry.next.is_some(), entry.current.life.desired());
        // With what was set while it came up.
        let mut project = (*entry.current.project).clone();
        project.release.clone_from(&deployment.release);
        let mut tenant = entry.next.take().unwrap_or_else(|| Tenant::new(project.clone(), desired, now));
        tenant.project = Arc::new(project);
        self.names.insert(tenant.project.container_name(), (id, tenant.number()));
        let old = std::mem::replace(&mut entry.current, tenant);
        let may_return = started && old.number() != 0 && !matches!(deployment.cause, Cause::Recovery(_));
        entry.probation = may_return.then(|| (now + limits::PROBATION, old.number()));
        entry.tidy_at = (!may_return).then_some(now);
        (entry.trouble, entry.recover) = (None, None);
        let number = deployment.number;
        entry.last = Some(Arc::new(deployment));
        let drains = started && old.life.is_up() && desired != Desired::Stopped;
        let message = if started {
            "The new version serves"
        } else {
            "Built; not started, since the project is stopped"
        };
        self.ops.note(id, number, message);
        self.progress(id, Step::Ready, 100, message, Level::Info);
        self.mark(id);
        if old.number() != 0 {
            self.retire(id, old, if drains { limits::DRAIN } else { Duration::ZERO });
        }
        if !started && self.engine.up {
            self.step(id, Input::EngineBack);
        }
        if started && desired == Desired::Stopped {
            self.step(id, Input::Stop);
        }
        self.tell_changed_status(id);
        self.next_build();
    }

    /// Ends the deployment under way without a new version, and tells what the project is then.
    fn finish(&mut self, id: ProjectId, outcome: Outcome, reason: &str) {
        let next = self.end_quietly(id, outcome, reason);
        if outcome != Outcome::Superseded {
            // Before the new version goes: what never ran is an error at once, and not stopped for a moment.
            self.tell_if_unbuilt(id);
        }
        if let Some(next) = next {
            self.retire(id, next, Duration::ZERO);
        }
        if outcome != Outcome::Superseded {
            self.tell_changed_status(id);
        }
        self.next_build();
        self.recover_at_last(id);
    }

    /// The same where the caller tells, and retires the version that did not take over.
    fn end_quietly(&mut self, id: ProjectId, outcome: Outcome, reason: &str) -> Option<Tenant> {
        let entry = self.entries.get_mut(&id)?;
        let Active { mut deployment, percent, .. } = entry.active.take()?;
        let slot = (id, deployment.number);
        if let Some(building) = self.building.as_mut().filter(|building| building.slot == slot) {
            building.stop = None;
        }
        deployment.outcome = outcome;
        deployment.reason = Some(reason.into());
        deployment.ended_at = Some(SystemTime::now());
        entry.trouble = trouble(&deployment);
        entry.tidy_at = Some(Instant::now());
        let step = deployment.step;
        self.unsaved.push_back(Write::Deployment(Box::new(deployment.clone()), false));
        entry.last = Some(Arc::new(deployment));
        let next = entry.next.take();
        log::info!("deployment {} of {id} ended at {}: {}", slot.1, step.word(), outcome.word());
        self.ops.note(id, slot.1, &format!("{}: {reason}", outcome.word()));
        let level = if outcome == Outcome::Failed { Level::Error } else { Level::Warn };
        self.progress(id, step, percent, reason, level);
        self.mark(id);
        next
    }

    pub(super) fn retire(&mut self, id: ProjectId, tenant: Tenant, after: Duration) {
        let slot = (id, tenant.number());
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.leaving.push(tenant);
            self.step_at(slot, Input::Retire(after));
        }
    }

    /// A container that an earlier life of this process left: of a version that never took over, or that was on its way out.
    pub(super) fn remove_leftover(&mut self, id: ProjectId, number: u32) {
        let other = |entry: &&Entry| entry.tenants().all(|tenant| tenant.number() != number);
        let Some(entry) = self.entries.get(&id).filter(other) else { return };
        let mut project = (*entry.current.project).clone();
        let Some(image) = project.image().cloned().or_else(|| crate::domain::ImageRef::parse("gone").ok())
        else {
            return;
        };
        project.release = Some(Release { number, image, port: 0, port_known: false });
        log::info!(
            "removing the container of deployment {number} of {id}, which did not take over or was replaced"
        );
        let tenant = Tenant::new(project, Desired::Running, Instant::now());
        self.names.insert(tenant.project.container_name(), (id, number));
        self.retire(id, tenant, Duration::ZERO);
        if self.engine.up {
            self.step_at((id, number), Input::EngineBack);
        }
    }

    /// A version is gone for good.
    pub(super) fn left(&mut self, slot: Slot) {
        if let Some(entry) = self.entries.get_mut(&slot.0) {
            entry.leaving.retain(|tenant| tenant.number() != slot.1);
            self.names.retain(|_, known| *known != slot);
            if entry.probation.is_none() {
                // Its image could not go before it.
                entry.tidy_at.get_or_insert_with(Instant::now);
            }
            self.try_erase(slot.0);
        }
    }

    /// What a person's command means for deployments; gives the version that goes with it.
    pub(super) fn decided(&mut self, id: ProjectId, command: Command) -> Option<Tenant> {
        let entry = self.entries.get_mut(&id)?;
        entry.probation = None;
        (entry.trouble, entry.recover) = (None, None);
        let starting = entry.next.is_some() && entry.active.as_ref().is_some_and(|active| !active.releasing);
        match command {
            Command::Stop if starting => {
                self.end_quietly(id, Outcome::Cancelled, "It was stopped before it was ready")
            }
            Command::Delete => {
                entry.waiting = None;
                self.queue.retain(|queued| *queued != id);
                self.end_quietly(id, Outcome::Cancelled, "The project was deleted")
            }
            _ => None,
        }
    }

    /// Nobody needs the versions any more that are on their way out.
    pub(super) fn hurry(&mut self, id: ProjectId) {
        let leaving =
            self.entries.get(&id).map(|it| it.leaving.iter().map(Tenant::number).collect::<Vec<_>>());
        for number in leaving.unwrap_or_default() {
            self.step_at((id, number), Input::Retire(Duration::ZERO));
        }
    }

    /// Gives up a deployment that waits or is under way.
    pub(super) fn cancel(&mut self, id: ProjectId, number: u32, reply: Reply) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if let Some(mut waiting) = entry.waiting.take_if(|waiting| waiting.number == number) {
            self.queue.retain(|queued| *queued != id);
            waiting.outcome = Outcome::Cancelled;
            waiting.reason = Some("It was cancelled before it began".into());
            waiting.ended_at = Some(SystemTime::now());
            self.unsaved.push_back(Write::Deployment(Box::new(waiting.clone()), false));
            if entry.active.is_none() {
                entry.last = Some(Arc::new(waiting));
                self.tell_if_unbuilt(id);
            }
            self.tell_changed_status(id);
            self.mark(id);
        } else if entry.active.as_ref().is_some_and(|it| it.deployment.number == number && !it.releasing) {
            self.finish(id, Outcome::Cancelled, "It was cancelled");
        } else {
            drop(reply.try_send(Err(Refused::NotUnderWay)));
            return;
        }
        self.answer_later(id, reply);
    }

    /// The last container of a project that is being deleted is gone.
    pub(super) fn forget(&mut self, id: ProjectId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.current.project.is_built() {
            entry.erase = true;
            self.try_erase(id);
        } else {
            self.unsaved.push_back(Write::Forget(id));
        }
    }

    /// Removes images and logs of a project that is being deleted, once nothing makes new ones.
    fn try_erase(&mut self, id: ProjectId) {
        let building = self.building.as_ref().is_some_and(|building| building.slot.0 == id);
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.erase && !building) else { return };
        let early = entry.tidy_at.is_some_and(|at| at > Instant::now());
        if !early && entry.next.is_none() && entry.leaving.is_empty() && !entry.cleaning {
            let strays = std::mem::take(&mut entry.strays);
            self.clean(id, strays);
        }
    }

    /// Has a project's images and logs cleaned up, as its state wants; where that is not possible now, later.
    fn clean(&mut self, id: ProjectId, strays: Vec<String>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let keep = (!entry.erase).then(|| entry.current.number());
        let free = self.cleaners < limits::CLEANERS_AT_ONCE && self.engine.up;
        if free && self.ops.clean(id, keep, strays.clone()).is_ok() {
            self.cleaners += 1;
            (entry.cleaning, entry.tidy_at) = (true, None);
        } else {
            entry.strays = strays;
            entry.tidy_at = Some(Instant::now() + limits::CLEAN_AGAIN);
        }
    }

    /// A clean-up has ended; what it could not remove is tried again.
    pub(super) fn cleaned(&mut self, id: ProjectId, all: bool, left: Result<(), Vec<String>>) {
        self.cleaners -= 1;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.cleaning = false;
        match left {
            Ok(()) if all => self.unsaved.push_back(Write::Forget(id)),
            // It was about what is not kept when the project was still there.
            Ok(()) => self.try_erase(id),
            Err(strays) => {
                entry.strays.extend(strays);
                entry.tidy_at = Some(Instant::now() + limits::CLEAN_AGAIN);
            }
        }
    }

    /// After a start nobody knows what an earlier life left.
    pub(super) fn clean_all(&mut self) {
        for entry in self.entries.values_mut().filter(|entry| entry.current.project.is_built()) {
            entry.tidy_at.get_or_insert_with(Instant::now);
        }
    }

    /// What is due of a project beside its containers.
    pub(super) fn take_due_of_deployments(&mut self, id: ProjectId, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.probation.take_if(|(until, _)| *until <= now).is_some() {
            entry.tidy_at = Some(now);
        }
        if let Some((_, number)) = entry.save_again.take_if(|(at, _)| *at <= now)
            && let Some(known) = entry.known(number)
        {
            self.unsaved.push_back(Write::Deployment(Box::new(known.clone()), false));
        }
        if entry.tidy_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        if entry.erase {
            self.try_erase(id);
        } else if self.building.is_some() || entry.cleaning {
            // A build may be about to use what would be removed.
            entry.tidy_at = Some(now + limits::CLEAN_AGAIN);
        } else {
            let strays = std::mem::take(&mut entry.strays);
            self.clean(id, strays);
        }
    }

    /// Tells how far the deployment of a project is. The number never goes back.
    fn progress(&mut self, id: ProjectId, step: Step, percent: u8, message: &str, level: Level) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let percent = match &mut entry.active {
            Some(active) => {
                active.percent = active.percent.max(percent);
                active.percent
            }
            None => percent,
        };
        let (owner, message, at) = (entry.current.project.owner, message.into(), SystemTime::now());
        let event = Event::Progress { project: id, step, percent, message, level, at };
        self.events.push(Addressed { owner, event });
    }
}
