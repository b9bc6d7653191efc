//! Which route a call takes: the first whose conditions all hold.

use crate::dialplan::hours::{Hours, LocalTime};
use crate::dialplan::pattern::{NumberPattern, any_fits};
use crate::dialplan::plan::{Plan, Route};
use crate::terms::{Number, TrunkName};

/// A call that looks for its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt<'a> {
    /// Where it comes from.
    pub from: Origin,
    /// What was dialled: our line for a trunk's call, the far number for an operator's; normalised.
    pub number: &'a Number,
    /// Who calls; empty if withheld.
    pub caller: &'a Number,
    /// Local time of the node.
    pub at: LocalTime,
    /// This call's lot, 0…99: `share = "10%"` holds for 0…9.
    pub share: u8,
}

/// Where a call comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A trunk.
    Trunk(TrunkName),
    /// An operator's phone.
    Operators,
}

/// The conditions of a route; a condition that is not written always holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct When {
    pub(crate) from: Option<From>,
    pub(crate) number: Option<Vec<NumberPattern>>,
    pub(crate) caller: Option<Vec<NumberPattern>>,
    pub(crate) hours: Option<Hours>,
    pub(crate) except_hours: Option<Hours>,
    /// 1…100.
    pub(crate) share: Option<u8>,
}

/// Where a route's calls come from: patterns are already expanded to trunks.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct From {
    pub(crate) operators: bool,
    pub(crate) trunks: Vec<TrunkName>,
}

impl From {
    fn holds(&self, origin: &Origin) -> bool {
        match origin {
            Origin::Operators => self.operators,
            Origin::Trunk(trunk) => self.trunks.contains(trunk),
        }
    }
}

impl When {
    pub(crate) fn holds(&self, attempt: &Attempt<'_>) -> bool {
        self.from.as_ref().is_none_or(|from| from.holds(&attempt.from))
            && self.number.as_ref().is_none_or(|patterns| any_fits(patterns, attempt.number))
            && self.caller.as_ref().is_none_or(|patterns| any_fits(patterns, attempt.caller))
            && self.hours.as_ref().is_none_or(|hours| hours.contain(attempt.at))
            && !self.except_hours.as_ref().is_some_and(|hours| hours.contain(attempt.at))
            && self.share.is_none_or(|share| attempt.share < share)
    }
}

impl Plan {
    /// The way of a call, or `None` if no route fits.
    pub fn route(&self, attempt: &Attempt<'_>) -> Option<&Route> {
        self.routes.iter().find(|(when, _)| when.holds(attempt)).map(|(_, route)| route)
    }
}
