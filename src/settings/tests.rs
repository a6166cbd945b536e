//! What the sources and the options become: tables of inputs and the settings, or the refusals, that come of them.

use super::Settings;
use crate::error::{Error, Result};

mod environment;
mod options;
mod password;
mod refused;
mod sequelize;
mod shown;
mod tls;
mod urls;

fn url(url: &str) -> Result<Settings> {
    Settings::from_json(&serde_json::json!({ "url": url }).to_string(), "{}")
}

fn error_of(result: Result<Settings>) -> Error {
    match result {
        Ok(_) => panic!("should have been refused"),
        Err(error) => error,
    }
}
