//! Live calls: looking at them, dialling, and holding them by their handles.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::id;
use crate::edge::clock;
use crate::edge::web::Web;
use crate::edge::web::problem::{Problem, Sent};
use crate::edge::web::who::Who;
use crate::engine::desk::{Answer, Ask};
use crate::report::CallShape;
use crate::terms::{CallId, TrunkName};

/// Digits of one request.
const DIGITS_MAX: usize = 32;
/// Characters that a person may type to dial; the dialplan makes a number of them.
const TO_MAX_CHARS: usize = 64;

/// `/calls…`.
pub(super) fn routes() -> Router<Web> {
    Router::new()
        .route("/calls", get(list).post(dial))
        .route("/calls/{id}", get(one))
        .route("/calls/{id}/hangup", post(hang_up))
        .route("/calls/{id}/hold", post(hold))
        .route("/calls/{id}/resume", post(resume))
        .route("/calls/{id}/transfer", post(transfer))
        .route("/calls/{id}/dtmf", post(digits))
}

async fn list(State(web): State<Web>, who: Who) -> Json<Vec<CallShape>> {
    let now = clock::now().wall_ms;
    let board = web.handle.board();
    Json(if who.sees_all() { board.calls(now) } else { board.calls_of(&who.session.account.name, now) })
}

async fn one(State(web): State<Web>, who: Who, Path(call): Path<String>) -> Result<Json<CallShape>, Problem> {
    let call = own(&web, &who, &call)?;
    let found = web.handle.board().call(call, clock::now().wall_ms);
    found.map(Json).ok_or_else(|| Problem::not_found("call"))
}

/// The call, if this person may know of it.
fn own(web: &Web, who: &Who, text: &str) -> Result<CallId, Problem> {
    let call: CallId = id(text, "call")?;
    let board = web.handle.board();
    let known = who.sees_all() || board.took_part(&who.session.account.name, call);
    if known { Ok(call) } else { Err(Problem::not_found("call")) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dial {
    to: String,
    trunk: Option<TrunkName>,
}

async fn dial(State(web): State<Web>, who: Who, Sent(sent): Sent<Dial>) -> Result<Response, Problem> {
    let ask = Ask::Dial { to: dialled(&sent.to)?, trunk: sent.trunk };
    match web.ask(who.asker(), ask).await? {
        Answer::Call(call) => {
            let place = [(header::LOCATION, format!("/api/v1/calls/{call}"))];
            Ok((StatusCode::CREATED, place, Json(serde_json::json!({ "id": call }))).into_response())
        }
        Answer::Done | Answer::Accepted(_) | Answer::Bans(_) | Answer::Refused(_) => {
            Ok(StatusCode::ACCEPTED.into_response())
        }
    }
}

/// What a person typed to reach somebody.
fn dialled(text: &str) -> Result<String, Problem> {
    let to = text.trim();
    if to.is_empty() || to.chars().count() > TO_MAX_CHARS || to.chars().any(char::is_control) {
        return Err(Problem::bad(format!("`to` is a number of 1 to {TO_MAX_CHARS} characters.")));
    }
    Ok(to.to_owned())
}

async fn hang_up(State(web): State<Web>, who: Who, Path(call): Path<String>) -> Result<Response, Problem> {
    let call = own(&web, &who, &call)?;
    web.tell(who.asker(), Ask::HangUp(call)).await
}

async fn hold(State(web): State<Web>, who: Who, Path(call): Path<String>) -> Result<Response, Problem> {
    let call = own(&web, &who, &call)?;
    web.tell(who.asker(), Ask::Hold(call)).await
}

async fn resume(State(web): State<Web>, who: Who, Path(call): Path<String>) -> Result<Response, Problem> {
    let call = own(&web, &who, &call)?;
    web.tell(who.asker(), Ask::Resume(call)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transfer {
    to: String,
    how: How,
}

/// Whether the operator speaks to the new party first.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    Blind,
}

/// Hands the other party to a number or a colleague; the operator is released when they answer.
async fn transfer(
    State(web): State<Web>,
    who: Who,
    Path(call): Path<String>,
    Sent(sent): Sent<Transfer>,
) -> Result<Response, Problem> {
    let call = own(&web, &who, &call)?;
    let Transfer { to, how: How::Blind } = sent;
    web.tell(who.asker(), Ask::Transfer { call, to: dialled(&to)? }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Digits {
    digits: String,
}

async fn digits(
    State(web): State<Web>,
    who: Who,
    Path(call): Path<String>,
    Sent(sent): Sent<Digits>,
) -> Result<Response, Problem> {
    let call = own(&web, &who, &call)?;
    let is_key = |c: char| matches!(c, '0'..='9' | '*' | '#' | 'A'..='D');
    if sent.digits.is_empty() || sent.digits.len() > DIGITS_MAX || !sent.digits.chars().all(is_key) {
        return Err(Problem::bad(format!("`digits` are 1 to {DIGITS_MAX} of 0-9 * # A-D.")));
    }
    web.tell(who.asker(), Ask::Digits { call, digits: sent.digits }).await
}
