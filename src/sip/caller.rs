//! Legs that we begin: INVITE out, and whatever comes back (RFC 3261 section 13.2).
//!
//! Invariant: an INVITE that we gave up never becomes a call: a 200 that crosses our CANCEL gets ACK and
//! BYE, and so does every fork but the first.

use bytes::Bytes;

use super::cause::{self, cause, reason_of};
use super::dialog::Dialog;
use super::dialog::change::ask_timer;
use super::dialog::fork::{Early, MAX_FORKS};
use super::dialog::refresh::Refresh;
use super::dialog::reliable::{OPTION, Reliable};
use super::header::NameAddr;
use super::leg::{Leg, LegTimer, Stage};
use super::message::{Headers, Method, Name, Request, Response};
use super::profile::{Profile, Refused, of_refusal};
use super::reply::{SUPPORTED, reread};
use super::transaction::timer::{Armed, GIVE_UP_MS};
use super::transaction::{Heard, Purpose};
use super::uri::{Host, Uri};
use super::wire::with_sdp;
use super::words::{Provider, TrunkKind};
use super::{Event, Path, Sip, Way};
use crate::fact::{Cause, Party};
use crate::terms::{LegId, Now, Number, TrunkName};

/// How long an INVITE may stay without any answer before the next way is tried.
pub(crate) const SILENT_MS: u64 = 4_000;
/// Timer C must not be shorter than this makes sense, and not longer than this is patient.
const MAX_RING_MS: u64 = 600_000;
/// The longest number taken from a 3xx.
const MAX_REDIRECTED: usize = 32;
/// How often an INVITE is sent anew after 422.
const MAX_RETRIES: u8 = 2;
/// Names that an INVITE of ours sets itself; the call centre cannot.
const OURS: [Name; 14] = [
    Name::Via,
    Name::From,
    Name::To,
    Name::CallId,
    Name::CSeq,
    Name::Contact,
    Name::MaxForwards,
    Name::Route,
    Name::RecordRoute,
    Name::ContentLength,
    Name::ContentType,
    Name::Supported,
    Name::Allow,
    Name::SessionExpires,
];

/// What the call centre asks for.
pub(crate) struct Wanted {
    pub(crate) leg: LegId,
    pub(crate) to: Party,
    pub(crate) number: Number,
    pub(crate) show: Number,
    pub(crate) display: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) sdp: Bytes,
    pub(crate) ring_ms: u64,
}

/// Where a party is reached.
struct Place {
    path: Path,
    instance: String,
    target: Uri,
    remote: Uri,
}

impl Sip {
    /// Begins a leg.
    pub(crate) fn invite(&mut self, wanted: Wanted, now: Now) {
        let id = wanted.leg;
        if self.legs.len() >= self.wire.config.max_dialogs
            || self.wire.tx.len() >= self.wire.config.max_transactions
        {
            return self.cannot(id, 503, Way::Way, "too many calls");
        }
        let Some(place) = self.place(&wanted.to, &wanted.number) else {
            return self.cannot(id, 480, Way::Way, "not registered");
        };
        if self.legs.get(id).is_some() {
            return;
        }
        self.next_leg = self.next_leg.max(id.0);
        let mut leg = self.begin(&wanted, place);
        let mut invite = leg.dialog.first(&leg.home, &self.wire.config);
        ask_timer(&mut invite, self.wire.config.session_expires_s, &self.wire);
        if self.offers_prack(&wanted.to) {
            invite.headers.set(Name::Supported, format!("{SUPPORTED}, {OPTION}"));
        }
        self.identify_caller(&wanted, &mut invite.headers);
        with_sdp(&mut invite.headers, &mut invite.body, &wanted.sdp);
        self.send_invite(&mut leg, invite, now);
        self.wire.arm(&mut leg, LegTimer::Ring, wanted.ring_ms.clamp(1_000, MAX_RING_MS), now);
        self.wire.arm(&mut leg, LegTimer::Silent, SILENT_MS, now);
        self.legs.insert(leg);
    }

    /// Browsers are not asked for PRACK: JsSIP does not know it.
    fn offers_prack(&self, to: &Party) -> bool {
        match to {
            Party::Trunk(name) => self.trunks.get(name).is_some_and(|account| account.prack),
            Party::Operator(_) => false,
        }
    }

    fn cannot(&mut self, leg: LegId, code: u16, way: Way, words: &str) {
        let cause = Cause { q850: cause::q850_of(code), sip: code, words: words.to_owned() };
        self.wire.tell(Event::Failed { leg, code, cause, way });
    }

    fn begin(&mut self, wanted: &Wanted, place: Place) -> Leg {
        let account = self.account_at(&wanted.to);
        let domain = account.map_or(&self.wire.config.domain, |provider| &provider.domain);
        let domain = Host::read(domain).unwrap_or(Host::from(place.path.local().ip()));
        let mut local = if let (true, Some(provider)) = (wanted.show.is_withheld(), account) {
            // Nothing to show: the account itself, as the provider knows it.
            NameAddr::new(Uri::sip(Some(&provider.login.user), domain, None))
        } else if wanted.show.is_withheld() {
            // RFC 3323 section 4.1.
            let mut nobody =
                NameAddr::new(Uri::sip(Some("anonymous"), Host::Name("anonymous.invalid".to_owned()), None));
            nobody.display = Some("Anonymous".to_owned());
            nobody
        } else {
            NameAddr::new(Uri::sip(Some(wanted.show.reveal()), domain, None))
        };
        if !wanted.display.is_empty() {
            local.display = Some(wanted.display.clone());
        }
        let call_id = format!("{}{}", self.wire.entropy.word(), self.wire.entropy.word());
        let tag = self.wire.new_tag(wanted.leg);
        let remote = NameAddr::new(place.remote);
        let dialog = Dialog::outgoing(call_id, tag, &local, &remote, place.target.to_string());
        let stage = Stage::Calling { client: 0, heard: false, cancelled: false };
        let mut leg = new_leg(wanted.leg, wanted.to.clone(), place.instance, place.path, dialog, stage);
        leg.outgoing = true;
        leg.local_sdp = wanted.sdp.clone();
        leg
    }

    /// Our account, if the party is a provider.
    fn account_at(&self, party: &Party) -> Option<&Provider> {
        let Party::Trunk(name) = party else { return None };
        match &self.trunks.get(name)?.kind {
            TrunkKind::Provider(provider) => Some(provider),
            TrunkKind::Gateway { .. } | TrunkKind::Peer { .. } => None,
        }
    }

    /// Where the party can be called now.
    fn place(&self, to: &Party, number: &Number) -> Option<Place> {
        let domain = Host::read(&self.wire.config.domain).ok();
        match to {
            Party::Operator(name) => {
                let binding = self.registrar.newest(to)?;
                let target = Uri::read(binding.contact.as_bytes()).ok()?;
                let remote = Uri::sip(Some(name.as_str()), domain.unwrap_or(target.host.clone()), None);
                Some(Place { path: binding.path, instance: binding.instance.clone(), target, remote })
            }
            Party::Trunk(name) => {
                let (path, host, port) = match &self.trunks.get(name)?.kind {
                    TrunkKind::Gateway { .. } => {
                        let binding = self.registrar.newest(to)?;
                        let contact = Uri::read(binding.contact.as_bytes()).ok()?;
                        (binding.path, contact.host, contact.port)
                    }
                    TrunkKind::Peer { server } => {
                        let remote = (*server)?;
                        let path = Path::Udp { remote, local: self.wire.config.udp };
                        (path, Host::from(remote.ip()), Some(remote.port()))
                    }
                    TrunkKind::Provider(provider) => {
                        let remote = self.trunks.registered_at(name)?;
                        let path = Path::Udp { remote, local: self.wire.config.udp };
                        (path, Host::read(&provider.domain).unwrap_or(Host::from(remote.ip())), None)
                    }
                };
                let target = Uri::sip(Some(number.reveal()), host.clone(), port);
                let remote = Uri::sip(Some(number.reveal()), host, port);
                Some(Place { path, instance: String::new(), target, remote })
            }
        }
    }

    /// Who calls, for phones and gateways that look beyond From; and what the call centre adds.
    fn identify_caller(&self, wanted: &Wanted, headers: &mut Headers) {
        let account = self.account_at(&wanted.to);
        let domain = account.map_or(&self.wire.config.domain, |provider| &provider.domain);
        if wanted.show.is_withheld() {
            if account.is_none() {
                headers.push(Name::Privacy, "id");
            }
        } else if let Ok(domain) = Host::read(domain) {
            let identity = NameAddr::new(Uri::sip(Some(wanted.show.reveal()), domain, None));
            headers.push(Name::PAssertedIdentity, identity.to_string());
        }
        for (name, value) in &wanted.headers {
            let name = Name::read(name.as_bytes());
            if !OURS.contains(&name) {
                headers.push(name, value.clone());
            }
        }
    }

    fn send_invite(&mut self, leg: &mut Leg, invite: Request, now: Now) {
        let client = self.wire.ask(leg, invite, Purpose::Invite, now);
        leg.stage = Stage::Calling { client, heard: false, cancelled: false };
        if matches!(leg.party, Party::Trunk(_)) {
            let to = leg.home.remote().ip().to_canonical();
            self.wire.tell(Event::InviteSent { leg: leg.id, to });
        }
        leg.asked_at = now.mono_ms;
    }

    /// What became of our INVITE.
    pub(crate) fn invite_heard(&mut self, id: LegId, client: u64, heard: Heard, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else {
            return self.late_answer(id, client, &heard, now);
        };
        let calling = matches!(leg.stage, Stage::Calling { client: current, .. } if current == client);
        match heard {
            Heard::Response(response) if !calling => self.another_200(id, client, &response, now),
            Heard::Response(response) if response.code < 200 => self.progressed(id, &response, now),
            Heard::Response(response) if response.code < 300 => self.accepted(id, &response, now),
            Heard::Response(response) => self.refused(id, client, &response, now),
            Heard::TimeOut if calling => {
                self.wire.fail(leg, 408, no_reply(), Way::Way);
                self.remove(id);
            }
            Heard::TimeOut => {}
        }
    }

    fn progressed(&mut self, id: LegId, response: &Response, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        self.wire.disarm(leg, &[LegTimer::Silent]);
        if let Stage::Calling { heard, .. } = &mut leg.stage {
            *heard = true;
        }
        if leg.over {
            return self.cancel(id, now);
        }
        if response.code == 100 || response.headers.to().is_ok_and(|to| to.tag().is_none()) {
            return;
        }
        if !leg.focus(&response.headers) {
            return self.wire.drop_it("too many forks");
        }
        self.follow_route(id);
        let Some(leg) = self.legs.get_mut(id) else { return };
        if !self.wire.confirm(leg, response, now) {
            return;
        }
        if !response.body.is_empty() {
            if response.body != leg.early.sdp {
                leg.early.sdp = response.body.clone();
                self.wire.tell(Event::EarlyMedia { leg: id, sdp: response.body.clone() });
            }
        } else if matches!(response.code, 180 | 183) && !leg.rung {
            leg.rung = true;
            self.wire.tell(Event::Rang { leg: id });
        }
    }

    fn accepted(&mut self, id: LegId, response: &Response, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        self.wire.disarm(leg, &[LegTimer::Silent, LegTimer::Ring, LegTimer::GiveUp]);
        if !leg.focus(&response.headers) {
            leg.dialog = leg.dialog.sibling();
            leg.early = Early::default();
            leg.dialog.learn(&response.headers);
        }
        leg.forks.clear();
        leg.stage = Stage::Up;
        self.follow_route(id);
        let Some(leg) = self.legs.get_mut(id) else { return };
        let number = leg.dialog.invite_cseq;
        self.wire.ack(leg, number);
        if leg.over {
            // Our CANCEL crossed the answer.
            return self.wire.bye(leg, now);
        }
        // A gateway may have answered our offer in 183 and leave it out of the 200.
        let sdp = if response.body.is_empty() { leg.early.sdp.clone() } else { response.body.clone() };
        if sdp.is_empty() {
            let mut why = cause(79, 488);
            "answered without a description".clone_into(&mut why.words);
            leg.why = Some(why.clone());
            self.wire.fail(leg, 488, why, Way::Way);
            return self.wire.bye(leg, now);
        }
        leg.remote_sdp = sdp.clone();
        leg.refresh.agreed(&response.headers, &self.wire.config);
        self.wire.arm_refresh(leg, now);
        self.wire.tell(Event::Answered { leg: id, sdp });
    }

    fn refused(&mut self, id: LegId, client: u64, response: &Response, now: Now) {
        if response.code == 422 && self.ask_longer(id, client, response, now) {
            return;
        }
        if self.prove(client, id, Purpose::Invite, response, now) {
            return;
        }
        let Some(leg) = self.legs.get_mut(id) else { return };
        if let (false, 300..=399, Some(to)) = (leg.over, response.code, redirected_to(&response.headers)) {
            self.wire.tell(Event::Redirected { leg: id, to });
        }
        let profile = match &leg.party {
            Party::Trunk(name) => self.trunks.get(name).map(|account| account.profile).unwrap_or_default(),
            Party::Operator(_) => Profile::Generic,
        };
        let after_ms = now.mono_ms.saturating_sub(leg.asked_at);
        let rang = leg.rung || !leg.early.sdp.is_empty();
        let (why, way) = of_refusal(response, Refused { profile, after_ms, rang });
        self.wire.fail(leg, response.code, why, way);
        self.remove(id);
    }

    /// RFC 4028 section 7.3: the same INVITE with the interval that the peer wants.
    fn ask_longer(&mut self, id: LegId, client: u64, response: &Response, now: Now) -> bool {
        let kept = self.wire.tx.outgoing(client).map(|outgoing| outgoing.request.clone());
        let least = response.headers.min_se().ok().flatten();
        let (Some(kept), Some(least), Some(leg)) = (kept, least, self.legs.get_mut(id)) else { return false };
        let Some(old) = reread(&kept) else { return false };
        if leg.over || leg.retries >= MAX_RETRIES {
            return false;
        }
        leg.retries = leg.retries.saturating_add(1);
        leg.begin_again();
        let mut invite = self.wire.request(leg, Method::Invite);
        if old.headers.lists(&Name::Supported, OPTION) {
            invite.headers.set(Name::Supported, format!("{SUPPORTED}, {OPTION}"));
        }
        Refresh::ask(&mut invite.headers, least.max(self.wire.config.session_expires_s), &self.wire.config);
        let have = invite.headers.clone();
        let made_anew = [Name::Via, Name::ContentLength];
        for header in old.headers.iter() {
            if !have.has(header.name()) && !made_anew.contains(header.name()) {
                invite.headers.push_header(header.clone());
            }
        }
        invite.body = old.body;
        let client = self.wire.ask(leg, invite, Purpose::Invite, now);
        leg.stage = Stage::Calling { client, heard: false, cancelled: false };
        self.wire.arm(leg, LegTimer::Silent, SILENT_MS, now);
        true
    }

    /// A 2xx after the first: repeated, or of another fork.
    fn another_200(&mut self, id: LegId, client: u64, response: &Response, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Some(tag) = response.headers.to().ok().and_then(|to| to.tag().map(str::to_owned)) else { return };
        if tag == leg.dialog.remote_tag {
            let number = response.headers.cseq().map_or(0, |(number, _)| number);
            if let (Some((acked, bytes)), Some(path)) = (&leg.ack, leg.way())
                && *acked == number
            {
                self.wire.tx.send(path, bytes.clone());
            }
            return;
        }
        if leg.sent_away.contains(&tag) || leg.sent_away.len() >= MAX_FORKS {
            return;
        }
        leg.sent_away.push(tag);
        self.late_answer(id, client, &Heard::Response(response.clone()), now);
    }

    /// A 2xx of a fork, or for a leg that is gone.
    fn late_answer(&mut self, id: LegId, client: u64, heard: &Heard, now: Now) {
        let Heard::Response(response) = heard else { return };
        let Some(outgoing) = self.wire.tx.outgoing(client) else { return };
        let (Some(invite), Some(home)) = (reread(&outgoing.request), outgoing.path()) else { return };
        if !(200..300).contains(&response.code) {
            return;
        }
        if let Some(mut dialog) = fork(&invite, response) {
            self.wire.send_away(&mut dialog, id, home, now);
        }
    }

    /// The call centre gives the call up, or it has rung long enough.
    pub(crate) fn give_up(&mut self, id: LegId, code: u16, why: Cause, way: Way, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        leg.why.get_or_insert_with(|| why.clone());
        self.wire.fail(leg, code, why, way);
        self.wire.disarm(leg, &[LegTimer::Ring, LegTimer::Silent]);
        if matches!(leg.stage, Stage::Calling { heard: true, .. }) {
            self.cancel(id, now);
        }
    }

    /// RFC 3261 section 9.1: CANCEL only after a provisional answer, and not for ever.
    fn cancel(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        if let Stage::Calling { client, cancelled, .. } = &mut leg.stage
            && !std::mem::replace(cancelled, true)
        {
            let reason = leg.why.as_ref().map(|why| reason_of(why).1);
            self.wire.tx.cancel(*client, reason, now);
            self.wire.arm(leg, LegTimer::GiveUp, GIVE_UP_MS, now);
        }
    }

    /// It has rung long enough.
    pub(crate) fn ring_over(&mut self, id: LegId, now: Now) {
        let why = Cause { q850: 19, sip: 408, words: "nobody answered".to_owned() };
        self.give_up(id, 408, why, Way::Person, now);
    }

    /// Nothing at all came back.
    pub(crate) fn silent(&mut self, id: LegId, now: Now) {
        self.give_up(id, 408, no_reply(), Way::Way, now);
        if let Some(Party::Trunk(name)) = self.legs.get(id).map(|leg| leg.party.clone()) {
            self.suspect(&name, now);
        }
    }

    /// A trunk died: calls that only ring there go another way; those that talk go on while they sound.
    pub(crate) fn ringing_died(&mut self, name: &TrunkName, now: Now) {
        let party = Party::Trunk(name.clone());
        let rings =
            |leg: &&Leg| leg.party == party && !leg.over && matches!(leg.stage, Stage::Calling { .. });
        let ids: Vec<LegId> = self.legs.iter().filter(rings).map(|leg| leg.id).collect();
        for id in ids {
            self.give_up(id, 408, no_reply(), Way::Way, now);
        }
    }

    /// The cancelled INVITE got no final answer.
    pub(crate) fn cancel_over(&mut self, id: LegId) {
        let Some(leg) = self.legs.get(id) else { return };
        if let Stage::Calling { client, .. } = leg.stage {
            self.wire.tx.abandon(client);
            self.remove(id);
        }
    }
}

/// The number that a 3xx names first; another kind of place leads nowhere.
fn redirected_to(headers: &Headers) -> Option<String> {
    let contacts = headers.contacts().ok()?;
    let digits = contacts.first()?.uri.user_digits()?;
    (!digits.is_empty() && digits.len() <= MAX_REDIRECTED).then_some(digits)
}

fn no_reply() -> Cause {
    cause(102, 408)
}

/// A leg with nothing in it yet.
pub(crate) fn new_leg(
    id: LegId,
    party: Party,
    instance: String,
    home: Path,
    dialog: Dialog,
    stage: Stage,
) -> Leg {
    Leg {
        id,
        party,
        instance,
        home,
        lost: false,
        outgoing: false,
        dialog,
        stage,
        over: false,
        why: None,
        rung: false,
        early: Early::default(),
        forks: Vec::new(),
        reliable: Reliable::default(),
        local_sdp: Bytes::new(),
        remote_sdp: Bytes::new(),
        unacked: None,
        ack: None,
        sent_away: Vec::new(),
        retries: 0,
        asked_at: 0,
        proofs: 0,
        changes: super::dialog::change::Changes::default(),
        referral: None,
        refresh: Refresh::default(),
        armed: Armed::default(),
    }
}

/// The dialog that a stray 2xx made.
fn fork(invite: &Request, response: &Response) -> Option<Dialog> {
    let headers = &invite.headers;
    let mut local = headers.from().ok()?;
    let tag = local.tag()?.to_owned();
    local.params.remove("tag");
    let (remote, target) = (headers.to().ok()?, String::from_utf8_lossy(&invite.uri).into_owned());
    let mut dialog = Dialog::outgoing(headers.call_id().ok()?.to_owned(), tag, &local, &remote, target);
    dialog.number(headers.cseq().ok()?.0);
    // It may have had PRACKs with numbers of their own.
    dialog.jump();
    dialog.learn(&response.headers);
    Some(dialog)
}
