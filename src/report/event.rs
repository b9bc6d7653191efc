//! The event stream: each fact as what a browser or a program reads over its WebSocket.
//!
//! Invariant: events are numbered by one, in the order of the facts, and each carries the whole new
//! object, so that a reader who lost some needs only the next one, and one who lost many a snapshot.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use crate::fact::{Fact, Flow, What};
use crate::report::board::Board;
use crate::report::shape::{At, TrunkState};
use crate::terms::{CallId, CardId, Epoch, OperatorName, QueueName, TrunkName, WallMs};

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

/// How far the first events of two epochs lie apart.
const EVENTS_OF_AN_EPOCH: u64 = 1 << 32;

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

    /// Events of an epoch are numbered from a place that no earlier epoch reached, so that a number of
    /// an earlier one is answered with a reset. JSON numbers stay exact for two million epochs.
    pub fn of_epoch(epoch: Epoch) -> Self {
        Self { ring: VecDeque::new(), last: epoch.0.saturating_mul(EVENTS_OF_AN_EPOCH) }
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
        let Draft { kind, audience, body } = draft;
        let call_member = call.map(|call| format!(",\"call\":\"{call}\"")).unwrap_or_default();
        let seq = self.last;
        let json = format!("{{\"seq\":{seq},\"at\":\"{}\",\"type\":\"{kind}\"{call_member}{body}}}", At(at));
        let event = Arc::new(Event { seq, at, kind, call, audience, json: json.into() });
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
    /// Members of the JSON object, each with a comma before it.
    body: String,
}

impl Draft {
    fn new(kind: &'static str, audience: Audience) -> Self {
        Self { kind, audience, body: String::new() }
    }

    fn with<T: Serialize>(mut self, key: &'static str, value: &T) -> Self {
        // Written at once: a tree of JSON values between costs twice as much as the text.
        let value = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
        for part in [",\"", key, "\":", &value] {
            self.body.push_str(part);
        }
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
        What::Transferred { .. } => call("call.transferred"),
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
        What::Ended { .. } => {
            let drafts = call("call.ended");
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

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "tests"
    )]
    use serde_json::Value;

    use super::*;
    use crate::fact::{OperatorState, ToneKind};
    use crate::report::testing::{Told, call, operator};
    use crate::terms::LegId;

    fn viewer(name: &'static str, sees_all: bool) -> Viewer {
        Viewer { name: name.into(), sees_all }
    }

    /// Tells the log about the newest fact.
    fn push(log: &mut EventLog, told: &Told) -> Vec<Arc<Event>> {
        log.push(told.facts.last().unwrap(), &told.board)
    }

    fn json(event: &Event) -> Value {
        serde_json::from_str(&event.json).unwrap()
    }

    #[test]
    fn each_fact_becomes_its_events() {
        let queue = || "orders".into();
        let table: [(What, &[&str]); 12] = [
            (What::Queued { queue: queue(), priority: 0 }, &["call.queued", "queue.stats"]),
            (What::Assigned { queue: queue(), operator: "anna".into() }, &["call.assigned"]),
            (What::EarlyMedia { trunk: "gsm-1".into() }, &["call.early_media"]),
            (What::Tone { tone: ToneKind::Busy, local: true }, &["tone"]),
            (What::Held, &["call.held"]),
            (What::Digit { leg: LegId(1) }, &[]),
            (What::MediaSilent { leg: LegId(1), flow: Flow::In, cause: "muted".into() }, &["media.silent"]),
            (What::TrunkUp { trunk: "gsm-1".into(), from: String::new() }, &["trunk.up"]),
            (What::TrunkLoad { trunk: "gsm-1".into(), busy: 1 }, &["trunk.load"]),
            (What::TrunkLoad { trunk: "gsm-1".into(), busy: 2 }, &["trunk.full"]),
            (What::TrunkUp { trunk: "gone".into(), from: String::new() }, &[]),
            (operator("anna", OperatorState::Available, None), &["operator.state", "queue.stats"]),
        ];
        let (mut told, mut log) = (Told::new(), EventLog::new());
        told.arrives(1);
        assert_eq!(push(&mut log, &told)[0].kind, "call.arrived");
        for (what, kinds) in table {
            told.at(1, what.clone());
            let events = push(&mut log, &told);
            assert_eq!(events.iter().map(|event| event.kind).collect::<Vec<_>>(), kinds, "{what:?}");
        }
    }

    #[test]
    fn an_event_carries_number_time_type_call_and_the_whole_object() {
        let (mut told, mut log) = (Told::new(), EventLog::new());
        told.arrives(1);
        push(&mut log, &told);
        told.at(1, What::Queued { queue: "orders".into(), priority: 0 });
        let events = push(&mut log, &told);
        let (first, second) = (json(&events[0]), json(&events[1]));
        assert_eq!((first["seq"].as_u64(), second["seq"].as_u64()), (Some(2), Some(3)));
        assert_eq!(first["at"], "2026-03-01T09:30:00.002Z");
        assert_eq!(
            (first["type"].as_str(), first["call"].clone()),
            (Some("call.queued"), call(1).to_string().into())
        );
        assert_eq!(
            (first["object"]["state"].as_str(), first["object"]["caller"].as_str()),
            (Some("queued"), Some("+380671234567"))
        );
        assert_eq!(second["queue"]["callers"][0]["place"], 1);
        told.at(1, What::Tone { tone: ToneKind::Congestion, local: false });
        let tone = json(&push(&mut log, &told)[0]);
        assert_eq!((tone["kind"].as_str(), tone["local"].as_bool()), (Some("congestion"), Some(false)));
    }

    #[test]
    fn a_call_is_shown_to_those_who_take_part_and_to_supervisors() {
        let (mut told, mut log) = (Told::new(), EventLog::new());
        told.arrives(1);
        let arrived = push(&mut log, &told);
        told.at(1, What::Assigned { queue: "orders".into(), operator: "anna".into() });
        let assigned = push(&mut log, &told);
        told.at(
            1,
            What::Unassigned { queue: "orders".into(), operator: "anna".into(), why: "no_answer".into() },
        );
        let unassigned = push(&mut log, &told);
        let sees = |name, events: &[Arc<Event>]| viewer(name, false).is_in(&events[0].audience);
        assert_eq!(
            (sees("anna", &arrived), sees("anna", &assigned), sees("anna", &unassigned)),
            (false, true, true)
        );
        assert!(!sees("boris", &unassigned) && viewer("eva", true).is_in(&arrived[0].audience));
    }

    #[test]
    fn a_card_that_moves_tells_both_desks_and_brings_the_customer_along() {
        let (mut told, mut log) = (Told::new(), EventLog::new());
        told.arrives(1);
        told.card(1, "anna");
        let opened = push(&mut log, &told);
        assert_eq!(
            (opened[0].kind, json(&opened[0])["card"]["state"].as_str()),
            ("card.opened", Some("draft"))
        );
        let card = CardId(call(1).0);
        told.at(1, What::CardCustomer { card, customer: r#"{"name":"Olena"}"#.into() });
        assert_eq!(json(&push(&mut log, &told)[0])["customer"]["name"], "Olena");
        told.at(1, What::CardMoved { card, operator: "boris".into() });
        let moved = push(&mut log, &told);
        assert!(
            viewer("anna", false).is_in(&moved[0].audience)
                && viewer("boris", false).is_in(&moved[0].audience)
        );
        assert_eq!(json(&moved[0])["customer"]["name"], "Olena");
        told.at(1, What::CardUpdated { card, fields: [("when".to_owned(), "now".to_owned())].into() });
        let updated = json(&push(&mut log, &told)[0]);
        assert!(updated.get("customer").is_none() && updated["card"].get("customer").is_none());
        assert_eq!(updated["card"]["fields"]["when"], "now");
    }

    #[test]
    fn a_transferred_call_says_so_before_it_ends() {
        let (mut told, mut log) = (Told::new(), EventLog::new());
        told.arrives(1);
        let (by, operator) = ("anna".into(), Some("boris".into()));
        told.at(1, What::Transferred { by, operator, trunk: None });
        assert_eq!(push(&mut log, &told)[0].kind, "call.transferred");
        told.ends(1, crate::fact::CallResult::Transferred, 5_000);
        let events = push(&mut log, &told);
        assert_eq!(events.iter().map(|event| event.kind).collect::<Vec<_>>(), ["call.ended"]);
        assert_eq!(json(&events[0])["object"]["result"], "transferred");
    }

    #[test]
    fn the_last_ten_thousand_can_be_asked_for_again_and_others_reset() {
        let (mut told, mut log) = (Told::new(), EventLog::new());
        assert_eq!(log.since(0), Since::Events(vec![]));
        assert_eq!(log.since(1), Since::Reset, "another epoch's number");
        told.arrives(1);
        let fact = told.facts.last().unwrap().clone();
        for _ in 0..MAX_EVENTS + 10 {
            log.push(&fact, &told.board);
        }
        let last = log.last();
        let Since::Events(events) = log.since(last - 3) else { panic!("reset") };
        assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [last - 2, last - 1, last]);
        assert!(matches!(log.since(10), Since::Events(events) if events.len() == MAX_EVENTS));
        assert_eq!(log.since(9), Since::Reset);
    }

    #[test]
    fn a_snapshot_shows_an_operator_his_own_and_a_supervisor_everything() {
        let mut told = Told::new();
        told.at(0, operator("anna", OperatorState::Available, None));
        for (n, name) in [(1, "anna"), (2, "boris")] {
            told.arrives(n);
            told.at(n, What::Assigned { queue: "orders".into(), operator: name.into() });
            told.card(n, name);
        }
        let of = |name, all| -> Value {
            serde_json::from_str(&snapshot(&told.board, &viewer(name, all), 7, told.now)).unwrap()
        };
        let (anna, eva) = (of("anna", false), of("eva", true));
        let lengths = |value: &Value| {
            ["calls", "cards", "operators", "queues", "trunks"]
                .map(|key| value["snapshot"][key].as_array().unwrap().len())
        };
        assert_eq!((lengths(&anna), lengths(&eva)), ([1, 1, 1, 1, 1], [2, 2, 1, 1, 1]));
        assert_eq!((anna["type"].as_str(), anna["seq"].as_u64()), (Some("reset"), Some(7)));
        assert_eq!(
            (anna["snapshot"]["me"]["name"].as_str(), eva["snapshot"]["me"].is_null()),
            (Some("anna"), true)
        );
        assert_eq!(anna["snapshot"]["me"]["skills"][0], "english");
        assert_eq!(anna["snapshot"]["node"]["role"], "single");
    }
}
