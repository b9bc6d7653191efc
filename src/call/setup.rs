//! What calls must be told: trunks, numbers, media addresses, limits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::dialplan::{Plan, Rule};
use crate::sdp::negotiate::Codec;
use crate::terms::{QueueName, TrunkName};

/// One trunk as calls must know it.
#[derive(Debug, Clone)]
pub struct Trunk {
    /// Its name.
    pub name: TrunkName,
    /// Calls it carries at once.
    pub channels: u32,
    /// Headers that may hold the caller's number (`display`: From's display name); the first that does wins.
    pub caller_from: Vec<String>,
    /// The trunk's own user, which is nobody's number; empty for none.
    pub account: String,
    /// Caller ID → E.164, this trunk's own rules before the house's.
    pub number_rules: Vec<Rule>,
    /// E.164 → what this trunk wants dialled.
    pub dial_rules: Vec<Rule>,
    /// Codecs it takes, best first.
    pub codecs: Vec<Codec>,
    /// Whether nothing is sent to it before its address is proved by an ACK (a peer or provider over UDP).
    pub unproved: bool,
    /// Whether it may send our calls on to other numbers (3xx).
    pub redirects: bool,
    /// The number it shows and is routed by when the called number is missing.
    pub line: Option<String>,
}

/// One queue as calls must know it.
#[derive(Debug, Clone)]
pub struct Queue {
    /// Its name.
    pub name: QueueName,
    /// What waiting callers hear.
    pub music: String,
}

/// Where media goes.
#[derive(Debug, Clone)]
pub struct MediaSetup {
    /// Even ports that RTP legs may use.
    pub rtp_ports: Vec<u16>,
    /// The shared browser port of each worker.
    pub webrtc_ports: Vec<u16>,
    /// The address told to peers; `None`: the one their signalling came to.
    pub address: Option<IpAddr>,
    /// The address told where no signalling came yet.
    pub fallback: IpAddr,
    /// SHA-256 of the DTLS certificate.
    pub fingerprint: [u8; 32],
}

/// Named limits.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Calls alive at once.
    pub calls: usize,
    /// New calls in any second.
    pub calls_per_second: u32,
    /// Numbers that pass every guard.
    pub emergency: Vec<String>,
    /// The longest a call may talk, milliseconds.
    pub call_duration_ms: u64,
    /// Prefixes that may be dialled; empty: any.
    pub destinations: Vec<String>,
    /// Calls that one operator may dial in a minute.
    pub operator_calls_per_minute: u32,
}

/// Everything calls are told at start and on reload.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Our SIP domain.
    pub domain: String,
    /// By name.
    pub trunks: BTreeMap<TrunkName, Trunk>,
    /// By name.
    pub queues: BTreeMap<QueueName, Queue>,
    /// The dialplan.
    pub plan: Arc<Plan>,
    /// What people type → E.164.
    pub numbers: Vec<Rule>,
    /// Media.
    pub media: MediaSetup,
    /// Limits.
    pub limits: Limits,
    /// Local time for opening hours.
    pub zone: jiff::tz::TimeZone,
    /// What is played to both parties when the longest talk time is over.
    pub time_is_up: String,
}
