//! The floor as records, and the floor made of records.

use crate::acd::operator::{Operator, Work};
use crate::acd::{Changed, Floor, QueueConfig, QueueMemory, Ticket};
use crate::record::{Record, RecordError, decode, moved, shift_ms};
use crate::terms::{CallId, Now, OperatorName, QueueName};

/// First part of a ticket's key; the call's id follows.
const TICKET: &str = "acd/ticket/";
/// First part of an operator's key; the name follows.
const OPERATOR: &str = "acd/operator/";
/// First part of the key of what a queue remembers; the name follows.
const QUEUE: &str = "acd/queue/";

/// Why a floor could not be made of records.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A record does not decode.
    #[error("{key}: {source}")]
    Record {
        /// Which.
        key: String,
        /// Why.
        source: RecordError,
    },
    /// A key that the floor never wrote.
    #[error("{0}: no record of the floor")]
    Key(String),
}

impl Floor {
    /// What changed since the last call, as upserts and tombstones: one atomic batch after each input.
    pub fn records(&mut self, now: Now) -> Vec<Record> {
        let Changed { tickets, operators, queues, unsaid } = std::mem::take(&mut self.changed);
        self.changed.unsaid = unsaid;
        let tickets =
            tickets.into_iter().map(|call| record(format!("{TICKET}{call}"), self.tickets.get(&call), now));
        let operators = operators
            .into_iter()
            .map(|name| record(format!("{OPERATOR}{name}"), self.operators.get(&name), now));
        let queues = queues.into_iter().map(|name| {
            let memory = self.queues.get(&name).map(|queue| &queue.memory);
            record(format!("{QUEUE}{name}"), memory, now)
        });
        tickets.chain(operators).chain(queues).collect()
    }

    /// The floor that wrote these `(key, envelope)`s, on this process's clock. Says nothing by itself;
    /// the next input or time-out goes on where the other floor stood.
    ///
    /// # Errors
    /// [`RestoreError`] if a record is damaged or is not the floor's.
    pub fn restore<'a>(
        queues: Vec<QueueConfig>,
        records: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        now: Now,
    ) -> Result<Self, RestoreError> {
        let mut floor = Self::new(queues);
        for (key, bytes) in records {
            floor.take_in(key, bytes, now)?;
        }
        floor.mend();
        floor.said = floor.operators().map(|standing| (standing.operator.clone(), standing)).collect();
        Ok(floor)
    }

    fn take_in(&mut self, key: &str, bytes: &[u8], now: Now) -> Result<(), RestoreError> {
        let damaged = |source| RestoreError::Record { key: key.to_owned(), source };
        if key.starts_with(TICKET) {
            let (written, mut ticket): (Now, Ticket) = decode(bytes).map_err(damaged)?;
            ticket.shift(shift_ms(written, now));
            self.next_number = self.next_number.max(ticket.number);
            self.tickets.insert(ticket.call, ticket);
        } else if key.starts_with(OPERATOR) {
            let (written, mut operator): (Now, Operator) = decode(bytes).map_err(damaged)?;
            operator.shift(shift_ms(written, now));
            self.operators.insert(operator.name.clone(), operator);
        } else if let Some(name) = key.strip_prefix(QUEUE) {
            let (written, mut memory): (Now, QueueMemory) = decode(bytes).map_err(damaged)?;
            memory.shift(shift_ms(written, now));
            if let Some(queue) = self.queues.get_mut(&QueueName::from(name)) {
                queue.memory = memory;
            }
        } else {
            return Err(RestoreError::Key(key.to_owned()));
        }
        Ok(())
    }

    /// Ticket and operator must say the same; where a record is missing, the caller waits again and the
    /// operator is free.
    fn mend(&mut self) {
        let offered: Vec<(CallId, OperatorName)> = self
            .operators
            .values()
            .filter_map(|operator| match operator.work {
                Work::Offered { call, .. } => Some((call, operator.name.clone())),
                Work::Free | Work::Dialling { .. } | Work::Talking { .. } => None,
            })
            .collect();
        for (call, name) in &offered {
            let agrees = self.tickets.get(call).is_some_and(|ticket| ticket.offered.as_ref() == Some(name));
            if let Some(operator) = self.operators.get_mut(name).filter(|_| !agrees) {
                operator.work = Work::Free;
                self.changed.operators.insert(name.clone());
            }
        }
        for ticket in self.tickets.values_mut() {
            let agrees =
                ticket.offered.as_ref().is_none_or(|name| offered.contains(&(ticket.call, name.clone())));
            if !agrees {
                ticket.offered = None;
                self.changed.tickets.insert(ticket.call);
            }
        }
    }
}

/// The object as it stands, or a tombstone.
fn record<T: serde::Serialize>(key: String, value: Option<&T>, now: Now) -> Record {
    match value {
        Some(value) => Record::put(key, value, now),
        None => Record::gone(key),
    }
}

impl Ticket {
    fn shift(&mut self, by_ms: i64) {
        self.joined_ms = self.joined_ms.saturating_add(by_ms);
        self.deadline_ms = self.deadline_ms.map(|deadline| moved(deadline, by_ms));
    }
}

impl Operator {
    fn shift(&mut self, by_ms: i64) {
        self.idle_since_ms = self.idle_since_ms.saturating_add(by_ms);
        self.rest_until_ms = self.rest_until_ms.map(|until_ms| moved(until_ms, by_ms));
        if let Some(wrap_up) = &mut self.wrap_up {
            wrap_up.until_ms = moved(wrap_up.until_ms, by_ms);
        }
        match &mut self.work {
            Work::Free | Work::Dialling { .. } => {}
            Work::Offered { until_ms, .. } => *until_ms = moved(*until_ms, by_ms),
            Work::Talking { since_ms, .. } => *since_ms = since_ms.saturating_add(by_ms),
        }
    }
}

impl QueueMemory {
    fn shift(&mut self, by_ms: i64) {
        for place in self.kept.values_mut() {
            place.joined_ms = place.joined_ms.saturating_add(by_ms);
            place.until_ms = moved(place.until_ms, by_ms);
        }
    }
}
