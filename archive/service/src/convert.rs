//! An instance in another uncompressed encoding than the stored one, for who does not take that. Nothing stored is
//! changed, and nothing is held: the bytes are recoded while they are sent.

use crate::{Archive, Reading};
use archive_catalog::InstanceRow;
use archive_model::{Limits, RecodeError, Recoder, can_recode, transfer_syntax};
use bytes::Bytes;
use raft_types::ReadError;

/// Deflated bytes that are inflated in one step: at most 1000 times as many come out of them.
const DEFLATED_STEP_BYTES: usize = 2 << 10;

/// Why an instance cannot be had in another encoding.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// It is stored in a syntax whose pixel data is coded: there is no other form of it.
    #[error("from {from} to {to} nothing is converted")]
    Never {
        /// What it is stored in.
        from: String,
        /// What was asked for.
        to: String,
    },
    /// It could be converted, were it what its syntax says.
    #[error("the instance cannot be converted: {0}")]
    Recode(#[source] RecodeError),
    /// It cannot be read now.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The bytes of an instance in another encoding, in order.
pub struct Converting {
    reading: Reading,
    recoder: Recoder,
    /// Of the piece that was read last, what is still to be recoded; it keeps its permit until then.
    piece: Bytes,
    step_bytes: usize,
    length_bytes: u64,
    ended: bool,
}

impl Archive {
    /// The instance in `to`. It is recoded once for nothing, so that what cannot be converted is known before the first
    /// byte is sent, and how long it becomes.
    ///
    /// # Errors
    /// See [`ConvertError`].
    pub async fn convert(&self, row: &InstanceRow, to: &str) -> Result<Converting, ConvertError> {
        let mut trial = self.converting(row, to)?;
        let mut length_bytes = 0;
        while let Some(piece) = trial.next().await {
            length_bytes += piece?.len() as u64;
        }
        Ok(Converting { length_bytes, ..self.converting(row, to)? })
    }

    /// Whether [`Archive::convert`] may succeed.
    #[must_use]
    pub fn may_convert(&self, row: &InstanceRow, to: &str) -> bool {
        can_recode(&row.transfer_syntax, to)
    }

    fn converting(&self, row: &InstanceRow, to: &str) -> Result<Converting, ConvertError> {
        let from = &row.transfer_syntax;
        // Limits were kept at the door, perhaps by other settings than today's.
        let never = || ConvertError::Never { from: from.clone(), to: to.to_owned() };
        let recoder = Recoder::new(from, to, &Limits { depth_max: usize::MAX, ..Limits::default() });
        let step_bytes = if transfer_syntax(from).deflated { DEFLATED_STEP_BYTES } else { usize::MAX };
        Ok(Converting {
            reading: self.read(row, 0..row.length_bytes),
            recoder: recoder.ok_or_else(never)?,
            piece: Bytes::new(),
            step_bytes,
            length_bytes: 0,
            ended: false,
        })
    }
}

impl Converting {
    /// How many bytes it yields in all.
    #[must_use]
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// The next piece; `None` after the last. After an error it is over.
    pub async fn next(&mut self) -> Option<Result<Bytes, ConvertError>> {
        while !self.ended {
            let next = self.step().await.transpose();
            self.ended |= !matches!(next, Some(Ok(_)));
            match next {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                next => return next,
            }
        }
        None
    }

    async fn step(&mut self) -> Result<Option<Bytes>, ConvertError> {
        let mut out = Vec::new();
        if self.piece.is_empty() {
            match self.reading.next().await.transpose()? {
                Some(piece) => self.piece = piece,
                None => {
                    self.recoder.finish(&mut out).map_err(ConvertError::Recode)?;
                    self.ended = true;
                    return Ok(Some(out.into()));
                }
            }
        }
        let step = self.piece.split_to(self.piece.len().min(self.step_bytes));
        out.reserve(step.len() + step.len() / 8);
        self.recoder.push(&step, &mut out).map_err(ConvertError::Recode)?;
        // The permit of what was read covers what became of it (S-3).
        Ok(Some(Bytes::from_owner(Covered { bytes: out, _by: step })))
    }
}

/// Bytes that are held under the permit of others.
struct Covered {
    bytes: Vec<u8>,
    _by: Bytes,
}

impl AsRef<[u8]> for Covered {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Freshness, Offer, Protocol, Selection, ServiceSettings, Source, testing};
    use archive_model::{EXPLICIT_LE, Encoding, IMPLICIT_LE, VR, tags, write_data_set};

    #[tokio::test]
    async fn an_implicit_instance_larger_than_the_read_budget_is_converted() {
        let folder = tempfile::tempdir().unwrap();
        let service = ServiceSettings { read_bytes_max: 2 << 20, ..ServiceSettings::default() };
        let (archive, _log) = testing::archive(folder.path(), service);
        let mut set = archive_model::DataSet::new();
        for (tag, uid) in [
            (tags::SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.7"),
            (tags::SOP_INSTANCE_UID, "1.2.3.1"),
            (tags::STUDY_INSTANCE_UID, "1.2.3"),
            (tags::SERIES_INSTANCE_UID, "1.2.3.9"),
        ] {
            set.put_text(tag, VR::UI, uid);
        }
        let pixels: Vec<u8> = (0..5_u32 << 20).map(|at| (at * 7) as u8).collect();
        let value = archive_model::Value::Bytes(pixels.into());
        set.put(archive_model::Element { tag: tags::PIXEL_DATA, vr: VR::OW, value });
        let offer = Offer {
            sop_class: None,
            instance: None,
            study: None,
            transfer_syntax: IMPLICIT_LE.into(),
            source: Source {
                protocol: Protocol::Dimse,
                calling_ae: String::new(),
                called_ae: String::new(),
                peer: String::new(),
            },
        };
        let mut ingest = archive.store(offer).await.unwrap();
        ingest.push(write_data_set(&set, Encoding::ImplicitLe).into()).await.unwrap();
        ingest.finish().await.unwrap();
        let studies = vec![archive_model::Uid::parse("1.2.3").unwrap()];
        let selection = Selection { studies, ..Selection::default() };
        let rows = archive.instances(selection, Freshness::Local).await.unwrap();
        let mut converting = archive.convert(&rows[0], EXPLICIT_LE).await.unwrap();
        let length_bytes = converting.length_bytes();
        let mut bytes = Vec::new();
        while let Some(piece) = converting.next().await {
            bytes.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(bytes.len() as u64, length_bytes);
        assert!(bytes == write_data_set(&set, Encoding::ExplicitLe));
        assert!(matches!(archive.convert(&rows[0], "1.2.840.10008.1.2.4.70").await, Err(ConvertError::Never { .. })));
    }
}
