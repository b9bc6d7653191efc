//! `tandem run`: the server, until it is told to stop.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::command::check::DIALPLANS;
use crate::command::node::{Node, Start, lines};
use crate::config::{LogFormat, Reading};
use crate::edge::log::{self, Format};

/// Runs until `SIGTERM` (drain, then stop), `SIGINT` (stop); `SIGHUP` reads the plans again.
///
/// # Errors
/// In words, when the node cannot be started.
pub async fn run(file: Option<PathBuf>) -> Result<()> {
    let Reading { config, warnings } =
        Reading::load(file.as_deref()).map_err(|errors| anyhow!(lines(&errors)))?;
    let format = match config.log.format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    log::start(format, &config.log.level)?;
    warnings.iter().for_each(|warning| warn!("{warning}"));
    let mut node = Node::start(Start { config, file, dialplans: DIALPLANS.into() }).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = hang_up.recv() => node.reload().await,
            _ = terminate.recv() => {
                info!("SIGTERM: no new calls; live calls may end");
                node.drain_and_stop().await;
                info!("stopped");
                return Ok(());
            }
            _ = interrupt.recv() => {
                info!("SIGINT: stopping now");
                node.stop().await;
                info!("stopped");
                return Ok(());
            }
        }
    }
}
