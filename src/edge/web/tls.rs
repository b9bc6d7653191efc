//! TLS of the web: the administrator's certificate, modern protocols, one HTTP version.
//!
//! Invariant: HTTP/1.1 only. A WebSocket needs its upgrade, and a second protocol on the same port
//! would be a second way to smuggle a request.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Reads `certificate` (a PEM chain) and `key` (PEM).
///
/// # Errors
/// A file cannot be read, holds nothing, or the key is not the certificate's.
pub fn server_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let words = || format!("web.tls_cert {}: cannot be read as a PEM certificate", certificate.display());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .with_context(words)?
        .collect::<Result<_, _>>()
        .with_context(words)?;
    ensure!(!chain.is_empty(), "web.tls_cert {}: there is no certificate in it", certificate.display());
    let words = || format!("web.tls_key {}: cannot be read as a PEM key", key.display());
    let key_der = PrivateKeyDer::from_pem_file(key).with_context(words)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("no TLS version is left")?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .with_context(|| format!("{} is not the key of {}", key.display(), certificate.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::edge::certificate;

    #[test]
    fn a_certificate_with_its_key_is_taken_and_with_another_key_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["a", "b"] {
            let made = certificate::web(&["desk.example".to_owned()]).unwrap();
            std::fs::write(at(&format!("{name}.crt")), made.certificate).unwrap();
            std::fs::write(at(&format!("{name}.key")), made.key.expose()).unwrap();
        }
        let taken = server_config(&at("a.crt"), &at("a.key")).unwrap();
        assert_eq!(taken.alpn_protocols, [b"http/1.1".to_vec()]);
        assert!(
            server_config(&at("a.crt"), &at("b.key")).unwrap_err().to_string().contains("is not the key")
        );
        assert!(server_config(&at("none"), &at("b.key")).unwrap_err().to_string().contains("web.tls_cert"));
        assert!(
            server_config(&at("a.key"), &at("a.key")).unwrap_err().to_string().contains("no certificate")
        );
    }

    #[tokio::test]
    async fn a_browser_is_served_over_tls_with_http_1_1() {
        let folder = tempfile::tempdir().unwrap();
        let made = certificate::web(&["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("a.crt"), &made.certificate).unwrap();
        std::fs::write(at("a.key"), made.key.expose()).unwrap();
        let tls = server_config(&at("a.crt"), &at("a.key")).unwrap();
        let listening = crate::edge::web::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listening.local;
        let router = axum::Router::new().route("/", axum::routing::get(|| async { "hello" }));
        let stop = axum_server::Handle::new();
        let serving = tokio::spawn(listening.serve(router, Some(tls), stop.clone()));
        // Another test of this process may have installed it.
        drop(rustls::crypto::ring::default_provider().install_default());
        let trusted = reqwest::Certificate::from_pem(made.certificate.as_bytes()).unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap();
        let response = client.get(format!("https://{address}/")).send().await.unwrap();
        assert_eq!(response.version(), reqwest::Version::HTTP_11);
        assert_eq!(response.text().await.unwrap(), "hello");
        stop.shutdown();
        serving.await.unwrap().unwrap();
    }
}
