//! The writer: facts in, one commit for all that came meanwhile, `Stored` out.
//!
//! While the database fails, facts go to the local [`Journal`] and are taken in once it is back; while
//! both fail they stay in memory, nothing is reported as stored, and the bounded queue fills.
//! Invariant: facts are stored in the order in which they were appended, and [`Stored`] never runs ahead
//! of the disk.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{Connection, SqliteConnection};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until, timeout};

use super::journal::Journal;
use super::{Store, StoreError, flock, project, sqlite};
use crate::edge::clock;
use crate::fact::{Fact, What};
use crate::terms::{Epoch, MonoMs};

/// Batches that wait for the writer: more than an hour of a busy centre with disk and database dead.
pub const MAX_QUEUE: usize = 200_000;
/// Facts of one commit.
const MAX_GROUP: usize = 2_000;
/// A commit that nobody waits for follows the one before by this time at the earliest: each costs a sync
/// of the disk, whether it holds one fact or hundreds.
const GATHER_MS: u64 = 10;
/// A commit that takes longer goes to the journal: an operator waits for his card.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a failed database is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// The newest durable fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stored {
    /// Of which epoch.
    pub epoch: Epoch,
    /// Its number.
    pub seq: u64,
}

/// How the writer fares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// The database fails; facts go to the journal.
    pub journaling: bool,
    /// The journal fails too: nothing is stored.
    pub stuck: bool,
    /// Commits that failed.
    pub failures: u64,
    /// Journal lines that did not read back.
    pub damaged: u64,
    /// Why the last one failed; empty before the first.
    pub last_error: String,
}

/// Takes facts; clones share the queue.
#[derive(Debug, Clone)]
pub struct Writer {
    queue: mpsc::Sender<Vec<Fact>>,
    stored: watch::Receiver<Stored>,
    health: watch::Receiver<Health>,
    gap: Arc<Gap>,
    /// Somebody waits for what was appended.
    awaited: Arc<Notify>,
}

/// Whether an operator looks at his card until this is durable.
fn is_awaited(fact: &Fact) -> bool {
    matches!(fact.what, What::CardSubmitted { .. })
}

/// The facts that the queue had no room for.
#[derive(Debug)]
struct Gap {
    /// The first of them, `u64::MAX` for none: what follows it is stored but never reported so, or an
    /// order that was lost would be acknowledged.
    first: AtomicU64,
    lost: AtomicU64,
}

impl Writer {
    /// Hands facts over; never waits. When [`MAX_QUEUE`] batches wait already they are lost and counted,
    /// and nothing from the first of them on is reported as stored any more.
    pub fn append(&self, facts: Vec<Fact>) {
        let Some(first) = facts.first().map(|fact| fact.seq) else { return };
        let count = u64::try_from(facts.len()).unwrap_or(u64::MAX);
        let awaited = facts.iter().any(is_awaited);
        let taken = self.queue.try_send(facts).is_ok();
        if awaited {
            self.awaited.notify_one();
        }
        if !taken {
            if self.gap.first.fetch_min(first, Ordering::Relaxed) == u64::MAX {
                tracing::error!(
                    first,
                    "the store's queue is full: facts are lost, no order is acknowledged any more"
                );
            }
            self.gap.lost.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Facts that the queue had no room for.
    pub fn lost(&self) -> u64 {
        self.gap.lost.load(Ordering::Relaxed)
    }

    /// Batches that wait.
    pub fn waiting(&self) -> usize {
        MAX_QUEUE.saturating_sub(self.queue.capacity())
    }

    /// Follows what is durable.
    pub fn stored(&self) -> watch::Receiver<Stored> {
        self.stored.clone()
    }

    /// Follows how the writer fares.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }
}

pub(super) fn open(store: Store) -> (Writer, impl Future<Output = ()> + Send + use<>) {
    let (queue, inbox) = mpsc::channel(MAX_QUEUE);
    let (stored, stored_seen) = watch::channel(Stored::default());
    let (health, health_seen) = watch::channel(Health::default());
    let gap = Arc::new(Gap { first: AtomicU64::new(u64::MAX), lost: AtomicU64::new(0) });
    let awaited = Arc::new(Notify::new());
    let writer = Writer {
        queue,
        stored: stored_seen,
        health: health_seen,
        gap: Arc::clone(&gap),
        awaited: Arc::clone(&awaited),
    };
    let run = Run {
        store,
        connection: None,
        journal: None,
        journaling: false,
        replay: Replay::default(),
        stored,
        health,
        gap,
        awaited,
        next_commit_ms: 0,
    };
    (writer, run.run(inbox))
}

type SharedJournal = Arc<Mutex<Journal>>;

struct Run {
    store: Store,
    connection: Option<SqliteConnection>,
    journal: Option<SharedJournal>,
    journaling: bool,
    replay: Replay,
    stored: watch::Sender<Stored>,
    health: watch::Sender<Health>,
    gap: Arc<Gap>,
    awaited: Arc<Notify>,
    /// Before this time only what is awaited is written.
    next_commit_ms: MonoMs,
}

impl Run {
    async fn run(mut self, mut inbox: mpsc::Receiver<Vec<Fact>>) {
        let mut retry = interval(RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let first = tokio::select! {
                _ = retry.tick(), if self.journaling => {
                    self.recover(&mut retry).await;
                    continue;
                }
                batch = inbox.recv() => batch,
            };
            let Some(mut facts) = first else { break };
            self.gather(&mut facts, &mut inbox).await;
            self.keep(facts, &mut retry).await;
            self.next_commit_ms = clock::mono_ms().saturating_add(GATHER_MS);
        }
        while self.journaling && self.recover(&mut retry).await {}
        if let Some(connection) = self.connection.take() {
            sqlite::close(connection).await;
        }
    }

    /// Whatever came since the last commit shares this one.
    async fn gather(&mut self, facts: &mut Vec<Fact>, inbox: &mut mpsc::Receiver<Vec<Fact>>) {
        if !facts.iter().any(is_awaited) {
            tokio::select! {
                () = sleep_until(clock::instant_of(self.next_commit_ms)) => {}
                () = self.awaited.notified() => {}
            }
        }
        while facts.len() < MAX_GROUP
            && let Ok(more) = inbox.try_recv()
        {
            facts.extend(more);
        }
    }

    /// Returns once the facts are durable.
    async fn keep(&mut self, mut facts: Vec<Fact>, retry: &mut Interval) {
        let Some(newest) = facts.last().map(|fact| Stored { epoch: fact.epoch, seq: fact.seq }) else {
            return;
        };
        facts.retain(|fact| project::is_kept(&fact.what));
        // Measurements alone are not worth a sync.
        while !facts.is_empty() {
            if !self.journaling {
                match self.commit(&facts).await {
                    Ok(()) => break,
                    Err(error) => self.failed(&error),
                }
            }
            match self.write_journal(facts.clone()).await {
                Ok(()) => break,
                Err(error) => self.stuck(&error),
            }
            retry.tick().await;
            self.recover(retry).await;
        }
        self.health.send_if_modified(|health| std::mem::replace(&mut health.stuck, false));
        if newest.seq < self.gap.first.load(Ordering::Relaxed) {
            self.stored.send_replace(newest);
        }
    }

    async fn commit(&mut self, facts: &[Fact]) -> Result<(), StoreError> {
        let connection = self.connection.take();
        // A commit whose outcome is not known is made again: the same facts change nothing twice.
        let (connection, letters) = timeout(COMMIT_TIMEOUT, commit(&self.store, connection, facts))
            .await
            .map_err(|_| StoreError::Slow)??;
        self.connection = Some(connection);
        if letters {
            self.store.inner.letters.notify_one();
        }
        Ok(())
    }

    fn failed(&mut self, error: &StoreError) {
        tracing::error!(%error, "the database fails; facts go to the local journal");
        self.journaling = true;
        self.health.send_modify(|health| {
            health.journaling = true;
            health.failures = health.failures.saturating_add(1);
            health.last_error = error.to_string();
        });
    }

    fn stuck(&mut self, error: &StoreError) {
        if !self.health.borrow().stuck {
            tracing::error!(%error, "database and journal both fail; facts wait in memory, no order is acknowledged");
        }
        self.health.send_modify(|health| {
            health.stuck = true;
            health.failures = health.failures.saturating_add(1);
            health.last_error = error.to_string();
        });
    }

    async fn journal(&mut self) -> Result<SharedJournal, StoreError> {
        if let Some(journal) = &self.journal {
            return Ok(Arc::clone(journal));
        }
        let journal = Arc::new(Mutex::new(open_journal(&self.store.inner.config.data_dir).await?));
        self.journal = Some(Arc::clone(&journal));
        Ok(journal)
    }

    async fn write_journal(&mut self, facts: Vec<Fact>) -> Result<(), StoreError> {
        let journal = self.journal().await?;
        on_disk(&journal, move |journal| journal.append(&facts)).await
    }

    /// Tries the database again with a part of the journal; whether it took it. Facts that come meanwhile
    /// go behind the others into the journal, so nobody waits for the whole of it.
    async fn recover(&mut self, retry: &mut Interval) -> bool {
        match timeout(COMMIT_TIMEOUT, self.take_in()).await {
            Ok(Ok(false)) => {
                retry.reset_immediately();
                true
            }
            Ok(Ok(true)) => {
                tracing::info!("the database is back and has all that the journal held");
                let Replay { damaged, .. } = std::mem::take(&mut self.replay);
                self.journaling = false;
                self.health.send_modify(|health| {
                    health.journaling = false;
                    health.damaged = health.damaged.saturating_add(damaged);
                });
                true
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the database still fails");
                false
            }
            Err(_) => {
                tracing::debug!("the database still takes too long");
                false
            }
        }
    }

    /// The next part of the journal into the database; whether that was the last.
    async fn take_in(&mut self) -> Result<bool, StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.store).await?,
        };
        let journal = self.journal().await?;
        let taken = replay(&journal, &mut connection, self.replay).await?;
        self.store.inner.letters.notify_one();
        let last = taken.from == self.replay.from;
        self.replay = taken;
        if last {
            on_disk(&journal, move |journal| journal.clear(taken.damaged)).await?;
        }
        self.connection = Some(connection);
        Ok(last)
    }
}

async fn connect(store: &Store) -> Result<SqliteConnection, StoreError> {
    let max_pages = store.inner.max_pages.load(Ordering::Relaxed);
    sqlite::connect(&store.inner.path, max_pages).await
}

/// One commit; the connection comes back only when it is in order.
async fn commit(
    store: &Store,
    connection: Option<SqliteConnection>,
    facts: &[Fact],
) -> Result<(SqliteConnection, bool), StoreError> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => connect(store).await?,
    };
    // Nobody keeps the facts waiting for long, whoever has the turn.
    let _turn = timeout(sqlite::WRITER_BUSY, store.inner.turn.lock()).await;
    let letters = write(&mut connection, facts).await?;
    Ok((connection, letters))
}

/// Writes facts in one transaction; whether letters were made.
async fn write(connection: &mut SqliteConnection, facts: &[Fact]) -> Result<bool, StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let letters = flock::apply(&mut transaction, facts).await?;
    transaction.commit().await?;
    Ok(letters)
}

/// What a predecessor left in the journal goes into the database.
pub(super) async fn take_in_journal(
    folder: &Path,
    connection: &mut SqliteConnection,
) -> Result<(), StoreError> {
    let journal = Arc::new(Mutex::new(open_journal(folder).await?));
    if lock(&journal).is_empty() {
        return Ok(());
    }
    let mut taken = Replay::default();
    loop {
        let next = replay(&journal, connection, taken).await?;
        if next.from == taken.from {
            break;
        }
        taken = next;
    }
    let damaged = taken.damaged;
    on_disk(&journal, move |journal| journal.clear(damaged)).await?;
    if damaged > 0 {
        tracing::error!(
            damaged,
            "lines of the local journal do not read back; the file is kept as facts.damaged"
        );
    }
    Ok(())
}

async fn open_journal(folder: &Path) -> Result<Journal, StoreError> {
    let folder = folder.to_owned();
    let path = folder.clone();
    let opened = tokio::task::spawn_blocking(move || Journal::open(&folder)).await;
    let opened = opened.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    opened.map_err(|error| StoreError::File { path, error })
}

/// How far the journal was taken in.
#[derive(Debug, Clone, Copy, Default)]
struct Replay {
    from: u64,
    damaged: u64,
}

/// One part of the journal into the database; the same place comes back when there is none left. An empty
/// part is written as well: that shows whether the database takes anything.
async fn replay(
    journal: &SharedJournal,
    connection: &mut SqliteConnection,
    Replay { from, damaged }: Replay,
) -> Result<Replay, StoreError> {
    let part = on_disk(journal, move |journal| journal.read(from, MAX_GROUP)).await?;
    write(connection, &part.facts).await?;
    Ok(Replay { from: part.next, damaged: damaged.saturating_add(part.damaged) })
}

fn lock(journal: &SharedJournal) -> MutexGuard<'_, Journal> {
    // A panic inside leaves at worst a torn line, which the reader passes over.
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Disk work, off the async threads.
async fn on_disk<T: Send + 'static>(
    journal: &SharedJournal,
    work: impl FnOnce(&mut Journal) -> std::io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let path = lock(journal).path().to_owned();
    let journal = Arc::clone(journal);
    let done = tokio::task::spawn_blocking(move || work(&mut lock(&journal))).await;
    let done = done.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    done.map_err(|error| StoreError::File { path, error })
}
