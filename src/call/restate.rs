//! Calls that another process carried, told again by the one that goes on with them.
//!
//! The facts of the other's last batches may have died with it, between its records and its store; and a
//! new board knows nothing yet. So each call is told from its record: the folds know it by its id and
//! take nothing twice.

use crate::call::Calls;
use crate::call::call::{Call, Stage};
use crate::dialplan::Step;
use crate::fact::{Direction, What};
use crate::terms::{CallId, MonoMs, Now, WallMs};

impl Calls {
    /// What is known of every live call, oldest first: when it happened, and what.
    pub fn restate(&self, now: Now) -> Vec<(CallId, WallMs, What)> {
        let told = |call: &Call| {
            let id = call.id;
            call.restate(now).into_iter().map(move |(at, what)| (id, at, what)).collect::<Vec<_>>()
        };
        self.calls.values().flat_map(told).collect()
    }
}

impl Call {
    fn restate(&self, now: Now) -> Vec<(WallMs, What)> {
        let arrived = on_wall(self.arrived_ms, now);
        let inward = self.direction == Direction::In;
        let mut told = vec![(
            arrived,
            What::Arrived {
                direction: self.direction,
                caller: self.caller.clone(),
                called: self.called.clone(),
                line: self.line.clone(),
                trunk: self.trunk.clone().filter(|_| inward),
                operator: self.operator.clone().filter(|_| !inward),
            },
        )];
        let waiting = self.waiting_ms.map_or(arrived, |at| on_wall(at, now));
        if let Some(queue) = self.queue.clone() {
            told.push((waiting, What::Queued { queue, priority: self.priority() }));
        }
        if let Stage::Offering { queue, operator, .. } = &self.stage {
            let (queue, operator) = (queue.clone(), operator.clone());
            told.push((now.wall_ms, What::Assigned { queue, operator }));
        }
        told.extend(self.legs().map(|leg| (now.wall_ms, leg.told())));
        if let Some(answered) = self.answered_at {
            told.push((answered, self.told_answer(now)));
        }
        if self.held {
            told.push((now.wall_ms, What::Held));
        }
        told
    }

    /// Of the queue that it is or was in.
    fn priority(&self) -> i32 {
        let step = self.cursor.checked_sub(1).and_then(|at| self.steps.get(at));
        match step {
            Some(Step::Queue { priority, .. }) => *priority,
            Some(Step::Play { .. } | Step::Dial { .. } | Step::HangUp { .. }) | None => 0,
        }
    }
}

/// An instant of the monotonic clock on the wall.
fn on_wall(at: MonoMs, now: Now) -> WallMs {
    let ago = i64::try_from(now.mono_ms.saturating_sub(at)).unwrap_or(0);
    now.wall_ms.saturating_sub(ago)
}
