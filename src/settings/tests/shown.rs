//! Settings as one line, so that a table can hold them: what is as usual is left out.

use crate::error::{Code, Error};
use crate::settings::{Database, Password, SessionAttrs, Settings};

pub fn shown(settings: &Settings) -> String {
    if settings.database == Database::Sqlite {
        let file = settings.file.as_deref().unwrap_or("memory");
        return format!(
            "{file}{}{}",
            if settings.must_exist { " must exist" } else { "" },
            ignored(settings)
        );
    }
    let kind = if settings.database == Database::Postgres { "pg" } else { "mysql" };
    let password = match &settings.password {
        Some(Password::Fixed(secret)) => format!(":{}", secret.reveal()),
        Some(Password::InFile(_)) => ":(file)".to_owned(),
        Some(Password::Asked) => ":(function)".to_owned(),
        None => String::new(),
    };
    let server = match &settings.socket {
        Some(socket) => format!("{socket}#{}", settings.port),
        None => format!("{}:{}", settings.host, settings.port),
    };
    let mut line = format!(
        "{kind} {}{password}@{server}/{} {:?}",
        settings.user.as_deref().unwrap_or(""),
        settings.name.as_deref().unwrap_or(""),
        settings.ssl.mode()
    );
    let mut add = |text: String| {
        line.push(' ');
        line.push_str(&text);
    };
    let ssl = &settings.ssl;
    if ssl.system_roots {
        add("system".to_owned());
    }
    for (name, value) in [
        ("ca", &ssl.ca),
        ("cert", &ssl.cert),
        ("schema", &settings.schema),
        ("app", &settings.application_name),
        ("options", &settings.session_options),
    ] {
        if let Some(value) = value {
            add(format!("{name}={value}"));
        }
    }
    if let Some(target) = settings.target {
        add(match target {
            SessionAttrs::ReadWrite => "read-write".to_owned(),
            SessionAttrs::Primary => "primary".to_owned(),
        });
    }
    for (name, value, usual) in [
        ("pool", u64::from(settings.pool_max), 10),
        ("wait", settings.acquire_timeout.as_secs(), 30),
        ("connect", settings.connect_timeout.as_secs(), 15),
        ("statement", settings.statement_timeout.as_secs(), 30),
        ("cache", settings.statement_cache as u64, 100),
    ] {
        if value != usual {
            add(format!("{name}={value}"));
        }
    }
    line + &ignored(settings)
}

fn ignored(settings: &Settings) -> String {
    match settings.ignored.as_slice() {
        [] => String::new(),
        names => format!(" ignored={}", names.join(",")),
    }
}

/// What a URL, an instance or parts become in an environment, or the words of the refusal.
pub fn outcome(source: serde_json::Value, environment: &[(&str, &str)], options: &str) -> String {
    let mut source = source;
    source["environment"] = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), serde_json::Value::from(*value)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    match Settings::from_json(&source.to_string(), options) {
        Ok(settings) => shown(&settings),
        Err(Error { code, message, .. }) => {
            let code = match code {
                Code::InvalidConnection => "refused",
                other => other.as_str(),
            };
            format!("{code}: {message}")
        }
    }
}

pub fn of_url(url: &str, environment: &[(&str, &str)]) -> String {
    outcome(serde_json::json!({ "url": url }), environment, "{}")
}
