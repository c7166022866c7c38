//! The canonical digest: whether two data sets say the same, though their bytes differ in padding.
//!
//! *The same content* is, by rule 1, the same transfer syntax and the same elements in the same order, each with the same
//! tag, VR as written and value, where a value is compared without what only fills it up. These are not looked at, and
//! nothing else is left out:
//!
//! ```text
//!   Data Set Trailing Padding (FFFC,FFFC) of any level, its length and bytes       PS3.10 §7.2
//!   group lengths: any element (gggg,0000) with 4 bytes and no VR but UL or UN     PS3.5 §7.2, retired
//!   whether sequences and items end by their length or by a delimiter              PS3.5 §7.5
//!   of a value of text, UIDs included: the NULs at its end, and the spaces before these           PS3.5 §6.2
//!   the two reserved bytes of a header with a long length                          PS3.5 §7.1.2
//!   how a deflated data set was deflated, and one NUL behind the stream            PS3.5 §A.5
//! ```
//!
//! A data set that had to be tolerated (a pad byte behind an odd value or behind the data set, a delimiter that is missing, stray
//! or has a length, more behind a deflated stream) has no canonical digest: others may read it otherwise, so that the like of it,
//! mended, must not be taken for it. Then bytes decide.
//!
//! So these are other contents: the same values in another transfer syntax, or with another VR (Implicit VR says less than
//! Explicit VR does); spaces before or between values; an element that is absent or empty; other fragments of the same
//! stream, or another offset table; elements in another order. Of a value that is no text, and of a fragment, no byte is left
//! out, though the last may be a pad byte: zero is the commonest byte of a number and of a dark pixel, too.
//! Where it is in doubt, it is another content, because that is kept as a version and costs nothing but space.
//!
//! What is hashed reads backwards without ambiguity: each part ends with its kind, and what stands before that has a
//! length that is known or written behind it.
//!
//! ```text
//!   start      syntax | length 8 | 'T'                 value      bytes | length 8 | VR 2 | tag 4 | 'V'
//!   sequence   VR 2 | tag 4 | 'S' … 's'                item       'I' … 'i'
//!   fragments  VR 2 | tag 4 | 'F' … 'e'                fragment   bytes | length 8 | 'f'
//! ```
//!
//! It is BLAKE3 with a context of its own, because who can find two contents with one digest can make an archive believe
//! that it has an image which it has not.
//!
//! When changing what is left out: 1. a new rule number and context, 2. the old rule stays as long as rows have it (digests of
//! different rules are never equal, so that their contents are told apart as other bytes are), 3. the golden digests below. Where
//! headers have no VR the dictionary says what is text: one that says otherwise is another rule, too.

use super::value::is_text;
use dicom_core::{Tag, VR};
use serde::{Deserialize, Serialize};

/// The rule that this release follows.
const RULE: u8 = 1;
const CONTEXT: &str = "triptych 2026-11-26 canonical digest of a data set, rule 1";

/// Bytes that are gathered before they are hashed, always as many: BLAKE3 is twice as fast on whole chunks in powers of two as on
/// what a sender's pieces leave of them, for which the copy is a small price. 512 associations have 8 MiB of it.
const GATHERED_BYTES: usize = 16 << 10;

/// What two data sets have in common that differ in nothing but padding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CanonicalDigest {
    rule: u8,
    digest: [u8; 32],
}

impl CanonicalDigest {
    /// One of the newest rule, for tests of what keeps it.
    #[must_use]
    pub fn of_digest(digest: [u8; 32]) -> Self {
        Self { rule: RULE, digest }
    }

    /// As rows keep it: the rule, then the digest.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 33] {
        let mut bytes = [self.rule; 33];
        bytes[1..].copy_from_slice(&self.digest);
        bytes
    }

    /// From what [`CanonicalDigest::to_bytes`] gave, under whatever rule.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&rule, digest) = bytes.split_first()?;
        Some(Self { rule, digest: digest.try_into().ok()? })
    }
}

impl std::fmt::Debug for CanonicalDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CanonicalDigest({}, {:02x}{:02x}…)", self.rule, self.digest[0], self.digest[1])
    }
}

/// What the bytes that pass by belong to.
#[derive(Debug)]
enum Part {
    /// To nothing that counts.
    Ignored,
    /// Text; so many spaces, and NULs behind them, may be its end.
    Text { spaces: u64, nuls: u64 },
    /// Anything else.
    Binary,
}

/// The digest of a data set that is passing by.
pub(crate) struct Canonical {
    hasher: blake3::Hasher,
    gathered: Vec<u8>,
    part: Part,
    /// Bytes of the part that were hashed.
    length: u64,
    /// VR and tag of the value.
    of: [u8; 6],
}

impl std::fmt::Debug for Canonical {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Canonical").finish_non_exhaustive() // the bytes may be a patient's
    }
}

impl Canonical {
    pub(crate) fn new(transfer_syntax: &str) -> Self {
        let mut this = Self {
            hasher: blake3::Hasher::new_derive_key(CONTEXT),
            gathered: Vec::new(),
            part: Part::Ignored,
            length: 0,
            of: [0; 6],
        };
        let syntax = transfer_syntax.trim_end_matches(['\0', ' ']).as_bytes();
        this.hash(syntax);
        this.hash(&(syntax.len() as u64).to_le_bytes());
        this.hash(b"T");
        this
    }

    /// A value begins: `written` is its VR in the bytes, `vr` what it is taken for.
    pub(crate) fn begin_value(&mut self, tag: Tag, written: [u8; 2], vr: VR, length: u64) {
        let may_be_length = matches!(&written, b"UL" | b"UN" | [0, 0]);
        let is_group_length = tag.element() == 0 && length == 4 && may_be_length;
        self.part = if is_group_length || tag == crate::tags::DATA_SET_TRAILING_PADDING {
            Part::Ignored
        } else if is_text(vr) {
            Part::Text { spaces: 0, nuls: 0 }
        } else {
            Part::Binary
        };
        self.length = 0;
        self.of = named(tag, written);
    }

    /// The next bytes of the value or the fragment.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        match self.part {
            Part::Ignored => {}
            Part::Text { .. } => self.text(bytes),
            Part::Binary => self.part_bytes(bytes),
        }
    }

    pub(crate) fn end_value(&mut self) {
        if self.end_part() {
            let of = self.of;
            self.hash(&of);
            self.hash(b"V");
        }
    }

    pub(crate) fn open_sequence(&mut self, tag: Tag, written: [u8; 2]) {
        self.hash(&named(tag, written));
        self.hash(b"S");
    }

    pub(crate) fn close_sequence(&mut self) {
        self.hash(b"s");
    }

    pub(crate) fn open_item(&mut self) {
        self.hash(b"I");
    }

    pub(crate) fn close_item(&mut self) {
        self.hash(b"i");
    }

    pub(crate) fn open_fragments(&mut self, tag: Tag, written: [u8; 2]) {
        self.hash(&named(tag, written));
        self.hash(b"F");
    }

    pub(crate) fn begin_fragment(&mut self) {
        (self.part, self.length) = (Part::Binary, 0);
    }

    pub(crate) fn end_fragment(&mut self) {
        self.end_part();
        self.hash(b"f");
    }

    pub(crate) fn close_fragments(&mut self) {
        self.hash(b"e");
    }

    pub(crate) fn finish(mut self) -> CanonicalDigest {
        self.flush();
        CanonicalDigest::of_digest(*self.hasher.finalize().as_bytes())
    }

    /// Hashes how long the part is: of text, what may be its end is not of it. `false` when it does not count.
    fn end_part(&mut self) -> bool {
        if matches!(std::mem::replace(&mut self.part, Part::Ignored), Part::Ignored) {
            return false;
        }
        let length = self.length;
        self.hash(&length.to_le_bytes());
        true
    }

    /// Text is hashed up to its last byte that is no padding; what comes behind waits for more.
    fn text(&mut self, bytes: &[u8]) {
        let solid = bytes.iter().rposition(|byte| !matches!(byte, b' ' | 0)).map_or(0, |last| last + 1);
        if solid > 0 {
            self.not_the_end();
            self.part_bytes(&bytes[..solid]);
        }
        for &byte in &bytes[solid..] {
            if byte == b' ' && matches!(self.part, Part::Text { nuls: 1.., .. }) {
                self.not_the_end();
            }
            if let Part::Text { spaces, nuls } = &mut self.part {
                *if byte == 0 { nuls } else { spaces } += 1;
            }
        }
    }

    /// The padding that was held back stands in the middle of the value.
    fn not_the_end(&mut self) {
        let Part::Text { spaces, nuls } = std::mem::replace(&mut self.part, Part::Text { spaces: 0, nuls: 0 }) else {
            return;
        };
        static RUNS: [[u8; 256]; 2] = [[b' '; 256], [0; 256]];
        for (mut left, run) in [spaces, nuls].into_iter().zip(&RUNS) {
            while left > 0 {
                let now = left.min(256);
                self.part_bytes(&run[..now as usize]);
                left -= now;
            }
        }
    }

    fn part_bytes(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.hash(bytes);
    }

    fn hash(&mut self, mut bytes: &[u8]) {
        loop {
            let (now, later) = bytes.split_at(bytes.len().min(GATHERED_BYTES - self.gathered.len()));
            self.gathered.extend_from_slice(now);
            if self.gathered.len() < GATHERED_BYTES {
                return;
            }
            self.flush();
            bytes = later;
        }
    }

    fn flush(&mut self) {
        self.hasher.update(&self.gathered);
        self.gathered.clear();
    }
}

fn named(tag: Tag, written: [u8; 2]) -> [u8; 6] {
    let ([g0, g1], [e0, e1]) = (tag.group().to_le_bytes(), tag.element().to_le_bytes());
    [written[0], written[1], g0, g1, e0, e1]
}
