//! The statements that were run, by name. Only in a build for tests, which ask for them to explain them: in any other build this is nothing.

use super::driver::Sql;

#[cfg(not(feature = "test-hooks"))]
#[inline(always)]
pub fn record(_: Sql<'_>) {}

#[cfg(feature = "test-hooks")]
pub use for_tests::record;

#[cfg(feature = "test-hooks")]
mod for_tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use napi_derive::napi;

    use super::Sql;
    use crate::error::lock;

    static RECORDED: Mutex<BTreeMap<&'static str, String>> = Mutex::new(BTreeMap::new());

    pub fn record(sql: Sql<'_>) {
        lock(&RECORDED).insert(sql.name, sql.text.to_owned());
    }

    /// The text of the statement that was last run under this name.
    #[napi(skip_typescript)]
    pub fn statement_text(name: String) -> Option<String> {
        lock(&RECORDED).get(&*name).cloned()
    }
}
