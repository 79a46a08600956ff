//! Builds, wires, starts and stops everything, in one visible order. Runs on `main`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crossbeam_channel::bounded;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::api::auth::Registration;
use crate::api::feed::Ids;
use crate::api::origin::Origins;
use crate::api::wire::Words;
use crate::api::{self, Api, Door};
use crate::auth::token::{KeyError, Keys};
use crate::config::{self, Config};
use crate::deploy::recipe::Images;
use crate::deploy::worker;
use crate::docker::Docker;
use crate::domain::idle::Rule;
use crate::domain::{Addresses, Event, Status};
use crate::host;
use crate::http::{self, Bound};
use crate::limits;
use crate::proxy::activity::Activity;
use crate::proxy::route::Routes;
use crate::proxy::upstream::Patience;
use crate::proxy::{self, Proxy};
use crate::runtime::poller::{self, Kick};
use crate::runtime::supervisor::{self, Supervisor};
use crate::runtime::{Hub, Reach, Runtime, ops, watcher};
use crate::store::{self, DirLock, Logs, OpenError, Store};
use crate::watchdog::{self, Manager};

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The data cannot be used as they are: starting again changes nothing.
    #[error("{0}")]
    Data(String),
    /// The system does not give what is needed, which may pass: a port, a thread, room on the disk.
    #[error("{0}")]
    System(String),
}

impl From<OpenError> for Fatal {
    fn from(error: OpenError) -> Fatal {
        match error {
            OpenError::Other { .. } => Fatal::System(error.to_string()),
            error => Fatal::Data(error.to_string()),
        }
    }
}

impl From<KeyError> for Fatal {
    fn from(error: KeyError) -> Fatal {
        match error {
            KeyError::Io { .. } => Fatal::System(error.to_string()),
            error => Fatal::Data(error.to_string()),
        }
    }
}

impl From<store::Error> for Fatal {
    fn from(error: store::Error) -> Fatal {
        Fatal::System(error.to_string())
    }
}

impl From<io::Error> for Fatal {
    fn from(error: io::Error) -> Fatal {
        Fatal::System(error.to_string())
    }
}

/// Runs the server until it is told to stop by SIGTERM, SIGINT or SIGHUP.
///
/// # Errors
/// When it cannot start.
///
/// # Blocks
/// For as long as the server runs.
pub fn run(config: &Config) -> Result<(), Fatal> {
    let (stop, stopped) = bounded(1);
    let died = stop.clone();
    ctrlc::set_handler(move || {
        let _ = stop.try_send(String::new());
    })
    .map_err(|error| Fatal::System(error.to_string()))?;
    let manager = Manager::of(&|name| std::env::var_os(name))?;
    raise_descriptor_limit(config);
    let _lock = DirLock::take(&config.data_dir)?;
    let store = Arc::new(Store::open(&config.data_dir)?);
    let keys = Keys::load_or_create(&config.data_dir)?;
    let (bound, apps) = (bind(front(config), config.api.listen_named)?, bind_apps(config)?);

    let docker = Docker::new(&config.docker.socket);
    store.interrupt_deployments(INTERRUPTED, SystemTime::now())?;
    let projects = store.reader()?.projects()?;
    let (last, waiting) = store.reader()?.recent_deployments()?;
    let (count, logs) = (projects.len(), Logs::new(&config.data_dir));
    // The supervisor hands over one at a time.
    let (builds, to_build) = bounded(1);
    let (words, ids) = (Words { stopped: config.api.stopped_word }, Ids::new(SystemTime::now()));
    let hub = Arc::new(Hub::new(config.limits.streams, config.limits.streams_per_user));
    let (kick, kicked) = Kick::new();
    let encoder = ids.clone();
    let supervisor = Supervisor::new(
        supervisor::Settings {
            store: Arc::clone(&store),
            ops: operations(config, &docker, &store, &logs),
            encode: Box::new(move |events: &[&Event], first| encoder.encode(events, first, words)),
            hub,
            sleep: sleep(config),
            wakes: store.reader()?.wakes()?,
            projects,
            last,
            waiting,
            builds,
        },
        kick,
    );
    let (runtime, inbox) = (supervisor.runtime(), supervisor.inbox());
    let deploying = deploying(config, &docker, &runtime, &store, &logs);
    let mut parts = parts(config, &runtime, &store, &docker, keys, (words, ids), bound.counters());
    let apps = apps.map(|(bound, addresses)| (bound, routes(addresses, &runtime, &mut parts)));
    parts.stuck_after = manager.as_ref().and_then(Manager::stuck_after).unwrap_or(parts.stuck_after);
    let handler = interface(parts, &store)?;

    let supervising = supervisor.start(died.clone())?;
    let deploying = worker::start(deploying, to_build, died.clone())?;
    let mut watching = watcher::start(docker.clone(), inbox.clone(), died.clone())?;
    let mut polling = poller::start(measuring(config, docker), runtime.clone(), kicked, died)?;
    let addresses = bound.addresses();
    let mut doors = Doors::open(config, bound, apps, &runtime, &handler)?;
    let shown = runtime.clone();
    let feeding = manager
        .map(|it| watchdog::start(it, doors.api.visitor(), Box::new(move || summary(&shown))))
        .transpose()?;
    let at = addresses.iter().map(|address| format!("http://{address}")).collect::<Vec<_>>().join(" and ");
    log::info!("listening on {at} for {count} projects in {}", config.data_dir.display());

    // A signal, or the name of a thread that died: systemd starts anew what can not go on. A sender lives in the signal handler.
    let dead = stopped.recv().unwrap_or_default();

    log::info!("stopping");
    let feeding = feeding.map(watchdog::Watchdog::stop);
    doors.stop_accepting();
    watching.stop();
    polling.stop();
    runtime.hub.end_sessions(&|_| true, Instant::now(), "the server stops");
    doors.close();
    drop(feeding);
    drop(handler);
    drop(watching);
    drop(supervising);
    drop((deploying, polling, runtime, store));
    log::info!("stopped");
    if dead.is_empty() { Ok(()) } else { Err(Fatal::System(format!("the thread {dead} died"))) }
}

/// The open doors: to the interface, and to the apps.
struct Doors {
    api: http::Server,
    apps: Option<http::Server>,
}

impl Doors {
    fn open(
        config: &Config,
        api: Bound,
        apps: Option<(Bound, Arc<Routes>)>,
        runtime: &Runtime,
        handler: &Arc<dyn http::Handler>,
    ) -> Result<Doors, Fatal> {
        let apps = apps.map(|apps| serve_apps(config, apps, runtime, handler)).transpose()?;
        Ok(Doors { api: api.serve(Arc::clone(handler))?, apps })
    }

    fn stop_accepting(&mut self) {
        self.api.stop_accepting();
        if let Some(apps) = &mut self.apps {
            apps.stop_accepting();
        }
    }

    fn close(self) {
        self.api.close(limits::SHUTDOWN_GRACE);
        if let Some(apps) = self.apps {
            apps.close(limits::SHUTDOWN_GRACE);
        }
    }
}

/// The interface, which learns what the command line changes.
fn interface(parts: api::Parts, store: &Store) -> Result<Arc<dyn http::Handler>, Fatal> {
    let api = Api::new(parts)?;
    let weak = Arc::downgrade(&api);
    store.on_foreign_change(Box::new(move || {
        let reloaded = weak.upgrade().map_or(Ok(()), |api| api.reload());
        reloaded.inspect_err(|error| log::error!("cannot read users and sessions: {error}")).is_ok()
    }));
    Ok(Arc::new(Door::new(api)))
}

/// What is said of a deployment that an end of muelle ended.
const INTERRUPTED: &str = "muelle was ended before it was done";

/// How it is, in a line for `systemctl status`.
fn summary(runtime: &Runtime) -> String {
    let snapshot = runtime.snapshot();
    let running = snapshot.projects.values().filter(|view| view.status == Status::Running).count();
    let engine = match &snapshot.engine.version {
        Some(version) if snapshot.engine.up => format!("Docker {version}"),
        _ => "Docker does not answer".to_owned(),
    };
    let (all, streams) = (snapshot.projects.len(), runtime.hub.active());
    format!("{running} of {all} projects running, {streams} event streams, {engine}")
}

/// As many descriptors as the system allows, and a word if that is less than the bounds need.
fn raise_descriptor_limit(config: &Config) {
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::warn!("cannot raise the descriptor limit: {error}");
    }
    // A request to an app has a socket on either side.
    let clients = config.limits.connections + 2 * config.limits.proxy_connections;
    let wanted = clients as u64 + limits::DESCRIPTORS_RESERVED;
    if let Some(current) = getrlimit(Resource::Nofile).current.filter(|current| *current < wanted) {
        log::warn!(
            "{current} descriptors are allowed, {wanted} are wanted: raise LimitNOFILE or lower limits.connections"
        );
    }
}

/// Listens. Both loopback families are the default; a machine without IPv6 has one.
fn bind(mut settings: http::Settings, is_named: bool) -> Result<Bound, Fatal> {
    let mut bound = Bound::bind(&settings);
    if let Err(error) = &bound
        && !is_named
        && error.address.is_ipv6()
        && error.is_family_missing()
    {
        log::info!("no IPv6 on this machine: {error}");
        settings.listen.retain(SocketAddr::is_ipv4);
        bound = Bound::bind(&settings);
    }
    bound.map_err(|error| Fatal::System(error.to_string()))
}

fn front(config: &Config) -> http::Settings {
    http::Settings {
        listen: config.api.listen.clone(),
        connections: config.limits.connections,
        per_address: config.limits.per_address,
        trusted_peers: config.trusted_peers.clone(),
        name: "api",
        deadlines: http::Deadlines::default(),
    }
}

/// Who may be put to sleep.
fn sleep(config: &Config) -> Rule {
    let idle = &config.idle;
    Rule {
        after: idle.after,
        wakes: !config.proxy.listen.is_empty(),
        grace: idle.grace,
        nap: idle.action,
        cpu_floor: idle.cpu_floor,
        traffic_floor: idle.traffic_floor,
    }
}

/// The door to the apps, and where they are found through it.
fn bind_apps(config: &Config) -> Result<Option<(Bound, Addresses)>, Fatal> {
    if config.proxy.listen.is_empty() {
        return Ok(None);
    }
    let settings = http::Settings {
        listen: config.proxy.listen.clone(),
        connections: config.limits.proxy_connections,
        name: "apps",
        deadlines: http::Deadlines {
            body_idle: config.proxy.body_timeout,
            body_total: limits::PROXY_BODY_TOTAL,
            ..http::Deadlines::default()
        },
        ..front(config)
    };
    let bound = bind(settings, config.proxy.listen_named)?;
    let listened = bound.addresses().first().map_or(0, SocketAddr::port);
    let addresses = Addresses {
        pattern: config.proxy.host_pattern.clone(),
        domain: config.proxy.domain.clone(),
        scheme: config.proxy.scheme,
        port: config.proxy.public_port.unwrap_or(listened),
    };
    Ok(Some((bound, addresses)))
}

/// Whose a host is, for the proxy and the interface.
fn routes(addresses: Addresses, runtime: &Runtime, parts: &mut api::Parts) -> Arc<Routes> {
    let routes = Arc::new(Routes::new(runtime.clone(), addresses.clone()));
    let asked = Arc::clone(&routes);
    parts.addresses = Some(addresses);
    parts.find = Box::new(move |host| asked.find(host).map(|view| view.project.id));
    routes
}

fn serve_apps(
    config: &Config,
    (bound, routes): (Bound, Arc<Routes>),
    runtime: &Runtime,
    panel: &Arc<dyn http::Handler>,
) -> Result<http::Server, Fatal> {
    for address in bound.addresses() {
        log::info!("apps are reached at http://{address}");
    }
    let panel = config.proxy.panel_host.clone().map(|host| (host, Arc::clone(panel)));
    let settings = proxy::Settings {
        runtime: runtime.clone(),
        routes,
        trusted_peers: config.trusted_peers.iter().map(IpAddr::to_canonical).collect(),
        activity: Activity {
            ignored_agents: config.idle.ignore_user_agents.clone(),
            ignored_paths: config.idle.ignore_paths.clone(),
        },
        wake_max: config.idle.wake_timeout,
        waiting_max: config.limits.proxy_connections / 2,
        patience: Patience { answer: config.proxy.answer_timeout, body: config.proxy.body_timeout },
        panel,
    };
    Ok(bound.serve(Arc::new(Proxy::new(settings)))?)
}

fn operations(config: &Config, docker: &Docker, store: &Arc<Store>, logs: &Logs) -> ops::Settings {
    ops::Settings {
        docker: docker.clone(),
        instance: store.instance().to_owned(),
        reach: match config.docker.reach {
            config::Reach::Auto => None,
            config::Reach::Network => Some(Reach::Network),
            config::Reach::Published => Some(Reach::Published),
        },
        is_local: host::is_local_address,
        memory_mb_default: config.limits.project_memory_mb_default(),
        cpus_default: config.limits.project_cpus,
        keep_images: config.deploy.keep_images,
        store: Arc::clone(store),
        logs: logs.clone(),
    }
}

fn deploying(
    config: &Config,
    docker: &Docker,
    runtime: &Runtime,
    store: &Store,
    logs: &Logs,
) -> worker::Settings {
    let deploy = &config.deploy;
    let half = (f64::from(host::online_cpus()) / 2.0).max(1.0);
    worker::Settings {
        docker: docker.clone(),
        runtime: runtime.clone(),
        logs: logs.clone(),
        data_dir: config.data_dir.clone(),
        instance: store.instance().to_owned(),
        // Also after the file was replaced by a newer one.
        askpass: format!("/proc/{}/exe", std::process::id()).into(),
        allow_private_hosts: deploy.allow_private_hosts,
        clone_timeout: deploy.clone_timeout,
        build_timeout: deploy.build_timeout,
        memory_bytes: u64::from(deploy.build_memory_mb) << 20,
        cpus: deploy.build_cpus.unwrap_or(half),
        context_bytes_max: u64::from(deploy.max_context_mb) << 20,
        images: Images {
            files: deploy.images.static_.clone(),
            node: deploy.images.node.clone(),
            python: deploy.images.python.clone(),
        },
    }
}

fn measuring(config: &Config, docker: Docker) -> poller::Settings {
    poller::Settings {
        docker,
        interval: config.metrics.interval,
        source: match config.metrics.source {
            config::MetricsSource::Auto => poller::Source::Auto,
            config::MetricsSource::Cgroup => poller::Source::Cgroup,
            config::MetricsSource::Api => poller::Source::Api,
        },
        online_cpus: host::online_cpus(),
        bridges: config.api.listen.iter().any(|address| !address.ip().is_loopback()),
    }
}

fn parts(
    config: &Config,
    runtime: &Runtime,
    store: &Arc<Store>,
    docker: &Docker,
    keys: Keys,
    (words, ids): (Words, Ids),
    door: Arc<http::Counters>,
) -> api::Parts {
    let mut hosts = config.api.hosts.clone();
    let name = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    hosts.extend([format!("{name}.local"), name]);
    api::Parts {
        runtime: runtime.clone(),
        store: Arc::clone(store),
        docker: docker.clone(),
        keys,
        origins: Origins::new(config.api.cors_origins.clone(), hosts),
        words,
        ids,
        registration: match config.auth.registration {
            config::Registration::Closed => Registration::Closed,
            config::Registration::Open => Registration::Open,
        },
        token_lifetime: config.auth.token_lifetime,
        session_lifetime: config.auth.session_lifetime(),
        trusted_peers: config.trusted_peers.clone(),
        door,
        metrics_allow: config.metrics.allow.clone(),
        project_memory_mb_max: config.limits.project_memory_mb,
        stuck_after: limits::STUCK_AFTER,
        addresses: None,
        sleep: sleep(config),
        find: Box::new(|_| None),
        panel_host: config.proxy.panel_host.clone(),
        logs: Logs::new(&config.data_dir),
        allow_http: config.deploy.allow_http,
        allow_private_hosts: config.deploy.allow_private_hosts,
        project_cpus_max: config.limits.project_cpus.unwrap_or_else(|| f64::from(host::online_cpus())),
    }
}
