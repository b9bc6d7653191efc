//! Changes within a call: re-INVITE and UPDATE, ours and theirs, and the session's refreshes, which are
//! answered here and never reach the call centre (RFC 3261 section 14, RFC 3311, RFC 4028).
//!
//! Invariant: at most one change is under way in a dialog; ours waits for its turn, theirs gets 491 (ours
//! is out) or 500 with Retry-After (theirs is). A refused change leaves the call as it was.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::cause::{self, cause};
use super::super::leg::{Leg, LegTimer, Stage, Unacked};
use super::super::message::{Method, Name, Request, Response};
use super::super::reply::{ALLOW, SUPPORTED, respond};
use super::super::transaction::timer::{GIVE_UP_MS, T1_MS};
use super::super::transaction::{Heard, Purpose};
use super::super::wire::{Wire, with_sdp};
use super::super::{Event, Sip};
use super::contact;
use super::refresh::Refresh;
use crate::terms::{LegId, Now};

/// How often a change that met theirs is tried again.
const MAX_TRIES: u8 = 10;
/// How long a refresh waits for a phone that has no socket, before it looks again.
const LOOK_AGAIN_MS: u64 = 10_000;

/// What we change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// The call centre's offer, by re-INVITE.
    Offer,
    /// A refresh by re-INVITE with the description as it stands.
    Reinvite,
    /// A refresh by UPDATE without one.
    Update,
}

/// Our change on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ours {
    client: u64,
    kind: Kind,
    cseq: u32,
    sdp: Bytes,
}

/// Their change that waits for the call centre.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Theirs {
    server: u64,
}

/// Changes of one leg.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Changes {
    /// Our offer that waits for its turn.
    waiting: Option<Bytes>,
    ours: Option<Ours>,
    theirs: Option<Theirs>,
    /// How often ours met theirs, or asked for too short a session.
    tries: u8,
    /// Whether it is a refresh that waits after it met theirs.
    refresh_waits: bool,
}

impl Changes {
    /// Our change was sent again under another number.
    pub(crate) fn asked_again(&mut self, client: u64, cseq: u32) {
        if let Some(ours) = &mut self.ours {
            (ours.client, ours.cseq) = (client, cseq);
        }
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.ours.is_none() && self.theirs.is_none()
    }

    /// Their offer waits for the call centre.
    pub(crate) fn theirs_waits(&mut self, server: u64) {
        self.theirs = Some(Theirs { server });
    }
}

impl Wire {
    /// Runs the session timer from now.
    pub(crate) fn arm_refresh(&mut self, leg: &mut Leg, now: Now) {
        self.disarm(leg, &[LegTimer::Refresh, LegTimer::Expire]);
        if leg.is_up() {
            let (timer, wait_ms) = leg.refresh.wait();
            self.arm(leg, timer, wait_ms, now);
        }
    }

    /// Sends our waiting offer if the dialog allows it now.
    pub(crate) fn try_change(&mut self, leg: &mut Leg, now: Now) {
        let changes = &leg.changes;
        let busy = changes.ours.is_some() || changes.theirs.is_some() || leg.unacked.is_some();
        if !leg.is_up() || busy || leg.armed.at(LegTimer::Retry).is_some() {
            return;
        }
        if let Some(sdp) = leg.changes.waiting.take() {
            self.reinvite(leg, Kind::Offer, sdp, now);
        }
    }

    fn reinvite(&mut self, leg: &mut Leg, kind: Kind, sdp: Bytes, now: Now) {
        let mut invite = self.request(leg, Method::Invite);
        leg.refresh.repeat(&mut invite.headers, &self.config);
        with_sdp(&mut invite.headers, &mut invite.body, &sdp);
        let cseq = leg.dialog.invite_cseq;
        let client = self.ask(leg, invite, Purpose::Change, now);
        leg.changes.ours = Some(Ours { client, kind, cseq, sdp });
    }

    /// A 200 to an INVITE: repeated until its ACK comes (RFC 3261 section 13.3.1.4).
    pub(crate) fn send_200(
        &mut self,
        leg: &mut Leg,
        server: u64,
        response: &Response,
        unacked: Unacked,
        now: Now,
    ) {
        self.answer(leg, server, response, now);
        leg.unacked = Some(unacked);
        self.arm(leg, LegTimer::Repeat, T1_MS, now);
        self.arm(leg, LegTimer::Unacked, GIVE_UP_MS, now);
    }

    /// A 2xx to an INVITE or UPDATE of the peer, with what a dialog and a session timer need.
    pub(crate) fn success(&mut self, leg: &mut Leg, request: &Request, sdp: &Bytes) -> Response {
        let mut response = respond(request, 200, &leg.dialog.local_tag);
        response.headers.push(Name::Contact, contact(&leg.home));
        response.headers.push(Name::Allow, ALLOW);
        response.headers.push(Name::Supported, SUPPORTED);
        leg.refresh.answer(&request.headers, &mut response.headers, &self.config);
        response.headers.push(Name::Server, self.config.user_agent.clone());
        if !sdp.is_empty() {
            with_sdp(&mut response.headers, &mut response.body, sdp);
        }
        response
    }

    fn accept_change(&mut self, leg: &mut Leg, server: u64, request: &Request, sdp: &Bytes, now: Now) {
        let response = self.success(leg, request, sdp);
        leg.dialog.retarget(&request.headers);
        if !sdp.is_empty() {
            leg.local_sdp = sdp.clone();
            if !request.body.is_empty() {
                leg.remote_sdp = request.body.clone();
            }
        }
        if request.method == Method::Invite {
            let cseq = request.headers.cseq().map_or(0, |(number, _)| number);
            let offers = request.body.is_empty();
            let unacked = Unacked { bytes: response.to_bytes(), cseq, wait_ms: T1_MS, change: true, offers };
            self.send_200(leg, server, &response, unacked, now);
        } else {
            self.answer(leg, server, &response, now);
        }
        self.arm_refresh(leg, now);
    }

    /// We leave while their change still waits: it is not answered any more.
    pub(crate) fn drop_their_change(&mut self, leg: &mut Leg, now: Now) {
        if let Some(theirs) = leg.changes.theirs.take() {
            self.answer_plainly(leg, theirs.server, 487, now);
        }
    }

    fn refuse_with_pause(&mut self, leg: &Leg, server: u64, now: Now) {
        if let Some(mut response) = self.response(leg, server, 500) {
            // RFC 3261 section 14.2: a random time of up to ten seconds.
            response.headers.push(Name::RetryAfter, self.entropy.below(11).to_string());
            self.answer(leg, server, &response, now);
        }
    }
}

impl Sip {
    /// The call centre wants a change.
    pub(crate) fn offer(&mut self, id: LegId, sdp: Bytes, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        if !leg.over {
            leg.changes.waiting = Some(sdp);
            self.wire.try_change(leg, now);
        }
    }

    /// The call centre answers their change.
    pub(crate) fn answer_change(&mut self, id: LegId, sdp: &Bytes, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Some(theirs) = leg.changes.theirs.take() else { return };
        let kept = self.wire.tx.incoming(theirs.server).map(|incoming| incoming.request.clone());
        if let Some(request) = kept.as_ref().and_then(super::super::reply::reread) {
            if request.method == Method::Prack {
                return self.answer_prack(id, theirs.server, &request, sdp, now);
            }
            self.wire.accept_change(leg, theirs.server, &request, sdp, now);
        }
        self.wire.try_change(leg, now);
    }

    /// The call centre refuses their change.
    pub(crate) fn refuse_change(&mut self, id: LegId, code: u16, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Some(theirs) = leg.changes.theirs.take() else { return };
        let code = if (300..700).contains(&code) { code } else { 488 };
        self.wire.answer_plainly(leg, theirs.server, code, now);
        self.wire.try_change(leg, now);
    }

    /// A re-INVITE or UPDATE came.
    pub(crate) fn change_asked(&mut self, id: LegId, server: u64, request: &Request, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let is_invite = request.method == Method::Invite;
        let plain = !is_invite && request.body.is_empty();
        if leg.over {
            return self.wire.answer_plainly(leg, server, 481, now);
        }
        if plain {
            // A refresh, also of an early dialog.
            if let Stage::Up = leg.stage {
                self.wire.accept_change(leg, server, request, &Bytes::new(), now);
            } else {
                self.wire.answer_plainly(leg, server, 200, now);
            }
            return;
        }
        let settled = match leg.stage {
            Stage::Up => true,
            // RFC 3311 section 5.1: by UPDATE, once offer and answer have passed reliably.
            Stage::Calling { .. } => !is_invite && leg.early.agreed,
            Stage::Invited { .. } => !is_invite && leg.reliable.is_settled() && !leg.local_sdp.is_empty(),
            Stage::Leaving => false,
        };
        if !settled || leg.changes.ours.as_ref().is_some_and(|ours| ours.kind != Kind::Update) {
            return self.wire.answer_plainly(leg, server, 491, now);
        }
        if leg.unacked.is_some() || leg.changes.theirs.is_some() {
            return self.wire.refuse_with_pause(leg, server, now);
        }
        if !request.body.is_empty() && request.body == leg.remote_sdp && !leg.local_sdp.is_empty() {
            // The same description again: a refresh.
            let sdp = leg.local_sdp.clone();
            return self.wire.accept_change(leg, server, request, &sdp, now);
        }
        leg.changes.theirs = Some(Theirs { server });
        let sdp = (!request.body.is_empty()).then(|| request.body.clone());
        self.wire.tell(Event::Offered { leg: id, sdp });
    }

    /// What became of our change or refresh.
    pub(crate) fn change_heard(&mut self, id: LegId, client: u64, heard: Heard, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let current = leg.changes.ours.as_ref().is_some_and(|ours| ours.client == client);
        match heard {
            Heard::Response(response) if response.code < 200 => {}
            Heard::Response(response) if !current => repeat_ack(&mut self.wire, leg, &response),
            Heard::Response(response) if response.code < 300 => self.change_done(id, &response, now),
            Heard::Response(response) => self.change_refused(id, response.code, &response, now),
            Heard::TimeOut if current => self.change_refused(id, 408, &Response::new(408), now),
            Heard::TimeOut => {}
        }
    }

    fn change_done(&mut self, id: LegId, response: &Response, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Some(ours) = leg.changes.ours.take() else { return };
        leg.changes.tries = 0;
        leg.dialog.retarget(&response.headers);
        leg.refresh.agreed(&response.headers, &self.wire.config);
        if ours.kind != Kind::Update {
            self.wire.ack(leg, ours.cseq);
        }
        if leg.over {
            return;
        }
        self.wire.arm_refresh(leg, now);
        if ours.kind == Kind::Offer {
            leg.local_sdp = ours.sdp;
            leg.remote_sdp = response.body.clone();
            self.wire.tell(Event::ChangeAnswered { leg: id, sdp: response.body.clone() });
        }
        self.wire.try_change(leg, now);
    }

    fn change_refused(&mut self, id: LegId, code: u16, response: &Response, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Some(ours) = leg.changes.ours.take() else { return };
        if leg.over {
            return;
        }
        if ours.kind != Kind::Offer {
            return self.refresh_refused(id, ours.kind, code, response, now);
        }
        // A phone without a socket does not refuse, it cannot answer: the call is not its price.
        if matches!(code, 408 | 481) && !(code == 408 && leg.lost) {
            return self.dialog_is_gone(id, code, response, now);
        }
        let tries = leg.changes.tries;
        if code == 491 && tries < MAX_TRIES {
            leg.changes.waiting.get_or_insert(ours.sdp);
            return self.wait_after_491(id, now);
        }
        if code == 422 && tries < MAX_TRIES && leg.refresh.lengthen(&response.headers) {
            leg.changes.tries = tries.saturating_add(1);
            leg.changes.waiting.get_or_insert(ours.sdp);
            return self.wire.try_change(leg, now);
        }
        self.wire.tell(Event::ChangeRefused { leg: id, code });
        leg.changes.tries = 0;
        self.wire.try_change(leg, now);
    }

    /// The peer does not know this call any more (RFC 3261 section 12.2.1.2, RFC 4028 section 10).
    fn dialog_is_gone(&mut self, id: LegId, code: u16, response: &Response, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let why = cause::of_headers(&response.headers, code, if code == 481 { 41 } else { 102 });
        self.wire.leave(leg, why, true, now);
    }

    /// RFC 3261 section 14.1: he who made the Call-ID waits longer, in units of 10 ms.
    fn wait_after_491(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        leg.changes.tries = leg.changes.tries.saturating_add(1);
        let (least, units) = if leg.outgoing { (2_100, 191) } else { (0, 201) };
        let wait_ms = self.wire.entropy.below(units).saturating_mul(10).saturating_add(least);
        self.wire.arm(leg, LegTimer::Retry, wait_ms.max(1), now);
    }

    /// A refresh failed. Whoever answers lives: only a re-INVITE that meets 481, or silence twice, ends the
    /// call; everything else is tried another way, and again.
    fn refresh_refused(&mut self, id: LegId, kind: Kind, code: u16, response: &Response, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        if code == 408 && leg.lost {
            return self.wire.arm_refresh(leg, now);
        }
        match code {
            491 if leg.changes.tries < MAX_TRIES => {
                leg.changes.refresh_waits = true;
                return self.wait_after_491(id, now);
            }
            // RFC 4028 section 7.4: at once, or the old interval runs out meanwhile.
            422 if leg.changes.tries < MAX_TRIES && leg.refresh.lengthen(&response.headers) => {
                leg.changes.tries = leg.changes.tries.saturating_add(1);
                return self.refresh_due(id, now);
            }
            408 if leg.refresh.silences > 0 => return self.dialog_is_gone(id, code, response, now),
            408 => leg.refresh.silences = leg.refresh.silences.saturating_add(1),
            481 if kind == Kind::Reinvite => return self.dialog_is_gone(id, code, response, now),
            _ => {}
        }
        leg.changes.tries = 0;
        if kind == Kind::Update {
            // Some gateways know no UPDATE and say so in odd ways, also with 481.
            leg.refresh.updates &= !matches!(code, 405 | 420 | 481 | 501);
            return self.refresh_by_reinvite(id, now);
        }
        if code == 408 {
            return self.refresh_by_reinvite(id, now);
        }
        let wait_ms = leg.refresh.pause_ms(response.headers.retry_after());
        self.wire.disarm(leg, &[LegTimer::Expire]);
        self.wire.arm(leg, LegTimer::Refresh, wait_ms, now);
        self.wire.try_change(leg, now);
    }

    fn refresh_by_reinvite(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        if leg.local_sdp.is_empty() {
            return self.wire.arm_refresh(leg, now);
        }
        let sdp = leg.local_sdp.clone();
        self.wire.reinvite(leg, Kind::Reinvite, sdp, now);
    }

    /// Half the session is over: refresh it.
    pub(crate) fn refresh_due(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        if !leg.is_up() {
            return;
        }
        let busy = leg.changes.ours.is_some() || leg.changes.theirs.is_some() || leg.unacked.is_some();
        if leg.lost || busy {
            // A parked refresh would time out and end the call although the sound is fine.
            return self.wire.arm(leg, LegTimer::Refresh, LOOK_AGAIN_MS, now);
        }
        if leg.refresh.updates {
            let mut update = self.wire.request(leg, Method::Update);
            leg.refresh.repeat(&mut update.headers, &self.wire.config);
            let client = self.wire.ask(leg, update, Purpose::Change, now);
            leg.changes.ours = Some(Ours { client, kind: Kind::Update, cseq: 0, sdp: Bytes::new() });
        } else {
            self.refresh_by_reinvite(id, now);
        }
    }

    /// The peer did not refresh in time. A phone without a socket cannot: it gets time to come back.
    pub(crate) fn session_expired(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        if leg.lost && !leg.refresh.graced {
            leg.refresh.graced = true;
            return self.wire.arm(leg, LegTimer::Expire, super::super::transaction::PARK_MS, now);
        }
        if !leg.is_up() {
            return;
        }
        if leg.lost {
            let mut why = cause(102, 408);
            "session was not refreshed".clone_into(&mut why.words);
            return self.wire.leave(leg, why, false, now);
        }
        // Some forget what they promised (RFC 4028 section 10 would end the call): whoever answers lives.
        leg.refresh.by_us = true;
        self.refresh_due(id, now);
    }

    /// The pause after 491 is over.
    pub(crate) fn retry_change(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        self.wire.try_change(leg, now);
        if std::mem::take(&mut leg.changes.refresh_waits) && leg.is_up() {
            self.refresh_due(id, now);
        }
    }

    /// The ACK to our 200 of a re-INVITE came: with our offer in the 200, it holds the answer.
    pub(crate) fn change_confirmed(&mut self, id: LegId, unacked: &Unacked, body: &Bytes, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        if unacked.offers && !body.is_empty() && !leg.over {
            leg.remote_sdp = body.clone();
            self.wire.tell(Event::ChangeAnswered { leg: id, sdp: body.clone() });
        }
        self.wire.try_change(leg, now);
    }
}

/// A repeated 200 means that our ACK was lost.
fn repeat_ack(wire: &mut Wire, leg: &Leg, response: &Response) {
    let number = response.headers.cseq().ok().map(|(number, _)| number);
    if let (Some((acked, bytes)), Some(path)) = (&leg.ack, leg.way())
        && Some(*acked) == number
        && (200..300).contains(&response.code)
    {
        wire.tx.send(path, bytes.clone());
    }
}

/// Lines of a first INVITE that ask for a session timer.
pub(crate) fn ask_timer(request: &mut Request, interval_s: u32, wire: &Wire) {
    Refresh::ask(&mut request.headers, interval_s, &wire.config);
}

impl Wire {
    /// The phone is back: it gets time to refresh the session that it could not.
    pub(crate) fn extend_session(&mut self, leg: &mut Leg, now: Now) {
        let wait_ms = super::super::transaction::PARK_MS;
        let until = now.mono_ms.saturating_add(wait_ms);
        if leg.armed.at(LegTimer::Expire).is_some_and(|at| at < until) {
            self.arm(leg, LegTimer::Expire, wait_ms, now);
        }
    }
}
