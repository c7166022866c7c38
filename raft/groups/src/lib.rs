//! raft-groups
