//! The order in which a store's calls take effect, and when they may begin.
//!
//! - [`Turns`]: calls take effect in the order in which they are made, although each runs as a task of its own.
//! - [`Gate`]: after `close()` no call begins, and `close()` waits for those that have begun.
//! - [`Initialization`]: calls wait for a running `initialize()`.
//!
//! A call takes its place in each of them synchronously, on the JavaScript thread, and waits in its asynchronous part.

mod gate;
mod initialization;
mod turns;

pub use gate::{Gate, Pass};
pub use initialization::{Initialization, Initializing};
pub use turns::{Turn, Turns};
