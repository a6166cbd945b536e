//! A URL in, words out: what is refused says what to do instead, and never shows the password.

use super::shown::of_url;
use super::{error_of, url};
use crate::error::Code;
use crate::settings::Settings;

/// Each URL is refused with words that hold all of these.
fn check(code: &str, table: &[(&str, &[&str])]) {
    for (url, says) in table {
        let outcome = of_url(url, &[]);
        assert!(outcome.starts_with(&format!("{code}: ")), "{url}: {outcome}");
        for words in *says {
            assert!(outcome.contains(words), "{url}: {outcome}");
        }
        assert!(!outcome.contains("hunter2"), "{url}: {outcome}");
    }
}

#[test]
fn a_password_that_is_not_escaped_says_how_to_write_it() {
    let words: &[&str] = &["percent-encode", "%2F", "%3F", "%23", "%40"];
    check(
        "refused",
        &[
            ("postgres://u:1/hunter2@h/db", words),
            ("postgres://u:1?hunter2@h/db", words),
            ("postgres://u:1#hunter2@h/db", words),
            ("postgres://u:p?x=hunter2@h/db", words),
            ("postgres://u:p@x?hunter2@h/db", words),
            ("mysql://u:p@hunter2/q@h/db", words),
            ("postgres://u:hunter2/x/db", &["port", "%2F"]),
        ],
    );
}

#[test]
fn a_scheme_of_another_tool_says_what_to_write() {
    check(
        "refused",
        &[
            ("postgresql+asyncpg://u:hunter2@h/d", &["postgresql+asyncpg", "write postgresql://"]),
            ("postgres+psycopg://u:hunter2@h/d", &["write postgres://"]),
            ("mysql+pymysql://u:hunter2@h/d", &["write mysql://"]),
            ("mysql2://u:hunter2@h/d", &["mysql2", "write mysql://"]),
            ("jdbc:postgresql://h/d?user=u&password=hunter2", &["jdbc", "leave out jdbc:"]),
            ("prisma://accelerate.prisma-data.net/?api_key=hunter2", &["prisma", "directUrl"]),
            ("file:./dev.db", &["write sqlite:"]),
            ("\"postgres://u:hunter2@h/d\"", &["quotes"]),
            ("'postgres://u:hunter2@h/d'", &["quotes"]),
            ("psql 'postgres://u:hunter2@h/d'", &["quotes"]),
            ("DATABASE_URL=postgres://u:hunter2@h/d", &["nothing in front"]),
            ("postgres:u:hunter2@h/d", &["must begin with postgres://"]),
        ],
    );
    check(
        "UNSUPPORTED_DATABASE",
        &[
            ("mssql://sa:hunter2@h/d", &["mssql", "not served yet", "never worked"]),
            ("sqlserver://h;user=sa;password=hunter2", &["sqlserver", "not served yet"]),
            ("mongodb://u:hunter2@h/d", &["mongodb"]),
        ],
    );
}

#[test]
fn what_cannot_be_given_is_refused_and_never_weakened() {
    check(
        "refused",
        &[
            ("postgres://u:hunter2@a:1,b:2/d", &["several hosts"]),
            ("postgres://u:hunter2@/d?host=a,b", &["several hosts"]),
            ("postgres://h/d?sslcrl=x", &["sslcrl", "can't give"]),
            ("postgres://h/d?sslpassword=hunter2", &["sslpassword", "decrypt the key"]),
            ("postgres://h/d?sslnegotiation=direct", &["sslnegotiation"]),
            ("postgres://h/d?sslsni=0", &["sslsni"]),
            ("postgres://h/d?ssl_min_protocol_version=TLSv1.3", &["ssl_min_protocol_version"]),
            ("postgres://h/d?gssencmode=require", &["gssencmode"]),
            ("postgres://h/d?require_auth=scram-sha-256", &["require_auth"]),
            ("postgres://h/d?service=x", &["service", "host, port"]),
            ("mysql://h/d?useSSL=true", &["useSSL", "VERIFY_IDENTITY"]),
            ("mysql://h/d?requireSSL=true", &["requireSSL"]),
            ("mysql://h/d?tls=true", &["tls", "sslmode"]),
            ("mysql://h/d?ssl=Amazon%20RDS", &["ssl", "rejectUnauthorized"]),
            ("mysql://h/d?ssl={%22pfx%22:1}", &["ssl", "rejectUnauthorized"]),
            ("mysql://h/d?ssl={%22minVersion%22:%22TLSv1.3%22}", &["minVersion", "TLSv1.2"]),
            ("mysql://h/d?sslidentity=x", &["sslidentity"]),
            ("mysql://h/d?schema=x", &["schema", "PostgreSQL only"]),
            ("mysql://h/d?channel_binding=require", &["channel_binding", "PostgreSQL only"]),
            (
                "postgres://h/d?channel_binding=require&sslmode=disable",
                &["channel_binding=require", "leave out"],
            ),
            (
                "postgres:///d?channel_binding=require&host=/f",
                &["channel_binding=require", "socket"],
            ),
            (
                "postgres://h/d?sslrootcert=system&sslmode=disable",
                &["sslrootcert=system", "leave out"],
            ),
            ("postgres://h/d?sslrootcert=c&sslmode=prefer", &["verify-full"]),
            ("postgres://h/d?sslmode=verify-full&ssl=no-verify", &["two parameters"]),
            ("postgres://h/d?ssl=true&sslmode=disable", &["two parameters"]),
            ("postgres://h/d?target_session_attrs=standby", &["takes no writes", "read-write"]),
            ("postgres://h/d?pgbouncer=true&options=-B%205", &["pooler"]),
            ("postgres://h/d?hostaddr=10.0.0.1&sslmode=verify-full", &["hostaddr"]),
            ("sqlite:f.db?mode=ro", &["mode", "writes"]),
            ("sqlite:f.db?key=hunter2", &["no parameters"]),
            ("sqlite:f.db?cache=shared", &["cache"]),
        ],
    );
}

#[test]
fn a_value_that_is_none_is_named() {
    check(
        "refused",
        &[
            ("postgres://h/d?sslmode=sure", &["sslmode", "\"sure\"", "verify-full"]),
            ("postgres://h/d?connect_timeout=soon", &["connect_timeout", "\"soon\"", "seconds"]),
            ("postgres://h/d?connection_limit=0", &["connection_limit", "\"0\""]),
            ("postgres://h/d?pgbouncer=maybe", &["pgbouncer", "\"maybe\""]),
            ("postgres://h/d?port=x", &["port", "\"x\""]),
            ("postgres://h/d?channel_binding=maybe", &["channel_binding", "\"maybe\""]),
            ("postgres://h/d?target_session_attrs=maybe", &["target_session_attrs", "\"maybe\""]),
            ("postgres://h/d?schema=$user", &["schema"]),
            ("postgres://h/d?hostaddr=name", &["hostaddr", "IP address"]),
            ("postgres://[nonsense]/d", &["IPv6"]),
            ("mysql://h/d?sslaccept=maybe", &["sslaccept", "\"maybe\""]),
            ("postgres://h:0/d", &["port", "not 0"]),
            ("postgres://h:99999/d", &["port", "99999"]),
            ("postgres://me:12345678/d", &["port", "something else"]),
            ("mysql://h/d?connectTimeout=soon", &["connectTimeout", "milliseconds"]),
            ("postgres://u@h/d?password=abc&hunter2", &["percent-encode", "%26"]),
        ],
    );
}

#[test]
fn a_url_that_is_wrong_is_refused_without_its_password() {
    for (text, code, says) in [
        ("nonsense", Code::InvalidConnection, "no scheme"),
        ("mssql://sa:hunter2@h/db", Code::UnsupportedDatabase, "mssql"),
        ("postgres://u:hunter2@h:port/db", Code::InvalidConnection, "port"),
        ("postgres://u:hunter2@h/db?sslmode=sure", Code::InvalidConnection, "sure"),
        ("mysql://u:hunter2@h", Code::InvalidConnection, "name of the database"),
        ("sqlite:f.db?key=hunter2", Code::InvalidConnection, "no parameters"),
        ("postgres://u:1/hunter2@h/db", Code::InvalidConnection, "percent-encode"),
        ("postgres://u:1?hunter2@h/db", Code::InvalidConnection, "percent-encode"),
    ] {
        let error = error_of(url(text));
        assert_eq!(error.code, code, "{text}");
        assert!(
            error.message.contains(says) && !error.message.contains("hunter2"),
            "{}",
            error.message
        );
    }
}

#[test]
fn what_a_server_takes_for_the_end_of_a_text_is_refused() {
    for text in [
        "postgres://u:p@h/d?application_name=x%00user%00admin",
        "postgres://u:p%00q@h/d",
        "postgres://h/d%00x",
    ] {
        let error = error_of(url(text));
        assert!(
            error.code == Code::InvalidConnection && error.message.contains("U+0000"),
            "{text}: {}",
            error.message
        );
    }
    let parts = serde_json::json!({ "parts": { "dialect": "mysql", "database": "d", "password": "a\u{0}b" } });
    assert!(error_of(Settings::from_json(&parts.to_string(), "{}")).message.contains("U+0000"));
}
