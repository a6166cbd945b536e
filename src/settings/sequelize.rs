//! What `index.js` reads of a Sequelize instance.

use super::parameters::Parameters;
use super::{DEFAULT_POOL, Database, Password, Place, Secret, Ssl, bad_connection, scheme, sqlite, unknown, url};
use crate::error::{Quoted, Result};
use crate::fields::Fields;

pub fn read(json: &str) -> Result<(Database, Place)> {
    let sequelize = Fields::read(&"sequelize", json)?;
    let dialect = sequelize.optional_string("dialect")?.unwrap_or_default();
    let database = scheme::database_of_dialect(&dialect)?;
    let section = |key: &str| Fields::read(&"sequelize", sequelize.get(key).unwrap_or("{}"));
    let (config, options) = (section("config")?, section("options")?);
    let mut place = Place {
        schema: schema_of(&dialect, database, &options)?,
        ..Place::default()
    };
    // With replication, Sequelize writes through `write` and falls back to its own settings for what that leaves out.
    let replication = Fields::read(
        &"sequelize.options.replication",
        options.get("replication").filter(|it| it.starts_with('{')).unwrap_or("{}"),
    )?;
    let write = replication.get("write").unwrap_or("{}");
    if let Ok(text) = serde_json::from_str::<String>(write) {
        return from_url(&text, place.schema.take(), &dialect, &config, &options);
    }
    let write = Fields::read(&"sequelize.options.replication.write", write)?;
    take_pool(&mut place, &config)?;
    let servers = Servers {
        write: &write,
        config: &config,
    };
    if database == Database::Sqlite {
        place.file = sqlite_file(&servers, &options)?;
        return Ok((database, place));
    }
    servers.take(&mut place, database)?;
    let dialect_options = write.get("dialectOptions").or(options.get("dialectOptions")).unwrap_or("{}");
    let dialect_options = Fields::read(&"sequelize.options.dialectOptions", dialect_options)?;
    take_dialect_options(&mut place, &dialect, database, &dialect_options)?;
    take_defaults(&mut place, database);
    Ok((database, place))
}

/// What the instance leaves open is its own default and not the environment's.
fn take_defaults(place: &mut Place, database: Database) {
    if place.socket.is_none() {
        place.host.get_or_insert_with(|| "127.0.0.1".to_owned());
    }
    place.port.get_or_insert(database.default_port());
}

/// The server that is written to, given as a URL. Its parameters go before what the instance says for all its servers.
fn from_url(
    text: &str,
    schema: Option<String>,
    dialect: &str,
    config: &Fields<'_, '_>,
    options: &Fields<'_, '_>,
) -> Result<(Database, Place)> {
    let (database, at) = url::read(text)?;
    let mut place = Place::default();
    take_pool(&mut place, config)?;
    if database == Database::Sqlite {
        return Ok((database, at));
    }
    let given = Fields::read(&"sequelize.options.dialectOptions", options.get("dialectOptions").unwrap_or("{}"))?;
    take_dialect_options(&mut place, dialect, database, &given)?;
    let ssl = stricter(at.ssl, place.ssl);
    let mut ignored = at.ignored;
    ignored.append(&mut place.ignored);
    let mut place = Place {
        schema: schema.or(at.schema),
        pool_max: at.pool_max.or(place.pool_max),
        pool_min: at.pool_min.or(place.pool_min),
        application_name: at.application_name.or(place.application_name),
        session_options: at.session_options.or(place.session_options),
        target: at.target.or(place.target),
        channel_binding: at.channel_binding.or(place.channel_binding),
        socket: at.socket.or(place.socket),
        ssl,
        ignored,
        ..at
    };
    if let (Some(min), Some(max)) = (place.pool_min, place.pool_max) {
        place.pool_min = Some(min.min(max));
    }
    take_defaults(&mut place, database);
    Ok((database, place))
}

/// What the URL of one server and the instance ask for together: never less than either of them.
fn stricter(url: Ssl, instance: Ssl) -> Ssl {
    let url_counts = (url.is_said() || url.no_verify) && url.mode() >= instance.mode();
    let (kept, other) = if url_counts { (url, instance) } else { (instance, url) };
    Ssl {
        ca: if kept.no_verify { kept.ca } else { kept.ca.or(other.ca) },
        cert: kept.cert.or(other.cert),
        key: kept.key.or(other.key),
        ..kept
    }
}

fn schema_of(dialect: &str, database: Database, options: &Fields<'_, '_>) -> Result<Option<String>> {
    let define = Fields::read(&"sequelize.options.define", options.get("define").unwrap_or("{}"))?;
    if define.get("underscored") == Some("true") {
        return Err(bad_connection(
            "the Sequelize instance has define.underscored, which gives its tables other column names than this store uses (jobId, not \
             job_id): pass an instance without it, or a URL",
        ));
    }
    // A model's schema is that of `define`, else that of the instance.
    let schema = match define.optional_string("schema")? {
        Some(schema) => Some(schema),
        None => options.optional_string("schema")?,
    };
    match &schema {
        Some(schema) if database != Database::Postgres => Err(bad_connection(format!(
            "the Sequelize instance has a schema (define.schema), {}, which {dialect} makes part of the tables' names: pass an instance without it, or \
             a URL",
            Quoted(schema)
        ))),
        _ => Ok(schema),
    }
}

fn take_pool(place: &mut Place, config: &Fields<'_, '_>) -> Result<()> {
    let Some(pool) = config.get("pool").filter(|pool| pool.starts_with('{')) else {
        return Ok(());
    };
    let pool = Fields::read(&"sequelize.config.pool", pool)?;
    let max = pool.count("max", 0, u32::MAX)?.unwrap_or(DEFAULT_POOL).clamp(1, 1_000);
    place.pool_max = Some(max);
    place.pool_min = Some(pool.count("min", 0, u32::MAX)?.unwrap_or(0).min(max));
    Ok(())
}

/// The server that is written to, and the instance's own.
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

    fn take(&self, place: &mut Place, database: Database) -> Result<()> {
        place.host = self.text("host")?;
        place.port = match self.write.port("port")? {
            Some(port) => Some(port),
            None => self.config.port("port")?,
        };
        place.name = self.text("database")?;
        place.user = self.text("username")?;
        place.password = match password(self.write)? {
            Some(password) => Some(password),
            None => password(self.config)?,
        };
        place.host_may_be_folder(database);
        Ok(())
    }
}

/// A password; a number, as a configuration file may have it, is its digits.
fn password(fields: &Fields<'_, '_>) -> Result<Option<Password>> {
    match fields.get("password") {
        Some(value) if value.parse::<f64>().is_ok() => Ok(Some(Password::Fixed(Secret::new(value.to_owned())))),
        _ => fields.password("password"),
    }
}

fn sqlite_file(servers: &Servers<'_, '_, '_>, options: &Fields<'_, '_>) -> Result<Option<String>> {
    let storage = match options.part("storage")? {
        Some(storage) => storage,
        // Made from a URL, it has the file's name as the host, or nothing for `sqlite::memory:`; made from options, it has its default host.
        None => servers
            .text("host")?
            .filter(|host| !host.is_empty() && host != "localhost")
            .unwrap_or_else(|| ":memory:".to_owned()),
    };
    sqlite::file(&storage)
}

/// `dialectOptions`: the driver's own, and what stood in the URL that the instance was made from.
fn take_dialect_options(place: &mut Place, dialect: &str, database: Database, given: &Fields<'_, '_>) -> Result<()> {
    place.application_name = given.optional_string("application_name")?;
    if let Some(socket) = given.part("socketPath")? {
        place.take_socket(database, socket);
    }
    let mut parameters = Parameters::of("sequelize.options.dialectOptions.", database);
    let mut names = vec!["sslmode", "ssl-mode", "sslrootcert", "sslcert", "sslkey", "sslaccept"];
    if database == Database::Postgres {
        names.extend(["options", "channel_binding", "target_session_attrs"]);
    }
    for name in &names {
        if let Some(value) = given.optional_string(name)? {
            parameters.take(place, name, &value)?;
        }
    }
    for (key, value) in &given.entries {
        if value.get() == "null" || key == "ssl" || names.contains(&&**key) {
            continue;
        }
        let name = key.to_ascii_lowercase().replace(['-', '_'], "");
        let text = serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned());
        if matches!(&*name, "sslmode" | "sslrootcert" | "sslcert" | "sslkey" | "sslaccept") {
            parameters.take(place, key, &text)?;
            continue;
        }
        unknown::asks_for_nothing(&name, &format!("sequelize.options.dialectOptions.{key}"), &text)?;
    }
    if let Some(ssl) = given.get("ssl") {
        take_ssl(&mut parameters, place, dialect, ssl)?;
    }
    parameters.end(place)
}

/// `dialectOptions.ssl`, as the driver that Sequelize uses for the dialect understands it: Node's TLS verifies unless told otherwise, and
/// `mysql2` verifies the host name only with `verifyIdentity`.
fn take_ssl(parameters: &mut Parameters, place: &mut Place, dialect: &str, ssl: &str) -> Result<()> {
    // From a URL's `?ssl=`, it is a string.
    let text = serde_json::from_str::<String>(ssl);
    let ssl = text.as_deref().unwrap_or(ssl);
    let object = match ssl {
        "false" | "0" => return parameters.take(place, "ssl", "false"),
        "true" | "1" => "{}",
        "no-verify" if dialect == "postgres" => r#"{"rejectUnauthorized":false}"#,
        object if object.starts_with('{') => object,
        _ => {
            return Err(bad_connection(
                "sequelize.options.dialectOptions.ssl must be true, false or an object: give the certificates themselves",
            ));
        }
    };
    let fields = Fields::read(&"sequelize.options.dialectOptions.ssl", object)?;
    check_ssl(&fields)?;
    let verify = fields.get("rejectUnauthorized") != Some("false");
    let by_name = dialect != "mysql" || fields.get("verifyIdentity") == Some("true");
    place.ssl.take_pem(&fields)?;
    parameters.take_node(verify, by_name)
}

/// Refuses what asks for more than the driver can give. `require` asks for nothing: an instance with `ssl` never connects without.
fn check_ssl(fields: &Fields<'_, '_>) -> Result<()> {
    for (key, value) in &fields.entries {
        let can_be = match &**key {
            "rejectUnauthorized" | "verifyIdentity" | "ca" | "cert" | "key" | "require" => true,
            // The driver speaks TLS 1.2 and 1.3 only, so an older one that is allowed makes no difference.
            "minVersion" => matches!(value.get(), "null" | r#""TLSv1""# | r#""TLSv1.1""# | r#""TLSv1.2""#),
            "maxVersion" => matches!(value.get(), "null" | r#""TLSv1.3""#),
            _ => matches!(value.get(), "null" | "false" | "\"\""),
        };
        if !can_be {
            return Err(bad_connection(format!(
                "sequelize.options.dialectOptions.ssl.{} asks for something that this store can't give, and without it the connection would be weaker \
                 than asked for: leave it out, or pass a URL or connection options",
                Quoted(key)
            )));
        }
    }
    Ok(())
}
