//! An instance with encapsulated pixel data, its frames decoded one by one while it is sent.
//!
//! ```text
//!   stored   elements │ pixel data: item, item, …                         │ elements
//!            ─ recoder ┤ frame 1 … n: read ranges ─► codec ─► native frame ├ recoder ─►
//!                      └ header of the native length, known from the attributes
//! ```
//!
//! Before the first byte is sent: the attributes are read, the first frame is decoded (it tells what the colours become),
//! all that is around the frames is recoded for nothing, and of an instance of at most [`EAGER_BYTES_MAX`] native bytes
//! all frames are decoded and kept. So a damaged frame fails its sub-operation or request, and nothing else. Of a larger
//! instance a later frame may fail when part of the object is out: there is no way to take that back, and the association
//! (C-MOVE: to the destination, which is opened anew for the rest) or the HTTP answer is cut off, as when the log cannot be
//! read to the end. Never is another image sent than the stored one.

use crate::{
    Archive, ConvertError,
    codec::{Frame, coding},
    convert::{Covered, lenient},
    read::Reading,
};
use archive_catalog::InstanceRow;
use archive_codec_wire::{Coding, Image, Photometric};
use archive_model::{
    DataSet, EXPLICIT_LE, Edits, FrameMap, NativePixels, Recoder, Scanner, can_decode, tags, transfer_syntax,
};
use bytes::Bytes;
use raft_types::BytePermit;
use std::{collections::VecDeque, ops::Range, sync::Arc};

/// Native bytes up to which all frames are decoded before any of them is sent.
const EAGER_BYTES_MAX: u64 = 32 << 20;
/// Bytes of a frame that are passed on at once.
const PIECE_BYTES: usize = 1 << 20;
/// What a length of 4 bytes can say and still be even.
const NATIVE_BYTES_MAX: u64 = 0xFFFF_FFFE;

/// An instance that is being decoded.
pub(crate) struct Decoding {
    source: Source,
    recoder: Recoder,
    /// What all frames become.
    became: (Photometric, bool),
    /// Frames that are decoded already.
    ready: VecDeque<Bytes>,
    /// The next one to be decoded, counted from 1.
    next: u32,
    /// Of the frame that is being sent, the rest.
    frame: Bytes,
    phase: Phase,
}

/// Where the bytes come from.
struct Source {
    archive: Archive,
    row: InstanceRow,
    map: FrameMap,
    image: Image,
    coding: Coding,
}

enum Phase {
    /// What is before the frames, or behind them.
    Around(Reading),
    Frames,
    Ended,
}

impl Decoding {
    /// An instance in `to`, and how many bytes that are.
    pub(crate) async fn prepare(
        archive: &Archive,
        row: &InstanceRow,
        to: &str,
        map: FrameMap,
        edits: &Edits,
    ) -> Result<(Self, u64), ConvertError> {
        let never = || ConvertError::Never { from: row.transfer_syntax.clone(), to: to.to_owned() };
        let (first, last) = ends(&map)?;
        let source = Source::open(archive, row, map, first).await?.ok_or_else(never)?;
        let image = source.image;
        if !image.native_bits().is_multiple_of(8) && source.map.frames() > 1 {
            return Err(ConvertError::Image("its frames of single bits do not fill whole bytes"));
        }
        let frame_bytes = u64::try_from(image.native_bytes()).unwrap_or(u64::MAX);
        let length_bytes = frame_bytes.saturating_mul(u64::from(source.map.frames()));
        let length = u32::try_from(length_bytes).ok().filter(|_| length_bytes <= NATIVE_BYTES_MAX);
        let length = length.ok_or(ConvertError::Image("its native pixel data is larger than 4 GiB"))?;
        let frames = if length_bytes <= EAGER_BYTES_MAX { source.map.frames() } else { 1 };
        let (ready, became) = source.eager(frames).await?;
        let pixels = NativePixels {
            length,
            allocated: image.allocated,
            photometric: (became.0 != image.photometric).then(|| became.0.term()),
            planar: (image.samples > 1).then_some(became.1),
        };
        let recoder = || {
            Recoder::decoding(&row.transfer_syntax, to, Some(pixels.clone()), &lenient())
                .map(|recoder| recoder.edited(edits))
                .ok_or_else(never)
        };
        let around_bytes = source.trial(recoder()?, first, last).await?;
        let decoding = Self {
            phase: Phase::Around(source.archive.read(row, 0..first)),
            source,
            recoder: recoder()?,
            became,
            ready,
            next: frames + 1,
            frame: Bytes::new(),
        };
        Ok((decoding, around_bytes + length_bytes))
    }

    /// The next bytes; perhaps none yet.
    pub(crate) async fn step(&mut self) -> Result<Option<Bytes>, ConvertError> {
        let mut out = Vec::new();
        match &mut self.phase {
            Phase::Ended => return Ok(None),
            Phase::Around(reading) => match reading.next().await.transpose()? {
                Some(piece) => {
                    self.recoder.push(&piece, &mut out).map_err(ConvertError::Recode)?;
                    if self.recoder.wants_frames() {
                        self.phase = Phase::Frames;
                    }
                    return Ok(Some(Covered::bytes(out, piece)));
                }
                None => {
                    self.recoder.finish(&mut out).map_err(ConvertError::Recode)?;
                    self.phase = Phase::Ended;
                }
            },
            Phase::Frames if self.frame.is_empty() => match self.ready.pop_front() {
                Some(frame) => self.frame = frame,
                None if self.next <= self.source.map.frames() => {
                    let (frame, became) = self.source.frame(self.next).await?;
                    same(self.became, became)?;
                    self.frame = frame;
                    self.next += 1;
                }
                None => {
                    let (_, last) = ends(&self.source.map)?;
                    self.recoder.resume(last, &mut out).map_err(ConvertError::Recode)?;
                    let row = &self.source.row;
                    self.phase = Phase::Around(self.source.archive.read(row, last..row.length_bytes));
                }
            },
            Phase::Frames => {
                let piece = self.frame.split_to(self.frame.len().min(PIECE_BYTES));
                out.reserve(piece.len());
                self.recoder.frame(&piece, &mut out).map_err(ConvertError::Recode)?;
                return Ok(Some(Covered::bytes(out, piece)));
            }
        }
        Ok(Some(out.into()))
    }
}

impl Source {
    /// What is known before the first frame, which begins at `first`; `None` where nothing decodes the syntax.
    async fn open(
        archive: &Archive,
        row: &InstanceRow,
        map: FrameMap,
        first: u64,
    ) -> Result<Option<Self>, ConvertError> {
        let Some(coding) = coding(&transfer_syntax(&row.transfer_syntax)) else { return Ok(None) };
        let header = header(archive, row, first).await?;
        let image = image(&header)?;
        let frames = header.integer(tags::NUMBER_OF_FRAMES).filter(|frames| *frames > 0).unwrap_or(1);
        if frames != i128::from(map.frames()) {
            return Err(ConvertError::Image("its fragments are not as many frames as Number of Frames says"));
        }
        Ok(Some(Self { archive: archive.clone(), row: row.clone(), map, image, coding }))
    }

    /// The first `frames`, under one permit: who holds frames never waits for the permit of others.
    async fn eager(&self, frames: u32) -> Result<(VecDeque<Bytes>, (Photometric, bool)), ConvertError> {
        let coded = (1..=frames).map(|frame| self.coded_bytes(frame)).max().unwrap_or(0);
        let native = u64::try_from(self.image.native_bytes()).unwrap_or(u64::MAX);
        let permit = self.archive.codec().reserve((native * u64::from(frames)).saturating_add(coded)).await;
        let permit = Arc::new(permit);
        let (mut ready, mut became) = (VecDeque::new(), None);
        for number in 1..=frames {
            let frame = self.decoded(number).await?;
            let is = (frame.photometric, frame.planar);
            same(*became.get_or_insert(is), is)?;
            ready.push_back(Bytes::from_owner(Held { bytes: frame.bytes, _permit: Arc::clone(&permit) }));
        }
        // Frames count from 1: there was one.
        Ok((ready, became.unwrap_or((self.image.photometric, self.image.planar))))
    }

    /// Frame `number`, and what it became.
    async fn frame(&self, number: u32) -> Result<(Bytes, (Photometric, bool)), ConvertError> {
        let native = u64::try_from(self.image.native_bytes()).unwrap_or(u64::MAX);
        let mut permit = self.archive.codec().reserve(native.saturating_add(self.coded_bytes(number))).await;
        let frame = self.decoded(number).await?;
        permit.shrink(native);
        let held = Held { bytes: frame.bytes, _permit: Arc::new(permit) };
        Ok((Bytes::from_owner(held), (frame.photometric, frame.planar)))
    }

    fn coded_bytes(&self, frame: u32) -> u64 {
        self.ranges(frame).iter().map(|range| range.end - range.start).sum()
    }

    fn ranges(&self, frame: u32) -> Vec<Range<u64>> {
        self.map.ranges(frame).unwrap_or_default()
    }

    async fn decoded(&self, number: u32) -> Result<Frame, ConvertError> {
        // Held under the permit that the caller has.
        let mut stream = Vec::with_capacity(usize::try_from(self.coded_bytes(number)).unwrap_or(0));
        for range in self.ranges(number) {
            let mut reading = self.archive.read(&self.row, range);
            while let Some(piece) = reading.next().await {
                stream.extend_from_slice(&piece?);
            }
        }
        let decoded = self.archive.codec().decode(self.coding, self.image, &stream).await;
        decoded.map_err(|why| ConvertError::Frame { frame: number, why })
    }

    /// Bytes of what is before and behind the frames, and whether it can be written at all.
    async fn trial(&self, mut recoder: Recoder, first: u64, last: u64) -> Result<u64, ConvertError> {
        let mut bytes = 0;
        let mut out = Vec::new();
        let mut reading = self.archive.read(&self.row, 0..first);
        while let Some(piece) = reading.next().await {
            recoder.push(&piece?, &mut out).map_err(ConvertError::Recode)?;
            bytes += out.len() as u64;
            out.clear();
        }
        recoder.pass_frames();
        recoder.resume(last, &mut out).map_err(ConvertError::Recode)?;
        let mut reading = self.archive.read(&self.row, last..self.row.length_bytes);
        while let Some(piece) = reading.next().await {
            recoder.push(&piece?, &mut out).map_err(ConvertError::Recode)?;
            bytes += out.len() as u64;
            out.clear();
        }
        recoder.finish(&mut out).map_err(ConvertError::Recode)?;
        Ok(bytes + out.len() as u64)
    }
}

fn same(one: (Photometric, bool), other: (Photometric, bool)) -> Result<(), ConvertError> {
    if one == other { Ok(()) } else { Err(ConvertError::Image("its frames are of different colours")) }
}

/// Frames of an instance with encapsulated pixel data, each decoded when it is asked for.
pub struct NativeFrames {
    source: Source,
}

impl NativeFrames {
    /// Frame `number`, counted from 1, native and little endian.
    ///
    /// # Errors
    /// When it cannot be decoded; when decoded it is of other colours than the metadata of the instance say: whoever shows it
    /// by them would show something else.
    pub async fn frame(&self, number: u32) -> Result<Bytes, ConvertError> {
        let (bytes, became) = self.source.frame(number).await?;
        if became == (self.source.image.photometric, self.source.image.planar) {
            Ok(bytes)
        } else {
            Err(ConvertError::Image(
                "decoded its colours are others than its metadata say: retrieve the whole instance",
            ))
        }
    }
}

impl Archive {
    /// The frames of an instance with encapsulated pixel data, in native form.
    ///
    /// # Errors
    /// [`ConvertError`], when they cannot be had.
    pub async fn native_frames(&self, row: &InstanceRow) -> Result<NativeFrames, ConvertError> {
        let never = || ConvertError::Never { from: row.transfer_syntax.clone(), to: EXPLICIT_LE.to_owned() };
        let map =
            self.frames(row).await?.filter(|_| can_decode(&row.transfer_syntax, EXPLICIT_LE)).ok_or_else(never)?;
        let (first, _) = ends(&map)?;
        Ok(NativeFrames { source: Source::open(self, row, map, first).await?.ok_or_else(never)? })
    }
}

/// Where the first fragment with bytes begins, and the header of the last one.
fn ends(map: &FrameMap) -> Result<(u64, u64), ConvertError> {
    let (first, last) = (map.ranges(1).unwrap_or_default(), map.ranges(map.frames()).unwrap_or_default());
    let found =
        first.first().zip(last.last()).and_then(|(first, last)| Some((first.start, last.start.checked_sub(8)?)));
    found.ok_or(ConvertError::Image("its first or last frame has no bytes"))
}

/// The elements before the frames.
pub(crate) async fn header(archive: &Archive, row: &InstanceRow, end: u64) -> Result<DataSet, ConvertError> {
    let mut scanner = Scanner::new(&transfer_syntax(&row.transfer_syntax), &lenient());
    let mut reading = archive.read(row, 0..end);
    while let Some(piece) = reading.next().await {
        scanner.push(&piece?).map_err(|_| ConvertError::Image("what is before its pixel data cannot be read"))?;
    }
    Ok(scanner.so_far().clone())
}

/// What the attributes say of each frame (PS3.3 §C.7.6.3).
pub(crate) fn image(header: &DataSet) -> Result<Image, ConvertError> {
    let number = |tag| header.integer(tag);
    let or = |value: Option<i128>, default: i128| value.unwrap_or(default);
    let nonsense =
        ConvertError::Image("rows, columns, samples, bits or colours of the image are missing or impossible");
    let samples = or(number(tags::SAMPLES_PER_PIXEL), 1);
    let allocated = or(number(tags::BITS_ALLOCATED), 0);
    let stored = or(number(tags::BITS_STORED), allocated);
    let term = header.text(tags::PHOTOMETRIC_INTERPRETATION).unwrap_or(if samples == 1 { "MONOCHROME2" } else { "" });
    let parts = || {
        Some(Image {
            rows: u32::try_from(number(tags::ROWS)?).ok()?,
            columns: u32::try_from(number(tags::COLUMNS)?).ok()?,
            samples: u16::try_from(samples).ok()?,
            allocated: u8::try_from(allocated).ok()?,
            stored: u8::try_from(stored).ok()?,
            high: u8::try_from(or(number(tags::HIGH_BIT), stored - 1)).ok()?,
            signed: or(number(tags::PIXEL_REPRESENTATION), 0) == 1,
            photometric: Photometric::of_term(term)?,
            planar: or(number(tags::PLANAR_CONFIGURATION), 0) == 1,
        })
    };
    parts().filter(|image| image.nonsense().is_none()).ok_or(nonsense)
}

/// A frame with its permit.
pub(crate) struct Held {
    pub(crate) bytes: Vec<u8>,
    pub(crate) _permit: Arc<BytePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests;
