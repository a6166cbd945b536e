//! Everything that knows Node-API, and nothing else does.

pub mod boundary;
pub mod store;
