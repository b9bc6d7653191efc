//! `/api/v1/openapi.json`: what the API offers, for programs.
//!
//! Invariant: it names exactly the calls that the router has; a test holds the two together.

use axum::http::header;
use axum::response::IntoResponse;

/// Written by hand.
const PAGE: &str = include_str!("openapi.json");

/// The page.
pub async fn serve() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], PAGE)
}
