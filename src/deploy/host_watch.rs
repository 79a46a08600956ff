//! Whether the host has room for a build.

use std::path::Path;

use crate::host::free_bytes;
use crate::limits::{BUILD_DISK_FREE, BUILD_DISK_LAST, SMALL_DISK};

/// The free bytes of a disk, if they are too few for a build to begin. A path that is not on this machine is the engine's matter.
pub(super) fn too_little_free(path: &Path) -> Option<u64> {
    let (free, total) = free_bytes(path).ok()?;
    (free < needed(total)).then_some(free)
}

/// Whether a disk is so full that a build must end.
pub(super) fn nearly_full(path: &Path) -> bool {
    free_bytes(path).is_ok_and(|(free, total)| free < needed(total) / BUILD_DISK_LAST)
}

fn needed(total: u64) -> u64 {
    if total < SMALL_DISK { total / 10 } else { BUILD_DISK_FREE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_needs_two_gibibytes_or_a_tenth_of_a_small_disk() {
        const GB: u64 = 1_000_000_000;
        assert_eq!(needed(500 * GB), 2 << 30);
        assert_eq!(needed(20 * GB), 2 << 30);
        assert_eq!(needed(10 * GB), GB);
        assert_eq!(too_little_free(Path::new("/nowhere")), None);
        assert!(!nearly_full(Path::new("/nowhere")));
    }
}
