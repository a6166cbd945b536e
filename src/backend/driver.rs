//! What a database driver must offer: connections, statements with values, and rows. The pool, the sessions, the credentials and the schema are built on
//! this trait alone and name no driver's types, so that a database with another driver brings an implementation and changes nothing above it.
//!
//! `sqlx_driver.rs` implements it once for the three databases that sqlx serves; `scripted.rs` implements it for tests, by replaying answers and failures.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;

use super::credentials::Login;
use super::errors::Explained;
use super::tls::TlsFailure;
use crate::model::{BatchIndex, MaxClaims, Token, WorkerId};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A driver, with what it needs to make connections to one database.
pub trait Driver: Send + Sync + 'static {
    type Connection: Send + 'static;
    type Row: Row + 'static;

    /// Makes a connection and says on it what every session begins with. The pool bounds the time that this takes.
    fn connect<'a>(&'a self, login: &'a Login, access: Access) -> BoxFuture<'a, Result<Self::Connection, Failure>>;

    /// Whether `connect` can make a connection that only reads, for where one that writes is refused.
    fn can_only_read(&self) -> bool {
        false
    }

    /// A password as the database's own clients send it, where that is not as it was given.
    fn prepared_password(&self, _password: &str) -> Option<String> {
        None
    }

    /// Whether the server still answers.
    fn ping(connection: &mut Self::Connection) -> BoxFuture<'_, Result<(), Failure>>;

    /// Tells the server that the connection ends. Whether that arrives does not matter: the socket closes either way.
    fn close(connection: Self::Connection) -> BoxFuture<'static, ()>;

    /// Runs text without values, unprepared. It may hold several statements.
    fn run<'c>(connection: &'c mut Self::Connection, text: &'c str) -> BoxFuture<'c, Result<(), Failure>>;

    /// Runs a statement that gives no rows.
    fn execute<'c>(connection: &'c mut Self::Connection, statement: Statement<'c>) -> BoxFuture<'c, Result<Changed, Failure>>;

    /// Runs a statement to its end and gives each row to `take`.
    fn fetch<'c>(
        connection: &'c mut Self::Connection,
        statement: Statement<'c>,
        take: &'c mut (dyn FnMut(Self::Row) + Send),
    ) -> BoxFuture<'c, Result<(), Failure>>;
}

/// What a new connection is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadAndWrite,
    ReadOnly,
}

/// The text of a statement, and the name that tests and logs know it by.
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
    /// Whether the server is to keep it prepared.
    pub persistent: bool,
}

/// A value for one of a statement's parameters.
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
    /// For databases that have arrays; the other drivers refuse it.
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

/// What a statement without rows did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    pub rows: u64,
    /// What `last_insert_id` gives, on MySQL and MariaDB.
    pub last_insert_id: u64,
}

/// A row of a statement's result. Columns are counted from 0.
pub trait Row {
    /// Text of any type and collation that the database sends as text.
    fn text(&self, column: usize) -> Read<&str>;
    fn optional_text(&self, column: usize) -> Read<Option<&str>>;
    /// The JSON text of a column of JSON.
    fn json(&self, column: usize) -> Read<Cow<'_, str>>;
    /// A whole number of any type that has them.
    fn optional_number(&self, column: usize) -> Read<Option<i64>>;
    fn boolean(&self, column: usize) -> Read<bool>;
    /// What a message calls the column: its name and its type, where it has one.
    fn column(&self, column: usize) -> (String, Option<String>);

    /// A number that fits into the type asked for.
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

/// Why a driver could not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// The server answered with an error.
    Refused(Box<Refused>),
    /// The connection ended, or what came over it made no sense. The text says why.
    Lost(String),
    /// The two sides did not agree on TLS.
    Tls { failure: TlsFailure, message: String },
    /// The server asks for a login that this driver lacks, or the settings can't be used: it fails the same way each time. `reason` is for the user,
    /// `message` is what the driver said.
    Impossible { reason: String, message: String },
    /// A defect: the driver was used wrongly, or answered what it never should.
    Defect(String),
}

/// An error that a server answered with.
#[derive(Debug)]
pub struct Refused {
    /// What it means to a caller.
    pub explained: Explained,
    /// In the server's words.
    pub message: String,
    /// SQLSTATE, or SQLite's extended result code.
    pub code: Option<String>,
    /// What to do about it where it refuses a connection.
    pub hint: Option<&'static str>,
    /// The server has no connection left, which only a new connection meets.
    pub no_connection_left: bool,
}
