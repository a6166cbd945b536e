//! PostgreSQL's `target_session_attrs`: at which of several servers behind one name a connection may end.

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

/// The parameter as given. `any` is a choice too: it overrules what the environment says.
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
