//! Where an app is found: the host that is made of the labels of its project and its owner, and the address for a browser.

use super::HostLabel;

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

    /// The address of a host, with its port if that is not the scheme's own.
    #[must_use]
    pub fn url(&self, host: &str) -> String {
        match (self.scheme, self.port) {
            ("http", 80) | ("https", 443) => format!("{}://{host}", self.scheme),
            (scheme, port) => format!("{scheme}://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
