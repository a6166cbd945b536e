//! The option `durability`.

use crate::error::{Error, Quoted, Result};
use crate::fields::shown;

/// When the save of one record resolves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// After the commit.
    #[default]
    Record,
    /// When it is queued.
    Batch,
}

impl Durability {
    pub(super) fn from_text(text: &str) -> Result<Self> {
        match text {
            "record" => Ok(Durability::Record),
            "batch" => Ok(Durability::Batch),
            other => Err(Error::invalid(format!(
                "options.durability must be \"record\" or \"batch\", not {}",
                shown(&Quoted(other).to_string())
            ))),
        }
    }
}
