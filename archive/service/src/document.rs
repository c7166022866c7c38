//! Encapsulated documents: PDF, CDA and models, as themselves (PS3.3 §C.24.2).

use crate::{Archive, InstanceRow, RenderError, convert::lenient};
use archive_model::{Scanner, Value, tags, transfer_syntax};
use bytes::Bytes;
use std::ops::Range;

/// Storage classes of encapsulated documents.
const CLASSES: [&str; 5] = [
    "1.2.840.10008.5.1.4.1.1.104.1",
    "1.2.840.10008.5.1.4.1.1.104.2",
    "1.2.840.10008.5.1.4.1.1.104.3",
    "1.2.840.10008.5.1.4.1.1.104.4",
    "1.2.840.10008.5.1.4.1.1.104.5",
];

/// Media types that are passed on, and how files of them are called; any other is bytes.
const TYPES: [(&str, &str); 5] =
    [("application/pdf", "pdf"), ("text/xml", "xml"), ("model/stl", "stl"), ("model/obj", "obj"), ("model/mtl", "mtl")];

/// A document in an instance.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its media type.
    pub media_type: &'static str,
    /// How files of it are called, behind the dot.
    pub ending: &'static str,
    /// Its bytes.
    pub body: DocumentBody,
}

/// Where the bytes of a document are.
#[derive(Debug, Clone)]
pub enum DocumentBody {
    /// Here.
    Bytes(Bytes),
    /// In the data set, inflated if it is stored deflated.
    Place(Range<u64>),
}

/// Whether an instance is an encapsulated document.
#[must_use]
pub fn is_document(row: &InstanceRow) -> bool {
    CLASSES.contains(&row.sop_class.as_str())
}

impl Archive {
    /// The document that an instance is.
    ///
    /// # Errors
    /// `None` when there is none in it.
    pub async fn document(&self, row: &InstanceRow) -> Result<Document, RenderError> {
        const ABSENT: RenderError = RenderError::None("there is no document in it");
        let mut scanner = Scanner::new(&transfer_syntax(&row.transfer_syntax), &lenient());
        let mut reading = self.read(row, 0..row.length_bytes);
        while let Some(piece) = reading.next().await {
            scanner.push(&piece?).map_err(|_| ABSENT)?;
        }
        let header = scanner.finish().map_err(|_| ABSENT)?.header;
        let said =
            header.text(tags::MIME_TYPE_OF_ENCAPSULATED_DOCUMENT).unwrap_or_default().trim().to_ascii_lowercase();
        let known = TYPES.into_iter().find(|(media_type, _)| *media_type == said);
        let (media_type, ending) = known.unwrap_or(("application/octet-stream", "bin"));
        // Without the byte that fills it up.
        let length = header.integer(tags::ENCAPSULATED_DOCUMENT_LENGTH).and_then(|length| u64::try_from(length).ok());
        let length = |whole: u64| length.filter(|length| *length <= whole).unwrap_or(whole);
        let body = match header.get(tags::ENCAPSULATED_DOCUMENT).map(|element| &element.value) {
            Some(Value::Bytes(bytes)) => DocumentBody::Bytes(bytes.slice(..length(bytes.len() as u64) as usize)),
            Some(Value::Bulk { offset, length: whole }) => DocumentBody::Place(*offset..*offset + length(*whole)),
            _ => return Err(ABSENT),
        };
        Ok(Document { media_type, ending, body })
    }
}
