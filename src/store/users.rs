//! Accounts.

use std::time::SystemTime;

use rusqlite::{Connection, Row, params};

use super::{Error, Reader, Store, exists, fresh_id, from_secs, row, rows, text, to_secs};
use crate::domain::{Email, HostLabel, Invalid, User, UserId, UserName};
use crate::limits::HOST_LABELS_TRIED;

/// An account to be made. It is not printed: no hash belongs into a log.
#[derive(Clone)]
pub struct NewUser {
    /// The address it will log in with.
    pub email: Email,
    /// What the person is called.
    pub name: UserName,
    /// The hash of its password.
    pub password_hash: String,
}

/// Whether an account may be made that is not the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Only the first: the bootstrap of a server without accounts.
    First,
    /// Any.
    Any,
}

impl Store {
    /// Makes an account; the first becomes the administrator. Its host label comes from the e-mail's local part, with `-2` and so
    /// on behind it when it is taken.
    ///
    /// # Errors
    /// [`Error::Taken`], [`Error::NotFirst`], [`Error::Invalid`] when no label can be derived, or as of any write.
    ///
    /// # Blocks
    /// Until the commit.
    pub fn create_user(&self, new: NewUser, admit: Admit, now: SystemTime) -> Result<User, Error> {
        let label = HostLabel::derive("Email", new.email.local_part())?;
        self.call(move |db| {
            let first = !exists(db, "SELECT 1 FROM users", [])?;
            if admit == Admit::First && !first {
                return Err(Error::NotFirst);
            }
            let id = fresh_id(db, "SELECT 1 FROM users WHERE id = ?1", UserId)?;
            let host =
                free_label(&label, |l| exists(db, "SELECT 1 FROM users WHERE host = ?1", [l.as_str()]))?;
            db.execute(
                "INSERT INTO users (id, email, name, host, password_hash, admin, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    id.to_string(),
                    new.email.as_str(),
                    new.name.as_str(),
                    host.as_str(),
                    new.password_hash,
                    first,
                    to_secs(now)
                ],
            )?;
            user(db, id)?.ok_or(Error::NotFound)
        })
    }

    /// Replaces a password hash and revokes all sessions of the user.
    ///
    /// # Errors
    /// [`Error::NotFound`], or as of any write.
    ///
    /// # Blocks
    /// Until the commit.
    pub fn set_password(&self, id: UserId, password_hash: String) -> Result<(), Error> {
        self.call(move |db| {
            let sql = "UPDATE users SET password_hash = ?2 WHERE id = ?1";
            changed(db.execute(sql, params![id.to_string(), password_hash])?)?;
            db.execute("DELETE FROM sessions WHERE user_id = ?1", [id.to_string()])?;
            Ok(())
        })
    }

    /// Removes an account with its sessions.
    ///
    /// # Errors
    /// [`Error::HasProjects`] while it owns any, those being deleted included; [`Error::NotFound`]; or as of any write.
    ///
    /// # Blocks
    /// Until the commit.
    pub fn delete_user(&self, id: UserId) -> Result<(), Error> {
        self.call(move |db| {
            let sql = "SELECT count(*) FROM projects WHERE owner = ?1";
            let projects: u32 = db.query_row(sql, [id.to_string()], |row| row.get(0))?;
            if projects > 0 {
                return Err(Error::HasProjects(projects));
            }
            changed(db.execute("DELETE FROM users WHERE id = ?1", [id.to_string()])?)
        })
    }
}

impl Reader {
    /// All accounts, oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn users(&self) -> Result<Vec<User>, Error> {
        rows(&self.db, "SELECT * FROM users ORDER BY created_at, rowid", [], decode)
    }

    /// The account with an e-mail, and its password hash.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn user_by_email(&self, email: &Email) -> Result<Option<(User, String)>, Error> {
        row(&self.db, "SELECT * FROM users WHERE email = ?1", [email.as_str()], |row| {
            Ok((decode(row)?, row.get("password_hash")?))
        })
    }
}

/// The first of `label`, `label-2`, `label-3` … that is not taken.
pub(super) fn free_label(
    label: &HostLabel,
    taken: impl Fn(&HostLabel) -> Result<bool, Error>,
) -> Result<HostLabel, Error> {
    if !taken(label)? {
        return Ok(label.clone());
    }
    for n in 2..HOST_LABELS_TRIED {
        let numbered = label.numbered(n);
        if !taken(&numbered)? {
            return Ok(numbered);
        }
    }
    Err(Invalid::new(format!("the address \"{}\" is taken too often: choose another name", label.as_str()))
        .into())
}

/// Turns "no row was touched" into [`Error::NotFound`].
pub(super) fn changed(rows: usize) -> Result<(), Error> {
    if rows == 0 { Err(Error::NotFound) } else { Ok(()) }
}

fn user(db: &Connection, id: UserId) -> Result<Option<User>, Error> {
    row(db, "SELECT * FROM users WHERE id = ?1", [id.to_string()], decode)
}

fn decode(row: &Row) -> Result<User, Error> {
    Ok(User {
        id: text(row, "id", UserId::parse)?,
        email: text(row, "email", |t| Email::parse(t).ok())?,
        name: text(row, "name", |t| UserName::parse(t).ok())?,
        host: HostLabel::stored(row.get("host")?),
        admin: row.get("admin")?,
        created_at: from_secs(row.get("created_at")?),
    })
}
