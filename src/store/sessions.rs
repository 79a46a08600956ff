//! Who is logged in. The rows are kept in memory by others and written through: a session that is not here is revoked.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, Row, params};

use super::users::changed;
use super::{Error, Reader, Store, from_secs, row, rows, text, to_secs};
use crate::domain::{SessionId, UserId};
use crate::limits::{REFRESH_GRACE, SESSIONS_PER_USER};

/// A login that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id, which tokens carry.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserId,
    /// When the login was.
    pub created_at: SystemTime,
    /// When it ends unless it is refreshed.
    pub expires_at: SystemTime,
    /// How often it was refreshed: the current refresh token carries this number.
    pub generation: u32,
    /// When it was refreshed last, or else began.
    pub rotated_at: SystemTime,
}

/// A new session, and those that had to go for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedSession {
    /// The new one.
    pub session: Session,
    /// The user's oldest ones beyond [`SESSIONS_PER_USER`], revoked.
    pub revoked: Vec<SessionId>,
}

impl Store {
    /// Opens a session that ends after `lifetime` unless it is refreshed.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the user is gone, or as of any write.
    ///
    /// # Blocks
    /// Until the commit.
    pub fn create_session(
        &self,
        user: UserId,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<OpenedSession, Error> {
        self.call(move |db| {
            let mut bits = [0; 16];
            getrandom::fill(&mut bits).map_err(|e| Error::Other(e.to_string()))?;
            let id = SessionId(u128::from_le_bytes(bits));
            let inserted = db.execute(
                "INSERT INTO sessions (id, user_id, created_at, expires_at, refresh_generation, rotated_at)
                 SELECT ?1, id, ?3, ?4, 0, ?3 FROM users WHERE id = ?2",
                params![id.to_string(), user.to_string(), to_secs(now), to_secs(now + lifetime)],
            )?;
            changed(inserted)?;
            let revoked = rows(
                db,
                "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE user_id = ?1 AND id <> ?2
                 ORDER BY rotated_at DESC LIMIT -1 OFFSET ?3) RETURNING id",
                params![user.to_string(), id.to_string(), SESSIONS_PER_USER - 1],
                |row| text(row, "id", SessionId::parse),
            )?;
            Ok(OpenedSession { session: session(db, id)?.ok_or(Error::NotFound)?, revoked })
        })
    }

    /// Exchanges the refresh token of a generation for the next: the session moves on by one and ends `lifetime` from now. The
    /// generation before works for [`REFRESH_GRACE`] more and changes nothing, so that two tabs can refresh at once.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the session is gone or over, or the generation is neither; or as of any write.
    ///
    /// # Blocks
    /// Until the commit.
    pub fn rotate_session(
        &self,
        id: SessionId,
        generation: u32,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Session, Error> {
        self.call(move |db| {
            let current = session(db, id)?.filter(|s| s.expires_at > now).ok_or(Error::NotFound)?;
            if generation == current.generation {
                db.execute(
                    "UPDATE sessions SET refresh_generation = ?2, rotated_at = ?3, expires_at = ?4 WHERE id = ?1",
                    params![id.to_string(), generation + 1, to_secs(now), to_secs(now + lifetime)],
                )?;
                return session(db, id)?.ok_or(Error::NotFound);
            }
            // A clock that was set back since counts as no time at all.
            let age = now.duration_since(current.rotated_at).unwrap_or_default();
            let before = current.generation.checked_sub(1);
            if before == Some(generation) && age <= REFRESH_GRACE { Ok(current) } else { Err(Error::NotFound) }
        })
    }

    /// Ends a session. One that is gone already is fine.
    ///
    /// # Errors
    /// As of any write.
    ///
    /// # Blocks
    /// Until the commit.
    pub fn revoke_session(&self, id: SessionId) -> Result<(), Error> {
        self.call(move |db| {
            db.execute("DELETE FROM sessions WHERE id = ?1", [id.to_string()])?;
            Ok(())
        })
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    /// As of any write.
    ///
    /// # Blocks
    /// Until the commit.
    pub fn logout_user(&self, user: UserId) -> Result<Vec<SessionId>, Error> {
        self.call(move |db| {
            let sql = "DELETE FROM sessions WHERE user_id = ?1 RETURNING id";
            rows(db, sql, [user.to_string()], |row| text(row, "id", SessionId::parse))
        })
    }

    /// Removes the sessions that are over.
    ///
    /// # Errors
    /// As of any write.
    ///
    /// # Blocks
    /// Until the commit.
    pub fn purge_sessions(&self, now: SystemTime) -> Result<Vec<SessionId>, Error> {
        self.call(move |db| {
            let sql = "DELETE FROM sessions WHERE expires_at <= ?1 RETURNING id";
            rows(db, sql, [to_secs(now)], |row| text(row, "id", SessionId::parse))
        })
    }
}

impl Reader {
    /// All sessions, those that are over included until they are purged.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn sessions(&self) -> Result<Vec<Session>, Error> {
        rows(&self.db, "SELECT * FROM sessions", [], decode)
    }
}

fn session(db: &Connection, id: SessionId) -> Result<Option<Session>, Error> {
    row(db, "SELECT * FROM sessions WHERE id = ?1", [id.to_string()], decode)
}

fn decode(row: &Row) -> Result<Session, Error> {
    Ok(Session {
        id: text(row, "id", SessionId::parse)?,
        user: text(row, "user_id", UserId::parse)?,
        created_at: from_secs(row.get("created_at")?),
        expires_at: from_secs(row.get("expires_at")?),
        generation: row.get("refresh_generation")?,
        rotated_at: from_secs(row.get("rotated_at")?),
    })
}
