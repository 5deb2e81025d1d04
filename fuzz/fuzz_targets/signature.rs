//! Fuzzes the parser `signature`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| everhold_fuzz::signature_headers(bytes));
