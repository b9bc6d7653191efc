//! Many facts in few statements: what a busy evening's commit is made of.
//!
//! Each statement costs two changes of threads, which is more than all that SQLite does for it. So the
//! records of the calls of a group are read with one statement, folded here, and all rows written with
//! one more, whatever the number of facts.
//!
//! Invariant: the rows are those that [`project::apply`] makes of the same facts one by one. Facts that
//! it would have to look at twice (cards, numbers that were given before) are left to it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::project::{self, known, readable, word};
use super::{StoreError, to_json, to_sql};
use crate::fact::{Fact, What};
use crate::orders::core::{Letter, letter};
use crate::report::Cdr;
use crate::terms::{CallId, Epoch, WallMs};

/// Writes facts and what follows from them, in order; whether a letter was made.
pub(super) async fn apply(connection: &mut SqliteConnection, facts: &[Fact]) -> Result<bool, StoreError> {
    let mut letters = false;
    for run in facts.chunk_by(|one, next| goes_with(one) && goes_with(next) && follows(one, next)) {
        letters |= match run {
            [one] if !goes_with(one) => project::apply(connection, one).await?,
            many => together(connection, many).await?,
        };
    }
    Ok(letters)
}

/// A card's rows are read again by the next fact about it.
fn goes_with(fact: &Fact) -> bool {
    !matches!(
        fact.what,
        What::CardOpened { .. }
            | What::CardMoved { .. }
            | What::CardUpdated { .. }
            | What::CardSubmitted { .. }
            | What::CardDiscarded { .. }
    )
}

/// Numbers that do not grow were given before.
fn follows(one: &Fact, next: &Fact) -> bool {
    one.epoch == next.epoch && one.seq < next.seq
}

async fn together(connection: &mut SqliteConnection, facts: &[Fact]) -> Result<bool, StoreError> {
    let (Some(first), Some(last)) = (facts.first(), facts.last()) else { return Ok(false) };
    let Some(mut flock) = read(connection, facts, first.epoch, (first.seq, last.seq)).await? else {
        let mut letters = false;
        for fact in facts {
            letters |= project::apply(connection, fact).await?;
        }
        return Ok(letters);
    };
    for fact in facts {
        flock.fold(fact)?;
    }
    flock.write(connection, first.epoch).await
}

/// What is known of the calls of these facts; `None` when the database has a fact of these numbers already.
async fn read(
    connection: &mut SqliteConnection,
    facts: &[Fact],
    epoch: Epoch,
    (first, last): (u64, u64),
) -> Result<Option<Flock>, StoreError> {
    let calls: BTreeSet<String> =
        facts.iter().filter_map(|fact| fact.call).map(|call| call.to_string()).collect();
    let sql = "SELECT 'open', cdr FROM open_calls WHERE call IN (SELECT value FROM json_each(?1))
               UNION ALL SELECT 'done', call FROM cdr WHERE call IN (SELECT value FROM json_each(?1))
               UNION ALL SELECT 'fact', '' WHERE EXISTS
                 (SELECT 1 FROM facts WHERE epoch = ?2 AND seq BETWEEN ?3 AND ?4)";
    let query = sqlx::query_as::<_, (String, String)>(sql).bind(to_json(&calls)?);
    let query = query.bind(to_sql(epoch.0)).bind(to_sql(first)).bind(to_sql(last));
    let mut flock = Flock::default();
    for (kind, text) in query.fetch_all(connection).await? {
        match kind.as_str() {
            "open" => {
                if let Some(cdr) = readable(&text) {
                    flock.open.insert(cdr.call, Some(cdr));
                }
            }
            "done" => {
                if let Ok(call) = text.parse() {
                    flock.done.insert(call);
                }
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(flock))
}

/// The rows of a group of facts, before they are written.
#[derive(Default)]
struct Flock {
    /// Calls under way; `None` for one that ended here.
    open: BTreeMap<CallId, Option<Cdr>>,
    /// Calls whose record is written already.
    done: BTreeSet<CallId>,
    touched: BTreeSet<CallId>,
    facts: Vec<Value>,
    ended: Vec<Value>,
    letters: Vec<Value>,
}

impl Flock {
    fn fold(&mut self, fact: &Fact) -> Result<(), StoreError> {
        let call = fact.call.map(|call| call.to_string());
        self.facts.push(json!([to_sql(fact.seq), fact.at, call, to_json(&fact.what)?]));
        let Some(call) = fact.call else { return Ok(()) };
        if let Some(cdr) = Cdr::begin(fact) {
            self.post(letter(fact, &known(&cdr)), fact.at);
            if !self.done.contains(&call) && !matches!(self.open.get(&call), Some(Some(_))) {
                self.touched.insert(call);
                self.open.insert(call, Some(cdr));
            }
            return Ok(());
        }
        let Some(Some(cdr)) = self.open.get_mut(&call) else { return Ok(()) };
        if !cdr.fold(fact) {
            return Ok(());
        }
        self.touched.insert(call);
        let letter = letter(fact, &known(cdr));
        if cdr.ended_at.is_some() {
            let row = row(cdr)?;
            self.ended.push(row);
            self.done.insert(call);
            self.open.insert(call, None);
        }
        self.post(letter, fact.at);
        Ok(())
    }

    fn post(&mut self, letter: Option<Letter>, at: WallMs) {
        if let Some(Letter { key, lane, path, body, card }) = letter {
            self.letters.push(json!([key, lane, path, body, card.map(|card| card.to_string()), at]));
        }
    }

    /// One text of statements: SQLite takes them one after the other in the transaction that is open.
    async fn write(self, connection: &mut SqliteConnection, epoch: Epoch) -> Result<bool, StoreError> {
        let Self { open, touched, facts, ended, letters, done: _ } = self;
        let mut alive = Vec::new();
        let mut gone = Vec::new();
        for call in touched {
            match open.get(&call) {
                Some(Some(cdr)) => alive.push(json!([call.to_string(), to_json(cdr)?])),
                Some(None) | None => gone.push(call.to_string()),
            }
        }
        let some_letters = !letters.is_empty();
        let sql = "INSERT INTO facts (epoch, seq, at, call, body)
                     SELECT ?, value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?);
                   INSERT INTO open_calls (call, cdr)
                     SELECT value ->> 0, value ->> 1 FROM json_each(?) WHERE true
                     ON CONFLICT (call) DO UPDATE SET cdr = excluded.cdr;
                   DELETE FROM open_calls WHERE call IN (SELECT value FROM json_each(?));
                   INSERT INTO cdr (call, direction, caller, called, line, trunk, queue, operator, arrived_at,
                       answered_at, ended_at, wait_ms, talk_ms, result, q850, sip, words, ended_by, card)
                     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
                       value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11,
                       value ->> 12, value ->> 13, value ->> 14, value ->> 15, value ->> 16, value ->> 17,
                       value ->> 18 FROM json_each(?) WHERE true ON CONFLICT (call) DO NOTHING;
                   INSERT INTO outbox (key, lane, path, body, card, made_at)
                     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
                     FROM json_each(?) WHERE true ON CONFLICT (key) DO NOTHING";
        sqlx::query(sql)
            .bind(to_sql(epoch.0))
            .bind(to_json(&facts)?)
            .bind(to_json(&alive)?)
            .bind(to_json(&gone)?)
            .bind(to_json(&ended)?)
            .bind(to_json(&letters)?)
            .execute(connection)
            .await?;
        Ok(some_letters)
    }
}

/// A finished record, in the order of the columns.
fn row(cdr: &Cdr) -> Result<Value, StoreError> {
    let name = |name: Option<&str>| name.map(str::to_owned);
    Ok(json!([
        cdr.call.to_string(),
        word(&cdr.direction)?,
        cdr.caller.reveal(),
        cdr.called.reveal(),
        cdr.line.reveal(),
        name(cdr.trunk.as_ref().map(|name| name.as_str())),
        name(cdr.queue.as_ref().map(|name| name.as_str())),
        name(cdr.operator.as_ref().map(|name| name.as_str())),
        cdr.arrived_at,
        cdr.answered_at,
        cdr.ended_at,
        to_sql(cdr.wait_ms),
        to_sql(cdr.talk_ms),
        word(&cdr.result)?,
        cdr.cause.q850,
        cdr.cause.sip,
        cdr.cause.words,
        cdr.by,
        cdr.card.map(|card| card.to_string()),
    ]))
}
