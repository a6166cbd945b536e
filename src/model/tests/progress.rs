//! The arithmetic of progress.

use crate::model::{JobTimes, Progress, RecordCounts};

#[test]
fn progress_adds_up() {
    let job = JobTimes {
        distributed: false,
        total_records: 200,
        started_at: Some(1_000),
        completed_at: None,
        now: 2_000,
    };
    let records = RecordCounts { processed: 40, failed: 10 };
    let progress = Progress::of(job, records, 1, 4);
    assert_eq!(
        (progress.pending_records, progress.percentage, progress.elapsed_ms),
        (150, 25, 1_000)
    );
    assert_eq!(progress.estimated_remaining_ms, Some(3_000));

    let done = JobTimes {
        completed_at: Some(1_500),
        ..job
    };
    assert_eq!(Progress::of(done, records, 1, 4).elapsed_ms, 500);
    assert_eq!(
        Progress::of(JobTimes { now: 0, ..job }, records, 1, 4).elapsed_ms,
        0,
        "a clock that went back"
    );
    let unknown = Progress::of(JobTimes::default(), records, 0, 0);
    assert_eq!(
        (unknown.pending_records, unknown.percentage, unknown.estimated_remaining_ms),
        (0, 0, None)
    );
    assert_eq!(
        Progress::of(job, RecordCounts::default(), 0, 4).estimated_remaining_ms,
        None,
        "nothing done yet"
    );
}
