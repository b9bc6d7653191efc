//! The embedded order core's books: orders, customers, what became of calls.
//!
//! Invariant: a key creates one order, whatever is sent under it how often; a change that was carried out
//! under a key is not carried out again.

use serde_json::json;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, Waiting, from_json, to_json};
use crate::fact::Fields;
use crate::orders::core::{CallMessage, Customer, OrderMessage, PastOrder};
use crate::terms::WallMs;

/// Orders that a customer's history shows.
const MAX_PAST_ORDERS: u32 = 20;
/// Addresses that a customer's history shows.
const MAX_ADDRESSES: usize = 5;

/// An order of the embedded core.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CoreOrder {
    /// Its id.
    pub id: String,
    /// The caller's number.
    pub phone: String,
    /// `new` or `discarded`.
    pub state: String,
    /// Why it was discarded.
    pub reason: String,
    /// When it was given, RFC 3339 UTC.
    pub at: String,
    /// What was ordered.
    pub fields: Fields,
}

/// What became of a change to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoreAnswer {
    /// The order as it stands, new or changed.
    Done(CoreOrder),
    /// As it stands: the same was asked before.
    Again(CoreOrder),
    /// No such order.
    Unknown,
}

fn order(row: &SqliteRow) -> Result<CoreOrder, StoreError> {
    Ok(CoreOrder {
        id: row.try_get::<i64, _>("id")?.to_string(),
        phone: row.try_get("phone")?,
        state: row.try_get("state")?,
        reason: row.try_get("reason")?,
        at: row.try_get("at")?,
        fields: from_json(row.try_get("fields")?)?,
    })
}

impl Store {
    /// Creates the order of a key, or finds it.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn core_create(&self, key: &str, message: &OrderMessage) -> Result<CoreAnswer, StoreError> {
        let _turn = self.inner.turn.lock().await;
        let mut transaction = self.inner.writes.begin_with("BEGIN IMMEDIATE").await?;
        let sql =
            "INSERT INTO core_orders (key, phone, state, at, fields, body) VALUES (?, ?, 'new', ?, ?, ?)
                   ON CONFLICT (key) DO NOTHING";
        let query = sqlx::query(sql)
            .bind(key)
            .bind(&message.caller)
            .bind(&message.at)
            .bind(to_json(&message.fields)?)
            .bind(to_json(message)?);
        let made = query.execute(&mut *transaction).await?.rows_affected() > 0;
        let query = sqlx::query("SELECT * FROM core_orders WHERE key = ?").bind(key);
        let order = order(&query.fetch_one(&mut *transaction).await?)?;
        if made && !message.caller.is_empty() {
            let query = sqlx::query("INSERT INTO core_customers (phone) VALUES (?) ON CONFLICT DO NOTHING");
            query.bind(&message.caller).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(if made { CoreAnswer::Done(order) } else { CoreAnswer::Again(order) })
    }

    /// Replaces an order's fields.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn core_patch(&self, id: i64, key: &str, fields: &Fields) -> Result<CoreAnswer, StoreError> {
        let sql = "UPDATE core_orders SET fields = ?2 WHERE id = ?1 AND state = 'new'";
        self.core_change(id, key, sql, &to_json(fields)?).await
    }

    /// Discards an order.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn core_discard(&self, id: i64, key: &str, reason: &str) -> Result<CoreAnswer, StoreError> {
        let sql = "UPDATE core_orders SET state = 'discarded', reason = ?2 WHERE id = ?1 AND state = 'new'";
        self.core_change(id, key, sql, reason).await
    }

    async fn core_change(
        &self,
        id: i64,
        key: &str,
        sql: &'static str,
        value: &str,
    ) -> Result<CoreAnswer, StoreError> {
        let _turn = self.inner.turn.lock().await;
        let mut transaction = self.inner.writes.begin_with("BEGIN IMMEDIATE").await?;
        let exists = "SELECT 1 FROM core_orders WHERE id = ?";
        if sqlx::query(exists).bind(id).fetch_optional(&mut *transaction).await?.is_none() {
            return Ok(CoreAnswer::Unknown);
        }
        let once = "INSERT INTO core_done (key, core_order) VALUES (?, ?) ON CONFLICT (key) DO NOTHING";
        let fresh =
            sqlx::query(once).bind(key).bind(id).execute(&mut *transaction).await?.rows_affected() > 0;
        if fresh {
            sqlx::query(sql).bind(id).bind(value).execute(&mut *transaction).await?;
        }
        let query = sqlx::query("SELECT * FROM core_orders WHERE id = ?").bind(id);
        let order = order(&query.fetch_one(&mut *transaction).await?)?;
        transaction.commit().await?;
        Ok(if fresh { CoreAnswer::Done(order) } else { CoreAnswer::Again(order) })
    }

    /// Notes what became of a call; whether it was news.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn core_call(&self, key: &str, message: &CallMessage) -> Result<bool, StoreError> {
        let sql = "INSERT INTO core_calls (key, call, phone, body) VALUES (?, ?, ?, ?)
                   ON CONFLICT (key) DO NOTHING";
        let query = sqlx::query(sql)
            .bind(key)
            .bind(message.call_id.to_string())
            .bind(&message.caller)
            .bind(to_json(message)?);
        Ok(query.execute(&self.inner.writes).await?.rows_affected() > 0)
    }

    /// Notes what became of calls and that the letters which say so arrived, all in one transaction.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; then nothing is noted.
    pub async fn core_calls(
        &self,
        letters: &[(Waiting, CallMessage)],
        now: WallMs,
    ) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        for (letter, message) in letters {
            rows.push(json!([letter.key, message.call_id, message.caller, to_json(message)?]));
        }
        let ids: Vec<i64> = letters.iter().map(|(letter, _)| letter.id).collect();
        let sql = "INSERT INTO core_calls (key, call, phone, body)
                     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?) WHERE true
                     ON CONFLICT (key) DO NOTHING;
                   UPDATE outbox SET state = 'delivered', closed_at = ?
                     WHERE id IN (SELECT value FROM json_each(?)) AND state = 'waiting'";
        let _turn = self.inner.turn.lock().await;
        let mut transaction = self.inner.writes.begin_with("BEGIN IMMEDIATE").await?;
        let query = sqlx::query(sql).bind(to_json(&rows)?).bind(now).bind(to_json(&ids)?);
        query.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// A customer with his last orders and the addresses he is picked up from.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn core_customer(&self, phone: &str) -> Result<Customer, StoreError> {
        let query =
            sqlx::query_as::<_, (String, bool)>("SELECT name, blocked FROM core_customers WHERE phone = ?");
        let found = query.bind(phone).fetch_optional(&self.inner.reads).await?;
        let (name, blocked) = found.unwrap_or_default();
        let query = sqlx::query("SELECT * FROM core_orders WHERE phone = ? ORDER BY id DESC LIMIT ?");
        let rows = query.bind(phone).bind(MAX_PAST_ORDERS).fetch_all(&self.inner.reads).await?;
        let orders: Vec<CoreOrder> = rows.iter().map(order).collect::<Result<_, _>>()?;
        let addresses = frequent(orders.iter().filter_map(|order| order.fields.get("pickup")));
        let past = |order: CoreOrder| PastOrder {
            id: order.id,
            state: order.state,
            at: order.at,
            fields: order.fields,
        };
        Ok(Customer { name, blocked, orders: orders.into_iter().map(past).collect(), addresses })
    }

    /// Names or blocks a customer.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn core_set_customer(&self, phone: &str, name: &str, blocked: bool) -> Result<(), StoreError> {
        let sql = "INSERT INTO core_customers (phone, name, blocked) VALUES (?, ?, ?)
                   ON CONFLICT (phone) DO UPDATE SET name = excluded.name, blocked = excluded.blocked";
        sqlx::query(sql).bind(phone).bind(name).bind(blocked).execute(&self.inner.writes).await?;
        Ok(())
    }
}

/// The most frequent texts, ties in alphabetical order.
fn frequent<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for text in texts.map(|text| text.trim()).filter(|text| !text.is_empty()) {
        let count = counts.entry(text).or_default();
        *count = count.saturating_add(1);
    }
    let mut sorted: Vec<(&str, usize)> = counts.into_iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    sorted.into_iter().take(MAX_ADDRESSES).map(|(text, _)| text.to_owned()).collect()
}
