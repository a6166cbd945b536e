//! The parts of a URL as text.

use percent_encoding::percent_decode_str;

use super::errors::invalid_connection;
use crate::error::Result;

/// The text of a part that may contain percent-encoded bytes; `what` names the part in the message.
pub fn decoded(what: &str, text: &str) -> Result<String> {
    let text = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| invalid_connection(format!("the URL's {what} is not UTF-8")))?;
    if text.contains('\0') {
        return Err(invalid_connection(format!("the URL's {what} holds the character U+0000")));
    }
    Ok(text.into_owned())
}
