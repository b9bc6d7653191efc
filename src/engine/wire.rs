//! The words that go from one machine to another, each direction in one table.

use crate::acd::{FloorEvent, FloorInput, NotAnswered};
use crate::engine::desk::SIP_PHONE_SESSION;
use crate::engine::{
    Answer, Ask, Asker, At, CallId, CardId, Engine, Now, OperatorName, OperatorState, Output, Party, Phone,
    Refusal, RequestId, Role, Wanted, What, call, orders, sip,
};
use crate::terms::Number;
use rand_chacha::rand_core::Rng;

/// An operator dials a number himself, so nobody waits for the call in a queue.
const OWN_CALL_QUEUE: Option<crate::terms::QueueName> = None;

impl Engine {
    /// Carries one word; `false` when all machines are quiet.
    pub(super) fn carry(&mut self, now: Now) -> bool {
        if let Some(output) = self.sip.poll() {
            match output {
                sip::Output::Send { path, bytes } => self.step.push(Output::Sip { path, bytes }),
                sip::Output::Dropped(reason) => self.step.push(Output::Dropped { reason }),
                sip::Output::Event(event) => self.sip_says(event, now),
            }
        } else if let Some(output) = self.calls.poll() {
            self.calls_say(output, now);
        } else if let Some(event) = self.floor.poll() {
            self.floor_says(event, now);
        } else if let Some(output) = self.cards.poll() {
            self.cards_say(output, now);
        } else {
            return false;
        }
        true
    }

    /// Tells the calls something, with fresh leg ids at hand; a wish that is denied is the desk's matter.
    pub(super) fn tell_calls(&mut self, input: call::Input, now: Now) {
        self.at = At::Calls;
        self.calls.supply_legs(|| self.sip.new_leg());
        // Only desk wishes can be denied, and those go through `asked`.
        drop(self.calls.handle(input, now));
    }

    fn sip_says(&mut self, event: sip::Event, now: Now) {
        match &event {
            sip::Event::Registered { who: Party::Operator(operator), .. } => {
                self.phone(operator.clone(), Phone::Registered, now);
            }
            sip::Event::PhoneLost { who: Party::Operator(operator) } => {
                self.phone(operator.clone(), Phone::Lost, now);
            }
            sip::Event::Unregistered { who: Party::Operator(operator), .. } => {
                self.phone(operator.clone(), Phone::None, now);
            }
            sip::Event::TrunkUp { trunk, path } => {
                if self.trunks_up.insert(trunk.clone()) {
                    let from = path.remote().to_string();
                    self.tell(None, What::TrunkUp { trunk: trunk.clone(), from }, now);
                }
            }
            sip::Event::TrunkDown { trunk, why } => {
                self.trunks_up.remove(trunk);
                self.tell(None, What::TrunkDown { trunk: trunk.clone(), why: why.clone() }, now);
            }
            sip::Event::Banned(ban) => self.step.push(Output::Banned(ban.clone())),
            sip::Event::Stranger { why, .. } => self.step.push(Output::Dropped { reason: why }),
            sip::Event::Registered { who: Party::Trunk(_), .. }
            | sip::Event::Unregistered { who: Party::Trunk(_), .. }
            | sip::Event::PhoneLost { who: Party::Trunk(_) }
            | sip::Event::InviteSent { .. }
            | sip::Event::Invited(_)
            | sip::Event::Rang { .. }
            | sip::Event::EarlyMedia { .. }
            | sip::Event::Answered { .. }
            | sip::Event::PreAnswered { .. }
            | sip::Event::Confirmed { .. }
            | sip::Event::Redirected { .. }
            | sip::Event::Failed { .. }
            | sip::Event::Offered { .. }
            | sip::Event::ChangeAnswered { .. }
            | sip::Event::ChangeRefused { .. }
            | sip::Event::Referred { .. }
            | sip::Event::Digit { .. }
            | sip::Event::Ended { .. } => {}
        }
        self.tell_calls(call::Input::Sip(event), now);
    }

    pub(super) fn phone(&mut self, operator: OperatorName, phone: Phone, now: Now) {
        self.floor.handle(FloorInput::Phone { operator, phone }, now);
    }

    fn calls_say(&mut self, output: call::Output, now: Now) {
        match output {
            call::Output::Sip(command) => {
                self.at = At::Sip;
                self.sip.handle(sip::Input::Command(command), now);
            }
            call::Output::Media { worker, command } => self.step.push(Output::Media { worker, command }),
            call::Output::Fact { call, what } => self.tell(call, what, now),
            call::Output::Wait { call, queue, caller, priority, wait_ms } => {
                self.at = At::Of(call);
                let input = FloorInput::Enqueue { call, queue, caller, priority, wait_ms, since: None };
                self.floor.handle(input, now);
            }
            call::Output::Left { call } => {
                self.at = At::Of(call);
                self.floor.handle(FloorInput::Leave { call, abandoned: true }, now)
            }
            call::Output::Accepted { call, operator } => {
                self.at = At::Of(call);
                self.floor.handle(FloorInput::Answered { call, operator }, now);
            }
            call::Output::Declined { call, operator, refused } => {
                self.at = At::Of(call);
                let why = if refused { NotAnswered::Rejected } else { NotAnswered::Unreachable };
                self.floor.handle(FloorInput::Refused { call, operator, why }, now);
            }
            call::Output::Engaged { operator, call, talking } => {
                self.at = At::Of(call);
                let input = if talking {
                    FloorInput::Answered { call, operator }
                } else {
                    FloorInput::OwnCall { operator, call }
                };
                self.floor.handle(input, now);
            }
            call::Output::Released { operator, call } => {
                self.at = At::Of(call);
                self.floor.handle(FloorInput::CallEnded { call, operator }, now);
            }
            call::Output::Refused { from, called, cause } => {
                self.step.push(Output::Refused { from, called, cause });
            }
            call::Output::Dialled { call, operator, number } => {
                self.at = At::Of(call);
                let card = self.fresh_card(now);
                let line = Number::default();
                self.open_card(
                    orders::Open {
                        card,
                        call,
                        caller: number,
                        line,
                        trunk: None,
                        queue: OWN_CALL_QUEUE,
                        operator,
                    },
                    now,
                );
            }
            call::Output::Over { call, answered } => {
                self.at = At::Of(call);
                let abandoned = !answered && self.broken != Some(call);
                self.cards.handle(orders::Input::CallEnded { call, abandoned }, now);
            }
        }
    }

    fn floor_says(&mut self, event: FloorEvent, now: Now) {
        match event {
            FloorEvent::Assigned { call, queue, operator } => {
                self.card_follows(call, &operator, now);
                let auto_answer = self.floor.operator(&operator).is_some_and(|standing| standing.auto_answer);
                self.tell_calls(call::Input::Assigned { call, queue, operator, auto_answer }, now);
            }
            FloorEvent::Unassigned { call, why, .. } => {
                self.tell_calls(call::Input::Withdrawn { call, why: why.words() }, now);
            }
            FloorEvent::Left { call, why, .. } => {
                self.tell_calls(call::Input::WaitedOut { call, why: why.words() }, now);
            }
            FloorEvent::NotQueued { call, why, .. } => {
                self.tell_calls(call::Input::WaitedOut { call, why: why.words() }, now);
            }
            FloorEvent::Operator(standing) => self.tell(None, standing.fact(), now),
        }
    }

    /// The call's card opens on this desk, or moves to it.
    fn card_follows(&mut self, id: CallId, operator: &OperatorName, now: Now) {
        self.at = At::Of(id);
        let card = self.fresh_card(now);
        let Some(call) = self.calls.call(id) else { return };
        let open = orders::Open {
            card,
            call: id,
            caller: call.caller.clone(),
            line: call.line.clone(),
            trunk: call.trunk.clone(),
            queue: call.queue.clone(),
            operator: operator.clone(),
        };
        self.open_card(open, now);
    }

    fn open_card(&mut self, open: orders::Open, now: Now) {
        self.cards.handle(orders::Input::Open(open), now);
    }

    fn fresh_card(&mut self, now: Now) -> CardId {
        let mut random = [0_u8; 10];
        self.rng.fill_bytes(&mut random);
        let millis = u64::try_from(now.wall_ms).unwrap_or(0);
        CardId(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    fn cards_say(&mut self, output: orders::Output, now: Now) {
        match output {
            orders::Output::Fact { call, what } => self.tell(Some(call), what, now),
            orders::Output::Record(record) => self.batch.push(record),
            orders::Output::Answer { request, answer } => {
                let card = self.submits.get(&request).copied();
                let answer = match (answer, card) {
                    // Answered once the store holds the order.
                    (orders::Answer::Saving, Some(_)) => return,
                    (orders::Answer::Accepted, Some(card)) => Answer::Accepted(card),
                    (orders::Answer::Refused(refusal), _) => {
                        Answer::Refused(Refusal::new(refusal.status, refusal.words))
                    }
                    (orders::Answer::Ok | orders::Answer::Saving | orders::Answer::Accepted, _) => {
                        Answer::Done
                    }
                };
                self.submits.remove(&request);
                self.step.push(Output::Reply { request, answer });
            }
        }
    }

    /// The store holds the order: everybody who asked for it is told.
    pub(super) fn answer_submits(&mut self, card: CardId) {
        let waiting: Vec<RequestId> =
            self.submits.iter().filter(|(_, of)| **of == card).map(|(request, _)| *request).collect();
        for request in waiting {
            self.submits.remove(&request);
            self.step.push(Output::Reply { request, answer: Answer::Accepted(card) });
        }
    }

    /// Somebody asks something.
    pub(super) fn asked(&mut self, request: RequestId, asker: Asker, ask: Ask, now: Now) {
        let answer = match ask {
            Ask::SaveCard { card, fields } => {
                let operator = asker.name;
                return self.cards.handle(orders::Input::Update { request, card, operator, fields }, now);
            }
            Ask::SubmitCard { card, fields } => {
                self.submits.insert(request, card);
                let submit = orders::Submit { request, card, operator: asker.name, fields };
                return self.cards.handle(orders::Input::Submit(submit), now);
            }
            Ask::DiscardCard { card, reason } => {
                let operator = asker.name;
                return self.cards.handle(orders::Input::Discard { request, card, operator, reason }, now);
            }
            Ask::Bans => Answer::Bans(self.sip.bans(now)),
            Ask::LiftBans(source) => match self.sip.lift_bans(source, now) {
                0 => refused(404, "nothing is banned at this address by SIP"),
                _ => Answer::Done,
            },
            Ask::LoggedIn { session, ha1, queues } => self.logged_in(asker.name, session, ha1, queues, now),
            Ask::LoggedOut { session } => self.logged_out(asker.name, session, now),
            Ask::SetState { operator, state, reason, auto_answer } => {
                self.set_state(&asker, operator, state, reason, auto_answer, now)
            }
            Ask::Dial { to, trunk } => self.dial(asker.name, to, trunk, now),
            Ask::HangUp(call) => {
                let by = asker.name.clone();
                self.in_call(&asker, call, call::Input::HangUp { call, by }, now)
            }
            Ask::Hold(call) => self.in_call(&asker, call, call::Input::Hold { call, on: true }, now),
            Ask::Resume(call) => self.in_call(&asker, call, call::Input::Hold { call, on: false }, now),
            Ask::Transfer { call, to } => {
                let by = asker.name.clone();
                self.in_call(&asker, call, call::Input::Transfer { call, by, to }, now)
            }
            Ask::Digits { call, digits } => {
                self.in_call(&asker, call, call::Input::Digits { call, digits }, now)
            }
        };
        self.step.push(Output::Reply { request, answer });
    }

    fn logged_in(
        &mut self,
        operator: OperatorName,
        session: String,
        ha1: sip::digest::Ha1,
        queues: Vec<crate::terms::QueueName>,
        now: Now,
    ) -> Answer {
        self.sessions.entry(operator.clone()).or_default().insert(session.clone());
        let phone = sip::Command::Phone { operator: operator.clone(), key: session, ha1 };
        self.sip.handle(sip::Input::Command(phone), now);
        self.floor.handle(FloorInput::Serves { operator, queues }, now);
        Answer::Done
    }

    fn logged_out(&mut self, operator: OperatorName, session: String, now: Now) -> Answer {
        if let Some(sessions) = self.sessions.get_mut(&operator) {
            sessions.remove(&session);
            // With the last desk he is off his shift; his SIP phone stays registered.
            if sessions.iter().all(|session| session == SIP_PHONE_SESSION) {
                let (wanted, reason) = (Wanted::Offline, String::new());
                self.floor.handle(FloorInput::Ask { operator: operator.clone(), wanted, reason }, now);
            }
            if sessions.is_empty() {
                self.sessions.remove(&operator);
            }
        }
        let forget = sip::Command::ForgetPhone { operator, key: session };
        self.sip.handle(sip::Input::Command(forget), now);
        Answer::Done
    }

    fn set_state(
        &mut self,
        asker: &Asker,
        operator: OperatorName,
        state: Option<OperatorState>,
        reason: String,
        auto_answer: Option<bool>,
        now: Now,
    ) -> Answer {
        if asker.name != operator && asker.role < Role::Supervisor {
            return refused(403, "only a supervisor changes the state of others");
        }
        if self.floor.operator(&operator).is_none() {
            return refused(404, "nobody of this name is logged in");
        }
        let wanted = match state {
            None => None,
            Some(OperatorState::Available) => Some(Wanted::Available),
            Some(OperatorState::Paused) => Some(Wanted::Paused),
            Some(OperatorState::Offline) => Some(Wanted::Offline),
            Some(OperatorState::Ringing | OperatorState::Talking | OperatorState::WrapUp) => {
                return refused(422, "ask for available, paused or offline; the others follow from calls");
            }
        };
        if let Some(on) = auto_answer {
            self.floor.handle(FloorInput::AutoAnswer { operator: operator.clone(), on }, now);
        }
        if let Some(wanted) = wanted {
            self.floor.handle(FloorInput::Ask { operator, wanted, reason }, now);
        }
        Answer::Done
    }

    fn dial(
        &mut self,
        operator: OperatorName,
        to: String,
        trunk: Option<crate::terms::TrunkName>,
        now: Now,
    ) -> Answer {
        if !self.floor.can_dial(&operator) {
            return refused(409, "end your call first, and see that the phone light is green");
        }
        self.calls.supply_legs(|| self.sip.new_leg());
        match self.calls.handle(call::Input::Dial { operator, to, trunk }, now) {
            Ok(Some(call)) => Answer::Call(call),
            Ok(None) => refused(500, "the call was not begun"),
            Err(denied) => refused(denied.status, &denied.words),
        }
    }

    /// A wish about one call, by somebody who may have it.
    fn in_call(&mut self, asker: &Asker, id: CallId, wish: call::Input, now: Now) -> Answer {
        self.at = At::Of(id);
        let Some(call) = self.calls.call(id) else { return refused(404, "this call is over") };
        if asker.role < Role::Supervisor && !call.concerns(&asker.name) {
            return refused(403, "this is not your call");
        }
        match self.calls.handle(wish, now) {
            Ok(_) => Answer::Done,
            Err(denied) => refused(denied.status, &denied.words),
        }
    }
}

fn refused(status: u16, words: &str) -> Answer {
    Answer::Refused(Refusal::new(status, words))
}
