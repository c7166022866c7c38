//! Structured log lines to standard error: for people, or as JSON.

use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// Starts logging; a filter that cannot be read is an error that says so.
pub(crate) fn start(filter: &str, json: bool) -> Result<(), crate::Failure> {
    // openraft tells its own story at every level; ours is told by raft_groups.
    let filter = EnvFilter::try_new(format!("openraft=error,{filter}"))
        .map_err(|error| format!("--log: `{filter}` is not a filter such as `info,archive_dimse=debug`: {error}"))?;
    let lines = fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        registry.with(lines.json()).init()
    } else {
        registry.with(lines.compact()).init()
    }
    Ok(())
}
