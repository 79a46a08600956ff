//! Accounts and tokens: section 3 of the contract.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::after;
use serde::Deserialize;
use serde_json::{Value, json};

use super::failure::Failure;
use super::request::Call;
use super::routes::Answer;
use super::wire::UserOut;
use super::{Api, json as answer};
use crate::auth::password::{self, Password};
use crate::auth::throttle::Decision;
use crate::auth::token::{Claims, Kind};
use crate::domain::{Email, SessionId, User, UserName};
use crate::limits;
use crate::store::{Admit, Error, NewUser, Session};

/// Who may make an account, once there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Nobody; the command line still can.
    Closed,
    /// Anybody.
    Open,
}

/// `POST /auth/register`. The first account becomes the administrator; only a local caller may make it.
pub(super) fn register(api: &Api, call: &Call) -> Answer {
    let fields = call.fields(&["email", "password", "name"])?;
    let email = Email::parse(fields.required("email", "Email")?)?;
    let password = Password::parse(fields.required("password", "Password")?)?;
    let name = UserName::parse(fields.required("name", "Name")?)?;
    let users = api.store.reader()?.users()?;
    let admit = match (users.is_empty(), api.registration) {
        (true, _) if call.is_local => Admit::First,
        (true, _) => {
            let sentence = "The first account can only be made on the server itself: open the dashboard there, \
                            or run \"muelle user add\"";
            return Err(Failure::new(403, "RegistrationClosed", sentence));
        }
        (false, Registration::Open) => Admit::Any,
        (false, Registration::Closed) => return Err(closed()),
    };
    if users.iter().any(|user| user.email == email) {
        return Err(Error::Taken(crate::store::What::Email).into());
    }
    let password_hash = password::hash(&password).map_err(|error| Failure::internal(error.to_string()))?;
    let user = api.store.create_user(NewUser { email, name, password_hash }, admit, SystemTime::now());
    match user {
        Ok(user) => {
            log::info!("account {} made{}", user.id, if user.admin { " as administrator" } else { "" });
            let tokens = open_session(api, &user)?;
            Ok(answer(201, &tokens))
        }
        Err(Error::NotFirst) => Err(closed()),
        Err(error) => Err(error.into()),
    }
}

fn closed() -> Failure {
    Failure::new(403, "RegistrationClosed", "Registration is closed: ask the administrator for an account")
}

/// Holds a guess at an account under attack, or refuses an address that guesses. On the connection's thread: those who wait take no
/// place in the login queue.
///
/// # Blocks
/// For the account's delay, at most [`limits::LOGIN_DELAY_MAX`].
pub(super) fn slow_down(api: &Api, call: &Call) -> Result<(), Failure> {
    let Some(email) = email_of(call) else { return Ok(()) };
    let decision = api.throttle().ask(call.address, &email, Instant::now());
    match decision {
        Decision::Go => Ok(()),
        Decision::Wait(delay) => {
            let _ = after(delay).recv();
            Ok(())
        }
        Decision::Refuse { retry_after } => Err(too_many(retry_after)),
    }
}

/// The account that a login is for, where the body names one.
fn email_of(call: &Call) -> Option<Email> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        email: Cow<'a, str>,
    }
    // Whatever else there is, is passed over without being kept.
    let named: Named<'_> = serde_json::from_slice(&call.body).ok()?;
    Email::parse(&named.email).ok()
}

fn too_many(retry_after: Duration) -> Failure {
    Failure::new(429, "TooManyAttempts", "Too many failed logins: try again later")
        .retry(retry_after.as_secs().max(1))
}

/// `POST /auth/login`. Takes as long for an unknown user as for a wrong password.
pub(super) fn login(api: &Api, call: &Call) -> Answer {
    let fields = call.fields(&["email", "password"])?;
    let wrong = || Failure::new(401, "InvalidCredentials", "Invalid email or password");
    let (email, password) = (fields.required("email", "Email")?, fields.required("password", "Password")?);
    // What can be nobody's address is as wrong as any other.
    let (email, password) = (Email::parse(email).map_err(|_| wrong())?, Password::attempt(password)?);
    // Others from the same address may have failed while this one waited for its turn.
    if let Decision::Refuse { retry_after } = api.throttle().ask(call.address, &email, Instant::now()) {
        return Err(too_many(retry_after));
    }
    let known = api.store.reader()?.user_by_email(&email)?;
    let stored = known.as_ref().map_or_else(|| password::dummy(), |(_, hash)| hash.as_str());
    let matches =
        password::verify(stored, &password).map_err(|error| Failure::internal(error.to_string()))?;
    match known {
        Some((user, _)) if matches => Ok(answer(200, &open_session(api, &user)?)),
        _ => {
            let now = Instant::now();
            api.throttle().failed(call.address, &email, now);
            if let Decision::Refuse { retry_after } = api.throttle().ask(call.address, &email, now) {
                let seconds = retry_after.as_secs();
                log::warn!("too many failed logins from {}: refused for {seconds} s", call.address);
            }
            Err(wrong())
        }
    }
}

/// `GET /auth/me`.
pub(super) fn me(_: &Api, call: &Call) -> Answer {
    Ok(answer(200, &json!({"user": UserOut::from(&*call.caller()?.user)})))
}

/// `POST /auth/logout`: the session is over at once, its streams about a second later.
pub(super) fn logout(api: &Api, call: &Call) -> Answer {
    call.nothing()?;
    let session = call.caller()?.session;
    api.store.revoke_session(session)?;
    api.end_sessions(&[session], "logged out");
    Ok(answer(200, &json!({"message": "Logged out successfully"})))
}

/// `POST /auth/refresh`, with the refresh token as Bearer.
pub(super) fn refresh(api: &Api, call: &Call) -> Answer {
    call.nothing()?;
    let now = SystemTime::now();
    let token = call.token.as_deref().ok_or_else(Failure::unauthorized)?;
    let claims = api.keys.verify(Kind::Refresh, token, now).ok_or_else(Failure::unauthorized)?;
    let user = api.sessions.user(claims.session, claims.user).ok_or_else(Failure::unauthorized)?;
    let rotated = api.store.rotate_session(claims.session, claims.generation, api.session_lifetime, now);
    let session = match rotated {
        Ok(session) => session,
        Err(Error::NotFound) => return Err(Failure::unauthorized()),
        Err(error) => return Err(error.into()),
    };
    let (access, refresh) = tokens(api, &user, &session, now)?;
    Ok(answer(200, &json!({"access_token": access, "refresh_token": refresh})))
}

fn open_session(api: &Api, user: &User) -> Result<Value, Failure> {
    let now = SystemTime::now();
    let over = api.store.purge_sessions(now)?;
    api.end_sessions(&over, "the session has expired");
    let opened = api.store.create_session(user.id, api.session_lifetime, now)?;
    api.sessions.add(opened.session.id, user);
    api.end_sessions(&opened.revoked, "too many sessions of one user");
    let (token, refresh_token) = tokens(api, user, &opened.session, now)?;
    Ok(json!({"user": UserOut::from(user), "token": token, "refresh_token": refresh_token}))
}

fn tokens(api: &Api, user: &User, session: &Session, now: SystemTime) -> Result<(String, String), Failure> {
    let issue = |kind, lifetime: Duration| {
        let (user, session, generation) = (user.id, session.id, session.generation);
        let claims = Claims { user, session, generation, expires: now + lifetime };
        api.keys.issue(kind, &claims, now).map_err(|error| Failure::internal(error.to_string()))
    };
    Ok((issue(Kind::Access, api.token_lifetime)?, issue(Kind::Refresh, limits::REFRESH_LIFETIME)?))
}

impl Api {
    /// Forgets sessions that are revoked, and ends their streams.
    pub(super) fn end_sessions(&self, ended: &[SessionId], reason: &'static str) {
        if !ended.is_empty() {
            self.sessions.remove(ended);
            let at = Instant::now() + limits::STREAM_END_AFTER;
            self.runtime.hub.end_sessions(&|session| ended.contains(&session), at, reason);
        }
    }
}
