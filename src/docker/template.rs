//! The one body with which a container is created.
//!
//! Nothing that a user sends reaches the engine except through the fields of [`Spec`]; `template.golden.json` holds the rest.
//! Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::container::{LABEL_DEPLOYMENT, LABEL_INSTANCE, LABEL_PORT, LABEL_PROJECT, LABEL_SPEC};
use crate::domain::{ContainerName, EnvName, ImageRef, ProjectId};

/// What a container of ours is created from.
#[derive(Clone, PartialEq)]
pub struct Spec {
    /// Its name.
    pub name: ContainerName,
    /// Its image, which the engine must have.
    pub image: ImageRef,
    /// The project that it runs.
    pub project: ProjectId,
    /// The muelle that it belongs to.
    pub instance: String,
    /// The deployment of the project that it runs, where it runs one.
    pub deployment: Option<u32>,
    /// The one network that it joins.
    pub network: String,
    /// The port inside that is published at a port of 127.0.0.1 chosen by the engine; for engines whose networks cannot be
    /// reached.
    pub publish: Option<u16>,
    /// The port that the app is told by `PORT`, unless the environment says another. The container carries it as [`LABEL_PORT`].
    pub port: Option<u16>,
    /// The environment.
    pub env: BTreeMap<EnvName, String>,
    /// Its memory limit in MiB, swap included.
    pub memory_mb: u32,
    /// Its CPU limit in CPUs; `None` without one.
    pub cpus: Option<f64>,
}

/// Values of the environment are secrets, and operations are logged.
impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spec")
            .field("name", &self.name)
            .field("image", &self.image)
            .field("project", &self.project)
            .finish_non_exhaustive()
    }
}

impl Spec {
    /// A short stable hash over all that needs a new container when it changes, our own template included. How it is reached does not:
    /// that is found out anew each time one is created.
    ///
    /// The container carries it as [`LABEL_SPEC`]. It knows the image by its name only: whether that name means another image
    /// by now is seen by comparing [`Inspected::image_id`](super::Inspected::image_id) with [`Image::id`](super::Image::id).
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let unpublished = Spec { publish: None, ..self.clone() };
        format!("{:016x}", fnv1a(unpublished.body(None).to_string().as_bytes()))
    }

    /// The body of `POST /containers/create`.
    pub(super) fn create_body(&self) -> Value {
        self.body(Some(self.fingerprint()))
    }

    fn body(&self, fingerprint: Option<String>) -> Value {
        let mut env: BTreeMap<&str, String> =
            self.env.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        if let Some(port) = self.port {
            env.entry("PORT").or_insert_with(|| port.to_string());
        }
        let mut labels = BTreeMap::from([
            (LABEL_INSTANCE, self.instance.clone()),
            (LABEL_PROJECT, self.project.to_string()),
        ]);
        labels.extend(self.deployment.map(|number| (LABEL_DEPLOYMENT, number.to_string())));
        let told = self.env.keys().all(|name| name.as_str() != "PORT");
        if fingerprint.is_some() || !told {
            // Where the app is told the port, that needs a new container already.
            labels.insert(LABEL_PORT, self.port.map(|port| port.to_string()).unwrap_or_default());
        }
        labels.extend(fingerprint.map(|hash| (LABEL_SPEC, hash)));
        let memory_bytes = u64::from(self.memory_mb) << 20;
        let published = self.publish.map(|port| format!("{port}/tcp"));
        json!({
            "Image": self.image.as_str(),
            "Env": env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            "Labels": labels,
            "ExposedPorts": published.iter().map(|key| (key, json!({}))).collect::<BTreeMap<_, _>>(),
            "HostConfig": {
                // Raw packets: with them one app could answer for another's address on the bridge that they share.
                "CapDrop": ["NET_RAW"],
                "Init": true,
                "LogConfig": { "Type": "json-file", "Config": { "max-size": "10m", "max-file": "2" } },
                "Memory": memory_bytes,
                "MemorySwap": memory_bytes,
                "NanoCpus": self.cpus.map_or(0, nano_cpus),
                "NetworkMode": self.network,
                "PidsLimit": 256,
                "PortBindings": published
                    .iter()
                    .map(|key| (key, json!([{ "HostIp": "127.0.0.1", "HostPort": "" }])))
                    .collect::<BTreeMap<_, _>>(),
                "Privileged": false,
                "RestartPolicy": { "Name": "no" },
                "SecurityOpt": ["no-new-privileges"],
            },
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float cast saturates, and the engine refuses what it has not"
)]
fn nano_cpus(cpus: f64) -> i64 {
    (cpus * 1e9).round() as i64
}

/// 64-bit FNV-1a: the standard hasher may change between compilers, and this value is stored in labels.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn spec() -> Spec {
        Spec {
            name: ContainerName::of_project(ProjectId(42)),
            image: ImageRef::parse("registry:5000/team/web:1").unwrap(),
            project: ProjectId(42),
            instance: "home".to_owned(),
            deployment: None,
            network: "muelle-home".to_owned(),
            publish: Some(8080),
            port: Some(8080),
            env: BTreeMap::from([(EnvName::parse("GREETING").unwrap(), "¡hola=\"$(id)\"!".to_owned())]),
            memory_mb: 512,
            cpus: Some(0.5),
        }
    }

    #[test]
    fn the_create_body_is_the_golden_file() {
        let golden: Value = serde_json::from_str(include_str!("template.golden.json")).unwrap();
        let body = spec().create_body();
        assert_eq!(body, golden, "{body:#}");
    }

    #[test]
    fn without_a_port_to_publish_nothing_is_published() {
        let body = Spec { publish: None, ..spec() }.create_body();
        assert_eq!(body["HostConfig"]["PortBindings"], json!({}));
        assert_eq!(body["ExposedPorts"], json!({}));
    }

    #[test]
    fn the_deployment_is_a_label_where_there_is_one() {
        let label = |spec: Spec| spec.create_body()["Labels"][LABEL_DEPLOYMENT].clone();
        assert_eq!(label(spec()), Value::Null);
        assert_eq!(label(Spec { deployment: Some(7), ..spec() }), json!("7"));
    }

    #[test]
    fn the_users_own_port_variable_wins() {
        let env = BTreeMap::from([(EnvName::parse("PORT").unwrap(), "9".to_owned())]);
        assert_eq!(Spec { env, ..spec() }.create_body()["Env"], json!(["PORT=9"]));
        let none = Spec { env: BTreeMap::new(), port: None, ..spec() };
        assert_eq!(none.create_body()["Env"], json!([]));
    }

    #[test]
    fn the_fingerprint_changes_with_what_needs_a_new_container() {
        let base = spec().fingerprint();
        assert_eq!(base, spec().fingerprint());
        for changed in [
            Spec { image: ImageRef::parse("web:2").unwrap(), ..spec() },
            Spec { network: "other".to_owned(), ..spec() },
            Spec { deployment: Some(1), ..spec() },
            Spec { port: Some(81), ..spec() },
            Spec { env: BTreeMap::new(), ..spec() },
            Spec { memory_mb: 256, ..spec() },
            Spec { cpus: None, ..spec() },
        ] {
            assert_ne!(changed.fingerprint(), base, "{:#}", changed.create_body());
        }
        let renamed = Spec { name: ContainerName::parse("other").unwrap(), ..spec() };
        assert_eq!(renamed.fingerprint(), base, "a name can be changed in place");
        let unpublished = Spec { publish: None, ..spec() };
        assert_eq!(unpublished.fingerprint(), base, "how it is reached is found out at each creation");
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // Vectors of the FNV reference: http://www.isthe.com/chongo/tech/comp/fnv/
        for (text, hash) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            assert_eq!(fnv1a(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn case_53_a_debugged_spec_shows_no_environment() {
        assert!(!format!("{:?}", spec()).contains("hola"));
    }
}
