//! Where an app is found: the host that is made of the labels of its project and its owner, and the address for a browser.

use super::{HostLabel, Invalid};

/// How hosts and addresses are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// With `{project}`, `{user}` and `{domain}`.
    pub pattern: String,
    /// What stands for `{domain}`.
    pub domain: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The port that a browser is to use.
    pub port: u16,
}

impl Addresses {
    /// A project's host.
    #[must_use]
    pub fn host(&self, project: &HostLabel, user: &HostLabel) -> String {
        let labels = [("{project}", project.as_str()), ("{user}", user.as_str()), ("{domain}", &self.domain)];
        labels.iter().fold(self.pattern.clone(), |host, (name, label)| host.replace(name, label))
    }

    /// Whether a host is the domain of the generated ones, or below it.
    #[must_use]
    pub fn owns(&self, host: &Domain) -> bool {
        host.is_at_or_below(&self.domain)
    }

    /// The address of a host, with its port if that is not the scheme's own.
    #[must_use]
    pub fn url(&self, host: &str) -> String {
        match (self.scheme, self.port) {
            ("http", 80) | ("https", 443) => format!("{}://{host}", self.scheme),
            (scheme, port) => format!("{scheme}://{host}:{port}"),
        }
    }
}

/// A host name of somebody's own, such as `blog.example.com`: in lower case, without a last dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Domain(String);

impl Domain {
    /// Longest name (RFC 1035 §2.3.4), without its last dot.
    pub const MAX_BYTES: usize = 253;

    /// Accepts a name of two labels or more (RFC 1123 §2.1). The last one begins with a letter: what does not is read as an IP address by
    /// some (`127.1`, `1.2.3.0x4`), and names no domain.
    ///
    /// # Errors
    /// When it is something else, or a name that always means this machine.
    pub fn parse(raw: &str) -> Result<Domain, Invalid> {
        let name = raw.strip_suffix('.').unwrap_or(raw).to_ascii_lowercase();
        let is_label = |label: &str| {
            let chars = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            let length = (1..=HostLabel::MAX_BYTES).contains(&label.len());
            length && chars && !label.starts_with('-') && !label.ends_with('-')
        };
        let last = name.rsplit_once('.').map(|(_, last)| last);
        let is_named = last.is_some_and(|last| last.starts_with(|c: char| c.is_ascii_alphabetic()));
        if !is_named || name.len() > Self::MAX_BYTES || !name.split('.').all(is_label) {
            let shown: String = raw.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect();
            return Err(Invalid(format!(
                "domains: \"{shown}\" is not a host name such as \"blog.example.com\" (no port and no *; other letters than a to z as xn--…)"
            )));
        }
        let domain = Domain(name);
        if domain.is_at_or_below("localhost") {
            return Err(Invalid(format!("domains: {} always means this machine", domain.0)));
        }
        Ok(domain)
    }

    /// Whether it is this host, or one below it.
    #[must_use]
    pub fn is_at_or_below(&self, host: &str) -> bool {
        self.0.strip_suffix(host).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_a_plain_host_name_in_lower_case() {
        let longest = format!("{}example.com", "abcdefgh.".repeat(27).split_at(242).0);
        assert_eq!(longest.len(), Domain::MAX_BYTES);
        for (raw, name) in [
            ("blog.example.com", "blog.example.com"),
            ("Blog.Example.COM.", "blog.example.com"),
            ("example.com", "example.com"),
            ("xn--caf-dma.example.com", "xn--caf-dma.example.com"),
            ("1.2.3.example.com", "1.2.3.example.com"),
            ("a--b.co", "a--b.co"),
            (&longest, &longest),
        ] {
            assert_eq!(Domain::parse(raw).unwrap().as_str(), name, "{raw}");
        }
        for raw in [
            "",
            ".",
            "example",
            "com.",
            "blog..example.com",
            ".example.com",
            "example.com..",
            "*.example.com",
            "blog.example.com:80",
            "http://blog.example.com",
            "blog.example.com/",
            "user@example.com",
            "blog_1.example.com",
            "-a.example.com",
            "a-.example.com",
            "café.example.com",
            " example.com",
            "exam ple.com",
            "example.com\n",
            "example.com\0",
            "127.0.0.1",
            "127.1",
            "1.2.3.0x4",
            "[::1]",
            "::1",
            "localhost",
            "app.localhost",
            "a.b.LOCALHOST.",
            &format!("{}.com", "a".repeat(64)),
            &format!("a{longest}"),
        ] {
            let refusal = Domain::parse(raw).unwrap_err();
            assert!(refusal.0.starts_with("domains: "), "{raw:?}: {refusal}");
        }
    }

    #[test]
    fn a_domain_is_below_a_host_at_a_dot_only() {
        let domain = Domain::parse("blog.example.com").unwrap();
        for (host, is_below) in [
            ("example.com", true),
            ("blog.example.com", true),
            ("com", true),
            ("log.example.com", false),
            ("ample.com", false),
            ("a.blog.example.com", false),
            ("example.org", false),
        ] {
            assert_eq!(domain.is_at_or_below(host), is_below, "{host}");
        }
    }

    #[test]
    fn an_address_is_made_of_labels_with_the_port_that_a_browser_needs() {
        let (project, user) = (HostLabel::stored("shop".into()), HostLabel::stored("ana".into()));
        for (pattern, scheme, port, url) in [
            ("{project}.{user}.{domain}", "http", 8080, "http://shop.ana.example.com:8080"),
            ("{project}-{user}.{domain}", "http", 80, "http://shop-ana.example.com"),
            ("{project}.{user}.{domain}", "https", 443, "https://shop.ana.example.com"),
            ("{project}.{user}.{domain}", "https", 80, "https://shop.ana.example.com:80"),
        ] {
            let addresses =
                Addresses { pattern: pattern.to_owned(), domain: "example.com".to_owned(), scheme, port };
            assert_eq!(addresses.url(&addresses.host(&project, &user)), url);
        }
    }
}
