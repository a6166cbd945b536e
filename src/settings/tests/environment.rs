//! libpq's environment: it fills in what the place leaves open, and is obeyed or refused.

use super::shown::{of_url, outcome};
use crate::settings::Settings;

type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

#[test]
fn the_environment_fills_in_what_the_url_leaves_open() {
    let table: &[Row] = &[
        (
            "postgres://",
            &[
                ("PGHOST", "h"),
                ("PGPORT", "6000"),
                ("PGUSER", "u"),
                ("PGDATABASE", "d"),
                ("PGPASSWORD", "p"),
            ],
            "pg u:p@h:6000/d Prefer",
        ),
        (
            "postgres://a:b@i:1/e",
            &[
                ("PGHOST", "h"),
                ("PGHOSTADDR", "10.0.0.1"),
                ("PGPORT", "6000"),
                ("PGUSER", "u"),
                ("PGDATABASE", "d"),
                ("PGPASSWORD", "p"),
            ],
            "pg a:b@i:1/e Prefer ignored=PGHOSTADDR",
        ),
        ("postgres://h/d", &[("PGPORT", "6000")], "pg @h:6000/d Prefer"),
        ("postgres:///d", &[("PGHOST", "/run")], "pg @/run#5432/d Disable"),
        ("postgres:///d", &[("PGHOSTADDR", "10.0.0.1")], "pg @10.0.0.1:5432/d Prefer"),
        (
            "postgres:///d",
            &[("PGHOST", "h"), ("PGHOSTADDR", "10.0.0.1")],
            "pg @10.0.0.1:5432/d Prefer",
        ),
        // An empty variable is one that is not set.
        (
            "postgres://h/d",
            &[("PGPORT", ""), ("PGSSLMODE", ""), ("PGPASSWORD", "")],
            "pg @h:5432/d Prefer",
        ),
        ("postgres://h/d", &[("PGSSLMODE", "require")], "pg @h:5432/d Require"),
        ("postgres://h/d", &[("PGSSLMODE", "disable")], "pg @h:5432/d Disable"),
        (
            "postgres://h/d?sslmode=prefer",
            &[("PGSSLMODE", "verify-full")],
            "pg @h:5432/d Prefer",
        ),
        (
            "postgres://h/d?sslmode=verify-full",
            &[("PGSSLMODE", "disable")],
            "pg @h:5432/d VerifyFull",
        ),
        // An authority asks for a check, and the URL goes before the environment.
        (
            "postgres://h/d?sslrootcert=c",
            &[("PGSSLMODE", "disable")],
            "pg @h:5432/d VerifyFull ca=c",
        ),
        (
            "postgres://h/d",
            &[("PGSSLMODE", "require"), ("PGSSLROOTCERT", "c")],
            "pg @h:5432/d VerifyCa ca=c",
        ),
        ("postgres://h/d", &[("PGSSLROOTCERT", "c")], "pg @h:5432/d VerifyFull ca=c"),
        ("postgres://h/d", &[("PGSSLROOTCERT", "system")], "pg @h:5432/d VerifyFull system"),
        (
            "postgres://h/d?sslmode=verify-full&sslrootcert=a",
            &[("PGSSLROOTCERT", "c")],
            "pg @h:5432/d VerifyFull ca=a",
        ),
        (
            "postgres://h/d?sslmode=no-verify",
            &[("PGSSLROOTCERT", "c")],
            "pg @h:5432/d Require",
        ),
        (
            "postgres://h/d",
            &[("PGSSLCERT", "c"), ("PGSSLKEY", "k")],
            "pg @h:5432/d Prefer cert=c",
        ),
        // TCP only.
        (
            "postgres:///d?host=/run",
            &[
                ("PGSSLMODE", "require"),
                ("PGSSLCERT", "c"),
                ("PGSSLROOTCERT", "c"),
                ("PGHOSTADDR", "10.0.0.1"),
            ],
            "pg @/run#5432/d Disable",
        ),
        (
            "postgres://h/d?sslmode=require",
            &[("PGCHANNELBINDING", "require")],
            "pg @h:5432/d VerifyFull",
        ),
        (
            "postgres://h/d?channel_binding=prefer",
            &[("PGCHANNELBINDING", "require")],
            "pg @h:5432/d Prefer",
        ),
        (
            "postgres://h/d",
            &[("PGOPTIONS", "-c search_path=a")],
            "pg @h:5432/d Prefer options=-c search_path=a",
        ),
        (
            "postgres://h/d?options=-c%20geqo%3Doff",
            &[("PGOPTIONS", "-c search_path=a")],
            "pg @h:5432/d Prefer options=-c search_path=a -c geqo=off",
        ),
        (
            "postgres://h/d",
            &[("PGAPPNAME", "a"), ("PGCONNECT_TIMEOUT", "3"), ("PGTARGETSESSIONATTRS", "primary")],
            "pg @h:5432/d Prefer app=a primary connect=3",
        ),
        (
            "postgres://h/d?application_name=b&connect_timeout=4&target_session_attrs=any",
            &[("PGAPPNAME", "a"), ("PGCONNECT_TIMEOUT", "3"), ("PGTARGETSESSIONATTRS", "primary")],
            "pg @h:5432/d Prefer app=b connect=4",
        ),
        ("postgres://h/d", &[("PGPASSFILE", "f")], "pg :(file)@h:5432/d Prefer"),
        (
            "postgres://h/d",
            &[("PGPASSFILE", "f"), ("PGPASSWORD", "p")],
            "pg :p@h:5432/d Prefer",
        ),
        (
            "postgres://u:q@h/d",
            &[("PGPASSFILE", "f"), ("PGPASSWORD", "p")],
            "pg u:q@h:5432/d Prefer",
        ),
        (
            "postgres://h/d",
            &[("PGTZ", "UTC"), ("PGSSLSNI", "1")],
            "pg @h:5432/d Prefer ignored=PGTZ",
        ),
        // They are PostgreSQL's.
        (
            "mysql://h/d",
            &[("PGHOST", "i"), ("PGSSLMODE", "require"), ("PGSERVICE", "x")],
            "mysql @h:3306/d Prefer",
        ),
        ("sqlite:f.db", &[("PGHOST", "i"), ("PGSERVICE", "x")], "f.db"),
    ];
    for (url, environment, expected) in table {
        assert_eq!(of_url(url, environment), *expected, "{url} {environment:?}");
    }
}

#[cfg(not(windows))]
#[test]
fn the_password_file_is_in_the_home_folder_where_none_is_named() {
    assert_eq!(of_url("postgres://h/d", &[("HOME", "/home/me")]), "pg :(file)@h:5432/d Prefer");
}

#[test]
fn a_variable_that_cannot_be_obeyed_is_refused_by_name() {
    for (environment, says) in [
        ([("PGSERVICE", "x")], "PGSERVICE"),
        ([("PGSSLNEGOTIATION", "direct")], "PGSSLNEGOTIATION"),
        ([("PGSSLMODE", "sure")], "PGSSLMODE"),
        ([("PGSSLCRL", "x")], "PGSSLCRL"),
        ([("PGGSSENCMODE", "require")], "PGGSSENCMODE"),
        ([("PGREQUIREAUTH", "scram-sha-256")], "PGREQUIREAUTH"),
        ([("PGREQUIRESSL", "1")], "PGREQUIRESSL"),
        ([("PGPORT", "x")], "PGPORT"),
        ([("PGHOST", "a,b")], "several hosts"),
        ([("PGCONNECT_TIMEOUT", "soon")], "PGCONNECT_TIMEOUT"),
        ([("PGTARGETSESSIONATTRS", "standby")], "PGTARGETSESSIONATTRS"),
        ([("PGSSLCERT", "c")], "ssl.key"),
    ] {
        let outcome = of_url("postgres://", &environment);
        assert!(
            outcome.starts_with("refused: ") && outcome.contains(says),
            "{environment:?}: {outcome}"
        );
    }
    let named = [("PGHOST", "h"), ("PGHOSTADDR", "10.0.0.1"), ("PGSSLMODE", "verify-full")];
    assert!(of_url("postgres://", &named).contains("PGHOSTADDR"));
}

#[test]
fn parts_and_instances_leave_open_what_the_environment_fills_in() {
    let environment = [
        ("PGHOST", "h"),
        ("PGPORT", "6000"),
        ("PGUSER", "u"),
        ("PGDATABASE", "d"),
        ("PGPASSWORD", "p"),
        ("PGSSLMODE", "require"),
    ];
    let parts = |parts| outcome(serde_json::json!({ "parts": parts }), &environment, "{}");
    assert_eq!(parts(serde_json::json!({ "dialect": "postgres" })), "pg u:p@h:6000/d Require");
    assert_eq!(
        parts(serde_json::json!({ "dialect": "postgres", "host": "/run", "password": "q" })),
        "pg u:q@/run#6000/d Disable"
    );
    // An instance's host and port are never left open.
    let instance = |config| {
        let source = serde_json::json!({ "sequelize": { "dialect": "postgres", "config": config } });
        outcome(source, &environment, "{}")
    };
    assert_eq!(instance(serde_json::json!({ "database": "e" })), "pg u:p@127.0.0.1:5432/e Require");
    assert_eq!(
        instance(serde_json::json!({ "host": "i", "port": 1, "username": "v", "password": "q" })),
        "pg v:q@i:1/d Require"
    );
    let source = serde_json::json!({ "sequelize": { "dialect": "postgres", "config": { "host": "i", "database": "d" } } });
    assert_eq!(
        outcome(source, &[("PGHOSTADDR", "10.0.0.1")], "{}"),
        "pg @i:5432/d Prefer ignored=PGHOSTADDR"
    );
    let source = serde_json::json!({ "sequelize": { "dialect": "postgres", "config": { "pool": { "max": 3 } }, "options": {
        "replication": { "write": "postgres://u:p@/d" }, "dialectOptions": { "ssl": { "ca": "c" } },
    } } });
    assert_eq!(
        outcome(source, &[("PGHOST", "x"), ("PGPORT", "1")], "{}"),
        "pg u:p@127.0.0.1:5432/d VerifyFull ca=c pool=3"
    );
}

#[test]
fn options_go_before_everything() {
    let with = |url: &str, environment: &[(&str, &str)], options: serde_json::Value| {
        outcome(serde_json::json!({ "url": url }), environment, &options.to_string())
    };
    let all = serde_json::json!({
        "password": "o", "schema": "s", "pool": { "max": 3, "acquireTimeoutMs": 1000 }, "connectTimeoutMs": 2000,
        "statementTimeoutMs": 4000, "statementCache": 7, "ssl": { "mode": "disable" },
    });
    assert_eq!(
        with(
            "postgres://u:p@h/d?schema=t&connection_limit=9&pool_timeout=9&connect_timeout=9&pgbouncer=true&sslmode=require&options=-c%20statement_timeout%3D9s",
            &[("PGPASSWORD", "q"), ("PGSSLMODE", "verify-full")],
            all
        ),
        "pg u:o@h:5432/d Disable schema=s options=-c statement_timeout=9s pool=3 wait=1 connect=2 statement=4 cache=7"
    );
    let ssl = |ssl| serde_json::json!({ "ssl": ssl });
    // The store's own words go before those of the URL, of which the binding is one.
    assert_eq!(
        with(
            "postgres://h/d?channel_binding=require",
            &[],
            ssl(serde_json::json!({ "mode": "require" }))
        ),
        "pg @h:5432/d Require"
    );
    // The mode that the options say decides whether an address can be used.
    assert_eq!(
        with(
            "postgres://h/d?hostaddr=10.0.0.1&sslmode=verify-full",
            &[],
            ssl(serde_json::json!({ "mode": "require" }))
        ),
        "pg @10.0.0.1:5432/d Require"
    );
    assert!(
        with(
            "postgres://h/d?hostaddr=10.0.0.1",
            &[],
            ssl(serde_json::json!({ "mode": "verify-full" }))
        )
        .contains("hostaddr")
    );
    // An authority asks for a check, whatever the environment says.
    assert_eq!(
        with("postgres://h/d", &[("PGSSLMODE", "disable")], ssl(serde_json::json!({ "ca": "c" }))),
        "pg @h:5432/d VerifyFull ca=c"
    );
    assert_eq!(
        with("postgres://h/d?channel_binding=require", &[], ssl(serde_json::json!({ "ca": "c" }))),
        "pg @h:5432/d VerifyFull ca=c"
    );
}

#[test]
fn the_file_of_authorities_is_read_for_system_roots() {
    let source = serde_json::json!({ "url": "postgres://h/d?sslrootcert=system", "environment": { "SSL_CERT_FILE": "f" } });
    let settings = Settings::from_json(&source.to_string(), "{}").unwrap();
    assert_eq!(settings.ssl.system_file.as_deref(), Some("f"));
}
