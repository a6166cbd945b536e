//! Checks the arguments of the store's methods as they arrive from JavaScript: ids, durations, tokens, options, and JSON text for everything larger.

use std::time::Duration;

use napi::bindgen_prelude::Unknown;
use napi::{JsValue, ValueType};

use super::boundary::{Refusal, string, text};
use crate::error::Error;
use crate::model::{BatchKey, ID_LENGTH, Token, WORKER_ID_LENGTH, WorkerId, check_id, token_from_json};

/// An argument, or the reason why the call is refused.
pub type Argument<'env, T> = std::result::Result<T, Refusal<'env>>;

pub fn job_id(value: Unknown<'_>) -> Argument<'_, String> {
    id("jobId", value, ID_LENGTH)
}

pub fn batch_id(value: Unknown<'_>) -> Argument<'_, String> {
    id("batchId", value, ID_LENGTH)
}

pub fn batch_key<'env>(job: Unknown<'env>, batch: Unknown<'env>) -> Argument<'env, BatchKey> {
    Ok(BatchKey::new(job_id(job)?, batch_id(batch)?))
}

pub fn worker_id(value: Unknown<'_>) -> Argument<'_, WorkerId> {
    id("workerId", value, WORKER_ID_LENGTH).map(WorkerId)
}

fn id<'env>(what: &str, value: Unknown<'env>, longest: usize) -> Argument<'env, String> {
    let kind = value.get_type()?;
    let Some(id) = string(value)? else {
        return Err(Error::invalid(format!("{what} must be a string, not {}", kind_name(kind))).into());
    };
    check_id(&what, &id, longest)?;
    Ok(id)
}

/// A duration is a number of milliseconds, up to the largest integer that a double represents exactly.
pub fn duration<'env>(what: &str, value: Unknown<'env>) -> Argument<'env, Duration> {
    let kind = value.get_type()?;
    if kind != ValueType::Number {
        return Err(Error::invalid(format!("{what} must be a number of milliseconds, not {}", kind_name(kind))).into());
    }
    let ms = value.coerce_to_number()?.get_double()?;
    if !(0.0..=9_007_199_254_740_991.0).contains(&ms) {
        return Err(Error::invalid(format!("{what} must be a number of milliseconds from 0 on, not {ms}")).into());
    }
    Ok(Duration::from_millis(ms as u64))
}

/// The token of a fenced call, if one is given.
pub fn token(fence: Unknown<'_>) -> Argument<'_, Option<Token>> {
    if is_absent(&fence)? {
        Ok(None)
    } else {
        Ok(token_from_json(&text(fence)?)?)
    }
}

/// The JSON text of options, which may be omitted.
pub fn options(value: Unknown<'_>) -> Argument<'_, String> {
    if is_absent(&value)? { Ok("{}".to_owned()) } else { text(value) }
}

fn is_absent(value: &Unknown<'_>) -> napi::Result<bool> {
    Ok(value.get_type()? == ValueType::Undefined)
}

fn kind_name(kind: ValueType) -> String {
    match kind {
        ValueType::Object => "an object".to_owned(),
        ValueType::Null | ValueType::Undefined => kind.to_string().to_lowercase(),
        other => format!("a {}", other.to_string().to_lowercase()),
    }
}
