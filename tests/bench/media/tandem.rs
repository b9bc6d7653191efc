//! Our media plane, driven as the engine drives it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use tandem::edge::clock;
use tandem::edge::media::{DSCP_EF, MediaConfig, MediaPlane, Sounds};
use tandem::media::command::{Command, Connect, Event, Law, Line, Open, Remote};
use tandem::media::dtls::{DtlsParty, Identity};
use tandem::sdp::webrtc::{Fingerprint, Setup, Theirs};
use tandem::terms::{CallId, LegId, PortId, Secret};
use tandem::ua::secure::Secure;
use tokio::sync::mpsc::{Receiver, channel};
use uuid::Uuid;

use crate::Relay;
use crate::wire::{Generator, Shield, cpu_ns};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(crate) struct Tandem {
    plane: MediaPlane,
    _events: Receiver<(usize, Event)>,
    opened: Vec<PortId>,
}

fn identity() -> Identity {
    let made = rcgen::generate_simple_self_signed(vec!["bench".to_owned()]).unwrap();
    let key = made.signing_key.serialize_der();
    Identity { certificate: made.cert.der().to_vec(), key: Secret::new(key) }
}

fn party() -> DtlsParty {
    let now_ms = clock::mono_ms();
    DtlsParty::new(&identity(), clock::instant_of(now_ms).into_std(), now_ms).unwrap()
}

impl Tandem {
    /// One worker, as rtpengine has one thread.
    pub(crate) fn start() -> Self {
        let (sender, events) = channel(65_536);
        let config = MediaConfig {
            workers: 1,
            webrtc_port: 0,
            address: LOCAL,
            dscp: DSCP_EF,
            silence_alarm_ms: 10_000,
            dead_after_ms: 60_000,
            identity: identity(),
            sounds: Sounds::default(),
        };
        Self { plane: MediaPlane::start(config, sender).unwrap(), _events: events, opened: Vec::new() }
    }

    fn open(&mut self, open: Open) -> PortId {
        let number = self.opened.len() as u64 + 1;
        let (port, line) = (PortId(number), Line { ssrc: number as u32, seq: 7, ts: 70, cname: "b".into() });
        let call = CallId(Uuid::from_u128(u128::from(number)));
        self.plane.send(0, Command::Open { port, call, leg: LegId(number), open, line });
        self.opened.push(port);
        port
    }

    fn connect(&self, port: PortId, remote: Remote) {
        let remote = Connect {
            remote,
            law: Law::Pcmu,
            payload_type: 0,
            telephone_event: None,
            comfort_noise: None,
            ptime_ms: 20,
            send: true,
            receive: true,
        };
        self.plane.send(0, Command::Connect { port, remote });
    }

    fn plain(&mut self, local: SocketAddr, rtp: SocketAddr) -> PortId {
        let port = self.open(Open::Rtp { local });
        self.connect(port, Remote::Plain { rtp, rtcp: rtp, may_latch: false, also: None });
        port
    }

    fn browser(&mut self, call: usize, party: &DtlsParty) -> (PortId, Secure, SocketAddr) {
        let (ufrag, pwd) = (format!("u{call}"), format!("password-of-a-browser-{call}"));
        let port = self.open(Open::WebRtc { ufrag: ufrag.clone(), pwd: Secret::new(pwd.clone()) });
        let fingerprint = party.fingerprint();
        self.connect(port, Remote::WebRtc { ufrag: "them".to_owned(), fingerprint });
        let ours = SocketAddr::new(LOCAL, self.plane.webrtc_port(0));
        let theirs = Theirs {
            ufrag,
            pwd: Secret::new(pwd),
            fingerprint: Fingerprint(self.plane.fingerprint()),
            setup: Setup::Passive,
            mid: None,
            ice_lite: true,
            mux: true,
            candidates: vec![ours],
        };
        let rng = ChaCha20Rng::from_seed([call as u8; 32]);
        (port, Secure::new("them", &theirs, party, rng, clock::mono_ms()).unwrap(), ours)
    }
}

impl Relay for Tandem {
    fn set_up(&mut self, generator: &mut Generator, calls: usize, secure: bool) {
        let free = self.plane.free_rtp_ports(LOCAL, 40_000..=40_000 + calls as u16 * 4 + 200);
        let mut free = free.into_iter().map(|port| SocketAddr::new(LOCAL, port));
        let party = party();
        for call in 0..calls {
            let local = free.next().unwrap();
            let a = self.plain(local, generator.parties[call][0].address());
            generator.parties[call][0].to = local;
            let b = if secure {
                let (port, secure, to) = self.browser(call, &party);
                generator.parties[call][1].to = to;
                generator.parties[call][1].shield = Shield::Browser(Box::new(secure));
                port
            } else {
                let local = free.next().unwrap();
                generator.parties[call][1].to = local;
                self.plain(local, generator.parties[call][1].address())
            };
            self.plane.send(0, Command::Join { a, b });
        }
        if secure {
            generator.shake();
        }
    }

    fn cpu_ns(&self) -> u64 {
        cpu_ns(std::process::id(), |name| name == "media-0")
    }
}
