//! The whole, through real processes.
