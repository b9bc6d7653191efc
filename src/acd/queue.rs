//! A queue as configured, and the tickets of the callers who wait in it.

use serde::{Deserialize, Serialize};

use crate::terms::{CallId, MonoMs, Number, OperatorName, QueueName, WallMs};

/// One `[[queue]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueConfig {
    /// Its name; unique.
    pub name: QueueName,
    /// Who is given the next call.
    pub strategy: Strategy,
    /// How long one operator's phone rings.
    pub ring_ms: u64,
    /// Time for the card after a call; 0 is none.
    pub wrap_up_ms: u64,
    /// How long a caller waits if the dialplan's step does not say; 0 is for ever.
    pub max_wait_ms: u64,
    /// Callers that may wait; 0 is the house's limit, [`crate::acd::MAX_TICKETS`].
    pub max_length: u32,
    /// Whether a caller may join while nobody who serves the queue is logged in.
    pub join_empty: bool,
    /// Whether waiting callers go on to the next step when nobody who serves the queue is logged in.
    pub leave_empty: bool,
    /// Answered within so long is good service (report only).
    pub service_level_ms: u64,
    /// A caller who left sooner does not count as lost (report only).
    pub short_abandon_ms: u64,
    /// What happens to an operator who does not answer.
    pub no_answer: NoAnswer,
    /// What callers hear while they wait: a file of `dialplans/sounds`.
    pub music: String,
    /// A queue with a greater weight is served first by those who serve several.
    pub weight: i32,
    /// A caller who left and is back within so long gets his place again; 0 is off.
    pub resume_place_ms: u64,
    /// A caller who is back within so long is given to the operator he had; 0 is off.
    pub sticky_operator_ms: u64,
}

impl QueueConfig {
    /// Every default, under `name`.
    pub fn named(name: impl Into<QueueName>) -> Self {
        Self {
            name: name.into(),
            strategy: Strategy::LongestIdle,
            ring_ms: 15_000,
            wrap_up_ms: 10_000,
            max_wait_ms: 5 * 60_000,
            max_length: 0,
            join_empty: true,
            leave_empty: false,
            service_level_ms: 20_000,
            short_abandon_ms: 5_000,
            no_answer: NoAnswer::PauseAfter(2),
            music: "hold.wav".into(),
            weight: 0,
            resume_place_ms: 60_000,
            sticky_operator_ms: 30 * 60_000,
        }
    }
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self::named("orders")
    }
}

/// Who is given the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Whoever has been without a call for longest.
    LongestIdle,
}

/// What happens to an operator who does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// Nothing.
    Never,
    /// He is paused with the reason `no answer` after so many calls in a row.
    PauseAfter(u32),
}

/// A caller who waits, or whose call rings at an operator's desk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The call.
    pub call: CallId,
    /// Where it waits.
    pub queue: QueueName,
    /// Who calls; empty if withheld.
    pub caller: Number,
    /// Smaller is served earlier.
    pub priority: i32,
    /// Since when he waits, for his place: also from before, if he is back within `resume_place`.
    /// On the monotonic clock; negative if that was before this process's clock began.
    pub joined_ms: i64,
    /// The same on the wall clock, for people.
    pub since: WallMs,
    /// Grows with each ticket: decides between callers of one millisecond.
    pub number: u64,
    /// When he goes on to the next step.
    pub(crate) deadline_ms: Option<MonoMs>,
    /// At whose desk it rings.
    pub offered: Option<OperatorName>,
    /// Who did not answer it: others are asked first.
    pub(crate) tried: Vec<OperatorName>,
}

/// A place kept for a caller who left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptPlace {
    /// Since when he had waited.
    pub(crate) joined_ms: i64,
    /// The same on the wall clock.
    pub(crate) since: WallMs,
    /// How long it is kept.
    pub(crate) until_ms: MonoMs,
}
