//! What can happen to the engine.

use crate::engine::desk::{Ask, Asker};
use crate::media::command::Event as MediaEvent;
use crate::sip;
use crate::terms::{CardId, RequestId};

/// One thing that happened outside.
#[derive(Debug)]
pub enum Input {
    /// A SIP message came, or a SIP flow closed.
    Sip(sip::Input),
    /// A media worker says something.
    Media(MediaEvent),
    /// Somebody at a desk or the API asks something.
    Desk {
        /// Names the question in the answer.
        request: RequestId,
        /// Who asks.
        asker: Asker,
        /// What.
        ask: Ask,
    },
    /// The store (or its journal) holds all facts up to this number.
    Stored {
        /// The last fact's number.
        seq: u64,
    },
    /// The order core answered who a caller is.
    Customer {
        /// For which card.
        card: CardId,
        /// The core's JSON.
        customer: String,
    },
    /// Configuration or dialplans were read again.
    Reload(Box<crate::engine::Setup>),
    /// Refuse new calls from now on; say so once the last one ended.
    Drain,
    /// The node stops: providers are told that we are no longer there. Say so once they know.
    Leave,
}
