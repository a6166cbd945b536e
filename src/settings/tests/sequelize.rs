//! A Sequelize instance in, settings or words out.

use serde_json::{Value, json};

use super::error_of;
use super::shown::outcome;
use crate::error::{Code, Result};
use crate::settings::{Settings, SslMode};

fn instance(dialect: &str, config: Value, options: Value) -> String {
    outcome(
        json!({ "sequelize": { "dialect": dialect, "config": config, "options": options } }),
        &[],
        "{}",
    )
}

#[test]
fn what_an_instance_says_counts() {
    let config = || json!({ "host": "h", "port": "6000", "database": "d", "username": "u", "password": 12345 });
    let dialect_options = |given: Value| json!({ "dialectOptions": given });
    let table = [
        ("postgres", json!({}), "pg u:12345@h:6000/d Prefer"),
        (
            "postgres",
            dialect_options(json!({ "options": "-c search_path=imports -c geqo=off" })),
            "pg u:12345@h:6000/d Prefer options=-c search_path=imports -c geqo=off",
        ),
        (
            "postgres",
            dialect_options(json!({ "ssl": true })),
            "pg u:12345@h:6000/d VerifyFull",
        ),
        (
            "postgres",
            dialect_options(json!({ "ssl": "no-verify" })),
            "pg u:12345@h:6000/d Require",
        ),
        (
            "postgres",
            dialect_options(json!({ "ssl": { "rejectUnauthorized": false, "ca": "c" } })),
            "pg u:12345@h:6000/d Require",
        ),
        (
            "postgres",
            dialect_options(json!({ "ssl": { "ca": "c" } })),
            "pg u:12345@h:6000/d VerifyFull ca=c",
        ),
        (
            "postgres",
            dialect_options(
                json!({ "gssencmode": "disable", "ssl": { "require": true, "rejectUnauthorized": false, "minVersion": "TLSv1.2" } }),
            ),
            "pg u:12345@h:6000/d Require",
        ),
        // As Sequelize takes a URL apart.
        (
            "postgres",
            dialect_options(json!({ "sslmode": "require" })),
            "pg u:12345@h:6000/d Require",
        ),
        (
            "postgres",
            dialect_options(json!({ "sslmode": "require", "channel_binding": "require" })),
            "pg u:12345@h:6000/d VerifyFull",
        ),
        (
            "mysql",
            dialect_options(json!({ "ssl": "{\"rejectUnauthorized\":true}" })),
            "mysql u:12345@h:6000/d VerifyCa",
        ),
        (
            "mysql",
            dialect_options(json!({ "ssl": { "verifyIdentity": true } })),
            "mysql u:12345@h:6000/d VerifyFull",
        ),
        ("mysql", dialect_options(json!({ "ssl": {} })), "mysql u:12345@h:6000/d VerifyCa"),
        (
            "mariadb",
            dialect_options(json!({ "ssl": true })),
            "mysql u:12345@h:6000/d VerifyFull",
        ),
        ("mysql", dialect_options(json!({ "ssl": false })), "mysql u:12345@h:6000/d Disable"),
        (
            "mysql",
            dialect_options(json!({ "socketPath": "/s" })),
            "mysql u:12345@/s#6000/d Prefer",
        ),
    ];
    for (dialect, options, expected) in table {
        assert_eq!(instance(dialect, config(), options.clone()), expected, "{dialect} {options}");
    }
    assert_eq!(
        instance("postgres", json!({ "host": "/run", "port": 5433, "database": "d" }), json!({})),
        "pg @/run#5433/d Disable"
    );
}

#[test]
fn the_url_of_the_server_that_is_written_to_never_asks_for_less_than_the_instance() {
    for (write, ssl, expected) in [
        ("postgres://u:p@h/d", json!(true), "VerifyFull"),
        ("postgres://u:p@h/d?sslmode=require", json!({ "ca": "c" }), "VerifyFull ca=c"),
        ("postgres://u:p@h/d?sslmode=disable", json!(true), "VerifyFull"),
        (
            "postgres://u:p@h/d?sslmode=verify-full",
            json!({ "rejectUnauthorized": false }),
            "VerifyFull",
        ),
        ("postgres://u:p@h/d?sslmode=no-verify", json!(false), "Require"),
    ] {
        let options = json!({ "replication": { "write": write }, "dialectOptions": { "ssl": ssl } });
        assert_eq!(
            instance("postgres", json!({}), options),
            format!("pg u:p@h:5432/d {expected}"),
            "{write} {ssl}"
        );
    }
    let spelled = json!({ "dialectOptions": { "sslMode": "verify-full" } });
    let refused = instance("postgres", json!({ "host": "h", "database": "d" }), spelled);
    assert_eq!(refused, "pg @h:5432/d VerifyFull");
}

#[test]
fn sql_server_is_refused_with_the_reason() {
    let refused = instance("mssql", json!({ "host": "h", "password": "hunter2" }), json!({}));
    assert!(
        refused.starts_with("UNSUPPORTED_DATABASE: \"mssql\" (SQL Server) is not served yet"),
        "{refused}"
    );
}

#[test]
fn what_an_instance_asks_for_and_cannot_have_is_refused() {
    for (given, says) in [
        (json!({ "ssl": "Amazon RDS" }), "dialectOptions.ssl"),
        (json!({ "channel_binding": "require", "sslmode": "disable" }), "channel_binding"),
        (json!({ "target_session_attrs": "standby" }), "target_session_attrs"),
        (json!({ "sslcrl": "/x" }), "sslcrl"),
        (json!({ "gssencmode": "require" }), "gssencmode"),
        (json!({ "ssl": { "minVersion": "TLSv1.3" } }), "minVersion"),
        (json!({ "ssl": { "crl": "x" } }), "crl"),
        (json!({ "ssl": { "servername": "x" } }), "servername"),
    ] {
        let refused = instance(
            "postgres",
            json!({ "host": "h", "database": "d" }),
            json!({ "dialectOptions": given }),
        );
        assert!(refused.starts_with("refused: ") && refused.contains(says), "{given}: {refused}");
    }
    let several = instance("postgres", json!({ "host": "a,b" }), json!({}));
    assert!(several.contains("several hosts"), "{several}");
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
