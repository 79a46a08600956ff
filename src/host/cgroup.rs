//! A container's counters straight from its cgroup: 200 containers cost 9 ms a cycle and the engine nothing.
//!
//! v1 and v2, whichever driver made the directory; on a hybrid host the v1 controllers count, since a controller is in one
//! hierarchy only. Keeps paths, not descriptors: a descriptor dies with a restart (ENODEV), the path comes back.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Error, Roots};
use crate::limits::CGROUP_FILE_BYTES_MAX;

/// One reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// CPU time used since the container started, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory in use without inactive file cache, in bytes.
    pub memory_bytes: u64,
}

/// Where a container's counters are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    version: Version,
    cpu: PathBuf,
    memory: PathBuf,
    memory_stat: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Cgroup {
    /// Finds the cgroup of the container `id` by its process `pid` and reads it once.
    ///
    /// The id must be a part of the path: then a pid that was given to another process meanwhile is noticed, and the counters
    /// are the container's even when its process has moved into a cgroup below.
    ///
    /// # Errors
    /// `Gone` when the process has ended, `Unreadable` where the engine has to be asked instead (another pid namespace, a rootless
    /// engine without cgroups, no permission).
    pub fn resolve(roots: &Roots, pid: u32, id: &str) -> Result<Cgroup, Error> {
        let mut buffer = [0; CGROUP_FILE_BYTES_MAX];
        let listed = read(&roots.proc.join(format!("{pid}/cgroup")), &mut buffer)?;
        let sys = roots.sys.join("fs/cgroup");
        let cgroup = match (v1(listed, "cpuacct"), v1(listed, "memory"), unified(listed)) {
            (Some((cpu_mount, cpu)), Some((memory_mount, memory)), _) => {
                let cpu = under(&mounted(&sys, cpu_mount, "cpuacct"), cpu, id)?;
                let memory = under(&mounted(&sys, memory_mount, "memory"), memory, id)?;
                Cgroup {
                    version: Version::V1,
                    cpu: cpu.join("cpuacct.usage"),
                    memory: memory.join("memory.usage_in_bytes"),
                    memory_stat: memory.join("memory.stat"),
                }
            }
            (None, None, Some(path)) => {
                let directory = under(&sys, path, id)?;
                Cgroup {
                    version: Version::V2,
                    cpu: directory.join("cpu.stat"),
                    memory: directory.join("memory.current"),
                    memory_stat: directory.join("memory.stat"),
                }
            }
            _ => return Err(Error::Unreadable("no CPU and memory controllers in one version".to_owned())),
        };
        match cgroup.read() {
            Ok(_) => Ok(cgroup),
            // The process was there: what is missing is the mount.
            Err(Error::Gone) => Err(Error::Unreadable(format!("{} is missing", cgroup.cpu.display()))),
            Err(e) => Err(e),
        }
    }

    /// Reads the counters. Allocates nothing; opens, reads and closes three files.
    ///
    /// # Errors
    /// `Gone` when the container has ended; after a restart the same paths count from zero.
    pub fn read(&self) -> Result<Usage, Error> {
        let mut buffer = [0; CGROUP_FILE_BYTES_MAX];
        let cpu = read(&self.cpu, &mut buffer)?;
        let cpu_ns = match self.version {
            Version::V1 => number(cpu),
            Version::V2 => field(cpu, "usage_usec").and_then(|us| us.checked_mul(1000)),
        }
        .ok_or_else(|| no_number(&self.cpu))?;
        let usage = number(read(&self.memory, &mut buffer)?).ok_or_else(|| no_number(&self.memory))?;
        let cache_name = match self.version {
            Version::V1 => "total_inactive_file",
            Version::V2 => "inactive_file",
        };
        // The two files are read one after the other: the cache may have outgrown the usage meanwhile.
        let cache = field(read(&self.memory_stat, &mut buffer)?, cache_name).filter(|cache| *cache < usage);
        Ok(Usage { cpu_ns, memory_bytes: usage - cache.unwrap_or(0) })
    }
}

/// The hierarchy's list of controllers and the path in it, from a line like `4:cpu,cpuacct:/docker/…`.
fn v1<'a>(listed: &'a str, controller: &str) -> Option<(&'a str, &'a str)> {
    listed.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some((controllers, path))
    })
}

/// The path in the unified hierarchy, from the line `0::/…`.
fn unified(listed: &str) -> Option<&str> {
    listed.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Where a v1 hierarchy is mounted: under all its controllers (`cpu,cpuacct`), which may be a link, or under the one.
fn mounted(sys: &Path, controllers: &str, controller: &str) -> PathBuf {
    let together = sys.join(controllers);
    if together.is_dir() { together } else { sys.join(controller) }
}

/// The directory of the innermost part of `path` that names the container.
fn under(mount: &Path, path: &str, id: &str) -> Result<PathBuf, Error> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let last = parts.iter().rposition(|part| !id.is_empty() && part.contains(id));
    match last {
        Some(last) if !parts.contains(&"..") => Ok(mount.join(parts[..=last].join("/"))),
        _ => Err(Error::Unreadable("the process is in no cgroup of the container".to_owned())),
    }
}

fn read<'a>(path: &Path, buffer: &'a mut [u8]) -> Result<&'a str, Error> {
    let failed = |e: io::Error| match e.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        // ENODEV and ESRCH: the cgroup or the process went while its file was open.
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::NODEV | rustix::io::Errno::SRCH) => Error::Gone,
        _ => Error::Unreadable(format!("{}: {e}", path.display())),
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => return std::str::from_utf8(&buffer[..length]).map_err(|_| no_number(path)),
            Ok(count) => length += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Err(Error::Unreadable(format!("{} is longer than {CGROUP_FILE_BYTES_MAX} bytes", path.display())))
}

fn no_number(path: &Path) -> Error {
    Error::Unreadable(format!("{} has another format", path.display()))
}

fn number(text: &str) -> Option<u64> {
    text.trim_ascii().parse().ok()
}

/// The number behind `name` in a file of `name number` lines.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').and_then(number))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Tree {
            let root = std::env::temp_dir().join(format!("muelle-cgroup-{name}-{}", std::process::id()));
            let tree = Tree(root);
            for (path, text) in files {
                tree.write(path, text);
            }
            tree
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path.replace("ID", ID));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text.replace("ID", ID)).unwrap();
        }

        fn resolve(&self) -> Result<Cgroup, Error> {
            Cgroup::resolve(&Roots { proc: self.0.join("proc"), sys: self.0.join("sys") }, 7, ID)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn v1_is_read_from_separate_hierarchies() {
        let tree = Tree::new(
            "v1",
            &[
                (
                    "proc/7/cgroup",
                    "9:name=systemd:/docker/ID\n4:memory:/docker/ID\n2:cpuacct:/docker/ID\n1:cpu:/\n0::/\n",
                ),
                ("sys/fs/cgroup/cpuacct/docker/ID/cpuacct.usage", "123456789\n"),
                ("sys/fs/cgroup/memory/docker/ID/memory.usage_in_bytes", "5000\n"),
                ("sys/fs/cgroup/memory/docker/ID/memory.stat", "inactive_file 1\ntotal_inactive_file 2000\n"),
            ],
        );
        let usage = tree.resolve().unwrap().read().unwrap();
        assert_eq!(usage, Usage { cpu_ns: 123_456_789, memory_bytes: 3000 });
    }

    #[test]
    fn v1_is_read_where_cpu_and_cpuacct_are_mounted_together_under_a_slice() {
        let scope = "system.slice/docker-ID.scope";
        let tree = Tree::new(
            "v1c",
            &[
                ("proc/7/cgroup", &format!("5:cpu,cpuacct:/{scope}\n4:memory:/{scope}\n0::/{scope}\n")),
                (&format!("sys/fs/cgroup/cpu,cpuacct/{scope}/cpuacct.usage"), "7\n"),
                (&format!("sys/fs/cgroup/memory/{scope}/memory.usage_in_bytes"), "10\n"),
                (&format!("sys/fs/cgroup/memory/{scope}/memory.stat"), "cache 9\n"),
            ],
        );
        assert_eq!(tree.resolve().unwrap().read().unwrap(), Usage { cpu_ns: 7, memory_bytes: 10 });
    }

    #[test]
    fn v2_is_read_with_both_drivers_and_from_a_process_that_moved_below() {
        for (name, directory, below) in [
            ("fs", "docker/ID", ""),
            ("sd", "system.slice/docker-ID.scope", ""),
            ("in", "docker/ID", "/init.scope"),
        ] {
            let tree = Tree::new(
                name,
                &[
                    ("proc/7/cgroup", &format!("0::/{directory}{below}\n")),
                    (&format!("sys/fs/cgroup/{directory}/cpu.stat"), "usage_usec 42\nuser_usec 40\n"),
                    (&format!("sys/fs/cgroup/{directory}/memory.current"), "5000\n"),
                    (&format!("sys/fs/cgroup/{directory}/memory.stat"), "anon 1\ninactive_file 5000\n"),
                ],
            );
            let cgroup = tree.resolve().unwrap();
            assert_eq!(
                cgroup.read().unwrap(),
                Usage { cpu_ns: 42_000, memory_bytes: 5000 },
                "not smaller: {name}"
            );
            tree.write(&format!("sys/fs/cgroup/{directory}/memory.stat"), "inactive_file 4999\n");
            assert_eq!(cgroup.read().unwrap().memory_bytes, 1);
            fs::remove_file(tree.0.join(format!("sys/fs/cgroup/{directory}/cpu.stat").replace("ID", ID)))
                .unwrap();
            assert_eq!(cgroup.read(), Err(Error::Gone));
        }
    }

    #[test]
    fn another_process_or_another_view_is_never_measured() {
        for (name, listed) in [
            ("pid", "0::/user.slice/user-1000.slice\n"),
            ("ns", "0::/../docker/ID\n"),
            ("root", "0::/\n"),
            ("mixed", "4:memory:/docker/ID\n0::/docker/ID\n"),
            ("junk", "\n:\n::\n\u{0}"),
            ("none", ""),
        ] {
            let tree = Tree::new(name, &[("proc/7/cgroup", listed)]);
            assert!(matches!(tree.resolve(), Err(Error::Unreadable(_))), "{name}: {:?}", tree.resolve());
        }
        let tree = Tree::new("ended", &[("proc/8/cgroup", "0::/docker/ID\n")]);
        assert_eq!(tree.resolve(), Err(Error::Gone));
    }

    #[test]
    fn files_that_are_missing_overlong_or_of_another_format_are_unreadable() {
        let tree = Tree::new("bad", &[("proc/7/cgroup", "0::/docker/ID\n")]);
        assert!(matches!(tree.resolve(), Err(Error::Unreadable(_))), "not mounted");
        let endless = "x 1\n".repeat(CGROUP_FILE_BYTES_MAX / 4);
        for (cpu, memory, stat) in [
            ("", "1", ""),
            ("usage_usec", "1", ""),
            ("usage_usec 18446744073709551615", "1", ""),
            ("usage_usec 1", "max", ""),
            ("usage_usec 1", "1", endless.as_str()),
        ] {
            for (file, text) in [("cpu.stat", cpu), ("memory.current", memory), ("memory.stat", stat)] {
                tree.write(&format!("sys/fs/cgroup/docker/ID/{file}"), text);
            }
            assert!(matches!(tree.resolve(), Err(Error::Unreadable(_))), "{cpu} {memory}");
        }
    }
}
