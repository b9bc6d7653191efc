//! Order cards: the draft, the submit that is answered once the order is durable, the discard.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use axum::{Json, Router};
use serde::Deserialize;

use super::id;
use crate::edge::web::Web;
use crate::edge::web::problem::{Problem, Sent};
use crate::edge::web::who::Who;
use crate::engine::desk::{Answer, Ask};
use crate::fact::Fields;
use crate::terms::CardId;

/// The fields of a card.
const FIELDS: [&str; 5] = ["pickup", "destination", "when", "class", "comment"];
/// Longest text of one field.
const FIELD_MAX_CHARS: usize = 2_000;
/// Longest reason of a discard.
const REASON_MAX_CHARS: usize = 200;

/// `/cards…`.
pub(super) fn routes() -> Router<Web> {
    Router::new()
        .route("/cards/{id}", put(save))
        .route("/cards/{id}/submit", post(submit))
        .route("/cards/{id}/discard", post(discard))
}

/// The card, if it lies on this person's desk.
fn own(web: &Web, who: &Who, text: &str) -> Result<CardId, Problem> {
    let card: CardId = id(text, "card")?;
    let found = web.handle.board().card(card);
    let known = found.is_some_and(|shape| who.sees_all() || shape.operator == who.session.account.name);
    if known { Ok(card) } else { Err(Problem::not_found("card")) }
}

fn check(fields: Fields) -> Result<Fields, Problem> {
    if let Some(name) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return Err(Problem::bad(format!("A card has no field {name:?}; it has {}.", FIELDS.join(", "))));
    }
    if let Some((name, _)) = fields.iter().find(|(_, text)| text.chars().count() > FIELD_MAX_CHARS) {
        return Err(Problem::bad(format!("`{name}` has at most {FIELD_MAX_CHARS} characters.")));
    }
    Ok(fields)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    fields: Fields,
}

async fn save(
    State(web): State<Web>,
    who: Who,
    Path(card): Path<String>,
    Sent(draft): Sent<Draft>,
) -> Result<Response, Problem> {
    let card = own(&web, &who, &card)?;
    let fields = check(draft.fields)?;
    web.tell(who.asker(), Ask::SaveCard { card, fields }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Submit {
    fields: Option<Fields>,
}

async fn submit(
    State(web): State<Web>,
    who: Who,
    Path(card): Path<String>,
    Sent(sent): Sent<Submit>,
) -> Result<Response, Problem> {
    let card = own(&web, &who, &card)?;
    let fields = sent.fields.map(check).transpose()?;
    let answer = web.ask(who.asker(), Ask::SubmitCard { card, fields }).await?;
    let accepted = match answer {
        Answer::Accepted(accepted) => accepted,
        Answer::Done | Answer::Call(_) | Answer::Bans(_) | Answer::Refused(_) => card,
    };
    Ok(Json(serde_json::json!({ "id": accepted, "state": "accepted" })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Discard {
    reason: String,
}

async fn discard(
    State(web): State<Web>,
    who: Who,
    Path(card): Path<String>,
    Sent(sent): Sent<Discard>,
) -> Result<Response, Problem> {
    let card = own(&web, &who, &card)?;
    if sent.reason.trim().is_empty() || sent.reason.chars().count() > REASON_MAX_CHARS {
        return Err(Problem::bad("Say in `reason` why: fake, wrong_number, question or other."));
    }
    web.tell(who.asker(), Ask::DiscardCard { card, reason: sent.reason }).await
}
