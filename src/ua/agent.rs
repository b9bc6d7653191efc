//! SIP as a phone speaks it: registers, calls, is called, hangs up (RFC 3261), towards one server.
//!
//! Client transactions repeat and give up by the timers of RFC 3261 figures 5 and 6, server answers are kept
//! and repeated, a 200 is repeated until its ACK comes. What a phone does not need is not here: no forks, no
//! route sets, no reliable provisional answers, no session timer of its own.
//!
//! Invariant: every call that was begun ends with exactly one [`AgentEvent::Ended`] or
//! [`AgentEvent::Failed`]; no clock, no socket, no entropy but the seed.

mod ask;
mod calls;
mod register;
mod serve;

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use self::ask::Ask;
use self::calls::Call;
use self::register::Registration;
use crate::sip::digest::{Algorithm, Login};
use crate::sip::message::{Message, Method, Name, Request};
use crate::sip::uri::Host;
use crate::terms::{MonoMs, Secret};

/// RFC 3261 T1, milliseconds: the first repetition over UDP.
const T1_MS: u64 = 500;
/// RFC 3261 T2: the longest time between repetitions.
const T2_MS: u64 = 4_000;
/// 64·T1: when a transaction gives up.
const GIVE_UP_MS: u64 = 64 * T1_MS;
/// How long an INVITE may ring (timer C).
const RING_MS: u64 = 180_000;
/// Calls and transactions at once, each; more are refused.
const MAX_AT_ONCE: usize = 2_000;
/// Answers and ACKs kept for repetitions of what they answered.
const MAX_KEPT: usize = 256;
/// What we can be asked.
const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, NOTIFY";

/// Names a call of one agent.
pub type CallNo = u64;

/// How messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// Datagrams from this address.
    Udp(SocketAddr),
    /// Frames of a WebSocket (RFC 7118).
    Ws,
}

/// Who the agent is.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Digest user and user part of its address.
    pub user: String,
    /// Its password.
    pub password: Secret<String>,
    /// The switch's domain.
    pub domain: String,
    /// How its messages travel.
    pub carrier: Carrier,
    /// How long a registration is asked for, seconds.
    pub expires_s: u32,
    /// Answer only challenges of this algorithm; `None`: the strongest offered.
    pub digest: Option<Algorithm>,
    /// From the OS, or fixed in a simulation.
    pub seed: [u8; 32],
}

/// What is to be done.
#[derive(Debug)]
pub enum AgentOutput {
    /// Send it to the server.
    Send(Bytes),
    /// Something happened.
    Event(AgentEvent),
}

/// What happened.
#[derive(Debug, Clone)]
pub enum AgentEvent {
    /// Registered, for so many seconds.
    Registered {
        /// Seconds granted.
        expires_s: u32,
    },
    /// The switch took the registration away on request.
    Unregistered,
    /// Registration was refused or not answered (408); it is tried again after a while.
    NotRegistered {
        /// SIP status.
        code: u16,
    },
    /// A call comes in; it has got 100.
    Invited {
        /// Its number.
        call: CallNo,
        /// The whole INVITE; its body is the offer.
        invite: Box<Request>,
    },
    /// The far phone rings.
    Rang {
        /// Which call.
        call: CallNo,
    },
    /// Sound before the answer.
    EarlyMedia {
        /// Which call.
        call: CallNo,
        /// The answer to our offer.
        sdp: Bytes,
    },
    /// Our call was answered; ACK is sent.
    Answered {
        /// Which call.
        call: CallNo,
        /// The answer to our offer; empty if 183 had it.
        sdp: Bytes,
    },
    /// The ACK to our 200 came.
    Confirmed {
        /// Which call.
        call: CallNo,
    },
    /// The switch wants to change the session; [`Agent::answer_change`] answers.
    Offered {
        /// Which call.
        call: CallNo,
        /// Its offer; empty asks for ours.
        sdp: Bytes,
    },
    /// The answer to our [`Agent::offer`]; ACK is sent.
    ChangeAnswered {
        /// Which call.
        call: CallNo,
        /// The answer.
        sdp: Bytes,
    },
    /// Our offer was refused; the call goes on as it was.
    ChangeRefused {
        /// Which call.
        call: CallNo,
        /// SIP status.
        code: u16,
    },
    /// Our call did not come up.
    Failed {
        /// Which call.
        call: CallNo,
        /// SIP status; 408 if nothing answered.
        code: u16,
    },
    /// A call that was up, or rang here, is over.
    Ended {
        /// Which call.
        call: CallNo,
        /// Whether the switch ended it.
        by_peer: bool,
        /// The Reason header, if there was one.
        reason: Option<String>,
    },
}

/// The phone's SIP.
pub struct Agent {
    config: AgentConfig,
    login: Login,
    rng: ChaCha20Rng,
    /// The host of our Via and Contact: behind a WebSocket an invented one (RFC 7118 section 5).
    host: (Host, Option<u16>),
    asks: Vec<Ask>,
    calls: Vec<Call>,
    next_call: CallNo,
    registration: Registration,
    /// Key of what came, and what we answered: for repetitions.
    kept: VecDeque<(String, Bytes)>,
    out: VecDeque<AgentOutput>,
}

impl Agent {
    /// A phone that has not said anything yet.
    pub fn new(config: AgentConfig) -> Self {
        let mut rng = ChaCha20Rng::from_seed(config.seed);
        let host = match config.carrier {
            Carrier::Udp(at) => (Host::from(at.ip()), Some(at.port())),
            Carrier::Ws => (Host::Name(format!("{:012x}.invalid", rng.next_u64() >> 16)), None),
        };
        let login = Login { user: config.user.clone(), password: config.password.clone() };
        let registration = Registration::new(word(&mut rng), word(&mut rng));
        Self {
            config,
            login,
            rng,
            host,
            asks: Vec::new(),
            calls: Vec::new(),
            next_call: 1,
            registration,
            kept: VecDeque::new(),
            out: VecDeque::new(),
        }
    }

    /// A message came.
    pub fn handle(&mut self, bytes: &Bytes, now: MonoMs) {
        match Message::read_datagram(bytes) {
            Ok(Message::Request(request)) => self.asked(request),
            Ok(Message::Response(response)) => self.answered(response, now),
            // What cannot be read is not answered: this is a test instrument, and repetition shows.
            Err(_) => {}
        }
    }

    /// What is to be done; drained until `None`.
    pub fn poll(&mut self) -> Option<AgentOutput> {
        self.out.pop_front()
    }

    /// When to call [`Agent::handle_timeout`].
    pub fn next_timeout(&self) -> Option<MonoMs> {
        let asks = self.asks.iter().map(Ask::next_timeout);
        let calls = self.calls.iter().filter_map(Call::next_timeout);
        asks.chain(calls).chain(self.registration.refresh_at).min()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: MonoMs) {
        self.repeat_asks(now);
        self.repeat_answers(now);
        if self.registration.refresh_at.is_some_and(|at| at <= now) {
            self.register(now);
        }
    }

    fn is_reliable(&self) -> bool {
        match self.config.carrier {
            Carrier::Udp(_) => false,
            Carrier::Ws => true,
        }
    }

    fn send(&mut self, bytes: Bytes) {
        self.out.push_back(AgentOutput::Send(bytes));
    }

    fn tell(&mut self, event: AgentEvent) {
        self.out.push_back(AgentOutput::Event(event));
    }

    /// Remembers what answers a repetition.
    fn keep(&mut self, key: String, bytes: Bytes) {
        if self.kept.len() == MAX_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((key, bytes));
    }

    fn kept(&self, key: &str) -> Option<Bytes> {
        self.kept.iter().rev().find(|(known, _)| known == key).map(|(_, bytes)| bytes.clone())
    }

    fn word(&mut self) -> String {
        word(&mut self.rng)
    }

    fn contact(&self) -> String {
        let (host, port) = &self.host;
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let transport = if self.is_reliable() { ";transport=ws" } else { "" };
        format!("<sip:{}@{host}{port}{transport}>", self.config.user)
    }

    /// A request with all that every request has but Via, which [`Agent::ask`] adds.
    fn request(&self, method: Method, uri: &str, dialog: &Names<'_>) -> Request {
        let mut request = Request::new(method.clone(), uri.to_owned());
        let headers = &mut request.headers;
        headers.push(Name::MaxForwards, "70");
        headers.push(Name::From, dialog.from.to_owned());
        headers.push(Name::To, dialog.to.to_owned());
        headers.push(Name::CallId, dialog.call_id.to_owned());
        headers.push(Name::CSeq, format!("{} {method}", dialog.cseq));
        headers.push(Name::UserAgent, "Tandem user agent");
        if matches!(method, Method::Invite | Method::Register) {
            headers.push(Name::Contact, self.contact());
            headers.push(Name::Allow, ALLOW);
        }
        request
    }
}

/// What names a dialog in a request.
struct Names<'a> {
    from: &'a str,
    to: &'a str,
    call_id: &'a str,
    cseq: u32,
}

fn word(rng: &mut ChaCha20Rng) -> String {
    format!("{:016x}", rng.next_u64())
}

fn with_sdp(request: &mut Request, sdp: Bytes) {
    request.headers.push(Name::ContentType, "application/sdp");
    request.body = sdp;
}

#[cfg(test)]
mod tests;
