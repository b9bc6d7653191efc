//! Orders: ports are opened, connected, joined and closed.

use std::collections::VecDeque;
use std::sync::mpsc::TryRecvError;

use tracing::{debug, warn};

use super::{Order, Pair, Slot, Worker, collect};
use crate::media::command::{Command, Event, Line, Open, Sound};
use crate::media::outbox::Outbox;
use crate::media::port::Port;
use crate::media::shield::Shield;
use crate::terms::{PortId, Secret};

/// Orders taken in one round.
const MAX_ORDERS_AT_ONCE: usize = 256;

/// User names by which checks of one browser are known: the current and the one before its ICE restart.
const MAX_UFRAGS: usize = 2;

impl Worker {
    /// Does what was ordered; `false` at the end.
    pub(super) fn take_orders(&mut self, now_us: u64) -> bool {
        for _ in 0..MAX_ORDERS_AT_ONCE {
            match self.setting.orders.try_recv() {
                Ok(Order::Do(command, sockets)) => self.obey(command, sockets, now_us),
                Ok(Order::Sounds(sounds)) => self.setting.sounds = sounds,
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return false,
                #[cfg(test)]
                Ok(Order::Stall(until)) => drop(until.recv()),
                Err(TryRecvError::Empty) => return true,
            }
        }
        // More wait: come back at once.
        self.setting.bell.ring();
        true
    }

    fn obey(&mut self, command: Command, sockets: Option<Pair>, now_us: u64) {
        if self.outbox.is_nearly_full() {
            self.flush();
        }
        let id = command.port();
        match command {
            Command::Open { port, call, leg, open, line } => {
                debug!(worker = self.setting.number, %port, %call, %leg, "port opens");
                self.open(port, open, &line, sockets, now_us);
            }
            Command::Expect { port: _, from } => self.with(id, |slot, _| slot.port.expect(from)),
            Command::Connect { port: _, remote } => {
                self.with(id, |slot, _| slot.port.connect(remote, now_us))
            }
            Command::Restart { port: _, ufrag, pwd } => self.restart(id, ufrag, pwd),
            Command::Join { a, b } => self.join(a, b),
            Command::Part { a } => self.part(a),
            Command::Play { port: _, sound, repeat, token } => self.play(id, &sound, repeat, token, now_us),
            Command::Stop { port: _ } => self.with(id, |slot, _| slot.port.stop()),
            Command::Digits { port: _, digits } => self.with(id, |slot, _| slot.port.press(&digits, now_us)),
            Command::Close { port: _ } => self.close(id, now_us),
        }
    }

    /// Does something to a port, then takes its events and its next time.
    fn with(&mut self, id: PortId, act: impl FnOnce(&mut Slot, &mut Outbox)) {
        let Some(at) = self.by_id.get(&id).copied() else {
            self.outbox.counts.lost_commands += 1;
            return;
        };
        if let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) {
            act(slot, &mut self.outbox);
            collect(slot, &mut self.backlog, &mut self.outbox.counts);
        }
        self.schedule(at);
    }

    fn open(&mut self, id: PortId, open: Open, line: &Line, sockets: Option<Pair>, now_us: u64) {
        if self.by_id.contains_key(&id) {
            self.push(Event::OpenFailed { port: id, why: "a port of this name is open".to_owned() });
            return;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let Ok(tag) = u32::try_from(at) else { return };
        let alarms = self.setting.alarms;
        let mut ufrags = Vec::new();
        let port = match open {
            Open::Rtp { local: _ } => Port::plain(id, tag, line, alarms, now_us),
            Open::WebRtc { ufrag, pwd } => {
                self.by_ufrag.insert(ufrag.clone(), at);
                ufrags.push(ufrag.clone());
                let shield = Shield::new(ufrag, pwd, self.setting.party.clone());
                Port::browser(id, tag, line, shield, alarms, now_us)
            }
        };
        if let Some(why) = self.watch_sockets(at, sockets.as_ref()) {
            self.free.push(at);
            self.push(Event::OpenFailed { port: id, why });
            return;
        }
        let slot = Slot {
            port,
            sockets,
            joined: None,
            due_us: u64::MAX,
            ufrags,
            local: None,
            sources: VecDeque::new(),
        };
        if let Some(place) = self.slots.get_mut(at) {
            *place = Some(slot);
        }
        self.by_id.insert(id, at);
        self.schedule(at);
    }

    fn watch_sockets(&self, at: usize, sockets: Option<&Pair>) -> Option<String> {
        let pair = sockets?;
        let name = u64::try_from(at).ok()? << 1;
        let added = self.poller.add(&pair.rtp, name).and_then(|()| self.poller.add(&pair.rtcp, name | 1));
        added.err().map(|error| error.to_string())
    }

    fn restart(&mut self, id: PortId, ufrag: String, pwd: Secret<String>) {
        if let Some(at) = self.by_id.get(&id) {
            self.by_ufrag.insert(ufrag.clone(), *at);
        }
        // The last name stays known: late checks under it are refused by the port, not taken for a stranger's.
        let mut forgotten = None;
        self.with(id, |slot, _| {
            slot.ufrags.push(ufrag.clone());
            forgotten = (slot.ufrags.len() > MAX_UFRAGS).then(|| slot.ufrags.remove(0));
            slot.port.restart(ufrag, pwd);
        });
        if let Some(old) = forgotten {
            self.by_ufrag.remove(&old);
        }
    }

    fn join(&mut self, a: PortId, b: PortId) {
        let (Some(one), Some(other)) = (self.by_id.get(&a).copied(), self.by_id.get(&b).copied()) else {
            self.outbox.counts.lost_commands += 1;
            return;
        };
        if one == other {
            self.outbox.counts.lost_commands += 1;
            return;
        }
        if self.slots.get(one).and_then(Option::as_ref).and_then(|slot| slot.joined).map(|(at, _)| at)
            == Some(other)
        {
            // They hear each other already: a new bridge would only mark a break in their lines.
            return;
        }
        self.part_slot(one);
        self.part_slot(other);
        self.bridges = self.bridges.wrapping_add(1);
        for (at, partner) in [(one, other), (other, one)] {
            if let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) {
                slot.joined = Some((partner, self.bridges));
            }
        }
    }

    fn part(&mut self, a: PortId) {
        match self.by_id.get(&a).copied() {
            Some(at) => self.part_slot(at),
            None => self.outbox.counts.lost_commands += 1,
        }
    }

    fn part_slot(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
        if let Some((partner, _)) = slot.joined.take()
            && let Some(slot) = self.slots.get_mut(partner).and_then(Option::as_mut)
        {
            slot.joined = None;
        }
    }

    fn play(&mut self, id: PortId, sound: &Sound, repeat: bool, token: u64, now_us: u64) {
        // Tones go round until they are stopped.
        let repeat = repeat || !matches!(sound, Sound::File(_));
        let Some(track) = self.setting.sounds.track(sound) else {
            warn!(port = %id, ?sound, "this sound is not in the store: silence instead");
            self.outbox.counts.missing_sounds += 1;
            self.push(Event::PlayEnded { port: id, token });
            return;
        };
        self.with(id, |slot, _| slot.port.play(track, repeat, token, now_us));
    }

    pub(super) fn close(&mut self, id: PortId, now_us: u64) {
        let Some(at) = self.by_id.remove(&id) else {
            self.outbox.counts.lost_commands += 1;
            return;
        };
        self.part_slot(at);
        if let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) {
            slot.port.close(now_us, &mut self.outbox);
            collect(slot, &mut self.backlog, &mut self.outbox.counts);
        }
        // What it had to send goes out by its own sockets, before they close.
        self.flush();
        let Some(slot) = self.slots.get_mut(at).and_then(Option::take) else { return };
        for ufrag in &slot.ufrags {
            if self.by_ufrag.get(ufrag) == Some(&at) {
                self.by_ufrag.remove(ufrag);
            }
        }
        for source in &slot.sources {
            if self.by_source.get(source) == Some(&at) {
                self.by_source.remove(source);
            }
        }
        self.free.push(at);
    }
}
