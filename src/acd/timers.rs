//! The floor's timers: ringing, waiting, wrap-up, rest.

use crate::acd::operator::{Operator, Work, WrapUp};
use crate::acd::queue::Ticket;
use crate::acd::words::{FloorEvent, LeftWhy, NotAnswered};
use crate::acd::{Floor, NO_ANSWER_REASON, Wanted};
use crate::terms::{CallId, MonoMs, Now};

impl Floor {
    /// When [`Floor::handle_timeout`] is to be called next.
    pub fn next_timeout(&self) -> Option<MonoMs> {
        let waiting = self.tickets.values().filter(|ticket| ticket.offered.is_none());
        let waits = waiting.filter_map(|ticket| ticket.deadline_ms);
        let operators = self.operators.values().filter_map(Operator::next_timeout);
        waits.chain(operators).min()
    }

    /// Time has come: call it at [`Floor::next_timeout`] or any time later.
    pub fn handle_timeout(&mut self, now: Now) {
        let rang_out: Vec<CallId> =
            self.operators.values().filter_map(|operator| operator.rang_out(now)).collect();
        for call in rang_out {
            self.unassign(call, NotAnswered::NoAnswer, now);
        }
        let due: Vec<_> = self
            .operators
            .values()
            .filter(|operator| operator.next_timeout().is_some_and(|at| at <= now.mono_ms))
            .map(|operator| operator.name.clone())
            .collect();
        for name in due {
            self.with_operator(&name, now, |operator| operator.time_passed(now));
        }
        self.settle(now);
    }

    /// Callers who do not wait any more. One whose call is ringing at a desk is left there: he goes when
    /// nobody answers.
    pub(super) fn let_go(&mut self, now: Now) {
        let gone: Vec<_> = self
            .tickets
            .values()
            .filter(|ticket| ticket.offered.is_none())
            .filter_map(|ticket| Some((ticket.call, self.why_gone(ticket, now)?)))
            .collect();
        for (call, why) in gone {
            let Some(ticket) = self.tickets.remove(&call) else { continue };
            self.changed.tickets.insert(call);
            self.events.push_back(FloorEvent::Left { call, queue: ticket.queue, why });
        }
    }

    fn why_gone(&self, ticket: &Ticket, now: Now) -> Option<LeftWhy> {
        let Some(queue) = self.queues.get(&ticket.queue) else { return Some(LeftWhy::Closed) };
        if ticket.deadline_ms.is_some_and(|deadline| deadline <= now.mono_ms) {
            return Some(LeftWhy::Timeout);
        }
        (queue.config.leave_empty && self.logged_in(&ticket.queue) == 0).then_some(LeftWhy::Empty)
    }
}

impl WrapUp {
    pub(super) fn begin(wrap_up_ms: u64, now: Now) -> Self {
        Self {
            until_ms: now.mono_ms.saturating_add(wrap_up_ms),
            until: now.wall_ms.saturating_add_unsigned(wrap_up_ms),
        }
    }
}

impl Operator {
    fn next_timeout(&self) -> Option<MonoMs> {
        let ring = match self.work {
            Work::Offered { until_ms, .. } => Some(until_ms),
            Work::Free | Work::Dialling { .. } | Work::Talking { .. } => None,
        };
        [ring, self.wrap_up.map(|wrap_up| wrap_up.until_ms), self.rest_until_ms].into_iter().flatten().min()
    }

    /// The call that rang long enough.
    fn rang_out(&self, now: Now) -> Option<CallId> {
        match self.work {
            Work::Offered { call, until_ms } if until_ms <= now.mono_ms => Some(call),
            Work::Free | Work::Offered { .. } | Work::Dialling { .. } | Work::Talking { .. } => None,
        }
    }

    fn time_passed(&mut self, now: Now) {
        self.wrap_up = self.wrap_up.filter(|wrap_up| wrap_up.until_ms > now.mono_ms);
        self.rest_until_ms = self.rest_until_ms.filter(|until_ms| *until_ms > now.mono_ms);
    }

    /// A call rang at his desk for nothing; after `limit` of them he is paused.
    pub(super) fn missed(&mut self, limit: u32) {
        self.no_answers = self.no_answers.saturating_add(1);
        if self.no_answers >= limit && self.wanted == Wanted::Available {
            self.wanted = Wanted::Paused;
            self.reason = NO_ANSWER_REASON.to_owned();
            self.no_answers = 0;
        }
    }
}
