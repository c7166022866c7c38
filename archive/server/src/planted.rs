//! Bugs on purpose, for tests of real processes: `TRIPTYCH_PLANTED_BUG=verified-unread`. Only with the feature `planted-bugs`;
//! without it none of this is compiled.

use crate::Failure;
use raft_lanes::Sabotage;

/// What the environment asks for; said loudly, so that a test knows that this build can.
pub(crate) fn bug() -> Result<Option<Sabotage>, Failure> {
    let Ok(name) = std::env::var("TRIPTYCH_PLANTED_BUG") else { return Ok(None) };
    let bug = match &*name {
        "verified-unread" => Sabotage::VerifiedUnread,
        other => return Err(format!("TRIPTYCH_PLANTED_BUG: `{other}` is none; there is `verified-unread`").into()),
    };
    tracing::error!(?bug, "a bug is planted in this process: it is for tests alone");
    Ok(Some(bug))
}
