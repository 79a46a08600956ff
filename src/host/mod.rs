//! The host itself: cgroup files, its CPUs, disks and addresses, and what this process costs it.
//!
//! Knows the kernel's files, not the engine: it is told a pid and an id. Every read is small and bounded and does not wait for
//! anybody but a disk. Runs on the caller's thread (`docker-poll`).

mod cgroup;
mod process;

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};

pub use cgroup::{Cgroup, Usage};
pub use process::Process;

/// Why a container's cgroup cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The process or its cgroup is not there any more: the container ended or was started anew.
    #[error("the cgroup is gone")]
    Gone,
    /// The files cannot be read or found on this host, now or later: ask the engine instead.
    #[error("the cgroup cannot be read: {0}")]
    Unreadable(String),
}

/// Where the kernel's file systems are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Roots {
        Roots { proc: "/proc".into(), sys: "/sys".into() }
    }
}

/// The CPUs of the host that are on, at least 1. Our own affinity and quota do not matter: they do not bind containers.
#[must_use]
pub fn online_cpus() -> u32 {
    let listed =
        std::fs::read_to_string("/sys/devices/system/cpu/online").ok().and_then(|list| count_cpus(&list));
    listed.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
    })
}

/// The kernel's list format: `0-3,5`.
fn count_cpus(text: &str) -> Option<u32> {
    text.trim()
        .split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)?.checked_add(1)
        })
        .sum()
}

/// The free bytes of the file system that holds `path` as far as this process may use them, and all its bytes.
///
/// # Errors
/// As the kernel says: no such path, or no permission on the way to it.
///
/// # Blocks
/// As long as the file system takes: for ever where it is a network's whose server is away.
pub fn free_bytes(path: &Path) -> io::Result<(u64, u64)> {
    let found = rustix::fs::statvfs(path)?;
    Ok((found.f_bavail.saturating_mul(found.f_frsize), found.f_blocks.saturating_mul(found.f_frsize)))
}

/// The threads of the whole host, those of every container included; `None` where the kernel does not say.
#[must_use]
pub fn thread_count() -> Option<u64> {
    count_threads(&std::fs::read_to_string("/proc/loadavg").ok()?)
}

/// From `0.20 0.18 0.12 1/80 11206`, proc(5): the fourth field has those that run and all there are.
fn count_threads(text: &str) -> Option<u64> {
    text.split(' ').nth(3)?.split_once('/')?.1.parse().ok()
}

/// The bytes that have come in by the network of the process `pid`, loopback aside; `None` where the kernel does not say.
#[must_use]
pub fn received_bytes(roots: &Roots, pid: u32) -> Option<u64> {
    sum_received(&std::fs::read_to_string(roots.proc.join(format!("{pid}/net/dev"))).ok()?)
}

/// From proc_pid_net(5), `dev`: below two lines of titles, `name: bytes packets …` for each interface.
fn sum_received(text: &str) -> Option<u64> {
    let lines = text.lines().skip(2).map(|line| line.split_once(':'));
    let others = lines.filter(|line| line.is_none_or(|(name, _)| name.trim() != "lo"));
    others.map(|line| line?.1.split_ascii_whitespace().next()?.parse::<u64>().ok()).sum()
}

/// Whether an interface of this host has the address. Asks the kernel's routes with a UDP socket; sends nothing. (To bind the address would
/// not do: with `net.ipv4.ip_nonlocal_bind` any can be bound.)
#[must_use]
pub fn is_local_address(address: IpAddr) -> bool {
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return address.is_loopback();
    }
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        // The port does not matter: 9 is discard.
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address)
}

/// Whether the interface of this index is a bridge: where containers are connected.
#[must_use]
pub fn is_bridge(index: u32) -> bool {
    let Ok(interfaces) = std::fs::read_dir("/sys/class/net") else { return false };
    interfaces.flatten().any(|interface| {
        let read = std::fs::read_to_string(interface.path().join("ifindex"));
        read.is_ok_and(|text| text.trim().parse() == Ok(index)) && interface.path().join("bridge").exists()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted_from_the_kernels_list() {
        for (list, count) in [("0\n", Some(1)), ("0-3\n", Some(4)), ("0-1,4,6-7\n", Some(5))] {
            assert_eq!(count_cpus(list), count);
        }
        for bad in ["", "x", "3-1", "0-", "0-4294967295"] {
            assert_eq!(count_cpus(bad), None, "{bad}");
        }
        assert!(online_cpus() >= 1);
    }

    #[test]
    fn free_bytes_are_those_of_the_file_system_that_holds_the_path() {
        let (free, total) = free_bytes(&std::env::temp_dir()).unwrap();
        assert!(0 < free && free < total, "{free} of {total}");
        assert_eq!(free_bytes(Path::new("/proc")).unwrap(), (0, 0), "another file system, without blocks");
        assert_eq!(free_bytes(Path::new("/nowhere")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn threads_are_counted_from_the_kernels_load() {
        assert_eq!(count_threads("0.20 0.18 0.12 1/80 11206\n"), Some(80));
        for bad in ["", "0.20 0.18 0.12", "0.20 0.18 0.12 180 11206", "0.20 0.18 0.12 1/x 11206"] {
            assert_eq!(count_threads(bad), None, "{bad}");
        }
        // More than this process has by itself.
        assert!(thread_count().unwrap() > std::fs::read_dir("/proc/self/task").unwrap().count() as u64);
    }

    #[test]
    fn what_a_process_network_received_is_summed_without_loopback() {
        let titles = "Inter-|   Receive  |  Transmit\n face |bytes    packets|bytes    packets\n";
        let lines = "    lo: 900 9 0 0 900 9\n  eth0: 1000 10 0 0 5 1\n  eth1:24 1 0 0 7 1\n";
        assert_eq!(sum_received(&format!("{titles}{lines}")), Some(1024));
        assert_eq!(sum_received(titles), Some(0));
        for bad in ["  eth0: x 1", "  eth0", "  eth0:"] {
            assert_eq!(sum_received(&format!("{titles}{bad}")), None, "{bad}");
        }
        assert!(received_bytes(&Roots::default(), std::process::id()).is_some());
        assert_eq!(received_bytes(&Roots { proc: "/nowhere".into(), ..Roots::default() }, 1), None);
    }

    #[test]
    fn an_address_is_local_if_an_interface_has_it() {
        for (address, local) in [
            ("127.0.0.1", true),
            ("127.8.9.10", true),
            ("::1", true),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("224.0.0.1", false),
        ] {
            assert_eq!(is_local_address(address.parse().unwrap()), local, "{address}");
        }
        // The one that this host reaches others from, where it can.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.1:9").is_ok() {
            let own = socket.local_addr().unwrap().ip();
            assert!(is_local_address(own), "{own}");
        }
    }

    #[test]
    fn a_bridge_is_known_by_its_index() {
        let lo = std::fs::read_to_string("/sys/class/net/lo/ifindex").unwrap();
        assert!(!is_bridge(lo.trim().parse().unwrap()) && !is_bridge(0));
        // Docker's own, where there is one.
        if let Ok(index) = std::fs::read_to_string("/sys/class/net/docker0/ifindex") {
            assert!(is_bridge(index.trim().parse().unwrap()));
        }
    }
}
