//! The command line: what to do, with which configuration, and the exit code.

mod terminal;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};

use muelle::auth::password::{self, Password};
use muelle::config::Config;
use muelle::daemon::{self, Fatal};
use muelle::deploy::git;
use muelle::domain::{Email, User, UserName};
use muelle::journal;
use muelle::store::{self, Admit, NewUser, Store};

/// The configuration or the data cannot be used: starting again changes nothing (sysexits.h, `EX_CONFIG`).
const EXIT_CONFIG: u8 = 78;

/// One home server with Docker as a small hosting platform.
#[derive(Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// The configuration file; ./config.toml where there is one
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server (what happens without a command)
    Serve,
    /// Say everything that is wrong with the configuration
    CheckConfig,
    /// Accounts
    #[command(subcommand)]
    User(UserCommand),
    /// Write a copy of the database to FILE; the server may be running
    Backup {
        /// A file that does not exist yet
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum UserCommand {
    /// Make an account; the first one becomes the administrator. Asks for the password
    Add {
        /// The address to log in with
        email: String,
        /// What to call the person; by default what stands before the @
        #[arg(long)]
        name: Option<String>,
    },
    /// Set a new password and end all sessions. Asks for the password
    Passwd {
        /// Whose
        email: String,
    },
    /// End all sessions
    Logout {
        /// Whose
        email: String,
    },
    /// Delete an account that has no projects
    Delete {
        /// Whose
        email: String,
    },
    /// List the accounts
    List,
}

fn main() -> ExitCode {
    if std::env::var_os(git::ASKPASS_PIPE).is_some() {
        return askpass();
    }
    let arguments = Arguments::parse();
    let config = match Config::load(arguments.config.as_deref(), &|name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                eprintln!("config: {problem}");
            }
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let done = match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => return serve(&config),
        Command::CheckConfig => {
            println!("The configuration is valid.");
            Ok(())
        }
        Command::User(command) => user(&config.data_dir, command),
        Command::Backup { file } => backup(&config.data_dir, &file),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("muelle: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Answers git, which a muelle started: see `deploy::git`.
fn askpass() -> ExitCode {
    let question = std::env::args_os().nth(1).unwrap_or_default();
    match git::askpass(&question.to_string_lossy(), |name| std::env::var(name).ok()) {
        Some(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        None => ExitCode::FAILURE,
    }
}

fn serve(config: &Config) -> ExitCode {
    let _journal = match journal::to_stderr() {
        Ok(journal) => journal,
        Err(error) => {
            eprintln!("muelle: no thread for the log: {error}");
            return ExitCode::FAILURE;
        }
    };
    match daemon::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            log::error!("{fatal}");
            match fatal {
                Fatal::Data(_) => ExitCode::from(EXIT_CONFIG),
                Fatal::System(_) => ExitCode::FAILURE,
            }
        }
    }
}

fn backup(data_dir: &Path, file: &Path) -> anyhow::Result<()> {
    store::backup(data_dir, file)?;
    println!("The database was copied to {}.", file.display());
    Ok(())
}

fn user(data_dir: &Path, command: UserCommand) -> anyhow::Result<()> {
    let is_first = !data_dir.join(store::FILE).exists();
    if is_first && !matches!(command, UserCommand::Add { .. }) {
        bail!("there is no database in {}; is this the server's configuration?", data_dir.display());
    }
    let store = Store::open(data_dir)?;
    if is_first {
        eprintln!("A new database was made in {}.", data_dir.display());
    }
    match command {
        UserCommand::Add { email, name } => {
            let email = Email::parse(&email)?;
            let name = UserName::parse(&name.unwrap_or_else(|| email.local_part().to_owned()))?;
            let password_hash = password::hash(&ask_password()?)?;
            let made =
                store.create_user(NewUser { email, name, password_hash }, Admit::Any, SystemTime::now());
            let user = made.map_err(|error| match error {
                store::Error::Taken(_) => anyhow::anyhow!("there is an account with this e-mail already"),
                error => error.into(),
            })?;
            println!(
                "{} made{}.",
                user.email.as_str(),
                if user.admin { "; it is the administrator" } else { "" }
            );
        }
        UserCommand::Passwd { email } => {
            let user = find(&store, &email)?;
            store.set_password(user.id, password::hash(&ask_password()?)?)?;
            println!("{} has a new password; all sessions have ended.", user.email.as_str());
        }
        UserCommand::Logout { email } => {
            let user = find(&store, &email)?;
            let ended = store.logout_user(user.id)?.len();
            println!("{} is logged out ({ended} sessions).", user.email.as_str());
        }
        UserCommand::Delete { email } => {
            let user = find(&store, &email)?;
            match store.delete_user(user.id) {
                Ok(()) => println!("{} is deleted.", user.email.as_str()),
                Err(store::Error::HasProjects(count)) => {
                    let s = if count == 1 { "" } else { "s" };
                    bail!("{} still has {count} project{s}; delete them first", user.email.as_str())
                }
                Err(error) => return Err(error.into()),
            }
        }
        UserCommand::List => {
            for user in store.reader()?.users()? {
                let role = if user.admin { "administrator" } else { "user" };
                println!("{}\t{role}\t{}\t{}", user.email.as_str(), user.host.as_str(), user.name.as_str());
            }
        }
    }
    Ok(())
}

fn find(store: &Store, email: &str) -> anyhow::Result<User> {
    let email = Email::parse(email)?;
    let found = store.reader()?.user_by_email(&email)?;
    found.map(|(user, _)| user).with_context(|| format!("there is no account {}", email.as_str()))
}

fn ask_password() -> anyhow::Result<Password> {
    let line = terminal::read_secret("Password: ").context("cannot read the password")?;
    Ok(Password::parse(&line)?)
}
