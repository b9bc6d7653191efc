//! G.711: the sound of every telephone gateway, as tables.
//!
//! When both parties of a call agreed the same law nothing here runs: the payload is relayed as it came.
//! Otherwise one 256-entry table turns each octet into the other law, and prompts are encoded once, at load.
//!
//! Invariant: every octet is a valid sample, so nothing here can fail; the tables are computed by the
//! compiler from the reference algorithms of ITU-T G.191 (`g711.c`).

use crate::media::command::Law;

/// Samples a second of everything in `media`.
pub const RATE_HZ: u32 = 8_000;

/// Samples in one millisecond.
pub const SAMPLES_PER_MS: u32 = RATE_HZ / 1_000;

const A_TO_LINEAR: [i16; 256] = linear_table(true);
const U_TO_LINEAR: [i16; 256] = linear_table(false);
static A_TO_U: [u8; 256] = cross_table(true);
static U_TO_A: [u8; 256] = cross_table(false);

/// The octet that says "silence" in a law.
pub fn silence(law: Law) -> u8 {
    encode(law, 0)
}

/// One 16-bit sample as an octet.
pub fn encode(law: Law, sample: i16) -> u8 {
    match law {
        Law::Pcma => encode_a(sample),
        Law::Pcmu => encode_u(sample),
    }
}

/// One octet as a 16-bit sample.
pub fn decode(law: Law, octet: u8) -> i16 {
    let table = match law {
        Law::Pcma => &A_TO_LINEAR,
        Law::Pcmu => &U_TO_LINEAR,
    };
    table.get(usize::from(octet)).copied().unwrap_or(0)
}

/// Copies `from` to `to` octet by octet as the other law; the shorter of the two ends it.
pub fn transcode(from_law: Law, from: &[u8], to: &mut [u8]) {
    let table = match from_law {
        Law::Pcma => &A_TO_U,
        Law::Pcmu => &U_TO_A,
    };
    for (out, octet) in to.iter_mut().zip(from) {
        *out = table.get(usize::from(*octet)).copied().unwrap_or(*octet);
    }
}

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "runs in the compiler: octet < 256"
)]
const fn linear_table(a_law: bool) -> [i16; 256] {
    let mut table = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        table[octet] = if a_law { decode_a(octet as u8) } else { decode_u(octet as u8) };
        octet += 1;
    }
    table
}

#[expect(clippy::indexing_slicing, reason = "runs in the compiler: octet < 256")]
const fn cross_table(from_a: bool) -> [u8; 256] {
    let mut table = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        table[octet] = if from_a { encode_u(A_TO_LINEAR[octet]) } else { encode_a(U_TO_LINEAR[octet]) };
        octet += 1;
    }
    table
}

/// G.191 `alaw_expand`: even bits are inverted on the wire (G.711 table 1a, note 2).
#[expect(clippy::cast_possible_truncation, reason = "at most 32256: 15 bits")]
const fn decode_a(octet: u8) -> i16 {
    let bits = octet ^ 0x55;
    let mut exponent = ((bits & 0x70) >> 4) as i32;
    let mut mantissa = (bits & 0x0f) as i32;
    if exponent > 0 {
        mantissa += 16;
    }
    mantissa = (mantissa << 4) + 8;
    while exponent > 1 {
        mantissa <<= 1;
        exponent -= 1;
    }
    if bits & 0x80 == 0 { -mantissa as i16 } else { mantissa as i16 }
}

/// G.191 `alaw_compress`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seven bits and a sign")]
const fn encode_a(sample: i16) -> u8 {
    let mut bits = if sample < 0 { (!sample) >> 4 } else { sample >> 4 };
    if bits > 15 {
        let mut exponent = 1;
        while bits > 16 + 15 {
            bits >>= 1;
            exponent += 1;
        }
        bits = bits - 16 + (exponent << 4);
    }
    if sample >= 0 {
        bits |= 0x80;
    }
    (bits as u8) ^ 0x55
}

/// G.191 `ulaw_expand`: all bits are inverted on the wire.
#[expect(clippy::cast_possible_truncation, reason = "at most 32124: 15 bits")]
const fn decode_u(octet: u8) -> i16 {
    let bits = !octet;
    let exponent = ((bits >> 4) & 0x07) as i32;
    let mantissa = (bits & 0x0f) as i32;
    let step = 4 << (exponent + 1);
    let size = (0x80 << exponent) + step * mantissa + step / 2 - 4 * 33;
    if octet < 0x80 { -size as i16 } else { size as i16 }
}

/// G.191 `ulaw_compress`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seven bits and a sign")]
const fn encode_u(sample: i16) -> u8 {
    let mut size = if sample < 0 { ((!sample) >> 2) + 33 } else { (sample >> 2) + 33 };
    if size > 0x1fff {
        size = 0x1fff;
    }
    let mut rest = size >> 6;
    let mut segment = 1;
    while rest != 0 {
        segment += 1;
        rest >>= 1;
    }
    let high = 8 - segment;
    let low = 0x0f - ((size >> segment) & 0x0f);
    let octet = ((high << 4) | low) as u8;
    if sample >= 0 { octet | 0x80 } else { octet }
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
    fn silence_is_what_the_recommendation_says() {
        assert_eq!(silence(Law::Pcma), 0xd5);
        assert_eq!(silence(Law::Pcmu), 0xff);
    }

    #[test]
    fn known_octets_have_their_known_samples() {
        for (law, octet, sample) in [
            (Law::Pcma, 0xd5, 8),
            (Law::Pcma, 0x55, -8),
            (Law::Pcma, 0xaa, 32256),
            (Law::Pcma, 0x2a, -32256),
            (Law::Pcmu, 0xff, 0),
            (Law::Pcmu, 0x80, 32124),
            (Law::Pcmu, 0x00, -32124),
        ] {
            assert_eq!(decode(law, octet), sample, "{law:?} {octet:#x}");
        }
    }

    #[test]
    fn every_octet_comes_back_from_its_sample() {
        for octet in 0..=255u8 {
            assert_eq!(encode(Law::Pcma, decode(Law::Pcma, octet)), octet);
            // µ-law has two zeros; the negative one comes back as the positive.
            let expected = if octet == 0x7f { 0xff } else { octet };
            assert_eq!(encode(Law::Pcmu, decode(Law::Pcmu, octet)), expected);
        }
    }

    #[test]
    fn the_other_law_is_the_nearest_sample_of_it() {
        let all: Vec<u8> = (0..=255).collect();
        for (law, other) in [(Law::Pcma, Law::Pcmu), (Law::Pcmu, Law::Pcma)] {
            let mut out = [0; 256];
            transcode(law, &all, &mut out);
            for (octet, changed) in all.iter().zip(out) {
                let (before, after) = (i32::from(decode(law, *octet)), i32::from(decode(other, changed)));
                let allowed = 8 + before.abs() / 16;
                assert!((before - after).abs() <= allowed, "{law:?} {octet:#x}: {before} became {after}");
            }
        }
    }
}
