//! Challenges to our own requests: a provider may ask who we are at any of them (RFC 3261 section 22).
//!
//! Invariant: a proof goes to the trunk whose account it is and to nobody else: the leg is that trunk's, the
//! challenge came from one of its servers, the realm is the account's, and within a call the request goes to
//! the provider itself and not to a callee that it only led us to. Everybody else's challenge is a refusal.

use super::super::Sip;
use super::super::digest::{choose, is_stale};
use super::super::leg::{LegTimer, Stage};
use super::super::message::{Method, Name, Request, Response};
use super::super::reply::reread;
use super::super::transaction::Purpose;
use super::super::uri::{Host, Uri};
use super::super::words::{Provider, TrunkKind};
use crate::fact::Party;
use crate::terms::{LegId, Now, TrunkName};

/// Proofs that one leg gives; who wants more wants something else.
const MAX_PROOFS: u8 = 8;

impl Sip {
    /// Answers a challenge to one of our requests by the same request with the proof; `false` where the
    /// challenge is a refusal like any other.
    pub(crate) fn prove(
        &mut self,
        client: u64,
        id: LegId,
        purpose: Purpose,
        response: &Response,
        now: Now,
    ) -> bool {
        let Some((name, request)) = self.may_prove(client, id, response) else { return false };
        let (asked, shown) = match response.code {
            401 => (Name::WwwAuthenticate, Name::Authorization),
            _ => (Name::ProxyAuthenticate, Name::ProxyAuthorization),
        };
        let Some(challenge) = choose(response.headers.challenges(&asked)) else { return false };
        let again = request.headers.has(&shown) && !is_stale(&challenge);
        if again || !self.trunks.trusts(&name, &challenge.text("realm").unwrap_or_default()) {
            return false;
        }
        let Some(TrunkKind::Provider(provider)) = self.trunks.get(&name).map(|account| &account.kind) else {
            return false;
        };
        let cnonce = self.wire.entropy.word();
        let uri = String::from_utf8_lossy(&request.uri).into_owned();
        let proof = provider.login.answer(&challenge, &request.method, &uri, &cnonce, 1);
        let Some(proof) = proof else { return false };
        self.ask_again(id, purpose, request, (shown, proof.to_string()), now)
    }

    /// Whose account may answer it, and the request that was challenged.
    fn may_prove(&self, client: u64, id: LegId, response: &Response) -> Option<(TrunkName, Request)> {
        if !matches!(response.code, 401 | 407) {
            return None;
        }
        let leg = self.legs.get(id).filter(|leg| leg.proofs < MAX_PROOFS)?;
        let Party::Trunk(name) = &leg.party else { return None };
        let TrunkKind::Provider(provider) = &self.trunks.get(name)?.kind else { return None };
        let outgoing = self.wire.tx.outgoing(client)?;
        let request = reread(&outgoing.request).filter(|request| request.method != Method::Cancel)?;
        let here = self.trunks.owns(name, outgoing.path()?.remote().ip());
        let within = request.headers.to().ok()?.tag().is_some();
        (here && (!within || self.is_provider(name, provider, &request))).then(|| (name.clone(), request))
    }

    /// Whether a request within a call goes to the provider's own machine.
    fn is_provider(&self, name: &TrunkName, provider: &Provider, request: &Request) -> bool {
        Uri::read(&request.uri).is_ok_and(|target| match target.host.ip() {
            Some(ip) => self.trunks.owns(name, ip),
            None => Host::read(&provider.domain).is_ok_and(|own| own.same(&target.host)),
        })
    }

    /// RFC 3261 section 22.2: the same request, the next number, the proof.
    fn ask_again(
        &mut self,
        id: LegId,
        purpose: Purpose,
        mut request: Request,
        (name, proof): (Name, String),
        now: Now,
    ) -> bool {
        let Some(leg) = self.legs.get_mut(id) else { return false };
        // A call that was given up meanwhile is not begun again.
        if leg.over && purpose != Purpose::End {
            return false;
        }
        leg.proofs = leg.proofs.saturating_add(1);
        let number = leg.dialog.next_number(&request.method);
        request.headers.remove_first(&Name::Via);
        request.headers.remove_all(&name);
        request.headers.set(Name::CSeq, format!("{number} {}", request.method));
        request.headers.push(name, proof);
        let begins = purpose == Purpose::Invite;
        if begins {
            leg.begin_again();
        }
        let is_change = purpose == Purpose::Change;
        let client = self.wire.ask(leg, request, purpose, now);
        if begins {
            leg.stage = Stage::Calling { client, heard: false, cancelled: false };
            leg.asked_at = now.mono_ms;
            self.wire.arm(leg, LegTimer::Silent, super::super::caller::SILENT_MS, now);
        } else if is_change {
            leg.changes.asked_again(client, number);
        }
        true
    }
}
