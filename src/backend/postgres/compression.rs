//! Decides whether a job's list of batches is compressed by lz4 where the server keeps it.

use std::sync::OnceLock;

use super::types::Conn;
use crate::backend::driver::{Row, sql};
use crate::error::Result;

/// Bytes from which on a list of batches is worth a faster compression. The engine stores a job's list again after each batch, and with PostgreSQL's own pglz,
/// the compression is most of the time that the server takes for that.
const LARGE_LIST: usize = 8_000;

/// Whether the server can compress by lz4 and nobody has configured what it compresses by, once a large list has raised the question.
#[derive(Default)]
pub struct Compression(OnceLock<bool>);

impl Compression {
    /// Whether a list is to be compressed by lz4, which any client of the server can read.
    pub async fn takes_lz4(&self, session: &mut Conn, list: &str) -> Result<bool> {
        if list.len() < LARGE_LIST {
            return Ok(false);
        }
        if let Some(takes) = self.0.get() {
            return Ok(*takes);
        }
        // Asked first, because a user may lack the right to read the view, or to call the function behind it, and then a save must not fail.
        let may_ask = sql(
            "compression_may_ask",
            "
            select pg_catalog.has_table_privilege('pg_catalog.pg_settings', 'select')
              and coalesce(
                pg_catalog.has_function_privilege(pg_catalog.to_regprocedure('pg_catalog.pg_show_all_settings()'), 'execute'),
                false
              )
            ",
        );
        let mut takes = session.one(may_ask, vec![], |row| row.boolean(0)).await?;
        if takes {
            let is_unset = sql(
                "compression_is_unset",
                "
                select exists (
                  select
                  from pg_catalog.pg_settings
                  where name = 'default_toast_compression' and source = 'default' and 'lz4' = any (enumvals)
                )
                ",
            );
            takes = session.one(is_unset, vec![], |row| row.boolean(0)).await?;
        }
        Ok(*self.0.get_or_init(|| takes))
    }
}
