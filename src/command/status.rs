//! `tandem status`: the node on this machine at a glance.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::config::Config;
use crate::edge::web::control::{Request, ask};

/// What is to be printed: a table, or the node's own JSON.
///
/// # Errors
/// No node runs on this data folder, or it does not answer.
pub async fn run(config: &Config, as_json: bool) -> Result<String> {
    let folder = &config.node.data_dir;
    let Some(status) = ask(folder, &Request::Status).await? else {
        bail!("no node runs on {}: start it with `tandem run`", folder.display());
    };
    if as_json {
        return Ok(format!("{status:#}\n"));
    }
    Ok(table(&status))
}

fn table(status: &Value) -> String {
    let mut text = String::new();
    let node = status.get("node").unwrap_or(&Value::Null);
    let calls = list(status, "calls").len();
    let uptime_s = node.get("uptime_ms").and_then(Value::as_i64).unwrap_or(0) / 1_000;
    let mut say = |line: String| {
        // Writing into a string cannot fail.
        writeln!(text, "{line}").unwrap_or_default();
    };
    say(format!(
        "{} {} ({}), epoch {}, up {}:{:02}:{:02}, {calls} calls",
        word(node, "name"),
        word(node, "version"),
        word(node, "role"),
        word(node, "epoch"),
        uptime_s / 3_600,
        uptime_s / 60 % 60,
        uptime_s % 60,
    ));
    for failing in list(status, "failing") {
        say(format!("FAILS  {}: {}", word(failing, "part"), word(failing, "why")));
    }
    if let Some(outbox) = status.get("outbox").filter(|outbox| !outbox.is_null()) {
        say(format!(
            "outbox {} waiting, {} refused by the order core",
            word(outbox, "depth"),
            word(outbox, "dead")
        ));
    }
    say(format!("\n{:<20} {:<9} {:>9} {}", "TRUNK", "STATE", "CHANNELS", "LAST ERROR"));
    for trunk in list(status, "trunks") {
        let channels = format!("{}/{}", word(trunk, "busy"), word(trunk, "channels"));
        let (name, state) = (word(trunk, "name"), word(trunk, "state"));
        say(format!("{name:<20} {state:<9} {channels:>9} {}", word(trunk, "last_error")));
    }
    say(format!(
        "\n{:<20} {:>7} {:>8} {:>6} {:>8} {:>7}",
        "QUEUE", "WAITING", "LONGEST", "READY", "TALKING", "PAUSED"
    ));
    for queue in list(status, "queues") {
        let operators = queue.get("operators").unwrap_or(&Value::Null);
        let longest_s = queue.get("longest_wait_ms").and_then(Value::as_i64).unwrap_or(0) / 1_000;
        let longest = format!("{}:{:02}", longest_s / 60, longest_s % 60);
        let (name, waiting) = (word(queue, "name"), word(queue, "waiting"));
        let (ready, talking) = (word(operators, "available"), word(operators, "talking"));
        let paused = word(operators, "paused");
        say(format!("{name:<20} {waiting:>7} {longest:>8} {ready:>6} {talking:>8} {paused:>7}"));
    }
    text
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A field as people read it; a gateway's words must not steer the terminal.
fn word(value: &Value, key: &str) -> String {
    let text = match value.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_read_at_a_glance_and_no_word_steers_the_terminal() {
        let shown = table(&json!({
            "node": {"name": "t1", "version": "0.1.0", "role": "single", "epoch": 3, "uptime_ms": 3_723_000},
            "calls": [{}, {}],
            "trunks": [{"name": "gsm-1", "state": "down", "busy": 0, "channels": 8, "last_error": "no\u{1b}[2J answer"}],
            "queues": [{"name": "orders", "waiting": 2, "longest_wait_ms": 65_000, "operators": {"available": 1}}],
            "outbox": {"depth": 4, "dead": 0},
            "ready": false,
            "failing": [{"part": "store", "why": "disk full"}],
        }));
        for part in [
            "t1 0.1.0 (single), epoch 3, up 1:02:03, 2 calls",
            "0/8",
            "1:05",
            "FAILS  store: disk full",
            "4 waiting",
        ] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
        assert!(!shown.contains('\u{1b}'));
    }
}
