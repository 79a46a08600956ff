//! The head of an app's answer: any split is heard the same, what is accepted obeys the bounds, `httparse` reads the same in it, and its body
//! ends where RFC 9112 §6.3 has it end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muelle::http::answer::{Answer, Content, Heard, hear};
use muelle::http::{HeaderName, HeaderValue};
use muelle::limits::{PROXY_HEAD_MAX, PROXY_HEADERS_MAX};

fuzz_target!(|bytes: &[u8]| {
    let whole = hear(bytes);
    // Once decided, every longer prefix says the same: what is malformed is not mended, and bytes that follow a head change nothing.
    let step = 1 + bytes.len() / 256;
    let prefixes = (0..=bytes.len()).step_by(step).map(|length| hear(&bytes[..length]));
    for prefix in prefixes.skip_while(|heard| *heard == Heard::Partial) {
        assert_eq!(prefix, whole);
    }
    match &whole {
        Heard::Partial => assert!(bytes.len() <= PROXY_HEAD_MAX, "it waits for more than it would take"),
        Heard::Malformed(reason) => assert!(!reason.is_empty()),
        Heard::Complete(answer, length) => {
            let (head, rest) = bytes.split_at(*length);
            assert!(*length <= PROXY_HEAD_MAX && head.ends_with(b"\r\n\r\n"));
            assert_eq!(hear(head), whole);
            assert_eq!(hear(&head[..*length - 1]), Heard::Partial);
            // The head of the next answer does not belong to this one.
            assert_eq!(hear(&[head, head, rest].concat()), whole);
            obeys_the_rules(answer);
            reads_the_same(bytes, answer, *length);
        }
    }
});

fn obeys_the_rules(answer: &Answer) {
    assert!((100..600).contains(&answer.status()));
    assert_eq!(answer.is_interim(), answer.status() < 200 && answer.status() != 101);
    assert!(answer.headers().count() <= PROXY_HEADERS_MAX);
    for (name, value) in answer.headers() {
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
        assert!(!value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t'));
        assert_eq!(value, value.trim_ascii());
        // What the proxy could not write would be left out of the answer.
        assert!(HeaderName::new(name).is_ok() && HeaderValue::new(value.to_vec()).is_ok());
    }
}

fn reads_the_same(bytes: &[u8], answer: &Answer, length: usize) {
    let mut fields = [httparse::EMPTY_HEADER; PROXY_HEADERS_MAX];
    let mut other = httparse::Response::new(&mut fields);
    assert_eq!(other.parse(bytes), Ok(httparse::Status::Complete(length)));
    assert_eq!(other.code, Some(answer.status()));
    let theirs: Vec<_> = other.headers.iter().map(|field| (field.name, field.value)).collect();
    assert_eq!(answer.headers().collect::<Vec<_>>(), theirs);

    let all = |wanted: &str| -> Vec<&[u8]> {
        let named = theirs.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        named.map(|(_, value)| *value).collect()
    };
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    // Neither twice, nor both: what takes one for the framing and what takes the other would see different answers.
    assert!(lengths.len() + codings.len() <= 1);
    let named: Option<u64> = lengths.first().map(|digits| str::from_utf8(digits).unwrap().parse().unwrap());
    assert_eq!(answer.length(), named);
    assert!(lengths.iter().all(|digits| digits.iter().all(u8::is_ascii_digit)));
    assert!(codings.iter().all(|coding| coding.eq_ignore_ascii_case(b"chunked") && other.version == Some(1)));

    assert!(matches!(answer.content(true), Content::None), "HEAD has no body");
    let has_none = answer.status() < 200 || [204, 304].contains(&answer.status()) || named == Some(0);
    match answer.content(false) {
        Content::None => assert!(has_none),
        Content::Length(length) => assert!(!has_none && Some(length) == named),
        Content::Chunked(_) => assert!(!has_none && codings.len() == 1),
        Content::UntilClose => assert!(!has_none && named.is_none() && codings.is_empty()),
    }
    let listed = |token: &str| {
        let items = all("connection");
        let mut items = items.iter().flat_map(|list| list.split(|byte| *byte == b','));
        items.any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    };
    let keeps = if other.version == Some(1) { !listed("close") } else { listed("keep-alive") };
    assert_eq!(answer.keeps_alive(), keeps);
}
