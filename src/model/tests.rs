mod batch_list;
mod column_limits;
mod ids;
mod job;
mod job_batches;
mod options;
mod progress;
mod purge;
mod record;
mod record_slices;
mod retry_job;
mod store_stats;

use std::fmt;

use super::BatchRow;
use crate::error::{Code, Result};

fn refused(result: Result<impl fmt::Debug>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error.code, Code::InvalidArgument | Code::ValueTooLong), "{error:?}");
    error.message
}

fn row(id: &str, index: i32, status: &str) -> BatchRow {
    BatchRow {
        id: id.into(),
        index,
        status: status.into(),
        worker_id: None,
        claimed_at: None,
        processed: 0,
        failed: 0,
    }
}
