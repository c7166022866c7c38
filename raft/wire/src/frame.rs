//! One frame: a fixed header, the lengths of the bodies, a small head, raw bodies.
//!
//! ```text
//!   offset size
//!        0    4  magic "TWR1"
//!        4    1  version of this layout, 1
//!        5    1  kind          1 Hello 2 HelloAnswer 3 Call 4 Answer 5 Refusal 6 Cancel
//!                              7 Open 8 Data 9 Credit 10 Finish 11 Stop 12 Beat
//!        6    1  class         0 Urgent 1 Bulk 2 Read
//!        7    1  flags, 0      a receiver ignores those it does not know
//!        8    2  method
//!       10    2  number of bodies n
//!       12    4  group
//!       16    8  id of the call or stream
//!       24    4  head length h
//!       28    4  body length b, of all bodies together
//!       32    4  CRC32C of the bodies
//!       36    4  CRC32C of bytes 0..36, the lengths and the head
//!       40   4n  length of each body; their sum is b
//!    40+4n    h  head
//!  40+4n+h    b  bodies
//! ```
//!
//! All numbers are little-endian. No length is believed before it was held against the limits, and none takes memory
//! before the receive budget granted it; frames of up to [`FREE_BYTES`] pass without asking, so that a full budget does
//! not stop votes.
//!
//! When changing the layout: 1. a new version byte, 2. read both, 3. golden bytes below, 4. `Hello::wire_versions`.

use bytes::{BufMut, Bytes, BytesMut};
use raft_types::{ByteBudget, BytePermit, Class, GroupId, Message};
use std::{io, time::Duration};
use tokio::io::{AsyncRead, AsyncReadExt};

pub(crate) const MAGIC: [u8; 4] = *b"TWR1";
pub(crate) const VERSION: u8 = 1;
pub(crate) const HEADER_BYTES: usize = 40;
/// Frames up to here take no permit: bounded by credits and by the number of calls instead.
pub(crate) const FREE_BYTES: usize = 64 << 10;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Who I am; opens a connection, and later asks again who the other is.
    Hello = 1,
    HelloAnswer = 2,
    Call = 3,
    Answer = 4,
    /// No to a hello, a call or a stream: head is code (2) and reason.
    Refusal = 5,
    /// The caller has given up.
    Cancel = 6,
    /// Opens a stream; what it carries is the first message.
    Open = 7,
    Data = 8,
    /// The receiver of a stream has consumed so many bytes (8).
    Credit = 9,
    /// The sender of this end of the stream is done.
    Finish = 10,
    /// The receiver of this end of the stream wants no more.
    Stop = 11,
    /// Nothing else was said for a while.
    Beat = 12,
}

impl Kind {
    const ALL: [Kind; 12] = [
        Kind::Hello,
        Kind::HelloAnswer,
        Kind::Call,
        Kind::Answer,
        Kind::Refusal,
        Kind::Cancel,
        Kind::Open,
        Kind::Data,
        Kind::Credit,
        Kind::Finish,
        Kind::Stop,
        Kind::Beat,
    ];
}

const CLASSES: [Class; 3] = [Class::Urgent, Class::Bulk, Class::Read];

/// The number of a class on the wire and in tables.
pub(crate) fn class_index(class: Class) -> usize {
    match class {
        Class::Urgent => 0,
        Class::Bulk => 1,
        Class::Read => 2,
    }
}

/// A frame as the rest of the crate sees it.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) class: Class,
    pub(crate) id: u64,
    pub(crate) message: Message,
}

/// The largest frames that are sent or read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) head_bytes_max: usize,
    pub(crate) body_bytes_max: usize,
    pub(crate) bodies_max: usize,
}

impl Limits {
    pub(crate) const FULL: Limits = Limits { head_bytes_max: 8 << 20, body_bytes_max: 8 << 20, bodies_max: 65_535 };
    /// Before the other end is known.
    pub(crate) const HANDSHAKE: Limits = Limits { head_bytes_max: 4 << 10, body_bytes_max: 0, bodies_max: 0 };

    /// Whether a message may be sent; if not, what is too much.
    pub(crate) fn check(&self, message: &Message) -> Result<(), String> {
        let (head, body) = (message.head.len(), message.body_bytes());
        if head > self.head_bytes_max || body > self.body_bytes_max || message.bodies.len() > self.bodies_max {
            return Err(format!("a head of {head} B with {} bodies of {body} B is too large", message.bodies.len()));
        }
        Ok(())
    }
}

/// Why a connection's bytes could not be read on. All of them close the connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("reading: {0}")]
    Io(#[from] io::Error),
    #[error("the other end closed the connection inside a frame")]
    Truncated,
    #[error("nothing was heard for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("what arrives is not this protocol")]
    NotOurs,
    #[error("frame layout {0} is not understood: upgrade this node")]
    Version(u8),
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
    #[error("a frame of head {head_bytes} B and body {body_bytes} B is too large")]
    TooLarge { head_bytes: usize, body_bytes: usize },
    #[error("{0} damaged on the way (CRC32C)")]
    Damaged(&'static str),
    #[error("no memory for a frame of {0} B in time: what arrived before is not consumed")]
    NoMemory(usize),
}

/// The bytes a frame takes on the wire; also what it costs in credits and budgets.
pub(crate) fn cost(message: &Message) -> u64 {
    (HEADER_BYTES + 4 * message.bodies.len() + message.head.len() + message.body_bytes()) as u64
}

/// The frame's pieces in order; heads and bodies are the sender's own bytes. The message was checked by [`Limits`].
pub(crate) fn encode(frame: &Frame) -> (BytesMut, Vec<Bytes>) {
    let Message { method, group, head, bodies } = &frame.message;
    let mut front = BytesMut::with_capacity(HEADER_BYTES + 4 * bodies.len());
    front.put_slice(&MAGIC);
    front.put_slice(&[VERSION, frame.kind as u8, class_index(frame.class) as u8, 0]);
    front.put_u16_le(*method);
    front.put_u16_le(bodies.len() as u16);
    front.put_u32_le(group.0);
    front.put_u64_le(frame.id);
    front.put_u32_le(head.len() as u32);
    front.put_u32_le(frame.message.body_bytes() as u32);
    front.put_u32_le(bodies.iter().fold(0, |crc, body| crc32c::crc32c_append(crc, body)));
    let header_crc = crc32c::crc32c(&front);
    let mut lengths = BytesMut::with_capacity(4 * bodies.len());
    bodies.iter().for_each(|body| lengths.put_u32_le(body.len() as u32));
    front.put_u32_le(crc32c::crc32c_append(crc32c::crc32c_append(header_crc, &lengths), head));
    front.put_slice(&lengths);
    let pieces = std::iter::once(head).chain(bodies).filter(|piece| !piece.is_empty()).cloned().collect();
    (front, pieces)
}

/// A header whose numbers were held against the limits.
#[derive(Debug)]
struct Header {
    kind: Kind,
    class: Class,
    method: u16,
    bodies: usize,
    group: GroupId,
    id: u64,
    head_bytes: usize,
    body_bytes: usize,
    body_crc: u32,
    front_crc: u32,
}

fn number<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut number = [0; N];
    number.copy_from_slice(&bytes[at..at + N]);
    number
}

fn header(bytes: &[u8; HEADER_BYTES], limits: &Limits) -> Result<Header, FrameError> {
    if number::<4>(bytes, 0) != MAGIC {
        return Err(FrameError::NotOurs);
    }
    if bytes[4] != VERSION {
        return Err(FrameError::Version(bytes[4]));
    }
    let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 == bytes[5]).ok_or(FrameError::Malformed("kind"))?;
    let class = *CLASSES.get(usize::from(bytes[6])).ok_or(FrameError::Malformed("class"))?;
    let header = Header {
        kind,
        class,
        method: u16::from_le_bytes(number(bytes, 8)),
        bodies: usize::from(u16::from_le_bytes(number(bytes, 10))),
        group: GroupId(u32::from_le_bytes(number(bytes, 12))),
        id: u64::from_le_bytes(number(bytes, 16)),
        head_bytes: u32::from_le_bytes(number(bytes, 24)) as usize,
        body_bytes: u32::from_le_bytes(number(bytes, 28)) as usize,
        body_crc: u32::from_le_bytes(number(bytes, 32)),
        front_crc: u32::from_le_bytes(number(bytes, 36)),
    };
    let Header { head_bytes, body_bytes, bodies, .. } = header;
    if head_bytes > limits.head_bytes_max || body_bytes > limits.body_bytes_max || bodies > limits.bodies_max {
        return Err(FrameError::TooLarge { head_bytes, body_bytes });
    }
    Ok(header)
}

/// The frame from its header and the bytes behind it.
fn assemble(head: &Header, front: &[u8], rest: Bytes) -> Result<Frame, FrameError> {
    let table_bytes = 4 * head.bodies;
    let (front_rest, body) = rest.split_at(table_bytes + head.head_bytes);
    if crc32c::crc32c_append(crc32c::crc32c(front), front_rest) != head.front_crc {
        return Err(FrameError::Damaged("header or head"));
    }
    if crc32c::crc32c(body) != head.body_crc {
        return Err(FrameError::Damaged("body"));
    }
    let mut at = front_rest.len();
    let mut bodies = Vec::with_capacity(head.bodies);
    for length in front_rest[..table_bytes].as_chunks::<4>().0 {
        let end = at + u32::from_le_bytes(*length) as usize;
        if end > rest.len() {
            return Err(FrameError::Malformed("the bodies are longer than the body"));
        }
        bodies.push(rest.slice(at..end));
        at = end;
    }
    if at != rest.len() {
        return Err(FrameError::Malformed("the body is longer than its bodies"));
    }
    let message =
        Message { method: head.method, group: head.group, head: rest.slice(table_bytes..front_rest.len()), bodies };
    Ok(Frame { kind: head.kind, class: head.class, id: head.id, message })
}

/// Received bytes and the permit for them, given back when the last slice is dropped.
struct Held {
    bytes: BytesMut,
    _permit: BytePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads frames from one connection.
pub(crate) struct Source<R> {
    pub(crate) reader: R,
    pub(crate) limits: Limits,
    /// Memory for large frames, of the whole node.
    pub(crate) budget: ByteBudget,
    /// How long to wait for that memory before giving the connection up.
    pub(crate) memory_wait: Duration,
    /// How long the other end may say nothing.
    pub(crate) silence_max: Duration,
    /// Told whenever bytes arrive.
    pub(crate) heard: Box<dyn Fn(usize) + Send + Sync>,
}

impl<R: AsyncRead + Unpin> Source<R> {
    /// The next frame; `None` when the other end closed the connection between frames.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let mut front = BytesMut::with_capacity(HEADER_BYTES);
        if !self.fill(&mut front, HEADER_BYTES).await? {
            return if front.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
        }
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(&front);
        let header = header(&bytes, &self.limits)?;
        let length = 4 * header.bodies + header.head_bytes + header.body_bytes;
        let permit = match length {
            0..=FREE_BYTES => None,
            _ => {
                let permit = tokio::time::timeout(self.memory_wait, self.budget.acquire(length as u64)).await;
                Some(permit.map_err(|_| FrameError::NoMemory(length))?)
            }
        };
        let mut rest = BytesMut::with_capacity(length);
        if !self.fill(&mut rest, length).await? {
            return Err(FrameError::Truncated);
        }
        let rest = match permit {
            None => rest.freeze(),
            Some(permit) => Bytes::from_owner(Held { bytes: rest, _permit: permit }),
        };
        assemble(&header, &bytes[..36], rest).map(Some)
    }

    /// Reads until `buffer` has `length` bytes; false if the connection ended before.
    async fn fill(&mut self, buffer: &mut BytesMut, length: usize) -> Result<bool, FrameError> {
        while buffer.len() < length {
            let missing = length - buffer.len();
            let mut room = (&mut *buffer).limit(missing);
            let read = tokio::time::timeout(self.silence_max, self.reader.read_buf(&mut room)).await;
            match read.map_err(|_| FrameError::Silent(self.silence_max))?? {
                0 => return Ok(false),
                count => (self.heard)(count),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn source(bytes: &[u8], limits: Limits) -> Source<&[u8]> {
        Source {
            reader: bytes,
            limits,
            budget: ByteBudget::new(1 << 20),
            memory_wait: Duration::from_millis(20),
            silence_max: Duration::from_secs(1),
            heard: Box::new(|_| {}),
        }
    }

    fn flat(frame: &Frame) -> Vec<u8> {
        let (front, pieces) = encode(frame);
        front.into_iter().chain(pieces.into_iter().flatten()).collect()
    }

    fn read(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(source(bytes, Limits::FULL).next())
    }

    fn frame(kind: Kind, class: Class, id: u64, head: &'static [u8], bodies: &[&'static [u8]]) -> Frame {
        let bodies = bodies.iter().map(|body| Bytes::from_static(body)).collect();
        let message = Message { method: 0x0102, group: GroupId(0x0304_0506), head: Bytes::from_static(head), bodies };
        Frame { kind, class, id, message }
    }

    #[test]
    fn the_bytes_of_version_1_never_change() {
        let call = frame(Kind::Call, Class::Bulk, 0x0708_090a_0b0c_0d0e, b"head", &[b"body one", b"", b"two"]);
        assert_eq!(flat(&call), include_bytes!("../golden/call-v1.bin"));
        let beat = Frame { kind: Kind::Beat, class: Class::Urgent, id: 0, message: Message::default() };
        assert_eq!(flat(&beat), include_bytes!("../golden/beat-v1.bin"));
    }

    #[test]
    fn crc32c_is_the_castagnoli_polynomial() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283); // RFC 3720 B.4 and the catalogue's check value
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let bytes = flat(&frame(Kind::Call, Class::Bulk, 7, b"head", &[b"body one", b"two"]));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_truncated_and_nothing_at_all_is_the_end() {
        let bytes = flat(&frame(Kind::Data, Class::Read, 7, b"head", &[b"body"]));
        assert!(matches!(read(&[]), Ok(None)));
        for length in 1..bytes.len() {
            assert!(matches!(read(&bytes[..length]), Err(FrameError::Truncated)), "{length}");
        }
    }

    #[test]
    fn declared_lengths_above_the_limit_are_refused_before_memory_is_taken() {
        let mut bytes = flat(&frame(Kind::Data, Class::Read, 7, b"", &[]));
        bytes[28..32].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(read(&bytes), Err(FrameError::TooLarge { body_bytes: 0xffff_ffff, .. })));
        bytes[28..32].fill(0);
        bytes[24..28].copy_from_slice(&(9_u32 << 20).to_le_bytes());
        assert!(matches!(read(&bytes), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn large_frames_wait_for_memory_and_give_it_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut large = frame(Kind::Data, Class::Bulk, 7, b"", &[]);
        large.message.bodies = vec![Bytes::from(vec![1; 1 << 20])];
        let bytes = [flat(&large), flat(&large)].concat();
        runtime.block_on(async {
            let mut source = source(&bytes, Limits::FULL);
            let first = source.next().await.unwrap().unwrap();
            assert_eq!(source.budget.used(), 1 << 20);
            let body = first.message.bodies[0].slice(5..6);
            drop(first);
            assert!(matches!(source.next().await, Err(FrameError::NoMemory(_))), "a slice still holds it");
            drop(body);
            assert_eq!(source.budget.used(), 0);
        });
    }

    proptest! {
        #[test]
        fn frames_come_back_as_they_were_sent(
            kind in 0..12_usize, class in 0..3_usize, id: u64, method: u16, group: u32,
            head in proptest::collection::vec(any::<u8>(), 0..300),
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..5),
        ) {
            let message = Message {
                method, group: GroupId(group), head: head.into(), bodies: bodies.into_iter().map(Bytes::from).collect(),
            };
            let sent = Frame { kind: Kind::ALL[kind], class: CLASSES[class], id, message };
            let bytes = flat(&sent);
            prop_assert_eq!(bytes.len() as u64, cost(&sent.message));
            let got = read(&bytes).unwrap().unwrap();
            prop_assert_eq!((got.kind, got.class, got.id), (sent.kind, sent.class, sent.id));
            prop_assert_eq!((got.message.method, got.message.group), (sent.message.method, sent.message.group));
            prop_assert_eq!((got.message.head, got.message.bodies), (sent.message.head, sent.message.bodies));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let _ = read(&[&MAGIC[..], &[VERSION], &bytes].concat());
        }
    }
}
