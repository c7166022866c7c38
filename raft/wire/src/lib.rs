//! The network between nodes: framed, checksummed, prioritised, bounded.
mod frame;
mod hello;
mod outbox;
pub use hello::Hello;
