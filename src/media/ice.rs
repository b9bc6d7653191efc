//! ICE-lite (RFC 8445) and the checks of a full agent. (Signatures first; bodies follow.)
use std::net::SocketAddr;
use crate::terms::{MonoMs, Secret};
use serde::{Deserialize, Serialize};

/// `(ours, theirs)` of a binding request's USERNAME, unauthenticated: to find the port on a shared socket.
pub fn stun_username(_datagram: &[u8]) -> Option<(&str, &str)> { unimplemented!() }
/// Whether it looks like STUN (first octet, length, cookie).
pub fn is_stun(_datagram: &[u8]) -> bool { unimplemented!() }

/// What a restore needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceState { /// Our ufrag.
    pub ufrag: String, /// Our pwd.
    pub pwd: Secret<String>, /// Theirs, once known from SDP.
    pub remote_ufrag: Option<String>, /// Where media goes.
    pub nominated: Option<SocketAddr> }

/// The responder.
pub struct IceLite { }
/// What a datagram led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked { /// Authenticated: send `reply` back to `from`; `nominated` when the pair of media is now another one.
    Reply { /// datagram
        reply: Vec<u8>, /// became the nominated address by this check
        nominated: bool }, /// Not for us or not authentic: say nothing, count it.
    Dropped }
impl IceLite {
    /// New or restored.
    pub fn new(_state: IceState) -> Self { unimplemented!() }
    /// For the record.
    pub fn state(&self) -> IceState { unimplemented!() }
    /// The remote ufrag, from SDP; before it is known any is accepted (early checks).
    pub fn set_remote_ufrag(&mut self, _ufrag: &str) { unimplemented!() }
    /// ICE restart: new credentials, the nominated address stays until a new one.
    pub fn restart(&mut self, _ufrag: String, _pwd: Secret<String>) { unimplemented!() }
    /// A STUN datagram from `from`.
    pub fn handle(&mut self, _datagram: &[u8], _from: SocketAddr, _now: MonoMs) -> Checked { unimplemented!() }
    /// Whether a check with our password came from there: DTLS and media are taken only from such (D-04).
    pub fn is_validated(&self, _from: SocketAddr) -> bool { unimplemented!() }
    /// Where media goes.
    pub fn nominated(&self) -> Option<SocketAddr> { unimplemented!() }
    /// Nominated, else the last validated: DTLS may be answered before nomination.
    pub fn best(&self) -> Option<SocketAddr> { unimplemented!() }
    /// Time of the last authenticated check (consent, RFC 7675).
    pub fn last_check(&self) -> Option<MonoMs> { unimplemented!() }
}
