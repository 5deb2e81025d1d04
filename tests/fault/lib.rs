//! Nothing: the tests are in `it/`, this crate only gives them their features.
