//! How a container as the engine describes it becomes what the lifecycle and the clients need: reality, readiness, an address.
//!
//! Pure; no I/O.

use std::net::{IpAddr, SocketAddr};

use crate::docker::{self, Inspected};
use crate::domain::lifecycle::{Health, Readiness, Real};
use crate::domain::{IdleAfter, Project};

/// How muelle's own containers are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// At their address on muelle's network.
    Network,
    /// At a port that the engine publishes on the loopback address.
    Published,
}

/// What the engine shows, in the lifecycle's words. `is_current` says whether the container is what would be created now.
pub(super) fn reality(project: &Project, seen: &Inspected, is_current: bool) -> Real {
    use docker::State;
    let exit = seen.started_at.map(|_| seen.exit_code);
    match seen.state {
        State::Running => Real::Up {
            since: seen.started_at.unwrap_or(std::time::UNIX_EPOCH),
            readiness: readiness(project, seen),
        },
        State::Paused => Real::Paused,
        State::Restarting => Real::Restarting { exit: seen.exit_code },
        State::Created | State::Exited | State::Dead | State::Removing => {
            Real::Down { exit, oom: seen.oom_killed, stale: !is_current }
        }
    }
}

fn readiness(project: &Project, seen: &Inspected) -> Readiness {
    let named = project.port().is_some_and(|(_, known)| known);
    let health = match seen.health {
        docker::Health::None => None,
        docker::Health::Starting => Some(Health::Starting),
        docker::Health::Healthy => Some(Health::Healthy),
        docker::Health::Unhealthy => Some(Health::Unhealthy),
    };
    match (port(project, seen), health) {
        (Some(port), _) if named && probe_address(project, seen).is_some() => Readiness::Http { port, named },
        (_, Some(health)) => Readiness::Checked(health),
        (Some(port), None) if speaks_http(project) && probe_address(project, seen).is_some() => {
            Readiness::Http { port, named }
        }
        _ => Readiness::Uptime,
    }
}

/// Whether what listens there may be asked for HTTP. An adopted container can be anything, until its owner says that requests wake it.
fn speaks_http(project: &Project) -> bool {
    !project.is_adopted() || matches!(project.settings.idle_after, Some(IdleAfter::After(_)))
}

/// The port inside the container: the word when it was created, today's where that is not known, or else the only one there is.
fn port(project: &Project, seen: &Inspected) -> Option<u16> {
    let only = |ports: &[u16]| if let [port] = ports { Some(*port) } else { None };
    let published: Vec<u16> = seen.published.keys().copied().collect();
    // What was changed since is for the next one.
    let said = match seen.labels.get(docker::LABEL_PORT).filter(|_| !project.is_adopted()) {
        Some(created) => created.parse().ok(),
        None => project.port().map(|(port, _)| port),
    };
    said.or_else(|| only(&published)).or_else(|| only(&seen.exposed_ports))
}

/// Where this process reaches the app: its own address, else a published port.
pub(super) fn probe_address(project: &Project, seen: &Inspected) -> Option<SocketAddr> {
    let port = port(project, seen)?;
    let own = network_address(seen).map(|ip| SocketAddr::new(ip, port));
    let published = seen.published.get(&port).copied();
    if project.is_adopted() { own.or(published) } else { published.or(own) }
}

/// Where a person's browser on this machine reaches the app: a published port, else its own address.
pub(super) fn browser_address(project: &Project, seen: &Inspected) -> Option<SocketAddr> {
    let port = port(project, seen)?;
    let published = seen.published.get(&port).copied();
    published.or_else(|| network_address(seen).map(|ip| SocketAddr::new(ip, port)))
}

fn network_address(seen: &Inspected) -> Option<IpAddr> {
    seen.addresses.values().next().copied()
}

/// The end of what a container printed, short enough for a sentence.
pub(super) fn last_output(log: &str, max_chars: usize) -> String {
    let lines: Vec<&str> = log.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let text = lines[lines.len().saturating_sub(3)..].join(" / ");
    let skip = text.chars().count().saturating_sub(max_chars);
    text.chars().skip(skip).collect()
}
