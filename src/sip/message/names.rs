//! The names of header lines.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $long:literal $(, $short:literal)?;)+) => {
        /// The name of a header line; compared without regard to case and to the compact form.
        #[derive(Debug, Clone, Serialize, Deserialize)]
        pub enum Name {
            $($(#[$doc])* #[doc = concat!("`", $long, "`")] $name,)+
            /// Any other, as spelled: a token.
            Other(Bytes),
        }

        impl Name {
            /// The name with this spelling, long or compact, in any case.
            pub fn read(text: &[u8]) -> Self {
                // By length first: a message has a dozen lines, the table half a hundred names.
                match text.len() {
                    $(len if (len == $long.len() && text.eq_ignore_ascii_case($long.as_bytes()))
                        $(|| (len == 1 && text.eq_ignore_ascii_case($short)))? => Self::$name,)+
                    _ => Self::Other(Bytes::copy_from_slice(text)),
                }
            }

            /// The spelling we write; for [`Name::Other`] as given.
            pub fn as_bytes(&self) -> &[u8] {
                match self {
                    $(Self::$name => $long.as_bytes(),)+
                    Self::Other(name) => name,
                }
            }
        }
    };
}
names! {
    Via = "Via", b"v";
    From = "From", b"f";
    To = "To", b"t";
    CallId = "Call-ID", b"i";
    CSeq = "CSeq";
    Contact = "Contact", b"m";
    MaxForwards = "Max-Forwards";
    Route = "Route";
    RecordRoute = "Record-Route";
    ContentType = "Content-Type", b"c";
    ContentLength = "Content-Length", b"l";
    Authorization = "Authorization";
    ProxyAuthorization = "Proxy-Authorization";
    WwwAuthenticate = "WWW-Authenticate";
    ProxyAuthenticate = "Proxy-Authenticate";
    Expires = "Expires";
    MinExpires = "Min-Expires";
    SessionExpires = "Session-Expires", b"x";
    MinSe = "Min-SE";
    Require = "Require";
    ProxyRequire = "Proxy-Require";
    Supported = "Supported", b"k";
    Unsupported = "Unsupported";
    Allow = "Allow";
    Accept = "Accept";
    UserAgent = "User-Agent";
    Server = "Server";
    Reason = "Reason";
    RSeq = "RSeq";
    RAck = "RAck";
    Replaces = "Replaces";
    ReferTo = "Refer-To", b"r";
    ReferredBy = "Referred-By", b"b";
    Privacy = "Privacy";
    PAssertedIdentity = "P-Asserted-Identity";
    PPreferredIdentity = "P-Preferred-Identity";
    RemotePartyId = "Remote-Party-ID";
    Diversion = "Diversion";
    CallInfo = "Call-Info";
    AlertInfo = "Alert-Info";
    RetryAfter = "Retry-After";
    Date = "Date";
    Warning = "Warning";
    Path = "Path";
    ServiceRoute = "Service-Route";
    ContentDisposition = "Content-Disposition";
    ContentEncoding = "Content-Encoding", b"e";
    Subject = "Subject", b"s";
    Event = "Event", b"o";
    SubscriptionState = "Subscription-State";
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes().eq_ignore_ascii_case(other.as_bytes())
    }
}
impl Eq for Name {}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}
