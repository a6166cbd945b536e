//! Reads settings from a Sequelize instance, whose `config` and `options` `index.js` passes.

use super::database::Database;
use super::errors::invalid_connection;
use super::partial::{DEFAULT_POOL_MAX, PartialSettings};
use super::password::Password;
use super::secret::Secret;
use super::tls::Ssl;
use super::{dialect_options, sqlite, url};
use crate::error::{Quoted, Result};
use crate::fields::Fields;

pub fn read(json: &str) -> Result<(Database, PartialSettings)> {
    let sequelize = Fields::read(&"sequelize", json)?;
    let dialect = sequelize.optional_string("dialect")?.unwrap_or_default();
    let database = Database::of_dialect(&dialect)?;
    let section = |key: &str| Fields::read(&"sequelize", sequelize.get(key).unwrap_or("{}"));
    let instance = Instance {
        dialect: &dialect,
        config: &section("config")?,
        options: &section("options")?,
    };
    let schema = schema_of(&dialect, database, instance.options)?;
    let replication = instance.options.get("replication").filter(|it| it.starts_with('{')).unwrap_or("{}");
    let replication = Fields::read(&"sequelize.options.replication", replication)?;
    let write = replication.get("write").unwrap_or("{}");
    match serde_json::from_str::<String>(write) {
        Ok(url) => instance.read_write_url(&url, schema),
        Err(_) => instance.read_write_server(&Fields::read(&"sequelize.options.replication.write", write)?, database, schema),
    }
}

/// What is read of the instance.
struct Instance<'s, 'w, 'a> {
    dialect: &'s str,
    config: &'s Fields<'w, 'a>,
    options: &'s Fields<'w, 'a>,
}

impl Instance<'_, '_, '_> {
    /// The usual case: the instance has its server in parts. `write` is empty without replication.
    fn read_write_server(&self, write: &Fields<'_, '_>, database: Database, schema: Option<String>) -> Result<(Database, PartialSettings)> {
        let mut partial = PartialSettings {
            is_mariadb: self.dialect == "mariadb",
            schema,
            ..PartialSettings::default()
        };
        take_pool(&mut partial, self.config)?;
        let servers = Servers {
            write,
            config: self.config,
        };
        if database == Database::Sqlite {
            partial.file = sqlite_file(&servers, self.options)?;
            return Ok((database, partial));
        }
        servers.take(&mut partial, database)?;
        self.take_dialect_options(&mut partial, database, write.get("dialectOptions"))?;
        take_defaults(&mut partial, database);
        Ok((database, partial))
    }

    /// With replication, the write server may be a URL. Its parameters override what the instance says for all its servers.
    fn read_write_url(&self, text: &str, schema: Option<String>) -> Result<(Database, PartialSettings)> {
        let (database, of_url) = url::read(text)?;
        let mut of_instance = PartialSettings::default();
        take_pool(&mut of_instance, self.config)?;
        if database == Database::Sqlite {
            return Ok((database, of_url));
        }
        self.take_dialect_options(&mut of_instance, database, None)?;
        let mut partial = overruled(of_instance, of_url);
        partial.schema = schema.or(partial.schema);
        take_defaults(&mut partial, database);
        Ok((database, partial))
    }

    /// The `dialectOptions` of the write server, or those of the instance.
    fn take_dialect_options(&self, partial: &mut PartialSettings, database: Database, of_server: Option<&str>) -> Result<()> {
        let given = of_server.or(self.options.get("dialectOptions")).unwrap_or("{}");
        let given = Fields::read(&"sequelize.options.dialectOptions", given)?;
        dialect_options::take(partial, self.dialect, database, &given)
    }
}

/// The settings of one server's URL, completed by the instance's.
fn overruled(mut instance: PartialSettings, url: PartialSettings) -> PartialSettings {
    let mut ignored = url.ignored;
    ignored.append(&mut instance.ignored);
    let mut partial = PartialSettings {
        pool_max: url.pool_max.or(instance.pool_max),
        pool_min: url.pool_min.or(instance.pool_min),
        application_name: url.application_name.or(instance.application_name),
        session_options: url.session_options.or(instance.session_options),
        target: url.target.or(instance.target),
        channel_binding: url.channel_binding.or(instance.channel_binding),
        socket: url.socket.or(instance.socket),
        ssl: stricter(url.ssl, instance.ssl),
        ignored,
        ..url
    };
    if let (Some(min), Some(max)) = (partial.pool_min, partial.pool_max) {
        partial.pool_min = Some(min.min(max));
    }
    partial
}

/// The stricter of the TLS modes that one server's URL and the instance ask for.
fn stricter(url: Ssl, instance: Ssl) -> Ssl {
    let url_counts = (url.is_explicit() || url.no_verify) && url.mode() >= instance.mode();
    let (kept, other) = if url_counts { (url, instance) } else { (instance, url) };
    Ssl {
        ca: if kept.no_verify { kept.ca } else { kept.ca.or(other.ca) },
        cert: kept.cert.or(other.cert),
        key: kept.key.or(other.key),
        ..kept
    }
}

/// Sequelize's defaults apply to what the instance leaves open; the environment does not fill it in.
fn take_defaults(partial: &mut PartialSettings, database: Database) {
    if partial.socket.is_none() {
        partial.host.get_or_insert_with(|| "127.0.0.1".to_owned());
    }
    partial.port.get_or_insert(database.default_port());
}

/// The schema of the tables. Refuses an instance with other table names than this store's.
fn schema_of(dialect: &str, database: Database, options: &Fields<'_, '_>) -> Result<Option<String>> {
    let define = Fields::read(&"sequelize.options.define", options.get("define").unwrap_or("{}"))?;
    if define.get("underscored") == Some("true") {
        return Err(invalid_connection(
            "the Sequelize instance has define.underscored, which gives its tables other column names than this store uses (jobId, not \
             job_id): pass an instance without it, or a URL",
        ));
    }
    // As in Sequelize, the schema of `define` overrides the one of the instance.
    let schema = match define.optional_string("schema")? {
        Some(schema) => Some(schema),
        None => options.optional_string("schema")?,
    };
    match &schema {
        Some(schema) if database != Database::Postgres => Err(invalid_connection(format!(
            "the Sequelize instance has a schema (define.schema), {}, which {dialect} makes part of the tables' names: pass an instance without it, or \
             a URL",
            Quoted(schema)
        ))),
        _ => Ok(schema),
    }
}

fn take_pool(partial: &mut PartialSettings, config: &Fields<'_, '_>) -> Result<()> {
    let Some(pool) = config.get("pool").filter(|pool| pool.starts_with('{')) else {
        return Ok(());
    };
    let pool = Fields::read(&"sequelize.config.pool", pool)?;
    let max = pool.count("max", 0, u32::MAX)?.unwrap_or(DEFAULT_POOL_MAX).clamp(1, 1_000);
    partial.pool_max = Some(max);
    partial.pool_min = Some(pool.count("min", 0, u32::MAX)?.unwrap_or(0).min(max));
    Ok(())
}

/// With replication, Sequelize writes to the server in `replication.write`, completed from `config`.
struct Servers<'s, 'w, 'a> {
    write: &'s Fields<'w, 'a>,
    config: &'s Fields<'w, 'a>,
}

impl Servers<'_, '_, '_> {
    fn text(&self, key: &str) -> Result<Option<String>> {
        match self.write.part(key)? {
            Some(value) => Ok(Some(value)),
            None => self.config.part(key),
        }
    }

    fn take(&self, partial: &mut PartialSettings, database: Database) -> Result<()> {
        partial.host = self.text("host")?;
        partial.port = match self.write.port("port")? {
            Some(port) => Some(port),
            None => self.config.port("port")?,
        };
        partial.name = self.text("database")?;
        partial.user = self.text("username")?;
        partial.password = match password(self.write)? {
            Some(password) => Some(password),
            None => password(self.config)?,
        };
        partial.host_may_be_folder(database);
        Ok(())
    }
}

/// A password. A number, as a configuration file may contain, is read as its digits.
fn password(fields: &Fields<'_, '_>) -> Result<Option<Password>> {
    match fields.get("password") {
        Some(value) if value.parse::<f64>().is_ok() => Ok(Some(Password::Fixed(Secret::new(value.to_owned())))),
        _ => fields.password("password"),
    }
}

fn sqlite_file(servers: &Servers<'_, '_, '_>, options: &Fields<'_, '_>) -> Result<Option<String>> {
    let storage = match options.part("storage")? {
        Some(storage) => storage,
        // An instance that was made from a URL has the file's name as its host, or no host for `sqlite::memory:`. One made from options has the
        // default host.
        None => servers
            .text("host")?
            .filter(|host| !host.is_empty() && host != "localhost")
            .unwrap_or_else(|| ":memory:".to_owned()),
    };
    sqlite::file(&storage)
}
