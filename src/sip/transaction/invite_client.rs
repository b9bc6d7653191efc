//! Our INVITE on its way (RFC 3261 figure 5 with the Accepted state of RFC 6026 figure 7).
//!
//! ```text
//!  Calling ──1xx──▶ Proceeding ──300-699: ACK──▶ Completed ──D──▶ gone
//!     │ A: send again   │ 2xx                        └ 300-699: ACK again
//!     │ 2xx             ▼
//!     └───────────▶ Accepted ──M──▶ gone          B in Calling: timed out, gone
//!                       └ 2xx: to the dialog (repeated, or of a fork)
//! ```
//! Invariant: the dialog hears every 2xx, but one refusal only; each refusal is acknowledged.

use serde::{Deserialize, Serialize};

use super::step::Step;
use super::timer::{D_MS, GIVE_UP_MS, T1_MS, Timer};

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InviteClient {
    /// Sent, nothing heard.
    Calling {
        /// Pause before the next retransmission.
        wait_ms: u64,
    },
    /// A provisional answer came.
    Proceeding,
    /// It was refused.
    Completed,
    /// It was answered.
    Accepted,
}

/// What can happen to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A response with this status.
    Response(u16),
    /// A timer rang.
    Timer(Timer),
    /// The transport says that it cannot be sent.
    Broken,
}

impl InviteClient {
    /// Sends the INVITE; `patience_ms` is timer B.
    pub(crate) fn begin(reliable: bool, patience_ms: u64) -> Step<Self> {
        let step = Step::to(Self::Calling { wait_ms: T1_MS }).send().arm(Timer::B, patience_ms);
        if reliable { step } else { step.arm(Timer::A, T1_MS) }
    }

    /// The table.
    pub(crate) fn step(self, event: Event, reliable: bool) -> Step<Self> {
        match (self, event) {
            (Self::Calling { .. } | Self::Proceeding, Event::Response(100..200)) => {
                Step::to(Self::Proceeding).disarm(Timer::A).disarm(Timer::B).pass()
            }
            (Self::Calling { .. } | Self::Proceeding, Event::Response(200..300)) => {
                Step::to(Self::Accepted).disarm(Timer::A).disarm(Timer::B).arm(Timer::M, GIVE_UP_MS).pass()
            }
            (Self::Calling { .. } | Self::Proceeding, Event::Response(_)) => {
                let step = Step::to(Self::Completed).disarm(Timer::A).disarm(Timer::B).ack().pass();
                if reliable { step.gone() } else { step.arm(Timer::D, D_MS) }
            }
            (Self::Calling { wait_ms }, Event::Timer(Timer::A)) => {
                let wait_ms = wait_ms.saturating_mul(2);
                Step::to(Self::Calling { wait_ms }).send().arm(Timer::A, wait_ms)
            }
            (Self::Calling { .. }, Event::Timer(Timer::B) | Event::Broken) => {
                Step::to(self).time_out().gone()
            }
            (Self::Completed, Event::Response(300..)) => Step::to(self).ack(),
            (Self::Completed, Event::Timer(Timer::D) | Event::Broken) => Step::to(self).gone(),
            (Self::Accepted, Event::Response(200..300)) => Step::to(self).pass(),
            (Self::Accepted, Event::Timer(Timer::M)) => Step::to(self).gone(),
            (state, Event::Response(_) | Event::Timer(_) | Event::Broken) => Step::ignored(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_meets_every_event_as_the_figure_says() {
        let states = [
            InviteClient::Calling { wait_ms: 500 },
            InviteClient::Proceeding,
            InviteClient::Completed,
            InviteClient::Accepted,
        ];
        let events = [
            Event::Response(180),
            Event::Response(200),
            Event::Response(486),
            Event::Timer(Timer::A),
            Event::Timer(Timer::B),
            Event::Timer(Timer::D),
            Event::Timer(Timer::M),
            Event::Broken,
        ];
        let table = [
            [
                "-A -B pass>P",
                "-A -B M32000 pass>A",
                "-A -B ack pass D32000>C",
                "send A1000>L",
                "timeout>.",
                "=",
                "=",
                "timeout>.",
            ],
            ["-A -B pass>P", "-A -B M32000 pass>A", "-A -B ack pass D32000>C", "=", "=", "=", "=", "="],
            ["=", "=", "ack>C", "=", "=", ">.", "=", ">."],
            ["=", "pass>A", "=", "=", "=", "=", ">.", "="],
        ];
        let short = |state: Option<InviteClient>| match state {
            None => ".",
            Some(InviteClient::Calling { .. }) => "L",
            Some(InviteClient::Proceeding) => "P",
            Some(InviteClient::Completed) => "C",
            Some(InviteClient::Accepted) => "A",
        };
        for (state, row) in states.iter().zip(table) {
            for (event, expected) in events.iter().zip(row) {
                let step = state.step(*event, false);
                assert_eq!(step.shown(short), expected, "{state:?} × {event:?}");
            }
        }
    }

    #[test]
    fn a_reliable_transport_neither_repeats_nor_waits_for_repeats() {
        assert_eq!(InviteClient::begin(true, 32_000).shown(|_| ""), "send B32000>");
        assert_eq!(InviteClient::begin(false, 32_000).shown(|_| ""), "send B32000 A500>");
        let refused = InviteClient::Proceeding.step(Event::Response(486), true);
        assert_eq!(refused.next, None);
    }
}
