//! A driver for tests that answers each exchange with the server from a script and records it. It produces failures that a real server can't be made
//! to show on demand: a lost reply, a connection that ends between two statements, a server without a free connection.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use crate::backend::credentials::Login;
use crate::backend::driver::{Access, BoxFuture, Changed, Driver, Failure, Read, Refused, Row, Statement, Unreadable};
use crate::backend::errors::Explained;
use crate::error::{Code, Error, Repeatable, lock};

/// The scripted outcome of one exchange.
#[derive(Clone, Debug)]
pub enum Answer {
    Rows(Vec<ScriptedRow>),
    Changed(u64),
    /// The server answers with this error.
    Refuses(Error),
    /// The server has no connection left.
    HasNoConnectionLeft,
    /// The connection ends before the reply arrives.
    ConnectionEnds,
    /// No reply comes.
    Silence,
}

/// A row of a scripted answer.
#[derive(Clone, Debug, Default)]
pub struct ScriptedRow(pub Vec<Cell>);

#[derive(Clone, Debug)]
pub enum Cell {
    Null,
    Number(i64),
    Text(&'static str),
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Cell::Number(number)
    }
}

impl From<bool> for Cell {
    fn from(flag: bool) -> Self {
        Cell::Number(flag.into())
    }
}

impl From<&'static str> for Cell {
    fn from(text: &'static str) -> Self {
        Cell::Text(text)
    }
}

/// A row of these cells.
macro_rules! row {
    ($($cell:expr),* $(,)?) => {
        $crate::backend::scripted::driver::ScriptedRow(vec![$($crate::backend::scripted::driver::Cell::from($cell)),*])
    };
}
pub(crate) use row;

impl Row for ScriptedRow {
    fn text(&self, column: usize) -> Read<&str> {
        self.optional_text(column)?.ok_or_else(|| Unreadable::new(column, "it is null"))
    }

    fn optional_text(&self, column: usize) -> Read<Option<&str>> {
        match self.0.get(column) {
            Some(Cell::Text(text)) => Ok(Some(text)),
            Some(Cell::Null) => Ok(None),
            _ => Err(Unreadable::new(column, "it is no text")),
        }
    }

    fn json(&self, column: usize) -> Read<Cow<'_, str>> {
        self.text(column).map(Cow::Borrowed)
    }

    fn optional_number(&self, column: usize) -> Read<Option<i64>> {
        match self.0.get(column) {
            Some(Cell::Number(number)) => Ok(Some(*number)),
            Some(Cell::Null) => Ok(None),
            _ => Err(Unreadable::new(column, "it is no number")),
        }
    }

    fn boolean(&self, column: usize) -> Read<bool> {
        self.number::<i64>(column).map(|number| number != 0)
    }

    fn column(&self, column: usize) -> (String, Option<String>) {
        (format!("column {column}"), None)
    }
}

/// What the server answers, and what it was asked.
#[derive(Default)]
pub struct Script {
    answers: Mutex<HashMap<&'static str, VecDeque<Answer>>>,
    asked: Mutex<Vec<String>>,
}

impl Script {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Scripts the next answer to `question`: `connect`, `ping`, the text of an unprepared statement, or a statement's name. An exchange without a
    /// scripted answer succeeds, with no rows and nothing changed.
    pub fn on(&self, question: &'static str, answer: Answer) -> &Self {
        lock(&self.answers).entry(question).or_default().push_back(answer);
        self
    }

    /// Every exchange in order, with the number of its connection: `1 begin`.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.asked).clone()
    }

    /// The number of such exchanges, on any connection.
    pub fn times(&self, question: &str) -> usize {
        let is_it = |asked: &&String| asked.split_once(' ').is_some_and(|(_, asked)| asked == question);
        lock(&self.asked).iter().filter(is_it).count()
    }

    /// Scripted answers that were not used.
    pub fn left(&self) -> Vec<&'static str> {
        let answers = lock(&self.answers);
        let left = answers.iter().filter(|(_, answers)| !answers.is_empty());
        left.map(|(question, _)| *question).collect()
    }

    async fn ask(&self, connection: u64, question: &str) -> Result<Answer, Failure> {
        lock(&self.asked).push(format!("{connection} {question}"));
        let answer = lock(&self.answers).get_mut(question).and_then(VecDeque::pop_front);
        match answer.unwrap_or(Answer::Changed(0)) {
            Answer::ConnectionEnds => Err(Failure::Lost("the server closed the connection".to_owned())),
            Answer::Silence => std::future::pending().await,
            Answer::Refuses(error) => Err(refused(error, false)),
            Answer::HasNoConnectionLeft => {
                let error = Error::new(Code::ConnectionFailed, "too many connections").repeatable(Repeatable::NoConnectionLeft);
                Err(refused(error, true))
            }
            answer => Ok(answer),
        }
    }
}

fn refused(error: Error, no_connection_left: bool) -> Failure {
    Failure::Refused(Box::new(Refused {
        message: error.message.clone(),
        code: None,
        explained: Explained::from(error),
        hint: None,
        no_connection_left,
    }))
}

pub struct ScriptedDriver {
    pub script: Arc<Script>,
    pub made: Mutex<u64>,
}

impl ScriptedDriver {
    pub fn new(script: Arc<Script>) -> Self {
        Self {
            script,
            made: Mutex::default(),
        }
    }
}

/// A connection, with its number: 1 is the first one made.
pub struct ScriptedConnection {
    number: u64,
    script: Arc<Script>,
    ended: bool,
}

impl ScriptedConnection {
    async fn ask(&mut self, question: &str) -> Result<Answer, Failure> {
        if self.ended {
            return Err(Failure::Lost("the connection had ended before".to_owned()));
        }
        let outcome = self.script.ask(self.number, question).await;
        self.ended = matches!(outcome, Err(Failure::Lost(_)));
        outcome
    }
}

impl Driver for ScriptedDriver {
    type Connection = ScriptedConnection;
    type Row = ScriptedRow;

    fn connect<'a>(&'a self, _: &'a Login, _: Access) -> BoxFuture<'a, Result<ScriptedConnection, Failure>> {
        Box::pin(async {
            let number = *lock(&self.made) + 1;
            self.script.ask(number, "connect").await?;
            *lock(&self.made) = number;
            Ok(ScriptedConnection {
                number,
                script: self.script.clone(),
                ended: false,
            })
        })
    }

    fn ping(connection: &mut ScriptedConnection) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async { connection.ask("ping").await.map(drop) })
    }

    fn close(mut connection: ScriptedConnection) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let _ = connection.ask("close").await;
        })
    }

    fn run<'c>(connection: &'c mut ScriptedConnection, text: &'c str) -> BoxFuture<'c, Result<(), Failure>> {
        Box::pin(async move { connection.ask(text).await.map(drop) })
    }

    fn execute<'c>(connection: &'c mut ScriptedConnection, statement: Statement<'c>) -> BoxFuture<'c, Result<Changed, Failure>> {
        Box::pin(async move {
            match connection.ask(statement.sql.name).await? {
                Answer::Changed(rows) => Ok(Changed { rows, last_insert_id: 0 }),
                answer => Err(Failure::Defect(format!(
                    "{} gives no rows, and {answer:?} is scripted",
                    statement.sql.name
                ))),
            }
        })
    }

    fn fetch<'c>(
        connection: &'c mut ScriptedConnection,
        statement: Statement<'c>,
        take: &'c mut (dyn FnMut(ScriptedRow) + Send),
    ) -> BoxFuture<'c, Result<(), Failure>> {
        Box::pin(async move {
            match connection.ask(statement.sql.name).await? {
                Answer::Rows(rows) => rows.into_iter().for_each(take),
                // No rows.
                Answer::Changed(0) => {}
                answer => {
                    return Err(Failure::Defect(format!(
                        "{} gives rows, and {answer:?} is scripted",
                        statement.sql.name
                    )));
                }
            }
            Ok(())
        })
    }
}
