//! Answers to requests: what every one of them must carry.
//!
//! Invariant: Via, From, To, Call-ID, CSeq and, where a dialog is made, Record-Route are those of the
//! request (RFC 3261 section 8.2.6.2); only the To tag and the top Via's source are ours.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;

use super::header::NameAddr;
use super::message::{Message, Method, Name, Request, Response};

/// What we can be asked.
pub(crate) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO, PRACK, REFER, NOTIFY";
/// What we can do beyond RFC 3261.
pub(crate) const SUPPORTED: &str = "timer, replaces";
/// The one body that we take.
pub(crate) const SDP: &str = "application/sdp";

/// The whole request that a transaction kept.
pub(crate) fn reread(bytes: &Bytes) -> Option<Request> {
    match Message::read_datagram(bytes) {
        Ok(Message::Request(request)) => Some(request),
        Ok(Message::Response(_)) | Err(_) => None,
    }
}

/// An answer with all that is copied; `tag` goes into To unless one is there or the answer is 100.
pub(crate) fn respond(request: &Request, code: u16, tag: &str) -> Response {
    let mut response = Response::new(code);
    let from = &request.headers;
    let copied = [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq];
    for name in &copied {
        for value in from.all(name) {
            let value = if *name == Name::To && code > 100 { tagged(value, tag) } else { value.clone() };
            response.headers.push(name.clone(), value);
        }
    }
    // RFC 3261 section 12.1.1: the route set travels back in answers that make a dialog.
    if request.method == Method::Invite && (101..300).contains(&code) {
        for value in from.all(&Name::RecordRoute) {
            response.headers.push(Name::RecordRoute, value.clone());
        }
    }
    response
}

fn tagged(to: &Bytes, tag: &str) -> Bytes {
    match NameAddr::read(to) {
        Ok(address) if address.tag().is_none() && !tag.is_empty() => {
            let mut tagged = to.to_vec();
            tagged.extend_from_slice(format!(";tag={tag}").as_bytes());
            Bytes::from(tagged)
        }
        Ok(_) | Err(_) => to.clone(),
    }
}

/// The To tag of a stateless answer: the same for a repeated request (RFC 3261 section 8.2.7).
pub(crate) fn stateless_tag(request: &Request) -> String {
    let mut hasher = DefaultHasher::new();
    for name in [Name::Via, Name::CallId, Name::CSeq] {
        request.headers.first(&name).unwrap_or_default().hash(&mut hasher);
    }
    format!("s{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_answer_copies_the_way_back_and_tags_to_once() {
        let text = "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP g;branch=z9hG4bK2\r\n\
            Record-Route: <sip:p;lr>\r\nFrom: <sip:x@y>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\r\n";
        let request = reread(&Bytes::from_static(text.as_bytes())).unwrap();
        let ringing = respond(&request, 180, "t9");
        assert_eq!(ringing.headers.all(&Name::Via).count(), 2);
        assert_eq!(ringing.headers.first(&Name::To), Some(&b"<sip:a@b>;tag=t9"[..]));
        assert!(ringing.headers.has(&Name::RecordRoute));
        let trying = respond(&request, 100, "t9");
        assert_eq!(trying.headers.first(&Name::To), Some(&b"<sip:a@b>"[..]));
        assert!(!respond(&request, 486, "t9").headers.has(&Name::RecordRoute));
        assert_eq!(stateless_tag(&request), stateless_tag(&request.clone()));
    }
}
