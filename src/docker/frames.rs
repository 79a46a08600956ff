//! The engine's log format: frames of an eight-byte head (stream, three zeros, big-endian length) and that many bytes, or bare
//! lines where the container has a terminal; in both the engine's time goes before the text.
//!
//! Knows nothing of HTTP. Holds one line at a time, whatever the frames claim.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::time::SystemTime;

use super::wire;
use crate::limits;

/// Which of its two streams a container wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output; everything where the container has a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a container's log. The engine stores lines in pieces of 16 KiB, and a piece counts as a line here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Which stream it was written to.
    pub output: Output,
    /// When the engine got it.
    pub at: Option<SystemTime>,
    /// What it says, without its end and without terminal control; may hold line feeds where it held carriage returns.
    pub text: String,
}

/// Reads a log line by line.
pub(super) struct Lines<R> {
    source: BufReader<R>,
    framed: bool,
    line: Vec<u8>,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(source: R, framed: bool) -> Lines<R> {
        Lines { source: BufReader::new(source), framed, line: Vec::new() }
    }

    /// The next line; `None` at the end. What is longer than [`limits::DOCKER_LOG_LINE_BYTES_MAX`] is cut off (a frame) or goes on in
    /// the next line (a terminal).
    ///
    /// # Errors
    /// What the source says; `InvalidData` for a head that cannot be one and for a frame shorter than its head claims.
    pub(super) fn next(&mut self) -> io::Result<Option<LogLine>> {
        self.line.clear();
        let output = if self.framed { self.frame()? } else { self.bare()? };
        Ok(output.map(|output| {
            let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
            let (at, text) = stamped(line);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            LogLine { output, at, text: safe_text(&String::from_utf8_lossy(text)) }
        }))
    }

    /// Whether another byte is there without waiting for the engine.
    pub(super) fn has_more(&self) -> bool {
        !self.source.buffer().is_empty()
    }

    fn frame(&mut self) -> io::Result<Option<Output>> {
        let mut head = [0; 8];
        let read = self.source.by_ref().take(8).read_to_end(&mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        self.line.iter().zip(&mut head).for_each(|(from, to)| *to = *from);
        self.line.clear();
        let (kind, length) = match head {
            [kind @ 0..=3, 0, 0, 0, a, b, c, d] if read == 8 => {
                (kind, u64::from(u32::from_be_bytes([a, b, c, d])))
            }
            _ => return Err(invalid("a log frame has no valid head")),
        };
        let kept = length.min(limits::DOCKER_LOG_LINE_BYTES_MAX);
        let taken = self.source.by_ref().take(kept).read_to_end(&mut self.line)? as u64;
        let skipped = io::copy(&mut self.source.by_ref().take(length - kept), &mut io::sink())?;
        if taken + skipped < length {
            return Err(invalid("a log frame is shorter than it claims"));
        }
        Ok(Some(if kind == 2 { Output::Stderr } else { Output::Stdout }))
    }

    fn bare(&mut self) -> io::Result<Option<Output>> {
        let mut piece = self.source.by_ref().take(limits::DOCKER_LOG_LINE_BYTES_MAX);
        let read = piece.read_until(b'\n', &mut self.line)?;
        Ok((read > 0).then_some(Output::Stdout))
    }
}

/// Reads a log to its end and keeps its last lines, as many as have at most `keep` bytes of text.
///
/// # Errors
/// See [`Lines::next`].
pub(super) fn read_tail(source: impl Read, framed: bool, keep: usize) -> io::Result<VecDeque<LogLine>> {
    let (mut lines, mut tail, mut bytes) = (Lines::new(source, framed), VecDeque::new(), 0);
    while let Some(line) = lines.next()? {
        bytes += line.text.len() + LINE_COST;
        tail.push_back(line);
        while bytes > keep {
            let Some(first) = tail.pop_front() else { break };
            bytes -= first.text.len() + LINE_COST;
        }
    }
    Ok(tail)
}

/// Memory of a line without its text: empty ones are not free.
const LINE_COST: usize = size_of::<LogLine>();

/// The engine's time before a line (RFC 3339, then a space), and the line. A line without one is left whole.
fn stamped(line: &[u8]) -> (Option<SystemTime>, &[u8]) {
    let parsed = line.iter().take(STAMP_BYTES_MAX).position(|byte| *byte == b' ').and_then(|space| {
        let at = wire::time(std::str::from_utf8(&line[..space]).ok()?)?;
        Some((Some(at), &line[space + 1..]))
    });
    parsed.unwrap_or((None, line))
}

/// `2026-11-24T07:00:00.123456789+14:00` has 35.
const STAMP_BYTES_MAX: usize = 36;

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The text without terminal control: colours and cursor movements fall away, a lone carriage return becomes a new line, other
/// control characters become U+FFFD.
pub(super) fn safe_text(text: &str) -> String {
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

    fn texts(source: impl Read, framed: bool, keep: usize) -> io::Result<Vec<String>> {
        Ok(read_tail(source, framed, keep)?.into_iter().map(|line| line.text).collect())
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
            let lines = read_tail(Drip(&log, step), true, 1000).unwrap();
            let seen: Vec<_> = lines.iter().map(|line| (line.output, line.text.as_str())).collect();
            let all = [
                (Output::Stdout, "out"),
                (Output::Stderr, "err"),
                (Output::Stdout, ""),
                (Output::Stdout, "end"),
            ];
            assert_eq!(seen, all);
        }
        assert_eq!(texts(&b"a\r\nb"[..], false, 1000).unwrap(), ["a", "b"]);
        assert_eq!(texts(&b""[..], true, 1000).unwrap(), [""; 0]);
    }

    #[test]
    fn the_engines_time_goes_before_the_text() {
        let at = |seconds, nanos| Some(SystemTime::UNIX_EPOCH + std::time::Duration::new(seconds, nanos));
        for (line, stamp, text) in [
            ("2026-11-24T07:00:00.000000001Z hello you", at(1_795_503_600, 1), "hello you"),
            ("2026-11-24T08:00:00.5+01:00 x", at(1_795_503_600, 500_000_000), "x"),
            ("2026-11-24T07:00:00Z ", at(1_795_503_600, 0), ""),
            ("2026-11-24T07:00:00Z", None, "2026-11-24T07:00:00Z"),
            ("hello you", None, "hello you"),
            (" ", None, " "),
        ] {
            let framed = read_tail(&frame(2, line.as_bytes())[..], true, 1000).unwrap().remove(0).unwrap();
            assert_eq!((framed.at, framed.text.as_str()), (stamp, text), "{line}");
            let bare = read_tail(line.as_bytes(), false, 1000).unwrap().remove(0).unwrap();
            assert_eq!((bare.at, bare.text.as_str()), (stamp, text), "{line}");
        }
    }

    #[test]
    fn case_82_a_frame_that_lies_about_its_length_is_an_error_and_costs_no_memory() {
        let mut lying = frame(1, b"x\n");
        lying[4] = 0xff;
        let short_head = &frame(1, b"x")[..5];
        let text = b"plain text instead of frames";
        for bad in [&lying[..], short_head, text] {
            assert_eq!(texts(bad, true, 1000).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn only_the_last_lines_are_kept_and_long_ones_are_cut() {
        let log: Vec<u8> = (0..10_000).flat_map(|i| format!("line {i}\n").into_bytes()).collect();
        assert_eq!(texts(&log[..], false, 2 * (9 + LINE_COST)).unwrap(), ["line 9998", "line 9999"]);
        let empty = vec![b'\n'; 10_000];
        assert_eq!(texts(&empty[..], false, 3 * LINE_COST).unwrap(), [""; 3]);

        let max = usize::try_from(limits::DOCKER_LOG_LINE_BYTES_MAX).unwrap();
        let endless = [vec![b'x'; max + 5], b"\n".to_vec()].concat();
        let lengths = |lines: Vec<String>| lines.iter().map(String::len).collect::<Vec<_>>();
        assert_eq!(lengths(texts(&endless[..], false, 1 << 20).unwrap()), [max, 5]);
        let framed = [frame(1, &endless), frame(1, b"next")].concat();
        assert_eq!(lengths(texts(&framed[..], true, 1 << 20).unwrap()), [max, 4]);
    }

    #[test]
    fn control_bytes_are_made_safe() {
        for (raw, safe) in [
            (&b"\x1b[31mred\x1b[0m\n"[..], "red"),
            (b"\x1b[2J\x1b[1;1Hx", "x"),
            (b"10%\r20%\r\n", "10%\n20%"),
            (b"a\tb\x00c\x07", "a\tb\u{fffd}c\u{fffd}"),
            (b"\xff\xfeok", "\u{fffd}\u{fffd}ok"),
            (b"\x1b]0;title\x07", "\u{fffd}]0;title\u{fffd}"),
            (b"\x1b[", ""),
            ("\u{9b}31m".as_bytes(), "\u{fffd}31m"),
        ] {
            assert_eq!(texts(raw, false, 1000).unwrap(), [safe], "{raw:?}");
        }
    }
}
