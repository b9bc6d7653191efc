//! The wallboard: what goes on now, as the API answers it and the snapshot begins with it.
//!
//! Invariant: a fold. Every number on it follows from facts and the [`Roster`]; an ended call leaves the
//! live list (the last [`MAX_RECENT`] stay readable by id), and nothing grows past a named limit.

mod fold;
mod live;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::fact::OperatorState;
use crate::report::board::live::{Call, Card, Operator, Queue, Trunk, Waiting};
use crate::report::shape::{
    At, CallShape, CardShape, Microphone, NodeShape, OperatorCounts, OperatorShape, QueueCaller, QueueShape,
    TrunkShape, TrunkState,
};
use crate::report::today::{OperatorDay, QueueDay, TrunkDay};
use crate::terms::{CallId, CardId, Epoch, OperatorName, QueueName, TrunkName, WallMs};

/// Ended calls and closed cards that stay readable by id.
pub const MAX_RECENT: usize = 100;
/// Live calls on the board; more are not shown.
pub const MAX_CALLS: usize = 20_000;
/// Operators on the board; more are not shown.
pub const MAX_OPERATORS: usize = 10_000;
/// Open cards on the board; more are not shown.
pub const MAX_CARDS: usize = 20_000;

/// The local day of an instant, as a number that grows by one at local midnight.
pub type DayOf = Arc<dyn Fn(WallMs) -> i64 + Send + Sync>;

/// What the board knows of a queue from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueKnown {
    /// Its name.
    pub name: QueueName,
    /// Answered within this time counts as served well.
    pub service_level_ms: u64,
    /// Left within this time counts as not having waited at all.
    pub short_abandon_ms: u64,
}

/// What the board knows of a trunk from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkKnown {
    /// Its name.
    pub name: TrunkName,
    /// `gateway`, `provider` or `peer`.
    pub kind: String,
    /// Calls it can carry; 0 is no limit.
    pub channels: u32,
    /// Switched off.
    pub disabled: bool,
}

/// What does not come from facts: the configuration's and the accounts' names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// This node's name.
    pub node: String,
    /// Program version.
    pub version: String,
    /// Queues, in the order in which they are shown.
    pub queues: Vec<QueueKnown>,
    /// Trunks, in the order in which they are shown.
    pub trunks: Vec<TrunkKnown>,
    /// Skills by operator.
    pub skills: BTreeMap<OperatorName, Vec<String>>,
}

struct Node {
    role: String,
    epoch: Epoch,
    protected: bool,
    since: WallMs,
    why: String,
    started: WallMs,
}

/// The live objects.
pub struct Board {
    roster: Roster,
    day_of: DayOf,
    day: i64,
    node: Node,
    calls: BTreeMap<CallId, Call>,
    recent: VecDeque<(CallId, Call)>,
    queues: BTreeMap<QueueName, Queue>,
    operators: BTreeMap<OperatorName, Operator>,
    trunks: BTreeMap<TrunkName, Trunk>,
    cards: BTreeMap<CardId, Card>,
    closed: VecDeque<(CardId, Card)>,
}

impl Board {
    /// An empty board at `now`. `day_of` tells when "today" begins anew.
    pub fn new(roster: Roster, day_of: DayOf, now: WallMs) -> Self {
        let day = day_of(now);
        let node = Node {
            role: "single".to_owned(),
            epoch: Epoch(0),
            protected: false,
            since: now,
            why: String::new(),
            started: now,
        };
        let mut board = Self {
            roster: Roster::default(),
            day_of,
            day,
            node,
            calls: BTreeMap::new(),
            recent: VecDeque::new(),
            queues: BTreeMap::new(),
            operators: BTreeMap::new(),
            trunks: BTreeMap::new(),
            cards: BTreeMap::new(),
            closed: VecDeque::new(),
        };
        board.reload(roster);
        board
    }

    /// Takes a new configuration; live state stays. Queues and trunks that are gone leave the board.
    pub fn reload(&mut self, roster: Roster) {
        self.queues.retain(|name, _| roster.queues.iter().any(|known| known.name == *name));
        self.trunks.retain(|name, _| roster.trunks.iter().any(|known| known.name == *name));
        for known in &roster.queues {
            self.queues.entry(known.name.clone()).or_default();
        }
        for known in &roster.trunks {
            self.trunks.entry(known.name.clone()).or_default();
        }
        self.roster = roster;
    }

    /// The accounts' skills changed.
    pub fn set_skills(&mut self, skills: BTreeMap<OperatorName, Vec<String>>) {
        self.roster.skills = skills;
    }

    /// The node's role changed: `single`, `primary` or `standby`; `protected` where a standby holds
    /// every call; `why` in words.
    pub fn set_role(&mut self, role: &str, protected: bool, why: &str, now: WallMs) {
        if self.node.role != role {
            self.node.since = now;
        }
        role.clone_into(&mut self.node.role);
        why.clone_into(&mut self.node.why);
        self.node.protected = protected;
    }

    /// The order core gave a card's order an id.
    pub fn set_order(&mut self, card: CardId, order: &str) {
        let closed = self.closed.iter_mut().find(|(id, _)| *id == card).map(|(_, card)| card);
        if let Some(card) = self.cards.get_mut(&card).or(closed) {
            card.order = Some(order.to_owned());
        }
    }

    fn any_call(&self, id: CallId) -> Option<&Call> {
        let recent = || self.recent.iter().rev().find(|(known, _)| *known == id).map(|(_, call)| call);
        self.calls.get(&id).or_else(recent)
    }

    /// A live call, or one of the last ended.
    pub fn call(&self, id: CallId, now: WallMs) -> Option<CallShape> {
        Some(self.any_call(id)?.shape(id, now))
    }

    /// Live calls, oldest id first.
    pub fn calls(&self, now: WallMs) -> Vec<CallShape> {
        self.calls.iter().map(|(id, call)| call.shape(*id, now)).collect()
    }

    /// Live calls in which `operator` is called or talks.
    pub fn calls_of(&self, operator: &OperatorName, now: WallMs) -> Vec<CallShape> {
        self.calls
            .iter()
            .filter(|(_, call)| call.involves(operator))
            .map(|(id, call)| call.shape(*id, now))
            .collect()
    }

    /// Whether `operator` takes or took part in the call, live or just ended.
    pub fn took_part(&self, operator: &OperatorName, call: CallId) -> bool {
        self.any_call(call).is_some_and(|call| call.seen_by.contains(operator) || call.involves(operator))
    }

    /// Everybody but supervisors whom the call's events concern.
    pub(super) fn seen_by(&self, call: CallId) -> Vec<OperatorName> {
        self.any_call(call).map(|call| call.seen_by.clone()).unwrap_or_default()
    }

    /// All operators that facts named, by name.
    pub fn operators(&self, now: WallMs) -> Vec<OperatorShape> {
        self.operators.iter().map(|(name, operator)| self.operator_shape(name, operator, now)).collect()
    }

    /// One operator.
    pub fn operator(&self, name: &OperatorName, now: WallMs) -> Option<OperatorShape> {
        Some(self.operator_shape(name, self.operators.get(name)?, now))
    }

    fn operator_shape(&self, name: &OperatorName, operator: &Operator, now: WallMs) -> OperatorShape {
        let day = if self.is_today(now) { operator.day } else { OperatorDay::default() };
        let call = operator.call.and_then(|id| self.calls.get(&id));
        OperatorShape {
            name: name.clone(),
            state: operator.state,
            reason: operator.reason.clone(),
            since: At(operator.since),
            queues: operator.queues.clone(),
            skills: self.roster.skills.get(name).cloned().unwrap_or_default(),
            call: operator.call,
            phone: operator.phone,
            microphone: call.map_or(Microphone::None, |call| call.microphone(name)),
            auto_answer: operator.auto_answer,
            wrap_up_until: operator.wrap_up_until.map(At),
            calls_today: day.calls,
            talk_ms_today: day.talk_ms,
        }
    }

    fn is_today(&self, now: WallMs) -> bool {
        (self.day_of)(now) <= self.day
    }

    /// All queues, as configured.
    pub fn queues(&self, now: WallMs) -> Vec<QueueShape> {
        self.roster.queues.iter().filter_map(|known| self.queue(&known.name, now)).collect()
    }

    /// One queue.
    pub fn queue(&self, name: &QueueName, now: WallMs) -> Option<QueueShape> {
        let queue = self.queues.get(name)?;
        let mut waiting: Vec<(&CallId, &Waiting)> = queue.waiting.iter().collect();
        waiting.sort_by_key(|(_, caller)| (caller.priority, caller.since, caller.seq));
        let callers: Vec<QueueCaller> = waiting
            .iter()
            .enumerate()
            .map(|(index, (call, caller))| QueueCaller {
                call: **call,
                caller: caller.caller.reveal().to_owned(),
                place: index.saturating_add(1),
                since: At(caller.since),
                priority: caller.priority,
            })
            .collect();
        let longest_wait_ms =
            queue.waiting.values().map(|caller| now.saturating_sub(caller.since).max(0)).max().unwrap_or(0);
        let day = if self.is_today(now) { queue.day } else { QueueDay::default() };
        Some(QueueShape {
            name: name.clone(),
            waiting: callers.len(),
            longest_wait_ms,
            callers,
            operators: self.counts(name),
            today: day.shape(),
        })
    }

    fn counts(&self, queue: &QueueName) -> OperatorCounts {
        let mut counts = OperatorCounts::default();
        for operator in self.operators.values().filter(|operator| operator.queues.contains(queue)) {
            let count = match operator.state {
                OperatorState::Available => &mut counts.available,
                OperatorState::Ringing => &mut counts.ringing,
                OperatorState::Talking => &mut counts.talking,
                OperatorState::WrapUp => &mut counts.wrap_up,
                OperatorState::Paused => &mut counts.paused,
                OperatorState::Offline => &mut counts.offline,
            };
            *count = count.saturating_add(1);
        }
        counts
    }

    /// All trunks, as configured.
    pub fn trunks(&self, now: WallMs) -> Vec<TrunkShape> {
        self.roster.trunks.iter().filter_map(|known| self.trunk(&known.name, now)).collect()
    }

    /// One trunk.
    pub fn trunk(&self, name: &TrunkName, now: WallMs) -> Option<TrunkShape> {
        let known = self.roster.trunks.iter().find(|known| known.name == *name)?;
        let trunk = self.trunks.get(name)?;
        let state = match (known.disabled, trunk.up, known.channels > 0 && trunk.busy >= known.channels) {
            (true, _, _) => TrunkState::Disabled,
            (false, false, _) => TrunkState::Down,
            (false, true, true) => TrunkState::Full,
            (false, true, false) => TrunkState::Up,
        };
        let day = if self.is_today(now) { trunk.day } else { TrunkDay::default() };
        Some(TrunkShape {
            name: name.clone(),
            kind: known.kind.clone(),
            state,
            registered_from: trunk.from.clone(),
            channels: known.channels,
            busy: trunk.busy,
            last_error: trunk.last_error.clone(),
            asr: day.asr(),
            false_answers: day.false_answers,
        })
    }

    /// Open cards on `operator`'s desk.
    pub fn cards_of(&self, operator: &OperatorName) -> Vec<CardShape> {
        let own = self.cards.iter().filter(|(_, card)| card.operator == *operator);
        own.map(|(id, card)| card.shape(*id)).collect()
    }

    /// All open cards.
    pub fn cards(&self) -> Vec<CardShape> {
        self.cards.iter().map(|(id, card)| card.shape(*id)).collect()
    }

    fn any_card(&self, id: CardId) -> Option<&Card> {
        let closed = || self.closed.iter().rev().find(|(known, _)| *known == id).map(|(_, card)| card);
        self.cards.get(&id).or_else(closed)
    }

    /// An open card, or one of the last closed.
    pub fn card(&self, id: CardId) -> Option<CardShape> {
        Some(self.any_card(id)?.shape(id))
    }

    /// On whose desk the card is, and on whose it was before.
    pub(super) fn desks(&self, id: CardId) -> Vec<OperatorName> {
        self.any_card(id)
            .map(|card| card.before.iter().chain([&card.operator]).cloned().collect())
            .unwrap_or_default()
    }

    /// This node.
    pub fn node(&self, now: WallMs) -> NodeShape {
        NodeShape {
            name: self.roster.node.clone(),
            role: self.node.role.clone(),
            epoch: self.node.epoch,
            protected: self.node.protected,
            since: At(self.node.since),
            why: self.node.why.clone(),
            version: self.roster.version.clone(),
            calls: self.calls.len(),
            uptime_ms: now.saturating_sub(self.node.started).max(0),
        }
    }
}
