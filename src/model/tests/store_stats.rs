//! What `stats` counts.

use crate::model::{StatsOfStatus, StoreStats};

#[test]
fn every_known_status_has_a_count_and_no_other_has_one() {
    assert_eq!(
        StoreStats::of([]).to_json(),
        r#"{"jobs":{"CREATED":0,"PREVIEWING":0,"PREVIEWED":0,"PROCESSING":0,"PAUSED":0,"COMPLETED":0,"ABORTED":0,"FAILED":0},"batches":{"PENDING":0,"PROCESSING":0,"PAUSED":0}}"#
    );
    let of = |status: &str, jobs, pending, oldest_claims_ms| StatsOfStatus {
        status: status.to_owned(),
        jobs,
        pending,
        processing: 1,
        paused: 2,
        oldest_claims_ms,
    };
    let statuses = [
        of("FAILED", 2, 0, [None, None]),
        of("PROCESSING", 3, 4, [Some(1_500), Some(20)]),
        of("QUEUED", 9, 5, [None, Some(1_600)]),
    ];
    assert_eq!(
        StoreStats::of(statuses).to_json(),
        r#"{"jobs":{"CREATED":0,"PREVIEWING":0,"PREVIEWED":0,"PROCESSING":3,"PAUSED":0,"COMPLETED":0,"ABORTED":0,"FAILED":2},"batches":{"PENDING":9,"PROCESSING":3,"PAUSED":6},"oldestClaimMs":1600}"#
    );
    // Where the clock has been set back.
    let early = StoreStats::of([of("PROCESSING", 1, 0, [Some(-5), None])]);
    assert!(early.to_json().ends_with(r#","oldestClaimMs":0}"#));
}
