//! Which trunk a message belongs to: by digest user, by registration, by address; never by From.
//!
//! Invariant: an address belongs to at most one peer, the one with the longest prefix.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::words::{TrunkAccount, TrunkKind};
use crate::terms::TrunkName;

/// The trunks that SIP knows.
#[derive(Debug, Default)]
pub(crate) struct Trunks {
    by_name: BTreeMap<TrunkName, TrunkAccount>,
}

impl Trunks {
    /// Replaces all; returns the names that are gone or became another kind of trunk.
    pub(crate) fn replace(&mut self, accounts: Vec<TrunkAccount>) -> Vec<TrunkName> {
        let old = std::mem::take(&mut self.by_name);
        self.by_name = accounts.into_iter().map(|account| (account.name.clone(), account)).collect();
        let is_gateway = |name: &TrunkName| match self.by_name.get(name).map(|account| &account.kind) {
            Some(TrunkKind::Gateway { .. }) => true,
            Some(TrunkKind::Peer { .. }) | None => false,
        };
        old.into_keys().filter(|name| !is_gateway(name)).collect()
    }

    /// The trunk of this name.
    pub(crate) fn get(&self, name: &TrunkName) -> Option<&TrunkAccount> {
        self.by_name.get(name)
    }

    /// The gateway with this digest user.
    pub(crate) fn of_user(&self, user: &str) -> Option<&TrunkAccount> {
        self.by_name.values().find(|account| match &account.kind {
            TrunkKind::Gateway { username, .. } => username == user,
            TrunkKind::Peer { .. } => false,
        })
    }

    /// The peer at this address: the longest prefix wins.
    pub(crate) fn peer_at(&self, address: IpAddr) -> Option<&TrunkAccount> {
        let peers = self.by_name.values().filter(|account| matches!(account.kind, TrunkKind::Peer { .. }));
        peers
            .filter_map(|account| longest(account, address).map(|bits| (bits, account)))
            .max_by_key(|(bits, _)| *bits)
            .map(|(_, account)| account)
    }

    /// Whether the trunk may speak from this address: an empty fence lets everybody in.
    pub(crate) fn lets(&self, name: &TrunkName, address: IpAddr) -> bool {
        self.get(name)
            .is_some_and(|account| account.accept_from.is_empty() || longest(account, address).is_some())
    }

    /// Whether it is a peer with this address among its own.
    pub(crate) fn is_peer(&self, name: &TrunkName, address: IpAddr) -> bool {
        self.get(name).is_some_and(|account| match account.kind {
            TrunkKind::Peer { .. } => longest(account, address).is_some(),
            TrunkKind::Gateway { .. } => false,
        })
    }
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
        }
    }

    #[test]
    fn the_longest_prefix_names_the_peer() {
        let mut trunks = Trunks::default();
        trunks.replace(vec![
            peer("wide", &[("192.0.2.0", 24)]),
            peer("narrow", &[("192.0.2.8", 30), ("2001:db8::", 32)]),
        ]);
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
        assert_eq!(trunks.replace(Vec::new()).len(), 2);
    }
}
