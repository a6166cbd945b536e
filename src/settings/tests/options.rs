//! The options of the store.

use std::time::Duration;

use super::error_of;
use crate::error::Code;
use crate::model::MaxClaims;
use crate::settings::Settings;

#[test]
fn options_are_taken_or_refused_by_name() {
    let with = |options: &str| Settings::from_json(r#"{"url":"postgres://h/d"}"#, options);
    let settings = with(
        r#"{"pool":{"max":4,"min":2},"statementTimeoutMs":5,"leaseRenewal":{"everyMs":1,"forMs":2},"maxClaims":3,"schema":"s","tablePrefix":"p"}"#,
    )
    .unwrap();
    assert_eq!(
        (settings.pool_max, settings.pool_min, settings.max_claims),
        (4, 2, Some(MaxClaims(3)))
    );
    assert_eq!(settings.lease_renewal.unwrap().for_at_most, Duration::from_millis(2));
    for (options, named) in [
        (r#"{"x":1}"#, "options.x"),
        (r#"{"pool":null}"#, "options.pool"),
        (r#"{"pool":{"max":0}}"#, "options.pool.max"),
        (r#"{"pool":{"max":2,"min":3}}"#, "options.pool.min"),
        (r#"{"statementTimeoutMs":"5"}"#, "options.statementTimeoutMs"),
        (r#"{"leaseRenewal":{"everyMs":1}}"#, "options.leaseRenewal.forMs"),
        (r#"{"durability":"never"}"#, "options.durability"),
        (r#"{"ssl":{"mode":"maybe"}}"#, "options.ssl.mode"),
        (r#"{"ssl":{"mode":"prefer","ca":"c"}}"#, "options.ssl.mode"),
        (r#"{"ssl":{"cert":"c"}}"#, "options.ssl.cert"),
        (r#"{"password":5}"#, "options.password"),
        (r#"{"password":"p","passwordTtlMs":5}"#, "options.passwordTtlMs"),
    ] {
        let error = error_of(with(options));
        assert!(
            error.code == Code::InvalidArgument && error.message.contains(named),
            "{options}: {}",
            error.message
        );
    }
}
