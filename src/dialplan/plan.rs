//! The plan: routes tried top to bottom, each with the steps that a call takes.
//!
//! A call keeps the steps of the route it was given, so that a reload never changes the way of a call
//! that is under way; therefore routes and steps can be written into records.

use serde::{Deserialize, Serialize};

use crate::dialplan::parse::Mistake;
use crate::dialplan::route::When;
use crate::terms::{Number, QueueName, TrunkName};

/// Steps of one route.
pub const MAX_STEPS: usize = 16;
/// Routes of all files together.
pub const MAX_ROUTES: usize = 1_000;
/// Bytes of one dialplan file.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// All routes of all files, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    pub(crate) routes: Vec<(When, Route)>,
    pub(crate) warnings: Vec<Mistake>,
}

/// The way of one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// For people.
    pub name: String,
    /// File and line, for `tandem try` and logs.
    pub at: String,
    /// What is done, one after the other; the next step is the overflow of the one before. 1…[`MAX_STEPS`].
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A file of `dialplans/sounds` is played to its end.
    Play {
        /// Its name.
        file: String,
    },
    /// The caller waits for an operator.
    Queue {
        /// Where.
        queue: QueueName,
        /// How long at most; `None` is the queue's `max_wait`.
        wait_ms: Option<u64>,
        /// What he hears; `None` is the queue's music.
        music: Option<String>,
        /// Smaller is served earlier.
        priority: i32,
        /// How often his place is told; `None` is never.
        tell_place_every_ms: Option<u64>,
        /// Whether the talk is recorded; `None` is as configured.
        record: Option<bool>,
    },
    /// A number is called.
    Dial {
        /// Which.
        number: DialNumber,
        /// Over which trunks, the first that can; empty where a pattern matches no trunk. No trunk is in two.
        over: Vec<Ways>,
        /// How long it rings; `None` is until the network gives up.
        ring_ms: Option<u64>,
        /// The number shown to the called.
        show: Option<Number>,
    },
    /// The call ends.
    HangUp {
        /// How the far end is told.
        why: HangUpWhy,
    },
}

/// Trunks that stand for one another: a trunk, all that a pattern means, or a `[[group]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ways {
    /// As the dialplan calls it.
    pub name: String,
    /// In the order of the configuration.
    pub trunks: Vec<TrunkName>,
    /// Which is tried first.
    pub choose: Choose,
    /// For [`Choose::Share`]: how many of a hundred calls each trunk is tried first for, in their order.
    pub shares: Vec<u32>,
}

impl Ways {
    /// Trunks that are tried in their order.
    pub fn in_order(name: impl Into<String>, trunks: Vec<TrunkName>) -> Self {
        Self { name: name.into(), trunks, choose: Choose::Order, shares: Vec::new() }
    }
}

/// Which trunk of a group is tried first; the others follow when it cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choose {
    /// In the order of the configuration.
    Order,
    /// By lot, each with its share of the calls.
    Share,
    /// The one with the smallest part of its channels in use.
    LeastUsed,
}

impl Choose {
    /// The word of the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Share => "share",
            Self::LeastUsed => "least_used",
        }
    }
}

/// A number to call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DialNumber {
    /// The one that was dialled: `dial = "dialled"`.
    Dialled,
    /// Always this one.
    Fixed(Number),
}

/// How the far end is told that the call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HangUpWhy {
    /// Q.850 16.
    Normal,
    /// Q.850 17, SIP 486.
    Busy,
    /// Q.850 34, SIP 503.
    Congestion,
    /// Q.850 21, SIP 403.
    NotAllowed,
    /// Q.850 1, SIP 404.
    NotFound,
}

impl HangUpWhy {
    /// The word of the dialplan.
    pub fn word(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Busy => "busy",
            Self::Congestion => "congestion",
            Self::NotAllowed => "not_allowed",
            Self::NotFound => "not_found",
        }
    }

    /// Q.850 cause.
    pub fn q850(self) -> u16 {
        match self {
            Self::Normal => 16,
            Self::Busy => 17,
            Self::Congestion => 34,
            Self::NotAllowed => 21,
            Self::NotFound => 1,
        }
    }

    /// SIP status for a call that was not answered yet.
    pub fn sip(self) -> u16 {
        match self {
            Self::Normal => 480,
            Self::Busy => 486,
            Self::Congestion => 503,
            Self::NotAllowed => 403,
            Self::NotFound => 404,
        }
    }
}

/// What a dialplan may name, from the configuration and the sounds folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// All queues.
    pub queues: Vec<QueueName>,
    /// All trunks, in the order of the configuration.
    pub trunks: Vec<TrunkName>,
    /// All groups of trunks; no group has a trunk's name.
    pub groups: Vec<Ways>,
    /// File names in `dialplans/sounds`.
    pub sounds: Vec<String>,
}

impl Plan {
    /// Reads all dialplan files, in the order given (the edge sorts them by name): `(name, text)`.
    ///
    /// # Errors
    /// Every mistake of every file, with its line.
    pub fn read(files: &[(String, String)], known: &Known) -> Result<Self, Vec<Mistake>> {
        crate::dialplan::read::read(files, known)
    }

    /// The routes in order.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().map(|(_, route)| route)
    }

    /// What looks wrong but works: patterns without a trunk, routes that are never reached.
    pub fn warnings(&self) -> &[Mistake] {
        &self.warnings
    }
}
