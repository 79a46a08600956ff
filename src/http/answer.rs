//! The head of an answer: from an upstream's bytes to an [`Answer`] whose framing is beyond doubt, or a reason why not.
//!
//! Pure, as `head` is. What an upstream sends is forwarded only as far as it was understood here. Must not know who asked for it, but for
//! whether that was HEAD.

use super::body::Chunked;
use super::head::{Version, is_control, is_token, next_line, trim};
use crate::limits::{PROXY_HEAD_MAX, PROXY_HEADERS_MAX};

/// What the bytes of an upstream amount to so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing wrong yet, but not the whole head either.
    Partial,
    /// A head, and how many of the bytes it took.
    Complete(Answer, usize),
    /// Bytes that no further byte can mend.
    Malformed(&'static str),
}

/// How an answer's body is delimited (RFC 9112 §6.3).
#[derive(Debug)]
pub enum Content {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks, each with its length.
    Chunked(Chunked),
    /// Everything until the connection ends.
    UntilClose,
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    version: Version,
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    length: Option<u64>,
    chunked: bool,
}

impl Answer {
    /// The status, 100 to 599.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether more comes before the real answer (RFC 9110 §15.2); 101 is a real one.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// Every header as sent.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Whether the comma-separated list in the headers `name` holds `token`, in any case.
    #[must_use]
    pub fn lists(&self, name: &str, token: &str) -> bool {
        let values = self.headers().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        values
            .flat_map(|list| list.split(|byte| *byte == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The length that the answer names, whether or not a body follows.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// How the body is delimited that follows, to a request that was HEAD or not.
    #[must_use]
    pub fn content(&self, to_head: bool) -> Content {
        match self.length {
            _ if to_head || self.status < 200 || matches!(self.status, 204 | 304) => Content::None,
            _ if self.chunked => Content::Chunked(Chunked::default()),
            Some(0) => Content::None,
            Some(length) => Content::Length(length),
            None => Content::UntilClose,
        }
    }

    /// Whether the connection may carry another request behind this answer (RFC 9112 §9.3).
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        match self.version {
            Version::Http11 => !self.lists("connection", "close"),
            Version::Http10 => self.lists("connection", "keep-alive"),
        }
    }
}

/// Parses the head of an answer (RFC 9112 §4 to §6) at the start of `bytes`; any split of the bytes parses the same.
#[must_use]
pub fn hear(bytes: &[u8]) -> Heard {
    match try_hear(bytes) {
        Ok(None) => Heard::Partial,
        Ok(Some((answer, length))) => Heard::Complete(answer, length),
        Err(reason) => Heard::Malformed(reason),
    }
}

fn try_hear(bytes: &[u8]) -> Result<Option<(Answer, usize)>, &'static str> {
    const TOO_LARGE: &str = "its head is too large";
    let line = |at: usize| {
        next_line(&bytes[at..], PROXY_HEAD_MAX.saturating_sub(at), super::Refusal::HeadTooLarge).map_err(
            |refusal| match refusal {
                super::Refusal::HeadTooLarge => TOO_LARGE,
                _ => "its head has control bytes or bare line ends",
            },
        )
    };
    let Some(first) = line(0)? else { return Ok(None) };
    let (version, status) = status_line(first)?;
    let (mut at, mut headers) = (first.len() + 2, Vec::new());
    loop {
        let Some(line) = line(at)? else { return Ok(None) };
        at += line.len() + 2;
        if line.is_empty() {
            return checked(version, status, headers).map(|answer| Some((answer, at)));
        }
        if headers.len() == PROXY_HEADERS_MAX {
            return Err(TOO_LARGE);
        }
        headers.push(field(line)?);
    }
}

/// RFC 9112 §4; the reason may be missing, and some leave its space out with it.
fn status_line(line: &[u8]) -> Result<(Version, u16), &'static str> {
    const MALFORMED: &str = "it has no valid status line";
    let (version, rest) = match line.get(..8) {
        Some(b"HTTP/1.1") => (Version::Http11, &line[8..]),
        Some(b"HTTP/1.0") => (Version::Http10, &line[8..]),
        _ => return Err(MALFORMED),
    };
    let digits = match rest {
        [b' ', a, b, c] | [b' ', a, b, c, b' ', ..] => [*a, *b, *c],
        _ => return Err(MALFORMED),
    };
    let status = str::from_utf8(&digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let status = status.and_then(|text| text.parse().ok()).filter(|status| (100..=599).contains(status));
    status.map(|status| (version, status)).ok_or(MALFORMED)
}

/// RFC 9112 §5. Values are opaque bytes (RFC 9110 §5.5): apps name files in Latin-1.
fn field(line: &[u8]) -> Result<(String, Vec<u8>), &'static str> {
    const MALFORMED: &str = "it has a malformed header";
    let colon = line.iter().position(|byte| *byte == b':').ok_or(MALFORMED)?;
    let name = str::from_utf8(&line[..colon]).ok().filter(|name| is_token(name)).ok_or(MALFORMED)?;
    debug_assert!(!line.iter().any(|byte| is_control(*byte)), "lines have none");
    Ok((name.to_owned(), trim_bytes(&line[colon + 1..]).to_vec()))
}

fn trim_bytes(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// RFC 9112 §6.1 to §6.3, without its leniencies.
fn checked(version: Version, status: u16, headers: Vec<(String, Vec<u8>)>) -> Result<Answer, &'static str> {
    let all = |wanted: &str| {
        let found = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_slice()).collect::<Vec<_>>()
    };
    let (lengths, encodings) = (all("content-length"), all("transfer-encoding"));
    let chunked = match encodings[..] {
        [] => false,
        [coding]
            if version == Version::Http11
                && trim(str::from_utf8(coding).unwrap_or_default()).eq_ignore_ascii_case("chunked") =>
        {
            true
        }
        _ => return Err("its Transfer-Encoding is not one chunked"),
    };
    let length = match lengths[..] {
        [] => None,
        [digits] if !chunked && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => Some(
            str::from_utf8(digits)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or("its Content-Length is too large")?,
        ),
        _ => return Err("its Content-Length is not one number"),
    };
    Ok(Answer { version, status, headers, length, chunked })
}

#[cfg(test)]
mod tests {
    use super::super::tests::Xorshift;
    use super::*;

    fn answer(text: &str) -> Answer {
        match hear(text.as_bytes()) {
            Heard::Complete(answer, length) if length == text.len() => answer,
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    #[test]
    fn an_answer_is_read_with_its_framing() {
        for (text, to_head, content) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, "Length(5)"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, "None"),
            ("HTTP/1.1 200\r\n\r\n", false, "UntilClose"),
            ("HTTP/1.1 204 \r\n\r\n", false, "None"),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false, "None"),
            ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", false, "None"),
            ("HTTP/1.0 200 OK\r\n\r\n", false, "UntilClose"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false, "None"),
        ] {
            assert_eq!(format!("{:?}", answer(text).content(to_head)), content, "{text:?}");
        }
        let chunked = answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n");
        assert!(matches!(chunked.content(false), Content::Chunked(_)));
        assert!(answer("HTTP/1.1 103 Early Hints\r\n\r\n").is_interim());
        assert!(!answer("HTTP/1.1 101 x\r\n\r\n").is_interim());
    }

    #[test]
    fn an_answers_values_are_bytes() {
        let wire = b"HTTP/1.1 200 OK\r\nContent-Disposition:  attachment; filename=caf\xe9 \r\n\r\n";
        let Heard::Complete(answer, _) = hear(wire) else { panic!("{:?}", hear(wire)) };
        assert_eq!(
            answer.headers().collect::<Vec<_>>(),
            [("Content-Disposition", &b"attachment; filename=caf\xe9"[..])]
        );
    }

    #[test]
    fn a_connection_is_kept_by_the_rules_of_its_version() {
        for (text, keeps) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n", true),
        ] {
            assert_eq!(answer(text).keeps_alive(), keeps, "{text:?}");
        }
    }

    #[test]
    fn case_126_what_cannot_be_understood_is_no_answer() {
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(1000));
        let large = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(65 * 1024));
        for bad in [
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 600 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.1 +20 OK\r\n\r\n",
            "http/1.1 200 OK\r\n\r\n",
            "200 OK\r\n\r\n",
            "<html>\r\n",
            "HTTP/1.1 200 OK\n\n",
            "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nnone\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            &many,
            &large,
        ] {
            assert!(matches!(hear(bad.as_bytes()), Heard::Malformed(_)), "{bad:.60}");
        }
    }

    #[test]
    fn any_split_of_an_answer_is_read_the_same() {
        let wire = b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 3\r\n\r\nabc";
        let whole = hear(wire);
        let mut random = Xorshift::new(7);
        for _ in 0..200 {
            let cut = random.below(wire.len());
            match hear(&wire[..cut]) {
                Heard::Partial => assert!(cut < wire.len() - 3),
                complete => assert_eq!(complete, whole),
            }
        }
    }
}
