//! In which order the calls of a store take effect, and when they may begin.
//!
//! - [`Turns`]: what was called first takes effect first, although each call runs as a task of its own.
//! - [`Gate`]: after `close()` no call begins, and `close()` waits for those that have begun.
//! - [`Initialization`]: calls wait for an `initialize()` that is under way.
//!
//! A call takes its place in each of them synchronously, on the JavaScript thread, and waits in its asynchronous part.

mod gate;
mod initialization;
mod turns;

pub use gate::{Gate, Pass};
pub use initialization::{Initialization, Initializing};
pub use turns::{Turn, Turns};
