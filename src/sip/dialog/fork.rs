//! Early dialogs of our INVITE: several phones may ring for it, each with its own tag, numbers, route and
//! sound (RFC 3261 section 12.1, RFC 3262 section 4).
//!
//! Invariant: the leg speaks in one of them, the one that was heard last; what one fork said (its
//! description, the number of its last provisional answer) never passes for another's.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::leg::{Leg, Stage};
use super::super::message::{Headers, Method, Name, Response};
use super::super::transaction::Purpose;
use super::super::wire::Wire;
use super::Dialog;
use super::reliable::OPTION;
use crate::terms::Now;

/// Forks of one INVITE that are kept in mind.
pub(crate) const MAX_FORKS: usize = 8;

/// What one fork said before the answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Early {
    /// The number of its last provisional answer that we confirmed.
    rseq: Option<u32>,
    /// The description it gave.
    pub(crate) sdp: Bytes,
    /// Whether it gave it reliably, so that it may be changed before the answer.
    pub(crate) agreed: bool,
}

impl Early {
    /// Whether a reliable answer is the next one; repeats and those out of order are ignored
    /// (RFC 3262 section 4).
    fn takes(&mut self, rseq: u32) -> bool {
        let next = self.rseq.is_none_or(|last| last.checked_add(1) == Some(rseq));
        if next {
            self.rseq = Some(rseq);
        }
        next
    }
}

/// A fork that is not spoken to just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fork {
    pub(crate) dialog: Dialog,
    early: Early,
}

impl Leg {
    /// Turns to the fork that an answer to our INVITE comes from; `false` when there are too many.
    pub(crate) fn focus(&mut self, headers: &Headers) -> bool {
        let tag = headers.to().ok().and_then(|to| to.tag().map(str::to_owned)).unwrap_or_default();
        let known = self.dialog.remote_tag.is_empty() || self.dialog.remote_tag == tag || self.turn_to(&tag);
        if !known {
            if self.forks.len() >= MAX_FORKS {
                return false;
            }
            let fresh = Fork { dialog: self.dialog.sibling(), early: Early::default() };
            self.forks.push(fresh);
            self.swap(self.forks.len().saturating_sub(1));
        }
        self.dialog.learn(headers);
        true
    }

    /// Turns to the fork with this tag, if it is known.
    pub(crate) fn turn_to(&mut self, tag: &str) -> bool {
        let found = self.forks.iter().position(|fork| fork.dialog.remote_tag == tag);
        found.is_some_and(|at| self.swap(at))
    }

    fn swap(&mut self, at: usize) -> bool {
        let Some(fork) = self.forks.get_mut(at) else { return false };
        std::mem::swap(&mut fork.dialog, &mut self.dialog);
        std::mem::swap(&mut fork.early, &mut self.early);
        true
    }

    /// The fork that we speak with is gone: on with another.
    pub(crate) fn forget_fork(&mut self) {
        if let Some(other) = self.forks.pop() {
            (self.dialog, self.early) = (other.dialog, other.early);
        }
    }

    /// The INVITE is sent anew: nobody has said anything to it.
    pub(crate) fn begin_again(&mut self) {
        self.dialog.remote_tag.clear();
        (self.early, self.forks) = (Early::default(), Vec::new());
    }

    /// Whether a request with this tag of the peer's is for one of the dialogs.
    pub(crate) fn has_tag(&self, tag: &str) -> bool {
        self.dialog.remote_tag == tag || self.forks.iter().any(|fork| fork.dialog.remote_tag == tag)
    }
}

impl Wire {
    /// Confirms a provisional answer that asks for it. `false`: it came before, or too early, and says
    /// nothing (RFC 3262 section 4).
    pub(crate) fn confirm(&mut self, leg: &mut Leg, response: &Response, now: Now) -> bool {
        let rseq = response.headers.rseq().ok().flatten();
        let Some(rseq) = rseq.filter(|_| response.headers.lists(&Name::Require, OPTION)) else { return true };
        if !matches!(leg.stage, Stage::Calling { .. }) || !leg.early.takes(rseq) {
            return false;
        }
        leg.early.agreed |= !response.body.is_empty();
        let mut prack = self.request(leg, Method::Prack);
        prack.headers.push(Name::RAck, format!("{rseq} {} INVITE", leg.dialog.invite_cseq));
        self.ask(leg, prack, Purpose::Prack, now);
        true
    }
}
