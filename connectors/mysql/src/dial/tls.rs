//! TLS as `--ssl-mode` of MySQL's client means it.
//!
//! `PREFERRED` and `REQUIRED` protect against listeners only: whoever answers is
//! believed.

use std::path::Path;
use std::sync::Arc;

use figvine_change::{SourceError, SourceErrorKind};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use crate::error::{Told, failure};
use crate::url::{ConnectUrl, SslMode};

pub(super) fn connector(url: &ConnectUrl) -> Result<TlsConnector, SourceError> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match url.ssl_mode {
        SslMode::Disabled | SslMode::Preferred | SslMode::Required => {
            Arc::new(Lenient { provider: Arc::clone(&provider), authority: None })
        }
        SslMode::VerifyCa | SslMode::VerifyIdentity => {
            let roots = Arc::new(roots(url.ssl_ca.as_deref())?);
            let authority = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
            let authority = authority.map_err(|e| invalid("the trusted authorities cannot be used").because(e))?;
            if url.ssl_mode == SslMode::VerifyIdentity {
                authority
            } else {
                Arc::new(Lenient { provider: Arc::clone(&provider), authority: Some(authority) })
            }
        }
    };
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|e| invalid("TLS cannot be set up").because(e))?;
    let config = config.dangerous().with_custom_certificate_verifier(verifier);
    let config = match (&url.ssl_cert, &url.ssl_key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|e| invalid(format!("no private key can be read from {}", key.display())).because(e))?;
            let config = config.with_client_auth_cert(chain, key);
            config.map_err(|e| invalid("`ssl-cert` and `ssl-key` do not fit together").because(e))?
        }
        (None, None) => config.with_no_client_auth(),
        _ => return Err(invalid("`ssl-cert` and `ssl-key` are given together or not at all")),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, SourceError> {
    ServerName::try_from(host.to_owned()).map_err(|e| invalid(format!("`{host}` is no host name")).because(e))
}

fn invalid(what: impl Into<String>) -> SourceError {
    failure(SourceErrorKind::Invalid, "FV-1115", what)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SourceError> {
    let unreadable = || invalid(format!("no certificate can be read from {}", path.display()));
    let read = CertificateDer::pem_file_iter(path).map_err(|e| unreadable().because(e))?;
    let chain = read.collect::<Result<Vec<_>, _>>().map_err(|e| unreadable().because(e))?;
    if chain.is_empty() { Err(unreadable()) } else { Ok(chain) }
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, SourceError> {
    let mut roots = RootCertStore::empty();
    let found = match file {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(found);
    if roots.is_empty() {
        return Err(invalid("there is no authority to trust").hint("Name one by `ssl-ca` in the url."));
    }
    Ok(roots)
}

/// Believes any name; any certificate too, unless there is an authority to ask.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    authority: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authority) = &self.authority else { return Ok(ServerCertVerified::assertion()) };
        match authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
