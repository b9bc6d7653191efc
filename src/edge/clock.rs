//! The only place that reads time.
//!
//! Invariant: monotonic time begins with the process and never goes back; everybody else is told.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::terms::{MonoMs, Now, WallMs};

/// Monotonic zero lies this far before the process's start, so that "long ago" is never below zero.
const HEAD_START: Duration = Duration::from_secs(86_400);

/// The instant that monotonic zero stands for, for crates that want an `Instant`.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(Instant::now)
}

/// Microseconds of the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn mono_us() -> u64 {
    let since = Instant::now().saturating_duration_since(base()).saturating_add(HEAD_START);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Milliseconds of the monotonic clock.
pub fn mono_ms() -> MonoMs {
    mono_us() / 1_000
}

/// Microseconds since 1970 on the wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Milliseconds since 1970 on the wall clock.
pub fn wall_ms() -> WallMs {
    wall_us() / 1_000
}

/// Both clocks, read once for one step.
pub fn now() -> Now {
    Now { mono_ms: mono_ms(), wall_ms: wall_ms() }
}

/// The tokio instant at which the monotonic clock will show `at`.
pub fn instant_of(at: MonoMs) -> tokio::time::Instant {
    let from_base = Duration::from_millis(at).saturating_sub(HEAD_START);
    tokio::time::Instant::from_std(base() + from_base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_goes_on_and_an_instant_of_now_is_not_in_the_future() {
        let first = mono_us();
        assert!(mono_us() >= first);
        assert!(instant_of(mono_ms()) <= tokio::time::Instant::now());
    }
}
