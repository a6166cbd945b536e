//! Which ids are refused.

use crate::error::Code;
use crate::model::{ID_LENGTH, check_id};

#[test]
fn ids_are_measured_in_characters() {
    assert!(check_id(&"id", &"😀".repeat(36), ID_LENGTH).is_ok());
    assert_eq!(check_id(&"id", &"a".repeat(37), ID_LENGTH).unwrap_err().code, Code::ValueTooLong);
    assert_eq!(check_id(&"id", "a\0b", ID_LENGTH).unwrap_err().code, Code::InvalidArgument);
}
