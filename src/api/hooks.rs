//! Pushes that a repository's host tells of: GitHub's webhooks, and those of Gitea and Forgejo, which have the same form.

use std::time::SystemTime;

use hmac_sha256::HMAC;
use serde::Deserialize;
use serde_json::json;

use super::failure::Failure;
use super::projects::{own, record};
use super::request::{Call, Hook};
use super::routes::Answer;
use super::{Api, json as answer};
use crate::domain::{Branch, Cause, Deployment, Secret};
use crate::http::query_param;
use crate::limits;

/// `POST /projects/:id/webhook`: makes the secret, which is shown this once. One from before does not count any more.
pub(super) fn create(api: &Api, call: &Call) -> Answer {
    call.nothing()?;
    let view = own(api, call)?;
    if !view.project.is_built() {
        let sentence = "This project does not come from a repository, nobody pushes to it";
        return Err(Failure::new(400, "NotFromRepository", sentence));
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| Failure::internal(error.to_string()))?;
    let text = hex(&random);
    let secret = Secret::parse("secret", &text)?;
    record(api, |committed| api.store.set_hook_secret(view.project.id, Some(secret), committed))?;
    let path = format!("/api/hooks/github/{}", view.project.id);
    let hook = json!({"path": path, "secret": text, "content_type": "application/json", "events": ["push"]});
    Ok(answer(201, &json!({ "webhook": hook })))
}

/// `DELETE /projects/:id/webhook`.
pub(super) fn remove(api: &Api, call: &Call) -> Answer {
    call.nothing()?;
    let view = own(api, call)?;
    record(api, |committed| api.store.set_hook_secret(view.project.id, None, committed))?;
    Ok(answer(200, &json!({"message": "Webhook removed"})))
}

/// What is read of a push.
#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: String,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    after: String,
    repository: Repository,
}

#[derive(Deserialize)]
struct Repository {
    #[serde(default)]
    default_branch: String,
}

/// `POST /hooks/github/:id`: a push to the project's branch deploys, all else does nothing. Without a secret there is no such place.
pub(super) fn github(api: &Api, call: &Call) -> Answer {
    let id = call.project()?;
    let view = api.runtime.snapshot().projects.get(&id).cloned().ok_or_else(Failure::no_project)?;
    let secret = view.project.hook_secret.as_ref().ok_or_else(Failure::no_project)?;
    if !is_signed(&call.body, call.hook.signature.as_deref(), secret) {
        return Err(Failure::new(401, "BadSignature", "The signature does not fit the body"));
    }
    let nothing = |why: &str| Ok(answer(200, &json!({"message": format!("Nothing to do: {why}")})));
    match call.hook.event.as_deref() {
        Some("push") => {}
        Some("ping") => return Ok(answer(200, &json!({"message": "pong"}))),
        _ => return nothing("this is no push"),
    }
    let push = read(&call.body, &call.hook)?;
    let branch =
        view.project.settings.branch.as_ref().map_or(push.repository.default_branch.as_str(), Branch::as_str);
    if push.reference.strip_prefix("refs/heads/") != Some(branch) {
        return nothing("the push is to another branch");
    }
    if push.deleted || (!push.after.is_empty() && push.after.bytes().all(|byte| byte == b'0')) {
        return nothing("the branch was deleted");
    }
    // Not by its name alone: that is not signed, and whoever recorded a message could send it again under another.
    let names = call.hook.delivery.iter().chain(&call.hook.signature);
    let names = names.map(|name| name.chars().take(limits::DELIVERY_CHARS_MAX).collect()).collect();
    let (committed, recording) = api.runtime.queueing();
    let committed = |made: &Option<Deployment>| made.clone().map_or((), committed);
    let made = api.store.create_deployment(id, Cause::Pushed, names, SystemTime::now(), committed)?;
    let Some(made) = made else { return nothing("this delivery is known already") };
    drop(recording);
    Ok(answer(202, &json!({"message": "Deployment queued", "deployment": made.number})))
}

fn read(body: &[u8], hook: &Hook) -> Result<Push, Failure> {
    let wrong = || Failure::invalid("The body is not the message of a push");
    let is_form =
        hook.content_type.as_deref().is_some_and(|it| it.starts_with("application/x-www-form-urlencoded"));
    if is_form {
        let form = std::str::from_utf8(body).map_err(|_| wrong())?;
        let payload = query_param(form, "payload").ok_or_else(wrong)?;
        return serde_json::from_str(&payload).map_err(|_| wrong());
    }
    serde_json::from_slice(body).map_err(|_| wrong())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Whether `sha256=<hex>` is the HMAC-SHA-256 of the body as it came; compared in constant time.
fn is_signed(body: &[u8], signature: Option<&str>, secret: &Secret) -> bool {
    let hex =
        signature.and_then(|it| it.strip_prefix("sha256=")).filter(|hex| hex.len() == 64 && hex.is_ascii());
    let Some(hex) = hex else { return false };
    let mut expected = [0; 32];
    for (byte, pair) in expected.iter_mut().zip(hex.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).unwrap_or_default();
        let Ok(read) = u8::from_str_radix(pair, 16) else { return false };
        *byte = read;
    }
    HMAC::verify(body, secret.expose(), &expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hmac_of_the_body_as_it_came_is_a_signature() {
        // The example of GitHub's documentation, "Validating webhook deliveries".
        let secret = Secret::parse("secret", "It's-a-Secret").unwrap();
        let body = b"Hello, World!";
        let hex = hex(&HMAC::mac(body, secret.expose()));
        let good = format!("sha256={hex}");
        assert!(is_signed(body, Some(&good), &secret));
        assert!(is_signed(body, Some(&good.replace(&hex, &hex.to_uppercase())), &secret));
        assert!(!is_signed(b"Hello, World", Some(&good), &secret));
        for bad in [
            None,
            Some(""),
            Some(&hex[..]),
            Some("sha256="),
            Some("sha1=00"),
            Some(&good[..70]),
            Some(&format!("{good}0")),
        ] {
            assert!(!is_signed(body, bad, &secret), "{bad:?}");
        }
        let plus = format!("sha256=+{}", &hex[1..]);
        assert!(!is_signed(body, Some(&plus), &secret));
    }

    #[test]
    fn a_push_is_read_as_json_or_as_a_form() {
        let json =
            br#"{"ref":"refs/heads/main","after":"1f","repository":{"default_branch":"main"},"pusher":{}}"#;
        let read_as = |body: &[u8], kind: &str| {
            let hook = Hook { content_type: Some(kind.to_owned()), ..Hook::default() };
            read(body, &hook).ok().map(|push| push.reference)
        };
        assert_eq!(read_as(json, "application/json").as_deref(), Some("refs/heads/main"));
        let form = b"payload=%7B%22ref%22%3A%22refs%2Fheads%2Fa%22%2C%22repository%22%3A%7B%7D%7D";
        assert_eq!(read_as(form, "application/x-www-form-urlencoded").as_deref(), Some("refs/heads/a"));
        for (body, kind) in
            [(&b"{}"[..], "application/json"), (json, "application/x-www-form-urlencoded"), (b"\xff", "x")]
        {
            assert_eq!(read_as(body, kind), None);
        }
    }
}
