//! The one task that owns the engine: it gives it what happened and does what it wants.
//!
//! A panic in a step costs at most the call it touched: the engine is made again from its own
//! records, in this process, without the input that did it.
//!
//! Invariant: the engine never waits. Every queue into it is bounded and every output is handed on
//! without blocking; what a full queue refuses is counted.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use crate::edge::clock;
use crate::edge::handle::{Letter, Shared};
use crate::edge::log::EventsFile;
use crate::edge::media::MediaPlane;
use crate::edge::metrics::Metrics;
use crate::edge::replays::Replays;
use crate::edge::sip::count;
use crate::edge::sip::udp::Udp;
use crate::edge::store::{Stored, Writer};
use crate::edge::story::{self, Refusals};
use crate::engine::{Answer, Ask, Asker, Engine, Input, Output, Setup};
use crate::fact::Fact;
use crate::record::Record;
use crate::sip;
use crate::terms::{OperatorName, RequestId};

mod recover;

use recover::Recovery;
pub(super) use recover::Witness;

pub use crate::edge::handle::{Ends, Handle, Inbox, Lookup, Shown, connect};

/// Questions that may wait for their answers.
pub const MAX_QUESTIONS: usize = 10_000;
/// Batches of facts whose way into the store is timed; more than that are stored untimed.
const MAX_UNSTORED: usize = 16_384;
/// Inputs taken in one go before the timers are looked at again.
const BATCH: usize = 256;

/// Everything the driver hands outputs to.
#[derive(Debug)]
pub struct Outlets {
    /// Media workers.
    pub plane: MediaPlane,
    /// SIP over UDP.
    pub udp: Option<Arc<Udp>>,
    /// Facts into the store.
    pub writer: Writer,
    /// `events.csv`.
    pub file: Option<EventsFile>,
    /// Counters.
    pub metrics: Metrics,
    /// Inputs that made the engine fail.
    pub replays: Replays,
}

/// The engine's task, to be spawned with [`Driver::run`].
#[derive(Debug)]
pub struct Driver {
    engine: Engine,
    setup: Setup,
    inbox: mpsc::Receiver<Letter>,
    shared: Arc<Shared>,
    outlets: Outlets,
    stored: watch::Receiver<Stored>,
    questions: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    next_request: u64,
    /// Facts given to the store and not durable yet: the last number of a batch, and when.
    unstored: VecDeque<(u64, u64)>,
    /// The newest record of every key: what the engine is made of again after a panic.
    records: BTreeMap<String, Vec<u8>>,
    recovery: Recovery,
    refusals: Refusals,
    /// The number of the last fact that was published.
    last_seq: u64,
    /// Live sessions as the engine was told of them: their phones' keys are not in records.
    sessions: BTreeMap<(OperatorName, String), (Asker, Ask)>,
    seed: fn() -> [u8; 32],
}

impl Driver {
    /// A driver for `engine`; `setup` is what it was made with and `seed` gives fresh entropy.
    pub fn new(
        engine: Engine,
        setup: Setup,
        handle: &Handle,
        inbox: Inbox,
        outlets: Outlets,
        seed: fn() -> [u8; 32],
    ) -> Self {
        Self {
            engine,
            setup,
            inbox: inbox.0,
            shared: Arc::clone(&handle.0),
            stored: outlets.writer.stored(),
            outlets,
            questions: BTreeMap::new(),
            next_request: 1,
            unstored: VecDeque::new(),
            records: BTreeMap::new(),
            recovery: Recovery::default(),
            refusals: Refusals::default(),
            last_seq: 0,
            sessions: BTreeMap::new(),
            seed,
        }
    }

    /// Runs until `stop` is told or all handles are gone.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        self.drain();
        loop {
            let wake = self.engine.next_timeout().map(|at| clock::instant_of(self.recovery.rested(at)));
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                letter = self.inbox.recv() => match letter {
                    Some(letter) => self.take(letter),
                    None => return,
                },
                () = timer => {
                    let witness = Witness::said("a timer");
                    self.step(witness, |engine| engine.handle_timeout(clock::now()));
                }
                Ok(()) = self.stored.changed() => {
                    let seq = self.stored.borrow_and_update().seq;
                    self.count_store_wait(seq);
                    self.give(Input::Stored { seq });
                }
                _ = stop.changed() => break,
            }
            for _ in 0..BATCH {
                let Ok(letter) = self.inbox.try_recv() else { break };
                self.take(letter);
            }
        }
        self.outlets.plane.stop();
    }

    fn take(&mut self, letter: Letter) {
        match letter {
            Letter::Input(input) => {
                if let Input::Reload(setup) = &input {
                    self.setup = (**setup).clone();
                }
                self.give(input);
            }
            Letter::Ask { asker, ask, reply } => {
                // An asker whose sender is dropped reads it as 503.
                if self.questions.len() < MAX_QUESTIONS {
                    self.remember(&asker, &ask);
                    let request = self.fresh_request();
                    self.questions.insert(request, reply);
                    self.give(Input::Desk { request, asker, ask });
                }
            }
            Letter::Sounds(sounds) => self.outlets.plane.reload(sounds),
            Letter::Beat(reply) => {
                let beat =
                    if self.outlets.plane.is_ticking(clock::mono_ms()) { Ok(()) } else { Err("media") };
                if reply.send(beat).is_err() {
                    tracing::debug!("nobody waits for the beat any more");
                }
            }
        }
    }

    fn fresh_request(&mut self) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request = self.next_request.saturating_add(1);
        request
    }

    fn remember(&mut self, asker: &Asker, ask: &Ask) {
        if let Ask::LoggedIn { session, .. } = ask {
            let key = (asker.name.clone(), session.clone());
            self.sessions.insert(key, (asker.clone(), ask.clone()));
        } else if let Ask::LoggedOut { session } = ask {
            self.sessions.remove(&(asker.name.clone(), session.clone()));
        }
    }

    /// Gives the engine an input, unless it made a step panic before.
    fn give(&mut self, input: Input) {
        if self.recovery.is_poison(&input) {
            self.outlets.metrics.sip_dropped("poison");
            return;
        }
        self.step(Witness::of(&input), |engine| engine.handle(input, clock::now()));
    }

    /// One step of the engine, timed; a panic restores it from its records.
    fn step(&mut self, witness: Witness, step: impl FnOnce(&mut Engine)) {
        let began = clock::mono_us();
        let engine = &mut self.engine;
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| step(engine)));
        let took = clock::mono_us().saturating_sub(began);
        self.outlets.metrics.engine_step(Duration::from_micros(took));
        if let Err(panic) = done {
            self.recover(&witness, &*panic);
        }
        self.drain();
    }

    /// Does everything the engine wants.
    fn drain(&mut self) {
        let mut facts = Vec::new();
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Sip { path, bytes } => self.send(path, bytes),
                Output::Media { worker, command } => self.outlets.plane.leave(worker, command),
                Output::Reply { request, answer } => {
                    if let Some(reply) = self.questions.remove(&request) {
                        // An asker that went away needs no answer.
                        drop(reply.send(answer));
                    }
                }
                Output::Fact(fact) => facts.push(fact),
                Output::Records(records) => self.keep(records),
                Output::Lookup { card, number } => {
                    let lookup = crate::edge::handle::Lookup::Card(card, number);
                    if self.shared.lookups.try_send(lookup).is_err() {
                        warn!("too many customers to look up: card {card} opens without its history");
                    }
                }
                Output::Banned(ban) => self.outlets.metrics.banned("sip", &ban),
                Output::Dropped { reason } => self.outlets.metrics.sip_dropped(reason),
                Output::Refused { from, called, cause } => {
                    self.refusals.tell(&from, &called, &cause, clock::mono_ms());
                }
                Output::Drained => {
                    self.shared.drained.send_replace(true);
                }
                Output::Left => {
                    self.shared.left.send_replace(true);
                }
            }
        }
        self.outlets.plane.wake();
        if !facts.is_empty() {
            self.publish(facts);
        }
    }

    fn keep(&mut self, records: Vec<Record>) {
        for Record { key, value } in records {
            match value {
                Some(value) => self.records.insert(key, value),
                None => self.records.remove(&key),
            };
        }
    }

    fn send(&self, path: sip::Path, bytes: Bytes) {
        let metrics = &self.outlets.metrics;
        match path {
            sip::Path::Udp { remote, local } => {
                let sent = self.outlets.udp.as_ref().is_some_and(|udp| udp.send(local, remote, &bytes));
                if !sent {
                    metrics.sip_dropped("udp_not_sent");
                }
            }
            sip::Path::Ws { flow, secure, .. } => {
                let transport = if secure { "wss" } else { "ws" };
                count(metrics, transport, "out", &bytes);
                let sent = self.shared.flows.get(&flow).map(|sender| sender.try_send(bytes).is_ok());
                if sent != Some(true) {
                    metrics.sip_dropped("flow_gone");
                }
                if sent == Some(false) {
                    // A browser that does not read loses its socket: it comes back and registers.
                    self.shared.flows.remove(&flow);
                }
            }
        }
    }

    /// Facts go to the board, the event stream, the log, the metrics, the file and the store.
    fn publish(&mut self, facts: Vec<Fact>) {
        let handle = Handle(Arc::clone(&self.shared));
        for fact in &facts {
            handle.fold(fact);
            story::tell(fact);
            self.outlets.metrics.observe(fact);
            if let Some(file) = &self.outlets.file {
                file.write(fact);
            }
        }
        self.last_seq = facts.last().map_or(self.last_seq, |last| last.seq);
        if let Some(last) = facts.last()
            && self.unstored.len() < MAX_UNSTORED
        {
            self.unstored.push_back((last.seq, clock::mono_us()));
        }
        self.outlets.writer.append(facts);
    }

    /// How long the facts up to this number waited to be durable.
    fn count_store_wait(&mut self, seq: u64) {
        let now = clock::mono_us();
        while let Some((_, since)) = self.unstored.pop_front_if(|(last, _)| *last <= seq) {
            self.outlets.metrics.store_wait(Duration::from_micros(now.saturating_sub(since)));
        }
    }
}

#[cfg(test)]
mod tests;
