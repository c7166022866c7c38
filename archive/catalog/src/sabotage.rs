//! Bugs on purpose, one at a time: a test that is worth its name finds each of them (`tests/model.rs`). Without the feature
//! `planted-bugs`, which only that test asks for, none of them is compiled.

/// A bug that is planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// An instance that is known already is taken for a new one.
    NoDuplicateCheck,
    /// Another content under a known UID takes the place of the first, and success is answered.
    VersionReplaces,
    /// A content that is replaced is not kept as a version.
    ReplacedIsLost,
    /// A late copy of a store brings back what was deleted.
    DeletedComesBack,
    /// A record is written whatever version was expected.
    ExpectIgnored,
    /// A late copy of its first put brings a removed record back.
    RemovedRecordComesBack,
    /// A late copy of a store brings back what a rejection note hides.
    LateCopyRestores,
    /// Two contents that differ in nothing but padding are two.
    PaddingIsContent,
    /// A canonical digest is lost where an instance is hidden and comes back.
    CanonicalIsForgotten,
    /// A batch that is given again is applied again.
    AppliedTwice,
}

/// Whether `planted` is this bug; never, without the feature.
#[inline]
pub(crate) fn is(planted: Option<Sabotage>, this: Sabotage) -> bool {
    cfg!(feature = "planted-bugs") && planted == Some(this)
}
