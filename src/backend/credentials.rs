//! What a new connection logs in with: the certificates, and the password, which a function in the options may supply.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::once::Once;
use super::tls::Certificates;
use crate::error::{Code, Error, Result, lock};
use crate::settings::{Database, Passfile, Password, PasswordAnswer, PasswordFunction, Secret, Settings, Ssl, Wanted};

/// The login for one attempt to connect.
#[derive(Clone)]
pub struct Login {
    pub password: Option<Secret>,
    pub certificates: Certificates,
    /// The answer that supplied the password, if the password comes from a function.
    asked: Option<Arc<Once<Answer>>>,
}

impl Login {
    /// The same login with its password in another form.
    pub fn with_password(&self, password: String) -> Self {
        Self {
            password: Some(Secret::new(password)),
            ..self.clone()
        }
    }
}

struct Answer {
    password: Secret,
    came: Instant,
}

/// An empty password counts as no password, as in other clients: MySQL refuses an empty one for a user without a password.
fn given(password: &Secret) -> Option<Secret> {
    (!password.reveal().is_empty()).then(|| password.clone())
}

/// Supplies each attempt to connect with its login.
pub struct Logins {
    ssl: Ssl,
    fixed: Option<Secret>,
    asked: Option<Asked>,
    file: Option<InFile>,
}

/// A password that may be in libpq's password file.
#[derive(Clone)]
struct InFile {
    file: Passfile,
    hosts: Vec<String>,
    port: u16,
    database: String,
    user: String,
}

/// The default socket folders of PostgreSQL. The password file calls them `localhost`.
const SOCKET_FOLDERS: [&str; 3] = ["/var/run/postgresql", "/run/postgresql", "/tmp"];

impl InFile {
    fn of(settings: &Settings) -> Option<Self> {
        let Some(Password::InFile(file)) = &settings.password else {
            return None;
        };
        let server = settings.socket.as_ref().unwrap_or(&settings.host);
        let mut hosts = vec![server.clone()];
        if server == "127.0.0.1" || SOCKET_FOLDERS.contains(&server.as_str()) {
            hosts.push("localhost".to_owned());
        }
        let user = user_of(settings);
        Some(Self {
            file: file.clone(),
            hosts,
            port: settings.port,
            database: settings.name.clone().unwrap_or_else(|| user.clone()),
            user,
        })
    }

    async fn read(&self) -> Result<Option<Secret>> {
        let this = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let hosts: Vec<&str> = this.hosts.iter().map(String::as_str).collect();
            this.file.look_up(&Wanted {
                hosts: &hosts,
                port: this.port,
                database: &this.database,
                user: &this.user,
            })
        });
        read.await
            .unwrap_or_else(|_| Err(Error::internal("the password file could not be read")))
    }
}

/// The user to log in as. Without one in the settings it is the user of the operating system, as in libpq.
pub fn user_of(settings: &Settings) -> String {
    match (&settings.user, settings.database) {
        (Some(user), _) => user.clone(),
        (None, Database::Postgres) => whoami::username(),
        (None, _) => "root".to_owned(),
    }
}

/// A password function. Connections that need the password at the same time share one call.
struct Asked {
    /// `None` once the store is closed.
    function: Mutex<Option<Arc<dyn PasswordFunction>>>,
    /// The answer in use. A new one replaces it when it is older than the `ttl` or the server has refused it.
    answer: Mutex<Arc<Once<Answer>>>,
    ttl: Duration,
    patience: Duration,
    /// The database's name in messages.
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
            file: InFile::of(settings),
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
            let password = match &self.file {
                Some(file) => file.read().await?,
                None => self.fixed.clone(),
            };
            return Ok(Login {
                password,
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

    /// The server has refused this login. Returns whether the next attempt may have another password.
    pub fn refused(&self, login: &Login) -> bool {
        let (Some(asked), Some(refused)) = (&self.asked, &login.asked) else {
            return false;
        };
        let mut answer = lock(&asked.answer);
        // Unless another connection was refused with the same answer and has already replaced it.
        if Arc::ptr_eq(&answer, refused) {
            *answer = Arc::new(Once::new());
        }
        true
    }

    /// Drops the function, so that it is never called again.
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
                return Err(failed("can't be called any more, because its thread is ending".to_owned()));
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
            // Either the time is over, or the sender was dropped: the promise was garbage-collected unsettled, or its thread ended.
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
