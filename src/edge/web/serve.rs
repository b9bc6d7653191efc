//! The web's listener.
//!
//! Invariant: a peer that is slow with its request line or headers loses its connection.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::Handle as Stop;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;

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
        if let Some(tls) = tls {
            let mut server =
                axum_server::from_tcp_rustls(self.listener, RustlsConfig::from_config(tls))?.handle(stop);
            limit(server.http_builder());
            server.serve(service).await
        } else {
            let mut server = axum_server::from_tcp(self.listener)?.handle(stop);
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
