//! Fuzzes the parser `kit`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| everhold_fuzz::feed("kit", bytes));
