//! The wallboard: what goes on now, as the API answers it and the snapshot begins with it.
//!
//! Invariant: a fold. Every number on it follows from facts and the [`Roster`]; an ended call leaves the
//! live list (the last [`MAX_RECENT`] stay readable by id), and nothing grows past a named limit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::fact::{
    CallResult, Cause, Direction, Fact, Fields, Flow, LegState, OperatorState, Party, Phone, Quality,
    ToneKind, What,
};
use crate::report::shape::{
    At, CallShape, CallState, CardShape, CardState, CauseShape, LegShape, Microphone, NodeShape,
    OperatorCounts, OperatorShape, PartyShape, QueueCaller, QueueShape, TrunkShape, TrunkState,
};
use crate::report::today::{OperatorDay, QueueDay, TrunkDay};
use crate::terms::{CallId, CardId, Epoch, LegId, Number, OperatorName, QueueName, TrunkName, WallMs};

/// Ended calls and closed cards that stay readable by id.
pub const MAX_RECENT: usize = 100;
/// Live calls on the board; more are not shown.
pub const MAX_CALLS: usize = 20_000;
/// Operators on the board; more are not shown.
pub const MAX_OPERATORS: usize = 10_000;
/// Open cards on the board; more are not shown.
pub const MAX_CARDS: usize = 20_000;
/// Legs of a call that are shown.
pub const MAX_LEGS: usize = 32;
/// Operators that one call's events go to.
pub const MAX_SEEN_BY: usize = 16;

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

#[derive(Debug, Clone)]
struct Leg {
    party: Party,
    number: Number,
    state: LegState,
    codec: String,
    quality: Option<Quality>,
    silent_in: Option<WallMs>,
    silent_out: Option<WallMs>,
}

#[derive(Debug, Clone)]
struct Call {
    direction: Direction,
    state: CallState,
    caller: Number,
    called: Number,
    line: Number,
    trunk: Option<TrunkName>,
    queue: Option<QueueName>,
    answered_for: Option<QueueName>,
    operator: Option<OperatorName>,
    arrived: WallMs,
    queued: Option<WallMs>,
    answered: Option<WallMs>,
    wait_ms: Option<u64>,
    talk_ms: u64,
    ended: Option<WallMs>,
    result: Option<CallResult>,
    cause: Option<Cause>,
    tone: Option<ToneKind>,
    card: Option<CardId>,
    legs: BTreeMap<LegId, Leg>,
    seen_by: Vec<OperatorName>,
    never_heard: bool,
}

#[derive(Debug, Clone)]
struct Waiting {
    caller: Number,
    since: WallMs,
    priority: i32,
    seq: u64,
}

#[derive(Debug, Clone, Default)]
struct Queue {
    waiting: BTreeMap<CallId, Waiting>,
    day: QueueDay,
}

#[derive(Debug, Clone)]
struct Operator {
    state: OperatorState,
    reason: String,
    since: WallMs,
    queues: Vec<QueueName>,
    call: Option<CallId>,
    phone: Phone,
    auto_answer: bool,
    wrap_up_until: Option<WallMs>,
    last_queue: Option<QueueName>,
    day: OperatorDay,
}

#[derive(Debug, Clone, Default)]
struct Trunk {
    up: bool,
    from: String,
    busy: u32,
    last_error: String,
    day: TrunkDay,
}

#[derive(Debug, Clone)]
struct Card {
    call: Option<CallId>,
    caller: Number,
    line: Number,
    queue: Option<QueueName>,
    operator: OperatorName,
    before: Option<OperatorName>,
    state: CardState,
    fields: Fields,
    order: Option<String>,
    created: WallMs,
    customer: Option<serde_json::Value>,
    reason: String,
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

    /// Takes in what happened.
    pub fn fold(&mut self, fact: &Fact) {
        self.turn_day(fact.at);
        match &fact.what {
            What::NodeStarted { .. } => {
                self.node.started = fact.at;
                self.node.since = fact.at;
                self.node.epoch = fact.epoch;
            }
            What::TrunkUp { .. }
            | What::TrunkDown { .. }
            | What::TrunkLoad { .. }
            | What::TrunkFailed { .. } => {
                self.fold_trunk(&fact.what);
            }
            What::Operator { .. } => self.fold_operator(&fact.what, fact.at),
            What::Arrived { .. } => self.arrived(fact),
            What::Queued { queue, priority } => self.queued(fact, queue, *priority),
            What::LeftQueue { queue, why } => self.left_queue(fact, queue, why == "abandoned"),
            What::Answered { .. } => self.answered(fact),
            What::Ended { .. } => self.ended(fact),
            What::Leg { .. }
            | What::LegEnded { .. }
            | What::MediaSilent { .. }
            | What::MediaRecovered { .. }
            | What::MediaQuality { .. } => self.fold_leg(fact),
            What::Greeting { .. }
            | What::Assigned { .. }
            | What::Unassigned { .. }
            | What::Ringing { .. }
            | What::EarlyMedia { .. }
            | What::Tone { .. }
            | What::Held
            | What::Resumed
            | What::Digit { .. } => self.fold_step(fact),
            What::CardOpened { .. } => self.card_opened(fact),
            What::CardMoved { .. }
            | What::CardCustomer { .. }
            | What::CardUpdated { .. }
            | What::CardSubmitted { .. }
            | What::CardAccepted { .. }
            | What::CardDiscarded { .. } => self.fold_card(&fact.what),
        }
    }

    fn turn_day(&mut self, at: WallMs) {
        let day = (self.day_of)(at);
        // A clock that steps back over midnight must not wipe the day twice.
        if day <= self.day {
            return;
        }
        self.day = day;
        self.queues.values_mut().for_each(|queue| queue.day = QueueDay::default());
        self.operators.values_mut().for_each(|operator| operator.day = OperatorDay::default());
        self.trunks.values_mut().for_each(|trunk| trunk.day = TrunkDay::default());
    }

    fn fold_trunk(&mut self, what: &What) {
        if let What::TrunkUp { trunk, from } = what
            && let Some(trunk) = self.trunks.get_mut(trunk)
        {
            trunk.up = true;
            from.clone_into(&mut trunk.from);
        } else if let What::TrunkDown { trunk, why } = what
            && let Some(trunk) = self.trunks.get_mut(trunk)
        {
            trunk.up = false;
            why.clone_into(&mut trunk.last_error);
        } else if let What::TrunkLoad { trunk, busy } = what
            && let Some(trunk) = self.trunks.get_mut(trunk)
        {
            trunk.busy = *busy;
        } else if let What::TrunkFailed { trunk, cause } = what
            && let Some(trunk) = self.trunks.get_mut(trunk)
        {
            trunk.day.tried = trunk.day.tried.saturating_add(1);
            cause.words.clone_into(&mut trunk.last_error);
        }
    }

    fn fold_operator(&mut self, what: &What, at: WallMs) {
        let What::Operator { operator, state, reason, call, phone, queues, auto_answer, wrap_up_until } =
            what
        else {
            return;
        };
        let before = self.operators.get(operator).cloned();
        if before.is_none() && self.operators.len() >= MAX_OPERATORS {
            return;
        }
        let since = before.as_ref().filter(|old| old.state == *state).map_or(at, |old| old.since);
        let mut day = before.as_ref().map(|old| old.day).unwrap_or_default();
        let last_queue = before.as_ref().and_then(|old| old.last_queue.clone());
        if let Some(old) = before.filter(|old| old.state != *state) {
            let spent_ms = u64::try_from(at.saturating_sub(old.since)).unwrap_or(0);
            match old.state {
                OperatorState::Talking => day.talk_ms = day.talk_ms.saturating_add(spent_ms),
                OperatorState::WrapUp => self.wrapped_up(last_queue.as_ref(), spent_ms),
                OperatorState::Available
                | OperatorState::Ringing
                | OperatorState::Paused
                | OperatorState::Offline => {}
            }
        }
        let operator_now = Operator {
            state: *state,
            reason: reason.clone(),
            since,
            queues: queues.clone(),
            call: *call,
            phone: *phone,
            auto_answer: *auto_answer,
            wrap_up_until: *wrap_up_until,
            last_queue,
            day,
        };
        self.operators.insert(operator.clone(), operator_now);
    }

    fn wrapped_up(&mut self, queue: Option<&QueueName>, spent_ms: u64) {
        if let Some(queue) = queue.and_then(|name| self.queues.get_mut(name)) {
            queue.day.handle_ms = queue.day.handle_ms.saturating_add(spent_ms);
        }
    }

    fn arrived(&mut self, fact: &Fact) {
        let (What::Arrived { direction, caller, called, line, trunk, operator }, Some(id)) =
            (&fact.what, fact.call)
        else {
            return;
        };
        if self.calls.len() >= MAX_CALLS || self.calls.contains_key(&id) {
            return;
        }
        let call = Call {
            direction: *direction,
            state: CallState::Arrived,
            caller: caller.clone(),
            called: called.clone(),
            line: line.clone(),
            trunk: trunk.clone(),
            queue: None,
            answered_for: None,
            operator: operator.clone(),
            arrived: fact.at,
            queued: None,
            answered: None,
            wait_ms: None,
            talk_ms: 0,
            ended: None,
            result: None,
            cause: None,
            tone: None,
            card: None,
            legs: BTreeMap::new(),
            seen_by: operator.iter().cloned().collect(),
            never_heard: false,
        };
        self.calls.insert(id, call);
    }

    fn queued(&mut self, fact: &Fact, name: &QueueName, priority: i32) {
        let Some((id, call)) = fact.call.and_then(|id| Some((id, self.calls.get_mut(&id)?))) else { return };
        call.state = CallState::Queued;
        call.queue = Some(name.clone());
        call.queued = Some(fact.at);
        let Some(queue) = self.queues.get_mut(name) else { return };
        let waiting = Waiting { caller: call.caller.clone(), since: fact.at, priority, seq: fact.seq };
        if let Some(known) = queue.waiting.get_mut(&id) {
            // The same caller in the same queue: only his priority may be new.
            known.priority = priority;
        } else {
            queue.day.offered = queue.day.offered.saturating_add(1);
            queue.waiting.insert(id, waiting);
        }
    }

    fn known_queue(&self, name: &QueueName) -> (u64, u64) {
        let known = self.roster.queues.iter().find(|known| known.name == *name);
        known.map_or((0, 0), |known| (known.service_level_ms, known.short_abandon_ms))
    }

    fn left_queue(&mut self, fact: &Fact, name: &QueueName, abandoned: bool) {
        let Some(id) = fact.call else { return };
        let (_, short_abandon_ms) = self.known_queue(name);
        if let Some(queue) = self.queues.get_mut(name)
            && let Some(waiting) = queue.waiting.remove(&id)
            && abandoned
        {
            let wait_ms = u64::try_from(fact.at.saturating_sub(waiting.since)).unwrap_or(0);
            queue.day.abandon(wait_ms, short_abandon_ms);
        }
        if let Some(call) = self.calls.get_mut(&id).filter(|call| call.state == CallState::Queued) {
            call.state = CallState::Arrived;
        }
    }

    fn answered(&mut self, fact: &Fact) {
        let (What::Answered { operator, trunk, queue, wait_ms }, Some(id)) = (&fact.what, fact.call) else {
            return;
        };
        let Some(call) = self.calls.get_mut(&id) else { return };
        let first = call.answered.is_none();
        call.state = CallState::Talking;
        call.tone = None;
        if first {
            call.answered = Some(fact.at);
            call.wait_ms = Some(*wait_ms);
        }
        if let Some(operator) = operator {
            call.operator = Some(operator.clone());
            remember(&mut call.seen_by, operator);
        }
        call.trunk = trunk.clone().or_else(|| call.trunk.clone());
        let outgoing = call.direction != Direction::In;
        if let Some(trunk) = call.trunk.as_ref().and_then(|name| self.trunks.get_mut(name))
            && outgoing
            && first
        {
            trunk.day.answered = trunk.day.answered.saturating_add(1);
            trunk.day.tried = trunk.day.tried.saturating_add(1);
        }
        if let Some(operator) = operator.as_ref().and_then(|name| self.operators.get_mut(name)) {
            operator.day.calls = operator.day.calls.saturating_add(1);
            operator.last_queue.clone_from(queue);
        }
        if let Some(name) = queue {
            call.answered_for = Some(name.clone());
            call.queue = Some(name.clone());
            let (service_level_ms, _) = self.known_queue(name);
            if let Some(queue) = self.queues.get_mut(name)
                && queue.waiting.remove(&id).is_some()
            {
                queue.day.answer(*wait_ms, service_level_ms);
            }
        }
    }

    fn ended(&mut self, fact: &Fact) {
        let (What::Ended { result, cause, wait_ms, talk_ms, .. }, Some(id)) = (&fact.what, fact.call) else {
            return;
        };
        let left: Vec<QueueName> = self
            .queues
            .iter()
            .filter(|(_, q)| q.waiting.contains_key(&id))
            .map(|(name, _)| name.clone())
            .collect();
        for name in left {
            self.left_queue(fact, &name, *result == CallResult::Abandoned);
        }
        let Some(mut call) = self.calls.remove(&id) else { return };
        call.state = CallState::Ended;
        call.ended = Some(fact.at);
        call.result = Some(*result);
        call.cause = Some(cause.clone());
        call.wait_ms = Some(*wait_ms);
        call.talk_ms = *talk_ms;
        if let Some(queue) = call.answered_for.as_ref().and_then(|name| self.queues.get_mut(name)) {
            queue.day.handled = queue.day.handled.saturating_add(1);
            queue.day.handle_ms = queue.day.handle_ms.saturating_add(*talk_ms);
        }
        if let Some(trunk) = call.trunk.as_ref().and_then(|name| self.trunks.get_mut(name))
            && call.answered.is_some()
            && call.direction != Direction::In
            && call.never_heard
        {
            trunk.day.false_answers = trunk.day.false_answers.saturating_add(1);
        }
        call.legs.clear();
        keep_recent(&mut self.recent, (id, call));
    }

    fn fold_leg(&mut self, fact: &Fact) {
        let Some(call) = fact.call.and_then(|id| self.calls.get_mut(&id)) else { return };
        if let What::Leg { leg, party, number, state, codec } = &fact.what {
            call.set_leg(*leg, party, number, *state, codec);
        } else if let What::LegEnded { leg, .. } = &fact.what {
            call.legs.remove(leg);
        } else if let What::MediaSilent { leg, flow, .. } = &fact.what {
            call.hear(*leg, *flow, Some(fact.at));
        } else if let What::MediaRecovered { leg, flow } = &fact.what {
            call.hear(*leg, *flow, None);
        } else if let What::MediaQuality { leg, quality } = &fact.what
            && let Some(leg) = call.legs.get_mut(leg)
        {
            leg.quality = Some(*quality);
        }
    }

    fn fold_step(&mut self, fact: &Fact) {
        let Some(call) = fact.call.and_then(|id| self.calls.get_mut(&id)) else { return };
        if let What::Greeting { .. } = &fact.what {
            call.state = CallState::Greeting;
        } else if let What::Assigned { operator, .. } = &fact.what {
            call.state = CallState::Ringing;
            call.operator = Some(operator.clone());
            remember(&mut call.seen_by, operator);
        } else if let What::Unassigned { operator, .. } = &fact.what {
            if call.state == CallState::Ringing {
                call.state = CallState::Queued;
            }
            if call.operator.as_ref() == Some(operator) {
                call.operator = None;
            }
        } else if let What::Ringing { trunk } | What::EarlyMedia { trunk } = &fact.what {
            call.state = CallState::Ringing;
            call.trunk = Some(trunk.clone());
        } else if let What::Tone { tone, .. } = &fact.what {
            call.tone = Some(*tone);
        } else if fact.what == What::Held {
            call.state = CallState::Held;
        } else if fact.what == What::Resumed {
            call.state = CallState::Talking;
        }
    }

    fn card_opened(&mut self, fact: &Fact) {
        let What::CardOpened { card: id, caller, line, queue, operator, .. } = &fact.what else { return };
        if self.cards.len() >= MAX_CARDS || self.cards.contains_key(id) {
            return;
        }
        if let Some(call) = fact.call.and_then(|call| self.calls.get_mut(&call)) {
            call.card = Some(*id);
            remember(&mut call.seen_by, operator);
        }
        let card = Card {
            call: fact.call,
            caller: caller.clone(),
            line: line.clone(),
            queue: queue.clone(),
            operator: operator.clone(),
            before: None,
            state: CardState::Draft,
            fields: Fields::new(),
            order: None,
            created: fact.at,
            customer: None,
            reason: String::new(),
        };
        self.cards.insert(*id, card);
    }

    fn fold_card(&mut self, what: &What) {
        if let What::CardMoved { card, operator } = what
            && let Some(card) = self.cards.get_mut(card)
        {
            card.before = Some(std::mem::replace(&mut card.operator, operator.clone()));
        } else if let What::CardCustomer { card, customer } = what
            && let Some(card) = self.cards.get_mut(card)
        {
            card.customer = serde_json::from_str(customer).ok();
        } else if let What::CardUpdated { card, fields } = what
            && let Some(card) = self.cards.get_mut(card)
        {
            card.fields.clone_from(fields);
        } else if let What::CardSubmitted { card, fields, .. } = what
            && let Some(card) = self.cards.get_mut(card)
        {
            card.fields.clone_from(fields);
            card.state = CardState::Saving;
        } else if let What::CardAccepted { card } = what {
            self.close_card(*card, CardState::Accepted, "");
        } else if let What::CardDiscarded { card, reason } = what {
            self.close_card(*card, CardState::Discarded, reason);
        }
    }

    fn close_card(&mut self, id: CardId, state: CardState, reason: &str) {
        if let Some(mut card) = self.cards.remove(&id) {
            card.state = state;
            reason.clone_into(&mut card.reason);
            keep_recent(&mut self.closed, (id, card));
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

fn remember(names: &mut Vec<OperatorName>, name: &OperatorName) {
    if names.len() < MAX_SEEN_BY && !names.contains(name) {
        names.push(name.clone());
    }
}

fn keep_recent<T>(recent: &mut VecDeque<T>, item: T) {
    if recent.len() >= MAX_RECENT {
        recent.pop_front();
    }
    recent.push_back(item);
}

impl Call {
    fn set_leg(&mut self, id: LegId, party: &Party, number: &Number, state: LegState, codec: &str) {
        if let Party::Operator(name) = party {
            remember(&mut self.seen_by, name);
        }
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.party = party.clone();
            leg.number = number.clone();
            leg.state = state;
            codec.clone_into(&mut leg.codec);
        } else if self.legs.len() < MAX_LEGS {
            let leg = Leg {
                party: party.clone(),
                number: number.clone(),
                state,
                codec: codec.to_owned(),
                quality: None,
                silent_in: None,
                silent_out: None,
            };
            self.legs.insert(id, leg);
        }
    }

    fn hear(&mut self, id: LegId, flow: Flow, silent_since: Option<WallMs>) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        match flow {
            Flow::In => leg.silent_in = silent_since,
            Flow::Out => leg.silent_out = silent_since,
        }
        if flow == Flow::In && matches!(leg.party, Party::Trunk(_)) {
            self.never_heard = silent_since.is_some() && self.answered.is_some();
        }
    }

    fn involves(&self, operator: &OperatorName) -> bool {
        self.operator.as_ref() == Some(operator)
            || self.legs.values().any(|leg| matches!(&leg.party, Party::Operator(name) if name == operator))
    }

    fn microphone(&self, operator: &OperatorName) -> Microphone {
        let own = |leg: &&Leg| matches!(&leg.party, Party::Operator(name) if name == operator);
        match self.legs.values().find(own) {
            None => Microphone::None,
            Some(leg) if leg.silent_in.is_some() => Microphone::Silent,
            Some(_) => Microphone::Ok,
        }
    }

    fn shape(&self, id: CallId, now: WallMs) -> CallShape {
        let until = self.ended.unwrap_or(now);
        let started = if self.direction == Direction::In { self.queued } else { Some(self.arrived) };
        let waited = || started.map_or(0, |from| until.saturating_sub(from).max(0));
        let talked = self.answered.map_or(0, |from| until.saturating_sub(from).max(0));
        CallShape {
            id,
            direction: self.direction,
            state: self.state,
            caller: self.caller.reveal().to_owned(),
            called: self.called.reveal().to_owned(),
            line: self.line.reveal().to_owned(),
            trunk: self.trunk.clone(),
            queue: self.queue.clone(),
            operator: self.operator.clone(),
            arrived_at: At(self.arrived),
            answered_at: self.answered.map(At),
            ended_at: self.ended.map(At),
            wait_ms: self.wait_ms.map_or_else(waited, |ms| i64::try_from(ms).unwrap_or(i64::MAX)),
            talk_ms: if self.ended.is_some() {
                i64::try_from(self.talk_ms).unwrap_or(i64::MAX)
            } else {
                talked
            },
            result: self.result,
            cause: self.cause.as_ref().map(CauseShape::from),
            tone: self.tone,
            card: self.card,
            legs: self.legs.iter().map(|(id, leg)| leg.shape(*id, now)).collect(),
        }
    }
}

impl Leg {
    fn shape(&self, id: LegId, now: WallMs) -> LegShape {
        let (party, name) = match &self.party {
            Party::Trunk(name) => (PartyShape::Trunk, name.to_string()),
            Party::Operator(name) => (PartyShape::Operator, name.to_string()),
        };
        let ago = |since: WallMs| now.saturating_sub(since).max(0);
        LegShape {
            id,
            party,
            name,
            number: self.number.reveal().to_owned(),
            state: self.state,
            codec: self.codec.clone(),
            quality: self.quality,
            silent_in_ms: self.silent_in.map(ago),
            silent_out_ms: self.silent_out.map(ago),
        }
    }
}

impl Card {
    fn shape(&self, id: CardId) -> CardShape {
        CardShape {
            id,
            call: self.call,
            caller: self.caller.reveal().to_owned(),
            line: self.line.reveal().to_owned(),
            queue: self.queue.clone(),
            operator: self.operator.clone(),
            state: self.state,
            fields: self.fields.clone(),
            order: self.order.clone(),
            created_at: At(self.created),
            customer: self.customer.clone(),
            reason: self.reason.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "tests"
    )]
    use super::*;
    use crate::fact::OperatorState as State;
    use crate::report::testing::{Told, board, call, cause, operator};

    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn callers_stand_in_a_queue_by_priority_then_by_time() {
        let mut told = Told::new();
        for (n, priority) in [(1, 5), (2, 0), (3, 0)] {
            told.arrives(n);
            told.at(n, What::Queued { queue: "orders".into(), priority });
        }
        let queue = told.board.queue(&"orders".into(), told.now + 10_000).unwrap();
        let places: Vec<_> = queue.callers.iter().map(|caller| (caller.call, caller.place)).collect();
        assert_eq!(places, [(call(2), 1), (call(3), 2), (call(1), 3)]);
        assert_eq!((queue.waiting, queue.today.offered), (3, 3));
        assert!(queue.longest_wait_ms >= 10_000);
    }

    #[test]
    fn a_queue_counts_each_caller_once_whatever_happens_on_the_way() {
        let mut told = Told::new();
        told.at(0, operator("anna", State::Available, None));
        // Answered in time, after a desk that did not answer.
        told.arrives(1);
        told.at(1, What::Queued { queue: "orders".into(), priority: 0 });
        told.at(1, What::Assigned { queue: "orders".into(), operator: "boris".into() });
        assert_eq!(told.call(1).operator, Some("boris".into()));
        told.at(
            1,
            What::Unassigned { queue: "orders".into(), operator: "boris".into(), why: "no_answer".into() },
        );
        assert_eq!((told.call(1).state, told.call(1).operator), (CallState::Queued, None));
        assert_eq!(told.orders().waiting, 1);
        told.at(1, What::Assigned { queue: "orders".into(), operator: "anna".into() });
        told.answered(1, "anna", 12_000);
        assert_eq!(told.orders().waiting, 0);
        // Abandoned after a while, told twice: by the queue and by the end.
        told.arrives(2);
        told.at(2, What::Queued { queue: "orders".into(), priority: 0 });
        told.now += 60_000;
        told.at(2, What::LeftQueue { queue: "orders".into(), why: "abandoned".into() });
        told.ends(2, CallResult::Abandoned, 0);
        // Abandoned at once.
        told.arrives(3);
        told.at(3, What::Queued { queue: "orders".into(), priority: 0 });
        told.ends(3, CallResult::Abandoned, 0);
        told.ends(1, CallResult::Answered, 30_000);
        let today = told.orders().today;
        assert_eq!((today.offered, today.answered, today.abandoned, today.short_abandoned), (3, 1, 2, 1));
        assert_eq!((today.service_level, today.asa_ms, today.aht_ms), (Some(0.5), 12_000, 30_000));
    }

    #[test]
    fn wrap_up_counts_into_the_handling_time_and_talking_into_the_operators_day() {
        let mut told = Told::new();
        told.at(0, operator("anna", State::Available, None));
        told.arrives(1);
        told.at(1, What::Queued { queue: "orders".into(), priority: 0 });
        told.answered(1, "anna", 1_000);
        told.at(0, operator("anna", State::Talking, Some(call(1))));
        told.now += 30_000;
        told.ends(1, CallResult::Answered, 30_000);
        told.at(0, operator("anna", State::WrapUp, None));
        told.now += 10_000;
        told.at(0, operator("anna", State::Available, None));
        let aht_ms = told.orders().today.aht_ms;
        assert!((40_000..40_100).contains(&aht_ms), "{aht_ms}");
        let anna = told.board.operator(&"anna".into(), told.now).unwrap();
        assert_eq!(anna.calls_today, 1);
        assert!((30_000..30_100).contains(&anna.talk_ms_today), "{}", anna.talk_ms_today);
        assert_eq!(told.orders().operators.available, 1);
    }

    #[test]
    fn today_begins_anew_at_local_midnight_even_before_the_first_fact() {
        let mut told = Told::new();
        told.arrives(1);
        told.at(1, What::Queued { queue: "orders".into(), priority: 0 });
        assert_eq!(told.orders().today.offered, 1);
        let tomorrow = told.now + DAY_MS;
        assert_eq!(told.board.queue(&"orders".into(), tomorrow).unwrap().today.offered, 0);
        told.now = tomorrow;
        told.arrives(2);
        assert_eq!(told.orders().today.offered, 0);
        assert_eq!(told.orders().waiting, 1, "whoever waits over midnight still waits");
    }

    #[test]
    fn an_ended_call_leaves_the_board_and_stays_readable_a_while() {
        let mut told = Told::new();
        for n in 1..=MAX_RECENT as u128 + 5 {
            told.arrives(n);
            told.ends(n, CallResult::Abandoned, 0);
        }
        assert_eq!(told.board.calls(told.now), []);
        assert_eq!(told.board.call(call(1), told.now), None);
        let last = told.board.call(call(105), told.now).unwrap();
        assert_eq!((last.state, last.result), (CallState::Ended, Some(CallResult::Abandoned)));
        assert_eq!(told.board.node(told.now).calls, 0);
    }

    #[test]
    fn silence_shows_on_the_leg_and_at_the_operators_microphone() {
        let mut told = Told::new();
        told.arrives(1);
        let leg = |id, party| What::Leg {
            leg: LegId(id),
            party,
            number: Number::default(),
            state: LegState::Up,
            codec: "PCMA".into(),
        };
        told.at(1, leg(1, Party::Trunk("gsm-1".into())));
        told.at(1, leg(2, Party::Operator("anna".into())));
        told.at(0, operator("anna", State::Talking, Some(call(1))));
        let microphone = |told: &Told| told.board.operator(&"anna".into(), told.now).unwrap().microphone;
        assert_eq!(microphone(&told), Microphone::Ok);
        told.at(1, What::MediaSilent { leg: LegId(2), flow: Flow::In, cause: "muted".into() });
        told.now += 2_000;
        assert_eq!(microphone(&told), Microphone::Silent);
        let shape = told.call(1);
        assert!(shape.legs[1].silent_in_ms.unwrap() >= 2_000 && shape.legs[0].silent_in_ms.is_none());
        told.at(1, What::MediaRecovered { leg: LegId(2), flow: Flow::In });
        assert_eq!((microphone(&told), told.call(1).legs[1].silent_in_ms), (Microphone::Ok, None));
        assert_eq!(told.board.calls_of(&"anna".into(), told.now).len(), 1);
        assert!(
            told.board.took_part(&"anna".into(), call(1)) && !told.board.took_part(&"boris".into(), call(1))
        );
        told.at(1, What::LegEnded { leg: LegId(2), cause: Cause::default() });
        assert_eq!((microphone(&told), told.call(1).legs.len()), (Microphone::None, 1));
    }

    #[test]
    fn a_trunk_is_down_up_or_full_and_counts_its_outgoing_calls() {
        let mut told = Told::new();
        let trunk = |told: &Told| told.board.trunk(&"gsm-1".into(), told.now).unwrap();
        assert_eq!(trunk(&told).state, TrunkState::Down);
        told.at(0, What::TrunkUp { trunk: "gsm-1".into(), from: "192.0.2.7:5060".into() });
        told.at(0, What::TrunkLoad { trunk: "gsm-1".into(), busy: 2 });
        assert_eq!((trunk(&told).state, trunk(&told).busy), (TrunkState::Full, 2));
        told.at(0, What::TrunkLoad { trunk: "gsm-1".into(), busy: 1 });
        assert_eq!((trunk(&told).state, trunk(&told).asr), (TrunkState::Up, None));
        told.at(1, What::TrunkFailed { trunk: "gsm-1".into(), cause: cause(503, "no channel") });
        told.dials(1, "anna");
        told.answered(1, "anna", 5_000);
        told.ends(1, CallResult::Answered, 9_000);
        let shape = trunk(&told);
        assert_eq!((shape.asr, shape.last_error.as_str(), shape.false_answers), (Some(0.5), "no channel", 0));
        told.at(0, What::TrunkDown { trunk: "gsm-1".into(), why: "registration ran out".into() });
        assert_eq!(
            (trunk(&told).state, trunk(&told).last_error.as_str()),
            (TrunkState::Down, "registration ran out")
        );
    }

    #[test]
    fn a_card_goes_from_desk_to_desk_and_away() {
        let mut told = Told::new();
        told.arrives(1);
        told.card(1, "anna");
        let id = CardId(call(1).0);
        told.at(1, What::CardMoved { card: id, operator: "boris".into() });
        assert_eq!(
            (told.board.cards_of(&"anna".into()).len(), told.board.cards_of(&"boris".into()).len()),
            (0, 1)
        );
        told.at(1, What::CardCustomer { card: id, customer: r#"{"name":"Olena"}"#.into() });
        let fields: Fields = [("pickup".to_owned(), "Main st. 1".to_owned())].into();
        told.at(1, What::CardSubmitted { card: id, operator: "boris".into(), fields });
        assert_eq!(told.board.card(id).unwrap().state, CardState::Saving);
        told.at(1, What::CardAccepted { card: id });
        told.board.set_order(id, "17");
        assert_eq!(told.board.cards(), []);
        let card = told.board.card(id).unwrap();
        assert_eq!((card.state, card.order.as_deref()), (CardState::Accepted, Some("17")));
        assert_eq!(card.customer.unwrap()["name"], "Olena");
        assert_eq!(told.call(1).card, Some(id));
    }

    #[test]
    fn a_new_configuration_keeps_what_is_alive() {
        let mut told = Told::new();
        told.arrives(1);
        told.at(1, What::Queued { queue: "orders".into(), priority: 0 });
        let mut roster = board().roster;
        roster.queues.push(QueueKnown { name: "seniors".into(), service_level_ms: 1, short_abandon_ms: 1 });
        roster.trunks.clear();
        told.board.reload(roster);
        let waiting: Vec<usize> = told.board.queues(told.now).iter().map(|queue| queue.waiting).collect();
        assert_eq!((waiting, told.board.trunks(told.now)), (vec![1, 0], vec![]));
    }
}
