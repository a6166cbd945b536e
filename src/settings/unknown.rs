//! Parameters that are not honoured. One that asks for protection is refused, unless it asks for what is so anyway.

use super::bad_connection;
use crate::error::Result;

/// What the names of such parameters begin with, without case, `-` and `_`.
const PROTECTION: [&str; 8] = [
    "ssl",
    "tls",
    "gss",
    "usessl",
    "requiressl",
    "requirepeer",
    "requireauth",
    "verifyservercertificate",
];

/// Whether a parameter asks for nothing that isn't so anyway. `false` where nobody knows it, and it does no harm; else it is refused. `name` is without
/// case, `-` and `_`.
pub fn asks_for_nothing(name: &str, shown: &str, value: &str) -> Result<bool> {
    if name == "service" && !value.is_empty() {
        return Err(bad_connection(format!(
            "{shown} names a section of a service file, which this store doesn't read: give host, port and the rest themselves"
        )));
    }
    if !PROTECTION.iter().any(|beginning| name.starts_with(beginning)) {
        return Ok(false);
    }
    let value = value.to_ascii_lowercase();
    let is_so = match name {
        // TLS 1.2 is the least that is spoken, and the server's name is always sent.
        "sslsni" => matches!(&*value, "" | "1" | "true"),
        "sslminprotocolversion" | "tlsversion" => matches!(&*value, "" | "tlsv1" | "tlsv1.1" | "tlsv1.2"),
        "sslmaxprotocolversion" => matches!(&*value, "" | "tlsv1.3"),
        "sslnegotiation" => matches!(&*value, "" | "postgres"),
        "sslcertmode" => matches!(&*value, "" | "allow"),
        "gssencmode" => matches!(&*value, "" | "disable" | "prefer"),
        _ => matches!(&*value, "" | "0" | "false" | "off" | "no" | "disable" | "none"),
    };
    if is_so {
        return Ok(true);
    }
    let instead = match name {
        "usessl" | "requiressl" | "verifyservercertificate" => {
            "say sslmode=verify-full (MySQL: ssl-mode=VERIFY_IDENTITY), or sslmode=require"
        }
        "sslnegotiation" => "leave it out: TLS begins with the request that every PostgreSQL understands",
        "sslpassword" => "decrypt the key and give that as sslkey",
        "sslidentity" => "give certificate and key as PEM, by sslcert and sslkey",
        _ if name.starts_with("tls") => "say sslmode, sslrootcert, sslcert and sslkey",
        _ => "leave it out, or have it checked by something in front of the server",
    };
    Err(bad_connection(format!(
        "{shown} asks for something that this store can't give, and without it the connection would be weaker than asked for: {instead}"
    )))
}
