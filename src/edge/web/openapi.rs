//! `/api/v1/openapi.json`: what the API offers, for programs.
//!
//! Invariant: it names exactly the calls that the router has; a test holds the two together.

use axum::http::header;
use axum::response::IntoResponse;

/// Written by hand.
const PAGE: &str = include_str!("openapi.json");

/// The page.
pub(super) async fn serve() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], PAGE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::collections::BTreeSet;

    use reqwest::Method;
    use serde_json::Value;

    use super::*;
    use crate::edge::web::testing::Site;

    /// The files that build the router of the API.
    const SOURCES: [&str; 7] = [
        include_str!("mod.rs"),
        include_str!("session.rs"),
        include_str!("history.rs"),
        include_str!("api/bans.rs"),
        include_str!("api/calls.rs"),
        include_str!("api/cards.rs"),
        include_str!("api/people.rs"),
    ];
    const METHODS: [&str; 5] = ["get", "post", "put", "delete", "patch"];
    /// Routes that are no calls of the API.
    const BESIDE: [&str; 4] = ["/sip", "/healthz", "/readyz", "/metrics"];

    /// `METHOD path` of each `.route("path", get(…).post(…))`.
    fn routes() -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for source in SOURCES {
            for line in source.split(".route(\"").skip(1) {
                let (path, rest) = line.split_once('"').unwrap();
                let end = rest.find('\n').unwrap_or(rest.len());
                for method in METHODS.iter().filter(|method| rest[..end].contains(&format!("{method}("))) {
                    if !BESIDE.contains(&path) {
                        found.insert(format!("{method} {path}"));
                    }
                }
            }
        }
        found
    }

    fn described() -> BTreeSet<String> {
        let page: Value = serde_json::from_str(PAGE).unwrap();
        let paths = page["paths"].as_object().unwrap();
        let calls = paths.iter().flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
        });
        calls.collect()
    }

    #[test]
    fn the_page_names_exactly_the_calls_of_the_router() {
        assert!(routes().len() > 20, "the scan found only {:?}", routes());
        assert_eq!(described(), routes());
    }

    #[tokio::test]
    async fn every_call_of_the_page_is_served_and_says_what_the_page_says() {
        let site = Site::start().await;
        for call in described() {
            let (method, path) = call.split_once(' ').unwrap();
            let method: Method = method.to_uppercase().parse().unwrap();
            let (status, body) = site.ask(method, &format!("/api/v1{path}"), "", "").await;
            let detail = body["detail"].as_str().unwrap_or_default();
            let is_routed = !matches!(status.as_u16(), 404 | 405) && !detail.contains("openapi.json");
            assert!(is_routed, "{call}: {status} {detail}");
        }
    }

    #[test]
    fn every_reference_of_the_page_leads_somewhere() {
        let page: Value = serde_json::from_str(PAGE).unwrap();
        for part in PAGE.split("\"#/").skip(1) {
            let pointer = format!("/{}", part.split_once('"').unwrap().0);
            assert!(page.pointer(&pointer).is_some(), "{pointer}");
        }
    }
}
