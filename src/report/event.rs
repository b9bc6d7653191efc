//! The event stream: each fact as what a browser or a program reads over its WebSocket.
//!
//! Invariant: events are numbered by one, in the order of the facts, and each carries the whole new
//! object, so that a reader who lost some needs only the next one, and one who lost many a snapshot.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::fact::{CallResult, Fact, Flow, What};
use crate::report::board::Board;
use crate::report::shape::{At, TrunkState};
use crate::terms::{CallId, CardId, OperatorName, QueueName, TrunkName, WallMs};

/// Events that a reader may ask for again.
pub const MAX_EVENTS: usize = 10_000;

/// Whom an event may be sent to; those who see everything get every event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Everybody who is logged in.
    All,
    /// These operators (none: only those who see everything).
    Operators(Vec<OperatorName>),
}

/// Who reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// Account name.
    pub name: OperatorName,
    /// Supervisors, admins and API tokens see every call and card.
    pub sees_all: bool,
}

impl Viewer {
    /// Whether `audience` holds this reader.
    pub fn is_in(&self, audience: &Audience) -> bool {
        match audience {
            Audience::All => true,
            Audience::Operators(names) => self.sees_all || names.contains(&self.name),
        }
    }
}

/// One message of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Grows by one.
    pub seq: u64,
    /// When.
    pub at: WallMs,
    /// `call.arrived`, `operator.state`, …
    pub kind: &'static str,
    /// The call it belongs to.
    pub call: Option<CallId>,
    /// Who may read it.
    pub audience: Audience,
    /// The whole JSON object, as sent.
    pub json: Arc<str>,
}

/// What a reader who saw everything up to a number is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// These, in order (perhaps none).
    Events(Vec<Arc<Event>>),
    /// That number is too old, or of another epoch: a snapshot.
    Reset,
}

/// The last events.
#[derive(Debug, Default)]
pub struct EventLog {
    ring: VecDeque<Arc<Event>>,
    last: u64,
}

impl EventLog {
    /// Events are numbered from 1.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of the newest event, 0 before the first.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The events of one fact; `board` has folded it already.
    pub fn push(&mut self, fact: &Fact, board: &Board) -> Vec<Arc<Event>> {
        let drafts = drafts(fact, board);
        drafts.into_iter().map(|draft| self.add(fact.at, fact.call, draft)).collect()
    }

    /// The node's role changed (no fact of a call says so).
    pub fn push_role(&mut self, board: &Board, now: WallMs) -> Arc<Event> {
        let draft = Draft::new("node.role", Audience::All).with("node", &board.node(now));
        self.add(now, None, draft)
    }

    fn add(&mut self, at: WallMs, call: Option<CallId>, draft: Draft) -> Arc<Event> {
        self.last = self.last.saturating_add(1);
        let mut body = draft.body;
        body.insert("seq".to_owned(), self.last.into());
        body.insert("at".to_owned(), At(at).to_string().into());
        body.insert("type".to_owned(), draft.kind.into());
        if let Some(call) = call {
            body.insert("call".to_owned(), call.to_string().into());
        }
        let json = Value::Object(body).to_string().into();
        let event =
            Arc::new(Event { seq: self.last, at, kind: draft.kind, call, audience: draft.audience, json });
        if self.ring.len() >= MAX_EVENTS {
            self.ring.pop_front();
        }
        self.ring.push_back(Arc::clone(&event));
        event
    }

    /// What follows `seq`. A number that this log never gave is another epoch's: reset.
    pub fn since(&self, seq: u64) -> Since {
        let first = self.ring.front().map_or(self.last.saturating_add(1), |event| event.seq);
        if seq > self.last || seq.saturating_add(1) < first {
            return Since::Reset;
        }
        Since::Events(self.ring.iter().filter(|event| event.seq > seq).cloned().collect())
    }
}

/// `{type:"reset", seq, at, snapshot:{me, calls, cards, operators, queues, trunks, node}}` as `viewer`
/// may see it; `seq` is the number of the newest event it contains.
pub fn snapshot(board: &Board, viewer: &Viewer, seq: u64, now: WallMs) -> String {
    let (calls, cards) = if viewer.sees_all {
        (board.calls(now), board.cards())
    } else {
        (board.calls_of(&viewer.name, now), board.cards_of(&viewer.name))
    };
    json!({
        "type": "reset",
        "seq": seq,
        "at": At(now).to_string(),
        "snapshot": {
            "me": board.operator(&viewer.name, now),
            "calls": calls,
            "cards": cards,
            "operators": board.operators(now),
            "queues": board.queues(now),
            "trunks": board.trunks(now),
            "node": board.node(now),
        }
    })
    .to_string()
}

struct Draft {
    kind: &'static str,
    audience: Audience,
    body: Map<String, Value>,
}

impl Draft {
    fn new(kind: &'static str, audience: Audience) -> Self {
        Self { kind, audience, body: Map::new() }
    }

    fn with<T: Serialize>(mut self, key: &str, value: &T) -> Self {
        self.body.insert(key.to_owned(), serde_json::to_value(value).unwrap_or(Value::Null));
        self
    }
}

/// The events of a fact, without their numbers.
fn drafts(fact: &Fact, board: &Board) -> Vec<Draft> {
    let call = |kind| call_draft(kind, fact, board);
    let trunk = |kind, name: &TrunkName| trunk_draft(kind, name, board, fact.at);
    let card = |kind, id: &CardId| card_draft(kind, *id, board);
    match &fact.what {
        What::NodeStarted { .. } => {
            vec![Draft::new("node.role", Audience::All).with("node", &board.node(fact.at))]
        }
        What::TrunkUp { trunk: name, .. } => trunk("trunk.up", name),
        What::TrunkDown { trunk: name, .. } => trunk("trunk.down", name),
        What::TrunkFailed { trunk: name, .. } => trunk("trunk.failed", name),
        What::TrunkLoad { trunk: name, .. } => {
            let full = board.trunk(name, fact.at).is_some_and(|shape| shape.state == TrunkState::Full);
            trunk(if full { "trunk.full" } else { "trunk.load" }, name)
        }
        What::Operator { operator, queues, .. } => {
            let shape = board.operator(operator, fact.at);
            let mut drafts = vec![Draft::new("operator.state", Audience::All).with("operator", &shape)];
            drafts.extend(queues.iter().filter_map(|name| queue_draft(name, board, fact.at)));
            drafts
        }
        What::Arrived { .. } => call("call.arrived"),
        What::Leg { .. } | What::LegEnded { .. } => call("call.changed"),
        What::Greeting { .. } => call("call.greeting"),
        What::Queued { queue, .. } => with_queue(call("call.queued"), Some(queue), board, fact.at),
        What::LeftQueue { queue, .. } => with_queue(call("call.left_queue"), Some(queue), board, fact.at),
        What::Assigned { .. } => call("call.assigned"),
        What::Unassigned { .. } => call("call.unassigned"),
        What::Ringing { .. } => call("call.ringing"),
        What::EarlyMedia { .. } => call("call.early_media"),
        What::Tone { tone, local } => {
            call("tone").into_iter().map(|draft| draft.with("kind", tone).with("local", local)).collect()
        }
        What::Answered { queue, .. } => with_queue(call("call.answered"), queue.as_ref(), board, fact.at),
        What::Held => call("call.held"),
        What::Resumed => call("call.resumed"),
        What::Digit { .. } => Vec::new(),
        What::MediaSilent { leg, flow, cause } => {
            vec![
                media("media.silent", fact, board)
                    .with("leg", leg)
                    .with("direction", &direction(*flow))
                    .with("cause", cause),
            ]
        }
        What::MediaRecovered { leg, flow } => {
            vec![media("media.recovered", fact, board).with("leg", leg).with("direction", &direction(*flow))]
        }
        What::MediaQuality { leg, quality } => {
            vec![media("media.quality", fact, board).with("leg", leg).with("quality", quality)]
        }
        What::Ended { result, .. } => {
            let mut drafts = Vec::new();
            if *result == CallResult::Transferred {
                drafts = call("call.transferred");
            }
            drafts.extend(call("call.ended"));
            let queue = fact.call.and_then(|id| board.call(id, fact.at)?.queue);
            with_queue(drafts, queue.as_ref(), board, fact.at)
        }
        What::CardOpened { card: id, .. } => card("card.opened", id),
        What::CardMoved { card: id, .. } => card("card.moved", id),
        What::CardCustomer { card: id, .. } => card("card.customer", id),
        What::CardUpdated { card: id, .. } => card("card.updated", id),
        What::CardSubmitted { card: id, .. } => card("card.saving", id),
        What::CardAccepted { card: id } => card("card.accepted", id),
        What::CardDiscarded { card: id, .. } => card("card.discarded", id),
    }
}

fn direction(flow: Flow) -> &'static str {
    match flow {
        Flow::In => "in",
        Flow::Out => "out",
    }
}

fn concerned(fact: &Fact, board: &Board) -> Audience {
    Audience::Operators(fact.call.map(|id| board.seen_by(id)).unwrap_or_default())
}

fn call_draft(kind: &'static str, fact: &Fact, board: &Board) -> Vec<Draft> {
    let shape = fact.call.and_then(|id| board.call(id, fact.at));
    shape.map(|shape| Draft::new(kind, concerned(fact, board)).with("object", &shape)).into_iter().collect()
}

fn media(kind: &'static str, fact: &Fact, board: &Board) -> Draft {
    Draft::new(kind, concerned(fact, board))
}

fn trunk_draft(kind: &'static str, name: &TrunkName, board: &Board, now: WallMs) -> Vec<Draft> {
    board
        .trunk(name, now)
        .map(|shape| Draft::new(kind, Audience::All).with("trunk", &shape))
        .into_iter()
        .collect()
}

fn queue_draft(name: &QueueName, board: &Board, now: WallMs) -> Option<Draft> {
    Some(Draft::new("queue.stats", Audience::All).with("queue", &board.queue(name, now)?))
}

fn with_queue(mut drafts: Vec<Draft>, queue: Option<&QueueName>, board: &Board, now: WallMs) -> Vec<Draft> {
    drafts.extend(queue.and_then(|name| queue_draft(name, board, now)));
    drafts
}

/// The customer travels beside the card only, so that a keystroke does not repeat his whole history.
fn card_draft(kind: &'static str, id: CardId, board: &Board) -> Vec<Draft> {
    let Some(mut shape) = board.card(id) else { return Vec::new() };
    let customer = shape.customer.take();
    let mut draft = Draft::new(kind, Audience::Operators(board.desks(id))).with("card", &shape);
    let wanted = matches!(kind, "card.opened" | "card.moved" | "card.customer");
    if let Some(customer) = customer.filter(|_| wanted) {
        draft = draft.with("customer", &customer);
    }
    vec![draft]
}
