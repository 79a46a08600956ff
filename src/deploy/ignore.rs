//! `.dockerignore`: what of a repository is left out of a build, by Docker's rules.
//!
//! The classic builder does not apply the file to a context that is uploaded as an archive, so it is ours to do. Patterns are those of
//! Go's `filepath.Match` and `**` (<https://docs.docker.com/build/concepts/context/#dockerignore-files>, and the `patternmatcher` of
//! moby where the text leaves it open); they are not git's: one without a slash means the top folder only. Pure.

use super::tree::Refusal;
use crate::limits::{IGNORE_BYTES_MAX, IGNORE_PATTERNS_MAX, IGNORE_STEPS_MAX};

/// The rules of one `.dockerignore`; the default has none.
#[derive(Debug, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    /// It brings back what earlier ones left out.
    exception: bool,
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq)]
enum Part {
    Char(char),
    /// `?`
    One,
    /// `[a-z]`, `[^a-z]`
    Class {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
    /// `*`: anything but a slash.
    Star,
    /// `**` at an end: anything.
    Deep,
    /// In front of `Deep` and a slash, for `**/`: these three may be left out together.
    Fork,
}

/// Which patterns fit a path or one of its folders. The default is that of the top folder.
#[derive(Clone, Debug, Default)]
pub struct Fits(Vec<bool>);

/// Steps of comparing that are left: patterns of strangers meet names of strangers.
#[derive(Debug)]
pub struct Steps {
    left: u64,
    /// Room that each comparison uses again.
    now: Vec<bool>,
}

impl Default for Steps {
    fn default() -> Steps {
        Steps { left: IGNORE_STEPS_MAX, now: Vec::new() }
    }
}

impl Ignore {
    /// Reads the file's text.
    ///
    /// # Errors
    /// For a pattern that Docker refuses as well, and for too many.
    pub fn parse(text: &[u8]) -> Result<Ignore, Refusal> {
        debug_assert!(text.len() as u64 <= IGNORE_BYTES_MAX);
        let text = String::from_utf8_lossy(text);
        let mut patterns = Vec::new();
        for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            if patterns.len() == IGNORE_PATTERNS_MAX {
                return Refusal::new(format!(".dockerignore has more than {IGNORE_PATTERNS_MAX} patterns"));
            }
            let wrong = |why| Refusal(format!(".dockerignore, line {}: {why}", at + 1));
            let line = line.trim();
            let (exception, rest) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
            if rest.is_empty() {
                return Err(wrong("\"!\" needs a pattern behind it"));
            }
            let parts = parts(&clean(rest)).map_err(wrong)?;
            if !parts.is_empty() {
                patterns.push(Pattern { exception, parts });
            }
        }
        Ok(Ignore { patterns })
    }

    /// Whether something inside of what is left out may be brought back.
    #[must_use]
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.exception)
    }

    /// Compares a path, given the outcome for its folder: what fits a folder fits all in it.
    ///
    /// # Errors
    /// When that takes more steps than there are.
    pub fn fits(&self, path: &[char], folder: &Fits, steps: &mut Steps) -> Result<Fits, Refusal> {
        let mut fits = vec![false; self.patterns.len()];
        for (at, pattern) in self.patterns.iter().enumerate() {
            fits[at] = folder.0.get(at) == Some(&true) || matches(&pattern.parts, path, steps);
        }
        if steps.left == 0 {
            return Refusal::new("the patterns of .dockerignore take too long to compare with the files");
        }
        Ok(Fits(fits))
    }

    /// Whether that path is left out: the last pattern that fits decides.
    #[must_use]
    pub fn leaves_out(&self, fits: &Fits) -> bool {
        let last = self.patterns.iter().zip(&fits.0).rev().find(|(_, fits)| **fits);
        last.is_some_and(|(pattern, _)| !pattern.exception)
    }

    /// The same for one path that was come to from nowhere.
    ///
    /// # Errors
    /// As [`Ignore::fits`].
    pub fn leaves_out_path(&self, path: &str) -> Result<bool, Refusal> {
        let (mut fits, mut steps, chars) =
            (Fits::default(), Steps::default(), path.chars().collect::<Vec<_>>());
        let ends = (0..chars.len()).filter(|at| chars[*at] == '/').chain([chars.len()]);
        for end in ends {
            fits = self.fits(&chars[..end], &fits, &mut steps)?;
        }
        Ok(self.leaves_out(&fits))
    }
}

/// A pattern as Go's `filepath.Clean` leaves it, without the slash in front; nothing for the top folder itself, which is never left out.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if pattern.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn parts(pattern: &str) -> Result<Vec<Part>, &'static str> {
    let (mut parts, mut chars) = (Vec::new(), pattern.chars().peekable());
    while let Some(c) = chars.next() {
        let part = match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                let slash = chars.next_if_eq(&'/').is_some();
                let rest = chars.clone().collect::<String>();
                // moby takes "**x" in front for "ends with x".
                let ending = parts.is_empty() && !slash && !rest.contains(['*', '?', '[', '\\']);
                if !rest.is_empty() && !ending {
                    parts.extend([Part::Fork, Part::Deep]);
                    Part::Char('/')
                } else {
                    Part::Deep
                }
            }
            '*' => Part::Star,
            '?' => Part::One,
            '[' => class(&mut chars)?,
            '\\' => Part::Char(chars.next().ok_or("it ends with a backslash")?),
            c => Part::Char(c),
        };
        parts.push(part);
    }
    Ok(parts)
}

/// What stands behind a `[` (Go's `filepath.Match`).
fn class(chars: &mut impl Iterator<Item = char>) -> Result<Part, &'static str> {
    const OPEN: &str = "a [ has no ] that closes it, or nothing between";
    let mut next = || chars.next().ok_or(OPEN);
    let (mut ranges, mut c) = (Vec::new(), next()?);
    let negated = c == '^';
    if negated {
        c = next()?;
    }
    loop {
        if c == ']' && !ranges.is_empty() {
            return Ok(Part::Class { ranges, negated });
        }
        if c == ']' || c == '-' {
            return Err(OPEN);
        }
        let low = if c == '\\' { next()? } else { c };
        let mut high = low;
        c = next()?;
        if c == '-' {
            high = match next()? {
                '\\' => next()?,
                ']' => return Err("a range in [ ] has no end"),
                other => other,
            };
            c = next()?;
        }
        ranges.push((low, high));
    }
}

/// Whether the whole of `path` fits the parts, of which there is one at least. All ways are followed at once, one character after the
/// other: the time is at most the product of the two lengths, and is taken off `steps`. Says no when there are none left.
fn matches(parts: &[Part], path: &[char], steps: &mut Steps) -> bool {
    // Which parts may come next, and between which two all of them are.
    let now = &mut steps.now;
    now.clear();
    now.resize(parts.len() + 1, false);
    now[0] = true;
    let (mut low, mut high) = (0, skip(parts, now, 0, 0));
    for c in path {
        steps.left = steps.left.saturating_sub((high - low + 1) as u64);
        if steps.left == 0 {
            return false;
        }
        let (mut first, mut last) = (usize::MAX, 0);
        // From the end, so that what is marked for the next character is not looked at for this one.
        for at in (low..=high).rev() {
            if std::mem::take(&mut now[at]) && parts.get(at).is_some_and(|part| part.takes(*c)) {
                let to = if parts[at].repeats() { at } else { at + 1 };
                now[to] = true;
                (first, last) = (to, last.max(to));
            }
        }
        if first == usize::MAX {
            return false;
        }
        (low, high) = (first, skip(parts, now, first, last));
    }
    now[parts.len()]
}

/// Marks what follows on parts that may stand for nothing; gives the new end of the range.
fn skip(parts: &[Part], now: &mut [bool], low: usize, mut high: usize) -> usize {
    let mut at = low;
    while at <= high.min(parts.len() - 1) {
        if now[at] {
            let further = match parts[at] {
                Part::Fork => 3,
                Part::Star | Part::Deep => 1,
                _ => 0,
            };
            now[at + usize::from(further > 0)] = true;
            now[at + further] = true;
            high = high.max(at + further);
        }
        at += 1;
    }
    high
}

impl Part {
    fn repeats(&self) -> bool {
        matches!(self, Part::Star | Part::Deep)
    }

    fn takes(&self, c: char) -> bool {
        match self {
            Part::Char(own) => *own == c,
            Part::One | Part::Star => c != '/',
            Part::Class { ranges, negated } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
            Part::Deep => true,
            Part::Fork => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(file: &str, left_out: &[&str], carried: &[&str]) {
        let ignore = Ignore::parse(file.as_bytes()).unwrap();
        for (paths, expected) in [(left_out, true), (carried, false)] {
            for path in paths {
                assert_eq!(ignore.leaves_out_path(path).unwrap(), expected, "{file:?} {path:?}");
            }
        }
    }

    /// <https://docs.docker.com/build/concepts/context/#dockerignore-files>
    #[test]
    fn the_examples_of_dockers_documentation_hold() {
        let file = "# comment\n*/temp*\n*/*/temp*\ntemp?\n";
        check(
            file,
            &[
                "somedir/temporary.txt",
                "somedir/temp",
                "somedir/subdir/temporary.txt",
                "tempa",
                "tempb",
                "a/temp/b",
            ],
            &["comment", "# comment", "temp", "tempab", "a/b/c/temp", "temporary.txt"],
        );
        check("**/*.go", &["a.go", "a/b.go", "a/b/c.go", ".go"], &["a.gox", "go", "a/go"]);
        check("*.md\n!README.md", &["a.md"], &["README.md", "a/b.md"]);
        let tricky = "*.md\n!README*.md\nREADME-secret.md";
        check(tricky, &["a.md", "README-secret.md"], &["README.md", "README-x.md"]);
        // The middle line has no effect because the last one matches README-secret.md and comes last.
        check("*.md\nREADME-secret.md\n!README*.md", &["a.md"], &["README.md", "README-secret.md"]);
        for file in
            ["/foo/bar", "foo/bar", "foo/bar/", "./foo//bar", "foo/x/../bar", "/../foo/bar", "  foo/bar\t"]
        {
            check(file, &["foo/bar", "foo/bar/in/it"], &["foo", "x/foo/bar", "foo/barx"]);
        }
        check(".\n/\n", &[], &["a", "a/b"]);
    }

    #[test]
    fn a_folder_that_is_left_out_takes_its_content_and_exceptions_bring_it_back() {
        check("node_modules", &["node_modules", "node_modules/a/b"], &["a/node_modules", "node_modules2"]);
        check(
            "**/node_modules",
            &["node_modules/a", "a/node_modules/b/c", "a/b/node_modules"],
            &["anode_modules"],
        );
        check("*\n!src\n!package.json", &["a", "a/b", ".git"], &["src", "src/a/b", "package.json"]);
        check("dir\n!dir/keep", &["dir", "dir/a", "dir/keeper"], &["dir/keep", "dir/keep/a"]);
        check("dir\n!dir/keep\ndir/keep/not", &["dir/keep/not/a"], &["dir/keep/a"]);
        check("a\n!a\na", &["a", "a/b"], &[]);
        check("!a\n", &[], &["a", "b"]);
        assert!(Ignore::parse(b"a\n! b").unwrap().has_exceptions());
        assert!(!Ignore::parse(b"a\n#!b").unwrap().has_exceptions());
    }

    /// The table of moby's `patternmatcher` (`TestMatches`), as far as it says something else.
    #[test]
    fn wildcards_mean_what_they_mean_to_the_engine() {
        check("**", &["a", "a/b", "a/b/"], &[]);
        check("**/", &["file", "dir/file"], &[]);
        check("**/**", &["dir/file", "dir/dir"], &[]);
        check("dir/**", &["dir/file", "dir/file/", "dir/dir2/file"], &["dir", "dirx/file"]);
        check("**/dir", &["dir/file", "dir/dir2", "a/dir"], &["adir"]);
        check("**/dir2/*", &["dir/dir2/file", "dir2/file", "dir/dir2/dir2/file"], &["dir2", "x2/file"]);
        check("**file", &["file", "dir/file", "afile"], &["filex"]);
        check("**/file", &["file", "dir/file", "dir/dir/file"], &["dir/afile"]);
        check("**/file*", &["dir/file", "dir/file.txt", "fileb"], &["dir/afile"]);
        check("**/file*txt", &["dir/file.txt"], &["dir/file.md"]);
        check("**/**/*.txt", &["dir/dir/file.txt", "a.txt"], &[]);
        check("a**/*.txt", &["a/dir/file.txt", "a/x/y.txt", "afile.txt"], &["b/file.txt"]);
        check("a/*.txt", &["a/file.txt"], &["a/dir/file.txt", "a/file.txt.bak"]);
        check("a[b-d]e", &["abe", "ade"], &["aae", "abbe"]);
        check("a[^b-d]e", &["aze"], &["abe", "ace"]);
        check("[a\\]]x", &["ax", "]x"], &["\\x"]);
        check("a\\*", &["a*"], &["ab", "a"]);
        check("abc.def", &["abc.def"], &["abcdef", "abcXdef"]);
        check("a?c", &["abc", "añc"], &["a/c", "ac"]);
        check("*", &["a", "a/b", "ñ"], &[]);
        check("a.|)$(}+{bc", &["a.|)$(}+{bc"], &["a"]);
        check("foo/**/bar", &["foo/bar", "foo/x/y/bar"], &["foobar", "foo/xbar"]);
        check("\u{feff}a\r\nb", &["a", "b"], &[]);
    }

    #[test]
    fn a_pattern_that_docker_refuses_is_refused_with_its_line() {
        for (bad, line) in [
            ("a\n!", 2),
            ("!  \n", 1),
            ("[", 1),
            ("[]", 1),
            ("[a", 1),
            ("[a-", 1),
            ("[a-]", 1),
            ("[-x]", 1),
            ("x\n\na\\", 3),
        ] {
            let said = Ignore::parse(bad.as_bytes()).unwrap_err().0;
            assert!(said.starts_with(&format!(".dockerignore, line {line}: ")), "{bad:?}: {said}");
        }
        assert!(Ignore::parse("a\n".repeat(IGNORE_PATTERNS_MAX).as_bytes()).is_ok());
        assert!(Ignore::parse("a\n".repeat(IGNORE_PATTERNS_MAX + 1).as_bytes()).is_err());
    }

    #[test]
    fn a_hostile_pattern_takes_time_in_proportion_and_too_many_are_refused() {
        let evil = "*a".repeat(500) + "b\n" + &"**/a".repeat(500);
        let path = "a".repeat(2000);
        check(&evil, &[], &[&path]);
        let ignore = Ignore::parse(evil.as_bytes()).unwrap();
        let path: Vec<char> = path.chars().collect();
        let mut steps = Steps { left: 1_000_000, now: Vec::new() };
        let refused = ignore.fits(&path, &Fits::default(), &mut steps).unwrap_err();
        assert_eq!(refused.0, "the patterns of .dockerignore take too long to compare with the files");
    }

    /// All texts of at most `most` of these parts.
    fn words(alphabet: &[&str], most: usize) -> Vec<String> {
        let (mut words, mut done) = (vec![String::new()], 0);
        for _ in 0..most {
            let end = words.len();
            for at in done..end {
                words.extend(alphabet.iter().map(|part| words[at].clone() + part).collect::<Vec<_>>());
            }
            done = end;
        }
        words
    }

    #[test]
    fn every_short_class_is_read_or_refused() {
        let (mut read, mut refused) = (0, 0);
        for pattern in words(&["[", "]", "^", "-", "\\", "a"], 6) {
            match Ignore::parse(pattern.as_bytes()) {
                Ok(ignore) => {
                    read += 1;
                    assert!(!ignore.leaves_out_path("b/c").unwrap() || pattern.contains("[^"), "{pattern}");
                }
                Err(_) => refused += 1,
            }
        }
        assert!(read > 1000 && refused > 1000, "{read} {refused}");
    }

    /// Against the plainest possible reading: every way is tried.
    #[test]
    fn every_short_pattern_means_what_trying_every_way_finds() {
        fn plain(parts: &[Part], path: &[char]) -> bool {
            match parts.first() {
                None => path.is_empty(),
                Some(Part::Fork) => plain(&parts[1..], path) || plain(&parts[3..], path),
                Some(part) if part.repeats() => {
                    plain(&parts[1..], path)
                        || path.first().is_some_and(|c| part.takes(*c)) && plain(parts, &path[1..])
                }
                Some(part) => path.first().is_some_and(|c| part.takes(*c)) && plain(&parts[1..], &path[1..]),
            }
        }
        let paths = words(&["a", "b", "/"], 5);
        for pattern in words(&["a", "*", "**", "/", "?"], 5).split_off(1) {
            let parts = parts(&pattern).unwrap();
            for path in &paths {
                let path: Vec<char> = path.chars().collect();
                assert_eq!(
                    matches(&parts, &path, &mut Steps::default()),
                    plain(&parts, &path),
                    "{pattern} {path:?}"
                );
            }
        }
    }
}
