//! Who is locked out after failed log-ins, by SIP and at the web.

use std::net::IpAddr;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::edge::clock;
use crate::edge::web::Web;
use crate::edge::web::problem::Problem;
use crate::edge::web::who::Overseer;
use crate::engine::desk::{Answer, Ask, Asker, Role};
use crate::sip::guard::Ban;

/// `/bans…`.
pub(super) fn routes() -> Router<Web> {
    Router::new().route("/bans", get(list)).route("/bans/{source}", delete(lift))
}

async fn list(State(web): State<Web>, Overseer(who): Overseer) -> Json<Value> {
    Json(web.bans(who.asker()).await)
}

async fn lift(
    State(web): State<Web>,
    Overseer(who): Overseer,
    Path(source): Path<String>,
) -> Result<Response, Problem> {
    if who.asker().role < Role::Admin {
        return Err(Problem::not_allowed("Only an admin lifts a ban."));
    }
    let source: IpAddr =
        source.parse().map_err(|_| Problem::bad("Name an address, as `GET /bans` shows it."))?;
    if web.lift_bans(who.asker(), source).await {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(Problem::not_found("ban"))
    }
}

impl Web {
    /// `[{door, source, account, failures, left_ms}]`, those of SIP first.
    pub(in crate::edge::web) async fn bans(&self, asker: Asker) -> Value {
        let by_sip = match self.handle.ask(asker, Ask::Bans).await {
            Answer::Bans(bans) => bans,
            Answer::Done | Answer::Call(_) | Answer::Accepted(_) | Answer::Refused(_) => Vec::new(),
        };
        let at_web = self.guard().bans(clock::now().mono_ms);
        let shape = |door: &str, ban: Ban| {
            let Ban { source, account, failures, left_ms } = ban;
            json!({ "door": door, "source": source, "account": account, "failures": failures, "left_ms": left_ms })
        };
        let by_sip = by_sip.into_iter().map(|ban| shape("sip", ban));
        by_sip.chain(at_web.into_iter().map(|ban| shape("web", ban))).collect()
    }

    /// Lifts what stands against a source at both doors; false when nothing did.
    pub(in crate::edge::web) async fn lift_bans(&self, asker: Asker, source: IpAddr) -> bool {
        let name = asker.name.clone();
        let by_sip = matches!(self.handle.ask(asker, Ask::LiftBans(source)).await, Answer::Done);
        let at_web = self.guard().lift(source, clock::now().mono_ms) > 0;
        if by_sip || at_web {
            tracing::info!(%source, by = %name, "its bans are lifted");
        }
        by_sip || at_web
    }
}
