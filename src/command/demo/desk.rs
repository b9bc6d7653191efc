//! An operator's desk without a person: the API as a browser uses it.
//!
//! Invariant: it knows nothing but what the API and the events tell it.

use anyhow::{Context as _, Result, anyhow, bail};
use reqwest::Method;
use reqwest::header::{COOKIE, ORIGIN, SET_COOKIE};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

use crate::terms::Secret;

/// Between two looks at something that shall come true.
const LOOK: Duration = Duration::from_millis(50);
/// Looks before it is said not to have come true: 20 s.
const LOOKS: u32 = 400;

/// A logged-in desk.
pub(super) struct Desk {
    client: reqwest::Client,
    base: String,
    cookie: String,
    /// The phone's user, password and domain.
    pub(super) phone: (String, Secret<String>, String),
}

impl Desk {
    /// Logs in.
    pub(super) async fn log_in(web: SocketAddr, user: &str, password: &Secret<String>) -> Result<Self> {
        let base = format!("http://{web}");
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
        let body = json!({"username": user, "password": password.expose()});
        let answer = client.post(format!("{base}/api/v1/session")).json(&body).send().await?;
        let answer = answer.error_for_status().context("log-in")?;
        let cookie = answer.headers().get(SET_COOKIE).and_then(|value| value.to_str().ok());
        let cookie =
            cookie.and_then(|value| value.split(';').next()).context("the log-in gave no cookie")?.to_owned();
        let session: Value = answer.json().await?;
        let text = |name: &str| -> Result<String> {
            let value = session.pointer(name).and_then(Value::as_str);
            Ok(value.with_context(|| format!("the session has no {name}"))?.to_owned())
        };
        let uri = text("/sip/uri")?;
        let domain = uri.split('@').next_back().unwrap_or_default().to_owned();
        let phone = (text("/sip/username")?, Secret::new(text("/sip/password")?), domain);
        Ok(Self { client, base, cookie, phone })
    }

    /// One call of the API; the answer's JSON, `null` where it has none.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let url = format!("{}/api/v1{path}", self.base);
        let mut request =
            self.client.request(method, url).header(COOKIE, &self.cookie).header(ORIGIN, &self.base);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            bail!("{path}: {status} {text}");
        }
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
    }

    /// Asks again and again until `found` finds something in the answer.
    pub(super) async fn until<T>(
        &self,
        path: &str,
        what: &str,
        found: impl Fn(&Value) -> Option<T>,
    ) -> Result<T> {
        for _ in 0..LOOKS {
            if let Some(value) = found(&self.ask(Method::GET, path, None).await?) {
                return Ok(value);
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(anyhow!("{what}: not within {} s", LOOKS * 50 / 1_000))
    }
}
