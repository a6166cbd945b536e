//! The parameter `options`, which libpq sends to PostgreSQL: command-line switches for the server process (`-c search_path=imports`).

use std::time::Duration;

/// One switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switch {
    /// `-c name=value` or `--name=value`.
    Set(String, String),
    /// Anything else, in its original text. Some services expect one of these (`endpoint=…`).
    Other(String),
}

/// The switches, split as the server splits them: at spaces, except behind a backslash.
pub fn switches(options: &str) -> Vec<Switch> {
    let mut all = Vec::new();
    let mut words = words(options).into_iter();
    while let Some((word, written)) = words.next() {
        let setting = match word.strip_prefix("-c").or_else(|| word.strip_prefix("--")) {
            Some("") if word == "-c" => words.next().map(|(word, _)| word),
            Some(setting) => Some(setting.to_owned()),
            None => None,
        };
        match setting.as_deref().and_then(|setting| setting.split_once('=')) {
            Some((name, value)) if is_name(name) => all.push(Switch::Set(name.replace('-', "_").to_ascii_lowercase(), value.to_owned())),
            _ => all.push(Switch::Other(written)),
        }
    }
    all
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// Each word, both without its backslashes and in its original text.
fn words(options: &str) -> Vec<(String, String)> {
    let mut words = Vec::new();
    let mut characters = options.chars().peekable();
    loop {
        while characters.next_if(|character| character.is_ascii_whitespace()).is_some() {}
        if characters.peek().is_none() {
            return words;
        }
        let (mut word, mut written) = (String::new(), String::new());
        while let Some(character) = characters.next_if(|character| !character.is_ascii_whitespace()) {
            written.push(character);
            match character {
                '\\' => {
                    if let Some(escaped) = characters.next() {
                        word.push(escaped);
                        written.push(escaped);
                    }
                }
                other => word.push(other),
            }
        }
        words.push((word, written));
    }
}

/// The `statement_timeout` in these options, which becomes the store's own time limit. 0 means no limit to the server; here it becomes a day.
pub fn statement_timeout(options: &str) -> Option<Duration> {
    const DAY: Duration = Duration::from_secs(86_400);
    let given = switches(options).into_iter().rev().find_map(|switch| match switch {
        Switch::Set(name, value) if name == "statement_timeout" => Some(value),
        _ => None,
    })?;
    let given = given.trim().trim_matches('\'');
    let digits = given.len() - given.trim_start_matches(|character: char| character.is_ascii_digit()).len();
    let (number, unit) = given.split_at(digits);
    let ms: u64 = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    match number.parse::<u64>().ok()?.saturating_mul(ms) {
        0 => Some(DAY),
        ms => Some(Duration::from_millis(ms).min(DAY)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Switch {
        Switch::Set(name.to_owned(), value.to_owned())
    }

    #[test]
    fn switches_are_taken_apart_as_the_server_does() {
        assert_eq!(
            switches(r"-c search_path=a,b -cgeqo=off  --statement-timeout=5s -c search_path=my\ schema endpoint=ep-x -B 5"),
            [
                set("search_path", "a,b"),
                set("geqo", "off"),
                set("statement_timeout", "5s"),
                set("search_path", "my schema"),
                Switch::Other("endpoint=ep-x".to_owned()),
                Switch::Other("-B".to_owned()),
                Switch::Other("5".to_owned()),
            ]
        );
        assert_eq!(switches("  "), []);
    }

    #[test]
    fn a_statement_timeout_is_read_with_its_unit() {
        for (options, ms) in [
            ("-c statement_timeout=5000", Some(5_000)),
            ("-c statement_timeout=5s", Some(5_000)),
            ("-c statement_timeout=2min -c statement_timeout=1h", Some(3_600_000)),
            ("-c statement_timeout=0", Some(86_400_000)),
            ("-c statement_timeout=soon", None),
            ("-c search_path=a", None),
        ] {
            assert_eq!(statement_timeout(options), ms.map(Duration::from_millis), "{options}");
        }
    }
}
