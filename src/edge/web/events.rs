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
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::edge::clock;
use crate::edge::web::Web;
use crate::edge::web::problem::Problem;
use crate::edge::web::who::{Peer, Who, token};
use crate::report::{At, Event, Since, Viewer};

/// Events that a reader may be behind.
pub(super) const BEHIND_MAX: usize = 2_000;
/// A reader that takes no byte for so long does not read.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// How often a reader who is being sent to is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A farewell that is not taken within this time is not worth more.
const FAREWELL_WITHIN: Duration = Duration::from_secs(1);
/// How old a screen's data may look before it knows that the line is dead.
const PING_EVERY: Duration = Duration::from_secs(2);
/// How often the store is asked whether the session still lives (which also keeps it alive), in pings.
const SESSION_EVERY_PINGS: u32 = 30;
/// Readers have nothing to say.
const INCOMING_MAX_BYTES: usize = 4 * 1024;

/// What is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// The last event that the reader knows.
    after: Option<u64>,
}

/// Opens the feed.
pub(super) async fn open(
    State(web): State<Web>,
    who: Who,
    Peer(peer): Peer,
    headers: HeaderMap,
    Query(wanted): Query<Wanted>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|_| Problem::bad("This address takes WebSockets only."))?;
    if !web.fence.may_open_socket(&headers) {
        return Err(Problem::not_allowed(
            "Another site's page may not read this feed; see web.allowed_origins.",
        ));
    }
    let words = "Too many sockets from this address are open.";
    let place = web.openings.take(web.fence.source(peer, &headers));
    let place = place.ok_or_else(|| Problem::new(StatusCode::TOO_MANY_REQUESTS, words))?;
    let cookie = token(&headers).unwrap_or_default().to_owned();
    let upgrade = upgrade.max_message_size(INCOMING_MAX_BYTES).max_frame_size(INCOMING_MAX_BYTES);
    Ok(upgrade.on_upgrade(move |mut socket| async move {
        let viewer = who.viewer();
        // Subscribed before the snapshot is taken: nothing falls between the two.
        let events = web.handle.events();
        let mut feed = Feed { web: &web, viewer, session: who.session.id, cookie, last: 0 };
        if let Some((code, words)) = feed.run(&mut socket, events, wanted.after).await {
            let frame = CloseFrame { code, reason: words.into() };
            // The reader may be gone: then nobody is left to be told.
            if timeout(FAREWELL_WITHIN, socket.send(Message::Close(Some(frame)))).await.is_err() {
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
    async fn run(
        &mut self,
        socket: &mut WebSocket,
        mut events: Receiver<Arc<Event>>,
        after: Option<u64>,
    ) -> Farewell {
        if let Err(farewell) = self.begin(socket, after).await {
            return farewell;
        }
        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pings: u32 = 0;
        loop {
            let done = tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => tokio::select! {
                        passed = self.pass(socket, &event) => passed,
                        () = falls_behind(&events) => Err(TOO_SLOW),
                    },
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

    async fn ping(&self, socket: &mut WebSocket, pings: u32) -> Result<(), Farewell> {
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

/// Resolves once the reader is too far behind.
async fn falls_behind(events: &Receiver<Arc<Event>>) {
    while events.len() <= BEHIND_MAX {
        sleep(LOOK_EVERY).await;
    }
}

async fn send(socket: &mut WebSocket, text: Utf8Bytes) -> Result<(), Farewell> {
    match timeout(SEND_WITHIN, socket.send(Message::Text(text))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(None),
        Err(_) => Err(TOO_SLOW),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use reqwest::Method;
    use serde_json::Value;
    use tokio::net::TcpStream;
    use tokio_tungstenite::WebSocketStream;

    use crate::edge::web::testing::{Site, closed, dialled_by, fact, next, refused};
    use crate::fact::What;

    async fn message(socket: &mut WebSocketStream<TcpStream>) -> Value {
        loop {
            let text = next(socket).await.unwrap().unwrap().into_text().unwrap();
            let value: Value = serde_json::from_str(&text).unwrap();
            if value["type"] != "ping" {
                return value;
            }
        }
    }

    fn trunk_up() -> crate::fact::Fact {
        let mut fact = fact(9, What::NodeStarted { name: "t".into(), version: "1".into() });
        fact.call = None;
        fact
    }

    #[tokio::test]
    async fn a_feed_begins_with_a_snapshot_and_goes_on_where_a_reader_left() {
        let site = Site::start().await;
        let anna = site.cookie("anna").await;
        let mut socket = site.socket("/api/v1/events", &[("cookie", &anna)]).await.unwrap();
        let reset = message(&mut socket).await;
        assert_eq!((&reset["type"], &reset["seq"]), (&"reset".into(), &0.into()));
        site.handle.fold_for_test(&dialled_by(1, "anna"));
        let event = message(&mut socket).await;
        assert_eq!(event["type"], "call.arrived");
        let seq = event["seq"].as_u64().unwrap();
        drop(socket);
        site.handle.fold_for_test(&dialled_by(2, "anna"));
        let path = format!("/api/v1/events?after={seq}");
        let mut socket = site.socket(&path, &[("cookie", &anna)]).await.unwrap();
        let missed = message(&mut socket).await;
        assert_eq!((&missed["type"], missed["seq"].as_u64().unwrap()), (&"call.arrived".into(), seq + 1));
        let mut socket = site.socket("/api/v1/events?after=999999", &[("cookie", &anna)]).await.unwrap();
        assert_eq!(message(&mut socket).await["type"], "reset");
    }

    #[tokio::test]
    async fn an_operator_hears_of_his_own_calls_only_and_a_supervisor_of_all() {
        let site = Site::start().await;
        let (anna, vera) = (site.cookie("anna").await, site.cookie("vera").await);
        let mut of_anna = site.socket("/api/v1/events", &[("cookie", &anna)]).await.unwrap();
        let mut of_vera = site.socket("/api/v1/events", &[("cookie", &vera)]).await.unwrap();
        assert_eq!(message(&mut of_anna).await["type"], "reset");
        assert_eq!(message(&mut of_vera).await["type"], "reset");
        site.handle.fold_for_test(&dialled_by(1, "boris"));
        site.handle.fold_for_test(&trunk_up());
        assert_eq!(message(&mut of_vera).await["type"], "call.arrived");
        assert_eq!(message(&mut of_anna).await["type"], "node.role");
    }

    #[tokio::test]
    async fn a_stranger_a_foreign_page_and_a_logged_out_desk_get_no_feed() {
        let site = Site::start().await;
        let anna = site.cookie("anna").await;
        let path = "/api/v1/events";
        assert_eq!(refused(site.socket(path, &[]).await), 401);
        assert_eq!(refused(site.socket(path, &[("cookie", "tandem_session=x")]).await), 401);
        for origin in ["http://evil.example", "null"] {
            assert_eq!(
                refused(site.socket(path, &[("cookie", &anna), ("origin", origin)]).await),
                403,
                "{origin}"
            );
        }
        let mut socket = site.socket(path, &[("cookie", &anna)]).await.unwrap();
        assert_eq!(message(&mut socket).await["type"], "reset");
        site.ask(Method::DELETE, "/api/v1/session", &anna, "").await;
        assert_eq!(closed(&mut socket).await, 1008);
    }

    #[tokio::test]
    async fn a_reader_who_does_not_read_loses_his_socket_and_nobody_else_waits() {
        let site = Site::start().await;
        let anna = site.cookie("anna").await;
        let stuck = site.socket("/api/v1/events", &[("cookie", &anna)]).await.unwrap();
        let mut awake = site.socket("/api/v1/events", &[("cookie", &anna)]).await.unwrap();
        assert_eq!(message(&mut awake).await["type"], "reset");
        let places = || site.web.openings.open();
        assert_eq!(places(), 2);
        // Long reasons fill the stuck reader's socket buffers soon.
        let mut large = trunk_up();
        large.what = What::Operator {
            operator: "anna".into(),
            state: crate::fact::OperatorState::Paused,
            reason: "x".repeat(10_000),
            call: None,
            phone: crate::fact::Phone::None,
            queues: Vec::new(),
            auto_answer: true,
            wrap_up_until: None,
        };
        let mut heard = 0_u64;
        while places() > 1 && heard < 20_000 {
            site.handle.fold_for_test(&large);
            heard += 1;
            assert_eq!(message(&mut awake).await["seq"].as_u64(), Some(heard), "the other gets every event");
        }
        assert_eq!(places(), 1, "the stuck reader's socket is still open after {heard} events");
        drop(stuck);
    }
}
