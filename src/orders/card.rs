//! The order card that opens on a desk with a call and leaves it with an order.
//!
//! ```text
//!            Update         Submit            Stored
//!           ┌──────┐
//!  Open ──▶ draft ─┴──────▶ saving ─────────▶ accepted
//!             │
//!             └─ Discard, or abandoned untouched ──▶ discarded
//! ```
//!
//! Invariant: one card a call; `accepted` follows durability, never precedes it; asking the same again
//! gives the same answer and no second order.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::word::{Answer, Input, Kept, KeptState, Open, Output, Refusal, Submit};
use crate::fact::{Fields, What};
use crate::record::{Record, RecordError, decode};
use crate::terms::{CallId, CardId, Now, Number, OperatorName, QueueName, RequestId, TrunkName};

/// The fields of a card.
pub const FIELD_NAMES: [&str; 5] = ["pickup", "destination", "when", "class", "comment"];
/// Characters of one field.
pub const MAX_FIELD_CHARS: usize = 2_000;
/// Characters of a reason for discarding.
pub const MAX_REASON_CHARS: usize = 200;
/// Characters of what the order core says of a customer; more is not kept.
pub const MAX_CUSTOMER_CHARS: usize = 64_000;
/// Cards on all desks; further calls open none.
pub const MAX_OPEN: usize = 20_000;
/// Closed cards that still answer a repeated question the same way.
pub const MAX_CLOSED: usize = 2_000;
/// Why a card may be discarded by an operator.
pub const REASONS: [&str; 4] = ["fake", "wrong_number", "question", "other"];
/// Why the system discards a card.
pub const ABANDONED: &str = "abandoned";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    Draft,
    /// `seq` is known once the engine numbered the fact.
    Saving {
        seq: Option<u64>,
    },
    Accepted,
    Discarded {
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Card {
    call: CallId,
    caller: Number,
    line: Number,
    trunk: Option<TrunkName>,
    queue: Option<QueueName>,
    operator: OperatorName,
    fields: Fields,
    state: State,
}

/// Every card on every desk, and the last closed ones.
#[derive(Debug, Default)]
pub struct Cards {
    cards: BTreeMap<CardId, Card>,
    by_call: BTreeMap<CallId, CardId>,
    closed: VecDeque<CardId>,
    outputs: VecDeque<Output>,
    refused_opens: u64,
}

impl Cards {
    /// No cards.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on from a predecessor's records (others than `card/…` are left alone). A card that was being
    /// saved is recorded again: the store knows it by its id and keeps one order.
    ///
    /// # Errors
    /// [`RecordError`] when a record does not decode; nothing is taken over then.
    pub fn restore(records: &[Record]) -> Result<Self, RecordError> {
        let mut cards = Self::new();
        for record in records {
            let Some(id) = record.key.strip_prefix("card/").and_then(|id| id.parse().ok()) else { continue };
            if let Some(value) = &record.value {
                let (_, card): (Now, Card) = decode(value)?;
                cards.adopt(id, card);
            }
        }
        Ok(cards)
    }

    /// Goes on from cards that a store kept, oldest first. Drafts are told anew, so that the board has
    /// them; the store knows them by their ids and keeps them as they are. Closed ones only answer those
    /// who did not hear the answer before the program stopped.
    pub fn resume(kept: Vec<Kept>, now: Now) -> Self {
        let mut cards = Self::new();
        for Kept { card: id, call, caller, line, trunk, queue, operator, fields, state } in kept {
            let state = match state {
                KeptState::Draft => {
                    cards.open(Open { card: id, call, caller, line, trunk, queue, operator }, now);
                    cards.fill(id, fields, now);
                    continue;
                }
                KeptState::Accepted => State::Accepted,
                KeptState::Discarded { reason } => State::Discarded { reason },
            };
            cards.by_call.insert(call, id);
            cards.cards.insert(id, Card { call, caller, line, trunk, queue, operator, fields, state });
            cards.close(id);
        }
        cards
    }

    /// What was typed comes back to an opened card.
    fn fill(&mut self, id: CardId, fields: Fields, now: Now) {
        if !fields.is_empty()
            && let Some(card) = self.cards.get_mut(&id)
        {
            card.fields.clone_from(&fields);
            self.tell(id, What::CardUpdated { card: id, fields }, now);
        }
    }

    /// What is known of every open card: a predecessor's last facts may have died with it.
    pub fn restate(&self) -> Vec<(CallId, What)> {
        let open = self.cards.iter().filter(|(_, card)| card.is_open());
        open.flat_map(|(id, card)| {
            let fields = card.fields.clone();
            let typed = (!fields.is_empty()).then_some(What::CardUpdated { card: *id, fields });
            std::iter::once(opened(*id, card)).chain(typed).map(|what| (card.call, what))
        })
        .collect()
    }

    fn adopt(&mut self, id: CardId, mut card: Card) {
        self.by_call.insert(card.call, id);
        match &mut card.state {
            State::Draft => {}
            State::Saving { seq } => {
                *seq = None;
                self.outputs.push_back(Output::Fact { call: card.call, what: submitted(id, &card) });
            }
            State::Accepted | State::Discarded { .. } => self.closed.push_back(id),
        }
        self.cards.insert(id, card);
    }

    /// All records, as a new standby needs them.
    pub fn records(&self, now: Now) -> Vec<Record> {
        self.cards.iter().map(|(id, card)| Record::put(key(*id), card, now)).collect()
    }

    /// Something happened.
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Open(open) => self.open(open, now),
            Input::Move { card, operator } => self.move_to(card, operator, now),
            Input::Customer { card, customer } => self.customer(card, customer),
            Input::Update { request, card, operator, fields } => {
                let answer = self.update(card, &operator, fields, now);
                self.answer(request, answer);
            }
            Input::Submit(Submit { request, card, operator, fields }) => {
                let answer = self.submit(card, &operator, fields, now);
                self.answer(request, answer);
            }
            Input::Discard { request, card, operator, reason } => {
                let answer = self.discard(card, &operator, &reason, now);
                self.answer(request, answer);
            }
            Input::Numbered { card, seq } => self.numbered(card, seq, now),
            Input::Stored { seq } => self.stored(seq, now),
            Input::CallEnded { call, abandoned } => self.call_ended(call, abandoned, now),
        }
    }

    /// What is to be done next; drain until `None`.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The card of a call, open or lately closed.
    pub fn of_call(&self, call: CallId) -> Option<CardId> {
        self.by_call.get(&call).copied()
    }

    /// Cards on `operator`'s desk.
    pub fn on_desk(&self, operator: &OperatorName) -> Vec<CardId> {
        let open = self.cards.iter().filter(|(_, card)| card.operator == *operator && card.is_open());
        open.map(|(id, _)| *id).collect()
    }

    /// Calls that got no card because every desk together holds [`MAX_OPEN`].
    pub fn refused_opens(&self) -> u64 {
        self.refused_opens
    }

    fn open(&mut self, open: Open, now: Now) {
        if let Some(known) = self.by_call.get(&open.call).copied() {
            self.move_to(known, open.operator, now);
            return;
        }
        if self.cards.len().saturating_sub(self.closed.len()) >= MAX_OPEN {
            self.refused_opens = self.refused_opens.saturating_add(1);
            return;
        }
        let Open { card: id, call, caller, line, trunk, queue, operator } = open;
        let card =
            Card { call, caller, line, trunk, queue, operator, fields: Fields::new(), state: State::Draft };
        let what = opened(id, &card);
        self.by_call.insert(call, id);
        self.cards.insert(id, card);
        self.tell(id, what, now);
    }

    fn move_to(&mut self, id: CardId, operator: OperatorName, now: Now) {
        let Some(card) = self.cards.get_mut(&id) else { return };
        if card.state != State::Draft || card.operator == operator {
            return;
        }
        card.operator = operator.clone();
        self.tell(id, What::CardMoved { card: id, operator }, now);
    }

    fn customer(&mut self, id: CardId, customer: String) {
        let short = customer.chars().count() <= MAX_CUSTOMER_CHARS;
        let Some(card) = self.cards.get(&id).filter(|card| card.is_open() && short) else { return };
        self.outputs
            .push_back(Output::Fact { call: card.call, what: What::CardCustomer { card: id, customer } });
    }

    fn update(&mut self, id: CardId, operator: &OperatorName, fields: Fields, now: Now) -> Answer {
        let card = match own(&mut self.cards, id, operator) {
            Ok(card) => card,
            Err(refusal) => return Answer::Refused(refusal),
        };
        if let Some(refusal) = card.closed_refusal() {
            return Answer::Refused(refusal);
        }
        if let Err(refusal) = check(&fields) {
            return Answer::Refused(refusal);
        }
        if card.fields != fields {
            card.fields.clone_from(&fields);
            self.tell(id, What::CardUpdated { card: id, fields }, now);
        }
        Answer::Ok
    }

    fn submit(&mut self, id: CardId, operator: &OperatorName, fields: Option<Fields>, now: Now) -> Answer {
        let card = match own(&mut self.cards, id, operator) {
            Ok(card) => card,
            Err(refusal) => return Answer::Refused(refusal),
        };
        let same = fields.as_ref().is_none_or(|fields| *fields == card.fields);
        match (&card.state, same) {
            (State::Draft, _) => {}
            (State::Saving { .. }, true) => return Answer::Saving,
            (State::Accepted, true) => return Answer::Accepted,
            (State::Saving { .. } | State::Accepted | State::Discarded { .. }, _) => {
                return card.closed_refusal().map_or(Answer::Ok, Answer::Refused);
            }
        }
        let fields = fields.unwrap_or_else(|| card.fields.clone());
        if let Err(refusal) = check(&fields).and_then(|()| check_filled(&fields)) {
            return Answer::Refused(refusal);
        }
        card.fields = fields;
        card.state = State::Saving { seq: None };
        let what = submitted(id, card);
        self.tell(id, what, now);
        Answer::Saving
    }

    fn discard(&mut self, id: CardId, operator: &OperatorName, reason: &str, now: Now) -> Answer {
        let card = match own(&mut self.cards, id, operator) {
            Ok(card) => card,
            Err(refusal) => return Answer::Refused(refusal),
        };
        if let State::Discarded { reason: known } = &card.state
            && known == reason
        {
            return Answer::Ok;
        }
        if let Some(refusal) = card.closed_refusal() {
            return Answer::Refused(refusal);
        }
        if !REASONS.contains(&reason) {
            let words = format!("the reason is one of {}", REASONS.join(", "));
            return Answer::Refused(Refusal { status: 422, code: "unknown_reason", words });
        }
        self.close_discarded(id, reason, now);
        Answer::Ok
    }

    fn close_discarded(&mut self, id: CardId, reason: &str, now: Now) {
        if let Some(card) = self.cards.get_mut(&id) {
            card.state = State::Discarded { reason: reason.to_owned() };
            self.tell(id, What::CardDiscarded { card: id, reason: reason.to_owned() }, now);
            self.close(id);
        }
    }

    fn numbered(&mut self, id: CardId, fact: u64, now: Now) {
        let Some(card) = self.cards.get_mut(&id) else { return };
        if let State::Saving { seq } = &mut card.state {
            *seq = Some(fact);
            let record = Record::put(key(id), card, now);
            self.outputs.push_back(Output::Record(record));
        }
    }

    fn stored(&mut self, durable: u64, now: Now) {
        let saved = |card: &Card| matches!(card.state, State::Saving { seq: Some(seq) } if seq <= durable);
        let saved: Vec<CardId> =
            self.cards.iter().filter(|(_, card)| saved(card)).map(|(id, _)| *id).collect();
        for id in saved {
            if let Some(card) = self.cards.get_mut(&id) {
                card.state = State::Accepted;
            }
            self.tell(id, What::CardAccepted { card: id }, now);
            self.close(id);
        }
    }

    fn call_ended(&mut self, call: CallId, abandoned: bool, now: Now) {
        let Some(id) = self.by_call.get(&call).copied() else { return };
        let untouched = |card: &Card| card.state == State::Draft && !filled(&card.fields);
        if abandoned && self.cards.get(&id).is_some_and(untouched) {
            self.close_discarded(id, ABANDONED, now);
        }
    }

    /// Remembers a closed card for repeated questions, and forgets the oldest one.
    fn close(&mut self, id: CardId) {
        self.closed.push_back(id);
        if self.closed.len() <= MAX_CLOSED {
            return;
        }
        if let Some(oldest) = self.closed.pop_front()
            && let Some(card) = self.cards.remove(&oldest)
        {
            self.by_call.remove(&card.call);
            self.outputs.push_back(Output::Record(Record::gone(key(oldest))));
        }
    }

    fn answer(&mut self, request: RequestId, answer: Answer) {
        self.outputs.push_back(Output::Answer { request, answer });
    }

    /// A fact about a card, and the card's new record.
    fn tell(&mut self, id: CardId, what: What, now: Now) {
        if let Some(card) = self.cards.get(&id) {
            self.outputs.push_back(Output::Fact { call: card.call, what });
            self.outputs.push_back(Output::Record(Record::put(key(id), card, now)));
        }
    }
}

impl Card {
    fn is_open(&self) -> bool {
        match self.state {
            State::Draft | State::Saving { .. } => true,
            State::Accepted | State::Discarded { .. } => false,
        }
    }

    fn closed_refusal(&self) -> Option<Refusal> {
        let (code, words) = match &self.state {
            State::Draft => return None,
            State::Saving { .. } | State::Accepted => {
                ("already_submitted", "the order was submitted already".to_owned())
            }
            State::Discarded { reason } => ("discarded", format!("the card was discarded: {reason}")),
        };
        Some(Refusal { status: 409, code, words })
    }
}

fn key(id: CardId) -> String {
    format!("card/{id}")
}

/// The fact that a card opened.
fn opened(id: CardId, card: &Card) -> What {
    What::CardOpened {
        card: id,
        caller: card.caller.clone(),
        line: card.line.clone(),
        trunk: card.trunk.clone(),
        queue: card.queue.clone(),
        operator: card.operator.clone(),
    }
}

fn submitted(id: CardId, card: &Card) -> What {
    What::CardSubmitted { card: id, operator: card.operator.clone(), fields: card.fields.clone() }
}

fn own<'a>(
    cards: &'a mut BTreeMap<CardId, Card>,
    id: CardId,
    operator: &OperatorName,
) -> Result<&'a mut Card, Refusal> {
    let Some(card) = cards.get_mut(&id) else {
        let words = "no such card".to_owned();
        return Err(Refusal { status: 404, code: "unknown_card", words });
    };
    if card.operator != *operator {
        let words = "the card is on another desk".to_owned();
        return Err(Refusal { status: 403, code: "not_your_card", words });
    }
    Ok(card)
}

fn check(fields: &Fields) -> Result<(), Refusal> {
    for (name, text) in fields {
        if !FIELD_NAMES.contains(&name.as_str()) {
            let shown: String = name.chars().take(40).collect();
            let words = format!("a card has no field {shown:?}; it has {}", FIELD_NAMES.join(", "));
            return Err(Refusal { status: 422, code: "unknown_field", words });
        }
        let chars = text.chars().count();
        if chars > MAX_FIELD_CHARS {
            let words = format!("{name} has {chars} characters; at most {MAX_FIELD_CHARS} fit");
            return Err(Refusal { status: 422, code: "field_too_long", words });
        }
    }
    Ok(())
}

fn filled(fields: &Fields) -> bool {
    fields.values().any(|text| !text.trim().is_empty())
}

/// An order of nothing is a slip of the finger.
fn check_filled(fields: &Fields) -> Result<(), Refusal> {
    if filled(fields) {
        return Ok(());
    }
    let words = "the card is empty: fill in a field, or discard it".to_owned();
    Err(Refusal { status: 422, code: "empty_card", words })
}
