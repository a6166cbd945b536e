//! libpq's password file: lines of `host:port:database:user:password`, where `*` in one of the first four fields matches anything.

use std::path::{Path, PathBuf};

use super::secret::Secret;
use crate::error::{Code, Error, Quoted, Result};

/// The file to look for the password in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passfile {
    path: PathBuf,
    /// Whether the user named it. If so, it must be readable; the file in the home folder need not exist.
    named: bool,
}

/// The login that needs a password.
pub struct Wanted<'a> {
    /// The names of the server, any of which may be in the file.
    pub hosts: &'a [&'a str],
    pub port: u16,
    pub database: &'a str,
    pub user: &'a str,
}

impl Passfile {
    /// `PGPASSFILE`, else the file in the home folder.
    pub(super) fn find(named: Option<&str>, home: Option<&str>, app_data: Option<&str>) -> Option<Self> {
        if let Some(named) = named {
            return Some(Self {
                path: named.into(),
                named: true,
            });
        }
        let path = if cfg!(windows) {
            Path::new(app_data?).join("postgresql").join("pgpass.conf")
        } else {
            Path::new(home?).join(".pgpass")
        };
        Some(Self { path, named: false })
    }

    /// The password of the first matching line. Reading the file blocks.
    pub fn look_up(&self, wanted: &Wanted<'_>) -> Result<Option<Secret>> {
        let read = may_be_read_by_others(&self.path).and_then(|open| Ok((open, std::fs::read(&self.path)?)));
        match read {
            Ok((false, content)) => Ok(password_in(&String::from_utf8_lossy(&content), wanted)),
            // libpq ignores it too.
            Ok((true, _)) if !self.named => Ok(None),
            Ok((true, _)) => Err(self.refuse("can be read by others, so it is not used: chmod 600")),
            Err(_) if !self.named => Ok(None),
            Err(error) => Err(self.refuse(&format!("can't be read: {error}"))),
        }
    }

    fn refuse(&self, why: &str) -> Error {
        Error::new(
            Code::InvalidConnection,
            format!("the password file {} (PGPASSFILE) {why}", Quoted(&self.path.to_string_lossy())),
        )
    }
}

#[cfg(unix)]
fn may_be_read_by_others(path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    let file = std::fs::metadata(path)?;
    if !file.is_file() {
        return Err(std::io::Error::other("it is no plain file"));
    }
    Ok(file.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn may_be_read_by_others(path: &Path) -> std::io::Result<bool> {
    std::fs::metadata(path).map(|_| false)
}

fn password_in(content: &str, wanted: &Wanted<'_>) -> Option<Secret> {
    let port = wanted.port.to_string();
    content
        .lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let (fields, password) = fields_of(line)?;
            let [host, at, database, user] = &fields;
            let fits = |field: &String, value: &str| field == "*" || unescaped(field) == value;
            (wanted.hosts.iter().any(|name| fits(host, name))
                && fits(at, &port)
                && fits(database, wanted.database)
                && fits(user, wanted.user))
            .then(|| unescaped(password))
        })
        .filter(|password| !password.is_empty())
        .map(Secret::new)
}

/// The first four fields, still escaped, and the rest of the line, which is the password.
fn fields_of(line: &str) -> Option<([String; 4], &str)> {
    let mut fields = [const { String::new() }; 4];
    let mut rest = line;
    for field in &mut fields {
        let mut escaped = false;
        let end = rest.find(|character| {
            let ends = character == ':' && !escaped;
            escaped = character == '\\' && !escaped;
            ends
        })?;
        *field = rest[..end].to_owned();
        rest = &rest[end + 1..];
    }
    Some((fields, rest))
}

/// The text without the backslashes that escape a colon or a backslash.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        out.push(match character {
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let file = "# a comment\nother:5432:db:me:no\nh:5432:db:me:p\\:w\\\\d:x\n*:*:*:*:last\nbroken\n";
        let password = |hosts: &[&str], database: &str, user: &str| {
            password_in(
                file,
                &Wanted {
                    hosts,
                    port: 5432,
                    database,
                    user,
                },
            )
            .map(|password| password.reveal().to_owned())
        };
        assert_eq!(password(&["h"], "db", "me").as_deref(), Some("p:w\\d:x"));
        assert_eq!(password(&["elsewhere", "h"], "db", "me").as_deref(), Some("p:w\\d:x"));
        assert_eq!(password(&["h"], "db2", "me").as_deref(), Some("last"));
        assert_eq!(
            password_in(
                "h:1:d:u:\n",
                &Wanted {
                    hosts: &["h"],
                    port: 1,
                    database: "d",
                    user: "u"
                }
            ),
            None
        );
        let escaped = "a\\:b:1:d:u:x\n";
        assert!(
            password_in(
                escaped,
                &Wanted {
                    hosts: &["a:b"],
                    port: 1,
                    database: "d",
                    user: "u"
                }
            )
            .is_some()
        );
    }
}
