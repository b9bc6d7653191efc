//! The generator: all parties of all calls, one packet each way every 20 ms, evenly spread.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use tandem::edge::clock;
use tandem::edge::media::socket::Poller;
use tandem::media::rtp::{self, Class, HEADER_LEN};
use tandem::media::srtp::{MAX_OVERHEAD, Srtp};
use tandem::ua::secure::{Secure, SecureOutput};

const PTIME_US: u64 = 20_000;
/// Between two looks at the sockets: delays are told no finer.
const LOOK: Duration = Duration::from_micros(250);
const PAYLOAD: usize = 160;
/// Delays above it are told as it.
const MAX_DELAY_US: usize = 200_000;

/// Which party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Plain,
    Other,
}

/// What protects a party's packets.
pub(crate) enum Shield {
    None,
    /// Keys from SDP.
    Srtp(Box<Srtp>),
    /// A browser's way: it also checks and shakes hands.
    Browser(Box<Secure>),
}

/// One party of a call.
pub(crate) struct Party {
    pub(crate) socket: UdpSocket,
    pub(crate) to: SocketAddr,
    pub(crate) shield: Shield,
    seq: u16,
    due_us: u64,
    sent: u64,
    heard: u64,
}

impl Party {
    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    fn speak(&mut self, ssrc: u32, now_us: u64) {
        let mut packet = vec![0xd5; HEADER_LEN + PAYLOAD + MAX_OVERHEAD];
        rtp::write(&mut packet, false, 0, self.seq, 160 * u32::from(self.seq), ssrc).unwrap();
        packet[HEADER_LEN..HEADER_LEN + 8].copy_from_slice(&now_us.to_be_bytes());
        self.seq = self.seq.wrapping_add(1);
        let len = HEADER_LEN + PAYLOAD;
        let packet = match &mut self.shield {
            Shield::None => &packet[..len],
            Shield::Srtp(srtp) => {
                let len = srtp.protect_rtp(&mut packet, len).unwrap();
                &packet[..len]
            }
            Shield::Browser(secure) => {
                packet.truncate(len);
                packet = secure.protect(packet).unwrap();
                &packet[..]
            }
        };
        self.sent += u64::from(self.socket.send_to(packet, self.to).is_ok());
    }

    /// The times at which the packets that wait here were sent.
    fn hear(&mut self, now_us: u64, delays: &mut Vec<u64>) {
        let mut buffer = [0; 1_500];
        while let Ok((len, _)) = self.socket.recv_from(&mut buffer) {
            let datagram = &mut buffer[..len];
            match &mut self.shield {
                Shield::None => self.heard += note(datagram, now_us, delays),
                Shield::Srtp(srtp) if rtp::class(datagram) == Class::Rtp => {
                    if let Ok(len) = srtp.unprotect_rtp(datagram) {
                        self.heard += note(&datagram[..len], now_us, delays);
                    }
                }
                Shield::Srtp(_) => {}
                Shield::Browser(secure) => secure.handle(datagram, now_us / 1_000),
            }
        }
        self.drain(now_us, delays);
    }

    /// Whether a browser's way stands since this turn.
    fn drain(&mut self, now_us: u64, delays: &mut Vec<u64>) -> bool {
        let mut stands = false;
        let Shield::Browser(secure) = &mut self.shield else { return false };
        while let Some(output) = secure.poll() {
            match output {
                SecureOutput::Datagram(datagram) => drop(self.socket.send_to(&datagram, self.to)),
                SecureOutput::Packet(packet) => self.heard += note(&packet, now_us, delays),
                SecureOutput::Control(_) => {}
                SecureOutput::Secured => stands = true,
                SecureOutput::Failed(why) => panic!("{why}"),
            }
        }
        stands
    }
}

/// 1 for an RTP packet of ours.
fn note(packet: &[u8], now_us: u64, delays: &mut Vec<u64>) -> u64 {
    let sent = (rtp::class(packet) == Class::Rtp).then(|| packet.get(HEADER_LEN..HEADER_LEN + 8)).flatten();
    let sent = sent.map(|sent| u64::from_be_bytes(sent.try_into().unwrap()));
    // Comfort silence of the relay itself carries no time.
    let delay = sent.and_then(|sent| now_us.checked_sub(sent)).filter(|delay| *delay < 60_000_000);
    delays.extend(delay);
    u64::from(delay.is_some())
}

/// All parties.
pub(crate) struct Generator {
    pub(crate) parties: Vec<[Party; 2]>,
    poller: Poller,
    ready: Vec<u64>,
    delays: Vec<u64>,
    upkeep_us: u64,
}

impl Generator {
    pub(crate) fn new(calls: usize) -> Self {
        let poller = Poller::new(1_024).unwrap();
        let party = |name: usize| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            poller.add(&socket, name as u64).unwrap();
            let to = socket.local_addr().unwrap();
            Party { socket, to, shield: Shield::None, seq: 1, due_us: 0, sent: 0, heard: 0 }
        };
        let parties = (0..calls).map(|call| [party(2 * call), party(2 * call + 1)]).collect();
        Self { parties, poller, ready: Vec::new(), delays: Vec::new(), upkeep_us: 0 }
    }

    /// Lets browsers check and shake hands until all stand.
    pub(crate) fn shake(&mut self) {
        let mut missing = self.parties.len();
        let give_up_us = clock::mono_us() + 30_000_000;
        while missing > 0 {
            let now_us = clock::mono_us();
            assert!(now_us < give_up_us, "{missing} browsers did not come through");
            for [_, browser] in &mut self.parties {
                let Shield::Browser(secure) = &mut browser.shield else { return };
                secure.handle_timeout(now_us / 1_000);
                let mut buffer = [0; 2_048];
                while let Ok((len, _)) = browser.socket.recv_from(&mut buffer) {
                    secure.handle(&buffer[..len], now_us / 1_000);
                }
                missing -= usize::from(browser.drain(now_us, &mut self.delays));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Everybody speaks for so long.
    pub(crate) fn run(&mut self, time: Duration) {
        let begin_us = clock::mono_us();
        let end_us = begin_us + time.as_micros() as u64;
        let count = self.parties.len() as u64;
        for (call, pair) in self.parties.iter_mut().enumerate() {
            for (side, party) in pair.iter_mut().enumerate() {
                party.due_us = begin_us + call as u64 * PTIME_US / count + side as u64 * PTIME_US / 2;
            }
        }
        loop {
            let now_us = clock::mono_us();
            if now_us >= end_us {
                break;
            }
            for (call, pair) in self.parties.iter_mut().enumerate() {
                for (side, party) in pair.iter_mut().enumerate() {
                    while party.due_us <= now_us {
                        party.speak(0x1000_0000 + 2 * call as u32 + side as u32, now_us);
                        party.due_us += PTIME_US;
                    }
                }
            }
            self.listen();
            std::thread::sleep(LOOK);
        }
    }

    fn listen(&mut self) {
        self.poller.wait(0, &mut self.ready).unwrap();
        let now_us = clock::mono_us();
        for name in &self.ready {
            let name = *name as usize;
            self.parties[name / 2][name % 2].hear(now_us, &mut self.delays);
        }
        if now_us >= self.upkeep_us {
            self.upkeep_us = now_us + 100_000;
            for party in self.parties.iter_mut().flatten() {
                if let Shield::Browser(secure) = &mut party.shield {
                    secure.handle_timeout(now_us / 1_000);
                }
                party.drain(now_us, &mut self.delays);
            }
        }
    }

    /// Takes what is still on its way.
    pub(crate) fn settle(&mut self) {
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(2));
            self.listen();
        }
    }

    /// Counts from here.
    pub(crate) fn forget(&mut self) {
        self.settle();
        self.delays.clear();
        for party in self.parties.iter_mut().flatten() {
            (party.sent, party.heard) = (0, 0);
        }
    }

    pub(crate) fn sent(&self) -> u64 {
        self.parties.iter().flatten().map(|party| party.sent).sum()
    }

    pub(crate) fn heard(&self, side: Side) -> u64 {
        self.parties.iter().map(|pair| pair[usize::from(side == Side::Other)].heard).sum()
    }

    /// p50 and p99.
    pub(crate) fn delays_us(&mut self) -> (u64, u64) {
        self.delays.sort_unstable();
        let at = |part: usize| self.delays.get(self.delays.len() * part / 100).copied().unwrap_or_default();
        (at(50).min(MAX_DELAY_US as u64), at(99).min(MAX_DELAY_US as u64))
    }
}

/// Nanoseconds on a CPU of those threads of a process whose name fits.
pub(crate) fn cpu_ns(pid: u32, fits: impl Fn(&str) -> bool) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut sum = 0;
    for task in tasks.flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if fits(read("comm").trim()) {
            sum += read("schedstat").split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    sum
}

/// How busy the machine is, by its one-minute average.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}
