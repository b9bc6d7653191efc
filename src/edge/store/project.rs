//! One fact and all that follows from it: call record, card, letter to the order core.
//!
//! Invariant: the rows of a fact are written in one transaction with it, and writing the same fact again
//! changes nothing. What a row needs it reads from the database, so a retry needs no memory.

use sqlx::SqliteConnection;

use super::{StoreError, from_json, to_json, to_sql};
use crate::fact::{Fact, Fields, What};
use crate::orders::core::{Known, Letter, letter};
use crate::report::Cdr;
use crate::terms::{CallId, CardId, Number, WallMs};

/// Whether a fact is kept: measurements come by the thousand and say nothing tomorrow.
pub(super) fn is_kept(what: &What) -> bool {
    !matches!(what, What::MediaQuality { .. } | What::TrunkLoad { .. } | What::Digit { .. })
}

/// Writes a fact and what follows from it; whether a letter was made.
pub(super) async fn apply(connection: &mut SqliteConnection, fact: &Fact) -> Result<bool, StoreError> {
    let body = to_json(&fact.what)?;
    if already_there(connection, fact, &body).await? {
        return Ok(false);
    }
    let letter = match &fact.what {
        What::CardOpened { .. }
        | What::CardMoved { .. }
        | What::CardUpdated { .. }
        | What::CardSubmitted { .. }
        | What::CardDiscarded { .. } => card(connection, fact).await?,
        What::Arrived { .. } => arrived(connection, fact).await?,
        What::Queued { .. }
        | What::Leg { .. }
        | What::Assigned { .. }
        | What::Ringing { .. }
        | What::EarlyMedia { .. }
        | What::Answered { .. }
        | What::Ended { .. } => call(connection, fact).await?,
        What::NodeStarted { .. }
        | What::TrunkUp { .. }
        | What::TrunkDown { .. }
        | What::TrunkLoad { .. }
        | What::TrunkFailed { .. }
        | What::Operator { .. }
        | What::LegEnded { .. }
        | What::Greeting { .. }
        | What::LeftQueue { .. }
        | What::Unassigned { .. }
        | What::Tone { .. }
        | What::Held
        | What::Resumed
        | What::Transferred { .. }
        | What::Digit { .. }
        | What::MediaSilent { .. }
        | What::MediaRecovered { .. }
        | What::MediaQuality { .. }
        | What::CardCustomer { .. }
        | What::CardAccepted { .. } => None,
    };
    match letter {
        Some(letter) => post(connection, &letter, fact.at).await,
        None => Ok(false),
    }
}

/// Writes the fact itself. The same number with the same words was written with all its rows; with other
/// words an engine that was restored gave the number again, and the rows are still due.
async fn already_there(
    connection: &mut SqliteConnection,
    fact: &Fact,
    body: &str,
) -> Result<bool, StoreError> {
    let sql = "INSERT INTO facts (epoch, seq, at, call, body) VALUES (?, ?, ?, ?, ?)
               ON CONFLICT (epoch, seq) DO NOTHING";
    let (epoch, seq) = (to_sql(fact.epoch.0), to_sql(fact.seq));
    let query = sqlx::query(sql).bind(epoch).bind(seq).bind(fact.at);
    let query = query.bind(fact.call.map(|call| call.to_string())).bind(body);
    if query.execute(&mut *connection).await?.rows_affected() > 0 {
        return Ok(false);
    }
    let sql = "SELECT body FROM facts WHERE epoch = ? AND seq = ?";
    let known: String = sqlx::query_scalar(sql).bind(epoch).bind(seq).fetch_one(&mut *connection).await?;
    if known != body {
        tracing::warn!(%fact.epoch, fact.seq, "two facts have one number; the rows of both are kept");
    }
    Ok(known == body)
}

async fn arrived(connection: &mut SqliteConnection, fact: &Fact) -> Result<Option<Letter>, StoreError> {
    let Some(cdr) = Cdr::begin(fact) else { return Ok(None) };
    let sql = "INSERT INTO open_calls (call, cdr) SELECT ?1, ?2
               WHERE NOT EXISTS (SELECT 1 FROM cdr WHERE call = ?1) ON CONFLICT (call) DO NOTHING";
    sqlx::query(sql).bind(cdr.call.to_string()).bind(to_json(&cdr)?).execute(connection).await?;
    Ok(letter(fact, &known(&cdr)))
}

async fn call(connection: &mut SqliteConnection, fact: &Fact) -> Result<Option<Letter>, StoreError> {
    let Some(mut cdr) = open_call(connection, fact.call).await? else { return Ok(None) };
    if !cdr.fold(fact) {
        return Ok(None);
    }
    if cdr.ended_at.is_some() {
        close_call(connection, &cdr).await?;
    } else {
        save_call(connection, &cdr).await?;
    }
    Ok(letter(fact, &known(&cdr)))
}

async fn open_call(
    connection: &mut SqliteConnection,
    call: Option<CallId>,
) -> Result<Option<Cdr>, StoreError> {
    let Some(call) = call else { return Ok(None) };
    let query = sqlx::query_scalar::<_, String>("SELECT cdr FROM open_calls WHERE call = ?");
    let text = query.bind(call.to_string()).fetch_optional(connection).await?;
    Ok(text.and_then(|text| readable(&text)))
}

/// A record that does not decode costs its own call, never the writer.
pub(super) fn readable(text: &str) -> Option<Cdr> {
    match from_json(text) {
        Ok(cdr) => Some(cdr),
        Err(error) => {
            tracing::error!(%error, "the record of an open call does not read back");
            None
        }
    }
}

async fn save_call(connection: &mut SqliteConnection, cdr: &Cdr) -> Result<(), StoreError> {
    let query = sqlx::query("UPDATE open_calls SET cdr = ? WHERE call = ?");
    query.bind(to_json(cdr)?).bind(cdr.call.to_string()).execute(connection).await?;
    Ok(())
}

/// Writes the finished record and takes the call off the open ones.
pub(super) async fn close_call(connection: &mut SqliteConnection, cdr: &Cdr) -> Result<(), StoreError> {
    let sql = "INSERT INTO cdr (call, direction, caller, called, line, trunk, queue, operator, arrived_at,
                 answered_at, ended_at, wait_ms, talk_ms, result, q850, sip, words, ended_by, card)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (call) DO NOTHING";
    sqlx::query(sql)
        .bind(cdr.call.to_string())
        .bind(word(&cdr.direction)?)
        .bind(cdr.caller.reveal())
        .bind(cdr.called.reveal())
        .bind(cdr.line.reveal())
        .bind(cdr.trunk.as_ref().map(|name| name.as_str()))
        .bind(cdr.queue.as_ref().map(|name| name.as_str()))
        .bind(cdr.operator.as_ref().map(|name| name.as_str()))
        .bind(cdr.arrived_at)
        .bind(cdr.answered_at)
        .bind(cdr.ended_at)
        .bind(to_sql(cdr.wait_ms))
        .bind(to_sql(cdr.talk_ms))
        .bind(word(&cdr.result)?)
        .bind(i64::from(cdr.cause.q850))
        .bind(i64::from(cdr.cause.sip))
        .bind(&cdr.cause.words)
        .bind(&cdr.by)
        .bind(cdr.card.map(|card| card.to_string()))
        .execute(&mut *connection)
        .await?;
    let query = sqlx::query("DELETE FROM open_calls WHERE call = ?").bind(cdr.call.to_string());
    query.execute(connection).await?;
    Ok(())
}

/// What a call's letters say besides the fact.
pub(super) fn known(cdr: &Cdr) -> Known {
    Known {
        caller: cdr.caller.clone(),
        line: cdr.line.clone(),
        trunk: cdr.trunk.clone(),
        queue: cdr.queue.clone(),
        operator: cdr.operator.clone(),
    }
}

/// A one-word value as SQL keeps it.
pub(super) fn word<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    Ok(to_json(value)?.trim_matches('"').to_owned())
}

async fn card(connection: &mut SqliteConnection, fact: &Fact) -> Result<Option<Letter>, StoreError> {
    if let What::CardOpened { card, .. } = &fact.what {
        open_card(connection, fact).await?;
        if let Some(mut cdr) = open_call(connection, fact.call).await? {
            cdr.card = Some(*card);
            save_call(connection, &cdr).await?;
        }
    } else if let What::CardMoved { card, operator } = &fact.what {
        let query = sqlx::query("UPDATE cards SET operator = ? WHERE card = ? AND state = 'draft'");
        query.bind(operator.as_str()).bind(card.to_string()).execute(connection).await?;
    } else if let What::CardUpdated { card, fields } = &fact.what {
        let query = sqlx::query("UPDATE cards SET fields = ? WHERE card = ? AND state = 'draft'");
        query.bind(to_json(fields)?).bind(card.to_string()).execute(connection).await?;
    } else if let What::CardSubmitted { card, operator, fields } = &fact.what {
        return submit(connection, fact, *card, operator.as_str(), fields).await;
    } else if let What::CardDiscarded { card, reason } = &fact.what {
        discard_card(connection, *card, reason, fact.at).await?;
    }
    Ok(None)
}

async fn open_card(connection: &mut SqliteConnection, fact: &Fact) -> Result<(), StoreError> {
    let What::CardOpened { card, caller, line, trunk, queue, operator } = &fact.what else { return Ok(()) };
    let sql = "INSERT INTO cards (card, call, caller, line, trunk, queue, operator, state, fields, opened_at)
               VALUES (?, ?, ?, ?, ?, ?, ?, 'draft', '{}', ?) ON CONFLICT (card) DO NOTHING";
    sqlx::query(sql)
        .bind(card.to_string())
        .bind(fact.call.map(|call| call.to_string()))
        .bind(caller.reveal())
        .bind(line.reveal())
        .bind(trunk.as_ref().map(|name| name.as_str()))
        .bind(queue.as_ref().map(|name| name.as_str()))
        .bind(operator.as_str())
        .bind(fact.at)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn discard_card(
    connection: &mut SqliteConnection,
    card: CardId,
    reason: &str,
    at: WallMs,
) -> Result<(), StoreError> {
    let sql =
        "UPDATE cards SET state = 'discarded', reason = ?, closed_at = ? WHERE card = ? AND state = 'draft'";
    sqlx::query(sql).bind(reason).bind(at).bind(card.to_string()).execute(connection).await?;
    Ok(())
}

type CardRow = (String, String, Option<String>, Option<String>, String);

/// In the database a submitted card is accepted, for this transaction is what makes it durable. A card
/// that an operator discarded before stays discarded and makes no order.
async fn submit(
    connection: &mut SqliteConnection,
    fact: &Fact,
    card: CardId,
    operator: &str,
    fields: &Fields,
) -> Result<Option<Letter>, StoreError> {
    let sql = "SELECT caller, line, trunk, queue, state FROM cards WHERE card = ?";
    let row: Option<CardRow> =
        sqlx::query_as(sql).bind(card.to_string()).fetch_optional(&mut *connection).await?;
    if row.as_ref().is_some_and(|row| row.4 == "discarded") {
        return Ok(None);
    }
    let sql = "INSERT INTO cards (card, call, caller, line, operator, state, fields, opened_at, closed_at)
               VALUES (?, ?, '', '', ?, 'accepted', ?, ?, ?)
               ON CONFLICT (card) DO UPDATE SET state = 'accepted', operator = excluded.operator,
                 fields = excluded.fields, closed_at = excluded.closed_at WHERE cards.state = 'draft'";
    sqlx::query(sql)
        .bind(card.to_string())
        .bind(fact.call.map(|call| call.to_string()))
        .bind(operator)
        .bind(to_json(fields)?)
        .bind(fact.at)
        .bind(fact.at)
        .execute(&mut *connection)
        .await?;
    let known = match row {
        Some((caller, line, trunk, queue, _)) => Known {
            caller: Number::new(caller),
            line: Number::new(line),
            trunk: trunk.map(Into::into),
            queue: queue.map(Into::into),
            operator: None,
        },
        // Its opening was lost with a node: the call's record may still say who called.
        None => open_call(connection, fact.call).await?.map(|cdr| self::known(&cdr)).unwrap_or_default(),
    };
    Ok(letter(fact, &known))
}

/// Puts a letter into the outbox, unless its key was there before; whether it was new.
pub(super) async fn post(
    connection: &mut SqliteConnection,
    letter: &Letter,
    at: WallMs,
) -> Result<bool, StoreError> {
    let sql = "INSERT INTO outbox (key, lane, path, body, card, made_at) VALUES (?, ?, ?, ?, ?, ?)
               ON CONFLICT (key) DO NOTHING";
    let query = sqlx::query(sql)
        .bind(&letter.key)
        .bind(&letter.lane)
        .bind(letter.path)
        .bind(&letter.body)
        .bind(letter.card.map(|card| card.to_string()))
        .bind(at);
    Ok(query.execute(connection).await?.rows_affected() > 0)
}
