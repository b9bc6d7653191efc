//! Operators, queues and trunks, and where an operator stands.

use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::Deserialize;

use crate::edge::clock;
use crate::edge::web::Web;
use crate::edge::web::problem::{Problem, Sent};
use crate::edge::web::who::{Overseer, Who};
use crate::engine::desk::{Ask, Asker};
use crate::fact::OperatorState;
use crate::report::{OperatorShape, QueueShape, TrunkShape};
use crate::terms::OperatorName;

/// Longest reason of a pause.
const REASON_MAX_CHARS: usize = 64;

/// `/me…`, `/operators…`, `/queues`, `/trunks`.
pub(super) fn routes() -> Router<Web> {
    Router::new()
        .route("/me/state", put(my_state))
        .route("/operators", get(operators))
        .route("/operators/{name}/state", put(their_state))
        .route("/queues", get(queues))
        .route("/trunks", get(trunks))
}

async fn operators(State(web): State<Web>, _: Who) -> Json<Vec<OperatorShape>> {
    Json(web.handle.board().operators(clock::now().wall_ms))
}

async fn queues(State(web): State<Web>, _: Who) -> Json<Vec<QueueShape>> {
    Json(web.handle.board().queues(clock::now().wall_ms))
}

async fn trunks(State(web): State<Web>, _: Who) -> Json<Vec<TrunkShape>> {
    Json(web.handle.board().trunks(clock::now().wall_ms))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    state: Option<OperatorState>,
    #[serde(default)]
    reason: String,
    auto_answer: Option<bool>,
}

async fn my_state(State(web): State<Web>, who: Who, Sent(change): Sent<Change>) -> Result<Response, Problem> {
    let operator = who.session.account.name.clone();
    set_state(&web, who.asker(), operator, change).await
}

async fn their_state(
    State(web): State<Web>,
    Overseer(who): Overseer,
    Path(name): Path<String>,
    Sent(change): Sent<Change>,
) -> Result<Response, Problem> {
    let operator = OperatorName::from(name);
    let known =
        web.handle.store().account(operator.as_str()).await.map_err(|_| Problem::away("The store"))?;
    if known.is_none() {
        return Err(Problem::not_found("operator"));
    }
    set_state(&web, who.asker(), operator, change).await
}

async fn set_state(
    web: &Web,
    asker: Asker,
    operator: OperatorName,
    change: Change,
) -> Result<Response, Problem> {
    let Change { state, reason, auto_answer } = change;
    let can_be_asked_for = match state {
        None => auto_answer.is_some(),
        Some(OperatorState::Available | OperatorState::Paused | OperatorState::Offline) => true,
        Some(OperatorState::Ringing | OperatorState::Talking | OperatorState::WrapUp) => false,
    };
    if !can_be_asked_for {
        return Err(Problem::bad("Send `state` as available, paused or offline, or `auto_answer`, or both."));
    }
    if reason.chars().count() > REASON_MAX_CHARS {
        return Err(Problem::bad(format!("`reason` has at most {REASON_MAX_CHARS} characters.")));
    }
    web.tell(asker, Ask::SetState { operator, state, reason, auto_answer }).await
}
