//! What counts as old for `purge`.

use crate::model::{Cutoffs, PurgeOptions};

const DAY: i64 = 86_400_000;
const NOW: i64 = 1_700_000_000_000;

#[test]
fn what_may_be_in_use_is_at_least_a_day_old() {
    for (older_than_ms, ended_by, abandoned_by) in [
        (0, i64::MAX, NOW - DAY),
        (1, NOW - 1, NOW - DAY),
        (DAY, NOW - DAY, NOW - DAY),
        (7 * DAY, NOW - 7 * DAY, NOW - 7 * DAY),
        (i64::MAX, NOW - i64::MAX, NOW - i64::MAX),
    ] {
        let expected = Cutoffs { ended_by, abandoned_by };
        assert_eq!(Cutoffs::new(NOW, older_than_ms), expected, "{older_than_ms}");
    }
}

#[test]
fn an_age_has_to_be_given() {
    for refused in ["{}", r#"{"olderThanMs":null}"#, r#"{"olderThanMs":-1}"#, r#"{"olderThanMs":1.5}"#] {
        let error = PurgeOptions::from_json(refused).unwrap_err();
        assert!(error.message.contains("options.olderThanMs"), "{refused}: {}", error.message);
    }
}
