//! Panics: each is a defect of this package, and ends the call that it happens in with `INTERNAL`, never the process. The message of a panic is shown
//! nowhere, because it may hold what the user gave, a password say. Its place in the sources is shown.

use std::cell::RefCell;
use std::future::Future;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll};

use crate::error::{Error, Result};

thread_local! {
    /// Where this thread panicked last.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes the place of every panic from now on. The hook is this addon's own: the standard library is linked into it.
pub fn note_places() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            // A panic in the background rejects no call, so every panic is written here too. Where that fails, there is no other place for it.
            let _ = writeln!(
                std::io::stderr(),
                "@batchactions/state-sqlx has a defect at {place}: please report it"
            );
            // A thread that is ending has dropped its cell.
            let _ = PLACE.try_with(|cell| *cell.borrow_mut() = Some(place));
        }));
    });
}

/// What a call that panicked on this thread rejects with.
pub fn defect() -> Error {
    let place = PLACE.try_with(|cell| cell.borrow().clone()).ok().flatten();
    let place = place.map(|place| format!(" at {place}")).unwrap_or_default();
    Error::internal(format!("a defect of this package{place} ended the call: please report it"))
}

/// Runs `body`; a panic in it is the error `INTERNAL`.
pub fn caught<T, E: From<Error>>(body: impl FnOnce() -> std::result::Result<T, E>) -> std::result::Result<T, E> {
    // Shared state is behind locks whose holders can't leave it half changed (see `error::lock`).
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Err(defect().into()))
}

/// Awaits `future`; a panic in it is the error `INTERNAL`.
pub fn caught_in<T>(future: impl Future<Output = Result<T>> + Send + 'static) -> impl Future<Output = Result<T>> + Send {
    Caught(Box::pin(future))
}

struct Caught<T>(Pin<Box<dyn Future<Output = Result<T>> + Send>>);

impl<T> Future for Caught<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let future = &mut self.0;
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))).unwrap_or_else(|_| Poll::Ready(Err(defect())))
    }
}

/// A named place where a test can ask for a panic. In a released addon it does nothing.
#[cfg(not(feature = "test-hooks"))]
#[inline(always)]
pub fn fail_point(_place: &str) {}

#[cfg(feature = "test-hooks")]
pub use hooks::fail_point;

#[cfg(feature = "test-hooks")]
mod hooks {
    use std::sync::Mutex;

    use napi_derive::napi;

    use crate::error::lock;

    static ASKED: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

    /// The next call of `fail_point` with this place panics with this message.
    #[napi(skip_typescript)]
    pub fn panic_at(place: String, message: String) {
        lock(&ASKED).push((place, message));
    }

    /// The places that were asked for and not reached yet.
    #[napi(skip_typescript)]
    pub fn panics_to_come() -> Vec<String> {
        lock(&ASKED).iter().map(|(place, _)| place.clone()).collect()
    }

    #[track_caller]
    #[allow(clippy::panic, reason = "that is what it is for")]
    pub fn fail_point(place: &str) {
        let message = {
            let mut asked = lock(&ASKED);
            asked.iter().position(|(at, _)| at == place).map(|found| asked.remove(found).1)
        };
        if let Some(message) = message {
            panic!("{message}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[tokio::test]
    async fn a_panic_is_an_error_that_does_not_say_what_the_panic_said() {
        let errors = [
            caught(|| -> Result<()> { panic!("hunter2") }).unwrap_err(),
            caught_in(async { if true { panic!("hunter2") } else { Ok(()) } })
                .await
                .unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.code, Code::Internal);
            assert!(!error.message.contains("hunter2"), "{error}");
        }
        assert_eq!(caught(|| Ok::<_, Error>(7)).unwrap(), 7);
        assert_eq!(caught_in(async { Ok(7) }).await.unwrap(), 7);
    }
}
