//! The DICOM upper layer (PS3.8) without sockets: bytes and events in, PDUs and actions out.
//!
//! ```text
//!   bytes ─► frame: type and length first, then the whole PDU ─► Other: machine (table.rs is the standard's table)
//!                                                            └► Data: message ─► command set, data set piece by piece
//!   negotiate: what is answered to A-ASSOCIATE-RQ
//! ```
//!
//! PDU types and their codec are dicom-ul's, always strict and always behind a check of the declared length.

pub mod frame;
mod machine;
pub mod message;
pub mod negotiate;
pub mod table;

pub use dicom_ul::pdu;
pub use machine::{End, Machine, NoPlace};
pub use table::{Action, Event, State};
