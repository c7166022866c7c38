//! The face to the web: DICOMweb for viewers, a page for people, health and metrics for operators.
//!
//! ```text
//!   connection ─► pace ─► guard (URI length, cap, metrics) ─┬─► /dicom-web   stow · qido · retrieve · metadata · frames, bulk
//!                                                   ├─► /            page, /api/cluster, /api/totals, /api/events
//!                                                   └─► /health/*, /metrics
//! ```
//!
//! Invariants
//! - W-1 No request holds an instance: bodies come and go in pieces, and wait for each other.
//! - W-2 200 of a store is spelled from `Stored`; what is not known is 503, and sending again is harmless.
//! - W-3 An error is a text that says what to do, and never repeats a value that was sent.
//! - W-4 Every task is owned by [`Web`] and has ended when `shutdown` returns.

mod accept;
mod address;
mod commitment;
mod delete;
mod frames;
mod guard;
mod gzip;
mod indexes;
mod metadata;
mod multipart;
mod operations;
mod pace;
mod page;
mod peers;
mod qido;
mod query;
mod rejections;
mod rendered;
mod retrieve;
mod router;
mod sends;
mod server;
mod status;
mod stow;
mod value;
mod versions;
mod viewing;
mod worklist;

#[cfg(test)]
mod tests;

pub use server::{Health, NodeOrder, Web, WebSettings};
