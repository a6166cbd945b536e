//! The states of jobs, batches and records, with the names that the tables and JavaScript use.

macro_rules! status {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            pub fn from_text(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|status| status.as_str() == text)
            }

            /// All names, for a message.
            pub fn names() -> String {
                Self::ALL.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(", ")
            }
        }
    };
}

status! {
    /// The state of a job.
    JobStatus {
        Created = "CREATED", Previewing = "PREVIEWING", Previewed = "PREVIEWED", Processing = "PROCESSING",
        Paused = "PAUSED", Completed = "COMPLETED", Aborted = "ABORTED", Failed = "FAILED",
    }
}

status! {
    /// The state of a batch.
    BatchStatus {
        Pending = "PENDING", Processing = "PROCESSING", Paused = "PAUSED", Completed = "COMPLETED", Failed = "FAILED",
    }
}

status! {
    /// The state of a record.
    RecordStatus {
        Pending = "pending", Valid = "valid", Invalid = "invalid", Processed = "processed", Failed = "failed",
    }
}

impl BatchStatus {
    pub fn is_final(self) -> bool {
        matches!(self, BatchStatus::Completed | BatchStatus::Failed)
    }
}

impl JobStatus {
    pub fn is_final(self) -> bool {
        matches!(self, JobStatus::Completed | JobStatus::Aborted | JobStatus::Failed)
    }
}

/// Whether a batch with this status is still open. A status that another program wrote and that is unknown here counts as done.
pub fn batch_is_open(status: &str) -> bool {
    [BatchStatus::Pending, BatchStatus::Processing, BatchStatus::Paused]
        .iter()
        .any(|open| open.as_str() == status)
}
