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

mod beat;
mod orders;
mod packets;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tracing::{error, warn};

use crate::edge::clock;
use crate::edge::media::socket::{self, Bell, Inbox, Poller};
use crate::edge::media::sounds::Sounds;
use crate::media::command::{Command, Counts, Event};
use crate::media::dtls::DtlsParty;
use crate::media::outbox::{Component, Outbox};
use crate::media::port::{Alarms, Port};
use crate::media::rtp::MAX_DATAGRAM;
use crate::terms::PortId;

/// The beat on which packets gather while there are many, microseconds.
const BEAT_US: u64 = 1_000;

/// Datagrams in one [`WINDOW_US`] from which on the worker gathers: 2,000 a second.
const BUSY: u32 = 20;
const WINDOW_US: u64 = 10_000;

/// Sockets named by one wait.
const MAX_READY: usize = 1_024;

/// Events that wait for a driver that is behind; more are lost and counted.
const MAX_BACKLOG: usize = 65_536;

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
    /// The worker stands still until the other end is dropped.
    #[cfg(test)]
    Stall(Receiver<()>),
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
    /// Which of our addresses a browser's checks come to: packets to it leave from there.
    local: Option<IpAddr>,
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
    pub(super) ticked_ms: Arc<AtomicU64>,
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
            self.wait();
            // A panic costs the packet or the timer that met it, not the calls of all others: what waits in
            // the sockets is named again by the next wait.
            let round = AssertUnwindSafe(|| self.round(&mut inbox, &mut buffer));
            goes_on = std::panic::catch_unwind(round).unwrap_or_else(|_| {
                error!(worker = self.setting.number, "a media worker panicked and goes on");
                true
            });
        }
        for id in self.by_id.keys().copied().collect::<Vec<_>>() {
            self.close(id, clock::mono_us());
        }
        self.flush();
        self.say();
        self.publish();
    }

    fn wait(&mut self) {
        let timeout_ms = self.timeout_ms(clock::mono_us());
        self.ready.clear();
        if let Err(error) = self.poller.wait(timeout_ms, &mut self.ready) {
            warn!(worker = self.setting.number, %error, "waiting for packets failed");
            std::thread::sleep(Duration::from_micros(BEAT_US));
        }
    }

    /// One turn of the circle; `false` at the end.
    fn round(&mut self, inbox: &mut Inbox, buffer: &mut [u8]) -> bool {
        let now_us = clock::mono_us();
        self.setting.ticked_ms.store(now_us / 1_000, Ordering::Relaxed);
        self.receive(now_us, inbox, buffer);
        let goes_on = self.take_orders(now_us);
        self.run_timers(now_us);
        self.tell(now_us);
        self.flush();
        self.say();
        self.gather(now_us);
        goes_on
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
