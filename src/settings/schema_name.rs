//! The name of a PostgreSQL schema, from the option `schema` or a parameter.

/// The bytes that PostgreSQL keeps of a name (`NAMEDATALEN`, less one).
const SCHEMA_BYTES: usize = 63;

/// Refuses an invalid schema name; `what` names the option or parameter in the message.
pub fn check_schema(what: &str, schema: &str) -> std::result::Result<(), String> {
    if schema.is_empty() || schema.contains('\0') || schema == "$user" || schema.len() > SCHEMA_BYTES {
        return Err(format!(
            "{what} must be the name of a schema, of at most {SCHEMA_BYTES} bytes (the server cuts off the rest), and not \"$user\", which the \
             server replaces by the user's name"
        ));
    }
    Ok(())
}
