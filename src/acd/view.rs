//! What others may see of the floor.

use crate::acd::operator::{Operator, Work};
use crate::acd::{Floor, QueueConfig, Standing, Ticket, choose};
use crate::fact::Phone;
use crate::terms::{CallId, OperatorName, QueueName};

/// A caller's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// 1 is next.
    pub place: usize,
    /// How long he will probably wait; `None` while no call of the queue has ended or nobody is on shift.
    pub expected_wait_ms: Option<u64>,
}

impl Floor {
    /// Where every operator stands, by name.
    pub fn operators(&self) -> impl Iterator<Item = Standing> {
        self.operators.values().map(Operator::standing)
    }

    /// Where one operator stands.
    pub fn operator(&self, name: &OperatorName) -> Option<Standing> {
        self.operators.get(name).map(Operator::standing)
    }

    /// Whether an operator may dial now: he has a phone and no call. Being paused is no obstacle.
    pub fn can_dial(&self, name: &OperatorName) -> bool {
        self.operators
            .get(name)
            .is_some_and(|operator| operator.work == Work::Free && operator.phone == Phone::Registered)
    }

    /// The queues as configured, by name.
    pub fn queues(&self) -> impl Iterator<Item = &QueueConfig> {
        self.queues.values().map(|queue| &queue.config)
    }

    /// One queue as configured.
    pub fn queue(&self, name: &QueueName) -> Option<&QueueConfig> {
        self.queues.get(name).map(|queue| &queue.config)
    }

    /// The ticket of a call that waits or rings at a desk.
    pub fn ticket(&self, call: CallId) -> Option<&Ticket> {
        self.tickets.get(&call)
    }

    /// The callers of a queue in the order they are served; those who ring at a desk keep their places.
    pub fn line(&self, queue: &QueueName) -> Vec<&Ticket> {
        let mut line: Vec<_> = self.tickets.values().filter(|ticket| ticket.queue == *queue).collect();
        line.sort_by_key(|ticket| choose::turn(ticket, 0));
        line
    }

    /// A caller's place in his queue.
    pub fn place(&self, call: CallId) -> Option<Place> {
        let ticket = self.tickets.get(&call)?;
        let mine = choose::turn(ticket, 0);
        let before = |other: &&Ticket| other.queue == ticket.queue && choose::turn(other, 0) < mine;
        let place = self.tickets.values().filter(before).count() + 1;
        let estimate = self.queues.get(&ticket.queue)?.memory.estimate;
        Some(Place { place, expected_wait_ms: estimate.wait_ms(place, self.logged_in(&ticket.queue)) })
    }
}
