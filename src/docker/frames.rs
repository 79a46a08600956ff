//! The engine's log format: frames of an eight-byte head (stream, three zeros, big-endian length) and that many bytes, or bare
//! bytes where the container has a terminal.
//!
//! Knows nothing of HTTP. Holds at most twice of what it is asked to keep, whatever the frames claim.

use std::io::{self, Read, Write};

/// Reads a log to its end and keeps the last `keep` bytes of it, from the beginning of a line, both streams in their order.
///
/// # Errors
/// What `source` says; `InvalidData` for a head that cannot be one and for a frame shorter than its head claims.
pub(super) fn read_tail(mut source: impl Read, framed: bool, keep: usize) -> io::Result<String> {
    let mut tail = Tail { bytes: Vec::new(), keep, cut: false };
    if framed {
        while let Some(length) = next_frame(&mut source)? {
            let copied = io::copy(&mut source.by_ref().take(u64::from(length)), &mut tail)?;
            if copied < u64::from(length) {
                return Err(invalid("a log frame is shorter than it claims"));
            }
        }
    } else {
        io::copy(&mut source, &mut tail)?;
    }
    Ok(safe_text(&String::from_utf8_lossy(tail.whole_lines())))
}

fn next_frame(source: &mut impl Read) -> io::Result<Option<u32>> {
    let mut head = Vec::with_capacity(8);
    source.by_ref().take(8).read_to_end(&mut head)?;
    match head[..] {
        [] => Ok(None),
        [0..=3, 0, 0, 0, a, b, c, d] => Ok(Some(u32::from_be_bytes([a, b, c, d]))),
        _ => Err(invalid("a log frame has no valid head")),
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

struct Tail {
    bytes: Vec<u8>,
    keep: usize,
    cut: bool,
}

impl Tail {
    fn forget(&mut self) {
        let excess = self.bytes.len().saturating_sub(self.keep);
        self.cut |= excess > 0;
        self.bytes.drain(..excess);
    }

    fn whole_lines(&mut self) -> &[u8] {
        self.forget();
        let first_end = self.bytes.iter().position(|b| *b == b'\n').filter(|_| self.cut);
        &self.bytes[first_end.map_or(0, |end| end + 1)..]
    }
}

impl Write for Tail {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The copy comes in pieces of 8 KiB; forgetting at the double makes the moves cheap.
        if self.bytes.len() + bytes.len() > 2 * self.keep {
            self.forget();
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The text without terminal control: colours and cursor movements fall away, a lone carriage return becomes a new line, other
/// control characters become U+FFFD.
fn safe_text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\t' => safe.push(c),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\r' => safe.push('\n'),
            '\u{1b}' if chars.next_if_eq(&'[').is_some() => {
                // ECMA-48 5.4: parameters and intermediates, then one final byte.
                while chars.next_if(|c| matches!(c, ' '..='?')).is_some() {}
                chars.next_if(|c| matches!(c, '@'..='~'));
            }
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &[u8]) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0], &length[..], text].concat()
    }

    #[test]
    fn both_streams_come_out_in_their_order_however_the_bytes_arrive() {
        struct Drip<'a>(&'a [u8], usize);
        impl Read for Drip<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let n = self.1.min(self.0.len()).min(buffer.len());
                buffer[..n].copy_from_slice(&self.0[..n]);
                self.0 = &self.0[n..];
                Ok(n)
            }
        }
        let log = [frame(1, b"out\n"), frame(2, b"err\n"), frame(1, b""), frame(1, b"end\n")].concat();
        for step in 1..=log.len() {
            assert_eq!(read_tail(Drip(&log, step), true, 100).unwrap(), "out\nerr\nend\n");
        }
        assert_eq!(read_tail(&b"a\r\nb\n"[..], false, 100).unwrap(), "a\nb\n");
        assert_eq!(read_tail(&b""[..], true, 100).unwrap(), "");
    }

    #[test]
    fn case_82_a_frame_that_lies_about_its_length_is_an_error_and_costs_no_memory() {
        let mut lying = frame(1, b"x\n");
        lying[4] = 0xff;
        let short_head = &frame(1, b"x")[..5];
        let text = b"plain text instead of frames";
        for bad in [&lying[..], short_head, text] {
            assert_eq!(read_tail(bad, true, 100).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn only_the_last_whole_lines_are_kept() {
        let log: Vec<u8> = (0..10_000).flat_map(|i| format!("line {i}\n").into_bytes()).collect();
        let kept = read_tail(&log[..], false, 30).unwrap();
        assert_eq!(kept, "line 9998\nline 9999\n");
        let one_long_line = [b'x'; 100];
        assert_eq!(read_tail(&one_long_line[..], false, 30).unwrap().len(), 30);
        assert_eq!(read_tail(&b"a\nb\n"[..], false, 4).unwrap(), "a\nb\n");
    }

    #[test]
    fn control_bytes_are_made_safe() {
        for (raw, safe) in [
            (&b"\x1b[31mred\x1b[0m\n"[..], "red\n"),
            (b"\x1b[2J\x1b[1;1Hx", "x"),
            (b"10%\r20%\r\n", "10%\n20%\n"),
            (b"a\tb\x00c\x07", "a\tb\u{fffd}c\u{fffd}"),
            (b"\xff\xfeok", "\u{fffd}\u{fffd}ok"),
            (b"\x1b]0;title\x07", "\u{fffd}]0;title\u{fffd}"),
            (b"\x1b[", ""),
            ("\u{9b}31m".as_bytes(), "\u{fffd}31m"),
        ] {
            assert_eq!(read_tail(raw, false, 100).unwrap(), safe, "{raw:?}");
        }
    }
}
