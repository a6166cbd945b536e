//! Everything that knows Node-API, and nothing else does.

pub mod boundary;
mod password;
pub mod store;
