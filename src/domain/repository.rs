//! Where a project's files come from: a repository's address and branch, in the one grammar that `git` is ever given.

use std::fmt;
use std::net::IpAddr;

use super::{Invalid, is_public};

/// The address of a repository: `https://host[:port]/path`, or `http` where that is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoUrl(String);

impl RepoUrl {
    /// Longest address, in bytes.
    pub const MAX_BYTES: usize = 512;

    /// Accepts an address; the scheme and the host become lower case (RFC 3986 §6.2.2.1).
    ///
    /// # Errors
    /// For every other scheme, an address with a user, a password, a query or a fragment, and one that is too long.
    pub fn parse(raw: &str, allow_http: bool) -> Result<RepoUrl, Invalid> {
        let wrong = |sentence: &str| Err(Invalid::new(format!("github_url {sentence}")));
        if raw.len() > Self::MAX_BYTES {
            return wrong(&format!("is longer than {} bytes", Self::MAX_BYTES));
        }
        let Some((scheme, rest)) = raw.split_once("://") else {
            return wrong("must be an address such as https://github.com/user/repository");
        };
        let scheme = scheme.to_ascii_lowercase();
        match (scheme.as_str(), allow_http) {
            ("https", _) | ("http", true) => {}
            ("http", false) => return wrong("must begin with https:// (deploy.allow_http allows http)"),
            _ => return wrong("must begin with https://"),
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return wrong("must not contain a user or a password; a private repository has a git_token");
        }
        if !is_authority(authority) {
            return wrong("has no valid host");
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/+%@:,=()!".contains(&b);
        if path.is_empty() || !path.bytes().all(plain) || path.starts_with('-') {
            return wrong("has no valid path of a repository");
        }
        let dots =
            |part: &str| part.is_empty() || part.starts_with('-') || part.contains("..") || part == ".";
        let decoded = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/");
        if decoded.trim_end_matches('/').split('/').any(dots)
            || ["%00", "%0a", "%0d", "%5c"].iter().any(|bad| decoded.contains(bad))
        {
            return wrong("has no valid path of a repository");
        }
        Ok(RepoUrl(format!("{scheme}://{}/{path}", authority.to_ascii_lowercase())))
    }

    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        let (host, _) = split_authority(self.authority());
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port, the scheme's own where none is named.
    #[must_use]
    pub fn port(&self) -> u16 {
        let default = if self.is_https() { 443 } else { 80 };
        split_authority(self.authority()).1.and_then(|port| port.parse().ok()).unwrap_or(default)
    }

    /// Whether it says `https`.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }

    /// Scheme, host and port as they stand there: `https://host[:port]`.
    #[must_use]
    pub fn origin(&self) -> &str {
        let end = self.0.len() - self.0.split_once("://").map_or("", |(_, rest)| rest).len();
        &self.0[..end + self.authority().len()]
    }

    /// The host where it is an address and not a name.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.host().parse().ok()
    }

    /// Whether the host already says, before anybody is asked for its address, that it is this machine or a private network: such an
    /// address, a name of this machine, or a number in an unusual spelling (`127.1`, `0x7f000001`), which each program reads in its own way.
    #[must_use]
    pub fn is_private_literal(&self) -> bool {
        if let Some(address) = self.address() {
            return !is_public(address);
        }
        let name = self.host().strip_suffix('.').unwrap_or(self.host());
        let last = name.rsplit('.').next().unwrap_or_default();
        let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
        let is_number = last.bytes().all(|b| b.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(hex);
        // Those of RFC 6761 §6.3 and of the hosts files of common systems.
        let is_local = last == "localhost"
            || name.ends_with(".localdomain")
            || ["localhost4", "localhost6", "ip6-localhost", "ip6-loopback"].contains(&name);
        is_number || is_local
    }

    fn authority(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }
}

/// The host, in brackets if it is an IPv6 address, and what stands behind a colon.
fn split_authority(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn is_authority(authority: &str) -> bool {
    let (host, port) = split_authority(authority);
    let port_fits =
        port.is_none_or(|port| port.parse::<u16>().is_ok_and(|n| n != 0) && !port.starts_with('+'));
    let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_fits = if let Some(v6) = v6 {
        v6.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        let label = |l: &str| {
            !l.starts_with('-') && l.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        let name = host.strip_suffix('.').unwrap_or(host);
        name.len() <= 253 && name.split('.').all(|l| (1..=63).contains(&l.len()) && label(l))
    };
    port_fits && host_fits
}

/// A branch: `[A-Za-z0-9][A-Za-z0-9._/-]{0,99}` without `..` and without what git refuses itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch(String);

impl Branch {
    /// Longest name, in bytes.
    pub const MAX_BYTES: usize = 100;

    /// Accepts a name.
    ///
    /// # Errors
    /// When it has another shape.
    pub fn parse(raw: &str) -> Result<Branch, Invalid> {
        let starts = raw.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let chars = raw.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b));
        let whole = raw.len() <= Self::MAX_BYTES && !raw.contains("..") && !raw.ends_with(['/', '.']);
        // git-check-ref-format(1)
        let parts = raw.split('/').all(|part| {
            let file = std::path::Path::new(part);
            !part.is_empty() && !part.starts_with('.') && file.extension().is_none_or(|end| end != "lock")
        });
        if starts && chars && whole && parts {
            Ok(Branch(raw.to_owned()))
        } else {
            Err(Invalid::new("branch is not a valid name of a branch (for example \"main\")"))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is never shown: a token for a repository, the secret of a webhook.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Longest secret, in bytes: GitHub's fine-grained tokens have 93.
    pub const MAX_BYTES: usize = 1024;

    /// Accepts printable ASCII without spaces.
    ///
    /// # Errors
    /// When it is empty, too long or something else; the sentence begins with `what`.
    pub fn parse(what: &str, raw: &str) -> Result<Secret, Invalid> {
        if raw.is_empty() || raw.len() > Self::MAX_BYTES || !raw.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Invalid(format!("{what} must be 1 to {} visible ASCII characters", Self::MAX_BYTES)));
        }
        Ok(Secret(raw.to_owned()))
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_94_only_the_grammar_of_an_address_is_accepted() {
        for good in [
            "https://github.com/user/repo",
            "https://github.com/user/repo.git",
            "HTTPS://GitHub.com/User/Repo",
            "https://git.example.com:8443/~ana/a_b.c/",
            "https://[2001:db8::1]:8443/r",
            "http://10.0.0.5:3000/ana/app",
            "https://codeberg.org/u/c++",
        ] {
            assert!(RepoUrl::parse(good, true).is_ok(), "{good}");
        }
        let long = format!("https://h/{}", "x".repeat(10_240));
        for bad in [
            "",
            "--upload-pack=touch /x",
            "ext::sh -c touch% /x",
            "file:///etc",
            "/var/lib/muelle",
            "../x",
            "-oProxyCommand=x",
            "ssh://-oProxyCommand=x/y",
            "ssh://git@github.com/u/r",
            "git@github.com:u/r.git",
            "git://h/r",
            "https://user:tok@h/x",
            "https://user@h/x",
            "https://h/x\n",
            "https://h/x\ny",
            "https://h/x y",
            "https://h/x#main",
            "https://h/x?y=1",
            "https://h/a\\b",
            "https://h/../x",
            "https://h/a/%2e%2e/x",
            "https://h/a%2f..%2fx",
            "https://h/%0d%0aX: y",
            "https://h/-x",
            "https://h/a/--x",
            "https://h//x",
            "https://h",
            "https://h/",
            "https:///x",
            "https://-h/x",
            "https://h:0/x",
            "https://h:99999/x",
            "https://h:+80/x",
            "https://h:/x",
            "https://[::1/x",
            "https://[::g]/x",
            "https://h_é/x",
            &long,
        ] {
            assert!(RepoUrl::parse(bad, true).is_err(), "{bad:?}");
        }
        assert!(RepoUrl::parse("http://h/x", false).unwrap_err().0.contains("allow_http"));
    }

    #[test]
    fn an_address_tells_its_host_and_port() {
        for (url, host, port) in [
            ("https://GitHub.com/u/r", "github.com", 443),
            ("http://h:8080/u/r", "h", 8080),
            ("http://h/u/r", "h", 80),
            ("https://[2001:DB8::1]/r", "2001:db8::1", 443),
            ("https://[2001:db8::1]:99/r", "2001:db8::1", 99),
        ] {
            let parsed = RepoUrl::parse(url, true).unwrap();
            assert_eq!((parsed.host(), parsed.port()), (host, port), "{url}");
        }
    }

    #[test]
    fn an_origin_is_the_address_without_its_path() {
        for (url, origin) in [
            ("https://GitHub.com/u/r", "https://github.com"),
            ("http://h:8080/u/r", "http://h:8080"),
            ("https://[2001:db8::1]:99/r", "https://[2001:db8::1]:99"),
        ] {
            assert_eq!(RepoUrl::parse(url, true).unwrap().origin(), origin);
        }
    }

    #[test]
    fn case_94_every_spelling_of_a_private_host_is_recognised_before_anybody_is_asked() {
        let judge = |host: &str| {
            let url = RepoUrl::parse(&format!("https://{host}/u/r"), true);
            url.unwrap_or_else(|refused| panic!("{host}: {refused}")).is_private_literal()
        };
        for private in [
            "localhost",
            "LOCALHOST",
            "localhost.",
            "a.localhost",
            "localhost:8080",
            "localhost.localdomain",
            "ip6-localhost",
            "127.0.0.1",
            "127.0.0.1:443",
            "127.0.0.1.",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7F.1",
            "0x7f.0x0.0x0.0x1",
            "127.0.0.0x1",
            "0177.0.0.1",
            "017700000001",
            "00000177.1",
            "127.0.0.01",
            "0",
            "0.0.0.0",
            "0x",
            "10.0.0.1",
            "10.1",
            "172.16.1.1",
            "192.168.1.1",
            "192.168.257",
            "169.254.169.254",
            "[::1]",
            "[::]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[fe80::1]",
            "[fd00::1]:3000",
            "99999999999999999999",
            "1.2.3.4.5",
        ] {
            assert!(judge(private), "{private}");
        }
        for other in [
            "github.com",
            "git.example.com.",
            "1.1.1.1",
            "[2606:4700:4700::1111]",
            "127.0.0.1.nip.io",
            "10.example.com",
            "localhost.example.com",
            "0xfe.example",
            "dead.beef",
        ] {
            assert!(!judge(other), "{other}");
        }
    }

    #[test]
    fn case_94_only_the_grammar_of_a_branch_is_accepted() {
        for good in ["main", "feature/a-b_c.d", "1.0", "release-2"] {
            assert!(Branch::parse(good).is_ok(), "{good}");
        }
        let long = "x".repeat(101);
        for bad in [
            "",
            "-x",
            "--upload-pack=x",
            "a..b",
            "a@{1}",
            "a b",
            "a\n",
            "/a",
            "a/",
            "a//b",
            "a/.b",
            ".a",
            "a.",
            "a.lock",
            "a.lock/b",
            "a~1",
            "a^",
            "a:b",
            &long,
        ] {
            assert!(Branch::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn case_53_a_secret_is_never_shown() {
        assert_eq!(format!("{:?}", Secret::parse("git_token", "ghp_canary").unwrap()), "Secret");
        for bad in ["", "a b", "a\nb", "é", &"x".repeat(1025)] {
            assert!(Secret::parse("git_token", bad).unwrap_err().0.starts_with("git_token must"));
        }
    }
}
