//! The rules of the source tree: which layer may use which, and that every module says what it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each part of the crate may use beside itself. The arrows of `src/lib.rs`, as a table.
const MAY_USE: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("threads", &["limits"]),
    ("domain", &["limits", "threads"]),
    ("http", &["domain", "limits", "threads"]),
    ("auth", &["domain", "limits", "threads"]),
    ("host", &["domain", "limits", "threads"]),
    ("docker", &["domain", "limits", "threads"]),
    ("store", &["domain", "limits", "threads"]),
    ("config", &["domain", "limits"]),
    ("runtime", &["store", "docker", "host", "domain", "limits", "threads"]),
    ("proxy", &["runtime", "http", "domain", "limits", "threads"]),
    ("deploy", &["runtime", "store", "docker", "host", "domain", "limits", "threads"]),
    (
        "api",
        &["runtime", "store", "docker", "host", "auth", "http", "domain", "journal", "limits", "threads"],
    ),
    (
        "daemon",
        &[
            "config", "watchdog", "api", "proxy", "deploy", "runtime", "store", "docker", "host", "auth",
            "http", "domain", "limits", "threads",
        ],
    ),
    ("watchdog", &["http", "limits", "threads"]),
    ("journal", &["limits", "threads"]),
    ("lib", &[]),
    ("main", &["terminal"]),
    ("terminal", &[]),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Every source file with its part of the crate and its text.
fn parts() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 20, "the sources are where this test looks");
    files
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(&root).expect("below src").to_owned();
            let first = inside.iter().next().expect("a name").to_string_lossy();
            let text = fs::read_to_string(&path).expect("a source file");
            (first.trim_end_matches(".rs").to_owned(), inside, text)
        })
        .collect()
}

/// The parts of the crate that a text names: `crate::x`, and `crate::{x, y::z}`.
fn used(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for after in text.split("crate::").skip(1) {
        let word = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match after.strip_prefix('{') {
            None => names.push(word(after)),
            Some(list) => {
                let (mut depth, mut item) = (0, String::new());
                for c in list.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => names.push(word(std::mem::take(&mut item).trim())),
                        c if depth == 0 => item.push(c),
                        _ => {}
                    }
                }
                names.push(word(item.trim()));
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn a_layer_uses_only_the_layers_below_it() {
    let table: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for (part, path, text) in parts() {
        let allowed = table.get(part.as_str()).unwrap_or_else(|| panic!("{part} is not in the table"));
        for name in used(&text) {
            if name != part && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{} uses {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_reader_of_uses_understands_lists() {
    assert_eq!(used("use crate::{a::{b, c}, d};\ncrate::e::f()"), ["a", "d", "e"]);
}

fn is_test(path: &Path) -> bool {
    path.iter().any(|part| part == "tests.rs" || part == "tests")
}

#[test]
fn every_module_says_what_it_is() {
    let silent: Vec<_> = parts()
        .into_iter()
        .filter(|(_, path, text)| !is_test(path) && !text.starts_with("//! "))
        .map(|(_, p, _)| p)
        .collect();
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn only_the_store_has_sql_only_docker_opens_its_socket_and_the_domain_is_pure() {
    for (part, path, text) in parts().into_iter().filter(|(_, path, _)| !is_test(path)) {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default().lines();
        let text: String = code
            .filter(|line| !line.trim_start().starts_with("//"))
            .map(|line| line.to_owned() + "\n")
            .collect();
        let at = path.display();
        assert!(part == "store" || !text.contains("rusqlite"), "{at} knows SQL");
        assert!(part == "docker" || !text.contains("UnixStream"), "{at} opens a Unix socket");
        assert!(
            ["runtime", "docker", "http", "proxy"].contains(&part.as_str()) || !text.contains("TcpStream"),
            "{at} opens a socket"
        );
        for impure in ["serde", "::now()", "std::fs", "std::net::T", "log::"] {
            assert!(part != "domain" || !text.contains(impure), "{at}: {impure} has no place in the domain");
        }
        for lazy in ["todo!(", "unimplemented!(", ".unwrap()"] {
            assert!(!text.contains(lazy), "{at}: {lazy}");
        }
    }
}

/// Cases of the list of faults that no test carries yet, by the chapter they wait for. A chapter that is written takes its own out.
const LATER: &[(&str, &[u32])] = &[];

/// The last case of the list of faults.
const LAST_CASE: u32 = 157;

/// The numbers in a test's name: `case_N_words`, `case_N_M_words`, `case_A_to_B_words`, behind any other words.
fn cases(name: &str) -> Vec<u32> {
    let Some((_, rest)) = name.split_once("case_") else { return Vec::new() };
    let words: Vec<&str> = rest.split('_').collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u32>().ok());
    let (mut numbers, mut at) = (Vec::new(), 0);
    while let Some(first) = number(at) {
        let last = number(at + 2).filter(|_| words[at + 1] == "to");
        numbers.extend(first..=last.unwrap_or(first));
        at += if last.is_some() { 3 } else { 1 };
    }
    numbers
}

/// The names of the tests in a source text.
fn tests_in(text: &str) -> impl Iterator<Item = &str> {
    text.split("#[test]\n").skip(1).filter_map(|after| after.split_once("fn ")?.1.split('(').next())
}

#[test]
fn the_reader_of_case_numbers_understands_lists_and_ranges() {
    for (name, numbers) in [
        ("case_7_a_b", &[7][..]),
        ("own_engine_case_78_79_words_3", &[78, 79]),
        ("case_3_to_6_9_words", &[3, 4, 5, 6, 9]),
        ("case_3_to_day", &[3]),
        ("a_case_of_its_own", &[]),
        ("words", &[]),
    ] {
        assert_eq!(cases(name), numbers, "{name}");
    }
    assert_eq!(
        tests_in("#[test]\n#[x]\nfn case_1_a() {}\nfn case_2_b() {}").collect::<Vec<_>>(),
        ["case_1_a"]
    );
}

#[test]
fn every_case_of_the_list_of_faults_is_a_test_or_waits_for_a_chapter_by_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        sources(&root.join(folder), &mut files);
    }
    let texts: Vec<String> =
        files.iter().map(|path| fs::read_to_string(path).expect("a source file")).collect();
    let carried: Vec<u32> = texts.iter().flat_map(|text| tests_in(text)).flat_map(cases).collect();
    let uncovered: Vec<u32> = (1..=LAST_CASE).filter(|case| !carried.contains(case)).collect();
    println!("cases that no test carries: {uncovered:?}");
    let unknown: Vec<&u32> = carried.iter().filter(|case| !(1..=LAST_CASE).contains(*case)).collect();
    assert!(unknown.is_empty(), "no such cases: {unknown:?}");
    let mut later: Vec<u32> = LATER.iter().flat_map(|(_, cases)| cases.iter().copied()).collect();
    later.sort_unstable();
    assert_eq!(uncovered, later, "left: carried by no test; right: what waits for a chapter");
}
