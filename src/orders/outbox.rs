//! When which letter to the order core goes out.
//!
//! ```text
//!  Waiting ──▶ in its lane ──Send──▶ in flight ──Delivered──▶ gone
//!                  ▲                    │  └────Refused─────▶ dead
//!                  └──── back-off ◀─────┘ Failed
//! ```
//!
//! A lane is one call's or one card's letters. Invariant: a lane has one letter in flight and keeps its
//! order; a letter that failed is tried for ever; while the core is down only one letter at a time,
//! after a pause that grows as well, finds out whether it is back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::terms::MonoMs;

/// The first pause after a failure, milliseconds.
pub const FIRST_PAUSE_MS: u64 = 200;
/// The longest pause, milliseconds.
pub const LONGEST_PAUSE_MS: u64 = 30_000;
/// The longest pause between two letters while the core is down: soon after it is back all of them flow.
pub const LONGEST_QUIET_MS: u64 = 5_000;
/// Letters in flight at a time to a core on the network.
pub const MAX_IN_FLIGHT: usize = 8;
/// Letters that the schedule holds; the store keeps the others.
pub const MAX_WAITING: usize = 4_096;
/// Failures in a row after which the core counts as down.
pub const DOWN_AFTER: u32 = 3;

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The core has it.
    Delivered,
    /// The core will never take it.
    Refused,
    /// The core may take it later.
    Failed,
}

impl Outcome {
    /// What an HTTP status means. 408, 409 and 429 ask for patience, as does every 5xx; a redirect or
    /// anything else that is neither success nor a plain no comes from something that is not the core.
    pub fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Delivered,
            408 | 409 | 429 => Self::Failed,
            400..=499 => Self::Refused,
            _ => Self::Failed,
        }
    }

    /// Whether a status comes from the core itself, whatever it thinks of the letter; 502 to 504 come from
    /// something that stands before it.
    pub fn shows_life(status: u16) -> bool {
        !(502..=504).contains(&status)
    }
}

#[derive(Debug, Default)]
struct Lane {
    letters: VecDeque<i64>,
    failures: u32,
    due_ms: MonoMs,
    in_flight: bool,
}

/// The schedule.
#[derive(Debug)]
pub struct Schedule {
    lanes: BTreeMap<String, Lane>,
    lane_of: BTreeMap<i64, String>,
    /// Lanes with nothing in flight, by the time their first letter is due.
    due: BTreeSet<(MonoMs, i64)>,
    in_flight: usize,
    failures: u32,
    /// While the core is down nothing goes out before this time.
    quiet_until_ms: MonoMs,
    max_in_flight: usize,
}

impl Schedule {
    /// Nothing waits; at most `max_in_flight` letters go out at a time.
    pub fn new(max_in_flight: usize) -> Self {
        Self {
            lanes: BTreeMap::new(),
            lane_of: BTreeMap::new(),
            due: BTreeSet::new(),
            in_flight: 0,
            failures: 0,
            quiet_until_ms: 0,
            max_in_flight,
        }
    }

    /// Letters that wait or are in flight.
    pub fn len(&self) -> usize {
        self.lane_of.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.lane_of.is_empty()
    }

    /// Whether more can be added.
    pub fn has_room(&self) -> bool {
        self.len() < MAX_WAITING
    }

    /// Whether the core counts as down.
    pub fn is_down(&self) -> bool {
        self.failures >= DOWN_AFTER
    }

    /// A letter waits in `lane`; letters come in ascending order. `false` if the schedule is full. One
    /// that is known already is left where it is.
    pub fn add(&mut self, letter: i64, lane: &str, now_ms: MonoMs) -> bool {
        if self.lane_of.contains_key(&letter) {
            return true;
        }
        if !self.has_room() {
            return false;
        }
        self.lane_of.insert(letter, lane.to_owned());
        let lane = self.lanes.entry(lane.to_owned()).or_default();
        lane.letters.push_back(letter);
        if lane.letters.len() == 1 {
            lane.due_ms = now_ms;
            self.due.insert((now_ms, letter));
        }
        true
    }

    /// The next letter to send now, if one is due.
    pub fn poll(&mut self, now_ms: MonoMs) -> Option<i64> {
        let (due_ms, letter) = *self.due.first()?;
        if due_ms.max(self.quiet_until_ms) > now_ms || self.in_flight >= self.allowed() {
            return None;
        }
        self.due.pop_first();
        self.in_flight = self.in_flight.saturating_add(1);
        if let Some(lane) = self.lane_of.get(&letter).and_then(|lane| self.lanes.get_mut(lane)) {
            lane.in_flight = true;
        }
        Some(letter)
    }

    /// When [`Schedule::poll`] will have one, if no answer comes before.
    pub fn next_timeout(&self) -> Option<MonoMs> {
        let first = self.due.first().map(|(due_ms, _)| due_ms.max(&self.quiet_until_ms)).copied();
        first.filter(|_| self.in_flight < self.allowed())
    }

    /// An attempt ended. `alive` says whether the core itself answered; `random` (from outside) spreads
    /// the next attempt over the second half of its pause, so that letters do not come in waves.
    pub fn ended(&mut self, letter: i64, outcome: Outcome, alive: bool, random: u32, now_ms: MonoMs) {
        let Some(name) = self.lane_of.get(&letter).cloned() else { return };
        self.failures = if alive { 0 } else { self.failures.saturating_add(1) };
        self.quiet_until_ms = match self.failures.checked_sub(DOWN_AFTER) {
            Some(beyond) => now_ms.saturating_add(pause_ms(beyond, random).min(LONGEST_QUIET_MS)),
            None => 0,
        };
        let Some(lane) = self.lanes.get_mut(&name).filter(|lane| lane.in_flight) else { return };
        self.in_flight = self.in_flight.saturating_sub(1);
        lane.in_flight = false;
        match outcome {
            Outcome::Failed => {
                lane.due_ms = now_ms.saturating_add(pause_ms(lane.failures, random));
                lane.failures = lane.failures.saturating_add(1);
            }
            Outcome::Delivered | Outcome::Refused => {
                lane.letters.pop_front();
                lane.failures = 0;
                lane.due_ms = now_ms;
                self.lane_of.remove(&letter);
            }
        }
        match lane.letters.front() {
            Some(next) => {
                self.due.insert((lane.due_ms, *next));
            }
            None => {
                self.lanes.remove(&name);
            }
        }
    }

    fn allowed(&self) -> usize {
        if self.is_down() { 1 } else { self.max_in_flight }
    }
}

/// 0.2, 0.4, … 30 s, of which `random` takes off up to half.
pub fn pause_ms(failures: u32, random: u32) -> u64 {
    let whole = FIRST_PAUSE_MS.saturating_mul(1_u64.checked_shl(failures.min(20)).unwrap_or(u64::MAX));
    let whole = whole.min(LONGEST_PAUSE_MS);
    let half = whole / 2;
    half.saturating_add(u64::from(random) % half.saturating_add(1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_lane_keeps_its_order_and_lanes_do_not_wait_for_each_other() {
        let mut schedule = Schedule::new(MAX_IN_FLIGHT);
        for (letter, lane) in [(1, "a"), (2, "a"), (3, "b")] {
            assert!(schedule.add(letter, lane, 0));
        }
        assert_eq!((schedule.poll(0), schedule.poll(0), schedule.poll(0)), (Some(1), Some(3), None));
        schedule.ended(1, Outcome::Failed, true, 0, 10);
        schedule.ended(3, Outcome::Delivered, true, 0, 10);
        assert_eq!((schedule.poll(10), schedule.next_timeout()), (None, Some(110)));
        assert_eq!(schedule.poll(110), Some(1));
        schedule.ended(1, Outcome::Delivered, true, 0, 120);
        assert_eq!(schedule.poll(120), Some(2));
        schedule.ended(2, Outcome::Refused, true, 0, 130);
        assert!(schedule.is_empty() && schedule.lanes.is_empty() && schedule.due.is_empty());
    }

    #[test]
    fn pauses_grow_to_half_a_minute_and_keep_half_of_themselves() {
        for (failures, whole) in [(0, 200), (1, 400), (5, 6_400), (8, 30_000), (4_000, 30_000)] {
            assert_eq!(pause_ms(failures, 0), whole / 2);
            assert_eq!(pause_ms(failures, u32::try_from(whole / 2).unwrap()), whole);
            assert!((whole / 2..=whole).contains(&pause_ms(failures, u32::MAX)));
        }
    }

    #[test]
    fn while_the_core_is_down_one_letter_at_a_time_asks_for_it() {
        let mut schedule = Schedule::new(MAX_IN_FLIGHT);
        for letter in 1..=20 {
            schedule.add(letter, &letter.to_string(), 0);
        }
        let sent: Vec<i64> = std::iter::from_fn(|| schedule.poll(0)).collect();
        assert_eq!(sent.len(), MAX_IN_FLIGHT);
        for letter in sent {
            schedule.ended(letter, Outcome::Failed, false, 0, 0);
        }
        assert!(schedule.is_down());
        let beyond = u32::try_from(MAX_IN_FLIGHT).unwrap() - DOWN_AFTER;
        let quiet_ms = pause_ms(beyond, 0).min(LONGEST_QUIET_MS);
        assert_eq!((schedule.poll(quiet_ms - 1), schedule.next_timeout()), (None, Some(quiet_ms)));
        let probe = schedule.poll(quiet_ms).unwrap();
        assert_eq!((schedule.poll(60_000), schedule.next_timeout()), (None, None));
        schedule.ended(probe, Outcome::Delivered, true, 0, 60_000);
        assert_eq!(std::iter::from_fn(|| schedule.poll(60_000)).count(), MAX_IN_FLIGHT);
    }

    #[test]
    fn a_status_says_what_becomes_of_the_letter() {
        let table = [
            (200, Outcome::Delivered),
            (201, Outcome::Delivered),
            (302, Outcome::Failed),
            (400, Outcome::Refused),
            (404, Outcome::Refused),
            (408, Outcome::Failed),
            (409, Outcome::Failed),
            (422, Outcome::Refused),
            (429, Outcome::Failed),
            (500, Outcome::Failed),
            (503, Outcome::Failed),
        ];
        for (status, outcome) in table {
            assert_eq!(Outcome::of_status(status), outcome, "{status}");
        }
    }

    #[test]
    fn a_full_schedule_says_so_and_a_letter_is_taken_once() {
        let mut schedule = Schedule::new(MAX_IN_FLIGHT);
        for letter in 0..i64::try_from(MAX_WAITING).unwrap() {
            assert!(schedule.add(letter, "a", 0));
        }
        assert!(!schedule.add(-1, "b", 0));
        assert!(schedule.add(5, "a", 0));
        assert_eq!(schedule.len(), MAX_WAITING);
        schedule.ended(7, Outcome::Delivered, true, 0, 0);
        assert_eq!(schedule.len(), MAX_WAITING, "only a letter in flight can end");
    }
}
