//! The words spoken with the cards: what can happen to them, what is answered, what they want done.
//!
//! Invariant: every question has a request number and gets exactly one answer under it.

use crate::fact::{Fields, What};
use crate::record::Record;
use crate::terms::{CallId, CardId, Number, OperatorName, QueueName, RequestId, TrunkName};

/// A card to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Its id, from the engine's entropy.
    pub card: CardId,
    /// The call it belongs to.
    pub call: CallId,
    /// The caller.
    pub caller: Number,
    /// The line he called.
    pub line: Number,
    /// By which trunk.
    pub trunk: Option<TrunkName>,
    /// From which queue.
    pub queue: Option<QueueName>,
    /// On whose desk.
    pub operator: OperatorName,
}

/// Where a card stood when the program stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptState {
    /// Still on the desk.
    Draft,
    /// Its order is durable: asking again is answered the same.
    Accepted,
    /// No order came of it.
    Discarded {
        /// Why.
        reason: String,
    },
}

/// A card as a store kept it over a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its id.
    pub card: CardId,
    /// The call it belongs to.
    pub call: CallId,
    /// The caller.
    pub caller: Number,
    /// The line he called.
    pub line: Number,
    /// By which trunk.
    pub trunk: Option<TrunkName>,
    /// From which queue.
    pub queue: Option<QueueName>,
    /// On whose desk.
    pub operator: OperatorName,
    /// What was typed.
    pub fields: Fields,
    /// Where it stood.
    pub state: KeptState,
}

/// A card to submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submit {
    /// Who waits for the answer.
    pub request: RequestId,
    /// Which card.
    pub card: CardId,
    /// Who asks.
    pub operator: OperatorName,
    /// What is to be ordered; `None` takes what was typed so far.
    pub fields: Option<Fields>,
}

/// What can happen to cards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A call rings on a desk. A call that has a draft already: it moves there.
    Open(Open),
    /// The call went to another desk.
    Move {
        /// Which card.
        card: CardId,
        /// To whom.
        operator: OperatorName,
    },
    /// The order core told about the caller.
    Customer {
        /// Which card.
        card: CardId,
        /// Its JSON.
        customer: String,
    },
    /// The operator typed.
    Update {
        /// Who waits for the answer.
        request: RequestId,
        /// Which card.
        card: CardId,
        /// Who asks.
        operator: OperatorName,
        /// All fields as they stand.
        fields: Fields,
    },
    /// The operator submits.
    Submit(Submit),
    /// The operator says that no order comes of it.
    Discard {
        /// Who waits for the answer.
        request: RequestId,
        /// Which card.
        card: CardId,
        /// Who asks.
        operator: OperatorName,
        /// One of [`REASONS`](super::card::REASONS).
        reason: String,
    },
    /// The `CardSubmitted` fact of this card got its number: [`Input::Stored`] will name it.
    Numbered {
        /// Which card.
        card: CardId,
        /// The fact's number.
        seq: u64,
    },
    /// Every fact up to this number is durable.
    Stored {
        /// The newest durable fact.
        seq: u64,
    },
    /// The call is over.
    CallEnded {
        /// Which.
        call: CallId,
        /// Nobody answered the caller.
        abandoned: bool,
    },
}

/// Why a question was refused, ready for `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub words: String,
}

/// What the asker is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Ok,
    /// On its way into the store; the `card.accepted` event follows.
    Saving,
    /// Durable.
    Accepted,
    /// Not done.
    Refused(Refusal),
}

/// What cards want done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// To be recorded. For `CardSubmitted` say [`Input::Numbered`] at once.
    Fact {
        /// The call it belongs to.
        call: CallId,
        /// What.
        what: What,
    },
    /// To whom asked.
    Answer {
        /// The question.
        request: RequestId,
        /// Its answer.
        answer: Answer,
    },
    /// For the standby.
    Record(Record),
}
