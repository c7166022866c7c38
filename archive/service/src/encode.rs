//! A plain instance with its frames compressed, without loss, for who asks for that coding.
//!
//! ```text
//!   stored   elements │ pixel data: frame, frame, …  │ elements
//!            ─ recoder ┤ frame 1 … n ─► codec, which  ├ recoder ─►
//!                      │ decodes what it encoded      │
//!                      └ header, offset table, an item a frame, delimiter
//! ```
//!
//! How long it becomes is known only when all frames are encoded, so they are, before the first byte is sent, and kept: an
//! instance of more than [`NATIVE_BYTES_MAX`] is not compressed on its way. The SOP Instance UID stays: nothing is lost.

use crate::{
    Archive, ConvertError,
    codec::coding,
    convert::{Covered, lenient},
    decode::{self, Held},
    read::Reading,
};
use archive_catalog::InstanceRow;
use archive_codec_wire::Photometric;
use archive_model::{FrameMap, Recoder, transfer_syntax};
use bytes::Bytes;
use std::{collections::VecDeque, ops::Range, sync::Arc};

/// Native bytes of an instance that is compressed on its way, at most.
const NATIVE_BYTES_MAX: u64 = 256 << 20;

/// An instance that is being encoded.
pub(crate) struct Encoding {
    archive: Archive,
    row: InstanceRow,
    recoder: Recoder,
    /// The offset table, then the frames.
    coded: VecDeque<Bytes>,
    reading: Option<Reading>,
    finished: bool,
}

impl Encoding {
    /// An instance in `to`, and how many bytes that are.
    pub(crate) async fn prepare(
        archive: &Archive,
        row: &InstanceRow,
        to: &str,
        map: FrameMap,
    ) -> Result<(Self, u64), ConvertError> {
        let never = || ConvertError::Never { from: row.transfer_syntax.clone(), to: to.to_owned() };
        let coding = coding(&transfer_syntax(to)).ok_or_else(never)?;
        let places: Option<Vec<Range<u64>>> = (1..=map.frames())
            .map(|frame| map.bits(frame).filter(|(_, bit, _)| *bit == 0).map(|place| place.0))
            .collect();
        let places = places.filter(|places| !places.is_empty());
        let places = places.ok_or(ConvertError::Image("its frames do not begin on whole bytes"))?;
        let header = decode::header(archive, row, places[0].start).await?;
        let image = decode::image(&header)?;
        let frame_bytes = u64::try_from(image.native_bytes()).unwrap_or(u64::MAX);
        if places.iter().any(|place| place.end - place.start != frame_bytes) {
            return Err(ConvertError::Image(
                "its frames have not the bytes that rows, columns, samples and bits promise",
            ));
        }
        let native_bytes = frame_bytes.saturating_mul(places.len() as u64);
        if native_bytes > NATIVE_BYTES_MAX {
            return Err(ConvertError::Image(
                "more than 256 MiB of pixels are not compressed on their way: take them as they are stored",
            ));
        }
        let mut permit = archive.codec().reserve(native_bytes.saturating_add(frame_bytes)).await;
        let (mut frames, mut table, mut offset, mut became) = (Vec::new(), Vec::new(), 0_u32, image.photometric);
        for (place, number) in places.into_iter().zip(1..) {
            let mut native = Vec::new();
            let mut reading = archive.read(row, place);
            while let Some(piece) = reading.next().await {
                native.extend_from_slice(&piece?);
            }
            let frame = archive.codec().encode(coding, image, &native).await;
            let frame = frame.map_err(|why| ConvertError::Frame { frame: number, why })?;
            table.extend(offset.to_le_bytes());
            let item_bytes = u32::try_from(frame.bytes.len().next_multiple_of(2) + 8).ok();
            offset = item_bytes
                .and_then(|bytes| offset.checked_add(bytes))
                .ok_or(ConvertError::Image("its compressed frames are larger than 4 GiB"))?;
            became = frame.photometric;
            frames.push(frame.bytes);
        }
        permit.shrink(u64::from(offset));
        let permit = Arc::new(permit);
        let held = |bytes| Bytes::from_owner(Held { bytes, _permit: Arc::clone(&permit) });
        let coded: VecDeque<Bytes> = std::iter::once(table).chain(frames).map(held).collect();
        let coded_bytes: u64 = coded.iter().map(|item| item.len().next_multiple_of(2) as u64 + 8).sum();
        let changed = (became != image.photometric).then(|| Photometric::term(became));
        let recoder = || Recoder::encoding(&row.transfer_syntax, to, changed, &lenient()).ok_or_else(never);
        let mut trial = Self {
            archive: archive.clone(),
            row: row.clone(),
            recoder: recoder()?,
            coded: VecDeque::new(),
            reading: None,
            finished: false,
        };
        let mut around_bytes = 0;
        while let Some(bytes) = trial.step().await? {
            around_bytes += bytes.len() as u64;
        }
        Ok((Self { recoder: recoder()?, coded, reading: None, finished: false, ..trial }, around_bytes + coded_bytes))
    }

    /// The next bytes; perhaps none yet.
    pub(crate) async fn step(&mut self) -> Result<Option<Bytes>, ConvertError> {
        let mut out = Vec::new();
        if self.recoder.wants_frames() {
            self.reading = None;
            if let Some(item) = self.coded.pop_front() {
                self.recoder.fragment(&item, &mut out).map_err(ConvertError::Recode)?;
                return Ok(Some(Covered::bytes(out, item)));
            }
            let end = self.recoder.native_value().map_or(self.row.length_bytes, |value| value.end);
            self.recoder.resume(end, &mut out).map_err(ConvertError::Recode)?;
            self.reading = Some(self.archive.read(&self.row, end..self.row.length_bytes));
            return Ok(Some(out.into()));
        }
        let (archive, row) = (&self.archive, &self.row);
        let reading = self.reading.get_or_insert_with(|| archive.read(row, 0..row.length_bytes));
        match reading.next().await.transpose()? {
            Some(piece) => {
                self.recoder.push(&piece, &mut out).map_err(ConvertError::Recode)?;
                Ok(Some(Covered::bytes(out, piece)))
            }
            None if !std::mem::replace(&mut self.finished, true) => {
                self.recoder.finish(&mut out).map_err(ConvertError::Recode)?;
                Ok(Some(out.into()))
            }
            None => Ok(None),
        }
    }
}
