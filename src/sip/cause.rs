//! Why a leg ended: SIP status ⇄ Q.850 cause ⇄ plain words.
//!
//! Invariant: what the far network says in `Reason: Q.850` (RFC 3326) wins over the table, because
//! gateways disagree in how they map causes to statuses.

use super::header::Reason;
use super::message::{Headers, Name};
use crate::fact::Cause;

/// The longest text taken from a peer.
const MAX_WORDS: usize = 120;

/// Q.850 cause of a SIP status (RFC 3398 section 8.2.6.1).
pub(crate) fn q850_of(code: u16) -> u16 {
    match code {
        200..=299 | 487 => 16,
        404 | 485 | 604 => 1,
        486 | 600 => 17,
        480 => 18,
        401..=403 | 407 | 603 => 21,
        410 => 22,
        482 | 483 => 25,
        484 => 28,
        502 => 38,
        405 => 63,
        406 | 415 | 488 | 501 | 606 => 79,
        408 | 504 => 102,
        413 | 414 | 416 | 420..=423 | 505 | 513 => 127,
        _ => 41,
    }
}

/// SIP status for a cause that we give ourselves (RFC 3398 section 7.2.4.1).
pub(crate) fn code_of(q850: u16) -> u16 {
    match q850 {
        1..=3 => 404,
        17 => 486,
        21 => 403,
        22 => 410,
        27 => 502,
        28 => 484,
        34 | 38 | 41 | 42 | 44 | 47 => 503,
        _ => 480,
    }
}

/// Plain words for a Q.850 cause.
pub(crate) fn words_of(q850: u16) -> &'static str {
    match q850 {
        1 => "number does not exist",
        16 => "call ended",
        17 => "busy",
        18 => "no answer",
        19 => "nobody answered",
        20 => "phone is switched off or out of reach",
        21 => "call refused",
        22 => "number changed",
        25 => "call runs in a circle",
        27 => "number out of order",
        28 => "number is not complete",
        34 => "no free channel",
        38 => "network out of order",
        41 => "temporary failure",
        42 => "network is congested",
        63 | 79 => "not supported there",
        102 => "no reply in time",
        127 => "not understood",
        _ => "call failed",
    }
}

/// A cause of our own.
pub(crate) fn cause(q850: u16, sip: u16) -> Cause {
    Cause { q850, sip, words: words_of(q850).to_owned() }
}

/// What a message says about why; `sip` is its status, 0 for a request.
pub(crate) fn of_headers(headers: &Headers, sip: u16, otherwise: u16) -> Cause {
    let reasons: Vec<Reason> = headers.reasons().collect();
    let q850 = reasons.iter().find(|reason| reason.is_q850());
    let any = q850.or(reasons.first());
    let said = any.and_then(|reason| reason.text.clone()).filter(|text| !text.is_empty());
    let number = q850.and_then(|reason| reason.cause).unwrap_or_else(|| {
        // `Reason: SIP;cause=408` says more than the method it travels in.
        any.and_then(|reason| reason.cause).filter(|code| *code >= 300).map_or(otherwise, q850_of)
    });
    let words =
        said.map_or_else(|| words_of(number).to_owned(), |text| text.chars().take(MAX_WORDS).collect());
    Cause { q850: number, sip, words }
}

/// Our Reason header.
pub(crate) fn reason_of(cause: &Cause) -> (Name, String) {
    let q850 = if cause.q850 == 0 { 16 } else { cause.q850 };
    let words = if cause.words.is_empty() { words_of(q850) } else { &cause.words };
    (Name::Reason, Reason::q850(q850, words).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_header_wins_over_the_table() {
        let mut headers = Headers::default();
        headers.push(Name::Reason, "SIP;cause=480, Q.850;cause=20;text=\"Subscriber absent\"");
        let cause = of_headers(&headers, 486, 17);
        assert_eq!((cause.q850, cause.sip, cause.words.as_str()), (20, 486, "Subscriber absent"));
        let plain = of_headers(&Headers::default(), 486, 17);
        assert_eq!((plain.q850, plain.words.as_str()), (17, "busy"));
        let mut sip = Headers::default();
        sip.push(Name::Reason, "SIP ;cause=408; text=\"Session Timer Expired\"");
        assert_eq!(of_headers(&sip, 0, 16).q850, 102);
    }
}
