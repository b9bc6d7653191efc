//! Whether a trunk lives: OPTIONS now and then, and at once after a call that it left without an answer
//! (RFC 3261 section 11).
//!
//! Invariant: a trunk is thought alive until it says nothing; any answer at all is a sign of life, because
//! gateways answer OPTIONS with whatever they like.

use serde::{Deserialize, Serialize};

use super::super::Path;
use super::super::header::NameAddr;
use super::super::message::{Method, Name, Request};
use super::super::transaction::Purpose;
use super::super::uri::{Host, Uri};
use super::super::wire::Wire;
use super::super::words::Health;
use crate::record::moved;
use crate::terms::{MonoMs, Now};

/// How often a dead trunk is asked, milliseconds.
const DEAD_EVERY_MS: u64 = 5_000;
/// Where nothing is asked by configuration, a trunk that left a call without an answer is tried again by a
/// call after so long at the latest, milliseconds.
const REST_MS: u64 = 30_000;
/// The first questions to several trunks do not go out in one moment, milliseconds.
const SPREAD_MS: u64 = 2_000;

/// What is known of one trunk's life.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Pulse {
    asking: Option<(u64, MonoMs)>,
    next_at: Option<MonoMs>,
    /// When it died, and why in words.
    dead: Option<(MonoMs, String)>,
}

impl Pulse {
    /// Of a trunk that was just learnt.
    pub(crate) fn new(health: Health, wire: &mut Wire, now: Now) -> Self {
        let first = now.mono_ms.saturating_add(wire.entropy.below(SPREAD_MS));
        Self { asking: None, next_at: (health.every_ms > 0).then_some(first), dead: None }
    }

    /// Moves its deadlines onto another clock.
    pub(crate) fn rebase(&mut self, shift_ms: i64) {
        let asking = self.asking.as_mut().map(|(_, deadline)| deadline);
        let died = self.dead.as_mut().map(|(at, _)| at);
        for at in [asking, self.next_at.as_mut(), died].into_iter().flatten() {
            *at = moved(*at, shift_ms);
        }
    }

    /// Why it is thought dead.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.dead.as_ref().map(|(_, words)| words.as_str())
    }

    /// Whether this is the question that waits for an answer.
    pub(crate) fn waits_for(&self, client: u64) -> bool {
        self.asking.is_some_and(|(asked, _)| asked == client)
    }

    /// When to call [`Pulse::timeout`].
    pub(crate) fn next_timeout(&self) -> Option<MonoMs> {
        [self.next_at, self.asking.map(|(_, deadline)| deadline)].into_iter().flatten().min()
    }

    /// Time has passed; `place` is where the trunk is reached now, if anywhere.
    pub(crate) fn timeout(&mut self, wire: &mut Wire, health: Health, place: Option<Path>, now: Now) {
        if let Some((client, _)) = self.asking.filter(|(_, deadline)| *deadline <= now.mono_ms) {
            wire.tx.abandon(client);
            self.asking = None;
            let seconds = health.timeout_ms.div_ceil(1_000);
            self.dies(format!("it does not answer OPTIONS within {seconds} s"), now);
            self.next_at = Some(now.mono_ms.saturating_add(DEAD_EVERY_MS));
        }
        let rested = |at: &MonoMs| at.saturating_add(REST_MS) <= now.mono_ms;
        if health.every_ms == 0 && self.dead.as_ref().is_some_and(|(at, _)| rested(at)) {
            return self.lives(wire, health, now);
        }
        if self.next_at.is_none_or(|at| at > now.mono_ms) {
            return;
        }
        self.next_at = None;
        match place {
            Some(path) => {
                let request = options(wire, &path);
                let client = wire.ask_apart(request, path, Purpose::Ping, now);
                self.asking = Some((client, now.mono_ms.saturating_add(health.timeout_ms.max(1))));
            }
            // It is nowhere: its registration says when it is back.
            None => self.again(wire, health, now),
        }
    }

    /// It was heard: by its answer (which may come again: nobody waits for that), or by a registration from
    /// a new place.
    pub(crate) fn lives(&mut self, wire: &mut Wire, health: Health, now: Now) {
        if let Some((client, _)) = self.asking.take() {
            wire.tx.abandon(client);
        }
        self.dead = None;
        self.again(wire, health, now);
    }

    /// A call got no answer at all: no further call waits for it until it was heard.
    pub(crate) fn suspect(&mut self, words: &str, now: Now) {
        if self.dead.is_none() {
            self.dies(words.to_owned(), now);
            self.next_at = self.asking.is_none().then_some(now.mono_ms);
        }
    }

    fn dies(&mut self, words: String, now: Now) {
        self.dead.get_or_insert((now.mono_ms, words));
    }

    fn again(&mut self, wire: &mut Wire, health: Health, now: Now) {
        let tenth = health.every_ms / 10;
        let wait_ms = health.every_ms.saturating_sub(wire.entropy.below(tenth.max(1)));
        self.next_at = (health.every_ms > 0).then_some(now.mono_ms.saturating_add(wait_ms));
    }
}

/// A question of our own address to nobody in particular there.
fn options(wire: &mut Wire, path: &Path) -> Request {
    let there = Uri::at(None, path.remote());
    let host = Host::read(&wire.config.domain).unwrap_or(Host::from(path.local().ip()));
    let own = NameAddr::new(Uri::sip(Some("tandem"), host, None)).with_tag(&wire.entropy.word());
    let mut request = Request::new(Method::Options, there.to_string());
    let headers = &mut request.headers;
    headers.push(Name::MaxForwards, "70");
    headers.push(Name::From, own.to_string());
    headers.push(Name::To, NameAddr::new(there).to_string());
    headers.push(Name::CallId, format!("{}{}", wire.entropy.word(), wire.entropy.word()));
    headers.push(Name::CSeq, "1 OPTIONS");
    headers.push(Name::Contact, NameAddr::new(Uri::at(Some("tandem"), path.local())).to_string());
    headers.push(Name::Accept, super::super::reply::SDP);
    headers.push(Name::UserAgent, wire.config.user_agent.clone());
    request
}
