//! Host names of the projects' own: which ones there may be, and which ones there are.

use std::collections::BTreeSet;

use serde_json::json;

use super::failure::Failure;
use super::fields::Fields;
use super::request::Call;
use super::routes::Answer;
use super::{Api, json as answer};
use crate::domain::{Domain, ProjectId};
use crate::limits;

/// The domains of a create or change request, for the project `own` or a new one: none that is ours or somebody else's. Of two that ask at
/// once the store turns one away.
pub(super) fn read(
    api: &Api,
    fields: &Fields,
    own: Option<ProjectId>,
) -> Result<Option<BTreeSet<Domain>>, Failure> {
    let Some(domains) = fields.list("domains", limits::DOMAINS_PER_PROJECT, Domain::parse)? else {
        return Ok(None);
    };
    let domains: BTreeSet<Domain> = domains.into_iter().collect();
    for domain in &domains {
        check(api, domain, own)?;
    }
    Ok(Some(domains))
}

fn check(api: &Api, domain: &Domain, own: Option<ProjectId>) -> Result<(), Failure> {
    let name = domain.as_str();
    let Some(addresses) = &api.addresses else {
        let sentence =
            "domains: apps have no addresses of their own here, as proxy.listen in config.toml says";
        return Err(Failure::invalid(sentence));
    };
    if addresses.owns(domain) {
        let sentence = format!("domains: below {} muelle gives the names itself", addresses.domain);
        return Err(Failure::invalid(sentence));
    }
    if api.panel_host.as_deref() == Some(name) || api.origins.is_ours(name) {
        return Err(Failure::invalid(format!("domains: {name} is a name of this server")));
    }
    if api.origins.may_call(name) {
        let sentence =
            format!("domains: pages of {name} may call this server (api.cors_origins in config.toml)");
        return Err(Failure::invalid(sentence));
    }
    match (api.find)(name).filter(|found| Some(*found) != own) {
        Some(_) => Err(Failure::new(409, "DomainTaken", format!("{name} leads to another project already"))),
        None => Ok(()),
    }
}

/// `GET /proxy/allowed?domain=`: whether the proxy would route this host; for Caddy, which asks before it gets a certificate.
pub(super) fn allowed(api: &Api, call: &Call) -> Answer {
    let host = call.param("domain").unwrap_or_default().to_ascii_lowercase();
    let is_panel = api.addresses.is_some() && api.panel_host.as_deref() == Some(host.as_str());
    if is_panel || (api.find)(&host).is_some() {
        Ok(answer(200, &json!({"allowed": true})))
    } else {
        Err(Failure::new(404, "NotFound", "This host name leads to no project"))
    }
}
