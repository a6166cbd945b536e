use super::*;

mod environment;
mod refused;
mod sequelize;
mod shown;
mod urls;

fn url(url: &str) -> Result<Settings> {
    Settings::from_json(&serde_json::json!({ "url": url }).to_string(), "{}")
}

fn error_of(result: Result<Settings>) -> Error {
    match result {
        Ok(_) => panic!("should have been refused"),
        Err(error) => error,
    }
}

#[test]
fn a_url_says_where_the_database_is() {
    let settings = url("postgres://us%40er:p%2Fw@db.example:6000/my%20db?sslmode=require&application_name=x").unwrap();
    assert_eq!(
        (settings.database, &*settings.host, settings.port),
        (Database::Postgres, "db.example", 6000)
    );
    assert_eq!((settings.user.as_deref(), settings.name.as_deref()), (Some("us@er"), Some("my db")));
    assert_eq!(settings.password, Some(Password::Fixed(Secret::new("p/w".to_owned()))));
    assert_eq!(
        (settings.ssl.mode(), settings.application_name.as_deref()),
        (SslMode::Require, Some("x"))
    );

    let settings = url("mariadb://root@[::1]/test").unwrap();
    assert_eq!((settings.database, &*settings.host, settings.port), (Database::MySql, "::1", 3306));
    assert_eq!(
        url("postgres:///db?host=/run/postgresql").unwrap().socket.as_deref(),
        Some("/run/postgresql")
    );
    assert_eq!(
        url("postgres://%2Frun%2Fpostgresql/db").unwrap().socket.as_deref(),
        Some("/run/postgresql")
    );
}

#[test]
fn a_sqlite_url_is_a_file_or_memory() {
    for (text, file) in [
        ("sqlite::memory:", None),
        ("sqlite:relative.db", Some("relative.db")),
        ("sqlite://relative.db", Some("relative.db")),
        ("sqlite:///absolute.db", Some("/absolute.db")),
        ("sqlite:a%20b.db", Some("a b.db")),
    ] {
        assert_eq!(url(text).unwrap().file.as_deref(), file, "{text}");
    }
    assert_eq!(error_of(url("sqlite:")).code, Code::InvalidConnection);
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

#[test]
fn places_name_no_user_and_no_password() {
    let place = url("mysql://us3r:hunter2@h:1/db").unwrap().place();
    assert_eq!(place, "MySQL database \"db\" at h:1");
    assert_eq!(
        format!("{:?}", url("mysql://us3r:hunter2@h:1/db").unwrap().password),
        "Some(Fixed((secret)))"
    );
}

fn sequelize(json: serde_json::Value) -> Result<Settings> {
    Settings::from_json(&serde_json::json!({ "sequelize": json }).to_string(), "{}")
}

#[test]
fn a_sequelize_instance_says_the_same() {
    let settings = sequelize(serde_json::json!({
        "dialect": "postgres",
        "config": { "host": "h", "port": "6000", "database": "d", "username": "u", "password": null, "pool": { "max": 3 } },
        "options": { "define": { "schema": "s" }, "dialectOptions": { "ssl": { "rejectUnauthorized": false, "ca": "x" } } },
    }))
    .unwrap();
    assert_eq!((&*settings.host, settings.port, settings.pool_max), ("h", 6000, 3));
    assert_eq!((settings.schema.as_deref(), settings.ssl.mode()), (Some("s"), SslMode::Require));

    let settings = sequelize(serde_json::json!({
        "dialect": "mysql",
        "config": { "host": "read", "port": 1, "database": "d", "username": "u", "password": "p", "pool": {} },
        "options": { "replication": { "write": { "host": "write" } }, "dialectOptions": { "ssl": true } },
    }))
    .unwrap();
    assert_eq!(
        (&*settings.host, settings.port, settings.pool_max, settings.ssl.mode()),
        ("write", 1, 10, SslMode::VerifyCa)
    );
    assert!(
        sequelize(serde_json::json!({ "dialect": "sqlite", "config": { "host": "localhost" } }))
            .unwrap()
            .file
            .is_none()
    );
    assert_eq!(
        sequelize(serde_json::json!({ "dialect": "sqlite", "config": { "host": "rel.db" } }))
            .unwrap()
            .file
            .as_deref(),
        Some("rel.db")
    );
}

#[test]
fn a_sequelize_instance_with_other_tables_is_refused() {
    let refused = |json| error_of(sequelize(json));
    let underscored = refused(serde_json::json!({ "dialect": "postgres", "options": { "define": { "underscored": true } } }));
    assert!(underscored.message.contains("underscored") && underscored.code == Code::InvalidConnection);
    let schema = refused(serde_json::json!({ "dialect": "mysql", "options": { "define": { "schema": "s" } } }));
    assert!(schema.message.contains("define.schema") && schema.code == Code::InvalidConnection);
    assert_eq!(refused(serde_json::json!({ "dialect": "oracle" })).code, Code::UnsupportedDatabase);
}

#[test]
fn options_are_taken_or_refused_by_name() {
    let with = |options: &str| Settings::from_json(r#"{"url":"postgres://h/d"}"#, options);
    let settings = with(
        r#"{"pool":{"max":4,"min":2},"statementTimeoutMs":5,"leaseRenewal":{"everyMs":1,"forMs":2},"maxClaims":3,"schema":"s","tablePrefix":"p"}"#,
    )
    .unwrap();
    assert_eq!(
        (settings.pool_max, settings.pool_min, settings.max_claims),
        (4, 2, Some(crate::model::MaxClaims(3)))
    );
    assert_eq!(settings.lease_renewal.unwrap().for_at_most, Duration::from_millis(2));
    for (options, named) in [
        (r#"{"x":1}"#, "options.x"),
        (r#"{"pool":null}"#, "options.pool"),
        (r#"{"pool":{"max":0}}"#, "options.pool.max"),
        (r#"{"pool":{"max":2,"min":3}}"#, "options.pool.min"),
        (r#"{"statementTimeoutMs":"5"}"#, "options.statementTimeoutMs"),
        (r#"{"leaseRenewal":{"everyMs":1}}"#, "options.leaseRenewal.forMs"),
        (r#"{"durability":"never"}"#, "options.durability"),
        (r#"{"ssl":{"mode":"maybe"}}"#, "options.ssl.mode"),
        (r#"{"ssl":{"mode":"prefer","ca":"c"}}"#, "options.ssl.mode"),
        (r#"{"ssl":{"cert":"c"}}"#, "options.ssl.cert"),
        (r#"{"password":5}"#, "options.password"),
        (r#"{"password":"p","passwordTtlMs":5}"#, "options.passwordTtlMs"),
    ] {
        let error = error_of(with(options));
        assert!(
            error.code == Code::InvalidArgument && error.message.contains(named),
            "{options}: {}",
            error.message
        );
    }
}

#[test]
fn who_gives_an_authority_wants_it_checked() {
    let mode = |url: &str, options: &str| {
        let source = serde_json::json!({ "url": format!("postgres://h/d{url}") }).to_string();
        Settings::from_json(&source, options).unwrap().ssl.mode()
    };
    for (url, options, expected) in [
        ("", "{}", SslMode::Prefer),
        ("", r#"{"ssl":{}}"#, SslMode::Prefer),
        ("", r#"{"ssl":{"ca":"c"}}"#, SslMode::VerifyFull),
        ("?sslrootcert=c", "{}", SslMode::VerifyFull),
        ("?sslmode=require", "{}", SslMode::Require),
        ("?sslmode=require&sslrootcert=c", "{}", SslMode::VerifyCa),
        ("?sslmode=require", r#"{"ssl":{"ca":"c"}}"#, SslMode::VerifyCa),
        (
            "?sslmode=verify-ca&sslrootcert=c",
            r#"{"ssl":{"mode":"verify-full"}}"#,
            SslMode::VerifyFull,
        ),
        ("?sslrootcert=c", r#"{"ssl":{"mode":"disable"}}"#, SslMode::Disable),
    ] {
        assert_eq!(mode(url, options), expected, "{url} {options}");
    }
}

#[test]
fn a_function_gives_the_password_where_the_settings_say_so() {
    struct Never;
    impl PasswordFunction for Never {
        fn ask(&self) -> Option<oneshot::Receiver<PasswordAnswer>> {
            None
        }
    }
    let function = || Some(Arc::new(Never) as Arc<dyn PasswordFunction>);
    let settings = |url: &str, asks: bool, options: &str| {
        let source = serde_json::json!({ "url": url, "asksForPassword": asks });
        Settings::from_json(&source.to_string(), options).unwrap()
    };
    let asking = |url: &str| settings(url, true, r#"{"passwordTtlMs":7}"#);

    let with = asking("mysql://u:p@h/d").with_password_function(function()).unwrap();
    assert!(with.password_function.is_some());
    assert_eq!(
        (with.password, with.password_ttl),
        (Some(Password::Asked), Duration::from_millis(7))
    );
    assert_eq!(
        error_of(asking("mysql://u:p@h/d").with_password_function(None)).code,
        Code::InvalidConnection
    );
    let fixed = settings("mysql://u:p@h/d", false, r#"{"password":"q"}"#)
        .with_password_function(function())
        .unwrap();
    assert!(fixed.password_function.is_none());
    assert_eq!(fixed.password, Some(Password::Fixed(Secret::new("q".to_owned()))));
    let sqlite = asking("sqlite::memory:").with_password_function(function()).unwrap();
    assert!(sqlite.password_function.is_none());
}
