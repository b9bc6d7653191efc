//! Calls: from the first INVITE to the one `Ended` fact.
//!
//! A call is the same movement whichever way it goes: a first leg comes in (or an operator's own
//! phone is called first), the dialplan is walked, a second leg goes out, the two ports are joined,
//! and when either leg ends, all of it ends. This machine knows SIP legs, media ports and the plan;
//! queues and operators are the floor's, cards are the orders' (the engine carries words between).
//!
//! Invariant: every call in the map has a live first leg and a port-table entry for each open port;
//! a call that ended has given its ports back and said `Ended` once.

mod broken;
#[expect(clippy::module_inception, reason = "the one value that the module is about")]
mod call;
mod change;
#[cfg(test)]
pub(crate) mod failpoint;
mod hunt;
mod leg;
mod origin;
mod ports;
mod restate;
mod setup;
mod sound;
mod talk;
mod transfer;
mod walk;
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::fact::{Cause, Direction, Party, What};
use crate::media::command::{Command as MediaCommand, Event as MediaEvent};
use crate::record::{self, Record};
use crate::sip;
use crate::terms::{CallId, LegId, MonoMs, Now, Number, OperatorName, PortId, QueueName, TrunkName};

pub use broken::broken_off;
pub use call::{Call, Stage};
pub use leg::Leg;
pub use ports::{Local, PortRecord, QUARANTINE_MS};
pub use setup::{Limits, MediaSetup, Queue, Setup, Trunk};
pub use transfer::Transfer;

use ports::Ports;

/// How long the last tone or words are heard before we hang up, milliseconds.
pub const FAREWELL_MS: u64 = 5_000;
/// How long a carrier's early media is heard at most when the plan does not say, milliseconds.
pub const EARLY_MEDIA_MS: u64 = 60_000;
/// How long an operator's own phone may ring when he dials, milliseconds.
pub const OWN_PHONE_MS: u64 = 20_000;
/// How long the announcement that ends a forgotten call may last, milliseconds.
pub const ANNOUNCEMENT_MS: u64 = 15_000;

/// One thing that happened to the calls.
#[derive(Debug)]
pub enum Input {
    /// From SIP.
    Sip(sip::Event),
    /// From a media worker.
    Media(MediaEvent),
    /// The floor chose an operator for a waiting call.
    Assigned {
        /// Which call.
        call: CallId,
        /// From which queue.
        queue: QueueName,
        /// Who.
        operator: OperatorName,
        /// Whether his phone shall answer by itself.
        auto_answer: bool,
    },
    /// The floor took the offer back: ring time-out, or his phone is gone.
    Withdrawn {
        /// Which call.
        call: CallId,
        /// `no_answer` or `unreachable`.
        why: &'static str,
    },
    /// The caller waited as long as the plan or the queue allows.
    WaitedOut {
        /// Which call.
        call: CallId,
        /// `timeout`, `empty`, `full`…
        why: &'static str,
    },
    /// An operator dials: his own phone first.
    Dial {
        /// Who.
        operator: OperatorName,
        /// What he typed.
        to: String,
        /// Over this trunk only.
        trunk: Option<TrunkName>,
    },
    /// A desk ends the call.
    HangUp {
        /// Which.
        call: CallId,
        /// Who: the operator at whose desk it rings refuses it, anybody else ends it.
        by: OperatorName,
    },
    /// A desk holds or takes back the call.
    Hold {
        /// Which.
        call: CallId,
        /// Hold or take back.
        on: bool,
    },
    /// A desk hands the call over to a number or a colleague.
    Transfer {
        /// Which.
        call: CallId,
        /// Whose wish it is.
        by: OperatorName,
        /// To whom.
        to: String,
    },
    /// A desk presses digits towards the far end.
    Digits {
        /// In which call.
        call: CallId,
        /// Which.
        digits: String,
    },
    /// Refuse new calls from now on.
    Drain,
}

/// What the calls want done or tell.
#[derive(Debug)]
pub enum Output {
    /// To SIP.
    Sip(sip::Command),
    /// To a media worker.
    Media {
        /// Which.
        worker: usize,
        /// What.
        command: MediaCommand,
    },
    /// It happened.
    Fact {
        /// In which call.
        call: Option<CallId>,
        /// What.
        what: What,
    },
    /// To the floor: a caller waits.
    Wait {
        /// Which call.
        call: CallId,
        /// Where.
        queue: QueueName,
        /// The caller, for his place when he comes back.
        caller: Number,
        /// Smaller is served earlier.
        priority: i32,
        /// At most this long, milliseconds.
        wait_ms: Option<u64>,
    },
    /// To the floor: the caller no longer waits.
    Left {
        /// Which call.
        call: CallId,
    },
    /// To the floor: the assigned operator answered.
    Accepted {
        /// Which call.
        call: CallId,
        /// Who.
        operator: OperatorName,
    },
    /// To the floor: his phone did not lead to an answer.
    Declined {
        /// Which call.
        call: CallId,
        /// Who.
        operator: OperatorName,
        /// Whether he refused, rather than his phone not being reached.
        refused: bool,
    },
    /// To the floor: an operator is in a call of his own.
    Engaged {
        /// Who.
        operator: OperatorName,
        /// Which call.
        call: CallId,
        /// Whether the far end has answered.
        talking: bool,
    },
    /// To the floor: his call is over.
    Released {
        /// Who.
        operator: OperatorName,
        /// Which call.
        call: CallId,
    },
    /// Nobody's call: it was refused before it began.
    Refused {
        /// Who called.
        from: Party,
        /// What was dialled.
        called: Number,
        /// Why.
        cause: Cause,
    },
    /// To the orders: an operator dialled this number.
    Dialled {
        /// Which call.
        call: CallId,
        /// Who.
        operator: OperatorName,
        /// What.
        number: Number,
    },
    /// To the orders: the call is over.
    Over {
        /// Which call.
        call: CallId,
        /// Whether the parties talked.
        answered: bool,
    },
}

/// Why a desk's wish was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// As an HTTP status.
    pub status: u16,
    /// What is wrong and what to do next.
    pub words: String,
}

/// What the calls share: everything that is not one call.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) setup: Setup,
    pub(crate) ports: Ports,
    pub(crate) out: VecDeque<Output>,
    pub(crate) rng: ChaCha20Rng,
    /// Calls on each trunk.
    pub(crate) load: BTreeMap<TrunkName, u32>,
    /// Trunks that can be called, as SIP says.
    pub(crate) trunks_up: BTreeSet<TrunkName>,
    /// What each party's signalling showed of it.
    pub(crate) reached: BTreeMap<Party, Reach>,
    pub(crate) draining: bool,
    /// Leg ids that SIP gave us to use, filled before each step.
    pub(crate) legs: VecDeque<LegId>,
}

/// How a party is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reach {
    /// Our address as its signalling knows it.
    pub(crate) address: IpAddr,
    /// The address that its signalling comes from.
    pub(crate) remote: IpAddr,
    /// Whether it registered, so that it can be called.
    pub(crate) registered: bool,
    /// Whether it is a browser: ICE, DTLS-SRTP.
    pub(crate) browser: bool,
}

/// What is recorded beside the calls.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Shared {
    last_port: u64,
    reached: Vec<(Party, Reach)>,
    #[serde(default)]
    trunks_up: BTreeSet<TrunkName>,
}

/// The calls. After each `handle` or `handle_timeout`, drain `poll` until `None`.
#[derive(Debug)]
pub struct Calls {
    room: Room,
    calls: BTreeMap<CallId, Call>,
    by_leg: BTreeMap<LegId, CallId>,
    by_port: BTreeMap<PortId, CallId>,
    deadlines: BTreeSet<(MonoMs, CallId)>,
    touched: BTreeSet<CallId>,
    /// The one that a step has in hand: what a panic in it touched.
    in_hand: Option<CallId>,
    shared_touched: bool,
    /// Starts of calls in the running second, and dials of operators in the running minute.
    rate: origin::Rates,
}

impl Calls {
    /// No calls; `seed` from the OS, never from a record.
    pub fn new(setup: Setup, seed: [u8; 32]) -> Self {
        let ports = Ports::new(&setup.media.rtp_ports, 0);
        let reached = BTreeMap::new();
        let room = Room {
            ports,
            out: VecDeque::new(),
            rng: ChaCha20Rng::from_seed(seed),
            load: BTreeMap::new(),
            trunks_up: BTreeSet::new(),
            reached,
            draining: false,
            legs: VecDeque::new(),
            setup,
        };
        Self {
            room,
            calls: BTreeMap::new(),
            by_leg: BTreeMap::new(),
            by_port: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            touched: BTreeSet::new(),
            in_hand: None,
            shared_touched: false,
            rate: origin::Rates::default(),
        }
    }

    /// Gives leg ids to use for outgoing legs; call before each step until it has enough.
    pub fn supply_legs(&mut self, mut fresh: impl FnMut() -> LegId) {
        while self.room.legs.len() < 4 {
            self.room.legs.push_back(fresh());
        }
    }

    /// What is to be done; drain until `None`.
    pub fn poll(&mut self) -> Option<Output> {
        self.room.out.pop_front()
    }

    /// When to call `handle_timeout` again.
    pub fn next_timeout(&self) -> Option<MonoMs> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Calls alive.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether no call is alive.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The live call with this id.
    pub fn call(&self, id: CallId) -> Option<&Call> {
        self.calls.get(&id)
    }

    /// The call that the running step has in hand.
    pub fn in_hand(&self) -> Option<CallId> {
        self.in_hand
    }

    /// The call that this leg belongs to.
    pub fn of_leg(&self, leg: LegId) -> Option<CallId> {
        self.by_leg.get(&leg).copied()
    }

    /// All live calls, oldest first.
    pub fn all(&self) -> impl Iterator<Item = &Call> {
        self.calls.values()
    }

    /// RTP ports free or resting.
    pub fn ports_available(&self) -> usize {
        self.room.ports.available()
    }

    /// Takes new trunks, dialplans and limits; live calls go on with the steps they have.
    pub fn reload(&mut self, setup: Setup) {
        self.room.setup = setup;
    }

    /// Something happened. Unknown legs and ports are those of calls that are over: nothing to do.
    pub fn handle(&mut self, input: Input, now: Now) -> Result<Option<CallId>, Denied> {
        match input {
            Input::Sip(event) => self.on_sip(event, now),
            Input::Media(event) => self.on_media(event, now),
            Input::Assigned { call, queue, operator, auto_answer } => {
                self.with(call, now, |call, room| call.assigned(room, queue, operator, auto_answer, now));
            }
            Input::Withdrawn { call, why } => {
                self.with(call, now, |call, room| call.withdrawn(room, why, now))
            }
            Input::WaitedOut { call, why } => {
                self.with(call, now, |call, room| call.waited_out(room, why, now))
            }
            Input::Dial { operator, to, trunk } => return self.dial(&operator, &to, trunk, now).map(Some),
            Input::HangUp { call, by } => {
                self.with(call, now, |call, room| call.hang_up_by_desk(room, by, now))
            }
            Input::Hold { call, on } => return self.try_with(call, now, |call, room| call.hold(room, on)),
            Input::Transfer { call, by, to } => return self.transfer(call, &by, &to, now),
            Input::Digits { call, digits } => {
                return self.try_with(call, now, |call, room| call.press(room, &digits));
            }
            Input::Drain => self.room.draining = true,
        }
        Ok(None)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        let due: Vec<CallId> =
            self.deadlines.iter().take_while(|(at, _)| *at <= now.mono_ms).map(|(_, id)| *id).collect();
        for id in due {
            self.with(id, now, |call, room| call.on_deadline(room, now));
        }
    }

    /// What changed since the last call.
    pub fn records(&mut self, now: Now) -> Vec<Record> {
        let mut records: Vec<Record> = std::mem::take(&mut self.touched)
            .into_iter()
            .map(|id| match self.calls.get(&id) {
                Some(call) => Record::put(format!("call/{id}"), call, now),
                None => Record::gone(format!("call/{id}")),
            })
            .collect();
        if std::mem::take(&mut self.shared_touched) || !records.is_empty() {
            let reached = self.room.reached.iter().map(|(party, reach)| (party.clone(), *reach)).collect();
            let trunks_up = self.room.trunks_up.clone();
            let shared = Shared { last_port: self.room.ports.last_id(), reached, trunks_up };
            records.push(Record::put("calls/shared", &shared, now));
        }
        records
    }

    /// Goes on where the writer of `records` stood. Unless `media_lives` (the workers of this very
    /// process still carry the ports), the first outputs open its media ports again.
    ///
    /// # Errors
    /// [`record::RecordError`] when a record does not decode.
    pub fn restore(
        setup: Setup,
        seed: [u8; 32],
        records: &[Record],
        media_lives: bool,
        now: Now,
    ) -> Result<Self, record::RecordError> {
        let mut calls = Self::new(setup, seed);
        for Record { key, value } in records {
            let Some(bytes) = value else { continue };
            if key.starts_with("call/") {
                let (written, mut call): (Now, Call) = record::decode(bytes)?;
                call.rebase(record::shift_ms(written, now));
                calls.adopt(call, media_lives, now);
            } else if key == "calls/shared" {
                let (_, shared): (Now, Shared) = record::decode(bytes)?;
                calls.room.ports.skip_ids(shared.last_port);
                calls.room.reached.extend(shared.reached);
                calls.room.trunks_up.extend(shared.trunks_up);
            }
        }
        Ok(calls)
    }

    /// Takes a restored call in: its ports are held and opened again where they were.
    fn adopt(&mut self, mut call: Call, media_lives: bool, now: Now) {
        let id = call.id;
        self.in_hand = Some(id);
        #[cfg(test)]
        failpoint::pass("call/adopt");
        for leg in call.legs() {
            if let Party::Trunk(trunk) = &leg.party {
                *self.room.load.entry(trunk.clone()).or_default() += 1;
            }
            let Some(port) = &leg.port else { continue };
            self.room.ports.skip_ids(port.id.0);
            if let Local::Rtp { port, .. } = port.local {
                self.room.ports.hold(port);
            }
        }
        for leg in std::iter::once(&mut call.first).chain(&mut call.second) {
            leg.jump();
            if !media_lives {
                leg.jump_line();
            }
        }
        if !media_lives {
            call.reopen(&mut self.room);
        }
        self.calls.insert(id, call);
        self.settle(id, None, Next::Goes, now);
        self.in_hand = None;
    }

    /// One step of one call; afterwards the indexes follow what it became.
    fn with(&mut self, id: CallId, now: Now, step: impl FnOnce(&mut Call, &mut Room) -> Next) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        self.in_hand = Some(id);
        #[cfg(test)]
        failpoint::pass("call/step");
        let before = Held::of(call);
        let next = step(call, &mut self.room);
        self.settle(id, Some(before), next, now);
        self.in_hand = None;
    }

    /// The same for a wish that may be denied.
    fn try_with(
        &mut self,
        id: CallId,
        now: Now,
        step: impl FnOnce(&mut Call, &mut Room) -> Result<(), Denied>,
    ) -> Result<Option<CallId>, Denied> {
        let call = self
            .calls
            .get_mut(&id)
            .ok_or_else(|| Denied { status: 404, words: "this call is over".to_owned() })?;
        self.in_hand = Some(id);
        #[cfg(test)]
        failpoint::pass("call/wish");
        let before = Held::of(call);
        let done = step(call, &mut self.room);
        if done.is_ok() {
            self.settle(id, Some(before), Next::Goes, now);
        }
        self.in_hand = None;
        done.map(|()| Some(id))
    }

    /// Brings indexes and records in line with what the call became; `before` is what it held.
    fn settle(&mut self, id: CallId, before: Option<Held>, next: Next, now: Now) {
        self.touched.insert(id);
        if let Some(before) = before {
            for leg in before.legs.iter().flatten() {
                self.by_leg.remove(leg);
            }
            for port in before.ports.iter().flatten() {
                self.by_port.remove(port);
            }
            if let Some(at) = before.deadline_ms {
                self.deadlines.remove(&(at, id));
            }
        }
        if let Next::Over(ending) = next
            && let Some(mut call) = self.calls.remove(&id)
        {
            call.finish(&mut self.room, ending, now);
            return;
        }
        let Some(call) = self.calls.get(&id) else { return };
        let held = Held::of(call);
        self.by_leg.extend(held.legs.iter().flatten().map(|leg| (*leg, id)));
        self.by_port.extend(held.ports.iter().flatten().map(|port| (*port, id)));
        self.deadlines.extend(held.deadline_ms.map(|at| (at, id)));
    }

    fn on_sip(&mut self, event: sip::Event, now: Now) {
        let leg = match &event {
            sip::Event::Invited(invited) => {
                let invited = invited.clone();
                self.invited(*invited, now);
                return;
            }
            sip::Event::Referred { leg, to, replaces } => {
                self.referred(*leg, to, *replaces, now);
                return;
            }
            sip::Event::Registered { who, path, .. } => {
                self.shared_touched = true;
                let address = path.local().ip().to_canonical();
                let remote = path.remote().ip().to_canonical();
                let reach = Reach { address, remote, registered: true, browser: path.flow().is_some() };
                self.room.reached.insert(who.clone(), reach);
                return;
            }
            sip::Event::TrunkUp { trunk, path } => {
                self.shared_touched = true;
                let address = path.local().ip().to_canonical();
                let remote = path.remote().ip().to_canonical();
                let reach = Reach { address, remote, registered: true, browser: path.flow().is_some() };
                self.room.reached.entry(Party::Trunk(trunk.clone())).or_insert(reach);
                self.room.trunks_up.insert(trunk.clone());
                return;
            }
            sip::Event::TrunkDown { trunk, .. } => {
                self.shared_touched = true;
                self.room.trunks_up.remove(trunk);
                return;
            }
            sip::Event::PhoneLost { .. } | sip::Event::Banned(_) | sip::Event::Stranger { .. } => return,
            sip::Event::Unregistered { who, .. } => {
                self.shared_touched = true;
                self.room.reached.remove(who);
                return;
            }
            sip::Event::InviteSent { leg, .. }
            | sip::Event::Rang { leg }
            | sip::Event::EarlyMedia { leg, .. }
            | sip::Event::Answered { leg, .. }
            | sip::Event::PreAnswered { leg, .. }
            | sip::Event::Confirmed { leg, .. }
            | sip::Event::Redirected { leg, .. }
            | sip::Event::Failed { leg, .. }
            | sip::Event::Offered { leg, .. }
            | sip::Event::ChangeAnswered { leg, .. }
            | sip::Event::ChangeRefused { leg, .. }
            | sip::Event::Digit { leg, .. }
            | sip::Event::Ended { leg, .. } => *leg,
        };
        if let Some(&call) = self.by_leg.get(&leg) {
            self.with(call, now, |call, room| call.on_sip(room, leg, event, now));
        }
    }

    fn on_media(&mut self, event: MediaEvent, now: Now) {
        let port = match &event {
            MediaEvent::Counts(_) => return,
            MediaEvent::Progress(ports) => {
                for progress in ports {
                    let Some(call) = self.by_port.get(&progress.port).and_then(|id| self.calls.get_mut(id))
                    else {
                        continue;
                    };
                    self.touched.insert(call.id);
                    if let Some(leg) = call.leg_of_port(progress.port) {
                        leg.progress = Some(progress.clone());
                    }
                }
                return;
            }
            MediaEvent::OpenFailed { port, .. }
            | MediaEvent::Secured { port, .. }
            | MediaEvent::Connected { port }
            | MediaEvent::FirstPacket { port }
            | MediaEvent::PlayEnded { port, .. }
            | MediaEvent::Digit { port, .. }
            | MediaEvent::Silent { port, .. }
            | MediaEvent::Recovered { port, .. }
            | MediaEvent::Quality { port, .. }
            | MediaEvent::Dead { port }
            | MediaEvent::Failed { port, .. } => *port,
        };
        if let Some(&call) = self.by_port.get(&port) {
            self.with(call, now, |call, room| call.on_media(room, port, event, now));
        }
    }
}

/// What the indexes know a call by.
struct Held {
    legs: [Option<LegId>; 3],
    ports: [Option<PortId>; 3],
    deadline_ms: Option<MonoMs>,
}

impl Held {
    fn of(call: &Call) -> Self {
        let port = |leg: &Leg| leg.port.as_ref().map(|port| port.id);
        let (second, aside) = (call.second.as_ref(), call.aside());
        Self {
            legs: [Some(call.first.id), second.map(|leg| leg.id), aside.map(|leg| leg.id)],
            ports: [port(&call.first), second.and_then(port), aside.and_then(port)],
            deadline_ms: call.deadline_ms,
        }
    }
}

/// What a step left of a call.
#[derive(Debug)]
pub(crate) enum Next {
    /// It goes on.
    Goes,
    /// It is over; the legs and ports are still to be closed.
    Over(Ending),
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) result: crate::fact::CallResult,
    pub(crate) cause: Cause,
    /// `caller`, `operator` or `system`.
    pub(crate) by: &'static str,
}

impl Room {
    pub(crate) fn sip(&mut self, command: sip::Command) {
        self.out.push_back(Output::Sip(command));
    }

    pub(crate) fn media(&mut self, worker: usize, command: MediaCommand) {
        self.out.push_back(Output::Media { worker, command });
    }

    pub(crate) fn fact(&mut self, call: CallId, what: What) {
        self.out.push_back(Output::Fact { call: Some(call), what });
    }

    /// Counts a call on a trunk in (`+1`) or out (`-1`) and tells.
    pub(crate) fn count(&mut self, trunk: &TrunkName, step: i32) {
        let load = self.load.entry(trunk.clone()).or_default();
        *load = load.saturating_add_signed(step);
        let what = What::TrunkLoad { trunk: trunk.clone(), busy: *load };
        self.out.push_back(Output::Fact { call: None, what });
    }

    /// Whether a trunk can take one more call now.
    pub(crate) fn usable(&self, name: &TrunkName) -> bool {
        let Some(trunk) = self.setup.trunks.get(name) else { return false };
        self.trunks_up.contains(name) && self.load.get(name).copied().unwrap_or(0) < trunk.channels
    }

    /// Whether the party registered and can be called where it registered from.
    pub(crate) fn is_registered(&self, party: &Party) -> bool {
        self.reached.get(party).is_some_and(|reach| reach.registered)
    }

    /// Whether the party's phone is a browser. A phone nobody has seen yet is one: operators' are.
    pub(crate) fn is_browser(&self, party: &Party) -> bool {
        matches!(party, Party::Operator(_)) && self.reached.get(party).is_none_or(|reach| reach.browser)
    }

    /// The address that media of this party is told.
    pub(crate) fn address(&self, party: &Party) -> IpAddr {
        let known =
            || self.reached.get(party).map(|reach| reach.address).filter(|known| !known.is_unspecified());
        self.setup.media.address.or_else(known).unwrap_or(self.setup.media.fallback)
    }

    pub(crate) fn leg_id(&mut self) -> LegId {
        self.legs.pop_front().unwrap_or_default()
    }
}

/// Whether a call of this direction is worth a wrap-up when it ends.
pub(crate) fn is_inward(direction: Direction) -> bool {
    matches!(direction, Direction::In)
}

#[cfg(test)]
pub(crate) mod tests;
