//! What each session tells the server: its time limits, the planner's settings and the schema. It goes with the start-up message, or, where a transaction
//! pooler may stand in front of the server, with the beginning of each transaction.

use std::time::Duration;

use crate::settings::{Settings, Switch, switches};

/// Stated whatever the default of the server or the user is: a statement after a lock must see what was committed before it.
const BEGIN: &str = "begin isolation level read committed";

/// A statement waits for a lock for this share of its own time at most, so that it is repeated several times within that time.
const LOCK_WAIT_SHARE: u32 = 15;

/// `statementCache: 0` says that there may be a transaction pooler. Such a pooler refuses settings in the start-up message, and may send each transaction to
/// another server.
pub fn is_pooled(settings: &Settings) -> bool {
    settings.statement_cache == 0
}

/// What a claim, a slice or a page wants next stands first in an index. A planner without statistics of the job takes its rows for few, and would collect and
/// sort all of them for each claim; one with statistics of a table that is mostly one job expects a pending batch anywhere, and would read past all that are
/// done to find it. What is off costs so much in the planner's eyes that where there is no other way it would compile the statement first, for 100 ms and
/// more: so `jit` is off too.
const PLANNER_SETTINGS: [(&str, &str); 4] = [
    ("enable_sort", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_seqscan", "off"),
    ("jit", "off"),
];

/// The statements that set them.
#[cfg(feature = "test-hooks")]
pub fn planner_statements() -> String {
    PLANNER_SETTINGS.map(|(name, value)| format!("set {name} = {value}")).join("; ")
}

pub fn session_settings(settings: &Settings) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("default_transaction_isolation", "read committed".to_owned()),
        ("statement_timeout", settings.statement_timeout.as_millis().to_string()),
        ("lock_timeout", lock_timeout(settings.statement_timeout).as_millis().to_string()),
    ];
    all.extend(PLANNER_SETTINGS.map(|(name, value)| (name, value.to_owned())));
    if let Some(schema) = &settings.schema {
        all.push(("search_path", quoted(schema)));
    }
    all
}

/// Tells a lock that is not granted in time from a statement that takes too long.
fn lock_timeout(statement_timeout: Duration) -> Duration {
    // To the server, 0 is no limit.
    (statement_timeout / LOCK_WAIT_SHARE).max(Duration::from_millis(10))
}

/// How a transaction begins.
pub fn begin_text(settings: &Settings) -> String {
    if !is_pooled(settings) {
        return BEGIN.to_owned();
    }
    let mut text = BEGIN.to_owned();
    for switch in switches(settings.session_options.as_deref().unwrap_or_default()) {
        // As a call and not by `set`, which would take a list of schemas for one name.
        if let Switch::Set(name, value) = switch {
            text.push_str(&format!(
                "; select pg_catalog.set_config({}, {}, true)",
                literal(&name),
                literal(&value)
            ));
        }
    }
    for (name, value) in session_settings(settings) {
        // A schema is quoted already, as the name that it is.
        let value = if name == "search_path" { value } else { format!("'{value}'") };
        text.push_str(&format!("; set local {name} = {value}"));
    }
    text
}

/// Text in SQL, whatever `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// An identifier in SQL.
pub fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A value among the start-up options, where a space ends one and a backslash takes the meaning from what follows.
pub fn start_up_value(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        if character.is_whitespace() || character == '\\' {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}
