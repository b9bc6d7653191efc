//! What happened: the one record from which CDR, wallboard, events, order outbox, audit and metrics
//! are folded. There is no second path.
//!
//! Invariant: a fact is past. It is never changed, its number grows by one within an epoch, and it
//! says everything a fold needs, so that no fold looks anywhere else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::terms::{CallId, CardId, Epoch, LegId, Number, OperatorName, QueueName, TrunkName, WallMs};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// Grows by one with each fact of an epoch.
    pub seq: u64,
    /// The epoch of the node that says so.
    pub epoch: Epoch,
    /// When, in wall clock milliseconds.
    pub at: WallMs,
    /// The call it belongs to, if any.
    pub call: Option<CallId>,
    /// What.
    pub what: What,
}

/// Which way a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From a trunk to us.
    In,
    /// From an operator to a number.
    Out,
    /// Between two outside numbers.
    Bridge,
}

/// Who is at the other end of a leg.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// A gateway, provider or peer.
    Trunk(TrunkName),
    /// An operator's or supervisor's phone.
    Operator(OperatorName),
}

/// Where an operator stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorState {
    /// Can be given a call.
    Available,
    /// A call is ringing on his desk, or he is dialling.
    Ringing,
    /// In a call.
    Talking,
    /// Finishing the card after a call.
    WrapUp,
    /// Logged in, not taking calls.
    Paused,
    /// Not logged in.
    Offline,
}

/// Whether the operator's phone can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phone {
    /// Registered and reachable.
    Registered,
    /// Was registered; its socket is gone and it may come back by itself.
    Lost,
    /// Not registered.
    None,
}

/// How a call ended, for the CDR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallResult {
    /// The two parties talked.
    Answered,
    /// The caller left before anybody answered.
    Abandoned,
    /// The far end rang out.
    NoAnswer,
    /// The far end was busy.
    Busy,
    /// No way led to the far end.
    Failed,
    /// The dialplan ended without anybody answering.
    Overflow,
    /// Handed to another number or queue.
    Transferred,
    /// Refused by a guard or a dialplan step.
    Rejected,
    /// A node died with it.
    Lost,
}

/// Why a leg or call ended, in numbers and in words.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cause {
    /// Q.850 cause, 0 where unknown.
    pub q850: u16,
    /// SIP status, 0 where none was involved.
    pub sip: u16,
    /// Plain words for an operator.
    pub words: String,
}

/// A tone or announcement that a party hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToneKind {
    /// The far end rings.
    Ringback,
    /// The far end is busy.
    Busy,
    /// The network has no way.
    Congestion,
    /// The number cannot be reached.
    Unavailable,
    /// Somebody or something speaks before the answer.
    Announcement,
}

/// Which way sound flows, seen from Tandem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// From the party to us.
    In,
    /// From us to the party.
    Out,
}

/// How a leg sounds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Quality {
    /// Share of packets lost on the way to us, 0…1.
    pub loss_in: f32,
    /// Share lost on the way to the party, as its reports say, 0…1.
    pub loss_out: f32,
    /// Interarrival jitter, milliseconds (RFC 3550 section 6.4.1).
    pub jitter_ms: f32,
    /// Round trip, milliseconds, from the party's reports; 0 before the first.
    pub rtt_ms: f32,
    /// Estimated listening quality, 1…4.5 (ITU-T G.107).
    pub mos: f32,
}

/// Where a leg stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LegState {
    /// Asked for, nothing heard yet.
    Trying,
    /// The far phone rings.
    Ringing,
    /// Sound before the answer.
    Early,
    /// Answered.
    Up,
    /// On hold.
    Held,
}

/// A row of the card: field name to text. Names: `pickup destination when class comment`.
pub type Fields = BTreeMap<String, String>;

/// What happened, each with all that a fold needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum What {
    /// This node began to serve.
    NodeStarted {
        /// As configured.
        name: String,
        /// Program version.
        version: String,
    },
    /// A trunk can carry calls.
    TrunkUp {
        /// Which.
        trunk: TrunkName,
        /// Address it registered from, or its fixed one.
        from: String,
    },
    /// A trunk cannot carry calls.
    TrunkDown {
        /// Which.
        trunk: TrunkName,
        /// In words.
        why: String,
    },
    /// Channels of a trunk in use changed.
    TrunkLoad {
        /// Which.
        trunk: TrunkName,
        /// Calls on it now.
        busy: u32,
    },
    /// A way through a trunk failed: no person was involved.
    TrunkFailed {
        /// Which.
        trunk: TrunkName,
        /// What it answered.
        cause: Cause,
    },
    /// Anything about an operator changed: the whole new truth.
    Operator {
        /// Who.
        operator: OperatorName,
        /// Where he stands.
        state: OperatorState,
        /// Why, for `paused` (chosen by him, or `no answer` by the system); empty otherwise.
        reason: String,
        /// His call.
        call: Option<CallId>,
        /// His phone.
        phone: Phone,
        /// Queues he serves.
        queues: Vec<QueueName>,
        /// Whether calls are answered for him with a short beep.
        auto_answer: bool,
        /// When a running wrap-up ends.
        wrap_up_until: Option<WallMs>,
    },
    /// A call began.
    Arrived {
        /// Which way.
        direction: Direction,
        /// The outside caller, or for outgoing calls the number shown.
        caller: Number,
        /// What was dialled.
        called: Number,
        /// Our line it came in on.
        line: Number,
        /// The trunk it came by.
        trunk: Option<TrunkName>,
        /// The operator who dialled.
        operator: Option<OperatorName>,
    },
    /// A leg was added to the call, or changed: the whole new truth.
    Leg {
        /// Which.
        leg: LegId,
        /// Who.
        party: Party,
        /// The number at that end, if it has one.
        number: Number,
        /// Where it stands.
        state: LegState,
        /// `PCMA` or `PCMU`, empty before it is agreed.
        codec: String,
    },
    /// A leg ended.
    LegEnded {
        /// Which.
        leg: LegId,
        /// Why.
        cause: Cause,
    },
    /// A prompt plays to the caller.
    Greeting {
        /// Its file.
        prompt: String,
    },
    /// The caller waits in a queue.
    Queued {
        /// Which.
        queue: QueueName,
        /// Smaller is served earlier.
        priority: i32,
    },
    /// The caller left the queue without being answered there.
    LeftQueue {
        /// Which.
        queue: QueueName,
        /// In words: `timeout`, `abandoned`, `empty`, `moved`.
        why: String,
    },
    /// An operator was chosen and his phone is called.
    Assigned {
        /// From which queue.
        queue: QueueName,
        /// Who.
        operator: OperatorName,
    },
    /// His phone did not lead to an answer; the caller is back at his place.
    Unassigned {
        /// From which queue.
        queue: QueueName,
        /// Who.
        operator: OperatorName,
        /// `no_answer`, `rejected`, `unreachable` or `caller_gone`.
        why: String,
    },
    /// The far end's phone rings (outgoing).
    Ringing {
        /// Over which trunk.
        trunk: TrunkName,
    },
    /// The carrier's sound is heard before the answer.
    EarlyMedia {
        /// From which trunk.
        trunk: TrunkName,
    },
    /// A tone or announcement was played or recognised.
    Tone {
        /// Which.
        tone: ToneKind,
        /// Ours (true) or the carrier's.
        local: bool,
    },
    /// The parties talk: the talk time starts here.
    Answered {
        /// The operator in the call.
        operator: Option<OperatorName>,
        /// The trunk leg's trunk.
        trunk: Option<TrunkName>,
        /// The queue it was answered for.
        queue: Option<QueueName>,
        /// From queue entry (or dialling) to now, milliseconds.
        wait_ms: u64,
    },
    /// One side put the call on hold.
    Held,
    /// And took it back.
    Resumed,
    /// An operator handed the other party over, and the new one talks with it.
    Transferred {
        /// Whose wish it was.
        by: OperatorName,
        /// The operator in the call now.
        operator: Option<OperatorName>,
        /// The new party's trunk.
        trunk: Option<TrunkName>,
    },
    /// A digit was pressed (its value is not kept: it may be a card number).
    Digit {
        /// By whom.
        leg: LegId,
    },
    /// A direction carries no sound.
    MediaSilent {
        /// Which leg.
        leg: LegId,
        /// Which way.
        flow: Flow,
        /// Probable cause in words.
        cause: String,
    },
    /// It carries sound again.
    MediaRecovered {
        /// Which leg.
        leg: LegId,
        /// Which way.
        flow: Flow,
    },
    /// How a leg sounds.
    MediaQuality {
        /// Which leg.
        leg: LegId,
        /// Measured over the last seconds.
        quality: Quality,
    },
    /// The call is over: exactly one for each `Arrived`.
    Ended {
        /// How.
        result: CallResult,
        /// Why.
        cause: Cause,
        /// Who ended it: `caller`, `operator`, `system`.
        by: String,
        /// Waiting before the answer, milliseconds.
        wait_ms: u64,
        /// Talking, milliseconds, from the far end's answer.
        talk_ms: u64,
    },
    /// A card opened on an operator's desk.
    CardOpened {
        /// Which.
        card: CardId,
        /// The caller.
        caller: Number,
        /// The line he called.
        line: Number,
        /// By which trunk.
        trunk: Option<TrunkName>,
        /// From which queue.
        queue: Option<QueueName>,
        /// On whose desk.
        operator: OperatorName,
    },
    /// The card moved to another desk (the first did not answer).
    CardMoved {
        /// Which.
        card: CardId,
        /// To whom.
        operator: OperatorName,
    },
    /// What the order core knows of the caller arrived.
    CardCustomer {
        /// Which.
        card: CardId,
        /// The core's JSON, as it came: `{name, blocked, orders: […]}`.
        customer: String,
    },
    /// The operator typed.
    CardUpdated {
        /// Which.
        card: CardId,
        /// All fields as they stand.
        fields: Fields,
    },
    /// The operator submitted: with this fact, in one transaction, the outbox holds the order.
    CardSubmitted {
        /// Which.
        card: CardId,
        /// Whose.
        operator: OperatorName,
        /// All fields.
        fields: Fields,
    },
    /// The store has the order: the card leaves the desk.
    CardAccepted {
        /// Which.
        card: CardId,
    },
    /// No order came of it.
    CardDiscarded {
        /// Which.
        card: CardId,
        /// Why: `fake`, `wrong_number`, `question`, `other`, or `abandoned` by the system.
        reason: String,
    },
}
