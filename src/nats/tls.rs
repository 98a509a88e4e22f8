//! TLS for our own connection: the same files as the client library is given.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::{NatsError, Tls};

/// The authorities that we trust and the certificate that we show.
pub(super) fn client_config(tls: &Tls) -> Result<ClientConfig, NatsError> {
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|e| {
                    NatsError::refused(format!("{} holds no valid authority", file.display())).because(e)
                })?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| NatsError::refused("tls cannot be set up").because(e))?
        .with_root_certificates(roots);
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let unusable =
                |file: &Path| NatsError::refused(format!("{} holds no private key that can be used", file.display()));
            let private = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable(key).because(e))?;
            builder.with_client_auth_cert(chain, private).map_err(|e| unusable(key).because(e))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(_), None) | (None, Some(_)) => {
            Err(NatsError::refused("a client certificate needs both its file and its key"))
        }
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, NatsError> {
    let unusable = || NatsError::refused(format!("{} holds no certificate that can be read", file.display()));
    let found = CertificateDer::pem_file_iter(file)
        .map_err(|e| unusable().because(e))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| unusable().because(e))?;
    if found.is_empty() { Err(unusable()) } else { Ok(found) }
}
