//! Signed tokens (JSON web tokens, RFC 7519) and the file that holds the key.
//!
//! `jwt-simple` makes and checks them, and is held to more than it does by itself: it accepts a token without `exp`, one whose
//! `exp` is a fraction, any `exp` however far away, and whatever else stands in the header. So the header must be ours to the
//! byte, and the claims are read once more, strictly.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jwt_simple::prelude::{
    Audiences, Base64UrlSafeNoPadding, HS256Key, JWTClaims, MACLike, NoCustomClaims, UnixTimeStamp,
    VerificationOptions,
};
use jwt_simple::reexports::{coarsetime, ct_codecs::Decoder};
use serde::{Deserialize, Serialize};

use crate::domain::{SessionId, UserId};
use crate::limits::{CLOCK_EARLIEST, TOKEN_BYTES_MAX, TOKEN_LIFETIME_MAX, TOKEN_TOLERANCE};

const FILE: &str = "token.key";
const KEY_BYTES: usize = 32;
const ISSUER: &str = "muelle";
/// `{"alg":"HS256","typ":"JWT"}` and the dot behind it. No other header is looked at, so none can choose an algorithm or a key.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.";

/// What a token is good for; one never passes for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The API and the event streams.
    Access,
    /// A new pair of tokens.
    Refresh,
}

impl Kind {
    fn audience(self) -> &'static str {
        match self {
            Kind::Access => "muelle-api",
            Kind::Refresh => "muelle-refresh",
        }
    }
}

/// What a token says. It was true when the token was made: whether the session still lives is for the caller to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Who.
    pub user: UserId,
    /// In which session.
    pub session: SessionId,
    /// How often that session had been refreshed.
    pub generation: u32,
    /// When the token ends, in whole seconds.
    pub expires: SystemTime,
}

/// The clock shows a time before 2024. A token made now would end at once when the clock is set right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the clock of this machine is wrong: it shows a time before 2024")]
pub struct ClockWrong;

/// Why the key cannot be used: a sentence for the person who started us.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Others can read it, so others could make tokens.
    #[error("the key file {} can be read by others: run `chmod 600` on it, or delete it to log everybody out", .0.display())]
    Exposed(PathBuf),
    /// It is not a key of ours.
    #[error(
        "the key file {} is damaged (it must be a file of 32 bytes): restore it, or delete it to log everybody out",
        .0.display()
    )]
    Damaged(PathBuf),
    /// The system refused.
    #[error("cannot use the key file {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The part of the payload that is neither checked by the library nor given back by it as it stood there.
#[derive(Serialize, Deserialize)]
struct Own {
    sid: String,
    #[serde(rename = "gen")]
    generation: u32,
}

#[derive(Deserialize)]
struct Strict {
    /// One word: the library takes a list of them, and such a token would pass for more than one kind.
    aud: String,
    sub: String,
    iat: u64,
    exp: u64,
    #[serde(flatten)]
    own: Own,
}

/// The key that signs our tokens. It is never printed.
#[derive(Debug)]
pub struct Keys(HS256Key);

impl Keys {
    /// Reads `token.key` in `data_dir`, or makes it (32 random bytes, mode 0600) where it is missing.
    ///
    /// # Errors
    /// When others can read the file, it is not 32 bytes long, or the system refuses.
    pub fn load_or_create(data_dir: &Path) -> Result<Keys, KeyError> {
        let path = data_dir.join(FILE);
        let io = |error| KeyError::Io { path: path.clone(), error };
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(data_dir, &path).map_err(io)?,
            Err(error) => return Err(io(error)),
            Ok(meta) if !meta.is_file() => return Err(KeyError::Damaged(path)),
            Ok(_) => {}
        }
        let file = File::open(&path).map_err(io)?;
        if file.metadata().map_err(io)?.mode() & 0o077 != 0 {
            return Err(KeyError::Exposed(path));
        }
        let mut key = Vec::with_capacity(KEY_BYTES + 1);
        file.take(KEY_BYTES as u64 + 1).read_to_end(&mut key).map_err(io)?;
        if key.len() != KEY_BYTES {
            return Err(KeyError::Damaged(path));
        }
        Ok(Keys(HS256Key::from_bytes(&key)))
    }

    /// Signs a token. It has only characters that are safe in a URL, and fewer than 512 of them.
    ///
    /// # Errors
    /// [`ClockWrong`].
    #[expect(
        clippy::missing_panics_doc,
        reason = "it cannot: the key is long enough and the payload is plain"
    )]
    pub fn issue(&self, kind: Kind, claims: &Claims, now: SystemTime) -> Result<String, ClockWrong> {
        let now = secs(now);
        if now < CLOCK_EARLIEST {
            return Err(ClockWrong);
        }
        let payload = JWTClaims {
            issued_at: Some(UnixTimeStamp::from_secs(now)),
            expires_at: Some(UnixTimeStamp::from_secs(secs(claims.expires))),
            invalid_before: None,
            issuer: Some(ISSUER.to_owned()),
            subject: Some(claims.user.to_string()),
            audiences: Some(Audiences::AsString(kind.audience().to_owned())),
            jwt_id: None,
            nonce: None,
            custom: Own { sid: claims.session.to_string(), generation: claims.generation },
        };
        Ok(self.0.authenticate(payload).expect("a 32-byte key and a payload of strings and numbers"))
    }

    /// What a token says, if we signed it, for this use, and it has not ended. Only its end is compared with the clock: one that
    /// seems to come from the future is fine, because machines without a battery clock start in the past.
    #[must_use]
    pub fn verify(&self, kind: Kind, token: &str, now: SystemTime) -> Option<Claims> {
        if token.len() > TOKEN_BYTES_MAX || !token.starts_with(HEADER) {
            return None;
        }
        let tolerance = coarsetime::Duration::from_secs(TOKEN_TOLERANCE.as_secs());
        let options = VerificationOptions {
            accept_future: true,
            allowed_issuers: Some([ISSUER.to_owned()].into()),
            allowed_audiences: Some([kind.audience().to_owned()].into()),
            time_tolerance: Some(tolerance),
            max_validity: Some(coarsetime::Duration::from_secs(TOKEN_LIFETIME_MAX.as_secs()) + tolerance),
            max_token_length: Some(TOKEN_BYTES_MAX),
            // The library refuses every token in the first seconds of 1970.
            artificial_time: Some(UnixTimeStamp::from_secs(secs(now).max(TOKEN_TOLERANCE.as_secs()))),
            ..VerificationOptions::default()
        };
        self.0.verify_token::<NoCustomClaims>(token, Some(options)).ok()?;
        // The signature is ours: what follows cannot come from a stranger, and is checked all the same.
        let payload = Base64UrlSafeNoPadding::decode_to_vec(token.split('.').nth(1)?, None).ok()?;
        let strict: Strict = serde_json::from_slice(&payload).ok()?;
        if strict.aud != kind.audience() || strict.exp.checked_sub(strict.iat)? > TOKEN_LIFETIME_MAX.as_secs()
        {
            return None;
        }
        Some(Claims {
            user: UserId::parse(&strict.sub)?,
            session: SessionId::parse(&strict.own.sid)?,
            generation: strict.own.generation,
            expires: UNIX_EPOCH.checked_add(Duration::from_secs(strict.exp))?,
        })
    }
}

/// Writes the key under another name and renames it when it is on the disk: no crash leaves half a key.
fn create(dir: &Path, path: &Path) -> io::Result<()> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    let half = dir.join("token.key.new");
    match fs::remove_file(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(&half, path)?;
    File::open(dir)?.sync_all()
}

fn secs(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests;
