//! The courier: brings the letters of the outbox to the order core, for as long as it takes.
//!
//! Invariant: a letter is marked delivered only after the core said so; it is sent under the same key
//! every time; a core that hangs costs its own letters a time-out and nobody else anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use reqwest::{Client, RequestBuilder, Url};
use tokio::sync::{mpsc, watch};

use super::core_http::{self, Reply};
use crate::edge::store::{Store, StoreError, Waiting};
use crate::orders::core::{CallMessage, OrderAnswer};
use crate::orders::outbox::{MAX_IN_FLIGHT, MAX_WAITING, Outcome, Schedule};
use crate::terms::{CardId, Now, Secret};

/// A card opens without what the core knows after this time.
const LOOK_UP: Duration = Duration::from_secs(1);
/// Bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Without letters and answers the outbox is looked through this often: a letter that a revived database
/// holds must not wait for the next one.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// The outbox is read at most this often, so that on a busy evening letters come in handfuls.
const REST_MS: u64 = 50;
/// Letters that the embedded core takes in one transaction.
const MAX_TOGETHER: usize = 512;

/// Reads the clock.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// Where the order core is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreConfig {
    /// `["embedded"]`, or http(s) base addresses.
    pub bases: Vec<String>,
    /// Bearer token, both ways.
    pub token: Secret<String>,
    /// For one request, milliseconds.
    pub timeout_ms: u64,
}

/// Why no courier can be made of a configuration.
#[derive(Debug, thiserror::Error)]
pub enum CoreConfigError {
    /// Not `embedded`, and no http(s) address.
    #[error("orders.core {0:?} is neither \"embedded\" nor an http(s) address")]
    Base(String),
    /// No base at all, or `embedded` beside others.
    #[error("orders.core is [\"embedded\"] or a list of http(s) addresses")]
    Mixed,
    /// The HTTP client does not start.
    #[error("the HTTP client does not start: {0}")]
    Client(#[from] reqwest::Error),
}

/// The core gave a card's order an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Which card.
    pub card: CardId,
    /// The core's id.
    pub order: String,
}

enum Core {
    Embedded,
    Remote(Remote),
}

struct Remote {
    client: Client,
    bases: Vec<String>,
    token: Secret<String>,
    timeout: Duration,
    /// The base that answered last.
    best: AtomicUsize,
}

/// Brings letters.
pub struct Courier {
    store: Store,
    core: Core,
    clock: Clock,
    made: mpsc::Sender<Made>,
}

type Flight<'a> = BoxFuture<'a, Vec<Landed>>;

/// What became of an attempt.
struct Landed {
    letter: i64,
    outcome: Outcome,
    /// The core itself answered.
    alive: bool,
}

impl Courier {
    /// A courier to the configured core; `made` is told of orders' ids as long as it has room.
    ///
    /// # Errors
    /// [`CoreConfigError`] when the addresses do not fit.
    pub fn new(
        store: Store,
        config: &CoreConfig,
        clock: Clock,
        made: mpsc::Sender<Made>,
    ) -> Result<Self, CoreConfigError> {
        let embedded = config.bases.iter().any(|base| base == "embedded");
        let core = match (embedded, config.bases.len()) {
            (true, 1) => Core::Embedded,
            (true, _) | (false, 0) => return Err(CoreConfigError::Mixed),
            (false, _) => Core::Remote(Remote::new(config)?),
        };
        Ok(Self { store, core, clock, made })
    }

    /// What the core knows of a caller, within a second; `None` opens the card without it.
    pub async fn lookup(&self, number: &str) -> Option<String> {
        if number.is_empty() {
            return None;
        }
        let asked = async {
            match &self.core {
                Core::Embedded => core_http::customer(&self.store, number).await,
                Core::Remote(remote) => remote.customer(number).await,
            }
        };
        tokio::time::timeout(LOOK_UP, asked).await.ok().flatten()
    }

    /// Delivers until `shutdown` says `true` (or its sender is gone).
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        let mut round = Round::new(match &self.core {
            Core::Embedded => MAX_TOGETHER,
            Core::Remote(_) => MAX_IN_FLIGHT,
        });
        let mut flights: FuturesUnordered<Flight<'_>> = FuturesUnordered::new();
        while !*shutdown.borrow_and_update() {
            if round.wants_letters() && round.look_ms <= self.now_ms() {
                round.fill(&self.store, self.now_ms()).await;
            }
            let mut together = Vec::new();
            while let Some(letter) = round.next(self.now_ms()) {
                match self.call_message(&letter) {
                    Some(message) => together.push((letter, message)),
                    None => flights.push(Box::pin(async { vec![self.carry(letter).await] })),
                }
            }
            if !together.is_empty() {
                flights.push(Box::pin(self.carry_calls(together)));
            }
            let due_ms = round.schedule.next_timeout();
            let look_ms = round.wants_letters().then_some(round.look_ms);
            let next_ms = due_ms.into_iter().chain(look_ms).min();
            let pause = next_ms.map(|at_ms| Duration::from_millis(at_ms.saturating_sub(self.now_ms())));
            let pause = pause.unwrap_or(LOOK_AGAIN);
            tokio::select! {
                changed = shutdown.changed() => if changed.is_err() { return },
                () = self.store.letters_posted(), if !round.posted => round.posted = true,
                Some(landed) = flights.next() => for landed in landed {
                    round.ended(&landed, getrandom::u32().unwrap_or(0), self.now_ms());
                },
                () = tokio::time::sleep(pause) => round.posted |= pause >= LOOK_AGAIN,
            }
        }
    }

    fn now_ms(&self) -> u64 {
        (self.clock)().mono_ms
    }

    /// What a letter tells the embedded core of a call; orders, and all that goes over the network, travel
    /// one by one.
    fn call_message(&self, letter: &Waiting) -> Option<CallMessage> {
        let told = matches!(self.core, Core::Embedded) && letter.path == "/calls";
        told.then(|| serde_json::from_str(&letter.body).ok()).flatten()
    }

    /// The embedded core's books and the outbox are one database: a handful is one transaction.
    async fn carry_calls(&self, letters: Vec<(Waiting, CallMessage)>) -> Vec<Landed> {
        let mut landed = Vec::new();
        match self.store.core_calls(&letters, (self.clock)().wall_ms).await {
            Ok(()) => {
                let arrived = |(letter, _): (Waiting, _)| Landed {
                    letter: letter.id,
                    outcome: Outcome::Delivered,
                    alive: true,
                };
                landed.extend(letters.into_iter().map(arrived));
            }
            // One by one it shows which of them the database does not take.
            Err(error) => {
                tracing::warn!(%error, "a handful of letters could not be delivered at once");
                for (letter, _) in letters {
                    landed.push(self.carry(letter).await);
                }
            }
        }
        landed
    }

    /// One attempt, noted in the store. Both happen in here: the flights share the store's one writing
    /// connection, and one that holds it must go on being polled while another waits for it.
    async fn carry(&self, letter: Waiting) -> Landed {
        let reply = match &self.core {
            Core::Embedded => {
                Ok(core_http::accept(&self.store, &letter.path, &letter.key, letter.body.as_bytes()).await)
            }
            Core::Remote(remote) => remote.deliver(&letter).await,
        };
        let alive = reply.as_ref().is_ok_and(|reply| Outcome::shows_life(reply.status));
        let outcome = match self.note(&letter, &reply).await {
            Ok(outcome) => outcome,
            // The core may have it, but our store does not know: the same key again does no harm.
            Err(error) => {
                tracing::warn!(%error, letter.id, "what became of a letter could not be noted");
                Outcome::Failed
            }
        };
        Landed { letter: letter.id, outcome, alive }
    }

    async fn note(&self, letter: &Waiting, reply: &Result<Reply, String>) -> Result<Outcome, StoreError> {
        let (status, body) = match reply {
            Ok(reply) => (reply.status, reply.body.as_str()),
            Err(error) => {
                self.store.attempt_failed(letter.id, error).await?;
                return Ok(Outcome::Failed);
            }
        };
        match Outcome::of_status(status) {
            Outcome::Delivered => self.delivered(letter, body).await,
            Outcome::Refused => {
                tracing::error!(letter.id, status, "the order core refuses a letter for good");
                self.store.refused(letter.id, status, body, (self.clock)().wall_ms).await?;
                Ok(Outcome::Refused)
            }
            Outcome::Failed => {
                self.store.attempt_failed(letter.id, &format!("{status} {body}")).await?;
                Ok(Outcome::Failed)
            }
        }
    }

    /// A 2xx without an order's id did not come from a core: the letter goes again.
    async fn delivered(&self, letter: &Waiting, body: &str) -> Result<Outcome, StoreError> {
        let wall_ms = (self.clock)().wall_ms;
        let Some(card) = &letter.card else {
            self.store.delivered(letter.id, None, wall_ms).await?;
            return Ok(Outcome::Delivered);
        };
        let Ok(OrderAnswer { id: order }) = serde_json::from_str(body) else {
            self.store.attempt_failed(letter.id, "the answer names no order").await?;
            return Ok(Outcome::Failed);
        };
        self.store.delivered(letter.id, Some(&order), wall_ms).await?;
        if let Ok(card) = card.parse()
            && self.made.try_send(Made { card, order }).is_err()
        {
            tracing::debug!(letter.id, "nobody listens for the order's id");
        }
        Ok(Outcome::Delivered)
    }
}

/// The schedule and the letters it speaks of.
struct Round {
    schedule: Schedule,
    letters: BTreeMap<i64, Waiting>,
    /// The newest letter that was taken from the store.
    cursor: i64,
    /// The store may hold letters beyond the cursor.
    posted: bool,
    /// The store held more than the schedule takes.
    more: bool,
    /// The store is not read before this time.
    look_ms: u64,
}

impl Round {
    fn new(max_in_flight: usize) -> Self {
        Self {
            schedule: Schedule::new(max_in_flight),
            letters: BTreeMap::new(),
            cursor: 0,
            posted: true,
            more: false,
            look_ms: 0,
        }
    }

    fn wants_letters(&self) -> bool {
        self.posted || (self.more && self.schedule.len() < MAX_WAITING / 2)
    }

    /// Takes letters over, oldest first. With nothing waiting it begins from the start: a supervisor may
    /// have revived an old one.
    async fn fill(&mut self, store: &Store, now_ms: u64) {
        if self.schedule.is_empty() {
            self.cursor = 0;
        }
        self.posted = false;
        self.look_ms = now_ms.saturating_add(REST_MS);
        let room = u32::try_from(MAX_WAITING.saturating_sub(self.schedule.len())).unwrap_or(0);
        let letters = match store.waiting(self.cursor, room).await {
            Ok(letters) => letters,
            Err(error) => {
                tracing::warn!(%error, "the outbox cannot be read");
                return;
            }
        };
        self.more = u32::try_from(letters.len()).is_ok_and(|read| read >= room);
        for letter in letters {
            if !self.schedule.add(letter.id, &letter.lane, now_ms) {
                break;
            }
            self.cursor = letter.id;
            self.letters.insert(letter.id, letter);
        }
    }

    fn next(&mut self, now_ms: u64) -> Option<Waiting> {
        let id = self.schedule.poll(now_ms)?;
        self.letters.get(&id).cloned()
    }

    fn ended(&mut self, landed: &Landed, random: u32, now_ms: u64) {
        self.schedule.ended(landed.letter, landed.outcome, landed.alive, random, now_ms);
        match landed.outcome {
            Outcome::Failed => {}
            Outcome::Delivered | Outcome::Refused => {
                self.letters.remove(&landed.letter);
                // The last one: look once more from the beginning.
                self.posted |= self.schedule.is_empty();
            }
        }
    }
}

impl Remote {
    fn new(config: &CoreConfig) -> Result<Self, CoreConfigError> {
        let mut bases = Vec::new();
        for base in &config.bases {
            let fits =
                Url::parse(base).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            if !fits {
                return Err(CoreConfigError::Base(base.clone()));
            }
            bases.push(base.trim_end_matches('/').to_owned());
        }
        let timeout = Duration::from_millis(config.timeout_ms);
        // A redirect would carry orders and the token to an address nobody configured.
        let client =
            Client::builder().timeout(timeout).redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { client, bases, token: config.token.clone(), timeout, best: AtomicUsize::new(0) })
    }

    /// The base that answered last, then the others.
    fn in_turn(&self) -> impl Iterator<Item = (usize, &String)> {
        let best = self.best.load(Ordering::Relaxed);
        let (before, after) = self.bases.split_at(best.min(self.bases.len()));
        let after = after.iter().enumerate().map(move |(index, base)| (index.saturating_add(best), base));
        after.chain(before.iter().enumerate())
    }

    async fn deliver(&self, letter: &Waiting) -> Result<Reply, String> {
        let mut last = Err("no core is configured".to_owned());
        for (index, base) in self.in_turn() {
            let request = self.client.post(format!("{base}{}", letter.path));
            let request = request.header("Idempotency-Key", &letter.key);
            let request = request.header("Content-Type", "application/json").body(letter.body.clone());
            last = self.send(request, self.timeout).await;
            if last.as_ref().is_ok_and(|reply| Outcome::shows_life(reply.status)) {
                self.best.store(index, Ordering::Relaxed);
                break;
            }
        }
        last
    }

    async fn customer(&self, number: &str) -> Option<String> {
        let (_, base) = self.in_turn().next()?;
        let request = self.client.get(format!("{base}/customers?phone={}", percent(number)));
        let reply = self.send(request, LOOK_UP).await.ok()?;
        // Whatever is not JSON is not a customer.
        let known = reply.status == 200 && serde_json::from_str::<serde_json::Value>(&reply.body).is_ok();
        known.then_some(reply.body)
    }

    async fn send(&self, request: RequestBuilder, timeout: Duration) -> Result<Reply, String> {
        let token = self.token.expose();
        let request = if token.is_empty() { request } else { request.bearer_auth(token) };
        let asked = async {
            let mut response = request.send().await?;
            let status = response.status().as_u16();
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                body.extend_from_slice(&chunk);
                if body.len() > MAX_ANSWER_BYTES {
                    break;
                }
            }
            Ok::<_, reqwest::Error>(Reply { status, body: String::from_utf8_lossy(&body).into_owned() })
        };
        match tokio::time::timeout(timeout, asked).await {
            Ok(Ok(reply)) => Ok(reply),
            // The address stays out: a customer's number is part of it.
            Ok(Err(error)) => Err(error.without_url().to_string()),
            Err(_) => Err("time-out".to_owned()),
        }
    }
}

/// RFC 3986 section 2.1 for all but letters and digits.
fn percent(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}
