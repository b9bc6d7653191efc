//! How the rest of the edge talks to the engine's task.
//!
//! Invariant: nothing here waits for the engine but questions; every queue is bounded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use dashmap::DashMap;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::edge::media::Sounds;
use crate::edge::store::{Account, Health, Store};
use crate::engine::desk::SIP_PHONE_SESSION;
use crate::engine::{Answer, Ask, Asker, Input, Refusal, Role};
use crate::fact::Fact;
use crate::report::{Board, Event, EventLog, Since, Viewer, snapshot};
use crate::sip;
use crate::sip::digest::Ha1;
use crate::terms::{CardId, Epoch, FlowId, Number, WallMs};

/// Inputs that may wait for the engine; more SIP than this is dropped and counted.
pub(super) const INBOX: usize = 16_384;
/// Events that a slow reader may be behind before it must start anew.
pub(super) const EVENT_BACKLOG: usize = 4_096;
/// Customers that may wait to be looked up.
const LOOKUPS: usize = 1_024;

/// A letter to the engine's task.
#[derive(Debug)]
pub(super) enum Letter {
    Input(Input),
    Ask {
        asker: Asker,
        ask: Ask,
        reply: oneshot::Sender<Answer>,
    },
    /// Answered from inside the loop: it turns, and these parts beneath it do not.
    Beat(oneshot::Sender<Result<(), &'static str>>),
    /// Prompts for what is played from now on.
    Sounds(Sounds),
}

/// A caller to be looked up at the order core, and where the answer goes.
#[derive(Debug)]
pub enum Lookup {
    /// For a card that just opened: the answer goes to the engine.
    Card(CardId, Number),
    /// For a question of the API.
    Asked(Number, oneshot::Sender<Option<String>>),
}

/// What the edge shares with the engine's task.
pub(super) struct Shared {
    pub(super) inbox: mpsc::Sender<Letter>,
    pub(super) flows: DashMap<FlowId, mpsc::Sender<Bytes>>,
    next_flow: AtomicU64,
    live: RwLock<(Board, EventLog)>,
    events: broadcast::Sender<Arc<Event>>,
    store: Store,
    health: watch::Receiver<Health>,
    pub(super) drained: watch::Sender<bool>,
    pub(super) left: watch::Sender<bool>,
    pub(super) lookups: mpsc::Sender<Lookup>,
}

/// How everybody else talks to the engine; clones share it.
#[derive(Clone)]
pub struct Handle(pub(super) Arc<Shared>);

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("flows", &self.flows.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The engine's end of the inbox.
#[derive(Debug)]
pub struct Inbox(pub(super) mpsc::Receiver<Letter>);

/// The ends that the driver and the look-up task need.
#[derive(Debug)]
pub struct Ends {
    /// For the driver.
    pub inbox: Inbox,
    /// Callers whose customer is to be asked of the order core.
    pub lookups: mpsc::Receiver<Lookup>,
}

/// The board, for a short look: nothing may be awaited while it is held.
pub struct Shown<'a>(RwLockReadGuard<'a, (Board, EventLog)>);

impl std::ops::Deref for Shown<'_> {
    type Target = Board;

    fn deref(&self) -> &Board {
        &self.0.0
    }
}

/// A handle, and the ends that belong to it.
pub fn connect(board: Board, epoch: Epoch, store: Store, health: watch::Receiver<Health>) -> (Handle, Ends) {
    let (inbox, letters) = mpsc::channel(INBOX);
    let (lookups, wanted) = mpsc::channel(LOOKUPS);
    let shared = Shared {
        inbox,
        flows: DashMap::new(),
        next_flow: AtomicU64::new(1),
        live: RwLock::new((board, EventLog::of_epoch(epoch))),
        events: broadcast::channel(EVENT_BACKLOG).0,
        store,
        health,
        drained: watch::channel(false).0,
        left: watch::channel(false).0,
        lookups,
    };
    (Handle(Arc::new(shared)), Ends { inbox: Inbox(letters), lookups: wanted })
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

    /// An account's ordinary SIP phone may register from now on.
    pub async fn tell_sip_phone(&self, account: &Account, ha1: Ha1) {
        let asker = Asker { name: account.name.clone(), role: Role::Operator };
        let ask =
            Ask::LoggedIn { session: SIP_PHONE_SESSION.to_owned(), ha1, queues: account.queues.clone() };
        if let Answer::Refused(refusal) = self.ask(asker, ask).await {
            tracing::warn!(user = %account.name, refusal.words, "its SIP phone cannot register");
        }
    }

    /// Gives the engine an input that must not be lost, waiting for room; `false` when the node stops.
    pub async fn give(&self, input: Input) -> bool {
        self.0.inbox.send(Letter::Input(input)).await.is_ok()
    }

    /// A SIP input; `false` when the inbox is full: drop and count it.
    pub fn sip(&self, input: sip::Input) -> bool {
        self.0.inbox.try_send(Letter::Input(Input::Sip(input))).is_ok()
    }

    /// A WebSocket opened: messages to it go to `sender`.
    pub fn open_flow(&self, sender: mpsc::Sender<Bytes>) -> FlowId {
        let flow = FlowId(self.0.next_flow.fetch_add(1, Ordering::Relaxed));
        self.0.flows.insert(flow, sender);
        flow
    }

    /// A WebSocket closed; tell the engine with `sip(FlowClosed)`.
    pub fn close_flow(&self, flow: FlowId) {
        self.0.flows.remove(&flow);
    }

    /// The live board.
    pub fn board(&self) -> Shown<'_> {
        Shown(self.0.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every event from now on. Subscribe before taking a snapshot: nothing falls between the two.
    pub fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.events.subscribe()
    }

    /// What came after event `after`, if it is still known.
    pub fn replay(&self, after: u64) -> Since {
        self.0.live.read().unwrap_or_else(PoisonError::into_inner).1.since(after)
    }

    /// The whole truth for one viewer, and the number of the last event in it.
    pub fn snapshot(&self, viewer: &Viewer, now: WallMs) -> (u64, String) {
        let live = self.0.live.read().unwrap_or_else(PoisonError::into_inner);
        let last = live.1.last();
        (last, snapshot(&live.0, viewer, last, now))
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// How writing to the store fares.
    pub fn store_health(&self) -> Health {
        self.0.health.borrow().clone()
    }

    /// Whether the engine's loop and the media workers turn.
    ///
    /// # Errors
    /// The part that does not: `engine` or `media`.
    pub async fn beat(&self) -> Result<(), &'static str> {
        let (reply, answer) = oneshot::channel();
        if self.0.inbox.send(Letter::Beat(reply)).await.is_err() {
            return Err("engine");
        }
        answer.await.unwrap_or(Err("engine"))
    }

    /// New sound files: calls that come play these. Give them before the dialplan that names them.
    pub async fn reload_sounds(&self, sounds: Sounds) {
        if self.0.inbox.send(Letter::Sounds(sounds)).await.is_err() {
            tracing::debug!("the engine is gone: nobody plays sounds any more");
        }
    }

    /// What the order core knows of a number; `None` when it does not answer in time.
    pub async fn customer(&self, number: Number) -> Option<String> {
        let (reply, answer) = oneshot::channel();
        self.0.lookups.send(Lookup::Asked(number, reply)).await.ok()?;
        answer.await.ok().flatten()
    }

    /// The core made this order of this card.
    pub fn order_made(&self, card: CardId, order: &str) {
        let mut live = self.0.live.write().unwrap_or_else(PoisonError::into_inner);
        live.0.set_order(card, order);
    }

    /// The configuration was read again.
    pub fn reload_board(&self, roster: crate::report::Roster) {
        self.0.live.write().unwrap_or_else(PoisonError::into_inner).0.reload(roster);
    }

    /// Resolves when the last call of a draining node has ended.
    pub async fn drained(&self) {
        let mut drained = self.0.drained.subscribe();
        // An error means that the driver is gone, and its calls with it.
        drop(drained.wait_for(|done| *done).await);
    }

    /// Resolves when providers know that this node is no longer there.
    pub async fn left(&self) {
        let mut left = self.0.left.subscribe();
        drop(left.wait_for(|done| *done).await);
    }

    /// Shows a fact on the board and tells everybody who follows the events.
    pub(super) fn fold(&self, fact: &Fact) {
        let mut live = self.0.live.write().unwrap_or_else(PoisonError::into_inner);
        let (board, log) = &mut *live;
        board.fold(fact);
        for event in log.push(fact, board) {
            // Nobody listening is fine.
            drop(self.0.events.send(event));
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A handle whose engine is a closure, for tests of what stands before it.
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Mutex;

    use super::*;
    use crate::report::Roster;

    /// What the closure was asked, and which part is said to fail.
    #[derive(Debug, Default)]
    pub(crate) struct Seen {
        pub(crate) asked: Mutex<Vec<(Asker, Ask)>>,
        pub(crate) failing: Mutex<Option<&'static str>>,
    }

    impl Handle {
        /// A handle answered by `answering`; SIP inputs come out of the receiver.
        pub(crate) fn for_test(
            store: Store,
            answering: impl Fn(&Asker, &Ask) -> Answer + Send + 'static,
        ) -> (Self, mpsc::Receiver<sip::Input>, Arc<Seen>) {
            let board = Board::new(Roster::default(), Arc::new(|at| at / 86_400_000), 0);
            let (handle, mut ends) = connect(board, Epoch(0), store, watch::channel(Health::default()).1);
            let (heard, hearing) = mpsc::channel(1_000);
            let seen = Arc::new(Seen::default());
            let watched = Arc::clone(&seen);
            let looker = handle.clone();
            tokio::spawn(async move {
                while let Some(letter) = ends.inbox.0.recv().await {
                    match letter {
                        Letter::Input(Input::Sip(input)) => drop(heard.send(input).await),
                        Letter::Input(_) | Letter::Sounds(_) => {}
                        Letter::Ask { asker, ask, reply } => {
                            drop(reply.send(answering(&asker, &ask)));
                            watched.asked.lock().unwrap().push((asker, ask));
                        }
                        Letter::Beat(reply) => {
                            reply.send(watched.failing.lock().unwrap().map_or(Ok(()), Err)).unwrap()
                        }
                    }
                }
            });
            tokio::spawn(async move {
                while let Some(Lookup::Asked(number, reply)) = ends.lookups.recv().await {
                    let customer = looker.store().core_customer(number.reveal()).await.unwrap();
                    drop(reply.send(serde_json::to_string(&customer).ok()));
                }
            });
            (handle, hearing, seen)
        }

        /// Sends to a flow as the driver would.
        pub(crate) fn send_to(&self, flow: FlowId, bytes: Bytes) -> bool {
            self.0.flows.get(&flow).is_some_and(|sender| sender.try_send(bytes).is_ok())
        }

        /// Folds a fact as the driver would.
        pub(crate) fn fold_for_test(&self, fact: &Fact) {
            self.fold(fact);
        }
    }
}
