//! `tandem ban`: who is locked out after failed log-ins, by SIP and at the web.

use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::Value;

use crate::config::Config;
use crate::edge::web::control::{Request, ask};

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum BanCommand {
    /// Lists locks and bans: `tandem ban list --json`
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Lifts what stands against an address: `tandem ban lift 192.0.2.7`
    Lift {
        /// As the list shows it
        source: IpAddr,
    },
}

/// Carries it out on the running node; what is to be printed.
///
/// # Errors
/// No node runs on this data folder, or it refuses.
pub async fn run(config: &Config, command: BanCommand) -> Result<String> {
    let folder = &config.node.data_dir;
    let request = match &command {
        BanCommand::List { .. } => Request::Bans,
        BanCommand::Lift { source } => Request::LiftBans { source: *source },
    };
    let Some(answer) = ask(folder, &request).await? else {
        bail!("no node runs on {}: a node that starts has forgotten all bans", folder.display());
    };
    Ok(match command {
        BanCommand::List { json: true } => format!("{answer:#}\n"),
        BanCommand::List { json: false } => table(&answer),
        BanCommand::Lift { source } => format!("{source} may try again\n"),
    })
}

fn table(answer: &Value) -> String {
    let bans = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    if bans.is_empty() {
        return "nobody is banned\n".to_owned();
    }
    let mut text =
        format!("{:<40} {:<5} {:<24} {:>8} {:>8}\n", "SOURCE", "DOOR", "ACCOUNT", "FAILURES", "LEFT");
    for ban in bans {
        let word = |key: &str| ban.get(key).and_then(Value::as_str).unwrap_or("(all of it)");
        let number = |key: &str| ban.get(key).and_then(Value::as_u64).unwrap_or(0);
        let left_s = number("left_ms").div_ceil(1_000);
        // Writing into a string cannot fail.
        writeln!(
            text,
            "{:<40} {:<5} {:<24} {:>8} {:>5}:{:02}",
            word("source"),
            word("door"),
            word("account"),
            number("failures"),
            left_s / 60,
            left_s % 60
        )
        .unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_tells_a_lock_from_a_ban() {
        let lock = json!({ "door": "sip", "source": "192.0.2.7", "account": "anna", "failures": 5, "left_ms": 61_000 });
        let ban =
            json!({ "door": "web", "source": "2001:db8::", "account": null, "failures": 50, "left_ms": 9 });
        let text = table(&json!([lock, ban]));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines.get(1).map(Vec::as_slice), Some(&["192.0.2.7", "sip", "anna", "5", "1:01"][..]));
        assert_eq!(
            lines.get(2).map(Vec::as_slice),
            Some(&["2001:db8::", "web", "(all", "of", "it)", "50", "0:01"][..])
        );
        assert_eq!(table(&json!([])), "nobody is banned\n");
    }
}
