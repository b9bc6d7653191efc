//! SIP, SIPS and tel addresses: who is called and where a request goes.
//!
//! Invariant: every part keeps the spelling it came with (escapes, case, order of parameters), so a URI
//! that is read and written again is the same text; meaning is taken out by methods that leave it alone.
//! A written URI holds no space and no control character.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::header::{Malformed, Params, find_outside_quotes, trim};
use super::steps::walked;

/// How an address is to be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scheme {
    /// `sip:` (RFC 3261 section 19.1).
    Sip,
    /// `sips:`: TLS on every hop.
    Sips,
    /// `tel:` (RFC 3966): a number and no host.
    Tel,
    /// Anything else, as spelled; it is answered with 416.
    Other(String),
}

/// The host part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Host {
    /// A literal IPv4 address.
    V4(Ipv4Addr),
    /// A literal IPv6 address, in brackets on the wire.
    V6(Ipv6Addr),
    /// A name, as spelled.
    Name(String),
    /// None: `tel:` and unknown schemes have no host.
    Absent,
}

impl Host {
    /// Reads `192.0.2.1`, `[2001:db8::1]`, `2001:db8::1` (as some write it in `received`) or a name.
    pub fn read(text: &str) -> Result<Self, Malformed> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(Malformed("unbalanced bracket in host"))?;
            return inner.parse().map(Self::V6).map_err(|_| Malformed("bad IPv6 address"));
        }
        if let Ok(v4) = text.parse() {
            return Ok(Self::V4(v4));
        }
        if let Ok(v6) = text.parse() {
            return Ok(Self::V6(v6));
        }
        // RFC 3261 section 25.1 allows letters, digits, '-' and '.'; '_' is seen in the field.
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if text.is_empty() || !text.bytes().all(fine) {
            return Err(Malformed("bad host"));
        }
        Ok(Self::Name(text.to_owned()))
    }

    /// The literal address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::V4(v4) => Some(IpAddr::V4(*v4)),
            Self::V6(v6) => Some(IpAddr::V6(*v6)),
            Self::Name(_) | Self::Absent => None,
        }
    }

    /// Whether both name the same host: names without regard to case (RFC 3261 section 19.1.4).
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(a), Self::Name(b)) => a.eq_ignore_ascii_case(b),
            _ => self == other,
        }
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => Self::V6(v6),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(v4) => write!(f, "{v4}"),
            Self::V6(v6) => write!(f, "[{v6}]"),
            Self::Name(name) => write_visible(f, name),
            Self::Absent => Ok(()),
        }
    }
}

/// Splits `host`, `host:port` or `[v6]:port`.
pub fn read_host_port(text: &str) -> Result<(Host, Option<u16>), Malformed> {
    let split = match text.strip_prefix('[').and_then(|rest| rest.find(']')) {
        // The bracket is one octet before what was searched.
        Some(end) => end.saturating_add(2),
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at_checked(split).ok_or(Malformed("bad host"))?;
    let host = Host::read(host.trim())?;
    let rest = rest.trim();
    if rest.is_empty() {
        return Ok((host, None));
    }
    let port = rest.strip_prefix(':').ok_or(Malformed("bad port"))?.trim();
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Malformed("bad port"));
    }
    port.parse().map(|port| (host, Some(port))).map_err(|_| Malformed("bad port"))
}

/// One address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uri {
    /// `sip`, `sips`, `tel` or another.
    pub scheme: Scheme,
    /// The user part as spelled, escapes included; the number of a `tel:`; all of an unknown scheme.
    pub user: Option<String>,
    /// The password part (RFC 3261 advises against it), as spelled.
    pub password: Option<String>,
    /// Where.
    pub host: Host,
    /// Port, if written.
    pub port: Option<u16>,
    /// `;transport=ws;lr;ob` …
    pub params: Params,
    /// What follows `?`, as spelled.
    pub headers: Option<String>,
}

impl Uri {
    /// A `sip:` address of a literal socket address, as in our own Contact and Via.
    pub fn at(user: Option<&str>, address: SocketAddr) -> Self {
        Self::sip(user, Host::from(address.ip()), Some(address.port()))
    }

    /// A `sip:` address; the user part is escaped as needed.
    pub fn sip(user: Option<&str>, host: Host, port: Option<u16>) -> Self {
        Self {
            scheme: Scheme::Sip,
            user: user.map(escape_user),
            password: None,
            host,
            port,
            params: Params::default(),
            headers: None,
        }
    }

    /// Reads the text of a URI, without `<>`. Non-UTF-8 octets are refused: RFC 3261 wants them escaped.
    pub fn read(text: &[u8]) -> Result<Self, Malformed> {
        walked(text.len());
        let text = std::str::from_utf8(trim(text)).map_err(|_| Malformed("URI is not text"))?;
        if text.bytes().any(|b| b <= b' ' || b == 0x7f || matches!(b, b'<' | b'>' | b'"')) {
            return Err(Malformed("space, quote or control character in URI"));
        }
        let (scheme, rest) = text.split_once(':').ok_or(Malformed("URI without scheme"))?;
        let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        if scheme.is_empty() || !scheme.bytes().all(valid) {
            return Err(Malformed("bad URI scheme"));
        }
        match scheme {
            s if s.eq_ignore_ascii_case("sip") => Self::read_sip(Scheme::Sip, rest),
            s if s.eq_ignore_ascii_case("sips") => Self::read_sip(Scheme::Sips, rest),
            s if s.eq_ignore_ascii_case("tel") => Self::read_tel(rest),
            other => Ok(Self::opaque(Scheme::Other(other.to_owned()), rest)),
        }
    }

    fn opaque(scheme: Scheme, rest: &str) -> Self {
        Self {
            scheme,
            user: Some(rest.to_owned()),
            password: None,
            host: Host::Absent,
            port: None,
            params: Params::default(),
            headers: None,
        }
    }

    fn read_tel(rest: &str) -> Result<Self, Malformed> {
        let (number, params) = rest.split_once(';').unwrap_or((rest, ""));
        if number.is_empty() {
            return Err(Malformed("tel URI without number"));
        }
        let mut uri = Self::opaque(Scheme::Tel, number);
        uri.params = Params::read(params.as_bytes())?;
        Ok(uri)
    }

    fn read_sip(scheme: Scheme, rest: &str) -> Result<Self, Malformed> {
        // The user part may hold ';' and '?' and '/' (RFC 3261 section 25.1), a host never an '@':
        // so the '@' is looked for first. Gateways
        // write `sip:@host` for a withheld number: an empty user is kept as one.
        let (user_info, place) = match rest.split_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let (place, headers) = match place.split_once('?') {
            Some((place, headers)) => (place, Some(headers.to_owned())),
            None => (place, None),
        };
        let (host_port, params) = match find_outside_quotes(place.as_bytes(), b';') {
            Some(at) => place.split_at_checked(at).unwrap_or((place, "")),
            None => (place, ""),
        };
        let (host, port) = read_host_port(host_port)?;
        let (user, password) =
            match user_info.map(|u| u.split_once(':').map_or((u, None), |(u, p)| (u, Some(p)))) {
                Some((user, password)) => (Some(user.to_owned()), password.map(str::to_owned)),
                None => (None, None),
            };
        let params = Params::read(params.strip_prefix(';').unwrap_or(params).as_bytes())?;
        Ok(Self { scheme, user, password, host, port, params, headers })
    }

    /// The user part with its escapes resolved; lossy where they are not UTF-8.
    pub fn user_text(&self) -> Option<String> {
        self.user.as_deref().map(unescape)
    }

    /// The user part as something that can be dialled: escapes resolved, parameters (`;phone-context=`) and
    /// visual separators (RFC 3966 section 3) dropped; `None` when anything but digits, `+`, `*`, `#` is left.
    pub fn user_digits(&self) -> Option<String> {
        let user = self.user_text()?;
        let number = user.split(';').next().unwrap_or_default();
        let mut digits = String::with_capacity(number.len());
        for (at, c) in number.chars().enumerate() {
            match c {
                '0'..='9' | '*' | '#' => digits.push(c),
                '+' if at == 0 => digits.push(c),
                '-' | '.' | '(' | ')' => {}
                _ => return None,
            }
        }
        digits.bytes().any(|b| b != b'+').then_some(digits)
    }

    /// The `transport` parameter, as spelled.
    pub fn transport(&self) -> Option<&str> {
        self.params.get("transport")
    }

    /// Whether it is a loose router (RFC 3261 section 16.12).
    pub fn is_loose(&self) -> bool {
        self.params.has("lr")
    }

    /// The same address by RFC 3261 section 19.1.4, but without comparing header parts.
    /// User and password with regard to case, host and parameter values without.
    pub fn same(&self, other: &Self) -> bool {
        let scheme = match (&self.scheme, &other.scheme) {
            (Scheme::Other(a), Scheme::Other(b)) => a.eq_ignore_ascii_case(b),
            (a, b) => a == b,
        };
        scheme
            && self.user_text() == other.user_text()
            && self.password.as_deref().map(unescape) == other.password.as_deref().map(unescape)
            && self.host.same(&other.host)
            && self.port == other.port
            && self.params.agree(&other.params)
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scheme {
            Scheme::Sip => f.write_str("sip:")?,
            Scheme::Sips => f.write_str("sips:")?,
            Scheme::Tel => f.write_str("tel:")?,
            Scheme::Other(name) => {
                write_visible(f, name)?;
                f.write_str(":")?;
            }
        }
        if let Some(user) = &self.user {
            write_visible(f, user)?;
            if let Some(password) = &self.password {
                f.write_str(":")?;
                write_visible(f, password)?;
            }
            if self.host != Host::Absent {
                f.write_str("@")?;
            }
        }
        write!(f, "{}", self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        for (name, value) in self.params.iter() {
            f.write_str(";")?;
            write_visible(f, name)?;
            if let Some(value) = value {
                f.write_str("=")?;
                write_visible(f, value)?;
            }
        }
        if let Some(headers) = &self.headers {
            f.write_str("?")?;
            write_visible(f, headers)?;
        }
        Ok(())
    }
}

/// Writes text with everything that could end a URI or a line escaped.
fn write_visible(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        match c {
            '\0'..=' ' | '\x7f' | '<' | '>' | '"' => write!(f, "%{:02X}", u32::from(c))?,
            _ => fmt::Write::write_char(f, c)?,
        }
    }
    Ok(())
}

/// Resolves `%41`; a `%` that begins no escape stays. Octets that are no UTF-8 become U+FFFD.
pub fn unescape(text: &str) -> String {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'%'
            && let [high, low, tail @ ..] = tail
            && let (Some(high), Some(low)) = (nibble(*high), nibble(*low))
        {
            octets.push((high << 4) | low);
            rest = tail;
        } else {
            octets.push(first);
        }
    }
    String::from_utf8(octets).unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned())
}

/// Escapes what RFC 3261 section 25.1 does not allow in a user part.
pub fn escape_user(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for b in text.bytes() {
        let plain = b.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&b);
        if plain {
            escaped.push(char::from(b));
        } else {
            escaped.push('%');
            escaped.push(hex_digit(b >> 4));
            escaped.push(hex_digit(b & 15));
        }
    }
    escaped
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).map_or('0', |c| c.to_ascii_uppercase())
}

fn nibble(b: u8) -> Option<u8> {
    char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
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

    fn uri(text: &str) -> Uri {
        Uri::read(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn a_uri_is_written_as_it_was_read() {
        for text in [
            "sip:example.com",
            "sip:@192.0.2.1:5060",
            "sip:%41lice@example.com:5060;transport=WS;lr;ob",
            "sips:a:pass%20word@[2001:db8::1]:5061?Subject=x&a=b",
            "sip:+380671234567;phone-context=+380@gw;user=phone",
            "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com",
            "tel:+380-67-123;ext=5",
            "urn:service:sos",
            "sip:9fqin4lh@r3k05m96p66g.invalid;transport=ws;ob",
        ] {
            assert_eq!(uri(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_uri_is_refused() {
        for text in [
            "",
            "sip",
            "sip:",
            "sip:a@",
            "sip:@",
            "sip::5060",
            "sip:h:",
            "sip:h:x",
            "sip:h:65536",
            "sip:2001:db8::1",
            "sip:[::1",
            "sip:[x]",
            "sip:a b@h",
            "sip:a@h;;lr",
            "sip:a@h\r\nX:y",
            "tel:",
            ":x",
            "<sip:a@h>",
            "sip:a@h@i",
            "sip:h_%",
        ] {
            assert!(Uri::read(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Uri::read(b"sip:\xff@h").is_err());
    }

    #[test]
    fn only_what_can_be_dialled_is_dialled() {
        for (text, digits) in [
            ("sip:+380671234567@gw", Some("+380671234567")),
            ("sip:%2B380%36@gw", Some("+3806")),
            ("sip:067-123.45(67);phone-context=x@gw", Some("0671234567")),
            ("tel:+38(067)1", Some("+380671")),
            ("sip:*21%23@gw", Some("*21#")),
            ("sip:op1@gw", None),
            ("sip:100&SIP%2F..@gw", None),
            ("sip:1%0d%0aX:@gw", None),
            ("sip:1%00@gw", None),
            ("sip:%EF%BC%91@gw", None),
            ("sip:1+2@gw", None),
            ("sip:+@gw", None),
            ("sip:gw", None),
        ] {
            assert_eq!(uri(text).user_digits().as_deref(), digits, "{text}");
        }
    }

    #[test]
    fn comparison_follows_rfc_3261_section_19_1_4() {
        for (a, b, same) in [
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp", true),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5", true),
            ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on", true),
            ("sip:c@h;newparam=5", "sip:c@h;newparam=6", false),
            ("SIP:ALICE@AtLanTa.CoM", "sip:alice@AtLanTa.CoM", false),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060", false),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp", false),
            ("sip:bob@h", "sips:bob@h", false),
            ("sip:a@[2001:db8::1]", "sip:a@[2001:DB8:0::1]", true),
        ] {
            assert_eq!((uri(a).same(&uri(b)), uri(b).same(&uri(a))), (same, same), "{a} {b}");
        }
    }

    #[test]
    fn user_parts_of_our_own_are_escaped() {
        let made = Uri::sip(Some("a b@c#"), Host::Name("h".into()), Some(5060));
        assert_eq!(made.to_string(), "sip:a%20b%40c%23@h:5060");
        assert_eq!(made.user_text().as_deref(), Some("a b@c#"));
        assert_eq!(Uri::at(None, "[::1]:5".parse().unwrap()).to_string(), "sip:[::1]:5");
        assert_eq!(unescape("%4%zz%41%"), "%4%zzA%");
    }
}
