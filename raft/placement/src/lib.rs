//! raft-placement
