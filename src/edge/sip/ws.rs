//! SIP over a WebSocket (RFC 7118): the phones in the operators' browsers.
//!
//! Invariant: one frame is one message, at most 64 KiB; what waits for a browser is bounded, and a
//! browser that does not read, does not speak, or does not answer our pings loses its socket, not
//! anybody else's.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite;

use crate::edge::driver::Handle;
use crate::edge::metrics::Metrics;
use crate::edge::sip::{MESSAGE_MAX_BYTES, count, is_keep_alive};
use crate::sip::{Input, Path};

/// Messages that may wait for one browser.
const WAITING_MAX: usize = 64;
/// Ours to the browser: proxies cut a line that is silent for a minute.
const PING_EVERY: Duration = Duration::from_secs(15);
/// A socket on which nothing arrived since so many of our pings is dead.
const UNANSWERED_MAX: u32 = 2;
/// A socket on which no SIP came is nobody's phone.
const FIRST_WITHIN: Duration = Duration::from_secs(15);
/// A browser that takes no byte for so long does not read.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// Answer to a double line end (RFC 5626 section 3.5.1, RFC 7118 section 6).
const PONG: &str = "\r\n";

/// One open socket.
#[derive(Debug, Clone)]
pub struct Line {
    /// The browser.
    pub remote: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// Whether it is `wss`.
    pub secure: bool,
}

/// How long its waits are; tests shorten them.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// To the first message.
    pub first: Duration,
    /// Between our pings.
    pub ping: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { first: FIRST_WITHIN, ping: PING_EVERY }
    }
}

/// Why a socket is closed by us.
enum Closed {
    /// By the peer, or by the network.
    Gone,
    /// With this code (RFC 6455 section 7.4.1) and these words.
    Ours(u16, &'static str),
}

/// Carries one socket until it closes.
pub async fn carry(mut socket: WebSocket, line: Line, patience: Patience, handle: Handle, metrics: Metrics) {
    let (sender, outgoing) = mpsc::channel(WAITING_MAX);
    let flow = handle.open_flow(sender);
    let path = Path::Ws { flow, remote: line.remote, local: line.local, secure: line.secure };
    let transport = if line.secure { "wss" } else { "ws" };
    let wire = Wire { path, transport, handle: &handle, metrics: &metrics };
    let closed = wire.run(&mut socket, outgoing, patience).await;
    handle.close_flow(flow);
    if !handle.sip(Input::FlowClosed(flow)) {
        tracing::warn!(%flow, "the engine's queue is full: it will notice a closed SIP socket only when it sends");
    }
    if let Closed::Ours(code, words) = closed {
        let frame = CloseFrame { code, reason: words.into() };
        // The peer may be gone already: there is nobody to tell then.
        if timeout(SEND_WITHIN, socket.send(Message::Close(Some(frame)))).await.is_ok_and(|sent| sent.is_ok())
        {
            tracing::debug!(%flow, words, "closed a SIP socket");
        }
    }
}

struct Wire<'a> {
    path: Path,
    transport: &'static str,
    handle: &'a Handle,
    metrics: &'a Metrics,
}

impl Wire<'_> {
    async fn run(
        &self,
        socket: &mut WebSocket,
        mut outgoing: mpsc::Receiver<Bytes>,
        patience: Patience,
    ) -> Closed {
        let mut ping = interval(patience.ping);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.reset();
        let first = sleep(patience.first);
        tokio::pin!(first);
        let mut unanswered = 0;
        let mut spoke = false;
        loop {
            tokio::select! {
                frame = socket.recv() => {
                    unanswered = 0;
                    match self.received(frame) {
                        Ok(Got::Sip) => spoke = true,
                        Ok(Got::KeepAlive) => if let Err(closed) = send(socket, Message::text(PONG)).await { return closed },
                        Ok(Got::Nothing) => {}
                        Err(closed) => return closed,
                    }
                }
                message = outgoing.recv() => {
                    // The driver lets go of a flow whose queue is full.
                    let Some(bytes) = message else { return Closed::Ours(close_code::POLICY, "too slow") };
                    if let Err(closed) = send(socket, frame(bytes)).await { return closed }
                }
                _ = ping.tick() => {
                    if unanswered >= UNANSWERED_MAX { return Closed::Gone }
                    unanswered += 1;
                    if let Err(closed) = send(socket, Message::Ping(Bytes::new())).await { return closed }
                }
                () = &mut first, if !spoke => {
                    return Closed::Ours(close_code::POLICY, "no SIP message came");
                }
            }
        }
    }

    fn received(&self, frame: Option<Result<Message, axum::Error>>) -> Result<Got, Closed> {
        let bytes = match frame {
            None => return Err(Closed::Gone),
            Some(Err(error)) => return Err(too_big(error)),
            Some(Ok(Message::Close(_))) => return Err(Closed::Gone),
            // axum answers pings itself.
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => return Ok(Got::Nothing),
            Some(Ok(Message::Text(text))) => Bytes::from(text),
            Some(Ok(Message::Binary(bytes))) => bytes,
        };
        if is_keep_alive(&bytes) {
            return Ok(if bytes.as_ref() == b"\r\n\r\n" { Got::KeepAlive } else { Got::Nothing });
        }
        if bytes.len() > MESSAGE_MAX_BYTES {
            return Err(Closed::Ours(close_code::SIZE, "at most 64 KiB a message"));
        }
        count(self.metrics, self.transport, "in", &bytes);
        if !self.handle.sip(Input::Received { path: self.path, bytes }) {
            self.metrics.sip_dropped("queue_full");
        }
        Ok(Got::Sip)
    }
}

enum Got {
    Sip,
    KeepAlive,
    Nothing,
}

/// SIP is text, and a browser gets it as such; a body that is not UTF-8 goes as a binary frame.
fn frame(bytes: Bytes) -> Message {
    axum::extract::ws::Utf8Bytes::try_from(bytes.clone()).map_or(Message::Binary(bytes), Message::Text)
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), Closed> {
    match timeout(SEND_WITHIN, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Closed::Gone),
        Err(_) => Err(Closed::Ours(close_code::POLICY, "too slow")),
    }
}

/// A frame over the limit is told so (1009); a broken one is 1002; the rest is the network's.
fn too_big(error: axum::Error) -> Closed {
    let inner = error.into_inner();
    match inner.downcast_ref::<tungstenite::Error>() {
        Some(tungstenite::Error::Capacity(_)) => Closed::Ours(close_code::SIZE, "at most 64 KiB a message"),
        Some(tungstenite::Error::Protocol(_)) => Closed::Ours(close_code::PROTOCOL, "not a WebSocket frame"),
        Some(tungstenite::Error::Utf8(_)) => Closed::Ours(close_code::INVALID, "text that is not UTF-8"),
        _ => Closed::Gone,
    }
}
