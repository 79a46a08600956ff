//! Whether it works, for people, watchdogs and monitors; and what there is to call.

use serde_json::json;

use super::request::Call;
use super::routes::Answer;
use super::{Api, json, json_bytes};

#[expect(clippy::unnecessary_wraps, reason = "a handler")]
/// `GET /healthz`: this process answers.
pub(super) fn alive(_: &Api, _: &Call) -> Answer {
    Ok(json(200, &json!({"status": "ok"})))
}

/// `GET /api/openapi.json`: the interface for machines. A test holds it to the route table and to real answers.
#[expect(clippy::unnecessary_wraps, reason = "a handler")]
pub(super) fn openapi(_: &Api, _: &Call) -> Answer {
    let document =
        include_str!("openapi.json").replace("\"VERSION\"", concat!("\"", env!("CARGO_PKG_VERSION"), "\""));
    Ok(json_bytes(200, document.into_bytes()))
}

#[expect(clippy::unnecessary_wraps, reason = "a handler")]
/// `GET /api/health`: and so do the engine and the store, or which of them does not.
pub(super) fn health(api: &Api, _: &Call) -> Answer {
    let snapshot = api.runtime.snapshot();
    let engine = &snapshot.engine;
    let store = api.store.ping();
    let well = engine.up && store.is_ok();
    Ok(json(
        200,
        &json!({
            "status": if well { "ok" } else { "degraded" },
            "engine": {"status": if engine.up { "ok" } else { "unavailable" }, "version": engine.version.as_deref()},
            "store": {"status": if store.is_ok() { "ok" } else { "unavailable" }},
            "uptime": api.began.elapsed().as_secs(),
            "version": env!("CARGO_PKG_VERSION"),
        }),
    ))
}
