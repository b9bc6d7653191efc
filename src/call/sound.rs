//! What a call does to media: opens ports, makes and takes descriptions, plays, joins.
//!
//! Invariant: a port is opened before the description that names it is sent; it is closed once.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

use crate::call::call::{Call, Stage};
use crate::call::leg::Leg;
use crate::call::ports::{Local, PortRecord};
use crate::call::words::{cause, tone_for};
use crate::call::{Ending, Next, Room};
use crate::dialplan::Step;
use crate::fact::{CallResult, Cause, LegState, Party, ToneKind, What};
use crate::media::command::{Command as MediaCommand, Open, Sound};
use crate::sdp::Direction as Sends;
use crate::sdp::negotiate::{self as sdp, Codec};
use crate::sip;
use crate::terms::{Now, PortId};

/// Codecs that Tandem relays.
pub(super) const BOTH_LAWS: [Codec; 2] = [Codec::Pcma, Codec::Pcmu];

impl PortRecord {
    fn open(&self) -> Open {
        match &self.local {
            Local::Rtp { bind, port, .. } => Open::Rtp { local: SocketAddr::new(*bind, *port) },
            Local::WebRtc { ufrag, pwd, .. } => Open::WebRtc { ufrag: ufrag.clone(), pwd: pwd.clone() },
        }
    }
}

impl Call {
    /// Opens the media end of `leg`, as plain RTP or for a browser; `None` when no port is free.
    fn open_port(&self, room: &mut Room, leg: &mut Leg, browser: bool, now: Now) -> Option<()> {
        let address = room.address(&leg.party);
        let port = if browser {
            let udp = room.setup.media.webrtc_ports.get(self.worker).copied()?;
            room.ports.webrtc(address, udp, self.worker, &mut room.rng)
        } else {
            // Behind a NAT the address told is not one of this machine.
            let told = room.setup.media.address.is_some();
            let any =
                if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let bind = if told { any } else { address };
            room.ports.rtp((address, bind), self.worker, &mut room.rng, now.mono_ms)?
        };
        let command = MediaCommand::Open {
            port: port.id,
            call: self.id,
            leg: leg.id,
            open: port.open(),
            line: port.line.clone(),
        };
        room.media(self.worker, command);
        leg.source = room.reached.get(&leg.party).map(|reach| reach.remote);
        leg.port = Some(port);
        Some(())
    }

    /// Our offer to a leg that we call.
    pub(super) fn offer(&self, room: &mut Room, leg: &mut Leg, now: Now) -> Option<Bytes> {
        let browser = room.is_browser(&leg.party);
        self.open_port(room, leg, browser, now)?;
        let law = self.first.agreed.as_ref().map(|agreed| agreed.codec);
        let laws = match &leg.party {
            Party::Operator(_) => Leg::laws(law).to_vec(),
            Party::Trunk(trunk) => laws_of(room, trunk, law),
        };
        let media = &room.setup.media;
        let local = leg.local(media.fingerprint)?;
        Some(Bytes::from(sdp::offer(&local, &laws, Sends::SendRecv)))
    }

    /// Our offer to the first leg, when it is an operator's own phone.
    pub(super) fn offer_first(&mut self, room: &mut Room, now: Now) -> Option<Bytes> {
        let mut first = self.first.clone();
        let sdp = self.offer(room, &mut first, now);
        self.first = first;
        sdp
    }

    /// Answers the first leg's INVITE, once: from here it hears us.
    pub(super) fn answer_first(&mut self, room: &mut Room, now: Now) -> Result<(), Next> {
        if self.first.is_up() || self.first.outgoing {
            return Ok(());
        }
        let Some(offer) = self.first.offer.take() else {
            return Err(self.offer_late(room, now));
        };
        let mut first = self.first.clone();
        let answered = self.answer_leg(room, &mut first, &offer, now);
        self.first = first;
        match answered {
            Ok(()) => Ok(()),
            Err(why) => Err(self.refuse(room, why.sip, why)),
        }
    }

    /// Opens the media end of a leg that called us and answers its offer.
    pub(super) fn answer_leg(
        &self,
        room: &mut Room,
        leg: &mut Leg,
        offer: &sdp::Offer,
        now: Now,
    ) -> Result<(), Cause> {
        let browser = matches!(offer.remote, sdp::Remote::WebRtc(_));
        if self.open_port(room, leg, browser, now).is_none() {
            return Err(cause(47, 503, "no media port is free"));
        }
        let local = leg.local(room.setup.media.fingerprint);
        let prefer = match &leg.party {
            Party::Trunk(trunk) => laws_of(room, trunk, None),
            Party::Operator(_) => BOTH_LAWS.to_vec(),
        };
        let Some(Ok((agreed, text))) = local.map(|local| sdp::answer(offer, &local, &prefer)) else {
            return Err(cause(79, 488, "no codec in common: PCMA or PCMU is needed"));
        };
        leg.agreed = Some(agreed);
        leg.state = LegState::Up;
        self.connect(room, leg);
        room.sip(sip::Command::Answer { leg: leg.id, sdp: Bytes::from(text) });
        self.tell_leg(room, leg);
        Ok(())
    }

    /// The call came without a description: ours goes with the answer, theirs comes with the ACK. Until
    /// then nobody knows where sound is to go, so the plan waits with the step that it was to take.
    fn offer_late(&mut self, room: &mut Room, now: Now) -> Next {
        let Some(sdp) = self.offer_first(room, now) else {
            return self.refuse(room, 503, cause(47, 503, "no media port is free"));
        };
        self.first.state = LegState::Up;
        room.sip(sip::Command::Answer { leg: self.first.id, sdp });
        self.tell_leg(room, &self.first);
        self.cursor = self.cursor.saturating_sub(1);
        self.stage = Stage::Greeting { token: 0 };
        Next::Goes
    }

    /// The answer to the offer in our 200 came, or did not: the plan is walked on, or the call ends.
    pub(super) fn late_answer(&mut self, room: &mut Room, sdp: Option<&[u8]>, now: Now) -> Next {
        let mut first = self.first.clone();
        if !sdp.is_some_and(|sdp| self.take_answer(room, &mut first, sdp)) {
            let why = cause(79, 488, "the caller acknowledged without a usable session description");
            return Next::Over(Ending { result: CallResult::Failed, cause: why, by: "system" });
        }
        self.first = first;
        self.tell_leg(room, &self.first);
        self.walk(room, now)
    }

    /// Takes a leg's answer to our offer. `false` when it cannot be used.
    pub(super) fn take_answer(&self, room: &mut Room, leg: &mut Leg, sdp: &[u8]) -> bool {
        match sdp::read_answer(&BOTH_LAWS, sdp) {
            Ok(agreed) => {
                leg.agreed = Some(agreed);
                self.connect(room, leg);
                true
            }
            Err(_) => false,
        }
    }

    /// Tells the worker what is agreed for a leg.
    pub(super) fn connect(&self, room: &mut Room, leg: &Leg) {
        if let (Some(port), Some(remote)) = (&leg.port, leg.connect()) {
            room.media(self.worker, MediaCommand::Connect { port: port.id, remote });
        }
    }

    /// Lets a carrier that we call be heard before it describes itself.
    pub(super) fn expect(&self, room: &mut Room, leg: &Leg) {
        let trunk = leg.outgoing && leg.agreed.is_none() && matches!(leg.party, Party::Trunk(_));
        if let (Some(port), Some(from)) = (&leg.port, leg.source.filter(|_| trunk)) {
            room.media(self.worker, MediaCommand::Expect { port: port.id, from });
        }
    }

    /// Lets both legs hear each other.
    pub(super) fn join(&self, room: &mut Room) {
        if let (Some(a), Some(b)) = (port_of(&self.first), self.second.as_ref().and_then(port_of)) {
            room.media(self.worker, MediaCommand::Join { a, b });
        }
    }

    /// Plays to the first leg; its end comes back with the token.
    pub(super) fn play(&mut self, room: &mut Room, sound: Sound, repeat: bool) -> u64 {
        self.tokens = self.tokens.saturating_add(1);
        if let Some(port) = port_of(&self.first) {
            room.media(self.worker, MediaCommand::Play { port, sound, repeat, token: self.tokens });
        }
        self.tokens
    }

    /// Plays one of our tones to the first leg and tells so.
    pub(super) fn play_tone(&mut self, room: &mut Room, tone: ToneKind) {
        self.play(room, sound_of(tone), true);
        room.fact(self.id, What::Tone { tone, local: true });
    }

    /// Silences what plays to the first leg.
    pub(super) fn stop(&self, room: &mut Room) {
        if let Some(port) = port_of(&self.first) {
            room.media(self.worker, MediaCommand::Stop { port });
        }
    }

    /// Music or any file, again and again, to the first leg.
    pub(super) fn music(&mut self, room: &mut Room, file: String) {
        self.play(room, Sound::File(file.into()), true);
    }

    /// Tells how a leg stands.
    pub(super) fn tell_leg(&self, room: &mut Room, leg: &Leg) {
        room.fact(self.id, leg.told());
    }

    /// Ends the second leg and gives its port back; the call goes on.
    pub(super) fn drop_second(&mut self, room: &mut Room, why: Cause, alive: bool, now: Now) {
        if let Some(leg) = self.second.take() {
            self.close_leg(room, leg, why, alive, now);
        }
    }

    pub(super) fn close_leg(&self, room: &mut Room, leg: Leg, why: Cause, alive: bool, now: Now) {
        if alive {
            room.sip(sip::Command::HangUp { leg: leg.id, cause: why.clone() });
        }
        if let Some(port) = &leg.port {
            room.media(self.worker, MediaCommand::Close { port: port.id });
            room.ports.close(port, now.mono_ms);
        }
        room.fact(self.id, What::LegEnded { leg: leg.id, cause: why });
        if let Party::Trunk(trunk) = &leg.party {
            room.count(trunk, -1);
        }
    }

    /// The last tone to the first leg, with words on its screen, then the end.
    pub(super) fn farewell(&mut self, room: &mut Room, result: CallResult, why: Cause, now: Now) -> Next {
        if !self.first.is_up() {
            return Next::Over(Ending { result, cause: why, by: "system" });
        }
        self.play_tone(room, tone_for(&why));
        self.deadline_ms = Some(now.mono_ms.saturating_add(crate::call::FAREWELL_MS));
        self.stage = Stage::Farewell { result, cause: why };
        Next::Goes
    }

    /// Ends every leg, gives every port back and tells the end: the last step of a call.
    pub(super) fn finish(&mut self, room: &mut Room, ending: Ending, now: Now) {
        let Ending { result, cause: why, by } = ending;
        #[cfg(test)]
        crate::call::failpoint::pass("call/finish");
        self.drop_transfer(room, &why, now);
        self.leave_floor(room);
        let result =
            if self.transferred && result == CallResult::Answered { CallResult::Transferred } else { result };
        let first_alive = !matches!(by, "first leg");
        let second_alive = !matches!(by, "second leg");
        self.drop_second(room, why.clone(), second_alive, now);
        self.close_leg(room, self.first.clone(), why.clone(), first_alive, now);
        let by = self.who(by);
        let (wait_ms, talk_ms) = (self.wait_ms(now.mono_ms), self.talk_ms(now.mono_ms));
        room.fact(self.id, What::Ended { result, cause: why, by, wait_ms, talk_ms });
        room.out.push_back(crate::call::Output::Over { call: self.id, answered: self.answered_ms.is_some() });
    }

    /// The side of a leg in the words of a CDR.
    fn who(&self, by: &str) -> String {
        let party = match by {
            "first leg" => Some(&self.first.party),
            "second leg" => None,
            _ => return by.to_owned(),
        };
        match (party, self.direction) {
            (Some(Party::Operator(_)), _) | (None, crate::fact::Direction::In) => "operator".to_owned(),
            (Some(Party::Trunk(_)), _) | (None, _) => "caller".to_owned(),
        }
    }

    /// Opens everything again after a restore, where it was.
    pub(super) fn reopen(&self, room: &mut Room) {
        for leg in self.legs() {
            let Some(port) = &leg.port else { continue };
            let command = MediaCommand::Open {
                port: port.id,
                call: self.id,
                leg: leg.id,
                open: port.open(),
                line: port.line.clone(),
            };
            room.media(self.worker, command);
            self.expect(room, leg);
            self.connect(room, leg);
        }
        let joined = match &self.stage {
            Stage::Talking => !self.is_held(),
            Stage::Dialling(_) => true,
            Stage::Calling | Stage::Greeting { .. } | Stage::Waiting { .. } | Stage::Offering { .. } => false,
            Stage::Farewell { .. } => false,
        };
        if joined {
            self.join(room);
        }
        self.sound_again(room);
    }

    /// Whether one side stopped listening, by its desk or by SIP.
    fn is_held(&self) -> bool {
        self.held || self.legs().any(|leg| leg.state == LegState::Held)
    }

    /// Plays after a restore what was heard before it: without the end of its prompt a call would never
    /// take its next step.
    fn sound_again(&self, room: &mut Room) {
        let step = self.cursor.checked_sub(1).and_then(|at| self.steps.get(at));
        let (sound, repeat) = match (&self.stage, step) {
            (Stage::Greeting { .. }, Some(Step::Play { file })) => (Sound::File(file.as_str().into()), false),
            (Stage::Waiting { queue } | Stage::Offering { queue, .. }, Some(Step::Queue { music, .. })) => {
                let music = music.as_ref().or_else(|| room.setup.queues.get(queue).map(|queue| &queue.music));
                let Some(music) = music.filter(|file| !file.is_empty()) else { return };
                (Sound::File(music.as_str().into()), true)
            }
            (Stage::Dialling(hunt), _) if hunt.ringback => (Sound::Ringback, true),
            (Stage::Dialling(hunt), _) if self.transfer.is_some() && !hunt.heard => {
                return self.music_on_hold(room);
            }
            (Stage::Farewell { result: CallResult::Answered, .. }, _) => {
                (Sound::File(room.setup.time_is_up.as_str().into()), false)
            }
            (Stage::Farewell { cause, .. }, _) => (sound_of(tone_for(cause)), true),
            (Stage::Talking, _) if self.is_held() => return self.music_on_hold(room),
            (
                Stage::Calling
                | Stage::Greeting { .. }
                | Stage::Waiting { .. }
                | Stage::Offering { .. }
                | Stage::Dialling(_)
                | Stage::Talking,
                _,
            ) => return,
        };
        if let Some(port) = port_of(&self.first) {
            room.media(self.worker, MediaCommand::Play { port, sound, repeat, token: self.tokens });
        }
    }

    /// The leg whose media end this is.
    pub(super) fn leg_of_port(&mut self, port: PortId) -> Option<&mut Leg> {
        if port_of(&self.first) == Some(port) {
            return Some(&mut self.first);
        }
        self.second.as_mut().filter(|leg| port_of(leg) == Some(port))
    }
}

/// How a tone of ours sounds.
fn sound_of(tone: ToneKind) -> Sound {
    match tone {
        ToneKind::Ringback => Sound::Ringback,
        ToneKind::Busy => Sound::Busy,
        ToneKind::Congestion => Sound::Congestion,
        ToneKind::Unavailable | ToneKind::Announcement => Sound::Unavailable,
    }
}

/// The media end of a leg.
pub(super) fn port_of(leg: &Leg) -> Option<PortId> {
    leg.port.as_ref().map(|port| port.id)
}

/// What a trunk takes, the other side's law first where it takes that.
fn laws_of(room: &Room, trunk: &crate::terms::TrunkName, law: Option<Codec>) -> Vec<Codec> {
    let mut laws = room.setup.trunks.get(trunk).map_or(BOTH_LAWS.to_vec(), |trunk| trunk.codecs.clone());
    laws.sort_by_key(|codec| law.is_some_and(|law| law != *codec));
    laws
}
