//! Measures how long a database takes to answer, and how far its clock is from this process's.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::driver::{Driver, Row, Sql, values};
use super::session::Session;
use crate::error::Result;

/// What a ping found.
#[derive(Clone, Debug, PartialEq)]
pub struct Ping {
    pub database: &'static str,
    pub version: String,
    pub latency: Duration,
    /// The database's clock less this process's.
    pub clock_skew_ms: i64,
}

/// The answer of a database.
pub struct Pong {
    pub version: String,
    pub latency: Duration,
    pub clock_skew_ms: i64,
}

impl Pong {
    pub fn of(self, database: &'static str, version: impl FnOnce(&str) -> &str) -> Ping {
        Ping {
            database,
            version: version(&self.version).to_owned(),
            latency: self.latency,
            clock_skew_ms: self.clock_skew_ms,
        }
    }
}

/// Runs a statement that returns the server's version and its clock.
pub async fn ping<D: Driver>(session: &mut Session<D>, sql: Sql<'_>) -> Result<Pong> {
    // The first time on a connection, the statement is prepared, which takes a round trip of its own. So the second time is measured.
    session.one(sql, values![], |row| row.number::<i64>(1)).await?;
    let sent_at = SystemTime::now();
    let sent = Instant::now();
    let answer = session.one(sql, values![], |row| Ok((row.text(0)?.to_owned(), row.number::<i64>(1)?)));
    let (version, clock) = answer.await?;
    let latency = sent.elapsed();
    Ok(Pong {
        version,
        latency,
        clock_skew_ms: clock_skew_ms(clock, sent_at, latency),
    })
}

/// How far the database's clock is ahead, if it was read in the middle of the time that the answer took.
fn clock_skew_ms(clock: i64, sent_at: SystemTime, latency: Duration) -> i64 {
    let middle = sent_at + latency / 2;
    let local = match middle.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_millis() as i64,
        Err(before) => -(before.duration().as_millis() as i64),
    };
    clock - local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_are_compared_in_the_middle_of_the_answer() {
        let ms = Duration::from_millis;
        let sent_at = UNIX_EPOCH + ms(10_000);
        assert_eq!(clock_skew_ms(10_020, sent_at, ms(40)), 0);
        assert_eq!(clock_skew_ms(15_020, sent_at, ms(40)), 5_000);
        assert_eq!(clock_skew_ms(9_020, sent_at, ms(40)), -1_000);
        // A clock that was never set.
        assert_eq!(clock_skew_ms(0, UNIX_EPOCH - ms(50), ms(0)), 50);
    }
}
