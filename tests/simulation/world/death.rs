//! Life and death of the node: killed with or without its records, or made again in its process.

use super::*;

impl World {
    pub(super) fn crash(&mut self, keep_records: bool, lose: usize) {
        self.note(|| format!("=== the node dies; records kept: {keep_records}, batches lost: {lose}"));
        self.engine = None;
        self.lost = lose;
        self.plane.crash();
        self.store.crash();
        self.laws.crash();
        self.laws.broken.extend(std::mem::take(&mut self.plane.wrong));
        for _ in 0..lose {
            for (key, old) in self.undo.pop_back().into_iter().flatten().rev() {
                match old {
                    Some(value) => self.records.insert(key, value),
                    None => self.records.remove(&key),
                };
            }
        }
        self.undo.clear();
        if !keep_records {
            self.records.clear();
        }
        self.cut_phones();
        self.epoch += 1;
        let wait = if self.scripted { 250 } else { self.dice.range(50, 2_000) };
        self.plan(wait, Do::Start);
    }

    /// Media, store and clock live on; sockets of phones are closed so that they come back, and every
    /// question that waits is refused.
    pub(super) fn panic(&mut self) {
        if self.engine.is_none() {
            return;
        }
        self.note(|| "=== a step panics".to_owned());
        let (setup, seed, now) = (self.setup(), self.dice.seed(), self.clock());
        let records = self.all_records();
        self.engine = None;
        self.cut_phones();
        let calls: Vec<CallId> = records
            .iter()
            .filter_map(|record| record.key.strip_prefix("call/"))
            .filter_map(|id| Some(CallId(id.parse().ok()?)))
            .collect();
        let touched = (!calls.is_empty()).then(|| calls[self.dice.range(0, calls.len() as u64) as usize]);
        self.note(|| format!("=== it touched {touched:?}"));
        let buried = touched.filter(|_| self.dice.chance(30));
        let made = match buried {
            Some(call) => Engine::restore_without(setup, seed, &records, call, now),
            None => Engine::restore_in_place(setup, seed, &records, now),
        };
        match made {
            Ok(engine) => {
                self.laws.broken_off = touched;
                self.carry_on(engine);
                if let Some(engine) = self.engine.as_mut().filter(|_| buried.is_none()) {
                    let ended = engine.break_off(Touched { call: touched, leg: None }, now);
                    assert_eq!(ended, touched);
                    self.drain();
                }
                self.laws.broken_off = None;
                if touched.is_some_and(|call| !self.laws.has_ended(call)) {
                    self.laws.broken.push(format!("the call that a panic touched goes on: {touched:?}"));
                }
            }
            Err(why) => self.laws.broken.push(format!("the records do not restore: {why}")),
        }
    }

    pub(super) fn cut_phones(&mut self) {
        for agent in self.shape.gateways..self.agents.len() {
            if self.flows.remove(&agent).is_some() {
                let now = self.now;
                self.agents[agent].cut(now);
                let wait = self.dice.range(300, 1_500);
                self.plan(wait, Do::Reconnect(agent));
            }
        }
    }

    pub(super) fn all_records(&self) -> Vec<Record> {
        let put = |(key, value): (&String, &Vec<u8>)| Record { key: key.clone(), value: Some(value.clone()) };
        self.records.iter().map(put).collect()
    }

    pub(super) fn start(&mut self) {
        self.began_after = self.store.last_seq;
        self.mono_base = self.dice.range(1, 1 << 40);
        let (setup, seed, now) = (self.setup(), self.dice.seed(), self.clock());
        let records = self.all_records();
        let engine = if records.is_empty() {
            Ok(Engine::new(setup, seed, now))
        } else {
            Engine::restore(setup, seed, &records, now)
        };
        let engine = match engine {
            Ok(engine) => engine,
            Err(why) => return self.laws.broken.push(format!("the records do not restore: {why}")),
        };
        let alive: BTreeSet<CallId> = engine.calls().all().map(|call| call.id).collect();
        self.store.load(&alive);
        self.carry_on(engine);
    }

    pub(super) fn carry_on(&mut self, engine: Engine) {
        let alive: BTreeSet<CallId> = engine.calls().all().map(|call| call.id).collect();
        self.note(|| format!("=== the engine starts with {} calls", alive.len()));
        self.tally.carried += alive.len() as u64;
        self.carried = alive;
        self.engine = Some(engine);
        self.drain();
        for operator in 0..self.shape.operators {
            self.log_in(operator);
        }
        for question in std::mem::take(&mut self.questions).into_values() {
            // The page was told 503; a person submits again.
            if let Some(card) = question.card {
                self.plan(700, Do::Submit(question.desk, card));
            }
        }
    }

    pub(super) fn setup(&self) -> Setup {
        setup(&self.shape, (self.queues, self.trunks), self.epoch, self.began_after)
    }

    pub fn log_in(&mut self, operator: usize) {
        let name = Self::operator_name(operator);
        let account = phone_account(operator);
        let ha1 = Ha1::new(&account.user, DOMAIN, &account.password);
        let queues = vec![QueueName::from("orders"), QueueName::from("night")];
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let asker = Asker { name, role: Role::Operator };
        self.questions.insert(request, Question { desk: operator, card: None });
        self.give(Input::Desk {
            request,
            asker,
            ask: Ask::LoggedIn { session: session(operator), ha1, queues },
        });
    }
}
