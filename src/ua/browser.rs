//! The role of an operator's browser: SIP over a WebSocket (RFC 7118), ICE, DTLS and SRTP.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Request};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::agent::Carrier;
use super::gateway::{LAST_WORDS, TICK};
use super::phone::{Body, Clock, Order, Phone, PhoneConfig, Report, Reports, Role, Style};
use crate::media::dtls::DtlsParty;

/// Between attempts to open the WebSocket.
const AGAIN_MS: u64 = 500;
/// How long one attempt may take.
const OPEN: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Where the browser role finds the switch.
#[derive(Clone)]
pub struct BrowserConfig {
    /// What both roles must know.
    pub phone: PhoneConfig,
    /// `ws://host:port/sip`.
    pub url: String,
    /// Further headers of the opening request, for instance `Origin` or `Cookie`.
    pub headers: Vec<(String, String)>,
    /// Its certificate.
    pub dtls: DtlsParty,
}

/// Starts a browser's phone. It opens its WebSocket, registers, and opens it again whenever it is lost. It
/// runs until [`Phone::stop`] or until the last [`Phone`] is dropped. Fails on a URL or header that is none.
pub fn start(config: BrowserConfig) -> io::Result<(Phone, Reports)> {
    let opening = opening(&config)?;
    let (phone, reports, orders, teller) = Phone::pair();
    let style = Style::new(&config.phone, Role::Browser(config.dtls.clone()));
    let body = Body::new(&config.phone, style, Carrier::Ws, teller);
    let clock = Arc::clone(&config.phone.clock);
    tokio::spawn(Browser { body, opening, socket: None, open_at: 0, clock }.run(orders));
    Ok((phone, reports))
}

/// The HTTP request that opens the WebSocket.
fn opening(config: &BrowserConfig) -> io::Result<Request<()>> {
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let mut request = config.url.as_str().into_client_request().map_err(|why| bad(why.to_string()))?;
    // RFC 7118 section 4.1.
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("sip"));
    for (name, value) in &config.headers {
        let name: HeaderName = name.parse().map_err(|_| bad(format!("header name {name}")))?;
        let value: HeaderValue = value.parse().map_err(|_| bad(format!("value of header {name}")))?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

struct Browser {
    body: Body,
    opening: Request<()>,
    socket: Option<Socket>,
    /// Not before this is it opened again.
    open_at: u64,
    clock: Clock,
}

impl Browser {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // Opened in a task of its own, so that the sound of calls goes on meanwhile.
        let (opened, mut coming) = mpsc::channel::<Option<Socket>>(1);
        let mut is_opening = false;
        loop {
            self.flush().await;
            if self.socket.is_none() && !is_opening && (self.clock)() >= self.open_at {
                is_opening = true;
                tokio::spawn(open(self.opening.clone(), opened.clone()));
            }
            tokio::select! {
                order = orders.recv() => match order {
                    None => return,
                    Some(Order::Reconnect) => self.close().await,
                    Some(Order::Stop) => {
                        self.body.order(Order::Stop, (self.clock)());
                        break;
                    }
                    Some(order) => self.body.order(order, (self.clock)()),
                },
                Some(socket) = coming.recv() => {
                    is_opening = false;
                    self.open_at = (self.clock)() + AGAIN_MS;
                    if let Some(socket) = socket {
                        self.opened(socket);
                    }
                }
                message = receive(&mut self.socket) => self.read(message),
                _ = tick.tick() => self.body.tick((self.clock)()),
            }
        }
        let last_words = async {
            loop {
                self.flush().await;
                tokio::select! {
                    message = receive(&mut self.socket) => self.read(message),
                    _ = tick.tick() => self.body.tick((self.clock)()),
                }
            }
        };
        // The time is the end: it has none of its own.
        tokio::time::timeout(LAST_WORDS, last_words).await.ok();
        self.close().await;
    }

    fn opened(&mut self, socket: Socket) {
        let now = (self.clock)();
        self.socket = Some(socket);
        self.body.tell(now, Report::Connected);
        self.body.register(now);
    }

    async fn close(&mut self) {
        if let Some(mut socket) = self.socket.take() {
            // It is dropped whether or not the other end hears of it.
            socket.close(None).await.ok();
            self.lost();
        }
        self.open_at = 0;
    }

    fn lost(&mut self) {
        self.socket = None;
        self.body.tell((self.clock)(), Report::Disconnected);
    }

    fn read(&mut self, message: Option<Message>) {
        let now = (self.clock)();
        match message {
            Some(Message::Text(text)) => self.body.received(&Bytes::copy_from_slice(text.as_bytes()), now),
            Some(Message::Binary(bytes)) => self.body.received(&bytes, now),
            Some(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Some(Message::Close(_)) | None => self.lost(),
        }
    }

    /// Without a WebSocket messages are lost, as a browser's are.
    async fn flush(&mut self) {
        for message in self.body.drain((self.clock)()) {
            let Some(socket) = &mut self.socket else { continue };
            let frame = match std::str::from_utf8(&message) {
                Ok(text) => Message::text(text),
                Err(_) => Message::Binary(message),
            };
            if socket.send(frame).await.is_err() {
                self.lost();
            }
        }
    }
}

/// The next frame; `None` when the WebSocket is gone. Without one it waits for ever.
async fn receive(socket: &mut Option<Socket>) -> Option<Message> {
    match socket {
        Some(socket) => socket.next().await.and_then(Result::ok),
        None => std::future::pending().await,
    }
}

async fn open(request: Request<()>, opened: mpsc::Sender<Option<Socket>>) {
    let attempt = tokio::time::timeout(OPEN, tokio_tungstenite::connect_async(request)).await;
    let socket = attempt.ok().and_then(Result::ok).map(|(socket, _)| socket);
    // The phone may have stopped meanwhile.
    opened.send(socket).await.ok();
}
