//! Everything that knows Node-API, and nothing else does.

mod arguments;
pub mod boundary;
mod password;
mod results;
pub mod store;
