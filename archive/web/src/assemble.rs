//! Instances that come as metadata with their bulk values beside (PS3.18 §10.5.1.2): JSON or XML first, then parts that the
//! metadata names by their Content-Location.
//!
//! ```text
//!   metadata ─► Pending { set, values it waits for } … bulk part ─► held … end of the body ─► data sets ─► Intake
//! ```
//!
//! - A-0 Nothing goes in before the body has ended, and nothing that came is left out in silence: a part that nobody named
//!   refuses the request, one too many for a value, or in a form that is not its, the instance.
//! - A-1 What is named and does not come is not fetched from elsewhere: the instance is refused.
//! - A-2 Values are held until then, for their elements begin with their lengths. All requests together hold at most
//!   `bulk_held_bytes_max`; who comes too late is told to try again, and who sends more than half of that in one request to
//!   send files, which are streamed. A value that several name is made for each: `MADE_BYTES_MAX` for all of a request.
//! - A-3 Compressed pixel data is made of one part a frame, in their order, and becomes one fragment a frame. A video is one.
//! - A-4 Text is written in UTF-8, and says so, unless it is ASCII.

use crate::{accept::content_type, multipart::PartHead};
use archive_model::{
    DataSet, EXPLICIT_LE, Element, Encoding, IMPLICIT_LE, Limits, Tag, VR, Value, json::sent_data_sets_from_json, tags,
    transfer_syntax, write_data_set, xml::data_set_from_xml,
};
use bytes::{BufMut, Bytes, BytesMut};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A permit is for so many bytes.
pub(crate) const PERMIT_BYTES: u64 = 64 << 10;
/// What values make that were named more than once, in all instances of a request.
const MADE_BYTES_MAX: u64 = 1 << 30;
/// Frames of one instance that come as parts.
const FRAMES_MAX: i128 = 100_000;
/// What compressed pixel data is when its part names no transfer syntax (PS3.18 table 8.7.3-5).
const OF_MEDIA_TYPE: [(&str, &str); 9] = [
    ("image/jpeg", "1.2.840.10008.1.2.4.70"),
    ("image/dicom-rle", "1.2.840.10008.1.2.5"),
    ("image/x-dicom-rle", "1.2.840.10008.1.2.5"),
    ("image/jls", "1.2.840.10008.1.2.4.80"),
    ("image/jp2", "1.2.840.10008.1.2.4.90"),
    ("image/jpx", "1.2.840.10008.1.2.4.92"),
    ("image/jphc", "1.2.840.10008.1.2.4.201"),
    ("video/mpeg", "1.2.840.10008.1.2.4.100"),
    ("video/mp4", "1.2.840.10008.1.2.4.102"),
];

/// Why a body cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CannotHold {
    /// Others hold too much.
    #[error("too many bulk values are being received: try again in some seconds, or send files (application/dicom)")]
    Busy,
    /// It is too large by itself.
    #[error(
        "metadata and bulk values are too large to come beside: send files (application/dicom), which are streamed"
    )]
    TooLarge,
}

/// Bytes that are received, under permits.
pub(crate) struct Held {
    budget: Arc<Semaphore>,
    most: u64,
    permits: Option<OwnedSemaphorePermit>,
    permitted: u64,
    bytes: BytesMut,
}

impl Held {
    pub(crate) fn new(budget: &Arc<Semaphore>, most: u64) -> Self {
        Self { budget: Arc::clone(budget), most, permits: None, permitted: 0, bytes: BytesMut::new() }
    }

    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), CannotHold> {
        let wanted = self.bytes.len() as u64 + piece.len() as u64;
        if wanted > self.most {
            return Err(CannotHold::TooLarge);
        }
        if wanted > self.permitted {
            // The buffer grows to twice its size, and so does what it may.
            let capacity = wanted.max(2 * self.permitted).min(self.most).next_multiple_of(PERMIT_BYTES);
            let more = u32::try_from((capacity - self.permitted) / PERMIT_BYTES).map_err(|_| CannotHold::TooLarge)?;
            let more = Arc::clone(&self.budget).try_acquire_many_owned(more).map_err(|_| CannotHold::Busy)?;
            match &mut self.permits {
                Some(permits) => permits.merge(more),
                None => self.permits = Some(more),
            }
            self.permitted = capacity;
            self.bytes.reserve(usize::try_from(capacity).unwrap_or(usize::MAX) - self.bytes.len());
        }
        self.bytes.put_slice(piece);
        Ok(())
    }

    fn finish(self) -> Bytes {
        Bytes::from_owner(Kept { bytes: self.bytes, _permits: self.permits })
    }
}

/// Bytes with the permits under which they are held.
struct Kept {
    bytes: BytesMut,
    _permits: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PartKind {
    Json,
    Xml,
    /// A bulk value: how it is named, its media type, its transfer syntax.
    Bulk {
        names: Vec<String>,
        media_type: String,
        syntax: Option<String>,
    },
}

impl PartKind {
    pub(crate) fn of(head: &PartHead) -> Self {
        let (kind, parameter) = content_type(head.get("content-type").unwrap_or(""));
        match kind.as_str() {
            "application/dicom+json" | "application/json" => Self::Json,
            "application/dicom+xml" | "application/xml" | "text/xml" => Self::Xml,
            _ => {
                let id = head.get("content-id").map(|id| format!("cid:{}", id.trim_matches(['<', '>'])));
                let names = head.get("content-location").map(str::to_owned).into_iter().chain(id).collect();
                Self::Bulk { names, media_type: kind, syntax: parameter("transfer-syntax") }
            }
        }
    }
}

/// An instance that is complete.
pub(crate) struct Made {
    /// Its place among the metadata.
    pub(crate) at: usize,
    pub(crate) class: Option<String>,
    pub(crate) instance: Option<String>,
    /// Transfer syntax and bytes; `None`: it cannot be made, which was logged.
    pub(crate) data: Option<(String, Vec<Bytes>)>,
}

/// An instance whose bulk values have not all come.
struct Pending {
    at: usize,
    set: DataSet,
    /// By their number in the set.
    values: BTreeMap<u64, Awaited>,
    /// Why it cannot be made, whatever else comes.
    refused: Option<&'static str>,
}

/// A bulk value.
struct Awaited {
    name: String,
    /// Parts of which it is made: frames.
    parts: Vec<Bytes>,
    media_type: String,
    syntax: Option<String>,
    /// It is Pixel Data of the data set itself.
    pixels: bool,
    complete: bool,
}

/// The instances of one body.
pub(crate) struct Assembly {
    limits: Limits,
    pending: Vec<Pending>,
    held_bytes: u64,
    made_bytes: u64,
}

impl Assembly {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { limits: limits.clone(), pending: Vec::new(), held_bytes: 0, made_bytes: 0 }
    }

    /// Bytes that it holds.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Whether no metadata has come.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Metadata has come. The text is what is wrong with it.
    pub(crate) fn metadata(&mut self, xml: bool, held: Held) -> Result<(), String> {
        let bytes = held.finish();
        // What is made of the text is held instead of it, and is not smaller.
        self.held_bytes += bytes.len() as u64;
        let (sets, foreign) = if xml {
            let (set, foreign) = data_set_from_xml(&bytes, &self.limits).map_err(|error| error.to_string())?;
            (vec![set], foreign)
        } else {
            sent_data_sets_from_json(&bytes, &self.limits).map_err(|error| error.to_string())?
        };
        for set in sets {
            let mut values = BTreeMap::new();
            named(&set, true, &mut |element, top| {
                if let Value::Bulk { offset, .. } = element.value {
                    let name = usize::try_from(offset).ok().and_then(|at| foreign.get(at));
                    let name = name.map_or_else(String::new, |foreign| foreign.0.clone());
                    let pixels = top && element.tag == tags::PIXEL_DATA;
                    let awaited = Awaited {
                        name,
                        parts: Vec::new(),
                        media_type: String::new(),
                        syntax: None,
                        pixels,
                        complete: false,
                    };
                    values.insert(offset, awaited);
                }
            });
            self.pending.push(Pending { at: self.pending.len() + 1, set, values, refused: None });
        }
        Ok(())
    }

    /// A bulk value has come; answers whether anybody has named it.
    pub(crate) fn bulk(&mut self, (names, media_type, syntax): (&[String], &str, Option<&str>), held: Held) -> bool {
        let bytes = held.finish();
        self.held_bytes += bytes.len() as u64;
        let mut wanted = false;
        for Pending { set, values, refused, .. } in &mut self.pending {
            for value in values.values_mut().filter(|value| names.contains(&value.name)) {
                if wanted {
                    self.made_bytes += bytes.len() as u64;
                }
                wanted = true;
                match value.take(set, media_type, syntax, &bytes) {
                    Err(why) => *refused = Some(why),
                    Ok(()) if self.made_bytes > MADE_BYTES_MAX => *refused = Some("too much is named again and again"),
                    Ok(()) => {}
                }
            }
        }
        wanted
    }

    /// The body has ended: its instances, one after the other.
    pub(crate) fn finish(self) -> impl Iterator<Item = Made> {
        self.pending.into_iter().map(|pending| {
            let missing = pending.values.values().filter(|value| !value.complete).count();
            let why = pending.refused.or((missing > 0).then_some("bulk values that the metadata names did not come"));
            match why {
                None => pending.make(),
                Some(why) => {
                    tracing::info!(instance = pending.at, missing, why, "an instance of metadata is refused");
                    pending.made()
                }
            }
        })
    }
}

impl Awaited {
    /// One more part of it, or why it is none.
    fn take(
        &mut self,
        set: &DataSet,
        media_type: &str,
        syntax: Option<&str>,
        bytes: &Bytes,
    ) -> Result<(), &'static str> {
        if self.complete {
            return Err("more parts came for a value than it has");
        }
        let first = self.parts.is_empty();
        if !first && (self.media_type.as_str(), self.syntax.as_deref()) != (media_type, syntax) {
            return Err("the parts of a value differ in media type or transfer syntax");
        }
        (self.media_type, self.syntax) = (media_type.to_owned(), syntax.map(str::to_owned));
        // Values are written in little endian, as all but these two would not be.
        let plain = syntax.is_none_or(|syntax| [EXPLICIT_LE, IMPLICIT_LE].contains(&syntax));
        let fits = plain || (self.pixels && self.coding().is_some());
        if !fits {
            return Err("a value came in a transfer syntax that it cannot have beside metadata");
        }
        self.parts.push(bytes.clone());
        let frames = if self.pixels && self.is_frames() { frames(set) } else { 1 };
        self.complete = self.parts.len() as i128 >= frames;
        Ok(())
    }

    /// Each part is a frame.
    fn is_frames(&self) -> bool {
        self.coding().is_some_and(|syntax| !transfer_syntax(&syntax).pixel.is_video())
    }

    /// The same, and where nobody said which kind of JPEG it is, what the frame itself says.
    fn looked_at(&self) -> Option<String> {
        let frame = self.parts.first().filter(|_| self.media_type == "image/jpeg" && self.syntax.is_none());
        frame.and_then(|frame| jpeg_syntax(frame)).map(str::to_owned).or_else(|| self.coding())
    }

    /// The compressed transfer syntax of pixel data.
    fn coding(&self) -> Option<String> {
        let of_type = || OF_MEDIA_TYPE.iter().find(|(known, _)| *known == self.media_type).map(|(_, syntax)| *syntax);
        let syntax = self.syntax.clone().or_else(|| of_type().map(str::to_owned))?;
        transfer_syntax(&syntax).encapsulated.then_some(syntax)
    }
}

impl Pending {
    fn made(&self) -> Made {
        let text = |tag| self.set.text(tag).map(str::to_owned);
        Made { at: self.at, class: text(tags::SOP_CLASS_UID), instance: text(tags::SOP_INSTANCE_UID), data: None }
    }

    fn make(mut self) -> Made {
        let made = self.made();
        let pixels = self.values.values().find(|value| value.pixels);
        let coding = pixels.and_then(Awaited::looked_at);
        let values: BTreeMap<u64, Vec<Bytes>> =
            std::mem::take(&mut self.values).into_iter().map(|(number, value)| (number, value.parts)).collect();
        let mut set: DataSet =
            // What belongs to a file, or says how it could be had elsewhere, is no part of the data set.
            self.set.into_iter().filter(|element| element.tag.group() > 2 && element.tag != tags::AVAILABLE_TRANSFER_SYNTAX_UID).collect();
        if !is_ascii(&set) {
            set.put_text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192");
        }
        let syntax = coding.clone().unwrap_or_else(|| EXPLICIT_LE.to_owned());
        let mut pieces = Vec::new();
        let (mut head, mut tail) = (DataSet::new(), DataSet::new());
        let mut body = Vec::new();
        for element in set {
            match element.tag.group() {
                ..0x7FE0 => head.put(filled(element, &values)),
                0x7FE0 => body.push(element),
                _ => tail.put(without_charset(filled(element, &values))),
            }
        }
        pieces.push(write_data_set(&head, Encoding::ExplicitLe).into());
        for element in body {
            let parts = match element.value {
                Value::Bulk { offset, .. } => values.get(&offset).cloned().unwrap_or_default(),
                _ => {
                    pieces.push(write_data_set(&[element].into_iter().collect(), Encoding::ExplicitLe).into());
                    continue;
                }
            };
            if coding.is_some() && element.tag == tags::PIXEL_DATA {
                encapsulate(parts, &mut pieces);
            } else {
                let bytes = joined(parts);
                let Ok(length) = u32::try_from(bytes.len().next_multiple_of(2)) else { return made };
                let mut start = BytesMut::new();
                put_tag(&mut start, element.tag);
                // Whatever the sender says: no other VR has a long length (PS3.5 §7.1.2).
                let vr =
                    if [VR::OW, VR::OF, VR::OD, VR::OL, VR::OV].contains(&element.vr) { element.vr } else { VR::OB };
                start.put_slice(&vr.to_bytes());
                start.put_u16_le(0);
                start.put_u32_le(length);
                pieces.push(start.freeze());
                let odd = bytes.len() % 2 == 1;
                pieces.push(bytes);
                pieces.extend(odd.then(|| Bytes::from_static(&[0])));
            }
        }
        pieces.push(write_data_set(&tail, Encoding::ExplicitLe).into());
        Made { data: Some((syntax, pieces)), ..made }
    }
}

/// The transfer syntax of a JPEG frame, by the marker of its frame header (ISO/IEC 10918-1 B.1.1.3).
fn jpeg_syntax(frame: &[u8]) -> Option<&'static str> {
    let mut rest = frame.strip_prefix(b"\xFF\xD8")?;
    loop {
        let &[0xFF, marker, high, low, ..] = rest else { return None };
        match marker {
            0xC0 => return Some("1.2.840.10008.1.2.4.50"),
            0xC1 => return Some("1.2.840.10008.1.2.4.51"),
            0xC3 => return Some("1.2.840.10008.1.2.4.57"),
            // Fill bytes may stand before a marker.
            0xFF => rest = &rest[1..],
            _ => rest = rest.get(2 + usize::from(u16::from_be_bytes([high, low]))..)?,
        }
    }
}

/// Calls `with` for each element, and whether it is one of the data set itself.
fn named(set: &DataSet, top: bool, with: &mut dyn FnMut(&Element, bool)) {
    for element in set {
        with(element, top);
        // Depth is limited by what has read this.
        if let Value::Items(items) = &element.value {
            items.iter().for_each(|item| named(item, false, with));
        }
    }
}

/// Puts the values in where they are named.
fn filled(element: Element, values: &BTreeMap<u64, Vec<Bytes>>) -> Element {
    let Element { tag, vr, value } = element;
    let value = match value {
        Value::Bulk { offset, .. } => Value::Bytes(joined(values.get(&offset).cloned().unwrap_or_default())),
        Value::Items(items) => {
            let fill = |item: DataSet| item.into_iter().map(|element| filled(element, values)).collect();
            Value::Items(items.into_iter().map(fill).collect())
        }
        other => other,
    };
    Element { tag, vr, value }
}

/// What stands behind the pixel data is written by itself, where nobody says in which character set.
fn without_charset(element: Element) -> Element {
    match element.value {
        Value::Text(texts) => Element { value: Value::Bytes(texts.join("\\").into_bytes().into()), ..element },
        _ => element,
    }
}

fn is_ascii(set: &DataSet) -> bool {
    set.iter().all(|element| match &element.value {
        Value::Text(texts) => texts.iter().all(|text| text.is_ascii()),
        Value::Items(items) => items.iter().all(is_ascii),
        _ => true,
    })
}

fn joined(mut parts: Vec<Bytes>) -> Bytes {
    match parts.len() {
        1 => parts.swap_remove(0),
        _ => parts.concat().into(),
    }
}

fn frames(set: &DataSet) -> i128 {
    set.integer(tags::NUMBER_OF_FRAMES).unwrap_or(1).clamp(1, FRAMES_MAX)
}

fn put_tag(out: &mut BytesMut, Tag(group, number): Tag) {
    out.put_u16_le(group);
    out.put_u16_le(number);
}

/// Pixel data in fragments: an empty offset table, then one for each part (PS3.5 §A.4).
fn encapsulate(parts: Vec<Bytes>, pieces: &mut Vec<Bytes>) {
    let mut start = BytesMut::new();
    put_tag(&mut start, tags::PIXEL_DATA);
    start.put_slice(b"OB\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\0\0\0\0");
    pieces.push(start.freeze());
    for part in parts {
        let odd = part.len() % 2 == 1;
        let mut item = BytesMut::from(&b"\xFE\xFF\0\xE0"[..]);
        item.put_u32_le(u32::try_from(part.len().next_multiple_of(2)).unwrap_or(u32::MAX));
        pieces.push(item.freeze());
        pieces.push(part);
        pieces.extend(odd.then(|| Bytes::from_static(&[0])));
    }
    pieces.push(Bytes::from_static(b"\xFE\xFF\xDD\xE0\0\0\0\0"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jpeg_says_what_it_is() {
        let with = |marker: u8| [&b"\xFF\xD8\xFF\xE0\0\x04ab\xFF\xFF"[..], &[marker], b"\0\x0B"].concat();
        assert_eq!(jpeg_syntax(&with(0xC0)), Some("1.2.840.10008.1.2.4.50"));
        assert_eq!(jpeg_syntax(&with(0xC1)), Some("1.2.840.10008.1.2.4.51"));
        assert_eq!(jpeg_syntax(&with(0xC3)), Some("1.2.840.10008.1.2.4.57"));
        for none in [&b""[..], b"\xFF\xD8", b"\xFF\xD8\xFF\xE0\xFF\xFF", b"\xFF\xD8\xFF\xFF\xFF", b"BM"] {
            assert_eq!(jpeg_syntax(none), None);
        }
    }

    #[test]
    fn what_is_held_is_permitted_and_given_back() {
        let budget = Arc::new(Semaphore::new(4));
        let mut held = Held::new(&budget, 2 * PERMIT_BYTES);
        held.push(&[1; 100]).expect("room");
        held.push(&[2; 2 * PERMIT_BYTES as usize - 100]).expect("room");
        assert_eq!(held.push(&[3]), Err(CannotHold::TooLarge));
        let mut second = Held::new(&budget, 4 * PERMIT_BYTES);
        second.push(&[1; 100]).expect("room");
        assert_eq!(second.push(&[1; 3 * PERMIT_BYTES as usize]), Err(CannotHold::Busy));
        let bytes = held.finish();
        assert_eq!((bytes.len() as u64, budget.available_permits()), (2 * PERMIT_BYTES, 1));
        drop((bytes, second));
        assert_eq!(budget.available_permits(), 4);
    }
}
