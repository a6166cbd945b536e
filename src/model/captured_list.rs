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

/// The most bytes that the state of one batch can have: the longest status and the two longest counts.
const LONGEST_STATE: usize = "PROCESSING".len() + 2 * "-2147483648".len();

/// One batch: its id, and its entry as the column `batches` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CapturedBatch {
    id: String,
    entry: String,
    is_completed: bool,
    /// By how many bytes the entry may grow as the state changes.
    room: usize,
}

/// The room that a state leaves.
fn room(status: &str, processed: i32, failed: i32) -> usize {
    let length = status.len() + processed.to_string().len() + failed.to_string().len();
    LONGEST_STATE.saturating_sub(length)
}

/// How many batches are copied when one of them changes.
const CHUNK: usize = 128;

/// The list of one job. A copy of it stays as it is when a later call changes the list. Copies share the chunks that are equal, because each call keeps one
/// until it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapturedList {
    /// Each full, but the last one.
    chunks: Vec<Arc<Vec<Arc<CapturedBatch>>>>,
}

impl CapturedBatch {
    fn read(place: usize, entry: &str) -> Result<Self> {
        let what = format_args!("job.batches[{place}]").to_string();
        let listed = ListedBatch::from_fields(&Fields::read(&what, entry)?)?;
        Ok(Self {
            is_completed: listed.status == BatchStatus::Completed.as_str(),
            room: room(&listed.status, listed.processed, listed.failed),
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
            room: room(state.status.as_str(), state.processed, state.failed),
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
        list.truncate(length);
        for (place, entry) in places.into_iter().zip(entries) {
            list.set(place, CapturedBatch::read(place, entry.get())?);
        }
        if list.len() == length { Ok(list) } else { Err(defect()) }
    }

    pub fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = &CapturedBatch> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|batch| &**batch)
    }

    fn truncate(&mut self, length: usize) {
        self.chunks.truncate(length.div_ceil(CHUNK));
        if self.len() > length
            && let Some(last) = self.chunks.last_mut()
        {
            Arc::make_mut(last).truncate(length % CHUNK);
        }
    }

    /// Sets the batch at this place, or appends it.
    fn set(&mut self, place: usize, batch: CapturedBatch) {
        let length = self.len();
        if place < length {
            Arc::make_mut(&mut self.chunks[place / CHUNK])[place % CHUNK] = Arc::new(batch);
            return;
        }
        if length.is_multiple_of(CHUNK) {
            self.chunks.push(Arc::new(Vec::with_capacity(CHUNK)));
        }
        if let Some(last) = self.chunks.last_mut() {
            Arc::make_mut(last).push(Arc::new(batch));
        }
    }

    /// Looks from the end, because an import works on its last batches.
    fn find(&self, batch_id: &str) -> Option<(usize, &CapturedBatch)> {
        let from_end = self.iter().rev().position(|batch| batch.id == batch_id)?;
        let place = self.len() - 1 - from_end;
        Some((place, &*self.chunks[place / CHUNK][place % CHUNK]))
    }

    pub fn contains(&self, batch_id: &str) -> bool {
        self.find(batch_id).is_some()
    }

    /// Sets the state of a batch that the list contains.
    pub fn set_state(&mut self, job_id: &str, batch_id: &str, state: BatchState) -> Result<()> {
        if let Some((place, batch)) = self.find(batch_id) {
            let batch = batch.with_state(job_id, state)?;
            self.set(place, batch);
        }
        Ok(())
    }

    /// Changes these batches from COMPLETED to FAILED. A batch with another status keeps it.
    pub fn fail_completed(&mut self, job_id: &str, batch_ids: &HashSet<String>) -> Result<()> {
        let mut failed = Vec::new();
        for (place, batch) in self.iter().enumerate() {
            if batch.is_completed && batch_ids.contains(&batch.id) {
                let entry = ListedBatch::from_fields(&Fields::read(&"a captured batch", &batch.entry)?)?;
                let state = BatchState {
                    status: BatchStatus::Failed,
                    processed: entry.processed,
                    failed: entry.failed,
                };
                failed.push((place, batch.with_state(job_id, state)?));
            }
        }
        for (place, batch) in failed {
            self.set(place, batch);
        }
        Ok(())
    }

    /// The text for the column `batches`.
    pub fn to_json(&self) -> String {
        let bytes: usize = self.iter().map(|batch| batch.entry.len() + 1).sum();
        let mut json = String::with_capacity(bytes + 2);
        json.push('[');
        for (place, batch) in self.iter().enumerate() {
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
        self.iter().map(|batch| batch.room).sum()
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
    fn a_long_list_keeps_its_order_through_changes_of_any_length() {
        let name = |n: usize| format!("batch {n}");
        let text = |length: usize| {
            let entries: Vec<String> = (0..length).map(|n| entry(&name(n), "PENDING")).collect();
            format!("[{}]", entries.join(","))
        };
        let mut all = CapturedList::default();
        for length in [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 2 * CHUNK, CHUNK + 7, CHUNK, 5, 0, 300] {
            let names: Vec<String> = (0..length).map(name).collect();
            let appended: Vec<_> = (all.len()..length).map(|n| (n, (&*names[n], "PENDING"))).collect();
            all = change(&all, length, &appended).unwrap();
            assert_eq!((all.len(), all.to_json()), (length, text(length)));
        }
        for n in [0, CHUNK - 1, CHUNK, 299] {
            assert_eq!(all.find(&name(n)).unwrap().0, n);
        }
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
