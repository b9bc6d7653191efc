//! DTLS of a browser leg, by `dimpl`. (Signatures first; bodies follow.)
use std::time::Instant;
use std::sync::Arc;
use crate::media::command::Keys;
use crate::terms::{MonoMs, Secret};

/// Certificate (DER) and its PKCS#8 key (DER).
#[derive(Debug, Clone)]
pub struct Identity { /// DER.
    pub certificate: Vec<u8>, /// PKCS#8 DER.
    pub key: Secret<Vec<u8>> }
/// The certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("DTLS identity: {0}")]
pub struct DtlsError(pub String);
/// What all handshakes of the process share (`Clone` is cheap): built once by the edge.
#[derive(Clone)]
pub struct DtlsParty { _x: Arc<()> }
impl DtlsParty {
    /// Takes 5 ms. `base` is the edge's `Instant` at `base_ms` of its monotonic clock.
    pub fn new(_identity: &Identity, _base: Instant, _base_ms: MonoMs) -> Result<Self, DtlsError> { unimplemented!() }
    /// SHA-256 of our certificate, for SDP.
    pub fn fingerprint(&self) -> [u8; 32] { unimplemented!() }
    /// The passive end of one handshake.
    pub fn server(&self, _now: MonoMs) -> Box<dyn Handshake> { unimplemented!() }
    /// The active end; `poll` has its ClientHello.
    pub fn client(&self, _now: MonoMs) -> Box<dyn Handshake> { unimplemented!() }
}
/// Whether the peer's certificate is the one its SDP promised.
pub fn is_promised(_secured: &Secured, _promised: &[u8; 32]) -> bool { unimplemented!() }
/// Whether a datagram begins a new association: after a failure or a restore a new `server` is made only for such.
pub fn is_client_hello(_datagram: &[u8]) -> bool { unimplemented!() }
/// The handshake is done. Compare `fingerprint` with the SDP before any media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secured { /// Split for our role.
    pub keys: Keys, /// SHA-256 of the peer's certificate.
    pub fingerprint: [u8; 32] }
/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum DtlsOutput { /// Send it.
    Datagram(Vec<u8>), /// Once.
    Secured(Secured), /// The peer said close_notify (authenticated).
    Closed, /// Over: drop it.
    Failed(String) }
/// One association.
pub trait Handshake: Send {
    /// A datagram came.
    fn handle(&mut self, datagram: &[u8], now: MonoMs);
    /// What to do; drain until `None` after each other call.
    fn poll(&mut self) -> Option<DtlsOutput>;
    /// When to call `handle_timeout`.
    fn next_timeout(&self) -> Option<MonoMs>;
    /// Time passed.
    fn handle_timeout(&mut self, now: MonoMs);
    /// Says close_notify, if the handshake is done.
    fn close(&mut self, now: MonoMs);
}
