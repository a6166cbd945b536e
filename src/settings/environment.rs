//! libpq's environment variables. `index.js` reads them, because a worker thread may have an environment of its own that native code can't see.

use super::database::Database;
use super::errors::invalid_connection;
use super::parameters::Parameters;
use super::partial::PartialSettings;
use super::passfile::Passfile;
use super::password::Password;
use super::secret::Secret;
use super::tls::{Ssl, SslMode};
use crate::error::Result;
use crate::fields::Fields;

/// Variables that correspond to a parameter of a URL. `Environment` reads the others one by one.
const PARAMETERS: [(&str, &str); 25] = [
    ("PGOPTIONS", "options"),
    ("PGAPPNAME", "application_name"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGSERVICE", "service"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLCOMPRESSION", "sslcompression"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLSNI", "sslsni"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGREQUIRESSL", "requiressl"),
    ("PGREQUIREPEER", "requirepeer"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGGSSDELEGATION", "gssdelegation"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGUSER", "user"),
    ("PGDATABASE", "dbname"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
];

/// Variables of libpq that have no effect here.
const WITHOUT_EFFECT: [&str; 4] = ["PGDATESTYLE", "PGTZ", "PGGEQO", "PGCLIENTENCODING"];

/// Variables that don't matter for a connection over a Unix socket.
const OVER_TCP: [&str; 9] = [
    "PGHOSTADDR",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLCERTMODE",
    "PGREQUIRESSL",
    "PGSSLMINPROTOCOLVERSION",
    "PGSSLMAXPROTOCOLVERSION",
];

/// The variables that are set, with their values.
pub struct Environment(Vec<(String, String)>);

impl Environment {
    pub fn read(json: &str) -> Result<Self> {
        let fields = Fields::read(&"environment", json)?;
        let mut all = Vec::new();
        for (name, _) in &fields.entries {
            // For libpq, an empty variable counts as unset.
            let value = fields.optional_string(name).ok().flatten().filter(|value| !value.is_empty());
            if let Some(value) = value {
                if value.contains('\0') {
                    return Err(invalid_connection(format!("{name} holds the character U+0000")));
                }
                all.push((name.to_string(), value));
            }
        }
        Ok(Self(all))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// `SSL_CERT_FILE`, which OpenSSL reads: a file of authorities to trust instead of the operating system's.
    pub fn certificate_file(&self) -> Option<String> {
        self.get("SSL_CERT_FILE").map(str::to_owned)
    }

    /// Fills in what the source leaves open.
    pub fn fill(&self, partial: &mut PartialSettings) -> Result<()> {
        let mut own = PartialSettings::default();
        let mut parameters = Parameters::of("the environment variable ", Database::Postgres);
        // First, because the host decides whether a socket is used, and so which variables count.
        if partial.host.is_none()
            && partial.socket.is_none()
            && let Some(host) = self.get("PGHOST")
        {
            parameters.take_named(&mut own, "host", "PGHOST", host)?;
        }
        let by_socket = partial.socket.is_some() || own.socket.is_some();
        for (variable, name) in PARAMETERS {
            match self.get(variable) {
                Some(_) if by_socket && OVER_TCP.contains(&variable) => {}
                Some(value) => parameters.take_named(&mut own, name, variable, value)?,
                None => {}
            }
        }
        self.fill_ssl(partial, &mut own, by_socket)?;
        partial.fill(own);
        partial.ignored.extend(
            WITHOUT_EFFECT
                .iter()
                .filter(|name| self.get(name).is_some())
                .map(|name| (*name).to_owned()),
        );
        if partial.password.is_none() {
            partial.password = self.password();
        }
        Ok(())
    }

    fn fill_ssl(&self, partial: &mut PartialSettings, own: &mut PartialSettings, by_socket: bool) -> Result<()> {
        // As with libpq, a connection over a socket is never encrypted, even if a source asks for it.
        if by_socket {
            let identity = (partial.ssl.cert.take(), partial.ssl.key.take());
            partial.ssl = Ssl {
                explicit_mode: Some(SslMode::Disable),
                ..Ssl::default()
            };
            (partial.ssl.cert, partial.ssl.key) = identity;
            return Ok(());
        }
        if let Some(mode) = self.get("PGSSLMODE").filter(|_| !partial.ssl.is_explicit()) {
            let mut parameters = Parameters::of("the environment variable ", Database::Postgres);
            parameters.take_named(own, "sslmode", "PGSSLMODE", mode)?;
            parameters.end(own)?;
            partial.ssl.explicit_mode = own.ssl.explicit_mode;
            partial.ssl.no_verify = own.ssl.no_verify;
        }
        if partial.ssl.ca.is_none()
            && !partial.ssl.system_roots
            && !partial.ssl.no_verify
            && let Some(root) = self.get("PGSSLROOTCERT")
        {
            partial.ssl.trust(root.to_owned());
        }
        partial.ssl.cert = partial.ssl.cert.take().or(own.ssl.cert.take());
        partial.ssl.key = partial.ssl.key.take().or(own.ssl.key.take());
        Ok(())
    }

    fn password(&self) -> Option<Password> {
        if let Some(password) = self.get("PGPASSWORD") {
            return Some(Password::Fixed(Secret::new(password.to_owned())));
        }
        Passfile::find(self.get("PGPASSFILE"), self.get("HOME"), self.get("APPDATA")).map(Password::InFile)
    }
}

impl PartialSettings {
    /// Fills in from the environment what the source leaves open.
    fn fill(&mut self, own: PartialSettings) {
        let elsewhere = self.host.is_some() || self.socket.is_some();
        if !elsewhere {
            self.host = own.host;
            self.socket = own.socket;
        }
        // The address belongs to the server in PGHOST. If the source names another host, it is ignored, with a warning.
        match own.address {
            Some(_) if elsewhere && self.address.is_none() => self.ignored.push("PGHOSTADDR".to_owned()),
            address => self.address = self.address.take().or(address),
        }
        self.port = self.port.or(own.port);
        self.user = self.user.take().or(own.user);
        self.name = self.name.take().or(own.name);
        self.application_name = self.application_name.take().or(own.application_name);
        self.connect_timeout = self.connect_timeout.or(own.connect_timeout);
        self.target = self.target.or(own.target);
        self.channel_binding = self.channel_binding.or(own.channel_binding);
        // The server applies both. If both set the same, the later one counts.
        self.session_options = match (own.session_options, self.session_options.take()) {
            (Some(first), Some(second)) => Some(format!("{first} {second}")),
            (first, second) => first.or(second),
        };
    }
}

/// Refuses variables that the driver would read from the process's environment in addition to the settings, which can't be turned off. That
/// environment differs from the store's own in a worker thread with an environment of its own, and where a variable is set to an empty text.
pub fn check_driver(partial: &PartialSettings) -> Result<()> {
    let ssl = &partial.ssl;
    let certificate = ["PGSSLCERT", "PGSSLKEY"]
        .into_iter()
        .find(|name| ssl.mode() != SslMode::Disable && ssl.cert.is_none() && std::env::var_os(name).is_some());
    let options = std::env::var("PGOPTIONS").ok().filter(|options| {
        let given = partial.session_options.as_deref().unwrap_or_default();
        !options.is_empty() && !given.contains(options.as_str())
    });
    match certificate.or(options.map(|_| "PGOPTIONS")) {
        Some(name) => Err(invalid_connection(format!(
            "{name} is set in the environment of the process, and missing or empty in the environment of this store (a worker thread may have its own): \
             unset it there, or set it here too"
        ))),
        None => Ok(()),
    }
}
