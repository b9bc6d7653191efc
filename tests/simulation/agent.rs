//! A minimal SIP user agent, written from RFC 3261 and not from the product's machine: it knows only
//! its message types. Gateways use it over UDP with timers A, E and G; phones over a WebSocket, where
//! only a 200 to INVITE is repeated. The agent keeps the protocol; what its owner wants is elsewhere.

mod answer;
mod come;

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
    /// Number of its last provisional answer that asked for a PRACK.
    rseq: u32,
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
            rseq: 0,
        };
        // Some ask for Tandem's offer instead of making one.
        let late = self.dice.chance(15);
        let offer = (!late).then(|| sdp::offer(&self.local(&leg), &LAWS, Sends::SendRecv));
        self.legs.insert(id, leg);
        let request = self.request(id, Method::Invite, offer);
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
        let late = self.dice.chance(20);
        let offer = (!late).then(|| sdp::offer(&self.local(&leg), &LAWS, direction));
        let request = self.request(id, Method::Invite, offer);
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
