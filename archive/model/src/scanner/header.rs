//! The header of an element: 8 or 12 bytes.
//!
//! ```text
//!   implicit        group 2 | element 2 | length 4
//!   explicit short  group 2 | element 2 | VR 2 | length 2
//!   explicit long   group 2 | element 2 | VR 2 | reserved 2 | length 4     OB OD OF OL OV OW SQ SV UC UN UR UT UV
//!   item, delimiter FFFE    | element 2 | length 4                         never a VR
//! ```

use dicom_core::{
    Tag, VR, dictionary::DataDictionary as _, dictionary::DataDictionaryEntry as _, dictionary::VirtualVr,
};
use dicom_dictionary_std::StandardDataDictionary;

pub(crate) const ITEM: Tag = Tag(0xFFFE, 0xE000);
pub(crate) const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
pub(crate) const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);
pub(crate) const UNDEFINED: u32 = 0xFFFF_FFFF;

/// How the elements of a level are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coding {
    pub(crate) explicit: bool,
    pub(crate) big: bool,
}

impl Coding {
    /// What UN of undefined length contains (PS3.5 §6.2.2).
    pub(crate) const IMPLICIT: Self = Self { explicit: false, big: false };

    pub(crate) fn of(encoding: crate::Encoding) -> Self {
        match encoding {
            crate::Encoding::ImplicitLe => Self::IMPLICIT,
            crate::Encoding::ExplicitLe => Self { explicit: true, big: false },
            crate::Encoding::ExplicitBe => Self { explicit: true, big: true },
        }
    }

    fn u16(self, bytes: [u8; 2]) -> u16 {
        if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

/// A header that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) tag: Tag,
    /// As written; `None` in implicit syntaxes, for items, and where the two bytes are no VR.
    pub(crate) vr: Option<VR>,
    pub(crate) length: u32,
    pub(crate) odd: Option<&'static str>,
}

/// What the bytes so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parsed {
    Complete(Header),
    /// Has 12 bytes.
    Longer,
}

/// Whether a VR's length takes 4 bytes in explicit syntaxes (PS3.5 table 7.1-1).
pub(crate) fn is_long(vr: VR) -> bool {
    use VR::{OB, OD, OF, OL, OV, OW, SQ, SV, UC, UN, UR, UT, UV};
    matches!(vr, OB | OD | OF | OL | OV | OW | SQ | SV | UC | UN | UR | UT | UV)
}

/// Reads 8 bytes, or 12 where 8 were [`Parsed::Longer`].
pub(crate) fn parse(bytes: &[u8], coding: Coding) -> Parsed {
    let Some(&[g0, g1, e0, e1, v0, v1, l0, l1]) = bytes.first_chunk::<8>() else { return Parsed::Longer };
    let tag = Tag(coding.u16([g0, g1]), coding.u16([e0, e1]));
    let word = coding.u32([v0, v1, l0, l1]);
    if tag.0 == 0xFFFE || !coding.explicit {
        return Parsed::Complete(Header { tag, vr: None, length: word, odd: None });
    }
    let long = |vr, odd| match bytes.get(8..12).and_then(|rest| rest.first_chunk::<4>()) {
        Some(&length) => Parsed::Complete(Header { tag, vr, length: coding.u32(length), odd }),
        None => Parsed::Longer,
    };
    let short = |vr, odd| Parsed::Complete(Header { tag, vr, length: u32::from(coding.u16([l0, l1])), odd });
    match VR::from_binary([v0, v1]) {
        Some(vr) if is_long(vr) => long(Some(vr), None),
        Some(vr) => short(Some(vr), None),
        // A VR of a later edition: always in the long form (PS3.5 §7.1.2).
        None if v0.is_ascii_uppercase() && v1.is_ascii_uppercase() => long(None, Some("unknown VR, read as UN")),
        None if matches!(&[v0, v1], b"??" | b"  " | b"--" | b"\0\0") => short(None, Some("blank VR, read by length")),
        // Some writers leave the VR out of elements that they copy.
        None => Parsed::Complete(Header { tag, vr: None, length: word, odd: Some("VR is missing, read as implicit") }),
    }
}

/// Whether 7 bytes or more could begin an element that follows `after`: to tell a pad byte after an odd value from
/// the next element.
pub(crate) fn is_plausible(bytes: &[u8], coding: Coding, after: Tag) -> bool {
    let Some(&[g0, g1, e0, e1, v0, v1]) = bytes.first_chunk::<6>() else { return false };
    let tag = Tag(coding.u16([g0, g1]), coding.u16([e0, e1]));
    if tag.0 == 0xFFFE {
        return matches!(tag, ITEM | ITEM_END | SEQUENCE_END);
    }
    let known = if coding.explicit {
        VR::from_binary([v0, v1]).is_some()
    } else {
        tag.0 % 2 == 1 || StandardDataDictionary.by_tag(tag).is_some()
    };
    tag > after && known
}

/// The VR of the standard dictionary; of private elements LO for creators, UN for all else (PS3.5 §7.8.1).
pub(crate) fn dictionary_vr(tag: Tag, signed: bool) -> VR {
    if tag.0 % 2 == 1 {
        return match tag.1 {
            0 => VR::UL,
            0x10..=0xFF => VR::LO,
            _ => VR::UN,
        };
    }
    match StandardDataDictionary.by_tag(tag).map(|entry| entry.vr()) {
        Some(VirtualVr::Xs) if signed => VR::SS,
        Some(vr) => vr.relaxed(),
        None => VR::UN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LE: Coding = Coding { explicit: true, big: false };

    fn complete(bytes: &[u8], coding: Coding) -> (Tag, Option<VR>, u32) {
        match parse(bytes, coding) {
            Parsed::Complete(header) => (header.tag, header.vr, header.length),
            Parsed::Longer => panic!("longer"),
        }
    }

    #[test]
    fn each_form_is_read() {
        let name = Tag(0x0010, 0x0010);
        assert_eq!(complete(b"\x10\0\x10\0PN\x04\0", LE), (name, Some(VR::PN), 4));
        assert_eq!(complete(b"\0\x10\0\x10PN\0\x04", Coding { big: true, ..LE }), (name, Some(VR::PN), 4));
        assert_eq!(complete(b"\x10\0\x10\0\x04\0\0\0", Coding::IMPLICIT), (name, None, 4));
        assert_eq!(parse(b"\x10\0\x10\0UT\0\0", LE), Parsed::Longer);
        assert_eq!(complete(b"\x10\0\x10\0UT\0\0\x04\0\0\0", LE), (name, Some(VR::UT), 4));
        assert_eq!(complete(b"\xFE\xFF\0\xE0\xFF\xFF\xFF\xFF", LE), (ITEM, None, UNDEFINED));
    }

    #[test]
    fn wrong_and_blank_vrs_are_read_by_length() {
        let name = Tag(0x0010, 0x0010);
        assert_eq!(complete(b"\x10\0\x10\0??\x04\0", LE), (name, None, 4));
        assert_eq!(complete(b"\x10\0\x10\0ZZ\0\0\x04\0\0\0", LE), (name, None, 4));
        assert_eq!(complete(b"\x10\0\x10\0\x04\0\x01\0", LE), (name, None, 65_540));
    }

    #[test]
    fn the_dictionary_knows_standard_and_private_elements() {
        assert_eq!(dictionary_vr(Tag(0x0010, 0x0010), false), VR::PN);
        assert_eq!(dictionary_vr(Tag(0x0028, 0x0106), true), VR::SS);
        assert_eq!(dictionary_vr(Tag(0x0028, 0x0106), false), VR::US);
        assert_eq!(dictionary_vr(Tag(0x0009, 0x0010), false), VR::LO);
        assert_eq!(dictionary_vr(Tag(0x0009, 0x1010), false), VR::UN);
        assert_eq!(dictionary_vr(Tag(0x6002, 0x3000), false), VR::OW);
    }
}
