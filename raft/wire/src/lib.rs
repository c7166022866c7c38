//! raft-wire
