//! Interprets the number of changed rows: the steps around the databases' guarded updates that all of them share.

use std::collections::HashMap;

use async_trait::async_trait;

use super::driver::{Read, Row};
use super::{BatchChange, RecordWrite};
use crate::error::Result;
use crate::model::{BatchIndex, BatchKey, Token};

/// The queries behind a verdict, each one statement on the update's session.
#[async_trait]
pub trait Verdicts: Send {
    /// The version of the batch's row, if there is one.
    async fn version(&mut self, key: &BatchKey) -> Result<Option<Token>>;
    /// The index of a batch that is COMPLETED or FAILED, and has the token's version if one is given.
    async fn final_batch(&mut self, key: &BatchKey, token: Option<Token>) -> Result<Option<BatchIndex>>;
}

/// The verdict on setting a state. `changed` is the index of the row that the update changed.
pub async fn state_set(
    session: &mut impl Verdicts,
    changed: Option<BatchIndex>,
    key: &BatchKey,
    token: Option<Token>,
    keep_final: bool,
) -> Result<BatchChange> {
    let done = match changed {
        // A batch that was final already, and so was left as it is, counts as done.
        None if keep_final => session.final_batch(key, token).await?,
        changed => changed,
    };
    Ok(match (done, token) {
        (Some(index), _) => BatchChange::Done(index),
        (None, Some(_)) => BatchChange::LeaseLost,
        (None, None) => BatchChange::NotFound,
    })
}

/// The verdict on a change that only the holder may make: a release or a renewal. If no row changed, the version tells a lost lease from a batch that
/// is not held.
pub async fn held(session: &mut impl Verdicts, changed: Option<BatchIndex>, key: &BatchKey, token: Option<Token>) -> Result<BatchChange> {
    match (changed, token) {
        (Some(index), _) => Ok(BatchChange::Done(index)),
        (None, Some(token)) if session.version(key).await? != Some(token) => Ok(BatchChange::LeaseLost),
        _ => Ok(BatchChange::NotFound),
    }
}

/// The versions of batches that were locked for records, by batch id, with the job's id as stored.
#[derive(Default)]
pub struct Leases {
    by_batch: HashMap<String, (String, Token)>,
    /// Results for batches that are not in `by_batch` under exactly the given id.
    asked: HashMap<(String, String, Token), bool>,
}

impl Leases {
    /// A row of the locking read: id, jobId, version
    pub fn add(&mut self, row: &impl Row) -> Read<()> {
        let lease = (row.text(1)?.to_owned(), Token(row.number(2)?));
        self.by_batch.insert(row.text(0)?.to_owned(), lease);
        Ok(())
    }

    /// Whether the batch of each record still has the record's token; a record without a token needs none. A batch that was not locked under exactly
    /// this id is looked up, because the database may consider ids equal that are spelled differently.
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

/// The records that `held` marks as writable.
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
