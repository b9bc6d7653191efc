//! Who is served next, and by whom.

use crate::acd::operator::Operator;
use crate::acd::queue::{Strategy, Ticket};

/// The order in which callers are served: weight of the queue, priority, time of joining, number.
pub(crate) type Turn = (std::cmp::Reverse<i32>, i32, i64, u64);

/// A caller's turn; smaller is earlier.
pub(crate) fn turn(ticket: &Ticket, weight: i32) -> Turn {
    (std::cmp::Reverse(weight), ticket.priority, ticket.joined_ms, ticket.number)
}

/// The operator for `ticket` out of those who could be given a call now: one who was not asked yet for
/// this caller, while there is one.
pub(crate) fn operator<'a>(
    strategy: Strategy,
    ticket: &Ticket,
    eligible: impl Iterator<Item = &'a Operator>,
) -> Option<&'a Operator> {
    let serving = eligible.filter(|operator| operator.queues.contains(&ticket.queue));
    match strategy {
        Strategy::LongestIdle => serving.min_by_key(|operator| {
            (ticket.tried.contains(&operator.name), operator.idle_since_ms, operator.name.clone())
        }),
    }
}
