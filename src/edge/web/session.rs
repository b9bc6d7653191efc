//! Logging in and out, and the phone password that lives exactly as long as a log-in.
//!
//! Invariant: a wrong name and a wrong password get the same answer after the same work; a phone
//! password follows from the pair's secret and the session, so that no database holds it and the
//! other node of a pair knows it; the engine hears of every session that lives, and of its end.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dashmap::DashMap;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::edge::clock;
use crate::edge::store::{self, Account, SESSION_MS};
use crate::edge::web::Web;
use crate::edge::web::problem::{Problem, Sent};
use crate::edge::web::who::{COOKIE, Peer, Who, asker, token};
use crate::engine::desk::{Answer, Ask};
use crate::report::At;
use crate::sip::digest::Ha1;
use crate::terms::{OperatorName, QueueName, Secret};

/// Says what the HMAC is for, so that another use of the secret can never yield a phone password.
const PASSWORD_PURPOSE: &[u8] = b"sip-phone";
/// Sessions that the engine is told of at one time.
const SESSIONS_MAX: usize = 20_000;
/// How often sessions that ended by themselves are looked for.
const FOLLOW_EVERY: Duration = Duration::from_secs(60);
/// Where the browser's phone connects.
const SIP_PATH: &str = "/sip";

/// The sessions whose phones the engine knows, by session.
pub(super) type Sessions = DashMap<String, Account>;

/// `POST`, `GET` and `DELETE /session`.
pub(super) fn routes() -> Router<Web> {
    Router::new().route("/session", post(log_in).get(who_am_i).delete(log_out))
}

#[derive(Deserialize)]
struct LogIn {
    username: String,
    password: Secret<String>,
}

/// What a desk needs to know of its session.
#[derive(Serialize)]
struct Shape {
    user: OperatorName,
    role: store::Role,
    queues: Vec<QueueName>,
    sip: Phone,
}

#[derive(Serialize)]
struct Phone {
    uri: String,
    username: OperatorName,
    password: String,
    websocket: &'static str,
    expires_at: At,
}

async fn log_in(
    State(web): State<Web>,
    Peer(peer): Peer,
    headers: HeaderMap,
    Sent(sent): Sent<LogIn>,
) -> Result<Response, Problem> {
    let source = web.fence.source(peer, &headers);
    let account = check(&web, source, sent).await?;
    let now = clock::now().wall_ms;
    let made = web.handle.store().create_session(&account, now).await;
    let (cookie, session) = made.map_err(|error| {
        tracing::error!(%error, "the store does not take a session");
        Problem::away("The store")
    })?;
    tracing::info!(user = %account.name, %source, "logged in");
    web.greet(&session).await;
    Ok(web.with_cookie(cookie.expose(), Json(web.shape(&session)).into_response()))
}

/// The account, if the password fits; 401 the same for everything that does not, 429 after too many.
async fn check(web: &Web, source: IpAddr, sent: LogIn) -> Result<Account, Problem> {
    let now = clock::now().mono_ms;
    if let Some(wait_s) = web.guard().wait_s(source, &sent.username, now) {
        return Err(Problem::too_many(wait_s));
    }
    for ban in web.guard().tried(source, &sent.username, false, now) {
        web.metrics.banned("web", &ban);
    }
    match web.handle.store().verify(&sent.username, sent.password).await {
        Ok(Some(account)) => {
            web.guard().passed(source, &sent.username);
            Ok(account)
        }
        Ok(None) => {
            // The name is not logged: people type their password into the wrong field.
            tracing::info!(%source, "a log-in failed");
            Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "The user name or the password is wrong. Check the keyboard's language and Caps Lock, or ask a supervisor.",
            ))
        }
        Err(error) => {
            web.guard().unjudged(source, &sent.username);
            tracing::error!(%error, "the store does not check a password");
            Err(Problem::away("The store"))
        }
    }
}

async fn who_am_i(State(web): State<Web>, headers: HeaderMap, who: Who) -> Response {
    web.greet(&who.session).await;
    let response = Json(web.shape(&who.session)).into_response();
    // The store moved the session's end; the browser's copy of it moves along.
    match token(&headers) {
        Some(cookie) => web.with_cookie(cookie, response),
        None => response,
    }
}

async fn log_out(State(web): State<Web>, headers: HeaderMap, who: Who) -> Result<Response, Problem> {
    if let Some(cookie) = token(&headers) {
        web.handle.store().delete_session(cookie).await.map_err(|error| {
            tracing::error!(%error, "the store does not end a session");
            Problem::away("The store")
        })?;
    }
    web.part(&who.session.id).await;
    Ok(web.with_cookie("", StatusCode::NO_CONTENT.into_response()))
}

impl Web {
    /// Tells the engine of a session, whether or not it knows it: after a restart or a take-over it
    /// may have forgotten a key that a browser still holds.
    async fn greet(&self, session: &store::Session) {
        let account = &session.account;
        let known = self.sessions.contains_key(&session.id);
        if !known && self.sessions.len() >= SESSIONS_MAX {
            tracing::warn!(user = %account.name, limit = SESSIONS_MAX, "too many sessions: this one gets no phone");
            return;
        }
        let ha1 = Ha1::new(account.name.as_str(), &self.settings.domain, &self.phone_password(&session.id));
        let ask = Ask::LoggedIn { session: session.id.clone(), ha1, queues: account.queues.clone() };
        self.sessions.insert(session.id.clone(), account.clone());
        if let Answer::Refused(refusal) = self.handle.ask(asker(account), ask).await {
            tracing::warn!(user = %account.name, refusal.words, "no phone for a session");
        }
    }

    /// Whether a session that was met has ended.
    pub(super) fn has_parted(&self, session: &str) -> bool {
        !self.sessions.contains_key(session)
    }

    /// Like [`Self::greet`], for a session that came with a request: asks nothing if it is known.
    pub(super) async fn meet(&self, session: &store::Session) {
        if !self.sessions.contains_key(&session.id) {
            self.greet(session).await;
        }
    }

    /// The session is over: its phone password is void.
    async fn part(&self, session: &str) {
        let Some((id, account)) = self.sessions.remove(session) else { return };
        if let Answer::Refused(refusal) =
            self.handle.ask(asker(&account), Ask::LoggedOut { session: id }).await
        {
            tracing::warn!(user = %account.name, refusal.words, "a phone stays registered after its log-out");
        }
    }

    /// Brings the engine's sessions in line with the store's: at the start, each minute (sessions
    /// end by themselves), and after an account changed.
    ///
    /// # Errors
    /// The store does not answer; nothing changed then.
    pub async fn follow_sessions(&self) -> Result<(), store::StoreError> {
        let live = self.handle.store().sessions(clock::now().wall_ms).await?;
        let known: Vec<String> = self.sessions.iter().map(|entry| entry.key().clone()).collect();
        for id in known.iter().filter(|id| !live.iter().any(|session| session.id == **id)) {
            self.part(id).await;
        }
        for session in &live {
            self.meet(session).await;
        }
        Ok(())
    }

    /// Follows the store's sessions for as long as the node runs.
    pub async fn keep_following_sessions(self) {
        loop {
            tokio::time::sleep(FOLLOW_EVERY).await;
            if let Err(error) = self.follow_sessions().await {
                tracing::warn!(%error, "sessions were not looked at: ended ones keep their phones for now");
            }
        }
    }

    fn phone_password(&self, session: &str) -> String {
        let secret = self.settings.pair_secret.expose();
        // HMAC takes a key of any length; an empty password would only mean that this phone cannot register.
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret);
        let sum =
            mac.map(|mac| mac.chain_update(PASSWORD_PURPOSE).chain_update(session).finalize().into_bytes());
        sum.map(|sum| URL_SAFE_NO_PAD.encode(sum)).unwrap_or_default()
    }

    fn shape(&self, session: &store::Session) -> Shape {
        let account = &session.account;
        Shape {
            user: account.name.clone(),
            role: account.role,
            queues: account.queues.clone(),
            sip: Phone {
                uri: format!("sip:{}@{}", account.name, self.settings.domain),
                username: account.name.clone(),
                password: self.phone_password(&session.id),
                websocket: SIP_PATH,
                expires_at: At(session.expires_at),
            },
        }
    }

    /// Sets the cookie, or takes it away where `cookie` is empty.
    fn with_cookie(&self, cookie: &str, mut response: Response) -> Response {
        let age_s = if cookie.is_empty() { 0 } else { SESSION_MS / 1_000 };
        let secure = if self.settings.secure { "; Secure" } else { "" };
        let text = format!("{COOKIE}={cookie}; HttpOnly; SameSite=Strict; Path=/; Max-Age={age_s}{secure}");
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(header::SET_COOKIE, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use reqwest::Method;

    use super::*;
    use crate::edge::web::testing::{PASSWORD, Site};

    fn login(name: &str, password: &str) -> String {
        serde_json::json!({ "username": name, "password": password }).to_string()
    }

    #[tokio::test]
    async fn a_log_in_gives_a_phone_and_a_log_out_takes_it_back() {
        let site = Site::start().await;
        let body = login("anna", PASSWORD);
        let response = site.request(Method::POST, "/api/v1/session", "", &body).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        let set = response.headers()["set-cookie"].to_str().unwrap().to_owned();
        for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(set.contains(part), "{set}");
        }
        let given: serde_json::Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!((&given["user"], &given["role"]), (&"anna".into(), &"operator".into()));
        assert_eq!(given["queues"], serde_json::json!(["orders"]));
        assert_eq!(given["sip"]["uri"], "sip:anna@tandem.test");
        assert_eq!(given["sip"]["websocket"], "/sip");
        let cookie = set.split(';').next().unwrap();
        let (_, again) = site.ask(Method::GET, "/api/v1/session", cookie, "").await;
        assert_eq!(again["sip"]["password"], given["sip"]["password"], "a reload keeps the phone's password");
        let password = given["sip"]["password"].as_str().unwrap();
        assert!(!set.contains(password) && password.len() == 43);
        let expected = Ha1::new("anna", "tandem.test", password);
        let asked = site.asked();
        assert!(matches!(&asked[0].1, Ask::LoggedIn { ha1, .. } if *ha1 == expected), "{asked:?}");
        let (status, _) = site.ask(Method::DELETE, "/api/v1/session", cookie, "").await;
        assert_eq!(status.as_u16(), 204);
        assert!(matches!(site.asked().last().unwrap().1, Ask::LoggedOut { .. }));
        let (status, _) = site.ask(Method::GET, "/api/v1/session", cookie, "").await;
        assert_eq!(status.as_u16(), 401, "a cookie is dead after the log-out");
    }

    #[tokio::test]
    async fn a_wrong_name_and_a_wrong_password_look_alike_and_too_many_must_wait() {
        let site = Site::start().await;
        let path = "/api/v1/session";
        let wrong_password = site.ask(Method::POST, path, "", &login("anna", "wrong horse")).await;
        let wrong_name = site.ask(Method::POST, path, "", &login("nobody", "wrong horse")).await;
        assert_eq!(wrong_password, wrong_name);
        assert_eq!(wrong_name.0.as_u16(), 401);
        for _ in 0..2 {
            site.ask(Method::POST, path, "", &login("anna", "wrong horse")).await;
        }
        let response = site.request(Method::POST, path, "", &login("anna", PASSWORD)).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 429);
        assert!(response.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
        let (status, _) = site.ask(Method::POST, path, "", &login("boris", PASSWORD)).await;
        assert_eq!(status.as_u16(), 200, "another account is not locked");
    }

    #[tokio::test]
    async fn a_foreign_page_cannot_log_in_or_out_and_bad_bodies_are_problems() {
        let site = Site::start().await;
        let cookie = site.cookie("anna").await;
        for (name, value) in
            [("sec-fetch-site", "cross-site"), ("origin", "http://evil.example"), ("origin", "null")]
        {
            let request = site.request(Method::DELETE, "/api/v1/session", &cookie, "").header(name, value);
            assert_eq!(request.send().await.unwrap().status().as_u16(), 403, "{name}: {value}");
        }
        for (body, status) in
            [("{", 400), ("{}", 400), ("[1]", 400), (&*format!("\"{}\"", "x".repeat(70_000)), 413)]
        {
            let response = site.request(Method::POST, "/api/v1/session", "", body).send().await.unwrap();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers()["content-type"], "application/problem+json");
        }
        let form = site.request(Method::POST, "/api/v1/session", "", "").body("username=a&password=b");
        assert_eq!(form.send().await.unwrap().status().as_u16(), 415, "a form of another site is no log-in");
    }

    #[tokio::test]
    async fn sessions_of_before_a_restart_get_their_phones_back_and_ended_ones_lose_them() {
        let site = Site::start().await;
        site.cookie("anna").await;
        site.web.follow_sessions().await.unwrap();
        assert!(
            matches!(&site.asked()[..], [(asker, Ask::LoggedIn { .. })] if asker.name.as_str() == "anna")
        );
        site.web.follow_sessions().await.unwrap();
        assert_eq!(site.asked().len(), 1, "a known session is not told again");
        assert!(site.handle.store().set_disabled("anna", true).await.unwrap());
        site.web.follow_sessions().await.unwrap();
        assert!(matches!(site.asked().last().unwrap().1, Ask::LoggedOut { .. }));
    }
}
