//! The DIMSE face over a real catalogue and a log in memory, talked to by our own user side and by hand.

#![allow(clippy::unwrap_used)]

mod coercion;
mod commitment;
mod delivery;
mod hostile;
mod peers;
mod retrieve;
mod store;
mod support;
mod window;
