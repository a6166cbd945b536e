//! The password function in the options: the settings' `PasswordFunction` as a call into JavaScript.

use napi::Status;
use napi::bindgen_prelude::{Function, Unknown};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode, UnknownReturnValue};
use napi_derive::napi;
use tokio::sync::oneshot;

use crate::js::boundary::string;
use crate::settings::{PasswordAnswer, PasswordFunction, Secret};

/// A request for a password on its way to the user's function, with the channel for the answer.
#[napi]
pub struct PasswordRequest {
    back: Option<oneshot::Sender<PasswordAnswer>>,
}

#[napi]
impl PasswordRequest {
    /// The function's return value.
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

    /// The function threw, or its promise was rejected.
    #[napi(catch_unwind, skip_typescript)]
    pub fn fail(&mut self, message: String, thrown: u32) {
        self.reply(PasswordAnswer::Threw { message, thrown });
    }

    fn reply(&mut self, answer: PasswordAnswer) {
        if let Some(back) = self.back.take() {
            // The connection that asked may have given up.
            let _ = back.send(answer);
        }
    }
}

/// The password function (as `index.js` wraps it), callable from any thread. It is weak, so it never keeps the process alive.
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
            // The thread of the function is ending.
            _ => None,
        }
    }
}
