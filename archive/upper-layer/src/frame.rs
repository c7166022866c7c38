//! PDUs from a byte stream. Type and length are looked at before anything is gathered.
//!
//! ```text
//!   PDU     type 1 | zero 1 | length 4 (big endian) | …                                   PS3.8 §9.3
//!   P-DATA  (length 4 | context 1 | flags 1: bit 0 command, bit 1 last | fragment) …       PS3.8 §9.3.5, Annex E
//! ```

use bytes::{Buf, Bytes, BytesMut};
use dicom_ul::pdu::Pdu;

/// Bytes in front of every PDU.
pub const HEADER_BYTES: usize = 6;
/// The longest PDU that is taken, and the maximum length that we announce (PS3.8 Annex D.1).
pub const PDU_BYTES_MAX: u32 = 128 << 10;
const P_DATA: u8 = 4;

/// One PDU.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// P-DATA-TF: its fragments.
    Data(Vec<Pdv>),
    /// Any other PDU.
    Other(Pdu),
}

/// One presentation data value: a fragment of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pdv {
    /// Presentation context.
    pub context: u8,
    /// Whether it is of the command set; else of the data set.
    pub command: bool,
    /// Whether it is the last of its set.
    pub last: bool,
    /// The fragment.
    pub bytes: Bytes,
}

/// A PDU that ends the association (event 19 of PS3.8 Table 9-10).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPdu {
    /// Not one of the seven types.
    #[error("PDU type {0:#04x} is not known")]
    Type(u8),
    /// Longer than what we announced.
    #[error("a PDU of {length} bytes exceeds the maximum of {PDU_BYTES_MAX}")]
    TooLong {
        /// Its declared length.
        length: u32,
    },
    /// Its inside contradicts itself.
    #[error("the PDU is malformed: {0}")]
    Malformed(String),
}

/// The next whole PDU at the front of `buffer`; `None` while bytes are missing.
///
/// # Errors
/// As soon as the header says that it can be no PDU.
pub fn take(buffer: &mut BytesMut) -> Result<Option<Frame>, BadPdu> {
    let Some(header) = buffer.get(..HEADER_BYTES) else { return Ok(None) };
    let kind = header[0];
    let length = u32::from_be_bytes([header[2], header[3], header[4], header[5]]);
    if !(1..=7).contains(&kind) {
        return Err(BadPdu::Type(kind));
    }
    if length > PDU_BYTES_MAX {
        return Err(BadPdu::TooLong { length });
    }
    let whole = HEADER_BYTES + length as usize;
    if buffer.len() < whole {
        return Ok(None);
    }
    let pdu = buffer.split_to(whole).freeze();
    if kind == P_DATA {
        return fragments(pdu.slice(HEADER_BYTES..)).map(|pdvs| Some(Frame::Data(pdvs)));
    }
    match dicom_ul::pdu::read_pdu(&pdu[..], PDU_BYTES_MAX, true) {
        Ok(Some(pdu)) => Ok(Some(Frame::Other(pdu))),
        Ok(None) => Err(BadPdu::Malformed("it is shorter than its type needs".into())),
        Err(error) => Err(BadPdu::Malformed(error.to_string())),
    }
}

fn fragments(mut rest: Bytes) -> Result<Vec<Pdv>, BadPdu> {
    let mut pdvs = Vec::with_capacity(1);
    while !rest.is_empty() {
        if rest.len() < 6 {
            return Err(BadPdu::Malformed("a fragment has no header".into()));
        }
        let length = rest.get_u32() as usize;
        if length < 2 || length > rest.len() {
            return Err(BadPdu::Malformed("a fragment's length does not fit into its PDU".into()));
        }
        let mut own = rest.split_to(length);
        let (context, flags) = (own.get_u8(), own.get_u8());
        if context.is_multiple_of(2) {
            return Err(BadPdu::Malformed("a presentation context id is odd".into()));
        }
        pdvs.push(Pdv { context, command: flags & 1 == 1, last: flags & 2 == 2, bytes: own });
    }
    if pdvs.is_empty() {
        return Err(BadPdu::Malformed("a P-DATA without fragments".into()));
    }
    Ok(pdvs)
}

/// Bytes of a PDU that is not P-DATA.
///
/// # Errors
/// When a field is too long for the PDU.
pub fn encode(pdu: &Pdu) -> Result<Vec<u8>, BadPdu> {
    let mut out = Vec::with_capacity(512);
    dicom_ul::pdu::write_pdu(&mut out, pdu).map_err(|error| BadPdu::Malformed(error.to_string()))?;
    Ok(out)
}

/// Appends `bytes` as P-DATA PDUs of at most `pdu_bytes_max` (what the peer announced; 0 is no limit).
pub fn put_data(out: &mut Vec<u8>, context: u8, command: bool, last: bool, bytes: &[u8], pdu_bytes_max: u32) {
    let fragment_bytes = fragment_bytes(pdu_bytes_max);
    let mut pieces = bytes.chunks(fragment_bytes).peekable();
    if pieces.peek().is_none() {
        put_fragment(out, context, command, last, &[]);
    }
    while let Some(piece) = pieces.next() {
        put_fragment(out, context, command, last && pieces.peek().is_none(), piece);
    }
}

/// Bytes of one fragment for a peer that takes PDUs of `pdu_bytes_max`: even, as all lengths in DICOM.
#[must_use]
pub fn fragment_bytes(pdu_bytes_max: u32) -> usize {
    let pdu = if pdu_bytes_max == 0 { PDU_BYTES_MAX } else { pdu_bytes_max.clamp(64, PDU_BYTES_MAX) };
    (pdu as usize - 6) & !1
}

fn put_fragment(out: &mut Vec<u8>, context: u8, command: bool, last: bool, bytes: &[u8]) {
    out.extend_from_slice(&data_head(context, command, last, bytes.len() as u32));
    out.extend_from_slice(bytes);
}

/// What stands before a fragment of `length` bytes: the heads of a P-DATA-TF PDU and of its one PDV (PS3.8 §9.3.5).
#[must_use]
pub fn data_head(context: u8, command: bool, last: bool, length: u32) -> [u8; 12] {
    let ([a, b, c, d], [e, f, g, h]) = ((length + 6).to_be_bytes(), (length + 2).to_be_bytes());
    [P_DATA, 0, a, b, c, d, e, f, g, h, context, u8::from(command) | u8::from(last) << 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken(bytes: &[u8]) -> Result<Option<Frame>, BadPdu> {
        take(&mut BytesMut::from(bytes))
    }

    #[test]
    fn the_bytes_of_a_p_data_are_those_of_the_standard() {
        let mut out = Vec::new();
        put_data(&mut out, 3, true, true, b"abcd", 0);
        assert_eq!(out, [4, 0, 0, 0, 0, 10, 0, 0, 0, 6, 3, 3, b'a', b'b', b'c', b'd']);
        let pdv = Pdv { context: 3, command: true, last: true, bytes: Bytes::from_static(b"abcd") };
        assert_eq!(taken(&out), Ok(Some(Frame::Data(vec![pdv]))));
        assert_eq!(taken(&out[..15]), Ok(None));
    }

    #[test]
    fn a_lying_header_is_refused_before_anything_is_gathered() {
        assert_eq!(taken(&[4, 0, 0xff, 0xff, 0xff, 0xff]), Err(BadPdu::TooLong { length: u32::MAX }));
        assert_eq!(taken(b"GET / HTTP/1.1\r\n"), Err(BadPdu::Type(b'G')));
        assert_eq!(taken(&[0x16, 3, 1, 2, 0, 1]), Err(BadPdu::Type(0x16)));
        assert!(matches!(taken(&[4, 0, 0, 0, 0, 0]), Err(BadPdu::Malformed(_))), "no fragments");
        assert!(matches!(taken(&[4, 0, 0, 0, 0, 6, 0, 0, 0, 9, 1, 0]), Err(BadPdu::Malformed(_))), "a long fragment");
        assert!(matches!(taken(&[4, 0, 0, 0, 0, 6, 0, 0, 0, 2, 2, 0]), Err(BadPdu::Malformed(_))), "an even context");
        assert!(matches!(taken(&[1, 0, 0, 0, 0, 2, 0, 1]), Err(BadPdu::Malformed(_))), "a short request");
    }

    proptest! {
        #[test]
        fn what_is_put_is_taken_whatever_the_peer_takes(bytes in prop::collection::vec(any::<u8>(), 0..5_000), max in 0u32..3_000) {
            let mut out = Vec::new();
            put_data(&mut out, 1, false, true, &bytes, max);
            let mut buffer = BytesMut::from(&out[..]);
            let (mut back, mut ended) = (Vec::new(), false);
            while let Some(Frame::Data(pdvs)) = take(&mut buffer).expect("own bytes") {
                for pdv in pdvs {
                    prop_assert!(!ended && !pdv.command);
                    back.extend_from_slice(&pdv.bytes);
                    ended = pdv.last;
                }
            }
            prop_assert!(ended && buffer.is_empty());
            prop_assert_eq!(back, bytes);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = taken(&bytes);
        }
    }
}
