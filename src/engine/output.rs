//! What the engine wants done.

use bytes::Bytes;

use crate::engine::desk::Answer;
use crate::fact::{Cause, Fact, Party};
use crate::media::command::Command as MediaCommand;
use crate::record::Record;
use crate::sip;
use crate::terms::{CardId, Number, RequestId};

/// One thing to be done by the edge, in the order given.
#[derive(Debug)]
pub enum Output {
    /// Send a SIP message.
    Sip {
        /// Which way.
        path: sip::Path,
        /// The message.
        bytes: Bytes,
    },
    /// Tell a media worker.
    Media {
        /// Which worker.
        worker: usize,
        /// What.
        command: MediaCommand,
    },
    /// Answer a question.
    Reply {
        /// Which.
        request: RequestId,
        /// The answer.
        answer: Answer,
    },
    /// It happened: to be stored, shown and counted.
    Fact(Fact),
    /// What this step changed, as one atomic batch: upserts and tombstones.
    Records(Vec<Record>),
    /// Ask the order core who is calling; the answer comes as `Input::Customer`.
    Lookup {
        /// For which card.
        card: CardId,
        /// The caller.
        number: Number,
    },
    /// A SIP message was dropped or refused, for the counters.
    Dropped {
        /// Why, one of a small fixed set.
        reason: &'static str,
    },
    /// Failed log-ins by SIP led to a lock or ban, for the log and the counters.
    Banned(sip::guard::Ban),
    /// A call was refused before it began: for the log.
    Refused {
        /// Who called.
        from: Party,
        /// What was dialled.
        called: Number,
        /// Why.
        cause: Cause,
    },
    /// The last call of a draining node ended.
    Drained,
    /// Providers know that this node is no longer there, or did not answer.
    Left,
}
