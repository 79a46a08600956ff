//! The head of a request: from bytes to a [`Head`] that obeys every rule of framing, or a [`Refusal`].
//!
//! Pure: no socket, no clock. [`parse`] decides by the shortest prefix of the bytes, so it does not matter how they arrive.
//! It is written out instead of built on `httparse`, which takes bare line feeds and leaves lengths, hosts and spaces to its
//! caller: with the checks before and after it, it would only find the colons. The tests use it as the second opinion.
//! Must not know what a path means.

use std::fmt;
use std::net::Ipv6Addr;

use super::Refusal;
use crate::limits::{HTTP_HEAD_MAX, HTTP_HEADERS_MAX, HTTP_HOST_MAX, HTTP_REQUEST_LINE_MAX};

/// What the bytes received so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Nothing wrong yet, but not the whole head either.
    Partial,
    /// A head, and how many of the bytes it took; what follows is the body or the next request.
    Complete(Head, usize),
    /// Bytes that no further byte can mend.
    Refused(Refusal),
}

/// Parses the head of a request (RFC 9112 §2.2 to §6) at the start of `bytes`.
///
/// Whether bytes are refused, and with what, depends only on the shortest prefix that shows the fault: any split of the
/// bytes parses the same.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    match try_parse(bytes) {
        Ok(None) => Parsed::Partial,
        Ok(Some((head, length))) => Parsed::Complete(head, length),
        Err(refusal) => Parsed::Refused(refusal),
    }
}

/// The head of a request whose framing is beyond doubt: one valid Host (under 1.1), at most one length, no control bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Head {
    method: Method,
    target: String,
    version: Version,
    headers: Vec<(String, String)>,
    framing: Framing,
}

impl Head {
    /// The request's method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The target as sent (RFC 9112 §3.2): visible ASCII that starts with `/`, or `*` for OPTIONS. Of an absolute target only
    /// the path and query are left.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The target up to the first `?`, percent-encoding untouched.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    /// The target behind the first `?`, percent-encoding untouched. It can hold a token: not for the log.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// The first parameter `name` of the query, decoded as HTML forms encode it (`+` is a space). `None` also when its
    /// escapes are broken or are not UTF-8. Bounded by the request line.
    #[must_use]
    pub fn query_param(&self, name: &str) -> Option<String> {
        query_param(self.query()?, name)
    }

    /// The version of the request line.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The first header called `name`, in any case, without the white space around it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every header called `name`, in any case, in the order sent.
    pub fn all<'h>(&'h self, name: &str) -> impl Iterator<Item = &'h str> {
        self.headers().filter_map(move |(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    }

    /// Every header as sent, name and value.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How the request's body is delimited.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the comma-separated list in the headers `name` holds `token`, in any case (RFC 9110 §5.6.1).
    #[must_use]
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name).flat_map(|list| list.split(',')).any(|item| trim(item).eq_ignore_ascii_case(token))
    }

    /// Whether the client waits for a `100 Continue` before it sends the body (RFC 9110 §10.1.1).
    pub(super) fn expects_continue(&self) -> bool {
        self.version == Version::Http11 && self.framing != Framing::Empty && self.get("expect").is_some()
    }

    /// Whether the connection may serve another request (RFC 9112 §9.3). Under 1.0 it never does: its clients lose a
    /// round trip, and we have no second set of rules.
    pub(super) fn keeps_alive(&self) -> bool {
        self.version == Version::Http11 && !self.lists("connection", "close")
    }

    /// Applies the rules that speak of the head as a whole.
    fn checked(line: &RequestLine<'_>, fields: &[(&str, &str)]) -> Result<Head, Refusal> {
        let mut headers: Vec<(String, String)> =
            fields.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let target = match (at_most_one(fields, "host", "The request has more than one Host")?, line.target) {
            (None, _) if line.version == Version::Http11 => return Err(BAD_HOST),
            (Some(host), _) if !is_authority(host) => return Err(BAD_HOST),
            // RFC 9112 §3.2.2: a server must take the absolute form, and then the authority in it *is* the Host. Put
            // in its place here, nobody behind us can see two different ones.
            (_, Target::Absolute { authority, rest }) => {
                headers.retain(|(name, _)| !name.eq_ignore_ascii_case("host"));
                headers.push(("Host".to_owned(), authority.to_owned()));
                if rest.starts_with('/') { rest.to_owned() } else { ["/", rest].concat() }
            }
            (_, Target::Origin(target)) => target.to_owned(),
        };
        let framing = framing(fields, line.version)?;
        let head =
            Head { method: Method::from(line.method), target, version: line.version, headers, framing };
        // RFC 9110 §10.1.1: the one expectation there is; a 1.0 client does not know it.
        if head.version == Version::Http11
            && !head.all("expect").all(|it| it.eq_ignore_ascii_case("100-continue"))
        {
            return Err(Refusal::ExpectationFailed);
        }
        // RFC 9110 §7.8: the option says that the header Upgrade is meant for us, so there has to be one.
        if head.lists("connection", "upgrade") && head.get("upgrade").is_none() {
            return Err(Refusal::Malformed("The request wants to upgrade but does not say to what"));
        }
        Ok(head)
    }
}

/// Leaves out the query and the headers: they hold tokens, and `{:?}` ends in logs.
impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?} {:?}", self.method, self.path(), self.version, self.framing)
    }
}

/// A request method, case-sensitive (RFC 9110 §9.1). CONNECT and TRACE never get this far.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    /// A token that is none of these.
    Other(String),
}

impl Method {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Other(word) => word,
        }
    }
}

impl From<&str> for Method {
    fn from(word: &str) -> Method {
        use Method::{Delete, Get, Head, Options, Patch, Post, Put};
        let known = [Get, Head, Post, Put, Patch, Delete, Options];
        known
            .into_iter()
            .find(|method| method.as_str() == word)
            .unwrap_or_else(|| Method::Other(word.to_owned()))
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two versions spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `HTTP/1.0`: one request per connection, no chunks.
    Http10,
    /// `HTTP/1.1`
    Http11,
}

/// How a request's body is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body; also `Content-Length: 0`.
    Empty,
    /// So many bytes.
    Length(u64),
    /// Chunks, each with its length.
    Chunked,
}

const BAD_HOST: Refusal = Refusal::Malformed("The request needs one valid Host");

struct RequestLine<'b> {
    method: &'b str,
    target: Target<'b>,
    version: Version,
}

#[derive(Clone, Copy)]
enum Target<'b> {
    Origin(&'b str),
    Absolute { authority: &'b str, rest: &'b str },
}

fn try_parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Refusal> {
    // RFC 9112 §2.2: one empty line before the request is forgiven, old clients send it after a body.
    let mut at = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let Some(line) = next_line(&bytes[at..], HTTP_REQUEST_LINE_MAX, Refusal::TargetTooLong)? else {
        return Ok(None);
    };
    at += line.len() + 2;
    let request_line = parse_request_line(line)?;
    let mut fields = Vec::new();
    loop {
        let left = HTTP_HEAD_MAX.saturating_sub(at);
        let Some(line) = next_line(&bytes[at..], left, Refusal::HeadTooLarge)? else {
            return Ok(None);
        };
        at += line.len() + 2;
        if line.is_empty() {
            return Head::checked(&request_line, &fields).map(|head| Some((head, at)));
        }
        if fields.len() == HTTP_HEADERS_MAX {
            return Err(Refusal::HeadTooLarge);
        }
        fields.push(parse_field(line)?);
    }
}

/// The next line without its CRLF, `None` while it has not ended; with its CRLF it may have `max` bytes.
///
/// CR and LF exist only as a pair (RFC 9112 §2.2 leaves that open, and every reading of the rest has smuggled something).
pub(super) fn next_line(bytes: &[u8], max: usize, too_long: Refusal) -> Result<Option<&[u8]>, Refusal> {
    for (at, &byte) in bytes.iter().enumerate() {
        if at + 2 > max {
            return Err(too_long);
        }
        match byte {
            b'\r' => match bytes.get(at + 1) {
                None => return Ok(None),
                Some(b'\n') => return Ok(Some(&bytes[..at])),
                Some(_) => return Err(Refusal::Malformed("The request has a line that ends in a bare CR")),
            },
            b'\n' => return Err(Refusal::Malformed("The request has a line that ends in a bare LF")),
            _ if is_control(byte) => {
                return Err(Refusal::Malformed("The request has a control byte in its head"));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// RFC 9112 §3: exactly three words with exactly one space between them.
fn parse_request_line(line: &[u8]) -> Result<RequestLine<'_>, Refusal> {
    const MALFORMED: Refusal = Refusal::Malformed("The request line is malformed");
    let line = str::from_utf8(line).map_err(|_| MALFORMED)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(MALFORMED);
    };
    let version = match version {
        "HTTP/1.1" => Version::Http11,
        "HTTP/1.0" => Version::Http10,
        _ => match version.strip_prefix("HTTP/").map(str::as_bytes) {
            Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit() => {
                return Err(Refusal::VersionUnsupported);
            }
            _ => return Err(MALFORMED),
        },
    };
    if !is_token(method) {
        return Err(MALFORMED);
    }
    if matches!(method, "CONNECT" | "TRACE") {
        return Err(Refusal::MethodNotAllowed);
    }
    Ok(RequestLine { method, target: parse_target(method, target)?, version })
}

fn parse_target<'b>(method: &str, target: &'b str) -> Result<Target<'b>, Refusal> {
    const MALFORMED: Refusal = Refusal::Malformed("The request target is malformed");
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(MALFORMED);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(Target::Origin(target));
    }
    let (scheme, rest) = target.split_once("://").ok_or(MALFORMED)?;
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    if known && is_authority(authority) { Ok(Target::Absolute { authority, rest }) } else { Err(MALFORMED) }
}

/// RFC 9112 §5: a name with the colon right behind it. A line that starts with white space would continue the one before it
/// (§5.2, obs-fold); such a "name" is no token. Values that are not UTF-8 are refused: they are opaque by RFC 9110 §5.5, and
/// everybody behind us wants text.
fn parse_field(line: &[u8]) -> Result<(&str, &str), Refusal> {
    const MALFORMED: Refusal = Refusal::Malformed("The request has a malformed header");
    let line = str::from_utf8(line).map_err(|_| MALFORMED)?;
    let (name, value) = line.split_once(':').ok_or(MALFORMED)?;
    if is_token(name) { Ok((name, trim(value))) } else { Err(MALFORMED) }
}

/// RFC 9112 §6.1 to §6.3, without its leniencies: what two readers could understand differently is refused.
fn framing(fields: &[(&str, &str)], version: Version) -> Result<Framing, Refusal> {
    let length = at_most_one(fields, "content-length", "The request has more than one Content-Length")?;
    let encoding =
        at_most_one(fields, "transfer-encoding", "The request has more than one Transfer-Encoding")?;
    match (length, encoding) {
        (None, None) => Ok(Framing::Empty),
        (Some(_), Some(_)) => {
            Err(Refusal::Malformed("The request has both a Content-Length and a Transfer-Encoding"))
        }
        (None, Some(_)) if version == Version::Http10 => {
            Err(Refusal::Malformed("A Transfer-Encoding is not possible under HTTP/1.0"))
        }
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        (None, Some(_)) => Err(Refusal::Malformed("The only Transfer-Encoding understood is one chunked")),
        (Some(digits), None) => match digits.parse::<u64>() {
            // `parse` takes a leading plus.
            Ok(0) if is_digits(digits) => Ok(Framing::Empty),
            Ok(length) if is_digits(digits) => Ok(Framing::Length(length)),
            _ => Err(Refusal::Malformed("The Content-Length is not a number")),
        },
    }
}

fn at_most_one<'b>(
    fields: &[(&str, &'b str)],
    name: &str,
    twice: &'static str,
) -> Result<Option<&'b str>, Refusal> {
    let mut values = fields.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|&(_, value)| value);
    let first = values.next();
    if values.next().is_some() { Err(Refusal::Malformed(twice)) } else { Ok(first) }
}

/// RFC 9112 §3.2, narrowed to what names a machine: `name[:port]`, `v4[:port]`, `[v6][:port]`.
fn is_authority(text: &str) -> bool {
    let (is_host, port) = if let Some(literal) = text.strip_prefix('[') {
        let (address, port) = literal.split_once(']').unwrap_or_default();
        (address.parse::<Ipv6Addr>().is_ok(), port)
    } else {
        let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        (!name.is_empty() && name.len() <= HTTP_HOST_MAX && name.bytes().all(plain), port)
    };
    let is_port = |digits: &str| is_digits(digits) && digits.parse::<u16>().is_ok();
    is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// See [`Head::query_param`].
#[must_use]
pub fn query_param(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode_form(key)? == name).then(|| decode_form(value))
    })?
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The bytes that no line may hold; a tab is white space.
pub(super) fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Without optional white space (RFC 9110 §5.6.3), which is not what `str::trim` takes away.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn decode_form(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            _ => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

/// The value of one hexadecimal digit.
pub(super) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::super::tests::Xorshift;
    use super::*;

    fn head(text: &str) -> Head {
        match parse(text.as_bytes()) {
            Parsed::Complete(head, length) if length == text.len() => head,
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    fn status(bytes: impl AsRef<[u8]>) -> u16 {
        match parse(bytes.as_ref()) {
            Parsed::Refused(refusal) => refusal.status(),
            other => panic!("{:?} gave {other:?}", String::from_utf8_lossy(bytes.as_ref())),
        }
    }

    /// A 1.1 request with these lines behind its Host.
    fn with(lines: &str) -> String {
        format!("POST /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n")
    }

    #[test]
    fn a_head_gives_back_what_was_sent() {
        let head = head(
            "GET /a%20b?x=1&t=a%2Bb+c%C3%B1&bad=%zz&t=2 HTTP/1.1\r\nhOsT: a.b:80\r\nX: \t1 2 \r\nx:\r\n\r\n",
        );
        assert_eq!(
            (head.method(), head.version(), head.framing()),
            (&Method::Get, Version::Http11, Framing::Empty)
        );
        assert_eq!((head.path(), head.query()), ("/a%20b", Some("x=1&t=a%2Bb+c%C3%B1&bad=%zz&t=2")));
        assert_eq!(head.query_param("t").as_deref(), Some("a+b c\u{f1}"));
        assert_eq!((head.query_param("bad"), head.query_param("none")), (None, None));
        assert_eq!(head.get("HOST"), Some("a.b:80"));
        assert_eq!(head.all("x").collect::<Vec<_>>(), ["1 2", ""]);
        let debug = format!("{head:?}");
        assert!(debug.contains("/a%20b") && !debug.contains("x=1"), "{debug}");
    }

    #[test]
    fn an_empty_line_before_a_request_is_forgiven_once() {
        assert_eq!(head("\r\nGET / HTTP/1.0\r\n\r\n").path(), "/");
        assert_eq!(status("\r\n\r\nGET / HTTP/1.0\r\n\r\n"), 400);
    }

    #[test]
    fn the_authority_of_an_absolute_target_is_the_only_host() {
        let head = head("GET HTTP://b:81?q HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((head.target(), head.all("host").collect::<Vec<_>>()), ("/?q", vec!["b:81"]));
        for target in
            ["http://a@b/", "http:///", "ftp://b/", "http://b:99999/", "b", "*", "/#", "/\u{f1}", "/a\tb"]
        {
            assert_eq!(status(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")), 400, "{target}");
        }
    }

    #[test]
    fn case_2_to_6_a_length_that_can_be_read_twofold_is_refused() {
        let framing = |lines: &str| head(&with(lines)).framing();
        assert_eq!(framing("Content-Length: 18446744073709551615"), Framing::Length(u64::MAX));
        assert_eq!(framing("Content-Length: 0"), Framing::Empty);
        assert_eq!(framing("Transfer-Encoding: Chunked"), Framing::Chunked);
        for lines in [
            "Content-Length: 18446744073709551616",
            "Content-Length: abc",
            "Content-Length: -1",
            "Content-Length: +5",
            "Content-Length: 0x5",
            "Content-Length:",
            "Content-Length: 5, 5",
            "Content-Length: 5 5",
            "Content-Length: \u{ff15}",
            "Content-Length: 5\r\ncontent-length: 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding:",
        ] {
            assert_eq!(status(with(lines)), 400, "{lines}");
        }
        assert_eq!(status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    }

    #[test]
    fn case_7_to_10_lines_that_can_be_cut_twofold_are_refused() {
        for lines in [
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            "X: 1\r\n Transfer-Encoding: chunked",
            "X: 1\r\n\tTransfer-Encoding: chunked",
            "X: 1\nTransfer-Encoding: chunked",
            "X: 1\rTransfer-Encoding: chunked",
            "X: 1\r\r\nY: 2",
            "X: a\0b",
            "X: a\x0bb",
            "X: a\x7fb",
            "X\0: a",
            "X\x08: a",
            "X(: a",
            ": a",
            "no colon",
        ] {
            assert_eq!(status(with(lines)), 400, "{lines:?}");
        }
        assert_eq!(status("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), 400, "folded into the request line");
        assert_eq!(status("GET / HTTP/1.1\nHost: a\n\n"), 400);
        assert_eq!(status(b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\r\n\r\n"), 400);
        assert_eq!(head(&with("X: a\tb \u{f1}")).get("x"), Some("a\tb \u{f1}"));
    }

    #[test]
    fn case_12_13_14_other_versions_and_other_protocols_are_refused_by_their_first_line() {
        for (bytes, expected) in [
            ("GET /x HTTP/2.0\r\n", 505),
            ("PRI * HTTP/2.0\r\n", 505),
            ("GET / HTTP/1.2\r\n", 505),
            ("GET / HTTP/0.9\r\n", 505),
            ("GET /\r\n", 400),
            ("GET / http/1.1\r\n", 400),
            ("GET / HTTP/1.1 \r\n", 400),
            ("GET / HTTP/1.10\r\n", 400),
            ("GET / HTTP/11\r\n", 400),
            ("GET  / HTTP/1.1\r\n", 400),
            (" GET / HTTP/1.1\r\n", 400),
            ("GET\t/ HTTP/1.1\r\n", 400),
            ("G(T / HTTP/1.1\r\n", 400),
            ("\x16\x03\x01\x02\0\x01", 400),
            ("SSH-2.0-OpenSSH_9.2\r\n", 400),
        ] {
            assert_eq!(status(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn case_15_exactly_one_host_that_names_a_machine() {
        for host in ["a", "A.b-c_d~e", "127.0.0.1:3000", "[::1]", "[fe80::1]:65535", "a:0", "xn--a."] {
            assert_eq!(head(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).get("host"), Some(host));
        }
        let long = "a".repeat(256);
        for host in [
            "",
            "a,b",
            "u@a",
            "a/b",
            "a:99999",
            "a:",
            "a:+80",
            "a:8o",
            "a:1:2",
            "a b",
            "[::1",
            "[a]",
            "[::1]x",
            "::1",
            "[fe80::1%eth0]",
            "a%2eb",
            "a\\b",
            "a?b",
            &long,
        ] {
            assert_eq!(status(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), 400, "{host}");
            assert_eq!(status(format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n")), 400, "{host}");
        }
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status("GET http://a/ HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(head("GET / HTTP/1.0\r\n\r\n").get("host"), None);
    }

    #[test]
    fn case_16_methods_are_words_and_two_of_them_are_never_served() {
        assert_eq!(status("CONNECT host:443 HTTP/1.1\r\n"), 405);
        assert_eq!(status("TRACE / HTTP/1.1\r\n"), 405);
        assert_eq!(head("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").path(), "*");
        for word in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "PROPFIND"] {
            let head = head(&format!("{word} / HTTP/1.0\r\n\r\n"));
            assert_eq!(head.method().as_str(), word);
            assert_eq!(matches!(head.method(), Method::Other(_)), matches!(word, "get" | "PROPFIND"));
        }
    }

    #[test]
    fn case_18_a_head_fits_its_bounds_to_the_byte() {
        let line = |length: usize| format!("GET /{} HTTP/1.0\r\n", "a".repeat(length - 16));
        let fits = line(HTTP_REQUEST_LINE_MAX);
        assert_eq!(fits.len(), HTTP_REQUEST_LINE_MAX);
        assert_eq!(head(&(fits + "\r\n")).version(), Version::Http10);
        assert_eq!(status(line(HTTP_REQUEST_LINE_MAX + 1)), 414);
        assert_eq!(status("a".repeat(HTTP_REQUEST_LINE_MAX)), 414, "without waiting for its end");

        let whole = |length: usize| format!("GET / HTTP/1.0\r\nX: {}\r\n\r\n", "a".repeat(length - 23));
        let fits = whole(HTTP_HEAD_MAX);
        assert_eq!(fits.len(), HTTP_HEAD_MAX);
        assert!(head(&fits).get("x").is_some());
        assert_eq!(status(whole(HTTP_HEAD_MAX + 1)), 431);
        assert_eq!(status(format!("GET / HTTP/1.0\r\nX: {}", "a".repeat(33 * 1024))), 431);

        let lines = |count: usize| format!("GET / HTTP/1.0\r\n{}\r\n", "X: a\r\n".repeat(count));
        assert_eq!(head(&lines(HTTP_HEADERS_MAX)).headers().count(), HTTP_HEADERS_MAX);
        assert_eq!(status(lines(HTTP_HEADERS_MAX + 1)), 431);
        assert_eq!(status(lines(101)), 431);
    }

    #[test]
    fn case_19_there_is_one_expectation() {
        assert!(head(&with("Expect: 100-Continue\r\nContent-Length: 1")).expects_continue());
        assert!(!head(&with("Expect: 100-continue")).expects_continue(), "there is no body to wait for");
        assert!(!head(&with("Content-Length: 1")).expects_continue());
        assert_eq!(status(with("Expect: 200-ok")), 417);
        assert_eq!(status(with("Expect: 100-continue\r\nExpect: x")), 417);
        assert!(!head("POST / HTTP/1.0\r\nExpect: x\r\nContent-Length: 1\r\n\r\n").expects_continue());
    }

    #[test]
    fn case_27_an_upgrade_names_what_to() {
        assert_eq!(status(with("Connection: keep-alive, Upgrade\r\nContent-Length: 5")), 400);
        assert!(head(&with("Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5")).keeps_alive());
    }

    #[test]
    fn a_connection_is_kept_under_1_1_unless_the_client_closes_it() {
        assert!(head(&with("Connection: keep-alive")).keeps_alive());
        assert!(!head(&with("Connection: foo , Close")).keeps_alive());
        assert!(!head(&with("Connection: foo\r\nConnection: close")).keeps_alive());
        assert!(!head("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keeps_alive());
    }

    const SEEDS: [&str; 5] = [
        "GET /a?b=c HTTP/1.1\r\nHost: a:80\r\nAccept: */*\r\nConnection: close, upgrade\r\nUpgrade: x\r\n\r\nGET / HT",
        "POST /a HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
        "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "\r\nOPTIONS * HTTP/1.0\r\nX: 1\r\nY:\t2\r\n\r\n",
        "GET http://b/ HTTP/1.1\r\nHost: a\r\nCookie: a=b\r\n\r\n",
    ];

    /// Seeds with a few bytes changed: half near HTTP, half far from it.
    fn nearly_http(random: &mut Xorshift) -> Vec<u8> {
        const NASTY: &[u8] = b"\r\n\r\n \t:;,/\0\x7f\xc3\xb1\xff#?*0159aHx";
        let mut bytes = SEEDS[random.below(SEEDS.len())].as_bytes().to_vec();
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len());
            let byte = NASTY[random.below(NASTY.len())];
            match random.below(4) {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes
    }

    #[test]
    fn any_split_of_the_bytes_parses_the_same() {
        let mut random = Xorshift::new(1);
        let mut outcomes = [0; 3];
        for _ in 0..4_000 {
            let bytes = nearly_http(&mut random);
            let whole = parse(&bytes);
            outcomes[match whole {
                Parsed::Partial => 0,
                Parsed::Complete(..) => 1,
                Parsed::Refused(_) => 2,
            }] += 1;
            let prefixes = (0..=bytes.len()).map(|length| parse(&bytes[..length]));
            // Once decided, every longer prefix says the same; a split is some of the prefixes.
            for prefix in prefixes.skip_while(|parsed| *parsed == Parsed::Partial) {
                assert_eq!(prefix, whole, "{:?}", String::from_utf8_lossy(&bytes));
            }
        }
        assert!(outcomes.iter().all(|&count| count > 300), "{outcomes:?}");
    }

    #[test]
    fn what_is_accepted_reads_the_same_to_another_parser() {
        let mut random = Xorshift::new(2);
        let mut accepted = 0;
        for _ in 0..20_000 {
            let bytes = nearly_http(&mut random);
            let Parsed::Complete(head, length) = parse(&bytes) else { continue };
            accepted += 1;
            let mut fields = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
            let mut other = httparse::Request::new(&mut fields);
            assert_eq!(other.parse(&bytes), Ok(httparse::Status::Complete(length)));
            assert_eq!(other.method, Some(head.method().as_str()));
            assert_eq!(other.version, Some(u8::from(head.version() == Version::Http11)));
            if other.path == Some(head.target()) {
                let ours: Vec<_> = head.headers().map(|(name, value)| (name, value.as_bytes())).collect();
                let theirs: Vec<_> = other.headers.iter().map(|field| (field.name, field.value)).collect();
                assert_eq!(ours, theirs);
            } else {
                // An absolute target: what is left of it is its end, with a slash where it had no path.
                assert!(other.path.is_some_and(|path| path.ends_with(&head.target()[1..])));
            }
        }
        assert!(accepted > 2_000, "{accepted}");
    }
}
