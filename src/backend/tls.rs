//! TLS: the certificates that a connection uses, and the meaning of a failed handshake.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, RootCertStore};

use crate::error::{Code, Error, Quoted, Result};
use crate::settings::{Ssl, SslMode, is_pem};

/// PEM that has been read and checked.
#[derive(Clone, Default)]
pub struct Certificates {
    /// The trusted authorities.
    pub ca: Option<Vec<u8>>,
    /// The client's certificate and key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Certificates {
    /// Reads the files for each connection, so that renewed certificates take effect without a restart.
    ///
    /// The driver could read them too, but it accepts a file without certificates as an empty one, and its errors don't name the file.
    pub async fn read(ssl: &Ssl) -> Result<Self> {
        if ssl.mode() == SslMode::Disable {
            return Ok(Self::default());
        }
        let ca = match &ssl.ca {
            Some(ca) => Some(pem("ssl.ca", Some(ca), ca).await?),
            None => None,
        };
        if let Some(ca) = &ca {
            check_authorities(ca)?;
        }
        let ca = if ssl.system_roots {
            let mut roots = system_roots(ssl.system_file.clone()).await?;
            roots.extend(ca.unwrap_or_default());
            Some(roots)
        } else {
            ca
        };
        let identity = match (&ssl.cert, &ssl.key) {
            (Some(cert), Some(key)) => {
                // A wrong key may be a real key in a format other than PEM, so messages don't show it.
                let (cert, key) = (pem("ssl.cert", Some(cert), cert).await?, pem("ssl.key", None, key.reveal()).await?);
                certificates("ssl.cert", &cert)?;
                PrivateKeyDer::from_pem_slice(&key)
                    .map_err(|_| refuse("ssl.key holds no private key in PEM that can be read (one that is encrypted can't)"))?;
                Some((cert, key))
            }
            _ => None,
        };
        Ok(Self { ca, identity })
    }
}

fn refuse(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidConnection, message)
}

/// PEM text, either given or read from the file that the text names. `shown` is the file's name in messages.
async fn pem(what: &'static str, shown: Option<&str>, given: &str) -> Result<Vec<u8>> {
    if is_pem(given) {
        return Ok(given.as_bytes().to_vec());
    }
    let path = given.to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
    let file = || shown.map_or_else(|| "the file".to_owned(), |path| format!("the file {}", Quoted(path)));
    match read {
        Ok(Ok(content)) => Ok(content),
        Ok(Err(error)) => Err(refuse(format!(
            "{what} is neither PEM text nor the path of a file that can be read: {}: {error}",
            file()
        ))),
        Err(_) => Err(Error::internal(format!("{what} could not be read"))),
    }
}

/// Where operating systems keep their trusted authorities, as one PEM file.
const BUNDLES: [&str; 7] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

/// The operating system's authorities, or those in the file that `SSL_CERT_FILE` names instead.
async fn system_roots(named: Option<String>) -> Result<Vec<u8>> {
    let what = "sslrootcert=system";
    if let Some(named) = named {
        let content = pem("SSL_CERT_FILE", Some(&named), &named).await?;
        return sound(&content).ok_or_else(|| refuse(format!("the file {} (SSL_CERT_FILE) holds no certificate in PEM", Quoted(&named))));
    }
    let read = tokio::task::spawn_blocking(|| BUNDLES.iter().find_map(|bundle| sound(&std::fs::read(bundle).ok()?))).await;
    match read {
        Ok(Some(roots)) => Ok(roots),
        _ => Err(refuse(format!(
            "{what}: this operating system has no file of the authorities that it trusts where such files are: give one, by SSL_CERT_FILE or by ssl.ca"
        ))),
    }
}

/// The usable certificates of a bundle: some systems include others.
fn sound(bundle: &[u8]) -> Option<Vec<u8>> {
    const END: &str = "-----END CERTIFICATE-----";
    let text = String::from_utf8_lossy(bundle);
    let mut kept = Vec::new();
    for block in text.split_inclusive(END) {
        let Some(begin) = block.find("-----BEGIN CERTIFICATE-----") else {
            continue;
        };
        let block = &block.as_bytes()[begin..];
        if check_authorities(block).is_ok() {
            kept.extend_from_slice(block);
            kept.push(b'\n');
        }
    }
    (!kept.is_empty()).then_some(kept)
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let all: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(refuse(format!("{what} holds no certificate in PEM"))),
        Err(_) => Err(refuse(format!("{what} holds a certificate that is not sound PEM"))),
    }
}

fn check_authorities(pem: &[u8]) -> Result<()> {
    let mut store = RootCertStore::empty();
    for certificate in certificates("ssl.ca", pem)? {
        store
            .add(certificate)
            .map_err(|error| refuse(format!("ssl.ca holds something that is no certificate: {error}")))?;
    }
    Ok(())
}

/// Why the TLS handshake failed, as far as the driver can tell.
#[derive(Clone, Debug)]
pub enum TlsFailure {
    Protocol(rustls::Error),
    /// The host is not a name that a certificate can have.
    HostName(String),
    /// The server does not offer TLS, and the settings demand it.
    NotOffered,
}

/// The message for a failure that recurs with the same settings. `None` if the next attempt may succeed.
pub fn refusal(failure: &TlsFailure, ssl: &Ssl) -> Option<String> {
    let found = match failure {
        TlsFailure::Protocol(found) => found,
        TlsFailure::HostName(why) => return Some(format!("TLS failed: {why}")),
        TlsFailure::NotOffered => return Some("the server offers no encryption (TLS), and the settings demand it (ssl.mode)".to_owned()),
    };
    match found {
        rustls::Error::InvalidCertificate(why) if ssl.channel_binding => Some(format!(
            "{}. channel_binding=require asks for a server that is verified: give the authority of its certificate (ssl.ca), or remove \
             channel_binding=require",
            untrusted(why, ssl)
        )),
        rustls::Error::InvalidCertificate(why) => Some(untrusted(why, ssl)),
        rustls::Error::InconsistentKeys(_) => Some("ssl.key is not the key of the certificate ssl.cert".to_owned()),
        // These may not recur in the next attempt.
        rustls::Error::AlertReceived(AlertDescription::CloseNotify | AlertDescription::UserCanceled | AlertDescription::InternalError) => {
            None
        }
        rustls::Error::AlertReceived(alert) if ssl.cert.is_some() => Some(format!(
            "the server refused TLS with {alert:?}: it may not trust the client's certificate (ssl.cert)"
        )),
        rustls::Error::AlertReceived(alert) => Some(format!(
            "the server refused TLS with {alert:?}: it may want a client's certificate (ssl.cert and ssl.key)"
        )),
        rustls::Error::PeerIncompatible(_) => Some(format!("the server speaks another TLS, TLS 1.2 or 1.3 is needed: {found}")),
        _ => None,
    }
}

fn untrusted(why: &CertificateError, ssl: &Ssl) -> String {
    match why {
        CertificateError::UnknownIssuer if ssl.ca.is_some() => {
            "the server's certificate has an unknown issuer: none of the authorities in ssl.ca signed it".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "the server's certificate has an unknown issuer: give the certificate of the authority that signed it (ssl.ca)".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "the server's certificate is for another host: {why}. Connect by the name that is in its subjectAltName{}",
                match ssl.mode() {
                    SslMode::VerifyCa => " (verify-ca checks the name too)",
                    _ => "",
                }
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => format!("the server's certificate has expired: {why}"),
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "the server's certificate is that of an authority (basicConstraints CA:TRUE), as a self-signed one often is: sign a certificate of its own \
             for the server"
                .to_owned()
        }
        _ => format!("the server's certificate can't be trusted: {why}"),
    }
}
