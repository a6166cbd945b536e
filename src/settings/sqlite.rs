//! SQLite's file: the forms of a `sqlite:` URL, and file names.

use super::errors::invalid_connection;
use super::partial::PartialSettings;
use super::percent_decoding::decoded;
use crate::error::Result;

/// Reads the text after `sqlite:`.
pub fn read(rest: &str) -> Result<PartialSettings> {
    let rest = rest.strip_prefix("file:").unwrap_or(rest);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = path.strip_prefix("//").unwrap_or(path);
    // Messages show the file's name, and would also show a login in it.
    let login = |part: &str| part.rsplit_once('@').is_some_and(|(login, _)| login.contains(':'));
    if rest.split('/').any(login) || decoded("path", path)?.contains("://") {
        return Err(invalid_connection(
            "a sqlite URL names a file and has no host and no login: sqlite:file.db or sqlite:///absolute/file.db",
        ));
    }
    let path = decoded("path", path)?;
    let mut partial = PartialSettings::default();
    let mut in_memory = path == "/:memory:";
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        in_memory |= take_parameter(&mut partial, &decoded("parameter", key)?, value)?;
    }
    partial.file = if in_memory {
        None
    } else {
        file(without_slash(&path, cfg!(windows)))?
    };
    Ok(partial)
}

/// Accepts or refuses one parameter. Returns whether it makes the database an in-memory one.
fn take_parameter(partial: &mut PartialSettings, key: &str, value: &str) -> Result<bool> {
    let refuse = |why: &str| Err(invalid_connection(format!("the sqlite URL's parameter {key} {why}")));
    match (key, value) {
        ("mode", "rwc") | ("cache", "private") | ("immutable" | "nolock", "0") => Ok(false),
        ("mode", "rw") => {
            partial.must_exist = true;
            Ok(false)
        }
        ("mode", "memory") => Ok(true),
        ("mode", "ro") | ("immutable", _) => refuse("asks for a database that is not written to, and this store writes: give mode=rwc"),
        ("mode", _) => refuse("must be rwc, rw or memory"),
        ("cache", _) => refuse("asks for a cache that connections share, which this store does not use: leave it out"),
        ("nolock" | "vfs", _) => refuse("asks for other access to the file than SQLite's default: leave it out"),
        ("key" | "hexkey" | "cipher", _) => {
            refuse("asks for encryption, which this store's SQLite does not support: a sqlite URL takes no parameters but mode")
        }
        _ if !key.is_empty() && key.len() <= 64 && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
            partial.ignored.push(key.to_owned());
            Ok(false)
        }
        _ => Err(invalid_connection(
            "a sqlite URL takes no parameters but mode: write a ? in the file's name as %3F",
        )),
    }
}

/// On Windows, the path `/C:/x.db` of a URL is the file `C:/x.db`.
fn without_slash(path: &str, on_windows: bool) -> &str {
    match path.as_bytes() {
        [b'/', drive, b':', ..] if on_windows && drive.is_ascii_alphabetic() => &path[1..],
        _ => path,
    }
}

/// The file that a URL, `storage` or a Sequelize instance names; `None` is a database in memory.
pub fn file(storage: &str) -> Result<Option<String>> {
    match storage {
        ":memory:" => Ok(None),
        "" => Err(invalid_connection(
            "SQLite needs a file: sqlite:file.db, sqlite:///absolute/file.db or sqlite::memory:",
        )),
        file if file.contains('\0') => Err(invalid_connection("SQLite's file name holds the character U+0000")),
        file => Ok(Some(file.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::without_slash;

    #[test]
    fn a_drive_is_one_on_windows_only() {
        assert_eq!(without_slash("/C:/x.db", true), "C:/x.db");
        assert_eq!(without_slash("/C:/x.db", false), "/C:/x.db");
        assert_eq!(without_slash("/data/x.db", true), "/data/x.db");
    }
}
