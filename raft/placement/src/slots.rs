//! Keys to slots to groups.
//!
//! ```text
//!   key ──BLAKE3──► b0 b1 …      slot = (b0 << 8 | b1) & 0x0fff
//!   slots 0 ……………………………………… 4095
//!         |  g1  |  g2  | … |  gn  |     contiguous ranges, sizes differ by at most one
//! ```
//!
//! A slot is for ever a function of the key; which group owns it is a function of the number of groups alone.

use raft_types::GroupId;
use std::ops::Range;

/// Number of slots; also the largest number of data groups.
pub const SLOTS: u16 = 4096;

/// The slot of a key (the Study Instance UID).
///
/// ```
/// assert_eq!(raft_placement::slot(b"1.2.3"), raft_placement::slot(b"1.2.3"));
/// ```
#[must_use]
pub fn slot(key: &[u8]) -> u16 {
    let hash = blake3::hash(key);
    let [high, low, ..] = hash.as_bytes();
    u16::from_be_bytes([*high, *low]) & (SLOTS - 1)
}

/// The data group that owns `slot` when there are `groups` of them: 1…=`groups`; the meta group owns none.
#[must_use]
pub fn group_of(slot: u16, groups: u32) -> GroupId {
    let groups = groups.clamp(1, u32::from(SLOTS));
    let slot = u32::from(slot % SLOTS);
    GroupId(slot * groups / u32::from(SLOTS) + 1) // 4095 × 4096 fits in 32 bits
}

/// The slots that `group` owns when there are `groups` data groups; empty for the meta group.
#[must_use]
pub fn slots_of(group: GroupId, groups: u32) -> Range<u16> {
    let groups = groups.clamp(1, u32::from(SLOTS));
    if group == GroupId::META || group.0 > groups {
        return 0..0;
    }
    let first = |number: u32| (number * u32::from(SLOTS)).div_ceil(groups) as u16; // ≤ 4096
    first(group.0 - 1)..first(group.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_known_keys_never_change() {
        let keys: [&[u8]; 4] = [b"", b"1.2.3", b"1.2.840.113619.2.55.3.604688119.971.1268048289.78", b"2.25.1"];
        assert_eq!(keys.map(slot), GOLDEN);
    }
    /// The first is `b3sum` of nothing, af13…, cut to 12 bits.
    const GOLDEN: [u16; 4] = [3859, 274, 1482, 1650];

    #[test]
    fn every_slot_has_one_group_and_ranges_are_contiguous() {
        for groups in [1, 2, 3, 5, 7, 63, 64, 100, 1000, 4095, 4096] {
            let mut next = 0;
            for number in 1..=groups {
                let range = slots_of(GroupId(number), groups);
                assert_eq!(range.start, next);
                let size = u32::from(range.end - range.start);
                assert!(size == 4096 / groups || size == 4096 / groups + 1, "{groups} groups: {size}");
                for slot in range.clone() {
                    assert_eq!(group_of(slot, groups), GroupId(number));
                }
                next = range.end;
            }
            assert_eq!(next, SLOTS);
        }
    }

    #[test]
    fn studies_spread_over_the_groups() {
        let mut held = [0_u32; 65];
        for number in 0..64_000 {
            held[group_of(slot(format!("2.25.{number}").as_bytes()), 64).0 as usize] += 1;
        }
        assert_eq!(held[0], 0, "the meta group holds no study");
        assert!(held[1..].iter().all(|count| (800..1200).contains(count)), "{held:?}");
    }

    #[test]
    fn the_meta_group_and_unknown_groups_own_no_slots() {
        assert!(slots_of(GroupId::META, 64).is_empty());
        assert!(slots_of(GroupId(65), 64).is_empty());
    }
}
