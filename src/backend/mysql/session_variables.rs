//! The session variables that change what a statement does. Each new connection sets them, whatever the server's defaults are.
//!
//! A server that is read-only by default (`transaction_read_only`) stays so, because it may be a demoted primary. Any user may set these variables;
//! those that need a privilege (`low_priority_updates`, `binlog_format`) are left as they are.

use std::sync::OnceLock;

use super::server::Server;
use crate::settings::Settings;

/// A statement that waits for a lock times out and is retried this many times within its time limit.
const LOCK_WAIT_SHARE: u32 = 15;

/// The text that sets them: a single `set` with several assignments, which a proxy can follow. `set transaction` would be a separate statement, so
/// the isolation level is set through its variable.
pub struct SessionVariables {
    /// The variables of every server.
    always: String,
    /// Adds the variables that only this server has. They are looked up once.
    all: OnceLock<String>,
}

impl SessionVariables {
    pub fn new(settings: &Settings) -> Self {
        let lock_wait = (settings.statement_timeout / LOCK_WAIT_SHARE).as_secs().max(1);
        let always = format!(
            "set names utf8mb4 collate utf8mb4_unicode_ci, \
             time_zone = '+00:00', \
             sql_mode = 'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', \
             autocommit = 1, \
             completion_type = 'NO_CHAIN', \
             innodb_lock_wait_timeout = {lock_wait}, \
             lock_wait_timeout = {}, \
             sql_select_limit = 18446744073709551615, \
             max_join_size = 18446744073709551615, \
             sql_big_selects = 1, \
             sql_safe_updates = 0, \
             sql_auto_is_null = 0, \
             group_concat_max_len = 4294967295, \
             max_sort_length = 1024, \
             unique_checks = 1, \
             foreign_key_checks = 1",
            settings.statement_timeout.as_secs().max(1)
        );
        Self {
            always,
            all: OnceLock::new(),
        }
    }

    pub fn text_for_any_server(&self) -> &str {
        &self.always
    }

    /// If the server's version is known already.
    pub fn known_text(&self) -> Option<&str> {
        self.all.get().map(String::as_str)
    }

    pub fn text_for(&self, version: &str) -> &str {
        self.all.get_or_init(|| format!("{}{}", self.always, own_variables(version)))
    }
}

/// The assignments that some servers refuse. MySQL 8 has removed `tx_isolation`, and MariaDB has `transaction_isolation` only since 11.1. Statement
/// time limits of the server are switched off, because the store cancels a statement by its own clock.
fn own_variables(version: &str) -> &'static str {
    let server = Server::parse(version, 0);
    match (server.is_mariadb, server.version) {
        (true, (11, 1..) | (12.., _)) => ", transaction_isolation = 'READ-COMMITTED', max_statement_time = 0, check_constraint_checks = 1",
        (true, _) => ", tx_isolation = 'READ-COMMITTED', max_statement_time = 0, check_constraint_checks = 1",
        (false, (8.., _)) => ", transaction_isolation = 'READ-COMMITTED', max_execution_time = 0",
        // Too old; `Server::check` reports that.
        (false, _) => ", tx_isolation = 'READ-COMMITTED'",
    }
}

#[cfg(test)]
mod tests {
    use super::own_variables;

    #[test]
    fn the_isolation_is_set_by_the_variable_that_the_server_has() {
        for (version, variable) in [
            ("8.0.36", " transaction_isolation"),
            ("9.7.4", " transaction_isolation"),
            ("5.6.51", " tx_isolation"),
            ("10.6.16-MariaDB", " tx_isolation"),
            ("5.5.5-10.11.2-MariaDB-log", " tx_isolation"),
            ("11.0.2-MariaDB", " tx_isolation"),
            ("11.1.2-MariaDB", " transaction_isolation"),
            ("12.0.2-MariaDB", " transaction_isolation"),
        ] {
            let own = own_variables(version);
            assert!(own.contains(&format!("{variable} = 'READ-COMMITTED'")), "{version}: {own}");
        }
    }
}
