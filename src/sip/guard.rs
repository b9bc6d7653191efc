//! Counts failed log-ins, so that guessing a password takes years; serves SIP and the web's log-in.
//!
//! Invariant: the table is bounded; a full one forgets the failure that is oldest, never a fresh one.
//! A stranger cannot lock an operator out of his own desk: a lock is per account *and* source, and only
//! a source that fails over many accounts is banned as a whole.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

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

/// What failed log-ins lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Failures on one account from one source before that pair is locked.
    pub failures: u32,
    /// How long a lock or ban lasts after the last failure, milliseconds.
    pub ban_ms: u64,
    /// Sources that are never banned as a whole.
    pub never_ban: Vec<Prefix>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { failures: 5, ban_ms: 15 * 60_000, never_ban: Vec::new() }
    }
}

/// A lock of an account for a source, or the ban of a whole source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Whose address; of IPv6 the first one of its /64.
    pub source: IpAddr,
    /// Which account is locked for it, in lower case; `None` is the whole source.
    pub account: Option<String>,
    /// Failures so far.
    pub failures: u32,
    /// How long it still lasts, milliseconds.
    pub left_ms: u64,
}

/// The failed log-ins of the last while.
#[derive(Debug, Default)]
pub struct Guard {
    rules: Rules,
    failures: BTreeMap<Key, Failures>,
}

impl Guard {
    /// Nobody has failed yet.
    pub fn new(rules: Rules) -> Self {
        Self { rules, failures: BTreeMap::new() }
    }

    /// Seconds to wait, if this source may not try this account now.
    pub fn wait_s(&self, source: IpAddr, account: &str, now: MonoMs) -> Option<u64> {
        let (pair, whole) = keys(source, account);
        let longest = self.left_ms(&pair, now).max(self.left_ms(&whole, now));
        longest.map(|left_ms| left_ms.div_ceil(1_000))
    }

    fn left_ms(&self, key: &Key, now: MonoMs) -> Option<u64> {
        let limit = self.limit(key);
        let known = self.failures.get(key).filter(|known| known.count >= limit)?;
        let until = known.last_at.saturating_add(self.rules.ban_ms);
        Some(until.saturating_sub(now)).filter(|left| *left > 0)
    }

    fn limit(&self, (_, account): &Key) -> u32 {
        let pair = self.rules.failures.max(1);
        if account.is_some() { pair } else { pair.saturating_mul(SOURCE_FACTOR) }
    }

    /// A log-in is tried. It counts as failed until [`Self::passed`] says otherwise, so that many
    /// guesses at the same moment count as many. `spared` sources are locked only per account. Gives the
    /// locks and bans that begin with it.
    pub fn tried(&mut self, source: IpAddr, account: &str, spared: bool, now: MonoMs) -> Vec<Ban> {
        let (pair, whole) = keys(source, account);
        let spared = spared || self.rules.never_ban.iter().any(|prefix| prefix.contains(source));
        let mut begun = Vec::new();
        for key in [Some(pair), Some(whole).filter(|_| !spared)].into_iter().flatten() {
            self.make_room(&key, now);
            let limit = self.limit(&key);
            let known = self.failures.entry(key.clone()).or_insert(Failures { count: 0, last_at: now });
            if now.saturating_sub(known.last_at) > self.rules.ban_ms {
                known.count = 0;
            }
            known.count = known.count.saturating_add(1);
            known.last_at = now;
            if known.count == limit {
                begun.push(ban(&key, limit, self.rules.ban_ms));
            }
        }
        begun
    }

    /// The try went well: the person's earlier slips are forgiven, those of others at his source are not.
    pub fn passed(&mut self, source: IpAddr, account: &str) {
        let (pair, whole) = keys(source, account);
        self.failures.remove(&pair);
        take_back(&mut self.failures, &whole);
    }

    /// The try could not be judged (the store was away): it does not count.
    pub fn unjudged(&mut self, source: IpAddr, account: &str) {
        let (pair, whole) = keys(source, account);
        take_back(&mut self.failures, &pair);
        take_back(&mut self.failures, &whole);
    }

    /// The account has a new password: failures with the old one say nothing any more.
    pub fn forgive(&mut self, account: &str) {
        let name = name_of(account);
        self.failures.retain(|(_, failed), _| failed.as_ref() != Some(&name));
    }

    /// All locks and bans of now, by source.
    pub fn bans(&self, now: MonoMs) -> Vec<Ban> {
        let of = |(key, known): (&Key, &Failures)| Some(ban(key, known.count, self.left_ms(key, now)?));
        self.failures.iter().filter_map(of).collect()
    }

    /// Lifts all locks and the ban of a source; how many there were.
    pub fn lift(&mut self, source: IpAddr, now: MonoMs) -> usize {
        let source = network(source);
        let count = self.bans(now).iter().filter(|ban| ban.source == source).count();
        self.failures.retain(|(failed, _), _| *failed != source);
        count
    }

    fn make_room(&mut self, key: &Key, now: MonoMs) {
        if self.failures.len() < ENTRIES_MAX || self.failures.contains_key(key) {
            return;
        }
        let ban_ms = self.rules.ban_ms;
        self.failures.retain(|_, known| now.saturating_sub(known.last_at) <= ban_ms);
        if self.failures.len() >= ENTRIES_MAX
            && let Some(oldest) =
                self.failures.iter().min_by_key(|(_, known)| known.last_at).map(|(key, _)| key.clone())
        {
            self.failures.remove(&oldest);
        }
    }
}

fn ban((source, account): &Key, failures: u32, left_ms: u64) -> Ban {
    Ban { source: *source, account: account.clone(), failures, left_ms }
}

fn take_back(failures: &mut BTreeMap<Key, Failures>, key: &Key) {
    if let Some(known) = failures.get_mut(key) {
        known.count = known.count.saturating_sub(1);
    }
}

fn keys(source: IpAddr, account: &str) -> (Key, Key) {
    let source = network(source);
    ((source, Some(name_of(account))), (source, None))
}

fn name_of(account: &str) -> String {
    account.chars().take(NAME_MAX_CHARS).collect::<String>().to_lowercase()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn guard(failures: u32, ban_ms: u64, never_ban: Vec<Prefix>) -> Guard {
        Guard::new(Rules { failures, ban_ms, never_ban })
    }

    #[test]
    fn the_fifth_failure_locks_this_account_from_this_source_only_and_for_the_ban() {
        let mut watch = guard(5, 60_000, Vec::new());
        for _ in 0..4 {
            watch.tried(ip("192.0.2.1"), "anna", false, 0);
        }
        assert_eq!(watch.wait_s(ip("192.0.2.1"), "anna", 0), None);
        watch.tried(ip("192.0.2.1"), "Anna", false, 1_000);
        assert_eq!(watch.wait_s(ip("192.0.2.1"), "anna", 1_500), Some(60));
        assert_eq!(watch.wait_s(ip("192.0.2.1"), "boris", 1_500), None);
        assert_eq!(watch.wait_s(ip("192.0.2.2"), "anna", 1_500), None);
        assert_eq!(watch.wait_s(ip("192.0.2.1"), "anna", 61_000), None);
    }

    #[test]
    fn an_office_that_logs_in_well_is_never_locked() {
        let mut watch = guard(2, 60_000, Vec::new());
        for number in 0..100 {
            let name = format!("user{number}");
            watch.tried(ip("192.0.2.1"), &name, false, 0);
            if number % 2 == 0 {
                watch.passed(ip("192.0.2.1"), &name);
            } else {
                watch.unjudged(ip("192.0.2.1"), &name);
            }
        }
        assert_eq!(watch.wait_s(ip("192.0.2.1"), "anna", 0), None);
    }

    #[test]
    fn a_good_log_in_forgives_and_old_failures_fade() {
        let mut watch = guard(2, 1_000, Vec::new());
        watch.tried(ip("192.0.2.1"), "a", false, 0);
        watch.passed(ip("192.0.2.1"), "a");
        watch.tried(ip("192.0.2.1"), "a", false, 10);
        assert_eq!(watch.wait_s(ip("192.0.2.1"), "a", 10), None);
        watch.tried(ip("192.0.2.1"), "a", false, 5_000);
        assert_eq!(watch.wait_s(ip("192.0.2.1"), "a", 5_000), None);
    }

    #[test]
    fn spraying_over_accounts_locks_the_source_unless_it_is_never_banned() {
        let office = Prefix { address: ip("198.51.100.0"), bits: 24 };
        let mut watch = guard(2, 60_000, vec![office]);
        for number in 0..20 {
            watch.tried(ip("2001:db8::1"), &format!("user{number}"), false, 0);
            watch.tried(ip("198.51.100.9"), &format!("user{number}"), false, 0);
        }
        assert!(watch.wait_s(ip("2001:db8::ffff"), "somebody", 0).is_some());
        assert_eq!(watch.wait_s(ip("198.51.100.9"), "somebody", 0), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut watch = guard(2, 60_000, Vec::new());
        for number in 0..ENTRIES_MAX + 50 {
            watch.tried(ip("192.0.2.1"), &format!("user{number}"), false, number as u64);
        }
        assert!(watch.failures.len() <= ENTRIES_MAX);
    }

    #[test]
    fn bans_are_listed_while_they_last_and_can_be_lifted() {
        let mut watch = guard(2, 60_000, Vec::new());
        assert!(watch.tried(ip("192.0.2.1"), "anna", false, 0).is_empty());
        let begun = watch.tried(ip("192.0.2.1"), "anna", false, 1_000);
        let lock =
            Ban { source: ip("192.0.2.1"), account: Some("anna".into()), failures: 2, left_ms: 60_000 };
        assert_eq!(begun, std::slice::from_ref(&lock));
        assert_eq!(watch.bans(11_000), [Ban { left_ms: 50_000, ..lock }]);
        assert!(watch.tried(ip("192.0.2.1"), "anna", false, 1_000).is_empty(), "it began once");
        assert_eq!(watch.lift(ip("192.0.2.1"), 11_000), 1);
        assert!(watch.bans(11_000).is_empty());
        watch.tried(ip("192.0.2.1"), "anna", false, 0);
        watch.tried(ip("192.0.2.1"), "anna", false, 0);
        assert!(watch.bans(60_000).is_empty(), "it is over");
    }

    #[test]
    fn a_new_password_forgives_the_failures_with_the_old_one() {
        let mut watch = guard(2, 60_000, Vec::new());
        for _ in 0..5 {
            watch.tried(ip("192.0.2.1"), "Anna", false, 0);
        }
        watch.forgive("anna");
        assert_eq!(watch.wait_s(ip("192.0.2.1"), "anna", 0), None);
    }
}
