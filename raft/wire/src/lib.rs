//! The network between nodes: framed, checksummed, prioritised, bounded.
//!
//! ```text
//!   Wire::call, Wire::open ─► tcp ─► peer (one dialler a class) ─► link (calls, streams) ─► outbox ─► frame ─► TCP
//!   Serve::call, ::stream ◄── tcp (listener) ◄── hello (both ends check) ◄── link ◄──────────────── frame ◄─ TCP
//! ```
//!
//! What is promised
//! - A body of several MiB never delays a vote: each class has its own connection and its own send budget.
//! - Memory is bounded: received frames by one budget, waiting ones by a budget for each peer, streams by credits.
//! - A call ends: with an answer, a refusal, or `Unreachable`, also when the answer is lost on an open connection.
//! - Nothing queues up for a peer that is down.

mod frame;
mod hello;
mod link;
mod metrics;
mod outbox;
mod peer;
mod stream;
mod tcp;

pub use hello::Hello;
pub use link::code;
pub use tcp::{TcpWire, WireOptions, WireTimers};
