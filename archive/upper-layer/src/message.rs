//! DIMSE messages from fragments (PS3.7 §6.3, PS3.8 Annex E): a command set, gathered; then a data set, handed on
//! piece by piece. Fragments of two messages never mix.

use crate::frame::Pdv;
use bytes::Bytes;

/// Bytes of a command set, at most.
pub const COMMAND_BYTES_MAX: usize = 64 << 10;

/// What a fragment brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The command set is whole.
    Command {
        /// Presentation context.
        context: u8,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A piece of the data set.
    Data {
        /// Presentation context.
        context: u8,
        /// Its bytes.
        bytes: Bytes,
        /// Whether the data set is whole now.
        last: bool,
    },
}

/// Fragments that make no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// A command set of more than 64 KiB.
    #[error("a command set exceeds {COMMAND_BYTES_MAX} bytes")]
    CommandTooLong,
    /// A fragment of another message, or of another context, in between.
    #[error("fragments of two messages are mixed")]
    Mixed,
}

/// Puts messages together.
#[derive(Debug, Default)]
pub struct Assembler {
    command: Vec<u8>,
    stage: Stage,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A command set must begin.
    #[default]
    Between,
    /// In a command set of this context.
    Command(u8),
    /// In a data set of this context.
    Data(u8),
}

impl Assembler {
    /// Takes the next fragment.
    ///
    /// # Errors
    /// When it does not go on with the message that has begun.
    pub fn push(&mut self, pdv: Pdv) -> Result<Option<Piece>, BadMessage> {
        let Pdv { context, command, last, bytes } = pdv;
        match (self.stage, command) {
            (Stage::Between, true) => {}
            (Stage::Command(own), true) | (Stage::Data(own), false) if own == context => {}
            _ => return Err(BadMessage::Mixed),
        }
        if !command {
            if last {
                self.stage = Stage::Between;
            }
            return Ok(Some(Piece::Data { context, bytes, last }));
        }
        if self.command.len() + bytes.len() > COMMAND_BYTES_MAX {
            return Err(BadMessage::CommandTooLong);
        }
        if !last {
            self.command.extend_from_slice(&bytes);
            self.stage = Stage::Command(context);
            return Ok(None);
        }
        self.stage = Stage::Between;
        let bytes = if self.command.is_empty() {
            bytes
        } else {
            self.command.extend_from_slice(&bytes);
            std::mem::take(&mut self.command).into()
        };
        Ok(Some(Piece::Command { context, bytes }))
    }

    /// The command says that a data set follows in `context`.
    pub fn expect_data(&mut self, context: u8) {
        self.stage = Stage::Data(context);
    }

    /// Whether a message has begun and not ended.
    #[must_use]
    pub fn inside(&self) -> bool {
        self.stage != Stage::Between
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pdv(context: u8, command: bool, last: bool, bytes: &'static [u8]) -> Pdv {
        Pdv { context, command, last, bytes: Bytes::from_static(bytes) }
    }

    #[test]
    fn a_command_in_fragments_and_its_data_in_pieces() {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.push(pdv(1, true, false, b"ab")), Ok(None));
        let command = Piece::Command { context: 1, bytes: Bytes::from_static(b"abc") };
        assert_eq!(assembler.push(pdv(1, true, true, b"c")), Ok(Some(command)));
        assembler.expect_data(1);
        assert!(matches!(assembler.push(pdv(1, false, false, b"x")), Ok(Some(Piece::Data { last: false, .. }))));
        assert!(assembler.inside());
        assert!(matches!(assembler.push(pdv(1, false, true, b"")), Ok(Some(Piece::Data { last: true, .. }))));
        assert!(!assembler.inside());
    }

    #[test]
    fn mixed_fragments_and_endless_commands_are_refused() {
        assert_eq!(Assembler::default().push(pdv(1, false, true, b"x")), Err(BadMessage::Mixed));
        let mut assembler = Assembler::default();
        assert_eq!(assembler.push(pdv(1, true, false, b"ab")), Ok(None));
        assert_eq!(assembler.push(pdv(3, true, true, b"ab")), Err(BadMessage::Mixed));
        let mut assembler = Assembler::default();
        assembler.expect_data(1);
        assert_eq!(assembler.push(pdv(1, true, true, b"")), Err(BadMessage::Mixed));
        let mut assembler = Assembler::default();
        let long: &'static [u8] = &[0; COMMAND_BYTES_MAX];
        assert_eq!(assembler.push(pdv(1, true, false, long)), Ok(None));
        assert_eq!(assembler.push(pdv(1, true, false, b"x")), Err(BadMessage::CommandTooLong));
    }
}
