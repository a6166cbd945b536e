//! Ids for what the store makes itself: UUIDs of version 7 (RFC 9562), which begin with the time at which they were made.

use crate::error::{Error, Result};

/// A new id that was made at this time, in epoch ms: 48 bits of time and 74 random ones.
pub fn random_id(now: i64) -> Result<String> {
    let mut bytes = [0; 16];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random
        .fill(&mut bytes)
        .map_err(|_| Error::internal("the operating system gave no random bytes for a new id"))?;
    Ok(format_id(now, bytes))
}

fn format_id(now: i64, mut bytes: [u8; 16]) -> String {
    bytes[..6].copy_from_slice(&now.to_be_bytes()[2..]);
    bytes[6] = bytes[6] & 0x0f | 0x70;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// When an id was made, in epoch ms, if it is a UUID of version 7.
pub fn made_at(id: &str) -> Option<i64> {
    let dashes = [8, 13, 18, 23];
    let is_uuid = id.len() == 36
        && id.bytes().enumerate().all(|(at, byte)| {
            if dashes.contains(&at) {
                byte == b'-'
            } else {
                byte.is_ascii_hexdigit()
            }
        });
    let bytes = id.as_bytes();
    (is_uuid && bytes[14] == b'7' && b"89abAB".contains(&bytes[19]))
        .then(|| i64::from_str_radix(&[&id[..8], &id[9..13]].concat(), 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_its_version_and_when_it_was_made() {
        assert_eq!(format_id(0, [0; 16]), "00000000-0000-7000-8000-000000000000");
        assert_eq!(format_id(0, [0xff; 16]), "00000000-0000-7fff-bfff-ffffffffffff");
        // The example of RFC 9562, appendix A.6.
        assert_eq!(made_at("017F22E2-79B0-7CC3-98C4-DC0C0C07398F"), Some(1_645_557_742_000));
        let now = 1_800_000_000_123;
        assert_eq!(made_at(&format_id(now, [0xff; 16])), Some(now));
    }

    #[test]
    fn other_ids_say_nothing() {
        for id in [
            "",
            "job-1",
            "017f22e2-79b0-4cc3-98c4-dc0c0c07398f",
            "017f22e2-79b0-7cc3-c8c4-dc0c0c07398f",
            "017f22e2779b0-7cc3-98c4-dc0c0c07398f",
            "01\u{e9}f22e2-79b0-7cc3-98c4-dc0c0c07398",
        ] {
            assert_eq!(made_at(id), None, "{id}");
        }
    }

    #[test]
    fn no_two_ids_are_equal() {
        assert_ne!(random_id(1), random_id(1));
    }
}
