//! Passwords that a function gives.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::error_of;
use crate::error::Code;
use crate::settings::{Password, PasswordAnswer, PasswordFunction, Secret, Settings};

#[test]
fn a_function_gives_the_password_where_the_settings_say_so() {
    struct Never;
    impl PasswordFunction for Never {
        fn ask(&self) -> Option<oneshot::Receiver<PasswordAnswer>> {
            None
        }
    }
    let function = || Some(Arc::new(Never) as Arc<dyn PasswordFunction>);
    let settings = |url: &str, asks: bool, options: &str| {
        let source = serde_json::json!({ "url": url, "asksForPassword": asks });
        Settings::from_json(&source.to_string(), options).unwrap()
    };
    let asking = |url: &str| settings(url, true, r#"{"passwordTtlMs":7}"#);

    let with = asking("mysql://u:p@h/d").with_password_function(function()).unwrap();
    assert!(with.password_function.is_some());
    assert_eq!(
        (with.password, with.password_ttl),
        (Some(Password::Asked), Duration::from_millis(7))
    );
    assert_eq!(
        error_of(asking("mysql://u:p@h/d").with_password_function(None)).code,
        Code::InvalidConnection
    );
    let fixed = settings("mysql://u:p@h/d", false, r#"{"password":"q"}"#)
        .with_password_function(function())
        .unwrap();
    assert!(fixed.password_function.is_none());
    assert_eq!(fixed.password, Some(Password::Fixed(Secret::new("q".to_owned()))));
    let sqlite = asking("sqlite::memory:").with_password_function(function()).unwrap();
    assert!(sqlite.password_function.is_none());
}
