//! The types of the fields of options, connection options and a Sequelize instance. An invalid value is refused, and not shown if it may be a secret.

use std::time::Duration;

use super::errors::invalid_connection;
use super::password::Password;
use super::secret::Secret;
use crate::error::{Error, Result};
use crate::fields::Fields;

impl Fields<'_, '_> {
    /// Refuses null, which JavaScript code passes for a value that it did not find.
    pub(super) fn no_nulls(&self) -> Result<()> {
        match self.entries.iter().find(|(_, value)| value.get() == "null") {
            None => Ok(()),
            Some((key, _)) => Err(Error::invalid(format!(
                "{}.{key} is null: leave it out, or give it a value",
                self.what
            ))),
        }
    }

    pub(super) fn count(&self, key: &str, min: u32, max: u32) -> Result<Option<u32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.parse() {
            Ok(count) if (min..=max).contains(&count) => Ok(Some(count)),
            _ => Err(self.wrong(key, value, format!("a whole number from {min} to {max}"))),
        }
    }

    /// A duration of at most a day; a longer one is probably a mistake in the unit.
    pub(super) fn milliseconds(&self, key: &str) -> Result<Option<Duration>> {
        Ok(self.count(key, 1, 86_400_000)?.map(|ms| Duration::from_millis(ms.into())))
    }

    /// One part of a URL. An invalid value may contain a password, so no message shows it.
    pub(super) fn part(&self, key: &str) -> Result<Option<String>> {
        let Ok(part) = self.optional_string(key) else {
            return Err(invalid_connection(format!("{}.{key} must be a string", self.what)));
        };
        if part.as_ref().is_some_and(|part| part.contains("://")) {
            return Err(invalid_connection(format!(
                "{}.{key} is a URL, and must be one part of it: give the URL alone",
                self.what
            )));
        }
        Ok(part)
    }

    /// A secret. No message shows its value.
    fn secret(&self, key: &str) -> Result<Option<Secret>> {
        match self.optional_string(key) {
            Ok(secret) => Ok(secret.map(Secret::new)),
            Err(_) => Err(invalid_connection(format!("{}.{key} must be a string", self.what))),
        }
    }

    /// A password as text. `index.js` removes a password function (see `Settings::from_json`).
    pub(super) fn password(&self, key: &str) -> Result<Option<Password>> {
        match self.secret(key) {
            Ok(Some(secret)) if secret.reveal().contains('\0') => {
                Err(invalid_connection(format!("{}.{key} holds the character U+0000", self.what)))
            }
            Ok(password) => Ok(password.map(Password::Fixed)),
            Err(_) => Err(invalid_connection(format!(
                "{}.{key} must be a string, or a function that gives one",
                self.what
            ))),
        }
    }

    /// A port: a number, or a string of digits, as in a Sequelize instance that was created from a URL.
    pub(super) fn port(&self, key: &str) -> Result<Option<u16>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let given = match value.parse::<f64>() {
            Ok(number) => number.to_string(),
            Err(_) => "what is given".to_owned(),
        };
        match value.trim_matches('"').parse() {
            Ok(port) if port > 0 => Ok(Some(port)),
            _ => Err(invalid_connection(format!(
                "{}.{key} must be a port from 1 to 65535, not {given}",
                self.what
            ))),
        }
    }
}
