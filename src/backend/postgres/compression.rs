//! Decides whether the server compresses a job's list of batches with lz4.

use std::sync::OnceLock;

use super::types::Conn;
use crate::backend::driver::{Row, sql};
use crate::error::Result;

/// The size in bytes from which a faster compression pays off. The engine stores a job's list again after each batch, and most of the server's time
/// for that goes into its default compression, pglz.
const LARGE_LIST: usize = 8_000;

/// Whether the server supports lz4 and its compression setting is the default. Asked when the first large list is saved.
#[derive(Default)]
pub struct Compression(OnceLock<bool>);

impl Compression {
    /// Whether to compress a list with lz4. Any client of the server can read the result.
    pub async fn takes_lz4(&self, session: &mut Conn, list: &str) -> Result<bool> {
        if list.len() < LARGE_LIST {
            return Ok(false);
        }
        if let Some(takes) = self.0.get() {
            return Ok(*takes);
        }
        // Asked first: the user may lack the right to read the view or to call the function behind it, and that must not fail a save.
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
