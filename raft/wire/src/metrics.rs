//! What the wire counts: `raft_wire_*`.

use crate::frame::class_index;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use raft_types::Class;

/// Counters; registered when a registry is given.
pub(crate) struct Metrics {
    sent: [IntCounter; 3],
    received: [IntCounter; 3],
    ended: IntCounter,
    refused: IntCounter,
    damaged: IntCounter,
}

impl Metrics {
    pub(crate) fn new(registry: Option<&Registry>) -> Result<Metrics, prometheus::Error> {
        let by_class = |name: &str, help: &str| -> Result<[IntCounter; 3], prometheus::Error> {
            let family = IntCounterVec::new(Opts::new(name, help), &["class"])?;
            registry.map_or(Ok(()), |registry| registry.register(Box::new(family.clone())))?;
            Ok(["urgent", "bulk", "read"].map(|class| family.with_label_values(&[class])))
        };
        let one = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.map_or(Ok(()), |registry| registry.register(Box::new(counter.clone())))?;
            Ok(counter)
        };
        Ok(Metrics {
            sent: by_class("raft_wire_sent_bytes_total", "Bytes sent to peers")?,
            received: by_class("raft_wire_received_bytes_total", "Bytes received from peers")?,
            ended: one("raft_wire_connections_ended_total", "Connections to peers that ended")?,
            refused: one("raft_wire_greetings_refused_total", "Connections refused: another cluster, name or disk")?,
            damaged: one("raft_wire_frames_damaged_total", "Frames that were damaged or not this protocol")?,
        })
    }

    pub(crate) fn sent(&self, class: Class, bytes: usize) {
        self.sent[class_index(class)].inc_by(bytes as u64);
    }

    pub(crate) fn received(&self, class: Option<Class>, bytes: usize) {
        if let Some(class) = class {
            self.received[class_index(class)].inc_by(bytes as u64);
        }
    }

    pub(crate) fn broke(&self) {
        self.ended.inc();
    }

    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    pub(crate) fn damaged(&self) {
        self.damaged.inc();
    }
}
