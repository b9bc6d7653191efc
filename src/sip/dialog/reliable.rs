//! Provisional answers of ours that must arrive: numbered, repeated and confirmed by PRACK (RFC 3262
//! section 3), towards callers that take or want them.
//!
//! Invariant: at most one waits for its PRACK; later ones, and an answer whose description hangs on it,
//! wait behind. No number is given twice, also over a restore: there no new one is given any more, because
//! the caller ignores every number but the next, and which one that is went with the last records.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::cause::cause;
use super::super::leg::{LegTimer, Stage};
use super::super::message::{Headers, Method, Name, Request};
use super::super::reply::respond;
use super::super::transaction::timer::{GIVE_UP_MS, T1_MS};
use super::super::{Event, Sip};
use crate::terms::{LegId, Now};

/// The most provisional answers that wait for their turn; the newest counts.
const MAX_QUEUED: usize = 4;
/// How many numbers the writer may have given after its last record: their PRACKs are welcome.
const RSEQ_GAP: u32 = 100;
/// The extension's name.
pub(crate) const OPTION: &str = "100rel";

/// What a caller does about provisional answers that must arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Wish {
    /// He does not know them.
    #[default]
    None,
    /// He takes them.
    May,
    /// He takes no others.
    Must,
}

impl Wish {
    /// What an INVITE says.
    pub(crate) fn of(invite: &Headers) -> Self {
        if invite.lists(&Name::Require, OPTION) {
            Self::Must
        } else if invite.lists(&Name::Supported, OPTION) {
            Self::May
        } else {
            Self::None
        }
    }
}

/// The one that waits for its PRACK.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pending {
    rseq: u32,
    wait_ms: u64,
    /// Whether a description hangs on it.
    sdp: bool,
}

/// The reliable answers of one leg.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Reliable {
    wish: Wish,
    /// CSeq of the INVITE.
    invite: u32,
    /// The last number given; 0 before the first.
    rseq: u32,
    pending: Option<Pending>,
    /// What is to be sent next, as status and description.
    queue: Vec<(u16, Bytes)>,
    /// Our 200 that must wait.
    answer: Option<Bytes>,
    /// Whether our offer and its answer have passed before the 200.
    pub(crate) agreed: bool,
    /// Whether it was restored from records.
    restored: bool,
}

impl Reliable {
    /// For an INVITE that came.
    pub(crate) fn of(invite: &Request) -> Self {
        let number = invite.headers.cseq().map_or(0, |(number, _)| number);
        Self { wish: Wish::of(&invite.headers), invite: number, ..Self::default() }
    }

    /// Gives no new number from now on.
    pub(crate) fn jump(&mut self) {
        self.restored = true;
    }

    /// Whether a description may be changed before the answer (RFC 3311 section 5.1).
    pub(crate) fn is_settled(&self) -> bool {
        self.rseq > 0 && self.pending.is_none()
    }

    fn confirms(&self, rseq: u32) -> bool {
        let lost = self.restored && rseq > self.rseq && rseq <= self.rseq.saturating_add(RSEQ_GAP);
        lost || self.pending.as_ref().is_some_and(|pending| pending.rseq == rseq)
    }
}

impl Sip {
    /// 180 or 183 to an incoming leg, in the manner that its caller knows.
    pub(crate) fn provisional(&mut self, id: LegId, code: u16, sdp: &Bytes, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let reliable = &mut leg.reliable;
        if reliable.answer.is_some() {
            return;
        }
        match reliable.wish {
            // An offer of ours can travel only in what will arrive.
            Wish::None if leg.remote_sdp.is_empty() => self.send_18x(id, 180, &Bytes::new(), None, now),
            Wish::None => self.send_18x(id, code, sdp, None, now),
            Wish::May if reliable.restored => self.send_18x(id, 180, &Bytes::new(), None, now),
            // Nothing at all is better than what the caller must refuse; the answer itself will tell.
            Wish::Must if reliable.restored => {}
            Wish::May | Wish::Must if reliable.pending.is_some() => {
                reliable.queue.truncate(MAX_QUEUED.saturating_sub(1));
                reliable.queue.push((code, sdp.clone()));
            }
            Wish::May | Wish::Must => self.send_numbered(id, code, sdp, now),
        }
    }

    fn send_numbered(&mut self, id: LegId, code: u16, sdp: &Bytes, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let last = leg.reliable.rseq;
        // RFC 3262 section 3: the first is random, below 2^31.
        let first = u32::try_from(self.wire.entropy.below(0x3fff_ffff)).unwrap_or(0);
        let rseq = if last == 0 { first } else { last }.saturating_add(1);
        leg.reliable.rseq = rseq;
        leg.reliable.pending = Some(Pending { rseq, wait_ms: T1_MS, sdp: !sdp.is_empty() });
        self.wire.arm(leg, LegTimer::Reprovision, T1_MS, now);
        self.wire.arm(leg, LegTimer::Unpracked, GIVE_UP_MS, now);
        self.send_18x(id, code, sdp, Some(rseq), now);
    }

    /// No PRACK yet: once more (RFC 3262 section 3: over any transport, the pause doubling).
    pub(crate) fn repeat_18x(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Stage::Invited { server } = leg.stage else { return };
        let Some(pending) = &mut leg.reliable.pending else { return };
        pending.wait_ms = pending.wait_ms.saturating_mul(2);
        let wait_ms = pending.wait_ms;
        self.wire.tx.again(server, now);
        self.wire.arm(leg, LegTimer::Reprovision, wait_ms, now);
    }

    /// The PRACK never came: the caller is refused.
    pub(crate) fn never_confirmed(&mut self, id: LegId, now: Now) {
        let mut why = cause(102, 504);
        "our ringing was never confirmed".clone_into(&mut why.words);
        self.reject(id, 504, why, true, now);
    }

    /// Whether the 200 must wait: its description hangs on a provisional answer without a PRACK
    /// (RFC 3262 section 5). It is sent when that comes.
    pub(crate) fn answer_waits(&mut self, id: LegId, sdp: &Bytes) -> bool {
        let Some(leg) = self.legs.get_mut(id) else { return false };
        let waits = leg.reliable.pending.as_ref().is_some_and(|pending| pending.sdp);
        if waits {
            leg.reliable.answer = Some(sdp.clone());
        }
        leg.reliable.queue.clear();
        waits
    }

    /// A PRACK came.
    pub(crate) fn prack_came(&mut self, id: LegId, server: u64, request: &Request, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let rack = request.headers.rack().ok().flatten();
        let fits = rack.as_ref().is_some_and(|rack| {
            rack.method == Method::Invite
                && rack.cseq == leg.reliable.invite
                && leg.reliable.confirms(rack.rseq)
        });
        if !fits || leg.over {
            return self.wire.answer_plainly(leg, server, 481, now);
        }
        let said = leg.reliable.pending.take().is_some_and(|pending| pending.sdp);
        leg.reliable.rseq = rack.map_or(leg.reliable.rseq, |rack| rack.rseq.max(leg.reliable.rseq));
        self.wire.disarm(leg, &[LegTimer::Reprovision, LegTimer::Unpracked]);
        let sdp = &request.body;
        if leg.remote_sdp.is_empty() && said && !sdp.is_empty() {
            leg.remote_sdp = sdp.clone();
            leg.reliable.agreed = true;
            self.wire.answer_plainly(leg, server, 200, now);
            self.wire.tell(Event::PreAnswered { leg: id, sdp: sdp.clone() });
        } else if !sdp.is_empty() && !leg.local_sdp.is_empty() && leg.changes.is_idle() {
            leg.changes.theirs_waits(server);
            self.wire.tell(Event::Offered { leg: id, sdp: Some(sdp.clone()) });
        } else {
            self.wire.answer_plainly(leg, server, 200, now);
        }
        self.next_provisional(id, now);
    }

    /// What waited behind the confirmed one.
    fn next_provisional(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        if !matches!(leg.stage, Stage::Invited { .. }) {
            return;
        }
        if let Some(sdp) = leg.reliable.answer.take() {
            return self.answer_call(id, &sdp, now);
        }
        if !leg.reliable.queue.is_empty() {
            let (code, sdp) = leg.reliable.queue.remove(0);
            self.send_numbered(id, code, &sdp, now);
        }
    }

    /// 200 to a PRACK that held an offer.
    pub(crate) fn answer_prack(&mut self, id: LegId, server: u64, request: &Request, sdp: &Bytes, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let mut response = respond(request, 200, &leg.dialog.local_tag);
        leg.remote_sdp = request.body.clone();
        leg.local_sdp = sdp.clone();
        super::super::wire::with_sdp(&mut response.headers, &mut response.body, sdp);
        self.wire.answer(leg, server, &response, now);
    }
}
