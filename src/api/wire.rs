//! What clients read: the field names and words of the contract, to the letter.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::domain::idle::Rule;
use crate::domain::traffic::LATENCY_MS;
use crate::domain::wake::{Percentiles, WakeTimes};
use crate::domain::{
    Addresses, Branch, Domain, HealthPath, IdleAfter, Metrics, Project, Source, Status, Sum, Traffic, User,
};
use crate::runtime::View;

/// The words for a status; one of them is a setting.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// `stopped`, or `exited` for a later generation of dashboards.
    pub stopped: &'static str,
}

impl Words {
    /// The word.
    #[must_use]
    pub fn status(self, status: Status) -> &'static str {
        if status == Status::Stopped { self.stopped } else { status.word() }
    }
}

/// `{id, email, name}`.
#[derive(Serialize)]
pub struct UserOut<'a> {
    id: String,
    email: &'a str,
    name: &'a str,
}

impl<'a> From<&'a User> for UserOut<'a> {
    fn from(user: &'a User) -> UserOut<'a> {
        UserOut { id: user.id.to_string(), email: user.email.as_str(), name: user.name.as_str() }
    }
}

/// A project object.
#[derive(Serialize)]
pub struct ProjectOut<'a> {
    id: String,
    name: &'a str,
    status: &'static str,
    url: String,
    template: &'static str,
    github_url: &'a str,
    created_at: String,
    metrics: MetricsOut,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    has_git_token: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    has_webhook: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<DeploymentOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_path: Option<&'a str>,
    host: &'a str,
    domains: Vec<&'a str>,
    port: Option<u16>,
    env: Vec<&'a str>,
    memory_mb: Option<u32>,
    cpus: Option<f64>,
    idle_after: String,
    traffic: TrafficOut,
    sleep: SleepOut,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(rename = "restartRequired", skip_serializing_if = "std::ops::Not::not")]
    restart_required: bool,
}

impl<'a> ProjectOut<'a> {
    /// The view as its owner reads it.
    #[must_use]
    pub fn new(view: &'a View, addresses: Option<&Addresses>, rule: &Rule, words: Words) -> ProjectOut<'a> {
        let Project { id, name, host, source, template, settings, created_at, .. } = &*view.project;
        let traffic = view.traffic();
        let (github_url, image, container) = match source {
            Source::Git(url) => (url.as_str(), None, None),
            Source::Image(image) => ("", Some(image.as_str()), None),
            Source::Container(name) => ("", None, Some(name.as_str())),
        };
        let built = view.project.is_built();
        let current = view.project.release.as_ref().map(|release| release.number);
        ProjectOut {
            id: id.to_string(),
            name: name.as_str(),
            status: words.status(view.status),
            url: url(view, addresses),
            template: template.word(),
            github_url,
            created_at: rfc3339(*created_at),
            metrics: MetricsOut::new(view.metrics.as_ref(), traffic.get(Sum::REQUESTS)),
            source: source.word(),
            image,
            container,
            branch: settings.branch.as_ref().map(Branch::as_str),
            has_git_token: built.then_some(settings.git_token.is_some()),
            has_webhook: built.then_some(view.project.hook_secret.is_some()),
            deployment: view.deployment.as_deref().map(|it| DeploymentOut::new(it, current)),
            health_path: settings.health_path.as_ref().map(HealthPath::as_str),
            host: host.as_str(),
            domains: settings.domains.iter().map(Domain::as_str).collect(),
            port: settings.port,
            env: settings.env.keys().map(crate::domain::EnvName::as_str).collect(),
            memory_mb: settings.memory_mb,
            cpus: settings.cpus,
            idle_after: idle_text(settings.idle_after.unwrap_or_else(|| view.project.idle_after(rule))),
            traffic: TrafficOut::from(traffic),
            sleep: SleepOut::new(&traffic, view.wake_times),
            reason: view.reason.as_deref(),
            restart_required: false,
        }
    }

    /// The same, saying that a setting takes effect at the next start.
    #[must_use]
    pub fn restart_required(self, required: bool) -> ProjectOut<'a> {
        ProjectOut { restart_required: required, ..self }
    }

    /// The same with the status that was asked for and recorded: an answer that arrives after the event must not undo it on screen.
    #[must_use]
    pub fn with_status(self, status: &'static str) -> ProjectOut<'a> {
        ProjectOut { status, ..self }
    }
}

/// What has passed to an app.
#[derive(Serialize)]
struct TrafficOut {
    bytes_in: u64,
    bytes_out: u64,
    /// By the first digit of the status, 1 to 5.
    answers: [u64; 5],
    /// By how long they took to begin: up to so many milliseconds, and the last longer than that.
    latency_ms: [u64; LATENCY_MS.len()],
    latency: [u64; LATENCY_MS.len() + 1],
    last_request: Option<String>,
}

impl From<Traffic> for TrafficOut {
    fn from(traffic: Traffic) -> TrafficOut {
        TrafficOut {
            bytes_in: traffic.get(Sum::BYTES_IN),
            bytes_out: traffic.get(Sum::BYTES_OUT),
            answers: traffic.classes(),
            latency_ms: LATENCY_MS,
            latency: traffic.latencies(),
            last_request: traffic.last.map(rfc3339),
        }
    }
}

/// What sleep was good for, and how long waking takes.
#[derive(Serialize)]
struct SleepOut {
    wakes: u64,
    saved_memory_mib_hours: f64,
    saved_cpu_hours: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    wake_ms: Option<WakeOut>,
}

/// In milliseconds from the request on that woke it.
#[derive(Serialize)]
struct WakeOut {
    start: PercentilesOut,
    ready: PercentilesOut,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<PercentilesOut>,
}

#[derive(Serialize)]
struct PercentilesOut {
    p50: u64,
    p95: u64,
}

impl From<Percentiles> for PercentilesOut {
    fn from(times: Percentiles) -> PercentilesOut {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        PercentilesOut { p50: ms(times.p50), p95: ms(times.p95) }
    }
}

impl SleepOut {
    fn new(traffic: &Traffic, times: Option<WakeTimes>) -> SleepOut {
        let thousandths = |value: f64| (value * 1000.0).round() / 1000.0;
        #[expect(clippy::cast_precision_loss, reason = "a sum for people")]
        let sum = |sum| traffic.get(sum) as f64;
        SleepOut {
            wakes: traffic.get(Sum::WAKES),
            saved_memory_mib_hours: thousandths(sum(Sum::SAVED_MEMORY) / 3600.0),
            saved_cpu_hours: thousandths(sum(Sum::SAVED_CPU) / 3_600_000.0),
            wake_ms: times.map(|times| WakeOut {
                start: times.start.into(),
                ready: times.ready.into(),
                answer: times.answer.map(PercentilesOut::from),
            }),
        }
    }
}

/// A deployment.
#[derive(Serialize)]
pub struct DeploymentOut<'a> {
    pub(super) number: u32,
    pub(super) status: &'static str,
    pub(super) step: &'static str,
    pub(super) cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) of: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) commit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) template: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<&'a str>,
    pub(super) current: bool,
    pub(super) created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ended_at: Option<String>,
}

/// The three numbers of a project object: zeros where nothing is known.
#[derive(Serialize)]
struct MetricsOut {
    cpu: f64,
    memory: u64,
    requests: u64,
}

impl MetricsOut {
    fn new(metrics: Option<&Metrics>, requests: u64) -> MetricsOut {
        let (cpu, memory) = metrics.map_or((0.0, 0), |m| (m.cpu, m.memory_mib));
        MetricsOut { cpu, memory, requests }
    }
}

/// Where a browser finds it: its own name through the proxy. Without that, on this machine, a container's address or its published port;
/// the name that is kept for it while it has neither.
fn url(view: &View, addresses: Option<&Addresses>) -> String {
    let (project, owner) = (&view.project.host, &view.project.owner_host);
    if let Some(addresses) = addresses {
        return addresses.url(&addresses.host(project, owner));
    }
    match view.address {
        Some(address) if address.ip().is_loopback() => format!("http://localhost:{}", address.port()),
        Some(address) => format!("http://{address}"),
        None => format!("http://{}.{}.localhost:8080", project.as_str(), owner.as_str()),
    }
}

/// As it is written: `30m`, or `never`.
#[must_use]
pub fn idle_text(idle: IdleAfter) -> String {
    match idle {
        IdleAfter::After(after) => humantime::format_duration(after).to_string(),
        IdleAfter::Never => "never".to_owned(),
    }
}

/// The second, in UTC (RFC 3339). Times before 1970 are told as 1970.
#[must_use]
pub fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at.max(SystemTime::UNIX_EPOCH)).to_string()
}

/// The millisecond, in UTC (RFC 3339).
#[must_use]
pub fn rfc3339_millis(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at.max(SystemTime::UNIX_EPOCH)).to_string()
}
