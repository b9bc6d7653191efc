//! Our SRTP against that of webrtc-rs: same keys, same packets, octet for octet, both directions, over the
//! roll-over of the sequence number.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use proptest::prelude::*;
use rtc_srtp::context::Context;
use rtc_srtp::crypto::{RTCCryptoProvider, providers::RingProvider};
use rtc_srtp::protection_profile::ProtectionProfile;
use tandem::media::srtp::{MAX_OVERHEAD, Profile, Srtp};

const PROFILES: [(Profile, ProtectionProfile); 3] = [
    (Profile::Aes128CmSha1_80, ProtectionProfile::Aes128CmHmacSha1_80),
    (Profile::AeadAes128Gcm, ProtectionProfile::AeadAes128Gcm),
    (Profile::AeadAes256Gcm, ProtectionProfile::AeadAes256Gcm),
];

/// One end of ours and one of theirs with the keying material of one handshake: we are its client, they its
/// server. Theirs has a context for each direction.
struct Ends {
    ours: Srtp,
    their_seal: Context,
    their_open: Context,
}

impl Ends {
    fn new(profile: (Profile, ProtectionProfile), material: &[u8]) -> Self {
        let (ours, theirs) = profile;
        let (key, salt) = (theirs.key_len(), theirs.salt_len());
        // RFC 5764 section 4.2, divided here once more by hand: client key, server key, client salt, server salt.
        let material = &material[..2 * (key + salt)];
        let (keys, salts) = material.split_at(2 * key);
        let ring = RingProvider::new();
        let context = |key: &[u8], salt: &[u8]| {
            Context::new(key, salt, theirs, None, None, ring.crypto()).expect("keys of the right length")
        };
        Self {
            ours: Srtp::new(&ours.split(material, true).unwrap()).unwrap(),
            their_seal: context(&keys[key..], &salts[salt..]),
            their_open: context(&keys[..key], &salts[..salt]),
        }
    }

    fn rtp_both_ways(&mut self, there: &[u8], back: &[u8]) {
        let mut buf = [there, &[0; MAX_OVERHEAD]].concat();
        let len = self.ours.protect_rtp(&mut buf, there.len()).expect("we seal");
        assert_eq!(self.their_open.decrypt_rtp(&buf[..len]).expect("they open ours"), there);
        let mut sealed = self.their_seal.encrypt_rtp(back).expect("they seal");
        let len = self.ours.unprotect_rtp(&mut sealed).expect("we open theirs");
        assert_eq!(&sealed[..len], back);
    }

    fn rtcp_both_ways(&mut self, packet: &[u8]) {
        let mut buf = [packet, &[0; MAX_OVERHEAD]].concat();
        let len = self.ours.protect_rtcp(&mut buf, packet.len()).expect("we seal");
        assert_eq!(self.their_open.decrypt_rtcp(&buf[..len]).expect("they open ours"), packet);
        let mut sealed = self.their_seal.encrypt_rtcp(packet).expect("they seal");
        let len = self.ours.unprotect_rtcp(&mut sealed).expect("we open theirs");
        assert_eq!(&sealed[..len], packet);
    }
}

/// A packet of RFC 3550 section 5.1, with CSRCs and an extension of a profile that nobody knows.
fn rtp(seq: u16, ssrc: u32, shape: &Shape) -> Vec<u8> {
    let mut packet = vec![0x80 | shape.sources.len() as u8, shape.second];
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.extend_from_slice(&shape.timestamp.to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    for source in &shape.sources {
        packet.extend_from_slice(&source.to_be_bytes());
    }
    if let Some(words) = &shape.extension {
        packet[0] |= 0x10;
        packet.extend_from_slice(&[0x12, 0x34, 0, words.len() as u8]);
        for word in words {
            packet.extend_from_slice(&word.to_be_bytes());
        }
    }
    packet.extend_from_slice(&shape.payload);
    packet
}

#[derive(Debug, Clone)]
struct Shape {
    second: u8,
    timestamp: u32,
    sources: Vec<u32>,
    extension: Option<Vec<u32>>,
    payload: Vec<u8>,
}

prop_compose! {
    fn shape()(
        second in any::<u8>(),
        timestamp in any::<u32>(),
        sources in prop::collection::vec(any::<u32>(), 0..4),
        extension in prop::option::of(prop::collection::vec(any::<u32>(), 1..4)),
        payload in prop::collection::vec(any::<u8>(), 1..400),
    ) -> Shape {
        Shape { second, timestamp, sources, extension, payload }
    }
}

/// A sender report with nothing but random figures, and a second packet behind it.
fn rtcp(ssrc: u32, figures: [u32; 5], more: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 200, 0, 6];
    packet.extend_from_slice(&ssrc.to_be_bytes());
    for figure in figures {
        packet.extend_from_slice(&figure.to_be_bytes());
    }
    if !more.is_empty() {
        packet.extend_from_slice(&[0x81, 206, 0, 2]);
        packet.extend_from_slice(&ssrc.to_be_bytes());
        packet.extend_from_slice(&[more[0], more[more.len() - 1], 0, 1]);
    }
    packet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Up to 24 packets with steps of up to 30,000: several roll-overs each.
    #[test]
    fn random_packets_over_roll_overs_open_at_the_other_implementation(
        which in 0_usize..3,
        material in prop::collection::vec(any::<u8>(), 88),
        ssrcs in any::<[u32; 2]>(),
        first in any::<[u16; 2]>(),
        packets in prop::collection::vec((shape(), shape(), 1_u16..30_000, 1_u16..30_000), 8..24),
    ) {
        prop_assume!(ssrcs[0] != ssrcs[1]);
        let mut ends = Ends::new(PROFILES[which], &material);
        let [mut there, mut back] = first;
        for (one, other, step, step_back) in packets {
            ends.rtp_both_ways(&rtp(there, ssrcs[0], &one), &rtp(back, ssrcs[1], &other));
            there = there.wrapping_add(step);
            back = back.wrapping_add(step_back);
        }
    }

    #[test]
    fn random_control_packets_open_at_the_other_implementation(
        which in 0_usize..3,
        material in prop::collection::vec(any::<u8>(), 88),
        ssrc in any::<u32>(),
        packets in prop::collection::vec((any::<[u32; 5]>(), prop::collection::vec(any::<u8>(), 0..3)), 1..12),
    ) {
        let mut ends = Ends::new(PROFILES[which], &material);
        for (figures, more) in packets {
            ends.rtcp_both_ways(&rtcp(ssrc, figures, &more));
        }
    }

    /// What both make of one packet with one key is the same octets, RTP and RTCP.
    #[test]
    fn both_seal_to_the_same_octets(
        which in 0_usize..3,
        key in prop::collection::vec(any::<u8>(), 44),
        ssrc in any::<u32>(),
        first in any::<u16>(),
        packets in prop::collection::vec((shape(), 1_u16..30_000, any::<[u32; 5]>()), 8..16),
    ) {
        // The same key for both directions, so that our sender has the key of their sender.
        let (profile, theirs) = PROFILES[which];
        let (k, s) = (theirs.key_len(), theirs.salt_len());
        let material = [&key[..k], &key[..k], &key[k..k + s], &key[k..k + s]].concat();
        let mut ends = Ends::new((profile, theirs), &material);
        let mut seq = first;
        for (shape, step, figures) in packets {
            let plain = rtp(seq, ssrc, &shape);
            let mut buf = [&plain[..], &[0; MAX_OVERHEAD]].concat();
            let len = ends.ours.protect_rtp(&mut buf, plain.len()).unwrap();
            prop_assert_eq!(&ends.their_seal.encrypt_rtp(&plain).unwrap()[..], &buf[..len]);
            seq = seq.wrapping_add(step);
            let plain = rtcp(ssrc, figures, &[]);
            let mut buf = [&plain[..], &[0; MAX_OVERHEAD]].concat();
            let len = ends.ours.protect_rtcp(&mut buf, plain.len()).unwrap();
            prop_assert_eq!(&ends.their_seal.encrypt_rtcp(&plain).unwrap()[..], &buf[..len]);
        }
    }
}

/// The same at the wrap itself, packet by packet, with neighbours that change places on the way.
#[test]
fn packets_that_overtake_each_other_at_the_roll_over_are_opened() {
    let shape = Shape { second: 8, timestamp: 7, sources: vec![], extension: None, payload: vec![0xd5; 160] };
    for profile in PROFILES {
        let mut ends = Ends::new(profile, &[0x5a; 88]);
        let mut index = 3 * 65_536 - 40_u32;
        // Three roll-overs first, so that the count is not 0 at the wrap looked at.
        for seq in (0..index).step_by(20_000) {
            ends.rtp_both_ways(&rtp(seq as u16, 1, &shape), &rtp(seq as u16, 2, &shape));
        }
        ends.rtp_both_ways(&rtp((index - 1) as u16, 1, &shape), &rtp((index - 1) as u16, 2, &shape));
        let (mut from_us, mut from_them) = (Vec::new(), Vec::new());
        while index < 3 * 65_536 + 40 {
            let (plain, theirs) = (rtp(index as u16, 1, &shape), rtp(index as u16, 2, &shape));
            let mut buf = [&plain[..], &[0; MAX_OVERHEAD]].concat();
            let len = ends.ours.protect_rtp(&mut buf, plain.len()).unwrap();
            from_us.push((plain, buf[..len].to_vec()));
            from_them.push((theirs.clone(), ends.their_seal.encrypt_rtp(&theirs).unwrap()));
            index += 1;
        }
        assert_eq!(ends.ours.sent_index(1), Some(u64::from(index - 1)));
        from_us.chunks_mut(3).for_each(<[_]>::reverse);
        from_them.chunks_mut(3).for_each(<[_]>::reverse);
        for (plain, sealed) in &from_us {
            assert_eq!(&ends.their_open.decrypt_rtp(sealed).unwrap()[..], &plain[..]);
        }
        for (plain, sealed) in &mut from_them {
            let len = ends.ours.unprotect_rtp(sealed).unwrap();
            assert_eq!(&sealed[..len], &plain[..]);
        }
        assert_eq!(ends.ours.received(), Some((2, u64::from(index - 1))));
    }
}

/// The negative twin: one bit anywhere, and neither opens it.
#[test]
fn a_flipped_bit_is_refused_by_both() {
    let shape = Shape { second: 0, timestamp: 7, sources: vec![9], extension: None, payload: vec![1; 20] };
    let plain = rtp(100, 1, &shape);
    for profile in PROFILES {
        // One key for both directions, so that both ends may be given the same packet.
        let mut sealer = Ends::new(profile, &[0x5a; 88]);
        let mut buf = [&plain[..], &[0; MAX_OVERHEAD]].concat();
        let len = sealer.ours.protect_rtp(&mut buf, plain.len()).unwrap();
        for bit in 0..8 * len {
            let mut ends = Ends::new(profile, &[0x5a; 88]);
            let mut forged = buf[..len].to_vec();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(ends.their_open.decrypt_rtp(&forged).is_err(), "{profile:?}: they took bit {bit}");
            assert!(ends.ours.unprotect_rtp(&mut forged).is_err(), "{profile:?}: we took bit {bit}");
        }
        let mut ends = Ends::new(profile, &[0x5a; 88]);
        assert!(ends.ours.unprotect_rtp(&mut buf[..len].to_vec()).is_ok());
    }
}
