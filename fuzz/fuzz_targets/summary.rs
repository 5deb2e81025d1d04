//! Fuzzes the parser `summary`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| everhold_fuzz::feed("summary", bytes));
