//! The head of a request: any split parses the same, what is accepted obeys the bounds, and `httparse` reads the same in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muelle::http::{Framing, Head, Parsed, Version, parse};
use muelle::limits::{HTTP_HEAD_MAX, HTTP_HEADERS_MAX, HTTP_REQUEST_LINE_MAX};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    // A split is some of the prefixes: once decided, every longer one says the same. All of them take square time.
    let step = 1 + bytes.len() / 256;
    let prefixes = (0..=bytes.len()).step_by(step).map(|length| parse(&bytes[..length]));
    for prefix in prefixes.skip_while(|parsed| *parsed == Parsed::Partial) {
        assert_eq!(prefix, whole);
    }
    match &whole {
        Parsed::Partial => assert!(bytes.len() <= HTTP_HEAD_MAX, "it waits for more than it would take"),
        Parsed::Refused(refusal) => assert!((400..600).contains(&refusal.status())),
        Parsed::Complete(head, length) => {
            assert!(*length <= HTTP_HEAD_MAX);
            obeys_the_rules(head);
            reads_the_same(bytes, head, *length);
        }
    }
});

fn obeys_the_rules(head: &Head) {
    let plain = |text: &str| !text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t');
    assert!(head.headers().count() <= HTTP_HEADERS_MAX + 1);
    assert!(head.headers().all(|(name, value)| !name.is_empty() && plain(name) && plain(value)));
    let hosts = head.all("host").count();
    assert!(hosts == 1 || hosts == 0 && head.version() == Version::Http10);
    let target = head.target();
    assert!(target.len() <= HTTP_REQUEST_LINE_MAX && target.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(target.starts_with('/') || target == "*");
    assert_eq!(
        target,
        head.query().map_or(head.path().to_owned(), |query| [head.path(), "?", query].concat())
    );
    assert!(!["CONNECT", "TRACE"].contains(&head.method().as_str()));
    let (lengths, encodings) = (head.all("content-length").count(), head.all("transfer-encoding").count());
    match head.framing() {
        Framing::Empty => {
            assert!(encodings == 0 && head.all("content-length").all(|it| it.trim_matches('0').is_empty()))
        }
        Framing::Length(length) => {
            assert_eq!((lengths, encodings), (1, 0));
            assert_eq!(head.get("content-length").and_then(|text| text.parse().ok()), Some(length));
        }
        Framing::Chunked => assert_eq!((lengths, encodings, head.version()), (0, 1, Version::Http11)),
    }
    // A token is written `?token=…` and must not get into the log. By chance it can be a part of what is shown.
    let shown = format!("{head:?}").replacen(head.method().as_str(), "", 1).replacen(head.path(), "", 1);
    assert!(head.query().is_none_or(|query| query.len() < 8 || !shown.contains(query)));
    if let Some(token) = head.query_param("token") {
        assert!(token.len() <= head.query().map_or(0, str::len));
    }
}

fn reads_the_same(bytes: &[u8], head: &Head, length: usize) {
    let mut fields = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut other = httparse::Request::new(&mut fields);
    assert_eq!(other.parse(bytes), Ok(httparse::Status::Complete(length)));
    assert_eq!(other.method, Some(head.method().as_str()));
    assert_eq!(other.version, Some(u8::from(head.version() == Version::Http11)));
    let ours: Vec<_> = head.headers().map(|(name, value)| (name, value.as_bytes())).collect();
    let theirs: Vec<_> = other.headers.iter().map(|field| (field.name, field.value)).collect();
    if other.path == Some(head.target()) {
        assert_eq!(ours, theirs);
    } else {
        // An absolute target: its authority took the Host's place, its end is what is left.
        let path = other.path.expect("a complete request has one");
        assert!(path.ends_with(&head.target()[1..]) && path.to_ascii_lowercase().starts_with("http"));
        let rest: Vec<_> =
            theirs.into_iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")).collect();
        assert_eq!(ours[..ours.len() - 1], rest);
        assert!(head.get("host").is_some_and(|host| path.contains(host)));
    }
}
