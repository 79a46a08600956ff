//! What the administrator wrote in `config.toml`, turned into values that are valid.
//!
//! Knows every key with its default and its bounds; `config.toml.example` lists them and is held to this file by a test. All
//! problems of a file are told at once, each with its key. Must not know what the values are used for: `main` reads it, and
//! `daemon` hands each module its own small part. Runs once, on the thread `main`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use crate::domain::lifecycle::Nap;
use crate::domain::{IdleAfter, ImageRef};
use crate::limits::{
    CONFIG_BYTES_MAX, CONFIG_LIST_MAX, DEPLOY_TIMEOUT_MAX, PROJECT_MEMORY_MB, PROXY_ANSWER_MAX,
    PROXY_BODY_IDLE, PROXY_BODY_TOTAL, PROXY_WAKE_MAX, REFRESH_LIFETIME, SLEEP_AFTER, SLEEP_CPU_FLOOR,
    SLEEP_GRACE, SLEEP_TRAFFIC_FLOOR, TOKEN_LIFETIME_MAX,
};

/// A whole, valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where everything is kept; absolute.
    pub data_dir: PathBuf,
    /// Peers whose `X-Forwarded-For` is believed, and that may open any number of connections.
    pub trusted_peers: Vec<IpAddr>,
    /// For the API's door.
    pub api: Api,
    /// For accounts and tokens.
    pub auth: Auth,
    /// For the engine.
    pub docker: Docker,
    /// For the poller.
    pub metrics: Metrics,
    /// For the addresses of apps.
    pub proxy: Proxy,
    /// For apps that nobody uses.
    pub idle: Idle,
    /// For what is built from repositories.
    pub deploy: Deploy,
    /// How much of everything.
    pub limits: Limits,
}

/// `[api]`
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    /// Addresses to listen on; at least one.
    pub listen: Vec<SocketAddr>,
    /// Whether the file names them.
    pub listen_named: bool,
    /// Origins whose pages may call the API, as browsers write them.
    pub cors_origins: Vec<String>,
    /// Host names under which the API may be called, beside the machine's own; lower case.
    pub hosts: Vec<String>,
    /// The word for a stopped project: `stopped` or `exited`.
    pub stopped_word: &'static str,
}

/// `[auth]`
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// Who may make an account once there is one.
    pub registration: Registration,
    /// Life of an access token.
    pub token_lifetime: Duration,
}

impl Auth {
    /// Life of a session that is not refreshed: that of its refresh token, or of its access token where that is longer.
    #[must_use]
    pub fn session_lifetime(&self) -> Duration {
        self.token_lifetime.max(REFRESH_LIFETIME)
    }
}

/// Who may make an account once there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Only the command line.
    Closed,
    /// Everybody who can reach the API.
    Open,
}

/// `[docker]`
#[derive(Clone, Debug, PartialEq)]
pub struct Docker {
    /// The engine's socket; absolute.
    pub socket: PathBuf,
    /// How containers are reached.
    pub reach: Reach,
}

/// How muelle reaches the containers that it creates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// By their network where that works, else by a published port.
    Auto,
    /// By their address on muelle's network.
    Network,
    /// By a port published on 127.0.0.1.
    Published,
}

/// `[metrics]`
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// How often the containers are measured.
    pub interval: Duration,
    /// Where the numbers come from.
    pub source: MetricsSource,
    /// Other machines that may read `/metrics`.
    pub allow: Vec<IpAddr>,
}

/// Where a container's numbers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsSource {
    /// Decided for each container at first sight.
    Auto,
    /// The kernel's cgroup files.
    Cgroup,
    /// The engine's stats.
    Api,
}

/// `[proxy]`
#[derive(Clone, Debug, PartialEq)]
pub struct Proxy {
    /// Addresses to listen on; none where apps have no address of their own.
    pub listen: Vec<SocketAddr>,
    /// Whether the file names them.
    pub listen_named: bool,
    /// What stands for `{domain}`; lower case.
    pub domain: String,
    /// How an app's host is made.
    pub host_pattern: String,
    /// The port that browsers use; `None` for the one listened on.
    pub public_port: Option<u16>,
    /// The scheme that browsers use.
    pub scheme: &'static str,
    /// The host under which the API is reachable here too.
    pub panel_host: Option<String>,
    /// How long an app may take to begin its answer.
    pub answer_timeout: Duration,
    /// For how long either side may be silent within a body.
    pub body_timeout: Duration,
}

/// `[idle]`
#[derive(Clone, Debug, PartialEq)]
pub struct Idle {
    /// How long without a request until an app may sleep whose owner did not choose.
    pub after: IdleAfter,
    /// How long it must have been running.
    pub grace: Duration,
    /// CPU, in percent of what it may use, from which on an app is at work.
    pub cpu_floor: f64,
    /// Bytes a minute that an adopted container may receive past the proxy and still be unused.
    pub traffic_floor: u64,
    /// How apps sleep.
    pub action: Nap,
    /// How long a request is held for an app that starts.
    pub wake_timeout: Duration,
    /// Parts of the names of programs whose requests do not count.
    pub ignore_user_agents: Vec<String>,
    /// Paths that do not count.
    pub ignore_paths: Vec<String>,
}

/// `[deploy]`
#[derive(Clone, Debug, PartialEq)]
pub struct Deploy {
    /// Whether a repository may be fetched without TLS.
    pub allow_http: bool,
    /// Whether a repository may be on this machine or its network.
    pub allow_private_hosts: bool,
    /// How long a repository may take to be fetched.
    pub clone_timeout: Duration,
    /// How long an image may take to be built.
    pub build_timeout: Duration,
    /// Memory in MiB that a build may use.
    pub build_memory_mb: u32,
    /// CPUs that a build may use; `None` for half of them.
    pub build_cpus: Option<f64>,
    /// Images of a project that are kept, the present one included.
    pub keep_images: usize,
    /// Size in MiB of what is handed to the engine to build from.
    pub max_context_mb: u32,
    /// What recipes start from.
    pub images: BaseImages,
}

/// `[deploy.images]`
#[derive(Clone, Debug, PartialEq)]
pub struct BaseImages {
    /// Has busybox.
    pub static_: ImageRef,
    /// Has Node and npm.
    pub node: ImageRef,
    /// Has Python.
    pub python: ImageRef,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections to apps at once, beside those.
    pub proxy_connections: usize,
    /// Connections at once from one address.
    pub per_address: usize,
    /// Event streams at once; each is a connection.
    pub streams: usize,
    /// Event streams at once of one user.
    pub streams_per_user: usize,
    /// Most memory in MiB that a project can be given.
    pub project_memory_mb: u32,
    /// Most CPUs that a project can be given; `None` for all there are.
    pub project_cpus: Option<f64>,
}

impl Limits {
    /// Memory in MiB of a project whose owner did not choose.
    #[must_use]
    pub fn project_memory_mb_default(&self) -> u32 {
        self.project_memory_mb.min(PROJECT_MEMORY_MB)
    }
}

/// Something that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key (`api.listen`), the file's path, a line of it, or the environment's variable.
    pub key: String,
    /// What is wrong with it.
    pub sentence: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.sentence)
    }
}

impl Config {
    /// Reads the file `path`, or `./config.toml` when no path is given and there is one, or else takes the defaults. `env` looks
    /// up an environment variable.
    ///
    /// # Errors
    /// Every problem there is, in the order of the keys.
    pub fn load(path: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Vec<Problem>> {
        let file = path.unwrap_or(Path::new("config.toml"));
        let text = match read(file) {
            Ok(text) => text,
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(vec![problem(&file.display().to_string(), format!("cannot be read: {error}"))]);
            }
        };
        let folder = file.parent().unwrap_or(Path::new(""));
        // Without a current directory a relative path is all there is; opening the data will say so.
        let folder = std::path::absolute(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
            .unwrap_or_else(|_| folder.to_owned());
        parse(&text, &folder, env).map(|(config, _)| config)
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {} KiB", CONFIG_BYTES_MAX / 1024)));
    }
    Ok(text)
}

fn problem(key: &str, sentence: impl Into<String>) -> Problem {
    Problem { key: key.to_owned(), sentence: sentence.into() }
}

/// Returns the configuration and all keys that there are.
fn parse(
    text: &str,
    folder: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(Config, Vec<&'static str>), Vec<Problem>> {
    let mut keys = Keys::new(text)?;
    let data_dir = keys.read("data_dir", folder.join("data"), |v| path_in(folder, v));
    let trusted_peers = keys.read("trusted_peers", Vec::new(), |v| list(v, ip));
    let api = api(&mut keys);
    let auth = auth(&mut keys);
    let docker = docker(&mut keys, folder, env);
    let metrics = metrics(&mut keys);
    let proxy = proxy(&mut keys);
    let idle = idle(&mut keys);
    let deploy = deploy(&mut keys);
    let limits = limits(&mut keys);
    let known = keys.finish()?;
    Ok((Config { data_dir, trusted_peers, api, auth, docker, metrics, proxy, idle, deploy, limits }, known))
}

fn api(keys: &mut Keys) -> Api {
    let listen =
        [SocketAddr::from(([127, 0, 0, 1], 3000)), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 3000))];
    let origins =
        ["http://localhost:5173", "http://127.0.0.1:5173", "http://localhost:3000", "http://127.0.0.1:3000"];
    Api {
        listen_named: keys.has("api.listen"),
        listen: keys.read("api.listen", listen.to_vec(), |v| {
            let addresses = list(v, socket_address)?;
            if addresses.is_empty() { Err("must name at least one address".into()) } else { Ok(addresses) }
        }),
        cors_origins: keys.read("api.cors_origins", origins.map(str::to_owned).to_vec(), |v| list(v, origin)),
        hosts: keys.read("api.hosts", Vec::new(), |v| list(v, host_name)),
        stopped_word: keys.read("api.stopped_word", "stopped", |v| {
            one_of(v, &[("stopped", "stopped"), ("exited", "exited")])
        }),
    }
}

fn auth(keys: &mut Keys) -> Auth {
    const DAY: u64 = 86_400;
    Auth {
        registration: keys.read("auth.registration", Registration::Closed, |v| {
            one_of(v, &[("closed", Registration::Closed), ("open", Registration::Open)])
        }),
        token_lifetime: keys.read("auth.token_days", Duration::from_secs(7 * DAY), |v| {
            whole(v, 1..=TOKEN_LIFETIME_MAX.as_secs() / DAY).map(|days| Duration::from_secs(days * DAY))
        }),
    }
}

fn docker(keys: &mut Keys, folder: &Path, env: &dyn Fn(&str) -> Option<String>) -> Docker {
    const SOCKET: &str = "/var/run/docker.sock";
    // The engine's own variable speaks where the file does not; an empty one is none (as the engine's client sees it).
    let host =
        if keys.has("docker.socket") { None } else { env("DOCKER_HOST").filter(|host| !host.is_empty()) };
    let default = match host.as_deref().map(unix_socket) {
        None => SOCKET.into(),
        Some(Ok(path)) => path,
        Some(Err(sentence)) => {
            keys.problems.push(problem("DOCKER_HOST", sentence));
            SOCKET.into()
        }
    };
    Docker {
        socket: keys.read("docker.socket", default, |v| {
            let given = string(v)?;
            if given.contains("://") { unix_socket(given) } else { path_in(folder, v) }
        }),
        reach: keys.read("docker.reach", Reach::Auto, |v| {
            one_of(v, &[("auto", Reach::Auto), ("network", Reach::Network), ("published", Reach::Published)])
        }),
    }
}

fn metrics(keys: &mut Keys) -> Metrics {
    use MetricsSource::{Api, Auto, Cgroup};
    Metrics {
        interval: keys.read("metrics.interval", Duration::from_secs(4), |v| {
            let range = Duration::from_secs(1)..=Duration::from_secs(60);
            let interval = humantime::parse_duration(string(v)?).ok().filter(|d| range.contains(d));
            interval.ok_or_else(|| "must be a time from \"1s\" to \"60s\"".into())
        }),
        source: keys
            .read("metrics.source", Auto, |v| one_of(v, &[("auto", Auto), ("cgroup", Cgroup), ("api", Api)])),
        allow: keys.read("metrics.allow", Vec::new(), |v| list(v, ip)),
    }
}

fn proxy(keys: &mut Keys) -> Proxy {
    let listen =
        [SocketAddr::from(([127, 0, 0, 1], 8080)), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 8080))];
    Proxy {
        listen_named: keys.has("proxy.listen"),
        listen: keys.read("proxy.listen", listen.to_vec(), |v| list(v, socket_address)),
        domain: keys.read("proxy.domain", "localhost".to_owned(), |v| host_name(string(v)?)),
        host_pattern: keys.read("proxy.host_pattern", "{project}.{user}.{domain}".to_owned(), |v| {
            let pattern = string(v)?;
            let plain = pattern.replace("{project}", "p").replace("{user}", "u").replace(".{domain}", ".d");
            let has_all = ["{project}", "{user}", ".{domain}"].iter().all(|name| pattern.contains(name));
            if !has_all || host_name(&plain).is_err() || pattern != pattern.to_ascii_lowercase() {
                return Err("must be a host name with {project}, {user} and .{domain} in it".into());
            }
            Ok(pattern.to_owned())
        }),
        public_port: keys.read("proxy.public_port", None, |v| match v {
            Value::String(word) if word == "same" => Ok(None),
            port => {
                whole(port, 1..=u16::MAX).map(Some).map_err(|sentence| format!("{sentence}, or \"same\""))
            }
        }),
        scheme: keys.read("proxy.scheme", "http", |v| one_of(v, &[("http", "http"), ("https", "https")])),
        panel_host: keys.read("proxy.panel_host", None, |v| match string(v)? {
            "" => Ok(None),
            host => host_name(host).map(Some),
        }),
        answer_timeout: keys.read("proxy.answer_timeout", PROXY_ANSWER_MAX, |v| time(v, 1, 3600)),
        body_timeout: keys
            .read("proxy.body_timeout", PROXY_BODY_IDLE, |v| time(v, 1, PROXY_BODY_TOTAL.as_secs())),
    }
}

/// What programs call themselves that look at sites by themselves.
const ROBOTS: [&str; 11] = [
    "bot",
    "crawl",
    "spider",
    "slurp",
    "monitor",
    "uptime",
    "pingdom",
    "statuscake",
    "censys",
    "zgrab",
    "masscan",
];

fn idle(keys: &mut Keys) -> Idle {
    let path = |path: &str| {
        if path.starts_with('/') { Ok(path.to_owned()) } else { Err(format!("\"{path}\" is no path")) }
    };
    let agent = |part: &str| match part.trim() {
        // It would be part of every name.
        "" => Err("must be a list of words; [] is none".to_owned()),
        part => Ok(part.to_ascii_lowercase()),
    };
    let robots = ROBOTS.map(str::to_owned).to_vec();
    let asked_by_browsers = ["/favicon.ico", "/robots.txt"].map(str::to_owned).to_vec();
    Idle {
        after: keys.read("idle.after", IdleAfter::After(SLEEP_AFTER), |v| match v {
            Value::String(word) if word == "never" => Ok(IdleAfter::Never),
            v => {
                time(v, 1, 365 * 86_400).map(IdleAfter::After).map_err(|sentence| sentence + ", or \"never\"")
            }
        }),
        grace: keys.read("idle.grace", SLEEP_GRACE, |v| time(v, 0, 86_400)),
        cpu_floor: keys.read("idle.cpu_floor", SLEEP_CPU_FLOOR, |v| {
            let percent = match v {
                Value::Integer(whole) => i32::try_from(*whole).ok().map(f64::from),
                Value::Float(part) => Some(*part),
                _ => None,
            };
            let fits = percent.filter(|percent| (0.1..=100.0).contains(percent));
            fits.ok_or_else(|| "must be a percentage from 0.1 to 100".to_owned())
        }),
        traffic_floor: keys.read("idle.traffic_floor", SLEEP_TRAFFIC_FLOOR, |v| match v {
            Value::Integer(kb @ 1..=1_000_000) => Ok(kb.unsigned_abs() * 1000),
            _ => Err("must be a number of KB a minute from 1 to 1000000".to_owned()),
        }),
        action: keys.read("idle.action", Nap::Stop, |v| match v {
            Value::String(word) if word == "stop" => Ok(Nap::Stop),
            Value::String(word) if word == "pause" => Ok(Nap::Pause),
            _ => Err("must be \"stop\" or \"pause\"".to_owned()),
        }),
        wake_timeout: keys.read("idle.wake_timeout", PROXY_WAKE_MAX, |v| time(v, 1, 600)),
        ignore_user_agents: keys.read("idle.ignore_user_agents", robots, |v| list(v, agent)),
        ignore_paths: keys.read("idle.ignore_paths", asked_by_browsers, |v| list(v, path)),
    }
}

fn deploy(keys: &mut Keys) -> Deploy {
    let seconds = |minutes: u64| Duration::from_secs(minutes * 60);
    let limit = |v: &Value| {
        let range = Duration::from_secs(1)..=DEPLOY_TIMEOUT_MAX;
        let time = humantime::parse_duration(string(v)?).ok().filter(|time| range.contains(time));
        time.ok_or_else(|| "must be a time from \"1s\" to \"4h\"".to_owned())
    };
    let image = |default: &str| ImageRef::parse(default).expect("a valid name of an image");
    let parse =
        |v: &Value| ImageRef::parse(string(v)?).map_err(|_| "must be the name of an image".to_owned());
    Deploy {
        allow_http: keys.read("deploy.allow_http", false, boolean),
        allow_private_hosts: keys.read("deploy.allow_private_hosts", true, boolean),
        clone_timeout: keys.read("deploy.clone_timeout", seconds(5), limit),
        build_timeout: keys.read("deploy.build_timeout", seconds(15), limit),
        build_memory_mb: keys.read("deploy.build_memory_mb", 2048, |v| whole(v, 64..=1_048_576)),
        build_cpus: keys.read("deploy.build_cpus", None, |v| match v {
            Value::String(word) if word == "half" => Ok(None),
            Value::Integer(n @ 1..=1024) => Ok(u32::try_from(*n).ok().map(f64::from)),
            Value::Float(n) if *n >= 0.05 && *n <= 1024.0 => Ok(Some(*n)),
            _ => Err("must be \"half\" or a number from 0.05 to 1024".into()),
        }),
        keep_images: keys.read("deploy.keep_images", 3, |v| whole(v, 1..=20)),
        max_context_mb: keys.read("deploy.max_context_mb", 500, |v| whole(v, 1..=10_240)),
        images: BaseImages {
            static_: keys.read("deploy.images.static", image("busybox:1.37"), parse),
            node: keys.read("deploy.images.node", image("node:22-alpine"), parse),
            python: keys.read("deploy.images.python", image("python:3.13-slim"), parse),
        },
    }
}

fn limits(keys: &mut Keys) -> Limits {
    let connections = keys.read("limits.connections", 1024, |v| whole(v, 8..=65_536));
    let proxy_connections = keys.read("limits.proxy_connections", 1024, |v| whole(v, 8..=65_536));
    let per_address = keys.read("limits.per_address", 64, |v| whole(v, 1..=65_536));
    let streams = keys.read("limits.streams", 512.min(connections), |v| {
        let streams = whole(v, 1..=65_536)?;
        if streams > connections {
            return Err(format!(
                "must not be above limits.connections ({connections}): a stream is a connection"
            ));
        }
        Ok(streams)
    });
    Limits {
        connections,
        proxy_connections,
        per_address,
        streams,
        streams_per_user: keys.read("limits.streams_per_user", 32, |v| whole(v, 1..=65_536)),
        project_memory_mb: keys.read("limits.project_memory_mb", 4096, |v| whole(v, 16..=1_048_576)),
        project_cpus: keys.read("limits.project_cpus", None, |v| match v {
            Value::String(word) if word == "all" => Ok(None),
            Value::Integer(n @ 1..=1024) => Ok(u32::try_from(*n).ok().map(f64::from)),
            Value::Float(n) if *n >= 0.01 && *n <= 1024.0 => Ok(Some(*n)),
            _ => Err("must be \"all\" or a number from 0.01 to 1024".into()),
        }),
    }
}

/// The tables of a file, emptied key by key: what is left at the end is unknown.
struct Keys {
    sections: BTreeMap<String, Table>,
    known: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl Keys {
    /// # Errors
    /// When the text is not TOML; nothing else can be said of it then.
    fn new(text: &str) -> Result<Keys, Vec<Problem>> {
        let root = text.parse::<Table>().map_err(|error| {
            let line =
                error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            vec![problem(&format!("line {line}"), error.message())]
        })?;
        let (tables, values): (Vec<_>, Vec<_>) = root.into_iter().partition(|(_, value)| value.is_table());
        let tables = tables.into_iter().filter_map(|(name, value)| match value {
            Value::Table(table) => Some((name, table)),
            _ => None,
        });
        let mut sections: BTreeMap<String, Table> = tables.collect();
        for (name, table) in sections.clone() {
            // `[deploy.images]`
            for (inner, value) in table {
                if let Value::Table(inner_table) = value {
                    sections.insert(format!("{name}.{inner}"), inner_table);
                    sections.entry(name.clone()).and_modify(|outer| drop(outer.remove(&inner)));
                }
            }
        }
        sections.insert(String::new(), values.into_iter().collect());
        Ok(Keys { sections, known: Vec::new(), problems: Vec::new() })
    }

    fn has(&self, key: &str) -> bool {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        self.sections.get(section).is_some_and(|table| table.contains_key(name))
    }

    /// The value of a key (`name` or `section.name`): its default where it is absent, or wrong and therefore a problem.
    fn read<T>(&mut self, key: &'static str, default: T, parse: impl Fn(&Value) -> Result<T, String>) -> T {
        self.known.push(key);
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let Some(value) = self.sections.get_mut(section).and_then(|table| table.remove(name)) else {
            return default;
        };
        parse(&value).unwrap_or_else(|sentence| {
            self.problems.push(problem(key, sentence));
            default
        })
    }

    fn finish(mut self) -> Result<Vec<&'static str>, Vec<Problem>> {
        for (section, table) in &self.sections {
            let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
            let names: Vec<_> = self.known.iter().filter_map(|key| key.strip_prefix(&prefix)).collect();
            if names.is_empty() {
                // Either `[dokcer]`, or a table where a value belongs (`[data_dir]`).
                self.problems.push(problem(section, "is not a section of this file"));
                continue;
            }
            for name in table.keys() {
                let sentence =
                    if section.is_empty() && self.known.iter().any(|k| k.starts_with(&format!("{name}."))) {
                        "must be a section of its own".to_owned()
                    } else {
                        let names: Vec<_> = names.iter().filter(|n| !n.contains('.')).copied().collect();
                        format!("is not known here; known are {}", names.join(", "))
                    };
                self.problems.push(problem(&format!("{prefix}{name}"), sentence));
            }
        }
        if self.problems.is_empty() { Ok(self.known) } else { Err(self.problems) }
    }
}

fn string(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("must be a text in quotes, not {}", value.type_str()))
}

/// A time of so many seconds at the least and at the most.
fn time(value: &Value, least: u64, most: u64) -> Result<Duration, String> {
    let (least, most) = (Duration::from_secs(least), Duration::from_secs(most));
    let time = humantime::parse_duration(string(value)?).ok().filter(|time| (least..=most).contains(time));
    let text = humantime::format_duration;
    time.ok_or_else(|| format!("must be a time from \"{}\" to \"{}\"", text(least), text(most)))
}

fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "must be true or false".into())
}

/// A list of texts; a single text is a list of one.
fn list<T>(value: &Value, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let items = match value {
        Value::Array(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    if items.len() > CONFIG_LIST_MAX {
        return Err(format!("must not have more than {CONFIG_LIST_MAX} entries"));
    }
    items.iter().map(|item| parse(string(item)?)).collect()
}

fn one_of<T: Copy>(value: &Value, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| value.as_str() == Some(word));
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        format!("must be {}", words.join(" or "))
    })
}

fn whole<T: TryFrom<i64> + PartialOrd + fmt::Display>(
    value: &Value,
    range: RangeInclusive<T>,
) -> Result<T, String> {
    let number = value.as_integer().and_then(|n| T::try_from(n).ok()).filter(|n| range.contains(n));
    number.ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
}

fn path_in(folder: &Path, value: &Value) -> Result<PathBuf, String> {
    match string(value)? {
        "" => Err("must not be empty".into()),
        path if path.contains('\0') => Err("must not contain a NUL byte".into()),
        path => Ok(folder.join(path)),
    }
}

fn unix_socket(host: &str) -> Result<PathBuf, String> {
    match host.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(path.into()),
        _ => Err(format!("\"{host}\" is not a local socket: muelle needs unix:///path/to/docker.sock")),
    }
}

fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("\"{text}\" is not an IP address"))
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("\"{text}\" is not an address with a port (\"127.0.0.1:3000\", \"[::1]:3000\")"))
}

/// An origin as browsers send it (RFC 6454 §6.2): scheme, host and port in lower case, nothing behind.
fn origin(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-:[]".contains(&b);
    if rest.is_empty() || !rest.bytes().all(allowed) {
        return Err(format!(
            "\"{text}\" is not an origin (\"https://panel.example.org\", lower case, no path, no *)"
        ));
    }
    Ok(text.to_owned())
}

fn host_name(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-".contains(&b);
    if text.is_empty() || text.len() > 253 || !text.bytes().all(allowed) {
        return Err(format!("\"{text}\" is not a host name (without a port)"));
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
