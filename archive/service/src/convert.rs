//! An instance in another encoding than the stored one, for who does not take that. Nothing stored is changed, and little is
//! held: the bytes are recoded while they are sent, and frames decoded one by one. Who takes nothing but a lossless coding,
//! or demands one, has plain images encoded.

use crate::{Archive, CodecError, QueryError, Reading, decode::Decoding, encode::Encoding};
use archive_catalog::InstanceRow;
use archive_model::{
    DEFLATED_LE, Deflater, EXPLICIT_LE, Edits, Limits, RecodeError, Recoder, can_decode, can_encode, can_recode,
    transfer_syntax,
};
use bytes::Bytes;
use raft_types::ReadError;

/// Deflated bytes that are inflated in one step: at most 1000 times as many come out of them.
const DEFLATED_STEP_BYTES: usize = 2 << 10;

/// Why an instance cannot be had in another encoding.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// It is stored in a syntax whose pixel data is coded, and nobody here decodes it: there is no other form of it.
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
    /// Its frames could be decoded, were it what it says of them.
    #[error("the instance cannot be decoded: {0}")]
    Image(&'static str),
    /// A frame of it cannot be decoded.
    #[error("frame {frame} cannot be decoded: {why}")]
    Frame {
        /// Which, counted from 1.
        frame: u32,
        /// Why, and what to do.
        #[source]
        why: CodecError,
    },
    /// An attribute that a rule changes is not what the rule takes it for.
    #[error("it cannot be coerced: {0}")]
    Coerce(&'static str),
    /// Where its frames lie cannot be looked up now.
    #[error(transparent)]
    Look(#[from] QueryError),
    /// It cannot be read now.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The bytes of an instance in another encoding, in order.
pub struct Converting {
    way: Way,
    length_bytes: u64,
    ended: bool,
}

enum Way {
    Plain(Box<Plain>),
    Deflated(Box<Deflated>),
    Decoded(Box<Decoding>),
    Encoded(Box<Encoding>),
}

/// From one plain encoding to another.
struct Plain {
    reading: Reading,
    recoder: Recoder,
    /// Of the piece that was read last, what is still to be recoded; it keeps its permit until then.
    piece: Bytes,
    step_bytes: usize,
}

/// Deflated anew, because something in it is changed.
struct Deflated {
    plain: Plain,
    deflater: Deflater,
}

impl Archive {
    /// The instance in `to`. It is recoded once for nothing, so that what cannot be converted is known before the first
    /// byte is sent, and how long it becomes. Of one that is decoded that covers what is around its frames, and its frames
    /// as far as `decode.rs` says.
    ///
    /// # Errors
    /// See [`ConvertError`].
    pub async fn convert(&self, row: &InstanceRow, to: &str) -> Result<Converting, ConvertError> {
        self.convert_with(row, to, &Edits::default()).await
    }

    /// The same with some elements changed. In the stored syntax it is the object as it is stored but for these.
    pub(crate) async fn convert_with(
        &self,
        row: &InstanceRow,
        to: &str,
        edits: &Edits,
    ) -> Result<Converting, ConvertError> {
        if to == row.transfer_syntax && to == DEFLATED_LE {
            // All of it: nothing can be changed in the middle of a deflated stream.
            let way = || -> Result<Way, ConvertError> {
                let plain = *self.plain(row, EXPLICIT_LE, edits)?;
                Ok(Way::Deflated(Box::new(Deflated { plain, deflater: Deflater::default() })))
            };
            return tried(way).await;
        }
        if to == row.transfer_syntax {
            return self.patch(row, edits).await;
        }
        if can_decode(&row.transfer_syntax, to)
            && let Some(frames) = self.frames(row).await?
        {
            let (decoding, length_bytes) = Decoding::prepare(self, row, to, frames, edits).await?;
            return Ok(Converting { way: Way::Decoded(Box::new(decoding)), length_bytes, ended: false });
        }
        if can_encode(&row.transfer_syntax, to)
            && let Some(frames) = self.frames(row).await?
        {
            let (encoding, length_bytes) = Encoding::prepare(self, row, to, frames, edits).await?;
            return Ok(Converting { way: Way::Encoded(Box::new(encoding)), length_bytes, ended: false });
        }
        tried(|| Ok(Way::Plain(self.plain(row, to, edits)?))).await
    }

    /// Whether [`Archive::convert`] may succeed.
    #[must_use]
    pub fn may_convert(&self, row: &InstanceRow, to: &str) -> bool {
        let from = &row.transfer_syntax;
        can_recode(from, to) || can_decode(from, to) || can_encode(from, to)
    }

    /// As it is stored, but for `edits`. Only what is before the pixel data is gone through twice.
    async fn patch(&self, row: &InstanceRow, edits: &Edits) -> Result<Converting, ConvertError> {
        let to = &row.transfer_syntax;
        let never = || ConvertError::Never { from: to.clone(), to: to.clone() };
        let recoder = || Recoder::patching(to, edits, &lenient()).ok_or_else(never);
        let plain = |recoder| Plain {
            reading: self.read(row, 0..row.length_bytes),
            recoder,
            piece: Bytes::new(),
            step_bytes: usize::MAX,
        };
        let (mut trial, mut length_bytes, mut ended) = (plain(recoder()?), 0, false);
        while !ended && !trial.recoder.is_passing() {
            length_bytes += trial.step(&mut ended).await?.map_or(0, |piece| piece.len() as u64);
        }
        if !ended {
            length_bytes += row.length_bytes - trial.recoder.position().min(row.length_bytes);
        }
        drop(trial);
        Ok(Converting { way: Way::Plain(Box::new(plain(recoder()?))), length_bytes, ended: false })
    }

    fn plain(&self, row: &InstanceRow, to: &str, edits: &Edits) -> Result<Box<Plain>, ConvertError> {
        let from = &row.transfer_syntax;
        // A compressed syntax of what has no frames (a report): all of it is plain.
        let recoder = Recoder::new(from, to, &lenient()).or_else(|| Recoder::decoding(from, to, None, &lenient()));
        let recoder = recoder.map(|recoder| recoder.edited(edits));
        let step_bytes = if transfer_syntax(from).deflated { DEFLATED_STEP_BYTES } else { usize::MAX };
        Ok(Box::new(Plain {
            reading: self.read(row, 0..row.length_bytes),
            recoder: recoder.ok_or_else(|| ConvertError::Never { from: from.clone(), to: to.to_owned() })?,
            piece: Bytes::new(),
            step_bytes,
        }))
    }
}

/// What `way` gives, once it was gone for nothing: how long it becomes, and that it comes to an end.
async fn tried(way: impl Fn() -> Result<Way, ConvertError>) -> Result<Converting, ConvertError> {
    let mut trial = Converting { way: way()?, length_bytes: 0, ended: false };
    let mut length_bytes = 0;
    while let Some(piece) = trial.next().await {
        length_bytes += piece?.len() as u64;
    }
    drop(trial);
    Ok(Converting { way: way()?, length_bytes, ended: false })
}

/// Limits were kept at the door, perhaps by other settings than today's.
pub(crate) fn lenient() -> Limits {
    Limits { depth_max: usize::MAX, ..Limits::default() }
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
            let next = match &mut self.way {
                Way::Plain(plain) => plain.step(&mut self.ended).await.transpose(),
                Way::Deflated(deflated) => deflated.step(&mut self.ended).await.map(Some).transpose(),
                Way::Decoded(decoding) => decoding.step().await.transpose(),
                Way::Encoded(encoding) => encoding.step().await.transpose(),
            };
            self.ended |= !matches!(next, Some(Ok(_)));
            match next {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                next => return next,
            }
        }
        None
    }
}

impl Plain {
    async fn step(&mut self, ended: &mut bool) -> Result<Option<Bytes>, ConvertError> {
        let mut out = Vec::new();
        if self.piece.is_empty() {
            match self.reading.next().await.transpose()? {
                Some(piece) => self.piece = piece,
                None => {
                    self.recoder.finish(&mut out).map_err(ConvertError::Recode)?;
                    *ended = true;
                    return Ok(Some(out.into()));
                }
            }
        }
        let step = self.piece.split_to(self.piece.len().min(self.step_bytes));
        out.reserve(step.len() + step.len() / 8);
        self.recoder.push(&step, &mut out).map_err(ConvertError::Recode)?;
        Ok(Some(Covered::bytes(out, step)))
    }
}

impl Deflated {
    async fn step(&mut self, ended: &mut bool) -> Result<Bytes, ConvertError> {
        let piece = self.plain.step(ended).await?.unwrap_or_default();
        let mut out = Vec::new();
        self.deflater.push(&piece, &mut out);
        if *ended {
            self.deflater.finish(&mut out);
        }
        Ok(Covered::bytes(out, piece))
    }
}

/// Bytes that are held under the permit of others.
pub(crate) struct Covered {
    bytes: Vec<u8>,
    _by: Bytes,
}

impl Covered {
    /// The permit of what was read covers what became of it (S-3).
    pub(crate) fn bytes(bytes: Vec<u8>, by: Bytes) -> Bytes {
        Bytes::from_owner(Self { bytes, _by: by })
    }
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
