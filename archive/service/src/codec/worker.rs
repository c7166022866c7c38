//! One process that decodes: what is written to it, and what is believed of its answers.

use super::{CodecError, Frame};
use archive_codec_wire::{ANSWER_HEAD_BYTES, Answer, Failure, Request, Verb};
use std::{path::Path, process::Stdio};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// Killed when dropped.
pub(super) struct Worker {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

/// A frame, or the worker's own reason why there is none.
type Outcome = Result<Frame, (Failure, String)>;

impl Worker {
    pub(super) fn start(program: &Path, memory_mib: u64) -> Result<Self, CodecError> {
        let failed = |why: String| CodecError::Start { program: program.display().to_string(), why };
        let mut command = Command::new(program);
        command.args(["--memory-mib", &memory_mib.to_string()]).env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => Ok(Self { child, input, output }),
            _ => Err(failed("it has no standard input or output".into())),
        }
    }

    /// This worker, unless it has ended.
    pub(super) fn living(mut self) -> Option<Self> {
        matches!(self.child.try_wait(), Ok(None)).then_some(self)
    }

    #[cfg(test)]
    pub(super) async fn ended(&mut self) {
        let _ = self.child.wait().await;
    }

    /// Asks one thing. After an error, or when this future is dropped, the worker must not be asked again.
    pub(super) async fn ask(&mut self, request: &Request, recipe: &[u8], stream: &[u8]) -> Result<Outcome, String> {
        // It reads all of a request before it answers. When it ended instead, reading says so.
        let written = async {
            self.input.write_all(&request.encode()).await?;
            self.input.write_all(recipe).await?;
            self.input.write_all(stream).await?;
            self.input.flush().await
        };
        let written = written.await;
        let mut head = [0; ANSWER_HEAD_BYTES];
        match self.output.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) => return Err(format!("no answer ({})", written.err().unwrap_or(error))),
        }
        let answer = Answer::decode(&head).map_err(|error| error.to_string())?;
        let expected = match (request.verb, answer.outcome) {
            (Verb::Decode, Ok(_)) => Some(request.image.native_bytes()),
            (Verb::Encode | Verb::Render, Ok(_)) | (_, Err(_)) => None,
        };
        if expected.is_some_and(|bytes| bytes != u128::from(answer.length)) {
            return Err("an answer of another length than the frame has".into());
        }
        // What is expected is held under a permit already; anything else grows as it comes.
        let mut bytes = Vec::with_capacity(expected.and(usize::try_from(answer.length).ok()).unwrap_or(0));
        let mut rest = (&mut self.output).take(u64::from(answer.length));
        rest.read_to_end(&mut bytes).await.map_err(|error| error.to_string())?;
        if bytes.len() != answer.length as usize {
            return Err("it ended in the middle of an answer".into());
        }
        Ok(match answer.outcome {
            Ok((photometric, planar)) => Ok(Frame { bytes, photometric, planar }),
            Err(failure) => Err((failure, String::from_utf8_lossy(&bytes).into_owned())),
        })
    }
}
