//! `tandem health`: whether the node on this machine works; for keepalived and for people.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::config::Config;
use crate::edge::web::control::{Request, ask};

#[derive(Deserialize)]
struct Readiness {
    ready: bool,
    failing: Vec<Failing>,
}

#[derive(Deserialize)]
struct Failing {
    part: String,
    why: String,
}

/// One line to print; an error is exit code 1.
///
/// # Errors
/// No node runs, it does not answer, or a part of it fails, by name.
pub async fn run(config: &Config) -> Result<String> {
    let folder = &config.node.data_dir;
    let Some(value) = ask(folder, &Request::Health).await? else {
        bail!("no node runs on {}: start it with `tandem run`", folder.display());
    };
    let found: Readiness =
        serde_json::from_value(value).context("the node's answer does not read: same version?")?;
    if found.ready {
        return Ok("ready\n".to_owned());
    }
    let failing: Vec<String> =
        found.failing.iter().map(|failing| format!("{}: {}", failing.part, failing.why)).collect();
    bail!("not ready: {}", failing.join("; "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn without_a_node_the_words_say_how_to_start_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.node.data_dir = folder.path().to_owned();
        assert!(run(&config).await.unwrap_err().to_string().contains("tandem run"));
    }
}
