//! Small data sets at once: identifiers, command sets, meta headers. The same bounded machine as the pre-validator's.

use crate::scanner::{Coding, Machine, Purpose};
use crate::{DataSet, Encoding, Invalid, Limits, TransferSyntax};

/// Reads a data set whose values are all kept. A command set is read with Implicit VR Little Endian (PS3.7 §6.3.1).
///
/// # Errors
/// When the bytes are no data set, or exceed a limit.
pub fn read_data_set(bytes: &[u8], syntax: &TransferSyntax, limits: &Limits) -> Result<DataSet, Invalid> {
    // What is kept is bounded by the bytes there are, and by `header_bytes_max`.
    let limits = Limits { bulk_bytes_min: u64::MAX, text_bulk_bytes_min: u64::MAX, ..limits.clone() };
    let mut machine = Machine::new(Coding::of(syntax.encoding), &limits, Purpose::Small);
    if syntax.deflated {
        let mut inflater = crate::scanner::Inflater::new(&limits);
        inflater.push(bytes, &mut machine)?;
        inflater.finish()?;
    } else {
        machine.feed(bytes)?;
    }
    machine.finish()
}

/// Reads a command set, group length included.
///
/// # Errors
/// When the bytes are no command set, or exceed a limit.
pub fn read_command_set(bytes: &[u8], limits: &Limits) -> Result<DataSet, Invalid> {
    let limits = Limits { bulk_bytes_min: u64::MAX, text_bulk_bytes_min: u64::MAX, ..limits.clone() };
    let mut machine = Machine::new(Coding::of(Encoding::ImplicitLe), &limits, Purpose::Small);
    machine.feed(bytes)?;
    machine.finish()
}
