//! `GET /events`: the live feed of desks, wallboards and programs.
//!
//! Invariant: events are shared by all readers, none is copied for a slow one; a reader who falls
//! behind by [`BEHIND_MAX`] events, or takes no byte for [`SEND_WITHIN`], loses his socket and comes
//! back by himself with `?after=`. Whoever is logged out loses it too.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::edge::clock;
use crate::edge::web::Web;
use crate::edge::web::problem::Problem;
use crate::edge::web::who::{Peer, Who, token};
use crate::report::{At, Event, Since, Viewer};

/// Events that a reader may be behind.
pub const BEHIND_MAX: usize = 2_000;
/// A reader that takes no byte for so long does not read.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// How old a screen's data may look before it knows that the line is dead.
const PING_EVERY: Duration = Duration::from_secs(2);
/// How often the store is asked whether the session still lives (which also keeps it alive), in pings.
const SESSION_EVERY_PINGS: u32 = 30;
/// Readers have nothing to say.
const INCOMING_MAX_BYTES: usize = 4 * 1024;

/// What is asked for.
#[derive(Debug, Deserialize)]
pub struct Wanted {
    /// The last event that the reader knows.
    after: Option<u64>,
}

/// Opens the feed.
pub async fn open(
    State(web): State<Web>,
    who: Who,
    Peer(peer): Peer,
    headers: HeaderMap,
    Query(wanted): Query<Wanted>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|_| Problem::bad("This address takes WebSockets only."))?;
    if !web.fence.may_open_socket(&headers) {
        return Err(Problem::not_allowed("Another site's page may not read this feed; see web.allowed_origins."));
    }
    let words = "Too many sockets from this address are open.";
    let place = web.openings.take(web.fence.source(peer, &headers));
    let place = place.ok_or_else(|| Problem::new(StatusCode::TOO_MANY_REQUESTS, words))?;
    let cookie = token(&headers).unwrap_or_default().to_owned();
    let upgrade = upgrade.max_message_size(INCOMING_MAX_BYTES).max_frame_size(INCOMING_MAX_BYTES);
    Ok(upgrade.on_upgrade(move |mut socket| async move {
        // Subscribed before the snapshot is taken: nothing falls between the two.
        let events = web.handle.events();
        let viewer = who.viewer();
        let mut feed = Feed { web: &web, viewer, session: who.session.id, cookie, last: 0 };
        if let Some((code, words)) = feed.run(&mut socket, events, wanted.after).await {
            let frame = CloseFrame { code, reason: words.into() };
            // The reader may be gone: then nobody is left to be told.
            if timeout(SEND_WITHIN, socket.send(Message::Close(Some(frame)))).await.is_err() {
                tracing::debug!(words, "a reader of events did not even take the farewell");
            }
        }
        drop(place);
    }))
}

/// Why we close, as code (RFC 6455 section 7.4.1) and words; `None` where the reader did.
type Farewell = Option<(u16, &'static str)>;

const TOO_SLOW: Farewell = Some((close_code::AGAIN, "too slow: come back with ?after="));
const LOGGED_OUT: Farewell = Some((close_code::POLICY, "logged out"));

struct Feed<'a> {
    web: &'a Web,
    viewer: Viewer,
    session: String,
    cookie: String,
    /// The last event that the reader got or may not see.
    last: u64,
}

impl Feed<'_> {
    async fn run(&mut self, socket: &mut WebSocket, mut events: Receiver<Arc<Event>>, after: Option<u64>) -> Farewell {
        if let Err(farewell) = self.begin(socket, after).await {
            return farewell;
        }
        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pings: u32 = 0;
        loop {
            let done = tokio::select! {
                event = events.recv() => match event {
                    Ok(_) if events.len() > BEHIND_MAX => Err(TOO_SLOW),
                    Ok(event) => self.pass(socket, &event).await,
                    Err(RecvError::Lagged(_)) => Err(TOO_SLOW),
                    Err(RecvError::Closed) => Err(Some((close_code::AWAY, "Tandem stops"))),
                },
                _ = ping.tick() => {
                    pings = pings.wrapping_add(1);
                    self.ping(socket, pings).await
                }
                frame = socket.recv() => match frame {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => Err(None),
                    Some(Ok(Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => Ok(()),
                },
            };
            if let Err(farewell) = done {
                return farewell;
            }
        }
    }

    /// What the reader missed, or a snapshot.
    async fn begin(&mut self, socket: &mut WebSocket, after: Option<u64>) -> Result<(), Farewell> {
        if let Some(after) = after
            && let Since::Events(missed) = self.web.handle.replay(after)
        {
            self.last = after;
            for event in missed {
                self.pass(socket, &event).await?;
            }
            return Ok(());
        }
        let (seq, snapshot) = self.web.handle.snapshot(&self.viewer, clock::now().wall_ms);
        self.last = seq;
        send(socket, snapshot.into()).await
    }

    async fn pass(&mut self, socket: &mut WebSocket, event: &Event) -> Result<(), Farewell> {
        if event.seq <= self.last {
            return Ok(());
        }
        self.last = event.seq;
        if !self.viewer.is_in(&event.audience) {
            return Ok(());
        }
        send(socket, event.json.as_ref().into()).await
    }

    async fn ping(&mut self, socket: &mut WebSocket, pings: u32) -> Result<(), Farewell> {
        if self.web.has_parted(&self.session) {
            return Err(LOGGED_OUT);
        }
        let now = clock::now().wall_ms;
        if pings.is_multiple_of(SESSION_EVERY_PINGS)
            && let Ok(None) = self.web.handle.store().session(&self.cookie, now).await
        {
            return Err(LOGGED_OUT);
        }
        send(socket, format!("{{\"type\":\"ping\",\"at\":\"{}\"}}", At(now)).into()).await
    }
}

async fn send(socket: &mut WebSocket, text: Utf8Bytes) -> Result<(), Farewell> {
    match timeout(SEND_WITHIN, socket.send(Message::Text(text))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(None),
        Err(_) => Err(TOO_SLOW),
    }
}
