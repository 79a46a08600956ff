//! Whose requests count as use of an app: those of people and their programs, not those of robots and monitors.
//!
//! Pure.

use crate::http::Head;

/// The rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Parts of the names of programs that do not count, in lower case.
    pub ignored_agents: Vec<String>,
    /// Paths that do not count.
    pub ignored_paths: Vec<String>,
}

impl Activity {
    /// Whether a request counts.
    #[must_use]
    pub fn is_person(&self, head: &Head) -> bool {
        let agent = head.get("user-agent").unwrap_or_default().to_ascii_lowercase();
        let is_robot = self.ignored_agents.iter().any(|part| agent.contains(part.as_str()));
        !is_robot && !self.ignored_paths.iter().any(|path| path == head.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Parsed, parse};

    #[test]
    fn case_135_robots_monitors_and_what_browsers_ask_by_themselves_do_not_count() {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let activity = Activity {
            ignored_agents: own(&["bot", "crawl", "uptime"]),
            ignored_paths: own(&["/favicon.ico", "/robots.txt"]),
        };
        for (path, agent, counts) in [
            ("/", "Mozilla/5.0 (X11; Linux x86_64) Chrome/120", true),
            ("/", "curl/8.5", true),
            ("/", "", true),
            ("/", "Mozilla/5.0 (compatible; Googlebot/2.1)", false),
            ("/", "UptimeRobot/2.0", false),
            ("/", "Better Uptime Bot", false),
            ("/favicon.ico", "Mozilla/5.0", false),
            ("/robots.txt", "Mozilla/5.0", false),
            ("/robots.txt.html", "Mozilla/5.0", true),
        ] {
            let text = format!("GET {path} HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\n\r\n");
            let Parsed::Complete(head, _) = parse(text.as_bytes()) else { panic!("{text}") };
            assert_eq!(activity.is_person(&head), counts, "{path} {agent}");
        }
    }
}
