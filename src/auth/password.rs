//! Passwords and their hashes: argon2id with the parameters that OWASP recommends, written as PHC strings.

use std::fmt;

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};

use crate::domain::Invalid;
use crate::limits::{
    ARGON2_MEMORY_KIB, ARGON2_MEMORY_KIB_MAX, ARGON2_PASSES, ARGON2_PASSES_MAX, ARGON2_RESERVED_BYTES,
    PASSWORD_BYTES,
};

/// A password as it was typed, of a length that may be hashed. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Password {
    /// Takes a password as it is: no trimming, no rules but its length.
    ///
    /// # Errors
    /// When it is empty, too short, too long or contains a NUL byte. The sentence does not contain it.
    pub fn parse(raw: &str) -> Result<Password, Invalid> {
        let password = Password::attempt(raw)?;
        let min = PASSWORD_BYTES.start();
        if raw.len() < *min {
            return Err(Invalid::new(format!("Password needs at least {min} characters")));
        }
        Ok(password)
    }

    /// Takes what somebody types to log in: any length that can be hashed, since a short one is just wrong.
    ///
    /// # Errors
    /// When it is empty, too long or contains a NUL byte. The sentence does not contain it.
    pub fn attempt(raw: &str) -> Result<Password, Invalid> {
        let max = PASSWORD_BYTES.end();
        if raw.is_empty() {
            Err(Invalid::new("Password is required"))
        } else if raw.len() > *max {
            Err(Invalid::new(format!("Password is longer than {max} bytes")))
        } else if raw.contains('\0') {
            Err(Invalid::new("Password must not contain a NUL byte"))
        } else {
            Ok(Password(raw.to_owned()))
        }
    }
}

/// A hash cannot be made or looked at: the stored one is damaged, of another kind or absurdly expensive, or the system has no
/// randomness. For the log; it contains no part of a hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("password hash: {0}")]
pub struct HashError(String);

impl HashError {
    fn new(reason: impl fmt::Display) -> HashError {
        HashError(reason.to_string())
    }
}

/// Hashes a password with a new salt.
///
/// # Errors
/// When the system gives no random bytes.
///
/// # Blocks
/// For tens of milliseconds of computing, with 19 MiB.
pub fn hash(password: &Password) -> Result<String, HashError> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(HashError::new)?;
    let params = Params::new(ARGON2_MEMORY_KIB, ARGON2_PASSES, 1, None).map_err(HashError::new)?;
    let output = compute(params, password, &salt)?;
    let salt = Salt::new(&salt).map_err(HashError::new)?;
    Ok(format!("$argon2id$v=19$m={ARGON2_MEMORY_KIB},t={ARGON2_PASSES},p=1${salt}${output}"))
}

/// The hash itself. Its memory goes back to the system at once: an allocation of more than 32 MiB is always a mapping of its own, while
/// one of 19 MiB would teach glibc to keep as much for every thread that ever hashed. What is not written to costs nothing.
fn compute(params: Params, password: &Password, salt: &[u8]) -> Result<Output, HashError> {
    let blocks = params.block_count();
    let mut memory = Vec::with_capacity(blocks.max(ARGON2_RESERVED_BYTES / Block::SIZE));
    memory.resize(blocks, Block::default());
    let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(password.0.as_bytes(), salt, &mut output, &mut memory)
        .map_err(HashError::new)?;
    Output::new(&output).map_err(HashError::new)
}

/// Whether a stored hash is that of a password.
///
/// # Errors
/// When the stored hash is not an argon2id hash that asks for no more than the limits; nothing was allocated for it.
///
/// # Blocks
/// As [`hash`].
pub fn verify(stored: &str, password: &Password) -> Result<bool, HashError> {
    let hash = PasswordHash::new(stored).map_err(HashError::new)?;
    let (Some(salt), Some(stored), "argon2id", Some(19)) =
        (&hash.salt, &hash.hash, hash.algorithm.as_str(), hash.version)
    else {
        return Err(HashError::new("it is not a whole argon2id hash"));
    };
    if stored.as_bytes().len() != Params::DEFAULT_OUTPUT_LEN {
        return Err(HashError::new("it is of another length"));
    }
    let cost = Params::try_from(&hash).map_err(HashError::new)?;
    if cost.m_cost() > ARGON2_MEMORY_KIB_MAX
        || cost.t_cost() > ARGON2_PASSES_MAX
        || cost.p_cost() > ARGON2_PASSES_MAX
    {
        return Err(HashError::new("it asks for more than this server gives"));
    }
    // The comparison takes as long wherever they differ.
    Ok(compute(cost, password, salt)? == *stored)
}

/// A hash of no password that costs what a real one costs: logins of unknown users are verified against it, so that the time
/// does not tell who has an account.
#[must_use]
pub fn dummy() -> &'static str {
    "$argon2id$v=19$m=19456,t=2,p=1$bXVlbGxlLW11ZWxsZS1tdQ$bm8gcGFzc3dvcmQgaGFzaGVzIHRvIHRoaXMgdGV4dCE"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::parse(text).unwrap()
    }

    #[test]
    fn case_50_a_password_is_bounded_before_it_is_hashed_and_never_printed() {
        for good in ["12345678", "contraseña larga", " 8 blanks", &"x".repeat(128)] {
            assert!(Password::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "1234567", "1234\x005678", &"x".repeat(129), &"x".repeat(1_000_000)] {
            let said = Password::parse(bad).unwrap_err().0;
            assert!(said.starts_with("Password ") && said.len() < 60, "{said}");
        }
        assert_eq!(format!("{:?}", password("canary-canary")), "Password(…)");
    }

    #[test]
    fn a_hash_is_of_its_password_only_and_salted() {
        let stored = hash(&password("correct horse")).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_eq!(verify(&stored, &password("correct horse")), Ok(true));
        assert_eq!(verify(&stored, &password("correct horsf")), Ok(false));
        assert_ne!(hash(&password("correct horse")).unwrap(), stored);
    }

    #[test]
    fn a_hash_that_the_library_made_by_itself_is_understood() {
        let stored = "$argon2id$v=19$m=19456,t=2,p=1$GPTvUJSHcG54ZxskhWIFcw$XbdOwY3HjNyjF3zF0F4h8QWaPQW55HfIuEcyi64XhnI";
        assert_eq!(verify(stored, &password("correct horse")), Ok(true));
        assert_eq!(verify(stored, &password("correct house")), Ok(false));
    }

    #[test]
    fn case_47_the_dummy_costs_what_a_real_hash_costs() {
        assert_eq!(verify(dummy(), &password("anything at all")), Ok(false));
        let cost = |stored: &str| Params::try_from(&PasswordHash::new(stored).unwrap()).unwrap();
        let real = hash(&password("anything at all")).unwrap();
        assert_eq!(cost(dummy()), cost(&real));
    }

    #[test]
    fn case_51_a_stored_hash_that_is_damaged_foreign_or_absurd_is_an_error() {
        let tail = "bXVlbGxlLW11ZWxsZS1tdQ$bm8gcGFzc3dvcmQgaGFzaGVzIHRvIHRoaXMgdGV4dCE";
        for head in [
            "argon2i$v=19$m=19456,t=2,p=1",
            "argon2d$v=19$m=19456,t=2,p=1",
            "argon2id$v=19$m=4194304,t=2,p=1",
            "argon2id$v=19$m=4294967295,t=4294967295,p=1",
            "argon2id$v=19$m=19456,t=1000000,p=1",
            "argon2id$v=19$m=19456,t=2,p=200",
            "argon2id$v=19$m=1,t=2,p=1",
            "argon2id$v=7$m=19456,t=2,p=1",
            "pbkdf2-sha256$i=1",
        ] {
            assert!(verify(&format!("${head}${tail}"), &password("whatever")).is_err(), "{head}");
        }
        for stored in
            ["", "hash", "$", "$argon2id$v=19$m=19456,t=2,p=1", &dummy()[..60], "$argon2id$v=19$x$y$z"]
        {
            assert!(verify(stored, &password("whatever")).is_err(), "{stored}");
        }
    }
}
