//! Turns panics into errors. A panic is a defect of this package, and fails its call with `INTERNAL` instead of ending the process. The panic's
//! message is never shown, because it may contain user data such as a password; its location in the sources is.

use std::cell::RefCell;
use std::future::Future;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll};

use crate::error::{Error, Result};

thread_local! {
    /// The location of this thread's last panic.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Records the location of every panic from now on. The hook belongs to this addon alone, because the standard library is linked into it.
pub fn note_places() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            // A background panic rejects no call, so every panic is also written to stderr. If that fails, there is nowhere else to report it.
            let _ = writeln!(
                std::io::stderr(),
                "@batchactions/state-sqlx has a defect at {place}: please report it"
            );
            // A thread that is ending has already dropped its cell.
            let _ = PLACE.try_with(|cell| *cell.borrow_mut() = Some(place));
        }));
    });
}

/// The error that a call rejects with if it panicked on this thread.
pub fn defect() -> Error {
    let place = PLACE.try_with(|cell| cell.borrow().clone()).ok().flatten();
    let place = place.map(|place| format!(" at {place}")).unwrap_or_default();
    Error::internal(format!("a defect of this package{place} ended the call: please report it"))
}

/// Runs `body`; a panic in it becomes the error `INTERNAL`.
pub fn caught<T, E: From<Error>>(body: impl FnOnce() -> std::result::Result<T, E>) -> std::result::Result<T, E> {
    // Shared state is behind locks that no holder can leave half changed (see `error::lock`).
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Err(defect().into()))
}

/// Awaits `future`; a panic in it becomes the error `INTERNAL`.
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

/// A named place in the code where a test can trigger a panic. In a released addon it does nothing.
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

    /// Makes the next `fail_point` with this name panic with this message.
    #[napi(skip_typescript)]
    pub fn panic_at(place: String, message: String) {
        lock(&ASKED).push((place, message));
    }

    /// The requested panics that have not happened yet.
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
    async fn a_panic_becomes_an_error_without_the_panic_message() {
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
