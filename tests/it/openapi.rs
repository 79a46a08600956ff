//! The document at `/api/openapi.json`, held to the route table and to what the server really answers.

use std::collections::BTreeSet;
use std::time::Duration;

use muelle::api::routes::{Access, ROUTES};
use serde_json::{Value, json};

use crate::harness::engine::{Container, WEB};
use crate::harness::{Answer, Server};

const SOON: Duration = Duration::from_secs(20);

fn document() -> Value {
    serde_json::from_str(include_str!("../../src/api/openapi.json")).expect("it is JSON")
}

#[test]
fn the_document_has_every_route_and_no_other_and_says_who_may_call_it() {
    let document = document();
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let security = operation.get("security").unwrap_or(&document["security"]).to_string();
            described.insert((
                method.to_uppercase(),
                path.replace("{id}", ":id").replace("{n}", ":n"),
                security,
            ));
            let has_id = operation["parameters"].to_string().contains("parameters/id");
            assert_eq!(has_id, path.contains("{id}"), "{method} {path}");
            let has_number = operation["parameters"].to_string().contains("parameters/n\"");
            assert_eq!(has_number, path.contains("{n}"), "{method} {path}");
            assert!(operation["summary"].as_str().is_some_and(|text| text.ends_with('.')), "{method} {path}");
        }
    }
    let routes = ROUTES.iter().map(|route| {
        let security = match (route.access, route.path) {
            // Its token is another one, but it travels in the same header.
            (Access::User, _) | (_, "/api/auth/refresh") => r#"[{"bearer":[]}]"#,
            (Access::Stream, _) => r#"[{"bearer":[]},{"query":[]}]"#,
            (Access::Open | Access::Local | Access::Signed, _) => "[]",
        };
        (route.method.to_owned(), route.path.to_owned(), security.to_owned())
    });
    assert_eq!(described, routes.collect());
}

#[test]
fn every_reference_leads_somewhere_and_every_part_is_used() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    let parts = ["parameters", "responses", "schemas"].into_iter().flat_map(|kind| {
        let parts = document["components"][kind].as_object().unwrap();
        parts.keys().map(move |name| format!("#/components/{kind}/{name}"))
    });
    assert_eq!(found, parts.collect());
}

/// The schema of an answer with this status.
fn schema<'d>(document: &'d Value, method: &str, path: &str, status: u16) -> &'d Value {
    let responses = &document["paths"][path][method]["responses"];
    let response = responses.get(status.to_string()).unwrap_or(&responses["default"]);
    let response = resolved(document, response);
    &response["content"]["application/json"]["schema"]
}

fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => document.pointer(&reference[1..]).unwrap_or_else(|| panic!("{reference}")),
        None => value,
    }
}

/// The part of JSON Schema that the document uses.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) {
    let schema = resolved(document, schema);
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        none => panic!("{at}: no type in {schema}: {none}"),
    };
    let fits = types.iter().any(|name| match *name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{at}: the type {other}"),
    });
    assert!(fits, "{at} is to be {types:?}, is {value}");
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value} of {words:?}");
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(document, &schema["items"], item, &format!("{at}[{index}]"));
    }
    let (Some(fields), Some(known)) = (value.as_object(), schema["properties"].as_object()) else { return };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        assert!(fields.contains_key(name), "{at} has no {name}: {value}");
    }
    for (name, value) in fields {
        let field = known.get(name).unwrap_or_else(|| panic!("{at}.{name} is not in the document"));
        check(document, field, value, &format!("{at}.{name}"));
    }
}

#[test]
fn real_answers_are_as_the_document_says() {
    let server = Server::start();
    let ana = server.admin();
    let document = ana.get("/api/openapi.json").ok(200);
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut seen = 0;
    let mut fits = |method: &str, path: &str, answer: &Answer| {
        let schema = schema(&document, method, path, answer.status);
        check(&document, schema, &answer.body, &format!("{method} {path} {}", answer.status));
        seen += 1;
        answer.body.clone()
    };
    let app = Container::web();
    let made =
        ana.post("/api/projects", &json!({"name": "App", "image": WEB, "env": {"A": "b"}, "port": 8080}));
    let id = fits("post", "/api/projects", &made)["project"]["id"].as_str().unwrap().to_owned();
    ana.await_status(&id, "running", SOON);
    ana.adopt("Adopted", &app.name);
    let other = Container::web();
    for path in [
        "/healthz",
        "/api/health",
        "/api/openapi.json",
        "/api/auth/me",
        "/api/projects",
        "/api/projects/{id}",
        "/api/proxy/allowed",
        "/api/containers/unmanaged",
        "/api/containers/{id}/status",
        "/api/containers/{id}/logs",
    ] {
        fits("get", path, &ana.get(&path.replace("{id}", &id)));
    }
    drop(other);
    for (method, path, body) in [
        ("patch", "/api/projects/{id}", json!({"memory_mb": 64, "idle_after": "30m"})),
        ("patch", "/api/projects/{id}/status", json!({"status": "stopped"})),
        ("post", "/api/containers/{id}/start", json!({})),
        ("post", "/api/containers/{id}/restart", json!({})),
        ("post", "/api/containers/{id}/stop", json!({})),
        ("post", "/api/containers/{id}/rebuild", json!({})),
        ("delete", "/api/projects/{id}", json!({})),
        ("get", "/api/projects/{id}", Value::Null),
        ("post", "/api/auth/login", json!({"email": "admin-ana@example.com", "password": "wrong horse"})),
        ("post", "/api/auth/logout", json!({})),
        ("get", "/api/auth/me", Value::Null),
    ] {
        let path_sent = path.replace("{id}", &id);
        let body = body.to_string();
        let body = (method != "get").then_some(body.as_bytes());
        fits(method, path, &ana.send(&method.to_uppercase(), &path_sent, &[], body));
    }
    assert_eq!(seen, 22);
}
