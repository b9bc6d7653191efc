//! Octets to a message.
//!
//! Invariant: one pass over the input, slices instead of copies, and a message with a flaw is read to its end so that
//! an answer can be made of it.

use std::borrow::Cow;

use bytes::Bytes;

use super::super::header::{Malformed, Via, is_token, read_seconds, trim};
use super::super::steps::walked;
use super::super::uri::Uri;
use super::{
    Header, Headers, MAX_HEADERS, MAX_MESSAGE, MAX_VIA, Message, Method, Name, ReadError, Request, Response,
};

impl Message {
    /// Reads one UDP datagram or one WebSocket frame (RFC 7118): one message. Without Content-Length the
    /// body is all that follows; what follows a shorter one is dropped (RFC 3261 section 18.3).
    pub fn read_datagram(datagram: &Bytes) -> Result<Self, ReadError> {
        if datagram.len() > MAX_MESSAGE {
            return Err(ReadError::TooLong);
        }
        // RFC 3261 section 7.5: line ends before the start line are ignored.
        let blank = |b: &u8| matches!(b, b'\r' | b'\n' | 0);
        let begin = datagram.iter().position(|b| !blank(b)).ok_or(ReadError::KeepAlive)?;
        walked(begin);
        let mut lines = Lines { input: datagram, at: begin };
        let start = lines.next_line().ok_or(ReadError::KeepAlive)?;
        let start = StartLine::read(datagram, start)?;
        let mut flaw = start.flaw;
        let (headers, header_flaw) = read_headers(&mut lines);
        flaw = flaw.or(header_flaw);
        let (body, body_flaw) = read_body(datagram, lines.at, &headers);
        flaw = flaw.or(body_flaw).or_else(|| check(&start.what, &headers));
        match (start.what, flaw) {
            (What::Request { method, uri }, None) => {
                Ok(Self::Request(Request { method, uri, headers, body }))
            }
            (What::Response { code, reason }, None) => {
                Ok(Self::Response(Response { code, reason, headers, body }))
            }
            (What::Request { method, uri }, Some(flaw)) => {
                Err(flaw.of(Request { method, uri, headers, body }))
            }
            (What::Response { .. }, Some(flaw)) => Err(ReadError::Unanswerable(flaw.why)),
        }
    }
}

/// What is wrong with a message, and the status that says so.
#[derive(Debug, Clone, Copy)]
struct Flaw {
    code: u16,
    why: &'static str,
}

impl From<Malformed> for Flaw {
    fn from(malformed: Malformed) -> Self {
        Self { code: 400, why: malformed.0 }
    }
}

impl Flaw {
    /// An answer needs a Via to go back by and the four headers it must echo; an ACK never gets one.
    fn of(self, request: Request) -> ReadError {
        let headers = &request.headers;
        let needed = [Name::From, Name::To, Name::CallId, Name::CSeq];
        let echoable = has_way_back(headers) && needed.iter().all(|name| headers.has(name));
        if echoable && request.method != Method::Ack {
            ReadError::Bad { partial: Box::new(request), code: self.code, why: self.why }
        } else {
            ReadError::Unanswerable(self.why)
        }
    }
}

/// Whether the first Via says who sent it, though its version (RFC 4475 section 3.1.2.16) or its parameters (3.1.2.1)
/// cannot be read: then the sender can be told what is wrong. It goes where the datagram came from.
fn has_way_back(headers: &Headers) -> bool {
    let first = headers.first(&Name::Via).unwrap_or_default();
    let head = first.split(|b| matches!(b, b';' | b',')).next().unwrap_or_default();
    let mut parts = head.splitn(3, |&b| b == b'/');
    let (name, version) =
        (parts.next().map(trim).unwrap_or_default(), parts.next().map(trim).unwrap_or_default());
    let rest = parts.next().unwrap_or_default();
    name.eq_ignore_ascii_case(b"SIP") && is_token(version) && Via::read(&[b"SIP/2.0/", rest].concat()).is_ok()
}

/// What a start line says.
enum What {
    Request { method: Method, uri: Bytes },
    Response { code: u16, reason: Bytes },
}

struct StartLine {
    what: What,
    flaw: Option<Flaw>,
}

impl StartLine {
    fn read(input: &Bytes, line: &[u8]) -> Result<Self, ReadError> {
        if line.get(..4).is_some_and(|head| head.eq_ignore_ascii_case(b"SIP/")) {
            return Self::read_status(input, line);
        }
        Self::read_request(input, line)
    }

    fn read_status(input: &Bytes, line: &[u8]) -> Result<Self, ReadError> {
        let bad = || ReadError::Unanswerable("malformed status line");
        let mut parts = line.splitn(3, |&b| b == b' ');
        let version = parts.next().ok_or_else(bad)?;
        let code = parts.next().filter(|code| code.len() == 3).ok_or_else(bad)?;
        let code = read_seconds(code).and_then(|code| u16::try_from(code).ok()).ok_or_else(bad)?;
        if !version.eq_ignore_ascii_case(b"SIP/2.0") || !(100..700).contains(&code) {
            return Err(bad());
        }
        // RFC 4475 section 3.1.1.13: the phrase may be empty; some leave out the space as well.
        let reason = input.slice_ref(parts.next().unwrap_or_default());
        Ok(Self { what: What::Response { code, reason }, flaw: None })
    }

    fn read_request(input: &Bytes, line: &[u8]) -> Result<Self, ReadError> {
        let no_sip = || ReadError::Unanswerable("not SIP");
        let first = line.iter().position(|&b| b == b' ').ok_or_else(no_sip)?;
        let last = line.trim_ascii_end().iter().rposition(|&b| b == b' ').filter(|last| *last > first);
        let last = last.ok_or_else(no_sip)?;
        let method = line.get(..first).filter(|method| is_token(method)).ok_or_else(no_sip)?;
        let uri = line.get(first.saturating_add(1)..last).ok_or_else(no_sip)?;
        let version = line.get(last.saturating_add(1)..).ok_or_else(no_sip)?;
        if !version.get(..4).is_some_and(|head| head.eq_ignore_ascii_case(b"SIP/")) {
            return Err(no_sip());
        }
        let flaw = match version {
            _ if version.eq_ignore_ascii_case(b"SIP/2.0") => check_uri(uri),
            _ if version.ends_with(b" ") => Some("white space after the request line"),
            _ => {
                let flaw = Flaw { code: 505, why: "Version Not Supported" };
                return Ok(Self { what: request_of(input, method, uri), flaw: Some(flaw) });
            }
        };
        Ok(Self { what: request_of(input, method, uri), flaw: flaw.map(|why| Flaw { code: 400, why }) })
    }
}

fn request_of(input: &Bytes, method: &[u8], uri: &[u8]) -> What {
    What::Request { method: Method::read(method), uri: input.slice_ref(uri) }
}

/// RFC 4475 sections 3.1.2.7-3.1.2.11: no space, no `<>`, no header part in a Request-URI; of another scheme
/// only the form counts, what to think of it is decided above (416).
fn check_uri(uri: &[u8]) -> Option<&'static str> {
    if uri.len() != trim(uri).len() {
        return Some("white space around the Request-URI");
    }
    match Uri::read(uri) {
        Ok(read) if read.headers.is_none() => None,
        Ok(_) => Some("header part in Request-URI"),
        Err(_) => Some("malformed Request-URI"),
    }
}

/// Cuts the input into lines; a line ends with LF, with or without a CR before it.
struct Lines<'a> {
    input: &'a Bytes,
    at: usize,
}

impl<'a> Lines<'a> {
    fn next_line(&mut self) -> Option<&'a [u8]> {
        let rest = self.input.get(self.at..).filter(|rest| !rest.is_empty())?;
        let end = rest.iter().position(|&b| b == b'\n');
        let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        walked(line.len());
        self.at = self.at.saturating_add(line.len()).saturating_add(usize::from(end.is_some()));
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Whether the next line continues this one (RFC 3261 section 7.3.1).
    fn is_folded(&self) -> bool {
        self.input.get(self.at).is_some_and(|b| matches!(b, b' ' | b'\t'))
    }
}

/// Reads the lines up to the empty one; the first flaw is remembered, the rest is read all the same so that
/// an answer can be made of it.
fn read_headers(lines: &mut Lines<'_>) -> (Headers, Option<Flaw>) {
    // Most messages have between 10 and 20 lines: one allocation.
    let mut headers = Headers(Vec::with_capacity(24));
    let mut flaw = None;
    while let Some(line) = lines.next_line() {
        if line.is_empty() {
            break;
        }
        let line = match lines.is_folded() {
            true => Cow::Owned(unfold(line, lines)),
            false => Cow::Borrowed(line),
        };
        if headers.len() == MAX_HEADERS {
            flaw = flaw.or(Some(Flaw { code: 400, why: "too many headers" }));
            continue;
        }
        let input = matches!(line, Cow::Borrowed(_)).then_some(lines.input);
        match read_header(input, &line) {
            Ok(header) => headers.0.push(header),
            Err(malformed) => flaw = flaw.or(Some(Flaw::from(malformed))),
        }
    }
    (headers, flaw)
}

fn unfold(first: &[u8], lines: &mut Lines<'_>) -> Vec<u8> {
    let mut line = first.to_vec();
    while lines.is_folded() {
        let Some(more) = lines.next_line() else { break };
        let trimmed = line.trim_ascii_end().len();
        walked(line.len().saturating_sub(trimmed).saturating_add(more.len()));
        line.truncate(trimmed);
        line.push(b' ');
        line.extend_from_slice(trim(more));
    }
    line
}

/// Reads one line; `input` is what it is a slice of, `None` for an unfolded one, which is a copy.
fn read_header(input: Option<&Bytes>, line: &[u8]) -> Result<Header, Malformed> {
    walked(line.len());
    let colon = line.iter().position(|&b| b == b':').ok_or(Malformed("header without colon"))?;
    let (name, value) = line.split_at_checked(colon).ok_or(Malformed("header without colon"))?;
    // RFC 3261 section 25.1 (HCOLON): white space before the colon belongs to nothing.
    let name = name.trim_ascii_end();
    if !is_token(name) {
        return Err(Malformed("malformed header name"));
    }
    let value = trim(value.get(1..).unwrap_or_default());
    // A lone CR, or a NUL that no backslash escapes, reads as a line end to some: nothing is smuggled by it.
    let mut before = 0;
    for &b in value {
        if b == b'\r' || (b == 0 && before != b'\\') {
            return Err(Malformed("control character in header"));
        }
        before = b;
    }
    let keep = |part: &[u8]| match input {
        Some(input) => input.slice_ref(part),
        None => Bytes::copy_from_slice(part),
    };
    let known = Name::read(name);
    let spelled = (known.as_bytes() != name).then(|| keep(name));
    Ok(Header { name: known, spelled, value: keep(value) })
}

fn read_body(input: &Bytes, at: usize, headers: &Headers) -> (Bytes, Option<Flaw>) {
    let rest = input.slice(at.min(input.len())..);
    match headers.content_length() {
        Ok(None) => (rest, None),
        Ok(Some(length)) if length <= rest.len() => (rest.slice(..length), None),
        Ok(Some(_)) => (rest, Some(Flaw { code: 400, why: "Content-Length greater than the body" })),
        Err(malformed) => (Bytes::new(), Some(malformed.into())),
    }
}

/// Headers that can stand only once: two of them are two messages to two readers.
const ONCE: [Name; 4] = [Name::From, Name::To, Name::CallId, Name::CSeq];
/// The same in requests; in an answer they steer nothing, and an answer is not dropped for them.
const ONCE_IN_REQUESTS: [Name; 2] = [Name::MaxForwards, Name::ContentType];

fn check(what: &What, headers: &Headers) -> Option<Flaw> {
    check_headers(what, headers).err().map(Flaw::from)
}

fn check_headers(what: &What, headers: &Headers) -> Result<(), Malformed> {
    if headers.list(&Name::Via).take(MAX_VIA.saturating_add(1)).count() > MAX_VIA {
        return Err(Malformed("too many Via"));
    }
    headers.via_top()?;
    headers.from()?;
    headers.to()?;
    headers.call_id()?;
    let (_, method) = headers.cseq()?;
    let single = |names: &[Name]| match names.iter().any(|name| headers.all(name).nth(1).is_some()) {
        true => Err(Malformed("duplicate header")),
        false => Ok(()),
    };
    single(&ONCE)?;
    match what {
        What::Request { method: asked, .. } if *asked != method => Err(Malformed("CSeq method mismatch")),
        What::Request { .. } => {
            headers.max_forwards()?;
            single(&ONCE_IN_REQUESTS)
        }
        What::Response { .. } => Ok(()),
    }
}
