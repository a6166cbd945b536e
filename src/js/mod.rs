//! Everything that knows Node-API, and nothing else does.

mod arguments;
pub mod boundary;
mod results;
pub mod store;
