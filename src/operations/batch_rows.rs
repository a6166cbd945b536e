//! Inserts rows for listed batches, or refuses the call with the reason why a batch can't have its row.

use std::collections::HashSet;

use crate::backend::Transaction;
use crate::error::{Code, Error, Quoted, Result};
use crate::model::{BatchRow, ListedBatch};

/// Inserts the missing rows. A batch that has a row keeps it as it is.
pub(super) async fn insert_absent_batches(transaction: &mut dyn Transaction, job_id: &str, listed: &[ListedBatch]) -> Result<()> {
    let by_index = in_lock_order(job_id, listed)?;
    let before = transaction.batch_rows(job_id).await?;
    let known: HashSet<&str> = before.iter().map(|row| &*row.id).collect();
    let absent: Vec<_> = by_index.into_iter().filter(|batch| !known.contains(&*batch.id)).collect();
    if absent.is_empty() {
        return Ok(());
    }
    transaction.insert_batches(job_id, &absent).await?;
    let rows = transaction.batch_rows(job_id).await?;
    let inserted: HashSet<&str> = rows.iter().map(|row| &*row.id).collect();
    match absent.into_iter().find(|batch| !inserted.contains(&*batch.id)) {
        Some(batch) => Err(why_not_inserted(transaction, job_id, batch, &rows).await?),
        None => Ok(()),
    }
}

/// Sorts the batches by index, the order in which their rows are locked. Refuses two batches with the same id or index.
fn in_lock_order<'a>(job_id: &str, listed: &'a [ListedBatch]) -> Result<Vec<&'a ListedBatch>> {
    let mut by_index: Vec<&ListedBatch> = listed.iter().collect();
    by_index.sort_by_key(|batch| batch.index);
    let mut ids = HashSet::with_capacity(by_index.len());
    if let Some(twice) = by_index.iter().find(|batch| !ids.insert(&*batch.id)) {
        return Err(refused(job_id, twice, "its id stands twice in the same call"));
    }
    for pair in by_index.windows(2) {
        if pair[0].index == pair[1].index {
            let why = format!("batch {} of the same call has that index", Quoted(&pair[0].id));
            return Err(refused(job_id, pair[1], &why));
        }
    }
    Ok(by_index)
}

/// Why a batch still has no row after the insert: another row has its id or its index.
async fn why_not_inserted(transaction: &mut dyn Transaction, job_id: &str, batch: &ListedBatch, rows: &[BatchRow]) -> Result<Error> {
    let owner = transaction.batch_owner(&batch.id).await?;
    let why = match (owner, rows.iter().find(|row| row.index == batch.index)) {
        (Some(owner), _) if owner.batch_id == batch.id => format!("its id belongs to job {}", Quoted(&owner.job_id)),
        (Some(owner), _) => format!(
            "this database takes its id for that of batch {}, by the collation of the column: give ids that differ in more than case, accents \
             or spaces at the end",
            Quoted(&owner.batch_id)
        ),
        (None, Some(row)) => format!("batch {} has that index", Quoted(&row.id)),
        // The conflicting row is gone: its job was being deleted.
        (None, None) => {
            return Ok(Error::new(
                Code::Conflict,
                format!("job {} was being deleted while it was stored", Quoted(job_id)),
            ));
        }
    };
    Ok(refused(job_id, batch, &why))
}

fn refused(job_id: &str, batch: &ListedBatch, why: &str) -> Error {
    Error::new(
        Code::Constraint,
        format!(
            "batch {} of job {} with index {} is refused: {why}. Nothing was stored",
            Quoted(&batch.id),
            Quoted(job_id),
            batch.index
        ),
    )
}

/// Rolls back the transaction of a refused call. After other failures, dropping it does that.
pub(super) async fn refuse(transaction: Box<dyn Transaction>, error: Error) -> Result<Error> {
    if error.code == Code::Constraint {
        transaction.rollback().await?;
    }
    Ok(error)
}
