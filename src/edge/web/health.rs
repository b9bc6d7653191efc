//! `/healthz` and `/readyz`: what load balancers, keepalived and people with a pager ask.
//!
//! Invariant: ready means that work was done, not that a process exists: the engine answered, every
//! media thread ticked, the store reads and writes, and a SIP request came back over the real socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::edge::clock;
use crate::edge::web::Web;
use crate::edge::web::origin::is_local;
use crate::edge::web::problem::Problem;
use crate::edge::web::who::{Overseer, Peer};

/// What does not answer within this time does not work.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Times an OPTIONS is sent: a datagram may be lost even here, under load.
const SIP_TRIES: u32 = 3;

/// Somebody who may see how the node fares: this very machine, or a supervisor.
#[derive(Debug)]
pub(super) struct Watcher;

impl FromRequestParts<Web> for Watcher {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Problem> {
        let Peer(peer) = Peer::from_request_parts(parts, web).await?;
        if is_local(peer, &parts.headers) || Overseer::from_request_parts(parts, web).await.is_ok() {
            return Ok(Self);
        }
        Err(Problem::not_allowed("Ask from this machine without a proxy, or log in as a supervisor."))
    }
}

/// The process runs.
pub(super) async fn alive(_: Watcher) -> &'static str {
    "ok\n"
}

/// What `/readyz` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether all parts work.
    pub ready: bool,
    /// Those that do not.
    pub failing: Vec<Failing>,
}

/// A part that does not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failing {
    /// `engine`, `media`, `store` or `sip`.
    pub part: &'static str,
    /// In words.
    pub why: String,
}

/// 200 with all parts, or 503 with those that fail.
pub(super) async fn ready(_: Watcher, State(web): State<Web>) -> (StatusCode, Json<Readiness>) {
    let readiness = web.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}

impl Web {
    /// Does a little of everything.
    pub async fn readiness(&self) -> Readiness {
        let (core, store, sip) = tokio::join!(self.core_works(), self.store_works(), self.sip_works());
        let failing: Vec<Failing> = [core, store, sip].into_iter().filter_map(Result::err).collect();
        Readiness { ready: failing.is_empty(), failing }
    }

    async fn core_works(&self) -> Result<(), Failing> {
        match timeout(ANSWER_WITHIN, self.handle.beat()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(part)) => Err(Failing { part, why: format!("the {part} does not tick") }),
            Err(_) => Err(Failing { part: "engine", why: "the engine does not answer".to_owned() }),
        }
    }

    async fn store_works(&self) -> Result<(), Failing> {
        let health = self.handle.store_health();
        if health.journaling || health.stuck {
            return Err(Failing { part: "store", why: format!("writing fails: {}", health.last_error) });
        }
        match timeout(ANSWER_WITHIN, self.handle.store().beat(clock::wall_ms())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                Err(Failing { part: "store", why: format!("a row cannot be written: {error}") })
            }
            Err(_) => Err(Failing { part: "store", why: "the store does not answer".to_owned() }),
        }
    }

    async fn sip_works(&self) -> Result<(), Failing> {
        let Some(address) = self.settings.sip_udp else { return Ok(()) };
        match loop_back(reachable(address)).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(Failing { part: "sip", why: format!("an OPTIONS to udp {address} stays unanswered") })
            }
            Err(error) => Err(Failing { part: "sip", why: format!("udp {address}: {error}") }),
        }
    }
}

/// An address that this machine reaches the socket at.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => address.ip(),
    };
    SocketAddr::new(ip, address.port())
}

/// Whether an OPTIONS (RFC 3261 section 11) is answered, with whatever status.
async fn loop_back(address: SocketAddr) -> std::io::Result<bool> {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    let own = socket.local_addr()?;
    let mut answer = [0; 64];
    for sequence in 1..=SIP_TRIES {
        socket.send(options(own, address, sequence).as_bytes()).await?;
        let each = ANSWER_WITHIN / SIP_TRIES;
        if let Ok(received) = timeout(each, socket.recv(&mut answer)).await {
            let length = received?;
            return Ok(answer.get(..length).unwrap_or_default().starts_with(b"SIP/2.0 "));
        }
    }
    Ok(false)
}

/// The source port makes branch and Call-ID differ between checks that run at the same time.
fn options(own: SocketAddr, to: SocketAddr, sequence: u32) -> String {
    let port = own.port();
    format!(
        "OPTIONS sip:{to} SIP/2.0\r\nVia: SIP/2.0/UDP {own};rport;branch=z9hG4bK-ready-{port}-{sequence}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:ready@{own}>;tag=ready{port}\r\nTo: <sip:{to}>\r\n\
         Call-ID: ready-{port}-{sequence}@{own}\r\nCSeq: {sequence} OPTIONS\r\nContact: <sip:ready@{own}>\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use reqwest::Method;

    use super::*;
    use crate::edge::web::testing::{Site, dialled_by};

    #[tokio::test]
    async fn a_socket_that_answers_is_ready_and_a_mute_one_is_not() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        assert!(!loop_back(address).await.unwrap());
        let answering = tokio::spawn(async move {
            let mut buffer = [0; 2_000];
            loop {
                let (length, from) = server.recv_from(&mut buffer).await.unwrap();
                assert!(buffer[..length].starts_with(b"OPTIONS sip:127.0.0.1"));
                server.send_to(b"SIP/2.0 200 OK\r\n\r\n", from).await.unwrap();
            }
        });
        assert!(loop_back(address).await.unwrap());
        answering.abort();
    }

    #[test]
    fn an_unspecified_address_is_asked_over_loopback() {
        assert_eq!(reachable("0.0.0.0:5060".parse().unwrap()), "127.0.0.1:5060".parse().unwrap());
        assert_eq!(reachable("192.0.2.1:5060".parse().unwrap()), "192.0.2.1:5060".parse().unwrap());
    }

    #[tokio::test]
    async fn a_part_that_fails_is_named_and_only_this_machine_or_a_supervisor_asks() {
        let site = Site::start().await;
        for path in ["/healthz", "/readyz", "/metrics"] {
            let response = site.request(Method::GET, path, "", "").send().await.unwrap();
            assert_eq!(response.status().as_u16(), 200, "{path}");
            for (cookie, status) in
                [(String::new(), 403), (site.cookie("anna").await, 403), (site.cookie("vera").await, 200)]
            {
                let request =
                    site.request(Method::GET, path, &cookie, "").header("x-forwarded-for", "192.0.2.1");
                assert_eq!(request.send().await.unwrap().status().as_u16(), status, "{path} through a proxy");
            }
        }
        *site.seen.failing.lock().unwrap() = Some("media");
        let (status, body) = site.ask(Method::GET, "/readyz", "", "").await;
        assert_eq!((status.as_u16(), &body["failing"][0]["part"]), (503, &"media".into()));
        site.handle.store().close().await;
        let (_, body) = site.ask(Method::GET, "/readyz", "", "").await;
        assert_eq!(body["failing"][1]["part"], "store");
    }

    #[tokio::test]
    async fn a_store_that_reads_but_takes_nothing_is_not_ready() {
        let site = Site::start().await;
        assert_eq!(site.ask(Method::GET, "/readyz", "", "").await.0.as_u16(), 200);
        site.handle.store().make_read_only_for_test().await.unwrap();
        site.handle.store().ping().await.unwrap();
        let (status, body) = site.ask(Method::GET, "/readyz", "", "").await;
        assert_eq!((status.as_u16(), &body["failing"][0]["part"]), (503, &"store".into()));
        assert!(body["failing"][0]["why"].as_str().unwrap().contains("written"), "{body}");
    }

    #[tokio::test]
    async fn the_metrics_show_live_state() {
        let site = Site::start().await;
        site.handle.fold_for_test(&dialled_by(1, "anna"));
        let page = site.request(Method::GET, "/metrics", "", "").send().await.unwrap().text().await.unwrap();
        for line in [
            "tandem_calls_active{direction=\"out\"} 1",
            "tandem_operators{state=\"paused\"} 0",
            "tandem_outbox_depth 0",
        ] {
            assert!(page.contains(line), "{line} is missing in\n{page}");
        }
    }
}
