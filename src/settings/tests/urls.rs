//! A URL in, settings out: URLs as platforms hand them out, and every parameter that is honoured.

use super::error_of;
use super::shown::of_url;
use super::url;
use crate::error::Code;
use crate::settings::{Database, Password, Secret, SslMode};

fn check(table: &[(&str, &str)]) {
    for (url, expected) in table {
        assert_eq!(of_url(url, &[]), *expected, "{url}");
    }
}

#[test]
fn urls_of_platforms_work_as_they_are() {
    check(&[
        // Neon, and its pooler
        (
            "postgresql://alex:AbC123dEf@ep-cool-darkness-123456.us-east-2.aws.neon.tech/dbname?sslmode=require&channel_binding=require",
            "pg alex:AbC123dEf@ep-cool-darkness-123456.us-east-2.aws.neon.tech:5432/dbname VerifyFull",
        ),
        (
            "postgres://u:p@ep-x-pooler.aws.neon.tech/db?sslmode=require&pgbouncer=true&connect_timeout=10&pool_timeout=20",
            "pg u:p@ep-x-pooler.aws.neon.tech:5432/db Require wait=20 connect=10 cache=0",
        ),
        (
            "postgres://u:p@aws.neon.tech/db?options=endpoint%3Dep-x&sslmode=verify-full&sslrootcert=system",
            "pg u:p@aws.neon.tech:5432/db VerifyFull system options=endpoint=ep-x",
        ),
        // Supabase
        (
            "postgresql://postgres.abcdefgh:p%40ss%23w@aws-0-eu-central-1.pooler.supabase.com:6543/postgres?pgbouncer=true&connection_limit=1",
            "pg postgres.abcdefgh:p@ss#w@aws-0-eu-central-1.pooler.supabase.com:6543/postgres Prefer pool=1 cache=0",
        ),
        // Heroku
        (
            "postgres://uf07k1i6d8ia0v:2f9f@ec2-107-20-0-1.compute-1.amazonaws.com:5432/d8r82722r2kuvn",
            "pg uf07k1i6d8ia0v:2f9f@ec2-107-20-0-1.compute-1.amazonaws.com:5432/d8r82722r2kuvn Prefer",
        ),
        // Amazon RDS
        (
            "postgresql://u:p@mydb.123456.us-east-1.rds.amazonaws.com:5432/app?sslmode=verify-full&sslrootcert=/etc/rds/global-bundle.pem",
            "pg u:p@mydb.123456.us-east-1.rds.amazonaws.com:5432/app VerifyFull ca=/etc/rds/global-bundle.pem",
        ),
        (
            "mysql://u:p@mydb.123456.us-east-1.rds.amazonaws.com:3306/app?ssl-mode=VERIFY_IDENTITY&ssl-ca=/rds.pem",
            "mysql u:p@mydb.123456.us-east-1.rds.amazonaws.com:3306/app VerifyFull ca=/rds.pem",
        ),
        // Railway
        (
            "mysql://root:pw@containers-us-west-1.railway.app:7777/railway",
            "mysql root:pw@containers-us-west-1.railway.app:7777/railway Prefer",
        ),
        // PlanetScale
        (
            "mysql://abc:pscale_pw_x@aws.connect.psdb.cloud/db?ssl={\"rejectUnauthorized\":true}",
            "mysql abc:pscale_pw_x@aws.connect.psdb.cloud:3306/db VerifyFull",
        ),
        (
            "mysql://abc:pscale_pw_x@aws.connect.psdb.cloud/db?sslaccept=strict",
            "mysql abc:pscale_pw_x@aws.connect.psdb.cloud:3306/db VerifyFull",
        ),
        // TiDB
        (
            "mysql://abc.root:pw@gateway01.eu-central-1.prod.aws.tidbcloud.com:4000/test?ssl={\"minVersion\":\"TLSv1.2\",\"rejectUnauthorized\":true}",
            "mysql abc.root:pw@gateway01.eu-central-1.prod.aws.tidbcloud.com:4000/test VerifyFull",
        ),
        // Azure
        (
            "postgres://me%40server:p@server.postgres.database.azure.com:5432/postgres?sslmode=require",
            "pg me@server:p@server.postgres.database.azure.com:5432/postgres Require",
        ),
        // DigitalOcean
        (
            "postgresql://doadmin:AVNS_x@db-do-user-1.b.db.ondigitalocean.com:25060/defaultdb?sslmode=require",
            "pg doadmin:AVNS_x@db-do-user-1.b.db.ondigitalocean.com:25060/defaultdb Require",
        ),
        (
            "mysql://doadmin:AVNS_x@db-do-user-1.b.db.ondigitalocean.com:25060/defaultdb?ssl-mode=REQUIRED",
            "mysql doadmin:AVNS_x@db-do-user-1.b.db.ondigitalocean.com:25060/defaultdb Require",
        ),
        // Cloud SQL
        (
            "postgresql://user:pw@/db?host=/cloudsql/project:region:name",
            "pg user:pw@/cloudsql/project:region:name#5432/db Disable",
        ),
        (
            "postgresql://user:pw@localhost/db?unix_socket=/cloudsql/p:r:n/.s.PGSQL.5433",
            "pg user:pw@/cloudsql/p:r:n#5433/db Disable",
        ),
        (
            "mysql://user:pw@localhost/db?socketPath=/cloudsql/project:region:name",
            "mysql user:pw@/cloudsql/project:region:name#3306/db Prefer",
        ),
        // Prisma
        (
            "postgresql://u:p@localhost:5432/db?schema=public&connection_limit=5",
            "pg u:p@localhost:5432/db Prefer schema=public pool=5",
        ),
        (
            "postgresql://u:p@h/db?sslmode=require&sslaccept=strict&sslcert=ca.pem",
            "pg u:p@h:5432/db VerifyFull ca=ca.pem",
        ),
        (
            "mysql://u:p@h/db?socket=/run/mysqld.sock&connect_timeout=0",
            "mysql u:p@/run/mysqld.sock#3306/db Prefer connect=86400",
        ),
    ]);
}

#[test]
fn a_socket_is_named_in_the_ways_of_libpq() {
    check(&[
        ("postgresql://u:p@/d?host=/folder", "pg u:p@/folder#5432/d Disable"),
        ("postgresql://u:p@/d?host=/folder&port=5433", "pg u:p@/folder#5433/d Disable"),
        ("postgresql://u:p@%2Ffolder/d", "pg u:p@/folder#5432/d Disable"),
        ("postgresql://u:p@%2Ffolder:5433/d", "pg u:p@/folder#5433/d Disable"),
        (
            "postgresql:///d?host=/folder&user=u&password=p+q%20r",
            "pg u:p+q r@/folder#5432/d Disable",
        ),
        // To libpq a socket is never encrypted, whatever was asked for.
        ("postgresql://u@/d?host=/folder&sslmode=require", "pg u@/folder#5432/d Disable"),
        ("postgres://u@h/d?socket=/folder", "pg u@/folder#5432/d Disable"),
    ]);
}

#[test]
fn a_parameter_goes_before_what_stands_in_front_of_it() {
    check(&[
        (
            "postgres://a:b@h:1/d?host=i&port=2&user=c&password=e&dbname=f",
            "pg c:e@i:2/f Prefer",
        ),
        ("  postgres://h/d\n", "pg @h:5432/d Prefer"),
        ("POSTGRES://h", "pg @h:5432/ Prefer"),
        ("postgres://u:a:b@h", "pg u:a:b@h:5432/ Prefer"),
        ("postgres://[2001:db8::1]:6000/d", "pg @2001:db8::1:6000/d Prefer"),
        ("mysql://u@h:3307/d?host=i", "mysql u@i:3307/d Prefer"),
        ("postgres://h/d?host=", "pg @h:5432/d Prefer"),
        ("postgres://db.example/d?hostaddr=10.0.0.1", "pg @10.0.0.1:5432/d Prefer"),
    ]);
}

#[test]
fn a_session_begins_as_the_url_says() {
    check(&[
        (
            "postgres://h/d?options=-c%20search_path%3Dimports%20-c%20statement_timeout%3D5s",
            "pg @h:5432/d Prefer options=-c search_path=imports -c statement_timeout=5s statement=5",
        ),
        (
            "postgres://h/d?options=-c+search_path%3Da",
            "pg @h:5432/d Prefer options=-c search_path=a",
        ),
        ("postgres://h/d?application_name=my%20app", "pg @h:5432/d Prefer app=my app"),
        ("postgres://h/d?fallback_application_name=x", "pg @h:5432/d Prefer app=x"),
        ("postgres://h/d?target_session_attrs=any", "pg @h:5432/d Prefer"),
        ("postgres://h/d?target_session_attrs=read-write", "pg @h:5432/d Prefer read-write"),
        ("postgres://h/d?target_session_attrs=primary", "pg @h:5432/d Prefer primary"),
        ("postgres://h/d?connection_limit=5000", "pg @h:5432/d Prefer pool=1000"),
        ("mysql://h/d?connectTimeout=10000", "mysql @h:3306/d Prefer connect=10"),
        ("mysql://h/d?connect_timeout=10", "mysql @h:3306/d Prefer connect=10"),
        ("postgres://h/d?pgbouncer=false", "pg @h:5432/d Prefer"),
    ]);
}

#[test]
fn encryption_is_never_less_than_asked_for() {
    check(&[
        ("postgres://h/d?sslmode=allow", "pg @h:5432/d Prefer"),
        ("postgres://h/d?sslmode=no-verify", "pg @h:5432/d Require"),
        ("postgres://h/d?sslmode=no-verify&sslrootcert=c", "pg @h:5432/d Require"),
        ("postgres://h/d?sslmode=require&sslrootcert=c", "pg @h:5432/d VerifyCa ca=c"),
        ("postgres://h/d?sslMode=VERIFY_IDENTITY", "pg @h:5432/d VerifyFull"),
        ("postgres://h/d?sslcert=c&sslkey=k&sslmode=require", "pg @h:5432/d Require cert=c"),
        ("postgres://h/d?ssl=true", "pg @h:5432/d VerifyFull"),
        ("postgres://h/d?ssl=true&sslmode=require", "pg @h:5432/d Require"),
        ("postgres://h/d?ssl=no-verify", "pg @h:5432/d Require"),
        ("postgres://h/d?ssl={%22rejectUnauthorized%22:false}", "pg @h:5432/d Require"),
        (
            "mysql://h/d?ssl={%22rejectUnauthorized%22:false,%22ca%22:%22c%22}",
            "mysql @h:3306/d Require",
        ),
        ("mysql://h/d?sslaccept=accept_invalid_certs", "mysql @h:3306/d Prefer"),
        (
            "mysql://h/d?ssl-mode=REQUIRED&sslaccept=accept_invalid_certs",
            "mysql @h:3306/d Require",
        ),
        ("postgres://h/d?sslmode=prefer&channel_binding=require", "pg @h:5432/d VerifyFull"),
        ("postgres://h/d?channel_binding=require", "pg @h:5432/d VerifyFull"),
        ("postgres://h/d?sslmode=require&channel_binding=prefer", "pg @h:5432/d Require"),
        ("postgres://h/d?sslmode=require&channel_binding=disable", "pg @h:5432/d Require"),
        ("postgres://h/d?sslrootcert=system", "pg @h:5432/d VerifyFull system"),
        (
            "postgres://h/d?sslmode=require&sslrootcert=system",
            "pg @h:5432/d VerifyFull system",
        ),
        // These ask for what is so anyway.
        (
            "postgres://h/d?sslsni=1&gssencmode=disable&sslnegotiation=postgres&ssl_min_protocol_version=TLSv1.2&sslcompression=0&requireSSL=false&useSSL=false",
            "pg @h:5432/d Prefer",
        ),
    ]);
}

#[test]
fn a_parameter_that_is_unknown_and_harmless_is_named() {
    check(&[
        (
            "postgres://h/d?foo=secret&keepalives=1",
            "pg @h:5432/d Prefer ignored=foo,keepalives",
        ),
        (
            "mysql://h/d?charset=utf8mb4&options=x",
            "mysql @h:3306/d Prefer ignored=charset,options",
        ),
        ("sqlite:f.db?connection_limit=1", "f.db ignored=connection_limit"),
        (
            "postgres://u@h/d?password=ab&part=c",
            "pg u:ab@h:5432/d Prefer ignored=behind the password",
        ),
    ]);
}

#[test]
fn a_sqlite_file_has_many_spellings() {
    check(&[
        ("sqlite::memory:", "memory"),
        ("sqlite:///:memory:", "memory"),
        ("sqlite://:memory:", "memory"),
        ("sqlite:file.db", "file.db"),
        ("sqlite:./file.db", "./file.db"),
        ("sqlite:///absolute/file.db", "/absolute/file.db"),
        ("sqlite:/absolute/file.db", "/absolute/file.db"),
        ("sqlite:file:f.db?mode=rwc", "f.db"),
        ("sqlite:file:f.db?mode=rw", "f.db must exist"),
        ("sqlite:file:///a/f.db?mode=rwc&cache=private", "/a/f.db"),
        ("sqlite:file:x?mode=memory", "memory"),
        ("sqlite:file::memory:", "memory"),
        (" sqlite:f%3Fx.db ", "f?x.db"),
    ]);
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
fn places_name_no_user_and_no_password() {
    let place = url("mysql://us3r:hunter2@h:1/db").unwrap().place();
    assert_eq!(place, "MySQL database \"db\" at h:1");
    assert_eq!(
        format!("{:?}", url("mysql://us3r:hunter2@h:1/db").unwrap().password),
        "Some(Fixed((secret)))"
    );
}
