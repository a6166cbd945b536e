//! TLS parameters of a URL, of `dialectOptions` or of the environment. Several of them together may determine how TLS is used, so they take effect
//! when all have been read.

use super::errors::invalid_connection;
use super::parameter::Parameter;
use super::secret::Secret;
use super::tls::{Ssl, SslMode};
use crate::error::{Error, Result};
use crate::fields::Fields;

/// The parameters so far.
#[derive(Default)]
pub struct SslParameters {
    mode: Option<SslMode>,
    /// `ssl=true` or `ssl=false`.
    on: Option<bool>,
    /// Whether the certificate is checked.
    verify: Option<bool>,
    /// Whether `sslaccept` is given, which identifies Prisma's URLs: their `sslcert` is the authority.
    is_prisma: bool,
}

fn contradiction() -> Error {
    invalid_connection("two parameters contradict each other about TLS: leave one of them out")
}

fn set(answer: &mut Option<bool>, value: bool) -> Result<()> {
    match answer.replace(value) {
        Some(other) if other != value => Err(contradiction()),
        _ => Ok(()),
    }
}

impl SslParameters {
    /// Applies one parameter; `false` if it is not about TLS.
    pub fn take(&mut self, ssl: &mut Ssl, parameter: &Parameter<'_>) -> Result<bool> {
        let value = parameter.value;
        match &*parameter.name {
            "sslmode" if value.eq_ignore_ascii_case("no-verify") => {
                set(&mut self.on, true)?;
                set(&mut self.verify, false)?;
            }
            "sslmode" => {
                let mode = mode(parameter)?;
                if self.mode.replace(mode).is_some_and(|other| other != mode) {
                    return Err(contradiction());
                }
            }
            "ssl" => self.take_ssl(ssl, parameter)?,
            "sslaccept" => {
                self.is_prisma = true;
                set(&mut self.verify, is_strict(parameter)?)?;
            }
            "sslrootcert" | "sslca" => ssl.trust(value.to_owned()),
            "sslcert" => ssl.cert = given(value).or(ssl.cert.take()),
            "sslkey" => ssl.key = given(value).map(Secret::new).or(ssl.key.take()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `ssl=true`, or the object that `mysql2` and `pg` accept.
    fn take_ssl(&mut self, ssl: &mut Ssl, parameter: &Parameter<'_>) -> Result<()> {
        match parameter.value {
            "true" | "1" => set(&mut self.on, true),
            "false" | "0" => set(&mut self.on, false),
            "no-verify" => {
                set(&mut self.on, true)?;
                set(&mut self.verify, false)
            }
            object if object.starts_with('{') => self.take_object(ssl, &parameter.shown, object),
            _ => Err(parameter.wrong("true or false, or a JSON object with rejectUnauthorized")),
        }
    }

    fn take_object(&mut self, ssl: &mut Ssl, shown: &str, json: &str) -> Result<()> {
        // The object may contain a key, so no message shows it.
        let unreadable = |_| {
            invalid_connection(format!(
                "{shown} must be true, false or a JSON object of rejectUnauthorized, ca, cert, key and minVersion"
            ))
        };
        let object = Fields::read(&shown, json).map_err(unreadable)?;
        object
            .only(&["rejectUnauthorized", "verifyIdentity", "ca", "cert", "key", "minVersion"])
            .map_err(unreadable)?;
        // The driver speaks TLS 1.2 and 1.3 only, so allowing an older version makes no difference.
        let min_version = object.get("minVersion");
        if !matches!(min_version, None | Some(r#""TLSv1""# | r#""TLSv1.1""# | r#""TLSv1.2""#)) {
            return Err(invalid_connection(format!(
                "minVersion in {shown} must be TLSv1.2: the driver can't be limited to TLS 1.3"
            )));
        }
        set(&mut self.on, true)?;
        set(&mut self.verify, object.get("rejectUnauthorized") != Some("false"))?;
        ssl.take_pem(&object)
            .map_err(|_| invalid_connection(format!("ca, cert and key in {shown} must be PEM text or the paths of files")))
    }

    /// Applies Node's TLS options: whether the certificate is verified, and whether it must match the host's name.
    pub fn take_node(&mut self, verify: bool, by_name: bool) -> Result<()> {
        if verify && !by_name {
            // A parameter may give a stronger mode, which then counts.
            self.mode = self.mode.max(Some(SslMode::VerifyCa));
            return Ok(());
        }
        set(&mut self.on, true)?;
        set(&mut self.verify, verify)
    }

    /// The mode that `sslmode` and `ssl` name.
    fn named_mode(&self) -> Result<Option<SslMode>> {
        match (self.mode, self.on) {
            (None, Some(true)) if self.verify == Some(false) => Ok(Some(SslMode::Require)),
            (None, Some(true)) => Ok(Some(SslMode::VerifyFull)),
            (None, Some(false)) => Ok(Some(SslMode::Disable)),
            (Some(mode), Some(on)) if on != (mode >= SslMode::Require) => Err(contradiction()),
            (mode, _) => Ok(mode),
        }
    }

    /// Sets the combined result of all parameters, which is never weaker than any of them asks for.
    pub fn resolve(self, ssl: &mut Ssl) -> Result<()> {
        if self.is_prisma && ssl.key.is_none() && ssl.ca.is_none() {
            ssl.ca = ssl.cert.take();
        }
        let mode = self.named_mode()?;
        match (self.verify, mode) {
            (Some(true), Some(SslMode::Disable)) if ssl.ca.is_none() => {}
            (Some(true), _) => {
                ssl.explicit_mode = Some(SslMode::VerifyFull);
                return Ok(());
            }
            (Some(false), Some(SslMode::VerifyCa | SslMode::VerifyFull)) => return Err(contradiction()),
            (Some(false), _) => {
                ssl.no_verify = true;
                // The driver would verify the certificate against the authority.
                ssl.ca = None;
            }
            (None, _) => {}
        }
        ssl.explicit_mode = mode.or(ssl.explicit_mode);
        Ok(())
    }
}

fn given(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn mode(parameter: &Parameter<'_>) -> Result<SslMode> {
    SslMode::from_text(parameter.value).ok_or_else(|| parameter.wrong(&format!("one of {}, no-verify", SslMode::names())))
}

/// Prisma's `sslaccept`.
fn is_strict(parameter: &Parameter<'_>) -> Result<bool> {
    match parameter.value {
        "strict" => Ok(true),
        "accept_invalid_certs" => Ok(false),
        _ => Err(parameter.wrong("strict or accept_invalid_certs")),
    }
}
