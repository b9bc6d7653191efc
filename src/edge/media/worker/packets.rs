//! Packets: from the sockets to their ports, and the batch to the kernel.

use std::net::SocketAddr;

use super::{BELL, SHARED, Worker, collect};
use crate::edge::media::socket::{self, Inbox, Letter, Postmark};
use crate::media::ice::stun_username;
use crate::media::outbox::Component;
use crate::media::rtp::{self, Class};

/// Strangers' datagrams taken from one plain socket before the others have their turn.
const MAX_IN_A_ROW: usize = 16;

/// Batches taken from the shared socket before the others have their turn.
const MAX_BATCHES: usize = 16;

/// Addresses remembered for one browser (its candidates); the oldest is forgotten.
const MAX_SOURCES: usize = 16;

impl Worker {
    pub(super) fn receive(&mut self, now_us: u64, inbox: &mut Inbox, buffer: &mut [u8]) {
        let mut taken = 0;
        for at in 0..self.ready.len() {
            match self.ready.get(at).copied() {
                Some(BELL) => self.setting.bell.hush(),
                Some(SHARED) => taken += self.receive_shared(now_us, inbox),
                Some(name) => taken += self.receive_plain(name, now_us, buffer),
                None => {}
            }
        }
        self.outbox.counts.received += u64::from(taken);
        self.window.note(taken, now_us);
    }

    fn receive_shared(&mut self, now_us: u64, inbox: &mut Inbox) -> u32 {
        let mut count = 0;
        for _ in 0..MAX_BATCHES {
            let Ok(taken) = inbox.take(&self.setting.shared) else { break };
            for (datagram, postmark) in inbox.datagrams() {
                count += 1;
                match self.slot_of(datagram, postmark.from) {
                    Some(slot) => self.handle(slot, datagram, postmark, Component::Rtp, now_us),
                    None => self.outbox.counts.stray += 1,
                }
            }
            if taken < socket::MAX_AT_ONCE {
                break;
            }
        }
        count
    }

    /// Checks say in clear whom they mean; everything else belongs to whom its address checked in for.
    fn slot_of(&mut self, datagram: &[u8], from: SocketAddr) -> Option<usize> {
        if rtp::class(datagram) != Class::Stun {
            return self.by_source.get(&from).copied();
        }
        let (ours, _) = stun_username(datagram)?;
        self.by_ufrag.get(ours).copied()
    }

    fn receive_plain(&mut self, name: u64, now_us: u64, buffer: &mut [u8]) -> u32 {
        let component = if name & 1 == 0 { Component::Rtp } else { Component::Rtcp };
        let Ok(at) = usize::try_from(name >> 1) else { return 0 };
        let strangers = self.outbox.counts.stray;
        let mut count = 0;
        for _ in 0..MAX_IN_A_ROW {
            let slot = self.slots.get(at).and_then(Option::as_ref);
            let Some(pair) = slot.and_then(|slot| slot.sockets.as_ref()) else { break };
            let Ok((len, from)) = pair.of(component).recv_from(buffer) else { break };
            count += 1;
            if let Some(datagram) = buffer.get_mut(..len) {
                self.handle(at, datagram, Postmark { from, at: None }, component, now_us);
            }
            // A party sends one packet in ten milliseconds at most: asking again would be waste. A stranger
            // who floods the port must not fill its queue.
            if self.outbox.counts.stray == strangers {
                break;
            }
        }
        count
    }

    fn handle(
        &mut self,
        at: usize,
        datagram: &mut [u8],
        postmark: Postmark,
        component: Component,
        now_us: u64,
    ) {
        if self.outbox.is_nearly_full() {
            self.flush();
        }
        let class = rtp::class(datagram);
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
        let heard = slot.port.handle(datagram, postmark.from, component, now_us, &mut self.outbox);
        collect(slot, &mut self.backlog, &mut self.outbox.counts);
        let joined = slot.joined;
        if let (Some(heard), Some((partner, bridge))) = (heard, joined)
            && let Some(slot) = self.slots.get_mut(partner).and_then(Option::as_mut)
        {
            slot.port.relay(&heard, bridge, now_us, &mut self.outbox);
        }
        // Sound brings no deadline nearer; the rest may.
        if class != Class::Rtp {
            if class == Class::Stun {
                self.learn(at, postmark);
            }
            self.schedule(at);
        }
    }

    /// An address from which a browser's authentic check came is its own from now on.
    fn learn(&mut self, at: usize, postmark: Postmark) {
        let from = postmark.from;
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
        if !slot.port.is_validated(from) {
            return;
        }
        slot.local = postmark.at;
        if self.by_source.get(&from) == Some(&at) {
            return;
        }
        slot.sources.push_back(from);
        let forgotten = if slot.sources.len() > MAX_SOURCES { slot.sources.pop_front() } else { None };
        if let Some(old) = forgotten {
            self.by_source.remove(&old);
        }
        self.by_source.insert(from, at);
    }

    /// Hands the batch to the kernel.
    pub(super) fn flush(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        let mut lost = 0;
        let slots = &self.slots;
        let pair_of = |tag: u32| {
            let slot = slots.get(usize::try_from(tag).ok()?)?.as_ref()?;
            slot.sockets.as_ref()
        };
        for (parcel, bytes) in self.outbox.parcels() {
            if let Some(pair) = pair_of(parcel.tag)
                && pair.of(parcel.component).send_to(bytes, parcel.to).is_err()
            {
                lost += 1;
            }
        }
        let shared = self.outbox.parcels().filter(|(parcel, _)| pair_of(parcel.tag).is_none());
        let local_of = |tag: u32| slots.get(usize::try_from(tag).ok()?)?.as_ref()?.local;
        let letters =
            shared.map(|(parcel, bytes)| Letter { from: local_of(parcel.tag), to: parcel.to, bytes });
        lost += socket::give(&self.setting.shared, letters);
        let all = u64::try_from(self.outbox.len()).unwrap_or(0);
        self.outbox.clear();
        self.outbox.counts.sent += all.saturating_sub(lost);
        self.outbox.counts.send_errors += lost;
    }
}
