//! `GET /sip`: opens the WebSocket of a browser's phone (RFC 7118).
//!
//! Invariant: no page of another site gets a socket, and one address has a bounded number of them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use dashmap::DashMap;

use crate::edge::sip::MESSAGE_MAX_BYTES;
use crate::edge::sip::ws::{Line, carry};
use crate::edge::web::Web;
use crate::edge::web::problem::Problem;
use crate::edge::web::who::Peer;

/// The subprotocol (RFC 7118 section 4.1).
const SUBPROTOCOL: &str = "sip";
/// Sockets of one source address: an office behind one address has many desks.
pub const SOCKETS_PER_SOURCE: usize = 256;
/// Sockets in all.
const SOCKETS_MAX: usize = 8_192;

/// The open sockets, by source.
#[derive(Debug, Default, Clone)]
pub struct Openings(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    by_source: DashMap<IpAddr, usize>,
    all: AtomicUsize,
}

/// One place among the open sockets; given back when dropped.
#[derive(Debug)]
pub struct Place {
    counts: Arc<Counts>,
    source: IpAddr,
}

impl Openings {
    /// A place for one more socket of `source`; `None` if it, or everybody together, has too many.
    pub fn take(&self, source: IpAddr) -> Option<Place> {
        if self.0.all.load(Ordering::Relaxed) >= SOCKETS_MAX {
            return None;
        }
        let mut count = self.0.by_source.entry(source).or_insert(0);
        if *count >= SOCKETS_PER_SOURCE {
            return None;
        }
        *count += 1;
        self.0.all.fetch_add(1, Ordering::Relaxed);
        Some(Place { counts: Arc::clone(&self.0), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut count) = self.counts.by_source.get_mut(&self.source) {
            *count = count.saturating_sub(1);
        }
        self.counts.by_source.remove_if(&self.source, |_, count| *count == 0);
        self.counts.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Opens one.
pub async fn open(
    State(web): State<Web>,
    Peer(peer): Peer,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|_| Problem::bad("This address takes WebSockets with the subprotocol `sip`."))?;
    if !web.fence.may_open_socket(&headers) {
        return Err(Problem::not_allowed("Another site's page may not use this phone line; see web.allowed_origins."));
    }
    let upgrade = upgrade.protocols([SUBPROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        return Err(Problem::bad("Ask for the WebSocket subprotocol `sip` (RFC 7118)."));
    }
    let source = web.fence.source(peer, &headers);
    let words = "Too many phone lines from this address are open.";
    let place = web.openings.take(source).ok_or_else(|| Problem::new(StatusCode::TOO_MANY_REQUESTS, words))?;
    let line = Line { remote: SocketAddr::new(source, peer.port()), local: web.settings.local, secure: web.settings.secure };
    // Twice the limit is still read, so that a message a little over it can be told so (1009).
    let upgrade = upgrade.max_message_size(MESSAGE_MAX_BYTES * 2).max_frame_size(MESSAGE_MAX_BYTES * 2);
    Ok(upgrade.on_upgrade(move |socket| async move {
        carry(socket, line, web.patience, web.handle.clone(), web.metrics.clone()).await;
        drop(place);
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn one_source_has_a_bounded_number_of_sockets_and_gets_them_back() {
        let openings = Openings::default();
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let mut places: Vec<Place> = (0..SOCKETS_PER_SOURCE).map(|_| openings.take(source).unwrap()).collect();
        assert!(openings.take(source).is_none());
        assert!(openings.take("192.0.2.2".parse().unwrap()).is_some());
        places.pop();
        assert!(openings.take(source).is_some());
        drop(places);
        assert!(openings.0.by_source.is_empty());
        assert_eq!(openings.0.all.load(Ordering::Relaxed), 0);
    }
}
