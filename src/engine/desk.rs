//! What people at desks and programs at the API ask of the engine, and what it answers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::fact::{Fields, OperatorState};
use crate::sip::guard::Ban;
use crate::terms::{CallId, CardId, OperatorName, QueueName, TrunkName};

/// The session that stands for an account's ordinary SIP phone: it lives while the account has one.
pub const SIP_PHONE_SESSION: &str = "sip-phone";

/// Who asks: an account that the edge has authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// The account's name; an operator's is also his phone's.
    pub name: OperatorName,
    /// What he may do.
    pub role: Role,
}

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Takes calls.
    Operator,
    /// Sees and steers all calls.
    Supervisor,
    /// Also accounts and settings.
    Admin,
}

/// One question to the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// A session began or was found again: its SIP password is valid from now on.
    LoggedIn {
        /// Identifies the session among the operator's sessions.
        session: String,
        /// What his phone will prove it knows.
        ha1: crate::sip::digest::Ha1,
        /// Queues he serves.
        queues: Vec<QueueName>,
    },
    /// A session ended: its SIP password is void, its phone is unregistered.
    LoggedOut {
        /// The session.
        session: String,
    },
    /// `PUT /me/state`: only `available`, `paused` and `offline` can be asked for.
    SetState {
        /// Whose: his own, or for supervisors anybody's.
        operator: OperatorName,
        /// What.
        state: Option<OperatorState>,
        /// Why, for `paused`.
        reason: String,
        /// Whether calls are answered for him.
        auto_answer: Option<bool>,
    },
    /// `POST /calls {to, trunk?}`: his phone first, then the number.
    Dial {
        /// As he typed it.
        to: String,
        /// Over this trunk only.
        trunk: Option<TrunkName>,
    },
    /// `POST /calls/{id}/hangup`.
    HangUp(CallId),
    /// `POST /calls/{id}/hold`.
    Hold(CallId),
    /// `POST /calls/{id}/resume`.
    Resume(CallId),
    /// `POST /calls/{id}/transfer`.
    Transfer {
        /// Which call.
        call: CallId,
        /// A number, or a colleague's name.
        to: String,
    },
    /// `POST /calls/{id}/dtmf`.
    Digits {
        /// In which call.
        call: CallId,
        /// `0-9 * # A-D`, at most 32.
        digits: String,
    },
    /// `PUT /cards/{id}`: the draft.
    SaveCard {
        /// Which.
        card: CardId,
        /// All fields.
        fields: Fields,
    },
    /// `POST /cards/{id}/submit`: answered once the store holds the order.
    SubmitCard {
        /// Which.
        card: CardId,
        /// All fields; `None` takes the draft.
        fields: Option<Fields>,
    },
    /// `GET /bans`: the locks and bans of SIP.
    Bans,
    /// `DELETE /bans/{source}`.
    LiftBans(IpAddr),
    /// `POST /cards/{id}/discard`.
    DiscardCard {
        /// Which.
        card: CardId,
        /// Why.
        reason: String,
    },
}

/// What the engine answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Done.
    Done,
    /// The call that it began.
    Call(CallId),
    /// Locks and bans of now.
    Bans(Vec<Ban>),
    /// The card is accepted: the store holds the order.
    Accepted(CardId),
    /// Refused.
    Refused(Refusal),
}

/// A refusal that says what to do next (RFC 9457 fields).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// For people.
    pub words: String,
}

impl Refusal {
    /// A refusal with `status` and `words`.
    pub fn new(status: u16, words: impl Into<String>) -> Self {
        Self { status, words: words.into() }
    }
}
