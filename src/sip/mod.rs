//! SIP as a machine: messages in, messages and events out. It stands between the wire and the call
//! centre: whatever is lost, repeated, forked, cancelled or forged stops here, and the calls see legs
//! that ring, answer, change and end.
//!
//! The way of a message: `receive` (is it one, is it new) → `auth` (who is it) → `callee`, `within` or
//! `register` (what does it want); the way of a command: `caller`, `callee`, `dialog/change`.
//! Invariant: no clock, no entropy but the seed, no socket; after each `handle` or `handle_timeout` the
//! owner drains `poll`, and `records` then hold all that another process needs to go on.

pub mod digest;
pub mod guard;
pub mod header;
pub mod message;
pub mod uri;

mod auth;
mod callee;
mod caller;
mod cause;
mod dialog;
mod entropy;
mod leg;
mod profile;
mod receive;
mod register;
mod registrar;
mod reply;
mod steps;
mod transaction;
mod trunk;
mod wire;
mod within;
mod words;

use crate::fact::Party;
use crate::record::{Record, decode, moved, shift_ms};
use crate::terms::{LegId, MonoMs, Now, OperatorName, WallMs};

use auth::NONCE_LIFE_MS;
use caller::Wanted;
use digest::Authenticator;
use entropy::Entropy;
use guard::Guard;
use leg::{Leg, LegTimer, Legs};
use registrar::{Binding, Registrar};
use transaction::{Incoming, Outgoing, RESTORE_GAP, Transactions, Wake};
use trunk::Trunks;
use wire::Wire;

pub use profile::Profile;
pub use words::{
    Command, Config, Counts, Event, Health, Identity, Input, Invited, Output, Path, Prefix, Provider,
    TrunkAccount, TrunkKind, Way,
};

/// The SIP machine. After each `handle` or `handle_timeout`, drain `poll` until `None`.
#[derive(Debug)]
pub struct Sip {
    wire: Wire,
    authenticator: Authenticator,
    trunks: Trunks,
    registrar: Registrar,
    guard: Guard,
    legs: Legs,
    next_leg: u64,
    recorded_leg: u64,
}

impl Sip {
    /// A machine that knows nobody yet; `seed` comes from the OS (CSPRNG), never from a record.
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        let authenticator = Authenticator::new(&config.domain, config.pair_secret.expose(), NONCE_LIFE_MS);
        let guard = Guard::new(config.guard.clone());
        let wire = Wire { config, tx: Transactions::default(), entropy: Entropy::new(seed), asked_len: 0 };
        Self {
            wire,
            authenticator,
            trunks: Trunks::default(),
            registrar: Registrar::default(),
            guard,
            legs: Legs::default(),
            next_leg: 0,
            recorded_leg: 0,
        }
    }

    /// Goes on where the writer of `records` stood; records of other machines and those that do not
    /// decode are passed over. Accounts and phone keys are not in records (how trunks stand is): give them
    /// again by `Command::Trunks` and `Command::Phone` right after.
    pub fn restore(config: Config, seed: [u8; 32], records: &[Record], now: Now) -> Self {
        let mut sip = Self::new(config, seed);
        for record in records {
            if let (Some(key), Some(value)) = (record.key.strip_prefix("sip/"), &record.value) {
                sip.adopt(key, value, now);
            }
        }
        sip.wire.tx.jump();
        sip.next_leg = sip.next_leg.saturating_add(RESTORE_GAP);
        sip
    }

    fn adopt(&mut self, key: &str, value: &[u8], now: Now) {
        let (kind, id) = key.split_once('/').unwrap_or((key, ""));
        let number = id.parse().unwrap_or(0);
        match kind {
            "leg" => {
                if let Ok((at, mut leg)) = decode::<Leg>(value) {
                    leg.armed.shift(shift_ms(at, now));
                    leg.asked_at = moved(leg.asked_at, shift_ms(at, now));
                    leg.dialog.jump();
                    leg.forks.iter_mut().for_each(|fork| fork.dialog.jump());
                    leg.reliable.jump();
                    leg.lost |= leg.home.flow().is_some();
                    let id = leg.id;
                    self.next_leg = self.next_leg.max(id.0);
                    self.wire.tx.alarms.adopt(&leg.armed, |timer| Wake::Leg(id, timer));
                    self.legs.insert(leg);
                }
            }
            "client" => {
                if let Ok((at, one)) = decode::<Outgoing>(value) {
                    self.wire.tx.adopt_outgoing(number, one, shift_ms(at, now));
                }
            }
            "server" => {
                if let Ok((at, one)) = decode::<Incoming>(value) {
                    self.wire.tx.adopt_incoming(number, one, shift_ms(at, now));
                }
            }
            "binding" => {
                if let Ok((at, binding)) = decode::<Binding>(value) {
                    self.registrar.adopt(binding, shift_ms(at, now));
                }
            }
            "trunk" => self.trunks.adopt(id, value, now),
            "nonce" => {
                if let Ok((_, count)) = decode::<(u32, WallMs)>(value) {
                    self.registrar.adopt_nonce(id.to_owned(), count);
                }
            }
            "next_leg" => {
                if let Ok((_, next)) = decode::<u64>(value) {
                    self.next_leg = self.next_leg.max(next);
                }
            }
            _ => {}
        }
    }

    /// A leg id that no other leg has or had.
    pub fn new_leg(&mut self) -> LegId {
        self.next_leg = self.next_leg.saturating_add(1);
        LegId(self.next_leg)
    }

    /// Something happened.
    pub fn handle(&mut self, input: Input, now: Now) {
        self.legs.let_go();
        match input {
            Input::Received { path, bytes } => self.received(path, &bytes, now),
            Input::FlowClosed(flow) => self.flow_closed(flow, now),
            Input::Command(command) => self.command(command, now),
        }
        self.say_thinned(now);
    }

    fn command(&mut self, command: Command, now: Now) {
        match command {
            Command::Trunks(accounts) => self.set_trunks(accounts, now),
            Command::Leave => self.leave_providers(now),
            Command::Phone { operator, key, ha1 } => {
                // A browser that went on with the password of an ended session must not lock the new one.
                self.guard.forgive(operator.as_str());
                self.registrar.learn_key(operator, key, ha1);
            }
            Command::ForgetPhone { operator, key } => {
                if self.registrar.forget_key(&operator, &key) {
                    self.unregister(&Party::Operator(operator), "forgotten", now);
                }
            }
            Command::Invite { leg, to, number, show, display, headers, sdp, ring_ms } => {
                self.invite(Wanted { leg, to, number, show, display, headers, sdp, ring_ms }, now);
            }
            Command::Ring { leg } => self.ring(leg, &bytes::Bytes::new(), now),
            Command::Progress { leg, sdp } => self.ring(leg, &sdp, now),
            Command::Answer { leg, sdp } => self.answer_call(leg, &sdp, now),
            Command::Reject { leg, code, cause } => self.reject(leg, code, cause, false, now),
            Command::Offer { leg, sdp } => self.offer(leg, sdp, now),
            Command::AnswerChange { leg, sdp } => self.answer_change(leg, &sdp, now),
            Command::RefuseChange { leg, code } => self.refuse_change(leg, code, now),
            Command::HangUp { leg, cause } => self.hang_up(leg, cause, now),
            Command::AnswerRefer { leg, code } => self.answer_refer(leg, code, now),
            Command::ReferProgress { leg, code } => self.refer_progress(leg, code, now),
            Command::SendDigit { leg, digit, duration_ms } => self.send_digit(leg, digit, duration_ms, now),
        }
    }

    /// What is to be done; drain until `None`.
    pub fn poll(&mut self) -> Option<Output> {
        self.wire.tx.out.pop_front()
    }

    /// When to call `handle_timeout` again.
    pub fn next_timeout(&self) -> Option<MonoMs> {
        let trunks = self.trunks.next_timeout();
        [self.wire.tx.alarms.next(), self.registrar.next_timeout(), trunks].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.legs.let_go();
        for who in self.registrar.expire(now.mono_ms) {
            self.wire.tell(Event::Unregistered { who: who.clone(), why: "expired" });
            self.gone(&who, now);
        }
        self.trunks_timeout(now);
        self.say_thinned(now);
        while let Some(wake) = self.wire.tx.alarms.pop(now.mono_ms) {
            self.legs.let_go();
            match wake {
                Wake::Client(id, timer) => {
                    if let Some(heard) = self.wire.tx.ring_client(id, timer, now) {
                        self.heard(heard, now);
                    }
                }
                Wake::Server(id, timer) => self.wire.tx.ring_server(id, timer, now),
                Wake::Leg(id, timer) => self.leg_timer(id, timer, now),
            }
        }
    }

    fn leg_timer(&mut self, id: LegId, timer: LegTimer, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        self.wire.disarm(leg, &[timer]);
        match timer {
            LegTimer::Ring => self.ring_over(id, now),
            LegTimer::Silent => self.silent(id, now),
            LegTimer::GiveUp => self.cancel_over(id),
            LegTimer::Repeat => self.repeat_200(id, now),
            LegTimer::Unacked => self.never_acknowledged(id, now),
            LegTimer::Refresh => self.refresh_due(id, now),
            LegTimer::Expire => self.session_expired(id, now),
            LegTimer::Retry => self.retry_change(id, now),
            LegTimer::Reprovision => self.repeat_18x(id, now),
            LegTimer::Unpracked => self.never_confirmed(id, now),
        }
    }

    /// The leg leaves no trace.
    fn remove(&mut self, id: LegId) {
        if let Some(leg) = self.legs.remove(id) {
            self.wire.forget(&leg);
        }
    }

    /// The leg that the running step took in hand last: the one that a panic touched.
    pub fn in_hand(&self) -> Option<LegId> {
        self.legs.last()
    }

    /// Operators whose phones have registered and cannot be reached: their sockets are gone.
    pub fn phones_lost(&self) -> Vec<OperatorName> {
        self.registrar.phones_lost()
    }

    /// What changed since the last call: upserts and tombstones with keys `sip/…`.
    pub fn records(&mut self, now: Now) -> Vec<Record> {
        let mut records = Vec::new();
        for id in self.legs.take_dirty() {
            let key = format!("sip/leg/{id}");
            let leg = self.legs.get(id);
            records.push(leg.map_or_else(|| Record::gone(&*key), |leg| Record::put(&*key, leg, now)));
        }
        self.wire.tx.records(now, &mut records);
        self.registrar.records(now, &mut records);
        self.trunks.records(now, &mut records);
        if self.next_leg != self.recorded_leg {
            self.recorded_leg = self.next_leg;
            records.push(Record::put("sip/next_leg", &self.next_leg, now));
        }
        records
    }

    /// How much it holds.
    pub fn counts(&self) -> Counts {
        Counts {
            legs: self.legs.len(),
            transactions: self.wire.tx.len(),
            registrations: self.registrar.len(),
            timers: self.wire.tx.alarms.len(),
        }
    }
}

#[cfg(test)]
mod tests;
