//! `events.csv`: one line an event, so that a whole call can be read with one `grep` for its id.
//!
//! Invariant: the columns never change; numbers stand masked as in logs; no field can begin a formula
//! when a spreadsheet opens the file, and none can break a line.

use crate::fact::{Cause, Fact, Fields, Party, What};
use crate::terms::{LegId, Number, WallMs};

/// The first line of the file.
pub const HEADER: &str = "time(µs),event,call,leg,trunk,queue,operator,caller,called,order,detail";
/// Characters of a field that are kept.
pub const MAX_FIELD_CHARS: usize = 500;

/// The columns between the call and the line's end.
#[derive(Default)]
struct Columns {
    event: &'static str,
    leg: Option<LegId>,
    trunk: String,
    queue: String,
    operator: String,
    caller: Option<Number>,
    called: Option<Number>,
    order: String,
    detail: String,
}

/// The line of a fact, without its end.
pub fn line(fact: &Fact) -> String {
    let columns = columns(&fact.what);
    let number = |number: Option<Number>| number.map(|number| number.to_string()).unwrap_or_default();
    [
        instant(fact.at),
        columns.event.to_owned(),
        fact.call.map(|call| call.to_string()).unwrap_or_default(),
        columns.leg.map(|leg| leg.to_string()).unwrap_or_default(),
        columns.trunk,
        columns.queue,
        columns.operator,
        number(columns.caller),
        number(columns.called),
        columns.order,
        columns.detail,
    ]
    .map(|field| quoted(&field))
    .join(",")
}

/// RFC 3339 UTC with six digits: the column is in microseconds, facts are timed in milliseconds.
fn instant(at: WallMs) -> String {
    let at = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// A field by RFC 4180 section 2. A spreadsheet takes `=`, `+`, `-`, `@`, tab and return at the beginning
/// for a formula; an apostrophe before them makes it text. A masked number keeps its `+`.
fn quoted(field: &str) -> String {
    let mut text: String =
        field.chars().take(MAX_FIELD_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let number = text.starts_with('+') && text.chars().skip(1).all(|c| c.is_ascii_digit() || c == '•');
    if text.trim_start().starts_with(['=', '+', '-', '@']) && !number {
        text.insert(0, '\'');
    }
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

fn columns(what: &What) -> Columns {
    match what {
        What::NodeStarted { name, version } => node(name, version),
        What::TrunkUp { .. } | What::TrunkDown { .. } | What::TrunkLoad { .. } | What::TrunkFailed { .. } => {
            trunk(what)
        }
        What::Operator { operator, state, reason, .. } => Columns {
            event: "operator.state",
            operator: operator.to_string(),
            detail: format!("{} {reason}", word(state)).trim_end().to_owned(),
            ..Columns::default()
        },
        What::Arrived { .. } => arrived(what),
        What::Leg { leg, party, number, state, codec } => Columns {
            leg: Some(*leg),
            called: Some(number.clone()).filter(|number| !number.is_withheld()),
            detail: format!("{} {codec}", word(state)).trim_end().to_owned(),
            ..of_party("leg", party)
        },
        What::LegEnded { leg, cause } => Columns { leg: Some(*leg), ..because("leg.ended", cause) },
        What::Greeting { prompt } => said("call.greeting", prompt.clone()),
        What::Queued { .. } | What::LeftQueue { .. } | What::Assigned { .. } | What::Unassigned { .. } => {
            queue(what)
        }
        What::Ringing { trunk } => {
            Columns { trunk: trunk.to_string(), ..said("call.ringing", String::new()) }
        }
        What::EarlyMedia { trunk } => {
            Columns { trunk: trunk.to_string(), ..said("call.early_media", String::new()) }
        }
        What::Tone { tone, local } => {
            said("tone", format!("{} {}", word(tone), if *local { "ours" } else { "carrier" }))
        }
        What::Answered { operator, trunk, queue, wait_ms } => Columns {
            operator: name(operator.as_ref()),
            trunk: name(trunk.as_ref()),
            queue: name(queue.as_ref()),
            ..said("call.answered", format!("wait_ms={wait_ms}"))
        },
        What::Held => said("call.held", String::new()),
        What::Resumed => said("call.resumed", String::new()),
        What::Transferred { by, operator, trunk } => Columns {
            operator: name(operator.as_ref()),
            trunk: name(trunk.as_ref()),
            ..said("call.transferred", format!("by={by}"))
        },
        What::Digit { leg } => Columns { leg: Some(*leg), ..said("digit", String::new()) },
        What::MediaSilent { leg, flow, cause } => {
            Columns { leg: Some(*leg), ..said("media.silent", format!("{} {cause}", word(flow))) }
        }
        What::MediaRecovered { leg, flow } => {
            Columns { leg: Some(*leg), ..said("media.recovered", word(flow)) }
        }
        What::MediaQuality { leg, quality } => Columns {
            leg: Some(*leg),
            ..said(
                "media.quality",
                format!(
                    "mos={:.2} loss_in={:.4} loss_out={:.4} jitter_ms={:.1} rtt_ms={:.1}",
                    quality.mos, quality.loss_in, quality.loss_out, quality.jitter_ms, quality.rtt_ms
                ),
            )
        },
        What::Ended { result, cause, by, wait_ms, talk_ms } => said(
            "call.ended",
            format!(
                "{} by {by} wait_ms={wait_ms} talk_ms={talk_ms} q850={} sip={} {}",
                word(result),
                cause.q850,
                cause.sip,
                cause.words
            ),
        ),
        What::CardOpened { .. }
        | What::CardMoved { .. }
        | What::CardCustomer { .. }
        | What::CardUpdated { .. }
        | What::CardSubmitted { .. }
        | What::CardAccepted { .. }
        | What::CardDiscarded { .. } => card(what),
    }
}

fn said(event: &'static str, detail: String) -> Columns {
    Columns { event, detail, ..Columns::default() }
}

fn because(event: &'static str, cause: &Cause) -> Columns {
    said(event, format!("q850={} sip={} {}", cause.q850, cause.sip, cause.words))
}

fn node(name: &str, version: &str) -> Columns {
    said("node.started", format!("{name} {version}"))
}

fn trunk(what: &What) -> Columns {
    let (trunk, columns) = if let What::TrunkUp { trunk, from } = what {
        (trunk, said("trunk.up", from.clone()))
    } else if let What::TrunkDown { trunk, why } = what {
        (trunk, said("trunk.down", why.clone()))
    } else if let What::TrunkLoad { trunk, busy } = what {
        (trunk, said("trunk.load", format!("busy={busy}")))
    } else if let What::TrunkFailed { trunk, cause } = what {
        (trunk, because("trunk.failed", cause))
    } else {
        return Columns::default();
    };
    Columns { trunk: trunk.to_string(), ..columns }
}

fn arrived(what: &What) -> Columns {
    let What::Arrived { direction, caller, called, line, trunk, operator } = what else {
        return Columns::default();
    };
    Columns {
        caller: Some(caller.clone()),
        called: Some(called.clone()),
        trunk: name(trunk.as_ref()),
        operator: name(operator.as_ref()),
        ..said("call.arrived", format!("{} line={line}", word(direction)))
    }
}

fn queue(what: &What) -> Columns {
    if let What::Queued { queue, priority } = what {
        Columns { queue: queue.to_string(), ..said("call.queued", format!("priority={priority}")) }
    } else if let What::LeftQueue { queue, why } = what {
        Columns { queue: queue.to_string(), ..said("call.left_queue", why.clone()) }
    } else if let What::Assigned { queue, operator } = what {
        let operator = operator.to_string();
        Columns { queue: queue.to_string(), operator, ..said("call.assigned", String::new()) }
    } else if let What::Unassigned { queue, operator, why } = what {
        let operator = operator.to_string();
        Columns { queue: queue.to_string(), operator, ..said("call.unassigned", why.clone()) }
    } else {
        Columns::default()
    }
}

/// What was typed is not written: an address is nobody's business who reads a log.
fn filled(fields: &Fields) -> String {
    let names: Vec<&str> =
        fields.iter().filter(|(_, text)| !text.is_empty()).map(|(name, _)| name.as_str()).collect();
    names.join(" ")
}

fn card(what: &What) -> Columns {
    let (card, columns) = if let What::CardOpened { card, caller, trunk, queue, operator, .. } = what {
        let opened = Columns {
            caller: Some(caller.clone()),
            trunk: name(trunk.as_ref()),
            queue: name(queue.as_ref()),
            operator: operator.to_string(),
            ..said("card.opened", String::new())
        };
        (card, opened)
    } else if let What::CardMoved { card, operator } = what {
        (card, Columns { operator: operator.to_string(), ..said("card.moved", String::new()) })
    } else if let What::CardCustomer { card, .. } = what {
        (card, said("card.customer", String::new()))
    } else if let What::CardUpdated { card, fields } = what {
        (card, said("card.updated", filled(fields)))
    } else if let What::CardSubmitted { card, operator, fields } = what {
        (card, Columns { operator: operator.to_string(), ..said("card.submitted", filled(fields)) })
    } else if let What::CardAccepted { card } = what {
        (card, said("card.accepted", String::new()))
    } else if let What::CardDiscarded { card, reason } = what {
        (card, said("card.discarded", reason.clone()))
    } else {
        return Columns::default();
    };
    Columns { order: card.to_string(), ..columns }
}

fn of_party(event: &'static str, party: &Party) -> Columns {
    match party {
        Party::Trunk(name) => Columns { trunk: name.to_string(), ..said(event, String::new()) },
        Party::Operator(name) => Columns { operator: name.to_string(), ..said(event, String::new()) },
    }
}

fn name<T: std::fmt::Display>(name: Option<&T>) -> String {
    name.map(ToString::to_string).unwrap_or_default()
}

/// A one-word value as the API writes it.
fn word<T: serde::Serialize>(value: &T) -> String {
    let json = serde_json::to_value(value).unwrap_or_default();
    json.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::fact::{CallResult, Direction};
    use crate::terms::{CallId, Epoch};
    use uuid::Uuid;

    fn of(what: What) -> String {
        let call = Some(CallId(Uuid::from_u128(5)));
        line(&Fact { seq: 1, epoch: Epoch(1), at: 1_772_357_400_123, call, what })
    }

    #[test]
    fn a_call_is_one_line_an_event_with_masked_numbers() {
        let arrived = of(What::Arrived {
            direction: Direction::In,
            caller: Number::new("+380671234567"),
            called: Number::new("112"),
            line: Number::new("+380441234567"),
            trunk: Some("gsm-1".into()),
            operator: None,
        });
        assert_eq!(
            arrived,
            "2026-03-01T09:30:00.123000Z,call.arrived,00000000-0000-0000-0000-000000000005,,gsm-1,,,+38067•••567,112,,in line=+38044•••567"
        );
        assert_eq!(arrived.split(',').count(), HEADER.split(',').count());
    }

    #[test]
    fn no_field_begins_a_formula_or_breaks_a_line() {
        let table = [
            ("=1+1", "'=1+1"),
            ("+1+1", "'+1+1"),
            ("+38067•••567", "+38067•••567"),
            ("\t=x", "' =x"),
            ("a,\"b\"", "\"a,\"\"b\"\"\""),
            ("a\r\nb", "a  b"),
            ("-2", "'-2"),
        ];
        for (field, expected) in table {
            assert_eq!(quoted(field), expected, "{field:?}");
        }
    }

    #[test]
    fn what_was_typed_is_not_written() {
        let fields: Fields = [("pickup".to_owned(), "Main st. 1".to_owned())].into();
        let line = of(What::CardUpdated { card: crate::terms::CardId(Uuid::from_u128(7)), fields });
        assert!(line.ends_with("00000000-0000-0000-0000-000000000007,pickup") && !line.contains("Main"));
    }

    #[test]
    fn an_end_says_how_and_why() {
        let cause = Cause { q850: 17, sip: 486, words: "busy, try later".into() };
        let ended =
            of(What::Ended { result: CallResult::Busy, cause, by: "system".into(), wait_ms: 9, talk_ms: 0 });
        assert!(ended.ends_with("\"busy by system wait_ms=9 talk_ms=0 q850=17 sip=486 busy, try later\""));
    }
}
