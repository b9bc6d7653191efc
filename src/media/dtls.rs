//! DTLS of a browser leg: one handshake at its beginning gives the SRTP keys and the certificate that its
//! SDP promised (RFC 5763, RFC 5764). The protocol itself is the crate `dimpl`; nothing else knows it.
//!
//! Invariant: media flows only after [`is_promised`]; any failure ends the association, and only a new
//! ClientHello from a validated address begins another. `dimpl` tells time by [`Instant`]: one given by the
//! edge is the base, and all others are computed from it. Its own randomness is the named exception of the
//! house.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, DtlsCertificate, Output, SrtpProfile};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::command::Keys;
use super::srtp::Profile;
use crate::terms::{MonoMs, Secret};

/// The largest thing that `dimpl` hands out: a peer's certificate. A larger one fails the handshake.
const MAX_OUTPUT: usize = 16 * 1024;
/// The largest datagram that we send; IPv6 carries 1280 everywhere.
const MTU: usize = 1200;
/// The first repetition of a lost flight: Chromium's own is 50 ms, a mobile operator's round trip 200.
const FIRST_REPEAT: Duration = Duration::from_millis(200);
/// A timer further away than this means that there is none.
const NO_TIMER_MS: MonoMs = 24 * 3_600_000;

/// What proves us to browsers, one for the pair of nodes and all calls.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// Its private key, PKCS#8 DER, P-256 or P-384.
    pub key: Secret<Vec<u8>>,
}

/// The certificate or its key cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the DTLS certificate cannot be used: {0}")]
pub struct DtlsError(String);

/// What all handshakes of the process share; cheap to clone.
#[derive(Clone)]
pub struct DtlsParty {
    config: Arc<Config>,
    certificate: DtlsCertificate,
    fingerprint: [u8; 32],
    base: Instant,
    base_ms: MonoMs,
}

impl DtlsParty {
    /// Built once, for it takes 5 ms. `base` is the edge's [`Instant`] at `base_ms` of its monotonic clock.
    pub fn new(identity: &Identity, base: Instant, base_ms: MonoMs) -> Result<Self, DtlsError> {
        let config = Config::builder()
            .mtu(MTU)
            .flight_start_rto(FIRST_REPEAT)
            // Behind the ICE check a cookie proves nothing more and costs a round trip.
            .use_server_cookie(false)
            .build()
            .map_err(|why| DtlsError(why.to_string()))?;
        // dimpl panics later on what it refuses here.
        let key = identity.key.expose();
        config
            .crypto_provider()
            .key_provider
            .load_private_key(key)
            .map_err(|why| DtlsError(why.to_string()))?;
        if identity.certificate.is_empty() {
            return Err(DtlsError("it is empty".into()));
        }
        let certificate =
            DtlsCertificate { certificate: identity.certificate.clone(), private_key: key.clone() };
        let fingerprint = fingerprint(&identity.certificate);
        Ok(Self { config: Arc::new(config), certificate, fingerprint, base, base_ms })
    }

    /// SHA-256 of our certificate, for SDP (RFC 8122 section 5).
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// The passive end of one handshake: the switch's.
    pub fn server(&self, now: MonoMs) -> Box<dyn Handshake> {
        Box::new(Association::new(self, false, now))
    }

    /// The active end; its ClientHello waits in `poll`.
    pub fn client(&self, now: MonoMs) -> Box<dyn Handshake> {
        let mut client = Association::new(self, true, now);
        client.handle_timeout(now);
        Box::new(client)
    }

    fn instant(&self, now: MonoMs) -> Instant {
        let since = Duration::from_millis(now.saturating_sub(self.base_ms));
        self.base.checked_add(since).unwrap_or(self.base)
    }

    /// Rounded up, so that a timer is due when it is called.
    fn mono_ms(&self, at: Instant) -> MonoMs {
        let since = at.saturating_duration_since(self.base).as_micros().div_ceil(1000);
        self.base_ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

/// The handshake is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secured {
    /// For [`super::srtp::Srtp::new`], divided for our role.
    pub keys: Keys,
    /// SHA-256 of the peer's certificate.
    pub fingerprint: [u8; 32],
}

/// Whether the peer is the one its SDP promised (RFC 5763 section 5). Before that there is no media.
pub fn is_promised(secured: &Secured, promised: &[u8; 32]) -> bool {
    secured.fingerprint.ct_eq(promised).into()
}

/// Whether a datagram begins an association: a handshake record of epoch 0 with (a fragment of) a
/// ClientHello. After a failure or a restore only such a one makes a new [`DtlsParty::server`].
pub fn is_client_hello(datagram: &[u8]) -> bool {
    matches!(datagram, [22, 254, _, 0, 0, _, _, _, _, _, _, _, _, 1, ..])
}

/// What an association wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DtlsOutput {
    /// Send it.
    Datagram(Vec<u8>),
    /// Keys and certificate, once.
    Secured(Secured),
    /// The peer closed, authenticated.
    Closed,
    /// It is over: drop it. In words.
    Failed(String),
}

/// One association. A failed or closed one ignores all that comes.
pub trait Handshake: Send {
    /// A DTLS datagram came.
    fn handle(&mut self, datagram: &[u8], now: MonoMs);
    /// What is to be done; drained until `None` after each other call.
    fn poll(&mut self) -> Option<DtlsOutput>;
    /// When to call [`Handshake::handle_timeout`].
    fn next_timeout(&self) -> Option<MonoMs>;
    /// Time passed.
    fn handle_timeout(&mut self, now: MonoMs);
    /// Says `close_notify` if there is somebody to say it to, and ends.
    fn close(&mut self, now: MonoMs);
}

/// An association of `dimpl`.
struct Association {
    party: DtlsParty,
    is_client: bool,
    /// `None` once it is over.
    dtls: Option<Dtls>,
    outputs: VecDeque<DtlsOutput>,
    peer: Option<[u8; 32]>,
    keys: Option<Keys>,
    is_connected: bool,
    timer: Option<MonoMs>,
}

impl Association {
    fn new(party: &DtlsParty, is_client: bool, now: MonoMs) -> Self {
        let mut dtls = Dtls::new_12(Arc::clone(&party.config), party.certificate.clone(), party.instant(now));
        dtls.set_active(is_client);
        Self {
            party: party.clone(),
            is_client,
            dtls: Some(dtls),
            outputs: VecDeque::new(),
            peer: None,
            keys: None,
            is_connected: false,
            timer: None,
        }
    }

    /// One step of `dimpl` and all that comes out of it. A panic in there, should hostile input find one,
    /// costs this handshake and not the media thread.
    fn step(&mut self, now: MonoMs, act: impl FnOnce(&mut Dtls) -> Result<(), dimpl::Error>) {
        let Some(mut dtls) = self.dtls.take() else { return };
        let at = self.party.instant(now);
        let done = catch_unwind(AssertUnwindSafe(|| {
            let result = dtls.handle_timeout(at).and_then(|()| act(&mut dtls));
            // What is queued before an error (an alert) still goes out.
            self.drain(&mut dtls, now);
            (result, dtls)
        }));
        match done {
            Ok((Ok(()), dtls)) => self.dtls = Some(dtls),
            Ok((Err(why), _)) => self.fail(why.to_string()),
            Err(_) => self.fail("the DTLS implementation panicked".into()),
        }
        self.announce();
    }

    fn drain(&mut self, dtls: &mut Dtls, now: MonoMs) {
        let mut buf = vec![0; MAX_OUTPUT];
        loop {
            match dtls.poll_output(&mut buf) {
                Output::Packet(packet) => self.outputs.push_back(DtlsOutput::Datagram(packet.to_vec())),
                Output::PeerCert(der) => self.peer = Some(fingerprint(der)),
                Output::Connected => self.is_connected = true,
                Output::KeyingMaterial(material, profile) => {
                    self.keys = profile_of(profile).and_then(|ours| ours.split(&material, self.is_client));
                }
                Output::CloseNotify => self.outputs.push_back(DtlsOutput::Closed),
                Output::Timeout(at) => {
                    self.timer =
                        Some(self.party.mono_ms(at)).filter(|at| at.saturating_sub(now) < NO_TIMER_MS);
                    return;
                }
                // Media legs carry no application data, and no output of ours is that large.
                Output::ApplicationData(_) => {}
                Output::BufferTooSmall { needed } => buf.resize(needed, 0),
                // `Output` may grow; what is not known is not wanted.
                _ => {}
            }
        }
    }

    /// Connected comes with keys and certificate; without them there is nothing to protect media with.
    fn announce(&mut self) {
        if !std::mem::take(&mut self.is_connected) {
            return;
        }
        match (self.keys.take(), self.peer) {
            (Some(keys), Some(fingerprint)) => {
                self.outputs.push_back(DtlsOutput::Secured(Secured { keys, fingerprint }));
            }
            (None, _) => self.fail("no common SRTP profile".into()),
            (_, None) => self.fail("no certificate".into()),
        }
    }

    fn fail(&mut self, why: String) {
        self.dtls = None;
        self.timer = None;
        self.outputs.push_back(DtlsOutput::Failed(why));
    }
}

impl Handshake for Association {
    fn handle(&mut self, datagram: &[u8], now: MonoMs) {
        self.step(now, |dtls| dtls.handle_packet(datagram));
    }

    fn poll(&mut self) -> Option<DtlsOutput> {
        self.outputs.pop_front()
    }

    fn next_timeout(&self) -> Option<MonoMs> {
        self.timer
    }

    fn handle_timeout(&mut self, now: MonoMs) {
        self.step(now, |_| Ok(()));
    }

    fn close(&mut self, now: MonoMs) {
        self.step(now, Dtls::close);
        self.dtls = None;
        self.timer = None;
    }
}

fn profile_of(profile: SrtpProfile) -> Option<Profile> {
    match profile {
        SrtpProfile::AES128_CM_SHA1_80 => Some(Profile::Aes128CmSha1_80),
        SrtpProfile::AEAD_AES_128_GCM => Some(Profile::AeadAes128Gcm),
        SrtpProfile::AEAD_AES_256_GCM => Some(Profile::AeadAes256Gcm),
        _ => None,
    }
}

fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::disallowed_methods,
        reason = "tests"
    )]
    use std::sync::OnceLock;

    use super::*;
    use crate::media::srtp::{MAX_OVERHEAD, Srtp};

    fn identity() -> Identity {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["tandem".into()]).unwrap().self_signed(&key).unwrap();
        Identity { certificate: certificate.der().to_vec(), key: Secret::new(key.serialize_der()) }
    }

    fn party() -> &'static DtlsParty {
        static PARTY: OnceLock<DtlsParty> = OnceLock::new();
        PARTY.get_or_init(|| DtlsParty::new(&identity(), Instant::now(), 1_000).unwrap())
    }

    /// Client and server with a wire between them that can lose and double one datagram.
    struct World {
        ends: [Box<dyn Handshake>; 2],
        now: MonoMs,
        sent: usize,
        secured: [Option<Secured>; 2],
        failed: Option<String>,
        closed: [bool; 2],
    }

    impl World {
        fn new() -> Self {
            Self {
                ends: [party().client(1_000), party().server(1_000)],
                now: 1_000,
                sent: 0,
                secured: [None, None],
                failed: None,
                closed: [false, false],
            }
        }

        /// Carries datagrams until the wire is quiet; `copies` says how often the n-th arrives.
        fn carry(&mut self, copies: &dyn Fn(usize) -> usize) {
            let mut quiet = false;
            while !quiet {
                quiet = true;
                for from in 0..2 {
                    while let Some(output) = self.ends[from].poll() {
                        quiet = false;
                        match output {
                            DtlsOutput::Datagram(datagram) => {
                                for _ in 0..copies(self.sent) {
                                    self.ends[1 - from].handle(&datagram, self.now);
                                }
                                self.sent += 1;
                            }
                            DtlsOutput::Secured(secured) => {
                                assert!(self.secured[from].replace(secured).is_none(), "secured twice");
                            }
                            DtlsOutput::Closed => self.closed[from] = true,
                            DtlsOutput::Failed(why) => self.failed = Some(why),
                        }
                    }
                }
            }
        }

        /// Until both are secured; timers run as they are due.
        fn run(&mut self, copies: &dyn Fn(usize) -> usize) {
            for _ in 0..200 {
                self.carry(copies);
                if self.secured.iter().all(Option::is_some) || self.failed.is_some() {
                    return;
                }
                let Some(due) = self.ends.iter().filter_map(|end| end.next_timeout()).min() else { return };
                self.now = due.max(self.now + 1);
                for end in &mut self.ends {
                    end.handle_timeout(self.now);
                }
            }
        }

        fn assert_agreed(&self, case: &str) {
            let [Some(client), Some(server)] = &self.secured else {
                panic!("{case}: not done: {:?}", self.failed);
            };
            assert_eq!(client.keys.profile, server.keys.profile);
            assert_eq!(client.keys.local, server.keys.remote, "{case}");
            assert_eq!(client.keys.remote, server.keys.local, "{case}");
            assert!(
                is_promised(client, &party().fingerprint()) && is_promised(server, &party().fingerprint())
            );
            assert!(!is_promised(client, &[0; 32]));
        }
    }

    #[test]
    fn client_and_server_agree_and_srtp_runs_on_their_keys() {
        let mut world = World::new();
        world.run(&|_| 1);
        world.assert_agreed("plain");
        let mut ends = world.secured.iter().flatten().map(|secured| Srtp::new(&secured.keys).unwrap());
        let (mut client, mut server) = (ends.next().unwrap(), ends.next().unwrap());
        let mut packet = vec![0; 12 + 160 + MAX_OVERHEAD];
        crate::media::rtp::write(&mut packet, false, 8, 1, 1, 1).unwrap();
        let len = client.protect_rtp(&mut packet, 172).unwrap();
        assert_eq!(server.unprotect_rtp(&mut packet[..len]), Ok(172));
    }

    #[test]
    fn any_one_datagram_may_be_lost_or_doubled() {
        let mut plain = World::new();
        plain.run(&|_| 1);
        let datagrams = plain.sent;
        assert!((4..12).contains(&datagrams), "{datagrams} datagrams");
        for n in 0..datagrams {
            for copies in [0, 2] {
                let mut world = World::new();
                world.run(&|at| if at == n { copies } else { 1 });
                world.assert_agreed(&format!("datagram {n} of {datagrams}, {copies} copies"));
            }
        }
    }

    #[test]
    fn closing_is_heard_and_ends_both() {
        let mut world = World::new();
        world.run(&|_| 1);
        let now = world.now;
        world.ends[0].close(now);
        world.carry(&|_| 1);
        assert_eq!(world.closed, [false, true]);
        assert_eq!(world.ends[0].next_timeout(), None);
        world.ends[0].handle(&[22; 100], now);
        assert_eq!(world.ends[0].poll(), None);
    }

    #[test]
    fn a_forged_alert_does_not_end_a_live_association() {
        let mut world = World::new();
        world.run(&|_| 1);
        for alert in [[2, 40], [1, 0]] {
            let forged = [&[21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 99, 0, 2][..], &alert].concat();
            let now = world.now;
            world.ends[1].handle(&forged, now);
            let garbage = [&[21, 254, 253, 0, 1, 0, 0, 0, 0, 0, 99, 0, 26][..], &[7; 26]].concat();
            world.ends[1].handle(&garbage, now);
        }
        world.carry(&|_| 1);
        assert_eq!((world.closed, &world.failed), ([false, false], &None));
        let now = world.now;
        world.ends[0].close(now);
        world.carry(&|_| 1);
        assert!(world.closed[1], "it is alive and hears the real one");
    }

    fn fixture(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/fixtures/wire/icelite/{name}.bin", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn the_client_hello_of_chromium_in_two_datagrams_gets_a_server_hello_flight_in_any_order() {
        let (a, b) = (fixture("03-in-dtls"), fixture("04-in-dtls"));
        assert!(is_client_hello(&a) && is_client_hello(&b));
        for (name, order) in [
            ("in order", vec![&a, &b]),
            ("swapped", vec![&b, &a]),
            ("first twice", vec![&a, &a, &b]),
            ("second twice", vec![&a, &b, &b]),
            ("both twice", vec![&b, &a, &b, &a]),
        ] {
            let mut server = party().server(1_000);
            for datagram in order {
                server.handle(datagram, 1_010);
            }
            let Some(DtlsOutput::Datagram(flight)) = server.poll() else { panic!("{name}: no flight") };
            // A handshake record with a ServerHello.
            assert_eq!((flight[0], flight[13]), (22, 2), "{name}");
        }
    }

    #[test]
    fn half_a_client_hello_gets_no_answer() {
        for name in ["03-in-dtls", "04-in-dtls"] {
            let mut server = party().server(1_000);
            server.handle(&fixture(name), 1_010);
            assert_eq!(server.poll(), None);
        }
    }

    #[test]
    fn noise_and_floods_of_fragments_cost_little_and_end_at_most_this_handshake() {
        let hello = fixture("03-in-dtls");
        let mut server = party().server(1_000);
        for n in 0..10_000_u32 {
            // One octet of the hello each time, as a record of its own.
            let offset = (n % 1_000).to_be_bytes();
            let mut fragment = hello[..25].to_vec();
            fragment[5..11].copy_from_slice(&[0, 0, 0, 1, (n >> 8) as u8, n as u8]);
            fragment[11..13].copy_from_slice(&[0, 13]);
            fragment[19..22].copy_from_slice(&offset[1..]);
            fragment[22..25].copy_from_slice(&[0, 0, 1]);
            fragment.push(hello[25 + n as usize % 1_000]);
            server.handle(&fragment, 1_001);
        }
        for first in 20..=63 {
            server.handle(&[first; 64], 1_002);
            server.handle(&[first], 1_002);
        }
        while let Some(output) = server.poll() {
            assert!(matches!(output, DtlsOutput::Failed(_)), "{output:?}");
        }
        // The next ClientHello gets a new association.
        let mut world = World::new();
        world.run(&|_| 1);
        world.assert_agreed("afterwards");
    }

    #[test]
    fn an_unusable_identity_is_an_error_at_once() {
        let good = identity();
        for bad in [
            Identity { key: Secret::new(vec![1, 2, 3]), ..good.clone() },
            Identity { certificate: Vec::new(), ..good },
        ] {
            assert!(DtlsParty::new(&bad, Instant::now(), 0).is_err());
        }
    }

    #[test]
    fn a_handshake_without_a_peer_ends_by_itself() {
        let mut client = party().client(1_000);
        let mut now = 1_000;
        let mut failed = false;
        for _ in 0..100 {
            while let Some(output) = client.poll() {
                failed |= matches!(output, DtlsOutput::Failed(_));
            }
            let Some(due) = client.next_timeout() else { break };
            now = due.max(now + 1);
            client.handle_timeout(now);
        }
        assert!(failed);
        assert!(now < 200_000, "took {now} ms");
    }
}
