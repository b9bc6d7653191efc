//! What people and things do in the world.

use super::*;

impl World {
    pub fn act(&mut self, what: Do) {
        let now = self.now;
        match what {
            Do::Register(agent) if !self.closing => self.agents[agent].register(now),
            Do::Register(_) => {}
            Do::Call { gateway } => crate::gateway::place_call(self, gateway),
            Do::Ring(agent, leg) => self.agents[agent].ring(leg, now),
            Do::Progress(agent, leg) => self.agents[agent].progress(leg, now),
            Do::Accept(agent, leg) => self.agents[agent].accept(leg, now),
            Do::Reject(agent, leg, code) => self.agents[agent].reject(leg, code, now),
            Do::HangUp(agent, leg) => self.agents[agent].hang_up(leg, now),
            Do::Hold(agent, leg, on) => self.agents[agent].hold(leg, on, now),
            Do::Update(agent, leg) => self.agents[agent].update(leg, now),
            Do::Cut(agent) => self.cut(agent),
            Do::Reconnect(agent) => self.reconnect(agent),
            Do::PhoneDials(operator) => crate::phone::phone_dials(self, operator),
            Do::DeskDials(operator) => {
                if !self.closing {
                    self.ask(operator, Ask::Dial { to: "+380501112233".to_owned(), trunk: None }, None);
                }
            }
            Do::State(operator, state) => {
                let name = Self::operator_name(operator);
                let reason = "break".to_owned();
                self.ask(
                    operator,
                    Ask::SetState { operator: name, state: Some(state), reason, auto_answer: None },
                    None,
                );
            }
            Do::AnswersHimself(operator) => {
                let operator_name = Self::operator_name(operator);
                let (state, reason) = (None, String::new());
                self.ask(
                    operator,
                    Ask::SetState { operator: operator_name, state, reason, auto_answer: Some(false) },
                    None,
                );
            }
            Do::Save(operator, card) => {
                self.ask(operator, Ask::SaveCard { card, fields: fields() }, None);
            }
            Do::Submit(operator, card) => {
                self.ask(operator, Ask::SubmitCard { card, fields: Some(fields()) }, Some(card));
            }
            Do::Discard(operator, card) => {
                self.ask(operator, Ask::DiscardCard { card, reason: "question".to_owned() }, None);
            }
            Do::DeskHangUp(operator, call) => {
                self.ask(operator, Ask::HangUp(call), None);
            }
            Do::DeskHold(operator, call, on) => {
                let ask = if on { Ask::Hold(call) } else { Ask::Resume(call) };
                self.ask(operator, ask, None);
            }
            Do::DeskTransfer(operator, call) => {
                let colleague = self.dice.range(0, 4) as usize;
                let number = self.dice.chance(50).then(|| "+380501112244".to_owned());
                let to = number.unwrap_or_else(|| Self::operator_name(colleague).to_string());
                self.ask(operator, Ask::Transfer { call, to }, None);
            }
            Do::LogOut(operator) => {
                self.ask(operator, Ask::LoggedOut { session: session(operator) }, None);
            }
            Do::LogIn(operator) => self.log_in(operator),
            Do::Digits(operator, call) => {
                self.ask(operator, Ask::Digits { call, digits: "12#".to_owned() }, None);
            }
            Do::Reboot(agent) => {
                let port = self.dice.range(6_000, 9_000) as u16;
                self.agents[agent].reboot(port, now);
                self.plan(1_500, Do::Register(agent));
            }
            Do::Part(agent, on) => {
                if on {
                    self.parted.insert(agent);
                } else {
                    self.parted.remove(&agent);
                }
            }
            Do::Drain => {
                if self.engine.is_some() {
                    self.drains += 1;
                    self.give(Input::Drain);
                }
            }
            Do::Reload { queues, gateways } => {
                self.queues = queues;
                self.trunks = gateways;
                let setup = self.setup();
                self.give(Input::Reload(Box::new(setup)));
            }
            Do::EverybodyLeaves => self.everybody_leaves(),
            Do::Crash { keep_records, lose } => {
                if self.engine.is_some() {
                    self.crash(keep_records, lose);
                }
            }
            Do::Panic => self.panic(),
            Do::Start => self.start(),
            Do::Watch => self.watch(),
        }
        for agent in 0..self.agents.len() {
            self.serve(agent);
        }
    }

    pub(super) fn watch(&mut self) {
        self.plan(WATCH_MS, Do::Watch);
        if self.engine.is_none() {
            return;
        }
        let agents = &self.agents;
        let dead = self.plane.watch(self.now, |remote| agents.iter().any(|agent| is_there(agent, remote)));
        for event in dead {
            self.give(Input::Media(event));
        }
    }

    pub(super) fn everybody_leaves(&mut self) {
        self.closing = true;
        for agent in 0..self.agents.len() {
            let legs: Vec<u64> = self.agents[agent].legs.keys().copied().collect();
            for leg in legs {
                let now = self.now;
                self.agents[agent].hang_up(leg, now);
            }
        }
    }

    pub(super) fn cut(&mut self, agent: usize) {
        if let Some(flow) = self.flows.remove(&agent) {
            self.note(|| format!("the socket of agent {agent} is cut"));
            let now = self.now;
            self.agents[agent].cut(now);
            self.schedule(10, Happens::FlowClosed(flow));
            let wait = self.dice.range(200, 3_000);
            self.plan(wait, Do::Reconnect(agent));
        }
    }

    pub(super) fn reconnect(&mut self, agent: usize) {
        if self.flows.contains_key(&agent) {
            return;
        }
        if self.engine.is_none() {
            return self.plan(200, Do::Reconnect(agent));
        }
        self.flows.insert(agent, FlowId(self.next_flow));
        self.next_flow += 1;
        let now = self.now;
        self.agents[agent].reconnect(now);
    }
}
