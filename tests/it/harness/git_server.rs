//! A git server of the test's own: git's http-backend behind a small HTTP server, which can also misbehave.
//!
//! Shared by the unit tests of `deploy::git` and by the integration tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

/// How the server answers whoever may ask.
#[derive(Clone, Debug)]
pub enum Manner {
    /// As a git server.
    Honest,
    /// Leads every request to the same path of another server.
    Redirect(String),
    /// Takes a request and never answers.
    Silent,
    /// Answers the request for the files with the first bytes and then the others, again and again.
    Endless(Vec<u8>, Vec<u8>),
    /// Answers each request with this, whatever it is.
    Answer(String),
}

/// A request that came.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub target: String,
    pub authorization: Option<String>,
    length: usize,
    content_type: String,
    content_encoding: String,
    protocol: String,
}

struct Shared {
    root: PathBuf,
    manner: Mutex<Manner>,
    password: Mutex<Option<String>>,
    seen: Mutex<Vec<Seen>>,
    over: AtomicBool,
}

/// Listens until it is dropped; its repositories are removed with it.
pub struct GitServer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl GitServer {
    /// On a free port of 127.0.0.1.
    pub fn start() -> GitServer {
        GitServer::start_on("127.0.0.1:0")
    }

    pub fn start_on(address: &str) -> GitServer {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("muelle-git-{}-{number}", std::process::id()));
        std::fs::create_dir(&root).unwrap();
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            root,
            manner: Mutex::new(Manner::Honest),
            password: Mutex::default(),
            seen: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if of_thread.over.load(Ordering::Acquire) {
                    return;
                }
                let shared = Arc::clone(&of_thread);
                // A client that was killed breaks its connection.
                spawn(move || drop(shared.serve(&stream)));
            }
        });
        GitServer { address, shared }
    }

    pub fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    /// From now on only those are served who have this password.
    pub fn demand(&self, password: &str) {
        *self.shared.password.lock().unwrap() = Some(password.to_owned());
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The address of a repository for a client.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// Makes an empty repository whose branch is called `main`.
    pub fn repo(&self, name: &str) -> Repo {
        let path = self.shared.root.join(name);
        git(
            &self.shared.root,
            &["init", "--quiet", "--bare", "--template=", "--initial-branch=main", name],
            b"",
        );
        Repo(path)
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
        drop(std::fs::remove_dir_all(&self.shared.root));
    }
}

/// What a path is in a commit.
pub const FILE: &str = "100644";
pub const PROGRAM: &str = "100755";
pub const LINK: &str = "120000";
pub const SUBMODULE: &str = "160000";

/// A label that everything has which the builds of this process begin: what one that was ended leaves has no name, and no label of muelle's.
pub static BUILT_HERE: LazyLock<String> = LazyLock::new(|| {
    let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    format!("muelle-test-run={}-{nanos}", std::process::id())
});

/// A Dockerfile with that label as its first step.
fn marked(path: &str, text: &str) -> String {
    match text.split_once('\n').filter(|(first, _)| path == "Dockerfile" && first.starts_with("FROM muelle-"))
    {
        Some((first, rest)) => format!("{first}\nLABEL {}\n{rest}", *BUILT_HERE),
        None => text.to_owned(),
    }
}

/// A repository on the server's side.
pub struct Repo(PathBuf);

impl Repo {
    /// Replaces everything on `main` by these files; gives the commit.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, marked(path, text))).collect();
        let entries: Vec<_> =
            files.iter().map(|(path, text)| (FILE, path.as_bytes(), text.as_bytes())).collect();
        self.commit_entries("main", &entries)
    }

    /// The same for any kind of entry, name and branch. A submodule's content is its commit.
    pub fn commit_entries(&self, branch: &str, entries: &[(&str, &[u8], &[u8])]) -> String {
        let mut stream = format!(
            "commit refs/heads/{branch}\ncommitter Ana <ana@example.com> 1700000000 +0000\ndata 6\nChange\ndeleteall\n"
        )
        .into_bytes();
        for (mode, path, content) in entries {
            let quoted = path.iter().map(|byte| format!("\\{byte:03o}")).collect::<Vec<_>>().concat();
            if *mode == SUBMODULE {
                let commit = str::from_utf8(content).unwrap();
                writeln!(stream, "M {mode} {commit} \"{quoted}\"").unwrap();
            } else {
                writeln!(stream, "M {mode} inline \"{quoted}\"\ndata {}", content.len()).unwrap();
                stream.extend_from_slice(content);
                stream.push(b'\n');
            }
        }
        // From nothing each time: the branch is made anew.
        git(&self.0, &["fast-import", "--quiet", "--force"], &stream);
        self.head(branch)
    }

    /// A commit on `main` of a file in a folder, whose names nobody checks.
    pub fn commit_unchecked(&self, folder: &str, file: &str) -> String {
        let blob = git(&self.0, &["hash-object", "-w", "--stdin"], b"x");
        let tree = git(&self.0, &["mktree"], format!("{FILE} blob {blob}\t{file}\n").as_bytes());
        let root = git(&self.0, &["mktree"], format!("040000 tree {tree}\t{folder}\n").as_bytes());
        let commit = self.git(&["commit-tree", &root, "-m", "Change"]);
        self.git(&["update-ref", "refs/heads/main", &commit]);
        commit
    }

    /// The id of a branch's commit.
    pub fn head(&self, branch: &str) -> String {
        git(&self.0, &["rev-parse", &format!("refs/heads/{branch}")], b"")
    }

    /// Runs git in it.
    pub fn git(&self, arguments: &[&str]) -> String {
        git(&self.0, arguments, b"")
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own thread, ended by its socket")]
fn spawn(body: impl FnOnce() + Send + 'static) {
    std::thread::spawn(body);
}

/// git, deaf to whoever runs the tests.
fn program(folder: &Path) -> Command {
    #[expect(clippy::disallowed_methods, reason = "the tests make their repositories with git")]
    let mut program = Command::new("git");
    program.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", "/dev/null");
    program.envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")]);
    for who in ["AUTHOR", "COMMITTER"] {
        program.env(format!("GIT_{who}_NAME"), "Ana").env(format!("GIT_{who}_EMAIL"), "ana@example.com");
    }
    program.args(["-c", "core.compression=1"]).current_dir(folder);
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    program
}

fn git(folder: &Path, arguments: &[&str], input: &[u8]) -> String {
    let mut child = program(folder).args(arguments).spawn().expect("git is installed");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert!(status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap().trim().to_owned()
}

impl Shared {
    fn serve(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let request = head(&mut reader)?;
        let mut body = vec![0; request.length];
        reader.read_exact(&mut body)?;
        let manner = self.manner.lock().unwrap().clone();
        self.seen.lock().unwrap().push(request.clone());
        let is_fetch = body.windows(13).any(|words| words == b"command=fetch");
        let expected = self.password.lock().unwrap().clone().map(|password| basic(&password));
        if expected.is_some() && request.authorization != expected {
            return stream.write_all(
                b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\n\
                  Connection: close\r\n\r\n",
            );
        }
        match manner {
            Manner::Redirect(base) => write!(
                stream,
                "HTTP/1.1 301 Moved\r\nLocation: {base}{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                request.target
            ),
            // Until the client gives up.
            Manner::Silent => reader.read(&mut [0]).map(drop),
            Manner::Endless(first, then) if is_fetch => {
                stream.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-result\r\nConnection: close\r\n\r\n",
                )?;
                stream.write_all(&first)?;
                loop {
                    stream.write_all(&then)?;
                }
            }
            Manner::Answer(text) => stream.write_all(text.as_bytes()),
            Manner::Honest | Manner::Endless(..) => self.backend(&request, &body, stream),
        }
    }

    /// One call of git-http-backend(1), by the rules of CGI (RFC 3875).
    fn backend(&self, request: &Seen, body: &[u8], mut stream: &TcpStream) -> std::io::Result<()> {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let mut child = program(&self.root)
            .args(["http-backend"])
            .env("GIT_PROJECT_ROOT", &self.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("REQUEST_METHOD", if request.length == 0 { "GET" } else { "POST" })
            .env("CONTENT_TYPE", &request.content_type)
            .env("CONTENT_LENGTH", request.length.to_string())
            .env("HTTP_CONTENT_ENCODING", &request.content_encoding)
            .env("HTTP_GIT_PROTOCOL", &request.protocol)
            .spawn()?;
        child.stdin.take().unwrap().write_all(body)?;
        let mut answer = BufReader::new(child.stdout.take().unwrap());
        let (mut status, mut fields, mut line) = ("200 OK".to_owned(), String::new(), String::new());
        while answer.read_line(&mut line)? > 0 && line != "\r\n" {
            match line.strip_prefix("Status: ") {
                Some(said) => said.trim().clone_into(&mut status),
                None => fields.push_str(&line),
            }
            line.clear();
        }
        write!(stream, "HTTP/1.1 {status}\r\n{fields}Connection: close\r\n\r\n")?;
        // A client that was killed does not read to the end.
        let sent = std::io::copy(&mut answer, &mut stream);
        drop(answer);
        child.wait()?;
        sent.map(drop)
    }
}

fn head(reader: &mut impl BufRead) -> std::io::Result<Seen> {
    let (mut seen, mut line) = (Seen::default(), String::new());
    while reader.read_line(&mut line)? > 0 && line != "\r\n" {
        let field =
            line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        match field {
            _ if seen.target.is_empty() => {
                line.split(' ').nth(1).unwrap_or_default().clone_into(&mut seen.target);
            }
            Some((name, value)) => match name.as_str() {
                "authorization" => seen.authorization = Some(value),
                "content-length" => seen.length = value.parse().unwrap(),
                "content-type" => seen.content_type = value,
                "content-encoding" => seen.content_encoding = value,
                "git-protocol" => seen.protocol = value,
                _ => {}
            },
            None => {}
        }
        line.clear();
    }
    Ok(seen)
}

/// What a client sends who has this password (RFC 7617; RFC 4648 §4).
pub fn basic(password: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut field = "Basic ".to_owned();
    for part in format!("x-access-token:{password}").as_bytes().chunks(3) {
        let bits =
            part.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) as usize & 63;
            field.push(if digit <= part.len() { char::from(DIGITS[value]) } else { '=' });
        }
    }
    field
}
