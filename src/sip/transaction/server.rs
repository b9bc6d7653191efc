//! Any other request of a peer (RFC 3261 figure 8).
//!
//! ```text
//!  Trying ──1xx──▶ Proceeding ──200-699──▶ Completed ──J──▶ gone
//!     │ again: swallowed   └ again: last 1xx again  └ again: the answer again
//!     └──200-699──────────────────────────────▲
//! ```
//! Invariant: the dialog sees a request once, however often it comes.

use serde::{Deserialize, Serialize};

use super::invite_server::Event;
use super::step::Step;
use super::timer::{GIVE_UP_MS, Timer};

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Server {
    /// Nothing answered yet.
    Trying,
    /// A provisional answer was given.
    Proceeding,
    /// Answered.
    Completed,
}

impl Server {
    /// The table.
    pub(crate) fn step(self, event: Event, reliable: bool) -> Step<Self> {
        match (self, event) {
            (Self::Trying | Self::Proceeding, Event::Answer(100..200)) => Step::to(Self::Proceeding).send(),
            (Self::Trying | Self::Proceeding, Event::Answer(_)) => {
                let step = Step::to(Self::Completed).send();
                if reliable { step.gone() } else { step.arm(Timer::J, GIVE_UP_MS) }
            }
            (Self::Proceeding | Self::Completed, Event::Again) => Step::to(self).send(),
            (Self::Completed, Event::Timer(Timer::J)) => Step::to(self).gone(),
            (state, Event::Again | Event::Ack | Event::Answer(_) | Event::Timer(_)) => Step::ignored(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_meets_every_event_as_the_figure_says() {
        let states = [Server::Trying, Server::Proceeding, Server::Completed];
        let events = [
            Event::Again,
            Event::Ack,
            Event::Answer(100),
            Event::Answer(200),
            Event::Answer(500),
            Event::Timer(Timer::J),
        ];
        let table = [
            ["=", "=", "send>P", "send J32000>C", "send J32000>C", "="],
            ["send>P", "=", "send>P", "send J32000>C", "send J32000>C", "="],
            ["send>C", "=", "=", "=", "=", ">."],
        ];
        let short = |state: Option<Server>| match state {
            None => ".",
            Some(Server::Trying) => "T",
            Some(Server::Proceeding) => "P",
            Some(Server::Completed) => "C",
        };
        for (state, row) in states.iter().zip(table) {
            for (event, expected) in events.iter().zip(row) {
                assert_eq!(state.step(*event, false).shown(short), expected, "{state:?} × {event:?}");
            }
        }
        assert_eq!(Server::Trying.step(Event::Answer(200), true).next, None);
    }
}
