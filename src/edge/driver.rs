//! The one task that owns the engine: it gives it what happened and does what it wants.
//!
//! A panic in a step costs at most the call it touched: the engine is made again from its own
//! records, in this process, without the input that did it.
//!
//! Invariant: the engine never waits. Every queue into it is bounded and every output is handed on
//! without blocking; what a full queue refuses is counted.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use dashmap::DashMap;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{error, warn};

use crate::edge::clock;
use crate::edge::events_file::EventsFile;
use crate::edge::media::MediaPlane;
use crate::edge::metrics;
use crate::edge::sip::Udp;
use crate::edge::store::{Store, Writer};
use crate::edge::story;
use crate::engine::{Answer, Ask, Asker, Engine, Input, Output, Refusal, Setup};
use crate::fact::Fact;
use crate::report::{Board, Event, EventLog, Since, Viewer, snapshot};
use crate::sip;
use crate::terms::{CardId, FlowId, Number, RequestId};

/// Inputs that may wait for the engine; more SIP than this is dropped and counted.
pub const INBOX: usize = 16_384;
/// Events that a slow reader may be behind before it must start anew.
pub const EVENT_BACKLOG: usize = 4_096;
/// Questions that may wait for their answers.
pub const MAX_QUESTIONS: usize = 10_000;
/// Inputs taken in one go before the timers are looked at again.
const BATCH: usize = 256;

/// A letter to the engine's task.
#[derive(Debug)]
enum Letter {
    Input(Input),
    Ask { asker: Asker, ask: Ask, reply: oneshot::Sender<Answer> },
    /// Answered from inside the loop: it turns.
    Ping(oneshot::Sender<()>),
}

/// What the edge shares with the engine's task.
#[derive(Debug)]
struct Shared {
    inbox: mpsc::Sender<Letter>,
    flows: DashMap<FlowId, mpsc::Sender<Bytes>>,
    next_flow: AtomicU64,
    board: RwLock<Board>,
    log: Mutex<EventLog>,
    events: broadcast::Sender<Arc<Event>>,
    store: Store,
    drained: watch::Sender<bool>,
    lookups: mpsc::Sender<(CardId, Number)>,
}

/// How everybody else talks to the engine.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Shared>);

/// Everything the driver needs beside the engine.
#[derive(Debug)]
pub struct Outlets {
    /// Media workers.
    pub plane: MediaPlane,
    /// SIP over UDP.
    pub udp: Option<Udp>,
    /// Facts into the store.
    pub writer: Writer,
    /// `events.csv`.
    pub file: Option<EventsFile>,
}

/// The engine's task, to be spawned with [`Driver::run`].
#[derive(Debug)]
pub struct Driver {
    engine: Engine,
    setup: Setup,
    inbox: mpsc::Receiver<Letter>,
    shared: Arc<Shared>,
    outlets: Outlets,
    questions: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    next_request: u64,
    /// The newest record of every key: what the engine is made of again after a panic.
    records: BTreeMap<String, Vec<u8>>,
    last_panic_ms: Option<u64>,
    seed: fn() -> [u8; 32],
}

/// What [`connect`] gives back beside the handle.
#[derive(Debug)]
pub struct Ends {
    inbox: mpsc::Receiver<Letter>,
    /// Callers whose customer is to be asked of the order core.
    pub lookups: mpsc::Receiver<(CardId, Number)>,
}

/// A handle, and the ends that [`Driver::new`] and the look-up task need.
pub fn connect(board: Board, store: Store) -> (Handle, Ends) {
    let (inbox, receiver) = mpsc::channel(INBOX);
    let (lookups, lookup_end) = mpsc::channel(1_024);
    let shared = Shared {
        inbox,
        flows: DashMap::new(),
        next_flow: AtomicU64::new(1),
        board: RwLock::new(board),
        log: Mutex::new(EventLog::new()),
        events: broadcast::channel(EVENT_BACKLOG).0,
        store,
        drained: watch::channel(false).0,
        lookups,
    };
    (Handle(Arc::new(shared)), Ends { inbox: receiver, lookups: lookup_end })
}

impl Handle {
    /// Asks the engine; a full inbox or a stopping node is a 503.
    pub async fn ask(&self, asker: Asker, ask: Ask) -> Answer {
        let (reply, answer) = oneshot::channel();
        let busy = || Answer::Refused(Refusal::new(503, "the switch is stopping or overloaded: try again"));
        if self.0.inbox.send(Letter::Ask { asker, ask, reply }).await.is_err() {
            return busy();
        }
        answer.await.unwrap_or_else(|_| busy())
    }

    /// Gives the engine an input; `false` when its inbox is full and the input is lost.
    pub fn give(&self, input: Input) -> bool {
        self.0.inbox.try_send(Letter::Input(input)).is_ok()
    }

    /// The same, waiting for room: for inputs that must not be lost.
    pub async fn give_surely(&self, input: Input) -> bool {
        self.0.inbox.send(Letter::Input(input)).await.is_ok()
    }

    /// A SIP input; `false` when the inbox is full: drop and count it.
    pub fn sip(&self, input: sip::Input) -> bool {
        self.give(Input::Sip(input))
    }

    /// A WebSocket opened: messages to it go to `sender`.
    pub fn open_flow(&self, sender: mpsc::Sender<Bytes>) -> FlowId {
        let flow = FlowId(self.0.next_flow.fetch_add(1, Ordering::Relaxed));
        self.0.flows.insert(flow, sender);
        flow
    }

    /// A WebSocket closed.
    pub async fn close_flow(&self, flow: FlowId) {
        self.0.flows.remove(&flow);
        self.give_surely(Input::Sip(sip::Input::FlowClosed(flow))).await;
    }

    /// The live board, for a short look: nothing may be awaited while it is held.
    pub fn board(&self) -> RwLockReadGuard<'_, Board> {
        self.0.board.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a viewer must be told first, and every event after that. `after` continues a broken stream.
    pub fn watch(&self, viewer: &Viewer, after: Option<u64>) -> (Vec<String>, broadcast::Receiver<Arc<Event>>) {
        let log = self.log();
        let events = self.0.events.subscribe();
        let missed = match after.map(|after| log.since(after)) {
            Some(Since::Events(events)) => {
                events.iter().filter(|event| viewer.is_in(&event.audience)).map(|event| event.json.to_string()).collect()
            }
            Some(Since::Reset) | None => vec![snapshot(&self.board(), viewer, log.last(), clock::wall_ms())],
        };
        (missed, events)
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Whether the engine's loop turns: resolves once it answered.
    pub async fn ping(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        self.0.inbox.send(Letter::Ping(reply)).await.is_ok() && answer.await.is_ok()
    }

    /// Resolves when the last call of a draining node has ended.
    pub async fn drained(&self) {
        let mut drained = self.0.drained.subscribe();
        // An error means that the driver is gone, and its calls with it.
        drop(drained.wait_for(|done| *done).await);
    }

    fn log(&self) -> MutexGuard<'_, EventLog> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver {
    /// A driver for `engine`; `setup` is what it was made with and `seed` gives fresh entropy.
    pub fn new(
        engine: Engine,
        setup: Setup,
        handle: &Handle,
        inbox: Ends,
        outlets: Outlets,
        seed: fn() -> [u8; 32],
    ) -> Self {
        Self {
            engine,
            setup,
            inbox: inbox.inbox,
            shared: Arc::clone(&handle.0),
            outlets,
            questions: BTreeMap::new(),
            next_request: 1,
            records: BTreeMap::new(),
            last_panic_ms: None,
            seed,
        }
    }

    /// Runs until all handles are gone or `stop` is told.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        self.drain();
        loop {
            let wake = self.engine.next_timeout().map(clock::instant_of);
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
                _ = stop.changed() => return,
            }
            for _ in 0..BATCH {
                let Ok(letter) = self.inbox.try_recv() else { break };
                self.take(letter);
            }
        }
    }

    fn take(&mut self, letter: Letter) {
        match letter {
            Letter::Input(input) => {
                if let Input::Reload(setup) = &input {
                    self.setup = (**setup).clone();
                }
                self.step("input", |engine| engine.handle(input, clock::now()));
            }
            Letter::Ask { asker, ask, reply } => {
                if self.questions.len() >= MAX_QUESTIONS {
                    // The asker sees a dropped sender as 503.
                    return;
                }
                let request = RequestId(self.next_request);
                self.next_request += 1;
                self.questions.insert(request, reply);
                let input = Input::Desk { request, asker, ask };
                self.step("question", |engine| engine.handle(input, clock::now()));
            }
            Letter::Ping(reply) => {
                // The asker may have gone away meanwhile.
                drop(reply.send(()));
            }
        }
    }

    /// One step of the engine, timed; a panic restores it from its records.
    fn step(&mut self, what: &str, step: impl FnOnce(&mut Engine)) {
        let began = clock::mono_us();
        let engine = &mut self.engine;
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| step(engine)));
        metrics::engine_handled(clock::mono_us().saturating_sub(began));
        if done.is_err() {
            self.recover(what);
        }
        self.drain();
    }

    fn recover(&mut self, what: &str) {
        let now = clock::now();
        error!("the engine panicked on {what}: it is made again from {} records", self.records.len());
        metrics::engine_panicked();
        if self.last_panic_ms.is_some_and(|at| now.mono_ms.saturating_sub(at) < 60_000) {
            error!("second panic within a minute: stop this node and let the standby serve");
        }
        self.last_panic_ms = Some(now.mono_ms);
        let records: Vec<crate::record::Record> = self
            .records
            .iter()
            .map(|(key, value)| crate::record::Record { key: key.clone(), value: Some(value.clone()) })
            .collect();
        match Engine::restore(self.setup.clone(), (self.seed)(), &records, now) {
            Ok(engine) => self.engine = engine,
            Err(why) => {
                error!("the records do not restore ({why}): all calls of this node are lost");
                self.engine = Engine::new(self.setup.clone(), (self.seed)(), now);
            }
        }
    }

    /// Does everything the engine wants.
    fn drain(&mut self) {
        let mut facts = Vec::new();
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Sip { path, bytes } => self.send(path, bytes),
                Output::Media { worker, command } => self.outlets.plane.send(worker, command),
                Output::Reply { request, answer } => {
                    if let Some(reply) = self.questions.remove(&request) {
                        // An asker that went away needs no answer.
                        drop(reply.send(answer));
                    }
                }
                Output::Fact(fact) => facts.push(fact),
                Output::Records(records) => {
                    for record in records {
                        match record.value {
                            Some(value) => self.records.insert(record.key, value),
                            None => self.records.remove(&record.key),
                        };
                    }
                }
                Output::Lookup { card, number } => {
                    if self.shared.lookups.try_send((card, number)).is_err() {
                        warn!("too many customers to look up: card {card} opens without its history");
                    }
                }
                Output::Dropped { reason } => metrics::sip_dropped(reason),
                Output::Drained => {
                    self.shared.drained.send_replace(true);
                }
            }
        }
        if !facts.is_empty() {
            self.publish(facts);
        }
    }

    fn send(&self, path: sip::Path, bytes: Bytes) {
        match path {
            sip::Path::Udp { .. } => {
                if let Some(udp) = &self.outlets.udp {
                    udp.send(path, bytes);
                }
            }
            sip::Path::Ws { flow, .. } => {
                let sent = self.shared.flows.get(&flow).is_some_and(|sender| sender.try_send(bytes).is_ok());
                if !sent {
                    metrics::sip_dropped("flow_gone");
                }
            }
        }
    }

    /// Facts go to the board, the event stream, the log, the metrics, the file and the store.
    fn publish(&mut self, facts: Vec<Fact>) {
        let handle = Handle(Arc::clone(&self.shared));
        let mut log = handle.log();
        for fact in &facts {
            let mut board = self.shared.board.write().unwrap_or_else(PoisonError::into_inner);
            board.fold(fact);
            for event in log.push(fact, &board) {
                // Nobody listening is fine.
                drop(self.shared.events.send(event));
            }
            story::tell(fact);
            metrics::observe(fact);
            if let Some(file) = &self.outlets.file {
                file.write(fact);
            }
        }
        drop(log);
        self.outlets.writer.append(facts);
    }
}
