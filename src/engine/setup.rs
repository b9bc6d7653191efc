//! Everything the engine is told at start and on reload.

use crate::acd::QueueConfig;
use crate::call;
use crate::orders::Kept;
use crate::sip::{self, TrunkAccount};
use crate::terms::Epoch;

/// What the configuration, the dialplans and the store say, in the engine's terms.
#[derive(Debug, Clone)]
pub struct Setup {
    /// This node.
    pub node_name: String,
    /// This program.
    pub version: String,
    /// Larger than any epoch that was ever persisted.
    pub epoch: Epoch,
    /// The number of the last fact in the store.
    pub last_seq: u64,
    /// SIP.
    pub sip: sip::Config,
    /// Trunks as SIP must know them.
    pub accounts: Vec<TrunkAccount>,
    /// Trunks, dialplan, media and limits as calls must know them.
    pub calls: call::Setup,
    /// Queues as the floor must know them.
    pub queues: Vec<QueueConfig>,
    /// Cards that were on desks when a predecessor ended.
    pub cards: Vec<Kept>,
}
