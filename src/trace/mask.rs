//! Secrets out of SIP messages: digest answers, keys of the media, passwords in URIs.
//!
//! Invariant: what is not known to be harmless in a line that holds secrets is masked; every other byte
//! stays as it was.

/// What stands where a secret stood.
const MASK: &str = "•••";
/// Headers whose parameters prove who somebody is (RFC 3261 section 22.4).
const PROOFS: [&str; 3] = ["authorization", "proxy-authorization", "authentication-info"];
/// Their parameters that everybody may see.
const HARMLESS: [&str; 7] = ["username", "realm", "uri", "algorithm", "qop", "nc", "opaque"];

/// The message as text, without its secrets. Bytes that are no UTF-8 show as replacement characters.
pub fn secrets(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    let mut masked = String::with_capacity(text.len());
    let mut in_proof = false;
    let mut in_body = false;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end_matches(['\r', '\n']);
        let end = line.get(bare.len()..).unwrap_or_default();
        if in_body {
            masked.push_str(&body_line(bare));
        } else if bare.is_empty() {
            in_body = true;
        } else if in_proof && bare.starts_with([' ', '\t']) {
            // A folded line goes on with the header above it (RFC 3261 section 7.3.1).
            masked.push_str(&parameters(bare));
        } else {
            in_proof = false;
            let (name, value) = bare.split_once(':').unwrap_or((bare, ""));
            if PROOFS.iter().any(|proof| name.trim().eq_ignore_ascii_case(proof)) {
                in_proof = true;
                masked.push_str(name);
                masked.push(':');
                masked.push_str(&proof(value));
            } else {
                masked.push_str(&without_passwords(bare));
            }
        }
        masked.push_str(end);
    }
    masked
}

/// `Digest a=b, c=d`; of any other scheme only its name is shown.
fn proof(value: &str) -> String {
    let scheme_end = value.trim_start().find([' ', '\t']).unwrap_or(value.trim_start().len());
    let start = value.len() - value.trim_start().len();
    let (scheme, rest) = value.split_at_checked(start + scheme_end).unwrap_or((value, ""));
    if scheme.trim().eq_ignore_ascii_case("digest") {
        format!("{scheme}{}", parameters(rest))
    } else if scheme.contains('=') {
        // Authentication-Info has no scheme.
        parameters(value)
    } else {
        format!("{scheme} {MASK}")
    }
}

/// Every parameter keeps its name; its value only where it is harmless.
fn parameters(text: &str) -> String {
    let shown = |parameter: &str| {
        let Some((name, value)) = parameter.split_once('=') else {
            return if parameter.trim().is_empty() { parameter.to_owned() } else { format!(" {MASK}") };
        };
        let known = HARMLESS.iter().any(|known| name.trim().eq_ignore_ascii_case(known));
        if known && is_one_value(value.trim()) { parameter.to_owned() } else { format!("{name}={MASK}") }
    };
    split_outside_quotes(text).into_iter().map(shown).collect::<Vec<_>>().join(",")
}

/// Whether it is a token or one quoted text: within anything else another parameter may hide.
fn is_one_value(value: &str) -> bool {
    let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    !quoted.unwrap_or(value).contains(['"', '\\'])
}

/// Splits at commas that are not within quotes.
fn split_outside_quotes(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut quoted = false;
    let mut escaped = false;
    let mut from = 0;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.extend(text.get(from..at));
                from = at.saturating_add(1);
            }
            _ => {}
        }
    }
    parts.extend(text.get(from..));
    parts
}

/// Keys of SDES (RFC 4568), of ICE (RFC 8839 section 5.4) and the old `k=` (RFC 4566 section 5.12).
fn body_line(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    if lower.starts_with("a=crypto:") {
        let shown = lower.find("inline:").map_or("a=crypto:".len(), |at| at.saturating_add("inline:".len()));
        return format!("{}{MASK}", line.get(..shown).unwrap_or_default());
    }
    for start in ["a=ice-pwd:", "k="] {
        if lower.starts_with(start) {
            return format!("{start}{MASK}");
        }
    }
    without_passwords(line)
}

/// `sip:user:password@host` (RFC 3261 section 19.1.1) without the password.
fn without_passwords(line: &str) -> String {
    let mut left = line;
    let mut masked = String::with_capacity(line.len());
    while let Some(at) = scheme_end(left) {
        let (before, rest) = left.split_at_checked(at).unwrap_or((left, ""));
        masked.push_str(before);
        let user_end = rest.find(['>', '"', ' ', '\t', ',']).unwrap_or(rest.len());
        let user = rest.get(..user_end).unwrap_or_default();
        match user.rfind('@').and_then(|end| user.get(..end)).and_then(|user| user.split_once(':')) {
            Some((name, password)) => {
                masked.push_str(name);
                masked.push(':');
                masked.push_str(MASK);
                left = rest.get(name.len() + 1 + password.len()..).unwrap_or_default();
            }
            None => left = rest,
        }
    }
    masked.push_str(left);
    masked
}

/// Where the first `sip:` or `sips:` ends.
fn scheme_end(text: &str) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    ["sip:", "sips:"].iter().filter_map(|scheme| Some(lower.find(scheme)? + scheme.len())).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proves_or_encrypts_is_masked_and_the_rest_stays() {
        let table = [
            (
                "INVITE sip:7@h SIP/2.0\r\nAuthorization: Digest username=\"a\", realm=\"r, x\", nonce=\"n\", \
                 response=\"f00\", cnonce=\"c\", qop=auth, nc=00000001\r\n\r\n",
                "INVITE sip:7@h SIP/2.0\r\nAuthorization: Digest username=\"a\", realm=\"r, x\", nonce=•••, \
                 response=•••, cnonce=•••, qop=auth, nc=00000001\r\n\r\n",
            ),
            (
                "R sip:h SIP/2.0\r\nproxy-authorization : Digest username=\"a\",\r\n response=\"f00\"\r\nTo: x\r\n\r\n",
                "R sip:h SIP/2.0\r\nproxy-authorization : Digest username=\"a\",\r\n response=•••\r\nTo: x\r\n\r\n",
            ),
            (
                "R sip:h SIP/2.0\r\nAuthorization: Bearer abc.def\r\n\r\n",
                "R sip:h SIP/2.0\r\nAuthorization: Bearer •••\r\n\r\n",
            ),
            (
                "R sip:h SIP/2.0\r\nAuthorization: Digest abcdef\r\n\r\n",
                "R sip:h SIP/2.0\r\nAuthorization: Digest •••\r\n\r\n",
            ),
            (
                "SIP/2.0 200 OK\r\nAuthentication-Info: nextnonce=\"47\", rspauth=\"66\"\r\n\r\n",
                "SIP/2.0 200 OK\r\nAuthentication-Info: nextnonce=•••, rspauth=•••\r\n\r\n",
            ),
            (
                "R sip:h SIP/2.0\r\n\r\nv=0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNf|2^20\r\na=ice-pwd:secret\r\na=ice-ufrag:u\r\nk=clear:x\r\n",
                "R sip:h SIP/2.0\r\n\r\nv=0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:•••\r\na=ice-pwd:•••\r\na=ice-ufrag:u\r\nk=•••\r\n",
            ),
            (
                "R sip:h SIP/2.0\r\nContact: <sip:a:pass@h:5060>, \"x\" <SIPS:b@h:5061>\r\nVia: SIP/2.0/UDP h:5060\r\n\r\n",
                "R sip:h SIP/2.0\r\nContact: <sip:a:•••@h:5060>, \"x\" <SIPS:b@h:5061>\r\nVia: SIP/2.0/UDP h:5060\r\n\r\n",
            ),
        ];
        for (given, wanted) in table {
            assert_eq!(secrets(given.as_bytes()), wanted);
        }
    }

    #[test]
    fn damaged_messages_are_masked_without_a_panic() {
        let text = "A sip:a:b@c SIP/2.0\r\nAuthorization: Digest username=\"ü\\\", response=\"f00\"\r\n\r\na=crypto:é inline";
        for end in 0..=text.len() {
            let masked = secrets(&text.as_bytes()[..end]);
            assert!(!masked.contains("f00"), "{masked}");
        }
    }
}
