//! The `tandem` program: reads the command line and hands over to [`tandem::command`].

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Parser, Subcommand};
use tandem::command::{ban, check, demo, health, node, run, setup, status, try_number, user};
use tandem::config::Config;
use tandem::dialplan::{LocalTime, Mistake};
use tandem::edge::clock;

/// Telephony control and WebRTC call bridge for a dispatch centre.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The server.
    #[command(after_help = "Example: tandem run --config config/tandem.toml")]
    Run {
        /// Configuration; without it the built-in defaults serve.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// A dispatch centre on this machine with a simulated GSM gateway, at http://127.0.0.1:8080.
    #[command(after_help = "Example: tandem demo --check")]
    Demo {
        /// Without a person: a built-in operator takes a call and makes one; exit 0 or 1.
        #[arg(long)]
        check: bool,
    },
    /// Reads configuration and dialplans and says what is wrong, with file and line.
    #[command(after_help = "Example: tandem check --config config/tandem.toml")]
    Check {
        /// Configuration; without it the built-in defaults are checked.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Makes the first admin, the domain and a certificate, by questions or flags.
    #[command(
        after_help = "Example: tandem setup --admin vera --domain dispatch.example.net --name 192.0.2.5"
    )]
    Setup {
        /// The configuration file to write.
        #[arg(long, default_value = setup::CONFIG_FILE)]
        config: PathBuf,
        #[command(flatten)]
        wishes: setup::SetupArgs,
    },
    /// Accounts: add, list, password, disable.
    #[command(
        after_help = "Example: tandem user add anna --role operator --queue orders --password-stdin < file"
    )]
    User {
        /// Configuration; without it the built-in defaults serve.
        #[arg(long, global = true)]
        config: Option<PathBuf>,
        #[command(subcommand)]
        what: user::UserCommand,
    },
    /// This node as a table: role, calls, trunks, queues.
    #[command(after_help = "Example: tandem status --json")]
    Status {
        /// Configuration; without it the built-in defaults serve.
        #[arg(long)]
        config: Option<PathBuf>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Who is locked out after failed log-ins: list, lift.
    #[command(after_help = "Example: tandem ban lift 192.0.2.7")]
    Ban {
        /// Configuration; without it the built-in defaults serve.
        #[arg(long, global = true)]
        config: Option<PathBuf>,
        #[command(subcommand)]
        what: ban::BanCommand,
    },
    /// Exit 0 when this node does its work, 1 when not: for check scripts.
    #[command(after_help = "Example: tandem health")]
    Health {
        /// Configuration; without it the built-in defaults serve.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Prints the way a call would take, step by step.
    #[command(
        after_help = "Example: tandem try +380441234567 --from trunk:gsm-1 --config config/dev.toml --at \"sat 03:00\""
    )]
    Try {
        /// The number called.
        number: String,
        /// Who calls: `trunk:NAME` or `operators`.
        #[arg(long)]
        from: String,
        /// Local time, as `sat 03:00`; now without it.
        #[arg(long)]
        at: Option<String>,
        /// The caller's number; withheld without it.
        #[arg(long, default_value = "")]
        caller: String,
        /// Configuration; without it the built-in defaults serve.
        #[arg(long)]
        config: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    // Everything that Tandem writes holds numbers, keys or password hashes: it is its owner's alone.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    match act(Line::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Standard error may be closed: then nobody reads what is wrong anyway.
            drop(writeln!(std::io::stderr(), "tandem: {why:#}"));
            ExitCode::FAILURE
        }
    }
}

fn act(command: Command) -> Result<()> {
    match command {
        Command::Run { config } => in_runtime(run::run(config)),
        Command::Demo { check: false } => in_runtime(demo::run(say)),
        Command::Demo { check: true } => in_runtime(demo::check(say)),
        Command::Setup { config, wishes } => show(in_runtime(setup::run(&config, wishes))?),
        Command::User { config, what } => show(in_runtime(user::run(&load(config)?, what))?),
        Command::Status { config, json } => show(in_runtime(status::run(&load(config)?, json))?),
        Command::Ban { config, what } => show(in_runtime(ban::run(&load(config)?, what))?),
        Command::Health { config } => show(in_runtime(health::run(&load(config)?))?),
        Command::Check { config } => {
            let report = check::check(config.as_deref(), check::DIALPLANS.as_ref());
            let report = report.map_err(|mistakes| told(&mistakes))?;
            for warning in &report.warnings {
                say(&format!("warning: {warning}"))?;
            }
            say("configuration and dialplans are good")
        }
        Command::Try { number, from, at, caller, config } => {
            let report = check::check(config.as_deref(), check::DIALPLANS.as_ref());
            let report = report.map_err(|mistakes| told(&mistakes))?;
            let zone = report.config.node.time_zone();
            let at = match at {
                Some(text) => LocalTime::parse(&text).map_err(|words| anyhow!("--at: {words}"))?,
                None => LocalTime::of(clock::wall_ms(), &zone),
            };
            let question = try_number::Question { number: &number, from: &from, caller: &caller, at };
            let lines = try_number::try_number(&report.config, &report.plan, &question);
            lines.map_err(|words| anyhow!(words))?.iter().try_for_each(|line| say(line))
        }
    }
}

fn load(file: Option<PathBuf>) -> Result<Config> {
    Config::load(file.as_deref()).map_err(|mistakes| told(&mistakes))
}

/// One mistake stays on the line of the program's name, more begin below it.
fn told(mistakes: &[Mistake]) -> anyhow::Error {
    let words = node::lines(mistakes);
    if mistakes.len() > 1 { anyhow!("{} mistakes\n{words}", mistakes.len()) } else { anyhow!(words) }
}

/// Prints what a command said.
fn show(text: String) -> Result<()> {
    Ok(write!(std::io::stdout(), "{text}")?)
}

fn in_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

fn say(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
