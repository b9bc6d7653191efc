//! Call records for history pages and exports.
//!
//! Invariant: a page is bounded, however wide the question.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, from_json, from_sql};
use crate::fact::{CallResult, Cause};
use crate::report::Cdr;
use crate::terms::{Number, OperatorName, QueueName, WallMs};

/// Records of one page.
pub const MAX_PAGE: u32 = 1_000;

/// Which records are wanted; `None` wants all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CdrQuery {
    /// Arrived at or after.
    pub from: Option<WallMs>,
    /// Arrived before.
    pub to: Option<WallMs>,
    /// Caller or called number ends with these digits.
    pub number: Option<String>,
    /// By operator.
    pub operator: Option<OperatorName>,
    /// By queue.
    pub queue: Option<QueueName>,
    /// By result.
    pub result: Option<CallResult>,
    /// From 0.
    pub page: u32,
    /// Records of a page, at most [`MAX_PAGE`]; 0 is the most.
    pub page_size: u32,
}

/// A record and the order that came of the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdrRow {
    /// The record.
    pub cdr: Cdr,
    /// The order core's id.
    pub order: Option<String>,
}

/// A page of records, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdrPage {
    /// The page.
    pub rows: Vec<CdrRow>,
    /// Records on all pages.
    pub total: u64,
}

const WHERE: &str = "WHERE (?1 IS NULL OR cdr.arrived_at >= ?1) AND (?2 IS NULL OR cdr.arrived_at < ?2)
  AND (?3 IS NULL OR cdr.caller LIKE '%' || ?3 OR cdr.called LIKE '%' || ?3)
  AND (?4 IS NULL OR cdr.operator = ?4) AND (?5 IS NULL OR cdr.queue = ?5)
  AND (?6 IS NULL OR cdr.result = ?6)";

impl Store {
    /// A page of call records, newest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn history(&self, wanted: &CdrQuery) -> Result<CdrPage, StoreError> {
        let size = if wanted.page_size == 0 { MAX_PAGE } else { wanted.page_size.min(MAX_PAGE) };
        let offset = i64::from(wanted.page).saturating_mul(i64::from(size));
        // Only `+` and digits: no wildcard of LIKE can come in.
        let number = wanted
            .number
            .as_ref()
            .map(|text| text.chars().filter(|c| c.is_ascii_digit() || *c == '+').collect::<String>());
        let result = wanted.result.as_ref().map(super::project::word).transpose()?;
        let select = format!(
            "SELECT cdr.*, cards.core_order FROM cdr LEFT JOIN cards ON cards.card = cdr.card {WHERE}
             ORDER BY cdr.arrived_at DESC, cdr.call DESC LIMIT ?7 OFFSET ?8"
        );
        // One view of the database for both: a call that ends in between is in neither.
        let mut view = self.inner.reads.begin().await?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(select))
            .bind(wanted.from)
            .bind(wanted.to)
            .bind(&number)
            .bind(wanted.operator.as_ref().map(|name| name.as_str()))
            .bind(wanted.queue.as_ref().map(|name| name.as_str()))
            .bind(&result)
            .bind(size)
            .bind(offset)
            .fetch_all(&mut *view)
            .await?;
        let count = format!("SELECT COUNT(*) FROM cdr {WHERE}");
        let total: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count))
            .bind(wanted.from)
            .bind(wanted.to)
            .bind(&number)
            .bind(wanted.operator.as_ref().map(|name| name.as_str()))
            .bind(wanted.queue.as_ref().map(|name| name.as_str()))
            .bind(&result)
            .fetch_one(&mut *view)
            .await?;
        view.commit().await?;
        let rows = rows.iter().map(row).collect::<Result<_, _>>()?;
        Ok(CdrPage { rows, total: from_sql(total) })
    }

    /// The record of one call.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn record(&self, call: crate::terms::CallId) -> Result<Option<CdrRow>, StoreError> {
        let sql = "SELECT cdr.*, cards.core_order FROM cdr LEFT JOIN cards ON cards.card = cdr.card
                   WHERE cdr.call = ?";
        let found = sqlx::query(sql).bind(call.to_string()).fetch_optional(&self.inner.reads).await?;
        found.as_ref().map(row).transpose()
    }
}

fn row(row: &SqliteRow) -> Result<CdrRow, StoreError> {
    let damaged = |error: uuid::Error| StoreError::Damaged(error.to_string());
    let name = |column: &str| row.try_get::<Option<String>, _>(column);
    let number = |column: &str| row.try_get::<String, _>(column).map(Number::new);
    let small = |column: &str| row.try_get::<i64, _>(column).map(|value| u16::try_from(value).unwrap_or(0));
    let cdr = Cdr {
        call: row.try_get::<String, _>("call")?.parse().map_err(damaged)?,
        direction: from_json(&format!("{:?}", row.try_get::<String, _>("direction")?))?,
        caller: number("caller")?,
        called: number("called")?,
        line: number("line")?,
        trunk: name("trunk")?.map(Into::into),
        queue: name("queue")?.map(Into::into),
        operator: name("operator")?.map(Into::into),
        arrived_at: row.try_get("arrived_at")?,
        answered_at: row.try_get("answered_at")?,
        ended_at: row.try_get("ended_at")?,
        wait_ms: from_sql(row.try_get("wait_ms")?),
        talk_ms: from_sql(row.try_get("talk_ms")?),
        result: from_json(&format!("{:?}", row.try_get::<String, _>("result")?))?,
        cause: Cause { q850: small("q850")?, sip: small("sip")?, words: row.try_get("words")? },
        by: row.try_get("ended_by")?,
        card: name("card")?.map(|card| card.parse()).transpose().map_err(damaged)?,
    };
    Ok(CdrRow { cdr, order: name("core_order")? })
}
