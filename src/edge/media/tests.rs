//! The whole plane on loopback: real sockets, real threads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, channel};
use uuid::Uuid;

use super::*;
use crate::media::command::{Connect, Law, Line, Remote, Sound};
use crate::media::dtls::{DtlsOutput, Handshake};
use crate::media::g711::decode;
use crate::media::ice::IceFull;
use crate::media::prompt::Track;
use crate::media::rtp::{self, Class, HEADER_LEN, Header};
use crate::media::srtp::Srtp;
use crate::media::tone::strength;
use crate::terms::{CallId, LegId, PortId, Secret};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(5);

fn identity() -> Identity {
    let made = rcgen::generate_simple_self_signed(vec!["tandem".to_owned()]).unwrap();
    let key = made.signing_key.serialize_der();
    Identity { certificate: made.cert.der().to_vec(), key: Secret::new(key) }
}

fn plane() -> (MediaPlane, Receiver<(usize, Event)>) {
    let (sender, events) = channel(1_024);
    let config = MediaConfig {
        workers: 1,
        webrtc_port: 0,
        // All addresses: answers must still come from the one that was asked.
        address: Ipv4Addr::UNSPECIFIED.into(),
        dscp: DSCP_EF,
        silence_alarm_ms: 2_000,
        dead_after_ms: 0,
        identity: identity(),
        sounds: Sounds::default().with("hello.wav", Track::new(&[9_000; 8 * 110])),
    };
    (MediaPlane::start(config, sender).unwrap(), events)
}

fn line(number: u64) -> Line {
    Line { ssrc: 1_000 + number as u32, seq: 7, ts: 70, cname: "desk".to_owned() }
}

fn open(number: u64, open: Open) -> Command {
    let id = Uuid::from_u128(u128::from(number));
    Command::Open { port: PortId(number), call: CallId(id), leg: LegId(number), open, line: line(number) }
}

fn connect(number: u64, remote: Remote) -> Command {
    let remote = Connect {
        remote,
        law: Law::Pcma,
        payload_type: 8,
        telephone_event: Some(101),
        comfort_noise: None,
        ptime_ms: 20,
        send: true,
        receive: true,
    };
    Command::Connect { port: PortId(number), remote }
}

fn wait_for(events: &mut Receiver<(usize, Event)>, wanted: impl Fn(&Event) -> bool) -> Event {
    loop {
        let (_, event) = events.blocking_recv().expect("the plane lives");
        if wanted(&event) {
            return event;
        }
    }
}

/// A hundred ports of this test alone: other runs of it on this machine have others.
fn ports(test: u16) -> std::ops::RangeInclusive<u16> {
    let run = u16::try_from(std::process::id() % 20).unwrap();
    let first = 20_000 + run * 600 + test * 100;
    first..=first + 99
}

/// A gateway: a socket that speaks plain RTP with one of our ports.
struct Gateway {
    socket: UdpSocket,
    ours: SocketAddr,
}

impl Gateway {
    /// Opens and connects a plain port of the plane to itself.
    fn join(plane: &MediaPlane, number: u64, free: u16) -> Self {
        let socket = UdpSocket::bind((LOCAL, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let ours = SocketAddr::new(LOCAL, free);
        let rtp = socket.local_addr().unwrap();
        plane.send(0, open(number, Open::Rtp { local: ours }));
        plane.send(0, connect(number, Remote::Plain { rtp, rtcp: rtp, may_latch: false, also: None }));
        Self { socket, ours }
    }

    fn speak(&self, seq: u16, payload: &[u8]) {
        let mut bytes = vec![0; HEADER_LEN];
        rtp::write(&mut bytes, false, 8, seq, 160 * u32::from(seq), 77).unwrap();
        bytes.extend_from_slice(payload);
        self.socket.send_to(&bytes, self.ours).unwrap();
    }

    fn hear(&self) -> (Header, Vec<u8>) {
        let mut bytes = [0; 1_500];
        loop {
            let (len, from) = self.socket.recv_from(&mut bytes).expect("a packet in time");
            if rtp::class(&bytes[..len]) == Class::Rtp {
                assert_eq!(from, self.ours);
                let header = rtp::read(&bytes[..len]).unwrap();
                return (header.clone(), bytes[header.payload].to_vec());
            }
        }
    }

    /// Speaks until the other hears it: what comes before both ports are joined is not relayed.
    fn speak_until_heard_by(&self, other: &Self) {
        for seq in 60_000..60_500 {
            self.speak(seq, &[0xbb; 160]);
            if other.hear().1 == [0xbb; 160] {
                return;
            }
        }
        panic!("the ports were never joined");
    }

    /// The first packet whose payload is this one: comfort silence may come before it.
    fn hear_only(&self, payload: &[u8]) -> Header {
        for _ in 0..500 {
            let (header, heard) = self.hear();
            if heard == payload {
                return header;
            }
            assert!(heard == [0xd5; 160] || heard == [0xbb; 160], "neither what was said nor silence");
        }
        panic!("ten seconds of silence");
    }
}

/// A browser: checks, shakes hands and speaks SRTP over one socket.
struct Browser {
    socket: UdpSocket,
    ours: SocketAddr,
    ice: IceFull,
    dtls: Box<dyn Handshake>,
    srtp: Option<Srtp>,
    promised: [u8; 32],
}

impl Browser {
    fn new(plane: &MediaPlane, ufrag: &str, pwd: &str) -> (Self, [u8; 32]) {
        let socket = UdpSocket::bind((LOCAL, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let now_ms = clock::mono_ms();
        let party = DtlsParty::new(&identity(), clock::instant_of(now_ms).into_std(), now_ms).unwrap();
        let fingerprint = party.fingerprint();
        let browser = Self {
            socket,
            // An address that the routing table would not choose by itself.
            ours: SocketAddr::new(Ipv4Addr::new(127, 0, 0, 9).into(), plane.webrtc_port(0)),
            ice: IceFull::new("them", ufrag, Secret::new(pwd.to_owned()), 5),
            dtls: party.client(now_ms),
            srtp: None,
            promised: plane.fingerprint(),
        };
        (browser, fingerprint)
    }

    fn check(&mut self) {
        let check = self.ice.check([3; 12]);
        self.socket.send_to(&check, self.ours).unwrap();
    }

    /// One turn: what came in is worked on; a decrypted RTP packet comes back.
    fn turn(&mut self) -> Option<Vec<u8>> {
        let now_ms = clock::mono_ms();
        if self.dtls.next_timeout().is_some_and(|due| due <= now_ms) {
            self.dtls.handle_timeout(now_ms);
        }
        while let Some(output) = self.dtls.poll() {
            match output {
                DtlsOutput::Datagram(bytes) => drop(self.socket.send_to(&bytes, self.ours).unwrap()),
                DtlsOutput::Secured(secured) => {
                    assert_eq!(secured.fingerprint, self.promised);
                    self.srtp = Srtp::new(&secured.keys);
                }
                DtlsOutput::Closed | DtlsOutput::Failed(_) => panic!("{output:?}"),
            }
        }
        let mut bytes = [0; 1_500];
        let (len, from) = self.socket.recv_from(&mut bytes).ok()?;
        assert_eq!(from, self.ours);
        let datagram = &mut bytes[..len];
        match rtp::class(datagram) {
            Class::Stun => drop(self.ice.answered(datagram)),
            Class::Dtls => self.dtls.handle(datagram, now_ms),
            Class::Rtp => {
                let len = self.srtp.as_mut()?.unprotect_rtp(datagram).unwrap();
                return Some(datagram[..len].to_vec());
            }
            Class::Rtcp | Class::Unknown => {}
        }
        None
    }

    fn shake(&mut self) {
        for turn in 0..200 {
            if turn % 10 == 0 {
                self.check();
            }
            self.turn();
            if self.srtp.is_some() {
                return;
            }
        }
        panic!("DTLS did not complete");
    }

    fn speak(&mut self, seq: u16, payload: &[u8]) {
        let mut bytes = [0; 300];
        rtp::write(&mut bytes, false, 8, seq, 160 * u32::from(seq), 99).unwrap();
        bytes[HEADER_LEN..HEADER_LEN + payload.len()].copy_from_slice(payload);
        let len = self.srtp.as_mut().unwrap().protect_rtp(&mut bytes, HEADER_LEN + payload.len()).unwrap();
        self.socket.send_to(&bytes[..len], self.ours).unwrap();
    }

    fn hear(&mut self) -> (Header, Vec<u8>) {
        for _ in 0..200 {
            if let Some(bytes) = self.turn() {
                let header = rtp::read(&bytes).unwrap();
                return (header.clone(), bytes[header.payload].to_vec());
            }
        }
        panic!("no packet in time");
    }
}

#[test]
fn two_gateways_hear_each_other() {
    let (mut plane, mut events) = plane();
    let free = plane.free_rtp_ports(LOCAL, ports(0));
    let (a, b) = (Gateway::join(&plane, 1, free[0]), Gateway::join(&plane, 2, free[1]));
    plane.send(0, Command::Join { a: PortId(1), b: PortId(2) });
    a.speak_until_heard_by(&b);
    b.speak_until_heard_by(&a);
    for number in 0..50u8 {
        a.speak(61_000 + u16::from(number), &[number; 160]);
        b.speak(61_900 + u16::from(number), &[100 + number; 160]);
        assert_eq!(b.hear_only(&[number; 160]).ssrc, 1_002);
        assert_eq!(a.hear_only(&[100 + number; 160]).ssrc, 1_001);
    }
    wait_for(&mut events, |event| *event == Event::Connected { port: PortId(1) });
    plane.send(0, Command::Close { port: PortId(1) });
    wait_for(&mut events, |event| matches!(event, Event::Quality { port: PortId(1), .. }));
    plane.stop();
    let counts = plane.counts();
    assert_eq!((counts.send_errors, counts.lost_commands, counts.lost_events), (0, 0, 0));
}

#[test]
fn a_party_hears_the_tone_that_is_played_to_it() {
    let (plane, mut events) = plane();
    let free = plane.free_rtp_ports(LOCAL, ports(1));
    let gateway = Gateway::join(&plane, 1, free[0]);
    let play = |sound, token| Command::Play { port: PortId(1), sound, repeat: false, token };
    plane.send(0, play(Sound::File("none.wav".into()), 5));
    wait_for(&mut events, |event| *event == Event::PlayEnded { port: PortId(1), token: 5 });
    plane.send(0, play(Sound::Ringback, 6));
    let mut sound = Vec::new();
    while sound.len() < 4_000 {
        sound.extend(gateway.hear().1.iter().map(|octet| decode(Law::Pcma, *octet)));
    }
    assert!(strength(&sound, 425.0) > 0.15, "{}", strength(&sound, 425.0));
    assert!(strength(&sound, 1_000.0) < 0.01);
}

#[test]
fn a_prompt_is_heard_to_its_end_and_then_said_to_be_over() {
    let (plane, mut events) = plane();
    let free = plane.free_rtp_ports(LOCAL, ports(5));
    let gateway = Gateway::join(&plane, 1, free[0]);
    let sound = Sound::File("hello.wav".into());
    plane.send(0, Command::Play { port: PortId(1), sound, repeat: false, token: 8 });
    wait_for(&mut events, |event| *event == Event::PlayEnded { port: PortId(1), token: 8 });
    let heard: Vec<(Header, Vec<u8>)> = (0..6).map(|_| gateway.hear()).collect();
    assert!(heard.iter().all(|(_, octets)| decode(Law::Pcma, octets[0]) > 8_000));
    assert_eq!(decode(Law::Pcma, heard[5].1[159]), 8, "110 ms of sound in six packets, the last padded");
    assert!(heard.windows(2).all(|pair| pair[1].0.seq == pair[0].0.seq + 1));
    assert_eq!(
        heard.iter().map(|(header, _)| header.marker).collect::<Vec<_>>(),
        [true, false, false, false, false, false]
    );
}

#[test]
fn a_port_that_is_taken_is_said_at_once_and_a_closed_one_is_free_again() {
    let (mut plane, mut events) = plane();
    let free = plane.free_rtp_ports(LOCAL, ports(2));
    let taken = UdpSocket::bind((LOCAL, free[0] + 1)).unwrap();
    let local = SocketAddr::new(LOCAL, free[0]);
    plane.send(0, open(1, Open::Rtp { local }));
    let failed = events.try_recv().unwrap().1;
    assert!(
        matches!(&failed, Event::OpenFailed { port: PortId(1), why } if why.contains(&free[0].to_string())),
        "{failed:?}"
    );
    drop(taken);
    plane.send(0, open(1, Open::Rtp { local }));
    assert!(!plane.free_rtp_ports(LOCAL, ports(2)).contains(&free[0]));
    plane.stop();
    assert!(plane.free_rtp_ports(LOCAL, ports(2)).contains(&free[0]));
}

#[test]
fn a_browser_and_a_gateway_hear_each_other() {
    let (plane, mut events) = plane();
    let free = plane.free_rtp_ports(LOCAL, ports(3));
    let gateway = Gateway::join(&plane, 1, free[0]);
    let pwd = "passwordpasswordpassword";
    plane.send(0, open(2, Open::WebRtc { ufrag: "ours".into(), pwd: Secret::new(pwd.to_owned()) }));
    let (mut browser, fingerprint) = Browser::new(&plane, "ours", pwd);
    plane.send(0, Command::Join { a: PortId(1), b: PortId(2) });
    // The handshake may come before the answer of signalling.
    browser.shake();
    plane.send(0, connect(2, Remote::WebRtc { ufrag: "them".into(), fingerprint }));
    wait_for(&mut events, |event| matches!(event, Event::Secured { port: PortId(2), .. }));
    wait_for(&mut events, |event| *event == Event::Connected { port: PortId(2) });
    for number in 0..50u8 {
        gateway.speak(u16::from(number), &[number; 160]);
        let (header, heard) = browser.hear();
        assert_eq!((header.ssrc, heard), (1_002, vec![number; 160]));
        browser.speak(900 + u16::from(number), &[100 + number; 160]);
        assert_eq!(gateway.hear_only(&[100 + number; 160]).ssrc, 1_001);
    }
    let progress = wait_for(&mut events, |event| matches!(event, Event::Progress(ports) if ports.len() == 2));
    let Event::Progress(ports) = progress else { unreachable!() };
    let of_browser = ports.iter().find(|progress| progress.port == PortId(2)).unwrap();
    assert_eq!(of_browser.address, Some(browser.socket.local_addr().unwrap()));
    assert!(of_browser.received.is_some_and(|(ssrc, index)| ssrc == 99 && index >= 900));
}

#[test]
fn a_browser_with_another_certificate_than_promised_is_refused() {
    let (plane, mut events) = plane();
    let pwd = "passwordpasswordpassword";
    plane.send(0, open(2, Open::WebRtc { ufrag: "ours".into(), pwd: Secret::new(pwd.to_owned()) }));
    let (mut browser, _) = Browser::new(&plane, "ours", pwd);
    plane.send(0, connect(2, Remote::WebRtc { ufrag: "them".into(), fingerprint: [1; 32] }));
    browser.shake();
    let failed = wait_for(&mut events, |event| matches!(event, Event::Failed { .. } | Event::Secured { .. }));
    assert!(matches!(failed, Event::Failed { port: PortId(2), why } if why.contains("certificate")));
}

#[test]
fn a_browser_that_restarts_ice_from_another_socket_is_followed_with_its_keys() {
    let (plane, mut events) = plane();
    let free = plane.free_rtp_ports(LOCAL, ports(4));
    let gateway = Gateway::join(&plane, 1, free[0]);
    let pwd = "passwordpasswordpassword";
    plane.send(0, open(2, Open::WebRtc { ufrag: "first".into(), pwd: Secret::new(pwd.to_owned()) }));
    let (mut browser, fingerprint) = Browser::new(&plane, "first", pwd);
    plane.send(0, connect(2, Remote::WebRtc { ufrag: "them".into(), fingerprint }));
    plane.send(0, Command::Join { a: PortId(1), b: PortId(2) });
    browser.shake();
    wait_for(&mut events, |event| *event == Event::Connected { port: PortId(2) });
    let new_pwd = "drowssapdrowssapdrowssap";
    let ufrag = "second".to_owned();
    plane.send(0, Command::Restart { port: PortId(2), ufrag, pwd: Secret::new(new_pwd.to_owned()) });
    plane.send(0, connect(2, Remote::WebRtc { ufrag: "anew".into(), fingerprint }));
    browser.ice = IceFull::new("anew", "second", Secret::new(new_pwd.to_owned()), 5);
    browser.socket = UdpSocket::bind((LOCAL, 0)).unwrap();
    browser.socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut heard = false;
    for seq in 1..100 {
        // Browsers repeat their checks too: one may come before the worker knows the new name.
        browser.check();
        if browser.turn().is_some() {
            heard = true;
            break;
        }
        gateway.speak(seq, &[9; 160]);
    }
    assert!(heard, "sound follows the browser");
}

#[test]
fn nobody_shakes_hands_or_speaks_without_an_authentic_check() {
    let (mut plane, mut events) = plane();
    let pwd = "passwordpasswordpassword";
    plane.send(0, open(2, Open::WebRtc { ufrag: "ours".into(), pwd: Secret::new(pwd.to_owned()) }));
    let (mut stranger, fingerprint) = Browser::new(&plane, "ours", "wrongwrongwrongwrongwrong");
    plane.send(0, connect(2, Remote::WebRtc { ufrag: "them".into(), fingerprint }));
    for _ in 0..5 {
        stranger.check();
        stranger.turn();
    }
    let mut bytes = vec![0; HEADER_LEN + 160];
    rtp::write(&mut bytes, false, 8, 1, 1, 99).unwrap();
    stranger.socket.send_to(&bytes, stranger.ours).unwrap();
    assert!(stranger.socket.recv_from(&mut bytes).is_err(), "not a word to a stranger");
    plane.stop();
    let counts = plane.counts();
    assert!(counts.refused >= 1 && counts.stray >= 2, "{counts:?}");
    assert_eq!(counts.sent, 0);
    while let Ok((_, event)) = events.try_recv() {
        assert!(!matches!(event, Event::Secured { .. } | Event::Connected { .. }), "{event:?}");
    }
}

#[test]
fn a_worker_that_stands_still_is_told_from_one_that_turns() {
    let (plane, _events) = plane();
    let ticked = || plane.desks[0].ticked_ms.load(Ordering::Relaxed);
    // A worker that has nothing to do turns all the same.
    let born = ticked();
    let patience = clock::mono_ms() + 5_000;
    while ticked() == born && clock::mono_ms() < patience {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(ticked() > born && plane.is_ticking(clock::mono_ms()));
    let (release, until) = sync_channel(0);
    assert!(plane.order(0, Order::Stall(until)));
    // It takes the order in a turn of its own, and no turn comes after it.
    let later = |after: u64| after + STALLED_MS + 1;
    let mut last = ticked();
    loop {
        std::thread::sleep(Duration::from_millis(50));
        if ticked() == last && clock::mono_ms() > last + 50 {
            break;
        }
        last = ticked();
    }
    assert!(plane.is_ticking(last) && !plane.is_ticking(later(last)));
    drop(release);
    let patience = clock::mono_ms() + 5_000;
    while ticked() == last && clock::mono_ms() < patience {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(plane.is_ticking(clock::mono_ms()), "it turns again");
}
