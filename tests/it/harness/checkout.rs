//! A folder of a test's own, with what a repository may hold. Shared by the unit tests of `deploy` and the integration tests.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};

pub struct Checkout(PathBuf);

impl Checkout {
    pub fn new(files: &[(&str, &str)]) -> Checkout {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).unwrap();
        let root = std::env::temp_dir().join(format!("muelle-checkout-{:016x}", u64::from_ne_bytes(bytes)));
        fs::create_dir_all(&root).unwrap();
        let checkout = Checkout(root);
        for (path, text) in files {
            checkout.write(path, text.as_bytes());
        }
        checkout
    }

    pub fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.0.clone() } else { self.0.join(path) }
    }

    pub fn write(&self, path: impl AsRef<Path>, content: &[u8]) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn link(&self, path: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.0.join(path)).unwrap();
    }

    pub fn fifo(&self, path: &str) {
        mknodat(CWD, self.0.join(path), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}
