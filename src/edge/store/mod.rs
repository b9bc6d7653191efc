//! The store: what must outlive the process.
//!
//! Facts and all that follows from them (call records, cards, letters to the order core) are written by
//! one [`Writer`] in one transaction; the engine never waits for it. Accounts, sessions and the embedded
//! order core live beside them.
//!
//! Invariant: what was reported as stored is in the database or in the synced local journal, and either
//! way ends in the database exactly once.

mod account;
mod flock;
mod history;
mod journal;
mod letters;
mod meta;
mod order;
mod project;
mod session;
mod sip_phone;
mod sqlite;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::sqlite::SqlitePool;
use tokio::sync::{Mutex, Notify, Semaphore};

use crate::terms::WallMs;

pub use account::{
    Account, MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS, Role, UnknownRole, check_name, check_password,
};
pub use history::{CdrPage, CdrQuery, CdrRow, MAX_PAGE};
pub use letters::{DeadLetter, OutboxView, Waiting};
pub use meta::Loaded;
pub use order::{CoreAnswer, CoreOrder};
pub use session::{SESSION_MS, Session};
pub use writer::{Health, MAX_QUEUE, Stored, Writer};

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// `sqlite:PATH`.
    pub url: String,
    /// Where the journal goes while the database is away.
    pub data_dir: PathBuf,
    /// Pages the database may have, 4 kB each; 0 is no limit.
    pub max_pages: u32,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address is of a kind that this program cannot open.
    #[error("store.url {0:?}: only sqlite:PATH is built in")]
    Url(String),
    /// The database refused or is away.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The database took too long.
    #[error("the database takes too long")]
    Slow,
    /// The file system refused.
    #[error("{path}: {error}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What it said.
        error: std::io::Error,
    },
    /// The database was made by a newer program.
    #[error("the database has layout {found}, this program knows {known}: upgrade this node first")]
    Newer {
        /// In the database.
        found: i64,
        /// Known here.
        known: i64,
    },
    /// A row does not read back.
    #[error("the database holds what does not decode: {0}")]
    Damaged(String),
    /// An account of that name exists.
    #[error("there is an account {0:?} already")]
    Exists(String),
    /// A password or name does not fit.
    #[error("{0}")]
    Unfit(String),
    /// No entropy, or no hash: the machine is in trouble.
    #[error("cryptography: {0}")]
    Crypto(String),
}

struct Inner {
    config: StoreConfig,
    path: PathBuf,
    max_pages: AtomicU32,
    reads: SqlitePool,
    /// One connection: two writers of ours would only wait for each other.
    writes: SqlitePool,
    /// Whose turn it is to write. SQLite lets one connection write and makes the other poll with growing
    /// pauses: on a busy disk it would starve.
    turn: Mutex<()>,
    /// Letters may be waiting.
    letters: Notify,
    /// Password checks that run at a time: each takes 19 MiB and a core.
    hashing: Semaphore,
    /// Held while this process owns the data folder's journal.
    lock: Option<std::fs::File>,
}

/// The store; clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// Password checks that run at a time.
const MAX_HASHING: usize = 2;

impl Store {
    /// Opens or makes the database, brings its layout up to date, and takes in what a predecessor left
    /// in the journal (unless another process has the data folder, see [`Store::is_alone`]).
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be opened or is of a newer layout.
    pub async fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let path = sqlite::path(&config.url)?;
        for folder in path.parent().into_iter().chain([config.data_dir.as_path()]) {
            let made = tokio::fs::create_dir_all(folder).await;
            made.map_err(|error| StoreError::File { path: folder.to_owned(), error })?;
        }
        let mut connection = sqlite::connect(&path, config.max_pages).await?;
        sqlite::migrate(&mut connection).await?;
        // Another process that runs on this folder takes in its journal itself.
        let lock = journal::lock(&config.data_dir).await?;
        if lock.is_some() {
            writer::take_in_journal(&config.data_dir, &mut connection).await?;
        }
        sqlite::close(connection).await;
        let inner = Inner {
            reads: sqlite::read_pool(&path),
            writes: sqlite::write_pool(&path),
            max_pages: AtomicU32::new(config.max_pages),
            config: config.clone(),
            path,
            turn: Mutex::new(()),
            letters: Notify::new(),
            hashing: Semaphore::new(MAX_HASHING),
            lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The writer and the future that does its work: spawn it. It ends when every [`Writer`] is dropped
    /// and all they were given is durable.
    pub fn writer(&self) -> (Writer, impl Future<Output = ()> + Send + use<>) {
        writer::open(self.clone())
    }

    /// Whether no other process had the data folder when this one opened it. A node that serves must be
    /// alone; a command that adds an account need not.
    pub fn is_alone(&self) -> bool {
        self.inner.lock.is_some()
    }

    /// Changes how large the database may grow; the writer obeys from its next connection on.
    pub fn set_max_pages(&self, pages: u32) {
        self.inner.max_pages.store(pages, Ordering::Relaxed);
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`StoreError::Database`] when it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.inner.reads).await?;
        Ok(())
    }

    /// Whether the database takes a row and gives it back: a disk that is full or read-only does not.
    ///
    /// # Errors
    /// [`StoreError::Database`] when it does not, [`StoreError::Damaged`] when another row comes back.
    pub async fn beat(&self, now: WallMs) -> Result<(), StoreError> {
        let sql = "INSERT INTO meta (key, value) VALUES ('heartbeat', ?)
                   ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        sqlx::query(sql).bind(now).execute(&self.inner.writes).await?;
        let sql = "SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'heartbeat'";
        let found: i64 = sqlx::query_scalar(sql).fetch_one(&self.inner.reads).await?;
        // Another check may have written meanwhile.
        if found >= now { Ok(()) } else { Err(StoreError::Damaged("the heartbeat is lost".to_owned())) }
    }

    /// From now on the database takes nothing, as on a disk that was mounted read-only.
    #[cfg(test)]
    pub(crate) async fn make_read_only_for_test(&self) -> Result<(), StoreError> {
        sqlx::query("PRAGMA query_only = ON").execute(&self.inner.writes).await?;
        Ok(())
    }

    /// Result and words of every call record, oldest first.
    #[cfg(test)]
    pub(crate) async fn results_for_test(&self) -> Vec<(String, String)> {
        let sql = "SELECT result, words FROM cdr ORDER BY arrived_at, call";
        sqlx::query_as(sql).fetch_all(&self.inner.reads).await.unwrap_or_default()
    }

    /// Closes the pools; the database file is whole afterwards.
    pub async fn close(&self) {
        self.inner.reads.close().await;
        self.inner.writes.close().await;
    }
}

/// A count as SQL keeps it.
fn to_sql(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count as SQL gave it.
fn from_sql(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// JSON of a value of ours, which always has one.
fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Damaged(error.to_string()))
}

/// A value of ours from JSON.
fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Damaged(error.to_string()))
}
