//! Any other request of ours on its way (RFC 3261 figure 6).
//!
//! ```text
//!  Trying ──1xx──▶ Proceeding        E: send again, at first after T1, doubling up to T2
//!     │ 200-699       │ 200-699      F: timed out, gone
//!     └──────▶ Completed ──K──▶ gone
//! ```
//! Invariant: the dialog hears one final answer, or one time-out.

use serde::{Deserialize, Serialize};

use super::invite_client::Event;
use super::step::Step;
use super::timer::{T1_MS, T2_MS, T4_MS, Timer};

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Client {
    /// Sent, nothing heard.
    Trying {
        /// Pause before the next retransmission.
        wait_ms: u64,
    },
    /// A provisional answer came.
    Proceeding,
    /// It was answered; repeated answers are swallowed.
    Completed,
}

impl Client {
    /// Sends the request; `patience_ms` is timer F.
    pub(crate) fn begin(reliable: bool, patience_ms: u64) -> Step<Self> {
        let step = Step::to(Self::Trying { wait_ms: T1_MS }).send().arm(Timer::F, patience_ms);
        if reliable { step } else { step.arm(Timer::E, T1_MS) }
    }

    /// The table.
    pub(crate) fn step(self, event: Event, reliable: bool) -> Step<Self> {
        match (self, event) {
            (Self::Trying { .. } | Self::Proceeding, Event::Response(100..200)) => {
                Step::to(Self::Proceeding).pass()
            }
            (Self::Trying { .. } | Self::Proceeding, Event::Response(_)) => {
                let step = Step::to(Self::Completed).disarm(Timer::E).disarm(Timer::F).pass();
                if reliable { step.gone() } else { step.arm(Timer::K, T4_MS) }
            }
            (Self::Trying { wait_ms }, Event::Timer(Timer::E)) => {
                let wait_ms = wait_ms.saturating_mul(2).min(T2_MS);
                Step::to(Self::Trying { wait_ms }).send().arm(Timer::E, wait_ms)
            }
            (Self::Proceeding, Event::Timer(Timer::E)) => Step::to(self).send().arm(Timer::E, T2_MS),
            (Self::Trying { .. } | Self::Proceeding, Event::Timer(Timer::F) | Event::Broken) => {
                Step::to(self).time_out().gone()
            }
            (Self::Completed, Event::Timer(Timer::K)) => Step::to(self).gone(),
            (state, Event::Response(_) | Event::Timer(_) | Event::Broken) => Step::ignored(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_meets_every_event_as_the_figure_says() {
        let states = [Client::Trying { wait_ms: 4_000 }, Client::Proceeding, Client::Completed];
        let events = [
            Event::Response(100),
            Event::Response(200),
            Event::Response(500),
            Event::Timer(Timer::E),
            Event::Timer(Timer::F),
            Event::Timer(Timer::K),
            Event::Broken,
        ];
        let table = [
            [
                "pass>P",
                "-E -F pass K5000>C",
                "-E -F pass K5000>C",
                "send E4000>T",
                "timeout>.",
                "=",
                "timeout>.",
            ],
            [
                "pass>P",
                "-E -F pass K5000>C",
                "-E -F pass K5000>C",
                "send E4000>P",
                "timeout>.",
                "=",
                "timeout>.",
            ],
            ["=", "=", "=", "=", "=", ">.", "="],
        ];
        let short = |state: Option<Client>| match state {
            None => ".",
            Some(Client::Trying { .. }) => "T",
            Some(Client::Proceeding) => "P",
            Some(Client::Completed) => "C",
        };
        for (state, row) in states.iter().zip(table) {
            for (event, expected) in events.iter().zip(row) {
                assert_eq!(state.step(*event, false).shown(short), expected, "{state:?} × {event:?}");
            }
        }
    }

    #[test]
    fn retransmissions_double_up_to_t2_and_a_reliable_transport_has_none() {
        let mut state = Client::Trying { wait_ms: T1_MS };
        let mut waits = Vec::new();
        for _ in 0..5 {
            state = state.step(Event::Timer(Timer::E), false).next.unwrap_or(state);
            if let Client::Trying { wait_ms } = state {
                waits.push(wait_ms);
            }
        }
        assert_eq!(waits, [1_000, 2_000, 4_000, 4_000, 4_000]);
        assert_eq!(Client::begin(true, 32_000).shown(|_| ""), "send F32000>");
        assert_eq!(Client::Trying { wait_ms: 500 }.step(Event::Response(200), true).next, None);
    }
}
