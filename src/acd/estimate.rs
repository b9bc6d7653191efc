//! How long a caller will wait: his place, times what one call takes, shared among those on shift.

use serde::{Deserialize, Serialize};

/// What one call of a queue takes, from the answer to the end of the wrap-up: a moving average.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Estimate {
    /// `None` before the first call.
    handle_ms: Option<u64>,
}

impl Estimate {
    /// One call took so long: three parts of what was known, one part of what is new.
    pub(crate) fn took(&mut self, handle_ms: u64) {
        let known = self.handle_ms.unwrap_or(handle_ms);
        self.handle_ms = Some(known.saturating_mul(3).saturating_add(handle_ms) / 4);
    }

    /// Of the caller at `place` (1 is next), with so many operators on shift; `None` while nothing is known.
    pub(crate) fn wait_ms(self, place: usize, on_shift: usize) -> Option<u64> {
        let place = u64::try_from(place).unwrap_or(u64::MAX);
        let on_shift = u64::try_from(on_shift).ok().filter(|count| *count > 0)?;
        Some(self.handle_ms?.saturating_mul(place) / on_shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_what_calls_take() {
        let mut estimate = Estimate::default();
        assert_eq!(estimate.wait_ms(1, 3), None);
        estimate.took(60_000);
        assert_eq!(estimate.wait_ms(1, 3), Some(20_000));
        assert_eq!(estimate.wait_ms(6, 3), Some(120_000));
        assert_eq!(estimate.wait_ms(1, 0), None);
        estimate.took(100_000);
        assert_eq!(estimate.wait_ms(1, 1), Some(70_000));
    }
}
