//! The role of a GSM gateway: SIP over UDP, plain RTP. It registers with digest, brings calls of the mobile
//! network and takes calls to it, with the ring of the network as early media.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::agent::Carrier;
use super::phone::{Body, Clock, Order, Phone, PhoneConfig, Reports, Role, Style};
use crate::sip::message::MAX_MESSAGE;

/// How often the sound is looked after.
pub(super) const TICK: Duration = Duration::from_millis(5);
/// How long the last messages of a phone that stops may take to be repeated.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(300);

/// Starts a gateway that registers with the switch at `server`. It runs until [`Phone::stop`] or until the
/// last [`Phone`] is dropped. Fails when no socket can be had.
pub async fn start(config: PhoneConfig, server: SocketAddr) -> io::Result<(Phone, Reports)> {
    let socket = UdpSocket::bind((config.address, 0)).await?;
    let (phone, reports, orders, teller) = Phone::pair();
    let carrier = Carrier::Udp(socket.local_addr()?);
    let body = Body::new(&config, Style::new(&config, Role::Gateway), carrier, teller);
    let gateway = Gateway { body, socket, server, clock: Arc::clone(&config.clock) };
    tokio::spawn(gateway.run(orders));
    Ok((phone, reports))
}

struct Gateway {
    body: Body,
    socket: UdpSocket,
    server: SocketAddr,
    clock: Clock,
}

impl Gateway {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut buf = vec![0; MAX_MESSAGE];
        self.body.register((self.clock)());
        loop {
            self.flush().await;
            tokio::select! {
                order = orders.recv() => {
                    let Some(order) = order else { return };
                    let stops = matches!(order, Order::Stop);
                    self.body.order(order, (self.clock)());
                    if stops {
                        break;
                    }
                }
                read = self.socket.recv_from(&mut buf) => self.read(&buf, read),
                _ = tick.tick() => self.body.tick((self.clock)()),
            }
        }
        let last_words = async {
            loop {
                self.flush().await;
                tokio::select! {
                    read = self.socket.recv_from(&mut buf) => self.read(&buf, read),
                    _ = tick.tick() => self.body.tick((self.clock)()),
                }
            }
        };
        // The time is the end: it has none of its own.
        tokio::time::timeout(LAST_WORDS, last_words).await.ok();
    }

    /// Only the switch is listened to.
    fn read(&mut self, buf: &[u8], read: io::Result<(usize, SocketAddr)>) {
        if let Ok((len, from)) = read
            && from == self.server
            && let Some(datagram) = buf.get(..len)
        {
            self.body.received(&Bytes::copy_from_slice(datagram), (self.clock)());
        }
    }

    async fn flush(&mut self) {
        for message in self.body.drain((self.clock)()) {
            // A datagram that the kernel refuses is lost; the transaction repeats it.
            self.socket.send_to(&message, self.server).await.ok();
        }
    }
}
