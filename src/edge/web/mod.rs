//! The web of a node: screens, API, events, and the browsers' SIP, on one address.
//!
//! Invariant: nothing here decides about calls. A request is authenticated, its size and origin are
//! checked, and it becomes one question to the engine, one look at the board, or one query of the
//! store; every socket and every body has a named limit.

mod api;
mod assets;
pub mod control;
mod door;
mod events;
mod health;
mod history;
mod metrics_page;
mod openapi;
mod origin;
mod problem;
mod readable;
mod serve;
mod session;
mod sip_ws;
#[cfg(test)]
pub(crate) mod testing;
mod tls;
mod who;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::edge::driver::Handle;
use crate::edge::metrics::Metrics;
use crate::edge::sip::ws::Patience;
use crate::sip::Prefix;
use crate::sip::guard::{Guard, Rules};
use crate::terms::Secret;
use origin::Fence;
use problem::Problem;
use session::Sessions;
use sip_ws::Openings;

pub use serve::{Listening, listen};
pub use tls::server_config;

/// Largest request body, bytes.
pub const BODY_MAX_BYTES: usize = 64 * 1024;

/// Nothing inline, nothing from elsewhere, no frame around us.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; media-src 'self' blob:; \
     img-src 'self' data:; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// What the administrator decided about the web.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Realm and host of the operators' addresses of record.
    pub domain: String,
    /// Whether this node itself speaks TLS here.
    pub secure: bool,
    /// Where the listener is bound.
    pub local: SocketAddr,
    /// Origins besides our own.
    pub allowed_origins: Vec<String>,
    /// Proxies whose forwarding headers count.
    pub trusted_proxies: Vec<Prefix>,
    /// What failed log-ins lead to.
    pub guard: Rules,
    /// Keys the browsers' SIP passwords; the same on both nodes of a pair.
    pub pair_secret: Secret<[u8; 32]>,
    /// Where days begin and end in questions about history.
    pub time_zone: jiff::tz::TimeZone,
    /// Where SIP is served over UDP, for `/readyz`; `None` leaves that check out.
    pub sip_udp: Option<SocketAddr>,
}

/// Everything that a request may need. Clones share it.
#[derive(Clone)]
pub struct Web(Arc<Parts>);

/// What all clones of a [`Web`] share.
pub struct Parts {
    handle: Handle,
    metrics: Metrics,
    settings: Settings,
    fence: Fence,
    guard: Mutex<Guard>,
    sessions: Sessions,
    openings: Openings,
    patience: Patience,
}

impl std::fmt::Debug for Web {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Web")
    }
}

impl std::ops::Deref for Web {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Web {
    /// The web of one node.
    pub fn new(handle: Handle, metrics: Metrics, settings: Settings) -> Self {
        Self::with_patience(handle, metrics, settings, Patience::default())
    }

    fn with_patience(handle: Handle, metrics: Metrics, settings: Settings, patience: Patience) -> Self {
        let fence = Fence {
            allowed_origins: settings.allowed_origins.clone(),
            trusted_proxies: settings.trusted_proxies.clone(),
        };
        let guard = Mutex::new(Guard::new(settings.guard.clone()));
        Self(Arc::new(Parts {
            handle,
            metrics,
            fence,
            guard,
            sessions: Sessions::default(),
            openings: Openings::default(),
            patience,
            settings,
        }))
    }

    /// Who failed to log in at the web.
    fn guard(&self) -> MutexGuard<'_, Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All routes. `core` is the embedded order core with its routes below `/core/v1`.
pub fn router(web: Web, core: Option<Router>) -> Router {
    let api = api::routes()
        .merge(session::routes())
        .merge(history::routes())
        .route("/events", get(events::open))
        .route("/openapi.json", get(openapi::serve))
        .fallback(no_such_call)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(web.clone(), refuse_foreign_changes));
    let router = Router::new()
        .nest("/api/v1", api)
        .route("/sip", get(sip_ws::open))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics_page::serve))
        .fallback_service(get(assets::serve))
        .with_state(web);
    let router = match core {
        Some(core) => router.merge(core),
        None => router,
    };
    router.layer(DefaultBodyLimit::max(BODY_MAX_BYTES)).layer(from_fn(add_security_headers))
}

async fn no_such_call() -> Problem {
    Problem::not_found("call of the API; /api/v1/openapi.json lists them all")
}

async fn no_such_method() -> Problem {
    Problem::new(
        axum::http::StatusCode::METHOD_NOT_ALLOWED,
        "This address takes another method; see /api/v1/openapi.json.",
    )
}

async fn refuse_foreign_changes(State(web): State<Web>, request: Request, next: Next) -> Response {
    if web.fence.may_change(request.method(), request.headers()) {
        return next.run(request).await;
    }
    Problem::not_allowed(
        "Another site's page sent this. Open Tandem itself, or list the site in web.allowed_origins.",
    )
    .into_response()
}

async fn add_security_headers(request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (HeaderName::from_static("permissions-policy"), "microphone=(self), camera=(), geolocation=()"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if is_api {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    response
}
