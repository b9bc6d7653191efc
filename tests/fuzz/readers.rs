//! What is done with the octets of a stranger, a function for each reader: they must not panic, and what they
//! say must hold (what was read and written again reads the same). Used by the fuzz targets beside this file.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests; each fuzz target uses one of them"
)]

use std::sync::OnceLock;
use std::time::Instant;

use bytes::Bytes;
use tandem::dialplan::plan::{Known, Plan};
use tandem::media::dtls::{DtlsOutput, DtlsParty, Handshake, Identity};
use tandem::media::srtp::{MAX_OVERHEAD, Profile, Srtp};
use tandem::media::{rtcp, rtp, stun};
use tandem::sdp::{Session, negotiate, webrtc};
use tandem::sip::digest::{self, Algorithm, Authenticator, Ha1, Login, Shown};
use tandem::sip::header::{self, AuthParams, NameAddr, RAck, Reason, SessionExpires, Via};
use tandem::sip::message::{Message, Method, Name, ReadError};
use tandem::sip::uri::Uri;
use tandem::sip::{Command, Config, Input, Output, Path, Prefix, Sip, TrunkAccount, TrunkKind};
use tandem::terms::{LegId, Now, Secret};

/// One datagram: every header is looked at, and what is written again is the same message.
pub fn sip_message(octets: &[u8]) {
    let datagram = Bytes::copy_from_slice(octets);
    match Message::read_datagram(&datagram) {
        Ok(message) => {
            look(&message);
            let written = message.to_bytes();
            let again = Message::read_datagram(&written).expect("what was read is written readably");
            assert_eq!(again.body(), message.body());
            assert_eq!(again.to_bytes(), written);
        }
        Err(ReadError::Bad { partial, .. }) => look(&Message::Request(*partial)),
        Err(ReadError::KeepAlive | ReadError::TooLong | ReadError::Unanswerable(_)) => {}
    }
}

fn look(message: &Message) {
    let headers = message.headers();
    let numbers = [headers.max_forwards(), headers.expires(), headers.min_expires(), headers.min_se()];
    let _: usize = numbers.into_iter().flatten().count();
    let _ = (headers.vias(), headers.from(), headers.to(), headers.cseq(), headers.contacts());
    let _ = (headers.routes(), headers.record_routes(), headers.paths(), headers.content_length());
    let _ = (headers.session_expires(), headers.rseq(), headers.rack(), headers.q850(), headers.retry_after());
    let _ = headers.reasons().count();
    for name in [Name::Authorization, Name::ProxyAuthorization] {
        let _ = headers.credentials(&name).count();
    }
    for name in [Name::WwwAuthenticate, Name::ProxyAuthenticate] {
        let _ = digest::choose(headers.challenges(&name));
    }
    if !message.body().is_empty() {
        let _ = negotiate::read_offer(message.body());
    }
}

const OPTIONS: &[u8] = b"OPTIONS sip:tandem.local SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bKafter\r\n\
    Max-Forwards: 70\r\nFrom: <sip:after@192.0.2.2>;tag=after\r\nTo: <sip:tandem.local>\r\n\
    Call-ID: after\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";

/// Datagrams (parted by an octet 0xff, which stands in none) from a trunk that we trust, with a call centre that
/// answers what rings; after them, an OPTIONS is answered as ever.
pub fn sip_world(octets: &[u8]) {
    let mut sip = Sip::new(Config { max_dialogs: 8, max_transactions: 64, ..Config::default() }, [7; 32]);
    let peer = "192.0.2.2:5060".parse().unwrap();
    let path = Path::Udp { remote: peer, local: "127.0.0.1:5060".parse().unwrap() };
    let mut now = Now { mono_ms: 1_000, wall_ms: 1_800_000_000_000 };
    let trunk = TrunkAccount {
        name: "peer".into(),
        kind: TrunkKind::Peer { server: Some(peer) },
        accept_from: vec![Prefix { address: peer.ip(), bits: 32 }],
        digest: Vec::new(),
        health: tandem::sip::Health::default(),
    };
    sip.handle(Input::Command(Command::Trunks(vec![trunk])), now);
    for datagram in octets.split(|octet| *octet == 0xff).take(8) {
        sip.handle(Input::Received { path, bytes: Bytes::copy_from_slice(datagram) }, now);
        let mut legs: Vec<LegId> = Vec::new();
        while let Some(output) = sip.poll() {
            if let Output::Event(tandem::sip::Event::Invited(invited)) = output {
                legs.push(invited.leg);
            }
        }
        for leg in legs {
            sip.handle(Input::Command(Command::Answer { leg, sdp: Bytes::from_static(b"v=0\r\n") }), now);
            while sip.poll().is_some() {}
        }
        let _ = sip.records(now);
        now.mono_ms += 700;
        sip.handle_timeout(now);
    }
    while sip.poll().is_some() {}
    sip.handle(Input::Received { path, bytes: Bytes::from_static(OPTIONS) }, now);
    let mut answers = Vec::new();
    while let Some(output) = sip.poll() {
        match output {
            Output::Send { bytes, .. } => answers.push(bytes),
            Output::Event(_) | Output::Dropped(_) => {}
        }
    }
    let is_answer = |bytes: &Bytes| bytes.starts_with(b"SIP/2.0 ") && find(bytes, b"z9hG4bKafter");
    assert!(answers.iter().any(is_answer), "no answer to OPTIONS: {answers:?}");
}

/// Without control octets and broken UTF-8, which are written as something harmless.
fn is_plain(octets: &[u8]) -> bool {
    std::str::from_utf8(octets).is_ok_and(|text| !text.contains(char::is_control))
}

fn find(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

/// A Request-URI.
pub fn uri(octets: &[u8]) {
    let Ok(uri) = Uri::read(octets) else { return };
    let _ = (uri.user_text(), uri.user_digits(), uri.transport().is_some(), uri.is_loose());
    let written = uri.to_string();
    let again = Uri::read(written.as_bytes()).expect("what was read is written readably");
    assert_eq!(again.to_string(), written);
    assert!(again.same(&uri) || uri.user_text().is_none() || !uri.same(&uri), "{written}");
}

/// One Via value, and the received and rport that we add to it.
pub fn via(octets: &[u8]) {
    let Ok(mut via) = Via::read(octets) else { return };
    let _ = (via.branch().is_some(), via.received(), via.rport());
    via.note_source("198.51.100.7:40000".parse().unwrap());
    let written = via.to_string();
    let again = Via::read(written.as_bytes()).expect("what was read is written readably");
    assert_eq!(again.to_string(), written);
    if is_plain(octets) {
        assert_eq!(again.branch(), via.branch());
    }
}

/// From, To, Contact, Route, and the other small grammars of headers.
pub fn name_addr(octets: &[u8]) {
    let _ = (header::read_cseq(octets), header::read_seconds(octets), RAck::read(octets));
    let _ = (Reason::read(octets), SessionExpires::read(octets));
    let _ = header::split_list(octets).count();
    let Ok(read) = NameAddr::read(octets) else { return };
    let _ = (read.tag().is_some(), read.instance(), read.reg_id(), read.expires(), read.q());
    let written = read.to_string();
    let again = NameAddr::read(written.as_bytes()).expect("what was read is written readably");
    assert_eq!(again.to_string(), written);
    if is_plain(octets) {
        assert_eq!(again.tag(), read.tag());
    }
}

/// A challenge and credentials: nobody gets in by them, and an answer to a challenge can be read.
pub fn digest(octets: &[u8]) {
    let Ok(read) = AuthParams::read(octets) else { return };
    let written = read.to_string();
    let again = AuthParams::read(written.as_bytes()).expect("what was read is written readably");
    if is_plain(octets) {
        assert_eq!(again.to_string(), written);
    }
    let authenticator = Authenticator::new("tandem.local", &[7; 32], 30_000);
    let uri = b"sip:100@tandem.local";
    let shown = Shown { method: &Method::Invite, uri, source: "192.0.2.2", wall_ms: 1_800_000_000_000 };
    for ha1 in [None, Some(&Ha1::new("op1", "tandem.local", "secret"))] {
        let verdict = authenticator.verify(&read, ha1, &shown);
        assert!(!matches!(verdict, digest::Verdict::Ok { .. } | digest::Verdict::Stale), "{verdict:?}");
    }
    let login = Login { user: "u".into(), password: Secret::new("p".into()) };
    if let Some(answer) = login.answer(&read, &Method::Invite, "sip:100@tandem.local", "cnonce", 1) {
        AuthParams::read(answer.to_string().as_bytes()).expect("our credentials are readable");
        let _ = Algorithm::Sha256.as_str();
    }
}

/// A session description: an offer or an answer, and our answer to it, which must be one.
pub fn sdp(octets: &[u8]) {
    if let Ok(session) = Session::read(octets) {
        let written = session.to_string();
        let again = Session::read(written.as_bytes()).expect("what was read is written readably");
        assert_eq!(again.to_string(), written);
    }
    if let Ok(text) = std::str::from_utf8(octets) {
        let _ = webrtc::Fingerprint::read(text);
    }
    let codecs = [negotiate::Codec::Pcma, negotiate::Codec::Pcmu];
    let _ = negotiate::read_answer(&codecs, octets);
    let Ok(offer) = negotiate::read_offer(octets) else { return };
    let local = negotiate::Local::Plain {
        address: "192.0.2.1".parse().unwrap(),
        port: 20_000,
        session_id: 7,
        version: 1,
        mux: true,
    };
    if let Ok((_, text)) = negotiate::answer(&offer, &local, &codecs) {
        Session::read(text.as_bytes()).expect("our answer is a description");
    }
}

/// A STUN message: nothing is authentic for a password it does not know.
pub fn stun(octets: &[u8]) {
    let _ = (stun::is_stun(octets), stun::stun_username(octets));
    if let Some(message) = stun::Message::read(octets) {
        assert!(!message.is_authentic("a password that is not in any corpus"));
    }
}

/// DTLS datagrams (each behind its length in two octets) to a server that waits and to a client that asked.
pub fn dtls_record(octets: &[u8]) {
    static PARTY: OnceLock<DtlsParty> = OnceLock::new();
    let party = PARTY.get_or_init(|| DtlsParty::new(&identity(), Instant::now(), 1_000).unwrap());
    for mut end in [party.server(1_000), party.client(1_000)] {
        quiet(&mut *end);
        let mut rest = octets;
        while let Some((length, next)) = rest.split_first_chunk::<2>() {
            let (datagram, next) = next.split_at(usize::from(u16::from_be_bytes(*length)).min(next.len()));
            rest = next;
            let _ = tandem::media::dtls::is_client_hello(datagram);
            end.handle(datagram, 1_010);
            quiet(&mut *end);
        }
    }
}

fn quiet(end: &mut dyn Handshake) {
    while let Some(output) = end.poll() {
        match output {
            DtlsOutput::Secured(_) => panic!("a handshake without knowledge of any key"),
            DtlsOutput::Failed(why) => assert!(!why.contains("panicked"), "{why}"),
            DtlsOutput::Datagram(_) | DtlsOutput::Closed => {}
        }
    }
}

fn identity() -> Identity {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let names = vec!["tandem".into()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    Identity { certificate: certificate.der().to_vec(), key: Secret::new(key.serialize_der()) }
}

fn srtp(profile: Profile) -> Srtp {
    let keys = profile.split(&vec![7; profile.keying_material_len()], true).unwrap();
    Srtp::new(&keys).unwrap()
}

/// An RTP packet, plain and protected: nothing that was not sealed with the key is opened, and what is sealed
/// opens as it was.
pub fn rtp(octets: &[u8]) {
    let _ = rtp::class(octets);
    if let Some(header) = rtp::read(octets) {
        assert!(octets.get(header.payload).is_some());
    }
    for profile in Profile::ALL {
        let mut buf = octets.to_vec();
        assert!(srtp(profile).unprotect_rtp(&mut buf).is_err());
        let mut buf = [octets, &[0; MAX_OVERHEAD]].concat();
        if let Ok(len) = srtp(profile).protect_rtp(&mut buf, octets.len()) {
            buf.truncate(len);
            // The other direction has the same key here.
            let len = srtp(profile).unprotect_rtp(&mut buf).expect("what was sealed opens");
            assert_eq!(buf.get(..len), Some(octets));
        }
    }
}

/// An RTCP compound, plain and protected.
pub fn rtcp(octets: &[u8]) {
    let _ = rtcp::read(octets, 0x0102_0304);
    for profile in Profile::ALL {
        let mut buf = octets.to_vec();
        assert!(srtp(profile).unprotect_rtcp(&mut buf).is_err());
        let mut buf = [octets, &[0; MAX_OVERHEAD]].concat();
        if let Ok(len) = srtp(profile).protect_rtcp(&mut buf, octets.len()) {
            buf.truncate(len);
            let len = srtp(profile).unprotect_rtcp(&mut buf).expect("what was sealed opens");
            assert_eq!(buf.get(..len), Some(octets));
        }
    }
}

/// WebSocket frames as a browser sends them, through the library that serves them, and the messages in them.
pub fn ws_frame(octets: &[u8]) {
    use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
    struct Wire<'o>(&'o [u8]);
    impl std::io::Read for Wire<'_> {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            std::io::Read::read(&mut self.0, buf)
        }
    }
    impl std::io::Write for Wire<'_> {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            Ok(buf.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let config = WebSocketConfig::default().max_message_size(Some(65_536)).max_frame_size(Some(65_536));
    let mut socket = WebSocket::from_raw_socket(Wire(octets), Role::Server, Some(config));
    while let Ok(message) = socket.read() {
        assert!(message.len() <= 65_536);
        sip_message(&message.into_data());
    }
}

/// A dialplan file: mistakes with their lines, or a plan that says the same when read again.
pub fn dialplan(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    let known = Known {
        queues: vec!["support".into()],
        trunks: vec!["gsm".into(), "provider".into()],
        sounds: vec!["welcome.wav".into()],
    };
    let lines = text.lines().count();
    match Plan::read(&[("plan.toml".into(), text.into())], &known) {
        Ok(plan) => assert!(plan.routes().count() <= text.len()),
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            assert!(mistakes.iter().all(|mistake| mistake.line <= lines + 1), "{mistakes:?}");
        }
    }
}
