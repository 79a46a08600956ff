//! Hosts that lead elsewhere, and who is told the token. The other tests are in `tests/it/git.rs`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crossbeam_channel::bounded;

use super::{ASKPASS_PIPE, Cloned, Error, INTERNET, Network, Order, askpass, clone_over, is_2_37_or_newer};
use crate::domain::RepoUrl;

#[expect(dead_code, reason = "shared with the integration tests")]
#[path = "../../../tests/it/harness/git_server.rs"]
mod git_server;

use git_server::{GitServer, Manner};

/// What stands for the internet here, and what for a private network.
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const PRIVATE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// How often the name of the case below was resolved.
static ASKED: AtomicU32 = AtomicU32::new(0);

fn is_public(address: IpAddr) -> bool {
    address == PUBLIC
}

fn clone_strictly(network: &Network, url: &str) -> Result<Cloned, Error> {
    let folder = std::env::temp_dir().join(format!("muelle-clone-{:016x}", getrandom::u64().unwrap()));
    std::fs::create_dir(&folder).unwrap();
    let (_running, stop) = bounded(0);
    let order = Order {
        url: &RepoUrl::parse(url, true).unwrap(),
        branch: None,
        token: None,
        into: &folder.join("files"),
        askpass: Path::new("/nonexistent"),
        allow_private_hosts: false,
        limit: Duration::from_secs(20),
        stop: &stop,
    };
    let done = clone_over(network, &order, &mut |_| {});
    std::fs::remove_dir_all(folder).unwrap();
    done
}

/// The listener takes no connection; whether one has come is known without waiting.
fn was_asked(listener: &TcpListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    listener.accept().is_ok()
}

#[test]
fn case_95_a_host_that_is_public_first_and_private_afterwards_reaches_nothing_private() {
    let server = GitServer::start_on("127.0.0.2:0");
    let commit = server.repo("app").commit(&[("a", "a")]);
    let port = server.address.port();
    let private = TcpListener::bind((PRIVATE, port)).unwrap();
    let network = Network {
        resolve: |_, _| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            Ok(vec![PUBLIC])
        },
        is_public,
    };
    // Names that nobody else knows: git fails as soon as it asks itself.
    for host in ["LOCAL-HOST.example", "local-host.example."] {
        assert_eq!(clone_strictly(&network, &format!("http://{host}:{port}/app")).unwrap().commit, commit);
    }
    assert_eq!(ASKED.load(Ordering::Relaxed), 2);
    assert!(!was_asked(&private));
}

#[test]
fn case_95_a_redirect_to_a_private_host_is_not_followed() {
    let server = GitServer::start_on("127.0.0.2:0");
    let port = server.address.port();
    let private = TcpListener::bind((PRIVATE, 0)).unwrap();
    server.behave(Manner::Redirect(format!("http://{}", private.local_addr().unwrap())));
    let network = Network { resolve: |_, _| Ok(vec![PUBLIC]), is_public };
    let error = clone_strictly(&network, &format!("http://git.example:{port}/app")).unwrap_err();
    assert!(error.to_string().contains("give the address that the server leads to"), "{error}");
    assert_eq!(server.seen().len(), 1);
    assert!(!was_asked(&private));
}

#[test]
fn case_95_a_name_that_leads_to_any_private_address_is_refused() {
    let networks = [
        Network { resolve: |_, _| Ok(vec![PUBLIC, PRIVATE]), is_public },
        Network { resolve: |_, _| Ok(vec!["::ffff:10.0.0.1".parse().unwrap()]), ..INTERNET },
    ];
    for network in networks {
        let error = clone_strictly(&network, "http://git.example:1/app").unwrap_err().to_string();
        assert!(error.starts_with("The host git.example leads to a private address"), "{error}");
    }
    for resolve in [|_: &str, _| Ok(Vec::new()), |_: &str, _| Err(io::ErrorKind::NotFound.into())] {
        let network = Network { resolve, ..INTERNET };
        let error = clone_strictly(&network, "http://git.example:1/app").unwrap_err();
        assert_eq!(error.to_string(), "The host git.example is not known");
    }
}

#[test]
fn case_95_a_git_that_would_ask_for_the_address_itself_is_recognised() {
    for newer in ["git version 2.37.0", "git version 2.47.3 (Apple Git-154)", "git version 3.0.0"] {
        assert!(is_2_37_or_newer(newer), "{newer}");
    }
    for older in ["git version 2.36.6", "git version 1.99.1", "git version 2", "fatal: no", ""] {
        assert!(!is_2_37_or_newer(older), "{older}");
    }
}

#[test]
fn git_is_answered_for_one_origin_only_and_told_the_token_once() {
    let token = crate::domain::Secret::parse("git_token", "canary").unwrap();
    let pipe = super::askpass::offer(&token).unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pipe));
    let answer = |origin: &str, question: &str| {
        askpass(question, |name| Some(if name == ASKPASS_PIPE { path.clone() } else { origin.to_owned() }))
    };
    let origin = "https://git.example:8443";
    assert_eq!(
        answer(origin, "Username for 'https://git.example:8443': ").as_deref(),
        Some("x-access-token")
    );
    for question in [
        "Username for 'https://other.example:8443': ",
        "Password for 'https://x-access-token@other.example:8443': ",
        "Password for 'http://x-access-token@git.example:8443': ",
        "Password for 'https://x-access-token@git.example': ",
        "Password for 'https://x-access-token@git.example:8443@other.example': ",
        "Password for 'https://ana@git.example:8443': ",
        "Password for 'https://git.example:8443': ",
        "",
    ] {
        assert_eq!(answer(origin, question), None, "{question}");
    }
    let question = "Password for 'https://x-access-token@git.example:8443': ";
    assert_eq!(answer(origin, question).as_deref(), Some("canary"));
    assert_eq!(answer(origin, question), None);
}
