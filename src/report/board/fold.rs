//! How each fact changes the board.
//!
//! Invariant: a fact about an object that the board does not hold changes nothing.

use super::live::{Call, Card, Operator, Waiting, remember};
use super::{Board, MAX_CALLS, MAX_CARDS, MAX_OPERATORS, MAX_RECENT};
use std::collections::{BTreeMap, VecDeque};

use crate::fact::{CallResult, Direction, Fact, Fields, OperatorState, What};
use crate::report::shape::{CallState, CardState};
use crate::report::today::{OperatorDay, QueueDay, TrunkDay};
use crate::terms::{CardId, QueueName, WallMs};

impl Board {
    /// Takes in what happened.
    pub fn fold(&mut self, fact: &Fact) {
        self.turn_day(fact.at);
        match &fact.what {
            What::NodeStarted { .. } => {
                self.node.started = fact.at;
                self.node.since = fact.at;
                self.node.epoch = fact.epoch;
            }
            What::TrunkUp { .. }
            | What::TrunkDown { .. }
            | What::TrunkLoad { .. }
            | What::TrunkFailed { .. } => {
                self.fold_trunk(&fact.what);
            }
            What::Operator { .. } => self.fold_operator(&fact.what, fact.at),
            What::Arrived { .. } => self.arrived(fact),
            What::Queued { queue, priority } => self.queued(fact, queue, *priority),
            What::LeftQueue { queue, why } => self.left_queue(fact, queue, why == "abandoned"),
            What::Answered { .. } => self.answered(fact),
            What::Ended { .. } => self.ended(fact),
            What::Leg { .. }
            | What::LegEnded { .. }
            | What::MediaSilent { .. }
            | What::MediaRecovered { .. }
            | What::MediaQuality { .. } => self.fold_leg(fact),
            What::Greeting { .. }
            | What::Assigned { .. }
            | What::Unassigned { .. }
            | What::Ringing { .. }
            | What::EarlyMedia { .. }
            | What::Tone { .. }
            | What::Held
            | What::Resumed
            | What::Transferred { .. }
            | What::Digit { .. } => self.fold_step(fact),
            What::CardOpened { .. } => self.card_opened(fact),
            What::CardMoved { .. }
            | What::CardCustomer { .. }
            | What::CardUpdated { .. }
            | What::CardSubmitted { .. }
            | What::CardAccepted { .. }
            | What::CardDiscarded { .. } => self.fold_card(&fact.what),
        }
    }

    fn turn_day(&mut self, at: WallMs) {
        let day = (self.day_of)(at);
        // A clock that steps back over midnight must not wipe the day twice.
        if day <= self.day {
            return;
        }
        self.day = day;
        self.queues.values_mut().for_each(|queue| queue.day = QueueDay::default());
        self.operators.values_mut().for_each(|operator| operator.day = OperatorDay::default());
        self.trunks.values_mut().for_each(|trunk| trunk.day = TrunkDay::default());
    }

    fn fold_trunk(&mut self, what: &What) {
        if let What::TrunkUp { trunk, from } = what
            && let Some(trunk) = self.trunks.get_mut(trunk)
        {
            trunk.up = true;
            from.clone_into(&mut trunk.from);
        } else if let What::TrunkDown { trunk, why } = what
            && let Some(trunk) = self.trunks.get_mut(trunk)
        {
            trunk.up = false;
            why.clone_into(&mut trunk.last_error);
        } else if let What::TrunkLoad { trunk, busy } = what
            && let Some(trunk) = self.trunks.get_mut(trunk)
        {
            trunk.busy = *busy;
        } else if let What::TrunkFailed { trunk, cause } = what
            && let Some(trunk) = self.trunks.get_mut(trunk)
        {
            trunk.day.tried = trunk.day.tried.saturating_add(1);
            cause.words.clone_into(&mut trunk.last_error);
        }
    }

    fn fold_operator(&mut self, what: &What, at: WallMs) {
        let What::Operator { operator, state, reason, call, phone, queues, auto_answer, wrap_up_until } =
            what
        else {
            return;
        };
        let before = self.operators.get(operator).cloned();
        if before.is_none() && self.operators.len() >= MAX_OPERATORS {
            return;
        }
        let since = before.as_ref().filter(|old| old.state == *state).map_or(at, |old| old.since);
        let mut day = before.as_ref().map(|old| old.day).unwrap_or_default();
        let last_queue = before.as_ref().and_then(|old| old.last_queue.clone());
        if let Some(old) = before.filter(|old| old.state != *state) {
            let spent_ms = u64::try_from(at.saturating_sub(old.since)).unwrap_or(0);
            match old.state {
                OperatorState::Talking => day.talk_ms = day.talk_ms.saturating_add(spent_ms),
                OperatorState::WrapUp => self.wrapped_up(last_queue.as_ref(), spent_ms),
                OperatorState::Available
                | OperatorState::Ringing
                | OperatorState::Paused
                | OperatorState::Offline => {}
            }
        }
        let operator_now = Operator {
            state: *state,
            reason: reason.clone(),
            since,
            queues: queues.clone(),
            call: *call,
            phone: *phone,
            auto_answer: *auto_answer,
            wrap_up_until: *wrap_up_until,
            last_queue,
            day,
        };
        self.operators.insert(operator.clone(), operator_now);
    }

    fn wrapped_up(&mut self, queue: Option<&QueueName>, spent_ms: u64) {
        if let Some(queue) = queue.and_then(|name| self.queues.get_mut(name)) {
            queue.day.handle_ms = queue.day.handle_ms.saturating_add(spent_ms);
        }
    }

    fn arrived(&mut self, fact: &Fact) {
        let (What::Arrived { direction, caller, called, line, trunk, operator }, Some(id)) =
            (&fact.what, fact.call)
        else {
            return;
        };
        if self.calls.len() >= MAX_CALLS || self.calls.contains_key(&id) {
            return;
        }
        let call = Call {
            direction: *direction,
            state: CallState::Arrived,
            caller: caller.clone(),
            called: called.clone(),
            line: line.clone(),
            trunk: trunk.clone(),
            queue: None,
            answered_for: None,
            operator: operator.clone(),
            arrived: fact.at,
            queued: None,
            answered: None,
            wait_ms: None,
            talk_ms: 0,
            ended: None,
            result: None,
            cause: None,
            tone: None,
            card: None,
            legs: BTreeMap::new(),
            seen_by: operator.iter().cloned().collect(),
            never_heard: false,
        };
        self.calls.insert(id, call);
    }

    fn queued(&mut self, fact: &Fact, name: &QueueName, priority: i32) {
        let Some((id, call)) = fact.call.and_then(|id| Some((id, self.calls.get_mut(&id)?))) else { return };
        call.state = CallState::Queued;
        call.queue = Some(name.clone());
        call.queued = Some(fact.at);
        let Some(queue) = self.queues.get_mut(name) else { return };
        let waiting = Waiting { caller: call.caller.clone(), since: fact.at, priority, seq: fact.seq };
        if let Some(known) = queue.waiting.get_mut(&id) {
            // The same caller in the same queue: only his priority may be new.
            known.priority = priority;
        } else {
            queue.day.offered = queue.day.offered.saturating_add(1);
            queue.waiting.insert(id, waiting);
        }
    }

    fn known_queue(&self, name: &QueueName) -> (u64, u64) {
        let known = self.roster.queues.iter().find(|known| known.name == *name);
        known.map_or((0, 0), |known| (known.service_level_ms, known.short_abandon_ms))
    }

    fn left_queue(&mut self, fact: &Fact, name: &QueueName, abandoned: bool) {
        let Some(id) = fact.call else { return };
        let (_, short_abandon_ms) = self.known_queue(name);
        if let Some(queue) = self.queues.get_mut(name)
            && let Some(waiting) = queue.waiting.remove(&id)
            && abandoned
        {
            let wait_ms = u64::try_from(fact.at.saturating_sub(waiting.since)).unwrap_or(0);
            queue.day.abandon(wait_ms, short_abandon_ms);
        }
        if let Some(call) = self.calls.get_mut(&id).filter(|call| call.state == CallState::Queued) {
            call.state = CallState::Arrived;
        }
    }

    fn answered(&mut self, fact: &Fact) {
        let (What::Answered { operator, trunk, queue, wait_ms }, Some(id)) = (&fact.what, fact.call) else {
            return;
        };
        let Some(call) = self.calls.get_mut(&id) else { return };
        let first = call.answered.is_none();
        call.state = CallState::Talking;
        call.tone = None;
        if first {
            call.answered = Some(fact.at);
            call.wait_ms = Some(*wait_ms);
        }
        if let Some(operator) = operator {
            call.operator = Some(operator.clone());
            remember(&mut call.seen_by, operator);
        }
        call.trunk = trunk.clone().or_else(|| call.trunk.clone());
        let outgoing = call.direction != Direction::In;
        if let Some(trunk) = call.trunk.as_ref().and_then(|name| self.trunks.get_mut(name))
            && outgoing
            && first
        {
            trunk.day.answered = trunk.day.answered.saturating_add(1);
            trunk.day.tried = trunk.day.tried.saturating_add(1);
        }
        if let Some(operator) = operator.as_ref().and_then(|name| self.operators.get_mut(name)) {
            operator.day.calls = operator.day.calls.saturating_add(1);
            operator.last_queue.clone_from(queue);
        }
        if let Some(name) = queue {
            call.answered_for = Some(name.clone());
            call.queue = Some(name.clone());
            let (service_level_ms, _) = self.known_queue(name);
            if let Some(queue) = self.queues.get_mut(name)
                && queue.waiting.remove(&id).is_some()
            {
                queue.day.answer(*wait_ms, service_level_ms);
            }
        }
    }

    fn ended(&mut self, fact: &Fact) {
        let (What::Ended { result, cause, wait_ms, talk_ms, .. }, Some(id)) = (&fact.what, fact.call) else {
            return;
        };
        let left: Vec<QueueName> = self
            .queues
            .iter()
            .filter(|(_, q)| q.waiting.contains_key(&id))
            .map(|(name, _)| name.clone())
            .collect();
        for name in left {
            self.left_queue(fact, &name, *result == CallResult::Abandoned);
        }
        let Some(mut call) = self.calls.remove(&id) else { return };
        call.state = CallState::Ended;
        call.ended = Some(fact.at);
        call.result = Some(*result);
        call.cause = Some(cause.clone());
        call.wait_ms = Some(*wait_ms);
        call.talk_ms = *talk_ms;
        if let Some(queue) = call.answered_for.as_ref().and_then(|name| self.queues.get_mut(name)) {
            queue.day.handled = queue.day.handled.saturating_add(1);
            queue.day.handle_ms = queue.day.handle_ms.saturating_add(*talk_ms);
        }
        if call.direction != Direction::In
            && let Some(trunk) = call.trunk.as_ref().and_then(|name| self.trunks.get_mut(name))
        {
            // A way that failed was counted when it did.
            let tried = call.answered.is_none() && *result != CallResult::Failed;
            trunk.day.tried = trunk.day.tried.saturating_add(u64::from(tried));
            let false_answer = call.answered.is_some() && call.never_heard;
            trunk.day.false_answers = trunk.day.false_answers.saturating_add(u64::from(false_answer));
        }
        call.legs.clear();
        keep_recent(&mut self.recent, (id, call));
    }

    fn fold_leg(&mut self, fact: &Fact) {
        let Some(call) = fact.call.and_then(|id| self.calls.get_mut(&id)) else { return };
        if let What::Leg { leg, party, number, state, codec } = &fact.what {
            call.set_leg(*leg, party, number, *state, codec);
        } else if let What::LegEnded { leg, .. } = &fact.what {
            call.legs.remove(leg);
        } else if let What::MediaSilent { leg, flow, .. } = &fact.what {
            call.hear(*leg, *flow, Some(fact.at));
        } else if let What::MediaRecovered { leg, flow } = &fact.what {
            call.hear(*leg, *flow, None);
        } else if let What::MediaQuality { leg, quality } = &fact.what
            && let Some(leg) = call.legs.get_mut(leg)
        {
            leg.quality = Some(*quality);
        }
    }

    fn fold_step(&mut self, fact: &Fact) {
        let Some(call) = fact.call.and_then(|id| self.calls.get_mut(&id)) else { return };
        if let What::Greeting { .. } = &fact.what {
            call.state = CallState::Greeting;
        } else if let What::Assigned { operator, .. } = &fact.what {
            call.state = CallState::Ringing;
            call.operator = Some(operator.clone());
            remember(&mut call.seen_by, operator);
        } else if let What::Unassigned { operator, .. } = &fact.what {
            if call.state == CallState::Ringing {
                call.state = CallState::Queued;
            }
            if call.operator.as_ref() == Some(operator) {
                call.operator = None;
            }
        } else if let What::Ringing { trunk } | What::EarlyMedia { trunk } = &fact.what {
            call.state = CallState::Ringing;
            call.trunk = Some(trunk.clone());
        } else if let What::Tone { tone, .. } = &fact.what {
            call.tone = Some(*tone);
        } else if fact.what == What::Held {
            call.state = CallState::Held;
        } else if fact.what == What::Resumed {
            call.state = CallState::Talking;
        } else if let What::Transferred { operator, .. } = &fact.what {
            call.state = CallState::Talking;
            call.operator = operator.clone();
            if let Some(operator) = operator {
                remember(&mut call.seen_by, operator);
            }
        }
    }

    fn card_opened(&mut self, fact: &Fact) {
        let What::CardOpened { card: id, caller, line, queue, operator, .. } = &fact.what else { return };
        if self.cards.len() >= MAX_CARDS || self.cards.contains_key(id) {
            return;
        }
        if let Some(call) = fact.call.and_then(|call| self.calls.get_mut(&call)) {
            call.card = Some(*id);
            remember(&mut call.seen_by, operator);
        }
        let card = Card {
            call: fact.call,
            caller: caller.clone(),
            line: line.clone(),
            queue: queue.clone(),
            operator: operator.clone(),
            before: None,
            state: CardState::Draft,
            fields: Fields::new(),
            order: None,
            created: fact.at,
            customer: None,
            reason: String::new(),
        };
        self.cards.insert(*id, card);
    }

    fn fold_card(&mut self, what: &What) {
        if let What::CardMoved { card, operator } = what
            && let Some(card) = self.cards.get_mut(card)
        {
            card.before = Some(std::mem::replace(&mut card.operator, operator.clone()));
        } else if let What::CardCustomer { card, customer } = what
            && let Some(card) = self.cards.get_mut(card)
        {
            card.customer = serde_json::from_str(customer).ok();
        } else if let What::CardUpdated { card, fields } = what
            && let Some(card) = self.cards.get_mut(card)
        {
            card.fields.clone_from(fields);
        } else if let What::CardSubmitted { card, fields, .. } = what
            && let Some(card) = self.cards.get_mut(card)
        {
            card.fields.clone_from(fields);
            card.state = CardState::Saving;
        } else if let What::CardAccepted { card } = what {
            self.close_card(*card, CardState::Accepted, "");
        } else if let What::CardDiscarded { card, reason } = what {
            self.close_card(*card, CardState::Discarded, reason);
        }
    }

    fn close_card(&mut self, id: CardId, state: CardState, reason: &str) {
        if let Some(mut card) = self.cards.remove(&id) {
            card.state = state;
            reason.clone_into(&mut card.reason);
            keep_recent(&mut self.closed, (id, card));
        }
    }
}

fn keep_recent<T>(recent: &mut VecDeque<T>, item: T) {
    if recent.len() >= MAX_RECENT {
        recent.pop_front();
    }
    recent.push_back(item);
}
