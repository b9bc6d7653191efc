//! What a leg's steps are made of: requests sent, answers given, timers set, events told.
//!
//! Invariant: `Failed` or `Ended` is told once a leg, here and nowhere else.

use bytes::Bytes;

use super::cause::reason_of;
use super::dialog::Dialog;
use super::entropy::Entropy;
use super::leg::{Leg, LegTimer, Stage};
use super::message::{Method, Name, Request, Response};
use super::reply::{SDP, reread, respond};
use super::transaction::{Purpose, Transactions, Wake, stamp};
use super::{Config, Event, Path, Way};
use crate::fact::Cause;
use crate::terms::{LegId, Now};

/// The leg of requests that belong to none: ids begin at 1.
const NO_LEG: LegId = LegId(0);

/// The machine without its legs.
#[derive(Debug)]
pub(crate) struct Wire {
    /// As told at the start.
    pub(crate) config: Config,
    /// Transactions, timers, outputs.
    pub(crate) tx: Transactions,
    /// Tags and branches.
    pub(crate) entropy: Entropy,
    /// Octets of the message that is being answered, as they came.
    pub(crate) asked_len: usize,
}

impl Wire {
    /// Tells the call centre.
    pub(crate) fn tell(&mut self, event: Event) {
        self.tx.out.push_back(super::Output::Event(event));
    }

    /// Counts a message that was dropped.
    pub(crate) fn drop_it(&mut self, why: &'static str) {
        self.tx.out.push_back(super::Output::Dropped(why));
    }

    /// A new local tag: it names the leg, so that its messages find it.
    pub(crate) fn new_tag(&mut self, leg: LegId) -> String {
        format!("{:x}.{}", leg.0, self.entropy.word())
    }

    /// Sets a timer of a leg.
    pub(crate) fn arm(&mut self, leg: &mut Leg, timer: LegTimer, wait_ms: u64, now: Now) {
        let id = leg.id;
        let at = now.mono_ms.saturating_add(wait_ms);
        self.tx.alarms.arm(&mut leg.armed, timer, at, |timer| Wake::Leg(id, timer));
    }

    /// Stops timers of a leg.
    pub(crate) fn disarm(&mut self, leg: &mut Leg, timers: &[LegTimer]) {
        let id = leg.id;
        for timer in timers {
            self.tx.alarms.disarm(&mut leg.armed, *timer, |timer| Wake::Leg(id, timer));
        }
    }

    /// Stops all timers of a leg.
    pub(crate) fn forget(&mut self, leg: &Leg) {
        let id = leg.id;
        self.tx.alarms.forget(&leg.armed, |timer| Wake::Leg(id, timer));
    }

    /// Sends a request of a leg, or parks it; returns its transaction.
    pub(crate) fn ask(&mut self, leg: &Leg, request: Request, purpose: Purpose, now: Now) -> u64 {
        self.tx.begin(request, leg.way(), &leg.home, (leg.id, purpose), &mut self.entropy, now)
    }

    /// Sends a request that belongs to no leg; returns its transaction.
    pub(crate) fn ask_apart(&mut self, request: Request, path: Path, purpose: Purpose, now: Now) -> u64 {
        self.tx.begin(request, Some(path), &path, (NO_LEG, purpose), &mut self.entropy, now)
    }

    /// A request within the leg's dialog.
    pub(crate) fn request(&mut self, leg: &mut Leg, method: Method) -> Request {
        leg.dialog.request(method, &leg.home, &self.config)
    }

    /// Acknowledges a 2xx to our INVITE number `number`.
    pub(crate) fn ack(&mut self, leg: &mut Leg, number: u32) {
        let bytes = self.ack_bytes(&leg.dialog, number, &leg.home);
        leg.ack = Some((number, bytes.clone()));
        if let Some(path) = leg.way() {
            self.tx.send(path, bytes);
        }
    }

    fn ack_bytes(&mut self, dialog: &Dialog, number: u32, home: &Path) -> Bytes {
        let mut ack = dialog.ack(number, home, &self.config);
        // A 2xx is acknowledged outside the INVITE's transaction, by a branch of its own.
        let branch = format!("z9hG4bK-ack-{}", self.entropy.word());
        stamp(&mut ack, home, &branch);
        ack.to_bytes()
    }

    /// A fork that answered although another was taken: ACK and BYE (RFC 3261 section 13.2.2.4).
    pub(crate) fn send_away(&mut self, dialog: &mut Dialog, leg: LegId, home: Path, now: Now) {
        let bytes = self.ack_bytes(dialog, dialog.invite_cseq, &home);
        self.tx.send(home, bytes);
        let bye = dialog.request(Method::Bye, &home, &self.config);
        self.tx.begin(bye, Some(home), &home, (leg, Purpose::End), &mut self.entropy, now);
    }

    /// Sends BYE, now or when the ACK to our 200 has come (RFC 3261 section 15).
    pub(crate) fn bye(&mut self, leg: &mut Leg, now: Now) {
        if leg.unacked.as_ref().is_some_and(|unacked| !unacked.change) {
            return;
        }
        self.drop_their_change(leg, now);
        let mut bye = self.request(leg, Method::Bye);
        let why = leg.why.clone().unwrap_or_default();
        let (name, value) = reason_of(&why);
        bye.headers.push(name, value);
        self.ask(leg, bye, Purpose::End, now);
        leg.unacked = None;
        leg.stage = Stage::Leaving;
        self.disarm(
            leg,
            &[LegTimer::Repeat, LegTimer::Unacked, LegTimer::Refresh, LegTimer::Expire, LegTimer::Retry],
        );
    }

    /// An answer to a request of the leg.
    pub(crate) fn response(&self, leg: &Leg, server: u64, code: u16) -> Option<Response> {
        let request = self.tx.incoming(server).and_then(|incoming| reread(&incoming.request))?;
        let mut response = respond(&request, code, &leg.dialog.local_tag);
        response.headers.push(Name::Server, self.config.user_agent.clone());
        Some(response)
    }

    /// Gives an answer; to where the phone is now, if its socket changed.
    pub(crate) fn answer(&mut self, leg: &Leg, server: u64, response: &Response, now: Now) {
        let moved = leg.way().filter(|way| way.is_reliable());
        self.tx.answer(server, response, moved, now);
    }

    /// Gives an answer that needs nothing but its status.
    pub(crate) fn answer_plainly(&mut self, leg: &Leg, server: u64, code: u16, now: Now) {
        if let Some(response) = self.response(leg, server, code) {
            self.answer(leg, server, &response, now);
        }
    }

    /// The leg did not come up.
    pub(crate) fn fail(&mut self, leg: &mut Leg, code: u16, cause: Cause, way: Way) {
        if !std::mem::replace(&mut leg.over, true) {
            self.tell(Event::Failed { leg: leg.id, code, cause, way });
        }
    }

    /// The leg is over.
    pub(crate) fn end(&mut self, leg: &mut Leg, cause: Cause, by_peer: bool) {
        if !std::mem::replace(&mut leg.over, true) {
            self.tell(Event::Ended { leg: leg.id, cause, by_peer });
        }
    }

    /// We end an answered leg: told at once, BYE as soon as allowed.
    pub(crate) fn leave(&mut self, leg: &mut Leg, cause: Cause, by_peer: bool, now: Now) {
        leg.why.get_or_insert_with(|| cause.clone());
        self.end(leg, cause, by_peer);
        if leg.stage == Stage::Up {
            self.bye(leg, now);
        }
    }
}

/// Puts a description into a message's body.
pub(crate) fn with_sdp(headers: &mut super::message::Headers, body: &mut Bytes, sdp: &Bytes) {
    headers.set(Name::ContentType, SDP);
    *body = sdp.clone();
}
