//! What the floor is told and what it says.

use crate::acd::operator::{Standing, Wanted};
use crate::acd::queue::QueueConfig;
use crate::fact::Phone;
use crate::terms::{CallId, Number, OperatorName, QueueName, WallMs};

/// Something that the floor is told.
#[derive(Debug, Clone, PartialEq)]
pub enum FloorInput {
    /// The queues an operator serves; a new operator is `offline` and without a phone.
    Serves {
        /// Who.
        operator: OperatorName,
        /// Which; queues that are not configured wait for a reload.
        queues: Vec<QueueName>,
    },
    /// He (or a supervisor) asks for a state; during a call it is remembered. `Available` in the wrap-up ends it.
    Ask {
        /// Who.
        operator: OperatorName,
        /// What.
        wanted: Wanted,
        /// Why, for `Paused`.
        reason: String,
    },
    /// Whether calls are answered for him.
    AutoAnswer {
        /// Who.
        operator: OperatorName,
        /// Whether.
        on: bool,
    },
    /// His phone registered, was lost or is gone.
    Phone {
        /// Whose.
        operator: OperatorName,
        /// Where it stands.
        phone: Phone,
    },
    /// A caller shall wait. Answered by nothing, or by [`FloorEvent::NotQueued`] at once.
    Enqueue {
        /// The call.
        call: CallId,
        /// Where.
        queue: QueueName,
        /// Who calls, to find his kept place.
        caller: Number,
        /// Smaller is served earlier.
        priority: i32,
        /// How long at most; `None` is the queue's `max_wait`, 0 is for ever.
        wait_ms: Option<u64>,
        /// Since when he waits, if he comes from another queue.
        since: Option<Since>,
    },
    /// The caller's call is not to be queued any more.
    Leave {
        /// Which.
        call: CallId,
        /// Whether the caller went (his place is kept for a while) or the call was moved.
        abandoned: bool,
    },
    /// The operator answered: the caller offered to him, or the number he dialled.
    Answered {
        /// Which call.
        call: CallId,
        /// Who.
        operator: OperatorName,
    },
    /// The operator's phone did not lead to an answer.
    Refused {
        /// Which call.
        call: CallId,
        /// Who.
        operator: OperatorName,
        /// Why.
        why: NotAnswered,
    },
    /// The operator dials: he has a call now. Ask [`crate::acd::Floor::can_dial`] before.
    OwnCall {
        /// Who.
        operator: OperatorName,
        /// Which call.
        call: CallId,
    },
    /// The operator's part in a call that he dialled or talked in is over.
    CallEnded {
        /// Which call.
        call: CallId,
        /// Who.
        operator: OperatorName,
    },
    /// The configuration was read again.
    SetQueues(Vec<QueueConfig>),
}

/// Since when a caller waits, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// Monotonic, for his place; as [`crate::acd::Ticket::joined_ms`].
    pub joined_ms: i64,
    /// Wall clock, for people.
    pub since: WallMs,
}

/// Something that the floor says.
#[derive(Debug, Clone, PartialEq)]
pub enum FloorEvent {
    /// Call this operator's phone for this caller.
    Assigned {
        /// Which call.
        call: CallId,
        /// From which queue.
        queue: QueueName,
        /// Whom.
        operator: OperatorName,
    },
    /// Stop calling this operator's phone. The caller is back at his place, unless `why` is `CallerGone`.
    Unassigned {
        /// Which call.
        call: CallId,
        /// From which queue.
        queue: QueueName,
        /// Whom.
        operator: OperatorName,
        /// Why.
        why: NotAnswered,
    },
    /// The caller does not wait any more: take the next step of the plan.
    Left {
        /// Which call.
        call: CallId,
        /// Which queue.
        queue: QueueName,
        /// Why.
        why: LeftWhy,
    },
    /// The caller cannot wait here: take the next step of the plan.
    NotQueued {
        /// Which call.
        call: CallId,
        /// Which queue.
        queue: QueueName,
        /// Why.
        why: NotQueuedWhy,
    },
    /// Anything about an operator changed: the whole new truth.
    Operator(Standing),
}

/// Why an operator's phone did not lead to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAnswered {
    /// It rang for the queue's `ring`.
    NoAnswer,
    /// He, or his phone, refused.
    Rejected,
    /// The phone could not be reached, or was lost while it rang.
    Unreachable,
    /// The caller left first.
    CallerGone,
}

impl NotAnswered {
    /// As facts and events say it.
    pub fn words(self) -> &'static str {
        match self {
            Self::NoAnswer => "no_answer",
            Self::Rejected => "rejected",
            Self::Unreachable => "unreachable",
            Self::CallerGone => "caller_gone",
        }
    }
}

/// Why a caller left a queue without an answer and without hanging up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftWhy {
    /// He waited long enough.
    Timeout,
    /// Nobody who serves the queue is logged in (`leave_empty`).
    Empty,
    /// The queue is not configured any more.
    Closed,
}

impl LeftWhy {
    /// As facts and events say it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Empty => "empty",
            Self::Closed => "closed",
        }
    }
}

/// Why a caller cannot wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotQueuedWhy {
    /// `max_length` callers wait already, or the house's limit is reached.
    Full,
    /// Nobody who serves the queue is logged in (`join_empty = false`).
    Empty,
    /// There is no such queue.
    Unknown,
}

impl NotQueuedWhy {
    /// As facts and events say it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Empty => "empty",
            Self::Unknown => "unknown",
        }
    }
}
