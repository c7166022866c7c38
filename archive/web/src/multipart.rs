//! multipart/related, read in pieces and written in pieces (RFC 2046 §5.1.1, RFC 2387). No socket, no clock.
//!
//! ```text
//!   --B CRLF | headers CRLF | CRLF | data | CRLF --B CRLF | headers … | data | CRLF --B-- CRLF
//!              └──── Event::Part ──┘ └ Event::Data … ┘ └ Event::PartEnd       └ Event::End
//! ```
//!
//! Invariants
//! - M-1 Nothing is held but headers (at most 16 KiB) and a tail that could be the beginning of a delimiter.
//! - M-2 However the body is cut into pieces, the events say the same bytes.
//! - M-3 A delimiter that is followed by anything but white space or `--` is data.

use bytes::{Bytes, BytesMut};

/// Characters of a boundary (RFC 2046 §5.1.1).
pub(crate) const BOUNDARY_MAX: usize = 70;
/// Headers of one part; real ones have three lines.
const HEADERS_BYTES_MAX: usize = 16 << 10;
/// What stands before the first delimiter; real bodies have nothing there.
const PREAMBLE_BYTES_MAX: usize = 64 << 10;

/// What a body says next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A part begins; its headers, names in lower case.
    Part(PartHead),
    /// Bytes of it.
    Data(Bytes),
    /// It is complete.
    PartEnd,
    /// No more parts.
    End,
    /// Push more bytes, or say that there are none.
    More,
}

/// The headers of a part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PartHead {
    headers: Vec<(String, String)>,
}

impl PartHead {
    /// The value of the header `name`, given in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A body that is no multipart body. Each variant is another thing to repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadMultipart {
    #[error("the Content-Type has no boundary: add boundary=… to it")]
    NoBoundary,
    #[error("the boundary is empty or longer than 70 characters (RFC 2046 §5.1.1): choose another")]
    Boundary,
    #[error("the body has no part: begin it with the boundary of the Content-Type")]
    NoPart,
    #[error("the headers of a part exceed 16 KiB or are no text: send Content-Type only")]
    Headers,
    #[error("more than {max} parts: send them in several requests")]
    TooMany { max: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Preamble,
    Headers,
    Data,
    Done,
}

/// Reads a body.
#[derive(Debug)]
pub(crate) struct Splitter {
    /// CRLF, two hyphens, the boundary.
    delimiter: Vec<u8>,
    /// How far the search may go on when the window's last byte is this one (Horspool).
    skips: Box<[usize; 256]>,
    held: BytesMut,
    state: State,
    complete: bool,
    passed_bytes: usize,
    parts: usize,
    parts_max: usize,
}

enum Found {
    /// At this offset, and the next part's headers begin at that one.
    Part(usize, usize),
    /// The last delimiter, at this offset.
    Last(usize),
    /// Not in the bytes up to this offset; what follows could be the beginning of one.
    Not(usize),
}

impl Splitter {
    pub(crate) fn new(boundary: &str, parts_max: usize) -> Result<Self, BadMultipart> {
        if boundary.is_empty() || boundary.len() > BOUNDARY_MAX {
            return Err(BadMultipart::Boundary);
        }
        let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
        let mut skips = Box::new([delimiter.len(); 256]);
        for (at, byte) in delimiter[..delimiter.len() - 1].iter().enumerate() {
            skips[usize::from(*byte)] = delimiter.len() - 1 - at;
        }
        // The first delimiter needs no line before it.
        let held = BytesMut::from(&b"\r\n"[..]);
        Ok(Self {
            delimiter,
            skips,
            held,
            state: State::Preamble,
            complete: false,
            passed_bytes: 0,
            parts: 0,
            parts_max,
        })
    }

    /// The next bytes of the body.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        if self.state != State::Done {
            self.held.extend_from_slice(piece);
        }
    }

    /// The body is complete.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// What the bytes so far say next.
    pub(crate) fn next(&mut self) -> Result<Event, BadMultipart> {
        match self.state {
            State::Preamble => self.preamble(),
            State::Headers => self.headers(),
            State::Data => self.data(),
            State::Done => {
                self.held.clear();
                Ok(Event::End)
            }
        }
    }

    fn preamble(&mut self) -> Result<Event, BadMultipart> {
        match self.find() {
            Found::Part(_, start) => {
                _ = self.held.split_to(start);
                self.state = State::Headers;
                self.headers()
            }
            Found::Last(_) => Err(BadMultipart::NoPart),
            Found::Not(_) if self.complete => Err(BadMultipart::NoPart),
            Found::Not(end) => {
                self.passed_bytes += end;
                _ = self.held.split_to(end);
                if self.passed_bytes > PREAMBLE_BYTES_MAX { Err(BadMultipart::NoPart) } else { Ok(Event::More) }
            }
        }
    }

    fn headers(&mut self) -> Result<Event, BadMultipart> {
        let mut headers = Vec::new();
        let mut start = 0;
        loop {
            let line_end = self.held[start..].iter().position(|byte| *byte == b'\n').map(|at| start + at);
            let Some(line_end) = line_end.filter(|end| *end < HEADERS_BYTES_MAX) else {
                if self.held.len() >= HEADERS_BYTES_MAX {
                    return Err(BadMultipart::Headers);
                }
                // A body that ends inside of headers has lost the part they announce.
                return if self.complete { Err(BadMultipart::Headers) } else { Ok(Event::More) };
            };
            let line = self.held[start..line_end].strip_suffix(b"\r").unwrap_or(&self.held[start..line_end]);
            if line.is_empty() {
                // What ends the headers may begin the delimiter of a part without data.
                _ = self.held.split_to(line_end + 1);
                break;
            }
            let line = std::str::from_utf8(line).map_err(|_| BadMultipart::Headers)?;
            let (name, value) = line.split_once(':').ok_or(BadMultipart::Headers)?;
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            start = line_end + 1;
        }
        self.parts += 1;
        if self.parts > self.parts_max {
            return Err(BadMultipart::TooMany { max: self.parts_max });
        }
        self.state = State::Data;
        Ok(Event::Part(PartHead { headers }))
    }

    fn data(&mut self) -> Result<Event, BadMultipart> {
        let (end, next) = match self.find() {
            Found::Part(0, start) => {
                _ = self.held.split_to(start);
                self.state = State::Headers;
                return Ok(Event::PartEnd);
            }
            Found::Last(0) => {
                self.state = State::Done;
                return Ok(Event::PartEnd);
            }
            Found::Part(end, _) | Found::Last(end) => (end, false),
            Found::Not(end) => (end, true),
        };
        if end > 0 {
            return Ok(Event::Data(self.held.split_to(end).freeze()));
        }
        if next && self.complete {
            // Senders that forget the last boundary: what could have been its beginning is no data.
            self.state = State::Done;
            return Ok(Event::PartEnd);
        }
        Ok(Event::More)
    }

    /// The first delimiter in what is held.
    fn find(&self) -> Found {
        let held = &self.held[..];
        let mut from = 0;
        while let Some(at) = self.search(held, from) {
            let after = &held[at + self.delimiter.len()..];
            if after.starts_with(b"--") {
                return Found::Last(at);
            }
            let blank = after.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            match &after[blank..] {
                [b'\r', b'\n', ..] => return Found::Part(at, at + self.delimiter.len() + blank + 2),
                [b'\n', ..] => return Found::Part(at, at + self.delimiter.len() + blank + 1),
                // A hyphen or CR or nothing: the bytes that decide have not come yet.
                [] | [b'\r'] if !self.complete && blank < 256 => return Found::Not(at),
                [b'-'] if !self.complete && blank == 0 => return Found::Not(at),
                [] | [b'\r' | b'-'] if self.complete => return Found::Last(at),
                _ => from = at + 1,
            }
        }
        let tail = (held.len() + 1).saturating_sub(self.delimiter.len()).max(from);
        let open = (tail..held.len()).find(|at| self.delimiter.starts_with(&held[*at..]));
        Found::Not(open.unwrap_or(held.len()))
    }

    fn search(&self, held: &[u8], mut from: usize) -> Option<usize> {
        let length = self.delimiter.len();
        while let Some(window) = held.get(from..from + length) {
            if window == self.delimiter {
                return Some(from);
            }
            from += self.skips[usize::from(window[length - 1])];
        }
        None
    }
}

/// Writes a body: the bytes that stand before each part, and after the last.
#[derive(Debug, Clone)]
pub(crate) struct Joiner {
    boundary: String,
    begun: bool,
}

impl Joiner {
    /// With a boundary that no image holds: 122 random bits.
    pub(crate) fn new() -> Self {
        Self { boundary: format!("triptych-{}", uuid::Uuid::new_v4().simple()), begun: false }
    }

    /// The Content-Type of the whole.
    pub(crate) fn content_type(&self, root_type: &str) -> String {
        format!("multipart/related; type=\"{root_type}\"; boundary={}", self.boundary)
    }

    /// What stands before a part's data.
    pub(crate) fn part(&mut self, content_type: &str, location: &str) -> Bytes {
        let line = if self.begun { "\r\n" } else { "" };
        self.begun = true;
        format!("{line}--{}\r\nContent-Type: {content_type}\r\nContent-Location: {location}\r\n\r\n", self.boundary)
            .into()
    }

    /// What stands after the last part's data.
    pub(crate) fn end(&self) -> Bytes {
        format!("\r\n--{}--\r\n", self.boundary).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All parts of a body that comes in `pieces`: headers' Content-Type, and data.
    fn parts(pieces: &[&[u8]], boundary: &str) -> Result<Vec<(String, Vec<u8>)>, BadMultipart> {
        let mut splitter = Splitter::new(boundary, 100)?;
        let (mut parts, mut pieces) = (Vec::new(), pieces.iter());
        loop {
            match splitter.next()? {
                Event::Part(head) => parts.push((head.get("content-type").unwrap_or("").to_owned(), Vec::new())),
                Event::Data(bytes) => parts.last_mut().expect("a part").1.extend_from_slice(&bytes),
                Event::PartEnd => {}
                Event::End => return Ok(parts),
                Event::More => match pieces.next() {
                    Some(piece) => splitter.push(piece),
                    None => splitter.complete(),
                },
            }
        }
    }

    fn one(body: &[u8]) -> Result<Vec<(String, Vec<u8>)>, BadMultipart> {
        parts(&[body], "B")
    }

    #[test]
    fn a_body_is_its_parts() {
        let body =
            b"--B\r\nContent-Type: application/dicom\r\n\r\none\r\n--B\r\ncontent-type:x\r\n\r\n\r\n--B--\r\nepilogue";
        assert_eq!(one(body), Ok(vec![("application/dicom".into(), b"one".to_vec()), ("x".into(), vec![])]));
    }

    #[test]
    fn a_preamble_and_blanks_after_the_boundary_are_passed_over() {
        assert_eq!(one(b"hello\r\n--B \t\r\n\r\ndata\r\n--B--"), Ok(vec![(String::new(), b"data".to_vec())]));
    }

    #[test]
    fn a_part_without_headers_and_a_missing_last_boundary_are_tolerated() {
        for body in
            [&b"--B\r\n\r\ndata"[..], b"--B\r\n\r\ndata\r\n", b"--B\r\n\r\ndata\r\n--B", b"--B\r\n\r\ndata\r\n--B-"]
        {
            assert_eq!(one(body), Ok(vec![(String::new(), b"data".to_vec())]));
        }
    }

    #[test]
    fn a_boundary_inside_of_data_is_data() {
        let data = b"\r\n--BX\r\n--\r\n-B--B--\r\n --B\r\n\r\n\r\n";
        let body = [&b"--B\r\n\r\n"[..], data, b"\r\n--B--\r\n"].concat();
        assert_eq!(one(&body), Ok(vec![(String::new(), data.to_vec())]));
    }

    #[test]
    fn what_is_no_multipart_body_is_refused() {
        assert_eq!(one(b""), Err(BadMultipart::NoPart));
        assert_eq!(one(b"--B--\r\n"), Err(BadMultipart::NoPart));
        assert_eq!(one(&vec![b'x'; 100_000]), Err(BadMultipart::NoPart));
        assert_eq!(one(b"--B\r\nno colon\r\n\r\n"), Err(BadMultipart::Headers));
        assert_eq!(one(b"--B\r\nContent-Type: x"), Err(BadMultipart::Headers));
        assert_eq!(one(&[&b"--B\r\nA: "[..], &[b'x'; 20_000]].concat()), Err(BadMultipart::Headers));
        assert_eq!(one(&b"--B\r\n\r\n\r\n".repeat(101)), Err(BadMultipart::TooMany { max: 100 }));
        assert_eq!(Splitter::new(&"b".repeat(71), 1).err(), Some(BadMultipart::Boundary));
        assert_eq!(Splitter::new("", 1).err(), Some(BadMultipart::Boundary));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut joiner = Joiner::new();
        let mut body = Vec::new();
        for data in [&b"one"[..], b"", b"\r\n--"] {
            body.extend(joiner.part("application/dicom; transfer-syntax=1.2", "http://h/x"));
            body.extend(data);
        }
        body.extend(joiner.end());
        let boundary = joiner.content_type("application/dicom");
        let boundary = boundary.rsplit_once("boundary=").expect("boundary").1;
        assert!(boundary.len() <= BOUNDARY_MAX);
        let data: Vec<_> = parts(&[&body], boundary).expect("parts").into_iter().map(|(_, data)| data).collect();
        assert_eq!(data, [b"one".to_vec(), vec![], b"\r\n--".to_vec()]);
    }

    proptest! {
        #[test]
        fn however_a_body_is_cut_it_says_the_same(
            data in prop::collection::vec("[\r\n\\-BX ]{0,40}", 1..4),
            cuts in prop::collection::vec(1_usize..7, 0..200),
        ) {
            let mut body = Vec::new();
            for data in &data {
                body.extend_from_slice(b"--BB\r\nContent-Type: t\r\n\r\n");
                body.extend_from_slice(data.as_bytes());
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"--BB--\r\n");
            let whole = parts(&[&body], "BB");
            let (mut pieces, mut rest) = (Vec::new(), &body[..]);
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(parts(&pieces, "BB"), whole);
        }

        #[test]
        fn any_bytes_come_back_as_they_were(
            data in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..4),
            cut in 1_usize..100,
        ) {
            let boundary = "a-boundary-that-random-bytes-do-not-hold";
            let mut body = Vec::new();
            for data in &data {
                body.extend_from_slice(format!("--{boundary}\r\n\r\n").as_bytes());
                body.extend_from_slice(data);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(format!("--{boundary}--").as_bytes());
            let pieces: Vec<_> = body.chunks(cut).collect();
            let read: Vec<_> = parts(&pieces, boundary).expect("parts").into_iter().map(|(_, data)| data).collect();
            prop_assert_eq!(read, data);
        }
    }
}
