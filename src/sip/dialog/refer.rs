//! REFER within a call: the peer asks that we connect his call elsewhere (RFC 3515), perhaps in place of
//! another dialog that he has with us (RFC 3891), and is told by NOTIFY what became of it.
//!
//! Invariant: only the user part of Refer-To is used, and only when its host is ours: nobody aims our calls
//! at other machines. One REFER of a leg is under way at a time, and it ends with one final NOTIFY.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::header::NameAddr;
use super::super::leg::{Leg, Stage};
use super::super::message::{Headers, Method, Name, Request, default_reason};
use super::super::transaction::Purpose;
use super::super::uri::{Host, Scheme, Uri, unescape};
use super::super::{Event, Sip};
use super::contact;
use crate::terms::{LegId, Now};

/// The longest number or name taken from Refer-To, characters.
const MAX_TARGET: usize = 64;
/// How long the subscription that a REFER makes may last, seconds.
const LASTS_S: u32 = 180;

/// A REFER that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Referral {
    /// Its transaction, until it is answered.
    server: Option<u64>,
    /// Its CSeq, which names it in NOTIFY (RFC 3515 section 2.4.6).
    id: u32,
}

/// What `Replaces` names: Call-ID and both tags.
struct Replaced {
    call_id: String,
    tags: [String; 2],
}

impl Replaced {
    /// Reads `call-id;to-tag=…;from-tag=…`.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let call_id = parts.next().filter(|id| !id.is_empty())?.to_owned();
        let (mut to, mut from) = (None, None);
        for part in parts {
            match part.split_once('=') {
                Some(("to-tag", tag)) => to = Some(tag.to_owned()),
                Some(("from-tag", tag)) => from = Some(tag.to_owned()),
                Some(_) | None => {}
            }
        }
        Some(Self { call_id, tags: [to?, from?] })
    }
}

impl Sip {
    /// The leg that `Replaces` names. Which tag is whose depends on who is asked to replace whom; ours is
    /// the one that is ours.
    fn replaced(&self, wanted: &Replaced) -> Option<LegId> {
        let [one, other] = &wanted.tags;
        let fits = |leg: &&Leg| {
            let dialog = &leg.dialog;
            let tags = (&dialog.local_tag, &dialog.remote_tag);
            dialog.call_id == wanted.call_id && (tags == (one, other) || tags == (other, one)) && leg.is_up()
        };
        self.legs.iter().find(fits).map(|leg| leg.id)
    }

    /// The leg that the `Replaces` of an INVITE names; `Err` when there is none such (RFC 3891 section 3).
    pub(crate) fn replaces(&self, invite: &Headers) -> Result<Option<LegId>, u16> {
        let Some(value) = invite.text(&Name::Replaces) else { return Ok(None) };
        let wanted = Replaced::read(value).ok_or(400_u16)?;
        self.replaced(&wanted).map(Some).ok_or(481)
    }

    /// A REFER came.
    pub(crate) fn refer_came(&mut self, id: LegId, server: u64, request: &Request, now: Now) {
        let Some(leg) = self.legs.get(id) else { return };
        let busy = leg.referral.is_some() || leg.stage != Stage::Up || leg.over;
        let wanted = if busy { Err(491) } else { self.target_of(leg, &request.headers) };
        let Some(leg) = self.legs.get_mut(id) else { return };
        match wanted {
            Err(code) => self.wire.answer_plainly(leg, server, code, now),
            Ok((to, replaces)) => {
                let number = request.headers.cseq().map_or(0, |(number, _)| number);
                leg.referral = Some(Referral { server: Some(server), id: number });
                self.wire.tell(Event::Referred { leg: id, to, replaces });
            }
        }
    }

    /// Whom a REFER names, or the status that says what is wrong with it.
    fn target_of(&self, leg: &Leg, headers: &Headers) -> Result<(String, Option<LegId>), u16> {
        let mut targets = headers.all(&Name::ReferTo);
        let (Some(target), None) = (targets.next(), targets.next()) else { return Err(400) };
        let uri = NameAddr::read(target).map_err(|_| 400_u16)?.uri;
        let ours = match &uri.scheme {
            Scheme::Tel => true,
            Scheme::Sip | Scheme::Sips => self.is_our_host(leg, &uri),
            Scheme::Other(_) => return Err(416),
        };
        let to: String = uri.user_text().unwrap_or_default().chars().take(MAX_TARGET).collect();
        if !ours || to.is_empty() {
            return Err(403);
        }
        let fields = uri.headers.as_deref().unwrap_or_default().split('&');
        let replaces = fields
            .filter_map(|field| field.split_once('='))
            .find(|(name, _)| name.eq_ignore_ascii_case("Replaces"));
        let Some((_, value)) = replaces else { return Ok((to, None)) };
        let wanted = Replaced::read(&unescape(value)).ok_or(400_u16)?;
        // A party replaces only what is his own (RFC 3891 section 5).
        let own = self.replaced(&wanted).filter(|other| {
            *other != leg.id && self.legs.get(*other).is_some_and(|other| other.party == leg.party)
        });
        own.map(|own| (to, Some(own))).ok_or(481)
    }

    fn is_our_host(&self, leg: &Leg, uri: &Uri) -> bool {
        let domain = Host::read(&self.wire.config.domain);
        let here = leg.home.local().ip();
        domain.is_ok_and(|domain| domain.same(&uri.host)) || uri.host.ip() == Some(here)
    }

    /// The call centre takes the REFER (202), or not.
    pub(crate) fn answer_refer(&mut self, id: LegId, code: u16, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Some(server) = leg.referral.as_mut().and_then(|referral| referral.server.take()) else { return };
        if code != 202 {
            leg.referral = None;
            return self.wire.answer_plainly(
                leg,
                server,
                if (300..700).contains(&code) { code } else { 403 },
                now,
            );
        }
        if let Some(mut response) = self.wire.response(leg, server, 202) {
            response.headers.push(Name::Contact, contact(&leg.home));
            self.wire.answer(leg, server, &response, now);
        }
        self.refer_progress(id, 100, now);
    }

    /// Tells the peer what became of it; from 200 on it is the last word.
    pub(crate) fn refer_progress(&mut self, id: LegId, code: u16, now: Now) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Some(referral) = leg.referral.clone().filter(|_| leg.is_up()) else { return };
        let last = code >= 200;
        let state = if last {
            "terminated;reason=noresource".to_owned()
        } else {
            format!("active;expires={LASTS_S}")
        };
        let mut notify = self.wire.request(leg, Method::Notify);
        notify.headers.push(Name::Contact, contact(&leg.home));
        notify.headers.push(Name::Event, format!("refer;id={}", referral.id));
        notify.headers.push(Name::SubscriptionState, state);
        notify.headers.push(Name::ContentType, "message/sipfrag;version=2.0");
        notify.body = Bytes::from(format!("SIP/2.0 {code} {}\r\n", default_reason(code)));
        if last {
            leg.referral = None;
        }
        self.wire.ask(leg, notify, Purpose::Info, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_names_a_dialog_only_with_both_tags() {
        let read = |text: &str| Replaced::read(text).map(|one| (one.call_id, one.tags));
        let tags = ["a".to_owned(), "b".to_owned()];
        assert_eq!(read("x@y;to-tag=a;from-tag=b"), Some(("x@y".to_owned(), tags.clone())));
        assert_eq!(read("x@y ; from-tag=b ;early-only; to-tag=a"), Some(("x@y".to_owned(), tags)));
        for bad in ["", "x@y", "x@y;to-tag=a", ";to-tag=a;from-tag=b", "x;to-tag;from-tag=b"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
