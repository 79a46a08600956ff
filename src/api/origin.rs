//! Whose pages may call, and under which names this server answers: CORS and the guard against DNS rebinding.

use std::net::IpAddr;

use crate::http::{Head, HeaderValue, Response};

/// Methods that pages of other origins may use.
const METHODS: &str = "GET, POST, PATCH, PUT, DELETE";
/// Headers that they may send.
const HEADERS: &str = "authorization, content-type, last-event-id";
/// How long a browser may remember a preflight; browsers themselves cap it at 2 h or less.
const MAX_AGE_S: u64 = 7200;

/// The allowed origins and host names.
#[derive(Clone, Debug)]
pub struct Origins {
    origins: Vec<String>,
    hosts: Vec<String>,
}

impl Origins {
    /// `origins` as browsers write them (`http://localhost:5173`); `hosts` beside `localhost` and IP addresses, in lower case.
    #[must_use]
    pub fn new(origins: Vec<String>, hosts: Vec<String>) -> Origins {
        Origins { origins, hosts }
    }

    /// Whether the request was sent to a name of ours (RFC 9110 §7.4). A request without `Host` (HTTP/1.0) comes from no browser.
    #[must_use]
    pub fn knows_host(&self, head: &Head) -> bool {
        head.get("host").is_none_or(|host| self.is_ours(without_port(host)))
    }

    /// Whether a host name or address is one of ours.
    #[must_use]
    pub fn is_ours(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        literal || host == "localhost" || self.hosts.contains(&host)
    }

    /// Whether pages of this host may call.
    #[must_use]
    pub fn may_call(&self, host: &str) -> bool {
        let hosts = self.origins.iter().filter_map(|origin| origin.split_once("://"));
        hosts.map(|(_, authority)| without_port(authority)).any(|allowed| allowed == host)
    }

    /// The origin of the calling page, if it may call: one of the list, or this server's own.
    fn allowed<'h>(&self, head: &'h Head) -> Option<&'h str> {
        let origin = head.get("origin")?;
        let own = || {
            let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            authority.is_some_and(|authority| head.get("host") == Some(authority)) && self.knows_host(head)
        };
        (self.origins.iter().any(|allowed| allowed == origin) || own()).then_some(origin)
    }

    /// Whether a page calls that may not.
    #[must_use]
    pub fn is_foreign(&self, head: &Head) -> bool {
        head.get("origin").is_some() && self.allowed(head).is_none()
    }

    /// Adds what lets an allowed page read the answer.
    #[must_use]
    pub fn mark(&self, response: Response, head: Option<&Head>) -> Response {
        let response = response.header("Vary", "Origin");
        match head.and_then(|head| self.allowed(head)).map(HeaderValue::new) {
            Some(Ok(origin)) => response
                .header("Access-Control-Allow-Origin", origin)
                .header("Access-Control-Expose-Headers", "retry-after"),
            _ => response,
        }
    }
}

/// The answer to a preflight, before [`Origins::mark`]: a browser heeds it only together with the origin.
#[must_use]
pub fn preflight() -> Response {
    Response::empty(204)
        .header("Access-Control-Allow-Methods", METHODS)
        .header("Access-Control-Allow-Headers", HEADERS)
        .header("Access-Control-Max-Age", HeaderValue::from(MAX_AGE_S))
        .header("Allow", "GET, HEAD, POST, PATCH, PUT, DELETE, OPTIONS")
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Parsed, parse};

    fn head(host: &str, origin: Option<&str>) -> Head {
        let origin = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
        let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{origin}\r\n");
        match parse(bytes.as_bytes()) {
            Parsed::Complete(head, _) => head,
            other => panic!("{other:?}"),
        }
    }

    fn origins() -> Origins {
        Origins::new(vec!["http://localhost:5173".into()], vec!["box".into(), "box.local".into()])
    }

    #[test]
    fn case_59_only_names_of_ours_are_answered() {
        for host in [
            "localhost",
            "localhost:3000",
            "LOCALHOST.",
            "127.0.0.1:3000",
            "[::1]:3000",
            "[::1]",
            "192.168.1.7",
            "box",
            "box.local:3000",
        ] {
            assert!(origins().knows_host(&head(host, None)), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:3000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "notbox",
        ] {
            assert!(!origins().knows_host(&head(host, None)), "{host}");
        }
    }

    #[test]
    fn case_58_a_listed_origin_or_our_own_may_call_and_no_other() {
        for (host, origin, foreign) in [
            ("localhost:3000", Some("http://localhost:5173"), false),
            ("box:3000", Some("http://box:3000"), false),
            ("localhost:3000", Some("http://localhost:5174"), true),
            ("localhost:3000", Some("http://evil.example"), true),
            ("evil.example", Some("http://evil.example"), true),
            ("localhost:3000", Some("null"), true),
            ("localhost:3000", Some("http://localhost:5173.evil.example"), true),
            ("localhost:3000", None, false),
        ] {
            assert_eq!(origins().is_foreign(&head(host, origin)), foreign, "{origin:?} to {host}");
        }
    }
}
