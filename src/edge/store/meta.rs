//! What a node remembers of itself, and what it finds when it starts.
//!
//! Invariant: an epoch is given out once; a call that no node holds any more has a closed record before
//! the first new call comes in.

use std::collections::BTreeSet;

use sqlx::sqlite::SqliteRow;
use sqlx::{Connection as _, Row as _};

use super::{Store, StoreError, from_json, from_sql, project};
use crate::orders::card::{ABANDONED, MAX_CLOSED, MAX_OPEN};
use crate::orders::core::lost_letter;
use crate::orders::{Kept, KeptState};
use crate::report::Cdr;
use crate::terms::{CallId, CardId, Epoch, Number, Secret, WallMs};

/// Cards closed this lately still answer a desk that did not hear the answer.
const CLOSED_LATELY_MS: WallMs = 3_600_000;
/// Bytes of the pair's secret.
const SECRET_BYTES: usize = 32;

/// What a starting node finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The number of the newest stored fact, 0 for none.
    pub last_seq: u64,
    /// Cards that were on a desk, and those closed lately: give them to `Cards::resume`.
    pub cards: Vec<Kept>,
    /// Records closed as `lost` just now.
    pub lost: Vec<Cdr>,
}

impl Store {
    /// Begins a new epoch.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn start(&self) -> Result<Epoch, StoreError> {
        let sql = "INSERT INTO meta (key, value) VALUES ('epoch', 1)
                   ON CONFLICT (key) DO UPDATE SET value = CAST(value AS INTEGER) + 1
                   RETURNING CAST(value AS INTEGER)";
        let epoch: i64 = sqlx::query_scalar(sql).fetch_one(&self.inner.writes).await?;
        Ok(Epoch(from_sql(epoch)))
    }

    /// The secret that keys SIP passwords, nonces and cookies; made at the first call.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer or the machine has no entropy.
    pub async fn pair_secret(&self) -> Result<Secret<Vec<u8>>, StoreError> {
        let mut bytes = vec![0_u8; SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| StoreError::Crypto(error.to_string()))?;
        let sql = "INSERT INTO meta (key, value) VALUES ('pair_secret', ?) ON CONFLICT (key) DO NOTHING";
        sqlx::query(sql).bind(bytes).execute(&self.inner.writes).await?;
        let sql = "SELECT CAST(value AS BLOB) FROM meta WHERE key = 'pair_secret'";
        Ok(Secret::new(sqlx::query_scalar(sql).fetch_one(&self.inner.writes).await?))
    }

    /// Takes over the other node's secret.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn set_pair_secret(&self, secret: &Secret<Vec<u8>>) -> Result<(), StoreError> {
        let sql = "INSERT INTO meta (key, value) VALUES ('pair_secret', ?)
                   ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        sqlx::query(sql).bind(secret.expose().as_slice()).execute(&self.inner.writes).await?;
        Ok(())
    }

    /// What was open when the last node stopped. Calls other than `alive` (those taken over from a
    /// predecessor) are closed as `lost`; a card of a caller whom nobody had answered is discarded if it
    /// is empty, every other open card comes back.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; nothing is closed then.
    pub async fn load(&self, now: WallMs, alive: &BTreeSet<CallId>) -> Result<Loaded, StoreError> {
        let mut connection = self.inner.writes.acquire().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let open: Vec<String> = sqlx::query_scalar("SELECT cdr FROM open_calls ORDER BY call")
            .fetch_all(&mut *transaction)
            .await?;
        let mut lost = Vec::new();
        for cdr in open.iter().filter_map(|text| project::readable(text)) {
            if alive.contains(&cdr.call) {
                continue;
            }
            let unanswered = cdr.answered_at.is_none();
            let cdr = cdr.lost(now);
            project::close_call(&mut transaction, &cdr).await?;
            let letter = lost_letter(cdr.call, now, &project::known(&cdr));
            project::post(&mut transaction, &letter, now).await?;
            if unanswered && let Some(card) = cdr.card {
                discard_if_empty(&mut transaction, card, now).await?;
            }
            lost.push(cdr);
        }
        let sql = "SELECT * FROM (SELECT * FROM cards WHERE state = 'draft' OR closed_at > ?
                   ORDER BY opened_at DESC LIMIT ?) ORDER BY opened_at, card";
        let limit = i64::try_from(MAX_CLOSED.saturating_add(MAX_OPEN)).unwrap_or(i64::MAX);
        let query = sqlx::query(sql).bind(now.saturating_sub(CLOSED_LATELY_MS)).bind(limit);
        let rows = query.fetch_all(&mut *transaction).await?;
        let cards = rows.iter().filter_map(|row| kept(row).transpose()).collect::<Result<_, _>>()?;
        let sql = "SELECT seq FROM facts ORDER BY epoch DESC, seq DESC LIMIT 1";
        let last: Option<i64> = sqlx::query_scalar(sql).fetch_optional(&mut *transaction).await?;
        transaction.commit().await?;
        self.inner.letters.notify_one();
        Ok(Loaded { last_seq: last.map_or(0, from_sql), cards, lost })
    }

    /// Forgets facts and closed letters from before `before`; records and orders stay.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn forget(&self, before: WallMs) -> Result<u64, StoreError> {
        let mut gone = 0_u64;
        for sql in [
            "DELETE FROM facts WHERE at < ?",
            "DELETE FROM outbox WHERE state = 'delivered' AND closed_at < ?",
        ] {
            let done = sqlx::query(sql).bind(before).execute(&self.inner.writes).await?;
            gone = gone.saturating_add(done.rows_affected());
        }
        Ok(gone)
    }
}

async fn discard_if_empty(
    connection: &mut sqlx::SqliteConnection,
    card: CardId,
    now: WallMs,
) -> Result<(), StoreError> {
    let query = sqlx::query_scalar::<_, String>("SELECT fields FROM cards WHERE card = ?");
    let fields = query.bind(card.to_string()).fetch_optional(&mut *connection).await?;
    if fields.is_some_and(|fields| fields == "{}") {
        project::discard_card(connection, card, ABANDONED, now).await?;
    }
    Ok(())
}

/// A card without a call cannot come back to a desk: its call's id was never known.
fn kept(row: &SqliteRow) -> Result<Option<Kept>, StoreError> {
    let damaged = |error: uuid::Error| StoreError::Damaged(error.to_string());
    let text = |column: &str| row.try_get::<String, _>(column);
    let name = |column: &str| row.try_get::<Option<String>, _>(column);
    let Some(call) = name("call")? else { return Ok(None) };
    let state = match text("state")?.as_str() {
        "draft" => KeptState::Draft,
        "accepted" => KeptState::Accepted,
        _ => KeptState::Discarded { reason: text("reason")? },
    };
    Ok(Some(Kept {
        card: text("card")?.parse().map_err(damaged)?,
        call: call.parse().map_err(damaged)?,
        caller: Number::new(text("caller")?),
        line: Number::new(text("line")?),
        trunk: name("trunk")?.map(Into::into),
        queue: name("queue")?.map(Into::into),
        operator: text("operator")?.into(),
        fields: from_json(&text("fields")?)?,
        state,
    }))
}
