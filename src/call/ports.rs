//! Media ends: which local port, which ICE password, which egress line a leg gets.
//!
//! Invariant: a freed RTP port rests before it is given out again, longest-free first, so that late
//! packets of an old call are never heard in a new one.

use std::collections::VecDeque;
use std::net::IpAddr;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::Rng;
use serde::{Deserialize, Serialize};

use crate::media::command::Line;
use crate::terms::{MonoMs, PortId, Secret};

/// How long a freed RTP port rests, milliseconds.
pub const QUARANTINE_MS: u64 = 5_000;

/// Characters of ICE credentials: `ice-char` without the two that need care in logs (RFC 8839 section 5.4).
const ICE_CHARS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// The local half of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Local {
    /// A pair of UDP ports of its own.
    Rtp {
        /// The address told to the peer.
        address: IpAddr,
        /// The address of this machine that it is bound to; another behind a NAT.
        bind: IpAddr,
        /// The even port; RTCP is the next.
        port: u16,
    },
    /// The worker's shared browser port.
    WebRtc {
        /// The address told to the browser.
        address: IpAddr,
        /// The shared port.
        port: u16,
        /// Our ICE user fragment.
        ufrag: String,
        /// Our ICE password.
        pwd: Secret<String>,
    },
}

/// A port as it is recorded: enough for another process to open it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRecord {
    /// Its id.
    pub id: PortId,
    /// The worker that carries it.
    pub worker: usize,
    /// Where it is.
    pub local: Local,
    /// Its egress line, for life.
    pub line: Line,
}

impl PortRecord {
    /// New ICE credentials for an ICE restart; `None` for plain RTP.
    pub fn renew_credentials(&mut self, rng: &mut ChaCha20Rng) -> Option<(String, Secret<String>)> {
        let Local::WebRtc { ufrag, pwd, .. } = &mut self.local else { return None };
        (*ufrag, *pwd) = credentials(rng);
        Some((ufrag.clone(), pwd.clone()))
    }
}

/// Gives ports out and takes them back.
#[derive(Debug)]
pub(crate) struct Ports {
    free: VecDeque<u16>,
    resting: VecDeque<(MonoMs, u16)>,
    next: u64,
}

impl Ports {
    /// All of `rtp` are free; ids begin after `last`.
    pub(crate) fn new(rtp: &[u16], last: u64) -> Self {
        Self { free: rtp.iter().copied().collect(), resting: VecDeque::new(), next: last }
    }

    /// The last id given out.
    pub(crate) fn last_id(&self) -> u64 {
        self.next
    }

    /// Never gives out an id up to `last` again.
    pub(crate) fn skip_ids(&mut self, last: u64) {
        self.next = self.next.max(last);
    }

    /// Takes `port` out of the free ones: a restored call holds it.
    pub(crate) fn hold(&mut self, port: u16) {
        self.free.retain(|&free| free != port);
    }

    /// How many RTP ports can be given out now or after their rest.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.resting.len()
    }

    /// An RTP port pair, `None` when all are in use or resting.
    pub(crate) fn rtp(
        &mut self,
        (address, bind): (IpAddr, IpAddr),
        worker: usize,
        rng: &mut ChaCha20Rng,
        now: MonoMs,
    ) -> Option<PortRecord> {
        while self.resting.front().is_some_and(|&(until, _)| until <= now) {
            self.free.extend(self.resting.pop_front().map(|(_, port)| port));
        }
        let port = self.free.pop_front()?;
        Some(self.record(Local::Rtp { address, bind, port }, worker, rng))
    }

    /// A place on the worker's browser port.
    pub(crate) fn webrtc(
        &mut self,
        address: IpAddr,
        port: u16,
        worker: usize,
        rng: &mut ChaCha20Rng,
    ) -> PortRecord {
        let (ufrag, pwd) = credentials(rng);
        self.record(Local::WebRtc { address, port, ufrag, pwd }, worker, rng)
    }

    /// Takes a port back.
    pub(crate) fn close(&mut self, record: &PortRecord, now: MonoMs) {
        if let Local::Rtp { port, .. } = record.local {
            self.resting.push_back((now.saturating_add(QUARANTINE_MS), port));
        }
    }

    fn record(&mut self, local: Local, worker: usize, rng: &mut ChaCha20Rng) -> PortRecord {
        self.next = self.next.saturating_add(1);
        // RFC 3550 section 5.1: SSRC, first sequence number and timestamp are random; the sequence starts
        // in its lower half so that the first wrap is far away (RFC 3711 section 3.3.1).
        let line = Line {
            ssrc: rng.next_u32(),
            seq: u16::try_from(rng.next_u32() & 0x7fff).unwrap_or(0),
            ts: rng.next_u32(),
            cname: token(rng, 16),
        };
        PortRecord { id: PortId(self.next), worker, local, line }
    }
}

/// RFC 8445 section 5.3: at least 24 bits of ufrag and 128 of password; the ufrag also finds the port.
fn credentials(rng: &mut ChaCha20Rng) -> (String, Secret<String>) {
    (token(rng, 12), Secret::new(token(rng, 24)))
}

/// `length` random characters.
pub(super) fn token(rng: &mut ChaCha20Rng, length: usize) -> String {
    (0..length)
        .map(|_| {
            let at = usize::try_from(rng.next_u32() % 62).unwrap_or(0);
            char::from(ICE_CHARS.get(at).copied().unwrap_or(b'A'))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    fn port_of(record: &PortRecord) -> u16 {
        match record.local {
            Local::Rtp { port, .. } | Local::WebRtc { port, .. } => port,
        }
    }

    #[test]
    fn a_freed_port_rests_and_the_longest_free_comes_first() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let address = IpAddr::from([127, 0, 0, 1]);
        let mut ports = Ports::new(&[20_000, 20_002], 0);
        let first = ports.rtp((address, address), 0, &mut rng, 0).unwrap();
        let second = ports.rtp((address, address), 0, &mut rng, 0).unwrap();
        assert!(ports.rtp((address, address), 0, &mut rng, 0).is_none());
        ports.close(&second, 10);
        ports.close(&first, 20);
        assert!(ports.rtp((address, address), 0, &mut rng, QUARANTINE_MS + 9).is_none());
        assert_eq!(port_of(&ports.rtp((address, address), 0, &mut rng, QUARANTINE_MS + 10).unwrap()), 20_002);
        assert!(ports.rtp((address, address), 0, &mut rng, QUARANTINE_MS + 19).is_none());
        let third = ports.rtp((address, address), 0, &mut rng, QUARANTINE_MS + 20).unwrap();
        assert_eq!(port_of(&third), 20_000);
        assert!(third.id > second.id);
    }

    #[test]
    fn each_port_has_credentials_of_its_own() {
        let mut rng = ChaCha20Rng::from_seed([2; 32]);
        let mut ports = Ports::new(&[], 0);
        let address = IpAddr::from([127, 0, 0, 1]);
        let one = ports.webrtc(address, 10_000, 0, &mut rng);
        let two = ports.webrtc(address, 10_000, 0, &mut rng);
        assert_ne!(one.local, two.local);
        assert_ne!(one.line.ssrc, two.line.ssrc);
    }
}
