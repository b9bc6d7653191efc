//! A cable between a browser and Tandem that can be pulled.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A cable.
#[derive(Debug)]
pub struct Cable {
    /// Where the browser plugs in.
    pub address: SocketAddr,
    pulled: watch::Sender<u32>,
}

impl Cable {
    /// Lays a cable to this address.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (pulled, pulls) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut pulls = pulls.clone();
                pulls.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        // Either side is done, or the cable is pulled: nobody says goodbye.
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = pulls.changed() => {}
                    }
                });
            }
        });
        Self { address, pulled }
    }

    /// Pulls it: every connection breaks; new ones can be made.
    pub fn pull(&self) {
        self.pulled.send_modify(|pulls| *pulls += 1);
    }
}
