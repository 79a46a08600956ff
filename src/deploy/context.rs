//! What a build is given: a tar of the repository's files, made by us.
//!
//! The checkout is walked first, so that whatever is refused is refused before the engine hears of it; then the files are read one by
//! one. Links are never followed, nor carried: git writes them as plain files, so that there are none in a checkout. Order, owners,
//! modes and times depend on nothing but the commit, for the engine's cache. Holds paths and one buffer in memory, never a file.

use std::ffi::OsStr;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::ignore::{Fits, Steps};
use super::recipe::Recipe;
use super::tree::{Kind, Refusal, Tree, shown};
use crate::limits::{
    CONTEXT_BUFFER_BYTES, CONTEXT_DEPTH_MAX, CONTEXT_FILES_MAX, CONTEXT_LEFT_OUT_NAMED,
    CONTEXT_PATHS_BYTES_MAX,
};

/// The files of a build, found but not read yet.
#[derive(Debug)]
pub struct Context<'a> {
    tree: Tree,
    recipe: &'a Recipe,
    /// What is carried, parents before their content.
    entries: Vec<(PathBuf, Kind)>,
    left_out: Vec<String>,
    left_out_more: usize,
    bytes: u64,
}

/// Why a context did not get to the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read as it was found.
    #[error(transparent)]
    Read(#[from] Refusal),
    /// The other end takes no more; it knows why.
    #[error("the build's files cannot be sent: {0}")]
    Write(io::Error),
}

impl Context<'_> {
    /// Walks a checkout for what its recipe needs; `bytes_max` binds the sum of the files.
    ///
    /// # Errors
    /// When there are too many files, they are too large, too deep, or cannot be read.
    ///
    /// # Blocks
    /// On the disk.
    pub fn of<'a>(checkout: &Path, recipe: &'a Recipe, bytes_max: u64) -> Result<Context<'a>, Refusal> {
        let context = Context {
            tree: Tree::open(checkout)?,
            recipe,
            entries: Vec::new(),
            left_out: Vec::new(),
            left_out_more: 0,
            bytes: 0,
        };
        let mut walk = Walk { context, bytes_max, seen: 0, paths_bytes: 0, steps: Steps::default() };
        walk.folder(Path::new(""), &[], &Fits::default(), 0)?;
        Ok(walk.context)
    }

    /// How many files there are, how large they are together, and what could not be carried: a sentence for the progress.
    #[must_use]
    pub fn sentence(&self) -> String {
        let files = self.entries.iter().filter(|(_, kind)| *kind != Kind::Folder).count();
        let mut left_out = self.left_out.join(", ");
        if !left_out.is_empty() {
            left_out.insert_str(0, "; left out: ");
        }
        let more = match self.left_out_more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let plural = if files == 1 { "" } else { "s" };
        format!("{files} file{plural}, {} KiB{left_out}{more}", self.bytes.div_ceil(1024))
    }

    /// Writes the tar; `time` in seconds since 1970, the commit's, is that of every file. After an error what was written has no end,
    /// but some of it may still read as a whole archive: the request that carries it must be cut off.
    ///
    /// # Errors
    /// When a file is not what it was, or the other end takes no more.
    ///
    /// # Blocks
    /// On the disk and on `out`.
    pub fn write(&self, out: impl Write, time: u64) -> Result<(), Error> {
        let mut out = BufWriter::with_capacity(CONTEXT_BUFFER_BYTES, out);
        let mut tar = tar::Builder::new(&mut out);
        let written = self.append_all(&mut tar, time).and_then(|()| tar.finish().map_err(Error::Write));
        drop(tar); // which writes the archive's end, if that is not there yet
        if written.is_err() {
            // What waits in the buffer goes nowhere, the end with it.
            drop(out.into_parts());
            return written;
        }
        out.flush().map_err(Error::Write)
    }

    fn append_all(&self, tar: &mut tar::Builder<impl Write>, time: u64) -> Result<(), Error> {
        for (path, bytes) in &self.recipe.files {
            let mut header = header(Kind::File { bytes: bytes.len() as u64, executable: false }, time);
            append(tar, Path::new(path), &mut header, bytes.as_slice()).map_err(Error::Write)?;
        }
        for (path, kind) in &self.entries {
            let to = Path::new(self.recipe.folder).join(path);
            let mut header = header(*kind, time);
            let Kind::File { bytes, .. } = *kind else {
                append(tar, &to, &mut header, io::empty()).map_err(Error::Write)?;
                continue;
            };
            let mut content = Exactly { file: self.tree.file(path)?, left: bytes, failed: None };
            let appended = append(tar, &to, &mut header, &mut content);
            if let Some(error) = content.failed {
                return Err(Refusal(format!("{} changed while it was read: {error}", shown(path))).into());
            }
            appended.map_err(Error::Write)?;
        }
        Ok(())
    }
}

/// The last time that every reader of tars knows, in the year 2242: a commit may claim any.
const TIME_MAX: u64 = 0o777_7777_7777;

fn header(kind: Kind, time: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    let (entry, bytes, mode) = match kind {
        Kind::File { bytes, executable: false } => (tar::EntryType::Regular, bytes, 0o644),
        Kind::File { bytes, executable: true } => (tar::EntryType::Regular, bytes, 0o755),
        Kind::Folder | Kind::Other(_) => (tar::EntryType::Directory, 0, 0o755),
    };
    header.set_entry_type(entry);
    header.set_size(bytes);
    header.set_mode(mode);
    header.set_mtime(time.min(TIME_MAX));
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// One entry. A path beyond the header's field goes before it, as GNU tar does; the library's own way refuses one that begins with bytes
/// that are no UTF-8.
fn append(
    tar: &mut tar::Builder<impl Write>,
    path: &Path,
    header: &mut tar::Header,
    content: impl Read,
) -> io::Result<()> {
    let path = path.as_os_str().as_bytes();
    let mut named = |header: &mut tar::Header, name: &[u8], content: &mut dyn Read| {
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_cksum();
        tar.append(header, content)
    };
    let short = &path[..path.len().min(header.as_old().name.len())];
    if short != path {
        let mut long = tar::Header::new_gnu();
        long.set_entry_type(tar::EntryType::GNULongName);
        long.set_size(path.len() as u64 + 1);
        named(&mut long, b"././@LongLink", &mut path.chain(&b"\0"[..]))?;
    }
    let mut content = content;
    named(header, short, &mut content)
}

/// As many bytes of a file as its header promises: fewer are an error, more are not read.
struct Exactly<R> {
    file: R,
    left: u64,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let error = match self.file.read(&mut buffer[..want]) {
            Ok(0) if want > 0 => io::Error::from(io::ErrorKind::UnexpectedEof),
            Ok(got) => {
                self.left -= got as u64;
                return Ok(got);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => error,
        };
        let kind = error.kind();
        self.failed = Some(error);
        Err(kind.into())
    }
}

struct Walk<'a> {
    context: Context<'a>,
    bytes_max: u64,
    seen: usize,
    paths_bytes: usize,
    steps: Steps,
}

impl Walk<'_> {
    /// Everything in a folder; `chars` is its path as the patterns see it.
    fn folder(&mut self, path: &Path, chars: &[char], fits: &Fits, depth: usize) -> Result<(), Refusal> {
        if depth > CONTEXT_DEPTH_MAX {
            return Refusal::new(format!(
                "the repository has more than {CONTEXT_DEPTH_MAX} folders within each other"
            ));
        }
        let Some(names) = self.context.tree.names(path, CONTEXT_FILES_MAX - self.seen)? else {
            return Refusal::new(format!(
                "the repository has more than {CONTEXT_FILES_MAX} files and folders"
            ));
        };
        self.seen += names.len();
        for name in names {
            if depth == 0 && self.is_ours(&name) {
                continue;
            }
            let mut inner = chars.to_vec();
            if depth > 0 {
                inner.push('/');
            }
            inner.extend(name.to_string_lossy().chars());
            self.entry(path.join(name), &inner, fits, depth)?;
        }
        Ok(())
    }

    /// What a build has from muelle or should not have at all: files of the recipe, `.dockerignore` where nobody reads it, git's own.
    fn is_ours(&self, name: &OsStr) -> bool {
        let made = self.context.recipe.folder.is_empty()
            && self.context.recipe.files.iter().any(|(path, _)| OsStr::new(path) == name);
        made || name == ".dockerignore" || name == ".git"
    }

    fn entry(&mut self, path: PathBuf, chars: &[char], folder: &Fits, depth: usize) -> Result<(), Refusal> {
        let ignore = &self.context.recipe.ignore;
        let fits = ignore.fits(chars, folder, &mut self.steps)?;
        let leave_out = ignore.leaves_out(&fits);
        if leave_out && !ignore.has_exceptions() {
            return Ok(());
        }
        match self.context.tree.kind(&path)? {
            Some(Kind::Folder) => {
                let before = self.context.entries.len();
                self.add(path.clone(), Kind::Folder)?;
                self.folder(&path, chars, &fits, depth + 1)?;
                if leave_out && self.context.entries.len() == before + 1 {
                    self.context.entries.pop(); // nothing in it came back
                }
            }
            Some(_) if leave_out => {}
            Some(kind @ Kind::File { bytes, .. }) => {
                self.context.bytes = self.context.bytes.saturating_add(bytes);
                if self.context.bytes > self.bytes_max {
                    return Refusal::new(format!(
                        "the repository's files are larger than {} MiB together ({} goes beyond that)",
                        self.bytes_max >> 20,
                        shown(&path)
                    ));
                }
                self.add(path, kind)?;
            }
            Some(Kind::Other(what)) if self.context.left_out.len() < CONTEXT_LEFT_OUT_NAMED => {
                self.context.left_out.push(format!("{} ({what})", shown(&path)));
            }
            Some(Kind::Other(_)) => self.context.left_out_more += 1,
            None => return Refusal::new(format!("{} vanished while it was looked at", shown(&path))),
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf, kind: Kind) -> Result<(), Refusal> {
        self.paths_bytes += path.as_os_str().as_bytes().len();
        if self.paths_bytes > CONTEXT_PATHS_BYTES_MAX {
            return Refusal::new("the paths of the repository's files are too long together");
        }
        self.context.entries.push((path, kind));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::deploy::checkout::Checkout;
    use crate::deploy::recipe::{self, Images};

    const NO_BOUND: u64 = u64::MAX;

    fn recipe_of(checkout: &Checkout) -> Recipe {
        recipe::find(&checkout.path(""), None, &Images::default(), &[]).unwrap()
    }

    type Entry = (Vec<u8>, u8, u32, u64, Vec<u8>);

    /// Path, kind, mode, time and content of every entry, in order; the archive has a proper end.
    fn written(checkout: &Checkout, recipe: &Recipe) -> Vec<Entry> {
        let mut bytes = Vec::new();
        Context::of(&checkout.path(""), recipe, NO_BOUND).unwrap().write(&mut bytes, 1_700_000_000).unwrap();
        assert!(bytes.ends_with(&[0; 1024]));
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let head = entry.header();
            assert_eq!((head.uid().unwrap(), head.gid().unwrap()), (0, 0));
            let kind = head.entry_type().as_byte();
            (entry.path_bytes().to_vec(), kind, head.mode().unwrap(), head.mtime().unwrap(), content)
        });
        entries.collect()
    }

    fn paths(checkout: &Checkout, recipe: &Recipe) -> Vec<String> {
        let all = written(checkout, recipe).into_iter();
        all.map(|(path, ..)| String::from_utf8_lossy(&path).into_owned()).collect()
    }

    #[test]
    fn a_context_is_the_same_whoever_checked_it_out_and_when() {
        let checkout = Checkout::new(&[("b/c", "cc"), ("index.html", "<p>"), ("a", ""), ("Z", "z")]);
        fs::set_permissions(checkout.path("a"), fs::Permissions::from_mode(0o4770)).unwrap();
        fs::set_permissions(checkout.path("b/c"), fs::Permissions::from_mode(0o600)).unwrap();
        let recipe = recipe_of(&checkout);
        let seen = written(&checkout, &recipe);
        let short: Vec<_> = seen[recipe.files.len()..]
            .iter()
            .map(|(path, kind, mode, _, content)| {
                (std::str::from_utf8(path).unwrap(), *kind, *mode, content.as_slice())
            })
            .collect();
        let expected: Vec<(&str, u8, u32, &[u8])> = vec![
            ("app/Z", b'0', 0o644, b"z"),
            ("app/a", b'0', 0o755, b""),
            ("app/b", b'5', 0o755, b""),
            ("app/b/c", b'0', 0o644, b"cc"),
            ("app/index.html", b'0', 0o644, b"<p>"),
        ];
        assert_eq!(short, expected);
        assert!(seen.iter().all(|(.., time, _)| *time == 1_700_000_000));
        assert_eq!(header(Kind::Folder, u64::MAX).mtime().unwrap(), TIME_MAX);
    }

    #[test]
    fn case_93_odd_names_are_carried_as_they_are() {
        let long = "l".repeat(250);
        let invalid = [&b"\xff\xfe"[..], &b"\xc3".repeat(200)].concat();
        let deep = "folder/".repeat(40) + "file";
        let names: [&[u8]; 9] = [
            b"-rf",
            b"\n",
            b" ",
            b"\\",
            b"\xff\xc3\x28",
            b".git/config/x",
            long.as_bytes(),
            &invalid,
            deep.as_bytes(),
        ];
        for own in [true, false] {
            let checkout =
                Checkout::new(&[("index.html", ""), ("sub/.git/config", "carried"), (".gitignore", "")]);
            if own {
                checkout.write("Dockerfile", b"FROM scratch");
            }
            for name in names {
                checkout.write(OsStr::from_bytes(name), name);
            }
            let recipe = recipe_of(&checkout);
            let found: BTreeMap<_, _> =
                written(&checkout, &recipe).into_iter().map(|(path, .., content)| (path, content)).collect();
            for name in names {
                let path = Path::new(recipe.folder).join(OsStr::from_bytes(name));
                let content = found.get(path.as_os_str().as_bytes());
                // What git itself never checks out, and what holds a token where it does.
                let expected = if name.starts_with(b".git/") { None } else { Some(name) };
                assert_eq!(content.map(Vec::as_slice), expected, "{path:?}");
            }
            for carried in ["sub/.git/config", ".gitignore"] {
                assert!(found.contains_key(Path::new(recipe.folder).join(carried).as_os_str().as_bytes()));
            }
        }
    }

    #[test]
    fn case_93_links_and_what_is_no_file_are_left_out_and_named() {
        let checkout = Checkout::new(&[("tree/index.html", ""), ("canary/secret", "canary")]);
        for (name, target) in
            [("a", "/"), ("b", "../.."), ("c", "../canary"), ("d", "../canary/secret"), ("e", "index.html")]
        {
            checkout.link(&format!("tree/{name}"), target);
        }
        checkout.fifo("tree/pipe");
        let _socket = std::os::unix::net::UnixListener::bind(checkout.path("tree/sock\u{1b}et")).unwrap();
        let tree = checkout.path("tree");
        let recipe = recipe::find(&tree, None, &Images::default(), &[]).unwrap();
        let context = Context::of(&tree, &recipe, NO_BOUND).unwrap();
        assert_eq!(
            context.sentence(),
            "1 file, 0 KiB; left out: a (a link), b (a link), c (a link), d (a link), e (a link) and 2 more"
        );
        let mut bytes = Vec::new();
        context.write(&mut bytes, 0).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"canary"));
    }

    #[test]
    fn case_93_too_much_is_refused_before_anything_is_read() {
        let checkout = Checkout::new(&[("index.html", "<p>")]);
        let huge = fs::File::create(checkout.path("huge")).unwrap();
        huge.set_len(10 << 30).unwrap();
        let recipe = recipe_of(&checkout);
        let refused = |most| Context::of(&checkout.path(""), &recipe, most).map(|context| context.sentence());
        let said = refused(500 << 20).unwrap_err().0;
        assert_eq!(said, "the repository's files are larger than 500 MiB together (huge goes beyond that)");
        assert!(refused((10 << 30) + 3).is_ok());
        assert!(refused((10 << 30) + 2).is_err());

        for n in 0..CONTEXT_FILES_MAX - 2 {
            fs::hard_link(checkout.path("index.html"), checkout.path(&format!("{n}"))).unwrap();
        }
        assert!(refused(NO_BOUND).is_ok());
        checkout.write("one/more", b"");
        let said = refused(NO_BOUND).unwrap_err().0;
        assert_eq!(said, "the repository has more than 20000 files and folders");
    }

    #[test]
    fn case_93_folders_and_paths_without_end_are_refused() {
        let checkout = Checkout::new(&[("index.html", "")]);
        checkout.write("d/".repeat(CONTEXT_DEPTH_MAX) + "file", b"");
        let recipe = recipe_of(&checkout);
        assert!(Context::of(&checkout.path(""), &recipe, NO_BOUND).is_ok());
        checkout.write("d/".repeat(CONTEXT_DEPTH_MAX + 1) + "file", b"");
        let said = Context::of(&checkout.path(""), &recipe, NO_BOUND).unwrap_err().0;
        assert_eq!(said, "the repository has more than 64 folders within each other");

        let checkout = Checkout::new(&[("index.html", "")]);
        let folder = format!("{}/", "n".repeat(200)).repeat(15);
        for n in 0..1500 {
            checkout.write(format!("{folder}{n}"), b"");
        }
        let said = Context::of(&checkout.path(""), &recipe, NO_BOUND).unwrap_err().0;
        assert_eq!(said, "the paths of the repository's files are too long together");
    }

    #[test]
    fn a_file_that_changes_meanwhile_ends_the_archive_without_an_end() {
        let checkout = Checkout::new(&[("index.html", "<p>"), ("late", "123456")]);
        let recipe = recipe_of(&checkout);
        let context = || Context::of(&checkout.path(""), &recipe, NO_BOUND).unwrap();
        let write = |context: &Context, change: &str| {
            checkout.write("late", change.as_bytes());
            let mut bytes = Vec::new();
            (context.write(&mut bytes, 0), bytes)
        };
        let before = context();
        let (done, whole) = write(&before, "123456");
        done.unwrap();
        let (done, longer) = write(&before, "123456789");
        done.unwrap();
        assert_eq!(longer, whole, "what was added is not carried");
        for bytes in (0..20_000).step_by(256) {
            // Wherever the buffer is full.
            checkout.write("index.html", "x".repeat(4 * CONTEXT_BUFFER_BYTES - bytes).as_bytes());
            checkout.write("late", b"123456");
            let (done, cut) = write(&context(), "123");
            assert!(
                matches!(&done, Err(Error::Read(Refusal(why))) if why.starts_with("late changed")),
                "{done:?}"
            );
            assert!(!cut.is_empty() && !cut.ends_with(&[0; 513]), "{bytes}");
        }
        fs::remove_file(checkout.path("late")).unwrap();
        assert!(matches!(before.write(io::sink(), 0), Err(Error::Read(_))));
        checkout.link("late", "index.html");
        let done = before.write(io::sink(), 0);
        assert!(
            matches!(&done, Err(Error::Read(Refusal(why))) if why == "late is not a regular file"),
            "{done:?}"
        );
    }

    #[test]
    fn who_takes_no_more_is_told_apart_from_a_file_that_cannot_be_read() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let checkout = Checkout::new(&[("index.html", &"x".repeat(200_000))]);
        let recipe = recipe_of(&checkout);
        let context = Context::of(&checkout.path(""), &recipe, NO_BOUND).unwrap();
        assert!(
            matches!(context.write(Full, 0), Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe)
        );
    }

    #[test]
    fn what_dockerignore_names_is_left_out() {
        let files = [
            ("index.html", ""),
            ("node_modules/a/b", ""),
            ("docs/a.md", ""),
            ("docs/keep.md", ""),
            ("docs/in/a.md", ""),
            (".dockerignore", "node_modules\ndocs\n!docs/keep.md\n.env\nDockerfile\n.dockerignore\n"),
            (".env", "secret"),
        ];
        let checkout = Checkout::new(&files);
        let recipe = recipe_of(&checkout);
        let expected = ["Dockerfile", "httpd.conf", "app/docs", "app/docs/keep.md", "app/index.html"];
        assert_eq!(paths(&checkout, &recipe), expected);
        // With its own Dockerfile the engine is told what to take away after it has looked into it.
        checkout.write("Dockerfile", b"FROM scratch");
        let recipe = recipe_of(&checkout);
        let expected = ["Dockerfile", ".dockerignore", "docs", "docs/keep.md", "index.html"];
        assert_eq!(paths(&checkout, &recipe), expected);
        // What is left out is not even looked into.
        checkout.write(".dockerignore", b"docs\n");
        let recipe = recipe_of(&checkout);
        for n in 0..CONTEXT_FILES_MAX {
            fs::hard_link(checkout.path("index.html"), checkout.path(&format!("docs/{n}"))).unwrap();
        }
        assert!(Context::of(&checkout.path(""), &recipe, NO_BOUND).is_ok());
    }

    #[test]
    fn a_folder_of_muelles_names_in_the_repository_does_not_meet_ours() {
        let theirs = [("index.html", ""), ("httpd.conf", "theirs"), ("app/index.html", "theirs")];
        let checkout = Checkout::new(&theirs);
        let recipe = recipe_of(&checkout);
        let all = written(&checkout, &recipe);
        let ours: Vec<_> = all.iter().filter(|(path, ..)| path == b"httpd.conf").collect();
        assert_eq!((ours.len(), &ours[0].4), (1, &recipe.files[1].1));
        assert!(all.iter().any(|(path, .., content)| path == b"app/httpd.conf" && content == b"theirs"));
        assert!(all.iter().any(|(path, ..)| path == b"app/app/index.html"));
    }
}
