//! The live objects as the API and the event stream show them.
//!
//! Invariant: instants are RFC 3339 UTC with milliseconds, durations end in `_ms`, numbers are whole:
//! only people with the right to see them are sent these shapes. Fields are added, never renamed.

use serde::{Serialize, Serializer};

use crate::fact::{CallResult, Cause, Direction, Fields, OperatorState, Phone, Quality};
use crate::terms::{CallId, CardId, Epoch, LegId, OperatorName, QueueName, TrunkName, WallMs};

/// An instant; in JSON `2026-03-01T09:30:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct At(pub WallMs);

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Outside years -9999…9999 there is nothing that a reader could do with the instant.
        let at = jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        write!(f, "{}", at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))
    }
}

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// Just began.
    Arrived,
    /// A prompt plays.
    Greeting,
    /// The caller waits in a queue.
    Queued,
    /// A phone rings: an operator's, or the far end's.
    Ringing,
    /// The parties talk.
    Talking,
    /// One side has the other on hold.
    Held,
    /// Over.
    Ended,
}

/// What a leg's party is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PartyShape {
    /// A gateway, provider or peer.
    Trunk,
    /// An operator's phone.
    Operator,
}

/// Whether an operator is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Microphone {
    /// Sound arrives.
    Ok,
    /// In a call, but no sound arrives.
    Silent,
    /// In no call.
    None,
}

/// Where an order card stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CardState {
    /// The operator types.
    Draft,
    /// Submitted, not yet durable.
    Saving,
    /// Durable: it left the desk.
    Accepted,
    /// No order came of it.
    Discarded,
}

/// Whether a trunk carries calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrunkState {
    /// It does.
    Up,
    /// It does not.
    Down,
    /// Every channel is taken.
    Full,
    /// Switched off in the configuration.
    Disabled,
}

/// Why a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CauseShape {
    /// Q.850 cause, 0 where unknown.
    pub q850: u16,
    /// SIP status, 0 where none was involved.
    pub sip: u16,
    /// Plain words.
    pub words: String,
}

impl From<&Cause> for CauseShape {
    fn from(cause: &Cause) -> Self {
        Self { q850: cause.q850, sip: cause.sip, words: cause.words.clone() }
    }
}

/// One leg of a call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LegShape {
    /// Which.
    pub id: LegId,
    /// Trunk or operator.
    pub party: PartyShape,
    /// The trunk's or operator's name.
    pub name: String,
    /// The number at that end, if it has one.
    pub number: String,
    /// Where it stands: `trying ringing early up held`.
    pub state: crate::fact::LegState,
    /// `PCMA` or `PCMU`, empty before it is agreed.
    pub codec: String,
    /// How it sounds, once measured.
    pub quality: Option<Quality>,
    /// How long nothing has been heard from the party, milliseconds; absent while it is heard.
    pub silent_in_ms: Option<i64>,
    /// How long nothing has been sent to the party, milliseconds.
    pub silent_out_ms: Option<i64>,
}

/// A live or lately ended call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallShape {
    /// Which.
    pub id: CallId,
    /// Which way.
    pub direction: Direction,
    /// Where it stands.
    pub state: CallState,
    /// The caller's number, empty when withheld.
    pub caller: String,
    /// What was dialled.
    pub called: String,
    /// Our line it came in on.
    pub line: String,
    /// The trunk that carries it.
    pub trunk: Option<TrunkName>,
    /// The queue it waits in or was answered for.
    pub queue: Option<QueueName>,
    /// Who is called or talks.
    pub operator: Option<OperatorName>,
    /// When it began.
    pub arrived_at: At,
    /// When the parties began to talk.
    pub answered_at: Option<At>,
    /// When it ended.
    pub ended_at: Option<At>,
    /// Waiting so far, or before the answer.
    pub wait_ms: i64,
    /// Talking so far, or in all.
    pub talk_ms: i64,
    /// How it ended.
    pub result: Option<CallResult>,
    /// Why it ended.
    pub cause: Option<CauseShape>,
    /// The tone or announcement that is heard.
    pub tone: Option<crate::fact::ToneKind>,
    /// Its card.
    pub card: Option<CardId>,
    /// Who takes part.
    pub legs: Vec<LegShape>,
}

/// An operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperatorShape {
    /// Account name.
    pub name: OperatorName,
    /// Where he stands.
    pub state: OperatorState,
    /// Why, for `paused`.
    pub reason: String,
    /// Since when he stands there.
    pub since: At,
    /// Queues he serves.
    pub queues: Vec<QueueName>,
    /// As configured for the account.
    pub skills: Vec<String>,
    /// His call.
    pub call: Option<CallId>,
    /// Whether his phone can be called.
    pub phone: Phone,
    /// Whether he is heard.
    pub microphone: Microphone,
    /// Whether calls are answered for him.
    pub auto_answer: bool,
    /// When a running wrap-up ends.
    pub wrap_up_until: Option<At>,
    /// Calls answered today.
    pub calls_today: u64,
    /// Talk time today.
    pub talk_ms_today: u64,
}

/// A caller in a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueCaller {
    /// His call.
    pub call: CallId,
    /// His number, empty when withheld.
    pub caller: String,
    /// 1 is next.
    pub place: usize,
    /// Since when he waits.
    pub since: At,
    /// Smaller is served earlier.
    pub priority: i32,
}

/// Operators of a queue by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct OperatorCounts {
    /// Can be given a call.
    pub available: u32,
    /// A phone rings.
    pub ringing: u32,
    /// In a call.
    pub talking: u32,
    /// Finishing a card.
    pub wrap_up: u32,
    /// Logged in, not taking calls.
    pub paused: u32,
    /// Not logged in.
    pub offline: u32,
}

/// A queue's numbers since local midnight.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct QueueToday {
    /// Calls that entered.
    pub offered: u64,
    /// Calls answered by an operator.
    pub answered: u64,
    /// Callers who left before the answer.
    pub abandoned: u64,
    /// Those of them who left within `short_abandon`.
    pub short_abandoned: u64,
    /// Share answered within `service_level`, of `answered + abandoned - short_abandoned`;
    /// absent before the first.
    pub service_level: Option<f64>,
    /// Mean wait of the answered.
    pub asa_ms: u64,
    /// Mean talk and wrap-up of the answered and ended.
    pub aht_ms: u64,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QueueShape {
    /// As configured.
    pub name: QueueName,
    /// Callers who wait.
    pub waiting: usize,
    /// The longest wait among them.
    pub longest_wait_ms: i64,
    /// Who they are, next first.
    pub callers: Vec<QueueCaller>,
    /// Who serves it.
    pub operators: OperatorCounts,
    /// Since local midnight.
    pub today: QueueToday,
}

/// A trunk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrunkShape {
    /// As configured.
    pub name: TrunkName,
    /// `gateway`, `provider` or `peer`.
    pub kind: String,
    /// Whether it carries calls.
    pub state: TrunkState,
    /// Where it registered from, or its fixed address.
    pub registered_from: String,
    /// Calls it can carry.
    pub channels: u32,
    /// Calls it carries.
    pub busy: u32,
    /// Why it was last down or failed, in words.
    pub last_error: String,
    /// Share of today's outgoing calls over it that were answered; absent before the first.
    pub asr: Option<f64>,
    /// Today's outgoing calls it reported as answered although nothing was heard from the answer on.
    pub false_answers: u64,
}

/// An order card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CardShape {
    /// Which; also the order's idempotency key.
    pub id: CardId,
    /// The call it belongs to.
    pub call: Option<CallId>,
    /// The caller's number.
    pub caller: String,
    /// The line he called.
    pub line: String,
    /// From which queue.
    pub queue: Option<QueueName>,
    /// On whose desk.
    pub operator: OperatorName,
    /// Where it stands.
    pub state: CardState,
    /// What was typed.
    pub fields: Fields,
    /// The order core's id of the order, once told.
    pub order: Option<String>,
    /// When it opened.
    pub created_at: At,
    /// What the order core knows of the caller, as it came; absent until it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer: Option<serde_json::Value>,
    /// Why it was discarded; empty otherwise.
    pub reason: String,
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeShape {
    /// As configured.
    pub name: String,
    /// `single`, `primary` or `standby`.
    pub role: String,
    /// Grows with each start and take-over.
    pub epoch: Epoch,
    /// Whether a standby holds every call.
    pub protected: bool,
    /// In this role since.
    pub since: At,
    /// Why it is in this role, in words.
    pub why: String,
    /// Program version.
    pub version: String,
    /// Live calls.
    pub calls: usize,
    /// Since the node began to serve.
    pub uptime_ms: i64,
}
