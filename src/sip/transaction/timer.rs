//! The timers of RFC 3261 section 17 (its table 4) and RFC 6026, in virtual time.
//!
//! Invariant: an object knows all its deadlines itself ([`Armed`], which goes into its record); the
//! alarm clock ([`Alarms`]) holds exactly those, so that nothing rings for an object that is gone.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::record::moved;
use crate::terms::MonoMs;

/// Estimated round trip.
pub(crate) const T1_MS: u64 = 500;
/// The longest pause between retransmissions of anything but an INVITE.
pub(crate) const T2_MS: u64 = 4_000;
/// How long a message may stay in the network.
pub(crate) const T4_MS: u64 = 5_000;
/// Timers B, F, H, J, L, M: how long a transaction tries or remembers.
pub(crate) const GIVE_UP_MS: u64 = 64 * T1_MS;
/// Timer D: how long repeated refusals of our INVITE are acknowledged.
pub(crate) const D_MS: u64 = 32_000;

/// The letters of RFC 3261 table 4 and RFC 6026.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Timer {
    /// INVITE retransmission.
    A,
    /// INVITE gives up.
    B,
    /// Repeated refusals of an INVITE are over.
    D,
    /// Retransmission of another request.
    E,
    /// Another request gives up.
    F,
    /// Retransmission of a refusal.
    G,
    /// Waiting for the ACK gives up.
    H,
    /// Repeated ACKs are over.
    I,
    /// Repeated requests are over.
    J,
    /// Repeated responses are over.
    K,
    /// Repeated INVITEs after our 2xx are over.
    L,
    /// Repeated 2xx and those of forks are over.
    M,
}

/// The deadlines of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Armed<T>(Vec<(T, MonoMs)>);

impl<T> Default for Armed<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy + PartialEq> Armed<T> {
    /// When it rings.
    pub(crate) fn at(&self, timer: T) -> Option<MonoMs> {
        self.0.iter().find(|(which, _)| *which == timer).map(|(_, at)| *at)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (T, MonoMs)> {
        self.0.iter().copied()
    }

    /// Moves them onto another clock.
    pub(crate) fn shift(&mut self, shift_ms: i64) {
        for (_, at) in &mut self.0 {
            *at = moved(*at, shift_ms);
        }
    }

    fn put(&mut self, timer: T, at: MonoMs) -> Option<MonoMs> {
        let old = self.take(timer);
        self.0.push((timer, at));
        old
    }

    fn take(&mut self, timer: T) -> Option<MonoMs> {
        let place = self.0.iter().position(|(which, _)| *which == timer)?;
        Some(self.0.swap_remove(place).1)
    }
}

/// What rings next.
#[derive(Debug)]
pub(crate) struct Alarms<W> {
    due: BTreeSet<(MonoMs, W)>,
}

impl<W: Ord> Default for Alarms<W> {
    fn default() -> Self {
        Self { due: BTreeSet::new() }
    }
}

impl<W: Ord + Copy> Alarms<W> {
    /// Sets `timer` of an object to ring at `at`, instead of any earlier setting.
    pub(crate) fn arm<T: Copy + PartialEq>(
        &mut self,
        armed: &mut Armed<T>,
        timer: T,
        at: MonoMs,
        wake: impl Fn(T) -> W,
    ) {
        if let Some(old) = armed.put(timer, at) {
            self.due.remove(&(old, wake(timer)));
        }
        self.due.insert((at, wake(timer)));
    }

    /// Lets `timer` of an object not ring.
    pub(crate) fn disarm<T: Copy + PartialEq>(
        &mut self,
        armed: &mut Armed<T>,
        timer: T,
        wake: impl Fn(T) -> W,
    ) {
        if let Some(old) = armed.take(timer) {
            self.due.remove(&(old, wake(timer)));
        }
    }

    /// Forgets all timers of an object that goes.
    pub(crate) fn forget<T: Copy + PartialEq>(&mut self, armed: &Armed<T>, wake: impl Fn(T) -> W) {
        for (timer, at) in armed.iter() {
            self.due.remove(&(at, wake(timer)));
        }
    }

    /// Takes in the timers of an object that was restored.
    pub(crate) fn adopt<T: Copy + PartialEq>(&mut self, armed: &Armed<T>, wake: impl Fn(T) -> W) {
        for (timer, at) in armed.iter() {
            self.due.insert((at, wake(timer)));
        }
    }

    /// When the next one rings.
    pub(crate) fn next(&self) -> Option<MonoMs> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next one that is due.
    pub(crate) fn pop(&mut self, now: MonoMs) -> Option<W> {
        if self.next()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, wake)| wake)
    }

    /// How many are set.
    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_set_again_rings_once_and_a_forgotten_one_never() {
        let (mut alarms, mut armed) = (Alarms::<Timer>::default(), Armed::default());
        alarms.arm(&mut armed, Timer::A, 500, |timer| timer);
        alarms.arm(&mut armed, Timer::A, 900, |timer| timer);
        alarms.arm(&mut armed, Timer::B, 700, |timer| timer);
        assert_eq!((alarms.next(), alarms.len()), (Some(700), 2));
        assert_eq!(alarms.pop(699), None);
        alarms.disarm(&mut armed, Timer::B, |timer| timer);
        assert_eq!(alarms.pop(2_000), Some(Timer::A));
        alarms.adopt(&armed, |timer| timer);
        alarms.forget(&armed, |timer| timer);
        assert_eq!(alarms.pop(2_000), None);
    }

    #[test]
    fn deadlines_move_onto_another_clock() {
        let (mut alarms, mut armed) = (Alarms::<Timer>::default(), Armed::default());
        alarms.arm(&mut armed, Timer::K, 500, |timer| timer);
        armed.shift(-200);
        assert_eq!(armed.at(Timer::K), Some(300));
    }
}
