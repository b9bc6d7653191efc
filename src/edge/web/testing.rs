//! A web on a real loopback listener, for the tests of this folder.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::mpsc::Receiver;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{Settings, Web, listen, router};
use crate::edge::clock;
use crate::edge::driver::Handle;
use crate::edge::handle::testing::Seen;
use crate::edge::metrics::Metrics;
use crate::edge::sip::ws::Patience;
use crate::edge::store::{Account, Role, Store, StoreConfig};
use crate::engine::desk::{Answer, Ask, Asker};
use crate::fact::{Direction, Fact, What};
use crate::sip;
use crate::terms::{CallId, CardId, Epoch, Number, Secret};

/// The password of every account here.
pub(crate) const PASSWORD: &str = "correct horse";
/// Nothing in a test takes longer.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// An empty store in a folder that goes with it.
pub(crate) async fn store() -> (Store, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("tandem.db").display());
    let config = StoreConfig { url, data_dir: folder.path().to_owned(), max_pages: 0 };
    (Store::open(&config).await.unwrap(), folder)
}

/// A running web with the operators `anna` and `boris` and the supervisor `vera`.
pub(crate) struct Site {
    pub(crate) web: Web,
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    pub(crate) heard: Receiver<sip::Input>,
    pub(crate) seen: Arc<Seen>,
    client: reqwest::Client,
    _folder: TempDir,
}

impl Site {
    /// With an engine that says yes.
    pub(crate) async fn start() -> Self {
        Self::with(Patience::default(), |_, _| Answer::Done).await
    }

    /// With an engine of its own.
    pub(crate) async fn with(
        patience: Patience,
        answering: impl Fn(&Asker, &Ask) -> Answer + Send + 'static,
    ) -> Self {
        // Another test of this process may have installed it.
        drop(rustls::crypto::ring::default_provider().install_default());
        let (store, folder) = store().await;
        for (name, role) in [("anna", Role::Operator), ("boris", Role::Operator), ("vera", Role::Supervisor)]
        {
            let queues = vec!["orders".into()];
            let account = Account { name: name.into(), role, queues, skills: Vec::new(), disabled: false };
            store.add_account(&account, Secret::new(PASSWORD.to_owned())).await.unwrap();
        }
        let (handle, heard, seen) = Handle::for_test(store, answering);
        let listening = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listening.local;
        let settings = Settings {
            domain: "tandem.test".into(),
            secure: false,
            local: address,
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            guard: crate::sip::guard::Rules { failures: 3, ban_ms: 60_000, never_ban: Vec::new() },
            pair_secret: Secret::new([7; 32]),
            time_zone: jiff::tz::TimeZone::UTC,
            sip_udp: None,
        };
        let web = Web::with_patience(handle.clone(), Metrics::new().unwrap(), settings, patience);
        let serving = listening.serve(router(web.clone(), None), None, axum_server::Handle::new());
        tokio::spawn(async move { serving.await.unwrap() });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { web, address, handle, heard, seen, client, _folder: folder }
    }

    /// A cookie for `name`, without the work of a password.
    pub(crate) async fn cookie(&self, name: &str) -> String {
        let account = self.handle.store().account(name).await.unwrap().unwrap();
        let made = self.handle.store().create_session(&account, clock::now().wall_ms).await.unwrap();
        format!("tandem_session={}", made.0.expose())
    }

    /// A request; `cookie` and `body` may be empty.
    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        cookie: &str,
        body: &str,
    ) -> reqwest::RequestBuilder {
        let mut request = self.client.request(method, format!("http://{}{path}", self.address)).timeout(SOON);
        if !cookie.is_empty() {
            request = request.header("cookie", cookie);
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        request
    }

    /// Status and JSON of an answer; `Null` where there is none.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        cookie: &str,
        body: &str,
    ) -> (StatusCode, Value) {
        let response = self.request(method, path, cookie, body).send().await.unwrap();
        let status = response.status();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or(Value::Null))
    }

    /// Opens a WebSocket.
    pub(crate) async fn socket(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<WebSocketStream<TcpStream>, Box<Error>> {
        let mut request = format!("ws://{}{path}", self.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        client_async(request, stream).await.map(|(socket, _)| socket).map_err(Box::new)
    }

    /// Everything the engine was asked so far.
    pub(crate) fn asked(&self) -> Vec<(Asker, Ask)> {
        self.seen.asked.lock().unwrap().clone()
    }
}

/// The HTTP status with which a socket was refused.
pub(crate) fn refused(opened: Result<WebSocketStream<TcpStream>, Box<Error>>) -> u16 {
    match opened.map_err(|error| *error) {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("not refused: {other:?}"),
    }
}

/// The next message that is not a WebSocket ping.
pub(crate) async fn next(socket: &mut WebSocketStream<TcpStream>) -> Option<Result<Message, Error>> {
    loop {
        match tokio::time::timeout(SOON, socket.next()).await.unwrap() {
            Some(Ok(Message::Ping(_))) => {}
            other => return other,
        }
    }
}

/// The code with which the server closed.
pub(crate) async fn closed(socket: &mut WebSocketStream<TcpStream>) -> u16 {
    loop {
        match next(socket).await {
            Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
            Some(Ok(_)) => {}
            other => panic!("not closed with a code: {other:?}"),
        }
    }
}

/// The call number `n`.
pub(crate) fn call(n: u128) -> CallId {
    CallId(uuid::Uuid::from_u128(n))
}

/// The card number `n`.
pub(crate) fn card(n: u128) -> CardId {
    CardId(uuid::Uuid::from_u128(n))
}

/// A fact of call `n`.
pub(crate) fn fact(n: u128, what: What) -> Fact {
    Fact { seq: 1, epoch: Epoch(1), at: clock::now().wall_ms, call: Some(call(n)), what }
}

/// A call that `operator` began.
pub(crate) fn dialled_by(n: u128, operator: &str) -> Fact {
    fact(
        n,
        What::Arrived {
            direction: Direction::Out,
            caller: Number::default(),
            called: Number::new("+380671234567"),
            line: Number::default(),
            trunk: None,
            operator: Some(operator.into()),
        },
    )
}

/// A card on `operator`'s desk.
pub(crate) fn card_of(n: u128, operator: &str) -> Fact {
    let (caller, line) = (Number::new("+380671234567"), Number::default());
    let what =
        What::CardOpened { card: card(n), caller, line, trunk: None, queue: None, operator: operator.into() };
    fact(n, what)
}
