//! Tokens: one that passes is, to the byte, one that our key signed, says what its payload says, and does not pass for the other kind.
#![no_main]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jwt_simple::prelude::{Base64UrlSafeNoPadding, HS256Key, MACLike};
use jwt_simple::reexports::ct_codecs::Encoder;
use libfuzzer_sys::fuzz_target;
use muelle::auth::token::{Claims, Keys, Kind};
use muelle::domain::{SessionId, UserId};
use muelle::limits::{CLOCK_EARLIEST, TOKEN_BYTES_MAX, TOKEN_LIFETIME_MAX, TOKEN_TOLERANCE};

const KEY: [u8; 32] = [7; 32];
const NOW: u64 = 1_800_000_000;

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("muelle-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    let file = folder.join("token.key");
    fs::write(&file, KEY).expect("a key");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode");
    let keys = Keys::load_or_create(&folder).expect("the key");
    fs::remove_dir_all(&folder).expect("the folder");
    keys
});

fuzz_target!(|input: (u8, u64, &[u8])| {
    let (way, number, bytes) = input;
    match way % 4 {
        // Anything.
        0 => passes_only_if_signed(&String::from_utf8_lossy(bytes)),
        // Any payload under our header, signed by us; and with a byte of the token changed.
        1 => {
            let token = signed(r#"{"alg":"HS256","typ":"JWT"}"#, bytes);
            passes_only_if_signed(&token);
            let mut forged = token.into_bytes();
            let at = usize::try_from(number).unwrap_or(0) % forged.len();
            forged[at] = b"Aw-_.=+/ "[usize::from(way / 4) % 9];
            passes_only_if_signed(&String::from_utf8_lossy(&forged));
        }
        // Any header over a good payload, signed by us.
        2 => {
            let good = format!(
                r#"{{"iat":{NOW},"exp":{},"iss":"muelle","aud":"muelle-api","sub":"user-0000002a","sid":"{}","gen":0}}"#,
                NOW + 60,
                "0".repeat(32)
            );
            passes_only_if_signed(&signed(&String::from_utf8_lossy(bytes), good.as_bytes()));
        }
        _ => says_what_was_put_in(number, bytes),
    }
});

fn at(secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(secs)
}

fn signed(header: &str, payload: &[u8]) -> String {
    let encode = |bytes: &[u8]| Base64UrlSafeNoPadding::encode_to_string(bytes).expect("base64");
    let head = format!("{}.{}", encode(header.as_bytes()), encode(payload));
    let tag = HS256Key::from_bytes(&KEY).authentication_tag(head.as_bytes());
    format!("{head}.{}", encode(tag.as_ref()))
}

fn passes_only_if_signed(token: &str) {
    let [access, refresh] = [Kind::Access, Kind::Refresh].map(|kind| KEYS.verify(kind, token, at(NOW)));
    assert!(access.is_none() || refresh.is_none(), "one passes for the other");
    let Some(claims) = access.or(refresh) else { return };
    assert!(token.len() <= TOKEN_BYTES_MAX);
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, _] = parts[..] else { panic!("a token has three parts") };
    assert_eq!(header, "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9");
    let payload = decode(payload);
    assert_eq!(token, signed(r#"{"alg":"HS256","typ":"JWT"}"#, &payload));
    let said: serde_json::Value = serde_json::from_slice(&payload).expect("a payload");
    assert_eq!(said["sub"], claims.user.to_string());
    assert_eq!(said["sid"], claims.session.to_string());
    assert_eq!(said["gen"], claims.generation);
    assert_eq!(said["exp"].as_u64().map(at), Some(claims.expires));
    assert!(claims.expires + TOKEN_TOLERANCE >= at(NOW), "it has ended");
}

fn decode(text: &str) -> Vec<u8> {
    use jwt_simple::reexports::ct_codecs::Decoder;
    Base64UrlSafeNoPadding::decode_to_vec(text, None).expect("base64")
}

fn says_what_was_put_in(number: u64, bytes: &[u8]) {
    let mut session = [0; 16];
    let length = bytes.len().min(16);
    session[..length].copy_from_slice(&bytes[..length]);
    let session = u128::from_le_bytes(session);
    let [user, generation] = [number as u32, (number >> 32) as u32];
    let now = NOW + u64::from(generation % 1000);
    // From a day in the past to more than the longest life.
    let lifetime = i64::try_from(number % (TOKEN_LIFETIME_MAX.as_secs() + 172_800)).unwrap_or(0) - 86_400;
    let expires = at(now.saturating_add_signed(lifetime));
    let claims = Claims { user: UserId(user), session: SessionId(session), generation, expires };
    assert!(KEYS.issue(Kind::Access, &claims, at(CLOCK_EARLIEST - 1)).is_err());
    let token = KEYS.issue(Kind::Refresh, &claims, at(now)).expect("the clock is right");
    let lives = lifetime >= 0 && lifetime.unsigned_abs() <= TOKEN_LIFETIME_MAX.as_secs();
    let read = KEYS.verify(Kind::Refresh, &token, at(now));
    assert!(read.is_none_or(|read| read == claims));
    assert!(!lives || lifetime == 0 || read.is_some(), "{lifetime}");
    assert_eq!(KEYS.verify(Kind::Access, &token, at(now)), None);
}
