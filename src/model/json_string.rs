//! Text as a JSON string.

/// Appends the text, quoted and escaped.
pub(super) fn push_string(into: &mut String, text: &str) {
    if !text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        into.push('"');
        into.push_str(text);
        into.push('"');
        return;
    }
    // Unlike `serde_json::to_string`, this returns no `Result`: a string as a value can always be displayed.
    into.push_str(&serde_json::Value::from(text).to_string());
}
