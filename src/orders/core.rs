//! The words spoken with the order core: what it is told of calls, and the orders it is given.
//!
//! Invariant: a letter's key depends only on what it says, so the same fact always makes the same letter.

use serde::{Deserialize, Serialize};

use crate::fact::{CallResult, Fact, Fields, What};
use crate::terms::{CallId, CardId, Number, OperatorName, QueueName, TrunkName, WallMs};

/// `2026-03-01T09:30:00.000Z`.
fn instant(at: WallMs) -> String {
    let at = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// What a call event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallEvent {
    /// It began.
    Arrived,
    /// The parties talk.
    Answered,
    /// It is over.
    Ended,
}

/// Body of `POST {core}/calls`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallMessage {
    /// Which call.
    pub call_id: CallId,
    /// What happened.
    pub event: CallEvent,
    /// The caller's whole number, empty when withheld.
    pub caller: String,
    /// Our line.
    pub line: String,
    /// The trunk.
    pub trunk: Option<TrunkName>,
    /// The queue.
    pub queue: Option<QueueName>,
    /// The operator.
    pub operator: Option<OperatorName>,
    /// How it ended.
    pub result: Option<CallResult>,
    /// When, RFC 3339 UTC.
    pub at: String,
}

/// Body of `POST {core}/orders`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderMessage {
    /// `call`.
    pub source: String,
    /// The call it came from.
    pub call_id: Option<CallId>,
    /// The caller's whole number, empty when withheld.
    pub caller: String,
    /// Our line.
    pub line: String,
    /// The trunk.
    pub trunk: Option<TrunkName>,
    /// The queue.
    pub queue: Option<QueueName>,
    /// Who took it.
    pub operator: Option<OperatorName>,
    /// When it was submitted, RFC 3339 UTC.
    pub at: String,
    /// What was ordered.
    pub fields: Fields,
}

/// Answer to `POST {core}/orders`; cores may say more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderAnswer {
    /// The core's id of the order: text or a number.
    #[serde(deserialize_with = "text_or_number")]
    pub id: String,
}

fn text_or_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Id {
        Text(String),
        Number(i64),
    }
    Ok(match Id::deserialize(deserializer)? {
        Id::Text(text) => text,
        Id::Number(number) => number.to_string(),
    })
}

/// Body of `POST {core}/orders/{id}/discard`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiscardMessage {
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// An order as the core shows it in a customer's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastOrder {
    /// The core's id.
    pub id: String,
    /// `new`, `discarded`, or what the core says.
    pub state: String,
    /// When it was given, RFC 3339 UTC.
    pub at: String,
    /// What was ordered.
    pub fields: Fields,
}

/// Answer to `GET {core}/customers?phone=`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Customer {
    /// Name, empty if unknown.
    pub name: String,
    /// Orders are not taken from him.
    pub blocked: bool,
    /// The last orders, newest first.
    pub orders: Vec<PastOrder>,
    /// Addresses he is picked up from, most frequent first.
    pub addresses: Vec<String>,
}

/// One message to the core, as the outbox keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// `Idempotency-Key`.
    pub key: String,
    /// Letters of one lane go out one after the other.
    pub lane: String,
    /// Below the core's base address: `/orders`, `/calls`.
    pub path: &'static str,
    /// JSON.
    pub body: String,
    /// The card whose order it is.
    pub card: Option<CardId>,
}

/// What is known of the call or card that a letter speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// The caller.
    pub caller: Number,
    /// Our line.
    pub line: Number,
    /// The trunk.
    pub trunk: Option<TrunkName>,
    /// The queue.
    pub queue: Option<QueueName>,
    /// The operator.
    pub operator: Option<OperatorName>,
}

/// The letter that follows from a fact, if one does; `known` is the call's or card's state with the fact
/// already in it.
pub fn letter(fact: &Fact, known: &Known) -> Option<Letter> {
    if let What::CardSubmitted { card, operator, fields } = &fact.what {
        return order_letter(fact, *card, operator, fields, known);
    }
    let call = fact.call?;
    let (event, result, key) = if let What::Arrived { .. } = &fact.what {
        (CallEvent::Arrived, None, format!("{call}:arrived"))
    } else if let What::Answered { operator, .. } = &fact.what {
        // A call that is handed on is answered again, by another operator: that is news to the core.
        let by = operator.as_ref().map_or("", |name| name.as_str());
        (CallEvent::Answered, None, format!("{call}:answered:{by}"))
    } else if let What::Ended { result, .. } = &fact.what {
        (CallEvent::Ended, Some(*result), format!("{call}:ended"))
    } else {
        return None;
    };
    Some(call_letter(call, event, result, key, fact.at, known))
}

/// The letter about a call that its node took with it.
pub fn lost_letter(call: CallId, at: WallMs, known: &Known) -> Letter {
    call_letter(call, CallEvent::Ended, Some(CallResult::Lost), format!("{call}:ended"), at, known)
}

fn call_letter(
    call: CallId,
    event: CallEvent,
    result: Option<CallResult>,
    key: String,
    at: WallMs,
    known: &Known,
) -> Letter {
    let message = CallMessage {
        call_id: call,
        event,
        caller: known.caller.reveal().to_owned(),
        line: known.line.reveal().to_owned(),
        trunk: known.trunk.clone(),
        queue: known.queue.clone(),
        operator: known.operator.clone(),
        result,
        at: instant(at),
    };
    Letter { key, lane: format!("call/{call}"), path: "/calls", body: json(&message), card: None }
}

fn order_letter(
    fact: &Fact,
    card: CardId,
    operator: &OperatorName,
    fields: &Fields,
    known: &Known,
) -> Option<Letter> {
    let message = OrderMessage {
        source: "call".to_owned(),
        call_id: fact.call,
        caller: known.caller.reveal().to_owned(),
        line: known.line.reveal().to_owned(),
        trunk: known.trunk.clone(),
        queue: known.queue.clone(),
        operator: Some(operator.clone()),
        at: instant(fact.at),
        fields: fields.clone(),
    };
    let body = json(&message);
    Some(Letter {
        key: card.to_string(),
        lane: format!("card/{card}"),
        path: "/orders",
        body,
        card: Some(card),
    })
}

/// These messages hold text and names only, which JSON always can.
fn json<T: Serialize>(message: &T) -> String {
    serde_json::to_string(message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::terms::Epoch;
    use uuid::Uuid;

    fn fact(what: What) -> Fact {
        Fact { seq: 1, epoch: Epoch(1), at: 1_772_357_400_000, call: Some(CallId(Uuid::from_u128(5))), what }
    }

    fn known() -> Known {
        Known { caller: Number::new("+380671234567"), line: Number::new("+380441234567"), ..Known::default() }
    }

    #[test]
    fn a_submitted_card_makes_an_order_under_the_cards_id() {
        let card = CardId(Uuid::from_u128(9));
        let fields: Fields = [("pickup".to_owned(), "Main st. 1".to_owned())].into();
        let letter =
            letter(&fact(What::CardSubmitted { card, operator: "anna".into(), fields }), &known()).unwrap();
        assert_eq!((letter.key, letter.path, letter.card), (card.to_string(), "/orders", Some(card)));
        let body: serde_json::Value = serde_json::from_str(&letter.body).unwrap();
        assert_eq!(body["source"], "call");
        assert_eq!(body["caller"], "+380671234567");
        assert_eq!(body["at"], "2026-03-01T09:30:00.000Z");
        assert_eq!(body["fields"]["pickup"], "Main st. 1");
    }

    #[test]
    fn a_call_is_told_when_it_arrives_is_answered_and_ends() {
        let ended = What::Ended {
            result: CallResult::Abandoned,
            cause: crate::fact::Cause::default(),
            by: "caller".into(),
            wait_ms: 1,
            talk_ms: 0,
        };
        let letter_ended = letter(&fact(ended), &known()).unwrap();
        assert!(letter_ended.key.ends_with(":ended") && letter_ended.lane.starts_with("call/"));
        let body: CallMessage = serde_json::from_str(&letter_ended.body).unwrap();
        assert_eq!((body.event, body.result), (CallEvent::Ended, Some(CallResult::Abandoned)));
        assert_eq!(letter(&fact(What::Held), &known()), None);
    }

    #[test]
    fn a_core_may_number_its_orders() {
        let answer: OrderAnswer = serde_json::from_str(r#"{"id": 17, "more": true}"#).unwrap();
        assert_eq!(answer.id, "17");
    }
}
