//! Transfer: an operator hands the other party to a number, to a colleague, or to whom he has on another
//! call, by REFER from his phone or by the API.
//!
//! ```text
//!   Talking ──transfer──▶ Dialling (he waits aside) ──answered──▶ Talking, he is released
//!                              │ nobody there
//!                              ├─ he is still aside ─▶ Talking with him as before
//!                              ├─ the caller came by a queue ─▶ Waiting, ahead of the others
//!                              └─ else he is called back; without him the tone and the end
//! ```
//! Invariant: the party that is handed over is the first leg from the beginning of the transfer on; it is
//! lost only when it hangs up itself. Nothing is dialled that the operator could not have dialled himself.

use serde::{Deserialize, Serialize};

use crate::call::call::{Call, Stage};
use crate::call::change::leg_hears;
use crate::call::hunt::Hunt;
use crate::call::leg::Leg;
use crate::call::sound::port_of;
use crate::call::words::{cause, normal};
use crate::call::{Calls, Denied, EARLY_MEDIA_MS, Ending, Next, Output, Room};
use crate::dialplan::{Attempt, DialNumber, LocalTime, Origin, Step};
use crate::fact::{CallResult, Cause, LegState, Party, What};
use crate::media::command::Command as MediaCommand;
use crate::sdp::negotiate::Offer;
use crate::sip;
use crate::terms::{CallId, LegId, Now, Number, OperatorName, TrunkName};

/// The priority of a caller who comes back to his queue: ahead of the plan's own.
const BACK_FIRST: i32 = -1;

/// A transfer that is under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Transfer {
    /// Whose wish it is.
    pub by: OperatorName,
    /// His leg, which waits aside; `None` once he left.
    pub aside: Option<Leg>,
    /// Whether he asked by REFER and is told by NOTIFY.
    pub refer: bool,
    /// The operator who is called, if it is one.
    pub target: Option<OperatorName>,
    /// Whether he himself is called back because nobody else was reached.
    pub recall: bool,
}

/// Who is to be reached.
pub(super) enum Target {
    /// A colleague.
    Operator(OperatorName),
    /// A number, by these ways.
    Number { number: Number, show: Option<Number>, over: Vec<TrunkName>, ring_ms: u64 },
}

fn denied(status: u16, words: &str) -> Denied {
    Denied { status, words: words.to_owned() }
}

impl Calls {
    /// A phone asks by REFER.
    pub(super) fn referred(&mut self, leg: LegId, to: &str, replaces: Option<LegId>, now: Now) {
        let done = match (self.by_leg.get(&leg).copied(), replaces) {
            (None, _) => Err(denied(404, "this call is over")),
            (Some(call), None) => self.hand_over(call, leg, to, true, now),
            (Some(call), Some(other)) => self.merge(call, leg, other, now),
        };
        if let Err(why) = done {
            let code = match why.status {
                409 => 486,
                422 => 404,
                429 | 503 => 503,
                _ => 403,
            };
            self.room.sip(sip::Command::AnswerRefer { leg, code });
        }
    }

    /// A desk asks: the other party goes to `to`, and the operator is released when it answers.
    pub(super) fn transfer(
        &mut self,
        id: CallId,
        by: &OperatorName,
        to: &str,
        now: Now,
    ) -> Result<Option<CallId>, Denied> {
        let call = self.calls.get(&id).ok_or_else(|| denied(404, "this call is over"))?;
        let own = |leg: &&Leg| leg.party == Party::Operator(by.clone());
        let leg = call.legs().find(own).map(|leg| leg.id);
        let leg = leg.ok_or_else(|| denied(403, "this is not your call"))?;
        self.hand_over(id, leg, to, false, now)?;
        Ok(Some(id))
    }

    /// The operator of this leg, if the call can be handed over now.
    fn hands_over(&self, id: CallId, leg: LegId) -> Result<OperatorName, Denied> {
        let call = self.calls.get(&id).ok_or_else(|| denied(404, "this call is over"))?;
        let party = call.legs().find(|own| own.id == leg).map(|leg| leg.party.clone());
        let Some(Party::Operator(by)) = party else {
            return Err(denied(403, "only an operator hands a call over"));
        };
        let ready = matches!(call.stage, Stage::Talking) && call.transfer.is_none() && call.second.is_some();
        if ready { Ok(by) } else { Err(denied(409, "only a call in which you talk can be handed over")) }
    }

    fn hand_over(&mut self, id: CallId, leg: LegId, to: &str, refer: bool, now: Now) -> Result<(), Denied> {
        let by = self.hands_over(id, leg)?;
        let target = self.target(&by, to, now)?;
        if refer {
            self.room.sip(sip::Command::AnswerRefer { leg, code: 202 });
        }
        self.with(id, now, |call, room| call.begin_transfer(room, leg, by, target, refer, now));
        Ok(())
    }

    /// Whom `to` names: a colleague whose phone is there, else a number that he may dial himself.
    fn target(&mut self, by: &OperatorName, to: &str, now: Now) -> Result<Target, Denied> {
        let colleague = OperatorName::from(to);
        if self.room.is_registered(&Party::Operator(colleague.clone())) {
            if self.calls.values().any(|call| call.concerns(&colleague)) {
                return Err(denied(409, "your colleague is in a call"));
            }
            return Ok(Target::Operator(colleague));
        }
        let number = self.number(to);
        self.guard_number(by, &number, now)?;
        let at = LocalTime::of(now.wall_ms, &self.room.setup.zone);
        let caller = Number::default();
        let attempt = Attempt { from: Origin::Operators, number: &number, caller: &caller, at, share: 0 };
        let steps = self.room.setup.plan.route(&attempt).map(|route| route.steps.clone()).unwrap_or_default();
        let dial = steps.into_iter().find_map(|step| match step {
            Step::Dial { number: to, over, ring_ms, show } => Some((to, over, ring_ms, show)),
            Step::Play { .. } | Step::Queue { .. } | Step::HangUp { .. } => None,
        });
        let Some((to, over, ring_ms, show)) = dial else {
            return Err(denied(422, "no route of the dialplan leads to this number"));
        };
        let number = match to {
            DialNumber::Dialled => number,
            DialNumber::Fixed(number) => number,
        };
        let over = self.room.choose(&over);
        Ok(Target::Number { number, show, over, ring_ms: ring_ms.unwrap_or(EARLY_MEDIA_MS) })
    }

    /// A phone takes the place of another leg of the same operator (RFC 3891): the call moves to it.
    pub(super) fn take_place(
        &mut self,
        invited: &sip::Invited,
        offer: Option<Offer>,
        other: LegId,
        now: Now,
    ) {
        let leg = invited.leg;
        let ready = self.by_leg.get(&other).copied().filter(|id| self.hands_over(*id, other).is_ok());
        let (Some(id), Some(offer)) = (ready, offer) else {
            let why = cause(41, 480, "the call that was to be taken is not there");
            return self.room.sip(sip::Command::Reject { leg, code: 480, cause: why });
        };
        self.with(id, now, |call, room| call.change_leg(room, other, leg, &offer, now));
    }

    /// Attended: the party of this call and that of the operator's other call talk to each other.
    fn merge(&mut self, id: CallId, leg: LegId, other: LegId, now: Now) -> Result<(), Denied> {
        let by = self.hands_over(id, leg)?;
        let from = self.by_leg.get(&other).copied().filter(|from| *from != id);
        let from = from.ok_or_else(|| denied(404, "your other call is over"))?;
        if self.hands_over(from, other)? != by {
            return Err(denied(403, "that is not your call"));
        }
        let worker = |id: CallId| self.calls.get(&id).map(|call| call.worker);
        if worker(id) != worker(from) {
            return Err(denied(503, "the two calls are carried apart"));
        }
        self.room.sip(sip::Command::AnswerRefer { leg, code: 202 });
        let mut moved = None;
        self.with(from, now, |call, _| {
            call.put_aside(other);
            // The operator's own leg is what is left of that call.
            if let Some(own) = call.second.take() {
                moved = Some(std::mem::replace(&mut call.first, own));
            }
            Next::Over(Ending { result: CallResult::Transferred, cause: normal(), by: "operator" })
        });
        self.with(id, now, |call, room| call.take_in(room, leg, moved, by, now));
        Ok(())
    }
}

impl Call {
    fn change_leg(&mut self, room: &mut Room, old: LegId, new: LegId, offer: &Offer, now: Now) -> Next {
        self.put_aside(old);
        let Some(gone) = self.second.take() else { return Next::Goes };
        let mut leg = Leg::new(new, gone.party.clone(), gone.number.clone(), false);
        if let Err(why) = self.answer_leg(room, &mut leg, offer, now) {
            room.sip(sip::Command::Reject { leg: new, code: why.sip, cause: why });
            self.second = Some(gone);
            return Next::Goes;
        }
        self.part(room);
        self.second = Some(leg);
        self.join(room);
        self.close_leg(room, gone, normal(), true, now);
        room.fact(self.id, What::Resumed);
        Next::Goes
    }

    /// Makes the party of `leg` the second one.
    fn put_aside(&mut self, leg: LegId) {
        if self.first.id == leg
            && let Some(second) = self.second.take()
        {
            self.second = Some(std::mem::replace(&mut self.first, second));
        }
    }

    /// Silence between the two, and nothing that plays to the first.
    fn part(&mut self, room: &mut Room) {
        if let Some(port) = port_of(&self.first) {
            room.media(self.worker, MediaCommand::Part { a: port });
            room.media(self.worker, MediaCommand::Stop { port });
        }
        self.held = false;
        self.first.state = LegState::Up;
    }

    fn begin_transfer(
        &mut self,
        room: &mut Room,
        leg: LegId,
        by: OperatorName,
        target: Target,
        refer: bool,
        now: Now,
    ) -> Next {
        self.put_aside(leg);
        self.part(room);
        let aside = self.second.take();
        self.transfer = Some(Transfer { by, aside, refer, target: None, recall: false });
        self.music_meanwhile(room);
        match target {
            Target::Operator(operator) => self.ring_operator(room, operator, now),
            Target::Number { number, show, over, ring_ms } => {
                let show = show.unwrap_or_else(|| self.caller.clone());
                self.stage = Stage::Dialling(Hunt::new(number, show, over, ring_ms));
                self.try_next_way(room, now)
            }
        }
    }

    /// What the party hears until it rings at the new one.
    pub(super) fn music_meanwhile(&mut self, room: &mut Room) {
        let queue = self.queue.as_ref().and_then(|queue| room.setup.queues.get(queue));
        let music = queue.or_else(|| room.setup.queues.values().next()).map(|queue| queue.music.clone());
        if let Some(music) = music.filter(|file| !file.is_empty()) {
            self.music(room, music);
        }
    }

    fn ring_operator(&mut self, room: &mut Room, operator: OperatorName, now: Now) -> Next {
        let party = Party::Operator(operator.clone());
        let mut leg = Leg::new(room.leg_id(), party.clone(), Number::new(operator.as_str()), true);
        let mut hunt = Hunt::new(leg.number.clone(), Number::default(), Vec::new(), EARLY_MEDIA_MS);
        hunt.leg = Some(leg.id);
        self.stage = Stage::Dialling(hunt);
        let Some(sdp) = self.offer(room, &mut leg, now) else {
            return self.transfer_failed(room, cause(47, 503, "no media port is free"), now);
        };
        room.out.push_back(Output::Engaged { operator: operator.clone(), call: self.id, talking: false });
        room.sip(sip::Command::Invite {
            leg: leg.id,
            to: party,
            number: Number::default(),
            show: self.first.number.clone(),
            display: String::new(),
            headers: self.phone_headers(room, None, false),
            sdp,
            ring_ms: EARLY_MEDIA_MS,
        });
        self.tell_leg(room, &leg);
        self.second = Some(leg);
        if let Some(transfer) = &mut self.transfer {
            transfer.target = Some(operator);
        }
        Next::Goes
    }

    /// The new party answered: it talks with the one that was handed over.
    pub(super) fn transfer_done(&mut self, room: &mut Room, now: Now) -> Next {
        let Some(transfer) = self.transfer.take() else { return Next::Goes };
        self.stop(room);
        self.join(room);
        self.stage = Stage::Talking;
        if let Some(aside) = transfer.aside {
            self.release(room, aside, transfer.refer, &transfer.by, now);
        }
        self.operator = transfer.target.clone();
        if let Some(operator) = transfer.target {
            room.out.push_back(Output::Engaged { operator, call: self.id, talking: true });
        }
        if let Some(leg) = self.second.take() {
            self.tell_leg(room, &leg);
            self.second = Some(leg);
        }
        if !transfer.recall {
            self.tell_transferred(room, transfer.by);
        }
        Next::Goes
    }

    fn tell_transferred(&mut self, room: &mut Room, by: OperatorName) {
        self.transferred = true;
        let trunk = self.second.as_ref().and_then(|leg| match &leg.party {
            Party::Trunk(trunk) => Some(trunk.clone()),
            Party::Operator(_) => None,
        });
        room.fact(self.id, What::Transferred { by, operator: self.operator.clone(), trunk });
    }

    /// He who handed the call over is free.
    fn release(&mut self, room: &mut Room, aside: Leg, refer: bool, by: &OperatorName, now: Now) {
        if refer {
            room.sip(sip::Command::ReferProgress { leg: aside.id, code: 200 });
        }
        self.close_leg(room, aside, normal(), true, now);
        room.out.push_back(Output::Released { operator: by.clone(), call: self.id });
    }

    /// Nobody was reached: see the module's figure.
    pub(super) fn transfer_failed(&mut self, room: &mut Room, why: Cause, now: Now) -> Next {
        let Some(transfer) = self.transfer.take() else { return Next::Goes };
        if let Some(operator) = transfer.target {
            room.out.push_back(Output::Released { operator, call: self.id });
        }
        self.stop(room);
        if let Some(aside) = transfer.aside {
            return self.back_to_him(room, aside, transfer.refer.then_some(why.sip));
        }
        if let Some(queue) = self.queue.clone() {
            return self.enter_queue(room, queue, None, None, BACK_FIRST, now);
        }
        let by = transfer.by;
        if !transfer.recall && room.is_registered(&Party::Operator(by.clone())) {
            let again = Transfer { by: by.clone(), aside: None, refer: false, target: None, recall: true };
            self.transfer = Some(again);
            return self.ring_operator(room, by, now);
        }
        self.farewell(room, CallResult::Answered, why, now)
    }

    /// He is still there: he talks with his party again, or holds it as he did.
    fn back_to_him(&mut self, room: &mut Room, mut aside: Leg, code: Option<u16>) -> Next {
        if let Some(code) = code {
            let code = if (300..700).contains(&code) { code } else { 480 };
            room.sip(sip::Command::ReferProgress { leg: aside.id, code });
        }
        let hears = leg_hears(Some(&aside));
        // He may have put his side on hold while he waited.
        let state = if hears { LegState::Up } else { LegState::Held };
        if std::mem::replace(&mut aside.state, state) != state {
            self.tell_leg(room, &aside);
        }
        self.second = Some(aside);
        self.stage = Stage::Talking;
        if hears {
            self.join(room);
            room.fact(self.id, What::Resumed);
        } else {
            self.music_on_hold(room);
            room.fact(self.id, What::Held);
        }
        Next::Goes
    }

    /// The party of his other call comes in, and he goes.
    fn take_in(&mut self, room: &mut Room, leg: LegId, new: Option<Leg>, by: OperatorName, now: Now) -> Next {
        self.put_aside(leg);
        self.part(room);
        let aside = std::mem::replace(&mut self.second, new);
        if let Some(port) = self.second.as_ref().and_then(port_of) {
            room.media(self.worker, MediaCommand::Stop { port });
        }
        if let Some(leg) = &mut self.second {
            leg.state = LegState::Up;
        }
        self.join(room);
        if let Some(aside) = aside {
            self.release(room, aside, true, &by, now);
        }
        self.operator = None;
        for leg in [Some(self.first.clone()), self.second.clone()].into_iter().flatten() {
            self.tell_leg(room, &leg);
        }
        self.tell_transferred(room, by);
        Next::Goes
    }

    /// Whether this is the leg of him who hands the call over.
    pub(super) fn is_aside(&self, leg: LegId) -> bool {
        self.aside().is_some_and(|aside| aside.id == leg)
    }

    /// The leg of him who hands the call over.
    pub(super) fn aside(&self) -> Option<&Leg> {
        self.transfer.as_ref().and_then(|transfer| transfer.aside.as_ref())
    }

    /// SIP says something about his leg: mostly that he has gone, which is his right.
    pub(super) fn on_aside(&mut self, room: &mut Room, leg: LegId, event: sip::Event, now: Now) -> Next {
        match event {
            sip::Event::Ended { cause, .. } => self.aside_leaves(room, cause, false, now),
            sip::Event::Offered { sdp, .. } => return self.change_asked(room, leg, sdp, now),
            sip::Event::ChangeAnswered { sdp, .. } => return self.change_answered(room, leg, &sdp),
            sip::Event::Rang { .. }
            | sip::Event::EarlyMedia { .. }
            | sip::Event::Answered { .. }
            | sip::Event::PreAnswered { .. }
            | sip::Event::Confirmed { .. }
            | sip::Event::Redirected { .. }
            | sip::Event::Failed { .. }
            | sip::Event::ChangeRefused { .. }
            | sip::Event::Referred { .. }
            | sip::Event::Digit { .. }
            | sip::Event::Invited(_)
            | sip::Event::Registered { .. }
            | sip::Event::PhoneLost { .. }
            | sip::Event::Unregistered { .. }
            | sip::Event::TrunkUp { .. }
            | sip::Event::TrunkDown { .. }
            | sip::Event::InviteSent { .. }
            | sip::Event::Banned(_)
            | sip::Event::Stranger { .. } => {}
        }
        Next::Goes
    }

    /// He does not wait for the new party; his is not his any more.
    pub(super) fn aside_leaves(&mut self, room: &mut Room, why: Cause, alive: bool, now: Now) {
        let Some(transfer) = &mut self.transfer else { return };
        let (aside, by) = (transfer.aside.take(), transfer.by.clone());
        if let Some(aside) = aside {
            self.close_leg(room, aside, why, alive, now);
            self.operator = None;
            room.out.push_back(Output::Released { operator: by, call: self.id });
        }
    }

    /// The call ends while it is handed over: nobody is kept.
    pub(super) fn drop_transfer(&mut self, room: &mut Room, why: &Cause, now: Now) {
        self.aside_leaves(room, why.clone(), true, now);
        if let Some(operator) = self.transfer.take().and_then(|transfer| transfer.target) {
            room.out.push_back(Output::Released { operator, call: self.id });
        }
    }
}
