//! `dialectOptions` of a Sequelize instance: the options of its driver, and the parameters of the URL that the instance was made from.

use super::database::Database;
use super::errors::invalid_connection;
use super::parameter::Parameter;
use super::parameters::Parameters;
use super::partial::PartialSettings;
use super::unsupported;
use crate::error::{Quoted, Result};
use crate::fields::Fields;

/// The place of these options in messages.
const PREFIX: &str = "sequelize.options.dialectOptions.";

/// Parameters that are read under these names first, before any other spelling of theirs.
const NAMED: [&str; 6] = ["sslmode", "ssl-mode", "sslrootcert", "sslcert", "sslkey", "sslaccept"];
const NAMED_POSTGRES: [&str; 3] = ["options", "channel_binding", "target_session_attrs"];

pub fn take(partial: &mut PartialSettings, dialect: &str, database: Database, given: &Fields<'_, '_>) -> Result<()> {
    partial.application_name = given.optional_string("application_name")?;
    if let Some(socket) = given.part("socketPath")? {
        partial.take_socket(database, socket);
    }
    let mut parameters = Parameters::of(PREFIX, database);
    let of_postgres = if database == Database::Postgres { &NAMED_POSTGRES[..] } else { &[] };
    let names = [&NAMED[..], of_postgres].concat();
    for name in &names {
        if let Some(value) = given.optional_string(name)? {
            parameters.take(partial, name, &value)?;
        }
    }
    for (key, value) in &given.entries {
        if value.get() == "null" || key == "ssl" || names.contains(&&**key) {
            continue;
        }
        let text = serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned());
        let parameter = Parameter::new(key, format!("{PREFIX}{key}"), &text);
        if matches!(&*parameter.name, "sslmode" | "sslrootcert" | "sslcert" | "sslkey" | "sslaccept") {
            parameters.take(partial, key, &text)?;
        } else {
            // The rest is for the instance's own driver. Only unsupported options about protection matter.
            unsupported::is_met_anyway(&parameter)?;
        }
    }
    if let Some(ssl) = given.get("ssl") {
        take_ssl(&mut parameters, partial, dialect, ssl)?;
    }
    parameters.end(partial)
}

/// `dialectOptions.ssl`, as Sequelize's driver for the dialect understands it: Node's TLS verifies the certificate unless `rejectUnauthorized` is
/// false, and `mysql2` verifies the host's name only with `verifyIdentity`.
fn take_ssl(parameters: &mut Parameters, partial: &mut PartialSettings, dialect: &str, ssl: &str) -> Result<()> {
    // It is a string if the instance was made from a URL with `?ssl=`.
    let text = serde_json::from_str::<String>(ssl);
    let ssl = text.as_deref().unwrap_or(ssl);
    let object = match ssl {
        "false" | "0" => return parameters.take(partial, "ssl", "false"),
        "true" | "1" => "{}",
        "no-verify" if dialect == "postgres" => r#"{"rejectUnauthorized":false}"#,
        object if object.starts_with('{') => object,
        _ => {
            return Err(invalid_connection(
                "sequelize.options.dialectOptions.ssl must be true, false or an object: give the certificates themselves",
            ));
        }
    };
    let fields = Fields::read(&"sequelize.options.dialectOptions.ssl", object)?;
    check_ssl(&fields)?;
    let verify = fields.get("rejectUnauthorized") != Some("false");
    let by_name = dialect != "mysql" || fields.get("verifyIdentity") == Some("true");
    partial.ssl.take_pem(&fields)?;
    parameters.take_node(verify, by_name)
}

/// Refuses options that ask for more than the driver can give. `require` asks for nothing more: an instance with `ssl` never connects without TLS.
fn check_ssl(fields: &Fields<'_, '_>) -> Result<()> {
    for (key, value) in &fields.entries {
        let can_be = match &**key {
            "rejectUnauthorized" | "verifyIdentity" | "ca" | "cert" | "key" | "require" => true,
            // The driver speaks TLS 1.2 and 1.3 only, so allowing an older version makes no difference.
            "minVersion" => matches!(value.get(), "null" | r#""TLSv1""# | r#""TLSv1.1""# | r#""TLSv1.2""#),
            "maxVersion" => matches!(value.get(), "null" | r#""TLSv1.3""#),
            _ => matches!(value.get(), "null" | "false" | "\"\""),
        };
        if !can_be {
            return Err(invalid_connection(format!(
                "sequelize.options.dialectOptions.ssl.{} asks for something that this store can't give, and without it the connection would be weaker \
                 than asked for: leave it out, or pass a URL or connection options",
                Quoted(key)
            )));
        }
    }
    Ok(())
}
