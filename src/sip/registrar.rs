//! Where phones and gateways are now, and what they prove themselves with (RFC 3261 section 10, RFC 5626).
//!
//! Invariant: a registration is known by account and instance, never by socket or address: the socket may
//! change under it. An account holds a bounded number of them; the one not seen for longest makes room.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Path;
use super::digest::Ha1;
use crate::fact::Party;
use crate::record::{Record, moved};
use crate::terms::{FlowId, MonoMs, Now, OperatorName, WallMs};

/// Nonces whose counts are remembered against replay.
pub(crate) const MAX_NONCES: usize = 20_000;
/// Keys that one operator may hold at once.
pub(crate) const MAX_KEYS: usize = 32;

/// One device of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Binding {
    /// Whose.
    pub(crate) who: Party,
    /// Which device: `+sip.instance`, or the contact; empty for a gateway, which is one device.
    pub(crate) instance: String,
    /// Its Contact.
    pub(crate) contact: String,
    /// Which way it was seen last.
    pub(crate) path: Path,
    /// Whether its socket is gone.
    pub(crate) lost: bool,
    /// When it expires.
    pub(crate) expires_at: MonoMs,
    call_id: String,
    cseq: u32,
    /// Grows with each REGISTER of anybody.
    seen: u64,
    /// `seen` when it came to this path: the device that came last is called, and a refresh of the
    /// desk telephone does not take the calls from the browser.
    came: u64,
}

/// A device as a REGISTER shows it.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    /// `+sip.instance`, or the contact URI.
    pub(crate) instance: String,
    /// The contact URI.
    pub(crate) contact: String,
    /// Which way it came.
    pub(crate) path: Path,
    /// For how long.
    pub(crate) expires_s: u32,
    /// Call-ID of the REGISTER.
    pub(crate) call_id: String,
    /// Its CSeq.
    pub(crate) cseq: u32,
}

/// The registrations and keys.
#[derive(Debug, Default)]
pub(crate) struct Registrar {
    keys: BTreeMap<OperatorName, BTreeMap<String, Ha1>>,
    bindings: BTreeMap<Party, BTreeMap<String, Binding>>,
    flows: BTreeMap<FlowId, (Party, String)>,
    expiring: BTreeSet<(MonoMs, Party, String)>,
    counts: HashMap<String, (u32, WallMs)>,
    nonces: VecDeque<String>,
    seen: u64,
    /// Accounts of which a device went while another may still be there.
    thinned: BTreeSet<Party>,
    dirty: BTreeSet<(Party, String)>,
    dirty_nonces: BTreeSet<String>,
}

impl Registrar {
    // ---- keys ----

    /// A key becomes valid.
    pub(crate) fn learn_key(&mut self, operator: OperatorName, key: String, ha1: Ha1) {
        let keys = self.keys.entry(operator).or_default();
        if keys.len() < MAX_KEYS || keys.contains_key(&key) {
            keys.insert(key, ha1);
        }
    }

    /// A key is void; true when the operator has none left.
    pub(crate) fn forget_key(&mut self, operator: &OperatorName, key: &str) -> bool {
        let Some(keys) = self.keys.get_mut(operator) else { return false };
        keys.remove(key);
        if keys.is_empty() {
            self.keys.remove(operator);
            return true;
        }
        false
    }

    /// The operator with this digest user, and his keys.
    pub(crate) fn keys_of(&self, user: &str) -> Option<(OperatorName, Vec<Ha1>)> {
        self.keys.get_key_value(user).map(|(name, keys)| (name.clone(), keys.values().cloned().collect()))
    }

    /// Notes the count of a nonce; false when it does not grow (a replay).
    pub(crate) fn count(&mut self, nonce: &str, nc: u32, good_until: WallMs) -> bool {
        if let Some((last, _)) = self.counts.get_mut(nonce) {
            let grows = nc > *last;
            *last = nc.max(*last);
            self.dirty_nonces.insert(nonce.to_owned());
            return grows;
        }
        if self.nonces.len() >= MAX_NONCES
            && let Some(oldest) = self.nonces.pop_front()
        {
            self.counts.remove(&oldest);
            self.dirty_nonces.insert(oldest);
        }
        self.nonces.push_back(nonce.to_owned());
        self.counts.insert(nonce.to_owned(), (nc, good_until));
        self.dirty_nonces.insert(nonce.to_owned());
        true
    }

    fn forget_old_nonces(&mut self, wall_ms: WallMs) {
        while let Some(oldest) = self.nonces.front() {
            if self.counts.get(oldest).is_some_and(|(_, good_until)| *good_until >= wall_ms) {
                return;
            }
            if let Some(oldest) = self.nonces.pop_front() {
                self.counts.remove(&oldest);
                self.dirty_nonces.insert(oldest);
            }
        }
    }

    // ---- registrations ----

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.bindings.values().map(BTreeMap::len).sum()
    }

    /// The devices of an account, by name.
    pub(crate) fn of(&self, who: &Party) -> impl Iterator<Item = &Binding> {
        self.bindings.get(who).into_iter().flat_map(BTreeMap::values)
    }

    /// The device to call: the one that came last among those that can be reached.
    pub(crate) fn newest(&self, who: &Party) -> Option<&Binding> {
        self.of(who).filter(|binding| !binding.lost).max_by_key(|binding| binding.came)
    }

    /// Accounts of which a device went since the last call, and that have another to be called at.
    pub(crate) fn take_thinned(&mut self) -> Vec<Party> {
        let thinned = std::mem::take(&mut self.thinned);
        thinned.into_iter().filter(|who| self.newest(who).is_some()).collect()
    }

    /// Whose socket this is.
    pub(crate) fn on_flow(&self, flow: FlowId) -> Option<&(Party, String)> {
        self.flows.get(&flow)
    }

    /// The gateway that registered from exactly this address.
    pub(crate) fn gateway_at(&self, path: &Path) -> Option<&Party> {
        let Path::Udp { remote, .. } = path else { return None };
        let at =
            |binding: &Binding| matches!(binding.path, Path::Udp { remote: have, .. } if have == *remote);
        self.bindings
            .iter()
            .find(|(who, devices)| matches!(who, Party::Trunk(_)) && devices.values().any(at))
            .map(|(who, _)| who)
    }

    /// Whether a gateway registered from this address.
    pub(crate) fn gateway_is_at(&self, address: IpAddr) -> bool {
        let is_trunk = |(who, _): &(&Party, &BTreeMap<String, Binding>)| matches!(who, Party::Trunk(_));
        let mut devices = self.bindings.iter().filter(is_trunk).flat_map(|(_, devices)| devices.values());
        devices.any(|binding| binding.path.remote().ip().to_canonical() == address.to_canonical())
    }

    /// Whether a REGISTER of this device is older than what is known (RFC 3261 section 10.3 step 7).
    pub(crate) fn is_old(&self, who: &Party, shown: &Shown) -> bool {
        self.bindings
            .get(who)
            .and_then(|devices| devices.get(&shown.instance))
            .is_some_and(|have| have.call_id == shown.call_id && shown.cseq <= have.cseq)
    }

    /// Adds or refreshes a device; when the account is full the one not seen for longest goes.
    pub(crate) fn put(&mut self, who: &Party, shown: Shown, limit: usize, now: Now) {
        self.seen = self.seen.saturating_add(1);
        let full = self.of(who).count() >= limit && !self.of(who).any(|one| one.instance == shown.instance);
        if full
            && let Some(oldest) =
                self.of(who).min_by_key(|one| (!one.lost, one.seen)).map(|one| one.instance.clone())
        {
            self.remove(who, &oldest);
        }
        let before = self.of(who).find(|one| one.instance == shown.instance);
        let stayed = before.filter(|one| !one.lost && one.path == shown.path).map(|one| one.came);
        let binding = Binding {
            who: who.clone(),
            instance: shown.instance,
            contact: shown.contact,
            path: shown.path,
            lost: false,
            expires_at: now.mono_ms.saturating_add(u64::from(shown.expires_s).saturating_mul(1_000)),
            call_id: shown.call_id,
            cseq: shown.cseq,
            seen: self.seen,
            came: stayed.unwrap_or(self.seen),
        };
        self.insert(binding);
        self.forget_old_nonces(now.wall_ms);
    }

    fn insert(&mut self, binding: Binding) {
        let (who, instance) = (binding.who.clone(), binding.instance.clone());
        self.remove(&who, &instance);
        self.thinned.remove(&who);
        if let Some(flow) = binding.path.flow().filter(|_| !binding.lost) {
            let before = self.flows.insert(flow, (who.clone(), instance.clone()));
            self.lose(before, flow);
        }
        self.expiring.insert((binding.expires_at, who.clone(), instance.clone()));
        self.dirty.insert((who.clone(), instance.clone()));
        self.bindings.entry(who).or_default().insert(instance, binding);
    }

    /// Somebody else logged in on the same socket: the one before cannot be reached there any more.
    fn lose(&mut self, before: Option<(Party, String)>, flow: FlowId) {
        let Some((who, instance)) = before else { return };
        let device = self.bindings.get_mut(&who).and_then(|devices| devices.get_mut(&instance));
        if let Some(binding) = device.filter(|binding| binding.path.flow() == Some(flow)) {
            binding.lost = true;
            self.thinned.insert(who.clone());
            self.dirty.insert((who, instance));
        }
    }

    /// Takes a device away; true when it was the account's last.
    pub(crate) fn remove(&mut self, who: &Party, instance: &str) -> bool {
        let Some(devices) = self.bindings.get_mut(who) else { return false };
        let Some(binding) = devices.remove(instance) else { return false };
        let last = devices.is_empty();
        self.thinned.insert(who.clone());
        if last {
            self.bindings.remove(who);
        }
        if let Some(flow) = binding.path.flow()
            && self.flows.get(&flow).is_some_and(|(owner, device)| owner == who && device == instance)
        {
            self.flows.remove(&flow);
        }
        self.expiring.remove(&(binding.expires_at, who.clone(), instance.to_owned()));
        self.dirty.insert((who.clone(), instance.to_owned()));
        last
    }

    /// Takes all devices of an account away; true when there were any.
    pub(crate) fn remove_all(&mut self, who: &Party) -> bool {
        let instances: Vec<String> = self.of(who).map(|binding| binding.instance.clone()).collect();
        let any = !instances.is_empty();
        for instance in instances {
            self.remove(who, &instance);
        }
        any
    }

    /// The socket is gone: the account that cannot be reached at all any more.
    pub(crate) fn flow_closed(&mut self, flow: FlowId) -> Option<Party> {
        let (who, _) = self.flows.remove(&flow)?;
        let devices = self.bindings.get_mut(&who)?;
        for binding in devices.values_mut().filter(|binding| binding.path.flow() == Some(flow)) {
            binding.lost = true;
            self.thinned.insert(who.clone());
            self.dirty.insert((who.clone(), binding.instance.clone()));
        }
        devices.values().all(|binding| binding.lost).then_some(who)
    }

    /// Operators all of whose devices have lost their sockets.
    pub(crate) fn phones_lost(&self) -> Vec<OperatorName> {
        let lost = |devices: &BTreeMap<String, Binding>| devices.values().all(|binding| binding.lost);
        self.bindings
            .iter()
            .filter(|(_, devices)| lost(devices))
            .filter_map(|(who, _)| match who {
                Party::Operator(name) => Some(name.clone()),
                Party::Trunk(_) => None,
            })
            .collect()
    }

    /// When the next device expires.
    pub(crate) fn next_timeout(&self) -> Option<MonoMs> {
        self.expiring.first().map(|(at, _, _)| *at)
    }

    /// Takes away what has expired: the accounts that have no device left.
    pub(crate) fn expire(&mut self, now: MonoMs) -> Vec<Party> {
        let mut gone = Vec::new();
        while let Some((at, who, instance)) = self.expiring.first().cloned() {
            if at > now {
                break;
            }
            if self.remove(&who, &instance) {
                gone.push(who);
            }
        }
        gone
    }

    // ---- records ----

    /// What changed since the last call.
    pub(crate) fn records(&mut self, now: Now, to: &mut Vec<Record>) {
        for (who, instance) in std::mem::take(&mut self.dirty) {
            let key = match &who {
                Party::Trunk(name) => format!("sip/binding/trunk/{name}/{instance}"),
                Party::Operator(name) => format!("sip/binding/operator/{name}/{instance}"),
            };
            let binding = self.bindings.get(&who).and_then(|devices| devices.get(&instance));
            to.push(binding.map_or_else(|| Record::gone(&*key), |binding| Record::put(&*key, binding, now)));
        }
        for nonce in std::mem::take(&mut self.dirty_nonces) {
            let key = format!("sip/nonce/{nonce}");
            let count = self.counts.get(&nonce);
            to.push(count.map_or_else(|| Record::gone(&*key), |count| Record::put(&*key, count, now)));
        }
    }

    /// Takes in a device from a record. No socket outlives its process.
    pub(crate) fn adopt(&mut self, mut binding: Binding, shift_ms: i64) {
        binding.expires_at = moved(binding.expires_at, shift_ms);
        binding.lost |= binding.path.flow().is_some();
        self.seen = self.seen.max(binding.seen);
        self.insert(binding);
    }

    /// Takes in the count of a nonce from a record.
    pub(crate) fn adopt_nonce(&mut self, nonce: String, count: (u32, WallMs)) {
        self.nonces.push_back(nonce.clone());
        self.counts.insert(nonce, count);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn shown(instance: &str, flow: u64, cseq: u32) -> Shown {
        let at = "192.0.2.1:5000".parse().unwrap();
        Shown {
            instance: instance.into(),
            contact: format!("sip:{instance}@x.invalid"),
            path: Path::Ws { flow: FlowId(flow), remote: at, local: at, secure: true },
            expires_s: 60,
            call_id: "c".into(),
            cseq,
        }
    }

    #[test]
    fn a_phone_that_comes_back_by_another_socket_is_the_same_phone() {
        let (mut registrar, who, now) = (Registrar::default(), Party::Operator("op1".into()), Now::default());
        registrar.put(&who, shown("a", 1, 1), 10, now);
        registrar.put(&who, shown("a", 2, 2), 10, now);
        assert_eq!(registrar.len(), 1);
        assert_eq!(registrar.flow_closed(FlowId(1)), None);
        assert_eq!(registrar.newest(&who).unwrap().path.flow(), Some(FlowId(2)));
        assert_eq!(registrar.flow_closed(FlowId(2)), Some(who.clone()));
        assert!(registrar.newest(&who).is_none());
        assert!(registrar.is_old(&who, &shown("a", 3, 2)));
        assert!(!registrar.is_old(&who, &shown("a", 3, 3)));
        assert_eq!(registrar.next_timeout(), Some(60_000));
        assert!(registrar.expire(59_999).is_empty());
        assert_eq!(registrar.expire(60_000), [who]);
    }

    #[test]
    fn a_refresh_does_not_take_the_calls_and_a_lost_device_leaves_them_to_the_other() {
        let (mut registrar, who, now) = (Registrar::default(), Party::Operator("op1".into()), Now::default());
        let called = |registrar: &Registrar| registrar.newest(&who).map(|one| one.instance.clone());
        registrar.put(&who, shown("desk telephone", 1, 1), 10, now);
        registrar.put(&who, shown("browser", 2, 1), 10, now);
        registrar.put(&who, shown("desk telephone", 1, 2), 10, now);
        assert_eq!(called(&registrar).unwrap(), "browser");
        assert!(registrar.take_thinned().is_empty());
        registrar.flow_closed(FlowId(2));
        assert_eq!(registrar.take_thinned(), std::slice::from_ref(&who));
        assert_eq!(called(&registrar).unwrap(), "desk telephone");
        registrar.put(&who, shown("browser", 3, 2), 10, now);
        assert_eq!(called(&registrar).unwrap(), "browser");
        registrar.remove(&who, "browser");
        registrar.remove(&who, "desk telephone");
        assert!(registrar.take_thinned().is_empty(), "nobody is left to be called");
    }

    #[test]
    fn a_socket_has_one_owner_at_a_time() {
        let (mut registrar, now) = (Registrar::default(), Now::default());
        let (one, two) = (Party::Operator("op1".into()), Party::Operator("op2".into()));
        registrar.put(&one, shown("a", 1, 1), 10, now);
        registrar.put(&two, shown("b", 1, 1), 10, now);
        assert!(registrar.newest(&one).is_none());
        assert_eq!(registrar.on_flow(FlowId(1)).unwrap().0, two);
    }

    #[test]
    fn the_eleventh_device_takes_the_place_of_the_one_not_seen_for_longest() {
        let (mut registrar, who, now) = (Registrar::default(), Party::Operator("op1".into()), Now::default());
        for n in 0..11 {
            registrar.put(&who, shown(&n.to_string(), n, 1), 10, now);
        }
        assert_eq!(registrar.len(), 10);
        assert!(registrar.of(&who).all(|binding| binding.instance != "0"));
    }

    #[test]
    fn a_nonce_count_must_grow() {
        let mut registrar = Registrar::default();
        assert!(registrar.count("n", 1, 100));
        assert!(!registrar.count("n", 1, 100));
        assert!(registrar.count("n", 3, 100));
        assert!(!registrar.count("n", 2, 100));
        registrar.forget_old_nonces(101);
        assert!(registrar.counts.is_empty());
    }
}
