//! What the number of changed rows means: the steps around the databases' guarded updates that are the same for all of them.

use std::collections::HashMap;

use async_trait::async_trait;

use super::{BatchChange, RecordWrite};
use crate::error::Result;
use crate::model::{BatchIndex, BatchKey, Token};

/// The questions that a verdict asks, each one statement on the session of the update.
#[async_trait]
pub trait Verdicts: Send {
    /// The version of the batch's row, where it has one.
    async fn version(&mut self, key: &BatchKey) -> Result<Option<Token>>;
    /// The index of a batch that is COMPLETED or FAILED, with the token's version where one is given.
    async fn final_batch(&mut self, key: &BatchKey, token: Option<Token>) -> Result<Option<BatchIndex>>;
}

/// The verdict on a state that was set where `changed` is the index of the row that the update changed.
pub async fn state_set(
    session: &mut impl Verdicts,
    changed: Option<BatchIndex>,
    key: &BatchKey,
    token: Option<Token>,
    keep_final: bool,
) -> Result<BatchChange> {
    let done = match changed {
        // A batch that is final already, which the update left as it is, counts as done.
        None if keep_final => session.final_batch(key, token).await?,
        changed => changed,
    };
    Ok(match (done, token) {
        (Some(index), _) => BatchChange::Done(index),
        (None, Some(_)) => BatchChange::LeaseLost,
        (None, None) => BatchChange::NotFound,
    })
}

/// The verdict on a change that is the holder's alone: a release or a renewal. Where it changed nothing, the version tells a lost lease from a batch that is
/// not held.
pub async fn held(session: &mut impl Verdicts, changed: Option<BatchIndex>, key: &BatchKey, token: Option<Token>) -> Result<BatchChange> {
    match (changed, token) {
        (Some(index), _) => Ok(BatchChange::Done(index)),
        (None, Some(token)) if session.version(key).await? != Some(token) => Ok(BatchChange::LeaseLost),
        _ => Ok(BatchChange::NotFound),
    }
}

/// The versions of batches that were locked for records: by id, the job as it is stored and the version.
#[derive(Default)]
pub struct Leases {
    by_batch: HashMap<String, (String, Token)>,
    /// Answers about batches that are not in `by_batch` under the very id that was given.
    asked: HashMap<(String, String, Token), bool>,
}

impl Leases {
    pub fn add(&mut self, batch_id: String, job_id: String, version: Token) {
        self.by_batch.insert(batch_id, (job_id, version));
    }

    /// Whether the batch of each record still has the record's token; a record without a token needs none. A batch that was not locked under this very id is
    /// asked for, because ids that are written in another way may be the same to the database.
    pub async fn held(&mut self, session: &mut impl Verdicts, records: &[RecordWrite]) -> Result<Vec<bool>> {
        let mut held = Vec::with_capacity(records.len());
        for write in records {
            held.push(match write.token {
                None => true,
                Some(token) => self.holds(session, write, token).await?,
            });
        }
        Ok(held)
    }

    async fn holds(&mut self, session: &mut impl Verdicts, write: &RecordWrite, token: Token) -> Result<bool> {
        if let Some((_, version)) = self.by_batch.get(&write.batch_id).filter(|(job_id, _)| *job_id == write.job_id) {
            return Ok(*version == token);
        }
        let asked = (write.job_id.clone(), write.batch_id.clone(), token);
        if let Some(holds) = self.asked.get(&asked) {
            return Ok(*holds);
        }
        let key = BatchKey::new(&*write.job_id, &*write.batch_id);
        let holds = session.version(&key).await? == Some(token);
        self.asked.insert(asked, holds);
        Ok(holds)
    }
}

/// The records of which `held` says that they are to be written.
pub fn kept<'r>(records: &'r [RecordWrite], held: &[bool]) -> Vec<&'r RecordWrite> {
    let held = records.iter().zip(held).filter(|(_, held)| **held);
    held.map(|(write, _)| write).collect()
}

/// The batch and the token of records that all belong to one claim.
pub fn one_claim(records: &[RecordWrite]) -> Option<(BatchKey, Token)> {
    let [first, rest @ ..] = records else { return None };
    let token = first.token?;
    let same = |write: &RecordWrite| (write.token, &write.batch_id, &write.job_id) == (first.token, &first.batch_id, &first.job_id);
    rest.iter()
        .all(same)
        .then(|| (BatchKey::new(&*first.job_id, &*first.batch_id), token))
}
