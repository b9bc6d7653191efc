//! The two certificates of a node: the one that browsers' media is encrypted against (DTLS), made
//! once and kept, and a self-signed one for the web for a start without a certificate authority.
//!
//! Invariant: a private key lies only in a file of mode 0600, and an existing file is never
//! overwritten: the DTLS fingerprint that live calls were told stays true across restarts.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context as _, Result};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use crate::terms::Secret;

/// Name of the DTLS certificate's file below the data folder.
pub const DTLS_FILE: &str = "dtls.pem";
/// Not before: before any clock that a fresh gateway or laptop may have.
const VALID_FROM: (i32, u8, u8) = (2020, 1, 1);
/// Not after: nobody checks dates in DTLS-SRTP (RFC 8122 section 5: the fingerprint is the trust),
/// but browsers refuse an expired certificate.
const DTLS_VALID_TO: (i32, u8, u8) = (2099, 12, 31);
/// Not after, for the self-signed web certificate.
const WEB_VALID_TO: (i32, u8, u8) = (2049, 12, 31);

/// The certificate that DTLS-SRTP uses.
#[derive(Debug, Clone)]
pub struct DtlsCertificate {
    /// X.509, DER.
    pub certificate: Vec<u8>,
    /// PKCS#8, DER.
    pub key: Secret<Vec<u8>>,
    /// SHA-256 of `certificate`, which SDP tells the browser (RFC 8122 section 5).
    pub fingerprint: [u8; 32],
}

/// A certificate and its key as PEM text.
#[derive(Debug)]
pub struct Pem {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: Secret<String>,
}

/// The DTLS certificate of this node: read from `folder`, or made there at the first start.
///
/// # Errors
/// The file cannot be written, or what it holds is not a certificate with its key.
pub fn dtls(folder: &Path) -> Result<DtlsCertificate> {
    let path = folder.join(DTLS_FILE);
    if !path.exists() {
        let made = self_signed(&["tandem".to_owned()], "Tandem media", DTLS_VALID_TO)?;
        let text = format!("{}{}", made.certificate, made.key.expose());
        write_private(&path, text.as_bytes())?;
    }
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let broken = || {
        format!(
            "{} holds no certificate with its key: move it away, a new one is made at the next start",
            path.display()
        )
    };
    let certificate = CertificateDer::from_pem_slice(&text).with_context(broken)?.to_vec();
    let key = PrivateKeyDer::from_pem_slice(&text).with_context(broken)?.secret_der().to_vec();
    let fingerprint = Sha256::digest(&certificate).into();
    Ok(DtlsCertificate { certificate, key: Secret::new(key), fingerprint })
}

/// A self-signed certificate for the web, for these names and addresses; the first is its subject.
///
/// # Errors
/// A name is not a DNS name or address.
pub fn web(names: &[String]) -> Result<Pem> {
    let subject = names.first().map_or("tandem", String::as_str);
    self_signed(names, subject, WEB_VALID_TO)
}

/// Writes a new file that only its owner may read.
///
/// # Errors
/// It exists, or cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}

fn self_signed(names: &[String], subject: &str, until: (i32, u8, u8)) -> Result<Pem> {
    // P-256: every browser takes it in DTLS and TLS, and it signs thirty times faster than RSA.
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a P-256 key")?;
    let mut params = CertificateParams::new(names.to_vec())
        .with_context(|| format!("{names:?}: each must be a DNS name or an IP address"))?;
    params.not_before = date_time_ymd(VALID_FROM.0, VALID_FROM.1, VALID_FROM.2);
    params.not_after = date_time_ymd(until.0, until.1, until.2);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    let certificate = params.self_signed(&key).context("cannot sign the certificate")?;
    Ok(Pem { certificate: certificate.pem(), key: Secret::new(key.serialize_pem()) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_media_certificate_is_made_once_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = dtls(folder.path()).unwrap();
        let again = dtls(folder.path()).unwrap();
        assert_eq!(first.fingerprint, again.fingerprint);
        assert_eq!(first.fingerprint[..], Sha256::digest(&first.certificate)[..]);
        let mode = std::fs::metadata(folder.path().join(DTLS_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_reported_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(DTLS_FILE), "no").unwrap();
        assert!(dtls(folder.path()).unwrap_err().to_string().contains("move it away"));
        assert_eq!(std::fs::read(folder.path().join(DTLS_FILE)).unwrap(), b"no");
    }

    #[test]
    fn a_web_certificate_takes_names_and_addresses() {
        let made = web(&["desk.example".to_owned(), "192.0.2.7".to_owned()]).unwrap();
        assert!(made.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(CertificateDer::from_pem_slice(made.certificate.as_bytes()).is_ok());
    }

    #[test]
    fn a_private_file_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        write_private(&path, b"1").unwrap();
        assert!(write_private(&path, b"2").is_err());
    }
}
