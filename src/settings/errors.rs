//! Refuses settings with `INVALID_CONNECTION`, without showing anything that may contain a password.

use crate::error::{Code, Error};

pub fn invalid_connection(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidConnection, message)
}

pub fn several_hosts() -> Error {
    invalid_connection(
        "several hosts are given, and this store connects to one: give the one that takes writes, or an address that follows it (a proxy, or the \
         service's own name for the writer)",
    )
}
