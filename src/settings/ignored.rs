//! Parameters without effect. Each name is reported once per process, however many stores are created.

use std::collections::BTreeSet;
use std::sync::Mutex;

use crate::error::lock;

/// More names than any application uses; further ones are not reported.
const MAX_NAMES: usize = 1_000;

/// The names that this process has not reported yet. From now on they count as reported.
pub fn newly_ignored(names: &[String]) -> Vec<String> {
    static REPORTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut reported = lock(&REPORTED);
    let new = names
        .iter()
        .filter(|name| reported.len() < MAX_NAMES && reported.insert((*name).clone()))
        .cloned()
        .collect();
    drop(reported);
    new
}
