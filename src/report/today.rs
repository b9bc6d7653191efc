//! Counters since local midnight, which the wallboard shows.
//!
//! Invariant: each caller who entered a queue is counted once as offered there and at most once as
//! answered or abandoned; ratios are absent, not zero, before the first case.

use crate::report::shape::QueueToday;

/// A queue's counters.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct QueueDay {
    pub(super) offered: u64,
    pub(super) answered: u64,
    pub(super) in_time: u64,
    pub(super) abandoned: u64,
    pub(super) short_abandoned: u64,
    pub(super) wait_ms: u64,
    pub(super) handled: u64,
    pub(super) handle_ms: u64,
}

impl QueueDay {
    pub(super) fn answer(&mut self, wait_ms: u64, service_level_ms: u64) {
        self.answered = self.answered.saturating_add(1);
        self.wait_ms = self.wait_ms.saturating_add(wait_ms);
        if wait_ms <= service_level_ms {
            self.in_time = self.in_time.saturating_add(1);
        }
    }

    pub(super) fn abandon(&mut self, wait_ms: u64, short_abandon_ms: u64) {
        self.abandoned = self.abandoned.saturating_add(1);
        if wait_ms <= short_abandon_ms {
            self.short_abandoned = self.short_abandoned.saturating_add(1);
        }
    }

    pub(super) fn shape(&self) -> QueueToday {
        let judged = self.answered.saturating_add(self.abandoned).saturating_sub(self.short_abandoned);
        QueueToday {
            offered: self.offered,
            answered: self.answered,
            abandoned: self.abandoned,
            short_abandoned: self.short_abandoned,
            service_level: share(self.in_time, judged),
            asa_ms: self.wait_ms.checked_div(self.answered).unwrap_or(0),
            aht_ms: self.handle_ms.checked_div(self.handled).unwrap_or(0),
        }
    }
}

/// A trunk's counters for outgoing calls.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TrunkDay {
    pub(super) tried: u64,
    pub(super) answered: u64,
    pub(super) false_answers: u64,
}

impl TrunkDay {
    pub(super) fn asr(&self) -> Option<f64> {
        share(self.answered, self.tried)
    }
}

/// An operator's counters.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OperatorDay {
    pub(super) calls: u64,
    pub(super) talk_ms: u64,
}

/// `part / whole` to four digits, absent for an empty whole.
fn share(part: u64, whole: u64) -> Option<f64> {
    let part = u32::try_from(part.min(whole)).unwrap_or(u32::MAX);
    let whole = u32::try_from(whole).unwrap_or(u32::MAX);
    (whole > 0).then(|| (f64::from(part) / f64::from(whole) * 10_000.0).round() / 10_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_level_leaves_out_the_short_abandoned() {
        let mut day = QueueDay { offered: 4, ..QueueDay::default() };
        assert_eq!(day.shape().service_level, None);
        day.answer(5_000, 20_000);
        day.answer(25_000, 20_000);
        day.abandon(2_000, 5_000);
        day.abandon(60_000, 5_000);
        let shape = day.shape();
        assert_eq!(shape.service_level, Some(0.3333));
        assert_eq!((shape.asa_ms, shape.aht_ms, shape.short_abandoned), (15_000, 0, 1));
    }
}
