//! The door to the apps: finds a project by the host of a request, and passes the request on. It faces the internet.
//!
//! Knows hosts, gates and HTTP between a client and an app. Decides nothing about projects: where the gate is closed it says so. Runs on
//! the client's connection thread.

pub mod activity;
pub mod forward;
pub mod route;
#[cfg(test)]
mod tests;
pub mod tunnel;
pub mod upstream;
pub mod waiting;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use activity::Activity;
use forward::{Failed, Origin, forward, passages};
use route::Routes;
use upstream::{Error, Patience, Pool};

use crate::domain::Status;
use crate::http::{Handler, Head, Method, Refusal, Request, Response};
use crate::limits;
use crate::runtime::{Entrance, Pass, Place, Runtime, View};

/// What the proxy is made of.
pub struct Settings {
    /// Shows the projects and their gates.
    pub runtime: Runtime,
    /// Whose a host is.
    pub routes: Arc<Routes>,
    /// Proxies whose word about the client is taken.
    pub trusted_peers: Vec<IpAddr>,
    /// Whose requests keep an app awake, and wake it.
    pub activity: Activity,
    /// How long a request is held for an app that starts.
    pub wake_max: Duration,
    /// How many are held for all apps: the others' requests need threads, too.
    pub waiting_max: usize,
    /// How long apps are waited for.
    pub patience: Patience,
    /// The host under which the API answers here too, and what answers.
    pub panel: Option<(String, Arc<dyn Handler>)>,
}

/// The proxy.
pub struct Proxy {
    settings: Settings,
    pool: Arc<Pool>,
    /// Requests that are held.
    waiting: AtomicUsize,
}

impl Proxy {
    /// Makes it. No I/O.
    #[must_use]
    pub fn new(settings: Settings) -> Proxy {
        Proxy { pool: Arc::new(Pool::new(settings.patience)), waiting: AtomicUsize::new(0), settings }
    }

    fn answer(&self, request: &mut Request<'_>, view: &View) -> Response {
        if passages(request.head()) > limits::PROXY_PASSAGES_MAX {
            return page(508, "This app sends its requests back to where they come from");
        }
        let is_person = self.settings.activity.is_person(request.head());
        let (began, entered) = (Instant::now(), view.gate.enter());
        let waited = entered.is_none();
        let pass = match entered.map_or_else(|| self.wait(request, view, is_person), Ok) {
            Ok(pass) => pass,
            Err(response) => return response,
        };
        let peer = request.peer().ip().to_canonical();
        let is_trusted = self.settings.trusted_peers.contains(&peer);
        let origin = Origin { peer, is_trusted, is_person, scheme: self.settings.routes.addresses().scheme };
        match forward(request, pass, &self.pool, &origin) {
            Ok(response) => {
                if waited {
                    self.settings.runtime.woken(view.project.id, began);
                }
                response
            }
            Err(Failed::Client(refusal)) => self.refuse(&refusal, None),
            Err(Failed::App(error)) => {
                log::debug!("{}: {error}", view.project.id);
                unanswered(&error)
            }
        }
    }

    /// Holds a request until its app is there, and has one that is asleep woken. The body is not read until then.
    fn wait(&self, request: &Request<'_>, view: &View, is_person: bool) -> Result<Pass, Response> {
        let (id, began) = (view.project.id, Instant::now());
        let navigates = is_navigation(request.head());
        let mut patience = if navigates { limits::PROXY_PAGE_AFTER } else { self.settings.wake_max };
        let mut ended = None;
        let _waits = Waits::begin(&self.waiting);
        let free = self.waiting.load(Ordering::Relaxed) <= self.settings.waiting_max;
        let place = if free { view.gate.place() } else { None };
        loop {
            let snapshot = self.settings.runtime.snapshot();
            let now = snapshot.projects.get(&id).ok_or_else(|| page(404, "There is nothing here"))?;
            let unplaced = || view.gate.enter().map_or(Entrance::Closed, Entrance::Passed);
            let queued = match place.as_ref().map_or_else(unplaced, Place::enter) {
                Entrance::Passed(pass) => return Ok(pass),
                Entrance::Queued => true,
                Entrance::Closed => false,
            };
            let engine = snapshot.engine.up;
            let sees = navigates
                && match now.status {
                    Status::Stopped | Status::Error => true,
                    Status::Inactive | Status::Deploying => is_person,
                    // What has no address is no matter of time.
                    Status::Running => queued,
                };
            let refused = || if sees { waiting::page(now, engine) } else { closed(now) };
            let comes = queued || (is_person && self.comes_up(now, engine, began));
            if !comes {
                return Err(refused());
            }
            if request.has_ended() {
                ended.get_or_insert_with(|| began.elapsed());
            }
            patience = ended.map_or(patience, |at| patience.min(at + limits::PROXY_LEFT_MAX));
            let left = patience.saturating_sub(began.elapsed());
            let Some(place) = place.as_ref().filter(|_| !left.is_zero()) else {
                // Not refused only because its turn has not come, where the app is up.
                let late = view.gate.enter().filter(|_| queued && !sees);
                return late.ok_or_else(refused);
            };
            place.wait(left.min(limits::PROXY_WAIT_TICK));
        }
    }

    /// Whether an app that nobody may pass to is on its way up; has it woken where that takes a request.
    fn comes_up(&self, now: &View, engine: bool, began: Instant) -> bool {
        let comes = match now.status {
            Status::Stopped => false,
            Status::Error => engine && now.wakes_in(Instant::now()) == Some(Duration::ZERO),
            // It has no address.
            Status::Running => began.elapsed() < limits::PROXY_PAGE_AFTER,
            Status::Inactive | Status::Deploying => true,
        };
        if comes {
            // Also what is just falling asleep.
            self.settings.runtime.wake(now.project.id, began);
        }
        comes
    }
}

/// Counts a request that is held, until it is dropped.
struct Waits<'p>(&'p AtomicUsize);

impl Waits<'_> {
    fn begin(count: &AtomicUsize) -> Waits<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        Waits(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a browser opens a page, and a person sees what comes back.
fn is_navigation(head: &Head) -> bool {
    let page = head.get("accept").is_some_and(|accept| accept.contains("text/html"));
    // A frame would not show it.
    let is = |name: &str, value: &str| head.get(name).is_none_or(|found| found == value);
    let navigates = is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document");
    *head.method() == Method::Get && page && navigates && !head.lists("connection", "upgrade")
}

impl Handler for Proxy {
    fn handle(&self, request: &mut Request<'_>) -> Response {
        let host = request.head().get("host").unwrap_or_default().to_owned();
        if let Some((panel, handler)) = &self.settings.panel
            && route::is(&host, panel)
        {
            return handler.handle(request);
        }
        match self.settings.routes.find(&host) {
            Some(view) if request.head().path().starts_with(waiting::RESERVED) => {
                let engine = self.settings.runtime.snapshot().engine.up;
                waiting::reserved(request.head().path(), &view, engine)
            }
            Some(view) => self.answer(request, &view),
            None => page(404, "There is nothing here"),
        }
    }

    fn refuse(&self, refusal: &Refusal, _: Option<&Head>) -> Response {
        page(refusal.status(), &refusal.to_string())
    }
}

/// What is said where the app says nothing that makes sense.
fn unanswered(error: &Error) -> Response {
    match error {
        Error::Timeout => page(504, "The app did not answer in time"),
        Error::Broken(_) | Error::Malformed(_) => page(502, "The app did not answer"),
    }
}

/// What is said where nobody may pass.
fn closed(view: &View) -> Response {
    let sentence = match view.status {
        Status::Stopped => "This app is stopped",
        Status::Error => "This app does not run",
        Status::Inactive => "This app is asleep",
        Status::Deploying => "This app is starting",
        Status::Running => "This app cannot be reached now",
    };
    let response = page(503, sentence);
    match view.status {
        Status::Stopped | Status::Error => match again_in(view) {
            Some(seconds) => response.header("Retry-After", seconds),
            None => response,
        },
        Status::Running | Status::Deploying | Status::Inactive => {
            response.header("Retry-After", limits::PROXY_RETRY_AFTER_S)
        }
    }
}

/// In how many seconds a request tries it again, where it failed when one woke it.
fn again_in(view: &View) -> Option<u64> {
    let left = view.wakes_in(Instant::now()).filter(|left| !left.is_zero());
    left.map(|left| left.as_secs() + 1)
}

#[cfg(test)]
fn closed_at() -> Response {
    page(503, "closed")
}

fn page(status: u16, sentence: &str) -> Response {
    Response::bytes(status, format!("{sentence}\n"))
        .header("Content-Type", "text/plain; charset=utf-8")
        .header("Cache-Control", "no-store")
        .header("X-Content-Type-Options", "nosniff")
}
