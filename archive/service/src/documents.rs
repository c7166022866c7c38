//! Data sets as records: the worklist's entries and performed procedure steps.
//!
//! A body is `version 1 | DICOM JSON` (PS3.18 Annex F), so that it is read by any later version and by people.

use crate::{Freshness, RecordError, Records};
use archive_catalog::{Expect, Record};
use archive_model::{
    DataSet, Limits,
    json::{from_json, no_bulk, to_json},
};
use bytes::Bytes;

const VERSION: u8 = 1;
/// Bytes of one data set as JSON, at most.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 256 << 10;
/// Writers of one record that may come in between before a change gives up.
const TRIES: usize = 8;

/// Why a data set could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is larger than 256 KiB.
    #[error("it has more than 256 KiB: leave out what belongs to the images")]
    TooLarge,
    /// What is kept under this name is of a later version of the archive.
    #[error("it was written by a later version of the archive: upgrade this node")]
    Version,
    /// Others change it all the time.
    #[error("others are changing it: try again")]
    Busy,
    /// The record was not written or read.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// The bytes of a record.
pub(crate) fn encode(set: &DataSet) -> Result<Bytes, DocumentError> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&to_json(set, &no_bulk));
    if bytes.len() > DOCUMENT_BYTES_MAX { Err(DocumentError::TooLarge) } else { Ok(bytes.into()) }
}

/// The data set of a record.
pub(crate) fn decode(record: &Record) -> Result<DataSet, DocumentError> {
    match record.body.split_first() {
        Some((&VERSION, json)) => from_json(json, &Limits::default()).map_err(|_| DocumentError::Version),
        _ => Err(DocumentError::Version),
    }
}

/// Puts what `change` makes of what is there, again when somebody was quicker. Answers what `change` answered.
pub(crate) async fn update<E: From<DocumentError>>(
    records: &Records,
    key: &str,
    change: impl Fn(Option<DataSet>) -> Result<DataSet, E>,
) -> Result<DataSet, E> {
    let from = |error: RecordError| E::from(DocumentError::from(error));
    for _ in 0..TRIES {
        let found = records.get(key, Freshness::ReadIndex).await.map_err(from)?;
        let expect = found.as_ref().map_or(Expect::Absent, |record| Expect::Version(record.version));
        let now = change(found.as_ref().map(decode).transpose()?)?;
        match records.put(key, expect, encode(&now)?, None).await {
            Ok(_) => return Ok(now),
            Err(RecordError::Conflict { .. }) => {}
            Err(error) => return Err(from(error)),
        }
    }
    Err(DocumentError::Busy.into())
}
