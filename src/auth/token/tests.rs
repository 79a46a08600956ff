use std::os::unix::fs::{PermissionsExt, symlink};

use jwt_simple::prelude::{HS384Key, HS512Key};
use jwt_simple::reexports::ct_codecs::Encoder;
use serde_json::{Value, json};

use super::*;

const KEY: [u8; 32] = [7; 32];
const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

fn keys() -> Keys {
    Keys(HS256Key::from_bytes(&KEY))
}

fn at(secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(secs)
}

fn claims() -> Claims {
    Claims {
        user: UserId(42),
        session: SessionId(u128::MAX),
        generation: u32::MAX,
        expires: at(NOW + 7 * DAY),
    }
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    Base64UrlSafeNoPadding::encode_to_string(bytes).unwrap()
}

fn payload() -> Value {
    json!({
        "iat": NOW, "exp": NOW + DAY, "iss": "muelle", "aud": "muelle-api",
        "sub": "user-0000002a", "sid": "0".repeat(32), "gen": 0
    })
}

/// A payload with one field replaced, or removed by null.
fn with(field: &str, value: Value) -> String {
    let mut payload = payload();
    let object = payload.as_object_mut().unwrap();
    if value.is_null() {
        object.remove(field);
    } else {
        object.insert(field.to_owned(), value);
    }
    payload.to_string()
}

/// A token of any header and payload with our own HS256 signature under it.
fn signed(header: &str, payload: &str) -> String {
    let head = format!("{}.{}", b64(header), b64(payload));
    let tag = HS256Key::from_bytes(&KEY).authentication_tag(head.as_bytes());
    format!("{head}.{}", b64(tag))
}

const OURS: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

fn accepted(token: &str) -> bool {
    keys().verify(Kind::Access, token, at(NOW)).is_some()
}

#[test]
fn a_token_says_what_was_put_in_and_fits_a_url() {
    for kind in [Kind::Access, Kind::Refresh] {
        let token = keys().issue(kind, &claims(), at(NOW)).unwrap();
        assert_eq!(keys().verify(kind, &token, at(NOW)), Some(claims()));
        assert!(token.starts_with(HEADER) && token.len() < TOKEN_BYTES_MAX - 100, "{}", token.len());
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
        let other_key = Keys(HS256Key::from_bytes(&[8; 32]));
        assert_eq!(other_key.verify(kind, &token, at(NOW)), None);
    }
    assert!(
        accepted(&signed(OURS, &payload().to_string())),
        "the forgeries below fail for their own reasons"
    );
}

#[test]
fn case_38_a_token_of_another_algorithm_or_none_is_refused() {
    let payload = payload().to_string();
    for header in [
        r#"{"alg":"none","typ":"JWT"}"#,
        r#"{"alg":"NONE","typ":"JWT"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"hs256","typ":"JWT"}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"HS256","alg":"none","typ":"JWT"}"#,
        "{}",
        "",
        "null",
    ] {
        assert!(!accepted(&signed(header, &payload)), "{header}");
        assert!(!accepted(&format!("{}.{}.", b64(header), b64(&payload))), "{header}, no signature");
    }
}

#[test]
fn case_39_our_key_bytes_under_another_algorithm_are_refused() {
    let payload = payload().to_string();
    for alg in ["HS384", "HS512", "RS256", "ES256", "EdDSA"] {
        assert!(!accepted(&signed(&format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#), &payload)), "{alg}");
    }
    let own = || serde_json::from_str::<JWTClaims<Own>>(&payload).unwrap();
    assert!(accepted(&HS256Key::from_bytes(&KEY).authenticate(own()).unwrap()));
    assert!(!accepted(&HS384Key::from_bytes(&KEY).authenticate(own()).unwrap()));
    assert!(!accepted(&HS512Key::from_bytes(&KEY).authenticate(own()).unwrap()));
}

#[test]
fn case_43_a_header_that_points_at_a_key_is_refused_unread() {
    for field in [
        r#""jku":"http://127.0.0.1:1/keys""#,
        r#""x5u":"http://127.0.0.1:1/cert""#,
        r#""jwk":{"kty":"oct","k":"AAAA"}"#,
        r#""x5c":["AAAA"]"#,
        r#""kid":"../../etc/passwd""#,
        r#""crit":["x"]"#,
    ] {
        let header = format!(r#"{{"alg":"HS256","typ":"JWT",{field}}}"#);
        assert!(!accepted(&signed(&header, &payload().to_string())), "{header}");
    }
}

#[test]
fn case_38_a_missing_cut_or_changed_signature_is_refused() {
    let good = signed(OURS, &payload().to_string());
    let head = &good[..good.rfind('.').unwrap()];
    let forged = format!("{HEADER}{}", b64(with("sub", json!("user-00000001"))));
    let tag = &good[head.len()..];
    for bad in [
        String::new(),
        ".".into(),
        "..".into(),
        HEADER.into(),
        head.into(),
        format!("{head}."),
        format!("{head}.AAAA"),
        good[..good.len() - 1].into(),
        format!("{good}A"),
        format!("{good}."),
        format!("{good}.{good}"),
        format!(" {good}"),
        format!("{good}="),
        format!("{forged}{tag}"),
        format!("{HEADER}{tag}"),
        format!("{HEADER}ñ.{tag}"),
    ] {
        assert!(!accepted(&bad), "{bad}");
    }
}

#[test]
fn case_40_a_token_works_five_seconds_beyond_its_end_and_no_longer() {
    let token = signed(OURS, &payload().to_string());
    for (age, good) in [(0, true), (1, true), (5, true), (6, false), (14 * 60, false), (400 * DAY, false)] {
        let now = at(NOW + DAY + age);
        assert_eq!(keys().verify(Kind::Access, &token, now).is_some(), good, "{age} s after its end");
    }
}

#[test]
fn case_41_every_claim_must_be_there_and_be_right() {
    for (field, bad) in [
        ("exp", json!(null)),
        ("exp", json!((NOW + DAY).to_string())),
        ("exp", json!(1_800_000_100.5)),
        ("exp", json!(1.8e9 + 100.0)),
        ("exp", json!(1_u64 << 63)),
        ("exp", json!(u64::MAX)),
        ("exp", json!(i64::MAX)),
        ("exp", json!(-1)),
        ("exp", json!(0)),
        ("exp", json!([NOW + DAY])),
        ("exp", json!(NOW + 366 * DAY)),
        ("iat", json!(null)),
        ("iat", json!("now")),
        ("iat", json!(-5)),
        ("iat", json!(NOW + 2 * DAY)),
        ("aud", json!(null)),
        ("aud", json!("muelle-refresh")),
        ("aud", json!("muelle")),
        ("aud", json!(["other"])),
        ("aud", json!(["muelle-api", "muelle-refresh"])),
        ("aud", json!({})),
        ("iss", json!(null)),
        ("iss", json!("other")),
        ("iss", json!("Muelle")),
        ("sub", json!(null)),
        ("sub", json!("user-2a")),
        ("sub", json!(42)),
        ("sid", json!(null)),
        ("sid", json!("0")),
        ("gen", json!(null)),
        ("gen", json!(-1)),
        ("gen", json!(1_u64 << 32)),
        ("gen", json!("0")),
    ] {
        assert!(!accepted(&signed(OURS, &with(field, bad.clone()))), "{field} = {bad}");
    }
    let twice = format!(r#"{{"exp":1,{}"#, &payload().to_string()[1..]);
    for bad in ["", "null", "[]", "{}", "{", &twice, &format!("{}x", payload())] {
        assert!(!accepted(&signed(OURS, bad)), "{bad}");
    }
}

#[test]
fn case_42_neither_kind_passes_for_the_other() {
    for (made, used) in [(Kind::Access, Kind::Refresh), (Kind::Refresh, Kind::Access)] {
        let token = keys().issue(made, &claims(), at(NOW)).unwrap();
        assert_eq!(keys().verify(used, &token, at(NOW)), None);
    }
}

#[test]
fn an_overlong_token_is_not_even_read() {
    assert!(accepted(&signed(OURS, &with("pad", json!("x".repeat(50))))));
    assert!(!accepted(&signed(OURS, &with("pad", json!("x".repeat(300))))));
    assert!(!accepted(&signed(OURS, &with("pad", json!("x".repeat(2_000_000))))));
}

#[test]
fn case_46_a_clock_set_back_leaves_tokens_good_and_one_set_forward_ends_them() {
    let token = keys().issue(Kind::Access, &claims(), at(NOW)).unwrap();
    for (now, good) in [
        (NOW - 3600, true),
        (NOW - 20 * 365 * DAY, true),
        (0, true),
        (NOW + DAY, true),
        (NOW + 7 * DAY, true),
        (NOW + 8 * DAY, false),
    ] {
        assert_eq!(keys().verify(Kind::Access, &token, at(now)).is_some(), good, "{now}");
    }
}

#[test]
fn case_151_no_token_is_made_before_2024() {
    let claims = claims();
    for bad in [UNIX_EPOCH, UNIX_EPOCH - Duration::from_secs(1), at(CLOCK_EARLIEST - 1)] {
        assert_eq!(keys().issue(Kind::Access, &claims, bad), Err(ClockWrong));
    }
    let early = Claims { expires: at(CLOCK_EARLIEST + DAY), ..claims };
    assert!(keys().issue(Kind::Access, &early, at(CLOCK_EARLIEST)).is_ok());
}

struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        let path = std::env::temp_dir().join(format!("muelle-key-{:016x}", getrandom::u64().unwrap()));
        fs::create_dir(&path).unwrap();
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn case_45_a_missing_key_is_made_private_and_found_again() {
    let dir = Dir::new();
    fs::write(dir.0.join("token.key.new"), "half of a start that was killed").unwrap();
    let keys = Keys::load_or_create(&dir.0).unwrap();
    let path = dir.0.join(FILE);
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.len(), meta.mode() & 0o777), (32, 0o600));
    let token = keys.issue(Kind::Access, &claims(), at(NOW)).unwrap();
    let again = Keys::load_or_create(&dir.0).unwrap();
    assert_eq!(again.verify(Kind::Access, &token, at(NOW)), Some(claims()), "a restart logs nobody out");
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1);
    assert_eq!(
        format!("{keys:?}").matches(char::is_numeric).count(),
        "HS256Key".matches(char::is_numeric).count()
    );
}

#[test]
fn case_45_a_key_of_another_length_or_for_other_eyes_is_refused() {
    for (bytes, mode, sentence) in [
        (0, 0o600, "is damaged"),
        (8, 0o600, "is damaged"),
        (31, 0o600, "is damaged"),
        (33, 0o600, "is damaged"),
        (1_000_000, 0o600, "is damaged"),
        (32, 0o644, "can be read by others"),
        (32, 0o640, "can be read by others"),
        (32, 0o604, "can be read by others"),
    ] {
        let dir = Dir::new();
        let path = dir.0.join(FILE);
        fs::write(&path, vec![7; bytes]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let said = Keys::load_or_create(&dir.0).unwrap_err().to_string();
        assert!(said.contains(sentence) && said.contains("token.key"), "{bytes} bytes, {mode:o}: {said}");
        assert_eq!(fs::metadata(&path).unwrap().len(), bytes as u64, "it is left as it was");
    }
    let dir = Dir::new();
    symlink("/dev/zero", dir.0.join(FILE)).unwrap();
    assert!(matches!(Keys::load_or_create(&dir.0), Err(KeyError::Damaged(_))));
    assert!(matches!(Keys::load_or_create(&dir.0.join("absent")), Err(KeyError::Io { .. })));
}
