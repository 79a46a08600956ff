//! The configuration: what is accepted is within its bounds and means the same when read again; what is not is explained.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use muelle::config::{Config, Problem};
use muelle::limits::{CONFIG_LIST_MAX, DEPLOY_TIMEOUT_MAX, PROXY_BODY_TOTAL};

/// In memory, and one for each process.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder =
        if fs::exists("/dev/shm").unwrap_or(false) { "/dev/shm".into() } else { std::env::temp_dir() };
    folder.join(format!("muelle-fuzz-{}.toml", std::process::id()))
});

fuzz_target!(|input: (Option<&str>, &[u8])| {
    let (host, text) = input;
    let load = |text: &[u8]| {
        fs::write(&*FILE, text).expect("a temporary file");
        let loaded =
            Config::load(Some(&FILE), &|name| host.filter(|_| name == "DOCKER_HOST").map(str::to_owned));
        // Removed each time: a run ends by a signal or a crash.
        fs::remove_file(&*FILE).expect("the file");
        loaded
    };
    match load(text) {
        Ok(config) => {
            is_valid(&config);
            assert!(format!("{config:?}").len() > 100);
            assert_eq!(Ok(config), load(&[text, b"\n# nothing\n"].concat()));
        }
        Err(problems) => are_explained(&problems),
    }
});

fn is_valid(config: &Config) {
    let Config { data_dir, trusted_peers, api, auth, docker, metrics, proxy, idle, deploy, limits } = config;
    assert!(data_dir.is_absolute() && docker.socket.is_absolute());
    assert!((1..=CONFIG_LIST_MAX).contains(&api.listen.len()) && trusted_peers.len() <= CONFIG_LIST_MAX);
    let is_origin = |it: &String| {
        it.starts_with("http") && !it.contains(['*', ' ', '\r', '\n', '/']) || it.matches('/').count() == 2
    };
    assert!(api.cors_origins.iter().all(is_origin));
    assert!(
        api.hosts
            .iter()
            .all(|host| !host.is_empty() && *host == host.to_ascii_lowercase() && host.len() <= 253)
    );
    assert!(["stopped", "exited"].contains(&api.stopped_word));
    let day = Duration::from_secs(86_400);
    assert!(
        (day..=day * 365).contains(&auth.token_lifetime) && auth.session_lifetime() >= auth.token_lifetime
    );
    assert!((Duration::from_secs(1)..=Duration::from_secs(60)).contains(&metrics.interval));
    assert!(limits.streams <= limits.connections && limits.connections >= 8 && limits.per_address > 0);
    assert!(limits.project_cpus.is_none_or(|cpus| (0.01..=1024.0).contains(&cpus)));
    assert!(proxy.listen.len() <= CONFIG_LIST_MAX && proxy.host_pattern.contains("{project}"));
    assert!(proxy.public_port != Some(0) && limits.proxy_connections >= 8);
    assert!((Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&proxy.answer_timeout));
    assert!((Duration::from_secs(1)..=PROXY_BODY_TOTAL).contains(&proxy.body_timeout));
    assert!(!idle.wake_timeout.is_zero() && idle.ignore_paths.iter().all(|path| path.starts_with('/')));
    assert!(
        deploy.keep_images > 0
            && !deploy.clone_timeout.is_zero()
            && deploy.build_timeout <= DEPLOY_TIMEOUT_MAX
    );
    assert!(limits.project_memory_mb_default() <= limits.project_memory_mb && limits.project_memory_mb >= 16);
}

fn are_explained(problems: &[Problem]) {
    assert!(!problems.is_empty());
    assert!(problems.iter().all(|problem| !problem.sentence.is_empty() && !problem.to_string().is_empty()));
}
