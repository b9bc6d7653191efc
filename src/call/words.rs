//! Causes in numbers and in words: what an operator reads when a call does not come up.

use crate::fact::{Cause, ToneKind};

/// Normal clearing (Q.850 16).
pub(crate) fn normal() -> Cause {
    cause(16, 0, "call ended")
}

/// A cause from its three parts.
pub(crate) fn cause(q850: u16, sip: u16, words: &str) -> Cause {
    Cause { q850, sip, words: words.to_owned() }
}

/// The tone that tells a caller why his call did not come up (Q.850 causes, ITU-T E.180 tones).
pub(crate) fn tone_for(cause: &Cause) -> ToneKind {
    match cause.q850 {
        17 | 21 => ToneKind::Busy,
        1 | 18 | 19 | 20 | 22 | 27 | 28 => ToneKind::Unavailable,
        _ => ToneKind::Congestion,
    }
}

/// Plain words for the operator's screen: the carrier's own where it gave any, else by the cause.
pub(crate) fn plain(cause: &Cause) -> String {
    let by_cause = match cause.q850 {
        1 => "number does not exist",
        17 => "busy",
        18 | 19 => "no answer",
        20 => "phone is switched off or out of reach",
        21 => "call refused",
        22 => "number changed",
        27 => "number out of order",
        28 => "number is not complete",
        34 | 38 | 41 | 42 | 44 | 47 => "network is congested",
        _ => "",
    };
    if by_cause.is_empty() {
        if cause.words.is_empty() { "call failed".to_owned() } else { cause.words.clone() }
    } else {
        by_cause.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_number_sounds_busy_and_a_full_network_congested() {
        for (q850, tone) in [
            (17, ToneKind::Busy),
            (21, ToneKind::Busy),
            (20, ToneKind::Unavailable),
            (1, ToneKind::Unavailable),
            (34, ToneKind::Congestion),
            (0, ToneKind::Congestion),
        ] {
            assert_eq!(tone_for(&cause(q850, 0, "")), tone, "{q850}");
        }
    }

    #[test]
    fn the_carriers_own_words_stand_where_the_cause_says_nothing() {
        assert_eq!(plain(&cause(0, 500, "module not ready")), "module not ready");
        assert_eq!(plain(&cause(17, 486, "x")), "busy");
        assert_eq!(plain(&cause(0, 0, "")), "call failed");
    }
}
