//! What a port does by itself, ten times a second: watch, report, keep the party awake.

use std::net::SocketAddr;

use super::{Port, QUALITY_US, RTCP_MIN_US, Way};
use crate::fact::Quality;
use crate::media::command::Event;
use crate::media::outbox::{Component, Outbox};
use crate::media::quality::judged;
use crate::media::rtcp;
use crate::media::shield::Notice;
use crate::media::watch::Alarm;

/// A party that heard nothing for so long gets comfort silence, microseconds.
const COMFORT_AFTER_US: u64 = 200_000;

/// The spread of the times between two reports, microseconds.
const RTCP_SPREAD_US: u64 = 3_000_000;

impl Port {
    pub(super) fn chores(&mut self, now_us: u64, out: &mut Outbox) {
        let overdue = self.ear.overdue(now_us);
        self.tell_digit(overdue);
        if let Way::Browser(shield) = &self.way {
            self.watch.trouble(shield.trouble(now_us / 1_000));
        }
        while let Some(alarm) = self.watch.check(now_us) {
            self.tell_alarm(Some(alarm));
        }
        if self.keys_by_us.is_some_and(|by| by <= now_us) {
            self.take_notice(Some(Notice::Failed(
                "the browser did not finish ICE and DTLS in time".to_owned(),
            )));
        }
        self.note_reachable(now_us);
        self.keep_awake(now_us);
        if self.rtcp_us <= now_us {
            self.report(now_us, out);
        }
        if self.quality_us <= now_us {
            self.quality_us = now_us + QUALITY_US;
            self.tell_quality(out);
        }
    }

    /// Gateways hang up on a stream that stops (GSM gateways after 10 s), and a browser could not tell a
    /// hold from a broken call: nobody speaks, so silence is sent.
    fn keep_awake(&mut self, now_us: u64) {
        let idle = now_us.saturating_sub(self.sent_us) > COMFORT_AFTER_US;
        if idle && self.may_send(now_us) {
            self.voice.comfort(true);
        }
        self.wake(now_us);
    }

    pub(super) fn tell_alarm(&mut self, alarm: Option<Alarm>) {
        let port = self.id;
        self.events.extend(alarm.map(|alarm| match alarm {
            Alarm::Silent(flow, cause) => Event::Silent { port, flow, cause: cause.to_owned() },
            Alarm::Recovered(flow) => Event::Recovered { port, flow },
            Alarm::Dead => Event::Dead { port },
        }));
    }

    pub(super) fn tell_quality(&mut self, out: &mut Outbox) {
        if let Some((loss_in, jitter_ms, lost)) = self.reception.rate() {
            out.counts.lost += u64::from(lost);
            let quality: Quality = judged(loss_in, self.loss_out, jitter_ms, self.rtt_ms);
            self.events.push_back(Event::Quality { port: self.id, quality });
        }
    }

    /// Sends our report and chooses the time of the next.
    fn report(&mut self, now_us: u64, out: &mut Outbox) {
        // xorshift64: only a spread, so that a thousand ports do not report at once.
        self.spread ^= self.spread << 13;
        self.spread ^= self.spread >> 7;
        self.spread ^= self.spread << 17;
        self.rtcp_us = now_us + RTCP_MIN_US + self.spread % RTCP_SPREAD_US;
        let Some((component, to)) = self.report_address(now_us) else { return };
        let ntp = rtcp::ntp(now_us);
        let (packets, octets) = (self.sent_packets, self.sent_octets);
        let ts = self.line.ts_at(now_us);
        let sent = (packets > 0).then_some(rtcp::Sent { ntp, ts, packets, octets });
        let block = self.report_block(now_us);
        let (way, ssrc, cname) = (&mut self.way, self.line.ssrc(), self.cname.as_str());
        out.add(self.tag, component, to, |slot| {
            let len = rtcp::write(slot, ssrc, sent.as_ref(), block.as_ref(), cname)?;
            match way {
                Way::Plain { .. } => Some(len),
                Way::Browser(shield) => shield.protect(slot, len, true),
            }
        });
    }

    fn report_block(&mut self, now_us: u64) -> Option<rtcp::Block> {
        let mut block = self.reception.report()?;
        if let Some((middle, at_us)) = self.party_report {
            block.last_sr = middle;
            let delay = now_us.saturating_sub(at_us) * 65_536 / 1_000_000;
            block.delay = u32::try_from(delay).unwrap_or(u32::MAX);
        }
        Some(block)
    }

    fn report_address(&self, now_us: u64) -> Option<(Component, SocketAddr)> {
        match &self.way {
            Way::Browser(shield) => Some((Component::Rtp, shield.address(now_us / 1_000)?)),
            Way::Plain { latch, rtcp } => {
                // A party that has not described itself yet is heard, and nothing is sent to it.
                let latch = self.agreed.as_ref().and(latch.as_ref())?;
                if latch.current() == latch.signalled() {
                    return Some((Component::Rtcp, (*rtcp)?));
                }
                // Behind NAT the signalled RTCP port is as wrong as the RTP port was: the next one is the best guess.
                let mut to = latch.current();
                to.set_port(to.port().checked_add(1)?);
                Some((Component::Rtcp, to))
            }
        }
    }
}
