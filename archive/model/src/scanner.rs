//! The pre-validator: it stands in front of everything that looks inside a data set. It takes the bytes as they come,
//! keeps what belongs into the header, remembers where bulk values and frames lie, and refuses what is malformed or
//! exceeds a limit as soon as that is seen.
//!
//! ```text
//!   bytes ─► (inflate, capped) ─► machine ─► elements ─► header
//!                                    └──────► fragments ─► frame map
//! ```
//!
//! The machine (`machine.rs`) is iterative and bounded; see its invariants. Nothing is changed: the bytes that are
//! stored are those that were pushed.

mod canonical;
#[cfg(test)]
mod canonical_tests;
mod fragments;
mod header;
mod inflate;
mod levels;
mod machine;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod value;

use crate::{DataSet, FrameMap, Invalid, Limits, PixelCoding, Tag, TransferSyntax, Value, Warning, tags};
pub use canonical::CanonicalDigest;
pub(crate) use header::{
    Coding, Header, ITEM, ITEM_END, Parsed, SEQUENCE_END, UNDEFINED, dictionary_vr, is_long, is_plausible,
    parse as parse_header,
};
pub(crate) use inflate::Inflater;
pub(crate) use machine::{Machine, Purpose};
pub(crate) use value::{is_text, number_bytes, word_bytes};

/// Takes a data set in pieces of any size.
#[derive(Debug)]
pub struct Scanner {
    syntax: TransferSyntax,
    machine: Machine,
    inflater: Option<Inflater>,
    length_bytes: u64,
    failed: Option<Invalid>,
    nothing: DataSet,
}

/// A data set that was accepted.
#[derive(Debug, Clone)]
pub struct Scanned {
    /// Everything but the bulk values, of which it knows the places.
    pub header: DataSet,
    /// Where the frames lie; none when there is no pixel data, or when it cannot be told.
    pub frames: Option<FrameMap>,
    /// Bytes as received.
    pub length_bytes: u64,
    /// Whether the bytes came deflated: then offsets of bulk values and frames count in the inflated data set.
    pub inflated: bool,
    /// What was odd and tolerated; at most 64 of them.
    pub warnings: Vec<Warning>,
    /// What it has in common with a data set that differs in nothing but padding; none if that was not asked for.
    pub canonical: Option<CanonicalDigest>,
}

impl Scanner {
    /// A scanner for one data set in `syntax`.
    #[must_use]
    pub fn new(syntax: &TransferSyntax, limits: &Limits) -> Self {
        Self {
            syntax: *syntax,
            machine: Machine::new(Coding::of(syntax.encoding), limits, Purpose::Instance),
            inflater: syntax.deflated.then(|| Inflater::new(limits)),
            length_bytes: 0,
            failed: None,
            nothing: DataSet::new(),
        }
    }

    /// The same, that finds the canonical digest of a data set in this transfer syntax, too.
    #[must_use]
    pub fn comparing(mut self, transfer_syntax: &str) -> Self {
        self.machine.compare_as(transfer_syntax);
        self
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// As soon as the bytes cannot be a data set any more; then every later call says the same.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Invalid> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        self.length_bytes += piece.len() as u64;
        let result = match self.inflater.as_mut() {
            Some(inflater) => inflater.push(piece, &mut self.machine),
            None => self.machine.feed(piece),
        };
        result.inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Elements of the data set itself that are complete so far, in order. Text that is not ASCII is still bytes, and
    /// elements that came out of order are missing, until [`Scanner::finish`].
    #[must_use]
    pub fn so_far(&self) -> &DataSet {
        self.machine.so_far().unwrap_or(&self.nothing)
    }

    /// The same with those that came out of order.
    #[must_use]
    pub fn gathered(&self) -> DataSet {
        self.machine.gathered()
    }

    /// Whether the data set itself has come to its pixel data, or what stands behind it.
    #[must_use]
    pub fn is_at_pixels(&self) -> bool {
        self.machine.last_of_root() >= Tag(0x7FE0, 0)
    }

    /// Bytes of the header so far: of all that is not a bulk value. What is done with the header takes time with them.
    #[must_use]
    pub fn header_bytes(&self) -> u64 {
        self.machine.header_bytes()
    }

    /// The data set is complete.
    ///
    /// # Errors
    /// When it is not, or has failed before.
    pub fn finish(mut self) -> Result<Scanned, Invalid> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        if let Some(inflater) = &self.inflater {
            inflater.finish()?;
        }
        let header = self.machine.finish()?;
        let (frames, odd) = self.frames(&header);
        if let Some(odd) = odd {
            self.machine.warn(Some(tags::PIXEL_DATA), odd);
        }
        Ok(Scanned {
            header,
            frames,
            length_bytes: self.length_bytes,
            inflated: self.inflater.is_some(),
            warnings: std::mem::take(&mut self.machine.warnings),
            canonical: self.machine.canonical(),
        })
    }

    fn frames(&mut self, header: &DataSet) -> (Option<FrameMap>, Option<&'static str>) {
        let count = fragments::frame_count(header);
        if let Some(fragments) = self.machine.pixels.take() {
            let extended = self.machine.extended_offsets.as_ref().zip(self.machine.extended_lengths.as_ref());
            return fragments.map(count, &self.syntax, extended);
        }
        let native = [tags::PIXEL_DATA, tags::FLOAT_PIXEL_DATA, tags::DOUBLE_FLOAT_PIXEL_DATA];
        let found = native.into_iter().find_map(|tag| match header.get(tag)?.value {
            Value::Bulk { offset, length } => Some((offset, length)),
            _ => None,
        });
        match found {
            Some((offset, length)) if self.syntax.pixel != PixelCoding::Jpip => {
                fragments::native_map(header, count, offset, length)
            }
            _ => (None, None),
        }
    }
}
