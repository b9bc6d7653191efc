//! Refusals as the API words them: `application/problem+json` (RFC 9457).
//!
//! Invariant: every refusal says in words what to do next, and none says what exists.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::edge::web::readable::sentence;
use crate::engine::desk::Refusal;

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    words: String,
    retry_after_s: Option<u64>,
}

/// Its JSON (RFC 9457 section 3.1).
#[derive(Serialize)]
struct Shape<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    /// A refusal with these words.
    pub(super) fn new(status: StatusCode, words: impl Into<String>) -> Self {
        Self { status, words: words.into(), retry_after_s: None }
    }

    /// 400.
    pub(super) fn bad(words: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, words)
    }

    /// 401: nobody is logged in.
    pub(super) fn logged_out() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Log in first: POST /api/v1/session.")
    }

    /// 403 for a role that may not.
    pub(super) fn not_allowed(words: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, words)
    }

    /// 404, the same for what does not exist and what somebody else's is.
    pub(super) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("No such {what}, or it is not yours."))
    }

    /// 429 with the time to wait.
    pub(super) fn too_many(wait_s: u64) -> Self {
        let words = format!("Too many failed log-ins. Wait {wait_s} seconds, or ask a supervisor.");
        Self { status: StatusCode::TOO_MANY_REQUESTS, words, retry_after_s: Some(wait_s) }
    }

    /// 503: something behind us does not answer.
    pub(super) fn away(what: &str) -> Self {
        let words = format!("{what} does not answer. Try again in a few seconds.");
        Self { status: StatusCode::SERVICE_UNAVAILABLE, words, retry_after_s: Some(5) }
    }

    #[cfg(test)]
    fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::CONFLICT);
        Self::new(status, refusal.words)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Refused");
        let shape = Shape { r#type: "about:blank", title, status: self.status.as_u16(), detail: &self.words };
        let mut response = (self.status, Json(shape)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait_s) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait_s));
        }
        response
    }
}

/// A JSON body; what is wrong with it comes back as a [`Problem`].
#[derive(Debug)]
pub(super) struct Sent<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(JsonRejection::MissingJsonContentType(_)) => Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Send the body as JSON with Content-Type: application/json.",
            )),
            Err(JsonRejection::BytesRejection(rejection)) => Err(Problem::new(
                rejection.status(),
                "The body could not be read: at most 64 KiB of JSON are taken.",
            )),
            Err(rejection) => Err(Problem::bad(sentence(&rejection.body_text()))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn a_problem_carries_its_type_its_words_and_the_wait() {
        let response = Problem::too_many(30).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "30");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let body = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["status"], 429);
        assert!(value["detail"].as_str().unwrap().contains("30 seconds"));
    }

    #[test]
    fn an_engine_refusal_keeps_its_status_and_words() {
        let problem = Problem::from(Refusal::new(409, "He is talking."));
        assert_eq!((problem.status().as_u16(), problem.words.as_str()), (409, "He is talking."));
        assert_eq!(Problem::from(Refusal::new(9, "x")).status(), StatusCode::CONFLICT);
    }
}
