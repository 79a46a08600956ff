//! The engine as the tests see it, without muelle's own client: requests over the socket, containers with a label and an end.

use serde_json::{Value, json};

use super::image::{encoded, import, raw, tidy, unique};

/// An image of busybox that serves `/www` on port 8080, which it exposes.
pub const WEB: &str = "muelle-test-web:1";

/// A request with JSON both ways.
pub fn json(method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let (status, answer) = raw(method, path, "application/json", &body);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// The body of an answer that is text.
pub fn text(path: &str) -> String {
    let (_, answer) = raw("GET", path, "", b"");
    answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned())
}

/// Makes sure that [`WEB`] is there. It stays for the other tests; `script/test` removes it in the end. One test at a time: two imports
/// at once would be two images.
pub fn ensure_web_image() {
    let lock = std::fs::File::create(concat!(env!("CARGO_TARGET_TMPDIR"), "/web-image.lock")).unwrap();
    lock.lock().unwrap();
    if json("GET", &format!("/images/{WEB}/json"), &Value::Null).0 != 200 {
        let serve = format!("CMD {}", json!(["/bin/busybox", "sh", "-c", SERVE]));
        import(WEB, &[&serve, "EXPOSE 8080"]);
    }
}

/// The shell words of a web server on port 8080 that says `hello`.
pub const SERVE: &str =
    "busybox mkdir -p /www; busybox printf hello > /www/index.html; exec busybox httpd -f -p 8080 -h /www";

/// A container of a test, outside of muelle; removed when it is dropped.
pub struct Container {
    pub name: String,
}

impl Container {
    /// Creates and starts one that runs `command` with busybox' shell; with `extra` over the engine's create body.
    pub fn start(command: &str, extra: &Value) -> Container {
        let container = Container::create(command, extra);
        container.act("start");
        container
    }

    /// The same without starting it.
    pub fn create(command: &str, extra: &Value) -> Container {
        ensure_web_image();
        let name = unique("muelle-test");
        let mut body = json!({
            "Image": WEB,
            "Cmd": ["/bin/busybox", "sh", "-c", command],
            "Labels": {"muelle-test": "1"},
            "HostConfig": {"Init": true},
        });
        if let (Some(body), Some(extra)) = (body.as_object_mut(), extra.as_object()) {
            body.extend(extra.clone());
        }
        let (status, answer) = json("POST", &format!("/containers/create?name={name}"), &body);
        assert_eq!(status, 201, "{answer}");
        Container { name }
    }

    /// A web server on port 8080.
    pub fn web() -> Container {
        Container::start(SERVE, &Value::Null)
    }

    /// `start`, `stop?t=0`, `kill`, `pause`…
    pub fn act(&self, action: &str) {
        act(&self.name, action);
    }

    pub fn inspect(&self) -> Value {
        inspect(&self.name)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        tidy(|| remove(&self.name));
    }
}

#[track_caller]
pub fn act(name: &str, action: &str) {
    let (status, answer) = json("POST", &format!("/containers/{name}/{action}"), &Value::Null);
    assert!(status < 400, "{action} {name}: {status} {answer}");
}

pub fn remove(name: &str) {
    raw("DELETE", &format!("/containers/{name}?force=1&v=1"), "", b"");
}

/// What the engine says of a container; null if there is none.
pub fn inspect(name: &str) -> Value {
    let (status, seen) = json("GET", &format!("/containers/{name}/json"), &Value::Null);
    if status == 200 { seen } else { Value::Null }
}

pub fn is_running(name: &str) -> bool {
    inspect(name)["State"]["Running"] == true
}

/// The containers that carry a label, running or not.
pub fn labelled(label: &str) -> Vec<Value> {
    let filters = encoded(&json!({"label": [label]}).to_string());
    let (_, list) = json("GET", &format!("/containers/json?all=1&filters={filters}"), &Value::Null);
    list.as_array().cloned().unwrap_or_default()
}

/// The containers that the engine has started since it runs, a name for each start.
pub fn starts_since_boot() -> Vec<String> {
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs() + 1;
    let filters = encoded(&json!({"type": ["container"], "event": ["start"]}).to_string());
    let (_, answer) = raw("GET", &format!("/events?since=1&until={now}&filters={filters}"), "", b"");
    let lines = answer.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter_map(|event| event["Actor"]["Attributes"]["name"].as_str().map(str::to_owned)).collect()
}
