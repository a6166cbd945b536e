//! Which mode of encryption the sources and the options mean together.

use crate::settings::{Settings, SslMode};

#[test]
fn who_gives_an_authority_wants_it_checked() {
    let mode = |url: &str, options: &str| {
        let source = serde_json::json!({ "url": format!("postgres://h/d{url}") }).to_string();
        Settings::from_json(&source, options).unwrap().ssl.mode()
    };
    for (url, options, expected) in [
        ("", "{}", SslMode::Prefer),
        ("", r#"{"ssl":{}}"#, SslMode::Prefer),
        ("", r#"{"ssl":{"ca":"c"}}"#, SslMode::VerifyFull),
        ("?sslrootcert=c", "{}", SslMode::VerifyFull),
        ("?sslmode=require", "{}", SslMode::Require),
        ("?sslmode=require&sslrootcert=c", "{}", SslMode::VerifyCa),
        ("?sslmode=require", r#"{"ssl":{"ca":"c"}}"#, SslMode::VerifyCa),
        (
            "?sslmode=verify-ca&sslrootcert=c",
            r#"{"ssl":{"mode":"verify-full"}}"#,
            SslMode::VerifyFull,
        ),
        ("?sslrootcert=c", r#"{"ssl":{"mode":"disable"}}"#, SslMode::Disable),
    ] {
        assert_eq!(mode(url, options), expected, "{url} {options}");
    }
}
