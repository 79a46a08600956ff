//! The shapes of the engine's JSON and their way into our words.
//!
//! Everything has a default: engines of different ages leave things out, and Go writes `null` for an empty map. What a
//! container cannot be without (its id, its name) is checked on the way out. No I/O.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::container::{
    ApiReading, Health, Image, ImageRow, Inspected, Labels, Listed, Published, State, is_hex,
};
use super::{ContainerId, Error, clean};
use crate::domain::{ContainerName, ImageRef, Subnet};

type Ports = BTreeMap<String, Value>;

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Refusal {
    pub message: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Version {
    pub version: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Created {
    pub id: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Row {
    id: String,
    #[serde(deserialize_with = "nullable")]
    names: Vec<String>,
    image: String,
    state: String,
    status: String,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    ports: Vec<RowPort>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct RowPort {
    #[serde(rename = "IP")]
    ip: String,
    private_port: u16,
    public_port: u16,
    r#type: String,
}

impl Row {
    /// `None` for a container without a name, which only one that is being removed can be.
    pub(super) fn into_listed(self) -> Result<Option<Listed>, Error> {
        let id = container_id(&self.id)?;
        let Some(name) = self.names.iter().find_map(|name| ContainerName::parse(name).ok()) else {
            return Ok(None);
        };
        let state = State::parse(&self.state);
        let ports = self.ports.iter().filter(|port| port.r#type == "tcp" && has_process(state));
        let published =
            ports.filter_map(|port| Some((port.private_port, host_socket(&port.ip, port.public_port)?)));
        Ok(Some(Listed {
            id,
            name,
            image: clean(&self.image),
            state,
            status: clean(&self.status),
            labels: Labels::pick(self.labels),
            published: prefer_v4(published),
        }))
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Inspect {
    id: String,
    name: String,
    image: String,
    restart_count: u64,
    state: InspectState,
    config: Config,
    host_config: HostConfig,
    network_settings: NetworkSettings,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct InspectState {
    status: String,
    pid: u32,
    exit_code: i64,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    error: String,
    started_at: String,
    #[serde(deserialize_with = "nullable")]
    health: HealthState,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct HealthState {
    status: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Config {
    tty: bool,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    exposed_ports: Ports,
    #[serde(deserialize_with = "nullable")]
    healthcheck: Healthcheck,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Healthcheck {
    #[serde(deserialize_with = "nullable")]
    test: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct HostConfig {
    nano_cpus: i64,
    cpu_quota: i64,
    cpu_period: i64,
    auto_remove: bool,
    #[serde(deserialize_with = "nullable")]
    restart_policy: RestartPolicy,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct RestartPolicy {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(deserialize_with = "nullable")]
    ports: BTreeMap<String, Option<Vec<Binding>>>,
    #[serde(deserialize_with = "nullable")]
    networks: BTreeMap<String, Option<Endpoint>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Binding {
    host_ip: String,
    host_port: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Endpoint {
    #[serde(rename = "IPAddress")]
    v4: String,
    #[serde(rename = "GlobalIPv6Address")]
    v6: String,
}

impl Inspect {
    pub(super) fn into_inspected(self) -> Result<Inspected, Error> {
        let network = self.network_settings;
        let state = State::parse(&self.state.status);
        let published = network.ports.iter().filter(|_| has_process(state)).flat_map(|(key, bindings)| {
            let bindings = bindings.iter().flatten();
            bindings
                .filter_map(|b| Some((tcp_port(key)?, host_socket(&b.host_ip, b.host_port.parse().ok()?)?)))
        });
        Ok(Inspected {
            id: container_id(&self.id)?,
            name: ContainerName::parse(&self.name)
                .map_err(|_| Error::Malformed("a container without a name".to_owned()))?,
            image_id: clean(&self.image),
            state,
            pid: (self.state.pid != 0).then_some(self.state.pid),
            started_at: time(&self.state.started_at),
            exit_code: self.state.exit_code,
            oom_killed: self.state.oom_killed,
            error: clean(&self.state.error),
            restart_count: self.restart_count,
            health: Health::parse(&self.state.health.status),
            labels: Labels::pick(self.config.labels),
            capacity: self.host_config.capacity(),
            auto_remove: self.host_config.auto_remove,
            published: prefer_v4(published),
            addresses: network
                .networks
                .into_iter()
                .filter_map(|(name, endpoint)| Some((name, endpoint?.address()?)))
                .collect(),
            exposed_ports: tcp_ports(&self.config.exposed_ports),
            tty: self.config.tty,
            restart_policy: clean(&self.host_config.restart_policy.name),
        })
    }
}

impl HostConfig {
    #[expect(clippy::cast_precision_loss, reason = "2^53 nano-CPUs are nine million CPUs")]
    fn capacity(&self) -> Option<f64> {
        let period = if self.cpu_period > 0 { self.cpu_period } else { 100_000 }; // the kernel's default, in µs
        match (self.nano_cpus, self.cpu_quota) {
            (nano @ 1.., _) => Some(nano as f64 / 1e9),
            (_, quota @ 1..) => Some(quota as f64 / period as f64),
            _ => None,
        }
    }
}

impl Endpoint {
    fn address(&self) -> Option<IpAddr> {
        self.v4.parse().or_else(|_| self.v6.parse()).ok()
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct ImageInspect {
    id: String,
    #[serde(deserialize_with = "nullable")]
    repo_tags: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    config: Config,
}

impl ImageInspect {
    /// Its id, unless a name refers to it.
    pub(super) fn untagged(self) -> Result<Option<String>, Error> {
        let id = image_id(&self.id)?;
        Ok(self.repo_tags.iter().all(|tag| tag == "<none>:<none>").then_some(id))
    }

    pub(super) fn into_image(self) -> Result<Image, Error> {
        if self.id.is_empty() {
            return Err(Error::Malformed("an image without an id".to_owned()));
        }
        let test = &self.config.healthcheck.test;
        Ok(Image {
            id: clean(&self.id),
            exposed_ports: tcp_ports(&self.config.exposed_ports),
            has_healthcheck: test.first().is_some_and(|kind| kind != "NONE"),
        })
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct ImageSummary {
    id: String,
    #[serde(deserialize_with = "nullable")]
    repo_tags: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
}

impl ImageSummary {
    pub(super) fn into_row(self) -> Result<ImageRow, Error> {
        let labels = Labels::pick(self.labels);
        Ok(ImageRow {
            id: image_id(&self.id)?,
            // `<none>:<none>` is no name.
            tags: self.repo_tags.iter().filter_map(|tag| ImageRef::parse(tag).ok()).collect(),
            project: labels.project(),
            deployment: labels.deployment(),
        })
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Info {
    pub docker_root_dir: PathBuf,
}

/// One line of a build's answer; which fields it has says what it is.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct BuildLine {
    pub stream: String,
    pub status: String,
    /// The layer that `status` is about.
    pub id: String,
    progress: String,
    #[serde(deserialize_with = "nullable")]
    progress_detail: ProgressDetail,
    #[serde(deserialize_with = "nullable")]
    pub aux: BuildAux,
    error: String,
    #[serde(deserialize_with = "nullable")]
    error_detail: Refusal,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct BuildAux {
    #[serde(rename = "ID")]
    pub id: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ProgressDetail {
    current: Option<IgnoredAny>,
}

impl BuildLine {
    /// Why the build failed; empty where it goes on.
    pub(super) fn failure(&self) -> &str {
        if self.error.is_empty() { &self.error_detail.message } else { &self.error }
    }

    /// Whether it only says how far something has come.
    pub(super) fn is_tick(&self) -> bool {
        !self.progress.is_empty() || self.progress_detail.current.is_some()
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct NetworkInspect {
    pub id: String,
    pub driver: String,
    #[serde(rename = "IPAM", deserialize_with = "nullable")]
    ipam: Ipam,
    #[serde(deserialize_with = "nullable")]
    pub options: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Ipam {
    #[serde(deserialize_with = "nullable")]
    config: Vec<IpamConfig>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct IpamConfig {
    gateway: String,
    subnet: String,
}

impl NetworkInspect {
    pub(super) fn gateway(&self) -> Option<IpAddr> {
        // Some engines write the gateway with its prefix length.
        self.ipam.config.iter().find_map(|subnet| subnet.gateway.split('/').next()?.parse().ok())
    }

    pub(super) fn subnets(&self) -> impl Iterator<Item = Subnet> {
        self.ipam.config.iter().filter_map(|config| Subnet::parse(&config.subnet))
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Stats {
    read: String,
    #[serde(rename = "cpu_stats")]
    cpu: CpuStats,
    #[serde(rename = "memory_stats")]
    memory: MemoryStats,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CpuStats {
    cpu_usage: CpuUsage,
    online_cpus: u32,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CpuUsage {
    total_usage: u64,
    #[serde(deserialize_with = "nullable")]
    percpu_usage: Vec<IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct MemoryStats {
    usage: u64,
    #[serde(deserialize_with = "nullable")]
    stats: MemoryDetail,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct MemoryDetail {
    /// cgroup v1.
    total_inactive_file: Option<u64>,
    /// cgroup v2; under v1 it leaves out the children.
    inactive_file: Option<u64>,
}

impl Stats {
    /// `None` for a container that does not run: the engine answers zeros.
    pub(super) fn into_reading(self) -> Option<ApiReading> {
        let read = time(&self.read)?;
        let usage = self.memory.usage;
        let detail = self.memory.stats;
        let cache = detail.total_inactive_file.or(detail.inactive_file).filter(|cache| *cache < usage);
        let counted = [self.cpu.online_cpus, count(&self.cpu.cpu_usage.percpu_usage)];
        let online_cpus = counted.into_iter().find(|n| *n > 0).unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
        });
        (usage > 0 || self.cpu.cpu_usage.total_usage > 0).then_some(ApiReading {
            cpu_ns: self.cpu.cpu_usage.total_usage,
            memory_bytes: usage - cache.unwrap_or(0),
            read,
            online_cpus,
        })
    }
}

fn count<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

/// An event without what API 1.52 drops (`status`, `id`, `from`).
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Event {
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(rename = "Action")]
    pub action: String,
    #[serde(rename = "Actor")]
    pub actor: Actor,
    pub time: i64,
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Actor {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Attributes", deserialize_with = "nullable")]
    pub attributes: BTreeMap<String, String>,
}

pub(super) fn container_id(raw: &str) -> Result<ContainerId, Error> {
    ContainerId::parse(raw).map_err(|_| Error::Malformed("a container without an id".to_owned()))
}

/// `sha256:` and 64 hex digits.
pub(super) fn image_id(raw: &str) -> Result<String, Error> {
    match raw.strip_prefix("sha256:") {
        Some(digits) if digits.len() == 64 && is_hex(digits) => Ok(raw.to_owned()),
        _ => Err(Error::Malformed("an image without an id".to_owned())),
    }
}

/// The port of `8080/tcp` or `8080`.
fn tcp_port(key: &str) -> Option<u16> {
    let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
    if protocol == "tcp" { port.parse().ok() } else { None }
}

fn tcp_ports(ports: &Ports) -> Vec<u16> {
    let mut ports: Vec<u16> = ports.keys().filter_map(|key| tcp_port(key)).collect();
    ports.sort_unstable();
    ports
}

/// Whether its ports can be published by now: Podman tells those of one that does not run, too.
fn has_process(state: State) -> bool {
    matches!(state, State::Running | State::Paused)
}

/// Where the host reaches a port bound to `ip`: "any address" is reached by loopback.
fn host_socket(ip: &str, port: u16) -> Option<SocketAddr> {
    // An engine without a choice of address says "".
    let ip =
        if ip.is_empty() { Ipv4Addr::UNSPECIFIED.into() } else { ip.parse::<IpAddr>().ok()?.to_canonical() };
    let reached = match ip {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    (port != 0).then_some(SocketAddr::new(reached, port))
}

fn prefer_v4(ports: impl Iterator<Item = (u16, SocketAddr)>) -> Published {
    let mut published = Published::new();
    for (port, socket) in ports {
        let kept = published.entry(port).or_insert(socket);
        if kept.is_ipv6() && socket.is_ipv4() {
            *kept = socket;
        }
    }
    published
}

/// RFC 3339 with up to nine digits of a second, and `Z` or an offset; the engine's year 1 means never.
pub(super) fn time(text: &str) -> Option<SystemTime> {
    let (local, offset) = match text.strip_suffix('Z') {
        Some(local) => (local, "+00:00"),
        None => text.split_at_checked(text.len().checked_sub(6)?)?,
    };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let offset_s = hours.parse::<u64>().ok()? * 3600 + minutes.parse::<u64>().ok()? * 60;
    let time = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    match offset.as_bytes().first()? {
        b'+' => time.checked_sub(Duration::from_secs(offset_s)),
        b'-' => time.checked_add(Duration::from_secs(offset_s)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ProjectId;

    fn id() -> String {
        "ab".repeat(32)
    }

    fn inspected(json: &str) -> Result<Inspected, Error> {
        let json = json.replace("ID", &id());
        serde_json::from_str::<Inspect>(&json).unwrap().into_inspected()
    }

    #[test]
    fn case_150_times_are_read_to_the_nanosecond_with_z_or_an_offset() {
        let expected = SystemTime::UNIX_EPOCH + Duration::new(1_763_951_373, 392_295_586);
        for text in [
            "2025-11-24T02:29:33.392295586Z",
            "2025-11-24T04:29:33.392295586+02:00",
            "2025-11-23T20:59:33.392295586-05:30",
        ] {
            assert_eq!(time(text), Some(expected), "{text}");
        }
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(2_208_988_800);
        assert_eq!(time("2040-01-01T00:00:00Z"), Some(far));
        for never in ["0001-01-01T00:00:00Z", "", "Z", "+02:00", "yesterday", "2025-11-24", "é+02:00", "ééé"]
        {
            assert_eq!(time(never), None, "{never}");
        }
    }

    #[test]
    fn a_container_is_read_with_its_nulls() {
        let read = inspected(
            r#"{"Id":"ID","Name":"/web","State":{"Status":"created","Health":null},
                "Config":{"Labels":null,"ExposedPorts":null,"Healthcheck":null},
                "HostConfig":{"RestartPolicy":null},"NetworkSettings":{"Ports":null,"Networks":null}}"#,
        )
        .unwrap();
        assert_eq!(read.name.as_str(), "web");
        assert_eq!((read.state, read.health, read.pid), (State::Created, Health::None, None));
        assert_eq!((read.started_at, read.capacity), (None, None));
        assert!(read.addresses.is_empty() && read.published.is_empty() && read.exposed_ports.is_empty());
    }

    #[test]
    fn a_running_container_is_read_in_full() {
        let read = inspected(
            r#"{"Id":"ID","Name":"/web","Image":"sha256:1","RestartCount":2,
                "State":{"Status":"running","Pid":42,"StartedAt":"2025-11-24T02:29:33Z","OOMKilled":true,
                    "ExitCode":137,"Error":"a\nb","Health":{"Status":"unhealthy"}},
                "Config":{"Tty":true,"Labels":{"muelle.project":"proj-0000002a","x":"y","com.docker.compose.project":"c"},
                    "ExposedPorts":{"8080/tcp":{},"53/udp":{},"443/tcp":{},"80/tcp":{}}},
                "HostConfig":{"AutoRemove":true,"NanoCpus":500000000,"CpuQuota":200000,"RestartPolicy":{"Name":"always"}},
                "NetworkSettings":{
                    "Ports":{"80/tcp":[{"HostIp":"::","HostPort":"8081"},{"HostIp":"0.0.0.0","HostPort":"8080"}],
                        "443/tcp":null,"81/tcp":[{"HostIp":"::","HostPort":"9"}],"82/tcp":[{"HostIp":"","HostPort":"7"}],
                        "53/udp":[{"HostIp":"","HostPort":"53"}],"83/tcp":[{"HostIp":"x","HostPort":"99999"}]},
                    "Networks":{"a":{"IPAddress":"172.18.0.2"},"b":{"IPAddress":""},
                        "c":{"IPAddress":"","GlobalIPv6Address":"fd00::2"},"d":null}}}"#,
        )
        .unwrap();
        assert_eq!(read.pid, Some(42));
        assert_eq!((read.exit_code, read.oom_killed, read.restart_count), (137, true, 2));
        assert_eq!((read.error.as_str(), read.restart_policy.as_str()), ("a b", "always"));
        assert_eq!((read.health, read.tty, read.capacity), (Health::Unhealthy, true, Some(0.5)));
        assert!(read.auto_remove);
        assert_eq!(read.exposed_ports, [80, 443, 8080]);
        assert_eq!(read.labels.project(), ProjectId::parse("proj-0000002a"));
        assert_eq!(read.labels.get(super::super::container::LABEL_COMPOSE_PROJECT), Some("c"));
        assert_eq!(read.labels.get("x"), None);
        let published: Vec<String> = read.published.iter().map(|(port, at)| format!("{port} {at}")).collect();
        assert_eq!(published, ["80 127.0.0.1:8080", "81 [::1]:9", "82 127.0.0.1:7"]);
        let addresses: Vec<String> = read.addresses.iter().map(|(n, ip)| format!("{n} {ip}")).collect();
        assert_eq!(addresses, ["a 172.18.0.2", "c fd00::2"]);
    }

    #[test]
    fn any_address_in_every_spelling_is_reached_by_loopback() {
        for (told, reached) in [
            ("", "127.0.0.1:80"),
            ("0.0.0.0", "127.0.0.1:80"),
            ("::ffff:0.0.0.0", "127.0.0.1:80"),
            ("::", "[::1]:80"),
            ("0::0", "[::1]:80"),
            ("::0.0.0.0", "[::1]:80"),
            ("10.0.0.7", "10.0.0.7:80"),
        ] {
            assert_eq!(host_socket(told, 80), Some(reached.parse().unwrap()), "{told}");
        }
        for refused in ["localhost", "::1%lo", "[::]"] {
            assert_eq!(host_socket(refused, 80), None, "{refused}");
        }
    }

    #[test]
    fn ports_of_a_container_that_does_not_run_are_not_published() {
        for (state, count) in [("created", 0), ("exited", 0), ("running", 1), ("paused", 1)] {
            let ports = r#""80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8081"}]"#;
            let json = format!(
                r#"{{"Id":"ID","Name":"/web","State":{{"Status":"{state}"}},"NetworkSettings":{{"Ports":{{{ports}}}}}}}"#
            );
            assert_eq!(inspected(&json).unwrap().published.len(), count, "{state}");
            let port = r#"{"IP":"127.0.0.1","PrivatePort":80,"PublicPort":8081,"Type":"tcp"}"#;
            let json = format!(r#"{{"Id":"{}","Names":["/web"],"State":"{state}","Ports":[{port}]}}"#, id());
            let row: Row = serde_json::from_str(&json).unwrap();
            assert_eq!(row.into_listed().unwrap().unwrap().published.len(), count, "{state}");
        }
    }

    #[test]
    fn case_82_an_answer_without_an_id_is_malformed() {
        assert!(matches!(inspected("{}"), Err(Error::Malformed(_))));
        assert!(matches!(inspected(r#"{"Id":"ID"}"#), Err(Error::Malformed(_))));
        let row: Row = serde_json::from_str("{}").unwrap();
        assert!(matches!(row.into_listed(), Err(Error::Malformed(_))));
        let image: ImageInspect = serde_json::from_str("{}").unwrap();
        assert!(matches!(image.into_image(), Err(Error::Malformed(_))));
    }

    #[test]
    fn a_capacity_is_the_containers_own_limit() {
        for (nano_cpus, cpu_quota, cpu_period, capacity) in [
            (0, 0, 0, None),
            (1_500_000_000, 0, 0, Some(1.5)),
            (0, 50_000, 0, Some(0.5)),
            (0, 50_000, 25_000, Some(2.0)),
            (0, -1, 100_000, None),
        ] {
            let host = HostConfig { nano_cpus, cpu_quota, cpu_period, ..HostConfig::default() };
            assert_eq!(host.capacity(), capacity);
        }
    }

    #[test]
    fn a_row_of_the_list_takes_the_first_valid_name() {
        let json = r#"{"Id":"ID","Names":["/other/link","/web"],"State":"paused","Ports":[
            {"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"PrivatePort":81,"Type":"tcp"},
            {"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"}]}"#;
        let row: Row = serde_json::from_str(&json.replace("ID", &id())).unwrap();
        let listed = row.into_listed().unwrap().unwrap();
        assert_eq!((listed.name.as_str(), listed.state), ("web", State::Paused));
        assert_eq!(listed.published.len(), 1);
        let nameless = format!(r#"{{"Id":"{}","Names":null}}"#, id());
        assert_eq!(serde_json::from_str::<Row>(&nameless).unwrap().into_listed().unwrap(), None);
    }

    #[test]
    fn memory_leaves_out_the_inactive_file_cache_only_if_it_is_smaller() {
        let reading = |memory: &str| {
            let json = format!(
                r#"{{"read":"2025-11-24T02:29:33Z","cpu_stats":{{"cpu_usage":{{"total_usage":7,"percpu_usage":[1,2,3]}}}},
                    "memory_stats":{memory}}}"#
            );
            serde_json::from_str::<Stats>(&json).unwrap().into_reading().unwrap()
        };
        for (memory, bytes) in [
            (r#"{"usage":100,"stats":{"total_inactive_file":40,"inactive_file":7}}"#, 60),
            (r#"{"usage":100,"stats":{"inactive_file":30}}"#, 70),
            (r#"{"usage":100,"stats":{"inactive_file":100}}"#, 100),
            (r#"{"usage":100,"stats":null}"#, 100),
            (r#"{"usage":100}"#, 100),
        ] {
            assert_eq!(reading(memory).memory_bytes, bytes, "{memory}");
        }
        assert_eq!(reading("{}").online_cpus, 3);
    }

    #[test]
    fn a_container_that_does_not_run_has_no_reading() {
        let stopped = r#"{"read":"0001-01-01T00:00:00Z","cpu_stats":{"cpu_usage":{"total_usage":0}},"memory_stats":{}}"#;
        assert!(serde_json::from_str::<Stats>(stopped).unwrap().into_reading().is_none());
        let zeros = r#"{"read":"2025-11-24T02:29:33Z","cpu_stats":{},"memory_stats":{}}"#;
        assert!(serde_json::from_str::<Stats>(zeros).unwrap().into_reading().is_none());
    }
}
