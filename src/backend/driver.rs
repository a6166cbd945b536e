//! The interface to a database driver: connections, statements with values, and rows. The pool, the sessions, the credentials and the schema depend
//! on this trait alone and name no driver's types, so another driver needs an implementation of this trait and no change above it.
//!
//! `sqlx_driver.rs` implements it once for the three databases that sqlx serves; `scripted/driver.rs` implements it for tests, by replaying answers
//! and failures.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;

use super::credentials::Login;
use super::errors::Explained;
use super::tls::TlsFailure;
use crate::model::{BatchIndex, MaxClaims, Token, WorkerId};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A driver, with the settings that it needs to connect to one database.
pub trait Driver: Send + Sync + 'static {
    type Connection: Send + 'static;
    type Row: Row + 'static;

    /// Opens a connection and sets it up for the store. The pool bounds how long this takes.
    fn connect<'a>(&'a self, login: &'a Login, access: Access) -> BoxFuture<'a, Result<Self::Connection, Failure>>;

    /// Whether `connect` can open a read-only connection when one that writes is refused.
    fn can_only_read(&self) -> bool {
        false
    }

    /// The password as the database's own clients send it, if that differs from the password as given.
    fn prepared_password(&self, _password: &str) -> Option<String> {
        None
    }

    /// Checks that the server still answers.
    fn ping(connection: &mut Self::Connection) -> BoxFuture<'_, Result<(), Failure>>;

    /// Frees what a large statement or answer has left spare in the connection's buffers.
    fn shrink(_connection: &mut Self::Connection) {}

    /// Tells the server that the connection ends. The socket closes even if the message does not arrive.
    fn close(connection: Self::Connection) -> BoxFuture<'static, ()>;

    /// Runs text without values, unprepared. It may contain several statements.
    fn run<'c>(connection: &'c mut Self::Connection, text: &'c str) -> BoxFuture<'c, Result<(), Failure>>;

    /// Runs a statement that returns no rows.
    fn execute<'c>(connection: &'c mut Self::Connection, statement: Statement<'c>) -> BoxFuture<'c, Result<Changed, Failure>>;

    /// Runs a statement to its end and passes each row to `take`.
    fn fetch<'c>(
        connection: &'c mut Self::Connection,
        statement: Statement<'c>,
        take: &'c mut (dyn FnMut(Self::Row) + Send),
    ) -> BoxFuture<'c, Result<(), Failure>>;
}

/// What a new connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadAndWrite,
    ReadOnly,
}

/// The text of a statement, and its name in tests and logs.
#[derive(Clone, Copy, Debug)]
pub struct Sql<'s> {
    pub name: &'static str,
    pub text: &'s str,
}

pub const fn sql<'s>(name: &'static str, text: &'s str) -> Sql<'s> {
    Sql { name, text }
}

/// A statement as a driver runs it.
#[derive(Debug)]
pub struct Statement<'s> {
    pub sql: Sql<'s>,
    pub values: Vec<Value<'s>>,
    /// Whether the server keeps it prepared.
    pub persistent: bool,
}

/// The value of one statement parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'v> {
    Text(Cow<'v, str>),
    OptionalText(Option<Cow<'v, str>>),
    /// 32 bits.
    Int(Option<i32>),
    /// 64 bits.
    BigInt(Option<i64>),
    Real(f64),
    Bool(bool),
    Bytes(Cow<'v, [u8]>),
    /// Only for databases that have arrays; the other drivers refuse it.
    Array(Array<'v>),
}

/// A column of values, for one parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Array<'v> {
    Texts(Vec<Cow<'v, str>>),
    OptionalTexts(Vec<Option<Cow<'v, str>>>),
    Ints(Vec<i32>),
    OptionalBigInts(Vec<Option<i64>>),
}

macro_rules! value_from {
    ($($type:ty: $name:pat => $value:expr;)*) => {
        $(impl<'v> From<$type> for Value<'v> {
            fn from($name: $type) -> Self {
                $value
            }
        })*
    };
}

value_from! {
    &'v str: text => Value::Text(Cow::Borrowed(text));
    &'v String: text => Value::Text(Cow::Borrowed(text));
    String: text => Value::Text(Cow::Owned(text));
    Cow<'v, str>: text => Value::Text(text);
    Option<&'v str>: text => Value::OptionalText(text.map(Cow::Borrowed));
    &'v WorkerId: worker => Value::Text(Cow::Borrowed(&worker.0));
    i32: number => Value::Int(Some(number));
    Option<i32>: number => Value::Int(number);
    i64: number => Value::BigInt(Some(number));
    Option<i64>: number => Value::BigInt(number);
    f64: number => Value::Real(number);
    bool: flag => Value::Bool(flag);
    &'v [u8]: bytes => Value::Bytes(Cow::Borrowed(bytes));
    Token: token => Value::Int(Some(token.0));
    Option<Token>: token => Value::Int(token.map(|token| token.0));
    BatchIndex: index => Value::Int(Some(index.0));
    Option<MaxClaims>: most => Value::Int(most.map(|most| most.0));
    Vec<Cow<'v, str>>: texts => Value::Array(Array::Texts(texts));
    Vec<&'v str>: texts => Value::Array(Array::Texts(texts.into_iter().map(Cow::Borrowed).collect()));
    Vec<Option<&'v str>>: texts => Value::Array(Array::OptionalTexts(texts.into_iter().map(|text| text.map(Cow::Borrowed)).collect()));
    Vec<i32>: numbers => Value::Array(Array::Ints(numbers));
    Vec<Option<i64>>: numbers => Value::Array(Array::OptionalBigInts(numbers));
}

/// A statement's values, in the order of its parameters.
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        vec![$($crate::backend::driver::Value::from($value)),*]
    };
}
pub(crate) use values;

/// The outcome of a statement without rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    pub rows: u64,
    /// The value of `last_insert_id`, on MySQL and MariaDB.
    pub last_insert_id: u64,
}

/// A row of a statement's result. Columns are counted from 0.
pub trait Row {
    /// Text of any type and collation that the database sends as text.
    fn text(&self, column: usize) -> Read<&str>;
    fn optional_text(&self, column: usize) -> Read<Option<&str>>;
    /// The text of a JSON column.
    fn json(&self, column: usize) -> Read<Cow<'_, str>>;
    /// An integer of any type.
    fn optional_number(&self, column: usize) -> Read<Option<i64>>;
    fn boolean(&self, column: usize) -> Read<bool>;
    /// The column's name in messages: its name and its type, if it has one.
    fn column(&self, column: usize) -> (String, Option<String>);

    /// Converts a number to the requested type, if it fits.
    fn number<T: TryFrom<i64>>(&self, column: usize) -> Read<T> {
        let number = self.optional_number(column)?.ok_or_else(|| Unreadable::new(column, "it is null"))?;
        T::try_from(number).map_err(|_| Unreadable::new(column, format!("{number} is out of range")))
    }
}

pub type Read<T> = Result<T, Unreadable>;

/// A value that is not what the store expects in its column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub column: usize,
    pub why: String,
}

impl Unreadable {
    pub fn new(column: usize, why: impl Into<String>) -> Self {
        Self { column, why: why.into() }
    }
}

/// Why a driver's call failed.
#[derive(Debug)]
pub enum Failure {
    /// The server answered with an error.
    Refused(Box<Refused>),
    /// The connection ended, or the peer broke the protocol. The text says why.
    Lost(String),
    /// The TLS handshake failed.
    Tls { failure: TlsFailure, message: String },
    /// The driver does not support the login that the server asks for, or can't use the settings: every attempt fails in the same way. `reason` is
    /// for the user, `message` is the driver's own text.
    Impossible { reason: String, message: String },
    /// A defect: a driver used wrongly, or a driver that broke its own contract.
    Defect(String),
}

/// An error that a server answered with.
#[derive(Debug)]
pub struct Refused {
    /// Its meaning for the caller.
    pub explained: Explained,
    /// In the server's words.
    pub message: String,
    /// SQLSTATE, or SQLite's extended result code.
    pub code: Option<String>,
    /// What the user can do about a refused connection.
    pub hint: Option<&'static str>,
    /// The server has no connection left. Only a new connection meets this.
    pub no_connection_left: bool,
}
