//! SIP messages: octets in, a value out, and back. Everything the call centre hears from phones, gateways
//! and browsers on the signalling side comes through [`Message::read_datagram`].
//!
//! Invariant: lenient in, strict out. Reading takes linear time, copies nothing it does not have to
//! and is bounded by [`MAX_MESSAGE`], [`MAX_HEADERS`] and [`MAX_VIA`]; a header that nobody touched is
//! written with the name, the value and the place it came with, the body octet for octet; what is written
//! never holds a line end inside a header and always one right Content-Length.
//! This is the only file that knows the crate `rsip`.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

mod headers;
mod names;
mod read;
mod typed;
mod write;

pub use headers::{Header, Headers};
pub use names::Name;

/// The longest message taken, octets (a UDP datagram can hold no more).
pub const MAX_MESSAGE: usize = 65_536;
/// The most header lines taken in one message.
pub const MAX_HEADERS: usize = 128;
/// The most Via hops taken in one message: it came in a loop.
pub const MAX_VIA: usize = 64;

/// A request or a response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Something is asked.
    Request(Request),
    /// Something is answered.
    Response(Response),
}

/// A request (RFC 3261 section 7.1). Its body never prints: it may hold ICE passwords and digits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What is asked.
    pub method: Method,
    /// Of whom: as it came, or as it is to be sent.
    pub uri: Bytes,
    /// The header lines in order.
    pub headers: Headers,
    /// The body, octet for octet.
    pub body: Bytes,
}

/// A response (RFC 3261 section 7.2). Its body never prints.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// 100…699.
    pub code: u16,
    /// The reason phrase as it came, or as it is to be sent.
    pub reason: Bytes,
    /// The header lines in order.
    pub headers: Headers,
    /// The body, octet for octet.
    pub body: Bytes,
}

impl Request {
    /// A request with no headers yet.
    pub fn new(method: Method, uri: impl Into<Bytes>) -> Self {
        Self { method, uri: uri.into(), headers: Headers::default(), body: Bytes::new() }
    }
}

impl Response {
    /// A response with no headers yet and the usual phrase for its code.
    pub fn new(code: u16) -> Self {
        let reason = Bytes::from(default_reason(code));
        Self { code, reason, headers: Headers::default(), body: Bytes::new() }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = String::from_utf8_lossy(&self.uri);
        write!(f, "{} {uri:?} {:?} + {} octets", self.method, self.headers, self.body.len())
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = String::from_utf8_lossy(&self.reason);
        write!(f, "{} {reason:?} {:?} + {} octets", self.code, self.headers, self.body.len())
    }
}

/// Why something that came is no message to act on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// Nothing but line ends or NUL: a keep-alive. Not counted as bad.
    #[error("keep-alive")]
    KeepAlive,
    /// Longer than [`MAX_MESSAGE`]: a counted drop.
    #[error("message too long")]
    TooLong,
    /// A bad request of which enough is readable to answer it with `code` and `why`.
    #[error("{code} {why}")]
    Bad {
        /// As much as could be read; Via, From, To, Call-ID and CSeq are there and can be echoed.
        partial: Box<Request>,
        /// 400, 413 or 505.
        code: u16,
        /// The reason phrase of the answer.
        why: &'static str,
    },
    /// A bad response, an ACK that is bad, or nothing that could be answered: a counted drop.
    #[error("{0}")]
    Unanswerable(&'static str),
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident => $rsip:ident),+ $(,)?) => {
        /// What a request asks.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Method {
            $($(#[$doc])* $name,)+
            /// An extension, as spelled: a token.
            Other(Bytes),
        }

        impl Method {
            /// The method of rsip's vocabulary, if it has it.
            #[cfg(test)]
            fn known() -> Vec<(Self, rsip::Method)> {
                vec![$((Self::$name, rsip::Method::$rsip)),+]
            }
        }
    };
}
methods! {
    /// Begins a call or changes its media.
    Invite => Invite,
    /// Confirms the final answer to an INVITE.
    Ack => Ack,
    /// Ends a call.
    Bye => Bye,
    /// Takes a request back.
    Cancel => Cancel,
    /// Says where a phone is.
    Register => Register,
    /// Asks what is possible; a ping.
    Options => Options,
    /// Carries digits within a call.
    Info => Info,
    /// Changes a session before or after it is answered.
    Update => Update,
    /// Confirms a provisional answer.
    Prack => PRack,
    /// Asks for a transfer.
    Refer => Refer,
    /// Reports an event.
    Notify => Notify,
    /// Asks for events.
    Subscribe => Subscribe,
    /// Carries a text message.
    Message => Message,
    /// Publishes state.
    Publish => Publish,
}

impl Method {
    /// The method with this spelling. Methods are case-sensitive (RFC 3261 section 7.1).
    pub fn read(text: &[u8]) -> Self {
        match text {
            b"INVITE" => Self::Invite,
            b"ACK" => Self::Ack,
            b"BYE" => Self::Bye,
            b"CANCEL" => Self::Cancel,
            b"REGISTER" => Self::Register,
            b"OPTIONS" => Self::Options,
            b"INFO" => Self::Info,
            b"UPDATE" => Self::Update,
            b"PRACK" => Self::Prack,
            b"REFER" => Self::Refer,
            b"NOTIFY" => Self::Notify,
            b"SUBSCRIBE" => Self::Subscribe,
            b"MESSAGE" => Self::Message,
            b"PUBLISH" => Self::Publish,
            other => Self::Other(Bytes::copy_from_slice(other)),
        }
    }

    /// As on the wire; empty for an extension that is no text, which the reader never lets in.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Register => "REGISTER",
            Self::Options => "OPTIONS",
            Self::Info => "INFO",
            Self::Update => "UPDATE",
            Self::Prack => "PRACK",
            Self::Refer => "REFER",
            Self::Notify => "NOTIFY",
            Self::Subscribe => "SUBSCRIBE",
            Self::Message => "MESSAGE",
            Self::Publish => "PUBLISH",
            Self::Other(name) => std::str::from_utf8(name).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The usual phrase for a status code, from rsip's vocabulary: `BusyHere` → `Busy Here`.
pub fn default_reason(code: u16) -> String {
    let shown = rsip::StatusCode::from(code).to_string();
    let name = shown.split_once(' ').map_or("", |(_, name)| name);
    let mut phrase = String::with_capacity(name.len().saturating_add(8));
    let mut before = ' ';
    for c in name.chars() {
        if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
            phrase.push(' ');
        }
        phrase.push(c);
        before = c;
    }
    phrase
}
impl Message {
    /// The header lines.
    pub fn headers(&self) -> &Headers {
        match self {
            Self::Request(request) => &request.headers,
            Self::Response(response) => &response.headers,
        }
    }

    /// The header lines, to change.
    pub fn headers_mut(&mut self) -> &mut Headers {
        match self {
            Self::Request(request) => &mut request.headers,
            Self::Response(response) => &mut response.headers,
        }
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        match self {
            Self::Request(request) => &request.body,
            Self::Response(response) => &response.body,
        }
    }

    /// Writes the message. Content-Length is always right: in its place if the message has one, else last.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Request(request) => request.to_bytes(),
            Self::Response(response) => response.to_bytes(),
        }
    }
}
impl From<Request> for Message {
    fn from(request: Request) -> Self {
        Self::Request(request)
    }
}

impl From<Response> for Message {
    fn from(response: Response) -> Self {
        Self::Response(response)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "tests"
    )]
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;

    use super::super::header::Contacts;
    use super::super::uri::Host;
    use super::*;

    fn files(folder: &str) -> Vec<(String, Bytes)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sip").join(folder);
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.retain(|path| path.extension().is_some_and(|ext| ext == "sip"));
        let name = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
        paths.iter().map(|path| (name(path), Bytes::from(std::fs::read(path).unwrap()))).collect()
    }

    fn jssip() -> Vec<(String, Bytes)> {
        ["op1-caller", "op1-with-gateway", "op2-callee"]
            .into_iter()
            .flat_map(|f| files(&format!("jssip/{f}")))
            .collect()
    }

    fn read(text: &str) -> Result<Message, ReadError> {
        Message::read_datagram(&Bytes::copy_from_slice(text.as_bytes()))
    }

    /// A good request with more header lines, and what follows them.
    fn with(more: &str, body: &str) -> String {
        format!(
            "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:f@h>;tag=1\r\n\
             To: <sip:a@b>\r\nCall-ID: c1\r\nCSeq: 1 OPTIONS\r\n{more}\r\n{body}"
        )
    }

    fn why(text: &str) -> (u16, &'static str) {
        match read(text) {
            Err(ReadError::Bad { code, why, .. }) => (code, why),
            Err(ReadError::Unanswerable(why)) => (0, why),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_recorded_message_is_written_as_it_came() {
        let all = jssip();
        assert_eq!(all.len(), 90);
        for (file, text) in all {
            let message = Message::read_datagram(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
            // Kamailio wrote one Via with two spaces, inside the value; nothing else departs from one form.
            assert_eq!(message.to_bytes(), text, "{file}");
            message.headers().vias().unwrap();
            assert!(message.headers().contacts().is_ok(), "{file}");
        }
    }

    #[test]
    fn a_changed_header_changes_its_line_only() {
        for (file, text) in jssip() {
            let mut message = Message::read_datagram(&text).unwrap();
            message.headers_mut().replace_first(Name::CallId, "changed");
            let written = message.to_bytes();
            let (before, after) = (String::from_utf8_lossy(&text), String::from_utf8_lossy(&written));
            let mut differing =
                before.split("\r\n").zip(after.split("\r\n")).filter(|(before, after)| before != after);
            let (was, is) = differing.next().unwrap();
            assert!(was.starts_with("Call-ID: ") && is == "Call-ID: changed", "{file}: {was} {is}");
            assert_eq!(differing.next(), None, "{file}");
            assert_eq!(before.split("\r\n").count(), after.split("\r\n").count(), "{file}");
        }
    }

    #[test]
    fn a_new_body_gets_a_right_length_in_its_old_place() {
        let (_, text) = jssip().into_iter().find(|(file, _)| file == "05-out-INVITE-sendrecv").unwrap();
        let Message::Request(mut invite) = Message::read_datagram(&text).unwrap() else { panic!() };
        let place = invite.headers.iter().position(|h| *h.name() == Name::ContentLength);
        invite.body = Bytes::from_static(b"v=0\r\n");
        let Message::Request(again) = Message::read_datagram(&invite.to_bytes()).unwrap() else { panic!() };
        assert_eq!(again.headers.iter().position(|h| *h.name() == Name::ContentLength), place);
        assert_eq!((again.headers.text(&Name::ContentLength), &again.body[..]), (Some("5"), &b"v=0\r\n"[..]));
    }

    #[test]
    fn the_valid_torture_messages_are_read_and_stay_the_same() {
        let all = files("torture/valid");
        assert!(all.len() >= 25);
        for (file, text) in all {
            let message = Message::read_datagram(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
            let again = Message::read_datagram(&message.to_bytes()).unwrap_or_else(|e| panic!("{file}: {e}"));
            assert_eq!(again.body(), message.body(), "{file}");
            let pairs = message.headers().iter().zip(again.headers().iter());
            for (before, after) in pairs.filter(|(before, _)| *before.name() != Name::ContentLength) {
                assert_eq!((before.spelled(), before.value()), (after.spelled(), after.value()), "{file}");
            }
            message.headers().vias().unwrap_or_else(|e| panic!("{file}: {e}"));
            // RFC 4475 section 3.1.2.13: a Contact that would need brackets is not guessed at.
            assert_eq!(message.headers().contacts().is_ok(), file != "regbadct", "{file}");
        }
    }

    #[test]
    fn the_invalid_torture_messages_are_refused_with_a_reason() {
        let silent = ["audit-via", "bigcode", "insuf", "scalarlg"];
        let all = files("torture/invalid");
        assert!(all.len() >= 20);
        for (file, text) in all {
            match Message::read_datagram(&text) {
                Err(ReadError::Bad { partial, code, .. }) => {
                    assert!(!silent.contains(&file.as_str()), "{file}");
                    assert_eq!(code, if file.starts_with("badvers") { 505 } else { 400 }, "{file}");
                    assert!(partial.headers.has(&Name::Via) && partial.headers.has(&Name::CSeq), "{file}");
                }
                Err(ReadError::Unanswerable(_)) => assert!(silent.contains(&file.as_str()), "{file}"),
                other => panic!("{file}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_unusual_message_means_what_the_rfc_says() {
        let (_, text) = files("torture/valid").into_iter().find(|(file, _)| file == "wsinv").unwrap();
        let message = Message::read_datagram(&text).unwrap();
        let headers = message.headers();
        assert_eq!(headers.to().unwrap().tag(), Some("1918181833n"));
        assert_eq!(headers.from().unwrap().display.as_deref(), Some("J Rosenberg \\\""));
        assert_eq!(headers.cseq(), Ok((9, Method::Invite)));
        assert_eq!(headers.max_forwards(), Ok(Some(68)));
        let vias = headers.vias().unwrap();
        assert_eq!(vias.len(), 3);
        assert_eq!((vias[1].transport.as_str(), vias[1].branch()), ("TCP", Some("z9hG4bK9ikj8")));
        assert_eq!((vias[2].transport.as_str(), vias[2].branch()), ("UDP", Some("z9hG4bK30239")));
        assert_eq!(headers.contacts().unwrap().first().unwrap().q(), Some(330));
        assert_eq!(
            headers.text(&Name::read(b"newfangledheader")),
            Some("newfangled value continued newfangled value")
        );
        assert_eq!(headers.text(&Name::Subject), Some(""));
    }

    #[test]
    fn an_answer_is_not_lost_for_what_steers_nothing_in_it() {
        let more = "Max-Forwards: x\r\nContent-Type: a/b\r\nContent-Type: a/c\r\n";
        assert!(read(&with(more, "").replace("OPTIONS sip:a@b SIP/2.0", "SIP/2.0 200")).is_ok());
        assert_eq!(why(&with(more, "")), (400, "malformed Max-Forwards"));
        assert_eq!(why(&with(more, "").replace(": x", ": 1")), (400, "duplicate header"));
    }

    #[test]
    fn a_second_message_behind_the_first_is_dropped() {
        let (_, text) = files("torture/valid").into_iter().find(|(file, _)| file == "dblreq").unwrap();
        let message = Message::read_datagram(&text).unwrap();
        assert!(
            message.body().is_empty()
                && matches!(&message, Message::Request(r) if r.method == Method::Register)
        );
    }

    #[test]
    fn lengths_are_believed_only_when_they_can_be() {
        let ok = |more: &str, body: &str| read(&with(more, body)).unwrap().body().clone();
        assert_eq!(ok("Content-Length : 3\r\n", "ABCDEF"), "ABC");
        assert_eq!(ok("l:3\r\nContent-Length: 3\r\n", "ABCDEF"), "ABC");
        assert_eq!(ok("", "ABCDEF"), "ABCDEF", "over UDP the body is the rest");
        let great = "malformed Content-Length";
        for (value, phrase) in [
            ("18446744073709551615", "Content-Length greater than the body"),
            ("18446744073709551616", great),
            ("4294967328", "Content-Length greater than the body"),
            ("-1", great),
            ("+1", great),
            ("0x1", great),
            ("", great),
            ("3, 3", great),
            ("3\r\nl: 4", "conflicting Content-Length"),
        ] {
            assert_eq!(why(&with(&format!("Content-Length: {value}\r\n"), "ABC")), (400, phrase), "{value}");
        }
    }

    #[test]
    fn every_flaw_has_its_phrase() {
        let good = with("", "");
        for (text, code, phrase) in [
            (good.replace("1 OPTIONS", "1 INVITE"), 400, "CSeq method mismatch"),
            (good.replace("1 OPTIONS", "2147483648 OPTIONS"), 400, "CSeq number too great"),
            (good.replace("1 OPTIONS", "4294967297 OPTIONS"), 400, "CSeq number too great"),
            (good.replace("1 OPTIONS", "OPTIONS"), 400, "malformed CSeq"),
            (with("To: <sip:evil@b>\r\n", ""), 400, "duplicate header"),
            (with("t: <sip:a@b>\r\n", ""), 400, "duplicate header"),
            (with("Bad Header: x\r\n", ""), 400, "malformed header name"),
            (with("no colon here\r\n", ""), 400, "header without colon"),
            (with("X: a\0b\r\n", ""), 400, "control character in header"),
            (with("X: a\rY: b\r\n", ""), 400, "control character in header"),
            (with(&"X: y\r\n".repeat(200), ""), 400, "too many headers"),
            (with(&format!("v: {}\r\n", "SIP/2.0/UDP h,".repeat(64)), ""), 400, "too many Via"),
            (with("Max-Forwards: -1\r\n", ""), 400, "malformed Max-Forwards"),
            (good.replace("<sip:a@b>", "<sip:a b@b>"), 400, "space, quote or control character in URI"),
            (good.replace("sip:a@b SIP", "sip: SIP"), 400, "malformed Request-URI"),
            (good.replace("sip:a@b SIP", "sip::5060 SIP"), 400, "malformed Request-URI"),
            (good.replace("SIP/2.0\r\nVia", "SIP/3.0\r\nVia"), 505, "Version Not Supported"),
            (good.replace("Call-ID: c1\r\n", ""), 0, "missing Call-ID"),
            (good.replace("Via: SIP/2.0/UDP h;branch=z9hG4bK1\r\n", ""), 0, "missing Via"),
            (good.replace("OPTIONS", "ACK").replace("1 ACK", "1 BYE"), 0, "CSeq method mismatch"),
            ("GET / HTTP/1.1\r\n\r\n".into(), 0, "not SIP"),
            ("\x16\x03\x01\x02".into(), 0, "not SIP"),
            ("SIP/2.0 99 x\r\n\r\n".into(), 0, "malformed status line"),
            ("SIP/2.0 700 x\r\n\r\n".into(), 0, "malformed status line"),
            ("SIP/2.0 +20 x\r\n\r\n".into(), 0, "malformed status line"),
        ] {
            assert_eq!(why(&text), (code, phrase), "{text}");
        }
        assert_eq!(read("\r\n\r\n"), Err(ReadError::KeepAlive));
        assert_eq!(read(""), Err(ReadError::KeepAlive));
        assert_eq!(read("\0\0\0\0"), Err(ReadError::KeepAlive));
        assert_eq!(read(&"A".repeat(MAX_MESSAGE + 1)), Err(ReadError::TooLong));
    }

    #[test]
    fn what_others_reject_or_lose_is_kept() {
        let text = "\r\nINVITE sip:%41lice@h SIP/2.0\nv: SIP/2.0/UDP [2001:db8::9:1]:5060;received=2001:db8::9:255,\n\
            \tSIP/2.0/WS x.invalid;branch=z9hG4bK2\nf: \"A, \\\"B\" <sip:f@h>;tag=1\nt: <sip:t@h>\ni: c\nCSEQ: 1 INVITE\n\
            m: <sip:op12@192.0.2.10:5060;ob>;+sip.instance=\"<urn:uuid:1-2>\";expires=60, \"x,y\" <sip:b@[2001:db8::1]>;q=0.5\n\
            X-Raw : ";
        let mut raw = text.as_bytes().to_vec();
        raw.extend_from_slice(b"caf\xe9\nP-After: yes\nl: 4\n\n\x00\xff\r\n");
        let message = Message::read_datagram(&Bytes::from(raw)).unwrap();
        let headers = message.headers();
        assert_eq!(&message.body()[..], b"\x00\xff\r\n");
        let vias = headers.vias().unwrap();
        assert_eq!(vias[0].host, Host::V6("2001:db8::9:1".parse().unwrap()));
        assert_eq!(vias[0].received(), Some("2001:db8::9:255".parse().unwrap()));
        assert_eq!(vias[1].branch(), Some("z9hG4bK2"));
        let Contacts::List(contacts) = headers.contacts().unwrap() else { panic!() };
        assert_eq!(contacts[0].instance().as_deref(), Some("urn:uuid:1-2"));
        assert_eq!((contacts[0].expires(), contacts[0].uri.params.has("ob")), (Some(60), true));
        assert_eq!((contacts[1].display.as_deref(), contacts[1].q()), (Some("x,y"), Some(500)));
        assert_eq!(headers.from().unwrap().display.as_deref(), Some("A, \"B"));
        let odd = Name::read(b"x-raw");
        assert_eq!((headers.first(&odd), headers.text(&odd)), (Some(&b"caf\xe9"[..]), None));
        assert_eq!(headers.text(&Name::read(b"P-After")), Some("yes"));
        let written = message.to_bytes();
        assert!(
            written.starts_with(
                b"INVITE sip:%41lice@h SIP/2.0\r\nv: SIP/2.0/UDP [2001:db8::9:1]:5060;received="
            )
        );
        assert!(written.windows(13).any(|w| w == b"X-Raw: caf\xe9\r\n"), "{written:?}");
        assert_eq!(Message::read_datagram(&written).unwrap().to_bytes(), written);
    }

    #[test]
    fn nothing_that_is_put_into_a_message_can_forge_a_line() {
        let evil = "x\r\nX-Internal: yes\r\n\r\nbody";
        let mut request = Request::new(Method::Other(Bytes::from_static(b"A\r\nB")), "sip:a b\r\nX: y");
        request.headers.push(Name::Subject, evil);
        request.headers.push(Name::Other(Bytes::from_static(b"A: b\r\nC")), "v");
        let written = String::from_utf8(request.to_bytes().to_vec()).unwrap();
        assert_eq!(
            written,
            "AB sip:abX:y SIP/2.0\r\nSubject: x  X-Internal: yes    body\r\nAbC: v\r\nContent-Length: 0\r\n\r\n"
        );
        let mut response = Response::new(486);
        response.reason = Bytes::from_static(b"No\r\nX: y");
        assert!(response.to_bytes().starts_with(b"SIP/2.0 486 No  X: y\r\nContent-Length: 0\r\n\r\n"));
    }

    #[test]
    fn neither_credentials_nor_bodies_print() {
        for (file, text) in jssip() {
            let shown = format!("{:?}", Message::read_datagram(&text).unwrap());
            assert!(!shown.contains("response=") && !shown.contains("ice-pwd"), "{file}: {shown}");
        }
    }

    #[test]
    fn lists_are_changed_one_value_at_a_time() {
        let mut headers = Headers::default();
        headers.push(Name::Route, "<sip:a,b;lr>, <sip:c>");
        headers.push(Name::Route, "<sip:d>");
        headers.replace_first_listed(&Name::Route, b"");
        assert_eq!(headers.list(&Name::Route).collect::<Vec<_>>(), [b"<sip:c>", b"<sip:d>"]);
        headers.replace_first_listed(&Name::Route, b"");
        headers.replace_first_listed(&Name::Route, b"<sip:e>");
        assert_eq!(headers.list(&Name::Route).collect::<Vec<_>>(), [b"<sip:e>"]);
        headers.push(Name::Supported, "timer, 100rel");
        assert!(headers.lists(&Name::Supported, "TIMER") && !headers.lists(&Name::Supported, "rel"));
        headers.set(Name::Supported, "path");
        headers.push_front(Name::Via, "v");
        assert_eq!(
            headers.iter().map(|h| h.name().to_string()).collect::<Vec<_>>(),
            ["Via", "Route", "Supported"]
        );
        assert_eq!(headers.remove_first(&Name::Via).as_deref(), Some(&b"v"[..]));
        assert!(!headers.has(&Name::Via));
    }

    #[test]
    fn methods_and_phrases_agree_with_rsip() {
        for (ours, theirs) in Method::known() {
            assert_eq!(ours.as_str(), theirs.to_string());
            assert_eq!(Method::read(ours.as_str().as_bytes()), ours);
        }
        for (code, phrase) in [
            (100, "Trying"),
            (200, "OK"),
            (183, "Session Progress"),
            (407, "Proxy Authentication Required"),
            (486, "Busy Here"),
            (555, "Other"),
        ] {
            assert_eq!(default_reason(code), phrase);
        }
    }

    #[test]
    fn rsip_reads_the_recorded_messages_as_we_do() {
        for (file, text) in jssip() {
            let theirs = rsip::SipMessage::try_from(&text[..]).unwrap_or_else(|e| panic!("{file}: {e}"));
            let ours = Message::read_datagram(&text).unwrap();
            let (headers, body) = match &theirs {
                rsip::SipMessage::Request(r) => (&r.headers, &r.body),
                rsip::SipMessage::Response(r) => (&r.headers, &r.body),
            };
            assert_eq!(headers.iter().count(), ours.headers().len(), "{file}");
            assert_eq!(&body[..], &ours.body()[..], "{file}");
        }
    }

    /// Were any step quadratic, the worst inputs of 64 KiB would take minutes here, unoptimised as tests are.
    #[test]
    fn the_worst_inputs_of_full_size_are_read_in_linear_time() {
        let fill = |unit: &str| unit.repeat(60_000 / unit.len());
        for more in [
            format!("X: {}\r\n", fill(",")),
            format!("X: {}\r\n", fill("\"")),
            format!("X: {}\r\n", fill("<")),
            format!("X: y\r\n{}", fill(" z\r\n")),
            fill("a:\r\n"),
            format!("v: {}\r\n", fill("SIP/2.0/UDP h,")),
            format!("v: SIP/2.0/UDP h{}\r\n", fill(";a")),
            format!("m: {}\r\n", fill("<sip:a>,")),
            format!("m: {}\r\n", fill("\"<")),
            format!("Authorization: Digest {}\r\n", fill("a=\"")),
            format!(
                "Authorization: Digest {}\r\n",
                (0..5000).map(|n| format!("a{n}=1,")).collect::<String>()
            ),
            fill("\r"),
        ] {
            let steps = read(&with(&more, ""));
            if let Ok(message) = &steps {
                let headers = message.headers();
                let odd = Name::read(b"X");
                let seen = (headers.contacts(), headers.vias(), headers.list(&odd).count());
                assert!(headers.credentials(&Name::Authorization).count() <= 1, "{seen:?}");
            }
            let again = read(&with(&more, ""));
            assert_eq!(steps, again);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

        #[test]
        fn damaged_messages_never_panic_and_what_is_taken_is_written_stably(
            which in any::<prop::sample::Index>(),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 0..12),
        ) {
            let mut all = jssip();
            all.extend(files("torture/valid"));
            let mut text = all[which.index(all.len())].1.to_vec();
            for (place, octet, kind) in cuts {
                let at = place.index(text.len().max(1));
                match kind {
                    0 if !text.is_empty() => text[at] = octet,
                    1 => text.insert(at.min(text.len()), b"\r\n\";,<>=: \0"[usize::from(octet) % 11]),
                    2 if !text.is_empty() => { text.remove(at); }
                    _ => text.truncate(text.len() - at / 8),
                }
            }
            if let Ok(message) = Message::read_datagram(&Bytes::from(text)) {
                let headers = message.headers();
                for name in [Name::Authorization, Name::ProxyAuthenticate] {
                    for list in headers.credentials(&name) {
                        prop_assert!(!list.to_string().contains(['\r', '\n']));
                    }
                }
                for via in headers.vias().into_iter().flatten() {
                    prop_assert!(!via.to_string().contains(['\r', '\n']));
                }
                for address in [headers.from(), headers.to()].into_iter().flatten() {
                    let text = address.to_string();
                    prop_assert!(super::super::header::NameAddr::read(text.as_bytes()).is_ok(), "{}", text);
                }
                let seen = (headers.contacts(), headers.routes(), headers.reasons().count(), headers.rack());
                let written = message.to_bytes();
                let again = Message::read_datagram(&written);
                prop_assert!(again.is_ok(), "{:?} {:?} {:?}", again, written, seen);
                prop_assert_eq!(again.map(|m| m.to_bytes()), Ok(written));
            }
        }
    }
}
