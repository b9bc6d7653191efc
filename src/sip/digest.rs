//! Digest authentication (RFC 7616, with the algorithms of RFC 8760): phones and browsers log in to us, we
//! log in to providers.
//!
//! Invariant: nothing is kept between challenge and answer. A nonce is a time stamp sealed with the pair's
//! secret, so the other node accepts it after a take-over; an unknown user and a wrong password take the same
//! path; passwords and HA1 never print. Counting `nc` against replay is the caller's: see [`Verdict::Ok`].

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::header::{Challenge, Credentials};
use super::message::Method;
use super::uri::Uri;
use crate::terms::{Secret, WallMs};

/// How far a nonce of the other node may lie ahead of our clock, milliseconds.
pub const CLOCK_SKEW_MS: i64 = 60_000;

/// Octets of a nonce: 8 of time, 16 of seal.
const NONCE_OCTETS: usize = 24;

/// The hash in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// What every phone can, JsSIP among them, and nothing newer.
    Md5,
    /// RFC 8760.
    Sha256,
}

impl Algorithm {
    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }

    /// Absent means MD5 (RFC 7616 section 3.3). Session variants are not taken.
    fn read(text: Option<&str>) -> Option<Self> {
        match text {
            None => Some(Self::Md5),
            Some(name) if name.eq_ignore_ascii_case("MD5") => Some(Self::Md5),
            Some(name) if name.eq_ignore_ascii_case("SHA-256") => Some(Self::Sha256),
            Some(_) => None,
        }
    }

    /// The hash of the parts joined with colons, in small hexadecimal digits.
    fn hash(self, parts: &[&str]) -> String {
        let text = parts.join(":");
        match self {
            Self::Md5 => hex::encode(Md5::digest(text)),
            Self::Sha256 => hex::encode(Sha256::digest(text)),
        }
    }
}

/// What is kept instead of a password: the hash of `user:realm:password` in both algorithms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ha1 {
    md5: Secret<String>,
    sha256: Secret<String>,
}

impl Ha1 {
    /// Of one user in one realm.
    pub fn new(user: &str, realm: &str, password: &str) -> Self {
        let of = |algorithm: Algorithm| Secret::new(algorithm.hash(&[user, realm, password]));
        Self { md5: of(Algorithm::Md5), sha256: of(Algorithm::Sha256) }
    }

    fn of(&self, algorithm: Algorithm) -> &str {
        match algorithm {
            Algorithm::Md5 => self.md5.expose(),
            Algorithm::Sha256 => self.sha256.expose(),
        }
    }
}

/// What enters the response besides HA1.
struct Asked<'a> {
    nonce: &'a str,
    /// `nc` and `cnonce`; `None` in the form of RFC 2069, without qop.
    counted: Option<(&'a str, &'a str)>,
    method: &'a str,
    uri: &'a str,
}

impl Asked<'_> {
    /// RFC 7616 section 3.4.1.
    fn response(&self, algorithm: Algorithm, ha1: &str) -> String {
        let ha2 = algorithm.hash(&[self.method, self.uri]);
        match self.counted {
            Some((nc, cnonce)) => algorithm.hash(&[ha1, self.nonce, nc, cnonce, "auth", &ha2]),
            None => algorithm.hash(&[ha1, self.nonce, &ha2]),
        }
    }
}

/// What a server makes of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Right and fresh. The caller refuses (challenges with `stale`) an `nc` that is not greater than the last
    /// one of this user and nonce; without `nc` (old phones) a nonce is good until it expires.
    Ok {
        /// The nonce count, if the client counts.
        nc: Option<u32>,
    },
    /// Right, but with a nonce that expired or was given to somebody else: challenge again, `stale=true`.
    Stale,
    /// Wrong password or unknown user: the two are not told apart.
    Wrong,
    /// No credentials that can be checked; why, for the log.
    Malformed(&'static str),
}

/// The request that credentials came with.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its Request-URI.
    pub uri: &'a [u8],
    /// Where it came from, in the words the nonce was issued for (address, or flow).
    pub source: &'a str,
    /// Now.
    pub wall_ms: WallMs,
}

/// The server's side.
#[derive(Debug, Clone)]
pub struct Authenticator {
    realm: String,
    key: Secret<[u8; 64]>,
    life_ms: i64,
    nobody: Ha1,
}

impl Authenticator {
    /// For one realm, sealed with the pair's secret; nonces live for `life_ms`.
    pub fn new(realm: &str, secret: &[u8], life_ms: i64) -> Self {
        // One key for one purpose: the secret also keys cookies and passwords.
        let mut key = [0_u8; 64];
        let derived = Sha256::new().chain_update(b"tandem digest nonce\0").chain_update(secret).finalize();
        for (to, from) in key.iter_mut().zip(derived) {
            *to = from;
        }
        let nobody = Ha1::new("", realm, &hex::encode(derived));
        Self { realm: realm.to_owned(), key: Secret::new(key), life_ms, nobody }
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    fn seal(&self, wall_ms: WallMs, source: &str) -> [u8; 16] {
        let mac = <Hmac<Sha256> as KeyInit>::new(self.key.expose().into());
        let sum =
            mac.chain_update(wall_ms.to_be_bytes()).chain_update(source.as_bytes()).finalize().into_bytes();
        let mut seal = [0; 16];
        for (to, from) in seal.iter_mut().zip(sum) {
            *to = from;
        }
        seal
    }

    /// A nonce for this source.
    pub fn nonce(&self, source: &str, wall_ms: WallMs) -> String {
        let mut octets = Vec::with_capacity(NONCE_OCTETS);
        octets.extend_from_slice(&wall_ms.to_be_bytes());
        octets.extend_from_slice(&self.seal(wall_ms, source));
        hex::encode(octets)
    }

    fn is_fresh(&self, nonce: &str, source: &str, wall_ms: WallMs) -> bool {
        let mut octets = [0_u8; NONCE_OCTETS];
        if hex::decode_to_slice(nonce, &mut octets).is_err() {
            return false;
        }
        let Some((time, seal)) = octets.split_first_chunk::<8>() else { return false };
        let issued = WallMs::from_be_bytes(*time);
        let age = wall_ms.saturating_sub(issued);
        bool::from(self.seal(issued, source).ct_eq(seal)) && age >= -CLOCK_SKEW_MS && age <= self.life_ms
    }

    /// The values of the `WWW-Authenticate` lines, in this order. A client takes the first it knows
    /// (RFC 8760 section 2.4); JsSIP looks at the very first only and must find MD5 there.
    pub fn challenges(
        &self,
        algorithms: &[Algorithm],
        source: &str,
        wall_ms: WallMs,
        stale: bool,
    ) -> Vec<Challenge> {
        let nonce = self.nonce(source, wall_ms);
        let one = |algorithm: &Algorithm| {
            let challenge = Challenge::new("Digest")
                .quoted("realm", &self.realm)
                .quoted("nonce", &nonce)
                .bare("algorithm", algorithm.as_str())
                .quoted("qop", "auth");
            if stale { challenge.bare("stale", "true") } else { challenge }
        };
        algorithms.iter().map(one).collect()
    }

    /// Picks the credentials meant for us out of those of a request.
    pub fn ours(&self, mut all: impl Iterator<Item = Credentials>) -> Option<Credentials> {
        all.find(|shown| shown.is("Digest") && shown.text("realm").as_deref() == Some(self.realm()))
    }

    /// Checks credentials against the HA1 of the user they name; `None` when there is no such user.
    pub fn verify(&self, credentials: &Credentials, ha1: Option<&Ha1>, shown: &Shown<'_>) -> Verdict {
        match self.weigh(credentials, ha1, shown) {
            Ok(verdict) => verdict,
            Err(why) => Verdict::Malformed(why),
        }
    }

    fn weigh(
        &self,
        credentials: &Credentials,
        ha1: Option<&Ha1>,
        shown: &Shown<'_>,
    ) -> Result<Verdict, &'static str> {
        let text = |name: &str, missing: &'static str| credentials.text(name).ok_or(missing);
        if self.realm != text("realm", "no realm")? {
            return Err("another realm");
        }
        let algorithm =
            Algorithm::read(credentials.text("algorithm").as_deref()).ok_or("algorithm not offered")?;
        let (nonce, uri) = (text("nonce", "no nonce")?, text("uri", "no uri")?);
        let response = text("response", "no response")?.to_ascii_lowercase();
        if !is_same_target(&uri, shown.uri) {
            return Err("credentials for another address");
        }
        let counted = match credentials.text("qop") {
            None => None,
            Some(qop) if qop.eq_ignore_ascii_case("auth") => {
                Some((text("nc", "no nc")?, text("cnonce", "no cnonce")?))
            }
            Some(_) => return Err("qop not offered"),
        };
        let nc = match &counted {
            None => None,
            Some((nc, _)) if nc.len() == 8 => Some(u32::from_str_radix(nc, 16).map_err(|_| "bad nc")?),
            Some(_) => return Err("bad nc"),
        };
        let asked = Asked {
            nonce: &nonce,
            counted: counted.as_ref().map(|(nc, cnonce)| (nc.as_str(), cnonce.as_str())),
            method: shown.method.as_str(),
            uri: &uri,
        };
        // Everything is computed before anything is decided.
        let right = asked.response(algorithm, ha1.unwrap_or(&self.nobody).of(algorithm));
        let right = bool::from(right.as_bytes().ct_eq(response.as_bytes())) & ha1.is_some();
        let fresh = self.is_fresh(&nonce, shown.source, shown.wall_ms);
        Ok(match (right, fresh) {
            (true, true) => Verdict::Ok { nc },
            (true, false) => Verdict::Stale,
            (false, _) => Verdict::Wrong,
        })
    }
}

/// The `uri` of credentials names the same user as the Request-URI. The rest may differ: proxies rewrite hosts,
/// phones leave parameters out. So credentials for one number do not serve to dial another.
fn is_same_target(shown: &str, asked: &[u8]) -> bool {
    if shown.as_bytes() == asked {
        return true;
    }
    match (Uri::read(shown.as_bytes()), Uri::read(asked)) {
        (Ok(shown), Ok(asked)) => shown.user_text() == asked.user_text(),
        _ => false,
    }
}

/// The client's side: an account at a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The user name in the digest.
    pub user: String,
    /// His password.
    pub password: Secret<String>,
}

/// The challenge to answer: SHA-256 before MD5; `None` when there is none we can.
pub fn choose(challenges: impl Iterator<Item = Challenge>) -> Option<Challenge> {
    let rank = |challenge: &Challenge| {
        let algorithm = Algorithm::read(challenge.text("algorithm").as_deref())?;
        let qop = challenge.text("qop");
        let auth = qop.is_none_or(|qop| qop.split(',').any(|one| one.trim().eq_ignore_ascii_case("auth")));
        (challenge.is("Digest") && auth && challenge.text("nonce").is_some()).then_some(match algorithm {
            Algorithm::Sha256 => 2,
            Algorithm::Md5 => 1,
        })
    };
    challenges
        .filter_map(|one| rank(&one).map(|rank| (rank, one)))
        .max_by_key(|(rank, _)| *rank)
        .map(|(_, one)| one)
}

/// Whether a challenge to credentials we sent says that only the nonce was old.
pub fn is_stale(challenge: &Challenge) -> bool {
    challenge.text("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true"))
}

impl Login {
    /// The credentials for a challenge that [`choose`] took. `cnonce` comes from a CSPRNG, `nc` grows by one
    /// with each use of the nonce, `uri` is the Request-URI as sent.
    pub fn answer(
        &self,
        challenge: &Challenge,
        method: &Method,
        uri: &str,
        cnonce: &str,
        nc: u32,
    ) -> Option<Credentials> {
        let named = challenge.text("algorithm");
        let algorithm = Algorithm::read(named.as_deref())?;
        let realm = challenge.text("realm").unwrap_or_default();
        let nonce = challenge.text("nonce")?;
        let count = format!("{nc:08x}");
        let counted = challenge.text("qop").is_some().then_some((count.as_str(), cnonce));
        let asked = Asked { nonce: &nonce, counted, method: method.as_str(), uri };
        let ha1 = Ha1::new(&self.user, &realm, self.password.expose());
        let mut shown = Credentials::new("Digest")
            .quoted("username", &self.user)
            .quoted("realm", &realm)
            .quoted("nonce", &nonce)
            .quoted("uri", uri)
            .quoted("response", &asked.response(algorithm, ha1.of(algorithm)));
        if named.is_some() {
            shown = shown.bare("algorithm", algorithm.as_str());
        }
        if let Some((nc, cnonce)) = counted {
            shown = shown.quoted("cnonce", cnonce).bare("qop", "auth").bare("nc", nc);
        }
        if let Some(opaque) = challenge.text("opaque") {
            shown = shown.quoted("opaque", &opaque);
        }
        Some(shown)
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

    const NOW: WallMs = 1_800_000_000_000;

    fn door() -> Authenticator {
        Authenticator::new("tandem.test", b"pair secret", 300_000)
    }

    fn log_in(door: &Authenticator, algorithm: Algorithm, password: &str) -> Credentials {
        let challenge = door.challenges(&[algorithm], "192.0.2.7", NOW, false).remove(0);
        let login = Login { user: "op1".into(), password: Secret::new(password.into()) };
        login.answer(&challenge, &Method::Register, "sip:tandem.test", "abc", 1).unwrap()
    }

    fn shown<'a>(method: &'a Method, source: &'static str, wall_ms: WallMs) -> Shown<'a> {
        Shown { method, uri: b"sip:tandem.test", source, wall_ms }
    }

    #[test]
    fn the_examples_of_rfc_7616_section_3_9_1_come_out() {
        let asked = Asked {
            nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
            counted: Some(("00000001", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")),
            method: "GET",
            uri: "/dir/index.html",
        };
        let ha1 = Ha1::new("Mufasa", "http-auth@example.org", "Circle of Life");
        let md5 = asked.response(Algorithm::Md5, ha1.of(Algorithm::Md5));
        assert_eq!(md5, "8ca523f5e9506fed4657c9700eebdbec");
        let sha = asked.response(Algorithm::Sha256, ha1.of(Algorithm::Sha256));
        assert_eq!(sha, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1");
    }

    #[test]
    fn the_example_of_rfc_2617_without_qop_comes_out() {
        let asked = Asked {
            nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093",
            counted: Some(("00000001", "0a4f113b")),
            method: "GET",
            uri: "/dir/index.html",
        };
        let ha1 = Ha1::new("Mufasa", "testrealm@host.com", "Circle Of Life");
        let md5 = asked.response(Algorithm::Md5, ha1.of(Algorithm::Md5));
        assert_eq!(md5, "6629fae49393a05397450978507c4ef1");
        let old = Asked { counted: None, ..asked };
        assert_eq!(old.response(Algorithm::Md5, ha1.of(Algorithm::Md5)), "670fd8c2df070c60b045671b8b24ff02");
    }

    #[test]
    fn what_jssip_really_sent_is_accepted() {
        let text = br#"Digest algorithm=MD5, username="op1", realm="tandem.test", nonce="awDhqGsA4HzSDSK1w58daPE1dro+pwga", uri="sip:op2@tandem.test", response="e778e6cf66640f50562873a314749525", qop=auth, cnonce="fu2o53l22rme", nc=00000001"#;
        let credentials = Credentials::read(text).unwrap();
        let ha1 = Ha1::new("op1", "tandem.test", "secret");
        let invite =
            Shown { method: &Method::Invite, uri: b"sip:op2@tandem.test", source: "s", wall_ms: NOW };
        // The nonce is another server's, so right credentials are stale here, and wrong ones wrong.
        assert_eq!(door().verify(&credentials, Some(&ha1), &invite), Verdict::Stale);
        let other = Ha1::new("op1", "tandem.test", "guess");
        assert_eq!(door().verify(&credentials, Some(&other), &invite), Verdict::Wrong);
    }

    #[test]
    fn client_and_server_agree_in_both_algorithms() {
        for algorithm in [Algorithm::Md5, Algorithm::Sha256] {
            let sent = log_in(&door(), algorithm, "secret").to_string();
            let credentials = Credentials::read(sent.as_bytes()).unwrap();
            let ha1 = Ha1::new("op1", "tandem.test", "secret");
            let verdict =
                door().verify(&credentials, Some(&ha1), &shown(&Method::Register, "192.0.2.7", NOW + 1000));
            assert_eq!(verdict, Verdict::Ok { nc: Some(1) });
        }
    }

    #[test]
    fn a_right_answer_to_an_old_or_foreign_nonce_is_stale_and_a_wrong_one_wrong() {
        let ha1 = Ha1::new("op1", "tandem.test", "secret");
        let good = log_in(&door(), Algorithm::Sha256, "secret");
        let bad = log_in(&door(), Algorithm::Sha256, "guess");
        let register = Method::Register;
        let table = [
            (&good, Some(&ha1), shown(&register, "192.0.2.7", NOW + 300_001), Verdict::Stale),
            (&good, Some(&ha1), shown(&register, "192.0.2.8", NOW), Verdict::Stale),
            (&good, Some(&ha1), shown(&register, "192.0.2.7", NOW - 60_001), Verdict::Stale),
            (&good, Some(&ha1), shown(&Method::Invite, "192.0.2.7", NOW), Verdict::Wrong),
            (&good, None, shown(&register, "192.0.2.7", NOW), Verdict::Wrong),
            (&bad, Some(&ha1), shown(&register, "192.0.2.7", NOW), Verdict::Wrong),
            (&bad, Some(&ha1), shown(&register, "192.0.2.7", NOW + 300_001), Verdict::Wrong),
        ];
        for (credentials, ha1, shown, verdict) in table {
            assert_eq!(door().verify(credentials, ha1, &shown), verdict, "{shown:?}");
        }
    }

    #[test]
    fn a_node_with_the_same_secret_accepts_the_nonce_and_one_with_another_does_not() {
        let nonce = door().nonce("192.0.2.7", NOW);
        assert!(door().is_fresh(&nonce, "192.0.2.7", NOW));
        let stranger = Authenticator::new("tandem.test", b"another", 300_000);
        assert!(!stranger.is_fresh(&nonce, "192.0.2.7", NOW));
        for forged in ["", "zz", &nonce[..46], &format!("{nonce}00"), &nonce.replace('0', "1")] {
            assert!(!door().is_fresh(forged, "192.0.2.7", NOW), "{forged}");
        }
    }

    #[test]
    fn credentials_that_cannot_be_checked_say_why() {
        let whole = log_in(&door(), Algorithm::Md5, "secret").to_string();
        let ha1 = Ha1::new("op1", "tandem.test", "secret");
        let table = [
            (whole.replace("nc=00000001", "nc=1"), "bad nc"),
            (whole.replace("nc=00000001", "nc=zzzzzzzz"), "bad nc"),
            (whole.replace(", nc=00000001", ""), "no nc"),
            (whole.replace("qop=auth", "qop=auth-int"), "qop not offered"),
            (whole.replace("algorithm=MD5", "algorithm=MD5-sess"), "algorithm not offered"),
            (whole.replace("tandem.test\", nonce", "other\", nonce"), "another realm"),
            (whole.replace("sip:tandem.test", "sip:112@tandem.test"), "credentials for another address"),
            ("Digest realm=\"tandem.test\"".into(), "no nonce"),
            ("Digest".into(), "no realm"),
        ];
        for (text, why) in table {
            let credentials = Credentials::read(text.as_bytes()).unwrap();
            let verdict =
                door().verify(&credentials, Some(&ha1), &shown(&Method::Register, "192.0.2.7", NOW));
            assert_eq!(verdict, Verdict::Malformed(why), "{text}");
        }
        for broken in ["Digest realm", "Digest realm=\"x", "Digest a=1, a=2", "", "Digest =x"] {
            assert!(Credentials::read(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn the_strongest_challenge_we_can_answer_is_chosen() {
        let read = |text: &str| Challenge::read(text.as_bytes()).unwrap();
        let md5 = read("Digest realm=\"a, b\", nonce=\"1\", qop=\"auth,auth-int\"");
        let sha = read("Digest realm=\"r\", nonce=\"2\", algorithm=SHA-256, qop=\"auth\"");
        let odd = read("Digest realm=\"r\", nonce=\"3\", algorithm=SHA-512-256");
        let basic = read("Basic realm=\"r\"");
        let strict = read("Digest realm=\"r\", nonce=\"4\", qop=\"auth-int\"");
        let all = [basic.clone(), odd.clone(), md5.clone(), sha.clone(), strict.clone()];
        assert_eq!(choose(all.into_iter()), Some(sha));
        assert_eq!(choose([odd.clone(), md5.clone()].into_iter()), Some(md5.clone()));
        assert_eq!(choose([basic, odd, strict].into_iter()), None);
        assert_eq!(md5.text("realm").as_deref(), Some("a, b"));
    }

    #[test]
    fn a_challenge_without_qop_gets_the_old_answer_and_its_opaque_back() {
        let challenge = Challenge::read(b"Digest realm=\"r\", nonce=\"n\", opaque=\"o\\\"p\"").unwrap();
        let login = Login { user: "u".into(), password: Secret::new("p".into()) };
        let shown = login.answer(&challenge, &Method::Register, "sip:r", "c", 1).unwrap();
        assert_eq!((shown.text("qop"), shown.text("algorithm"), shown.text("cnonce")), (None, None, None));
        assert!(shown.to_string().ends_with("opaque=\"o\\\"p\""), "{shown}");
        assert!(is_stale(&Challenge::read(b"Digest stale=TRUE").unwrap()));
    }

    #[test]
    fn a_password_never_prints() {
        let login = Login { user: "u".into(), password: Secret::new("hunter2".into()) };
        let ha1 = Ha1::new("u", "r", "hunter2");
        let shown = format!("{login:?} {ha1:?} {:?}", door());
        assert!(!shown.contains("hunter2") && !shown.contains(ha1.of(Algorithm::Md5)), "{shown}");
    }
}
