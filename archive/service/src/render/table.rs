//! Tables of a data set: LUT Descriptor and LUT Data (PS3.3 §C.11.1.1), palettes, segmented ones too (§C.7.6.3.1.5,
//! §C.7.9.2).
//!
//! ```text
//!   segmented   opcode 0 discrete: count, entry × count
//!                      1 linear:   count, the last of them; from the entry before
//!                      2 indirect: segments, where the first begins (low 16 bits, high 16 bits)
//! ```

use archive_codec_wire::recipe::{ENTRIES_MAX, Table};

/// Of a descriptor, whose second number has the sign of what is looked up, and of the entries.
pub(super) fn table(descriptor: &[i128], signed: bool, mut entries: Vec<u16>) -> Option<Table> {
    let [count, first, bits] = *descriptor else { return None };
    let count = match count as u16 {
        0 => ENTRIES_MAX,
        count => usize::from(count),
    };
    entries.truncate(count);
    let greatest = *entries.iter().max()?;
    let bits = match u8::try_from(bits) {
        Ok(bits @ 1..=16) => bits,
        // What no entry can have: as many as the greatest one needs.
        Ok(_) | Err(_) => {
            if greatest > 255 {
                16
            } else {
                8
            }
        }
    };
    let first = if signed { i32::from(first as u16 as i16) } else { i32::from(first as u16) };
    Some(Table { first, bits, entries })
}

/// Entries of 8 bits may be two in a word (PS3.3 §C.7.6.3.1.6).
pub(super) fn entries(descriptor: &[i128], octets: &[u8]) -> Vec<u16> {
    let count = match descriptor.first().map_or(0, |count| *count as u16) {
        0 => ENTRIES_MAX,
        count => usize::from(count),
    };
    let packed = descriptor.get(2) == Some(&8) && octets.len() <= count + count % 2;
    if packed {
        octets.iter().map(|octet| u16::from(*octet)).collect()
    } else {
        octets.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
    }
}

/// Entries of a segmented palette; `None` when its segments make no sense.
pub(super) fn expanded(segments: &[u16]) -> Option<Vec<u16>> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < segments.len() && out.len() < ENTRIES_MAX {
        at = segment(segments, at, &mut out, true)?;
    }
    Some(out)
}

/// Adds the segment at `at`, and gives where the next one begins.
fn segment(segments: &[u16], at: usize, out: &mut Vec<u16>, may_point: bool) -> Option<usize> {
    let number = |at: usize| segments.get(at).copied();
    let (opcode, count) = (number(at)?, usize::from(number(at + 1)?));
    // Each adds an entry: those that add none would be walked through for ever.
    if count == 0 {
        return None;
    }
    match opcode {
        0 => {
            out.extend_from_slice(segments.get(at + 2..at + 2 + count)?);
            Some(at + 2 + count)
        }
        1 => {
            let (from, to) = (i64::from(*out.last()?), i64::from(number(at + 2)?));
            let steps = count as i64;
            // Rounded to the nearest: what lies half way, away from zero.
            out.extend(
                (1..=steps).map(|step| (from as f64 + ((to - from) * step) as f64 / steps as f64).round() as u16),
            );
            Some(at + 3)
        }
        // An indirect segment points to others, never to an indirect one.
        2 if may_point => {
            let mut from = usize::from(number(at + 2)?) | usize::from(number(at + 3)?) << 16;
            for _ in 0..count {
                if out.len() >= ENTRIES_MAX {
                    break;
                }
                from = segment(segments, from, out, false)?;
            }
            Some(at + 4)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_that_add_nothing_are_refused() {
        assert_eq!(expanded(&[0, 1, 7]), Some(vec![7]));
        assert_eq!(expanded(&[0, 0]), None);
        // An indirect segment of 65,535 empty ones.
        assert_eq!(expanded(&[0, 1, 7, 2, 0xFFFF, 7, 0, 0, 0]), None);
    }

    #[test]
    fn a_descriptor_says_count_first_value_and_bits() {
        let made = |descriptor: [i128; 3], signed, count| table(&descriptor, signed, vec![7; count]);
        let first = |made: Option<Table>| made.map(|table| table.first);
        assert_eq!(first(made([4, 65_534, 12], true, 4)), Some(-2));
        assert_eq!(first(made([4, 65_534, 12], false, 4)), Some(65_534));
        assert_eq!(first(made([4, -2, 12], true, 4)), Some(-2));
        // 0 is 65,536; what is behind the count is none of it.
        assert_eq!(made([0, 0, 16], false, 70_000).map(|table| table.entries.len()), Some(65_536));
        assert_eq!(made([4, 0, 16], false, 9).map(|table| table.entries.len()), Some(4));
        assert_eq!(made([4, 0, 99], false, 4).map(|table| table.bits), Some(8));
        assert_eq!(made([4, 0, 16], false, 0), None);
        assert_eq!(table(&[4, 0], false, vec![1]), None);
    }

    #[test]
    fn entries_of_8_bits_are_packed_or_not() {
        assert_eq!(entries(&[3, 0, 8], &[1, 2, 3, 0])[..3], [1, 2, 3]);
        assert_eq!(entries(&[3, 0, 8], &[1, 0, 2, 0, 3, 0]), [1, 2, 3]);
        assert_eq!(entries(&[3, 0, 16], &[1, 2, 3, 4, 5, 6]), [0x201, 0x403, 0x605]);
    }

    #[test]
    fn segments_are_those_of_the_standard() {
        // 1, 2; then in four steps to 10; then the first two segments again, the linear one from 10 to 10.
        let segments = [0, 2, 1, 2, 1, 4, 10, 2, 2, 0, 0];
        assert_eq!(expanded(&segments).as_deref(), Some(&[1, 2, 4, 6, 8, 10, 1, 2, 4, 6, 8, 10][..]));
        assert_eq!(expanded(&[0, 1, 10, 1, 4, 0]).as_deref(), Some(&[10, 8, 5, 3, 0][..]));
    }

    #[test]
    fn segments_that_make_no_sense_are_none_and_never_endless() {
        for segments in
            [&[1, 4, 10][..], &[0, 9, 1], &[3, 1], &[0, 1, 1, 2, 1, 3, 0], &[0, 1, 1, 2, 1, 0xFFFF, 0xFFFF], &[2]]
        {
            assert_eq!(expanded(segments), None, "{segments:?}");
        }
        // 65,535 times a segment of 65,535 entries.
        let bomb = [0, 1, 1, 1, 0xFFFF, 2, 2, 0xFFFF, 3, 0];
        assert!(expanded(&bomb).is_some_and(|entries| entries.len() <= 3 * ENTRIES_MAX));
    }
}
