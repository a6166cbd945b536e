//! What the store needs of its tables: their columns, what each must hold, and their indexes.

use std::fmt::{self, Display};

use super::catalogue::uniqueness;

/// What a column must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The id of a record, which the database generates.
    Made,
    Id,
    /// A keyword of at most this many characters.
    Word(u32),
    Text,
    Json,
    Integer,
    /// A time in milliseconds since 1970.
    Time,
    Boolean,
}

/// The digits of a time in milliseconds: enough until the year 2286.
pub const TIME_DIGITS: u32 = 13;

/// The longest status of a job or a batch, and of a record, in characters.
const LONGEST_STATUS: u32 = 10;
const LONGEST_RECORD_STATUS: u32 = 9;

/// The maximum length of an id in characters. An index on a prefix of this length is as good as one on the whole column.
pub const ID_CHARACTERS: u32 = 36;

pub struct NeededColumn {
    pub name: &'static str,
    pub need: Need,
    /// Whether the store writes null into it.
    pub nullable: bool,
}

const fn needed(name: &'static str, need: Need) -> NeededColumn {
    NeededColumn {
        name,
        need,
        nullable: false,
    }
}

const fn nullable(name: &'static str, need: Need) -> NeededColumn {
    NeededColumn {
        name,
        need,
        nullable: true,
    }
}

pub const TABLE_NAMES: [&str; 3] = ["batchactions_jobs", "batchactions_records", "batchactions_batches"];

pub const TABLES: [(&str, &[NeededColumn]); 3] = [
    (
        "batchactions_jobs",
        &[
            needed("id", Need::Id),
            needed("status", Need::Word(LONGEST_STATUS)),
            needed("config", Need::Json),
            needed("batches", Need::Json),
            needed("totalRecords", Need::Integer),
            nullable("startedAt", Need::Time),
            nullable("completedAt", Need::Time),
            needed("distributed", Need::Boolean),
        ],
    ),
    (
        "batchactions_records",
        &[
            needed("id", Need::Made),
            needed("jobId", Need::Id),
            needed("batchId", Need::Id),
            needed("recordIndex", Need::Integer),
            needed("status", Need::Word(LONGEST_RECORD_STATUS)),
            needed("raw", Need::Json),
            needed("parsed", Need::Json),
            needed("errors", Need::Json),
            nullable("processingError", Need::Text),
        ],
    ),
    (
        "batchactions_batches",
        &[
            needed("id", Need::Id),
            needed("jobId", Need::Id),
            needed("batchIndex", Need::Integer),
            needed("status", Need::Word(LONGEST_STATUS)),
            nullable("workerId", Need::Id),
            nullable("claimedAt", Need::Time),
            needed("recordStartIndex", Need::Integer),
            needed("recordEndIndex", Need::Integer),
            needed("processedCount", Need::Integer),
            needed("failedCount", Need::Integer),
            needed("version", Need::Integer),
        ],
    ),
];

pub struct NeededIndex {
    pub name: &'static str,
    pub table: &'static str,
    pub columns: &'static [&'static str],
    pub unique: bool,
}

pub const INDEXES: [NeededIndex; 5] = [
    NeededIndex {
        name: "batchactions_records_job_id_status",
        table: "batchactions_records",
        columns: &["jobId", "status"],
        unique: false,
    },
    NeededIndex {
        name: "batchactions_records_job_id_batch_id",
        table: "batchactions_records",
        columns: &["jobId", "batchId"],
        unique: false,
    },
    NeededIndex {
        name: "batchactions_records_job_id_record_index",
        table: "batchactions_records",
        columns: &["jobId", "recordIndex"],
        unique: true,
    },
    NeededIndex {
        name: "batchactions_batches_job_id_status",
        table: "batchactions_batches",
        columns: &["jobId", "status"],
        unique: false,
    },
    NeededIndex {
        name: "batchactions_batches_job_id_batch_index",
        table: "batchactions_batches",
        columns: &["jobId", "batchIndex"],
        unique: true,
    },
];

/// What each statement of a migration creates, in order. It is the same for every database.
pub const OBJECTS: [&str; 8] = [
    "batchactions_jobs",
    "batchactions_records",
    "batchactions_records_job_id_status",
    "batchactions_records_job_id_batch_id",
    "batchactions_records_job_id_record_index",
    "batchactions_batches",
    "batchactions_batches_job_id_status",
    "batchactions_batches_job_id_batch_index",
];

impl Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::Made => f.write_str("an integer that the database makes"),
            Need::Id => f.write_str("a varchar or a uuid"),
            Need::Word(longest) => write!(f, "a varchar of at least {longest} characters or an enum"),
            Need::Text => f.write_str("a text"),
            Need::Json => f.write_str("a json"),
            Need::Integer => f.write_str("an integer or a bigint"),
            Need::Time => write!(f, "a bigint, or a numeric of at least {TIME_DIGITS} digits"),
            Need::Boolean => f.write_str("a boolean"),
        }
    }
}

impl Display for NeededIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ({})", uniqueness(self.unique), self.table, self.columns.join(", "))
    }
}
