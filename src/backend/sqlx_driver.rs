//! The driver for the three databases that sqlx serves. What they share is implemented here; what differs is in each one's `SqlxDatabase`, in its
//! folder.

use std::io::ErrorKind;

use sqlx::database::HasStatementCache;
use sqlx::error::{BoxDynError, DatabaseError};
use sqlx::{Arguments, ConnectOptions, Connection, Database, Executor, IntoArguments};

use super::credentials::Login;
use super::driver::{Access, BoxFuture, Changed, Driver, Failure, Refused, Row, Statement, Unreadable, Value};
use super::errors::Explained;
use super::tls::TlsFailure;
use crate::error::{Quoted, Repeatable};

/// What differs between sqlx's databases.
pub trait SqlxDatabase: Send + Sync + 'static {
    type Database: Database;

    /// Whether rows are read as they arrive, or all at once when the statement is done.
    const STREAMS: bool = true;

    fn options(&self, login: &Login, access: Access) -> <<Self::Database as Database>::Connection as Connection>::Options;

    /// Sets up a new connection: what every session begins with, sent or asked.
    fn set_up<'c>(&'c self, connection: &'c mut <Self::Database as Database>::Connection) -> BoxFuture<'c, sqlx::Result<()>> {
        let _ = connection;
        Box::pin(async { Ok(()) })
    }

    fn can_only_read(&self) -> bool {
        false
    }

    fn prepared_password(&self, _password: &str) -> Option<String> {
        None
    }

    /// The meaning of a server's error. The returned error has no cause yet.
    fn explain(error: &dyn DatabaseError) -> Explained;

    /// Whether a refused connection means that the server has none left.
    fn has_no_connection_left(error: &dyn DatabaseError) -> bool {
        Self::explain(error).error.repeatable == Repeatable::NoConnectionLeft
    }

    /// What the user can do about a refused connection, in addition to the server's text.
    fn hint(_error: &dyn DatabaseError) -> Option<&'static str> {
        None
    }

    fn bind<'q>(arguments: &mut <Self::Database as Database>::Arguments<'q>, value: Value<'q>) -> Result<(), BoxDynError>;

    fn changed(result: &<Self::Database as Database>::QueryResult) -> Changed;
}

/// A driver for one of them.
pub struct SqlxDriver<S>(pub S);

type ConnectionOf<S> = <<S as SqlxDatabase>::Database as Database>::Connection;

impl<S: SqlxDatabase> Driver for SqlxDriver<S>
where
    S::Database: HasStatementCache,
    <S::Database as Database>::Row: Row,
    for<'q> <S::Database as Database>::Arguments<'q>: IntoArguments<'q, S::Database>,
    for<'c> &'c mut ConnectionOf<S>: Executor<'c, Database = S::Database>,
{
    type Connection = ConnectionOf<S>;
    type Row = <S::Database as Database>::Row;

    fn connect<'a>(&'a self, login: &'a Login, access: Access) -> BoxFuture<'a, Result<Self::Connection, Failure>> {
        Box::pin(async move {
            let connecting = async {
                let mut connection = self.0.options(login, access).connect().await?;
                self.0.set_up(&mut connection).await?;
                Ok(connection)
            };
            connecting.await.map_err(failure::<S>)
        })
    }

    fn can_only_read(&self) -> bool {
        self.0.can_only_read()
    }

    fn prepared_password(&self, password: &str) -> Option<String> {
        self.0.prepared_password(password)
    }

    fn ping(connection: &mut Self::Connection) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async { connection.ping().await.map_err(failure::<S>) })
    }

    fn shrink(connection: &mut Self::Connection) {
        connection.shrink_buffers();
    }

    fn close(connection: Self::Connection) -> BoxFuture<'static, ()> {
        Box::pin(async {
            let _ = connection.close().await;
        })
    }

    fn run<'c>(connection: &'c mut Self::Connection, text: &'c str) -> BoxFuture<'c, Result<(), Failure>> {
        Box::pin(async move { connection.execute(text).await.map(drop).map_err(failure::<S>) })
    }

    fn execute<'c>(connection: &'c mut Self::Connection, statement: Statement<'c>) -> BoxFuture<'c, Result<Changed, Failure>> {
        Box::pin(async move {
            let query = query::<S>(statement)?;
            let result = query.execute(connection).await.map_err(failure::<S>)?;
            Ok(S::changed(&result))
        })
    }

    fn fetch<'c>(
        connection: &'c mut Self::Connection,
        statement: Statement<'c>,
        take: &'c mut (dyn FnMut(Self::Row) + Send),
    ) -> BoxFuture<'c, Result<(), Failure>> {
        Box::pin(async move {
            let query = query::<S>(statement)?;
            if S::STREAMS {
                // An empty list, which allocates nothing.
                query.map(take).fetch_all(connection).await.map_err(failure::<S>)?;
            } else {
                query.fetch_all(connection).await.map_err(failure::<S>)?.into_iter().for_each(take);
            }
            Ok(())
        })
    }
}

type Query<'q, S> = sqlx::query::Query<'q, <S as SqlxDatabase>::Database, <<S as SqlxDatabase>::Database as Database>::Arguments<'q>>;

fn query<'q, S: SqlxDatabase>(statement: Statement<'q>) -> Result<Query<'q, S>, Failure>
where
    S::Database: HasStatementCache,
    <S::Database as Database>::Arguments<'q>: IntoArguments<'q, S::Database>,
{
    let mut arguments = <<S::Database as Database>::Arguments<'q> as Default>::default();
    arguments.reserve(statement.values.len(), 0);
    for value in statement.values {
        S::bind(&mut arguments, value).map_err(|error| Failure::Defect(format!("a value could not be bound: {error}")))?;
    }
    Ok(sqlx::query_with(statement.sql.text, arguments).persistent(statement.persistent))
}

pub fn failure<S: SqlxDatabase>(error: sqlx::Error) -> Failure {
    if let Some(failure) = tls_failure(&error) {
        return Failure::Tls {
            failure,
            message: plain(&error),
        };
    }
    if let Some(reason) = impossible(&error) {
        return Failure::Impossible {
            reason,
            message: error.to_string(),
        };
    }
    match &error {
        sqlx::Error::Database(refusal) => Failure::Refused(Box::new(Refused {
            explained: S::explain(&**refusal),
            message: refusal.message().to_owned(),
            code: refusal.code().map(Into::into),
            hint: S::hint(&**refusal),
            no_connection_left: S::has_no_connection_left(&**refusal),
        })),
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => Failure::Lost(plain(&error)),
        other => Failure::Defect(other.to_string()),
    }
}

/// Describes a failed connection in words that help the reader.
fn plain(error: &sqlx::Error) -> String {
    match error {
        // The TLS library's own text links to its documentation, about something that most servers do.
        sqlx::Error::Io(io) if io.kind() == ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        sqlx::Error::Io(io) => io.to_string(),
        other => other.to_string(),
    }
}

fn tls_failure(error: &sqlx::Error) -> Option<TlsFailure> {
    match error {
        sqlx::Error::Io(io) => io.get_ref()?.downcast_ref::<rustls::Error>().cloned().map(TlsFailure::Protocol),
        sqlx::Error::Tls(tls) => Some(match tls.downcast_ref::<rustls::Error>() {
            Some(found) => TlsFailure::Protocol(found.clone()),
            None if tls.is::<rustls::pki_types::InvalidDnsNameError>() => TlsFailure::HostName(tls.to_string()),
            // By then the driver has verified the certificates and the name. One reason remains, and it has no type.
            None => TlsFailure::NotOffered,
        }),
        _ => None,
    }
}

/// A value that sqlx could not decode.
pub fn undecodable(column: usize, error: &sqlx::Error) -> Unreadable {
    let why = match error {
        sqlx::Error::ColumnDecode { source, .. } | sqlx::Error::Decode(source) => source.to_string(),
        other => other.to_string(),
    };
    Unreadable { column, why }
}

/// Why sqlx can't log in to this server with these settings. sqlx has no codes for that, so its texts are compared, which are stable because its
/// version is pinned.
fn impossible(error: &sqlx::Error) -> Option<String> {
    let said = match error {
        sqlx::Error::Protocol(said) => said,
        sqlx::Error::Configuration(wrong) => return Some(format!("error with configuration: {wrong}")),
        _ => return None,
    };
    if said.contains("mysql_cleartext_plugin disabled") {
        return Some(
            "the server asks for the password in clear text (mysql_clear_password, as IAM, PAM and LDAP logins do), which is given over encryption \
             that is demanded only: say ssl.mode \"verify-full\" (ssl-mode=VERIFY_IDENTITY in the URL), or at least \"require\""
                .to_owned(),
        );
    }
    if said.contains("unsupported authentication method") {
        return Some(
            "the server asks for a way to log in that this store lacks (GSSAPI, SSPI): let this user log in with a password (scram-sha-256 in \
             pg_hba.conf) or a certificate"
                .to_owned(),
        );
    }
    let (_, plugin) = said.split_once("unknown authentication plugin: ")?;
    Some(format!(
        "the server asks this user to log in by {}, which this store lacks: alter the user to mysql_native_password (MariaDB) or \
         caching_sha2_password (MySQL), {}",
        Quoted(plugin),
        match plugin {
            "client_ed25519" => "MariaDB: alter user … identified via mysql_native_password using password('…')",
            _ => "or make one for this store",
        }
    ))
}
