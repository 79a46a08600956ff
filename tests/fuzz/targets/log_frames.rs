//! The engine's log frames: one line each, that of the bare bytes in it, however they arrive, bounded and without control bytes.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use muelle::docker::fuzzing::log_tail;
use muelle::docker::{LogLine, Output};
use muelle::limits::DOCKER_LOG_LINE_BYTES_MAX;

/// More than any input has.
const ALL: usize = 64 << 20;

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (step, keep, log) = input;
    for framed in [false, true] {
        let whole = log_tail(log, framed, ALL).ok();
        assert_eq!(whole, log_tail(Drip(log, 1 + usize::from(step)), framed, ALL).ok());
        let tail = log_tail(log, framed, usize::from(keep)).ok();
        assert_eq!(whole.is_some(), tail.is_some());
        let (whole, tail) = (whole.unwrap_or_default(), tail.unwrap_or_default());
        assert!(whole.ends_with(&tail));
        assert!(tail.iter().map(|line| line.text.len()).sum::<usize>() <= usize::from(keep));
        whole.iter().for_each(is_safe);
    }
    let frames = model(log);
    let lines = log_tail(log, true, ALL).ok();
    assert_eq!(frames.is_some(), lines.is_some());
    for ((kind, bytes), line) in frames.into_iter().flatten().zip(lines.into_iter().flatten()) {
        assert_eq!(line.output, if kind == 2 { Output::Stderr } else { Output::Stdout });
        let bare = log_tail(bytes, false, ALL).expect("bare bytes have no format");
        // A terminal's lines end at each line feed, a frame at its own end.
        match &bare[..] {
            [] => assert_eq!((line.at, line.text.as_str()), (None, "")),
            [one] => assert_eq!((line.at, &line.text), (one.at, &one.text)),
            _ => {}
        }
    }
});

fn is_safe(line: &LogLine) {
    // U+FFFD has three bytes and may stand for one.
    assert!(line.text.len() as u64 <= 3 * DOCKER_LOG_LINE_BYTES_MAX);
    assert!(!line.text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
}

/// What is in the frames; `None` if one of them is none.
fn model(mut log: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut frames = Vec::new();
    while let Some((head, behind)) = log.split_first_chunk::<8>() {
        let [kind @ 0..=3, 0, 0, 0, length @ ..] = *head else { return None };
        let (frame, rest) = behind.split_at_checked(u32::from_be_bytes(length) as usize)?;
        frames.push((kind, frame));
        log = rest;
    }
    log.is_empty().then_some(frames)
}

/// Gives a few bytes at a time.
struct Drip<'l>(&'l [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.1.min(buffer.len());
        self.0.read(&mut buffer[..count])
    }
}
