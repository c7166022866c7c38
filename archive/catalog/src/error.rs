//! Failures of the catalogue; a refused command is an outcome and not here.

/// Why the catalogue did not answer.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// SQLite failed: the disk, or the file.
    #[error("{step}: {source}")]
    Sql {
        /// What was being done.
        step: &'static str,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// Written by a newer release.
    #[error("the catalogue has schema {found}, this release knows {newest}: upgrade this node")]
    Newer {
        /// The schema found.
        found: i64,
        /// The newest known.
        newest: i64,
    },
    /// A stored value is not what this release writes.
    #[error(
        "the catalogue is damaged: {0}; move catalog/ away while the node is stopped, and it is rebuilt from the log"
    )]
    Damaged(String),
    /// The folder cannot be used.
    #[error("the folder of the catalogue cannot be used: {0}")]
    Folder(#[from] std::io::Error),
    /// A query that would have to look into too many images.
    #[error(
        "the query asks for an attribute that is not in the index, and more than {max} images would have to be looked \
         into: narrow it by Study Date, Patient ID, Accession Number or a UID, add an index with `triptych index add`, or \
         raise --query-headers"
    )]
    TooManyHeaders {
        /// How many a query may look into.
        max: u64,
    },
    /// A key that means nothing.
    #[error(transparent)]
    BadKey(#[from] archive_model::matching::BadPattern),
}

impl CatalogError {
    /// Whether the disk has no room.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Sql { source, .. } if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull))
    }
}

/// Names the step that failed.
pub(crate) trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, CatalogError>;
}

impl<T> Step<T> for rusqlite::Result<T> {
    fn step(self, step: &'static str) -> Result<T, CatalogError> {
        self.map_err(|source| CatalogError::Sql { step, source })
    }
}
