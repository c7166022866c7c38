//! Commands and outcomes: what the log carries. Bytes are `version | postcard`; the variant numbers are the format.
//!
//! ```text
//!   version 1   PutSmall, Block, Commit, Abort, Noop, Delete
//!   version 2   PutSmallUnder, CommitUnder: the policy for other content under a known UID travels with the instance, so
//!               that apply stays a function of the log
//!   version 3   PutRecord, RemoveRecord
//!   version 4   Reject, Restore
//!   version 5   PutSmallCanonical, CommitCanonical: the canonical digest stands beside the head, so that the bytes of a head
//!               are what they were
//! ```
//!
//! A command is written in the oldest version that can say it: nodes of an older release go on until somebody sets another
//! policy than theirs, or writes a record, and then say that they must be upgraded, instead of applying something else.
//! Outcomes of new commands go back to who proposed them, and so need no version of their own.
//!
//! When adding a variant: 1. at the end; 2. golden bytes in the tests; 3. a version, so that no old node misreads it.

use archive_model::{CanonicalDigest, Uid};
use bytes::Bytes;
use raft_types::{DecodeError, Versioned};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// One upload of an object that is larger than a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UploadId(pub [u8; 16]);

/// What an entry does to the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A whole instance; the entry's body is the data set.
    PutSmall {
        /// What is known of it.
        head: InstanceHead,
    },
    /// A piece of a larger instance; the entry's body is the piece.
    Block {
        /// The upload it belongs to.
        upload: UploadId,
        /// Its number, from 0.
        seq: u32,
    },
    /// Makes the blocks an instance.
    Commit {
        /// The upload.
        upload: UploadId,
        /// What is known of the instance.
        head: InstanceHead,
        /// Its blocks in order.
        blocks: Vec<BlockPart>,
    },
    /// Forgets the blocks of uploads that will not be committed.
    Abort {
        /// The uploads.
        uploads: Vec<UploadId>,
    },
    /// Nothing.
    Noop,
    /// Removes what the target names, and leaves a tombstone.
    Delete {
        /// What goes.
        target: Target,
        /// Why, and who says so.
        grounds: Grounds,
    },
    /// As `PutSmall`, under a policy.
    PutSmallUnder {
        /// What is known of the instance.
        head: InstanceHead,
        /// What becomes of it if its UID has another content.
        other_content: OtherContent,
    },
    /// As `Commit`, under a policy.
    CommitUnder {
        /// The upload.
        upload: UploadId,
        /// What is known of the instance.
        head: InstanceHead,
        /// Its blocks in order.
        blocks: Vec<BlockPart>,
        /// What becomes of it if its UID has another content.
        other_content: OtherContent,
    },
    /// Writes a record, in the place of the version that is expected (`record.rs`).
    PutRecord {
        /// Which one.
        name: RecordName,
        /// What must be there.
        expect: Expect,
        /// Its content, in the encoding of whoever owns the kind; at most 1 MiB.
        body: Bytes,
        /// When work on it is due; none while nothing is to be done.
        due_unix_ms: Option<u64>,
        /// When it was proposed; tells a copy of this proposal from another one of the same content.
        at_unix_ms: u64,
    },
    /// Removes a record, if it is of the version that is expected.
    RemoveRecord {
        /// Which one.
        name: RecordName,
        /// Its version.
        version: u64,
    },
    /// Does what a rejection note says to the instances of one study that it names, come or yet to come (`reject.rs`).
    Reject {
        /// The note, and what it was decided to do.
        rejection: Rejection,
        /// The study.
        study: Uid,
        /// Its series and their instances.
        named: Vec<(Uid, Vec<Uid>)>,
    },
    /// Takes back what notes did to the target: hidden instances answer again, those to come are not hidden.
    Restore {
        /// What comes back.
        target: Target,
    },
    /// As `PutSmallUnder`, of an instance whose canonical digest is known.
    PutSmallCanonical {
        /// What is known of the instance.
        head: InstanceHead,
        /// What becomes of it if its UID has another content.
        other_content: OtherContent,
        /// What tells another content from another padding.
        canonical: CanonicalDigest,
    },
    /// As `CommitUnder`, of an instance whose canonical digest is known.
    CommitCanonical {
        /// The upload.
        upload: UploadId,
        /// What is known of the instance.
        head: InstanceHead,
        /// Its blocks in order.
        blocks: Vec<BlockPart>,
        /// What becomes of it if its UID has another content.
        other_content: OtherContent,
        /// What tells another content from another padding.
        canonical: CanonicalDigest,
    },
}

/// A rejection note, and what was decided when it came: it travels with the order, so that every node does the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The note: Study, Series and SOP Instance UID.
    pub note: [Uid; 3],
    /// Its title, a code of DCM: `113001`.
    pub code: String,
    /// What becomes of the instances.
    pub action: RejectAction,
    /// What becomes of one that is stored again.
    pub again: RejectedAgain,
    /// Calling AE title, or the address, of who sent the note.
    pub source: String,
    /// When the node had the note; informational.
    pub rejected_unix_ms: u64,
}

/// What becomes of instances that a note names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejectAction {
    /// They are in no answer any more, and are kept.
    Hide,
    /// They go, as if they had been deleted.
    Delete,
}

/// What becomes of a rejected instance that is stored again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejectedAgain {
    /// It is accepted with success, kept, and stays hidden.
    Keep,
    /// It is refused.
    Refuse,
    /// It is accepted, and answers again with all that was kept of it.
    Restore,
}

/// What a record is known by. The group that it lives in follows from both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordName {
    /// What kind of work it is: at least one byte, and at most [`RecordName::KIND_BYTES_MAX`].
    pub kind: String,
    /// Its key among those of its kind: at least one byte, and at most [`RecordName::KEY_BYTES_MAX`].
    pub key: String,
}

impl RecordName {
    /// The longest kind, in bytes.
    pub const KIND_BYTES_MAX: usize = 32;
    /// The longest key, in bytes.
    pub const KEY_BYTES_MAX: usize = 256;

    /// What its group is a function of. No Study Instance UID has a NUL in it.
    #[must_use]
    pub fn place(&self) -> Vec<u8> {
        [self.kind.as_bytes(), b"\0", self.key.as_bytes()].concat()
    }

    pub(crate) fn fits(&self) -> bool {
        let within = |text: &str, max| (1..=max).contains(&text.len());
        within(&self.kind, Self::KIND_BYTES_MAX) && within(&self.key, Self::KEY_BYTES_MAX)
    }
}

/// What must be there for a record to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// No record of that name.
    Absent,
    /// This version of it.
    Version(u64),
}

/// What becomes of an instance whose UID is known with another content. The same content again is success under each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OtherContent {
    /// It is kept as a version beside the one that the UID answers.
    #[default]
    Keep,
    /// It is refused, and nothing of it is kept.
    Reject,
    /// It becomes what the UID answers, and what was is kept as a version.
    Replace,
}

impl Command {
    /// Stores a whole instance, under a policy.
    #[must_use]
    pub fn put_small(mut head: InstanceHead, other_content: OtherContent) -> Self {
        match (head.canonical.take(), other_content) {
            (Some(canonical), _) => Self::PutSmallCanonical { head, other_content, canonical },
            (None, OtherContent::Keep) => Self::PutSmall { head },
            (None, OtherContent::Reject | OtherContent::Replace) => Self::PutSmallUnder { head, other_content },
        }
    }

    /// Makes blocks an instance, under a policy.
    #[must_use]
    pub fn commit(
        upload: UploadId,
        mut head: InstanceHead,
        blocks: Vec<BlockPart>,
        other_content: OtherContent,
    ) -> Self {
        match (head.canonical.take(), other_content) {
            (Some(canonical), _) => Self::CommitCanonical { upload, head, blocks, other_content, canonical },
            (None, OtherContent::Keep) => Self::Commit { upload, head, blocks },
            (None, OtherContent::Reject | OtherContent::Replace) => {
                Self::CommitUnder { upload, head, blocks, other_content }
            }
        }
    }

    /// The oldest version that can say it.
    fn version(&self) -> u8 {
        match self {
            Self::PutSmallCanonical { .. } | Self::CommitCanonical { .. } => 5,
            Self::Reject { .. } | Self::Restore { .. } => 4,
            Self::PutRecord { .. } | Self::RemoveRecord { .. } => 3,
            Self::PutSmallUnder { .. } | Self::CommitUnder { .. } => 2,
            Self::PutSmall { .. }
            | Self::Block { .. }
            | Self::Commit { .. }
            | Self::Abort { .. }
            | Self::Noop
            | Self::Delete { .. } => 1,
        }
    }
}

/// A study, a series or an instance. An instance is named with its series, a series with its study.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Study Instance UID.
    pub study: Uid,
    /// Series Instance UID; none for the whole study.
    pub series: Option<Uid>,
    /// SOP Instance UID; none for the whole series.
    pub instance: Option<Uid>,
}

/// Why something was deleted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grounds {
    /// In the words of whoever ordered it.
    pub reason: String,
    /// The address that the order came from.
    pub source: String,
    /// When the node took the order; informational.
    pub deleted_unix_ms: u64,
}

impl std::fmt::Debug for Grounds {
    /// People write names into reasons.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grounds").field("source", &self.source).finish_non_exhaustive()
    }
}

/// One block of an instance: an entry of its group's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockPart {
    /// Index of the entry.
    pub index: u64,
    /// Bytes of its body.
    pub length_bytes: u32,
}

/// What is known of an instance, apart from its bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceHead {
    /// Study Instance UID.
    pub study: Uid,
    /// Series Instance UID.
    pub series: Uid,
    /// SOP Instance UID.
    pub instance: Uid,
    /// SOP Class UID.
    pub sop_class: Uid,
    /// Transfer syntax of the bytes, as received.
    pub transfer_syntax: String,
    /// Bytes of the data set.
    pub length_bytes: u64,
    /// BLAKE3 of the data set's bytes.
    pub digest: [u8; 32],
    /// zstd of the DICOM JSON of everything but bulk values; those are `BulkDataURI: "<offset>-<length>"`.
    pub header: Bytes,
    /// Indexed attributes: tag and values, decoded; a sequence is one value, its items as JSON.
    pub keys: Vec<(u32, Vec<String>)>,
    /// Encoded frame map.
    pub frames: Option<Bytes>,
    /// Who sent it.
    pub source: Source,
    /// When the sender's node had it whole; informational.
    pub received_unix_ms: u64,
    /// What it has in common with every content that differs in nothing but padding. The command carries it beside the head;
    /// what was stored before there were such digests has none.
    #[serde(skip)]
    pub canonical: Option<CanonicalDigest>,
}

impl std::fmt::Debug for InstanceHead {
    /// Names the instance; never the patient.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstanceHead")
            .field("instance", &self.instance)
            .field("length_bytes", &self.length_bytes)
            .finish_non_exhaustive()
    }
}

/// Provenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// How it came.
    pub protocol: Protocol,
    /// Calling AE title, if the protocol has one.
    pub calling_ae: String,
    /// Called AE title.
    pub called_ae: String,
    /// Address of the sender.
    pub peer: String,
}

/// How an instance came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// C-STORE.
    Dimse,
    /// STOW-RS.
    Stow,
    /// Import from files.
    Import,
}

impl Protocol {
    /// Its name in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dimse => "dimse",
            Self::Stow => "stow",
            Self::Import => "import",
        }
    }
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The instance is held.
    Stored(Admission),
    /// The block is held, under this index; after a retry that may be an earlier one.
    Held {
        /// Index of the entry that counts.
        index: u64,
    },
    /// The uploads are forgotten.
    Aborted,
    /// Nothing was asked.
    Nothing,
    /// Nothing changed.
    Refused(RefusedWhy),
    /// So much is deleted; nothing if it was not there.
    Deleted {
        /// Instances that went.
        instances: u64,
        /// Bytes of their data sets, versions included.
        bytes: u64,
    },
    /// The record is of this version now: the index of the entry that wrote it, greater than that of every earlier one, and
    /// never used twice.
    Recorded {
        /// The version.
        version: u64,
    },
    /// The record is of another version than was expected, or not there: nothing changed.
    Conflict {
        /// Its version; none when there is no such record.
        current: Option<u64>,
    },
    /// The record is gone.
    RecordRemoved,
    /// The note took effect: on so many instances. Those on which it had effect before do not count.
    Rejected {
        /// Instances that are in no answer any more.
        hidden: u64,
        /// Instances that went.
        deleted: u64,
        /// Instances that have not come yet: each is hidden as it comes.
        awaited: u64,
    },
    /// What notes did is taken back.
    Restored {
        /// Instances that answer again.
        instances: u64,
        /// Instances that are not there, and will not be hidden when they come.
        lifted: u64,
    },
}

impl Outcome {
    pub(crate) const NOTHING_DELETED: Self = Self::Deleted { instances: 0, bytes: 0 };
}

/// What a stored instance was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admission {
    /// Not known before.
    New,
    /// The same bytes were there already.
    Same,
    /// Another content under a known UID: kept as a version, what the UID answers stays.
    Version {
        /// Its number; what the UID answers is 0.
        number: u32,
    },
    /// Another content under a known UID: it is what the UID answers from now on.
    Replaced {
        /// The number of the version that the content before it is kept as.
        number: u32,
    },
    /// A content that differs in nothing but padding was there already: it stays, and nothing is kept of these bytes.
    Alike,
}

/// Why a command changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusedWhy {
    /// The bytes are not as many as the head says.
    LengthMismatch,
    /// A block of the upload is not held: it was aborted, or never proposed.
    BlockMissing,
    /// The series has as many instances as a series can have: 16,777,216.
    SeriesFull,
    /// It was stored, acknowledged and deleted before this copy of its store came.
    Deleted,
    /// Its UID is known with another content, and the policy of its sender is to reject such.
    OtherContent,
    /// The name or the body of the record is empty where it may not be, or larger than a record may be.
    RecordTooLarge,
    /// A rejection note names it, and the policy for such is to refuse it.
    Rejected,
}

fn encode<T: Serialize>(version: u8, value: &T) -> Bytes {
    // Only a type that cannot tell its length can fail to serialise, and there is none here.
    postcard::to_extend(value, vec![version]).unwrap_or_default().into()
}

fn decode<T: Versioned + DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    match bytes.split_first() {
        Some((found, _)) if *found > T::VERSION => Err(DecodeError::Newer { what, found: *found, newest: T::VERSION }),
        // The variants of an older version are the first of the newer one.
        Some((1.., rest)) => {
            postcard::from_bytes(rest).map_err(|error| DecodeError::Malformed { what, why: error.to_string() })
        }
        _ => Err(DecodeError::Malformed { what, why: "no version".into() }),
    }
}

impl Versioned for Command {
    const VERSION: u8 = 5;
    /// In the oldest version that can say it.
    fn encode(&self) -> Bytes {
        encode(self.version(), self)
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode("command", bytes)
    }
}

impl Versioned for Outcome {
    const VERSION: u8 = 1;
    fn encode(&self) -> Bytes {
        encode(Self::VERSION, self)
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode("outcome", bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> InstanceHead {
        InstanceHead {
            study: Uid::parse("1.2").expect("a UID"),
            series: Uid::parse("1.3").expect("a UID"),
            instance: Uid::parse("1.4").expect("a UID"),
            sop_class: Uid::parse("1.5").expect("a UID"),
            transfer_syntax: "1.6".into(),
            length_bytes: 300,
            digest: [7; 32],
            header: Bytes::from_static(b"zstd"),
            keys: vec![(0x0010_0010, vec!["A^B".into()])],
            frames: Some(Bytes::from_static(b"f")),
            source: Source {
                protocol: Protocol::Stow,
                calling_ae: "C".into(),
                called_ae: "D".into(),
                peer: "p".into(),
            },
            received_unix_ms: 5,
            canonical: None,
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_of_commands_never_change() {
        let put = Command::put_small(head(), OtherContent::Keep);
        let known = "03312e3203312e3303312e3403312e3503312e36ac02".to_owned()
            + &"07".repeat(32)
            + "047a737464019080400103415e420101660101430144017005";
        assert_eq!(hex(&put.encode()), format!("0100{known}"));
        let reject = Command::put_small(head(), OtherContent::Reject);
        assert_eq!(hex(&reject.encode()), format!("0206{known}01"));
        let blocks = vec![BlockPart { index: 300, length_bytes: 5 }];
        let commit = Command::commit(UploadId([1; 16]), head(), blocks.clone(), OtherContent::Keep);
        let of_upload = format!("{}{known}01ac0205", "01".repeat(16));
        assert_eq!(hex(&commit.encode()), format!("0102{of_upload}"));
        let replace = Command::commit(UploadId([1; 16]), head(), blocks, OtherContent::Replace);
        assert_eq!(hex(&replace.encode()), format!("0207{of_upload}02"));
        assert_eq!(hex(&Outcome::Stored(Admission::Replaced { number: 3 }).encode()), "01000303");
        assert_eq!(hex(&Outcome::Refused(RefusedWhy::OtherContent).encode()), "010404");
        let canonical = InstanceHead { canonical: Some(CanonicalDigest::of_digest([9; 32])), ..head() };
        let put_canonical = Command::put_small(canonical.clone(), OtherContent::Keep);
        let digest = "01".to_owned() + &"09".repeat(32);
        assert_eq!(hex(&put_canonical.encode()), format!("050c{known}00{digest}"));
        let blocks = vec![BlockPart { index: 300, length_bytes: 5 }];
        let commit_canonical = Command::commit(UploadId([1; 16]), canonical, blocks, OtherContent::Replace);
        assert_eq!(hex(&commit_canonical.encode()), format!("050d{of_upload}02{digest}"));
        assert_eq!(hex(&Outcome::Stored(Admission::Alike).encode()), "010004");
        let block = Command::Block { upload: UploadId([1; 16]), seq: 2 };
        assert_eq!(hex(&block.encode()), "0101".to_owned() + &"01".repeat(16) + "02");
        assert_eq!(hex(&Command::Noop.encode()), "0104");
        assert_eq!(hex(&Outcome::Stored(Admission::Version { number: 3 }).encode()), "01000203");
        assert_eq!(hex(&Outcome::Held { index: 9 }.encode()), "010109");
        assert_eq!(hex(&Outcome::Refused(RefusedWhy::BlockMissing).encode()), "010401");
        assert_eq!(hex(&Outcome::Refused(RefusedWhy::SeriesFull).encode()), "010402");
        let uid = |text| Uid::parse(text).expect("a UID");
        let delete = Command::Delete {
            target: Target { study: uid("1.2"), series: Some(uid("1.3")), instance: None },
            grounds: Grounds { reason: "r".into(), source: "s".into(), deleted_unix_ms: 5 },
        };
        assert_eq!(hex(&delete.encode()), "010503312e320103312e330001720173 05".replace(' ', ""));
        assert_eq!(hex(&Outcome::Deleted { instances: 2, bytes: 300 }.encode()), "010502ac02");
        assert_eq!(hex(&Outcome::Refused(RefusedWhy::Deleted).encode()), "010403");
        let name = RecordName { kind: "k".into(), key: "1.2".into() };
        let record = Command::PutRecord {
            name: name.clone(),
            expect: Expect::Version(300),
            body: Bytes::from_static(b"b"),
            due_unix_ms: Some(7),
            at_unix_ms: 5,
        };
        assert_eq!(hex(&record.encode()), "0308016b03312e32 01ac02 0162 0107 05".replace(' ', ""));
        let anew = Command::PutRecord {
            name: name.clone(),
            expect: Expect::Absent,
            body: Bytes::new(),
            due_unix_ms: None,
            at_unix_ms: 5,
        };
        assert_eq!(hex(&anew.encode()), "0308016b03312e32 00 00 00 05".replace(' ', ""));
        let remove = Command::RemoveRecord { name, version: 300 };
        assert_eq!(hex(&remove.encode()), "0309016b03312e32 ac02".replace(' ', ""));
        assert_eq!(hex(&Outcome::Recorded { version: 300 }.encode()), "0106ac02");
        assert_eq!(hex(&Outcome::Conflict { current: Some(2) }.encode()), "01070102");
        assert_eq!(hex(&Outcome::Conflict { current: None }.encode()), "010700");
        assert_eq!(hex(&Outcome::RecordRemoved.encode()), "0108");
        assert_eq!(hex(&Outcome::Refused(RefusedWhy::RecordTooLarge).encode()), "010405");
        let rejected = Command::Reject {
            rejection: Rejection {
                note: [uid("1.2"), uid("1.3"), uid("1.4")],
                code: "113001".into(),
                action: RejectAction::Delete,
                again: RejectedAgain::Restore,
                source: "s".into(),
                rejected_unix_ms: 5,
            },
            study: uid("1.2"),
            named: vec![(uid("1.5"), vec![uid("1.6")])],
        };
        let note = "03312e32 03312e33 03312e34 06313133303031 01 02 0173 05";
        let named = "03312e32 01 03312e35 01 03312e36";
        assert_eq!(hex(&rejected.encode()), format!("040a{note}{named}").replace(' ', ""));
        let target = Target { study: uid("1.2"), series: None, instance: None };
        let restore = Command::Restore { target };
        assert_eq!(hex(&restore.encode()), "040b03312e320000");
        assert_eq!(hex(&Outcome::Rejected { hidden: 1, deleted: 2, awaited: 300 }.encode()), "01090102ac02");
        assert_eq!(hex(&Outcome::Restored { instances: 1, lifted: 2 }.encode()), "010a0102");
        assert_eq!(hex(&Outcome::Refused(RefusedWhy::Rejected).encode()), "010406");
        let abort = Command::Abort { uploads: vec![UploadId([2; 16])] };
        let stores = [put, reject, commit, replace, put_canonical, commit_canonical];
        let others = [rejected, restore, record, anew, remove, delete, block, Command::Noop, abort];
        for command in stores.into_iter().chain(others) {
            assert_eq!(Command::decode(&command.encode()), Ok(command));
        }
    }

    #[test]
    fn a_command_of_a_newer_release_is_an_error_and_never_skipped() {
        assert!(matches!(Command::decode(&[6, 0]), Err(DecodeError::Newer { found: 6, newest: 5, .. })));
        assert!(matches!(Command::decode(&[0, 4]), Err(DecodeError::Malformed { .. })));
        assert!(matches!(Outcome::decode(&[2, 0]), Err(DecodeError::Newer { found: 2, newest: 1, .. })));
        assert!(matches!(Command::decode(&[1, 99]), Err(DecodeError::Malformed { .. })));
        assert!(matches!(Command::decode(&[]), Err(DecodeError::Malformed { .. })));
    }
}
