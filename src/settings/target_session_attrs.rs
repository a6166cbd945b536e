//! PostgreSQL's `target_session_attrs`: which of several servers behind one name a connection may use.

use super::errors::invalid_connection;
use super::parameter::Parameter;
use crate::error::Result;

/// What the server must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionAttrs {
    /// One that takes writes.
    ReadWrite,
    /// One that is not in recovery.
    Primary,
}

/// The parameter's value. `any` counts as a choice: it overrides the environment.
#[derive(Clone, Copy)]
pub enum Target {
    Any,
    Only(SessionAttrs),
}

impl Target {
    pub fn of(parameter: &Parameter<'_>) -> Result<Self> {
        match parameter.value {
            "any" => Ok(Target::Any),
            "read-write" => Ok(Target::Only(SessionAttrs::ReadWrite)),
            "primary" => Ok(Target::Only(SessionAttrs::Primary)),
            "read-only" | "standby" | "prefer-standby" => Err(invalid_connection(format!(
                "{} asks for a server that takes no writes, and this store writes: say read-write, primary or any",
                parameter.shown
            ))),
            _ => Err(parameter.wrong("any, read-write or primary")),
        }
    }

    pub fn attrs(self) -> Option<SessionAttrs> {
        match self {
            Target::Any => None,
            Target::Only(attrs) => Some(attrs),
        }
    }
}
