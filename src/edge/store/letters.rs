//! The outbox: letters to the order core until it has them.
//!
//! Invariant: a letter is waiting, delivered or dead, and leaves "waiting" once.

use serde::Serialize;

use super::{Store, StoreError, from_sql};
use crate::report::At;
use crate::terms::WallMs;

/// Characters of an answer that are kept with a letter.
const MAX_ANSWER_CHARS: usize = 500;

/// A letter that is to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its place: letters of one lane go out in this order.
    pub id: i64,
    /// `Idempotency-Key`.
    pub key: String,
    /// `call/…` or `card/…`.
    pub lane: String,
    /// Below the core's base address.
    pub path: String,
    /// JSON.
    pub body: String,
    /// The card whose order it is.
    pub card: Option<String>,
}

/// What `GET /api/v1/outbox` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutboxView {
    /// Letters that wait.
    pub depth: u64,
    /// When the oldest of them was written.
    pub oldest_at: Option<At>,
    /// Letters that the core refused for good.
    pub dead: u64,
    /// Why the last attempt that failed did so, of the oldest letter that waits.
    pub last_error: String,
}

/// A letter that the core refused for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// Its place in the outbox.
    pub id: i64,
    /// Below the core's base address.
    pub path: String,
    /// What was sent.
    pub body: serde_json::Value,
    /// HTTP status of the refusal.
    pub status: i64,
    /// What the core said.
    pub answer: String,
    /// When.
    pub at: At,
}

impl Store {
    /// Returns once letters may be waiting.
    pub async fn letters_posted(&self) {
        self.inner.letters.notified().await;
    }

    /// Letters that wait, from the one after `after` on.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn waiting(&self, after: i64, limit: u32) -> Result<Vec<Waiting>, StoreError> {
        let sql = "SELECT id, key, lane, path, body, card FROM outbox
                   WHERE state = 'waiting' AND id > ? ORDER BY id LIMIT ?";
        let rows: Vec<(i64, String, String, String, String, Option<String>)> =
            sqlx::query_as(sql).bind(after).bind(limit).fetch_all(&self.inner.reads).await?;
        let letter = |(id, key, lane, path, body, card)| Waiting { id, key, lane, path, body, card };
        Ok(rows.into_iter().map(letter).collect())
    }

    /// The core has the letter; `order` is the id it gave the order.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer: the letter will be delivered again, under its key.
    pub async fn delivered(&self, id: i64, order: Option<&str>, now: WallMs) -> Result<(), StoreError> {
        let _turn = self.inner.turn.lock().await;
        let mut transaction = self.inner.writes.begin_with("BEGIN IMMEDIATE").await?;
        let sql = "UPDATE outbox SET state = 'delivered', closed_at = ? WHERE id = ? AND state = 'waiting'";
        sqlx::query(sql).bind(now).bind(id).execute(&mut *transaction).await?;
        if let Some(order) = order {
            let sql = "UPDATE cards SET core_order = ? WHERE card = (SELECT card FROM outbox WHERE id = ?)";
            sqlx::query(sql).bind(order).bind(id).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// An attempt failed and will be made again.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn attempt_failed(&self, id: i64, error: &str) -> Result<(), StoreError> {
        let sql = "UPDATE outbox SET attempts = attempts + 1, last_error = ? WHERE id = ?";
        sqlx::query(sql).bind(short(error)).bind(id).execute(&self.inner.writes).await?;
        Ok(())
    }

    /// The core refused the letter for good.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn refused(&self, id: i64, status: u16, answer: &str, now: WallMs) -> Result<(), StoreError> {
        let _turn = self.inner.turn.lock().await;
        let mut transaction = self.inner.writes.begin_with("BEGIN IMMEDIATE").await?;
        let sql = "UPDATE outbox SET state = 'dead', closed_at = ? WHERE id = ? AND state = 'waiting'";
        sqlx::query(sql).bind(now).bind(id).execute(&mut *transaction).await?;
        let sql = "INSERT INTO dead_letter (id, status, answer, at) VALUES (?, ?, ?, ?)
                   ON CONFLICT (id) DO UPDATE SET status = excluded.status, answer = excluded.answer";
        let query = sqlx::query(sql).bind(id).bind(i64::from(status)).bind(short(answer)).bind(now);
        query.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Sends a dead letter again, at a supervisor's word; `false` if there is no such dead letter.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn revive(&self, id: i64) -> Result<bool, StoreError> {
        let _turn = self.inner.turn.lock().await;
        let mut transaction = self.inner.writes.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("DELETE FROM dead_letter WHERE id = ?").bind(id).execute(&mut *transaction).await?;
        let sql = "UPDATE outbox SET state = 'waiting', closed_at = NULL WHERE id = ? AND state = 'dead'";
        let found = sqlx::query(sql).bind(id).execute(&mut *transaction).await?.rows_affected() > 0;
        transaction.commit().await?;
        self.inner.letters.notify_one();
        Ok(found)
    }

    /// How the outbox fares.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn outbox(&self) -> Result<OutboxView, StoreError> {
        let sql = "SELECT (SELECT COUNT(*) FROM outbox WHERE state = 'waiting'),
                          (SELECT MIN(made_at) FROM outbox WHERE state = 'waiting'),
                          (SELECT COUNT(*) FROM dead_letter),
                          (SELECT last_error FROM outbox WHERE state = 'waiting' ORDER BY id LIMIT 1)";
        let row: (i64, Option<WallMs>, i64, Option<String>) =
            sqlx::query_as(sql).fetch_one(&self.inner.reads).await?;
        Ok(OutboxView {
            depth: from_sql(row.0),
            oldest_at: row.1.map(At),
            dead: from_sql(row.2),
            last_error: row.3.unwrap_or_default(),
        })
    }

    /// The newest dead letters.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        let sql = "SELECT outbox.id, path, body, status, answer, at FROM dead_letter
                   JOIN outbox ON outbox.id = dead_letter.id ORDER BY outbox.id DESC LIMIT ?";
        let rows: Vec<(i64, String, String, i64, String, WallMs)> =
            sqlx::query_as(sql).bind(limit).fetch_all(&self.inner.reads).await?;
        let letter = |(id, path, body, status, answer, at): (i64, String, String, i64, String, WallMs)| {
            let body = serde_json::from_str(&body).unwrap_or(serde_json::Value::Null);
            DeadLetter { id, path, body, status, answer, at: At(at) }
        };
        Ok(rows.into_iter().map(letter).collect())
    }
}

fn short(text: &str) -> String {
    text.chars().take(MAX_ANSWER_CHARS).collect()
}
