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
use tracing::{error, warn};

use crate::edge::clock;
use crate::edge::handle::{Letter, Shared};
use crate::edge::log::EventsFile;
use crate::edge::media::MediaPlane;
use crate::edge::metrics::Metrics;
use crate::edge::sip::count;
use crate::edge::sip::udp::Udp;
use crate::edge::store::{Stored, Writer};
use crate::edge::story;
use crate::engine::{Answer, Ask, Asker, Engine, Input, Output, Setup};
use crate::fact::Fact;
use crate::record::Record;
use crate::sip;
use crate::terms::{Now, OperatorName, RequestId};

pub use crate::edge::handle::{Ends, Handle, Inbox, Lookup, Shown, connect};

/// Questions that may wait for their answers.
pub const MAX_QUESTIONS: usize = 10_000;
/// How long timers rest after a first panic, and at most after many, milliseconds: a timer that panics
/// must not become a loop.
const FIRST_REST_MS: u64 = 500;
const LAST_REST_MS: u64 = 30_000;
/// Batches of facts whose way into the store is timed; more than that are stored untimed.
const MAX_UNSTORED: usize = 16_384;
/// Inputs taken in one go before the timers are looked at again.
const BATCH: usize = 256;
/// Two panics within this time are more than one bad input.
const PANIC_PAIR_MS: u64 = 60_000;

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
    last_panic_ms: Option<u64>,
    /// After a panic timers rest until here: the same timer may be due again in the engine made anew.
    timers_rest_until_ms: u64,
    timers_rest_ms: u64,
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
            last_panic_ms: None,
            timers_rest_until_ms: 0,
            timers_rest_ms: FIRST_REST_MS,
            last_seq: 0,
            sessions: BTreeMap::new(),
            seed,
        }
    }

    /// Runs until `stop` is told or all handles are gone.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        self.drain();
        loop {
            let wake =
                self.engine.next_timeout().map(|at| clock::instant_of(at.max(self.timers_rest_until_ms)));
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
                () = timer => self.step("timer", |engine| engine.handle_timeout(clock::now())),
                Ok(()) = self.stored.changed() => {
                    let seq = self.stored.borrow_and_update().seq;
                    self.count_store_wait(seq);
                    self.step("stored", |engine| engine.handle(Input::Stored { seq }, clock::now()));
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
                self.step("an input", |engine| engine.handle(input, clock::now()));
            }
            Letter::Ask { asker, ask, reply } => {
                // An asker whose sender is dropped reads it as 503.
                if self.questions.len() < MAX_QUESTIONS {
                    self.remember(&asker, &ask);
                    let request = self.fresh_request();
                    self.questions.insert(request, reply);
                    let input = Input::Desk { request, asker, ask };
                    self.step("a question", |engine| engine.handle(input, clock::now()));
                }
            }
            Letter::Sounds(sounds) => self.outlets.plane.reload(sounds),
            Letter::Beat(reply) => {
                let beat = if self.outlets.plane.is_ticking() { Ok(()) } else { Err("media") };
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

    /// One step of the engine, timed; a panic restores it from its records.
    fn step(&mut self, what: &str, step: impl FnOnce(&mut Engine)) {
        let began = clock::mono_us();
        let engine = &mut self.engine;
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| step(engine)));
        let took = clock::mono_us().saturating_sub(began);
        self.outlets.metrics.engine_step(Duration::from_micros(took));
        if done.is_err() {
            self.recover(what);
        }
        self.drain();
    }

    fn recover(&mut self, what: &str) {
        let now = clock::now();
        let count = self.records.len();
        error!("the engine panicked on {what}: it is made again from {count} records, without that input");
        let again = self.last_panic_ms.is_some_and(|at| now.mono_ms.saturating_sub(at) < PANIC_PAIR_MS);
        self.timers_rest_ms = if again { (self.timers_rest_ms * 2).min(LAST_REST_MS) } else { FIRST_REST_MS };
        self.timers_rest_until_ms = now.mono_ms.saturating_add(self.timers_rest_ms);
        if again {
            error!("second panic within a minute: report this log, and restart the node when calls allow");
        }
        self.last_panic_ms = Some(now.mono_ms);
        let put = |(key, value): (&String, &Vec<u8>)| Record { key: key.clone(), value: Some(value.clone()) };
        let records: Vec<Record> = self.records.iter().map(put).collect();
        match Engine::restore_in_place(self.setup.clone(), (self.seed)(), &records, now) {
            Ok(engine) => self.engine = engine,
            Err(why) => {
                error!("the records do not restore ({why}): all calls of this node are lost");
                // Facts go on where they stood: a number is never given twice.
                let last_seq = self.last_seq.max(self.setup.last_seq);
                let setup = Setup { last_seq, ..self.setup.clone() };
                self.engine = Engine::new(setup, (self.seed)(), now);
            }
        }
        self.greet_again(now);
    }

    /// What an engine made again cannot know: phones' keys, which sockets they sit on, and questions.
    fn greet_again(&mut self, now: Now) {
        // Desks ask again, with the same idempotency key where it matters.
        self.questions.clear();
        // A closed socket makes a phone come back and register, which says where it is.
        self.shared.flows.clear();
        for (asker, ask) in self.sessions.values().cloned().collect::<Vec<_>>() {
            let request = self.fresh_request();
            self.engine.handle(Input::Desk { request, asker, ask }, now);
        }
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
                Output::Dropped { reason } => self.outlets.metrics.sip_dropped(reason),
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
