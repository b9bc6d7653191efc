//! Changes of a live leg: hold and resume by SIP, a new address, a session refresh that carries a
//! description. Each is answered by us and never relayed.
//!
//! Invariant: a change that cannot be used is refused with 488 and the call goes on as it was
//! (RFC 3261 section 14.2).

use bytes::Bytes;

use crate::call::call::{Call, Stage};
use crate::call::leg::Leg;
use crate::call::sound::{BOTH_LAWS, port_of};
use crate::call::{Next, Room};
use crate::fact::{LegState, Party, What};
use crate::media::command::{Command as MediaCommand, Sound};
use crate::sdp::Direction as Sends;
use crate::sdp::negotiate as sdp;
use crate::sip;
use crate::terms::{LegId, Now};

impl Call {
    /// A re-INVITE or UPDATE with a description, or one that asks for ours.
    pub(super) fn change_asked(&mut self, room: &mut Room, id: LegId, sdp: Option<Bytes>, _now: Now) -> Next {
        let Some(mut leg) = self.leg(id).cloned() else { return Next::Goes };
        let answer = match sdp {
            Some(sdp) => self.answer_change(room, &mut leg, &sdp),
            None => self.offer_change(room, &mut leg),
        };
        match answer {
            Some(sdp) => {
                let was = leg_hears(self.leg(id).map(|leg| &*leg));
                let hears = leg_hears(Some(&leg));
                self.connect(room, &leg);
                if let Some(place) = self.leg(id) {
                    *place = leg;
                }
                room.sip(sip::Command::AnswerChange { leg: id, sdp });
                self.follow_hold(room, id, was, hears);
            }
            None => room.sip(sip::Command::RefuseChange { leg: id, code: 488 }),
        }
        Next::Goes
    }

    fn answer_change(&self, room: &mut Room, leg: &mut Leg, sdp: &[u8]) -> Option<Bytes> {
        let offer = sdp::read_offer(sdp).ok()?;
        let restart = self.follow_restart(room, leg, &offer);
        let law = leg.agreed.as_ref().map(|agreed| agreed.codec);
        let local = leg.local(room.setup.media.fingerprint)?;
        let (mut agreed, text) = sdp::answer(&offer, &local, &Leg::laws(law)).ok()?;
        keep_address(&mut agreed, leg.agreed.as_ref());
        leg.agreed = Some(agreed);
        // Only now: an offer that is refused leaves the credentials as they were.
        if let Some(command) = restart {
            room.media(self.worker, command);
        }
        Some(Bytes::from(text))
    }

    /// New ICE credentials of the browser ask for new ones of ours (RFC 8445 section 9); sound goes on.
    fn follow_restart(&self, room: &mut Room, leg: &mut Leg, offer: &sdp::Offer) -> Option<MediaCommand> {
        let known = leg.agreed.as_ref().map(|agreed| &agreed.remote);
        let (Some(sdp::Remote::WebRtc(known)), sdp::Remote::WebRtc(new)) = (known, &offer.remote) else {
            return None;
        };
        if known.ufrag == new.ufrag {
            return None;
        }
        let port = leg.port.as_mut()?;
        let (ufrag, pwd) = port.renew_credentials(&mut room.rng)?;
        Some(MediaCommand::Restart { port: port.id, ufrag, pwd })
    }

    fn offer_change(&self, room: &Room, leg: &mut Leg) -> Option<Bytes> {
        let agreed = leg.agreed.clone()?;
        let local = leg.local(room.setup.media.fingerprint)?;
        Some(Bytes::from(sdp::offer_again(&local, &agreed, Sends::SendRecv)))
    }

    /// The answer to an offer that we made within the call.
    pub(super) fn change_answered(&mut self, room: &mut Room, id: LegId, sdp: &[u8]) -> Next {
        let Some(mut leg) = self.leg(id).cloned() else { return Next::Goes };
        let Ok(mut agreed) = sdp::read_answer(&BOTH_LAWS, sdp) else { return Next::Goes };
        keep_address(&mut agreed, leg.agreed.as_ref());
        let was = leg_hears(Some(&leg));
        leg.agreed = Some(agreed);
        self.connect(room, &leg);
        let hears = leg_hears(Some(&leg));
        if let Some(place) = self.leg(id) {
            *place = leg;
        }
        // Some gateways hold by asking for our offer and answering it with `sendonly`.
        self.follow_hold(room, id, was, hears);
        Next::Goes
    }

    /// One side stopped or began to listen by SIP: the other side hears music, or the talk again.
    fn follow_hold(&mut self, room: &mut Room, id: LegId, was: bool, hears: bool) {
        if was == hears || !matches!(self.stage, Stage::Talking) || self.held {
            return;
        }
        let other = self.legs().find(|leg| leg.id != id).filter(|leg| matches!(leg.party, Party::Trunk(_)));
        let other = other.and_then(port_of);
        let held_by_operator = self.leg(id).is_some_and(|leg| matches!(leg.party, Party::Operator(_)));
        if let Some(port) = other.filter(|_| held_by_operator) {
            if hears {
                room.media(self.worker, MediaCommand::Stop { port });
                self.join(room);
            } else {
                let music = room.setup.queues.values().next().map(|queue| queue.music.clone());
                room.media(self.worker, MediaCommand::Part { a: port });
                if let Some(music) = music {
                    let sound = Sound::File(music.into());
                    room.media(self.worker, MediaCommand::Play { port, sound, repeat: true, token: 0 });
                }
            }
        }
        if let Some(leg) = self.leg(id) {
            leg.state = if hears { LegState::Up } else { LegState::Held };
            let leg = leg.clone();
            self.tell_leg(room, &leg);
        }
        room.fact(self.id, if hears { What::Resumed } else { What::Held });
    }
}

/// The old form of hold (`c=0.0.0.0`) names no address: the one known before stays.
fn keep_address(agreed: &mut sdp::Agreed, before: Option<&sdp::Agreed>) {
    let unnamed = matches!(&agreed.remote, sdp::Remote::Plain { rtp, .. } if rtp.ip().is_unspecified());
    if let Some(before) = before.filter(|_| unnamed) {
        agreed.remote = before.remote.clone();
    }
}

/// Whether the party wants to hear us.
pub(super) fn leg_hears(leg: Option<&Leg>) -> bool {
    leg.and_then(|leg| leg.agreed.as_ref()).is_some_and(|agreed| agreed.direction.sends())
}
