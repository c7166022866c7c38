//! What an operator may set for the use cases.

use crate::{CodecSettings, rejection::RejectionPolicies};
use archive_model::{AeTitle, Limits};
use std::{collections::BTreeMap, time::Duration};

/// A DICOM application that images may be moved to, and that reports of storage commitment are sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteAe {
    /// Its title.
    pub title: AeTitle,
    /// `HOST:PORT`, resolved at every connect.
    pub address: String,
}

/// Settings of the use cases; numbers say their unit.
#[derive(Debug, Clone)]
pub struct ServiceSettings {
    /// Our AE title, the same on every node. Default `TRIPTYCH`.
    pub ae_title: AeTitle,
    /// Applications that images may be moved to, by title, unless the registry of peers lists them (`peers.rs`).
    pub remotes: BTreeMap<String, RemoteAe>,
    /// Limits of the pre-validator.
    pub limits: Limits,
    /// Bytes that all stores together may hold, those of one sender three quarters of it. Default 128 MiB (a node of a large machine: 512 MiB), at least
    /// [`ServiceSettings::INGEST_BYTES_MIN`].
    pub ingest_bytes_max: u64,
    /// Bytes that all reads together may hold. Default 64 MiB.
    pub read_bytes_max: u64,
    /// Blocks of one large object that are proposed at the same time. Default 4, bounds 1 to 8.
    pub blocks_in_flight_max: usize,
    /// How long a proposal looks for a leader before the store is refused. Default 10 s.
    pub propose_deadline: Duration,
    /// Pages of queries that are read at the same time, and beside them as many look-ups; more wait. Default 16.
    pub queries_max: usize,
    /// How long the report of a storage commitment is tried to be sent. Default 3 days.
    pub commitment_report_for: Duration,
    /// How long nothing of a study must come before whoever wants it is told that it is available. Default 60 s.
    pub study_quiet: Duration,
    /// How long a notification of availability is tried to be sent. Default 3 days.
    pub notify_for: Duration,
    /// What rejection notes do, by title.
    pub rejections: RejectionPolicies,
    /// How compressed frames are decoded.
    pub codec: CodecSettings,
    /// Whether the canonical digest of what is stored goes to the log, by which another padding is told from another content.
    /// Default true; nodes of releases before it cannot apply such entries.
    pub compare_padding: bool,
}

impl ServiceSettings {
    /// The least memory that stores can work with: a block that is filled while another is in flight.
    pub const INGEST_BYTES_MIN: u64 = 2 << 20;
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self {
            ae_title: AeTitle::parse("TRIPTYCH").unwrap_or_else(|_| unreachable!("a literal that is a valid AE title")),
            remotes: BTreeMap::new(),
            limits: Limits::default(),
            ingest_bytes_max: 128 << 20,
            read_bytes_max: 64 << 20,
            blocks_in_flight_max: 4,
            propose_deadline: Duration::from_secs(10),
            queries_max: 16,
            commitment_report_for: Duration::from_secs(3 * 24 * 3600),
            study_quiet: Duration::from_secs(60),
            notify_for: Duration::from_secs(3 * 24 * 3600),
            rejections: RejectionPolicies::default(),
            codec: CodecSettings::default(),
            compare_padding: true,
        }
    }
}
