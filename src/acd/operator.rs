//! An operator: what he asked for, what he is doing, and what follows from both.
//!
//! ```text
//!              assigned            answered           call ended
//!   Free ───────────────► Offered ───────────► Talking ───────────► Free (+ wrap-up)
//!    │  ▲ no answer, rejected, │                  ▲
//!    │  │ unreachable, caller  │                  │ answered
//!    │  └──── gone ────────────┘                  │
//!    └──────── he dials ──────► Dialling ─────────┘
//! ```
//!
//! Invariant: he has at most one call; what he asks for during it is remembered and shows after it.

use serde::{Deserialize, Serialize};

use crate::fact::{OperatorState, Phone, What};
use crate::terms::{CallId, MonoMs, OperatorName, QueueName, WallMs};

/// What an operator may ask for himself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Give me calls.
    Available,
    /// Logged in, no calls.
    Paused,
    /// Not on shift.
    Offline,
}

/// All that may be known about an operator: what a `fact::What::Operator` says, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Who.
    pub operator: OperatorName,
    /// Where he stands.
    pub state: OperatorState,
    /// Why, for `paused`; empty otherwise.
    pub reason: String,
    /// His call.
    pub call: Option<CallId>,
    /// His phone.
    pub phone: Phone,
    /// Queues he serves.
    pub queues: Vec<QueueName>,
    /// Whether calls are answered for him.
    pub auto_answer: bool,
    /// When a running wrap-up ends.
    pub wrap_up_until: Option<WallMs>,
    /// Since when he stands there; not a part of the fact.
    pub since: WallMs,
}

impl Standing {
    /// The fact that says so.
    pub fn fact(&self) -> What {
        What::Operator {
            operator: self.operator.clone(),
            state: self.state,
            reason: self.reason.clone(),
            call: self.call,
            phone: self.phone,
            queues: self.queues.clone(),
            auto_answer: self.auto_answer,
            wrap_up_until: self.wrap_up_until,
        }
    }
}

/// A moment of the monotonic clock that may lie before its beginning: a restored past.
pub(crate) fn signed(mono_ms: MonoMs) -> i64 {
    i64::try_from(mono_ms).unwrap_or(i64::MAX)
}

/// What he is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Nothing.
    Free,
    /// A caller's call rings at his desk.
    Offered {
        /// Which.
        call: CallId,
        /// When it has rung long enough.
        until_ms: MonoMs,
    },
    /// He called a number himself and nobody has answered yet.
    Dialling {
        /// Which call.
        call: CallId,
    },
    /// In a call.
    Talking {
        /// Which.
        call: CallId,
        /// The queue that gave it to him.
        queue: Option<QueueName>,
        /// Since when.
        since_ms: i64,
    },
}

/// A running wrap-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WrapUp {
    /// Its end, for the timer.
    pub(crate) until_ms: MonoMs,
    /// Its end, for people.
    pub(crate) until: WallMs,
}

/// One operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Operator {
    pub(crate) name: OperatorName,
    pub(crate) wanted: Wanted,
    /// Why he is paused.
    pub(crate) reason: String,
    pub(crate) work: Work,
    pub(crate) wrap_up: Option<WrapUp>,
    pub(crate) phone: Phone,
    pub(crate) queues: Vec<QueueName>,
    pub(crate) auto_answer: bool,
    /// Since when he has had no call: the end of the last one, or when he became available.
    pub(crate) idle_since_ms: i64,
    /// Calls in a row that rang at his desk for nothing.
    pub(crate) no_answers: u32,
    /// No call before: his phone refused one or could not be reached.
    pub(crate) rest_until_ms: Option<MonoMs>,
    /// Since when he stands where he stands.
    pub(crate) since: WallMs,
}

impl Operator {
    pub(crate) fn new(name: OperatorName, now: crate::terms::Now) -> Self {
        Self {
            name,
            wanted: Wanted::Offline,
            reason: String::new(),
            work: Work::Free,
            wrap_up: None,
            phone: Phone::None,
            queues: Vec::new(),
            auto_answer: true,
            idle_since_ms: signed(now.mono_ms),
            no_answers: 0,
            rest_until_ms: None,
            since: now.wall_ms,
        }
    }

    /// His call, if he has one.
    pub(crate) fn call(&self) -> Option<CallId> {
        match &self.work {
            Work::Free => None,
            Work::Offered { call, .. } | Work::Dialling { call } | Work::Talking { call, .. } => Some(*call),
        }
    }

    /// What others see: work first, then the wrap-up, then what he asked for.
    pub(crate) fn state(&self) -> OperatorState {
        match (&self.work, self.wrap_up, self.wanted) {
            (Work::Offered { .. } | Work::Dialling { .. }, _, _) => OperatorState::Ringing,
            (Work::Talking { .. }, _, _) => OperatorState::Talking,
            (Work::Free, Some(_), _) => OperatorState::WrapUp,
            (Work::Free, None, Wanted::Available) => OperatorState::Available,
            (Work::Free, None, Wanted::Paused) => OperatorState::Paused,
            (Work::Free, None, Wanted::Offline) => OperatorState::Offline,
        }
    }

    /// Whether a caller may be given to him now.
    pub(crate) fn is_eligible(&self) -> bool {
        self.state() == OperatorState::Available
            && self.phone == Phone::Registered
            && self.rest_until_ms.is_none()
    }

    pub(crate) fn standing(&self) -> Standing {
        let state = self.state();
        Standing {
            operator: self.name.clone(),
            state,
            reason: if state == OperatorState::Paused { self.reason.clone() } else { String::new() },
            call: self.call(),
            phone: self.phone,
            queues: self.queues.clone(),
            auto_answer: self.auto_answer,
            wrap_up_until: self
                .wrap_up
                .filter(|_| state == OperatorState::WrapUp)
                .map(|wrap_up| wrap_up.until),
            since: self.since,
        }
    }
}
