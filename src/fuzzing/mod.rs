//! Properties of the code that reads what users and other programs wrote, for any input. The fuzz targets in `fuzz/` call these functions with inputs
//! of their own, and the tests call them with the inputs in `fuzz/seeds/`. No other build has this module.

#![allow(
    clippy::panic,
    reason = "a property that does not hold is reported by a panic, to the fuzzer and to the test"
)]

mod boundary;
mod connection;
mod inputs;

pub use boundary::boundary;
pub use connection::{connection, sequelize};

#[cfg(test)]
mod tests {
    use super::connection::{hides_in_json, hides_in_url};
    use super::{boundary, connection, sequelize};

    fn replay(target: &str, check: fn(&str)) {
        let folder = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        let mut inputs = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            check(&std::fs::read_to_string(path).unwrap());
            inputs += 1;
        }
        assert!(inputs >= 8, "{folder} has {inputs} inputs");
    }

    #[test]
    fn what_holds_for_text_that_crosses_the_boundary() {
        replay("boundary", boundary);
    }

    #[test]
    fn what_holds_for_connections() {
        replay("connection", connection);
    }

    #[test]
    fn what_holds_for_settings_of_sequelize() {
        replay("sequelize", sequelize);
    }

    #[test]
    fn a_password_is_known_where_it_may_stand() {
        assert!(hides_in_url("postgres://u:hunter2hunter2@h/db"));
        assert!(!hides_in_url("postgres://u@h/hunter2hunter2"));
        assert!(!hides_in_url("sqlite://u:hunter2hunter2@h"));
        assert!(hides_in_json(r#"{"config":{"password":"hunter2hunter2"}}"#));
        assert!(!hides_in_json(r#"{"config":{"host":"hunter2hunter2"}}"#));
    }
}
