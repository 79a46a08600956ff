//! Repositories become images and serve: each recipe, built and run by the engine. The base images are tests/engine/base-images's, which
//! needs root; the names of the tests that need them begin with `own_base_`.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use muelle::deploy::context::Context;
use muelle::deploy::recipe::{self, Images, PORT, Recipe};
use muelle::domain::{EnvName, ImageRef, Template};
use serde_json::{Value, json};

use super::harness::checkout::Checkout;
use super::harness::engine::{self, Container};
use super::harness::image::{encoded, raw, tidy, unique};
use super::harness::{Client, eventually};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

fn images() -> Images {
    let image = |name| ImageRef::parse(name).unwrap();
    Images {
        files: image("muelle-base-static:1"),
        node: image("muelle-base-node:1"),
        python: image("muelle-base-python:1"),
    }
}

/// An image built from a repository. Removed with all that its build left: one build at a time, since they share what they are made of.
struct Built {
    name: String,
    recipe: Recipe,
    said: String,
    _alone: File,
}

impl Built {
    fn fixture(name: &str) -> Built {
        let built = Built::of(&Path::new(FIXTURES).join(name), &[]);
        assert_eq!(built.error(), None, "{}", built.said);
        built
    }

    /// Builds as a deployment does, with the project's variables.
    fn of(checkout: &Path, env: &[(&str, &str)]) -> Built {
        let alone = File::create(concat!(env!("CARGO_TARGET_TMPDIR"), "/recipes.lock")).unwrap();
        alone.lock().unwrap();
        for image in ["muelle-base-static:1", "muelle-base-node:1", "muelle-base-python:1"] {
            let (status, _) = engine::json("GET", &format!("/images/{image}/json"), &Value::Null);
            assert_eq!(status, 200, "{image} is missing: script/test has tests/engine/base-images make it");
        }
        let names: Vec<_> = env.iter().map(|(name, _)| EnvName::parse(name).unwrap()).collect();
        let recipe = recipe::find(checkout, None, &images(), &names).unwrap();
        let mut body = Vec::new();
        Context::of(checkout, &recipe, 500 << 20).unwrap().write(&mut body, 1_700_000_000).unwrap();
        let given = env.iter().filter(|(name, _)| recipe.args.iter().any(|arg| arg.as_str() == *name));
        let args: Value = given.map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let name = unique("muelle-test") + ":1";
        let query = format!("dockerfile={}&buildargs={}", recipe.dockerfile, encoded(&args.to_string()));
        let path = format!("/v1.41/build?t={name}&rm=1&forcerm=1&{query}");
        let (_, said) = raw("POST", &path, "application/x-tar", &body);
        Built { name, recipe, said, _alone: alone }
    }

    /// What the engine says went wrong, by its status or in its stream.
    fn error(&self) -> Option<String> {
        let lines = self.said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let text = |line: Value| line["error"].as_str().or(line["message"].as_str()).map(str::to_owned);
        lines.filter_map(text).next_back()
    }

    /// The ids of the images that the build came by, the last one first.
    fn steps(&self) -> Vec<&str> {
        let ids = self.said.rsplit(" ---\\u003e ").filter_map(|rest| rest.get(..12));
        ids.filter(|id| id.bytes().all(|b| b.is_ascii_hexdigit())).collect()
    }

    /// Runs it as the fixed template does, told to listen on `port`, and waits until it answers.
    fn run(&self, port: u16) -> Running {
        let name = unique("muelle-test");
        let body = json!({
            "Image": self.name,
            "Labels": {"muelle-test": "1"},
            "Env": [format!("PORT={port}")],
            "HostConfig": {
                "Init": true,
                "CapDrop": ["NET_RAW"],
                "Memory": 512 << 20,
                "MemorySwap": 512 << 20,
                "PidsLimit": 256,
                "SecurityOpt": ["no-new-privileges"],
            },
        });
        let (status, answer) = engine::json("POST", &format!("/containers/create?name={name}"), &body);
        assert_eq!(status, 201, "{answer}");
        let container = Container { name };
        container.act("start");
        let seen = container.inspect();
        let address = seen["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
            .as_str()
            .filter(|address| !address.is_empty());
        let at = format!("{}:{port}", address.unwrap_or_else(|| panic!("no address: {seen}")));
        let client = Client::new(&format!("http://{at}"));
        eventually("the app answers", Duration::from_secs(20), || {
            let log = || engine::text(&format!("/containers/{}/logs?stdout=1&stderr=1", container.name));
            let seen = |error| (error, container.inspect()["State"].to_string(), log());
            client.try_send("GET", "/", &Value::Null).map(drop).map_err(seen)
        });
        Running { container, client, at }
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        tidy(|| {
            raw("DELETE", &format!("/images/{}?force=1", self.name), "", b"");
            for id in self.steps() {
                let (status, seen) = engine::json("GET", &format!("/images/{id}/json"), &Value::Null);
                if status == 200 && seen["RepoTags"].as_array().is_none_or(Vec::is_empty) {
                    raw("DELETE", &format!("/images/{id}"), "", b"");
                }
            }
        });
    }
}

/// A container of a built image. Declare it after the image: it goes first.
struct Running {
    container: Container,
    client: Client,
    at: String,
}

impl Running {
    /// A request as it is written, which no client would send. Gives the whole answer.
    fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// No process of it is root's.
    fn is_nobody(&self) {
        let path = format!("/containers/{}/top?ps_args=-eo%20uid,pid,args", self.container.name);
        let (_, top) = engine::json("GET", &path, &Value::Null);
        let processes = top["Processes"].as_array().unwrap();
        assert!(processes.len() > 1 && processes.iter().all(|process| process[0] == "65534"), "{top}");
    }

    /// It ends by itself when it is asked to.
    fn stops(&self) {
        let began = Instant::now();
        self.container.act("stop?t=10");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_ne!(self.container.inspect()["State"]["ExitCode"], 137);
    }
}

#[test]
fn own_base_a_static_repository_is_served_as_it_is() {
    let built = Built::fixture("static");
    assert_eq!(built.recipe.template, Some(Template::Static));
    for port in [PORT, 9123] {
        let app = built.run(port);
        let page = app.client.send("GET", "/", &[], None);
        assert!(page.status == 200 && page.text.contains("static fixture"), "{}", page.text);
        for (path, kind) in [("/assets/style.css", "text/css"), ("/assets/app.mjs", "text/javascript")] {
            let file = app.client.send("GET", path, &[], None);
            assert_eq!((file.status, file.header("content-type")), (200, Some(kind)), "{path}");
        }
        for missing in ["/missing", "/assets/missing.css", "/Dockerfile", "/.dockerignore", "/NOTES.md"] {
            assert_eq!(app.client.send("GET", missing, &[], None).status, 404, "{missing}");
        }
        for out in ["/../etc/httpd.conf", "/%2e%2e/etc/httpd.conf", "/assets/../../etc/httpd.conf"] {
            assert!(!app.raw(&format!("GET {out} HTTP/1.1")).contains("text/javascript"), "{out}");
        }
        app.is_nobody();
        app.stops();
    }
}

#[test]
fn own_base_a_react_repository_is_built_and_its_pages_are_the_one_page() {
    let fixture = Path::new(FIXTURES).join("react");
    let built = Built::of(&fixture, &[("VITE_API_URL", "https://api.example"), ("SECRET", "canary")]);
    assert_eq!(built.error(), None, "{}", built.said);
    assert_eq!(built.recipe.sentence, "Found package.json with vite: building it as react");
    assert!(!built.said.contains("canary"));
    let app = built.run(9124);
    let get = |path: &str, headers: &[(&str, &str)]| app.client.send("GET", path, headers, None);
    let page = get("/", &[]);
    assert_eq!((page.status, page.header("cache-control")), (200, Some("no-cache")));
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let script = page.text.split("src=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert!(script.starts_with("/assets/main-"), "{script}");

    let browser = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    for deep in ["/users", "/users/42", "/users/jane.doe", "/a/b/", "/x?y=/z.js"] {
        let answer = get(deep, &browser);
        assert_eq!((answer.status, &answer.text), (200, &page.text), "{deep}");
    }
    for missing in ["/missing.js", "/logo.png", "/assets/missing", "/static/x", "/index.htm"] {
        assert_eq!(get(missing, &browser).status, 404, "{missing}");
    }
    assert_eq!(get("/api/users", &[("Accept", "application/json")]).status, 404);

    let code = get(script, &[]);
    assert!(code.text.contains("https://api.example"), "{}", code.text);
    assert_eq!(code.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(code.header("cache-control"), Some("public, max-age=31536000, immutable"));
    let tag = code.header("etag").unwrap();
    assert_eq!(get(script, &[("If-None-Match", tag)]).status, 304);
    assert_eq!(get(script, &[("If-None-Match", "\"other\"")]).status, 200);
    let head = app.client.send("HEAD", script, &[], None);
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(app.client.send("POST", "/", &[], Some(b"{}")).status, 405);

    for out in [
        "/../muelle/spa.mjs",
        "/%2e%2e/muelle/spa.mjs",
        "/..%2fmuelle%2fspa.mjs",
        "//muelle/spa.mjs",
        "/a\\..\\x.mjs",
    ] {
        let answer = app.raw(&format!("GET {out} HTTP/1.1"));
        assert!(answer.starts_with("HTTP/1.1 404 "), "{out}: {answer}");
    }
    assert!(app.raw("GET /%ff HTTP/1.1").starts_with("HTTP/1.1 400 "));
    assert!(app.raw("GET http://x/logo.svg HTTP/1.1").starts_with("HTTP/1.1 404 "));
    app.is_nobody();
    app.stops();
}

#[test]
fn own_base_a_react_apps_large_file_is_sent_in_parts_and_to_its_end() {
    let built = Built::fixture("react");
    let app = built.run(PORT);
    let part = |range: &str| {
        let answer = app.client.send("GET", "/film.mp4", &[("Range", range)], None);
        (answer.status, answer.header("content-range").unwrap_or_default().to_owned(), answer.text)
    };
    let size = 32 << 20;
    assert_eq!(part("bytes=6-11"), (206, format!("bytes 6-11/{size}"), "muelle".into()));
    assert_eq!(part("bytes=-2").1, format!("bytes {}-{}/{size}", size - 2, size - 1));
    assert_eq!(part(&format!("bytes={}-", size - 1)).0, 206);
    assert_eq!((part("bytes=33554432-").0, part("bytes=9-1").0), (416, 416));
    assert_eq!(part("bytes=33554430-99999999999").1, format!("bytes {}-{}/{size}", size - 2, size - 1));

    // Under way when it is asked to end, and taken to the end by a slow reader.
    let mut stream = TcpStream::connect(&app.at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET /film.mp4 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut head = [0; 64];
    stream.read_exact(&mut head).unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200"));
    app.container.act("kill?signal=TERM");
    eventually("it takes no more", Duration::from_secs(5), || {
        TcpStream::connect(&app.at).map_or(Ok(()), Err)
    });
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.len() > size, "{} of {size}", rest.len());
    eventually("it ends", Duration::from_secs(2), || {
        let state = app.container.inspect()["State"].clone();
        if state["Running"] == false && state["ExitCode"] == 0 { Ok(()) } else { Err(state) }
    });
}

#[test]
fn own_base_a_flask_repository_runs_under_gunicorn() {
    let built = Built::fixture("flask");
    assert_eq!(
        built.recipe.sentence,
        "Found requirements.txt with Flask: building it as flask, app:app of app.py"
    );
    let app = built.run(9125);
    let page = app.client.send("GET", "/", &[], None);
    assert_eq!(page.status, 200);
    assert!(page.text.contains("hello from flask"), "{}", page.text);
    assert!(app.raw("GET / HTTP/1.1").contains("Server: gunicorn"));
    assert_eq!(app.client.send("GET", "/id", &[], None).text, "65534:65534");
    app.is_nobody();
    app.stops();
}

#[test]
fn own_base_a_nodejs_repository_runs_as_npm_starts_it() {
    let built = Built::fixture("nodejs");
    assert_eq!(built.recipe.template, Some(Template::Nodejs));
    let app = built.run(9126);
    assert_eq!(app.client.send("GET", "/path", &[], None).text, "/path by 65534 in production\n");
    app.is_nobody();
    app.stops();
    let log = engine::text(&format!("/containers/{}/logs?stdout=1&stderr=1", app.container.name));
    assert!(log.contains("asked to end"), "the app itself hears of it: {log}");
}

#[test]
fn own_base_a_repositorys_own_dockerfile_is_built_with_the_variables_that_it_declares() {
    let fixture = Path::new(FIXTURES).join("dockerfile");
    let built = Built::of(&fixture, &[("WORD", "muelle"), ("SECRET", "canary")]);
    assert_eq!(built.error(), None, "{}", built.said);
    assert_eq!((built.recipe.template, built.recipe.port), (None, None));
    let (_, image) = engine::json("GET", &format!("/images/{}/json", built.name), &Value::Null);
    assert_eq!(image["Config"]["ExposedPorts"], json!({"9000/tcp": {}}));
    assert!(!image.to_string().contains("canary") && !built.said.contains("canary"));
    let app = built.run(9000);
    assert_eq!(app.client.send("GET", "/", &[], None).text, "built by its own Dockerfile\n");
    assert_eq!(app.client.send("GET", "/word", &[], None).text, "muelle\n");
    app.stops();
}

#[test]
fn own_base_a_second_build_of_the_same_files_takes_every_layer_from_the_cache() {
    let built = Built::fixture("static");
    let copy = Checkout::new(&[]);
    for file in ["index.html", "NOTES.md", ".dockerignore", "assets/style.css", "assets/app.mjs"] {
        copy.write(file, &std::fs::read(Path::new(FIXTURES).join("static").join(file)).unwrap());
    }
    // Checked out anew, of a later commit.
    let mut body = Vec::new();
    let context = Context::of(&copy.path(""), &built.recipe, 1 << 20).unwrap();
    context.write(&mut body, 1_800_000_000).unwrap();
    let (_, said) = raw("POST", "/v1.41/build?dockerfile=Dockerfile", "application/x-tar", &body);
    assert_eq!(
        said.matches("Using cache").count(),
        said.matches("Step ").count() - 1,
        "all but FROM: {said}"
    );
}

#[test]
fn own_base_case_92_a_dockerfile_that_makes_no_image_is_told_in_the_engines_words() {
    for (text, why) in [
        ("FROM scratch\n", "No image was generated. Is your Dockerfile empty?"),
        // What git leaves of a link: its target, as a text.
        ("/etc/shadow", "unknown instruction: /ETC/SHADOW"),
        ("FROM muelle-base-static:1\nCOPY ../../etc/shadow /x\n", "forbidden path outside the build context"),
        ("FROM muelle-base-static:1\nCOPY /etc/shadow /x\n", "stat etc/shadow: file does not exist"),
        ("FROM muelle-base-static:1\nRUN [\"/bin/busybox\", \"false\"]\n", "returned a non-zero code: 1"),
    ] {
        let checkout = Checkout::new(&[("Dockerfile", text)]);
        let built = Built::of(&checkout.path(""), &[]);
        let error = built.error().unwrap_or_else(|| panic!("{text}: {}", built.said));
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn own_base_case_93_no_file_outside_gets_into_an_image_and_odd_names_are_served() {
    let checkout = Checkout::new(&[
        ("outside/secret", "canary"),
        ("tree/index.html", "here"),
        ("tree/.git/config", "canary"),
    ]);
    checkout.write("tree/-rf", b"dash");
    checkout.write("tree/\n", b"newline");
    let invalid = std::ffi::OsStr::new("tree").to_owned();
    let invalid = [std::os::unix::ffi::OsStringExt::into_vec(invalid), b"/\xff\xfe".to_vec()].concat();
    let invalid: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(invalid);
    checkout.write(invalid, b"no utf-8");
    let long = "x".repeat(200);
    checkout.write(format!("tree/{long}"), b"long");
    for (link, target) in
        [("a", "/"), ("b", "../../.."), ("c", "../outside"), ("d", "../outside/secret"), ("e", "/etc/passwd")]
    {
        checkout.link(&format!("tree/{link}"), target);
    }
    checkout.fifo("tree/pipe");
    let built = Built::of(&checkout.path("tree"), &[]);
    assert_eq!(built.error(), None, "{}", built.said);
    let (status, whole) = raw("GET", &format!("/images/{}/get", built.name), "", b"");
    assert!(status == 200 && whole.contains("no utf-8") && !whole.contains("canary"));
    let app = built.run(PORT);
    for (path, content) in
        [("/-rf", "dash"), ("/%0A", "newline"), ("/%FF%FE", "no utf-8"), (&format!("/{long}"), "long")]
    {
        assert!(app.raw(&format!("GET {path} HTTP/1.1")).ends_with(&format!("\r\n\r\n{content}")), "{path}");
    }
    for path in ["/a/etc/passwd", "/b/etc/passwd", "/c/secret", "/d", "/e", "/pipe", "/.git/config"] {
        assert_eq!(app.client.send("GET", path, &[], None).status, 404, "{path}");
    }
}
