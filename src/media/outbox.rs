//! Where packets to be sent wait for the end of a batch.
//!
//! One arena for each worker, made once: a port writes header and payload straight into its next slot, and
//! the worker hands the whole batch to the kernel.
//!
//! Invariant: a full box loses the packet and counts it; it never grows.

use std::net::SocketAddr;

use crate::media::command::Counts;

/// Packets that fit into one batch.
pub const MAX_PARCELS: usize = 256;

/// The most that one call of a port may add; the worker empties the box when fewer slots are free.
pub const RESERVE: usize = 32;

/// Octets of a slot: an Ethernet frame and the longest SRTP trailer.
pub const SLOT_LEN: usize = 1_536;

/// Which socket of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// RTP, and everything of a browser.
    Rtp,
    /// RTCP of a plain leg.
    Rtcp,
}

/// A packet in the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parcel {
    /// The worker's own name of the port.
    pub tag: u32,
    /// Which of its sockets.
    pub component: Component,
    /// Where to.
    pub to: SocketAddr,
    /// Octets.
    pub len: usize,
}

/// The box.
#[derive(Debug)]
pub struct Outbox {
    arena: Vec<u8>,
    parcels: Vec<Parcel>,
    /// What the ports of this worker counted.
    pub counts: Counts,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            arena: vec![0; MAX_PARCELS * SLOT_LEN],
            parcels: Vec::with_capacity(MAX_PARCELS),
            counts: Counts::default(),
        }
    }
}

impl Outbox {
    /// Adds what `fill` writes into a slot; `None` of it adds nothing. Whether anything was added.
    pub fn add(
        &mut self,
        tag: u32,
        component: Component,
        to: SocketAddr,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        let start = self.parcels.len() * SLOT_LEN;
        let Some(slot) = self.arena.get_mut(start..start + SLOT_LEN) else {
            self.counts.send_errors += 1;
            return false;
        };
        let Some(len) = fill(slot) else { return false };
        self.parcels.push(Parcel { tag, component, to, len: len.min(SLOT_LEN) });
        true
    }

    /// Adds a packet that is there already.
    pub fn add_bytes(&mut self, tag: u32, component: Component, to: SocketAddr, bytes: &[u8]) -> bool {
        self.add(tag, component, to, |slot| {
            slot.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some(bytes.len())
        })
    }

    /// Whether it must be emptied before the next call of a port.
    pub fn is_nearly_full(&self) -> bool {
        self.parcels.len() + RESERVE > MAX_PARCELS
    }

    /// The packets in the order they were added.
    pub fn parcels(&self) -> impl Iterator<Item = (&Parcel, &[u8])> {
        self.parcels
            .iter()
            .zip(self.arena.chunks_exact(SLOT_LEN))
            .map(|(parcel, slot)| (parcel, slot.get(..parcel.len).unwrap_or(slot)))
    }

    /// Packets in it.
    pub fn len(&self) -> usize {
        self.parcels.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    /// Forgets the packets.
    pub fn clear(&mut self) {
        self.parcels.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "tests"
    )]
    use super::*;

    #[test]
    fn a_full_box_loses_and_counts() {
        let to = "127.0.0.1:9".parse().unwrap();
        let mut outbox = Outbox::default();
        for _ in 0..MAX_PARCELS {
            assert!(outbox.add_bytes(1, Component::Rtp, to, b"abc"));
        }
        assert!(outbox.is_nearly_full());
        assert!(!outbox.add_bytes(1, Component::Rtp, to, b"abc"));
        assert_eq!((outbox.len(), outbox.counts.send_errors), (MAX_PARCELS, 1));
        assert_eq!(outbox.parcels().next().unwrap().1, b"abc");
        outbox.clear();
        assert!(!outbox.add(1, Component::Rtp, to, |_| None));
        assert!(outbox.is_empty());
    }
}
