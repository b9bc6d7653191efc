//! A leg as SIP keeps it: one dialog with one party from INVITE to BYE, with its timers.
//!
//! ```text
//!  Calling ──2xx──▶ Up ──our BYE──▶ Leaving ──answer──▶ gone
//!  Invited ──200──▶ Up (its ACK may be due)         Calling: cancelled legs wait here for their 487 or 200
//! ```
//! Invariant: `over` is set with the one `Failed` or `Ended` that the call centre hears; what happens to
//! the leg afterwards is between the peer and us.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Path;
use super::dialog::Dialog;
use super::dialog::change::Changes;
use super::dialog::fork::{Early, Fork};
use super::dialog::refer::Referral;
use super::dialog::refresh::Refresh;
use super::dialog::reliable::Reliable;
use super::transaction::timer::Armed;
use crate::fact::{Cause, Party};
use crate::terms::{LegId, MonoMs};

/// The timers of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum LegTimer {
    /// It has rung long enough (timer C).
    Ring,
    /// Nothing at all came back: this way is dead.
    Silent,
    /// A cancelled INVITE got no final answer.
    GiveUp,
    /// Our 200 is sent again.
    Repeat,
    /// The ACK to our 200 never came.
    Unacked,
    /// The session is to be refreshed by us.
    Refresh,
    /// The peer did not refresh the session.
    Expire,
    /// Our change met theirs (491) and is tried again.
    Retry,
    /// Our provisional answer is sent again.
    Reprovision,
    /// The PRACK to our provisional answer never came.
    Unpracked,
}

/// Where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// Our INVITE is out.
    Calling {
        /// Its transaction.
        client: u64,
        /// Whether a provisional answer came: only then may we cancel.
        heard: bool,
        /// Whether CANCEL was sent.
        cancelled: bool,
    },
    /// Their INVITE waits for our answer.
    Invited {
        /// Its transaction.
        server: u64,
    },
    /// Answered.
    Up,
    /// Our BYE is out.
    Leaving,
}

/// A 200 of ours whose ACK is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unacked {
    /// The 200.
    pub(crate) bytes: Bytes,
    /// CSeq of the INVITE, and so of the ACK.
    pub(crate) cseq: u32,
    /// Pause before it is sent again.
    pub(crate) wait_ms: u64,
    /// Whether it answers a re-INVITE.
    pub(crate) change: bool,
    /// Whether it holds our offer, so that the ACK holds the answer.
    pub(crate) offers: bool,
}

/// One leg.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leg {
    /// Its id.
    pub(crate) id: LegId,
    /// With whom.
    pub(crate) party: Party,
    /// With which of his devices; empty for a trunk.
    pub(crate) instance: String,
    /// Which way the party was seen last.
    pub(crate) home: Path,
    /// Whether that way is gone.
    pub(crate) lost: bool,
    /// Whether we called.
    pub(crate) outgoing: bool,
    /// Tags, numbers, routes.
    pub(crate) dialog: Dialog,
    /// Where it stands.
    pub(crate) stage: Stage,
    /// Whether the call centre was told that it is over.
    pub(crate) over: bool,
    /// Why we end it, for CANCEL or BYE that must wait.
    pub(crate) why: Option<Cause>,
    /// Whether `Rang` was told.
    pub(crate) rung: bool,
    /// What the fork that we speak with said before the answer.
    pub(crate) early: Early,
    /// The other forks, before the answer.
    pub(crate) forks: Vec<Fork>,
    /// Our provisional answers that must arrive.
    pub(crate) reliable: Reliable,
    /// Our description as it stands.
    pub(crate) local_sdp: Bytes,
    /// The peer's as it stands.
    pub(crate) remote_sdp: Bytes,
    /// Our 200 that waits for its ACK.
    pub(crate) unacked: Option<Unacked>,
    /// The last ACK of ours, for repeated 200s.
    pub(crate) ack: Option<(u32, Bytes)>,
    /// Tags of forks that answered too late and were sent away.
    pub(crate) sent_away: Vec<String>,
    /// How often the INVITE was sent anew after 422.
    pub(crate) retries: u8,
    /// When its INVITE went out last.
    #[serde(default)]
    pub(crate) asked_at: MonoMs,
    /// How often a request of it was sent anew with a proof.
    #[serde(default)]
    pub(crate) proofs: u8,
    /// Changes under way.
    pub(crate) changes: Changes,
    /// A REFER of the peer's that is under way.
    pub(crate) referral: Option<Referral>,
    /// The session timer.
    pub(crate) refresh: Refresh,
    /// Deadlines.
    pub(crate) armed: Armed<LegTimer>,
}

impl Leg {
    /// Which way requests go; `None` while the phone has no socket.
    pub(crate) fn way(&self) -> Option<Path> {
        (!self.lost).then_some(self.home)
    }

    /// Whether it is answered and nobody has left.
    pub(crate) fn is_up(&self) -> bool {
        self.stage == Stage::Up && !self.over
    }
}

/// All legs, and which of them changed since they were last written down.
#[derive(Debug, Default)]
pub(crate) struct Legs {
    map: BTreeMap<LegId, Leg>,
    dirty: BTreeSet<LegId>,
    /// The one that was taken in hand last.
    last: Option<LegId>,
}

impl Legs {
    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// To look at.
    pub(crate) fn get(&self, id: LegId) -> Option<&Leg> {
        self.map.get(&id)
    }

    /// To change.
    pub(crate) fn get_mut(&mut self, id: LegId) -> Option<&mut Leg> {
        let leg = self.map.get_mut(&id)?;
        self.dirty.insert(id);
        self.last = Some(id);
        Some(leg)
    }

    /// The one that was taken in hand last, since [`Legs::let_go`].
    pub(crate) fn last(&self) -> Option<LegId> {
        self.last
    }

    /// None is in hand any more.
    pub(crate) fn let_go(&mut self) {
        self.last = None;
    }

    /// Adds or puts back.
    pub(crate) fn insert(&mut self, leg: Leg) {
        self.dirty.insert(leg.id);
        self.map.insert(leg.id, leg);
    }

    /// Takes away.
    pub(crate) fn remove(&mut self, id: LegId) -> Option<Leg> {
        self.dirty.insert(id);
        self.map.remove(&id)
    }

    /// In the order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Leg> {
        self.map.values()
    }

    /// What changed since the last call.
    pub(crate) fn take_dirty(&mut self) -> BTreeSet<LegId> {
        std::mem::take(&mut self.dirty)
    }
}
