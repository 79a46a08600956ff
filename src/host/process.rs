//! What this process itself costs, by the kernel's count.

use std::fs;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// The figures of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Memory in use, in bytes.
    pub resident_bytes: u64,
    /// Address space, in bytes.
    pub virtual_bytes: u64,
    /// CPU time of all threads since the start; in steps of a clock tick, 10 ms.
    pub cpu: Duration,
    /// Threads.
    pub threads: u64,
    /// Open descriptors, without the one that counts them.
    pub descriptors: u64,
    /// As many as there may be; `None` for no limit.
    pub descriptors_max: Option<u64>,
}

impl Process {
    /// Reads them; `None` where `/proc` is not to be read.
    ///
    /// # Blocks
    /// For two files of the kernel's.
    #[must_use]
    pub fn read() -> Option<Process> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let [utime, stime, threads, virtual_bytes, pages] = fields(&stat)?;
        let descriptors = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        let millis = (utime + stime) * 1000 / clock_ticks_per_second().max(1);
        Some(Process {
            resident_bytes: pages * page_size() as u64,
            virtual_bytes,
            cpu: Duration::from_millis(millis),
            threads,
            descriptors: descriptors.saturating_sub(1),
            descriptors_max: getrlimit(Resource::Nofile).current,
        })
    }
}

/// utime, stime, num_threads, vsize and rss of proc_pid_stat(5). The name in parentheses may hold spaces and parentheses.
fn fields(stat: &str) -> Option<[u64; 5]> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The first of these is the third of the manual page.
    let field = |number: usize| fields.get(number - 3)?.parse().ok();
    Some([field(14)?, field(15)?, field(20)?, field(23)?, field(24)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_by_its_numbers() {
        let line =
            "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 3 0 11 12 0 0 20 0 5 0 999 1000000 256 184467 1 1 0";
        assert_eq!(fields(line), Some([11, 12, 5, 1_000_000, 256]));
        for bad in ["", "7 (a) S 1 7", "7 a S", &line.replace(" 11 ", " x ")] {
            assert_eq!(fields(bad), None, "{bad}");
        }
    }

    #[test]
    fn this_process_has_memory_a_thread_and_descriptors() {
        let before = Process::read().unwrap();
        assert!(
            before.resident_bytes > 100_000 && before.virtual_bytes > before.resident_bytes,
            "{before:?}"
        );
        assert!(before.threads >= 1 && before.descriptors >= 3, "{before:?}");
        assert!(before.descriptors_max.is_none_or(|max| max > before.descriptors));
        let held = vec![1_u8; 64 << 20];
        let open: Vec<_> = (0..20).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let after = Process::read().unwrap();
        assert!(after.resident_bytes >= before.resident_bytes + (60 << 20), "{before:?} {after:?}");
        assert!(after.descriptors >= before.descriptors + 15, "{before:?} {after:?}");
        assert!(after.cpu >= before.cpu);
        drop((held, open));
    }
}
