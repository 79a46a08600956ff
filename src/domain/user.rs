//! Who owns projects.

use std::fmt;
use std::time::SystemTime;

use super::{HostLabel, Invalid, free_text};

/// Names a user; written `user-1a2b3c4d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub u32);

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user-{:08x}", self.0)
    }
}

impl UserId {
    /// Reads what `Display` writes; nothing else.
    #[must_use]
    pub fn parse(text: &str) -> Option<UserId> {
        super::project::hex_id(text, "user-").map(UserId)
    }
}

/// Names a session: 128 random bits, written as 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u128);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl SessionId {
    /// Reads what `Display` writes; nothing else.
    #[must_use]
    pub fn parse(text: &str) -> Option<SessionId> {
        let digits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        digits.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(SessionId)
    }
}

/// An e-mail address, lower-cased, so that one person cannot register twice by spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Email(String);

impl Email {
    /// Longest address that a mail server accepts (RFC 5321 §4.5.3.1.3, less the angle brackets).
    pub const MAX_BYTES: usize = 254;

    /// Accepts one `@` with something on both sides and neither white space nor control characters: a typing error is caught,
    /// the rest is the owner's business.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(raw: &str) -> Result<Email, Invalid> {
        let text = free_text("Email", raw, Self::MAX_BYTES)?;
        let mut parts = text.split('@');
        let shaped = matches!((parts.next(), parts.next(), parts.next()), (Some(a), Some(b), None) if !a.is_empty() && !b.is_empty());
        if !shaped || text.len() > Self::MAX_BYTES || text.chars().any(char::is_whitespace) {
            return Err(Invalid::new("Email is not a valid address"));
        }
        Ok(Email(text.to_lowercase()))
    }

    /// The address as it is stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the `@`.
    #[must_use]
    pub fn local_part(&self) -> &str {
        self.0.split('@').next().unwrap_or_default()
    }
}

/// What a person wants to be called: free text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(String);

impl UserName {
    /// Longest name, in characters.
    pub const MAX_CHARS: usize = 100;

    /// Keeps free text as it is, trimmed.
    ///
    /// # Errors
    /// When it is empty, too long or contains control characters.
    pub fn parse(raw: &str) -> Result<UserName, Invalid> {
        free_text("Name", raw, Self::MAX_CHARS).map(UserName)
    }

    /// The name as it was typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The account's id.
    pub id: UserId,
    /// The address it logs in with.
    pub email: Email,
    /// What the person is called.
    pub name: UserName,
    /// The account's part of its projects' host names.
    pub host: HostLabel,
    /// Whether it may adopt containers.
    pub admin: bool,
    /// When it was made.
    pub created_at: SystemTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_is_lower_cased_and_shaped() {
        assert_eq!(Email::parse(" Ana@Example.com ").unwrap().as_str(), "ana@example.com");
        for bad in ["", "ana", "@x", "ana@", "a@b@c", "a b@c", "a\u{0}@c", &format!("{}@x", "a".repeat(254))]
        {
            assert!(Email::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ids_read_only_what_they_write() {
        assert_eq!(UserId::parse("user-0000002a"), Some(UserId(42)));
        for bad in ["user-2a", "user-0000002A", "proj-0000002a", "user-+000002a", "user-0000002a "] {
            assert_eq!(UserId::parse(bad), None, "{bad}");
        }
        assert_eq!(SessionId::parse(&SessionId(7).to_string()), Some(SessionId(7)));
        assert_eq!(SessionId::parse("+0000000000000000000000000000007"), None);
    }
}
