//! Apps at addresses of their own, through the spawned server to real containers.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::apps::{door, get, say};
use crate::harness::engine::{self, WEB};
use crate::harness::image::TestImage;
use crate::harness::{Answer, Client, Server, eventually};

const SOON: Duration = Duration::from_secs(20);
const PROXY: &str = "[proxy]\nlisten = \"127.0.0.1:0\"\n";
const HOST: &str = "app.admin-ana.localhost";

#[test]
fn case_120_121_an_app_answers_at_its_own_host_however_that_is_written() {
    let server = Server::with(PROXY);
    let ana = server.admin();
    let id = ana.project("Mi App", WEB);
    ana.await_status(&id, "running", SOON);
    let door = door(&server);
    let port = door.split(':').nth(1).unwrap();
    let url = ana.get(&format!("/api/projects/{id}")).ok(200)["project"]["url"].clone();
    assert_eq!(url, format!("http://mi-app.admin-ana.localhost:{port}"));
    for host in ["mi-app.admin-ana.localhost", "MI-APP.Admin-Ana.LocalHost:80", "mi-app.admin-ana.localhost."]
    {
        let answer = get(&door, host);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{host}: {answer}");
    }
    let twin = get(&door, "localhost:3000");
    assert!(twin.starts_with("HTTP/1.1 404 "), "the dashboard's host is no app's: {twin}");
    let forged = "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Host: mi-app.admin-ana.localhost\r\nConnection: close\r\n\r\n";
    assert!(say(&door, forged).starts_with("HTTP/1.1 404 "), "by Host only");
}

#[test]
fn case_119_a_host_that_is_nobodys_is_a_plain_404_and_a_deleted_project_too() {
    let server = Server::with(PROXY);
    let ana = server.admin();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
    let door = door(&server);
    let nobody = get(&door, "nobody.localhost");
    for host in ["127.0.0.1", "xn--e1afmkfd.localhost", &format!("{HOST}.evil"), "app.other.localhost"] {
        assert_eq!(get(&door, host), nobody, "{host}");
    }
    assert!(nobody.starts_with("HTTP/1.1 404 ") && !nobody.contains("app"), "{nobody}");
    ana.delete(&format!("/api/projects/{id}")).ok(200);
    eventually("the deleted one is as absent", SOON, || {
        let answer = get(&door, HOST);
        if answer == nobody { Ok(()) } else { Err(answer) }
    });
}

#[test]
fn what_is_stopped_says_so_and_what_starts_again_is_reached_at_its_new_address() {
    let server = Server::with(PROXY);
    let ana = server.admin();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
    let door = door(&server);
    assert!(get(&door, HOST).ends_with("hello"));
    ana.post(&format!("/api/containers/{id}/stop"), &json!({})).ok(200);
    ana.await_status(&id, "stopped", SOON);
    let answer = get(&door, HOST);
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("This app is stopped"), "{answer}");
    ana.post(&format!("/api/containers/{id}/start"), &json!({})).ok(200);
    ana.await_status(&id, "running", SOON);
    assert!(get(&door, HOST).ends_with("hello"));
    engine::remove(&format!("muelle-{id}"));
    ana.await_status(&id, "stopped", SOON);
    assert!(get(&door, HOST).starts_with("HTTP/1.1 503 "));
}

#[test]
fn the_panel_has_a_host_of_its_own_where_that_is_wanted() {
    let server = Server::with(&format!(
        "{PROXY}panel_host = \"panel.localhost\"\n[api]\nhosts = [\"panel.localhost\"]\n"
    ));
    server.await_engine();
    let door = door(&server);
    let request = "GET /api/health HTTP/1.1\r\nHost: panel.localhost\r\nConnection: close\r\n\r\n";
    let answer = say(&door, request);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\"status\":\"ok\""), "{answer}");
    assert!(get(&door, "localhost").starts_with("HTTP/1.1 404 "));
}

/// Serves 256 MiB of nothing at `/big`.
const BIG: &str =
    "busybox mkdir -p /www; busybox truncate -s 268435456 /www/big; exec busybox httpd -f -p 8080 -h /www";

#[test]
fn case_128_a_large_download_costs_no_memory() {
    let server = Server::with(PROXY);
    let ana = server.admin();
    let image =
        TestImage::new(&[&format!("CMD {}", json!(["/bin/busybox", "sh", "-c", BIG])), "EXPOSE 8080"]);
    let id = ana.project("App", &image.0);
    ana.await_status(&id, "running", SOON);
    let door = door(&server);
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().to_owned();
        line.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert!(get(&door, HOST).starts_with("HTTP/1.1 404 "), "the app's own");
    let before = resident();
    let mut socket = TcpStream::connect(&door).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.write_all(format!("GET /big HTTP/1.0\r\nHost: {HOST}\r\n\r\n").as_bytes()).unwrap();
    let read = std::io::copy(&mut socket, &mut std::io::sink()).unwrap();
    assert!(read > 256 << 20, "{read}");
    let grown = resident() - before;
    assert!(grown < 1024, "{grown} KiB more for 256 MiB");
}

#[test]
fn case_105_requests_are_counted_as_the_app_answered_them_and_survive_kill_9() {
    let mut server = Server::with(PROXY);
    let mut ana = server.admin();
    let id = ana.project("App", WEB);
    ana.await_status(&id, "running", SOON);
    let at = door(&server);
    for _ in 0..20 {
        assert!(get(&at, HOST).ends_with("hello"));
    }
    let missing = format!("GET /none HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    assert!(say(&at, &missing).starts_with("HTTP/1.1 404 "));
    assert!(get(&at, "nobody.localhost").starts_with("HTTP/1.1 404 "), "nobody's request");
    let path = format!("/api/projects/{id}");
    let stream = server.stream(&ana);
    let (event, _) = stream.until("its numbers", SOON, |it| {
        it.name == "metrics_updated" && it.data["metrics"]["requests"] == 21
    });
    assert_eq!(event.data["projectId"], id);
    let project = ana.get(&path).ok(200)["project"].clone();
    assert_eq!(
        (&project["metrics"]["requests"], &project["traffic"]["answers"]),
        (&json!(21), &json!([0, 20, 0, 1, 0]))
    );
    assert!(project["traffic"]["bytes_out"].as_u64().is_some_and(|bytes| bytes > 20 * 5), "{project}");
    let db = rusqlite::Connection::open(server.data().join("muelle.db")).unwrap();
    let stored =
        || db.query_row("SELECT requests FROM counters", [], |row| row.get::<_, u32>(0)).unwrap_or(0);
    eventually("the store has them", SOON, || if stored() == 21 { Ok(()) } else { Err(stored()) });
    drop(stream);
    server.kill();
    server.run();
    ana = ana.with_base(&server.base);
    ana.await_status(&id, "running", SOON);
    assert!(get(&door(&server), HOST).ends_with("hello"));
    assert_eq!(ana.get(&path).ok(200)["project"]["traffic"]["answers"], json!([0, 21, 0, 1, 0]));
    ana.patch(&path, &json!({"memory_mb": 64})).ok(200);
    assert_eq!(ana.get(&path).ok(200)["project"]["traffic"]["answers"], json!([0, 21, 0, 1, 0]), "once each");
    assert_eq!(server.terminate(), Some(0));
    eventually("an end by SIGTERM loses none", SOON, || if stored() == 22 { Ok(()) } else { Err(stored()) });
}

const OWN_DOMAIN: &str = "[proxy]\nlisten = \"127.0.0.1:0\"\ndomain = \"apps.example.com\"\npanel_host = \"panel.example.org\"\n[api]\nhosts = [\"box.example.org\"]\ncors_origins = [\"https://dash.example.org:8443\"]\n[auth]\nregistration = \"open\"\n";

fn domains(answer: Answer) -> Value {
    answer.ok(200)["project"]["domains"].clone()
}

#[test]
fn a_projects_own_domain_leads_to_it_at_once_and_no_longer_than_it_says() {
    let mut server = Server::with(OWN_DOMAIN);
    let mut ana = server.admin();
    let made = json!({"name": "App", "image": WEB, "domains": ["Blog.Example.net.", "blog.example.net"]});
    let project = ana.post("/api/projects", &made).ok(201)["project"].clone();
    let id = project["id"].as_str().unwrap();
    assert_eq!(project["domains"], json!(["blog.example.net"]));
    ana.await_status(id, "running", SOON);
    let (at, path) = (door(&server), format!("/api/projects/{id}"));
    let reaches = |at: &str, host: &str| {
        let answer = get(at, host);
        assert!(answer.ends_with("hello") || answer.starts_with("HTTP/1.1 404 "), "{host}: {answer}");
        answer.ends_with("hello")
    };
    for host in
        ["blog.example.net", "BLOG.example.net:80", "blog.example.net.", "app.admin-ana.apps.example.com"]
    {
        assert!(reaches(&at, host), "{host}");
    }
    assert!(!reaches(&at, "example.net") && !reaches(&at, "a.blog.example.net"));
    let shop = json!({"domains": ["www.shop.example", "shop.example"]});
    assert_eq!(domains(ana.patch(&path, &shop)), json!(["shop.example", "www.shop.example"]));
    assert!(
        !reaches(&at, "blog.example.net") && reaches(&at, "shop.example") && reaches(&at, "www.shop.example")
    );
    assert_eq!(
        domains(ana.patch(&path, &json!({"memory_mb": 64}))),
        json!(["shop.example", "www.shop.example"])
    );
    server.kill();
    server.run();
    ana = ana.with_base(&server.base);
    ana.await_status(id, "running", SOON);
    let at = door(&server);
    assert!(reaches(&at, "shop.example"), "after a kill -9");
    assert_eq!(domains(ana.patch(&path, &json!({"domains": []}))), json!([]));
    assert!(!reaches(&at, "shop.example") && reaches(&at, "app.admin-ana.apps.example.com"));
}

#[test]
fn a_domain_is_nobody_elses_none_of_ours_and_a_host_name() {
    let server = Server::with(OWN_DOMAIN);
    let ana = server.admin();
    let bea = server.client().register("bea");
    let (hers, other) = (ana.project("App", WEB), bea.project("Other", WEB));
    let set = |who: &Client, id: &str, domains: Value| {
        who.patch(&format!("/api/projects/{id}"), &json!({"domains": domains}))
    };
    set(&ana, &hers, json!(["blog.example.net"])).ok(200);
    set(&ana, &hers, json!(["blog.example.net", "b.example.net"])).ok(200);
    let new = json!({"name": "Third", "image": WEB, "domains": ["blog.example.net"]});
    for answer in
        [set(&bea, &other, json!(["x.example.net", "Blog.example.net"])), bea.post("/api/projects", &new)]
    {
        assert_eq!(answer.body["message"], "blog.example.net leads to another project already");
        assert_eq!(answer.error(409), "DomainTaken");
    }
    let sixteen: Vec<String> = (0..16).map(|n| format!("d{n}.example.net")).collect();
    set(&bea, &other, json!(sixteen)).ok(200);
    for bad in [
        json!([&sixteen[..], &["e.example.net".to_owned()]].concat()),
        json!("blog.example.org"),
        json!([7]),
        json!({"a": "b"}),
        json!(["apps.example.com"]),
        json!(["app.admin-ana.apps.example.com"]),
        json!(["anything.apps.example.com"]),
        json!(["panel.example.org"]),
        json!(["box.example.org"]),
        json!(["dash.example.org"]),
        json!(["app.localhost"]),
        json!(["*.example.org"]),
        json!(["192.0.2.1"]),
        json!(["blog.example.org:80"]),
        json!(["blog"]),
    ] {
        assert_eq!(set(&ana, &hers, bad.clone()).error(400), "ValidationError", "{bad}");
    }
    assert_eq!(
        domains(ana.get(&format!("/api/projects/{hers}"))),
        json!(["b.example.net", "blog.example.net"])
    );
    set(&ana, &hers, json!(["example.com", "www.example.com"])).ok(200);
    ana.delete(&format!("/api/projects/{hers}")).ok(200);
    set(&bea, &other, json!(["example.com"])).ok(200);
    let without = Server::start();
    let ana = without.admin();
    let id = ana.project("App", WEB);
    set(&ana, &id, json!(["blog.example.net"])).error(400);
    assert_eq!(domains(set(&ana, &id, json!([]))), json!([]), "nothing is always possible");
}

/// A pattern that does not end with the domain makes hosts that are not below it.
#[test]
fn a_domain_is_no_host_that_a_projects_name_makes_and_never_takes_one_away() {
    let odd = "[proxy]\nlisten = \"127.0.0.1:0\"\nhost_pattern = \"{project}.{user}.{domain}.example.net\"\n[auth]\nregistration = \"open\"\n";
    let server = Server::with(odd);
    let (ana, bea) = (server.admin(), server.client().register("bea"));
    let (_, other) = (ana.project("App", WEB), bea.project("Other", WEB));
    let path = format!("/api/projects/{other}");
    let set = |host: &str| bea.patch(&path, &json!({"domains": [host]}));
    assert_eq!(set("app.admin-ana.localhost.example.net").error(409), "DomainTaken");
    let later = "later.admin-ana.localhost.example.net";
    set(later).ok(200);
    bea.await_status(&other, "running", SOON);
    assert!(get(&door(&server), later).ends_with("hello"));
    let id = ana.project("Later", WEB);
    ana.await_status(&id, "running", SOON);
    ana.post(&format!("/api/containers/{id}/stop"), &json!({})).ok(200);
    ana.await_status(&id, "stopped", SOON);
    let answer = get(&door(&server), later);
    assert!(answer.contains("This app is stopped"), "the name's own project has it: {answer}");
}

#[test]
fn caddy_may_ask_for_what_leads_somewhere_and_strangers_may_not_ask() {
    let server = Server::with(&format!(
        "trusted_peers = [\"127.0.0.1\"]\n{OWN_DOMAIN}[metrics]\nallow = [\"192.0.2.7\"]\n"
    ));
    let ana = server.admin();
    let id = ana.project("App", WEB);
    ana.patch(&format!("/api/projects/{id}"), &json!({"domains": ["blog.example.net"]})).ok(200);
    let client = server.client();
    let ask = |domain: &str, headers: &[(&str, &str)]| {
        client.send("GET", &format!("/api/proxy/allowed?domain={domain}"), headers, None)
    };
    for host in
        ["blog.example.net", "BLOG.example.net", "app.admin-ana.apps.example.com", "panel.example.org"]
    {
        assert_eq!(ask(host, &[]).ok(200), json!({"allowed": true}), "{host}");
    }
    for host in
        ["", "example.net", "a.blog.example.net", "x.apps.example.com", "localhost", "box.example.org", "%00"]
    {
        assert_eq!(ask(host, &[]).error(404), "NotFound", "{host}");
    }
    client.get("/api/proxy/allowed").error(404);
    assert_eq!(ask("blog.example.net", &[("X-Forwarded-For", "192.0.2.7")]).status, 200);
    for others in
        [("X-Forwarded-For", "192.0.2.8"), ("Forwarded", "for=192.0.2.7"), ("X-Real-IP", "192.0.2.7")]
    {
        assert_eq!(ask("blog.example.net", &[others]).error(403), "Forbidden", "{others:?}");
    }
    ana.patch(&format!("/api/projects/{id}"), &json!({"domains": []})).ok(200);
    ask("blog.example.net", &[]).error(404);
}

#[test]
fn a_changed_port_is_for_the_next_container_and_the_one_that_runs_is_reached_at_its_own() {
    let listens =
        "busybox mkdir -p /www; echo ${PORT:=8080} > /www/index.html; exec busybox httpd -f -p $PORT -h /www";
    let image =
        TestImage::new(&[&format!("CMD {}", json!(["/bin/busybox", "sh", "-c", listens])), "EXPOSE 8080"]);
    let mut server = Server::with(PROXY);
    let ana = server.admin();
    let made = ana.post("/api/projects", &json!({"name": "App", "image": image.0, "port": 7000})).ok(201);
    let id = made["project"]["id"].as_str().unwrap().to_owned();
    ana.await_status(&id, "running", SOON);
    assert!(get(&door(&server), HOST).ends_with("7000\n"));
    let changed = ana.patch(&format!("/api/projects/{id}"), &json!({"port": 7001})).ok(200);
    assert_eq!(changed["project"]["restartRequired"], true);
    assert!(get(&door(&server), HOST).ends_with("7000\n"), "it runs on");
    server.kill();
    server.run();
    let ana = ana.with_base(&server.base);
    ana.await_status(&id, "running", SOON);
    assert!(get(&door(&server), HOST).ends_with("7000\n"), "also where muelle is new");
    ana.post(&format!("/api/containers/{id}/restart"), &json!({})).ok(200);
    // Made without a port: the image names one.
    let other = ana.project("Other", &image.0);
    ana.await_status(&other, "running", SOON);
    ana.patch(&format!("/api/projects/{other}"), &json!({"port": 7002})).ok(200);
    assert!(get(&door(&server), "other.admin-ana.localhost").ends_with("8080\n"));
    eventually("the next one listens at the new port", SOON, || {
        let answer = get(&door(&server), HOST);
        if answer.ends_with("7001\n") { Ok(()) } else { Err(answer) }
    });
}
