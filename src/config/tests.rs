use std::fs;

use super::*;

fn no_env(_: &str) -> Option<String> {
    None
}

fn good(text: &str) -> Config {
    parse(text, Path::new("/etc/muelle"), &no_env).expect("valid").0
}

fn problems(text: &str) -> Vec<Problem> {
    parse(text, Path::new("/etc/muelle"), &no_env).map(|_| ()).expect_err("refused")
}

#[test]
fn the_example_lists_every_key_with_its_default() {
    let example = include_str!("../../config.toml.example");
    // A line `#key = value` is a key with its default, a line `# text` explains.
    let is_key =
        |line: &str| line.starts_with('#') && line.as_bytes().get(1).is_some_and(u8::is_ascii_lowercase);
    let text: String =
        example.lines().map(|line| line[usize::from(is_key(line))..].to_owned() + "\n").collect();
    let (mut config, known) = parse(&text, Path::new("/etc/muelle"), &no_env).expect("valid");
    assert!(std::mem::take(&mut config.api.listen_named) && std::mem::take(&mut config.proxy.listen_named));
    assert_eq!(config, good(""));
    assert_eq!(good(example), good(""), "as it is, it changes nothing");
    let mut section = String::new();
    let mut listed = Vec::new();
    for line in example.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.replace(']', ".");
        } else if is_key(line) {
            listed.push(section.clone() + line[1..].split(' ').next().unwrap_or_default());
        }
    }
    assert_eq!(listed, known);
}

#[test]
fn without_a_file_everything_has_its_default() {
    let config = good("");
    assert_eq!(config.data_dir, Path::new("/etc/muelle/data"));
    assert_eq!(
        config.api.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["127.0.0.1:3000", "[::1]:3000"]
    );
    assert_eq!(config.api.cors_origins.len(), 4);
    assert_eq!(config.api.stopped_word, "stopped");
    assert_eq!(config.auth.registration, Registration::Closed);
    assert_eq!(config.auth.token_lifetime, Duration::from_secs(604_800));
    assert_eq!(config.auth.session_lifetime(), REFRESH_LIFETIME);
    assert_eq!(config.docker.socket, Path::new("/var/run/docker.sock"));
    assert_eq!(config.metrics.interval, Duration::from_secs(4));
    assert_eq!(config.limits.project_memory_mb_default(), 512);
    assert_eq!(config.limits.project_cpus, None);
}

#[test]
fn every_key_is_read() {
    let config = good(
        r#"
        data_dir = "../data"
        trusted_peers = ["127.0.0.1", "::1"]
        [api]
        listen = "0.0.0.0:80"
        cors_origins = "https://panel.example.org"
        hosts = ["Home.LAN"]
        stopped_word = "exited"
        [auth]
        registration = "open"
        token_days = 365
        [docker]
        socket = "run/docker.sock"
        reach = "published"
        [metrics]
        interval = "1s"
        source = "cgroup"
        allow = ["192.0.2.7"]
        [limits]
        connections = 100
        per_address = 10
        streams = 50
        streams_per_user = 5
        project_memory_mb = 256
        project_cpus = 2
        "#,
    );
    assert_eq!(config.data_dir, Path::new("/etc/muelle/../data"));
    assert_eq!(config.trusted_peers.len(), 2);
    let api = Api {
        listen_named: true,
        listen: vec!["0.0.0.0:80".parse().unwrap()],
        cors_origins: vec!["https://panel.example.org".into()],
        hosts: vec!["home.lan".into()],
        stopped_word: "exited",
    };
    assert_eq!(config.api, api);
    assert_eq!(config.auth.registration, Registration::Open);
    assert_eq!(config.auth.session_lifetime(), Duration::from_secs(365 * 86_400), "as long as its token");
    let socket = PathBuf::from("/etc/muelle/run/docker.sock");
    assert_eq!(config.docker, Docker { socket, reach: Reach::Published });
    assert_eq!(
        config.metrics,
        Metrics {
            interval: Duration::from_secs(1),
            source: MetricsSource::Cgroup,
            allow: vec!["192.0.2.7".parse().unwrap()]
        }
    );
    let limits = Limits {
        connections: 100,
        proxy_connections: 1024,
        per_address: 10,
        streams: 50,
        streams_per_user: 5,
        project_memory_mb: 256,
        project_cpus: Some(2.0),
    };
    assert_eq!(config.limits.project_memory_mb_default(), 256);
    assert_eq!(config.limits, limits);
    assert_eq!(good("[limits]\nconnections = 100").limits.streams, 100);
    assert_eq!(good("[limits]\nproject_cpus = 0.5").limits.project_cpus, Some(0.5));
}

#[test]
fn every_key_of_sleep_is_read() {
    let config = good(
        r#"
        [idle]
        after = "never"
        grace = "0s"
        cpu_floor = 5
        traffic_floor = 20
        action = "pause"
        wake_timeout = "10m"
        ignore_user_agents = ["GoogleBot"]
        ignore_paths = []
        "#,
    );
    let idle = Idle {
        after: IdleAfter::Never,
        grace: Duration::ZERO,
        cpu_floor: 5.0,
        traffic_floor: 20_000,
        action: Nap::Pause,
        wake_timeout: Duration::from_secs(600),
        ignore_user_agents: vec!["googlebot".into()],
        ignore_paths: Vec::new(),
    };
    assert_eq!(config.idle, idle);
}

#[test]
fn case_114_every_problem_is_told_at_once_with_its_key() {
    let found = problems(
        r#"
        data_dir = 3
        listen = "127.0.0.1:80"
        limits = 5
        trusted_peers = ["127.0.0.1", "localhost"]
        [api]
        listen = ["127.0.0.1"]
        cors_origin = "http://x"
        [auth]
        token_days = "7"
        registration = "maybe"
        [dokcer]
        socket = "/x"
        [stopped_word]
        [metrics]
        interval = "4"
        "#,
    );
    let keys: Vec<_> = found.iter().map(|p| p.key.as_str()).collect();
    let expected = [
        "data_dir",
        "trusted_peers",
        "api.listen",
        "auth.registration",
        "auth.token_days",
        "metrics.interval",
        "limits",
        "listen",
        "api.cors_origin",
        "dokcer",
        "stopped_word",
    ];
    assert_eq!(keys, expected, "{found:#?}");
    let said: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(said[0], "data_dir: must be a text in quotes, not integer");
    assert_eq!(said[3], "auth.registration: must be \"closed\" or \"open\"");
    assert_eq!(said[4], "auth.token_days: must be a whole number from 1 to 365");
    assert_eq!(said[6], "limits: must be a section of its own");
    assert_eq!(
        said[8],
        "api.cors_origin: is not known here; known are listen, cors_origins, hosts, stopped_word"
    );
}

/// Values that no key takes, by their section.
const BAD: &[(&str, &str)] = &[
    ("", "data_dir = ''"),
    ("", "data_dir = \"a\\u0000b\""),
    ("", "trusted_peers = [1]"),
    ("", "trusted_peers = '10.0.0.0/8'"),
    ("api", "listen = []"),
    ("api", "listen = 3000"),
    ("api", "listen = ':3000'"),
    ("api", "listen = 'localhost:3000'"),
    ("api", "listen = '127.0.0.1:99999'"),
    ("api", "cors_origins = ['*']"),
    ("api", "cors_origins = ['null']"),
    ("api", "cors_origins = ['http://x/']"),
    ("api", "cors_origins = ['http://X']"),
    ("api", "cors_origins = ['ftp://x']"),
    ("api", "cors_origins = [\"http://x\\r\\nEvil: 1\"]"),
    ("api", "hosts = ['a:80']"),
    ("api", "hosts = ['']"),
    ("api", "stopped_word = 'Exited'"),
    ("auth", "token_days = 0"),
    ("auth", "token_days = 366"),
    ("auth", "token_days = -1"),
    ("auth", "token_days = 1.5"),
    ("docker", "socket = 'tcp://127.0.0.1:2375'"),
    ("docker", "socket = ''"),
    ("docker", "reach = 'host'"),
    ("metrics", "interval = 4"),
    ("metrics", "interval = '0s'"),
    ("metrics", "interval = '61s'"),
    ("metrics", "source = 'x'"),
    ("proxy", "listen = 8080"),
    ("proxy", "domain = 'a b'"),
    ("proxy", "host_pattern = '{project}.{domain}'"),
    ("proxy", "host_pattern = '{project}{user}{domain}'"),
    ("proxy", "host_pattern = '{project}.{user}.{domain}/x'"),
    ("proxy", "public_port = 0"),
    ("proxy", "public_port = 'other'"),
    ("proxy", "scheme = 'ftp'"),
    ("proxy", "panel_host = 'a:80'"),
    ("deploy", "allow_http = 1"),
    ("deploy", "clone_timeout = '0s'"),
    ("deploy", "build_timeout = '5h'"),
    ("deploy", "build_cpus = 0"),
    ("deploy", "keep_images = 0"),
    ("deploy.images", "node = '../x'"),
    ("deploy.images", "ruby = 'x'"),
    ("limits", "connections = 0"),
    ("limits", "streams = 1025"),
    ("limits", "project_memory_mb = 1"),
    ("limits", "project_memory_mb = 9223372036854775807"),
    ("limits", "project_cpus = 0"),
    ("limits", "project_cpus = nan"),
    ("limits", "project_cpus = inf"),
    ("limits", "project_cpus = -1.0"),
    ("idle", "after = '0s'"),
    ("idle", "after = 'soon'"),
    ("idle", "grace = '2d'"),
    ("idle", "cpu_floor = 0"),
    ("idle", "cpu_floor = 101"),
    ("idle", "traffic_floor = 0"),
    ("idle", "traffic_floor = '10 KB'"),
    ("idle", "action = 'kill'"),
    ("idle", "wake_timeout = 60"),
    ("idle", "ignore_user_agents = ''"),
    ("idle", "ignore_user_agents = ['bot', ' ']"),
    ("idle", "ignore_paths = ['robots.txt']"),
];

#[test]
fn case_114_bad_values_are_refused() {
    for (section, line) in BAD {
        let header = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
        let found = problems(&format!("{header}{line}"));
        let key = format!("{section}.{}", line.split(' ').next().unwrap_or_default());
        assert_eq!(
            (found.len(), found[0].key.as_str()),
            (1, key.trim_start_matches('.')),
            "{line}: {found:?}"
        );
    }
    let many = format!("trusted_peers = [{}]", "'127.0.0.1',".repeat(CONFIG_LIST_MAX + 1));
    assert_eq!(problems(&many).len(), 1);
}

#[test]
fn case_114_what_is_not_toml_is_told_with_its_line() {
    for (text, line) in [("data_dir = ./x", "line 1"), ("\n\n[api\n", "line 3"), ("a=1\na=2", "line 2")] {
        let found = problems(text);
        assert_eq!((found.len(), found[0].key.as_str()), (1, line), "{found:?}");
    }
}

#[test]
fn the_engines_variable_speaks_where_the_file_does_not() {
    let with = |text: &str, host: &str| {
        let host = host.to_owned();
        parse(text, Path::new("/"), &move |name| (name == "DOCKER_HOST").then(|| host.clone()))
            .map(|(config, _)| config.docker.socket.display().to_string())
    };
    assert_eq!(with("", "unix:///run/user/1000/docker.sock").unwrap(), "/run/user/1000/docker.sock");
    assert_eq!(with("", "").unwrap(), "/var/run/docker.sock");
    assert_eq!(with("[docker]\nsocket = '/x'", "tcp://1.2.3.4:2375").unwrap(), "/x");
    assert_eq!(with("[docker]\nsocket = 'unix:///x'", "").unwrap(), "/x");
    for host in ["tcp://1.2.3.4:2375", "ssh://root@x", "unix://", "unix://relative", "/var/run/docker.sock"] {
        let found = with("", host).unwrap_err();
        assert_eq!((found.len(), found[0].key.as_str()), (1, "DOCKER_HOST"));
        assert!(found[0].sentence.contains("unix:///"), "{}", found[0]);
    }
}

#[test]
fn paths_are_relative_to_the_file_and_a_named_file_must_exist() {
    let folder = std::env::temp_dir().join(format!("muelle-config-{:016x}", getrandom::u64().unwrap()));
    fs::create_dir(&folder).unwrap();
    let file = folder.join("my.toml");
    let missing = Config::load(Some(&file), &no_env).unwrap_err();
    assert!(missing.len() == 1 && missing[0].key.ends_with("my.toml"), "{missing:?}");
    fs::write(&file, "data_dir = 'd'").unwrap();
    assert_eq!(Config::load(Some(&file), &no_env).unwrap().data_dir, folder.join("d"));
    fs::write(&file, [0xff, 0xfe]).unwrap();
    assert_eq!(Config::load(Some(&file), &no_env).unwrap_err().len(), 1);
    fs::write(&file, "#".repeat(2_000_000)).unwrap();
    assert!(Config::load(Some(&file), &no_env).unwrap_err()[0].sentence.contains("larger than 1024 KiB"));
    assert_eq!(Config::load(Some(&folder), &no_env).unwrap_err().len(), 1, "a directory is no file");
    fs::remove_dir_all(&folder).unwrap();
    assert!(Config::load(None, &no_env).unwrap().data_dir.is_absolute(), "here is no config.toml");
}

#[test]
fn how_long_the_proxy_waits_for_apps_has_bounds() {
    let proxy = good("[proxy]\nanswer_timeout = \"1h\"\nbody_timeout = \"1day\"").proxy;
    assert_eq!((proxy.answer_timeout, proxy.body_timeout), (Duration::from_secs(3600), PROXY_BODY_TOTAL));
    let proxy = good("[proxy]\nanswer_timeout = \"1s\"\nbody_timeout = \"1s\"").proxy;
    assert_eq!((proxy.answer_timeout, proxy.body_timeout), (Duration::from_secs(1), Duration::from_secs(1)));
    let proxy = good("").proxy;
    assert_eq!((proxy.answer_timeout, proxy.body_timeout), (PROXY_ANSWER_MAX, PROXY_BODY_IDLE));
    for (key, bad) in [
        ("answer_timeout", "\"3601s\""),
        ("answer_timeout", "\"999ms\""),
        ("answer_timeout", "60"),
        ("body_timeout", "\"86401s\""),
        ("body_timeout", "\"0s\""),
        ("body_timeout", "\"never\""),
    ] {
        let problems = problems(&format!("[proxy]\n{key} = {bad}"));
        assert_eq!(problems.len(), 1, "{key} = {bad}");
        assert_eq!(problems[0].key, format!("proxy.{key}"));
    }
}
