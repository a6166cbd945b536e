//! Unsupported parameters. One that asks for protection is refused, unless the store gives that protection anyway.

use super::errors::invalid_connection;
use super::parameter::Parameter;
use crate::error::Result;

/// The prefixes of parameters about protection, in lower case without `-` and `_`.
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

/// Whether the parameter asks for protection that the store gives anyway; `false` if it is not about protection, so that ignoring it does no harm.
/// Any other is refused.
pub fn is_met_anyway(parameter: &Parameter<'_>) -> Result<bool> {
    let Parameter { name, shown, value } = parameter;
    if name == "service" && !value.is_empty() {
        return Err(invalid_connection(format!(
            "{shown} names a section of a service file, which this store doesn't read: give host, port and the other values directly"
        )));
    }
    if !PROTECTION.iter().any(|beginning| name.starts_with(beginning)) {
        return Ok(false);
    }
    if is_given(name, &value.to_ascii_lowercase()) {
        return Ok(true);
    }
    Err(invalid_connection(format!(
        "{shown} asks for something that this store can't give, and without it the connection would be weaker than asked for: {}",
        instead(name)
    )))
}

/// Whether every connection satisfies this value.
fn is_given(name: &str, value: &str) -> bool {
    match name {
        // The driver always sends the server's name, and speaks TLS 1.2 or newer.
        "sslsni" => matches!(value, "" | "1" | "true"),
        "sslminprotocolversion" | "tlsversion" => matches!(value, "" | "tlsv1" | "tlsv1.1" | "tlsv1.2"),
        "sslmaxprotocolversion" => matches!(value, "" | "tlsv1.3"),
        "sslnegotiation" => matches!(value, "" | "postgres"),
        "sslcertmode" => matches!(value, "" | "allow"),
        "gssencmode" => matches!(value, "" | "disable" | "prefer"),
        _ => matches!(value, "" | "0" | "false" | "off" | "no" | "disable" | "none"),
    }
}

/// The advice in the message.
fn instead(name: &str) -> &'static str {
    match name {
        "usessl" | "requiressl" | "verifyservercertificate" => {
            "say sslmode=verify-full (MySQL: ssl-mode=VERIFY_IDENTITY), or sslmode=require"
        }
        "sslnegotiation" => "leave it out: TLS begins with the request that every PostgreSQL understands",
        "sslpassword" => "decrypt the key and give that as sslkey",
        "sslidentity" => "give certificate and key as PEM, by sslcert and sslkey",
        _ if name.starts_with("tls") => "say sslmode, sslrootcert, sslcert and sslkey",
        _ => "leave it out, or let a proxy in front of the server enforce it",
    }
}
