//! TLS to PostgreSQL, with the meaning that libpq gives to `sslmode` and `sslrootcert`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::StoreError;

/// How much of the server's certificate is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Nothing: the link is encrypted, its other end is not known. `prefer`, and `require` without
    /// a root certificate.
    Anybody,
    /// That a trusted authority signed it, whatever name it bears. `verify-ca`, and `require`
    /// with a root certificate.
    Authority(Roots),
    /// That it is also the server in the URL. `verify-full`.
    Server(Roots),
}

/// The authorities that are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Roots {
    /// Those of the system.
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

/// Our own certificate and its key, PEM files: `sslcert` and `sslkey`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// A TLS configuration that checks the server as `trust` says, from the files as they are now.
pub(super) fn client_config(
    trust: &Trust,
    identity: Option<&Identity>,
) -> Result<ClientConfig, StoreError> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Anybody => Arc::new(Lenient {
            authority: None,
            provider: Arc::clone(&provider),
        }),
        Trust::Authority(roots) => Arc::new(Lenient {
            authority: Some(strict(roots, &provider)?),
            provider: Arc::clone(&provider),
        }),
        Trust::Server(roots) => strict(roots, &provider)?,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| StoreError::permanent("cannot set up TLS", source))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some(Identity { cert, key }) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| unusable("sslcert", cert, source.into()))?;
    let secret = PrivateKeyDer::from_pem_file(key)
        .map_err(|source| unusable("sslkey", key, source.into()))?;
    builder
        .with_client_auth_cert(chain, secret)
        .map_err(|source| unusable("sslkey", key, source.into()))
}

fn unusable(
    parameter: &str,
    path: &Path,
    source: Box<dyn std::error::Error + Send + Sync>,
) -> StoreError {
    StoreError::Permanent {
        what: format!(
            "cannot use {}: {parameter} in DATABASE_URL must name a PEM file, sslkey the key of sslcert",
            path.display()
        ),
        source: Some(Arc::from(source)),
    }
}

fn strict(
    roots: &Roots,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, StoreError> {
    let store = match roots {
        Roots::System => system_roots(),
        Roots::File(path) => roots_in(path)?,
    };
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
        .build()
        .map_err(|source| {
            StoreError::permanent(
                "no certificate authority to trust: name a PEM file with sslrootcert in DATABASE_URL",
                source,
            )
        })
}

fn system_roots() -> RootCertStore {
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        tracing::warn!(%error, "some certificate authorities of the system cannot be read");
    }
    store.add_parsable_certificates(found.certs);
    store
}

fn roots_in(path: &Path) -> Result<RootCertStore, StoreError> {
    let refused = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Permanent {
        what: format!(
            "cannot read certificates from {}: sslrootcert in DATABASE_URL must name a PEM file",
            path.display()
        ),
        source: Some(Arc::from(source)),
    };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| refused(e.into()))? {
        store
            .add(certificate.map_err(|e| refused(e.into()))?)
            .map_err(|e| refused(e.into()))?;
    }
    Ok(store)
}

/// Checks less than the name: the chain to an authority only, or nothing at all.
#[derive(Debug)]
struct Lenient {
    authority: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
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
        let Some(authority) = &self.authority else {
            return Ok(ServerCertVerified::assertion());
        };
        // The name is checked last, so this error means that the chain is good.
        match authority.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        ) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
