//! The server's side: a certificate, its key, and whose client certificates are asked for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use super::reload::Reloading;

/// Files of a server that speaks TLS, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// Its certificate, with what leads to the authority after it.
    pub cert: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
    /// Authorities of client certificates; without them none is asked for.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is turned away.
    pub client_required: bool,
}

/// A file that cannot be used. The content is in no message.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct TlsFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and what it should be.
    pub reason: String,
}

impl TlsFileError {
    fn new(path: &Path, reason: impl fmt::Display) -> Self {
        Self {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// What a server speaks TLS with: 1.2 and 1.3 by ring. Each handshake takes the files as they are
/// then; a change that cannot be used is logged and the former content stays in force. Sessions are
/// not resumed, so that no client goes on with a certificate that is no longer accepted.
///
/// # Errors
/// A file that cannot be used now.
pub fn server_config(files: &ServerFiles) -> Result<ServerConfig, TlsFileError> {
    let provider = Arc::new(ring::default_provider());
    let identity = Identity::new(files, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsFileError::new(&files.cert, error))?;
    let builder = match &files.client_ca {
        Some(path) => builder.with_client_cert_verifier(Arc::new(Clients::new(
            path,
            files.client_required,
            &provider,
        )?)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(identity));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

type Load<T> = Box<dyn Fn() -> Result<T, TlsFileError> + Send + Sync>;

/// The server's own certificate.
struct Identity(Reloading<CertifiedKey, Load<CertifiedKey>>);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    fn new(files: &ServerFiles, provider: &Arc<CryptoProvider>) -> Result<Self, TlsFileError> {
        let (cert, key) = (files.cert.clone(), files.key.clone());
        let provider = Arc::clone(provider);
        let load: Load<CertifiedKey> = Box::new(move || {
            let chain = certificates(&cert)?;
            let secret = PrivateKeyDer::from_pem_file(&key).map_err(|error| {
                TlsFileError::new(&key, format!("it holds no PEM key ({error})"))
            })?;
            CertifiedKey::from_der(chain, secret, &provider).map_err(|error| {
                TlsFileError::new(
                    &key,
                    format!("it is not the key of {} ({error})", cert.display()),
                )
            })
        });
        let paths = vec![files.cert.clone(), files.key.clone()];
        Reloading::new(paths, load).map(Self)
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}

/// Whose client certificates are accepted.
struct Clients {
    roots: Reloading<Arc<dyn ClientCertVerifier>, Load<Arc<dyn ClientCertVerifier>>>,
    required: bool,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}

impl Clients {
    fn new(
        path: &Path,
        required: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsFileError> {
        let (file, with) = (path.to_owned(), Arc::clone(provider));
        let load: Load<Arc<dyn ClientCertVerifier>> = Box::new(move || {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&file)? {
                roots
                    .add(certificate)
                    .map_err(|error| TlsFileError::new(&file, error))?;
            }
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&with))
                .build()
                .map_err(|error| TlsFileError::new(&file, error))
        });
        Ok(Self {
            roots: Reloading::new(vec![path.to_owned()], load)?,
            required,
            provider: Arc::clone(provider),
        })
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    /// None: they may change, and a client with a certificate sends it without a hint.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verifier = self.roots.current();
        verifier.verify_client_cert(end_entity, intermediates, now)
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

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| TlsFileError::new(path, format!("it cannot be read as PEM ({error})")))?;
    if found.is_empty() {
        return Err(TlsFileError::new(path, "it holds no PEM certificate"));
    }
    Ok(found)
}
