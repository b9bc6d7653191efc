//! A whole call centre in virtual time: the production engine, driven as the edge drives it, between
//! gateways and phones on a bad network, operators at their desks, a media plane, a store and an order
//! core. No clock, no thread, no socket: one seed gives one history.

mod act;
mod death;
mod house;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use tandem::acd::QueueConfig;
use tandem::call;
use tandem::dialplan::{Known, Plan};
use tandem::engine::{Answer, Ask, Asker, Engine, Input, Output, Role, Setup, Touched};
use tandem::fact::{Fact, Fields, OperatorState, What};
use tandem::media::command::Remote;
use tandem::record::Record;
use tandem::sdp::negotiate::Codec;
use tandem::sip::digest::{Algorithm, Ha1};
use tandem::sip::{self, Path, Prefix, TrunkAccount, TrunkKind};
use tandem::terms::{
    CallId, CardId, Epoch, FlowId, Now, OperatorName, QueueName, RequestId, Secret, TrunkName,
};

use crate::agent::{Account, Agent, Said, State};
use crate::dice::Dice;
use crate::laws::Laws;
use crate::plane::Plane;
use crate::store::Store;

pub use house::gateway_account;
use house::{browser, node, phone_account, setup};

/// RTP ports that the node has.
pub const RTP_PORTS: usize = 7;
pub const DOMAIN: &str = "tandem.test";
const NODE: &str = "10.0.0.1:5060";
/// How often the media plane looks for its parties.
const WATCH_MS: u64 = 2_500;
/// Things that may happen at one instant before the world is called stuck.
const MAX_AT_ONCE: u32 = 5_000;

/// How a world is made.
#[derive(Debug, Clone)]
pub struct Shape {
    pub gateways: usize,
    pub operators: usize,
    pub callers: usize,
    pub loss_per_cent: u64,
    pub duplicate_per_cent: u64,
    pub faults: bool,
    pub crashes: bool,
    /// When everybody goes home.
    pub close_ms: u64,
    /// Calls last for minutes, so that sessions are refreshed.
    pub long: bool,
}

/// What is planned by those outside.
#[derive(Debug, Clone)]
pub enum Do {
    Register(usize),
    Call {
        gateway: usize,
    },
    Ring(usize, u64),
    Progress(usize, u64),
    Accept(usize, u64),
    Reject(usize, u64, u16),
    HangUp(usize, u64),
    Hold(usize, u64, bool),
    Update(usize, u64),
    Cut(usize),
    Reconnect(usize),
    PhoneDials(usize),
    DeskDials(usize),
    State(usize, OperatorState),
    AnswersHimself(usize),
    Save(usize, CardId),
    Submit(usize, CardId),
    Discard(usize, CardId),
    DeskHangUp(usize, CallId),
    DeskHold(usize, CallId, bool),
    DeskTransfer(usize, CallId),
    LogOut(usize),
    LogIn(usize),
    Digits(usize, CallId),
    Reboot(usize),
    /// Nothing gets through to or from this agent, or does again.
    Part(usize, bool),
    Drain,
    Reload {
        queues: usize,
        gateways: usize,
    },
    EverybodyLeaves,
    Crash {
        keep_records: bool,
        lose: usize,
    },
    /// A step of the engine panics: it is made again in its process.
    Panic,
    Start,
    Watch,
}

#[derive(Debug)]
enum Happens {
    ToNode { path: Path, bytes: Bytes },
    ToAgent { agent: usize, flow: Option<FlowId>, bytes: Bytes },
    FlowClosed(FlowId),
    Customer(CardId),
    Do(Do),
}

/// What waits for an answer at a desk.
#[derive(Debug, Clone)]
pub struct Question {
    pub desk: usize,
    pub card: Option<CardId>,
}

/// Kill the engine instead of doing this output.
#[derive(Debug, Clone, Copy)]
pub struct Kill {
    pub at_output: usize,
    pub lose: usize,
}

pub struct World {
    pub now: u64,
    pub dice: Dice,
    pub shape: Shape,
    events: BTreeMap<(u64, u64), Happens>,
    counter: u64,
    pub engine: Option<Engine>,
    mono_base: u64,
    wall_base: i64,
    epoch: u64,
    /// Gateways first, then phones.
    pub agents: Vec<Agent>,
    flows: BTreeMap<usize, FlowId>,
    next_flow: u64,
    pub plane: Plane,
    pub store: Store,
    pub laws: Laws,
    records: BTreeMap<String, Vec<u8>>,
    /// The last batches, newest last: what each key held before.
    undo: VecDeque<Vec<(String, Option<Vec<u8>>)>>,
    pub questions: BTreeMap<RequestId, Question>,
    next_request: u64,
    pub outputs: usize,
    pub kill: Option<Kill>,
    pub kills: u32,
    pub closing: bool,
    at_once: (u64, u32),
    pub trace: VecDeque<String>,
    pub facts: Vec<Fact>,
    /// Cards on desks, by call.
    pub cards: BTreeMap<CallId, (CardId, usize)>,
    pub scripted: bool,
    /// Calls that the engine knew when it was made again.
    pub carried: BTreeSet<CallId>,
    /// Batches that the last death cost.
    pub lost: usize,
    /// What agents said, in scripts.
    pub heard: Vec<(usize, Said)>,
    pub tally: Tally,
    parted: BTreeSet<usize>,
    drains: u32,
    drained: u32,
    /// The last fact in the store when the process began.
    began_after: u64,
    /// Queues and trunks that are configured now.
    queues: usize,
    trunks: usize,
}

/// How much happened, so that a world in which nothing does is seen.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub arrived: u64,
    pub answered: u64,
    pub orders: u64,
    pub carried: u64,
    pub steps: u64,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.arrived += other.arrived;
        self.answered += other.answered;
        self.orders += other.orders;
        self.carried += other.carried;
        self.steps += other.steps;
    }
}

impl World {
    pub fn new(seed: u64, shape: Shape) -> Self {
        let mut dice = Dice::new(seed);
        let mut agents = Vec::new();
        for number in 0..shape.gateways {
            agents.push(Agent::new(gateway_account(number), Dice::new(dice.next())));
        }
        for number in 0..shape.operators {
            agents.push(Agent::new(phone_account(number), Dice::new(dice.next())));
        }
        let mono_base = dice.range(1, 1 << 40);
        let mut world = Self {
            now: 0,
            dice,
            events: BTreeMap::new(),
            counter: 0,
            engine: None,
            mono_base,
            wall_base: 1_790_000_000_000,
            epoch: 1,
            agents,
            flows: BTreeMap::new(),
            next_flow: 1,
            plane: Plane::default(),
            store: Store::default(),
            laws: Laws::default(),
            records: BTreeMap::new(),
            undo: VecDeque::new(),
            questions: BTreeMap::new(),
            next_request: 1,
            outputs: 0,
            kill: None,
            kills: 0,
            closing: false,
            at_once: (0, 0),
            trace: VecDeque::new(),
            facts: Vec::new(),
            cards: BTreeMap::new(),
            scripted: false,
            carried: BTreeSet::new(),
            lost: 0,
            heard: Vec::new(),
            tally: Tally::default(),
            parted: BTreeSet::new(),
            drains: 0,
            drained: 0,
            began_after: 0,
            queues: 2,
            trunks: shape.gateways,
            shape,
        };
        world.plan(0, Do::Start);
        world.plan(WATCH_MS, Do::Watch);
        world
    }

    pub fn note(&mut self, words: impl FnOnce() -> String) {
        let at = self.now;
        self.trace.push_back(format!("{:>7} {}", at, words()));
        if self.trace.len() > 600 {
            self.trace.pop_front();
        }
    }

    pub fn is_gateway(&self, agent: usize) -> bool {
        agent < self.shape.gateways
    }

    pub fn phone(&self, operator: usize) -> usize {
        self.shape.gateways + operator
    }

    pub fn operator_name(operator: usize) -> OperatorName {
        OperatorName::from(format!("op{operator}"))
    }

    /// Plans something `wait_ms` from now.
    pub fn plan(&mut self, wait_ms: u64, what: Do) {
        self.schedule(wait_ms, Happens::Do(what));
    }

    fn schedule(&mut self, wait_ms: u64, what: Happens) {
        self.counter += 1;
        self.events.insert((self.now + wait_ms, self.counter), what);
    }

    pub fn clock(&self) -> Now {
        Now { mono_ms: self.mono_base + self.now, wall_ms: self.wall_base + self.now as i64 }
    }

    // ---- the loop ----

    /// Runs until `until`, or until a law is broken.
    pub fn run(&mut self, until: u64) -> Result<(), String> {
        while self.step(until) {
            if !self.laws.broken.is_empty() {
                return Err(self.laws.broken.join("\n"));
            }
        }
        Ok(())
    }

    fn step(&mut self, until: u64) -> bool {
        let event = self.events.keys().next().map(|(at, _)| *at);
        let engine =
            self.engine.as_ref().and_then(Engine::next_timeout).map(|at| at.saturating_sub(self.mono_base));
        let agents = self.agents.iter().filter_map(Agent::next_timeout).min();
        let plane = self.plane.next_timeout().filter(|_| self.engine.is_some());
        let store = self.store.next_timeout();
        let Some(at) = [event, engine, agents, plane, store].into_iter().flatten().min() else {
            return false;
        };
        let at = at.max(self.now);
        if at > until {
            self.now = until;
            return false;
        }
        self.now = at;
        self.tally.steps += 1;
        self.at_once = if self.at_once.0 == at { (at, self.at_once.1 + 1) } else { (at, 0) };
        if self.at_once.1 > MAX_AT_ONCE {
            self.laws.broken.push("time stands still: something is due for ever".to_owned());
        }
        let due = |time: Option<u64>| time.is_some_and(|time| time <= at);
        if due(event) {
            if let Some((_, event)) = self.events.pop_first() {
                self.happen(event);
            }
        } else if due(store) {
            if let Some(seq) = self.store.commit(&mut self.dice, at) {
                self.give(Input::Stored { seq });
            }
        } else if due(plane) {
            if let Some(event) = self.plane.due(at) {
                self.give(Input::Media(event));
            }
        } else if due(agents) {
            for agent in 0..self.agents.len() {
                self.agents[agent].handle_timeout(at);
                self.serve(agent);
            }
        } else if due(engine) {
            let now = self.clock();
            if let Some(engine) = &mut self.engine {
                engine.handle_timeout(now);
            }
            self.drain();
        }
        true
    }

    fn happen(&mut self, event: Happens) {
        match event {
            Happens::ToNode { path, bytes } => {
                let from = self.agents.iter().position(|agent| agent.account.udp == Some(path.remote()));
                if from.is_some_and(|agent| self.parted.contains(&agent)) {
                    return;
                }
                if let Some(flow) = path.flow()
                    && !self.flows.values().any(|open| *open == flow)
                {
                    return;
                }
                self.note(|| format!("→ {}", first_line(&bytes)));
                self.give(Input::Sip(sip::Input::Received { path, bytes }));
            }
            Happens::ToAgent { agent, flow, bytes } => {
                if self.parted.contains(&agent) {
                    return;
                }
                if flow.is_some() && self.flows.get(&agent) != flow.as_ref() {
                    return;
                }
                let now = self.now;
                self.agents[agent].receive(&bytes, now);
                self.serve(agent);
            }
            Happens::FlowClosed(flow) => self.give(Input::Sip(sip::Input::FlowClosed(flow))),
            Happens::Customer(card) => {
                self.give(Input::Customer {
                    card,
                    customer: "{\"name\":\"\",\"blocked\":false,\"orders\":[]}".to_owned(),
                });
            }
            Happens::Do(what) => self.act(what),
        }
    }

    /// Gives the engine an input, as the driver does.
    pub fn give(&mut self, input: Input) {
        let now = self.clock();
        let Some(engine) = &mut self.engine else { return };
        engine.handle(input, now);
        self.drain();
    }

    pub fn ask(&mut self, operator: usize, ask: Ask, card: Option<CardId>) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.note(|| format!("op{operator} asks {request}: {ask:?}"));
        let asker = Asker { name: Self::operator_name(operator), role: Role::Operator };
        self.questions.insert(request, Question { desk: operator, card });
        self.give(Input::Desk { request, asker, ask });
        request
    }

    /// Does what the engine wants; a kill strikes between two outputs.
    fn drain(&mut self) {
        let mut facts = Vec::new();
        let mut first = true;
        let Some(mut engine) = self.engine.take() else { return };
        while let Some(output) = engine.poll() {
            if let Some(kill) = self.kill.filter(|kill| kill.at_output == self.outputs) {
                self.kill = None;
                self.kills += 1;
                self.publish(facts);
                self.crash(true, kill.lose);
                return;
            }
            self.outputs += 1;
            if matches!(output, Output::Records(_)) && !first {
                self.laws.broken.push("records come after what relies on them".to_owned());
            }
            first = false;
            match output {
                Output::Sip { path, bytes } => self.carry_out(path, bytes),
                Output::Media { command, .. } => {
                    let (faults, now) = (self.shape.faults, self.now);
                    self.note(|| format!("  media {command:?}"));
                    self.plane.tell(command, faults, &mut self.dice, now);
                }
                Output::Reply { request, answer } => self.replied(request, answer),
                Output::Fact(fact) => {
                    self.note(|| format!("  fact {} {:?} {:?}", fact.seq, fact.call, fact.what));
                    self.laws.fact(&fact, &self.store);
                    facts.push(fact);
                }
                Output::Records(records) => self.keep(records),
                Output::Lookup { card, .. } => {
                    let wait = self.dice.range(20, 800);
                    self.schedule(wait, Happens::Customer(card));
                }
                Output::Dropped { reason } => self.note(|| format!("  dropped: {reason}")),
                Output::Refused { cause, .. } => self.note(|| format!("  refused: {cause:?}")),
                Output::Drained => self.drained += 1,
                Output::Banned(_) | Output::Left => {}
            }
        }
        self.laws.check(&engine, &mut self.plane);
        self.engine = Some(engine);
        self.publish(facts);
    }

    fn publish(&mut self, facts: Vec<Fact>) {
        for fact in facts {
            crate::phone::read_fact(self, &fact);
            match fact.what {
                What::Arrived { .. } => self.tally.arrived += 1,
                What::Answered { .. } => self.tally.answered += 1,
                What::CardAccepted { .. } => self.tally.orders += 1,
                _ => {}
            }
            if self.scripted {
                self.facts.push(fact.clone());
            }
            let (slow, now) = (self.shape.faults, self.now);
            self.store.append(fact, slow, &mut self.dice, now);
        }
    }

    fn keep(&mut self, records: Vec<Record>) {
        let mut before = Vec::new();
        for Record { key, value } in records {
            let old = match value {
                Some(value) => self.records.insert(key.clone(), value),
                None => self.records.remove(&key),
            };
            before.push((key, old));
        }
        self.undo.push_back(before);
        if self.undo.len() > 8 {
            self.undo.pop_front();
        }
    }

    fn replied(&mut self, request: RequestId, answer: Answer) {
        self.note(|| format!("  reply {request}: {answer:?}"));
        self.laws.reply(&answer, &self.store);
        match self.questions.remove(&request) {
            None => self.laws.broken.push(format!("question {request} is answered twice or was never asked")),
            Some(question) => crate::phone::read_answer(self, &question, &answer),
        }
    }

    // ---- the network ----

    fn carry_out(&mut self, path: Path, bytes: Bytes) {
        self.note(|| format!("  ← {} to {}", first_line(&bytes), path.remote()));
        match path {
            Path::Udp { remote, .. } => {
                let Some(agent) = self.agents.iter().position(|agent| agent.account.udp == Some(remote))
                else {
                    return;
                };
                self.datagram(|bytes| Happens::ToAgent { agent, flow: None, bytes }, bytes);
            }
            Path::Ws { flow, .. } => {
                let agent = self.flows.iter().find(|(_, open)| **open == flow).map(|(agent, _)| *agent);
                if let Some(agent) = agent {
                    self.schedule(15, Happens::ToAgent { agent, flow: Some(flow), bytes });
                }
            }
        }
    }

    /// Loses, doubles, delays and so reorders.
    fn datagram(&mut self, to: impl Fn(Bytes) -> Happens, bytes: Bytes) {
        let copies = if self.dice.chance(self.shape.duplicate_per_cent) { 2 } else { 1 };
        for _ in 0..copies {
            if self.dice.chance(self.shape.loss_per_cent) {
                continue;
            }
            let late = self.shape.loss_per_cent > 0 && self.dice.chance(2);
            let wait = if late { self.dice.range(300, 900) } else { self.dice.range(5, 40) };
            self.schedule(wait, to(bytes.clone()));
        }
    }

    /// Sends what an agent wants sent and lets its owner hear what it says.
    pub fn serve(&mut self, agent: usize) {
        loop {
            while let Some(bytes) = self.agents[agent].poll() {
                match self.agents[agent].account.udp {
                    Some(remote) => {
                        let path = Path::Udp { remote, local: node() };
                        self.datagram(|bytes| Happens::ToNode { path, bytes }, bytes);
                    }
                    None => {
                        let Some(flow) = self.flows.get(&agent).copied() else { continue };
                        let path = Path::Ws { flow, remote: browser(agent), local: node(), secure: true };
                        self.schedule(15, Happens::ToNode { path, bytes });
                    }
                }
            }
            let Some(said) = self.agents[agent].hear() else { return };
            self.note(|| format!("agent {agent}: {said:?}"));
            if self.scripted {
                self.heard.push((agent, said.clone()));
            }
            if self.is_gateway(agent) {
                crate::gateway::hear(self, agent, said);
            } else {
                crate::phone::hear(self, agent, said);
            }
        }
    }

    /// Calls that an engine took over from bytes and that still live.
    pub fn carried_and_alive(&self) -> Vec<CallId> {
        let Some(engine) = &self.engine else { return Vec::new() };
        engine.calls().all().map(|call| call.id).filter(|call| self.carried.contains(call)).collect()
    }

    /// Whether a request of SIP is under way.
    pub fn asks(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.sip_counts().transactions > 0)
    }

    /// The laws of rest, once all have gone home.
    pub fn rest(&mut self) -> Result<(), String> {
        if let Some(engine) = &self.engine {
            self.laws.rest(engine, &self.plane, &self.store, &self.records);
            if self.drains != self.drained && !self.shape.crashes {
                let words = format!("asked to drain {} times, drained {}", self.drains, self.drained);
                self.laws.broken.push(words);
            }
        } else {
            self.laws.broken.push("the node is down".to_owned());
        }
        for (number, agent) in self.agents.iter().enumerate() {
            if agent.alive() != 0 {
                self.laws.broken.push(format!("agent {number} still has {} legs", agent.alive()));
            }
        }
        let pending = self.questions.len();
        if pending != 0 {
            self.laws.broken.push(format!("{pending} questions were never answered: {:?}", self.questions));
        }
        if self.laws.broken.is_empty() { Ok(()) } else { Err(self.laws.broken.join("\n")) }
    }
}

fn session(operator: usize) -> String {
    format!("session-{operator}")
}

/// Whether the party behind a description is still in a call.
fn is_there(agent: &Agent, remote: &Remote) -> bool {
    agent.legs.values().filter(|leg| matches!(leg.state, State::Calling | State::Ringing | State::Up)).any(
        |leg| match remote {
            Remote::Plain { rtp, .. } => {
                agent.account.udp.is_some_and(|at| at.ip() == rtp.ip()) && rtp.port() == leg.media
            }
            Remote::WebRtc { ufrag, .. } => agent.account.udp.is_none() && *ufrag == agent.ufrag(leg.media),
        },
    )
}

pub fn first_line(bytes: &Bytes) -> String {
    let text = String::from_utf8_lossy(bytes);
    let field = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    let to = field("To:")
        .rsplit("tag=")
        .next()
        .filter(|_| field("To:").contains("tag="))
        .unwrap_or_default()
        .to_owned();
    format!("{} | {} {} {}", text.lines().next().unwrap_or_default(), field("CSeq:"), field("Call-ID:"), to)
}

fn fields() -> Fields {
    [("pickup", "Main st. 1"), ("destination", "Station")]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into()
}
