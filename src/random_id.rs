//! Ids for what the store makes itself.

use crate::error::{Error, Result};

/// A UUID of version 4 (RFC 9562): 122 random bits.
pub fn random_id() -> Result<String> {
    let mut bytes = [0; 16];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random
        .fill(&mut bytes)
        .map_err(|_| Error::internal("the operating system gave no random bytes for a new id"))?;
    Ok(format_id(bytes))
}

fn format_id(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_its_version_and_keeps_leading_zeros() {
        assert_eq!(format_id([0; 16]), "00000000-0000-4000-8000-000000000000");
        assert_eq!(format_id([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn no_two_ids_are_equal() {
        assert_ne!(random_id(), random_id());
    }
}
