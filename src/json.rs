//! The boundary: a value crosses once in each direction per call, as JSON text that V8 writes and reads. It is the only module with `unsafe`.
//!
//! Text is several times faster than building values one by one through Node-API, and it is exact: what `JSON.stringify` does with a `Date`, a
//! `NaN` or a lone surrogate is what the user's own engine does.

#![allow(
    unsafe_code,
    reason = "Node-API's conversion trait is an unsafe one; each block says what it relies on"
)]

use std::cell::RefCell;
use std::future::Future;

use napi::bindgen_prelude::{FnArgs, Function, FunctionRef, PromiseRaw, ToNapiValue, Unknown};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode, UnknownReturnValue};
use napi::{Env, JsValue, Status, ValueType, sys};
use napi_derive::napi;
use tokio::sync::oneshot;

use crate::error::{Code, Error, Result};
use crate::model::RecordSlices;
use crate::panics::{self, caught, caught_in};
use crate::settings::{PasswordAnswer, PasswordFunction, Secret};

/// How, what, value.
type EncodeArgs = FnArgs<(String, String, Unknown<'static>)>;
/// Message, code, retryable, and of the cause message, code, and the key of a value that was thrown.
type ErrorArgs = FnArgs<(String, String, bool, Option<String>, Option<String>, Option<u32>)>;

/// The JavaScript half of the boundary, which belongs to one thread's engine.
struct Hooks {
    encode: FunctionRef<EncodeArgs, Unknown<'static>>,
    decode: FunctionRef<String, Unknown<'static>>,
    make_error: FunctionRef<ErrorArgs, Unknown<'static>>,
}

thread_local! {
    static HOOKS: RefCell<Option<Hooks>> = const { RefCell::new(None) };
}

/// Takes the JavaScript half of the boundary, when `index.js` is loaded in a thread.
#[cfg_attr(test, allow(dead_code, reason = "a test build registers nothing with Node"))]
#[napi(catch_unwind, skip_typescript)]
pub fn install(
    encode: Function<EncodeArgs, Unknown<'static>>,
    decode: Function<String, Unknown<'static>>,
    make_error: Function<ErrorArgs, Unknown<'static>>,
) -> napi::Result<()> {
    let hooks = Hooks {
        encode: encode.create_ref()?,
        decode: decode.create_ref()?,
        make_error: make_error.create_ref()?,
    };
    HOOKS.with(|cell| *cell.borrow_mut() = Some(hooks));
    panics::note_places();
    Ok(())
}

fn with_hooks<T>(use_them: impl FnOnce(&Hooks) -> napi::Result<T>) -> napi::Result<T> {
    HOOKS.with(|cell| match &*cell.borrow() {
        Some(hooks) => use_them(hooks),
        None => Err(napi::Error::from_reason("the addon was loaded without its index.js")),
    })
}

/// Why a call is refused: an error of ours, or a JavaScript error that exists already.
pub enum Refusal<'env> {
    Error(Error),
    Value(Unknown<'env>),
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
    /// The refusal as a JavaScript error.
    fn into_value(self, env: &'env Env) -> napi::Result<Unknown<'env>> {
        match self {
            Refusal::Error(error) => js_error(env, &error),
            Refusal::Value(value) => Ok(value),
            Refusal::Engine(error) => js_error(env, &Error::internal(format!("the call could not be read: {}", error.reason))),
        }
    }

    /// The refusal for a constructor to throw.
    pub fn into_thrown(self, env: &'env Env) -> napi::Error {
        self.into_value(env)
            .map_or_else(|error| error, napi::Error::from_unknown_without_coercion)
    }
}

/// A `StateStoreError` in the user's engine.
fn js_error<'env>(env: &'env Env, error: &Error) -> napi::Result<Unknown<'env>> {
    with_hooks(|hooks| {
        let make_error = hooks.make_error.borrow_back(env)?;
        let cause = error.cause.as_ref();
        make_error.call(
            (
                error.message.clone(),
                error.code.as_str().to_owned(),
                error.retryable(),
                cause.map(|cause| cause.message.clone()),
                cause.and_then(|cause| cause.code.clone()),
                cause.and_then(|cause| cause.thrown),
            )
                .into(),
        )
    })
}

/// A failure as what a function throws.
fn thrown(env: &Env, error: &Error) -> napi::Error {
    js_error(env, error).map_or_else(|error| error, napi::Error::from_unknown_without_coercion)
}

/// The JSON text of an argument, written by the user's engine. `how` says what of it crosses (see `index.js`).
pub fn encode<'env>(env: &'env Env, how: &str, what: &str, value: Unknown<'env>) -> std::result::Result<String, Refusal<'env>> {
    // SAFETY: the handle is only used in this call, whose scope it belongs to; the lifetime is lost because a stored function type can't name it.
    let value = unsafe { std::mem::transmute::<Unknown<'env>, Unknown<'static>>(value) };
    let outcome = with_hooks(|hooks| hooks.encode.borrow_back(env)?.call((how.to_owned(), what.to_owned(), value).into()))?;
    match outcome.get_type()? {
        ValueType::String => Ok(outcome.coerce_to_string()?.into_utf8()?.into_owned()?),
        _ => Err(Refusal::Value(outcome)),
    }
}

/// A string argument.
pub fn string(value: Unknown<'_>) -> napi::Result<Option<String>> {
    match value.get_type()? {
        ValueType::String => Ok(Some(value.coerce_to_string()?.into_utf8()?.into_owned()?)),
        _ => Ok(None),
    }
}

/// What a call resolves with.
#[derive(Debug)]
pub enum Reply {
    Nothing,
    Null,
    Boolean(bool),
    Number(u32),
    /// JSON text, which becomes a value as the promise settles.
    Json(String),
    /// An array, or where it is large a `RecordReader`.
    Records(RecordSlices),
}

/// A large array of records, in slices: the event loop is held for one at a time.
#[napi]
pub struct RecordReader {
    texts: std::vec::IntoIter<String>,
}

#[napi]
impl RecordReader {
    /// The next records, or nothing when all were read.
    #[napi(catch_unwind, skip_typescript)]
    pub fn next<'env>(&mut self, env: &'env Env) -> napi::Result<Option<Unknown<'env>>> {
        let records = caught(|| {
            panics::due("reader");
            self.texts.next().map(|text| decode(env, text)).transpose()
        });
        records.map_err(|error| thrown(env, &error))
    }
}

/// What V8's longest string holds, less some room (`v8::String::kMaxLength` on 64 bits).
const LONGEST_TEXT: usize = (1 << 29) - (1 << 10);

fn decode<'env>(env: &'env Env, text: String) -> Result<Unknown<'env>> {
    if text.len() > LONGEST_TEXT {
        return Err(Error::new(
            Code::ValueTooLong,
            format!(
                "the result has {} bytes, and JavaScript takes {LONGEST_TEXT} at once: read it with records()",
                text.len()
            ),
        ));
    }
    with_hooks(|hooks| hooks.decode.borrow_back(env)?.call(text)).map_err(|error| {
        Error::new(
            Code::TablesIncompatible,
            format!("a column does not hold JSON, so another program wrote it: {}", error.reason),
        )
    })
}

/// A call's outcome on its way to JavaScript.
pub struct Outcome(Result<Reply>);

/// A value of a type that napi converts.
fn convert(env: &Env, value: impl ToNapiValue) -> napi::Result<sys::napi_value> {
    // SAFETY: only `Outcome::to_napi_value` calls this, with the environment that napi called it with, on that one's thread.
    unsafe { ToNapiValue::to_napi_value(env.raw(), value) }
}

impl ToNapiValue for Outcome {
    unsafe fn to_napi_value(raw_env: sys::napi_env, outcome: Self) -> napi::Result<sys::napi_value> {
        let env = Env::from_raw(raw_env);
        // A panic that crossed into Node would end the process.
        let value = caught(|| -> std::result::Result<sys::napi_value, Refusal<'_>> {
            panics::due("result");
            let value = match outcome.0? {
                Reply::Nothing => return Ok(convert(&env, ())?),
                Reply::Null => return Ok(convert(&env, napi::bindgen_prelude::Null)?),
                Reply::Boolean(value) => return Ok(convert(&env, value)?),
                Reply::Number(value) => return Ok(convert(&env, value)?),
                Reply::Json(text) => decode(&env, text)?,
                Reply::Records(slices) => {
                    let mut texts = slices.into_texts();
                    if texts.len() > 1 {
                        let texts = texts.into_iter();
                        return Ok(convert(&env, RecordReader { texts })?);
                    }
                    decode(&env, texts.pop().unwrap_or_default())?
                }
            };
            Ok(value.raw())
        });
        value.map_err(|refusal| refusal.into_thrown(&env))
    }
}

/// The promise of a call; a panic in the middle is a rejection with `INTERNAL`.
pub fn promise<F>(env: &Env, call: F) -> napi::Result<PromiseRaw<'_, Outcome>>
where
    F: Future<Output = Result<Reply>> + Send + 'static,
{
    let call = caught_in(call);
    env.spawn_future(async move { Ok(Outcome(call.await)) })
}

/// The promise of a call that is done, with nothing to tell.
pub fn resolved(env: &Env) -> napi::Result<PromiseRaw<'_, Outcome>> {
    PromiseRaw::resolve(env, Outcome(Ok(Reply::Nothing)))
}

/// The promise of a call that was refused before it began.
pub fn refused<'env>(env: &'env Env, refusal: Refusal<'env>) -> napi::Result<PromiseRaw<'env, Outcome>> {
    PromiseRaw::reject(env, refusal.into_value(env)?)
}

/// A question for a password on its way to the user's function, and the way back for the answer.
#[napi]
pub struct PasswordRequest {
    back: Option<oneshot::Sender<PasswordAnswer>>,
}

#[napi]
impl PasswordRequest {
    /// What the function gave.
    #[napi(catch_unwind, skip_typescript)]
    pub fn answer(&mut self, value: Unknown<'_>) -> napi::Result<()> {
        let kind = value.get_type()?;
        self.reply(match string(value)? {
            Some(password) if password.contains('\0') => PasswordAnswer::NoString("one with it".to_owned()),
            Some(password) => PasswordAnswer::Password(Secret::new(password)),
            None => PasswordAnswer::NoString(kind.to_string().to_lowercase()),
        });
        Ok(())
    }

    /// That the function threw, or that its promise was rejected.
    #[napi(catch_unwind, skip_typescript)]
    pub fn fail(&mut self, message: String, thrown: u32) {
        self.reply(PasswordAnswer::Threw { message, thrown });
    }

    fn reply(&mut self, answer: PasswordAnswer) {
        if let Some(back) = self.back.take() {
            // Whoever asked may have given up.
            let _ = back.send(answer);
        }
    }
}

/// The function that gives the password (as `index.js` wraps it), callable from any thread. Weak: it never keeps the process alive.
pub struct JsPasswordFunction(
    ThreadsafeFunction<
        PasswordRequest,
        UnknownReturnValue,
        PasswordRequest,
        Status,
        /* an error first: */ false,
        /* weak: */ true,
    >,
);

impl JsPasswordFunction {
    pub fn new(function: &Function<'_, PasswordRequest, UnknownReturnValue>) -> napi::Result<Self> {
        Ok(Self(
            function.build_threadsafe_function::<PasswordRequest>().weak::<true>().build()?,
        ))
    }
}

impl PasswordFunction for JsPasswordFunction {
    fn ask(&self) -> Option<oneshot::Receiver<PasswordAnswer>> {
        let (back, answer) = oneshot::channel();
        let request = PasswordRequest { back: Some(back) };
        match self.0.call(request, ThreadsafeFunctionCallMode::NonBlocking) {
            Status::Ok => Some(answer),
            // The engine of that thread ends.
            _ => None,
        }
    }
}
