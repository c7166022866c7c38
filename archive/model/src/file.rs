//! DICOM files (PS3.10 §7.1): what stands before the data set.
//!
//! ```text
//!   preamble 128 | "DICM" | (0002,0000) UL: bytes of the rest of group 0002 | group 0002, explicit little endian | data set
//! ```
//!
//! Files without preamble, without meta group, or with a wrong group length are read too.

use crate::scanner::{Coding, Header, Parsed, is_long, parse_header};
use crate::write::with_group_length;
use crate::{
    AeTitle, DataSet, EXPLICIT_BE, EXPLICIT_LE, Element, Encoding, IMPLICIT_LE, Invalid, Limits, Place, VR, Value,
    read_data_set, tags,
};
use bytes::Bytes;

/// Ours (PS3.7 §D.3.3.2). A UUID-derived UID (PS3.5 §B.2): nobody else has it.
pub const IMPLEMENTATION_CLASS_UID: &str = "2.25.211484613879271634958216043517068213077";
/// Ours, with the version of the data format in it.
pub const IMPLEMENTATION_VERSION_NAME: &str = "TRIPTYCH_0";

const PREAMBLE_BYTES: usize = 128;
const MAGIC: &[u8; 4] = b"DICM";
const META_BYTES_MAX: usize = 64 << 10;
/// Group 0002, as bytes.
const GROUP: [u8; 2] = [2, 0];
/// Group, element and VR.
const GUESS_BYTES: usize = 6;

/// What stands before the data set of a file that we write.
///
/// `source` is the AE title of who sent the instance to us.
#[must_use]
pub fn write_file_meta(
    sop_class: &str,
    sop_instance: &str,
    transfer_syntax: &str,
    source: Option<&AeTitle>,
) -> Vec<u8> {
    let mut meta = DataSet::new();
    let version = Value::Bytes(Bytes::from_static(&[0, 1]));
    meta.put(Element { tag: tags::FILE_META_INFORMATION_VERSION, vr: VR::OB, value: version });
    meta.put_text(tags::MEDIA_STORAGE_SOP_CLASS_UID, VR::UI, sop_class);
    meta.put_text(tags::MEDIA_STORAGE_SOP_INSTANCE_UID, VR::UI, sop_instance);
    meta.put_text(tags::TRANSFER_SYNTAX_UID, VR::UI, transfer_syntax);
    meta.put_text(tags::IMPLEMENTATION_CLASS_UID, VR::UI, IMPLEMENTATION_CLASS_UID);
    meta.put_text(tags::IMPLEMENTATION_VERSION_NAME, VR::SH, IMPLEMENTATION_VERSION_NAME);
    if let Some(source) = source {
        meta.put_text(tags::SOURCE_APPLICATION_ENTITY_TITLE, VR::AE, source.as_str());
    }
    let mut bytes = vec![0; PREAMBLE_BYTES];
    bytes.extend(MAGIC);
    bytes.extend(with_group_length(&meta, tags::FILE_META_INFORMATION_GROUP_LENGTH, Encoding::ExplicitLe));
    bytes
}

/// What a file said before its data set.
#[derive(Debug, Clone, PartialEq)]
pub struct FileMeta {
    /// Transfer syntax of the data set: what (0002,0010) says, unless the first element shows that it is another
    /// uncompressed one, or the file has no meta group.
    pub transfer_syntax: String,
    /// Media Storage SOP Class UID (0002,0002).
    pub sop_class: Option<String>,
    /// Media Storage SOP Instance UID (0002,0003).
    pub sop_instance: Option<String>,
    /// Whether preamble and prefix were there.
    pub has_preamble: bool,
    /// All of group 0002.
    pub elements: DataSet,
}

/// Reads a file in pieces of any size: first its meta group, then the bytes of its data set as they come.
///
/// ```
/// use archive_model::{FileReader, Limits, write_file_meta};
/// let mut file = write_file_meta("1.2.840.10008.5.1.4.1.1.7", "1.2.3", "1.2.840.10008.1.2.1", None);
/// file.extend(b"\x08\0\x60\0CS\x02\0OT");
/// let mut reader = FileReader::new(&Limits::default());
/// let data_set = reader.push(file.into()).unwrap();
/// assert_eq!(&data_set[..], b"\x08\0\x60\0CS\x02\0OT");
/// assert_eq!(reader.meta().unwrap().sop_instance.as_deref(), Some("1.2.3"));
/// ```
#[derive(Debug)]
pub struct FileReader {
    limits: Limits,
    held: Vec<u8>,
    /// Where group 0002 begins, once that is known.
    start: Option<usize>,
    /// Where the elements of group 0002 end that were looked at.
    walked: usize,
    meta: Option<FileMeta>,
}

impl FileReader {
    /// A reader of one file.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self { limits: limits.clone(), held: Vec::new(), start: None, walked: 0, meta: None }
    }

    /// The meta group, once it is complete.
    #[must_use]
    pub fn meta(&self) -> Option<&FileMeta> {
        self.meta.as_ref()
    }

    /// Takes the next bytes and returns those of the data set among them.
    ///
    /// # Errors
    /// When the meta group is broken, or larger than 64 KiB.
    pub fn push(&mut self, piece: Bytes) -> Result<Bytes, Invalid> {
        if self.meta.is_some() {
            return Ok(piece);
        }
        self.held.extend_from_slice(&piece);
        self.look(false)
    }

    /// The file is complete. Returns bytes of the data set that were held back because it is so short.
    ///
    /// # Errors
    /// When the file ends inside its meta group.
    pub fn finish(&mut self) -> Result<Bytes, Invalid> {
        if self.meta.is_some() { Ok(Bytes::new()) } else { self.look(true) }
    }

    fn look(&mut self, complete: bool) -> Result<Bytes, Invalid> {
        let prefix = PREAMBLE_BYTES + MAGIC.len();
        if self.held.len() < prefix && !complete {
            return Ok(Bytes::new());
        }
        let has_preamble = self.held.get(PREAMBLE_BYTES..prefix) == Some(&MAGIC[..]);
        let start = *self.start.get_or_insert(if has_preamble { prefix } else { 0 });
        self.walked = self.walked.max(start);
        while let Some(end) = self.next_element(complete)? {
            self.walked = end;
            if end - start > META_BYTES_MAX {
                let place = Place { tag: Some(tags::FILE_META_INFORMATION_GROUP_LENGTH), offset: end as u64 };
                let max = META_BYTES_MAX as u64;
                return Err(Invalid::TooLarge { place, what: "the file meta group", max });
            }
        }
        let rest = self.held.get(self.walked..).unwrap_or_default();
        // The first bytes of the data set tell whether its transfer syntax is what the meta group says.
        if !complete && (rest.len() < GUESS_BYTES || rest.starts_with(&GROUP)) {
            return Ok(Bytes::new());
        }
        let explicit = crate::transfer_syntax(EXPLICIT_LE);
        let elements = read_data_set(&self.held[start..self.walked], &explicit, &self.limits)?;
        let uid = |tag| elements.text(tag).map(str::to_owned);
        self.meta = Some(FileMeta {
            transfer_syntax: actual_syntax(elements.text(tags::TRANSFER_SYNTAX_UID), rest),
            sop_class: uid(tags::MEDIA_STORAGE_SOP_CLASS_UID),
            sop_instance: uid(tags::MEDIA_STORAGE_SOP_INSTANCE_UID),
            has_preamble: start > 0,
            elements,
        });
        let rest = self.held.split_off(self.walked);
        self.held = Vec::new();
        Ok(rest.into())
    }

    /// Where the next element of group 0002 ends: `None` when there is none, or when it has not arrived yet. Elements
    /// are walked one by one, because the group length is not to be trusted.
    fn next_element(&self, complete: bool) -> Result<Option<usize>, Invalid> {
        let rest = self.held.get(self.walked..).unwrap_or_default();
        if !rest.starts_with(&GROUP) {
            return Ok(None);
        }
        let missing = |tag| {
            let place = Place { tag, offset: self.walked as u64 };
            if complete { Err(Invalid::Truncated { place }) } else { Ok(None) }
        };
        let coding = Coding::of(Encoding::ExplicitLe);
        let parsed = if rest.len() < 8 { Parsed::Longer } else { parse_header(&rest[..rest.len().min(12)], coding) };
        let Parsed::Complete(Header { tag, vr, length, .. }) = parsed else { return missing(None) };
        if length as usize > META_BYTES_MAX {
            let place = Place { tag: Some(tag), offset: self.walked as u64 };
            return Err(Invalid::TooLong { place, declared: u64::from(length), room: META_BYTES_MAX as u64 });
        }
        let header_bytes = if vr.is_some_and(is_long) { 12 } else { 8 };
        let end = self.walked + header_bytes + length as usize;
        if end > self.held.len() { missing(Some(tag)) } else { Ok(Some(end)) }
    }
}

/// The transfer syntax that the data set is in: the declared one, unless its first element shows that it has VRs
/// where that has none, or the other way round.
fn actual_syntax(declared: Option<&str>, data_set: &[u8]) -> String {
    let guessed = guess(data_set);
    match declared.filter(|declared| !declared.is_empty()) {
        Some(IMPLICIT_LE | EXPLICIT_LE) | None => guessed.unwrap_or(declared.unwrap_or(IMPLICIT_LE)).to_owned(),
        Some(declared) => declared.to_owned(),
    }
}

/// The uncompressed transfer syntax of a data set, from its first element.
fn guess(data_set: &[u8]) -> Option<&'static str> {
    let &[g0, g1, _, _, v0, v1] = data_set.first_chunk::<GUESS_BYTES>()?;
    Some(match VR::from_binary([v0, v1]) {
        // Groups are small numbers: the zero byte tells the order.
        Some(_) if g0 == 0 && g1 != 0 => EXPLICIT_BE,
        Some(_) => EXPLICIT_LE,
        // A blank VR. As a length it would say 8 KiB and more: no data set begins so.
        None if v0 >= b' ' && v1 >= b' ' => EXPLICIT_LE,
        None => IMPLICIT_LE,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DATA_SET: &[u8] = b"\x08\0\x60\0CS\x02\0OT";

    fn read(file: &[u8], piece_bytes: usize) -> Result<(FileMeta, Vec<u8>), Invalid> {
        let mut reader = FileReader::new(&Limits::default());
        let mut data_set = Vec::new();
        for piece in file.chunks(piece_bytes) {
            data_set.extend(reader.push(Bytes::copy_from_slice(piece))?);
        }
        data_set.extend(reader.finish()?);
        Ok((reader.meta().unwrap().clone(), data_set))
    }

    fn sample() -> Vec<u8> {
        let source = AeTitle::parse("MODALITY").unwrap();
        let mut file = write_file_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1", Some(&source));
        file.extend(DATA_SET);
        file
    }

    #[test]
    fn what_is_written_is_read_whatever_the_pieces() {
        let file = sample();
        for piece_bytes in [1, 2, 7, 131, 132, 133, 4096] {
            let (meta, data_set) = read(&file, piece_bytes).unwrap();
            assert_eq!(data_set, DATA_SET);
            assert!(meta.has_preamble);
            assert_eq!(meta.transfer_syntax, "1.2.840.10008.1.2.1");
            assert_eq!(meta.sop_instance.as_deref(), Some("1.2.3"));
            assert_eq!(meta.elements.text(tags::SOURCE_APPLICATION_ENTITY_TITLE), Some("MODALITY"));
            assert_eq!(meta.elements.text(tags::IMPLEMENTATION_VERSION_NAME), Some(IMPLEMENTATION_VERSION_NAME));
        }
    }

    #[test]
    fn dicom_rs_reads_what_is_written() {
        let object = dicom_object::from_reader(&sample()[..]).unwrap();
        assert_eq!(object.meta().media_storage_sop_instance_uid(), "1.2.3");
        assert_eq!(object.meta().implementation_class_uid(), IMPLEMENTATION_CLASS_UID);
        assert_eq!(object.element(tags::MODALITY).unwrap().to_str().unwrap(), "OT");
    }

    #[test]
    fn preamble_and_meta_group_may_be_missing() {
        let file = sample();
        let (meta, data_set) = read(&file[132..], 5).unwrap();
        assert_eq!((meta.has_preamble, meta.sop_instance.as_deref(), &data_set[..]), (false, Some("1.2.3"), DATA_SET));
        let (meta, data_set) = read(DATA_SET, 3).unwrap();
        assert_eq!((meta.transfer_syntax.as_str(), &data_set[..]), ("1.2.840.10008.1.2.1", DATA_SET));
        let implicit = b"\x08\0\x60\0\x02\0\0\0OT";
        assert_eq!(read(implicit, 100).unwrap().0.transfer_syntax, "1.2.840.10008.1.2");
        let big = b"\0\x08\0\x60CS\0\x02OT";
        assert_eq!(read(big, 100).unwrap().0.transfer_syntax, "1.2.840.10008.1.2.2");
    }

    #[test]
    fn a_wrong_transfer_syntax_is_seen_in_the_first_element() {
        let mut file = write_file_meta("1.2", "1.2.3", IMPLICIT_LE, None);
        file.extend(DATA_SET);
        assert_eq!(read(&file, 11).unwrap().0.transfer_syntax, EXPLICIT_LE);
        let mut file = write_file_meta("1.2", "1.2.3", "1.2.840.10008.1.2.4.50", None);
        file.extend(DATA_SET);
        assert_eq!(read(&file, 11).unwrap().0.transfer_syntax, "1.2.840.10008.1.2.4.50");
    }

    #[test]
    fn a_wrong_group_length_does_no_harm() {
        let mut file = sample();
        file[140..144].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(read(&file, 9).unwrap().1, DATA_SET);
    }

    #[test]
    fn a_truncated_meta_group_is_an_error_and_never_a_panic() {
        let file = sample();
        for length in 133..file.len() - DATA_SET.len() {
            let read = read(&file[..length], 64);
            // Cut between two elements it is a short meta group, which is tolerated; one byte is a data set to refuse later.
            assert!(read.is_err() || read.unwrap().1.len() < 2, "{length}");
        }
        let mut long = file[..132].to_vec();
        long.extend(b"\x02\0\x02\x01OB\0\0\xFC\xFF\xFF\xFF");
        assert!(matches!(read(&long, 64), Err(Invalid::TooLong { .. })));
    }

    #[test]
    fn an_endless_meta_group_is_refused_early() {
        let mut file = sample()[..132].to_vec();
        (0..9000).for_each(|_| file.extend(b"\x02\0\x02\x01UI\0\0"));
        assert!(matches!(read(&file, 4096), Err(Invalid::TooLarge { .. })));
    }

    #[test]
    fn our_implementation_uid_is_one() {
        assert!(crate::Uid::parse(IMPLEMENTATION_CLASS_UID).is_ok_and(|uid| !uid.has_leading_zero()));
        assert!(IMPLEMENTATION_VERSION_NAME.len() <= 16);
    }
}
