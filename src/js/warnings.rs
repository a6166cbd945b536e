//! The way of a warning to `index.js`: one JSON text, through a function that is callable from any thread and never keeps the process alive.

use std::sync::atomic::{AtomicU64, Ordering};

use napi::Status;
use napi::bindgen_prelude::Function;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode, UnknownReturnValue};
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::warnings::{Warning, WarningListener};

/// How many warnings wait for the event loop. What comes while so many wait is dropped and counted.
const MOST_WAITING: usize = 256;

/// The function of `index.js` that publishes a warning.
pub struct JsWarnings {
    function: ThreadsafeFunction<
        String,
        UnknownReturnValue,
        String,
        Status,
        /* an error first: */ false,
        /* weak: */ true,
        MOST_WAITING,
    >,
    /// Dropped since the last warning that had room.
    dropped: AtomicU64,
    /// The server, for every warning.
    server: Value,
}

impl JsWarnings {
    pub fn new(function: &Function<'_, String, UnknownReturnValue>, server: Value) -> napi::Result<Self> {
        let builder = function.build_threadsafe_function::<String>();
        Ok(Self {
            function: builder.weak::<true>().max_queue_size::<MOST_WAITING>().build()?,
            dropped: AtomicU64::new(0),
            server,
        })
    }

    fn text(&self, warning: Warning, dropped: u64) -> String {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        };
        put("kind", Some(warning.kind.as_str().into()));
        put("message", Some(warning.message.into()));
        put("server", Some(self.server.clone()));
        put("jobId", warning.job_id.map(Value::from));
        put("batchId", warning.batch_id.map(Value::from));
        put("workerId", warning.worker_id.map(Value::from));
        put("count", (warning.count > 1).then(|| warning.count.into()));
        put("dropped", (dropped > 0).then(|| dropped.into()));
        put("error", warning.error.as_ref().map(failure));
        Value::Object(fields).to_string()
    }
}

/// The fields from which `index.js` creates a `StateStoreError`.
fn failure(error: &Error) -> Value {
    let cause = error.cause.as_ref();
    json!({
        "message": error.message,
        "code": error.code.as_str(),
        "retryable": error.retryable(),
        "causeMessage": cause.map(|cause| &cause.message),
        "causeCode": cause.and_then(|cause| cause.code.as_ref()),
        "thrown": cause.and_then(|cause| cause.thrown),
    })
}

impl WarningListener for JsWarnings {
    fn warn(&self, warning: Warning) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let text = self.text(warning, dropped);
        match self.function.call(text, ThreadsafeFunctionCallMode::NonBlocking) {
            Status::Ok => {}
            // There is no room, or the thread of the function is ending.
            _ => {
                self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
            }
        }
    }
}
