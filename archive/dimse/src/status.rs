//! Statuses of the DIMSE services (PS3.7 Annex C; PS3.4 B.2.3, C.4.1–C.4.3), and which failure has which.

use archive_model::Tag;
use archive_service::{QueryError, RecordError, StoreError, commitment::BadRequest};

/// A status with its comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Status (0000,0900).
    pub code: u16,
    /// Error Comment (0000,0902): at most 64 characters; empty for none.
    pub comment: String,
    /// Offending Element (0000,0901).
    pub offending: Option<Tag>,
}

/// Success.
pub const SUCCESS: u16 = 0x0000;
/// Matches are continuing.
pub const PENDING: u16 = 0xFF00;
/// Matches are continuing; some optional keys were not supported.
pub const PENDING_UNSUPPORTED_KEYS: u16 = 0xFF01;
/// Terminated by C-CANCEL.
pub const CANCEL: u16 = 0xFE00;
/// Out of resources: try again.
pub const OUT_OF_RESOURCES: u16 = 0xA700;
/// Out of resources: the number of matches cannot be told.
pub const UNABLE_TO_COUNT: u16 = 0xA701;
/// Out of resources: no sub-operation could be performed.
pub const UNABLE_TO_PERFORM: u16 = 0xA702;
/// Move destination unknown.
pub const UNKNOWN_DESTINATION: u16 = 0xA801;
/// The identifier or the data set does not match the SOP class.
pub const MISMATCH: u16 = 0xA900;
/// Sub-operations complete, one or more failed or warned.
pub const SOME_FAILED: u16 = 0xB000;
/// Cannot understand.
pub const CANNOT_UNDERSTAND: u16 = 0xC000;
/// Cannot understand: the transfer syntax (PS3.18 table I.2-2 has the same number).
pub const SYNTAX_NOT_SUPPORTED: u16 = 0xC122;
/// Processing failure (PS3.7 C.5.13).
pub const PROCESSING_FAILURE: u16 = 0x0110;
/// Duplicate SOP instance (PS3.7 C.5.6): other content is stored under the UID.
pub const DUPLICATE_INSTANCE: u16 = 0x0111;
/// No such SOP instance (PS3.7 C.5.11).
pub const NO_SUCH_INSTANCE: u16 = 0x0112;
/// Invalid argument value (PS3.7 C.5.10).
pub const INVALID_ARGUMENT: u16 = 0x0115;
/// No such SOP class (PS3.7 C.5.12).
pub const NO_SUCH_CLASS: u16 = 0x0118;
/// No such action type (PS3.7 C.5.9).
pub const NO_SUCH_ACTION: u16 = 0x0123;
/// Not authorised (PS3.7 C.5.17).
pub const NOT_AUTHORISED: u16 = 0x0124;
/// Resource limitation (PS3.7 C.5.23).
pub const RESOURCE_LIMITATION: u16 = 0x0213;
/// Invalid SOP instance (PS3.7 C.5.14).
pub const INVALID_INSTANCE: u16 = 0x0117;
/// Invalid attribute value (PS3.7 C.5.11).
pub const INVALID_ATTRIBUTE: u16 = 0x0106;
/// Missing attribute (PS3.7 C.5.16).
pub const MISSING_ATTRIBUTE: u16 = 0x0120;
/// SOP class not supported (PS3.7 C.5.20).
pub const CLASS_NOT_SUPPORTED: u16 = 0x0122;
/// Unrecognised operation (PS3.7 C.5.24).
pub const UNRECOGNISED_OPERATION: u16 = 0x0211;
/// Mistyped argument (PS3.7 C.5.15).
pub const MISTYPED_ARGUMENT: u16 = 0x0212;

/// Every status that is answered, and what it means.
pub static MEANINGS: &[(u16, &str)] = &[
    (SUCCESS, "Success"),
    (PENDING, "Matches are continuing"),
    (PENDING_UNSUPPORTED_KEYS, "Matches are continuing; some optional keys were not supported"),
    (CANCEL, "Terminated by C-CANCEL"),
    (OUT_OF_RESOURCES, "Out of resources: try again"),
    (UNABLE_TO_COUNT, "Out of resources: the number of matches cannot be told"),
    (UNABLE_TO_PERFORM, "Out of resources: no sub-operation could be performed"),
    (UNKNOWN_DESTINATION, "Move destination unknown"),
    (MISMATCH, "The identifier or the data set does not match the SOP class"),
    (SOME_FAILED, "Sub-operations complete, one or more failed or warned"),
    (CANNOT_UNDERSTAND, "Cannot understand"),
    (SYNTAX_NOT_SUPPORTED, "Cannot understand: the transfer syntax (PS3.18 table I.2-2 has the same number)"),
    (PROCESSING_FAILURE, "Processing failure (PS3.7 C.5.13)"),
    (DUPLICATE_INSTANCE, "Duplicate SOP instance (PS3.7 C.5.6): other content is stored under the UID"),
    (NO_SUCH_INSTANCE, "No such SOP instance (PS3.7 C.5.11)"),
    (INVALID_ARGUMENT, "Invalid argument value (PS3.7 C.5.10)"),
    (NO_SUCH_CLASS, "No such SOP class (PS3.7 C.5.12)"),
    (NO_SUCH_ACTION, "No such action type (PS3.7 C.5.9)"),
    (NOT_AUTHORISED, "Not authorised (PS3.7 C.5.17)"),
    (RESOURCE_LIMITATION, "Resource limitation (PS3.7 C.5.23)"),
    (INVALID_INSTANCE, "Invalid SOP instance (PS3.7 C.5.14)"),
    (INVALID_ATTRIBUTE, "Invalid attribute value (PS3.7 C.5.11)"),
    (MISSING_ATTRIBUTE, "Missing attribute (PS3.7 C.5.16)"),
    (CLASS_NOT_SUPPORTED, "SOP class not supported (PS3.7 C.5.20)"),
    (UNRECOGNISED_OPERATION, "Unrecognised operation (PS3.7 C.5.24)"),
    (MISTYPED_ARGUMENT, "Mistyped argument (PS3.7 C.5.15)"),
];

impl Status {
    /// A status with a comment, cut to 64 characters.
    pub fn new(code: u16, comment: impl AsRef<str>) -> Self {
        let comment = comment.as_ref().chars().filter(|char| *char != '\\').take(64).collect();
        Self { code, comment, offending: None }
    }

    /// The same, naming the element that is wrong.
    #[must_use]
    pub fn naming(self, tag: Tag) -> Self {
        Self { offending: Some(tag), ..self }
    }
}

impl From<&StoreError> for Status {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Invalid(invalid) => {
                let status = Self::new(CANNOT_UNDERSTAND, invalid.comment());
                invalid.place().tag.map_or(status.clone(), |tag| status.naming(tag))
            }
            StoreError::Mismatch { what } => Self::new(MISMATCH, format!("differs from the data set: {what}")),
            StoreError::StudyMismatch => Self::new(MISMATCH, "the instance belongs to another study"),
            StoreError::BadUid { tag, why } => Self::new(MISMATCH, format!("{tag} {why}")).naming(*tag),
            StoreError::TransferSyntax(why) => Self::new(SYNTAX_NOT_SUPPORTED, format!("the transfer syntax {why}")),
            StoreError::NoQuorum => Self::new(OUT_OF_RESOURCES, "no majority of nodes is up; send again later"),
            StoreError::Unknown => Self::new(OUT_OF_RESOURCES, "the outcome is not known; send again, it is harmless"),
            StoreError::Overloaded => Self::new(OUT_OF_RESOURCES, "busy; send again in some seconds"),
            StoreError::DiskFull => Self::new(OUT_OF_RESOURCES, "the disk is too full to admit images"),
            StoreError::Stopping => Self::new(OUT_OF_RESOURCES, "this node is stopping; send to another"),
            StoreError::OtherContent => {
                Self::new(DUPLICATE_INSTANCE, "other content is stored under this SOP Instance UID")
            }
            StoreError::Rejected => {
                Self::new(NOT_AUTHORISED, "a rejection note names it; have it restored, or use another UID")
            }
            StoreError::Refused { .. } => Self::new(PROCESSING_FAILURE, "the catalogue refused the instance"),
        }
    }
}

impl From<&QueryError> for Status {
    fn from(error: &QueryError) -> Self {
        match error {
            QueryError::Invalid { why } => Self::new(MISMATCH, why),
            QueryError::NoQuorum => {
                Self::new(OUT_OF_RESOURCES, "no majority of nodes is up; the answer could be stale")
            }
            QueryError::Starting => {
                Self::new(OUT_OF_RESOURCES, "this node has just started; ask again in some seconds")
            }
            QueryError::Failed(archive_service::CatalogError::BadKey(key)) => {
                Self::new(MISMATCH, key.to_string()).naming(key.tag)
            }
            QueryError::Failed(archive_service::CatalogError::TooManyHeaders { .. }) => {
                Self::new(OUT_OF_RESOURCES, "too many images to look into; add a date, Patient ID or UID")
            }
            QueryError::Failed(_) => Self::new(CANNOT_UNDERSTAND, "the catalogue failed; see the log of this node"),
            QueryError::Stopping => Self::new(OUT_OF_RESOURCES, "this node is stopping; ask another"),
        }
    }
}

impl From<&BadRequest> for Status {
    fn from(error: &BadRequest) -> Self {
        match error {
            BadRequest::Argument { tag, why } => Self::new(INVALID_ARGUMENT, format!("{tag} {why}")).naming(*tag),
            BadRequest::TooMany => {
                Self::new(RESOURCE_LIMITATION, "too many instances: ask for them in several requests")
            }
        }
    }
}

/// Why an N-ACTION was not recorded: ask again later, but for a list that is too long.
impl From<&RecordError> for Status {
    fn from(error: &RecordError) -> Self {
        match error {
            RecordError::TooLarge => {
                Self::new(RESOURCE_LIMITATION, "too many instances: ask for them in several requests")
            }
            RecordError::Conflict { .. } => {
                Self::new(PROCESSING_FAILURE, "the transaction was changed meanwhile; ask again")
            }
            RecordError::Store(error) => Self { code: RESOURCE_LIMITATION, ..Self::from(error) },
            RecordError::Query(error) => Self { code: RESOURCE_LIMITATION, ..Self::from(error) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_pass_are_told_apart_from_those_that_do_not() {
        let code = |error: StoreError| Status::from(&error).code;
        for later in [
            StoreError::NoQuorum,
            StoreError::Unknown,
            StoreError::Overloaded,
            StoreError::DiskFull,
            StoreError::Stopping,
        ] {
            assert_eq!(code(later), OUT_OF_RESOURCES);
        }
        assert_eq!(code(StoreError::Mismatch { what: "SOP Class UID (0008,0016)" }), MISMATCH);
        let syntax = archive_model::Uid::parse("implicit").map_err(StoreError::TransferSyntax);
        assert_eq!(syntax.map_err(code), Err(SYNTAX_NOT_SUPPORTED));
        assert_eq!(code(StoreError::OtherContent), DUPLICATE_INSTANCE);
        assert_eq!(code(StoreError::Rejected), NOT_AUTHORISED);
        assert_eq!(code(StoreError::Refused { why: String::new() }), PROCESSING_FAILURE);
    }

    #[test]
    fn a_query_that_is_too_wide_says_how_to_narrow_it() {
        let error = QueryError::Failed(archive_service::CatalogError::TooManyHeaders { max: 7 });
        let status = Status::from(&error);
        assert_eq!(status.code, OUT_OF_RESOURCES);
        assert!(status.comment.ends_with("Patient ID or UID"), "it is cut: {}", status.comment);
    }

    #[test]
    fn a_comment_fits_its_value_representation() {
        let status = Status::new(MISMATCH, "x\\".repeat(100));
        assert_eq!(status.comment, "x".repeat(64));
    }
}
