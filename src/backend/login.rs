//! What a new connection logs in with: the certificates, and the password, which a function of the user's may give.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::once::Once;
use super::tls::Certificates;
use crate::connection::{Password, PasswordAnswer, PasswordFunction, Secret, Settings, Ssl};
use crate::error::{Code, Error, Result, lock};

/// What one attempt to connect is made with.
pub struct Login {
    pub password: Option<Secret>,
    pub certificates: Certificates,
    /// The answer that the password is from, where a function gave it.
    asked: Option<Arc<Once<Answer>>>,
}

struct Answer {
    password: Secret,
    came: Instant,
}

/// As other clients have it, an empty password is none: MySQL refuses one where the user has none.
fn given(password: &Secret) -> Option<Secret> {
    (!password.reveal().is_empty()).then(|| password.clone())
}

/// Gives each attempt to connect its login.
pub struct Logins {
    ssl: Ssl,
    fixed: Option<Secret>,
    asked: Option<Asked>,
}

/// A password that is asked for when it is needed, once for all who need it at the same time.
struct Asked {
    /// Until the store is closed.
    function: Mutex<Option<Arc<dyn PasswordFunction>>>,
    /// The answer in use. Another takes its place when it is too old or was refused.
    answer: Mutex<Arc<Once<Answer>>>,
    ttl: Duration,
    patience: Duration,
    /// The database, as messages name it.
    place: Arc<str>,
}

impl Logins {
    pub fn new(settings: &Settings, place: Arc<str>) -> Self {
        Self {
            ssl: settings.ssl.clone(),
            fixed: match &settings.password {
                Some(Password::Fixed(password)) => given(password),
                _ => None,
            },
            asked: settings.password_function.clone().map(|function| Asked {
                function: Mutex::new(Some(function)),
                answer: Mutex::new(Arc::new(Once::new())),
                ttl: settings.password_ttl,
                patience: settings.connect_timeout,
                place,
            }),
        }
    }

    pub async fn next(&self) -> Result<Login> {
        let certificates = Certificates::read(&self.ssl).await?;
        let Some(asked) = &self.asked else {
            return Ok(Login {
                password: self.fixed.clone(),
                certificates,
                asked: None,
            });
        };
        let once = asked.current();
        let password = given(&once.get_or_try_init(|| asked.ask()).await?.password);
        Ok(Login {
            password,
            certificates,
            asked: Some(once),
        })
    }

    /// The server refused this login. Whether the next one may have another password.
    pub fn refused(&self, login: &Login) -> bool {
        let (Some(asked), Some(refused)) = (&self.asked, &login.asked) else {
            return false;
        };
        let mut answer = lock(&asked.answer);
        // Unless somebody else has been refused the same one, and has asked already.
        if Arc::ptr_eq(&answer, refused) {
            *answer = Arc::new(Once::new());
        }
        true
    }

    /// Asks nobody from now on, and lets go of the function.
    pub fn end(&self) {
        if let Some(asked) = &self.asked {
            lock(&asked.function).take();
        }
    }
}

impl Asked {
    fn current(&self) -> Arc<Once<Answer>> {
        let mut answer = lock(&self.answer);
        if answer.get().is_some_and(|answer| answer.came.elapsed() >= self.ttl) {
            *answer = Arc::new(Once::new());
        }
        answer.clone()
    }

    async fn ask(&self) -> Result<Answer> {
        let failed = |why: String| {
            Error::new(
                Code::ConnectionFailed,
                format!("could not connect to {}: the function password {why}", self.place),
            )
        };
        let question = lock(&self.function).as_ref().map(|function| function.ask());
        let answer = match question {
            None => return Err(Error::closed()),
            Some(None) => {
                return Err(failed(
                    "can't be called any more, for the thread that it belongs to ends".to_owned(),
                ));
            }
            Some(Some(answer)) => answer,
        };
        let password = match timeout(self.patience, answer).await {
            Ok(Ok(PasswordAnswer::Password(password))) => password,
            Ok(Ok(PasswordAnswer::NoString(what))) => {
                return Err(Error::invalid(format!(
                    "the function password must give a string without U+0000, or a promise of one, and it gave {what}"
                )));
            }
            Ok(Ok(PasswordAnswer::Threw { message, thrown })) => {
                return Err(failed(format!("failed: {message}")).caused_by_thrown(message, thrown));
            }
            // Nobody holds its promise any more, so it never settles.
            Ok(Err(_)) | Err(_) => {
                return Err(failed(format!(
                    "gave no answer within {} ms (connectTimeoutMs)",
                    self.patience.as_millis()
                )));
            }
        };
        Ok(Answer {
            password,
            came: Instant::now(),
        })
    }
}
