//! `FenceOptions` of `index.d.ts`: the token of the claim that a call belongs to.

use super::ids::Token;
use crate::error::Result;
use crate::fields::Fields;

/// The token in `{ token }`, the optional last argument of the calls that a stale worker must be kept from making.
pub fn token_from_json(json: &str) -> Result<Option<Token>> {
    let fields = Fields::read(&"fence", json)?;
    fields.only(&["token"])?;
    Ok(fields.optional_int("token")?.map(Token))
}
