//! The nouns that every part of the house shares, as newtypes.
//!
//! Invariant: nothing here has behaviour beyond naming, ordering and printing;
//! a telephone number never prints in full and a secret never prints at all.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroize;

/// Milliseconds of a clock that never jumps; its zero has no meaning outside one process.
pub type MonoMs = u64;
/// Milliseconds since 1970-01-01T00:00:00Z.
pub type WallMs = i64;

/// The time, as the edge read it once for one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Now {
    /// Monotonic milliseconds: for deadlines and durations.
    pub mono_ms: MonoMs,
    /// Wall clock milliseconds: for what people and records read.
    pub wall_ms: WallMs,
}

/// A call, the same in events, CDR, recordings, orders, logs and `X-Tandem-Call`: UUIDv7.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(pub Uuid);

/// An order card: UUIDv7, also the order's idempotency key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CardId(pub Uuid);

macro_rules! shows_as_uuid {
    ($($name:ident),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(&self.0, f) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(&self.0, f) }
        }
        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> { Ok(Self(text.parse()?)) }
        }
    )+};
}
shows_as_uuid!(CallId, CardId);

macro_rules! counted {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(&self.0, f) }
        }
    )+};
}
counted! {
    /// One dialog with one party.
    LegId,
    /// One media end of a leg.
    PortId,
    /// One way a SIP message can come and go: a UDP peer address or one WebSocket.
    FlowId,
    /// Grows with each take-over and each start; a stale one is refused everywhere.
    Epoch,
    /// A question from the edge that waits for its answer.
    RequestId,
}

macro_rules! named {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);
        impl $name {
            /// The name as configured.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl<T: Into<Arc<str>>> From<T> for $name {
            fn from(text: T) -> Self { Self(text.into()) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str { &self.0 }
        }
    )+};
}
named! {
    /// An operator's (or supervisor's) account name.
    OperatorName,
    /// A queue, as configured.
    QueueName,
    /// A trunk, as configured.
    TrunkName,
}

/// A telephone number: E.164 with `+` where it could be normalised, else what was dialled
/// (short and emergency numbers); empty when withheld. Prints masked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Number(String);

impl Number {
    /// Takes the text as it is: normalising is the dialplan's work.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The whole number. Each use is a place where a person's number leaves the masks.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether the caller withheld it.
    pub fn is_withheld(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.chars().count();
        if shown == 0 {
            return f.write_str("withheld");
        }
        if shown < 8 {
            return f.write_str(&self.0);
        }
        let head: String = self.0.chars().take(6).collect();
        let tail: String = self.0.chars().skip(shown - 3).collect();
        write!(f, "{head}•••{tail}")
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A value that no log, trace, debug print or replay may show; wiped when dropped.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Hides `value`.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Each use is a place to look at.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_number_prints_masked_and_a_short_one_in_full() {
        assert_eq!(Number::new("+380671234567").to_string(), "+38067•••567");
        assert_eq!(Number::new("112").to_string(), "112");
        assert_eq!(Number::default().to_string(), "withheld");
    }

    #[test]
    fn a_secret_never_prints() {
        assert_eq!(format!("{:?}", Secret::new(String::from("x1"))), "Secret(…)");
    }
}
