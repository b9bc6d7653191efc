//! The API's calls that look at the board or ask the engine.
//!
//! Invariant: an operator sees and steers only what is on his own desk; what is somebody else's
//! answers exactly like what does not exist.

mod bans;
mod calls;
mod cards;
mod people;

use std::str::FromStr;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::edge::web::Web;
use crate::edge::web::problem::Problem;
use crate::engine::desk::{Answer, Ask, Asker};

/// All of them, below `/api/v1`.
pub(super) fn routes() -> Router<Web> {
    calls::routes().merge(cards::routes()).merge(people::routes()).merge(bans::routes())
}

impl Web {
    /// Asks the engine; a refusal becomes a problem.
    async fn ask(&self, asker: Asker, ask: Ask) -> Result<Answer, Problem> {
        match self.handle.ask(asker, ask).await {
            Answer::Refused(refusal) => Err(refusal.into()),
            done @ (Answer::Done | Answer::Call(_) | Answer::Accepted(_) | Answer::Bans(_)) => Ok(done),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use reqwest::Method;

    use super::*;
    use crate::edge::sip::ws::Patience;
    use crate::edge::web::testing::{Site, call, card, card_of, dialled_by};
    use crate::engine::desk::Refusal;
    use crate::fact::OperatorState;
    use crate::terms::OperatorName;

    #[tokio::test]
    async fn the_matrix_of_roles_holds() {
        let site = Site::start().await;
        site.handle.fold_for_test(&dialled_by(1, "anna"));
        site.handle.fold_for_test(&card_of(1, "anna"));
        let people =
            [String::new(), site.cookie("boris").await, site.cookie("anna").await, site.cookie("vera").await];
        let (call, card) = (call(1), card(1));
        let fields = r#"{"fields":{"pickup":"Main st 1"}}"#;
        // Columns: nobody, another operator, the operator, a supervisor.
        let rows = [
            (Method::GET, "/calls".to_owned(), "", [401, 200, 200, 200]),
            (Method::GET, format!("/calls/{call}"), "", [401, 404, 200, 200]),
            (Method::GET, "/calls/../../etc".to_owned(), "", [404, 404, 404, 404]),
            (Method::GET, "/calls/1".to_owned(), "", [401, 404, 404, 404]),
            (Method::POST, format!("/calls/{call}/hold"), "", [401, 404, 204, 204]),
            (Method::POST, format!("/calls/{call}/resume"), "", [401, 404, 204, 204]),
            (Method::POST, format!("/calls/{call}/dtmf"), r#"{"digits":"12#"}"#, [401, 404, 204, 204]),
            (Method::POST, format!("/calls/{call}/dtmf"), r#"{"digits":"x"}"#, [401, 404, 400, 400]),
            (Method::POST, format!("/calls/{call}/hangup"), "{}", [401, 404, 204, 204]),
            (Method::PUT, format!("/cards/{card}"), fields, [401, 404, 204, 204]),
            (Method::PUT, format!("/cards/{card}"), r#"{"fields":{"price":"1"}}"#, [401, 404, 400, 400]),
            (Method::POST, format!("/cards/{card}/submit"), fields, [401, 404, 200, 200]),
            (Method::POST, format!("/cards/{card}/discard"), r#"{"reason":"fake"}"#, [401, 404, 204, 204]),
            (Method::POST, format!("/cards/{card}/discard"), r#"{"reason":" "}"#, [401, 404, 400, 400]),
            (Method::PUT, "/me/state".to_owned(), r#"{"state":"available"}"#, [401, 204, 204, 204]),
            (Method::PUT, "/me/state".to_owned(), r#"{"auto_answer":false}"#, [401, 204, 204, 204]),
            (Method::PUT, "/me/state".to_owned(), r#"{"state":"talking"}"#, [401, 400, 400, 400]),
            (Method::PUT, "/me/state".to_owned(), "{}", [401, 400, 400, 400]),
            (Method::PUT, "/operators/anna/state".to_owned(), r#"{"state":"paused"}"#, [401, 403, 403, 204]),
            (
                Method::PUT,
                "/operators/nobody/state".to_owned(),
                r#"{"state":"paused"}"#,
                [401, 403, 403, 404],
            ),
            (Method::POST, "/calls".to_owned(), r#"{"to":""}"#, [401, 400, 400, 400]),
            (Method::GET, "/queues".to_owned(), "", [401, 200, 200, 200]),
            (Method::GET, "/operators".to_owned(), "", [401, 200, 200, 200]),
            (Method::GET, "/trunks".to_owned(), "", [401, 200, 200, 200]),
            (Method::GET, "/orders?phone=%2B380671234567".to_owned(), "", [401, 200, 200, 200]),
            (Method::GET, "/orders?phone=x".to_owned(), "", [401, 400, 400, 400]),
            (Method::GET, "/outbox".to_owned(), "", [401, 403, 403, 200]),
            (Method::GET, "/history".to_owned(), "", [401, 403, 403, 200]),
            (
                Method::GET,
                "/history?from=2026-03-01&to=2026-03-02&result=answered&page=2".to_owned(),
                "",
                [401, 403, 403, 200],
            ),
            (Method::GET, "/history?from=yesterday".to_owned(), "", [401, 403, 403, 400]),
            (Method::GET, "/history?number=%27%20OR%201=1--".to_owned(), "", [401, 403, 403, 200]),
            (Method::GET, "/history?result=wonderful".to_owned(), "", [401, 403, 403, 400]),
            (Method::GET, "/history.csv".to_owned(), "", [401, 403, 403, 200]),
            (Method::PATCH, "/calls".to_owned(), "", [405, 405, 405, 405]),
            (Method::GET, "/nothing".to_owned(), "", [404, 404, 404, 404]),
        ];
        for (method, path, body, expected) in rows {
            for (cookie, status) in people.iter().zip(expected) {
                let request = site.request(method.clone(), &format!("/api/v1{path}"), cookie, body);
                let response = request.send().await.unwrap();
                assert_eq!(response.status().as_u16(), status, "{method} {path} {body} as {cookie:?}");
                let headers = response.headers();
                assert_eq!(headers["x-content-type-options"], "nosniff");
                if status >= 400 && path != "/calls/../../etc" {
                    assert_eq!(headers["content-type"], "application/problem+json", "{method} {path}");
                    assert_eq!(headers["cache-control"], "no-store");
                }
            }
        }
    }

    #[tokio::test]
    async fn the_engine_is_asked_what_was_said_and_its_refusal_is_worded() {
        let site = Site::with(Patience::default(), |asker, ask| {
            if let Ask::SubmitCard { card, .. } = ask {
                return Answer::Accepted(*card);
            }
            let Ask::Dial { to, .. } = ask else { return Answer::Done };
            if to == "+380671234567" {
                return Answer::Call(call(7));
            }
            Answer::Refused(Refusal::new(409, format!("{} is talking.", asker.name)))
        })
        .await;
        site.handle.fold_for_test(&card_of(1, "anna"));
        let anna = site.cookie("anna").await;
        let vera = site.cookie("vera").await;
        let dial = |to: &str| serde_json::json!({ "to": to, "trunk": "gsm-1" }).to_string();
        let (status, made) = site.ask(Method::POST, "/api/v1/calls", &anna, &dial(" +380671234567 ")).await;
        assert_eq!((status.as_u16(), made["id"].as_str().unwrap()), (201, &*call(7).to_string()));
        let (status, problem) = site.ask(Method::POST, "/api/v1/calls", &anna, &dial("102")).await;
        assert_eq!((status.as_u16(), problem["detail"].as_str().unwrap()), (409, "anna is talking."));
        let (status, _) = site.ask(Method::POST, "/api/v1/calls", &anna, r#"{"to":"1","from":"2"}"#).await;
        assert_eq!(status.as_u16(), 400, "what is not offered is not ignored");
        let submit = format!("/api/v1/cards/{}/submit", card(1));
        let (_, accepted) = site.ask(Method::POST, &submit, &anna, "{}").await;
        assert_eq!((&accepted["id"], &accepted["state"]), (&card(1).to_string().into(), &"accepted".into()));
        let body = r#"{"state":"paused","reason":"lunch"}"#;
        site.ask(Method::PUT, "/api/v1/operators/anna/state", &vera, body).await;
        let (asker, ask) = site.asked().pop().unwrap();
        assert_eq!(asker, Asker { name: "vera".into(), role: crate::engine::desk::Role::Supervisor });
        let operator = OperatorName::from("anna");
        let (state, reason) = (Some(OperatorState::Paused), "lunch".to_owned());
        assert_eq!(ask, Ask::SetState { operator, state, reason, auto_answer: None });
    }

    #[tokio::test]
    async fn an_operator_sees_his_own_calls_only() {
        let site = Site::start().await;
        site.handle.fold_for_test(&dialled_by(1, "anna"));
        site.handle.fold_for_test(&dialled_by(2, "boris"));
        for (name, expected) in [("anna", 1), ("boris", 1), ("vera", 2)] {
            let cookie = site.cookie(name).await;
            let (_, calls) = site.ask(Method::GET, "/api/v1/calls", &cookie, "").await;
            assert_eq!(calls.as_array().unwrap().len(), expected, "{name}");
        }
    }
}
