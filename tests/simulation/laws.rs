//! What must hold after every step, whatever happened.

use std::collections::{BTreeMap, BTreeSet};

use tandem::call::Stage;
use tandem::engine::{Answer, Engine};
use tandem::fact::{Fact, LegState, Party, What};
use tandem::terms::{CallId, CardId, Epoch, OperatorName, PortId, TrunkName};

use crate::plane::Plane;
use crate::store::Store;

/// What the laws remember of the past.
#[derive(Debug, Default)]
pub struct Laws {
    last: Option<(Epoch, u64)>,
    /// Calls that some engine told of.
    arrived: BTreeSet<CallId>,
    /// Calls that the engine of now told of: it carries no call that it did not tell.
    told: BTreeSet<CallId>,
    /// Ends told by the engine that lives now.
    ended: BTreeSet<CallId>,
    pub accepted: BTreeSet<CardId>,
    /// What facts said last of each operator and trunk.
    operators: BTreeMap<OperatorName, What>,
    load: BTreeMap<TrunkName, u32>,
    accepted_facts: BTreeSet<CardId>,
    /// The call that a panic touched: it ends now, and its card stays on the desk.
    pub broken_off: Option<CallId>,
    pub broken: Vec<String>,
}

impl Laws {
    fn wrong(&mut self, words: impl Into<String>) {
        self.broken.push(words.into());
    }

    /// Another engine goes on: it may tell again what the last batches of the other one told.
    pub fn crash(&mut self) {
        self.ended.clear();
        self.told.clear();
        self.accepted_facts.clear();
        self.operators.clear();
        self.load.clear();
    }

    pub fn has_ended(&self, call: CallId) -> bool {
        self.ended.contains(&call)
    }

    pub fn fact(&mut self, fact: &Fact, store: &Store) {
        if matches!(fact.what, What::CardDiscarded { .. }) && fact.call == self.broken_off {
            self.wrong("the card of a broken call left the desk");
        }
        match self.last {
            Some((epoch, seq)) if epoch == fact.epoch && fact.seq != seq + 1 => {
                self.wrong(format!("fact {} follows fact {seq}", fact.seq));
            }
            Some((epoch, _)) if fact.epoch < epoch => self.wrong("an old epoch speaks"),
            Some(_) | None => {}
        }
        self.last = Some((fact.epoch, fact.seq));
        let of_card = matches!(
            fact.what,
            What::CardOpened { .. }
                | What::CardMoved { .. }
                | What::CardCustomer { .. }
                | What::CardUpdated { .. }
                | What::CardSubmitted { .. }
                | What::CardAccepted { .. }
                | What::CardDiscarded { .. }
        );
        if let Some(call) = fact.call {
            if self.ended.contains(&call) && !of_card {
                self.wrong(format!("{:?} after call {call} ended", fact.what));
            }
            if matches!(fact.what, What::Arrived { .. }) {
                self.arrived.insert(call);
                if !self.told.insert(call) {
                    self.wrong(format!("call {call} arrived twice"));
                }
            } else if !of_card && !self.told.contains(&call) {
                self.wrong(format!("{:?} of call {call} before it arrived", fact.what));
            }
            if let What::Ended { .. } = fact.what {
                self.ended.insert(call);
            }
        }
        if let What::Operator { operator, .. } = &fact.what {
            self.operators.insert(operator.clone(), fact.what.clone());
        }
        if let What::TrunkLoad { trunk, busy } = &fact.what {
            self.load.insert(trunk.clone(), *busy);
        }
        if let What::CardAccepted { card } = fact.what {
            if !self.accepted_facts.insert(card) {
                self.wrong(format!("card {card} is accepted twice"));
            }
            self.durable(card, store);
        }
    }

    pub fn reply(&mut self, answer: &Answer, store: &Store) {
        if let Answer::Accepted(card) = answer {
            self.accepted.insert(*card);
            self.durable(*card, store);
        }
    }

    fn durable(&mut self, card: CardId, store: &Store) {
        if !store.outbox.contains_key(&card) {
            self.wrong(format!("card {card} is accepted but its order is not durable"));
        }
    }

    pub fn check(&mut self, engine: &Engine, plane: &mut Plane) {
        self.broken.append(&mut plane.wrong);
        self.tickets(engine);
        self.operators(engine);
        self.ports(engine, plane);
        self.talk(engine, plane);
        self.sound(engine, plane);
        if engine.runaway() != 0 {
            self.wrong("the machines do not come to rest");
        }
        if let Some(pending) = engine.calls().all().find(|call| self.ended.contains(&call.id)) {
            let words = format!("call {} ended but is alive", pending.id);
            self.wrong(words);
        }
    }

    /// Every waiting call has its ticket, and every ticket its call.
    fn tickets(&mut self, engine: &Engine) {
        let mut waiting = BTreeMap::new();
        for call in engine.calls().all() {
            match &call.stage {
                Stage::Waiting { queue } => drop(waiting.insert(call.id, (queue.clone(), None))),
                Stage::Offering { queue, operator, .. } => {
                    waiting.insert(call.id, (queue.clone(), Some(operator.clone())));
                }
                Stage::Calling
                | Stage::Greeting { .. }
                | Stage::Dialling(_)
                | Stage::Talking
                | Stage::Farewell { .. } => {}
            }
        }
        let floor = engine.floor();
        for queue in floor.queues() {
            for ticket in floor.line(&queue.name) {
                if !waiting.contains_key(&ticket.call) {
                    self.wrong(format!("ticket {ticket:?} has no waiting call"));
                }
            }
        }
        for (call, (queue, offered)) in waiting {
            // A queue that is not configured any more keeps the ticket of a caller whose call rings.
            let ticket = floor.ticket(call);
            if !ticket.is_some_and(|ticket| ticket.queue == queue && ticket.offered == offered) {
                self.wrong(format!("call {call} waits in {queue} at {offered:?} with {ticket:?}"));
            }
        }
    }

    /// An operator is in at most one call, and floor and calls say the same.
    fn operators(&mut self, engine: &Engine) {
        let mut busy: BTreeMap<OperatorName, CallId> = BTreeMap::new();
        for call in engine.calls().all() {
            let ringing = match &call.stage {
                Stage::Offering { operator, .. } => Some(operator.clone()),
                _ => None,
            };
            let handed = call.transfer.as_ref().and_then(|transfer| transfer.target.clone());
            for operator in [ringing, handed, call.operator.clone()].into_iter().flatten() {
                if let Some(other) = busy.insert(operator.clone(), call.id) {
                    self.wrong(format!("{operator} is in calls {other} and {}", call.id));
                }
            }
        }
        let said: BTreeMap<OperatorName, CallId> =
            engine.floor().operators().filter_map(|one| Some((one.operator, one.call?))).collect();
        for standing in engine.floor().operators() {
            let told = self.operators.get(&standing.operator);
            if told.is_some_and(|told| *told != standing.fact()) {
                let words = format!("{standing:?} was told as {told:?}");
                self.wrong(words);
            }
        }
        if busy != said {
            self.wrong(format!("calls hold {busy:?}, the floor says {said:?}"));
        }
    }

    /// Ports open are those of legs alive, and every leg of a call is a leg of SIP.
    fn ports(&mut self, engine: &Engine, plane: &Plane) {
        let of_legs: BTreeSet<PortId> = engine
            .calls()
            .all()
            .flat_map(|call| call.legs())
            .filter_map(|leg| leg.port.as_ref())
            .map(|port| port.id)
            .collect();
        let open: BTreeSet<PortId> = plane.ports.keys().copied().collect();
        if of_legs != open {
            self.wrong(format!("legs hold ports {of_legs:?}, open are {open:?}"));
        }
        let legs = engine.calls().all().flat_map(|call| call.legs()).count();
        if engine.sip_counts().legs < legs {
            self.wrong(format!("calls have {legs} legs, SIP only {}", engine.sip_counts().legs));
        }
    }

    /// Who waits hears music, who is greeted hears the greeting: also after a restore.
    fn sound(&mut self, engine: &Engine, plane: &Plane) {
        for call in engine.calls().all() {
            let port = call.first.port.as_ref().and_then(|port| plane.ports.get(&port.id));
            let playing = port.and_then(|port| port.playing);
            let right = match &call.stage {
                // Its description comes with the ACK; before, nobody knows where sound is to go.
                Stage::Greeting { .. } if call.first.agreed.is_none() => playing.is_none(),
                Stage::Greeting { token } => playing == Some((*token, false)),
                Stage::Waiting { .. } | Stage::Offering { .. } => playing.is_some_and(|(_, repeat)| repeat),
                Stage::Farewell { .. } => playing.is_some() || !call.first.is_up(),
                Stage::Calling | Stage::Dialling(_) | Stage::Talking => true,
            };
            if !right {
                self.wrong(format!("call {} in {:?} hears {playing:?}", call.id, call.stage));
            }
        }
    }

    /// Who talks hears the other, and nobody else is joined.
    fn talk(&mut self, engine: &Engine, plane: &Plane) {
        let mut joined = BTreeSet::new();
        for call in engine.calls().all() {
            let port = |leg: &tandem::call::Leg| leg.port.as_ref().map(|port| port.id);
            let (Some(a), Some(b)) = (port(&call.first), call.second.as_ref().and_then(port)) else {
                continue;
            };
            let may = match &call.stage {
                // A carrier may sound as soon as its INVITE is out.
                Stage::Talking | Stage::Dialling(_) => true,
                _ => false,
            };
            let held = call.held || call.legs().any(|leg| leg.state == LegState::Held);
            let is = plane.ports.get(&a).is_some_and(|port| port.joined == Some(b));
            if is && !may {
                self.wrong(format!("call {} is joined but does not talk", call.id));
            }
            if !is && matches!(call.stage, Stage::Talking) && !held {
                self.wrong(format!("call {} talks but hears nothing", call.id));
            }
            // A colleague's phone does not sound before it is answered; a carrier may.
            let carrier = call.second.as_ref().is_some_and(|leg| matches!(leg.party, Party::Trunk(_)));
            if !is && carrier && matches!(call.stage, Stage::Dialling(_)) {
                self.wrong(format!("call {} dials and would miss the carrier's first sound", call.id));
            }
            if matches!(call.stage, Stage::Talking) && !held && is {
                for id in [a, b] {
                    if plane.ports.get(&id).is_some_and(|port| port.playing.is_some_and(|(_, repeat)| repeat))
                    {
                        self.wrong(format!("call {} talks under music on port {id}", call.id));
                    }
                }
            }
            if is {
                joined.extend([a, b]);
            }
        }
        for (id, port) in &plane.ports {
            if port.joined.is_some() && !joined.contains(id) {
                self.wrong(format!("port {id} is joined across calls"));
            }
        }
    }

    /// Nothing is left when all have gone home.
    pub fn rest(
        &mut self,
        engine: &Engine,
        plane: &Plane,
        store: &Store,
        records: &BTreeMap<String, Vec<u8>>,
    ) {
        let lasting = [
            "sip/binding/",
            "sip/nonce/",
            "sip/next_leg",
            "sip/trunk/",
            "acd/operator/",
            "acd/queue/",
            "card/",
            "calls/shared",
            "engine/own",
        ];
        let passing = records.keys().filter(|key| !lasting.iter().any(|prefix| key.starts_with(prefix)));
        let forgotten: Vec<&String> = passing.collect();
        if !forgotten.is_empty() {
            self.wrong(format!("records of what is over: {forgotten:?}"));
        }
        if let Some((trunk, busy)) = self.load.iter().find(|(_, busy)| **busy != 0) {
            let words = format!("{trunk} is told to carry {busy} calls at the end");
            self.wrong(words);
        }
        if engine.calls().ports_available() != crate::world::RTP_PORTS {
            self.wrong(format!("{} RTP ports are left", engine.calls().ports_available()));
        }
        let counts = engine.sip_counts();
        let tickets: usize =
            engine.floor().queues().map(|queue| engine.floor().line(&queue.name).len()).sum();
        let busy: Vec<_> = engine.floor().operators().filter(|one| one.call.is_some()).collect();
        let left = [
            ("calls", engine.calls().len()),
            ("SIP legs", counts.legs),
            ("SIP transactions", counts.transactions),
            ("tickets", tickets),
            ("ports", plane.ports.len()),
            ("operators in calls", busy.len()),
            ("open call records", store.open_calls()),
        ];
        for (what, count) in left {
            if count != 0 {
                self.wrong(format!("{count} {what} are left at the end"));
            }
        }
        for call in &self.arrived.clone() {
            if self.ended.contains(call) && !store.cdr.contains_key(call) {
                self.wrong(format!("call {call} ended without a record"));
            }
        }
        for (card, order) in &store.outbox {
            if order.arrivals == 0 {
                self.broken.push(format!("order {card} never arrived"));
            }
        }
        let mut calls = BTreeSet::new();
        for order in store.outbox.values() {
            if let Some(call) = order.call
                && !calls.insert(call)
            {
                self.broken.push(format!("call {call} has two orders"));
            }
        }
        for card in &self.accepted {
            if !store.outbox.contains_key(card) {
                self.broken.push(format!("card {card} was accepted, but there is no order"));
            }
        }
    }
}
