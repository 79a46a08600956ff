//! One exchange: the request goes to the app as it was understood, and the answer comes back as it was understood.
//!
//! Hop-by-hop headers stay where they belong (RFC 9110 §7.6.1), what a client says about itself is replaced by what the socket shows.
//! Runs on the client's connection thread.

use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::tunnel;
use super::upstream::{Error, Pool, Upstream};
use crate::domain::Sum;
use crate::http::answer::{Answer, Content};
use crate::http::{Framing, Head, HeaderName, HeaderValue, Method, Refusal, Request, Response, StreamWriter};
use crate::limits;
use crate::runtime::Pass;

/// What was asked, beside the head: who asks, and by which way.
pub struct Origin {
    /// The client's address, or its own proxy's.
    pub peer: IpAddr,
    /// Whether that proxy's word about the client is taken.
    pub is_trusted: bool,
    /// Whether what it asks keeps the app awake.
    pub is_person: bool,
    /// The scheme of our own address.
    pub scheme: &'static str,
}

/// Why a request did not get to the app, or its answer not back.
#[derive(Debug)]
pub enum Failed {
    /// Not the app's fault: what the client sent.
    Client(Refusal),
    /// The app's.
    App(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::App(error)
    }
}

/// Passes a request to the app and gives its answer, whose body comes while it is written.
///
/// # Errors
/// As [`Failed`] says; nothing was answered then.
///
/// # Blocks
/// On the client's body and the app, within the pool's patience for the beginning of the answer.
pub fn forward(
    request: &mut Request<'_>,
    mut pass: Pass,
    pool: &Arc<Pool>,
    origin: &Origin,
) -> Result<Response, Failed> {
    let head = head(request.head(), origin);
    if origin.is_person {
        pass.counts();
    }
    let to_head = *request.head().method() == Method::Head;
    let wants_upgrade = upgrade(request.head()).is_some();
    let has_body = request.has_body();
    // RFC 9110 §9.2.2; without a body it can be said twice.
    let may_repeat =
        !has_body && matches!(request.head().method(), Method::Get | Method::Head | Method::Options);
    let max_idle = if has_body || !may_repeat { limits::PROXY_IDLE_FRESH } else { limits::PROXY_IDLE_MAX };
    let mut upstream = match pool.take(pass.to, max_idle).filter(|_| !wants_upgrade) {
        Some(kept) => kept,
        None => Upstream::connect(pass.to)?,
    };
    let asked = ask(request, &mut upstream, &head, &pass, pool.patience.answer);
    let (answer, took) = match asked {
        // It was about to close the connection when we took it.
        Err(Failed::App(Error::Broken(_)))
            if upstream.is_used && may_repeat && upstream.early().is_empty() =>
        {
            upstream = Upstream::connect(pass.to)?;
            ask(request, &mut upstream, &head, &pass, pool.patience.answer)?
        }
        asked => asked?,
    };
    pass.is_answered();
    let switches = answer.status() == 101;
    if switches && !wants_upgrade {
        return Err(Error::Malformed("it switches protocols unasked").into());
    }
    pass.meter().count(answer.status(), took, SystemTime::now());
    if switches {
        pass.becomes_tunnel();
        return Ok(switch(&answer, upstream, pass));
    }
    Ok(reply(&answer, upstream, pass, Arc::clone(pool), to_head))
}

/// Sends the request and waits for the head of the answer; also says for how long.
fn ask(
    request: &mut Request<'_>,
    upstream: &mut Upstream,
    head: &[u8],
    pass: &Pass,
    within: Duration,
) -> Result<(Answer, Duration), Failed> {
    upstream.send(head)?;
    if request.has_body() {
        send_body(request, upstream, pass)?;
    }
    let sent = Instant::now();
    Ok((upstream.answer(within, request.socket())?, sent.elapsed()))
}

/// Passes the body on until its end, or until the app answers: then it does not want the rest.
fn send_body(request: &mut Request<'_>, upstream: &mut Upstream, pass: &Pass) -> Result<(), Failed> {
    let chunked = request.head().framing() == Framing::Chunked;
    let mut buffer = [0; limits::PROXY_COPY_BYTES];
    loop {
        let count = request.read(&mut buffer).map_err(Failed::Client)?;
        pass.meter().add(Sum::BYTES_IN, count as u64);
        if count == 0 {
            return if chunked { Ok(upstream.send(b"0\r\n\r\n")?) } else { Ok(()) };
        }
        let sent = if chunked {
            let mut chunk = format!("{count:x}\r\n").into_bytes();
            chunk.extend_from_slice(&buffer[..count]);
            chunk.extend_from_slice(b"\r\n");
            upstream.send(&chunk)
        } else {
            upstream.send(&buffer[..count])
        };
        match sent {
            // What it said before it hung up is still to be read.
            Err(Error::Broken(_)) => return Ok(()),
            sent => sent?,
        }
        if upstream.has_news() {
            return Ok(());
        }
    }
}

/// Headers that end at each hop, whatever `Connection` says.
const HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What clients and proxies say about where a request comes from.
const FORWARDED: [&str; 6] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-real-ip",
];

fn is_hop(name: &str) -> bool {
    HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop))
}

/// Also with an underscore or a dot for a hyphen: some apps read those as the same.
fn is_forwarded(name: &str) -> bool {
    let plain: String =
        name.chars().map(|c| if matches!(c, '_' | '.') { '-' } else { c.to_ascii_lowercase() }).collect();
    FORWARDED.contains(&plain.as_str())
}

/// The protocol that a request wants to go on in.
fn upgrade(head: &Head) -> Option<&str> {
    let asks = *head.method() == Method::Get
        && head.framing() == Framing::Empty
        && head.lists("connection", "upgrade");
    head.get("upgrade").filter(|_| asks)
}

/// The request's head for the app.
fn head(head: &Head, origin: &Origin) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let mut line = |name: &str, value: &str| {
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    };
    let host = head.get("host").unwrap_or_default();
    line("Host", host);
    let through_us = |name: &str| head.lists("connection", name);
    for (name, value) in head.headers() {
        let ours = ["host", "content-length", "expect"].iter().any(|ours| name.eq_ignore_ascii_case(ours));
        if !ours && !is_hop(name) && !is_forwarded(name) && !through_us(name) {
            line(name, value);
        }
    }
    let told = |name: &str| head.get(name).filter(|_| origin.is_trusted);
    let peer = origin.peer.to_canonical().to_string();
    let before: Vec<&str> =
        if origin.is_trusted { head.all("x-forwarded-for").collect() } else { Vec::new() };
    line("X-Forwarded-For", &before.into_iter().chain([peer.as_str()]).collect::<Vec<_>>().join(", "));
    line("X-Forwarded-Proto", told("x-forwarded-proto").unwrap_or(origin.scheme));
    line("X-Forwarded-Host", told("x-forwarded-host").unwrap_or(host));
    line("X-Real-IP", told("x-real-ip").unwrap_or(&peer));
    line("Via", &via(head));
    match head.framing() {
        Framing::Empty if matches!(head.method(), Method::Post | Method::Put | Method::Patch) => {
            line("Content-Length", "0");
        }
        Framing::Empty => {}
        Framing::Length(length) => line("Content-Length", &length.to_string()),
        Framing::Chunked => line("Transfer-Encoding", "chunked"),
    }
    if let Some(protocol) = upgrade(head) {
        line("Connection", "Upgrade");
        line("Upgrade", protocol);
    }
    let mut request = format!("{} {} HTTP/1.1\r\n", head.method(), head.target()).into_bytes();
    request.extend_from_slice(&out);
    request.extend_from_slice(b"\r\n");
    request
}

/// The name under which muelle enters itself into `Via` (RFC 9110 §7.6.3).
pub const PSEUDONYM: &str = "muelle";

fn via(head: &Head) -> String {
    head.all("via").chain([concat!("1.1 ", "muelle")]).collect::<Vec<_>>().join(", ")
}

/// How often a request has passed through a muelle.
#[must_use]
pub fn passages(head: &Head) -> usize {
    let entries = head.all("via").flat_map(|list| list.split(','));
    entries.filter(|entry| entry.split_ascii_whitespace().nth(1) == Some(PSEUDONYM)).count()
}

/// The answer's head, without what ends at this hop.
fn head_of(answer: &Answer, response: Response) -> Response {
    let mut response = response;
    for (name, value) in answer.headers() {
        if is_hop(name) || name.eq_ignore_ascii_case("content-length") || answer.lists("connection", name) {
            continue;
        }
        let value =
            if name.eq_ignore_ascii_case("set-cookie") { without_domain(value) } else { value.to_vec() };
        if let (Ok(name), Ok(value)) = (HeaderName::new(name), HeaderValue::new(value)) {
            response = response.header(name, value);
        }
    }
    response
}

/// A cookie for this host only: an app must not set one for its neighbours, the dashboard among them (RFC 6265 §5.3).
fn without_domain(cookie: &[u8]) -> Vec<u8> {
    let parts = cookie.split(|byte| *byte == b';').enumerate().filter(|(at, part)| {
        let name = part.split(|byte| *byte == b'=').next().unwrap_or_default();
        *at == 0 || !name.trim_ascii().eq_ignore_ascii_case(b"domain")
    });
    parts.map(|(_, part)| part).collect::<Vec<_>>().join(&b';')
}

fn reply(answer: &Answer, mut upstream: Upstream, pass: Pass, pool: Arc<Pool>, to_head: bool) -> Response {
    let (status, keeps) = (answer.status(), answer.keeps_alive());
    let mut content = answer.content(to_head);
    let length = answer.length();
    if matches!(content, Content::None) {
        let empty = match length {
            Some(length) if to_head => Response::sized(status, length, |_| Ok(())),
            None if to_head && status != 204 && status != 304 => Response::stream(status, |_| Ok(())),
            _ => Response::empty(status),
        };
        let response = head_of(answer, empty);
        if keeps {
            pool.keep(upstream);
        }
        return response;
    }
    // A small answer has come as a whole: its head and body leave in one packet.
    if let Some(body) = upstream.whole(&content) {
        pass.meter().add(Sum::BYTES_OUT, body.len() as u64);
        if keeps {
            pool.keep(upstream);
        }
        return head_of(answer, Response::bytes(status, body));
    }
    let write = move |out: &mut StreamWriter<'_>| {
        copy(&mut upstream, &mut content, out, &pass, pool.patience.body)?;
        if keeps && !matches!(content, Content::UntilClose) {
            pool.keep(upstream);
        }
        Ok(())
    };
    let response = match length {
        Some(length) => Response::sized(status, length, write),
        None => Response::stream(status, write),
    };
    head_of(answer, response)
}

fn copy(
    upstream: &mut Upstream,
    content: &mut Content,
    out: &mut StreamWriter<'_>,
    pass: &Pass,
    idle: Duration,
) -> io::Result<()> {
    let mut buffer = [0; limits::PROXY_COPY_BYTES];
    loop {
        match upstream.body(content, &mut buffer, idle, out.socket())? {
            0 => return Ok(()),
            count => {
                out.write_all(&buffer[..count])?;
                pass.meter().add(Sum::BYTES_OUT, count as u64);
            }
        }
    }
}

/// The two ends become a tunnel.
fn switch(answer: &Answer, upstream: Upstream, pass: Pass) -> Response {
    let protocol = answer.headers().find(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
    let protocol = protocol.and_then(|(_, value)| HeaderValue::new(value.to_vec()).ok());
    let response = Response::upgrade(move |client, early| {
        let count = |up: u64, down: u64| {
            let meter = pass.meter();
            meter.add(Sum::BYTES_IN, up);
            meter.add(Sum::BYTES_OUT, down);
        };
        let ended = tunnel::join(
            client,
            upstream.socket(),
            (early, upstream.early()),
            limits::PROXY_TUNNEL_IDLE,
            &mut { count },
        );
        if let Err(error) = ended {
            log::debug!("a tunnel ended: {error}");
        }
    });
    let response = head_of(answer, response);
    match protocol {
        Some(protocol) => response.header("Upgrade", protocol),
        None => response,
    }
}
