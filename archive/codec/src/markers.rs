//! The markers before the first scan of a JPEG or JPEG-LS stream (ISO/IEC 10918-1 Annex B, 14495-1 Annex C).
//!
//! ```text
//!   FFD8 | FFxx length 2 … | SOFn: precision 1, rows 2, columns 2, count 1, (id 1, h<<4|v 1, table 1) × count | … | SOS …
//! ```

use crate::refusal::{Refusal, refused};

/// What is known before the first scan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// The second byte of the frame's marker: C0 baseline, C1 extended, C2 progressive, C3 lossless, F7 JPEG-LS.
    pub(crate) process: u8,
    pub(crate) precision: u8,
    pub(crate) rows: u32,
    pub(crate) columns: u32,
    /// Identifier and sampling of each component.
    pub(crate) components: Vec<(u8, u8)>,
    /// Whether it is JFIF, by APP0.
    pub(crate) jfif: bool,
    /// The colour transform of Adobe's APP14.
    pub(crate) adobe: Option<u8>,
    pub(crate) restarts: bool,
    /// Of the first scan: its components, Ss (lossless: predictor; JPEG-LS: NEAR), Se (JPEG-LS: interleaving), Ah and Al.
    pub(crate) scan: (u8, u8, u8, u8),
}

impl Header {
    /// Reads up to the first scan.
    pub(crate) fn of(stream: &[u8]) -> Result<Self, Refusal> {
        let cut = || refused("the stream ends before its first scan");
        let mut rest =
            stream.strip_prefix(&[0xFF, 0xD8]).ok_or_else(|| refused("the stream does not begin with SOI"))?;
        let mut header = Self::default();
        loop {
            // Any number of FF may fill up before a marker.
            let [0xFF, marker, after @ ..] = rest else {
                return Err(refused("a marker was expected before the first scan"));
            };
            if *marker == 0xFF {
                rest = &rest[1..];
                continue;
            }
            if matches!(marker, 0x01 | 0xD0..=0xD9) {
                return Err(refused("a marker that cannot stand before the first scan"));
            }
            let [l0, l1, ..] = after else { return Err(cut()) };
            let length = usize::from(u16::from_be_bytes([*l0, *l1]));
            let body = after.get(2..length).ok_or_else(cut)?;
            rest = &after[length..];
            match marker {
                0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF | 0xF7 => header.frame(*marker, body)?,
                0xDD => header.restarts = body.iter().any(|&byte| byte != 0),
                0xE0 if body.starts_with(b"JFIF\0") => header.jfif = true,
                0xEE if body.starts_with(b"Adobe") => header.adobe = body.get(11).copied(),
                0xDA => {
                    let [count, ..] = body else { return Err(cut()) };
                    let [.., a, b, c] = body else { return Err(cut()) };
                    header.scan = (*count, *a, *b, *c);
                    return if header.process == 0 { Err(refused("a scan before its frame")) } else { Ok(header) };
                }
                _ => {}
            }
        }
    }

    fn frame(&mut self, marker: u8, body: &[u8]) -> Result<(), Refusal> {
        let [precision, r0, r1, c0, c1, count, components @ ..] = body else {
            return Err(refused("the frame header is too short"));
        };
        if self.process != 0 {
            return Err(refused("the stream has two frames"));
        }
        if components.len() != usize::from(*count) * 3 {
            return Err(refused("the frame header has not the length that its components need"));
        }
        self.process = marker;
        self.precision = *precision;
        self.rows = u32::from(u16::from_be_bytes([*r0, *r1]));
        self.columns = u32::from(u16::from_be_bytes([*c0, *c1]));
        self.components = components.chunks_exact(3).map(|component| (component[0], component[1])).collect();
        Ok(())
    }
}

/// The stream without what pads its fragment. It must end with EOI: a decoder would fill up a shortened one, in silence.
pub(crate) fn whole(stream: &[u8]) -> Result<&[u8], Refusal> {
    // Writers pad with zeros, with fill bytes, and with spaces.
    let padding = stream.iter().rev().take_while(|byte| matches!(byte, 0 | 0xFF | b' ')).count();
    let stream = &stream[..stream.len() - padding];
    if stream.ends_with(&[0xFF, 0xD9]) {
        Ok(stream)
    } else {
        Err(refused("the stream does not end with EOI (FFD9): it was cut off"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const STREAM: &[u8] = b"\xFF\xD8\xFF\xEE\0\x0EAdobe\0\x64\0\0\0\0\x01\xFF\xFF\xC0\0\x11\x08\0\x10\0\x20\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xFF\xDD\0\x04\0\x08\xFF\xDA\0\x0C\x03\x01\0\x02\x11\x03\x11\0\x3F\0\x55\xFF\xD9";

    #[test]
    fn a_header_is_read_up_to_its_first_scan() {
        let header = Header::of(STREAM).unwrap();
        assert_eq!((header.process, header.precision, header.rows, header.columns), (0xC0, 8, 16, 32));
        assert_eq!(header.components, [(1, 0x22), (2, 0x11), (3, 0x11)]);
        assert_eq!((header.adobe, header.restarts, header.scan), (Some(1), true, (3, 0, 0x3F, 0)));
    }

    #[test]
    fn every_prefix_of_a_header_is_refused() {
        let scan = STREAM.len() - 3;
        for end in 0..=scan {
            assert_eq!(Header::of(&STREAM[..end]).is_ok(), end > scan - 1, "{end}");
        }
    }

    #[test]
    fn a_stream_that_was_cut_off_is_told_from_a_padded_one() {
        assert!(whole(b"\xFF\xD8\x01\xFF\xD9\0").is_ok());
        assert_eq!(whole(b"\xFF\xD8\x01\xFF\xD9\xFF"), Ok(&b"\xFF\xD8\x01\xFF\xD9"[..]));
        assert!(whole(b"\xFF\xD8\x01\xFF").is_err());
        assert!(whole(b"\0\0").is_err());
    }
}
