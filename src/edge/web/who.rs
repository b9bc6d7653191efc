//! Who asks: the session behind the cookie of a request.
//!
//! Invariant: a handler that takes [`Who`] runs only for somebody who is logged in, one that takes
//! [`Overseer`] only for a supervisor or admin; there is no third way to learn who asks.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use crate::edge::clock;
use crate::edge::store;
use crate::edge::web::Web;
use crate::edge::web::problem::Problem;
use crate::engine::desk::{Asker, Role};
use crate::report::Viewer;

/// The cookie's name.
pub(super) const COOKIE: &str = "tandem_session";
/// Longer is no cookie of ours.
const TOKEN_MAX_CHARS: usize = 128;

/// Somebody who is logged in.
#[derive(Debug, Clone)]
pub(super) struct Who {
    /// His session.
    pub session: store::Session,
}

impl Who {
    /// As the engine knows him.
    pub(super) fn asker(&self) -> Asker {
        asker(&self.session.account)
    }

    /// As the board and the events know him.
    pub(super) fn viewer(&self) -> Viewer {
        Viewer { name: self.session.account.name.clone(), sees_all: self.sees_all() }
    }

    /// Whether he sees everybody's calls and cards.
    pub(super) fn sees_all(&self) -> bool {
        match self.session.account.role {
            store::Role::Operator => false,
            store::Role::Supervisor | store::Role::Admin => true,
        }
    }
}

/// An account as the engine knows it.
pub(super) fn asker(account: &store::Account) -> Asker {
    let role = match account.role {
        store::Role::Operator => Role::Operator,
        store::Role::Supervisor => Role::Supervisor,
        store::Role::Admin => Role::Admin,
    };
    Asker { name: account.name.clone(), role }
}

impl FromRequestParts<Web> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Problem> {
        let token = token(&parts.headers).ok_or_else(Problem::logged_out)?.to_owned();
        let found = web.handle.store().session(&token, clock::now().wall_ms).await;
        let session = found.map_err(|error| {
            tracing::warn!(%error, "the store does not say whose session this is");
            Problem::away("The store")
        })?;
        let session = session.ok_or_else(Problem::logged_out)?;
        web.meet(&session).await;
        Ok(Self { session })
    }
}

/// A supervisor or admin.
#[derive(Debug, Clone)]
pub(super) struct Overseer(pub Who);

impl FromRequestParts<Web> for Overseer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Problem> {
        let who = Who::from_request_parts(parts, web).await?;
        if who.sees_all() {
            Ok(Self(who))
        } else {
            Err(Problem::not_allowed("Only a supervisor may do this."))
        }
    }
}

/// The other end of the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub SocketAddr);

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = ConnectInfo::<SocketAddr>::from_request_parts(parts, state).await;
        found.map(|ConnectInfo(address)| Self(address)).map_err(|_| Problem::away("The listener"))
    }
}

/// The session cookie of a request. Two of them are a trick (a cookie planted by a neighbouring
/// site under the same name), and then none counts.
pub(super) fn token(headers: &HeaderMap) -> Option<&str> {
    let lists = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = lists.flat_map(|list| list.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut ours = pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value);
    let first = ours.next().filter(|token| !token.is_empty() && token.len() <= TOKEN_MAX_CHARS)?;
    ours.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others_and_two_are_none() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, text.parse().unwrap());
            token(&headers).map(str::to_owned)
        };
        assert_eq!(of("a=b; tandem_session=xyz; c=d").as_deref(), Some("xyz"));
        assert_eq!(of("tandem_session=x; tandem_session=y"), None);
        assert_eq!(of("tandem_session="), None);
        assert_eq!(of("other=1"), None);
        assert_eq!(of(&format!("tandem_session={}", "x".repeat(200))), None);
    }
}
