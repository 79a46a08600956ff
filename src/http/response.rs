//! What a handler gives back, and how it is written: heads that cannot be split, bodies with a length, streams in chunks.
//!
//! Names and values are checked when they are made (RFC 9110 §5.5), so nothing a stranger sent can end a header line. The framing
//! headers belong to the connection. Writes on the connection's thread, within the write deadline. Must not know requests.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::sync::Arc;

use super::Shutdown;
use super::connection::Link;
use super::head::{Version, is_control, is_token};
use crate::limits::HTTP_STREAM_SEND_BUFFER;

/// A name or value that would not stay on its header line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a header name or value")]
pub struct InvalidHeader;

/// A header's name: a token (RFC 9110 §5.6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderName(Cow<'static, str>);

impl HeaderName {
    /// Takes a name that is not known before.
    ///
    /// # Errors
    /// When it is not a token.
    pub fn new(name: impl Into<String>) -> Result<HeaderName, InvalidHeader> {
        let name = name.into();
        if is_token(&name) { Ok(HeaderName(Cow::Owned(name))) } else { Err(InvalidHeader) }
    }
}

/// Of a name in the source.
///
/// # Panics
/// When it is not a token.
impl From<&'static str> for HeaderName {
    fn from(name: &'static str) -> HeaderName {
        assert!(is_token(name), "{name:?} is not a header name");
        HeaderName(Cow::Borrowed(name))
    }
}

/// A header's value: bytes without CR, LF, NUL and all other control bytes but the tab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderValue(Cow<'static, [u8]>);

impl HeaderValue {
    /// Takes a value that is not known before. It need not be UTF-8: apps behind the proxy send Latin-1 file names.
    ///
    /// # Errors
    /// When it holds a control byte.
    pub fn new(value: impl Into<Vec<u8>>) -> Result<HeaderValue, InvalidHeader> {
        let value = value.into();
        if value.iter().any(|&byte| is_control(byte)) {
            Err(InvalidHeader)
        } else {
            Ok(HeaderValue(value.into()))
        }
    }
}

/// Of a value in the source.
///
/// # Panics
/// When it holds a control byte.
impl From<&'static str> for HeaderValue {
    fn from(value: &'static str) -> HeaderValue {
        assert!(!value.bytes().any(is_control), "{value:?} is not a header value");
        HeaderValue(Cow::Borrowed(value.as_bytes()))
    }
}

/// A number, such as a count of seconds.
impl From<u64> for HeaderValue {
    fn from(number: u64) -> HeaderValue {
        HeaderValue(number.to_string().into_bytes().into())
    }
}

/// A body whose length is known.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// Made for this answer.
    Owned(Vec<u8>),
    /// The same for many answers.
    Shared(Arc<[u8]>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Owned(bytes) => bytes,
            Bytes::Shared(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes::Owned(bytes)
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Bytes {
        Bytes::Owned(text.into_bytes())
    }
}

impl From<Arc<[u8]>> for Bytes {
    fn from(bytes: Arc<[u8]>) -> Bytes {
        Bytes::Shared(bytes)
    }
}

type Stream = Box<dyn FnOnce(&mut StreamWriter<'_>) -> io::Result<()> + Send>;
type Tunnel = Box<dyn FnOnce(&TcpStream, &[u8]) + Send>;

enum Body {
    Bytes(Bytes),
    /// With its length, where that is known before.
    Stream(Stream, Option<u64>),
    Tunnel(Tunnel),
}

/// An answer: status, headers and a body.
pub struct Response {
    status: u16,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Body,
}

impl Response {
    /// An answer with a body of known length; with a status of 204 or 304 the body is not sent.
    ///
    /// # Panics
    /// When `status` is not a final one, 200 to 599.
    #[must_use]
    pub fn bytes(status: u16, body: impl Into<Bytes>) -> Response {
        Response::new(status, Body::Bytes(body.into()))
    }

    /// An answer without a body.
    ///
    /// # Panics
    /// When `status` is not a final one, 200 to 599.
    #[must_use]
    pub fn empty(status: u16) -> Response {
        Response::bytes(status, Vec::new())
    }

    /// An answer whose body `write` produces on the connection's thread once the head is out; it may block there. Not called for
    /// a HEAD request. When it fails or panics the connection breaks off, so that nobody takes the body for complete.
    ///
    /// # Panics
    /// When `status` is not a final one, 200 to 599.
    #[must_use]
    pub fn stream(
        status: u16,
        write: impl FnOnce(&mut StreamWriter<'_>) -> io::Result<()> + Send + 'static,
    ) -> Response {
        Response::new(status, Body::Stream(Box::new(write), None))
    }

    /// The same with a length that is known before: `write` writes exactly so many bytes, or the connection breaks off.
    ///
    /// # Panics
    /// When `status` is not a final one, 200 to 599.
    #[must_use]
    pub fn sized(
        status: u16,
        length: u64,
        write: impl FnOnce(&mut StreamWriter<'_>) -> io::Result<()> + Send + 'static,
    ) -> Response {
        Response::new(status, Body::Stream(Box::new(write), Some(length)))
    }

    /// `101 Switching Protocols`: behind the head, `run` gets the socket and what has arrived on it already. The connection ends with it.
    /// Its deadlines are `run`'s own matter from then on.
    #[must_use]
    pub fn upgrade(run: impl FnOnce(&TcpStream, &[u8]) + Send + 'static) -> Response {
        Response { status: 101, headers: Vec::new(), body: Body::Tunnel(Box::new(run)) }
    }

    /// Whether this is the end of HTTP on the connection.
    pub(super) fn is_upgrade(&self) -> bool {
        matches!(self.body, Body::Tunnel(_))
    }

    /// Adds a header. Connection, Content-Length and Transfer-Encoding are dropped: the connection sets them.
    #[must_use]
    pub fn header(mut self, name: impl Into<HeaderName>, value: impl Into<HeaderValue>) -> Response {
        let name = name.into();
        let is_ours = ["connection", "content-length", "transfer-encoding"];
        if !is_ours.iter().any(|ours| name.0.eq_ignore_ascii_case(ours)) {
            self.headers.push((name, value.into()));
        }
        self
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Takes a stream's place, where none can run.
    pub(super) fn without_stream(mut self) -> Response {
        if matches!(self.body, Body::Stream(..) | Body::Tunnel(_)) {
            self.body = Body::Bytes(Bytes::Owned(Vec::new()));
        }
        self
    }

    fn new(status: u16, body: Body) -> Response {
        assert!((200..=599).contains(&status), "{status} is not the status of a final answer");
        Response { status, headers: Vec::new(), body }
    }

    /// Writes the answer; returns when the socket has all of it.
    ///
    /// # Errors
    /// When the peer does not take it, or the stream fails; part of it may be out.
    pub(super) fn send(self, link: &Arc<Link>, terms: &Terms, early: &[u8]) -> io::Result<()> {
        let head = self.head(terms);
        // RFC 9110 §9.3.2, §15.3.5, §15.4.5.
        let bodiless = terms.head_only || matches!(self.status, 204 | 304);
        match self.body {
            _ if bodiless => link.write(&[&head]),
            Body::Bytes(bytes) => link.write(&[&head, &bytes]),
            Body::Stream(write, length) => {
                link.write(&[&head])?;
                let chunked = length.is_none() && terms.version == Version::Http11;
                let mut writer = StreamWriter { link, chunked, left: length };
                write(&mut writer)?;
                match writer.left {
                    Some(1..) => Err(io::ErrorKind::UnexpectedEof.into()),
                    None if chunked => link.write(&[b"0\r\n\r\n"]),
                    _ => Ok(()),
                }
            }
            Body::Tunnel(run) => {
                link.write(&[&head])?;
                run(link.socket(), early);
                Ok(())
            }
        }
    }

    fn head(&self, terms: &Terms) -> Vec<u8> {
        let mut head = Vec::with_capacity(512);
        let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| head.extend_from_slice(part));
        // RFC 9112 §2.6: our own version, whatever the client's.
        put(&[
            b"HTTP/1.1 ",
            self.status.to_string().as_bytes(),
            b" ",
            reason(self.status).as_bytes(),
            b"\r\n",
        ]);
        for (name, value) in &self.headers {
            put(&[name.0.as_bytes(), b": ", &value.0, b"\r\n"]);
        }
        match &self.body {
            // RFC 9110 §8.6: neither has a body, so a length would speak of another answer's.
            _ if matches!(self.status, 204 | 304) => {}
            Body::Bytes(bytes) => put(&[b"Content-Length: ", bytes.len().to_string().as_bytes(), b"\r\n"]),
            Body::Stream(_, Some(length)) => {
                put(&[b"Content-Length: ", length.to_string().as_bytes(), b"\r\n"]);
            }
            Body::Stream(_, None) if terms.version == Version::Http11 => {
                put(&[b"Transfer-Encoding: chunked\r\n"]);
            }
            // RFC 9112 §6.1: never to a 1.0 client; the close ends the body.
            Body::Stream(_, None) => {}
            Body::Tunnel(_) => {
                put(&[b"Connection: Upgrade\r\n\r\n"]);
                return head;
            }
        }
        put(&[b"Connection: ", if terms.keep { b"keep-alive" } else { b"close" }, b"\r\n\r\n"]);
        head
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({})", self.status)
    }
}

/// What an answer owes to its request.
pub(super) struct Terms {
    pub(super) version: Version,
    /// HEAD: everything but the body.
    pub(super) head_only: bool,
    /// Whether another request may follow. False under 1.0, where a stream ends with its connection.
    pub(super) keep: bool,
}

/// The body of a stream on its way out. Each write is one chunk, sent at once; it blocks until the socket took it, at most for the
/// write deadline, after which the connection is lost.
#[derive(Debug)]
pub struct StreamWriter<'c> {
    link: &'c Arc<Link>,
    chunked: bool,
    /// Bytes still owed, where the head has named a length.
    left: Option<u64>,
}

impl StreamWriter<'_> {
    /// A handle with which another thread ends this stream, even in the middle of a write.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        Shutdown::of(self.link)
    }

    /// Whether the peer has closed its side or vanished; never blocks. For a quiet stream, which would not notice.
    #[must_use]
    pub fn peer_closed(&self) -> bool {
        self.link.peer_closed()
    }

    /// The connection, to wait for its end; nothing is to be read from it or written to it.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        self.link.socket()
    }

    /// Writes all the parts as one chunk, without gathering them first.
    ///
    /// # Errors
    /// When the peer is gone or does not take it within the write deadline.
    ///
    /// # Blocks
    /// Until the socket took it.
    pub fn write_parts(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length == 0 {
            return Ok(()); // An empty chunk would end the body.
        }
        if let Some(left) = &mut self.left {
            // More than was named would be read as the next answer.
            *left = left.checked_sub(length as u64).ok_or(io::ErrorKind::InvalidData)?;
        }
        if !self.chunked {
            return self.link.write(parts);
        }
        let size = format!("{length:x}\r\n");
        let mut chunk = Vec::with_capacity(parts.len() + 2);
        chunk.push(size.as_bytes());
        chunk.extend_from_slice(parts);
        chunk.push(b"\r\n");
        self.link.write(&chunk)
    }

    /// Bounds what the kernel holds for a peer that does not read ([`HTTP_STREAM_SEND_BUFFER`]).
    ///
    /// # Errors
    /// Those of the socket.
    pub fn shrink_send_buffer(&self) -> io::Result<()> {
        socket2::SockRef::from(self.link.socket()).set_send_buffer_size(HTTP_STREAM_SEND_BUFFER)
    }
}

impl Write for StreamWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_parts(&[bytes])?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// RFC 9110 §15. Clients ignore it, people read it; a status without one is fine (RFC 9112 §4).
fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_28_a_header_line_cannot_be_ended_by_what_a_client_sent() {
        for bad in ["a\r\nSet-Cookie: b", "a\rb", "a\nb", "a\0b", "a\x1bb", "a\x7fb"] {
            assert_eq!(HeaderValue::new(bad), Err(InvalidHeader), "{bad:?}");
            assert_eq!(HeaderName::new(bad), Err(InvalidHeader), "{bad:?}");
        }
        for bad in ["", "a b", "a:", "\u{f1}"] {
            assert_eq!(HeaderName::new(bad), Err(InvalidHeader), "{bad:?}");
        }
        let name = HeaderName::new("X-Request-Id").unwrap();
        let value = HeaderValue::new(b"caf\xe9 \t1".to_vec()).unwrap();
        let response = Response::empty(200).header(name, value).header("X-Count", 7);
        let head = response.head(&Terms { version: Version::Http11, head_only: false, keep: true });
        assert_eq!(
            head,
            b"HTTP/1.1 200 OK\r\nX-Request-Id: caf\xe9 \t1\r\nX-Count: 7\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"
        );
    }

    #[test]
    fn a_stream_can_have_a_small_send_buffer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let link = Arc::new(Link::new(socket, std::time::Duration::from_secs(1)));
        let size = || socket2::SockRef::from(link.socket()).send_buffer_size().unwrap();
        let before = size();
        StreamWriter { link: &link, chunked: true, left: None }.shrink_send_buffer().unwrap();
        // Linux doubles it, for its own bookkeeping.
        assert_eq!(size(), 2 * HTTP_STREAM_SEND_BUFFER);
        assert!(before > size());
    }

    #[test]
    #[should_panic(expected = "is not a header value")]
    fn a_value_in_the_source_is_checked_too() {
        drop(HeaderValue::from("a\r\nb"));
    }

    #[test]
    #[should_panic(expected = "is not the status of a final answer")]
    fn an_interim_status_is_no_answer() {
        drop(Response::empty(101));
    }

    #[test]
    fn the_framing_headers_are_the_connections() {
        let response = Response::bytes(200, "abc".to_owned())
            .header("content-length", "4")
            .header("Transfer-Encoding", "chunked")
            .header("Connection", "close");
        let head = response.head(&Terms { version: Version::Http11, head_only: false, keep: true });
        assert_eq!(head, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n");
    }
}
