//! Fetching repositories: from a real git server, one that lies, and repositories that were made to do harm.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use muelle::deploy::git::{self, Cloned, Error, Order};
use muelle::domain::{Branch, RepoUrl, Secret};
use muelle::limits;

use crate::harness::eventually;
use crate::harness::git_server::{FILE, GitServer, LINK, Manner, PROGRAM, SUBMODULE, basic};
use crate::harness::image::unique;

const TOKEN: &str = "github_pat_canary0123456789";
const LONG: Duration = Duration::from_secs(120);

/// A folder for one clone, and what the clone is to be like.
struct Clone {
    folder: PathBuf,
    url: String,
    branch: Option<&'static str>,
    token: Option<&'static str>,
    allow_private_hosts: bool,
    limit: Duration,
    lines: Vec<String>,
}

impl Clone {
    fn of(url: &str) -> Clone {
        let folder = std::env::temp_dir().join(unique("muelle-clone"));
        fs::create_dir(&folder).unwrap();
        Clone {
            folder,
            url: url.to_owned(),
            branch: None,
            token: None,
            allow_private_hosts: true,
            limit: LONG,
            lines: Vec::new(),
        }
    }

    fn files(&self) -> PathBuf {
        self.folder.join("files")
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.files().join(name)).unwrap()
    }

    fn run(&mut self) -> Result<Cloned, Error> {
        let (_running, stop) = bounded(0);
        self.run_until(&stop)
    }

    /// Whatever comes of it: nothing of it runs on, nothing that failed is left, and the token was not said.
    fn run_until(&mut self, stop: &Receiver<()>) -> Result<Cloned, Error> {
        let into = self.files();
        let token = self.token.map(|token| Secret::parse("git_token", token).unwrap());
        let done = git::clone(
            &Order {
                url: &RepoUrl::parse(&self.url, true).unwrap(),
                branch: self.branch.map(|branch| Branch::parse(branch).unwrap()).as_ref(),
                token: token.as_ref(),
                into: &into,
                askpass: Path::new(env!("CARGO_BIN_EXE_muelle")),
                allow_private_hosts: self.allow_private_hosts,
                limit: self.limit,
                stop,
            },
            &mut |line| self.lines.push(line.to_owned()),
        );
        assert_eq!(processes_of(&into), Vec::<PathBuf>::new());
        assert!(!into.join(".git").exists());
        assert!(done.is_ok() || !into.exists(), "{done:?}");
        let said = format!("{done:?}{:?}", self.lines);
        assert!(!said.contains(TOKEN) && !said.contains(&*self.folder.to_string_lossy()), "{said}");
        done
    }

    /// The sentence of a failure.
    #[track_caller]
    fn failure(&mut self) -> String {
        let error = self.run().unwrap_err();
        assert!(matches!(error, Error::Failed(_)), "{error:?}");
        let sentence = error.to_string();
        assert!(sentence.chars().count() <= limits::GIT_REASON_CHARS_MAX, "{sentence}");
        sentence
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// Each process that names this folder in an argument or its environment: git and its helpers.
fn processes_of(folder: &Path) -> Vec<PathBuf> {
    let name = folder.to_string_lossy().into_owned();
    processes().into_iter().filter(|(_, words)| words.contains(&name)).map(|(process, _)| process).collect()
}

/// Every process of this machine, with its arguments and its environment.
fn processes() -> Vec<(PathBuf, String)> {
    let read = |process: &Path, name: &str| {
        String::from_utf8_lossy(&fs::read(process.join(name)).unwrap_or_default()).replace('\0', " ")
    };
    let all = fs::read_dir("/proc").unwrap().flatten().map(|process| process.path());
    all.map(|process| (process.clone(), read(&process, "cmdline") + &read(&process, "environ"))).collect()
}

/// A packet of git's protocol (gitprotocol-common(5)).
fn packet(bytes: &[u8]) -> Vec<u8> {
    [format!("{:04x}", bytes.len() + 4).as_bytes(), bytes].concat()
}

#[test]
fn a_repository_is_fetched_with_its_newest_commit_and_without_gits_folder() {
    let server = GitServer::start();
    let repo = server.repo("ana/app.git");
    repo.commit(&[("index.html", "old")]);
    let files: [(&str, &[u8], &[u8]); 2] = [(FILE, b"index.html", b"new"), (PROGRAM, b"bin/run", b"#!")];
    let commit = repo.commit_entries("main", &files);
    let mut clone = Clone::of(&server.url("ana/app.git"));
    let Cloned { commit: found, subject, time } = clone.run().unwrap();
    assert_eq!((found, subject.as_str()), (commit, "Change"));
    assert_eq!(time, 1_700_000_000, "the one of the tests' commits");
    assert_eq!(clone.file("index.html"), "new");
    let mode = fs::metadata(clone.files().join("bin/run")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o111, 0o111);
    assert!(clone.lines.iter().any(|line| line.contains("Receiving objects: 100%")), "{:?}", clone.lines);
}

#[test]
fn a_branch_is_fetched_by_its_name_and_one_that_is_not_there_is_said() {
    let server = GitServer::start();
    let repo = server.repo("app");
    repo.commit(&[("a", "main")]);
    let commit = repo.commit_entries("feature/x", &[(FILE, b"a", b"feature")]);
    let mut clone = Clone::of(&server.url("app"));
    clone.branch = Some("feature/x");
    assert_eq!(clone.run().unwrap().commit, commit);
    assert_eq!(clone.file("a"), "feature");
    let mut clone = Clone::of(&server.url("app"));
    clone.branch = Some("nowhere");
    let sentence = clone.failure();
    assert!(sentence.starts_with("The branch nowhere does not exist"), "{sentence}");
}

#[test]
fn an_empty_repository_a_hidden_branch_and_one_that_is_not_there_are_said() {
    let server = GitServer::start();
    server.repo("empty");
    server.repo("hidden").commit_entries("other", &[(FILE, b"a", b"")]);
    for name in ["empty", "hidden"] {
        let sentence = Clone::of(&server.url(name)).failure();
        assert_eq!(sentence, "The repository is empty, or shows no branch by itself: name one");
    }
    let url = server.url("none");
    assert_eq!(Clone::of(&url).failure(), format!("There is no repository {url}"));
}

#[test]
fn a_server_that_is_not_there_or_speaks_something_else_is_said() {
    let server = GitServer::start();
    let url = server.url("app");
    for (answer, words) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>\n<p>Hello\n",
            "does not answer like a git repository",
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n", "cannot be asked for the repository: "),
        ("", "cannot be asked for the repository: "),
        (
            "HTTP/1.1 403 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "The requested URL returned error: 403",
        ),
        (
            "HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "The requested URL returned error: 500",
        ),
    ] {
        server.behave(Manner::Answer(answer.to_owned()));
        let sentence = Clone::of(&url).failure();
        assert!(sentence.contains(words), "{answer:?}: {sentence}");
    }
    drop(server);
    let sentence = Clone::of(&url).failure();
    assert!(sentence.starts_with("The server 127.0.0.1 cannot be asked for the repository: "), "{sentence}");
    let sentence = Clone::of("http://nothing.invalid/app").failure();
    assert_eq!(sentence, "The host nothing.invalid is not known");
}

#[test]
fn a_silent_server_is_given_up_after_the_time_that_is_allowed() {
    let server = GitServer::start();
    server.behave(Manner::Silent);
    let mut clone = Clone::of(&server.url("app"));
    clone.limit = Duration::from_secs(1);
    let began = Instant::now();
    assert_eq!(clone.run(), Err(Error::Timeout(clone.limit)));
    assert!(
        began.elapsed() >= clone.limit && began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_clone_is_cancelled_at_once_with_all_its_processes() {
    let server = GitServer::start();
    server.behave(Manner::Silent);
    let mut clone = Clone::of(&server.url("app"));
    let files = clone.files();
    let (running, stop) = bounded(0);
    std::thread::scope(|scope| {
        let cancelled = scope.spawn(|| clone.run_until(&stop));
        eventually(
            "git waits for the server",
            LONG,
            || if server.seen().is_empty() { Err(()) } else { Ok(()) },
        );
        // git itself, and who speaks HTTP for it.
        let processes = processes_of(&files);
        assert!(processes.len() >= 2, "{processes:?}");
        for process in processes {
            let bounds = fs::read_to_string(process.join("limits")).unwrap();
            let memory = bounds.lines().find(|line| line.starts_with("Max address space")).unwrap();
            assert!(memory.contains(&limits::GIT_MEMORY_MAX.to_string()), "{memory}");
        }
        let began = Instant::now();
        drop(running);
        assert_eq!(cancelled.join().unwrap(), Err(Error::Cancelled));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    });
}

#[test]
fn endless_talk_is_cut_and_ends_with_the_time_that_is_allowed() {
    let server = GitServer::start();
    server.repo("app").commit(&[("a", "a")]);
    let talk = packet(&[b"\x02", "bl\u{1b}[2J\u{7}a ".repeat(500).as_bytes(), b"\n"].concat());
    server.behave(Manner::Endless(packet(b"packfile\n"), talk));
    let mut clone = Clone::of(&server.url("app"));
    clone.limit = Duration::from_secs(2);
    assert_eq!(clone.run(), Err(Error::Timeout(clone.limit)));
    let said: usize = clone.lines.iter().map(String::len).sum();
    assert!(said > limits::GIT_OUTPUT_BYTES_MAX / 2 && said < limits::GIT_OUTPUT_BYTES_MAX + 100, "{said}");
    assert_eq!(clone.lines.last().unwrap(), "(git says more than is kept)");
    assert!(!clone.lines.concat().contains(char::is_control));
}

#[test]
fn case_93_a_pack_without_end_is_cut_off() {
    let server = GitServer::start();
    server.repo("app").commit(&[("a", "a")]);
    // One blob of 2^40 bytes, in blocks that are not compressed (RFC 1951 §3.2.4).
    let head = b"\x01PACK\0\0\0\x02\0\0\0\x01\xb0\x80\x80\x80\x80\x80\x04\x78\x01";
    let block = [b"\x01\x00\x60\xea\x9f\x15".as_slice(), &vec![b'x'; 60_000]].concat();
    server.behave(Manner::Endless([packet(b"packfile\n"), packet(head)].concat(), packet(&block)));
    let error = Clone::of(&server.url("app")).run().unwrap_err();
    assert_eq!(error.to_string(), "The repository has more than 500 MiB of files");
}

#[test]
fn case_93_links_become_files_and_nothing_behind_them_is_read_or_written() {
    let server = GitServer::start();
    let mut clone = Clone::of(&server.url("app"));
    let canary = clone.folder.join("canary");
    fs::write(&canary, "canary").unwrap();
    let absolute = canary.to_string_lossy().into_owned();
    let entries: [(&str, &[u8], &[u8]); 5] = [
        (LINK, b"root", b"/"),
        (LINK, b"up", b"../../.."),
        (LINK, b"canary", absolute.as_bytes()),
        (LINK, b"near", b"../canary"),
        (LINK, b".gitattributes", absolute.as_bytes()),
    ];
    server.repo("app").commit_entries("main", &entries);
    clone.run().unwrap();
    for (_, name, target) in entries {
        let path = clone.files().join(String::from_utf8(name.to_vec()).unwrap());
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{path:?}");
        assert_eq!(fs::read(&path).unwrap(), target);
    }
    assert_eq!(fs::read_to_string(canary).unwrap(), "canary");
}

#[test]
fn case_93_odd_names_are_carried_right() {
    let server = GitServer::start();
    let mut names: Vec<Vec<u8>> = [
        &b"-rf"[..],
        b"--upload-pack=touch x",
        b"a\nb",
        b"a\rb",
        b"a\tb",
        b" ",
        b"$(touch x)",
        b"`id`",
        b"*",
        b"\"",
        b"\xff\xfe",
        b"caf\xc3\xa9",
        b"\xe2\x80\xae",
        b"...",
        b"CON",
        b".gitmodules",
        b".gitignore",
        b".gitattributes",
        b".gitx",
    ]
    .into_iter()
    .map(<[u8]>::to_vec)
    .collect();
    names.push(vec![b'x'; 255]);
    let entries: Vec<_> = names.iter().map(|name| (FILE, name.as_slice(), name.as_slice())).collect();
    server.repo("app").commit_entries("main", &entries);
    let mut clone = Clone::of(&server.url("app"));
    clone.run().unwrap();
    for name in &names {
        let path = clone.files().join(std::ffi::OsString::from_vec(name.clone()));
        assert_eq!(&fs::read(&path).unwrap(), name, "{path:?}");
    }
    assert_eq!(fs::read_dir(clone.files()).unwrap().count(), names.len());
}

#[test]
fn case_93_a_repository_cannot_bring_a_folder_of_gits_own() {
    let server = GitServer::start();
    let repo = server.repo("app");
    for (folder, file) in [
        (".git", "config"),
        (".git", "payload"),
        (".GIT", "config"),
        ("git~1", "config"),
        ("..", "escaped"),
        ("a", ".git"),
        (".", "x"),
    ] {
        repo.commit_unchecked(folder, file);
        let mut clone = Clone::of(&server.url("app"));
        let sentence = clone.failure();
        assert!(sentence.contains(&format!("{folder}/{file}")), "{folder}/{file}: {sentence}");
        assert_eq!(fs::read_dir(&clone.folder).unwrap().count(), 0, "{folder}/{file}");
    }
}

#[test]
fn case_93_a_hundred_thousand_files_are_too_many() {
    let server = GitServer::start();
    let names: Vec<String> = (0..100_000).map(|n| format!("{}/{n}", n / 500)).collect();
    let entries: Vec<_> = names.iter().map(|name| (FILE, name.as_bytes(), &b"x"[..])).collect();
    server.repo("app").commit_entries("main", &entries);
    let error = Clone::of(&server.url("app")).run().unwrap_err();
    assert!(matches!(error, Error::TooLarge(_)));
    assert_eq!(error.to_string(), "The repository has more than 20,000 files");
}

#[test]
fn case_93_a_small_pack_with_huge_files_is_too_large() {
    let server = GitServer::start();
    // It is packed once.
    let zeros = vec![0; usize::try_from(limits::CHECKOUT_BYTES_MAX / 4).unwrap()];
    let entries = [b"0", b"1", b"2", b"3", b"4"].map(|name| (FILE, &name[..], zeros.as_slice()));
    server.repo("app").commit_entries("main", &entries);
    let error = Clone::of(&server.url("app")).run().unwrap_err();
    assert!(matches!(error, Error::TooLarge(_)), "{error}");
    assert_eq!(error.to_string(), "The repository has more than 500 MiB of files");
}

#[test]
fn case_96_nothing_that_a_repository_names_is_executed() {
    let server = GitServer::start();
    let mut clone = Clone::of(&server.url("app"));
    let canary = clone.folder.join("canary");
    let touch = format!("touch {}", canary.display());
    let script = format!("#!/bin/sh\n{touch}\n");
    let modules = format!(
        "[submodule \"a\"]\n\tpath = sub\n\turl = -u./payload\n\tupdate = !{touch}\n\
         [submodule \"b\"]\n\tpath = other\n\turl = {}\n\tupdate = !{touch}\n",
        server.url("payload.git")
    );
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{:064}\nsize 12\n", 0);
    let attributes = "*.bin filter=lfs diff=lfs merge=lfs -text\n* filter=evil diff=evil merge=evil ident\n";
    let config = format!(
        "[filter \"evil\"]\n\tsmudge = {touch}\n\tprocess = {touch}\n[core]\n\tfsmonitor = {touch}\n\thooksPath = hooks\n"
    );
    let commit = [b'1'; 40];
    let text = |text: &'static str| text.as_bytes();
    server.repo("app").commit_entries(
        "main",
        &[
            (FILE, b".gitmodules", modules.as_bytes()),
            (SUBMODULE, b"sub", &commit),
            (SUBMODULE, b"other", &commit),
            (FILE, b".gitattributes", text(attributes)),
            (FILE, b".gitconfig", config.as_bytes()),
            (FILE, b".lfsconfig", text("[lfs]\n\turl = http://127.0.0.1:1/\n")),
            (FILE, b"large.bin", pointer.as_bytes()),
            (PROGRAM, b"payload", script.as_bytes()),
            (PROGRAM, b"hooks/post-checkout", script.as_bytes()),
            (PROGRAM, b"git", script.as_bytes()),
        ],
    );
    clone.run().unwrap();
    assert!(!canary.exists());
    assert_eq!(clone.file("large.bin"), pointer);
    assert_eq!(clone.file(".gitmodules"), modules);
    assert_eq!(fs::read_dir(clone.files().join("sub")).unwrap().count(), 0);
    assert!(server.seen().iter().all(|request| request.target.starts_with("/app/")), "{:?}", server.seen());
}

#[test]
fn a_private_repository_needs_its_token() {
    let server = GitServer::start();
    server.repo("app").commit(&[("a", "secret")]);
    server.demand(TOKEN);
    let mut clone = Clone::of(&server.url("app"));
    assert_eq!(clone.failure(), "The repository does not exist, or it is private and needs a git_token");
    clone.token = Some("ghp_another");
    assert_eq!(clone.failure(), "The git_token is not accepted: it has ended, or is not for this repository");
    clone.token = Some(TOKEN);
    clone.run().unwrap();
    assert_eq!(clone.file("a"), "secret");
}

#[test]
fn a_token_is_in_no_argument_no_environment_no_file_and_no_line() {
    let server = GitServer::start();
    server.demand(TOKEN);
    server.behave(Manner::Silent);
    let mut clone = Clone::of(&server.url("app"));
    clone.token = Some(TOKEN);
    let (folder, files) = (clone.folder.clone(), clone.files());
    let (running, stop) = bounded(0);
    std::thread::scope(|scope| {
        let cancelled = scope.spawn(|| clone.run_until(&stop));
        // Also while it is asked for: everything that runs meanwhile is looked at.
        let secrets = [TOKEN.to_owned(), basic(TOKEN)[6..].to_owned()];
        eventually("the token has arrived", LONG, || {
            let known = processes()
                .into_iter()
                .find(|(_, words)| secrets.iter().any(|secret| words.contains(secret)));
            assert_eq!(known, None);
            let arrived = server.seen().iter().any(|seen| seen.authorization == Some(basic(TOKEN)));
            if arrived { Ok(()) } else { Err(server.seen()) }
        });
        let mut folders = vec![folder];
        let mut read = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
                    assert!(!text.contains(TOKEN), "{entry:?}");
                    read += 1;
                }
            }
        }
        assert!(read > 0 && processes_of(&files).len() >= 2, "git has written and runs");
        drop(running);
        assert_eq!(cancelled.join().unwrap(), Err(Error::Cancelled));
    });
}

#[test]
fn a_token_that_the_server_says_back_is_not_told_on() {
    let server = GitServer::start();
    server.demand(TOKEN);
    let text = format!("you are {TOKEN}");
    server.behave(Manner::Answer(format!(
        "HTTP/1.1 403 No\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )));
    let mut clone = Clone::of(&server.url("app"));
    clone.token = Some(TOKEN);
    clone.failure();
    assert!(clone.lines.contains(&"remote: you are ***".to_owned()), "{:?}", clone.lines);
}

#[test]
fn a_token_stays_with_the_server_that_it_is_for() {
    let (server, other) = (GitServer::start(), GitServer::start());
    other.repo("app").commit(&[("a", "a")]);
    server.behave(Manner::Redirect(format!("http://{}", other.address)));
    // Without one a repository that has moved is found.
    Clone::of(&server.url("app")).run().unwrap();
    let before = other.seen().len();
    let mut clone = Clone::of(&server.url("app"));
    clone.token = Some(TOKEN);
    let sentence = clone.failure();
    assert!(sentence.contains("give the address that the server leads to"), "{sentence}");
    server.demand(TOKEN);
    assert_eq!(clone.failure(), sentence);
    assert_eq!(server.seen().last().unwrap().authorization, Some(basic(TOKEN)));
    assert_eq!(other.seen().len(), before);
}

#[test]
fn where_private_hosts_are_not_allowed_nothing_is_asked_of_them() {
    let server = GitServer::start();
    server.repo("app").commit(&[("a", "a")]);
    let port = server.address.port();
    for host in ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]"] {
        let mut clone = Clone::of(&format!("http://{host}:{port}/app"));
        clone.allow_private_hosts = false;
        let sentence = clone.failure();
        assert!(sentence.contains("deploy.allow_private_hosts = false forbids"), "{sentence}");
    }
    assert!(server.seen().is_empty());
}
