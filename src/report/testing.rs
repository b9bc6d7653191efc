//! A board that is told stories.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::sync::Arc;

use uuid::Uuid;

use crate::fact::{CallResult, Cause, Direction, Fact, OperatorState, Phone, What};
use crate::report::board::{Board, QueueKnown, Roster, TrunkKnown};
use crate::report::shape::{CallShape, QueueShape};
use crate::terms::{CallId, CardId, Epoch, Number, WallMs};

pub(super) const BEGIN: WallMs = 1_772_357_400_000;

pub(super) fn call(n: u128) -> CallId {
    CallId(Uuid::from_u128(n))
}

pub(super) fn cause(sip: u16, words: &str) -> Cause {
    Cause { q850: 0, sip, words: words.into() }
}

pub(super) fn operator(name: &'static str, state: OperatorState, call: Option<CallId>) -> What {
    What::Operator {
        operator: name.into(),
        state,
        reason: String::new(),
        call,
        phone: Phone::Registered,
        queues: vec!["orders".into()],
        auto_answer: true,
        wrap_up_until: None,
    }
}

/// One queue, one trunk with two channels, UTC.
pub(super) fn board() -> Board {
    let queue = QueueKnown { name: "orders".into(), service_level_ms: 20_000, short_abandon_ms: 5_000 };
    let trunk = TrunkKnown { name: "gsm-1".into(), kind: "gateway".into(), channels: 2, disabled: false };
    let roster = Roster {
        node: "tandem-1".into(),
        version: "0.1.0".into(),
        queues: vec![queue],
        trunks: vec![trunk],
        skills: [("anna".into(), vec!["english".to_owned()])].into(),
    };
    Board::new(roster, Arc::new(|at| at.div_euclid(86_400_000)), BEGIN)
}

/// A board, its clock and the facts it was told.
pub(super) struct Told {
    pub(super) board: Board,
    pub(super) now: WallMs,
    pub(super) facts: Vec<Fact>,
}

impl Told {
    pub(super) fn new() -> Self {
        Self { board: board(), now: BEGIN, facts: Vec::new() }
    }

    /// A fact of call `n`, 0 for none, a millisecond later.
    pub(super) fn at(&mut self, n: u128, what: What) {
        self.now += 1;
        let seq = self.facts.len() as u64 + 1;
        let fact = Fact { seq, epoch: Epoch(1), at: self.now, call: (n > 0).then(|| call(n)), what };
        self.board.fold(&fact);
        self.facts.push(fact);
    }

    pub(super) fn arrives(&mut self, n: u128) {
        let arrived = What::Arrived {
            direction: Direction::In,
            caller: Number::new("+380671234567"),
            called: Number::new("+380441234567"),
            line: Number::new("+380441234567"),
            trunk: Some("gsm-1".into()),
            operator: None,
        };
        self.at(n, arrived);
    }

    pub(super) fn dials(&mut self, n: u128, operator: &'static str) {
        let arrived = What::Arrived {
            direction: Direction::Out,
            caller: Number::new("+380441234567"),
            called: Number::new("+380671234567"),
            line: Number::default(),
            trunk: None,
            operator: Some(operator.into()),
        };
        self.at(n, arrived);
        self.at(n, What::Ringing { trunk: "gsm-1".into() });
    }

    pub(super) fn answered(&mut self, n: u128, operator: &'static str, wait_ms: u64) {
        let incoming = self.call(n).direction == Direction::In;
        let answered = What::Answered {
            operator: Some(operator.into()),
            trunk: Some("gsm-1".into()),
            queue: incoming.then(|| "orders".into()),
            wait_ms,
        };
        self.at(n, answered);
    }

    pub(super) fn ends(&mut self, n: u128, result: CallResult, talk_ms: u64) {
        let cause = Cause::default();
        self.at(n, What::Ended { result, cause, by: "caller".into(), wait_ms: 1, talk_ms });
    }

    /// Opens the call's card, under the call's id.
    pub(super) fn card(&mut self, n: u128, operator: &'static str) {
        let opened = What::CardOpened {
            card: CardId(call(n).0),
            caller: Number::new("+380671234567"),
            line: Number::new("+380441234567"),
            trunk: Some("gsm-1".into()),
            queue: Some("orders".into()),
            operator: operator.into(),
        };
        self.at(n, opened);
    }

    pub(super) fn call(&self, n: u128) -> CallShape {
        self.board.call(call(n), self.now).unwrap()
    }

    pub(super) fn orders(&self) -> QueueShape {
        self.board.queue(&"orders".into(), self.now).unwrap()
    }
}
