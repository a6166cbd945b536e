//! libpq's environment variables. `index.js` reads them, for a worker thread may have an environment of its own that a native library can't see.

use super::parameters::Parameters;
use super::{Database, Passfile, Password, Place, Secret, Settings, Ssl, SslMode, bad_connection};
use crate::error::Result;
use crate::fields::Fields;

/// The parameters that variables stand for; the rest is read below.
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

/// Variables that libpq knows and that have no effect here.
const WITHOUT_EFFECT: [&str; 4] = ["PGDATESTYLE", "PGTZ", "PGGEQO", "PGCLIENTENCODING"];

/// What only matters where no socket is used.
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

#[derive(Default)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    pub fn read(json: &str) -> Result<Self> {
        let fields = Fields::read(&"environment", json)?;
        let mut all = Vec::new();
        for (name, _) in &fields.entries {
            // An empty one is one that is not set, as to libpq.
            let value = fields.optional_string(name).ok().flatten().filter(|value| !value.is_empty());
            if let Some(value) = value {
                if value.contains('\0') {
                    return Err(bad_connection(format!("{name} holds the character U+0000")));
                }
                all.push((name.to_string(), value));
            }
        }
        Ok(Self(all))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// OpenSSL's variable for the authorities to trust in place of the operating system's.
    pub fn certificate_file(&self) -> Option<String> {
        self.get("SSL_CERT_FILE").map(str::to_owned)
    }

    /// Fills in what the place leaves open.
    pub fn fill(&self, place: &mut Place) -> Result<()> {
        let mut own = Place::default();
        let mut parameters = Parameters::of("the environment variable ", Database::Postgres);
        // The host decides whether a socket is used, and so what else counts.
        if place.host.is_none()
            && place.socket.is_none()
            && let Some(host) = self.get("PGHOST")
        {
            parameters.take_named(&mut own, "host", "PGHOST", host)?;
        }
        let by_socket = place.socket.is_some() || own.socket.is_some();
        for (variable, name) in PARAMETERS {
            match self.get(variable) {
                Some(_) if by_socket && OVER_TCP.contains(&variable) => {}
                Some(value) => parameters.take_named(&mut own, name, variable, value)?,
                None => {}
            }
        }
        self.fill_ssl(place, &mut own, by_socket)?;
        place.fill(own);
        place.ignored.extend(
            WITHOUT_EFFECT
                .iter()
                .filter(|name| self.get(name).is_some())
                .map(|name| (*name).to_owned()),
        );
        if place.password.is_none() {
            place.password = self.password();
        }
        Ok(())
    }

    fn fill_ssl(&self, place: &mut Place, own: &mut Place, by_socket: bool) -> Result<()> {
        // To libpq a socket is never encrypted, whatever was asked for.
        if by_socket {
            let identity = (place.ssl.cert.take(), place.ssl.key.take());
            place.ssl = Ssl {
                said: Some(SslMode::Disable),
                ..Ssl::default()
            };
            (place.ssl.cert, place.ssl.key) = identity;
            return Ok(());
        }
        if let Some(mode) = self.get("PGSSLMODE").filter(|_| !place.ssl.is_said()) {
            let mut parameters = Parameters::of("the environment variable ", Database::Postgres);
            parameters.take_named(own, "sslmode", "PGSSLMODE", mode)?;
            parameters.end(own)?;
            place.ssl.said = own.ssl.said;
            place.ssl.no_verify = own.ssl.no_verify;
        }
        if place.ssl.ca.is_none()
            && !place.ssl.system_roots
            && !place.ssl.no_verify
            && let Some(root) = self.get("PGSSLROOTCERT")
        {
            place.ssl.trust(root.to_owned());
        }
        place.ssl.cert = place.ssl.cert.take().or(own.ssl.cert.take());
        place.ssl.key = place.ssl.key.take().or(own.ssl.key.take());
        Ok(())
    }

    fn password(&self) -> Option<Password> {
        if let Some(password) = self.get("PGPASSWORD") {
            return Some(Password::Fixed(Secret::new(password.to_owned())));
        }
        Passfile::find(self.get("PGPASSFILE"), self.get("HOME"), self.get("APPDATA")).map(Password::InFile)
    }
}

impl Place {
    /// What the environment says counts where nothing else was said.
    fn fill(&mut self, own: Place) {
        let elsewhere = self.host.is_some() || self.socket.is_some();
        if !elsewhere {
            self.host = own.host;
            self.socket = own.socket;
        }
        // Another server than the one that was named: it is told that it does not count.
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
        // Both are sent, and where both set the same, the later one counts.
        self.session_options = match (own.session_options, self.session_options.take()) {
            (Some(first), Some(second)) => Some(format!("{first} {second}")),
            (first, second) => first.or(second),
        };
    }
}

/// Refuses what the driver would take from the process's own environment by itself and beside the settings: it can't be told otherwise. That is so where a
/// worker thread has another environment than its process, and where a variable is set to nothing.
pub fn check_driver(settings: &Settings) -> Result<()> {
    let ssl = &settings.ssl;
    let certificate = ["PGSSLCERT", "PGSSLKEY"]
        .into_iter()
        .find(|name| ssl.mode() != SslMode::Disable && ssl.cert.is_none() && std::env::var_os(name).is_some());
    let options = std::env::var("PGOPTIONS").ok().filter(|options| {
        let given = settings.session_options.as_deref().unwrap_or_default();
        !options.is_empty() && !given.contains(options.as_str())
    });
    match certificate.or(options.map(|_| "PGOPTIONS")) {
        Some(name) => Err(bad_connection(format!(
            "{name} is set in the environment of the process, and not (or to nothing) for this store: unset it there, or set it here too"
        ))),
        None => Ok(()),
    }
}
