//! The constructor's arguments. No message may show a password.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::inputs::{check_message, value};
use crate::backend;
use crate::error::Result;
use crate::settings::{Database, Password, Settings};

/// The password in the inputs, long enough not to be in a message by chance.
const PASSWORD: &str = "hunter2hunter2";

/// The input is two lines: a URL, or connection options as an object; then the options of the store, which may be missing.
pub fn connection(input: &str) {
    let (connection, options) = input.split_once('\n').unwrap_or((input, "{}"));
    let is_url = !connection.starts_with('{');
    let source = match value(connection) {
        Some(parts) if !is_url => serde_json::json!({ "parts": parts }),
        _ => serde_json::json!({ "url": connection }),
    };
    let secret = if is_url {
        hides_in_url(connection)
    } else {
        hides_in_json(connection)
    } && !options.contains(PASSWORD);
    let settings = check_settings(Settings::from_json(&source.to_string(), options), secret);
    if let Some(settings) = settings
        && is_url
    {
        check_again(&settings);
    }
}

/// Whether the password stands only where a URL may have one.
pub(super) fn hides_in_url(url: &str) -> bool {
    let is_file = url.split(':').next().is_some_and(|scheme| scheme.eq_ignore_ascii_case("sqlite"));
    let Some((scheme, rest)) = url.split_once("://").filter(|_| !is_file) else {
        return false;
    };
    match (rest.find(':'), rest.rfind('@')) {
        (Some(begin), Some(end)) if begin < end => {
            rest[begin..end].contains(PASSWORD) && ![scheme, &rest[..begin], &rest[end..]].iter().any(|part| part.contains(PASSWORD))
        }
        _ => false,
    }
}

/// Where secrets stand in connection options and in a Sequelize instance.
const SECRETS: [&str; 5] = [
    "/password",
    "/config/password",
    "/options/dialectOptions/ssl/key",
    "/options/replication/write/password",
    "/options/replication/write/dialectOptions/ssl/key",
];

/// Whether the password stands only where secrets stand.
pub(super) fn hides_in_json(json: &str) -> bool {
    let Some(mut value) = value(json) else { return false };
    for place in SECRETS {
        if let Some(secret) = value.pointer_mut(place) {
            *secret = Value::Null;
        }
    }
    if let Some(url) = value.pointer_mut("/options/replication/write")
        && url.as_str().is_some_and(hides_in_url)
    {
        *url = Value::Null;
    }
    !value.to_string().contains(PASSWORD)
}

fn check_settings(settings: Result<Settings>, secret: bool) -> Option<Settings> {
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => {
            check_message(&error);
            assert!(
                !secret || !error.message.contains(PASSWORD),
                "it shows the password: {}",
                error.message
            );
            assert!(error.cause.is_none());
            return None;
        }
    };
    assert!(
        !secret || !settings.place().contains(PASSWORD),
        "it shows the password: {}",
        settings.place()
    );
    assert!((1..=1_000).contains(&settings.pool_max) && settings.pool_min <= settings.pool_max);
    assert!(settings.schema.is_none() || settings.database == Database::Postgres);
    assert!(settings.database == Database::Sqlite || settings.port > 0);
    let texts = [
        Some(&settings.host),
        settings.socket.as_ref(),
        settings.name.as_ref(),
        settings.user.as_ref(),
        settings.file.as_ref(),
        settings.schema.as_ref(),
    ];
    assert!(texts.into_iter().flatten().all(|text| !text.contains('\0')));
    // The drivers parse some of it again, without connecting.
    backend::open(settings.clone());
    Some(settings)
}

/// A URL made from the settings gives the same settings.
fn check_again(settings: &Settings) {
    let simple = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if settings.database == Database::Sqlite || settings.socket.is_some() || !simple(&settings.host) {
        return;
    }
    let scheme = match settings.database {
        Database::Postgres => "postgres",
        _ => "mysql",
    };
    let encoded = |text: Option<&str>| utf8_percent_encode(text.unwrap_or_default(), NON_ALPHANUMERIC).to_string();
    let url = format!(
        "{scheme}://{}:{}@{}:{}/{}",
        encoded(settings.user.as_deref()),
        encoded(settings.password.as_ref().and_then(Password::fixed)),
        settings.host,
        settings.port,
        encoded(settings.name.as_deref()),
    );
    let Ok(again) = Settings::from_json(&serde_json::json!({ "url": url }).to_string(), "{}") else {
        panic!("{url} is refused");
    };
    let parts = |settings: &Settings| {
        let given = |text: Option<&str>| text.unwrap_or_default().to_owned();
        (
            given(settings.user.as_deref()),
            given(settings.password.as_ref().and_then(Password::fixed)),
            settings.host.clone(),
            settings.port,
            given(settings.name.as_deref()),
        )
    };
    assert_eq!(parts(&again), parts(settings), "{url}");
}

/// The input is what `index.js` reads of a Sequelize instance.
pub fn sequelize(input: &str) {
    let Some(settings) = value(input) else { return };
    // `index.js` always passes objects.
    let shaped = settings["config"].is_object() && settings["options"].is_object();
    let source = serde_json::json!({ "sequelize": settings }).to_string();
    check_settings(Settings::from_json(&source, "{}"), shaped && hides_in_json(input));
}
