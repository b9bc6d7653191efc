//! The registration with the switch, and its refreshing.

use super::ask::Purpose;
use super::{Agent, AgentEvent, Names};
use crate::sip::message::{Method, Name, Response};
use crate::terms::MonoMs;

/// After a refusal or silence it is tried again so much later.
const RETRY_MS: u64 = 2_000;

/// One registration for the life of the agent: the same Call-ID, a growing CSeq (RFC 3261 section 10.2).
pub(super) struct Registration {
    call_id: String,
    tag: String,
    pub(super) cseq: u32,
    wanted: bool,
    pub(super) refresh_at: Option<MonoMs>,
}

impl Registration {
    pub(super) fn new(call_id: String, tag: String) -> Self {
        Self { call_id, tag, cseq: 0, wanted: false, refresh_at: None }
    }

    pub(super) fn retry(&mut self, now: MonoMs) {
        self.refresh_at = self.wanted.then_some(now + RETRY_MS);
    }
}

impl Agent {
    /// Registers now and refreshes from then on.
    pub fn register(&mut self, now: MonoMs) {
        self.registration.wanted = true;
        self.send_register(self.config.expires_s, now);
    }

    /// Takes the registration away.
    pub fn unregister(&mut self, now: MonoMs) {
        self.registration.wanted = false;
        self.send_register(0, now);
    }

    fn send_register(&mut self, expires_s: u32, now: MonoMs) {
        self.registration.refresh_at = None;
        self.registration.cseq += 1;
        // One at a time: a newer wish replaces an older one.
        self.asks.retain(|ask| ask.purpose != Purpose::Register);
        let (user, domain) = (&self.config.user, &self.config.domain);
        let from = format!("<sip:{user}@{domain}>;tag={}", self.registration.tag);
        let to = format!("<sip:{user}@{domain}>");
        let names =
            Names { from: &from, to: &to, call_id: &self.registration.call_id, cseq: self.registration.cseq };
        let mut request = self.request(Method::Register, &format!("sip:{domain}"), &names);
        request.headers.push(Name::Expires, expires_s.to_string());
        self.ask(request, Purpose::Register, now);
    }

    pub(super) fn registered(&mut self, response: &Response, now: MonoMs) {
        if response.code >= 300 {
            self.registration.retry(now);
            return self.tell(AgentEvent::NotRegistered { code: response.code });
        }
        if !self.registration.wanted {
            return self.tell(AgentEvent::Unregistered);
        }
        let expires_s = self.granted(response);
        self.registration.refresh_at = Some(now + u64::from(expires_s) * 500);
        self.tell(AgentEvent::Registered { expires_s });
    }

    /// What our own contact was given, else the whole answer, else what we asked for.
    fn granted(&self, response: &Response) -> u32 {
        let ours = |value: &&[u8]| {
            let contact = self.contact();
            let uri = contact.trim_start_matches('<').split('>').next().unwrap_or_default().to_owned();
            String::from_utf8_lossy(value).contains(&uri)
        };
        let contact = response.headers.list(&Name::Contact).find(ours);
        let said = contact.and_then(|value| crate::sip::header::NameAddr::read(value).ok()?.expires());
        let said = said.or(response.headers.expires().ok().flatten());
        said.unwrap_or(self.config.expires_s).max(2)
    }
}
