//! Our registration with a provider (RFC 3261 section 10.2): asked for, proved, refreshed before it ends,
//! moved to the next server when one fails, taken back at the end.
//!
//! ```text
//!            ┌── 401, 407, 423: asked again, with the proof or the time wanted ──┐
//!   waiting ─┴▶ asking ──200──▶ registered, waiting to refresh                   │
//!      ▲          └── refused or silent: the next server at once, after the last one a growing pause
//! ```
//! Invariant: a registration that was granted stands until its time is over, whatever a refresh meets; the
//! password never leaves but as a digest for the realm of the account.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::super::Path;
use super::super::dialog::CSEQ_GAP;
use super::super::digest::{choose, is_stale};
use super::super::header::{Challenge, Contacts, NameAddr};
use super::super::message::{Method, Name, Request, Response, default_reason};
use super::super::reply::ALLOW;
use super::super::transaction::{Heard, Purpose};
use super::super::uri::{Host, Uri};
use super::super::wire::Wire;
use super::super::words::Provider;
use crate::record::moved;
use crate::terms::{MonoMs, Now};

/// How long one server may take to answer before the next is asked, milliseconds.
const ANSWER_MS: u64 = 8_000;
/// The pause after the first round in which no server registered us, milliseconds; it doubles with each.
const FIRST_PAUSE_MS: u64 = 2_000;
/// The longest pause, milliseconds.
const LONGEST_PAUSE_MS: u64 = 300_000;
/// The pause after a refusal that another try will not change (wrong password), milliseconds: providers ban.
const REFUSED_PAUSE_MS: u64 = 60_000;
/// Proofs and 423s in one try: a registrar that always wants another one is no registrar.
const MAX_AGAIN: u8 = 4;
/// The longest time that a registrar may force on us, seconds.
const MAX_EXPIRES_S: u32 = 86_400;
/// Registrations of several trunks do not begin in one moment, milliseconds.
const SPREAD_MS: u64 = 500;
/// The parameter by which our Contact is known again when a call comes to it.
pub(crate) const LINE: &str = "line";

/// One account's registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Upstream {
    call_id: String,
    tag: String,
    cseq: u32,
    /// Stands in our Contact, so that the provider's calls are known by it; nobody else was told.
    token: String,
    /// Which of the servers is asked, or was.
    server: usize,
    asking: Option<Asking>,
    until: Option<MonoMs>,
    next_at: Option<MonoMs>,
    expires_s: u32,
    /// Servers that failed one after the other.
    failed: usize,
    /// Rounds over all servers that failed one after the other.
    rounds: u32,
    nonce: Option<Nonce>,
    /// The realm that its registrar named.
    realm: Option<String>,
    /// Why it is not registered, in words.
    trouble: String,
    leaving: bool,
}

/// A REGISTER on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Asking {
    client: u64,
    deadline: MonoMs,
    expires_s: u32,
    again: u8,
    /// Whether it holds a proof for a nonce that was given for it.
    proved: bool,
}

/// A challenge that further requests are proved by before they are asked (RFC 7616 section 3.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Nonce {
    proxy: bool,
    challenge: String,
    count: u32,
}

impl Upstream {
    /// An account that is not registered yet; the first try comes within a moment.
    pub(crate) fn new(provider: &Provider, token: String, wire: &mut Wire, now: Now) -> Self {
        let call_id = format!("{}{}", wire.entropy.word(), wire.entropy.word());
        let first = now.mono_ms.saturating_add(wire.entropy.below(SPREAD_MS));
        Self {
            call_id,
            tag: wire.entropy.word(),
            cseq: 0,
            token,
            server: 0,
            asking: None,
            until: None,
            next_at: Some(first),
            expires_s: provider.expires_s,
            failed: 0,
            rounds: 0,
            nonce: None,
            realm: None,
            trouble: "not registered yet".to_owned(),
            leaving: false,
        }
    }

    /// Moves its deadlines onto another clock, and jumps over numbers that the writer may have used.
    pub(crate) fn rebase(&mut self, shift_ms: i64) {
        let asking = self.asking.as_mut().map(|asking| &mut asking.deadline);
        for at in [self.until.as_mut(), self.next_at.as_mut(), asking].into_iter().flatten() {
            *at = moved(*at, shift_ms);
        }
        self.cseq = self.cseq.saturating_add(CSEQ_GAP);
    }

    /// Whether the provider knows where we are.
    pub(crate) fn is_registered(&self) -> bool {
        self.until.is_some()
    }

    /// Why it does not, in words.
    pub(crate) fn trouble(&self) -> &str {
        &self.trouble
    }

    /// Whether our registration is being taken back.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Whether this is the request that it waits for.
    pub(crate) fn waits_for(&self, client: u64) -> bool {
        self.asking.as_ref().is_some_and(|asking| asking.client == client)
    }

    /// Whether a call to this address comes to the Contact that we registered.
    pub(crate) fn is_contact(&self, uri: &Uri) -> bool {
        uri.params.get(LINE) == Some(self.token.as_str())
    }

    /// The server that we are registered with, or try.
    pub(crate) fn server(&self, provider: &Provider) -> Option<SocketAddr> {
        provider.servers.get(self.server).or(provider.servers.first()).copied()
    }

    /// Whether this realm may be answered with the account's password.
    pub(crate) fn trusts(&mut self, provider: &Provider, realm: &str) -> bool {
        match provider.realm.as_deref().or(self.realm.as_deref()) {
            Some(known) => known == realm,
            None => {
                self.realm = Some(realm.to_owned());
                true
            }
        }
    }

    /// When to call [`Upstream::timeout`].
    pub(crate) fn next_timeout(&self) -> Option<MonoMs> {
        let deadline = self.asking.as_ref().map(|asking| asking.deadline);
        [self.until, self.next_at, deadline].into_iter().flatten().min()
    }

    /// Time has passed.
    pub(crate) fn timeout(&mut self, wire: &mut Wire, provider: &Provider, now: Now) {
        if let Some(asking) = self.asking.as_ref().filter(|asking| asking.deadline <= now.mono_ms) {
            wire.tx.abandon(asking.client);
            self.silent(wire, provider, now);
        }
        if self.until.is_some_and(|until| until <= now.mono_ms) {
            self.until = None;
        }
        if self.next_at.is_some_and(|at| at <= now.mono_ms) {
            self.ask(wire, provider, self.expires_s, 0, false, now);
        }
    }

    /// Takes the registration back; nothing is asked where there is none.
    pub(crate) fn leave(&mut self, wire: &mut Wire, provider: &Provider, now: Now) {
        self.next_at = None;
        if let Some(asking) = self.asking.take() {
            wire.tx.abandon(asking.client);
        }
        if self.until.take().is_some() {
            self.leaving = true;
            self.ask(wire, provider, 0, 0, false, now);
        }
    }

    fn ask(
        &mut self,
        wire: &mut Wire,
        provider: &Provider,
        expires_s: u32,
        again: u8,
        proved: bool,
        now: Now,
    ) {
        self.next_at = None;
        let Some(remote) = self.server(provider) else { return };
        let path = Path::Udp { remote, local: wire.config.udp };
        self.cseq = self.cseq.saturating_add(1);
        let request = self.request(wire, provider, &path, expires_s);
        let client = wire.ask_apart(request, path, Purpose::Register, now);
        let deadline = now.mono_ms.saturating_add(ANSWER_MS);
        self.asking = Some(Asking { client, deadline, expires_s, again, proved });
    }

    fn request(&mut self, wire: &mut Wire, provider: &Provider, path: &Path, expires_s: u32) -> Request {
        let uri = format!("sip:{}", provider.domain);
        let user = Some(provider.login.user.as_str());
        let host = Host::read(&provider.domain).unwrap_or(Host::from(path.remote().ip()));
        let own = NameAddr::new(Uri::sip(user, host, None));
        let mut contact = Uri::at(user, path.local());
        contact.params.set(LINE, Some(&self.token));
        let mut request = Request::new(Method::Register, uri.clone());
        let headers = &mut request.headers;
        headers.push(Name::MaxForwards, "70");
        headers.push(Name::From, own.clone().with_tag(&self.tag).to_string());
        headers.push(Name::To, own.to_string());
        headers.push(Name::CallId, self.call_id.clone());
        headers.push(Name::CSeq, format!("{} REGISTER", self.cseq));
        headers.push(Name::Contact, NameAddr::new(contact).to_string());
        headers.push(Name::Expires, expires_s.to_string());
        headers.push(Name::Allow, ALLOW);
        headers.push(Name::UserAgent, wire.config.user_agent.clone());
        if let Some(nonce) = &mut self.nonce
            && let Ok(challenge) = Challenge::read(nonce.challenge.as_bytes())
        {
            nonce.count = nonce.count.saturating_add(1);
            let cnonce = wire.entropy.word();
            let shown = provider.login.answer(&challenge, &Method::Register, &uri, &cnonce, nonce.count);
            let name = if nonce.proxy { Name::ProxyAuthorization } else { Name::Authorization };
            if let Some(shown) = shown {
                headers.push(name, shown.to_string());
            }
        }
        request
    }

    /// What became of our REGISTER.
    pub(crate) fn heard(&mut self, wire: &mut Wire, provider: &Provider, heard: &Heard, now: Now) {
        let response = match heard {
            Heard::Response(response) if response.code < 200 => return,
            Heard::Response(response) => response,
            Heard::TimeOut => return self.silent(wire, provider, now),
        };
        let Some(asking) = self.asking.take() else { return };
        match response.code {
            200..=299 => self.granted(wire, provider, &asking, response, now),
            401 | 407 => self.challenged(wire, provider, &asking, response, now),
            423 => self.too_brief(wire, provider, &asking, response, now),
            403 | 404 => {
                let words = format!("the provider refuses this account ({})", status(response.code));
                self.refused(wire, words, now);
            }
            code => {
                let pause_s = response.headers.retry_after().unwrap_or(0);
                self.failed(wire, provider, format!("the provider answers {}", status(code)), pause_s, now);
            }
        }
    }

    fn granted(
        &mut self,
        wire: &mut Wire,
        provider: &Provider,
        asking: &Asking,
        response: &Response,
        now: Now,
    ) {
        self.failed = 0;
        self.rounds = 0;
        if asking.expires_s == 0 {
            self.leaving = false;
            return;
        }
        let granted_s = self.granted_s(response).unwrap_or(asking.expires_s);
        if granted_s == 0 {
            return self.refused(wire, "the provider registers us for no time at all".to_owned(), now);
        }
        let granted_ms = u64::from(granted_s).saturating_mul(1_000);
        // Early enough for several tries, and not all trunks in one moment.
        let share = 70_u64.saturating_add(wire.entropy.below(15));
        let refresh_ms = granted_ms.saturating_mul(share) / 100;
        self.until = Some(now.mono_ms.saturating_add(granted_ms));
        self.next_at = Some(now.mono_ms.saturating_add(refresh_ms.max(1_000)));
        self.expires_s = self.expires_s.max(provider.expires_s);
        self.trouble.clear();
    }

    /// What our own Contact was given, else the whole answer.
    fn granted_s(&self, response: &Response) -> Option<u32> {
        let contacts = match response.headers.contacts() {
            Ok(Contacts::List(list)) => list,
            Ok(Contacts::Any) | Err(_) => Vec::new(),
        };
        let own = contacts.iter().find(|contact| self.is_contact(&contact.uri));
        let only = own.or(contacts.first().filter(|_| contacts.len() == 1));
        only.and_then(NameAddr::expires).or(response.headers.expires().ok().flatten())
    }

    fn challenged(
        &mut self,
        wire: &mut Wire,
        provider: &Provider,
        asking: &Asking,
        response: &Response,
        now: Now,
    ) {
        let proxy = response.code == 407;
        let name = if proxy { Name::ProxyAuthenticate } else { Name::WwwAuthenticate };
        let Some(challenge) = choose(response.headers.challenges(&name)) else {
            let words = "the provider wants a log-in of a kind that we do not have".to_owned();
            return self.refused(wire, words, now);
        };
        let realm = challenge.text("realm").unwrap_or_default();
        if !self.trusts(provider, &realm) {
            let words = format!("the provider asks for the password of another realm, '{realm}'");
            return self.refused(wire, words, now);
        }
        if (asking.proved && !is_stale(&challenge)) || asking.again >= MAX_AGAIN {
            self.nonce = None;
            return self.refused(wire, "the provider refuses user or password".to_owned(), now);
        }
        self.nonce = Some(Nonce { proxy, challenge: challenge.to_string(), count: 0 });
        self.ask(wire, provider, asking.expires_s, asking.again.saturating_add(1), true, now);
    }

    /// RFC 3261 section 10.2.8.
    fn too_brief(
        &mut self,
        wire: &mut Wire,
        provider: &Provider,
        asking: &Asking,
        response: &Response,
        now: Now,
    ) {
        let least = response.headers.min_expires().ok().flatten().unwrap_or(0);
        if !(asking.expires_s.saturating_add(1)..=MAX_EXPIRES_S).contains(&least) || asking.again >= MAX_AGAIN
        {
            return self.refused(wire, format!("the provider answers {}", status(423)), now);
        }
        self.expires_s = least;
        self.ask(wire, provider, least, asking.again.saturating_add(1), asking.proved, now);
    }

    fn silent(&mut self, wire: &mut Wire, provider: &Provider, now: Now) {
        self.asking = None;
        let server = self.server(provider).map(|server| server.to_string()).unwrap_or_default();
        self.failed(wire, provider, format!("no answer from {server}"), 0, now);
    }

    /// This server does not: the next one, or after the last a pause.
    fn failed(&mut self, wire: &mut Wire, provider: &Provider, words: String, pause_s: u32, now: Now) {
        self.trouble = words;
        if self.gave_up_leaving() {
            return;
        }
        self.failed = self.failed.saturating_add(1);
        self.server = self.server.saturating_add(1).checked_rem(provider.servers.len()).unwrap_or(0);
        // A nonce of one server says nothing to another.
        if provider.servers.len() > 1 {
            self.nonce = None;
        }
        if self.failed < provider.servers.len() {
            return self.ask(wire, provider, self.expires_s, 0, false, now);
        }
        self.failed = 0;
        self.rounds = self.rounds.saturating_add(1);
        let doubled = FIRST_PAUSE_MS.saturating_mul(1 << self.rounds.saturating_sub(1).min(16));
        let pause_ms = doubled.max(u64::from(pause_s).saturating_mul(1_000)).min(LONGEST_PAUSE_MS);
        self.pause(wire, pause_ms, now);
    }

    /// Another server would say the same.
    fn refused(&mut self, wire: &mut Wire, words: String, now: Now) {
        self.trouble = words;
        if self.gave_up_leaving() {
            return;
        }
        self.failed = 0;
        self.rounds = self.rounds.saturating_add(1);
        let doubled = REFUSED_PAUSE_MS.saturating_mul(1 << self.rounds.saturating_sub(1).min(8));
        self.pause(wire, doubled.min(LONGEST_PAUSE_MS), now);
    }

    fn gave_up_leaving(&mut self) -> bool {
        std::mem::take(&mut self.leaving)
    }

    /// Half the pause surely, the other half by lot: trunks that failed together do not come back together.
    fn pause(&mut self, wire: &mut Wire, pause_ms: u64, now: Now) {
        let half = pause_ms / 2;
        let wait_ms = half.saturating_add(wire.entropy.below(half.max(1)));
        self.next_at = Some(now.mono_ms.saturating_add(wait_ms));
    }
}

fn status(code: u16) -> String {
    format!("{code} {}", default_reason(code)).trim_end().to_owned()
}
