//! Counts failed log-ins, so that guessing a password takes years.
//!
//! Invariant: the table is bounded; a full one forgets the failure that is oldest, never a fresh one.
//! A stranger cannot lock an operator out of his own desk: a lock is per account *and* source.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use crate::sip::Prefix;
use crate::terms::MonoMs;

/// Pairs of source and account that are remembered.
const ENTRIES_MAX: usize = 10_000;
/// One source may fail so many times the limit over all accounts before it is locked as a whole:
/// an office behind one address has many people who mistype.
const SOURCE_FACTOR: u32 = 10;
/// Longest account name that is kept as a key.
const NAME_MAX_CHARS: usize = 64;

/// Whose failures: a source's on one account, or a source's on all.
type Key = (IpAddr, Option<String>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last_at: MonoMs,
}

/// The failed log-ins of the last while.
#[derive(Debug)]
pub(super) struct Throttle {
    limit: u32,
    ban_ms: u64,
    never_ban: Vec<Prefix>,
    failures: Mutex<HashMap<Key, Failures>>,
}

impl Throttle {
    /// Locks after `limit` failures, for `ban_ms`; sources in `never_ban` are locked only per account.
    pub(super) fn new(limit: u32, ban_ms: u64, never_ban: Vec<Prefix>) -> Self {
        Self { limit: limit.max(1), ban_ms, never_ban, failures: Mutex::default() }
    }

    /// Seconds to wait, if this source may not try this account now.
    pub(super) fn wait_s(&self, source: IpAddr, account: &str, now: MonoMs) -> Option<u64> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |key: &Key, limit: u32| {
            let known = failures.get(key).filter(|known| known.count >= limit)?;
            let until = known.last_at.saturating_add(self.ban_ms);
            Some(until.saturating_sub(now)).filter(|left| *left > 0)
        };
        let (pair, whole) = keys(source, account);
        let longest = left(&pair, self.limit).max(left(&whole, self.limit.saturating_mul(SOURCE_FACTOR)));
        longest.map(|left_ms| left_ms.div_ceil(1_000))
    }

    /// A log-in is tried. It counts as failed until [`Self::passed`] says otherwise, so that many
    /// guesses at the same moment count as many.
    pub(super) fn tried(&self, source: IpAddr, account: &str, now: MonoMs) {
        let (pair, whole) = keys(source, account);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let spared = self.never_ban.iter().any(|prefix| prefix.contains(source));
        for key in [Some(pair), Some(whole).filter(|_| !spared)].into_iter().flatten() {
            make_room(&mut failures, &key, now, self.ban_ms);
            let known = failures.entry(key).or_insert(Failures { count: 0, last_at: now });
            if now.saturating_sub(known.last_at) > self.ban_ms {
                known.count = 0;
            }
            known.count = known.count.saturating_add(1);
            known.last_at = now;
        }
    }

    /// The try went well: the person's earlier slips are forgiven, those of others at his source are not.
    pub(super) fn passed(&self, source: IpAddr, account: &str) {
        let (pair, whole) = keys(source, account);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(&pair);
        take_back(&mut failures, &whole);
    }

    /// The try could not be judged (the store was away): it does not count.
    pub(super) fn unjudged(&self, source: IpAddr, account: &str) {
        let (pair, whole) = keys(source, account);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        take_back(&mut failures, &pair);
        take_back(&mut failures, &whole);
    }
}

fn take_back(failures: &mut HashMap<Key, Failures>, key: &Key) {
    if let Some(known) = failures.get_mut(key) {
        known.count = known.count.saturating_sub(1);
    }
}

fn keys(source: IpAddr, account: &str) -> (Key, Key) {
    let source = network(source);
    let name: String = account.chars().take(NAME_MAX_CHARS).collect::<String>().to_lowercase();
    ((source, Some(name)), (source, None))
}

/// One IPv6 customer owns a /64 and could change his address with every try.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

fn make_room(failures: &mut HashMap<Key, Failures>, key: &Key, now: MonoMs, ban_ms: u64) {
    if failures.len() < ENTRIES_MAX || failures.contains_key(key) {
        return;
    }
    failures.retain(|_, known| now.saturating_sub(known.last_at) <= ban_ms);
    if failures.len() >= ENTRIES_MAX
        && let Some(oldest) =
            failures.iter().min_by_key(|(_, known)| known.last_at).map(|(key, _)| key.clone())
    {
        failures.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_fifth_failure_locks_this_account_from_this_source_only_and_for_the_ban() {
        let throttle = Throttle::new(5, 60_000, Vec::new());
        for _ in 0..4 {
            throttle.tried(ip("192.0.2.1"), "anna", 0);
        }
        assert_eq!(throttle.wait_s(ip("192.0.2.1"), "anna", 0), None);
        throttle.tried(ip("192.0.2.1"), "Anna", 1_000);
        assert_eq!(throttle.wait_s(ip("192.0.2.1"), "anna", 1_500), Some(60));
        assert_eq!(throttle.wait_s(ip("192.0.2.1"), "boris", 1_500), None);
        assert_eq!(throttle.wait_s(ip("192.0.2.2"), "anna", 1_500), None);
        assert_eq!(throttle.wait_s(ip("192.0.2.1"), "anna", 61_000), None);
    }

    #[test]
    fn an_office_that_logs_in_well_is_never_locked() {
        let throttle = Throttle::new(2, 60_000, Vec::new());
        for number in 0..100 {
            let name = format!("user{number}");
            throttle.tried(ip("192.0.2.1"), &name, 0);
            if number % 2 == 0 {
                throttle.passed(ip("192.0.2.1"), &name);
            } else {
                throttle.unjudged(ip("192.0.2.1"), &name);
            }
        }
        assert_eq!(throttle.wait_s(ip("192.0.2.1"), "anna", 0), None);
    }

    #[test]
    fn a_good_log_in_forgives_and_old_failures_fade() {
        let throttle = Throttle::new(2, 1_000, Vec::new());
        throttle.tried(ip("192.0.2.1"), "a", 0);
        throttle.passed(ip("192.0.2.1"), "a");
        throttle.tried(ip("192.0.2.1"), "a", 10);
        assert_eq!(throttle.wait_s(ip("192.0.2.1"), "a", 10), None);
        throttle.tried(ip("192.0.2.1"), "a", 5_000);
        assert_eq!(throttle.wait_s(ip("192.0.2.1"), "a", 5_000), None);
    }

    #[test]
    fn spraying_over_accounts_locks_the_source_unless_it_is_never_banned() {
        let office = Prefix { address: ip("198.51.100.0"), bits: 24 };
        let throttle = Throttle::new(2, 60_000, vec![office]);
        for number in 0..20 {
            throttle.tried(ip("2001:db8::1"), &format!("user{number}"), 0);
            throttle.tried(ip("198.51.100.9"), &format!("user{number}"), 0);
        }
        assert!(throttle.wait_s(ip("2001:db8::ffff"), "somebody", 0).is_some());
        assert_eq!(throttle.wait_s(ip("198.51.100.9"), "somebody", 0), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let throttle = Throttle::new(2, 60_000, Vec::new());
        for number in 0..ENTRIES_MAX + 50 {
            throttle.tried(ip("192.0.2.1"), &format!("user{number}"), number as u64);
        }
        assert!(throttle.failures.lock().unwrap().len() <= ENTRIES_MAX);
    }
}
