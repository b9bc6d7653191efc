//! The engine: the whole control state of the call centre as one value.
//!
//! SIP, calls, the floor and the cards are machines of their own; the engine carries words between
//! them until all are quiet, numbers what happened, and hands over one batch of records a step. It
//! has no socket, no clock and no entropy but what it was given.
//!
//! Invariant: after each `handle` the batch of records comes out before anything that relies on it,
//! so that a standby never knows less than a peer or a person.

mod broken;
pub mod desk;
mod input;
mod output;
mod setup;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::acd::{Floor, FloorInput, Wanted};
use crate::call::{self, Calls};
use crate::fact::{Fact, OperatorState, Party, Phone, What};
use crate::orders::{self, Cards};
use crate::record::{self, Record};
use crate::sip::{self, Sip};
use crate::terms::{CallId, CardId, Epoch, MonoMs, Now, OperatorName, RequestId, TrunkName, WallMs};

pub use broken::Touched;
pub use desk::{Answer, Ask, Asker, Refusal, Role};
pub use input::Input;
pub use output::Output;
pub use setup::Setup;

/// Machine steps within one engine step; a loop between machines ends here and is counted, not endless.
const MAX_INNER_STEPS: usize = 10_000;

/// The call centre.
#[derive(Debug)]
pub struct Engine {
    sip: Sip,
    calls: Calls,
    floor: Floor,
    cards: Cards,
    rng: ChaCha20Rng,
    epoch: Epoch,
    last_seq: u64,
    trunks_up: BTreeSet<TrunkName>,
    sessions: BTreeMap<OperatorName, BTreeSet<String>>,
    /// Submits that wait for the store, by question.
    submits: BTreeMap<RequestId, CardId>,
    /// What this step does, in order.
    step: Vec<Output>,
    batch: Vec<Record>,
    out: VecDeque<Output>,
    draining: bool,
    /// Whether the end of the draining was said.
    drained: bool,
    /// Whether providers are being told that this node stops.
    leaving: bool,
    runaway: u64,
    own_touched: bool,
    /// Who has the running step in hand.
    at: At,
    /// The call that is being ended because the program failed in it: its card stays on the desk.
    broken: Option<CallId>,
}

/// The machine that a step is in, and what it was told about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    #[default]
    Nowhere,
    Sip,
    Calls,
    /// Floor, cards or a desk's question: about this call.
    Of(CallId),
}

/// What the engine records of its own.
#[derive(Debug, Serialize, Deserialize)]
struct Own {
    last_seq: u64,
    trunks_up: Vec<TrunkName>,
    draining: bool,
    #[serde(default)]
    drained: bool,
}

/// Key of [`Own`].
const OWN_KEY: &str = "engine/own";

impl Engine {
    /// An engine with nothing under way. Its facts begin after `setup.last_seq`.
    pub fn new(setup: Setup, seed: [u8; 32], now: Now) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let sip = Sip::new(setup.sip.clone(), fresh_seed(&mut rng));
        let calls = Calls::new(setup.calls.clone(), fresh_seed(&mut rng));
        let floor = Floor::new(setup.queues.clone());
        let cards = Cards::resume(setup.cards.clone(), now);
        let mut engine = Self::assemble(setup, (sip, calls, floor, cards), rng, now);
        engine.begin(now);
        engine.settle(now);
        engine
    }

    /// Goes on where the writer of `records` stood, under a new epoch. Phones' keys are not in records:
    /// say `Ask::LoggedIn` for each live session again.
    ///
    /// # Errors
    /// In words, when a record does not decode: this node's program is older than the writer's.
    pub fn restore(setup: Setup, seed: [u8; 32], records: &[Record], now: Now) -> Result<Self, String> {
        let mut engine = Self::restore_with(setup, seed, records, false, now)?;
        engine.settle(now);
        Ok(engine)
    }

    /// The same in the process that wrote the records, whose media workers still carry the calls.
    ///
    /// # Errors
    /// In words, when a record does not decode.
    pub fn restore_in_place(
        setup: Setup,
        seed: [u8; 32],
        records: &[Record],
        now: Now,
    ) -> Result<Self, String> {
        let mut engine = Self::restore_with(setup, seed, records, true, now)?;
        engine.settle(now);
        Ok(engine)
    }

    /// The engine before it has come to rest.
    fn restore_with(
        setup: Setup,
        seed: [u8; 32],
        records: &[Record],
        media_lives: bool,
        now: Now,
    ) -> Result<Self, String> {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let words = |error: record::RecordError| error.to_string();
        let sip = Sip::restore(setup.sip.clone(), fresh_seed(&mut rng), records, now);
        let calls = Calls::restore(setup.calls.clone(), fresh_seed(&mut rng), records, media_lives, now)
            .map_err(words)?;
        // The floor refuses keys that it never wrote.
        let of_floor = records.iter().filter(|record| record.key.starts_with("acd/"));
        let live = of_floor.filter_map(|record| Some((record.key.as_str(), record.value.as_deref()?)));
        let floor = Floor::restore(setup.queues.clone(), live, now).map_err(|error| error.to_string())?;
        let cards = Cards::restore(records).map_err(words)?;
        let own =
            records.iter().find(|record| record.key == OWN_KEY).and_then(|record| record.value.as_deref());
        let own = own.map(record::decode::<Own>).transpose().map_err(words)?;
        let mut engine = Self::assemble(setup, (sip, calls, floor, cards), rng, now);
        engine.miss_phones(now);
        if let Some((_, own)) = own {
            engine.last_seq = engine.last_seq.max(own.last_seq);
            engine.trunks_up = own.trunks_up.into_iter().collect();
            engine.draining = own.draining;
            engine.drained = own.drained;
            if own.draining {
                engine.tell_calls(call::Input::Drain, now);
            }
        }
        engine.begin(now);
        if !media_lives {
            engine.restate(now);
        }
        Ok(engine)
    }

    /// A phone whose socket died with the process that had it cannot be called until it comes back.
    fn miss_phones(&mut self, now: Now) {
        for operator in self.sip.phones_lost() {
            if self.floor.operator(&operator).is_some_and(|known| known.phone == Phone::Registered) {
                self.phone(operator, Phone::Lost, now);
            }
        }
    }

    /// Tells what is carried on: see [`Calls::restate`].
    fn restate(&mut self, now: Now) {
        for (call, at, what) in self.calls.restate(now) {
            self.tell_at(Some(call), what, at, now);
        }
        for (call, what) in self.cards.restate() {
            self.tell(Some(call), what, now);
        }
    }

    fn assemble(setup: Setup, machines: (Sip, Calls, Floor, Cards), rng: ChaCha20Rng, now: Now) -> Self {
        let (mut sip, calls, floor, cards) = machines;
        sip.handle(sip::Input::Command(sip::Command::Trunks(setup.accounts)), now);
        Self {
            sip,
            calls,
            floor,
            cards,
            rng,
            epoch: setup.epoch,
            last_seq: setup.last_seq,
            trunks_up: BTreeSet::new(),
            sessions: BTreeMap::new(),
            submits: BTreeMap::new(),
            step: Vec::new(),
            batch: Vec::new(),
            out: VecDeque::new(),
            draining: false,
            drained: false,
            leaving: false,
            runaway: 0,
            own_touched: true,
            at: At::Nowhere,
            broken: None,
        }
        .say_started(setup.node_name, setup.version)
    }

    fn say_started(mut self, name: String, version: String) -> Self {
        self.step.push(Output::Fact(Fact {
            seq: 0,
            epoch: self.epoch,
            at: 0,
            call: None,
            what: What::NodeStarted { name, version },
        }));
        self
    }

    /// Numbers the facts of the beginning.
    fn begin(&mut self, now: Now) {
        let started = std::mem::take(&mut self.step);
        for output in started {
            if let Output::Fact(fact) = output {
                self.tell(fact.call, fact.what, now);
            }
        }
        for trunk in self.trunks_up.clone() {
            self.tell(None, What::TrunkUp { trunk, from: String::new() }, now);
        }
    }

    /// Something happened. Drain [`Engine::poll`] afterwards.
    pub fn handle(&mut self, input: Input, now: Now) {
        self.at = At::Nowhere;
        match input {
            Input::Sip(input) => {
                self.at = At::Sip;
                self.sip.handle(input, now);
            }
            Input::Media(event) => self.tell_calls(call::Input::Media(event), now),
            Input::Desk { request, asker, ask } => self.asked(request, asker, ask, now),
            Input::Stored { seq } => self.cards.handle(orders::Input::Stored { seq }, now),
            Input::Customer { card, customer } => {
                self.cards.handle(orders::Input::Customer { card, customer }, now);
            }
            Input::Reload(setup) => self.reload(*setup, now),
            Input::Drain => {
                self.draining = true;
                self.drained = false;
                self.own_touched = true;
                self.tell_calls(call::Input::Drain, now);
            }
            Input::Leave => {
                self.leaving = true;
                self.sip.handle(sip::Input::Command(sip::Command::Leave), now);
            }
        }
        self.settle(now);
    }

    /// What is to be done; drain until `None`.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to call [`Engine::handle_timeout`] again.
    pub fn next_timeout(&self) -> Option<MonoMs> {
        [self.sip.next_timeout(), self.calls.next_timeout(), self.floor.next_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.at = At::Sip;
        self.sip.handle_timeout(now);
        self.at = At::Calls;
        self.calls.supply_legs(|| self.sip.new_leg());
        self.calls.handle_timeout(now);
        self.at = At::Nowhere;
        self.floor.handle_timeout(now);
        self.settle(now);
    }

    /// Calls alive.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// The floor, to look at.
    pub fn floor(&self) -> &Floor {
        &self.floor
    }

    /// What SIP holds.
    pub fn sip_counts(&self) -> sip::Counts {
        self.sip.counts()
    }

    /// Steps that were cut off because machines kept talking; always 0 unless there is a bug.
    pub fn runaway(&self) -> u64 {
        self.runaway
    }

    fn reload(&mut self, setup: Setup, now: Now) {
        self.sip.handle(sip::Input::Command(sip::Command::Trunks(setup.accounts)), now);
        self.calls.reload(setup.calls);
        self.floor.handle(FloorInput::SetQueues(setup.queues), now);
        self.own_touched = true;
    }

    /// Says a fact: it gets the next number.
    fn tell(&mut self, call: Option<CallId>, what: What, now: Now) {
        self.tell_at(call, what, now.wall_ms, now);
    }

    /// The same for what happened at `at`.
    fn tell_at(&mut self, call: Option<CallId>, what: What, at: WallMs, now: Now) {
        self.last_seq = self.last_seq.saturating_add(1);
        self.own_touched = true;
        let seq = self.last_seq;
        if let What::CardSubmitted { card, .. } = &what {
            self.cards.handle(orders::Input::Numbered { card: *card, seq }, now);
        }
        if let What::CardOpened { card, caller, .. } = &what
            && !caller.is_withheld()
        {
            self.step.push(Output::Lookup { card: *card, number: caller.clone() });
        }
        if let What::CardAccepted { card } = &what {
            self.answer_submits(*card);
        }
        self.step.push(Output::Fact(Fact { seq, epoch: self.epoch, at, call, what }));
    }

    /// Carries words between the machines until all are quiet, then hands the step over.
    fn settle(&mut self, now: Now) {
        for _ in 0..MAX_INNER_STEPS {
            if !self.carry(now) {
                self.hand_over(now);
                return;
            }
        }
        self.runaway = self.runaway.saturating_add(1);
        self.hand_over(now);
    }

    /// Records first, then everything that relies on them.
    fn hand_over(&mut self, now: Now) {
        let last_ended = self.draining && !self.drained && self.calls.is_empty();
        if last_ended {
            self.drained = true;
            self.own_touched = true;
        }
        let mut records = std::mem::take(&mut self.batch);
        records.extend(self.sip.records(now));
        records.extend(self.calls.records(now));
        records.extend(self.floor.records(now));
        if std::mem::take(&mut self.own_touched) {
            let trunks_up = self.trunks_up.iter().cloned().collect();
            let own =
                Own { last_seq: self.last_seq, trunks_up, draining: self.draining, drained: self.drained };
            records.push(Record::put(OWN_KEY, &own, now));
        }
        if !records.is_empty() {
            self.out.push_back(Output::Records(records));
        }
        self.out.extend(self.step.drain(..));
        if last_ended {
            self.out.push_back(Output::Drained);
        }
        if self.leaving && !self.sip.is_leaving() {
            self.leaving = false;
            self.out.push_back(Output::Left);
        }
    }
}

/// A seed for a machine of ours.
fn fresh_seed(rng: &mut ChaCha20Rng) -> [u8; 32] {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    seed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trunk_that_a_reload_takes_away_is_down_and_up_again_when_it_comes_back() {
        let peer = |name: &str| sip::TrunkAccount {
            name: name.into(),
            kind: sip::TrunkKind::Peer { server: Some(([192, 0, 2, 1], 5060).into()) },
            accept_from: Vec::new(),
            digest: Vec::new(),
            prack: true,
            health: sip::Health::default(),
            profile: sip::Profile::default(),
        };
        let setup = Setup {
            node_name: "test".to_owned(),
            version: "0".to_owned(),
            epoch: Epoch(1),
            last_seq: 0,
            sip: sip::Config::default(),
            accounts: ["a", "b"].map(peer).to_vec(),
            calls: call::tests::setup(),
            queues: Vec::new(),
            cards: Vec::new(),
        };
        let now = Now::default();
        let mut engine = Engine::new(setup.clone(), [1; 32], now);
        while engine.poll().is_some() {}
        let mut without = setup.clone();
        without.calls.trunks.remove(&TrunkName::from("b"));
        without.accounts.pop();
        let mut said = Vec::new();
        for setup in [without, setup] {
            engine.handle(Input::Reload(Box::new(setup)), now);
            while let Some(output) = engine.poll() {
                if let Output::Fact(Fact { what: What::TrunkUp { trunk, .. }, .. }) = output {
                    said.push(("up", trunk));
                } else if let Output::Fact(Fact { what: What::TrunkDown { trunk, .. }, .. }) = output {
                    said.push(("down", trunk));
                }
            }
        }
        assert_eq!(said, [("down", "b".into()), ("up", "b".into())]);
    }
}
