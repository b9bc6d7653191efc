//! Small values of the configuration: address ranges, port ranges, time zones, secrets.

use std::net::{IpAddr, SocketAddr};

use jiff::tz::TimeZone;

use crate::dialplan::parse::word;

/// A range of addresses, such as `192.0.2.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// Any address inside.
    pub address: IpAddr,
    /// Leading bits that must agree: 0…32 or 0…128.
    pub prefix: u8,
}

impl Cidr {
    /// `192.0.2.0/24`, `2001:db8::/32`, or one address.
    ///
    /// # Errors
    /// In words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no address range; write for instance 192.0.2.0/24");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= bits).ok_or_else(wrong)?,
        };
        Ok(Self { address, prefix })
    }

    /// Whether `address` lies inside; an IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(mine), IpAddr::V4(theirs)) => {
                let agree = (mine.to_bits() ^ theirs.to_bits()).leading_zeros();
                agree >= u32::from(self.prefix)
            }
            (IpAddr::V6(mine), IpAddr::V6(theirs)) => {
                let agree = (mine.to_bits() ^ theirs.to_bits()).leading_zeros();
                agree >= u32::from(self.prefix)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Ports from `first` to `last`, both inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest; even.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl PortRange {
    /// `20000-29999`.
    ///
    /// # Errors
    /// In words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no range of ports; write for instance 20000-29999");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let (first, last): (u16, u16) =
            (first.trim().parse().map_err(|_| wrong())?, last.trim().parse().map_err(|_| wrong())?);
        if first < 1_024 || first % 2 != 0 || last <= first {
            return Err(format!("'{text}': begin with an even port from 1024 on and end with a higher one"));
        }
        Ok(Self { first, last })
    }
}

/// `local` or an IANA name.
pub(crate) fn time_zone(name: &str) -> Option<TimeZone> {
    if name == "local" { Some(TimeZone::system()) } else { TimeZone::get(name).ok() }
}

/// A word out of a fixed set, some of which come with a later release.
pub(crate) fn now_or_later<T: Clone>(text: &str, known: &[(&str, Option<T>)]) -> Result<T, String> {
    word(text, known)?.ok_or_else(|| {
        let now: Vec<&str> =
            known.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name).collect();
        format!("'{text}' comes with a later release: write {}", now.join(" or "))
    })
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource<'t> {
    /// The text itself.
    Text(&'t str),
    /// `${env:NAME}`
    Env(&'t str),
    /// `${file:PATH}`
    File(&'t str),
}

impl<'t> SecretSource<'t> {
    pub(crate) fn parse(text: &'t str) -> Result<Self, String> {
        let Some(inner) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
            return Ok(Self::Text(text));
        };
        match inner.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name)),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path)),
            Some(_) | None => Err("write ${env:NAME} or ${file:PATH}".into()),
        }
    }
}

/// An address and port, or nothing for an empty text.
pub(crate) fn listener(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    socket(text).map(Some)
}

/// An address and port.
pub(crate) fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("'{text}' is no address and port; write for instance 0.0.0.0:5060"))
}

/// An address, or nothing for an empty text.
pub(crate) fn address(text: &str) -> Result<Option<IpAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| format!("'{text}' is no address; write for instance 192.0.2.10"))
}

/// A name of a trunk, queue or node: it appears in addresses, headers and patterns.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let good = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(good) {
        return Err(format!("'{text}' is no name; use letters, digits, - _ . and at most 64 of them"));
    }
    Ok(text.to_owned())
}

/// A host name.
pub(crate) fn domain(text: &str) -> Result<String, String> {
    let good = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'.');
    if text.is_empty() || text.len() > 253 || !text.bytes().all(good) {
        return Err(format!("'{text}' is no host name"));
    }
    Ok(text.to_ascii_lowercase())
}

/// `http://…` or `https://…`, without a slash at the end.
pub(crate) fn base_address(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let rest = rest.map(|rest| rest.trim_end_matches('/'));
    if rest.is_none_or(|rest| rest.is_empty() || rest.contains([' ', '?', '#', '@'])) {
        return Err(format!("'{text}' is no address; write http://… or https://…"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// What a browser sends as Origin: scheme, host, port.
pub(crate) fn origin(text: &str) -> Result<String, String> {
    let base = base_address(text)?;
    if base.matches('/').count() > 2 {
        return Err(format!("'{text}' is no origin; write it without a path"));
    }
    Ok(base.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_range_holds_its_addresses() {
        let table = [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("192.0.2.0/24", "::ffff:192.0.2.9", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("0.0.0.0/0", "2001:db8::1", false),
        ];
        for (range, address, inside) in table {
            assert_eq!(
                Cidr::parse(range).unwrap().contains(address.parse().unwrap()),
                inside,
                "{range} {address}"
            );
        }
        for text in ["", "192.0.2.0/33", "::/129", "host/8", "192.0.2.0/", "192.0.2.0/-1"] {
            assert!(Cidr::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_of_ports_begins_with_an_even_one() {
        assert_eq!(PortRange::parse("20000-29999"), Ok(PortRange { first: 20_000, last: 29_999 }));
        for text in ["", "20000", "20001-29999", "30000-20000", "80-90", "20000-70000"] {
            assert!(PortRange::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn zones_are_known_by_their_iana_name() {
        assert!(time_zone("local").is_some());
        assert!(time_zone("Europe/Kyiv").is_some());
        assert!(time_zone("Mars/Olympus").is_none());
    }

    #[test]
    fn an_origin_has_no_path() {
        assert_eq!(origin("https://Desk.example:8443/"), Ok("https://desk.example:8443".into()));
        assert!(origin("https://desk.example/a").is_err());
        assert!(base_address("https://core.example/a/").is_ok());
        for text in ["core.example", "ftp://x", "http://", "http://u@h"] {
            assert!(base_address(text).is_err(), "{text}");
        }
    }
}
