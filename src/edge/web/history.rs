//! Call records, orders and the outbox: what the store answers.
//!
//! Invariant: a page and an export are bounded; a spreadsheet that opens the export runs nothing.

use std::fmt::Write as _;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::edge::clock;
use crate::edge::store::{CdrQuery, CdrRow, DeadLetter, OutboxView, StoreError};
use crate::edge::web::Web;
use crate::edge::web::problem::Problem;
use crate::edge::web::readable::sentence;
use crate::edge::web::who::{Overseer, Who};
use crate::fact::CallResult;
use crate::report::shape::CallState;
use crate::report::{At, CallShape, CauseShape, Cdr};
use crate::terms::{Number, OperatorName, QueueName, WallMs};

/// Records of one page on a screen.
const PAGE_ROWS: u32 = 100;
/// Records read at a time for an export.
const EXPORT_STEP_ROWS: u32 = 1_000;
/// Records of one export.
const EXPORT_MAX_ROWS: u32 = 200_000;
/// Longest text in a question.
const ASKED_MAX_CHARS: usize = 64;
/// Letters shown of the dead.
const DEAD_SHOWN: u32 = 200;
/// First line of an export.
const CSV_HEADER: &str = "id,direction,caller,called,line,trunk,queue,operator,arrived_at,answered_at,ended_at,\
     wait_ms,talk_ms,result,q850,sip,cause,ended_by,card,order\r\n";

/// `/history`, `/history.csv`, `/orders`, `/outbox`.
pub(super) fn routes() -> Router<Web> {
    Router::new()
        .route("/history", get(page))
        .route("/history.csv", get(export))
        .route("/orders", get(orders))
        .route("/outbox", get(outbox))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    from: Option<String>,
    to: Option<String>,
    number: Option<String>,
    operator: Option<OperatorName>,
    queue: Option<QueueName>,
    result: Option<CallResult>,
    /// From 1.
    page: Option<u32>,
}

impl Asked {
    fn query(self, web: &Web, page_size: u32) -> Result<CdrQuery, Problem> {
        let long =
            |text: &Option<String>| text.as_ref().is_some_and(|text| text.chars().count() > ASKED_MAX_CHARS);
        if [&self.from, &self.to, &self.number].into_iter().any(long) {
            return Err(Problem::bad(format!(
                "A question has at most {ASKED_MAX_CHARS} characters in a field."
            )));
        }
        Ok(CdrQuery {
            from: self.from.map(|text| instant(web, &text, 0)).transpose()?,
            to: self.to.map(|text| instant(web, &text, 1)).transpose()?,
            number: self.number.filter(|text| !text.is_empty()),
            operator: self.operator.filter(|name| !name.as_str().is_empty()),
            queue: self.queue.filter(|name| !name.as_str().is_empty()),
            result: self.result,
            page: self.page.unwrap_or(1).saturating_sub(1),
            page_size,
        })
    }
}

/// An instant, or a day: its begin, or with `plus_days` 1 its end.
fn instant(web: &Web, text: &str, plus_days: i64) -> Result<WallMs, Problem> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at.as_millisecond());
    }
    let words = || {
        Problem::bad(format!("{text:?} is neither a day (2026-03-01) nor an instant (2026-03-01T09:30:00Z)."))
    };
    let day: Date = text.parse().map_err(|_| words())?;
    let day = day.checked_add(jiff::Span::new().days(plus_days)).map_err(|_| words())?;
    let begin = day.to_zoned(web.settings.time_zone.clone()).map_err(|_| words())?;
    Ok(begin.timestamp().as_millisecond())
}

fn asked(query: Result<Query<Asked>, QueryRejection>) -> Result<Asked, Problem> {
    match query {
        Ok(Query(asked)) => Ok(asked),
        Err(rejection) => Err(Problem::bad(sentence(&rejection.body_text()))),
    }
}

fn away(error: StoreError) -> Problem {
    tracing::warn!(%error, "the store does not answer a question");
    Problem::away("The store")
}

#[derive(Serialize)]
struct Page {
    page: u32,
    page_size: u32,
    total: u64,
    calls: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    call: CallShape,
    ended_by: String,
    order: Option<String>,
}

async fn page(
    State(web): State<Web>,
    _: Overseer,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let query = asked(query)?.query(&web, PAGE_ROWS)?;
    let found = web.handle.store().history(&query).await.map_err(away)?;
    let calls = found.rows.into_iter().map(row).collect();
    Ok(Json(Page { page: query.page.saturating_add(1), page_size: PAGE_ROWS, total: found.total, calls }))
}

fn row(found: CdrRow) -> Row {
    let CdrRow { cdr, order } = found;
    Row { ended_by: cdr.by.clone(), call: shape(&cdr), order }
}

fn shape(cdr: &Cdr) -> CallShape {
    let ms = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    CallShape {
        id: cdr.call,
        direction: cdr.direction,
        state: CallState::Ended,
        caller: cdr.caller.reveal().to_owned(),
        called: cdr.called.reveal().to_owned(),
        line: cdr.line.reveal().to_owned(),
        trunk: cdr.trunk.clone(),
        queue: cdr.queue.clone(),
        operator: cdr.operator.clone(),
        arrived_at: At(cdr.arrived_at),
        answered_at: cdr.answered_at.map(At),
        ended_at: cdr.ended_at.map(At),
        wait_ms: ms(cdr.wait_ms),
        talk_ms: ms(cdr.talk_ms),
        result: Some(cdr.result),
        cause: Some(CauseShape::from(&cdr.cause)),
        tone: None,
        card: cdr.card,
        legs: Vec::new(),
    }
}

async fn export(
    State(web): State<Web>,
    _: Overseer,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
    let mut query = asked(query)?.query(&web, EXPORT_STEP_ROWS)?;
    query.page = 0;
    // Pages are counted from the newest: calls that end meanwhile must not move them.
    query.to = Some(query.to.unwrap_or(WallMs::MAX).min(clock::now().wall_ms));
    let first = web.handle.store().history(&query).await.map_err(away)?;
    let state = Export { web, query, rows: Some(first.rows), header: true };
    let body = Body::from_stream(stream::unfold(state, Export::next));
    let kind = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"calls.csv\""),
    ];
    Ok((kind, body).into_response())
}

struct Export {
    web: Web,
    query: CdrQuery,
    /// Read, not yet sent; `None` after the last page.
    rows: Option<Vec<CdrRow>>,
    header: bool,
}

impl Export {
    async fn next(mut self) -> Option<(Result<Bytes, StoreError>, Self)> {
        let rows = self.rows.take()?;
        let mut text = if std::mem::take(&mut self.header) { CSV_HEADER.to_owned() } else { String::new() };
        rows.iter().for_each(|row| line(&mut text, row));
        let is_full = rows.len() == usize::try_from(EXPORT_STEP_ROWS).unwrap_or(usize::MAX);
        self.query.page = self.query.page.saturating_add(1);
        if is_full && self.query.page.saturating_mul(EXPORT_STEP_ROWS) < EXPORT_MAX_ROWS {
            match self.web.handle.store().history(&self.query).await {
                Ok(found) => self.rows = Some(found.rows),
                // The connection is cut: half an export must not look like a whole one.
                Err(error) => return Some((Err(error), self)),
            }
        }
        Some((Ok(text.into()), self))
    }
}

/// One line (RFC 4180).
fn line(text: &mut String, row: &CdrRow) {
    let call = shape(&row.cdr);
    let cause = &row.cdr.cause;
    let name = |name: Option<&str>| name.unwrap_or_default().to_owned();
    let at = |at: Option<At>| at.map(|at| at.to_string()).unwrap_or_default();
    let cells = [
        call.id.to_string(),
        word(&call.direction),
        call.caller,
        call.called,
        call.line,
        name(call.trunk.as_ref().map(|trunk| trunk.as_str())),
        name(call.queue.as_ref().map(|queue| queue.as_str())),
        name(call.operator.as_ref().map(|operator| operator.as_str())),
        call.arrived_at.to_string(),
        at(call.answered_at),
        at(call.ended_at),
        call.wait_ms.to_string(),
        call.talk_ms.to_string(),
        word(&row.cdr.result),
        cause.q850.to_string(),
        cause.sip.to_string(),
        cause.words.clone(),
        row.cdr.by.clone(),
        call.card.map(|card| card.to_string()).unwrap_or_default(),
        row.order.clone().unwrap_or_default(),
    ];
    let cells: Vec<String> = cells.iter().map(|cell| safe_cell(cell)).collect();
    // Writing into a string cannot fail.
    write!(text, "{}\r\n", cells.join(",")).unwrap_or_default();
}

/// The word that JSON has for it.
fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// A cell that begins no formula (a telephone number with its `+` is none) and breaks no line.
fn safe_cell(cell: &str) -> String {
    let is_number = cell.strip_prefix('+').is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()));
    let begins_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']) && !is_number;
    let guarded = if begins_formula { format!("'{cell}") } else { cell.to_owned() };
    if begins_formula || guarded.contains(['"', ',', '\r', '\n']) {
        return format!("\"{}\"", guarded.replace('"', "\"\""));
    }
    guarded
}

#[derive(Deserialize)]
struct Phone {
    phone: String,
}

/// What the order core knows of a number: name, orders, frequent addresses.
async fn orders(
    State(web): State<Web>,
    _: Who,
    query: Result<Query<Phone>, QueryRejection>,
) -> Result<Response, Problem> {
    let Ok(Query(Phone { phone })) = query else {
        return Err(Problem::bad("Ask with ?phone= and a number; write its + as %2B."));
    };
    // A `+` in a query is a space, and who forgets that means the number all the same.
    let digits: String = phone.chars().filter(char::is_ascii_digit).collect();
    if digits.is_empty() || phone.chars().count() > ASKED_MAX_CHARS {
        return Err(Problem::bad("`phone` is a number such as %2B380671234567."));
    }
    let international = phone.starts_with(['+', ' ']);
    let number = Number::new(if international { format!("+{digits}") } else { digits });
    let found = web.handle.customer(number).await.ok_or_else(|| Problem::away("The order core"))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], found).into_response())
}

#[derive(Serialize)]
struct Outbox {
    #[serde(flatten)]
    view: OutboxView,
    dead_letters: Vec<DeadLetter>,
}

async fn outbox(State(web): State<Web>, _: Overseer) -> Result<Json<Outbox>, Problem> {
    let view = web.handle.store().outbox().await.map_err(away)?;
    let dead_letters = web.handle.store().dead_letters(DEAD_SHOWN).await.map_err(away)?;
    Ok(Json(Outbox { view, dead_letters }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use reqwest::Method;

    use super::*;
    use crate::edge::web::testing::{Site, dialled_by, fact};
    use crate::fact::{Cause, What};

    #[test]
    fn no_cell_begins_a_formula_or_breaks_a_line() {
        let rows = [
            ("plain", "plain"),
            ("+380671234567", "+380671234567"),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("+cmd|' /C calc'!A0", "\"'+cmd|' /C calc'!A0\""),
            ("-1+1", "\"'-1+1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("a,b", "\"a,b\""),
            ("a\r\nb", "\"a\r\nb\""),
            ("", ""),
        ];
        for (given, expected) in rows {
            assert_eq!(safe_cell(given), expected);
        }
    }

    #[tokio::test]
    async fn a_call_that_ended_is_on_the_page_and_in_the_export() {
        let site = Site::start().await;
        let (writer, work) = site.handle.store().writer();
        tokio::spawn(work);
        let cause = Cause { q850: 16, sip: 200, words: "=danger, \"quoted\"".into() };
        let ended = What::Ended {
            result: CallResult::Answered,
            cause,
            by: "caller".into(),
            wait_ms: 900,
            talk_ms: 5_000,
        };
        let mut facts = vec![dialled_by(1, "anna"), fact(1, ended)];
        for (number, fact) in (1..).zip(&mut facts) {
            fact.seq = number;
        }
        writer.append(facts);
        writer.stored().wait_for(|stored| stored.seq == 2).await.unwrap();
        let vera = site.cookie("vera").await;
        let (_, page) =
            site.ask(Method::GET, "/api/v1/history?number=1234567&operator=anna", &vera, "").await;
        assert_eq!((&page["total"], &page["page"]), (&1.into(), &1.into()));
        let call = &page["calls"][0];
        assert_eq!((&call["called"], &call["talk_ms"]), (&"+380671234567".into(), &5_000.into()));
        assert_eq!(
            (&call["result"], &call["state"], &call["ended_by"]),
            (&"answered".into(), &"ended".into(), &"caller".into())
        );
        let (_, none) = site.ask(Method::GET, "/api/v1/history?to=2020-01-01", &vera, "").await;
        assert_eq!(none["total"], 0);
        let request = site.request(Method::GET, "/api/v1/history.csv?result=answered", &vera, "");
        let export = request.send().await.unwrap();
        assert!(export.headers()["content-type"].to_str().unwrap().starts_with("text/csv"));
        let text = export.text().await.unwrap();
        assert!(text.starts_with(CSV_HEADER));
        assert!(text.contains(",+380671234567,") && text.contains("\"'=danger, \"\"quoted\"\"\""), "{text}");
        assert_eq!(text.lines().count(), 2);
    }

    #[tokio::test]
    async fn a_day_ends_where_the_next_begins_in_the_nodes_own_zone() {
        let site = Site::start().await;
        let day = |text: &str, plus| instant(&site.web, text, plus).unwrap();
        assert_eq!(day("2026-03-01", 1) - day("2026-03-01", 0), 86_400_000);
        assert_eq!(day("2026-03-01T00:00:00Z", 1), day("2026-03-01", 0));
        assert!(instant(&site.web, "9999-12-31", 1).is_err());
    }
}
