//! The sound of one call: its socket, its way to the switch, its voice.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::{Report, Role, Sound};
use crate::media::command::Law;
use crate::media::rtp::{Class, MAX_DATAGRAM, class};
use crate::sdp::negotiate::{self, Agreed, Codec, Local, Offer, Remote};
use crate::sdp::webrtc::{Fingerprint, Ours, Setup};
use crate::sdp::{Direction, SdpError};
use crate::terms::{MonoMs, Secret};
use crate::ua::agent::CallNo;
use crate::ua::secure::{Secure, SecureOutput};
use crate::ua::speech::Speak;
use crate::ua::tone_meter::Window;
use crate::ua::voice::{PACKET_MS, Voice};

/// When so many packets are overdue, the process slept: it goes on instead of catching up.
const MAX_OVERDUE_MS: u64 = 200;
/// Datagrams read at once from one socket.
const MAX_READ: usize = 64;

/// How packets reach the switch.
enum Way {
    Closed,
    Plain(SocketAddr),
    Secure(Box<Secure>),
}

/// One call's sound.
pub(super) struct Leg {
    voice: Voice,
    socket: UdpSocket,
    local: Local,
    role: Role,
    way: Way,
    agreed: Option<Agreed>,
    /// Our ICE credentials changed since the last agreement.
    new_ice: bool,
    last: Option<Window>,
    /// When the next packet is due; `None`: it does not send yet.
    due: Option<MonoMs>,
    /// When to answer, and the answer.
    pub(super) answer_at: Option<MonoMs>,
    pub(super) answer: String,
    rng: ChaCha20Rng,
}

impl Leg {
    pub(super) fn new(role: &Role, address: IpAddr, rng: &mut ChaCha20Rng) -> io::Result<Self> {
        let mut rng = ChaCha20Rng::from_rng(rng);
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_nonblocking(true)?;
        let at = socket.local_addr()?;
        let ssrc = rng.next_u32();
        Ok(Self {
            voice: Voice::new(Law::Pcma, ssrc),
            local: describe(role, at, ssrc, &mut rng),
            socket,
            role: role.clone(),
            way: Way::Closed,
            agreed: None,
            new_ice: false,
            last: None,
            due: None,
            answer_at: None,
            answer: String::new(),
            rng,
        })
    }

    pub(super) fn say(&mut self, speak: Speak) {
        self.voice.say(speak);
    }

    /// From now on it sends.
    pub(super) fn speak_up(&mut self, now: MonoMs) {
        self.due.get_or_insert(now);
    }

    /// Our offer.
    pub(super) fn offer(&self, codecs: &[Codec]) -> String {
        negotiate::offer(&self.local, codecs, Direction::SendRecv)
    }

    /// Our answer to an offer, first or later.
    pub(super) fn take_offer(
        &mut self,
        sdp: &[u8],
        codecs: &[Codec],
        now: MonoMs,
    ) -> Result<String, SdpError> {
        let offer: Offer = negotiate::read_offer(sdp)?;
        if self.agreed.is_some() {
            self.next_version();
        }
        let (agreed, text) = negotiate::answer(&offer, &self.local, codecs)?;
        self.agree(agreed, now);
        Ok(text)
    }

    /// Our later offer: another direction, or new ICE credentials (RFC 8445 section 9).
    pub(super) fn change(&mut self, direction: Direction, new_ice: bool) -> Option<String> {
        self.next_version();
        if let (Local::WebRtc(ours), true) = (&mut self.local, new_ice) {
            (ours.ufrag, ours.pwd) = credentials(&mut self.rng);
            self.new_ice = true;
        }
        self.agreed.as_ref().map(|agreed| negotiate::offer_again(&self.local, agreed, direction))
    }

    /// The switch's answer to our offer.
    pub(super) fn take_answer(&mut self, sdp: &[u8], codecs: &[Codec], now: MonoMs) -> Result<(), SdpError> {
        self.agree(negotiate::read_answer(codecs, sdp)?, now);
        Ok(())
    }

    fn next_version(&mut self) {
        match &mut self.local {
            Local::Plain { version, .. } => *version += 1,
            Local::WebRtc(ours) => ours.version += 1,
        }
    }

    fn agree(&mut self, agreed: Agreed, now: MonoMs) {
        let law = match agreed.codec {
            Codec::Pcma => Law::Pcma,
            Codec::Pcmu => Law::Pcmu,
        };
        self.voice.agree(law, agreed.payload_type, agreed.telephone_event);
        match (&agreed.remote, &mut self.way, &self.local, &self.role) {
            (Remote::Plain { rtp, .. }, ..) => self.way = Way::Plain(*rtp),
            (Remote::WebRtc(theirs), Way::Secure(secure), Local::WebRtc(ours), _) => {
                let theirs_new = match self.agreed.as_ref().map(|agreed| &agreed.remote) {
                    Some(Remote::WebRtc(old)) => old.ufrag != theirs.ufrag,
                    Some(Remote::Plain { .. }) | None => false,
                };
                if theirs_new || std::mem::take(&mut self.new_ice) {
                    secure.restart(&ours.ufrag, theirs, now);
                }
            }
            (Remote::WebRtc(theirs), _, Local::WebRtc(ours), Role::Browser(party)) => {
                let rng = ChaCha20Rng::from_rng(&mut self.rng);
                if let Some(secure) = Secure::new(&ours.ufrag, theirs, party, rng, now) {
                    self.way = Way::Secure(Box::new(secure));
                }
            }
            (Remote::WebRtc(_), _, Local::Plain { .. }, _) | (Remote::WebRtc(_), _, _, Role::Gateway) => {}
        }
        self.agreed = Some(agreed);
    }

    /// Reads what came, sends what is due; reports go to `tell`.
    pub(super) fn tick(&mut self, call: CallNo, now: MonoMs, tell: &mut dyn FnMut(Report)) {
        self.read(now);
        if let Way::Secure(secure) = &mut self.way {
            secure.handle_timeout(now);
        }
        self.drain(call, now, tell);
        self.send_due(now);
        self.send_report(now);
        for pressed in self.voice.digits(now) {
            tell(Report::Digit { call, digit: pressed.digit });
        }
        for window in self.voice.windows() {
            self.last = Some(window);
            tell(Report::Heard { call, window });
        }
    }

    fn read(&mut self, now: MonoMs) {
        let mut buf = [0; MAX_DATAGRAM];
        for _ in 0..MAX_READ {
            let Ok((len, from)) = self.socket.recv_from(&mut buf) else { return };
            let Some(datagram) = buf.get(..len) else { return };
            match &mut self.way {
                Way::Plain(remote) if *remote == from && class(datagram) == Class::Rtp => {
                    self.voice.hear(datagram, now);
                }
                Way::Secure(secure) if secure.remote() == from => secure.handle(datagram, now),
                Way::Plain(_) | Way::Secure(_) | Way::Closed => {}
            }
        }
    }

    fn drain(&mut self, call: CallNo, now: MonoMs, tell: &mut dyn FnMut(Report)) {
        let Way::Secure(secure) = &mut self.way else { return };
        let remote = secure.remote();
        while let Some(output) = secure.poll() {
            match output {
                // What the kernel does not take is lost as on a wire.
                SecureOutput::Datagram(datagram) => drop(self.socket.send_to(&datagram, remote)),
                SecureOutput::Packet(packet) => self.voice.hear(&packet, now),
                SecureOutput::Control(compound) => self.voice.hear_report(&compound, now),
                SecureOutput::Secured => tell(Report::Secured { call }),
                SecureOutput::Failed(why) => tell(Report::NoSound { call, why }),
            }
        }
    }

    fn send_due(&mut self, now: MonoMs) {
        let Some(mut due) = self.due else { return };
        if now.saturating_sub(due) > MAX_OVERDUE_MS {
            due = now;
        }
        while due <= now {
            due += PACKET_MS;
            for packet in self.voice.packets() {
                self.send(packet);
            }
        }
        self.due = Some(due);
    }

    /// What the kernel does not take is lost as on a wire.
    fn send(&mut self, packet: Vec<u8>) {
        let sent = match &mut self.way {
            Way::Closed => None,
            Way::Plain(remote) => Some((packet, *remote)),
            Way::Secure(secure) => secure.protect(packet).map(|packet| (packet, secure.remote())),
        };
        if let Some((packet, remote)) = sent {
            drop(self.socket.send_to(&packet, remote));
        }
    }

    /// RTCP shares the port with a browser; towards gateways the switch lives without.
    fn send_report(&mut self, now: MonoMs) {
        let Way::Secure(secure) = &mut self.way else { return };
        let Some(compound) = self.voice.report(now) else { return };
        if let Some(compound) = secure.protect_control(compound) {
            drop(self.socket.send_to(&compound, secure.remote()));
        }
    }

    /// Presses digits towards the switch.
    pub(super) fn press(&mut self, digits: &str) {
        self.voice.press(digits);
    }

    /// Ends as a browser does that leaves.
    pub(super) fn close(&mut self, call: CallNo, now: MonoMs) {
        if let Way::Secure(secure) = &mut self.way {
            secure.close(now);
        }
        self.drain(call, now, &mut |_| {});
    }

    pub(super) fn sound(&self) -> Sound {
        let refused = match &self.way {
            Way::Secure(secure) => secure.refused(),
            Way::Plain(_) | Way::Closed => 0,
        };
        Sound { heard: self.voice.heard(), last: self.last, refused }
    }
}

fn describe(role: &Role, at: SocketAddr, ssrc: u32, rng: &mut ChaCha20Rng) -> Local {
    let session_id = rng.next_u64() >> 2;
    match role {
        Role::Gateway => {
            Local::Plain { address: at.ip(), port: at.port(), session_id, version: 1, mux: true }
        }
        Role::Browser(party) => {
            let (ufrag, pwd) = credentials(rng);
            Local::WebRtc(Box::new(Ours {
                at,
                session_id,
                version: 1,
                ufrag,
                pwd,
                fingerprint: Fingerprint(party.fingerprint()),
                setup: Setup::Active,
                ice_lite: false,
                mid: "0".to_owned(),
                ssrc,
                cname: format!("{:016x}", rng.next_u64()),
            }))
        }
    }
}

/// A new user fragment and password: 32 and 128 random bits.
fn credentials(rng: &mut ChaCha20Rng) -> (String, Secret<String>) {
    let ufrag = format!("{:08x}", rng.next_u32());
    (ufrag, Secret::new(format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64())))
}
