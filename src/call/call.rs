//! One call: the legs that talk, the plan that is walked, and where it stands.
//!
//! ```text
//!            ┌────────── Greeting ◀───────────┐
//!   Arrived ─┤                                │ next step of the plan
//!            ├─▶ Waiting ⇄ Offering ──────────┤
//!            │       └── answered ──▶ Talking ─┼─▶ Farewell ─▶ over
//!            └─▶ Calling(own phone) ─▶ Dialling┘
//! ```
//! Invariant: a call has one first leg for its whole life; when that ends, the call ends. It yields
//! exactly one `Ended` fact for its `Arrived`.

use serde::{Deserialize, Serialize};

use crate::call::hunt::Hunt;
use crate::call::leg::Leg;
use crate::call::transfer::Transfer;
use crate::dialplan::Step;
use crate::fact::{CallResult, Cause, Direction};
use crate::record::moved;
use crate::terms::{CallId, LegId, MonoMs, Number, OperatorName, QueueName, TrunkName, WallMs};

/// Where a call stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Stage {
    /// The operator's own phone is called first.
    Calling,
    /// A prompt plays to the first leg; `token` names it.
    Greeting {
        /// As given to `Command::Play`.
        token: u64,
    },
    /// In a queue, hearing music.
    Waiting {
        /// Which.
        queue: QueueName,
    },
    /// In a queue, and an operator's phone is called.
    Offering {
        /// Which queue.
        queue: QueueName,
        /// Whose phone.
        operator: OperatorName,
        /// Its leg.
        leg: LegId,
    },
    /// A number is called over trunks.
    Dialling(Hunt),
    /// Two legs are joined.
    Talking,
    /// The last tone or words before the end.
    Farewell {
        /// How it will be told.
        result: CallResult,
        /// Why.
        cause: Cause,
    },
}

/// A call as it is recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    /// Its id.
    pub id: CallId,
    /// Which way it goes.
    pub direction: Direction,
    /// Where it stands.
    pub stage: Stage,
    /// The leg that began it.
    pub first: Leg,
    /// The leg it is being, or is, joined with.
    pub second: Option<Leg>,
    /// The caller.
    pub caller: Number,
    /// What was dialled.
    pub called: Number,
    /// Our line.
    pub line: Number,
    /// The trunk of the outside leg, once known.
    pub trunk: Option<TrunkName>,
    /// The operator in it.
    pub operator: Option<OperatorName>,
    /// The queue it was last in.
    pub queue: Option<QueueName>,
    /// Steps of its route.
    pub steps: Vec<Step>,
    /// The next one.
    pub cursor: usize,
    /// The worker that carries its media.
    pub worker: usize,
    /// When it arrived.
    pub arrived_ms: MonoMs,
    /// When waiting began: queue entry, or dialling.
    pub waiting_ms: Option<MonoMs>,
    /// When the parties began to talk.
    pub answered_ms: Option<MonoMs>,
    /// The same on the wall.
    pub answered_at: Option<WallMs>,
    /// Whether it is on hold by the desk.
    pub held: bool,
    /// When something must happen: the end of a farewell, the longest talk time.
    pub deadline_ms: Option<MonoMs>,
    /// Whether it is being handed over to somebody else.
    pub transfer: Option<Transfer>,
    /// Whether it was.
    pub transferred: bool,
    /// Counts prompts, so that the end of an old one is not taken for a new one's.
    pub tokens: u64,
}

impl Call {
    /// The leg with this id.
    pub fn leg(&mut self, id: LegId) -> Option<&mut Leg> {
        if self.first.id == id {
            return Some(&mut self.first);
        }
        let aside = self.transfer.as_mut().and_then(|transfer| transfer.aside.as_mut());
        self.second.as_mut().into_iter().chain(aside).find(|leg| leg.id == id)
    }

    /// Its legs, as far as they are there: two, and that of him who hands the call over.
    pub fn legs(&self) -> impl Iterator<Item = &Leg> {
        std::iter::once(&self.first).chain(self.second.as_ref()).chain(self.aside())
    }

    /// Whether the operator is in the call, or it rings at his desk.
    pub fn concerns(&self, operator: &OperatorName) -> bool {
        let rings_there = matches!(&self.stage, Stage::Offering { operator: at, .. } if at == operator);
        let handed =
            self.transfer.as_ref().is_some_and(|transfer| transfer.target.as_ref() == Some(operator));
        rings_there || handed || self.operator.as_ref() == Some(operator)
    }

    /// Waiting before the answer, milliseconds.
    pub fn wait_ms(&self, now: MonoMs) -> u64 {
        let until = self.answered_ms.unwrap_or(now);
        self.waiting_ms.map_or(0, |since| until.saturating_sub(since))
    }

    /// Talking, milliseconds.
    pub fn talk_ms(&self, now: MonoMs) -> u64 {
        self.answered_ms.map_or(0, |since| now.saturating_sub(since))
    }

    /// Moves every deadline and stamp onto another clock (see `record::shift_ms`).
    pub fn rebase(&mut self, shift_ms: i64) {
        self.arrived_ms = moved(self.arrived_ms, shift_ms);
        for at in [&mut self.waiting_ms, &mut self.answered_ms, &mut self.deadline_ms].into_iter().flatten() {
            *at = moved(*at, shift_ms);
        }
    }
}
