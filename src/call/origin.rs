//! Where calls begin: an INVITE from a trunk or an operator's phone, or a dial from a desk.
//!
//! Invariant: before a call exists nothing is promised; every refusal says its SIP status or words.

use std::collections::{BTreeMap, VecDeque};

use crate::call::call::{Call, Stage};
use crate::call::leg::Leg;
use crate::call::setup::Trunk;
use crate::call::walk::limit_to;
use crate::call::words::cause;
use crate::call::{Calls, Denied, Ending, Next, OWN_PHONE_MS, Output, Reach, Room};
use crate::dialplan::{self, Attempt, LocalTime, Origin};
use crate::fact::{CallResult, Cause, Direction, LegState, Party, What};
use crate::sdp::negotiate as sdp;
use crate::sip;
use crate::terms::{CallId, MonoMs, Now, Number, OperatorName, QueueName, TrunkName};
use rand_chacha::rand_core::Rng;

/// How often calls begin.
#[derive(Debug, Default)]
pub(super) struct Rates {
    starts: VecDeque<MonoMs>,
    dials: BTreeMap<OperatorName, VecDeque<MonoMs>>,
}

/// Counts one more event in the last `window_ms`, unless there are `limit` already.
fn within(times: &mut VecDeque<MonoMs>, limit: u32, window_ms: u64, now: MonoMs) -> bool {
    while times.front().is_some_and(|at| at.saturating_add(window_ms) <= now) {
        times.pop_front();
    }
    let room = times.len() < usize::try_from(limit).unwrap_or(usize::MAX);
    if room {
        times.push_back(now);
    }
    room
}

/// In `caller_from`: the number is in From's display name.
const DISPLAY_NAME: &str = "display";

/// What a call begins with.
struct Beginning {
    direction: Direction,
    first: Leg,
    caller: Number,
    called: Number,
    line: Number,
    trunk: Option<TrunkName>,
    operator: Option<OperatorName>,
    /// The worker of the call that he holds meanwhile.
    beside: Option<usize>,
}

impl Calls {
    /// An INVITE came in.
    pub(super) fn invited(&mut self, invited: sip::Invited, now: Now) {
        let leg = invited.leg;
        // Whoever takes his own call over to another phone begins none.
        if invited.replaces.is_none()
            && let Err((code, why)) = self.may_begin(&invited, now)
        {
            let (from, called) = (invited.from.clone(), self.number(&invited.to_user));
            self.room.out.push_back(Output::Refused { from, called, cause: why.clone() });
            self.room.sip(sip::Command::Reject { leg, code, cause: why });
            return;
        }
        // Without a description it asks for ours (RFC 3261 section 13.2.1).
        let wanted = (!invited.sdp.is_empty()).then(|| sdp::read_offer(&invited.sdp)).transpose();
        let offer = match wanted {
            Ok(offer) => offer,
            Err(error) => {
                let why = cause(79, 488, &format!("session description not usable: {error}"));
                self.room.sip(sip::Command::Reject { leg, code: 488, cause: why });
                return;
            }
        };
        if let Some(other) = invited.replaces {
            return self.take_place(&invited, offer, other, now);
        }
        let address = invited.path.local().ip().to_canonical();
        let remote = invited.path.remote().ip().to_canonical();
        let browser = invited.path.flow().is_some();
        let unregistered = Reach { address, remote, registered: false, browser };
        let known = self.room.reached.entry(invited.from.clone()).or_insert(unregistered);
        (known.address, known.remote) = (address, remote);
        let mut beginning = match invited.from.clone() {
            Party::Trunk(trunk) => self.trunk_calls(&invited, trunk),
            Party::Operator(operator) => self.operator_calls(&invited, operator),
        };
        let unproved = beginning.trunk.as_ref().and_then(|trunk| self.room.setup.trunks.get(trunk));
        beginning.first.proved = !unproved.is_some_and(|trunk| trunk.unproved);
        beginning.first.offer = offer;
        let id = self.begin(beginning, Stage::Greeting { token: 0 }, now);
        self.with(id, now, |call, room| call.enter(room, now));
    }

    /// An operator dials at his desk: his own phone is called first, and answered for him.
    pub(super) fn dial(
        &mut self,
        operator: &OperatorName,
        to: &str,
        trunk: Option<TrunkName>,
        now: Now,
    ) -> Result<CallId, Denied> {
        let number = self.number(to);
        if self.calls.values().any(|call| call.concerns(operator)) {
            return Err(Denied { status: 409, words: "you are in a call: end it first".to_owned() });
        }
        self.guard_number(operator, &number, now)?;
        let party = Party::Operator(operator.clone());
        if !self.room.is_registered(&party) {
            return Err(Denied {
                status: 409,
                words: "your phone is not connected: start the shift again".to_owned(),
            });
        }
        if let Some(trunk) = &trunk
            && !self.room.setup.trunks.contains_key(trunk)
        {
            return Err(Denied { status: 422, words: format!("there is no trunk {trunk}") });
        }
        if !self.is_emergency(&number) {
            self.has_room(now).map_err(|why| Denied { status: why.sip, words: why.words })?;
        }
        let leg = self.room.leg_id();
        let beginning = Beginning {
            direction: Direction::Out,
            first: Leg::new(leg, party, Number::new(operator.as_str()), true),
            caller: Number::default(),
            called: number.clone(),
            line: Number::default(),
            trunk: None,
            operator: Some(operator.clone()),
            beside: None,
        };
        let id = self.begin(beginning, Stage::Calling, now);
        self.with(id, now, |call, room| call.call_own_phone(room, trunk, now));
        Ok(id)
    }

    /// Limits that hold for every beginning. Emergency calls pass them all.
    fn may_begin(&mut self, invited: &sip::Invited, now: Now) -> Result<(), (u16, Cause)> {
        let called = self.number(&invited.to_user);
        if self.is_emergency(&called) && matches!(invited.from, Party::Operator(_)) {
            return Ok(());
        }
        if self.room.draining {
            return Err((503, cause(41, 503, "this node is being drained")));
        }
        self.has_room(now).map_err(|why| (503, why))?;
        match &invited.from {
            Party::Trunk(_) => Ok(()),
            Party::Operator(operator) => self.guard_dial(operator, &called, now).map_err(|denied| {
                (if denied.status == 409 { 486 } else { 403 }, cause(21, 403, &denied.words))
            }),
        }
    }

    /// The house's own limits: calls alive at once and new ones in a second, whoever begins them.
    fn has_room(&mut self, now: Now) -> Result<(), Cause> {
        let limits = &self.room.setup.limits;
        if self.calls.len() >= limits.calls {
            return Err(cause(34, 503, "all lines are in use"));
        }
        if !within(&mut self.rate.starts, limits.calls_per_second, 1_000, now.mono_ms) {
            return Err(cause(42, 503, "too many calls in this second"));
        }
        Ok(())
    }

    /// What was dialled, by the house's rules; withheld when it is not a number.
    pub(super) fn number(&self, typed: &str) -> Number {
        dialplan::normalise(typed, &self.room.setup.numbers).unwrap_or_default()
    }

    fn is_emergency(&self, number: &Number) -> bool {
        self.room.setup.limits.emergency.iter().any(|known| known == number.reveal())
    }

    /// The toll guard and the state of the operator's own phone.
    fn guard_dial(&mut self, operator: &OperatorName, number: &Number, now: Now) -> Result<(), Denied> {
        if self.calls.values().any(|call| call.concerns(operator)) && self.beside(operator).is_none() {
            return Err(Denied { status: 409, words: "you are in a call: end it first".to_owned() });
        }
        self.guard_number(operator, number, now)
    }

    /// The worker of the one call that the operator's phone holds: while it does, he may ask somebody else.
    fn beside(&self, operator: &OperatorName) -> Option<usize> {
        let party = Party::Operator(operator.clone());
        let own = |call: &&Call| call.legs().any(|leg| leg.party == party);
        let mut his = self.calls.values().filter(own);
        let (Some(call), None) = (his.next(), his.next()) else { return None };
        let holds = call.legs().any(|leg| leg.party == party && leg.state == LegState::Held);
        (holds && !call.held && matches!(call.stage, Stage::Talking)).then_some(call.worker)
    }

    /// The toll guard.
    pub(super) fn guard_number(
        &mut self,
        operator: &OperatorName,
        number: &Number,
        now: Now,
    ) -> Result<(), Denied> {
        if number.is_withheld() {
            return Err(Denied {
                status: 422,
                words: "this is not a number: digits, * and # only".to_owned(),
            });
        }
        if self.is_emergency(number) {
            return Ok(());
        }
        if self.room.draining {
            return Err(Denied {
                status: 503,
                words: "this node is being drained: try again in a minute".to_owned(),
            });
        }
        let limits = &self.room.setup.limits;
        let allowed = &limits.destinations;
        if !allowed.is_empty() && !allowed.iter().any(|prefix| number.reveal().starts_with(prefix.as_str())) {
            return Err(Denied {
                status: 403,
                words: "calls to this destination are not allowed here".to_owned(),
            });
        }
        let dials = self.rate.dials.entry(operator.clone()).or_default();
        if !within(dials, limits.operator_calls_per_minute, 60_000, now.mono_ms) {
            return Err(Denied {
                status: 429,
                words: "too many calls in this minute: wait a little".to_owned(),
            });
        }
        Ok(())
    }

    fn trunk_calls(&self, invited: &sip::Invited, name: TrunkName) -> Beginning {
        let trunk = self.room.setup.trunks.get(&name);
        let caller = match trunk {
            Some(trunk) if !invited.private => caller_of(invited, trunk),
            Some(_) | None => Number::default(),
        };
        let dialled = self.number(&invited.to_user);
        let line = trunk.and_then(|trunk| trunk.line.clone()).map(Number::new);
        let called = if dialled.is_withheld() { line.clone().unwrap_or_default() } else { dialled };
        Beginning {
            direction: Direction::In,
            first: Leg::new(invited.leg, Party::Trunk(name.clone()), caller.clone(), false),
            caller,
            line: line.unwrap_or_else(|| called.clone()),
            called,
            trunk: Some(name),
            operator: None,
            beside: None,
        }
    }

    fn operator_calls(&self, invited: &sip::Invited, operator: OperatorName) -> Beginning {
        let called = self.number(&invited.to_user);
        let number = Number::new(operator.as_str());
        Beginning {
            direction: Direction::Out,
            first: Leg::new(invited.leg, Party::Operator(operator.clone()), number, false),
            caller: Number::default(),
            called,
            line: Number::default(),
            trunk: None,
            beside: self.beside(&operator),
            operator: Some(operator),
        }
    }

    /// Makes the call and tells of it.
    fn begin(&mut self, beginning: Beginning, stage: Stage, now: Now) -> CallId {
        let Beginning { direction, first, caller, called, line, trunk, operator, beside } = beginning;
        let id = fresh_id(&mut self.room, now);
        let workers = self.room.setup.media.webrtc_ports.len().max(1);
        let any = usize::try_from(self.room.rng.next_u32()).unwrap_or(0) % workers;
        // The two calls of an operator may become one: one worker must hold them.
        let worker = beside.unwrap_or(any);
        self.room.fact(
            id,
            What::Arrived {
                direction,
                caller: caller.clone(),
                called: called.clone(),
                line: line.clone(),
                trunk: trunk.clone(),
                operator: operator.clone(),
            },
        );
        if let Some(trunk) = &trunk {
            self.room.count(trunk, 1);
        }
        // The floor knows him by the call that he holds.
        let operator = operator.filter(|_| beside.is_none());
        if let Some(operator) = &operator {
            let (operator, number) = (operator.clone(), called.clone());
            self.room.out.push_back(Output::Engaged { operator: operator.clone(), call: id, talking: false });
            self.room.out.push_back(Output::Dialled { call: id, operator, number });
        }
        let call = Call {
            id,
            direction,
            stage,
            first,
            second: None,
            caller,
            called,
            line,
            trunk,
            operator,
            queue: None,
            steps: Vec::new(),
            cursor: 0,
            worker,
            arrived_ms: now.mono_ms,
            waiting_ms: None,
            answered_ms: None,
            answered_at: None,
            held: false,
            transfer: None,
            transferred: false,
            deadline_ms: None,
            tokens: 0,
        };
        call.tell_leg(&mut self.room, &call.first);
        self.calls.insert(id, call);
        self.settle(id, None, Next::Goes, now);
        id
    }
}

impl Call {
    /// The first leg is here: find the route and walk it.
    pub(super) fn enter(&mut self, room: &mut Room, now: Now) -> Next {
        let Some(steps) = self.find_route(room, now) else {
            let why = cause(1, 404, "no route of the dialplan fits this call");
            return self.refuse(room, 404, why);
        };
        self.steps = steps;
        self.walk(room, now)
    }

    /// The steps for this call, by the dialplan and the local time.
    fn find_route(&self, room: &mut Room, now: Now) -> Option<Vec<crate::dialplan::Step>> {
        let share = u8::try_from(room.rng.next_u32() % 100).unwrap_or(0);
        let from = match self.direction {
            Direction::In => Origin::Trunk(self.trunk.clone()?),
            Direction::Out | Direction::Bridge => Origin::Operators,
        };
        let at = LocalTime::of(now.wall_ms, &room.setup.zone);
        let attempt = Attempt { from, number: &self.called, caller: &self.caller, at, share };
        Some(room.setup.plan.route(&attempt)?.steps.clone())
    }

    /// Refuses an unanswered first leg.
    pub(super) fn refuse(&mut self, room: &mut Room, code: u16, why: Cause) -> Next {
        if !self.first.outgoing && !self.first.is_up() {
            room.sip(sip::Command::Reject { leg: self.first.id, code, cause: why.clone() });
        }
        Next::Over(Ending { result: CallResult::Rejected, cause: why, by: "system" })
    }

    /// Calls the operator's own phone; the plan is walked once it answered.
    fn call_own_phone(&mut self, room: &mut Room, trunk: Option<TrunkName>, now: Now) -> Next {
        let Some(mut steps) = self.find_route(room, now) else {
            let why = cause(1, 404, "no route of the dialplan leads to this number");
            return Next::Over(Ending { result: CallResult::Rejected, cause: why, by: "system" });
        };
        if let Some(only) = trunk {
            steps.iter_mut().for_each(|step| limit_to(step, &only));
        }
        self.steps = steps;
        self.waiting_ms = Some(now.mono_ms);
        let headers = self.phone_headers(room, None, true);
        let Some(sdp) = self.offer_first(room, now) else {
            let why = cause(47, 503, "no media port is free");
            return Next::Over(Ending { result: CallResult::Failed, cause: why, by: "system" });
        };
        room.sip(sip::Command::Invite {
            leg: self.first.id,
            to: self.first.party.clone(),
            number: Number::default(),
            show: self.called.clone(),
            display: String::new(),
            headers,
            sdp,
            ring_ms: OWN_PHONE_MS,
        });
        Next::Goes
    }

    /// What the browser must know of the call before it answers.
    pub(super) fn phone_headers(
        &self,
        room: &Room,
        queue: Option<&QueueName>,
        auto_answer: bool,
    ) -> Vec<(String, String)> {
        let mut headers = vec![("X-Tandem-Call".to_owned(), self.id.to_string())];
        if let Some(queue) = queue {
            headers.push(("X-Tandem-Queue".to_owned(), queue.to_string()));
        }
        if auto_answer {
            headers.push(("Call-Info".to_owned(), format!("<sip:{}>;answer-after=0", room.setup.domain)));
        }
        headers
    }
}

/// Who calls, by the headers that this trunk's profile names, in their order; withheld where none of them
/// holds a number. A display name is text that anybody may write: only where the profile says that its
/// gateways put the number there, and it is one, it counts.
fn caller_of(invited: &sip::Invited, trunk: &Trunk) -> Number {
    for header in &trunk.caller_from {
        let by_name = header == DISPLAY_NAME;
        let wanted = if by_name { "From" } else { header.as_str() };
        for one in invited.identities.iter().filter(|one| one.header.eq_ignore_ascii_case(wanted)) {
            let text = if by_name { &one.display } else { &one.user };
            let own = !trunk.account.is_empty() && *text == trunk.account;
            let number = dialplan::caller(text, &trunk.number_rules).unwrap_or_default();
            if !own && !number.is_withheld() {
                return number;
            }
        }
    }
    Number::default()
}

/// A UUIDv7 (RFC 9562 section 5.7) from the time and the seeded generator.
fn fresh_id(room: &mut Room, now: Now) -> CallId {
    let mut random = [0_u8; 10];
    room.rng.fill_bytes(&mut random);
    let millis = u64::try_from(now.wall_ms).unwrap_or(0);
    CallId(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_counts_only_its_window() {
        let mut times = VecDeque::new();
        assert!(within(&mut times, 2, 1_000, 0));
        assert!(within(&mut times, 2, 1_000, 10));
        assert!(!within(&mut times, 2, 1_000, 999));
        assert!(within(&mut times, 2, 1_000, 1_000));
    }
}
