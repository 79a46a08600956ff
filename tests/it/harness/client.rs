//! A client of the REST interface.

use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Request;

/// Who asks whom.
#[derive(Clone)]
pub struct Client {
    pub base: String,
    pub token: Option<String>,
    agent: Agent,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub text: String,
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub fn ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    /// An error of the contract's shape with this status; gives its code.
    #[track_caller]
    pub fn error(self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.body["statusCode"], status, "{}", self.text);
        assert!(self.body["message"].as_str().is_some_and(|m| !m.is_empty()), "{}", self.text);
        self.body["error"].as_str().expect("a code").to_owned()
    }
}

impl Client {
    pub fn new(base: &str) -> Client {
        let config = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .allow_non_standard_methods(true)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        Client { base: base.to_owned(), token: None, agent: config.into() }
    }

    pub fn with_token(&self, token: &str) -> Client {
        Client { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same person at a server that was started again.
    pub fn with_base(&self, base: &str) -> Client {
        Client { base: base.to_owned(), ..self.clone() }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], Some(body.to_string().as_bytes()))
    }

    pub fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send("PATCH", path, &[], Some(body.to_string().as_bytes()))
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], None)
    }

    /// A request with further headers; a `Content-Type` among them replaces `application/json`.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        self.request(method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Answer, ureq::Error> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if body.is_some() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            request = request.header("Content-Type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = match body {
            Some(body) => self.agent.run(request.body(body).expect("a request")),
            None => self.agent.run(request.body(()).expect("a request")),
        };
        sent.and_then(read)
    }

    /// The same with JSON, or without a body; an error when the server is not there to answer.
    pub fn try_send(&self, method: &str, path: &str, body: &Value) -> Result<Answer, ureq::Error> {
        let body = (!body.is_null()).then(|| body.to_string());
        self.request(method, path, &[], body.as_ref().map(String::as_bytes))
    }

    /// Makes an account and gives its client. The first one is the administrator.
    pub fn register(&self, name: &str) -> Client {
        let answer = self.post(
            "/api/auth/register",
            &json!({"email": format!("{name}@example.com"), "password": PASSWORD, "name": name}),
        );
        let body = answer.ok(201);
        self.with_token(body["token"].as_str().expect("a token"))
    }

    /// Another session of the account `name`.
    pub fn login(&self, name: &str) -> Client {
        let answer = self
            .post("/api/auth/login", &json!({"email": format!("{name}@example.com"), "password": PASSWORD}));
        let body = answer.ok(200);
        self.with_token(body["token"].as_str().expect("a token"))
    }

    /// Makes a project of an image; gives its id.
    pub fn project(&self, name: &str, image: &str) -> String {
        let body = self.post("/api/projects", &json!({"name": name, "image": image})).ok(201);
        body["project"]["id"].as_str().expect("an id").to_owned()
    }

    /// Adopts a container; gives the project's id.
    pub fn adopt(&self, name: &str, container: &str) -> String {
        let body = self.post("/api/projects", &json!({"name": name, "container": container})).ok(201);
        body["project"]["id"].as_str().expect("an id").to_owned()
    }

    pub fn status(&self, id: &str) -> String {
        let body = self.get(&format!("/api/containers/{id}/status")).ok(200);
        body["status"].as_str().expect("a status").to_owned()
    }

    /// Waits until a project has a status.
    #[track_caller]
    pub fn await_status(&self, id: &str, status: &str, limit: Duration) {
        super::eventually(&format!("{id} is {status}"), limit, || {
            let project = self.get(&format!("/api/projects/{id}"));
            if project.body["project"]["status"] == status { Ok(()) } else { Err(project.text) }
        });
    }
}

/// Every test account's password.
pub const PASSWORD: &str = "correct horse";

fn read(answer: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let status = answer.status().as_u16();
    let headers = answer.headers().iter();
    let headers = headers
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let text = answer.into_body().read_to_string()?;
    let body = serde_json::from_str(&text).unwrap_or_default();
    Ok(Answer { status, headers, text, body })
}
