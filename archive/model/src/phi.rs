//! A wrapper that keeps a patient's words out of logs.

use std::fmt;

/// Something of a patient: `Debug` and `Display` print `Phi(…)`, so that a log line or an error text is safe by default.
///
/// ```
/// assert_eq!(format!("{:?}", archive_model::Phi("DOE^JANE")), "Phi(…)");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Phi<T>(pub T);

impl<T> fmt::Debug for Phi<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phi(…)")
    }
}

impl<T> fmt::Display for Phi<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phi(…)")
    }
}

impl<T> From<T> for Phi<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}
