//! A person's log-in: the API by HTTP and the feed of events by WebSocket.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Message, http::HeaderValue};

use super::wait::until;

/// An HTTP client without cookies of its own, so that sessions are seen in the tests.
pub fn client() -> Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder().timeout(Duration::from_secs(30)).build().unwrap()
}

/// Somebody who is logged in.
#[derive(Debug, Clone)]
pub struct Desk {
    web: SocketAddr,
    client: Client,
    cookie: String,
    /// What the log-in was answered.
    pub session: Value,
}

impl Desk {
    /// Logs in.
    pub async fn log_in(web: SocketAddr, name: &str, password: &str) -> Self {
        let client = client();
        let body = json!({"username": name, "password": password});
        let answer = client.post(format!("http://{web}/api/v1/session")).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200, "log-in of {name}");
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let session = answer.json().await.unwrap();
        Self { web, client, cookie, session }
    }

    /// One request; its status and its JSON (null where there is none).
    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("http://{}/api/v1{path}", self.web);
        let mut request = self.client.request(method, url).header("cookie", &self.cookie);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap_or_else(|why| panic!("{path}: {why}"));
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// A `GET` that must succeed.
    pub async fn get(&self, path: &str) -> Value {
        let (status, value) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, 200, "GET {path}: {value}");
        value
    }

    /// A `POST`.
    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// A `PUT` that must succeed.
    pub async fn put(&self, path: &str, body: Value) {
        let (status, value) = self.ask(Method::PUT, path, Some(body)).await;
        assert!((200..300).contains(&status), "PUT {path}: {status} {value}");
    }

    /// The live calls.
    pub async fn calls(&self) -> Vec<Value> {
        let value = self.get("/calls").await;
        value.as_array().or_else(|| value["calls"].as_array()).cloned().unwrap_or_default()
    }

    /// Waits until a call is in this state.
    pub async fn call_in(&self, state: &str) -> Value {
        until(&format!("a call is {state}"), || async {
            self.calls().await.into_iter().find(|call| call["state"] == state)
        })
        .await
    }

    /// Waits until no call is alive.
    pub async fn no_calls(&self) {
        until("all calls are over", || async {
            let alive = self.calls().await.into_iter().any(|call| call["state"] != "ended");
            (!alive).then_some(())
        })
        .await;
    }

    /// Waits until so many calls stand in the history, newest first; fails if there are more.
    pub async fn history(&self, count: u64) -> Vec<Value> {
        let page = until(&format!("{count} calls in the history"), || async {
            let page = self.get("/history").await;
            (page["total"].as_u64().unwrap() >= count).then_some(page)
        })
        .await;
        assert_eq!(page["total"], count, "{page}");
        page["calls"].as_array().unwrap().clone()
    }

    /// How many calls ended so.
    pub async fn count(&self, result: &str) -> u64 {
        self.get(&format!("/history?result={result}")).await["total"].as_u64().unwrap()
    }

    /// Waits until the outbox is empty.
    pub async fn outbox_empty(&self) {
        until("the outbox is empty", || async {
            let outbox = self.get("/outbox").await;
            assert_eq!(outbox["dead_letters"], json!([]), "{outbox}");
            (outbox["depth"] == 0).then_some(())
        })
        .await;
    }

    /// Opens the feed of events.
    pub async fn events(&self) -> Events {
        let mut request = format!("ws://{}/api/v1/events", self.web).into_client_request().unwrap();
        request.headers_mut().insert("cookie", HeaderValue::from_str(&self.cookie).unwrap());
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Some(Ok(message)) = socket.next().await {
                if let Message::Text(text) = message {
                    kept.lock().unwrap().push(serde_json::from_str::<Value>(&text).unwrap());
                }
            }
        });
        Events(seen)
    }
}

/// All that a feed has told so far.
#[derive(Debug, Clone)]
pub struct Events(Arc<Mutex<Vec<Value>>>);

impl Events {
    /// Waits for an event of this type that fits.
    pub async fn wait(&self, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
        until(&format!("the event {kind}"), || async { self.find(kind, &fits) }).await
    }

    /// An event that came already.
    pub fn find(&self, kind: &str, fits: impl Fn(&Value) -> bool) -> Option<Value> {
        self.0.lock().unwrap().iter().find(|event| event["type"] == kind && fits(event)).cloned()
    }
}
