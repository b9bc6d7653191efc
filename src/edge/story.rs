//! The log as the story of a call: one line a step, numbers masked, readable at four in the morning.
//!
//! Invariant: levels mean something: INFO a step of a call, WARN somebody might want to wake, ERROR
//! somebody must; nothing here is logged a second time elsewhere.

use serde::Serialize;
use tracing::{debug, info, warn};

use crate::fact::{Cause, Direction, Fact, Flow, Party, Phone, What};
use crate::terms::{MonoMs, Number};

fn name(party: &Party) -> &str {
    match party {
        Party::Trunk(trunk) => trunk.as_str(),
        Party::Operator(operator) => operator.as_str(),
    }
}

fn why(cause: &Cause) -> String {
    match (cause.q850, cause.sip) {
        (0, 0) => cause.words.clone(),
        (q850, 0) => format!("{} (Q.850 {q850})", cause.words),
        (q850, sip) => format!("{} (Q.850 {q850}, SIP {sip})", cause.words),
    }
}

/// A value's word as events, API and call records write it.
fn word(value: &impl Serialize) -> String {
    let written = serde_json::to_value(value).ok();
    written.as_ref().and_then(|word| word.as_str()).map(|word| word.replace('_', " ")).unwrap_or_default()
}

/// ` text`, or nothing where there is none.
fn after_space(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" {text}") }
}

fn way(flow: Flow) -> &'static str {
    match flow {
        Flow::In => "towards us",
        Flow::Out => "from us",
    }
}

/// Writes one fact's line.
pub fn tell(fact: &Fact) {
    let call = fact.call.map(|call| call.to_string()).unwrap_or_default();
    let call = tracing::field::display(&call);
    match &fact.what {
        What::NodeStarted { name, version } => {
            info!("node {name} serves, version {version}, epoch {}", fact.epoch)
        }
        What::TrunkUp { trunk, from } => info!("trunk {trunk} is up{}", after_space(from)),
        What::TrunkDown { trunk, why } => warn!("trunk {trunk} is down: {why}"),
        What::TrunkLoad { trunk, busy } => debug!("trunk {trunk} carries {busy}"),
        What::TrunkFailed { trunk, cause } => warn!(call, "trunk {trunk} led nowhere: {}", why(cause)),
        What::Operator { operator, state, reason, phone, .. } => {
            let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
            let state = word(state);
            let phone = match phone {
                Phone::Registered => "",
                Phone::Lost => ", phone lost",
                Phone::None => ", no phone",
            };
            info!("operator {operator} is {state}{reason}{phone}");
        }
        What::Arrived { direction, caller, called, trunk, operator, .. } => {
            let by =
                trunk.as_ref().map(|trunk| trunk.as_str()).or(operator.as_ref().map(|name| name.as_str()));
            let kind = match direction {
                Direction::In => "incoming",
                Direction::Out => "outgoing",
                Direction::Bridge => "bridged",
            };
            info!(call, "{kind} call from {}: {caller} calls {called}", by.unwrap_or("nobody"));
        }
        What::Leg { leg, party, state, codec, .. } => {
            info!(call, "leg {leg} to {} is {}{}", name(party), word(state), after_space(codec));
        }
        What::LegEnded { leg, cause } => info!(call, "leg {leg} ended: {}", why(cause)),
        What::Greeting { prompt } => info!(call, "hears {prompt}"),
        What::Queued { queue, priority } => info!(call, "waits in queue {queue}, priority {priority}"),
        What::LeftQueue { queue, why } => info!(call, "left queue {queue}: {why}"),
        What::Assigned { queue, operator } => info!(call, "queue {queue} rings operator {operator}"),
        What::Unassigned { operator, why, .. } => info!(call, "operator {operator} did not take it: {why}"),
        What::Ringing { trunk } => info!(call, "far end rings over {trunk}"),
        What::EarlyMedia { trunk } => info!(call, "the carrier behind {trunk} is heard before the answer"),
        What::Tone { tone, local } => {
            info!(call, "{} tone {}", if *local { "our" } else { "the carrier's" }, word(tone))
        }
        What::Answered { operator, trunk, wait_ms, .. } => {
            let who = operator.as_ref().map(|name| name.as_str()).unwrap_or("nobody of ours");
            let over = trunk.as_ref().map(|trunk| trunk.as_str()).unwrap_or("no trunk");
            info!(call, "answered: operator {who}, trunk {over}, after {wait_ms} ms");
        }
        What::Held => info!(call, "on hold"),
        What::Resumed => info!(call, "off hold"),
        What::Transferred { by, operator, trunk } => {
            let who = operator.as_ref().map(|name| name.as_str()).unwrap_or("nobody of ours");
            let over = trunk.as_ref().map(|trunk| trunk.as_str()).unwrap_or("no trunk");
            info!(call, "handed over by {by}: operator {who}, trunk {over}");
        }
        What::Digit { leg } => debug!(call, "a digit from leg {leg}"),
        What::MediaSilent { leg, flow, cause } => warn!(call, "leg {leg} is silent {}: {cause}", way(*flow)),
        What::MediaRecovered { leg, flow } => info!(call, "leg {leg} is heard again {}", way(*flow)),
        What::MediaQuality { leg, quality } => debug!(call, "leg {leg} sounds {quality:?}"),
        What::Ended { result, cause, by, wait_ms, talk_ms } => {
            info!(
                call,
                "over: {}, ended by {by}, {}; waited {wait_ms} ms, talked {talk_ms} ms",
                word(result),
                why(cause)
            );
        }
        What::CardOpened { card, operator, .. } => info!(call, "card {card} opened for {operator}"),
        What::CardMoved { card, operator } => info!(call, "card {card} moved to {operator}"),
        What::CardCustomer { card, .. } => debug!(call, "card {card}: the customer is known"),
        What::CardUpdated { card, .. } => debug!(call, "card {card} was typed into"),
        What::CardSubmitted { card, operator, .. } => info!(call, "card {card} submitted by {operator}"),
        What::CardAccepted { card } => info!(call, "card {card} accepted: the order is safe"),
        What::CardDiscarded { card, reason } => info!(call, "card {card} discarded: {reason}"),
    }
}

/// Refused calls that get a line of their own in a second; the others are counted in one more.
const MAX_REFUSALS: u32 = 5;
/// The second.
const REFUSALS_MS: u64 = 1_000;

/// Tells of calls that were refused before they began, so that a flood of them does not fill the disk.
#[derive(Debug, Default)]
pub struct Refusals {
    since_ms: MonoMs,
    told: u32,
    untold: u32,
}

impl Refusals {
    /// One line, or one more to be counted.
    pub fn tell(&mut self, from: &Party, called: &Number, cause: &Cause, now: MonoMs) {
        if now.saturating_sub(self.since_ms) >= REFUSALS_MS {
            if self.untold > 0 {
                warn!("{} more calls were refused", self.untold);
            }
            *self = Self { since_ms: now, told: 0, untold: 0 };
        }
        if self.told >= MAX_REFUSALS {
            self.untold = self.untold.saturating_add(1);
            return;
        }
        self.told = self.told.saturating_add(1);
        info!("call from {} to {called} refused: {}", name(from), why(cause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_told_in_a_few_lines_a_second() {
        let mut refusals = Refusals::default();
        let (from, called, cause) = (Party::Trunk("gsm-1".into()), Number::default(), Cause::default());
        for _ in 0..100 {
            refusals.tell(&from, &called, &cause, 5_000);
        }
        assert_eq!((refusals.told, refusals.untold), (MAX_REFUSALS, 100 - MAX_REFUSALS));
        refusals.tell(&from, &called, &cause, 6_000);
        assert_eq!((refusals.told, refusals.untold), (1, 0));
    }
}
