//! Where the password comes from: fixed text, a function in the options, or libpq's password file.

use tokio::sync::oneshot;

use super::passfile::Passfile;
use super::secret::Secret;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    Fixed(Secret),
    /// From `Settings::password_function`, for each connection that needs a newer answer.
    Asked,
    /// From a password file, read for each connection.
    InFile(Passfile),
}

impl Password {
    /// The password, if it is known before a connection is made.
    pub fn fixed(&self) -> Option<&str> {
        match self {
            Password::Fixed(secret) => Some(secret.reveal()),
            Password::Asked | Password::InFile(_) => None,
        }
    }
}

/// The answer of a [`PasswordFunction`].
#[derive(Debug)]
pub enum PasswordAnswer {
    Password(Secret),
    /// It returned something other than a usable string, which the text describes.
    NoString(String),
    /// It threw, or its promise was rejected. `thrown` is the key under which `index.js` keeps the value.
    Threw {
        message: String,
        thrown: u32,
    },
}

/// A function in the options that supplies a password.
pub trait PasswordFunction: Send + Sync {
    /// Calls it; `None` if its JavaScript thread has ended. The sender is dropped without an answer if that thread ends first.
    fn ask(&self) -> Option<oneshot::Receiver<PasswordAnswer>>;
}
