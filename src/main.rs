//! The `tandem` program: reads the command line and hands over to [`tandem::command`].

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Parser, Subcommand};
use tandem::command::{check, demo, node, run, try_number};
use tandem::dialplan::LocalTime;
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
    /// Prints the way a call would take, step by step.
    #[command(after_help = "Example: tandem try +380441234567 --from trunk:gsm-1 --at \"sat 03:00\"")]
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
        Command::Check { config } => {
            let report = check::check(config.as_deref(), check::DIALPLANS.as_ref());
            let report = report.map_err(|mistakes| anyhow!("\n{}", node::lines(&mistakes)))?;
            for warning in &report.warnings {
                say(&format!("warning: {warning}"))?;
            }
            say("configuration and dialplans are good")
        }
        Command::Try { number, from, at, caller, config } => {
            let report = check::check(config.as_deref(), check::DIALPLANS.as_ref());
            let report = report.map_err(|mistakes| anyhow!("\n{}", node::lines(&mistakes)))?;
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

fn in_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

fn say(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
