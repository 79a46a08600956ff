//! Who is logged in, in memory: what a token is checked against without a query.
//!
//! The store is the truth; every change is written there first. What the command line changed behind our back is read again.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::domain::{SessionId, User, UserId};
use crate::store::{Error, Reader};

/// Users and their sessions.
#[derive(Default)]
pub struct Sessions {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    users: HashMap<UserId, Arc<User>>,
    sessions: HashMap<SessionId, UserId>,
    /// Counts the changes: what was read meanwhile may be older.
    changes: u64,
}

impl Sessions {
    /// Reads everything from the store; gives the sessions that there were and are no more.
    ///
    /// # Errors
    /// Those of reading; nothing is changed then.
    ///
    /// # Blocks
    /// On two queries.
    pub fn reload(&self, reader: &Reader) -> Result<Vec<SessionId>, Error> {
        loop {
            let changes = self.known.read().unwrap_or_else(PoisonError::into_inner).changes;
            let users = reader.users()?.into_iter().map(|user| (user.id, Arc::new(user))).collect();
            let sessions = reader.sessions()?.into_iter().map(|session| (session.id, session.user)).collect();
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            if known.changes != changes {
                // Somebody logged in or out in between. Each turn costs them a commit, so it ends.
                continue;
            }
            let before = std::mem::replace(&mut *known, Known { users, sessions, changes: changes + 1 });
            let ended = before.sessions.into_keys().filter(|id| !known.sessions.contains_key(id));
            return Ok(ended.collect());
        }
    }

    /// Adds what was just written.
    pub fn add(&self, session: SessionId, user: &User) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.changes += 1;
        known.sessions.insert(session, user.id);
        known.users.entry(user.id).or_insert_with(|| Arc::new(user.clone()));
    }

    /// Takes away what was just revoked.
    pub fn remove(&self, sessions: &[SessionId]) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.changes += 1;
        for session in sessions {
            known.sessions.remove(session);
        }
    }

    /// The user of a live session.
    #[must_use]
    pub fn user(&self, session: SessionId, user: UserId) -> Option<Arc<User>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.sessions.get(&session).filter(|owner| **owner == user)?;
        known.users.get(&user).cloned()
    }
}
