//! Whether a connection uses TLS, which certificates it trusts, and how the options, a URL, an instance and the environment combine.

use super::secret::Secret;
use crate::error::{Error, Quoted, Result};
use crate::fields::{Fields, shown};

/// What the connection must guarantee, from weakest to strongest.
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
    /// The mode from a source or the options. [`Ssl::mode`] returns the effective one.
    pub(super) explicit_mode: Option<SslMode>,
    pub ca: Option<String>,
    pub cert: Option<String>,
    pub key: Option<Secret>,
    /// Whether the operating system's authorities are trusted too: `sslrootcert=system`.
    pub system_roots: bool,
    /// The file in `SSL_CERT_FILE`, which replaces the operating system's.
    pub system_file: Option<String>,
    /// `channel_binding=require`: the server must prove during the login that it is the other end of the TLS connection. The driver can't check that,
    /// so the certificate is verified instead.
    pub channel_binding: bool,
    /// `sslmode=no-verify`: no certificate is checked, even if an authority is given.
    pub(super) no_verify: bool,
}

impl Ssl {
    /// The mode of the connection. An authority means that the certificate must be checked, so without a mode it means `verify-full`, and with
    /// `require` `verify-ca` (as with libpq).
    pub fn mode(&self) -> SslMode {
        if self.explicit_mode == Some(SslMode::Disable) {
            return SslMode::Disable;
        }
        if self.channel_binding || self.system_roots {
            return SslMode::VerifyFull;
        }
        match (self.explicit_mode, &self.ca) {
            (None, None) => SslMode::Prefer,
            (None, Some(_)) => SslMode::VerifyFull,
            (Some(SslMode::Require), Some(_)) if !self.no_verify => SslMode::VerifyCa,
            (Some(mode), _) => mode,
        }
    }

    /// Whether a mode is given, or an authority that implies one.
    pub(super) fn is_explicit(&self) -> bool {
        self.explicit_mode.is_some() || self.ca.is_some() || self.system_roots
    }

    /// Applies an authority in the form of libpq's `sslrootcert`: a file, or `system`.
    pub(super) fn trust(&mut self, root: String) {
        match root.as_str() {
            "" => {}
            "system" => self.system_roots = true,
            _ => self.ca = Some(root),
        }
    }

    /// Refuses settings that contradict each other.
    pub(super) fn check(&self) -> std::result::Result<(), &'static str> {
        if self.explicit_mode == Some(SslMode::Prefer) && (self.ca.is_some() || self.system_roots) {
            return Err("ssl.mode \"prefer\" checks no certificate, so it can't go with ssl.ca: say verify-full");
        }
        if self.explicit_mode == Some(SslMode::Disable) && self.channel_binding {
            return Err("channel_binding=require needs TLS, and the settings turn it off (sslmode=disable): leave out one of the two");
        }
        if self.explicit_mode == Some(SslMode::Disable) && self.system_roots {
            return Err("sslrootcert=system needs TLS, and the settings turn it off (sslmode=disable): leave out one of the two");
        }
        match (&self.cert, &self.key) {
            (Some(_), None) => Err("ssl.cert needs ssl.key, the key that belongs to it"),
            (None, Some(_)) => Err("ssl.key needs ssl.cert, the certificate that it belongs to"),
            _ => Ok(()),
        }
    }

    /// Applies the option `ssl`, which overrides the sources.
    pub(super) fn apply_option(&mut self, json: &str) -> Result<()> {
        if !json.starts_with('{') {
            return Err(Error::invalid("options.ssl must be an object: { mode, ca, cert, key }"));
        }
        let ssl = Fields::read(&"options.ssl", json)?;
        ssl.only(&["mode", "ca", "cert", "key"])?;
        ssl.no_nulls()?;
        let mode = ssl.optional_string("mode")?.as_deref().map(mode_option).transpose()?;
        if ssl.get("ca").is_some() {
            self.system_roots = false;
            self.no_verify = false;
            // An authority asks for a check, so a mode without one that comes from a source no longer counts.
            self.explicit_mode = self.explicit_mode.filter(|mode| *mode >= SslMode::Require);
        }
        if mode.is_some() {
            self.explicit_mode = mode;
            self.no_verify = false;
            self.channel_binding = false;
            self.system_roots &= mode != Some(SslMode::Disable);
        }
        self.take_pem(&ssl)?;
        self.check().map_err(|why| Error::invalid(format!("options.{why}")))
    }

    /// Applies `ca`, `cert` and `key` if they are given.
    pub(super) fn take_pem(&mut self, ssl: &Fields<'_, '_>) -> Result<()> {
        self.ca = ssl.optional_string("ca")?.or(self.ca.take());
        self.cert = ssl.optional_string("cert")?.or(self.cert.take());
        // Even a key of the wrong type is not shown: it may be a secret.
        let key = ssl
            .optional_string("key")
            .map_err(|_| Error::invalid(format!("{}.key must be a string", ssl.what)))?;
        self.key = key.map(Secret::new).or(self.key.take());
        Ok(())
    }
}

/// Whether the text itself is a certificate or a key. Otherwise it is a file's path.
pub fn is_pem(text: &str) -> bool {
    text.contains("-----BEGIN ")
}

/// `options.ssl.mode`.
fn mode_option(mode: &str) -> Result<SslMode> {
    SslMode::from_text(mode).ok_or_else(|| {
        Error::invalid(format!(
            "options.ssl.mode must be one of {}, not {}",
            SslMode::names(),
            shown(&Quoted(mode).to_string())
        ))
    })
}
