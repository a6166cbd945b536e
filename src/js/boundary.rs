//! The boundary to JavaScript: arguments arrive as JSON text; results, promises and errors go back. It is the only module with `unsafe`.
//!
//! A call passes one text in each direction, which V8 serializes and parses. Text is several times faster than building values one by one through
//! Node-API, and it is exact: the user's own engine decides what `JSON.stringify` makes of a `Date` or a lone surrogate.
//!
//! `index.js` serializes and parses that text, refuses what JSON can't express, and creates the errors: a test runner may load it in many realms of
//! one thread, each with its own `JSON`, `Array` and `Error`. This side keeps nothing of a realm.

#![allow(
    unsafe_code,
    reason = "Node-API's conversion trait is an unsafe one; each block says what it relies on"
)]

use std::future::Future;

use napi::bindgen_prelude::{PromiseRaw, ToNapiValue, Unknown};
use napi::{Env, JsError, JsValue, ValueType, sys};
use napi_derive::napi;

use crate::error::{Code, Error, Result};
use crate::model::{JobBatches, RecordSlices};
use crate::panics::{self, caught, caught_in};

/// Called once for each thread that loads the addon.
#[cfg_attr(test, allow(dead_code, reason = "a test build registers nothing with Node"))]
#[napi(catch_unwind, skip_typescript)]
pub fn install() {
    panics::note_places();
}

/// A failure as a plain JavaScript error, with the fields from which `index.js` creates a `StateStoreError`.
fn failure<'env>(env: &'env Env, error: &Error) -> napi::Result<Unknown<'env>> {
    let mut value = JsError::from(napi::Error::from_reason(error.message.clone()))
        .into_unknown(*env)
        .coerce_to_object()?;
    value.set("code", error.code.as_str())?;
    value.set("retryable", error.retryable())?;
    if let Some(cause) = &error.cause {
        value.set("causeMessage", cause.message.as_str())?;
        value.set("causeCode", cause.code.as_deref())?;
        // The key of the value that the user's function threw. The value itself stays in `index.js`.
        value.set("thrown", cause.thrown)?;
    }
    Ok(value.to_unknown())
}

/// Why a call is refused.
pub enum Refusal<'env> {
    /// An error of this crate.
    Error(Error),
    /// The JavaScript error that `index.js` passed in place of an argument.
    Value(Unknown<'env>),
    /// A Node-API call failed.
    Engine(napi::Error),
}

impl From<Error> for Refusal<'_> {
    fn from(error: Error) -> Self {
        Refusal::Error(error)
    }
}

impl From<napi::Error> for Refusal<'_> {
    fn from(error: napi::Error) -> Self {
        Refusal::Engine(error)
    }
}

impl<'env> Refusal<'env> {
    /// The refusal as what a function throws.
    pub fn into_thrown(self, env: &'env Env) -> napi::Error {
        match self {
            Refusal::Error(error) => thrown(env, &error),
            Refusal::Value(value) => napi::Error::from_unknown_without_coercion(value),
            Refusal::Engine(error) => thrown(env, &Error::internal(format!("the call could not be read: {}", error.reason))),
        }
    }
}

fn thrown(env: &Env, error: &Error) -> napi::Error {
    failure(env, error).map_or_else(|error| error, napi::Error::from_unknown_without_coercion)
}

/// The JSON text of an argument. `index.js` serializes it, or passes an error if it refuses the argument.
pub fn text(value: Unknown<'_>) -> std::result::Result<String, Refusal<'_>> {
    string(value)?.ok_or(Refusal::Value(value))
}

/// A string argument; `None` if it is anything else.
pub fn string(value: Unknown<'_>) -> napi::Result<Option<String>> {
    match value.get_type()? {
        ValueType::String => Ok(Some(value.coerce_to_string()?.into_utf8()?.into_owned()?)),
        _ => Ok(None),
    }
}

/// The result of a call.
#[derive(Debug)]
pub enum Reply {
    Nothing,
    Null,
    Boolean(bool),
    Number(u32),
    /// JSON text, which `index.js` parses.
    Json(String),
    /// A job as JSON text without its batches, whose text is made only if the caller looks at them.
    Job {
        job: String,
        batches: JobBatches,
    },
    /// An array, or a `RecordReader` if it is large.
    Records(RecordSlices),
}

/// A large array of records, in slices: the event loop gets a turn before each of them.
#[napi]
pub struct RecordReader {
    texts: std::vec::IntoIter<String>,
}

#[napi]
impl RecordReader {
    /// A promise of the next records, or of `undefined` when all have been read. Another thread settles it, because that takes a turn of the event
    /// loop even under a test's fake timers.
    #[napi(catch_unwind, skip_typescript)]
    pub fn next<'env>(&mut self, env: &'env Env) -> napi::Result<PromiseRaw<'env, Outcome>> {
        let slice = caught(|| -> Result<_> {
            panics::fail_point("reader");
            Ok(self.texts.next())
        });
        promise(env, async move { Ok(slice?.map_or(Reply::Nothing, Reply::Json)) })
    }
}

/// A job on its way to JavaScript, whose batches become JSON text when they are looked at.
#[napi]
pub struct JobReader {
    job: String,
    batches: JobBatches,
}

#[napi]
impl JobReader {
    /// The job, with null in the place of its batches.
    #[napi(catch_unwind, skip_typescript)]
    pub fn job(&mut self) -> String {
        std::mem::take(&mut self.job)
    }

    #[napi(catch_unwind, skip_typescript)]
    pub fn batches(&self) -> String {
        self.batches.to_json()
    }
}

/// A little less than the longest string of V8 (`v8::String::kMaxLength` on 64 bits).
const LONGEST_TEXT: usize = (1 << 29) - (1 << 10);

fn short_enough(text: String) -> Result<String> {
    check_length(text.len(), ": read it with records()")?;
    Ok(text)
}

fn check_length(bytes: usize, advice: &str) -> Result<()> {
    if bytes > LONGEST_TEXT {
        return Err(Error::new(
            Code::ValueTooLong,
            format!("the result has {bytes} bytes, and JavaScript takes {LONGEST_TEXT} at once{advice}"),
        ));
    }
    Ok(())
}

/// A call's outcome on its way to JavaScript.
pub struct Outcome(Result<Reply>);

/// Converts a value of a type that napi knows.
fn convert(env: &Env, value: impl ToNapiValue) -> napi::Result<sys::napi_value> {
    // SAFETY: only `Outcome::to_napi_value` calls this, with the environment that napi passed to it, on that environment's thread.
    unsafe { ToNapiValue::to_napi_value(env.raw(), value) }
}

impl ToNapiValue for Outcome {
    unsafe fn to_napi_value(raw_env: sys::napi_env, outcome: Self) -> napi::Result<sys::napi_value> {
        let env = Env::from_raw(raw_env);
        // A panic that unwinds into Node would end the process.
        let value = caught(|| -> std::result::Result<sys::napi_value, Refusal<'_>> {
            panics::fail_point("result");
            Ok(match outcome.0? {
                Reply::Nothing => convert(&env, ())?,
                Reply::Null => convert(&env, napi::bindgen_prelude::Null)?,
                Reply::Boolean(value) => convert(&env, value)?,
                Reply::Number(value) => convert(&env, value)?,
                Reply::Json(text) => convert(&env, short_enough(text)?)?,
                Reply::Job { job, batches } => {
                    // Now, because the list's getter must not throw.
                    check_length(batches.longest_json(), "")?;
                    convert(
                        &env,
                        JobReader {
                            job: short_enough(job)?,
                            batches,
                        },
                    )?
                }
                Reply::Records(slices) => {
                    let mut texts = slices.into_texts();
                    if texts.len() > 1 {
                        let texts = texts.into_iter();
                        convert(&env, RecordReader { texts })?
                    } else {
                        convert(&env, short_enough(texts.pop().unwrap_or_default())?)?
                    }
                }
            })
        });
        value.map_err(|refusal| refusal.into_thrown(&env))
    }
}

/// The promise of a call; it rejects with `INTERNAL` if the call panics.
pub fn promise<F>(env: &Env, call: F) -> napi::Result<PromiseRaw<'_, Outcome>>
where
    F: Future<Output = Result<Reply>> + Send + 'static,
{
    let call = caught_in(call);
    env.spawn_future(async move { Ok(Outcome(call.await)) })
}
