//! The engine's log frames: they give what the bare bytes in them give, however they arrive, bounded and without control bytes.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use muelle::docker::fuzzing::log_tail;

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (step, keep, log) = input;
    let keep = usize::from(keep);
    for framed in [false, true] {
        let whole = log_tail(log, framed, keep).ok();
        assert_eq!(whole, log_tail(Drip(log, 1 + usize::from(step)), framed, keep).ok());
        // U+FFFD has three bytes and may stand for one.
        assert!(whole.as_ref().is_none_or(|text| text.len() <= 3 * keep));
        assert!(whole.is_none_or(|text| !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t')));
    }
    let bare = model(log).map(|bytes| log_tail(&bytes[..], false, keep).expect("bare bytes have no format"));
    assert_eq!(log_tail(log, true, keep).ok(), bare);
});

/// What is in the frames; `None` if one of them is none.
fn model(mut log: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some((head, behind)) = log.split_first_chunk::<8>() {
        let [0..=3, 0, 0, 0, length @ ..] = *head else { return None };
        let (frame, rest) = behind.split_at_checked(u32::from_be_bytes(length) as usize)?;
        bytes.extend_from_slice(frame);
        log = rest;
    }
    log.is_empty().then_some(bytes)
}

/// Gives a few bytes at a time.
struct Drip<'l>(&'l [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.1.min(buffer.len());
        self.0.read(&mut buffer[..count])
    }
}
