//! The phone itself, between its SIP and its sound; the drivers only carry its messages.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::leg::Leg;
use super::{Answer, Order, PhoneConfig, Report, Role, Sound, Teller};
use crate::sdp::Direction;
use crate::sdp::negotiate::Codec;
use crate::sip::message::Request;
use crate::sip::uri::Uri;
use crate::terms::MonoMs;
use crate::ua::agent::{Agent, AgentConfig, AgentEvent, AgentOutput, CallNo, Carrier};
use crate::ua::speech::Speak;

/// Calls whose sound is remembered after their end.
const MAX_PAST: usize = 64;

/// How it behaves.
pub(crate) struct Style {
    role: Role,
    address: IpAddr,
    codecs: Vec<Codec>,
    talk: Speak,
    answer: Answer,
    report_windows: bool,
}

impl Style {
    pub(crate) fn new(config: &PhoneConfig, role: Role) -> Self {
        Self {
            role,
            address: config.address,
            codecs: config.codecs.clone(),
            talk: config.talk,
            answer: config.answer,
            report_windows: config.report_windows,
        }
    }
}

/// A phone without its SIP transport.
pub(crate) struct Body {
    agent: Agent,
    style: Style,
    legs: BTreeMap<CallNo, Leg>,
    past: VecDeque<(CallNo, Sound)>,
    teller: Teller,
    rng: ChaCha20Rng,
}

impl Body {
    pub(crate) fn new(config: &PhoneConfig, style: Style, carrier: Carrier, teller: Teller) -> Self {
        let mut rng = ChaCha20Rng::from_seed(config.seed);
        let mut seed = [0; 32];
        rand_chacha::rand_core::Rng::fill_bytes(&mut rng, &mut seed);
        let agent = Agent::new(AgentConfig {
            user: config.user.clone(),
            password: config.password.clone(),
            domain: config.domain.clone(),
            carrier,
            expires_s: config.expires_s,
            digest: config.digest,
            seed,
        });
        Self { agent, style, legs: BTreeMap::new(), past: VecDeque::new(), teller, rng }
    }

    /// Registers, now and whenever the transport is new.
    pub(crate) fn register(&mut self, now: MonoMs) {
        self.agent.register(now);
    }

    pub(crate) fn tell(&self, now: MonoMs, report: Report) {
        self.teller.tell(now, report);
    }

    /// A SIP message came.
    pub(crate) fn received(&mut self, bytes: &Bytes, now: MonoMs) {
        self.agent.handle(bytes, now);
    }

    /// Carries out an order; those about the transport are the driver's.
    pub(crate) fn order(&mut self, order: Order, now: MonoMs) {
        match order {
            Order::Call { number, shown, headers, reply } => {
                if let Some(call) = self.call(&number, shown.as_deref(), &headers, now) {
                    // Whoever asked may have gone.
                    reply.send(call).ok();
                }
            }
            Order::HangUp(call) => self.agent.hang_up(call, now),
            Order::Say(call, speak) => {
                if let Some(leg) = self.legs.get_mut(&call) {
                    leg.say(speak);
                }
            }
            Order::Press(call, digits) => {
                if let Some(leg) = self.legs.get_mut(&call) {
                    leg.press(&digits);
                }
            }
            Order::Change(call, direction, new_ice) => {
                let offer = self.legs.get_mut(&call).and_then(|leg| leg.change(direction, new_ice));
                if let Some(offer) = offer {
                    self.agent.offer(call, Bytes::from(offer), now);
                }
            }
            Order::Answering(answer) => self.style.answer = answer,
            Order::Sound(call, reply) => {
                let past = || self.past.iter().find(|(no, _)| *no == call).map(|(_, sound)| sound.clone());
                reply.send(self.legs.get(&call).map(Leg::sound).or_else(past)).ok();
            }
            Order::Unregister => self.agent.unregister(now),
            Order::Reconnect => {}
            Order::Stop => {
                let calls: Vec<CallNo> = self.legs.keys().copied().collect();
                for call in calls {
                    self.agent.hang_up(call, now);
                }
            }
        }
    }

    fn call(
        &mut self,
        number: &str,
        shown: Option<&str>,
        headers: &[(String, String)],
        now: MonoMs,
    ) -> Option<CallNo> {
        let leg = Leg::new(&self.style.role, self.style.address, &mut self.rng).ok()?;
        let sdp = Bytes::from(leg.offer(&self.style.codecs));
        let extra: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let call = self.agent.call(number, shown, &extra, sdp, now);
        self.legs.insert(call, leg);
        Some(call)
    }

    /// Time passed: a few milliseconds.
    pub(crate) fn tick(&mut self, now: MonoMs) {
        if self.agent.next_timeout().is_some_and(|at| at <= now) {
            self.agent.handle_timeout(now);
        }
        let mut due = Vec::new();
        for (call, leg) in &mut self.legs {
            let teller = &self.teller;
            let windows = self.style.report_windows;
            leg.tick(*call, now, &mut |report| {
                if windows || !matches!(report, Report::Heard { .. }) {
                    teller.tell(now, report);
                }
            });
            if leg.answer_at.is_some_and(|at| at <= now) {
                due.push(*call);
            }
        }
        for call in due {
            self.answer(call, now);
        }
    }

    fn answer(&mut self, call: CallNo, now: MonoMs) {
        let Some(leg) = self.legs.get_mut(&call) else { return };
        leg.answer_at = None;
        leg.say(self.style.talk);
        leg.speak_up(now);
        let sdp = Bytes::from(leg.answer.clone());
        self.agent.answer(call, sdp, now);
        self.tell(now, Report::Answered { call });
    }

    /// What the SIP side wants: messages to send; events become reports and sound.
    pub(crate) fn drain(&mut self, now: MonoMs) -> Vec<Bytes> {
        let mut messages = Vec::new();
        while let Some(output) = self.agent.poll() {
            match output {
                AgentOutput::Send(bytes) => messages.push(bytes),
                AgentOutput::Event(event) => self.event(event, now),
            }
        }
        messages
    }

    fn event(&mut self, event: AgentEvent, now: MonoMs) {
        match event {
            AgentEvent::Registered { expires_s } => self.tell(now, Report::Registered { expires_s }),
            AgentEvent::Unregistered => self.tell(now, Report::Unregistered),
            AgentEvent::NotRegistered { code } => self.tell(now, Report::NotRegistered { code }),
            AgentEvent::Invited { call, invite } => self.invited(call, &invite, now),
            AgentEvent::Rang { call } => self.tell(now, Report::Rang { call }),
            AgentEvent::EarlyMedia { call, sdp } => {
                self.learn(call, &sdp, now);
                self.tell(now, Report::EarlyMedia { call });
            }
            AgentEvent::Answered { call, sdp } => {
                self.learn(call, &sdp, now);
                self.tell(now, Report::Answered { call });
            }
            AgentEvent::Confirmed { call } => self.tell(now, Report::Confirmed { call }),
            AgentEvent::Offered { call, sdp } => self.offered(call, &sdp, now),
            AgentEvent::ChangeAnswered { call, sdp } => self.change_answered(call, &sdp, now),
            AgentEvent::ChangeRefused { call, code } => self.tell(now, Report::ChangeRefused { call, code }),
            AgentEvent::Failed { call, code } => {
                self.forget(call, now);
                self.tell(now, Report::Failed { call, code });
            }
            AgentEvent::Ended { call, by_peer, reason } => {
                self.forget(call, now);
                self.tell(now, Report::Ended { call, by_peer, reason });
            }
        }
    }

    fn invited(&mut self, call: CallNo, invite: &Request, now: MonoMs) {
        let user = |uri: Option<Uri>| uri.and_then(|uri| uri.user_text()).unwrap_or_default();
        let headers = invite.headers.iter().map(|header| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (text(header.spelled()), text(header.value()))
        });
        self.tell(
            now,
            Report::Invited {
                call,
                number: user(Uri::read(&invite.uri).ok()),
                caller: user(invite.headers.from().ok().map(|from| from.uri)),
                headers: headers.collect(),
            },
        );
        if let Answer::Refuse(code) = self.style.answer {
            return self.agent.reject(call, code);
        }
        let Ok(mut leg) = Leg::new(&self.style.role, self.style.address, &mut self.rng) else {
            return self.agent.reject(call, 500);
        };
        let Ok(answer) = leg.take_offer(&invite.body, &self.style.codecs, now) else {
            return self.agent.reject(call, 488);
        };
        leg.answer = answer;
        let mut early = Bytes::new();
        if let Answer::After { ring_ms, early_media } = self.style.answer {
            leg.answer_at = Some(now + ring_ms);
            if early_media {
                early = Bytes::from(leg.answer.clone());
                leg.say(Speak::Ringback);
                leg.speak_up(now);
            }
        }
        self.agent.ring(call, early);
        self.legs.insert(call, leg);
    }

    /// The answer to our offer, in 183 or 200.
    fn learn(&mut self, call: CallNo, sdp: &Bytes, now: MonoMs) {
        let Some(leg) = self.legs.get_mut(&call) else { return };
        let taken = if sdp.is_empty() { Ok(()) } else { leg.take_answer(sdp, &self.style.codecs, now) };
        match taken {
            Ok(()) => {
                leg.say(self.style.talk);
                leg.speak_up(now);
            }
            Err(why) => self.tell(now, Report::NoSound { call, why: why.to_string() }),
        }
    }

    fn offered(&mut self, call: CallNo, sdp: &Bytes, now: MonoMs) {
        let Some(leg) = self.legs.get_mut(&call) else { return };
        let answer = if sdp.is_empty() {
            leg.change(Direction::SendRecv, false)
        } else {
            leg.take_offer(sdp, &self.style.codecs, now).ok()
        };
        match answer {
            Some(text) => {
                self.agent.answer_change(call, Bytes::from(text), now);
                self.tell(now, Report::Changed { call });
            }
            None => self.agent.refuse_change(call, 488),
        }
    }

    fn change_answered(&mut self, call: CallNo, sdp: &Bytes, now: MonoMs) {
        let Some(leg) = self.legs.get_mut(&call) else { return };
        match leg.take_answer(sdp, &self.style.codecs, now) {
            Ok(()) => self.tell(now, Report::Changed { call }),
            Err(why) => self.tell(now, Report::NoSound { call, why: why.to_string() }),
        }
    }

    fn forget(&mut self, call: CallNo, now: MonoMs) {
        let Some(mut leg) = self.legs.remove(&call) else { return };
        leg.close(call, now);
        if self.past.len() == MAX_PAST {
            self.past.pop_front();
        }
        self.past.push_back((call, leg.sound()));
    }
}
