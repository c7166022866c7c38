//! Small pictures that were made, the newest used first; bounded in bytes.

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};

/// Pictures by what they are of.
pub(crate) struct Kept {
    bytes_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    by_key: HashMap<String, (Bytes, u64)>,
    /// Keys by when they were used last.
    by_use: BTreeMap<u64, String>,
    uses: u64,
    bytes: usize,
}

impl Kept {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, inner: Mutex::default() }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Bytes> {
        let mut inner = self.inner.lock();
        let Inner { by_key, by_use, uses, .. } = &mut *inner;
        let (bytes, used) = by_key.get_mut(key)?;
        let name = by_use.remove(used)?;
        *uses += 1;
        *used = *uses;
        by_use.insert(*uses, name);
        Some(bytes.clone())
    }

    pub(crate) fn put(&self, key: String, picture: Bytes) {
        let mut inner = self.inner.lock();
        let Inner { by_key, by_use, uses, bytes } = &mut *inner;
        *uses += 1;
        *bytes += cost(&key, &picture);
        by_use.insert(*uses, key.clone());
        if let Some((before, used)) = by_key.insert(key.clone(), (picture, *uses)) {
            by_use.remove(&used);
            *bytes -= cost(&key, &before);
        }
        while *bytes > self.bytes_max {
            let Some((_, oldest)) = by_use.pop_first() else { return };
            if let Some((picture, _)) = by_key.remove(&oldest) {
                *bytes -= cost(&oldest, &picture);
            }
        }
    }
}

/// Bytes that a picture takes: with its key twice, and what maps need.
fn cost(key: &str, picture: &Bytes) -> usize {
    picture.len() + 2 * key.len() + 128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first_and_bytes_are_bounded() {
        let kept = Kept::new(3 * cost("a", &Bytes::from_static(&[0; 1000])));
        let put = |key: &str| kept.put(key.into(), Bytes::from(vec![0; 1000]));
        ["a", "b", "c"].into_iter().for_each(put);
        assert!(kept.get("a").is_some());
        put("d");
        assert_eq!(["a", "b", "c", "d"].map(|key| kept.get(key).is_some()), [true, false, true, true]);
        // Put again: counted once.
        put("d");
        put("d");
        assert_eq!(["a", "c", "d"].map(|key| kept.get(key).is_some()), [true, true, true]);
        assert_eq!(kept.inner.lock().bytes, kept.bytes_max);
        kept.put("e".into(), Bytes::from(vec![0; 100_000]));
        assert_eq!(kept.inner.lock().bytes, 0);
    }
}
