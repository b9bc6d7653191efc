//! The protected way to a browser: ICE-lite says from where, DTLS says with which keys, SRTP does the work.
//!
//! ```text
//! Checking ──first authentic check──▶ Shaking ──DTLS done──▶ Waiting ──SDP promised this certificate──▶ Keyed
//!                                        │                      │ it promised another
//!                                        └──failed MAX_TRIES────┴──▶ Failed
//! ```
//!
//! Invariant: nothing is decrypted or sent before the certificate of the DTLS handshake was compared with
//! the one in the SDP (RFC 8122), and DTLS is answered only where a connectivity check with our password
//! came from (a ClientHello race, CVE-2023-49786).

use std::net::SocketAddr;

use crate::media::command::Keys;
use crate::media::dtls::{DtlsOutput, DtlsParty, Handshake, Secured, is_client_hello, is_promised};
use crate::media::ice::{Checked, IceLite, IceState};
use crate::media::srtp::{Refused, Srtp};
use crate::terms::{MonoMs, Secret};

/// Handshakes that may fail before the port is given up: forged fragments can spoil one.
const MAX_TRIES: u8 = 3;

/// A browser whose checks stopped so long ago may have gone: named as the cause of silence. Browsers check
/// every 2.5 to 6 s.
const CONSENT_DOUBT_MS: MonoMs = 7_000;

/// No packet is sent to a browser that has not checked for so long (RFC 7675 section 5.1).
const CONSENT_LOST_MS: MonoMs = 30_000;

/// What the shield has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Media can flow: keys are set.
    Keyed(Keys),
    /// Media will never flow.
    Failed(String),
}

/// One browser leg's protection.
pub struct Shield {
    ice: IceLite,
    party: DtlsParty,
    dtls: Option<Box<dyn Handshake>>,
    tries: u8,
    secured: Option<Secured>,
    promised: Option<[u8; 32]>,
    srtp: Option<Srtp>,
    failed: bool,
}

impl Shield {
    /// Waits for checks with these credentials.
    pub fn new(ufrag: String, pwd: Secret<String>, party: DtlsParty) -> Self {
        let ice = IceLite::new(IceState { ufrag, pwd, remote_ufrag: None, nominated: None });
        Self { ice, party, dtls: None, tries: 0, secured: None, promised: None, srtp: None, failed: false }
    }

    /// The SDP of the browser arrived: its user name and its certificate's fingerprint.
    pub fn promise(&mut self, ufrag: &str, fingerprint: [u8; 32]) -> Option<Notice> {
        self.ice.set_remote_ufrag(ufrag);
        if self.promised.is_some_and(|before| before != fingerprint) && self.srtp.is_some() {
            // The same association cannot have another certificate (RFC 8842 section 4).
            return Some(self.fail("the browser changed its certificate without a new connection"));
        }
        self.promised = Some(fingerprint);
        self.compare()
    }

    /// New credentials of ours: the browser restarts ICE.
    pub fn restart(&mut self, ufrag: String, pwd: Secret<String>) {
        self.ice.restart(ufrag, pwd);
    }

    /// A connectivity check came; the answer to be sent back to `from`.
    pub fn check(&mut self, datagram: &[u8], from: SocketAddr, now: MonoMs) -> Option<Vec<u8>> {
        match self.ice.handle(datagram, from, now) {
            Checked::Reply { reply, nominated: _ } => Some(reply),
            Checked::Dropped => None,
        }
    }

    /// A DTLS datagram came. `false` when nobody may send DTLS from there.
    pub fn shake(&mut self, datagram: &[u8], from: SocketAddr, now: MonoMs) -> bool {
        if !self.ice.is_validated(from) || self.failed {
            return false;
        }
        if self.dtls.is_none() && self.srtp.is_none() && is_client_hello(datagram) {
            self.dtls = Some(self.party.server(now));
        }
        if let Some(dtls) = &mut self.dtls {
            dtls.handle(datagram, now);
        }
        true
    }

    /// When `handle_timeout` is to be called.
    pub fn next_timeout(&self) -> Option<MonoMs> {
        self.dtls.as_ref()?.next_timeout()
    }

    /// Time passed: repeats a lost flight.
    pub fn handle_timeout(&mut self, now: MonoMs) {
        if let Some(dtls) = &mut self.dtls
            && dtls.next_timeout().is_some_and(|due| due <= now)
        {
            dtls.handle_timeout(now);
        }
    }

    /// What the handshake wants sent, through `send`, and what there is to say.
    pub fn drain(&mut self, mut send: impl FnMut(SocketAddr, &[u8])) -> Option<Notice> {
        while let Some(output) = self.dtls.as_mut()?.poll() {
            match output {
                DtlsOutput::Datagram(bytes) => {
                    if let Some(to) = self.ice.best() {
                        send(to, &bytes);
                    }
                }
                DtlsOutput::Secured(secured) => {
                    self.secured = Some(secured);
                    if let Some(notice) = self.compare() {
                        return Some(notice);
                    }
                }
                // SIP ends calls; the keys are still good.
                DtlsOutput::Closed => self.dtls = None,
                DtlsOutput::Failed(why) => return self.failed_try(&why),
            }
        }
        None
    }

    fn failed_try(&mut self, why: &str) -> Option<Notice> {
        self.dtls = None;
        self.tries += 1;
        // An association that already gave its keys may break: media does not need it.
        if self.srtp.is_some() || self.tries < MAX_TRIES {
            return None;
        }
        Some(self.fail(&format!("DTLS failed: {why}")))
    }

    /// Takes the keys once both the handshake and the SDP are there.
    fn compare(&mut self) -> Option<Notice> {
        let promised = self.promised?;
        let secured = self.secured.take()?;
        if !is_promised(&secured, &promised) {
            return Some(self.fail("the browser's certificate is not the one its SDP promised"));
        }
        match Srtp::new(&secured.keys) {
            Some(srtp) => {
                self.srtp = Some(srtp);
                Some(Notice::Keyed(secured.keys))
            }
            None => Some(self.fail("DTLS agreed no usable SRTP profile")),
        }
    }

    fn fail(&mut self, why: &str) -> Notice {
        self.failed = true;
        self.srtp = None;
        self.dtls = None;
        Notice::Failed(why.to_owned())
    }

    /// Where packets go, once they can: keys and a pair that the browser still consents to.
    pub fn address(&self, now: MonoMs) -> Option<SocketAddr> {
        self.srtp.as_ref()?;
        let checked = self.ice.last_check()?;
        if now.saturating_sub(checked) >= CONSENT_LOST_MS { None } else { self.ice.nominated() }
    }

    /// What is wrong with the way to the browser, in words.
    pub fn trouble(&self, now: MonoMs) -> Option<&'static str> {
        match self.ice.last_check() {
            None => Some("no connectivity check of the browser arrives"),
            Some(_) if self.srtp.is_none() => Some("DTLS is not finished"),
            Some(checked) if now.saturating_sub(checked) >= CONSENT_DOUBT_MS => Some("ICE consent lost"),
            Some(_) => None,
        }
    }

    /// Whether media may come from there.
    pub fn is_validated(&self, from: SocketAddr) -> bool {
        self.ice.is_validated(from)
    }

    /// Where media goes or will go.
    pub fn nominated(&self) -> Option<SocketAddr> {
        self.ice.nominated()
    }

    /// The keys' work, once there are keys.
    pub fn srtp(&self) -> Option<&Srtp> {
        self.srtp.as_ref()
    }

    /// Decrypts in place.
    pub fn unprotect(&mut self, packet: &mut [u8], is_rtcp: bool) -> Result<usize, Refused> {
        let srtp = self.srtp.as_mut().ok_or(Refused::Forged)?;
        if is_rtcp { srtp.unprotect_rtcp(packet) } else { srtp.unprotect_rtp(packet) }
    }

    /// Protects in place.
    pub fn protect(&mut self, buf: &mut [u8], len: usize, is_rtcp: bool) -> Option<usize> {
        let srtp = self.srtp.as_mut()?;
        let done = if is_rtcp { srtp.protect_rtcp(buf, len) } else { srtp.protect_rtp(buf, len) };
        done.ok()
    }

    /// Says goodbye to the browser's DTLS.
    pub fn close(&mut self, now: MonoMs) {
        if let Some(dtls) = &mut self.dtls {
            dtls.close(now);
        }
    }
}
