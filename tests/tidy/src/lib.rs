//! What the tree promises to its readers, as tests: arrows between crates, sizes of files, words that may not appear.
