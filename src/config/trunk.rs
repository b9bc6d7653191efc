//! `[[trunk]]`: one configured way to the telephone network.

use crate::config::Cidr;
use crate::dialplan::Rule;
use crate::terms::{Number, Secret, TrunkName};

/// One `[[trunk]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Trunk {
    /// Its name; unique.
    pub name: TrunkName,
    /// Who registers where.
    pub kind: TrunkKind,
    /// Digest user; never empty for a gateway or provider.
    pub username: String,
    /// Digest password; never empty for a gateway or provider.
    pub password: Secret<String>,
    /// `host` or `host:port` where calls are sent, and where we register with a provider, the first that
    /// answers; one for a peer, at least one for a provider, none for a gateway.
    pub servers: Vec<String>,
    /// Host of our address at a provider; empty is the host of its first server.
    pub domain: String,
    /// The realm that may ask for our password at a provider; empty is the one that its registrar names.
    pub realm: String,
    /// For how long we ask a provider to register us.
    pub expires_ms: u64,
    /// For a peer: where its calls come from. For the others: a fence, empty is none.
    pub accept_from: Vec<Cidr>,
    /// How often it is asked by OPTIONS whether it lives; 0 is only after a call got no answer.
    pub health_every_ms: u64,
    /// How long its answer may take.
    pub health_timeout_ms: u64,
    /// How it is reached.
    pub transport: Transport,
    /// Calls at one time.
    pub channels: u32,
    /// Lines it carries; to show and to route.
    pub numbers: Vec<Number>,
    /// Where the caller's number stands: the first that holds one wins.
    pub caller_from: Vec<CallerHeader>,
    /// Caller ID → E.164, before `[numbers] rules` (see [`crate::config::Config::caller_rules`]).
    pub number_rules: Vec<Rule>,
    /// E.164 → what this trunk wants dialled.
    pub dial_rules: Vec<Rule>,
    /// Strongest first in challenges.
    pub digest: Vec<DigestHash>,
    /// In order of preference.
    pub codecs: Vec<Codec>,
    /// How digits are sent.
    pub dtmf: Dtmf,
    /// When a call from this trunk is answered.
    pub answer: AnswerWhen,
    /// Whether it is told that we take reliable provisional answers (RFC 3262).
    pub prack: bool,
    /// Whether it may send calls on to other numbers (3xx).
    pub redirects: bool,
    /// Whose habits it has.
    pub profile: Profile,
}

impl Trunk {
    /// A gateway with every default and no password.
    pub fn named(name: impl Into<TrunkName>) -> Self {
        let name = name.into();
        Self {
            username: name.as_str().to_owned(),
            name,
            kind: TrunkKind::Gateway,
            password: Secret::new(String::new()),
            servers: Vec::new(),
            domain: String::new(),
            realm: String::new(),
            expires_ms: 10 * 60_000,
            accept_from: Vec::new(),
            health_every_ms: 0,
            health_timeout_ms: 4_000,
            transport: Transport::Udp,
            channels: 8,
            numbers: Vec::new(),
            caller_from: Profile::Generic.caller_from(),
            number_rules: Vec::new(),
            dial_rules: vec![Rule { strip: "+".into(), add: String::new() }],
            digest: vec![DigestHash::Sha256, DigestHash::Md5],
            codecs: vec![Codec::Pcma, Codec::Pcmu],
            dtmf: Dtmf::Rfc4733,
            answer: AnswerWhen::AtOnce,
            prack: true,
            redirects: true,
            profile: Profile::Generic,
        }
    }
}

/// Who registers where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrunkKind {
    /// It registers with us.
    Gateway,
    /// Fixed addresses on both sides.
    Peer,
    /// We register with it.
    Provider,
}

impl TrunkKind {
    /// The word of the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Peer => "peer",
            Self::Provider => "provider",
        }
    }
}

/// How SIP travels to a trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp,
}

/// A header that may hold the caller's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerHeader {
    /// RFC 3325.
    PAssertedIdentity,
    /// RFC 3325; some gateways put the GSM number here.
    PPreferredIdentity,
    /// Before RFC 3325, and still usual.
    RemotePartyId,
    /// RFC 3261 section 20.20.
    From,
    /// The display name of From, where some gateways put the number.
    DisplayName,
}

impl CallerHeader {
    /// The header's name; `display` is From's display name.
    pub fn name(self) -> &'static str {
        match self {
            Self::PAssertedIdentity => "P-Asserted-Identity",
            Self::PPreferredIdentity => "P-Preferred-Identity",
            Self::RemotePartyId => "Remote-Party-ID",
            Self::From => "From",
            Self::DisplayName => "display",
        }
    }
}

/// A digest algorithm (RFC 7616).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestHash {
    /// SHA-256.
    Sha256,
    /// MD5.
    Md5,
}

/// A law of G.711.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// A-law, payload type 8.
    Pcma,
    /// µ-law, payload type 0.
    Pcmu,
}

/// How digits are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtmf {
    /// As RTP events.
    Rfc4733,
}

/// When a call from a trunk is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerWhen {
    /// Before the first step of the dialplan.
    AtOnce,
}

/// Whose habits a gateway has: where caller ID sits and what its causes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As the RFCs say.
    Generic,
    /// HyberTone and DBL.
    Goip,
    /// Dinstar.
    Dinstar,
    /// OpenVox.
    Openvox,
    /// Yeastar.
    Yeastar,
    /// 2N.
    TwoN,
}

impl Profile {
    /// Where its kind of gateway puts the caller's number, where the configuration does not say.
    pub fn caller_from(self) -> Vec<CallerHeader> {
        use CallerHeader::{DisplayName, From, PAssertedIdentity, PPreferredIdentity, RemotePartyId};
        match self {
            Self::Generic | Self::Openvox | Self::Yeastar => vec![PAssertedIdentity, RemotePartyId, From],
            // Its From is the line's own user, unless it is told to use the caller's number there.
            Self::Goip => vec![RemotePartyId, PAssertedIdentity, From],
            Self::Dinstar => vec![PAssertedIdentity, RemotePartyId, From, DisplayName],
            Self::TwoN => vec![PAssertedIdentity, PPreferredIdentity, RemotePartyId, From, DisplayName],
        }
    }
}
