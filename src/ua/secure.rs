//! The browser's way of carrying sound: checks that nominate, DTLS as the client, SRTP (RFC 8834).
//!
//! Invariant: no sound leaves before the other end's certificate is the one its SDP promised, and none that
//! fails authentication is heard.

use std::collections::VecDeque;
use std::net::SocketAddr;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::Rng as _;

use crate::media::dtls::{DtlsOutput, DtlsParty, Handshake, is_promised};
use crate::media::ice::IceFull;
use crate::media::rtp::{Class, class};
use crate::media::srtp::{MAX_OVERHEAD, Srtp};
use crate::sdp::webrtc::Theirs;
use crate::terms::MonoMs;

/// Between checks until one is answered, milliseconds.
const CHECK_MS: u64 = 500;
/// Between checks that renew consent; Chromium's is the same.
const CONSENT_MS: u64 = 2_500;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum SecureOutput {
    /// Send it to [`Secure::remote`].
    Datagram(Vec<u8>),
    /// An RTP packet came.
    Packet(Vec<u8>),
    /// An RTCP compound came.
    Control(Vec<u8>),
    /// The way stands.
    Secured,
    /// There will be no sound. In words.
    Failed(String),
}

/// One secured way.
pub struct Secure {
    remote: SocketAddr,
    promised: [u8; 32],
    ice: IceFull,
    party: DtlsParty,
    dtls: Option<Box<dyn Handshake>>,
    srtp: Option<Srtp>,
    check_at: MonoMs,
    answered: Option<MonoMs>,
    rng: ChaCha20Rng,
    out: VecDeque<SecureOutput>,
    refused: u64,
}

impl Secure {
    /// The way to the end that `theirs` describes; `None` when it has no candidate. `ufrag` is ours.
    pub fn new(
        ufrag: &str,
        theirs: &Theirs,
        party: &DtlsParty,
        mut rng: ChaCha20Rng,
        now: MonoMs,
    ) -> Option<Self> {
        let ice = IceFull::new(ufrag, &theirs.ufrag, theirs.pwd.clone(), rng.next_u64());
        Some(Self {
            remote: *theirs.candidates.first()?,
            promised: theirs.fingerprint.0,
            ice,
            party: party.clone(),
            dtls: None,
            srtp: None,
            check_at: now,
            answered: None,
            rng,
            out: VecDeque::new(),
            refused: 0,
        })
    }

    /// Where its datagrams go.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// When a check was last answered.
    pub fn answered(&self) -> Option<MonoMs> {
        self.answered
    }

    /// Packets that failed authentication or came twice.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// New credentials and perhaps a new address of the other end (ICE restart); the keys stay.
    pub fn restart(&mut self, ufrag: &str, theirs: &Theirs, now: MonoMs) {
        self.ice = IceFull::new(ufrag, &theirs.ufrag, theirs.pwd.clone(), self.rng.next_u64());
        self.remote = theirs.candidates.first().copied().unwrap_or(self.remote);
        self.check_at = now;
        self.answered = None;
    }

    /// A datagram came.
    pub fn handle(&mut self, datagram: &[u8], now: MonoMs) {
        match class(datagram) {
            Class::Stun => self.checked(datagram, now),
            Class::Dtls => {
                if let Some(dtls) = &mut self.dtls {
                    dtls.handle(datagram, now);
                }
                self.drain();
            }
            Class::Rtp => self.packet(datagram.to_vec()),
            Class::Rtcp => self.control(datagram.to_vec()),
            Class::Unknown => {}
        }
    }

    fn checked(&mut self, datagram: &[u8], now: MonoMs) {
        if self.ice.answered(datagram).is_none() {
            return;
        }
        self.answered = Some(now);
        if self.dtls.is_none() && self.srtp.is_none() {
            self.dtls = Some(self.party.client(now));
            self.drain();
        }
    }

    fn packet(&mut self, mut packet: Vec<u8>) {
        let Some(srtp) = &mut self.srtp else { return };
        match srtp.unprotect_rtp(&mut packet) {
            Ok(len) => {
                packet.truncate(len);
                self.out.push_back(SecureOutput::Packet(packet));
            }
            Err(_) => self.refused += 1,
        }
    }

    fn control(&mut self, mut packet: Vec<u8>) {
        let Some(srtp) = &mut self.srtp else { return };
        match srtp.unprotect_rtcp(&mut packet) {
            Ok(len) => {
                packet.truncate(len);
                self.out.push_back(SecureOutput::Control(packet));
            }
            Err(_) => self.refused += 1,
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: MonoMs) {
        if now >= self.check_at {
            let mut id = [0; 12];
            self.rng.fill_bytes(&mut id);
            self.out.push_back(SecureOutput::Datagram(self.ice.check(id)));
            self.check_at = now + if self.answered.is_some() { CONSENT_MS } else { CHECK_MS };
        }
        if let Some(dtls) = &mut self.dtls
            && dtls.next_timeout().is_some_and(|at| at <= now)
        {
            dtls.handle_timeout(now);
            self.drain();
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.dtls.as_mut().and_then(|dtls| dtls.poll()) {
            match output {
                DtlsOutput::Datagram(datagram) => self.out.push_back(SecureOutput::Datagram(datagram)),
                DtlsOutput::Secured(secured) if is_promised(&secured, &self.promised) => {
                    self.srtp = Srtp::new(&secured.keys);
                    self.out.push_back(SecureOutput::Secured);
                }
                DtlsOutput::Secured(_) => self.fail("the certificate is not the promised one"),
                DtlsOutput::Closed => self.fail("the other end closed DTLS"),
                DtlsOutput::Failed(why) => self.fail(&why),
            }
        }
    }

    fn fail(&mut self, why: &str) {
        self.dtls = None;
        self.out.push_back(SecureOutput::Failed(why.to_owned()));
    }

    /// An RTP packet as it goes out; `None` before the way stands.
    pub fn protect(&mut self, mut packet: Vec<u8>) -> Option<Vec<u8>> {
        let len = packet.len();
        packet.resize(len + MAX_OVERHEAD, 0);
        let len = self.srtp.as_mut()?.protect_rtp(&mut packet, len).ok()?;
        packet.truncate(len);
        Some(packet)
    }

    /// An RTCP compound as it goes out; `None` before the way stands.
    pub fn protect_control(&mut self, mut compound: Vec<u8>) -> Option<Vec<u8>> {
        let len = compound.len();
        compound.resize(len + MAX_OVERHEAD, 0);
        let len = self.srtp.as_mut()?.protect_rtcp(&mut compound, len).ok()?;
        compound.truncate(len);
        Some(compound)
    }

    /// Ends DTLS as a browser does that leaves.
    pub fn close(&mut self, now: MonoMs) {
        if let Some(dtls) = &mut self.dtls {
            dtls.close(now);
        }
        self.drain();
    }

    /// What is to be done; drained until `None`.
    pub fn poll(&mut self) -> Option<SecureOutput> {
        self.out.pop_front()
    }
}
