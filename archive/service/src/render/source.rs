//! What of an instance a picture is made from: its header, the tables and overlays in it, and the stored bytes of one frame.
//!
//! ```text
//!   plain      header 0 … first frame, scanned as it comes ─ tables: ranges of it ─ frame: its ranges
//!   deflated   inflated from the beginning, twice: up to the first frame, kept, and up to the end of the frame
//! ```

use super::{CODED_BYTES_MAX, RenderError, Shown, Viewing};
use crate::{Archive, InstanceRow, ReadError, convert::lenient, decode};
use archive_codec_wire::{Image, recipe::Samples};
use archive_model::{
    DataSet, EXPLICIT_LE, Element, Encoding, FrameMap, PixelCoding, Scanner, Tag, TransferSyntax, VR, Value,
    pixel_word_bytes, tags, transfer_syntax,
};
use flate2::{Decompress, FlushDecompress, Status};
use std::{collections::BTreeMap, ops::Range};

/// Bytes of a piece of a header that is scanned where it comes; a larger one is scanned on a thread for such work.
const SCANNED_AT_ONCE_BYTES: usize = 64 << 10;
/// Bytes before the first frame of a deflated instance, which are held.
const INFLATED_HEADER_BYTES_MAX: u64 = 32 << 20;
/// Bytes of all tables, overlays and the profile of a picture.
const TABLE_BYTES_MAX: u64 = 32 << 20;
const INFLATE_BYTES: usize = 64 << 10;
/// The header of the element that frames are the value of, at most.
const ELEMENT_HEADER_BYTES: u64 = 12;

const DAMAGED: RenderError = RenderError::None("what is before its pixel data cannot be read");
const SHORT: RenderError = RenderError::None("its pixel data is shorter than its frames");

/// An instance that is being read.
pub(super) struct Source {
    archive: Archive,
    row: InstanceRow,
    map: FrameMap,
    syntax: TransferSyntax,
    /// All before the first frame, of a deflated instance.
    inflated: Vec<u8>,
    /// The elements before the frames.
    pub(super) header: DataSet,
    /// Values that were left in the body, by where they begin.
    pub(super) bodies: BTreeMap<u64, Vec<u8>>,
    /// Tag and VR of the element that the frames are the value of, where they are native.
    pixels: Option<(Tag, [u8; 2])>,
}

impl Source {
    pub(super) async fn open(archive: &Archive, row: &InstanceRow, map: FrameMap) -> Result<Self, RenderError> {
        let native = map.bits(1).map(|(range, ..)| range.start);
        let first = match native {
            Some(first) => first,
            None => map.ranges(1).and_then(|ranges| ranges.first().map(|range| range.start)).ok_or(SHORT)?,
        };
        let syntax = transfer_syntax(&row.transfer_syntax);
        let mut source = Self {
            archive: archive.clone(),
            row: row.clone(),
            map,
            syntax,
            inflated: Vec::new(),
            header: DataSet::new(),
            bodies: BTreeMap::new(),
            pixels: None,
        };
        let (header, end) = source.scanned(first).await?;
        source.header = header;
        if native.is_some() {
            source.pixels = Some(element(&syntax, &end).ok_or(DAMAGED)?);
        } else {
            let frames = source.header.integer(tags::NUMBER_OF_FRAMES).filter(|frames| *frames > 0).unwrap_or(1);
            if frames != i128::from(source.map.frames()) {
                return Err(RenderError::None("its fragments are not as many frames as Number of Frames says"));
            }
        }
        Ok(source)
    }

    /// The elements before `first`, and the last bytes before it.
    async fn scanned(&mut self, first: u64) -> Result<(DataSet, Vec<u8>), RenderError> {
        let tail = first.saturating_sub(ELEMENT_HEADER_BYTES);
        if self.syntax.deflated {
            if first > INFLATED_HEADER_BYTES_MAX {
                return Err(RenderError::None("more than 32 MiB are before its pixel data, deflated"));
            }
            let inflated = self.inflate(0..first).await?;
            let (header, inflated) = off_the_async_threads(move || {
                let mut scanner = Scanner::new(&transfer_syntax(EXPLICIT_LE), &lenient());
                scanner.push(&inflated).map_err(|_| DAMAGED)?;
                Ok((scanner.so_far().clone(), inflated))
            })
            .await?;
            self.inflated = inflated;
            return Ok((header, self.inflated.get(tail as usize..).unwrap_or_default().to_vec()));
        }
        let mut scanner = Scanner::new(&self.syntax, &lenient());
        let (mut reading, mut at, mut end) = (self.archive.read(&self.row, 0..first), 0, Vec::new());
        while let Some(piece) = reading.next().await {
            let piece = piece?;
            let before_tail = usize::try_from(tail.saturating_sub(at)).unwrap_or(usize::MAX);
            end.extend_from_slice(piece.get(before_tail..).unwrap_or_default());
            at += piece.len() as u64;
            if piece.len() <= SCANNED_AT_ONCE_BYTES {
                scanner.push(&piece).map_err(|_| DAMAGED)?;
            } else {
                scanner = off_the_async_threads(move || {
                    scanner.push(&piece).map_err(|_| DAMAGED)?;
                    Ok(scanner)
                })
                .await?;
            }
        }
        Ok((scanner.so_far().clone(), end))
    }

    /// Bytes `range` of a deflated instance.
    async fn inflate(&self, range: Range<u64>) -> Result<Vec<u8>, RenderError> {
        let mut reading = self.archive.read(&self.row, 0..self.row.length_bytes);
        let (mut stream, mut found) = (Decompress::new(false), Vec::new());
        while let Some(piece) = reading.next().await {
            let mut rest = piece?;
            loop {
                let step = off_the_async_threads(move || {
                    let mut window = vec![0; INFLATE_BYTES];
                    let (taken, given) = (stream.total_in(), stream.total_out());
                    let status = stream.decompress(&rest, &mut window, FlushDecompress::None).map_err(|_| DAMAGED)?;
                    window.truncate((stream.total_out() - given) as usize);
                    let rest = rest.slice((stream.total_in() - taken) as usize..);
                    Ok((stream, rest, given, window, status == Status::StreamEnd))
                });
                let (given, window, ended);
                (stream, rest, given, window, ended) = step.await?;
                let cut = |at: u64| (at.saturating_sub(given) as usize).min(window.len());
                found.extend_from_slice(&window[cut(range.start)..cut(range.end)]);
                if found.len() as u64 == range.end - range.start {
                    return Ok(found);
                }
                if ended {
                    return Err(SHORT);
                }
                // A full window may not have been all.
                if rest.is_empty() && window.len() < INFLATE_BYTES {
                    break;
                }
            }
        }
        Err(SHORT)
    }

    async fn body(&self, range: Range<u64>) -> Result<Vec<u8>, RenderError> {
        if !self.syntax.deflated {
            return self.read(range).await;
        }
        let held = self.inflated.get(range.start as usize..range.end as usize);
        match held {
            Some(held) => Ok(held.to_vec()),
            None => self.inflate(range).await,
        }
    }

    /// Copied piece by piece: no piece is held while the next one waits for the budget of all readers.
    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, RenderError> {
        let (mut reading, mut bytes) = (self.archive.read(&self.row, range), Vec::new());
        while let Some(piece) = reading.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok(bytes)
    }

    /// The number of a frame that is there.
    pub(super) fn frame(&self, shown: Shown) -> Result<u32, RenderError> {
        let frames = self.map.frames();
        let named = self.header.integer(Tag(0x0028, 0x6010)).and_then(|number| u32::try_from(number).ok());
        match shown {
            Shown::Frame(number) if (1..=frames).contains(&number) => Ok(number),
            Shown::Frame(_) => Err(RenderError::NoFrame { frames }),
            Shown::Representative => {
                Ok(named.filter(|number| (1..=frames).contains(number)).unwrap_or(frames.div_ceil(2)))
            }
        }
    }

    /// What its attributes say of a frame.
    pub(super) fn image(&self) -> Result<Image, RenderError> {
        let impossible = "rows, columns, samples, bits or colours of the image are missing or impossible";
        decode::image(&self.header).map_err(|_| RenderError::None(impossible))
    }

    /// What the samples are, the bytes of their words where the worker is to turn those, and the bit that a frame begins with.
    pub(super) fn form(&self, image: &Image, frame: u32) -> (Samples, u8, u8) {
        let floats =
            self.pixels.is_some_and(|(tag, _)| [tags::FLOAT_PIXEL_DATA, tags::DOUBLE_FLOAT_PIXEL_DATA].contains(&tag));
        let word_bytes = self.word_bytes(image);
        let whole = self.ranges(frame).iter().all(|range| *range == self.in_words(range, word_bytes));
        let first_bit = self.map.bits(frame).map_or(0, |(_, first_bit, _)| first_bit);
        let samples = if floats { Samples::Floats } else { Samples::Integers };
        (samples, if whole { word_bytes as u8 } else { 1 }, first_bit)
    }

    /// Bytes of the words of native frames where those are in big endian, else 1.
    fn word_bytes(&self, image: &Image) -> usize {
        let Some((_, vr)) = self.pixels else { return 1 };
        let turned = self.syntax.encoding == Encoding::ExplicitBe && vr != *b"OB"
            || self.syntax.pixel == PixelCoding::NativeSwapped;
        if turned && image.allocated > 1 { pixel_word_bytes(image.allocated) } else { 1 }
    }

    /// `range` of the frames, with all of the words at its ends.
    fn in_words(&self, range: &Range<u64>, word_bytes: usize) -> Range<u64> {
        let (begin, word) = (self.map.bits(1).map_or(0, |(range, ..)| range.start), word_bytes as u64);
        let (from, to) = (range.start - begin, range.end - begin);
        begin + from / word * word..begin + to.next_multiple_of(word)
    }

    /// Reads the values that were left in the body and that the picture needs.
    pub(super) async fn fetch_tables(&mut self, frame: u32, viewing: &Viewing) -> Result<(), RenderError> {
        let mut places: Vec<(u64, u64)> = Vec::new();
        super::recipe::each_table(&self.header, frame, viewing, &mut |element: &Element| {
            if let Value::Bulk { offset, length } = element.value {
                places.push((offset, length));
            }
        });
        if places.iter().fold(0_u64, |sum, (_, length)| sum.saturating_add(*length)) > TABLE_BYTES_MAX {
            return Err(RenderError::None("its tables and overlays are larger than 32 MiB"));
        }
        for (offset, length) in places {
            let body = self.body(offset..offset.saturating_add(length)).await?;
            self.bodies.insert(offset, body);
        }
        Ok(())
    }

    fn ranges(&self, frame: u32) -> Vec<Range<u64>> {
        match self.map.bits(frame) {
            Some((range, ..)) => vec![range],
            None => self.map.ranges(frame).unwrap_or_default(),
        }
    }

    /// Stored bytes of a frame.
    pub(super) fn frame_bytes(&self, frame: u32) -> u64 {
        self.ranges(frame).iter().map(|range| range.end - range.start).sum()
    }

    /// The frame as it is stored. Whoever calls has a permit for it.
    pub(super) async fn read_frame(&self, image: &Image, frame: u32) -> Result<Vec<u8>, RenderError> {
        let word_bytes = self.word_bytes(image);
        let mut stream = Vec::with_capacity(self.frame_bytes(frame).min(CODED_BYTES_MAX) as usize);
        for range in self.ranges(frame) {
            let words = self.in_words(&range, word_bytes);
            let mut bytes = self.body(words.clone()).await?;
            if words != range {
                // A frame of an odd number of bytes ends, or begins, within a word: the worker could not tell.
                bytes.chunks_mut(word_bytes).for_each(<[u8]>::reverse);
                let (from, to) = ((range.start - words.start) as usize, (range.end - words.start) as usize);
                bytes = bytes.get(from..to).ok_or(SHORT)?.to_vec();
            }
            stream.append(&mut bytes);
        }
        Ok(stream)
    }
}

/// Tag and VR of the element whose value begins behind `header`, as far as it has one.
fn element(syntax: &TransferSyntax, header: &[u8]) -> Option<(Tag, [u8; 2])> {
    let number = |at: usize| {
        let pair = [*header.get(at)?, *header.get(at + 1)?];
        let big = syntax.encoding == Encoding::ExplicitBe;
        Some(if big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) })
    };
    match syntax.encoding {
        Encoding::ImplicitLe => {
            let at = header.len().checked_sub(8)?;
            Some((Tag(number(at)?, number(at + 2)?), *b"OW"))
        }
        // Those that frames are the value of have a length of 4 bytes.
        Encoding::ExplicitLe | Encoding::ExplicitBe => {
            Some((Tag(number(0)?, number(2)?), [*header.get(4)?, *header.get(5)?]))
        }
    }
}

async fn off_the_async_threads<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RenderError> + Send + 'static,
) -> Result<T, RenderError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| RenderError::Read(ReadError::Stopped))?
}

/// Bytes of a value of bytes or words, as they are in little endian.
pub(super) fn octets(source: &Source, element: &Element) -> Vec<u8> {
    match &element.value {
        Value::Bytes(bytes) => bytes.to_vec(),
        // As it is stored, where the scanner has turned the other values.
        Value::Bulk { offset, .. } => match source.bodies.get(offset) {
            Some(body) if source.syntax.encoding == Encoding::ExplicitBe && element.vr != VR::OB => {
                body.chunks_exact(2).flat_map(|pair| [pair[1], pair[0]]).collect()
            }
            Some(body) => body.clone(),
            None => Vec::new(),
        },
        Value::Integers(values) => values.iter().flat_map(|value| (*value as u16).to_le_bytes()).collect(),
        Value::Empty | Value::Text(_) | Value::Floats(_) | Value::Tags(_) | Value::Items(_) => Vec::new(),
    }
}
