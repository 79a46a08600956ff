//! Section 3 of the contract: accounts, tokens, sessions, throttling.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::client::PASSWORD;
use crate::harness::{Client, Server};

fn login(client: &Client, email: &str, password: &str) -> crate::harness::Answer {
    client.post("/api/auth/login", &json!({"email": email, "password": password}))
}

fn field(body: &Value, name: &str) -> String {
    body[name].as_str().unwrap_or_else(|| panic!("{name} in {body}")).to_owned()
}

#[test]
fn registering_logging_in_and_out_is_as_in_the_contract() {
    let server = Server::start();
    let client = server.client();
    let made = client
        .post(
            "/api/auth/register",
            &json!({"email": "Ana@Example.com", "password": PASSWORD, "name": "Ana Pérez"}),
        )
        .ok(201);
    assert_eq!(
        (&made["user"]["email"], &made["user"]["name"]),
        (&json!("ana@example.com"), &json!("Ana Pérez"))
    );
    assert_eq!(made["user"].as_object().map(serde_json::Map::len), Some(3), "id, email and name: {made}");
    let ana = client.with_token(&field(&made, "token"));
    assert_eq!(ana.get("/api/auth/me").ok(200), json!({"user": made["user"]}));
    let again = login(&client, "ANA@example.com", PASSWORD).ok(200);
    assert_eq!(again["user"], made["user"]);
    for name in ["token", "refresh_token"] {
        assert!(
            field(&again, name).bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)),
            "{name} is URL-safe"
        );
    }
    assert_eq!(
        ana.post("/api/auth/logout", &json!({})).ok(200),
        json!({"message": "Logged out successfully"})
    );
    assert_eq!(ana.get("/api/auth/me").error(401), "Unauthorized");
    assert_eq!(ana.post("/api/auth/logout", &json!({})).error(401), "Unauthorized");
    client.with_token(&field(&again, "token")).get("/api/auth/me").ok(200);
}

#[test]
fn case_52_the_first_account_is_made_locally_and_registration_is_closed_then() {
    let server = Server::start();
    let client = server.client();
    let body = json!({"email": "ana@example.com", "password": PASSWORD, "name": "Ana"}).to_string();
    for header in ["X-Forwarded-For", "Forwarded", "X-Forwarded-Host", "X-Real-IP"] {
        let forwarded =
            client.send("POST", "/api/auth/register", &[(header, "203.0.113.7")], Some(body.as_bytes()));
        assert_eq!(forwarded.error(403), "RegistrationClosed", "{header}");
    }
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let register = |name: &'static str| {
            let client = client.clone();
            move || {
                client
                    .post(
                        "/api/auth/register",
                        &json!({"email": format!("{name}@example.com"), "password": PASSWORD, "name": name}),
                    )
                    .status
            }
        };
        let threads = [scope.spawn(register("ana")), scope.spawn(register("bea"))];
        threads.map(|thread| thread.join().unwrap()).to_vec()
    });
    assert!(statuses.contains(&201) && statuses.contains(&403), "two at once: exactly one: {statuses:?}");
    let (_, list) = server.command(&["user", "list"], "");
    assert_eq!(list.matches("administrator").count(), 1, "{list}");
}

#[test]
fn registration_can_be_open_and_says_what_is_wrong() {
    let server = Server::with("[auth]\nregistration = \"open\"\n");
    let client = server.client();
    client.register("ana");
    client.register("bea");
    let register = |body: &Value| client.post("/api/auth/register", body);
    let good = json!({"email": "cleo@example.com", "password": PASSWORD, "name": "Cleo"});
    for (name, value, message) in [
        ("email", json!("ana@example.com"), "This e-mail is already registered"),
        ("email", json!("cleo"), "Email is not a valid address"),
        ("email", json!(null), "Email is required"),
        (
            "email",
            json!("api@example.com"),
            "Email would get the address \"api\", which is reserved: choose another",
        ),
        ("password", json!("short"), "Password needs at least 8 characters"),
        ("password", json!("x".repeat(1_000_000)), "Password is longer than 128 bytes"),
        ("password", json!(""), "Password is required"),
        ("password", json!("nul\u{0}nul\u{0}nul"), "Password must not contain a NUL byte"),
        ("name", json!(""), "Name is required"),
        ("name", json!("a\nb"), "Name must not contain control characters"),
        ("admin", json!(true), "Unknown field: admin"),
    ] {
        let mut body = good.clone();
        body[name] = value;
        let answer = register(&body);
        assert_eq!(answer.body["message"], message, "case 50: {}", answer.text);
        assert!(matches!(answer.status, 400 | 409), "{}", answer.text);
    }
    let twin =
        register(&json!({"email": "ana@elsewhere.example", "password": PASSWORD, "name": "Ana too"})).ok(201);
    assert_eq!(twin["user"]["email"], "ana@elsewhere.example");
    let (_, list) = server.command(&["user", "list"], "");
    assert!(list.contains("\tana-2\t"), "host labels are unique: {list}");
}

#[test]
fn case_47_an_unknown_user_and_a_wrong_password_get_the_same_answer() {
    let server = Server::start();
    let client = server.client();
    client.register("ana");
    let (wrong, unknown) = (
        login(&client, "ana@example.com", "wrong password"),
        login(&client, "nobody@example.com", "wrong password"),
    );
    assert_eq!(wrong.text, unknown.text);
    assert_eq!(wrong.body["message"], "Invalid email or password");
    assert_eq!(wrong.error(401), unknown.error(401));
    assert_eq!(
        login(&client, "ana@example.com", "short").error(401),
        "InvalidCredentials",
        "a short one is just wrong"
    );
    for (password, message) in [
        ("x".repeat(1_000_000), "Password is longer than 128 bytes"),
        (String::new(), "Password is required"),
        ("nul\u{0}".to_owned(), "Password must not contain a NUL byte"),
    ] {
        let answer = login(&client, "ana@example.com", &password);
        assert_eq!(answer.body["message"], message, "case 50");
        assert_eq!(answer.error(400), "ValidationError");
    }
}

#[test]
fn case_48_an_address_that_fails_five_times_is_refused_for_a_while() {
    let server = Server::with("trusted_peers = [\"127.0.0.1\"]\n");
    let client = server.client();
    // Registering needs a caller without a proxy.
    client.register("ana");
    let from = |address: &str, email: &str, password: &str| {
        let body = json!({"email": email, "password": password}).to_string();
        client.send("POST", "/api/auth/login", &[("X-Forwarded-For", address)], Some(body.as_bytes()))
    };
    for n in 0..5 {
        // Different accounts: it is the address that guesses.
        assert_eq!(from("203.0.113.7", &format!("user{n}@example.com"), "wrong password").status, 401);
    }
    let refused = from("203.0.113.7", "ana@example.com", PASSWORD);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=900).contains(&wait), "{wait} s");
    assert_eq!(refused.error(429), "TooManyAttempts");
    let began = Instant::now();
    from("203.0.113.8", "ana@example.com", PASSWORD).ok(200);
    assert!(began.elapsed() < Duration::from_secs(2), "others are not held up");
}

#[test]
fn refreshing_rotates_and_the_old_token_works_a_little_longer() {
    let server = Server::start();
    let client = server.client();
    client.register("ana");
    let first = login(&client, "ana@example.com", PASSWORD).ok(200);
    let (access, refresh) = (field(&first, "token"), field(&first, "refresh_token"));
    let rotate = |token: &str| client.with_token(token).post("/api/auth/refresh", &json!({}));
    let second = rotate(&refresh).ok(200);
    assert_eq!(second.as_object().map(serde_json::Map::len), Some(2), "{second}");
    client.with_token(&field(&second, "access_token")).get("/api/auth/me").ok(200);
    let other_tab = rotate(&refresh).ok(200);
    client.with_token(&field(&other_tab, "access_token")).get("/api/auth/me").ok(200);
    let third = rotate(&field(&second, "refresh_token")).ok(200);
    assert_eq!(rotate(&refresh).error(401), "Unauthorized", "two rotations ago");
    assert_eq!(rotate(&access).error(401), "Unauthorized", "case 42");
    assert_eq!(client.with_token(&refresh).get("/api/auth/me").error(401), "Unauthorized", "case 42");
    client.with_token(&field(&third, "access_token")).post("/api/auth/logout", &json!({})).ok(200);
    assert_eq!(rotate(&field(&third, "refresh_token")).error(401), "Unauthorized", "the session is over");
}

#[test]
fn tokens_survive_a_restart_and_end_with_a_new_password_or_the_account() {
    let mut server = Server::start();
    let ana = server.client().register("ana");
    assert_eq!(server.terminate(), Some(0));
    server.run();
    let ana = ana.with_base(&server.base);
    ana.get("/api/auth/me").ok(200);
    let (code, said) = server.command(&["user", "passwd", "ana@example.com"], "another password\n");
    assert_eq!(code, 0, "{said}");
    let gone = |client: &Client| {
        crate::harness::eventually("the token is refused", Duration::from_secs(5), || {
            let answer = client.get("/api/auth/me");
            if answer.status == 401 { Ok(()) } else { Err(answer.status) }
        });
    };
    gone(&ana);
    assert_eq!(login(&ana, "ana@example.com", PASSWORD).status, 401, "case 44");
    let fresh = login(&ana, "ana@example.com", "another password").ok(200);
    let ana = ana.with_token(&field(&fresh, "token"));
    ana.get("/api/auth/me").ok(200);
    let (code, said) = server.command(&["user", "delete", "ana@example.com"], "");
    assert_eq!(code, 0, "{said}");
    gone(&ana);
}

#[test]
fn case_53_no_password_and_no_token_is_in_the_log_or_the_data() {
    let mut server = Server::start();
    let client = server.client();
    client.register("ana");
    let body = login(&client, "ana@example.com", PASSWORD).ok(200);
    let ana = client.with_token(&field(&body, "token"));
    login(&client, "ana@example.com", "canary password");
    drop(server.stream(&ana));
    ana.get(&format!("/api/projects?token={}", field(&body, "token"))).ok(200);
    ana.get("/api/projects/canary%0d%0a").error(404);
    let secrets = [PASSWORD, "canary password", &field(&body, "token"), &field(&body, "refresh_token")];
    assert_eq!(server.terminate(), Some(0));
    let log = server.log();
    for secret in secrets {
        assert!(!log.contains(secret), "in the log");
        for file in std::fs::read_dir(server.data()).unwrap() {
            let path = file.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "in {}", path.display());
        }
    }
}

#[test]
fn case_49_many_logins_at_once_leave_the_rest_of_the_api_alone() {
    let server = Server::with("[limits]\nper_address = 300\n");
    let client = server.client();
    let ana = client.register("ana");
    std::thread::scope(|scope| {
        let logins: Vec<_> =
            (0..100).map(|_| scope.spawn(|| login(&client, "ana@example.com", PASSWORD).status)).collect();
        for _ in 0..50 {
            ana.get("/api/projects").ok(200);
        }
        let statuses: Vec<u16> = logins.into_iter().map(|login| login.join().unwrap()).collect();
        assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
        assert!(statuses.iter().filter(|status| **status == 200).count() >= 16, "{statuses:?}");
    });
}
