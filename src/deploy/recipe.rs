//! What kind of app a repository holds, and how it becomes an image: from the files' names to a Dockerfile.
//!
//! The Dockerfiles are fixed texts in `recipes/`; what is put into them are image names and variable names of our own types, and words from
//! here. Nothing that a repository says gets there. The repository is below `app/` in the build's context, so that its names and ours
//! cannot meet. Reads a bounded amount of a few files; knows nothing of the engine.

use std::path::Path;

use serde_json::Value;

use super::ignore::Ignore;
use super::tree::{Kind, Refusal, Tree};
use crate::domain::{EnvName, ImageRef, Template};
use crate::limits::{DETECT_BYTES_MAX, DOCKERFILE_BYTES_MAX, IGNORE_BYTES_MAX};

/// What the recipes build on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Serves files: has `/bin/busybox` with `httpd` and `sh`.
    pub files: ImageRef,
    /// Has Node 18 or newer and npm, and a shell.
    pub node: ImageRef,
    /// Has Python 3 and a shell, and pip or all that its apps need.
    pub python: ImageRef,
}

impl Default for Images {
    fn default() -> Images {
        let image = |name| ImageRef::parse(name).expect("a valid name");
        Images {
            files: image("busybox:1.37"),
            node: image("node:22-alpine"),
            python: image("python:3.13-slim"),
        }
    }
}

/// How a repository is built.
#[derive(Debug)]
pub struct Recipe {
    /// The recipe; `None` where the repository has a Dockerfile.
    pub template: Option<Template>,
    /// What was found, for the progress.
    pub sentence: String,
    /// The Dockerfile's path inside the context.
    pub dockerfile: &'static str,
    /// Files of the context that come from here, not from the checkout.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// Where the repository is inside the context; empty for its top.
    pub folder: &'static str,
    /// The port that the app listens on unless `PORT` says another; `None` where only the image can tell.
    pub port: Option<u16>,
    /// The variables that the build is given.
    pub args: Vec<EnvName>,
    /// What of the repository is left out.
    pub ignore: Ignore,
}

/// The port of our own recipes.
pub const PORT: u16 = 8080;

/// Variables that a page's build may know, by their first letters: they end up in the page, for everybody to read.
const PUBLIC: [&str; 4] = ["VITE_", "REACT_APP_", "PUBLIC_", "NEXT_PUBLIC_"];

/// Finds the recipe for a checkout: its own Dockerfile, else the one that was `chosen`, else what its files suggest. `env` are the names
/// of the project's variables.
///
/// # Errors
/// When nothing fits, what was chosen does not fit, or a file that decides cannot be read as what it should be.
///
/// # Blocks
/// On the disk.
pub fn find(
    checkout: &Path,
    chosen: Option<Template>,
    images: &Images,
    env: &[EnvName],
) -> Result<Recipe, Refusal> {
    let tree = Tree::open(checkout)?;
    let ignored = tree.read(Path::new(".dockerignore"), IGNORE_BYTES_MAX)?;
    let ignore = Ignore::parse(ignored.as_deref().unwrap_or_default())?;
    if let Some(dockerfile) = tree.read(Path::new("Dockerfile"), DOCKERFILE_BYTES_MAX)? {
        return own(dockerfile, ignored, ignore, env);
    }
    let found = Found { tree, ignore };
    let package = found.package()?;
    let (template, why) = match chosen {
        Some(template) => (template, "No Dockerfile".to_owned()),
        None => found.template(package.as_ref())?,
    };
    let (text, mut files, how) = match template {
        Template::Static => found.files(images)?,
        Template::React => found.react(package.as_ref(), images, env)?,
        Template::Nodejs => found.nodejs(package.as_ref(), images, env)?,
        Template::Flask => found.flask(images)?,
    };
    // Where a template's line has nothing to say it is empty.
    let lines = text.lines().filter(|line| !line.is_empty());
    files.insert(0, ("Dockerfile", lines.flat_map(|line| [line, "\n"]).collect::<String>().into_bytes()));
    let args = public(env).filter(|_| matches!(template, Template::React | Template::Nodejs));
    Ok(Recipe {
        template: Some(template),
        sentence: format!("{why}: building it as {}{how}", template.word()),
        dockerfile: "Dockerfile",
        files,
        folder: "app",
        port: Some(PORT),
        args: args.cloned().collect(),
        ignore: found.ignore,
    })
}

/// The recipe that is in the repository. What was read is what is sent. It and `.dockerignore` are always sent: the engine looks into
/// them, then takes away what that file names, as Docker's own client has it do.
fn own(
    dockerfile: Vec<u8>,
    ignored: Option<Vec<u8>>,
    ignore: Ignore,
    env: &[EnvName],
) -> Result<Recipe, Refusal> {
    let text = String::from_utf8_lossy(&dockerfile);
    if text.trim().is_empty() {
        return Refusal::new("the Dockerfile is empty");
    }
    // The language of the standard frontend is what the engine's builder speaks; to load another would be to run a stranger's program.
    let comments = text.lines().map_while(|line| line.trim_start().strip_prefix('#'));
    let syntax = comments
        .map_while(|comment| comment.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("syntax"))
        .map(|(_, language)| language.trim());
    if syntax.is_some_and(|language| !language.starts_with("docker/dockerfile")) {
        return Refusal::new("the Dockerfile's \"# syntax=\" names another language than docker/dockerfile");
    }
    let declared: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_start().split_once([' ', '\t']))
        .filter(|(word, _)| word.eq_ignore_ascii_case("ARG"))
        .flat_map(|(_, names)| names.split_ascii_whitespace())
        .map(|arg| arg.split('=').next().unwrap_or_default())
        .collect();
    let args = env.iter().filter(|name| declared.contains(&name.as_str())).cloned().collect();
    let mut files = vec![("Dockerfile", dockerfile)];
    files.extend(ignored.map(|text| (".dockerignore", text)));
    Ok(Recipe {
        template: None,
        sentence: "Found a Dockerfile: building with it".to_owned(),
        dockerfile: "Dockerfile",
        files,
        folder: "",
        port: None,
        args,
        ignore,
    })
}

/// A Dockerfile, the files beside it, and the end of a sentence.
type Made = (String, Vec<(&'static str, Vec<u8>)>, String);

struct Found {
    tree: Tree,
    ignore: Ignore,
}

impl Found {
    /// Whether the build will have a file of that name.
    fn has(&self, name: &str) -> Result<bool, Refusal> {
        let file = matches!(self.tree.kind(Path::new(name))?, Some(Kind::File { .. }));
        Ok(file && !self.ignore.leaves_out_path(name)?)
    }

    /// The text of a file that the build will have.
    fn text(&self, name: &str) -> Result<Option<String>, Refusal> {
        if !self.has(name)? {
            return Ok(None);
        }
        let bytes = self.tree.read(Path::new(name), DETECT_BYTES_MAX)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim_start_matches('\u{feff}').to_owned()))
    }

    fn package(&self) -> Result<Option<Package>, Refusal> {
        let Some(text) = self.text("package.json")? else { return Ok(None) };
        match serde_json::from_str(&text) {
            Ok(value @ Value::Object(_)) => Ok(Some(Package(value))),
            Ok(_) => Refusal::new("package.json is not an object"),
            Err(error) => Refusal::new(format!(
                "package.json is not valid JSON: line {}, column {}",
                error.line(),
                error.column()
            )),
        }
    }

    fn template(&self, package: Option<&Package>) -> Result<(Template, String), Refusal> {
        if let Some(package) = package {
            let page = ["vite", "react-scripts", "react"].into_iter().find(|name| package.depends_on(name));
            if let Some(page) = page.filter(|_| package.has_script("build") && !package.depends_on("next")) {
                return Ok((Template::React, format!("Found package.json with {page}")));
            }
            if package.has_script("start") {
                return Ok((Template::Nodejs, "Found package.json with a start script".to_owned()));
            }
        }
        for name in ["requirements.txt", "pyproject.toml"] {
            if self.text(name)?.is_some_and(|text| names_flask(&text)) {
                return Ok((Template::Flask, format!("Found {name} with Flask")));
            }
        }
        if self.has("app.py")? {
            return Ok((Template::Flask, "Found app.py".to_owned()));
        }
        if self.has("index.html")? {
            return Ok((Template::Static, "Found index.html".to_owned()));
        }
        Refusal::new(
            "the repository has no Dockerfile, no package.json with react, vite or a start script, no requirements.txt or \
             pyproject.toml with Flask, no app.py and no index.html at its top: muelle cannot tell how to build it",
        )
    }

    fn files(&self, images: &Images) -> Result<Made, Refusal> {
        if !self.has("index.html")? {
            return Refusal::new("static needs an index.html at the top of the repository");
        }
        let text = include_str!("recipes/static.Dockerfile").replace("{image}", images.files.as_str());
        let types = include_bytes!("recipes/httpd.conf").to_vec();
        Ok((text, vec![("httpd.conf", types)], String::new()))
    }

    fn react(&self, package: Option<&Package>, images: &Images, env: &[EnvName]) -> Result<Made, Refusal> {
        let Some(package) = package.filter(|package| package.has_script("build")) else {
            return Refusal::new(
                "react needs a package.json with a build script at the top of the repository",
            );
        };
        let text = include_str!("recipes/react.Dockerfile")
            .replace("{image}", images.node.as_str())
            .replace("{install}", &self.npm_install(package, "", "")?)
            .replace("{args}", &arg_lines(env));
        Ok((text, vec![("spa.mjs", include_bytes!("recipes/spa.mjs").to_vec())], String::new()))
    }

    fn nodejs(&self, package: Option<&Package>, images: &Images, env: &[EnvName]) -> Result<Made, Refusal> {
        // What npm start does without a script of that name.
        let starts =
            |package: &&Package| package.has_script("start") || self.has("server.js").unwrap_or(false);
        let Some(package) = package.filter(starts) else {
            return Refusal::new(
                "nodejs needs a package.json with a start script at the top of the repository",
            );
        };
        let builds = package.has_script("build");
        let (omit, args, build) = match (builds, package.has_dependencies()) {
            (true, true) => ("", arg_lines(env), "RUN npm run build && npm prune --omit=dev"),
            (true, false) => ("", arg_lines(env), "RUN npm run build"),
            (false, _) => (" --omit=dev", String::new(), ""),
        };
        let text = include_str!("recipes/nodejs.Dockerfile")
            .replace("{image}", images.node.as_str())
            .replace("{install}", &self.npm_install(package, omit, " --chown=65534:65534")?)
            .replace("{args}", &args)
            .replace("{build}", build);
        Ok((text, Vec::new(), String::new()))
    }

    /// The lines that bring the files and install what they depend on: that first, since it changes less often, if it can be done
    /// without the other files.
    fn npm_install(&self, package: &Package, omit: &str, chown: &str) -> Result<String, Refusal> {
        let all = format!("COPY{chown} app/ ./");
        if !package.has_dependencies() {
            return Ok(all);
        }
        let locked = self.has("package-lock.json")? || self.has("npm-shrinkwrap.json")?;
        let how = if locked { "ci" } else { "install" };
        let install = format!("RUN npm {how}{omit} --no-audit --no-fund && npm cache clean --force");
        if package.needs_all_files() {
            return Ok(format!("{all}\n{install}"));
        }
        let mut first = String::from("COPY app/package.json");
        for name in ["package-lock.json", "npm-shrinkwrap.json", ".npmrc"] {
            if self.has(name)? {
                first += " app/";
                first += name;
            }
        }
        Ok(format!("{first} ./\n{install}\n{all}"))
    }

    fn flask(&self, images: &Images) -> Result<Made, Refusal> {
        let Some((file, module)) = self.module()? else {
            return Refusal::new(
                "flask needs app.py, wsgi.py or main.py with an \"app\" at the top of the repository",
            );
        };
        let (mut files, all) = (Vec::new(), "COPY --chown=65534:65534 app/ ./");
        let requirements = self.text("requirements.txt")?;
        let project = if requirements.is_some() { None } else { self.text("pyproject.toml")? };
        let pip = "RUN python3 -m pip install";
        let install = match (requirements, project.map(|text| Project::parse(&text)).transpose()?) {
            (Some(text), _) if requirements_need_all_files(&text) => {
                format!("{all}\n{pip} -r requirements.txt")
            }
            (Some(_), _) => format!("COPY app/requirements.txt ./\n{pip} -r requirements.txt\n{all}"),
            (None, Some(Project::Package)) => format!("{all}\n{pip} ."),
            (None, Some(Project::Dependencies(names))) if !names.is_empty() => {
                files.push(("dependencies.txt", names.join("\n").into_bytes()));
                format!("COPY dependencies.txt /tmp/\n{pip} -r /tmp/dependencies.txt\n{all}")
            }
            (None, _) => all.to_owned(),
        };
        let rest =
            "RUN python3 -c \"import flask, gunicorn\" 2>/dev/null || python3 -m pip install flask gunicorn";
        let text = include_str!("recipes/flask.Dockerfile")
            .replace("{image}", images.python.as_str())
            .replace("{install}", &format!("{install}\n{rest}"))
            .replace("{module}", module);
        Ok((text, files, format!(", {module} of {file}")))
    }

    /// The file that has the app, and how gunicorn names it: the first that defines `app`, else the first that is there.
    fn module(&self) -> Result<Option<(&'static str, &'static str)>, Refusal> {
        let mut first = None;
        let candidates = [
            ("app.py", "app:app"),
            ("wsgi.py", "wsgi:app"),
            ("main.py", "main:app"),
            ("app/__init__.py", "app:app"),
        ];
        for (file, module) in candidates {
            let Some(text) = self.text(file)? else { continue };
            if text.lines().any(defines_app) {
                return Ok(Some((file, module)));
            }
            first = first.or(Some((file, module)));
        }
        Ok(first)
    }
}

fn public(env: &[EnvName]) -> impl Iterator<Item = &EnvName> {
    env.iter().filter(|name| PUBLIC.iter().any(|prefix| name.as_str().starts_with(prefix)))
}

fn arg_lines(env: &[EnvName]) -> String {
    public(env).flat_map(|name| ["ARG ", name.as_str(), "\n"]).collect()
}

/// `app = …`, `app: Flask = …`, `from x import app`, `from x import y as app`, at the beginning of a line of Python.
fn defines_app(line: &str) -> bool {
    let assigned = line.strip_prefix("app").is_some_and(|rest| rest.trim_start().starts_with(['=', ':']));
    let from = line.strip_prefix("from ").and_then(|rest| rest.split_once(" import "));
    let last_is_app = |name: &str| name.trim_matches(['(', ')', ' ']).split(' ').next_back() == Some("app");
    assigned || from.is_some_and(|(_, names)| names.split(',').any(last_is_app))
}

/// Whether a requirement of Flask itself is among the lines of a `requirements.txt`, or the texts of a `pyproject.toml`.
fn names_flask(text: &str) -> bool {
    text.lines().flat_map(|line| line.split(['"', '\'', '['])).any(|part| {
        let part = part.trim_start();
        let name = part.get(..5).is_some_and(|name| name.eq_ignore_ascii_case("flask"));
        name && !part[5..].starts_with(|c: char| c.is_ascii_alphanumeric() || "-_.".contains(c))
    })
}

/// Other files, options, folders: what a line may name beside a package.
fn requirements_need_all_files(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_start();
        line.starts_with(['-', '.', '/']) || line.contains("file:") || line.contains("@ .")
    })
}

/// What a `pyproject.toml` wants installed.
enum Project {
    /// Itself: it says how it is built.
    Package,
    /// Its dependencies; it is a folder of files.
    Dependencies(Vec<String>),
}

impl Project {
    fn parse(text: &str) -> Result<Project, Refusal> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            Refusal(format!("pyproject.toml is not valid TOML: {}", error.message()))
        })?;
        if table.contains_key("build-system") {
            return Ok(Project::Package);
        }
        let listed = table.get("project").and_then(|project| project.get("dependencies"));
        let names =
            listed.and_then(toml::Value::as_array).into_iter().flatten().filter_map(toml::Value::as_str);
        // One requirement is one line; a second in the same text would be an option of pip's.
        Ok(Project::Dependencies(names.filter_map(|name| name.lines().next()).map(str::to_owned).collect()))
    }
}

/// A `package.json`.
struct Package(Value);

impl Package {
    fn has_script(&self, name: &str) -> bool {
        self.0["scripts"][name].is_string()
    }

    fn dependencies(&self) -> impl Iterator<Item = (&String, &Value)> {
        let kinds = ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"];
        kinds.into_iter().filter_map(|kind| self.0[kind].as_object()).flatten()
    }

    fn depends_on(&self, name: &str) -> bool {
        self.dependencies().any(|(dependency, _)| dependency == name)
    }

    fn has_dependencies(&self) -> bool {
        self.dependencies().next().is_some() || self.has_workspaces()
    }

    fn has_workspaces(&self) -> bool {
        !self.0["workspaces"].is_null()
    }

    /// Whether npm's installation reads other files of the repository.
    fn needs_all_files(&self) -> bool {
        let local = |version: &Value| {
            let version = version.as_str().unwrap_or_default();
            ["file:", "link:", ".", "/", "~/"].iter().any(|prefix| version.starts_with(prefix))
        };
        let hooks =
            ["preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare"];
        self.has_workspaces()
            || hooks.iter().any(|hook| self.has_script(hook))
            || self.dependencies().any(|(_, version)| local(version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::checkout::Checkout;

    fn env(names: &[&str]) -> Vec<EnvName> {
        names.iter().map(|name| EnvName::parse(name).unwrap()).collect()
    }

    fn images() -> Images {
        let image = |name| ImageRef::parse(name).unwrap();
        Images { files: image("files:1"), node: image("node:1"), python: image("python:1") }
    }

    fn found(files: &[(&str, &str)], chosen: Option<Template>) -> Result<Recipe, Refusal> {
        let checkout = Checkout::new(files);
        let env = env(&["VITE_URL", "SECRET", "REACT_APP_A"]);
        find(&checkout.path(""), chosen, &images(), &env)
    }

    fn dockerfile(files: &[(&str, &str)], chosen: Option<Template>) -> String {
        let recipe = found(files, chosen).unwrap();
        assert_eq!((recipe.dockerfile, recipe.files[0].0), ("Dockerfile", "Dockerfile"));
        String::from_utf8(recipe.files[0].1.clone()).unwrap()
    }

    const VITE: &str = r#"{"scripts":{"build":"vite build","start":"x"},"devDependencies":{"vite":"^7"}}"#;
    const EXPRESS: &str = r#"{"scripts":{"start":"node ."},"dependencies":{"express":"5"}}"#;

    #[test]
    fn what_a_repository_is_shows_in_its_files_and_is_said() {
        let react = r#"{"scripts":{"build":"x"},"dependencies":{"react":"19","react-scripts":"5"}}"#;
        let next = r#"{"scripts":{"build":"next build","start":"next start"},"dependencies":{"react":"19","next":"15"}}"#;
        let library = r#"{"dependencies":{"react":"19"},"scripts":{"start":"node ."}}"#;
        let poetry = "[tool.poetry.dependencies]\nflask = \"^3\"\n";
        let project = "[project]\ndependencies = [\n  'Flask>=3',\n]\n";
        for (files, sentence) in [
            (vec![("package.json", VITE)], "Found package.json with vite: building it as react"),
            (vec![("package.json", react)], "Found package.json with react-scripts: building it as react"),
            (vec![("package.json", next)], "Found package.json with a start script: building it as nodejs"),
            (
                vec![("package.json", library)],
                "Found package.json with a start script: building it as nodejs",
            ),
            (
                vec![("package.json", EXPRESS), ("index.html", ""), ("app.py", "")],
                "Found package.json with a start script: building it as nodejs",
            ),
            (vec![("package.json", "{}"), ("index.html", "")], "Found index.html: building it as static"),
            (
                vec![("requirements.txt", "Flask==3\n"), ("wsgi.py", "")],
                "Found requirements.txt with Flask: building it as flask, wsgi:app of wsgi.py",
            ),
            (
                vec![("pyproject.toml", poetry), ("main.py", ""), ("index.html", "")],
                "Found pyproject.toml with Flask: building it as flask, main:app of main.py",
            ),
            (
                vec![("pyproject.toml", project), ("app/__init__.py", "")],
                "Found pyproject.toml with Flask: building it as flask, app:app of app/__init__.py",
            ),
            (
                vec![
                    ("app.py", "def create_app():\n  app = 1\n"),
                    ("wsgi.py", "from app import create_app\napp = create_app()\n"),
                ],
                "Found app.py: building it as flask, wsgi:app of wsgi.py",
            ),
            (
                vec![("app.py", "from app import create_app"), ("main.py", "from x import (y, web as app)")],
                "Found app.py: building it as flask, main:app of main.py",
            ),
            (
                vec![("requirements.txt", "flask-cors\nflaskr\n"), ("index.html", "")],
                "Found index.html: building it as static",
            ),
            (vec![("index.html", ""), ("Dockerfile", "FROM x")], "Found a Dockerfile: building with it"),
        ] {
            let recipe = found(&files, None).unwrap();
            assert_eq!(recipe.sentence, sentence);
            let word = sentence.split("building it as ").nth(1).map(|rest| rest.split(',').next().unwrap());
            assert_eq!(recipe.template.map(Template::word), word);
            assert_eq!(recipe.port, word.map(|_| PORT));
        }
    }

    #[test]
    fn a_template_that_was_chosen_decides_unless_there_is_a_dockerfile() {
        let files = [("package.json", VITE), ("index.html", ""), ("app.py", "app = 1")];
        for (template, word) in Template::WORDS {
            let recipe = found(&files, Some(template)).unwrap();
            assert_eq!(recipe.template, Some(template));
            assert!(
                recipe.sentence.starts_with(&format!("No Dockerfile: building it as {word}")),
                "{}",
                recipe.sentence
            );
        }
        let own = found(&[("Dockerfile", "FROM x"), ("index.html", "")], Some(Template::Static)).unwrap();
        assert_eq!(own.template, None);
        for (template, word) in Template::WORDS {
            let said = found(&[("README.md", "")], Some(template)).unwrap_err().0;
            assert!(said.starts_with(&format!("{word} needs ")), "{said}");
        }
        let start = found(&[("package.json", "{}"), ("server.js", "")], Some(Template::Nodejs));
        assert_eq!(start.unwrap().template, Some(Template::Nodejs), "npm start runs server.js by itself");
    }

    #[test]
    fn case_92_what_cannot_be_built_is_refused_with_a_sentence() {
        let long = "x".repeat(usize::try_from(DOCKERFILE_BYTES_MAX).unwrap() + 1);
        for (files, why) in [
            (vec![("README.md", "")], "the repository has no Dockerfile, no package.json with"),
            (vec![("Dockerfile", long.as_str())], "Dockerfile is larger than 64 KiB"),
            (vec![("Dockerfile", " \n")], "the Dockerfile is empty"),
            (vec![("Dockerfile/x", "")], "Dockerfile is not a regular file"),
            (
                vec![("Dockerfile", "# syntax=evil/x\nFROM y")],
                "the Dockerfile's \"# syntax=\" names another language",
            ),
            (
                vec![("Dockerfile", "#escape=`\n#  SYNTAX = evil/x\nFROM y")],
                "the Dockerfile's \"# syntax=\" names",
            ),
            (vec![("package.json", "{\n  \"a\": }")], "package.json is not valid JSON: line 2, column 8"),
            (vec![("package.json", "[]")], "package.json is not an object"),
            (vec![("package.json", &"[".repeat(100_000))], "package.json is not valid JSON"),
            (vec![("pyproject.toml", "flask"), ("app.py", "")], "pyproject.toml is not valid TOML"),
            (vec![("requirements.txt", "flask")], "flask needs app.py, wsgi.py or main.py"),
            (vec![("index.html", ""), (".dockerignore", "[")], ".dockerignore, line 1: "),
            (vec![("index.html", ""), (".dockerignore", "index.html")], "the repository has no Dockerfile"),
        ] {
            let said = found(&files, None).unwrap_err().0;
            assert!(said.starts_with(why), "{said}");
        }
        for syntax in [
            "# syntax=docker/dockerfile:1\nFROM x",
            "FROM x\n# syntax=evil/x",
            "# Note\n# syntax=evil/x\nFROM x",
        ] {
            assert!(found(&[("Dockerfile", syntax)], None).is_ok(), "{syntax}");
        }
    }

    #[test]
    fn case_92_a_dockerfile_that_is_a_link_a_fifo_or_huge_is_not_read() {
        let checkout = Checkout::new(&[("secret", "FROM canary"), ("tree/index.html", "")]);
        let said = |name: &str, why: &str| {
            let tree = checkout.path("tree");
            assert_eq!(find(&tree, None, &images(), &[]).unwrap_err().0, format!("{name} {why}"));
            std::fs::remove_file(tree.join(name)).unwrap();
        };
        for name in ["Dockerfile", ".dockerignore"] {
            for target in ["/etc/shadow", "../secret", "index.html", "nowhere", "."] {
                checkout.link(&format!("tree/{name}"), target);
                said(name, "is not a regular file");
            }
            checkout.fifo(&format!("tree/{name}"));
            said(name, "is not a regular file");
            let huge = std::fs::File::create(checkout.path(&format!("tree/{name}"))).unwrap();
            huge.set_len(1 << 30).unwrap();
            said(name, "is larger than 64 KiB");
        }
    }

    #[test]
    fn of_the_projects_variables_a_build_is_given_those_it_asks_for() {
        let names =
            |recipe: Recipe| recipe.args.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
        let own = "FROM x\nARG A=1 SECRET\n  arg REACT_APP_A=\"b c\"\nRUN ARG VITE_URL\n";
        assert_eq!(names(found(&[("Dockerfile", own)], None).unwrap()), ["SECRET", "REACT_APP_A"]);
        assert_eq!(names(found(&[("package.json", VITE)], None).unwrap()), ["VITE_URL", "REACT_APP_A"]);
        assert!(names(found(&[("app.py", "")], None).unwrap()).is_empty());
        assert!(names(found(&[("index.html", "")], None).unwrap()).is_empty());
    }

    #[test]
    fn static_is_busybox_with_the_files() {
        assert_eq!(
            dockerfile(&[("index.html", "")], None),
            include_str!("recipes/static.Dockerfile").replace("{image}", "files:1")
        );
    }

    #[test]
    fn of_a_page_only_the_last_step_differs_between_commits() {
        for (files, last) in [
            (&[("index.html", "")], "COPY app/ /srv/"),
            (&[("package.json", VITE)], "COPY --from=build /site /srv"),
        ] {
            assert_eq!(dockerfile(files, None).lines().last(), Some(last));
        }
    }

    /// The lines from the one that begins with `from` to the one before `to`.
    fn between(text: &str, from: &str, to: &str) -> Vec<String> {
        let lines = text.lines().skip_while(|line| !line.starts_with(from));
        lines.take_while(|line| !line.starts_with(to)).map(str::to_owned).collect()
    }

    #[test]
    fn react_installs_before_it_copies_and_builds_with_the_public_variables() {
        let text = dockerfile(&[("package.json", VITE), ("package-lock.json", "{}"), (".npmrc", "")], None);
        assert_eq!(
            between(&text, "FROM", "RUN set"),
            [
                "FROM node:1 AS build",
                "WORKDIR /app",
                "COPY app/package.json app/package-lock.json app/.npmrc ./",
                "RUN npm ci --no-audit --no-fund && npm cache clean --force",
                "COPY app/ ./",
                "ARG VITE_URL",
                "ARG REACT_APP_A",
            ]
        );
        assert!(
            text.contains("\nFROM node:1\nCOPY spa.mjs") && !text.contains("SECRET") && !text.contains('{')
        );
        let bare = r#"{"scripts":{"build":"x"}}"#;
        let text = dockerfile(&[("package.json", bare)], Some(Template::React));
        assert_eq!(between(&text, "WORKDIR", "ARG"), ["WORKDIR /app", "COPY app/ ./"]);
    }

    #[test]
    fn nodejs_installs_what_it_needs_to_build_and_to_run() {
        let text = dockerfile(&[("package.json", EXPRESS)], None);
        assert_eq!(
            text,
            "FROM node:1\n\
             WORKDIR /app\n\
             RUN chown 65534:65534 /app\n\
             COPY app/package.json ./\n\
             RUN npm install --omit=dev --no-audit --no-fund && npm cache clean --force\n\
             COPY --chown=65534:65534 app/ ./\n\
             ENV NODE_ENV=production PORT=8080 HOME=/tmp NPM_CONFIG_UPDATE_NOTIFIER=false NPM_CONFIG_LOGS_MAX=0\n\
             EXPOSE 8080\n\
             USER 65534:65534\n\
             CMD [\"npm\", \"start\"]\n"
        );
        let builds = r#"{"scripts":{"build":"x","start":"y"},"dependencies":{"next":"15"}}"#;
        let text = dockerfile(&[("package.json", builds), ("npm-shrinkwrap.json", "")], None);
        let lines = between(&text, "COPY app", "ENV");
        assert_eq!(lines[1], "RUN npm ci --no-audit --no-fund && npm cache clean --force");
        assert_eq!(lines.last().unwrap(), "RUN npm run build && npm prune --omit=dev");
        for local in [
            r#"{"scripts":{"start":"y"},"dependencies":{"a":"file:./a"}}"#,
            r#"{"scripts":{"start":"y"},"workspaces":["a"]}"#,
            r#"{"scripts":{"start":"y","postinstall":"z"},"dependencies":{"a":"1"}}"#,
        ] {
            let text = dockerfile(&[("package.json", local)], None);
            let lines = between(&text, "COPY", "ENV");
            assert_eq!(lines[0], "COPY --chown=65534:65534 app/ ./", "{local}");
            assert!(lines[1].starts_with("RUN npm install --omit=dev"), "{local}");
        }
    }

    #[test]
    fn flask_installs_what_is_asked_for_and_what_is_missing() {
        let rest =
            "RUN python3 -c \"import flask, gunicorn\" 2>/dev/null || python3 -m pip install flask gunicorn";
        let (all, pip) = ("COPY --chown=65534:65534 app/ ./", "RUN python3 -m pip install");
        let project = "[project]\ndependencies = ['flask', \"x\\n--index-url=y\"]\n";
        for (files, lines) in [
            (vec![], vec![all.to_owned()]),
            (
                vec![("requirements.txt", "flask")],
                vec![
                    "COPY app/requirements.txt ./".to_owned(),
                    format!("{pip} -r requirements.txt"),
                    all.to_owned(),
                ],
            ),
            (
                vec![("requirements.txt", "# x\n-r base.txt")],
                vec![all.to_owned(), format!("{pip} -r requirements.txt")],
            ),
            (
                vec![("pyproject.toml", project)],
                vec![
                    "COPY dependencies.txt /tmp/".to_owned(),
                    format!("{pip} -r /tmp/dependencies.txt"),
                    all.to_owned(),
                ],
            ),
            (vec![("pyproject.toml", "[build-system]\n")], vec![all.to_owned(), format!("{pip} .")]),
            (vec![("pyproject.toml", "[tool.ruff]\n")], vec![all.to_owned()]),
        ] {
            let files = [files, vec![("main.py", "app = 1")]].concat();
            let text = dockerfile(&files, Some(Template::Flask));
            assert_eq!(
                between(&text, "COPY", "RUN python3 -c").len() + 1,
                between(&text, "COPY", "ENV").len()
            );
            let expected: Vec<String> = lines.into_iter().chain([rest.to_owned()]).collect();
            let from = expected[0].clone();
            assert_eq!(between(&text, &from, "ENV"), expected);
            assert!(text.contains(" main:app\"]\n") && !text.contains('{'), "{text}");
        }
        let recipe = found(&[("pyproject.toml", project), ("app.py", "")], None).unwrap();
        assert_eq!(recipe.files[1], ("dependencies.txt", b"flask\nx".to_vec()));
    }

    #[test]
    fn nothing_that_a_repository_says_gets_into_a_dockerfile() {
        let evil = "x\\nRUN canary {image} {install}";
        let package = format!(
            r#"{{"name":"{evil}","scripts":{{"build":"{evil}","start":"{evil}"}},"dependencies":{{"react":"{evil}","{evil}":"1"}}}}"#
        );
        let project = format!("[project]\nname = \"{evil}\"\ndependencies = [\"{evil}\"]\n");
        let python = format!("app = '{evil}'");
        let files = [
            ("package.json", package.as_str()),
            ("pyproject.toml", &project),
            ("app.py", &python),
            ("index.html", "canary"),
        ];
        for (template, _) in Template::WORDS {
            let text = dockerfile(&files, Some(template));
            assert!(!text.contains("canary") && !text.contains('{'), "{text}");
        }
    }
}
