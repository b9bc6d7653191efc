//! What the four tables of this folder say: the next state, and what is to be done on the way.
//!
//! Invariant: a table only says; sending, timing and telling is done in one place, for all four.

use super::timer::Timer;

/// One thing that a table asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Send the request, or the last answer.
    Send,
    /// Acknowledge the refusal.
    Ack,
    /// Let the dialog see the message.
    Pass,
    /// Tell the dialog that nobody answered.
    TimeOut,
    /// Set a timer.
    Arm(Timer, u64),
    /// Stop a timer.
    Disarm(Timer),
}

/// What a table says: the next state (`None`: the transaction is over) and what to do.
#[derive(Debug)]
pub(crate) struct Step<S> {
    /// The state after.
    pub(crate) next: Option<S>,
    /// In order.
    pub(crate) acts: Vec<Act>,
    /// Whether the event meant nothing to the state.
    pub(crate) ignored: bool,
}

impl<S> Step<S> {
    pub(crate) fn to(state: S) -> Self {
        Self { next: Some(state), acts: Vec::new(), ignored: false }
    }

    /// The one arm of each table for what changes nothing.
    pub(crate) fn ignored(state: S) -> Self {
        Self { next: Some(state), acts: Vec::new(), ignored: true }
    }

    fn with(mut self, act: Act) -> Self {
        self.acts.push(act);
        self
    }

    pub(crate) fn send(self) -> Self {
        self.with(Act::Send)
    }

    pub(crate) fn ack(self) -> Self {
        self.with(Act::Ack)
    }

    pub(crate) fn pass(self) -> Self {
        self.with(Act::Pass)
    }

    pub(crate) fn time_out(self) -> Self {
        self.with(Act::TimeOut)
    }

    pub(crate) fn arm(self, timer: Timer, wait_ms: u64) -> Self {
        self.with(Act::Arm(timer, wait_ms))
    }

    pub(crate) fn disarm(self, timer: Timer) -> Self {
        self.with(Act::Disarm(timer))
    }

    pub(crate) fn gone(mut self) -> Self {
        self.next = None;
        self
    }

    #[cfg(test)]
    pub(crate) fn shown(self, short: impl Fn(Option<S>) -> &'static str) -> String {
        if self.ignored {
            return "=".to_owned();
        }
        let acts: Vec<String> = self
            .acts
            .iter()
            .map(|act| match act {
                Act::Send => "send".to_owned(),
                Act::Ack => "ack".to_owned(),
                Act::Pass => "pass".to_owned(),
                Act::TimeOut => "timeout".to_owned(),
                Act::Arm(timer, wait_ms) => format!("{timer:?}{wait_ms}"),
                Act::Disarm(timer) => format!("-{timer:?}"),
            })
            .collect();
        format!("{}>{}", acts.join(" "), short(self.next))
    }
}

/// The same step of a machine that is one of several.
pub(crate) fn map_step<A, B>(step: Step<A>, wrap: impl Fn(A) -> B) -> Step<B> {
    Step { next: step.next.map(wrap), acts: step.acts, ignored: step.ignored }
}
