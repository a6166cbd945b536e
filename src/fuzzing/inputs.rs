//! What is checked of every input.

use serde_json::Value;

use crate::error::{Error, Result};

/// Messages show only the beginning of a long value, so none is longer than this.
const LONGEST_MESSAGE: usize = 4_000;

/// Every message must be of a limited length.
pub fn check_message(error: &Error) {
    assert!(
        error.message.len() <= LONGEST_MESSAGE,
        "a message of {} bytes: {}",
        error.message.len(),
        error.message
    );
}

/// The value, or `None` if the input is refused with a proper message.
pub fn checked<T>(outcome: Result<T>) -> Option<T> {
    outcome.inspect_err(check_message).ok()
}

/// The value that `JSON.parse` returns; `None` for what serde_json refuses and JavaScript does not (lone surrogates, numbers beyond a double, deep
/// nesting).
pub fn value(json: &str) -> Option<Value> {
    serde_json::from_str(json).ok()
}
