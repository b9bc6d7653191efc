//! REGISTER: a phone or gateway says where it is (RFC 3261 section 10.3, RFC 5626, RFC 7118).
//!
//! Invariant: an account registers only itself, only what it proved, and only the way it came: a Contact
//! never decides where packets go.

use std::collections::BTreeSet;

use super::auth::Login;
use super::header::{Contacts, NameAddr};
use super::leg::Leg;
use super::message::{Name, Request, Response};
use super::registrar::Shown;
use super::uri::Scheme;
use super::{Event, Path, Sip};
use crate::fact::Party;
use crate::terms::{LegId, Now};

/// The shortest registration, seconds.
const MIN_EXPIRES_S: u32 = 60;
/// The longest, seconds.
const MAX_EXPIRES_S: u32 = 3_600;
/// The longest for a browser, seconds: its socket says sooner that it is gone.
const MAX_WS_EXPIRES_S: u32 = 600;

/// What a REGISTER asks for.
enum Wish {
    Query,
    RemoveAll,
    Set(Vec<Shown>),
}

impl Sip {
    /// A REGISTER came.
    pub(crate) fn register(&mut self, request: &Request, key: String, path: Path, now: Now) {
        let (who, user) = match self.login(request, &path, now) {
            Login::Proved { who, user } => (who, user),
            Login::Challenge { stale } => return self.challenge(request, &path, stale, now),
            Login::Refused { why, guessed } => return self.stranger(request, &path, why, guessed),
        };
        if let Party::Trunk(name) = &who
            && !self.trunks.lets(name, path.remote().ip())
        {
            return self.stranger(request, &path, "outside the fence", false);
        }
        let account = request.headers.to().ok().and_then(|to| to.uri.user_text());
        if account.as_deref() != Some(user.as_str()) {
            return self.stranger(request, &path, "not allowed", false);
        }
        let wish = match self.wish(request, &who, path) {
            Ok(wish) => wish,
            Err(response) => return self.send_stateless(&path, &response),
        };
        let (response, shown) = self.fulfil(request, &who, wish, now);
        let server = self.wire.tx.accept(request, key, path, None);
        self.wire.tx.answer(server, &response, None, now);
        // Only when the phone knows that it is back: what waited for it.
        for (instance, contact) in shown {
            self.move_legs(&who, &instance, &contact, path, now);
        }
    }

    fn wish(&self, request: &Request, who: &Party, path: Path) -> Result<Wish, Response> {
        let refused = |code| self.stateless(request, code);
        let headers = &request.headers;
        let expires_s = headers.expires().map_err(|_| refused(400))?;
        let list = match headers.contacts().map_err(|_| refused(400))? {
            Contacts::Any if expires_s == Some(0) => return Ok(Wish::RemoveAll),
            Contacts::Any => return Err(refused(400)),
            Contacts::List(list) if list.is_empty() => return Ok(Wish::Query),
            Contacts::List(list) => list,
        };
        if list.len() > self.wire.config.max_registrations_per_account {
            return Err(refused(403));
        }
        let cseq = headers.cseq().map_err(|_| refused(400))?.0;
        let call_id = headers.call_id().map_err(|_| refused(400))?.to_owned();
        let mut devices = Vec::with_capacity(list.len());
        for contact in &list {
            let wanted_s = contact.expires().or(expires_s).unwrap_or(MAX_EXPIRES_S);
            if (1..MIN_EXPIRES_S).contains(&wanted_s) {
                let mut brief = refused(423);
                brief.headers.push(Name::MinExpires, MIN_EXPIRES_S.to_string());
                return Err(brief);
            }
            if !matches!(contact.uri.scheme, Scheme::Sip | Scheme::Sips) {
                return Err(refused(400));
            }
            let limit_s = if path.flow().is_some() { MAX_WS_EXPIRES_S } else { MAX_EXPIRES_S };
            let shown = Shown {
                instance: instance_of(who, contact),
                contact: contact.uri.to_string(),
                path,
                expires_s: wanted_s.min(limit_s),
                call_id: call_id.clone(),
                cseq,
            };
            if self.registrar.is_old(who, &shown) {
                return Err(refused(500));
            }
            devices.push(shown);
        }
        Ok(Wish::Set(devices))
    }

    /// Does it; the answer, and instance and contact of the devices that are here now.
    fn fulfil(
        &mut self,
        request: &Request,
        who: &Party,
        wish: Wish,
        now: Now,
    ) -> (Response, Vec<(String, String)>) {
        let mut here = Vec::new();
        match wish {
            Wish::Query => {}
            Wish::RemoveAll => self.unregister(who, "removed", now),
            Wish::Set(devices) => {
                for shown in devices {
                    if shown.expires_s > 0 {
                        here.push((shown.instance.clone(), shown.contact.clone()));
                    }
                    self.set_device(who, shown, now);
                }
            }
        }
        let mut response = self.stateless(request, 200);
        for binding in self.registrar.of(who) {
            let left_s = binding.expires_at.saturating_sub(now.mono_ms).div_ceil(1_000);
            let mut line = format!("<{}>;expires={left_s}", binding.contact);
            if binding.instance.starts_with("urn:") {
                line.push_str(&format!(";+sip.instance=\"<{}>\"", binding.instance));
            }
            response.headers.push(Name::Contact, line);
        }
        (response, here)
    }

    fn set_device(&mut self, who: &Party, shown: Shown, now: Now) {
        if shown.expires_s == 0 {
            if self.registrar.remove(who, &shown.instance) {
                self.wire.tell(Event::Unregistered { who: who.clone(), why: "removed" });
                self.gone(who, now);
            }
            return;
        }
        let before = self.registrar.newest(who).map(|binding| binding.path);
        let limit = self.wire.config.max_registrations_per_account;
        self.registrar.put(who, shown, limit, now);
        self.say_reached(who, now);
        if let Party::Trunk(name) = who {
            let after = self.registrar.newest(who).map(|binding| binding.path);
            self.gateway_changed(name, before != after, now);
        }
    }

    /// Says which device of the account is called from now on.
    pub(crate) fn say_reached(&mut self, who: &Party, now: Now) {
        let Some(binding) = self.registrar.newest(who) else { return };
        let left_ms = binding.expires_at.saturating_sub(now.mono_ms);
        let expires_s = u32::try_from(left_ms.div_ceil(1_000)).unwrap_or(u32::MAX);
        let (instance, path) = (binding.instance.clone(), binding.path);
        self.wire.tell(Event::Registered { who: who.clone(), instance, path, expires_s });
    }

    /// Where a device went and another of its account is left, that one is called.
    pub(crate) fn say_thinned(&mut self, now: Now) {
        for who in self.registrar.take_thinned() {
            self.say_reached(&who, now);
        }
    }

    /// The phone is reached another way now: its legs follow, and what waited for it goes out.
    fn move_legs(&mut self, who: &Party, instance: &str, contact: &str, path: Path, now: Now) {
        let mut moved = BTreeSet::<LegId>::new();
        let is_his =
            |leg: &Leg| leg.party == *who && leg.instance == instance && (leg.home != path || leg.lost);
        let his: Vec<LegId> = self.legs.iter().filter(|leg| is_his(leg)).map(|leg| leg.id).collect();
        for id in his {
            let Some(leg) = self.legs.get_mut(id) else { continue };
            if leg.home.flow().is_some() {
                leg.dialog.move_to(contact);
            }
            leg.home = path;
            leg.lost = false;
            self.wire.extend_session(leg, now);
            moved.insert(id);
        }
        self.wire.tx.reroute(&moved, path);
        if matches!(who, Party::Trunk(_)) {
            // A gateway at another place may have started anew and know none of its calls: it is asked.
            // What it does not know ends by 481; what it knows is refreshed by the same question.
            for id in moved {
                self.refresh_due(id, now);
            }
        }
    }

    /// An account's devices are taken away.
    pub(crate) fn unregister(&mut self, who: &Party, why: &'static str, now: Now) {
        if self.registrar.remove_all(who) {
            self.wire.tell(Event::Unregistered { who: who.clone(), why });
            self.gone(who, now);
        }
    }

    /// An account has no registration left.
    pub(crate) fn gone(&mut self, who: &Party, now: Now) {
        if let Party::Trunk(name) = who {
            self.gateway_changed(name, false, now);
        }
    }
}

/// Which of the account's devices it is. A gateway is one device: after a reboot it speaks from another
/// port, and its old contact must not ring beside the new one.
fn instance_of(who: &Party, contact: &NameAddr) -> String {
    match who {
        Party::Trunk(_) => String::new(),
        Party::Operator(_) => contact.instance().unwrap_or_else(|| contact.uri.to_string()),
    }
}
