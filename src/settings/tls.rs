//! Whether a connection is encrypted, and whom it trusts: what the options, a URL, an instance and the environment ask for, made into one mode.

use super::{Secret, bad_connection};
use crate::error::{Error, Quoted, Result};
use crate::fields::Fields;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    const ALL: [(&'static str, SslMode); 5] = [
        ("disable", SslMode::Disable),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ];

    /// The names of libpq; MySQL's own (`VERIFY_IDENTITY`, `PREFERRED`, …) mean the same things.
    pub fn from_text(text: &str) -> Option<Self> {
        let text = match text.to_ascii_lowercase().replace('_', "-").as_str() {
            "disabled" => "disable".to_owned(),
            "preferred" | "allow" => "prefer".to_owned(),
            "required" => "require".to_owned(),
            "verify-identity" => "verify-full".to_owned(),
            other => other.to_owned(),
        };
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, mode)| *mode)
    }

    pub fn names() -> String {
        Self::ALL.map(|(name, _)| name).join(", ")
    }
}

/// Encryption. `ca`, `cert` and `key` are PEM text or the path of a PEM file.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Ssl {
    /// What was said; see [`Ssl::mode`].
    pub(super) said: Option<SslMode>,
    pub ca: Option<String>,
    pub cert: Option<String>,
    pub key: Option<Secret>,
    /// The operating system's authorities are trusted too: `sslrootcert=system`.
    pub system_roots: bool,
    /// The file that `SSL_CERT_FILE` names in place of the operating system's.
    pub system_file: Option<String>,
    /// The server is to prove by its login that it is the one at the other end of the encryption. The driver can't do that, so the certificate has to.
    pub channel_binding: bool,
    /// No certificate is checked, whatever authority was given: `sslmode=no-verify`.
    pub(super) no_verify: bool,
}

impl Ssl {
    /// Who gives an authority wants the server's certificate checked: that is so where no mode is said, and where it is `require` (as with libpq).
    pub fn mode(&self) -> SslMode {
        if self.said == Some(SslMode::Disable) {
            return SslMode::Disable;
        }
        if self.channel_binding || self.system_roots {
            return SslMode::VerifyFull;
        }
        match (self.said, &self.ca) {
            (None, None) => SslMode::Prefer,
            (None, Some(_)) => SslMode::VerifyFull,
            (Some(SslMode::Require), Some(_)) if !self.no_verify => SslMode::VerifyCa,
            (Some(mode), _) => mode,
        }
    }

    /// Whether anything was said of a mode, by name or by an authority.
    pub(super) fn is_said(&self) -> bool {
        self.said.is_some() || self.ca.is_some() || self.system_roots
    }

    /// Takes an authority as libpq names it: a file, or the operating system's.
    pub(super) fn trust(&mut self, root: String) {
        match root.as_str() {
            "" => {}
            "system" => self.system_roots = true,
            _ => self.ca = Some(root),
        }
    }

    /// Refuses what does not fit together.
    pub(super) fn check(&self) -> std::result::Result<(), &'static str> {
        if self.said == Some(SslMode::Prefer) && (self.ca.is_some() || self.system_roots) {
            return Err("ssl.mode \"prefer\" checks no certificate, so it can't go with ssl.ca: say verify-full");
        }
        if self.said == Some(SslMode::Disable) && self.channel_binding {
            return Err("channel_binding=require needs TLS, and the settings turn it off (sslmode=disable): leave out one of the two");
        }
        if self.said == Some(SslMode::Disable) && self.system_roots {
            return Err("sslrootcert=system needs TLS, and the settings turn it off (sslmode=disable): leave out one of the two");
        }
        match (&self.cert, &self.key) {
            (Some(_), None) => Err("ssl.cert needs ssl.key, the key that belongs to it"),
            (None, Some(_)) => Err("ssl.key needs ssl.cert, the certificate that it belongs to"),
            _ => Ok(()),
        }
    }

    /// The option `ssl`. It goes before what a URL or the environment says.
    pub(super) fn apply_option(&mut self, json: &str) -> Result<()> {
        if !json.starts_with('{') {
            return Err(Error::invalid("options.ssl must be an object: { mode, ca, cert, key }"));
        }
        let ssl = Fields::read(&"options.ssl", json)?;
        ssl.only(&["mode", "ca", "cert", "key"])?;
        ssl.no_nulls()?;
        let mode = match ssl.optional_string("mode")? {
            None => None,
            Some(mode) => Some(SslMode::from_text(&mode).ok_or_else(|| {
                Error::invalid(format!(
                    "options.ssl.mode must be one of {}, not {}",
                    SslMode::names(),
                    crate::fields::shown(&Quoted(&mode).to_string())
                ))
            })?),
        };
        if ssl.get("ca").is_some() {
            self.system_roots = false;
            self.no_verify = false;
            // An authority asks for a check, so a weaker mode that comes from elsewhere no longer counts.
            self.said = self.said.filter(|said| *said >= SslMode::Require);
        }
        if mode.is_some() {
            self.said = mode;
            self.no_verify = false;
            self.channel_binding = false;
            self.system_roots &= mode != Some(SslMode::Disable);
        }
        self.take_pem(&ssl)?;
        self.check().map_err(|why| Error::invalid(format!("options.{why}")))
    }

    pub(super) fn take_pem(&mut self, ssl: &Fields<'_, '_>) -> Result<()> {
        self.ca = ssl.optional_string("ca")?.or(self.ca.take());
        self.cert = ssl.optional_string("cert")?.or(self.cert.take());
        // A wrong key is a secret too, so nothing of it is shown.
        let key = ssl
            .optional_string("key")
            .map_err(|_| Error::invalid(format!("{}.key must be a string", ssl.what)))?;
        self.key = key.map(Secret::new).or(self.key.take());
        Ok(())
    }
}

/// What the parameters of one URL say about encryption. Several may, so what they mean is known once all are read.
#[derive(Default)]
pub struct SslParameters {
    mode: Option<SslMode>,
    /// `ssl=true` or `ssl=false`.
    on: Option<bool>,
    /// Whether the certificate is to be checked.
    verify: Option<bool>,
    /// The authority that Prisma calls `sslcert`.
    is_prisma: bool,
}

fn contradiction() -> Error {
    bad_connection("the URL says by two parameters whether to use TLS, and not the same: leave one")
}

fn set(place: &mut Option<bool>, value: bool) -> Result<()> {
    match place.replace(value) {
        Some(other) if other != value => Err(contradiction()),
        _ => Ok(()),
    }
}

impl SslParameters {
    /// Takes one parameter; `false` where it is none of these. `name` is without case, `-` and `_`; `shown` is how it was written.
    pub fn take(&mut self, ssl: &mut Ssl, name: &str, shown: &str, value: &str) -> Result<bool> {
        match name {
            "sslmode" if value.eq_ignore_ascii_case("no-verify") => {
                set(&mut self.on, true)?;
                set(&mut self.verify, false)?;
            }
            "sslmode" => {
                let mode = SslMode::from_text(value).ok_or_else(|| {
                    bad_connection(format!(
                        "{shown} must be one of {}, no-verify, not {}",
                        SslMode::names(),
                        Quoted(value)
                    ))
                })?;
                if self.mode.replace(mode).is_some_and(|other| other != mode) {
                    return Err(contradiction());
                }
            }
            "ssl" => self.take_ssl(ssl, shown, value)?,
            "sslaccept" => {
                self.is_prisma = true;
                match value {
                    "strict" => set(&mut self.verify, true)?,
                    "accept_invalid_certs" => set(&mut self.verify, false)?,
                    _ => {
                        return Err(bad_connection(format!(
                            "{shown} must be strict or accept_invalid_certs, not {}",
                            Quoted(value)
                        )));
                    }
                }
            }
            "sslrootcert" | "sslca" => ssl.trust(value.to_owned()),
            "sslcert" => ssl.cert = given(value).or(ssl.cert.take()),
            "sslkey" => ssl.key = given(value).map(Secret::new).or(ssl.key.take()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `ssl=true`, or the object that `mysql2` and `pg` take.
    fn take_ssl(&mut self, ssl: &mut Ssl, shown: &str, value: &str) -> Result<()> {
        match value {
            "true" | "1" => set(&mut self.on, true),
            "false" | "0" => set(&mut self.on, false),
            "no-verify" => {
                set(&mut self.on, true)?;
                set(&mut self.verify, false)
            }
            object if object.starts_with('{') => {
                let object = Fields::read(&shown, object)
                    .and_then(|object| {
                        object.only(&["rejectUnauthorized", "verifyIdentity", "ca", "cert", "key", "minVersion"])?;
                        Ok(object)
                    })
                    .map_err(|_| {
                        bad_connection(format!(
                            "{shown} must be true, false or a JSON object of rejectUnauthorized, ca, cert, key and minVersion"
                        ))
                    })?;
                // The driver speaks TLS 1.2 and 1.3 only, so an older one that is allowed makes no difference.
                if !matches!(
                    object.get("minVersion"),
                    None | Some(r#""TLSv1""# | r#""TLSv1.1""# | r#""TLSv1.2""#)
                ) {
                    return Err(bad_connection(format!(
                        "minVersion in {shown} must be TLSv1.2: the driver can't be held to TLS 1.3"
                    )));
                }
                set(&mut self.on, true)?;
                set(&mut self.verify, object.get("rejectUnauthorized") != Some("false"))?;
                ssl.take_pem(&object)
                    .map_err(|_| bad_connection(format!("ca, cert and key in {shown} must be PEM text or the paths of files")))
            }
            other => Err(bad_connection(format!(
                "{shown} must be true or false, or a JSON object with rejectUnauthorized, not {}",
                Quoted(other)
            ))),
        }
    }

    /// Takes what an object of Node's TLS says: whether the certificate is checked, and whether for the host's name.
    pub fn take_node(&mut self, verify: bool, by_name: bool) -> Result<()> {
        if verify && !by_name {
            // Beside a mode that asks for more, that one counts.
            self.mode = self.mode.max(Some(SslMode::VerifyCa));
            return Ok(());
        }
        set(&mut self.on, true)?;
        set(&mut self.verify, verify)
    }

    /// What all of them mean together: never less than one of them asks for.
    pub fn resolve(self, ssl: &mut Ssl) -> Result<()> {
        if self.is_prisma && ssl.key.is_none() && ssl.ca.is_none() {
            ssl.ca = ssl.cert.take();
        }
        let mode = match (self.mode, self.on) {
            (None, Some(true)) if self.verify == Some(false) => Some(SslMode::Require),
            (None, Some(true)) => Some(SslMode::VerifyFull),
            (None, Some(false)) => Some(SslMode::Disable),
            (Some(mode), Some(on)) if on != (mode >= SslMode::Require) => return Err(contradiction()),
            (mode, _) => mode,
        };
        match (self.verify, mode) {
            (Some(true), Some(SslMode::Disable)) if ssl.ca.is_none() => {}
            (Some(true), _) => {
                ssl.said = Some(SslMode::VerifyFull);
                return Ok(());
            }
            (Some(false), Some(SslMode::VerifyCa | SslMode::VerifyFull)) => return Err(contradiction()),
            (Some(false), _) => {
                ssl.no_verify = true;
                // The driver would check against it.
                ssl.ca = None;
            }
            (None, _) => {}
        }
        ssl.said = mode.or(ssl.said);
        Ok(())
    }
}

fn given(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// Whether a certificate or key is given itself; else it is the path of a file.
pub fn is_pem(text: &str) -> bool {
    text.contains("-----BEGIN ")
}
