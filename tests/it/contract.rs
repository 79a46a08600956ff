//! Sections 1 to 4 of the contract, row by row, against the spawned binary and the real engine.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::engine::{self, Container, WEB};
use crate::harness::{Client, Server};

const SOON: Duration = Duration::from_secs(20);

/// The route table of the contract: method, path with somebody's project id for `ID`, a good body, whether a body is read.
const PROTECTED: &[(&str, &str, &str)] = &[
    ("GET", "/api/auth/me", ""),
    ("POST", "/api/auth/logout", "{}"),
    ("GET", "/api/projects", ""),
    ("POST", "/api/projects", r#"{"name":"New","image":"muelle-test-web:1"}"#),
    ("GET", "/api/projects/ID", ""),
    ("PATCH", "/api/projects/ID", r#"{"name":"Renamed"}"#),
    ("DELETE", "/api/projects/ID", ""),
    ("GET", "/api/projects/ID/why", ""),
    ("PATCH", "/api/projects/ID/status", r#"{"status":"stopped"}"#),
    ("GET", "/api/projects/ID/deployments", ""),
    ("GET", "/api/projects/ID/deployments/1", ""),
    ("GET", "/api/projects/ID/deployments/1/log", ""),
    ("GET", "/api/projects/ID/deployments/1/log/stream", ""),
    ("POST", "/api/projects/ID/deployments/1/cancel", "{}"),
    ("POST", "/api/projects/ID/rollback", "{}"),
    ("POST", "/api/projects/ID/webhook", "{}"),
    ("DELETE", "/api/projects/ID/webhook", ""),
    ("GET", "/api/containers/events", ""),
    ("GET", "/api/containers/unmanaged", ""),
    ("GET", "/api/containers/ID/status", ""),
    ("GET", "/api/containers/ID/logs", ""),
    ("GET", "/api/containers/ID/logs/stream", ""),
    ("POST", "/api/containers/ID/start", "{}"),
    ("POST", "/api/containers/ID/stop", "{}"),
    ("POST", "/api/containers/ID/restart", "{}"),
    ("POST", "/api/containers/ID/create", "{}"),
    ("POST", "/api/containers/ID/rebuild", "{}"),
];

fn call(client: &Client, (method, path, body): (&str, &str, &str), id: &str) -> crate::harness::Answer {
    let body = (!body.is_empty()).then_some(body.as_bytes());
    client.send(method, &path.replace("ID", id), &[], body)
}

#[test]
fn the_table_of_this_test_is_the_route_table() {
    let tested: Vec<_> =
        PROTECTED.iter().map(|(m, p, _)| (*m, p.replace("ID", ":id").replace("/1", "/:n"))).collect();
    for route in muelle::api::routes::ROUTES {
        use muelle::api::routes::Access;
        let is_open = matches!(route.access, Access::Open | Access::Local | Access::Signed);
        assert!(
            is_open || tested.contains(&(route.method, route.path.to_owned())),
            "{} {}",
            route.method,
            route.path
        );
    }
}

#[test]
fn case_55_every_route_wants_a_live_token_and_hides_other_peoples_projects() {
    let server = Server::with("[auth]\nregistration = \"open\"\n");
    let ana = server.admin();
    let bea = server.client().register("bea");
    let id = ana.project("Mine", WEB);
    let expired = server.client().with_token(&expired_token(&server, &ana));
    for &route in PROTECTED {
        let nobody = call(&server.client(), route, &id);
        assert_eq!(nobody.error(401), "Unauthorized", "{route:?} without a token");
        assert_eq!(call(&expired, route, &id).error(401), "Unauthorized", "{route:?} with an expired token");
        assert_eq!(
            call(&server.client().with_token("x.y.z"), route, &id).error(401),
            "Unauthorized",
            "{route:?}"
        );
        if route.1.contains("ID") {
            let (theirs, absent) = (call(&bea, route, &id), call(&bea, route, "proj-ffffffff"));
            assert_eq!((theirs.status, &theirs.text), (404, &absent.text), "{route:?} of somebody else");
            assert_eq!(call(&bea, route, "nonsense").error(404), "NotFound", "{route:?}");
        }
    }
    ana.await_status(&id, "running", SOON);
    assert_eq!(bea.get("/api/projects").ok(200), json!({"projects": []}));
}

#[test]
fn case_56_somebody_elses_project_takes_as_long_to_miss_as_one_that_is_not_there() {
    let server = Server::with("[auth]\nregistration = \"open\"\n");
    let ana = server.admin();
    let bea = server.client().register("bea");
    let id = ana.project("Mine", WEB);
    for &route in PROTECTED.iter().filter(|route| route.0 == "GET" && route.1.contains("ID")) {
        let median = |id: &str| {
            let mut took: Vec<Duration> = (0..100)
                .map(|_| {
                    let began = Instant::now();
                    assert_eq!(call(&bea, route, id).status, 404);
                    began.elapsed()
                })
                .collect();
            took.sort_unstable();
            took[took.len() / 2]
        };
        // Other tests run beside this one: one quiet round of a few says it.
        crate::harness::eventually(&format!("{route:?}: the same"), Duration::from_secs(60), || {
            let (theirs, absent) = (median(&id), median("proj-ffffffff"));
            let ratio = theirs.as_secs_f64() / absent.as_secs_f64();
            if (0.8..1.25).contains(&ratio) { Ok(()) } else { Err((theirs, absent)) }
        });
    }
}

/// A token as the server makes it, but over.
fn expired_token(server: &Server, client: &Client) -> String {
    use muelle::auth::token::{Claims, Keys, Kind};
    use std::time::SystemTime;
    let keys = Keys::load_or_create(&server.data()).expect("the server's key");
    let token = client.token.as_deref().expect("a token");
    let claims = keys.verify(Kind::Access, token, SystemTime::now()).expect("a live token");
    let ended = SystemTime::now() - Duration::from_secs(6);
    keys.issue(Kind::Access, &Claims { expires: ended, ..claims }, ended).expect("a token")
}

#[test]
fn case_30_31_33_34_35_a_bad_body_is_refused_on_every_route_with_what_is_wrong() {
    let server = Server::start();
    let ana = server.admin();
    let id = ana.project("Mine", WEB);
    for &route in PROTECTED.iter().filter(|route| !route.2.is_empty()) {
        let path = route.1.replace("ID", &id);
        let send = |body: &[u8]| ana.send(route.0, &path, &[], Some(body));
        for bad in [&b"null"[..], b"[]", b"\"x\"", b"{\"name\":", b"\xff", &vec![b'['; 100_000]] {
            assert_eq!(
                send(bad).error(400),
                "InvalidJson",
                "{route:?} {}",
                String::from_utf8_lossy(&bad[..bad.len().min(40)])
            );
        }
        let unknown = send(br#"{"owner_id":"x"}"#);
        assert_eq!(unknown.body["message"], "Unknown field: owner_id", "{route:?}");
        assert_eq!(unknown.error(400), "UnknownField");
        for media in ["text/plain", "multipart/form-data", "application/json; charset=utf-16"] {
            let answer = ana.send(route.0, &path, &[("Content-Type", media)], Some(b"{}"));
            assert_eq!(answer.error(415), "UnsupportedMediaType", "{route:?} {media}");
        }
        let coded = ana.send(route.0, &path, &[("Content-Encoding", "gzip")], Some(b"{}"));
        assert_eq!(coded.error(415), "UnsupportedMediaType", "{route:?}");
    }
    assert_eq!(
        ana.get(&format!("/api/projects/{id}")).ok(200)["project"]["name"],
        "Mine",
        "nothing was changed"
    );
}

#[test]
fn case_57_64_a_wrong_method_is_a_405_with_allow_and_an_unknown_path_a_404() {
    let server = Server::start();
    let ana = server.admin();
    for &(method, path, _) in PROTECTED {
        let path = path.replace("ID", "proj-00000001");
        let answer = ana.send("PUT", &path, &[], Some(b"{}"));
        assert!(
            answer.header("allow").is_some_and(|allow| allow.contains(method)),
            "{path}: {:?}",
            answer.headers
        );
        assert_eq!(answer.error(405), "MethodNotAllowed");
    }
    for path in ["/api", "/api/", "/api/nothing", "/.env", "/.git/config", "/", "/api/projects/a/b/c"] {
        assert_eq!(ana.get(path).error(404), "NotFound", "{path}");
    }
}

#[test]
fn case_58_75_cors_is_on_every_answer_for_listed_origins_and_for_no_other() {
    let server = Server::start();
    let ana = server.admin();
    let ours = ("Origin", "http://localhost:5173");
    for origin in
        ["http://localhost:5173", "http://127.0.0.1:5173", "http://localhost:3000", "http://127.0.0.1:3000"]
    {
        let preflight = server.client().send(
            "OPTIONS",
            "/api/projects",
            &[
                ("Origin", origin),
                ("Access-Control-Request-Method", "PATCH"),
                ("Access-Control-Request-Headers", "authorization,content-type"),
            ],
            None,
        );
        assert_eq!(preflight.status, 204);
        assert_eq!(preflight.header("access-control-allow-origin"), Some(origin));
        assert_eq!(preflight.header("vary"), Some("Origin"));
        for method in ["GET", "POST", "PATCH", "PUT", "DELETE"] {
            assert!(
                preflight.header("access-control-allow-methods").is_some_and(|m| m.contains(method)),
                "{method}"
            );
        }
        for header in ["authorization", "content-type", "last-event-id"] {
            assert!(
                preflight.header("access-control-allow-headers").is_some_and(|h| h.contains(header)),
                "{header}"
            );
        }
        assert!(preflight.header("access-control-max-age").is_some());
    }
    let cases = [
        (server.client().send("GET", "/api/projects", &[ours], None), 401),
        (ana.send("GET", "/api/projects", &[ours], None), 200),
        (ana.send("GET", "/api/nothing", &[ours], None), 404),
        (ana.send("PUT", "/api/projects", &[ours], None), 405),
        (ana.send("POST", "/api/projects", &[ours, ("Content-Type", "text/plain")], Some(b"x")), 415),
        (server.client().send("GET", "/api/containers/events?token=x", &[ours], None), 401),
        (ana.send("GET", "/api/projects", &[ours, ("Host", "evil.example")], None), 421),
    ];
    for (answer, status) in cases {
        assert_eq!(answer.status, status, "{}", answer.text);
        assert_eq!(answer.header("access-control-allow-origin"), Some(ours.1), "{status}");
    }
    for foreign in
        ["http://evil.example", "http://localhost:5173.evil.example", "null", "https://localhost:5173"]
    {
        let preflight = server.client().send("OPTIONS", "/api/projects", &[("Origin", foreign)], None);
        assert_eq!(preflight.header("access-control-allow-origin"), None, "{foreign}");
        let answer = ana.send("GET", "/api/projects", &[("Origin", foreign)], None);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{foreign}");
    }
    let path = format!("/api/containers/events?token={}", ana.token.as_deref().expect("a token"));
    let stolen = server.client().send("GET", &path, &[("Origin", "http://evil.example")], None);
    assert_eq!(stolen.error(403), "ForeignOrigin");
}

#[test]
fn case_58_head_is_get_without_its_body() {
    let server = Server::start();
    let ana = server.admin();
    let id = ana.project("Mine", WEB);
    for path in ["/healthz", "/api/auth/me", &format!("/api/containers/{id}/status")] {
        let (get, head) = (ana.get(path), ana.send("HEAD", path, &[], None));
        assert_eq!((head.status, head.text.as_str()), (200, ""), "{path}");
        assert_eq!(head.header("content-length"), get.header("content-length"), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
    }
}

#[test]
fn cors_origins_in_the_configuration_replace_the_list() {
    let server = Server::with("[api]\ncors_origins = [\"https://panel.example\"]\n");
    let allowed = |origin: &str| {
        let answer = server.client().send("GET", "/healthz", &[("Origin", origin)], None);
        answer.header("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(allowed("https://panel.example"), Some("https://panel.example".to_owned()));
    assert_eq!(allowed("http://localhost:5173"), None);
}

#[test]
fn a_project_object_has_every_field_of_the_contract() {
    let server = Server::start();
    let ana = server.admin();
    let made = ana
        .post("/api/projects", &json!({"name": "Mi Peña 🚀", "image": WEB, "template": "nodejs", "env": {"SECRET": "hush"}, "memory_mb": 64, "cpus": 0.5, "idle_after": "45m"}))
        .ok(201);
    let project = &made["project"];
    assert_eq!(project["status"], "deploying");
    assert_eq!(project["name"], "Mi Peña 🚀");
    assert_eq!(project["host"], "mi-pena");
    assert_eq!(project["template"], "nodejs");
    assert_eq!(project["github_url"], "");
    assert_eq!(project["source"], "image");
    assert_eq!(project["env"], json!(["SECRET"]));
    assert_eq!(project["idle_after"], "45m");
    assert!(
        project["created_at"].as_str().is_some_and(|at| at.len() == 20 && at.ends_with('Z')),
        "{project}"
    );
    assert!(project["url"].as_str().is_some_and(|url| url.starts_with("http://")), "{project}");
    for number in ["cpu", "memory", "requests"] {
        assert_eq!(project["metrics"][number].as_f64(), Some(0.0), "{number}");
    }
    let id = project["id"].as_str().expect("an id");
    ana.await_status(id, "running", SOON);
    let listed = ana.get("/api/projects").ok(200);
    assert_eq!(listed["projects"].as_array().map(Vec::len), Some(1));
    let running = ana.get(&format!("/api/projects/{id}"));
    assert!(!running.text.contains("hush"), "the value of a variable is never told: {}", running.text);
    let url = running.body["project"]["url"].as_str().expect("a url").to_owned();
    assert_eq!(Client::new(&url).get("/").text, "hello", "the address of a running project works");
    assert_eq!(ana.get(&format!("/api/containers/{id}/status")).ok(200), json!({"status": "running"}));
    let seen = engine::inspect(&format!("muelle-{id}"));
    assert_eq!(seen["HostConfig"]["Memory"], 64 * 1024 * 1024);
    assert_eq!(seen["HostConfig"]["NanoCpus"], 500_000_000);
    assert!(
        seen["Config"]["Env"].as_array().is_some_and(|env| env.contains(&json!("SECRET=hush"))),
        "{seen}"
    );
    assert_eq!(seen["HostConfig"]["Privileged"], false);
    assert_eq!(seen["HostConfig"]["PortBindings"], json!({}), "nothing is published");
}

#[test]
fn projects_are_listed_newest_first_and_a_name_is_taken_once() {
    let server = Server::start();
    let ana = server.admin();
    let (first, second) = (ana.project("First", WEB), ana.project("Second", WEB));
    let list = ana.get("/api/projects").ok(200);
    let ids: Vec<_> = list["projects"].as_array().expect("a list").iter().map(|p| p["id"].clone()).collect();
    assert_eq!(ids.len(), 2);
    // Both may have been made within one second; then the order is free.
    assert!(ids.contains(&json!(first)) && ids.contains(&json!(second)));
    assert_eq!(ana.post("/api/projects", &json!({"name": "First", "image": WEB})).error(409), "NameTaken");
    let twin = ana.post("/api/projects", &json!({"name": "first!", "image": WEB})).ok(201);
    assert_eq!(twin["project"]["host"], "first-2");
}

#[test]
fn what_a_project_cannot_be_made_of_is_a_400_with_a_sentence() {
    let server = Server::start();
    let ana = server.admin();
    for (body, message) in [
        (json!({"image": WEB}), "Name is required"),
        (json!({"name": "", "image": WEB}), "Name is required"),
        (json!({"name": "x"}), "Give a github_url, an image or a container"),
        (json!({"name": "x", "image": WEB, "container": "y"}), "Give one of github_url, image and container"),
        (
            json!({"name": "x", "image": WEB, "github_url": "https://example.com/u/r"}),
            "Give one of github_url, image and container",
        ),
        (
            json!({"name": "x", "image": WEB, "git_token": "t"}),
            "git_token is for projects that come from a repository",
        ),
        (
            json!({"name": "x", "github_url": "http://example.com/u/r"}),
            "github_url must begin with https:// (deploy.allow_http allows http)",
        ),
        (
            json!({"name": "x", "github_url": "--upload-pack=touch /x"}),
            "github_url must be an address such as https://github.com/user/repository",
        ),
        (
            json!({"name": "x", "github_url": "https://example.com/u/r", "branch": "a..b"}),
            "branch is not a valid name of a branch (for example \"main\")",
        ),
        (
            json!({"name": "x", "github_url": "https://example.com/u/r", "health_path": "x"}),
            "health_path must be a path such as \"/health\"",
        ),
        (
            json!({"name": "api", "image": WEB}),
            "Name would get the address \"api\", which is reserved: choose another",
        ),
        (
            json!({"name": "x", "image": "no-such:1"}),
            "The image no-such:1 is not on this machine; fetch it first: docker pull no-such:1",
        ),
        (
            json!({"name": "x", "image": "../../etc"}),
            "image is not a valid image name (for example \"nginx:1.27\")",
        ),
        (
            json!({"name": "x", "image": WEB, "template": "php"}),
            "template must be one of static, react, flask, nodejs",
        ),
        (json!({"name": "x", "image": WEB, "port": 0}), "port must be a whole number from 1 to 65535"),
        (
            json!({"name": "x", "image": WEB, "memory_mb": 1}),
            "memory_mb must be a whole number from 16 to 4096",
        ),
        (
            json!({"name": "x", "image": WEB, "env": {"A-B": "x"}}),
            "env: \"A-B\" is not a valid variable name",
        ),
        (
            json!({"name": "x", "container": "no-such-container"}),
            "There is no container called no-such-container",
        ),
        (
            json!({"name": "x", "image": WEB, "branch": "main"}),
            "branch is for projects that come from a repository",
        ),
    ] {
        let answer = ana.post("/api/projects", &body);
        assert_eq!(answer.body["message"], message, "{body}: {}", answer.text);
        assert_eq!(answer.error(400), "ValidationError");
    }
    assert_eq!(ana.get("/api/projects").ok(200), json!({"projects": []}), "nothing was made");
}

#[test]
fn status_is_set_by_wishes_only() {
    let server = Server::start();
    let ana = server.admin();
    let id = ana.project("Mine", WEB);
    ana.await_status(&id, "running", SOON);
    let path = format!("/api/projects/{id}/status");
    for wish in ["deploying", "error", "inactive", "exited", "", "Running"] {
        assert_eq!(ana.patch(&path, &json!({"status": wish})).error(400), "ValidationError", "{wish}");
    }
    assert_eq!(ana.patch(&path, &json!({"status": "stopped"})).ok(200)["project"]["status"], "stopped");
    ana.await_status(&id, "stopped", SOON);
    assert!(!engine::is_running(&format!("muelle-{id}")));
    assert_eq!(ana.patch(&path, &json!({"status": "running"})).ok(200)["project"]["status"], "deploying");
    ana.await_status(&id, "running", SOON);
}

#[test]
fn start_stop_and_restart_answer_with_a_message_and_a_status() {
    let server = Server::start();
    let ana = server.admin();
    let id = ana.project("Mine", WEB);
    ana.await_status(&id, "running", SOON);
    let act = |action: &str| {
        let body = ana.post(&format!("/api/containers/{id}/{action}"), &json!({})).ok(200);
        assert!(body["message"].as_str().is_some_and(|m| !m.is_empty()), "{body}");
        body["status"].as_str().expect("a status").to_owned()
    };
    assert_eq!(act("start"), "running", "case 60");
    assert_eq!(act("restart"), "deploying");
    ana.await_status(&id, "running", SOON);
    assert_eq!(act("stop"), "stopped");
    ana.await_status(&id, "stopped", SOON);
    assert_eq!(act("stop"), "stopped", "case 60");
    assert_eq!(act("start"), "deploying");
    ana.await_status(&id, "running", SOON);
    for action in ["create", "rebuild"] {
        assert_eq!(
            ana.post(&format!("/api/containers/{id}/{action}"), &json!({})).error(400),
            "NotFromRepository"
        );
    }
}

#[test]
fn a_deleted_project_is_gone_with_its_container() {
    let server = Server::start();
    let ana = server.admin();
    let id = ana.project("Mine", WEB);
    ana.await_status(&id, "running", SOON);
    let path = format!("/api/projects/{id}");
    assert_eq!(ana.delete(&path).ok(200), json!({"message": "Project deleted successfully"}));
    assert_eq!(ana.delete(&path).error(404), "NotFound", "case 60");
    assert_eq!(ana.get(&path).error(404), "NotFound");
    let name = format!("muelle-{id}");
    crate::harness::eventually("its container is gone", SOON, || match engine::inspect(&name) {
        Value::Null => Ok(()),
        seen => Err(seen["State"].clone()),
    });
    ana.project("Mine", WEB);
}

#[test]
fn settings_are_changed_by_patch_and_take_effect_at_the_next_start() {
    let server = Server::start();
    let ana = server.admin();
    let id = ana.project("Mine", WEB);
    ana.await_status(&id, "running", SOON);
    let path = format!("/api/projects/{id}");
    let renamed = ana.patch(&path, &json!({"name": "Other", "idle_after": "never"})).ok(200);
    assert_eq!((&renamed["project"]["name"], &renamed["project"]["host"]), (&json!("Other"), &json!("mine")));
    assert_eq!(renamed["project"]["restartRequired"], Value::Null);
    let set = ana.patch(&path, &json!({"env": {"A": "1", "B": "2"}, "memory_mb": 128})).ok(200);
    assert_eq!(set["project"]["restartRequired"], true);
    let merged = ana.patch(&path, &json!({"env": {"A": null, "C": "3"}})).ok(200);
    assert_eq!(merged["project"]["env"], json!(["B", "C"]));
    ana.post(&format!("/api/containers/{id}/restart"), &json!({})).ok(200);
    crate::harness::eventually("the new container has the new settings", SOON, || {
        let seen = engine::inspect(&format!("muelle-{id}"));
        let env = seen["Config"]["Env"].as_array().cloned().unwrap_or_default();
        let fits = env.contains(&json!("B=2"))
            && env.contains(&json!("C=3"))
            && seen["HostConfig"]["Memory"] == 128 << 20;
        if fits { Ok(()) } else { Err(seen["Config"]["Env"].clone()) }
    });
    ana.await_status(&id, "running", SOON);
    for (body, message) in [
        (json!({"branch": "main"}), "branch is for projects that come from a repository"),
        (json!({"name": "\n"}), "Name is required"),
        (json!({"cpus": 1e9}), ""),
        (json!({"idle_after": "soon"}), ""),
    ] {
        let answer = ana.patch(&path, &body);
        assert!(message.is_empty() || answer.body["message"] == message, "{}", answer.text);
        assert_eq!(answer.error(400), "ValidationError", "{body}");
    }
}

#[test]
fn an_existing_container_is_adopted_and_left_alone_when_its_project_is_deleted() {
    let server = Server::with("[auth]\nregistration = \"open\"\n");
    let ana = server.admin();
    let container = Container::web();
    let id_before = container.inspect()["Id"].clone();
    let unmanaged = ana.get("/api/containers/unmanaged").ok(200);
    let listed = |list: &Value| {
        list["containers"].as_array().expect("a list").iter().any(|c| c["name"] == container.name.as_str())
    };
    assert!(listed(&unmanaged), "{unmanaged}");
    let made = ana.post("/api/projects", &json!({"name": "Old App", "container": container.name})).ok(201);
    let project = &made["project"];
    assert_eq!((&project["status"], &project["source"]), (&json!("running"), &json!("container")));
    assert_eq!((&project["container"], &project["idle_after"]), (&json!(container.name), &json!("never")));
    assert!(
        !listed(&ana.get("/api/containers/unmanaged").ok(200)),
        "what is adopted can not be adopted again"
    );
    let again = ana.post("/api/projects", &json!({"name": "Twice", "container": container.name}));
    assert_eq!(again.error(409), "ContainerTaken");
    let id = project["id"].as_str().expect("an id");
    let env = ana.patch(&format!("/api/projects/{id}"), &json!({"env": {"A": "1"}}));
    assert_eq!(env.error(400), "ValidationError");
    let idle = ana.patch(&format!("/api/projects/{id}"), &json!({"idle_after": "30m"})).ok(200);
    assert_eq!(idle["project"]["idle_after"], "30m", "its owner may say that it sleeps");
    ana.post(&format!("/api/containers/{id}/stop"), &json!({})).ok(200);
    ana.await_status(id, "stopped", SOON);
    ana.post(&format!("/api/containers/{id}/start"), &json!({})).ok(200);
    ana.await_status(id, "running", SOON);
    let deleted = ana.delete(&format!("/api/projects/{id}")).ok(200);
    assert_eq!(deleted["message"], "Project deleted successfully");
    let note = deleted["note"].as_str().expect("a note");
    assert!(note.contains(&container.name) && note.contains("left as it is"), "{note}");
    assert!(engine::is_running(&container.name));
    assert_eq!(container.inspect()["Id"], id_before);
    let bea = server.client().register("bea");
    let theirs = bea.post("/api/projects", &json!({"name": "x", "container": container.name}));
    assert_eq!(theirs.error(403), "Forbidden");
    assert_eq!(bea.get("/api/containers/unmanaged").error(403), "Forbidden");
}

#[test]
fn a_container_of_muelle_cannot_be_adopted() {
    let server = Server::start();
    let ana = server.admin();
    let id = ana.project("Mine", WEB);
    ana.await_status(&id, "running", SOON);
    let answer = ana.post("/api/projects", &json!({"name": "x", "container": format!("muelle-{id}")}));
    assert_eq!(answer.body["message"], "This container was made by muelle already");
    assert_eq!(answer.error(400), "ValidationError");
}

#[test]
fn case_62_of_two_projects_for_one_name_at_once_one_is_made() {
    let server = Server::start();
    let ana = server.admin();
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let make = || ana.post("/api/projects", &json!({"name": "One", "image": WEB})).status;
        let threads = [scope.spawn(make), scope.spawn(make)];
        threads.map(|thread| thread.join().expect("a status")).to_vec()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
}

#[test]
fn case_29_a_body_may_have_a_mebibyte_and_not_a_byte_more() {
    let server = Server::start();
    let ana = server.admin();
    let of = |bytes: usize| format!("{{\"name\":\"{}\"}}", "x".repeat(bytes - 11));
    let send = |body: String, framing: &[(&str, &str)]| {
        ana.send("POST", "/api/projects", framing, Some(body.as_bytes()))
    };
    let chunked = [("Transfer-Encoding", "chunked")];
    for framing in [&[][..], &chunked] {
        assert_eq!(
            send(of(1 << 20), framing).error(400),
            "ValidationError",
            "it is read, and the name is long"
        );
    }
    assert_eq!(send(of((1 << 20) + 1), &chunked).error(413), "PayloadTooLarge");
    // An announced length is refused before the body, which a client that goes on sending may not live to read.
    let mut socket = std::net::TcpStream::connect(server.base.strip_prefix("http://").unwrap()).unwrap();
    let token = ana.token.as_deref().unwrap();
    let head = format!(
        "POST /api/projects HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        (1 << 20) + 1
    );
    std::io::Write::write_all(&mut socket, head.as_bytes()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut socket, &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("PayloadTooLarge"), "{answer}");
}

#[test]
fn exited_is_the_word_for_stopped_where_it_is_configured() {
    let server = Server::with("[api]\nstopped_word = \"exited\"\n");
    let ana = server.admin();
    let id = ana.project("Mine", WEB);
    ana.await_status(&id, "running", SOON);
    let stream = server.stream(&ana);
    assert_eq!(ana.post(&format!("/api/containers/{id}/stop"), &json!({})).ok(200)["status"], "exited");
    stream.until_status(&id, "exited", SOON);
    assert_eq!(ana.get(&format!("/api/projects/{id}")).ok(200)["project"]["status"], "exited");
}

#[test]
fn health_tells_of_the_engine_the_store_and_the_version_without_a_token() {
    let server = Server::start();
    server.await_engine();
    assert_eq!(server.client().get("/healthz").ok(200), json!({"status": "ok"}));
    let health = crate::harness::eventually("the engine's version is known", SOON, || {
        let health = server.client().get("/api/health").ok(200);
        if health["engine"]["version"].is_null() { Err(health) } else { Ok(health) }
    });
    assert_eq!(health["status"], "ok");
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert!(health["engine"]["version"].as_str().is_some_and(|v| !v.is_empty()), "{health}");
    assert!(health["uptime"].is_u64(), "{health}");
}

#[test]
fn case_28_no_request_header_comes_back_in_an_answer() {
    let server = Server::start();
    let answer = server.client().send(
        "GET",
        "/healthz",
        &[("X-Request-Id", "canary-1"), ("X-Anything", "canary-2")],
        None,
    );
    assert!(answer.headers.iter().all(|(_, value)| !value.contains("canary")), "{:?}", answer.headers);
}
