//! One parameter of a URL, of `dialectOptions` or of the environment, and the types of values that parameters have.

use std::net::IpAddr;
use std::time::Duration;

use super::errors::invalid_connection;
use crate::error::{Error, Quoted, Result};

/// The longest duration that an option accepts. It represents "no limit", which other clients write as 0.
const NO_LIMIT: Duration = Duration::from_secs(86_400);

pub struct Parameter<'a> {
    /// In lower case without `-` and `_`, because tools spell the same parameter in several ways.
    pub name: String,
    /// Its name in messages: where it is given, and its spelling there.
    pub shown: String,
    pub value: &'a str,
}

impl<'a> Parameter<'a> {
    pub fn new(name: &str, shown: String, value: &'a str) -> Self {
        Self {
            name: name.to_ascii_lowercase().replace(['-', '_'], ""),
            shown,
            value,
        }
    }

    /// The error that the value is invalid.
    pub fn wrong(&self, expected: &str) -> Error {
        invalid_connection(format!("{} must be {expected}, not {}", self.shown, Quoted(self.value)))
    }

    /// libpq and Prisma count whole seconds. 0 means no limit; for libpq, so does a negative number.
    pub fn seconds(&self) -> Result<Duration> {
        match self.value.trim().parse::<i64>() {
            Ok(..=0) => Ok(NO_LIMIT),
            Ok(seconds) => Ok(Duration::from_secs(seconds.unsigned_abs()).min(NO_LIMIT)),
            Err(_) => Err(self.wrong("a whole number of seconds")),
        }
    }

    pub fn milliseconds(&self) -> Result<Duration> {
        match self.value.trim().parse::<u64>() {
            Ok(0) => Ok(NO_LIMIT),
            Ok(count) => Ok(Duration::from_millis(count).min(NO_LIMIT)),
            Err(_) => Err(self.wrong("a whole number of milliseconds")),
        }
    }

    pub fn port(&self) -> Result<u16> {
        match self.value.trim().parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(self.wrong("a port from 1 to 65535")),
        }
    }

    pub fn address(&self) -> Result<String> {
        match self.value.parse::<IpAddr>() {
            Ok(_) => Ok(self.value.to_owned()),
            Err(_) => Err(self.wrong("an IP address (a name goes into host)")),
        }
    }

    /// Any number from 1; numbers above the pool's limit count as the limit.
    pub fn connections(&self) -> Result<u32> {
        match self.value.parse::<u32>() {
            Ok(limit) if limit > 0 => Ok(limit.min(1_000)),
            _ => Err(self.wrong("a number of connections, at least 1")),
        }
    }

    pub fn boolean(&self) -> Result<bool> {
        match self.value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(self.wrong("true or false")),
        }
    }
}
