//! The engine's JSON, its lists, objects, event lines and builds: what comes out of it is bounded, clean, and what the rest relies on.
#![no_main]

use std::io::{Cursor, Read};

use libfuzzer_sys::fuzz_target;
use muelle::docker::fuzzing::{build, events, image, inspect, list, stats};
use muelle::docker::{ContainerEvent, ContainerId, Error, Finished, Published};
use muelle::limits::{DOCKER_BUILD_LOG_LINE_BYTES_MAX, DOCKER_BUILD_RESIDUE_MAX, DOCKER_MESSAGE_CHARS_MAX};

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, json) = input;
    if let Some(step) = kind.checked_sub(200) {
        return built(json, 1 + usize::from(step));
    }
    match kind % 5 {
        0 => lines(json, 1 + usize::from(kind / 5)),
        1 => {
            for row in told(list(json)).unwrap_or_default() {
                is_id(&row.id);
                is_clean(&row.image);
                is_clean(&row.status);
                is_published(&row.published);
            }
        }
        2 => {
            if let Some(seen) = told(inspect(json)) {
                is_id(&seen.id);
                for text in [&seen.image_id, &seen.error, &seen.restart_policy] {
                    is_clean(text);
                }
                is_published(&seen.published);
                assert!(seen.pid != Some(0));
                assert!(seen.capacity.is_none_or(|cpus| cpus.is_finite() && cpus > 0.0));
                assert!(seen.exposed_ports.is_sorted());
            }
        }
        3 => {
            if let Some(image) = told(image(json)) {
                is_clean(&image.id);
                assert!(image.exposed_ports.is_sorted());
            }
        }
        _ => {
            let reading = told(stats(json)).flatten();
            assert!(reading.is_none_or(|reading| reading.online_cpus > 0));
        }
    }
});

/// At most one event per line, the same however the bytes arrive, and after an error no more is asked.
fn lines(bytes: &[u8], step: usize) {
    let whole = follow(Cursor::new(bytes.to_vec()));
    assert_eq!(whole, follow(Drip(Cursor::new(bytes.to_vec()), step)));
    assert!(whole.0.len() <= bytes.iter().filter(|byte| **byte == b'\n').count());
    whole.0.iter().for_each(|event| is_id(&event.id));
}

fn follow(bytes: impl Read + Send + 'static) -> (Vec<ContainerEvent>, Option<String>) {
    let (mut stream, mut seen) = (events(bytes), Vec::new());
    loop {
        match stream.next() {
            Ok(Some(event)) => seen.push(event),
            Ok(None) => return (seen, None),
            Err(error) => return (seen, Some(error.to_string())),
        }
    }
}

/// The same however the bytes arrive; lines are short and clean, and ids are ids.
fn built(bytes: &[u8], step: usize) {
    let whole = log(Cursor::new(bytes));
    assert_eq!(whole, log(Drip(Cursor::new(bytes), step)));
    let (Finished { result, residue }, lines) = whole;
    for line in lines {
        assert!(line.len() <= 3 * DOCKER_BUILD_LOG_LINE_BYTES_MAX);
        assert!(!line.chars().any(|c| c != '\t' && c.is_control()), "{line:?}");
    }
    assert!(residue.len() <= DOCKER_BUILD_RESIDUE_MAX);
    let is_hex = |id: &str| id.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(residue.iter().all(|id| is_hex(id.strip_prefix("sha256:").unwrap_or(id)) && id.len() >= 12));
    match result {
        Ok(id) => assert!(id.len() == 71 && !residue.contains(&id)),
        Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
    }
}

fn log(bytes: impl Read) -> (Finished, Vec<String>) {
    let mut lines = Vec::new();
    let finished = build(bytes, &mut |line| lines.push(line.to_owned()));
    (finished, lines)
}

/// What was read; a refusal is a sentence for people.
fn told<T: std::fmt::Debug>(read: Result<T, Error>) -> Option<T> {
    if let Err(error) = &read {
        let text = error.to_string();
        assert!(
            text.chars().count() <= DOCKER_MESSAGE_CHARS_MAX + 100 && !text.chars().any(char::is_control)
        );
    }
    // Ends in the log at the level of debugging.
    assert!(!format!("{read:?}").is_empty());
    read.ok()
}

fn is_id(id: &ContainerId) {
    assert!(id.as_str().len() == 64 && id.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()));
}

fn is_clean(text: &str) {
    assert!(
        text.chars().count() <= DOCKER_MESSAGE_CHARS_MAX && !text.chars().any(char::is_control),
        "{text:?}"
    );
}

fn is_published(published: &Published) {
    assert!(
        published.values().all(|socket| socket.port() != 0 && !socket.ip().is_unspecified()),
        "{published:?}"
    );
}

struct Drip<T>(Cursor<T>, usize);

impl<T: AsRef<[u8]>> Read for Drip<T> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.1.min(buffer.len());
        self.0.read(&mut buffer[..count])
    }
}
