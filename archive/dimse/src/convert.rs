//! Between the uncompressed encodings: for a requestor that does not take the one an instance is stored in.
//!
//! Only for objects that fit into memory; compressed pixel data is never touched, and nothing stored ever is.

use archive_model::{Encoding, Limits, read_data_set, transfer_syntax, write_data_set};

/// Bytes of an object that is converted, at most.
pub(crate) const CONVERT_BYTES_MAX: u64 = 64 << 20;

/// Whether an object in `from` can be written in `to`.
pub(crate) fn can_convert(from: &str, to: &str, length_bytes: u64) -> bool {
    let (from, to) = (transfer_syntax(from), transfer_syntax(to));
    let plain = |syntax: &archive_model::TransferSyntax| syntax.is_known() && !syntax.encapsulated;
    plain(&from)
        && plain(&to)
        && !to.deflated
        && to.encoding != Encoding::ExplicitBe
        && length_bytes <= CONVERT_BYTES_MAX
}

/// The data set in the encoding of `to`. Blocking; the pixels stay what they were, the encoding of elements changes.
pub(crate) fn convert(bytes: &[u8], from: &str, to: &str) -> Result<Vec<u8>, String> {
    let set = read_data_set(bytes, &transfer_syntax(from), &Limits::default()).map_err(|error| error.to_string())?;
    Ok(write_data_set(&set, transfer_syntax(to).encoding))
}

#[cfg(test)]
mod tests {
    use super::*;
    use archive_model::{DataSet, Element, VR, Value, tags};

    const IMPLICIT: &str = "1.2.840.10008.1.2";
    const EXPLICIT: &str = "1.2.840.10008.1.2.1";
    const BIG: &str = "1.2.840.10008.1.2.2";

    #[test]
    fn implicit_and_big_endian_become_explicit_little_endian_with_the_same_values() {
        let mut set = DataSet::new();
        set.put_text(tags::SOP_CLASS_UID, VR::UI, "1.2.3");
        set.put(Element { tag: tags::ROWS, vr: VR::US, value: Value::Integers(vec![2]) });
        set.put(Element { tag: tags::PIXEL_DATA, vr: VR::OW, value: Value::Bytes(vec![1, 0, 2, 0].into()) });
        let expected = write_data_set(&set, Encoding::ExplicitLe);
        for (from, encoding) in [(IMPLICIT, Encoding::ImplicitLe), (BIG, Encoding::ExplicitBe)] {
            assert_eq!(convert(&write_data_set(&set, encoding), from, EXPLICIT).expect("plain"), expected, "{from}");
        }
        assert!(!can_convert("1.2.840.10008.1.2.4.70", EXPLICIT, 10), "compressed");
        assert!(!can_convert(EXPLICIT, "1.2.840.10008.1.2.4.70", 10));
        assert!(!can_convert(IMPLICIT, EXPLICIT, CONVERT_BYTES_MAX + 1));
    }
}
