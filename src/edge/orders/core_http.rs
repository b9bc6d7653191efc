//! The embedded order core: the same words as any other core, on the same store.
//!
//! The courier calls [`accept`] in process; programs call the [`router`] with a Bearer token. Invariant:
//! without a configured token no request from the network is answered with anything but a refusal.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use subtle::ConstantTimeEq;

use crate::edge::store::{CoreAnswer, Store, StoreError};
use crate::fact::Fields;
use crate::orders::core::{CallMessage, DiscardMessage, OrderMessage};
use crate::terms::Secret;

/// Bytes of a request's body.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// Characters of an idempotency key.
const MAX_KEY_CHARS: usize = 200;

/// An answer, as HTTP says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// JSON.
    pub body: String,
}

impl Reply {
    fn problem(status: u16, title: &str, detail: &str) -> Self {
        let body =
            serde_json::json!({"type": "about:blank", "title": title, "status": status, "detail": detail});
        Self { status, body: body.to_string() }
    }

    fn of_answer(answer: Result<CoreAnswer, StoreError>, fresh_status: u16) -> Self {
        let (status, order) = match answer {
            Ok(CoreAnswer::Done(order)) => (fresh_status, order),
            Ok(CoreAnswer::Again(order)) => (200, order),
            Ok(CoreAnswer::Unknown) => return Self::problem(404, "unknown order", "there is no such order"),
            Err(error) => return Self::away(&error),
        };
        match serde_json::to_string(&order) {
            Ok(body) => Self { status, body },
            Err(error) => Self::problem(500, "order does not print", &error.to_string()),
        }
    }

    /// The asker keeps his letter and comes again.
    fn away(error: &StoreError) -> Self {
        tracing::warn!(%error, "the embedded order core cannot reach its store");
        Self::problem(503, "store unavailable", "try again with the same key")
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = if status.is_success() { "application/json" } else { "application/problem+json" };
        let mut response = (status, self.body).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

/// Takes in a letter: `path` is `/calls` or `/orders`.
pub async fn accept(store: &Store, path: &str, key: &str, body: &[u8]) -> Reply {
    match path {
        "/orders" => match parse::<OrderMessage>(body) {
            Ok(message) => Reply::of_answer(store.core_create(key, &message).await, 201),
            Err(reply) => reply,
        },
        "/calls" => match parse::<CallMessage>(body) {
            Ok(message) => match store.core_call(key, &message).await {
                Ok(fresh) => Reply { status: if fresh { 201 } else { 200 }, body: "{}".to_owned() },
                Err(error) => Reply::away(&error),
            },
            Err(reply) => reply,
        },
        other => Reply::problem(404, "unknown path", other),
    }
}

/// What is known of a caller, as JSON; `None` when the store does not answer.
pub async fn customer(store: &Store, phone: &str) -> Option<String> {
    match store.core_customer(phone).await {
        Ok(customer) => serde_json::to_string(&customer).ok(),
        Err(error) => {
            tracing::warn!(%error, "a customer could not be looked up");
            None
        }
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Reply> {
    serde_json::from_slice(body).map_err(|error| {
        let (status, title) = if error.is_data() { (422, "message does not fit") } else { (400, "not JSON") };
        Reply::problem(status, title, &error.to_string())
    })
}

/// The core on the network, at `/core/v1`.
pub fn router(store: Store, token: Secret<String>) -> Router {
    Router::new()
        .route("/core/v1/calls", post(post_call))
        .route("/core/v1/orders", post(post_order))
        .route("/core/v1/orders/{id}", patch(patch_order))
        .route("/core/v1/orders/{id}/discard", post(discard_order))
        .route("/core/v1/customers", get(show_customer))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(token, authorise))
        .with_state(store)
}

async fn authorise(State(token): State<Secret<String>>, request: Request, next: Next) -> Response {
    if token.expose().is_empty() {
        let detail = "orders.token is empty: the embedded core answers in process only";
        return Reply::problem(403, "closed", detail).into_response();
    }
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if !bool::from(given.as_bytes().ct_eq(token.expose().as_bytes())) {
        let mut response = Reply::problem(401, "unauthorised", "a Bearer token is needed").into_response();
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    next.run(request).await
}

fn key(headers: &HeaderMap) -> Result<&str, Reply> {
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if key.is_empty() || key.chars().count() > MAX_KEY_CHARS {
        let detail = format!("a header Idempotency-Key of 1 to {MAX_KEY_CHARS} characters is needed");
        return Err(Reply::problem(400, "no key", &detail));
    }
    Ok(key)
}

async fn post_call(State(store): State<Store>, headers: HeaderMap, body: Bytes) -> Reply {
    match key(&headers) {
        Ok(key) => accept(&store, "/calls", key, &body).await,
        Err(reply) => reply,
    }
}

async fn post_order(State(store): State<Store>, headers: HeaderMap, body: Bytes) -> Reply {
    match key(&headers) {
        Ok(key) => accept(&store, "/orders", key, &body).await,
        Err(reply) => reply,
    }
}

async fn patch_order(
    State(store): State<Store>,
    Path(id): Path<i64>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Reply, Reply> {
    let (key, fields) = (key(&headers)?, parse::<Fields>(&body)?);
    Ok(Reply::of_answer(store.core_patch(id, key, &fields).await, 200))
}

async fn discard_order(
    State(store): State<Store>,
    Path(id): Path<i64>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Reply, Reply> {
    // Discarding twice is discarding: the order itself serves as key where none is given.
    let own = format!("{id}:discard");
    let key = key(&headers).unwrap_or(&own);
    let message = if body.is_empty() { DiscardMessage::default() } else { parse(&body)? };
    Ok(Reply::of_answer(store.core_discard(id, key, &message.reason).await, 200))
}

#[derive(Deserialize)]
struct Phone {
    phone: String,
}

async fn show_customer(State(store): State<Store>, Query(Phone { phone }): Query<Phone>) -> Response {
    match store.core_customer(&phone).await {
        Ok(customer) => Json(customer).into_response(),
        Err(error) => Reply::away(&error).into_response(),
    }
}
