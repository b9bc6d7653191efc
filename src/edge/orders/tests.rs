//! Courier and embedded core against a store in a folder and cores on real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::*;
use crate::edge::store::{Store, StoreConfig, Writer};
use crate::fact::{CallResult, Cause, Direction, Fact, What};
use crate::terms::{CallId, CardId, Epoch, Now, Number, Secret};

const PHONE: &str = "+380671234567";

fn clock() -> Clock {
    let start = Instant::now();
    Arc::new(move || {
        let mono_ms = start.elapsed().as_millis() as u64;
        Now { mono_ms, wall_ms: 1_772_357_400_000 + mono_ms as i64 }
    })
}

async fn opened() -> (TempDir, Store, Writer) {
    // A second test of this process finds it installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("tandem.db").display());
    let config = StoreConfig { url, data_dir: folder.path().to_owned(), max_pages: 0 };
    let store = Store::open(&config).await.unwrap();
    let (writer, run) = store.writer();
    tokio::spawn(run);
    (folder, store, writer)
}

fn card(n: u64) -> CardId {
    CardId(Uuid::from_u128(u128::from(n)))
}

/// `count` calls with an order each, ended: 4 letters a call (arrived, order, ended; never answered: 3).
fn stories(count: u64) -> Vec<Fact> {
    let mut facts = Vec::new();
    for n in 1..=count {
        let number = || Number::new(PHONE);
        let whats = [
            What::Arrived {
                direction: Direction::In,
                caller: number(),
                called: number(),
                line: number(),
                trunk: None,
                operator: None,
            },
            What::CardOpened {
                card: card(n),
                caller: number(),
                line: number(),
                trunk: None,
                queue: None,
                operator: "anna".into(),
            },
            What::CardSubmitted {
                card: card(n),
                operator: "anna".into(),
                fields: [("pickup".to_owned(), format!("Main st. {n}"))].into(),
            },
            What::Ended {
                result: CallResult::Answered,
                cause: Cause::default(),
                by: "caller".into(),
                wait_ms: 0,
                talk_ms: 1,
            },
        ];
        for what in whats {
            let seq = facts.len() as u64 + 1;
            let call = Some(CallId(Uuid::from_u128(1_000_000 + u128::from(n))));
            facts.push(Fact { seq, epoch: Epoch(1), at: 1_772_357_400_000, call, what });
        }
    }
    facts
}

struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    made: mpsc::Receiver<Made>,
}

fn start(store: &Store, bases: &[String], token: &str) -> Running {
    let (made, made_end) = mpsc::channel(1_000);
    let token = Secret::new(token.to_owned());
    let config = CoreConfig { bases: bases.to_vec(), token, timeout_ms: 150 };
    let courier = Courier::new(store.clone(), &config, clock(), made).unwrap();
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(async move { courier.run(stopped).await });
    Running { stop, task, made: made_end }
}

async fn told(writer: &Writer, facts: Vec<Fact>) {
    let last = facts.last().unwrap().seq;
    writer.append(facts);
    writer.stored().wait_for(|stored| stored.seq >= last).await.unwrap();
}

async fn emptied(store: &Store, within: Duration) {
    let empty = async {
        while store.outbox().await.unwrap().depth > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(within, empty).await.expect("letters are left");
}

/// A core that misbehaves in a different way each time a key comes.
#[derive(Clone, Default)]
struct Fake {
    attempts: Arc<Mutex<BTreeMap<String, u32>>>,
    orders: Arc<Mutex<BTreeMap<String, String>>>,
    calls: Arc<Mutex<Vec<String>>>,
    tokens: Arc<Mutex<Vec<String>>>,
    /// Ways of the first attempts, then it behaves.
    ways: &'static [Way],
}

#[derive(Clone, Copy)]
enum Way {
    Status(u16),
    Hang,
    /// Takes the order and answers too late.
    TakeAndHang,
    Junk,
}

impl Fake {
    fn way(&self, key: &str) -> Option<Way> {
        let mut attempts = self.attempts.lock().unwrap();
        let attempt = attempts.entry(key.to_owned()).or_default();
        *attempt += 1;
        self.ways.get(*attempt as usize - 1).copied()
    }

    fn take(&self, key: &str) -> (StatusCode, String) {
        let mut orders = self.orders.lock().unwrap();
        let fresh = orders.len() + 1;
        let status = if orders.contains_key(key) { StatusCode::OK } else { StatusCode::CREATED };
        let id = orders.entry(key.to_owned()).or_insert_with(|| fresh.to_string()).clone();
        (status, format!("{{\"id\":{id}}}"))
    }
}

async fn fake_order(State(fake): State<Fake>, headers: HeaderMap) -> Response {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    let token = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    fake.tokens.lock().unwrap().extend(token);
    match fake.way(&key) {
        Some(Way::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Some(Way::Junk) => "<html>logged out".into_response(),
        Some(Way::Hang) => std::future::pending().await,
        Some(Way::TakeAndHang) => {
            fake.take(&key);
            std::future::pending().await
        }
        None => fake.take(&key).into_response(),
    }
}

async fn fake_call(State(fake): State<Fake>, headers: HeaderMap, body: String) -> Response {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    match fake.way(&key) {
        Some(Way::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Some(Way::Hang | Way::TakeAndHang | Way::Junk) | None => {
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            let line = format!("{} {}", body["call_id"].as_str().unwrap(), body["event"].as_str().unwrap());
            fake.calls.lock().unwrap().push(line);
            StatusCode::OK.into_response()
        }
    }
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

async fn fake(ways: &'static [Way]) -> (Fake, String) {
    let fake = Fake { ways, ..Fake::default() };
    let router = Router::new()
        .route("/base/orders", post(fake_order))
        .route("/base/calls", post(fake_call))
        .with_state(fake.clone());
    (fake, format!("http://{}/base/", serve(router).await))
}

#[tokio::test]
async fn each_order_reaches_a_core_once_that_fails_hangs_answers_late_and_talks_junk() {
    let (_folder, store, writer) = opened().await;
    let ways = &[Way::Status(500), Way::TakeAndHang, Way::Junk, Way::Hang];
    let (core, base) = fake(ways).await;
    let mut running = start(&store, &[base], "sesame");
    told(&writer, stories(3)).await;
    // The same letters again change nothing.
    told(&writer, stories(3)).await;
    emptied(&store, Duration::from_secs(60)).await;
    assert_eq!(core.orders.lock().unwrap().len(), 3);
    let calls = core.calls.lock().unwrap().clone();
    assert_eq!(calls.len(), 6);
    for n in 1..=3_u128 {
        let own: Vec<&str> = calls
            .iter()
            .filter_map(|line| line.strip_prefix(&format!("{} ", Uuid::from_u128(1_000_000 + n))))
            .collect();
        assert_eq!(own, ["arrived", "ended"], "in order per call");
    }
    assert!(core.tokens.lock().unwrap().iter().all(|token| token == "Bearer sesame"));
    let mut made = BTreeMap::new();
    while let Ok(Made { card, order }) = running.made.try_recv() {
        assert!(made.insert(card, order).is_none(), "told twice");
    }
    assert_eq!(made.len(), 3);
    assert_eq!(store.outbox().await.unwrap().dead, 0);
    running.stop.send(true).unwrap();
    running.task.await.unwrap();
}

#[tokio::test]
async fn a_letter_that_is_refused_for_good_dies_and_lets_the_others_pass() {
    let (_folder, store, writer) = opened().await;
    let (core, base) = fake(&[Way::Status(422)]).await;
    let running = start(&store, &[base], "");
    told(&writer, stories(2)).await;
    emptied(&store, Duration::from_secs(20)).await;
    let dead = store.dead_letters(10).await.unwrap();
    assert_eq!((dead.len(), dead[0].status), (6, 422));
    assert_eq!(core.orders.lock().unwrap().len(), 0);
    assert!(core.tokens.lock().unwrap().is_empty(), "no token, no header");
    // A supervisor sends one again.
    let order = dead.iter().find(|letter| letter.path == "/orders").unwrap();
    assert!(store.revive(order.id).await.unwrap());
    emptied(&store, Duration::from_secs(20)).await;
    assert_eq!(core.orders.lock().unwrap().len(), 1);
    running.stop.send(true).unwrap();
    running.task.await.unwrap();
}

#[tokio::test]
async fn a_core_that_is_gone_is_replaced_by_the_next_one() {
    let (_folder, store, writer) = opened().await;
    let (core, base) = fake(&[]).await;
    let running = start(&store, &["http://127.0.0.1:9/gone".to_owned(), base], "");
    told(&writer, stories(20)).await;
    emptied(&store, Duration::from_secs(20)).await;
    assert_eq!(core.orders.lock().unwrap().len(), 20);
    drop(running);
}

#[tokio::test]
async fn letters_of_a_killed_courier_are_brought_by_the_next() {
    let (_folder, store, writer) = opened().await;
    let (core, base) = fake(&[Way::TakeAndHang]).await;
    let first = start(&store, std::slice::from_ref(&base), "");
    told(&writer, stories(5)).await;
    let some = async {
        while core.orders.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), some).await.unwrap();
    first.task.abort();
    let second = start(&store, &[base], "");
    emptied(&store, Duration::from_secs(20)).await;
    assert_eq!(core.orders.lock().unwrap().len(), 5);
    drop(second);
}

#[tokio::test]
async fn the_embedded_core_takes_letters_in_process_and_knows_the_caller_next_time() {
    let (_folder, store, writer) = opened().await;
    let (made, mut made_end) = mpsc::channel(10);
    let config = CoreConfig { bases: vec!["embedded".into()], token: Secret::default(), timeout_ms: 3_000 };
    let courier = Arc::new(Courier::new(store.clone(), &config, clock(), made).unwrap());
    let (stop, stopped) = watch::channel(false);
    let running = Arc::clone(&courier);
    let task = tokio::spawn(async move { running.run(stopped).await });
    told(&writer, stories(2)).await;
    emptied(&store, Duration::from_secs(20)).await;
    let first = made_end.recv().await.unwrap();
    let known = courier.lookup(PHONE).await.unwrap();
    let known: serde_json::Value = serde_json::from_str(&known).unwrap();
    assert_eq!(known["orders"].as_array().unwrap().len(), 2);
    assert_eq!(known["addresses"].as_array().unwrap().len(), 2);
    assert!(known["orders"].as_array().unwrap().iter().any(|order| order["id"] == first.order.as_str()));
    assert_eq!(courier.lookup("").await, None);
    stop.send(true).unwrap();
    task.await.unwrap();
}

#[tokio::test]
async fn a_look_up_ends_within_a_second_and_takes_only_json() {
    let (_folder, store, _writer) = opened().await;
    let look_up = |router: Router| {
        let store = store.clone();
        async move {
            let base = format!("http://{}", serve(router).await);
            let config = CoreConfig { bases: vec![base], token: Secret::default(), timeout_ms: 3_000 };
            Courier::new(store, &config, clock(), mpsc::channel(1).0).unwrap().lookup(PHONE).await
        }
    };
    let echo = |uri: axum::http::Uri| async move { format!("{:?}", uri.query().unwrap()) };
    let good = look_up(Router::new().route("/customers", get(echo))).await;
    assert_eq!(good.as_deref(), Some("\"phone=%2B380671234567\""));
    assert_eq!(look_up(Router::new().route("/customers", get(|| async { "<html>" }))).await, None);
    let begun = Instant::now();
    let hang = || async { std::future::pending::<&'static str>().await };
    assert_eq!(look_up(Router::new().route("/customers", get(hang))).await, None);
    assert!(begun.elapsed() < Duration::from_millis(1_900), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn addresses_of_a_core_are_checked() {
    let (_folder, store, _writer) = opened().await;
    let table: [&[&str]; 5] = [&[], &["embedded", "http://a"], &["ftp://a"], &["core.example"], &["http://"]];
    for bases in table {
        let bases = bases.iter().map(|base| (*base).to_owned()).collect();
        let config = CoreConfig { bases, token: Secret::default(), timeout_ms: 1 };
        assert!(Courier::new(store.clone(), &config, clock(), mpsc::channel(1).0).is_err(), "{config:?}");
    }
}

struct Asked<'a> {
    token: Option<&'a str>,
    method: reqwest::Method,
    path: &'a str,
    key: &'a str,
    body: &'a str,
}

async fn ask(address: SocketAddr, asked: Asked<'_>) -> (u16, serde_json::Value) {
    let client = reqwest::Client::new();
    let mut request = client.request(asked.method, format!("http://{address}/core/v1{}", asked.path));
    if let Some(token) = asked.token {
        request = request.bearer_auth(token);
    }
    if !asked.key.is_empty() {
        request = request.header("Idempotency-Key", asked.key);
    }
    let response = request.body(asked.body.to_owned()).send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_default())
}

const ORDER: &str = r#"{"source":"call","call_id":null,"caller":"+380671234567","line":"","trunk":null,
    "queue":null,"operator":null,"at":"2026-03-01T09:30:00.000Z","fields":{"pickup":"Main st. 1"}}"#;

#[tokio::test]
async fn the_embedded_core_on_the_network_speaks_the_contract() {
    use reqwest::Method;
    let (_folder, store, _writer) = opened().await;
    let core = serve(core_http::router(store.clone(), Secret::new("sesame".into()))).await;
    let token = Some("sesame");
    let call = format!(
        r#"{{"call_id":"{}","event":"arrived","caller":"","line":"","trunk":null,"queue":null,"operator":null,"result":null,"at":""}}"#,
        Uuid::from_u128(1)
    );
    let post = Method::POST;
    let table = [
        (None, post.clone(), "/orders", "k1", ORDER, 401),
        (Some("guess"), post.clone(), "/orders", "k1", ORDER, 401),
        (token, post.clone(), "/orders", "", ORDER, 400),
        (token, post.clone(), "/orders", "k1", "{", 400),
        (token, post.clone(), "/orders", "k1", "{}", 422),
        (token, post.clone(), "/orders", "k1", ORDER, 201),
        (token, post.clone(), "/orders", "k1", ORDER, 200),
        (token, Method::PATCH, "/orders/1", "p1", r#"{"pickup":"Park 5"}"#, 200),
        (token, Method::PATCH, "/orders/9", "p2", r#"{"pickup":"Park 5"}"#, 404),
        (token, post.clone(), "/calls", "c1", call.as_str(), 201),
        (token, post.clone(), "/calls", "c1", call.as_str(), 200),
        (token, Method::GET, "/customers?phone=%2B380671234567", "", "", 200),
        (token, post.clone(), "/orders/1/discard", "", r#"{"reason":"fake"}"#, 200),
        (token, post.clone(), "/orders/1/discard", "", "", 200),
    ];
    for (token, method, path, key, body, expected) in table {
        let (status, answer) = ask(core, Asked { token, method, path, key, body }).await;
        assert_eq!(status, expected, "{path} {key}: {answer}");
        assert!(expected < 400 || answer["status"] == expected, "{answer}");
    }
    let customer = store.core_customer(PHONE).await.unwrap();
    assert_eq!(customer.orders.len(), 1);
    assert_eq!(
        (customer.orders[0].state.as_str(), customer.orders[0].fields["pickup"].as_str()),
        ("discarded", "Park 5")
    );
}

#[tokio::test]
async fn without_a_token_the_embedded_core_refuses_the_network() {
    let (_folder, store, _writer) = opened().await;
    let core = serve(core_http::router(store, Secret::default())).await;
    for token in [None, Some(""), Some("guess")] {
        let asked = Asked { token, method: reqwest::Method::POST, path: "/orders", key: "k", body: ORDER };
        assert_eq!(ask(core, asked).await.0, 403);
    }
}
