//! What legs and ports say while a call lives, and what desks ask of it.
//!
//! Invariant: an event moves a call only when its stage expects it; anything else changes nothing.

use std::net::IpAddr;

use crate::call::call::{Call, Stage};
use crate::call::change::leg_hears;
use crate::call::leg::Leg;
use crate::call::sound::port_of;
use crate::call::words::{cause, normal, plain};
use crate::call::{Denied, Ending, Next, Output, Room, is_inward};
use crate::fact::{CallResult, Cause, LegState, Party, What};
use crate::media::command::{Command as MediaCommand, Event as MediaEvent, MAX_DIGITS, Sound};
use crate::sip;
use crate::terms::{LegId, Now, OperatorName, PortId};

impl Call {
    /// SIP says something about one of the legs.
    pub(super) fn on_sip(&mut self, room: &mut Room, leg: LegId, event: sip::Event, now: Now) -> Next {
        if self.is_aside(leg) {
            return self.on_aside(room, leg, event, now);
        }
        let is_first = leg == self.first.id;
        match event {
            sip::Event::InviteSent { to, .. } => self.may_sound(room, leg, to),
            sip::Event::Rang { .. } if is_first => {
                self.first.state = LegState::Ringing;
                self.tell_leg(room, &self.first);
                Next::Goes
            }
            sip::Event::Rang { .. } => self.second_rings(room),
            sip::Event::EarlyMedia { sdp, .. } if !is_first => self.second_sounds(room, &sdp),
            sip::Event::Answered { sdp, .. } if is_first => self.own_phone_answered(room, &sdp, now),
            sip::Event::Answered { sdp, .. } => self.second_answered(room, &sdp, now),
            sip::Event::PreAnswered { sdp, .. } => self.change_answered(room, leg, &sdp),
            sip::Event::Confirmed { sdp, .. } => self.confirmed(room, leg, sdp.as_deref(), now),
            sip::Event::Redirected { to, .. } if !is_first => self.redirected(room, &to),
            sip::Event::Failed { code, cause, .. } if is_first => self.own_phone_failed(code, cause),
            sip::Event::Failed { code, cause, way, .. } => self.second_failed(room, code, cause, way, now),
            sip::Event::Offered { sdp, .. } => self.change_asked(room, leg, sdp, now),
            sip::Event::ChangeAnswered { sdp, .. } => self.change_answered(room, leg, &sdp),
            sip::Event::Digit { digit, .. } => self.info_digit(room, leg, digit),
            sip::Event::Ended { cause, .. } if is_first => self.first_ended(cause),
            sip::Event::Ended { cause, .. } => self.second_ended(room, cause, now),
            sip::Event::EarlyMedia { .. }
            | sip::Event::ChangeRefused { .. }
            | sip::Event::Redirected { .. }
            | sip::Event::Referred { .. }
            | sip::Event::Invited(_)
            | sip::Event::Registered { .. }
            | sip::Event::PhoneLost { .. }
            | sip::Event::Unregistered { .. }
            | sip::Event::TrunkUp { .. }
            | sip::Event::TrunkDown { .. }
            | sip::Event::Banned(_)
            | sip::Event::Stranger { .. } => Next::Goes,
        }
    }

    fn second_rings(&mut self, room: &mut Room) -> Next {
        let Some(mut leg) = self.second.take() else { return Next::Goes };
        if leg.state == LegState::Trying {
            leg.state = LegState::Ringing;
            self.tell_leg(room, &leg);
            if let Party::Trunk(trunk) = leg.party.clone() {
                room.fact(self.id, What::Ringing { trunk });
            }
        }
        // A carrier that promised sound (183) and sent none is still rung for by us.
        if matches!(leg.party, Party::Trunk(_)) || self.transfer.is_some() {
            self.far_rings(room);
        }
        self.second = Some(leg);
        Next::Goes
    }

    /// The INVITE is out: the carrier may sound from now on, also before it describes itself. The ports
    /// are joined already, so that its first packet is heard; our own tone goes over it until then.
    fn may_sound(&mut self, room: &mut Room, id: LegId, from: IpAddr) -> Next {
        if let Some(leg) = self.leg(id) {
            leg.source = Some(from);
        }
        if let Some(leg) = self.second.as_ref().filter(|leg| leg.id == id) {
            self.expect(room, leg);
            self.join(room);
        }
        Next::Goes
    }

    /// The carrier describes its sound before the answer.
    fn second_sounds(&mut self, room: &mut Room, sdp: &[u8]) -> Next {
        let Some(mut leg) = self.second.take() else { return Next::Goes };
        // An unusable description must not keep our ring-back away.
        let usable = matches!(self.stage, Stage::Dialling(_)) && self.take_answer(room, &mut leg, sdp);
        self.second = Some(leg);
        if usable {
            self.sounds_early(room);
        }
        Next::Goes
    }

    /// The carrier's sound goes to the first leg before the answer: told once for each way.
    fn sounds_early(&mut self, room: &mut Room) {
        let Stage::Dialling(hunt) = &mut self.stage else { return };
        if std::mem::replace(&mut hunt.early, true) {
            return;
        }
        let Some(mut leg) = self.second.take() else { return };
        leg.state = LegState::Early;
        self.tell_leg(room, &leg);
        if let Party::Trunk(trunk) = leg.party.clone() {
            room.fact(self.id, What::EarlyMedia { trunk });
        }
        self.second = Some(leg);
    }

    /// The operator's own phone is up: now the plan is walked to the number he dialled.
    fn own_phone_answered(&mut self, room: &mut Room, sdp: &[u8], now: Now) -> Next {
        let mut first = self.first.clone();
        if !self.take_answer(room, &mut first, sdp) {
            let why = cause(79, 488, "your browser answered without a usable codec");
            return Next::Over(Ending { result: CallResult::Failed, cause: why, by: "system" });
        }
        first.state = LegState::Up;
        self.first = first;
        self.tell_leg(room, &self.first);
        self.waiting_ms = Some(now.mono_ms);
        self.walk(room, now)
    }

    fn own_phone_failed(&self, code: u16, why: Cause) -> Next {
        let words = format!("your own phone did not answer ({code} {})", why.words);
        let why = cause(why.q850, code, &words);
        Next::Over(Ending { result: CallResult::Failed, cause: why, by: "first leg" })
    }

    /// The far end or the assigned operator answered: the parties talk.
    fn second_answered(&mut self, room: &mut Room, sdp: &[u8], now: Now) -> Next {
        let Some(mut leg) = self.second.take() else { return Next::Goes };
        let usable = self.take_answer(room, &mut leg, sdp);
        leg.state = LegState::Up;
        self.second = Some(leg);
        if !usable {
            return self.second_unusable(room, now);
        }
        match self.stage.clone() {
            Stage::Offering { queue, operator, .. } => {
                self.operator = Some(operator.clone());
                self.queue = Some(queue);
                room.out.push_back(Output::Accepted { call: self.id, operator });
            }
            Stage::Dialling(_) if self.transfer.is_some() => return self.transfer_done(room, now),
            Stage::Dialling(_) => {
                if let Some(operator) = self.operator.clone() {
                    room.out.push_back(Output::Engaged { operator, call: self.id, talking: true });
                }
            }
            Stage::Calling
            | Stage::Greeting { .. }
            | Stage::Waiting { .. }
            | Stage::Talking
            | Stage::Farewell { .. } => return Next::Goes,
        }
        self.begin_talk(room, now);
        Next::Goes
    }

    fn begin_talk(&mut self, room: &mut Room, now: Now) {
        self.stop(room);
        self.join(room);
        // A caller who came back after a transfer has talked before.
        self.answered_ms.get_or_insert(now.mono_ms);
        self.answered_at.get_or_insert(now.wall_ms);
        let limit = room.setup.limits.call_duration_ms;
        self.deadline_ms = (limit > 0).then(|| now.mono_ms.saturating_add(limit));
        self.stage = Stage::Talking;
        if let Some(leg) = self.second.take() {
            self.tell_leg(room, &leg);
            self.second = Some(leg);
        }
        let answered = self.told_answer(now);
        room.fact(self.id, answered);
    }

    /// The answer, as a fact.
    pub(super) fn told_answer(&self, now: Now) -> What {
        What::Answered {
            operator: self.operator.clone(),
            trunk: self.trunk.clone(),
            queue: if is_inward(self.direction) { self.queue.clone() } else { None },
            wait_ms: self.wait_ms(now.mono_ms),
        }
    }

    /// An answer without a codec of ours: that leg ends, the call goes on as if it had failed.
    fn second_unusable(&mut self, room: &mut Room, now: Now) -> Next {
        let why = cause(79, 488, "the far end answered without a usable codec");
        if let Stage::Offering { operator, .. } = self.stage.clone() {
            self.back_to_queue(room, "unreachable", true, now);
            room.out.push_back(Output::Declined { call: self.id, operator, refused: false });
            return Next::Goes;
        }
        if let Some(leg) = &self.second {
            room.sip(sip::Command::HangUp { leg: leg.id, cause: why.clone() });
        }
        self.way_failed(room, why, sip::Way::Way, now)
    }

    /// The ACK came: the address is proved, and sound may be sent to it.
    fn confirmed(&mut self, room: &mut Room, id: LegId, sdp: Option<&[u8]>, now: Now) -> Next {
        let Some(leg) = self.leg(id) else { return Next::Goes };
        let proves = !std::mem::replace(&mut leg.proved, true);
        if leg.agreed.is_none() && self.first.id == id && self.first.is_up() {
            return self.late_answer(room, sdp, now);
        }
        if let Some(leg) = self.leg(id).filter(|_| proves).cloned() {
            self.connect(room, &leg);
        }
        Next::Goes
    }

    fn second_failed(&mut self, room: &mut Room, code: u16, why: Cause, way: sip::Way, now: Now) -> Next {
        match self.stage.clone() {
            Stage::Offering { operator, .. } => {
                // 486 and 603 are the operator's own no; everything else says that his phone was not reached.
                let refused = matches!(code, 486 | 600 | 603);
                let words = if refused { "rejected" } else { "unreachable" };
                self.back_to_queue(room, words, false, now);
                room.out.push_back(Output::Declined { call: self.id, operator, refused });
                Next::Goes
            }
            Stage::Dialling(_) => self.way_failed(room, why, way, now),
            Stage::Calling
            | Stage::Greeting { .. }
            | Stage::Waiting { .. }
            | Stage::Talking
            | Stage::Farewell { .. } => Next::Goes,
        }
    }

    /// The first leg is gone: so is the call.
    fn first_ended(&self, why: Cause) -> Next {
        let (result, why) = match &self.stage {
            Stage::Talking => (CallResult::Answered, why),
            Stage::Dialling(_) if self.transfer.is_some() => (CallResult::Answered, why),
            // Why it did not come up stays true, whoever put the phone down first.
            Stage::Farewell { result, cause } => (*result, cause.clone()),
            Stage::Calling
            | Stage::Greeting { .. }
            | Stage::Waiting { .. }
            | Stage::Offering { .. }
            | Stage::Dialling(_) => (CallResult::Abandoned, why),
        };
        Next::Over(Ending { result, cause: why, by: "first leg" })
    }

    fn second_ended(&mut self, room: &mut Room, why: Cause, now: Now) -> Next {
        match self.stage.clone() {
            Stage::Talking => {
                Next::Over(Ending { result: CallResult::Answered, cause: why, by: "second leg" })
            }
            Stage::Offering { operator, .. } => {
                self.back_to_queue(room, "unreachable", false, now);
                room.out.push_back(Output::Declined { call: self.id, operator, refused: false });
                Next::Goes
            }
            Stage::Dialling(_) => self.way_failed(room, why, sip::Way::Person, now),
            Stage::Calling | Stage::Greeting { .. } | Stage::Waiting { .. } | Stage::Farewell { .. } => {
                Next::Goes
            }
        }
    }

    /// The floor took its offer back.
    pub(super) fn withdrawn(&mut self, room: &mut Room, why: &str, now: Now) -> Next {
        self.back_to_queue(room, why, true, now);
        Next::Goes
    }

    /// A media worker says something about one of the ports.
    pub(super) fn on_media(&mut self, room: &mut Room, port: PortId, event: MediaEvent, now: Now) -> Next {
        let is_first = port_of(&self.first) == Some(port);
        let Some(leg) = self.leg_of_port(port).map(|leg| leg.id) else { return Next::Goes };
        match event {
            MediaEvent::Secured { keys, .. } => {
                if let Some(leg) = self.leg_of_port(port) {
                    leg.keys = Some(keys);
                }
            }
            MediaEvent::FirstPacket { .. } if !is_first => self.carrier_is_heard(room),
            MediaEvent::PlayEnded { token, .. } => return self.play_ended(room, token, now),
            MediaEvent::Digit { digit, .. } => self.heard_digit(room, leg, digit),
            MediaEvent::Silent { flow, cause, .. } => {
                room.fact(self.id, What::MediaSilent { leg, flow, cause })
            }
            MediaEvent::Recovered { flow, .. } => room.fact(self.id, What::MediaRecovered { leg, flow }),
            MediaEvent::Quality { quality, .. } => room.fact(self.id, What::MediaQuality { leg, quality }),
            // A carrier that announced sound and sends none still rings: how long is the plan's matter.
            MediaEvent::Dead { .. } if !is_first && matches!(self.stage, Stage::Dialling(_)) => {}
            MediaEvent::Dead { .. } => {
                return self.port_failed(room, is_first, "no packets from the party any more", now);
            }
            MediaEvent::Failed { why, .. } | MediaEvent::OpenFailed { why, .. } => {
                return self.port_failed(room, is_first, &why, now);
            }
            MediaEvent::FirstPacket { .. }
            | MediaEvent::Connected { .. }
            | MediaEvent::Progress(_)
            | MediaEvent::Counts(_) => {}
        }
        Next::Goes
    }

    /// The carrier's own sound is there, promised or not: ours is no longer needed.
    fn carrier_is_heard(&mut self, room: &mut Room) {
        self.sounds_early(room);
        if let Stage::Dialling(hunt) = &mut self.stage {
            hunt.heard = true;
            hunt.ringback = false;
            self.stop(room);
        }
    }

    fn play_ended(&mut self, room: &mut Room, token: u64, now: Now) -> Next {
        match &self.stage {
            Stage::Greeting { token: expected } if *expected == token => self.walk(room, now),
            Stage::Farewell { result, cause } if self.tokens == token => {
                Next::Over(Ending { result: *result, cause: cause.clone(), by: "system" })
            }
            Stage::Greeting { .. }
            | Stage::Farewell { .. }
            | Stage::Calling
            | Stage::Waiting { .. }
            | Stage::Offering { .. }
            | Stage::Dialling(_)
            | Stage::Talking => Next::Goes,
        }
    }

    /// Sound can never come or no longer comes: what is not answered is tried elsewhere, else the call
    /// ends and says why.
    fn port_failed(&mut self, room: &mut Room, is_first: bool, why: &str, now: Now) -> Next {
        match self.stage.clone() {
            Stage::Offering { operator, .. } if !is_first => {
                self.back_to_queue(room, "unreachable", true, now);
                room.out.push_back(Output::Declined { call: self.id, operator, refused: false });
                return Next::Goes;
            }
            Stage::Dialling(_) if !is_first => {
                let why = cause(41, 0, why);
                if let Some(leg) = &self.second {
                    room.sip(sip::Command::HangUp { leg: leg.id, cause: why.clone() });
                }
                return self.way_failed(room, why, sip::Way::Way, now);
            }
            Stage::Farewell { result, cause } => {
                return Next::Over(Ending { result, cause, by: "system" });
            }
            Stage::Offering { .. }
            | Stage::Dialling(_)
            | Stage::Calling
            | Stage::Greeting { .. }
            | Stage::Waiting { .. }
            | Stage::Talking => {}
        }
        let side = if is_first {
            &self.first.party
        } else {
            self.second.as_ref().map_or(&self.first.party, |leg| &leg.party)
        };
        let name = match side {
            Party::Trunk(trunk) => trunk.as_str().to_owned(),
            Party::Operator(operator) => operator.as_str().to_owned(),
        };
        let result = if self.answered_ms.is_some() { CallResult::Answered } else { CallResult::Failed };
        Next::Over(Ending { result, cause: cause(41, 0, &format!("{name}: {why}")), by: "system" })
    }

    /// A digit by RFC 4733. Its value is not kept; it crosses the bridge as it is, but to a party that
    /// takes no such events it goes by INFO.
    fn heard_digit(&mut self, room: &mut Room, from: LegId, digit: char) {
        room.fact(self.id, What::Digit { leg: from });
        let deaf = |leg: &&Leg| leg.agreed.as_ref().is_some_and(|agreed| agreed.telephone_event.is_none());
        let other = self.legs().find(|leg| leg.id != from && leg.is_up()).filter(deaf).cloned();
        if let Some(leg) = other.filter(|_| matches!(self.stage, Stage::Talking)) {
            self.press_to(room, &leg, &digit.to_string());
        }
    }

    /// A digit by INFO: pressed anew towards the other party, since it crosses no bridge.
    fn info_digit(&mut self, room: &mut Room, from: LegId, digit: char) -> Next {
        room.fact(self.id, What::Digit { leg: from });
        let other = self.legs().find(|leg| leg.id != from && leg.is_up()).cloned();
        if let Some(leg) = other {
            self.press_to(room, &leg, &digit.to_string());
        }
        Next::Goes
    }

    /// Something was due.
    pub(super) fn on_deadline(&mut self, room: &mut Room, now: Now) -> Next {
        self.deadline_ms = None;
        match self.stage.clone() {
            Stage::Farewell { result, cause } => Next::Over(Ending { result, cause, by: "system" }),
            Stage::Talking => self.time_is_up(room, now),
            Stage::Dialling(_) if self.transfer.is_some() => self.time_is_up(room, now),
            Stage::Calling
            | Stage::Greeting { .. }
            | Stage::Waiting { .. }
            | Stage::Offering { .. }
            | Stage::Dialling(_) => Next::Goes,
        }
    }

    /// A forgotten call ends with an announcement to the caller.
    fn time_is_up(&mut self, room: &mut Room, now: Now) -> Next {
        let why = cause(102, 0, "the longest call time is over");
        self.drop_transfer(room, &why, now);
        self.drop_second(room, why.clone(), true, now);
        self.play(room, Sound::File(room.setup.time_is_up.as_str().into()), false);
        self.deadline_ms = Some(now.mono_ms.saturating_add(crate::call::ANNOUNCEMENT_MS));
        self.stage = Stage::Farewell { result: CallResult::Answered, cause: why };
        Next::Goes
    }

    /// A desk ends the call; a call that rings at that desk is only refused there.
    pub(super) fn hang_up_by_desk(&mut self, room: &mut Room, by: OperatorName, now: Now) -> Next {
        let (result, why) = match self.stage.clone() {
            Stage::Offering { operator, .. } if operator == by => {
                self.back_to_queue(room, "rejected", true, now);
                room.out.push_back(Output::Declined { call: self.id, operator, refused: true });
                return Next::Goes;
            }
            Stage::Dialling(_) if self.aside().is_some_and(|leg| leg.party == Party::Operator(by)) => {
                self.aside_leaves(room, normal(), true, now);
                return Next::Goes;
            }
            Stage::Dialling(_) if self.transfer.is_some() => (CallResult::Answered, normal()),
            Stage::Talking => (CallResult::Answered, normal()),
            Stage::Farewell { result, cause } => (result, cause),
            Stage::Calling
            | Stage::Greeting { .. }
            | Stage::Waiting { .. }
            | Stage::Offering { .. }
            | Stage::Dialling(_) => (CallResult::Abandoned, normal()),
        };
        Next::Over(Ending { result, cause: why, by: "operator" })
    }

    /// Hold: the far party hears music, the operator hears nothing; and back.
    pub(super) fn hold(&mut self, room: &mut Room, on: bool) -> Result<(), Denied> {
        let denied = |words: &str| Err(Denied { status: 409, words: words.to_owned() });
        if !matches!(self.stage, Stage::Talking) {
            return denied("only a call in which you talk can be held");
        }
        if self.held == on {
            return Ok(());
        }
        let Some(other) = self.other_party() else { return denied("nobody else is in this call") };
        let deaf = |leg: &Leg| matches!(leg.party, Party::Operator(_)) && !leg_hears(Some(leg));
        if !on && self.legs().any(deaf) {
            return denied("the phone itself holds the call: resume it there first");
        }
        self.held = on;
        if on {
            room.media(self.worker, MediaCommand::Part { a: other });
            self.music_on_hold(room);
            room.fact(self.id, What::Held);
        } else {
            room.media(self.worker, MediaCommand::Stop { port: other });
            self.join(room);
            room.fact(self.id, What::Resumed);
        }
        let state = if on { LegState::Held } else { LegState::Up };
        self.first.state = state;
        if let Some(leg) = &mut self.second {
            leg.state = state;
        }
        for leg in [Some(self.first.clone()), self.second.clone()].into_iter().flatten() {
            self.tell_leg(room, &leg);
        }
        Ok(())
    }

    /// What the other party hears while the operator does not listen.
    pub(super) fn music_on_hold(&self, room: &mut Room) {
        let queue = self.queue.as_ref().and_then(|queue| room.setup.queues.get(queue));
        let music = queue.or_else(|| room.setup.queues.values().next()).map(|queue| queue.music.clone());
        if let (Some(port), Some(music)) = (self.other_party(), music) {
            let sound = Sound::File(music.into());
            room.media(self.worker, MediaCommand::Play { port, sound, repeat: true, token: 0 });
        }
    }

    /// The port of the party that is not the operator.
    fn other_party(&self) -> Option<PortId> {
        self.legs().find(|leg| !matches!(leg.party, Party::Operator(_))).and_then(port_of)
    }

    /// Digits from the desk towards the far end: RFC 4733 where agreed, else INFO.
    pub(super) fn press(&mut self, room: &mut Room, digits: &str) -> Result<(), Denied> {
        let valid = |digit: char| matches!(digit, '0'..='9' | '*' | '#' | 'A'..='D');
        if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.chars().all(valid) {
            let words = format!("digits are 0-9, *, #, A-D, at most {MAX_DIGITS}");
            return Err(Denied { status: 422, words });
        }
        let far = self.legs().find(|leg| !matches!(leg.party, Party::Operator(_)) && leg.agreed.is_some());
        let Some(leg) = far else {
            return Err(Denied { status: 409, words: "the far end is not connected yet".to_owned() });
        };
        let leg = leg.clone();
        self.press_to(room, &leg, digits);
        Ok(())
    }

    fn press_to(&self, room: &mut Room, leg: &Leg, digits: &str) {
        let by_events = leg.agreed.as_ref().is_some_and(|agreed| agreed.telephone_event.is_some());
        if by_events && let Some(port) = port_of(leg) {
            room.media(self.worker, MediaCommand::Digits { port, digits: digits.to_owned() });
        } else {
            for digit in digits.chars() {
                room.sip(sip::Command::SendDigit { leg: leg.id, digit, duration_ms: 100 });
            }
        }
    }

    /// What an operator reads when the call did not come up.
    pub fn words(&self) -> Option<String> {
        match &self.stage {
            Stage::Farewell { cause, .. } => Some(plain(cause)),
            Stage::Calling
            | Stage::Greeting { .. }
            | Stage::Waiting { .. }
            | Stage::Offering { .. }
            | Stage::Dialling(_)
            | Stage::Talking => None,
        }
    }
}
