//! The row of a job, without its list of batches.

/// The row of a job, its JSON column as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    pub id: String,
    pub config: String,
    pub status: String,
    pub total_records: i64,
    pub started_at: Option<i64>,
    pub completed_at: Option<i64>,
    pub distributed: bool,
}
