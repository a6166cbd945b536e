//! The configuration of a job that retries another.

use crate::model::RetryOptions;

fn config(options: &str, config: &str) -> (String, i32) {
    RetryOptions::from_json(options).unwrap().config("source", config).unwrap()
}

#[test]
fn the_configuration_is_the_sources_with_retry_of() {
    for (options, source, expected, size) in [
        ("{}", r#"{"batchSize":5}"#, r#"{"batchSize":5,"retryOf":"source"}"#, 5),
        (
            "{}",
            r#"{"z":[1.50],"batchSize":5,"retryOf":"before"}"#,
            r#"{"z":[1.50],"batchSize":5,"retryOf":"source"}"#,
            5,
        ),
        (
            r#"{"batchSize":7}"#,
            r#"{"batchSize":5,"a":{}}"#,
            r#"{"a":{},"batchSize":7,"retryOf":"source"}"#,
            7,
        ),
        (r#"{"batchSize":7}"#, "{}", r#"{"batchSize":7,"retryOf":"source"}"#, 7),
    ] {
        assert_eq!(config(options, source), (expected.to_owned(), size), "{source}");
    }
}

#[test]
fn a_batch_size_has_to_come_from_somewhere() {
    for source in ["{}", r#"{"batchSize":"5"}"#, r#"{"batchSize":0}"#, r#"{"batchSize":100001}"#] {
        let error = RetryOptions::from_json("{}").unwrap().config("source", source).unwrap_err();
        assert!(error.message.contains("options.batchSize"), "{source}: {}", error.message);
    }
}
