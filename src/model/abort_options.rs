//! How `abortJob` ends a job.

use crate::error::Result;
use crate::fields::Fields;

/// The options of `abortJob`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AbortOptions {
    /// Takes the claimed batches from their workers.
    pub now: bool,
    /// Also ends a job that is not distributed.
    pub force: bool,
}

impl AbortOptions {
    pub fn from_json(json: &str) -> Result<Self> {
        let fields = Fields::read(&"options", json)?;
        fields.only(&["now", "force"])?;
        Ok(Self {
            now: fields.optional_bool("now")?.unwrap_or_default(),
            force: fields.optional_bool("force")?.unwrap_or_default(),
        })
    }
}
