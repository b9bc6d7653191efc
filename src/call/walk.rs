//! The dialplan, step by step: the step after one is its overflow.
//!
//! Invariant: a step is entered once; nothing is asked of the floor or of a trunk before the first
//! leg can hear.

use crate::call::call::{Call, Stage};
use crate::call::hunt::Hunt;
use crate::call::leg::Leg;
use crate::call::words::{cause, plain};
use crate::call::{EARLY_MEDIA_MS, Ending, Next, Output, Room};
use crate::dialplan::{self, DialNumber, HangUpWhy, Step, Ways};
use crate::fact::{CallResult, Cause, Party, ToneKind, What};
use crate::media::command::Sound;
use crate::sip;
use crate::terms::{Now, Number, OperatorName, QueueName, TrunkName};

impl Call {
    /// Goes on with the next step; the end of the plan ends the call.
    pub(super) fn walk(&mut self, room: &mut Room, now: Now) -> Next {
        let Some(step) = self.steps.get(self.cursor).cloned() else {
            return self.plan_is_over();
        };
        self.cursor = self.cursor.saturating_add(1);
        if !matches!(step, Step::HangUp { .. })
            && let Err(next) = self.answer_first(room, now)
        {
            return next;
        }
        match step {
            Step::Play { file } => {
                room.fact(self.id, What::Greeting { prompt: file.clone() });
                let token = self.play(room, Sound::File(file.into()), false);
                self.stage = Stage::Greeting { token };
                Next::Goes
            }
            Step::Queue { queue, wait_ms, music, priority, .. } => {
                self.enter_queue(room, queue, wait_ms, music, priority, now)
            }
            Step::Dial { number, over, ring_ms, show } => {
                let number = match number {
                    DialNumber::Dialled => self.called.clone(),
                    DialNumber::Fixed(number) => number,
                };
                let ring_ms = ring_ms.unwrap_or(EARLY_MEDIA_MS);
                let show = show.unwrap_or_else(|| self.shown());
                self.waiting_ms.get_or_insert(now.mono_ms);
                let ways = room.choose(&over);
                self.stage = Stage::Dialling(Hunt::new(number, show, ways, ring_ms));
                self.try_next_way(room, now)
            }
            Step::HangUp { why } => self.hang_up_step(room, why, now),
        }
    }

    /// The number that an outgoing leg shows when the plan does not say: the caller's own.
    fn shown(&self) -> Number {
        match self.first.party {
            Party::Trunk(_) => self.caller.clone(),
            Party::Operator(_) => Number::default(),
        }
    }

    fn plan_is_over(&mut self) -> Next {
        let dialled = matches!(self.stage, Stage::Dialling(_));
        let result = if dialled { CallResult::Failed } else { CallResult::Overflow };
        Next::Over(Ending { result, cause: cause(16, 0, "the dialplan ended"), by: "system" })
    }

    fn hang_up_step(&mut self, room: &mut Room, why: HangUpWhy, now: Now) -> Next {
        let words = match why {
            HangUpWhy::Normal => "call ended by the dialplan",
            HangUpWhy::Busy => "busy",
            HangUpWhy::Congestion => "network is congested",
            HangUpWhy::NotAllowed => "not allowed",
            HangUpWhy::NotFound => "number does not exist",
        };
        let (q850, code) = (why.q850(), why.sip());
        let why = cause(q850, code, words);
        if !self.first.is_up() {
            return self.refuse(room, code, why);
        }
        let waited = self.queue.is_some();
        let result = if waited { CallResult::Overflow } else { CallResult::Rejected };
        match q850 {
            // A busy tone towards GSM only lengthens the billed call: operators hear it.
            16 => Next::Over(Ending { result, cause: why, by: "system" }),
            _ if matches!(self.first.party, Party::Trunk(_)) => {
                Next::Over(Ending { result, cause: why, by: "system" })
            }
            _ => self.farewell(room, result, why, now),
        }
    }

    pub(super) fn enter_queue(
        &mut self,
        room: &mut Room,
        queue: QueueName,
        wait_ms: Option<u64>,
        music: Option<String>,
        priority: i32,
        now: Now,
    ) -> Next {
        let music = music.or_else(|| room.setup.queues.get(&queue).map(|queue| queue.music.clone()));
        if let Some(music) = music.filter(|file| !file.is_empty()) {
            self.music(room, music);
        }
        self.waiting_ms.get_or_insert(now.mono_ms);
        self.queue = Some(queue.clone());
        self.stage = Stage::Waiting { queue: queue.clone() };
        room.fact(self.id, What::Queued { queue: queue.clone(), priority });
        let caller = self.caller.clone();
        room.out.push_back(Output::Wait { call: self.id, queue, caller, priority, wait_ms });
        Next::Goes
    }

    /// The floor chose an operator: his phone is called while the caller goes on hearing music.
    pub(super) fn assigned(
        &mut self,
        room: &mut Room,
        queue: QueueName,
        operator: OperatorName,
        auto_answer: bool,
        now: Now,
    ) -> Next {
        let Stage::Waiting { .. } = self.stage else {
            let (call, refused) = (self.id, false);
            room.out.push_back(Output::Declined { call, operator, refused });
            return Next::Goes;
        };
        let party = Party::Operator(operator.clone());
        let mut leg = Leg::new(room.leg_id(), party.clone(), Number::new(operator.as_str()), true);
        let Some(sdp) = self.offer(room, &mut leg, now) else {
            let (call, refused) = (self.id, false);
            room.out.push_back(Output::Declined { call, operator, refused });
            return Next::Goes;
        };
        room.fact(self.id, What::Assigned { queue: queue.clone(), operator: operator.clone() });
        room.sip(sip::Command::Invite {
            leg: leg.id,
            to: party,
            number: Number::default(),
            show: self.caller.clone(),
            display: String::new(),
            headers: self.phone_headers(room, Some(&queue), auto_answer),
            sdp,
            // The ring time-out is the floor's; this one only ends what the floor forgot.
            ring_ms: crate::call::EARLY_MEDIA_MS,
        });
        self.tell_leg(room, &leg);
        self.stage = Stage::Offering { queue, operator, leg: leg.id };
        self.second = Some(leg);
        Next::Goes
    }

    /// The offer is taken back: the caller waits on at his place.
    pub(super) fn back_to_queue(&mut self, room: &mut Room, why: &str, alive: bool, now: Now) {
        let Stage::Offering { queue, operator, .. } = self.stage.clone() else { return };
        self.drop_second(room, cause(16, 0, "taken back"), alive, now);
        let what = What::Unassigned { queue: queue.clone(), operator, why: why.to_owned() };
        room.fact(self.id, what);
        self.stage = Stage::Waiting { queue };
    }

    /// He waited as long as he may: the next step of the plan.
    pub(super) fn waited_out(&mut self, room: &mut Room, why: &str, now: Now) -> Next {
        self.back_to_queue(room, "caller_gone", true, now);
        let Stage::Waiting { queue } = self.stage.clone() else { return Next::Goes };
        room.fact(self.id, What::LeftQueue { queue, why: why.to_owned() });
        // He left the queue here; should the plan end now, he must not be told to have abandoned it.
        self.stage = Stage::Greeting { token: 0 };
        self.stop(room);
        self.walk(room, now)
    }

    /// Takes the caller out of the floor, whatever he was doing there, and lets his operator go.
    pub(super) fn leave_floor(&mut self, room: &mut Room) {
        match self.stage.clone() {
            Stage::Waiting { queue } => {
                room.fact(self.id, What::LeftQueue { queue, why: "abandoned".to_owned() });
                room.out.push_back(Output::Left { call: self.id });
            }
            Stage::Offering { queue, operator, .. } => {
                let why = "caller_gone".to_owned();
                room.fact(self.id, What::Unassigned { queue: queue.clone(), operator, why });
                room.fact(self.id, What::LeftQueue { queue, why: "abandoned".to_owned() });
                room.out.push_back(Output::Left { call: self.id });
            }
            Stage::Calling
            | Stage::Greeting { .. }
            | Stage::Dialling(_)
            | Stage::Talking
            | Stage::Farewell { .. } => {}
        }
        if let Some(operator) = self.operator.clone() {
            room.out.push_back(Output::Released { operator, call: self.id });
        }
    }

    /// Calls the number over the next usable trunk; none left is the end of this step.
    pub(super) fn try_next_way(&mut self, room: &mut Room, now: Now) -> Next {
        let Stage::Dialling(mut hunt) = self.stage.clone() else { return Next::Goes };
        let Some(trunk) = hunt.advance(|way| room.usable(way)) else {
            self.stage = Stage::Dialling(hunt.clone());
            return self.no_way(room, hunt.last, now);
        };
        let mut leg = Leg::new(room.leg_id(), Party::Trunk(trunk.clone()), hunt.number.clone(), true);
        let Some(sdp) = self.offer(room, &mut leg, now) else {
            self.stage = Stage::Dialling(hunt);
            return self.no_way(room, Some(cause(47, 503, "no media port is free")), now);
        };
        room.count(&trunk, 1);
        let rules =
            room.setup.trunks.get(&trunk).map(|trunk| trunk.dial_rules.as_slice()).unwrap_or_default();
        let dialled = dialplan::dial_string(&hunt.number, rules).unwrap_or_default();
        let line = room.setup.trunks.get(&trunk).and_then(|trunk| trunk.line.clone()).map(Number::new);
        let show = if hunt.show.is_withheld() { line.unwrap_or_default() } else { hunt.show.clone() };
        room.sip(sip::Command::Invite {
            leg: leg.id,
            to: Party::Trunk(trunk.clone()),
            number: Number::new(dialled),
            show,
            display: String::new(),
            headers: Vec::new(),
            sdp,
            ring_ms: hunt.ring_ms,
        });
        self.tell_leg(room, &leg);
        hunt.leg = Some(leg.id);
        if matches!(self.first.party, Party::Operator(_)) {
            self.trunk = Some(trunk);
        }
        self.second = Some(leg);
        self.stage = Stage::Dialling(hunt);
        Next::Goes
    }

    /// No way led there: the next step, if the plan has one; else the tone, the words and the end.
    fn no_way(&mut self, room: &mut Room, last: Option<Cause>, now: Now) -> Next {
        if self.transfer.is_some() {
            let why = last.unwrap_or_else(|| cause(34, 503, "no trunk is up or free"));
            return self.transfer_failed(room, why, now);
        }
        if self.cursor < self.steps.len() {
            return self.walk(room, now);
        }
        let mut why = last.unwrap_or_else(|| cause(34, 503, "no trunk is up or free"));
        why.words = plain(&why);
        let result = match why.q850 {
            17 | 21 => CallResult::Busy,
            18 | 19 => CallResult::NoAnswer,
            _ => CallResult::Failed,
        };
        match self.first.party {
            Party::Operator(_) => self.farewell(room, result, why, now),
            Party::Trunk(_) => Next::Over(Ending { result, cause: why, by: "system" }),
        }
    }

    /// The tried way names another number. It is called over the plan's own ways, and only if the toll guard
    /// and that trunk's configuration let it.
    pub(super) fn redirected(&mut self, room: &Room, to: &str) -> Next {
        let Stage::Dialling(hunt) = &mut self.stage else { return Next::Goes };
        let trunk = self.second.as_ref().and_then(|leg| match &leg.party {
            Party::Trunk(trunk) => room.setup.trunks.get(trunk),
            Party::Operator(_) => None,
        });
        let number = dialplan::normalise(to, &room.setup.numbers).ok().filter(|number| !number.is_withheld());
        let allowed = &room.setup.limits.destinations;
        hunt.redirect = number.filter(|number| {
            let known = |prefix: &String| number.reveal().starts_with(prefix.as_str());
            trunk.is_some_and(|trunk| trunk.redirects) && (allowed.is_empty() || allowed.iter().any(known))
        });
        Next::Goes
    }

    /// The tried way is over before the answer.
    pub(super) fn way_failed(&mut self, room: &mut Room, why: Cause, way: sip::Way, now: Now) -> Next {
        let Stage::Dialling(mut hunt) = self.stage.clone() else { return Next::Goes };
        self.stop(room);
        let trunk = self.second.as_ref().map(|leg| leg.party.clone());
        self.drop_second(room, why.clone(), false, now);
        hunt.last = Some(why.clone());
        if hunt.follow() {
            self.stage = Stage::Dialling(hunt);
            return self.try_next_way(room, now);
        }
        match way {
            sip::Way::Way => {
                if let Some(Party::Trunk(trunk)) = trunk {
                    room.fact(self.id, What::TrunkFailed { trunk, cause: why });
                }
                self.stage = Stage::Dialling(hunt);
                self.try_next_way(room, now)
            }
            sip::Way::Person | sip::Way::Cancelled => {
                self.stage = Stage::Dialling(hunt);
                self.no_way(room, Some(why), now)
            }
        }
    }

    /// The far phone rings: our ring-back, unless the carrier's sound is there.
    pub(super) fn far_rings(&mut self, room: &mut Room) {
        let Stage::Dialling(hunt) = &mut self.stage else { return };
        if hunt.heard || hunt.ringback {
            return;
        }
        hunt.ringback = true;
        self.play_tone(room, ToneKind::Ringback);
    }
}

/// Keeps only this trunk in a step's ways.
pub(super) fn limit_to(step: &mut Step, only: &TrunkName) {
    if let Step::Dial { over, .. } = step {
        over.clear();
        over.push(Ways::in_order(only.as_str(), vec![only.clone()]));
    }
}
