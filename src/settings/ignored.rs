//! Parameters that have no effect are told of once a process.

use std::collections::BTreeSet;
use std::sync::Mutex;

use crate::error::lock;

/// More names than any application has; what comes after them is not told of.
const KEPT: usize = 1_000;

/// Those of the names that were not asked for before in this process.
pub fn newly_ignored(names: &[String]) -> Vec<String> {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut told = lock(&TOLD);
    let new = names
        .iter()
        .filter(|name| told.len() < KEPT && told.insert((*name).clone()))
        .cloned()
        .collect();
    drop(told);
    new
}
