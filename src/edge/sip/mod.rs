//! The ways a SIP message comes in and goes out: datagrams and WebSockets.
//!
//! Invariant: nothing here understands SIP. Bytes that a peer sent reach the engine or are dropped
//! and counted; no peer can make this side wait or grow.

pub mod udp;
pub mod ws;

use crate::edge::metrics::Metrics;

pub use udp::Udp;

/// Largest SIP message that is taken from any transport, bytes.
pub const MESSAGE_MAX_BYTES: usize = 64 * 1024;

/// Methods that have a counter of their own; anything else that looks like a request is `other`.
const METHODS: [&str; 14] = [
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "REGISTER",
    "OPTIONS",
    "PRACK",
    "UPDATE",
    "INFO",
    "REFER",
    "NOTIFY",
    "SUBSCRIBE",
    "MESSAGE",
    "PUBLISH",
];

/// Counts a message that passed. `direction` is `in` or `out`, `transport` `udp`, `ws` or `wss`.
pub fn count(metrics: &Metrics, transport: &'static str, direction: &'static str, bytes: &[u8]) {
    metrics.sip_message(transport, method_label(bytes), direction);
}

/// The method of a request, `response`, or `other`: never a word that a stranger chose.
fn method_label(bytes: &[u8]) -> &'static str {
    let word = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
    if word.starts_with(b"SIP/2.0") {
        return "response";
    }
    METHODS.iter().find(|method| method.as_bytes() == word).copied().unwrap_or("other")
}

/// Whether these bytes are a keep-alive and nothing else (RFC 5626 section 3.5.1, RFC 3261 section 7.5).
fn is_keep_alive(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_never_a_strangers_word() {
        assert_eq!(method_label(b"INVITE sip:a@b SIP/2.0\r\n"), "INVITE");
        assert_eq!(method_label(b"SIP/2.0 200 OK\r\n"), "response");
        assert_eq!(method_label(b"EVIL{} x"), "other");
        assert_eq!(method_label(b""), "other");
    }

    #[test]
    fn only_line_ends_are_a_keep_alive() {
        assert!(is_keep_alive(b"\r\n\r\n") && is_keep_alive(b""));
        assert!(!is_keep_alive(b"\r\nOPTIONS"));
    }
}
