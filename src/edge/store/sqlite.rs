//! SQLite: how connections are opened, and how the layout grows.
//!
//! Invariant: every connection has foreign keys, a write-ahead log and full syncs, so a commit that was
//! reported survives a power cut.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::StoreError;

/// Reports and look-ups that run at a time.
const MAX_READS: u32 = 4;
/// The writer goes to its journal after this time rather than wait for a lock.
pub(super) const WRITER_BUSY: Duration = Duration::from_millis(250);
/// Others wait longer: nobody's order hangs on them.
const OTHERS_BUSY: Duration = Duration::from_secs(5);

/// Each step of the layout, in order; a step that was released is never changed.
const MIGRATIONS: [&str; 2] =
    [include_str!("migrations/sqlite/0001_books.sql"), include_str!("migrations/sqlite/0002_sip_phones.sql")];

/// `sqlite:PATH` or `sqlite://PATH` → PATH.
pub(super) fn path(url: &str) -> Result<PathBuf, StoreError> {
    let path = url.strip_prefix("sqlite:").ok_or_else(|| StoreError::Url(scheme(url)))?;
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.starts_with(':') { Err(StoreError::Url(scheme(url))) } else { Ok(path.into()) }
}

/// The address may hold a password: only its beginning is shown.
fn scheme(url: &str) -> String {
    url.split_inclusive(':').next().unwrap_or_default().to_owned()
}

fn options(path: &Path, busy: Duration) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(busy)
        .disable_statement_logging()
}

/// The writer's own connection.
pub(super) async fn connect(path: &Path, max_pages: u32) -> Result<SqliteConnection, StoreError> {
    let mut options = options(path, WRITER_BUSY);
    if max_pages > 0 {
        options = options.pragma("max_page_count", max_pages.to_string());
    }
    Ok(options.connect().await?)
}

/// Ends a connection properly; one that fails to end is dropped, which ends it as well.
pub(super) async fn close(connection: SqliteConnection) {
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "a database connection did not close cleanly");
    }
}

pub(super) fn read_pool(path: &Path) -> SqlitePool {
    let options = options(path, OTHERS_BUSY).pragma("query_only", "ON");
    SqlitePoolOptions::new()
        .max_connections(MAX_READS)
        .test_before_acquire(false)
        .acquire_timeout(OTHERS_BUSY)
        .connect_lazy_with(options)
}

pub(super) fn write_pool(path: &Path) -> SqlitePool {
    let options = options(path, OTHERS_BUSY);
    // A file does not hang up: asking before each use would double what a short statement costs.
    SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .acquire_timeout(OTHERS_BUSY)
        .connect_lazy_with(options)
}

/// Brings the layout up to date. `user_version` counts the steps taken; each step and its number are one
/// transaction, so a crash leaves a whole layout.
pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    let taken = usize::try_from(found).unwrap_or(0);
    for (index, step) in MIGRATIONS.iter().enumerate().skip(taken) {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::raw_sql(*step).execute(&mut *transaction).await?;
        // A PRAGMA takes no parameters; the number is ours.
        let number = format!("PRAGMA user_version = {}", index.saturating_add(1));
        sqlx::raw_sql(sqlx::AssertSqlSafe(number)).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    Ok(())
}
