//! Reading costs what the length deserves, whatever the input: counted, not timed.

use bytes::Bytes;

use crate::sip::message::{MAX_HEADERS, MAX_MESSAGE, Message};
use crate::sip::steps;

/// Steps an octet of this message.
fn cost(message: Vec<u8>) -> f64 {
    assert!(message.len() <= MAX_MESSAGE, "{}", message.len());
    let message = Bytes::from(message);
    steps::taken();
    drop(Message::read_datagram(&message));
    steps::taken() as f64 / message.len() as f64
}

const HEAD: &str = "INVITE sip:1@example.com SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\
    Max-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:1@example.com>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n";

/// Fills up to the longest message with this piece, again and again.
fn filled(before: &str, piece: &str, after: &str) -> Vec<u8> {
    let room = MAX_MESSAGE - before.len() - after.len();
    [before, &piece.repeat(room / piece.len()), after].concat().into_bytes()
}

#[test]
fn the_worst_64_kb_cost_no_more_an_octet_than_ten_times_an_ordinary_message() {
    let invite = include_bytes!("../../../fixtures/sip/jssip/op1-with-gateway/05-in-INVITE-sendrecv.sip");
    let ordinary = cost(invite.to_vec());
    assert!(ordinary > 1.0, "nothing is counted: {ordinary}");
    let named = |name: &str| format!("{HEAD}{name}");
    let long_params: String = (0..63).map(|n| format!(";{}{n}=1", "p".repeat(1_000))).collect();
    let table: [(&str, Vec<u8>); 22] = [
        ("line ends before the start", filled("", "\r\n", "INVITE sip:a SIP/2.0\r\n\r\n")),
        ("nothing but line ends", filled("", "\n", "")),
        ("one endless word", filled("", "A", "")),
        ("spaces in the start line", filled("INVITE", " ", "sip:a@b SIP/2.0\r\n\r\n")),
        ("a long Request-URI", filled("INVITE sip:", "a", "@b SIP/2.0\r\n\r\n")),
        ("separators in the Request-URI", filled("INVITE sip:a@b", ";?@:", " SIP/2.0\r\n\r\n")),
        ("headers of one letter", filled(HEAD, "a:\r\n", "\r\n")),
        ("headers without colon", filled(HEAD, "x\r\n", "\r\n")),
        ("folds", filled(&named("Subject: a"), "\r\n b", "\r\n\r\n")),
        ("empty folds", filled(&named("Subject: a"), "\r\n ", "\r\n\r\n")),
        ("folds of spaces", filled(&named("Subject: a"), "\r\n          ", "\r\n\r\n")),
        ("commas", filled(&named("Via: "), ",", "\r\n\r\n")),
        ("Vias", filled(&named("Via: a"), ",SIP/2.0/UDP a", "\r\n\r\n")),
        ("open quotes", filled(&named("From: "), "\"", "\r\n\r\n")),
        ("backslashes", filled(&named("From: \""), "\\", "\"\r\n\r\n")),
        ("angles", filled(&named("To: "), "<", "\r\n\r\n")),
        ("parameters", filled(&named("To: <sip:a@b>"), ";a", "\r\n\r\n")),
        ("equals", filled(&named("To: <sip:a@b>;a"), "=", "\r\n\r\n")),
        (
            "long parameters that begin alike",
            named(&format!("Contact: <sip:a@b>{long_params}\r\n\r\n")).into_bytes(),
        ),
        ("escapes", filled(&named("Contact: <sip:"), "%41", "@b>\r\n\r\n")),
        ("digits", filled(&named("Content-Length: "), "1", "\r\n\r\n")),
        (
            "octets that are no text",
            [HEAD.as_bytes(), b"Subject: ", &vec![0xff; 60_000], b"\r\n\r\n"].concat(),
        ),
    ];
    for (what, message) in table {
        assert!(message.len() > MAX_MESSAGE - 6_000, "{what}: {}", message.len());
        let worst = cost(message);
        assert!(worst <= 10.0 * ordinary, "{what}: {worst:.1} steps an octet, ordinary {ordinary:.1}");
    }
}

#[test]
fn twice_the_headers_cost_twice_the_steps() {
    let steps = |headers: usize| {
        let message = [HEAD, &"X-Some: thing\r\n".repeat(headers), "\r\n"].concat();
        let octets = message.len() as f64;
        cost(message.into_bytes()) * octets
    };
    let (half, whole) = (steps(MAX_HEADERS / 2 - 10), steps(MAX_HEADERS - 20));
    assert!(whole < 2.2 * half, "{half} and {whole}");
}
