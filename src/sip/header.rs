//! What stands in the headers: typed values, read from octets and written safely.
//!
//! Invariant: readers take any octets in linear time and never panic; writers emit no control character,
//! so nothing that a caller, a phone or a configuration holds can begin a new header line.

use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::message::Method;
use super::steps::walked;
use super::uri::{Host, Uri, read_host_port};

/// The most parameters taken in one value: looking one up, or looking for a duplicate, walks over them.
pub const MAX_PARAMS: usize = 64;

/// A header that cannot be understood: the phrase is fit for a `400`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Cuts white space (and folds) at both ends.
pub fn trim(text: &[u8]) -> &[u8] {
    let trimmed = text.trim_ascii();
    walked(text.len().saturating_sub(trimmed.len()));
    trimmed
}

/// Where `wanted` first stands outside quoted strings and `<>`.
pub fn find_outside_quotes(text: &[u8], wanted: u8) -> Option<usize> {
    let mut scan = Scan::default();
    let at = text.iter().position(|&b| scan.is_outside(b) && b == wanted);
    walked(at.unwrap_or(text.len()));
    at
}

/// Follows quoting octet by octet.
#[derive(Default)]
struct Scan {
    quoted: bool,
    escaped: bool,
    angled: bool,
}

impl Scan {
    /// Takes one octet; true when it stands outside quotes and angle brackets.
    fn is_outside(&mut self, b: u8) -> bool {
        if self.quoted {
            match b {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.quoted = false,
                _ => {}
            }
            return false;
        }
        match b {
            b'"' => self.quoted = true,
            b'<' => self.angled = true,
            b'>' => {
                self.angled = false;
                return false;
            }
            _ => {}
        }
        !self.angled && !self.quoted
    }
}

/// The values of a list, cut at commas outside quotes and `<>`; empty ones are left out.
pub fn split_list(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    split_outside(text, b',').map(trim).filter(|value| !value.is_empty())
}

fn split_outside(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match find_outside_quotes(text, separator).and_then(|at| text.split_at_checked(at)) {
            Some((value, tail)) => {
                rest = tail.get(1..);
                Some(value)
            }
            None => {
                rest = None;
                Some(text)
            }
        }
    })
}

/// A token of RFC 3261 section 25.1.
pub fn is_token(text: &[u8]) -> bool {
    walked(text.len());
    !text.is_empty() && text.iter().all(|&b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b))
}

/// Text as it is, or what can be saved of it.
fn lossy(text: &[u8]) -> String {
    walked(text.len());
    String::from_utf8_lossy(text).into_owned()
}

/// Takes the quotes and backslashes off a quoted string; other text stays.
pub fn unquote(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').map(|t| t.strip_suffix('"').unwrap_or(t)) else {
        return text.to_owned();
    };
    let mut plain = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.extend(chars.next()),
            c => plain.push(c),
        }
    }
    plain
}

/// Puts text into quotes, safe for a header: control characters become spaces.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len().saturating_add(2));
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Writes text that is no quoted string: control characters become spaces.
fn write_plain(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        fmt::Write::write_char(f, if c.is_control() { ' ' } else { c })?;
    }
    Ok(())
}

/// Parameters in their order and spelling: `;name=value;flag`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Params(Vec<(String, Option<String>)>);

impl Params {
    /// Reads what follows the first `;`. An empty parameter is refused (RFC 4475 section 3.1.2.1).
    pub fn read(text: &[u8]) -> Result<Self, Malformed> {
        if trim(text).is_empty() {
            return Ok(Self::default());
        }
        let mut params = Vec::new();
        for part in split_outside(text, b';') {
            if params.len() == MAX_PARAMS {
                return Err(Malformed("too many parameters"));
            }
            let part = trim(part);
            walked(part.len());
            let at = part.iter().position(|&b| b == b'=').unwrap_or(part.len());
            let (name, value) = part.split_at_checked(at).unwrap_or((part, b""));
            let name = trim(name);
            if name.is_empty() || name.iter().any(|&b| b <= b' ' || matches!(b, b'"' | b'<' | b'>' | b',')) {
                return Err(Malformed("bad parameter"));
            }
            let value = value.get(1..).map(|value| lossy(trim(value)));
            params.push((lossy(name), value));
        }
        Ok(Self(params))
    }

    /// Name and raw value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is there, with a value or without.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(have, _)| have.eq_ignore_ascii_case(name))
    }

    /// The raw value, quotes included.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).and_then(|(_, v)| v.as_deref())
    }

    /// The value without its quotes.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(unquote)
    }

    /// The value as a number.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.get(name).and_then(|value| value.parse().ok())
    }

    /// Sets or adds a parameter; `value` is written as it is (use [`quote`] for free text).
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        let value = value.map(str::to_owned);
        match self.0.iter_mut().find(|(have, _)| have.eq_ignore_ascii_case(name)) {
            Some((_, have)) => *have = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// The same, for building in one expression.
    #[must_use]
    pub fn with(mut self, name: &str, value: Option<&str>) -> Self {
        self.set(name, value);
        self
    }

    /// Takes a parameter away.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(have, _)| !have.eq_ignore_ascii_case(name));
    }

    /// RFC 3261 section 19.1.4: those on both sides must be equal; `user`, `ttl`, `method`, `maddr` and
    /// `transport` must be on both sides or on none.
    pub fn agree(&self, other: &Self) -> bool {
        let equal = |(name, value): (&str, Option<&str>), side: &Self| match side.has(name) {
            true => match (value, side.get(name)) {
                (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
                (a, b) => a == b,
            },
            false => !["user", "ttl", "method", "maddr", "transport"]
                .iter()
                .any(|strict| name.eq_ignore_ascii_case(strict)),
        };
        self.iter().all(|param| equal(param, other)) && other.iter().all(|param| equal(param, self))
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.iter() {
            f.write_str(";")?;
            write_plain(f, name)?;
            if let Some(value) = value {
                f.write_str("=")?;
                write_plain(f, value)?;
            }
        }
        Ok(())
    }
}

/// One hop of the way back (RFC 3261 section 20.42).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Via {
    /// `UDP`, `TCP`, `TLS`, `WS`, `WSS` …, as spelled.
    pub transport: String,
    /// Who sent it.
    pub host: Host,
    /// His port, if written.
    pub port: Option<u16>,
    /// All parameters, `branch`, `received` and `rport` included, in their order.
    pub params: Params,
}

impl Via {
    /// A Via of our own, with an empty `rport` as RFC 3581 asks of a client.
    pub fn new(transport: &str, host: Host, port: Option<u16>, branch: &str) -> Self {
        let params = Params::default().with("branch", Some(branch)).with("rport", None);
        Self { transport: transport.to_owned(), host, port, params }
    }

    /// Reads one value; white space around every separator is allowed (RFC 4475 section 3.1.1.1).
    pub fn read(text: &[u8]) -> Result<Self, Malformed> {
        let bad = Malformed("malformed Via");
        let (head, params) = split_params(text);
        let head = std::str::from_utf8(head).map_err(|_| bad)?;
        let mut parts = head.splitn(3, '/');
        let (name, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if !name.trim().eq_ignore_ascii_case("SIP") || version.trim() != "2.0" {
            return Err(bad);
        }
        let rest = parts.next().ok_or(bad)?.trim();
        let (transport, place) = rest.split_once(|c: char| c.is_ascii_whitespace()).ok_or(bad)?;
        if !is_token(transport.as_bytes()) {
            return Err(bad);
        }
        let (host, port) = read_host_port(place.trim()).map_err(|_| bad)?;
        Ok(Self {
            transport: transport.to_owned(),
            host,
            port,
            params: Params::read(params).map_err(|_| bad)?,
        })
    }

    /// The transaction's branch.
    pub fn branch(&self) -> Option<&str> {
        self.params.get("branch")
    }

    /// The address a server saw the request come from.
    pub fn received(&self) -> Option<IpAddr> {
        self.params.get("received").and_then(|text| Host::read(text).ok()).and_then(|host| host.ip())
    }

    /// `None` without `rport`; `Some(None)` when it asks to be filled; else the port (RFC 3581).
    pub fn rport(&self) -> Option<Option<u16>> {
        self.params.has("rport").then(|| self.params.get("rport").and_then(|port| port.parse().ok()))
    }

    /// Notes where the request came from: `received` when it is not the sent-by or `rport` was asked for
    /// (RFC 3261 section 18.2.1, RFC 3581 section 4); what the client itself wrote there is overwritten.
    pub fn note_source(&mut self, source: SocketAddr) {
        let asked = self.params.has("rport");
        if asked {
            self.params.set("rport", Some(&source.port().to_string()));
        }
        if asked || self.host.ip() != Some(source.ip()) {
            self.params.set("received", Some(&source.ip().to_string()));
        } else {
            self.params.remove("received");
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SIP/2.0/")?;
        write_plain(f, &self.transport)?;
        write!(f, " {}", self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.params)
    }
}

/// Cuts `head;params` at the first `;` outside quotes and `<>`.
fn split_params(text: &[u8]) -> (&[u8], &[u8]) {
    match find_outside_quotes(text, b';').and_then(|at| text.split_at_checked(at)) {
        Some((head, params)) => (head, params.get(1..).unwrap_or_default()),
        None => (text, b""),
    }
}

/// The three parts of a name-addr or addr-spec, uncopied.
struct AddressParts<'a> {
    display: &'a [u8],
    uri: &'a [u8],
    params: &'a [u8],
}

impl<'a> AddressParts<'a> {
    fn read(text: &'a [u8]) -> Result<Self, Malformed> {
        let bad = Malformed("malformed address");
        let text = trim(text);
        walked(text.len());
        let mut quoted = false;
        let mut escaped = false;
        let open = text.iter().position(|&b| {
            if quoted {
                match b {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => quoted = false,
                    _ => {}
                }
                return false;
            }
            quoted = b == b'"';
            b == b'<'
        });
        if quoted {
            return Err(Malformed("unbalanced quotes"));
        }
        let Some((display, rest)) = open.and_then(|at| text.split_at_checked(at)) else {
            // Without <> everything after ';' belongs to the header (RFC 3261 section 20.10), and a '?' or
            // ',' is not allowed at all (RFC 4475 section 3.1.2.13).
            let (uri, params) = split_params(text);
            let uri = trim(uri);
            if uri.iter().any(|b| matches!(b, b'?' | b',' | b'"')) {
                return Err(bad);
            }
            return Ok(Self { display: b"", uri, params });
        };
        let rest = rest.get(1..).unwrap_or_default();
        let close = rest.iter().position(|&b| b == b'>').ok_or(bad)?;
        let (uri, tail) = rest.split_at_checked(close).ok_or(bad)?;
        let tail = trim(tail.get(1..).unwrap_or_default());
        let params = match tail.split_first() {
            None => tail,
            Some((b';', params)) => params,
            Some(_) => return Err(bad),
        };
        Ok(Self { display: trim(display), uri: trim(uri), params })
    }
}

/// A party: `"Display" <uri>;params` (From, To, Contact, Route, Record-Route, Refer-To …).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameAddr {
    /// The display name without quotes; octets that are no UTF-8 were replaced.
    pub display: Option<String>,
    /// Whom.
    pub uri: Uri,
    /// The header's parameters: `tag`, `expires`, `+sip.instance` …
    pub params: Params,
}

/// A Contact of a registration or a dialog.
pub type Contact = NameAddr;

impl NameAddr {
    /// An address with nothing around it.
    pub fn new(uri: Uri) -> Self {
        Self { display: None, uri, params: Params::default() }
    }

    /// Reads one value.
    pub fn read(text: &[u8]) -> Result<Self, Malformed> {
        let parts = AddressParts::read(text)?;
        let display = (!parts.display.is_empty()).then(|| unquote(&lossy(parts.display)));
        Ok(Self {
            display: display.filter(|name| !name.is_empty()),
            uri: Uri::read(parts.uri)?,
            params: Params::read(parts.params)?,
        })
    }

    /// The dialog tag.
    pub fn tag(&self) -> Option<&str> {
        self.params.get("tag")
    }

    /// The same with this tag.
    #[must_use]
    pub fn with_tag(mut self, tag: &str) -> Self {
        self.params.set("tag", Some(tag));
        self
    }

    /// `+sip.instance` without quotes and `<>` (RFC 5626 section 4.1).
    pub fn instance(&self) -> Option<String> {
        let text = self.params.text("+sip.instance")?;
        Some(text.trim_start_matches('<').trim_end_matches('>').to_owned())
    }

    /// `reg-id` (RFC 5626).
    pub fn reg_id(&self) -> Option<u32> {
        self.params.number("reg-id")
    }

    /// `expires` of a Contact, seconds; too great a number counts as the greatest.
    pub fn expires(&self) -> Option<u32> {
        self.params.get("expires").and_then(|text| read_seconds(text.as_bytes()))
    }

    /// `q` in thousandths, 0…1000; `None` when absent or bad.
    pub fn q(&self) -> Option<u16> {
        let (whole, part) = self.params.get("q")?.split_once('.').unwrap_or((self.params.get("q")?, ""));
        if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let whole: u16 = whole.parse().ok().filter(|whole| *whole <= 1)?;
        let part: u16 = format!("{part:0<3}").parse().ok()?;
        whole.checked_mul(1000)?.checked_add(part).filter(|q| *q <= 1000)
    }
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(display) = &self.display {
            write!(f, "{} ", quote(display))?;
        }
        write!(f, "<{}>{}", self.uri, self.params)
    }
}

/// The Contacts of a REGISTER or an answer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contacts {
    /// `*`: all of them.
    Any,
    /// These, in order; none at all is the empty list.
    List(Vec<Contact>),
}

impl Contacts {
    /// The first, as a dialog needs it.
    pub fn first(&self) -> Option<&Contact> {
        match self {
            Self::Any => None,
            Self::List(list) => list.first(),
        }
    }
}

/// Reads delta-seconds; more than 2^32-1 counts as that (RFC 3261 section 20.19), bad text is `None`.
pub fn read_seconds(text: &[u8]) -> Option<u32> {
    let text = trim(text);
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        text.iter()
            .fold(0_u32, |sum, b| sum.saturating_mul(10).saturating_add(u32::from(b.saturating_sub(b'0')))),
    )
}

/// Reads a CSeq; the number is at most 2^31-1 (RFC 3261 section 8.1.1.5).
pub fn read_cseq(text: &[u8]) -> Result<(u32, Method), Malformed> {
    let bad = Malformed("malformed CSeq");
    let text = trim(text);
    let at = text.iter().position(u8::is_ascii_whitespace).ok_or(bad)?;
    let (number, method) = text.split_at_checked(at).ok_or(bad)?;
    let number = read_seconds(number).ok_or(bad)?;
    if number > 0x7fff_ffff {
        return Err(Malformed("CSeq number too great"));
    }
    let method = trim(method);
    if !is_token(method) {
        return Err(bad);
    }
    Ok((number, Method::read(method)))
}

/// Who refreshes a session (RFC 4028).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refresher {
    /// The one who sent the request.
    Uac,
    /// The one who answers it.
    Uas,
}

/// `Session-Expires: 90;refresher=uas` (RFC 4028).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionExpires {
    /// Seconds.
    pub secs: u32,
    /// Who refreshes, if said.
    pub refresher: Option<Refresher>,
}

impl SessionExpires {
    /// Reads the value.
    pub fn read(text: &[u8]) -> Result<Self, Malformed> {
        let bad = Malformed("malformed Session-Expires");
        let (secs, params) = split_params(text);
        let params = Params::read(params).map_err(|_| bad)?;
        let refresher = match params.get("refresher") {
            Some(who) if who.eq_ignore_ascii_case("uac") => Some(Refresher::Uac),
            Some(who) if who.eq_ignore_ascii_case("uas") => Some(Refresher::Uas),
            _ => None,
        };
        Ok(Self { secs: read_seconds(secs).ok_or(bad)?, refresher })
    }
}

impl fmt::Display for SessionExpires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.secs)?;
        match self.refresher {
            Some(Refresher::Uac) => f.write_str(";refresher=uac"),
            Some(Refresher::Uas) => f.write_str(";refresher=uas"),
            None => Ok(()),
        }
    }
}

/// `RAck: 776656 1 INVITE` (RFC 3262 section 7.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RAck {
    /// The provisional answer's RSeq.
    pub rseq: u32,
    /// The CSeq number it answered.
    pub cseq: u32,
    /// And its method.
    pub method: Method,
}

impl RAck {
    /// Reads the value.
    pub fn read(text: &[u8]) -> Result<Self, Malformed> {
        let bad = Malformed("malformed RAck");
        let text = trim(text);
        let at = text.iter().position(u8::is_ascii_whitespace).ok_or(bad)?;
        let (rseq, rest) = text.split_at_checked(at).ok_or(bad)?;
        let (cseq, method) = read_cseq(rest).map_err(|_| bad)?;
        Ok(Self { rseq: read_seconds(rseq).ok_or(bad)?, cseq, method })
    }
}

impl fmt::Display for RAck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.rseq, self.cseq, self.method)
    }
}

/// `Reason: Q.850;cause=16;text="Normal call clearing"` (RFC 3326).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// `Q.850`, `SIP` …
    pub protocol: String,
    /// The cause in that protocol's numbers.
    pub cause: Option<u16>,
    /// In words.
    pub text: Option<String>,
}

impl Reason {
    /// A Q.850 cause.
    pub fn q850(cause: u16, text: &str) -> Self {
        Self { protocol: "Q.850".into(), cause: Some(cause), text: Some(text.to_owned()) }
    }

    /// A SIP status as the cause.
    pub fn sip(code: u16, text: &str) -> Self {
        Self { protocol: "SIP".into(), cause: Some(code), text: Some(text.to_owned()) }
    }

    /// Whether it speaks Q.850.
    pub fn is_q850(&self) -> bool {
        self.protocol.eq_ignore_ascii_case("Q.850")
    }

    /// Reads one value.
    pub fn read(text: &[u8]) -> Result<Self, Malformed> {
        let bad = Malformed("malformed Reason");
        let (protocol, params) = split_params(text);
        let protocol = trim(protocol);
        if !is_token(protocol) {
            return Err(bad);
        }
        let params = Params::read(params).map_err(|_| bad)?;
        let cause = params.get("cause").and_then(|cause| cause.parse().ok());
        Ok(Self { protocol: lossy(protocol), cause, text: params.text("text") })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_plain(f, &self.protocol)?;
        if let Some(cause) = self.cause {
            write!(f, ";cause={cause}")?;
        }
        if let Some(text) = &self.text {
            write!(f, ";text={}", quote(text))?;
        }
        Ok(())
    }
}

/// The parameter list of a challenge or of credentials: `Digest realm="a, b", nonce="…"`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthParams {
    /// `Digest`, `Bearer` …, as spelled.
    pub scheme: String,
    params: Vec<(String, String)>,
}

/// What a server asks for (`WWW-Authenticate`, `Proxy-Authenticate`).
pub type Challenge = AuthParams;
/// What a client shows (`Authorization`, `Proxy-Authorization`).
pub type Credentials = AuthParams;

impl AuthParams {
    /// An empty list.
    pub fn new(scheme: &str) -> Self {
        Self { scheme: scheme.to_owned(), params: Vec::new() }
    }

    /// Reads one header value.
    pub fn read(text: &[u8]) -> Result<Self, Malformed> {
        let bad = Malformed("malformed credentials");
        let text = trim(text);
        let at = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
        let (scheme, rest) = text.split_at_checked(at).ok_or(bad)?;
        if !is_token(scheme) {
            return Err(bad);
        }
        let mut list = Self::new(&lossy(scheme));
        for part in split_list(rest) {
            if list.params.len() == MAX_PARAMS {
                return Err(Malformed("too many parameters"));
            }
            let at = part.iter().position(|&b| b == b'=').ok_or(bad)?;
            let (name, value) = part.split_at_checked(at).ok_or(bad)?;
            let (name, value) = (trim(name), trim(value.get(1..).unwrap_or_default()));
            let closed = value.first() != Some(&b'"') || (value.len() > 1 && value.last() == Some(&b'"'));
            if !is_token(name)
                || !closed
                || list.params.iter().any(|(have, _)| have.as_bytes().eq_ignore_ascii_case(name))
            {
                return Err(bad);
            }
            list.params.push((lossy(name), lossy(value)));
        }
        Ok(list)
    }

    /// Whether it is of this scheme.
    pub fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The value without quotes.
    pub fn text(&self, name: &str) -> Option<String> {
        let (_, value) = self.params.iter().find(|(have, _)| have.eq_ignore_ascii_case(name))?;
        Some(unquote(value))
    }

    /// Adds `name="value"`.
    #[must_use]
    pub fn quoted(mut self, name: &str, value: &str) -> Self {
        self.params.push((name.to_owned(), quote(value)));
        self
    }

    /// Adds `name=value`.
    #[must_use]
    pub fn bare(mut self, name: &str, value: &str) -> Self {
        self.params.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl fmt::Display for AuthParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_plain(f, &self.scheme)?;
        for (at, (name, value)) in self.params.iter().enumerate() {
            f.write_str(if at == 0 { " " } else { ", " })?;
            write_plain(f, name)?;
            f.write_str("=")?;
            write_plain(f, value)?;
        }
        Ok(())
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
    use super::*;

    #[test]
    fn lists_are_cut_outside_quotes_and_angles_only() {
        let table: [(&str, &[&str]); 6] = [
            ("a,b , c", &["a", "b", "c"]),
            ("<sip:a,b>,c", &["<sip:a,b>", "c"]),
            (r#""a,\",b" <x>, d"#, &[r#""a,\",b" <x>"#, "d"]),
            (",,a,,", &["a"]),
            (r#""open, never closed"#, &[r#""open, never closed"#]),
            ("", &[]),
        ];
        for (text, parts) in table {
            let cut: Vec<&[u8]> = split_list(text.as_bytes()).collect();
            assert_eq!(cut, parts.iter().map(|part| part.as_bytes()).collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn addresses_are_read_in_every_form_and_written_in_one() {
        let table = [
            ("sip:a@b", "<sip:a@b>"),
            ("sip:a@b;tag=1", "<sip:a@b>;tag=1"),
            ("<sip:a@b;x=y>;tag=1", "<sip:a@b;x=y>;tag=1"),
            ("caller<sip:a@b>", "\"caller\" <sip:a@b>"),
            ("Two Words  <sip:a@b>", "\"Two Words\" <sip:a@b>"),
            (r#""Q \"x\" <y>" <sip:a@b>"#, r#""Q \"x\" <y>" <sip:a@b>"#),
            ("\"\" <sip:a@b> ; tag = 1 ; +x=\"a;b\"", "<sip:a@b>;tag=1;+x=\"a;b\""),
            ("<tel:+380671234567;ext=1>", "<tel:+380671234567;ext=1>"),
        ];
        for (text, written) in table {
            assert_eq!(NameAddr::read(text.as_bytes()).unwrap().to_string(), written, "{text}");
        }
        for broken in [
            "",
            "<>",
            "<sip:a@b",
            "sip:a@b>",
            "\"x <sip:a@b>",
            "<sip:a@b> x",
            "<sip:a@b>;;",
            "sip:a@b?x=y",
            "a,b",
        ] {
            assert!(NameAddr::read(broken.as_bytes()).is_err(), "{broken}");
        }
        assert_eq!(NameAddr::read(b"caf\xe9 <sip:a@b>").unwrap().display.as_deref(), Some("caf\u{fffd}"));
    }

    #[test]
    fn a_via_notes_where_it_came_from() {
        let source = "192.0.2.9:4000".parse().unwrap();
        let table = [
            ("SIP/2.0/UDP 192.0.2.9;branch=x", "SIP/2.0/UDP 192.0.2.9;branch=x"),
            ("SIP/2.0/UDP 192.0.2.9;received=203.0.113.1", "SIP/2.0/UDP 192.0.2.9"),
            ("SIP/2.0/WS x.invalid;branch=x", "SIP/2.0/WS x.invalid;branch=x;received=192.0.2.9"),
            (
                "SIP/2.0/UDP 10.0.0.1:5060;rport;branch=x",
                "SIP/2.0/UDP 10.0.0.1:5060;rport=4000;branch=x;received=192.0.2.9",
            ),
        ];
        for (text, noted) in table {
            let mut via = Via::read(text.as_bytes()).unwrap();
            via.note_source(source);
            assert_eq!(via.to_string(), noted);
        }
        let ours = Via::new("UDP", Host::V6("2001:db8::1".parse().unwrap()), Some(5060), "z9hG4bKa");
        assert_eq!(ours.to_string(), "SIP/2.0/UDP [2001:db8::1]:5060;branch=z9hG4bKa;rport");
        assert_eq!(ours.rport(), Some(None));
        assert_eq!(Via::read(ours.to_string().as_bytes()), Ok(ours));
        for broken in [
            "",
            "SIP/2.0/UDP",
            "SIP/3.0/UDP h",
            "HTTP/2.0/UDP h",
            "SIP/2.0/UDP h:x",
            "SIP/2.0/UDP h:70000",
            "SIP/2.0/UDP [::1",
            "SIP/2.0/UDP h;;",
            "SIP/2.0/U\"DP h",
            "SIP/2.0/UDP a b",
        ] {
            assert!(Via::read(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn numbers_reasons_and_timers_are_read() {
        assert_eq!(read_seconds(b" 0090 "), Some(90));
        assert_eq!(read_seconds(b"99999999999999999999"), Some(u32::MAX));
        assert_eq!(read_seconds(b"-1"), None);
        assert_eq!(read_cseq(b"2147483647 INVITE"), Ok((2_147_483_647, Method::Invite)));
        assert!(read_cseq(b"2147483648 INVITE").is_err() && read_cseq(b"1 IN VITE").is_err());
        let timer = SessionExpires::read(b"90 ; Refresher=UAS").unwrap();
        assert_eq!(timer, SessionExpires { secs: 90, refresher: Some(Refresher::Uas) });
        assert_eq!(timer.to_string(), "90;refresher=uas");
        let rack = RAck::read(b"776656  1 INVITE").unwrap();
        assert_eq!(rack.to_string(), "776656 1 INVITE");
        assert!(RAck::read(b"1 INVITE").is_err());
        let reason = Reason::read(b"Q.850 ;cause=16 ;text=\"Normal, \\\"clear\\\"\"").unwrap();
        assert_eq!(reason, Reason::q850(16, "Normal, \"clear\""));
        assert_eq!(Reason::read(reason.to_string().as_bytes()), Ok(reason));
        for (q, thousandths) in
            [("1", Some(1000)), ("0.5", Some(500)), ("1.001", None), ("0.1234", None), ("x", None)]
        {
            assert_eq!(NameAddr::read(format!("<sip:a>;q={q}").as_bytes()).unwrap().q(), thousandths, "{q}");
        }
    }

    #[test]
    fn no_written_value_holds_a_control_character() {
        let evil = "a\r\nX: y\0\u{7f}";
        let mut address = NameAddr::new(Uri::sip(Some(evil), Host::Name(evil.into()), None)).with_tag(evil);
        address.display = Some(evil.into());
        let via = Via::new(evil, Host::Name(evil.into()), None, evil);
        let list = AuthParams::new(evil).quoted(evil, evil).bare(evil, evil);
        for text in
            [address.to_string(), via.to_string(), Reason::sip(200, evil).to_string(), list.to_string()]
        {
            assert!(!text.contains(char::is_control), "{text:?}");
        }
    }

    #[test]
    fn too_many_parameters_are_refused() {
        assert!(Params::read("a;".repeat(64).trim_end_matches(';').as_bytes()).is_ok());
        assert!(Params::read("a;".repeat(65).trim_end_matches(';').as_bytes()).is_err());
        let many: Vec<String> = (0..65).map(|at| format!("a{at}=1")).collect();
        assert!(AuthParams::read(format!("Digest {}", many.join(",")).as_bytes()).is_err());
    }
}
