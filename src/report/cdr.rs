//! Call records: one row a call, for history, statistics and the bill.
//!
//! Invariant: exactly one record for each `Arrived`, made at its `Ended`; a call whose node died with it
//! is closed as `lost` when the next one starts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fact::{CallResult, Cause, Direction, Fact, Party, What};
use crate::terms::{CallId, CardId, Number, OperatorName, QueueName, TrunkName, WallMs};

/// Calls that [`Cdrs`] follows at a time; more yield a record without their middle.
pub const MAX_OPEN: usize = 50_000;

/// A call's record; while the call lives, what is known of it so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cdr {
    /// Which call.
    pub call: CallId,
    /// Which way.
    pub direction: Direction,
    /// The caller.
    pub caller: Number,
    /// What was dialled.
    pub called: Number,
    /// Our line it came in on.
    pub line: Number,
    /// The trunk that carried it.
    pub trunk: Option<TrunkName>,
    /// The last queue it was in.
    pub queue: Option<QueueName>,
    /// The last operator who was called or talked.
    pub operator: Option<OperatorName>,
    /// When it began.
    pub arrived_at: WallMs,
    /// When the parties first talked.
    pub answered_at: Option<WallMs>,
    /// When it ended.
    pub ended_at: Option<WallMs>,
    /// Waiting before the answer, milliseconds.
    pub wait_ms: u64,
    /// Talking, milliseconds.
    pub talk_ms: u64,
    /// How it ended; `lost` until it did.
    pub result: CallResult,
    /// Why it ended.
    pub cause: Cause,
    /// Who ended it: `caller`, `operator`, `system`.
    pub by: String,
    /// Its order card.
    pub card: Option<CardId>,
}

impl Cdr {
    /// A record begins with `Arrived`; any other fact has none to begin.
    pub fn begin(fact: &Fact) -> Option<Self> {
        let What::Arrived { direction, caller, called, line, trunk, operator } = &fact.what else {
            return None;
        };
        Some(Self {
            call: fact.call?,
            direction: *direction,
            caller: caller.clone(),
            called: called.clone(),
            line: line.clone(),
            trunk: trunk.clone(),
            queue: None,
            operator: operator.clone(),
            arrived_at: fact.at,
            answered_at: None,
            ended_at: None,
            wait_ms: 0,
            talk_ms: 0,
            result: CallResult::Lost,
            cause: Cause::default(),
            by: String::new(),
            card: None,
        })
    }

    /// Takes in a later fact of the same call: whether the record changed.
    pub fn fold(&mut self, fact: &Fact) -> bool {
        if let What::Queued { queue, .. } = &fact.what {
            self.queue = Some(queue.clone());
        } else if let What::Assigned { queue, operator } = &fact.what {
            self.queue = Some(queue.clone());
            self.operator = Some(operator.clone());
        } else if let What::Ringing { trunk } | What::EarlyMedia { trunk } = &fact.what {
            self.trunk = Some(trunk.clone());
        } else if let What::Leg { party: Party::Trunk(trunk), .. } = &fact.what {
            // The leg that is tried, for a call that ends before the far end rings.
            return self.direction != Direction::In && self.try_trunk(trunk);
        } else if let What::Answered { operator, trunk, queue, wait_ms } = &fact.what {
            self.answer(operator.as_ref(), trunk.as_ref(), queue.as_ref());
            if self.answered_at.is_none() {
                self.answered_at = Some(fact.at);
                self.wait_ms = *wait_ms;
            }
        } else if let What::CardOpened { card, .. } = &fact.what {
            self.card = Some(*card);
        } else if let What::Ended { result, cause, by, wait_ms, talk_ms } = &fact.what {
            self.ended_at = Some(fact.at);
            self.result = *result;
            self.cause = cause.clone();
            self.by.clone_from(by);
            self.wait_ms = *wait_ms;
            self.talk_ms = *talk_ms;
        } else {
            return false;
        }
        true
    }

    fn answer(
        &mut self,
        operator: Option<&OperatorName>,
        trunk: Option<&TrunkName>,
        queue: Option<&QueueName>,
    ) {
        self.operator = operator.or(self.operator.as_ref()).cloned();
        self.trunk = trunk.or(self.trunk.as_ref()).cloned();
        self.queue = queue.or(self.queue.as_ref()).cloned();
    }

    fn try_trunk(&mut self, trunk: &TrunkName) -> bool {
        let other = self.answered_at.is_none() && self.trunk.as_ref() != Some(trunk);
        if other {
            self.trunk = Some(trunk.clone());
        }
        other
    }

    /// Closes the record of a call that its node took with it; nobody knows when, so `now` is said.
    #[must_use]
    pub fn lost(mut self, now: WallMs) -> Self {
        self.ended_at = Some(now);
        self.result = CallResult::Lost;
        self.cause = Cause { q850: 41, sip: 0, words: "the node stopped during the call".to_owned() };
        "system".clone_into(&mut self.by);
        self
    }
}

/// The records of the calls that live.
#[derive(Debug, Default)]
pub struct Cdrs {
    open: BTreeMap<CallId, Cdr>,
}

impl Cdrs {
    /// Goes on from records that were open when the facts broke off.
    pub fn resume(open: impl IntoIterator<Item = Cdr>) -> Self {
        Self { open: open.into_iter().map(|cdr| (cdr.call, cdr)).collect() }
    }

    /// Takes in a fact; the finished record at `Ended`.
    pub fn fold(&mut self, fact: &Fact) -> Option<Cdr> {
        if let Some(cdr) = Cdr::begin(fact) {
            if self.open.len() < MAX_OPEN {
                self.open.entry(cdr.call).or_insert(cdr);
            }
            return None;
        }
        let id = fact.call?;
        self.open.get_mut(&id)?.fold(fact);
        if matches!(fact.what, What::Ended { .. }) { self.open.remove(&id) } else { None }
    }

    /// Closes every open record as `lost`.
    pub fn close_lost(&mut self, now: WallMs) -> Vec<Cdr> {
        std::mem::take(&mut self.open).into_values().map(|cdr| cdr.lost(now)).collect()
    }

    /// Calls that live.
    pub fn open(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::report::testing::{Told, call};

    #[test]
    fn each_call_that_ends_has_one_record_with_its_whole_story() {
        let mut told = Told::new();
        told.arrives(1);
        told.at(1, What::Queued { queue: "orders".into(), priority: 0 });
        told.at(1, What::Assigned { queue: "orders".into(), operator: "boris".into() });
        told.card(1, "boris");
        told.arrives(2);
        told.answered(1, "anna", 12_000);
        let answered_at = told.now;
        told.answered(1, "eva", 99_000);
        told.ends(1, CallResult::Answered, 30_000);
        told.ends(1, CallResult::Answered, 30_000);
        told.arrives(3);
        told.ends(2, CallResult::Abandoned, 0);
        let mut cdrs = Cdrs::default();
        let done: Vec<Cdr> = told.facts.iter().filter_map(|fact| cdrs.fold(fact)).collect();
        assert_eq!(done.iter().map(|cdr| cdr.call).collect::<Vec<_>>(), [call(1), call(2)]);
        let first = &done[0];
        assert_eq!(
            (first.operator.clone(), first.queue.clone()),
            (Some("eva".into()), Some("orders".into()))
        );
        assert_eq!(
            (first.answered_at, first.talk_ms, first.result),
            (Some(answered_at), 30_000, CallResult::Answered)
        );
        assert_eq!(first.card, Some(CardId(call(1).0)));
        assert_eq!((done[1].answered_at, done[1].result), (None, CallResult::Abandoned));
        let lost = cdrs.close_lost(told.now);
        assert_eq!((lost.len(), lost[0].call, lost[0].result), (1, call(3), CallResult::Lost));
        assert_eq!((cdrs.open(), cdrs.close_lost(told.now).len()), (0, 0));
    }

    #[test]
    fn a_successor_goes_on_with_the_open_records() {
        let mut told = Told::new();
        told.arrives(1);
        let open = Cdr::begin(&told.facts[0]).unwrap();
        let mut next = Cdrs::resume([open]);
        told.ends(1, CallResult::Overflow, 0);
        assert_eq!(next.fold(&told.facts[1]).unwrap().result, CallResult::Overflow);
    }
}
