//! The binding to JavaScript. It is the only module that uses Node-API.

mod arguments;
pub mod boundary;
mod password;
mod results;
pub mod store;
mod warnings;
