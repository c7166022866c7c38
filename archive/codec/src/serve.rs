//! Requests one after the other. Bytes are read as they come, never allocated by a length that somebody declared.

use crate::{coders, refusal::Refusal, render};
use archive_codec_wire::{
    Answer, Failure, Image, Photometric, REQUEST_HEAD_BYTES, Request, SENTENCE_BYTES_MAX, Verb, WireError,
};
use std::{
    io::{self, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// A native or coded frame or a picture, its colours, and whether its planes are apart.
pub(crate) type Frame = (Vec<u8>, Photometric, bool);

/// Answers until the input ends.
pub(crate) fn serve(input: &mut dyn Read, output: &mut dyn Write) -> io::Result<()> {
    loop {
        let mut head = [0; REQUEST_HEAD_BYTES];
        match input.read(&mut head[..1])? {
            0 => return Ok(()),
            _ => input.read_exact(&mut head[1..])?,
        }
        let request = match Request::decode(&head) {
            Ok(request) => request,
            Err(error) => {
                // What follows cannot be told apart from a request any more.
                answer(output, Err(Refusal { failure: Failure::Failed, why: error.to_string() }))?;
                return Err(io::Error::other(error));
            }
        };
        let recipe = read(input, request.recipe)?;
        let stream = read(input, request.length)?;
        answer(output, work(&request, &recipe, &stream))?;
    }
}

fn read(input: &mut dyn Read, length: u32) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() == length as usize { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Whatever a decoder does, this returns, unless the process ends.
fn work(request: &Request, recipe: &[u8], stream: &[u8]) -> Result<Frame, Refusal> {
    let image: &Image = &request.image;
    let done = catch_unwind(AssertUnwindSafe(|| match request.verb {
        Verb::Decode => coders::decode(request.coding, image, stream),
        Verb::Encode => coders::encode(request.coding, image, stream),
        Verb::Render => render::render(request.coding, image, recipe, stream),
    }));
    done.unwrap_or_else(|_| Err(Refusal { failure: Failure::Failed, why: "the decoder panicked on this frame".into() }))
}

fn answer(output: &mut dyn Write, done: Result<Frame, Refusal>) -> io::Result<()> {
    let (outcome, bytes) = match done {
        Ok((bytes, photometric, planar)) => (Ok((photometric, planar)), bytes),
        Err(Refusal { failure, why }) => {
            let mut end = why.len().min(SENTENCE_BYTES_MAX);
            while !why.is_char_boundary(end) {
                end -= 1;
            }
            (Err(failure), why.as_bytes()[..end].to_vec())
        }
    };
    let length = u32::try_from(bytes.len()).map_err(|_| io::Error::other(WireError::TooLarge))?;
    output.write_all(&Answer { outcome, length }.encode())?;
    output.write_all(&bytes)?;
    output.flush()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use archive_codec_wire::{ANSWER_HEAD_BYTES, Coding};

    fn image() -> Image {
        Image {
            rows: 2,
            columns: 3,
            samples: 1,
            allocated: 8,
            stored: 8,
            high: 7,
            signed: false,
            photometric: Photometric::Monochrome2,
            planar: false,
        }
    }

    fn request(coding: Coding, stream: &[u8]) -> Vec<u8> {
        let length = stream.len() as u32;
        let request = Request { verb: Verb::Decode, coding, image: image(), recipe: 0, length };
        [&request.encode()[..], stream].concat()
    }

    fn answers(mut input: &[u8]) -> Vec<(Answer, Vec<u8>)> {
        let mut output = Vec::new();
        let _ = serve(&mut input, &mut output);
        let (mut rest, mut found) = (&output[..], Vec::new());
        while !rest.is_empty() {
            let head = Answer::decode(rest.first_chunk::<ANSWER_HEAD_BYTES>().unwrap()).unwrap();
            let (bytes, after) = rest[ANSWER_HEAD_BYTES..].split_at(head.length as usize);
            found.push((head, bytes.to_vec()));
            rest = after;
        }
        found
    }

    #[test]
    fn requests_are_answered_in_order_and_a_bad_one_spoils_no_other() {
        let good = request(Coding::Native, &[1, 2, 3, 4, 5, 6]);
        let bad = request(Coding::Native, &[1, 2, 3]);
        let found = answers(&[&good[..], &bad, &good].concat());
        let outcomes: Vec<bool> = found.iter().map(|(answer, _)| answer.outcome.is_ok()).collect();
        assert_eq!(outcomes, [true, false, true]);
        assert_eq!(found[2].1, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn bytes_of_another_protocol_are_answered_once_and_end_it() {
        let found = answers(&[b'x'; 100]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0.outcome, Err(Failure::Failed));
    }

    #[test]
    fn a_stream_that_is_cut_off_ends_it() {
        let mut cut = request(Coding::Native, &[1, 2, 3, 4, 5, 6]);
        cut.pop();
        assert!(serve(&mut &cut[..], &mut Vec::new()).is_err());
    }
}
