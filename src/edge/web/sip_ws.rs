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
pub(super) const SOCKETS_PER_SOURCE: usize = 256;
/// Sockets in all.
const SOCKETS_MAX: usize = 8_192;

/// The open sockets, by source.
#[derive(Debug, Default, Clone)]
pub(super) struct Openings(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    by_source: DashMap<IpAddr, usize>,
    all: AtomicUsize,
}

/// One place among the open sockets; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    counts: Arc<Counts>,
    source: IpAddr,
}

impl Openings {
    /// A place for one more socket of `source`; `None` if it, or everybody together, has too many.
    pub(super) fn take(&self, source: IpAddr) -> Option<Place> {
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

    /// Sockets that are open.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.0.all.load(Ordering::Relaxed)
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
pub(super) async fn open(
    State(web): State<Web>,
    Peer(peer): Peer,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade =
        upgrade.map_err(|_| Problem::bad("This address takes WebSockets with the subprotocol `sip`."))?;
    if !web.fence.may_open_socket(&headers) {
        return Err(Problem::not_allowed(
            "Another site's page may not use this phone line; see web.allowed_origins.",
        ));
    }
    let upgrade = upgrade.protocols([SUBPROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        return Err(Problem::bad("Ask for the WebSocket subprotocol `sip` (RFC 7118)."));
    }
    let source = web.fence.source(peer, &headers);
    let words = "Too many phone lines from this address are open.";
    let place =
        web.openings.take(source).ok_or_else(|| Problem::new(StatusCode::TOO_MANY_REQUESTS, words))?;
    let line = Line {
        remote: SocketAddr::new(source, peer.port()),
        local: web.settings.local,
        secure: web.settings.secure,
    };
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
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::SinkExt as _;
    use tokio_tungstenite::tungstenite::Message;

    use super::*;
    use crate::edge::sip::ws::Patience;
    use crate::edge::web::testing::{Site, closed, next, refused};
    use crate::engine::desk::Answer;
    use crate::sip::Input;

    #[test]
    fn one_source_has_a_bounded_number_of_sockets_and_gets_them_back() {
        let openings = Openings::default();
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let mut places: Vec<Place> =
            (0..SOCKETS_PER_SOURCE).map(|_| openings.take(source).unwrap()).collect();
        assert!(openings.take(source).is_none());
        assert!(openings.take("192.0.2.2".parse().unwrap()).is_some());
        places.pop();
        assert!(openings.take(source).is_some());
        drop(places);
        assert!(openings.0.by_source.is_empty());
        assert_eq!(openings.0.all.load(Ordering::Relaxed), 0);
    }

    const SIP: (&str, &str) = ("sec-websocket-protocol", "sip");

    #[tokio::test]
    async fn only_our_own_page_with_the_subprotocol_gets_a_phone_line() {
        let site = Site::start().await;
        let own = format!("http://{}", site.address);
        assert!(site.socket("/sip", &[SIP, ("origin", &own)]).await.is_ok());
        assert!(site.socket("/sip", &[SIP]).await.is_ok());
        for origin in ["http://evil.example", "null", "http://127.0.0.1.evil.example"] {
            assert_eq!(refused(site.socket("/sip", &[SIP, ("origin", origin)]).await), 403, "{origin}");
        }
        assert_eq!(refused(site.socket("/sip", &[]).await), 400);
        assert_eq!(refused(site.socket("/sip", &[("sec-websocket-protocol", "chat")]).await), 400);
        let (status, _) = site.ask(reqwest::Method::GET, "/sip", "", "").await;
        assert_eq!(status.as_u16(), 400);
    }

    #[tokio::test]
    async fn a_frame_is_a_message_both_ways_and_keep_alives_are_answered() {
        let mut site = Site::start().await;
        let mut socket = site.socket("/sip", &[SIP]).await.unwrap();
        socket.send(Message::text("OPTIONS sip:a SIP/2.0\r\n\r\n")).await.unwrap();
        let Some(Input::Received { path, bytes }) = site.heard.recv().await else {
            panic!("no message came")
        };
        assert!(bytes.starts_with(b"OPTIONS"));
        assert!(path.is_reliable());
        let flow = path.flow().unwrap();
        assert!(site.handle.send_to(flow, Bytes::from_static(b"SIP/2.0 200 OK\r\n\r\n")));
        assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::text("SIP/2.0 200 OK\r\n\r\n"));
        socket.send(Message::text("\r\n\r\n")).await.unwrap();
        assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::text("\r\n"));
        socket.send(Message::binary(&b"ACK sip:a SIP/2.0\r\n\r\n\xff"[..])).await.unwrap();
        assert!(matches!(site.heard.recv().await, Some(Input::Received { .. })));
        socket.close(None).await.unwrap();
        assert!(matches!(site.heard.recv().await, Some(Input::FlowClosed(gone)) if gone == flow));
        assert!(!site.handle.send_to(flow, Bytes::new()), "a closed flow takes nothing");
    }

    #[tokio::test]
    async fn a_message_over_64_kib_closes_with_1009_and_the_largest_one_passes() {
        let mut site = Site::start().await;
        let mut socket = site.socket("/sip", &[SIP]).await.unwrap();
        socket.send(Message::binary(vec![b'x'; MESSAGE_MAX_BYTES])).await.unwrap();
        assert!(matches!(site.heard.recv().await, Some(Input::Received { .. })));
        socket.send(Message::binary(vec![b'x'; MESSAGE_MAX_BYTES + 1])).await.unwrap();
        assert_eq!(closed(&mut socket).await, 1009);
        let mut socket = site.socket("/sip", &[SIP]).await.unwrap();
        socket.send(Message::binary(vec![b'x'; MESSAGE_MAX_BYTES * 3])).await.unwrap();
        assert_eq!(closed(&mut socket).await, 1009);
    }

    #[tokio::test]
    async fn a_silent_socket_is_closed_and_one_that_does_not_answer_pings_too() {
        let patience = Patience { first: Duration::from_millis(100), ping: Duration::from_secs(60) };
        let site = Site::with(patience, |_, _| Answer::Done).await;
        let mut socket = site.socket("/sip", &[SIP]).await.unwrap();
        assert_eq!(closed(&mut socket).await, 1008);
        let patience = Patience { first: Duration::from_secs(60), ping: Duration::from_millis(20) };
        let mut site = Site::with(patience, |_, _| Answer::Done).await;
        // Never read from: its pings stay unanswered.
        let _mute = site.socket("/sip", &[SIP]).await.unwrap();
        assert!(matches!(site.heard.recv().await, Some(Input::FlowClosed(_))));
    }
}
