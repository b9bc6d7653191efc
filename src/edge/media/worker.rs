//! One media thread: it waits for packets, hands each to its port, and sends what comes of it.
//!
//! ```text
//!  wait ─▶ shared socket, plain sockets ─▶ Port::handle ─▶ partner.relay ─┐
//!   ▲      orders from the engine       ─▶ Port                           ├─▶ Outbox ─▶ kernel
//!   │      timers (heap)                ─▶ Port::handle_timeout           ┘   events ─▶ driver
//!   └─ when busy: sleep to the next millisecond first, so that packets gather
//! ```
//!
//! Waking for each packet costs three times the relay itself; so it is done only while packets are few.
//!
//! Invariant: nothing here waits for anybody but the kernel, and a relayed packet takes no lock and
//! allocates nothing.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tracing::{debug, warn};

use crate::edge::clock;
use crate::edge::media::socket::{self, Bell, Inbox, Poller};
use crate::edge::media::sounds::Sounds;
use crate::media::command::{Command, Counts, Event, Line, Open, Sound};
use crate::media::dtls::DtlsParty;
use crate::media::ice::stun_username;
use crate::media::outbox::{Component, Outbox};
use crate::media::port::{Alarms, Port};
use crate::media::rtp::{self, Class, MAX_DATAGRAM};
use crate::media::shield::Shield;
use crate::terms::PortId;

/// The beat on which packets gather while there are many, microseconds.
const BEAT_US: u64 = 1_000;

/// Datagrams in one [`WINDOW_US`] from which on the worker gathers: 2,000 a second.
const BUSY: u32 = 20;
const WINDOW_US: u64 = 10_000;

/// How often progress and counts are told, microseconds.
const TELL_US: u64 = 100_000;
const TELL_COUNTS_US: u64 = 1_000_000;

/// Sockets named by one wait.
const MAX_READY: usize = 1_024;

/// Datagrams taken from one plain socket before the others have their turn.
const MAX_IN_A_ROW: usize = 16;

/// Batches taken from the shared socket before the others have their turn.
const MAX_BATCHES: usize = 16;

/// Orders taken in one round.
const MAX_ORDERS_AT_ONCE: usize = 256;

/// Events that wait for a driver that is behind; more are lost and counted.
const MAX_BACKLOG: usize = 65_536;

/// Addresses remembered for one browser (its candidates); the oldest is forgotten.
const MAX_SOURCES: usize = 16;

/// User names by which checks of one browser are known: the current and the one before its ICE restart.
const MAX_UFRAGS: usize = 2;

/// How long a worker without ports waits at most, milliseconds.
const IDLE_MS: i32 = 1_000;

/// Names of the two sockets that are no port's.
const BELL: u64 = u64::MAX;
const SHARED: u64 = u64::MAX - 1;

/// What a worker is told.
#[derive(Debug)]
pub(super) enum Order {
    /// A command; with the sockets of a plain port that it opens.
    Do(Command, Option<Pair>),
    /// New prompts.
    Sounds(Arc<Sounds>),
    /// The end.
    Stop,
}

/// The sockets of a plain port.
#[derive(Debug)]
pub(super) struct Pair {
    rtp: UdpSocket,
    rtcp: UdpSocket,
}

impl Pair {
    /// Binds `at` and the port after it.
    pub(super) fn bind(at: SocketAddr, dscp: u8) -> io::Result<Self> {
        let next = at.port().checked_add(1).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { rtp: socket::bind(at, dscp)?, rtcp: socket::bind(SocketAddr::new(at.ip(), next), dscp)? })
    }

    fn of(&self, component: Component) -> &UdpSocket {
        match component {
            Component::Rtp => &self.rtp,
            Component::Rtcp => &self.rtcp,
        }
    }
}

/// A port and what belongs to it here.
struct Slot {
    port: Port,
    sockets: Option<Pair>,
    /// The joined slot and the name of the join.
    joined: Option<(usize, u32)>,
    /// The entry of the timer heap that counts.
    due_us: u64,
    ufrags: Vec<String>,
    sources: VecDeque<SocketAddr>,
}

/// What a worker is made of.
pub(super) struct Setting {
    pub(super) number: usize,
    pub(super) shared: UdpSocket,
    pub(super) orders: Receiver<Order>,
    pub(super) bell: Arc<Bell>,
    pub(super) events: Sender<(usize, Event)>,
    pub(super) counts: Arc<Mutex<Counts>>,
    pub(super) party: DtlsParty,
    pub(super) alarms: Alarms,
    pub(super) sounds: Arc<Sounds>,
}

/// One thread's whole state.
pub(super) struct Worker {
    setting: Setting,
    poller: Poller,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    by_id: HashMap<PortId, usize>,
    by_ufrag: HashMap<String, usize>,
    by_source: HashMap<SocketAddr, usize>,
    timers: BinaryHeap<Reverse<(u64, usize)>>,
    outbox: Outbox,
    backlog: VecDeque<Event>,
    ready: Vec<u64>,
    bridges: u32,
    window: Window,
    tell_us: u64,
    tell_counts_us: u64,
    told: Counts,
}

/// How many datagrams came lately.
#[derive(Default)]
struct Window {
    since_us: u64,
    count: u32,
    busy: bool,
}

impl Window {
    fn note(&mut self, count: u32, now_us: u64) {
        self.count = self.count.saturating_add(count);
        if now_us.saturating_sub(self.since_us) >= WINDOW_US {
            self.busy = self.count >= BUSY;
            self.since_us = now_us;
            self.count = 0;
        }
    }
}

impl Worker {
    pub(super) fn new(setting: Setting) -> io::Result<Self> {
        let poller = Poller::new(MAX_READY)?;
        poller.add(&*setting.bell, BELL)?;
        poller.add(&setting.shared, SHARED)?;
        Ok(Self {
            setting,
            poller,
            slots: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            by_ufrag: HashMap::new(),
            by_source: HashMap::new(),
            timers: BinaryHeap::new(),
            outbox: Outbox::default(),
            backlog: VecDeque::new(),
            ready: Vec::with_capacity(MAX_READY),
            bridges: 0,
            window: Window::default(),
            tell_us: 0,
            tell_counts_us: 0,
            told: Counts::default(),
        })
    }

    /// Works until told to stop or until nobody can tell any more.
    pub(super) fn run(mut self) {
        let mut inbox = Inbox::default();
        let mut buffer = [0; MAX_DATAGRAM + 36];
        let mut goes_on = true;
        while goes_on {
            let timeout_ms = self.timeout_ms(clock::mono_us());
            self.ready.clear();
            if let Err(error) = self.poller.wait(timeout_ms, &mut self.ready) {
                warn!(worker = self.setting.number, %error, "waiting for packets failed");
                std::thread::sleep(Duration::from_micros(BEAT_US));
            }
            let now_us = clock::mono_us();
            self.receive(now_us, &mut inbox, &mut buffer);
            goes_on = self.take_orders(now_us);
            self.run_timers(now_us);
            self.tell(now_us);
            self.flush();
            self.say();
            self.gather(now_us);
        }
        for id in self.by_id.keys().copied().collect::<Vec<_>>() {
            self.close(id, clock::mono_us());
        }
        self.flush();
        self.say();
        self.publish();
    }

    /// While packets are many, sleeps out the rest of the beat so that they gather.
    fn gather(&self, began_us: u64) {
        if !self.window.busy {
            return;
        }
        let spent = clock::mono_us().saturating_sub(began_us);
        if let Some(rest) = BEAT_US.checked_sub(spent) {
            std::thread::sleep(Duration::from_micros(rest));
        }
    }

    fn timeout_ms(&self, now_us: u64) -> i32 {
        if self.by_id.is_empty() && self.backlog.is_empty() {
            return IDLE_MS;
        }
        let next = self.timers.peek().map_or(u64::MAX, |Reverse((due, _))| *due);
        let wait_us = next.min(self.tell_us).saturating_sub(now_us);
        if wait_us == 0 { 0 } else { i32::try_from(wait_us.div_ceil(1_000)).unwrap_or(i32::MAX) }
    }
}

/// Packets.
impl Worker {
    fn receive(&mut self, now_us: u64, inbox: &mut Inbox, buffer: &mut [u8]) {
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
            for (datagram, from) in inbox.datagrams() {
                count += 1;
                match self.slot_of(datagram, from) {
                    Some(slot) => self.handle(slot, datagram, from, Component::Rtp, now_us),
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
        let mut count = 0;
        for _ in 0..MAX_IN_A_ROW {
            let Some(pair) =
                self.slots.get(at).and_then(Option::as_ref).and_then(|slot| slot.sockets.as_ref())
            else {
                break;
            };
            // The last try finds nothing as a rule; with one packet a wake a second call would be waste.
            let Ok((len, from)) = pair.of(component).recv_from(buffer) else { break };
            count += 1;
            if let Some(datagram) = buffer.get_mut(..len) {
                self.handle(at, datagram, from, component, now_us);
            }
            if !self.window.busy {
                break;
            }
        }
        count
    }

    fn handle(
        &mut self,
        at: usize,
        datagram: &mut [u8],
        from: SocketAddr,
        component: Component,
        now_us: u64,
    ) {
        if self.outbox.is_nearly_full() {
            self.flush();
        }
        let class = rtp::class(datagram);
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
        let heard = slot.port.handle(datagram, from, component, now_us, &mut self.outbox);
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
                self.learn(at, from);
            }
            self.schedule(at);
        }
    }

    /// An address from which a browser's authentic check came is its own from now on.
    fn learn(&mut self, at: usize, from: SocketAddr) {
        if self.by_source.get(&from) == Some(&at) {
            return;
        }
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
        if !slot.port.is_validated(from) {
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
    fn flush(&mut self) {
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
        lost += socket::give(&self.setting.shared, shared.map(|(parcel, bytes)| (parcel.to, bytes)));
        let all = u64::try_from(self.outbox.len()).unwrap_or(0);
        self.outbox.clear();
        self.outbox.counts.sent += all.saturating_sub(lost);
        self.outbox.counts.send_errors += lost;
    }
}

/// Moves what a port says into the backlog.
fn collect(slot: &mut Slot, backlog: &mut VecDeque<Event>, counts: &mut Counts) {
    while let Some(event) = slot.port.poll() {
        if backlog.len() < MAX_BACKLOG {
            backlog.push_back(event);
        } else {
            counts.lost_events += 1;
        }
    }
}

/// Time.
impl Worker {
    fn run_timers(&mut self, now_us: u64) {
        while let Some(Reverse((due, at))) = self.timers.peek().copied() {
            if due > now_us {
                break;
            }
            self.timers.pop();
            if self.outbox.is_nearly_full() {
                self.flush();
            }
            // An entry that the slot no longer counts on is a left-over.
            let Some(slot) =
                self.slots.get_mut(at).and_then(Option::as_mut).filter(|slot| slot.due_us == due)
            else {
                continue;
            };
            slot.port.handle_timeout(now_us, &mut self.outbox);
            slot.due_us = u64::MAX;
            collect(slot, &mut self.backlog, &mut self.outbox.counts);
            self.schedule(at);
        }
    }

    /// Enters the port's next time into the heap if it is earlier than the one that is there.
    fn schedule(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
        let next = slot.port.next_timeout();
        if next < slot.due_us {
            slot.due_us = next;
            self.timers.push(Reverse((next, at)));
        }
    }

    fn tell(&mut self, now_us: u64) {
        if now_us < self.tell_us {
            return;
        }
        self.tell_us = now_us + TELL_US;
        let progress: Vec<_> =
            self.slots.iter_mut().flatten().filter_map(|slot| slot.port.progress()).collect();
        if !progress.is_empty() {
            self.push(Event::Progress(progress));
        }
        let counts = self.publish();
        if now_us >= self.tell_counts_us && counts != self.told {
            self.tell_counts_us = now_us + TELL_COUNTS_US;
            self.told = counts;
            self.push(Event::Counts(counts));
        }
    }

    /// Shows the counts to whoever asks from outside.
    fn publish(&mut self) -> Counts {
        self.outbox.counts.ports = u64::try_from(self.by_id.len()).unwrap_or(0);
        let counts = self.outbox.counts;
        *self.setting.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        counts
    }

    fn push(&mut self, event: Event) {
        if self.backlog.len() < MAX_BACKLOG {
            self.backlog.push_back(event);
        } else {
            self.outbox.counts.lost_events += 1;
        }
    }

    /// Hands events to the driver; what it has no room for waits here.
    fn say(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            match self.setting.events.try_send((self.setting.number, event)) {
                Ok(()) => {}
                Err(TrySendError::Full((_, event))) => {
                    self.backlog.push_front(event);
                    return;
                }
                Err(TrySendError::Closed(_)) => self.outbox.counts.lost_events += 1,
            }
        }
    }
}

/// Orders.
impl Worker {
    /// Does what was ordered; `false` at the end.
    fn take_orders(&mut self, now_us: u64) -> bool {
        for _ in 0..MAX_ORDERS_AT_ONCE {
            match self.setting.orders.try_recv() {
                Ok(Order::Do(command, sockets)) => self.obey(command, sockets, now_us),
                Ok(Order::Sounds(sounds)) => self.setting.sounds = sounds,
                Ok(Order::Stop) | Err(std::sync::mpsc::TryRecvError::Disconnected) => return false,
                Err(std::sync::mpsc::TryRecvError::Empty) => return true,
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
        let slot = Slot { port, sockets, joined: None, due_us: u64::MAX, ufrags, sources: VecDeque::new() };
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

    fn restart(&mut self, id: PortId, ufrag: String, pwd: crate::terms::Secret<String>) {
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

    fn close(&mut self, id: PortId, now_us: u64) {
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
