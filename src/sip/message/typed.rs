//! What the header lines mean, read when asked for.
//!
//! Invariant: nothing typed is kept beside the text, so the two cannot disagree.

use super::super::header::{
    Challenge, Contacts, Credentials, Malformed, NameAddr, RAck, Reason, SessionExpires, Via, read_cseq,
    read_seconds, trim,
};
use super::{Headers, Method, Name};

impl Headers {
    fn required(&self, name: &Name, missing: &'static str) -> Result<&[u8], Malformed> {
        self.first(name).ok_or(Malformed(missing))
    }

    fn number(&self, name: &Name, bad: &'static str) -> Result<Option<u32>, Malformed> {
        self.first(name).map(|value| read_seconds(value).ok_or(Malformed(bad))).transpose()
    }

    fn addresses(&self, name: &Name) -> Result<Vec<NameAddr>, Malformed> {
        self.list(name).map(NameAddr::read).collect()
    }

    /// The hop the message came over or goes back to.
    pub fn via_top(&self) -> Result<Via, Malformed> {
        Via::read(self.list(&Name::Via).next().ok_or(Malformed("missing Via"))?)
    }

    /// All hops, top first.
    pub fn vias(&self) -> Result<Vec<Via>, Malformed> {
        self.list(&Name::Via).map(Via::read).collect()
    }

    /// Who asks.
    pub fn from(&self) -> Result<NameAddr, Malformed> {
        NameAddr::read(self.required(&Name::From, "missing From")?)
    }

    /// Who is asked.
    pub fn to(&self) -> Result<NameAddr, Malformed> {
        NameAddr::read(self.required(&Name::To, "missing To")?)
    }

    /// The Call-ID, a word that says nothing but itself.
    pub fn call_id(&self) -> Result<&str, Malformed> {
        let value = self.required(&Name::CallId, "missing Call-ID")?;
        let text = std::str::from_utf8(value).map_err(|_| Malformed("malformed Call-ID"))?;
        if text.is_empty() || text.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) {
            return Err(Malformed("malformed Call-ID"));
        }
        Ok(text)
    }

    /// Number and method of the transaction.
    pub fn cseq(&self) -> Result<(u32, Method), Malformed> {
        read_cseq(self.required(&Name::CSeq, "missing CSeq")?)
    }

    /// The contacts.
    pub fn contacts(&self) -> Result<Contacts, Malformed> {
        let mut values = self.list(&Name::Contact).peekable();
        if values.peek() == Some(&&b"*"[..]) {
            values.next();
            return match values.next() {
                None => Ok(Contacts::Any),
                Some(_) => Err(Malformed("Contact * among others")),
            };
        }
        values.map(NameAddr::read).collect::<Result<_, _>>().map(Contacts::List)
    }

    /// The way a request still has to go.
    pub fn routes(&self) -> Result<Vec<NameAddr>, Malformed> {
        self.addresses(&Name::Route)
    }

    /// The proxies that want to stay in the dialog.
    pub fn record_routes(&self) -> Result<Vec<NameAddr>, Malformed> {
        self.addresses(&Name::RecordRoute)
    }

    /// The proxies between a registrar and a phone (RFC 3327).
    pub fn paths(&self) -> Result<Vec<NameAddr>, Malformed> {
        self.addresses(&Name::Path)
    }

    /// Hops left.
    pub fn max_forwards(&self) -> Result<Option<u32>, Malformed> {
        self.number(&Name::MaxForwards, "malformed Max-Forwards")
    }

    /// Seconds a registration, invitation or subscription lasts.
    pub fn expires(&self) -> Result<Option<u32>, Malformed> {
        self.number(&Name::Expires, "malformed Expires")
    }

    /// The shortest registration taken, seconds.
    pub fn min_expires(&self) -> Result<Option<u32>, Malformed> {
        self.number(&Name::MinExpires, "malformed Min-Expires")
    }

    /// Octets of the body, as written; duplicates must say the same.
    pub fn content_length(&self) -> Result<Option<usize>, Malformed> {
        let bad = Malformed("malformed Content-Length");
        let mut length = None;
        for value in self.all(&Name::ContentLength) {
            let text = trim(value);
            if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
                return Err(bad);
            }
            // A number that overflows is greater than any message: a wrap here smuggles requests.
            let this: usize = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(bad)?;
            if length.is_some_and(|other| other != this) {
                return Err(Malformed("conflicting Content-Length"));
            }
            length = Some(this);
        }
        Ok(length)
    }

    /// Session timer asked for or agreed (RFC 4028).
    pub fn session_expires(&self) -> Result<Option<SessionExpires>, Malformed> {
        self.first(&Name::SessionExpires).map(SessionExpires::read).transpose()
    }

    /// The shortest session timer taken, seconds.
    pub fn min_se(&self) -> Result<Option<u32>, Malformed> {
        let value = self.first(&Name::MinSe);
        value.map(|value| SessionExpires::read(value).map(|timer| timer.secs)).transpose()
    }

    /// Number of a reliable provisional answer (RFC 3262).
    pub fn rseq(&self) -> Result<Option<u32>, Malformed> {
        self.number(&Name::RSeq, "malformed RSeq")
    }

    /// Which provisional answer a PRACK confirms.
    pub fn rack(&self) -> Result<Option<RAck>, Malformed> {
        self.first(&Name::RAck).map(RAck::read).transpose()
    }

    /// Why, in the words of each protocol; those that cannot be read are left out: they steer nothing.
    pub fn reasons(&self) -> impl Iterator<Item = Reason> {
        self.list(&Name::Reason).filter_map(|value| Reason::read(value).ok())
    }

    /// The Q.850 cause of `Reason`, if any.
    pub fn q850(&self) -> Option<u16> {
        self.reasons().find(Reason::is_q850).and_then(|reason| reason.cause)
    }

    /// Seconds to wait before asking again; comment and parameters are ignored.
    pub fn retry_after(&self) -> Option<u32> {
        let value = self.first(&Name::RetryAfter)?;
        let digits = value.iter().position(|b| !b.is_ascii_digit()).unwrap_or(value.len());
        value.get(..digits).and_then(read_seconds)
    }

    /// The challenges in `WwwAuthenticate` or `ProxyAuthenticate` lines that can be read.
    pub fn challenges(&self, name: &Name) -> impl Iterator<Item = Challenge> {
        self.all(name).filter_map(|value| Challenge::read(value).ok())
    }

    /// The credentials in `Authorization` or `ProxyAuthorization` lines that can be read.
    pub fn credentials(&self, name: &Name) -> impl Iterator<Item = Credentials> {
        self.all(name).filter_map(|value| Credentials::read(value).ok())
    }
}
