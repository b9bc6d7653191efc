//! SIP over UDP: gateways, providers and desk phones.
//!
//! Invariant: an answer leaves from the address its request came to, or a gateway behind a strict
//! firewall (and a standby's virtual address) would not know us. Reading that address from
//! `IP_PKTINFO` needs `unsafe`; so an unspecified address is served by one socket for each address
//! that this machine holds, and the socket itself says where a datagram came to. The unspecified
//! socket stays open beneath them for addresses that appear later, until they get their own.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinSet};

use crate::edge::driver::Handle;
use crate::edge::metrics::Metrics;
use crate::edge::sip::{count, is_keep_alive};
use crate::sip::{Input, Path};

/// DSCP CS3 in the TOS byte: call signalling (RFC 4594 section 4.3).
const TOS_SIGNALLING: u32 = 24 << 2;
/// Kernel buffer: a second of a registration storm.
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Largest datagram that UDP can carry.
const DATAGRAM_MAX_BYTES: usize = 65_535;
/// How often the machine's addresses are looked at: a virtual address must answer soon after it moved.
const ADDRESSES_EVERY: Duration = Duration::from_secs(1);
/// Rest after a failed receive, so that a broken socket does not burn a core.
const REST_AFTER_ERROR: Duration = Duration::from_millis(10);
/// Addresses of this machine that get a socket of their own.
const ADDRESSES_MAX: usize = 64;

type Sockets = BTreeMap<IpAddr, Arc<UdpSocket>>;

/// The sockets of one configured address.
#[derive(Debug)]
pub struct Udp {
    /// As bound; its address may be unspecified.
    bound: SocketAddr,
    base: Arc<UdpSocket>,
    /// One for each address of this machine, where `bound` is unspecified.
    own: ArcSwap<Sockets>,
    metrics: Metrics,
}

impl Udp {
    /// Opens `address`; port 0 takes a free one. Must be called inside the runtime.
    ///
    /// # Errors
    /// The address is not ours or the port is taken.
    pub fn bind(address: SocketAddr, metrics: Metrics) -> io::Result<Self> {
        // Without SO_REUSEADDR first: a second node on this port must fail here. It is set afterwards,
        // for the more specific sockets beside this one.
        let base = open(address, false)?;
        base.set_reuse_address(true)?;
        let base = to_tokio(base)?;
        let bound = base.local_addr()?;
        let made = Self { bound, base: Arc::new(base), own: ArcSwap::default(), metrics };
        made.follow_addresses();
        Ok(made)
    }

    /// Where it is bound.
    pub fn local(&self) -> SocketAddr {
        self.bound
    }

    /// Sends from `local`; false if the datagram could not be handed over at once (it is then lost,
    /// as UDP may; a transaction sends again).
    pub fn send(&self, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) -> bool {
        let own = self.own.load();
        let socket = own.get(&local.ip()).unwrap_or(&self.base);
        let sent = socket.try_send_to(bytes, remote).is_ok();
        if sent {
            count(&self.metrics, "udp", "out", bytes);
        }
        sent
    }

    /// Receives until the task is dropped.
    pub async fn run(self: Arc<Self>, handle: Handle) {
        let mut readers = JoinSet::new();
        let mut reading: BTreeMap<IpAddr, AbortHandle> = BTreeMap::new();
        readers.spawn(Arc::clone(&self).read(Arc::clone(&self.base), None, handle.clone()));
        loop {
            self.follow_addresses();
            let own = self.own.load_full();
            reading.retain(|address, reader| {
                let stays = own.contains_key(address);
                if !stays {
                    reader.abort();
                }
                stays
            });
            for (address, socket) in own.iter() {
                reading.entry(*address).or_insert_with(|| {
                    readers.spawn(Arc::clone(&self).read(Arc::clone(socket), Some(*address), handle.clone()))
                });
            }
            while readers.try_join_next().is_some() {}
            tokio::time::sleep(ADDRESSES_EVERY).await;
        }
    }

    async fn read(self: Arc<Self>, socket: Arc<UdpSocket>, address: Option<IpAddr>, handle: Handle) {
        let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
        loop {
            match socket.recv_from(&mut buffer).await {
                Ok((length, remote)) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    self.received(datagram, remote, address, &handle);
                }
                Err(error) => {
                    tracing::debug!(%error, "receiving SIP failed");
                    tokio::time::sleep(REST_AFTER_ERROR).await;
                }
            }
        }
    }

    fn received(&self, datagram: &[u8], remote: SocketAddr, address: Option<IpAddr>, handle: &Handle) {
        if is_keep_alive(datagram) {
            return;
        }
        count(&self.metrics, "udp", "in", datagram);
        let local =
            SocketAddr::new(address.unwrap_or_else(|| self.address_towards(remote)), self.bound.port());
        let path = Path::Udp { remote, local };
        if !handle.sip(Input::Received { path, bytes: Bytes::copy_from_slice(datagram) }) {
            self.metrics.sip_dropped("queue_full");
        }
    }

    /// The address a datagram came to where the socket does not say: the one that the route back uses.
    fn address_towards(&self, remote: SocketAddr) -> IpAddr {
        if !self.bound.ip().is_unspecified() {
            return self.bound.ip();
        }
        source_towards(remote).unwrap_or(self.bound.ip())
    }

    /// Gives each address of this machine its own socket and closes those of addresses that are gone.
    fn follow_addresses(&self) {
        if !self.bound.ip().is_unspecified() {
            return;
        }
        let addresses = machine_addresses(self.bound.is_ipv6());
        let own = self.own.load();
        if own.keys().eq(addresses.iter()) {
            return;
        }
        let mut next = Sockets::new();
        for address in addresses {
            let kept = own.get(&address).cloned();
            let socket = kept.or_else(|| {
                match open(SocketAddr::new(address, self.bound.port()), true).and_then(to_tokio) {
                    Ok(socket) => Some(Arc::new(socket)),
                    Err(error) => {
                        tracing::debug!(%address, %error, "this address gets no SIP socket of its own");
                        None
                    }
                }
            });
            if let Some(socket) = socket {
                next.insert(address, socket);
            }
        }
        self.own.store(Arc::new(next));
    }
}

/// The address that packets to `remote` leave from, as the routing table says; nothing is sent.
pub fn source_towards(remote: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let probe = std::net::UdpSocket::bind((any, 0)).ok()?;
    probe.connect(remote).ok()?;
    probe.local_addr().ok().map(|address| address.ip())
}

fn open(address: SocketAddr, beside_another: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if beside_another {
        socket.set_reuse_address(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // Neither is worth refusing to start: a network may forbid the one, a container the other.
    let marked = if address.is_ipv4() {
        socket.set_tos_v4(TOS_SIGNALLING)
    } else {
        socket.set_tclass_v6(TOS_SIGNALLING)
    };
    if let Err(error) = marked.and_then(|()| socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)) {
        tracing::debug!(%error, "the SIP socket keeps the system's defaults");
    }
    Ok(socket)
}

fn to_tokio(socket: Socket) -> io::Result<UdpSocket> {
    UdpSocket::from_std(socket.into())
}

/// The addresses of this machine, sorted; those that need a scope (`fe80::/10`) are left to the base socket.
fn machine_addresses(v6: bool) -> Vec<IpAddr> {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut found = if v6 {
        v6_addresses(&text("/proc/net/if_inet6"))
    } else {
        v4_addresses(&text("/proc/net/fib_trie"))
    };
    found.sort();
    found.dedup();
    found.truncate(ADDRESSES_MAX);
    found
}

/// `/proc/net/fib_trie`: an address line `|-- 192.0.2.2`, then `/32 host LOCAL`.
fn v4_addresses(text: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last
        {
            found.push(IpAddr::V4(address));
        }
    }
    found
}

/// `/proc/net/if_inet6`: 32 hex digits first on each line.
fn v6_addresses(text: &str) -> Vec<IpAddr> {
    let parsed =
        text.lines().filter_map(|line| u128::from_str_radix(line.split_whitespace().next()?, 16).ok());
    parsed.map(Ipv6Addr::from).filter(|address| !address.is_unicast_link_local()).map(IpAddr::V6).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::engine::desk::Answer;

    fn udp(address: &str) -> Arc<Udp> {
        Arc::new(Udp::bind(address.parse().unwrap(), Metrics::new().unwrap()).unwrap())
    }

    #[test]
    fn the_kernels_tables_are_read() {
        let trie = "Main:\n  |-- 127.0.0.1\n     /32 host LOCAL\n  |-- 192.0.2.0\n     /24 link UNICAST\n  |-- 192.0.2.2\n     /32 host LOCAL\n";
        assert_eq!(
            v4_addresses(trie),
            ["127.0.0.1".parse::<IpAddr>().unwrap(), "192.0.2.2".parse().unwrap()]
        );
        let six = "00000000000000000000000000000001 01 80 10 80 lo\nfe8000000000000000fc00fffe000001 04 40 20 80 eth0\n";
        assert_eq!(v6_addresses(six), ["::1".parse::<IpAddr>().unwrap()]);
    }

    #[tokio::test]
    async fn a_port_is_not_shared_with_a_second_node() {
        let first = udp("0.0.0.0:0");
        let again = Udp::bind(first.local(), Metrics::new().unwrap());
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn an_answer_leaves_from_the_address_that_was_asked() {
        let udp = udp("0.0.0.0:0");
        let store = crate::edge::web::testing::store().await;
        let (handle, mut heard, _) = Handle::for_test(store.0, |_, _| Answer::Done);
        let running = tokio::spawn(Arc::clone(&udp).run(handle));
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        peer.connect(("127.0.0.1", udp.local().port())).await.unwrap();
        peer.send(b"\r\n\r\n").await.unwrap();
        peer.send(b"OPTIONS sip:x SIP/2.0\r\n\r\n").await.unwrap();
        let Some(Input::Received { path, bytes }) = heard.recv().await else {
            panic!("a datagram was expected")
        };
        assert_eq!(
            (path.local().ip(), path.remote()),
            (IpAddr::V4(Ipv4Addr::LOCALHOST), peer.local_addr().unwrap())
        );
        assert!(bytes.starts_with(b"OPTIONS"));
        assert!(udp.send(path.local(), path.remote(), b"SIP/2.0 200 OK\r\n\r\n"));
        let mut answer = [0; 64];
        // The peer is connected: an answer from another address would never arrive.
        let length =
            tokio::time::timeout(Duration::from_secs(5), peer.recv(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer[..length], b"SIP/2.0 200 OK\r\n\r\n");
        running.abort();
    }
}
