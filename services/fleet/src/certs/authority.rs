//! The authority: reading it, making it, and signing with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::OffsetDateTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;

use super::{Purpose, Wanted};
use crate::secret_file;

/// Certificates are good from a while ago, for clocks that are behind.
const CLOCK_SKEW: Duration = Duration::from_secs(3_600);

/// Authorities trusted at a time: the present one and the one before.
const TRUSTED_MAX: usize = 2;

/// Why a certificate cannot be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertError {
    /// The operating system refuses.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// It is no PEM certificate, or not what it should be.
    #[error("{}: {reason}; delete it and its key for a new one", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A name cannot stand in a certificate.
    #[error("cannot make a certificate for `{name}`: {source}")]
    Make {
        /// Whose.
        name: String,
        /// The reason.
        #[source]
        source: rcgen::Error,
    },
}

/// What matters of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Common name of its subject.
    pub common_name: String,
    /// Host names and addresses.
    pub names: Vec<String>,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Until when it is good.
    pub not_after: Timestamp,
    /// Identifier of its key.
    pub own_key: Vec<u8>,
    /// Identifier of the key that signed it; empty when it does not say.
    pub authority_key: Vec<u8>,
}

impl Facts {
    /// Those of the first certificate in a PEM file; none when there is no file.
    ///
    /// # Errors
    /// A file that cannot be read, or holds something else.
    pub fn of(path: &Path) -> Result<Option<Self>, CertError> {
        match fs::read(path) {
            Ok(text) => Self::read(&text)
                .map(Some)
                .map_err(|reason| CertError::Malformed {
                    path: path.to_owned(),
                    reason,
                }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CertError::Io {
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn read(text: &[u8]) -> Result<Self, String> {
        let first = Pem::iter_from_buffer(text)
            .next()
            .ok_or("it holds no PEM certificate")?
            .map_err(|error| error.to_string())?;
        let certificate = first.parse_x509().map_err(|error| error.to_string())?;
        let common_name = certificate.subject().iter_common_name().next();
        let common_name = common_name.and_then(|name| name.as_str().ok());
        let mut facts = Self {
            common_name: common_name.unwrap_or_default().to_owned(),
            names: Vec::new(),
            serial: certificate.raw_serial_as_string(),
            not_after: Timestamp::from_second(certificate.validity().not_after.timestamp())
                .map_err(|error| error.to_string())?,
            own_key: Vec::new(),
            authority_key: Vec::new(),
        };
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    facts.names = names.general_names.iter().filter_map(name).collect();
                }
                ParsedExtension::SubjectKeyIdentifier(key) => facts.own_key = key.0.to_vec(),
                ParsedExtension::AuthorityKeyIdentifier(authority) => {
                    let key = authority.key_identifier.as_ref();
                    facts.authority_key = key.map(|key| key.0.to_vec()).unwrap_or_default();
                }
                _ => {}
            }
        }
        Ok(facts)
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|it| std::net::Ipv4Addr::from(it).to_string()),
            16 => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|it| std::net::Ipv6Addr::from(it).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// A certificate authority in a folder: `ca.crt`, the present one first, and `ca.key`.
pub struct Authority {
    facts: Facts,
    issuer: Issuer<'static, KeyPair>,
    made: bool,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.facts.serial)
    }
}

impl Authority {
    /// The one in `dir`; a new one where there is none, where it is to be renewed or ends before
    /// what it would sign now.
    ///
    /// # Errors
    /// Files that cannot be read, written or understood.
    pub fn open(
        dir: &Path,
        valid_for: Duration,
        signs_for: Duration,
        renew: bool,
        now: Timestamp,
    ) -> Result<Self, CertError> {
        let (cert, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        if let Some(facts) = Facts::of(&cert)?
            && !renew
            && key.exists()
            && facts.not_after > now + signs_for
        {
            let text = read(&cert)?;
            let issuer = KeyPair::from_pem(&read(&key)?)
                .and_then(|pair| Issuer::from_ca_cert_pem(&text, pair))
                .map_err(|error| CertError::Malformed {
                    path: key,
                    reason: error.to_string(),
                })?;
            return Ok(Self {
                facts,
                issuer,
                made: false,
            });
        }
        // Two of one name would be taken for each other, and a signature be called wrong where the
        // authority is unknown.
        let name = format!("mqtt-fleet development CA {:08x}", rand::random::<u32>());
        let mut params = params(&name, Vec::new(), valid_for, now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let failed = |source| CertError::Make {
            name: name.clone(),
            source,
        };
        let pair = KeyPair::generate().map_err(failed)?;
        let own = params.self_signed(&pair).map_err(failed)?.pem();
        let mut trusted = own.clone();
        for former in former(&cert, now)?.into_iter().take(TRUSTED_MAX - 1) {
            trusted += &former;
        }
        // The key first: a certificate without its key would be of no use after a crash.
        write_secret(&key, &pair.serialize_pem())?;
        write(&cert, &trusted)?;
        let facts = Facts::read(own.as_bytes())
            .map_err(|reason| CertError::Malformed { path: cert, reason })?;
        Ok(Self {
            facts,
            issuer: Issuer::new(params, pair),
            made: true,
        })
    }

    /// What is known of its certificate.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether it was made just now.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.made
    }

    /// Makes a certificate and its key, and writes both: `{file}.crt` and `{file}.key`.
    ///
    /// # Errors
    /// A name that no certificate can have, or files that cannot be written.
    pub fn issue(
        &self,
        file: &Path,
        wanted: &Wanted,
        valid_for: Duration,
        now: Timestamp,
    ) -> Result<(), CertError> {
        let mut params = params(&wanted.name, wanted.names.clone(), valid_for, now)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match wanted.purpose {
            Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let failed = |source| CertError::Make {
            name: wanted.name.clone(),
            source,
        };
        let pair = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&pair, &self.issuer).map_err(failed)?;
        write_secret(&with_end(file, "key"), &pair.serialize_pem())?;
        write(&with_end(file, "crt"), &certificate.pem())
    }
}

/// The file with that end; a name may have dots of its own.
pub(super) fn with_end(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    name.into()
}

fn params(
    name: &str,
    names: Vec<String>,
    valid_for: Duration,
    now: Timestamp,
) -> Result<CertificateParams, CertError> {
    let failed = |source| CertError::Make {
        name: name.to_owned(),
        source,
    };
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let at = OffsetDateTime::from_unix_timestamp(now.as_second())
        .map_err(|_| failed(rcgen::Error::Time))?;
    params.not_before = at - CLOCK_SKEW;
    params.not_after = at + valid_for;
    Ok(params)
}

/// The authorities that were trusted until now and are still good.
fn former(cert: &Path, now: Timestamp) -> Result<Vec<String>, CertError> {
    if !cert.exists() {
        return Ok(Vec::new());
    }
    let text = read(cert)?;
    let end = "-----END CERTIFICATE-----";
    let each = text.split_inclusive(end).filter(|it| it.contains(end));
    let good =
        each.filter(|pem| Facts::read(pem.as_bytes()).is_ok_and(|facts| facts.not_after > now));
    Ok(good.map(|pem| format!("{}\n", pem.trim())).collect())
}

fn read(path: &Path) -> Result<String, CertError> {
    fs::read_to_string(path).map_err(|source| CertError::Io {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, text: &str) -> Result<(), CertError> {
    secret_file::write_public(path, text.as_bytes()).map_err(|source| CertError::Io {
        path: path.to_owned(),
        source,
    })
}

fn write_secret(path: &Path, text: &str) -> Result<(), CertError> {
    secret_file::write(path, text.as_bytes()).map_err(|source| CertError::Io {
        path: path.to_owned(),
        source,
    })
}
