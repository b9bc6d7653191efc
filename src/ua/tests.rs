//! Both roles over real loopback sockets against a switch in small: the SIP machine, an ICE-lite end with DTLS
//! and SRTP, and a plain RTP end, each saying 425 Hz.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "tests"
)]
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::media::command::Law;
use crate::media::dtls::{DtlsOutput, DtlsParty, Handshake, Identity, is_client_hello, is_promised};
use crate::media::ice::{Checked, IceLite, IceState, stun_username};
use crate::media::rtp::{Class, class};
use crate::media::srtp::{MAX_OVERHEAD, Srtp};
use crate::sdp::Direction;
use crate::sdp::negotiate::{self, Codec, Local, Remote};
use crate::sdp::webrtc::{Fingerprint, Ours, Setup};
use crate::sip::digest::{Algorithm, Ha1};
use crate::sip::{Command, Config, Event, Input, Output, Path, Sip, TrunkAccount, TrunkKind};
use crate::terms::{FlowId, LegId, Now, Number, OperatorName, Secret};
use crate::ua::browser::{self, BrowserConfig};
use crate::ua::gateway;
use crate::ua::phone::{Answer, Clock, PhoneConfig, Report, Reports};
use crate::ua::speech::Speak;
use crate::ua::tone_meter::Window;
use crate::ua::voice::Voice;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PWD: &str = "apasswordofthisswitch22";

fn clock() -> (Clock, Instant) {
    let base = Instant::now();
    (Arc::new(move || u64::try_from(base.elapsed().as_millis()).unwrap()), base)
}

fn party(base: Instant) -> DtlsParty {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["tandem".into()]).unwrap().self_signed(&key).unwrap();
    let identity =
        Identity { certificate: certificate.der().to_vec(), key: Secret::new(key.serialize_der()) };
    DtlsParty::new(&identity, base, 0).unwrap()
}

fn config(user: &str, hz: f64, clock: &Clock) -> PhoneConfig {
    PhoneConfig {
        user: user.into(),
        password: Secret::new("secret".into()),
        domain: "tandem.test".into(),
        address: HERE,
        codecs: vec![Codec::Pcma, Codec::Pcmu],
        talk: Speak::Talk(hz),
        answer: Answer::After { ring_ms: 100, early_media: false },
        expires_s: 60,
        digest: None,
        report_windows: true,
        seed: [user.len() as u8; 32],
        clock: Arc::clone(clock),
    }
}

/// The switch's side of SIP, on one UDP socket and one WebSocket port.
struct Switch {
    sip: Sip,
    udp: UdpSocket,
    listener: TcpListener,
    flows: BTreeMap<FlowId, mpsc::UnboundedSender<Bytes>>,
    came: mpsc::UnboundedReceiver<(FlowId, SocketAddr, Option<Bytes>)>,
    give: mpsc::UnboundedSender<(FlowId, SocketAddr, Option<Bytes>)>,
    clock: Clock,
    events: Vec<Event>,
}

impl Switch {
    async fn new(clock: &Clock) -> Self {
        let udp = UdpSocket::bind((HERE, 0)).await.unwrap();
        let at = udp.local_addr().unwrap();
        let mut sip =
            Sip::new(Config { domain: "tandem.test".into(), udp: at, ..Config::default() }, [9; 32]);
        let now = Now { mono_ms: clock(), wall_ms: 1_700_000_000_000 };
        let ha1 = |user: &str| Ha1::new(user, "tandem.test", "secret");
        sip.handle(
            Input::Command(Command::Trunks(vec![TrunkAccount {
                name: "kyivstar".into(),
                kind: TrunkKind::Gateway { username: "gw1".into(), ha1: ha1("gw1") },
                accept_from: Vec::new(),
                digest: vec![Algorithm::Sha256],
                health: crate::sip::Health::default(),
                prack: true,
                profile: crate::sip::Profile::default(),
            }])),
            now,
        );
        let operator = OperatorName::from("olena");
        sip.handle(Input::Command(Command::Phone { operator, key: "1".into(), ha1: ha1("olena") }), now);
        let (give, came) = mpsc::unbounded_channel();
        let listener = TcpListener::bind((HERE, 0)).await.unwrap();
        Self {
            sip,
            udp,
            listener,
            flows: BTreeMap::new(),
            came,
            give,
            clock: Arc::clone(clock),
            events: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        let mono_ms = (self.clock)();
        Now { mono_ms, wall_ms: 1_700_000_000_000 + i64::try_from(mono_ms).unwrap() }
    }

    fn url(&self) -> String {
        format!("ws://{}/sip", self.listener.local_addr().unwrap())
    }

    fn tell(&mut self, command: Command) {
        let now = self.now();
        self.sip.handle(Input::Command(command), now);
    }

    /// Runs until an event that `wanted` takes, and gives what it makes of it.
    async fn until<T>(&mut self, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        let mut buf = vec![0; 65_536];
        let end = (self.clock)() + 10_000;
        loop {
            while let Some(output) = self.sip.poll() {
                match output {
                    Output::Send { path: Path::Udp { remote, .. }, bytes } => {
                        self.udp.send_to(&bytes, remote).await.unwrap();
                    }
                    Output::Send { path: Path::Ws { flow, .. }, bytes } => {
                        if let Some(flow) = self.flows.get(&flow) {
                            flow.send(bytes).ok();
                        }
                    }
                    Output::Event(event) => self.events.push(event),
                    Output::Dropped(_) => {}
                }
            }
            if let Some(at) = self.events.iter().position(|event| wanted(event).is_some()) {
                return wanted(&self.events.remove(at)).unwrap();
            }
            assert!((self.clock)() < end, "it never came; there was {:?}", self.events);
            let local = self.udp.local_addr().unwrap();
            tokio::select! {
                Ok((len, remote)) = self.udp.recv_from(&mut buf) => {
                    let bytes = Bytes::copy_from_slice(&buf[..len]);
                    let now = self.now();
                    self.sip.handle(Input::Received { path: Path::Udp { remote, local }, bytes }, now);
                }
                Ok((stream, remote)) = self.listener.accept() => self.accept(stream, remote),
                Some((flow, remote, bytes)) = self.came.recv() => {
                    let now = self.now();
                    self.sip.handle(match bytes {
                        Some(bytes) => Input::Received { path: Path::Ws { flow, remote, local, secure: false }, bytes },
                        None => Input::FlowClosed(flow),
                    }, now);
                }
                () = tokio::time::sleep(Duration::from_millis(5)) => {
                    let now = self.now();
                    self.sip.handle_timeout(now);
                }
            }
        }
    }

    fn accept(&mut self, stream: tokio::net::TcpStream, remote: SocketAddr) {
        let flow = FlowId(self.flows.len() as u64 + 1);
        let (send, mut to_send) = mpsc::unbounded_channel::<Bytes>();
        self.flows.insert(flow, send);
        let give = self.give.clone();
        tokio::spawn(async move {
            #[expect(clippy::result_large_err, reason = "the callback's type")]
            let speak_sip =
                |request: &tokio_tungstenite::tungstenite::handshake::server::Request,
                 mut response: tokio_tungstenite::tungstenite::handshake::server::Response| {
                    assert_eq!(request.headers()["sec-websocket-protocol"], "sip");
                    response.headers_mut().insert("sec-websocket-protocol", "sip".parse().unwrap());
                    Ok(response)
                };
            let mut socket = tokio_tungstenite::accept_hdr_async(stream, speak_sip).await.unwrap();
            loop {
                tokio::select! {
                    bytes = to_send.recv() => {
                        let Some(bytes) = bytes else { return };
                        let text = String::from_utf8(bytes.to_vec()).unwrap();
                        socket.send(Message::text(text)).await.ok();
                    }
                    message = socket.next() => match message {
                        Some(Ok(Message::Text(text))) => {
                            give.send((flow, remote, Some(Bytes::copy_from_slice(text.as_bytes())))).ok();
                        }
                        Some(Ok(Message::Close(_)) | Err(_)) | None => {
                            give.send((flow, remote, None)).ok();
                            return;
                        }
                        Some(Ok(_)) => {}
                    }
                }
            }
        });
    }

    /// Calls the phone that registers first. Its answer comes back.
    async fn call_first(&mut self, number: &str, sdp: String) -> (LegId, Bytes) {
        let who = self.until(|event| match event {
            Event::Registered { who, .. } => Some(who.clone()),
            _ => None,
        });
        let to = who.await;
        let leg = self.sip.new_leg();
        self.tell(Command::Invite {
            leg,
            to,
            number: Number::new(number),
            show: Number::new("+380671234567"),
            display: String::new(),
            headers: vec![("X-Tandem-Call".into(), "77".into())],
            sdp: Bytes::from(sdp),
            ring_ms: 20_000,
        });
        let answered = self.until(|event| match event {
            Event::Answered { sdp, .. } => Some(sdp.clone()),
            Event::Failed { code, .. } => panic!("refused: {code}"),
            _ => None,
        });
        (leg, answered.await)
    }
}

/// The switch's end of a sound path, in a thread of its own.
struct End {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<(Vec<Window>, crate::ua::voice::Heard)>>,
}

impl End {
    fn finish(mut self) -> (Vec<Window>, crate::ua::voice::Heard) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

fn plain_end(socket: std::net::UdpSocket, remote: SocketAddr, clock: &Clock) -> End {
    let send = move |socket: &std::net::UdpSocket, packet: Vec<u8>| drop(socket.send_to(&packet, remote));
    run_end(socket, clock, move |voice, socket, datagram, _, now| match datagram {
        Some(datagram) => voice.hear(datagram, now),
        None => voice.packets().into_iter().for_each(|packet| send(socket, packet)),
    })
}

fn run_end(
    socket: std::net::UdpSocket,
    clock: &Clock,
    mut act: impl FnMut(&mut Voice, &std::net::UdpSocket, Option<&[u8]>, SocketAddr, u64) + Send + 'static,
) -> End {
    let (stop, clock) = (Arc::new(AtomicBool::new(false)), Arc::clone(clock));
    let stopped = Arc::clone(&stop);
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let thread = std::thread::spawn(move || {
        let mut voice = Voice::new(Law::Pcma, 0x1234_5678);
        voice.say(Speak::Tone(425.0));
        let (mut buf, mut due) = ([0; 2_000], clock());
        while !stopped.load(Ordering::Relaxed) {
            let read = socket.recv_from(&mut buf);
            let now = clock();
            if let Ok((len, from)) = read {
                act(&mut voice, &socket, Some(&buf[..len]), from, now);
            }
            while due <= now {
                due += 20;
                act(&mut voice, &socket, None, SocketAddr::from(([0, 0, 0, 0], 0)), now);
            }
        }
        (voice.windows(), voice.heard())
    });
    End { stop, thread: Some(thread) }
}

/// What a browser port of the switch does, in forty lines.
struct LiteEnd {
    ice: IceLite,
    party: DtlsParty,
    dtls: Option<Box<dyn Handshake>>,
    srtp: Option<Srtp>,
    promised: [u8; 32],
}

impl LiteEnd {
    fn act(
        &mut self,
        voice: &mut Voice,
        socket: &std::net::UdpSocket,
        datagram: Option<&[u8]>,
        from: SocketAddr,
        now: u64,
    ) {
        match datagram.map(|datagram| (class(datagram), datagram)) {
            Some((Class::Stun, datagram)) => {
                assert_eq!(stun_username(datagram).unwrap().0, "lite");
                let Checked::Reply { reply, .. } = self.ice.handle(datagram, from, now) else {
                    panic!("not authentic")
                };
                socket.send_to(&reply, from).unwrap();
            }
            Some((Class::Dtls, datagram)) => {
                assert!(self.ice.is_validated(from));
                if self.dtls.is_none() && is_client_hello(datagram) {
                    self.dtls = Some(self.party.server(now));
                }
                self.dtls.as_mut().unwrap().handle(datagram, now);
            }
            Some((Class::Rtp, datagram)) => {
                let mut packet = datagram.to_vec();
                let len = self.srtp.as_mut().unwrap().unprotect_rtp(&mut packet).unwrap();
                voice.hear(&packet[..len], now);
            }
            Some((Class::Rtcp, datagram)) => {
                let mut compound = datagram.to_vec();
                let len = self.srtp.as_mut().unwrap().unprotect_rtcp(&mut compound).unwrap();
                voice.hear_report(&compound[..len], now);
            }
            Some((Class::Unknown, _)) => panic!("what is that"),
            None => {
                if let (Some(srtp), Some(to)) = (&mut self.srtp, self.ice.nominated()) {
                    for mut packet in voice.packets() {
                        let len = packet.len();
                        packet.resize(len + MAX_OVERHEAD, 0);
                        let len = srtp.protect_rtp(&mut packet, len).unwrap();
                        socket.send_to(&packet[..len], to).unwrap();
                    }
                    if let Some(mut compound) = voice.report(now) {
                        let len = compound.len();
                        compound.resize(len + MAX_OVERHEAD, 0);
                        let len = srtp.protect_rtcp(&mut compound, len).unwrap();
                        socket.send_to(&compound[..len], to).unwrap();
                    }
                }
            }
        }
        while let Some(output) = self.dtls.as_mut().and_then(|dtls| dtls.poll()) {
            match output {
                DtlsOutput::Datagram(datagram) => drop(socket.send_to(&datagram, self.ice.best().unwrap())),
                DtlsOutput::Secured(secured) => {
                    assert!(is_promised(&secured, &self.promised));
                    self.srtp = Srtp::new(&secured.keys);
                }
                DtlsOutput::Closed => {}
                DtlsOutput::Failed(why) => panic!("{why}"),
            }
        }
    }
}

fn webrtc(at: SocketAddr, party: &DtlsParty) -> Local {
    Local::WebRtc(Box::new(Ours {
        at,
        session_id: 1,
        version: 1,
        ufrag: "lite".into(),
        pwd: Secret::new(PWD.into()),
        fingerprint: Fingerprint(party.fingerprint()),
        setup: Setup::Passive,
        ice_lite: true,
        mid: "0".into(),
        ssrc: 0x1234_5678,
        cname: "switch".into(),
    }))
}

fn lite_end(socket: std::net::UdpSocket, remote: &Remote, party: &DtlsParty, clock: &Clock) -> End {
    let Remote::WebRtc(theirs) = remote else { panic!("not a browser") };
    let state = IceState {
        ufrag: "lite".into(),
        pwd: Secret::new(PWD.into()),
        // Any: the browser restarts ICE in one of the tests.
        remote_ufrag: None,
        nominated: None,
    };
    let party = party.clone();
    let mut end =
        LiteEnd { ice: IceLite::new(state), party, dtls: None, srtp: None, promised: theirs.fingerprint.0 };
    run_end(socket, clock, move |voice, socket, datagram, from, now| {
        end.act(voice, socket, datagram, from, now)
    })
}

/// A second of the switch's tone.
async fn listen(reports: &mut Reports, call: u64) {
    for _ in 0..5 {
        assert!(reports.hears(call, 425.0, 0.2, 3_000).await.is_some());
    }
}

fn heard(windows: &[Window], hz: f64) -> bool {
    windows.iter().filter(|window| window.level(hz) > 0.15).count() >= 3
}

#[tokio::test]
async fn the_browser_role_answers_and_sound_goes_both_ways_through_dtls() {
    let (clock, base) = clock();
    let mut switch = Switch::new(&clock).await;
    let ours = party(base);
    let (phone, mut reports) = browser::start(BrowserConfig {
        phone: config("olena", 1000.0, &clock),
        url: switch.url(),
        headers: Vec::new(),
        dtls: party(base),
    })
    .unwrap();
    let socket = std::net::UdpSocket::bind((HERE, 0)).unwrap();
    let local = webrtc(socket.local_addr().unwrap(), &ours);
    let offer = negotiate::offer(&local, &[Codec::Pcma], Direction::SendRecv);
    let (leg, answer) = switch.call_first("olena", offer).await;
    let agreed = negotiate::read_answer(&[Codec::Pcma], &answer).unwrap();
    let end = lite_end(socket, &agreed.remote, &ours, &clock);
    let wanted = |report: &Report| matches!(report, Report::Invited { headers, .. } if headers.iter().any(|(name, _)| name == "X-Tandem-Call"));
    assert!(reports.wait_for(3_000, wanted).await.is_some());
    assert!(reports.wait_for(3_000, |report| matches!(report, Report::Secured { .. })).await.is_some());
    listen(&mut reports, 1).await;
    // A new WebSocket does not touch the sound.
    phone.reconnect().await;
    switch.until(|event| matches!(event, Event::Registered { .. }).then_some(())).await;
    assert!(reports.wait_for(3_000, |report| matches!(report, Report::Connected)).await.is_some());
    listen(&mut reports, 1).await;
    let sound = phone.sound(1).await.unwrap();
    assert!(sound.heard.packets >= 20 && sound.heard.lost == 0 && sound.refused == 0, "{sound:?}");
    switch.tell(Command::HangUp { leg, cause: Default::default() });
    switch.until(|event| matches!(event, Event::Ended { .. }).then_some(())).await;
    let (windows, counts) = end.finish();
    assert!(heard(&windows, 1000.0), "{counts:?}");
    assert_eq!(counts.lost_there, Some(0), "the browser reports what it hears");
    phone.stop().await;
}

#[tokio::test]
async fn the_browser_role_calls() {
    let (clock, base) = clock();
    let mut switch = Switch::new(&clock).await;
    let ours = party(base);
    let (phone, mut reports) = browser::start(BrowserConfig {
        phone: config("olena", 1000.0, &clock),
        url: switch.url(),
        headers: Vec::new(),
        dtls: party(base),
    })
    .unwrap();
    switch.until(|event| matches!(event, Event::Registered { .. }).then_some(())).await;
    let call = phone.call("0671234567", None, &[]).await.unwrap();
    let invited = switch.until(|event| match event {
        Event::Invited(invited) => Some(invited.clone()),
        _ => None,
    });
    let invited = invited.await;
    assert_eq!(invited.to_user, "0671234567");
    let socket = std::net::UdpSocket::bind((HERE, 0)).unwrap();
    let local = webrtc(socket.local_addr().unwrap(), &ours);
    let offer = negotiate::read_offer(&invited.sdp).unwrap();
    let (agreed, answer) = negotiate::answer(&offer, &local, &[Codec::Pcma]).unwrap();
    let end = lite_end(socket, &agreed.remote, &ours, &clock);
    switch.tell(Command::Answer { leg: invited.leg, sdp: Bytes::from(answer.clone()) });
    switch.until(|event| matches!(event, Event::Confirmed { .. }).then_some(())).await;
    listen(&mut reports, call).await;
    phone.restart_ice(call).await;
    let offer = switch.until(|event| match event {
        Event::Offered { sdp, .. } => sdp.clone(),
        _ => None,
    });
    let offer = negotiate::read_offer(&offer.await).unwrap();
    let (Remote::WebRtc(new), Remote::WebRtc(old)) = (&offer.remote, &agreed.remote) else { panic!() };
    assert!(new.ufrag != old.ufrag && new.fingerprint == old.fingerprint);
    switch.tell(Command::AnswerChange { leg: invited.leg, sdp: Bytes::from(answer) });
    tokio::select! {
        () = switch.until(|_| None) => {}
        changed = reports.wait_for(3_000, |report| matches!(report, Report::Changed { .. })) => {
            assert!(changed.is_some());
        }
    }
    listen(&mut reports, call).await;
    phone.hang_up(call).await;
    switch.until(|event| matches!(event, Event::Ended { by_peer: true, .. }).then_some(())).await;
    assert!(heard(&end.finish().0, 1000.0));
    let sound = phone.sound(call).await.unwrap();
    assert!(sound.heard.packets > 30, "it is remembered after the end: {sound:?}");
}

fn plain(at: SocketAddr) -> Local {
    Local::Plain { address: at.ip(), port: at.port(), session_id: 1, version: 1, mux: false }
}

#[tokio::test]
async fn the_gateway_role_brings_a_call_and_ends_it() {
    let (clock, _) = clock();
    let mut switch = Switch::new(&clock).await;
    let server = switch.udp.local_addr().unwrap();
    let (phone, mut reports) = gateway::start(config("gw1", 700.0, &clock), server).await.unwrap();
    switch.until(|event| matches!(event, Event::Registered { .. }).then_some(())).await;
    let call = phone.call("+380800500500", Some("+380671112233"), &[]).await.unwrap();
    let invited = switch.until(|event| match event {
        Event::Invited(invited) => Some(invited.clone()),
        _ => None,
    });
    let invited = invited.await;
    assert_eq!(
        (invited.to_user.as_str(), invited.identities[0].user.as_str()),
        ("+380800500500", "+380671112233")
    );
    let socket = std::net::UdpSocket::bind((HERE, 0)).unwrap();
    let local = plain(socket.local_addr().unwrap());
    let offer = negotiate::read_offer(&invited.sdp).unwrap();
    let (agreed, answer) = negotiate::answer(&offer, &local, &[Codec::Pcma]).unwrap();
    let Remote::Plain { rtp, .. } = agreed.remote else { panic!() };
    let end = plain_end(socket, rtp, &clock);
    switch.tell(Command::Answer { leg: invited.leg, sdp: Bytes::from(answer) });
    switch.until(|event| matches!(event, Event::Confirmed { .. }).then_some(())).await;
    listen(&mut reports, call).await;
    phone.stop().await;
    switch.until(|event| matches!(event, Event::Ended { by_peer: true, .. }).then_some(())).await;
    assert!(heard(&end.finish().0, 700.0));
}

#[tokio::test]
async fn the_gateway_role_rings_with_sound_and_then_talks() {
    let (clock, _) = clock();
    let mut switch = Switch::new(&clock).await;
    let server = switch.udp.local_addr().unwrap();
    let answer = Answer::After { ring_ms: 1_200, early_media: true };
    let config = PhoneConfig { answer, ..config("gw1", 700.0, &clock) };
    let (_phone, mut reports) = gateway::start(config, server).await.unwrap();
    let socket = std::net::UdpSocket::bind((HERE, 0)).unwrap();
    let local = plain(socket.local_addr().unwrap());
    // The other end has to exist before the ring comes: its socket is there, its reader starts with the answer.
    let offer = negotiate::offer(&local, &[Codec::Pcmu, Codec::Pcma], Direction::SendRecv);
    let (leg, sdp) = switch.call_first("+380501234567", offer).await;
    let agreed = negotiate::read_answer(&[Codec::Pcmu, Codec::Pcma], &sdp).unwrap();
    assert_eq!(agreed.codec, Codec::Pcma, "its own preference");
    let Remote::Plain { rtp, .. } = agreed.remote else { panic!() };
    let end = plain_end(socket, rtp, &clock);
    let call = reports.wait_for(3_000, |report| matches!(report, Report::Answered { .. })).await;
    let Some((_, Report::Answered { call })) = call else { panic!() };
    listen(&mut reports, call).await;
    switch.tell(Command::HangUp { leg, cause: Default::default() });
    switch.until(|event| matches!(event, Event::Ended { .. }).then_some(())).await;
    assert!(
        reports
            .wait_for(3_000, |report| matches!(report, Report::Ended { by_peer: true, .. }))
            .await
            .is_some()
    );
    let windows = end.finish().0;
    assert!(heard(&windows, 425.0) && heard(&windows, 700.0), "ring, then talk");
    assert!(switch.events.iter().any(|event| matches!(event, Event::EarlyMedia { .. })));
}
