//! Transactions: where lost and repeated messages stop, so that a dialog sees each request once and
//! each answer once (RFC 3261 section 17, RFC 6026).
//!
//! The four machines are tables ([`invite_client`], [`client`], [`invite_server`], [`server`]); this
//! file keeps them, sends what they ask for and rings their timers. A request of ours may be *parked*:
//! its phone has no socket now, and it goes out when the phone is back.
//! Invariant: a transaction is its bytes; it can be written down, read in another process and go on.

pub(crate) mod client;
pub(crate) mod invite_client;
pub(crate) mod invite_server;
pub(crate) mod server;
mod step;
pub(crate) mod timer;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use rand_chacha::rand_core::Rng as _;
use serde::{Deserialize, Serialize};

use super::entropy::Entropy;
use super::header::Via;
use super::message::{Headers, Message, Method, Name, Request, Response};
use super::uri::Host;
use super::{Output, Path};
use crate::record::Record;
use crate::terms::{FlowId, LegId, Now};

use client::Client;
use invite_client::InviteClient;
use invite_server::InviteServer;
use server::Server;
use step::{Act, Step, map_step};
use timer::{Alarms, Armed, GIVE_UP_MS, Timer};

/// How long a request waits for a phone that has no socket (JsSIP is back within 2…30 s).
pub(crate) const PARK_MS: u64 = 35_000;
/// What every branch begins with (RFC 3261 section 8.1.1.7).
const COOKIE: &str = "z9hG4bK";
/// How far ids jump over a restore, so that none is given twice by a writer whose last records were lost.
pub(crate) const RESTORE_GAP: u64 = 1_000;

/// What a request of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// Begins a leg.
    Invite,
    /// Changes or refreshes it.
    Change,
    /// Ends it, cancels it, or ends a fork: the answer changes nothing.
    End,
    /// Carries a digit.
    Info,
    /// Registers us with a provider; belongs to no leg.
    Register,
    /// Asks a trunk whether it lives; belongs to no leg.
    Ping,
    /// Confirms a provisional answer.
    Prack,
}

/// One of our requests.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outgoing {
    /// For whom.
    pub(crate) leg: LegId,
    /// What for.
    pub(crate) purpose: Purpose,
    /// The whole request.
    pub(crate) request: Bytes,
    branch: String,
    /// Which way; `None` while parked.
    path: Option<Path>,
    state: OutgoingState,
    armed: Armed<Timer>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum OutgoingState {
    Invite(InviteClient),
    Other(Client),
}

/// One of a peer's requests.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Incoming {
    /// The leg it made or belongs to.
    pub(crate) leg: Option<LegId>,
    /// Which way it came and the answers go.
    pub(crate) path: Path,
    /// Whether that way is gone: nothing is sent until the phone is back.
    lost: bool,
    /// The whole request, for the answers to copy from.
    pub(crate) request: Bytes,
    key: String,
    merge: String,
    last: Bytes,
    state: IncomingState,
    armed: Armed<Timer>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum IncomingState {
    Invite(InviteServer),
    Other(Server),
}

impl Outgoing {
    /// Which way it went; `None` while parked.
    pub(crate) fn path(&self) -> Option<Path> {
        self.path
    }
}

impl Incoming {
    /// Whether no final answer was given yet.
    pub(crate) fn is_open(&self) -> bool {
        match self.state {
            IncomingState::Invite(state) => state == InviteServer::Proceeding,
            IncomingState::Other(state) => state != Server::Completed,
        }
    }
}

/// Which timer of which object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wake {
    /// Of one of our requests.
    Client(u64, Timer),
    /// Of one of a peer's requests.
    Server(u64, Timer),
    /// Of a leg.
    Leg(LegId, super::leg::LegTimer),
}

/// What a dialog must hear of one of our requests.
#[derive(Debug, Clone)]
pub(crate) enum Heard {
    /// An answer.
    Response(Response),
    /// Nobody answered.
    TimeOut,
}

/// All transactions.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    outgoing: BTreeMap<u64, Outgoing>,
    incoming: BTreeMap<u64, Incoming>,
    by_key: HashMap<String, u64>,
    by_merge: HashMap<String, u64>,
    next: u64,
    dirty: BTreeSet<(bool, u64)>,
    /// All timers of the machine.
    pub(crate) alarms: Alarms<Wake>,
    /// What is to be done, in order.
    pub(crate) out: VecDeque<Output>,
}

/// Names the transaction that a request belongs to (RFC 3261 section 17.2.3). A branch without the
/// cookie is not unique by itself (RFC 2543): then the dialog's words name it as well.
pub(crate) fn server_key(request: &Request, via: &Via, method: &Method) -> String {
    let headers = &request.headers;
    let port = via.port.map_or(0, u32::from);
    let branch = via.branch().unwrap_or_default();
    let method = method.as_str();
    if branch.starts_with(COOKIE) {
        return format!("{branch} {}:{port} {method}", via.host);
    }
    let number = headers.cseq().map_or(0, |(number, _)| number);
    let from = headers.from().ok().and_then(|from| from.tag().map(str::to_owned)).unwrap_or_default();
    let call_id = headers.call_id().unwrap_or_default();
    format!("{branch} {}:{port} {method} {call_id} {from} {number}", via.host)
}

/// Names what stays the same when one request arrives over two ways (RFC 3261 section 8.2.2.2).
pub(crate) fn merge_key(headers: &Headers) -> String {
    let number = headers.cseq().map_or(0, |(number, _)| number);
    let from = headers.from().ok().and_then(|from| from.tag().map(str::to_owned)).unwrap_or_default();
    format!("{} {from} {number}", headers.call_id().unwrap_or_default())
}

impl Transactions {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.outgoing.len().saturating_add(self.incoming.len())
    }

    fn next_id(&mut self) -> u64 {
        self.next = self.next.saturating_add(1);
        self.next
    }

    /// Sends bytes that no transaction cares for (ACK, stateless answers).
    pub(crate) fn send(&mut self, path: Path, bytes: Bytes) {
        self.out.push_back(Output::Send { path, bytes });
    }

    // ---- our requests ----

    /// Sends `request` (complete but for Via) over `path`, or parks it; returns its id.
    pub(crate) fn begin(
        &mut self,
        mut request: Request,
        path: Option<Path>,
        home: &Path,
        (leg, purpose): (LegId, Purpose),
        entropy: &mut Entropy,
        now: Now,
    ) -> u64 {
        let id = self.next_id();
        let branch = format!("{COOKIE}{id:x}.{:016x}", entropy.rng().next_u64());
        stamp(&mut request, &path.unwrap_or(*home), &branch);
        let is_invite = request.method == Method::Invite;
        let reliable = path.unwrap_or(*home).is_reliable();
        let patience_ms = if path.is_some() { GIVE_UP_MS } else { PARK_MS };
        let outgoing = Outgoing {
            leg,
            purpose,
            request: request.to_bytes(),
            branch,
            path,
            state: if is_invite {
                OutgoingState::Invite(InviteClient::Proceeding)
            } else {
                OutgoingState::Other(Client::Proceeding)
            },
            armed: Armed::default(),
        };
        self.outgoing.insert(id, outgoing);
        if is_invite {
            let step = InviteClient::begin(reliable, patience_ms);
            self.run_client(id, map_step(step, OutgoingState::Invite), None, now);
        } else {
            let step = Client::begin(reliable, patience_ms);
            self.run_client(id, map_step(step, OutgoingState::Other), None, now);
        }
        id
    }

    /// One of our requests.
    pub(crate) fn outgoing(&self, id: u64) -> Option<&Outgoing> {
        self.outgoing.get(&id)
    }

    /// Sends CANCEL for our INVITE `id` (RFC 3261 section 9.1: same Request-URI, Via, From, To,
    /// Call-ID, CSeq number, Route).
    pub(crate) fn cancel(&mut self, id: u64, reason: Option<String>, now: Now) {
        let Some(invite) = self.outgoing.get(&id) else { return };
        let Some(mut cancel) = echo(&invite.request, Method::Cancel, None) else { return };
        if let Some(reason) = reason {
            cancel.headers.push(Name::Reason, reason);
        }
        let (leg, path, branch) = (invite.leg, invite.path, invite.branch.clone());
        let cancel_id = self.next_id();
        let reliable = path.is_some_and(|path| path.is_reliable());
        let outgoing = Outgoing {
            leg,
            purpose: Purpose::End,
            request: cancel.to_bytes(),
            branch: format!("{branch} CANCEL"),
            path,
            state: OutgoingState::Other(Client::Proceeding),
            armed: Armed::default(),
        };
        self.outgoing.insert(cancel_id, outgoing);
        // The CANCEL's answer carries the INVITE's branch: it is found by this name.
        self.by_key.insert(format!("{branch} CANCEL"), cancel_id);
        let step = Client::begin(reliable, GIVE_UP_MS);
        self.run_client(cancel_id, map_step(step, OutgoingState::Other), None, now);
    }

    /// An answer came: what the dialog must hear, with the request's id, leg and purpose.
    pub(crate) fn response(
        &mut self,
        response: Response,
        path: &Path,
        now: Now,
    ) -> Option<(u64, LegId, Purpose, Heard)> {
        let via = response.headers.via_top().ok()?;
        let (_, method) = response.headers.cseq().ok()?;
        let branch = via.branch()?;
        let id = if method == Method::Cancel {
            *self.by_key.get(&format!("{branch} CANCEL"))?
        } else {
            branch_id(branch)?
        };
        let outgoing = self.outgoing.get(&id)?;
        // Nobody else may answer for him: same address, or a WebSocket (whose owner was authenticated).
        let same_source = outgoing.path.is_none_or(|sent| match (sent, path) {
            (Path::Udp { remote: sent, .. }, Path::Udp { remote, .. }) => sent.ip() == remote.ip(),
            (Path::Ws { .. }, Path::Ws { .. }) => true,
            (Path::Udp { .. }, Path::Ws { .. }) | (Path::Ws { .. }, Path::Udp { .. }) => false,
        });
        let named = if method == Method::Cancel {
            outgoing.branch.strip_suffix(" CANCEL")
        } else {
            Some(&*outgoing.branch)
        };
        if named != Some(branch) || !same_source {
            return None;
        }
        let (leg, purpose, state) = (outgoing.leg, outgoing.purpose, outgoing.state);
        let reliable = path.is_reliable();
        let event = invite_client::Event::Response(response.code);
        let step = match state {
            OutgoingState::Invite(state) => map_step(state.step(event, reliable), OutgoingState::Invite),
            OutgoingState::Other(state) => map_step(state.step(event, reliable), OutgoingState::Other),
        };
        let passes = step.acts.contains(&Act::Pass);
        self.run_client(id, step, Some(&response), now);
        passes.then_some((id, leg, purpose, Heard::Response(response)))
    }

    /// A timer of one of our requests rang.
    pub(crate) fn ring_client(
        &mut self,
        id: u64,
        timer: Timer,
        now: Now,
    ) -> Option<(u64, LegId, Purpose, Heard)> {
        let outgoing = self.outgoing.get_mut(&id)?;
        self.alarms.disarm(&mut outgoing.armed, timer, |timer| Wake::Client(id, timer));
        self.tell_client(id, invite_client::Event::Timer(timer), now)
    }

    fn tell_client(
        &mut self,
        id: u64,
        event: invite_client::Event,
        now: Now,
    ) -> Option<(u64, LegId, Purpose, Heard)> {
        let outgoing = self.outgoing.get(&id)?;
        let reliable = outgoing.path.is_some_and(|path| path.is_reliable());
        let (leg, purpose) = (outgoing.leg, outgoing.purpose);
        let step = match outgoing.state {
            OutgoingState::Invite(state) => map_step(state.step(event, reliable), OutgoingState::Invite),
            OutgoingState::Other(state) => map_step(state.step(event, reliable), OutgoingState::Other),
        };
        let timed_out = step.acts.contains(&Act::TimeOut);
        self.run_client(id, step, None, now);
        timed_out.then_some((id, leg, purpose, Heard::TimeOut))
    }

    fn run_client(&mut self, id: u64, step: Step<OutgoingState>, response: Option<&Response>, now: Now) {
        let Some(outgoing) = self.outgoing.get_mut(&id) else { return };
        for act in &step.acts {
            match *act {
                Act::Send => {
                    if let Some(path) = outgoing.path {
                        self.out.push_back(Output::Send { path, bytes: outgoing.request.clone() });
                    }
                }
                Act::Ack => {
                    let to = response.and_then(|response| response.headers.first(&Name::To));
                    let ack = echo(&outgoing.request, Method::Ack, to);
                    if let (Some(ack), Some(path)) = (ack, outgoing.path) {
                        self.out.push_back(Output::Send { path, bytes: ack.to_bytes() });
                    }
                }
                Act::Arm(timer, wait_ms) => {
                    let at = now.mono_ms.saturating_add(wait_ms);
                    self.alarms.arm(&mut outgoing.armed, timer, at, |timer| Wake::Client(id, timer));
                }
                Act::Disarm(timer) => {
                    self.alarms.disarm(&mut outgoing.armed, timer, |timer| Wake::Client(id, timer));
                }
                Act::Pass | Act::TimeOut => {}
            }
        }
        if !step.ignored {
            self.dirty.insert((true, id));
        }
        match step.next {
            Some(state) => outgoing.state = state,
            None => self.drop_client(id),
        }
    }

    /// Forgets one of our requests (RFC 3261 section 9.1: a cancelled INVITE without a final answer).
    pub(crate) fn abandon(&mut self, id: u64) {
        self.drop_client(id);
    }

    fn drop_client(&mut self, id: u64) {
        let Some(outgoing) = self.outgoing.remove(&id) else { return };
        self.alarms.forget(&outgoing.armed, |timer| Wake::Client(id, timer));
        self.by_key.remove(&outgoing.branch);
        self.dirty.insert((true, id));
    }

    /// The socket is gone: requests on it are parked until the phone is back. Those INVITEs that
    /// nobody heard yet fail: the caller must not wait for a desk that died.
    pub(crate) fn flow_closed(&mut self, flow: FlowId, now: Now) -> Vec<(u64, LegId, Purpose, Heard)> {
        let on_it = |outgoing: &Outgoing| outgoing.path.and_then(|path| path.flow()) == Some(flow);
        let ids: Vec<u64> = self.outgoing.iter().filter(|(_, one)| on_it(one)).map(|(id, _)| *id).collect();
        for (id, incoming) in &mut self.incoming {
            if incoming.path.flow() == Some(flow) {
                incoming.lost = true;
                self.dirty.insert((false, *id));
            }
        }
        let mut heard = Vec::new();
        for id in ids {
            let Some(outgoing) = self.outgoing.get_mut(&id) else { continue };
            outgoing.path = None;
            self.dirty.insert((true, id));
            if outgoing.purpose == Purpose::Invite {
                heard.extend(self.tell_client(id, invite_client::Event::Broken, now));
            }
        }
        heard
    }

    /// The phone of these legs is reached by `path` now: what was parked, or sent over a socket that may
    /// have died unseen, goes out again. The branch is the same: a phone that had it swallows it.
    pub(crate) fn reroute(&mut self, legs: &BTreeSet<LegId>, path: Path) {
        for (id, outgoing) in &mut self.outgoing {
            if !legs.contains(&outgoing.leg) || outgoing.path == Some(path) {
                continue;
            }
            outgoing.path = Some(path);
            self.dirty.insert((true, *id));
            let waits = match outgoing.state {
                OutgoingState::Invite(state) => matches!(state, InviteClient::Calling { .. }),
                OutgoingState::Other(state) => state != Client::Completed,
            };
            if waits {
                self.out.push_back(Output::Send { path, bytes: outgoing.request.clone() });
            }
        }
    }

    // ---- peers' requests ----

    /// The transaction of this name.
    pub(crate) fn find(&self, key: &str) -> Option<u64> {
        self.by_key.get(key).copied()
    }

    /// Whether it is an INVITE that we refused: its ACK belongs to the transaction.
    pub(crate) fn is_refused(&self, id: u64) -> bool {
        self.incoming.get(&id).is_some_and(|incoming| match incoming.state {
            IncomingState::Invite(InviteServer::Completed { .. } | InviteServer::Confirmed) => true,
            IncomingState::Invite(InviteServer::Proceeding | InviteServer::Accepted)
            | IncomingState::Other(_) => false,
        })
    }

    /// Whether the same request is here already, come over another way.
    pub(crate) fn is_merged(&self, merge: &str) -> bool {
        self.by_merge.contains_key(merge)
    }

    /// One of a peer's requests.
    pub(crate) fn incoming(&self, id: u64) -> Option<&Incoming> {
        self.incoming.get(&id)
    }

    /// A new request of a peer; returns its id.
    pub(crate) fn accept(&mut self, request: &Request, key: String, path: Path, leg: Option<LegId>) -> u64 {
        let id = self.next_id();
        let merge = merge_key(&request.headers);
        let is_invite = request.method == Method::Invite;
        self.by_key.insert(key.clone(), id);
        if is_invite {
            self.by_merge.insert(merge.clone(), id);
        }
        let state = if is_invite {
            IncomingState::Invite(InviteServer::Proceeding)
        } else {
            IncomingState::Other(Server::Trying)
        };
        let request = request.to_bytes();
        let incoming = Incoming {
            leg,
            path,
            lost: false,
            request,
            key,
            merge,
            last: Bytes::new(),
            state,
            armed: Armed::default(),
        };
        self.incoming.insert(id, incoming);
        self.dirty.insert((false, id));
        id
    }

    /// The request came again.
    pub(crate) fn again(&mut self, id: u64, now: Now) {
        self.tell_server(id, invite_server::Event::Again, now);
    }

    /// The ACK to our refusal came.
    pub(crate) fn acknowledged(&mut self, id: u64, now: Now) {
        self.tell_server(id, invite_server::Event::Ack, now);
    }

    /// We answer. `path` is where the phone is reached now, if it moved.
    pub(crate) fn answer(&mut self, id: u64, response: &Response, path: Option<Path>, now: Now) {
        let Some(incoming) = self.incoming.get_mut(&id) else { return };
        if let Some(path) = path {
            incoming.path = path;
            incoming.lost = false;
        }
        // Repeats of a final answer are made by the table from `last`, so it changes only while open.
        if incoming.is_open() {
            incoming.last = response.to_bytes();
        }
        self.tell_server(id, invite_server::Event::Answer(response.code), now);
    }

    /// A timer of a peer's request rang.
    pub(crate) fn ring_server(&mut self, id: u64, timer: Timer, now: Now) {
        let Some(incoming) = self.incoming.get_mut(&id) else { return };
        self.alarms.disarm(&mut incoming.armed, timer, |timer| Wake::Server(id, timer));
        self.tell_server(id, invite_server::Event::Timer(timer), now);
    }

    fn tell_server(&mut self, id: u64, event: invite_server::Event, now: Now) {
        let Some(incoming) = self.incoming.get_mut(&id) else { return };
        let reliable = incoming.path.is_reliable();
        let step = match incoming.state {
            IncomingState::Invite(state) => map_step(state.step(event, reliable), IncomingState::Invite),
            IncomingState::Other(state) => map_step(state.step(event, reliable), IncomingState::Other),
        };
        for act in &step.acts {
            match *act {
                Act::Send if incoming.lost => {}
                Act::Send => {
                    let (path, bytes) = (incoming.path, incoming.last.clone());
                    self.out.push_back(Output::Send { path, bytes });
                }
                Act::Arm(timer, wait_ms) => {
                    let at = now.mono_ms.saturating_add(wait_ms);
                    self.alarms.arm(&mut incoming.armed, timer, at, |timer| Wake::Server(id, timer));
                }
                Act::Disarm(timer) => {
                    self.alarms.disarm(&mut incoming.armed, timer, |timer| Wake::Server(id, timer));
                }
                Act::Ack | Act::Pass | Act::TimeOut => {}
            }
        }
        if !step.ignored {
            self.dirty.insert((false, id));
        }
        match step.next {
            Some(state) => incoming.state = state,
            None => self.drop_server(id),
        }
    }

    fn drop_server(&mut self, id: u64) {
        let Some(incoming) = self.incoming.remove(&id) else { return };
        self.alarms.forget(&incoming.armed, |timer| Wake::Server(id, timer));
        self.by_key.remove(&incoming.key);
        if self.by_merge.get(&incoming.merge) == Some(&id) {
            self.by_merge.remove(&incoming.merge);
        }
        self.dirty.insert((false, id));
    }

    // ---- records ----

    /// What changed since the last call.
    pub(crate) fn records(&mut self, now: Now, to: &mut Vec<Record>) {
        for (is_ours, id) in std::mem::take(&mut self.dirty) {
            let record = if is_ours {
                let key = format!("sip/client/{id}");
                self.outgoing.get(&id).map_or_else(|| Record::gone(&*key), |one| Record::put(&*key, one, now))
            } else {
                let key = format!("sip/server/{id}");
                self.incoming.get(&id).map_or_else(|| Record::gone(&*key), |one| Record::put(&*key, one, now))
            };
            to.push(record);
        }
    }

    /// Takes in one of our requests from a record.
    pub(crate) fn adopt_outgoing(&mut self, id: u64, mut outgoing: Outgoing, shift_ms: i64) {
        outgoing.armed.shift(shift_ms);
        self.alarms.adopt(&outgoing.armed, |timer| Wake::Client(id, timer));
        // No socket outlives its process: what went over one waits for the phone.
        if outgoing.path.is_some_and(|path| path.flow().is_some()) {
            outgoing.path = None;
        }
        if outgoing.branch.ends_with(" CANCEL") {
            self.by_key.insert(outgoing.branch.clone(), id);
        }
        self.outgoing.insert(id, outgoing);
        self.next = self.next.max(id);
    }

    /// Takes in a peer's request from a record.
    pub(crate) fn adopt_incoming(&mut self, id: u64, mut incoming: Incoming, shift_ms: i64) {
        incoming.armed.shift(shift_ms);
        // The same number may name somebody else's socket now.
        incoming.lost |= incoming.path.flow().is_some();
        self.alarms.adopt(&incoming.armed, |timer| Wake::Server(id, timer));
        self.by_key.insert(incoming.key.clone(), id);
        if matches!(incoming.state, IncomingState::Invite(_)) {
            self.by_merge.insert(incoming.merge.clone(), id);
        }
        self.incoming.insert(id, incoming);
        self.next = self.next.max(id);
    }

    /// Jumps over ids that the writer may have given after its last record.
    pub(crate) fn jump(&mut self) {
        self.next = self.next.saturating_add(RESTORE_GAP);
    }
}

/// The id that [`Transactions::begin`] wrote into a branch.
fn branch_id(branch: &str) -> Option<u64> {
    let (id, _) = branch.strip_prefix(COOKIE)?.split_once('.')?;
    u64::from_str_radix(id, 16).ok()
}

/// Puts our Via on top: `SIP/2.0/UDP 192.0.2.1:5060;branch=…;rport`.
pub(crate) fn stamp(request: &mut Request, path: &Path, branch: &str) {
    let transport = match path {
        Path::Udp { .. } => "UDP",
        Path::Ws { secure: false, .. } => "WS",
        Path::Ws { secure: true, .. } => "WSS",
    };
    let local = path.local();
    let via = Via::new(transport, Host::from(local.ip()), Some(local.port()), branch);
    request.headers.push_front(Name::Via, via.to_string());
}

/// CANCEL or ACK with the words of the INVITE (RFC 3261 sections 9.1 and 17.1.1.3).
fn echo(invite: &Bytes, method: Method, to: Option<&[u8]>) -> Option<Request> {
    let Ok(Message::Request(invite)) = Message::read_datagram(invite) else { return None };
    let mut request = Request::new(method.clone(), invite.uri.clone());
    let top = invite.headers.list(&Name::Via).next()?;
    request.headers.push(Name::Via, Bytes::copy_from_slice(top));
    request.headers.push(Name::MaxForwards, "70");
    for route in invite.headers.all(&Name::Route) {
        request.headers.push(Name::Route, route.clone());
    }
    request.headers.push(Name::From, Bytes::copy_from_slice(invite.headers.first(&Name::From)?));
    let to = to.or_else(|| invite.headers.first(&Name::To))?;
    request.headers.push(Name::To, Bytes::copy_from_slice(to));
    request.headers.push(Name::CallId, Bytes::copy_from_slice(invite.headers.first(&Name::CallId)?));
    let (number, _) = invite.headers.cseq().ok()?;
    request.headers.push(Name::CSeq, format!("{number} {method}"));
    Some(request)
}
