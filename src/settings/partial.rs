//! What the sources have specified so far. `None` means open; defaults are not in here.

use std::net::IpAddr;
use std::time::Duration;

use super::database::Database;
use super::durability::Durability;
use super::errors::invalid_connection;
use super::lease_renewal::LeaseRenewal;
use super::password::Password;
use super::target_session_attrs::Target;
use super::tls::{Ssl, SslMode};
use crate::error::Result;
use crate::model::MaxClaims;

/// The maximum number of connections if neither a source nor the options set one. It is also Sequelize's default.
pub const DEFAULT_POOL_MAX: u32 = 10;

#[derive(Default)]
pub struct PartialSettings {
    /// Whether the scheme or dialect says `mariadb`.
    pub is_mariadb: bool,
    pub host: Option<String>,
    /// The address to connect to instead of resolving the host: libpq's `hostaddr`.
    pub address: Option<String>,
    pub port: Option<u16>,
    pub socket: Option<String>,
    pub name: Option<String>,
    pub user: Option<String>,
    pub password: Option<Password>,
    pub password_ttl: Option<Duration>,
    pub file: Option<String>,
    pub must_exist: bool,
    pub application_name: Option<String>,
    pub session_options: Option<String>,
    pub target: Option<Target>,
    /// Whether `channel_binding` is `require`.
    pub channel_binding: Option<bool>,
    pub schema: Option<String>,
    pub pool_max: Option<u32>,
    pub pool_min: Option<u32>,
    pub acquire_timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    pub connect_timeout: Option<Duration>,
    pub statement_timeout: Option<Duration>,
    pub statement_cache: Option<usize>,
    pub ssl: Ssl,
    pub durability: Option<Durability>,
    pub lease_renewal: Option<LeaseRenewal>,
    pub max_claims: Option<MaxClaims>,
    /// The names of unknown, harmless parameters.
    pub ignored: Vec<String>,
}

impl PartialSettings {
    /// A PostgreSQL host that begins with `/` is the folder of a Unix socket, as for libpq.
    pub fn host_may_be_folder(&mut self, database: Database) {
        if database == Database::Postgres && self.host.as_ref().is_some_and(|host| host.starts_with('/')) {
            self.socket = self.host.take();
        }
    }

    /// Applies a Unix socket. PostgreSQL's may be given as the socket file, whose name then also gives the port.
    pub fn take_socket(&mut self, database: Database, path: String) {
        let file = path
            .rsplit_once("/.s.PGSQL.")
            .and_then(|(folder, port)| Some((folder, port.parse().ok()?)));
        match file {
            Some((folder, port)) if database == Database::Postgres => {
                self.socket = Some(folder.to_owned());
                self.port = Some(port);
            }
            _ => self.socket = Some(path),
        }
    }

    /// Replaces the host by the address. libpq connects to `hostaddr` and checks the certificate for `host`; the driver has one name for both.
    pub fn use_address(&mut self) -> Result<()> {
        let Some(address) = self.address.take().filter(|_| self.socket.is_none()) else {
            return Ok(());
        };
        let is_other_name = self
            .host
            .as_ref()
            .is_some_and(|host| *host != address && host.parse::<IpAddr>().is_err());
        if is_other_name && self.ssl.mode() >= SslMode::VerifyCa {
            return Err(invalid_connection(
                "hostaddr (PGHOSTADDR) can't be used with a certificate that is verified for another host: leave it out, so that host is looked up",
            ));
        }
        self.host = Some(address);
        Ok(())
    }
}
