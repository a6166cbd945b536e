//! Which server is connected, MySQL or MariaDB and its version, and how large its packets may be.

use crate::error::{Code, Error, Quoted, Result};
use crate::model::Job;

/// The connected server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    pub is_mariadb: bool,
    pub version: (u32, u32),
    /// The largest statement or value, in bytes.
    pub max_packet: usize,
}

impl Server {
    pub fn check(self) -> Result<()> {
        let (name, least) = if self.is_mariadb { ("MariaDB", (10, 6)) } else { ("MySQL", (8, 0)) };
        if self.version < least {
            return Err(Error::new(
                Code::UnsupportedDatabase,
                format!(
                    "this server is {name} {}.{}, which has no SKIP LOCKED: {name} {}.{} is the oldest that works",
                    self.version.0, self.version.1, least.0, least.1
                ),
            ));
        }
        Ok(())
    }

    /// The server ends the connection when a statement is too large, so such a statement is not sent.
    pub fn check_size(self, what: &dyn std::fmt::Display, bytes: usize) -> Result<()> {
        // Room for the rest of the packet.
        const OVERHEAD: usize = 4_096;
        if bytes + OVERHEAD > self.max_packet {
            return Err(Error::new(
                Code::ValueTooLong,
                format!(
                    "{what} has {bytes} bytes, and this server takes {}: raise its setting max_allowed_packet",
                    self.max_packet
                ),
            ));
        }
        Ok(())
    }

    pub fn check_list(self, job_id: &str, bytes: usize) -> Result<()> {
        self.check_size(&format_args!("the list of the batches of job {}", Quoted(job_id)), bytes)
    }

    /// Refuses a job that could be stored now but not finalized later.
    pub fn check_job(self, job: &Job) -> Result<()> {
        let what = format_args!(
            "job {}, with its configuration, the list of its batches and room for their states,",
            Quoted(&job.id)
        );
        self.check_size(
            &what,
            job.longest_list() + job.config.len() + self.spaces(&[&job.batches, &job.config]),
        )
    }

    /// An upper bound of the bytes that reading JSON adds: MySQL writes a space after each comma and colon, and silently cuts a text that exceeds
    /// max_allowed_packet. Commas and colons in strings add none, but are counted.
    pub fn spaces(self, texts: &[&str]) -> usize {
        if self.is_mariadb {
            return 0;
        }
        let separators = |text: &str| text.bytes().filter(|byte| matches!(byte, b',' | b':')).count();
        texts.iter().map(|text| separators(text)).sum()
    }

    pub fn parse(version: &str, max_packet: u64) -> Self {
        let is_mariadb = is_mariadb(version);
        let mut parts = own_version(version).split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        Self {
            is_mariadb,
            version,
            max_packet: usize::try_from(max_packet).unwrap_or(usize::MAX),
        }
    }
}

pub fn is_mariadb(version: &str) -> bool {
    version.contains("MariaDB")
}

/// The version without what MariaDB adds to it: `10.11.2` for `5.5.5-10.11.2-MariaDB-1`. Some servers begin with a version for old clients.
pub fn own_version(version: &str) -> &str {
    match version.split_once("-MariaDB") {
        Some((own, _)) => own.strip_prefix("5.5.5-").unwrap_or(own),
        None => version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_shown_as_the_servers_own() {
        for (version, own) in [
            ("10.11.19-MariaDB-0+deb12u1", "10.11.19"),
            ("5.5.5-10.6.1-MariaDB", "10.6.1"),
            ("9.7.0", "9.7.0"),
            ("8.0.36-0ubuntu0.22.04.1", "8.0.36-0ubuntu0.22.04.1"),
        ] {
            assert_eq!(own_version(version), own);
        }
    }

    #[test]
    fn servers_are_told_apart_and_old_ones_refused() {
        for (version, is_mariadb, served) in [
            ("10.11.19-MariaDB-0+deb12u1", true, true),
            ("5.5.5-10.6.1-MariaDB", true, true),
            ("10.5.28-MariaDB", true, false),
            ("9.1.0", false, true),
            ("8.0.36-0ubuntu0.22.04.1", false, true),
            ("5.7.44-log", false, false),
        ] {
            let server = Server::parse(version, 1 << 24);
            assert_eq!(server.is_mariadb, is_mariadb, "{version}");
            assert_eq!(server.check().is_ok(), served, "{version}");
        }
    }
}
