//! The maximum length of job, batch and worker ids: one limit for all databases, checked before a database sees the id.

use std::fmt;

use crate::error::{Code, Error, Quoted, Result};
use crate::fields::Fields;

/// Characters in a job or batch id.
pub const ID_LENGTH: usize = 36;
/// Characters in a worker id.
pub const WORKER_ID_LENGTH: usize = 128;

/// Refuses an id that is too long or contains U+0000. `what` names it in the message.
pub fn check_id(what: &dyn fmt::Display, id: &str, longest: usize) -> Result<()> {
    if id.len() > longest && id.chars().count() > longest {
        return Err(Error::new(
            Code::ValueTooLong,
            format!(
                "{what} must have at most {longest} characters, and {} has {}",
                Quoted(id),
                id.chars().count()
            ),
        ));
    }
    if id.contains('\0') {
        return Err(Error::invalid(format!("{what} must not hold the character U+0000: {}", Quoted(id))));
    }
    Ok(())
}

impl Fields<'_, '_> {
    /// The id of a job or a batch.
    pub(super) fn id(&self, key: &str) -> Result<String> {
        let id = self.must(key, self.optional_string(key)?, "a string")?;
        check_id(&format_args!("{}.{key}", self.what), &id, ID_LENGTH)?;
        Ok(id)
    }
}
