//! A data set as a value: what identifiers, headers and answers are made of. Pixel data never enters it.

use bytes::Bytes;
use dicom_core::{Tag, VR};

/// Elements in ascending tag order, each tag once (PS3.5 §7.1).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DataSet {
    elements: Vec<Element>,
}

/// One element.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    /// Its tag.
    pub tag: Tag,
    /// Its value representation, as sent or from the dictionary.
    pub vr: VR,
    /// Its value.
    pub value: Value,
}

/// The value of an element, decoded.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// Zero length.
    Empty,
    /// Text in UTF-8, one string a value, padding removed. LT, ST, UT and UR are always one value.
    Text(Vec<String>),
    /// US, SS, UL, SL, SV, UV.
    Integers(Vec<i128>),
    /// FL, FD.
    Floats(Vec<f64>),
    /// AT.
    Tags(Vec<Tag>),
    /// OB, OD, OF, OL, OV, OW, UN.
    Bytes(Bytes),
    /// A value left in the body: where it lies within the data set's bytes.
    Bulk {
        /// Offset of the value's first byte.
        offset: u64,
        /// Length in bytes; for encapsulated pixel data, of all items including their headers and the delimiter.
        length: u64,
    },
    /// A sequence.
    Items(Vec<DataSet>),
}

impl std::fmt::Debug for Value {
    /// Never the text: it may be a patient's.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Text(values) => write!(f, "Text({} values)", values.len()),
            Self::Integers(values) => f.debug_tuple("Integers").field(&values.len()).finish(),
            Self::Floats(values) => f.debug_tuple("Floats").field(&values.len()).finish(),
            Self::Tags(values) => f.debug_tuple("Tags").field(values).finish(),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Bulk { offset, length } => write!(f, "Bulk({offset}+{length})"),
            Self::Items(items) => f.debug_tuple("Items").field(items).finish(),
        }
    }
}

impl DataSet {
    /// No elements.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The element with `tag`.
    #[must_use]
    pub fn get(&self, tag: Tag) -> Option<&Element> {
        self.position(tag).ok().map(|at| &self.elements[at])
    }

    /// The first text value of `tag`, if it has one.
    #[must_use]
    pub fn text(&self, tag: Tag) -> Option<&str> {
        self.texts(tag).first().map(String::as_str)
    }

    /// All text values of `tag`.
    #[must_use]
    pub fn texts(&self, tag: Tag) -> &[String] {
        match self.get(tag).map(|element| &element.value) {
            Some(Value::Text(values)) => values,
            _ => &[],
        }
    }

    /// The first integer of `tag`: of a binary number, or of a text that is one (IS).
    #[must_use]
    pub fn integer(&self, tag: Tag) -> Option<i128> {
        match self.get(tag).map(|element| &element.value) {
            Some(Value::Integers(values)) => values.first().copied(),
            Some(Value::Text(values)) => values.first()?.trim().parse().ok(),
            _ => None,
        }
    }

    /// The items of the sequence `tag`.
    #[must_use]
    pub fn items(&self, tag: Tag) -> &[DataSet] {
        match self.get(tag).map(|element| &element.value) {
            Some(Value::Items(items)) => items,
            _ => &[],
        }
    }

    /// Adds an element, or replaces the one with its tag.
    pub fn put(&mut self, element: Element) {
        match self.position(element.tag) {
            Ok(at) => self.elements[at] = element,
            Err(at) => self.elements.insert(at, element),
        }
    }

    /// Adds one text value; empty text is an empty element.
    pub fn put_text(&mut self, tag: Tag, vr: VR, text: impl Into<String>) {
        let text = text.into();
        let value = if text.is_empty() { Value::Empty } else { Value::Text(vec![text]) };
        self.put(Element { tag, vr, value });
    }

    /// Takes the element with `tag` out.
    pub fn remove(&mut self, tag: Tag) -> Option<Element> {
        self.position(tag).ok().map(|at| self.elements.remove(at))
    }

    /// All elements in tag order.
    pub fn iter(&self) -> std::slice::Iter<'_, Element> {
        self.elements.iter()
    }

    /// All elements, for changes that keep their tags.
    pub(crate) fn elements_mut(&mut self) -> impl Iterator<Item = &mut Element> {
        self.elements.iter_mut()
    }

    /// Adds elements that came out of order, all at once: one by one would take quadratic time. An element whose tag
    /// is there already is dropped. Returns how many were.
    pub(crate) fn merge(&mut self, late: Vec<Element>) -> usize {
        if late.is_empty() {
            return 0;
        }
        let before = self.elements.len() + late.len();
        self.elements.extend(late);
        // Stable: the first to come stays first.
        self.elements.sort_by_key(|element| element.tag);
        self.elements.dedup_by_key(|element| element.tag);
        before - self.elements.len()
    }

    /// Gives back memory that was taken for elements that did not come.
    pub(crate) fn shrink_to_fit(&mut self) {
        self.elements.shrink_to_fit();
    }

    /// How many elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// In tag order almost always: the newest element is the greatest.
    fn position(&self, tag: Tag) -> Result<usize, usize> {
        match self.elements.last() {
            Some(last) if last.tag < tag => Err(self.elements.len()),
            _ => self.elements.binary_search_by_key(&tag, |element| element.tag),
        }
    }
}

impl<'a> IntoIterator for &'a DataSet {
    type Item = &'a Element;
    type IntoIter = std::slice::Iter<'a, Element>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for DataSet {
    type Item = Element;
    type IntoIter = std::vec::IntoIter<Element>;

    fn into_iter(self) -> Self::IntoIter {
        self.elements.into_iter()
    }
}

impl FromIterator<Element> for DataSet {
    fn from_iter<T: IntoIterator<Item = Element>>(elements: T) -> Self {
        let mut set = Self::new();
        elements.into_iter().for_each(|element| set.put(element));
        set
    }
}
