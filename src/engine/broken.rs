//! What a step that panicked had in hand, and how the call that it touched is ended.
//!
//! Invariant: an engine that is made again ends at most this one call; whoever was in it is free.

use crate::call::Call;
use crate::engine::{At, Engine, Setup, sip};
use crate::record::{Record, decode};
use crate::terms::{CallId, LegId, Now};

/// What a step had in hand when it panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Touched {
    /// A call.
    pub call: Option<CallId>,
    /// A leg, whose call is not known before the engine is made again.
    pub leg: Option<LegId>,
}

impl Touched {
    /// The call, as far as records tell: a leg's is looked for.
    pub fn call_of(&self, records: &[Record]) -> Option<CallId> {
        let holds = |call: &Call| call.legs().any(|leg| Some(leg.id) == self.leg);
        let calls = records.iter().filter(|record| record.key.starts_with("call/"));
        let mut calls = calls.filter_map(|record| decode::<Call>(record.value.as_ref()?).ok());
        self.call.or_else(|| calls.find(|(_, call)| holds(call)).map(|(_, call)| call.id))
    }
}

impl Engine {
    /// What the running step has in hand. To be asked of an engine whose step panicked; nothing else may.
    pub fn touched(&self) -> Touched {
        match self.at {
            At::Nowhere => Touched::default(),
            At::Of(call) => Touched { call: Some(call), leg: None },
            At::Calls => Touched { call: self.calls.in_hand(), leg: None },
            At::Sip => Touched { call: None, leg: self.sip.in_hand() },
        }
    }

    /// Ends the call that a panic touched: both legs are let go, its operator is free, its card stays on
    /// the desk. Which call it was, if it was one.
    pub fn break_off(&mut self, touched: Touched, now: Now) -> Option<CallId> {
        let of_leg = || touched.leg.and_then(|leg| self.calls.of_leg(leg));
        let call = touched.call.or_else(of_leg).filter(|call| self.calls.call(*call).is_some());
        if call.is_none() {
            // A leg without a call has nobody else to end it.
            if let Some(leg) = touched.leg {
                let cause = crate::call::broken_off();
                self.sip.handle(sip::Input::Command(sip::Command::HangUp { leg, cause }), now);
                self.settle(now);
            }
            return None;
        }
        self.broken = call;
        let id = call?;
        self.calls.supply_legs(|| self.sip.new_leg());
        self.calls.break_off(id, now);
        self.settle(now);
        self.broken = None;
        call
    }

    /// Like [`Engine::restore_in_place`], without one call: that one is ended by what its record says, and
    /// no step of it is run again.
    ///
    /// # Errors
    /// In words, when a record does not decode.
    pub fn restore_without(
        setup: Setup,
        seed: [u8; 32],
        records: &[Record],
        call: CallId,
        now: Now,
    ) -> Result<Self, String> {
        let key = format!("call/{call}");
        let others: Vec<Record> = records.iter().filter(|record| record.key != key).cloned().collect();
        let mut engine = Self::restore_with(setup, seed, &others, true, now)?;
        engine.broken = Some(call);
        engine.calls.bury(call, records, now);
        engine.settle(now);
        engine.broken = None;
        Ok(engine)
    }
}
