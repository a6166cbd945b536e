//! The JSON copy of the batches in the row of their job.

use super::row;
use crate::model::{BatchIndex, BatchList, following, mirrors};

#[test]
fn the_list_follows_the_rows_and_keeps_everything_else() {
    let json = r#"[{"id":"b0","index":0,"status":"PENDING","records":[],"processedCount":0,"failedCount":0,"x":{"y":1},"workerId":"old"},{"id":"b1","status":"PENDING"}]"#;
    let mut list = BatchList::read("j", json).unwrap();
    assert!(!list.follow(&[]), "no rows, no change");
    let mut claimed = row("b0", 0, "PROCESSING");
    (claimed.worker_id, claimed.claimed_at, claimed.processed) = (Some("w\"".into()), Some(7), 3);
    assert!(list.follow(&[claimed.clone()]));
    assert_eq!(following("j", json, &[claimed.clone()]).unwrap(), Some(list.to_json()));
    assert_eq!(
        following("j", &list.to_json(), &[claimed.clone()]).unwrap(),
        None,
        "nothing changes"
    );
    assert_eq!(
        list.to_json(),
        r#"[{"id":"b0","index":0,"status":"PROCESSING","records":[],"processedCount":3,"failedCount":0,"x":{"y":1}},{"id":"b1","status":"PENDING"}]"#
    );
    assert!(!list.follow(&[claimed]), "nothing is left to change");
    for unreadable in ["{}", "[{}]", "[", "[1]"] {
        assert!(
            BatchList::read("j", unreadable).is_err() && following("j", unreadable, &[]).is_err(),
            "{unreadable}"
        );
    }
}

#[test]
fn the_copy_is_brought_up_to_date_once_in_a_hundred_batches() {
    for batches in [0, 1, 99, 100] {
        assert!((0..100).all(|index| mirrors(BatchIndex(index), batches)), "{batches}");
    }
    for batches in [101, 250, 4_000, 100_000] {
        let due = (0..batches as i32).filter(|index| mirrors(BatchIndex(*index), batches)).count();
        assert!((50..=100).contains(&due), "{due} of {batches}");
    }
}
