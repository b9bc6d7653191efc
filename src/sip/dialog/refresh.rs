//! Session timers: both ends prove now and then that the call is alive (RFC 4028).
//!
//! Invariant: only a re-INVITE that meets 481, and silence twice, end a call that was to be refreshed; any
//! other answer leaves it, and it is tried again soon. A browser never gets 422: JsSIP cannot take it.

use serde::{Deserialize, Serialize};

use super::super::Config;
use super::super::header::{Refresher, SessionExpires};
use super::super::leg::LegTimer;
use super::super::message::{Headers, Name};

/// The longest session interval that a peer can make us take, seconds.
const LONGEST_S: u32 = 86_400;

/// The timer of one leg.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Refresh {
    /// The session interval, seconds; 0 before it is agreed.
    pub(crate) interval_s: u32,
    /// Whether we refresh.
    pub(crate) by_us: bool,
    /// Whether the peer takes UPDATE.
    pub(crate) updates: bool,
    /// Whether a lost phone got its extra time.
    pub(crate) graced: bool,
    /// How many refreshes in a row nobody answered.
    pub(crate) silences: u8,
}

impl Refresh {
    /// What our first INVITE asks for.
    pub(crate) fn ask(headers: &mut Headers, interval_s: u32, config: &Config) {
        headers.push(Name::SessionExpires, interval_s.max(config.min_se_s).to_string());
        headers.push(Name::MinSe, config.min_se_s.to_string());
    }

    /// What a later request of ours says: the roles stay as they are.
    pub(crate) fn repeat(&self, headers: &mut Headers, config: &Config) {
        let refresher = if self.by_us { Refresher::Uac } else { Refresher::Uas };
        let secs = if self.interval_s == 0 { config.session_expires_s } else { self.interval_s };
        headers.push(Name::SessionExpires, SessionExpires { secs, refresher: Some(refresher) }.to_string());
    }

    /// Whether a first INVITE asks for less than we take, and can be told so.
    pub(crate) fn is_too_short(headers: &Headers, config: &Config) -> bool {
        let asked = headers.session_expires().ok().flatten();
        headers.lists(&Name::Supported, "timer") && asked.is_some_and(|asked| asked.secs < config.min_se_s)
    }

    /// A request of the peer asks; the lines of our 2xx answer it (RFC 4028 section 9).
    pub(crate) fn answer(&mut self, request: &Headers, response: &mut Headers, config: &Config) {
        self.note_allow(request);
        let asked = request.session_expires().ok().flatten();
        let least = request.min_se().ok().flatten().unwrap_or(0);
        let supports = request.lists(&Name::Supported, "timer") || request.lists(&Name::Require, "timer");
        let ours = config.session_expires_s;
        let secs = asked.map_or(ours, |asked| asked.secs.min(ours)).max(least).max(1);
        let refresher = match asked.and_then(|asked| asked.refresher) {
            Some(refresher) => refresher,
            None if supports => Refresher::Uac,
            None => Refresher::Uas,
        };
        self.interval_s = secs;
        self.by_us = refresher == Refresher::Uas;
        self.graced = false;
        self.silences = 0;
        let value = SessionExpires { secs, refresher: Some(refresher) };
        response.push(Name::SessionExpires, value.to_string());
        // RFC 4028 section 9: he who must refresh must know that he must.
        if refresher == Refresher::Uac {
            response.push(Name::Require, "timer");
        }
    }

    /// A 2xx to a request of ours says what is agreed (RFC 4028 section 7.2). Without the line the peer
    /// knows no timers: then we ask now and then whether he is still there.
    pub(crate) fn agreed(&mut self, response: &Headers, config: &Config) {
        self.note_allow(response);
        let said = response.session_expires().ok().flatten();
        self.interval_s = said.map_or(config.session_expires_s, |said| said.secs.max(1));
        self.by_us = said.is_none_or(|said| said.refresher != Some(Refresher::Uas));
        self.graced = false;
        self.silences = 0;
    }

    /// 422 names the least interval: ours grows to it. `false` when it says nothing new.
    pub(crate) fn lengthen(&mut self, response: &Headers) -> bool {
        let least = response.min_se().ok().flatten().unwrap_or(0).min(LONGEST_S);
        let grows = least > self.interval_s;
        self.interval_s = self.interval_s.max(least);
        grows
    }

    /// How long to wait after a refusal: a few tries fit into the rest of the interval.
    pub(crate) fn pause_ms(&self, retry_after_s: Option<u32>) -> u64 {
        let sixth_s = (self.interval_s / 6).clamp(5, 300);
        u64::from(retry_after_s.unwrap_or(sixth_s).clamp(1, sixth_s)).saturating_mul(1_000)
    }

    fn note_allow(&mut self, headers: &Headers) {
        if headers.has(&Name::Allow) {
            self.updates = headers.lists(&Name::Allow, "UPDATE");
        }
    }

    /// Which timer runs now and for how long: half-time for us; for the peer what RFC 4028 section 10 grants.
    pub(crate) fn wait(&self) -> (LegTimer, u64) {
        let interval_s = u64::from(self.interval_s);
        if self.by_us {
            return (LegTimer::Refresh, interval_s.saturating_mul(500).max(1_000));
        }
        let early_s = 32.min(interval_s / 3);
        (LegTimer::Expire, interval_s.saturating_sub(early_s).saturating_mul(1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(Name, &'static str)]) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in lines {
            headers.push(name.clone(), *value);
        }
        headers
    }

    #[test]
    fn a_peers_wish_is_answered_as_rfc_4028_table_2_says() {
        let config = Config::default();
        let timer = (Name::Supported, "timer");
        for (lines, expected, by_us, requires) in [
            (vec![timer.clone(), (Name::SessionExpires, "90")], "90;refresher=uac", false, true),
            (
                vec![timer.clone(), (Name::SessionExpires, "90;refresher=uac")],
                "90;refresher=uac",
                false,
                true,
            ),
            (
                vec![timer.clone(), (Name::SessionExpires, "120;refresher=uas")],
                "120;refresher=uas",
                true,
                false,
            ),
            (vec![timer.clone(), (Name::SessionExpires, "7200")], "1800;refresher=uac", false, true),
            (
                vec![timer.clone(), (Name::SessionExpires, "7200"), (Name::MinSe, "3600")],
                "3600;refresher=uac",
                false,
                true,
            ),
            (vec![timer.clone()], "1800;refresher=uac", false, true),
            (vec![], "1800;refresher=uas", true, false),
            (vec![(Name::SessionExpires, "180")], "180;refresher=uas", true, false),
        ] {
            let (mut refresh, mut response) = (Refresh::default(), Headers::default());
            refresh.answer(&headers(&lines), &mut response, &config);
            assert_eq!(response.text(&Name::SessionExpires), Some(expected), "{lines:?}");
            assert_eq!(
                (refresh.by_us, response.lists(&Name::Require, "timer")),
                (by_us, requires),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn half_time_is_ours_and_the_peer_has_until_shortly_before_the_end() {
        for (secs, ours, theirs) in
            [(90, 45_000, 60_000), (120, 60_000, 88_000), (180, 90_000, 148_000), (1800, 900_000, 1_768_000)]
        {
            let mut refresh = Refresh { interval_s: secs, by_us: true, ..Refresh::default() };
            assert_eq!(refresh.wait(), (LegTimer::Refresh, ours));
            refresh.by_us = false;
            assert_eq!(refresh.wait(), (LegTimer::Expire, theirs));
        }
    }

    #[test]
    fn without_an_answer_about_timers_we_ask_ourselves() {
        let (mut refresh, config) = (Refresh::default(), Config::default());
        refresh.agreed(&headers(&[(Name::Allow, "INVITE, UPDATE")]), &config);
        assert!(refresh.by_us && refresh.updates);
        assert_eq!(refresh.interval_s, 1800);
        refresh.agreed(&headers(&[(Name::SessionExpires, "90;refresher=uas")]), &config);
        assert!(!refresh.by_us && refresh.updates);
    }
}
