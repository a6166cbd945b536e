//! See `connection` in `src/fuzzing/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Ok(input) = std::str::from_utf8(input) {
        state_sqlx::fuzzing::connection(input);
    }
});
