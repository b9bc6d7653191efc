//! The media plane: the threads that carry sound.
//!
//! A few operating system threads, each with one UDP port that its browsers share and a pair of ports for
//! each plain leg. The engine tells them what to do ([`Command`]) and hears what they see ([`Event`]); no
//! packet ever passes through it.
//!
//! Invariant: `send` never blocks; what a full queue refuses is counted and, where it matters, said.

pub mod socket;
pub mod sounds;
mod worker;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::mpsc::Sender;

pub use crate::edge::media::sounds::{SoundError, Sounds};

use crate::edge::clock;
use crate::edge::media::socket::Bell;
use crate::edge::media::worker::{Order, Pair, Worker};
use crate::media::command::{Command, Counts, Event, Open};
use crate::media::dtls::{DtlsParty, Identity};
use crate::media::port::Alarms;
use crate::terms::MonoMs;

/// Orders that may wait for one worker.
pub const MAX_ORDERS: usize = 16_384;

/// A worker that has not turned for so long does not work, milliseconds: without ports it turns every
/// second, with ports ten times as often.
pub const STALLED_MS: u64 = 3_000;

/// The expedited forwarding class (RFC 3246): what voice is marked with as a rule.
pub const DSCP_EF: u8 = 46;

/// How the media plane is set up.
#[derive(Debug)]
pub struct MediaConfig {
    /// Threads; at least one is started.
    pub workers: usize,
    /// Browsers of worker n use UDP port `webrtc_port + n`; 0 takes free ports.
    pub webrtc_port: u16,
    /// The address that browsers' packets come to.
    pub address: IpAddr,
    /// DSCP of all packets sent, as a rule [`DSCP_EF`].
    pub dscp: u8,
    /// No sound for so long is `Event::Silent`, milliseconds.
    pub silence_alarm_ms: u64,
    /// Nothing at all for so long is `Event::Dead`, milliseconds; 0 never.
    pub dead_after_ms: u64,
    /// Our DTLS certificate and its key.
    pub identity: Identity,
    /// Prompts.
    pub sounds: Sounds,
}

/// One thread, from outside.
#[derive(Debug)]
struct Desk {
    orders: SyncSender<Order>,
    bell: Arc<Bell>,
    webrtc: SocketAddr,
    counts: Arc<Mutex<Counts>>,
    /// When it last turned, on the monotonic clock.
    ticked_ms: Arc<AtomicU64>,
    lost: AtomicU64,
    /// Orders wait that the worker was not woken for.
    has_word: AtomicBool,
    thread: Option<JoinHandle<()>>,
}

/// All media workers.
#[derive(Debug)]
pub struct MediaPlane {
    desks: Vec<Desk>,
    events: Sender<(usize, Event)>,
    dscp: u8,
    fingerprint: [u8; 32],
    lost_events: AtomicU64,
}

impl MediaPlane {
    /// Binds the browsers' ports and starts the threads. Events come with the number of their worker.
    ///
    /// # Errors
    /// A port that is taken, a certificate that cannot be used, or a system out of threads.
    pub fn start(config: MediaConfig, events: Sender<(usize, Event)>) -> io::Result<Self> {
        let now_ms = clock::mono_ms();
        let party = DtlsParty::new(&config.identity, clock::instant_of(now_ms).into_std(), now_ms)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let fingerprint = party.fingerprint();
        let alarms = Alarms { silence_ms: config.silence_alarm_ms, dead_ms: config.dead_after_ms };
        let sounds = Arc::new(config.sounds);
        let mut plane = Self {
            desks: Vec::new(),
            events,
            dscp: config.dscp,
            fingerprint,
            lost_events: AtomicU64::new(0),
        };
        for number in 0..config.workers.max(1) {
            let port = match (config.webrtc_port, u16::try_from(number)) {
                (0, _) => 0,
                (first, Ok(number)) => first.checked_add(number).ok_or_else(|| too_many(first))?,
                (first, Err(_)) => return Err(too_many(first)),
            };
            let shared = socket::bind_shared(SocketAddr::new(config.address, port), config.dscp)?;
            plane.add(number, shared, party.clone(), alarms, Arc::clone(&sounds))?;
        }
        Ok(plane)
    }

    fn add(
        &mut self,
        number: usize,
        shared: UdpSocket,
        party: DtlsParty,
        alarms: Alarms,
        sounds: Arc<Sounds>,
    ) -> io::Result<()> {
        let (orders, inbox) = sync_channel(MAX_ORDERS);
        let bell = Arc::new(Bell::new()?);
        let counts = Arc::new(Mutex::new(Counts::default()));
        let ticked_ms = Arc::new(AtomicU64::new(clock::mono_ms()));
        let webrtc = shared.local_addr()?;
        let events = self.events.clone();
        let worker = Worker::new(worker::Setting {
            number,
            shared,
            orders: inbox,
            bell: Arc::clone(&bell),
            events,
            counts: Arc::clone(&counts),
            ticked_ms: Arc::clone(&ticked_ms),
            party,
            alarms,
            sounds,
        })?;
        let thread =
            std::thread::Builder::new().name(format!("media-{number}")).spawn(move || worker.run())?;
        self.desks.push(Desk {
            orders,
            bell,
            webrtc,
            counts,
            ticked_ms,
            lost: AtomicU64::new(0),
            has_word: AtomicBool::new(false),
            thread: Some(thread),
        });
        Ok(())
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.desks.len()
    }

    /// The UDP port of a worker's browsers; 0 for a worker that is not there.
    pub fn webrtc_port(&self, worker: usize) -> u16 {
        self.desks.get(worker).map_or(0, |desk| desk.webrtc.port())
    }

    /// SHA-256 of our DTLS certificate, for SDP.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Tells a worker what to do, and wakes it.
    pub fn send(&self, worker: usize, command: Command) {
        self.leave(worker, command);
        self.wake();
    }

    /// Leaves word for a worker until [`MediaPlane::wake`]. The ports of a plain leg are bound here and now,
    /// so that the SDP that names them is true; if they cannot be, `Event::OpenFailed` says so.
    pub fn leave(&self, worker: usize, command: Command) {
        let port = command.port();
        let order = match &command {
            Command::Open { open: Open::Rtp { local }, .. } => match Pair::bind(*local, self.dscp) {
                Ok(pair) => Order::Do(command, Some(pair)),
                Err(error) => {
                    self.say(worker, Event::OpenFailed { port, why: format!("{local}: {error}") });
                    return;
                }
            },
            Command::Open { open: Open::WebRtc { .. }, .. }
            | Command::Expect { .. }
            | Command::Connect { .. }
            | Command::Restart { .. }
            | Command::Join { .. }
            | Command::Part { .. }
            | Command::Play { .. }
            | Command::Stop { .. }
            | Command::Digits { .. }
            | Command::Close { .. } => Order::Do(command, None),
        };
        let is_open = matches!(order, Order::Do(Command::Open { .. }, _));
        if !self.order(worker, order) && is_open {
            self.say(worker, Event::OpenFailed { port, why: "the media worker takes no orders".to_owned() });
        }
    }

    fn order(&self, worker: usize, order: Order) -> bool {
        let Some(desk) = self.desks.get(worker) else {
            self.lost_events.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        if desk.orders.try_send(order).is_err() {
            desk.lost.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        desk.has_word.store(true, Ordering::Relaxed);
        true
    }

    /// Wakes the workers for whom word was left: once for all that a step of the engine wants of them,
    /// because waking a thread costs more than any of its orders.
    pub fn wake(&self) {
        for desk in &self.desks {
            if desk.has_word.swap(false, Ordering::Relaxed) {
                desk.bell.ring();
            }
        }
    }

    fn say(&self, worker: usize, event: Event) {
        if self.events.try_send((worker, event)).is_err() {
            self.lost_events.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// New prompts for what is played from now on.
    pub fn reload(&self, sounds: Sounds) {
        let sounds = Arc::new(sounds);
        for worker in 0..self.desks.len() {
            self.order(worker, Order::Sounds(Arc::clone(&sounds)));
        }
        self.wake();
    }

    /// Even ports of the range whose pair (port, port + 1) can be bound at `address` now.
    pub fn free_rtp_ports(&self, address: IpAddr, range: RangeInclusive<u16>) -> Vec<u16> {
        range
            .filter(|port| port % 2 == 0)
            .filter(|port| Pair::bind(SocketAddr::new(address, *port), self.dscp).is_ok())
            .collect()
    }

    /// What all workers counted, as of the last tenth of a second.
    pub fn counts(&self) -> Counts {
        let mut sum = Counts { lost_events: self.lost_events.load(Ordering::Relaxed), ..Counts::default() };
        for desk in &self.desks {
            let one = *desk.counts.lock().unwrap_or_else(PoisonError::into_inner);
            sum.ports += one.ports;
            sum.received += one.received;
            sum.sent += one.sent;
            sum.relayed += one.relayed;
            sum.stray += one.stray;
            sum.malformed += one.malformed;
            sum.refused += one.refused;
            sum.unwanted += one.unwanted;
            sum.send_errors += one.send_errors;
            sum.lost_commands += one.lost_commands + desk.lost.load(Ordering::Relaxed);
            sum.lost_events += one.lost_events;
            sum.missing_sounds += one.missing_sounds;
            sum.lost += one.lost;
        }
        sum
    }

    /// Whether every worker's thread is alive and has turned within the last [`STALLED_MS`].
    pub fn is_ticking(&self, now: MonoMs) -> bool {
        let turns = |desk: &Desk| {
            let ticked_ms = desk.ticked_ms.load(Ordering::Relaxed);
            let alive = desk.thread.as_ref().is_some_and(|thread| !thread.is_finished());
            alive && now.saturating_sub(ticked_ms) <= STALLED_MS
        };
        self.desks.iter().all(turns)
    }

    /// Ends all threads and waits for them; their ports are free afterwards.
    pub fn stop(&mut self) {
        for worker in 0..self.desks.len() {
            self.order(worker, Order::Stop);
        }
        self.wake();
        for desk in &mut self.desks {
            if let Some(thread) = desk.thread.take() {
                // A worker that panicked has said so on stderr; there is nothing left to wait for.
                drop(thread.join());
            }
        }
    }
}

impl Drop for MediaPlane {
    fn drop(&mut self) {
        self.stop();
    }
}

fn too_many(first: u16) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("more workers than UDP ports above {first}"))
}

#[cfg(test)]
mod tests;
