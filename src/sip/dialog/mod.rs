//! A dialog: what two ends agree on to find each other again (RFC 3261 section 12).
//!
//! Invariant: our CSeq only grows, also over a restore; a request of the peer whose CSeq does not grow
//! is never acted on; the route set is fixed by the first answer, the target moves with each Contact.

pub(crate) mod change;
pub(crate) mod fork;
pub(crate) mod refer;
pub(crate) mod refresh;
pub(crate) mod reliable;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::header::NameAddr;
use super::message::{Headers, Method, Name, Request};
use super::reply::{ALLOW, SUPPORTED};
use super::uri::Uri;
use super::{Config, Path};

/// How far CSeq jumps over a restore: requests that the writer sent after its last record.
pub(crate) const CSEQ_GAP: u32 = 100;
/// Longest route set that we keep.
const MAX_ROUTES: usize = 16;

/// One dialog, or the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dialog {
    /// Call-ID.
    pub(crate) call_id: String,
    /// Our tag.
    pub(crate) local_tag: String,
    /// The peer's tag; empty before its first answer.
    pub(crate) remote_tag: String,
    /// Our address with our tag, as in From of our requests.
    local: String,
    /// The peer's address without its tag.
    remote: String,
    /// CSeq of our last request.
    local_cseq: u32,
    /// CSeq of our last INVITE.
    pub(crate) invite_cseq: u32,
    /// CSeq of the peer's last request.
    remote_cseq: Option<u32>,
    /// The peer's Contact.
    target: String,
    /// Where requests pass through, nearest first.
    routes: Vec<String>,
}

impl Dialog {
    /// Of an INVITE that we are about to send to `target`.
    pub(crate) fn outgoing(
        call_id: String,
        local_tag: String,
        local: &NameAddr,
        remote: &NameAddr,
        target: String,
    ) -> Self {
        Self {
            call_id,
            local: local.clone().with_tag(&local_tag).to_string(),
            local_tag,
            remote_tag: String::new(),
            remote: remote.to_string(),
            local_cseq: 1,
            invite_cseq: 1,
            remote_cseq: None,
            target,
            routes: Vec::new(),
        }
    }

    /// Of an INVITE that came; `None` when it lacks what a dialog needs.
    pub(crate) fn incoming(invite: &Request, local_tag: String) -> Option<Self> {
        let headers = &invite.headers;
        let from = headers.from().ok()?;
        let contact = headers.contacts().ok()?.first()?.uri.to_string();
        let mut remote = from.clone();
        remote.params.remove("tag");
        Some(Self {
            call_id: headers.call_id().ok()?.to_owned(),
            local: headers.to().ok()?.with_tag(&local_tag).to_string(),
            local_tag,
            remote_tag: from.tag().unwrap_or_default().to_owned(),
            remote: remote.to_string(),
            local_cseq: 0,
            invite_cseq: 0,
            remote_cseq: headers.cseq().ok().map(|(number, _)| number),
            target: contact,
            routes: routes(headers, false),
        })
    }

    /// The beginning of another dialog of the same INVITE.
    pub(crate) fn sibling(&self) -> Self {
        let own = Self { remote_tag: String::new(), remote_cseq: None, routes: Vec::new(), ..self.clone() };
        Self { local_cseq: self.invite_cseq, ..own }
    }

    /// What an answer to our INVITE teaches: tag, target, routes (RFC 3261 section 12.1.2).
    pub(crate) fn learn(&mut self, headers: &Headers) {
        if let Some(tag) = headers.to().ok().and_then(|to| to.tag().map(str::to_owned)) {
            self.remote_tag = tag;
        }
        self.routes = routes(headers, true);
        self.retarget(headers);
    }

    /// Takes the peer's new Contact (RFC 3261 section 12.2).
    pub(crate) fn retarget(&mut self, headers: &Headers) {
        if let Some(contact) = headers.contacts().ok().and_then(|contacts| contacts.first().cloned()) {
            self.target = contact.uri.to_string();
        }
    }

    /// The phone registered anew: its Contact of now.
    pub(crate) fn move_to(&mut self, contact: &str) {
        if self.routes.is_empty() {
            contact.clone_into(&mut self.target);
        }
    }

    /// Whether the CSeq of a new request grows; notes it.
    pub(crate) fn sequence(&mut self, number: u32) -> bool {
        if self.remote_cseq.is_some_and(|last| number <= last) {
            return false;
        }
        self.remote_cseq = Some(number);
        true
    }

    /// Takes over the number of the INVITE that made it.
    pub(crate) fn number(&mut self, invite: u32) {
        self.local_cseq = invite;
        self.invite_cseq = invite;
    }

    /// Jumps over the numbers that the writer may have used after its last record.
    pub(crate) fn jump(&mut self) {
        self.local_cseq = self.local_cseq.saturating_add(CSEQ_GAP);
    }

    /// The number of our next request.
    pub(crate) fn next_number(&mut self, method: &Method) -> u32 {
        self.local_cseq = self.local_cseq.saturating_add(1);
        if *method == Method::Invite {
            self.invite_cseq = self.local_cseq;
        }
        self.local_cseq
    }

    /// The next request within the dialog, complete but for Via.
    pub(crate) fn request(&mut self, method: Method, home: &Path, config: &Config) -> Request {
        let number = self.next_number(&method);
        self.numbered(method, number, home, config)
    }

    /// The ACK to the 2xx that answered our INVITE number `number` (RFC 3261 section 13.2.2.4).
    pub(crate) fn ack(&self, number: u32, home: &Path, config: &Config) -> Request {
        self.numbered(Method::Ack, number, home, config)
    }

    /// The INVITE that begins the dialog.
    pub(crate) fn first(&self, home: &Path, config: &Config) -> Request {
        self.numbered(Method::Invite, self.local_cseq, home, config)
    }

    fn numbered(&self, method: Method, number: u32, home: &Path, config: &Config) -> Request {
        let (uri, routes) = self.hops();
        let mut request = Request::new(method.clone(), Bytes::from(uri));
        let headers = &mut request.headers;
        for route in routes {
            headers.push(Name::Route, route);
        }
        headers.push(Name::MaxForwards, "70");
        headers.push(Name::From, self.local.clone());
        let tag =
            if self.remote_tag.is_empty() { String::new() } else { format!(";tag={}", self.remote_tag) };
        headers.push(Name::To, format!("{}{tag}", self.remote));
        headers.push(Name::CallId, self.call_id.clone());
        headers.push(Name::CSeq, format!("{number} {method}"));
        if matches!(method, Method::Invite | Method::Update | Method::Ack) {
            headers.push(Name::Contact, contact(home));
        }
        if matches!(method, Method::Invite | Method::Update) {
            headers.push(Name::Allow, ALLOW);
            headers.push(Name::Supported, SUPPORTED);
        }
        headers.push(Name::UserAgent, config.user_agent.clone());
        request
    }

    /// Request-URI and Route lines (RFC 3261 section 12.2.1.1, strict routers included).
    fn hops(&self) -> (String, Vec<String>) {
        let first = self.routes.first().and_then(|route| NameAddr::read(route.as_bytes()).ok());
        match first {
            Some(first) if !first.uri.is_loose() => {
                let mut routes: Vec<String> = self.routes.iter().skip(1).cloned().collect();
                routes.push(format!("<{}>", self.target));
                (first.uri.to_string(), routes)
            }
            Some(_) | None => (self.target.clone(), self.routes.clone()),
        }
    }

    /// Where the next request goes by literal address, if the dialog says one.
    pub(crate) fn next_hop(&self) -> Option<Uri> {
        let hop = self.routes.first().map_or_else(
            || Uri::read(self.target.as_bytes()).ok(),
            |route| NameAddr::read(route.as_bytes()).ok().map(|route| route.uri),
        )?;
        hop.host.ip().map(|_| hop)
    }
}

fn routes(headers: &Headers, reversed: bool) -> Vec<String> {
    let lines = headers.list(&Name::RecordRoute).take(MAX_ROUTES);
    let mut routes: Vec<String> = lines.map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    if reversed {
        routes.reverse();
    }
    routes
}

/// Our Contact on this way.
pub(crate) fn contact(home: &Path) -> String {
    let mut uri = Uri::at(Some("tandem"), home.local());
    if home.flow().is_some() {
        uri.params.set("transport", Some("ws"));
    }
    NameAddr::new(uri).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::sip::reply::reread;

    fn invite() -> Request {
        let text = "INVITE sip:2@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nRecord-Route: <sip:192.0.2.1;lr>, <sip:192.0.2.2;lr>\r\n\
            From: \"X\" <sip:x@y>;tag=1\r\nTo: <sip:2@b>\r\nContact: <sip:x@192.0.2.9:5070>\r\nCall-ID: c\r\nCSeq: 7 INVITE\r\n\r\n";
        reread(&Bytes::from_static(text.as_bytes())).unwrap()
    }

    fn home() -> Path {
        Path::Udp { remote: "192.0.2.1:5060".parse().unwrap(), local: "192.0.2.3:5060".parse().unwrap() }
    }

    #[test]
    fn a_callee_keeps_the_order_of_record_route_and_a_caller_turns_it() {
        let mut dialog = Dialog::incoming(&invite(), "t".into()).unwrap();
        let bye = dialog.request(Method::Bye, &home(), &Config::default());
        let routes: Vec<_> = bye.headers.all(&Name::Route).cloned().collect();
        assert_eq!(routes, ["<sip:192.0.2.1;lr>", "<sip:192.0.2.2;lr>"]);
        assert_eq!(&bye.uri[..], b"sip:x@192.0.2.9:5070");
        assert_eq!(bye.headers.first(&Name::To), Some(&b"\"X\" <sip:x@y>;tag=1"[..]));
        assert_eq!(bye.headers.first(&Name::From), Some(&b"<sip:2@b>;tag=t"[..]));
        dialog.learn(&invite().headers);
        assert_eq!(dialog.routes, ["<sip:192.0.2.2;lr>", "<sip:192.0.2.1;lr>"]);
        assert_eq!(dialog.next_hop().unwrap().to_string(), "sip:192.0.2.2;lr");
    }

    #[test]
    fn a_strict_router_takes_the_request_uri() {
        let mut dialog = Dialog::incoming(&invite(), "t".into()).unwrap();
        dialog.routes = vec!["<sip:192.0.2.1>".into()];
        let (uri, routes) = dialog.hops();
        assert_eq!((uri.as_str(), routes), ("sip:192.0.2.1", vec!["<sip:x@192.0.2.9:5070>".to_owned()]));
    }

    #[test]
    fn the_peers_numbers_must_grow() {
        let mut dialog = Dialog::incoming(&invite(), "t".into()).unwrap();
        assert!(!dialog.sequence(7));
        assert!(dialog.sequence(8));
        assert!(!dialog.sequence(8));
        assert!(dialog.sequence(100));
    }
}
