//! The agent's parts around the real engine, over real folders, with a vault in memory.

mod hostile;
mod modes;
mod mounted;
mod resume;
mod round_trip;
mod support;
mod unsteady;
