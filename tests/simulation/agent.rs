//! A minimal SIP user agent, written from RFC 3261 and not from the product's machine: it knows only
//! its message types. Gateways use it over UDP with timers A, E and G; phones over a WebSocket, where
//! only a 200 to INVITE is repeated. The agent keeps the protocol; what its owner wants is elsewhere.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use tandem::sdp::Direction as Sends;
use tandem::sdp::negotiate::{self as sdp, Codec, Local};
use tandem::sdp::webrtc::{Fingerprint, Ours, Setup};
use tandem::sip::digest::{self, Login};
use tandem::sip::header::Contacts;
use tandem::sip::message::{Message, Method, Name, Request, Response};
use tandem::terms::Secret;

use crate::dice::Dice;

const T1_MS: u64 = 500;
const T2_MS: u64 = 4_000;
const GIVE_UP_MS: u64 = 32_000;
const LAWS: [Codec; 2] = [Codec::Pcma, Codec::Pcmu];

/// How an agent is known and reached.
#[derive(Debug, Clone)]
pub struct Account {
    pub user: String,
    pub password: String,
    /// `None`: a browser over a WebSocket.
    pub udp: Option<SocketAddr>,
    pub domain: String,
    /// Whether it registers.
    pub registers: bool,
    pub expires_s: u32,
    /// Whether it lets Tandem refresh its sessions.
    pub timers: bool,
}

/// What the agent tells its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Invited {
        leg: u64,
        auto: bool,
    },
    Rang {
        leg: u64,
    },
    Answered {
        leg: u64,
    },
    Failed {
        leg: u64,
        code: u16,
    },
    Ended {
        leg: u64,
        by_peer: bool,
    },
    Registered,
    RegisterFailed(u16),
    Changed {
        leg: u64,
        code: u16,
    },
    /// The answer to our BYE.
    ByeAnswered {
        leg: u64,
        code: u16,
    },
}

/// Where a leg stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Calling,
    Ringing,
    Up,
    Leaving,
    Gone,
}

#[derive(Debug, Clone)]
pub struct Leg {
    pub state: State,
    pub outgoing: bool,
    call_id: String,
    local: String,
    local_tag: String,
    remote: String,
    remote_tag: String,
    target: String,
    cseq: u32,
    remote_cseq: u32,
    invite: Option<Request>,
    heard: bool,
    cancel_wanted: bool,
    /// Our 200 that waits for its ACK: bytes, CSeq, next, pause, end.
    unacked: Option<(Bytes, u32, u64, u64, u64)>,
    ack: Option<(u32, Bytes)>,
    pub media: u16,
    version: u64,
    pub held: bool,
    change_out: bool,
}

#[derive(Debug, Clone)]
struct Asked {
    request: Request,
    leg: Option<u64>,
    next: u64,
    pause: u64,
    end: u64,
    provisional: bool,
    tried_login: bool,
}

#[derive(Debug, Clone)]
pub struct Agent {
    pub account: Account,
    pub legs: BTreeMap<u64, Leg>,
    next_leg: u64,
    next_media: u16,
    asked: BTreeMap<String, Asked>,
    /// What was answered, by branch and method, for repeats; and refusals of INVITE that wait for ACK.
    answered: BTreeMap<(String, String), (Bytes, u64)>,
    refused: BTreeMap<String, (Bytes, u64, u64, u64)>,
    out: VecDeque<Bytes>,
    said: VecDeque<Said>,
    dice: Dice,
    register_cseq: u32,
    register_call: String,
    nonce_counts: BTreeMap<String, u32>,
    pub instance: String,
    contact_user: String,
    /// Whether its socket is open (always over UDP).
    pub connected: bool,
    now: u64,
}

impl Agent {
    pub fn new(account: Account, mut dice: Dice) -> Self {
        let instance = format!("urn:uuid:00000000-0000-4000-8000-{:012x}", dice.next() & 0xffff_ffff_ffff);
        let (call, user) = (dice.word(), dice.word());
        Self {
            connected: account.udp.is_some(),
            account,
            legs: BTreeMap::new(),
            next_leg: 1,
            next_media: 30_000,
            asked: BTreeMap::new(),
            answered: BTreeMap::new(),
            refused: BTreeMap::new(),
            out: VecDeque::new(),
            said: VecDeque::new(),
            dice,
            register_cseq: 0,
            register_call: call,
            nonce_counts: BTreeMap::new(),
            instance,
            contact_user: user,
            now: 0,
        }
    }

    pub fn poll(&mut self) -> Option<Bytes> {
        self.out.pop_front()
    }

    pub fn hear(&mut self) -> Option<Said> {
        self.said.pop_front()
    }

    fn reliable(&self) -> bool {
        self.account.udp.is_none()
    }

    fn send(&mut self, bytes: Bytes) {
        if self.connected {
            self.out.push_back(bytes);
        }
    }

    fn host(&self) -> String {
        match self.account.udp {
            Some(address) => address.to_string(),
            None => "df7jal23ls0d.invalid".to_owned(),
        }
    }

    fn contact(&self) -> String {
        match self.account.udp {
            Some(address) => format!("<sip:{}@{address}>", self.account.user),
            None => format!("<sip:{}@df7jal23ls0d.invalid;transport=ws>", self.contact_user),
        }
    }

    fn via(&mut self) -> (String, String) {
        let branch = format!("z9hG4bK{}", self.dice.word());
        let transport = if self.reliable() { "WS" } else { "UDP" };
        (format!("SIP/2.0/{transport} {};branch={branch};rport", self.host()), branch)
    }

    // ---- requests ----

    fn ask(&mut self, mut request: Request, leg: Option<u64>, tried_login: bool) -> String {
        let (via, branch) = self.via();
        request.headers.push_front(Name::Via, via);
        if !request.headers.has(&Name::MaxForwards) {
            request.headers.push(Name::MaxForwards, "70");
        }
        self.send(request.to_bytes());
        let next = if self.reliable() { u64::MAX } else { self.now + T1_MS };
        let asked = Asked {
            request,
            leg,
            next,
            pause: T1_MS,
            end: self.now + GIVE_UP_MS,
            provisional: false,
            tried_login,
        };
        self.asked.insert(branch.clone(), asked);
        branch
    }

    pub fn register(&mut self, now: u64) {
        self.now = now;
        if !self.connected {
            return;
        }
        self.register_cseq += 1;
        let domain = self.account.domain.clone();
        let mut request = Request::new(Method::Register, format!("sip:{domain}"));
        let me = format!("<sip:{}@{domain}>", self.account.user);
        request.headers.push(Name::From, format!("{me};tag={}", self.dice.word()));
        request.headers.push(Name::To, me);
        request.headers.push(Name::CallId, self.register_call.clone());
        request.headers.push(Name::CSeq, format!("{} REGISTER", self.register_cseq));
        let mut contact = self.contact();
        if self.reliable() {
            contact.push_str(&format!(";+sip.instance=\"<{}>\";reg-id=1", self.instance));
        }
        request.headers.push(Name::Contact, format!("{contact};expires={}", self.account.expires_s));
        request.headers.push(Name::Expires, self.account.expires_s.to_string());
        self.ask(request, None, false);
    }

    pub fn call(&mut self, to: &str, caller: Option<&str>, now: u64) -> u64 {
        self.now = now;
        let id = self.next_leg;
        self.next_leg += 1;
        let domain = self.account.domain.clone();
        let tag = self.dice.word();
        let user = caller.unwrap_or(&self.account.user).to_owned();
        let leg = Leg {
            state: State::Calling,
            outgoing: true,
            call_id: self.dice.word(),
            local: format!("<sip:{user}@{domain}>"),
            local_tag: tag,
            remote: format!("<sip:{to}@{domain}>"),
            remote_tag: String::new(),
            target: format!("sip:{to}@{domain}"),
            cseq: 1,
            remote_cseq: 0,
            invite: None,
            heard: false,
            cancel_wanted: false,
            unacked: None,
            ack: None,
            media: self.fresh_media(),
            version: 1,
            held: false,
            change_out: false,
        };
        let offer = sdp::offer(&self.local(&leg), &LAWS, Sends::SendRecv);
        self.legs.insert(id, leg);
        let request = self.request(id, Method::Invite, Some(offer));
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.invite = Some(request.clone());
        }
        self.ask(request, Some(id), false);
        id
    }

    fn fresh_media(&mut self) -> u16 {
        self.next_media += 2;
        self.next_media
    }

    fn local(&self, leg: &Leg) -> Local {
        let (session_id, version) = (u64::from(leg.media), leg.version);
        match self.account.udp {
            Some(address) => {
                Local::Plain { address: address.ip(), port: leg.media, session_id, version, mux: false }
            }
            None => Local::WebRtc(Box::new(Ours {
                at: SocketAddr::new(IpAddr::from([10, 0, 2, 1]), leg.media),
                session_id,
                version,
                ufrag: self.ufrag(leg.media),
                pwd: Secret::new("abcdefghijklmnopqrstuvwx".to_owned()),
                fingerprint: Fingerprint([7; 32]),
                setup: Setup::Active,
                ice_lite: false,
                mid: "0".to_owned(),
                ssrc: 1,
                cname: "browser".to_owned(),
            })),
        }
    }

    /// What the media plane knows a browser's leg by.
    pub fn ufrag(&self, media: u16) -> String {
        format!("{}{media}", self.account.user)
    }

    /// A request in the leg's dialog, with the CSeq that is next.
    fn request(&mut self, id: u64, method: Method, body: Option<String>) -> Request {
        let contact = self.contact();
        let leg = self.legs.get_mut(&id).expect("leg");
        if !(method == Method::Invite && leg.invite.is_none() && leg.outgoing) {
            leg.cseq += 1;
        }
        let mut request = Request::new(method.clone(), leg.target.clone());
        request.headers.push(Name::From, format!("{};tag={}", leg.local, leg.local_tag));
        let to = if leg.remote_tag.is_empty() {
            leg.remote.clone()
        } else {
            format!("{};tag={}", leg.remote, leg.remote_tag)
        };
        request.headers.push(Name::To, to);
        request.headers.push(Name::CallId, leg.call_id.clone());
        request.headers.push(Name::CSeq, format!("{} {}", leg.cseq, method.as_str()));
        request.headers.push(Name::Contact, contact);
        request.headers.push(Name::Supported, "timer");
        if let Some(body) = body {
            request.headers.push(Name::ContentType, "application/sdp");
            request.body = Bytes::from(body);
        }
        request
    }

    /// BYE, CANCEL or a refusal: whichever ends the leg as it stands.
    pub fn hang_up(&mut self, id: u64, now: u64) {
        self.now = now;
        let Some(leg) = self.legs.get_mut(&id) else { return };
        match (leg.state, leg.outgoing) {
            (State::Calling, _) => {
                leg.cancel_wanted = true;
                if leg.heard {
                    self.cancel(id);
                }
            }
            (State::Ringing, _) => self.reject(id, 486, now),
            (State::Up, _) => {
                leg.state = State::Leaving;
                leg.unacked = None;
                let request = self.request(id, Method::Bye, None);
                if self.connected {
                    self.ask(request, Some(id), false);
                } else {
                    // A browser whose socket is gone ends the call for itself; nobody hears of it.
                    self.gone(id, false);
                }
            }
            (State::Leaving | State::Gone, _) => {}
        }
    }

    fn cancel(&mut self, id: u64) {
        let found = self
            .asked
            .iter()
            .find(|(_, asked)| asked.leg == Some(id) && asked.request.method == Method::Invite);
        let Some((branch, asked)) = found.map(|(branch, asked)| (branch.clone(), asked.clone())) else {
            return;
        };
        if self.asked.contains_key(&format!("{branch}/cancel")) {
            return;
        }
        let invite = asked.request;
        let mut request = Request::new(Method::Cancel, invite.uri.clone());
        for name in [Name::Via, Name::From, Name::To, Name::CallId] {
            let value = invite.headers.first(&name).unwrap_or_default().to_vec();
            request.headers.push(name, value);
        }
        let number = invite.headers.cseq().map_or(0, |(number, _)| number);
        let branch_end = self.now + GIVE_UP_MS;
        if let Some(asked) = self.asked.get_mut(&branch) {
            // RFC 3261 section 9.1: without a final answer the INVITE is over after 64*T1.
            asked.end = branch_end;
        }
        request.headers.push(Name::CSeq, format!("{number} CANCEL"));
        request.headers.push(Name::MaxForwards, "70");
        self.send(request.to_bytes());
        let next = if self.reliable() { u64::MAX } else { self.now + T1_MS };
        let cancel = Asked {
            request,
            leg: Some(id),
            next,
            pause: T1_MS,
            end: self.now + GIVE_UP_MS,
            provisional: false,
            tried_login: true,
        };
        self.asked.insert(format!("{branch}/cancel"), cancel);
    }

    /// Hold or resume by re-INVITE.
    pub fn hold(&mut self, id: u64, on: bool, now: u64) {
        self.now = now;
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.state != State::Up || leg.unacked.is_some() || leg.change_out || !self.connected {
            return;
        }
        leg.version += 1;
        leg.held = on;
        leg.change_out = true;
        let leg = leg.clone();
        let direction = if on { Sends::SendOnly } else { Sends::SendRecv };
        let offer = sdp::offer(&self.local(&leg), &LAWS, direction);
        let request = self.request(id, Method::Invite, Some(offer));
        self.ask(request, Some(id), false);
    }

    /// A session refresh without a description.
    pub fn update(&mut self, id: u64, now: u64) {
        self.now = now;
        let Some(leg) = self.legs.get(&id) else { return };
        if leg.state == State::Up && self.connected {
            let request = self.request(id, Method::Update, None);
            self.ask(request, Some(id), false);
        }
    }

    // ---- answers ----

    fn response(&self, request: &Request, id: Option<u64>, code: u16) -> Response {
        let mut response = Response::new(code);
        for name in [Name::Via, Name::From, Name::CallId, Name::CSeq, Name::RecordRoute] {
            for value in request.headers.all(&name) {
                response.headers.push(name.clone(), value.clone());
            }
        }
        let mut to =
            String::from_utf8_lossy(request.headers.first(&Name::To).unwrap_or_default()).into_owned();
        if code > 100 && !to.contains("tag=") {
            let tag =
                id.and_then(|id| self.legs.get(&id)).map_or("nobody".to_owned(), |leg| leg.local_tag.clone());
            to.push_str(&format!(";tag={tag}"));
        }
        response.headers.push(Name::To, to);
        if (101..300).contains(&code) && request.method != Method::Bye {
            response.headers.push(Name::Contact, self.contact());
        }
        response
    }

    fn answer(&mut self, request: &Request, response: &Response) {
        let bytes = response.to_bytes();
        let key = key(request);
        if response.code >= 200
            && request.method == Method::Invite
            && response.code >= 300
            && !self.reliable()
        {
            self.refused
                .insert(key.0.clone(), (bytes.clone(), self.now + T1_MS, T1_MS, self.now + GIVE_UP_MS));
        }
        self.answered.insert(key, (bytes.clone(), self.now + GIVE_UP_MS));
        self.send(bytes);
    }

    fn provisional(&mut self, id: u64, code: u16, with_sound: bool, now: u64) {
        self.now = now;
        let Some(leg) = self.legs.get(&id).filter(|leg| leg.state == State::Ringing).cloned() else { return };
        let Some(invite) = &leg.invite else { return };
        let mut response = self.response(invite, Some(id), code);
        if with_sound && let Some(text) = self.answer_text(&leg, &invite.body) {
            response.headers.push(Name::ContentType, "application/sdp");
            response.body = Bytes::from(text);
        }
        self.answer(invite, &response);
    }

    pub fn ring(&mut self, id: u64, now: u64) {
        self.provisional(id, 180, false, now);
    }

    pub fn progress(&mut self, id: u64, now: u64) {
        self.provisional(id, 183, true, now);
    }

    fn answer_text(&self, leg: &Leg, offer: &[u8]) -> Option<String> {
        let offer = sdp::read_offer(offer).ok()?;
        sdp::answer(&offer, &self.local(leg), &LAWS).ok().map(|(_, text)| text)
    }

    pub fn accept(&mut self, id: u64, now: u64) {
        self.now = now;
        let Some(leg) = self.legs.get(&id).filter(|leg| leg.state == State::Ringing).cloned() else { return };
        let Some(invite) = leg.invite.clone() else { return };
        let Some(text) = self.answer_text(&leg, &invite.body) else { return self.reject(id, 488, now) };
        self.answer_invite(id, &invite, text);
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.state = State::Up;
        }
    }

    fn answer_invite(&mut self, id: u64, invite: &Request, text: String) {
        let mut response = self.response(invite, Some(id), 200);
        response.headers.push(Name::Supported, "timer");
        if let Some(timer) = invite.headers.session_expires().ok().flatten().filter(|_| self.account.timers) {
            response.headers.push(Name::Require, "timer");
            response.headers.push(Name::SessionExpires, format!("{};refresher=uac", timer.secs));
        }
        response.headers.push(Name::ContentType, "application/sdp");
        response.body = Bytes::from(text);
        self.answer(invite, &response);
        let number = invite.headers.cseq().map_or(0, |(number, _)| number);
        let now = self.now;
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.unacked = Some((response.to_bytes(), number, now + T1_MS, T1_MS, now + GIVE_UP_MS));
        }
    }

    pub fn reject(&mut self, id: u64, code: u16, now: u64) {
        self.now = now;
        let Some(leg) = self.legs.get_mut(&id).filter(|leg| leg.state == State::Ringing) else { return };
        leg.state = State::Gone;
        let invite = leg.invite.clone();
        if let Some(invite) = invite {
            let response = self.response(&invite, Some(id), code);
            self.answer(&invite, &response);
        }
        self.said.push_back(Said::Ended { leg: id, by_peer: false });
    }

    fn gone(&mut self, id: u64, by_peer: bool) {
        if let Some(leg) = self.legs.get_mut(&id)
            && leg.state != State::Gone
        {
            leg.state = State::Gone;
            leg.unacked = None;
            self.said.push_back(Said::Ended { leg: id, by_peer });
        }
    }

    // ---- what comes ----

    pub fn receive(&mut self, bytes: &Bytes, now: u64) {
        self.now = now;
        match Message::read_datagram(bytes) {
            Ok(Message::Request(request)) => self.request_came(request),
            Ok(Message::Response(response)) => self.response_came(&response),
            Err(error) => panic!("Tandem sent something unreadable: {error}"),
        }
    }

    fn leg_of(&self, request: &Request) -> Option<u64> {
        let tag = request.headers.to().ok()?.tag()?.to_owned();
        let call_id = request.headers.call_id().ok()?;
        self.legs.iter().find(|(_, leg)| leg.local_tag == tag && leg.call_id == call_id).map(|(id, _)| *id)
    }

    fn request_came(&mut self, request: Request) {
        if request.method == Method::Ack {
            let branch = request
                .headers
                .via_top()
                .ok()
                .and_then(|via| via.branch().map(str::to_owned))
                .unwrap_or_default();
            self.refused.remove(&branch);
            if let Some(id) = self.leg_of(&request)
                && let Some(leg) = self.legs.get_mut(&id)
                && leg
                    .unacked
                    .as_ref()
                    .is_some_and(|one| Ok(one.1) == request.headers.cseq().map(|(number, _)| number))
            {
                leg.unacked = None;
            }
            return;
        }
        let key = key(&request);
        if let Some((bytes, _)) = self.answered.get(&key) {
            let bytes = bytes.clone();
            return self.send(bytes);
        }
        let within = request.headers.to().is_ok_and(|to| to.tag().is_some());
        match (&request.method, self.leg_of(&request)) {
            (Method::Invite, None) if !within => self.invited(request),
            (Method::Cancel, _) => self.cancelled(&request),
            (Method::Options, None) if !within => {
                let response = self.response(&request, None, 200);
                self.answer(&request, &response);
            }
            (_, Some(id)) => self.within(id, &request),
            (_, None) => {
                let response = self.response(&request, None, 481);
                self.answer(&request, &response);
            }
        }
    }

    fn invited(&mut self, request: Request) {
        let call_id = request.headers.call_id().unwrap_or_default().to_owned();
        let from = request.headers.from().expect("From");
        let id = self.next_leg;
        self.next_leg += 1;
        let remote_tag = from.tag().unwrap_or_default().to_owned();
        let mut remote = from;
        remote.params.remove("tag");
        let leg = Leg {
            state: State::Ringing,
            outgoing: false,
            call_id,
            local: String::from_utf8_lossy(request.headers.first(&Name::To).unwrap_or_default()).into_owned(),
            local_tag: self.dice.word(),
            remote: remote.to_string(),
            remote_tag,
            target: contact_of(&request.headers).expect("an INVITE has a Contact"),
            cseq: 0,
            remote_cseq: request.headers.cseq().map_or(0, |(number, _)| number),
            invite: Some(request.clone()),
            heard: true,
            cancel_wanted: false,
            unacked: None,
            ack: None,
            media: self.fresh_media(),
            version: 1,
            held: false,
            change_out: false,
        };
        self.legs.insert(id, leg);
        let trying = self.response(&request, Some(id), 100);
        self.answer(&request, &trying);
        let auto = request
            .headers
            .iter()
            .any(|header| String::from_utf8_lossy(header.value()).contains("answer-after"));
        self.said.push_back(Said::Invited { leg: id, auto });
    }

    fn cancelled(&mut self, request: &Request) {
        let branch = key(request).0;
        let found = self.legs.iter().find(|(_, leg)| {
            leg.state == State::Ringing && leg.invite.as_ref().is_some_and(|invite| key(invite).0 == branch)
        });
        let id = found.map(|(id, _)| *id);
        let known = self.answered.contains_key(&(branch, "INVITE".to_owned()));
        let response = self.response(request, id, if known { 200 } else { 481 });
        self.answer(request, &response);
        if let Some(id) = id {
            let invite = self.legs.get(&id).and_then(|leg| leg.invite.clone());
            if let Some(invite) = invite {
                let response = self.response(&invite, Some(id), 487);
                self.answer(&invite, &response);
            }
            self.gone(id, true);
        }
    }

    fn within(&mut self, id: u64, request: &Request) {
        let number = request.headers.cseq().map_or(0, |(number, _)| number);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.state == State::Gone {
            let code = if request.method == Method::Bye { 200 } else { 481 };
            let response = self.response(request, Some(id), code);
            return self.answer(request, &response);
        }
        assert!(number != leg.remote_cseq, "CSeq {number} of {:?} was used before", request.method);
        if number < leg.remote_cseq {
            // Overtaken on the way (RFC 3261 section 12.2.2).
            let response = self.response(request, Some(id), 500);
            return self.answer(request, &response);
        }
        leg.remote_cseq = number;
        if let Some(target) = contact_of(&request.headers) {
            leg.target = target;
        }
        let leg = leg.clone();
        match request.method {
            Method::Bye => {
                let response = self.response(request, Some(id), 200);
                self.answer(request, &response);
                self.gone(id, true);
            }
            Method::Invite if leg.change_out || leg.unacked.is_some() => {
                let response = self.response(request, Some(id), 491);
                self.answer(request, &response);
            }
            Method::Invite => match self.answer_text(&leg, &request.body) {
                Some(text) => self.answer_invite(id, request, text),
                None => {
                    let response = self.response(request, Some(id), 488);
                    self.answer(request, &response);
                }
            },
            _ => {
                let mut response = self.response(request, Some(id), 200);
                if let Some(timer) = request.headers.first(&Name::SessionExpires) {
                    response.headers.push(Name::SessionExpires, timer.to_vec());
                }
                self.answer(request, &response);
            }
        }
    }

    fn response_came(&mut self, response: &Response) {
        let Ok(via) = response.headers.via_top() else { return };
        let branch = via.branch().unwrap_or_default().to_owned();
        let method = response.headers.cseq().map(|(_, method)| method).expect("CSeq");
        let tx = if method == Method::Cancel { format!("{branch}/cancel") } else { branch };
        let Some(asked) = self.asked.get_mut(&tx) else { return };
        if response.code < 200 {
            asked.provisional = true;
            asked.end = self.now + 180_000;
            let leg = asked.leg;
            if method == Method::Invite
                && let Some(id) = leg
            {
                self.progressed(id, response);
            }
            return;
        }
        let asked = asked.clone();
        if method == Method::Invite {
            self.invite_answered(&tx, asked, response);
            return;
        }
        self.asked.remove(&tx);
        if response.code == 401 && !asked.tried_login {
            return self.login(asked, response);
        }
        match (method, asked.leg) {
            (Method::Register, _) if response.code < 300 => self.said.push_back(Said::Registered),
            (Method::Register, _) => self.said.push_back(Said::RegisterFailed(response.code)),
            (Method::Bye, Some(id)) => {
                self.said.push_back(Said::ByeAnswered { leg: id, code: response.code });
                self.gone(id, false);
            }
            (Method::Update, Some(id)) if matches!(response.code, 408 | 481) => self.hang_up(id, self.now),
            _ => {}
        }
    }

    fn progressed(&mut self, id: u64, response: &Response) {
        let Some(leg) = self.legs.get_mut(&id).filter(|leg| leg.state == State::Calling) else { return };
        leg.heard = true;
        let wanted = leg.cancel_wanted;
        if response.code > 100 {
            self.said.push_back(Said::Rang { leg: id });
        }
        if wanted {
            self.cancel(id);
        }
    }

    fn invite_answered(&mut self, tx: &str, asked: Asked, response: &Response) {
        let Some(id) = asked.leg else { return };
        let number = asked.request.headers.cseq().map_or(0, |(number, _)| number);
        if response.code >= 300 {
            self.asked.remove(tx);
            self.acknowledge_refusal(&asked.request, response);
            if response.code == 401 && !asked.tried_login {
                return self.login(asked, response);
            }
            let Some(leg) = self.legs.get_mut(&id) else { return };
            leg.change_out = false;
            match leg.state {
                State::Calling => {
                    leg.state = State::Gone;
                    self.said.push_back(Said::Failed { leg: id, code: response.code });
                }
                State::Up => {
                    self.said.push_back(Said::Changed { leg: id, code: response.code });
                    // RFC 3261 section 12.2.1.2.
                    if matches!(response.code, 408 | 481) {
                        self.hang_up(id, self.now);
                    }
                }
                State::Ringing | State::Leaving | State::Gone => {}
            }
            return;
        }
        // A 200 is acknowledged each time it comes; the transaction stays to see repeats.
        if let Some(asked) = self.asked.get_mut(tx) {
            asked.next = u64::MAX;
            asked.end = self.now + GIVE_UP_MS;
            asked.provisional = true;
        }
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if let Some((acked, bytes)) = &leg.ack
            && *acked == number
        {
            let bytes = bytes.clone();
            return self.send(bytes);
        }
        if let Some(target) = contact_of(&response.headers) {
            leg.target = target;
        }
        let first = leg.state == State::Calling;
        if let Some(tag) =
            response.headers.to().ok().and_then(|to| to.tag().map(str::to_owned)).filter(|_| first)
        {
            leg.remote_tag = tag;
        }
        let leg_now = leg.clone();
        let (via, _) = self.via();
        let mut ack = Request::new(Method::Ack, leg_now.target.clone());
        ack.headers.push(Name::Via, via);
        ack.headers.push(Name::From, format!("{};tag={}", leg_now.local, leg_now.local_tag));
        ack.headers.push(Name::To, format!("{};tag={}", leg_now.remote, leg_now.remote_tag));
        ack.headers.push(Name::CallId, leg_now.call_id.clone());
        ack.headers.push(Name::CSeq, format!("{number} ACK"));
        ack.headers.push(Name::MaxForwards, "70");
        let bytes = ack.to_bytes();
        self.send(bytes.clone());
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.ack = Some((number, bytes));
        leg.change_out = false;
        match leg.state {
            State::Calling => {
                leg.state = State::Up;
                if leg.cancel_wanted {
                    self.hang_up(id, self.now);
                } else {
                    self.said.push_back(Said::Answered { leg: id });
                }
            }
            State::Up => self.said.push_back(Said::Changed { leg: id, code: 200 }),
            State::Ringing | State::Leaving | State::Gone => {}
        }
    }

    /// RFC 3261 section 17.1.1.3.
    fn acknowledge_refusal(&mut self, invite: &Request, response: &Response) {
        let mut ack = Request::new(Method::Ack, invite.uri.clone());
        for name in [Name::Via, Name::From, Name::CallId] {
            let value = invite.headers.first(&name).unwrap_or_default().to_vec();
            ack.headers.push(name, value);
        }
        ack.headers.push(Name::To, response.headers.first(&Name::To).unwrap_or_default().to_vec());
        let number = invite.headers.cseq().map_or(0, |(number, _)| number);
        ack.headers.push(Name::CSeq, format!("{number} ACK"));
        ack.headers.push(Name::MaxForwards, "70");
        self.send(ack.to_bytes());
    }

    fn login(&mut self, asked: Asked, response: &Response) {
        let Some(challenge) = digest::choose(response.headers.challenges(&Name::WwwAuthenticate)) else {
            return;
        };
        let nonce = challenge.text("nonce").unwrap_or_default();
        let count = self.nonce_counts.entry(nonce).or_default();
        *count += 1;
        let login =
            Login { user: self.account.user.clone(), password: Secret::new(self.account.password.clone()) };
        let mut request = asked.request;
        let uri = String::from_utf8_lossy(&request.uri).into_owned();
        let cnonce = self.dice.word();
        let shown =
            login.answer(&challenge, &request.method, &uri, &cnonce, *count).expect("answerable challenge");
        request.headers.remove_all(&Name::Via);
        request.headers.set(Name::Authorization, shown.to_string());
        let (number, method) = request.headers.cseq().expect("CSeq");
        let number = match asked.leg {
            Some(id) => {
                let leg = self.legs.get_mut(&id).expect("leg");
                leg.cseq = leg.cseq.max(number) + 1;
                leg.cseq
            }
            None => {
                self.register_cseq += 1;
                self.register_cseq
            }
        };
        request.headers.set(Name::CSeq, format!("{number} {}", method.as_str()));
        if method == Method::Invite
            && let Some(leg) = asked.leg.and_then(|id| self.legs.get_mut(&id))
            && leg.state == State::Calling
        {
            leg.invite = Some(request.clone());
        }
        self.ask(request, asked.leg, true);
    }

    // ---- time ----

    pub fn next_timeout(&self) -> Option<u64> {
        let asked = self.asked.values().map(|asked| asked.next.min(asked.end));
        let unacked = self.legs.values().filter_map(|leg| leg.unacked.as_ref()).map(|one| one.2.min(one.4));
        let refused = self.refused.values().map(|one| one.1.min(one.3));
        asked.chain(unacked).chain(refused).min()
    }

    pub fn handle_timeout(&mut self, now: u64) {
        self.now = now;
        let due: Vec<String> = self
            .asked
            .iter()
            .filter(|(_, one)| one.next.min(one.end) <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            self.asked_due(&key);
        }
        let unacked: Vec<u64> = self
            .legs
            .iter()
            .filter(|(_, leg)| leg.unacked.as_ref().is_some_and(|one| one.2.min(one.4) <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in unacked {
            self.unacked_due(id);
        }
        let refused: Vec<String> = self
            .refused
            .iter()
            .filter(|(_, one)| one.1.min(one.3) <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in refused {
            let Some(one) = self.refused.get_mut(&key) else { continue };
            if one.3 <= now {
                self.refused.remove(&key);
                continue;
            }
            one.2 = (one.2 * 2).min(T2_MS);
            one.1 = now + one.2;
            let bytes = one.0.clone();
            self.send(bytes);
        }
        self.answered.retain(|_, (_, until)| *until > now);
    }

    fn asked_due(&mut self, key: &str) {
        let now = self.now;
        let Some(asked) = self.asked.get_mut(key) else { return };
        if asked.end <= now {
            let asked = self.asked.remove(key).expect("there");
            let answered = asked.request.method == Method::Invite
                && asked.next == u64::MAX
                && asked.provisional
                && asked.leg.is_some_and(|id| self.legs.get(&id).is_some_and(|leg| leg.ack.is_some()));
            if !answered {
                self.timed_out(&asked);
            }
            return;
        }
        let invite = asked.request.method == Method::Invite;
        if invite && asked.provisional {
            asked.next = u64::MAX;
            return;
        }
        asked.pause = if invite {
            asked.pause * 2
        } else if asked.provisional {
            T2_MS
        } else {
            (asked.pause * 2).min(T2_MS)
        };
        asked.next = now + asked.pause;
        let bytes = asked.request.to_bytes();
        self.send(bytes);
    }

    fn timed_out(&mut self, asked: &Asked) {
        match (&asked.request.method, asked.leg) {
            (Method::Register, _) => self.said.push_back(Said::RegisterFailed(408)),
            (Method::Invite, Some(id)) => {
                let Some(leg) = self.legs.get_mut(&id) else { return };
                leg.change_out = false;
                if leg.state == State::Calling {
                    leg.state = State::Gone;
                    self.said.push_back(Said::Failed { leg: id, code: 408 });
                } else if leg.state == State::Up {
                    self.hang_up(id, self.now);
                }
            }
            (Method::Bye, Some(id)) => self.gone(id, false),
            (Method::Update, Some(id)) => self.hang_up(id, self.now),
            _ => {}
        }
    }

    fn unacked_due(&mut self, id: u64) {
        let now = self.now;
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(one) = &mut leg.unacked else { return };
        if one.4 <= now {
            leg.unacked = None;
            return self.hang_up(id, now);
        }
        one.3 = (one.3 * 2).min(T2_MS);
        one.2 = now + one.3;
        let bytes = one.0.clone();
        self.send(bytes);
    }

    // ---- the socket of a phone ----

    /// The socket is gone: requests under way fail, calls stay.
    pub fn cut(&mut self, now: u64) {
        self.now = now;
        self.connected = false;
        let asked = std::mem::take(&mut self.asked);
        for (_, asked) in asked {
            if asked.leg.is_some_and(|id| self.legs.get(&id).is_some_and(|leg| leg.state == State::Up))
                && asked.request.method != Method::Bye
            {
                if let Some(leg) = asked.leg.and_then(|id| self.legs.get_mut(&id)) {
                    leg.change_out = false;
                }
                continue;
            }
            self.timed_out(&asked);
        }
    }

    /// Power is gone and comes back: calls are forgotten, and it speaks from another port.
    pub fn reboot(&mut self, port: u16, now: u64) {
        self.now = now;
        for (id, leg) in &mut self.legs {
            if leg.state != State::Gone {
                leg.state = State::Gone;
                leg.unacked = None;
                self.said.push_back(Said::Ended { leg: *id, by_peer: false });
            }
        }
        self.asked.clear();
        self.answered.clear();
        self.refused.clear();
        self.register_call = self.dice.word();
        if let Some(address) = &mut self.account.udp {
            address.set_port(port);
        }
    }

    pub fn reconnect(&mut self, now: u64) {
        self.now = now;
        self.connected = true;
        self.register(now);
    }

    pub fn alive(&self) -> usize {
        self.legs.values().filter(|leg| leg.state != State::Gone).count()
    }
}

fn key(request: &Request) -> (String, String) {
    let branch =
        request.headers.via_top().ok().and_then(|via| via.branch().map(str::to_owned)).unwrap_or_default();
    (branch, request.method.as_str().to_owned())
}

fn contact_of(headers: &tandem::sip::message::Headers) -> Option<String> {
    match headers.contacts().ok()? {
        Contacts::List(list) => list.first().map(|contact| contact.uri.to_string()),
        Contacts::Any => None,
    }
}
