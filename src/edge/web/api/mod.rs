//! The API's calls that look at the board or ask the engine.
//!
//! Invariant: an operator sees and steers only what is on his own desk; what is somebody else's
//! answers exactly like what does not exist.

mod calls;
mod cards;
mod people;

use std::str::FromStr;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::edge::web::Web;
use crate::edge::web::problem::Problem;
use crate::engine::desk::{Answer, Asker, Ask};

/// All of them, below `/api/v1`.
pub fn routes() -> Router<Web> {
    calls::routes().merge(cards::routes()).merge(people::routes())
}

impl Web {
    /// Asks the engine; a refusal becomes a problem.
    async fn ask(&self, asker: Asker, ask: Ask) -> Result<Answer, Problem> {
        match self.handle.ask(asker, ask).await {
            Answer::Refused(refusal) => Err(refusal.into()),
            done @ (Answer::Done | Answer::Call(_) | Answer::Accepted(_)) => Ok(done),
        }
    }

    /// Asks the engine for something that has no result to show.
    async fn tell(&self, asker: Asker, ask: Ask) -> Result<Response, Problem> {
        self.ask(asker, ask).await.map(|_| StatusCode::NO_CONTENT.into_response())
    }
}

/// An id of a path; what is none does not exist.
fn id<T: FromStr>(text: &str, what: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| Problem::not_found(what))
}
