//! The log: text for people, or one JSON object a line for programs, on standard error.
//!
//! Invariant: what `[log]` says is what is written; a filter that does not parse is an error at the
//! start and never a silent default.

mod events_file;

use std::io::IsTerminal as _;

use anyhow::{Context as _, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

pub use events_file::EventsFile;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Starts the log of this process. `level` is a level, or a filter such as `info,tandem::sip=debug`.
///
/// # Errors
/// The filter does not parse, or a log was started before.
pub fn start(format: Format, level: &str) -> Result<()> {
    let filter = filter(level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        Format::Text => {
            let colours = std::io::stderr().is_terminal();
            builder.with_ansi(colours).with_target(false).with_span_events(FmtSpan::NONE).try_init()
        }
        Format::Json => {
            builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
        }
    };
    started.map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))
}

/// Libraries below us speak from WARN on, unless the filter names them.
fn filter(level: &str) -> Result<EnvFilter> {
    let is_level = ["error", "warn", "info", "debug", "trace", "off"].contains(&level);
    let text = if is_level { format!("warn,tandem={level}") } else { level.to_owned() };
    EnvFilter::try_new(&text).with_context(|| {
        format!("log.level {level:?}: use error, warn, info, debug or trace, or a filter such as info,tandem::sip=debug")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_level_speaks_for_us_and_a_bad_filter_is_an_error() {
        assert_eq!(filter("debug").unwrap().to_string(), "tandem=debug,warn");
        assert!(filter("info,tandem::sip=debug").is_ok());
        let refused = filter("info,tandem==x=").unwrap_err().to_string();
        assert!(refused.contains("log.level"), "{refused}");
    }
}
