//! What `stats` counts.

use crate::model::{StatsLine, StoreStats};

#[test]
fn every_known_status_has_a_count_and_no_other_has_one() {
    let jobs = |status: &str, count| StatsLine::Jobs(status.to_owned(), count);
    let batches = |status: &str, count| StatsLine::Batches(status.to_owned(), count);
    assert_eq!(
        StoreStats::of([]).to_json(),
        r#"{"jobs":{"CREATED":0,"PREVIEWING":0,"PREVIEWED":0,"PROCESSING":0,"PAUSED":0,"COMPLETED":0,"ABORTED":0,"FAILED":0},"batches":{"PENDING":0,"PROCESSING":0,"PAUSED":0}}"#
    );
    let lines = [
        jobs("FAILED", 2),
        jobs("QUEUED", 9),
        batches("PAUSED", 3),
        batches("PENDING", 4),
        batches("COMPLETED", 5),
        StatsLine::OldestClaim(Some(1_500)),
    ];
    assert_eq!(
        StoreStats::of(lines).to_json(),
        r#"{"jobs":{"CREATED":0,"PREVIEWING":0,"PREVIEWED":0,"PROCESSING":0,"PAUSED":0,"COMPLETED":0,"ABORTED":0,"FAILED":2},"batches":{"PENDING":4,"PROCESSING":0,"PAUSED":3},"oldestClaimMs":1500}"#
    );
    // Where the clock has been set back.
    assert!(
        StoreStats::of([StatsLine::OldestClaim(Some(-5))])
            .to_json()
            .ends_with(r#","oldestClaimMs":0}"#)
    );
    assert_eq!(StoreStats::of([StatsLine::OldestClaim(None)]), StoreStats::default());
}
