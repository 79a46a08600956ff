//! What a user owns: a named app with its container, as it is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, SystemTime};

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::idle::Rule;
use super::{Branch, Domain, Invalid, Release, RepoUrl, Secret, Traffic, UserId, free_text};

/// Names a project; written `proj-1a2b3c4d`, safe in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectId(pub u32);

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proj-{:08x}", self.0)
    }
}

impl ProjectId {
    /// Reads what `Display` writes; nothing else.
    #[must_use]
    pub fn parse(text: &str) -> Option<ProjectId> {
        hex_id(text, "proj-").map(ProjectId)
    }
}

pub(super) fn hex_id(text: &str, prefix: &str) -> Option<u32> {
    let digits = text.strip_prefix(prefix)?;
    let well_formed = digits.len() == 8 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if well_formed { u32::from_str_radix(digits, 16).ok() } else { None }
}

/// The five words that clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Serving.
    Running,
    /// Off, because a person or something outside stopped it.
    Stopped,
    /// On its way up.
    Deploying,
    /// Failed; a reason goes with it.
    Error,
    /// Put to sleep for want of requests.
    Inactive,
}

impl Status {
    /// The contract's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Stopped => "stopped",
            Status::Deploying => "deploying",
            Status::Error => "error",
            Status::Inactive => "inactive",
        }
    }
}

/// What a person last asked for; survives everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Desired {
    /// Up, whenever the engine is.
    Running,
    /// Down.
    Stopped,
    /// Whatever it does: an adopted container that no command is working on.
    AsFound,
}

/// What kind of app it is, for the dashboards' icons and the recipes of a deploy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Template {
    /// Files; also what is said until the kind is known.
    #[default]
    Static,
    /// A React build.
    React,
    /// A Flask app.
    Flask,
    /// A Node server.
    Nodejs,
}

impl Template {
    /// Every template with its word in the API and the store.
    pub const WORDS: [(Template, &'static str); 4] = [
        (Template::Static, "static"),
        (Template::React, "react"),
        (Template::Flask, "flask"),
        (Template::Nodejs, "nodejs"),
    ];

    /// The template's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(t, _)| *t == self).map_or("static", |(_, word)| word)
    }

    /// The template that a word names.
    ///
    /// # Errors
    /// When no template has that word.
    pub fn parse(word: &str) -> Result<Template, Invalid> {
        Self::WORDS
            .iter()
            .find(|(_, w)| *w == word)
            .map(|(t, _)| *t)
            .ok_or_else(|| Invalid::new("template must be one of static, react, flask, nodejs"))
    }
}

/// A project's name: free text for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProjectName(String);

impl ProjectName {
    /// Longest name, in characters: its host label fits a DNS label (RFC 1035 §2.3.4) uncut.
    pub const MAX_CHARS: usize = HostLabel::MAX_BYTES;

    /// Keeps free text as it is, trimmed.
    ///
    /// # Errors
    /// When it is empty, too long or contains control characters.
    pub fn parse(raw: &str) -> Result<ProjectName, Invalid> {
        free_text("Name", raw, Self::MAX_CHARS).map(ProjectName)
    }

    /// The name as it was typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One label of a host name: lower-case letters, digits and inner hyphens, at most 63 bytes (RFC 1123 §2.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostLabel(String);

impl HostLabel {
    /// Longest label (RFC 1035 §2.3.4).
    pub const MAX_BYTES: usize = 63;
    /// Labels that would take a name which means something else.
    pub const RESERVED: [&'static str; 8] =
        ["api", "www", "localhost", "local", "muelle", "panel", "internal", "wpad"];

    /// The label for a name: accents fall off, everything else that a host name cannot hold becomes a hyphen.
    ///
    /// # Errors
    /// When nothing is left, or what is left is reserved; the sentence begins with `what`.
    pub fn derive(what: &str, name: &str) -> Result<HostLabel, Invalid> {
        let mut label = String::new();
        for c in name.nfd().filter(|c| !is_combining_mark(*c)) {
            if c.is_ascii_alphanumeric() {
                label.push(c.to_ascii_lowercase());
            } else if !label.is_empty() && !label.ends_with('-') {
                label.push('-');
            }
        }
        label.truncate(Self::MAX_BYTES);
        label.truncate(label.trim_end_matches('-').len());
        if label.is_empty() {
            return Err(Invalid(format!(
                "{what} needs at least one letter or digit (a to z, 0 to 9) for its address"
            )));
        }
        if Self::RESERVED.contains(&label.as_str()) {
            return Err(Invalid(format!(
                "{what} would get the address \"{label}\", which is reserved: choose another"
            )));
        }
        Ok(HostLabel(label))
    }

    /// The same label with a number behind it, for the second and later ones of that name.
    #[must_use]
    pub fn numbered(&self, n: u32) -> HostLabel {
        let suffix = format!("-{n}");
        let mut label = self.0.clone();
        label.truncate(Self::MAX_BYTES - suffix.len());
        label.truncate(label.trim_end_matches('-').len());
        HostLabel(label + &suffix)
    }

    /// Takes a label that was derived before and comes back from the store.
    #[must_use]
    pub fn stored(label: String) -> HostLabel {
        HostLabel(label)
    }

    /// The label.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a project's container comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// muelle builds its images from a repository.
    Git(RepoUrl),
    /// muelle creates the container from an image that the engine has.
    Image(ImageRef),
    /// A container that was there before, adopted under its name. It is never re-created.
    Container(ContainerName),
}

impl Source {
    /// The source's word in the API and the store.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Source::Git(_) => "git",
            Source::Image(_) => "image",
            Source::Container(_) => "container",
        }
    }
}

/// An image reference such as `registry:5000/team/web:1`, safe inside a request path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef(String);

impl ImageRef {
    /// Longest reference, in bytes: a name of 255 and a digest, with room.
    pub const MAX_BYTES: usize = 400;

    /// Accepts the characters of an image reference, in an order that no path traversal or option has.
    ///
    /// # Errors
    /// When it cannot be an image reference.
    pub fn parse(raw: &str) -> Result<ImageRef, Invalid> {
        let chars = raw.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b));
        let starts = raw.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let ends = raw.bytes().last().is_some_and(|b| b.is_ascii_alphanumeric());
        if !chars
            || !starts
            || !ends
            || raw.len() > Self::MAX_BYTES
            || raw.contains("..")
            || raw.contains("//")
        {
            return Err(Invalid::new("image is not a valid image name (for example \"nginx:1.27\")"));
        }
        Ok(ImageRef(raw.to_owned()))
    }

    /// The reference.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A container's name as the engine allows it: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, safe inside a request path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerName(String);

impl ContainerName {
    /// Longest name accepted, in bytes; the engine itself sets no bound.
    pub const MAX_BYTES: usize = 255;

    /// Accepts a name, with or without the engine's leading slash.
    ///
    /// # Errors
    /// When no container can have that name.
    pub fn parse(raw: &str) -> Result<ContainerName, Invalid> {
        let name = raw.strip_prefix('/').unwrap_or(raw);
        let starts = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let chars = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if !starts || !chars || name.len() < 2 || name.len() > Self::MAX_BYTES {
            return Err(Invalid::new("container is not a valid container name"));
        }
        Ok(ContainerName(name.to_owned()))
    }

    /// The name of the container that muelle creates for a project.
    #[must_use]
    pub fn of_project(id: ProjectId) -> ContainerName {
        ContainerName(format!("muelle-{id}"))
    }

    /// The name of the container that runs a version of a project.
    #[must_use]
    pub fn of_release(id: ProjectId, number: u32) -> ContainerName {
        ContainerName(format!("muelle-{id}-{number}"))
    }

    /// The name, without a slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An environment variable's name: `[A-Za-z_][A-Za-z0-9_]*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EnvName(String);

impl EnvName {
    /// Longest name, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Accepts a name.
    ///
    /// # Errors
    /// When it has another shape.
    pub fn parse(raw: &str) -> Result<EnvName, Invalid> {
        let starts = raw.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        let chars = raw.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if starts && chars && raw.len() <= Self::MAX_BYTES {
            Ok(EnvName(raw.to_owned()))
        } else {
            let shown: String = raw.chars().take(40).map(|c| if c.is_control() { '?' } else { c }).collect();
            Err(Invalid(format!("env: \"{shown}\" is not a valid variable name")))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The path that an app is asked for when one wants to know whether it is well: `/health`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthPath(String);

impl HealthPath {
    /// Longest path, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Accepts a path with an optional query, in the characters that a request line takes as they are (RFC 3986 §3.3).
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(raw: &str) -> Result<HealthPath, Invalid> {
        let plain = |b: u8| b.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&b);
        if raw.starts_with('/') && raw.len() <= Self::MAX_BYTES && raw.bytes().all(plain) {
            Ok(HealthPath(raw.to_owned()))
        } else {
            Err(Invalid::new("health_path must be a path such as \"/health\""))
        }
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What an app held when it was put to sleep, and does not hold since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Its use of CPUs, in thousandths of one.
    pub cpu_milli: u64,
}

/// How long without a request until a project may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleAfter {
    /// It stays up.
    Never,
    /// After this long.
    After(Duration),
}

/// What a user may choose for a project's container; everything else comes from the fixed template.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Settings {
    /// The port that the app listens on inside its container.
    pub port: Option<u16>,
    /// The environment. Values are never shown again.
    pub env: BTreeMap<EnvName, String>,
    /// The memory limit in MiB.
    pub memory_mb: Option<u32>,
    /// The CPU limit in CPUs.
    pub cpus: Option<f64>,
    /// When it may sleep; `None` where the user did not say.
    pub idle_after: Option<IdleAfter>,
    /// What its app must answer without an error to be called ready; any answer to `/` will do where there is none.
    pub health_path: Option<HealthPath>,
    /// The branch that is deployed; what the repository calls its default where there is none.
    pub branch: Option<Branch>,
    /// What opens its repository.
    pub git_token: Option<Secret>,
    /// Hosts that lead to it, beside the one that is made of its name.
    pub domains: BTreeSet<Domain>,
}

impl Settings {
    /// Whether a container that was made with the one must be made anew for the other.
    #[must_use]
    pub fn needs_new_container(&self, other: &Settings) -> bool {
        let made_of = |it: &Settings| (it.port, it.env.clone(), it.memory_mb, it.cpus);
        made_of(self) != made_of(other)
    }

    /// Most variables of one project.
    pub const ENV_MAX: usize = 100;
    /// Most bytes of one project's environment, names and values together.
    pub const ENV_BYTES_MAX: usize = 32 * 1024;

    /// Holds the environment to its bounds.
    ///
    /// # Errors
    /// A sentence that names the bound or the variable.
    pub fn check_env(env: &BTreeMap<EnvName, String>) -> Result<(), Invalid> {
        if env.len() > Self::ENV_MAX {
            return Err(Invalid(format!("env has more than {} variables", Self::ENV_MAX)));
        }
        if env.iter().map(|(k, v)| k.as_str().len() + v.len()).sum::<usize>() > Self::ENV_BYTES_MAX {
            return Err(Invalid(format!("env is larger than {} KiB", Self::ENV_BYTES_MAX / 1024)));
        }
        match env.iter().find(|(_, value)| value.contains('\0')) {
            Some((name, _)) => {
                Err(Invalid(format!("env: the value of {} contains a NUL byte", name.as_str())))
            }
            None => Ok(()),
        }
    }
}

/// What a user wants changed of the settings; the rest stays.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct SettingsChange {
    /// Another port.
    pub port: Option<u16>,
    /// Variables to set, and with `None` to take away.
    pub env: BTreeMap<EnvName, Option<String>>,
    /// Another memory limit in MiB.
    pub memory_mb: Option<u32>,
    /// Another CPU limit in CPUs.
    pub cpus: Option<f64>,
    /// Another time until it may sleep.
    pub idle_after: Option<IdleAfter>,
    /// Another path to ask, or with `Some(None)` none any more.
    pub health_path: Option<Option<HealthPath>>,
    /// Another branch, or with `Some(None)` the default again.
    pub branch: Option<Option<Branch>>,
    /// Another token, or with `Some(None)` none any more.
    pub git_token: Option<Option<Secret>>,
    /// Other hosts, in place of all that there were.
    pub domains: Option<BTreeSet<Domain>>,
}

impl SettingsChange {
    /// Makes the change.
    ///
    /// # Errors
    /// When the environment would be too large.
    pub fn apply(self, settings: &mut Settings) -> Result<(), Invalid> {
        settings.port = self.port.or(settings.port);
        settings.memory_mb = self.memory_mb.or(settings.memory_mb);
        settings.cpus = self.cpus.or(settings.cpus);
        settings.idle_after = self.idle_after.or(settings.idle_after);
        if let Some(path) = self.health_path {
            settings.health_path = path;
        }
        if let Some(branch) = self.branch {
            settings.branch = branch;
        }
        if let Some(token) = self.git_token {
            settings.git_token = token;
        }
        if let Some(domains) = self.domains {
            settings.domains = domains;
        }
        for (name, value) in self.env {
            match value {
                Some(value) => drop(settings.env.insert(name, value)),
                None => drop(settings.env.remove(&name)),
            }
        }
        Settings::check_env(&settings.env)
    }
}

/// A project as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Whose it is.
    pub owner: UserId,
    /// What people call it.
    pub name: ProjectName,
    /// Its part of the host name; unchanged by a rename.
    pub host: HostLabel,
    /// Its owner's part of the host name, as unchanging.
    pub owner_host: HostLabel,
    /// Where its container comes from.
    pub source: Source,
    /// What kind of app it is, as far as that is known.
    pub template: Template,
    /// Whether its owner said so; otherwise each deployment finds it out.
    pub template_chosen: bool,
    /// The version that it runs; none where it does not come from a repository, or before the first deployment.
    pub release: Option<Release>,
    /// What the pushes that are told to muelle are signed with; none where nobody may tell.
    pub hook_secret: Option<Secret>,
    /// What its owner chose.
    pub settings: Settings,
    /// What its owner last asked for.
    pub desired: Desired,
    /// Whether it was put to sleep.
    pub asleep: Option<Held>,
    /// Whether it is being deleted: invisible, kept until its container is gone.
    pub deleting: bool,
    /// When it was made.
    pub created_at: SystemTime,
    /// What had passed to its app when it was read from the store.
    pub traffic: Traffic,
}

impl Project {
    /// The name of the container that runs it.
    #[must_use]
    pub fn container_name(&self) -> ContainerName {
        match (&self.source, &self.release) {
            (Source::Container(name), _) => name.clone(),
            (_, Some(release)) => ContainerName::of_release(self.id, release.number),
            (_, None) => ContainerName::of_project(self.id),
        }
    }

    /// When it may sleep; as the rule says where its owner did not. Nobody's adopted database is put to sleep unasked, and nothing that no
    /// request could wake.
    #[must_use]
    pub fn idle_after(&self, rule: &Rule) -> IdleAfter {
        let unasked = if self.is_adopted() { IdleAfter::Never } else { rule.after };
        if rule.wakes { self.settings.idle_after.unwrap_or(unasked) } else { IdleAfter::Never }
    }

    /// Whether muelle builds it from a repository.
    #[must_use]
    pub fn is_built(&self) -> bool {
        matches!(self.source, Source::Git(_))
    }

    /// What its container is created from; none for an adopted one, and for one that was never built.
    #[must_use]
    pub fn image(&self) -> Option<&ImageRef> {
        match &self.source {
            Source::Git(_) => self.release.as_ref().map(|release| &release.image),
            Source::Image(image) => Some(image),
            Source::Container(_) => None,
        }
    }

    /// The port that its app listens on inside its container, by its owner's word or the build's; and whether that is more than a guess.
    #[must_use]
    pub fn port(&self) -> Option<(u16, bool)> {
        let built = self.release.as_ref().map(|release| (release.port, release.port_known));
        self.settings.port.map(|port| (port, true)).or(built)
    }

    /// Whether the container was there before the project.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        matches!(self.source, Source::Container(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_36_a_label_is_derived_safely_from_any_name() {
        for (name, label) in [
            ("Mi App", "mi-app"),
            ("Peña Ñandú", "pena-nandu"),
            ("<script>alert(1)</script>", "script-alert-1-script"),
            ("a;rm -rf / $(id)", "a-rm-rf-id"),
            ("../../etc", "etc"),
            ("--x--", "x"),
            ("App 🚀", "app"),
            ("\u{202e}evil", "evil"),
            ("A_B.C", "a-b-c"),
        ] {
            assert_eq!(HostLabel::derive("Name", name).unwrap().as_str(), label, "{name}");
        }
    }

    #[test]
    fn case_63_a_reserved_empty_or_overlong_label_is_refused_with_a_sentence() {
        for name in ["api", "WWW", "Localhost", "🚀", "___", "日本"] {
            let refusal = HostLabel::derive("Name", name).unwrap_err();
            assert!(refusal.0.starts_with("Name "), "{name}: {refusal}");
        }
        assert!(ProjectName::parse(&"x".repeat(63)).is_ok());
        assert_eq!(ProjectName::parse(&"x".repeat(64)).unwrap_err().0, "Name is longer than 63 characters");
        let longest = HostLabel::derive("Name", &"x".repeat(63)).unwrap();
        assert_eq!(longest.numbered(2).as_str().len(), 63);
        assert!(longest.numbered(2).as_str().ends_with("x-2"));
    }

    #[test]
    fn case_36_a_name_keeps_free_text_and_refuses_control_characters() {
        for good in ["<script>", "$(id)", "a'; DROP TABLE users;--", "App 🚀", "  Mi App  "] {
            assert_eq!(ProjectName::parse(good).unwrap().as_str(), good.trim());
        }
        for bad in ["", "  ", "a\nb", "a\u{0}b", "a\u{7f}b", "a\u{85}b"] {
            assert!(ProjectName::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(ProjectName::parse(" ").unwrap_err().0, "Name is required");
    }

    #[test]
    fn an_image_reference_cannot_leave_its_place_in_a_path() {
        for good in ["web:1", "nginx", "registry:5000/team/web:1.2-x", "web@sha256:abcdef0123"] {
            assert!(ImageRef::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-web",
            "web?x=1",
            "web#x",
            "a/../b",
            "a//b",
            "we b",
            "web%2f",
            "web\n",
            "/web",
            "web:",
            &"a".repeat(401),
        ] {
            assert!(ImageRef::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_container_name_is_the_engines_grammar() {
        assert_eq!(ContainerName::parse("/web_1.x-y").unwrap().as_str(), "web_1.x-y");
        for bad in ["", "/", "a", "-ab", ".ab", "a/b", "a b", "a?b", "ab\n"] {
            assert!(ContainerName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_environment_stays_within_its_bounds() {
        let env = |n: usize, len: usize| {
            (0..n)
                .map(|i| (EnvName::parse(&format!("V{i}")).unwrap(), "x".repeat(len)))
                .collect::<BTreeMap<_, _>>()
        };
        assert!(Settings::check_env(&env(100, 10)).is_ok());
        assert!(Settings::check_env(&env(101, 1)).is_err());
        assert!(Settings::check_env(&env(1, 33 * 1024)).is_err());
        for bad in ["", "1A", "A-B", "A=B", "A B", "É"] {
            assert!(EnvName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
