//! A command set that is read can be written, and is then read as the same.
#![no_main]
use archive_model::{Limits, read_command_set, write_command_set};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(set) = read_command_set(bytes, &Limits::default()) {
        let again = read_command_set(&write_command_set(&set), &Limits::default()).expect("what was written is read");
        assert_eq!(write_command_set(&again), write_command_set(&set));
    }
});
