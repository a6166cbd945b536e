//! Jobs, batches and records: this module validates what callers and databases supply, and computes with it. It knows neither databases nor Node.
//!
//! - From callers: [`Job`] with its [`ListedBatch`]es, [`Record`], [`BatchState`], the filters [`JobFilter`], [`BatchPage`] and [`RecordPage`], the
//!   options of the calls that steer jobs. Each has a
//!   `from_json` that refuses invalid input and names its place and value.
//! - From databases: [`JobRow`], [`BatchRow`], [`RecordText`], counts.
//! - To callers: [`JobBatches`], [`Reservation`], [`Progress`], [`DistributedStatus`], [`BatchSummary`],
//!   [`StoreStats`], [`RecordSlices`].
//! - [`BatchList`] is the JSON copy of the batches in the job's row; [`ColumnLimits`] describes what a database's columns can't hold.

mod abort_options;
mod batch;
mod batch_list;
mod batch_page;
mod batch_rows;
mod captured_list;
mod column_limits;
mod distributed_status;
mod fence;
mod id_limits;
mod ids;
mod job;
mod job_batches;
mod job_filter;
mod job_json;
mod job_row;
mod json_string;
mod progress;
mod purge;
mod record;
mod record_page;
mod record_slices;
mod record_text;
mod reservation;
mod retry_job;
mod shared_array;
mod status;
mod store_stats;

pub use abort_options::AbortOptions;
pub use batch::{BatchEnd, BatchRow, BatchState, ListedBatch};
pub use batch_list::{BatchList, following, in_json, mirror_step, mirrors};
pub use batch_page::{BatchPage, BatchSummary};
pub use batch_rows::{BatchRowParts, BatchRows, BatchRowsText};
pub use captured_list::CapturedList;
pub use column_limits::{ColumnLimits, Encoding, Repertoire};
pub use distributed_status::{BatchCounts, DistributedStatus};
pub use fence::token_from_json;
pub use id_limits::{ID_LENGTH, WORKER_ID_LENGTH, check_id};
pub use ids::{BatchIndex, BatchKey, MaxClaims, Token, WorkerId};
pub use job::{Job, final_status};
pub use job_batches::JobBatches;
pub use job_filter::JobFilter;
pub use job_row::JobRow;
pub use progress::{JobTimes, Progress, RecordCounts};
pub use purge::{Cutoffs, FinishedJob, FinishedPage, JobTable, NamedJob, PurgeOptions, Purged};
pub use record::Record;
pub use record_page::{PAGE_BYTES, RecordPage};
pub use record_slices::{RecordSlices, UnorderedRecords};
pub use record_text::RecordText;
pub use reservation::Reservation;
pub use retry_job::{RecordCopies, RecordRange, Retried, RetryJob, RetryOptions};
pub use status::{BatchStatus, JobStatus, RecordStatus};
pub use store_stats::{StatsOfStatus, StoreStats};

#[cfg(test)]
mod tests;
