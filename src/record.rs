//! What a machine hands over so that another process can go on where it stood.
//!
//! A record is a key and versioned bytes (MessagePack with field names, so that a neighbouring
//! version with more fields still reads it), stamped with the time it was written. It holds no
//! pointer, no socket and no clock: deadlines are moved onto the reader's clock by [`shift_ms`].
//! Invariant: bytes that do not decode are refused as a whole, never half applied.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::terms::{MonoMs, Now};

/// The layout of the envelope; a reader refuses a newer one.
pub const VERSION: u8 = 1;

/// One upsert, or one tombstone where `value` is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// `machine/object`, for instance `call/0190…`.
    pub key: String,
    /// The envelope written by [`encode`]; `None` removes the key.
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// An upsert of `value` under `key`, written at `now`.
    pub fn put<T: Serialize>(key: impl Into<String>, value: &T, now: Now) -> Self {
        Self { key: key.into(), value: Some(encode(value, now)) }
    }

    /// A tombstone.
    pub fn gone(key: impl Into<String>) -> Self {
        Self { key: key.into(), value: None }
    }
}

/// Why bytes were refused.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Written by a layout that this program does not know.
    #[error("record layout {0} is newer than this program's {VERSION}: upgrade this node first")]
    Version(u8),
    /// Cut off or damaged.
    #[error("record does not decode: {0}")]
    Damaged(#[from] rmp_serde::decode::Error),
    /// No bytes at all.
    #[error("record is empty")]
    Empty,
}

/// Envelope: one version byte, then MessagePack of `(now, value)`.
pub fn encode<T: Serialize>(value: &T, now: Now) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    let mut writer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
    // Writing into memory fails only for types that cannot be serialised at all, which the round-trip
    // tests of every record type would show; an empty envelope is refused by `decode`.
    if (now, value).serialize(&mut writer).is_err() {
        bytes.clear();
    }
    bytes
}

/// Reads an envelope: when it was written, and the value.
///
/// # Errors
/// [`RecordError`] when the layout is unknown or the bytes are damaged.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(Now, T), RecordError> {
    match bytes.split_first() {
        None => Err(RecordError::Empty),
        Some((&VERSION, rest)) => Ok(rmp_serde::from_slice(rest)?),
        Some((&other, _)) => Err(RecordError::Version(other)),
    }
}

/// How far a deadline of the writer's monotonic clock lies from the same instant on the reader's:
/// add it with [`moved`]. The wall clocks say how much time passed between writing and reading.
pub fn shift_ms(written: Now, read: Now) -> i64 {
    let mono = i64::try_from(read.mono_ms)
        .unwrap_or(i64::MAX)
        .saturating_sub(i64::try_from(written.mono_ms).unwrap_or(i64::MAX));
    mono.saturating_sub(read.wall_ms.saturating_sub(written.wall_ms).max(0))
}

/// `deadline` of the writer's clock on the reader's clock.
pub fn moved(deadline: MonoMs, shift_ms: i64) -> MonoMs {
    deadline.saturating_add_signed(shift_ms)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_record_reads_back_and_a_damaged_one_is_refused() {
        let now = Now { mono_ms: 5, wall_ms: 1_000 };
        let bytes = encode(&("a", 7_u32), now);
        let (at, value): (Now, (String, u32)) = decode(&bytes).unwrap();
        assert_eq!((at, value), (now, ("a".to_owned(), 7)));
        assert!(decode::<(String, u32)>(bytes.get(..bytes.len() - 2).unwrap()).is_err());
        assert!(decode::<u32>(&[]).is_err());
        assert!(matches!(decode::<u32>(&[9, 1]), Err(RecordError::Version(9))));
    }

    #[test]
    fn a_deadline_keeps_its_remaining_time_on_another_clock() {
        let written = Now { mono_ms: 1_000, wall_ms: 50_000 };
        let read = Now { mono_ms: 77_000, wall_ms: 50_400 };
        // 600 ms were left when it was written, 400 ms have passed since: 200 ms are left.
        assert_eq!(moved(1_600, shift_ms(written, read)), 77_200);
    }
}
