//! The ciphers of SRTP under one face: seal and open a packet whose index is known.
//!
//! Invariant: nothing here remembers anything; `open_…` gives `None` unless every octet is authentic.

use aes::cipher::{Array, InnerIvInit, KeyInit, StreamCipher};
use aes::{Aes128Enc, Aes256Enc};
use hmac::{Hmac, Mac};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha1::Sha1;

use super::{Profile, RTCP_CLEAR, RTCP_INDEX_LEN, Zeroizing};

/// Octets of the HMAC-SHA1 tag that are sent (RFC 3711 section 5.2).
const CM_TAG: usize = 10;
const GCM_TAG: usize = 16;
const MAC_KEY: usize = 20;
const BLOCK: usize = 16;

/// For which packets keys are derived (RFC 3711 section 4.3.1, 4.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    Rtp,
    Rtcp,
}

impl Label {
    /// Of the encryption key; the authentication key and the salt have the next two.
    fn first(self) -> u8 {
        match self {
            Self::Rtp => 0,
            Self::Rtcp => 3,
        }
    }
}

/// Session keys for RTP or for RTCP.
pub(super) enum Suite {
    /// AES in counter mode, HMAC-SHA1 (RFC 3711 section 4).
    Cm(Box<Cm>),
    /// AES-GCM (RFC 7714).
    Gcm(Box<Gcm>),
}

pub(super) struct Cm {
    cipher: Aes128Enc,
    /// Keyed once; cloned for each packet, which saves two of its SHA-1 blocks.
    mac: Hmac<Sha1>,
    salt: [u8; 14],
}

pub(super) struct Gcm {
    key: LessSafeKey,
    salt: [u8; 12],
}

impl Suite {
    /// `master` is the master key followed by the master salt; `None` when its length is wrong.
    pub(super) fn derive(profile: Profile, master: &[u8], label: Label) -> Option<Self> {
        if master.len() != profile.key_len() + profile.salt_len() {
            return None;
        }
        let (key, salt) = master.split_at(profile.key_len());
        let derive = |n: u8, out: &mut [u8]| prf(key, salt, label.first() + n, out);
        let mut session = Zeroizing::new(vec![0; profile.key_len()]);
        derive(0, &mut session)?;
        match profile {
            Profile::Aes128CmSha1_80 => {
                let (mut mac_key, mut salt) = (Zeroizing::new([0; MAC_KEY]), [0; 14]);
                derive(1, &mut *mac_key)?;
                derive(2, &mut salt)?;
                Cm::new(&session, &*mac_key, salt).map(|cm| Self::Cm(Box::new(cm)))
            }
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => {
                let mut salt = [0; 12];
                derive(2, &mut salt)?;
                Gcm::new(&session, salt).map(|gcm| Self::Gcm(Box::new(gcm)))
            }
        }
    }

    /// `packet` has room for the tag behind it; `clear` octets stay readable.
    pub(super) fn seal_rtp(&self, packet: &mut [u8], clear: usize, ssrc: u32, index: u64) -> Option<()> {
        match self {
            Self::Cm(cm) => {
                let (data, tag) = packet.split_last_chunk_mut::<CM_TAG>()?;
                cm.crypt(data.get_mut(clear..)?, ssrc, index)?;
                *tag = cm.tag(data, &roc(index)?)?;
            }
            Self::Gcm(gcm) => {
                let (data, tag) = packet.split_last_chunk_mut::<GCM_TAG>()?;
                let (head, body) = data.split_at_mut_checked(clear)?;
                *tag = gcm.seal(head, body, ssrc, index)?;
            }
        }
        Some(())
    }

    pub(super) fn open_rtp(&self, packet: &mut [u8], clear: usize, ssrc: u32, index: u64) -> Option<()> {
        match self {
            Self::Cm(cm) => {
                let (data, tag) = packet.split_last_chunk_mut::<CM_TAG>()?;
                cm.verify(data, &roc(index)?, tag)?;
                cm.crypt(data.get_mut(clear..)?, ssrc, index)
            }
            Self::Gcm(gcm) => {
                let (head, body) = packet.split_at_mut_checked(clear)?;
                gcm.open(head, body, ssrc, index)
            }
        }
    }

    /// `packet` has room for tag and index behind it; `word` is the index with the E bit.
    pub(super) fn seal_rtcp(&self, packet: &mut [u8], ssrc: u32, word: u32) -> Option<()> {
        let index = u64::from(word & 0x7fff_ffff);
        match self {
            Self::Cm(cm) => {
                // RFC 3711 section 3.4: packet, index, tag; the tag covers the index.
                let (data, tag) = packet.split_last_chunk_mut::<CM_TAG>()?;
                let (plain, shown) = data.split_last_chunk_mut::<RTCP_INDEX_LEN>()?;
                *shown = word.to_be_bytes();
                cm.crypt(plain.get_mut(RTCP_CLEAR..)?, ssrc, index)?;
                *tag = cm.tag(data, &[])?;
            }
            Self::Gcm(gcm) => {
                // RFC 7714 section 9.2: packet, tag, index; the head and the index are associated data.
                let (sealed, shown) = packet.split_last_chunk_mut::<RTCP_INDEX_LEN>()?;
                *shown = word.to_be_bytes();
                let (data, tag) = sealed.split_last_chunk_mut::<GCM_TAG>()?;
                let (head, body) = data.split_at_mut_checked(RTCP_CLEAR)?;
                *tag = gcm.seal(&rtcp_associated(head, *shown)?, body, ssrc, index)?;
            }
        }
        Some(())
    }

    pub(super) fn open_rtcp(&self, packet: &mut [u8], ssrc: u32, word: u32) -> Option<()> {
        let index = u64::from(word & 0x7fff_ffff);
        match self {
            Self::Cm(cm) => {
                let (data, tag) = packet.split_last_chunk_mut::<CM_TAG>()?;
                cm.verify(data, &[], tag)?;
                let (cipher, _) = data.split_last_chunk_mut::<RTCP_INDEX_LEN>()?;
                cm.crypt(cipher.get_mut(RTCP_CLEAR..)?, ssrc, index)
            }
            Self::Gcm(gcm) => {
                let (sealed, shown) = packet.split_last_chunk_mut::<RTCP_INDEX_LEN>()?;
                let (head, body) = sealed.split_at_mut_checked(RTCP_CLEAR)?;
                gcm.open(&rtcp_associated(head, *shown)?, body, ssrc, index)
            }
        }
    }

    /// Where the E bit and the SRTCP index lie.
    pub(super) fn index_word<'p>(&self, packet: &'p [u8]) -> Option<&'p [u8; RTCP_INDEX_LEN]> {
        match self {
            Self::Cm(_) => packet.split_last_chunk::<CM_TAG>()?.0.last_chunk(),
            Self::Gcm(_) => packet.last_chunk(),
        }
    }
}

impl Cm {
    fn new(key: &[u8], mac_key: &[u8], salt: [u8; 14]) -> Option<Self> {
        let cipher = Aes128Enc::new_from_slice(key).ok()?;
        let mac = <Hmac<Sha1> as KeyInit>::new_from_slice(mac_key).ok()?;
        Some(Self { cipher, mac, salt })
    }

    /// Counter mode is its own inverse.
    fn crypt(&self, body: &mut [u8], ssrc: u32, index: u64) -> Option<()> {
        keystream(&self.cipher, &cm_iv(&self.salt, ssrc, index), body)
    }

    fn mac(&self, data: &[u8], suffix: &[u8]) -> Hmac<Sha1> {
        let mut mac = self.mac.clone();
        mac.update(data);
        mac.update(suffix);
        mac
    }

    fn tag(&self, data: &[u8], suffix: &[u8]) -> Option<[u8; CM_TAG]> {
        self.mac(data, suffix).finalize().into_bytes().first_chunk().copied()
    }

    /// In constant time.
    fn verify(&self, data: &[u8], suffix: &[u8], tag: &[u8]) -> Option<()> {
        self.mac(data, suffix).verify_truncated_left(tag).ok()
    }
}

impl Gcm {
    fn new(key: &[u8], salt: [u8; 12]) -> Option<Self> {
        let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
        Some(Self { key: LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?), salt })
    }

    /// RFC 7714 sections 8.1 and 9.1: two zero octets, SSRC, 48 bits of index; XOR salt.
    fn nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let mut iv = self.salt;
        mix(&mut iv, 2, &ssrc.to_be_bytes());
        mix(&mut iv, 6, &index48(index));
        Nonce::assume_unique_for_key(iv)
    }

    fn seal(&self, associated: &[u8], body: &mut [u8], ssrc: u32, index: u64) -> Option<[u8; GCM_TAG]> {
        let nonce = self.nonce(ssrc, index);
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(associated), body).ok()?;
        tag.as_ref().first_chunk().copied()
    }

    /// `body` ends in the tag.
    fn open(&self, associated: &[u8], body: &mut [u8], ssrc: u32, index: u64) -> Option<()> {
        self.key.open_in_place(self.nonce(ssrc, index), Aad::from(associated), body).ok().map(|_| ())
    }
}

/// The key derivation of RFC 3711 section 4.3.3, with AES-128 or AES-256 (RFC 6188 section 3) by the length of
/// the master key. A 96-bit salt is padded with zero octets (RFC 7714 section 11). The derivation rate is 0.
fn prf(master_key: &[u8], master_salt: &[u8], label: u8, out: &mut [u8]) -> Option<()> {
    let mut iv = [0; BLOCK];
    mix(&mut iv, 0, master_salt);
    mix(&mut iv, 7, &[label]);
    out.fill(0);
    match master_key.len() {
        16 => keystream(&Aes128Enc::new_from_slice(master_key).ok()?, &iv, out),
        _ => keystream(&Aes256Enc::new_from_slice(master_key).ok()?, &iv, out),
    }
}

/// XORs the counter mode stream that begins at `iv` onto `body`.
fn keystream<C>(cipher: &C, iv: &[u8; BLOCK], body: &mut [u8]) -> Option<()>
where
    C: aes::cipher::BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16>,
{
    let core = ctr::CtrCore::<&C, ctr::flavors::Ctr128BE>::inner_iv_init(cipher, &Array(*iv));
    ctr::Ctr128BE::from_core(core).try_apply_keystream(body).ok()
}

/// RFC 3711 section 4.1.1: salt · 2^16 XOR SSRC · 2^64 XOR index · 2^16.
fn cm_iv(salt: &[u8; 14], ssrc: u32, index: u64) -> [u8; BLOCK] {
    let mut iv = [0; BLOCK];
    mix(&mut iv, 0, salt);
    mix(&mut iv, 4, &ssrc.to_be_bytes());
    mix(&mut iv, 8, &index48(index));
    iv
}

/// XORs `value` onto `block` from `at` on.
fn mix(block: &mut [u8], at: usize, value: &[u8]) {
    for (octet, with) in block.iter_mut().skip(at).zip(value) {
        *octet ^= with;
    }
}

fn index48(index: u64) -> [u8; 6] {
    let [_, _, rest @ ..] = index.to_be_bytes();
    rest
}

/// The roll-over count, which the RTP tag covers without its being sent (RFC 3711 section 4.2).
fn roc(index: u64) -> Option<[u8; 4]> {
    index48(index).first_chunk().copied()
}

fn rtcp_associated(head: &[u8], word: [u8; RTCP_INDEX_LEN]) -> Option<[u8; RTCP_CLEAR + RTCP_INDEX_LEN]> {
    let mut all = [0; RTCP_CLEAR + RTCP_INDEX_LEN];
    let (front, back) = all.split_first_chunk_mut::<RTCP_CLEAR>()?;
    *front = *head.first_chunk()?;
    back.copy_from_slice(&word);
    Some(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn octets(text: &str) -> Vec<u8> {
        hex::decode(text.replace(' ', "")).unwrap()
    }

    #[test]
    fn the_key_stream_of_rfc_3711_b_2() {
        let cm = Cm::new(
            &octets("2B7E151628AED2A6ABF7158809CF4F3C"),
            &[0; MAC_KEY],
            octets("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().unwrap(),
        );
        let mut stream = vec![0; 0xff02 * BLOCK];
        cm.unwrap().crypt(&mut stream, 0, 0).unwrap();
        for (block, expected) in [
            (0, "E03EAD0935C95E80E166B16DD92B4EB4"),
            (1, "D23513162B02D0F72A43A2FE4A5F97AB"),
            (2, "41E95B3BB0A2E8DD477901E4FCA894C0"),
            (0xfeff, "EC8CDF7398607CB0F2D21675EA9EA1E4"),
            (0xff00, "362B7C3C6773516318A077D7FC5073AE"),
            (0xff01, "6A2CC3787889374FBEB4C81B17BA6C44"),
        ] {
            assert_eq!(stream[block * BLOCK..][..BLOCK], octets(expected), "block {block:#x}");
        }
    }

    #[test]
    fn the_session_keys_of_rfc_3711_b_3() {
        let key = octets("E1F97A0D3E018BE0D64FA32C06DE4139");
        let salt = octets("0EC675AD498AFEEBB6960B3AABE6");
        for (label, expected) in [
            (0, "C61E7A93744F39EE10734AFE3FF7A087"),
            (2, "30CBBC08863D8C85D49DB34A9AE1"),
            (
                1,
                "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCE\
                 E049646C43D9327AD175578EF72270986371C10C9A369AC2F94A8C5FBCDDDC25\
                 6D6E919A48B610EF17C2041E47403576",
            ),
        ] {
            let mut out = vec![0; octets(expected).len()];
            prf(&key, &salt, label, &mut out).unwrap();
            assert_eq!(out, octets(expected), "label {label}");
        }
    }

    #[test]
    fn the_session_keys_of_rfc_6188_with_aes_256() {
        let key = octets("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6");
        let salt = octets("3b04803de51ee7c96423ab5b78d2");
        for (label, expected) in [
            (0, "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4"),
            (2, "fa31791685ca444a9e07c6c64e93"),
            (1, "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05"),
        ] {
            let mut out = vec![0; octets(expected).len()];
            prf(&key, &salt, label, &mut out).unwrap();
            assert_eq!(out, octets(expected), "label {label}");
        }
    }

    const SALT: &str = "517569642070726f2071756f";

    fn gcm(key_len: u8) -> Suite {
        let key: Vec<u8> = (0..key_len).collect();
        Suite::Gcm(Box::new(Gcm::new(&key, octets(SALT).try_into().unwrap()).unwrap()))
    }

    #[test]
    fn the_srtp_packets_of_rfc_7714_16() {
        let plain = octets(
            "8040f17b8041f8d35501a0b247616c6c696120657374206f6d6e69732064697669736120696e207061727465732074726573",
        );
        for (key_len, expected) in [
            (
                16,
                "8040f17b8041f8d35501a0b2 f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b\
                 36de3adf8833 899d7f27beb16a9152cf765ee4390cce",
            ),
            (
                32,
                "8040f17b8041f8d35501a0b2 32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f\
                 1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13",
            ),
        ] {
            let mut packet = [plain.clone(), vec![0; GCM_TAG]].concat();
            gcm(key_len).seal_rtp(&mut packet, 12, 0x5501_a0b2, 0xf17b).unwrap();
            assert_eq!(hex::encode(&packet), hex::encode(octets(expected)));
            gcm(key_len).open_rtp(&mut packet, 12, 0x5501_a0b2, 0xf17b).unwrap();
            assert_eq!(packet[..plain.len()], plain);
        }
    }

    #[test]
    fn the_srtcp_packet_of_rfc_7714_17_1() {
        let plain = octets(
            "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61\
             deadbeefdeadbeefdeadbeefdeadbeefdeadbeef",
        );
        let expected = octets(
            "81c8000d4d617273 63e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda\
             4ce09b4686303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade 800005d4",
        );
        let mut packet = [plain, vec![0; GCM_TAG + RTCP_INDEX_LEN]].concat();
        gcm(16).seal_rtcp(&mut packet, 0x4d61_7273, 0x8000_05d4).unwrap();
        assert_eq!(hex::encode(&packet), hex::encode(expected));
    }
}
