//! The store's options, the second argument of its constructor. They override every other source.

use super::durability::Durability;
use super::lease_renewal::LeaseRenewal;
use super::partial::{DEFAULT_POOL_MAX, PartialSettings};
use super::password::Password;
use super::schema_name::check_schema;
use crate::error::{Code, Error, Result};
use crate::fields::Fields;
use crate::model::MaxClaims;

const KNOWN: [&str; 12] = [
    "schema",
    "password",
    "passwordTtlMs",
    "pool",
    "connectTimeoutMs",
    "statementTimeoutMs",
    "ssl",
    "statementCache",
    "durability",
    "leaseRenewal",
    "maxClaims",
    "tablePrefix",
];

pub fn apply(json: &str, partial: &mut PartialSettings) -> Result<()> {
    let options = Fields::read(&"options", json)?;
    options.only(&KNOWN)?;
    options.no_nulls()?;
    apply_password(&options, partial)?;
    apply_schema(&options, partial)?;
    // Without effect: `@batchactions/state-sequelize` accepts it but does not use it either.
    options.optional_string("tablePrefix")?;
    if let Some(pool) = options.get("pool") {
        apply_pool(pool, partial)?;
    }
    apply_statements(&options, partial)?;
    if let Some(durability) = options.optional_string("durability")? {
        partial.durability = Some(Durability::from_text(&durability)?);
    }
    if let Some(renewal) = options.get("leaseRenewal") {
        partial.lease_renewal = Some(LeaseRenewal::from_json(renewal)?);
    }
    if let Some(most) = options.count("maxClaims", 1, i32::MAX as u32 / 2)? {
        partial.max_claims = i32::try_from(most).ok().map(MaxClaims);
    }
    if let Some(ssl) = options.get("ssl") {
        partial.ssl.apply_option(ssl)?;
    }
    Ok(())
}

fn apply_password(options: &Fields<'_, '_>, partial: &mut PartialSettings) -> Result<()> {
    if let Some(password) = options.password("password").map_err(|error| Error {
        code: Code::InvalidArgument,
        ..error
    })? {
        partial.password = Some(password);
    }
    if let Some(ttl) = options.milliseconds("passwordTtlMs")? {
        if partial.password != Some(Password::Asked) {
            return Err(Error::invalid(
                "options.passwordTtlMs says how long an answer of a password function is used, and password is no function: leave it out",
            ));
        }
        partial.password_ttl = Some(ttl);
    }
    Ok(())
}

/// The option `schema`. The schema is checked here, whichever source it comes from.
fn apply_schema(options: &Fields<'_, '_>, partial: &mut PartialSettings) -> Result<()> {
    partial.schema = options.optional_string("schema")?.or(partial.schema.take());
    match &partial.schema {
        Some(schema) => check_schema("options.schema", schema).map_err(Error::invalid),
        None => Ok(()),
    }
}

fn apply_pool(json: &str, partial: &mut PartialSettings) -> Result<()> {
    let pool = Fields::read(&"options.pool", json)?;
    pool.only(&["max", "min", "acquireTimeoutMs", "idleTimeoutMs"])?;
    pool.no_nulls()?;
    if let Some(max) = pool.count("max", 1, 1_000)? {
        partial.pool_max = Some(max);
        partial.pool_min = partial.pool_min.map(|min| min.min(max));
    }
    let max = partial.pool_max.unwrap_or(DEFAULT_POOL_MAX);
    partial.pool_min = pool.count("min", 0, max)?.or(partial.pool_min);
    partial.acquire_timeout = pool.milliseconds("acquireTimeoutMs")?.or(partial.acquire_timeout);
    partial.idle_timeout = pool.milliseconds("idleTimeoutMs")?.or(partial.idle_timeout);
    Ok(())
}

/// The time limits for connecting and for a statement, and the number of prepared statements.
fn apply_statements(options: &Fields<'_, '_>, partial: &mut PartialSettings) -> Result<()> {
    partial.connect_timeout = options.milliseconds("connectTimeoutMs")?.or(partial.connect_timeout);
    partial.statement_timeout = options.milliseconds("statementTimeoutMs")?.or(partial.statement_timeout);
    if let Some(count) = options.count("statementCache", 0, 10_000)? {
        partial.statement_cache = Some(count as usize);
    }
    Ok(())
}
