//! Which trunk a message belongs to (by digest user, by registration, by address; never by From), and
//! whether a trunk can be called now.
//!
//! Invariant: an address belongs to at most one trunk: to the provider that has it as a server, else to the
//! peer with the longest prefix. What was told of a trunk (`TrunkUp`, `TrunkDown`) is what is true of it.

pub(crate) mod health;
pub(crate) mod prove;
pub(crate) mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::message::Request;
use super::transaction::{Heard, Purpose};
use super::uri::Uri;
use super::words::{Provider, TrunkAccount, TrunkKind};
use super::{Event, Path, Sip};
use crate::fact::Party;
use crate::record::{Record, moved};
use crate::terms::{MonoMs, Now, TrunkName};

use health::Pulse;
use upstream::Upstream;

/// Taken-away providers whose registration is still being taken back.
const MAX_DEPARTING: usize = 64;

/// What a trunk was last told to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Told {
    Up,
    Down(String),
}

/// How one trunk stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Standing {
    upstream: Option<Upstream>,
    pulse: Pulse,
    told: Option<Told>,
    /// When it is looked after next.
    due: Option<MonoMs>,
}

/// The trunks that SIP knows.
#[derive(Debug, Default)]
pub(crate) struct Trunks {
    by_name: BTreeMap<TrunkName, TrunkAccount>,
    standings: BTreeMap<TrunkName, Standing>,
    due: BTreeSet<(MonoMs, TrunkName)>,
    dirty: BTreeSet<TrunkName>,
    /// Accounts that are no longer configured, while their registration is taken back.
    departing: Vec<(Box<Provider>, Upstream)>,
}

impl Trunks {
    /// The trunk of this name.
    pub(crate) fn get(&self, name: &TrunkName) -> Option<&TrunkAccount> {
        self.by_name.get(name)
    }

    /// The account at this provider.
    fn provider(&self, name: &TrunkName) -> Option<&Provider> {
        match &self.get(name)?.kind {
            TrunkKind::Provider(provider) => Some(provider),
            TrunkKind::Gateway { .. } | TrunkKind::Peer { .. } => None,
        }
    }

    /// The gateway with this digest user.
    pub(crate) fn of_user(&self, user: &str) -> Option<&TrunkAccount> {
        self.by_name.values().find(|account| match &account.kind {
            TrunkKind::Gateway { username, .. } => username == user,
            TrunkKind::Peer { .. } | TrunkKind::Provider(_) => false,
        })
    }

    /// Whether a trunk's calls come from this address: it is never banned.
    pub(crate) fn is_of_one(&self, address: IpAddr) -> bool {
        let fenced = |account: &TrunkAccount| account.accept_from.iter().any(|have| have.contains(address));
        let serves = |account: &TrunkAccount| match &account.kind {
            TrunkKind::Provider(provider) => is_server(provider, address),
            TrunkKind::Gateway { .. } | TrunkKind::Peer { .. } => false,
        };
        self.by_name.values().any(|account| fenced(account) || serves(account))
    }

    /// The trunk at this address: a provider's server, else the peer with the longest prefix.
    pub(crate) fn at(&self, address: IpAddr, request: &Request) -> Option<&TrunkAccount> {
        self.provider_at(address, request).or_else(|| self.peer_at(address))
    }

    /// The provider whose call this is: it comes to the Contact that only it was told, or from one of its
    /// servers. Several accounts at one server are told apart by the user that is called.
    fn provider_at(&self, address: IpAddr, request: &Request) -> Option<&TrunkAccount> {
        let uri = Uri::read(&request.uri).ok()?;
        let lets = |account: &TrunkAccount| lets(account, address);
        let by_contact = self.standings.iter().find_map(|(name, standing)| {
            let account = self.by_name.get(name)?;
            (standing.upstream.as_ref()?.is_contact(&uri) && lets(account)).then_some(account)
        });
        if by_contact.is_some() {
            return by_contact;
        }
        let user = uri.user_text().unwrap_or_default();
        let here = self.by_name.values().filter_map(|account| match &account.kind {
            TrunkKind::Provider(provider) if is_server(provider, address) && lets(account) => {
                Some((provider.login.user == user, account))
            }
            TrunkKind::Provider(_) | TrunkKind::Gateway { .. } | TrunkKind::Peer { .. } => None,
        });
        here.min_by_key(|(is_called, _)| !*is_called).map(|(_, account)| account)
    }

    fn peer_at(&self, address: IpAddr) -> Option<&TrunkAccount> {
        let peers = self.by_name.values().filter(|account| matches!(account.kind, TrunkKind::Peer { .. }));
        peers
            .filter_map(|account| longest(account, address).map(|bits| (bits, account)))
            .max_by_key(|(bits, _)| *bits)
            .map(|(_, account)| account)
    }

    /// Whether the trunk may speak from this address: an empty fence lets everybody in.
    pub(crate) fn lets(&self, name: &TrunkName, address: IpAddr) -> bool {
        self.get(name).is_some_and(|account| lets(account, address))
    }

    /// Whether it is a peer or provider with this address among its own.
    pub(crate) fn owns(&self, name: &TrunkName, address: IpAddr) -> bool {
        self.get(name).is_some_and(|account| match &account.kind {
            TrunkKind::Peer { .. } => longest(account, address).is_some(),
            TrunkKind::Provider(provider) => {
                is_server(provider, address) || longest(account, address).is_some()
            }
            TrunkKind::Gateway { .. } => false,
        })
    }

    /// Where a provider is called: the server that registered us. `None` for others, and while none did.
    pub(crate) fn registered_at(&self, name: &TrunkName) -> Option<std::net::SocketAddr> {
        let upstream = self.standings.get(name)?.upstream.as_ref().filter(|one| one.is_registered())?;
        upstream.server(self.provider(name)?)
    }

    /// Whether a realm may be answered with the password of this trunk's account.
    pub(crate) fn trusts(&mut self, name: &TrunkName, realm: &str) -> bool {
        let Some(TrunkKind::Provider(provider)) = self.by_name.get(name).map(|account| &account.kind) else {
            return false;
        };
        let Some(upstream) = self.standings.get_mut(name).and_then(|standing| standing.upstream.as_mut())
        else {
            return false;
        };
        self.dirty.insert(name.clone());
        upstream.trusts(provider, realm)
    }

    /// Whether a trunk was told to be up.
    #[cfg(test)]
    pub(crate) fn is_up(&self, name: &TrunkName) -> bool {
        self.standings.get(name).is_some_and(|standing| standing.told == Some(Told::Up))
    }

    /// When the next trunk is looked after.
    pub(crate) fn next_timeout(&self) -> Option<MonoMs> {
        let departing = self.departing.iter().filter_map(|(_, upstream)| upstream.next_timeout());
        self.due.first().map(|(at, _)| *at).into_iter().chain(departing).min()
    }

    fn pop_due(&mut self, now: MonoMs) -> Option<TrunkName> {
        if self.due.first()?.0 > now {
            return None;
        }
        let (_, name) = self.due.pop_first()?;
        if let Some(standing) = self.standings.get_mut(&name) {
            standing.due = None;
        }
        Some(name)
    }

    /// Enters when a trunk is looked after next.
    fn schedule(&mut self, name: &TrunkName) {
        let Some(standing) = self.standings.get_mut(name) else { return };
        if let Some(at) = standing.due.take() {
            self.due.remove(&(at, name.clone()));
        }
        let upstream = standing.upstream.as_ref().and_then(Upstream::next_timeout);
        standing.due = [upstream, standing.pulse.next_timeout()].into_iter().flatten().min();
        if let Some(at) = standing.due {
            self.due.insert((at, name.clone()));
        }
        self.dirty.insert(name.clone());
    }

    fn forget(&mut self, name: &TrunkName) -> Option<Standing> {
        let standing = self.standings.remove(name)?;
        if let Some(at) = standing.due {
            self.due.remove(&(at, name.clone()));
        }
        self.dirty.insert(name.clone());
        Some(standing)
    }

    /// What changed since the last call.
    pub(crate) fn records(&mut self, now: Now, to: &mut Vec<Record>) {
        for name in std::mem::take(&mut self.dirty) {
            let key = format!("sip/trunk/{name}");
            let standing = self.standings.get(&name);
            to.push(standing.map_or_else(|| Record::gone(&*key), |one| Record::put(&*key, one, now)));
        }
    }

    /// Takes in how a trunk stood; whether it is still configured says the next `Command::Trunks`.
    pub(crate) fn adopt(&mut self, name: &str, value: &[u8], now: Now) {
        let Ok((at, mut standing)) = crate::record::decode::<Standing>(value) else { return };
        let shift_ms = crate::record::shift_ms(at, now);
        standing.pulse.rebase(shift_ms);
        if let Some(upstream) = &mut standing.upstream {
            upstream.rebase(shift_ms);
        }
        standing.due = standing.due.map(|at| moved(at, shift_ms));
        let name = TrunkName::from(name);
        if let Some(at) = standing.due {
            self.due.insert((at, name.clone()));
        }
        self.standings.insert(name, standing);
    }
}

impl Sip {
    /// The trunks, all of them.
    pub(crate) fn set_trunks(&mut self, accounts: Vec<TrunkAccount>, now: Now) {
        let old = std::mem::take(&mut self.trunks.by_name);
        self.trunks.by_name = accounts.into_iter().map(|account| (account.name.clone(), account)).collect();
        let known: Vec<TrunkName> = self.trunks.standings.keys().cloned().collect();
        for name in known {
            let kept = self.trunks.get(&name).is_some_and(|new| match old.get(&name) {
                Some(old) => is_same_way(old, new),
                // Its record was restored: the account is what it was told.
                None => true,
            });
            if !kept {
                self.depart(&name, old.get(&name), now);
            }
        }
        for name in old.into_keys() {
            if !matches!(self.trunks.get(&name).map(|one| &one.kind), Some(TrunkKind::Gateway { .. })) {
                self.unregister(&Party::Trunk(name), "forgotten", now);
            }
        }
        let names: Vec<TrunkName> = self.trunks.by_name.keys().cloned().collect();
        for name in names {
            if !self.trunks.standings.contains_key(&name) {
                self.learn(&name, now);
            }
            self.trunks.schedule(&name);
            self.tell_standing(&name);
        }
    }

    /// A trunk is new.
    fn learn(&mut self, name: &TrunkName, now: Now) {
        let Some(account) = self.trunks.by_name.get(name) else { return };
        let health = account.health;
        let upstream = match &account.kind {
            TrunkKind::Provider(provider) => {
                let token = token(self.wire.config.pair_secret.expose(), name);
                Some(Upstream::new(provider, token, &mut self.wire, now))
            }
            TrunkKind::Gateway { .. } | TrunkKind::Peer { .. } => None,
        };
        let pulse = Pulse::new(health, &mut self.wire, now);
        let standing = Standing { upstream, pulse, told: None, due: None };
        self.trunks.standings.insert(name.clone(), standing);
    }

    /// A trunk is gone, or is another one under its old name.
    fn depart(&mut self, name: &TrunkName, account: Option<&TrunkAccount>, now: Now) {
        let Some(standing) = self.trunks.forget(name) else { return };
        if standing.told == Some(Told::Up) {
            let why = "it is no longer configured".to_owned();
            self.wire.tell(Event::TrunkDown { trunk: name.clone(), why });
        }
        let (Some(mut upstream), Some(TrunkKind::Provider(provider))) =
            (standing.upstream, account.map(|account| &account.kind))
        else {
            return;
        };
        upstream.leave(&mut self.wire, provider, now);
        if upstream.is_leaving() && self.trunks.departing.len() < MAX_DEPARTING {
            self.trunks.departing.push((provider.clone(), upstream));
        }
    }

    /// All registrations with providers are taken back: the node stops.
    pub(crate) fn leave_providers(&mut self, now: Now) {
        for (name, standing) in &mut self.trunks.standings {
            let Some(account) = self.trunks.by_name.get(name) else { continue };
            if let (Some(upstream), TrunkKind::Provider(provider)) = (&mut standing.upstream, &account.kind) {
                upstream.leave(&mut self.wire, provider, now);
            }
        }
        let names: Vec<TrunkName> = self.trunks.standings.keys().cloned().collect();
        for name in names {
            self.trunks.schedule(&name);
        }
    }

    /// Whether a registration with a provider is still being taken back.
    pub fn is_leaving(&self) -> bool {
        let staying = self.trunks.standings.values().filter_map(|standing| standing.upstream.as_ref());
        let departing = self.trunks.departing.iter().map(|(_, upstream)| upstream);
        staying.chain(departing).any(Upstream::is_leaving)
    }

    /// Time has passed for trunks.
    pub(crate) fn trunks_timeout(&mut self, now: Now) {
        while let Some(name) = self.trunks.pop_due(now.mono_ms) {
            let place = self.place_of(&name);
            let Some(standing) = self.trunks.standings.get_mut(&name) else { continue };
            let Some(account) = self.trunks.by_name.get(&name) else { continue };
            if let (Some(upstream), TrunkKind::Provider(provider)) = (&mut standing.upstream, &account.kind) {
                upstream.timeout(&mut self.wire, provider, now);
            }
            let lived = standing.pulse.trouble().is_none();
            standing.pulse.timeout(&mut self.wire, account.health, place, now);
            let died = lived && standing.pulse.trouble().is_some();
            self.trunks.schedule(&name);
            self.tell_standing(&name);
            if died {
                self.ringing_died(&name, now);
            }
        }
        for (provider, upstream) in &mut self.trunks.departing {
            upstream.timeout(&mut self.wire, provider, now);
        }
        self.trunks.departing.retain(|(_, upstream)| upstream.is_leaving());
    }

    /// An answer to a REGISTER or OPTIONS of ours.
    pub(crate) fn trunk_heard(&mut self, client: u64, purpose: Purpose, heard: &Heard, now: Now) {
        let waits = |standing: &Standing| match purpose {
            Purpose::Register => standing.upstream.as_ref().is_some_and(|one| one.waits_for(client)),
            Purpose::Ping => standing.pulse.waits_for(client),
            Purpose::Invite | Purpose::Change | Purpose::End | Purpose::Info | Purpose::Prack => false,
        };
        let found = self.trunks.standings.iter_mut().find(|(_, standing)| waits(standing));
        let Some((name, standing)) = found else { return self.departing_heard(client, heard, now) };
        let Some(account) = self.trunks.by_name.get(name) else { return };
        let name = name.clone();
        if purpose == Purpose::Register {
            if let (Some(upstream), TrunkKind::Provider(provider)) = (&mut standing.upstream, &account.kind) {
                upstream.heard(&mut self.wire, provider, heard, now);
            }
        } else if let Heard::Response(response) = heard
            && response.code >= 200
        {
            standing.pulse.lives(&mut self.wire, account.health, now);
        }
        self.trunks.schedule(&name);
        self.tell_standing(&name);
    }

    fn departing_heard(&mut self, client: u64, heard: &Heard, now: Now) {
        for (provider, upstream) in &mut self.trunks.departing {
            if upstream.waits_for(client) {
                upstream.heard(&mut self.wire, provider, heard, now);
            }
        }
        self.trunks.departing.retain(|(_, upstream)| upstream.is_leaving());
    }

    /// A call over this trunk got no answer at all.
    pub(crate) fn suspect(&mut self, name: &TrunkName, now: Now) {
        if let Some(standing) = self.trunks.standings.get_mut(name) {
            standing.pulse.suspect("a call got no answer at all", now);
            self.trunks.schedule(name);
            self.tell_standing(name);
        }
    }

    /// A gateway registered, or its registration ended; `moved`: from a place where it was not before.
    pub(crate) fn gateway_changed(&mut self, name: &TrunkName, moved: bool, now: Now) {
        let Some(account) = self.trunks.by_name.get(name) else { return };
        if let Some(standing) = self.trunks.standings.get_mut(name).filter(|_| moved) {
            standing.pulse.lives(&mut self.wire, account.health, now);
        }
        self.trunks.schedule(name);
        self.tell_standing(name);
    }

    /// Where a trunk is called now.
    fn place_of(&self, name: &TrunkName) -> Option<Path> {
        match &self.trunks.get(name)?.kind {
            TrunkKind::Gateway { .. } => {
                self.registrar.newest(&Party::Trunk(name.clone())).map(|binding| binding.path)
            }
            TrunkKind::Peer { server } => {
                server.map(|remote| Path::Udp { remote, local: self.wire.config.udp })
            }
            TrunkKind::Provider(_) => {
                let remote = self.trunks.registered_at(name)?;
                Some(Path::Udp { remote, local: self.wire.config.udp })
            }
        }
    }

    /// Tells whether a trunk can be called, when that changed.
    pub(crate) fn tell_standing(&mut self, name: &TrunkName) {
        let place = self.place_of(name);
        let Some(account) = self.trunks.by_name.get(name) else { return };
        let Some(standing) = self.trunks.standings.get_mut(name) else { return };
        let upstream = standing.upstream.as_ref().map(Upstream::trouble);
        let told = match (place, standing.pulse.trouble()) {
            (Some(_), None) => Told::Up,
            (Some(_), Some(trouble)) => Told::Down(trouble.to_owned()),
            (None, _) => Told::Down(match &account.kind {
                TrunkKind::Provider(_) => upstream.unwrap_or_default().to_owned(),
                TrunkKind::Gateway { .. } => "it is not registered".to_owned(),
                TrunkKind::Peer { .. } => return,
            }),
        };
        if standing.told.as_ref() == Some(&told) {
            return;
        }
        let first = standing.told.replace(told.clone()).is_none();
        self.trunks.dirty.insert(name.clone());
        if first && told != Told::Up {
            // Nothing went down: it just was not up yet.
            return;
        }
        let trunk = name.clone();
        self.wire.tell(match (told, place) {
            (Told::Up, Some(path)) => Event::TrunkUp { trunk, path },
            (Told::Down(why), _) => Event::TrunkDown { trunk, why },
            (Told::Up, None) => return,
        });
    }
}

/// Whether two accounts are the same way to the same place, so that what is known of one is true of the other.
fn is_same_way(old: &TrunkAccount, new: &TrunkAccount) -> bool {
    match (&old.kind, &new.kind) {
        (TrunkKind::Gateway { .. }, TrunkKind::Gateway { .. }) => old.health == new.health,
        (old_kind, new_kind) => old_kind == new_kind && old.health == new.health,
    }
}

/// Whether a trunk's fence, if it has one, is open to this address; a provider's own servers are inside.
fn lets(account: &TrunkAccount, address: IpAddr) -> bool {
    let own = match &account.kind {
        TrunkKind::Provider(provider) => is_server(provider, address),
        TrunkKind::Gateway { .. } | TrunkKind::Peer { .. } => false,
    };
    account.accept_from.is_empty() || own || longest(account, address).is_some()
}

fn is_server(provider: &Provider, address: IpAddr) -> bool {
    let address = address.to_canonical();
    provider.servers.iter().any(|server| server.ip().to_canonical() == address)
}

/// Names our Contact at a provider: the same after a restart and on both nodes of a pair, so that the
/// provider never holds two of them, and known to nobody else.
fn token(secret: &[u8; 32], name: &TrunkName) -> String {
    let hash = Sha256::new().chain_update(b"tandem provider line\0").chain_update(secret);
    let hash = hash.chain_update(name.as_str()).finalize();
    hex::encode(hash.get(..8).unwrap_or_default())
}

fn longest(account: &TrunkAccount, address: IpAddr) -> Option<u8> {
    account.accept_from.iter().filter(|prefix| prefix.contains(address)).map(|prefix| prefix.bits).max()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::words::Prefix;
    use super::*;

    fn peer(name: &str, nets: &[(&str, u8)]) -> TrunkAccount {
        let accept_from =
            nets.iter().map(|(net, bits)| Prefix { address: net.parse().unwrap(), bits: *bits }).collect();
        TrunkAccount {
            name: name.into(),
            kind: TrunkKind::Peer { server: None },
            accept_from,
            digest: Vec::new(),
            health: super::super::Health::default(),
            prack: true,
            profile: super::super::Profile::default(),
        }
    }

    #[test]
    fn the_longest_prefix_names_the_peer() {
        let mut trunks = Trunks::default();
        for account in
            [peer("wide", &[("192.0.2.0", 24)]), peer("narrow", &[("192.0.2.8", 30), ("2001:db8::", 32)])]
        {
            trunks.by_name.insert(account.name.clone(), account);
        }
        for (address, name) in [
            ("192.0.2.9", Some("narrow")),
            ("192.0.2.77", Some("wide")),
            ("::ffff:192.0.2.77", Some("wide")),
            ("2001:db8::7", Some("narrow")),
            ("198.51.100.1", None),
        ] {
            let found = trunks.peer_at(address.parse().unwrap()).map(|account| account.name.as_str());
            assert_eq!(found, name, "{address}");
        }
    }
}
