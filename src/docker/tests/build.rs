//! Builds, by a real engine and by bytes.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::{Aborter, BuildError, BuildSpec, Docker, Error, Finished};
use super::bytes::{self, Listener, OK, Then, ample, client, socket_path, soon};
use super::engine::image::{encoded, raw, tidy, unique};
use super::engine::{docker, eventually, shared_image};
use crate::domain::{EnvName, ImageRef, ProjectId};
use crate::limits;

const PROJECT: ProjectId = ProjectId(42);

/// A build of a test's own: its images and containers carry a label that no other test has, and go with it.
struct Try {
    docker: Docker,
    mark: String,
    spec: BuildSpec,
    lines: Vec<String>,
}

impl Try {
    fn new() -> Try {
        let mark = unique("muelle-test");
        let spec = BuildSpec {
            tag: ImageRef::parse(&format!("{mark}:7")).unwrap(),
            instance: mark.clone(),
            project: PROJECT,
            deployment: 7,
            dockerfile: "Dockerfile".to_owned(),
            args: BTreeMap::new(),
            memory_bytes: 128 << 20,
            cpus: 0.5,
        };
        Try { docker: docker(), mark, spec, lines: Vec::new() }
    }

    /// The beginning of a stage: busybox, and a label that keeps other tests' cached layers, which may be about to go, out of it.
    fn beginning(&self) -> String {
        format!(
            "FROM scratch\nLABEL muelle.test={}\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\n",
            self.mark
        )
    }

    fn build(&mut self, dockerfile: &str) -> Finished {
        self.build_watched(dockerfile, |_, _, _| {})
    }

    /// Calls `watch` with each line.
    fn build_watched(&mut self, dockerfile: &str, watch: impl Fn(&Try, &str, &Aborter)) -> Finished {
        let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
        let context = tar(&[("Dockerfile", dockerfile.as_bytes()), ("busybox", &busybox)]);
        let (build, aborter) = self.docker.build(&self.spec);
        let mut lines = Vec::new();
        let finished = build.run(Cursor::new(context), &mut |line| {
            lines.push(line.to_owned());
            watch(self, line, &aborter);
        });
        self.lines = lines;
        finished
    }

    /// All images that a step of this test made, those below others included.
    fn images(&self) -> Vec<String> {
        ids(&self.listed("/images/json"), "Id")
    }

    /// The containers of steps.
    fn containers(&self) -> Vec<String> {
        ids(&self.listed("/containers/json"), "Id")
    }

    fn listed(&self, path: &str) -> String {
        let filter = encoded(&json!({"label": [format!("muelle.test={}", self.mark)]}).to_string());
        raw("GET", &format!("/v1.41{path}?all=1&filters={filter}"), "", b"").1
    }

    fn remove_residue(&self, finished: &Finished) {
        for id in &finished.residue {
            assert_eq!(self.docker.remove_residue(id), Ok(true), "{id}");
        }
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        tidy(|| {
            // Of a test that failed in the middle of a step.
            for id in self.containers() {
                raw("DELETE", &format!("/v1.41/containers/{id}?force=1"), "", b"");
            }
            let _ = self.docker.remove_image(&self.spec.tag);
            // Those above others first; a removal takes what is below with it.
            while self.images().iter().any(|id| self.docker.remove_residue(id) == Ok(true)) {}
        });
    }
}

/// The values of a key in a list of the engine's.
fn ids(answer: &str, key: &str) -> Vec<String> {
    let rows: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    rows.as_array().unwrap().iter().map(|row| row[key].as_str().unwrap().to_owned()).collect()
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut head = tar::Header::new_gnu();
        head.set_size(content.len() as u64);
        head.set_mode(0o755);
        tar.append_data(&mut head, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

fn failure(finished: &Finished) -> &str {
    match &finished.result {
        Err(BuildError::Failed(message)) => message,
        other => panic!("{other:?}"),
    }
}

fn refusal(finished: &Finished) -> &str {
    match &finished.result {
        Err(BuildError::Refused(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_build_makes_a_named_and_labelled_image_and_the_next_one_uses_its_steps_again() {
    let mut t = Try::new();
    let dockerfile = t.beginning() + "EXPOSE 8080\nRUN echo from the step; echo aside >&2\n";
    let finished = t.build(&dockerfile);
    let id = finished.result.unwrap();
    let image = t.docker.image(&t.spec.tag).unwrap();
    assert_eq!((&image.id, &finished.residue[..]), (&id, &[][..]));
    assert_eq!(image.exposed_ports, [8080]);
    for line in ["Step 1/9 : FROM scratch", "from the step", "aside"] {
        assert!(t.lines.iter().any(|seen| seen == line), "{line}: {:#?}", t.lines);
    }

    let rows = t.docker.images_of(&t.mark, Some(PROJECT)).unwrap();
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((&row.id, row.project, row.deployment), (&id, Some(PROJECT), Some(7)));
    // Podman writes the registry that it assumes before the name.
    assert!(row.tags.iter().any(|tag| tag.as_str().ends_with(t.spec.tag.as_str())), "{row:?}");
    assert_eq!(t.docker.images_of(&t.mark, None).unwrap(), rows);
    assert_eq!(t.docker.images_of(&t.mark, Some(ProjectId(43))).unwrap(), []);
    assert_eq!(t.docker.images_of("other", Some(PROJECT)).unwrap(), []);

    assert_eq!(t.build(&dockerfile).result.unwrap(), id);
    assert!(!t.lines.iter().any(|line| line == "from the step"), "{:#?}", t.lines);

    t.docker.remove_image(&t.spec.tag).unwrap();
    assert_eq!(t.docker.images_of(&t.mark, None).unwrap(), []);
    assert_eq!(t.images(), [""; 0]);
    t.docker.remove_image(&t.spec.tag).unwrap();
    assert!(t.docker.root_dir().unwrap().is_absolute());
}

#[test]
fn what_a_build_in_stages_leaves_behind_is_known_and_can_be_removed_without_the_image() {
    let mut t = Try::new();
    let stage = |name: &str| t.beginning().replacen("scratch", &format!("scratch AS {name}"), 1);
    let dockerfile = [
        stage("one") + "RUN echo one > /one",
        stage("two") + "RUN echo two > /two; echo ' ---> 0123456789ab'",
        "FROM one AS three\nRUN echo three > /three".to_owned(),
        format!("FROM scratch\nLABEL muelle.test={}", t.mark),
        "COPY --from=one /one /\nCOPY --from=two /two /\nCOPY --from=three /three /\n".to_owned(),
    ]
    .join("\n");
    let finished = t.build(&dockerfile);
    let id = finished.result.clone().unwrap();
    assert_eq!(finished.residue.len(), 3, "{finished:?}");
    let [first, second, third] = &finished.residue[..] else { unreachable!() };
    assert_eq!(t.docker.remove_residue(first), Ok(false), "the third stage is made of it");
    assert_eq!(t.docker.remove_residue(second), Ok(true));
    assert_eq!(t.docker.remove_residue(third), Ok(true));
    assert_eq!(t.docker.remove_residue(first), Ok(true), "and went with that");

    assert_eq!(t.docker.image(&t.spec.tag).unwrap().id, id);
    assert_eq!(t.docker.remove_residue(&id), Ok(false), "it has a name");
    t.docker.remove_image(&t.spec.tag).unwrap();
    assert_eq!(t.images(), [""; 0]);
}

#[test]
fn a_failed_step_is_named_and_leaves_no_container() {
    let mut t = Try::new();
    t.spec.args.insert(EnvName::parse("TOKEN").unwrap(), "s3cret".to_owned());
    let dockerfile = t.beginning() + "ARG TOKEN\nRUN echo kept > /kept\nRUN echo last words; exit 7\n";
    let finished = t.build(&dockerfile);
    let message = failure(&finished);
    assert!(message.contains("echo last words; exit 7") && message.contains("non-zero code: 7"), "{message}");
    assert!(!message.contains("s3cret"));
    assert!(t.lines.iter().any(|line| line == "last words"));
    assert_eq!(t.containers(), [""; 0]);
    assert!(matches!(t.docker.image(&t.spec.tag), Err(Error::NotFound(_))));
    assert_eq!(finished.residue.len(), 1);
    assert!(!t.images().is_empty());
    t.remove_residue(&finished);
    assert_eq!(t.images(), [""; 0]);
}

#[test]
fn an_image_with_a_name_or_with_something_else_for_an_id_is_no_residue() {
    let image = shared_image();
    let docker = docker();
    let id = docker.image(&ImageRef::parse(&image.0).unwrap()).unwrap().id;
    let short = &id["sha256:".len()..][..12];
    for kept in [&id, short, &image.0, "../containers/x"] {
        assert_eq!(docker.remove_residue(kept), Ok(false), "{kept}");
    }
    assert_eq!(docker.remove_residue("0123456789ab"), Ok(true), "gone");
    assert!(docker.image(&ImageRef::parse(&image.0).unwrap()).is_ok());
}

#[test]
fn what_is_no_dockerfile_is_a_refusal_and_what_it_asks_in_vain_a_failure() {
    let mut t = Try::new();
    let refused = t.build("FROM scratch\nBOGUS x\n");
    assert!(refusal(&refused).contains("line 2: unknown instruction: BOGUS"), "{refused:?}");
    assert!(refusal(&t.build("")).contains("empty"));
    t.spec.dockerfile = "no & such/Dockerfile".to_owned();
    let refused = t.build("FROM scratch\n");
    assert!(refusal(&refused).contains("no & such/Dockerfile"), "{refused:?}");
    t.spec.dockerfile = "../../../../etc/passwd".to_owned();
    let refused = t.build("FROM scratch\n");
    assert!(!refusal(&refused).contains("root:"), "{refused:?}");
    t.spec.dockerfile = "Dockerfile".to_owned();

    let failed = t.build("FROM localhost:1/no/such:image\nRUN true\n");
    assert!(failure(&failed).contains("localhost:1"), "{failed:?}");
    let dockerfile = t.beginning() + "RUN --mount=type=cache,target=/x true\n";
    let failed = t.build(&dockerfile);
    assert!(failure(&failed).contains("requires BuildKit"), "{failed:?}");
    t.remove_residue(&failed);

    assert!(t.build("FROM scratch\n").result.is_ok(), "an image of nothing is an image");
    assert!(
        t.build("# syntax=localhost:1/evil/x\nFROM scratch\n").result.is_ok(),
        "a comment, to this builder"
    );
}

#[test]
fn what_the_engine_refuses_in_the_middle_of_the_upload_is_told() {
    let mut t = Try::new();
    let lower = std::mem::replace(&mut t.spec.tag, ImageRef::parse("UPPER:1").unwrap());
    let (build, _aborter) = t.docker.build(&t.spec);
    let finished = build.run(io::repeat(0).take(64 << 20), &mut |_| {});
    assert!(refusal(&finished).contains("must be lowercase"), "{finished:?}");
    t.spec.tag = lower;
}

#[test]
fn an_aborted_step_ends_soon_and_was_bound_to_its_share_of_the_host() {
    let mut t = Try::new();
    let dockerfile = t.beginning() + "RUN echo begun; exec busybox sleep 600\n";
    let finished = soon(|| {
        t.build_watched(&dockerfile, |t, line, aborter| {
            if line == "begun" {
                let [step] = &t.containers()[..] else { panic!("{:?}", t.containers()) };
                let (_, answer) = raw("GET", &format!("/v1.41/containers/{step}/json"), "", b"");
                let seen: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
                let bounds = &seen["HostConfig"];
                let is = |name: &str| bounds[name].as_i64().unwrap();
                assert_eq!((is("CpuQuota"), is("CpuPeriod")), (50_000, 100_000));
                assert_eq!((is("Memory"), is("MemorySwap")), (128 << 20, 128 << 20));
                assert_ne!(bounds["NetworkMode"], "host");
                assert_eq!((&bounds["Privileged"], &bounds["ExtraHosts"]), (&json!(false), &json!(null)));
                aborter.abort();
            }
        })
    });
    assert_eq!(finished.result, Err(BuildError::Aborted));
    eventually(|| t.containers(), Vec::is_empty);
    t.remove_residue(&finished);
    assert_eq!(t.images(), [""; 0]);
}

#[test]
fn a_build_that_was_aborted_before_it_began_asks_nothing_of_the_engine() {
    let t = Try::new();
    let listener = Listener::saying("HTTP/1.1 200 OK\r\n\r\n");
    let (build, aborter) = listener.client().build(&t.spec);
    aborter.abort();
    let finished = build.run(io::empty(), &mut |_| {});
    assert_eq!(finished, Finished { result: Err(BuildError::Aborted), residue: vec![] });
    assert_eq!(listener.lines(), [""; 0]);
}

#[test]
fn a_step_that_wants_more_memory_than_its_bound_fails() {
    let mut t = Try::new();
    let dockerfile = t.beginning() + "RUN busybox dd if=/dev/zero of=/dev/null bs=64M count=1\n";
    t.spec.memory_bytes = 16 << 20;
    let finished = t.build(&dockerfile);
    assert!(failure(&finished).contains("non-zero code: 137"), "{finished:?}");
    t.spec.memory_bytes = 128 << 20;
    assert!(t.build(&dockerfile).result.is_ok());
}

#[test]
fn case_53_only_the_arguments_that_a_dockerfile_asks_for_reach_the_image() {
    let mut t = Try::new();
    for (name, value) in [("GREETING", "¡hola=\"$(id)\" & adiós!\n"), ("TOKEN", "s3cret")] {
        t.spec.args.insert(EnvName::parse(name).unwrap(), value.to_owned());
    }
    assert!(!format!("{:?}", t.spec).contains("s3cret"));
    let dockerfile = t.beginning() + "ARG GREETING\nRUN echo \"[$GREETING]\"\n";
    let finished = t.build(&dockerfile);
    assert!(finished.result.is_ok(), "{finished:?}");
    assert!(t.lines.iter().any(|line| line == "[¡hola=\"$(id)\" & adiós!"), "{:#?}", t.lines);
    assert!(!t.lines.iter().any(|line| line.contains("s3cret")));
    let (_, history) = raw("GET", &format!("/v1.41/images/{}/history", t.spec.tag.as_str()), "", b"");
    assert!(history.contains("adiós"), "an argument that is used is public");
    assert!(!history.contains("s3cret"));

    t.spec.args.insert(EnvName::parse("LONG").unwrap(), "&".repeat(limits::DOCKER_BUILD_PATH_BYTES_MAX / 3));
    assert!(refusal(&t.build(&dockerfile)).contains("too long"));
    t.spec
        .args
        .insert(EnvName::parse("LONG").unwrap(), "&".repeat(limits::DOCKER_BUILD_PATH_BYTES_MAX / 3 - 500));
    assert!(t.build(&dockerfile).result.is_ok());
}

/// The most memory that this process has had since the last reset, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The beginning of a tar.
fn large_file(bytes: u64) -> impl Read {
    let mut head = tar::Header::new_gnu();
    head.set_path("large").unwrap();
    head.set_size(bytes);
    head.set_mode(0o644);
    head.set_cksum();
    Cursor::new(head.as_bytes().to_vec()).chain(io::repeat(1).take(bytes))
}

#[test]
fn a_large_context_costs_no_memory() {
    let t = Try::new();
    let files = tar(&[("Dockerfile", format!("FROM scratch\nLABEL muelle.test={}\n", t.mark).as_bytes())]);
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak();
    let (build, _aborter) = t.docker.build(&t.spec);
    let finished = build.run(large_file(100 << 20).chain(Cursor::new(files)), &mut |_| {});
    assert!(finished.result.is_ok(), "{finished:?}");
    assert!(peak() < before + (8 << 20), "{before} {}", peak());
}

/// An answer, after the whole upload.
fn answered(docker: &Docker) -> Finished {
    let spec = Try::new().spec.clone();
    docker.build(&spec).0.run(io::repeat(0).take(1 << 20), &mut |_| {})
}

#[test]
fn case_81_82_an_answer_that_is_no_build_is_an_error() {
    let malformed =
        |finished: &Finished| matches!(finished.result, Err(BuildError::Engine(Error::Malformed(_))));
    let without = |finished: &Finished| failure(finished).contains("without an image");
    let unavailable =
        |finished: &Finished| matches!(&finished.result, Err(BuildError::Engine(e)) if e.is_unavailable());
    for (bytes, expected) in [
        ("HTTP/1.1 200 OK\r\n\r\n{\"stream\":\"x\\n\"}\n", &without as &dyn Fn(&Finished) -> bool),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &without),
        ("HTTP/1.1 200 OK\r\n\r\n<html>fine</html>", &malformed),
        ("HTTP/1.1 200 OK\r\n\r\n{\"stream\":\"x\\n\"}\ngarbage\n", &malformed),
        ("HTTP/1.1 200 OK\r\n\r\n{\"aux\":{\"ID\":\"latest\"}}\n", &malformed),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{\"stream\"", &unavailable),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"stream\":\"x\\n\"}\n", &unavailable),
        ("HTTP/1.1 200 O", &unavailable),
        ("", &unavailable),
        ("HTTP/1.1 500 X\r\n\r\n<html>no</html>", &|finished| {
            refusal(finished) == "the engine answered 500 without a reason"
        }),
        ("HTTP/1.1 400 X\r\nContent-Length: 18\r\n\r\n{\"message\":\"a\\nb\"}", &|finished| {
            refusal(finished) == "a b"
        }),
    ] {
        let finished = answered(&ample(&Listener::saying(bytes).socket));
        assert!(expected(&finished), "{bytes}: {finished:?}");
    }
    assert!(unavailable(&answered(&ample(&socket_path()))));
}

#[test]
fn case_82_an_endless_line_costs_no_memory_and_not_the_build() {
    let id = format!("sha256:{:064x}", 7);
    let end = format!("\"}}\n{{\"aux\":{{\"ID\":\"{id}\"}}}}\n");
    let listener = Listener::new(move |_, stream| {
        stream.write_all(format!("{OK}\r\n{{\"stream\":\"").as_bytes()).unwrap();
        for _ in 0..64 << 8 {
            stream.write_all(&[b'x'; 4096]).unwrap();
        }
        stream.write_all(end.as_bytes()).unwrap();
        Then::Close
    });
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak();
    assert_eq!(answered(&ample(&listener.socket)).result, Ok(id));
    assert!(peak() < before + (8 << 20), "{before} {}", peak());
}

#[test]
fn a_context_that_cannot_be_read_is_not_the_engines_fault() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk\nis gone"))
        }
    }
    let t = Try::new();
    let (build, _aborter) = t.docker.build(&t.spec);
    let finished = build.run(large_file(1 << 20).take(1 << 19).chain(Broken), &mut |_| {});
    assert_eq!(finished.result, Err(BuildError::Context("the disk is gone".to_owned())));
}

/// An endless context that counts what was taken of it.
struct Endless(Arc<AtomicU64>);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.fetch_add(buffer.len() as u64, Ordering::AcqRel);
        Ok(buffer.len())
    }
}

#[test]
fn case_79_an_upload_that_the_engine_does_not_take_ends_when_it_is_aborted_and_by_its_deadline() {
    let spec = Try::new().spec.clone();
    let path = socket_path();
    let _deaf = UnixListener::bind(&path).unwrap();
    let taken = Arc::new(AtomicU64::new(0));

    let (build, aborter) = Docker::new(&path).build(&spec);
    thread::scope(|scope| {
        let context = Endless(Arc::clone(&taken));
        let running = scope.spawn(move || (build.run(context, &mut |_| {}), Instant::now()));
        let sample = || {
            let before = taken.load(Ordering::Acquire);
            thread::park_timeout(Duration::from_millis(50));
            (before, taken.load(Ordering::Acquire))
        };
        eventually(sample, |(before, after)| *before > 0 && before == after);
        let started = Instant::now();
        aborter.abort();
        let (finished, returned) = running.join().unwrap();
        assert_eq!(finished.result, Err(BuildError::Aborted));
        assert!(returned.saturating_duration_since(started) < Duration::from_secs(1));
    });

    // The same socket with the tests' short deadline.
    let finished = soon(|| client(&path).build(&spec).0.run(Endless(taken), &mut |_| {}));
    assert!(matches!(&finished.result, Err(BuildError::Engine(e)) if e.is_unavailable()), "{finished:?}");
    std::fs::remove_file(path).unwrap();
    let silent = Listener::new(|_, stream| {
        let _ = stream.read(&mut [0]);
        Then::Close
    });
    let finished = soon(|| answered(&silent.client()));
    assert!(matches!(&finished.result, Err(BuildError::Engine(e)) if e.is_unavailable()), "{finished:?}");
}

#[test]
fn a_step_may_be_silent_for_longer_than_any_other_call_may_take() {
    let id = format!("sha256:{:064x}", 7);
    let end = format!("{{\"aux\":{{\"ID\":\"{id}\"}}}}\n");
    let listener = Listener::new(move |_, stream| {
        stream.write_all(format!("{OK}\r\n{{\"stream\":\"begun\\n\"}}\n").as_bytes()).unwrap();
        crossbeam_channel::after(2 * bytes::LIMIT).recv().unwrap();
        stream.write_all(end.as_bytes()).unwrap();
        Then::Close
    });
    assert_eq!(answered(&listener.client()).result, Ok(id));
}

#[test]
fn the_request_has_the_builders_bounds_and_nothing_that_reaches_the_host() {
    let listener = Listener::saying("HTTP/1.1 200 OK\r\n\r\n");
    let t = Try::new();
    let _ = listener.client().build(&t.spec).0.run(io::empty(), &mut |_| {});
    let line = listener.lines().remove(0);
    let query = line.split_once("/build?").unwrap().1.trim_end_matches(" HTTP/1.1");
    let names: Vec<_> = query.split('&').map(|pair| pair.split_once('=').unwrap().0).collect();
    assert_eq!(
        names,
        [
            "t",
            "dockerfile",
            "labels",
            "buildargs",
            "rm",
            "forcerm",
            "memory",
            "memswap",
            "cpuperiod",
            "cpuquota"
        ]
    );
    assert!(line.starts_with("POST /v1.41/build?"), "{line}");
}
