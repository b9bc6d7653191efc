//! Time: ports' deadlines, and what is told to the driver.

use std::cmp::Reverse;
use std::sync::PoisonError;

use tokio::sync::mpsc::error::TrySendError;

use super::{MAX_BACKLOG, Worker, collect};
use crate::media::command::{Counts, Event};

/// How often progress and counts are told, microseconds.
const TELL_US: u64 = 100_000;
const TELL_COUNTS_US: u64 = 1_000_000;

impl Worker {
    pub(super) fn run_timers(&mut self, now_us: u64) {
        while let Some(Reverse((due, at))) = self.timers.peek().copied() {
            if due > now_us {
                break;
            }
            self.timers.pop();
            if self.outbox.is_nearly_full() {
                self.flush();
            }
            // An entry that the slot no longer counts on is a left-over.
            let Some(slot) =
                self.slots.get_mut(at).and_then(Option::as_mut).filter(|slot| slot.due_us == due)
            else {
                continue;
            };
            slot.port.handle_timeout(now_us, &mut self.outbox);
            slot.due_us = u64::MAX;
            collect(slot, &mut self.backlog, &mut self.outbox.counts);
            self.schedule(at);
        }
    }

    /// Enters the port's next time into the heap if it is earlier than the one that is there.
    pub(super) fn schedule(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
        let next = slot.port.next_timeout();
        if next < slot.due_us {
            slot.due_us = next;
            self.timers.push(Reverse((next, at)));
        }
    }

    pub(super) fn tell(&mut self, now_us: u64) {
        if now_us < self.tell_us {
            return;
        }
        self.tell_us = now_us + TELL_US;
        let mut progress = Vec::with_capacity(self.by_id.len());
        progress.extend(self.slots.iter_mut().flatten().filter_map(|slot| slot.port.progress()));
        if !progress.is_empty() {
            self.push(Event::Progress(progress));
        }
        let counts = self.publish();
        if now_us >= self.tell_counts_us && counts != self.told {
            self.tell_counts_us = now_us + TELL_COUNTS_US;
            self.told = counts;
            self.push(Event::Counts(counts));
        }
    }

    /// Shows the counts to whoever asks from outside.
    pub(super) fn publish(&mut self) -> Counts {
        self.outbox.counts.ports = u64::try_from(self.by_id.len()).unwrap_or(0);
        let counts = self.outbox.counts;
        *self.setting.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        counts
    }

    pub(super) fn push(&mut self, event: Event) {
        if self.backlog.len() < MAX_BACKLOG {
            self.backlog.push_back(event);
        } else {
            self.outbox.counts.lost_events += 1;
        }
    }

    /// Hands events to the driver; what it has no room for waits here.
    pub(super) fn say(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            match self.setting.events.try_send((self.setting.number, event)) {
                Ok(()) => {}
                Err(TrySendError::Full((_, event))) => {
                    self.backlog.push_front(event);
                    return;
                }
                Err(TrySendError::Closed(_)) => self.outbox.counts.lost_events += 1,
            }
        }
    }
}
