//! Attribute matching of PS3.4 C.2.2.2.
