//! The watch over a leg's sound: a call where one side hears nothing is the worst fault of a call centre,
//! and nobody at the switch hears it. So every direction that should carry sound and does not is named,
//! with the probable cause in words.
//!
//! ```text
//!  in:  Hearing ──no packet for silence_us──▶ Silent ──packet──▶ Hearing      (Silent / Recovered)
//!  out: Heard ──reports do not move while we send──▶ Unheard ──they move──▶ Heard
//!  any: ──nothing at all for dead_us──▶ Dead ──anything──▶
//! ```
//!
//! Invariant: `Silent` and `Recovered` of a direction alternate; `Dead` is said once for each silence.

use crate::fact::Flow;

/// Packets that we must have sent between two equal reports before "the party hears nothing" is said.
const UNHEARD_PACKETS: u32 = 100;

/// What the watch has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// A direction fell silent.
    Silent(Flow, &'static str),
    /// It is heard again.
    Recovered(Flow),
    /// Nothing at all comes.
    Dead,
}

/// What is seen of one leg.
#[derive(Debug)]
pub struct Watch {
    silence_us: u64,
    dead_us: u64,
    /// When sound was last heard, or began to be expected.
    sound_us: u64,
    /// When anything valid was last heard.
    sign_us: u64,
    /// The party announced that it sends nothing while it is silent (RFC 3389).
    announced: bool,
    expecting: bool,
    silent: bool,
    dead: bool,
    refused: u32,
    stray: u32,
    trouble: Option<&'static str>,
    /// The party's last report: its highest sequence of ours, and what we had sent by then.
    report: Option<(u32, u32)>,
    unheard: bool,
    recovered: bool,
}

impl Watch {
    /// Alarms after these times, microseconds; a `dead_us` of 0 never says dead.
    pub fn new(silence_us: u64, dead_us: u64, now_us: u64) -> Self {
        Self {
            silence_us,
            dead_us,
            sound_us: now_us,
            sign_us: now_us,
            announced: false,
            expecting: false,
            silent: false,
            dead: false,
            refused: 0,
            stray: 0,
            trouble: None,
            report: None,
            unheard: false,
            recovered: false,
        }
    }

    /// Signalling agreed whether the party sends. The time of silence begins anew.
    pub fn expect(&mut self, expecting: bool, now_us: u64) {
        self.expecting = expecting;
        self.sound_us = now_us;
        self.sign_us = now_us;
        self.announced = false;
        self.refused = 0;
        self.stray = 0;
    }

    /// A valid packet of sound came; `comfort` announces silence.
    pub fn sound(&mut self, comfort: bool, now_us: u64) {
        self.sound_us = now_us;
        self.announced = comfort;
        self.refused = 0;
        self.stray = 0;
        self.sign(now_us);
        if self.silent {
            self.silent = false;
            self.recovered = true;
        }
    }

    /// Anything else valid came: a report, a connectivity check.
    pub fn sign(&mut self, now_us: u64) {
        self.sign_us = now_us;
        self.dead = false;
    }

    /// A packet failed authentication.
    pub fn refused(&mut self) {
        self.refused = self.refused.saturating_add(1);
    }

    /// A packet came from where none may.
    pub fn stray(&mut self) {
        self.stray = self.stray.saturating_add(1);
    }

    /// What is known to be wrong with the way to the party, in words; `None` when nothing is.
    pub fn trouble(&mut self, words: Option<&'static str>) {
        self.trouble = words;
    }

    /// The party reports the highest sequence number that it heard of us; `sent` packets went so far.
    pub fn report(&mut self, highest_seq: u32, sent: u32) -> Option<Alarm> {
        let (before, sent_before) = *self.report.get_or_insert((highest_seq, sent));
        if before != highest_seq {
            self.report = Some((highest_seq, sent));
            return std::mem::take(&mut self.unheard).then_some(Alarm::Recovered(Flow::Out));
        }
        let unheard = sent.wrapping_sub(sent_before) >= UNHEARD_PACKETS;
        if unheard && !self.unheard {
            self.unheard = true;
            return Some(Alarm::Silent(Flow::Out, "the party reports that nothing reaches it"));
        }
        None
    }

    /// What there is to say now; ask until `None`.
    pub fn check(&mut self, now_us: u64) -> Option<Alarm> {
        if std::mem::take(&mut self.recovered) {
            return Some(Alarm::Recovered(Flow::In));
        }
        if !self.expecting {
            return None;
        }
        let quiet = now_us.saturating_sub(self.sound_us);
        if !self.silent && quiet >= self.silence_us && (!self.announced || self.trouble.is_some()) {
            self.silent = true;
            return Some(Alarm::Silent(Flow::In, self.cause()));
        }
        if !self.dead && self.dead_us > 0 && now_us.saturating_sub(self.sign_us) >= self.dead_us {
            self.dead = true;
            return Some(Alarm::Dead);
        }
        None
    }

    /// The most telling of what was seen since sound was last heard.
    fn cause(&self) -> &'static str {
        if let Some(words) = self.trouble {
            words
        } else if self.refused > 0 {
            "decrypt failures"
        } else if self.stray > 0 {
            "wrong source address"
        } else {
            "no packets"
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "tests"
    )]
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn watch() -> Watch {
        let mut watch = Watch::new(2 * SECOND, 10 * SECOND, 0);
        watch.expect(true, 0);
        watch
    }

    #[test]
    fn silence_is_said_once_and_so_is_its_end() {
        let mut watch = watch();
        assert_eq!(watch.check(2 * SECOND - 1), None);
        assert_eq!(watch.check(2 * SECOND), Some(Alarm::Silent(Flow::In, "no packets")));
        assert_eq!(watch.check(3 * SECOND), None);
        watch.sound(false, 4 * SECOND);
        assert_eq!(watch.check(4 * SECOND), Some(Alarm::Recovered(Flow::In)));
        assert_eq!(watch.check(4 * SECOND), None);
    }

    #[test]
    fn the_cause_is_the_most_telling() {
        for (refused, stray, lost, cause) in [
            (true, true, true, "ICE consent lost"),
            (true, true, false, "decrypt failures"),
            (false, true, false, "wrong source address"),
            (false, false, false, "no packets"),
        ] {
            let mut watch = watch();
            if refused {
                watch.refused();
            }
            if stray {
                watch.stray();
            }
            watch.trouble(lost.then_some("ICE consent lost"));
            assert_eq!(watch.check(2 * SECOND), Some(Alarm::Silent(Flow::In, cause)));
        }
    }

    #[test]
    fn a_party_on_hold_is_neither_silent_nor_dead() {
        let mut watch = watch();
        watch.expect(false, SECOND);
        assert_eq!(watch.check(60 * SECOND), None);
        watch.expect(true, 60 * SECOND);
        assert_eq!(watch.check(61 * SECOND), None);
        assert_eq!(watch.check(62 * SECOND), Some(Alarm::Silent(Flow::In, "no packets")));
    }

    #[test]
    fn announced_silence_is_no_alarm() {
        let mut watch = watch();
        watch.sound(true, SECOND);
        assert_eq!(watch.check(9 * SECOND), None);
        watch.sound(false, 9 * SECOND);
        assert_eq!(watch.check(11 * SECOND), Some(Alarm::Silent(Flow::In, "no packets")));
    }

    #[test]
    fn reports_alone_keep_a_leg_alive_but_not_heard() {
        let mut watch = watch();
        assert!(watch.check(2 * SECOND).is_some());
        watch.sign(9 * SECOND);
        assert_eq!(watch.check(18 * SECOND), None);
        assert_eq!(watch.check(19 * SECOND), Some(Alarm::Dead));
        assert_eq!(watch.check(20 * SECOND), None);
        watch.sound(false, 21 * SECOND);
        assert_eq!(watch.check(21 * SECOND), Some(Alarm::Recovered(Flow::In)));
        assert_eq!(watch.check(31 * SECOND), Some(Alarm::Silent(Flow::In, "no packets")));
        assert_eq!(watch.check(31 * SECOND), Some(Alarm::Dead));
    }

    #[test]
    fn a_party_whose_reports_stand_still_hears_nothing() {
        let mut watch = watch();
        assert_eq!(watch.report(50, 60), None);
        assert_eq!(watch.report(150, 160), None);
        assert_eq!(watch.report(150, 220), None, "too few to tell");
        assert!(matches!(watch.report(150, 270), Some(Alarm::Silent(Flow::Out, _))));
        assert_eq!(watch.report(150, 370), None);
        assert_eq!(watch.report(380, 390), Some(Alarm::Recovered(Flow::Out)));
    }
}
