//! Where a request comes from: the person's address, the page that sent it, this very machine.
//!
//! Invariant: a page of another site can neither change anything here nor open a socket
//! (CSRF, cross-site WebSocket hijacking), and a forwarding header counts only from a trusted proxy.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, Method, header};

use crate::sip::Prefix;

/// Headers that a proxy adds; with one of them a loopback connection is not local.
const FORWARDING: [&str; 6] =
    ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via"];
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a request's origin is judged by.
#[derive(Debug, Clone, Default)]
pub(super) struct Fence {
    /// `scheme://host[:port]`, besides our own.
    pub allowed_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<Prefix>,
}

impl Fence {
    /// The person's address: the last one in `X-Forwarded-For` that no trusted proxy added itself.
    pub(super) fn source(&self, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
        let trusted = |address: IpAddr| self.trusted_proxies.iter().any(|proxy| proxy.contains(address));
        let mut source = peer.ip().to_canonical();
        if !trusted(source) {
            return source;
        }
        let lists = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let hops: Vec<&str> = lists.flat_map(|list| list.split(',')).map(str::trim).collect();
        for hop in hops.iter().rev() {
            let Ok(address) = hop.parse::<IpAddr>() else { break };
            source = address.to_canonical();
            if !trusted(source) {
                break;
            }
        }
        source
    }

    /// Whether a WebSocket may be opened: by a program (no `Origin`), our own page, or an allowed one.
    pub(super) fn may_open_socket(&self, headers: &HeaderMap) -> bool {
        let origins: Vec<_> = headers.get_all(header::ORIGIN).iter().collect();
        match origins.as_slice() {
            [] => true,
            [one] => one.to_str().is_ok_and(|origin| self.is_ours(origin, headers)),
            _ => false,
        }
    }

    /// Whether the request may change something. Browsers always send `Sec-Fetch-Site` or `Origin` with
    /// one that does; a request with neither comes from a program, which no page can abuse.
    pub(super) fn may_change(&self, method: &Method, headers: &HeaderMap) -> bool {
        if method.is_safe() {
            return true;
        }
        if headers.contains_key(header::ORIGIN) {
            return self.may_open_socket(headers);
        }
        headers.get(FETCH_SITE).is_none_or(|site| site.as_bytes() == b"same-origin")
    }

    fn is_ours(&self, origin: &str, headers: &HeaderMap) -> bool {
        if self
            .allowed_origins
            .iter()
            .any(|allowed| allowed.trim_end_matches('/').eq_ignore_ascii_case(origin))
        {
            return true;
        }
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return false,
        };
        let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
        split_port(authority, default_port) == split_port(host, default_port) && !authority.is_empty()
    }
}

/// Host in lower case, and port.
fn split_port(authority: &str, default_port: u16) -> (String, Option<u16>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, Some(default_port)),
    };
    (host.to_ascii_lowercase(), port)
}

/// Whether the request comes from this very machine and no proxy stands between.
pub(super) fn is_local(peer: SocketAddr, headers: &HeaderMap) -> bool {
    peer.ip().to_canonical().is_loopback() && !FORWARDING.iter().any(|name| headers.contains_key(*name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut made = HeaderMap::new();
        for (name, value) in pairs {
            made.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        made
    }

    #[test]
    fn only_our_own_page_or_an_allowed_one_may_open_a_socket() {
        let fence = Fence { allowed_origins: vec!["https://crm.example".into()], ..Fence::default() };
        let rows = [
            (None, true),
            (Some("http://desk.example:8080"), true),
            (Some("http://DESK.example:8080"), true),
            (Some("https://desk.example:8080"), true),
            (Some("https://crm.example"), true),
            (Some("http://desk.example"), false),
            (Some("http://desk.example:8080.evil.example"), false),
            (Some("http://desk.example.evil.example:8080"), false),
            (Some("http://evil.example"), false),
            (Some("null"), false),
            (Some("file://"), false),
            (Some("http://"), false),
            (Some(""), false),
        ];
        for (origin, allowed) in rows {
            let mut made = headers(&[("host", "desk.example:8080")]);
            if let Some(origin) = origin {
                made.insert(header::ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(fence.may_open_socket(&made), allowed, "{origin:?}");
        }
        assert!(!fence.may_open_socket(&headers(&[
            ("origin", "http://x"),
            ("origin", "http://x"),
            ("host", "x")
        ])));
        assert!(fence.may_open_socket(&headers(&[("origin", "https://x"), ("host", "x:443")])));
        assert!(fence.may_open_socket(&headers(&[("origin", "http://[::1]:8080"), ("host", "[::1]:8080")])));
    }

    #[test]
    fn a_foreign_page_changes_nothing_and_reads_are_left_alone() {
        let fence = Fence::default();
        let foreign = headers(&[("sec-fetch-site", "cross-site"), ("host", "a")]);
        assert!(!fence.may_change(&Method::POST, &foreign));
        assert!(fence.may_change(&Method::GET, &foreign));
        assert!(
            !fence.may_change(&Method::DELETE, &headers(&[("sec-fetch-site", "same-site"), ("host", "a")]))
        );
        assert!(!fence.may_change(&Method::PUT, &headers(&[("origin", "http://b"), ("host", "a")])));
        assert!(
            fence.may_change(&Method::PUT, &headers(&[("sec-fetch-site", "same-origin"), ("host", "a")]))
        );
        assert!(fence.may_change(&Method::PUT, &headers(&[("origin", "http://a"), ("host", "a")])));
        assert!(fence.may_change(&Method::PUT, &headers(&[("host", "a")])));
    }

    #[test]
    fn forwarded_addresses_count_only_from_a_trusted_proxy() {
        let proxy = Prefix { address: "10.0.0.0".parse().unwrap(), bits: 8 };
        let fence = Fence { trusted_proxies: vec![proxy], ..Fence::default() };
        let list = headers(&[("x-forwarded-for", "6.6.6.6, 192.0.2.7, 10.0.0.9")]);
        let from = |peer: &str| fence.source(peer.parse().unwrap(), &list).to_string();
        assert_eq!(from("10.0.0.1:5"), "192.0.2.7");
        assert_eq!(from("203.0.113.5:5"), "203.0.113.5");
        let none = fence.source("10.0.0.1:5".parse().unwrap(), &HeaderMap::new());
        assert_eq!(none.to_string(), "10.0.0.1");
    }

    #[test]
    fn local_is_loopback_without_a_proxy() {
        assert!(is_local("127.0.0.1:9".parse().unwrap(), &HeaderMap::new()));
        assert!(is_local("[::1]:9".parse().unwrap(), &HeaderMap::new()));
        assert!(!is_local("127.0.0.1:9".parse().unwrap(), &headers(&[("x-forwarded-for", "1.2.3.4")])));
        assert!(!is_local("192.0.2.1:9".parse().unwrap(), &HeaderMap::new()));
    }
}
