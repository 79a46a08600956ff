//! A checkout as it is looked at: from its own folder inwards, without ever following a link.
//!
//! Every step goes from an open folder to a name in it, so that nothing outside can be reached, whatever the names are and whatever
//! changes meanwhile. Only what is a regular file is ever opened for reading. Runs on the thread of the deployment.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

/// Why a repository cannot be built: a sentence for the person who deploys it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

impl Refusal {
    pub(super) fn new<T>(sentence: impl Into<String>) -> Result<T, Refusal> {
        Err(Refusal(sentence.into()))
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File {
        bytes: u64,
        executable: bool,
    },
    /// What cannot be carried, in a word.
    Other(&'static str),
}

/// An open checkout.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

impl Tree {
    /// Opens the folder of a checkout.
    ///
    /// # Errors
    /// When it is not there, or a link.
    pub fn open(folder: &Path) -> Result<Tree, Refusal> {
        let root = openat(CWD, folder, FOLDER, Mode::empty());
        Ok(Tree { root: root.map_err(|errno| unreadable(Path::new("its folder"), errno))? })
    }

    /// What there is at a path; `None` where nothing is, or a part of the way is no folder.
    pub(super) fn kind(&self, path: &Path) -> Result<Option<Kind>, Refusal> {
        let found = self.parent(path).and_then(|(folder, name)| kind_in(&folder, &name));
        match found {
            Ok(kind) => Ok(Some(kind)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(unreadable(path, errno)),
        }
    }

    /// Opens a regular file. What is something else is refused without being opened.
    pub(super) fn file(&self, path: &Path) -> Result<File, Refusal> {
        let opened = self.parent(path).and_then(|(folder, name)| {
            let regular = |kind| if let Kind::File { .. } = kind { Ok(()) } else { Err(Errno::INVAL) };
            kind_in(&folder, &name).and_then(regular)?;
            let file = openat(&folder, name.as_os_str(), FILE, Mode::empty())?;
            regular(kind_of(&rustix::fs::fstat(&file)?))?;
            Ok(File::from(file))
        });
        opened.map_err(|errno| match errno {
            Errno::INVAL | Errno::LOOP => Refusal(format!("{} is not a regular file", shown(path))),
            errno => unreadable(path, errno),
        })
    }

    /// A whole file of at most `most` bytes; `None` where there is none of that name.
    pub(super) fn read(&self, path: &Path, most: u64) -> Result<Option<Vec<u8>>, Refusal> {
        if self.kind(path)?.is_none() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let read = self.file(path)?.take(most + 1).read_to_end(&mut bytes);
        read.map_err(|error| Refusal(format!("{} cannot be read: {error}", shown(path))))?;
        if bytes.len() as u64 > most {
            return Refusal::new(format!("{} is larger than {} KiB", shown(path), most / 1024));
        }
        Ok(Some(bytes))
    }

    /// The names in a folder, sorted; at most `most` of them, else `None`.
    pub(super) fn names(&self, folder: &Path, most: usize) -> Result<Option<Vec<OsString>>, Refusal> {
        let list = || {
            let mut names = Vec::new();
            for entry in Dir::read_from(self.folder(folder)?)? {
                let name = entry?.file_name().to_bytes().to_vec();
                if name == b"." || name == b".." {
                    continue;
                }
                if names.len() == most {
                    return Ok(None);
                }
                names.push(OsString::from_vec(name));
            }
            names.sort_unstable();
            Ok(Some(names))
        };
        list().map_err(|errno| unreadable(folder, errno))
    }

    /// Opens a folder step by step.
    fn folder(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let mut at = openat(&self.root, ".", FOLDER, Mode::empty())?;
        for part in path.components() {
            let Component::Normal(name) = part else { return Err(Errno::INVAL) };
            at = openat(&at, name, FOLDER, Mode::empty())?;
        }
        Ok(at)
    }

    fn parent(&self, path: &Path) -> Result<(OwnedFd, OsString), Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        Ok((self.folder(path.parent().unwrap_or(Path::new("")))?, name.to_owned()))
    }
}

fn kind_in(folder: &OwnedFd, name: &std::ffi::OsStr) -> Result<Kind, Errno> {
    Ok(kind_of(&statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?))
}

fn kind_of(stat: &rustix::fs::Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Folder,
        FileType::RegularFile => Kind::File {
            bytes: u64::try_from(stat.st_size).unwrap_or(u64::MAX),
            executable: stat.st_mode & 0o100 != 0,
        },
        FileType::Symlink => Kind::Other("a link"),
        FileType::Fifo => Kind::Other("a fifo"),
        FileType::Socket => Kind::Other("a socket"),
        _ => Kind::Other("a device"),
    }
}

fn unreadable(path: &Path, errno: Errno) -> Refusal {
    Refusal(format!("{} of the repository cannot be read: {}", shown(path), std::io::Error::from(errno)))
}

/// A path for a sentence: without control characters, and not too long.
pub(super) fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    let mut short: String = text
        .chars()
        .take(100)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    if text.chars().nth(100).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use rustix::fs::inotify;

    use super::*;
    use crate::deploy::checkout::Checkout;

    #[test]
    fn case_93_nothing_is_reached_through_a_link_or_dots() {
        let checkout = Checkout::new(&[("outside/secret", "canary"), ("tree/in/file", "yes")]);
        checkout.link("tree/away", "../outside");
        checkout.link("tree/leaf", "../outside/secret");
        checkout.link("tree/root", "/");
        let tree = Tree::open(&checkout.path("tree")).unwrap();
        assert_eq!(tree.read(Path::new("in/file"), 10).unwrap().unwrap(), b"yes");
        for path in ["away/secret", "root/etc/passwd", "missing", "in/file/below"] {
            assert_eq!(tree.kind(Path::new(path)).unwrap(), None, "{path}");
            assert!(tree.file(Path::new(path)).is_err(), "{path}");
        }
        assert_eq!(tree.kind(Path::new("leaf")).unwrap(), Some(Kind::Other("a link")));
        assert_eq!(tree.file(Path::new("leaf")).unwrap_err().0, "leaf is not a regular file");
        for path in ["../outside/secret", "/etc/passwd", "in/../../outside/secret", ".."] {
            assert!(tree.file(Path::new(path)).is_err(), "{path}");
            assert!(tree.names(Path::new(path), 9).is_err(), "{path}");
        }
        assert!(tree.names(Path::new("away"), 9).is_err());
        assert!(Tree::open(&checkout.path("tree/away")).is_err());
    }

    #[test]
    fn case_92_a_fifo_is_never_opened() {
        let checkout = Checkout::new(&[]);
        checkout.fifo("pipe");
        let tree = Tree::open(&checkout.path("")).unwrap();
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, checkout.path("pipe"), inotify::WatchFlags::OPEN).unwrap();
        let opened = || rustix::io::read(&watch, &mut [0_u8; 256]).is_ok();
        assert!(tree.file(Path::new("pipe")).is_err());
        assert!(tree.read(Path::new("pipe"), 10).is_err());
        assert!(!opened());
        drop(openat(CWD, checkout.path("pipe"), FILE, Mode::empty()).unwrap());
        assert!(opened(), "this test would see it");
    }

    #[test]
    fn what_is_read_and_listed_has_a_bound() {
        let checkout = Checkout::new(&[("a", "1234"), ("c/d", ""), ("b", "")]);
        let tree = Tree::open(&checkout.path("")).unwrap();
        assert_eq!(tree.read(Path::new("a"), 4).unwrap().unwrap(), b"1234");
        assert_eq!(tree.read(Path::new("a"), 3).unwrap_err().0, "a is larger than 0 KiB");
        assert_eq!(tree.names(Path::new(""), 3).unwrap().unwrap(), ["a", "b", "c"]);
        assert_eq!(tree.names(Path::new(""), 2).unwrap(), None);
    }

    #[test]
    fn a_path_in_a_sentence_is_short_and_plain() {
        assert_eq!(shown(Path::new("a\u{1b}[31m\nb")), "a\u{fffd}[31m\u{fffd}b");
        assert_eq!(shown(Path::new(&"x".repeat(300))).chars().count(), 101);
    }
}
