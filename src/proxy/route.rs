//! Which host is whose: the index that the proxy looks hosts up in.
//!
//! A host is what stands in the request, without its port and its last dot, in lower case.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::Addresses;
use crate::runtime::{Runtime, Snapshot, View};

/// Projects by their hosts.
#[derive(Debug, Default)]
pub struct Index(HashMap<String, Arc<View>>);

impl Index {
    /// The index of a snapshot. Of two projects with one host, which a pattern without dots can make, the older one has it. A domain of
    /// somebody's own never takes a host away that is made of names, also where the configuration changed since it was accepted.
    #[must_use]
    pub fn of(snapshot: &Snapshot, addresses: &Addresses) -> Index {
        let mut views: Vec<&Arc<View>> = snapshot.projects.values().collect();
        views.sort_by_key(|view| (view.project.created_at, view.project.id));
        let mut index = HashMap::with_capacity(views.len());
        for view in views {
            let host = addresses.host(&view.project.host, &view.project.owner_host);
            index.entry(host).or_insert_with(|| Arc::clone(view));
        }
        for view in snapshot.projects.values() {
            for domain in &view.project.settings.domains {
                index.entry(domain.as_str().to_owned()).or_insert_with(|| Arc::clone(view));
            }
        }
        Index(index)
    }

    /// The project of a host.
    #[must_use]
    pub fn find(&self, host: &str) -> Option<&Arc<View>> {
        self.0.get(&*plain(host))
    }
}

/// The index of what is known now.
pub struct Routes {
    runtime: Runtime,
    addresses: Addresses,
    /// The index, and the snapshot that it is of.
    index: Mutex<(Arc<Snapshot>, Arc<Index>)>,
}

impl Routes {
    /// Makes it. No I/O.
    #[must_use]
    pub fn new(runtime: Runtime, addresses: Addresses) -> Routes {
        let snapshot = runtime.snapshot();
        let index = Arc::new(Index::of(&snapshot, &addresses));
        Routes { runtime, addresses, index: Mutex::new((snapshot, index)) }
    }

    /// How hosts are made.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The project of a host now. The index is made anew once per change.
    #[must_use]
    pub fn find(&self, host: &str) -> Option<Arc<View>> {
        let snapshot = self.runtime.snapshot();
        let mut held = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&held.0, &snapshot) {
            *held = (Arc::clone(&snapshot), Arc::new(Index::of(&snapshot, &self.addresses)));
        }
        let index = Arc::clone(&held.1);
        drop(held);
        index.find(host).cloned()
    }
}

/// Whether a request's host is this one.
#[must_use]
pub fn is(host: &str, name: &str) -> bool {
    *plain(host) == *name
}

/// A host without its port and its last dot, in lower case. The front has checked that it is one.
fn plain(host: &str) -> Cow<'_, str> {
    let name = if host.starts_with('[') { host } else { host.split(':').next().unwrap_or_default() };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        name.to_ascii_lowercase().into()
    } else {
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_120_case_port_and_the_last_dot_do_not_matter() {
        for (host, name) in [
            ("A.Example.COM:80", "a.example.com"),
            ("a.example.com.", "a.example.com"),
            ("a.example.com.:8080", "a.example.com"),
            ("a.example.com", "a.example.com"),
            ("a.example.com.evil", "a.example.com.evil"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(plain(host), name, "{host}");
        }
    }
}
