//! The floor: queues of callers, the operators who serve them, and who is given whom.
//!
//! Invariants, checked by a test after every step and after every restore: a call has at most one ticket
//! and a ticket is in exactly one place (waiting, or ringing at one desk); an operator has at most one
//! call; a caller whom an operator did not answer is back at his old place; nobody is given a call whose
//! phone is not registered; nobody waits while somebody who could serve him is free.

mod choose;
mod estimate;
pub mod operator;
pub mod queue;
mod records;
mod timers;
mod view;
pub mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::acd::estimate::Estimate;
use crate::acd::operator::{Operator, Work, WrapUp, signed};
use crate::acd::queue::KeptPlace;
use crate::fact::Phone;
use crate::terms::{CallId, Now, Number, OperatorName, QueueName};

pub use operator::{Standing, Wanted};
pub use queue::{NoAnswer, QueueConfig, Strategy, Ticket};
pub use records::RestoreError;
pub use view::Place;
pub use words::{FloorEvent, FloorInput, LeftWhy, NotAnswered, NotQueuedWhy, Since};

/// Callers that may wait in all queues together.
pub const MAX_TICKETS: usize = 2_000;
/// Operators that may be known.
pub const MAX_OPERATORS: usize = 2_000;
/// Places kept in one queue for callers who left.
pub const MAX_KEPT_PLACES: usize = 1_000;
/// After a refusal or an unreachable phone he is left alone for so long, so that a phone that refuses
/// everything does not turn a caller's call round in circles.
pub const REST_MS: u64 = 5_000;
/// The reason of the pause after too many calls without an answer.
pub const NO_ANSWER_REASON: &str = "no answer";

/// Queues and operators.
#[derive(Debug, Default)]
pub struct Floor {
    queues: BTreeMap<QueueName, Queue>,
    operators: BTreeMap<OperatorName, Operator>,
    tickets: BTreeMap<CallId, Ticket>,
    events: VecDeque<FloorEvent>,
    /// What was last said about each operator, so that only changes are said.
    said: BTreeMap<OperatorName, Standing>,
    changed: Changed,
    next_number: u64,
    ignored: u64,
}

/// A queue and what it remembers.
#[derive(Debug)]
struct Queue {
    config: QueueConfig,
    memory: QueueMemory,
}

/// What a queue remembers of the past.
#[derive(Debug, Default, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct QueueMemory {
    kept: BTreeMap<Number, KeptPlace>,
    estimate: Estimate,
}

/// What the next batch of records must hold.
#[derive(Debug, Default)]
struct Changed {
    tickets: BTreeSet<CallId>,
    operators: BTreeSet<OperatorName>,
    queues: BTreeSet<QueueName>,
    /// Operators whose standing may have to be said.
    unsaid: BTreeSet<OperatorName>,
}

impl Floor {
    /// A floor with these queues and nobody on it.
    pub fn new(queues: Vec<QueueConfig>) -> Self {
        let mut floor = Self::default();
        floor.set_queues(queues);
        floor
    }

    /// Something happened. Drain [`Floor::poll`] afterwards.
    pub fn handle(&mut self, input: FloorInput, now: Now) {
        match input {
            FloorInput::Serves { operator, queues } => self.serves(&operator, queues, now),
            FloorInput::Ask { operator, wanted, reason } => self.ask(&operator, wanted, reason, now),
            FloorInput::AutoAnswer { operator, on } => {
                self.with_operator(&operator, now, |operator| operator.auto_answer = on);
            }
            FloorInput::Phone { operator, phone } => self.phone(&operator, phone, now),
            FloorInput::Enqueue { call, queue, caller, priority, wait_ms, since } => {
                let wish = Wish { call, caller, priority, wait_ms, since };
                self.enqueue(&queue, wish, now);
            }
            FloorInput::Leave { call, abandoned } => self.leave(call, abandoned, now),
            FloorInput::Answered { call, operator } => self.answered(call, &operator, now),
            FloorInput::Refused { call, operator, why } => self.refused(call, &operator, why, now),
            FloorInput::OwnCall { operator, call } => self.own_call(call, &operator, now),
            FloorInput::CallEnded { call, operator } => self.call_ended(call, &operator, now),
            FloorInput::SetQueues(queues) => self.set_queues(queues),
        }
        self.settle(now);
    }

    /// What the floor says, in order, until `None`.
    pub fn poll(&mut self) -> Option<FloorEvent> {
        self.events.pop_front()
    }

    /// Inputs that named a call or operator that they do not fit; for the counters.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    fn set_queues(&mut self, configs: Vec<QueueConfig>) {
        let mut old = std::mem::take(&mut self.queues);
        for config in configs {
            let memory = old.remove(&config.name).map(|queue| queue.memory).unwrap_or_default();
            self.queues.insert(config.name.clone(), Queue { config, memory });
        }
        self.changed.queues.extend(old.into_keys());
    }

    fn serves(&mut self, name: &OperatorName, mut queues: Vec<QueueName>, now: Now) {
        queues.sort();
        queues.dedup();
        self.with_operator(name, now, |operator| operator.queues = queues);
    }

    fn ask(&mut self, name: &OperatorName, wanted: Wanted, reason: String, now: Now) {
        self.with_operator(name, now, |operator| {
            let began = operator.wanted != wanted;
            operator.wanted = wanted;
            operator.reason = if wanted == Wanted::Paused { reason } else { String::new() };
            operator.wrap_up = None;
            if wanted == Wanted::Available {
                operator.no_answers = 0;
                operator.rest_until_ms = None;
                if began {
                    operator.idle_since_ms = signed(now.mono_ms);
                }
            }
        });
    }

    fn phone(&mut self, name: &OperatorName, phone: Phone, now: Now) {
        self.with_operator(name, now, |operator| {
            if operator.phone != phone {
                operator.phone = phone;
                operator.rest_until_ms = None;
            }
        });
        if phone == Phone::Registered {
            return;
        }
        let ringing = self.operators.get(name).and_then(|operator| match operator.work {
            Work::Offered { call, .. } => Some(call),
            Work::Free | Work::Dialling { .. } | Work::Talking { .. } => None,
        });
        if let Some(call) = ringing {
            self.unassign(call, NotAnswered::Unreachable, now);
        }
    }

    fn enqueue(&mut self, name: &QueueName, wish: Wish, now: Now) {
        if self.tickets.contains_key(&wish.call) {
            self.ignored += 1;
            return;
        }
        if let Err(why) = self.admits(name) {
            self.events.push_back(FloorEvent::NotQueued { call: wish.call, queue: name.clone(), why });
            return;
        }
        let Some(queue) = self.queues.get_mut(name) else { return };
        let kept = queue.memory.kept.remove(&wish.caller);
        if kept.is_some() {
            self.changed.queues.insert(name.clone());
        }
        let kept = kept.filter(|kept| kept.until_ms > now.mono_ms);
        let since = wish
            .since
            .or(kept.map(|kept| Since { joined_ms: kept.joined_ms, since: kept.since }))
            .unwrap_or(Since { joined_ms: signed(now.mono_ms), since: now.wall_ms });
        let wait_ms = wish.wait_ms.unwrap_or(queue.config.max_wait_ms);
        self.next_number += 1;
        let ticket = Ticket {
            call: wish.call,
            queue: name.clone(),
            caller: wish.caller,
            priority: wish.priority,
            joined_ms: since.joined_ms,
            since: since.since,
            number: self.next_number,
            deadline_ms: (wait_ms > 0).then(|| now.mono_ms.saturating_add(wait_ms)),
            offered: None,
            tried: Vec::new(),
        };
        self.changed.tickets.insert(wish.call);
        self.tickets.insert(wish.call, ticket);
    }

    fn admits(&self, name: &QueueName) -> Result<(), NotQueuedWhy> {
        let queue = self.queues.get(name).ok_or(NotQueuedWhy::Unknown)?;
        let waiting = self.tickets.values().filter(|ticket| ticket.queue == *name).count();
        let limit = match queue.config.max_length {
            0 => MAX_TICKETS,
            limit => usize::try_from(limit).unwrap_or(MAX_TICKETS),
        };
        if waiting >= limit || self.tickets.len() >= MAX_TICKETS {
            return Err(NotQueuedWhy::Full);
        }
        if !queue.config.join_empty && self.logged_in(name) == 0 {
            return Err(NotQueuedWhy::Empty);
        }
        Ok(())
    }

    fn leave(&mut self, call: CallId, abandoned: bool, now: Now) {
        let Some(ticket) = self.tickets.get(&call) else {
            self.ignored += 1;
            return;
        };
        if abandoned {
            let ticket = ticket.clone();
            self.keep_place(&ticket, now);
        }
        self.unassign(call, NotAnswered::CallerGone, now);
        self.tickets.remove(&call);
        self.changed.tickets.insert(call);
    }

    fn keep_place(&mut self, ticket: &Ticket, now: Now) {
        let Some(queue) = self.queues.get_mut(&ticket.queue) else { return };
        if queue.config.resume_place_ms == 0 || ticket.caller.is_withheld() {
            return;
        }
        let kept = &mut queue.memory.kept;
        kept.retain(|_, place| place.until_ms > now.mono_ms);
        if kept.len() >= MAX_KEPT_PLACES {
            return;
        }
        let until_ms = now.mono_ms.saturating_add(queue.config.resume_place_ms);
        let place = KeptPlace { joined_ms: ticket.joined_ms, since: ticket.since, until_ms };
        kept.insert(ticket.caller.clone(), place);
        self.changed.queues.insert(ticket.queue.clone());
    }

    fn answered(&mut self, call: CallId, name: &OperatorName, now: Now) {
        let work = self.operators.get(name).map(|operator| operator.work.clone());
        let queue = match work {
            Some(Work::Offered { call: his, .. }) if his == call => {
                self.changed.tickets.insert(call);
                self.tickets.remove(&call).map(|ticket| ticket.queue)
            }
            Some(Work::Dialling { call: his }) if his == call => None,
            Some(Work::Free | Work::Offered { .. } | Work::Dialling { .. } | Work::Talking { .. }) | None => {
                self.ignored += 1;
                return;
            }
        };
        self.with_operator(name, now, |operator| {
            operator.work = Work::Talking { call, queue, since_ms: signed(now.mono_ms) };
            operator.no_answers = 0;
        });
    }

    fn refused(&mut self, call: CallId, name: &OperatorName, why: NotAnswered, now: Now) {
        let his = self.tickets.get(&call).is_some_and(|ticket| ticket.offered.as_ref() == Some(name));
        if his && why != NotAnswered::CallerGone {
            self.unassign(call, why, now);
        } else {
            self.ignored += 1;
        }
    }

    fn own_call(&mut self, call: CallId, name: &OperatorName, now: Now) {
        if !self.operators.get(name).is_some_and(|operator| operator.work == Work::Free) {
            self.ignored += 1;
            return;
        }
        self.with_operator(name, now, |operator| operator.work = Work::Dialling { call });
    }

    fn call_ended(&mut self, call: CallId, name: &OperatorName, now: Now) {
        let (queue, since_ms) = match self.operators.get(name).map(|operator| &operator.work) {
            Some(Work::Dialling { call: his }) if *his == call => (None, None),
            Some(Work::Talking { call: his, queue, since_ms }) if *his == call => {
                (queue.clone(), Some(*since_ms))
            }
            Some(Work::Free | Work::Offered { .. } | Work::Dialling { .. } | Work::Talking { .. }) | None => {
                self.ignored += 1;
                return;
            }
        };
        let queue = queue.and_then(|queue| self.queues.get_mut(&queue));
        let wrap_up_ms = queue.as_ref().map_or(0, |queue| queue.config.wrap_up_ms);
        if let (Some(queue), Some(since_ms)) = (queue, since_ms) {
            let talk_ms = u64::try_from(signed(now.mono_ms).saturating_sub(since_ms)).unwrap_or(0);
            queue.memory.estimate.took(talk_ms.saturating_add(wrap_up_ms));
            self.changed.queues.insert(queue.config.name.clone());
        }
        self.with_operator(name, now, |operator| {
            operator.work = Work::Free;
            operator.idle_since_ms = signed(now.mono_ms);
            if wrap_up_ms > 0 && operator.wanted != Wanted::Offline {
                operator.wrap_up = Some(WrapUp::begin(wrap_up_ms, now));
            }
        });
    }

    /// The operator's phone is not called for this caller any more; the caller waits again.
    fn unassign(&mut self, call: CallId, why: NotAnswered, now: Now) {
        let Some(ticket) = self.tickets.get_mut(&call) else { return };
        let Some(name) = ticket.offered.take() else { return };
        if !ticket.tried.contains(&name) {
            ticket.tried.push(name.clone());
        }
        let queue = ticket.queue.clone();
        let limit = match self.queues.get(&queue).map(|queue| queue.config.no_answer) {
            Some(NoAnswer::PauseAfter(limit)) => limit,
            Some(NoAnswer::Never) | None => u32::MAX,
        };
        self.changed.tickets.insert(call);
        self.with_operator(&name, now, |operator| {
            operator.work = Work::Free;
            match why {
                NotAnswered::NoAnswer => operator.missed(limit),
                NotAnswered::Rejected | NotAnswered::Unreachable => {
                    operator.rest_until_ms = Some(now.mono_ms.saturating_add(REST_MS));
                }
                NotAnswered::CallerGone => {}
            }
        });
        self.events.push_back(FloorEvent::Unassigned { call, queue, operator: name, why });
    }

    /// Changes an operator, who is known from now on.
    fn with_operator(&mut self, name: &OperatorName, now: Now, change: impl FnOnce(&mut Operator)) {
        if !self.operators.contains_key(name) && self.operators.len() >= MAX_OPERATORS {
            self.ignored += 1;
            return;
        }
        let operator = self.operators.entry(name.clone()).or_insert_with(|| Operator::new(name.clone(), now));
        change(operator);
        self.changed.operators.insert(name.clone());
        self.changed.unsaid.insert(name.clone());
    }

    /// How many who serve the queue are on shift, in whatever state.
    fn logged_in(&self, queue: &QueueName) -> usize {
        let serving =
            |operator: &&Operator| operator.wanted != Wanted::Offline && operator.queues.contains(queue);
        self.operators.values().filter(serving).count()
    }

    /// Brings callers and operators together until nothing is left to do, then says what changed.
    fn settle(&mut self, now: Now) {
        self.let_go(now);
        while let Some((call, name)) = self.next_pair() {
            self.assign(call, &name, now);
        }
        for name in std::mem::take(&mut self.changed.unsaid) {
            self.say(name, now);
        }
    }

    /// The caller whose turn it is, and his operator.
    fn next_pair(&self) -> Option<(CallId, OperatorName)> {
        let eligible: Vec<&Operator> = self.operators.values().filter(|one| one.is_eligible()).collect();
        if eligible.is_empty() {
            return None;
        }
        let mut waiting: Vec<_> = self
            .tickets
            .values()
            .filter(|ticket| ticket.offered.is_none())
            .filter_map(|ticket| Some((ticket, &self.queues.get(&ticket.queue)?.config)))
            .collect();
        waiting.sort_by_key(|(ticket, config)| choose::turn(ticket, config.weight));
        waiting.into_iter().find_map(|(ticket, config)| {
            let operator = choose::operator(config.strategy, ticket, eligible.iter().copied())?;
            Some((ticket.call, operator.name.clone()))
        })
    }

    fn assign(&mut self, call: CallId, name: &OperatorName, now: Now) {
        let Some(ticket) = self.tickets.get_mut(&call) else { return };
        ticket.offered = Some(name.clone());
        let queue = ticket.queue.clone();
        let ring_ms = self.queues.get(&queue).map_or(0, |queue| queue.config.ring_ms);
        let until_ms = now.mono_ms.saturating_add(ring_ms);
        self.changed.tickets.insert(call);
        self.with_operator(name, now, |operator| operator.work = Work::Offered { call, until_ms });
        self.events.push_back(FloorEvent::Assigned { call, queue, operator: name.clone() });
    }

    /// Says where an operator stands, if that is news.
    fn say(&mut self, name: OperatorName, now: Now) {
        let Some(operator) = self.operators.get_mut(&name) else { return };
        let before = self.said.get(&name);
        if before.is_none_or(|before| before.state != operator.state()) {
            operator.since = now.wall_ms;
        }
        let standing = operator.standing();
        if before != Some(&standing) {
            self.said.insert(name, standing.clone());
            self.events.push_back(FloorEvent::Operator(standing));
        }
    }
}

/// What a caller who shall wait brings along.
struct Wish {
    call: CallId,
    caller: Number,
    priority: i32,
    wait_ms: Option<u64>,
    since: Option<Since>,
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
