//! The rules that settings must satisfy, whichever source each of them comes from.

use super::database::Database;
use super::errors::{invalid_connection, several_hosts};
use super::partial::PartialSettings;
use super::password::Password;
use super::session_options::{Switch, switches};
use crate::error::{Error, Result};

pub fn check(database: Database, partial: &PartialSettings) -> Result<()> {
    if database != Database::Sqlite {
        if database == Database::MySql && partial.name.is_none() {
            return Err(invalid_connection(
                "the name of the database is missing: mysql://user:password@host:3306/database",
            ));
        }
        check_texts(partial)?;
        check_host(partial.host.as_deref().unwrap_or_default())?;
        if partial.socket.is_some() && partial.ssl.channel_binding {
            return Err(invalid_connection(
                "channel_binding=require needs TLS, which a connection over a Unix socket does not use: leave it out",
            ));
        }
        check_pooler(partial)?;
        // The options check only themselves, and the other sources may supply the rest.
        partial.ssl.check().map_err(invalid_connection)?;
    }
    if partial.schema.is_some() && database != Database::Postgres {
        return Err(Error::invalid(
            "options.schema is for PostgreSQL only: the other databases have no schemas inside a database",
        ));
    }
    Ok(())
}

/// Refuses U+0000: for a server it ends the text, and the rest would become the next setting.
fn check_texts(partial: &PartialSettings) -> Result<()> {
    let texts = [
        partial.host.as_deref(),
        partial.name.as_deref(),
        partial.user.as_deref(),
        partial.password.as_ref().and_then(Password::fixed),
        partial.socket.as_deref(),
        partial.application_name.as_deref(),
        partial.session_options.as_deref(),
    ];
    if texts.into_iter().flatten().any(|text| text.contains('\0')) {
        return Err(invalid_connection(
            "a host, socket, database, user, password, application_name or options must not hold the character U+0000",
        ));
    }
    Ok(())
}

fn check_host(host: &str) -> Result<()> {
    if host.contains(',') {
        return Err(several_hosts());
    }
    // Messages show the host, and would also show a login before it or a path behind it.
    if host.contains(['@', '/']) || host.contains(char::is_whitespace) {
        return Err(invalid_connection(
            "the host must be a name or an address and nothing else: give user, password, port and database each on their own",
        ));
    }
    Ok(())
}

/// With a pooler, each transaction repeats the settings of the session, which works for `-c name=value` and for no other switch.
fn check_pooler(partial: &PartialSettings) -> Result<()> {
    let has_pooler = partial.statement_cache == Some(0);
    let options = partial.session_options.as_deref().unwrap_or_default();
    let is_refused = |switch: &Switch| matches!(switch, Switch::Other(text) if !text.contains('='));
    if has_pooler && switches(options).iter().any(is_refused) {
        return Err(invalid_connection(
            "options holds other switches than settings (-c name=value), and a pooler in front of the server (statementCache: 0, pgbouncer=true) does not \
             pass them on: leave them out",
        ));
    }
    Ok(())
}
