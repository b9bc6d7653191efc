//! A peer's INVITE (RFC 3261 figure 7 with the Accepted state of RFC 6026 figure 8).
//!
//! ```text
//!  Proceeding ──300-699──▶ Completed ──ACK──▶ Confirmed ──I──▶ gone
//!     │ INVITE: last 1xx again  │ G: again        └ ACK swallowed
//!     │ 2xx                     │ H: nobody acknowledged, gone
//!     ▼                         └ INVITE: again
//!  Accepted ──L──▶ gone            INVITE swallowed; the dialog itself repeats its 2xx
//! ```
//! Invariant: the dialog sees an INVITE once, however often it comes.

use serde::{Deserialize, Serialize};

use super::step::Step;
use super::timer::{GIVE_UP_MS, T1_MS, T2_MS, T4_MS, Timer};

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InviteServer {
    /// Not answered yet.
    Proceeding,
    /// Refused, the ACK is awaited.
    Completed {
        /// Pause before the next retransmission.
        wait_ms: u64,
    },
    /// The ACK came.
    Confirmed,
    /// Answered.
    Accepted,
}

/// What can happen to a server transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The request came again.
    Again,
    /// The ACK to a refusal came.
    Ack,
    /// We answer with this status.
    Answer(u16),
    /// A timer rang.
    Timer(Timer),
}

impl InviteServer {
    /// The table.
    pub(crate) fn step(self, event: Event, reliable: bool) -> Step<Self> {
        match (self, event) {
            (Self::Proceeding, Event::Again | Event::Answer(100..200)) => Step::to(self).send(),
            (Self::Proceeding, Event::Answer(200..300)) => {
                Step::to(Self::Accepted).send().arm(Timer::L, GIVE_UP_MS)
            }
            (Self::Proceeding, Event::Answer(_)) => {
                let step = Step::to(Self::Completed { wait_ms: T1_MS }).send().arm(Timer::H, GIVE_UP_MS);
                if reliable { step } else { step.arm(Timer::G, T1_MS) }
            }
            (Self::Completed { .. }, Event::Again) => Step::to(self).send(),
            (Self::Completed { wait_ms }, Event::Timer(Timer::G)) => {
                let wait_ms = wait_ms.saturating_mul(2).min(T2_MS);
                Step::to(Self::Completed { wait_ms }).send().arm(Timer::G, wait_ms)
            }
            (Self::Completed { .. }, Event::Ack) => {
                let step = Step::to(Self::Confirmed).disarm(Timer::G).disarm(Timer::H);
                if reliable { step.gone() } else { step.arm(Timer::I, T4_MS) }
            }
            (Self::Completed { .. }, Event::Timer(Timer::H)) => Step::to(self).gone(),
            (Self::Confirmed, Event::Timer(Timer::I)) => Step::to(self).gone(),
            // RFC 6026 section 7.1: the dialog repeats its 2xx over a transaction that is Accepted.
            (Self::Accepted, Event::Answer(200..300)) => Step::to(self).send(),
            (Self::Accepted, Event::Timer(Timer::L)) => Step::to(self).gone(),
            (state, Event::Again | Event::Ack | Event::Answer(_) | Event::Timer(_)) => Step::ignored(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_meets_every_event_as_the_figure_says() {
        let states = [
            InviteServer::Proceeding,
            InviteServer::Completed { wait_ms: 500 },
            InviteServer::Confirmed,
            InviteServer::Accepted,
        ];
        let events = [
            Event::Again,
            Event::Ack,
            Event::Answer(180),
            Event::Answer(200),
            Event::Answer(486),
            Event::Timer(Timer::G),
            Event::Timer(Timer::H),
            Event::Timer(Timer::I),
            Event::Timer(Timer::L),
        ];
        let table = [
            ["send>P", "=", "send>P", "send L32000>A", "send H32000 G500>C", "=", "=", "=", "="],
            ["send>C", "-G -H I5000>F", "=", "=", "=", "send G1000>C", ">.", "=", "="],
            ["=", "=", "=", "=", "=", "=", "=", ">.", "="],
            ["=", "=", "=", "send>A", "=", "=", "=", "=", ">."],
        ];
        let short = |state: Option<InviteServer>| match state {
            None => ".",
            Some(InviteServer::Proceeding) => "P",
            Some(InviteServer::Completed { .. }) => "C",
            Some(InviteServer::Confirmed) => "F",
            Some(InviteServer::Accepted) => "A",
        };
        for (state, row) in states.iter().zip(table) {
            for (event, expected) in events.iter().zip(row) {
                assert_eq!(state.step(*event, false).shown(short), expected, "{state:?} × {event:?}");
            }
        }
    }

    #[test]
    fn over_a_reliable_transport_a_refusal_is_sent_once() {
        assert_eq!(InviteServer::Proceeding.step(Event::Answer(486), true).shown(|_| ""), "send H32000>");
        assert_eq!(InviteServer::Completed { wait_ms: 500 }.step(Event::Ack, true).next, None);
    }
}
