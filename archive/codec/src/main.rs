//! `triptych-codec`: turns frames of images from one coding into another, for the server that starts it.
//!
//! A program of its own because its decoders are not trusted: they read bytes of strangers, some are young, one has
//! `unsafe` code. What they may do to themselves (explode, crash, spin) is one failed frame: the server reads what this
//! program says, gives it a time, and starts another one when it is gone.
//!
//! ```text
//!   server ─ request ─► stdin ─► check ─► look at the header ─► compare ─► decode ─► fit ─► check ─► stdout ─► server
//!                                (shape.rs: before and after every decoder)
//! ```
//!
//! It opens no file and no socket, and has a limit to its memory from its first step on. Diagnostics go to stderr and say
//! no value of an image.

mod coders;
mod fit;
mod htj2k;
mod jpeg;
mod jpeg2000;
mod jpegls;
mod jxl;
mod markers;
mod openjpeg;
mod plain;
mod refusal;
mod render;
mod rle;
mod scan;
mod serve;

use rustix::process::{Resource, Rlimit, setrlimit};
use std::process::ExitCode;

const USAGE: &str = "triptych-codec decodes frames for `triptych serve`, which starts it by itself:
  triptych-codec [--memory-mib N]   requests on stdin, answers on stdout; memory at most N MiB (default 1024)
  triptych-codec --version          says its version";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let memory_mib = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Some(1024),
        ["--version"] => {
            println!("triptych-codec {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        ["--memory-mib", number] => number.parse::<u64>().ok().filter(|&mib| (64..=1 << 20).contains(&mib)),
        _ => None,
    };
    let Some(memory_mib) = memory_mib else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let limit = |resource, most| setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    // No core: it would hold images. Memory that is not granted aborts the process, which is one failed frame.
    let limited = limit(Resource::Core, 0).and_then(|()| limit(Resource::As, memory_mib << 20));
    if let Err(error) = limited {
        eprintln!("triptych-codec: its memory cannot be limited: {error}");
        return ExitCode::FAILURE;
    }
    // What a decoder says when it panics may hold what it read.
    std::panic::set_hook(Box::new(|_| {}));
    match serve::serve(&mut std::io::stdin().lock(), &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("triptych-codec: {error}");
            ExitCode::FAILURE
        }
    }
}
