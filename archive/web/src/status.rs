//! Outcomes as HTTP statuses and as failure reasons of STOW (PS3.18 §10.5.3, table 10.5.3-1). Each error is a text that
//! says what to do; none says a value that was sent.

use archive_model::Invalid;
use archive_service::{CatalogError, ConvertError, QueryError, ReadError, RecordError, StoreError};
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

/// Seconds after which a client may try again what failed for want of a majority or of memory.
const RETRY_AFTER_SECONDS: u32 = 5;

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) what: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, what: impl Into<String>) -> Self {
        Self { status, what: what.into() }
    }

    pub(crate) fn bad(what: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, what)
    }

    pub(crate) fn unknown(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{what} is not here: look for it with GET /dicom-web/studies"))
    }

    pub(crate) fn not_acceptable(offered: &str) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, format!("this can be had as {offered}: accept that, or */*"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, format!("{}\n", self.what)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        response
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let status = match &error {
            QueryError::Invalid { .. } => StatusCode::BAD_REQUEST,
            QueryError::NoQuorum | QueryError::Starting | QueryError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            QueryError::Failed(cause @ CatalogError::TooManyHeaders { .. }) => {
                return Self::new(StatusCode::PAYLOAD_TOO_LARGE, cause.to_string());
            }
            QueryError::Failed(cause) => {
                tracing::error!(%cause, "read the catalogue for a request");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(status, error.to_string())
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        let status = match &error {
            ReadError::NoQuorum { .. } | ReadError::Absent { .. } | ReadError::Stopped => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ReadError::Damaged { .. } | ReadError::OutOfRange { .. } => {
                tracing::error!(%error, "read an image for a request");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(status, format!("{error}; try again, or ask another node"))
    }
}

impl From<RecordError> for Problem {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Conflict { .. } => Self::new(StatusCode::CONFLICT, error.to_string()),
            RecordError::TooLarge => Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            RecordError::Store(error) => Self::new(refusal(&error).status, error.to_string()),
            RecordError::Query(error) => error.into(),
        }
    }
}

impl From<ConvertError> for Problem {
    fn from(error: ConvertError) -> Self {
        match error {
            ConvertError::Read(error) => error.into(),
            ConvertError::Look(error) => error.into(),
            ConvertError::Never { .. }
            | ConvertError::Recode(_)
            | ConvertError::Image(_)
            | ConvertError::Coerce(_)
            | ConvertError::Frame { .. } => Self::new(
                StatusCode::NOT_ACCEPTABLE,
                format!("{error}; have it as it was stored, with ?as=received, or by C-GET"),
            ),
        }
    }
}

/// How an instance that was not stored is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Failure Reason (0008,1197).
    pub(crate) reason: u16,
    /// The status when this is the only outcome of the request.
    pub(crate) status: StatusCode,
}

/// Out of resources (A700).
const RESOURCES: u16 = 42752;
/// The data set does not match the SOP class (A900).
const MISMATCH: u16 = 43264;
/// The instance is of another study than the target (A901, PS3.18 table I.2-2).
const STUDY_MISMATCH: u16 = 43265;
/// Cannot understand (C000).
const NOT_UNDERSTOOD: u16 = 49152;
/// The transfer syntax is not supported (C122).
const SYNTAX: u16 = 49442;
/// Duplicate SOP instance (0111).
const DUPLICATE: u16 = 273;
/// Not authorised (0124): a rejection note names it.
const NOT_AUTHORISED: u16 = 292;
/// Processing failure (0110).
const PROCESSING: u16 = 272;

/// A part of a media type that is no DICOM file.
pub(crate) const NOT_DICOM: Refusal = Refusal { reason: NOT_UNDERSTOOD, status: StatusCode::UNSUPPORTED_MEDIA_TYPE };

/// Bulk values that the metadata names did not come.
pub(crate) const INCOMPLETE: Refusal = Refusal { reason: NOT_UNDERSTOOD, status: StatusCode::CONFLICT };

/// The table of refusals.
pub(crate) fn refusal(error: &StoreError) -> Refusal {
    let (reason, status) = match error {
        StoreError::Invalid(Invalid::TooLarge { .. } | Invalid::TooMany { .. }) => {
            (NOT_UNDERSTOOD, StatusCode::PAYLOAD_TOO_LARGE)
        }
        StoreError::Invalid(_) | StoreError::BadUid { .. } => (NOT_UNDERSTOOD, StatusCode::CONFLICT),
        StoreError::TransferSyntax(_) => (SYNTAX, StatusCode::CONFLICT),
        StoreError::Mismatch { .. } => (MISMATCH, StatusCode::CONFLICT),
        StoreError::StudyMismatch => (STUDY_MISMATCH, StatusCode::CONFLICT),
        // Also when the outcome is not known: sending it again is right, and harmless.
        StoreError::NoQuorum
        | StoreError::Unknown
        | StoreError::Overloaded
        | StoreError::DiskFull
        | StoreError::Stopping => (RESOURCES, StatusCode::SERVICE_UNAVAILABLE),
        StoreError::OtherContent => (DUPLICATE, StatusCode::CONFLICT),
        StoreError::Rejected => (NOT_AUTHORISED, StatusCode::CONFLICT),
        StoreError::Refused { .. } => (PROCESSING, StatusCode::CONFLICT),
    };
    Refusal { reason, status }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_that_is_not_known_is_worth_another_try() {
        assert_eq!(refusal(&StoreError::Unknown).status, StatusCode::SERVICE_UNAVAILABLE);
        let syntax = archive_model::Uid::parse("implicit").map_err(StoreError::TransferSyntax);
        assert_eq!(syntax.map_err(|error| refusal(&error).reason), Err(49442));
        assert_eq!(refusal(&StoreError::StudyMismatch), Refusal { reason: 43265, status: StatusCode::CONFLICT });
        let response = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "later").into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
    }
}
