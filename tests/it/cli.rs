//! The command line and its exit codes.

use std::fs;

use crate::harness::Server;
use crate::harness::client::PASSWORD;
use crate::harness::server::run;

#[test]
fn version_and_help_are_said() {
    let (code, said) = run(&["--version"], None, "");
    assert_eq!((code, said.trim()), (0, concat!("muelle ", env!("CARGO_PKG_VERSION"))));
    let (code, said) = run(&["--help"], None, "");
    assert_eq!(code, 0);
    for word in ["serve", "check-config", "user", "backup", "--config"] {
        assert!(said.contains(word), "{word} in {said}");
    }
    assert_eq!(run(&["dance"], None, "").0, 2, "an unknown command is a usage error");
}

#[test]
fn case_114_every_problem_of_a_configuration_is_said_at_once() {
    let server = Server::prepare(
        "[api]\nlisten = \"nowhere\"\ncolour = 1\n[auth]\ntoken_days = 0\n[limits]\nstreams = \"many\"\n",
    );
    for command in ["check-config", "serve"] {
        let (code, said) = server.command(&[command], "");
        assert_eq!(code, 78, "{said}");
        for key in ["api.listen", "api.colour", "auth.token_days", "limits.streams"] {
            assert!(said.contains(key), "{key} in {said}");
        }
    }
    let (code, said) = Server::prepare("").command(&["check-config"], "");
    assert_eq!(code, 0, "{said}");
    let (code, said) = run(&["check-config"], Some("no-such-file.toml".as_ref()), "");
    assert_eq!(code, 78);
    assert!(said.contains("no-such-file.toml"), "{said}");
}

#[test]
fn accounts_are_managed_from_the_command_line() {
    let server = Server::start();
    let user = |arguments: &[&str], input: &str| server.command(&[&["user"], arguments].concat(), input);
    let (code, said) = user(&["add", "ana@example.com", "--name", "Ana Pérez"], &format!("{PASSWORD}\n"));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("administrator"), "{said}");
    let (code, said) = Server::prepare("").command(&["user", "list"], "");
    assert!(code == 1 && said.contains("there is no database"), "in the wrong folder: {code} {said}");
    let (code, said) = user(&["add", "ana@example.com"], &format!("{PASSWORD}\n"));
    assert!(code == 1 && said.contains("already"), "{code} {said}");
    let (code, said) = user(&["add", "bea@example.com"], "short\n");
    assert!(code == 1 && said.contains("at least 8"), "{code} {said}");
    assert_eq!(user(&["add", "bea@example.com"], &format!("{PASSWORD}\n")).0, 0);
    let (_, list) = user(&["list"], "");
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(list.contains("ana@example.com\tadministrator\tana\tAna Pérez"), "{list}");
    let body = serde_json::json!({"email": "bea@example.com", "password": PASSWORD});
    server.client().post("/api/auth/login", &body).ok(200);
    let (code, said) = user(&["delete", "nobody@example.com"], "");
    assert!(code == 1 && said.contains("there is no account"), "{code} {said}");
    assert_eq!(user(&["delete", "bea@example.com"], "").0, 0);
    assert_eq!(user(&["list"], "").1.lines().count(), 1);
}

#[test]
fn an_account_with_projects_is_not_deleted() {
    let server = Server::start();
    let ana = server.admin();
    ana.project("Mine", crate::harness::engine::WEB);
    let (code, said) = server.command(&["user", "delete", "admin-ana@example.com"], "");
    assert!(code == 1 && said.contains("1 project"), "{code} {said}");
    ana.get("/api/auth/me").ok(200);
}

#[test]
fn a_backup_is_a_whole_database_and_never_overwrites() {
    let server = Server::start();
    server.client().register("ana");
    let file = server.dir.join("copy.db");
    let file_name = file.to_str().unwrap();
    let (code, said) = server.command(&["backup", file_name], "");
    assert_eq!(code, 0, "{said}");
    let copy = rusqlite::Connection::open(&file).unwrap();
    let users: u32 = copy.query_row("SELECT count(*) FROM users", [], |row| row.get(0)).unwrap();
    assert_eq!(users, 1);
    let before = fs::read(&file).unwrap();
    let (code, said) = server.command(&["backup", file_name], "");
    assert!(code == 1 && said.contains(file_name), "{code} {said}");
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn case_100_a_damaged_database_is_refused_and_left_alone() {
    let mut server = Server::start();
    server.client().register("ana");
    assert_eq!(server.terminate(), Some(0));
    let file = server.data().join("muelle.db");
    let good = fs::read(&file).unwrap();
    let half = &good[..good.len() / 2];
    for (what, bytes) in [("empty", &b""[..]), ("text", b"this is not a database, really not"), ("cut", half)]
    {
        fs::write(&file, bytes).unwrap();
        let (code, said) = server.command(&["serve"], "");
        assert_eq!(code, 78, "{what}: {said}");
        assert!(said.contains("muelle.db"), "{what}: {said}");
        assert_eq!(fs::read(&file).unwrap(), bytes, "{what}: never written over");
    }
    fs::write(&file, good).unwrap();
    server.run();
}

#[test]
fn case_45_a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let mut server = Server::start();
    assert_eq!(server.terminate(), Some(0));
    let key = server.data().join("token.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, said) = server.command(&["serve"], "");
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("token.key"), "{said}");
}
