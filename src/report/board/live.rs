//! What the board holds of each live object, and how it shows.
//!
//! Invariant: a shape says nothing that its object does not hold; the time is the asker's.

use std::collections::BTreeMap;

use crate::fact::{
    CallResult, Cause, Direction, Fields, Flow, LegState, OperatorState, Party, Phone, Quality, ToneKind,
};
use crate::report::shape::{
    At, CallShape, CallState, CardShape, CardState, CauseShape, LegShape, Microphone, PartyShape,
};
use crate::report::today::{OperatorDay, QueueDay, TrunkDay};
use crate::terms::{CallId, CardId, LegId, Number, OperatorName, QueueName, TrunkName, WallMs};

/// Legs of a call that are shown.
const MAX_LEGS: usize = 32;
/// Operators that one call's events go to.
const MAX_SEEN_BY: usize = 16;
/// A trunk's leg that falls silent within this time of the answer, and stays so, was never answered by
/// anybody.
const FALSE_ANSWER_MS: i64 = 5_000;

#[derive(Debug, Clone)]
pub(super) struct Leg {
    pub(super) party: Party,
    pub(super) number: Number,
    pub(super) state: LegState,
    pub(super) codec: String,
    pub(super) quality: Option<Quality>,
    pub(super) silent_in: Option<WallMs>,
    pub(super) silent_out: Option<WallMs>,
}

#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) direction: Direction,
    pub(super) state: CallState,
    pub(super) caller: Number,
    pub(super) called: Number,
    pub(super) line: Number,
    pub(super) trunk: Option<TrunkName>,
    pub(super) queue: Option<QueueName>,
    pub(super) answered_for: Option<QueueName>,
    pub(super) operator: Option<OperatorName>,
    pub(super) arrived: WallMs,
    pub(super) queued: Option<WallMs>,
    pub(super) answered: Option<WallMs>,
    pub(super) wait_ms: Option<u64>,
    pub(super) talk_ms: u64,
    pub(super) ended: Option<WallMs>,
    pub(super) result: Option<CallResult>,
    pub(super) cause: Option<Cause>,
    pub(super) tone: Option<ToneKind>,
    pub(super) card: Option<CardId>,
    pub(super) legs: BTreeMap<LegId, Leg>,
    pub(super) seen_by: Vec<OperatorName>,
    pub(super) never_heard: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) caller: Number,
    pub(super) since: WallMs,
    pub(super) priority: i32,
    pub(super) seq: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    pub(super) waiting: BTreeMap<CallId, Waiting>,
    pub(super) day: QueueDay,
}

#[derive(Debug, Clone)]
pub(super) struct Operator {
    pub(super) state: OperatorState,
    pub(super) reason: String,
    pub(super) since: WallMs,
    pub(super) queues: Vec<QueueName>,
    pub(super) call: Option<CallId>,
    pub(super) phone: Phone,
    pub(super) auto_answer: bool,
    pub(super) wrap_up_until: Option<WallMs>,
    pub(super) last_queue: Option<QueueName>,
    pub(super) day: OperatorDay,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Trunk {
    pub(super) up: bool,
    pub(super) from: String,
    pub(super) busy: u32,
    pub(super) last_error: String,
    pub(super) day: TrunkDay,
}

#[derive(Debug, Clone)]
pub(super) struct Card {
    pub(super) call: Option<CallId>,
    pub(super) caller: Number,
    pub(super) line: Number,
    pub(super) queue: Option<QueueName>,
    pub(super) operator: OperatorName,
    pub(super) before: Option<OperatorName>,
    pub(super) state: CardState,
    pub(super) fields: Fields,
    pub(super) order: Option<String>,
    pub(super) created: WallMs,
    pub(super) customer: Option<serde_json::Value>,
    pub(super) reason: String,
}

pub(super) fn remember(names: &mut Vec<OperatorName>, name: &OperatorName) {
    if names.len() < MAX_SEEN_BY && !names.contains(name) {
        names.push(name.clone());
    }
}

impl Call {
    pub(super) fn set_leg(
        &mut self,
        id: LegId,
        party: &Party,
        number: &Number,
        state: LegState,
        codec: &str,
    ) {
        match party {
            Party::Operator(name) => remember(&mut self.seen_by, name),
            // The leg that is tried: a call may end before the far end rings.
            Party::Trunk(name) if self.direction != Direction::In && self.answered.is_none() => {
                self.trunk = Some(name.clone());
            }
            Party::Trunk(_) => {}
        }
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.party = party.clone();
            leg.number = number.clone();
            leg.state = state;
            codec.clone_into(&mut leg.codec);
        } else if self.legs.len() < MAX_LEGS {
            let leg = Leg {
                party: party.clone(),
                number: number.clone(),
                state,
                codec: codec.to_owned(),
                quality: None,
                silent_in: None,
                silent_out: None,
            };
            self.legs.insert(id, leg);
        }
    }

    pub(super) fn hear(&mut self, id: LegId, flow: Flow, silent_since: Option<WallMs>) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        match flow {
            Flow::In => leg.silent_in = silent_since,
            Flow::Out => leg.silent_out = silent_since,
        }
        if flow == Flow::In && matches!(leg.party, Party::Trunk(_)) {
            let since_answer =
                silent_since.zip(self.answered).map(|(at, answered)| at.saturating_sub(answered));
            let at_once = since_answer.is_some_and(|silent_ms| silent_ms <= FALSE_ANSWER_MS);
            self.never_heard = at_once || (self.never_heard && silent_since.is_some());
        }
    }

    pub(super) fn involves(&self, operator: &OperatorName) -> bool {
        self.operator.as_ref() == Some(operator)
            || self.legs.values().any(|leg| matches!(&leg.party, Party::Operator(name) if name == operator))
    }

    pub(super) fn microphone(&self, operator: &OperatorName) -> Microphone {
        let own = |leg: &&Leg| matches!(&leg.party, Party::Operator(name) if name == operator);
        match self.legs.values().find(own) {
            None => Microphone::None,
            Some(leg) if leg.silent_in.is_some() => Microphone::Silent,
            Some(_) => Microphone::Ok,
        }
    }

    pub(super) fn shape(&self, id: CallId, now: WallMs) -> CallShape {
        let until = self.ended.unwrap_or(now);
        let started = if self.direction == Direction::In { self.queued } else { Some(self.arrived) };
        let waited = || started.map_or(0, |from| until.saturating_sub(from).max(0));
        let talked = self.answered.map_or(0, |from| until.saturating_sub(from).max(0));
        CallShape {
            id,
            direction: self.direction,
            state: self.state,
            caller: self.caller.reveal().to_owned(),
            called: self.called.reveal().to_owned(),
            line: self.line.reveal().to_owned(),
            trunk: self.trunk.clone(),
            queue: self.queue.clone(),
            operator: self.operator.clone(),
            arrived_at: At(self.arrived),
            answered_at: self.answered.map(At),
            ended_at: self.ended.map(At),
            wait_ms: self.wait_ms.map_or_else(waited, |ms| i64::try_from(ms).unwrap_or(i64::MAX)),
            talk_ms: if self.ended.is_some() {
                i64::try_from(self.talk_ms).unwrap_or(i64::MAX)
            } else {
                talked
            },
            result: self.result,
            cause: self.cause.as_ref().map(CauseShape::from),
            tone: self.tone,
            card: self.card,
            legs: self.legs.iter().map(|(id, leg)| leg.shape(*id, now)).collect(),
        }
    }
}

impl Leg {
    pub(super) fn shape(&self, id: LegId, now: WallMs) -> LegShape {
        let (party, name) = match &self.party {
            Party::Trunk(name) => (PartyShape::Trunk, name.to_string()),
            Party::Operator(name) => (PartyShape::Operator, name.to_string()),
        };
        let ago = |since: WallMs| now.saturating_sub(since).max(0);
        LegShape {
            id,
            party,
            name,
            number: self.number.reveal().to_owned(),
            state: self.state,
            codec: self.codec.clone(),
            quality: self.quality,
            silent_in_ms: self.silent_in.map(ago),
            silent_out_ms: self.silent_out.map(ago),
        }
    }
}

impl Card {
    pub(super) fn shape(&self, id: CardId) -> CardShape {
        CardShape {
            id,
            call: self.call,
            caller: self.caller.reveal().to_owned(),
            line: self.line.reveal().to_owned(),
            queue: self.queue.clone(),
            operator: self.operator.clone(),
            state: self.state,
            fields: self.fields.clone(),
            order: self.order.clone(),
            created_at: At(self.created),
            customer: self.customer.clone(),
            reason: self.reason.clone(),
        }
    }
}
