//! What an operator may set: flag over environment over file over default. Parsed and checked once, at the door.

use archive_model::{AeTitle, Limits};
use archive_service::{
    CodecSettings, RemoteAe,
    rejection::{RejectionPolicies, RejectionPolicy},
};
use archive_web::Network;
use clap::Args;
use serde::Deserialize;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// Flags of `triptych serve`. Each is also an environment variable `TRIPTYCH_…` and a key of the file.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ServeFlags {
    /// Folder that holds everything of this node. Default `data`.
    #[arg(long, env = "TRIPTYCH_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// TOML file with these settings; names as the flags, without the dashes in front.
    #[arg(long, env = "TRIPTYCH_CONFIG", value_name = "FILE.toml")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,

    /// Name of this node, one of those in `--peers`. Default `n1`.
    #[arg(long, env = "TRIPTYCH_NAME")]
    pub(crate) name: Option<String>,

    /// Where DICOM associations are accepted. Default 127.0.0.1:11112.
    #[arg(long, env = "TRIPTYCH_DIMSE", value_name = "HOST:PORT")]
    pub(crate) dimse: Option<String>,

    /// Where DICOMweb, the page, health and metrics are served. Default 127.0.0.1:8080.
    #[arg(long, env = "TRIPTYCH_HTTP", value_name = "HOST:PORT")]
    pub(crate) http: Option<String>,

    /// Where the other nodes reach this one. Default: this node's address in `--peers`, else 127.0.0.1:7400.
    #[arg(long, env = "TRIPTYCH_PEER", value_name = "HOST:PORT")]
    pub(crate) peer: Option<String>,

    /// The nodes of the cluster: `n1=HOST:PORT,n2=HOST:PORT,n3=HOST:PORT`. New nodes with the same list form one; a new
    /// node whose list names itself and at least one member joins. Without it this is a single node, which may be started
    /// with a list later.
    #[arg(long, env = "TRIPTYCH_PEERS", value_name = "NAME=HOST:PORT,…")]
    pub(crate) peers: Option<String>,

    /// Our AE title, the same on every node; 1 to 16 characters. Default `TRIPTYCH`.
    #[arg(long, env = "TRIPTYCH_AE_TITLE", value_name = "TITLE")]
    pub(crate) ae_title: Option<String>,

    /// An application that C-MOVE of this node, and reports of storage commitment, may be sent to; may be given several
    /// times (in the environment: separated by commas). What `triptych peer set` says of the same title wins, and is known
    /// on every node.
    #[arg(long, env = "TRIPTYCH_REMOTE_AE", value_name = "NAME=HOST:PORT", value_delimiter = ',')]
    #[serde(default)]
    pub(crate) remote_ae: Vec<String>,

    /// Days in which the report of a storage commitment is tried to be sent to its requester. Default 3, bounds 1 to 30.
    #[arg(long, env = "TRIPTYCH_COMMITMENT_REPORT_DAYS", value_name = "DAYS")]
    pub(crate) commitment_report_days: Option<u64>,

    /// What a rejection note 113001 (Rejected for Quality Reasons) does to the instances that it names: `show` (nothing),
    /// `hide` or `delete`; behind a colon, what becomes of one that is stored again: `keep` it hidden and answer success,
    /// `refuse` it (0124), or `restore` it. Default `hide:keep`.
    #[arg(long, env = "TRIPTYCH_REJECT_QUALITY", value_name = "POLICY")]
    pub(crate) reject_quality: Option<String>,

    /// The same for 113037 (Rejected for Patient Safety Reasons), which may not `show`. Default `hide:keep`.
    #[arg(long, env = "TRIPTYCH_REJECT_PATIENT_SAFETY", value_name = "POLICY")]
    pub(crate) reject_patient_safety: Option<String>,

    /// The same for 113038 (Incorrect Modality Worklist Entry), which may not `show`. Default `hide:keep`.
    #[arg(long, env = "TRIPTYCH_REJECT_WORKLIST", value_name = "POLICY")]
    pub(crate) reject_worklist: Option<String>,

    /// The same for 113039 (Data Retention Policy Expired). Default `delete:restore`.
    #[arg(long, env = "TRIPTYCH_REJECT_RETENTION", value_name = "POLICY")]
    pub(crate) reject_retention: Option<String>,

    /// Seconds in which nothing of a study must come before those who want it are told that it is available (`triptych peer set
    /// --notify`). Default 60, bounds 1 to 86400.
    #[arg(long, env = "TRIPTYCH_STUDY_QUIET_SECONDS", value_name = "S")]
    pub(crate) study_quiet_seconds: Option<u64>,

    /// Days in which a notification of availability is tried to be sent. Default 3, bounds 1 to 30.
    #[arg(long, env = "TRIPTYCH_NOTIFY_DAYS", value_name = "DAYS")]
    pub(crate) notify_days: Option<u64>,

    /// Groups that studies are spread over; fixed once the cluster has formed. Default 64, bounds 1 to 4096.
    #[arg(long, env = "TRIPTYCH_GROUPS", value_name = "N")]
    pub(crate) groups: Option<u32>,

    /// Memory for images on their way in, in MiB. Default 128, bounds 16 to 65536.
    #[arg(long, env = "TRIPTYCH_INGEST_MIB", value_name = "MIB")]
    pub(crate) ingest_mib: Option<u64>,

    /// Memory for images on their way out, in MiB. Default 64, bounds 16 to 65536.
    #[arg(long, env = "TRIPTYCH_READ_MIB", value_name = "MIB")]
    pub(crate) read_mib: Option<u64>,

    /// Associations at the same time. Default 512, bounds 1 to 65535.
    #[arg(long, env = "TRIPTYCH_ASSOCIATIONS", value_name = "N")]
    pub(crate) associations: Option<u32>,

    /// Associations of one address at the same time; as many again may be on their way. Default 128, bounds 1 to 65535.
    #[arg(long, env = "TRIPTYCH_ASSOCIATIONS_PER_PEER", value_name = "N")]
    pub(crate) associations_per_peer: Option<u32>,

    /// Whether an association must be addressed to our AE title. Default `true`; `false` takes every title.
    #[arg(long, env = "TRIPTYCH_CHECK_CALLED_AE", value_name = "BOOL")]
    pub(crate) check_called_ae: Option<bool>,

    /// Seconds for an association to be asked for, and for a release to be answered (ARTIM). Default 30, bounds 1 to
    /// 3600.
    #[arg(long, env = "TRIPTYCH_ARTIM_SECONDS", value_name = "S")]
    pub(crate) artim_seconds: Option<u64>,

    /// Seconds in which 1 KiB of a message must come or be taken (DIMSE), and some of a body or an answer (HTTP).
    /// Default 30, bounds 1 to 3600.
    #[arg(long, env = "TRIPTYCH_PROGRESS_SECONDS", value_name = "S")]
    pub(crate) progress_seconds: Option<u64>,

    /// Seconds that an association may be idle between two messages. Default 300, bounds 1 to 86400.
    #[arg(long, env = "TRIPTYCH_IDLE_SECONDS", value_name = "S")]
    pub(crate) idle_seconds: Option<u64>,

    /// Whether an image that is known in another padding (`storescu` leaves (FFFC,FFFC) out) is nothing new; else it is another
    /// content. Nodes of a release before this one cannot apply what is stored so: upgrade with `false`, and start every node
    /// again without it when the last one is upgraded. Default true.
    #[arg(long, env = "TRIPTYCH_COMPARE_PADDING", value_name = "BOOL")]
    pub(crate) compare_padding: Option<bool>,

    /// Objects that are sent to a destination (C-MOVE, `triptych send`) before its answers come, if it agrees to that; 1 waits
    /// for each answer. Default 8, bounds 1 to 64.
    #[arg(long, env = "TRIPTYCH_SEND_AHEAD", value_name = "N")]
    pub(crate) send_ahead: Option<u16>,

    /// Seconds that running operations may go on once a stop was asked for. Default 20, bounds 0 to 3600.
    #[arg(long, env = "TRIPTYCH_DRAIN_SECONDS", value_name = "S")]
    pub(crate) drain_seconds: Option<u64>,

    /// HTTP connections at the same time. Default 1024, bounds 1 to 65535.
    #[arg(long, env = "TRIPTYCH_CONNECTIONS", value_name = "N")]
    pub(crate) connections: Option<u32>,

    /// HTTP connections of one address at the same time: raise it behind a proxy. Default 64, bounds 1 to 65535.
    #[arg(long, env = "TRIPTYCH_CONNECTIONS_PER_PEER", value_name = "N")]
    pub(crate) connections_per_peer: Option<u32>,

    /// An origin whose pages may use DICOMweb, such as `https://viewer.example`; may be given several times (in the
    /// environment: separated by commas); `*` is any. There is no log-in: a page that may use it reads what its visitor's
    /// browser reaches. Default none.
    #[arg(long, env = "TRIPTYCH_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    #[serde(default)]
    pub(crate) cors_origin: Vec<String>,

    /// An address or network, such as `10.0.0.0/8`, of proxies whose `Forwarded` and `X-Forwarded-*` say under which address
    /// clients see this archive; may be given several times (in the environment: separated by commas), `none` is nobody.
    /// Default this machine: `127.0.0.0/8` and `::1`.
    #[arg(long, env = "TRIPTYCH_TRUSTED_PROXY", value_name = "NETWORK", value_delimiter = ',')]
    #[serde(default)]
    pub(crate) trusted_proxy: Vec<String>,

    /// Seconds that a browser may use an image it has without asking whether it is still the same; lists and metadata are
    /// always asked for. 0 asks each time. Default 3600, bounds 0 to 31536000.
    #[arg(long, env = "TRIPTYCH_CACHE_SECONDS", value_name = "S")]
    pub(crate) cache_seconds: Option<u64>,

    /// Queries that run at the same time; more wait. Default 16, bounds 1 to 1024.
    #[arg(long, env = "TRIPTYCH_QUERIES", value_name = "N")]
    pub(crate) queries: Option<u32>,

    /// Images whose header one query may look into, to match an attribute that is not in the index: about 0.2 ms
    /// each. Default 50000, bounds 1 to 100000000.
    #[arg(long, env = "TRIPTYCH_QUERY_HEADERS", value_name = "N")]
    pub(crate) query_headers: Option<u64>,
    /// The program that decodes compressed images for those who do not take them. Default: `triptych-codec` beside this
    /// program; without it they are stored and passed on as they are.
    #[arg(long, env = "TRIPTYCH_CODEC", value_name = "FILE")]
    pub(crate) codec: Option<PathBuf>,

    /// Decoders that run at the same time. Default 2, bounds 1 to 256.
    #[arg(long, env = "TRIPTYCH_CODEC_WORKERS", value_name = "N")]
    pub(crate) codec_workers: Option<usize>,

    /// Memory of each decoder, in MiB. Default 1024, bounds 64 to 65536.
    #[arg(long, env = "TRIPTYCH_CODEC_MEMORY_MIB", value_name = "MIB")]
    pub(crate) codec_memory_mib: Option<u64>,

    /// Seconds that one frame may take to be decoded. Default 30, bounds 1 to 3600.
    #[arg(long, env = "TRIPTYCH_CODEC_SECONDS", value_name = "S")]
    pub(crate) codec_seconds: Option<u64>,

    /// Memory of this program for frames that are being decoded or sent, in MiB. Default 256, bounds 16 to 65536.
    #[arg(long, env = "TRIPTYCH_CODEC_FRAMES_MIB", value_name = "MIB")]
    pub(crate) codec_frames_mib: Option<u64>,

    /// Size of an instance, at most, in MiB. Default 8192, bounds 1 to 1048576.
    #[arg(long, env = "TRIPTYCH_INSTANCE_MIB", value_name = "MIB")]
    pub(crate) instance_mib: Option<u64>,

    /// Size of all of an instance but its bulk values, at most, in MiB. Default 64, bounds 1 to 1024.
    #[arg(long, env = "TRIPTYCH_HEADER_MIB", value_name = "MIB")]
    pub(crate) header_mib: Option<u64>,

    /// Sequences inside of each other, at most. Default 64, bounds 1 to 1024.
    #[arg(long, env = "TRIPTYCH_DEPTH", value_name = "N")]
    pub(crate) depth: Option<usize>,

    /// Elements of an instance, at most. Default 1000000, bounds 1000 to 100000000.
    #[arg(long, env = "TRIPTYCH_ELEMENTS", value_name = "N")]
    pub(crate) elements: Option<u64>,

    /// Size of a segment of the log, in MiB; fixed parts of the disk are reserved in this size. Default 1024 (64 when
    /// the disk is smaller than 64 GiB), bounds 16 to 4096.
    #[arg(long, env = "TRIPTYCH_SEGMENT_MIB", value_name = "MIB")]
    pub(crate) segment_mib: Option<u64>,

    /// Log that every group keeps for nodes that were away, in MiB: who comes back within it catches up by log, who was
    /// away longer gets the rows anew and pulls the images it misses. Default 256, bounds 1 to 1048576.
    #[arg(long, env = "TRIPTYCH_LOG_KEEP_MIB", value_name = "MIB")]
    pub(crate) log_keep_mib: Option<u64>,

    /// Age up to which log is kept all the same, in seconds, unless there is more of it than `--log-keep-mib`.
    /// Default 86400, bounds 1 to 31536000.
    #[arg(long, env = "TRIPTYCH_LOG_KEEP_SECONDS", value_name = "SECONDS")]
    pub(crate) log_keep_seconds: Option<u64>,

    /// How long a node with an empty disk asks under the name of a known node before it takes its place by itself, in
    /// seconds; `triptych node replace` does it at once. Default 600, bounds 5 to 2592000.
    #[arg(long, env = "TRIPTYCH_REPLACE_AFTER_SECONDS", value_name = "SECONDS")]
    pub(crate) replace_after_seconds: Option<u64>,

    /// Images that a new or returning node pulls from its peers, in MiB a second at most; 0 is no limit. Default 0.
    #[arg(long, env = "TRIPTYCH_MIRROR_MIB_PER_SECOND", value_name = "MIB")]
    pub(crate) mirror_mib_per_second: Option<u64>,

    /// Days in which the whole disk is read and verified once: at 2 to 50 MB a second, whatever that makes of the days, and
    /// four times as fast on the day after damage was found. `triptych scrub` does it at once. Default 14, bounds 1 to 365.
    #[arg(long, env = "TRIPTYCH_SCRUB_DAYS", value_name = "DAYS")]
    pub(crate) scrub_days: Option<u64>,

    /// Where backups go by themselves, as `file:///folder` or `s3://bucket/prefix` (with the usual `AWS_…` variables). One
    /// node makes them, the one that leads the meta group. Default: none are made.
    #[arg(long, env = "TRIPTYCH_BACKUP_TO", value_name = "URL")]
    pub(crate) backup_to: Option<String>,

    /// Hours between two backups to `--backup-to`. Default 24, bounds 1 to 8760.
    #[arg(long, env = "TRIPTYCH_BACKUP_EVERY", value_name = "HOURS")]
    pub(crate) backup_every: Option<u64>,

    /// Least level of the log lines: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as
    /// `info,archive_dimse=debug`. Default `info`.
    #[arg(long, env = "TRIPTYCH_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,

    /// Form of the log lines: `text` or `json`. Default `text`.
    #[arg(long, env = "TRIPTYCH_LOG_FORMAT", value_name = "FORM")]
    pub(crate) log_format: Option<String>,
}

/// Settings of a node, checked.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) name: String,
    pub(crate) dimse: String,
    pub(crate) http: String,
    pub(crate) peer: String,
    pub(crate) peers: BTreeMap<String, String>,
    pub(crate) ae_title: AeTitle,
    pub(crate) remotes: BTreeMap<String, RemoteAe>,
    pub(crate) commitment_report_for: Duration,
    pub(crate) rejections: RejectionPolicies,
    pub(crate) study_quiet: Duration,
    pub(crate) notify_for: Duration,
    pub(crate) groups: u32,
    pub(crate) ingest_bytes: u64,
    pub(crate) read_bytes: u64,
    pub(crate) associations: u32,
    pub(crate) associations_per_peer: u32,
    pub(crate) check_called_ae: bool,
    pub(crate) artim: Duration,
    pub(crate) progress: Duration,
    pub(crate) idle: Duration,
    pub(crate) compare_padding: bool,
    pub(crate) send_ahead: u16,
    pub(crate) drain: Duration,
    pub(crate) connections: u32,
    pub(crate) connections_per_peer: u32,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) trusted_proxies: Vec<Network>,
    pub(crate) cache_for: Duration,
    pub(crate) queries: u32,
    pub(crate) query_headers: u64,
    pub(crate) codec: CodecSettings,
    pub(crate) limits: Limits,
    pub(crate) segment_bytes: Option<u64>,
    pub(crate) log_keep_bytes: u64,
    pub(crate) log_keep: Duration,
    pub(crate) replace_after: Duration,
    pub(crate) mirror_bytes_per_second: Option<u64>,
    pub(crate) scrub_pass: Duration,
    pub(crate) backup_to: Option<String>,
    pub(crate) backup_every: Duration,
    pub(crate) log: String,
    pub(crate) log_json: bool,
}

/// A setting that cannot be used, and what would be right.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("read the settings of {}", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the settings of {}: {why}", file.display())]
    Parse { file: PathBuf, why: String },
    #[error("--{setting}: {why}")]
    Bad { setting: &'static str, why: String },
}

impl ServeFlags {
    /// Adds the file's settings behind the flags' and checks all.
    pub(crate) fn settle(self) -> Result<Settings, SettingsError> {
        let file = match &self.config {
            None => Self::default(),
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|source| SettingsError::Read { file: file.clone(), source })?;
                toml::from_str(&text)
                    .map_err(|error| SettingsError::Parse { file: file.clone(), why: error.to_string() })?
            }
        };
        self.over(file).check()
    }

    /// These settings where they are given, else `below`'s.
    fn over(self, below: Self) -> Self {
        Self {
            data: self.data.or(below.data),
            config: self.config,
            name: self.name.or(below.name),
            dimse: self.dimse.or(below.dimse),
            http: self.http.or(below.http),
            peer: self.peer.or(below.peer),
            peers: self.peers.or(below.peers),
            ae_title: self.ae_title.or(below.ae_title),
            remote_ae: if self.remote_ae.is_empty() { below.remote_ae } else { self.remote_ae },
            commitment_report_days: self.commitment_report_days.or(below.commitment_report_days),
            reject_quality: self.reject_quality.or(below.reject_quality),
            reject_patient_safety: self.reject_patient_safety.or(below.reject_patient_safety),
            reject_worklist: self.reject_worklist.or(below.reject_worklist),
            reject_retention: self.reject_retention.or(below.reject_retention),
            study_quiet_seconds: self.study_quiet_seconds.or(below.study_quiet_seconds),
            notify_days: self.notify_days.or(below.notify_days),
            groups: self.groups.or(below.groups),
            ingest_mib: self.ingest_mib.or(below.ingest_mib),
            read_mib: self.read_mib.or(below.read_mib),
            associations: self.associations.or(below.associations),
            associations_per_peer: self.associations_per_peer.or(below.associations_per_peer),
            check_called_ae: self.check_called_ae.or(below.check_called_ae),
            artim_seconds: self.artim_seconds.or(below.artim_seconds),
            progress_seconds: self.progress_seconds.or(below.progress_seconds),
            idle_seconds: self.idle_seconds.or(below.idle_seconds),
            compare_padding: self.compare_padding.or(below.compare_padding),
            send_ahead: self.send_ahead.or(below.send_ahead),
            drain_seconds: self.drain_seconds.or(below.drain_seconds),
            connections: self.connections.or(below.connections),
            connections_per_peer: self.connections_per_peer.or(below.connections_per_peer),
            cors_origin: if self.cors_origin.is_empty() { below.cors_origin } else { self.cors_origin },
            trusted_proxy: if self.trusted_proxy.is_empty() { below.trusted_proxy } else { self.trusted_proxy },
            cache_seconds: self.cache_seconds.or(below.cache_seconds),
            queries: self.queries.or(below.queries),
            query_headers: self.query_headers.or(below.query_headers),
            codec: self.codec.or(below.codec),
            codec_workers: self.codec_workers.or(below.codec_workers),
            codec_memory_mib: self.codec_memory_mib.or(below.codec_memory_mib),
            codec_seconds: self.codec_seconds.or(below.codec_seconds),
            codec_frames_mib: self.codec_frames_mib.or(below.codec_frames_mib),
            instance_mib: self.instance_mib.or(below.instance_mib),
            header_mib: self.header_mib.or(below.header_mib),
            depth: self.depth.or(below.depth),
            elements: self.elements.or(below.elements),
            segment_mib: self.segment_mib.or(below.segment_mib),
            log_keep_mib: self.log_keep_mib.or(below.log_keep_mib),
            log_keep_seconds: self.log_keep_seconds.or(below.log_keep_seconds),
            replace_after_seconds: self.replace_after_seconds.or(below.replace_after_seconds),
            mirror_mib_per_second: self.mirror_mib_per_second.or(below.mirror_mib_per_second),
            scrub_days: self.scrub_days.or(below.scrub_days),
            backup_to: self.backup_to.or(below.backup_to),
            backup_every: self.backup_every.or(below.backup_every),
            log: self.log.or(below.log),
            log_format: self.log_format.or(below.log_format),
        }
    }

    fn check(self) -> Result<Settings, SettingsError> {
        let name = self.name.unwrap_or_else(|| "n1".into());
        if !name_is_plain(&name) {
            return Err(bad("name", format!("`{name}`: 1 to 63 letters, digits, `-` or `.`")));
        }
        let peers = named_addresses("peers", self.peers.as_deref().unwrap_or_default().split(','))?;
        if !peers.is_empty() && !peers.contains_key(&name) {
            let names: Vec<_> = peers.keys().map(String::as_str).collect();
            return Err(bad("name", format!("`{name}` is not one of --peers ({})", names.join(", "))));
        }
        let peer = self.peer.or_else(|| peers.get(&name).cloned()).unwrap_or_else(|| "127.0.0.1:7400".into());
        let title = self.ae_title.unwrap_or_else(|| "TRIPTYCH".into());
        let ae_title = AeTitle::parse(&title).map_err(|error| bad("ae-title", format!("`{title}`: {error}")))?;
        let mut remotes = BTreeMap::new();
        for (remote, address) in named_addresses("remote-ae", self.remote_ae.iter().map(String::as_str))? {
            let title = AeTitle::parse(&remote).map_err(|error| bad("remote-ae", format!("`{remote}`: {error}")))?;
            remotes.insert(remote, RemoteAe { title, address });
        }
        Ok(Settings {
            data: self.data.unwrap_or_else(|| "data".into()),
            dimse: address("dimse", self.dimse.unwrap_or_else(|| "127.0.0.1:11112".into()))?,
            http: address("http", self.http.unwrap_or_else(|| "127.0.0.1:8080".into()))?,
            peer: address("peer", peer)?,
            commitment_report_for: Duration::from_secs(
                24 * 3600 * within("commitment-report-days", self.commitment_report_days.unwrap_or(3), 1, 30)?,
            ),
            rejections: {
                let default = RejectionPolicies::default();
                RejectionPolicies {
                    quality: rejection("reject-quality", self.reject_quality, default.quality, true)?,
                    patient_safety: rejection(
                        "reject-patient-safety",
                        self.reject_patient_safety,
                        default.patient_safety,
                        false,
                    )?,
                    wrong_worklist_entry: rejection(
                        "reject-worklist",
                        self.reject_worklist,
                        default.wrong_worklist_entry,
                        false,
                    )?,
                    retention_expired: rejection(
                        "reject-retention",
                        self.reject_retention,
                        default.retention_expired,
                        true,
                    )?,
                }
            },
            study_quiet: seconds("study-quiet-seconds", self.study_quiet_seconds, 60, 1, 86_400)?,
            notify_for: Duration::from_secs(24 * 3600 * within("notify-days", self.notify_days.unwrap_or(3), 1, 30)?),
            groups: within("groups", self.groups.unwrap_or(64), 1, 4096)?,
            ingest_bytes: within("ingest-mib", self.ingest_mib.unwrap_or(128), 16, 65_536)? << 20,
            read_bytes: within("read-mib", self.read_mib.unwrap_or(64), 16, 65_536)? << 20,
            associations: within("associations", self.associations.unwrap_or(512), 1, 65_535)?,
            associations_per_peer: within(
                "associations-per-peer",
                self.associations_per_peer.unwrap_or(128),
                1,
                65_535,
            )?,
            check_called_ae: self.check_called_ae.unwrap_or(true),
            artim: seconds("artim-seconds", self.artim_seconds, 30, 1, 3600)?,
            progress: seconds("progress-seconds", self.progress_seconds, 30, 1, 3600)?,
            idle: seconds("idle-seconds", self.idle_seconds, 300, 1, 86_400)?,
            compare_padding: self.compare_padding.unwrap_or(true),
            send_ahead: within("send-ahead", self.send_ahead.unwrap_or(8), 1, 64)?,
            drain: seconds("drain-seconds", self.drain_seconds, 20, 0, 3600)?,
            connections: within("connections", self.connections.unwrap_or(1024), 1, 65_535)?,
            connections_per_peer: within("connections-per-peer", self.connections_per_peer.unwrap_or(64), 1, 65_535)?,
            cors_origins: origins(self.cors_origin)?,
            trusted_proxies: proxies(&self.trusted_proxy)?,
            cache_for: seconds("cache-seconds", self.cache_seconds, 3600, 0, 31_536_000)?,
            queries: within("queries", self.queries.unwrap_or(16), 1, 1024)?,
            query_headers: within("query-headers", self.query_headers.unwrap_or(50_000), 1, 100_000_000)?,
            codec: CodecSettings {
                program: self.codec.map_or_else(|| Ok(codec_beside_us()), |file| codec_at(file).map(Some))?,
                workers: within("codec-workers", self.codec_workers.unwrap_or(2), 1, 256)?,
                memory_mib: within("codec-memory-mib", self.codec_memory_mib.unwrap_or(1024), 64, 65_536)?,
                frame_deadline: seconds("codec-seconds", self.codec_seconds, 30, 1, 3600)?,
                frame_bytes_max: within("codec-frames-mib", self.codec_frames_mib.unwrap_or(256), 16, 65_536)? << 20,
            },
            limits: Limits {
                instance_bytes_max: within("instance-mib", self.instance_mib.unwrap_or(8192), 1, 1 << 20)? << 20,
                header_bytes_max: within("header-mib", self.header_mib.unwrap_or(64), 1, 1024)? << 20,
                depth_max: within("depth", self.depth.unwrap_or(64), 1, 1024)?,
                elements_max: within("elements", self.elements.unwrap_or(1_000_000), 1000, 100_000_000)?,
                ..Limits::default()
            },
            segment_bytes: self
                .segment_mib
                .map(|mib| within("segment-mib", mib, 16, 4096))
                .transpose()?
                .map(|m| m << 20),
            log_keep_bytes: within("log-keep-mib", self.log_keep_mib.unwrap_or(256), 1, 1 << 20)? << 20,
            log_keep: seconds("log-keep-seconds", self.log_keep_seconds, 86_400, 1, 31_536_000)?,
            replace_after: seconds("replace-after-seconds", self.replace_after_seconds, 600, 5, 2_592_000)?,
            mirror_bytes_per_second: Some(within(
                "mirror-mib-per-second",
                self.mirror_mib_per_second.unwrap_or(0),
                0,
                1 << 20,
            )?)
            .filter(|mib| *mib > 0)
            .map(|mib| mib << 20),
            scrub_pass: Duration::from_secs(within("scrub-days", self.scrub_days.unwrap_or(14), 1, 365)? * 24 * 3600),
            backup_every: Duration::from_secs(3600 * within("backup-every", self.backup_every.unwrap_or(24), 1, 8760)?),
            backup_to: self.backup_to.map(store_url).transpose()?,
            log: self.log.unwrap_or_else(|| "info".into()),
            log_json: match self.log_format.as_deref() {
                None | Some("text") => false,
                Some("json") => true,
                Some(other) => return Err(bad("log-format", format!("`{other}`: `text` or `json`"))),
            },
            name,
            peers,
            ae_title,
            remotes,
        })
    }
}

fn bad(setting: &'static str, why: String) -> SettingsError {
    SettingsError::Bad { setting, why }
}

fn name_is_plain(name: &str) -> bool {
    (1..=63).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

/// What notes of one title do.
fn rejection(
    setting: &'static str,
    text: Option<String>,
    default: RejectionPolicy,
    may_show: bool,
) -> Result<RejectionPolicy, SettingsError> {
    let policy = text.map_or(Ok(default), |text| text.parse::<RejectionPolicy>()).map_err(|why| bad(setting, why))?;
    if policy.action.is_none() && !may_show {
        return Err(bad(setting, "what these notes name must go out of sight (IHE IOCM): `hide` or `delete`".into()));
    }
    Ok(policy)
}

fn within<T: PartialOrd + std::fmt::Display>(
    setting: &'static str,
    value: T,
    least: T,
    most: T,
) -> Result<T, SettingsError> {
    if value < least || value > most {
        return Err(bad(setting, format!("{value} is not within {least} to {most}")));
    }
    Ok(value)
}

fn seconds(
    setting: &'static str,
    value: Option<u64>,
    default: u64,
    least: u64,
    most: u64,
) -> Result<Duration, SettingsError> {
    within(setting, value.unwrap_or(default), least, most).map(Duration::from_secs)
}

/// The name of the program that decodes.
const CODEC: &str = "triptych-codec";

/// The codec that was installed with this program, if it was.
fn codec_beside_us() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.with_file_name(CODEC);
    beside.is_file().then_some(beside)
}

/// Workers run in the root folder: the path is made one from there.
fn codec_at(file: PathBuf) -> Result<PathBuf, SettingsError> {
    let found = std::path::absolute(&file).ok().filter(|file| file.is_file());
    found.ok_or_else(|| bad("codec", format!("`{}` is no file: name the program {CODEC}", file.display())))
}

/// `*`, or scheme, host and port as browsers send them: no path, no slash behind.
fn origins(texts: Vec<String>) -> Result<Vec<String>, SettingsError> {
    let texts: Vec<String> = texts.iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect();
    for text in &texts {
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
        let plain = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        if text != "*" && !plain {
            return Err(bad("cors-origin", format!("`{text}` is no origin, such as https://viewer.example, nor `*`")));
        }
    }
    Ok(texts)
}

/// Networks, `none`, or nothing, which is this machine.
fn proxies(texts: &[String]) -> Result<Vec<Network>, SettingsError> {
    let texts: Vec<&str> = texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()).collect();
    match texts.as_slice() {
        [] => Ok(Network::loopback()),
        ["none"] => Ok(Vec::new()),
        texts => texts.iter().map(|text| text.parse().map_err(|why| bad("trusted-proxy", why))).collect(),
    }
}

/// A store that backups can go to; whether it answers shows when it is used.
fn store_url(url: String) -> Result<String, SettingsError> {
    if url.starts_with("file:///")
        || url.strip_prefix("s3://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
    {
        return Ok(url);
    }
    Err(bad("backup-to", format!("`{url}`: say file:///folder or s3://bucket/prefix")))
}

fn address(setting: &'static str, text: String) -> Result<String, SettingsError> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text),
        _ => Err(bad(setting, format!("`{text}` is not HOST:PORT, such as 127.0.0.1:11112"))),
    }
}

/// `NAME=HOST:PORT` pairs, empty texts skipped, names once.
fn named_addresses<'a>(
    setting: &'static str,
    texts: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, String>, SettingsError> {
    let mut found = BTreeMap::new();
    for text in texts.map(str::trim).filter(|text| !text.is_empty()) {
        let Some((name, at)) = text.split_once('=') else {
            return Err(bad(setting, format!("`{text}` is not NAME=HOST:PORT")));
        };
        let at = address(setting, at.trim().to_owned())?;
        if found.insert(name.trim().to_owned(), at).is_some() {
            return Err(bad(setting, format!("`{}` is given twice", name.trim())));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(text: &str) -> ServeFlags {
        toml::from_str(text).expect("settings of a test")
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let settings = flags("name = 'n2'").over(flags("name = 'n3'\nae-title = 'PACS'")).check().expect("good");
        assert_eq!((settings.name.as_str(), settings.ae_title.as_str()), ("n2", "PACS"));
        assert_eq!((settings.dimse.as_str(), settings.groups), ("127.0.0.1:11112", 64));
    }

    #[test]
    fn what_is_not_given_is_what_the_faces_and_the_parser_have_as_their_defaults() {
        let settings = flags("").check().expect("good");
        assert_eq!(settings.limits, Limits::default());
        let dimse = archive_dimse::DimseSettings::default();
        let deadlines =
            archive_dimse::Deadlines { artim: settings.artim, progress: settings.progress, idle: settings.idle };
        assert_eq!(deadlines, dimse.deadlines);
        assert_eq!((settings.drain, settings.check_called_ae), (dimse.drain, dimse.check_called_ae));
        assert_eq!(settings.send_ahead, dimse.send_ahead);
        assert_eq!(settings.associations as usize, dimse.associations_max);
        assert_eq!(settings.associations_per_peer as usize, dimse.associations_per_peer_max);
        let web = archive_web::WebSettings::new(([127, 0, 0, 1], 0).into());
        assert_eq!(settings.connections as usize, web.connections_max);
        assert_eq!(settings.connections_per_peer as usize, web.connections_per_peer_max);
        assert_eq!((settings.progress, settings.drain), (web.write_timeout, web.drain_timeout));
        assert_eq!((settings.progress, settings.cors_origins), (web.body_timeout, web.cors_origins));
        assert_eq!((settings.trusted_proxies, settings.cache_for), (web.trusted_proxies, web.cache_for));
        let service = archive_service::ServiceSettings::default();
        assert_eq!(settings.queries as usize, service.queries_max);
        assert_eq!(settings.commitment_report_for, service.commitment_report_for);
        assert_eq!(settings.rejections, service.rejections);
        assert_eq!(settings.compare_padding, service.compare_padding);
        assert_eq!((settings.study_quiet, settings.notify_for), (service.study_quiet, service.notify_for));
        assert_eq!(settings.query_headers, archive_catalog::CatalogOptions::default().query_headers_max);
        assert_eq!(CodecSettings { program: None, ..settings.codec }, service.codec);
    }

    #[test]
    fn the_peer_address_comes_from_the_list_of_peers() {
        let peers = "name = 'n2'\npeers = 'n1=a:1, n2=b:2,n3=c:3'";
        assert_eq!(flags(peers).check().expect("good").peer, "b:2");
    }

    #[test]
    fn a_list_of_any_length_names_the_peers() {
        for names in [&["n1", "n2"][..], &["n1", "n2", "n3", "n4"], &["n1", "n2", "n3", "n4", "n5"]] {
            let list: Vec<_> = names.iter().map(|name| format!("{name}=h:1")).collect();
            let settings = flags(&format!("name = 'n2'\npeers = '{}'", list.join(","))).check().expect("good");
            assert_eq!(settings.peers.len(), names.len());
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_setting_and_what_would_be_right() {
        let refused = |text: &str| flags(text).check().expect_err(text).to_string();
        assert_eq!(refused("dimse = '11112'"), "--dimse: `11112` is not HOST:PORT, such as 127.0.0.1:11112");
        assert_eq!(refused("name = 'x'\npeers = 'a=h:1,b=h:2,c=h:3'"), "--name: `x` is not one of --peers (a, b, c)");
        assert_eq!(refused("remote-ae = ['X=h:1', 'X=h:2']"), "--remote-ae: `X` is given twice");
        assert_eq!(refused("groups = 0"), "--groups: 0 is not within 1 to 4096");
        assert_eq!(refused("commitment-report-days = 31"), "--commitment-report-days: 31 is not within 1 to 30");
        assert_eq!(refused("reject-quality = 'drop'"), "--reject-quality: `drop`: `show`, `hide` or `delete`");
        assert!(refused("reject-worklist = 'show'").contains("must go out of sight"));
        assert_eq!(refused("artim-seconds = 0"), "--artim-seconds: 0 is not within 1 to 3600");
        assert!(
            refused("cors-origin = ['viewer.example']").starts_with("--cors-origin: `viewer.example` is no origin")
        );
        assert!(refused("cors-origin = ['https://viewer.example/']").starts_with("--cors-origin"));
        assert!(refused("trusted-proxy = ['proxy']").starts_with("--trusted-proxy: `proxy` is no address or network"));
        assert!(flags("trusted-proxy = ['none']").check().expect("good").trusted_proxies.is_empty());
        assert!(refused("backup-to = '/backups'").contains("file:///folder"));
        assert!(refused("codec = '/nowhere'").contains("name the program triptych-codec"));
        assert_eq!(refused("codec-workers = 0"), "--codec-workers: 0 is not within 1 to 256");
        assert_eq!(refused("backup-every = 0"), "--backup-every: 0 is not within 1 to 8760");
        assert!(refused("ae-title = 'SEVENTEEN LETTERS'").starts_with("--ae-title"));
        assert!(toml::from_str::<ServeFlags>("nmae = 'n1'").is_err(), "an unknown key is an error");
    }
}
