//! `FenceOptions` of `index.d.ts`: the token of the claim that a call belongs to.

use crate::error::Result;
use crate::fields::Fields;

/// The token in `{ token }`, the optional last argument of the calls that a stale worker must not make.
pub fn token_from_json(json: &str) -> Result<Option<i32>> {
    let fields = Fields::read(&"fence", json)?;
    fields.only(&["token"])?;
    fields.optional_int("token")
}
