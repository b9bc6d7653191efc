//! Whose habits a trunk has: what its refusals mean. GSM gateways disagree in how they turn the network's
//! causes into SIP statuses; each kind has a table of what it does otherwise than RFC 3398.
//!
//! Invariant: `Reason: Q.850` wins over every table, because it is the network's own word.

use super::cause::{of_headers, q850_of};
use super::message::{Headers, Response};
use super::words::Way;
use crate::fact::Cause;

/// A GSM network needs longer than this to find out that somebody is busy, milliseconds: a gateway that says
/// so sooner, without having rung, has no free channel.
const TOO_QUICK_MS: u64 = 1_000;
/// What an operator reads when a gateway has no way into its network now.
const NO_CHANNEL: &str = "no free channel, or the SIM card is not ready";

/// Whose habits a trunk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// As the RFCs say.
    #[default]
    Generic,
    /// HyberTone and DBL.
    Goip,
    /// Dinstar.
    Dinstar,
    /// OpenVox.
    Openvox,
    /// Yeastar.
    Yeastar,
    /// 2N.
    TwoN,
}

/// A status that means something else than RFC 3398 says: Q.850 cause, who failed, and words where those of
/// the cause do not fit.
type Meaning = (u16, u16, Way, &'static str);

/// Gateways that translate causes themselves and say 503 when a module or line is not ready.
const GSM: [Meaning; 1] = [(503, 34, Way::Way, NO_CHANNEL)];
/// Gateways that are an Asterisk inside: 18 is 408, 19 and 20 are 480, 21 is 403, 27 is 502.
const ASTERISK: [Meaning; 4] = [
    (408, 18, Way::Person, ""),
    (403, 21, Way::Person, ""),
    (502, 27, Way::Way, ""),
    (503, 34, Way::Way, NO_CHANNEL),
];
/// 2N: 1 is 410, 18 is 480, 21 is 603, 27 is 404; 503 is the network's 6 and 34…47, and its own "not ready".
const TWO_N: [Meaning; 4] = [
    (410, 1, Way::Person, ""),
    (603, 21, Way::Person, ""),
    (404, 27, Way::Way, ""),
    (503, 34, Way::Way, NO_CHANNEL),
];

impl Profile {
    fn meanings(self) -> &'static [Meaning] {
        match self {
            Self::Generic => &[],
            Self::Goip | Self::Dinstar => &GSM,
            Self::Openvox | Self::Yeastar => &ASTERISK,
            Self::TwoN => &TWO_N,
        }
    }

    fn is_gsm(self) -> bool {
        match self {
            Self::Generic => false,
            Self::Goip | Self::Dinstar | Self::Openvox | Self::Yeastar | Self::TwoN => true,
        }
    }
}

/// What is known of the call that was refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    /// Of the trunk that refused it.
    pub(crate) profile: Profile,
    /// How long after the INVITE, milliseconds.
    pub(crate) after_ms: u64,
    /// Whether it had rung, with or without sound.
    pub(crate) rang: bool,
}

/// What a refusal of our INVITE says: why, and whether another way may help.
pub(crate) fn of_refusal(response: &Response, known: Refused) -> (Cause, Way) {
    let code = response.code;
    let plain = || of_headers(&response.headers, code, q850_of(code));
    if let Some(way) = response.headers.q850().and_then(way_of_q850) {
        return (plain(), way);
    }
    let has_reason = response.headers.reasons().next().is_some();
    if !has_reason && known.profile.is_gsm() && code == 486 && !known.rang && known.after_ms < TOO_QUICK_MS {
        return (Cause { q850: 34, sip: code, words: NO_CHANNEL.to_owned() }, Way::Way);
    }
    let meaning = known.profile.meanings().iter().find(|(status, ..)| *status == code);
    match meaning {
        Some((_, q850, way, words)) => {
            let mut cause = of_headers(&response.headers, code, *q850);
            if !has_reason && !words.is_empty() {
                (*words).clone_into(&mut cause.words);
            }
            (cause, *way)
        }
        None => (plain(), way_of_status(&response.headers, code)),
    }
}

/// Who failed, by the network's own cause; `None` where the cause says nothing about it.
fn way_of_q850(q850: u16) -> Option<Way> {
    match q850 {
        1 | 17..=22 | 28 => Some(Way::Person),
        2 | 3 | 5 | 6 | 25 | 27 | 29 | 34..=63 | 65..=79 | 88 | 102 => Some(Way::Way),
        _ => None,
    }
}

/// Who failed, by the status alone.
fn way_of_status(headers: &Headers, code: u16) -> Way {
    // A person's phone says `Reason: SIP;cause=603` through some providers.
    let said = headers.reasons().find(|reason| !reason.is_q850()).and_then(|reason| reason.cause);
    match said.filter(|code| *code >= 400).unwrap_or(code) {
        404 | 410 | 480 | 484..=487 | 600 | 603 | 604 => Way::Person,
        _ => Way::Way,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Name;

    fn refused(profile: Profile, code: u16, reason: &str, after_ms: u64, rang: bool) -> (Cause, Way) {
        let mut response = Response::new(code);
        if !reason.is_empty() {
            response.headers.push(Name::Reason, reason.to_owned());
        }
        of_refusal(&response, Refused { profile, after_ms, rang })
    }

    #[test]
    fn the_same_status_means_what_the_gateway_means() {
        use Profile::{Dinstar, Generic, Goip, Openvox, TwoN, Yeastar};
        for (profile, code, q850, way, words) in [
            (Generic, 404, 1, Way::Person, "number does not exist"),
            (TwoN, 404, 27, Way::Way, "number out of order"),
            (Generic, 410, 22, Way::Person, "number changed"),
            (TwoN, 410, 1, Way::Person, "number does not exist"),
            (Generic, 480, 18, Way::Person, "no answer"),
            (TwoN, 480, 18, Way::Person, "no answer"),
            (Generic, 603, 21, Way::Person, "call refused"),
            (TwoN, 603, 21, Way::Person, "call refused"),
            (Generic, 403, 21, Way::Way, "call refused"),
            (Openvox, 403, 21, Way::Person, "call refused"),
            (Generic, 408, 102, Way::Way, "no reply in time"),
            (Yeastar, 408, 18, Way::Person, "no answer"),
            (Generic, 503, 41, Way::Way, "temporary failure"),
            (Goip, 503, 34, Way::Way, NO_CHANNEL),
            (Dinstar, 503, 34, Way::Way, NO_CHANNEL),
            (TwoN, 503, 34, Way::Way, NO_CHANNEL),
            (Goip, 486, 17, Way::Person, "busy"),
            (Goip, 500, 41, Way::Way, "temporary failure"),
        ] {
            let (cause, is) = refused(profile, code, "", 6_000, true);
            assert_eq!((cause.q850, is, cause.words.as_str()), (q850, way, words), "{profile:?} {code}");
            assert_eq!(cause.sip, code);
        }
    }

    #[test]
    fn the_networks_own_cause_wins_over_status_and_profile() {
        for (reason, q850, way) in [
            ("Q.850;cause=34;text=\"no channel\"", 34, Way::Way),
            ("Q.850;cause=20", 20, Way::Person),
            ("Q.850;cause=3", 3, Way::Way),
            ("Q.850;cause=27", 27, Way::Way),
            ("SIP;cause=480, Q.850;cause=1", 1, Way::Person),
        ] {
            for profile in [Profile::Generic, Profile::Goip, Profile::TwoN] {
                for code in [404, 480, 486, 503] {
                    let (cause, is) = refused(profile, code, reason, 100, false);
                    assert_eq!((cause.q850, is), (q850, way), "{profile:?} {code} {reason}");
                }
            }
        }
        // A cause that says nothing about who failed leaves that to the status.
        assert_eq!(refused(Profile::Generic, 486, "Q.850;cause=31", 0, false).1, Way::Person);
        assert_eq!(refused(Profile::Generic, 500, "SIP;cause=603", 0, false).1, Way::Person);
    }

    #[test]
    fn a_gateway_that_is_busy_before_it_could_know_has_no_channel() {
        for (profile, after_ms, rang, q850, way) in [
            (Profile::Goip, 80, false, 34, Way::Way),
            (Profile::TwoN, 999, false, 34, Way::Way),
            (Profile::Goip, 3_000, false, 17, Way::Person),
            (Profile::Goip, 80, true, 17, Way::Person),
            (Profile::Generic, 80, false, 17, Way::Person),
        ] {
            let (cause, is) = refused(profile, 486, "", after_ms, rang);
            assert_eq!((cause.q850, is), (q850, way), "{profile:?} {after_ms} {rang}");
        }
    }
}
