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
    ctr::Ctr128BE::<&C>::inner_iv_init(cipher, &Array(*iv)).try_apply_keystream(body).ok()
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
