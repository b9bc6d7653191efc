//! ICE of a browser leg: the lite end that the switch is, and the checks of the full end that its own user
//! agent makes (RFC 8445; consent RFC 7675).
//!
//! The lite end never asks anything. Browsers send their checks to the one shared port; the user name leads
//! to the leg, the password proves the sender, and USE-CANDIDATE chooses the address to which sound goes.
//!
//! Invariant: what is not authentic gets no answer at all (nothing to amplify, nothing to enumerate) and
//! changes nothing; only an authentic check moves the address.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::stun::{self, Draft, Message};
pub use super::stun::{is_stun, stun_username};
use crate::terms::{MonoMs, Secret};

/// How many addresses of one browser are remembered as validated: its networks and their address families.
/// The one not heard of for longest is forgotten.
pub const MAX_VALIDATED: usize = 8;

/// The priority of a host candidate, component 1 (RFC 8445 section 5.1.2.1), as peer reflexive: type
/// preference 110.
const PRIORITY: u32 = (110 << 24) | (65_535 << 8) | 255;

/// What another process needs to go on with a leg.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceState {
    /// Our user name fragment.
    pub ufrag: String,
    /// Our password.
    pub pwd: Secret<String>,
    /// The browser's fragment, once its SDP said it.
    pub remote_ufrag: Option<String>,
    /// Where media goes.
    pub nominated: Option<SocketAddr>,
}

/// What a datagram led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It was authentic: `reply` goes back to where it came from.
    Reply {
        /// The datagram.
        reply: Vec<u8>,
        /// This check moved the nominated address.
        nominated: bool,
    },
    /// Not for this leg or not authentic: say nothing, count it.
    Dropped,
}

/// The lite end of one leg.
#[derive(Debug, Clone)]
pub struct IceLite {
    state: IceState,
    /// Addresses with an authentic check, the last heard first.
    validated: Vec<SocketAddr>,
    last_check: Option<MonoMs>,
}

impl IceLite {
    /// A new leg.
    pub fn new(state: IceState) -> Self {
        Self { state, validated: Vec::new(), last_check: None }
    }

    /// Goes on in another process: the nominated address is validated, and the browser's consent, which the
    /// record proves, counts from `now` on, so that sound flows before its next check.
    pub fn restore(state: IceState, now: MonoMs) -> Self {
        let last_check = state.nominated.map(|_| now);
        let validated = state.nominated.into_iter().collect();
        Self { state, validated, last_check }
    }

    /// For the record.
    pub fn state(&self) -> &IceState {
        &self.state
    }

    /// The browser's fragment, from its SDP. Before it is known the first half of USERNAME and the password
    /// suffice: checks may outrun the answer (RFC 8445 section 7.3).
    pub fn set_remote_ufrag(&mut self, ufrag: &str) {
        self.state.remote_ufrag = Some(ufrag.to_owned());
    }

    /// New credentials for an ICE restart (RFC 8445 section 9). Media goes on to the old address until a
    /// check with the new password nominates another.
    pub fn restart(&mut self, ufrag: String, pwd: Secret<String>) {
        self.state.ufrag = ufrag;
        self.state.pwd = pwd;
        self.state.remote_ufrag = None;
    }

    /// A STUN datagram came.
    pub fn handle(&mut self, datagram: &[u8], from: SocketAddr, now: MonoMs) -> Checked {
        let Some(request) = Message::read(datagram).filter(|message| self.is_authentic(message)) else {
            return Checked::Dropped;
        };
        let reply = |draft: Draft| draft.finish(self.state.pwd.expose());
        let refuse = |class, number, phrase| Draft::new(stun::ERROR, request.id).error(class, number, phrase);
        if let Some(unknown) = request.unknown {
            // RFC 8489 section 6.3.1.
            let reply = reply(refuse(4, 20, "Unknown Attribute").unknown(unknown));
            return Checked::Reply { reply, nominated: false };
        }
        if request.controlled {
            // A lite end is always controlled against a full one (RFC 8445 sections 6.1.1 and 7.3.1.1).
            return Checked::Reply { reply: reply(refuse(4, 87, "Role Conflict")), nominated: false };
        }
        let reply = reply(Draft::new(stun::SUCCESS, request.id).mapped(from));
        let moved = request.use_candidate && self.state.nominated != Some(from);
        if moved {
            self.state.nominated = Some(from);
        }
        self.remember(from);
        self.last_check = Some(now);
        Checked::Reply { reply, nominated: moved }
    }

    /// Ours, for us, from the browser that the SDP named, with our password.
    fn is_authentic(&self, message: &Message<'_>) -> bool {
        let for_us = message.username.and_then(|name| name.split_once(':')).is_some_and(|(ours, theirs)| {
            ours == self.state.ufrag && self.state.remote_ufrag.as_deref().is_none_or(|known| known == theirs)
        });
        message.kind == stun::REQUEST && for_us && message.is_authentic(self.state.pwd.expose())
    }

    fn remember(&mut self, from: SocketAddr) {
        match self.validated.iter().position(|known| *known == from) {
            Some(0) => {}
            Some(at) => {
                if let Some(up_to) = self.validated.get_mut(..=at) {
                    up_to.rotate_right(1);
                }
            }
            None => {
                self.validated.truncate(MAX_VALIDATED - 1);
                self.validated.insert(0, from);
            }
        }
    }

    /// Whether an authentic check came from there: DTLS and media are taken only from such addresses.
    pub fn is_validated(&self, from: SocketAddr) -> bool {
        self.state.nominated == Some(from) || self.validated.contains(&from)
    }

    /// Where media goes.
    pub fn nominated(&self) -> Option<SocketAddr> {
        self.state.nominated
    }

    /// The nominated address, before there is one the last validated: a browser begins DTLS before it
    /// nominates.
    pub fn best(&self) -> Option<SocketAddr> {
        self.state.nominated.or_else(|| self.validated.first().copied())
    }

    /// When the last authentic check came, or the leg was restored: the browser's consent (RFC 7675 section
    /// 5.1).
    pub fn last_check(&self) -> Option<MonoMs> {
        self.last_check
    }
}

/// The full, controlling end with one pair: what our own user agent needs to talk to a lite end.
#[derive(Debug, Clone)]
pub struct IceFull {
    username: String,
    remote_pwd: Secret<String>,
    tie_breaker: u64,
    /// Of the request that waits for its answer.
    pending: Option<[u8; 12]>,
}

impl IceFull {
    /// `tie_breaker` is random.
    pub fn new(ufrag: &str, remote_ufrag: &str, remote_pwd: Secret<String>, tie_breaker: u64) -> Self {
        Self { username: format!("{remote_ufrag}:{ufrag}"), remote_pwd, tie_breaker, pending: None }
    }

    /// The next check, nominating its pair at once; `id` is random. It also renews consent.
    pub fn check(&mut self, id: [u8; 12]) -> Vec<u8> {
        self.pending = Some(id);
        Draft::new(stun::REQUEST, id)
            .username(&self.username)
            .controlling(self.tie_breaker)
            .use_candidate()
            .priority(PRIORITY)
            .finish(self.remote_pwd.expose())
    }

    /// An answer came: the address under which the other end sees us, if it is authentic and a success.
    pub fn answered(&mut self, datagram: &[u8]) -> Option<SocketAddr> {
        let answer = Message::read(datagram)?;
        let ours = answer.kind == stun::SUCCESS && self.pending == Some(answer.id);
        if !ours || !answer.is_authentic(self.remote_pwd.expose()) {
            return None;
        }
        self.pending = None;
        answer.mapped
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    const PWD: &str = "passwordpasswordpassword";

    fn lite() -> IceLite {
        IceLite::new(IceState {
            ufrag: "ours".into(),
            pwd: Secret::new(PWD.into()),
            remote_ufrag: Some("them".into()),
            nominated: None,
        })
    }

    fn full() -> IceFull {
        IceFull::new("them", "ours", Secret::new(PWD.into()), 1)
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn check(username: &str) -> Draft {
        Draft::new(stun::REQUEST, [9; 12]).username(username)
    }

    #[test]
    fn a_check_is_answered_validates_and_nominates() {
        let (mut lite, mut full) = (lite(), full());
        let request = full.check([3; 12]);
        let Checked::Reply { reply, nominated } = lite.handle(&request, at(5000), 70) else { panic!() };
        assert!(nominated);
        assert_eq!((lite.nominated(), lite.last_check()), (Some(at(5000)), Some(70)));
        assert_eq!(full.answered(&reply), Some(at(5000)));
        assert_eq!(full.answered(&reply), None, "an answer counts once");
    }

    #[test]
    fn a_check_without_use_candidate_validates_only() {
        let mut lite = lite();
        let reply = lite.handle(&check("ours:them").finish(PWD), at(5000), 1);
        assert!(matches!(reply, Checked::Reply { nominated: false, .. }));
        assert_eq!((lite.nominated(), lite.best()), (None, Some(at(5000))));
        assert!(lite.is_validated(at(5000)) && !lite.is_validated(at(5001)));
    }

    #[test]
    fn what_is_not_authentic_gets_no_answer_and_changes_nothing() {
        let mut lite = lite();
        lite.handle(&full().check([1; 12]), at(5000), 5);
        let mut flipped = check("ours:them").use_candidate().finish(PWD);
        flipped[30] ^= 1;
        for (name, datagram) in [
            ("wrong password", check("ours:them").use_candidate().finish("another")),
            ("another leg", check("other:them").finish(PWD)),
            ("another browser", check("ours:evil").finish(PWD)),
            ("no separator", check("ours").finish(PWD)),
            ("no name", Draft::new(stun::REQUEST, [9; 12]).finish(PWD)),
            ("an answer", Draft::new(stun::SUCCESS, [9; 12]).username("ours:them").finish(PWD)),
            ("an indication", Draft::new(0x0011, [9; 12]).username("ours:them").finish(PWD)),
            ("changed", flipped),
            ("nothing", Vec::new()),
        ] {
            assert_eq!(lite.handle(&datagram, at(6666), 9), Checked::Dropped, "{name}");
        }
        assert_eq!((lite.nominated(), lite.last_check()), (Some(at(5000)), Some(5)));
        assert!(!lite.is_validated(at(6666)));
    }

    #[test]
    fn unknown_demands_and_role_conflicts_are_refused_and_move_nothing() {
        let mut lite = lite();
        for (request, code) in [(request_with(0x7000, &[]), 420), (request_with(0x8029, &[0; 8]), 487)] {
            let Checked::Reply { reply, nominated } = lite.handle(&request, at(5000), 1) else { panic!() };
            let answer = Message::read(&reply).unwrap();
            assert!(answer.is_authentic(PWD) && !nominated);
            assert_eq!((answer.kind, answer.error), (stun::ERROR, Some(code)));
            assert_eq!(lite.nominated(), None);
        }
    }

    /// A nominating check with one attribute more.
    fn request_with(name: u16, value: &[u8]) -> Vec<u8> {
        check("ours:them").use_candidate().attribute(name, value).finish(PWD)
    }

    #[test]
    fn validated_addresses_are_few_and_the_nominated_stays() {
        let mut lite = lite();
        lite.handle(&full().check([1; 12]), at(1), 0);
        for port in 2..100 {
            lite.handle(&check("ours:them").finish(PWD), at(port), 0);
        }
        assert_eq!(lite.validated.len(), MAX_VALIDATED);
        assert!(lite.is_validated(at(1)) && lite.is_validated(at(99)) && !lite.is_validated(at(2)));
    }

    #[test]
    fn a_restart_takes_the_new_password_only_and_keeps_the_address() {
        let mut lite = lite();
        let old = full().check([1; 12]);
        lite.handle(&old, at(5000), 0);
        lite.restart("newo".into(), Secret::new("another password another".into()));
        assert_eq!(lite.handle(&old, at(5001), 1), Checked::Dropped);
        assert_eq!(lite.nominated(), Some(at(5000)));
        let mut full = IceFull::new("newt", "newo", Secret::new("another password another".into()), 1);
        assert!(matches!(
            lite.handle(&full.check([2; 12]), at(5002), 2),
            Checked::Reply { nominated: true, .. }
        ));
        assert_eq!(lite.nominated(), Some(at(5002)));
    }

    #[test]
    fn a_restored_leg_sends_at_once_and_answers_the_next_check() {
        let mut first = lite();
        first.handle(&full().check([1; 12]), at(5000), 0);
        let record = serde_json::to_string(first.state()).unwrap();
        let mut again = IceLite::restore(serde_json::from_str(&record).unwrap(), 3);
        assert_eq!((again.best(), again.last_check()), (Some(at(5000)), Some(3)));
        assert!(again.is_validated(at(5000)));
        let reply = again.handle(&full().check([2; 12]), at(5000), 7);
        assert!(matches!(reply, Checked::Reply { nominated: false, .. }));
    }

    #[test]
    fn the_checks_of_chromium_are_understood() {
        for name in ["01-in-stun", "11-in-stun", "14-in-stun"] {
            let path = format!("{}/fixtures/wire/icelite/{name}.bin", env!("CARGO_MANIFEST_DIR"));
            let datagram = std::fs::read(path).unwrap();
            let message = Message::read(&datagram).expect(name);
            assert_eq!((message.kind, message.unknown), (stun::REQUEST, None));
            assert_eq!(message.use_candidate, name != "01-in-stun");
            let (ours, theirs) = stun_username(&datagram).unwrap();
            assert_eq!(message.username, Some(format!("{ours}:{theirs}").as_str()));
            // Its password is not recorded: without it there is no answer.
            assert_eq!(lite().handle(&datagram, at(1), 0), Checked::Dropped);
        }
    }
}
