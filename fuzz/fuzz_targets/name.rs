//! Fuzzes the parser `name`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| everhold_fuzz::feed("name", bytes));
