//! Who asks: by registration, by address, or by proof (RFC 3261 section 22, RFC 7616).
//!
//! Invariant: nobody is who his From says. A user that does not exist and a password that is wrong get
//! the same answer by the same path; answers to strangers keep no state and are never much longer than
//! what they answer.

use std::net::IpAddr;

use super::digest::{Algorithm, Shown, Verdict};
use super::guard::Ban;
use super::header::Credentials;
use super::message::{Name, Request, Response};
use super::reply::{respond, stateless_tag};
use super::words::TrunkKind;
use super::{Event, Path, Sip};
use crate::fact::Party;
use crate::terms::{Now, WallMs};

/// How long a nonce is good, milliseconds.
pub(crate) const NONCE_LIFE_MS: i64 = 300_000;
/// A stateless answer over UDP is at most this many times as long as its request.
const MAX_AMPLIFICATION: usize = 3;

/// What credentials prove.
pub(crate) enum Login {
    /// Who he is, and his digest user.
    Proved {
        /// Who.
        who: Party,
        /// The digest user.
        user: String,
    },
    /// He must prove it (again).
    Challenge {
        /// Whether only the nonce is old.
        stale: bool,
    },
    /// He is refused.
    Refused {
        /// Why, for the counters.
        why: &'static str,
        /// Whether he tried a password against a nonce of his own.
        guessed: bool,
    },
}

impl Sip {
    /// Checks the credentials of a request.
    pub(crate) fn login(&mut self, request: &Request, path: &Path, now: Now) -> Login {
        let headers = &request.headers;
        let all =
            headers.credentials(&Name::Authorization).chain(headers.credentials(&Name::ProxyAuthorization));
        let Some(credentials) = self.authenticator.ours(all) else {
            return Login::Challenge { stale: false };
        };
        let user = credentials.text("username").unwrap_or_default();
        let address = path.remote().ip();
        if self.guard.wait_s(address, &user, now.mono_ms).is_some() {
            // Not even whether the password would have been right is told.
            return Login::Refused { why: "banned", guessed: false };
        }
        let (who, keys) = match self.trunks.of_user(&user) {
            Some(account) => match &account.kind {
                TrunkKind::Gateway { ha1, .. } => {
                    (Some(Party::Trunk(account.name.clone())), vec![ha1.clone()])
                }
                TrunkKind::Peer { .. } | TrunkKind::Provider(_) => (None, Vec::new()),
            },
            None => self
                .registrar
                .keys_of(&user)
                .map_or((None, Vec::new()), |(name, keys)| (Some(Party::Operator(name)), keys)),
        };
        let source = source_of(path);
        let shown =
            Shown { method: &request.method, uri: &request.uri, source: &source, wall_ms: now.wall_ms };
        let mut verdict = self.authenticator.verify(&credentials, keys.first(), &shown);
        for key in keys.iter().skip(1) {
            if verdict == Verdict::Wrong {
                verdict = self.authenticator.verify(&credentials, Some(key), &shown);
            }
        }
        match (verdict, who) {
            (Verdict::Ok { nc }, Some(who)) => {
                self.guard.passed(address, &user);
                self.count_nonce(&credentials, nc, who, user, now)
            }
            (Verdict::Stale, _) => Login::Challenge { stale: true },
            (Verdict::Malformed(_), _) => Login::Challenge { stale: false },
            (Verdict::Wrong, Some(_)) => self.failed("wrong password", &credentials, &source, address, now),
            (Verdict::Wrong | Verdict::Ok { .. }, None) => {
                self.failed("unknown user", &credentials, &source, address, now)
            }
        }
    }

    /// A log-in that failed. Only one with a nonce that we gave to that very source counts: over UDP
    /// anybody can write another's address on a letter, and nobody is banned for letters he did not send.
    fn failed(
        &mut self,
        why: &'static str,
        credentials: &Credentials,
        source: &str,
        address: IpAddr,
        now: Now,
    ) -> Login {
        let guessed = self.is_our_nonce(credentials, source);
        if guessed {
            let user = credentials.text("username").unwrap_or_default();
            let spared = self.trunks.is_of_one(address) || self.registrar.gateway_is_at(address);
            for ban in self.guard.tried(address, &user, spared, now.mono_ms) {
                self.wire.tell(Event::Banned(ban));
            }
        }
        Login::Refused { why, guessed }
    }

    /// Locks and bans of now.
    pub fn bans(&self, now: Now) -> Vec<Ban> {
        self.guard.bans(now.mono_ms)
    }

    /// Lifts all locks and the ban of a source; how many there were.
    pub fn lift_bans(&mut self, source: IpAddr, now: Now) -> usize {
        self.guard.lift(source, now.mono_ms)
    }

    fn count_nonce(
        &mut self,
        credentials: &Credentials,
        nc: Option<u32>,
        who: Party,
        user: String,
        now: Now,
    ) -> Login {
        // Two phones behind one address may be given the same nonce in the same millisecond.
        let nonce = format!("{}.{user}", credentials.text("nonce").unwrap_or_default());
        let good_until = now.wall_ms.saturating_add(NONCE_LIFE_MS);
        match nc {
            Some(nc) if !self.registrar.count(&nonce, nc, good_until) => Login::Challenge { stale: true },
            Some(_) | None => Login::Proved { who, user },
        }
    }

    /// Whether the nonce was given to this very source, now or earlier.
    fn is_our_nonce(&self, credentials: &Credentials, source: &str) -> bool {
        let nonce = credentials.text("nonce").unwrap_or_default();
        let issued = nonce.get(..16).and_then(|time| u64::from_str_radix(time, 16).ok());
        let issued = issued.and_then(|time| WallMs::try_from(time).ok());
        issued.is_some_and(|issued| self.authenticator.nonce(source, issued) == nonce)
    }

    /// 401, without keeping anything.
    pub(crate) fn challenge(&mut self, request: &Request, path: &Path, stale: bool, now: Now) {
        let algorithms = self.algorithms(request, path);
        let mut response = self.stateless(request, 401);
        for challenge in self.authenticator.challenges(&algorithms, &source_of(path), now.wall_ms, stale) {
            response.headers.push(Name::WwwAuthenticate, challenge.to_string());
        }
        self.send_stateless(path, &response);
    }

    /// What to challenge with: JsSIP looks at the first challenge only, and it must be MD5.
    fn algorithms(&self, request: &Request, path: &Path) -> Vec<Algorithm> {
        if path.flow().is_some() {
            return vec![Algorithm::Md5];
        }
        let user = request.headers.from().ok().and_then(|from| from.uri.user_text()).unwrap_or_default();
        let wanted = self.trunks.of_user(&user).map(|account| account.digest.clone()).unwrap_or_default();
        // The same to everybody who is no trunk, so that it tells nothing about who exists.
        if wanted.is_empty() { self.wire.config.digest.clone() } else { wanted }
    }

    /// 403, counted.
    pub(crate) fn stranger(&mut self, request: &Request, path: &Path, why: &'static str, guessed: bool) {
        let method = request.method.as_str().to_owned();
        self.wire.tell(Event::Stranger { path: *path, method, why, guessed });
        self.refuse(request, path, 403);
    }

    /// A final answer that keeps no state.
    pub(crate) fn refuse(&mut self, request: &Request, path: &Path, code: u16) {
        let response = self.stateless(request, code);
        self.send_stateless(path, &response);
    }

    /// An answer that keeps no state, to be added to.
    pub(crate) fn stateless(&self, request: &Request, code: u16) -> Response {
        let mut response = respond(request, code, &stateless_tag(request));
        response.headers.push(Name::Server, self.wire.config.user_agent.clone());
        response
    }

    /// Sends it, unless it would help to flood somebody else.
    pub(crate) fn send_stateless(&mut self, path: &Path, response: &Response) {
        let bytes = response.to_bytes();
        // Of the octets that came: written out again, compact names are longer.
        if !path.is_reliable() && bytes.len() > self.wire.asked_len.saturating_mul(MAX_AMPLIFICATION) {
            return self.wire.drop_it("amplification");
        }
        self.wire.tx.send(*path, bytes);
    }
}

/// What a nonce is bound to: the address, which outlives port mappings and sockets.
fn source_of(path: &Path) -> String {
    path.remote().ip().to_canonical().to_string()
}
