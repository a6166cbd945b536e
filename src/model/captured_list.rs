//! The batches of a job as `saveJobState` captured them: of each call only what changed since the one before crosses from JavaScript, because writing
//! the whole list would take longer than everything else once a job has thousands of batches.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::batch::{BatchState, ListedBatch};
use super::batch_list::BatchList;
use super::status::BatchStatus;
use crate::error::{Error, Result};
use crate::fields::Fields;

/// The most bytes by which the state of one batch can grow: the longest status and the two longest counts, over none at all.
const STATE_ROOM: usize = "PROCESSING".len() + 2 * "-2147483648".len();

/// One batch: its id, and its entry as the column `batches` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CapturedBatch {
    id: String,
    entry: String,
    is_completed: bool,
}

/// The list of one job. A copy of it is a pointer, and stays as it is when a later call changes the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapturedList {
    batches: Arc<Vec<Arc<CapturedBatch>>>,
}

impl CapturedBatch {
    fn read(place: usize, entry: &str) -> Result<Self> {
        let what = format_args!("job.batches[{place}]").to_string();
        let listed = ListedBatch::from_fields(&Fields::read(&what, entry)?)?;
        Ok(Self {
            is_completed: listed.status == BatchStatus::Completed.as_str(),
            id: listed.id,
            entry: entry.to_owned(),
        })
    }

    fn with_state(&self, job_id: &str, state: BatchState) -> Result<Self> {
        let list = format!("[{}]", self.entry);
        let mut list = BatchList::read(job_id, &list)?;
        list.set_state(0, state.status.as_str(), state.processed, state.failed);
        let list = list.to_json();
        Ok(Self {
            id: self.id.clone(),
            entry: list[1..list.len() - 1].to_owned(),
            is_completed: state.status == BatchStatus::Completed,
        })
    }
}

impl CapturedList {
    /// The list after a call that changed it: `json` is `{ length, places, batches }`, where `batches` are the new entries at these places of a list
    /// of that length.
    pub fn changed(&self, json: &str) -> Result<Self> {
        let what = "job.batches";
        let fields = Fields::read(&what, json)?;
        let length = usize::try_from(fields.int("length")?).map_err(|_| defect())?;
        let places: Vec<usize> = serde_json::from_str(fields.get("places").unwrap_or("[]")).map_err(|_| defect())?;
        let entries: Vec<&RawValue> = serde_json::from_str(fields.get("batches").unwrap_or("[]")).map_err(|_| defect())?;
        let mut list = self.clone();
        let batches = Arc::make_mut(&mut list.batches);
        batches.truncate(length);
        for (place, entry) in places.into_iter().zip(entries) {
            let batch = Arc::new(CapturedBatch::read(place, entry.get())?);
            if place < batches.len() {
                batches[place] = batch;
            } else {
                batches.push(batch);
            }
        }
        if batches.len() == length { Ok(list) } else { Err(defect()) }
    }

    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// Looks from the end, because an import works on its last batches.
    fn position(&self, batch_id: &str) -> Option<usize> {
        self.batches.iter().rposition(|batch| batch.id == batch_id)
    }

    pub fn contains(&self, batch_id: &str) -> bool {
        self.position(batch_id).is_some()
    }

    /// Sets the state of a batch that the list contains.
    pub fn set_state(&mut self, job_id: &str, batch_id: &str, state: BatchState) -> Result<()> {
        if let Some(position) = self.position(batch_id) {
            let batch = self.batches[position].with_state(job_id, state)?;
            Arc::make_mut(&mut self.batches)[position] = Arc::new(batch);
        }
        Ok(())
    }

    /// Changes these batches from COMPLETED to FAILED. A batch with another status keeps it.
    pub fn fail_completed(&mut self, job_id: &str, batch_ids: &HashSet<String>) -> Result<()> {
        for position in 0..self.batches.len() {
            let batch = &self.batches[position];
            if batch.is_completed && batch_ids.contains(&batch.id) {
                let entry = ListedBatch::from_fields(&Fields::read(&"a captured batch", &batch.entry)?)?;
                let state = BatchState {
                    status: BatchStatus::Failed,
                    processed: entry.processed,
                    failed: entry.failed,
                };
                let batch = batch.with_state(job_id, state)?;
                Arc::make_mut(&mut self.batches)[position] = Arc::new(batch);
            }
        }
        Ok(())
    }

    /// The text for the column `batches`.
    pub fn to_json(&self) -> String {
        let bytes: usize = self.batches.iter().map(|batch| batch.entry.len() + 1).sum();
        let mut json = String::with_capacity(bytes + 2);
        json.push('[');
        for (place, batch) in self.batches.iter().enumerate() {
            if place > 0 {
                json.push(',');
            }
            json.push_str(&batch.entry);
        }
        json.push(']');
        json
    }

    /// By how many bytes the text may grow as the states of its batches change.
    pub fn room(&self) -> usize {
        self.len() * STATE_ROOM
    }
}

/// `index.js` makes the text of a change.
fn defect() -> Error {
    Error::internal("the change of a job's list of batches does not fit the list")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, status: &str) -> String {
        format!(r#"{{"id":"{id}","index":0,"status":"{status}","records":[],"processedCount":1,"failedCount":2}}"#)
    }

    fn list(batches: &[(&str, &str)]) -> CapturedList {
        change(
            &CapturedList::default(),
            batches.len(),
            &batches.iter().copied().enumerate().collect::<Vec<_>>(),
        )
        .unwrap()
    }

    fn change(list: &CapturedList, length: usize, changes: &[(usize, (&str, &str))]) -> Result<CapturedList> {
        let places: Vec<usize> = changes.iter().map(|(place, _)| *place).collect();
        let entries: Vec<String> = changes.iter().map(|(_, (id, status))| entry(id, status)).collect();
        list.changed(&format!(
            r#"{{"length":{length},"places":{places:?},"batches":[{}]}}"#,
            entries.join(",")
        ))
    }

    #[test]
    fn a_change_replaces_appends_and_shortens_and_leaves_the_list_before_it() {
        let before = list(&[("a", "PENDING"), ("b", "PENDING")]);
        let after = change(&before, 3, &[(1, ("b", "COMPLETED")), (2, ("c", "PENDING"))]).unwrap();
        assert_eq!(
            after.to_json(),
            format!("[{},{},{}]", entry("a", "PENDING"), entry("b", "COMPLETED"), entry("c", "PENDING"))
        );
        assert_eq!(before.to_json(), format!("[{},{}]", entry("a", "PENDING"), entry("b", "PENDING")));
        assert_eq!(change(&after, 1, &[]).unwrap().to_json(), format!("[{}]", entry("a", "PENDING")));
        assert_eq!(CapturedList::default().to_json(), "[]");
    }

    #[test]
    fn a_change_that_does_not_fit_is_refused() {
        let before = list(&[("a", "PENDING")]);
        assert!(change(&before, 3, &[(1, ("b", "PENDING"))]).is_err());
        let error = change(&before, 2, &[(1, ("b", "DONE"))]).unwrap_err();
        assert!(error.message.starts_with("job.batches[1].status"), "{}", error.message);
    }

    #[test]
    fn states_are_set_and_failed_batches_are_not_completed() {
        let mut all = list(&[("a", "PENDING"), ("b", "COMPLETED"), ("c", "COMPLETED"), ("d", "PAUSED")]);
        let state = BatchState {
            status: BatchStatus::Paused,
            processed: 1,
            failed: 2,
        };
        all.set_state("job", "a", state).unwrap();
        all.set_state("job", "unknown", state).unwrap();
        all.fail_completed("job", &HashSet::from(["b".to_owned(), "d".to_owned()])).unwrap();
        let expected = [("a", "PAUSED"), ("b", "FAILED"), ("c", "COMPLETED"), ("d", "PAUSED")].map(|(id, status)| entry(id, status));
        assert_eq!(all.to_json(), format!("[{}]", expected.join(",")));
        assert!(all.contains("a") && !all.contains("unknown"));
    }
}
