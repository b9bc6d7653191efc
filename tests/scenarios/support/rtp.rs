//! A source of sound by hand: RTP that shares no code with the switch.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::sip::Message;
use super::sound::alaw_tone;

const FRAME: usize = 160;

/// A tone that goes to one address until it is dropped.
#[derive(Debug)]
pub struct Tone {
    task: JoinHandle<()>,
}

impl Tone {
    /// A-law, 20 ms packets, without end, from any port of `from`.
    pub async fn play(hz: u32, from: IpAddr, to: SocketAddr) -> Self {
        let sound = alaw_tone(f64::from(hz), 20_000);
        Self::send(sound, from, to).await
    }

    /// The same of any A-law sound, again and again.
    pub async fn send(sound: Vec<u8>, from: IpAddr, to: SocketAddr) -> Self {
        let socket = UdpSocket::bind((from, 0)).await.unwrap();
        let task = tokio::spawn(async move {
            let mut clock = tokio::time::interval(Duration::from_millis(20));
            for (seq, frame) in (1_u16..).zip(sound.chunks_exact(FRAME).cycle()) {
                clock.tick().await;
                let mut packet = vec![0x80, 8];
                packet.extend(seq.to_be_bytes());
                packet.extend((u32::from(seq) * 160).to_be_bytes());
                packet.extend(0x0c0f_fee0_u32.to_be_bytes());
                packet.extend(frame);
                // A port that nobody holds any more is no matter of the source.
                drop(socket.send_to(&packet, to).await);
            }
        });
        Self { task }
    }
}

impl Drop for Tone {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where the description in a message wants its sound.
pub fn wanted_at(message: &Message) -> SocketAddr {
    let line = |begin: &str| {
        let found = message.body.lines().find_map(|line| line.strip_prefix(begin));
        found.unwrap_or_else(|| panic!("no {begin} in {message:?}")).to_owned()
    };
    let address: IpAddr = line("c=IN IP4 ").parse().unwrap();
    let port = line("m=audio ").split(' ').next().unwrap().parse().unwrap();
    SocketAddr::new(address, port)
}
