//! Legs that a peer begins: INVITE in, and how we answer it (RFC 3261 section 13.3).
//!
//! Invariant: every INVITE that made a leg gets exactly one final answer; a 200 is repeated until its
//! ACK comes, and without one the call ends after 64*T1.

use bytes::Bytes;

use super::caller::new_leg;
use super::cause::{self, code_of, reason_of};
use super::dialog::reliable::{OPTION, Reliable};
use super::dialog::{Dialog, contact};
use super::header::{NameAddr, split_list};
use super::leg::{LegTimer, Stage, Unacked};
use super::message::{Headers, Name, Request};
use super::reply::{ALLOW, SUPPORTED, reread};
use super::transaction::timer::{T1_MS, T2_MS};
use super::uri::Uri;
use super::wire::with_sdp;
use super::{Event, Identity, Invited, Path, Sip};
use crate::fact::{Cause, Party};
use crate::terms::{LegId, Now};

/// The longest name or number taken from a peer, characters.
const MAX_TEXT: usize = 64;
/// The most identities taken from one INVITE.
const MAX_IDENTITIES: usize = 16;

/// Headers that may say who calls.
const IDENTITIES: [&str; 6] =
    ["From", "P-Asserted-Identity", "P-Preferred-Identity", "Remote-Party-ID", "Diversion", "History-Info"];

impl Sip {
    /// A call comes in from a party that is known.
    pub(crate) fn invited(
        &mut self,
        request: &Request,
        key: String,
        path: Path,
        party: Party,
        instance: String,
        now: Now,
    ) {
        // A party replaces only what is his own (RFC 3891 section 5).
        let own = |id: &LegId| self.legs.get(*id).is_some_and(|leg| leg.party == party);
        let replaces = match self.replaces(&request.headers) {
            Ok(None) => None,
            Ok(Some(other)) if own(&other) => Some(other),
            Ok(Some(_)) => return self.refuse(request, &path, 481),
            Err(code) => return self.refuse(request, &path, code),
        };
        let id = self.new_leg();
        let tag = self.wire.new_tag(id);
        let Some(dialog) = Dialog::incoming(request, tag) else {
            return self.refuse(request, &path, 400);
        };
        let server = self.wire.tx.accept(request, key, path, Some(id));
        let mut leg = new_leg(id, party.clone(), instance, path, dialog, Stage::Invited { server });
        leg.remote_sdp = request.body.clone();
        leg.reliable = Reliable::of(request);
        // RFC 3261 section 13.3.1.1: at once, so that the INVITE is not sent again.
        self.wire.answer_plainly(&leg, server, 100, now);
        self.legs.insert(leg);
        self.follow_route(id);
        let headers = &request.headers;
        let identities = identities(headers);
        let display = identities.iter().find(|one| one.header == "From").map(|one| one.display.clone());
        self.wire.tell(Event::Invited(Box::new(Invited {
            leg: id,
            from: party,
            path,
            to_user: Uri::read(&request.uri)
                .ok()
                .and_then(|uri| uri.user_text())
                .map(cut)
                .unwrap_or_default(),
            dialled: headers.to().ok().and_then(|to| to.uri.user_text()).map(cut).unwrap_or_default(),
            display: display.unwrap_or_default(),
            private: is_private(headers),
            identities,
            sdp: request.body.clone(),
            replaces,
        })));
    }

    /// 180, or 183 with sound.
    pub(crate) fn ring(&mut self, id: LegId, sdp: &Bytes, now: Now) {
        let code = if sdp.is_empty() { 180 } else { 183 };
        self.provisional(id, code, sdp, now);
    }

    /// A provisional answer goes out, with its number if it must arrive.
    pub(crate) fn send_18x(&mut self, id: LegId, code: u16, sdp: &Bytes, rseq: Option<u32>, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Stage::Invited { server } = leg.stage else { return };
        let Some(mut response) = self.wire.response(leg, server, code) else { return };
        response.headers.push(Name::Contact, contact(&leg.home));
        response.headers.push(Name::Allow, ALLOW);
        response.headers.push(Name::Supported, SUPPORTED);
        if let Some(rseq) = rseq {
            response.headers.push(Name::Require, OPTION);
            response.headers.push(Name::RSeq, rseq.to_string());
        }
        if !sdp.is_empty() {
            leg.local_sdp = sdp.clone();
            with_sdp(&mut response.headers, &mut response.body, sdp);
        }
        self.wire.answer(leg, server, &response, now);
    }

    /// 200.
    pub(crate) fn answer_call(&mut self, id: LegId, sdp: &Bytes, now: Now) {
        if self.answer_waits(id, sdp) {
            return;
        }
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Stage::Invited { server } = leg.stage else { return };
        self.wire.disarm(leg, &[LegTimer::Reprovision, LegTimer::Unpracked]);
        let kept = self.wire.tx.incoming(server).map(|incoming| incoming.request.clone());
        let Some(request) = kept.as_ref().and_then(reread) else { return };
        // An offer that was answered in a PRACK is not made again: it would ask for another answer.
        let none = Bytes::new();
        let sdp = if leg.reliable.agreed { &none } else { sdp };
        let response = self.wire.success(leg, &request, sdp);
        if !sdp.is_empty() {
            leg.local_sdp = sdp.clone();
        }
        leg.stage = Stage::Up;
        let cseq = request.headers.cseq().map_or(0, |(number, _)| number);
        let offers = request.body.is_empty() && !leg.reliable.agreed;
        let unacked = Unacked { bytes: response.to_bytes(), cseq, wait_ms: T1_MS, change: false, offers };
        self.wire.send_200(leg, server, &response, unacked, now);
        self.wire.arm_refresh(leg, now);
    }

    /// A final refusal.
    pub(crate) fn reject(&mut self, id: LegId, code: u16, why: Cause, by_peer: bool, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Stage::Invited { server } = leg.stage else { return };
        let code = if (300..700).contains(&code) { code } else { 480 };
        if let Some(mut response) = self.wire.response(leg, server, code) {
            let (name, value) = reason_of(&why);
            response.headers.push(name, value);
            self.wire.answer(leg, server, &response, now);
        }
        self.wire.end(leg, why, by_peer);
        self.remove(id);
    }

    /// The call centre ends a leg, whatever its state.
    pub(crate) fn hang_up(&mut self, id: LegId, why: Cause, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        if leg.over {
            return;
        }
        match leg.stage {
            Stage::Calling { .. } => self.give_up(id, 487, why, super::Way::Cancelled, now),
            Stage::Invited { .. } => {
                let code = if why.sip >= 300 { why.sip } else { code_of(why.q850) };
                self.reject(id, code, why, false, now);
            }
            Stage::Up => self.wire.leave(leg, why, false, now),
            Stage::Leaving => {}
        }
    }

    /// CANCEL came for the INVITE of this leg.
    pub(crate) fn cancelled(&mut self, id: LegId, headers: &Headers, now: Now) {
        let why = cause::of_headers(headers, 487, 16);
        self.reject(id, 487, why, true, now);
    }

    /// The ACK to a 200 of ours came.
    pub(crate) fn acknowledged(&mut self, id: LegId, number: u32, body: &Bytes, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        if leg.unacked.as_ref().is_none_or(|unacked| unacked.cseq != number) {
            return;
        }
        let Some(unacked) = leg.unacked.take() else { return };
        self.wire.disarm(leg, &[LegTimer::Repeat, LegTimer::Unacked]);
        if unacked.change {
            return self.change_confirmed(id, &unacked, body, now);
        }
        if leg.over {
            // We wanted to leave before; only now may BYE be sent.
            return self.wire.bye(leg, now);
        }
        let sdp = (!body.is_empty()).then(|| body.clone());
        if let Some(sdp) = &sdp {
            leg.remote_sdp = sdp.clone();
        }
        self.wire.tell(Event::Confirmed { leg: id, sdp });
        self.wire.try_change(leg, now);
    }

    /// Our 200 is sent again (RFC 3261 section 13.3.1.4: over any transport).
    pub(crate) fn repeat_200(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let way = leg.way();
        let Some(unacked) = &mut leg.unacked else { return };
        unacked.wait_ms = unacked.wait_ms.saturating_mul(2).min(T2_MS);
        let (wait_ms, bytes) = (unacked.wait_ms, unacked.bytes.clone());
        if let Some(path) = way {
            self.wire.tx.send(path, bytes);
        }
        self.wire.arm(leg, LegTimer::Repeat, wait_ms, now);
    }

    /// The ACK never came: RFC 3261 sections 13.3.1.4 and 14.2 end the call.
    pub(crate) fn never_acknowledged(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        leg.unacked = None;
        self.wire.disarm(leg, &[LegTimer::Repeat]);
        let mut why = cause::cause(102, 408);
        "our answer was never acknowledged".clone_into(&mut why.words);
        if leg.over {
            self.wire.bye(leg, now);
        } else {
            self.wire.leave(leg, why, true, now);
        }
    }
}

/// Everything that may say who calls, in message order.
fn identities(headers: &Headers) -> Vec<Identity> {
    let mut found = Vec::new();
    for header in headers.iter() {
        let spelled = header.name().as_bytes();
        let known = IDENTITIES.iter().find(|known| known.as_bytes().eq_ignore_ascii_case(spelled));
        let Some(known) = known else { continue };
        for value in split_list(header.value()) {
            let Ok(address) = NameAddr::read(value) else { continue };
            // Remote-Party-ID may name either end (draft-ietf-sip-privacy-04 section 5).
            if address.params.get("party").is_some_and(|party| !party.eq_ignore_ascii_case("calling")) {
                continue;
            }
            if found.len() < MAX_IDENTITIES {
                let user = cut(address.uri.user_text().unwrap_or_default());
                let display = cut(address.display.unwrap_or_default());
                found.push(Identity { header: (*known).to_owned(), user, display });
            }
        }
    }
    found
}

/// RFC 3323 and RFC 3325: the caller wants not to be shown.
fn is_private(headers: &Headers) -> bool {
    let asked = headers.all(&Name::Privacy).any(|value| {
        value
            .split(|b| matches!(b, b';' | b','))
            .any(|one| !one.trim_ascii().is_empty() && !one.trim_ascii().eq_ignore_ascii_case(b"none"))
    });
    let party = headers.all(&Name::RemotePartyId).any(|value| {
        let value = value.to_ascii_lowercase();
        value.windows(12).any(|part| part == b"privacy=full")
    });
    let anonymous = headers.from().ok().and_then(|from| from.uri.user_text());
    asked || party || anonymous.is_some_and(|user| user.eq_ignore_ascii_case("anonymous"))
}

/// Cut to what a desk can show, without what could reorder or hide it.
fn cut(text: String) -> String {
    let bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().filter(|c| !bad(*c)).take(MAX_TEXT).collect()
}
