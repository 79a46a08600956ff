//! muelle's own numbers, and one line per project, in Prometheus' text form.
//!
//! Everything is read when it is asked for; nothing is sampled, and what is not known is not there. Base units: seconds, bytes.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::Api;
use super::request::Call;
use super::routes::{Answer, ROUTES, Route};
use crate::domain::deployment::Outcome;
use crate::domain::traffic::LATENCY_MS;
use crate::domain::{Step, Sum, Traffic};
use crate::host::Process;
use crate::http::Response;
use crate::runtime::{Snapshot, View};
use crate::{journal, threads};

/// How many answers there were, by route and by the first digit of the status.
pub(super) struct Answers(Vec<[AtomicU64; 4]>);

impl Default for Answers {
    fn default() -> Answers {
        // The last row is for what leads to no route.
        Answers((0..=ROUTES.len()).map(|_| Default::default()).collect())
    }
}

impl Answers {
    pub(super) fn count(&self, route: Option<&'static Route>, status: u16) {
        let at = route.and_then(|route| ROUTES.iter().position(|r| std::ptr::eq(r, route)));
        let class = usize::from(status / 100).clamp(2, 5) - 2;
        self.0[at.unwrap_or(ROUTES.len())][class].fetch_add(1, Ordering::Relaxed);
    }
}

/// `GET /metrics`: the text form 0.0.4.
#[expect(clippy::unnecessary_wraps, reason = "a handler")]
pub(super) fn text(api: &Api, _: &Call) -> Answer {
    let mut page = Page::default();
    let snapshot = api.runtime.snapshot();
    process(&mut page, api);
    serving(&mut page, api);
    waiting(&mut page, api);
    deployments(&mut page, &snapshot);
    engine(&mut page, api, &snapshot);
    projects(&mut page, api, &snapshot);
    Ok(Response::bytes(200, page.0)
        .header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        .header("Cache-Control", "no-store"))
}

fn process(page: &mut Page, api: &Api) {
    page.gauge("muelle_build_info", "The version that runs.")
        .put(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    if let Ok(since) = api.started.duration_since(SystemTime::UNIX_EPOCH) {
        page.gauge("process_start_time_seconds", "When it started, since 1970.")
            .put(&[], since.as_secs_f64());
    }
    let Some(own) = Process::read() else { return };
    page.gauge("process_resident_memory_bytes", "Memory in use.").put(&[], own.resident_bytes);
    page.gauge("process_virtual_memory_bytes", "Address space.").put(&[], own.virtual_bytes);
    page.counter("process_cpu_seconds_total", "CPU time of all threads.").put(&[], own.cpu.as_secs_f64());
    page.gauge("process_threads", "Threads.").put(&[], own.threads);
    page.gauge("process_open_fds", "Open descriptors.").put(&[], own.descriptors);
    if let Some(max) = own.descriptors_max {
        page.gauge("process_max_fds", "Descriptors that there may be.").put(&[], max);
    }
}

fn serving(page: &mut Page, api: &Api) {
    let (door, hub) = (&api.door, &api.runtime.hub);
    page.gauge("muelle_streams", "Event streams open.").put(&[], hub.active());
    page.gauge("muelle_streams_max", "Event streams that there may be.").put(&[], hub.capacity());
    page.gauge("muelle_connections", "Connections open.").put(&[], door.connections());
    page.counter("muelle_connections_total", "Connections let in.").put(&[], door.accepted());
    page.counter("muelle_accept_errors_total", "Failed accepts, each followed by a pause.")
        .put(&[], door.accept_errors());
    page.counter("muelle_refused_total", "Connections and requests turned away before any route.")
        .put(&[], door.refused());
    page.counter("muelle_panics_total", "Handlers and streams that panicked.").put(&[], door.panics());
    let mut answers = page.counter("muelle_requests_total", "Answers by route and class of status.");
    let routes = ROUTES.iter().map(|route| (route.method, route.path)).chain([("", "")]);
    for ((method, path), counts) in routes.zip(&api.answers.0) {
        for (class, count) in ["2xx", "3xx", "4xx", "5xx"].iter().zip(counts) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                answers.put(&[("method", method), ("route", path), ("code", class)], count);
            }
        }
    }
}

fn deployments(page: &mut Page, snapshot: &Snapshot) {
    let mut steps =
        page.gauge("muelle_deployments", "Deployments that wait or are under way, by their step.");
    let of =
        |view: &View| view.deployment.as_deref().filter(|it| it.outcome == Outcome::Open).map(|it| it.step);
    for (step, word) in Step::WORDS.into_iter().filter(|(step, _)| *step != Step::Ready) {
        steps
            .put(&[("step", word)], snapshot.projects.values().filter(|view| of(view) == Some(step)).count());
    }
}

fn waiting(page: &mut Page, api: &Api) {
    let mut depths = page.gauge("muelle_queue_depth", "Work that waits; for pools also what runs.");
    depths.put(&[("queue", "inbox")], api.runtime.waiting());
    depths.put(&[("queue", "store")], api.store.waiting());
    for (pool, open) in threads::pools() {
        depths.put(&[("queue", pool)], open);
    }
    page.counter("muelle_log_dropped_total", "Lines of the log that nobody read in time.")
        .put(&[], journal::dropped());
}

fn engine(page: &mut Page, api: &Api, snapshot: &Snapshot) {
    page.gauge("muelle_engine_up", "Whether the engine answered the last time.")
        .put(&[], u8::from(snapshot.engine.up));
    if let Some(version) = &snapshot.engine.version {
        page.gauge("muelle_engine_info", "The engine's version.").put(&[("version", version)], 1);
    }
    let polls = &api.runtime.polls;
    let steps = [("list", polls.list.total()), ("metrics", polls.metrics.total())];
    let mut sums =
        page.summary("muelle_poll_seconds", "Rounds of asking the engine and reading the numbers.");
    for (step, (rounds, time)) in steps {
        sums.put_as("_sum", &[("step", step)], time.as_secs_f64());
        sums.put_as("_count", &[("step", step)], rounds);
    }
}

fn projects(page: &mut Page, api: &Api, snapshot: &Snapshot) {
    let mut views: Vec<&View> = snapshot.projects.values().map(|view| &**view).collect();
    views.sort_by_key(|view| view.project.id);
    let ids: Vec<String> = views.iter().map(|view| view.project.id.to_string()).collect();
    let each = || ids.iter().map(String::as_str).zip(&views);
    let mut statuses = page.gauge("muelle_project_status", "1 for the status that a project has.");
    for (id, view) in each() {
        let (name, status) = (view.project.name.as_str(), api.words.status(view.status));
        statuses.put(&[("project", id), ("name", name), ("status", status)], 1);
    }
    let known = || each().filter_map(|(id, view)| Some((id, view.metrics?)));
    let mut cpu = page.gauge("muelle_project_cpu_percent", "Share of the CPUs that its container may use.");
    known().for_each(|(id, metrics)| cpu.put(&[("project", id)], metrics.cpu));
    let mut memory =
        page.gauge("muelle_project_memory_bytes", "Memory without inactive file cache, in whole MiB.");
    known().for_each(|(id, metrics)| memory.put(&[("project", id)], metrics.memory_mib << 20));
    let mut requests =
        page.counter("muelle_project_requests_total", "Requests counted since the project exists.");
    each().for_each(|(id, view)| requests.put(&[("project", id)], view.traffic().get(Sum::REQUESTS)));
    passed(page, &ids, &views);
    let mut starts =
        page.gauge("muelle_project_start_time_seconds", "When its container started, since 1970.");
    for (id, view) in each() {
        let since = view.run.as_ref().and_then(|run| run.since.duration_since(SystemTime::UNIX_EPOCH).ok());
        if let Some(since) = since {
            starts.put(&[("project", id)], since.as_secs_f64());
        }
    }
}

/// What passed to apps, and what their sleep was good for.
fn passed(page: &mut Page, ids: &[String], views: &[&View]) {
    let traffic: Vec<(&str, Traffic)> =
        ids.iter().map(String::as_str).zip(views.iter().map(|view| view.traffic())).collect();
    for (name, help, sum, unit) in [
        (
            "muelle_project_received_bytes_total",
            "Bytes of bodies and tunnels to the app.",
            Sum::BYTES_IN,
            1.0,
        ),
        ("muelle_project_sent_bytes_total", "The same from the app.", Sum::BYTES_OUT, 1.0),
        ("muelle_project_wakes_total", "Times that a request woke it.", Sum::WAKES, 1.0),
        (
            "muelle_project_saved_memory_byte_seconds_total",
            "Memory that it did not hold while it slept, times how long.",
            Sum::SAVED_MEMORY,
            1_048_576.0,
        ),
        (
            "muelle_project_saved_cpu_seconds_total",
            "CPU time that it did not use while it slept.",
            Sum::SAVED_CPU,
            0.001,
        ),
    ] {
        let mut family = page.counter(name, help);
        for (id, traffic) in &traffic {
            #[expect(clippy::cast_precision_loss, reason = "what Prometheus keeps is as precise")]
            family.put(&[("project", id)], traffic.get(sum) as f64 * unit);
        }
    }
    let mut answers =
        page.counter("muelle_project_answers_total", "Answers of the app by the class of their status.");
    for (id, traffic) in &traffic {
        for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(traffic.classes()) {
            answers.put(&[("project", id), ("code", class)], count);
        }
    }
    let mut times = page.histogram("muelle_project_answer_seconds", "Time until the app began to answer.");
    for (id, traffic) in &traffic {
        let mut sum = 0;
        let most = LATENCY_MS.map(|ms| format!("{}", Duration::from_millis(ms).as_secs_f64()));
        let most = most.iter().map(String::as_str).chain(["+Inf"]);
        for (most, count) in most.zip(traffic.latencies()) {
            sum += count;
            times.put_as("_bucket", &[("project", id), ("le", most)], sum);
        }
        let micros = Duration::from_micros(traffic.get(Sum::ANSWER_MICROS));
        times.put_as("_sum", &[("project", id)], micros.as_secs_f64());
        times.put_as("_count", &[("project", id)], sum);
    }
}

/// The page on its way.
#[derive(Default)]
struct Page(String);

/// One metric's samples.
struct Family<'p> {
    page: &'p mut String,
    name: &'static str,
}

impl Page {
    fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    fn summary(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "summary", help)
    }

    fn histogram(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "histogram", help)
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { page: &mut self.0, name }
    }
}

impl Family<'_> {
    fn put(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.put_as("", labels, value);
    }

    fn put_as(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.page, "{}{suffix}{labels} {value}", self.name);
    }
}

/// Label values: a backslash, a quote and a line feed are escaped, all else is as it is (text format 0.0.4).
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_36_a_name_cannot_leave_its_label() {
        let mut page = Page::default();
        page.gauge("m", "Help.").put(&[("name", "a\"} 1\nb\\"), ("x", "é")], 1.5);
        assert_eq!(page.0, "# HELP m Help.\n# TYPE m gauge\nm{name=\"a\\\"} 1\\nb\\\\\",x=\"é\"} 1.5\n");
    }
}
