//! The second argument of the constructor. It goes before everything else.

use super::{Durability, LeaseRenewal, Password, Settings};
use crate::error::{Code, Error, Quoted, Result};
use crate::fields::{Fields, shown};

/// What PostgreSQL keeps of a name (`NAMEDATALEN`, less one).
const SCHEMA_BYTES: usize = 63;

/// A schema's name; `what` says where it stands.
pub fn check_schema(what: &str, schema: &str) -> std::result::Result<(), String> {
    if schema.is_empty() || schema.contains('\0') || schema == "$user" || schema.len() > SCHEMA_BYTES {
        return Err(format!(
            "{what} must be the name of a schema, of at most {SCHEMA_BYTES} bytes, for the server cuts off the rest; \"$user\" is \
             none to the server, which puts the user's name in its place"
        ));
    }
    Ok(())
}

impl Settings {
    pub(super) fn apply_options(&mut self, json: &str) -> Result<()> {
        let options = Fields::read(&"options", json)?;
        options.only(&[
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
        ])?;
        options.no_nulls()?;
        self.apply_password(&options)?;
        self.apply_schema(&options)?;
        options.optional_string("tablePrefix")?;
        self.apply_pool(&options)?;
        self.apply_limits(&options)?;
        self.apply_leases(&options)?;
        if let Some(ssl) = options.get("ssl") {
            self.ssl.apply_option(ssl)?;
        }
        Ok(())
    }

    fn apply_password(&mut self, options: &Fields<'_, '_>) -> Result<()> {
        if let Some(password) = options.password("password").map_err(|error| Error {
            code: Code::InvalidArgument,
            ..error
        })? {
            self.password = Some(password);
        }
        if let Some(ms) = options.milliseconds("passwordTtlMs")? {
            if self.password != Some(Password::Asked) {
                return Err(Error::invalid(
                    "options.passwordTtlMs says how long an answer of the function password is good for, and password is no function",
                ));
            }
            self.password_ttl = ms;
        }
        Ok(())
    }

    fn apply_schema(&mut self, options: &Fields<'_, '_>) -> Result<()> {
        if let Some(schema) = options.optional_string("schema")? {
            self.schema = Some(schema);
        }
        match &self.schema {
            Some(schema) => check_schema("options.schema", schema).map_err(Error::invalid),
            None => Ok(()),
        }
    }

    fn apply_pool(&mut self, options: &Fields<'_, '_>) -> Result<()> {
        let Some(pool) = options.get("pool") else { return Ok(()) };
        let pool = Fields::read(&"options.pool", pool)?;
        pool.only(&["max", "min", "acquireTimeoutMs", "idleTimeoutMs"])?;
        pool.no_nulls()?;
        if let Some(max) = pool.count("max", 1, 1_000)? {
            self.pool_max = max;
            self.pool_min = self.pool_min.min(max);
        }
        if let Some(min) = pool.count("min", 0, self.pool_max)? {
            self.pool_min = min;
        }
        if let Some(ms) = pool.milliseconds("acquireTimeoutMs")? {
            self.acquire_timeout = ms;
        }
        if let Some(ms) = pool.milliseconds("idleTimeoutMs")? {
            self.idle_timeout = ms;
        }
        Ok(())
    }

    fn apply_limits(&mut self, options: &Fields<'_, '_>) -> Result<()> {
        if let Some(ms) = options.milliseconds("connectTimeoutMs")? {
            self.connect_timeout = ms;
        }
        if let Some(ms) = options.milliseconds("statementTimeoutMs")? {
            self.statement_timeout = ms;
        }
        if let Some(count) = options.count("statementCache", 0, 10_000)? {
            self.statement_cache = count as usize;
        }
        match options.optional_string("durability")?.as_deref() {
            None => {}
            Some("record") => self.durability = Durability::Record,
            Some("batch") => self.durability = Durability::Batch,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "options.durability must be \"record\" or \"batch\", not {}",
                    shown(&Quoted(other).to_string())
                )));
            }
        }
        Ok(())
    }

    fn apply_leases(&mut self, options: &Fields<'_, '_>) -> Result<()> {
        if let Some(renewal) = options.get("leaseRenewal") {
            let renewal = Fields::read(&"options.leaseRenewal", renewal)?;
            renewal.only(&["everyMs", "forMs"])?;
            let every = renewal.must("everyMs", renewal.milliseconds("everyMs")?, "a number of milliseconds")?;
            let for_at_most = renewal.must("forMs", renewal.milliseconds("forMs")?, "a number of milliseconds")?;
            self.lease_renewal = Some(LeaseRenewal { every, for_at_most });
        }
        if let Some(most) = options.count("maxClaims", 1, i32::MAX as u32 / 2)? {
            self.max_claims = i32::try_from(most).ok().map(crate::model::MaxClaims);
        }
        Ok(())
    }
}
