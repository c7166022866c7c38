//! Indexes that an operator adds for attributes of the header: which ones there are, and what they promise.
//!
//! ```text
//!   document of the cluster ─► set_extra ─► extra_index: id · spec · filled                  one row an index
//!                                                               │
//!   apply: put, replace, remove ────────────┐                   │ instances up to `filled` have their rows
//!   fill_extra: 256 stored headers a step ──┴─► extra_row: idx · owner · value · n          (`values.rs`)
//!                                                               │
//!   find: only once everything is filled ◄── narrows ───────────┘                            (`narrow.rs`)
//!
//!   owner = study, series or instance, by the level of the index;  n = how many instances below it have the value
//!   spec  = "1|study|LO|(0009,\"ACME 1.0\",01)"    version of the derivation | level | VR | attribute
//! ```
//!
//! These rows are *derived, per node*. They are no part of the export of a group: an index is defined in the meta group, whose
//! log runs beside those of the groups, so that rows written with them would differ between nodes at one applied position (K-1),
//! and snapshots with them. And they can always be made anew from the headers that every node has. So nothing of theirs can be
//! lost or be wrong for good, and mirroring, backup and a catalogue that is rebuilt need no word of them.
//!
//! Invariants
//! - X-1 The rows of an index are those that follow from the headers of all instances whose number is at most `filled`, and no
//!   others: what UIDs answer, not versions beside it, nothing deleted, nothing hidden. It holds after every transaction.
//! - X-2 `filled` moves in the transaction that writes the rows. So a crash at any point leaves a state that X-1 describes, and
//!   the fill goes on from there; there is nothing else to remember.
//! - X-3 A query uses an index only if `filled` is the end: asked in the read transaction that the page is read in.
//! - X-4 An index narrows too little, never too much: what it finds is matched in full (`witness.rs`). What it cannot tell, such
//!   as an element that came with another VR, has the value `?`, which every query looks into.
//! - X-5 Nothing in a header makes an apply fail for the sake of an index: what cannot be read is `?`.
//!
//! | crash, or | then |
//! |---|---|
//! | in a step of the fill | the step is rolled back: it is done again |
//! | power loss, which takes transactions that were not synced | rows, `filled` and applied positions go together (one file) |
//! | the rows of a group are imported | its old rows go; its instances get numbers behind all others, and `filled` goes back to before them |
//! | an index is removed | `spec` becomes NULL at once: nobody maintains or asks it; its rows go in steps |
//! | an older release | refuses the schema: it would not keep X-1 |
//! | a release that derives otherwise | another version in `spec`: a new index, filled anew, and the old one goes |

mod narrow;
mod rows;
mod values;

pub(crate) use narrow::{Narrowing, above, narrowings};
pub(crate) use rows::{Count, Extra, count, forget_group, header_of, load, set_back};
pub use rows::{ExtraState, FillStep};

use crate::{Level, keys::key_of, witness::may_be_stored};
use archive_model::{Attribute, Tag, VR};

/// The version of the derivation of values: to be raised with every change of `values.rs` or of what that calls.
const DERIVATION: u32 = 1;

/// VRs whose values can be looked for in an index.
const VRS: &[VR] = &[
    VR::AE,
    VR::AS,
    VR::CS,
    VR::DA,
    VR::DS,
    VR::FD,
    VR::FL,
    VR::IS,
    VR::LO,
    VR::LT,
    VR::PN,
    VR::SH,
    VR::SL,
    VR::SS,
    VR::ST,
    VR::SV,
    VR::TM,
    VR::UC,
    VR::UI,
    VR::UL,
    VR::UR,
    VR::US,
    VR::UT,
    VR::UV,
];

/// An index for an attribute of the header.
///
/// ```
/// use archive_catalog::{ExtraIndex, Level};
/// let index = ExtraIndex { attribute: "KVP".parse().expect("known"), vr: "DS".parse().expect("a VR"), level: Level::Series };
/// assert!(index.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraIndex {
    /// The attribute.
    pub attribute: Attribute,
    /// The value representation by which it is compared. What comes with another one is found all the same, by looking into it.
    pub vr: VR,
    /// What has one row for each value: where all images of a study say the same, one of the study is enough. It can be asked
    /// for at every level.
    pub level: Level,
}

impl ExtraIndex {
    /// Whether it can be, and if not, why.
    ///
    /// # Errors
    /// A sentence that says what would be right.
    pub fn check(&self) -> Result<(), String> {
        let tag = self.tag();
        if !VRS.contains(&self.vr) {
            let known = VRS.iter().map(|vr| vr.to_string()).collect::<Vec<_>>().join(" ");
            return Err(format!("no index is made of {}: its VR is one of {known}", self.vr.to_string()));
        }
        if key_of(tag).is_some() {
            return Err(format!("{} is in the index of every archive: it needs no other", self.attribute));
        }
        if !may_be_stored(tag) || !(0x0008..0x7FE0).contains(&tag.group()) {
            return Err(format!("{} is nothing that can be asked for: queries know no such key", self.attribute));
        }
        let known = archive_model::names::vr_of(tag);
        if tag.group().is_multiple_of(2) && known != VR::UN && known != self.vr {
            return Err(format!("{} has the VR {}, not {}", self.attribute, known.to_string(), self.vr.to_string()));
        }
        Ok(())
    }

    /// The tag of a key that asks for it; of a private one, that in the first block.
    fn tag(&self) -> Tag {
        match self.attribute {
            Attribute::Standard(tag) => tag,
            Attribute::Private { group, element, .. } => Tag(group, 0x1000 | u16::from(element)),
        }
    }

    /// How it is written in the catalogue.
    fn spec(&self) -> String {
        let attribute = match &self.attribute {
            // Never by its keyword, which another edition of the dictionary may change.
            Attribute::Standard(tag) => format!("({:04X},{:04X})", tag.group(), tag.element()),
            private @ Attribute::Private { .. } => private.to_string(),
        };
        format!("{DERIVATION}|{}|{}|{attribute}", self.level.name(), self.vr.to_string())
    }

    /// `None` for what another release has written.
    fn of_spec(spec: &str) -> Option<Self> {
        let mut parts = spec.splitn(4, '|');
        if parts.next()? != DERIVATION.to_string() {
            return None;
        }
        let (level, vr) = (Level::named(parts.next()?)?, parts.next()?.parse().ok()?);
        Some(Self { attribute: parts.next()?.parse().ok()?, vr, level })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(attribute: &str, vr: VR, level: Level) -> ExtraIndex {
        ExtraIndex { attribute: attribute.parse().expect("an attribute"), vr, level }
    }

    #[test]
    fn what_is_written_in_the_catalogue_never_changes() {
        for (index, spec) in [
            (index("KVP", VR::DS, Level::Series), "1|series|DS|(0018,0060)"),
            (index("(0009,\"A|B\",01)", VR::LO, Level::Study), "1|study|LO|(0009,\"A|B\",01)"),
            (index("ImageComments", VR::LT, Level::Instance), "1|image|LT|(0020,4000)"),
            (index("PatientBreedDescription", VR::LO, Level::Patient), "1|patient|LO|(0010,2292)"),
        ] {
            assert_eq!((index.spec().as_str(), ExtraIndex::of_spec(spec).as_ref()), (spec, Some(&index)));
        }
        assert_eq!(ExtraIndex::of_spec("2|series|DS|(0018,0060)"), None, "derived by another release");
    }

    #[test]
    fn what_cannot_be_an_index_is_refused_with_a_sentence() {
        for (bad, why) in [
            (index("PatientID", VR::LO, Level::Patient), "needs no other"),
            (index("ModalitiesInStudy", VR::CS, Level::Study), "needs no other"),
            (index("PixelData", VR::LO, Level::Instance), "asked for"),
            (index("RetrieveURL", VR::UR, Level::Study), "asked for"),
            (index("KVP", VR::LO, Level::Series), "has the VR DS"),
            (index("(0009,\"ACME\",01)", VR::SQ, Level::Series), "one of"),
            (index("AcquisitionDateTime", VR::DT, Level::Instance), "one of"),
            (index("(0005,\"ACME\",01)", VR::LO, Level::Series), "asked for"),
        ] {
            let said = bad.check().expect_err(why);
            assert!(said.contains(why), "{bad:?}: {said}");
        }
        assert_eq!(index("(0009,\"ACME\",01)", VR::LO, Level::Study).check(), Ok(()));
        assert_eq!(index("PatientBreedDescription", VR::LO, Level::Patient).check(), Ok(()));
    }
}
