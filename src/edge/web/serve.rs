//! The web's listener.
//!
//! Invariant: a peer that is slow with its request line or headers loses its connection.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::Handle as Stop;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;

use crate::edge::web::door::Door;

/// From the first byte of a request to the end of its headers.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a request's headers.
const HEADERS_MAX_BYTES: usize = 32 * 1024;

/// An open listener that serves nobody yet.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    /// Where it listens.
    pub local: SocketAddr,
}

/// Opens `address`; port 0 takes a free one.
///
/// # Errors
/// The address is not ours, or the port is taken.
pub fn listen(address: SocketAddr) -> io::Result<Listening> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let local = listener.local_addr()?;
    Ok(Listening { listener, local })
}

impl Listening {
    /// Serves until `stop` is told to shut down; plain HTTP without `tls`.
    ///
    /// # Errors
    /// The listener broke.
    pub async fn serve(
        self,
        router: Router,
        tls: Option<Arc<ServerConfig>>,
        stop: Stop<SocketAddr>,
    ) -> io::Result<()> {
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let server = axum_server::from_tcp(self.listener)?.handle(stop);
        if let Some(tls) = tls {
            let tls = RustlsAcceptor::new(RustlsConfig::from_config(tls)).acceptor(Door::new());
            let mut server = server.acceptor(tls);
            limit(server.http_builder());
            server.serve(service).await
        } else {
            let mut server = server.acceptor(Door::new());
            limit(server.http_builder());
            server.serve(service).await
        }
    }
}

fn limit<E>(builder: &mut Builder<E>) {
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(HEADERS_MAX_BYTES);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use crate::edge::web::testing::Site;

    /// What the server answers to these bytes before it closes, or all that came in a second.
    async fn answer(site: &Site, request: &str) -> String {
        let mut stream = TcpStream::connect(site.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        drop(tokio::time::timeout(std::time::Duration::from_secs(1), reading).await);
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn a_request_that_two_servers_would_read_differently_is_not_served() {
        let site = Site::start().await;
        let smuggled = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
        let length = smuggled.len();
        let head = "POST /api/v1/session HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
        let rows = [
            // Two lengths.
            format!("{head}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{smuggled}"),
            // An unknown transfer coding.
            format!("{head}Transfer-Encoding: xchunked\r\nContent-Length: {length}\r\n\r\n{smuggled}"),
            // A chunk size that is none.
            format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n{smuggled}"),
            // HTTP/2 in clear.
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        ];
        for request in rows {
            let answered = answer(&site, &request).await;
            assert!(!answered.contains("200 OK") && !answered.contains("\nok"), "{request:?}\n{answered}");
        }
        let both =
            format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n{smuggled}");
        let answered = answer(&site, &both).await;
        assert!(!answered.starts_with("HTTP/1.1 200"), "{answered}");
        let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
        assert!(!answer(&site, upgrade).await.contains("101 Switching"));
    }

    #[tokio::test]
    async fn headers_without_an_end_and_screens_with_their_policy() {
        let site = Site::start().await;
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(40_000));
        assert!(answer(&site, &long).await.starts_with("HTTP/1.1 431"));
        let page = site.request(reqwest::Method::GET, "/", "", "").send().await.unwrap();
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"));
        assert!(page.headers()["permissions-policy"].to_str().unwrap().contains("microphone=(self)"));
    }
}
