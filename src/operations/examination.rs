//! What `batchactions-sqlx doctor` asks, which no method of the store tells.

use super::call::{Access, Answer, Entered};
use crate::backend::Examination;
use crate::retry::Repeat;

impl Entered {
    pub fn examine(self) -> impl Answer<Examination> {
        // Idempotent: it changes nothing.
        self.accessing(Access::Unordered)
            .run(|call| async move { call.write(Repeat::Idempotent, |backend| backend.examine()).await })
    }
}
