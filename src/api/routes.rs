//! The route table: the whole interface on one screen.

use super::request::Call;
use super::{Api, auth, containers, deployments, domains, health, hooks, logs, metrics, projects};
use crate::api::failure::Failure;
use crate::domain::ProjectId;
use crate::http::Response;

/// What a handler gives.
pub type Answer = Result<Response, Failure>;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Open,
    /// This machine with no proxy between, and the addresses in `metrics.allow`.
    Local,
    /// Whoever has a live token in the header.
    User,
    /// The same; the token may be in the query, since an `EventSource` sets no headers.
    Stream,
    /// Whoever has the project's secret; the handler finds out, from the body as it came.
    Signed,
}

/// Where a route's handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the connection's thread: it answers from memory.
    Here,
    /// On the API pool: it asks the store, or the supervisor for something durable.
    Pool,
    /// On the engine pool: it asks the engine, which may hang.
    Engine,
    /// On the login pool: it hashes a password.
    Login,
}

/// One route.
pub struct Route {
    /// GET routes answer HEAD too.
    pub method: &'static str,
    /// The path; `:id` stands for a project's id, `:n` for a number.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// Where it runs.
    pub place: Place,
    /// What it does.
    pub handler: fn(&Api, &Call) -> Answer,
}

macro_rules! routes {
    ($($method:ident $path:literal $access:ident $place:ident $handler:path;)*) => {
        &[$(Route {
            method: stringify!($method),
            path: $path,
            access: Access::$access,
            place: Place::$place,
            handler: $handler,
        }),*]
    };
}

/// Every route.
pub static ROUTES: &[Route] = routes! {
    GET    "/healthz"                           Open   Here   health::alive;
    GET    "/metrics"                           Local  Here   metrics::text;
    GET    "/api/proxy/allowed"                 Local  Here   domains::allowed;
    GET    "/api/openapi.json"                  Open   Here   health::openapi;
    GET    "/api/health"                        Open   Here   health::health;
    POST   "/api/auth/register"                 Open   Login  auth::register;
    POST   "/api/auth/login"                    Open   Login  auth::login;
    POST   "/api/auth/refresh"                  Open   Pool   auth::refresh;
    POST   "/api/auth/logout"                   User   Pool   auth::logout;
    GET    "/api/auth/me"                       User   Here   auth::me;
    GET    "/api/projects"                      User   Here   projects::list;
    POST   "/api/projects"                      User   Engine projects::create;
    GET    "/api/projects/:id"                  User   Here   projects::get;
    PATCH  "/api/projects/:id"                  User   Pool   projects::update;
    DELETE "/api/projects/:id"                  User   Pool   projects::delete;
    GET    "/api/projects/:id/why"              User   Here   projects::why;
    PATCH  "/api/projects/:id/status"           User   Pool   projects::set_status;
    GET    "/api/projects/:id/deployments"      User   Pool   deployments::list;
    GET    "/api/projects/:id/deployments/:n"   User   Pool   deployments::get;
    GET    "/api/projects/:id/deployments/:n/log" User Pool   deployments::log;
    GET    "/api/projects/:id/deployments/:n/log/stream" Stream Here deployments::log_stream;
    POST   "/api/projects/:id/deployments/:n/cancel" User Pool deployments::cancel;
    POST   "/api/projects/:id/rollback"         User   Pool   deployments::rollback;
    POST   "/api/projects/:id/webhook"          User   Pool   hooks::create;
    DELETE "/api/projects/:id/webhook"          User   Pool   hooks::remove;
    POST   "/api/hooks/github/:id"              Signed Pool   hooks::github;
    GET    "/api/containers/events"             Stream Here   containers::events;
    GET    "/api/containers/unmanaged"          User   Engine containers::unmanaged;
    GET    "/api/containers/:id/status"         User   Here   containers::status;
    GET    "/api/containers/:id/logs"           User   Engine logs::tail;
    GET    "/api/containers/:id/logs/stream"    Stream Here   logs::stream;
    POST   "/api/containers/:id/start"          User   Pool   containers::start;
    POST   "/api/containers/:id/stop"           User   Pool   containers::stop;
    POST   "/api/containers/:id/restart"        User   Pool   containers::restart;
    POST   "/api/containers/:id/create"         User   Pool   containers::rebuild;
    POST   "/api/containers/:id/rebuild"        User   Pool   containers::rebuild;
};

/// Whether a path is that of a route for this machine.
#[must_use]
pub fn is_local(path: &str) -> bool {
    ROUTES.iter().any(|route| route.access == Access::Local && route.path == path)
}

/// What a method and a path lead to.
pub enum Found {
    /// A route, with the project and the number in its path if they can be such.
    Route(&'static Route, Option<ProjectId>, Option<u32>),
    /// The path exists for these methods.
    Methods(String),
    /// Nothing.
    Nothing,
}

/// Finds the route of a request; HEAD is served by GET (RFC 9110 §9.3.2).
#[must_use]
pub fn find(method: &str, path: &str) -> Found {
    let method = if method == "HEAD" { "GET" } else { method };
    let mut methods: Vec<&str> = Vec::new();
    for route in ROUTES {
        let Some((id, number)) = matches(route.path, path) else { continue };
        if route.method == method {
            let number = number.parse().ok().filter(|_| !number.starts_with(['0', '+']));
            return Found::Route(route, ProjectId::parse(id), number);
        }
        if route.method == "GET" {
            methods.push("HEAD");
        }
        methods.push(route.method);
    }
    if methods.is_empty() {
        return Found::Nothing;
    }
    methods.push("OPTIONS");
    methods.dedup();
    Found::Methods(methods.join(", "))
}

/// What stands for `:id` and `:n` when the path fits the pattern; empty where the pattern has none. A literal segment wins over `:id`.
fn matches<'p>(pattern: &str, path: &'p str) -> Option<(&'p str, &'p str)> {
    let (mut id, mut number, mut parts) = ("", "", path.split('/'));
    for expected in pattern.split('/') {
        let part = parts.next()?;
        match expected {
            ":id" if !part.is_empty() && !matches!(part, "events" | "unmanaged") => id = part,
            ":n" if !part.is_empty() => number = part,
            expected if expected == part => {}
            _ => return None,
        }
    }
    parts.next().is_none().then_some((id, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(method: &str, path: &str) -> String {
        match find(method, path) {
            Found::Route(route, id, None) => format!("{} {id:?}", route.path),
            Found::Route(route, id, Some(number)) => format!("{} {id:?} {number}", route.path),
            Found::Methods(methods) => methods,
            Found::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn case_57_a_path_is_found_by_method_or_says_which_there_are() {
        for (method, path, found) in [
            ("GET", "/api/projects", "/api/projects None"),
            ("HEAD", "/api/projects", "/api/projects None"),
            ("PUT", "/api/projects", "HEAD, GET, POST, OPTIONS"),
            ("GET", "/api/projects/proj-0000002a", "/api/projects/:id Some(ProjectId(42))"),
            ("GET", "/api/projects/42", "/api/projects/:id None"),
            ("POST", "/api/containers/events", "HEAD, GET, OPTIONS"),
            ("GET", "/api/containers/proj-0000002a/stop", "POST, OPTIONS"),
            (
                "GET",
                "/api/projects/proj-0000002a/deployments/7",
                "/api/projects/:id/deployments/:n Some(ProjectId(42)) 7",
            ),
            (
                "GET",
                "/api/projects/proj-0000002a/deployments/07",
                "/api/projects/:id/deployments/:n Some(ProjectId(42))",
            ),
            (
                "GET",
                "/api/projects/proj-0000002a/deployments/x",
                "/api/projects/:id/deployments/:n Some(ProjectId(42))",
            ),
            ("GET", "/api/projects/", "nothing"),
            ("GET", "/api//projects", "nothing"),
            ("GET", "/api/projects/a/b", "nothing"),
            ("GET", "/.env", "nothing"),
            ("GET", "", "nothing"),
        ] {
            assert_eq!(name(method, path), found, "{method} {path}");
        }
    }
}
