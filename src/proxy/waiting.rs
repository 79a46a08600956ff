//! What a person sees in place of an app that is not there: a page that follows its start, or says why there is none.
//!
//! The page is small and has nothing from elsewhere; its script and what that asks are below a path that no app can have. The script
//! is a convenience: without it the page asks again by itself.

use std::fmt::Write;
use std::time::Instant;

use serde_json::json;

use crate::domain::idle::left_text;
use crate::domain::lifecycle::LAST_OUTPUT;
use crate::domain::{Deployment, Status};
use crate::http::Response;
use crate::limits;
use crate::runtime::View;

/// Below this, every host of an app answers for muelle itself.
pub const RESERVED: &str = "/.muelle/";

/// What is asked for below [`RESERVED`]. It neither counts as use of the app nor wakes it.
#[must_use]
pub fn reserved(path: &str, view: &View, engine: bool) -> Response {
    match path.strip_prefix(RESERVED) {
        Some("state") => state(view, engine),
        Some("waiting.js") => plain(200, include_str!("pages/waiting.js").to_owned())
            .header("Content-Type", "text/javascript; charset=utf-8")
            .header("Cache-Control", "no-cache"),
        _ => super::page(404, "There is nothing here"),
    }
}

/// How far it is, for the script.
fn state(view: &View, engine: bool) -> Response {
    // The old version may serve while a new one is made.
    let open = view.gate.passing(Instant::now()).is_some();
    let said = json!({
        "status": if open { Status::Running } else { view.status }.word(),
        "sentence": sentence(view, engine),
        "expectedMs": expected_ms(view),
        "output": output(view),
    });
    plain(200, said.to_string())
        .header("Content-Type", "application/json; charset=utf-8")
        .header("Cache-Control", "no-store")
}

/// The page for somebody who opened the app in a browser; says so where the engine does not answer.
#[must_use]
pub fn page(view: &View, engine: bool) -> Response {
    let over = matches!(view.status, Status::Stopped | Status::Error);
    let (mut head, mut more) = (String::new(), String::new());
    let again = limits::PROXY_PAGE_AGAIN_S;
    if !over {
        let _ = write!(
            head,
            "<noscript><meta http-equiv=\"refresh\" content=\"{again}\"></noscript>\n\
             <script src=\"{RESERVED}waiting.js\" defer></script>"
        );
        let value = if expected_ms(view).is_some() { " value=\"0\"" } else { "" };
        let _ = writeln!(more, "<progress{value} aria-label=\"Progress\"></progress>");
        if let Some(expected) = expected_ms(view) {
            let _ = writeln!(more, "<p><small>It mostly takes {}.</small></p>", seconds(expected));
        }
    }
    let output = output(view);
    let hidden = if over && output.is_some() { "" } else { " hidden" };
    let _ = write!(more, "<pre{hidden}>{}</pre>", escaped(output.unwrap_or_default()));
    let sentence = escaped(&sentence(view, engine));
    let html = include_str!("pages/waiting.html")
        .replace("{title}", &sentence)
        .replace("{head}", &head)
        .replace("{sentence}", &sentence)
        .replace("{more}", &more);
    let response = plain(503, html)
        .header("Content-Type", "text/html; charset=utf-8")
        .header(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        )
        .header("Cache-Control", "no-store");
    match super::again_in(view) {
        Some(seconds) => response.header("Retry-After", seconds),
        None if over => response,
        None => response.header("Retry-After", again),
    }
}

fn plain(status: u16, body: String) -> Response {
    Response::bytes(status, body)
        .header("Referrer-Policy", "no-referrer")
        .header("X-Content-Type-Options", "nosniff")
}

const NO_ENGINE: &str = "Docker does not answer, which is to start this app.";

/// What to say of it to a visitor.
fn sentence(view: &View, engine: bool) -> String {
    match view.status {
        Status::Inactive | Status::Deploying if !engine => NO_ENGINE.to_owned(),
        Status::Inactive => "This app was asleep and is waking up.".to_owned(),
        Status::Running => "This app is ready.".to_owned(),
        Status::Stopped => "This app is stopped.".to_owned(),
        Status::Error => match view.wakes_in(Instant::now()) {
            Some(left) if left.is_zero() && !engine => NO_ENGINE.to_owned(),
            Some(left) => {
                format!(
                    "This app did not start. It is tried again if somebody opens it in {}.",
                    left_text(left)
                )
            }
            None => "This app did not start.".to_owned(),
        },
        Status::Deploying if view.run.is_some() => {
            "This app has been started and is getting ready.".to_owned()
        }
        Status::Deploying => match view.deployment.as_deref().filter(|it| it.ended_at.is_none()) {
            Some(Deployment { step, .. }) => format!("This app is being deployed ({}).", step.word()),
            None => "This app is starting.".to_owned(),
        },
    }
}

/// Milliseconds that a start from sleep mostly takes, where that is known and is what happens.
fn expected_ms(view: &View) -> Option<u128> {
    let times = view.wake_times.filter(|_| view.deployment.as_deref().is_none_or(|it| it.ended_at.is_some()));
    times.map(|times| times.ready.p50.as_millis().max(1))
}

fn seconds(ms: u128) -> String {
    if ms < 1000 { "less than a second".to_owned() } else { format!("{} s", ms.div_ceil(1000)) }
}

/// The last lines that an app wrote which does not run. What else there is to say of it is its owner's.
fn output(view: &View) -> Option<&str> {
    let reason = view.reason.as_deref().filter(|_| view.status == Status::Error)?;
    reason.split_once(LAST_OUTPUT).map(|(_, output)| output)
}

/// Text for HTML.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_app_wrote_is_text_in_the_page() {
        assert_eq!(
            escaped("<script>alert(\"a & b\")</script>"),
            "&lt;script&gt;alert(&quot;a &amp; b&quot;)&lt;/script&gt;"
        );
    }

    #[test]
    fn the_expected_time_is_for_people() {
        assert_eq!(seconds(999), "less than a second");
        assert_eq!(seconds(1001), "2 s");
    }
}
