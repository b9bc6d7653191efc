//! The store and the order core of a world: facts become durable some time after they were handed
//! over, in their order; what was not durable when the node died is lost; orders go to the core under
//! their key until it has them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tandem::fact::{Fact, What};
use tandem::report::Cdr;
use tandem::terms::{CallId, CardId};

use crate::dice::Dice;

#[derive(Debug, Default)]
pub struct Store {
    /// Handed over, not durable yet: when it will be, and what.
    tail: VecDeque<(u64, Fact)>,
    last_commit_ms: u64,
    pub last_seq: u64,
    pub epoch: u64,
    /// How long a commit takes at least: a death loses the facts of so many batches more.
    pub lag_ms: u64,
    /// Calls that began and did not end. As in the real store, a fact of a call that is not here changes
    /// nothing, its end neither.
    open: BTreeMap<CallId, Cdr>,
    /// Call records, one a call: the first end counts.
    pub cdr: BTreeMap<CallId, Cdr>,
    /// Orders in the outbox, by key: when the letter goes out.
    pub outbox: BTreeMap<CardId, Order>,
}

#[derive(Debug)]
pub struct Order {
    pub call: Option<CallId>,
    pub send_ms: u64,
    pub arrivals: u32,
}

impl Store {
    pub fn append(&mut self, fact: Fact, slow: bool, dice: &mut Dice, now: u64) {
        let wait = if slow && dice.chance(3) { 2_000 } else { dice.range(3, 25) };
        let at = self.last_commit_ms.max(now + wait.max(self.lag_ms));
        self.last_commit_ms = at;
        self.tail.push_back((at, fact));
    }

    pub fn next_timeout(&self) -> Option<u64> {
        let letters = self.outbox.values().filter(|order| order.arrivals == 0).map(|order| order.send_ms);
        self.tail.front().map(|(at, _)| *at).into_iter().chain(letters).min()
    }

    /// Makes durable what is due; the last number, if there was any.
    pub fn commit(&mut self, dice: &mut Dice, now: u64) -> Option<u64> {
        let mut seq = None;
        while self.tail.front().is_some_and(|(at, _)| *at <= now) {
            let (_, fact) = self.tail.pop_front()?;
            seq = Some(fact.seq);
            self.apply(&fact, dice, now);
        }
        self.deliver(dice, now);
        seq
    }

    fn apply(&mut self, fact: &Fact, dice: &mut Dice, now: u64) {
        self.last_seq = self.last_seq.max(fact.seq);
        self.epoch = self.epoch.max(fact.epoch.0);
        if let What::CardSubmitted { card, .. } = &fact.what {
            let send_ms = now + dice.range(10, 400);
            self.outbox.entry(*card).or_insert(Order { call: fact.call, send_ms, arrivals: 0 });
        }
        self.record(fact);
    }

    /// The call's record, as `edge/store/project.rs` writes it.
    fn record(&mut self, fact: &Fact) {
        if let Some(cdr) = Cdr::begin(fact) {
            if !self.cdr.contains_key(&cdr.call) {
                self.open.entry(cdr.call).or_insert(cdr);
            }
            return;
        }
        let Some(call) = fact.call else { return };
        let Some(open) = self.open.get_mut(&call) else { return };
        if open.fold(fact) && open.ended_at.is_some() {
            let cdr = self.open.remove(&call).expect("just seen");
            self.cdr.entry(call).or_insert(cdr);
        }
    }

    /// The courier: a letter arrives, sometimes twice because its answer was lost.
    fn deliver(&mut self, dice: &mut Dice, now: u64) {
        for order in self.outbox.values_mut().filter(|order| order.arrivals == 0 && order.send_ms <= now) {
            if dice.chance(10) {
                order.send_ms = now + 1_000;
            } else {
                order.arrivals += if dice.chance(10) { 2 } else { 1 };
            }
        }
    }

    /// The process died.
    pub fn crash(&mut self) {
        self.tail.clear();
    }

    /// At a start: calls that nobody carries on are closed as lost.
    pub fn load(&mut self, alive: &BTreeSet<CallId>) {
        for (call, cdr) in std::mem::take(&mut self.open) {
            if alive.contains(&call) {
                self.open.insert(call, cdr);
            } else {
                self.cdr.entry(call).or_insert(cdr.lost(0));
            }
        }
    }

    pub fn open_calls(&self) -> usize {
        self.open.len()
    }
}
