//! A study, a series or an instance as one ZIP file with a DICOMDIR, written while it is read (PS3.18 §10.4, PS3.10 §8).
//!
//! ```text
//!   DICOM/S0000001/I0000001 … one entry an instance │ DICOMDIR │ central directory (zip64 when needed)
//!
//!   entry       local header · data as stored blocks of deflate · descriptor with CRC and sizes
//!   stored      00 │ length 2 │ ~length 2 │ up to 65,535 bytes      … 01 │ 00 00 │ FF FF
//! ```
//!
//! - Z-1 Nothing is compressed: images are, or do not shrink much; but the method is deflate, so that a reader that has not seen
//!   the end yet (a browser's, Java's) knows where an entry ends, which it cannot know of method 0.
//! - Z-2 Names are made here, from numbers: no text of a sender is a path.
//! - Z-3 In memory are one block of an image, 24 bytes an entry, and the records of the DICOMDIR, at most [`RECORDS_MAX`].
//! - Z-4 What is cut off has no central directory, and opens nowhere as complete.
//! - Z-5 An entry that could exceed 4 GiB is written in zip64, and only that: old readers open the rest.

use crate::{
    dicomdir::{Dicomdir, RECORDS_MAX},
    query::Target,
    retrieve::{Piece, Source, next, on_the_web},
    router::Shared,
    status::Problem,
};
use archive_model::json::from_json;
use archive_service::{Archive, Freshness, Headers, InstanceRow};
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use flate2::Crc;
use futures::stream;
use std::collections::{BTreeMap, VecDeque};

/// The media type.
pub(crate) const ZIP: &str = "application/zip";

/// What a stored block of deflate can hold.
const BLOCK_BYTES: usize = 65_535;
/// From this size on an entry is written in zip64: below 4 GiB, with room for the heads of its blocks.
const ZIP64_BYTES_MIN: u64 = 0xFFF0_0000 - 0x10_0000;

/// The instances of `rows` in these transfer syntaxes.
pub(crate) async fn answer(
    shared: &Shared,
    target: &Target,
    syntaxes: BTreeMap<String, String>,
    etag: &str,
) -> Result<Response, Problem> {
    let selection = target.selection()?;
    let name = [&selection.instances, &selection.series, &selection.studies].into_iter().find_map(|uids| uids.first());
    let name = name.map_or_else(String::new, ToString::to_string);
    // The rows were just read under a read index.
    let headers = shared.archive.headers(selection, Freshness::Local).await?;
    let mut writing = Writing {
        archive: shared.archive.clone(),
        headers,
        syntaxes,
        file: ZipFile::default(),
        dicomdir: Some(Dicomdir::new()),
        places: Places::default(),
        state: State::Between,
    };
    // The head of an entry and its first bytes, so that what cannot be read is an error with a status.
    let mut ahead = Vec::new();
    for _ in 0..3 {
        ahead.extend(writing.next().await?.map(Ok::<Bytes, Problem>));
    }
    let rest =
        stream::try_unfold(
            writing,
            |mut writing| async move { Ok(writing.next().await?.map(|bytes| (bytes, writing))) },
        );
    let body = futures::StreamExt::chain(stream::iter(ahead), rest);
    let mut response = Response::new(Body::from_stream(futures::TryStreamExt::map_err(body, |problem: Problem| {
        tracing::warn!(why = %problem.what, "an answer was cut off");
        problem.what
    })));
    let out = response.headers_mut();
    // A UID has digits and dots only.
    let disposition = format!("attachment; filename=\"{name}.zip\"");
    for (name, value) in
        [(header::CONTENT_TYPE, ZIP), (header::ETAG, etag), (header::CONTENT_DISPOSITION, disposition.as_str())]
    {
        if let Ok(value) = HeaderValue::from_str(value) {
            out.insert(name, value);
        }
    }
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    out.insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// The file on its way out.
struct Writing {
    archive: Archive,
    headers: Headers,
    /// By SOP Instance UID, the transfer syntax that was negotiated.
    syntaxes: BTreeMap<String, String>,
    file: ZipFile,
    /// `None` once there are too many instances for one.
    dicomdir: Option<Dicomdir>,
    places: Places,
    state: State,
}

enum State {
    Between,
    Within(Box<Source>),
    Ended,
}

impl Writing {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if let State::Within(source) = &mut self.state {
            let piece = next(source).await?;
            return Ok(Some(match piece {
                Some((bytes, _)) => self.file.data(&bytes),
                None => {
                    self.state = State::Between;
                    self.file.end_entry()
                }
            }));
        }
        if let State::Ended = self.state {
            return Ok(None);
        }
        let Some((row, header)) = self.headers.next().await.transpose()? else {
            self.state = State::Ended;
            let mut end = Vec::new();
            if let Some(dicomdir) = self.dicomdir.take() {
                let bytes = dicomdir.finish(self.archive.ae_title());
                end.extend(self.file.begin_entry(Name::Dicomdir, bytes.len() as u64));
                end.extend(self.file.data(&bytes));
                end.extend(self.file.end_entry());
            }
            end.extend(self.file.finish());
            return Ok(Some(end.into()));
        };
        let own = || on_the_web(&row).to_owned();
        let syntax = self.syntaxes.get(row.instance.as_str()).cloned().unwrap_or_else(own);
        let name = self.places.of(&row);
        self.record(&row, &header, &syntax, name);
        let (body, length) = if syntax == row.transfer_syntax {
            (Piece::Part(row.clone(), 0..row.length_bytes), row.length_bytes)
        } else {
            let converting = self.archive.convert(&row, &syntax).await?;
            let length = converting.length_bytes();
            (Piece::Converting(Box::new(converting)), length)
        };
        let pieces = VecDeque::from([Piece::Meta(row, syntax), body]);
        self.state = State::Within(Box::new(Source::new(self.archive.clone(), pieces)));
        // A meta group has less than 64 KiB.
        Ok(Some(self.file.begin_entry(name, length.saturating_add(1 << 16))))
    }

    fn record(&mut self, row: &InstanceRow, header: &[u8], syntax: &str, name: Name) {
        let Some(dicomdir) = &mut self.dicomdir else { return };
        if dicomdir.len() >= RECORDS_MAX {
            self.dicomdir = None;
        } else if let (Ok(header), Name::Instance { series, instance }) =
            (from_json(header, self.archive.limits()), name)
        {
            dicomdir.add(row, &header, syntax, [format!("S{series:07}"), format!("I{instance:07}")]);
        }
    }
}

/// Numbers of series, and of instances within them: in order of retrieval each series is in one piece.
#[derive(Default)]
struct Places {
    series: Option<String>,
    series_number: u32,
    instance_number: u32,
}

impl Places {
    fn of(&mut self, row: &InstanceRow) -> Name {
        if self.series.as_deref() != Some(row.series.as_str()) {
            self.series = Some(row.series.to_string());
            (self.series_number, self.instance_number) = (self.series_number + 1, 0);
        }
        self.instance_number += 1;
        Name::Instance { series: self.series_number, instance: self.instance_number }
    }
}

/// The name of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Instance { series: u32, instance: u32 },
    Dicomdir,
}

impl Name {
    fn text(self) -> String {
        match self {
            Self::Instance { series, instance } => format!("DICOM/S{series:07}/I{instance:07}"),
            Self::Dicomdir => "DICOMDIR".into(),
        }
    }
}

/// The bytes of a ZIP file, entry by entry (APPNOTE 6.3.9). No socket, no clock.
#[derive(Default)]
struct ZipFile {
    /// Bytes that were given so far.
    offset: u64,
    entries: Vec<Entry>,
    open: Option<Open>,
}

/// What the central directory says of an entry.
struct Entry {
    name: Name,
    crc: u32,
    packed: u64,
    plain: u64,
    offset: u64,
}

struct Open {
    name: Name,
    offset: u64,
    zip64: bool,
    crc: Crc,
    packed: u64,
    plain: u64,
}

/// The CRC and sizes follow the data; the name is UTF-8.
const FLAGS: u16 = 1 << 3 | 1 << 11;
const DEFLATE: u16 = 8;
/// 1 January 1980: when an instance was made its header says.
const DATE: u16 = 1 << 5 | 1;
const VERSION: u16 = 20;
const VERSION_ZIP64: u16 = 45;

impl ZipFile {
    fn begin_entry(&mut self, name: Name, length_max: u64) -> Bytes {
        let zip64 = length_max >= ZIP64_BYTES_MIN;
        let text = name.text();
        let mut out = Vec::new();
        out.extend(0x0403_4B50_u32.to_le_bytes());
        let version = if zip64 { VERSION_ZIP64 } else { VERSION };
        put16(&mut out, &[version, FLAGS, DEFLATE, 0, DATE]);
        let size = if zip64 { u32::MAX } else { 0 };
        put32(&mut out, &[0, size, size]);
        put16(&mut out, &[length16(&text), if zip64 { 20 } else { 0 }]);
        out.extend(text.as_bytes());
        if zip64 {
            put16(&mut out, &[1, 16]);
            put64(&mut out, &[0, 0]);
        }
        self.open = Some(Open { name, offset: self.offset, zip64, crc: Crc::new(), packed: 0, plain: 0 });
        self.given(out)
    }

    fn data(&mut self, bytes: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(bytes.len() + bytes.len() / BLOCK_BYTES * 5 + 5);
        if let Some(open) = &mut self.open {
            for block in bytes.chunks(BLOCK_BYTES) {
                let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
                out.push(0);
                put16(&mut out, &[length, !length]);
                out.extend(block);
            }
            open.crc.update(bytes);
            open.plain += bytes.len() as u64;
            open.packed += out.len() as u64;
        }
        self.given(out)
    }

    fn end_entry(&mut self) -> Bytes {
        let Some(mut open) = self.open.take() else { return Bytes::new() };
        let mut out = vec![1, 0, 0, 0xFF, 0xFF];
        open.packed += out.len() as u64;
        let crc = open.crc.sum();
        put32(&mut out, &[0x0807_4B50, crc]);
        if open.zip64 {
            put64(&mut out, &[open.packed, open.plain]);
        } else {
            put32(&mut out, &[low(open.packed), low(open.plain)]);
        }
        let Open { name, offset, packed, plain, .. } = open;
        self.entries.push(Entry { name, crc, packed, plain, offset });
        self.given(out)
    }

    /// The central directory.
    fn finish(&mut self) -> Bytes {
        let start = self.offset;
        let mut out = Vec::new();
        for Entry { name, crc, packed, plain, offset } in &self.entries {
            let text = name.text();
            let zip64 = [packed, plain, offset].into_iter().any(|number| *number >= u64::from(u32::MAX));
            let version = if zip64 { VERSION_ZIP64 } else { VERSION };
            put32(&mut out, &[0x0201_4B50]);
            // Made on UNIX: the upper byte of the version.
            put16(&mut out, &[3 << 8 | version, version, FLAGS, DEFLATE, 0, DATE]);
            let shown = |number: u64| if zip64 { u32::MAX } else { low(number) };
            put32(&mut out, &[*crc, shown(*packed), shown(*plain)]);
            put16(&mut out, &[length16(&text), if zip64 { 28 } else { 0 }, 0, 0, 0]);
            // A plain file that all may read.
            put32(&mut out, &[0o100_644 << 16, shown(*offset)]);
            out.extend(text.as_bytes());
            if zip64 {
                put16(&mut out, &[1, 24]);
                put64(&mut out, &[*plain, *packed, *offset]);
            }
        }
        let (size, count) = (out.len() as u64, self.entries.len() as u64);
        let zip64 = count >= 0xFFFF || start >= u64::from(u32::MAX) || size >= u64::from(u32::MAX);
        if zip64 {
            put32(&mut out, &[0x0606_4B50]);
            put64(&mut out, &[44]);
            put16(&mut out, &[3 << 8 | VERSION_ZIP64, VERSION_ZIP64]);
            put32(&mut out, &[0, 0]);
            put64(&mut out, &[count, count, size, start]);
            put32(&mut out, &[0x0706_4B50, 0]);
            put64(&mut out, &[start + size]);
            put32(&mut out, &[1]);
        }
        let count = if zip64 { u16::MAX } else { u16::try_from(count).unwrap_or(u16::MAX) };
        let shown = |number: u64| if zip64 { u32::MAX } else { low(number) };
        put32(&mut out, &[0x0605_4B50]);
        put16(&mut out, &[0, 0, count, count]);
        put32(&mut out, &[shown(size), shown(start)]);
        put16(&mut out, &[0]);
        self.given(out)
    }

    fn given(&mut self, out: Vec<u8>) -> Bytes {
        self.offset += out.len() as u64;
        out.into()
    }
}

fn low(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn length16(text: &str) -> u16 {
    u16::try_from(text.len()).unwrap_or(u16::MAX)
}

fn put16(out: &mut Vec<u8>, numbers: &[u16]) {
    numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
}

fn put32(out: &mut Vec<u8>, numbers: &[u32]) {
    numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
}

fn put64(out: &mut Vec<u8>, numbers: &[u64]) {
    numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn name(instance: u32) -> Name {
        Name::Instance { series: 1, instance }
    }

    /// The first entry as a reader sees it that reads from the front.
    #[test]
    fn an_entry_says_where_it_ends_to_who_has_not_seen_the_end() {
        let data: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
        let mut file = ZipFile::default();
        let mut bytes = file.begin_entry(name(1), data.len() as u64).to_vec();
        let head = bytes.len();
        for piece in data.chunks(70_001) {
            bytes.extend(file.data(piece));
        }
        bytes.extend(file.end_entry());
        assert_eq!(&bytes[30..head], b"DICOM/S0000001/I0000001");
        let mut decoder = flate2::bufread::DeflateDecoder::new(&bytes[head..]);
        let mut plain = Vec::new();
        decoder.read_to_end(&mut plain).expect("deflate");
        assert!(plain == data);
        let packed = usize::try_from(decoder.total_in()).expect("small");
        let descriptor = &bytes[head + packed..];
        assert_eq!(descriptor.len(), 16);
        assert_eq!(descriptor[8..12], u32::try_from(packed).expect("small").to_le_bytes());
        assert_eq!(descriptor[12..16], 200_000_u32.to_le_bytes());
    }

    /// Sizes and places beyond 4 GiB, without writing them.
    #[test]
    fn what_is_large_is_written_in_zip64_and_what_is_not_is_not() {
        let mut file = ZipFile::default();
        let small = file.begin_entry(name(1), 1000);
        assert_eq!((small[4], small.len()), (20, 53));
        file.end_entry();
        file.offset = 5 << 30;
        let large = file.begin_entry(name(2), 5 << 30);
        assert_eq!((large[4], large.len()), (45, 73));
        file.open.as_mut().expect("open").plain = 6 << 30;
        file.open.as_mut().expect("open").packed = 7 << 30;
        let end = file.end_entry();
        assert_eq!(end.len(), 5 + 24, "a descriptor of eight-byte sizes");
        let directory = file.finish();
        assert_eq!(directory[6], 20, "the first entry is read by anybody");
        let second = &directory[46 + 23..];
        assert_eq!((second[6], &second[20..28], &second[42..46]), (45, &[0xFF; 8][..], &[0xFF; 4][..]));
        let extra = &second[46 + 23..];
        assert_eq!(extra[4..12], (6_u64 << 30).to_le_bytes());
        assert_eq!(extra[12..20], ((7_u64 << 30) + 5).to_le_bytes());
        assert_eq!(extra[20..28], (5_u64 << 30).to_le_bytes());
        let locator = &directory[directory.len() - 22 - 20..];
        assert_eq!(locator[..4], 0x0706_4B50_u32.to_le_bytes());
    }
}
