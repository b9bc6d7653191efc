//! A message to octets.
//!
//! Invariant: no value that is written can end its line, and Content-Length is the length of the body.

use bytes::Bytes;

use super::super::header::is_token;
use super::{Header, Headers, Name, Request, Response};

impl Request {
    /// Writes it; see [`Message::to_bytes`](super::Message::to_bytes).
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(room(&self.headers, &self.body).saturating_add(self.uri.len()));
        write_token(&mut out, self.method.as_str().as_bytes());
        out.push(b' ');
        // A space or line end in a Request-URI would forge the rest of the line.
        out.extend(self.uri.iter().filter(|b| **b > b' ' && **b != 0x7f));
        out.extend_from_slice(b" SIP/2.0\r\n");
        write_rest(&mut out, &self.headers, &self.body);
        Bytes::from(out)
    }
}

impl Response {
    /// Writes it; see [`Message::to_bytes`](super::Message::to_bytes).
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(room(&self.headers, &self.body).saturating_add(self.reason.len()));
        out.extend_from_slice(b"SIP/2.0 ");
        out.extend_from_slice(self.code.to_string().as_bytes());
        out.push(b' ');
        write_value(&mut out, &self.reason);
        out.extend_from_slice(b"\r\n");
        write_rest(&mut out, &self.headers, &self.body);
        Bytes::from(out)
    }
}
/// Octets that a message will take, about.
fn room(headers: &Headers, body: &Bytes) -> usize {
    let line = |header: &Header| header.spelled().len().saturating_add(header.value.len()).saturating_add(4);
    headers.0.iter().map(line).fold(body.len().saturating_add(64), usize::saturating_add)
}

fn write_rest(out: &mut Vec<u8>, headers: &Headers, body: &Bytes) {
    let mut length_written = false;
    for header in &headers.0 {
        if header.name == Name::ContentLength {
            if !length_written {
                write_length(out, header, body.len());
            }
            length_written = true;
            continue;
        }
        write_token(out, header.spelled());
        // An empty value came without the space, mostly.
        out.extend_from_slice(if header.value.is_empty() { b":" } else { b": " });
        write_value(out, &header.value);
        out.extend_from_slice(b"\r\n");
    }
    if !length_written {
        write_length(out, &Header::new(Name::ContentLength, Bytes::new()), body.len());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

fn write_length(out: &mut Vec<u8>, header: &Header, length: usize) {
    write_token(out, header.spelled());
    out.extend_from_slice(b": ");
    let written = std::str::from_utf8(&header.value).ok().and_then(|text| text.parse().ok());
    if written == Some(length) {
        out.extend_from_slice(&header.value);
    } else {
        out.extend_from_slice(length.to_string().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn write_token(out: &mut Vec<u8>, token: &[u8]) {
    out.extend(token.iter().filter(|b| is_token(std::slice::from_ref(b))));
}

/// Writes a value; what would end the line becomes a space.
fn write_value(out: &mut Vec<u8>, value: &[u8]) {
    out.extend(value.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }));
}
