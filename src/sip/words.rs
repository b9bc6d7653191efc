//! What the call centre says to SIP and what SIP says to the call centre: no header, no transaction,
//! no socket crosses this door, only legs, parties, session descriptions and causes.
//!
//! Invariant: a leg that was begun (by `Command::Invite` or `Event::Invited`) ends with exactly one
//! `Event::Failed` (outgoing, before its answer) or `Event::Ended` (all others), whoever ends it;
//! nothing is said about it afterwards, and a command that names it then is ignored. Ends that we ask
//! for are told at once; what CANCEL, BYE and their answers still need happens behind this door.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::fact::{Cause, Party};
use crate::sip::digest::{Algorithm, Ha1, Login};
use crate::sip::guard::{Ban, Rules};
use crate::sip::profile::Profile;
use crate::terms::{FlowId, LegId, Number, OperatorName, Secret, TrunkName};

/// What the SIP machine must be told once.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our realm and the host of our URIs.
    pub domain: String,
    /// `User-Agent` and `Server`.
    pub user_agent: String,
    /// The address we send from over UDP when no message came in that says which.
    pub udp: SocketAddr,
    /// What we offer as `Session-Expires`, seconds (RFC 4028).
    pub session_expires_s: u32,
    /// The smallest session interval that we accept from a trunk, seconds (RFC 4028 section 5).
    pub min_se_s: u32,
    /// Keys the stateless nonces; the same on both nodes of a pair.
    pub pair_secret: Secret<[u8; 32]>,
    /// What whoever is neither a browser nor a trunk is challenged with, strongest first.
    pub digest: Vec<Algorithm>,
    /// Dialogs alive at once; an INVITE over it is answered 503.
    pub max_dialogs: usize,
    /// Transactions alive at once; a request over it is answered 503.
    pub max_transactions: usize,
    /// What failed log-ins lead to.
    pub guard: Rules,
    /// Contacts that one account may register.
    pub max_registrations_per_account: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            domain: "tandem.local".to_owned(),
            user_agent: "Tandem".to_owned(),
            udp: SocketAddr::from(([127, 0, 0, 1], 5060)),
            session_expires_s: 1800,
            min_se_s: 90,
            pair_secret: Secret::new([0; 32]),
            digest: vec![Algorithm::Sha256, Algorithm::Md5],
            max_dialogs: 4_000,
            max_transactions: 20_000,
            guard: Rules::default(),
            max_registrations_per_account: 10,
        }
    }
}

/// Where a message came from or goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// A datagram.
    Udp {
        /// The peer.
        remote: SocketAddr,
        /// Our address that the peer knows.
        local: SocketAddr,
    },
    /// A WebSocket message (RFC 7118).
    Ws {
        /// Which socket.
        flow: FlowId,
        /// The browser, as the socket (or a trusted proxy) says.
        remote: SocketAddr,
        /// Our end of it.
        local: SocketAddr,
        /// Whether it is `wss`.
        secure: bool,
    },
}

impl Path {
    /// The peer's address.
    pub fn remote(&self) -> SocketAddr {
        match *self {
            Self::Udp { remote, .. } | Self::Ws { remote, .. } => remote,
        }
    }

    /// Our own address on this path.
    pub fn local(&self) -> SocketAddr {
        match *self {
            Self::Udp { local, .. } | Self::Ws { local, .. } => local,
        }
    }

    /// The socket, if it is a stream of its own.
    pub fn flow(&self) -> Option<FlowId> {
        match *self {
            Self::Udp { .. } => None,
            Self::Ws { flow, .. } => Some(flow),
        }
    }

    /// Whether the transport itself delivers or fails (RFC 3261 section 17: no retransmissions then).
    pub fn is_reliable(&self) -> bool {
        matches!(self, Self::Ws { .. })
    }
}

/// One thing that happened to the SIP machine.
#[derive(Debug, Clone)]
pub enum Input {
    /// A datagram or WebSocket message.
    Received {
        /// Which way it came.
        path: Path,
        /// As it came.
        bytes: Bytes,
    },
    /// A WebSocket is gone.
    FlowClosed(FlowId),
    /// The call centre wants something.
    Command(Command),
}

/// One thing that the SIP machine wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send these bytes.
    Send {
        /// Which way.
        path: Path,
        /// The message.
        bytes: Bytes,
    },
    /// Something happened that the call centre must know.
    Event(Event),
    /// A message was dropped without an answer; one of a small fixed set of reasons, for the counters.
    Dropped(&'static str),
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Prefix {
    /// The network.
    pub address: IpAddr,
    /// Leading bits that count.
    pub bits: u8,
}

impl Prefix {
    /// Whether `address` lies in the range; an IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let shift = 32_u32.saturating_sub(u32::from(self.bits));
                (u32::from(net) ^ u32::from(ip)).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let shift = 128_u32.saturating_sub(u32::from(self.bits));
                (u128::from(net) ^ u128::from(ip)).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// A trunk as SIP must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkAccount {
    /// Its name.
    pub name: TrunkName,
    /// How we know it.
    pub kind: TrunkKind,
    /// For a peer: its addresses. For the others: a fence, if not empty.
    pub accept_from: Vec<Prefix>,
    /// Digest algorithms to challenge it with, strongest first.
    pub digest: Vec<Algorithm>,
    /// How it is asked whether it lives.
    pub health: Health,
    /// Whether our INVITEs to it say that we take reliable provisional answers (RFC 3262).
    pub prack: bool,
    /// What its refusals mean.
    pub profile: Profile,
}

/// How a trunk is asked by OPTIONS whether it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// So often, milliseconds; 0 is only after a call got no answer.
    pub every_ms: u64,
    /// How long its answer may take, milliseconds.
    pub timeout_ms: u64,
}

/// An account of ours at a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Digest user, also the user of our address there, and password.
    pub login: Login,
    /// Host of our address there.
    pub domain: String,
    /// The realm that may ask for the password; `None` is the one that its registrar names first.
    pub realm: Option<String>,
    /// Where we register and call, the first that answers; never empty.
    pub servers: Vec<SocketAddr>,
    /// For how long we ask to be registered, seconds.
    pub expires_s: u32,
}

/// How a trunk is known and reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrunkKind {
    /// It registers with us and is called where it registered from.
    Gateway {
        /// Its digest user.
        username: String,
        /// What its password hashes to.
        ha1: Ha1,
    },
    /// It has fixed addresses.
    Peer {
        /// Where we send; `None` for a trunk that only calls us.
        server: Option<SocketAddr>,
    },
    /// We register with it and call it where we registered.
    Provider(Box<Provider>),
}

/// What the call centre wants of SIP.
#[derive(Debug, Clone)]
pub enum Command {
    /// The trunks, all of them; replaces those told before. Live calls of a trunk that is gone go on.
    Trunks(Vec<TrunkAccount>),
    /// The node stops: our registrations with providers are taken back. See [`super::Sip::is_leaving`].
    Leave,
    /// From now on this operator's phone may log in with this key; several keys may be valid at once.
    Phone {
        /// Whose phone; also the digest user.
        operator: OperatorName,
        /// Names the key, for instance the session's id.
        key: String,
        /// What the phone proves it knows.
        ha1: Ha1,
    },
    /// The key is void. With the last key of an operator his phones are unregistered.
    ForgetPhone {
        /// Whose.
        operator: OperatorName,
        /// Which.
        key: String,
    },
    /// Begin an outgoing leg. `Failed` with 480 at once if the party cannot be reached now.
    Invite {
        /// Its id, from [`super::Sip::new_leg`].
        leg: LegId,
        /// Whom.
        to: Party,
        /// User of the request URI for a trunk; ignored for an operator.
        number: Number,
        /// User of From and P-Asserted-Identity; withheld: `anonymous`, RFC 3323.
        show: Number,
        /// Display name of From; empty for none.
        display: String,
        /// Further headers, as name and value (`Call-Info`, `X-Tandem-Call`…).
        headers: Vec<(String, String)>,
        /// Our offer.
        sdp: Bytes,
        /// How long it may ring before we cancel it, milliseconds (timer C).
        ring_ms: u64,
    },
    /// 180 to an incoming leg.
    Ring {
        /// Which.
        leg: LegId,
    },
    /// 183 with sound to an incoming leg.
    Progress {
        /// Which.
        leg: LegId,
        /// Our answer.
        sdp: Bytes,
    },
    /// 200 to an incoming leg.
    Answer {
        /// Which.
        leg: LegId,
        /// Our answer, or our offer if the INVITE had none.
        sdp: Bytes,
    },
    /// A final refusal to an incoming leg; `Ended` follows at once.
    Reject {
        /// Which.
        leg: LegId,
        /// SIP status, 300…699; anything else is sent as 480.
        code: u16,
        /// Why, for the Reason header.
        cause: Cause,
    },
    /// Our re-INVITE. Sent as soon as the dialog allows: after the ACK, and after a change that is
    /// under way. Answered by `ChangeAnswered` or `ChangeRefused`.
    Offer {
        /// Which.
        leg: LegId,
        /// Our offer.
        sdp: Bytes,
    },
    /// 200 to the change that `Event::Offered` told of: our answer, or our offer if it had none.
    AnswerChange {
        /// Which.
        leg: LegId,
        /// Our description.
        sdp: Bytes,
    },
    /// Refuses the change that `Event::Offered` told of; the call goes on as it was.
    RefuseChange {
        /// Which.
        leg: LegId,
        /// SIP status, for instance 488.
        code: u16,
    },
    /// Ends the leg: CANCEL, final response or BYE, whichever its state asks. `Ended` follows at once, or
    /// for an outgoing leg before its answer `Failed` with 487 and [`Way::Cancelled`].
    HangUp {
        /// Which.
        leg: LegId,
        /// Why, for the Reason header.
        cause: Cause,
    },
    /// Answers the REFER that `Event::Referred` told of: 202, or a refusal.
    AnswerRefer {
        /// Which.
        leg: LegId,
        /// SIP status; 202 takes it.
        code: u16,
    },
    /// Tells a leg what became of its REFER, by NOTIFY.
    ReferProgress {
        /// Which.
        leg: LegId,
        /// SIP status of the new call; from 200 on it is the last word.
        code: u16,
    },
    /// A digit by INFO (`application/dtmf-relay`).
    SendDigit {
        /// Which.
        leg: LegId,
        /// `0-9 * # A-D`.
        digit: char,
        /// How long, milliseconds.
        duration_ms: u32,
    },
}

/// Who failed when an outgoing leg did not come up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// A person (or his number) said no, or did not answer: another trunk would not help.
    Person,
    /// The way failed: another trunk may help.
    Way,
    /// We cancelled it ourselves.
    Cancelled,
}

/// A name or number that an incoming INVITE carries, in message order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Header it stands in: `From`, `P-Asserted-Identity`, `Remote-Party-ID`,
    /// `P-Preferred-Identity`, `Diversion`, `History-Info`; always spelt so.
    pub header: String,
    /// User part of its URI, unescaped (for `tel:` the number).
    pub user: String,
    /// Its display name.
    pub display: String,
}

/// A call that comes in.
#[derive(Debug, Clone, PartialEq)]
pub struct Invited {
    /// The leg it makes.
    pub leg: LegId,
    /// Who calls, as proved by registration, digest or address, never by From.
    pub from: Party,
    /// Which way it came.
    pub path: Path,
    /// User part of the request URI, unescaped.
    pub to_user: String,
    /// User part of the To header, unescaped; differs from `to_user` on some gateways.
    pub dialled: String,
    /// Display name of From.
    pub display: String,
    /// Everything that may say who the caller is, in message order.
    pub identities: Vec<Identity>,
    /// Whether the caller asked for privacy (RFC 3323) or is `anonymous`.
    pub private: bool,
    /// The offer; empty if the INVITE had none.
    pub sdp: Bytes,
    /// The leg of the same party whose place it takes (RFC 3891).
    pub replaces: Option<LegId>,
}

/// What SIP tells the call centre.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Our INVITE to a trunk went out, first or again: from now on its party may send sound (RFC 3264
    /// section 5.1), whatever it answers.
    InviteSent {
        /// Which leg.
        leg: LegId,
        /// The address that it went to.
        to: IpAddr,
    },
    /// A call comes in; it has got 100 Trying and waits for `Ring`, `Progress`, `Answer`, `Reject`.
    Invited(Box<Invited>),
    /// The far phone rings (180, or 183 without sound).
    Rang {
        /// Which leg.
        leg: LegId,
    },
    /// Sound before the answer.
    EarlyMedia {
        /// Which leg.
        leg: LegId,
        /// The answer to our offer.
        sdp: Bytes,
    },
    /// Our outgoing leg was answered; ACK is sent.
    Answered {
        /// Which leg.
        leg: LegId,
        /// The answer to our offer.
        sdp: Bytes,
    },
    /// The answer to our offer in a provisional answer came in its PRACK; the incoming leg still rings.
    PreAnswered {
        /// Which leg.
        leg: LegId,
        /// The answer.
        sdp: Bytes,
    },
    /// The ACK to our 200 came: the incoming leg is up.
    Confirmed {
        /// Which leg.
        leg: LegId,
        /// The ACK's description: the answer if the INVITE had no offer.
        sdp: Option<Bytes>,
    },
    /// Our outgoing leg is sent elsewhere (3xx); `Failed` follows at once.
    Redirected {
        /// Which leg.
        leg: LegId,
        /// The digits of the new place; its host is nobody's business.
        to: String,
    },
    /// Our outgoing leg did not come up; it is over.
    Failed {
        /// Which leg.
        leg: LegId,
        /// SIP status; 408 if nothing answered.
        code: u16,
        /// Why.
        cause: Cause,
        /// Who failed.
        way: Way,
    },
    /// The peer wants a change; to be answered by `AnswerChange` or `RefuseChange`.
    Offered {
        /// Which leg.
        leg: LegId,
        /// Its offer; `None` asks for ours.
        sdp: Option<Bytes>,
    },
    /// The peer's answer: to our `Offer`, or in the ACK to our `AnswerChange` when `Offered` had none.
    ChangeAnswered {
        /// Which leg.
        leg: LegId,
        /// Its answer.
        sdp: Bytes,
    },
    /// Our `Offer` was refused; the call goes on as it was.
    ChangeRefused {
        /// Which leg.
        leg: LegId,
        /// SIP status.
        code: u16,
    },
    /// The peer asks that his call be connected elsewhere; to be answered by `AnswerRefer`.
    Referred {
        /// Which leg.
        leg: LegId,
        /// User part of Refer-To: a number or a name of ours, not yet checked.
        to: String,
        /// The peer's other leg whose place the call shall take.
        replaces: Option<LegId>,
    },
    /// A digit came by INFO.
    Digit {
        /// Which leg.
        leg: LegId,
        /// `0-9 * # A-D`.
        digit: char,
        /// How long, milliseconds.
        duration_ms: u32,
    },
    /// The leg is over.
    Ended {
        /// Which leg.
        leg: LegId,
        /// Why.
        cause: Cause,
        /// Whether the peer ended it, rather than we.
        by_peer: bool,
    },
    /// A phone or gateway registered, refreshed, or is reached another way now.
    Registered {
        /// Who.
        who: Party,
        /// Which of its devices is called: `+sip.instance`, or the contact URI.
        instance: String,
        /// Which way it is reached.
        path: Path,
        /// For how long, seconds.
        expires_s: u32,
    },
    /// Its last socket closed; the registration stands and the phone may come back.
    PhoneLost {
        /// Who.
        who: Party,
    },
    /// Its last registration is gone.
    Unregistered {
        /// Who.
        who: Party,
        /// `removed`, `expired` or `forgotten`.
        why: &'static str,
    },
    /// A trunk can be called from now on.
    TrunkUp {
        /// Which.
        trunk: TrunkName,
        /// Which way.
        path: Path,
    },
    /// A trunk cannot be called (any more).
    TrunkDown {
        /// Which.
        trunk: TrunkName,
        /// In words for the wallboard.
        why: String,
    },
    /// Failed log-ins led to a lock of an account for a source, or to the ban of a source.
    Banned(Ban),
    /// Somebody unknown was refused.
    Stranger {
        /// Which way it came.
        path: Path,
        /// What it asked.
        method: String,
        /// `unknown user`, `wrong password`, `banned`, `not allowed`, `outside the fence`; for the counters.
        why: &'static str,
        /// Whether it is a failed log-in with a nonce that we gave to that very source: only this
        /// may count towards a ban.
        guessed: bool,
    },
}

/// How much the machine holds, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Legs in any state.
    pub legs: usize,
    /// Transactions of all four kinds.
    pub transactions: usize,
    /// Registered contacts.
    pub registrations: usize,
    /// Armed timers.
    pub timers: usize,
}
