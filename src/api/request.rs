//! A request as a route's handler gets it: owned, so that it can go to a pool.

use std::net::IpAddr;
use std::sync::Arc;

use super::failure::Failure;
use super::fields::Fields;
use crate::domain::{ProjectId, SessionId, User};
use crate::http::{Head, Request};
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
    /// The caller; `None` where the route is open.
    pub caller: Option<Caller>,
    /// The body.
    pub body: Vec<u8>,
    /// The token that came along, of whatever kind.
    pub token: Option<String>,
    /// Where it comes from, behind trusted proxies.
    pub address: IpAddr,
    /// The peer is this machine and no proxy stands between.
    pub is_local: bool,
    /// Names the request in the log.
    pub id: String,
}

impl Call {
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

/// Reads the body of a request, JSON or none.
///
/// # Errors
/// 415 for another type or an encoding, and those of the front.
///
/// # Blocks
/// On the client, within the front's deadlines.
pub fn read_body(request: &mut Request<'_>) -> Result<Vec<u8>, Failure> {
    if !request.has_body() {
        return Ok(Vec::new());
    }
    let head = request.head();
    let unsupported = |message: &str| Err(Failure::new(415, "UnsupportedMediaType", message));
    if head.get("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return unsupported("The body must not be encoded");
    }
    if !head.get("content-type").is_some_and(is_json) && head.get("content-length") != Some("0") {
        return unsupported("The body must be sent as application/json");
    }
    request.body(limits::API_BODY_MAX).map_err(Failure::from)
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
