//! The settings of each session: time limits, planner settings and the schema. They are sent in the start-up message, or, if a transaction pooler may
//! be in front of the server, at the beginning of each transaction.

use std::time::Duration;

use crate::settings::{Settings, Switch, switches};

/// Stated whatever the default of the server or the user is: a statement after a lock must see everything committed before it.
const BEGIN: &str = "begin isolation level read committed";

/// The longest wait for a lock, as a share of the statement's time limit, so that the statement is retried several times within the limit.
const LOCK_WAIT_SHARE: u32 = 15;

/// `statementCache: 0` says that there may be a transaction pooler. Such a pooler refuses settings in the start-up message, and may route each
/// transaction to another server.
pub fn is_pooled(settings: &Settings) -> bool {
    settings.statement_cache == 0
}

/// The rows that a claim, a slice or a page needs next are first in an index. Without statistics of the job, the planner expects few rows, and would collect
/// and sort all of them for each claim. With statistics of a table that is mostly one job, it expects pending batches everywhere, and would read past all
/// finished ones to find the next. A disabled plan type has such a high estimated cost that, where it can't be avoided, the server would JIT-compile the
/// statement first, which takes 100 ms and more: so `jit` is off too.
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

/// Tells a lock timeout from a statement that takes too long.
fn lock_timeout(statement_timeout: Duration) -> Duration {
    // For the server, 0 means no limit.
    (statement_timeout / LOCK_WAIT_SHARE).max(Duration::from_millis(10))
}

/// How a transaction begins.
pub fn begin_text(settings: &Settings) -> String {
    if !is_pooled(settings) {
        return BEGIN.to_owned();
    }
    let mut text = BEGIN.to_owned();
    for switch in switches(settings.session_options.as_deref().unwrap_or_default()) {
        // A call instead of `set`, which would take a list of schemas for one name.
        if let Switch::Set(name, value) = switch {
            text.push_str(&format!(
                "; select pg_catalog.set_config({}, {}, true)",
                literal(&name),
                literal(&value)
            ));
        }
    }
    for (name, value) in session_settings(settings) {
        // A schema is quoted already.
        let value = if name == "search_path" { value } else { format!("'{value}'") };
        text.push_str(&format!("; set local {name} = {value}"));
    }
    text
}

/// A SQL string literal that is correct whatever `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A quoted SQL identifier.
pub fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A value in the start-up options, where a space ends a value and a backslash escapes the next character.
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
