//! A request as a route's handler gets it: owned, so that it can go to a pool.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::failure::Failure;
use super::fields::Fields;
use crate::domain::{ProjectId, SessionId, User};
use crate::http::{Framing, Head, Request, query_param};
use crate::limits;

/// Who asks.
#[derive(Clone)]
pub struct Caller {
    /// The user.
    pub user: Arc<User>,
    /// The session of the token.
    pub session: SessionId,
}

/// One request, read and checked as far as its route needs.
pub struct Call {
    /// The project in the path; `None` where the route has none.
    pub project: Option<ProjectId>,
    /// The number in the path; `None` where the route has none.
    pub number: Option<u32>,
    /// The caller; `None` where the route is open.
    pub caller: Option<Caller>,
    /// The query, as it came.
    pub query: Option<String>,
    /// Where a stream goes on that was interrupted: `Last-Event-ID`.
    pub last_event_id: Option<String>,
    /// What a repository's host says of its message.
    pub hook: Hook,
    /// The body.
    pub body: Vec<u8>,
    /// What it holds of the memory for bodies.
    pub share: Option<Share>,
    /// The token that came along, of whatever kind.
    pub token: Option<String>,
    /// Where it comes from, behind trusted proxies.
    pub address: IpAddr,
    /// The peer is this machine and no proxy stands between.
    pub is_local: bool,
    /// Names the request in the log.
    pub id: String,
}

/// The headers of a message from a repository's host; GitHub's names, and Gitea's and Forgejo's for the same.
#[derive(Default)]
pub struct Hook {
    /// The signature: `sha256=` and 64 hex digits.
    pub signature: Option<String>,
    /// What happened.
    pub event: Option<String>,
    /// Names the message.
    pub delivery: Option<String>,
    /// How the body is written.
    pub content_type: Option<String>,
}

impl Hook {
    /// Reads the headers.
    #[must_use]
    pub fn of(head: &Head) -> Hook {
        let any = |names: &[&str]| names.iter().find_map(|name| head.get(name)).map(str::to_owned);
        Hook {
            signature: any(&["x-hub-signature-256"]),
            event: any(&["x-github-event", "x-gitea-event", "x-forgejo-event"]),
            delivery: any(&["x-github-delivery", "x-gitea-delivery", "x-forgejo-delivery"]),
            content_type: any(&["content-type"]),
        }
    }
}

impl Call {
    /// The number in the path.
    ///
    /// # Errors
    /// 404 when it is none.
    pub fn number(&self) -> Result<u32, Failure> {
        self.number.ok_or_else(Failure::no_deployment)
    }

    /// The caller of a route that needs one.
    ///
    /// # Errors
    /// 401 without one.
    pub fn caller(&self) -> Result<&Caller, Failure> {
        self.caller.as_ref().ok_or_else(Failure::unauthorized)
    }

    /// The project in the path.
    ///
    /// # Errors
    /// 404 when no project can have that id.
    pub fn project(&self) -> Result<ProjectId, Failure> {
        self.project.ok_or_else(Failure::no_project)
    }

    /// A parameter of the query, decoded.
    pub fn param(&self, name: &str) -> Option<String> {
        query_param(self.query.as_deref()?, name)
    }

    /// The fields of the body.
    ///
    /// # Errors
    /// See [`Fields::parse`].
    pub fn fields(&self, known: &[&str]) -> Result<Fields, Failure> {
        Fields::parse(&self.body, known)
    }

    /// Refuses a body with anything in it; `{}` and none are the same.
    ///
    /// # Errors
    /// See [`Fields::parse`].
    pub fn nothing(&self) -> Result<(), Failure> {
        if self.body.is_empty() { Ok(()) } else { self.fields(&[]).map(drop) }
    }
}

/// Reads a body of whatever kind.
///
/// # Errors
/// 415 for an encoded one, 503 while many large ones are under way, and those of the front.
///
/// # Blocks
/// On the client, within the front's deadlines.
pub fn read_raw(request: &mut Request<'_>, budget: &Budget) -> Result<(Vec<u8>, Option<Share>), Failure> {
    let head = request.head();
    if head.get("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(Failure::new(415, "UnsupportedMediaType", "The body must not be encoded"));
    }
    let announced = match head.framing() {
        Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX).min(limits::API_BODY_MAX),
        Framing::Empty => 0,
        Framing::Chunked => limits::API_BODY_MAX,
    };
    let share = budget.take(announced).ok_or_else(Failure::busy)?;
    Ok((request.body(limits::API_BODY_MAX)?, Some(share)))
}

/// Reads the body of a request, JSON or none.
///
/// # Errors
/// 415 for another type or an encoding, 503 while many large ones are under way, and those of the front.
///
/// # Blocks
/// On the client, within the front's deadlines.
pub fn read_body(request: &mut Request<'_>, budget: &Budget) -> Result<(Vec<u8>, Option<Share>), Failure> {
    if !request.has_body() {
        return Ok((Vec::new(), None));
    }
    let head = request.head();
    if !head.get("content-type").is_some_and(is_json) {
        return Err(Failure::new(415, "UnsupportedMediaType", "The body must be sent as application/json"));
    }
    read_raw(request, budget)
}

/// The memory that larger bodies under way share.
#[derive(Clone, Default)]
pub struct Budget(Arc<AtomicUsize>);

/// A body's share of it, until it is dropped.
pub struct Share(Budget, usize);

impl Budget {
    fn take(&self, bytes: usize) -> Option<Share> {
        let bytes = if bytes > limits::API_BODY_SMALL { bytes } else { 0 };
        let share = Share(self.clone(), bytes);
        (self.0.fetch_add(bytes, Ordering::AcqRel) + bytes <= limits::API_BODIES_MAX).then_some(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.0.fetch_sub(self.1, Ordering::AcqRel);
    }
}

/// Whether a media type is JSON in UTF-8 (RFC 8259 §8.1, RFC 9110 §8.3.1).
fn is_json(media_type: &str) -> bool {
    let mut parts = media_type.split(';').map(str::trim);
    let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/json"));
    named
        && parts.filter(|p| !p.is_empty()).all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
                value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

/// The token of a request: the `Authorization` header (RFC 6750 §2.1), and in the query where the route takes it there.
#[must_use]
pub fn token(head: &Head, in_query: bool) -> Option<String> {
    let header = head.get("authorization").and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    header.or_else(|| in_query.then(|| head.query_param("token")).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_111_large_bodies_share_a_bounded_memory_and_small_ones_pass() {
        let budget = Budget::default();
        let full = limits::API_BODIES_MAX / limits::API_BODY_MAX;
        let mut shares: Vec<Share> = (0..full).map(|_| budget.take(limits::API_BODY_MAX).unwrap()).collect();
        assert!(budget.take(limits::API_BODY_SMALL + 1).is_none());
        assert!(budget.take(limits::API_BODY_SMALL).is_some());
        shares.pop();
        assert!(budget.take(limits::API_BODY_MAX).is_some());
    }

    #[test]
    fn case_34_only_json_in_utf_8_is_json() {
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/json;",
        ] {
            assert!(is_json(good), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "multipart/form-data",
            "application/json; charset=utf-16",
            "application/jsonx",
            "text/json",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
    }
}
