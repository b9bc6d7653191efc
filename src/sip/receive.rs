//! What comes over the wire: read, matched to its transaction, and if it is new, to its leg or its sender.
//!
//! Invariant: garbage, repeats and strangers leave no state behind; whatever can be answered is answered
//! as RFC 3261 section 8.2 says, in its order.

use bytes::Bytes;

use super::auth::Login;
use super::dialog::refresh::Refresh;
use super::dialog::reliable::OPTION;
use super::leg::Stage;
use super::message::{Headers, Message, Method, Name, ReadError, Request};
use super::reply::{ALLOW, SDP, SUPPORTED, stateless_tag};
use super::transaction::{merge_key, server_key};
use super::uri::{Scheme, Uri};
use super::{Path, Sip};
use crate::fact::Party;
use crate::terms::{FlowId, LegId, Now};

/// What a caller is told to wait when we are full, seconds.
const RETRY_AFTER_S: &str = "5";

/// Extensions that may be required of us.
const EXTENSIONS: [&str; 3] = ["timer", "replaces", OPTION];

/// Who begins a dialog.
enum Caller {
    Known(Party, String),
    Challenge { stale: bool },
    Refused { why: &'static str, guessed: bool },
}

impl Sip {
    /// A datagram or WebSocket message came.
    pub(crate) fn received(&mut self, path: Path, bytes: &Bytes, now: Now) {
        self.wire.asked_len = bytes.len();
        match Message::read_datagram(bytes) {
            Ok(Message::Request(request)) => self.request_came(request, path, now),
            Ok(Message::Response(response)) => {
                if let Some(heard) = self.wire.tx.response(response, &path, now) {
                    self.heard(heard, now);
                }
            }
            Err(ReadError::KeepAlive) => {}
            Err(ReadError::TooLong) => self.wire.drop_it("too long"),
            Err(ReadError::Unanswerable(_)) => self.wire.drop_it("malformed"),
            Err(ReadError::Bad { partial, code, why }) => {
                let mut request = *partial;
                note_source(&mut request.headers, &path);
                let mut response = self.stateless(&request, code);
                response.reason = Bytes::from_static(why.as_bytes());
                self.send_stateless(&path, &response);
            }
        }
    }

    fn request_came(&mut self, mut request: Request, path: Path, now: Now) {
        let Ok(via) = request.headers.via_top() else { return self.wire.drop_it("malformed") };
        note_source(&mut request.headers, &path);
        if request.method == Method::Ack {
            // RFC 3261 section 17.1.1.3: the ACK to a refusal has the INVITE's branch.
            match self.wire.tx.find(&server_key(&request, &via, &Method::Invite)) {
                Some(id) if self.wire.tx.is_refused(id) => self.wire.tx.acknowledged(id, now),
                Some(_) | None => self.ack_came(&request, &path, now),
            }
            return;
        }
        let key = server_key(&request, &via, &request.method);
        if let Some(id) = self.wire.tx.find(&key) {
            return self.wire.tx.again(id, now);
        }
        if request.method == Method::Cancel {
            let invite = self.wire.tx.find(&server_key(&request, &via, &Method::Invite));
            return self.cancel_came(&request, invite, &path, now);
        }
        if self.wire.tx.len() >= self.wire.config.max_transactions {
            return self.full(&request, &path);
        }
        if request.headers.to().is_ok_and(|to| to.tag().is_some()) {
            return self.within(&request, key, path, now);
        }
        match self.check(&request) {
            Some(code) => self.refuse_with_reason(&request, &path, code),
            None => self.outside(&request, key, path, now),
        }
    }

    fn full(&mut self, request: &Request, path: &Path) {
        let mut response = self.stateless(request, 503);
        response.headers.push(Name::RetryAfter, RETRY_AFTER_S);
        self.send_stateless(path, &response);
    }

    /// RFC 3261 section 9.2. A CANCEL cannot be challenged, so it must come the way the INVITE came.
    fn cancel_came(&mut self, request: &Request, invite: Option<u64>, path: &Path, now: Now) {
        let found = invite.and_then(|id| {
            self.wire.tx.incoming(id).map(|incoming| (incoming.leg, incoming.path, incoming.is_open()))
        });
        let his_socket = |leg: Option<LegId>| {
            let owner = path.flow().and_then(|flow| self.registrar.on_flow(flow)).map(|(who, _)| who);
            owner.is_some() && leg.and_then(|leg| self.legs.get(leg)).map(|leg| &leg.party) == owner
        };
        let is_his =
            |(leg, from, _): &(Option<LegId>, Path, bool)| is_same_source(from, path) || his_socket(*leg);
        let Some((leg, from, open)) = found.filter(is_his) else {
            return self.refuse(request, path, 481);
        };
        let tag = leg.and_then(|leg| self.legs.get(leg)).map(|leg| leg.dialog.local_tag.clone());
        let tag = tag.unwrap_or_else(|| stateless_tag(request));
        let response = super::reply::respond(request, 200, &tag);
        self.wire.tx.send(if from.is_reliable() { *path } else { from }, response.to_bytes());
        let Some(id) = leg.filter(|_| open) else { return };
        if self.legs.get(id).is_some_and(|leg| matches!(leg.stage, Stage::Invited { .. })) {
            self.cancelled(id, &request.headers, now);
        }
    }

    /// What every request outside a dialog must satisfy: the status that says what it does not.
    fn check(&self, request: &Request) -> Option<u16> {
        let headers = &request.headers;
        match Uri::read(&request.uri) {
            Err(_) => return Some(400),
            Ok(Uri { scheme: Scheme::Other(_), .. }) => return Some(416),
            Ok(_) => {}
        }
        if matches!(request.method, Method::Other(_)) {
            return Some(501);
        }
        if headers.max_forwards().ok().flatten() == Some(0) {
            return Some(483);
        }
        if self.is_our_own(headers)
            || (request.method == Method::Invite && self.wire.tx.is_merged(&merge_key(headers)))
        {
            return Some(482);
        }
        if unsupported(headers).next().is_some() {
            return Some(420);
        }
        if matches!(request.method, Method::Invite) && !is_sdp(request) {
            return Some(415);
        }
        None
    }

    /// A request of ours that came back to us.
    fn is_our_own(&self, headers: &Headers) -> bool {
        let tag = headers.from().ok().and_then(|from| from.tag().map(str::to_owned)).unwrap_or_default();
        let id = tag.split_once('.').and_then(|(id, _)| u64::from_str_radix(id, 16).ok());
        let leg = id.and_then(|id| self.legs.get(LegId(id)));
        leg.is_some_and(|leg| {
            leg.dialog.local_tag == tag && Ok(leg.dialog.call_id.as_str()) == headers.call_id()
        })
    }

    fn refuse_with_reason(&mut self, request: &Request, path: &Path, code: u16) {
        let mut response = self.stateless(request, code);
        match code {
            420 => {
                let names: Vec<String> = unsupported(&request.headers)
                    .map(|name| String::from_utf8_lossy(name).into_owned())
                    .collect();
                response.headers.push(Name::Unsupported, names.join(", "));
            }
            415 => {
                response.headers.push(Name::Accept, SDP);
                if request.headers.has(&Name::ContentEncoding) {
                    response.headers.push(Name::read(b"Accept-Encoding"), "identity");
                }
            }
            405 | 501 => response.headers.push(Name::Allow, ALLOW),
            489 => response.headers.push(Name::read(b"Allow-Events"), ""),
            _ => {}
        }
        self.send_stateless(path, &response);
    }

    /// A request outside a dialog.
    fn outside(&mut self, request: &Request, key: String, path: Path, now: Now) {
        match request.method {
            Method::Invite => self.invite_came(request, key, path, now),
            Method::Register => self.register(request, key, path, now),
            Method::Options => self.options_came(request, &path),
            Method::Bye | Method::Info | Method::Update | Method::Prack | Method::Cancel => {
                self.refuse(request, &path, 481)
            }
            Method::Refer | Method::Message | Method::Notify | Method::Subscribe | Method::Publish => {
                match self.caller(request, &path, now) {
                    Caller::Known(..) => {
                        let events =
                            matches!(request.method, Method::Notify | Method::Subscribe | Method::Publish);
                        self.refuse_with_reason(request, &path, if events { 489 } else { 405 });
                    }
                    Caller::Challenge { stale } => self.challenge(request, &path, stale, now),
                    Caller::Refused { why, guessed } => self.stranger(request, &path, why, guessed),
                }
            }
            Method::Ack => {}
            Method::Other(_) => self.refuse_with_reason(request, &path, 501),
        }
    }

    /// A ping, or a question what is possible: answered to anybody, keeping nothing.
    fn options_came(&mut self, request: &Request, path: &Path) {
        let mut response = self.stateless(request, 200);
        response.headers.push(Name::Allow, ALLOW);
        response.headers.push(Name::Accept, SDP);
        response.headers.push(Name::Supported, SUPPORTED);
        self.send_stateless(path, &response);
    }

    fn invite_came(&mut self, request: &Request, key: String, path: Path, now: Now) {
        if self.legs.len() >= self.wire.config.max_dialogs {
            return self.full(request, &path);
        }
        let (party, instance) = match self.caller(request, &path, now) {
            Caller::Known(party, instance) => (party, instance),
            Caller::Challenge { stale } => return self.challenge(request, &path, stale, now),
            Caller::Refused { why, guessed } => return self.stranger(request, &path, why, guessed),
        };
        if !path.is_reliable() && Refresh::is_too_short(&request.headers, &self.wire.config) {
            let mut response = self.stateless(request, 422);
            response.headers.push(Name::MinSe, self.wire.config.min_se_s.to_string());
            return self.send_stateless(&path, &response);
        }
        self.invited(request, key, path, party, instance, now);
    }

    /// Who begins: by socket, by address, by proof.
    fn caller(&mut self, request: &Request, path: &Path, now: Now) -> Caller {
        let from = request.headers.from().ok().and_then(|from| from.uri.user_text()).unwrap_or_default();
        match path {
            Path::Ws { flow, .. } => {
                if let Some((Party::Operator(name), instance)) = self.registrar.on_flow(*flow)
                    && name.as_str() == from
                {
                    return Caller::Known(Party::Operator(name.clone()), instance.clone());
                }
            }
            Path::Udp { remote, .. } => {
                let gateway = self.registrar.gateway_at(path).cloned();
                if let Some(Party::Trunk(name)) = &gateway {
                    if self.trunks.lets(name, remote.ip()) {
                        return Caller::Known(Party::Trunk(name.clone()), String::new());
                    }
                    return Caller::Refused { why: "outside the fence", guessed: false };
                }
                if let Some(trunk) = self.trunks.at(remote.ip(), request) {
                    return Caller::Known(Party::Trunk(trunk.name.clone()), String::new());
                }
            }
        }
        match self.login(request, path, now) {
            Login::Proved { who, user } => self.proved_caller(who, &user, &from, request, path),
            Login::Challenge { stale } => Caller::Challenge { stale },
            Login::Refused { why, guessed } => Caller::Refused { why, guessed },
        }
    }

    fn proved_caller(&self, who: Party, user: &str, from: &str, request: &Request, path: &Path) -> Caller {
        match &who {
            Party::Trunk(name) if !self.trunks.lets(name, path.remote().ip()) => {
                Caller::Refused { why: "outside the fence", guessed: false }
            }
            Party::Trunk(_) => Caller::Known(who, String::new()),
            Party::Operator(_) if user != from => Caller::Refused { why: "not allowed", guessed: false },
            Party::Operator(_) => {
                let contact = request.headers.contacts().ok().and_then(|contacts| contacts.first().cloned());
                let uri = contact.map(|contact| contact.uri.to_string()).unwrap_or_default();
                let known = self.registrar.of(&who).find(|binding| binding.contact == uri);
                let instance = known.map_or(uri, |binding| binding.instance.clone());
                Caller::Known(who, instance)
            }
        }
    }

    /// A WebSocket is gone.
    pub(crate) fn flow_closed(&mut self, flow: FlowId, now: Now) {
        let lost: Vec<LegId> =
            self.legs.iter().filter(|leg| leg.home.flow() == Some(flow)).map(|leg| leg.id).collect();
        for id in lost {
            if let Some(leg) = self.legs.get_mut(id) {
                leg.lost = true;
            }
        }
        let heard = self.wire.tx.flow_closed(flow, now);
        if let Some(who) = self.registrar.flow_closed(flow) {
            self.wire.tell(super::Event::PhoneLost { who });
        }
        for one in heard {
            self.heard(one, now);
        }
    }
}

/// Puts the source into the top Via, so that the answer finds its way (RFC 3261 section 18.2.1, RFC 3581).
fn note_source(headers: &mut Headers, path: &Path) {
    if let Ok(mut via) = headers.via_top() {
        via.note_source(path.remote());
        headers.replace_first_listed(&Name::Via, via.to_string().as_bytes());
    }
}

fn is_same_source(one: &Path, other: &Path) -> bool {
    match (one, other) {
        (Path::Udp { remote: one, .. }, Path::Udp { remote: other, .. }) => one.ip() == other.ip(),
        (Path::Ws { flow: one, .. }, Path::Ws { flow: other, .. }) => one == other,
        (Path::Udp { .. }, Path::Ws { .. }) | (Path::Ws { .. }, Path::Udp { .. }) => false,
    }
}

/// Extensions that are required and that we do not have.
fn unsupported(headers: &Headers) -> impl Iterator<Item = &[u8]> {
    let required = headers.list(&Name::Require).chain(headers.list(&Name::ProxyRequire));
    let known = |name: &&[u8]| EXTENSIONS.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(name));
    required.filter(move |name| !known(name))
}

/// The one kind of body that we take; no body asks for our offer.
fn is_sdp(request: &Request) -> bool {
    let headers = &request.headers;
    let kind = headers.first(&Name::ContentType).unwrap_or_default();
    let kind = kind.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let plain =
        headers.first(&Name::ContentEncoding).is_none_or(|coding| coding.eq_ignore_ascii_case(b"identity"));
    request.body.is_empty() || (kind.eq_ignore_ascii_case(SDP.as_bytes()) && plain)
}
